/// The reference: what every store promises, in the plainest words. It forgets everything when the process ends.
[<RequireQualifiedAccess>]
module Tributary.Stores.Memory

open System
open System.Collections.Generic
open System.Threading
open System.Threading.Tasks
open Tributary

let private earliest (times: Instant list) =
    if times.IsEmpty then
        ValueNone
    else
        ValueSome(List.min times)

let private latest (times: Instant list) =
    if times.IsEmpty then
        ValueNone
    else
        ValueSome(List.max times)

[<Sealed>]
type private Tables(collector: string) =
    // Each table by its identity: what is there already is not added again.
    let trades =
        Dictionary<struct (ExchangeId * MarketId * Instant * TradeId * Source), Trade>()

    let books =
        Dictionary<struct (ExchangeId * MarketId * TokenId * Instant * string), OrderBookSnapshot>()

    let deltas =
        Dictionary<struct (ExchangeId * MarketId * TokenId * Instant * int * Side * Price), OrderBookDelta>()

    let links = Dictionary<struct (TradeId * TradeId), TradeLink>()

    let prices =
        Dictionary<struct (ExchangeId * MarketId * TokenId * Instant * PriceKind), PricePoint>()

    let ownOrders =
        Dictionary<struct (ExchangeId * string * string * Size * Instant), OwnOrder>()

    let ownTrades =
        Dictionary<struct (ExchangeId * string * string * string * TokenId), OwnTrade>()

    let matches =
        Dictionary<struct (ExchangeId * string * string * MarketId * TokenId * Instant), MarketMatch>()

    let gaps =
        Dictionary<struct (ExchangeId * Stream * MarketId * TokenId voption * Instant * Cause), Gap>()

    let rejections = Dictionary<struct (string * string * string), Rejection>()
    let metrics = Dictionary<struct (string * string * Instant), Metric>()
    let checkpoints = Dictionary<string, Checkpoint>()
    // The versions of a market by the moment, and the stats beside them.
    let versions = Dictionary<struct (ExchangeId * MarketId), ResizeArray<Market>>()
    let stats = Dictionary<struct (ExchangeId * MarketId * Instant), Market>()

    let versionsOf exchange market =
        match versions.TryGetValue(struct (exchange, market)) with
        | true, found -> found
        | _ ->
            let none = ResizeArray()
            versions[struct (exchange, market)] <- none
            none

    let writeMarket (market: Market) =
        let found = versionsOf market.Exchange market.Market

        if Merging.isNews found market then
            found.Add market

        if Merging.hasStats market then
            stats.TryAdd(struct (market.Exchange, market.Market, Merging.momentOf market), market)
            |> ignore

    /// The newest version, with the newest numbers beside it.
    let current (found: ResizeArray<Market>) =
        Merging.newest found
        |> Option.map (fun version ->
            stats
            |> Seq.filter (fun (KeyValue(struct (exchange, market, _), _)) ->
                exchange = version.Exchange && market = version.Market)
            |> Seq.sortBy (fun (KeyValue(struct (_, _, at), _)) -> at)
            |> Seq.tryLast
            |> ValueOption.ofOption
            |> ValueOption.map _.Value
            |> fun numbers -> Merging.withStats numbers version)

    let known (table: Dictionary<'k, 'v>) key =
        match table.TryGetValue key with
        | true, value -> ValueSome value
        | _ -> ValueNone

    let writeGap (gap: Gap) =
        let key =
            struct (gap.Exchange, gap.Stream, gap.Market, gap.Token, gap.Since, gap.Cause)

        gaps[key] <- Merging.gap (known gaps key) gap

    let writeBatch (batch: Batch) =
        for market in batch.Markets do
            writeMarket market

        for i in 0 .. batch.Trades.Count - 1 do
            let row = batch.Trade i

            batch.Trades[i].Inserted <-
                trades.TryAdd(struct (row.Exchange, row.Market, row.At, row.Id, row.Source), row)

        for i in 0 .. batch.Books.Count - 1 do
            let row = batch.Book i

            batch.Books[i].Inserted <-
                books.TryAdd(struct (row.Exchange, row.Market, row.Token, row.At, row.Hash), row)

        for i in 0 .. batch.Deltas.Count - 1 do
            let row = batch.Delta i

            batch.Deltas[i].Inserted <-
                deltas.TryAdd(
                    struct (row.Exchange, row.Market, row.Token, row.At, row.Ordinal, row.Side, row.Price),
                    row
                )

        for i in 0 .. batch.Links.Count - 1 do
            let row = batch.Links[i]
            links.TryAdd(struct (row.Trade, row.Other), row) |> ignore

        for i in 0 .. batch.Prices.Count - 1 do
            let row = batch.PricePoint i

            batch.Prices[i].Inserted <-
                prices.TryAdd(struct (row.Exchange, row.Market, row.Token, row.At, row.Kind), row)

        for row in batch.OwnOrders do
            ownOrders.TryAdd(struct (row.Exchange, row.Order, row.Status, row.Filled, row.At), row)
            |> ignore

        for row in batch.OwnTrades do
            ownTrades.TryAdd(struct (row.Exchange, row.Trade, row.Order, row.Status, row.Token), row)
            |> ignore

        for row in batch.Matches do
            matches.TryAdd(
                struct (row.Exchange, row.Question, row.Answer, row.Market, row.Token, row.At),
                row
            )
            |> ignore

        for gap in batch.Gaps do
            writeGap gap

        for checkpoint in batch.Checkpoints do
            checkpoints[checkpoint.Job] <- Merging.checkpoint (known checkpoints checkpoint.Job) checkpoint

        for row in batch.Rejections do
            rejections.TryAdd(struct (row.Exchange, row.Reason, Convert.ToBase64String row.Bytes), row)
            |> ignore

        for metric in batch.Metrics do
            metrics.TryAdd(struct (metric.Name, metric.Labels, metric.At), metric) |> ignore

    let isWanted (wanted: 'T voption) actual =
        match wanted with
        | ValueSome wanted -> wanted = actual
        | ValueNone -> true

    let isWithin (query: Query) exchange market =
        isWanted query.Exchange exchange && isWanted query.Market market

    let isDuring (query: Query) at = at >= query.Since && at < query.Until

    let upTo (query: Query) rows =
        rows |> Seq.truncate query.Limit |> List.ofSeq

    /// The oldest rows, or the newest ones, of those that are in order.
    let ofEnd (query: Query) (rows: 'T seq) : 'T list =
        let rows = List.ofSeq rows

        if query.Latest then
            rows |> List.skip (max 0 (rows.Length - query.Limit))
        else
            upTo query rows

    let summary exchange market : MarketSummary =
        let isOwn (otherExchange, otherMarket) =
            otherExchange = exchange && otherMarket = market

        let described =
            match versions.TryGetValue(struct (exchange, market)) with
            | true, found -> current found
            | _ -> None

        let text (of': Market -> string) =
            described |> Option.map of' |> Option.defaultValue ""

        let tradeTimes = [
            for row in trades.Values do
                if isOwn (row.Exchange, row.Market) then
                    row.At
        ]

        let bookTimes = [
            for row in books.Values do
                if isOwn (row.Exchange, row.Market) then
                    row.At
        ]

        let deltaTimes = [
            for row in deltas.Values do
                if isOwn (row.Exchange, row.Market) then
                    row.At
        ]

        let ownGaps =
            gaps.Values
            |> Seq.filter (fun row -> isOwn (row.Exchange, row.Market))
            |> List.ofSeq

        {
            Exchange = exchange
            Market = market
            Slug = text _.Slug
            Question = text _.Question
            Status = text (fun market -> string market.Status)
            Trades = tradeTimes.Length
            FirstTrade = earliest tradeTimes
            LastTrade = latest tradeTimes
            Books = bookTimes.Length
            FirstBook = earliest bookTimes
            LastBook = latest bookTimes
            Deltas = deltaTimes.Length
            FirstDelta = earliest deltaTimes
            LastDelta = latest deltaTimes
            Gaps = ownGaps.Length
            OpenGaps = int64 (ownGaps |> List.filter _.Until.IsNone |> List.length)
            Checkpoints =
                checkpoints.Values
                |> Seq.filter (fun row -> isOwn (row.Exchange, row.Market))
                |> Seq.sortBy _.Job
                |> List.ofSeq
        }

    member _.Write(batches: IReadOnlyList<Batch>) =
        for batch in batches do
            writeBatch batch

    member _.Checkpoints() =
        checkpoints.Values |> Seq.sortBy _.Job |> List.ofSeq

    member _.Gaps(query: Query) : RecordedGap list =
        gaps.Values
        |> Seq.filter (Merging.isAbout query)
        |> Seq.sortBy _.Since
        |> upTo query
        |> List.map (fun gap -> { Collector = collector; Gap = gap })

    member _.OpenGaps() =
        gaps.Values |> Seq.filter _.Until.IsNone |> Seq.sortBy _.Since |> List.ofSeq

    member _.Markets() =
        versions.Values
        |> Seq.choose current
        |> Seq.sortBy (fun market -> struct (string market.Exchange, string market.Market))
        |> List.ofSeq

    member _.Trades(query: Query) =
        trades.Values
        |> Seq.filter (fun row ->
            isWithin query row.Exchange row.Market
            && isWanted query.Token row.Token
            && isDuring query row.At)
        |> Seq.sortBy (fun row -> struct (row.At, row.Id, row.Source))
        |> ofEnd query

    member _.Books(query: Query) =
        books.Values
        |> Seq.filter (fun row ->
            isWithin query row.Exchange row.Market
            && isWanted query.Token row.Token
            && isDuring query row.At)
        |> Seq.sortBy (fun row -> struct (row.At, string row.Token, row.Hash))
        |> ofEnd query

    member _.Deltas(query: Query) =
        deltas.Values
        |> Seq.filter (fun row ->
            isWithin query row.Exchange row.Market
            && isWanted query.Token row.Token
            && isDuring query row.At)
        |> Seq.sortBy (fun row ->
            struct (row.At, string row.Token, row.Ordinal, row.Side, row.Price.Millionths))
        |> ofEnd query

    member _.Prices(query: Query) =
        prices.Values
        |> Seq.filter (fun row ->
            isWithin query row.Exchange row.Market
            && isWanted query.Token row.Token
            && isDuring query row.At)
        |> Seq.sortBy (fun row -> struct (row.At, string row.Token, row.Kind))
        |> ofEnd query

    member _.OwnOrders(query: Query) =
        ownOrders.Values
        |> Seq.filter (fun row ->
            isWithin query row.Exchange row.Market
            && isWanted query.Token row.Token
            && isDuring query row.At)
        |> Seq.sortBy Merging.orderOfOrder
        |> ofEnd query

    member _.OwnTrades(query: Query) =
        ownTrades.Values
        |> Seq.filter (fun row ->
            isWithin query row.Exchange row.Market
            && isWanted query.Token row.Token
            && isDuring query row.At)
        |> Seq.sortBy Merging.orderOfTrade
        |> ofEnd query

    member _.Matches() =
        matches.Values |> Seq.sortBy Merging.orderOfMatch |> List.ofSeq

    member _.Tally(query: Query) =
        let linked = Merging.linked links.Values
        let tallies = Tallies<struct (ExchangeId * MarketId)>()

        for row in trades.Values do
            if
                isWithin query row.Exchange row.Market
                && isWanted query.Token row.Token
                && isDuring query row.At
            then
                tallies.Add(
                    struct (row.Exchange, row.Market),
                    row.At,
                    row.Source,
                    row.Flags,
                    row.Price,
                    row.Size,
                    row.Id,
                    linked.Contains row.Id
                )

        tallies.Result id

    member _.Links() =
        links.Values
        |> Seq.sortBy (fun link -> struct (link.At, link.Trade, link.Other))
        |> List.ofSeq

    member _.Quarantine() =
        rejections.Values |> Seq.sortBy _.Received |> List.ofSeq

    member _.Status() : StoreStatus =
        let markets = HashSet<struct (ExchangeId * MarketId)>(versions.Keys)

        for row in trades.Values do
            markets.Add(struct (row.Exchange, row.Market)) |> ignore

        for row in books.Values do
            markets.Add(struct (row.Exchange, row.Market)) |> ignore

        for row in deltas.Values do
            markets.Add(struct (row.Exchange, row.Market)) |> ignore

        for row in gaps.Values do
            markets.Add(struct (row.Exchange, row.Market)) |> ignore

        for row in checkpoints.Values do
            markets.Add(struct (row.Exchange, row.Market)) |> ignore

        {
            Markets =
                markets
                |> Seq.sortBy (fun struct (exchange, market) -> struct (string exchange, string market))
                |> Seq.map (fun struct (exchange, market) -> summary exchange market)
                |> List.ofSeq
            Quarantined = rejections.Count
            Metrics = Merging.latest metrics.Values
            Bytes = 0L
            Notes = []
        }

/// A store in memory, for the collector of this name.
let create (collector: string) : Store =
    let tables = Tables collector
    let gate = Lock()

    let alone (work: unit -> 'T) : Task<'T> =
        gate.Enter()

        try
            Task.FromResult(work ())
        finally
            gate.Exit()

    {
        Name = "memory"
        Write =
            fun batches cancelled ->
                if cancelled.IsCancellationRequested then
                    Task.FromCanceled<Result<unit, StoreFault>> cancelled
                else
                    alone (fun () -> Ok(tables.Write batches))
        Checkpoints = fun () -> alone tables.Checkpoints
        Gaps = fun query -> alone (fun () -> tables.Gaps query)
        OpenGaps = fun () -> alone tables.OpenGaps
        Markets = fun () -> alone tables.Markets
        Trades = fun query -> alone (fun () -> tables.Trades query)
        Books = fun query -> alone (fun () -> tables.Books query)
        Deltas = fun query -> alone (fun () -> tables.Deltas query)
        Prices = fun query -> alone (fun () -> tables.Prices query)
        OwnOrders = fun query -> alone (fun () -> tables.OwnOrders query)
        OwnTrades = fun query -> alone (fun () -> tables.OwnTrades query)
        Matches = fun () -> alone tables.Matches
        Tally = fun query -> alone (fun () -> tables.Tally query)
        Links = fun () -> alone tables.Links
        Quarantine = fun () -> alone tables.Quarantine
        Status = fun () -> alone tables.Status
        Backlog = fun () -> Backlog.none
        Expire = fun _ _ _ -> Task.FromResult(Ok [])
        Flush = fun _ -> Task.FromResult()
        Close = fun () -> ValueTask()
    }
