/// `tributary backfill`: what is to be read, its progress, and how it ended.
module Tributary.Cli.Backfilling

open System
open System.Collections.Generic
open System.Diagnostics
open System.IO
open System.Threading.Tasks
open Argu
open Microsoft.Extensions.Logging
open Spectre.Console
open Tributary
open Tributary.Cli.Arguments
open Tributary.Cli.Commands
open Tributary.Cli.Terminal
open Tributary.Stores

/// `@FILE` stands for the lines of a file, without empty ones and those that begin with `#`.
let words (given: string list) : string list = [
    for word in given do
        if word.StartsWith '@' then
            let path = word.Substring 1

            let lines =
                try
                    File.ReadAllLines path
                with
                | :? IOException
                | :? UnauthorizedAccessException as error ->
                    refuse Exit.Usage $"--markets {word}: {error.Message}"

            for line in lines do
                match line.Trim() with
                | "" -> ()
                | line when line.StartsWith '#' -> ()
                | line -> line
        else
            yield! word.Split(',', StringSplitOptions.RemoveEmptyEntries ||| StringSplitOptions.TrimEntries)
]

let selections (given: string list) =
    let found =
        words given
        |> List.map (fun word ->
            match Selection.parse word with
            | Ok selection -> selection
            | Error message -> refuse Exit.Usage $"--markets: {message}")
        |> List.distinct

    if found.IsEmpty then
        refuse Exit.Usage "--markets names no market"

    found

let private number (value: int64) = value.ToString "N0"

/// Much is to be read and little is known of it beforehand: the time since the first report and the share that is done say when it
/// will end.
let private remaining (elapsed: TimeSpan) share =
    if share > 0.01 && share < 1.0 && elapsed > TimeSpan.FromSeconds 3.0 then
        $", about {age (elapsed * ((1.0 - share) / share))} left"
    else
        ""

/// What all walks have done together.
[<Sealed>]
type private Overall(clock: Stopwatch) =
    let seen = Dictionary<struct (MarketId * string), BackfillProgress>()
    let mutable limit = ""

    member _.Hear(progress: BackfillProgress) =
        seen[struct (progress.Market, progress.Source)] <- progress

        if progress.Limit > 0 && progress.Limit < Int32.MaxValue then
            limit <- $", limit: {progress.LimitLeft} of {progress.Limit} requests left"

    member _.Rows = seen.Values |> Seq.sumBy (fun one -> int64 one.Rows)
    member _.Requests = seen.Values |> Seq.sumBy (fun one -> int64 one.Pages)
    member _.Done = seen.Values |> Seq.filter _.IsDone |> Seq.length

    member _.Share =
        if seen.Count = 0 then
            0.0
        else
            seen.Values |> Seq.averageBy _.Share

    member this.Line =
        let perSecond = float this.Rows / max 0.001 clock.Elapsed.TotalSeconds

        $"{number this.Rows} rows, %.0f{perSecond} rows/s, {number this.Requests} requests{limit}{remaining clock.Elapsed this.Share}"

let private lineOf (progress: BackfillProgress) =
    let back =
        match progress.Oldest with
        | ValueSome oldest -> $", back to {moment oldest}"
        | ValueNone -> ""

    $"{progress.Slug} ({progress.Source}): {number progress.Pages} requests, {number progress.Rows} rows, {number progress.NewRows} new{back}"

let private stateOf (progress: BackfillProgress) =
    if progress.Error <> "" then
        $"stopped: {progress.Error}"
    elif not progress.IsDone then
        "stopped"
    elif progress.Truncated > 0 then
        $"read, but for {progress.Truncated} seconds that the exchange does not give whole: each is a gap"
    else
        "read"

/// Lines where nobody looks: one for a walk every few seconds, and its last.
let private asLines (clock: Stopwatch) (overall: Overall) work =
    let said = Dictionary<struct (MarketId * string), TimeSpan>()
    let pause = TimeSpan.FromSeconds 5.0
    let mutable next = pause

    let hear (progress: BackfillProgress) =
        lock said (fun () ->
            overall.Hear progress
            let key = struct (progress.Market, progress.Source)

            let isDue =
                match said.TryGetValue key with
                | true, at -> clock.Elapsed - at > pause
                | _ ->
                    said[key] <- clock.Elapsed
                    false

            if isDue || progress.IsDone || progress.Error <> "" then
                said[key] <- clock.Elapsed
                Console.WriteLine(lineOf progress)

            if clock.Elapsed > next then
                next <- clock.Elapsed + pause
                Console.WriteLine overall.Line)

    work hear

