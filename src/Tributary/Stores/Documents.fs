namespace Tributary.Stores

open System
open System.Collections.Generic
open System.Globalization
open System.Reflection
open System.Security.Cryptography
open System.Text
open System.Text.Json
open System.Text.Json.Serialization
open System.Text.Json.Serialization.Metadata
open System.Threading
open System.Threading.Tasks
open FSharp.Reflection
open Tributary

/// A row as a document: some fields to find it by, and all of it as JSON.
type Document = {
    /// `markets`, `market_stats`, `trades`, `orderbook_snapshots`, `orderbook_deltas`, `trade_links`, `prices`, `own_orders`,
    /// `own_trades`, `market_matches`, `gaps`, `quarantine`, `collection_metrics` or `checkpoints`.
    Table: string
    /// Tells rows of a table apart. Compared letter by letter, keys are also the order of rows of one time.
    Key: string
    Exchange: string
    /// Empty where a row is of no market.
    Market: string
    /// Empty where a row is of no token.
    Token: string
    At: Instant
    /// The columns by their names, as the data dictionary has them; prices and sizes as decimal texts, times in microseconds since 1970
    /// UTC.
    Json: string
}

/// Which documents of a table are read. Nothing in a field does not restrict.
type DocumentQuery = {
    Table: string
    Exchange: string voption
    Market: string voption
    Token: string voption
    /// From this moment …
    Since: Instant
    /// … to before this one.
    Until: Instant
    /// The most to answer, the oldest first.
    Limit: int
    /// Of more than that, the newest instead of the oldest; answered oldest first either way.
    Latest: bool
}

/// How many documents of a table are of one market (which may be none), and the times of the first and the last of them.
type DocumentTotal = {
    Exchange: string
    Market: string
    Count: int64
    First: Instant
    Last: Instant
}

/// What a place for documents has to do to be a store: keep them, and find them again. What is new and what repeats is decided elsewhere.
[<NoComparison; NoEquality>]
type DocumentStore = {
    Name: string
    /// Puts all of them as one transaction, or throws and puts none. One whose table and key are there already takes its place.
    Put: IReadOnlyList<Document> -> CancellationToken -> Task
    /// The documents of a table that have one of these keys.
    Get: string -> IReadOnlyList<string> -> Task<IReadOnlyList<Document>>
    /// By time, of one time by key.
    Find: DocumentQuery -> Task<IReadOnlyList<Document>>
    /// Of a table: one for each exchange and market that it has documents of.
    Totals: string -> Task<IReadOnlyList<DocumentTotal>>
    Close: unit -> ValueTask
}

