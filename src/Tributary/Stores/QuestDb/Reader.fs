/// Reads what QuestDB holds, as every other store is read.
namespace Tributary.Stores.QuestDb

open System
open System.Collections.Generic
open System.Text
open System.Text.Json
open System.Threading
open System.Threading.Tasks
open Tributary
open Tributary.Stores

/// From values of an answer to the domain.
[<RequireQualifiedAccess>]
module private Value =
    let damaged what =
        raise (QuestDbException($"QuestDB holds {what}: it was not written by Tributary", false))

    let private known (parsed: Result<'T, string>) =
        match parsed with
        | Ok value -> value
        | Error message -> damaged message

    let isNull (value: JsonElement) =
        value.ValueKind = JsonValueKind.Null
        || value.ValueKind = JsonValueKind.Undefined

    let text (value: JsonElement) =
        if isNull value then "" else string (value.GetString())

    let exchangeOf text = known (ExchangeId.Parse text)
    let marketOf text = known (MarketId.Parse text)
    let exchange value = exchangeOf (text value)
    let market value = marketOf (text value)
    let token value = known (TokenId.Parse(text value))

    let tokenOrNone value =
        match text value with
        | "" -> ValueNone
        | found -> ValueSome(known (TokenId.Parse found))

    /// Numbers come as numbers or as texts, whole or not.
    let private raw (value: JsonElement) =
        if value.ValueKind = JsonValueKind.String then
            string (value.GetString())
        else
            value.GetRawText()

    let integer (value: JsonElement) =
        if isNull value then
            0L
        else
            match Int64.TryParse(raw value) with
            | true, number -> number
            | _ -> damaged $"'{raw value}' for a whole number"

    let float (value: JsonElement) =
        if isNull value then
            nan
        else
            Double.Parse(raw value, Globalization.CultureInfo.InvariantCulture)

    let millionths (value: JsonElement) =
        let mutable number, rounded = 0L, false

        match Fixed.parse (ReadOnlySpan(Encoding.UTF8.GetBytes(raw value))) &number &rounded with
        | NumberFault.None -> number
        | fault -> damaged $"a number that {Fixed.explain fault}"

    let price value = Price.ofMillionths (millionths value)

    let size value =
        match Size.tryOfMillionths (millionths value) with
        | ValueSome size -> size
        | ValueNone -> damaged "a negative size"

    let orNone (read: JsonElement -> 'T) value =
        if isNull value then ValueNone else ValueSome(read value)

    let instant (value: JsonElement) : Instant =
        let mutable found = Instant.ofMicros 0L

        if Instant.tryIso (ReadOnlySpan(Encoding.UTF8.GetBytes(text value))) &found then
            found
        else
            damaged $"'{text value}' for a time"

    let private oneOf what (all: 'T list) text =
        match all |> List.tryFind (fun one -> string one = text) with
        | Some one -> one
        | None -> damaged $"'{text}' for {what}"

    let stream value =
        oneOf "a stream" Stream.all (text value)

    let cause value = oneOf "a cause" Cause.all (text value)

    let status value =
        oneOf
            "a status"
            [
                MarketStatus.Pending
                MarketStatus.Open
                MarketStatus.Closed
                MarketStatus.Resolved
            ]
            (text value)

    let side value =
        if text value = "sell" then Side.Sell else Side.Buy

    let source value =
        match text value with
        | "stream" -> Source.Stream
        | "chain" -> Source.Chain
        | _ -> Source.Api

    let verdict value =
        match text value with
        | "verified" -> Verdict.Verified
        | "mismatched" -> Verdict.Mismatched
        | _ -> Verdict.Unverifiable

    let private word what tryParse text : 'T =
        match tryParse text with
        | Some found -> found
        | None -> damaged $"'{text}' for {what}"

    let doubt value =
        word "a doubt" Doubt.tryParse (text value)

    let reason value =
        word "a reason" Reason.tryParse (text value)

    let kind value =
        word "a kind of price" PriceKind.tryParse (text value)

    let tradeId value : TradeId =
        let bytes = Convert.FromHexString(text value)

        if bytes.Length <> 16 then
            damaged "a trade id that is not 16 bytes"

        {
            High = Buffers.Binary.BinaryPrimitives.ReadUInt64BigEndian(ReadOnlySpan bytes)
            Low = Buffers.Binary.BinaryPrimitives.ReadUInt64BigEndian(ReadOnlySpan(bytes, 8, 8))
        }

    /// A row of prices and a row of sizes; or a text of pairs, from servers without arrays.
    let levels (value: JsonElement) : Level[] =
        let pairs (levels: JsonElement) = [|
            for pair in levels.EnumerateArray() do
                {
                    Price = price pair[0]
                    Size = size pair[1]
                }
        |]

        if isNull value then
            [||]
        elif value.ValueKind = JsonValueKind.String then
            use parsed = JsonDocument.Parse(string (value.GetString()))
            pairs parsed.RootElement
        elif value.GetArrayLength() < 2 then
            [||]
        else
            let prices, sizes = value[0], value[1]

            Array.init (prices.GetArrayLength()) (fun i -> {
                Price = price prices[i]
                Size = size sizes[i]
            })

/// Rows of a table by their time, a page after the other, so that any number of them takes little memory.
[<RequireQualifiedAccess>]
module internal Pages =
    /// `ask` answers rows from a moment on to before another one, oldest first, so many at most; `take` is given each row once. A page
    /// that is full ends before its last moment, which the next one begins with: rows of one moment have no order of their own.
    let each
        (most: int)
        (ask: Instant -> Instant -> int -> Task<'Row list>)
        (atOf: 'Row -> Instant)
        (since: Instant)
        (until: Instant)
        (take: 'Row -> unit)
        : Task<unit> = task {
        let mutable since, isMore = since, true

        while isMore do
            let! page = ask since until most
            isMore <- page.Length >= most

            if not isMore then
                List.iter take page
            else
                let last = atOf (List.last page)

                if (atOf page.Head).Micros < last.Micros then
                    for row in page do
                        if (atOf row).Micros < last.Micros then
                            take row

                    since <- last
                else
                    // More than a page of one moment.
                    let next = Instant.ofMicros (last.Micros + 1L)
                    let! moment = ask last next Int32.MaxValue
                    List.iter take moment
                    since <- next
    }

/// Questions to a server; what it does not show yet is not in the answers.
[<Sealed>]
type internal Reader(server: Server) =
    // How many rows are asked for at once where there may be any number of them.
    let page = 20_000
    let literal (text: string) = "'" + text.Replace("'", "''") + "'"

    // What the server can compare with: years 1970 to 9999.
    let latest = Instant.ofMicros 253_402_300_799_999_999L

    let moment (instant: Instant) =
        literal (string (max (Instant.ofMicros 0L) (min latest instant)))

    let where (conditions: string list) =
        match conditions with
        | [] -> ""
        | conditions -> " WHERE " + String.Join(" AND ", conditions)

    let equals column (value: 'T voption) = [
        match value with
        | ValueSome value -> $"{column} = {literal (string value)}"
        | ValueNone -> ()
    ]

    let during column (query: Query) = [
        if query.Since > Instant.ofMicros 0L then
            $"{column} >= {moment query.Since}"

        if query.Until <= latest then
            $"{column} < {moment query.Until}"
    ]

    /// What a query restricts where each row is of a token.
    let ofTokens (query: Query) =
        equals "exchange" query.Exchange
        @ equals "market" query.Market
        @ equals "token" query.Token
        @ during "\"at\"" query
        |> where

    let limit (query: Query) =
        if query.Limit = Int32.MaxValue then
            ""
        else
            $" LIMIT {query.Limit}"

    /// The order of rows, and how many are wanted from which end of it.
    let ofEnd (query: Query) columns =
        let direction = if query.Latest then " DESC" else ""

        columns
        |> List.map (fun column -> column + direction)
        |> String.concat ", "
        |> fun order -> $" ORDER BY {order}{limit query}"

    let rows (sql: string) (read: (string -> JsonElement) -> 'T) : Task<'T list> = task {
        use! answer = server.Ask(sql, CancellationToken.None)

        return [ for row in answer.Rows -> read (fun column -> answer.Value(row, column)) ]
    }

    /// Rows as a query wants them.
    let rowsOf (query: Query) sql columns read : Task<'T list> = task {
        let! found = rows $"{sql}{ofTokens query}{ofEnd query columns}" read
        return if query.Latest then List.rev found else found
    }

    let market (get: string -> JsonElement) : Market = {
        Exchange = Value.exchange (get "exchange")
        Market = Value.market (get "market")
        Event = Value.text (get "event")
        Slug = Value.text (get "slug")
        Question = Value.text (get "question")
        Outcomes =
            Content.outcomesOf
                (fun token ->
                    match TokenId.Parse token with
                    | Ok token -> token
                    | Error message -> Value.damaged message)
                (Value.text (get "outcomes"))
        Tags = Content.tagsOf (Value.text (get "tags"))
        Status = Value.status (get "status")
        AcceptsOrders = (get "accepts_orders").ValueKind = JsonValueKind.True
        TickSize = Value.orNone Value.price (get "tick_size")
        MinimumSize = Value.orNone Value.size (get "minimum_size")
        NegRisk = (get "neg_risk").ValueKind = JsonValueKind.True
        Start = Value.orNone Value.instant (get "starts")
        End = Value.orNone Value.instant (get "ends")
        ClosedAt = Value.orNone Value.instant (get "closed")
        Winner = Value.text (get "winner")
        Updated = Value.orNone Value.instant (get "updated")
        Received = Value.instant (get "received")
        Raw = Value.text (get "raw")
        Volume = ValueNone
        Liquidity = ValueNone
        OpenInterest = ValueNone
    }

    /// Counts and ends of a table for each market.
    let extent table = task {
        let! found =
            rows
                $"SELECT exchange, market, count(*) AS amount, min(\"at\") AS earliest, max(\"at\") AS latest FROM \"{table}\" GROUP BY exchange, market"
                (fun get ->
                    struct (Value.text (get "exchange"), Value.text (get "market")),
                    struct (Value.integer (get "amount"),
                            Value.orNone Value.instant (get "earliest"),
                            Value.orNone Value.instant (get "latest")))

        return Map.ofList found
    }

    member _.Trades(query: Query) : Task<Trade list> =
        rowsOf
            query
            "SELECT \"at\", exchange, market, outcome, side, source, flags, token, price, size, collateral, trade_id, transaction_hash, received FROM trades"
            [ "\"at\""; "trade_id"; "source" ]
            (fun get -> {
                Exchange = Value.exchange (get "exchange")
                Market = Value.market (get "market")
                Token = Value.token (get "token")
                Outcome = Value.text (get "outcome")
                Side = Value.side (get "side")
                Price = Value.price (get "price")
                Size = Value.size (get "size")
                Collateral = Value.orNone Value.size (get "collateral")
                Id = Value.tradeId (get "trade_id")
                Transaction = Value.text (get "transaction_hash")
                Source = Value.source (get "source")
                At = Value.instant (get "at")
                Received = Value.instant (get "received")
                Flags = Content.flagsOf (Value.text (get "flags"))
            })

    member _.Books(query: Query) : Task<OrderBookSnapshot list> =
        rowsOf
            query
            "SELECT \"at\", exchange, market, token, verdict, doubt, reason, flags, bids, asks, hash, sequence, received FROM orderbook_snapshots"
            [ "\"at\""; "token"; "hash" ]
            (fun get -> {
                Exchange = Value.exchange (get "exchange")
                Market = Value.market (get "market")
                Token = Value.token (get "token")
                Bids = Value.levels (get "bids")
                Asks = Value.levels (get "asks")
                Hash = Value.text (get "hash")
                Sequence = Value.orNone Value.integer (get "sequence") |> ValueOption.map int
                Verdict = Value.verdict (get "verdict")
                Doubt = Value.doubt (get "doubt")
                Reason = Value.reason (get "reason")
                At = Value.instant (get "at")
                Received = Value.instant (get "received")
                Flags = Content.flagsOf (Value.text (get "flags"))
            })

    member _.Deltas(query: Query) : Task<OrderBookDelta list> =
        rowsOf
            query
            "SELECT \"at\", exchange, market, token, side, verdict, doubt, ordinal, price, size, hash, sequence, received FROM orderbook_deltas"
            [ "\"at\""; "token"; "ordinal"; "side"; "price" ]
            (fun get -> {
                Exchange = Value.exchange (get "exchange")
                Market = Value.market (get "market")
                Token = Value.token (get "token")
                Ordinal = int (Value.integer (get "ordinal"))
                Sequence = Value.orNone Value.integer (get "sequence") |> ValueOption.map int
                Side = Value.side (get "side")
                Price = Value.price (get "price")
                Size = Value.size (get "size")
                Hash = Value.text (get "hash")
                Verdict = Value.verdict (get "verdict")
                Doubt = Value.doubt (get "doubt")
                At = Value.instant (get "at")
                Received = Value.instant (get "received")
            })

    member _.Prices(query: Query) : Task<PricePoint list> =
        rowsOf
            query
            "SELECT \"at\", exchange, market, token, kind, price, received FROM prices"
            [ "\"at\""; "token"; "kind" ]
            (fun get -> {
                Exchange = Value.exchange (get "exchange")
                Market = Value.market (get "market")
                Token = Value.token (get "token")
                Kind = Value.kind (get "kind")
                Price = Value.price (get "price")
                At = Value.instant (get "at")
                Received = Value.instant (get "received")
            })

    member _.OwnOrders(query: Query) : Task<OwnOrder list> =
        rowsOf
            query
            "SELECT \"at\", exchange, market, token, side, status, order_id, price, size, filled, received FROM own_orders"
            [ "\"at\""; "order_id"; "filled"; "status"; "exchange" ]
            (fun get -> {
                Exchange = Value.exchange (get "exchange")
                Market = Value.market (get "market")
                Token = Value.token (get "token")
                Order = Value.text (get "order_id")
                Side = Value.side (get "side")
                Price = Value.price (get "price")
                Size = Value.size (get "size")
                Filled = Value.size (get "filled")
                Status = Value.text (get "status")
                At = Value.instant (get "at")
                Received = Value.instant (get "received")
            })

    /// Once for each status: a time is a part of every key of the server, and of what makes a trade it is none.
    member _.OwnTrades(query: Query) : Task<OwnTrade list> = task {
        let! found =
            rowsOf
                query
                "SELECT \"at\", exchange, market, token, side, status, trade_id, order_id, price, size, is_taker, transaction_hash, received FROM own_trades"
                [ "\"at\""; "trade_id"; "order_id"; "status"; "token"; "exchange" ]
                (fun get -> {
                    Exchange = Value.exchange (get "exchange")
                    Market = Value.market (get "market")
                    Token = Value.token (get "token")
                    Trade = Value.text (get "trade_id")
                    Order = Value.text (get "order_id")
                    Side = Value.side (get "side")
                    Price = Value.price (get "price")
                    Size = Value.size (get "size")
                    IsTaker = (get "is_taker").ValueKind = JsonValueKind.True
                    Status = Value.text (get "status")
                    Transaction = Value.text (get "transaction_hash")
                    At = Value.instant (get "at")
                    Received = Value.instant (get "received")
                })

        return
            found
            |> List.distinctBy (fun row -> struct (row.Exchange, row.Trade, row.Order, row.Status, row.Token))
    }

    member _.Matches() : Task<MarketMatch list> =
        rows
            "SELECT \"at\", exchange, market, token, question, answer, is_withdrawn FROM market_matches ORDER BY \"at\", question, answer, exchange, market, token"
            (fun get -> {
                Exchange = Value.exchange (get "exchange")
                Market = Value.market (get "market")
                Token = Value.token (get "token")
                Question = Value.text (get "question")
                Answer = Value.text (get "answer")
                IsWithdrawn = (get "is_withdrawn").ValueKind = JsonValueKind.True
                At = Value.instant (get "at")
            })

    /// Summed up here, from the numbers as they are read everywhere: sums of doubles would not be exact. The ids that links name are held
    /// in memory, 16 bytes each.
    member _.Tally(query: Query) : Task<Tally list> = task {
        let between (query: Query) sql read since until most =
            rowsOf
                {
                    query with
                        Since = since
                        Until = until
                        Limit = most
                        Latest = false
                }
                sql
                [ "\"at\"" ]
                read

        let number (id: TradeId) = UInt128(id.High, id.Low)
        let linked = List<UInt128>()

        do!
            Pages.each
                page
                (between Query.everything "SELECT \"at\", trade_id, other_id FROM trade_links" (fun get ->
                    struct (Value.instant (get "at"),
                            Value.tradeId (get "trade_id"),
                            Value.tradeId (get "other_id"))))
                (fun struct (at, _, _) -> at)
                Query.everything.Since
                Query.everything.Until
                (fun struct (_, trade, other) ->
                    linked.Add(number trade)
                    linked.Add(number other))

        linked.Sort()
        let tallies = Tallies<struct (string * string)>()

        do!
            Pages.each
                page
                (between
                    query
                    "SELECT \"at\", exchange, market, source, flags, price, size, trade_id FROM trades"
                    (fun get ->
                        struct (Value.instant (get "at"),
                                struct (Value.text (get "exchange"), Value.text (get "market")),
                                Value.source (get "source"),
                                Content.flagsOf (Value.text (get "flags")),
                                Value.price (get "price"),
                                Value.size (get "size"),
                                Value.tradeId (get "trade_id"))))
                (fun struct (at, _, _, _, _, _, _) -> at)
                query.Since
                query.Until
                (fun struct (at, market, source, flags, price, size, id) ->
                    let isLinked = linked.BinarySearch(number id) >= 0
                    tallies.Add(market, at, source, flags, price, size, id, isLinked))

        return
            tallies.Result(fun struct (exchange, market) ->
                struct (Value.exchangeOf exchange, Value.marketOf market))
    }

    member _.Links() : Task<TradeLink list> =
        rows
            "SELECT \"at\", trade_id, other_id FROM trade_links ORDER BY \"at\", trade_id, other_id"
            (fun get -> {
                Trade = Value.tradeId (get "trade_id")
                Other = Value.tradeId (get "other_id")
                At = Value.instant (get "at")
            })

    member _.Gaps(query: Query) : Task<RecordedGap list> =
        let ofToken =
            match query.Token, query.Market with
            | ValueSome token, ValueSome _ -> [ $"(token = {literal (string token)} OR token = '')" ]
            | ValueSome token, ValueNone -> [ $"token = {literal (string token)}" ]
            | ValueNone, _ -> []

        let during = [
            if query.Until <= latest then
                $"\"since\" < {moment query.Until}"

            if query.Since > Instant.ofMicros 0L then
                $"(\"until\" IS NULL OR \"until\" > {moment query.Since} OR \"since\" >= {moment query.Since})"
        ]

        let conditions =
            equals "exchange" query.Exchange
            @ equals "market" query.Market
            @ ofToken
            @ during

        rows
            $"SELECT \"since\", collector, exchange, stream, market, cause, token, \"until\", healed_at, healed_by FROM gaps{where conditions} ORDER BY \"since\"{limit query}"
            (fun get -> {
                Collector = Value.text (get "collector")
                Gap = {
                    Exchange = Value.exchange (get "exchange")
                    Stream = Value.stream (get "stream")
                    Market = Value.market (get "market")
                    Token = Value.tokenOrNone (get "token")
                    Since = Value.instant (get "since")
                    Until = Value.orNone Value.instant (get "until")
                    Cause = Value.cause (get "cause")
                    Healed =
                        Value.orNone Value.instant (get "healed_at")
                        |> ValueOption.map (fun at -> struct (at, Value.text (get "healed_by")))
                }
            })

    member _.Markets() : Task<Market list> = task {
        let! versions =
            rows "SELECT * FROM markets LATEST ON \"at\" PARTITION BY exchange, market" market

        let! numbers =
            rows "SELECT * FROM market_stats LATEST ON \"at\" PARTITION BY exchange, market" (fun get ->
                struct (Value.text (get "exchange"), Value.text (get "market")),
                struct (Value.orNone Value.size (get "volume"),
                        Value.orNone Value.size (get "liquidity"),
                        Value.orNone Value.size (get "open_interest")))

        let numbers = Map.ofList numbers

        return
            versions
            |> List.map (fun market ->
                match Map.tryFind (struct (string market.Exchange, string market.Market)) numbers with
                | Some(struct (volume, liquidity, interest)) -> {
                    market with
                        Volume = volume
                        Liquidity = liquidity
                        OpenInterest = interest
                  }
                | None -> market)
            |> List.sortBy (fun market -> struct (string market.Exchange, string market.Market))
    }

    /// Once for each content: the first that was met.
    member _.Quarantine() : Task<Rejection list> = task {
        let! all =
            rows
                "SELECT received, exchange, source, position, reason, bytes, content FROM quarantine ORDER BY received"
                (fun get ->
                    Value.text (get "content"),
                    {
                        Exchange = Value.text (get "exchange")
                        Source = Value.text (get "source")
                        Offset = int (Value.integer (get "position"))
                        Reason = Value.text (get "reason")
                        Bytes = Convert.FromBase64String(Value.text (get "bytes"))
                        Received = Value.instant (get "received")
                    })

        return all |> List.distinctBy fst |> List.map snd
    }

    member _.Metrics() : Task<Metric list> = task {
        let! all =
            rows
                "SELECT name, labels, \"at\", value FROM collection_metrics LATEST ON \"at\" PARTITION BY name, labels"
                (fun get -> {
                    Name = Value.text (get "name")
                    Labels = Value.text (get "labels")
                    At = Value.instant (get "at")
                    Value = Value.float (get "value")
                })

        return all |> List.sortBy (fun metric -> struct (metric.Name, metric.Labels))
    }

    /// What there is of each market; checkpoints are with the collector, not here.
    member this.Status(checkpoints: Checkpoint list, bytes: int64, notes: string list) : Task<StoreStatus> =
        task {
            let! trades = extent "trades"
            let! books = extent "orderbook_snapshots"
            let! deltas = extent "orderbook_deltas"

            let! gaps =
                rows
                    "SELECT exchange, market, count(*) AS amount, count(\"until\") AS ended FROM gaps GROUP BY exchange, market"
                    (fun get ->
                        struct (Value.text (get "exchange"), Value.text (get "market")),
                        struct (Value.integer (get "amount"), Value.integer (get "ended")))

            let gaps = Map.ofList gaps

            let! described =
                rows
                    "SELECT exchange, market, slug, question, status FROM markets LATEST ON \"at\" PARTITION BY exchange, market"
                    (fun get ->
                        struct (Value.text (get "exchange"), Value.text (get "market")),
                        struct (Value.text (get "slug"),
                                Value.text (get "question"),
                                Value.text (get "status")))

            let described = Map.ofList described

            let! quarantined =
                rows "SELECT count_distinct(content) AS amount FROM quarantine" (fun get ->
                    Value.integer (get "amount"))

            let! metrics = this.Metrics()

            let own =
                checkpoints
                |> List.groupBy (fun one -> struct (string one.Exchange, string one.Market))
                |> Map.ofList

            let keys =
                Seq.concat [
                    Map.keys trades :> seq<_>
                    Map.keys books
                    Map.keys deltas
                    Map.keys gaps
                    Map.keys described
                    Map.keys own
                ]
                |> Seq.distinct
                |> Seq.sort

            let find key (map: Map<_, 'T>) none =
                Map.tryFind key map |> Option.defaultValue none

            return {
                Markets = [
                    for key in keys do
                        let struct (exchange, market) = key

                        let struct (tradeCount, firstTrade, lastTrade) =
                            find key trades (struct (0L, ValueNone, ValueNone))

                        let struct (bookCount, firstBook, lastBook) =
                            find key books (struct (0L, ValueNone, ValueNone))

                        let struct (deltaCount, firstDelta, lastDelta) =
                            find key deltas (struct (0L, ValueNone, ValueNone))

                        let struct (slug, question, status) = find key described (struct ("", "", ""))
                        let struct (gapCount, ended) = find key gaps (struct (0L, 0L))

                        {
                            Exchange = Value.exchangeOf exchange
                            Market = Value.marketOf market
                            Slug = slug
                            Question = question
                            Status = status
                            Trades = tradeCount
                            FirstTrade = firstTrade
                            LastTrade = lastTrade
                            Books = bookCount
                            FirstBook = firstBook
                            LastBook = lastBook
                            Deltas = deltaCount
                            FirstDelta = firstDelta
                            LastDelta = lastDelta
                            Gaps = gapCount
                            OpenGaps = gapCount - ended
                            Checkpoints = find key own []
                        }
                ]
                Quarantined = List.sum quarantined
                Metrics = metrics
                Bytes = bytes
                Notes = notes
            }
        }
