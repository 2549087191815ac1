/// `tributary demo`: an exchange and a collector in one process, over real sockets; then the books are balanced.
module Tributary.Cli.Demo

open System
open System.Collections.Concurrent
open System.Collections.Generic
open System.IO
open System.Threading
open System.Threading.Tasks
open Argu
open Microsoft.Extensions.Logging
open Spectre.Console
open Tributary
open Tributary.Cli.Arguments
open Tributary.Cli.Commands
open Tributary.Cli.Terminal
open Tributary.Server.Simulator
open Tributary.Stores

let private demoCadence = {
    Books = TimeSpan.FromSeconds 2.0
    Trades = TimeSpan.FromSeconds 1.0
    Markets = TimeSpan.FromSeconds 10.0
    Jitter = 0.05
}

/// What a demo can collect into.
let stores = [ "sqlite"; "questdb"; "both" ]

let private summarise (report: Accounting.Report) =
    for line in Accounting.lines report do
        Console.WriteLine line

    if report.Unexplained = 0 then
        Console.WriteLine "Everything is accounted for."
        Exit.Done
    else
        Console.WriteLine "Something is missing and no gap says so."
        Exit.Failed

let private recount folder = task {
    if not (File.Exists(Path.Combine(folder, "truth.json"))) then
        refuse Exit.Usage $"{folder} holds no demo: 'tributary demo --keep {folder}' makes one"

    let store = openToRead (Path.Combine(folder, "tributary.db"))
    let! report = Accounting.account (Accounting.load folder) store
    do! store.Close()
    return summarise report
}

/// A server may hold other demos, and more: only this one's rows count.
let private only (truth: Accounting.Truth) (store: Store) : Store =
    let tokens, markets = HashSet<string>(), HashSet<string>()

    for trade in truth.Trades do
        tokens.Add trade.Token |> ignore

    for poll in truth.Polls do
        tokens.Add poll.Token |> ignore
        markets.Add poll.Market |> ignore

    let where isOwn (rows: Task<'T list>) = task {
        let! rows = rows
        return rows |> List.filter isOwn
    }

    {
        store with
            Trades =
                fun query -> store.Trades query |> where (fun trade -> tokens.Contains(string trade.Token))
            Books = fun query -> store.Books query |> where (fun book -> tokens.Contains(string book.Token))
            Gaps = fun query -> store.Gaps query |> where (fun gap -> markets.Contains(string gap.Gap.Market))
    }

/// Waits until the server shows what it took; whatever the collector could not send before it stopped goes out first.
let private countIn (settings: Settings) (logs: ILoggerFactory) (truth: Accounting.Truth) = task {
    let store = opened (Setup.openStore settings TimeProvider.System logs)
    use patience = new CancellationTokenSource(TimeSpan.FromMinutes 2.0)

    try
        try
            do! store.Flush patience.Token
        with :? OperationCanceledException ->
            refuse Exit.Failed $"{storeName settings} did not show everything within two minutes"

        let read =
            opened (
                Setup.openStoreToRead {
                    settings with
                        Settings.Store.Kind = "questdb"
                }
            )

        let! report = Accounting.account truth (only truth read)
        do! read.Close()
        return summarise report
    finally
        store.Close().AsTask().Wait()
}