/// Bars where somebody does: one for all of it, and one for each walk while it goes on.
let private asBars (overall: Overall) (work: (BackfillProgress -> unit) -> Task<'a>) =
    AnsiConsole
        .Progress()
        .AutoClear(true)
        .HideCompleted(true)
        .Columns(TaskDescriptionColumn(Alignment = Justify.Left), ProgressBarColumn(), PercentageColumn())
        .StartAsync(fun context ->
            let all = context.AddTask("asking which markets are meant", true, 1.0)
            let bars = Dictionary<struct (MarketId * string), ProgressTask>()

            work (fun progress ->
                lock bars (fun () ->
                    overall.Hear progress
                    all.Description <- Markup.Escape overall.Line
                    all.Value <- min 0.999 overall.Share
                    let key = struct (progress.Market, progress.Source)

                    let bar =
                        match bars.TryGetValue key with
                        | true, bar -> bar
                        | _ ->
                            let bar = context.AddTask("", true, 1.0)
                            bars[key] <- bar
                            bar

                    bar.Description <-
                        Markup.Escape $"{cut 40 progress.Slug} ({progress.Source}) {number progress.Rows}"

                    bar.Value <- progress.Share

                    if progress.IsDone || progress.Error <> "" then
                        bar.StopTask()
                        bars.Remove key |> ignore)))

let private planJson (plan: BackfillPlan) = {|
    markets =
        plan.Markets
        |> List.map (fun market -> {|
            slug = market.Slug
            market = string market.Market
        |})
    covered = plan.Covered
    at_least_seconds = plan.AtLeast.TotalSeconds
    reads =
        plan.Reads
        |> List.map (fun read -> {|
            source = read.Source
            slugs = read.Slugs
            since = Instant.text read.Since
            until = Instant.text read.Until
            resumed = read.IsResumed
            requests = read.Estimate.Requests
            fills = read.Estimate.Fills
        |})
|}

let private planTable (plan: BackfillPlan) =
    table [ "source"; "market"; "since"; "until"; ""; "requests"; "fills, about" ] [
        for read in plan.Reads ->
            [
                read.Source
                (match read.Slugs with
                 | [ slug ] -> cut 50 slug
                 | several -> $"{several.Length} markets")
                (if read.Since.Micros <= 0L then
                     "the first"
                 else
                     moment read.Since)
                moment read.Until
                (if read.IsResumed then "goes on" else "")
                number read.Estimate.Requests
                number read.Estimate.Fills
            ]
    ]

    let requests = plan.Reads |> List.sumBy _.Estimate.Requests
    Console.WriteLine ""

    Console.WriteLine
        $"{plan.Markets.Length} markets, {plan.Reads.Length} walks, {plan.Covered} read already; about {number requests} requests, which the limits allow in {age plan.AtLeast}. Judged by the markets' volumes; nothing was stored, and no trades were asked for."

let private resultJson (results: BackfillProgress list) =
    results
    |> List.map (fun result -> {|
        slug = result.Slug
        market = string result.Market
        source = result.Source
        requests = result.Pages
        rows = result.Rows
        new_rows = result.NewRows
        oldest = result.Oldest |> ValueOption.map Instant.text
        truncated = result.Truncated
        is_done = result.IsDone
        error = result.Error
    |})

let backfill (common: Common) (arguments: ParseResults<BackfillArguments>) = task {
    let storedTo =
        arguments.TryGetResult BackfillArguments.Store, arguments.TryGetResult BackfillArguments.QuestDb

    let settings =
        settingsFrom (arguments.TryGetResult BackfillArguments.Config)
        |> meaning (arguments.TryGetResult BackfillArguments.Exchange)
        |> askInstead (arguments.TryGetResult BackfillArguments.Exchange_Url)
        |> storedIn (fst storedTo) (snd storedTo)

    if not (arguments.Contains BackfillArguments.Markets) then
        refuse Exit.Usage "backfill needs a market: --markets SLUG ('tributary markets' searches)"

    let now = TimeProvider.System.GetUtcNow()

    let order: BackfillOrder = {
        Markets = selections (arguments.GetResults BackfillArguments.Markets)
        Since =
            arguments.TryGetResult BackfillArguments.Since
            |> Option.map (since now)
            |> Option.defaultValue (Instant.ofSeconds 0L)
        Until =
            arguments.TryGetResult BackfillArguments.Until
            |> Option.map (since now)
            |> ValueOption.ofOption
        Sources = words (arguments.GetResults BackfillArguments.Source)
        Parallel = arguments.TryGetResult BackfillArguments.Parallel |> Option.defaultValue 8
    }

    if order.Since >= Instant.ofDateTimeOffset now then
        refuse Exit.Usage $"--since {moment order.Since} lies not in the past"

    if order.Until.IsSome && order.Until.Value <= order.Since then
        refuse
            Exit.Usage
            $"--until {moment order.Until.Value} does not lie after --since {moment order.Since}"

    if order.Parallel < 1 || order.Parallel > 64 then
        refuse Exit.Usage "--parallel is a number from 1 to 64"

    let collector = settings.Collectors.Head
    let known = (Setup.collector collector).History |> List.map _.Name

    match order.Sources |> List.tryFind (fun name -> not (List.contains name known)) with
    | Some name ->
        let names = String.concat ", " known
        refuse Exit.Usage $"--source: '{name}' is no source of {collector.Exchange}; they are {names}"
    | None -> ()

    match Setup.vanishing order.Since (Instant.ofDateTimeOffset now) settings with
    | ValueSome why when settings.Store.Kind = "questdb" -> refuse Exit.Usage why
    | ValueSome why -> eprintfn $"{why}"
    | ValueNone -> ()

    use logs = logFor common settings
    use interrupt = new Interrupt()
    let asJson = arguments.Contains BackfillArguments.Json

    if arguments.Contains BackfillArguments.Plan then
        let! checkpoints = task {
            // A store that is not there yet covers nothing.
            match Setup.openStoreToRead settings with
            | Error(OpenFault.Unreachable _) -> return []
            | Error fault -> return refuse Exit.Failed (string fault)
            | Ok store ->
                let! checkpoints = store.Checkpoints()
                do! store.Close()
                return checkpoints
        }

        match! Backfill.plan collector checkpoints TimeProvider.System logs order interrupt.Token with
        | Error fault -> return refuse Exit.Failed (string fault)
        | Ok plan ->
            if asJson then json (planJson plan) else planTable plan
            return Exit.Done
    else
        let store = opened (Setup.openStore settings TimeProvider.System logs)
        let clock = Stopwatch.StartNew()
        let overall = Overall clock

        try
            try
                let work hear =
                    Backfill.run
                        collector
                        (Setup.rules settings.Validation)
                        store
                        TimeProvider.System
                        logs
                        order
                        {
                            new IProgress<BackfillProgress> with
                                member _.Report progress = hear progress
                        }
                        interrupt.Token

                let! outcome =
                    if asJson then work ignore
                    elif isScreen then asBars overall work
                    else asLines clock overall work

                match outcome with
                | Error fault -> return refuse Exit.Failed (string fault)
                | Ok results ->
                    if asJson then
                        json (resultJson results)
                    elif results.IsEmpty then
                        Console.WriteLine "Nothing is left to read: all of it was read before."
                    else
                        for result in results do
                            Console.WriteLine $"{lineOf result} ({stateOf result})"

                        Console.WriteLine overall.Line

                    return
                        if results |> List.forall _.IsDone then
                            Exit.Done
                        else
                            Exit.Failed
            with :? OperationCanceledException when interrupt.Token.IsCancellationRequested ->
                eprintfn
                    "Stopped after %s. The same command goes on where it stopped: what was read is stored and not asked for again."
                    overall.Line

                return interrupt.ExitCode
        finally
            store.Close().AsTask().Wait()
}
