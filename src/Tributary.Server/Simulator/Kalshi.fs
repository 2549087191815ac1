namespace Tributary.Server.Simulator

open System
open System.Globalization
open System.Security.Cryptography
open System.Text
open System.Text.Json

/// Whether a request is a key's owner's: the signature over moment, method and path.
module internal KalshiKey =
    /// How far the moment may be from ours.
    let private tolerance = TimeSpan.FromSeconds 5.0

    /// None: it is not signed. Some false: it is, and not by the key's owner.
    let check
        (publicKey: string)
        (now: DateTimeOffset)
        (methodName: string)
        (path: string)
        header
        : bool option =
        match
            header "KALSHI-ACCESS-KEY", header "KALSHI-ACCESS-TIMESTAMP", header "KALSHI-ACCESS-SIGNATURE"
        with
        | "", "", "" -> None
        | _ when publicKey = "" -> Some false
        | _, (timestamp: string), (signature: string) ->
            match Int64.TryParse timestamp with
            | true, at when (now - DateTimeOffset.FromUnixTimeMilliseconds at).Duration() <= tolerance ->
                try
                    use key = RSA.Create()
                    key.ImportFromPem publicKey

                    Some(
                        key.VerifyData(
                            Encoding.UTF8.GetBytes(timestamp + methodName + path),
                            Convert.FromBase64String signature,
                            HashAlgorithmName.SHA256,
                            RSASignaturePadding.Pss
                        )
                    )
                with
                | :? FormatException
                | :? CryptographicException -> Some false
            | _ -> Some false

