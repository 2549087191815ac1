module Tributary.Tests.Stores.RowsTests

open System
open System.Text
open FsCheck.FSharp
open FsCheck
open NUnit.Framework
open FsCheck.NUnit
open Tributary
open Tributary.Stores.QuestDb
open Tributary.Tests
open Tributary.Tests.Stores.Vocabulary
open Tributary.Tests.Stores.IlpTests

let private options = {
    Protocol = 2
    Decimals = false
    LevelsAsText = false
    Collector = "main"
}

let private textOnly = {
    options with
        Protocol = 1
        LevelsAsText = true
}

let private exactly = {
    options with
        Protocol = 3
        Decimals = true
}

let private unexpected (index: int) reason : unit = failwith $"row {index}: {reason}"

let private encoded options lane (batch: Batch) =
    let payload = Payload()
    Encoder(options).Append(lane, batch, 0, Lane.count lane batch, payload, unexpected)
    payload

let private lines options lane batch = [
    let payload = encoded options lane batch

    for i in 0 .. payload.RowCount - 1 do
        readable (payload.Row i)
]

let private number (value: float) = $"==<10>{double value}"

let private side count =
    $"==<0E><0A><02><02><00><00><00><%02X{count}><00><00><00>"

let private array (levels: (string * string) list) =
    let numbers values =
        values
        |> List.map (fun (text: string) -> double (float text))
        |> String.concat ""

    side levels.Length
    + numbers (List.map fst levels)
    + numbers (List.map snd levels)

// ---- trades

[<Test>]
let ``a trade is a line of the trades table`` () =
    let batch = batch [ fill "m1" 1 100L ]
    let id = string batch.Trades[0].Id

    equal
        [
            $"trades,exchange=polymarket,market=m1,outcome=Yes,side=sell,source=api,flags=off_grid\\ old token=\"m1-yes\",price{number 0.55},size{number 10.5},trade_id=\"{id}\",transaction_hash=\"{transaction 1}\",received=1784851203000000t 1784851200000100t<0A>"
        ]
        (lines options Lane.Trades batch)

[<Test>]
let ``version 1 has a trade's numbers as text`` () =
    let batch = batch [ fill "m1" 1 100L ]
    let id = string batch.Trades[0].Id

    equal
        [
            $"trades,exchange=polymarket,market=m1,outcome=Yes,side=sell,source=api,flags=off_grid\\ old token=\"m1-yes\",price=0.55,size=10.5,trade_id=\"{id}\",transaction_hash=\"{transaction 1}\",received=1784851203000000t 1784851200000100t<0A>"
        ]
        (lines textOnly Lane.Trades batch)

[<Test>]
let ``version 3 has a trade's numbers as decimals of six places`` () =
    let batch = batch [ fill "m1" 1 100L ]
    let id = string batch.Trades[0].Id

    equal
        [
            $"trades,exchange=polymarket,market=m1,outcome=Yes,side=sell,source=api,flags=off_grid\\ old token=\"m1-yes\",price==<17><06><03><08>dp,size==<17><06><04><00><A0>7<A0>,trade_id=\"{id}\",transaction_hash=\"{transaction 1}\",received=1784851203000000t 1784851200000100t<0A>"
        ]
        (lines exactly Lane.Trades batch)

[<Test>]
let ``what was paid for a trade is a number like its size`` () =
    let batch = batch [ fill "m1" 1 100L; paid "5.774999" ]

    let between options =
        let line = (lines options Lane.Trades batch).Head
        let start = line.IndexOf ",size"
        line.Substring(start, line.IndexOf ",trade_id" - start)

    equal $",size{number 10.5},collateral{number 5.774999}" (between options)
    equal ",size=10.5,collateral=5.774999" (between textOnly)
    equal ",size==<17><06><04><00><A0>7<A0>,collateral==<17><06><03>X<1E><97>" (between exactly)

