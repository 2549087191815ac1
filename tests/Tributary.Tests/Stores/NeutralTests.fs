module Tributary.Tests.Stores.NeutralTests

open System
open System.IO
open System.Text
open FsCheck
open FsCheck.FSharp
open NUnit.Framework
open FsCheck.NUnit
open Tributary
open Tributary.Stores
open Tributary.Tests.Stores.Vocabulary

let private always generator holds =
    Prop.forAll (Arb.fromGen generator) holds

let private insertedTrades (batch: Batch) = [
    for i in 0 .. batch.Trades.Count - 1 do
        if batch.Trades[i].Inserted then
            i
]

let private insertedBooks (batch: Batch) = [
    for i in 0 .. batch.Books.Count - 1 do
        if batch.Books[i].Inserted then
            i
]

let private tradesOf (batch: Batch) =
    Neutral.Writer().Trades(batch, (insertedTrades batch).Length).ToArray()

let private booksOf (batch: Batch) =
    Neutral.Writer().Books(batch, (insertedBooks batch).Length).ToArray()

let private insertedDeltas (batch: Batch) = [
    for i in 0 .. batch.Deltas.Count - 1 do
        if batch.Deltas[i].Inserted then
            i
]

let private deltasOf (batch: Batch) =
    Neutral.Writer().Deltas(batch, (insertedDeltas batch).Length).ToArray()

let private insertedPrices (batch: Batch) = [
    for i in 0 .. batch.Prices.Count - 1 do
        if batch.Prices[i].Inserted then
            i
]

let private pricesOf (batch: Batch) =
    Neutral.Writer().Prices(batch, (insertedPrices batch).Length).ToArray()

let private metricsOf (batch: Batch) =
    Neutral.Writer().Metrics(batch).ToArray()

let private readAs reading (bytes: byte[]) =
    let batch = Batch()
    reading (ReadOnlyMemory bytes) batch
    batch

// ---- anything that a batch can hold

let private anyText =
    Gen.frequency [
        3, Gen.elements [ "m1"; "yes"; "Übergröße"; "😀"; "a\"b\\c"; "\u0000"; "\uFFFD"; " " ]
        2,
        Gen.choose (0, 0x10FFFF)
        |> Gen.where Rune.IsValid
        |> Gen.map (fun code -> string (Rune code))
        |> Gen.listOf
        |> Gen.map (String.concat "")
    ]

let private anyNumber =
    Gen.oneof [
        Gen.elements [ 0L; 1L; -1L; Int64.MaxValue; Int64.MinValue ]
        Gen.choose64 (Int64.MinValue, Int64.MaxValue)
    ]

let private anySize =
    Gen.oneof [ Gen.elements [ 0L; Int64.MaxValue ]; Gen.choose64 (0L, Int64.MaxValue) ]
    |> Gen.map (fun millionths -> (Size.tryOfMillionths millionths).Value)

let private anyPrice = anyNumber |> Gen.map Price.ofMillionths

let private nowhere: Slice = { Start = 0; Length = 0 }

let private anyDoubt = Gen.elements (List.map fst Doubt.all)

let private anyTrade (batch: Batch) = gen {
    let name = anyText |> Gen.map batch.Names.Intern
    let! market = name
    let! token = name
    let! outcome = name
    let! side = Gen.elements [ Side.Buy; Side.Sell ]
    let! source = Gen.elements [ Source.Api; Source.Stream; Source.Chain ]
    let! price = anyPrice
    let! size = anySize
    let! time = anyNumber
    let! received = anyNumber
    let! transaction = anyText
    let! flags = Gen.choose (Int32.MinValue, Int32.MaxValue)
    let! high = anyNumber
    let! low = anyNumber
    let! collateral = Gen.oneof [ Gen.constant ValueNone; anySize |> Gen.map ValueSome ]
    let! inserted = Gen.elements [ true; true; false ]

    return
        ({
            Market = market
            Token = token
            Outcome = outcome
            Side = side
            Source = source
            Price = price
            Size = size
            At = Instant.ofMicros time
            Received = Instant.ofMicros received
            Transaction = batch.Keep(utf8 transaction)
            Wallet = nowhere
            Flags = enum flags
            Occurrence = 0
            Collateral = collateral
            Id = { High = uint64 high; Low = uint64 low }
            Inserted = inserted
        }
        : TradeRow)
}

