/// Rows of a batch as lines of the tables in `Tables`.
namespace Tributary.Stores.QuestDb

open System
open System.Buffers
open System.Buffers.Binary
open System.Collections.Generic
open System.Globalization
open System.Runtime.CompilerServices
open System.Runtime.InteropServices
open System.Runtime.Intrinsics
open System.Runtime.Intrinsics.X86
open Tributary
open Tributary.Stores

/// One table that rows of a batch go to.
[<RequireQualifiedAccess>]
type internal Lane =
    | Trades
    | Books
    | Deltas
    | Prices
    | Links
    | OwnOrders
    | OwnTrades
    | Matches
    | Markets
    | MarketStats
    | Gaps
    | Rejections
    | Metrics

    /// The table's name in `Tables`.
    member this.Table =
        match this with
        | Trades -> "trades"
        | Books -> "orderbook_snapshots"
        | Deltas -> "orderbook_deltas"
        | Prices -> "prices"
        | Links -> "trade_links"
        | OwnOrders -> "own_orders"
        | OwnTrades -> "own_trades"
        | Matches -> "market_matches"
        | Markets -> "markets"
        | MarketStats -> "market_stats"
        | Gaps -> "gaps"
        | Rejections -> "quarantine"
        | Metrics -> "collection_metrics"

[<RequireQualifiedAccess>]
module internal Lane =
    let all = [
        Lane.Trades
        Lane.Books
        Lane.Deltas
        Lane.Prices
        Lane.Links
        Lane.OwnOrders
        Lane.OwnTrades
        Lane.Matches
        Lane.Markets
        Lane.MarketStats
        Lane.Gaps
        Lane.Rejections
        Lane.Metrics
    ]

    /// How many entries of a batch a lane looks at. (A market without stats is an entry that makes no row.)
    let count (lane: Lane) (batch: Batch) =
        match lane with
        | Lane.Trades -> batch.Trades.Count
        | Lane.Books -> batch.Books.Count
        | Lane.Deltas -> batch.Deltas.Count
        | Lane.Prices -> batch.Prices.Count
        | Lane.Links -> batch.Links.Count
        | Lane.OwnOrders -> batch.OwnOrders.Count
        | Lane.OwnTrades -> batch.OwnTrades.Count
        | Lane.Matches -> batch.Matches.Count
        | Lane.Markets
        | Lane.MarketStats -> batch.Markets.Count
        | Lane.Gaps -> batch.Gaps.Count
        | Lane.Rejections -> batch.Rejections.Count
        | Lane.Metrics -> batch.Metrics.Count

