/// What each command does. Arguments are understood already; what goes wrong is said in one line and an exit code.
module Tributary.Cli.Commands

open System
open System.Collections.Generic
open System.IO
open System.Text.Json
open System.Threading
open System.Threading.Tasks
open Argu
open Microsoft.Extensions.Logging
open Spectre.Console
open Tributary
open Tributary.Cli.Arguments
open Tributary.Cli.Terminal
open Tributary.Server
open Tributary.Server.Simulator
open Tributary.Stores

/// Options that every command takes.
type Common = { Level: string option; Verbose: bool }

// ---------------------------------------------------------------------------------------------------------------------------
// Settings: from files, changed by options.

let private mistaken (mistakes: Mistake list) =
    for mistake in mistakes do
        eprintfn "%s" (Mistake.render mistake)

    let count =
        if mistakes.Length = 1 then
            "1 mistake"
        else
            $"{mistakes.Length} mistakes"

    refuse Exit.Configuration $"the configuration has {count}, listed above"

/// Where the configuration is: a path that was given, or the folder `config` if it is there.
let configIn (path: string option) =
    match path with
    | None when Directory.Exists "config" -> Some "config"
    | path -> path

/// The configuration in a path, or the folder `config` if it is there, or the defaults.
let settingsFrom (path: string option) =
    match Setup.read (configIn path) with
    | Ok settings -> settings
    | Error mistakes -> mistaken mistakes

/// The names of all exchanges.
let exchangeNames = Setup.known |> List.map _.Name

/// What a mapping's file says, if it is there; exit code 78 for a mistaken one.
let mappingIn (path: string) =
    match Mapping.read exchangeNames path with
    | Ok mapping -> mapping
    | Error mistakes -> mistaken mistakes

let logFor (common: Common) (settings: Settings) =
    match common.Level with
    | Some level -> logger level Map.empty settings.LogFormat common.Verbose
    | None -> logger settings.LogLevel settings.LogLevels settings.LogFormat common.Verbose

let askInstead (address: string option) (settings: Settings) =
    match address with
    | None -> settings
    | Some text ->
        match Uri.TryCreate(text, UriKind.Absolute) with
        | true, NonNull address when address.Scheme = "http" || address.Scheme = "https" ->
            Setup.askingAt address settings
        | _ -> refuse Exit.Usage $"'{text}' is not an address such as http://127.0.0.1:8080"

/// What is said of markets and addresses is said of this exchange.
let meaning (exchange: string option) (settings: Settings) =
    match exchange with
    | None -> settings
    | Some name ->
        match Setup.preferring name settings with
        | Ok settings -> settings
        | Error message -> refuse Exit.Usage $"--exchange: {message}"

let storedAt (path: string option) (settings: Settings) =
    path
    |> Option.fold (fun settings path -> Setup.storingAt path settings) settings

let opened (store: Result<Store, OpenFault>) =
    match store with
    | Ok store -> store
    | Error fault -> refuse Exit.Failed (string fault)

let openToRead path = opened (Sqlite.openForReading path)

/// Stores where the options say: to a file, to QuestDB, to both.
let storedIn (path: string option) (questdb: string option) (settings: Settings) =
    let settings = storedAt path settings

    match questdb with
    | None -> settings
    | Some connection ->
        match Setup.sendingTo path.IsSome connection settings with
        | Ok settings -> settings
        | Error message -> refuse Exit.Usage $"--questdb: {message}"

/// What the store is, for a person.
let storeName (settings: Settings) =
    match settings.Store.Kind with
    | "questdb" -> string settings.Store.QuestDb.Connection
    | "both" -> $"{settings.Store.Path} and {settings.Store.QuestDb.Connection}"
    | "memory" -> "memory"
    | _ -> settings.Store.Path

let duration (text: string) =
    match Yaml.tryDuration text with
    | Some span -> span
    | None -> refuse Exit.Usage $"'{text}' is not a duration such as 30s, 5m or 1h30m"