[<Test>]
let ``what a trade does not have is no symbol, and an empty text where it is a text`` () =
    let batch = batch [ fillOf "m1" "t1" "" "0.5" 1 100L ]

    let bare = {
        batch.Trades[0] with
            Side = Side.Buy
            Source = Source.Stream
            Flags = Flags.None
            Transaction = { Start = 0; Length = 0 }
            Id = { High = 1UL; Low = 0xFFUL }
    }

    batch.Trades[0] <- bare

    equal
        [
            $"trades,exchange=polymarket,market=m1,side=buy,source=stream token=\"t1\",price{number 0.5},size{number 10.5},trade_id=\"000000000000000100000000000000ff\",transaction_hash=\"\",received=1784851203000000t 1784851200000100t<0A>"
        ]
        (lines options Lane.Trades batch)

[<Test>]
let ``names are escaped, and one token of two markets has the market of each row`` () =
    let batch =
        batch [
            fillOf "m1" "t\"1" "Yes, \"maybe\"" "0.5" 1 100L
            fillOf "m=2" "t\"1" "No" "0.5" 2 200L
            fillOf "m1" "t\"1" "Yes, \"maybe\"" "0.5" 3 300L
        ]

    let heads =
        lines options Lane.Trades batch
        |> List.map (fun line -> line.Substring(0, line.IndexOf ",side"))

    equal
        [
            "trades,exchange=polymarket,market=m1,outcome=Yes\\,\\ \"maybe\""
            "trades,exchange=polymarket,market=m\\=2,outcome=No"
            "trades,exchange=polymarket,market=m1,outcome=Yes\\,\\ \"maybe\""
        ]
        heads

    for line in lines options Lane.Trades batch do
        isTrue (line.Contains " token=\"t\\\"1\",")

[<Test>]
let ``one encoder serves batches of several exchanges and several sets of names`` () =
    let encoder = Encoder options
    let names = Names()

    let of' names exchange market =
        let batch = batchOf names (fill market 1 100L)
        batch.Exchange <- exchange
        batch

    // "b" and "a" have the same number in their sets of names.
    let batches = [
        of' names "one" "a"
        of' names "two" "a"
        of' (Names()) "one" "b"
        of' names "one" "a"
    ]

    let payload = Payload()

    for batch in batches do
        encoder.AppendTrades(batch, 0, 1, payload, unexpected)

    equal [ "one,market=a,"; "two,market=a,"; "one,market=b,"; "one,market=a," ] [
        for i in 0..3 ->
            (readable (payload.Row i)).Substring("trades,exchange=".Length, "one,market=a,".Length)
    ]

[<Test>]
let ``some rows of a batch are appended, behind what is there`` () =
    let batch = batch [ fill "m1" 1 100L; fill "m1" 2 200L; fill "m1" 3 300L ]
    let encoder, payload = Encoder options, Payload()
    encoder.AppendTrades(batch, 2, 1, payload, unexpected)
    encoder.AppendTrades(batch, 0, 2, payload, unexpected)
    encoder.AppendTrades(batch, 1, 0, payload, unexpected)
    let all = lines options Lane.Trades batch
    equal [ all[2]; all[0]; all[1] ] [ for i in 0..2 -> readable (payload.Row i) ]

[<Test>]
let ``a row that the server cannot hold is left out, and the caller told why`` () =
    let ofYear10000 = 253_402_300_800_000_000L

    let early, late = -1_784_851_200_000_001L, ofYear10000 - 1_784_851_200_000_000L

    let batch =
        batch [
            fill "m1" 1 early
            fill "m1" 2 100L
            fill "m1" 3 late
            book "m1" 1 early
            delta "m1" 1 early
            point "m1" early
            linkOf (idOf 1) (idOf 2) late
            ordered (ownOrder "m1" "o-1" "live" "1" early)
            traded (ownTrade "m1" "t-1" "o-1" "matched" late)
            confirmed (matched "rain" "yes" "m1" early)
            hole { gap with Since = at late }
            measured "m" 1.0 early
            described {
                market with
                    Updated = ValueSome(at early)
            }
        ]

    batch.Rejections.Add {
        Exchange = "polymarket"
        Source = "s"
        Offset = 0
        Reason = "r"
        Bytes = [||]
        Received = at late
    }

    for lane in Lane.all do
        let refused = ResizeArray<int * string>()
        let payload = Payload()

        Encoder(options)
            .Append(lane, batch, 0, Lane.count lane batch, payload, (fun i reason -> refused.Add(i, reason)))

        equal (if lane = Lane.Trades then 1 else 0) payload.RowCount
        equal (if lane = Lane.Trades then [ 0; 2 ] else [ 0 ]) [ for i, _ in refused -> i ]

        for _, reason in refused do
            isTrue (reason.EndsWith "lies outside of 1970-01-01 to 9999-12-31, which QuestDB can hold")

