/// Our decoders against the loop that anyone would write over System.Text.Json's fastest reader. Both read every field that is
/// recorded, exactly, and sum them up; ours also keeps the rows in a batch, checks what it reads and verifies each book's hash.
module Tributary.Bench.DecodeBench

open System
open System.Buffers.Text
open System.Security.Cryptography
open System.Text
open System.Text.Json
open Tributary
open Tributary.Exchanges
open Tributary.Bench.Measure

let private known result =
    match result with
    | Ok value -> value
    | Error message -> failwith message

let private collector =
    match Registry.tryFind "polymarket" with
    | Some collector -> collector Registry.defaultOptions
    | None -> failwith "there is no such exchange"

let private now = Instant.ofSeconds 1_784_940_000L

// ---- what both sides sum up

let inline private add (total: byref<uint64>) (value: int64) = total <- total * 31UL + uint64 value

let inline private addBytes (total: byref<uint64>) (bytes: ReadOnlySpan<byte>) =
    total <- sum (total * 31UL) bytes

// ---- ours

let private sumTrades (batch: Batch) =
    let mutable total = 0UL

    for i in 0 .. batch.Trades.Count - 1 do
        let row = &batch.Trades[i]
        addBytes &total (batch.Utf8 row.Wallet)
        add &total (int64 row.Side)
        addBytes &total (ReadOnlySpan(batch.Names.Utf8 row.Token))
        addBytes &total (ReadOnlySpan(batch.Names.Utf8 row.Market))
        add &total row.Size.Millionths
        add &total row.Price.Millionths
        add &total row.At.Micros
        addBytes &total (ReadOnlySpan(batch.Names.Utf8 row.Outcome))
        addBytes &total (batch.Utf8 row.Transaction)

    total

let private sumBooks (batch: Batch) =
    let mutable total = 0UL

    for i in 0 .. batch.Books.Count - 1 do
        let row = &batch.Books[i]
        addBytes &total (ReadOnlySpan(batch.Names.Utf8 row.Market))
        addBytes &total (ReadOnlySpan(batch.Names.Utf8 row.Token))
        add &total row.At.Micros
        addBytes &total (batch.Utf8 row.Hash)
        let bids = batch.Levels.Slice(row.FirstBid, row.BidCount)
        let asks = batch.Levels.Slice(row.FirstAsk, row.AskCount)
        // As served: worst first.
        for i in bids.Length - 1 .. -1 .. 0 do
            add &total bids[i].Price.Millionths
            add &total bids[i].Size.Millionths

        for i in asks.Length - 1 .. -1 .. 0 do
            add &total asks[i].Price.Millionths
            add &total asks[i].Size.Millionths

        add &total row.Tick.Millionths

        if row.Verdict <> Verdict.Verified then
            failwith "a book with a true hash was not verified"

    total

let private decoding request (sumUp: Batch -> uint64) (page: byte[]) =
    let batch = Batch()

    fun () ->
        batch.Clear()
        let decoded = collector.Decode request (ReadOnlyMemory page) now batch

        if decoded.Fault.IsSome || batch.Rejections.Count > 0 then
            failwith $"the page was not read: %A{decoded.Fault}"

        sumUp batch

// ---- theirs

/// A number as millionths, exactly.
let private millionths (text: ReadOnlySpan<byte>) =
    let mutable value, used = 0m, 0

    if not (Utf8Parser.TryParse(text, &value, &used) && used = text.Length) then
        failwith "not a number"

    Decimal.ToInt64(value * 1_000_000m)

let private wholeOf (text: ReadOnlySpan<byte>) =
    let mutable value, used = 0L, 0

    if not (Utf8Parser.TryParse(text, &value, &used) && used = text.Length) then
        failwith "not a whole number"

    value

let private data, proxyWallet, side, tokenId =
    "data"B, "proxy_wallet"B, "side"B, "token_id"B

let private conditionId, sizeOf, priceOf, timestamp =
    "condition_id"B, "size"B, "price"B, "timestamp"B

let private outcome, transactionHash, sell =
    "outcome"B, "transaction_hash"B, "SELL"B

let private readTrades (page: byte[]) () =
    let mutable reader = Utf8JsonReader(ReadOnlySpan page)
    let mutable total = 0UL
    let mutable inData = false

    while reader.Read() do
        if reader.TokenType = JsonTokenType.PropertyName then
            if inData && reader.CurrentDepth = 3 then
                if reader.ValueTextEquals(ReadOnlySpan proxyWallet) then
                    reader.Read() |> ignore
                    addBytes &total reader.ValueSpan
                elif reader.ValueTextEquals(ReadOnlySpan side) then
                    reader.Read() |> ignore
                    add &total (if reader.ValueTextEquals(ReadOnlySpan sell) then 1L else 0L)
                elif reader.ValueTextEquals(ReadOnlySpan tokenId) then
                    reader.Read() |> ignore
                    addBytes &total reader.ValueSpan
                elif reader.ValueTextEquals(ReadOnlySpan conditionId) then
                    reader.Read() |> ignore
                    addBytes &total reader.ValueSpan
                elif reader.ValueTextEquals(ReadOnlySpan sizeOf) then
                    reader.Read() |> ignore
                    add &total (millionths reader.ValueSpan)
                elif reader.ValueTextEquals(ReadOnlySpan priceOf) then
                    reader.Read() |> ignore
                    add &total (millionths reader.ValueSpan)
                elif reader.ValueTextEquals(ReadOnlySpan timestamp) then
                    reader.Read() |> ignore
                    add &total (wholeOf reader.ValueSpan * 1_000_000L)
                elif reader.ValueTextEquals(ReadOnlySpan outcome) then
                    reader.Read() |> ignore
                    addBytes &total reader.ValueSpan
                elif reader.ValueTextEquals(ReadOnlySpan transactionHash) then
                    reader.Read() |> ignore
                    addBytes &total reader.ValueSpan
                else
                    reader.Read() |> ignore
            elif reader.CurrentDepth = 1 then
                inData <- reader.ValueTextEquals(ReadOnlySpan data)

    total