/// One JSON document on standard output.
let json value =
    Console.WriteLine(JsonSerializer.Serialize(value, JsonSerializerOptions(WriteIndented = true)))

// ---------------------------------------------------------------------------------------------------------------------------

/// What `start` was told on its line, over what the files say.
let private toldTo (arguments: ParseResults<StartArguments>) (settings: Settings) =
    settings
    |> meaning (arguments.TryGetResult StartArguments.Exchange)
    |> askInstead (arguments.TryGetResult StartArguments.Exchange_Url)
    |> storedIn (arguments.TryGetResult StartArguments.Store) (arguments.TryGetResult StartArguments.QuestDb)
    |> Setup.picking (arguments.GetResults StartArguments.Market) (arguments.GetResults StartArguments.Event)

/// Looks after the configuration of a collector that runs: what it can take on it does, at a SIGHUP or when a file changed. A mistaken
/// configuration is refused whole.
let private reloading
    (interrupt: Interrupt)
    (path: string)
    (told: Settings -> Settings)
    (log: ILogger)
    (engine: Engine)
    (matched: Mapping voption -> unit)
    =
    let gate = obj ()

    let reload (always: bool) =
        lock gate (fun () ->
            match Setup.read (Some path), Mapping.read exchangeNames (Mapping.beside path) with
            | settings, mapping when settings.IsError || mapping.IsError ->
                let mistakesOf result =
                    match result with
                    | Error mistakes -> mistakes
                    | Ok _ -> []

                for mistake in mistakesOf settings @ mistakesOf mapping do
                    Log.reloadRefused log (Mistake.render mistake)
            | Error _, _
            | _, Error _ -> ()
            | Ok fresh, Ok mapping ->
                matched mapping
                let fresh = told fresh

                match Reload.changes (Settings.flat engine.Settings) (Settings.flat fresh) with
                | [] ->
                    if always then
                        Log.reloadedNothing log
                | changes ->
                    for change in changes do
                        Log.reloaded log (string change)

                    engine.Follow fresh)

    // Whether a file is another one: names, times and lengths. Watching folders misses files that are linked into them.
    let stamp () =
        let files =
            if File.Exists path then
                [ path; Mapping.beside path ]
            else
                try
                    [
                        yield! Directory.GetFiles(path, "*.yaml")
                        let markets = Path.Combine(path, "markets")

                        if Directory.Exists markets then
                            yield! Directory.GetFiles(markets, "*.yaml")
                    ]
                with :? IOException -> []

        [
            for file in List.sort files do
                let info = FileInfo file
                file, info.LastWriteTimeUtc, (if info.Exists then info.Length else -1L)
        ]

    let seen = ref (stamp ())

    let look () =
        try
            let now = stamp ()

            if now <> seen.Value then
                seen.Value <- now
                reload false
        with :? UnauthorizedAccessException as error ->
            // Nothing that goes wrong here may end a collector.
            Log.reloadRefused log error.Message

    let timer =
        new Timer((fun _ -> look ()), null, TimeSpan.FromSeconds 2.0, TimeSpan.FromSeconds 2.0)

    let hangUp = interrupt.OnHangUp(fun () -> reload true)

    {
        new IDisposable with
            member _.Dispose() =
                hangUp.Dispose()
                timer.Dispose()
    }

/// Takes a store to what the mapping says, in the background and one time after the other.
let private matching (engine: Engine) (store: Store) (log: ILogger) (path: string) =
    let turn = new SemaphoreSlim 1

    fun (mapping: Mapping voption) ->
        task {
            do! turn.WaitAsync()

            try
                try
                    match mapping with
                    | ValueSome mapping ->
                        let! struct (rows, untold) =
                            Pairs.changes
                                store
                                (Instant.ofDateTimeOffset (TimeProvider.System.GetUtcNow()))
                                mapping

                        for mistake in untold do
                            Log.matchUntold log (Mistake.render mistake)

                        if not rows.IsEmpty then
                            do! engine.Add(fun batch -> batch.Matches.AddRange rows)
                            let withdrawn = rows |> List.filter _.IsWithdrawn |> List.length
                            Log.matches log (rows.Length - withdrawn) withdrawn path
                    | ValueNone -> ()
                with error ->
                    Log.matchesUnread log path error
            finally
                turn.Release() |> ignore
        }
        |> ignore<Task<unit>>

