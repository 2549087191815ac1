/// Recorded sequences of whole books, which lie outside of this repository: TRIBUTARY_RECORDED names their folder.
module Tributary.Tests.RecordedSequenceTests

open System
open System.Collections.Generic
open System.IO
open System.IO.Compression
open System.Text.Json
open NUnit.Framework
open Tributary
open Tributary.Exchanges

/// The lines of a recording; the test is not made when there is none.
let private linesOf (parts: string list) =
    match Environment.GetEnvironmentVariable "TRIBUTARY_RECORDED" with
    | null
    | "" ->
        Assert.Ignore "TRIBUTARY_RECORDED names no folder of recordings, so none was read."
        [||]
    | folder ->
        let path = Path.Combine(Array.ofList (folder :: "polymarket" :: parts))

        if not (File.Exists path) then
            Assert.Ignore $"{path} is not there."

        use file = File.OpenRead path

        use reader =
            if path.EndsWith ".gz" then
                new StreamReader(new GZipStream(file, CompressionMode.Decompress))
            else
                new StreamReader(file)

        reader.ReadToEnd().Split('\n', StringSplitOptions.RemoveEmptyEntries)

let private text (name: string) (element: JsonElement) =
    string (element.GetProperty(name).GetString())

/// The levels of a side, by price.
let private side (name: string) (element: JsonElement) =
    let levels = Dictionary<int64, int64>()

    for level in element.GetProperty(name).EnumerateArray() do
        levels[(price (text "price" level)).Millionths] <- (size (text "size" level)).Millionths

    levels

let private best isBid (levels: Dictionary<int64, int64>) = [|
    for KeyValue(price, size) in levels |> Seq.sortBy (fun level -> if isBid then -level.Key else level.Key) ->
        {
            Price = Price.ofMillionths price
            Size = (Size.tryOfMillionths size).Value
        }
|]

/// Moment, bids and asks of the consecutive books of one token.
let private sequence file = [|
    for line in linesOf [ "wsbook_seq_2025-12-11"; file ] do
        use document = JsonDocument.Parse line
        let root = document.RootElement
        text "timestamp" root, side "bids" root, side "asks" root
|]

[<TestCase("15m_sol_orderbooks_up.jsonl.gz")>]
[<TestCase("15m_sol_orderbooks_down.jsonl.gz")>]
[<TestCase("1h_btc_orderbooks_up.jsonl.gz")>]
[<TestCase("1h_btc_orderbooks_down.jsonl.gz")>]
let ``every book of a sequence is the one before with the changes in between`` (file: string) =
    let books = sequence file
    let live = Book()
    let mutable changes = 0

    for _, bids, asks in books do
        for isBid, next in [ true, bids; false, asks ] do
            let side = if isBid then Side.Buy else Side.Sell

            for level in (live.Levels side).ToArray() do
                if not (next.ContainsKey level.Price.Millionths) then
                    isTrue (live.Set(side, level.Price.Millionths, 0L))

            for KeyValue(price, size) in next do
                if live.Set(side, price, size) then
                    changes <- changes + 1

        isTrue (live.Has(ReadOnlySpan(best true bids), ReadOnlySpan(best false asks)))
        isTrue (not live.IsCrossed)

    isTrue (books.Length >= 200 && changes > books.Length)

[<TestCase("15m_sol")>]
[<TestCase("1h_btc")>]
let ``the books of both tokens at one moment are mirrors`` (market: string) =
    let ups, downs =
        sequence $"{market}_orderbooks_up.jsonl.gz", sequence $"{market}_orderbooks_down.jsonl.gz"

    let loaded (bids, asks) =
        let book = Book()
        book.Load(ReadOnlySpan(best true bids), ReadOnlySpan(best false asks))
        book

    // A moment may have several books, each told for both tokens.
    let byMoment books =
        books
        |> Array.groupBy (fun (moment, _, _) -> moment)
        |> Array.map (fun (moment, books) ->
            moment, books |> Array.map (fun (_, bids, asks) -> loaded (bids, asks)))
        |> dict

    let others = byMoment downs
    let mutable pairs = 0

    for KeyValue(moment, books) in byMoment ups do
        match others.TryGetValue moment with
        | true, mirrors when mirrors.Length = books.Length ->
            for book, mirror in Array.zip books mirrors do
                pairs <- pairs + 1
                isTrue (book.IsMirrorOf mirror)
                isTrue (mirror.IsMirrorOf book)
        | _ -> ()

    isTrue (pairs >= 200)

[<Test>]
let ``the proof of a live book agrees with recorded hashes, and not with those of other books`` () =
    let part = (Polymarket.collector Registry.defaultOptions).Stream.Value
    let lines = linesOf [ "ssmd_polymarket_book.jsonl" ]
    let mutable agreed, others = 0, 0

    for line in lines do
        use document = JsonDocument.Parse line
        let root = document.RootElement
        let proof = part.Proof (market (text "market" root)) (token (text "asset_id" root))

        proof.Describe {
            Exchange = (Polymarket.collector Registry.defaultOptions).Exchange
            Market = market (text "market" root)
            Event = ""
            Slug = ""
            Question = ""
            Outcomes = [||]
            Status = MarketStatus.Open
            AcceptsOrders = true
            TickSize = ValueSome(price (text "tick_size" root))
            MinimumSize = ValueSome(size "5")
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
            Received = seconds 0L
            Raw = ""
        }

        proof.Traded(ReadOnlySpan(utf8 (text "last_trade_price" root)))
        let book = Book()
        book.Load(ReadOnlySpan(best true (side "bids" root)), ReadOnlySpan(best false (side "asks" root)))
        let at = Instant.ofMillis (int64 (text "timestamp" root))
        let hash = utf8 (text "hash" root)

        if proof.Agrees(book, at, ReadOnlySpan hash, -1L) then
            agreed <- agreed + 1

        book.Set(Side.Buy, 1_000L, 1L) |> ignore

        if proof.Agrees(book, at, ReadOnlySpan hash, -1L) then
            others <- others + 1

    equal (lines.Length, 0) (agreed, others)
