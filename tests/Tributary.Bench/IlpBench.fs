/// The encoder of QuestDB's line protocol against the bare copying of the same finished rows, which it cannot be faster than, and
/// against what one writes first: a MemoryStream, a name encoded at each use, a byte at a time.
module Tributary.Bench.IlpBench

open System
open System.Buffers.Binary
open System.Buffers.Text
open System.IO
open System.Text
open Tributary
open Tributary.Stores
open Tributary.Stores.QuestDb
open Tributary.Bench.Measure

let private markets = 200
let private perBatch = 500
let private started = 1_784_851_200_000_000L

let private known result =
    match result with
    | Ok value -> value
    | Error fault -> failwith $"%A{fault}"

let private hex (random: Random) bytes =
    let content = Array.zeroCreate<byte> bytes
    random.NextBytes content
    Convert.ToHexStringLower content

let private utf8 (text: string) =
    ReadOnlySpan(Encoding.UTF8.GetBytes text)

let private sizeOf (random: Random) =
    known (Size.parse $"{1 + random.Next 5000}.{random.Next 100}")

/// Batches of rows of all markets in the order of time, whatever the kind of row.
let generate count (add: Random -> Batch -> Name -> Name -> Name -> Instant -> unit) =
    let random = Random 20260724
    let names = Names()

    let market =
        Array.init markets (fun _ -> names.Intern(utf8 $"0x{hex random 32}": ReadOnlySpan<byte>))

    let token =
        Array.init (2 * markets) (fun _ ->
            names.Intern(utf8 (String.init 78 (fun _ -> string (random.Next 10)))))

    let outcome = [| names.Intern "Yes"; names.Intern "No" |]

    [|
        for start in 0..perBatch .. count - 1 do
            let batch = Batch names
            batch.Exchange <- "polymarket"
            batch.Received <- Instant.ofMicros (started + int64 start * 40_000L + 1_000_000L)

            for i in start .. min count (start + perBatch) - 1 do
                let chosen, yes = random.Next markets, random.Next 2
                let at = Instant.ofMicros (started + int64 i * 40_000L / 1_000_000L * 1_000_000L)
                add random batch market[chosen] token[2 * chosen + yes] outcome[yes] at

            batch
    |]

let addTrade (random: Random) (batch: Batch) market token outcome at =
    let row: TradeRow = {
        Market = market
        Token = token
        Outcome = outcome
        Side = if random.Next 2 = 0 then Side.Buy else Side.Sell
        Source = Source.Api
        Price = Price.ofMillionths (int64 (1 + random.Next 999) * 1_000L)
        Size = sizeOf random
        At = at
        Received = batch.Received
        Transaction = batch.Keep(utf8 $"0x{hex random 32}")
        Wallet = { Start = 0; Length = 0 }
        Flags = if random.Next 50 = 0 then Flags.OffGrid else Flags.None
        Occurrence = 0
        Collateral = ValueNone
        Id = {
            High = uint64 (random.NextInt64())
            Low = uint64 (random.NextInt64())
        }
        Inserted = false
    }

    batch.Trades.Add &row

let private depth = 50

let addBook (random: Random) (batch: Batch) market token (_: Name) at =
    let first = batch.Levels.Count

    for i in 0 .. 2 * depth - 1 do
        // Bids go down from 0.499, asks up from 0.501.
        let price = if i < depth then 499 - i else 501 + i - depth

        let level: Level = {
            Price = Price.ofMillionths (int64 price * 1_000L)
            Size = sizeOf random
        }

        batch.Levels.Add &level

    let row: BookRow = {
        Market = market
        Token = token
        At = at
        Received = batch.Received
        FirstBid = first
        BidCount = depth
        FirstAsk = first + depth
        AskCount = depth
        Hash = batch.Keep(utf8 (hex random 20))
        Tick = Price.ofMillionths 1_000L
        LastTrade = { Start = 0; Length = -1 }
        Sequence = 0
        Verdict = Verdict.Verified
        Doubt = Doubt.None
        Reason = Reason.Poll
        Flags = Flags.None
        Inserted = false
    }

    batch.Books.Add &row

/// Work that fills a payload again and again; what it holds at the end is summed up outside of the measuring.
let private measured rows passes (payload: unit -> ReadOnlyMemory<byte>) (pass: unit -> unit) () =
    let run =
        measure (rows * passes) (fun () ->
            for _ in 1..passes do
                pass ()

            0UL)

    {
        run with
            Checksum = sum 0UL (payload().Span)
    }

// ---- ours

let refuse (_: int) reason = failwith reason

let private encode lane (batches: Batch[]) (payload: Payload) =
    let encoder =
        Encoder {
            Protocol = 2
            Decimals = false
            LevelsAsText = false
            Collector = "bench"
        }

    fun () ->
        payload.Clear()

        for batch in batches do
            encoder.Append(lane, batch, 0, Lane.count lane batch, payload, refuse)

// ---- the limit

let private copy (finished: Payload) (into: byte[]) () =
    let mutable at = 0

    for i in 0 .. finished.RowCount - 1 do
        let row = finished.Row(i).Span
        row.CopyTo(into.AsSpan at)
        at <- at + row.Length

// ---- what one writes first

let private text (stream: MemoryStream) (text: string) =
    stream.Write(ReadOnlySpan(Encoding.UTF8.GetBytes text))

let private escaped (stream: MemoryStream) (special: string) (value: string) =
    for b in Encoding.UTF8.GetBytes value do
        if special.Contains(char b) then
            stream.WriteByte '\\'B

        stream.WriteByte b

