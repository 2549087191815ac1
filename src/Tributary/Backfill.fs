namespace Tributary

open System
open System.Collections.Generic
open System.Threading
open System.Threading.Tasks
open Microsoft.Extensions.Logging
open Tributary.Stores

/// Whose past is to be read.
[<RequireQualifiedAccess>]
type Selection =
    | Slug of string
    | Id of MarketId
    /// All markets of an event, by its slug.
    | Event of string
    /// All markets with this tag, by its slug.
    | Tag of string
    /// All markets whose slugs match a pattern with `*` and `?`.
    | Pattern of string

    override this.ToString() =
        match this with
        | Slug slug -> slug
        | Id id -> string id
        | Event slug -> $"event:{slug}"
        | Tag slug -> $"tag:{slug}"
        | Pattern pattern -> pattern

[<RequireQualifiedAccess>]
module Selection =
    /// `event:SLUG`, `tag:SLUG`, a pattern with `*` or `?`, a condition id (`0x` and 64 digits), or a market's slug.
    let parse (word: string) : Result<Selection, string> =
        let after (prefix: string) make =
            match word.Substring(prefix.Length).Trim() with
            | "" -> Error $"'{word}' names nothing behind '{prefix}'"
            | rest -> Ok(make rest)

        if word.StartsWith "event:" then
            after "event:" Selection.Event
        elif word.StartsWith "tag:" then
            after "tag:" Selection.Tag
        elif word.Contains '*' || word.Contains '?' then
            Ok(Selection.Pattern word)
        elif word.StartsWith "0x" && word.Length = 66 then
            MarketId.Parse word |> Result.map Selection.Id
        elif word = "" then
            Error "a market without a name"
        else
            Ok(Selection.Slug word)

    /// Whether it is one of those that are meant.
    let selects (market: Market) selection =
        match selection with
        | Selection.Slug slug -> market.Slug = slug
        | Selection.Id id -> market.Market = id
        | Selection.Event slug -> market.Event = slug
        | Selection.Tag tag -> Array.contains tag market.Tags
        | Selection.Pattern pattern -> Universe.matches pattern market.Slug

/// What a backfill is to read.
type BackfillOrder = {
    Markets: Selection list
    Since: Instant
    /// Nothing is up to now.
    Until: Instant voption
    /// The names of the sources to read; empty for the usual ones.
    Sources: string list
    /// Walks at the same time, at most.
    Parallel: int
}

[<RequireQualifiedAccess>]
module BackfillOrder =
    /// Everything of these markets that the usual sources serve.
    let everything markets = {
        Markets = markets
        Since = Instant.ofSeconds 0L
        Until = ValueNone
        Sources = []
        Parallel = 8
    }

/// How far the reading of a market's past has come.
type BackfillProgress = {
    Market: MarketId
    Slug: string
    /// The source that is read.
    Source: string
    /// Requests answered.
    Pages: int
    /// Read so far.
    Rows: int
    /// Of these, new to the store.
    NewRows: int
    /// How far back it has come.
    Oldest: Instant voption
    /// How much of the time that is wanted has been read: 0 to 1.
    Share: float
    /// All that the source serves of it is stored, but for what is a gap.
    IsDone: bool
    /// Stretches that the source does not give whole: each is a gap.
    Truncated: int
    /// Requests that the exchange's limit leaves at present, …
    LimitLeft: int64
    /// … of so many in ten seconds.
    Limit: int
    /// What kept it from its end, or empty.
    Error: string
}

/// A part of a market's past that is to be read, and what that is expected to take.
type PlannedRead = {
    Source: string
    /// More than one where a source is read for several at once.
    Slugs: string list
    Since: Instant
    Until: Instant
    /// It goes on where an earlier run stopped.
    IsResumed: bool
    Estimate: Estimate
}

/// What a backfill would do.
type BackfillPlan = {
    Markets: Market list
    Reads: PlannedRead list
    /// What is covered already needs no reading: markets and sources of which nothing is left.
    Covered: int
    /// The time that the limits allow these requests in, at least.
    AtLeast: TimeSpan
}

