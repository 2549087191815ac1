/// The default store: one SQLite file, readable by every tool there is. WAL mode, one writer, one transaction for each Write.
[<RequireQualifiedAccess>]
module Tributary.Stores.Sqlite

open System
open System.Buffers
open System.Buffers.Binary
open System.Buffers.Text
open System.Collections.Generic
open System.IO
open System.Runtime.CompilerServices
open System.Text
open System.Text.Json
open System.Threading
open System.Threading.Tasks
open SQLitePCL
open Tributary

// ---- what is stored, as bytes

let private micros (instant: Instant voption) = instant |> ValueOption.map _.Micros
let private ofPrice (price: Price voption) = price |> ValueOption.map _.Millionths
let private ofSize (size: Size voption) = size |> ValueOption.map _.Millionths

// -1 for what is no digit; capitals are none, for they would not come back as they were.
let private nibbles =
    Array.init 256 (fun b ->
        match char b with
        | digit when digit >= '0' && digit <= '9' -> b - int '0'
        | digit when digit >= 'a' && digit <= 'f' -> b - int 'a' + 10
        | _ -> -1)

/// Lower-case hex digits as bytes, exactly as many as there is room for; false when the text is anything else.
let private tryHex (text: ReadOnlySpan<byte>) (into: Span<byte>) =
    let mutable ok = text.Length = 2 * into.Length
    let mutable i = 0

    while ok && i < into.Length do
        let value = (nibbles[int text[2 * i]] <<< 4) ||| nibbles[int text[2 * i + 1]]
        ok <- value >= 0
        into[i] <- byte value
        i <- i + 1

    ok

let private zeroX = "0x"B

/// A row that cannot be what we wrote: the file was changed by somebody else or is damaged.
let private damaged what =
    raise (SqliteException(raw.SQLITE_CORRUPT, $"the file holds {what}"))