let private collect (common: Common) (arguments: ParseResults<StartArguments>) config (settings: Settings) =
    task {
        let runFor = arguments.TryGetResult StartArguments.For |> Option.map duration

        if not (Setup.hasWork settings) then
            refuse
                Exit.Configuration
                "there is nothing to collect: name markets in config/markets/*.yaml, switch discovery on, or use --market SLUG"

        let mapped = configIn config |> Option.map Mapping.beside
        let mapping = mapped |> Option.map mappingIn |> Option.defaultValue ValueNone
        use logs = logFor common settings
        let log = logs.CreateLogger(Logs.category Logs.Engine)
        use interrupt = new Interrupt()
        let store = opened (Setup.openStore settings TimeProvider.System logs)
        use _ = Telemetry.start settings

        let! engine = task {
            try
                return!
                    Engine.StartAsync(
                        {
                            Settings = settings
                            Store = store
                            Clock = TimeProvider.System
                            Logs = logs
                            Collector = Setup.collector
                            ProgressLog = arguments.TryGetResult StartArguments.Progress_Log
                            Polled = ignore
                        },
                        interrupt.Token
                    )
            with
            | :? Security.Authentication.AuthenticationException as error ->
                do! store.Close()
                return refuse Exit.Configuration error.Message
            | :? TimeoutException as error ->
                do! store.Close()
                return refuse Exit.Failed error.Message
        }

        let matched =
            matching engine store log (mapped |> Option.defaultValue Mapping.FileName)

        matched mapping

        let web =
            if settings.Http.Web || arguments.Contains StartArguments.Web then
                match Web.Open(engine, TimeProvider.System) with
                | Ok web -> Some web
                | Error message ->
                    Log.pageClosed log message
                    None
            else
                None

        let! door =
            Door.TryOpenAsync(settings.Http, Shown.ofEngine engine, web, logs, interrupt.Token)

        use _ =
            match configIn config with
            | Some path -> reloading interrupt path (toldTo arguments) log engine matched
            | None -> interrupt.OnHangUp(fun () -> Log.reloadedNothing log)

        try
            let limit = runFor |> Option.defaultValue Timeout.InfiniteTimeSpan
            let! ended = Task.WhenAny(Task.Delay(limit, interrupt.Token), engine.Died)
            do! ended
        with :? OperationCanceledException ->
            ()

        for door in Option.toList door do
            do! (door :> IAsyncDisposable).DisposeAsync()

        for web in Option.toList web do
            do! (web :> IAsyncDisposable).DisposeAsync()

        let! report = engine.StopAsync(TimeSpan.FromSeconds 20.0)

        return
            if report.Undrained.IsSome || engine.Died.IsCompleted then
                Exit.Failed
            else
                interrupt.ExitCode
    }

/// Asks the collector that runs for a path of the door that the settings name.
let private askRunning (settings: Settings) (patience: TimeSpan) (path: string) = task {
    match Running.doorOf settings.Http with
    | Error message -> return Error message
    | Ok door -> return! Running.ask door patience path
}

/// What these settings would change in the collector that runs: asked at its door.
let private dryRun (settings: Settings) : Task<int> = task {
    let! answer = askRunning settings (TimeSpan.FromSeconds 5.0) "/settings"

    let running =
        answer
        |> Result.mapError string
        |> Result.bind (fun text ->
            try
                match JsonSerializer.Deserialize<Dictionary<string, string>> text with
                | null -> Error "it answered nothing"
                | running -> Ok running
            with :? JsonException ->
                Error "its answer is not a collector's")

    match running with
    | Error message -> return refuse Exit.Failed $"no collector can be asked at http.listen: {message}"
    | Ok running ->
        let before =
            Map.ofSeq (running |> Seq.map (fun (KeyValue(key, value)) -> key, value))

        match Reload.changes before (Settings.flat settings) with
        | [] -> Console.WriteLine "nothing would change"
        | changes ->
            for change in changes do
                Console.WriteLine(string change)

        return Exit.Done
}

