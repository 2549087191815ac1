/// `tributary compact`: what is old goes, and the file becomes as small as what is in it.
module Tributary.Cli.Compacting

open System
open System.Globalization
open Argu
open Tributary
open Tributary.Cli.Arguments
open Tributary.Cli.Commands
open Tributary.Cli.Terminal
open Tributary.Stores

let private megabytes (bytes: int64) =
    (float bytes / 1e6).ToString("N1", CultureInfo.InvariantCulture) + " MB"

let compact (_: Common) (arguments: ParseResults<CompactArguments>) = task {
    let settings =
        settingsFrom (arguments.TryGetResult CompactArguments.Config)
        |> storedAt (arguments.TryGetResult CompactArguments.Store)

    let path =
        match settings.Store.Kind with
        | "memory" -> refuse Exit.Usage "the configured store is in memory: there is no file to compact"
        | "questdb" -> settings.Store.QuestDb.Outbox
        | _ -> settings.Store.Path

    // What is in an outbox waits, however old it is.
    let retention =
        if settings.Store.Kind = "questdb" then
            (Settings.defaults []).Store.Retention
        else
            settings.Store.Retention

    use interrupt = new Interrupt()
    let now = Instant.ofDateTimeOffset (TimeProvider.System.GetUtcNow())

    try
        match! Sqlite.compact path settings.Collector retention now interrupt.Token with
        | Error fault -> return refuse Exit.Failed (string fault)
        | Ok compacted ->
            for expired in compacted.Expired do
                let rows = expired.Rows.ToString("N0", CultureInfo.InvariantCulture)

                Console.WriteLine
                    $"{expired.Table}: {rows} rows were older than they are kept, and are deleted"

            Console.WriteLine
                $"{path}: {megabytes compacted.Before} before, {megabytes compacted.After} after"

            return Exit.Done
    with :? OperationCanceledException when interrupt.Token.IsCancellationRequested ->
        Console.WriteLine $"{path} is not compacted; nothing of it is lost"
        return interrupt.ExitCode
}
