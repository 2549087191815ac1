/// `tributary audit`: which days of which markets are whole, and why the others are not.
module Tributary.Cli.Auditing

open System
open System.Globalization
open Argu
open Tributary
open Tributary.Cli.Arguments
open Tributary.Cli.Commands
open Tributary.Cli.Terminal

let private hex (digest: UInt128) =
    digest.ToString("x32", CultureInfo.InvariantCulture)

let private day (at: Instant) =
    (Instant.toDateTimeOffset at).ToString "yyyy-MM-dd"

let private number (value: int64) =
    value.ToString("N0", CultureInfo.InvariantCulture)

let private amount (value: decimal) =
    value.ToString("N2", CultureInfo.InvariantCulture)

let private plain (value: decimal) =
    value.ToString CultureInfo.InvariantCulture

/// Days one after the other that are judged the same.
let private stretches (days: AuditedDay list) : AuditedDay list list =
    let grow done' (next: AuditedDay) =
        match done' with
        | (last: AuditedDay :: _ as same) :: earlier when last.Verdict = next.Verdict ->
            (next :: same) :: earlier
        | _ -> [ next ] :: done'

    days |> List.fold grow [] |> List.rev |> List.map List.rev

let private rowOf (market: AuditedMarket) (days: AuditedDay list) =
    let first, last = days.Head, List.last days

    let sum =
        days |> List.fold (fun sum one -> DayTally.add sum one.Tally) DayTally.none

    let gaps = days |> List.sumBy _.Gaps

    [
        cut 40 market.Market.Slug
        (if days.Length = 1 then
             day first.Day
         else
             $"{day first.Day} to {day last.Day}")
        number (int64 days.Length)
        number sum.Api.Fills
        number sum.Chain.Fills
        number sum.Stream.Fills
        amount (max sum.Api.Value sum.Chain.Value)
        number (int64 gaps)
        string first.Verdict
    ]

let private headings = [
    "market"
    "days (UTC)"
    "n"
    "api"
    "chain"
    "stream"
    "volume"
    "gaps"
    "verdict"
]

/// What the market's own volume says beside ours: how the exchange counts is not documented, so it is no verdict.
let private volumes (market: AuditedMarket) =
    let ours = max market.Total.Api.Value market.Total.Chain.Value

    match market.Market.Volume with
    | ValueSome volume when volume.Millionths > 0L ->
        let theirs = decimal volume.Millionths / 1_000_000m
        $"{amount theirs} (ours {ours / theirs:P1})"
    | _ -> "not told"

let private sums (sums: Sums) = {|
    fills = sums.Fills
    size = plain sums.Size
    volume = plain sums.Value
|}

let private verdictJson verdict =
    match verdict with
    | DayVerdict.Complete -> "complete", []
    | DayVerdict.Degraded reasons -> "degraded", reasons
    | DayVerdict.Missing reason -> "missing", [ reason ]

let private asJson (audited: AuditedMarket list) = {|
    complete = Audit.isComplete audited
    digest = hex (Audit.digest audited)
    markets =
        audited
        |> List.map (fun market -> {|
            slug = market.Market.Slug
            market = string market.Market.Market
            digest = hex market.Total.Digest
            exchange_volume =
                market.Market.Volume
                |> ValueOption.map (fun volume -> plain (decimal volume.Millionths / 1_000_000m))
            days =
                market.Days
                |> List.map (fun one ->
                    let verdict, reasons = verdictJson one.Verdict

                    {|
                        day = day one.Day
                        judged_since = Instant.text one.Judged.Since
                        judged_until = Instant.text one.Judged.Until
                        verdict = verdict
                        reasons = reasons
                        notes = one.Notes
                        api = sums one.Tally.Api
                        chain = sums one.Tally.Chain
                        chain_makers = sums one.Tally.Makers
                        stream = sums one.Tally.Stream
                        unconfirmed = one.Tally.Unconfirmed
                        gaps = one.Gaps
                        truncated = one.Truncated
                        digest = hex one.Tally.Digest
                    |})
        |})
|}

let private plural (count: int) (word: string) =
    if count = 1 then $"{count} {word}" else $"{count} {word}s"

let audit (_: Common) (arguments: ParseResults<AuditArguments>) = task {
    let settings =
        settingsFrom (arguments.TryGetResult AuditArguments.Config)
        |> storedIn
            (arguments.TryGetResult AuditArguments.Store)
            (arguments.TryGetResult AuditArguments.QuestDb)

    let now = TimeProvider.System.GetUtcNow()

    let selected =
        match arguments.GetResults AuditArguments.Markets with
        | [] -> []
        | given -> Backfilling.selections given

    let wanted: Interval = {
        Since =
            arguments.TryGetResult AuditArguments.Since
            |> Option.map (since now)
            |> Option.defaultValue (Instant.ofMicros Int64.MinValue)
        Until =
            arguments.TryGetResult AuditArguments.Until
            |> Option.map (since now)
            |> Option.defaultValue (Instant.ofDateTimeOffset now)
    }

    use interrupt = new Interrupt()
    let store = opened (Setup.openStoreToRead settings)

    try
        try
            let! audited =
                Audits.run
                    (Setup.collector settings.Collectors.Head)
                    store
                    (fun market -> selected.IsEmpty || List.exists (Selection.selects market) selected)
                    wanted
                    TimeProvider.System
                    ignore
                    interrupt.Token

            let unknown =
                selected
                |> List.filter (fun one ->
                    not (audited |> List.exists (fun found -> Selection.selects found.Market one)))

            match unknown with
            | [] -> ()
            | some ->
                let names = some |> List.map string |> String.concat ", "
                refuse Exit.Failed $"nothing is stored of {names} in {storeName settings}"

            if arguments.Contains AuditArguments.Json then
                json (asJson audited)
            elif audited.IsEmpty then
                Console.WriteLine $"{storeName settings} has no markets: nothing can be complete."
            else
                table headings [
                    for market in audited do
                        let lines =
                            if arguments.Contains AuditArguments.Days then
                                market.Days |> List.map List.singleton
                            else
                                stretches market.Days

                        for days in lines -> rowOf market days
                ]

                Console.WriteLine ""

                table [ "market"; "fills"; "the exchange's volume"; "digest" ] [
                    for market in audited ->
                        [
                            cut 40 market.Market.Slug
                            number (max market.Total.Api.Fills market.Total.Chain.Fills)
                            volumes market
                            hex market.Total.Digest
                        ]
                ]

                for market in audited do
                    for one in market.Days do
                        for note in one.Notes do
                            Console.WriteLine $"note: {market.Market.Slug} {day one.Day}: {note}"

                let days = audited |> List.collect _.Days

                let count judge =
                    days |> List.filter (fun one -> judge one.Verdict) |> List.length

                Console.WriteLine ""

                Console.WriteLine
                    $"""{plural days.Length "day"} of {plural audited.Length "market"}: {count _.IsComplete} complete, {count _.IsDegraded} degraded, {count _.IsMissing} missing; digest {hex (Audit.digest audited)}"""

            return if Audit.isComplete audited then Exit.Done else Exit.Failed
        with :? OperationCanceledException when interrupt.Token.IsCancellationRequested ->
            return interrupt.ExitCode
    finally
        store.Close().AsTask().Wait()
}