let private market, assetId, hash = "market"B, "asset_id"B, "hash"B
let private bids, asks, tickSize = "bids"B, "asks"B, "tick_size"B

let private readLevels (reader: byref<Utf8JsonReader>) (total: byref<uint64>) =
    reader.Read() |> ignore // [

    while reader.Read() && reader.TokenType = JsonTokenType.StartObject do
        while reader.Read() && reader.TokenType = JsonTokenType.PropertyName do
            // The price stands before the size, as both are summed in this order.
            reader.Read() |> ignore
            add &total (millionths reader.ValueSpan)

let private scratch: byte[] = Array.zeroCreate 65_536
let private digest: byte[] = Array.zeroCreate 20
let private hexDigest: byte[] = Array.zeroCreate 40

/// The SHA-1 over a book with its hash left empty, compared with the hash: in this page the members stand in the hash's order,
/// so that is the book's own bytes but for those 40.
let private verify (page: byte[]) start (hashAt: int) finish =
    let head = hashAt - start
    Buffer.BlockCopy(page, start, scratch, 0, head)
    let rest = finish - (hashAt + 40)
    Buffer.BlockCopy(page, hashAt + 40, scratch, head, rest)
    SHA1.HashData(ReadOnlySpan(scratch, 0, head + rest), Span digest) |> ignore
    let mutable written = 0

    Convert.TryToHexStringLower(ReadOnlySpan digest, Span hexDigest, &written)
    |> ignore

    if not (MemoryExtensions.SequenceEqual(ReadOnlySpan hexDigest, ReadOnlySpan(page, hashAt, 40))) then
        failwith "the hash disagrees"

let private readBooks isVerifying (page: byte[]) () =
    let mutable reader = Utf8JsonReader(ReadOnlySpan page)
    let mutable total = 0UL
    let mutable start, hashAt = 0, 0

    while reader.Read() do
        match reader.TokenType with
        | JsonTokenType.StartObject -> start <- int reader.TokenStartIndex
        | JsonTokenType.EndObject when isVerifying -> verify page start hashAt (int reader.BytesConsumed)
        | JsonTokenType.PropertyName ->
            if
                reader.ValueTextEquals(ReadOnlySpan market)
                || reader.ValueTextEquals(ReadOnlySpan assetId)
            then
                reader.Read() |> ignore
                addBytes &total reader.ValueSpan
            elif reader.ValueTextEquals(ReadOnlySpan timestamp) then
                reader.Read() |> ignore
                add &total (wholeOf reader.ValueSpan * 1_000L)
            elif reader.ValueTextEquals(ReadOnlySpan hash) then
                reader.Read() |> ignore
                hashAt <- int reader.TokenStartIndex + 1
                addBytes &total reader.ValueSpan
            elif
                reader.ValueTextEquals(ReadOnlySpan bids)
                || reader.ValueTextEquals(ReadOnlySpan asks)
            then
                readLevels &reader &total
            elif reader.ValueTextEquals(ReadOnlySpan tickSize) then
                reader.Read() |> ignore
                add &total (millionths reader.ValueSpan)
            else
                reader.Read() |> ignore
        | _ -> ()

    total

// ---- the comparison

let private rowsPerRun = 250_000

/// Pages again and again; what counts is a row: a trade, or a whole book.
let private repeated pageRows rows (work: unit -> uint64) () =
    let pages = rows / pageRows

    measure (pages * pageRows) (fun () ->
        let mutable total = 0UL

        for _ in 1..pages do
            total <- total * 31UL + work ()

        total)

let private pair name rounds pageRows rows (ours: unit -> uint64) (theirs: unit -> uint64) =
    warmUp 2.0 ours
    warmUp 2.0 theirs
    compare name _.Busy 1.0 rounds (repeated pageRows rows ours) (repeated pageRows rows theirs)

let run rounds : Comparison list =
    let trades, books = Payloads.tradesPage 500, Payloads.booksPage 50

    let marketIds =
        Payloads.markets
        |> Array.map (fun struct (id, _, _) -> known (MarketId.Parse id))

    let tokens = [
        for struct (_, yes, no) in Payloads.markets do
            known (TokenId.Parse yes)
            known (TokenId.Parse no)
    ]

    let follows = [ for id in Array.take 20 marketIds -> { Market = id; Since = now } ]
    let ask need = collector.Ask need |> List.exactlyOne
    let ourTrades = decoding (ask (Need.Trades follows)) sumTrades trades
    let ourBooks = decoding (ask (Need.Books tokens)) sumBooks books

    [
        pair
            $"trades page: 500 rows, {trades.Length / 500} B each; Utf8JsonReader"
            rounds
            500
            rowsPerRun
            ourTrades
            (readTrades trades)
        pair
            $"books page: 100 books of 2x50 levels, {books.Length / 100} B each; ours verifies each SHA-1, Utf8JsonReader does not"
            rounds
            100
            (rowsPerRun / 25)
            ourBooks
            (readBooks false books)
        pair
            "the same books; both verify each SHA-1"
            rounds
            100
            (rowsPerRun / 25)
            ourBooks
            (readBooks true books)
    ]