// ---- deltas and links

[<Test>]
let ``a delta is one level's new total, with what is known of the book after it`` () =
    let contents =
        batch [
            deltaOf "m1" Side.Sell "0.52" "0" 7 "" 100L
            delta "m1" 3 101L
            fun batch ->
                let row = &batch.Deltas[1]

                row <- {
                    row with
                        Verdict = Verdict.Verified
                        Doubt = Doubt.None
                        Received = at 9L
                }
        ]

    equal
        [
            "orderbook_deltas,exchange=polymarket,market=m1,token=m1-yes,side=sell,verdict=unverifiable,doubt=not_checked ordinal=7i,price=0.52,size=0,hash=\"\",received=1784851203000000t 1784851200000100t<0A>"
            $"orderbook_deltas,exchange=polymarket,market=m1,token=m1-yes,side=buy,verdict=verified ordinal=3i,price=0.48,size=12.5,hash=\"{hash 3}\",received=1784851200000009t 1784851200000101t<0A>"
        ]
        (lines textOnly Lane.Deltas contents)

[<Test>]
let ``a link is dated with the fill that it is of`` () =
    equal
        [
            "trade_links other_id=\"0000000000000002ffffffffffffffff\",trade_id=\"0000000000000001ffffffffffffffff\" 1784851200000001t<0A>"
        ]
        (lines textOnly Lane.Links (batch [ link 1 2 ]))

[<Test>]
let ``a state of an own order is one line`` () =
    equal
        [
            "own_orders,exchange=polymarket,market=m1,token=m1-yes,side=sell,status=live order_id=\"o-1\",price=0.62,size=40.5,filled=10.5,received=1784851203000000t 1784851200000100t<0A>"
        ]
        (lines textOnly Lane.OwnOrders (batch [ ordered (ownOrder "m1" "o-1" "live" "10.5" 100L) ]))

[<Test>]
let ``a status of an own trade is one line, with the transaction when there is one`` () =
    let trade = ownTrade "m1" "t-1" "o-1" "matched" 100L

    equal
        [
            $"own_trades,exchange=polymarket,market=m1,token=m1-yes,side=buy,status=matched trade_id=\"t-1\",order_id=\"o-1\",price=0.333333,size=12.25,is_taker=t,transaction_hash=\"{transaction 7}\",received=1784851203000000t 1784851200000100t<0A>"
            "own_trades,exchange=polymarket,market=m1,token=m1-yes,side=buy,status=matched trade_id=\"t-2\",order_id=\"o-1\",price=0.333333,size=12.25,is_taker=f,transaction_hash=\"\",received=1784851203000000t 1784851200000100t<0A>"
        ]
        (lines
            textOnly
            Lane.OwnTrades
            (batch [
                traded trade
                traded {
                    trade with
                        Trade = "t-2"
                        IsTaker = false
                        Transaction = ""
                }
            ]))

[<Test>]
let ``a match is one line, and so is its withdrawal`` () =
    let rain = matched "rain in may" "yes" "m1" 100L

    equal
        [
            "market_matches,exchange=polymarket,market=m1,token=m1-yes,question=rain\\ in\\ may,answer=yes is_withdrawn=f 1784851200000100t<0A>"
            "market_matches,exchange=polymarket,market=m1,token=m1-yes,question=rain\\ in\\ may,answer=yes is_withdrawn=t 1784851200000101t<0A>"
        ]
        (lines
            textOnly
            Lane.Matches
            (batch [
                confirmed rain
                confirmed {
                    rain with
                        At = at 101L
                        IsWithdrawn = true
                }
            ]))