/// Millionths as doubles.
[<RequireQualifiedAccess>]
module internal Doubles =
    /// Up to here an int64 is a double without loss, and so a single division rounds once.
    let private exact = 1L <<< 53

    let private slow (millionths: int64) =
        let text: byte[] = Array.zeroCreate 24
        let length = Fixed.format millionths (Span text)
        Double.Parse(ReadOnlySpan(text, 0, length), CultureInfo.InvariantCulture)

    /// The double that is nearest to the decimal: it prints as the same decimal.
    [<MethodImpl(MethodImplOptions.AggressiveInlining)>]
    let ofMillionths (millionths: int64) =
        if uint64 (millionths + exact) <= uint64 (2L * exact) then
            float millionths / 1e6
        else
            slow millionths

    let private scalar (levels: ReadOnlySpan<Level>) first (into: Span<byte>) =
        for i in first .. levels.Length - 1 do
            BinaryPrimitives.WriteDoubleLittleEndian(
                into.Slice(8 * i),
                ofMillionths levels[i].Price.Millionths
            )

            BinaryPrimitives.WriteDoubleLittleEndian(
                into.Slice(8 * (levels.Length + i)),
                ofMillionths levels[i].Size.Millionths
            )

    // A level lies in memory as its price and its size, eight bytes each.
    let private isPair =
        let levels: Level[] = [|
            {
                Price = Price.ofMillionths 1L
                Size = ValueOption.defaultValue Size.zero (Size.tryOfMillionths 2L)
            }
        |]

        Unsafe.SizeOf<Level>() = 16
        && MemoryMarshal.Cast<Level, int64>(Span levels).SequenceEqual(ReadOnlySpan [| 1L; 2L |])

    // NOTE: an integer below 2^52 under this exponent is 2^52 more than itself as a double, exactly.
    let private exponent = Vector256.Create(0x4330_0000_0000_0000L)
    let private offset = Vector256.Create(4503599627370496.0)
    let private million = Vector256.Create(1e6)
    let private high = Vector256.Create(0xFFF0_0000_0000_0000L)

    /// Four levels at a time; answers how many it did: none of them when a number is negative or too large for this.
    let private vectors (levels: ReadOnlySpan<Level>) (into: Span<byte>) =
        let numbers = MemoryMarshal.Cast<Level, int64> levels
        let doubles = MemoryMarshal.Cast<byte, float> into
        let mutable seen = Vector256<int64>.Zero
        let mutable i = 0

        while i + 4 <= levels.Length do
            let first = Vector256.Create<int64>(numbers.Slice(2 * i, 4): ReadOnlySpan<int64>)

            let second =
                Vector256.Create<int64>(numbers.Slice(2 * i + 4, 4): ReadOnlySpan<int64>)

            seen <- seen ||| first ||| second
            let first = ((first ||| exponent).AsDouble() - offset) / million
            let second = ((second ||| exponent).AsDouble() - offset) / million
            // Prices 0 2 1 3 and sizes 0 2 1 3, and then in order.
            let prices = Avx2.Permute4x64(Avx.UnpackLow(first, second), 0b11_01_10_00uy)
            let sizes = Avx2.Permute4x64(Avx.UnpackHigh(first, second), 0b11_01_10_00uy)
            prices.CopyTo(doubles.Slice i)
            sizes.CopyTo(doubles.Slice(levels.Length + i))
            i <- i + 4

        if (seen &&& high) = Vector256<int64>.Zero then i else 0

    /// All prices, then all sizes: the two rows of an array, little-endian.
    let ofLevels (levels: ReadOnlySpan<Level>) (into: Span<byte>) =
        let isVectorised = Avx2.IsSupported && isPair
        let first = if isVectorised then vectors levels into else 0
        scalar levels first into

[<RequireQualifiedAccess>]
module private Columns =
    let at name = Ilp.column name
    let exchange = at "exchange"
    let market = at "market"
    let token = at "token"
    let outcome = at "outcome"
    let side = at "side"
    let source = at "source"
    let flags = at "flags"
    let price = at "price"
    let size = at "size"
    let collateral = at "collateral"
    let kind = at "kind"
    let tradeId = at "trade_id"
    let transaction = at "transaction_hash"
    let received = at "received"
    let verdict = at "verdict"
    let doubt = at "doubt"
    let ordinal = at "ordinal"
    let sequence = at "sequence"
    let otherId = at "other_id"
    let reason = at "reason"
    let bids = at "bids"
    let asks = at "asks"
    let bestBid = at "best_bid"
    let bestBidSize = at "best_bid_size"
    let bestAsk = at "best_ask"
    let bestAskSize = at "best_ask_size"
    let mid = at "mid"
    let spread = at "spread"
    let spreadBps = at "spread_bps"
    let hash = at "hash"
    let event = at "event"
    let slug = at "slug"
    let question = at "question"
    let outcomes = at "outcomes"
    let tags = at "tags"
    let status = at "status"
    let acceptsOrders = at "accepts_orders"
    let tickSize = at "tick_size"
    let minimumSize = at "minimum_size"
    let negRisk = at "neg_risk"
    let starts = at "starts"
    let ends = at "ends"
    let closed = at "closed"
    let winner = at "winner"
    let updated = at "updated"
    let version = at "version"
    let raw = at "raw"
    let volume = at "volume"
    let liquidity = at "liquidity"
    let openInterest = at "open_interest"
    let collector = at "collector"
    let stream = at "stream"
    let cause = at "cause"
    let until = at "until"
    let healedAt = at "healed_at"
    let healedBy = at "healed_by"
    let position = at "position"
    let bytes = at "bytes"
    let content = at "content"
    let name = at "name"
    let labels = at "labels"
    let value = at "value"
    let orderId = at "order_id"
    let filled = at "filled"
    let isTaker = at "is_taker"
    let answer = at "answer"
    let isWithdrawn = at "is_withdrawn"