let private known (parsed: Result<'T, string>) =
    match parsed with
    | Ok value -> value
    | Error message -> damaged message

let private exchangeOf text = known (ExchangeId.Parse text)
let private marketOf text = known (MarketId.Parse text)
let private tokenOf text = known (TokenId.Parse text)

let private marketOf' = marketOf
let private tokenOf' = tokenOf

let private sizeOf millionths =
    match Size.tryOfMillionths millionths with
    | ValueSome size -> size
    | ValueNone -> damaged "a negative size"

let private oneOf what all text =
    match all |> List.tryFind (fun one -> string one = text) with
    | Some one -> one
    | None -> damaged $"'{text}' for {what}"

let private streamOf = oneOf "a stream" Stream.all

let private reasonOf text =
    match Reason.tryParse text with
    | Some reason -> reason
    | None -> damaged $"'{text}' for a reason"

let private kindOf text =
    match PriceKind.tryParse text with
    | Some kind -> kind
    | None -> damaged $"'{text}' for a kind of price"

let private doubtOf (number: int64) : Doubt =
    if number >= 0L && number < int64 Doubt.all.Length then
        LanguagePrimitives.EnumOfValue(byte number)
    else
        damaged $"{number} for a doubt"

let private causeOf = oneOf "a cause" Cause.all

let private statusOf =
    oneOf "a status" [
        MarketStatus.Pending
        MarketStatus.Open
        MarketStatus.Closed
        MarketStatus.Resolved
    ]

/// `[[price,size],…]` in millionths.
let private levelsOf (text: ReadOnlySpan<byte>) : Level[] =
    let levels = ResizeArray<Level>()
    let mutable reader = Utf8JsonReader text
    let mutable price, isPrice = 0L, true

    while reader.Read() do
        if reader.TokenType = JsonTokenType.Number then
            if isPrice then
                price <- reader.GetInt64()
            else
                levels.Add {
                    Price = Price.ofMillionths price
                    Size = sizeOf (reader.GetInt64())
                }

            isPrice <- not isPrice

    levels.ToArray()

// ---- writing

/// The key of a token, and the outcome name that its row has (in the numbers of one `Names`; 0 while it has none).
[<Struct>]
type private TokenKey = {
    Market: int64
    Key: int64
    Outcome: Name
}

/// The keys that an exchange's names have in this file, by the numbers of one `Names`; 0 is unknown.
[<Sealed>]
type private Keys(exchange: int64) =
    let mutable markets: int64[] = Array.zeroCreate 256
    let mutable tokens: TokenKey[] = Array.zeroCreate 256
    member _.Exchange = exchange

    member _.Market(name: Name) : byref<int64> =
        if name.Key >= markets.Length then
            Array.Resize(&markets, max (name.Key + 1) (markets.Length * 2))

        &markets[name.Key]

    member _.Token(name: Name) : byref<TokenKey> =
        if name.Key >= tokens.Length then
            Array.Resize(&tokens, max (name.Key + 1) (tokens.Length * 2))

        &tokens[name.Key]

/// Where a row of a file is, for as long as the file lives: numbers (int64) and texts, as each table's key wants them.
[<Sealed>]
type private References(table: string) =
    let places = Neutral.Sink()
    let mutable count = 0
    member _.Table = table
    member _.Number(value: int64) = places.Int64 value
    member _.Bytes(value: ReadOnlySpan<byte>) = value.CopyTo(places.Room value.Length)

    member _.Text(value: string) =
        places.Text(ReadOnlySpan(Encoding.UTF8.GetBytes value))

    /// A row's place is complete.
    member _.Next() = count <- count + 1

    member _.MoveTo(outbox: OutboxWriter) =
        if count > 0 then
            outbox.Add(table, count, false, places.Written)

        places.Clear()
        count <- 0

    member _.Clear() =
        places.Clear()
        count <- 0

/// What was shipped lately, so that it is not shipped with every poll: sending it again would be harmless, but not free.
[<Sealed>]
type private Shipped() =
    let capacity = 200_000

    let mutable trades, books, deltas, prices =
        Repeats capacity, Repeats capacity, Repeats capacity, Repeats capacity
    // Those of the transaction under way.
    let newTrades, newBooks, newDeltas, newPrices =
        HashSet<TradeId>(), HashSet<TradeId>(), HashSet<TradeId>(), HashSet<TradeId>()

    // What the tokens of deltas and prices come down to: by `Names`, exchange and token, with the market that it was made for.
    let tokens =
        ConditionalWeakTable<Names, Dictionary<struct (string * Name), struct (Name * TradeId)>>()

    let isNew (known: Repeats) (fresh: HashSet<TradeId>) id = not (known.Knows id) && fresh.Add id

    let tokenOf (batch: Batch) (market: Name) (token: Name) =
        let known = tokens.GetOrCreateValue batch.Names
        let key = struct (batch.Exchange, token)

        match known.TryGetValue key with
        | true, struct (madeFor, made) when madeFor.Key = market.Key -> made
        | _ ->
            let made = Content.tokenOf batch market token
            known[key] <- struct (market, made)
            made

    member _.IsNewTrade(id: TradeId, source: Source) =
        // The source is part of a sighting's identity.
        isNew trades newTrades {
            id with
                High = id.High ^^^ uint64 source
        }

    member _.IsNewBook(batch: Batch, row: inref<BookRow>) =
        isNew books newBooks (Content.bookOf batch &row)

    member _.IsNewDelta(batch: Batch, row: inref<DeltaRow>) =
        isNew deltas newDeltas (Content.deltaOf (tokenOf batch row.Market row.Token) &row)

    member _.IsNewPrice(batch: Batch, row: inref<PriceRow>) =
        isNew prices newPrices (Content.priceOf (tokenOf batch row.Market row.Token) &row)

    /// What was new is in the outbox.
    member this.Keep() =
        for id in newTrades do
            trades.Remember id |> ignore

        for id in newBooks do
            books.Remember id |> ignore

        for id in newDeltas do
            deltas.Remember id |> ignore

        for id in newPrices do
            prices.Remember id |> ignore

        this.Undo()

    /// What was new is not in the outbox.
    member _.Undo() =
        newTrades.Clear()
        newBooks.Clear()
        newDeltas.Clear()
        newPrices.Clear()

    /// What is in the outbox no more may come again. What is new is in it.
    member _.Forget() =
        trades <- Repeats capacity
        books <- Repeats capacity
        deltas <- Repeats capacity
        prices <- Repeats capacity

/// The writing connection: every statement once, and what is known of the file's keys. One caller at a time.
[<Sealed>]
type private Writer(db: Connection, collector: string, shipping: Shipping, outbox: OutboxWriter) =
    let start = db.Prepare "BEGIN IMMEDIATE"
    let commit = db.Prepare "COMMIT"

    let exchangeKey =
        db.Prepare
            "INSERT INTO exchanges (name) VALUES (?1)
             ON CONFLICT (name) DO UPDATE SET name = excluded.name RETURNING id"

    let marketKey =
        db.Prepare
            "INSERT INTO market_keys (exchange, name) VALUES (?1, ?2)
             ON CONFLICT (exchange, name) DO UPDATE SET name = excluded.name RETURNING id"

    let tokenKey =
        db.Prepare
            "INSERT INTO token_keys (market, name) VALUES (?1, ?2)
             ON CONFLICT (market, name) DO UPDATE SET name = excluded.name RETURNING id, outcome"

    let metricKey =
        db.Prepare
            "INSERT INTO metric_keys (name, labels) VALUES (?1, ?2)
             ON CONFLICT (name, labels) DO UPDATE SET name = excluded.name RETURNING id"

    let tokenOutcome = db.Prepare "UPDATE token_keys SET outcome = ?2 WHERE id = ?1"

    let moreTrades =
        db.Prepare "UPDATE market_keys SET trades = trades + ?2 WHERE id = ?1"

    let moreBooks = db.Prepare "UPDATE token_keys SET books = books + ?2 WHERE id = ?1"

    let moreDeltas =
        db.Prepare "UPDATE token_keys SET deltas = deltas + ?2 WHERE id = ?1"

    let trade =
        db.Prepare
            "INSERT INTO trades (market, at, trade_id, source, token, outcome, side, price, size, transaction_hash,
                                 received, flags, collateral)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
             ON CONFLICT (market, at, trade_id, source) DO NOTHING"

    let book =
        db.Prepare
            "INSERT INTO orderbook_snapshots (token, at, hash, received, best_bid, best_bid_size, best_ask, best_ask_size,
                                              verdict, flags, bids, asks, reason, doubt, sequence)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, nullif(?15, 0))
             ON CONFLICT (token, at, hash) DO NOTHING"

    let delta =
        db.Prepare
            "INSERT INTO orderbook_deltas (token, at, ordinal, side, price, size, hash, received, verdict, doubt,
                                           sequence)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, nullif(?11, 0))
             ON CONFLICT (token, at, ordinal, side, price) DO NOTHING"

    let point =
        db.Prepare
            "INSERT INTO prices (token, at, kind, price, received) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (token, at, kind) DO NOTHING"

    let link =
        db.Prepare
            "INSERT INTO trade_links (other_id, trade_id, at) VALUES (?1, ?2, ?3)
             ON CONFLICT (other_id, trade_id) DO NOTHING"

    let ownOrder =
        db.Prepare
            "INSERT INTO own_orders (exchange, order_id, status, filled, at, token, side, price, size, received)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
             ON CONFLICT (exchange, order_id, status, filled, at) DO NOTHING"

    let ownTrade =
        db.Prepare
            "INSERT INTO own_trades (exchange, trade_id, order_id, status, token, at, side, price, size, is_taker,
                                     transaction_hash, received)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
             ON CONFLICT (exchange, trade_id, order_id, status, token) DO NOTHING"

    let matching =
        db.Prepare
            "INSERT INTO market_matches (question, answer, token, at, is_withdrawn) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (question, answer, token, at) DO NOTHING"

    let market =
        db.Prepare
            "INSERT INTO markets (market, at, version, received, updated, event, slug, question, outcomes, tags, status,
                                  accepts_orders, tick_size, minimum_size, neg_risk, starts, ends, closed, winner, raw)
             SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20
             WHERE ?3 IS NOT (SELECT version FROM markets WHERE market = ?1 AND at <= ?2
                              ORDER BY at DESC, received DESC LIMIT 1)
             ON CONFLICT (market, at, version) DO NOTHING"

    let stats =
        db.Prepare
            "INSERT INTO market_stats (market, at, volume, liquidity, open_interest) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (market, at) DO NOTHING"

    let gap =
        db.Prepare
            "INSERT INTO gaps (collector, market, stream, token, since, cause, until, healed_at, healed_by)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
             ON CONFLICT (collector, market, stream, token, since, cause) DO UPDATE SET
                 until = coalesce(until, excluded.until),
                 healed_at = coalesce(healed_at, excluded.healed_at),
                 healed_by = coalesce(healed_by, excluded.healed_by)
             WHERE (until IS NULL AND excluded.until IS NOT NULL)
                OR (healed_at IS NULL AND excluded.healed_at IS NOT NULL)"

    // What the outbox dropped grows with every drop, and what was healed before is torn open again.
    let overrun =
        db.Prepare
            "UPDATE gaps SET until = ?6, healed_at = NULL, healed_by = NULL
             WHERE collector = ?1 AND market = ?2 AND stream = ?3 AND token = ?4 AND since = ?5 AND cause = 'overrun' AND until < ?6"

    // The same run twice is one run.
    let checkpoint =
        db.Prepare
            "INSERT INTO checkpoints (job, market, stream, token, since, watermark, rows, error, duration, state,
                                      runs, total_rows, total_errors)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 1, ?7, ?8 <> '')
             ON CONFLICT (job) DO UPDATE SET
                 market = excluded.market, stream = excluded.stream, token = excluded.token,
                 since = excluded.since, watermark = max(watermark, excluded.watermark),
                 rows = excluded.rows, error = excluded.error, duration = excluded.duration,
                 state = excluded.state,
                 runs = runs + 1,
                 total_rows = total_rows + excluded.total_rows,
                 total_errors = total_errors + excluded.total_errors
             WHERE (since, watermark, rows, error, duration, state)
                IS NOT (excluded.since, excluded.watermark, excluded.rows, excluded.error, excluded.duration,
                        excluded.state)"

    let rejection =
        db.Prepare
            "INSERT INTO quarantine (content, exchange, source, position, reason, bytes, received)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (content) DO NOTHING"

    let metric =
        db.Prepare
            "INSERT INTO collection_metrics (metric, at, value) VALUES (?1, ?2, ?3)
             ON CONFLICT (metric, at) DO NOTHING"

    // Keys by the `Names` that a batch comes with, then by exchange.
    let mutable keys = ConditionalWeakTable<Names, Dictionary<string, Keys>>()
    let newTrades = Dictionary<int64, int>()
    let newBooks = Dictionary<int64, int>()
    let newDeltas = Dictionary<int64, int>()
    let reasons = Reason.all |> List.map (snd >> Encoding.UTF8.GetBytes) |> Array.ofList

    let kinds =
        PriceKind.all |> List.map (snd >> Encoding.UTF8.GetBytes) |> Array.ofList

    let idBytes: byte[] = Array.zeroCreate 16
    let otherBytes: byte[] = Array.zeroCreate 16
    let transactionBytes: byte[] = Array.zeroCreate 32
    let hashBytes: byte[] = Array.zeroCreate 20
    let mutable levels: byte[] = Array.zeroCreate 65_536

    let ships = shipping <> Shipping.Off
    let shipsRows = shipping.IsRows
    let neutral = Neutral.Writer()
    let shipped = Shipped()
    let tradePlaces = References "trades"
    let bookPlaces = References "orderbook_snapshots"
    let deltaPlaces = References "orderbook_deltas"
    let pricePlaces = References "prices"
    let linkPlaces = References "trade_links"
    let ownOrderPlaces = References "own_orders"
    let ownTradePlaces = References "own_trades"
    let matchPlaces = References "market_matches"
    let marketPlaces = References "markets"
    let statsPlaces = References "market_stats"
    let gapPlaces = References "gaps"
    let rejectionPlaces = References "quarantine"
    let metricPlaces = References "collection_metrics"

    let places = [
        marketPlaces
        statsPlaces
        tradePlaces
        bookPlaces
        deltaPlaces
        pricePlaces
        linkPlaces
        ownOrderPlaces
        ownTradePlaces
        matchPlaces
        gapPlaces
        rejectionPlaces
        metricPlaces
    ]

    /// What a statement with RETURNING answers first.
    let returned (statement: Statement) =
        statement.Step() |> ignore
        let id = statement.Integer 0
        statement.Run()
        id

    let keysOf (batch: Batch) (exchange: string) =
        let byExchange = keys.GetOrCreateValue batch.Names

        match byExchange.TryGetValue exchange with
        | true, found -> found
        | _ ->
            exchangeKey.Text(1, exchange)
            let made = Keys(returned exchangeKey)
            byExchange[exchange] <- made
            made

    let newMarket (keys: Keys) (names: Names) (name: Name) =
        marketKey.Integer(1, keys.Exchange)
        marketKey.Text(2, ReadOnlySpan(names.Utf8 name))
        let key = returned marketKey
        keys.Market name <- key
        key

    let marketOf (keys: Keys) names name =
        let key = keys.Market name
        if key = 0L then newMarket keys names name else key

    let newToken (keys: Keys) (names: Names) market (name: Name) =
        tokenKey.Integer(1, market)
        tokenKey.Text(2, ReadOnlySpan(names.Utf8 name))
        tokenKey.Step() |> ignore

        let token = {
            Market = market
            Key = tokenKey.Integer 0
            Outcome = names.Intern(tokenKey.Bytes 1)
        }

        tokenKey.Run()
        keys.Token name <- token
        token

    let tokenOf (keys: Keys) names market name =
        let token = keys.Token name
        // An exchange could give two markets the same token: to us they are two.
        if token.Key = 0L || token.Market <> market then
            newToken keys names market name
        else
            token

    /// Remembers the outcome of a token whose outcome was not known.
    let learn (keys: Keys) (names: Names) name (token: TokenKey) (outcome: Name) =
        tokenOutcome.Integer(1, token.Key)
        tokenOutcome.Text(2, ReadOnlySpan(names.Utf8 outcome))
        tokenOutcome.Run()
        keys.Token name <- { token with Outcome = outcome }

    let count (counts: Dictionary<int64, int>) key =
        let mutable before = 0
        counts.TryGetValue(key, &before) |> ignore
        counts[key] <- before + 1

    let putId (id: TradeId) (into: byte[]) =
        BinaryPrimitives.WriteUInt64BigEndian(Span(into, 0, 8), id.High)
        BinaryPrimitives.WriteUInt64BigEndian(Span(into, 8, 8), id.Low)

    let writeTrades (batch: Batch) =
        let names, rows = batch.Names, batch.Trades
        let keys = keysOf batch batch.Exchange

        for i in 0 .. rows.Count - 1 do
            let row = &rows[i]
            let market = marketOf keys names row.Market
            let token = tokenOf keys names market row.Token
            let outcome = row.Outcome

            if token.Outcome.Key = 0 && outcome.Key <> 0 then
                learn keys names row.Token token outcome

            putId row.Id idBytes
            trade.Integer(1, market)
            trade.Integer(2, row.At.Micros)
            trade.Blob(3, ReadOnlySpan idBytes)
            trade.Integer(4, int64 row.Source)
            trade.Integer(5, token.Key)

            if outcome.Key = 0 || token.Outcome.Key = 0 || outcome.Key = token.Outcome.Key then
                trade.Null 6
            else
                trade.Text(6, ReadOnlySpan(names.Utf8 outcome))

            trade.Integer(7, int64 row.Side)
            trade.Integer(8, row.Price.Millionths)
            trade.Integer(9, row.Size.Millionths)
            let transaction = batch.Utf8 row.Transaction

            if transaction.IsEmpty then
                trade.Null 10
            elif
                transaction.StartsWith(ReadOnlySpan zeroX)
                && tryHex (transaction.Slice 2) (Span transactionBytes)
            then
                trade.Blob(10, ReadOnlySpan transactionBytes)
            else
                trade.Text(10, transaction)

            trade.Integer(11, row.Received.Micros)
            trade.Integer(12, int64 row.Flags)
            trade.IntegerOrNull(13, ofSize row.Collateral)
            trade.Run()
            row.Inserted <- db.Changes = 1

            if row.Inserted then
                count newTrades market

                if ships then
                    tradePlaces.Number market
                    tradePlaces.Number row.At.Micros
                    tradePlaces.Number(int64 row.Source)
                    tradePlaces.Bytes(ReadOnlySpan idBytes)
                    tradePlaces.Next()

    /// Into the outbox, whole.
    let shipTrades (batch: Batch) =
        let mutable rows = 0

        for i in 0 .. batch.Trades.Count - 1 do
            let row = &batch.Trades[i]
            row.Inserted <- shipped.IsNewTrade(row.Id, row.Source)

            if row.Inserted then
                rows <- rows + 1

        if rows > 0 then
            outbox.Add("trades", rows, true, neutral.Trades(batch, rows))

    let shipBooks (batch: Batch) =
        let mutable rows = 0

        for i in 0 .. batch.Books.Count - 1 do
            let row = &batch.Books[i]
            row.Inserted <- shipped.IsNewBook(batch, &row)

            if row.Inserted then
                rows <- rows + 1

        if rows > 0 then
            outbox.Add("orderbook_snapshots", rows, true, neutral.Books(batch, rows))

    let shipDeltas (batch: Batch) =
        let mutable rows = 0

        for i in 0 .. batch.Deltas.Count - 1 do
            let row = &batch.Deltas[i]
            row.Inserted <- shipped.IsNewDelta(batch, &row)

            if row.Inserted then
                rows <- rows + 1

        if rows > 0 then
            outbox.Add("orderbook_deltas", rows, true, neutral.Deltas(batch, rows))

    let shipPrices (batch: Batch) =
        let mutable rows = 0

        for i in 0 .. batch.Prices.Count - 1 do
            let row = &batch.Prices[i]
            row.Inserted <- shipped.IsNewPrice(batch, &row)

            if row.Inserted then
                rows <- rows + 1

        if rows > 0 then
            outbox.Add("prices", rows, true, neutral.Prices(batch, rows))

    let put (at: byref<int>) (symbol: byte) =
        levels[at] <- symbol
        at <- at + 1

    let putNumber (at: byref<int>) (number: int64) =
        let mutable written = 0
        Utf8Formatter.TryFormat(number, Span(levels, at, 20), &written) |> ignore
        at <- at + written

    /// `[[price,size],…]` into the buffer; answers how long it is.
    let putLevels (side: Span<Level>) =
        let room = 2 + side.Length * 44 // two numbers of up to 20 digits, two brackets and two commas

        if levels.Length < room then
            levels <- Array.zeroCreate (2 * room)

        let mutable at = 0
        put &at '['B

        for i in 0 .. side.Length - 1 do
            if i > 0 then
                put &at ','B

            put &at '['B
            putNumber &at side[i].Price.Millionths
            put &at ','B
            putNumber &at side[i].Size.Millionths
            put &at ']'B

        put &at ']'B
        at

    let writeSide best json (side: Span<Level>) =
        if side.Length = 0 then
            book.Null best
            book.Null(best + 1)
        else
            book.Integer(best, side[0].Price.Millionths)
            book.Integer(best + 1, side[0].Size.Millionths)

        let length = putLevels side
        book.Text(json, ReadOnlySpan(levels, 0, length))

    let writeBooks (batch: Batch) =
        let names, rows = batch.Names, batch.Books
        let keys = keysOf batch batch.Exchange

        for i in 0 .. rows.Count - 1 do
            let row = &rows[i]
            let token = tokenOf keys names (marketOf keys names row.Market) row.Token
            let hash = batch.Utf8 row.Hash
            book.Integer(1, token.Key)
            book.Integer(2, row.At.Micros)

            if tryHex hash (Span hashBytes) then
                book.Blob(3, ReadOnlySpan hashBytes)
            else
                book.Text(3, hash)

            book.Integer(4, row.Received.Micros)
            writeSide 5 11 (batch.Levels.Slice(row.FirstBid, row.BidCount))
            writeSide 7 12 (batch.Levels.Slice(row.FirstAsk, row.AskCount))
            book.Integer(9, int64 row.Verdict)
            book.Integer(10, int64 row.Flags)
            book.Text(13, ReadOnlySpan reasons[int row.Reason])
            book.Integer(14, int64 row.Doubt)
            book.Integer(15, row.Sequence)
            book.Run()
            row.Inserted <- db.Changes = 1

            if row.Inserted then
                count newBooks token.Key

                if ships then
                    bookPlaces.Number db.LastRow
                    bookPlaces.Next()

    // Hot: of live books there may be 20,000 in a second.
    let writeDeltas (batch: Batch) =
        let names, rows = batch.Names, batch.Deltas
        let keys = keysOf batch batch.Exchange

        for i in 0 .. rows.Count - 1 do
            let row = &rows[i]
            let token = tokenOf keys names (marketOf keys names row.Market) row.Token
            let hash = batch.Utf8 row.Hash
            delta.Integer(1, token.Key)
            delta.Integer(2, row.At.Micros)
            delta.Integer(3, row.Ordinal)
            delta.Integer(4, int64 row.Side)
            delta.Integer(5, row.Price.Millionths)
            delta.Integer(6, row.Size.Millionths)

            if tryHex hash (Span hashBytes) then
                delta.Blob(7, ReadOnlySpan hashBytes)
            else
                delta.Text(7, hash)

            delta.Integer(8, row.Received.Micros)
            delta.Integer(9, int64 row.Verdict)
            delta.Integer(10, int64 row.Doubt)
            delta.Integer(11, row.Sequence)
            delta.Run()
            row.Inserted <- db.Changes = 1

            if row.Inserted then
                count newDeltas token.Key

                if ships then
                    deltaPlaces.Number token.Key
                    deltaPlaces.Number row.At.Micros
                    deltaPlaces.Number row.Ordinal
                    deltaPlaces.Number(int64 row.Side)
                    deltaPlaces.Number row.Price.Millionths
                    deltaPlaces.Next()

    let writePrices (batch: Batch) =
        let names, rows = batch.Names, batch.Prices
        let keys = keysOf batch batch.Exchange

        for i in 0 .. rows.Count - 1 do
            let row = &rows[i]
            let token = tokenOf keys names (marketOf keys names row.Market) row.Token
            point.Integer(1, token.Key)
            point.Integer(2, row.At.Micros)
            point.Text(3, ReadOnlySpan kinds[int row.Kind])
            point.Integer(4, row.Price.Millionths)
            point.Integer(5, row.Received.Micros)
            point.Run()
            row.Inserted <- db.Changes = 1

            if row.Inserted && ships then
                pricePlaces.Number token.Key
                pricePlaces.Number row.At.Micros
                pricePlaces.Number(int64 row.Kind)
                pricePlaces.Next()

    /// A link is small: what refers to it holds all of it, and it is never dropped.
    let writeLinks (batch: Batch) =
        for i in 0 .. batch.Links.Count - 1 do
            let row = &batch.Links[i]
            putId row.Trade idBytes
            putId row.Other otherBytes

            if not shipsRows then
                link.Blob(1, ReadOnlySpan otherBytes)
                link.Blob(2, ReadOnlySpan idBytes)
                link.Integer(3, row.At.Micros)
                link.Run()

            if ships && (shipsRows || db.Changes = 1) then
                linkPlaces.Number row.At.Micros
                linkPlaces.Bytes(ReadOnlySpan idBytes)
                linkPlaces.Bytes(ReadOnlySpan otherBytes)
                linkPlaces.Next()

    let keyOfMarket (batch: Batch) (exchange: ExchangeId) (id: MarketId) =
        marketOf (keysOf batch (string exchange)) batch.Names (batch.Names.Intern(string id))

    let keyOfToken (batch: Batch) (exchange: ExchangeId) market (id: TokenId) =
        tokenOf (keysOf batch (string exchange)) batch.Names market (batch.Names.Intern(string id))

    // The account's own rows, and matches, are few and dear: also a file that is only an outbox has them in its tables, which tells what
    // comes again however long ago it came, and what waits refers to them, so that none is ever dropped for want of room.
    let writeOwnOrder (batch: Batch) (row: OwnOrder) =
        let market = keyOfMarket batch row.Exchange row.Market
        let token = keyOfToken batch row.Exchange market row.Token
        ownOrder.Integer(1, (keysOf batch (string row.Exchange)).Exchange)
        ownOrder.Text(2, row.Order)
        ownOrder.Text(3, row.Status)
        ownOrder.Integer(4, row.Filled.Millionths)
        ownOrder.Integer(5, row.At.Micros)
        ownOrder.Integer(6, token.Key)
        ownOrder.Integer(7, int64 row.Side)
        ownOrder.Integer(8, row.Price.Millionths)
        ownOrder.Integer(9, row.Size.Millionths)
        ownOrder.Integer(10, row.Received.Micros)
        ownOrder.Run()

        if ships && db.Changes = 1 then
            ownOrderPlaces.Number db.LastRow
            ownOrderPlaces.Next()

    let writeOwnTrade (batch: Batch) (row: OwnTrade) =
        let market = keyOfMarket batch row.Exchange row.Market
        let token = keyOfToken batch row.Exchange market row.Token
        ownTrade.Integer(1, (keysOf batch (string row.Exchange)).Exchange)
        ownTrade.Text(2, row.Trade)
        ownTrade.Text(3, row.Order)
        ownTrade.Text(4, row.Status)
        ownTrade.Integer(5, token.Key)
        ownTrade.Integer(6, row.At.Micros)
        ownTrade.Integer(7, int64 row.Side)
        ownTrade.Integer(8, row.Price.Millionths)
        ownTrade.Integer(9, row.Size.Millionths)
        ownTrade.Integer(10, (if row.IsTaker then 1L else 0L))
        ownTrade.Text(11, row.Transaction)
        ownTrade.Integer(12, row.Received.Micros)
        ownTrade.Run()

        if ships && db.Changes = 1 then
            ownTradePlaces.Number db.LastRow
            ownTradePlaces.Next()

    let writeMatch (batch: Batch) (row: MarketMatch) =
        let market = keyOfMarket batch row.Exchange row.Market
        matching.Text(1, row.Question)
        matching.Text(2, row.Answer)
        matching.Integer(3, (keyOfToken batch row.Exchange market row.Token).Key)
        matching.Integer(4, row.At.Micros)
        matching.Integer(5, (if row.IsWithdrawn then 1L else 0L))
        matching.Run()

        if ships && db.Changes = 1 then
            matchPlaces.Number db.LastRow
            matchPlaces.Next()

    let writeMarket (batch: Batch) (row: Market) =
        let key = keyOfMarket batch row.Exchange row.Market
        let at = (ValueOption.defaultValue row.Received row.Updated).Micros

        for outcome in row.Outcomes do
            match outcome.Token with
            | ValueSome id ->
                let token = keyOfToken batch row.Exchange key id

                if token.Outcome.Key = 0 && outcome.Name <> "" then
                    let keys = keysOf batch (string row.Exchange)

                    learn
                        keys
                        batch.Names
                        (batch.Names.Intern(string id))
                        token
                        (batch.Names.Intern outcome.Name)
            | ValueNone -> ()

        market.Integer(1, key)
        market.Integer(2, at)
        market.Blob(3, ReadOnlySpan(Content.versionOf row))
        market.Integer(4, row.Received.Micros)
        market.IntegerOrNull(5, micros row.Updated)
        market.Text(6, row.Event)
        market.Text(7, row.Slug)
        market.Text(8, row.Question)
        market.Text(9, Content.outcomesJson row.Outcomes)
        market.Text(10, Content.tagsJson row.Tags)
        market.Text(11, string row.Status)
        market.Integer(12, (if row.AcceptsOrders then 1L else 0L))
        market.IntegerOrNull(13, ofPrice row.TickSize)
        market.IntegerOrNull(14, ofSize row.MinimumSize)
        market.Integer(15, (if row.NegRisk then 1L else 0L))
        market.IntegerOrNull(16, micros row.Start)
        market.IntegerOrNull(17, micros row.End)
        market.IntegerOrNull(18, micros row.ClosedAt)
        market.Text(19, row.Winner)
        market.Text(20, row.Raw)
        market.Run()

        if ships && db.Changes = 1 then
            marketPlaces.Number db.LastRow
            marketPlaces.Next()

        if row.Volume.IsSome || row.Liquidity.IsSome || row.OpenInterest.IsSome then
            stats.Integer(1, key)
            stats.Integer(2, at)
            stats.IntegerOrNull(3, ofSize row.Volume)
            stats.IntegerOrNull(4, ofSize row.Liquidity)
            stats.IntegerOrNull(5, ofSize row.OpenInterest)
            stats.Run()

            if ships && db.Changes = 1 then
                statsPlaces.Number key
                statsPlaces.Number at
                statsPlaces.Next()

    let writeGap (batch: Batch) (row: Gap) =
        let key = keyOfMarket batch row.Exchange row.Market

        let token =
            match row.Token with
            | ValueSome token -> (keyOfToken batch row.Exchange key token).Key
            | ValueNone -> 0L

        gap.Text(1, collector)
        gap.Integer(2, key)
        gap.Text(3, string row.Stream)
        gap.Integer(4, token)

        gap.Integer(5, row.Since.Micros)
        gap.Text(6, string row.Cause)
        gap.IntegerOrNull(7, micros row.Until)
        gap.IntegerOrNull(8, row.Healed |> ValueOption.map (fun struct (at, _) -> at.Micros))
        gap.TextOrNull(9, row.Healed |> ValueOption.map (fun struct (_, by) -> by))
        gap.Run()
        let mutable isChanged = db.Changes = 1

        match row.Until with
        | ValueSome until when row.Cause = Cause.Overrun && not isChanged ->
            overrun.Text(1, collector)
            overrun.Integer(2, key)
            overrun.Text(3, string row.Stream)
            overrun.Integer(4, token)
            overrun.Integer(5, row.Since.Micros)
            overrun.Integer(6, until.Micros)
            overrun.Run()
            isChanged <- db.Changes = 1
        | _ -> ()

        if ships && isChanged then
            gapPlaces.Number key
            gapPlaces.Number token
            gapPlaces.Number row.Since.Micros
            gapPlaces.Text(string row.Stream)
            gapPlaces.Text(string row.Cause)
            gapPlaces.Next()

    let writeCheckpoint (batch: Batch) (row: Checkpoint) =
        let key = keyOfMarket batch row.Exchange row.Market
        checkpoint.Text(1, row.Job)
        checkpoint.Integer(2, key)
        checkpoint.Text(3, string row.Stream)

        checkpoint.IntegerOrNull(
            4,
            row.Token
            |> ValueOption.map (fun token -> (keyOfToken batch row.Exchange key token).Key)
        )

        checkpoint.Integer(5, row.Since.Micros)
        checkpoint.Integer(6, row.Watermark.Micros)
        checkpoint.Integer(7, row.Rows)
        checkpoint.Text(8, row.Error)
        checkpoint.Integer(9, row.Duration.Ticks / TimeSpan.TicksPerMicrosecond)
        checkpoint.Text(10, row.State)
        checkpoint.Run()

    let writeRejection (row: Rejection) =
        rejection.Blob(1, ReadOnlySpan(Content.contentOf row))
        rejection.Text(2, row.Exchange)
        rejection.Text(3, row.Source)
        rejection.Integer(4, row.Offset)
        rejection.Text(5, row.Reason)
        rejection.Blob(6, ReadOnlySpan row.Bytes)
        rejection.Integer(7, row.Received.Micros)
        rejection.Run()

        if ships && db.Changes = 1 then
            rejectionPlaces.Number db.LastRow
            rejectionPlaces.Next()

    let writeMetric (row: Metric) =
        metricKey.Text(1, row.Name)
        metricKey.Text(2, row.Labels)
        let key = returned metricKey
        metric.Integer(1, key)
        metric.Integer(2, row.At.Micros)
        metric.Real(3, row.Value)
        metric.Run()

        if ships && db.Changes = 1 then
            metricPlaces.Number key
            metricPlaces.Number row.At.Micros
            metricPlaces.Next()

    let writeBatch (batch: Batch) =
        for row in batch.Markets do
            writeMarket batch row

        if batch.Trades.Count > 0 then
            (if shipsRows then shipTrades else writeTrades) batch

        if batch.Books.Count > 0 then
            (if shipsRows then shipBooks else writeBooks) batch

        if batch.Deltas.Count > 0 then
            (if shipsRows then shipDeltas else writeDeltas) batch

        if batch.Prices.Count > 0 then
            (if shipsRows then shipPrices else writePrices) batch

        writeLinks batch

        for row in batch.OwnOrders do
            writeOwnOrder batch row

        for row in batch.OwnTrades do
            writeOwnTrade batch row

        for row in batch.Matches do
            writeMatch batch row

        for row in batch.Gaps do
            writeGap batch row

        for row in batch.Checkpoints do
            writeCheckpoint batch row

        for row in batch.Rejections do
            writeRejection row

        if not shipsRows then
            for row in batch.Metrics do
                writeMetric row
        elif batch.Metrics.Count > 0 then
            outbox.Add("collection_metrics", batch.Metrics.Count, true, neutral.Metrics batch)

        for table in places do
            table.MoveTo outbox

    let writeCounts (statement: Statement) (counts: Dictionary<int64, int>) =
        for KeyValue(key, more) in counts do
            statement.Integer(1, key)
            statement.Integer(2, more)
            statement.Run()

        counts.Clear()

    /// Nothing of a transaction stays when it does not come to its end: also what was learned of keys was only true within it.
    let undo () =
        keys <- ConditionalWeakTable()
        newTrades.Clear()
        newBooks.Clear()
        newDeltas.Clear()
        shipped.Undo()

        for table in places do
            table.Clear()

        db.Rollback()
        outbox.Undone()

    let transaction (work: unit -> unit) =
        try
            start.Run()
            outbox.Begin()
            work ()
            commit.Run()
            shipped.Keep()
        with _ ->
            undo ()
            reraise ()

    // What was dropped of each flow, from its first moment to behind its last.
    let lost =
        Dictionary<struct (string * Stream * string * string), struct (int64 * int64)>()

    // Rows that were dropped: in this transaction, and since the file was opened.
    let mutable losing, lostRows = 0L, 0L

    let lose stream exchange market token (at: Instant) =
        let key = struct (exchange, stream, market, token)
        losing <- losing + 1L

        lost[key] <-
            match lost.TryGetValue key with
            | true, struct (first, last) -> struct (min first at.Micros, max last at.Micros)
            | _ -> struct (at.Micros, at.Micros)

    let dropped = Batch()

    let loseEntry table (content: byte[]) =
        let names = dropped.Names
        dropped.Clear()

        let read (reading: ReadOnlyMemory<byte> -> Batch -> unit) =
            try
                reading (ReadOnlyMemory content) dropped
            with :? InvalidDataException as error ->
                // Nobody can say what it was of: its bytes are kept.
                writeRejection {
                    Exchange = "questdb"
                    Source = $"outbox/{table}"
                    Offset = 0
                    Reason = $"dropped from the outbox, and damaged: {error.Message}"
                    Bytes = content
                    Received = outbox.Now
                }

        match table with
        | "trades" ->
            read Neutral.readTrades

            for i in 0 .. dropped.Trades.Count - 1 do
                let row = &dropped.Trades[i]
                lose Stream.Trades dropped.Exchange (names.Text row.Market) "" row.At
        | "orderbook_snapshots" ->
            read Neutral.readBooks

            for i in 0 .. dropped.Books.Count - 1 do
                let row = &dropped.Books[i]
                lose Stream.Books dropped.Exchange (names.Text row.Market) (names.Text row.Token) row.At
        | "orderbook_deltas" ->
            read Neutral.readDeltas

            for i in 0 .. dropped.Deltas.Count - 1 do
                let row = &dropped.Deltas[i]
                lose Stream.Depth dropped.Exchange (names.Text row.Market) (names.Text row.Token) row.At
        | "prices" ->
            read Neutral.readPrices

            for i in 0 .. dropped.Prices.Count - 1 do
                let row = &dropped.Prices[i]
                lose Stream.Prices dropped.Exchange (names.Text row.Market) (names.Text row.Token) row.At
        | _ -> () // counters: the next ones say more

    /// Keeps the outbox within its bounds; what goes is a gap of the flow that it was of.
    let fit limit =
        outbox.Fit(limit, loseEntry)
        rejectionPlaces.MoveTo outbox

        if lost.Count > 0 then
            dropped.Clear()

            for KeyValue(struct (exchange, stream, market, token), struct (first, last)) in lost do
                writeGap dropped {
                    Exchange = exchangeOf exchange
                    Stream = stream
                    Market = marketOf' market
                    Token = if token = "" then ValueNone else ValueSome(tokenOf' token)
                    Since = Instant.ofMicros first
                    Until = ValueSome(Instant.ofMicros (last + 1L))
                    Cause = Cause.Overrun
                    Healed = ValueNone
                }

            gapPlaces.MoveTo outbox
            lost.Clear()
            shipped.Forget()

    /// All of the batches, or none of them with the exception that says why.
    member _.Write(batches: IReadOnlyList<Batch>, cancelled: CancellationToken) =
        lost.Clear()
        losing <- 0L

        transaction (fun () ->
            for batch in batches do
                cancelled.ThrowIfCancellationRequested()
                writeBatch batch

            match shipping with
            | Shipping.Rows limit -> fit limit
            | Shipping.References
            | Shipping.Off -> ()

            writeCounts moreTrades newTrades
            writeCounts moreBooks newBooks
            writeCounts moreDeltas newDeltas)

        Volatile.Write(&lostRows, lostRows + losing)

    /// Rows that there was no room for since the file was opened.
    member _.Dropped = Volatile.Read &lostRows

    /// What waits was shipped, or will be: it is not new when it comes again. The last entries are enough, for what is read
    /// again was read lately.
    member _.Recall(outbox: Outbox) =
        if shipsRows then
            let known = Batch()

            // Entries of deltas and prices are large, and hardly ever come again.
            for table, entries in
                [
                    "trades", 2_000L
                    "orderbook_snapshots", 2_000L
                    "orderbook_deltas", 200L
                    "prices", 200L
                ] do
                let last = outbox.Last table
                let mutable after = last - entries

                // In pieces, for all of it may be much.
                while after < last do
                    match outbox.Read table after last 5_000 with
                    | [] -> after <- last
                    | entries ->
                        for entry in entries do
                            after <- entry.Number

                            try
                                outbox.Open table entry known

                                for i in 0 .. known.Trades.Count - 1 do
                                    let row = &known.Trades[i]
                                    shipped.IsNewTrade(row.Id, row.Source) |> ignore

                                for i in 0 .. known.Books.Count - 1 do
                                    shipped.IsNewBook(known, &known.Books[i]) |> ignore

                                for i in 0 .. known.Deltas.Count - 1 do
                                    shipped.IsNewDelta(known, &known.Deltas[i]) |> ignore

                                for i in 0 .. known.Prices.Count - 1 do
                                    shipped.IsNewPrice(known, &known.Prices[i]) |> ignore
                            with :? InvalidDataException ->
                                () // Whoever ships it says so.

                            entry.Free()

            shipped.Keep()

    /// The store that is elsewhere has the entries up to here for good.
    member _.Release(table: string, upTo: int64) =
        transaction (fun () ->
            outbox.Release(table, upTo)

            // In a file that is only an outbox nobody reads old numbers. The newest ones are what `Markets` answers.
            if shipsRows && table = "market_stats" then
                db.Execute
                    "DELETE FROM market_stats
                     WHERE at < (SELECT max(at) FROM market_stats newer WHERE newer.market = market_stats.market)
                       AND NOT EXISTS (SELECT 1 FROM outbox WHERE kind = 'market_stats')")

        // The file gives back what a long wait made it grow by, a little at a time.
        if shipsRows then
            db.Execute "PRAGMA incremental_vacuum(2000)"

// ---- reading

/// Of a file that is not there.
let internal emptyStatus: StoreStatus = {
    Markets = []
    Quarantined = 0L
    Metrics = []
    Bytes = 0L
    Notes = []
}

/// Bytes as hex behind a prefix, a text as it is, null as the empty text.
let private hexOrText (prefix: string) (row: Statement) column =
    if row.IsBlob column then
        prefix + Convert.ToHexStringLower(row.Bytes column)
    else
        row.Text column

let private tokenOrNone (row: Statement) column =
    if row.IsNull column then
        ValueNone
    else
        ValueSome(tokenOf (row.Text column))

let private idOf (bytes: ReadOnlySpan<byte>) : TradeId =
    if bytes.Length <> 16 then
        damaged "a trade id that is not 16 bytes"

    {
        High = BinaryPrimitives.ReadUInt64BigEndian bytes
        Low = BinaryPrimitives.ReadUInt64BigEndian(bytes.Slice 8)
    }

let private readTrade (row: Statement) : Trade = {
    Exchange = exchangeOf (row.Text 0)
    Market = marketOf (row.Text 1)
    Token = tokenOf (row.Text 2)
    Outcome = row.Text 3
    Side = LanguagePrimitives.EnumOfValue(byte (row.Integer 4))
    Price = Price.ofMillionths (row.Integer 5)
    Size = sizeOf (row.Integer 6)
    Collateral = row.IntegerOrNull 13 |> ValueOption.map sizeOf
    Id = idOf (row.Bytes 7)
    Transaction = hexOrText "0x" row 8
    Source = LanguagePrimitives.EnumOfValue(byte (row.Integer 9))
    At = row.Instant 10
    Received = row.Instant 11
    Flags = enum (int (row.Integer 12))
}

let private readBook (row: Statement) : OrderBookSnapshot = {
    Exchange = exchangeOf (row.Text 0)
    Market = marketOf (row.Text 1)
    Token = tokenOf (row.Text 2)
    Bids = levelsOf (row.Bytes 3)
    Asks = levelsOf (row.Bytes 4)
    Hash = hexOrText "" row 5
    Sequence = row.IntegerOrNull 12 |> ValueOption.map int
    Verdict = LanguagePrimitives.EnumOfValue(byte (row.Integer 6))
    Doubt = doubtOf (row.Integer 11)
    Reason = reasonOf (row.Text 7)
    At = row.Instant 8
    Received = row.Instant 9
    Flags = enum (int (row.Integer 10))
}

let private readDelta (row: Statement) : OrderBookDelta = {
    Exchange = exchangeOf (row.Text 0)
    Market = marketOf (row.Text 1)
    Token = tokenOf (row.Text 2)
    At = row.Instant 3
    Ordinal = int (row.Integer 4)
    Sequence = row.IntegerOrNull 12 |> ValueOption.map int
    Side = LanguagePrimitives.EnumOfValue(byte (row.Integer 5))
    Price = Price.ofMillionths (row.Integer 6)
    Size = sizeOf (row.Integer 7)
    Hash = hexOrText "" row 8
    Verdict = LanguagePrimitives.EnumOfValue(byte (row.Integer 9))
    Doubt = doubtOf (row.Integer 10)
    Received = row.Instant 11
}

let private readPrice (row: Statement) : PricePoint = {
    Exchange = exchangeOf (row.Text 0)
    Market = marketOf (row.Text 1)
    Token = tokenOf (row.Text 2)
    Kind = kindOf (row.Text 3)
    Price = Price.ofMillionths (row.Integer 4)
    At = row.Instant 5
    Received = row.Instant 6
}

let private readOwnOrder (row: Statement) : OwnOrder = {
    Exchange = exchangeOf (row.Text 0)
    Market = marketOf (row.Text 1)
    Token = tokenOf (row.Text 2)
    Order = row.Text 3
    Side = LanguagePrimitives.EnumOfValue(byte (row.Integer 4))
    Price = Price.ofMillionths (row.Integer 5)
    Size = sizeOf (row.Integer 6)
    Filled = sizeOf (row.Integer 7)
    Status = row.Text 8
    At = row.Instant 9
    Received = row.Instant 10
}

let private readOwnTrade (row: Statement) : OwnTrade = {
    Exchange = exchangeOf (row.Text 0)
    Market = marketOf (row.Text 1)
    Token = tokenOf (row.Text 2)
    Trade = row.Text 3
    Order = row.Text 4
    Side = LanguagePrimitives.EnumOfValue(byte (row.Integer 5))
    Price = Price.ofMillionths (row.Integer 6)
    Size = sizeOf (row.Integer 7)
    IsTaker = row.Integer 8 <> 0L
    Status = row.Text 9
    Transaction = row.Text 10
    At = row.Instant 11
    Received = row.Instant 12
}

let private readMatch (row: Statement) : MarketMatch = {
    Exchange = exchangeOf (row.Text 0)
    Market = marketOf (row.Text 1)
    Token = tokenOf (row.Text 2)
    Question = row.Text 3
    Answer = row.Text 4
    IsWithdrawn = row.Integer 5 <> 0L
    At = row.Instant 6
}

let private readLink (row: Statement) : TradeLink = {
    Trade = idOf (row.Bytes 0)
    Other = idOf (row.Bytes 1)
    At = row.Instant 2
}

let private readGap (row: Statement) : RecordedGap = {
    Collector = row.Text 0
    Gap = {
        Exchange = exchangeOf (row.Text 1)
        Stream = streamOf (row.Text 2)
        Market = marketOf (row.Text 3)
        Token = tokenOrNone row 4
        Since = row.Instant 5
        Until = row.InstantOrNull 6
        Cause = causeOf (row.Text 7)
        Healed = row.InstantOrNull 8 |> ValueOption.map (fun at -> struct (at, row.Text 9))
    }
}

let private readMarket (row: Statement) : Market =
    let sizeOrNone column =
        row.IntegerOrNull column |> ValueOption.map sizeOf

    {
        Exchange = exchangeOf (row.Text 0)
        Market = marketOf (row.Text 1)
        Event = row.Text 2
        Slug = row.Text 3
        Question = row.Text 4
        Outcomes = Content.outcomesOf tokenOf (row.Text 5)
        Tags = Content.tagsOf (row.Text 6)
        Status = statusOf (row.Text 7)
        AcceptsOrders = row.Integer 8 <> 0L
        TickSize = row.IntegerOrNull 9 |> ValueOption.map Price.ofMillionths
        MinimumSize = sizeOrNone 10
        NegRisk = row.Integer 11 <> 0L
        Start = row.InstantOrNull 12
        End = row.InstantOrNull 13
        ClosedAt = row.InstantOrNull 14
        Winner = row.Text 15
        Updated = row.InstantOrNull 16
        Received = row.Instant 17
        Raw = row.Text 18
        Volume = sizeOrNone 19
        Liquidity = sizeOrNone 20
        OpenInterest = sizeOrNone 21
    }

let private readCheckpoint (row: Statement) : Checkpoint = {
    Job = row.Text 0
    Exchange = exchangeOf (row.Text 1)
    Stream = streamOf (row.Text 2)
    Market = marketOf (row.Text 3)
    Token = tokenOrNone row 4
    Since = row.Instant 5
    Watermark = row.Instant 6
    Rows = int (row.Integer 7)
    Error = row.Text 8
    Duration = TimeSpan(row.Integer 9 * TimeSpan.TicksPerMicrosecond)
    State = row.Text 10
}

let private readRejection (row: Statement) : Rejection = {
    Exchange = row.Text 0
    Source = row.Text 1
    Offset = int (row.Integer 2)
    Reason = row.Text 3
    Bytes = (row.Bytes 4).ToArray()
    Received = row.Instant 5
}

let private readMetric (row: Statement) : Metric = {
    Name = row.Text 0
    Labels = row.Text 1
    At = row.Instant 2
    Value = row.Real 3
}

let private readSummary (checkpoints: Checkpoint list) (row: Statement) : MarketSummary =
    let exchange, market = exchangeOf (row.Text 0), marketOf (row.Text 1)

    {
        Exchange = exchange
        Market = market
        Slug = row.Text 2
        Question = row.Text 3
        Status = row.Text 4
        Trades = row.Integer 5
        FirstTrade = row.InstantOrNull 6
        LastTrade = row.InstantOrNull 7
        Books = row.Integer 8
        FirstBook = row.InstantOrNull 9
        LastBook = row.InstantOrNull 10
        Deltas = row.Integer 11
        FirstDelta = row.InstantOrNull 12
        LastDelta = row.InstantOrNull 13
        Gaps = row.Integer 14
        OpenGaps = row.Integer 15
        Checkpoints =
            checkpoints
            |> List.filter (fun one -> one.Market = market && one.Exchange = exchange)
    }

let private gapColumns =
    "SELECT g.collector, e.name, g.stream, m.name, k.name, g.since, g.until, g.cause, g.healed_at, g.healed_by
     FROM gaps g
     JOIN market_keys m ON m.id = g.market
     JOIN exchanges e ON e.id = m.exchange
     LEFT JOIN token_keys k ON k.id = g.token"

let private marketColumns =
    "SELECT e.name, m.name, v.event, v.slug, v.question, v.outcomes, v.tags, v.status, v.accepts_orders, v.tick_size,
            v.minimum_size, v.neg_risk, v.starts, v.ends, v.closed, v.winner, v.updated, v.received, v.raw,
            s.volume, s.liquidity, s.open_interest
     FROM market_keys m
     JOIN exchanges e ON e.id = m.exchange"

let private tradeRows =
    "SELECT e.name, m.name, k.name, coalesce(t.outcome, k.outcome, ''), t.side, t.price, t.size, t.trade_id,
            t.transaction_hash, t.source, t.at, t.received, t.flags, t.collateral
     FROM trades t
     JOIN token_keys k ON k.id = t.token
     JOIN market_keys m ON m.id = t.market
     JOIN exchanges e ON e.id = m.exchange
     WHERE (?3 IS NULL OR k.name = ?3) AND t.at >= ?4 AND t.at < ?5 AND t.market"

let private bookRows =
    "SELECT e.name, m.name, k.name, b.bids, b.asks, b.hash, b.verdict, b.reason, b.at, b.received, b.flags, b.doubt,
            b.sequence
     FROM orderbook_snapshots b
     JOIN token_keys k ON k.id = b.token
     JOIN market_keys m ON m.id = k.market
     JOIN exchanges e ON e.id = m.exchange
     WHERE b.at >= ?4 AND b.at < ?5 AND b.token"

let private deltaRows =
    "SELECT e.name, m.name, k.name, d.at, d.ordinal, d.side, d.price, d.size, d.hash, d.verdict, d.doubt, d.received,
            d.sequence
     FROM orderbook_deltas d
     JOIN token_keys k ON k.id = d.token
     JOIN market_keys m ON m.id = k.market
     JOIN exchanges e ON e.id = m.exchange
     WHERE d.at >= ?4 AND d.at < ?5 AND d.token"

let private priceRows =
    "SELECT e.name, m.name, k.name, p.kind, p.price, p.at, p.received
     FROM prices p
     JOIN token_keys k ON k.id = p.token
     JOIN market_keys m ON m.id = k.market
     JOIN exchanges e ON e.id = m.exchange
     WHERE p.at >= ?4 AND p.at < ?5 AND p.token"

let private ownOrderColumns =
    "SELECT e.name, m.name, k.name, o.order_id, o.side, o.price, o.size, o.filled, o.status, o.at, o.received
     FROM own_orders o
     JOIN token_keys k ON k.id = o.token
     JOIN market_keys m ON m.id = k.market
     JOIN exchanges e ON e.id = m.exchange"

let private ownTradeColumns =
    "SELECT e.name, m.name, k.name, o.trade_id, o.order_id, o.side, o.price, o.size, o.is_taker, o.status,
            o.transaction_hash, o.at, o.received
     FROM own_trades o
     JOIN token_keys k ON k.id = o.token
     JOIN market_keys m ON m.id = k.market
     JOIN exchanges e ON e.id = m.exchange"

let private matchColumns =
    "SELECT e.name, m.name, k.name, o.question, o.answer, o.is_withdrawn, o.at
     FROM market_matches o
     JOIN token_keys k ON k.id = o.token
     JOIN market_keys m ON m.id = k.market
     JOIN exchanges e ON e.id = m.exchange"

/// Of few rows, so that all of them may be looked at.
let private ofFew =
    "WHERE (?1 IS NULL OR e.name = ?1) AND (?2 IS NULL OR m.name = ?2) AND (?3 IS NULL OR k.name = ?3)
       AND o.at >= ?4 AND o.at < ?5"

/// In the order of these columns, or the other way round.
let private inOrder latest (columns: string list) rows =
    columns
    |> List.map (fun column -> if latest then column + " DESC" else column)
    |> String.concat ", "
    |> fun order -> $"{rows} ORDER BY {order} LIMIT ?6"

// Of one market or token (?7) the rows stand in their order already, and no more of them are looked at than are wanted.
let private tradesOfOne latest =
    $"{tradeRows} = ?7" |> inOrder latest [ "t.at"; "t.trade_id"; "t.source" ]

let private booksOfOne latest =
    $"{bookRows} = ?7" |> inOrder latest [ "b.at"; "b.hash" ]

let private deltasOfOne latest =
    $"{deltaRows} = ?7"
    |> inOrder latest [ "d.at"; "d.ordinal"; "d.side"; "d.price" ]

let private pricesOfOne latest =
    $"{priceRows} = ?7" |> inOrder latest [ "p.at"; "p.kind" ]

/// What reads the rows of one market or token, from their beginning or their end: for the tests, which ask how it is done.
let internal statementsOfOne latest = [
    tradesOfOne latest
    booksOfOne latest
    deltasOfOne latest
    pricesOfOne latest
]

// What a query restricts: ?1 exchange, ?2 market, ?3 token, ?4 since, ?5 until, ?6 limit.
let private marketsOfQuery =
    "SELECT m.id FROM market_keys m JOIN exchanges e ON e.id = m.exchange
     WHERE (?1 IS NULL OR e.name = ?1) AND (?2 IS NULL OR m.name = ?2)"

/// Market by market in the order of time, as the rows stand, and none of them kept: for the tests, too.
let internal tallyRows =
    $"SELECT t.market, t.at, t.source, t.flags, t.price, t.size, t.trade_id,
             EXISTS (SELECT 1 FROM trade_links WHERE other_id = t.trade_id)
             OR EXISTS (SELECT 1 FROM trade_links WHERE trade_id = t.trade_id)
      FROM trades t
      WHERE t.market IN ({marketsOfQuery}) AND t.at >= ?4 AND t.at < ?5
        AND (?3 IS NULL OR t.token IN (SELECT id FROM token_keys WHERE name = ?3))"

/// `Store.Tally` over a connection of its own.
let private tally (db: Connection) (query: Query) : Tally list =
    let rows = db.Prepare tallyRows

    let names =
        db.Prepare
            "SELECT e.name, m.name FROM market_keys m JOIN exchanges e ON e.id = m.exchange WHERE m.id = ?1"

    rows.TextOrNull(1, query.Exchange |> ValueOption.map string)
    rows.TextOrNull(2, query.Market |> ValueOption.map string)
    rows.TextOrNull(3, query.Token |> ValueOption.map string)
    rows.Integer(4, query.Since.Micros)
    rows.Integer(5, query.Until.Micros)
    let tallies = Tallies<int64>()
    // Hot: there may be tens of millions.
    while rows.Step() do
        tallies.Add(
            rows.Integer 0,
            rows.Instant 1,
            LanguagePrimitives.EnumOfValue(byte (rows.Integer 2)),
            enum (int (rows.Integer 3)),
            Price.ofMillionths (rows.Integer 4),
            sizeOf (rows.Integer 5),
            idOf (rows.Bytes 6),
            rows.Integer 7 <> 0L
        )

    rows.Reset()

    tallies.Result(fun market ->
        names.Integer(1, market)

        names.Rows(fun row -> struct (exchangeOf (row.Text 0), marketOf (row.Text 1)))
        |> List.head)

[<Sealed>]
type private Reader(db: Connection, path: string, collector: string voption) =
    let gate = Lock()

    let markets = marketsOfQuery

    let tokens =
        $"SELECT id FROM token_keys WHERE market IN ({markets}) AND (?3 IS NULL OR name = ?3)"

    // The first two are enough to see whether there is one.
    let someMarkets = db.Prepare $"{markets} LIMIT 2"
    let someTokens = db.Prepare $"{tokens} LIMIT 2"

    /// Two statements: for the oldest rows, and for the newest.
    let ends (sql: bool -> string) =
        struct (db.Prepare(sql false), db.Prepare(sql true))

    let trades =
        ends (fun latest ->
            $"{tradeRows} IN ({markets})"
            |> inOrder latest [ "t.at"; "t.trade_id"; "t.source" ])

    let books =
        ends (fun latest -> $"{bookRows} IN ({tokens})" |> inOrder latest [ "b.at"; "k.name"; "b.hash" ])

    let deltas =
        ends (fun latest ->
            $"{deltaRows} IN ({tokens})"
            |> inOrder latest [ "d.at"; "k.name"; "d.ordinal"; "d.side"; "d.price" ])

    let prices =
        ends (fun latest -> $"{priceRows} IN ({tokens})" |> inOrder latest [ "p.at"; "k.name"; "p.kind" ])

    let tradesOfOne, booksOfOne, deltasOfOne, pricesOfOne =
        ends tradesOfOne, ends booksOfOne, ends deltasOfOne, ends pricesOfOne

    let ownOrders =
        ends (fun latest ->
            $"{ownOrderColumns} {ofFew}"
            |> inOrder latest [ "o.at"; "o.order_id"; "o.filled"; "o.status"; "e.name" ])

    let ownTrades =
        ends (fun latest ->
            $"{ownTradeColumns} {ofFew}"
            |> inOrder latest [ "o.at"; "o.trade_id"; "o.order_id"; "o.status"; "k.name"; "e.name" ])

    let matches =
        db.Prepare $"{matchColumns} ORDER BY o.at, o.question, o.answer, e.name, m.name, k.name"

    let links =
        db.Prepare "SELECT trade_id, other_id, at FROM trade_links ORDER BY at, trade_id, other_id"

    let gaps =
        db.Prepare
            $"{gapColumns}
              WHERE g.market IN ({markets}) AND (?3 IS NULL OR k.name = ?3 OR (g.token = 0 AND ?2 IS NOT NULL))
                AND g.since < ?5 AND (g.until IS NULL OR g.until > ?4 OR g.since >= ?4)
              ORDER BY g.since LIMIT ?6"

    let openGaps =
        db.Prepare $"{gapColumns} WHERE g.collector = ?1 AND g.until IS NULL ORDER BY g.since"

    let newest =
        "SELECT d.rowid FROM markets d WHERE d.market = m.id ORDER BY d.at DESC, d.received DESC LIMIT 1"

    let descriptions =
        db.Prepare
            $"{marketColumns}
              JOIN markets v ON v.rowid = ({newest})
              LEFT JOIN market_stats s ON s.market = m.id
                    AND s.at = (SELECT max(at) FROM market_stats WHERE market = m.id)
              ORDER BY e.name, m.name"

    let checkpoints =
        db.Prepare
            "SELECT c.job, e.name, c.stream, m.name, k.name, c.since, c.watermark, c.rows, c.error, c.duration, c.state
             FROM checkpoints c
             JOIN market_keys m ON m.id = c.market
             JOIN exchanges e ON e.id = m.exchange
             LEFT JOIN token_keys k ON k.id = c.token
             ORDER BY c.job"

    let quarantine =
        db.Prepare
            "SELECT exchange, source, position, reason, bytes, received FROM quarantine ORDER BY received, rowid"

    // Ends are looked up and counts are kept, so that no table is read through, but the gaps.
    let summaries =
        db.Prepare
            $"WITH holes AS (SELECT market, count(*) AS holes, count(*) - count(until) AS unended
                             FROM gaps GROUP BY market),
                   recorded AS (SELECT k.market, sum(k.books) AS books,
                                       min((SELECT min(at) FROM orderbook_snapshots WHERE token = k.id)) AS earliest,
                                       max((SELECT max(at) FROM orderbook_snapshots WHERE token = k.id)) AS latest,
                                       sum(k.deltas) AS deltas,
                                       min((SELECT min(at) FROM orderbook_deltas WHERE token = k.id)) AS first_delta,
                                       max((SELECT max(at) FROM orderbook_deltas WHERE token = k.id)) AS last_delta
                                FROM token_keys k GROUP BY k.market)
              SELECT e.name, m.name, coalesce(v.slug, ''), coalesce(v.question, ''), coalesce(v.status, ''),
                     m.trades,
                     (SELECT min(at) FROM trades WHERE market = m.id),
                     (SELECT max(at) FROM trades WHERE market = m.id),
                     coalesce(b.books, 0), b.earliest, b.latest,
                     coalesce(b.deltas, 0), b.first_delta, b.last_delta,
                     coalesce(h.holes, 0), coalesce(h.unended, 0)
              FROM market_keys m
              JOIN exchanges e ON e.id = m.exchange
              LEFT JOIN markets v ON v.rowid = ({newest})
              LEFT JOIN recorded b ON b.market = m.id
              LEFT JOIN holes h ON h.market = m.id
              ORDER BY e.name, m.name"

    let latestMetrics =
        db.Prepare
            "SELECT k.name, k.labels, v.at, v.value
             FROM metric_keys k
             JOIN collection_metrics v ON v.metric = k.id
                  AND v.at = (SELECT max(at) FROM collection_metrics WHERE metric = k.id)
             ORDER BY k.name, k.labels"

    let held =
        db.Prepare "SELECT kind, sum(rows) FROM outbox GROUP BY kind ORDER BY kind"

    let restrict (query: Query) (statement: Statement) =
        statement.TextOrNull(1, query.Exchange |> ValueOption.map string)
        statement.TextOrNull(2, query.Market |> ValueOption.map string)
        statement.TextOrNull(3, query.Token |> ValueOption.map string)
        statement.Integer(4, query.Since.Micros)
        statement.Integer(5, query.Until.Micros)
        statement.Integer(6, query.Limit)
        statement

    /// The ids of the markets that a query is about: two stand for any number.
    let marketsOf (query: Query) =
        if query.Market.IsNone then
            [ 0L; 0L ]
        else
            someMarkets.TextOrNull(1, query.Exchange |> ValueOption.map string)
            someMarkets.TextOrNull(2, query.Market |> ValueOption.map string)
            someMarkets.Rows(fun row -> row.Integer 0)

    /// The ids of the tokens.
    let tokensOf (query: Query) =
        if query.Token.IsNone then
            [ 0L; 0L ]
        else
            someTokens.TextOrNull(1, query.Exchange |> ValueOption.map string)
            someTokens.TextOrNull(2, query.Market |> ValueOption.map string)
            someTokens.TextOrNull(3, query.Token |> ValueOption.map string)
            someTokens.Rows(fun row -> row.Integer 0)

    /// The rows that a query wants, which is about these markets or tokens.
    let ofEnd (query: Query) (ids: int64 list) ofOne ofAll (read: Statement -> 'T) : 'T list =
        let choose struct (oldest: Statement, newest: Statement) =
            restrict query (if query.Latest then newest else oldest)

        let rows =
            match ids with
            | [] -> []
            | [ one ] ->
                let statement = choose ofOne
                statement.Integer(7, one)
                statement.Rows read
            | _ -> (choose ofAll).Rows read

        if query.Latest then List.rev rows else rows

    let bytes () =
        [ path; path + "-wal"; path + "-shm" ]
        |> List.sumBy (fun file -> if File.Exists file then FileInfo(file).Length else 0L)

    let status () =
        db.Execute "BEGIN" // all numbers of one moment

        try
            let checkpoints =
                checkpoints.Rows readCheckpoint
                |> List.groupBy (fun one -> struct (one.Exchange, one.Market))
                |> dict

            {
                Markets =
                    summaries.Rows(fun row ->
                        let key = struct (exchangeOf (row.Text 0), marketOf (row.Text 1))

                        let own =
                            match checkpoints.TryGetValue key with
                            | true, own -> own
                            | _ -> []

                        readSummary own row)
                Quarantined = db.Number "SELECT count(*) FROM quarantine"
                Metrics = latestMetrics.Rows readMetric
                Bytes = bytes ()
                Notes =
                    held.Rows(fun row ->
                        $"{row.Integer 1} rows of {row.Text 0} are held in the outbox for QuestDB")
            }
        finally
            db.Rollback()

    /// Away from the caller's thread, one reading at a time.
    let reading (read: unit -> 'T) : Task<'T> =
        Task.Run<'T>(fun () ->
            gate.Enter()

            try
                read ()
            finally
                gate.Exit())

    member _.Checkpoints() =
        reading (fun () -> checkpoints.Rows readCheckpoint)

    member _.Gaps(query: Query) =
        reading (fun () -> (restrict query gaps).Rows readGap)

    member _.OpenGaps() =
        reading (fun () ->
            openGaps.TextOrNull(1, collector)
            openGaps.Rows(readGap >> _.Gap))

    member _.Markets() =
        reading (fun () -> descriptions.Rows readMarket)

    member _.Trades(query: Query) =
        reading (fun () -> ofEnd query (marketsOf query) tradesOfOne trades readTrade)

    member _.Books(query: Query) =
        reading (fun () -> ofEnd query (tokensOf query) booksOfOne books readBook)

    member _.Deltas(query: Query) =
        reading (fun () -> ofEnd query (tokensOf query) deltasOfOne deltas readDelta)

    member _.Prices(query: Query) =
        reading (fun () -> ofEnd query (tokensOf query) pricesOfOne prices readPrice)

    member _.OwnOrders(query: Query) =
        reading (fun () -> ofEnd query [ 0L; 0L ] ownOrders ownOrders readOwnOrder)

    member _.OwnTrades(query: Query) =
        reading (fun () -> ofEnd query [ 0L; 0L ] ownTrades ownTrades readOwnTrade)

    member _.Matches() =
        reading (fun () -> matches.Rows readMatch)

    /// It may take long, and other reading does not wait for it.
    member _.Tally(query: Query) : Task<Tally list> =
        Task.Run<Tally list>(fun () ->
            use db = new Connection(path, Access.Read)
            tally db query)

    member _.Links() = reading (fun () -> links.Rows readLink)

    member _.Quarantine() =
        reading (fun () -> quarantine.Rows readRejection)

    member _.Status() = reading status

    member _.Close() =
        gate.Enter()

        try
            (db :> IDisposable).Dispose()
        finally
            gate.Exit()

// ---- shipping

/// Reads the outbox, and what its references lead to. One caller at a time.
[<Sealed>]
type private Shipments(db: Connection, collector: string) =
    let last = db.Prepare "SELECT coalesce(max(entry), 0) FROM outbox WHERE kind = ?1"

    let entries =
        db.Prepare
            "SELECT entry, rows, form, content FROM outbox WHERE kind = ?1 AND entry > ?2 AND entry <= ?3 ORDER BY entry"

    let waiting =
        db.Prepare
            "SELECT kind, count(*), sum(rows), sum(length(content)), min(written) FROM outbox GROUP BY kind ORDER BY kind"

    let unseen =
        db.Prepare
            "SELECT kind, count(*), sum(rows), sum(length(content)), min(written) FROM outbox
             WHERE entry > coalesce((SELECT a.entry FROM outbox_applied a WHERE a.kind = outbox.kind), 0) GROUP BY kind ORDER BY kind"

    let waitingOf (statement: Statement) =
        statement.Rows(fun row -> {
            Table = row.Text 0
            Entries = row.Integer 1
            Rows = row.Integer 2
            Bytes = row.Integer 3
            Since = row.Instant 4
        })

    let trade =
        db.Prepare
            "SELECT e.name, m.name, k.name, coalesce(t.outcome, k.outcome, ''), t.side, t.price, t.size, t.transaction_hash,
                    t.received, t.flags, t.collateral
             FROM trades t
             JOIN token_keys k ON k.id = t.token
             JOIN market_keys m ON m.id = t.market
             JOIN exchanges e ON e.id = m.exchange
             WHERE t.market = ?1 AND t.at = ?2 AND t.trade_id = ?3 AND t.source = ?4"

    let book =
        db.Prepare
            "SELECT e.name, m.name, k.name, b.bids, b.asks, b.hash, b.verdict, b.at, b.received, b.flags, b.reason, b.doubt,
                    coalesce(b.sequence, 0)
             FROM orderbook_snapshots b
             JOIN token_keys k ON k.id = b.token
             JOIN market_keys m ON m.id = k.market
             JOIN exchanges e ON e.id = m.exchange
             WHERE b.rowid = ?1"

    let delta =
        db.Prepare
            "SELECT e.name, m.name, k.name, d.size, d.hash, d.received, d.verdict, d.doubt, coalesce(d.sequence, 0)
             FROM orderbook_deltas d
             JOIN token_keys k ON k.id = d.token
             JOIN market_keys m ON m.id = k.market
             JOIN exchanges e ON e.id = m.exchange
             WHERE d.token = ?1 AND d.at = ?2 AND d.ordinal = ?3 AND d.side = ?4 AND d.price = ?5"

    let point =
        db.Prepare
            "SELECT e.name, m.name, k.name, p.price, p.received
             FROM prices p
             JOIN token_keys k ON k.id = p.token
             JOIN market_keys m ON m.id = k.market
             JOIN exchanges e ON e.id = m.exchange
             WHERE p.token = ?1 AND p.at = ?2 AND p.kind = ?3"

    let market =
        db.Prepare
            $"{marketColumns} JOIN markets v ON v.market = m.id LEFT JOIN market_stats s ON false WHERE v.rowid = ?1"

    // As a description without any words: what is shipped of it are its numbers.
    let stats =
        db.Prepare
            "SELECT e.name, m.name, s.at, s.volume, s.liquidity, s.open_interest
             FROM market_stats s
             JOIN market_keys m ON m.id = s.market
             JOIN exchanges e ON e.id = m.exchange
             WHERE s.market = ?1 AND s.at = ?2"

    let gap =
        db.Prepare
            $"{gapColumns} WHERE g.collector = ?1 AND g.market = ?2 AND g.token = ?3 AND g.since = ?4 AND g.stream = ?5 AND g.cause = ?6"

    let rejection =
        db.Prepare
            "SELECT exchange, source, position, reason, bytes, received FROM quarantine WHERE rowid = ?1"

    let ownOrder = db.Prepare $"{ownOrderColumns} WHERE o.rowid = ?1"
    let ownTrade = db.Prepare $"{ownTradeColumns} WHERE o.rowid = ?1"
    let matching = db.Prepare $"{matchColumns} WHERE o.rowid = ?1"

    let metric =
        db.Prepare
            "SELECT k.name, k.labels, v.at, v.value
             FROM collection_metrics v JOIN metric_keys k ON k.id = v.metric
             WHERE v.metric = ?1 AND v.at = ?2"

    let each (entry: OutboxEntry) (row: Neutral.Cursor -> unit) =
        Neutral.damages (fun () ->
            let places = Neutral.Cursor entry.Content

            for _ in 1 .. entry.Rows do
                row places)

    /// The one row that is meant; it may have been deleted by hand since.
    let find (statement: Statement) (read: Statement -> unit) =
        try
            try
                if statement.Step() then
                    read statement
            with
            | :? SqliteException as error when error.Primary = raw.SQLITE_CORRUPT ->
                raise (InvalidDataException error.Message)
            | :? JsonException as error -> raise (InvalidDataException error.Message)
        finally
            statement.Reset()

    let head (batch: Batch) exchange received =
        batch.Exchange <- exchange
        batch.Received <- received

    let openTrades (entry: OutboxEntry) (batch: Batch) =
        each entry (fun places ->
            let marketKey, at, source = places.Int64(), places.Int64(), places.Int64()
            trade.Integer(1, marketKey)
            trade.Integer(2, at)
            let id = places.TradeId()
            let idBytes = Array.zeroCreate 16
            BinaryPrimitives.WriteUInt64BigEndian(Span(idBytes, 0, 8), id.High)
            BinaryPrimitives.WriteUInt64BigEndian(Span(idBytes, 8, 8), id.Low)
            trade.Blob(3, ReadOnlySpan idBytes)
            trade.Integer(4, source)

            find trade (fun found ->
                head batch (found.Text 0) (found.Instant 8)
                let nowhere: Slice = { Start = 0; Length = 0 }

                let row: TradeRow = {
                    Market = batch.Names.Intern(found.Bytes 1)
                    Token = batch.Names.Intern(found.Bytes 2)
                    Outcome = batch.Names.Intern(found.Bytes 3)
                    Side = LanguagePrimitives.EnumOfValue(byte (found.Integer 4))
                    Source = LanguagePrimitives.EnumOfValue(byte source)
                    Price = Price.ofMillionths (found.Integer 5)
                    Size = sizeOf (found.Integer 6)
                    At = Instant.ofMicros at
                    Received = found.Instant 8
                    Transaction =
                        (if found.IsBlob 7 then
                             batch.Keep(ReadOnlySpan(Encoding.UTF8.GetBytes(hexOrText "0x" found 7)))
                         else
                             batch.Keep(found.Bytes 7))
                    Wallet = nowhere
                    Flags = enum (int (found.Integer 9))
                    Occurrence = 0
                    Collateral = found.IntegerOrNull 10 |> ValueOption.map sizeOf
                    Id = id
                    Inserted = true
                }

                batch.Trades.Add &row
                batch.TradeOrigins.Add &nowhere))

    let openBooks (entry: OutboxEntry) (batch: Batch) =
        let levels (found: Statement) column =
            for level in levelsOf (found.Bytes column) do
                let level = level
                batch.Levels.Add &level

        each entry (fun places ->
            book.Integer(1, places.Int64())

            find book (fun found ->
                head batch (found.Text 0) (found.Instant 8)
                let firstBid = batch.Levels.Count
                levels found 3
                let firstAsk = batch.Levels.Count
                levels found 4
                let nowhere: Slice = { Start = 0; Length = 0 }

                let row: BookRow = {
                    Market = batch.Names.Intern(found.Bytes 1)
                    Token = batch.Names.Intern(found.Bytes 2)
                    At = found.Instant 7
                    Received = found.Instant 8
                    FirstBid = firstBid
                    BidCount = firstAsk - firstBid
                    FirstAsk = firstAsk
                    AskCount = batch.Levels.Count - firstAsk
                    Hash = batch.Keep(ReadOnlySpan(Encoding.UTF8.GetBytes(hexOrText "" found 5)))
                    Tick = Price.zero
                    LastTrade = { Start = 0; Length = -1 }
                    Sequence = int (found.Integer 12)
                    Verdict = LanguagePrimitives.EnumOfValue(byte (found.Integer 6))
                    Doubt = doubtOf (found.Integer 11)
                    Reason = reasonOf (found.Text 10)
                    Flags = enum (int (found.Integer 9))
                    Inserted = true
                }

                batch.Books.Add &row
                batch.BookOrigins.Add &nowhere))

    let openStats (entry: OutboxEntry) (batch: Batch) =
        each entry (fun places ->
            stats.Integer(1, places.Int64())
            stats.Integer(2, places.Int64())

            find stats (fun found ->
                let size column =
                    found.IntegerOrNull column |> ValueOption.map sizeOf

                batch.Markets.Add {
                    Exchange = exchangeOf (found.Text 0)
                    Market = marketOf (found.Text 1)
                    Event = ""
                    Slug = ""
                    Question = ""
                    Outcomes = [||]
                    Status = MarketStatus.Open
                    AcceptsOrders = false
                    TickSize = ValueNone
                    MinimumSize = ValueNone
                    NegRisk = false
                    Start = ValueNone
                    End = ValueNone
                    ClosedAt = ValueNone
                    Winner = ""
                    Volume = size 3
                    Liquidity = size 4
                    OpenInterest = size 5
                    Tags = [||]
                    Updated = found.InstantOrNull 2
                    Received = found.Instant 2
                    Raw = ""
                }))

    let openDeltas (entry: OutboxEntry) (batch: Batch) =
        each entry (fun places ->
            let token, at, ordinal = places.Int64(), places.Int64(), places.Int64()
            let side, price = places.Int64(), places.Int64()
            delta.Integer(1, token)
            delta.Integer(2, at)
            delta.Integer(3, ordinal)
            delta.Integer(4, side)
            delta.Integer(5, price)

            find delta (fun found ->
                head batch (found.Text 0) (found.Instant 5)

                let row: DeltaRow = {
                    Market = batch.Names.Intern(found.Bytes 1)
                    Token = batch.Names.Intern(found.Bytes 2)
                    At = Instant.ofMicros at
                    Received = found.Instant 5
                    Ordinal = int ordinal
                    Sequence = int (found.Integer 8)
                    Side = LanguagePrimitives.EnumOfValue(byte side)
                    Price = Price.ofMillionths price
                    Size = sizeOf (found.Integer 3)
                    Hash =
                        (if found.IsBlob 4 then
                             batch.Keep(ReadOnlySpan(Encoding.UTF8.GetBytes(hexOrText "" found 4)))
                         else
                             batch.Keep(found.Bytes 4))
                    Verdict = LanguagePrimitives.EnumOfValue(byte (found.Integer 6))
                    Doubt = doubtOf (found.Integer 7)
                    Inserted = true
                }

                batch.Deltas.Add &row))

    let openPrices (entry: OutboxEntry) (batch: Batch) =
        each entry (fun places ->
            let token, at = places.Int64(), places.Int64()
            let kind: PriceKind = LanguagePrimitives.EnumOfValue(byte (places.Int64()))
            point.Integer(1, token)
            point.Integer(2, at)
            point.Text(3, PriceKind.text kind)

            find point (fun found ->
                head batch (found.Text 0) (found.Instant 4)

                let row: PriceRow = {
                    Market = batch.Names.Intern(found.Bytes 1)
                    Token = batch.Names.Intern(found.Bytes 2)
                    At = Instant.ofMicros at
                    Received = found.Instant 4
                    Kind = kind
                    Price = Price.ofMillionths (found.Integer 3)
                    Inserted = true
                }

                batch.Prices.Add &row))

    // All that there is of a link stands in what refers to it.
    let openLinks (entry: OutboxEntry) (batch: Batch) =
        each entry (fun places ->
            let at = Instant.ofMicros (places.Int64())
            let trade = places.TradeId()

            let row: TradeLink = {
                Trade = trade
                Other = places.TradeId()
                At = at
            }

            batch.Links.Add &row)

    let openGaps (entry: OutboxEntry) (batch: Batch) =
        each entry (fun places ->
            gap.Text(1, collector)
            gap.Integer(2, places.Int64())
            gap.Integer(3, places.Int64())
            gap.Integer(4, places.Int64())
            gap.Text(5, places.Text())
            gap.Text(6, places.Text())
            find gap (fun found -> batch.Gaps.Add((readGap found).Gap)))

    let openRejections (entry: OutboxEntry) (batch: Batch) =
        each entry (fun places ->
            rejection.Integer(1, places.Int64())
            find rejection (fun found -> batch.Rejections.Add(readRejection found)))

    let openOwnOrders (entry: OutboxEntry) (batch: Batch) =
        each entry (fun places ->
            ownOrder.Integer(1, places.Int64())
            find ownOrder (fun found -> batch.OwnOrders.Add(readOwnOrder found)))

    let openOwnTrades (entry: OutboxEntry) (batch: Batch) =
        each entry (fun places ->
            ownTrade.Integer(1, places.Int64())
            find ownTrade (fun found -> batch.OwnTrades.Add(readOwnTrade found)))

    let openMatches (entry: OutboxEntry) (batch: Batch) =
        each entry (fun places ->
            matching.Integer(1, places.Int64())
            find matching (fun found -> batch.Matches.Add(readMatch found)))

    let openMarkets (entry: OutboxEntry) (batch: Batch) =
        each entry (fun places ->
            market.Integer(1, places.Int64())
            find market (fun found -> batch.Markets.Add(readMarket found)))

    let openMetrics (entry: OutboxEntry) (batch: Batch) =
        each entry (fun places ->
            metric.Integer(1, places.Int64())
            metric.Integer(2, places.Int64())
            find metric (fun found -> batch.Metrics.Add(readMetric found)))

    member _.Last(table: string) =
        last.Text(1, table)
        last.Rows(fun row -> row.Integer 0) |> List.head

    member _.Read(table: string, after: int64, upTo: int64, rows: int) : OutboxEntry list =
        entries.Text(1, table)
        entries.Integer(2, after)
        entries.Integer(3, upTo)
        let found = List<OutboxEntry>()
        let mutable count = 0

        try
            while count < rows && entries.Step() do
                let bytes = entries.Bytes 3
                // Of books these are large, and garbage of that size would be collected with all the rest.
                let buffer = ArrayPool.Shared.Rent bytes.Length
                bytes.CopyTo(Span buffer)

                let entry = {
                    Number = entries.Integer 0
                    Rows = int (entries.Integer 1)
                    IsWhole = entries.Integer 2 = 1L
                    Buffer = buffer
                    Length = bytes.Length
                }

                found.Add entry
                count <- count + entry.Rows
        finally
            entries.Reset()

        List.ofSeq found

    member _.Open(table: string, entry: OutboxEntry, batch: Batch) =
        if entry.IsWhole then
            let content = entry.Content

            match table with
            | "trades" -> Neutral.readTrades content batch
            | "orderbook_snapshots" -> Neutral.readBooks content batch
            | "orderbook_deltas" -> Neutral.readDeltas content batch
            | "prices" -> Neutral.readPrices content batch
            | _ -> Neutral.readMetrics content batch
        else
            batch.Clear()

            match table with
            | "trades" -> openTrades entry batch
            | "orderbook_snapshots" -> openBooks entry batch
            | "orderbook_deltas" -> openDeltas entry batch
            | "prices" -> openPrices entry batch
            | "trade_links" -> openLinks entry batch
            | "own_orders" -> openOwnOrders entry batch
            | "own_trades" -> openOwnTrades entry batch
            | "market_matches" -> openMatches entry batch
            | "markets" -> openMarkets entry batch
            | "market_stats" -> openStats entry batch
            | "gaps" -> openGaps entry batch
            | "quarantine" -> openRejections entry batch
            | _ -> openMetrics entry batch

    member _.Waiting() : Waiting list = waitingOf waiting
    member _.Unseen() : Waiting list = waitingOf unseen

let private storeOf (reader: Reader) write expire (close: unit -> unit) : Store = {
    Name = "sqlite"
    Write = write
    Checkpoints = reader.Checkpoints
    Gaps = reader.Gaps
    OpenGaps = reader.OpenGaps
    Markets = reader.Markets
    Trades = reader.Trades
    Books = reader.Books
    Deltas = reader.Deltas
    Prices = reader.Prices
    OwnOrders = reader.OwnOrders
    OwnTrades = reader.OwnTrades
    Matches = reader.Matches
    Tally = reader.Tally
    Links = reader.Links
    Quarantine = reader.Quarantine
    Status = reader.Status
    Backlog = fun () -> Backlog.none
    Expire = expire
    Flush = fun _ -> Task.FromResult()
    Close =
        fun () ->
            reader.Close()
            close ()
            ValueTask()
}

// ---- opening

/// The application and the version that a file is marked with, and whether there is anything in it.
let internal marks (db: Connection) =
    struct (db.Number "PRAGMA application_id",
            int (db.Number "PRAGMA user_version"),
            db.Number "SELECT count(*) FROM sqlite_schema" > 0L)

/// Names what went wrong while a file was opened.
let private refusal path (error: exn) =
    match error with
    | :? SqliteException as error when error.Primary = raw.SQLITE_NOTADB ->
        OpenFault.NotOurs(path, "it is not a SQLite database; name another file as store.path")
    | :? SqliteException as error when error.Primary = raw.SQLITE_BUSY || error.Primary = raw.SQLITE_LOCKED ->
        OpenFault.InUse(path, "another program has locked it; close that program, or try again later")
    | error -> OpenFault.Unreachable(path, error.Message)

let private tooNew path found =
    OpenFault.Newer(path, found, SqliteSchema.version)

let private foreign path =
    OpenFault.NotOurs(path, "it is a SQLite database of another program; name another file as store.path")

/// Opens a file to read it, also while a collector writes to it. `Write` answers `Failed`; a reader left no gaps open.
let openForReading (path: string) : Result<Store, OpenFault> =
    if not (File.Exists path) then
        Error(
            OpenFault.Unreachable(
                path,
                "there is no such file; 'tributary start' or 'tributary demo' makes one"
            )
        )
    else
        try
            let db = new Connection(path, Access.Read)

            try
                match marks db with
                | SqliteSchema.ApplicationId, found, _ when found > SqliteSchema.version ->
                    (db :> IDisposable).Dispose()
                    Error(tooNew path found)
                | SqliteSchema.ApplicationId, found, _ when found = SqliteSchema.version ->
                    let reader = Reader(db, path, ValueNone)

                    let refuse _ _ =
                        Task.FromResult(Error(StoreFault.Failed $"{path} was opened for reading only"))

                    Ok(storeOf reader refuse (fun _ _ _ -> Task.FromResult(Ok [])) ignore)
                | SqliteSchema.ApplicationId, _, _
                | 0L, 0, false ->
                    (db :> IDisposable).Dispose()

                    Error(
                        OpenFault.Unreachable(
                            path,
                            "it is empty or of an earlier version; 'tributary start' brings it up to date"
                        )
                    )
                | _ ->
                    (db :> IDisposable).Dispose()
                    Error(foreign path)
            with _ ->
                (db :> IDisposable).Dispose()
                reraise ()
        with
        | :? IOException
        | :? UnauthorizedAccessException as error -> Error(refusal path error)

// What the system answers when somebody else holds a lock: EAGAIN on Linux and macOS, sharing and lock violations on Windows.
let internal lockedResults = [ 11; 35; 0x80070020; 0x80070021 ]

/// Holds `<path>.lock`, so that a second writer is told. The system lets go of it when the process ends, however it ends.
let private lockFile (path: string) =
    try
        let folder = Path.GetDirectoryName(Path.GetFullPath path)

        match folder with
        | null -> ()
        | folder -> Directory.CreateDirectory folder |> ignore

        Ok(new FileStream(path + ".lock", FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None))
    with
    | :? IOException as error when List.contains error.HResult lockedResults ->
        Error(
            OpenFault.InUse(
                path,
                "another Tributary is writing to it; stop that one, or give this one a file of its own (store.path, or store.questdb.outbox)"
            )
        )
    | :? IOException
    | :? UnauthorizedAccessException as error -> Error(OpenFault.Unreachable(path, error.Message))

// The log is copied into the file after 16 MB and then used again; after a burst it is cut back to 64 MB. Keys that rows refer to come
// from the file itself, and none is ever deleted: looking each of them up again would be a part of every insert.
let private settings synchronous =
    let level =
        match synchronous with
        | Synchronous.Full -> "FULL"
        | Synchronous.Normal -> "NORMAL"

    $"PRAGMA journal_mode = WAL; PRAGMA synchronous = {level}; PRAGMA wal_autocheckpoint = 4000;
      PRAGMA journal_size_limit = 67108864; PRAGMA cache_size = -32000; PRAGMA temp_store = MEMORY;
      PRAGMA foreign_keys = OFF"

let private faultOf (path: string) (error: SqliteException) =
    let isFull =
        error.Primary = raw.SQLITE_FULL
        // Where the disk ran out while syncing or growing a file, SQLite only knows that it failed.
        || error.Primary = raw.SQLITE_IOERR
           && (let root = Path.GetDirectoryName(Path.GetFullPath path)
               DriveInfo(string root).AvailableFreeSpace < 1_048_576L)

    if isFull then
        StoreFault.Full $"no space is left for {path}: {error.Message}"
    elif error.Primary = raw.SQLITE_BUSY || error.Primary = raw.SQLITE_LOCKED then
        StoreFault.Locked $"another program has locked {path}: {error.Message}"
    else
        StoreFault.Failed $"{path}: {error.Message}"

/// Ends when all that is in the outbox of a file now was seen at the other store; at once where there is no such file.
let internal whenSeen (path: string) (clock: TimeProvider) (ct: CancellationToken) : Task<unit> = task {
    match openForReading path with
    | Error _ -> ()
    | Ok store ->
        do! store.Close()
        use db = new Connection(path, Access.Read)
        let newest = db.Number "SELECT coalesce(max(entry), 0) FROM outbox"

        let waiting () =
            db.Number
                $"SELECT count(*) FROM outbox o WHERE o.entry <= {newest}
                  AND o.entry > coalesce((SELECT a.entry FROM outbox_applied a WHERE a.kind = o.kind), 0)"

        while waiting () > 0L do
            do! Task.Delay(TimeSpan.FromMilliseconds 100.0, clock, ct)
}

/// The outbox with a connection of its own to read it, and the writer's to change it.
let private outboxOf path collector (alone: (unit -> unit) -> unit) (writer: Writer) (outbox: OutboxWriter) =
    let db = new Connection(path, Access.Read)
    let shipments = Shipments(db, collector)
    let gate = Lock()

    let reading (read: unit -> 'T) =
        gate.Enter()

        try
            read ()
        finally
            gate.Exit()

    let close () =
        reading (fun () -> (db :> IDisposable).Dispose())

    {
        Last = fun table -> reading (fun () -> shipments.Last table)
        Read = fun table after upTo rows -> reading (fun () -> shipments.Read(table, after, upTo, rows))
        Open = fun table entry batch -> reading (fun () -> shipments.Open(table, entry, batch))
        Waiting = fun () -> reading shipments.Waiting
        Unseen = fun () -> reading shipments.Unseen
        Dropped = fun () -> writer.Dropped
        Release = fun table upTo -> alone (fun () -> writer.Release(table, upTo))
        IsApplied = fun table upTo -> alone (fun () -> outbox.IsApplied(table, upTo))
    },
    close

let private startWriting path (held: FileStream) collector shipping clock (db: Connection) =
    let outboxWriter = OutboxWriter(db, clock)
    let writer = Writer(db, collector, shipping, outboxWriter)
    let gate = Lock()
    let mutable isOpen = true

    /// What a closed file is asked to do is done by the next one to open it.
    let alone (work: unit -> unit) =
        gate.Enter()

        try
            if isOpen then
                work ()
        finally
            gate.Exit()

    let outbox, closeOutbox = outboxOf path collector alone writer outboxWriter

    let reader =
        try
            writer.Recall outbox
            Reader(new Connection(path, Access.Read), path, ValueSome collector)
        with _ ->
            closeOutbox ()
            reraise ()

    let write (batches: IReadOnlyList<Batch>) (cancelled: CancellationToken) =
        gate.Enter()

        try
            try
                if isOpen then
                    writer.Write(batches, cancelled)
                    Task.FromResult(Ok())
                else
                    Task.FromResult(Error(StoreFault.Failed $"{path} is closed"))
            with
            | :? SqliteException as error -> Task.FromResult(Error(faultOf path error))
            | OutboxFull(held, limit) ->
                let full =
                    $"the outbox {path} holds {held} bytes that the other store has not taken yet, and has no room for more; its limit is {limit}"

                Task.FromResult(Error(StoreFault.Full full))
            | :? OperationCanceledException -> Task.FromCanceled<Result<unit, StoreFault>> cancelled
        finally
            gate.Exit()

    let close () =
        gate.Enter()

        try
            if isOpen then
                isOpen <- false
                closeOutbox ()

                // A reader elsewhere may keep the log from being emptied: then the next one does it.
                try
                    db.Execute "PRAGMA wal_checkpoint(TRUNCATE)"
                with :? SqliteException ->
                    ()

                (db :> IDisposable).Dispose()
                held.Dispose()
        finally
            gate.Exit()

    // Its statements are only made where something is to be deleted.
    let expiry = lazy (SqliteExpiry(db, collector))

    let expire (retention: RetentionSettings) (now: Instant) (ct: CancellationToken) = task {
        if not shipping.IsRows && SqliteExpiry.IsWanted retention then
            try
                let! expired =
                    expiry.Value.Run(
                        retention,
                        now,
                        (fun work ->
                            let mutable deleted = 0L
                            alone (fun () -> deleted <- work ())
                            deleted),
                        ct
                    )

                return Ok expired
            with :? SqliteException as error ->
                return Error(faultOf path error)
        else
            return Ok []
    }

    storeOf reader write expire close, outbox

/// As `openForWriting`, for a file that holds what waits for a store that is elsewhere, too.
let internal openShipping
    (path: string)
    (collector: string)
    (synchronous: Synchronous)
    (shipping: Shipping)
    (clock: TimeProvider)
    : Result<Store * Outbox, OpenFault> =
    match lockFile path with
    | Error fault -> Error fault
    | Ok held ->
        let fail (db: Connection) fault =
            (db :> IDisposable).Dispose()
            held.Dispose()
            Error fault

        try
            let db = new Connection(path, Access.Write)

            try
                match marks db with
                | SqliteSchema.ApplicationId, found, _ when found > SqliteSchema.version ->
                    fail db (tooNew path found)
                | SqliteSchema.ApplicationId, _, _
                | 0L, 0, false ->
                    if shipping.IsRows then
                        db.Execute "PRAGMA auto_vacuum = INCREMENTAL" // has an effect on a new file only

                    db.Execute(settings synchronous)
                    SqliteSchema.migrate SqliteSchema.steps SqliteSchema.views db
                    Ok(startWriting path held collector shipping clock db)
                | _ -> fail db (foreign path)
            with error ->
                fail db (refusal path error)
        with error ->
            held.Dispose()
            Error(refusal path error)

/// Opens a file to write and read it, and makes it, with its folder, when it is not there; an older version is brought up to
/// date. `Write` works on the caller's thread. It holds `<path>.lock` until it is closed, so that there is one writer.
let openForWriting (path: string) (collector: string) (synchronous: Synchronous) : Result<Store, OpenFault> =
    openShipping path collector synchronous Shipping.Off TimeProvider.System
    |> Result.map fst

/// VACUUM may give rows other rowids, says its manual, and the outbox refers to some rows by theirs. This library keeps those of tables
/// that have an index, as ours have; it is asked before anything rests on it.
let private keepsRowIds () =
    use db = new Connection(":memory:", Access.Write)

    db.Execute
        "CREATE TABLE a (b INTEGER NOT NULL UNIQUE) STRICT;
         INSERT INTO a (rowid, b) VALUES (2, 1), (5, 2), (9, 3), (1000, 4); DELETE FROM a WHERE b = 1; VACUUM"

    db.Number "SELECT sum(rowid * b) FROM a" = 2L * 5L + 3L * 9L + 4L * 1000L

let private sizeOnDisk (path: string) =
    [ path; path + "-wal" ]
    |> List.sumBy (fun file -> if File.Exists file then FileInfo(file).Length else 0L)

/// Deletes what is older than it is kept, makes the file as small as what is in it, and gathers what SQLite needs to know to ask it well. A
/// store of an earlier version is taken forward before. It holds the writer's lock meanwhile. A process that ends in the middle of it,
/// however it ends, leaves a whole file. Throws only when cancelled.
let compact
    (path: string)
    (collector: string)
    (retention: RetentionSettings)
    (now: Instant)
    (ct: CancellationToken)
    : Task<Result<Compacted, CompactFault>> = task {
    let work (db: Connection) : Task<Result<Compacted, CompactFault>> = task {
        let used =
            (db.Number "PRAGMA page_count" - db.Number "PRAGMA freelist_count")
            * db.Number "PRAGMA page_size"

        let folder = string (Path.GetDirectoryName(Path.GetFullPath path))
        let free = DriveInfo(folder).AvailableFreeSpace
        // The new pages stand in a file of their own first, and then in the log.
        let needed = 2L * used + 4_000_000L

        if free < needed then
            return Error(CompactFault.NoRoom(path, needed, free))
        elif not (keepsRowIds ()) && db.Number "SELECT count(*) FROM outbox" > 0L then
            return
                Error(
                    CompactFault.Failed(
                        StoreFault.Failed
                            $"rows of {path} wait for another store, and compacting would lose which: let 'tributary start' send them first"
                    )
                )
        else
            let before = sizeOnDisk path
            db.Execute(settings Synchronous.Full)
            SqliteSchema.migrate SqliteSchema.steps SqliteSchema.views db
            db.InterruptWhen(fun () -> ct.IsCancellationRequested)

            let! expired =
                if SqliteExpiry.IsWanted retention then
                    SqliteExpiry(db, collector).Run(retention, now, (fun step -> step ()), ct)
                else
                    Task.FromResult []

            ct.ThrowIfCancellationRequested()
            // In memory the copy would have to fit there, and the system's folder may be small.
            let quoted = folder.Replace("'", "''")
            db.Execute $"PRAGMA temp_store = FILE; PRAGMA temp_store_directory = '{quoted}'"

            try
                db.Execute "PRAGMA wal_checkpoint(TRUNCATE)"
                db.Execute "VACUUM"
            finally
                db.Execute "PRAGMA temp_store_directory = ''"

            db.Execute "PRAGMA analysis_limit = 1000; ANALYZE; PRAGMA wal_checkpoint(TRUNCATE)"

            return
                Ok {
                    Expired = expired
                    Before = before
                    After = sizeOnDisk path
                }
    }

    let unopened fault = Error(CompactFault.Unopened fault)

    if not (File.Exists path) then
        return unopened (OpenFault.Unreachable(path, "there is no such file"))
    else
        match lockFile path with
        | Error(OpenFault.InUse(path, _)) ->
            return
                unopened (OpenFault.InUse(path, "a collector writes to it; stop that one, and compact then"))
        | Error fault -> return unopened fault
        | Ok held ->
            use _ = held

            try
                use db = new Connection(path, Access.Write)

                match marks db with
                | SqliteSchema.ApplicationId, found, _ when found > SqliteSchema.version ->
                    return unopened (tooNew path found)
                | SqliteSchema.ApplicationId, _, _ -> return! work db
                | _ -> return unopened (foreign path)
            with
            | :? SqliteException as error when
                error.Primary = raw.SQLITE_INTERRUPT && ct.IsCancellationRequested
                ->
                return raise (OperationCanceledException ct)
            | :? SqliteException as error when error.Primary = raw.SQLITE_NOTADB ->
                return unopened (refusal path error)
            | :? SqliteException as error -> return Error(CompactFault.Failed(faultOf path error))
}
