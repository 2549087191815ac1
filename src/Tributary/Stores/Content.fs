/// What a row comes down to in every store: what makes a version of a market and a rejection, and how lists and flags are
/// written as text.
[<RequireQualifiedAccess>]
module internal Tributary.Stores.Content

open System
open System.Buffers.Binary
open System.IO
open System.Security.Cryptography
open System.Text
open System.Text.Encodings.Web
open System.Text.Json
open System.Text.Json.Nodes
open Tributary

/// The first 16 bytes of SHA-256 over texts and numbers in a fixed layout: texts as their length in UTF-8 (int32) and their
/// bytes, numbers as int64, all big-endian.
[<Sealed>]
type private Digest() =
    let content = new MemoryStream()

    member _.Number(value: int64) =
        let bytes = Array.zeroCreate 8
        BinaryPrimitives.WriteInt64BigEndian(Span bytes, value)
        content.Write(bytes, 0, 8)

    member _.Bytes(bytes: byte[]) =
        let length = Array.zeroCreate 4
        BinaryPrimitives.WriteInt32BigEndian(Span length, bytes.Length)
        content.Write(length, 0, 4)
        content.Write(bytes, 0, bytes.Length)

    member this.Text(text: string) = this.Bytes(Encoding.UTF8.GetBytes text)

    /// A number that may be missing: whether it is there (0 or 1), and the number or 0.
    member this.Option(value: int64 voption) =
        this.Number(if value.IsSome then 1L else 0L)
        this.Number(ValueOption.defaultValue 0L value)

    member _.Result = SHA256.HashData(content.ToArray()).AsSpan(0, 16).ToArray()

let private micros (instant: Instant voption) = instant |> ValueOption.map _.Micros
let private ofPrice (price: Price voption) = price |> ValueOption.map _.Millionths
let private ofSize (size: Size voption) = size |> ValueOption.map _.Millionths

/// What makes a version of a market's description: 16 bytes over everything that is recorded but volumes, liquidity and open
/// interest, the exchange's update time, ours, and the raw JSON. Vectors in the tests hold the layout.
let versionOf (market: Market) : byte[] =
    let digest = Digest()
    digest.Number 1L // the layout's own version
    digest.Text(string market.Exchange)
    digest.Text(string market.Market)
    digest.Text market.Event
    digest.Text market.Slug
    digest.Text market.Question
    digest.Number market.Outcomes.Length

    for outcome in market.Outcomes do
        digest.Text outcome.Name
        digest.Text(outcome.Token |> ValueOption.map string |> ValueOption.defaultValue "")

    digest.Text(string market.Status)
    digest.Number(if market.AcceptsOrders then 1L else 0L)
    digest.Option(ofPrice market.TickSize)
    digest.Option(ofSize market.MinimumSize)
    digest.Number(if market.NegRisk then 1L else 0L)
    digest.Option(micros market.Start)
    digest.Option(micros market.End)
    digest.Option(micros market.ClosedAt)
    digest.Text market.Winner
    digest.Number market.Tags.Length

    for tag in market.Tags do
        digest.Text tag

    digest.Result

/// What makes a rejection: not where or when it was met, for the same bad row comes with every poll.
let contentOf (rejection: Rejection) =
    let digest = Digest()
    digest.Text rejection.Exchange
    digest.Text rejection.Reason
    digest.Bytes rejection.Bytes
    digest.Result

/// What makes a book.
let bookOf (batch: Batch) (row: inref<BookRow>) : TradeId =
    let digest = Digest()
    digest.Text batch.Exchange
    digest.Bytes(batch.Names.Utf8 row.Market)
    digest.Bytes(batch.Names.Utf8 row.Token)
    digest.Number row.At.Micros
    digest.Bytes((batch.Utf8 row.Hash).ToArray())
    let id = ReadOnlySpan digest.Result

    {
        High = BinaryPrimitives.ReadUInt64BigEndian id
        Low = BinaryPrimitives.ReadUInt64BigEndian(id.Slice 8)
    }

