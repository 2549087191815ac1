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