[<Test>]
let ``a price is what it is the price of, and a number`` () =
    let contents =
        batch [ point "m1" 100L; pointOf "m1" PriceKind.Probability "0.333333" 101L ]

    equal
        [
            "prices,exchange=polymarket,market=m1,token=m1-yes,kind=history price=0.55,received=1784851203000000t 1784851200000100t<0A>"
            "prices,exchange=polymarket,market=m1,token=m1-yes,kind=probability price=0.333333,received=1784851203000000t 1784851200000101t<0A>"
        ]
        (lines textOnly Lane.Prices contents)

[<Test>]
let ``a book says why it was taken and why it is doubted`` () =
    let contents =
        batch [
            bookOf "m1" [] [] "" 1L
            fun batch ->
                let row = &batch.Books[0]

                row <- {
                    row with
                        Verdict = Verdict.Mismatched
                        Doubt = Doubt.Mirror
                        Reason = Reason.Resync
                        Received = at 9L
                }
        ]

    equal
        [
            "orderbook_snapshots,exchange=polymarket,market=m1,token=m1-yes,verdict=mismatched,doubt=mirror,reason=resync bids=\"[]\",asks=\"[]\",hash=\"\",received=1784851200000009t 1784851200000001t<0A>"
        ]
        (lines textOnly Lane.Books contents)

// ---- books

let private best =
    $"best_bid{number 0.48},best_bid_size{number 30.0},best_ask{number 0.52},best_ask_size{number 10.0},mid{number 0.5},spread{number 0.04},spread_bps{number 800.0}"

let private bids, asks =
    [ "0.48", "30"; "0.47", "500.25" ], [ "0.52", "10"; "0.6", "1" ]

[<Test>]
let ``a book is one line, its sides as rows of prices and sizes`` () =
    equal
        [
            $"orderbook_snapshots,exchange=polymarket,market=m1,token=m1-yes,verdict=verified,reason=poll bids{array bids},asks{array asks},{best},hash=\"{hash 1}\",received=1784851203000000t 1784851200000100t<0A>"
        ]
        (lines options Lane.Books (batch [ book "m1" 1 100L ]))

[<Test>]
let ``where there are no arrays the sides are JSON`` () =
    equal
        [
            $"orderbook_snapshots,exchange=polymarket,market=m1,token=m1-yes,verdict=verified,reason=poll bids=\"[[0.48,30],[0.47,500.25]]\",asks=\"[[0.52,10],[0.6,1]]\",best_bid=0.48,best_bid_size=30,best_ask=0.52,best_ask_size=10,mid=0.5,spread=0.04,spread_bps=800,hash=\"{hash 1}\",received=1784851203000000t 1784851200000100t<0A>"
        ]
        (lines textOnly Lane.Books (batch [ book "m1" 1 100L ]))

[<Test>]
let ``an empty side is an array of nothing, and what follows from it is left out`` () =
    let bare bids asks (batch: Batch) =
        bookOf "m1" bids asks "" 100L batch
        let last = batch.Books.Count - 1

        batch.Books[last] <-
            {
                batch.Books[last] with
                    Verdict = Verdict.Unverifiable
                    Flags = Flags.OneSided ||| Flags.ZeroSize
            }

    let start =
        "orderbook_snapshots,exchange=polymarket,market=m1,token=m1-yes,verdict=unverifiable,reason=poll,flags=one_sided\\ zero_size "

    let finish = ",hash=\"\",received=1784851203000000t 1784851200000100t<0A>"

    equal
        [
            $"{start}bids{side 0},asks{array asks},best_ask{number 0.52},best_ask_size{number 10.0}{finish}"
            $"{start}bids{array bids},asks{side 0},best_bid{number 0.48},best_bid_size{number 30.0}{finish}"
            $"{start}bids{side 0},asks{side 0}{finish}"
        ]
        (lines options Lane.Books (batch [ bare [] asks; bare bids []; bare [] [] ]))

    let text = lines textOnly Lane.Books (batch [ bare [] [] ])
    equal [ $"{start}bids=\"[]\",asks=\"[]\"{finish}" ] text

[<Test>]
let ``a book around a price of zero has no spread in basis points`` () =
    let line =
        lines textOnly Lane.Books (batch [ bookOf "m1" [ "-0.01", "1" ] [ "0.01", "1" ] "h" 1L ])

    isTrue (line.Head.Contains ",mid=0,spread=0.02,hash=\"h\",")

