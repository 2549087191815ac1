module Tributary.Tests.ValidationTests

open System
open NUnit.Framework
open Tributary

let private now = seconds 1_800_000_000L
let private none: Slice = { Start = 0; Length = 0 }

let private row p s (at: Instant) : TradeRow = {
    Market = { Key = 1 }
    Token = { Key = 2 }
    Outcome = { Key = 0 }
    Side = Side.Buy
    Source = Source.Api
    Price = price p
    Size = size s
    At = at
    Received = now
    Transaction = none
    Wallet = none
    Flags = Flags.None
    Occurrence = 0
    Collateral = ValueNone
    Id = { High = 0UL; Low = 0UL }
    Inserted = false
}

let private judge live tick p s at =
    let mutable row = row p s at
    let error = Validation.trade Validation.defaults live now (price tick) &row
    error, row.Flags

[<TestCase("0.5", "1", RuleError.None, Flags.None)>]
[<TestCase("0", "1", RuleError.None, Flags.AtBound)>]
[<TestCase("1", "1", RuleError.None, Flags.AtBound)>]
[<TestCase("0.0009", "1", RuleError.None, Flags.OutOfBounds)>]
[<TestCase("0.001", "1", RuleError.None, Flags.None)>]
[<TestCase("0.9995", "1", RuleError.None, Flags.OutOfBounds)>]
[<TestCase("-0.1", "1", RuleError.PriceOutside, Flags.None)>]
[<TestCase("1.000001", "1", RuleError.PriceOutside, Flags.None)>]
[<TestCase("0.5", "0", RuleError.SizeNotPositive, Flags.None)>]
let ``a trade is judged by its price and size`` (p: string, s: string, error: RuleError, flags: Flags) =
    equal (error, flags) (judge true "0" p s now)

[<TestCase("0.01", "0.555", Flags.OffGrid)>]
[<TestCase("0.001", "0.555", Flags.None)>]
[<TestCase("0.0025", "0.5025", Flags.None)>]
[<TestCase("0", "0.123456", Flags.None)>]
let ``a price off the grid is flagged where the tick is known`` (tick: string, p: string, flags: Flags) =
    equal (RuleError.None, flags) (judge true tick p "1" now)

[<TestCase(0L, true, RuleError.None, Flags.None)>]
[<TestCase(1L, true, RuleError.None, Flags.Future)>]
[<TestCase(300L, true, RuleError.None, Flags.Future)>]
[<TestCase(301L, true, RuleError.FarFuture, Flags.None)>]
[<TestCase(-86_400L, true, RuleError.None, Flags.None)>]
[<TestCase(-86_401L, true, RuleError.None, Flags.Old)>]
[<TestCase(-86_401L, false, RuleError.None, Flags.None)>]
let ``a trade is judged by its time, its age in a live follow alone``
    (offset: int64, live: bool, error: RuleError, flags: Flags)
    =
    equal (error, flags) (judge live "0" "0.5" "1" (now + TimeSpan.FromSeconds(float offset)))

let private level p : Level = { Price = price p; Size = size "1" }

let private judgeBook (tick: string) (at: Instant) bids asks =
    let mutable row: BookRow = {
        Market = { Key = 1 }
        Token = { Key = 2 }
        At = at
        Received = now
        FirstBid = 0
        BidCount = List.length bids
        FirstAsk = 0
        AskCount = List.length asks
        Hash = none
        Tick = price tick
        LastTrade = { Start = 0; Length = -1 }
        Sequence = 0
        Verdict = Verdict.Unverifiable
        Doubt = Doubt.NoHash
        Reason = Reason.Poll
        Flags = Flags.None
        Inserted = false
    }

    let levels = List.map level >> Array.ofList

    let error =
        Validation.book
            Validation.defaults
            now
            Price.zero
            &row
            (ReadOnlySpan(levels bids))
            (ReadOnlySpan(levels asks))

    error, row.Flags

[<Test>]
let ``a book is judged by its sides`` () =
    let flagged flags bids asks =
        equal (RuleError.None, flags) (judgeBook "0.01" now bids asks)

    flagged Flags.None [ "0.5"; "0.4" ] [ "0.6" ]
    flagged Flags.Empty [] []
    flagged Flags.OneSided [ "0.99" ] []
    flagged Flags.OneSided [] [ "0.01" ]
    flagged Flags.Crossed [ "0.6" ] [ "0.5" ]
    flagged Flags.Locked [ "0.5" ] [ "0.5" ]
    flagged Flags.OffGrid [ "0.555" ] [ "0.6" ]

[<Test>]
let ``a book with an impossible price or time is no book`` () =
    equal RuleError.PriceOutside (fst (judgeBook "0" now [ "0.5" ] [ "1.5" ]))
    equal RuleError.FarFuture (fst (judgeBook "0" (now + TimeSpan.FromHours 1.0) [] []))

[<Test>]
let ``a book is flagged for its age`` () =
    equal (RuleError.None, Flags.Empty ||| Flags.Stale) (judgeBook "0" (now - TimeSpan.FromDays 2.0) [] [])

    equal
        (RuleError.None, Flags.Empty ||| Flags.Future)
        (judgeBook "0" (now + TimeSpan.FromSeconds 1.0) [] [])

let private id n : TradeId = { High = 0UL; Low = uint64 n }

[<Test>]
let ``a repeat is known until newer ids have pushed it out, the oldest first`` () =
    let repeats = Repeats 3
    equal [ true; true; true; false ] [ for n in [ 1; 2; 3; 1 ] -> repeats.Remember(id n) ]
    isTrue (repeats.Remember(id 4))
    equal [ false; true; true; true ] [ for n in 1..4 -> repeats.Knows(id n) ]
    equal 3 repeats.Count

[<Test>]
let ``sifting turns what cannot be true into rejections with their bytes`` () =
    let batch = Batch()
    let body = "[aaa,bbb,ccc]"

    for i, p in List.indexed [ "0.5"; "1.5"; "0.6" ] do
        let mutable row = row p "1" now
        let mutable origin: Slice = { Start = 1 + 4 * i; Length = 3 }
        batch.Trades.Add &row
        batch.TradeOrigins.Add &origin

    batch.Received <- now
    Validation.sift Validation.defaults true (fun _ -> Price.zero) (ReadOnlySpan(utf8 body)) "test" batch
    equal [ price "0.5"; price "0.6" ] [ for i in 0 .. batch.Trades.Count - 1 -> batch.Trades[i].Price ]

    equal [ "bbb" ] [
        for rejection in batch.Rejections -> Text.Encoding.UTF8.GetString rejection.Bytes
    ]