/// Kalshi's REST answers, below `/rest/`. Left out: series, candlesticks and combinations.
module internal Kalshi =
    let dollars (price: int64) = Millionths.padded 100L price
    let count (size: int64) = Millionths.padded 10_000L size

    /// ISO with as many decimals as there are: trailing zeros are trimmed.
    let iso (at: DateTimeOffset) =
        at.UtcDateTime.ToString("yyyy-MM-dd'T'HH:mm:ss.FFFFFF'Z'", CultureInfo.InvariantCulture)

    /// Several shapes of errors are about.
    let refusal (dice: Dice) status (code: string) (writer: Utf8JsonWriter) =
        match dice.Below 3 with
        | 0 ->
            writer.WriteStartObject()
            writer.WriteStartObject "error"
            writer.WriteString("code", code)
            writer.WriteString("message", code.Replace('_', ' '))
            writer.WriteEndObject()
            writer.WriteEndObject()
        | 1 ->
            writer.WriteStartObject()
            writer.WriteString("code", code)
            writer.WriteString("message", code.Replace('_', ' '))
            writer.WriteString("details", "")
            writer.WriteEndObject()
        | _ ->
            writer.WriteStartObject()
            writer.WriteString("error", code.Replace('_', ' '))
            writer.WriteEndObject()

        { Answer.json with Status = status }

    /// (YES bids, NO bids), each rising, the best last: as the exchange tells a book.
    let bids (market: Market) =
        let struct (yes, _) = market.Book.Sides 0
        let struct (no, _) = market.Book.Sides 1
        struct (yes, no)

    /// What the books of both tokens say, as a whole: the exchange itself tells no hash.
    let private delivered (market: Market) : LedgerBook[] =
        Array.init 2 (fun token ->
            let struct (bids, asks) = market.Book.Sides token

            {
                Token = market.Info.Tokens[token]
                Timestamp = 0L
                Hash = LedgerBook.digest (Array.rev bids) (Array.rev asks)
            })

    let private levels (writer: Utf8JsonWriter) (name: string) (side: struct (int64 * int64)[]) =
        writer.Array(
            name,
            side,
            fun struct (price, size) ->
                writer.WriteStartArray()
                writer.WriteStringValue(dollars price)
                writer.WriteStringValue(count size)
                writer.WriteEndArray()
        )

    /// The best levels of both sides; all when `depth` is 0.
    let private writeBook (writer: Utf8JsonWriter) (market: Market) depth =
        let best (side: struct (int64 * int64)[]) =
            if depth > 0 && side.Length > depth then
                Array.skip (side.Length - depth) side
            else
                side

        let struct (yes, no) = bids market
        writer.WriteStartObject "orderbook_fp"
        levels writer "yes_dollars" (best yes)
        levels writer "no_dollars" (best no)
        writer.WriteEndObject()

    let private statusOf (market: Market) =
        if market.Closed.IsSome then "finalized" else "active"

    let private writeMarket (writer: Utf8JsonWriter) (market: Market) =
        let info = market.Info
        let book = market.Book
        let step = book.Tick
        let text (name: string) (value: string) = writer.WriteString(name, value)
        let at (name: string) date = text name (iso date)
        let closes = info.Event.Ends

        /// Price and size of a best level; without one, 0 or 1 and nothing.
        let struct (bid, bidSize) =
            if book.Bid > 0 then
                struct (book.Price book.Bid, book.Size book.Bid)
            else
                struct (0L, 0L)

        let struct (ask, askSize) =
            if book.Ask < book.Steps then
                struct (book.Price book.Ask, book.Size book.Ask)
            else
                struct (Millionths.one, 0L)

        writer.WriteStartObject()
        text "ticker" info.Condition
        text "event_ticker" (Dialect.eventTicker info.Event)
        text "market_type" "binary"

        text
            "title"
            (if info.GroupTitle = "" then
                 info.Title
             else
                 info.Event.Title)
        // Often both are the name of one side.
        text "yes_sub_title" (if info.GroupTitle = "" then info.Title else info.GroupTitle)
        text "no_sub_title" (if info.GroupTitle = "" then info.Title else info.GroupTitle)
        at "created_time" info.Event.Created
        at "open_time" info.Event.Created
        at "close_time" closes
        at "expected_expiration_time" closes
        at "latest_expiration_time" (closes.AddDays 7.0)

        at
            "updated_time"
            (match market.Closed with
             | ValueSome closed -> Micros.toDate closed
             | ValueNone -> info.Event.Created)

        text "status" (statusOf market)

        text
            "result"
            (match market.Winner with
             | 0 -> "yes"
             | 1 -> "no"
             | _ -> "")

        match market.Closed with
        | ValueSome closed ->
            at "settlement_ts" (Micros.toDate closed)
            text "settlement_value_dollars" (if market.Winner = 0 then "1.0000" else "0.0000")
        | ValueNone -> ()

        text "yes_bid_dollars" (dollars bid)
        text "yes_bid_size_fp" (count bidSize)
        text "yes_ask_dollars" (dollars ask)
        text "yes_ask_size_fp" (count askSize)
        text "no_bid_dollars" (dollars (Millionths.one - ask))
        text "no_ask_dollars" (dollars (Millionths.one - bid))

        text
            "last_price_dollars"
            (match market.LastPrice 0, market.LastPrice 1 with
             | ValueSome price, _ -> dollars price
             | _, ValueSome price -> dollars (Millionths.one - price)
             | _ -> "0.0000")

        text "volume_fp" (count market.Contracts)
        text "volume_24h_fp" (count market.Contracts)
        text "open_interest_fp" "0.00"
        text "liquidity_dollars" "0.0000" // always
        text "notional_value_dollars" "1.0000"
        text "price_level_structure" (if step = 10_000L then "linear_cent" else "deci_cent")
        writer.WriteStartArray "price_ranges"
        writer.WriteStartObject()
        text "start" "0.0000"
        text "end" "1.0000"
        text "step" (dollars step)
        writer.WriteEndObject()
        writer.WriteEndArray()
        text "rules_primary" $"This market resolves to Yes if \"{info.Title}\" is so."
        text "rules_secondary" ""
        writer.WriteBoolean("can_close_early", true)
        writer.WriteEndObject()

    let private writeEvent (writer: Utf8JsonWriter) (event: EventInfo) (nested: Market[]) withMarkets =
        writer.WriteStartObject()
        writer.WriteString("event_ticker", Dialect.eventTicker event)
        writer.WriteString("series_ticker", Dialect.seriesTicker event)
        writer.WriteString("title", event.Title)
        writer.WriteString("sub_title", "")
        writer.WriteString("category", event.Tags[0].Label)
        writer.WriteBoolean("mutually_exclusive", event.NegRisk)
        writer.WriteString("collateral_return_type", (if event.NegRisk then "MECNET" else ""))

        if withMarkets then
            writer.Array("markets", nested, writeMarket writer)

        writer.WriteEndObject()

    /// The cursor of the row that comes next: opaque, with letters that an address has to escape.
    let private cursorOf (place: int) =
        Convert.ToBase64String(Encoding.ASCII.GetBytes $">{place}?")

    let private placeOf (query: Query) =
        match query.One "cursor" with
        | None
        | Some "" -> 0
        | Some text ->
            try
                let inside = Encoding.ASCII.GetString(Convert.FromBase64String text)

                if inside.StartsWith '>' && inside.EndsWith '?' then
                    Int32.Parse(inside.Trim('>', '?'), CultureInfo.InvariantCulture)
                else
                    raise (Refused(400, "invalid_cursor"))
            with
            | :? FormatException
            | :? OverflowException -> raise (Refused(400, "invalid_cursor"))

    let private limitOf (query: Query) least most =
        match query.Whole("limit", 400) with
        | None -> least
        | Some count when count >= 1L && count <= int64 most -> int count
        | Some _ -> raise (Refused(400, "invalid_limit"))

    /// A page of all these, and the cursor of what is left: empty at the end.
    let private page
        (writer: Utf8JsonWriter)
        (name: string)
        query
        least
        most
        (rows: 'a[])
        (write: 'a -> unit)
        =
        let from = placeOf query
        let until = min rows.Length (from + limitOf query least most)
        writer.WriteStartObject()
        writer.Array(name, Seq.init (max 0 (until - from)) (fun i -> rows[from + i]), write)
        writer.WriteString("cursor", (if until < rows.Length then cursorOf until else ""))
        writer.WriteEndObject()
        Answer.json

    /// The words of queries are not those of objects.
    let private byStatus (query: Query) : Market -> bool =
        match query.One "status" with
        | None -> fun _ -> true
        | Some "open" -> fun market -> market.Closed.IsNone
        | Some("closed" | "settled") -> fun market -> market.Closed.IsSome
        | Some("unopened" | "paused") -> fun _ -> false
        | Some _ -> raise (Refused(400, "invalid_status"))

    let private ofSeries (query: Query) : EventInfo -> bool =
        match query.One "series_ticker" with
        | None -> fun _ -> true
        | Some series -> fun event -> Dialect.seriesTicker event = series

    let private events (writer: Utf8JsonWriter) (world: World) (query: Query) =
        let isWanted = byStatus query
        let nested = query.Flag("with_nested_markets", 400) = Some true

        let found = [|
            for event in world.Events |> Array.filter (ofSeries query) do
                let markets = world.MarketsOf event |> Array.filter isWanted

                if markets.Length > 0 then
                    struct (event, markets)
        |]

        page writer "events" query 200 200 found (fun struct (event, markets) ->
            writeEvent writer event markets nested)

    let private markets (writer: Utf8JsonWriter) (world: World) (query: Query) =
        let isWanted = byStatus query
        let isOfSeries = ofSeries query
        let tickers = query.List "tickers" |> Set.ofList

        let found =
            world.Markets
            |> Array.filter (fun market ->
                let info = market.Info

                isWanted market
                && isOfSeries info.Event
                && (tickers.IsEmpty || tickers.Contains info.Condition)
                && (match query.One "event_ticker" with
                    | Some event -> Dialect.eventTicker info.Event = event
                    | None -> true))

        page writer "markets" query 100 1000 found (writeMarket writer)

    let private ticker (world: World) name =
        match world.MarketByCondition name with
        | Some market -> market
        | None -> raise (Refused(404, "not_found"))

    let private book (writer: Utf8JsonWriter) (world: World) (query: Query) name =
        let market = ticker world name

        let depth =
            match query.Whole("depth", 400) with
            | Some depth when depth <= 100L -> int depth
            | Some _ -> raise (Refused(400, "invalid_depth"))
            | None -> 0

        writer.WriteStartObject()
        writeBook writer market depth
        writer.WriteEndObject()

        {
            Answer.json with
                Asked = market.Info.Tokens
                Books = (if depth = 0 then delivered market else [||])
        }

    let private books (writer: Utf8JsonWriter) (world: World) (query: Query) =
        let asked = query.All "tickers"

        if asked.IsEmpty || asked.Length > 100 then
            raise (Refused(400, "invalid_tickers"))

        let found = asked |> List.map (ticker world) |> Array.ofList
        writer.WriteStartObject()

        writer.Array(
            "orderbooks",
            found,
            fun market ->
                writer.WriteStartObject()
                writer.WriteString("ticker", market.Info.Condition)
                writeBook writer market 0
                writer.WriteEndObject()
        )

        writer.WriteEndObject()

        {
            Answer.json with
                Asked = found |> Array.collect _.Info.Tokens
                Books = found |> Array.collect delivered
        }

    /// The members of a trade that REST and the channel share.
    let writeFill (writer: Utf8JsonWriter) seed (market: Market) (fill: Fill) =
        let struct (price, isYes) = Dialect.ofYes fill
        writer.WriteString("trade_id", Dialect.tradeId seed market.Info fill)
        writer.WriteString("count_fp", count fill.Size)
        writer.WriteString("yes_price_dollars", dollars price)
        writer.WriteString("no_price_dollars", dollars (Millionths.one - price))
        writer.WriteString("taker_side", (if isYes then "yes" else "no"))
        writer.WriteString("taker_outcome_side", (if isYes then "yes" else "no"))
        writer.WriteString("taker_book_side", (if isYes then "bid" else "ask"))

    /// Newest first. The archive's are another list than those since.
    let private trades (writer: Utf8JsonWriter) (world: World) now (query: Query) isArchive =
        let market =
            match query.One "ticker" with
            | Some name -> ticker world name
            | None -> raise (Refused(400, "a ticker is wanted here"))

        let since = query.Whole("min_ts", 400) |> Option.defaultValue Int64.MinValue
        let until = query.Whole("max_ts", 400) |> Option.defaultValue Int64.MaxValue
        let archived = market.Archive.Count

        let first, last =
            if isArchive then
                0, archived
            else
                archived, market.FillCount

        let from =
            max
                first
                (if since = Int64.MinValue then
                     0
                 else
                     market.Until(since - 1L))

        let until =
            if until = Int64.MaxValue then
                last
            else
                min last (market.Until until)

        // A cursor is the number of the fill before which the next page ends.
        let until =
            match placeOf query with
            | 0 -> until
            | place -> min until place

        let limit = limitOf query 100 1000
        let mutable at, rows = until - 1, 0
        writer.WriteStartObject()
        writer.WriteStartArray "trades"

        while at >= from && rows < limit do
            let fill = market.Fill at

            if world.Shows(&fill, now) then
                writer.WriteStartObject()
                writer.WriteString("ticker", market.Info.Condition)
                writer.WriteString("created_time", iso (Micros.toDate fill.At))
                writeFill writer world.Seed market fill
                writer.WriteEndObject()
                rows <- rows + 1

            at <- at - 1

        writer.WriteEndArray()
        writer.WriteString("cursor", (if at >= from then cursorOf (at + 1) else ""))
        writer.WriteEndObject()
        { Answer.json with Rows = rows }

    let private cutoff (writer: Utf8JsonWriter) (world: World) =
        let at = iso (Micros.toDate world.Born)
        writer.WriteStartObject()

        for name in [ "market_settled_ts"; "trades_created_ts"; "orders_updated_ts" ] do
            writer.WriteString(name, at)

        writer.WriteEndObject()
        Answer.json

    let answer (writer: Utf8JsonWriter) (world: World) now (ask: Ask) path =
        match path with
        | [ "exchange"; "status" ] ->
            writer.WriteStartObject()
            writer.WriteBoolean("exchange_active", true)
            writer.WriteBoolean("trading_active", true)
            writer.WriteEndObject()
            Answer.json
        | [ "account"; "limits" ] when ask.IsOwner ->
            writer.WriteStartObject()
            writer.WriteString("usage_tier", "basic")

            for name, rate in [ "read", 200; "write", 100 ] do
                writer.WriteStartObject name
                writer.WriteNumber("refill_rate", rate)
                writer.WriteNumber("bucket_capacity", rate)
                writer.WriteEndObject()

            writer.WriteStartArray "grants"
            writer.WriteEndArray()
            writer.WriteEndObject()
            Answer.json
        | [ "account"; "limits" ] -> raise (Refused(401, "unauthorized"))
        | [ "events" ] -> events writer world ask.Query
        | [ "markets" ] -> markets writer world ask.Query
        | [ "markets"; "orderbooks" ] when ask.IsOwner -> books writer world ask.Query
        | [ "markets"; "orderbooks" ] -> raise (Refused(401, "unauthorized"))
        | [ "markets"; "trades" ] -> trades writer world now ask.Query false
        | [ "markets"; name ] ->
            writer.WriteStartObject()
            writer.WritePropertyName "market"
            writeMarket writer (ticker world name)
            writer.WriteEndObject()
            Answer.json
        | [ "markets"; name; "orderbook" ] -> book writer world ask.Query name
        | [ "historical"; "cutoff" ] -> cutoff writer world
        // No market is so old.
        | [ "historical"; "markets" ] -> page writer "markets" ask.Query 100 1000 [||] (writeMarket writer)
        | [ "historical"; "trades" ] -> trades writer world now ask.Query true
        | _ -> raise (Refused(404, "not_found"))