let private anySide (batch: Batch) = gen {
    let level = Gen.zip anyPrice anySize

    let! count =
        Gen.frequency [ 1, Gen.constant 0; 3, Gen.choose (1, 8); 1, Gen.choose (50, 80) ]

    let! levels = Gen.listOfLength count level
    let first = batch.Levels.Count

    for price, size in levels do
        let level: Level = { Price = price; Size = size }
        batch.Levels.Add &level

    return struct (first, count)
}

let private anyBook (batch: Batch) = gen {
    let! market = anyText
    let! token = anyText

    let! verdict =
        Gen.elements [ Verdict.Verified; Verdict.Unverifiable; Verdict.Mismatched ]

    let! flags = Gen.choose (Int32.MinValue, Int32.MaxValue)
    let! tick = anyPrice
    let! time = anyNumber
    let! received = anyNumber
    let! doubt = anyDoubt
    let! reason = Gen.elements (List.map fst Reason.all)
    let! sequence = Gen.choose (0, Int32.MaxValue)
    let! hash = anyText
    let! inserted = Gen.elements [ true; true; false ]
    let! struct (firstBid, bids) = anySide batch
    let! struct (firstAsk, asks) = anySide batch

    return
        ({
            Market = batch.Names.Intern market
            Token = batch.Names.Intern token
            At = Instant.ofMicros time
            Received = Instant.ofMicros received
            FirstBid = firstBid
            BidCount = bids
            FirstAsk = firstAsk
            AskCount = asks
            Hash = batch.Keep(utf8 hash)
            Tick = tick
            LastTrade = { Start = 0; Length = -1 }
            Sequence = sequence
            Verdict = verdict
            Doubt = doubt
            Reason = reason
            Flags = enum flags
            Inserted = inserted
        }
        : BookRow)
}

let private anyDelta (batch: Batch) = gen {
    let! market = anyText
    let! token = anyText
    let! side = Gen.elements [ Side.Buy; Side.Sell ]

    let! verdict =
        Gen.elements [ Verdict.Verified; Verdict.Unverifiable; Verdict.Mismatched ]

    let! doubt = anyDoubt
    let! ordinal = Gen.choose (Int32.MinValue, Int32.MaxValue)
    let! sequence = Gen.choose (0, Int32.MaxValue)
    let! price = anyPrice
    let! size = anySize
    let! time = anyNumber
    let! received = anyNumber
    let! hash = anyText
    let! inserted = Gen.elements [ true; true; false ]

    return
        ({
            Market = batch.Names.Intern market
            Token = batch.Names.Intern token
            At = Instant.ofMicros time
            Received = Instant.ofMicros received
            Ordinal = ordinal
            Sequence = sequence
            Side = side
            Price = price
            Size = size
            Hash = batch.Keep(utf8 hash)
            Verdict = verdict
            Doubt = doubt
            Inserted = inserted
        }
        : DeltaRow)
}

let private anyPoint (batch: Batch) = gen {
    let! market = anyText
    let! token = anyText
    let! kind = Gen.elements (List.map fst PriceKind.all)
    let! price = anyPrice
    let! time = anyNumber
    let! received = anyNumber
    let! inserted = Gen.elements [ true; true; false ]

    return
        ({
            Market = batch.Names.Intern market
            Token = batch.Names.Intern token
            At = Instant.ofMicros time
            Received = Instant.ofMicros received
            Kind = kind
            Price = price
            Inserted = inserted
        }
        : PriceRow)
}

let private anyBatch (fill: Batch -> Gen<unit>) = gen {
    let! exchange = anyText
    let batch = Batch() // behind a `let!`, so that each case has its own
    let! received = anyNumber
    batch.Exchange <- exchange
    batch.Received <- Instant.ofMicros received
    do! fill batch
    return batch
}

let private anyTrades =
    anyBatch (fun batch -> gen {
        let! count = Gen.choose (0, 25)
        let! rows = Gen.listOfLength count (anyTrade batch)

        for row in rows do
            batch.Trades.Add &row
    })

let private anyBooks =
    anyBatch (fun batch -> gen {
        let! count = Gen.choose (0, 12)
        let! rows = Gen.listOfLength count (anyBook batch)

        for row in rows do
            batch.Books.Add &row
    })

let private anyDeltas =
    anyBatch (fun batch -> gen {
        let! count = Gen.choose (0, 25)
        let! rows = Gen.listOfLength count (anyDelta batch)

        for row in rows do
            batch.Deltas.Add &row
    })

