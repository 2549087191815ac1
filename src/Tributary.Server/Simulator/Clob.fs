namespace Tributary.Server.Simulator

open System
open System.Text.Json

/// The books and what follows from them: `/clob/...`.
module internal Clob =
    let private noBook = "No orderbook exists for the requested token id"
    let private mostTokens = 500

    /// The market of a token that still has a book.
    let private trading (world: World) token =
        world.MarketByToken token
        |> Option.filter (fun struct (market, _) -> market.Closed.IsNone)

    let private asked (query: Query) =
        match query.One "token_id" with
        | Some token when token <> "" -> token
        | _ -> raise (Refused(400, "Invalid token id"))

    /// What one token's book says, or 404.
    let private single writer (world: World) (query: Query) write =
        match trading world (asked query) with
        | Some struct (market, token) ->
            write market token
            Answer.json
        | None -> Answer.error 404 noBook writer

    /// An object of one member.
    let private field (writer: Utf8JsonWriter) write =
        writer.WriteStartObject()
        write ()
        writer.WriteEndObject()

    let private text (writer: Utf8JsonWriter) (name: string) (millionths: int64) =
        field writer (fun () -> writer.WriteString(name, Millionths.text millionths))

    let private delivered (page: RenderedBook) : LedgerBook = {
        Token = page.Token
        Timestamp = page.Timestamp
        Hash = page.Hash
    }

    let private tokensOf (body: ReadOnlyMemory<byte>) =
        try
            use document = JsonDocument.Parse body

            [|
                for item in document.RootElement.EnumerateArray() ->
                    match item.GetProperty("token_id").GetString() with
                    | null -> raise (Refused(400, "Invalid payload"))
                    | token -> token
            |]
        with
        | :? JsonException
        | :? InvalidOperationException
        | :? Collections.Generic.KeyNotFoundException -> raise (Refused(400, "Invalid payload"))

    /// The same items in another order, whenever there is another: a client has to join on the token.
    let private shuffled (random: Dice) (items: 'a[]) =
        if items.Length < 2 then
            items
        else
            let by = random.Between(1, items.Length - 1)
            Array.append (Array.skip by items) (Array.take by items)

    let private books (writer: Utf8JsonWriter) (world: World) (ask: Ask) =
        let asked = tokensOf ask.Body

        if asked.Length > mostTokens then
            raise (Refused(400, "payload exceeds limit"))

        let pages =
            asked
            |> Array.distinct
            |> Array.choose (trading world)
            |> Array.map (fun struct (market, token) -> market.Page token)
            |> shuffled ask.Dice

        writer.WriteStartArray()

        for page in pages do
            writer.WriteRawValue(ReadOnlySpan page.Bytes, true)

        writer.WriteEndArray()

        {
            Answer.json with
                Asked = asked
                Books = Array.map delivered pages
        }

    let private book (writer: Utf8JsonWriter) (world: World) query =
        let token = asked query

        match trading world token with
        | Some struct (market, index) ->
            let page = market.Page index
            writer.WriteRawValue(ReadOnlySpan page.Bytes, true)

            {
                Answer.json with
                    Asked = [| token |]
                    Books = [| delivered page |]
            }
        | None -> {
            Answer.error 404 noBook writer with
                Asked = [| token |]
          }

    let private writeMarket (writer: Utf8JsonWriter) (market: Market) =
        let info = market.Info
        let isOpen = market.Closed.IsNone
        writer.WriteStartObject()
        writer.WriteBoolean("enable_order_book", true)
        writer.WriteBoolean("active", true)
        writer.WriteBoolean("closed", not isOpen)
        writer.WriteBoolean("archived", false)
        writer.WriteBoolean("accepting_orders", isOpen)
        writer.WriteNumber("minimum_order_size", info.MinimumSize)
        writer.WriteNumber("minimum_tick_size", Millionths.toDecimal market.Tick)
        writer.WriteString("condition_id", info.Condition)
        writer.WriteString("question_id", info.Question)
        writer.WriteString("question", info.Title)
        writer.WriteString("market_slug", info.Slug)
        writer.WriteString("end_date_iso", info.Event.Ends.UtcDateTime.ToString "yyyy-MM-dd'T'00:00:00'Z'")
        writer.WriteNull "game_start_time"
        writer.WriteNumber("seconds_delay", 0)
        writer.WriteNumber("maker_base_fee", 0)
        writer.WriteNumber("taker_base_fee", 0)
        writer.WriteBoolean("neg_risk", info.Event.NegRisk)
        writer.WriteStartArray "tokens"

        for token in 0..1 do
            let struct (bid, ask) = market.Book.Best token

            let price =
                if isOpen then (bid + ask) / 2L
                elif market.Winner = token then Millionths.one
                else 0L

            writer.WriteStartObject()
            writer.WriteString("token_id", info.Tokens[token])
            writer.WriteString("outcome", info.Outcomes[token])
            writer.WriteNumber("price", Millionths.toDecimal price)
            writer.WriteBoolean("winner", (market.Winner = token))
            writer.WriteEndObject()

        writer.WriteEndArray()
        writer.WriteEndObject()

    /// `/prices-history`: at each step of `fidelity` minutes the price of the last fill before. Ranges of more than fifteen days are
    /// refused, and tokens of closed markets answer in steps of half a day alone, or not at all.
    let private pricesHistory (writer: Utf8JsonWriter) (world: World) now (query: Query) =
        let longest = 15L * 86_400L
        let today = Micros.toSeconds now

        let intervals =
            dict [
                "1m", 30L * 86_400L
                "1w", 7L * 86_400L
                "1d", 86_400L
                "6h", 21_600L
                "1h", 3_600L
                "max", longest
            ]

        let since, until =
            match query.Whole("startTs", 400), query.Whole("endTs", 400), query.One "interval" with
            | Some since, Some until, None -> since, until
            | None, None, Some name when intervals.ContainsKey name -> today - intervals[name], today
            | _ -> raise (Refused(400, "'startTs' and 'endTs', or 'interval', are required"))

        let fidelity = query.Whole("fidelity", 400) |> Option.defaultValue 1L

        if fidelity < 1L then
            raise (Refused(400, "invalid fidelity"))

        if query.Has "startTs" && until - since > longest then
            raise (Refused(400, "the interval is too long, the maximum is 15 days"))

        match world.MarketByToken(query.One "market" |> Option.defaultValue "") with
        | None -> raise (Refused(400, "invalid market"))
        | Some struct (market, token) ->
            let step = 60L * fidelity
            let isTold = market.Closed.IsNone || fidelity >= 720L
            let mutable at = (since + step - 1L) / step * step
            writer.WriteStartObject()
            writer.WriteStartArray "history"

            while isTold && at <= min until today do
                let before = market.Until at

                if before > 0 then
                    let fill = market.Fill(before - 1)

                    let price =
                        if fill.Token = token then
                            fill.Price
                        else
                            Millionths.one - fill.Price

                    writer.WriteStartObject()
                    writer.WriteNumber("t", at)
                    writer.WriteNumber("p", Millionths.toDecimal price)
                    writer.WriteEndObject()

                at <- at + step

            writer.WriteEndArray()
            writer.WriteEndObject()
            Answer.json

    /// Answers a request whose path went on with these parts after the host's prefix.
    let answer (writer: Utf8JsonWriter) (world: World) (now: int64) (ask: Ask) (path: string list) =
        let single = single writer world ask.Query

        match ask.Method, path with
        | "GET", [ "ok" ] ->
            writer.WriteStringValue "OK"
            Answer.json
        | "GET", [ "time" ] ->
            writer.WriteNumberValue(Micros.toSeconds now)
            Answer.json
        | "GET", [ "book" ] -> book writer world ask.Query
        | "POST", [ "books" ] -> books writer world ask
        | "GET", [ "prices-history" ] -> pricesHistory writer world now ask.Query
        | "GET", [ "midpoint" ] ->
            single (fun market token ->
                let struct (bid, ask) = market.Book.Best token
                text writer "mid" ((bid + ask) / 2L))
        | "GET", [ "spread" ] ->
            single (fun market token ->
                let struct (bid, ask) = market.Book.Best token
                text writer "spread" (ask - bid))
        | "GET", [ "price" ] ->
            let side = ask.Query.One "side" |> Option.map _.ToUpperInvariant()

            if side <> Some "BUY" && side <> Some "SELL" then
                raise (Refused(400, "Invalid side"))

            single (fun market token ->
                let struct (bid, ask) = market.Book.Best token
                text writer "price" (if side = Some "BUY" then bid else ask))
        | "GET", [ "last-trade-price" ] ->
            single (fun market token ->
                field writer (fun () ->
                    match market.LastPrice token with
                    | ValueSome price ->
                        writer.WriteString("price", Millionths.text price)
                        writer.WriteString("side", (if market.LastBuys token then "BUY" else "SELL"))
                    | ValueNone ->
                        writer.WriteString("price", "0.5")
                        writer.WriteString("side", "")))
        | "GET", [ "tick-size" ] ->
            single (fun market _ ->
                field writer (fun () ->
                    writer.WriteNumber("minimum_tick_size", Millionths.toDecimal market.Tick)))
        | "GET", [ "neg-risk" ] ->
            single (fun market _ ->
                field writer (fun () -> writer.WriteBoolean("neg_risk", market.Info.Event.NegRisk)))
        | "GET", [ "markets"; condition ] ->
            match world.MarketByCondition condition with
            | Some market ->
                writeMarket writer market
                Answer.json
            | None -> Answer.error 404 "market not found" writer
        | _, ([ "book" ] | [ "books" ]) -> Answer.error 405 "Method Not Allowed" writer
        | _ -> Answer.error 404 "not found" writer