let private collect (common: Common) (arguments: ParseResults<DemoArguments>) folder = task {
    let seconds = arguments.TryGetResult DemoArguments.Seconds |> Option.defaultValue 20
    let count = arguments.TryGetResult DemoArguments.Markets |> Option.defaultValue 200

    if seconds < 1 || count < 1 then
        refuse Exit.Usage "--seconds and --markets take a number from 1 up"

    let kind =
        arguments.TryGetResult DemoArguments.Store |> Option.defaultValue "sqlite"

    if not (List.contains kind stores) then
        refuse Exit.Usage $"--store takes sqlite, questdb or both; got '{kind}'"

    if kind = "sqlite" && arguments.Contains DemoArguments.QuestDb then
        refuse Exit.Usage "--questdb goes with --store questdb or --store both"

    use interrupt = new Interrupt()
    let clock = TimeProvider.System

    // On a server that holds other demos, another seed makes other markets.
    let seed =
        match arguments.TryGetResult DemoArguments.Seed with
        | Some seed -> seed
        | None when kind = "sqlite" -> 1
        | None -> int (clock.GetUtcNow().ToUnixTimeSeconds() % 1_000_000_000L)

    let! simulator =
        Simulator.StartAsync(
            {
                SimulatorOptions.Default with
                    Markets = count
                    Seed = seed
                    Faults = faultsFrom (arguments.TryGetResult DemoArguments.Faults)
            },
            interrupt.Token
        )

    let path = Path.Combine(folder, "tributary.db")
    let outbox = Path.Combine(folder, "outbox.db")

    // Of an earlier demo: `demo` lets no other folder come here.
    for leftover in [ path; path + "-wal"; path + "-shm"; outbox; outbox + "-wal"; outbox + "-shm" ] do
        File.Delete leftover

    let settings =
        Settings.defaults Setup.known
        |> askInstead (Some simulator.Address.AbsoluteUri)
        |> (if kind = "sqlite" then
                storedAt (Some path)
            else
                storedIn
                    (if kind = "both" then Some path else None)
                    (Some(
                        arguments.TryGetResult DemoArguments.QuestDb
                        |> Option.defaultValue "http::addr=localhost:9000;"
                    )))
        |> Setup.waitingAt outbox
        |> Setup.onFirst (fun collector -> {
            collector with
                Discovery = {
                    collector.Discovery with
                        Enabled = true
                        MaxMarkets = 10 * count
                }
        })
        // The accounts below are those of polls; what is live has a ledger of its own.
        |> Setup.pollingOnly
        |> fun settings -> { settings with Schedule = demoCadence }

    // Faults that were ordered need no word in the log each; the summary counts them.
    use logs =
        logFor
            {
                common with
                    Level = Some(Option.defaultValue "error" common.Level)
            }
            settings

    let polls = ConcurrentQueue<Polled>()

    let! engine =
        Engine.StartAsync(
            {
                Settings = settings
                Store = opened (Setup.openStore settings clock logs)
                Clock = clock
                Logs = logs
                Collector = Setup.collector
                ProgressLog = None
                Polled = polls.Enqueue
            },
            interrupt.Token
        )

    Console.WriteLine
        $"Exchange at {simulator.Address}: {count} markets, {2 * count} tokens. Collecting into {storeName settings} for {seconds} s."

    let began = clock.GetTimestamp()
    let elapsed () = clock.GetElapsedTime began

    let line (status: EngineStatus) =
        let total (measure: Measure) =
            status.Counts
            |> List.filter (fun metric -> metric.Name = measure.Name)
            |> List.sumBy _.Value

        let stored stream =
            status.Counts
            |> List.filter (fun metric ->
                metric.Name = Count.eventsStored.Name
                && metric.Labels.EndsWith("stream=" + stream))
            |> List.sumBy _.Value

        let trades, books = stored "trades", stored "books"
        let unchanged, requests = total Count.unchanged, total Count.requests

        $"%4.0f{elapsed().TotalSeconds} s  %.0f{trades} trades, %.0f{books} books stored, %.0f{unchanged} unchanged, %.0f{requests} requests, {status.Broken} of {status.Flows} flows in a gap"

    /// Shows progress, four times a second, until it is over.
    let watch show (isOver: EngineStatus -> bool) = task {
        let mutable isWatching = true

        while isWatching && not interrupt.Token.IsCancellationRequested do
            do! Task.Delay(TimeSpan.FromMilliseconds 250.0, clock)
            let! status = engine.StatusAsync()
            show (line status)
            isWatching <- not (isOver status)
    }

    // A last round after the exchange stands still: every flow has to be read once more, without a hole.
    let finish show = task {
        do! watch show (fun _ -> elapsed () >= TimeSpan.FromSeconds(float seconds))
        simulator.Freeze()
        let frozen = Instant.ofDateTimeOffset (clock.GetUtcNow())
        let patience = elapsed () + TimeSpan.FromSeconds 60.0

        let marketsOf (polls: Polled seq) =
            polls
            |> Seq.filter (fun polled -> polled.Job.Stream = Stream.Trades)
            |> Seq.map _.Market
            |> Set.ofSeq

        let isSettled (status: EngineStatus) =
            let since =
                polls
                |> Seq.filter (fun polled -> polled.Due > frozen && not polled.Outcome.IsMissed)

            let followed = marketsOf polls

            not followed.IsEmpty && status.Broken = 0 && marketsOf since = followed
            || elapsed () > patience

        do! watch show isSettled
    }

    if isScreen then
        do!
            AnsiConsole
                .Status()
                .StartAsync(
                    "starting",
                    fun context -> finish (fun text -> context.Status <- Markup.Escape text) :> Task
                )
    else
        let mutable said = TimeSpan.Zero

        do!
            finish (fun text ->
                if elapsed () - said >= TimeSpan.FromSeconds 5.0 then
                    said <- elapsed ()
                    Console.WriteLine text)

    let! stopped = engine.StopAsync(TimeSpan.FromSeconds 20.0)

    stopped.Undrained
    |> Option.iter (fun detail -> eprintfn "Not everything could be stored: %s" detail)

    let truth: Accounting.Truth = {
        Trades = simulator.Ledger.Trades
        Requests = simulator.Ledger.Requests
        Polls = Accounting.polls polls
        BookCadence = demoCadence.Books
        Stopped = clock.GetUtcNow()
    }

    do! (simulator :> IAsyncDisposable).DisposeAsync()

    if interrupt.Token.IsCancellationRequested then
        eprintfn "Stopped before its end: nothing is accounted for."
        return interrupt.ExitCode
    else
        Accounting.save folder truth

        if kind = "questdb" then
            return! countIn settings logs truth
        else
            let! code = recount folder

            if kind = "sqlite" || code <> Exit.Done then
                return code
            else
                Console.WriteLine "The same in QuestDB:"
                return! countIn settings logs truth
}

let demo (common: Common) (arguments: ParseResults<DemoArguments>) = task {
    match arguments.TryGetResult DemoArguments.Recount, arguments.TryGetResult DemoArguments.Keep with
    | Some folder, _ -> return! recount folder
    | None, Some folder ->
        Directory.CreateDirectory folder |> ignore

        // Only an earlier demo is written over: whatever else is there may be somebody's data.
        if
            Seq.isEmpty (Directory.EnumerateFileSystemEntries folder) |> not
            && not (File.Exists(Path.Combine(folder, "truth.json")))
        then
            refuse Exit.Usage $"{folder} is not empty and holds no earlier demo: name another folder"

        return! collect common arguments folder
    | None, None ->
        let folder = Directory.CreateTempSubdirectory("tributary-demo-").FullName

        try
            return! collect common arguments folder
        finally
            Directory.Delete(folder, true)
}