let private anyPoints =
    anyBatch (fun batch -> gen {
        let! count = Gen.choose (0, 25)
        let! rows = Gen.listOfLength count (anyPoint batch)

        for row in rows do
            batch.Prices.Add &row
    })

let private anyMetrics =
    anyBatch (fun batch -> gen {
        let metric = gen {
            let! name = anyText
            let! labels = anyText
            let! time = anyNumber

            let! value =
                Gen.oneof [
                    Gen.elements [ 0.0; -0.0; infinity; nan; Double.Epsilon ]
                    anyNumber |> Gen.map BitConverter.Int64BitsToDouble
                ]

            let metric: Metric = {
                Name = name
                Labels = labels
                At = Instant.ofMicros time
                Value = value
            }

            return metric
        }

        let! metrics = Gen.listOf metric
        batch.Metrics.AddRange metrics
    })

// ---- rows as values that can be compared

let private trade (batch: Batch) i =
    let row = batch.Trades[i]
    let text = batch.Names.Text

    (batch.Exchange, batch.Received, text row.Market, text row.Token, text row.Outcome),
    (row.Side, row.Source, row.Price, row.Size, row.Collateral, row.At, row.Received),
    (Encoding.UTF8.GetString(batch.Utf8 row.Transaction), row.Flags, row.Id)

let private book (batch: Batch) i =
    let row = batch.Books[i]

    let side first count = [
        for level in batch.Levels.Slice(first, count).ToArray() -> struct (level.Price, level.Size)
    ]

    (batch.Exchange, batch.Received, batch.Names.Text row.Market, batch.Names.Text row.Token),
    (row.Verdict, row.Doubt, row.Reason, row.Flags),
    (row.Tick, row.At, row.Received, Encoding.UTF8.GetString(batch.Utf8 row.Hash)),
    (side row.FirstBid row.BidCount, side row.FirstAsk row.AskCount)

let private delta (batch: Batch) i =
    let row = batch.Deltas[i]
    let text = batch.Names.Text

    (batch.Exchange, batch.Received, text row.Market, text row.Token),
    (row.At, row.Received, row.Ordinal, row.Side, row.Price, row.Size),
    (Encoding.UTF8.GetString(batch.Utf8 row.Hash), row.Verdict, row.Doubt)

let private point (batch: Batch) i =
    let row = batch.Prices[i]
    let text = batch.Names.Text

    (batch.Exchange, batch.Received, text row.Market, text row.Token),
    (row.At, row.Received, row.Kind, row.Price)

let private metric (batch: Batch) i =
    let row = batch.Metrics[i]

    batch.Exchange, batch.Received, row.Name, row.Labels, row.At, BitConverter.DoubleToInt64Bits row.Value

[<Property(MaxTest = 300)>]
let ``trades that are marked as inserted come back as they were, and no others`` () =
    always anyTrades (fun batch ->
        let back = readAs Neutral.readTrades (tradesOf batch)

        equal [ for i in insertedTrades batch -> trade batch i ] [
            for i in 0 .. back.Trades.Count - 1 -> trade back i
        ]

        equal back.Trades.Count back.TradeOrigins.Count

        for i in 0 .. back.Trades.Count - 1 do
            equal true back.Trades[i].Inserted)

[<Property(MaxTest = 200)>]
let ``books that are marked as inserted come back as they were, and no others`` () =
    always anyBooks (fun batch ->
        let back = readAs Neutral.readBooks (booksOf batch)

        equal [ for i in insertedBooks batch -> book batch i ] [
            for i in 0 .. back.Books.Count - 1 -> book back i
        ]

        equal back.Books.Count back.BookOrigins.Count

        for i in 0 .. back.Books.Count - 1 do
            equal true back.Books[i].Inserted)

[<Property(MaxTest = 200)>]
let ``deltas that are marked as inserted come back as they were, and no others`` () =
    always anyDeltas (fun batch ->
        let back = readAs Neutral.readDeltas (deltasOf batch)

        equal [ for i in insertedDeltas batch -> delta batch i ] [
            for i in 0 .. back.Deltas.Count - 1 -> delta back i
        ]

        for i in 0 .. back.Deltas.Count - 1 do
            equal true back.Deltas[i].Inserted)