/// What makes a token's rows: 16 bytes over the exchange, the market and the token.
let tokenOf (batch: Batch) (market: Name) (token: Name) : TradeId =
    let digest = Digest()
    digest.Text batch.Exchange
    digest.Bytes(batch.Names.Utf8 market)
    digest.Bytes(batch.Names.Utf8 token)
    let id = ReadOnlySpan digest.Result

    {
        High = BinaryPrimitives.ReadUInt64BigEndian id
        Low = BinaryPrimitives.ReadUInt64BigEndian(id.Slice 8)
    }

/// The finish of SplitMix64: every bit of the answer depends on every bit of the question.
let private mixed (z: uint64) =
    let z = (z ^^^ (z >>> 30)) * 0xBF58476D1CE4E5B9UL
    let z = (z ^^^ (z >>> 27)) * 0x94D049BB133111EBUL
    z ^^^ (z >>> 31)

/// What makes a delta, where its token is known. Hot: no digest, but 128 bits all the same.
let deltaOf (token: TradeId) (row: inref<DeltaRow>) : TradeId =
    let at, price = uint64 row.At.Micros, uint64 row.Price.Millionths
    let place = (uint64 row.Ordinal <<< 1) ||| uint64 row.Side

    {
        High = mixed (mixed (mixed (token.High ^^^ at) + price) + place)
        Low = mixed (mixed (mixed (token.Low + place) ^^^ price) ^^^ (at * 0x9E3779B97F4A7C15UL))
    }

/// What makes a price, where its token is known: as for a delta.
let priceOf (token: TradeId) (row: inref<PriceRow>) : TradeId =
    let at, kind = uint64 row.At.Micros, uint64 row.Kind

    {
        High = mixed (mixed (token.High ^^^ at) + kind)
        Low = mixed (mixed (token.Low + kind) ^^^ (at * 0x9E3779B97F4A7C15UL))
    }

/// Readable JSON: UTF-8 as it is.
let private json =
    JsonSerializerOptions(Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping)

let tagsJson (tags: string[]) = JsonSerializer.Serialize(tags, json)

let outcomesJson (outcomes: Outcome[]) =
    let list = JsonArray()

    for outcome in outcomes do
        let token =
            match outcome.Token with
            | ValueSome token -> JsonValue.Create(string token) :> JsonNode | null
            | ValueNone -> null

        let entry = JsonObject()
        entry["name"] <- JsonValue.Create outcome.Name
        entry["token"] <- token
        list.Add(entry :> JsonNode)

    list.ToJsonString json

/// What `tagsJson` wrote.
let tagsOf (text: string) = [|
    use parsed = JsonDocument.Parse text
    for tag in parsed.RootElement.EnumerateArray() -> string (tag.GetString())
|]

/// What `outcomesJson` wrote.
let outcomesOf (tokenOf: string -> TokenId) (text: string) : Outcome[] = [|
    use parsed = JsonDocument.Parse text

    for entry in parsed.RootElement.EnumerateArray() do
        {
            Name = string (entry.GetProperty("name").GetString())
            Token =
                match entry.GetProperty("token").GetString() with
                | null -> ValueNone
                | token -> ValueSome(tokenOf token)
        }
|]

let private snakeCase (word: string) =
    String.Concat(
        word
        |> Seq.mapi (fun i c ->
            if i > 0 && Char.IsUpper c then
                $"_{Char.ToLowerInvariant c}"
            else
                string (Char.ToLowerInvariant c))
    )

/// Every flag and its word, in the order of their bits.
let flagWords: (Flags * string) list =
    Enum.GetValues<Flags>()
    |> Seq.filter (fun flag -> flag <> Flags.None)
    |> Seq.map (fun flag -> flag, snakeCase (string flag))
    |> List.ofSeq

/// The words of the flags that hold, separated by spaces.
let flagsText (flags: Flags) =
    flagWords
    |> List.filter (fun (flag, _) -> flags &&& flag <> Flags.None)
    |> List.map snd
    |> String.concat " "

/// The flags of some words; a word that is not known is left out.
let flagsOf (text: string) : Flags =
    let words = text.Split(' ', StringSplitOptions.RemoveEmptyEntries)

    flagWords
    |> List.filter (fun (_, word) -> Array.contains word words)
    |> List.fold (fun all (flag, _) -> all ||| flag) Flags.None
