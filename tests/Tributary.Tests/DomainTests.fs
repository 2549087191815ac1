module Tributary.Tests.DomainTests

open NUnit.Framework
open Tributary

let private level p s : Level = { Price = price p; Size = size s }

let private book bids asks : OrderBookSnapshot = {
    Exchange = good (ExchangeId.Parse "polymarket")
    Market = market "0xm"
    Token = token "71"
    Bids = Array.ofList bids
    Asks = Array.ofList asks
    Hash = ""
    Sequence = ValueNone
    Verdict = Verdict.Unverifiable
    Doubt = Doubt.NoHash
    Reason = Reason.Poll
    At = seconds 0L
    Received = seconds 0L
    Flags = Flags.None
}

[<Test>]
let ``an empty book has no best, no spread and no mid`` () =
    let empty = book [] []
    isTrue (empty.BestBid.IsNone && empty.BestAsk.IsNone)
    isTrue (empty.Spread.IsNone && empty.Mid.IsNone && empty.SpreadBps.IsNone)

[<Test>]
let ``a one-sided book has a best on that side alone`` () =
    let bids = book [ level "0.999" "5" ] []
    equal (ValueSome(level "0.999" "5")) bids.BestBid
    isTrue (bids.BestAsk.IsNone && not bids.IsTwoSided && bids.Mid.IsNone)

[<Test>]
let ``a two-sided book has all of them, exactly`` () =
    let both = book [ level "0.49" "10"; level "0.48" "20" ] [ level "0.51" "5" ]
    equal (ValueSome 20_000L) both.Spread
    equal (ValueSome 0.5m) both.Mid
    equal (ValueSome 400m) both.SpreadBps

[<Test>]
let ``the mid may have seven decimals`` () =
    equal (ValueSome 0.5000005m) (book [ level "0.5" "1" ] [ level "0.500001" "1" ]).Mid

[<Test>]
let ``a crossed book has a negative spread`` () =
    equal (ValueSome -10_000L) (book [ level "0.51" "1" ] [ level "0.5" "1" ]).Spread

[<Test>]
let ``a mid of zero has no basis points`` () =
    isTrue (book [ level "0" "1" ] [ level "0" "1" ]).SpreadBps.IsNone

[<Test>]
let ``a trade's value is exact`` () =
    let trade: Trade = {
        Exchange = good (ExchangeId.Parse "polymarket")
        Market = market "0xm"
        Token = token "71"
        Outcome = "Yes"
        Side = Side.Buy
        Price = price "0.333333"
        Size = size "3000000.000001"
        Collateral = ValueNone
        Id = { High = 0UL; Low = 0UL }
        Transaction = ""
        Source = Source.Api
        At = seconds 0L
        Received = seconds 0L
        Flags = Flags.None
    }

    equal 999_999.000000333333m trade.Value

[<TestCase("")>]
[<TestCase("a b")>]
[<TestCase("a\tb")>]
[<TestCase("a\"b")>]
[<TestCase("a\\u0062")>]
let ``an identity has no white space, quotes or backslashes`` (text: string) =
    isTrue (MarketId.Parse text).IsError

[<Test>]
let ``an identity has 200 bytes at most`` () =
    isTrue (TokenId.Parse(System.String('9', 200))).IsOk
    isTrue (TokenId.Parse(System.String('9', 201))).IsError

[<Test>]
let ``a negative size is refused, a negative price is not`` () =
    isTrue (Size.parse "-1").IsError
    isTrue (Price.parse "-1").IsOk
    isTrue (Size.tryOfMillionths -1L).IsNone

[<Test>]
let ``the complement of a price is one minus it`` () =
    equal (price "0.45") (Price.complement (price "0.55"))

[<Test>]
let ``every cause reads back from its text`` () =
    for cause in Cause.all do
        equal (Some cause) (Cause.tryParse (string cause))

[<Test>]
let ``a trade id is 32 hex digits`` () =
    equal "00000000000000010000000000000002" (string { High = 1UL; Low = 2UL })
