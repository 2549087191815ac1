namespace Tributary.Server.Simulator

open System
open System.Buffers
open System.Globalization
open System.Security.Cryptography
open System.Text
open System.Text.Json

/// A token's whole book as `/book` tells it. Levels are (price, size) in millionths, bids ascending and asks descending.
type BookPage = {
    Market: string
    Token: string
    /// Milliseconds since 1970 of the last change.
    Timestamp: int64
    Bids: struct (int64 * int64)[]
    Asks: struct (int64 * int64)[]
    MinimumOrderSize: string
    TickSize: string
    NegRisk: bool
    /// Verbatim, trailing zeros included; "" when never traded.
    LastTradePrice: string
}

/// A book as it goes over the wire: its bytes, with the hash inside.
[<Sealed>]
type RenderedBook(token: string, timestamp: int64, hash: string, bytes: byte[]) =
    member _.Token = token
    member _.Timestamp = timestamp
    member _.Hash = hash
    member _.Bytes = bytes

[<RequireQualifiedAccess>]
module BookJson =
    let private marker = "\"hash\":\""B

    let private side (writer: Utf8JsonWriter) (name: string) (levels: struct (int64 * int64)[]) =
        writer.WriteStartArray name

        for struct (price, size) in levels do
            writer.WriteStartObject()
            writer.WriteString("price", Millionths.text price)
            writer.WriteString("size", Millionths.text size)
            writer.WriteEndObject()

        writer.WriteEndArray()

    /// The ten fields in the order that is hashed, with an empty hash.
    let private unsigned page =
        let buffer =
            ArrayBufferWriter<byte>(256 + 48 * (page.Bids.Length + page.Asks.Length))

        use writer = new Utf8JsonWriter(buffer)
        writer.WriteStartObject()
        writer.WriteString("market", page.Market)
        writer.WriteString("asset_id", page.Token)
        writer.WriteString("timestamp", page.Timestamp.ToString CultureInfo.InvariantCulture)
        writer.WriteString("hash", "")
        side writer "bids" page.Bids
        side writer "asks" page.Asks
        writer.WriteString("min_order_size", page.MinimumOrderSize)
        writer.WriteString("tick_size", page.TickSize)
        writer.WriteBoolean("neg_risk", page.NegRisk)
        writer.WriteString("last_trade_price", page.LastTradePrice)
        writer.WriteEndObject()
        writer.Flush()
        buffer.WrittenSpan.ToArray()

    /// Lower-case hex SHA-1 over the compact JSON text whose own hash field is empty.
    let private digest (text: byte[]) =
        Convert.ToHexStringLower(SHA1.HashData text)

    /// The hash that the exchange prints in this book.
    let hash page = digest (unsigned page)

    /// The book's JSON text with its hash put in.
    let render page =
        let text = unsigned page
        let hash = digest text
        let at = text.AsSpan().IndexOf(marker.AsSpan()) + marker.Length

        let bytes =
            Array.concat [ Array.take at text; Encoding.ASCII.GetBytes hash; Array.skip at text ]

        RenderedBook(page.Token, page.Timestamp, hash, bytes)
