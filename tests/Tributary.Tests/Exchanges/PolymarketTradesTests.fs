module Tributary.Tests.Exchanges.PolymarketTradesTests

open System
open NUnit.Framework
open FsCheck
open FsCheck.FSharp
open FsCheck.NUnit
open Tributary
open Tributary.Exchanges
open Tributary.Tests

let private v1 = [
    "proxyWallet", quoted "0xAbC1"
    "side", quoted "BUY"
    "asset", quoted "71"
    "conditionId", quoted "0xm"
    "size", "10.5"
    "price", "0.49"
    "timestamp", "1786728432"
    "title", quoted "Will it?"
    "slug", quoted "will-it"
    "icon", quoted ""
    "eventSlug", quoted "it"
    "outcome", quoted "Yes"
    "outcomeIndex", "0"
    "name", quoted "n"
    "pseudonym", quoted "p"
    "bio", quoted ""
    "profileImage", quoted ""
    "profileImageOptimized", quoted ""
    "transactionHash", quoted "0xT1"
]

let private v2 =
    let renamed =
        Map [
            "proxyWallet", "proxy_wallet"
            "asset", "token_id"
            "conditionId", "condition_id"
            "eventSlug", "event_slug"
            "outcomeIndex", "outcome_index"
            "profileImage", "profile_image"
            "profileImageOptimized", "profile_image_optimized"
            "transactionHash", "transaction_hash"
        ]

    v1
    |> List.map (fun (name, value) -> defaultArg (renamed.TryFind name) name, value)

let private recorded route =
    page (Walk.Trades([], PageState.first route))

let private read route body = fst (decode (recorded route) body)

let private row route members =
    List.exactlyOne (trades (read route (object members)))

[<Test>]
let ``a row is read exactly`` () =
    let trade = row "rows v1" v1
    equal ("0xm", "71", "Yes") (string trade.Market, string trade.Token, trade.Outcome)
    equal (Side.Buy, price "0.49", size "10.5") (trade.Side, trade.Price, trade.Size)
    equal ("0xt1", seconds 1_786_728_432L) (trade.Transaction, trade.At)

[<Test>]
let ``v1 and v2 rows of one fill have equal ids`` () =
    let id route members =
        let batch = read route (object members)
        Trades.number Trades.noCarry batch |> ignore
        batch.Trades[0].Id

    equal (id "rows v1" v1) (id "rows v2" v2)

    let quotedNumbers =
        changed
            [
                "size", quoted "10.500000"
                "price", quoted ".49"
                "timestamp", quoted "1786728432"
            ]
            v1

    equal (id "rows v1" v1) (id "rows v1" quotedNumbers)
    equal (id "rows v1" v1) (id "rows v1" (changed [ "proxyWallet", quoted "0xabc1" ] v1))

[<Property>]
let ``the order of the members changes nothing`` () =
    Prop.forAll (Arb.fromGen (Gen.zip (Gen.shuffle v1) (Gen.shuffle v2))) (fun (one, two) ->
        row "rows v1" (List.ofArray one) = row "rows v1" v1
        && row "rows v2" (List.ofArray two) = row "rows v2" v2)

[<Test>]
let ``a bad row costs no good one, and says what is wrong`` () =
    let bad = [
        [ "side", quoted "HOLD" ]
        [ "asset", "null" ]
        [ "asset", "7.1e76" ]
        [ "conditionId", quoted "" ]
        [ "size", quoted "many" ]
        [ "size", "-1" ]
        [ "price", "null" ]
        [ "timestamp", quoted "soon" ]
        [ "transactionHash", quoted "0x\\u0061" ]
        [ "outcome", quoted (String('x', 2_000)) ]
    ]

    let body =
        list [
            object v1
            yield! bad |> List.map (fun changes -> object (changed changes v1))
            object v1
        ]

    let batch, decoded = decode (recorded "rows v1") body
    isTrue decoded.Fault.IsNone
    equal 2 batch.Trades.Count
    equal bad.Length (reasons batch).Length

[<Test>]
let ``members without braces are no trade`` () =
    let batch, decoded = decode (recorded "rows v1") $"[{(object v1).Trim('{', '}')}]"
    equal 0 batch.Trades.Count
    isTrue (isFaulty decoded)

// Walks.

let private follows since : Follow list = [
    {
        Market = market "0xm"
        Since = seconds since
    }
]

let private asking source = {
    Registry.defaultOptions with
        TradesSource = source
}

let private ask source since =
    (Polymarket.collector (asking source)).Ask(Need.Trades(follows since)) |> single

let private envelope (rows: string list) pagination =
    object [ "data", list rows; "pagination", object pagination ]

let private v2At (second: int64) =
    object (changed [ "timestamp", string second ] v2)

let private more cursor = [ "has_more", "true"; "next_cursor", quoted cursor ]
let private last = [ "has_more", "false"; "next_cursor", "null" ]

[<Test>]
let ``a v2 walk goes on with its cursor and the same filters`` () =
    let first = ask "auto" 100L
    isTrue (first.Path.StartsWith "/v2/trades?condition=0xm&")
    isTrue (first.Path.Contains "taker_only=true")
    let _, decoded = decode first (envelope [ v2At 500L ] (more "c/1"))
    equal (first.Path + "&cursor=c%2F1") (single decoded.Next).Path
    equal (ValueSome(seconds 500L)) decoded.Head