[<Property(MaxTest = 200)>]
let ``prices that are marked as inserted come back as they were, and no others`` () =
    always anyPoints (fun batch ->
        let back = readAs Neutral.readPrices (pricesOf batch)

        equal [ for i in insertedPrices batch -> point batch i ] [
            for i in 0 .. back.Prices.Count - 1 -> point back i
        ]

        for i in 0 .. back.Prices.Count - 1 do
            equal true back.Prices[i].Inserted)

[<Property(MaxTest = 200)>]
let ``metrics come back as they were, also values that are no numbers`` () =
    always anyMetrics (fun batch ->
        let back = readAs Neutral.readMetrics (metricsOf batch)

        equal [ for i in 0 .. batch.Metrics.Count - 1 -> metric batch i ] [
            for i in 0 .. back.Metrics.Count - 1 -> metric back i
        ])

[<Test>]
let ``many rows come back, more than any buffer held before`` () =
    let batch =
        batch [
            for number in 1..900 do
                fill $"m{number % 70}" number (int64 number)
        ]

    for i in 0 .. batch.Trades.Count - 1 do
        let row = &batch.Trades[i]
        row.Inserted <- true

    let back = readAs Neutral.readTrades (tradesOf batch)
    equal 900 back.Trades.Count
    equal (trade batch 899) (trade back 899)

[<Test>]
let ``one writer and one batch serve many entries`` () =
    let writer, back = Neutral.Writer(), Batch()

    let written market =
        let batch = batch [ fill market 1 10L ]
        let row = &batch.Trades[0]
        row.Inserted <- true
        batch

    for market in [ "a-long-name-of-a-market"; "b"; "c" ] do
        let batch = written market
        Neutral.readTrades (ReadOnlyMemory(writer.Trades(batch, 1).ToArray())) back
        equal 1 back.Trades.Count
        equal (trade batch 0) (trade back 0)

// ---- all versions, byte by byte

let private bytes (parts: string list) =
    Convert.FromHexString((String.concat "" parts).Replace(" ", ""))

let private tradeReceivedAt received collateral =
    batch [
        fun batch ->
            let row: TradeRow = {
                Market = batch.Names.Intern "m1"
                Token = batch.Names.Intern "t1"
                Outcome = batch.Names.Intern "Yé"
                Side = Side.Sell
                Source = Source.Chain
                Price = price "0.55"
                Size = size "10.5"
                At = Instant.ofMicros 1L
                Received = Instant.ofMicros received
                Transaction = batch.Keep(utf8 "0xaa")
                Wallet = batch.Keep(utf8 "0xbb")
                Flags = enum 5
                Occurrence = 3
                Collateral = collateral
                Id = {
                    High = 0x0102030405060708UL
                    Low = 0x090A0B0C0D0E0F10UL
                }
                Inserted = true
            }

            batch.Trades.Add &row
            batch.Received <- Instant.ofMicros -2L
    ]

let private goldenTrade = tradeReceivedAt 3L (ValueSome(size "5.775"))
let private goldenTradeUnpaid = tradeReceivedAt 3L ValueNone

let private headOf version names = [
    version
    "0A000000 706F6C796D61726B6574" // polymarket
    "FEFFFFFFFFFFFFFF" // received
    names
]

let private head = headOf "04"

let private tradeBytesOf version collateral =
    bytes (
        headOf version "03000000 02000000 6D31 02000000 7431 03000000 59C3A9"
        @ [
            "01000000"
            "00000000 01000000 02000000" // market, token, outcome
            "01 02" // sell, chain
            "05000000" // flags
            "7064080000000000 A037A00000000000" // price, size
            "0100000000000000 0300000000000000" // at, received
            collateral
            "0102030405060708 090A0B0C0D0E0F10"
            "04000000 30786161"
        ]
    )

let private goldenTradeBytes = tradeBytesOf "04" "981E580000000000"
let private unpaidTradeBytes = tradeBytesOf "04" "FFFFFFFFFFFFFFFF"
let private secondTradeBytes = tradeBytesOf "02" ""

let private firstTradeBytes =
    bytes (
        headOf "01" "03000000 02000000 6D31 02000000 7431 03000000 59C3A9"
        @ [
            "01000000"
            "00000000 01000000 02000000" // market, token, outcome
            "01 02" // sell, chain
            "05000000" // flags
            "7064080000000000 A037A00000000000 0100000000000000" // price, size, at
            "0102030405060708 090A0B0C0D0E0F10"
            "04000000 30786161"
        ]
    )

