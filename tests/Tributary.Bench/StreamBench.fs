/// Frames of a market channel to verified books and rows, against merely skipping over the same bytes, and against the ordinary way:
/// objects, decimals, sorted dictionaries and strings.
module Tributary.Bench.StreamBench

open System
open System.Collections.Generic
open System.Globalization
open System.Security.Cryptography
open System.Text
open System.Text.Json
open System.Text.Json.Serialization
open Tributary
open Tributary.Stores.QuestDb
open Tributary.Bench.Measure

let private ok result =
    match result with
    | Ok value -> value
    | Error(message: string) -> failwith message

let internal collector =
    Exchanges.Polymarket.collector {
        BooksPerRequest = 100
        MarketsPerRequest = 20
        TradesSource = "auto"
        Secrets = Map.empty
    }

let internal part = collector.Stream.Value
// It remembers nothing, so one does for all.
let internal talk = part.Session()

let internal describe (condition: string, tokens: string[]) : Market = {
    Exchange = collector.Exchange
    Market = ok (MarketId.Parse condition)
    Event = ""
    Slug = condition
    Question = ""
    Outcomes =
        tokens
        |> Array.map (fun token -> {
            Name = ""
            Token = ValueSome(ok (TokenId.Parse token))
        })
    Status = MarketStatus.Open
    AcceptsOrders = true
    TickSize = ValueSome(Price.ofMillionths 1_000L)
    MinimumSize = Size.tryOfMillionths 5_000_000L
    NegRisk = false
    Start = ValueNone
    End = ValueNone
    ClosedAt = ValueNone
    Winner = ""
    Volume = ValueNone
    Liquidity = ValueNone
    OpenInterest = ValueNone
    Tags = [||]
    Updated = ValueNone
    Received = Instant.ofMicros 0L
    Raw = ""
}

let internal received = Instant.ofMillis 1_790_000_000_000L

/// Everything from a frame to the row for a store.
[<Sealed>]
type private Pipeline(session: StreamPayloads.Session) =
    let names = Names()
    let depth = Depth(collector.Exchange, part, DepthRules.usual, names)
    let frame = Frame names
    let out = Batch names
    // Larger than what is flushed at once ever is.
    let payload = Payload 1_048_576

    let encoder =
        Encoder {
            Protocol = 2
            Decimals = false
            LevelsAsText = false
            Collector = "bench"
        }

    let tokens =
        session.Markets
        |> Array.collect snd
        |> Array.map (fun token -> ok (TokenId.Parse token))

    let flush () =
        payload.Clear()
        encoder.AppendDeltas(out, 0, out.Deltas.Count, payload, IlpBench.refuse)
        out.Clear()

    do
        out.Exchange <- string collector.Exchange

        for market in session.Markets do
            let market = describe market
            depth.Follow(market, DepthMode.Full)
            depth.Subscribed(0, market.Tokens, received)

    member _.Hear(all: byte[][]) =
        for bytes in all do
            frame.Clear()
            talk.Decode (ReadOnlyMemory bytes) received frame
            depth.Hear(0, ReadOnlySpan bytes, frame, received, out)

            if out.Deltas.Count >= 500 then
                flush ()

        flush ()

    /// Computes one hash in so many of a token's changes.
    member _.Sample(every: int) = depth.HashEvery <- every

    member _.Counts = depth.Counts

    /// A sum over all levels of all books.
    member _.Checksum =
        let mutable sum = 0UL

        for token in tokens do
            match depth.TryBook token with
            | ValueSome(struct (book, _, _, _)) ->
                for side in [ Side.Buy; Side.Sell ] do
                    for level in (book.Levels side).ToArray() do
                        sum <- sum + uint64 level.Price.Millionths * 31UL + uint64 level.Size.Millionths
            | ValueNone -> ()

        sum

// ---- the ordinary way

[<AllowNullLiteral>]
type Entry() =
    [<JsonPropertyName "asset_id">]
    member val Asset = "" with get, set

    [<JsonPropertyName "price">]
    member val Price = "" with get, set

    [<JsonPropertyName "size">]
    member val Size = "" with get, set

    [<JsonPropertyName "side">]
    member val Side = "" with get, set

    [<JsonPropertyName "hash">]
    member val Hash = "" with get, set

    [<JsonPropertyName "best_bid">]
    member val BestBid = "" with get, set

    [<JsonPropertyName "best_ask">]
    member val BestAsk = "" with get, set

type Message() =
    [<JsonPropertyName "event_type">]
    member val Event = "" with get, set

    [<JsonPropertyName "market">]
    member val Market = "" with get, set

    [<JsonPropertyName "asset_id">]
    member val Asset = "" with get, set

    [<JsonPropertyName "timestamp">]
    member val Timestamp = "" with get, set

    [<JsonPropertyName "price_changes">]
    member val Changes: Entry[] = [||] with get, set

    [<JsonPropertyName "bids">]
    member val Bids: Entry[] = [||] with get, set

    [<JsonPropertyName "asks">]
    member val Asks: Entry[] = [||] with get, set

