namespace Tributary.Server.Simulator

open System.Text.Json

/// The ledger's rows for programs that are not in this process.
module internal LedgerJson =
    let trade (writer: Utf8JsonWriter) (trade: LedgerTrade) =
        writer.WriteStartObject()
        writer.WriteString("condition", trade.Condition)
        writer.WriteString("token", trade.Token)
        writer.WriteString("wallet", trade.Wallet)
        writer.WriteString("side", trade.Side)
        writer.WriteNumber("price", trade.Price)
        writer.WriteNumber("size", trade.Size)
        writer.WriteNumber("price_millionths", trade.PriceMillionths)
        writer.WriteNumber("size_millionths", trade.SizeMillionths)
        writer.WriteNumber("timestamp", trade.Timestamp)
        writer.WriteString("transaction", trade.Transaction)
        writer.WriteNumber("occurrence", trade.Occurrence)
        writer.WriteString("visible_at", trade.VisibleAt)
        writer.WriteEndObject()

    let request (writer: Utf8JsonWriter) (request: LedgerRequest) =
        writer.WriteStartObject()
        writer.WriteNumber("sequence", request.Sequence)
        writer.WriteString("received", request.Received)
        writer.WriteString("simulated", request.Simulated)
        writer.WriteString("method", request.Method)
        writer.WriteString("request", request.PathAndQuery)
        writer.WriteNumber("status", request.Status)

        match request.Fault with
        | Some fault -> writer.WriteString("fault", fault)
        | None -> writer.WriteNull "fault"

        writer.WriteNumber("milliseconds", request.Milliseconds)
        writer.Array("asked", request.Asked, writer.WriteStringValue)

        writer.Array(
            "books",
            request.Books,
            fun book ->
                writer.WriteStartObject()
                writer.WriteString("token", book.Token)
                writer.WriteNumber("timestamp", book.Timestamp)
                writer.WriteString("hash", book.Hash)
                writer.WriteEndObject()
        )

        writer.WriteNumber("rows", request.Rows)
        writer.WriteEndObject()

    let book (writer: Utf8JsonWriter) (book: TrueBook) =
        let side (name: string) (levels: struct (int64 * int64)[]) =
            writer.Array(
                name,
                levels,
                fun struct (price, size) ->
                    writer.WriteStartObject()
                    writer.WriteString("price", Millionths.text price)
                    writer.WriteString("size", Millionths.text size)
                    writer.WriteEndObject()
            )

        writer.WriteStartObject()
        writer.WriteString("token", book.Token)
        writer.WriteNumber("timestamp", book.Timestamp)
        writer.WriteString("hash", book.Hash)
        side "bids" book.Bids
        side "asks" book.Asks
        writer.WriteString("tick_size", book.TickSize)
        writer.WriteString("last_trade_price", book.LastTradePrice)
        writer.WriteEndObject()

    let injection (writer: Utf8JsonWriter) (injection: Injection) =
        writer.WriteStartObject()
        writer.WriteString("kind", injection.Kind)
        writer.WriteNumber("session", injection.Session)
        writer.Array("tokens", injection.Tokens, writer.WriteStringValue)
        writer.WriteNumber("at", injection.At)
        writer.WriteBoolean("misleads", injection.Misleads)
        writer.WriteString("detail", injection.Detail)
        writer.WriteEndObject()

    let connection (writer: Utf8JsonWriter) (connection: LedgerConnection) =
        writer.WriteStartObject()
        writer.WriteNumber("session", connection.Session)
        writer.WriteNumber("opened", connection.Opened)

        match connection.Ended with
        | ValueSome at -> writer.WriteNumber("ended", at)
        | ValueNone -> writer.WriteNull "ended"

        writer.WriteNumber("frames", connection.Frames)
        writer.Array("tokens", connection.Tokens, writer.WriteStringValue)
        writer.WriteEndObject()
