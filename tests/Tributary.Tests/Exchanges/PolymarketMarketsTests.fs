module Tributary.Tests.Exchanges.PolymarketMarketsTests

open System
open NUnit.Framework
open FsCheck
open FsCheck.FSharp
open FsCheck.NUnit
open Tributary
open Tributary.Tests

let private members = [
    "id", quoted "540817"
    "question", quoted "Will it?"
    "conditionId", quoted "0xm"
    "slug", quoted "will-it"
    "endDate", quoted "2026-07-31T12:00:00Z"
    "startDate", quoted "2026-05-02T15:48:00.174Z"
    "outcomes", quoted """[\"Yes\", \"No\"]"""
    "outcomePrices", quoted """[\"0.485\", \"0.515\"]"""
    "clobTokenIds", quoted """[\"71\", \"72\"]"""
    "volume", quoted "79945.98005599984"
    "volumeNum", "79945.98005599984"
    "liquidityNum", "1e-05"
    "active", "true"
    "closed", "false"
    "enableOrderBook", "true"
    "acceptingOrders", "true"
    "orderPriceMinTickSize", "0.001"
    "orderMinSize", "5"
    "negRisk", "false"
    "updatedAt", quoted "2026-07-24T00:00:16.328Z"
    "events", list [ object [ "id", quoted "1"; "slug", quoted "it"; "title", quoted "It" ] ]
]

let private recorded route =
    page (Walk.Markets(Need.MarketsById [], PageState.first route))

let private markets (batch: Batch) = List.ofSeq batch.Markets

let private read body =
    fst (decode (recorded "offset markets ") body)

let private only members =
    List.exactlyOne (markets (read (object members)))

let private with' changes = only (changed changes members)

[<Test>]
let ``a market is read whole`` () =
    let market = only members

    equal
        ("0xm", "will-it", "Will it?", "it")
        (string market.Market, market.Slug, market.Question, market.Event)

    equal [ "Yes", "71"; "No", "72" ] [
        for outcome in market.Outcomes -> outcome.Name, string outcome.Token.Value
    ]

    equal (MarketStatus.Open, true, true) (market.Status, market.AcceptsOrders, market.IsTradable)
    equal (ValueSome(price "0.001"), ValueSome(size "5")) (market.TickSize, market.MinimumSize)
    equal (ValueSome(size "79945.980056"), ValueSome(size "0.00001")) (market.Volume, market.Liquidity)
    equal (ValueSome "2026-05-02T15:48:00.174000Z") (market.Start |> ValueOption.map string)
    equal (ValueSome "2026-07-24T00:00:16.328000Z") (market.Updated |> ValueOption.map string)
    equal (object members) market.Raw