[<Sealed>]
type private Ordinary() =
    let books =
        Dictionary<string, struct (SortedDictionary<decimal, decimal> * SortedDictionary<decimal, decimal>)>()

    let lines = StringBuilder()

    let number (text: string) =
        Decimal.Parse(text, CultureInfo.InvariantCulture)

    let bookOf token =
        match books.TryGetValue token with
        | true, book -> book
        | _ ->
            let falling = Comparer<decimal>.Create(fun a b -> Decimal.Compare(b, a))
            let book = struct (SortedDictionary<decimal, decimal>(falling), SortedDictionary())
            books[token] <- book
            book

    let load (side: SortedDictionary<decimal, decimal>) (levels: Entry[]) =
        side.Clear()

        for level in levels do
            side[number level.Price] <- number level.Size

    let best (side: SortedDictionary<decimal, decimal>) empty =
        if side.Count = 0 then empty else Seq.head side.Keys

    let one (message: Message) =
        match message.Event with
        | "book" ->
            let struct (bids, asks) = bookOf message.Asset
            load bids message.Bids
            load asks message.Asks
        | "price_change" ->
            for entry in message.Changes do
                let struct (bids, asks) = bookOf entry.Asset
                let side = if entry.Side = "BUY" then bids else asks
                let price, size = number entry.Price, number entry.Size

                if size = 0m then
                    side.Remove price |> ignore
                else
                    side[price] <- size

                if best bids 0m <> number entry.BestBid || best asks 1m <> number entry.BestAsk then
                    failwith "the best prices disagree"

                lines
                    .Append("orderbook_deltas,exchange=polymarket,market=")
                    .Append(message.Market)
                    .Append(",token=")
                    .Append(entry.Asset)
                    .Append(",side=")
                    .Append(entry.Side)
                    .Append(" price=")
                    .Append(price.ToString CultureInfo.InvariantCulture)
                    .Append(",size=")
                    .Append(size.ToString CultureInfo.InvariantCulture)
                    .Append(",hash=\"")
                    .Append(entry.Hash)
                    .Append("\" ")
                    .Append(message.Timestamp)
                    .Append("000t\n")
                |> ignore
        | _ -> ()

    let read (bytes: byte[]) : 'T =
        match JsonSerializer.Deserialize<'T>(ReadOnlySpan bytes) with
        | null -> failwith "nothing"
        | value -> value

    member _.Hear(bytes: byte[]) =
        if bytes[0] = '['B then
            for message in (read bytes: Message[]) do
                one message
        else
            one (read bytes: Message)

        if lines.Length > 100_000 then
            lines.Clear() |> ignore

    member _.Checksum =
        let mutable sum = 0UL

        for struct (bids, asks) in books.Values do
            for side in [ bids; asks ] do
                for KeyValue(price, size) in side do
                    sum <- sum + uint64 (price * 1_000_000m) * 31UL + uint64 (size * 1_000_000m)

        sum

// ---- what is compared

let private parts (session: StreamPayloads.Session) =
    let early = session.Frames.Length * 7 / 8
    Array.take early session.Frames, Array.skip early session.Frames

/// The last eighth of a session, once the rest has been heard: what is still allocated is for books that grow beyond what they ever held.
let private ours session every () : Run =
    let before, measured = parts session
    let pipeline = Pipeline session

    pipeline.Hear session.Dump
    // With all hashes, so that what a token needs for them is there.
    pipeline.Hear before
    pipeline.Sample every

    let run =
        measure measured.Length (fun () ->
            pipeline.Hear measured
            0UL)

    let counts = pipeline.Counts

    if
        counts.Mismatched > 0L
        || counts.GapsOpened > 0L
        || every = 1 && counts.Unverifiable > 0L
    then
        failwith "a book is in doubt"

    {
        run with
            Checksum = pipeline.Checksum
    }

let private ordinary session () : Run =
    let before, measured = parts session
    let books = Ordinary()

    for frame in session.Dump do
        books.Hear frame

    for frame in before do
        books.Hear frame

    let run =
        measure measured.Length (fun () ->
            for frame in measured do
                books.Hear frame

            0UL)

    { run with Checksum = books.Checksum }

let private skipping session (checksum: uint64) () : Run =
    let _, measured = parts session

    measure measured.Length (fun () ->
        let mutable tokens = 0

        for frame in measured do
            let mutable reader = Utf8JsonReader(ReadOnlySpan frame)

            while reader.Read() do
                tokens <- tokens + 1

        if tokens = 0 then 0UL else checksum)

/// SHA-1 over bytes as long as the books' texts: two for each message of changes.
let private digesting session (checksum: uint64) () : Run =
    let _, measured = parts session
    let text = Array.create 3_600 'x'B
    let digest = Array.zeroCreate 20

    measure measured.Length (fun () ->
        for _ in measured do
            SHA1.HashData(ReadOnlySpan text, Span digest) |> ignore
            SHA1.HashData(ReadOnlySpan text, Span digest) |> ignore

        checksum)

let run rounds : Comparison list =
    let session = StreamPayloads.make 1 1_000 240_000 false
    let permuted = StreamPayloads.make 1 1_000 240_000 true
    let checksum = (ours session 1_000_000 ()).Checksum
    warmUp 2.0 (ours session 1_000_000)
    warmUp 1.0 (ours permuted 1_000_000)
    warmUp 1.0 (ordinary session)

    [
        {
            compare
                "a message of the market channel to books and rows, and Utf8JsonReader skipping over it"
                _.Busy
                0.5
                rounds
                (ours session 1_000_000)
                (skipping session checksum) with
                MostAllocated = 0.5
        }
        compare
            "the same, and the ordinary way (objects, decimal, SortedDictionary, StringBuilder)"
            _.Busy
            8.0
            rounds
            (ours session 1_000_000)
            (ordinary session)
        compare
            "members in another order, and in the usual one"
            _.Busy
            0.3
            rounds
            (ours permuted 1_000_000)
            (ours session 1_000_000)
        compare
            "with the hash of the whole book after each change, and SHA-1 alone over ready-made bytes"
            _.Busy
            0.0
            rounds
            (ours session 1)
            (digesting session checksum)
    ]