// ---- doubles

[<Test>]
let ``millionths are the double that prints the same decimal`` () =
    for millionths in
        [
            0L
            1L
            -1L
            550_000L
            123_456_789L
            (1L <<< 53)
            (1L <<< 53) + 1L
            -(1L <<< 53) - 1L
            9_007_199_254_740_993L
            Int64.MaxValue
            Int64.MinValue
        ] do
        equal (Double.Parse(Fixed.text millionths)) (Doubles.ofMillionths millionths)

let private level (price: int64) (size: int64) : Level = {
    Price = Price.ofMillionths price
    Size = ValueOption.defaultValue Size.zero (Size.tryOfMillionths size)
}

let private sidesOf (levels: Level[]) =
    let bytes = Array.zeroCreate (16 * levels.Length)
    Doubles.ofLevels (ReadOnlySpan levels) (Span bytes)
    [ for i in 0 .. 2 * levels.Length - 1 -> BitConverter.ToDouble(bytes, 8 * i) ]

let private oneByOne (levels: Level[]) = [
    for level in levels -> Double.Parse(Fixed.text level.Price.Millionths)
    for level in levels -> Double.Parse(Fixed.text level.Size.Millionths)
]

[<Property(MaxTest = 300)>]
let ``levels are the same doubles, however many they are and however large`` () =
    let usual = Gen.choose64 (0L, 5_000_000_000L)

    let any =
        Gen.frequency [
            20, usual
            1, Gen.elements [ 1L <<< 52; (1L <<< 52) - 1L; (1L <<< 53) + 1L; Int64.MaxValue ]
        ]

    let prices =
        Gen.frequency [ 20, any; 1, Gen.elements [ -1L; -550_000L; Int64.MinValue ] ]

    let levels =
        Gen.zip prices any
        |> Gen.map (fun (price, size) -> level price size)
        |> Gen.arrayOf

    Prop.forAll (Arb.fromGen levels) (fun levels -> equal (oneByOne levels) (sidesOf levels))

// ---- the rest

[<Test>]
let ``a market is a line of markets, and one of market_stats`` () =
    let version = Convert.ToHexStringLower(Tributary.Stores.Content.versionOf market)
    let contents = batch [ described market ]

    let expected =
        "markets,exchange=polymarket,market=m1,status=open "
        + "event=\"rain\",slug=\"will-it-rain\",question=\"Will it rain, \\\"really\\\"?\","
        + "outcomes=\"[{\\\"name\\\":\\\"Yes\\\",\\\"token\\\":\\\"m1-yes\\\"},{\\\"name\\\":\\\"No\\\",\\\"token\\\":null}]\","
        + "tags=\"[\\\"weather\\\",\\\"gr<C3><B6><C3><9F>e\\\"]\","
        + $"accepts_orders=t,tick_size=0.01,minimum_size=5,neg_risk=f,ends=1784851209000000t,winner=\"\",updated=1784851200001000t,received=1784851203000000t,version=\"{version}\",raw=\"{{\\\"slug\\\":\\\"will-it-rain\\\"}}\" 1784851200001000t<0A>"

    equal [ expected ] (lines textOnly Lane.Markets contents)

    equal
        [
            $"market_stats,exchange=polymarket,market=m1 volume{number 1000.5} 1784851200001000t<0A>"
        ]
        (lines options Lane.MarketStats contents)

[<Test>]
let ``a market that the exchange gave no time for has ours, and without volumes no stats`` () =
    let bare = {
        market with
            Updated = ValueNone
            TickSize = ValueNone
            MinimumSize = ValueNone
            Volume = ValueNone
            Start = ValueSome(at 1L)
            End = ValueNone
            ClosedAt = ValueSome(at 2L)
            Winner = "Yes"
    }

    let line = (lines options Lane.Markets (batch [ described bare ])).Head
    isTrue (line.EndsWith " 1784851203000000t<0A>")

    isTrue (
        line.Contains
            "accepts_orders=t,neg_risk=f,starts=1784851200000001t,closed=1784851200000002t,winner=\"Yes\",received="
    )

    equal [] (lines options Lane.MarketStats (batch [ described bare ]))