[<Test>]
let ``an empty page is not the end, a page without a cursor is`` () =
    let _, empty = decode (ask "auto" 100L) (envelope [] (more "c1"))
    equal 1 empty.Next.Length
    let _, ended = decode (ask "auto" 100L) (envelope [ v2At 500L ] last)
    equal (0, false) (ended.Next.Length, isFaulty ended)

[<Test>]
let ``a v2 walk ends behind what is known`` () =
    let _, decoded =
        decode (ask "auto" 100L) (envelope [ v2At 500L; v2At 99L ] (more "c1"))

    equal [] decoded.Next

[<Test>]
let ``a cursor that comes again is a repeated page, and its rows are none`` () =
    let _, first = decode (ask "auto" 100L) (envelope [ v2At 500L ] (more "c1"))
    let batch, second = decode (single first.Next) (envelope [ v2At 500L ] (more "c1"))
    isTrue (isRepeated second)
    equal (0, 0) (batch.Trades.Count, second.Next.Length)

[<Test>]
let ``has_more without a cursor is a fault`` () =
    let _, decoded =
        decode (ask "auto" 100L) (envelope [ v2At 500L ] [ "has_more", "true" ])

    isTrue (isFaulty decoded)

[<Test>]
let ``a clock that is wrong does not move the head`` () =
    let far = received.Micros / 1_000_000L + 60L
    let _, decoded = decode (ask "auto" 100L) (envelope [ v2At far; v2At 500L ] last)
    equal (ValueSome(seconds 500L)) decoded.Head

[<Test>]
let ``a walk that is too long is cut, and says which span it did not read`` () =
    let request = ask "auto" 100L

    let late = {
        request with
            Walk = Walk.Trades(follows 100L, { PageState.first "v2" with Page = 200 })
    }

    let _, decoded = decode late (envelope [ v2At 500L ] (more "c1"))
    equal [] decoded.Next
    equal [ struct (market "0xm", seconds 100L, seconds 501L) ] decoded.Truncated

let private v1At (second: int64) =
    object (changed [ "timestamp", string second ] v1)

let private v1Page seconds = list (seconds |> List.map v1At)

[<Test>]
let ``a v1 window asks from the watermark, and from 1 for everything`` () =
    isTrue ((ask "v1" 100L).Path.EndsWith "&takerOnly=true&start=100")
    isTrue ((ask "v1" 0L).Path.EndsWith "&start=1")

[<Test>]
let ``a v1 page that is not full is the last`` () =
    let batch, decoded =
        decode (ask "v1" 100L) (v1Page [ for i in 1L .. 499L -> 1_000L - i ])

    equal (499, 0) (batch.Trades.Count, decoded.Next.Length)

[<Test>]
let ``a full v1 page leaves its oldest second to the next window`` () =
    let batch, decoded =
        decode (ask "v1" 100L) (v1Page [ for i in 0L .. 499L -> 1_000L - i / 2L ])

    equal 498 batch.Trades.Count
    equal (seconds 752L) batch.Trades[497].At
    isTrue ((single decoded.Next).Path.EndsWith "&start=100&end=751")
    equal [] decoded.Truncated

[<Test>]
let ``a second that fills a v1 page is kept and called truncated, and the walk goes on before it`` () =
    let batch, decoded = decode (ask "v1" 100L) (v1Page (List.replicate 500 777L))
    equal 500 batch.Trades.Count
    equal [ struct (market "0xm", seconds 777L, seconds 778L) ] decoded.Truncated
    isTrue ((single decoded.Next).Path.EndsWith "&end=776")

[<Test>]
let ``the watermark's own second, when full, is the end of a v1 walk`` () =
    let _, decoded = decode (ask "v1" 777L) (v1Page (List.replicate 500 777L))
    equal (0, 1) (decoded.Next.Length, decoded.Truncated.Length)

[<Test>]
let ``a full v1 page without a readable row is truncated, not forgotten`` () =
    let _, decoded = decode (ask "v1" 100L) (list (List.replicate 500 "{}"))
    equal [ struct (market "0xm", seconds 100L, received) ] decoded.Truncated

let private refused source (request: Request) status =
    match (Polymarket.collector (asking source)).OnFault request (Fault.Refused(status, "")) with
    | ValueSome decoded -> decoded.Next |> List.map _.Path
    | ValueNone -> []

[<TestCase(404)>]
[<TestCase(410)>]
[<TestCase(501)>]
let ``a v2 that is not there is answered by v1, when it may be`` (status: int) =
    equal [ (ask "v1" 100L).Path ] (refused "auto" (ask "auto" 100L) status)
    equal [] (refused "v2" (ask "v2" 100L) status)

[<Test>]
let ``a list of markets that is refused is asked for in halves`` () =
    let many = [
        for name in [ "a"; "b"; "c" ] ->
            {
                Market = market name
                Since = seconds 1L
            }
    ]

    let request = collector.Ask(Need.Trades many) |> single
    let halves = refused "auto" request 400
    equal 2 halves.Length
    isTrue (halves[0].Contains "condition=a,b&" && halves[1].Contains "condition=c&")
    equal [] (refused "auto" (ask "auto" 100L) 400)

[<Test>]
let ``markets are chunked, those that lag together`` () =
    let many = [
        for i in 1..45 ->
            {
                Market = market $"m{i}"
                Since = seconds (int64 (i % 3))
            }
    ]

    equal 3 (collector.Ask(Need.Trades many)).Length