let start (common: Common) (arguments: ParseResults<StartArguments>) = task {
    let config = arguments.TryGetResult StartArguments.Config
    let settings = settingsFrom config |> toldTo arguments

    if arguments.Contains StartArguments.Dry_Run then
        return! dryRun settings
    else
        return! collect common arguments config settings
}

// ---------------------------------------------------------------------------------------------------------------------------

/// A duration back from now, or a moment.
let since (now: DateTimeOffset) (text: string) =
    match Yaml.tryDuration text with
    | Some span -> Instant.ofDateTimeOffset (now - span)
    | None ->
        let mutable moment = Instant.ofMicros 0L

        if Instant.tryIso (ReadOnlySpan(Text.Encoding.UTF8.GetBytes text)) &moment then
            moment
        else
            refuse
                Exit.Usage
                $"'{text}' is neither a duration such as 6h nor a time such as 2026-11-01T12:00:00Z"

// ---------------------------------------------------------------------------------------------------------------------------

let validateConfig (_: Common) (arguments: ParseResults<ValidateArguments>) =
    let path =
        arguments.TryGetResult ValidateArguments.Config |> Option.defaultValue "config"

    let settings =
        match Setup.read (Some path), Mapping.read exchangeNames (Mapping.beside path) with
        | Ok settings, Ok _ -> settings
        | Ok _, Error mistakes
        | Error mistakes, Ok _ -> mistaken mistakes
        | Error some, Error others -> mistaken (some @ others)

    if arguments.Contains ValidateArguments.Print then
        Console.Write(Settings.describe settings)
    else
        Console.WriteLine $"{path}: no mistakes"

    Task.FromResult Exit.Done

// ---------------------------------------------------------------------------------------------------------------------------

let alerts (common: Common) (arguments: ParseResults<AlertsArguments>) = task {
    let settings = settingsFrom (arguments.TryGetResult AlertsArguments.Config)

    match arguments.GetResult AlertsArguments.Action with
    | AlertsAction.Test ->
        use logs = logFor common settings
        use interrupt = new Interrupt()

        let! told =
            Alerting.test settings.Alerts settings.Collector TimeProvider.System logs interrupt.Token

        for sink, result in told do
            match result with
            | Ok() -> Console.WriteLine $"{sink}: ok"
            | Error reason -> Console.WriteLine $"{sink}: {reason}"

        if told.Length = 1 then
            Console.WriteLine
                "nobody else is told: alerts.webhook.url and alerts.command.program in the configuration say who"

        if not settings.Alerts.Enabled then
            Console.WriteLine "nothing is watched: alerts.enabled is false"

        return
            if told |> List.forall (fun (_, result) -> result.IsOk) then
                Exit.Done
            else
                Exit.Failed
}

// ---------------------------------------------------------------------------------------------------------------------------

/// Times as ISO texts, so that any reader understands them.
let private iso (value: Instant voption) = value |> ValueOption.map Instant.text