let private symbol stream (name: string) value =
    if value <> "" then
        text stream ("," + name + "=")
        escaped stream " ,=\n\r\\" value

let private quoted stream (name: string) value =
    text stream (name + "=\"")
    escaped stream "\"\\\n\r" value
    text stream "\""

let private binary (stream: MemoryStream) (value: float) =
    let bytes = Array.zeroCreate 8
    BinaryPrimitives.WriteDoubleLittleEndian(Span bytes, value)
    stream.Write(ReadOnlySpan bytes)

let private double stream (name: string) (value: float) =
    text stream (name + "==")
    stream.WriteByte 16uy
    binary stream value

let private time (stream: MemoryStream) (micros: int64) =
    let digits = Array.zeroCreate 20
    let mutable written = 0
    Utf8Formatter.TryFormat(micros, Span digits, &written) |> ignore
    stream.Write(ReadOnlySpan(digits, 0, written))
    stream.WriteByte 't'B

let private finish stream (received: Instant) (at: Instant) =
    text stream ",received="
    time stream received.Micros
    text stream " "
    time stream at.Micros
    text stream "\n"

let private plainTrade (batch: Batch) index (stream: MemoryStream) =
    let row = batch.Trades[index]
    let names = batch.Names
    text stream "trades"
    symbol stream "exchange" batch.Exchange
    symbol stream "market" (names.Text row.Market)
    symbol stream "outcome" (names.Text row.Outcome)
    symbol stream "side" (Side.text row.Side)
    symbol stream "source" (Source.text row.Source)
    symbol stream "flags" (if row.Flags = Flags.OffGrid then "off_grid" else "")
    text stream " "
    quoted stream "token" (names.Text row.Token)
    text stream ","
    double stream "price" (float row.Price.Millionths / 1e6)
    text stream ","
    double stream "size" (float row.Size.Millionths / 1e6)
    text stream ","
    quoted stream "trade_id" (string row.Id)
    text stream ","
    quoted stream "transaction_hash" (batch.Text row.Transaction)
    finish stream batch.Received row.At

let private plainSide (stream: MemoryStream) (name: string) (levels: Level[]) =
    text stream (name + "==")
    stream.Write(ReadOnlySpan [| 14uy; 10uy; 2uy |])
    stream.Write(ReadOnlySpan(BitConverter.GetBytes 2))
    stream.Write(ReadOnlySpan(BitConverter.GetBytes levels.Length))

    for level in levels do
        binary stream (float level.Price.Millionths / 1e6)

    for level in levels do
        binary stream (float level.Size.Millionths / 1e6)

let private plainBook (batch: Batch) index (stream: MemoryStream) =
    let row = batch.Books[index]
    let names = batch.Names
    let bids = batch.Levels.Slice(row.FirstBid, row.BidCount).ToArray()
    let asks = batch.Levels.Slice(row.FirstAsk, row.AskCount).ToArray()
    text stream "orderbook_snapshots"
    symbol stream "exchange" batch.Exchange
    symbol stream "market" (names.Text row.Market)
    symbol stream "token" (names.Text row.Token)
    symbol stream "verdict" (Verdict.text row.Verdict)
    symbol stream "reason" "poll"
    text stream " "
    plainSide stream "bids" bids
    text stream ","
    plainSide stream "asks" asks
    let bid, ask = bids[0].Price.Millionths, asks[0].Price.Millionths

    for name, value in
        [
            "best_bid", float bid / 1e6
            "best_bid_size", float bids[0].Size.Millionths / 1e6
            "best_ask", float ask / 1e6
            "best_ask_size", float asks[0].Size.Millionths / 1e6
            "mid", float (bid + ask) / 2e6
            "spread", float (ask - bid) / 1e6
            "spread_bps", float (ask - bid) * 2e4 / float (bid + ask)
        ] do
        text stream ","
        double stream name value

    text stream ","
    quoted stream "hash" (batch.Text row.Hash)
    finish stream batch.Received row.At

let private plain lane (batches: Batch[]) (stream: MemoryStream) () =
    stream.SetLength 0L

    for batch in batches do
        for i in 0 .. Lane.count lane batch - 1 do
            if lane = Lane.Trades then
                plainTrade batch i stream
            else
                plainBook batch i stream

let private both lane what (batches: Batch[]) passes rounds =
    let payload, finished = Payload(), Payload()
    encode lane batches finished ()
    let rows = finished.RowCount
    let into = Array.zeroCreate<byte> finished.Length
    use stream = new MemoryStream(finished.Length)
    let ours = encode lane batches payload
    let copying = copy finished into
    let plainly = plain lane batches stream

    for work in [ ours; copying; plainly ] do
        warmUp 2.0 work

    let ours passes =
        measured rows passes (fun () -> payload.Memory) ours

    let perRow = finished.Length / rows

    [
        compare
            $"{what} of {perRow} bytes, and their bare copying"
            _.Busy
            0.125
            rounds
            (ours passes)
            (measured rows passes (fun () -> ReadOnlyMemory into) copying)

        compare
            $"{what} of {perRow} bytes, and a MemoryStream"
            _.Busy
            3.0
            rounds
            (ours (passes / 10))
            (measured
                rows
                (passes / 10)
                (fun () -> ReadOnlyMemory(stream.GetBuffer(), 0, int stream.Length))
                plainly)
    ]
    |> List.map (fun comparison -> { comparison with MostAllocated = 0.05 })

/// By processor time: rows per CPU-second. Nothing is allocated for a row.
let run rounds : Comparison list =
    both Lane.Trades "trades" (generate 20_000 addTrade) 100 rounds
    @ both Lane.Books "books of 2x50 levels" (generate 5_000 addBook) 100 rounds