let private bookReceivedAt received doubt reason sequence =
    batch [
        bookOf "m1" [ "0.48", "30" ] [] "ab" 0L
        fun batch ->
            let row = &batch.Books[0]

            row <- {
                row with
                    At = Instant.ofMicros 1L
                    Received = Instant.ofMicros received
                    Inserted = true
                    Verdict = Verdict.Mismatched
                    Doubt = doubt
                    Reason = reason
                    Sequence = sequence
                    Flags = enum 1
            }

            batch.Received <- Instant.ofMicros -2L
    ]

let private goldenBook = bookReceivedAt 3L Doubt.Hash Reason.Resync 1234
let private goldenBookWithoutNumber = bookReceivedAt 3L Doubt.Hash Reason.Resync 0

let private bookBytesOf version sequence =
    bytes (
        headOf version "02000000 02000000 6D31 06000000 6D312D796573"
        @ [
            "01000000"
            "00000000 01000000" // market, token
            "02 06 02" // mismatched, hash, resync
            "01000000" // flags
            sequence
            "1027000000000000" // tick
            "0100000000000000 0300000000000000" // at, received
            "02000000 6162" // hash
            "01000000 0053070000000000 80C3C90100000000" // bids
            "00000000" // asks
        ]
    )

let private goldenBookBytes = bookBytesOf "04" "D2040000"
let private thirdBookBytes = bookBytesOf "03" ""
let private secondBookBytes = bookBytesOf "02" ""

let private firstBookBytes =
    bytes (
        headOf "01" "02000000 02000000 6D31 06000000 6D312D796573"
        @ [
            "01000000"
            "00000000 01000000" // market, token
            "02" // mismatched
            "01000000" // flags
            "1027000000000000 0100000000000000" // tick, at
            "02000000 6162" // hash
            "01000000 0053070000000000 80C3C90100000000" // bids
            "00000000" // asks
        ]
    )

let private deltaOfNumber sequence =
    batch [
        deltaOf "m1" Side.Sell "0.55" "10.5" 7 "ab" 0L
        fun batch ->
            let row = &batch.Deltas[0]

            row <- {
                row with
                    At = Instant.ofMicros 1L
                    Received = Instant.ofMicros 3L
                    Inserted = true
                    Verdict = Verdict.Mismatched
                    Doubt = Doubt.BestPrice
                    Sequence = sequence
            }

            batch.Received <- Instant.ofMicros -2L
    ]

let private goldenDelta = deltaOfNumber 1234
let private goldenDeltaWithoutNumber = deltaOfNumber 0

let private deltaBytesOf version sequence =
    bytes (
        headOf version "02000000 02000000 6D31 06000000 6D312D796573"
        @ [
            "01000000"
            "00000000 01000000" // market, token
            "01 02 07" // sell, mismatched, best_price
            "07000000" // ordinal
            sequence
            "7064080000000000 A037A00000000000" // price, size
            "0100000000000000 0300000000000000" // at, received
            "02000000 6162" // hash
        ]
    )

let private goldenDeltaBytes = deltaBytesOf "04" "D2040000"
let private thirdDeltaBytes = deltaBytesOf "03" ""
let private secondDeltaBytes = deltaBytesOf "02" ""

let private goldenPrice =
    batch [
        pointOf "m1" PriceKind.Probability "0.55" 0L
        fun batch ->
            let row = &batch.Prices[0]

            row <- {
                row with
                    At = Instant.ofMicros 1L
                    Received = Instant.ofMicros 3L
                    Inserted = true
            }

            batch.Received <- Instant.ofMicros -2L
    ]

let private goldenPriceBytes =
    bytes (
        head "02000000 02000000 6D31 06000000 6D312D796573"
        @ [
            "01000000"
            "00000000 01000000" // market, token
            "01" // probability
            "7064080000000000" // price
            "0100000000000000 0300000000000000" // at, received
        ]
    )

let private goldenMetric =
    batch [
        fun batch ->
            batch.Metrics.Add {
                Name = "rows"
                Labels = "a=b"
                At = Instant.ofMicros 1L
                Value = 1.5
            }

            batch.Received <- Instant.ofMicros -2L
    ]

let private metricBytesOf version =
    bytes (
        headOf version "02000000 04000000 726F7773 03000000 613D62"
        @ [ "01000000"; "00000000 01000000"; "0100000000000000"; "000000000000F83F" ]
    )

let private goldenMetricBytes = metricBytesOf "04"