let private statusJson (now: Instant) (path: string) (status: StoreStatus) (running: string option) = {|
    // As the collector says it; null when none runs, or another store was asked about.
    running = running |> Option.map (fun answer -> JsonDocument.Parse(answer).RootElement)
    store = path
    at = Instant.text now
    bytes = status.Bytes
    quarantined = status.Quarantined
    markets = [
        for market in status.Markets do
            {|
                exchange = string market.Exchange
                market = string market.Market
                slug = market.Slug
                status = market.Status
                trades = market.Trades
                first_trade = iso market.FirstTrade
                last_trade = iso market.LastTrade
                books = market.Books
                first_book = iso market.FirstBook
                last_book = iso market.LastBook
                deltas = market.Deltas
                first_delta = iso market.FirstDelta
                last_delta = iso market.LastDelta
                gaps = market.Gaps
                open_gaps = market.OpenGaps
                jobs = [
                    for checkpoint in market.Checkpoints do
                        {|
                            job = checkpoint.Job
                            since = Instant.text checkpoint.Since
                            watermark = Instant.text checkpoint.Watermark
                            rows = checkpoint.Rows
                            error = checkpoint.Error
                            duration_ms = checkpoint.Duration.TotalMilliseconds
                        |}
                ]
            |}
    ]
    counters = [
        for metric in status.Metrics do
            {|
                name = metric.Name
                labels = metric.Labels
                value = metric.Value
                at = Instant.text metric.At
            |}
    ]
|}

/// Rows per minute over the span in which they came.
let private rate (rows: int64) (first: Instant voption) (last: Instant voption) =
    match first, last with
    | ValueSome first, ValueSome last when last > first -> $"%.1f{float rows / (last - first).TotalMinutes}"
    | _ -> "-"

/// What the store holds, and above it how the collector is that runs, if one was asked.
let private showStatus
    isJson
    (settings: Settings)
    (running: Running.Collector option)
    (answer: string option)
    = task {
    // Before the store is opened, which may be another one than the collector was told on its line.
    if not isJson then
        for running in Option.toList running do
            Views.head 400 (Views.Looks.start running)
            |> List.filter ((<>) "")
            |> List.iter Console.WriteLine

            Console.WriteLine()

    let path = storeName settings
    let store = opened (Setup.openStoreToRead settings)
    let! status = store.Status()
    do! store.Close()
    let now = Instant.ofDateTimeOffset (TimeProvider.System.GetUtcNow())

    if isJson then
        json (statusJson now path status answer)
    else
        let stamp (value: Instant voption) =
            match value with
            | ValueSome value -> moment value
            | ValueNone -> "-"

        let rows = [
            for market in status.Markets do
                let latest =
                    market.Checkpoints
                    |> List.map _.Watermark
                    |> List.sortDescending
                    |> List.tryHead

                let errors =
                    market.Checkpoints
                    |> List.filter (fun checkpoint -> checkpoint.Error <> "")
                    |> List.length

                let slowest =
                    market.Checkpoints |> List.map _.Duration |> List.sortDescending |> List.tryHead

                let lastRows = market.Checkpoints |> List.sumBy _.Rows

                [
                    cut
                        34
                        (if market.Slug = "" then
                             string market.Market
                         else
                             market.Slug)
                    market.Status
                    string market.Trades
                    stamp market.FirstTrade
                    stamp market.LastTrade
                    rate market.Trades market.FirstTrade market.LastTrade
                    string market.Books
                    rate market.Books market.FirstBook market.LastBook
                    (match latest with
                     | Some latest -> age (now - latest)
                     | None -> "-")
                    $"{market.OpenGaps}/{market.Gaps}"
                    (match slowest with
                     | Some slowest -> $"{lastRows} rows, {errors} errors, %.0f{slowest.TotalMilliseconds} ms"
                     | None -> "-")
                ]
        ]

        if rows.IsEmpty then
            Console.WriteLine "The store is empty: nothing has been collected yet."
        else
            table
                [
                    "market"
                    "status"
                    "trades"
                    "first"
                    "last"
                    "/min"
                    "books"
                    "/min"
                    "age"
                    "gaps open/all"
                    "last run"
                ]
                rows

        let sum (pick: MarketSummary -> int64) = status.Markets |> List.sumBy pick

        Console.WriteLine
            $"{status.Markets.Length} markets, {sum _.Trades} trades, {sum _.Books} books, {sum _.Deltas} book changes, {sum _.OpenGaps} open of {sum _.Gaps} gaps, {status.Quarantined} quarantined, {status.Bytes / 1024L} KiB in {path}"

        for note in status.Notes do
            Console.WriteLine $"Note: {note}"

        if not status.Metrics.IsEmpty then
            let at = status.Metrics |> List.map _.At |> List.max
            Console.WriteLine $"Counters at {moment at}:"

            for metric in status.Metrics do
                let labels = if metric.Labels = "" then "" else $" ({metric.Labels})"
                Console.WriteLine $"  {metric.Name}{labels}: %.6g{metric.Value}"

    return Exit.Done
}

