namespace Tributary

open System
open System.Collections.Concurrent
open System.Collections.Generic
open System.IO
open System.Text
open System.Threading
open System.Threading.Channels
open System.Threading.Tasks
open Microsoft.Extensions.Logging
open Tributary.Stores

[<RequireQualifiedAccess>]
type PollOutcome =
    | Stored of rows: int
    | Unchanged
    | Missed of Cause

type Polled = {
    Job: Job
    Due: Instant
    Market: MarketId
    Token: TokenId voption
    Outcome: PollOutcome
    At: Instant
}

[<NoComparison; NoEquality>]
type EngineOptions = {
    Settings: Settings
    Store: Store
    Clock: TimeProvider
    Logs: ILoggerFactory
    Collector: CollectorSettings -> Collector
    ProgressLog: string option
    Polled: Polled -> unit
} with

    static member Create
        (settings: Settings, store: Store, clock: TimeProvider, logs: ILoggerFactory)
        : EngineOptions = {
        Settings = settings
        Store = store
        Clock = clock
        Logs = logs
        Collector = Setup.collector
        ProgressLog = None
        Polled = ignore
    }

    member this.Collecting(collector: Collector) : EngineOptions = {
        this with
            Collector = fun _ -> collector
    }

type EngineStatus = {
    Results: CollectionResult list
    Paused: Cause list
    Counts: Metric list
    Flows: int
    Broken: int
}

type StopReport = {
    Rows: int64
    Took: TimeSpan
    Undrained: string option
}

/// One exchange as an engine collects it.
[<NoComparison; NoEquality>]
type internal Venue = {
    Settings: CollectorSettings
    mutable Picks: Picks
    Asker: Asker
    Transport: Transport
    mutable Universe: Universe
    /// Whose own orders and trades are collected, and whether the exchange has taken their credentials already.
    Own: (struct (OwnAccount * bool)) voption
}

/// What the store has acknowledged already need not go there again: every follow re-reads a window, so most trades come many
/// times. Counts what is remarkable about the others.
[<Sealed>]
type internal Sieve(remember: int, meters: Meters) =
    let repeats = Repeats remember

    let warned (flags: Flags) =
        if flags <> Flags.None then
            for flag in Enum.GetValues<Flags>() do
                if flag <> Flags.None && flags &&& flag = flag then
                    meters.Add(Count.warnings, $"flag={flag}")

    member _.Warned(flags: Flags) = warned flags

    /// Drops the trades that are known to be durable.
    member _.Trades(batch: Batch) =
        let rows = batch.Trades
        let mutable kept = 0

        lock repeats (fun () ->
            for i in 0 .. rows.Count - 1 do
                if not (repeats.Knows rows[i].Id) then
                    warned rows[i].Flags
                    rows[kept] <- rows[i]
                    kept <- kept + 1)

        meters.Add(Count.duplicates, "stream=trades", int64 (rows.Count - kept))
        rows.Truncate kept

    /// These trades are durable.
    member _.Acknowledge(batch: Batch) =
        lock repeats (fun () ->
            for i in 0 .. batch.Trades.Count - 1 do
                repeats.Remember batch.Trades[i].Id |> ignore)

/// Appends a line for each job that got further with a commit. The file is written through to the system at once, so that a
/// process that is killed leaves no line behind that it had not earned.
[<Sealed>]
type internal ProgressLog(path: string) =
    let file =
        new FileStream(path, FileMode.Append, FileAccess.Write, FileShare.Read, 1)

    let since = Dictionary<string, int>()

    let add job rows =
        since[job] <-
            (match since.TryGetValue job with
             | true, before -> before
             | _ -> 0)
            + rows

    member _.Committed(batches: IReadOnlyList<Batch>) =
        let lines = StringBuilder()

        for batch in batches do
            for i in 0 .. batch.Trades.Count - 1 do
                let row = batch.Trades[i]

                if row.Inserted then
                    add $"{batch.Exchange}/trades/{batch.Names.Text row.Market}" 1

            for i in 0 .. batch.Books.Count - 1 do
                let row = batch.Books[i]

                if row.Inserted then
                    add $"{batch.Exchange}/books/{batch.Names.Text row.Market}/{batch.Names.Text row.Token}" 1

            for checkpoint in batch.Checkpoints do
                let rows =
                    match since.TryGetValue checkpoint.Job with
                    | true, rows -> rows
                    | _ -> 0

                since.Remove checkpoint.Job |> ignore

                lines
                    .Append("{\"job\":\"")
                    .Append(checkpoint.Job)
                    .Append("\",\"watermark\":\"")
                    .Append(checkpoint.Watermark)
                    .Append("\",\"rows\":")
                    .Append(rows)
                    .Append("}\n")
                |> ignore

        if lines.Length > 0 then
            file.Write(ReadOnlySpan(Encoding.UTF8.GetBytes(lines.ToString())))
            file.Flush()

    interface IDisposable with
        member _.Dispose() = file.Dispose()

/// The flows of one run, each of which is accounted for once.
[<Sealed>]
type internal Account(flows: Flow list) =
    let waiting = ConcurrentDictionary<Flow, unit>()

    do
        for flow in flows do
            waiting[flow] <- ()

    member _.Flows = flows
    /// Whether the flow was still waiting for its account; it is not any more.
    member _.Take(flow: Flow) = fst (waiting.TryRemove flow)
    /// Those that nothing was said of yet.
    member _.Rest = flows |> List.filter waiting.ContainsKey