[<Test>]
let ``a gap is written as it is now: open, closed, healed`` () =
    let start =
        "gaps,collector=main,exchange=polymarket,stream=books,market=m1,cause=disconnect token="

    equal
        [
            $"{start}\"m1-yes\" 1784851200000100t<0A>"
            $"{start}\"\",until=1784851200000900t 1784851200000100t<0A>"
            $"{start}\"m1-yes\",until=1784851200000900t,healed_at=1784851200001000t,healed_by=\"trades page\" 1784851200000100t<0A>"
        ]
        (lines
            options
            Lane.Gaps
            (batch [
                hole gap
                hole {
                    gap with
                        Token = ValueNone
                        Until = ValueSome(at 900L)
                }
                hole {
                    gap with
                        Until = ValueSome(at 900L)
                        Healed = ValueSome(struct (at 1_000L, "trades page"))
                }
            ]))

[<Test>]
let ``what was rejected is kept with its bytes as base64 and the hash of its content`` () =
    let batch = batch [ rejected "no number" "{\"a\":\n" "file \"x\":3" ]

    let content =
        Convert.ToHexStringLower(Tributary.Stores.Content.contentOf batch.Rejections[0])

    equal 32 content.Length

    equal
        [
            $"quarantine,exchange=polymarket source=\"file \\\"x\\\":3\",position=17i,reason=\"no number\",bytes=\"eyJhIjoK\",content=\"{content}\" 1784851203000000t<0A>"
        ]
        (lines options Lane.Rejections batch)

[<Test>]
let ``a metric is its name, its labels and a number`` () =
    let batch = batch [ measured "rows_stored" 12.5 100L ]
    batch.Metrics.Add { batch.Metrics[0] with Labels = "" }

    equal
        [
            $"collection_metrics,collector=main,name=rows_stored,labels=exchange\\=polymarket value{number 12.5} 1784851200000100t<0A>"
            $"collection_metrics,collector=main,name=rows_stored value{number 12.5} 1784851200000100t<0A>"
        ]
        (lines options Lane.Metrics batch)

// ---- the tables

let private everythingThereIs () =
    let complete = {
        market with
            Start = ValueSome(at 1L)
            ClosedAt = ValueSome(at 2L)
            Liquidity = ValueSome(size "1")
            OpenInterest = ValueSome(size "2")
    }

    let healed = {
        gap with
            Until = ValueSome(at 900L)
            Healed = ValueSome(struct (at 1_000L, "x"))
    }

    let batch =
        batch [
            fill "m1" 1 100L
            paid "5.775"
            book "m1" 1 100L
            delta "m1" 1 100L
            point "m1" 100L
            link 1 2
            ordered (ownOrder "m1" "o-1" "live" "1" 100L)
            traded (ownTrade "m1" "t-1" "o-1" "matched" 100L)
            confirmed (matched "rain" "yes" "m1" 100L)
            described complete
            hole healed
            rejected "r" "b" "s"
            measured "m" 1.0 100L
        ]

    batch.Books[0] <-
        {
            batch.Books[0] with
                Flags = Flags.Crossed
                Doubt = Doubt.NoHash
        }

    batch