let private shown (bytes: byte[]) = Convert.ToHexString bytes

[<Test>]
let ``version 4 stays as it is, for what waits in a file is read by later versions`` () =
    equal (shown goldenTradeBytes) (shown (tradesOf goldenTrade))
    equal (shown unpaidTradeBytes) (shown (tradesOf goldenTradeUnpaid))
    equal (shown goldenBookBytes) (shown (booksOf goldenBook))
    equal (shown goldenMetricBytes) (shown (metricsOf goldenMetric))
    equal (trade goldenTrade 0) (trade (readAs Neutral.readTrades goldenTradeBytes) 0)
    equal (book goldenBook 0) (book (readAs Neutral.readBooks goldenBookBytes) 0)
    equal (metric goldenMetric 0) (metric (readAs Neutral.readMetrics goldenMetricBytes) 0)
    equal (shown goldenDeltaBytes) (shown (deltasOf goldenDelta))
    equal (delta goldenDelta 0) (delta (readAs Neutral.readDeltas goldenDeltaBytes) 0)
    equal (trade goldenTradeUnpaid 0) (trade (readAs Neutral.readTrades unpaidTradeBytes) 0)
    equal (shown goldenPriceBytes) (shown (pricesOf goldenPrice))
    equal (point goldenPrice 0) (point (readAs Neutral.readPrices goldenPriceBytes) 0)

[<Test>]
let ``version 3 is still read: messages had no numbers`` () =
    equal (trade goldenTrade 0) (trade (readAs Neutral.readTrades (tradeBytesOf "03" "981E580000000000")) 0)
    equal (book goldenBookWithoutNumber 0) (book (readAs Neutral.readBooks thirdBookBytes) 0)
    equal (delta goldenDeltaWithoutNumber 0) (delta (readAs Neutral.readDeltas thirdDeltaBytes) 0)
    equal (metric goldenMetric 0) (metric (readAs Neutral.readMetrics (metricBytesOf "03")) 0)

[<Test>]
let ``version 2 is still read: nobody knew what was paid`` () =
    equal (trade goldenTradeUnpaid 0) (trade (readAs Neutral.readTrades secondTradeBytes) 0)
    equal (book goldenBookWithoutNumber 0) (book (readAs Neutral.readBooks secondBookBytes) 0)
    equal (delta goldenDeltaWithoutNumber 0) (delta (readAs Neutral.readDeltas secondDeltaBytes) 0)
    equal (metric goldenMetric 0) (metric (readAs Neutral.readMetrics (metricBytesOf "02")) 0)

[<Test>]
let ``version 1 is still read: its rows were received when the batch was, and its books were polled`` () =
    equal (trade (tradeReceivedAt -2L ValueNone) 0) (trade (readAs Neutral.readTrades firstTradeBytes) 0)

    equal
        (book (bookReceivedAt -2L Doubt.None Reason.Poll 0) 0)
        (book (readAs Neutral.readBooks firstBookBytes) 0)

    equal (metric goldenMetric 0) (metric (readAs Neutral.readMetrics (metricBytesOf "01")) 0)

// ---- damage

let private kinds = [
    "trades", goldenTradeBytes, Neutral.readTrades
    "books", goldenBookBytes, Neutral.readBooks
    "metrics", goldenMetricBytes, Neutral.readMetrics
    "deltas", goldenDeltaBytes, Neutral.readDeltas
    "prices", goldenPriceBytes, Neutral.readPrices
    "books of version 3", thirdBookBytes, Neutral.readBooks
    "deltas of version 3", thirdDeltaBytes, Neutral.readDeltas
    "trades of version 2", secondTradeBytes, Neutral.readTrades
    "trades of version 1", firstTradeBytes, Neutral.readTrades
    "books of version 1", firstBookBytes, Neutral.readBooks
]

let private damaged name reading (bytes: byte[]) =
    try
        readAs reading bytes |> ignore
        Assert.Fail $"{name} were read from {shown bytes}"
    with :? InvalidDataException ->
        ()

[<Test>]
let ``what ends too early, or goes on behind its end, is damaged`` () =
    for name, bytes, reading in kinds do
        for length in 0 .. bytes.Length - 1 do
            damaged name reading (Array.truncate length bytes)

        damaged name reading (Array.append bytes [| 0uy |])

[<Test>]
let ``another version is not guessed at`` () =
    for name, bytes, reading in kinds do
        for version in [ 0uy; 5uy; 255uy ] do
            damaged name reading (Array.append [| version |] (Array.tail bytes))