[<TestCase("[\"Yes\", \"No\"]")>]
[<TestCase("\"[\\\"Yes\\\",\\\"No\\\"]\"")>]
let ``lists come as lists or as texts`` (outcomes: string) =
    equal [ "Yes"; "No" ] [ for outcome in (with' [ "outcomes", outcomes ]).Outcomes -> outcome.Name ]

[<TestCase("null")>]
[<TestCase("\"\"")>]
[<TestCase("\"[]\"")>]
[<TestCase("\"null\"")>]
[<TestCase("[]")>]
let ``no tokens is said in many ways`` (tokens: string) =
    let market = with' [ "clobTokenIds", tokens ]
    equal (0, false) (market.Tokens.Length, market.IsTradable)

[<Test>]
let ``markets of protocol v2 are traded by position ids`` () =
    let market =
        only (
            members
            @ [ "version", quoted "v2"; "positionIds", list [ quoted "81"; quoted "82" ] ]
        )

    equal [ "81"; "82" ] [ for token in market.Tokens -> string token ]

[<TestCase("true", "1", "0", "Yes")>]
[<TestCase("true", "0", "1", "No")>]
[<TestCase("true", "0.5", "0.5", "")>]
[<TestCase("true", "0", "0", "")>]
[<TestCase("false", "1", "0", "")>]
let ``the winner of a closed market is the outcome at 1``
    (closed: string, yes: string, no: string, winner: string)
    =
    let prices = quoted $"[\\\"{yes}\\\", \\\"{no}\\\"]"
    equal winner (with' [ "closed", closed; "outcomePrices", prices ]).Winner

[<Test>]
let ``a market's status follows its life`` () =
    equal MarketStatus.Pending (with' [ "acceptingOrders", "false" ]).Status
    equal MarketStatus.Closed (with' [ "closed", "true" ]).Status
    let resolved = members @ [ "umaResolutionStatus", quoted "resolved" ]
    equal MarketStatus.Resolved (only (changed [ "closed", "true" ] resolved)).Status

[<Test>]
let ``a market that is not deployed yet is a note, not a row`` () =
    let batch, decoded =
        decode (recorded "offset markets ") (object (changed [ "conditionId", quoted "" ] members))

    equal (0, 0) (batch.Markets.Count, batch.Rejections.Count)
    isTrue (decoded.Notes.Head.Contains "540817")

[<Property>]
let ``the order of the members changes nothing but the raw text`` () =
    Prop.forAll (Arb.fromGen (Gen.shuffle members)) (fun shuffled ->
        {
            only (List.ofArray shuffled) with
                Raw = ""
        } = { only members with Raw = "" })

[<Test>]
let ``a bad market costs no good one`` () =
    let bad = [
        object (changed [ "outcomes", quoted "[1,"; "id", quoted "1" ] members)
        object (changed [ "conditionId", quoted "0x m" ] members)
        object (changed [ "slug", quoted "\\ud800" ] members)
        "{}"
        "7"
    ]

    let batch, decoded =
        decode (recorded "offset markets ") (list [ object members; yield! bad; object members ])

    isTrue decoded.Fault.IsNone
    equal (2, bad.Length) (batch.Markets.Count, batch.Rejections.Count)

[<Test>]
let ``a market that is not UTF-8 is kept as it was, and nothing is thrown`` () =
    let body = utf8 (list [ object members; object members ])
    body[Array.IndexOf(body, byte 'W')] <- 0xFFuy
    let batch, _ = decodeBytes (recorded "offset markets ") body
    equal (1, 1) (batch.Markets.Count, batch.Rejections.Count)

let private event markets =
    object [
        "id", quoted "1"
        "slug", quoted "the-event"
        "title", quoted "It"
        "tags", list [ object [ "id", quoted "2"; "slug", quoted "crypto" ]; "7" ]
        "markets", list markets
    ]

[<Test>]
let ``the markets of an event are rows of that event, with its tags`` () =
    let batch, _ = decode (recorded "offset events ") (event [ object members ])
    let market = List.exactlyOne (markets batch)
    equal ("the-event", [ "crypto" ]) (market.Event, List.ofArray market.Tags)

[<Test>]
let ``a bad market of an event costs no other`` () =
    let batch, decoded =
        decode
            (recorded "offset events ")
            (list [
                event [
                    object members
                    "null"
                    "{\"id\":7,\"conditionId\":\"0x m\"}"
                    object members
                ]
            ])

    isTrue decoded.Fault.IsNone
    equal (2, 2) (batch.Markets.Count, batch.Rejections.Count)

// Walks.

let private bySlug slugs = collector.Ask(Need.MarketsBySlug slugs)

[<Test>]
let ``closed is always sent, and both ways for what is named`` () =
    equal
        [
            "/markets/keyset?limit=100&order=id&ascending=true&slug=a&slug=b&closed=false"
            "/markets/keyset?limit=100&order=id&ascending=true&slug=a&slug=b&closed=true"
        ]
        (bySlug [ "a"; "b" ] |> List.map _.Path)

    let discovery = {
        Tags = [ "crypto" ]
        MinVolume = ValueSome(size "1000")
        MinLiquidity = ValueNone
        Slugs = []
        WithClosed = false
        MaxMarkets = 10
    }

    let paths need = collector.Ask need |> List.map _.Path

    isTrue (
        paths (Need.MarketsByEvent [ "e" ])
        |> List.forall _.StartsWith("/events/keyset?")
    )

    for need in
        [
            Need.MarketsByEvent [ "e" ]
            Need.MarketsById [ market "0xm" ]
            Need.MarketsLike discovery
            Need.MarketsLike { discovery with Tags = [] }
        ] do
        isTrue (paths need |> List.forall (fun path -> path.Contains "closed="))

[<Property>]
let ``no address is longer than the 8 KB that the server takes`` (count: byte) (length: byte) =
    let slugs = [ for i in 1 .. int count + 1 -> String('é', int length % 190 + 1) + string i ]
    let requests = bySlug slugs
    let values (request: Request) = request.Path.Split("&slug=").Length - 1

    requests
    |> List.forall (fun request -> request.Path.Length < 8_000 && values request <= 100)
    && (requests |> List.sumBy values) = 2 * slugs.Length

let private first = bySlug [ "a" ] |> List.head

let private keyset ids cursor =
    object [
        "markets", list [ for id in ids -> object (changed [ "conditionId", quoted id ] members) ]
        yield! cursor
    ]

let private next cursor = [ "next_cursor", quoted cursor ]

[<Test>]
let ``a keyset walk sends its cursor as after_cursor, until there is none`` () =
    let _, decoded = decode first (keyset [ "m1" ] (next "c/1"))
    equal (first.Path + "&after_cursor=c%2F1") (single decoded.Next).Path
    let _, ended = decode (single decoded.Next) (keyset [ "m2" ] [])
    equal (0, false) (ended.Next.Length, isFaulty ended)

[<Test>]
let ``an empty page with a cursor is not the end`` () =
    let _, decoded = decode first (keyset [] (next "c1"))
    equal 1 decoded.Next.Length

[<Test>]
let ``page one for ever is a repeated page, and its rows are none`` () =
    let _, one = decode first (keyset [ "m1" ] (next "c1"))
    let batch, again = decode (single one.Next) (keyset [ "m1" ] (next "c2"))
    isTrue (isRepeated again)
    equal (0, 0) (batch.Markets.Count, again.Next.Length)
    let batch, again = decode (single one.Next) (keyset [ "m2" ] (next "c1"))
    isTrue (isRepeated again)
    equal 0 batch.Markets.Count

[<Test>]
let ``a page of something else is a fault`` () =
    for body in [ "{}"; "<html>"; ""; "[1"; """{"error":"no"}"""; keyset [ "m1" ] [] + "x" ] do
        let _, decoded = decode first body
        isTrue (isFaulty decoded)

[<TestCase(404)>]
[<TestCase(405)>]
[<TestCase(501)>]
let ``a keyset that is not there is answered by the offset list`` (status: int) =
    match collector.OnFault first (Fault.Refused(status, "")) with
    | ValueSome decoded ->
        let request = single decoded.Next
        equal "/markets?limit=100&offset=0&order=id&ascending=true&slug=a&closed=false" request.Path

        let full =
            list [
                for i in 1..100 -> object (changed [ "conditionId", quoted $"m{i}" ] members)
            ]

        let _, decoded = decode request full
        isTrue ((single decoded.Next).Path.Contains "&offset=100&")
        let _, repeated = decode (single decoded.Next) full
        isTrue (isRepeated repeated)
        let _, ended = decode request (list [ object members ])
        equal [] ended.Next
        isTrue (collector.OnFault request (Fault.Refused(status, ""))).IsNone
    | ValueNone -> Assert.Fail "not understood"