/// How a token's trades begin. It belongs to a market; an exchange that gives two markets the same token makes it anew each time.
[<Sealed; NoComparison; NoEquality>]
type private Beginning(market: Name, outcome: Name, head: Fragment, token: Fragment) =
    member _.Market = market
    member _.Outcome = outcome
    /// The table and the symbols.
    member _.Head = head
    /// The field that follows the symbols, where the token is one.
    member _.Token = token

/// The beginnings of one exchange's rows, by the numbers of its tokens in one `Names`.
[<Sealed; NoComparison; NoEquality>]
type private Beginnings() =
    let mutable ofToken: (Beginning | null)[] = Array.zeroCreate 256

    member _.Find(token: Name) : Beginning | null =
        if token.Key < ofToken.Length then
            ofToken[token.Key]
        else
            null

    member _.Keep(token: Name, beginning: Beginning) =
        if token.Key >= ofToken.Length then
            Array.Resize(&ofToken, max (token.Key + 1) (ofToken.Length * 2))

        ofToken[token.Key] <- beginning

/// What an encoder needs to know of the server and of us.
type internal EncoderOptions = {
    /// Of the line protocol: 1, 2 or 3.
    Protocol: int
    /// Prices and sizes of trades are DECIMAL columns. Needs version 3.
    Decimals: bool
    /// Sides of books are JSON texts: what version 1 is left with.
    LevelsAsText: bool
    /// The name that gaps and metrics carry.
    Collector: string
}