/// The bytes with a number in the place of another.
let private withNumber (place: int) (number: int) (bytes: byte[]) =
    let changed = Array.copy bytes
    BitConverter.TryWriteBytes(Span(changed, place, 4), number) |> ignore
    changed

/// Where the counts, lengths and places stand.
let private numbers = [
    "trades", [ 1; 23; 27; 33; 39; 46; 50; 54; 58; 124 ]
    "books", [ 1; 23; 27; 33; 43; 47; 51; 90; 96; 116 ]
    "metrics", [ 1; 23; 27; 35; 42; 46; 50 ]
    "deltas", [ 1; 23; 27; 33; 43; 47; 51; 98 ]
    "prices", [ 1; 23; 27; 33; 43; 47; 51 ]
    "books of version 3", [ 1; 23; 27; 33; 43; 47; 51; 86; 92; 112 ]
    "deltas of version 3", [ 1; 23; 27; 33; 43; 47; 51; 94 ]
    "trades of version 2", [ 1; 23; 27; 33; 39; 46; 50; 54; 58; 116 ]
    "trades of version 1", [ 1; 23; 27; 33; 39; 46; 50; 54; 58; 108 ]
    "books of version 1", [ 1; 23; 27; 33; 43; 47; 51; 76; 82; 102 ]
]

[<Test>]
let ``a count that is negative or larger than what there is, is damage, and takes neither time nor memory``
    ()
    =
    let before = GC.GetAllocatedBytesForCurrentThread()

    for name, places in numbers do
        let _, bytes, reading = kinds |> List.find (fun (kind, _, _) -> kind = name)

        for place in places do
            for number in [ -1; Int32.MinValue; Int32.MaxValue; 0x10000000; 1_000_000 ] do
                damaged $"{name} with {number} at {place}" reading (withNumber place number bytes)

    let allocated = GC.GetAllocatedBytesForCurrentThread() - before
    Assert.That(allocated, Is.LessThan 50_000_000L)

[<Test>]
let ``what no row can have is damage`` () =
    let at place value (bytes: byte[]) =
        let changed = Array.copy bytes
        changed[place] <- value
        changed

    damaged "side" Neutral.readTrades (at 62 2uy goldenTradeBytes)
    damaged "source" Neutral.readTrades (at 63 3uy goldenTradeBytes)
    damaged "size" Neutral.readTrades (at 83 0x80uy goldenTradeBytes)
    damaged "collateral" Neutral.readTrades (at 107 0x80uy goldenTradeBytes)
    damaged "kind of a price" Neutral.readPrices (at 55 2uy goldenPriceBytes)
    damaged "prices of version 2" Neutral.readPrices (at 0 2uy goldenPriceBytes)
    damaged "verdict" Neutral.readBooks (at 55 3uy goldenBookBytes)
    damaged "doubt" Neutral.readBooks (at 56 (byte Doubt.all.Length) goldenBookBytes)
    damaged "reason" Neutral.readBooks (at 57 5uy goldenBookBytes)
    damaged "size of a level" Neutral.readBooks (at 115 0x80uy goldenBookBytes)
    damaged "side of a delta" Neutral.readDeltas (at 55 2uy goldenDeltaBytes)
    damaged "verdict of a delta" Neutral.readDeltas (at 56 3uy goldenDeltaBytes)
    damaged "doubt of a delta" Neutral.readDeltas (at 57 (byte Doubt.all.Length) goldenDeltaBytes)
    damaged "size of a delta" Neutral.readDeltas (at 81 0x80uy goldenDeltaBytes)
    damaged "deltas of version 1" Neutral.readDeltas (at 0 1uy goldenDeltaBytes)

[<Property(MaxTest = 500)>]
let ``whatever was done to an entry, it is read or it is damaged`` () =
    let change = gen {
        let! _, bytes, reading = Gen.elements kinds
        let! count = Gen.choose (1, 4)
        let! places = Gen.listOfLength count (Gen.choose (0, bytes.Length - 1))
        let! values = Gen.listOfLength count (Gen.choose (0, 255))
        let changed = Array.copy bytes

        for place, value in List.zip places values do
            changed[place] <- byte value

        return changed, reading
    }

    always change (fun (bytes, reading) ->
        try
            readAs reading bytes |> ignore
        with :? InvalidDataException ->
            ())