let status (_: Common) (arguments: ParseResults<StatusArguments>) : Task<int> = task {
    let isNamed =
        arguments.Contains StatusArguments.Store
        || arguments.Contains StatusArguments.QuestDb

    let settings =
        // Whoever names the store needs no configuration, not even a sound one.
        match
            arguments.TryGetResult StatusArguments.Store, arguments.TryGetResult StatusArguments.QuestDb
        with
        | Some _, Some _ -> refuse Exit.Usage "status looks into one store: --store or --questdb"
        | Some path, None -> Setup.storingAt path (Settings.defaults Setup.known)
        | None, questdb ->
            settingsFrom (arguments.TryGetResult StatusArguments.Config)
            |> storedIn None questdb

    // Whoever names a store wants to know of that one, which is not the one that the configured collector writes to.
    let! answer = task {
        if isNamed then
            return Error(Running.Silence.Away "")
        else
            return! askRunning settings (TimeSpan.FromSeconds 1.0) "/status"
    }

    // Somebody who is there and does not answer as a collector would is worth a word; nobody there is the usual case.
    let running =
        answer
        |> Result.bind (fun text ->
            Running.parse text
            |> Result.map (fun running -> running, text)
            |> Result.mapError Running.Silence.Unanswered)

    match running with
    | Error(Running.Silence.Unanswered why) ->
        Console.Error.WriteLine $"tributary: the collector at http.listen does not tell: {why}"
    | _ -> ()

    return!
        showStatus
            (arguments.Contains StatusArguments.Json)
            settings
            (running |> Result.map fst |> Result.toOption)
            (running |> Result.map snd |> Result.toOption)
}

// ---------------------------------------------------------------------------------------------------------------------------

let private amount (value: Size voption) =
    match value with
    | ValueSome size -> (size.Millionths / Fixed.One).ToString "N0"
    | ValueNone -> "-"

