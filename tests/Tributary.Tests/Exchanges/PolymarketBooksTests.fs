module Tributary.Tests.Exchanges.PolymarketBooksTests

open System
open NUnit.Framework
open FsCheck
open FsCheck.FSharp
open FsCheck.NUnit
open Tributary
open Tributary.Tests

let private level p s =
    object [ "price", quoted p; "size", quoted s ]

let private side levels =
    list (levels |> List.map (fun (p, s) -> level p s))

let private members = [
    "market", quoted "0xm"
    "asset_id", quoted "71"
    "timestamp", quoted "1786728432337"
    "hash", quoted "924ec9bc1c6dd89f5db9b7b2b68cdab458cc2dc6"
    "bids", side [ "0.001", "2200.8"; "0.004", "100" ]
    "asks", side [ "0.999", "50"; "0.009", "25" ]
    "min_order_size", quoted "5"
    "tick_size", quoted "0.001"
    "neg_risk", "false"
    "last_trade_price", quoted "0.004"
]

let private asked tokens =
    page (Walk.Books(tokens |> List.map token))

let private read body = fst (decode (asked []) body)
let private only body = List.exactlyOne (books (read body))
let private levels (levels: Level[]) = [ for level in levels -> string level.Price, string level.Size ]

let private withBids bids =
    only (object (changed [ "bids", bids ] members))

[<Test>]
let ``levels stand best first, whichever way they came`` () =
    let book = only (object members)
    equal [ "0.004", "100"; "0.001", "2200.8" ] (levels book.Bids)
    equal [ "0.009", "25"; "0.999", "50" ] (levels book.Asks)
    let bestFirst = withBids (side [ "0.004", "100"; "0.001", "2200.8" ])
    equal (levels book.Bids) (levels bestFirst.Bids)
    equal Flags.None bestFirst.Flags

[<Test>]
let ``a book has the exchange's time and the row's tick`` () =
    let batch = read (object members)
    equal "2026-08-14T17:27:12.337000Z" (string batch.Books[0].At)
    equal (price "0.001") batch.Books[0].Tick

[<Test>]
let ``levels in no order are sorted, and flagged`` () =
    let book = withBids (side [ "0.2", "2"; "0.3", "3"; "0.1", "1" ])
    equal [ "0.3", "3"; "0.2", "2"; "0.1", "1" ] (levels book.Bids)
    equal Flags.Disordered book.Flags

[<Test>]
let ``of several levels at one price the last counts, and that alone is flagged`` () =
    for bids in
        [
            [ "0.1", "1"; "0.2", "2"; "0.2", "9"; "0.3", "3" ]
            [ "0.3", "3"; "0.2", "2"; "0.2", "9"; "0.1", "1" ]
        ] do
        let book = withBids (side bids)
        equal [ "0.3", "3"; "0.2", "9"; "0.1", "1" ] (levels book.Bids)
        equal Flags.DuplicateLevel book.Flags

[<Test>]
let ``a level of size zero is no level`` () =
    let book = withBids (side [ "0.1", "0"; "0.2", "2" ])
    equal [ "0.2", "2" ] (levels book.Bids)
    equal Flags.ZeroSize book.Flags

[<Test>]
let ``an empty side is empty`` () =
    equal [] (levels (withBids "[]").Bids)
    equal [] (levels (withBids "[ ]").Bids)

[<Test>]
let ``numbers may stand without quotes, in any order, with others beside them`` () =
    let book =
        withBids """[ {"size": 2200.8, "x": {"y": [1]}, "price": 1e-03}, {"price": ".004", "size": "100"} ]"""

    equal [ "0.004", "100"; "0.001", "2200.8" ] (levels book.Bids)

[<Test>]
let ``a size with more than six decimals is rounded and flagged`` () =
    equal Flags.Rounded (withBids (side [ "0.1", "1.0000005" ])).Flags

[<Test>]
let ``the very old form says buys and sells`` () =
    let renamed =
        members
        |> List.map (fun (name, value) ->
            match name with
            | "bids" -> "buys", value
            | "asks" -> "sells", value
            | _ -> name, value)

    equal (levels (only (object members)).Bids) (levels (only (object renamed)).Bids)

[<Property>]
let ``the order of the members changes nothing`` () =
    Prop.forAll (Arb.fromGen (Gen.shuffle members)) (fun shuffled ->
        only (object (List.ofArray shuffled)) = only (object members))

let private bad changes = object (changed changes members)

[<Test>]
let ``a bad book costs no good one, and says what is wrong`` () =
    let bodies = [
        object members
        bad [ "asset_id", "null" ]
        bad [ "asset_id", "7.1e76" ]
        bad [ "market", "7" ]
        bad [ "timestamp", quoted "soon" ]
        bad [ "bids", "7" ]
        bad [ "bids", list [ level "0.1" "-1" ] ]
        bad [ "bids", list [ level "x" "1" ] ]
        bad [ "bids", list [ "{\"price\":\"0.1\"}" ] ]
        bad [ "tick_size", quoted "wide" ]
        "7"
        "null"
        object members
    ]

    let batch, decoded = decode (asked []) (list bodies)
    isTrue decoded.Fault.IsNone
    equal 2 batch.Books.Count
    equal (bodies.Length - 2) (reasons batch).Length
    isTrue (reasons batch |> List.forall (fun reason -> reason <> ""))
    equal 8 batch.Levels.Count

[<Test>]
let ``members without braces are no book`` () =
    let inside = (object members).Trim('{', '}')
    let batch, decoded = decode (asked []) $"[{inside}]"
    equal 0 batch.Books.Count
    isTrue (isFaulty decoded)

[<Test>]
let ``answers are joined by token: what was left out is missing`` () =
    let second = object (changed [ "asset_id", quoted "73" ] members)

    let _, decoded =
        decode (asked [ "73"; "72"; "71" ]) (list [ object members; second ])

    equal [ token "72" ] decoded.Missing

[<Test>]
let ``one token is asked for by itself, several in one request`` () =
    let single = collector.Ask(Need.Books [ token "71" ]) |> single
    equal ("/book?token_id=71", ValueNone) (single.Path, single.Body)
    let many = collector.Ask(Need.Books [ for i in 1..101 -> token (string i) ])
    equal [ "/books"; "/book?token_id=101" ] (many |> List.map _.Path)

    equal
        (ValueSome """[{"token_id":"71"},{"token_id":"72"}]""")
        (collector.Ask(Need.Books [ token "71"; token "72" ]) |> PolymarketSupport.single).Body

let private refused tokens status =
    collector.OnFault (asked tokens) (Fault.Refused(status, ""))

[<Test>]
let ``a token without a book is missing, not an error`` () =
    match refused [ "71" ] 404 with
    | ValueSome decoded -> equal [ token "71" ] decoded.Missing
    | ValueNone -> Assert.Fail "not understood"

[<TestCase(400)>]
[<TestCase(413)>]
let ``a list that is refused is asked for in halves`` (status: int) =
    match refused [ "71"; "72"; "73" ] status with
    | ValueSome decoded -> equal [ "/books"; "/book?token_id=73" ] (decoded.Next |> List.map _.Path)
    | ValueNone -> Assert.Fail "not understood"

[<Test>]
let ``other refusals are faults`` () =
    isTrue (refused [ "71" ] 400).IsNone
    isTrue (refused [ "71"; "72" ] 404).IsNone
    isTrue (refused [ "71"; "72" ] 500).IsNone