/// Makes rows of the tables in `Tables`. A value that is missing is a field left out; a symbol without text is left out, too;
/// a text without text is there. Rows of trades, books, deltas and prices allocate nothing once their tokens were met. One lane has one
/// encoder, for one thread at a time.
[<Sealed>]
type internal Encoder(options: EncoderOptions) =
    let writer = LineWriter options.Protocol
    let pieces = Payload 1024
    let trades = Ilp.table Lane.Trades.Table
    let books = Ilp.table Lane.Books.Table
    let deltas = Ilp.table Lane.Deltas.Table
    let prices = Ilp.table Lane.Prices.Table
    let links = Ilp.table Lane.Links.Table
    let ownOrders = Ilp.table Lane.OwnOrders.Table
    let ownTrades = Ilp.table Lane.OwnTrades.Table
    let matches = Ilp.table Lane.Matches.Table
    let markets = Ilp.table Lane.Markets.Table
    let marketStats = Ilp.table Lane.MarketStats.Table
    let gaps = Ilp.table Lane.Gaps.Table
    let rejections = Ilp.table Lane.Rejections.Table
    let metrics = Ilp.table Lane.Metrics.Table

    do
        if options.Decimals && options.Protocol < 3 then
            invalidArg (nameof options) "decimals need version 3 of the line protocol"

        if not options.LevelsAsText && options.Protocol < 2 then
            invalidArg (nameof options) "arrays need version 2 of the line protocol"

    // By `Names`, then by exchange; the last ones are at hand, for they hardly ever change.
    let tradeBeginnings = ConditionalWeakTable<Names, Dictionary<string, Beginnings>>()
    // How all rows of a table begin: of each table and exchange.
    let heads = Dictionary<struct (byte[] * string), Fragment>()
    // What follows the symbols of a token: few, for flags are rare.
    let tradeVariants = Dictionary<int, Fragment>()
    let bookVariants = Dictionary<int64, Fragment>()
    let deltaVariants: (Fragment | null)[] = Array.zeroCreate 256
    let mutable levels: byte[] = Array.zeroCreate 256

    let symbol column (text: string) =
        if text <> "" then
            writer.Symbol(column, text)

    let name column (names: Names) (name: Name) =
        if name.Key <> 0 then
            writer.Symbol(column, ReadOnlySpan(names.Utf8 name))

    let beginningsOf (cache: ConditionalWeakTable<Names, Dictionary<string, Beginnings>>) (batch: Batch) =
        let byExchange = cache.GetOrCreateValue batch.Names

        match byExchange.TryGetValue batch.Exchange with
        | true, found -> found
        | _ ->
            let made = Beginnings()
            byExchange[batch.Exchange] <- made
            made

    let newTradeBeginning (beginnings: Beginnings) (batch: Batch) (row: inref<TradeRow>) =
        writer.Begin(pieces, trades)
        symbol Columns.exchange batch.Exchange
        name Columns.market batch.Names row.Market
        name Columns.outcome batch.Names row.Outcome
        let head = writer.Fragment()
        writer.Begin pieces
        writer.String(Columns.token, ReadOnlySpan(batch.Names.Utf8 row.Token))
        let made = Beginning(row.Market, row.Outcome, head, writer.Fragment())
        beginnings.Keep(row.Token, made)
        made

    let tradeVariant (side: Side) (source: Source) (flags: Flags) =
        let key = int side ||| (int source <<< 1) ||| (int flags <<< 3)
        let mutable found = Unchecked.defaultof<Fragment>

        if not (tradeVariants.TryGetValue(key, &found)) then
            writer.Begin pieces
            writer.Symbol(Columns.side, Side.text side)
            writer.Symbol(Columns.source, Source.text source)
            symbol Columns.flags (Content.flagsText flags)
            found <- writer.Fragment()
            tradeVariants[key] <- found

        found

    let headOf table exchange =
        let mutable found = Unchecked.defaultof<Fragment>

        if not (heads.TryGetValue(struct (table, exchange), &found)) then
            writer.Begin(pieces, table)
            symbol Columns.exchange exchange
            found <- writer.Fragment()
            heads[struct (table, exchange)] <- found

        found

    /// The beginning of a row of a table where the token is a symbol. The names come from where the decoder has just met them: a beginning
    /// that is kept for each token would have to come from further away.
    let beginToken (head: Fragment) (names: Names) market token payload =
        writer.Begin payload
        writer.Put head
        name Columns.market names market
        name Columns.token names token

    let deltaVariant (side: Side) (verdict: Verdict) (doubt: Doubt) =
        let key = int side ||| (int verdict <<< 1) ||| (int doubt <<< 3)

        match deltaVariants[key] with
        | null ->
            writer.Begin pieces
            writer.Symbol(Columns.side, Side.text side)
            writer.Symbol(Columns.verdict, Verdict.text verdict)
            symbol Columns.doubt (Doubt.text doubt)
            let made = writer.Fragment()
            deltaVariants[key] <- made
            made
        | found -> found

    let bookVariant (verdict: Verdict) (doubt: Doubt) (reason: Reason) (flags: Flags) =
        let key =
            int64 verdict
            ||| (int64 doubt <<< 2)
            ||| (int64 reason <<< 10)
            ||| (int64 flags <<< 18)

        let mutable found = Unchecked.defaultof<Fragment>

        if not (bookVariants.TryGetValue(key, &found)) then
            writer.Begin pieces
            writer.Symbol(Columns.verdict, Verdict.text verdict)
            symbol Columns.doubt (Doubt.text doubt)
            writer.Symbol(Columns.reason, Reason.text reason)
            symbol Columns.flags (Content.flagsText flags)
            found <- writer.Fragment()
            bookVariants[key] <- found

        found

    let double column millionths =
        writer.Double(column, Doubles.ofMillionths millionths)

    /// The exchange's number of a message, where it has one.
    let numbered (sequence: int) =
        if sequence > 0 then
            writer.Long(Columns.sequence, sequence)

    /// Prices and sizes of trades.
    let number column millionths =
        if options.Decimals then
            writer.Decimal(column, millionths, 6)
        else
            double column millionths

    let price column (price: Price voption) =
        match price with
        | ValueSome price -> double column price.Millionths
        | ValueNone -> ()

    let size column (size: Size voption) =
        match size with
        | ValueSome size -> double column size.Millionths
        | ValueNone -> ()

    let time column (at: Instant voption) =
        match at with
        | ValueSome at -> writer.Timestamp(column, at.Micros)
        | ValueNone -> ()

    /// `[[price,size],…]` in decimals.
    let levelsText column (side: ReadOnlySpan<Level>) =
        let room = 2 + side.Length * 48 // two numbers of up to 21 bytes, brackets and commas

        if levels.Length < room then
            levels <- Array.zeroCreate (2 * room)

        let mutable at = 1
        levels[0] <- '['B

        for i in 0 .. side.Length - 1 do
            if i > 0 then
                levels[at] <- ','B
                at <- at + 1

            levels[at] <- '['B
            at <- at + 1
            at <- at + Fixed.format side[i].Price.Millionths (levels.AsSpan at)
            levels[at] <- ','B
            at <- at + 1
            at <- at + Fixed.format side[i].Size.Millionths (levels.AsSpan at)
            levels[at] <- ']'B
            at <- at + 1

        levels[at] <- ']'B
        writer.String(column, ReadOnlySpan(levels, 0, at + 1))

    let shape: int[] = [| 2; 0 |]

    let side column (side: ReadOnlySpan<Level>) =
        if options.LevelsAsText then
            levelsText column side
        else
            shape[1] <- side.Length
            Doubles.ofLevels side (writer.Array(column, ReadOnlySpan shape))

    /// False, and the caller told, when the server cannot have a row of that time.
    let isKept (reject: int -> string -> unit) index (at: Instant) =
        let kept = Ilp.isRowTime at.Micros

        if not kept then
            reject index $"its time {at} lies outside of 1970-01-01 to 9999-12-31, which QuestDB can hold"

        kept

    let momentOf (market: Market) =
        ValueOption.defaultValue market.Received market.Updated

    member _.Options = options

    member _.AppendTrades
        (batch: Batch, first: int, count: int, payload: Payload, reject: int -> string -> unit)
        =
        let beginnings = beginningsOf tradeBeginnings batch
        let rows = batch.Trades

        for i in first .. first + count - 1 do
            let row = &rows[i]

            if isKept reject i row.At then
                let beginning =
                    match beginnings.Find row.Token with
                    | null -> newTradeBeginning beginnings batch &row
                    | known ->
                        if known.Market.Key = row.Market.Key && known.Outcome.Key = row.Outcome.Key then
                            known
                        else
                            newTradeBeginning beginnings batch &row

                let variant = tradeVariant row.Side row.Source row.Flags
                writer.Begin payload
                writer.Put beginning.Head
                writer.Put variant
                writer.Put beginning.Token
                number Columns.price row.Price.Millionths
                number Columns.size row.Size.Millionths

                match row.Collateral with
                | ValueSome amount -> number Columns.collateral amount.Millionths
                | ValueNone -> ()

                writer.Hex(Columns.tradeId, row.Id.High, row.Id.Low)
                writer.String(Columns.transaction, batch.Utf8 row.Transaction)
                writer.Timestamp(Columns.received, row.Received.Micros)
                writer.End row.At.Micros

    member _.AppendBooks
        (batch: Batch, first: int, count: int, payload: Payload, reject: int -> string -> unit)
        =
        let head = headOf books batch.Exchange
        let rows = batch.Books

        for i in first .. first + count - 1 do
            let row = &rows[i]

            if isKept reject i row.At then
                let variant = bookVariant row.Verdict row.Doubt row.Reason row.Flags
                let bids = batch.Levels.Slice(row.FirstBid, row.BidCount)
                let asks = batch.Levels.Slice(row.FirstAsk, row.AskCount)
                beginToken head batch.Names row.Market row.Token payload
                writer.Put variant
                side Columns.bids (Span.op_Implicit bids)
                side Columns.asks (Span.op_Implicit asks)

                if bids.Length > 0 then
                    double Columns.bestBid bids[0].Price.Millionths
                    double Columns.bestBidSize bids[0].Size.Millionths

                if asks.Length > 0 then
                    double Columns.bestAsk asks[0].Price.Millionths
                    double Columns.bestAskSize asks[0].Size.Millionths

                if bids.Length > 0 && asks.Length > 0 then
                    let bid, ask = bids[0].Price.Millionths, asks[0].Price.Millionths
                    writer.Double(Columns.mid, float (bid + ask) / 2e6)
                    double Columns.spread (ask - bid)

                    if bid + ask <> 0L then
                        writer.Double(Columns.spreadBps, float (ask - bid) * 2e4 / float (bid + ask))

                numbered row.Sequence
                writer.String(Columns.hash, batch.Utf8 row.Hash)
                writer.Timestamp(Columns.received, row.Received.Micros)
                writer.End row.At.Micros

    member _.AppendDeltas
        (batch: Batch, first: int, count: int, payload: Payload, reject: int -> string -> unit)
        =
        let head = headOf deltas batch.Exchange
        let rows = batch.Deltas

        for i in first .. first + count - 1 do
            let row = &rows[i]

            if isKept reject i row.At then
                let variant = deltaVariant row.Side row.Verdict row.Doubt
                beginToken head batch.Names row.Market row.Token payload
                writer.Put variant
                writer.Long(Columns.ordinal, row.Ordinal)
                numbered row.Sequence
                double Columns.price row.Price.Millionths
                double Columns.size row.Size.Millionths
                writer.String(Columns.hash, batch.Utf8 row.Hash)
                writer.Timestamp(Columns.received, row.Received.Micros)
                writer.End row.At.Micros

    member _.AppendPrices
        (batch: Batch, first: int, count: int, payload: Payload, reject: int -> string -> unit)
        =
        let head = headOf prices batch.Exchange
        let rows = batch.Prices

        for i in first .. first + count - 1 do
            let row = &rows[i]

            if isKept reject i row.At then
                beginToken head batch.Names row.Market row.Token payload
                writer.Symbol(Columns.kind, PriceKind.text row.Kind)
                double Columns.price row.Price.Millionths
                writer.Timestamp(Columns.received, row.Received.Micros)
                writer.End row.At.Micros

    member _.AppendLinks
        (batch: Batch, first: int, count: int, payload: Payload, reject: int -> string -> unit)
        =
        for i in first .. first + count - 1 do
            let row = &batch.Links[i]

            if isKept reject i row.At then
                writer.Begin(payload, links)
                writer.Hex(Columns.otherId, row.Other.High, row.Other.Low)
                writer.Hex(Columns.tradeId, row.Trade.High, row.Trade.Low)
                writer.End row.At.Micros

    member _.Append(order: OwnOrder, payload: Payload) =
        writer.Begin(payload, ownOrders)
        symbol Columns.exchange (string order.Exchange)
        symbol Columns.market (string order.Market)
        symbol Columns.token (string order.Token)
        writer.Symbol(Columns.side, Side.text order.Side)
        symbol Columns.status order.Status
        writer.String(Columns.orderId, order.Order)
        double Columns.price order.Price.Millionths
        double Columns.size order.Size.Millionths
        double Columns.filled order.Filled.Millionths
        writer.Timestamp(Columns.received, order.Received.Micros)
        writer.End order.At.Micros

    member _.Append(trade: OwnTrade, payload: Payload) =
        writer.Begin(payload, ownTrades)
        symbol Columns.exchange (string trade.Exchange)
        symbol Columns.market (string trade.Market)
        symbol Columns.token (string trade.Token)
        writer.Symbol(Columns.side, Side.text trade.Side)
        symbol Columns.status trade.Status
        writer.String(Columns.tradeId, trade.Trade)
        writer.String(Columns.orderId, trade.Order)
        double Columns.price trade.Price.Millionths
        double Columns.size trade.Size.Millionths
        writer.Boolean(Columns.isTaker, trade.IsTaker)
        writer.String(Columns.transaction, trade.Transaction)
        writer.Timestamp(Columns.received, trade.Received.Micros)
        writer.End trade.At.Micros

    member _.Append(row: MarketMatch, payload: Payload) =
        writer.Begin(payload, matches)
        symbol Columns.exchange (string row.Exchange)
        symbol Columns.market (string row.Market)
        symbol Columns.token (string row.Token)
        symbol Columns.question row.Question
        symbol Columns.answer row.Answer
        writer.Boolean(Columns.isWithdrawn, row.IsWithdrawn)
        writer.End row.At.Micros

    member this.AppendOwnOrders
        (batch: Batch, first: int, count: int, payload: Payload, reject: int -> string -> unit)
        =
        for i in first .. first + count - 1 do
            if isKept reject i batch.OwnOrders[i].At then
                this.Append(batch.OwnOrders[i], payload)

    member this.AppendOwnTrades
        (batch: Batch, first: int, count: int, payload: Payload, reject: int -> string -> unit)
        =
        for i in first .. first + count - 1 do
            if isKept reject i batch.OwnTrades[i].At then
                this.Append(batch.OwnTrades[i], payload)

    member this.AppendMatches
        (batch: Batch, first: int, count: int, payload: Payload, reject: int -> string -> unit)
        =
        for i in first .. first + count - 1 do
            if isKept reject i batch.Matches[i].At then
                this.Append(batch.Matches[i], payload)

    member private _.Append(market: Market, payload: Payload) =
        writer.Begin(payload, markets)
        symbol Columns.exchange (string market.Exchange)
        symbol Columns.market (string market.Market)
        symbol Columns.status (string market.Status)
        writer.String(Columns.event, market.Event)
        writer.String(Columns.slug, market.Slug)
        writer.String(Columns.question, market.Question)
        writer.String(Columns.outcomes, Content.outcomesJson market.Outcomes)
        writer.String(Columns.tags, Content.tagsJson market.Tags)
        writer.Boolean(Columns.acceptsOrders, market.AcceptsOrders)
        price Columns.tickSize market.TickSize
        size Columns.minimumSize market.MinimumSize
        writer.Boolean(Columns.negRisk, market.NegRisk)
        time Columns.starts market.Start
        time Columns.ends market.End
        time Columns.closed market.ClosedAt
        writer.String(Columns.winner, market.Winner)
        time Columns.updated market.Updated
        writer.Timestamp(Columns.received, market.Received.Micros)
        writer.String(Columns.version, Convert.ToHexStringLower(Content.versionOf market))
        writer.String(Columns.raw, market.Raw)
        writer.End (momentOf market).Micros

    member private _.AppendStats(market: Market, payload: Payload) =
        writer.Begin(payload, marketStats)
        symbol Columns.exchange (string market.Exchange)
        symbol Columns.market (string market.Market)
        size Columns.volume market.Volume
        size Columns.liquidity market.Liquidity
        size Columns.openInterest market.OpenInterest
        writer.End (momentOf market).Micros

    member this.AppendMarkets
        (batch: Batch, first: int, count: int, payload: Payload, reject: int -> string -> unit)
        =
        for i in first .. first + count - 1 do
            let market = batch.Markets[i]

            if isKept reject i (momentOf market) then
                this.Append(market, payload)

    /// A market whose volumes are all unknown makes no row.
    member this.AppendMarketStats
        (batch: Batch, first: int, count: int, payload: Payload, reject: int -> string -> unit)
        =
        for i in first .. first + count - 1 do
            let market = batch.Markets[i]

            if market.Volume.IsSome || market.Liquidity.IsSome || market.OpenInterest.IsSome then
                if isKept reject i (momentOf market) then
                    this.AppendStats(market, payload)

    /// A gap as it is now: sent again when it closes and when it heals, each time whole.
    member _.Append(gap: Gap, payload: Payload) =
        writer.Begin(payload, gaps)
        symbol Columns.collector options.Collector
        symbol Columns.exchange (string gap.Exchange)
        symbol Columns.stream (string gap.Stream)
        symbol Columns.market (string gap.Market)
        symbol Columns.cause (string gap.Cause)

        writer.String(
            Columns.token,
            match gap.Token with
            | ValueSome token -> string token
            | ValueNone -> ""
        )

        time Columns.until gap.Until

        match gap.Healed with
        | ValueSome(struct (at, by)) ->
            writer.Timestamp(Columns.healedAt, at.Micros)
            writer.String(Columns.healedBy, by)
        | ValueNone -> ()

        writer.End gap.Since.Micros

    member this.AppendGaps
        (batch: Batch, first: int, count: int, payload: Payload, reject: int -> string -> unit)
        =
        for i in first .. first + count - 1 do
            if isKept reject i batch.Gaps[i].Since then
                this.Append(batch.Gaps[i], payload)

    /// Throws when `Received`, which is our own clock's, is no time of a row.
    member _.Append(rejection: Rejection, payload: Payload) =
        writer.Begin(payload, rejections)
        symbol Columns.exchange rejection.Exchange
        writer.String(Columns.source, rejection.Source)
        writer.Long(Columns.position, rejection.Offset)
        writer.String(Columns.reason, rejection.Reason)
        writer.String(Columns.bytes, Convert.ToBase64String rejection.Bytes)
        writer.String(Columns.content, Convert.ToHexStringLower(Content.contentOf rejection))
        writer.End rejection.Received.Micros

    member this.AppendRejections
        (batch: Batch, first: int, count: int, payload: Payload, reject: int -> string -> unit)
        =
        for i in first .. first + count - 1 do
            if isKept reject i batch.Rejections[i].Received then
                this.Append(batch.Rejections[i], payload)

    /// A value that is no number is sent, and read back as NULL.
    member _.Append(metric: Metric, payload: Payload) =
        writer.Begin(payload, metrics)
        symbol Columns.collector options.Collector
        symbol Columns.name metric.Name
        symbol Columns.labels metric.Labels
        writer.Double(Columns.value, metric.Value)
        writer.End metric.At.Micros

    member this.AppendMetrics
        (batch: Batch, first: int, count: int, payload: Payload, reject: int -> string -> unit)
        =
        for i in first .. first + count - 1 do
            if isKept reject i batch.Metrics[i].At then
                this.Append(batch.Metrics[i], payload)

    /// The rows of one lane: entries `first` to `first + count - 1` of the batch. An entry whose time the server cannot hold is
    /// left out, and `reject` is told its index and the reason.
    member this.Append
        (lane: Lane, batch: Batch, first: int, count: int, payload: Payload, reject: int -> string -> unit)
        =
        match lane with
        | Lane.Trades -> this.AppendTrades(batch, first, count, payload, reject)
        | Lane.Books -> this.AppendBooks(batch, first, count, payload, reject)
        | Lane.Deltas -> this.AppendDeltas(batch, first, count, payload, reject)
        | Lane.Prices -> this.AppendPrices(batch, first, count, payload, reject)
        | Lane.Links -> this.AppendLinks(batch, first, count, payload, reject)
        | Lane.OwnOrders -> this.AppendOwnOrders(batch, first, count, payload, reject)
        | Lane.OwnTrades -> this.AppendOwnTrades(batch, first, count, payload, reject)
        | Lane.Matches -> this.AppendMatches(batch, first, count, payload, reject)
        | Lane.Markets -> this.AppendMarkets(batch, first, count, payload, reject)
        | Lane.MarketStats -> this.AppendMarketStats(batch, first, count, payload, reject)
        | Lane.Gaps -> this.AppendGaps(batch, first, count, payload, reject)
        | Lane.Rejections -> this.AppendRejections(batch, first, count, payload, reject)
        | Lane.Metrics -> this.AppendMetrics(batch, first, count, payload, reject)