let markets (common: Common) (arguments: ParseResults<MarketsArguments>) = task {
    let configured =
        settingsFrom (arguments.TryGetResult MarketsArguments.Config)
        |> meaning (arguments.TryGetResult MarketsArguments.Exchange)
        |> askInstead (arguments.TryGetResult MarketsArguments.Exchange_Url)

    let size amount = amount

    let isSearch =
        arguments.Contains MarketsArguments.Tag
        || arguments.Contains MarketsArguments.Slug
        || arguments.Contains MarketsArguments.Min_Volume
        || arguments.Contains MarketsArguments.Min_Liquidity

    let isLookUp =
        arguments.Contains MarketsArguments.Market
        || arguments.Contains MarketsArguments.Event

    let settings =
        if isSearch || isLookUp then
            configured
            |> Setup.onFirst (fun collector -> {
                collector with
                    Markets = []
                    Discovery = {
                        Enabled = isSearch
                        Tags = arguments.GetResults MarketsArguments.Tag
                        MinVolume = arguments.TryGetResult MarketsArguments.Min_Volume |> size
                        MinLiquidity = arguments.TryGetResult MarketsArguments.Min_Liquidity |> size
                        Slugs = arguments.GetResults MarketsArguments.Slug
                        MaxMarkets = arguments.TryGetResult MarketsArguments.Max |> Option.defaultValue 200
                    }
            })
            |> Setup.picking
                (arguments.GetResults MarketsArguments.Market)
                (arguments.GetResults MarketsArguments.Event)
        else
            configured

    let collector = settings.Collectors.Head

    if
        not collector.Discovery.Enabled
        && not (collector.Markets |> List.exists _.Enabled)
    then
        refuse
            Exit.Usage
            "nothing was asked: search with --tag, --slug, --min-volume or --min-liquidity, look up with --market or --event, or name markets in the configuration"

    use logs = logFor common settings
    use interrupt = new Interrupt()

    match! Ask.markets collector TimeProvider.System logs interrupt.Token with
    | Error message -> return refuse Exit.Failed message
    | Ok found ->
        let chosen (choice: Choice) =
            choice.IsNamed || choice.IsOfEvent || choice.IsDiscovered

        let shown =
            found.Choices
            |> List.filter (fun (_, choice) -> choice <> Choice.Unwanted)
            |> List.distinctBy (fun (market, _) -> market.Market)
            |> List.sortBy (fun (market, choice) ->
                struct (not (chosen choice),
                        (match market.Volume with
                         | ValueSome volume -> -volume.Millionths
                         | ValueNone -> 0L)))

        if arguments.Contains MarketsArguments.Json then
            json [
                for market, choice in shown do
                    {|
                        slug = market.Slug
                        market = string market.Market
                        event = market.Event
                        question = market.Question
                        status = string market.Status
                        volume = market.Volume |> ValueOption.map string
                        liquidity = market.Liquidity |> ValueOption.map string
                        outcomes = [
                            for outcome in market.Outcomes do
                                {|
                                    name = outcome.Name
                                    token = outcome.Token |> ValueOption.map string
                                |}
                        ]
                        collected = chosen choice
                        why = string choice
                    |}
            ]
        else
            table [ "slug"; "question"; "status"; "volume"; "liquidity"; "collected"; "why" ] [
                for market, choice in shown do
                    [
                        cut 40 market.Slug
                        cut 50 market.Question
                        string market.Status
                        amount market.Volume
                        amount market.Liquidity
                        (if chosen choice then "yes" else "no")
                        string choice
                    ]
            ]

            let collected = shown |> List.filter (snd >> chosen) |> List.length
            let rest = found.Choices.Length - shown.Length
            Console.WriteLine $"{collected} of {shown.Length} would be collected; {rest} others do not fit"

        for slug in found.Unknown do
            eprintfn "No market or event is called %s." slug

        if not found.IsWhole then
            eprintfn "Some pages were not answered: the picture is not whole."

        return
            if found.IsWhole && found.Unknown.IsEmpty then
                Exit.Done
            else
                Exit.Failed
}

// ---------------------------------------------------------------------------------------------------------------------------

let faultsFrom (names: string option) =
    match FaultSwitch.parse (Option.defaultValue "none" names) with
    | Ok faults -> faults
    | Error message -> refuse Exit.Usage message

let private venueFrom (name: string option) =
    match name |> Option.map (fun name -> name, Venue.tryParse name) with
    | None -> Venue.Polymarket
    | Some(_, Some venue) -> venue
    | Some(name, None) ->
        let names = Venue.all |> List.map snd |> String.concat ", "
        refuse Exit.Usage $"--exchange takes one of {names}; got '{name}'"