/// Stores that are made of documents: so a store that is written elsewhere, in whatever language, need not know what a gap is.
[<RequireQualifiedAccess>]
module Documents =
    // ---- JSON

    let private good (parsed: Result<'T, string>) =
        match parsed with
        | Ok value -> value
        | Error message -> raise (JsonException message)

    let private text (parse: string -> 'T) = {
        new JsonConverter<'T>() with
            override _.Read(reader, _, _) =
                match reader.GetString() with
                | null -> raise (JsonException "a text is missing")
                | text -> parse text

            override _.Write(writer, value, _) =
                writer.WriteStringValue(string (box value))
    }

    let private union (all: 'T list) =
        text (fun word ->
            match all |> List.tryFind (fun one -> string (box one) = word) with
            | Some found -> found
            | None -> raise (JsonException $"'{word}' is none of {typeof<'T>.Name}"))

    let private instant = {
        new JsonConverter<Instant>() with
            override _.Read(reader, _, _) = Instant.ofMicros (reader.GetInt64())
            override _.Write(writer, value, _) = writer.WriteNumberValue value.Micros
    }

    let private tradeId (text: string) : TradeId =
        let half (start: int) =
            UInt64.Parse(text.AsSpan(start, 16), NumberStyles.HexNumber, CultureInfo.InvariantCulture)

        { High = half 0; Low = half 16 }

    /// What a record computes is no column.
    let private fieldsOnly (info: JsonTypeInfo) =
        if FSharpType.IsRecord info.Type then
            let fields = FSharpType.GetRecordFields info.Type |> Array.map _.Name |> HashSet

            for property in List.ofSeq info.Properties do
                match property.AttributeProvider with
                | :? PropertyInfo as own when fields.Contains own.Name -> ()
                | _ -> info.Properties.Remove property |> ignore

    let private options =
        let options =
            JsonSerializerOptions(
                PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower,
                IncludeFields = true,
                Encoder = Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
                TypeInfoResolver = DefaultJsonTypeInfoResolver().WithAddedModifier fieldsOnly
            )

        let own: JsonConverter list = [
            text (ExchangeId.Parse >> good)
            text (MarketId.Parse >> good)
            text (TokenId.Parse >> good)
            text (Price.parse >> good)
            text (Size.parse >> good)
            text tradeId
            union Stream.all
            union Cause.all
            union [
                MarketStatus.Pending
                MarketStatus.Open
                MarketStatus.Closed
                MarketStatus.Resolved
            ]
            instant
            JsonStringEnumConverter JsonNamingPolicy.SnakeCaseLower
        ]

        own |> List.iter options.Converters.Add
        options

    let private json (row: 'T) = JsonSerializer.Serialize(row, options)

    let private read<'T when 'T: not null> (document: Document) : 'T =
        match JsonSerializer.Deserialize<'T>(document.Json, options) with
        | null -> raise (JsonException $"{document.Table}/{document.Key} is empty")
        | row -> row

    // ---- rows and their keys

    // Lower than any letter that an identity may have: of two identities the shorter comes first.
    let private key (parts: string list) = String.Join('\t', parts)

    let private document table key (exchange: ExchangeId) market token at (row: 'T) : Document = {
        Table = table
        Key = key
        Exchange = string exchange
        Market = market
        Token = token
        At = at
        Json = json row
    }

    let private ofToken (token: TokenId voption) =
        match token with
        | ValueSome token -> string token
        | ValueNone -> ""

    let private number (value: int64) = $"%020d{value}"

    /// A row of a token at a moment. What orders it among those of its time stands first in its key.
    let private ofEvent
        table
        (order: string list)
        (exchange: ExchangeId)
        (market: MarketId)
        (token: TokenId)
        (at: Instant)
        row
        =
        let own = key (order @ [ string exchange; string market; number at.Micros ])
        document table own exchange (string market) (string token) at row

    let private ofTrade (row: Trade) =
        let order = [ string row.Id; string (int row.Source) ]
        ofEvent "trades" order row.Exchange row.Market row.Token row.At row

    let private ofBook (row: OrderBookSnapshot) =
        let order = [ string row.Token; row.Hash ]
        ofEvent "orderbook_snapshots" order row.Exchange row.Market row.Token row.At row

    let private ofDelta (row: OrderBookDelta) =
        let order = [
            string row.Token
            number row.Ordinal
            string (int row.Side)
            number row.Price.Millionths
        ]

        ofEvent "orderbook_deltas" order row.Exchange row.Market row.Token row.At row

    let private ofPrice (row: PricePoint) =
        let order = [ string row.Token; string (int row.Kind) ]
        ofEvent "prices" order row.Exchange row.Market row.Token row.At row

    let private ofOwnOrder (row: OwnOrder) =
        let own =
            key [
                row.Order
                number row.Filled.Millionths
                row.Status
                string row.Exchange
                number row.At.Micros
            ]

        document "own_orders" own row.Exchange (string row.Market) (string row.Token) row.At row

    // When a trade was is no part of what makes it.
    let private ofOwnTrade (row: OwnTrade) =
        let own =
            key [ row.Trade; row.Order; row.Status; string row.Token; string row.Exchange ]

        document "own_trades" own row.Exchange (string row.Market) (string row.Token) row.At row

    let private ofMatch (row: MarketMatch) =
        let own =
            key [
                row.Question
                row.Answer
                string row.Exchange
                string row.Market
                string row.Token
                number row.At.Micros
            ]

        document "market_matches" own row.Exchange (string row.Market) (string row.Token) row.At row

    let private ofLink exchange (row: TradeLink) =
        document "trade_links" (key [ string row.Trade; string row.Other ]) exchange "" "" row.At row

    let private gapKey collector (row: Gap) =
        key [
            collector
            string row.Exchange
            string row.Stream
            string row.Market
            ofToken row.Token
            number row.Since.Micros
            string row.Cause
        ]

    let private ofGap collector (row: Gap) =
        document "gaps" (gapKey collector row) row.Exchange (string row.Market) (ofToken row.Token) row.Since {
            Collector = collector
            Gap = row
        }

    let private ofRejection (row: Rejection) =
        let content =
            Convert.ToHexStringLower(
                SHA256.HashData(Array.append (Encoding.UTF8.GetBytes(row.Reason + "\n")) row.Bytes)
            )

        {
            Table = "quarantine"
            Key = key [ row.Exchange; content ]
            Exchange = row.Exchange
            Market = ""
            Token = ""
            At = row.Received
            Json = json row
        }

    let private ofMetric (row: Metric) = {
        Table = "collection_metrics"
        Key = key [ row.Name; row.Labels; number row.At.Micros ]
        Exchange = ""
        Market = ""
        Token = ""
        At = row.At
        Json = json row
    }

    let private ofCheckpoint (row: Checkpoint) =
        document "checkpoints" row.Job row.Exchange (string row.Market) (ofToken row.Token) row.Watermark row

    let private ofMarket table (row: Market) =
        let at = Merging.momentOf row

        let version =
            Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(json row)).AsSpan(0, 8))

        document
            table
            (key [
                string row.Exchange
                string row.Market
                number at.Micros
                // Of the numbers there is one row for each moment.
                if table = "markets" then
                    number row.Received.Micros
                    version
            ])
            row.Exchange
            (string row.Market)
            ""
            at
            row

    // ---- reading

    let private about table (query: Query) : DocumentQuery = {
        Table = table
        Exchange = query.Exchange |> ValueOption.map string
        Market = query.Market |> ValueOption.map string
        Token = query.Token |> ValueOption.map string
        Since = query.Since
        Until = query.Until
        Limit = query.Limit
        Latest = query.Latest
    }

    let private find<'T when 'T: not null> (store: DocumentStore) table query : Task<'T list> = task {
        let! found = store.Find(about table query)
        return [ for document in found -> read<'T> document ]
    }

    /// All rows of a table, whatever they are about.
    let private all<'T when 'T: not null> store table : Task<'T list> = find<'T> store table Query.everything

    let private marketsBy (versions: Market list) (stats: Market list) =
        let numbers =
            stats
            |> List.groupBy (fun row -> struct (row.Exchange, row.Market))
            |> List.map (fun (market, rows) -> market, rows |> List.maxBy Merging.momentOf)
            |> dict

        versions
        |> List.groupBy (fun row -> struct (row.Exchange, row.Market))
        |> List.choose (fun (market, own) ->
            Merging.newest own
            |> Option.map (
                Merging.withStats (
                    match numbers.TryGetValue market with
                    | true, found -> ValueSome found
                    | _ -> ValueNone
                )
            ))
        |> List.sortBy (fun row -> struct (string row.Exchange, string row.Market))

    let private markets store = task {
        let! versions = all<Market> store "markets"
        let! stats = all<Market> store "market_stats"
        return marketsBy versions stats
    }

    let private gaps store (query: Query) = task {
        let! found =
            find<RecordedGap> store "gaps" {
                Query.everything with
                    Exchange = query.Exchange
                    Market = query.Market
                    Until = query.Until
            }

        return
            found
            |> List.filter (fun row -> Merging.isAbout query row.Gap)
            |> List.truncate query.Limit
    }

    let private tally (store: DocumentStore) (query: Query) = task {
        let! links = all<TradeLink> store "trade_links"
        let linked = Merging.linked links
        let tallies = Tallies<struct (ExchangeId * MarketId)>()
        let mutable next = ValueSome query.Since

        while next.IsSome do
            let! struct (rows, following) =
                InParts.next (find<Trade> store "trades") _.At { query with Since = next.Value }

            for row in rows do
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

            next <- following

        return tallies.Result id
    }

    let private rangeOf (totals: IDictionary<'k, DocumentTotal>) key =
        match totals.TryGetValue key with
        | true, total -> struct (total.Count, ValueSome total.First, ValueSome total.Last)
        | _ -> struct (0L, ValueNone, ValueNone)

    let private status (store: DocumentStore) : Task<StoreStatus> = task {
        let! markets = markets store
        let! gaps = all<RecordedGap> store "gaps"
        let! checkpoints = all<Checkpoint> store "checkpoints"
        let! metrics = all<Metric> store "collection_metrics"
        let! quarantined = store.Totals "quarantine"
        let! trades = store.Totals "trades"
        let! books = store.Totals "orderbook_snapshots"
        let! deltas = store.Totals "orderbook_deltas"

        let by (totals: DocumentTotal seq) =
            totals
            |> Seq.map (fun total -> struct (total.Exchange, total.Market), total)
            |> dict

        let trades, books, deltas = by trades, by books, by deltas

        let summary (struct (exchange, market) as key) : MarketSummary =
            let isOwn e m =
                string (e: ExchangeId) = exchange && string (m: MarketId) = market

            let described = markets |> List.tryFind (fun row -> isOwn row.Exchange row.Market)

            let text (of': Market -> string) =
                described |> Option.map of' |> Option.defaultValue ""

            let own = gaps |> List.filter (fun row -> isOwn row.Gap.Exchange row.Gap.Market)

            let struct (tradeCount, firstTrade, lastTrade) = rangeOf trades key
            let struct (bookCount, firstBook, lastBook) = rangeOf books key
            let struct (deltaCount, firstDelta, lastDelta) = rangeOf deltas key

            {
                Exchange = good (ExchangeId.Parse exchange)
                Market = good (MarketId.Parse market)
                Slug = text _.Slug
                Question = text _.Question
                Status = text (fun market -> string market.Status)
                Trades = tradeCount
                FirstTrade = firstTrade
                LastTrade = lastTrade
                Books = bookCount
                FirstBook = firstBook
                LastBook = lastBook
                Deltas = deltaCount
                FirstDelta = firstDelta
                LastDelta = lastDelta
                Gaps = own.Length
                OpenGaps = own |> List.filter _.Gap.Until.IsNone |> List.length |> int64
                Checkpoints =
                    checkpoints
                    |> List.filter (fun row -> isOwn row.Exchange row.Market)
                    |> List.sortBy _.Job
            }

        return {
            Markets =
                [
                    for row in markets -> struct (string row.Exchange, string row.Market)
                    for row in gaps -> struct (string row.Gap.Exchange, string row.Gap.Market)
                    for row in checkpoints -> struct (string row.Exchange, string row.Market)
                    for totals in [ trades; books; deltas ] do
                        yield! totals.Keys
                ]
                |> List.distinct
                |> List.sort
                |> List.map summary
            Quarantined = quarantined |> Seq.sumBy _.Count
            Metrics = Merging.latest metrics
            Bytes = 0L
            Notes = []
        }
    }

    // ---- writing

    /// What is known of rows by their keys: those of the store, and over them those of the transaction under way.
    [<Sealed>]
    type private Pending(store: DocumentStore) =
        let known = Dictionary<struct (string * string), Document voption>()
        let changed = Dictionary<struct (string * string), Document>()

        member _.Changed = changed.Values |> Array.ofSeq

        /// Reads what is stored under these keys.
        member _.Know(table: string, keys: string seq) = task {
            let missing =
                keys
                |> Seq.distinct
                |> Seq.filter (fun key -> not (known.ContainsKey(struct (table, key))))
                |> Array.ofSeq

            if missing.Length > 0 then
                let! found = store.Get table missing

                for key in missing do
                    known[struct (table, key)] <- ValueNone

                for document in found do
                    known[struct (table, document.Key)] <- ValueSome document
        }

        member _.TryFind(table: string, key: string) =
            match known.TryGetValue(struct (table, key)) with
            | true, found -> found
            | _ -> ValueNone

        member _.Put(document: Document) =
            known[struct (document.Table, document.Key)] <- ValueSome document
            changed[struct (document.Table, document.Key)] <- document

        /// False when it is there already.
        member this.Add(document: Document) =
            let isNew = this.TryFind(document.Table, document.Key).IsNone

            if isNew then
                this.Put document

            isNew

    let private write
        (store: DocumentStore)
        collector
        (batches: IReadOnlyList<Batch>)
        (ct: CancellationToken)
        = task {
        ct.ThrowIfCancellationRequested()
        let pending = Pending store

        let know (documents: Document seq) = task {
            for table, own in documents |> Seq.groupBy _.Table do
                do! pending.Know(table, own |> Seq.map _.Key)
        }

        let versions = Dictionary<struct (string * string), List<Market>>()

        for batch in batches do
            for market in batch.Markets do
                let id = struct (string market.Exchange, string market.Market)

                if not (versions.ContainsKey id) then
                    let! found =
                        find<Market> store "markets" {
                            Query.everything with
                                Exchange = ValueSome market.Exchange
                                Market = ValueSome market.Market
                        }

                    versions[id] <- List found

                if Merging.isNews versions[id] market then
                    versions[id].Add market
                    pending.Put(ofMarket "markets" market)

                if Merging.hasStats market then
                    let stats = ofMarket "market_stats" market
                    do! know [ stats ]
                    pending.Add stats |> ignore

            let trades = [| for i in 0 .. batch.Trades.Count - 1 -> ofTrade (batch.Trade i) |]
            let books = [| for i in 0 .. batch.Books.Count - 1 -> ofBook (batch.Book i) |]
            let deltas = [| for i in 0 .. batch.Deltas.Count - 1 -> ofDelta (batch.Delta i) |]
            let prices = [| for i in 0 .. batch.Prices.Count - 1 -> ofPrice (batch.PricePoint i) |]

            let others = [|
                if batch.Links.Count > 0 then
                    let exchange = good (ExchangeId.Parse batch.Exchange)

                    for i in 0 .. batch.Links.Count - 1 do
                        yield ofLink exchange batch.Links[i]

                for row in batch.OwnOrders do
                    yield ofOwnOrder row

                for row in batch.OwnTrades do
                    yield ofOwnTrade row

                for row in batch.Matches do
                    yield ofMatch row

                for row in batch.Rejections do
                    yield ofRejection row

                for row in batch.Metrics do
                    yield ofMetric row
            |]

            do! know (Seq.concat [ trades; books; deltas; prices; others ])

            for i in 0 .. trades.Length - 1 do
                batch.Trades[i].Inserted <- pending.Add trades[i]

            for i in 0 .. books.Length - 1 do
                batch.Books[i].Inserted <- pending.Add books[i]

            for i in 0 .. deltas.Length - 1 do
                batch.Deltas[i].Inserted <- pending.Add deltas[i]

            for i in 0 .. prices.Length - 1 do
                batch.Prices[i].Inserted <- pending.Add prices[i]

            for other in others do
                pending.Add other |> ignore

            do! pending.Know("gaps", batch.Gaps |> Seq.map (gapKey collector))

            for gap in batch.Gaps do
                let known =
                    pending.TryFind("gaps", gapKey collector gap)
                    |> ValueOption.map (fun document -> (read<RecordedGap> document).Gap)

                pending.Put(ofGap collector (Merging.gap known gap))

            do! pending.Know("checkpoints", batch.Checkpoints |> Seq.map _.Job)

            for checkpoint in batch.Checkpoints do
                let known =
                    pending.TryFind("checkpoints", checkpoint.Job)
                    |> ValueOption.map read<Checkpoint>

                pending.Put(ofCheckpoint (Merging.checkpoint known checkpoint))

        if pending.Changed.Length > 0 then
            do! store.Put pending.Changed ct
    }

    /// A store over documents, for the collector of this name. What the place for documents throws is a failure of the store, which
    /// keeps the batches and tries again.
    let store (collector: string) (documents: DocumentStore) : Store = {
        Name = documents.Name
        Write =
            fun batches cancelled -> task {
                try
                    do! write documents collector batches cancelled
                    return Ok()
                with
                | :? OperationCanceledException when cancelled.IsCancellationRequested ->
                    return raise (OperationCanceledException cancelled)
                | error -> return Error(StoreFault.Failed error.Message)
            }
        Checkpoints =
            fun () -> task {
                let! found = all<Checkpoint> documents "checkpoints"
                return found |> List.sortBy _.Job
            }
        Gaps = gaps documents
        OpenGaps =
            fun () -> task {
                let! found = all<RecordedGap> documents "gaps"

                return
                    found
                    |> List.filter (fun row -> row.Collector = collector && row.Gap.Until.IsNone)
                    |> List.map _.Gap
            }
        Markets = fun () -> markets documents
        Trades = find<Trade> documents "trades"
        Books = find<OrderBookSnapshot> documents "orderbook_snapshots"
        Deltas = find<OrderBookDelta> documents "orderbook_deltas"
        Prices = find<PricePoint> documents "prices"
        OwnOrders = find<OwnOrder> documents "own_orders"
        OwnTrades = find<OwnTrade> documents "own_trades"
        Matches = fun () -> all<MarketMatch> documents "market_matches"
        Tally = tally documents
        Links = fun () -> all<TradeLink> documents "trade_links"
        Quarantine = fun () -> all<Rejection> documents "quarantine"
        Status = fun () -> status documents
        Backlog = fun () -> Backlog.none
        Expire = fun _ _ _ -> Task.FromResult(Ok [])
        Flush = fun _ -> Task.FromResult()
        Close = documents.Close
    }