[<TestCase(1, false)>]
[<TestCase(2, false)>]
[<TestCase(3, true)>]
let ``a row that has everything has every column of its table, in its order and of its kind``
    (protocol: int, decimals: bool)
    =
    let options = {
        Protocol = protocol
        Decimals = decimals
        LevelsAsText = protocol < 2
        Collector = "main"
    }

    let batch = everythingThereIs ()

    for lane in Lane.all do
        let table =
            Tables.all protocol decimals |> List.find (fun table -> table.Name = lane.Table)

        match Tributary.FakeQuestDb.Ilp.parse protocol (encoded options lane batch).Memory with
        | Error error -> failwith $"%A{error}"
        | Ok rows ->
            equal 1 rows.Count
            equal table.Name rows[0].Table
            // Nobody gives sequence numbers yet.
            let columns =
                table.Columns.Tail |> List.filter (fun column -> column.Name <> "sequence")

            let symbols, fields =
                columns |> List.partition (fun column -> column.Kind = Tables.Kind.Symbol)

            equal [ for column: Tables.Column in symbols -> column.Name ] [
                for name, _ in rows[0].Symbols -> name
            ]

            let names (columns: Tables.Column list) = columns |> List.map _.Name |> List.sort
            equal (names fields) (List.sort [ for name, _ in rows[0].Fields -> name ])

            for name, value in rows[0].Fields do
                let kind = (columns |> List.find (fun column -> column.Name = name)).Kind

                let expected =
                    match value with
                    | Tributary.FakeQuestDb.Value.Text _ -> Tables.Kind.Varchar
                    | Tributary.FakeQuestDb.Value.Long _ -> Tables.Kind.Long
                    | Tributary.FakeQuestDb.Value.Double _ -> Tables.Kind.Double
                    | Tributary.FakeQuestDb.Value.Boolean _ -> Tables.Kind.Boolean
                    | Tributary.FakeQuestDb.Value.Timestamp _ -> Tables.Kind.Timestamp
                    | Tributary.FakeQuestDb.Value.Decimal _ -> Tables.Kind.Decimal
                    | Tributary.FakeQuestDb.Value.Array _ -> Tables.Kind.Levels
                    | other -> failwith $"{name}: %A{other}"

                if expected <> kind then
                    Assert.Fail $"{table.Name}.{name} is {kind} but was sent as %A{value}"

[<Test>]
let ``an encoder needs a version that has what it is to write`` () =
    for wrong in
        [
            { options with Decimals = true }
            { options with Protocol = 1 }
            { options with Protocol = 4 }
        ] do
        Assert.Throws<ArgumentException>(fun () -> Encoder wrong |> ignore) |> ignore

[<Test>]
let ``rows of tokens that were met allocate nothing`` () =
    let contents =
        batch [
            for i in 1..50 do
                fill $"m{i % 7}" i (int64 i)
                book $"m{i % 7}" i (int64 i)
                delta $"m{i % 7}" i (int64 i)
                point $"m{i % 7}" (int64 i)

                if i % 2 = 0 then
                    paid "5.775"
        ]

    for options in [ textOnly; options; exactly ] do
        let encoder, payload = Encoder options, Payload()

        let work () =
            payload.Clear()
            encoder.AppendTrades(contents, 0, contents.Trades.Count, payload, unexpected)
            encoder.AppendBooks(contents, 0, contents.Books.Count, payload, unexpected)
            encoder.AppendDeltas(contents, 0, contents.Deltas.Count, payload, unexpected)
            encoder.AppendPrices(contents, 0, contents.Prices.Count, payload, unexpected)

        for _ in 1..3 do
            work ()

        let before = GC.GetAllocatedBytesForCurrentThread()
        work ()
        equal 0L (GC.GetAllocatedBytesForCurrentThread() - before)

/// Any text that a name may be.
let private anyName =
    Gen.elements [ "a"; " "; ","; "="; "\""; "\\"; "é"; "😀"; "0" ]
    |> Gen.nonEmptyListOf
    |> Gen.map (String.concat "")

[<Property(MaxTest = 200)>]
let ``a trade is read as it was written, whatever its names`` () =
    let names = Gen.zip (Gen.zip anyName anyName) (Gen.zip anyName anyName)

    Prop.forAll (Arb.fromGen names) (fun ((market, token), (outcome, transaction)) ->
        let batch = batch [ fillOf market token outcome "0.55" 1 100L ]

        batch.Trades[0] <-
            {
                batch.Trades[0] with
                    Transaction = batch.Keep(ReadOnlySpan(Encoding.UTF8.GetBytes transaction))
            }

        match Tributary.FakeQuestDb.Ilp.parse 2 (encoded options Lane.Trades batch).Memory with
        | Error error -> failwith $"%A{error}"
        | Ok rows ->
            let symbols, fields = dict rows[0].Symbols, dict rows[0].Fields
            equal (market, outcome) (symbols["market"], symbols["outcome"])
            equal (Tributary.FakeQuestDb.Value.Text token) fields["token"]
            equal (Tributary.FakeQuestDb.Value.Text transaction) fields["transaction_hash"])