/// Reads the past of markets into a store: what is wanted and not covered, source by source, many markets at a time. What was read is
/// noted in the transaction that stores it, so a run that ends anywhere is gone on with, and asks at most one page of each market again.
[<RequireQualifiedAccess>]
module Backfill =
    let private sources (collector: Collector) (names: string list) : Result<HistorySource list, string> =
        match names with
        | [] -> Ok(collector.History |> List.filter _.IsUsual)
        | names ->
            let known = collector.History |> List.map _.Name

            match names |> List.tryFind (fun name -> not (List.contains name known)) with
            | Some unknown ->
                let all = String.concat ", " known
                Error $"'{unknown}' is no source of {collector.Exchange}; they are {all}"
            | None -> Ok(collector.History |> List.filter (fun source -> List.contains source.Name names))

    let private like tags slugs =
        Need.MarketsLike {
            Tags = tags
            Slugs = slugs
            MinVolume = ValueNone
            MinLiquidity = ValueNone
            WithClosed = true
            MaxMarkets = Int32.MaxValue
        }

    let private needs (selected: Selection list) = [
        let slugs =
            selected
            |> List.choose (function
                | Selection.Slug one -> Some one
                | _ -> None)

        let ids =
            selected
            |> List.choose (function
                | Selection.Id one -> Some one
                | _ -> None)

        let events =
            selected
            |> List.choose (function
                | Selection.Event one -> Some one
                | _ -> None)

        let tags =
            selected
            |> List.choose (function
                | Selection.Tag one -> Some one
                | _ -> None)

        let patterns =
            selected
            |> List.choose (function
                | Selection.Pattern one -> Some one
                | _ -> None)

        if not slugs.IsEmpty then
            Need.MarketsBySlug slugs

        if not ids.IsEmpty then
            Need.MarketsById ids

        if not events.IsEmpty then
            Need.MarketsByEvent events

        if not tags.IsEmpty then
            like tags []

        if not patterns.IsEmpty then
            like [] patterns
    ]

    /// The markets that are selected, by their slugs. A selection that selects nothing is an error.
    let private find (asker: Asker) (pool: BatchPool) (selected: Selection list) (ct: CancellationToken) =
        task {
            let dropped (batch: Batch) = task { pool.Return batch }
            let! struct (found, fault) = asker.Markets(needs selected, dropped, ct)

            match fault with
            | ValueSome fault -> return Error(AskFault.Unanswered fault)
            | ValueNone ->
                let found =
                    found
                    |> List.distinctBy _.Market
                    |> List.filter (fun market -> List.exists (Selection.selects market) selected)
                    |> List.sortBy _.Slug

                let unknown =
                    selected
                    |> List.filter (fun one ->
                        not (List.exists (fun market -> Selection.selects market one) found))

                if unknown.IsEmpty then
                    return Ok found
                else
                    return Error(AskFault.UnknownMarkets(List.map string unknown))
        }

    /// A market that is over has no fills to wait for.
    let private afterlife = TimeSpan.FromDays 1.0

    let private wanted (order: BackfillOrder) (now: Instant) (market: Market) : Wanted =
        let until = order.Until |> ValueOption.defaultValue now

        {
            Market = market
            Since = order.Since
            Until =
                match market.Status, market.ClosedAt with
                | MarketStatus.Open, _
                | _, ValueNone -> until
                | _, ValueSome closed -> min until (closed + afterlife)
        }

    let private atLeast
        (settings: CollectorSettings)
        (collector: Collector)
        (jobs: (HistoryJob * Estimate) list)
        =
        jobs
        |> List.collect (fun (job, estimate) ->
            collector.LimitsOf job.Source.Endpoint
            |> List.map (fun limit -> limit, estimate.Requests))
        |> List.groupBy fst
        |> List.map (fun (limit, asked) ->
            let requests = List.sumBy snd asked

            match Map.tryFind limit settings.RateLimits with
            | Some permits -> TimeSpan.FromSeconds(10.0 * float requests / float permits)
            | None -> TimeSpan.Zero)
        |> List.fold max TimeSpan.Zero

    /// What `run` would do with what these checkpoints say. Asks the exchange which markets are meant, and nothing else.
    let plan
        (settings: CollectorSettings)
        (checkpoints: Checkpoint list)
        (clock: TimeProvider)
        (logs: ILoggerFactory)
        (order: BackfillOrder)
        (ct: CancellationToken)
        : Task<Result<BackfillPlan, AskFault>> = task {
        match! Ask.asker settings Validation.defaults clock logs ct with
        | Error message -> return Error(AskFault.Unusable message)
        | Ok(struct (asker, pool, transport)) ->
            use _ = transport
            let collector = asker.Collector

            match sources collector order.Sources with
            | Error message -> return Error(AskFault.Unusable message)
            | Ok sources ->
                match! find asker pool order.Markets ct with
                | Error fault -> return Error fault
                | Ok found ->
                    let now = Instant.ofDateTimeOffset (clock.GetUtcNow())

                    let jobs =
                        found
                        |> List.map (wanted order now)
                        |> Plan.jobs sources now (Plan.readings collector.Exchange checkpoints)
                        |> List.map (fun job -> job, Plan.estimate now job)

                    let busy = jobs |> List.sumBy (fun (job, _) -> job.Markets.Length)

                    return
                        Ok {
                            Markets = found
                            Reads =
                                jobs
                                |> List.map (fun (job, estimate) -> {
                                    Source = job.Source.Name
                                    Slugs = job.Markets |> List.map _.Slug
                                    Since = job.Since
                                    Until = job.Until
                                    IsResumed = job.Place <> ""
                                    Estimate = estimate
                                })
                            Covered = found.Length * sources.Length - busy
                            AtLeast = atLeast settings collector jobs
                        }
    }

    /// One page is what one transaction holds at least; what waits meanwhile goes with it, up to so many rows.
    let private groupRows = 50_000

    /// Of a stored batch: how many rows were new, and the time of its oldest.
    let private news (batch: Batch) : struct (int * Instant voption) =
        let mutable fresh, oldest = 0, Int64.MaxValue

        for row in batch.Trades.Span do
            fresh <- fresh + (if row.Inserted then 1 else 0)
            oldest <- min oldest row.At.Micros

        for row in batch.Prices.Span do
            fresh <- fresh + (if row.Inserted then 1 else 0)
            oldest <- min oldest row.At.Micros

        struct (fresh,
                if oldest = Int64.MaxValue then
                    ValueNone
                else
                    ValueSome(Instant.ofMicros oldest))

    /// Pages that come newest first are turned round: stores take rows best in the order of time.
    let private oldestFirst (batch: Batch) =
        let rows = batch.Trades

        if rows.Count > 1 && rows[0].At.Micros > rows[rows.Count - 1].At.Micros then
            rows.Span.Reverse()
            batch.TradeOrigins.Span.Reverse()

    /// What all walks of a run share.
    [<NoComparison; NoEquality>]
    type private Run = {
        Asker: Asker
        Transport: Transport
        Pool: BatchPool
        /// Ends when the batch is durable.
        Write: Batch -> CancellationToken -> Task<unit>
        /// By source and first market.
        Seen: Dictionary<struct (string * string), BackfillProgress>
        Report: IProgress<BackfillProgress>
    }

    let private begun (job: HistoryJob) : BackfillProgress = {
        Market = job.Markets.Head.Market
        Slug =
            (match job.Markets with
             | [ only ] -> only.Slug
             | several -> $"{several.Length} markets")
        Source = job.Source.Name
        Pages = 0
        Rows = 0
        NewRows = 0
        Oldest = ValueNone
        Share = 0.0
        IsDone = false
        Truncated = 0
        LimitLeft = 0L
        Limit = 0
        Error = ""
    }

    /// Does a job, from its place to its end or its first failure. A page is asked for when the one before is durable.
    let private walk (run: Run) (job: HistoryJob) (ct: CancellationToken) : Task = task {
        let key = struct (job.Source.Name, string job.Markets.Head.Market)

        let mutable seen =
            lock run.Seen (fun () ->
                match run.Seen.TryGetValue key with
                | true, before -> before
                | _ -> begun job)

        let start = Walks.resume (Plan.request job) job.Carry
        let mutable before = start

        let page (batch: Batch) (progress: Progress) = task {
            oldestFirst batch
            Plan.commit run.Asker.Collector.Exchange job before progress batch
            do! run.Write batch ct
            let struct (fresh, oldest) = news batch
            let rows = batch.Trades.Count + batch.Prices.Count
            run.Pool.Return batch
            let struct (left, limit) = run.Transport.Left job.Source.Endpoint

            seen <- {
                seen with
                    Pages = seen.Pages + progress.Pages - before.Pages
                    Rows = seen.Rows + rows
                    NewRows = seen.NewRows + fresh
                    Oldest =
                        (match oldest, seen.Oldest with
                         | ValueSome one, ValueSome other -> ValueSome(min one other)
                         | one, other -> ValueOption.orElse other one)
                    Share = Plan.share job progress
                    IsDone = Plan.isDone progress
                    LimitLeft = left
                    Limit = limit
                    Truncated = seen.Truncated + progress.Truncated.Length - before.Truncated.Length
                    Error =
                        (match progress.Failed with
                         | (_, fault) :: _ -> Fault.explain fault
                         | [] -> "")
            }

            before <- progress

            // Who listens hears one at a time.
            lock run.Seen (fun () ->
                run.Seen[key] <- seen
                run.Report.Report seen)
        }

        let! _ = run.Asker.Go(start, false, page, ct)
        ()
    }

    /// Plans and walks until nothing is left that this run did not try. A part is read once in a run: what comes of it does not get
    /// better by asking again at once.
    let private readAll
        (run: Run)
        sources
        (store: Store)
        walksAtOnce
        now
        (wanted: Wanted list)
        (ct: CancellationToken)
        = task {
        let tried = HashSet<struct (string * MarketId * Instant * Instant)>()
        let mutable isOver = false

        while not isOver do
            let! checkpoints = store.Checkpoints()

            let jobs =
                wanted
                |> Plan.jobs sources now (Plan.readings run.Asker.Collector.Exchange checkpoints)
                |> List.filter (fun job ->
                    tried.Add(struct (job.Source.Name, job.Markets.Head.Market, job.Since, job.Until)))

            let atOnce =
                ParallelOptions(MaxDegreeOfParallelism = max 1 walksAtOnce, CancellationToken = ct)

            do! Parallel.ForEachAsync(jobs, atOnce, (fun job ct -> ValueTask(walk run job ct)))
            isOver <- jobs.IsEmpty
    }

    /// The name in checkpoints of what was compared.
    let private linked = "links"

    /// What several sources told of on a day is linked: of a fill's sightings the API's counts, else the chain's.
    let private linksOf (trades: Trade list) : TradeLink list =
        let by source =
            trades
            |> List.filter (fun trade -> trade.Source = source && trade.Flags &&& Flags.Maker = Flags.None)

        let api, chain, stream = by Source.Api, by Source.Chain, by Source.Stream
        let settled = Links.between api chain
        let known = settled |> List.map _.Other |> Set.ofList
        let lone = chain |> List.filter (fun trade -> not (known.Contains trade.Id))
        settled @ Links.between api stream @ Links.between lone stream

    /// The days on which more than one source told of a market's trades.
    let private sharedDays (store: Store) (market: Market) = task {
        let! tallies =
            store.Tally {
                Query.everything with
                    Exchange = ValueSome market.Exchange
                    Market = ValueSome market.Market
            }

        return
            tallies
            |> List.filter (fun tally -> not tally.IsMaker)
            |> List.groupBy _.Day
            |> List.filter (fun (_, own) -> own.Length > 1)
            |> List.map (fun (day, _) -> {
                Since = day
                Until = day + TimeSpan.FromDays 1.0
            })
            |> Intervals.ofSeq
    }

    /// Links what this run and those before it read, where that was not done yet.
    let private link (run: Run) (store: Store) (markets: Market list) (ct: CancellationToken) = task {
        let exchange = run.Asker.Collector.Exchange
        // What was written may still be on its way to where it is read.
        do! store.Flush ct
        let! checkpoints = store.Checkpoints()
        let readings = Plan.readings exchange checkpoints

        let coverage =
            Plan.coverage exchange checkpoints |> List.groupBy _.Market |> Map.ofList

        let isHistory name =
            run.Asker.Collector.History
            |> List.exists (fun source -> source.Name = name && source.Stream = Stream.History)

        for market in markets do
            let read =
                coverage
                |> Map.tryFind market.Market
                |> Option.defaultValue []
                |> List.filter (fun one -> isHistory one.Source)
                |> List.map (fun one -> one.Source, one.Read)

            // What each source was read for when it was compared: where one was read since, it is compared again.
            let sources = read |> List.map fst |> List.sort |> String.concat "+"
            let name = $"{linked}-{sources}"

            let before =
                readings
                |> Map.tryFind (struct (name, string market.Market))
                |> Option.map _.Read
                |> Option.defaultValue []

            let all = read |> List.collect snd |> Intervals.ofSeq
            let! shared = sharedDays store market
            let mutable compared = before

            for span in Intervals.except before (Intervals.common shared all) do
                let part (covered: Interval) (trades: Trade list) = task {
                    compared <- Intervals.add covered.Since covered.Until compared
                    let batch = run.Pool.Rent()
                    batch.Exchange <- string exchange

                    for found in linksOf trades do
                        let found = found
                        batch.Links.Add &found

                    batch.Checkpoints.Add {
                        Job = Plan.jobName exchange name market.Market
                        Exchange = exchange
                        Stream = Stream.History
                        Market = market.Market
                        Token = ValueNone
                        Since = covered.Since
                        Watermark = covered.Until
                        Rows = batch.Links.Count
                        Error = ""
                        Duration = TimeSpan.Zero
                        State = Plan.write { Plan.nothing with Read = compared }
                    }

                    do! run.Write batch ct
                    run.Pool.Return batch
                }

                do! InParts.trades store exchange market.Market span part ct
    }

    /// Reads what is wanted and not covered into a store. Reports after each page that is stored. Ends with the first fault of the store.
    let run
        (settings: CollectorSettings)
        (rules: Rules)
        (store: Store)
        (clock: TimeProvider)
        (logs: ILoggerFactory)
        (order: BackfillOrder)
        (report: IProgress<BackfillProgress>)
        (ct: CancellationToken)
        : Task<Result<BackfillProgress list, AskFault>> = task {
        match! Ask.asker settings rules clock logs ct with
        | Error message -> return Error(AskFault.Unusable message)
        | Ok(struct (asker, pool, transport)) ->
            use _ = transport

            match sources asker.Collector order.Sources with
            | Error message -> return Error(AskFault.Unusable message)
            | Ok sources ->
                match! find asker pool order.Markets ct with
                | Error fault -> return Error fault
                | Ok found ->
                    use stop = CancellationTokenSource.CreateLinkedTokenSource ct
                    let refused = ref ValueNone

                    let intake =
                        Intake(
                            store,
                            2 * max 1 order.Parallel,
                            TimeSpan.Zero,
                            groupRows,
                            clock,
                            new Meters(),
                            Logs.logger Logs.Store logs,
                            {
                                StoreFailed =
                                    fun fault ->
                                        refused.Value <- ValueSome fault
                                        stop.Cancel()
                                StoreRecovered = ignore
                                Committed = ignore
                            }
                        )

                    intake.Start()

                    let run = {
                        Asker = asker
                        Transport = transport
                        Pool = pool
                        Write =
                            fun batch ct -> task {
                                let! stored = intake.Offer(batch, ct)
                                do! stored.WaitAsync ct
                            }
                        Seen = Dictionary()
                        Report = report
                    }

                    let now = Instant.ofDateTimeOffset (clock.GetUtcNow())
                    found |> List.iter asker.Knows
                    let described = pool.Rent()
                    described.Exchange <- string asker.Collector.Exchange
                    described.Markets.AddRange found

                    let work = task {
                        do! run.Write described stop.Token
                        pool.Return described
                        let wanted = found |> List.map (wanted order now)
                        do! readAll run sources store order.Parallel now wanted stop.Token
                        do! link run store found stop.Token
                    }

                    // However it ends, nothing is being written when it has.
                    do! (work :> Task).ConfigureAwait ConfigureAwaitOptions.SuppressThrowing
                    let patience = if refused.Value.IsSome then 0.0 else 10.0
                    let! _ = intake.Drain(TimeSpan.FromSeconds patience)

                    if refused.Value.IsNone then
                        do! work

                    match refused.Value with
                    | ValueSome fault -> return Error(AskFault.NotStored fault)
                    | ValueNone -> return Ok(List.ofSeq run.Seen.Values)
    }
