/// `tributary demo`: an exchange and a collector in one process, over real sockets; then the books are balanced.
module Tributary.Cli.Demo

open System
open System.Collections.Concurrent
open System.Collections.Generic
open System.IO
open System.Security.Cryptography
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

/// Others than Polymarket have to be asked of each market alone, at lower limits.
let private slowCadence = {
    demoCadence with
        Books = TimeSpan.FromSeconds 4.0
        Trades = TimeSpan.FromSeconds 2.0
}

/// What a demo can collect into.
let stores = [ "sqlite"; "questdb"; "both" ]

/// How many markets an exchange has when Polymarket has so many: each of the others' has to be asked for its trades alone, and their limits
/// are low.
let private marketsOf venue count =
    match venue with
    | Venue.Polymarket -> count
    | Venue.Kalshi -> min count 20
    | Venue.Manifold -> min count 8

let private venuesFrom (names: string option) =
    let parse (name: string) =
        match Venue.tryParse (name.Trim()) with
        | Some venue -> venue
        | None ->
            let names = Venue.all |> List.map snd |> String.concat ", "
            refuse Exit.Usage $"--exchanges takes a comma list of {names}; or all; got '{name}'"

    match names with
    | None -> [ Venue.Polymarket ]
    | Some "all" -> List.map fst Venue.all
    | Some names -> names.Split ',' |> Array.map parse |> Array.distinct |> List.ofArray

let private summarise (reports: Accounting.Report list) =
    match reports with
    | [ report ] -> Accounting.lines report |> List.iter Console.WriteLine
    | reports ->
        for report in reports do
            Console.WriteLine $"{report.Exchange}:"
            Accounting.linesOfOne report |> List.iter Console.WriteLine

        Console.WriteLine $"quarantined {reports.Head.Quarantined}"

    if reports |> List.forall (fun report -> report.Unexplained = 0) then
        Console.WriteLine "Everything is accounted for."
        Exit.Done
    else
        Console.WriteLine "Something is missing and no gap says so."
        Exit.Failed

let private accounts (truths: Accounting.Truth list) (storeOf: Accounting.Truth -> Store) = task {
    let reports = ResizeArray()

    for truth in truths do
        let! report = Accounting.account truth (storeOf truth)
        reports.Add report

    return List.ofSeq reports
}

let private recount folder = task {
    if not (File.Exists(Path.Combine(folder, "truth.json"))) then
        refuse Exit.Usage $"{folder} holds no demo: 'tributary demo --keep {folder}' makes one"

    let store = openToRead (Path.Combine(folder, "tributary.db"))
    let! reports = accounts (Accounting.load folder) (fun _ -> store)
    do! store.Close()
    return summarise reports
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
let private countIn (settings: Settings) (logs: ILoggerFactory) (truths: Accounting.Truth list) = task {
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

        let! reports = accounts truths (fun truth -> only truth read)
        do! read.Close()
        return summarise reports
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

    let venues = venuesFrom (arguments.TryGetResult DemoArguments.Exchanges)
    let faults = faultsFrom (arguments.TryGetResult DemoArguments.Faults)
    // For the exchange that answers more to the owner of a key: one of this demo alone.
    use key = RSA.Create 2048
    let simulators = Dictionary<Venue, Simulator>()

    for venue in venues do
        let! simulator =
            Simulator.StartAsync(
                {
                    SimulatorOptions.Default with
                        Venue = venue
                        Markets = marketsOf venue count
                        Seed = seed
                        Faults = faults
                        PublicKey = key.ExportSubjectPublicKeyInfoPem()
                },
                interrupt.Token
            )

        simulators[venue] <- simulator

    let cadence =
        if venues = [ Venue.Polymarket ] then
            demoCadence
        else
            slowCadence

    let path = Path.Combine(folder, "tributary.db")
    let outbox = Path.Combine(folder, "outbox.db")

    // Of an earlier demo: `demo` lets no other folder come here.
    for leftover in [ path; path + "-wal"; path + "-shm"; outbox; outbox + "-wal"; outbox + "-shm" ] do
        File.Delete leftover

    let settings =
        (Settings.defaults Setup.known, venues)
        ||> List.fold (fun settings venue ->
            settings
            |> meaning (Some(Venue.name venue))
            |> askInstead (Some simulators[venue].Address.AbsoluteUri)
            |> Setup.onFirst (fun collector -> {
                collector with
                    Discovery = {
                        collector.Discovery with
                            Enabled = true
                            MaxMarkets = 10 * count
                    }
            })
            // The accounts below are those of polls; what is live has a ledger of its own.
            |> Setup.pollingOnly)
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
        |> fun settings -> { settings with Schedule = cadence }

    let collectorOf (settings: CollectorSettings) =
        if settings.Exchange = Venue.name Venue.Kalshi then
            settings
            |> Setup.collectorWith (Map.ofList [ "key_id", "demo"; "key", key.ExportPkcs8PrivateKeyPem() ])
        else
            Setup.collector settings

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
                Collector = collectorOf
                ProgressLog = None
                Polled = polls.Enqueue
            },
            interrupt.Token
        )

    let places =
        venues
        |> List.map (fun venue ->
            let markets = marketsOf venue count
            let name = if venues.Length > 1 then Venue.name venue else "Exchange"
            $"{name} at {simulators[venue].Address}: {markets} markets, {2 * markets} tokens.")
        |> String.concat " "

    Console.WriteLine $"{places} Collecting into {storeName settings} for {seconds} s."

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

        for simulator in simulators.Values do
            simulator.Freeze()

        let frozen = Instant.ofDateTimeOffset (clock.GetUtcNow())
        let patience = elapsed () + TimeSpan.FromSeconds 60.0

        let marketsOf (polls: Polled seq) =
            polls
            |> Seq.filter (fun polled -> polled.Job.Stream = Stream.Trades)
            |> Seq.map (fun polled -> polled.Job.Exchange, polled.Market)
            |> Set.ofSeq

        let isSettled (status: EngineStatus) =
            let since =
                polls
                |> Seq.filter (fun polled -> polled.Due > frozen && not polled.Outcome.IsMissed)

            let followed = marketsOf polls

            (followed |> Seq.distinctBy fst |> Seq.length) = venues.Length
            && status.Broken = 0
            && marketsOf since = followed
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

    let stoppedAt = clock.GetUtcNow()

    let truthOf venue : Accounting.Truth = {
        Exchange = Venue.name venue
        Trades = simulators[venue].Ledger.Trades
        Requests = simulators[venue].Ledger.Requests
        Polls =
            polls
            |> Seq.filter (fun polled -> string polled.Job.Exchange = Venue.name venue)
            |> Accounting.polls
        BookCadence = cadence.Books
        Stopped = stoppedAt
    }

    let truths = List.map truthOf venues

    for simulator in simulators.Values do
        do! (simulator :> IAsyncDisposable).DisposeAsync()

    if interrupt.Token.IsCancellationRequested then
        eprintfn "Stopped before its end: nothing is accounted for."
        return interrupt.ExitCode
    else
        Accounting.save folder truths

        if kind = "questdb" then
            return! countIn settings logs truths
        else
            let! code = recount folder

            if kind = "sqlite" || code <> Exit.Done then
                return code
            else
                Console.WriteLine "The same in QuestDB:"
                return! countIn settings logs truths
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