let simulate (_: Common) (arguments: ParseResults<SimulateArguments>) = task {
    let fallback = SimulatorOptions.Default

    let venue = arguments.TryGetResult SimulateArguments.Exchange |> venueFrom

    let options = {
        fallback with
            Venue = venue
            PublicKey =
                match arguments.TryGetResult SimulateArguments.Public_Key with
                | None -> ""
                | Some file ->
                    try
                        File.ReadAllText file
                    with
                    | :? IOException
                    | :? UnauthorizedAccessException as error ->
                        refuse Exit.Usage $"--public-key: {error.Message}"
            Port = arguments.TryGetResult SimulateArguments.Port |> Option.defaultValue 0
            Markets =
                arguments.TryGetResult SimulateArguments.Markets
                |> Option.defaultValue fallback.Markets
            Seed = arguments.TryGetResult SimulateArguments.Seed |> Option.defaultValue 1
            Speed =
                arguments.TryGetResult SimulateArguments.Speed
                |> Option.defaultValue fallback.Speed
            TradesPerSecond =
                arguments.TryGetResult SimulateArguments.Trades
                |> Option.defaultValue fallback.TradesPerSecond
            Faults = faultsFrom (arguments.TryGetResult SimulateArguments.Faults)
            FaultRate =
                arguments.TryGetResult SimulateArguments.Fault_Rate
                |> Option.defaultValue fallback.FaultRate
            Limits = not (arguments.Contains SimulateArguments.No_Limits)
            V2 = not (arguments.Contains SimulateArguments.V1_Only)
            Archive =
                arguments.TryGetResult SimulateArguments.Archive
                |> Option.defaultValue fallback.Archive
            ArchiveAge =
                arguments.TryGetResult SimulateArguments.Archive_Years
                |> Option.map (fun years -> TimeSpan.FromDays(365.25 * years))
                |> Option.defaultValue fallback.ArchiveAge
            V1Limit =
                arguments.TryGetResult SimulateArguments.V1_Limit
                |> Option.defaultValue fallback.V1Limit
            V1Offset =
                arguments.TryGetResult SimulateArguments.V1_Offset
                |> Option.defaultValue fallback.V1Offset
            V1Repeats = arguments.Contains SimulateArguments.V1_Repeats
            RpcPlain = arguments.Contains SimulateArguments.Rpc_Plain
            RpcReorgs = arguments.Contains SimulateArguments.Rpc_Reorgs
            RpcUnknown = arguments.TryGetResult SimulateArguments.Rpc_Unknown |> Option.defaultValue 0
            MessagesPerSecond =
                arguments.TryGetResult SimulateArguments.Messages
                |> Option.defaultValue fallback.MessagesPerSecond
            StreamFaults =
                match
                    arguments.TryGetResult SimulateArguments.Stream_Faults
                    |> Option.defaultValue "none"
                    |> StreamFault.parse
                with
                | Ok faults -> faults
                | Error message -> refuse Exit.Usage message
            StreamFaultRate =
                arguments.TryGetResult SimulateArguments.Stream_Fault_Rate
                |> Option.defaultValue fallback.StreamFaultRate
            NewMarketEvery =
                arguments.TryGetResult SimulateArguments.New_Market_Every
                |> Option.map (duration)
                |> Option.defaultValue fallback.NewMarketEvery
    }

    let within name least most (value: float) =
        if value < least || value > most then
            refuse Exit.Usage $"--{name} takes a number from {least} to {most}, not {value}"

    within "port" 0.0 65_535.0 (float options.Port)
    within "markets" 1.0 5_000.0 (float options.Markets)
    within "speed" 0.01 1_000.0 options.Speed
    within "trades" 0.0 100_000.0 options.TradesPerSecond
    within "fault-rate" 0.0 1.0 options.FaultRate
    within "messages" 0.0 1_000_000.0 options.MessagesPerSecond
    within "stream-fault-rate" 0.0 1.0 options.StreamFaultRate

    use interrupt = new Interrupt()

    let! simulator = task {
        try
            return! Simulator.StartAsync(options, interrupt.Token)
        with :? IOException as error ->
            return refuse Exit.Failed $"port {options.Port} cannot be used: {error.Message}"
    }

    Console.WriteLine(simulator.Address.AbsoluteUri.TrimEnd '/')

    let exchange =
        if venue = Venue.Polymarket then
            ""
        else
            $" --exchange {Venue.name venue}"

    Console.WriteLine
        $"{options.Markets} markets, seed {options.Seed}; collect with: tributary start{exchange} --exchange-url {simulator.Address}"

    Console.WriteLine $"market channel: {simulator.Channel}"
    Console.Out.Flush()

    try
        do! Task.Delay(Timeout.InfiniteTimeSpan, interrupt.Token)
    with :? OperationCanceledException ->
        ()

    do! (simulator :> IAsyncDisposable).DisposeAsync()
    return interrupt.ExitCode
}