[<Sealed>]
type Engine
    private
    (options: EngineOptions, venues: Venue list, meters: Meters, pool: BatchPool, progress: ProgressLog option)
    =
    let settings, clock = options.Settings, options.Clock
    let log = Logs.logger Logs.Engine options.Logs
    let mutable running = settings

    let now () =
        Instant.ofDateTimeOffset (clock.GetUtcNow())

    let flows = Flows meters
    let sieve = Sieve(settings.Validation.RememberTrades, meters)
    let asking = new CancellationTokenSource()

    let drained =
        TaskCompletionSource TaskCreationOptions.RunContinuationsAsynchronously

    let died = TaskCompletionSource TaskCreationOptions.RunContinuationsAsynchronously

    let ready = TaskCompletionSource TaskCreationOptions.RunContinuationsAsynchronously
    let refreshed = HashSet<ExchangeId>()
    let readers = ConcurrentDictionary<Channel<MarketEvent>, MarketEvent -> bool>()
    let working = ConcurrentDictionary<Task, unit>()
    let told = HashSet<string>()

    let publish (batches: IReadOnlyList<Batch>) =
        if not readers.IsEmpty then
            let events = [
                for batch in batches do
                    for market in batch.Markets do
                        MarketEvent.Market market

                    for i in 0 .. batch.Trades.Count - 1 do
                        if batch.Trades[i].Inserted then
                            MarketEvent.Trade(batch.Trade i)

                    for i in 0 .. batch.Books.Count - 1 do
                        if batch.Books[i].Inserted then
                            MarketEvent.Book(batch.Book i)

                    for i in 0 .. batch.Deltas.Count - 1 do
                        if batch.Deltas[i].Inserted then
                            MarketEvent.Delta(batch.Delta i)

                    for gap in batch.Gaps do
                        MarketEvent.Gap gap
            ]

            for KeyValue(channel, isWanted) in readers do
                let isLost event =
                    isWanted event && not (channel.Writer.TryWrite event)

                if events |> List.exists isLost then
                    readers.TryRemove channel |> ignore

                    channel.Writer.TryComplete(
                        OverflowException
                            "the reader fell behind and missed events: read the store for what it missed, and subscribe anew"
                    )
                    |> ignore

    let untilDurable = meters.Timing(Took.untilDurable, "")
    let activity = Activity()
    let startedAt = now ()
    // The meters of each exchange, by the name that batches have.
    let metersOf = ConcurrentDictionary<string, Meters>()

    let metersOf (exchange: string) =
        metersOf.GetOrAdd(exchange, fun exchange -> meters.Of exchange)

    // The live part of each exchange that has one.
    let lives = Dictionary<ExchangeId, Live>()

    // What was heard of trades lately: those who hear and those who settle hold the gate.
    let links = ref Links.none

    let hearTrades (trades: Trade seq) =
        lock links (fun () ->
            for trade in trades do
                links.Value <- Links.hear trade links.Value)

    /// The fills of an exchange that tells of them twice.
    let hearFills (batch: Batch) =
        if
            batch.Trades.Count > 0
            && lives.Keys |> Seq.exists (string >> (=) batch.Exchange)
        then
            hearTrades [
                for i in 0 .. batch.Trades.Count - 1 do
                    if batch.Trades[i].Inserted then
                        batch.Trade i
            ]

    let committed (batches: IReadOnlyList<Batch>) =
        let at = now ()

        for batch in batches do
            let mutable trades, books, deltas = 0, 0, 0
            let meters = metersOf batch.Exchange

            // Changes of one message arrived together.
            let mutable first = 0

            for i in 1 .. batch.Deltas.Count do
                if
                    i = batch.Deltas.Count
                    || batch.Deltas[i].Received.Micros <> batch.Deltas[first].Received.Micros
                then
                    untilDurable.Add(at - batch.Deltas[first].Received, int64 (i - first))
                    first <- i

            sieve.Acknowledge batch
            hearFills batch

            for i in 0 .. batch.Trades.Count - 1 do
                if batch.Trades[i].Inserted then
                    trades <- trades + 1

            for i in 0 .. batch.Books.Count - 1 do
                if batch.Books[i].Inserted then
                    books <- books + 1

            for i in 0 .. batch.Deltas.Count - 1 do
                if batch.Deltas[i].Inserted then
                    deltas <- deltas + 1

            for gap in batch.Gaps do
                Log.gap log gap

            for rejection in batch.Rejections do
                Log.quarantined log rejection.Source rejection.Reason
                meters.Add(Count.quarantined, "")

                Validation.ruleOf rejection.Reason
                |> ValueOption.iter (fun rule -> meters.Add(Count.eventsRejected, $"rule={rule}"))

            meters.Add(Count.eventsStored, "stream=trades", int64 trades)
            meters.Add(Count.eventsStored, "stream=books", int64 books)
            meters.Add(Count.eventsStored, "stream=depth", int64 deltas)

        meters.Add(Count.commits, "")
        activity.Committed batches
        publish batches
        progress |> Option.iter (fun progress -> progress.Committed batches)

    // The scheduler and the intake know of each other: the store's troubles pause the schedule.
    let mutable hear: Signal -> unit = ignore

    let intake =
        Intake(
            options.Store,
            settings.Intake.Capacity,
            settings.Store.GroupTime,
            settings.Store.GroupRows,
            clock,
            meters,
            Logs.logger Logs.Store options.Logs,
            {
                StoreFailed = fun _ -> hear (Signal.Pause Cause.StoreFailed)
                StoreRecovered = fun () -> hear (Signal.Resume Cause.StoreFailed)
                Committed = committed
            }
        )

    /// Offers a batch and gives it back to the pool when it is durable; the inner task then answers what `read` saw in it.
    let store (batch: Batch) (read: Batch -> 'T) : Task<Task<'T>> = task {
        // Not with the token of asking: what was read is stored, whatever else is stopped.
        let! durable = intake.Offer(batch, CancellationToken.None)

        return task {
            do! durable
            let seen = read batch
            pool.Return batch
            return seen
        }
    }

    let liveOf exchange =
        match lives.TryGetValue exchange with
        | true, live -> ValueSome live
        | _ -> ValueNone

    // What an earlier run left of live books that have not begun in this one: by token.
    let earlierDepth = Dictionary<string, struct (Instant * Instant * Cause)>()

    // Little is left on the disk: books, which are the bulk, are not collected, so that trades can be for longest.
    let mutable isTight = false

    let follow (venue: Venue) (markets: Market list) =
        liveOf venue.Asker.Collector.Exchange
        |> ValueOption.iter (fun live ->
            live.Follow markets

            for market in markets do
                for token in market.Tokens do
                    let mutable left = struct (Instant.ofMicros 0L, Instant.ofMicros 0L, Cause.Stopped)

                    if earlierDepth.Remove(string token, &left) then
                        let struct (since, good, cause) = left
                        live.Resume(token, since, good, cause))

    let polled (job: Job) due (flow: Flow) outcome =
        options.Polled {
            Job = job
            Due = due
            Market = flow.Market
            Token = flow.Token
            Outcome = outcome
            At = now ()
        }

    /// What makes a job wait: a fault that left no walk whole, or any fault of being asked too much.
    let faultOf (walks: Progress[]) =
        let faults =
            walks
            |> Array.choose (fun walk -> walk.Failed |> List.tryHead |> Option.map snd)

        match faults |> Array.tryFind _.IsThrottled with
        | Some throttled -> ValueSome throttled
        | None when faults.Length = walks.Length && faults.Length > 0 -> ValueSome faults[0]
        | None -> ValueNone

    let exchangeOf (venue: Venue) = venue.Asker.Collector.Exchange

    /// The flows of a market that is collected from now on. Its trades are followed from the look-back on: what lies before it is
    /// not asked for.
    let begin' (venue: Venue) (market: Market) (batch: Batch) =
        let exchange = exchangeOf venue
        venue.Asker.Knows market

        for token in market.Tokens do
            flows.Begin(exchange, Stream.Books, market.Market, ValueSome token, Gaps.untouched, batch)

        let track = Gaps.follow (now () - venue.Settings.Lookback)
        flows.Begin(exchange, Stream.Trades, market.Market, ValueNone, track, batch)

    /// What is polled of these markets; of one that has just ended, nothing.
    let flowsOf (venue: Venue) stream (markets: MarketId list) : Flow list = [
        let find key =
            ValueOption.toOption (flows.TryFind(exchangeOf venue, stream, key))

        for market in markets do
            match stream with
            | Stream.Trades -> yield! Option.toList (find (string market))
            | Stream.Books ->
                match Map.tryFind (string market) venue.Universe.Known with
                | Some known -> yield! known.Tokens |> Seq.choose (string >> find)
                | None -> ()
            | Stream.Markets
            | Stream.Depth
            | Stream.History
            | Stream.Prices -> () // not polled
    ]

    /// Flows whose poll brought nothing, in one batch.
    let miss (job: Job) due count (missed: (Flow * Cause) list) : Task<unit> = task {
        if not missed.IsEmpty then
            let batch = pool.Rent()
            batch.Exchange <- string job.Exchange
            let at = now ()

            for flow, cause in missed do
                flow.IsMissed(cause, at, count, batch)

                for _ in 1..count do
                    polled job due flow (PollOutcome.Missed cause)

            for (cause, opened) in batch.Gaps |> Seq.countBy _.Cause do
                Log.gapOpened log (string job.Stream) opened (string cause)

            if batch.RowCount > 0 then
                let! durable = store batch ignore
                do! durable
            else
                pool.Return batch
    }

    /// Of a run's flows, those that brought nothing.
    let missIn (account: Account) job due missed =
        miss job due 1 (missed |> List.filter (fst >> account.Take))

    // -----------------------------------------------------------------------------------------------------------------------
    // Books: each answer is complete in itself.

    let pollBooks
        (venue: Venue)
        (job: Job)
        due
        (markets: MarketId list)
        (account: Account)
        : Task<struct (MarketResult list * Fault voption)> = task {
        let collector = venue.Asker.Collector
        let meters = metersOf (string collector.Exchange)
        let began = clock.GetTimestamp()
        let stored = ConcurrentDictionary<MarketId, int>()
        let errors = ConcurrentDictionary<MarketId, string>()
        let durable = ConcurrentBag<Task<unit>>()
        // Whether a part of the answers could not be read.
        let isDamaged = ref false

        /// Drops the books that are stored already, judges the others, and accounts for each.
        let page (batch: Batch) (_: Progress) = task {
            let received = batch.Received
            let took = clock.GetElapsedTime began
            let mutable kept = 0

            if batch.Rejections.Count > 0 then
                isDamaged.Value <- true

            liveOf collector.Exchange |> ValueOption.iter (fun live -> live.Polled batch)

            for i in 0 .. batch.Books.Count - 1 do
                let row = batch.Books[i]
                let key = batch.Names.Text row.Token
                meters.Add(Count.eventsReceived, "stream=books")
                meters.Add(Count.books, $"verdict={Verdict.text row.Verdict}")

                let state = struct (row.At, batch.Text row.Hash)

                let isNew =
                    match flows.TryFind(collector.Exchange, Stream.Books, key) with
                    | ValueSome flow ->
                        let isNew = flow.LastBook <> state
                        flow.LastBook <- state

                        if isNew then
                            stored.AddOrUpdate(flow.Market, 1, (fun _ rows -> rows + 1)) |> ignore
                        else
                            meters.Add(Count.unchanged, "stream=books")

                        if account.Take flow then
                            let outcome =
                                if isNew then
                                    PollOutcome.Stored 1
                                else
                                    PollOutcome.Unchanged

                            flow.IsGood(received, received, (if isNew then 1 else 0), took, batch)
                            polled job due flow outcome

                        isNew
                    | ValueNone -> true // Nobody asked for it (any more), but here it is.

                if isNew then
                    sieve.Warned row.Flags
                    batch.Books[kept] <- row
                    kept <- kept + 1

            batch.Books.Truncate kept
            let! acknowledged = store batch ignore
            durable.Add acknowledged
        }

        let tokens =
            account.Flows |> List.choose (fun flow -> ValueOption.toOption flow.Token)

        let! walks =
            venue.Asker.WalkAll(collector.Ask(Need.Books tokens), true, page, asking.Token)

        let failures =
            Map.ofList [
                for walk in walks do
                    for request, fault in walk.Failed do
                        match request.Walk with
                        | Walk.Books tokens -> for token in tokens -> string token, fault
                        | _ -> ()
            ]

        let missed = [
            for flow in account.Rest do
                match Map.tryFind (string flow.Token.Value) failures with
                | Some fault ->
                    errors[flow.Market] <- Fault.explain fault
                    flow, Fault.cause fault
                | None when isDamaged.Value ->
                    errors[flow.Market] <- "its book could not be read"
                    flow, Cause.Undecodable
                | None ->
                    errors[flow.Market] <- "the exchange has no book for it"
                    flow, Cause.Missing
        ]

        do! missIn account job due missed
        let! _ = Task.WhenAll durable

        let results =
            markets
            |> List.map (fun market -> {
                Market = market
                Rows =
                    (match stored.TryGetValue market with
                     | true, rows -> rows
                     | _ -> 0)
                Error =
                    match errors.TryGetValue market with
                    | true, error -> error
                    | _ -> ""
            })

        return struct (results, faultOf walks)
    }

    // -----------------------------------------------------------------------------------------------------------------------
    // Trades: a walk is good when it has reached what was known before.

    let pollTrades
        (venue: Venue)
        (job: Job)
        due
        (account: Account)
        : Task<struct (MarketResult list * Fault voption)> = task {
        let collector = venue.Asker.Collector
        let meters = metersOf (string collector.Exchange)
        let began = clock.GetTimestamp()

        let floor (flow: Flow) = flow.Watermark - venue.Settings.Overlap

        let requests =
            account.Flows
            |> List.map (fun flow ->
                ({
                    Market = flow.Market
                    Since = floor flow
                }
                : Follow))
            |> Need.Trades
            |> collector.Ask

        let stored = ConcurrentDictionary<string, int>()

        let walk (request: Request) = task {
            let durable = List<Task<unit>>()
            let fresh = Dictionary<string, int>()

            let freshOf market =
                match fresh.TryGetValue market with
                | true, rows -> rows
                | _ -> 0

            let followed (requests: Request seq) = [
                for request in requests do
                    match request.Walk with
                    | Walk.Trades(follows, _) -> yield! follows
                    | _ -> ()
            ]

            let flowsOf (follows: Follow list) =
                follows
                |> List.choose (fun follow ->
                    ValueOption.toOption (
                        flows.TryFind(collector.Exchange, Stream.Trades, string follow.Market)
                    ))

            let mine = followed [ request ] |> flowsOf

            let count (batch: Batch) =
                for i in 0 .. batch.Trades.Count - 1 do
                    if batch.Trades[i].Inserted then
                        let market = batch.Names.Text batch.Trades[i].Market
                        stored.AddOrUpdate(market, 1, (fun _ rows -> rows + 1)) |> ignore

            let page (batch: Batch) (progress: Progress) = task {
                meters.Add(Count.eventsReceived, "stream=trades", int64 batch.Trades.Count)
                sieve.Trades batch

                for i in 0 .. batch.Trades.Count - 1 do
                    let market = batch.Names.Text batch.Trades[i].Market
                    fresh[market] <- freshOf market + 1

                // The last page carries the account of the whole walk: it is durable with the rows, or not at all.
                if Walks.isDone progress then
                    let at, took = now (), clock.GetElapsedTime began

                    let failed =
                        progress.Failed |> List.map fst |> followed |> List.map _.Market |> Set.ofList

                    for struct (market, since, until) in progress.Truncated do
                        flows.TryFind(collector.Exchange, Stream.Trades, string market)
                        |> ValueOption.iter (fun flow -> flow.IsTruncated(since, until, batch))

                    for flow in mine do
                        if not (failed.Contains flow.Market) && account.Take flow then
                            let head = ValueOption.defaultValue flow.Watermark progress.Head
                            let rows = freshOf (string flow.Market)
                            flow.IsGood(head, at, rows, took, batch)

                let! acknowledged = store batch count
                durable.Add acknowledged
            }

            let! progress = venue.Asker.Walk(request, true, page, asking.Token)
            let! _ = Task.WhenAll durable

            let failures =
                Map.ofList [
                    for request, fault in progress.Failed do
                        for follow in followed [ request ] -> follow.Market, fault
                ]

            let missed = [
                for flow in mine do
                    match Map.tryFind flow.Market failures with
                    | Some fault -> flow, Fault.cause fault
                    | None -> ()
            ]

            do! missIn account job due missed

            let results = [
                for flow in mine do
                    let rows =
                        match stored.TryGetValue(string flow.Market) with
                        | true, rows -> rows
                        | _ -> 0

                    let error =
                        match Map.tryFind flow.Market failures with
                        | Some fault -> Fault.explain fault
                        | None ->
                            polled job due flow (PollOutcome.Stored rows)
                            ""

                    {
                        Market = flow.Market
                        Rows = rows
                        Error = error
                    }
            ]

            return results, progress
        }

        let! walked = requests |> List.map walk |> Task.WhenAll
        return struct (walked |> List.ofArray |> List.collect fst, walked |> Array.map snd |> faultOf)
    }

    // -----------------------------------------------------------------------------------------------------------------------
    // Markets: a refresh tells the schedule what to poll.

    let refresh (venue: Venue) : Task<struct (MarketResult list * Fault voption)> = task {
        let exchange = exchangeOf venue
        let meters = metersOf (string exchange)
        let needs = Universe.needs venue.Picks venue.Universe

        let rejected (batch: Batch) = task {
            if batch.RowCount > 0 then
                let! durable = store batch ignore
                do! durable
            else
                pool.Return batch
        }

        let! struct (markets, fault) = venue.Asker.Markets(needs, rejected, asking.Token)
        let isWhole = fault.IsNone

        let universe, changes =
            Universe.absorb venue.Picks isWhole (now ()) markets venue.Universe

        let at = now ()
        let batch = pool.Rent()
        batch.Exchange <- string exchange
        batch.Received <- at
        meters.Add(Count.eventsReceived, "stream=markets", int64 markets.Length)

        batch.Markets.AddRange changes.Described
        venue.Universe <- universe

        for market in universe.Known.Values do
            venue.Asker.Knows market // a tick may have changed

        for market in changes.Added do
            Log.marketAdded log market.Slug (string market.Market)
            begin' venue market batch

        follow venue changes.Added

        liveOf exchange
        |> ValueOption.iter (fun live ->
            live.Unfollow changes.Closed

            for market in universe.Known.Values do
                live.Describe market)

        for market in changes.Closed do
            Log.marketClosed log market.Slug (string market.Market)

            for token in market.Tokens do
                flows.End(exchange, Stream.Books, market.Market, ValueSome token, at, batch)

        for market in changes.Removed do
            flows.End(exchange, Stream.Trades, market.Market, ValueNone, at, batch)
            venue.Asker.Forgets market

        for slug in changes.Unknown do
            if lock told (fun () -> told.Add slug) then
                Log.unknownSlug log slug

        // Before any poll of theirs, because the lane keeps the order.
        let! durable = store batch ignore
        let ids (markets: Market list) = markets |> List.map _.Market
        hear (Signal.Add(now (), exchange, ids changes.Added))
        hear (Signal.Remove(exchange, Stream.Books, ids changes.Closed))
        hear (Signal.Remove(exchange, Stream.Trades, ids changes.Removed))
        do! durable

        lock refreshed (fun () ->
            if isWhole then
                refreshed.Add exchange |> ignore

            if refreshed.Count = venues.Length then
                ready.TrySetResult() |> ignore)

        let results =
            markets
            |> List.map (fun market -> {
                Market = market.Market
                Rows = 0
                Error = ""
            })

        return struct (results, fault)
    }

    /// Runs a job and tells the schedule how it went, whatever happens.
    let run (job: Job) due markets = task {
        let began = clock.GetTimestamp()

        let venue =
            venues |> List.find (fun venue -> venue.Asker.Collector.Exchange = job.Exchange)

        let finished results fault =
            let result: CollectionResult = {
                Job = job
                Due = due
                Duration = clock.GetElapsedTime began
                Markets = results
                Fault = fault
            }

            let failed = results |> List.filter (fun result -> result.Error <> "")

            Log.jobFinished
                log
                $"{job.Exchange}/{job.Stream}/{job.Shard}"
                (results |> List.sumBy _.Rows)
                failed.Length
                result.Duration

            hear (Signal.Finished(now (), result))

        let account = Account(flowsOf venue job.Stream markets)

        (metersOf (string job.Exchange))
            .Add(Count.pollsDue, $"stream={job.Stream}", int64 account.Flows.Length)

        /// What nothing was said of, because the run was broken off.
        let missRest cause =
            missIn account job due (account.Rest |> List.map (fun flow -> flow, cause))

        try
            try
                let! struct (results, fault) =
                    match job.Stream with
                    | Stream.Books when isTight -> task {
                        do! missRest Cause.StoreFailed
                        return struct ([], ValueNone)
                      }
                    | Stream.Books -> pollBooks venue job due markets account
                    | Stream.Trades -> pollTrades venue job due account
                    | Stream.Markets -> refresh venue
                    | Stream.Depth
                    | Stream.History
                    | Stream.Prices -> Task.FromResult(struct ([], ValueNone)) // not polled

                finished results fault
            with error when not (error :? OperationCanceledException) ->
                Log.jobCrashed log $"{job.Exchange}/{job.Stream}/{job.Shard}" error
                do! missRest Cause.Undecodable
                finished [] (ValueSome(Fault.Undecodable(0, error.Message)))
        with :? OperationCanceledException ->
            // Told to stop in the middle: what was due is not there, and the next start ends this gap.
            try
                do! missRest Cause.Stopped
            with :? OperationCanceledException ->
                () // The store was given up: the next start knows from its checkpoints.

            finished [] ValueNone
    }

    /// Starts work that nobody waits for but `StopAsync`.
    let start name (work: unit -> Task<unit>) =
        let guarded () = task {
            try
                do! work ()
            with
            | :? OperationCanceledException -> ()
            | error -> Log.jobCrashed log name error
        }

        let work = Task.Run<unit>(guarded)
        working[work] <- ()

        work.ContinueWith(fun (work: Task<unit>) -> working.TryRemove(work :> Task) |> ignore)
        |> ignore

    let carryOut order =
        match order with
        | Order.Run(job, due, markets) -> start (string job.Stream) (fun () -> run job due markets)
        | Order.Missed(job, due, count, cause, markets) ->
            let venue =
                venues |> List.find (fun venue -> venue.Asker.Collector.Exchange = job.Exchange)

            let missed = flowsOf venue job.Stream markets |> List.map (fun flow -> flow, cause)

            (metersOf (string job.Exchange))
                .Add(Count.pollsDue, $"stream={job.Stream}", int64 (count * missed.Length))
            // What was missed is known before any later run begins; only the writing is left to the background.
            let missing = miss job due count missed
            start (string job.Stream) (fun () -> missing)
        | Order.Drained -> drained.TrySetResult() |> ignore

    let scheduler =
        new Scheduler(
            Schedule.start (Setup.cadences settings) (now ()) (venues |> List.map _.Asker.Collector.Exchange),
            clock,
            carryOut,
            fun error ->
                Log.schedulerDied log error
                died.TrySetResult() |> ignore
                drained.TrySetResult() |> ignore
        )

    /// The counters, into the store.
    let storeCounts () = task {
        let batch = pool.Rent()
        batch.Exchange <- ""
        batch.Metrics.AddRange(meters.Snapshot(now ()))
        let! durable = store batch ignore
        do! durable
    }

    let batchOf (links: TradeLink list) =
        let batch = pool.Rent()
        batch.Exchange <- ""

        for link in links do
            batch.Links.Add &link

        batch

    /// Finds out which trades are the same fill, and stores it.
    let settle (compared: Instant -> Links -> struct (Links * Settled)) () = task {
        let settled =
            lock links (fun () ->
                let struct (rest, settled) = compared (now ()) links.Value
                links.Value <- rest
                settled)

        if not settled.Unconfirmed.IsEmpty then
            Log.unconfirmed log settled.Unconfirmed.Length
            meters.Add(Count.unconfirmed, "", int64 settled.Unconfirmed.Length)

        if not settled.Links.IsEmpty then
            let! durable = store (batchOf settled.Links) ignore
            do! durable
            let others = settled.Links |> List.distinctBy _.Other
            meters.Add(Count.linked, "", int64 others.Length)
    }

    /// What an earlier run stored shortly before its end may not be linked yet. Links that are found again are the same.
    let hearEarlier () = task {
        try
            for exchange in lives.Keys do
                let! trades =
                    options.Store.Trades {
                        Query.everything with
                            Exchange = ValueSome exchange
                            Since = now () - Links.keep
                            Limit = Links.most / 2
                            Latest = true
                    }

                hearTrades trades
        with error ->
            Log.earlierUnread log error.Message
    }

    /// Whole books of some tokens, to compare with.
    let compare (venue: Venue) (live: Live) (tokens: TokenId list) () = task {
        let page (batch: Batch) (_: Progress) = task {
            live.Polled batch
            batch.Books.Truncate 0

            if batch.RowCount > 0 then
                let! durable = store batch ignore
                do! durable
            else
                pool.Return batch
        }

        let! _ =
            venue.Asker.WalkAll(venue.Asker.Collector.Ask(Need.Books tokens), true, page, asking.Token)

        ()
    }

    /// Whether an announced market may be one that is wanted.
    let isWanted (venue: Venue) (slug: string) =
        List.contains slug venue.Picks.Slugs
        || (match venue.Picks.Discovery with
            | ValueSome wanted -> wanted.Slugs |> List.exists (fun pattern -> Universe.matches pattern slug)
            | ValueNone -> false)

    do
        for venue in venues do
            let exchange = venue.Asker.Collector.Exchange

            match venue.Asker.Collector.Stream with
            | ValueSome part when venue.Settings.Live.Enabled ->
                match Setup.live venue.Settings settings.Collector venue.Asker.Collector part with
                | Error message -> invalidArg (nameof options) $"{venue.Settings.Exchange}: {message}"
                | Ok how ->
                    let live = ref ValueNone

                    let events = {
                        Store =
                            fun batch -> task {
                                let! durable = store batch ignore

                                // A store that is given up takes nothing more, and says so itself.
                                durable.ContinueWith(fun (done': Task<unit>) -> done'.Exception |> ignore)
                                |> ignore
                            }
                        Compare =
                            fun tokens ->
                                live.Value
                                |> ValueOption.filter (fun _ -> not isTight)
                                |> ValueOption.iter (fun live -> start "compare" (compare venue live tokens))
                        Announced =
                            fun slug ->
                                if isWanted venue slug then
                                    Log.announced log (string exchange) slug
                                    hear (Signal.Refresh(now (), exchange))
                        Resolved =
                            fun market ->
                                if venue.Universe.Known.ContainsKey(string market) then
                                    hear (Signal.Refresh(now (), exchange))
                    }

                    let made =
                        Live(
                            exchange,
                            part,
                            how,
                            events,
                            pool,
                            clock,
                            metersOf (string exchange),
                            Logs.logger Logs.Live options.Logs
                        )

                    live.Value <- ValueSome made
                    lives[exchange] <- made
            | _ -> ()

    /// Does something again and again, in the background. What takes longer than that is not begun a second time meanwhile.
    let regularly name (every: TimeSpan) (work: unit -> Task<unit>) =
        let isAtWork = ref 0

        clock.CreateTimer(
            (fun _ ->
                if Interlocked.Exchange(&isAtWork.contents, 1) = 0 then
                    start name (fun () -> task {
                        try
                            do! work ()
                        finally
                            isAtWork.Value <- 0
                    })),
            null,
            every,
            every
        )

    /// The holes that are open now, of polls and of live books.
    let openGaps () : Gap list = [
        for flow in flows.All do
            match Gaps.hole flow.Track with
            | ValueSome(struct (since, cause)) -> {
                Exchange = flow.Exchange
                Stream = flow.Stream
                Market = flow.Market
                Token = flow.Token
                Since = since
                Until = ValueNone
                Cause = cause
                Healed = ValueNone
              }
            | ValueNone -> ()

        for live in lives.Values do
            yield! live.OpenGaps
    ]

    let ofStream stream (labels: string) = labels.Contains $"stream={stream}"

    let streams () : StreamPulse list = [
        for stream in [ Stream.Books; Stream.Trades ] do
            {
                Stream = stream
                // Not those that are counted as due already and are still under way.
                Due =
                    meters.Total(Count.pollsGood, ofStream stream)
                    + meters.Total(Count.pollsMissed, ofStream stream)
                Good = meters.Total(Count.pollsGood, ofStream stream)
            }
    ]

    let freeBytes () =
        match options.Settings.Store.Kind with
        | "memory" -> ValueNone
        | kind ->
            let path =
                if kind = "questdb" then
                    settings.Store.QuestDb.Outbox
                else
                    settings.Store.Path

            try
                ValueSome (DriveInfo(Path.GetFullPath path)).AvailableFreeSpace
            with
            | :? IOException
            | :? ArgumentException
            | :? UnauthorizedAccessException -> ValueNone

    /// Looks at the disk, and lets go of books when little is left.
    let guardDisk () = task {
        match freeBytes () with
        | ValueSome free when Health.isTight settings.Store.MinFree isTight free <> isTight ->
            isTight <- not isTight
            let megabytes = float free / 1e6

            if isTight then
                Log.diskTight log megabytes
            else
                Log.diskFree log megabytes

            for live in lives.Values do
                if isTight then
                    live.Hold Cause.StoreFailed
                else
                    live.Release()
        | _ -> ()
    }

    let connections () =
        let all = lives.Values |> Seq.map _.Connections |> List.ofSeq

        struct (all |> List.sumBy (fun (struct (opened, _)) -> opened),
                all |> List.sumBy (fun (struct (_, wanted)) -> wanted))

    let skew () =
        venues
        |> List.map _.Transport.Skew
        |> List.tryFind _.IsSome
        |> Option.defaultValue ValueNone

    let pulse () : Pulse =
        let gaps =
            openGaps ()
            |> List.groupBy (fun gap -> struct (gap.Exchange, gap.Market))
            |> Map.ofList

        let struct (connected, wanted) = connections ()

        {
            At = now ()
            Collector = settings.Collector
            Started = startedAt
            Paused = Schedule.paused scheduler.Schedule
            LastReceived = meters.LastHeard
            Markets = [
                for venue in venues do
                    for market in venue.Universe.Known.Values do
                        let known = activity.TryFind(pool.Names.Intern(string market.Market))

                        let read pick none =
                            known |> ValueOption.map pick |> ValueOption.defaultValue none

                        {
                            Exchange = market.Exchange
                            Market = market.Market
                            Slug = market.Slug
                            LastTrade = read (fun one -> one.LastTrade) ValueNone
                            TradeInterval = read (fun one -> one.TradeInterval) ValueNone
                            LastBook = read (fun one -> one.LastBook) ValueNone
                            Verdict = read (fun one -> one.Verdict) ValueNone
                            Trades = read (fun one -> one.Trades) 0L
                            Books = read (fun one -> one.Books) 0L
                            Deltas = read (fun one -> one.Deltas) 0L
                            Gaps =
                                gaps
                                |> Map.tryFind (struct (market.Exchange, market.Market))
                                |> Option.defaultValue []
                                |> List.map (fun gap -> {
                                    Stream = gap.Stream
                                    Token = gap.Token
                                    Cause = gap.Cause
                                    Since = gap.Since
                                })
                        }
            ]
            Streams = streams ()
            Requests = meters.Total Count.requests
            Failures = meters.Total(Count.requests, (fun labels -> not (labels.Contains "outcome=ok")))
            Connected = connected
            Connections = wanted
            Limits = [
                for venue in venues do
                    for struct (limit, left, most) in venue.Transport.Headroom do
                        {
                            Limit = $"{exchangeOf venue} {limit}"
                            Left = left
                            Most = most
                        }
            ]
            Errors = meters.Errors
            Backlog = options.Store.Backlog()
            Skew = skew ()
            FreeBytes = freeBytes ()
        }

    let some value =
        value |> ValueOption.toList |> List.map (fun value -> struct ("", value))

    do
        let one (value: float) = [ struct ("", value) ]

        meters.Watch(
            Gauge.markets,
            fun () -> [
                for venue in venues do
                    let exchange, universe = exchangeOf venue, venue.Universe
                    struct ($"exchange={exchange},state=active", float universe.Active.Count)
                    struct ($"exchange={exchange},state=closing", float universe.Closing.Count)
            ]
        )

        meters.Watch(
            Gauge.openGaps,
            fun () ->
                openGaps ()
                |> List.countBy (fun gap -> $"exchange={gap.Exchange},stream={gap.Stream},cause={gap.Cause}")
                |> List.map (fun (labels, count) -> struct (labels, float count))
        )

        meters.Watch(
            Gauge.coverage,
            fun () -> [
                for stream in streams () do
                    if stream.Due > 0L then
                        struct ($"stream={stream.Stream}", float stream.Good / float stream.Due)
            ]
        )

        meters.Watch(
            Gauge.connections,
            fun () ->
                let struct (opened, wanted) = connections ()

                [
                    struct ("state=open", float opened)
                    struct ("state=missing", float (wanted - opened))
                ]
        )

        meters.Watch(Gauge.intakeWaiting, fun () -> one (float intake.Waiting))
        meters.Watch(Gauge.framesWaiting, fun () -> one (lives.Values |> Seq.sumBy _.Waiting |> float))

        meters.Watch(
            Gauge.limitLeft,
            fun () -> [
                for venue in venues do
                    for struct (limit, left, _) in venue.Transport.Headroom do
                        struct ($"exchange={exchangeOf venue},limit={limit}", float left)
            ]
        )

        meters.Watch(Gauge.backlogRows, fun () -> one (float (options.Store.Backlog().Rows)))
        meters.Watch(Gauge.backlogBytes, fun () -> one (float (options.Store.Backlog().Bytes)))

        meters.Watch(
            Gauge.backlogAge,
            fun () ->
                match options.Store.Backlog().Since with
                | ValueSome since -> one (now () - since).TotalSeconds
                | ValueNone -> one 0.0
        )

        meters.Watch(Count.dropped, fun () -> one (float (options.Store.Backlog().Dropped)))
        meters.Watch(Gauge.storeTroubles, fun () -> one (float (options.Store.Backlog().Troubles.Length)))

        meters.Watch(
            Gauge.silence,
            fun () ->
                meters.LastHeard
                |> ValueOption.map (fun last -> (now () - last).TotalSeconds)
                |> some
        )

        meters.Watch(Gauge.skew, fun () -> skew () |> ValueOption.map _.TotalSeconds |> some)
        meters.Watch(Gauge.freeBytes, fun () -> freeBytes () |> ValueOption.map float |> some)

        Machine.watch meters

        meters.Watch(
            Gauge.paused,
            fun () -> [
                for cause in Schedule.paused scheduler.Schedule do
                    struct ($"cause={cause}", 1.0)
            ]
        )

    let alerting = Alerting.start settings.Alerts pulse clock meters options.Logs

    do
        meters.Watch(
            Gauge.alerts,
            fun () ->
                alerting.Firing
                |> List.countBy (fun alert -> $"rule={alert.Rule}")
                |> List.map (fun (labels, count) -> struct (labels, float count))
        )

    let timers = [
        // A store that does not take the counters yet is not given more.
        regularly "counters" (TimeSpan.FromSeconds 60.0) storeCounts
        regularly "disk" (TimeSpan.FromSeconds 5.0) guardDisk
        regularly "retention" Retention.every (fun () ->
            Retention.run options.Store settings.Store.Retention clock log asking.Token)
        if lives.Count > 0 then
            regularly "links" (TimeSpan.FromSeconds 5.0) (settle Links.settle)
    ]

    member private _.Begin(ct: CancellationToken) = task {
        let! checkpoints = options.Store.Checkpoints()
        let! openGaps = options.Store.OpenGaps()
        let! markets = options.Store.Markets()
        ct.ThrowIfCancellationRequested()
        flows.Resume(checkpoints, openGaps)
        Log.started log settings.Collector options.Store.Name

        if not checkpoints.IsEmpty then
            Log.resumed log checkpoints.Length openGaps.Length

        let collected =
            [
                for checkpoint in checkpoints -> struct (checkpoint.Exchange, checkpoint.Market)
                for gap in openGaps -> struct (gap.Exchange, gap.Market)
            ]
            |> HashSet

        for checkpoint in checkpoints do
            if checkpoint.Stream = Stream.Depth then
                checkpoint.Token
                |> ValueOption.iter (fun token ->
                    earlierDepth[string token] <-
                        struct (checkpoint.Since, checkpoint.Watermark, Cause.Stopped))

        for gap in openGaps do
            if gap.Stream = Stream.Depth then
                gap.Token
                |> ValueOption.iter (fun token ->
                    let since =
                        match earlierDepth.TryGetValue(string token) with
                        | true, struct (since, _, _) -> since
                        | _ -> gap.Since

                    earlierDepth[string token] <- struct (since, gap.Since, gap.Cause))

        hear <- scheduler.Hear
        start "links" hearEarlier
        intake.Start()

        for live in lives.Values do
            live.Start()

        for venue in venues do
            let exchange = exchangeOf venue

            venue.Universe <-
                markets
                |> List.filter (fun market ->
                    market.Exchange = exchange
                    && collected.Contains(struct (exchange, market.Market)))
                |> Universe.resume venue.Picks

            let resumed = venue.Universe.Known.Values |> List.ofSeq

            if not resumed.IsEmpty then
                let batch = pool.Rent()
                batch.Exchange <- string exchange

                for market in resumed do
                    begin' venue market batch

                follow venue resumed
                let! _ = store batch ignore
                hear (Signal.Add(now (), exchange, resumed |> List.map _.Market))

        for venue in venues do
            match venue.Own with
            | ValueSome(struct (own, isSignedIn)) ->
                let keep batch : Task = task {
                    let! durable = store batch ignore

                    // A store that is given up takes nothing more, and says so itself.
                    durable.ContinueWith(fun (done': Task<unit>) -> done'.Exception |> ignore)
                    |> ignore
                }

                let! stored =
                    options.Store.OwnOrders {
                        Query.everything with
                            Exchange = ValueSome own.Exchange
                    }

                own.Remember stored
                start "own" (fun () -> own.Run(isSignedIn, keep, asking.Token))
            | ValueNone -> ()

        scheduler.Start()
    }

    static member StartAsync(options: EngineOptions, ct: CancellationToken) : Task<Engine> = task {
        let meters = new Meters()
        let pool = BatchPool()

        let needing (settings: CollectorSettings) reason =
            $"{settings.Exchange}: {reason} (collectors.{settings.Exchange}.auth is required; with optional, public data is collected)"

        let refusing settings reason =
            raise (Security.Authentication.AuthenticationException(needing settings reason))

        let venues = List<Venue>()

        for settings in options.Settings.Collectors do
            if settings.Enabled then
                let collector = options.Collector settings
                let meters = meters.Of(string collector.Exchange)
                let log = Logs.logger Logs.Requests options.Logs

                match Setup.transport settings collector with
                | Error message -> invalidArg (nameof options) $"{settings.Exchange}: {message}"
                | Ok how ->
                    let isWanted = Setup.isWanted settings

                    // What nothing is wanted of is not asked anything.
                    let! entered =
                        if isWanted then
                            Admission.enter settings collector how options.Clock log ct
                        else
                            Task.FromResult(Ok(struct (collector, how)))

                    match entered with
                    | Error reason -> raise (Security.Authentication.AuthenticationException reason)
                    | Ok(struct (collector, how)) ->
                        let transport = new Transport(how, options.Clock, meters, log)

                        if isWanted then
                            let engineLog = Logs.logger Logs.Engine options.Logs

                            for note in collector.Notes do
                                Log.without engineLog (string collector.Exchange) note

                        venues.Add {
                            Settings = settings
                            Picks = Setup.picks settings
                            Asker =
                                Asker(
                                    collector,
                                    transport,
                                    Setup.rules options.Settings.Validation,
                                    pool,
                                    meters,
                                    log
                                )
                            Transport = transport
                            Universe = Universe.empty
                            Own =
                                match Setup.account settings, Setup.lacking settings with
                                | Error reason, _ when settings.Auth = AuthMode.Required ->
                                    refusing settings reason
                                | Error reason, _ ->
                                    Log.authRefused log (string collector.Exchange) reason
                                    ValueNone
                                | Ok _, Some reason -> refusing settings reason
                                | Ok None, None -> ValueNone
                                | Ok(Some(part, credentials)), None ->
                                    let own =
                                        new OwnAccount(
                                            part,
                                            credentials,
                                            Setup.own settings part how,
                                            pool,
                                            options.Clock,
                                            meters,
                                            log
                                        )

                                    ValueSome(struct (own, settings.Auth = AuthMode.Required))
                        }

        for venue in venues do
            match venue.Own with
            | ValueSome(struct (own, true)) ->
                match! own.SignIn ct with
                | SignIn.Accepted -> ()
                | SignIn.Refused reason -> refusing venue.Settings reason
                | SignIn.Unanswered detail ->
                    raise (
                        TimeoutException(
                            needing venue.Settings $"the credentials cannot be checked: {detail}"
                        )
                    )
            | _ -> ()

        let progress = options.ProgressLog |> Option.map (fun path -> new ProgressLog(path))
        let engine = Engine(options, List.ofSeq venues, meters, pool, progress)
        do! engine.Begin ct
        return engine
    }

    member _.Ready: Task = ready.Task
    member _.Died: Task = died.Task

    member _.Subscribe(capacity: int, isWanted: Func<MarketEvent, bool>) : ChannelReader<MarketEvent> =
        let channel = Channel.CreateBounded<MarketEvent> capacity
        readers[channel] <- isWanted.Invoke
        channel.Reader

    member _.Unsubscribe(reader: ChannelReader<MarketEvent>) =
        for channel in readers.Keys do
            if obj.ReferenceEquals(channel.Reader, reader) then
                readers.TryRemove channel |> ignore
                channel.Writer.TryComplete() |> ignore

    member this.Subscribe(capacity: int) =
        this.Subscribe(capacity, (fun _ -> true))

    member _.Pause() = hear (Signal.Pause Cause.Paused)
    member _.Resume() = hear (Signal.Resume Cause.Paused)

    member _.StatusAsync() : Task<EngineStatus> =
        let schedule = scheduler.Schedule
        let all = flows.All

        Task.FromResult {
            Results = Schedule.results schedule
            Paused = Schedule.paused schedule
            Counts = meters.Snapshot(now ())
            Flows = all.Count
            Broken = all |> Seq.filter _.Track.Broken.IsSome |> Seq.length
        }

    member _.Settings = running

    member _.Follow(settings: Settings) =
        running <- Reload.takeOn running settings

        for venue in venues do
            for one in running.Collectors do
                if one.Exchange = venue.Settings.Exchange then
                    let picks = Setup.picks one

                    if picks <> venue.Picks then
                        venue.Picks <- picks
                        hear (Signal.Refresh(now (), exchangeOf venue))

    member _.Alerts: Alert list = alerting.Firing

    member _.Pulse() : Pulse = pulse ()
    member _.Measures() : Family list = meters.Families()

    member _.Add(fill: Batch -> unit) : Task = task {
        let batch = pool.Rent()
        batch.Exchange <- ""
        fill batch
        let! durable = store batch ignore
        do! durable
    }

    member _.StopAsync(limit: TimeSpan) : Task<StopReport> = task {
        let began = clock.GetTimestamp()

        for timer in timers do
            timer.Dispose()

        // That nothing comes any more is what was asked for.
        do! (alerting :> IAsyncDisposable).DisposeAsync()
        hear Signal.Stop
        // What is under way may end by itself for a while; then it is told to.
        let! _ =
            Task.WhenAny(drained.Task, Task.Delay(min (limit / 2.0) (TimeSpan.FromSeconds 5.0), clock))

        asking.Cancel()

        let! _ =
            Task.WhenAny(Task.WhenAll(Seq.toArray working.Keys), Task.Delay(limit / 4.0, clock))

        for live in lives.Values do
            let! _ = Task.WhenAny(live.StopAsync(), Task.Delay(limit / 4.0, clock))
            ()

        // The counters are the last of what was collected; when they are durable, all trades were heard.
        let counted = storeCounts ()
        let! _ = Task.WhenAny(counted, Task.Delay(limit / 4.0, clock))

        if counted.IsCompletedSuccessfully then
            let! _ = Task.WhenAny(settle Links.settleAll (), Task.Delay(limit / 4.0, clock))
            ()

        let! undrained =
            intake.Drain(max (TimeSpan.FromSeconds 1.0) (limit - clock.GetElapsedTime began))

        // Before what the gauges read is closed.
        (meters :> IDisposable).Dispose()
        do! options.Store.Close()
        (scheduler :> IDisposable).Dispose()
        progress |> Option.iter (fun progress -> (progress :> IDisposable).Dispose())

        for venue in venues do
            (venue.Transport :> IDisposable).Dispose()

            match venue.Own with
            | ValueSome(struct (own, _)) -> (own :> IDisposable).Dispose()
            | ValueNone -> ()

        for channel in readers.Keys do
            channel.Writer.TryComplete() |> ignore

        let rows = meters.Total Count.eventsStored
        let took = clock.GetElapsedTime began

        match undrained with
        | ValueNone -> Log.stopped log rows took
        | ValueSome detail -> Log.undrained log detail

        return {
            Rows = rows
            Took = took
            Undrained = ValueOption.toOption undrained
        }
    }
