module Tributary.Tests.Exchanges.ManifoldTests

open System
open System.Text
open NUnit.Framework
open FsCheck
open FsCheck.FSharp
open FsCheck.NUnit
open Tributary
open Tributary.Exchanges
open Tributary.Tests

let internal manifold = Manifold.collector Registry.defaultOptions
let private received = Instant.ofMillis 1_795_341_600_000L

let private answered (request: Request) (body: string) =
    let batch = Batch()
    let decoded = manifold.Decode request (memory body) received batch
    batch, decoded

let private first need = List.head (manifold.Ask need)
let private byId = first (Need.MarketsById [ good (MarketId.Parse "abc") ])

let private market (fields: string) =
    $$"""{"id":"abc","slug":"will-it-rain","question":"Will it rain?","createdTime":1790000000000,"closeTime":1799000000000,"volume":205.5,"totalLiquidity":100,"lastUpdatedTime":1795000000000,{{fields}}}"""

let private binary =
    "\"outcomeType\":\"BINARY\",\"mechanism\":\"cpmm-1\",\"isResolved\":false"

let private marketOf (fields: string) =
    let batch, decoded = answered byId (market fields)
    equal ValueNone decoded.Fault
    single (List.ofSeq batch.Markets)

// ---- markets

[<Test>]
let ``a binary market has a token for each side`` () =
    let one = marketOf binary
    equal [ "abc:YES"; "abc:NO" ] (one.Tokens |> Array.map string |> List.ofArray)
    equal (MarketStatus.Open, true, ValueSome(size "205.5")) (one.Status, one.AcceptsOrders, one.Volume)
    equal (ValueSome(Instant.ofMillis 1_799_000_000_000L)) one.End

[<Test>]
let ``of a market with answers each has a pair of tokens, whose names tell them apart`` () =
    let one =
        marketOf
            """ "outcomeType":"MULTIPLE_CHOICE","mechanism":"cpmm-multi-1","isResolved":true,"resolution":"b2","answers":[{"id":"a1","text":"Red"},{"id":"b2","text":"Blue"}] """

    equal [
        "Red", "abc:a1:YES"
        "Red (no)", "abc:a1:NO"
        "Blue", "abc:b2:YES"
        "Blue (no)", "abc:b2:NO"
    ] [ for outcome in one.Outcomes -> outcome.Name, string outcome.Token.Value ]

    equal (MarketStatus.Resolved, "Blue") (one.Status, one.Winner)

[<TestCase("FREE_RESPONSE", "dpm-2")>]
[<TestCase("POLL", "none")>]
let ``a market of an older kind is described, and takes no orders`` (outcomes: string) (mechanism: string) =
    let one =
        marketOf $"\"outcomeType\":\"{outcomes}\",\"mechanism\":\"{mechanism}\",\"isResolved\":false"

    equal (0, false) (one.Tokens.Length, one.IsTradable)

[<TestCase("\"isResolved\":true,\"resolution\":\"YES\"", "resolved", "Yes")>]
[<TestCase("\"isResolved\":true,\"resolution\":\"CANCEL\"", "resolved", "")>]
[<TestCase("\"isResolved\":true,\"resolution\":\"MKT\"", "resolved", "")>]
[<TestCase("\"isResolved\":false,\"resolution\":\"YES\"", "open", "")>]
[<TestCase("\"isResolved\":false,\"closeTime\":1795000000000", "closed", "")>]
[<TestCase("\"isResolved\":false,\"closeTime\":253402300799999", "open", "")>]
let ``a market is resolved when it says so, and may be resolved anew``
    (fields: string)
    (status: string)
    (winner: string)
    =
    let one = marketOf $"\"mechanism\":\"cpmm-1\",{fields}"
    equal (status, winner) (string one.Status, one.Winner)

[<Test>]
let ``a list leaves out answers: those markets are asked for one by one`` () =
    let discovery =
        first (
            Need.MarketsLike {
                Tags = [ "weather" ]
                MinVolume = ValueNone
                MinLiquidity = ValueNone
                Slugs = []
                WithClosed = false
                MaxMarkets = 10
            }
        )

    Assert.That(discovery.Path, Does.Contain "topicSlug=weather")

    let batch, decoded =
        answered discovery $"""[{market binary},{market "\"mechanism\":\"cpmm-multi-1\""}]"""

    equal 1 batch.Markets.Count
    equal "/market/abc" (single decoded.Next).Path

[<Test>]
let ``a market without answers is asked for once, and has no outcomes`` () =
    let batch, decoded =
        answered byId (market "\"mechanism\":\"cpmm-multi-1\",\"answers\":[]")

    equal [] decoded.Next
    equal 0 (single (List.ofSeq batch.Markets)).Outcomes.Length

[<Test>]
let ``answers are markets of their own in the second version of that mechanism, too`` () =
    let one =
        marketOf """ "mechanism":"cpmm-multi-2","isResolved":false,"answers":[{"id":"a1","text":"Red"}] """

    equal [ "abc:a1:YES"; "abc:a1:NO" ] (one.Tokens |> Array.map string |> List.ofArray)

[<TestCase("dpm-2", 0)>]
[<TestCase("cpmm-1", 0)>]
[<TestCase("perp", 0)>]
[<TestCase("something new", 1)>]
let ``a mechanism that nobody knows is said`` (mechanism: string) (notes: int) =
    let _, decoded = answered byId (market $"\"mechanism\":\"{mechanism}\"")
    equal notes decoded.Notes.Length

[<TestCase(1000, 1)>]
[<TestCase(999, 0)>]
let ``a topic of more markets than one answer holds is said`` (count: int) (notes: int) =
    let rows = String.concat "," (List.replicate count (market binary))
    let _, decoded = answered (first (Need.MarketsByEvent [ "weather" ])) $"[{rows}]"
    equal notes decoded.Notes.Length

// ---- recordings

let private shapeOf (json: string) =
    match Shapes.recognise [ manifold ] (memory json) with
    | ValueSome(struct (_, Shape.Rows(kind, _))) -> "rows: " + kind
    | ValueSome(struct (_, Shape.Holds(what, _))) -> "holds " + what
    | ValueSome(struct (_, Shape.Recognised kind)) -> kind
    | ValueNone -> ""

[<TestCase("""{"message":"Contract not found"}""", "error")>]
[<TestCase("""{"message":"Bad","error":"x","details":[]}""", "error")>]
[<TestCase("""{"ts":1700000000123,"message":{"type":"trade","sid":2}}""", "")>]
[<TestCase("""{"message":"{\"type\":\"trade\"}"}""", "")>]
[<TestCase("""{"ts":1,"message":"a text"}""", "")>]
[<TestCase("""{"type":"ack","success":false,"error":"no"}""", "acknowledgement")>]
[<TestCase("""{"type":"broadcast","topic":"global/updated-contract","data":{"contract":{"id":"abc","volume":5}}}""",
           "news of a market")>]
[<TestCase("""{"type":"broadcast","topic":"contract/abc/new-subsidy","data":{"amount":5}}""",
           "news of a market")>]
[<TestCase("""{"type":"broadcast","topic":"contract/abc/new-bet","data":{"bets":[]}}""", "holds 'data'")>]
let ``what a recording holds is told by more than one word of it`` (json: string) (kind: string) =
    equal kind (shapeOf json)

// ---- bets

let private follow = {
    Market = good (MarketId.Parse "abc")
    Since = Instant.ofMillis 1_795_000_000_000L
}

let private bet (fields: string) =
    $$"""{"id":"HE7RNOyhIYndGatXkRKB","contractId":"abc","userId":"u1","createdTime":1795300000123,{{fields}}}"""

let private bets (rows: string list) =
    let rows = String.concat "," rows
    answered (first (Need.Trades [ follow ])) $"[{rows}]"

[<TestCase("YES", "10", "20", "abc:YES", "buy", "0.5")>]
[<TestCase("NO", "10", "14.813303613234652", "abc:NO", "buy", "0.675069")>]
[<TestCase("YES", "-7.5", "-10", "abc:YES", "sell", "0.75")>]
[<TestCase("NO", "-1", "-10", "abc:NO", "sell", "0.1")>]
let ``a bet is a trade of its outcome, at what a share cost; a negative amount is a sale``
    (outcome: string)
    (amount: string)
    (shares: string)
    (token: string)
    (side: string)
    (price: string)
    =
    let batch, decoded =
        bets [
            bet $"\"outcome\":\"{outcome}\",\"amount\":{amount},\"shares\":{shares},\"probAfter\":0.31"
        ]

    equal (ValueNone, []) (decoded.Fault, reasons batch)
    let one = batch.Trade 0
    equal (token, side, price) (string one.Token, Side.text one.Side, string one.Price)
    equal ("HE7RNOyhIYndGatXkRKB", "2026-11-21T22:26:40.123000Z") (one.Transaction, string one.At)
    let point = batch.PricePoint 0
    equal ("abc:YES", PriceKind.Probability, "0.31") (string point.Token, point.Kind, string point.Price)

[<Test>]
let ``a redemption is no trade, nor is a limit order that waits, nor a bet on a market of an older kind`` () =
    let batch, _ =
        bets [
            bet "\"outcome\":\"3\",\"amount\":5,\"shares\":31,\"probAfter\":0.5"
            bet "\"outcome\":\"YES\",\"amount\":-5,\"shares\":-5,\"isRedemption\":true,\"probAfter\":0.5"
            bet
                "\"outcome\":\"NO\",\"amount\":0,\"shares\":0,\"limitProb\":0.4,\"orderAmount\":100,\"fills\":[],\"isFilled\":false,\"isCancelled\":false"
        ]

    equal (0, []) (batch.Trades.Count, reasons batch)

[<Test>]
let ``where answers sum to one, what a bet on one took of another's orders is a trade, and every move is a point``
    ()
    =
    let leg (id: string) (fields: string) =
        (bet $"\"outcome\":\"NO\",\"amount\":0,\"shares\":0,\"isRedemption\":true,{fields}")
            .Replace("HE7RNOyhIYndGatXkRKB", id)

    let batch, _ =
        bets [
            leg
                "matched"
                "\"answerId\":\"a2\",\"probBefore\":0.4,\"probAfter\":0.35,\"fills\":[{\"timestamp\":1795300000123,\"matchedBetId\":\"maker\",\"amount\":6,\"shares\":10},{\"timestamp\":1795300000123,\"matchedBetId\":null,\"amount\":1,\"shares\":2}]"
            leg "moved" "\"answerId\":\"a3\",\"probBefore\":0.2,\"probAfter\":0.15,\"fills\":[]"
            leg "still" "\"answerId\":\"a4\",\"probBefore\":0.2,\"probAfter\":0.2"
        ]

    equal [ "abc:a2:NO buy 0.6 10 matched" ] [
        for i in 0 .. batch.Trades.Count - 1 do
            let one = batch.Trade i
            $"{one.Token} {Side.text one.Side} {one.Price} {one.Size} {one.Transaction}"
    ]

    equal [ "abc:a2:YES 0.35"; "abc:a3:YES 0.15" ] [
        for i in 0 .. batch.Prices.Count - 1 do
            let one = batch.PricePoint i
            $"{one.Token} {one.Price}"
    ]

[<Test>]
let ``legs of bets on other answers are asked for, now and in the past`` () =
    Assert.That((first (Need.Trades [ follow ])).Path, Does.Contain "&includeZeroShareRedemptions=true&")

    let past =
        manifold.History.Head.Ask {
            Source = "bets"
            Markets = [ follow.Market ]
            Tokens = Collections.ObjectModel.ReadOnlyDictionary(dict [])
            Since = follow.Since
            Until = received
            Place = ""
            Held = ReadOnlyMemory.Empty
        }

    Assert.That(past.Path, Does.Contain "&includeZeroShareRedemptions=true&")

[<Test>]
let ``a match is counted once, in its taker's row: what came to a maker later is left out`` () =
    let batch, _ =
        bets [
            // The maker: it took 3 at once, and the rest came to it.
            bet
                "\"outcome\":\"YES\",\"amount\":15.5,\"shares\":31,\"limitProb\":0.5,\"orderAmount\":100,\"fills\":[{\"timestamp\":1795300000123,\"matchedBetId\":null,\"amount\":3,\"shares\":6},{\"timestamp\":1795300474000,\"matchedBetId\":\"other\",\"amount\":12.5,\"shares\":25}]"
            // The taker of the rest.
            (bet
                "\"outcome\":\"NO\",\"amount\":20,\"shares\":40,\"fills\":[{\"timestamp\":1795300000121,\"matchedBetId\":\"HE7RNOyhIYndGatXkRKB\",\"amount\":12.5,\"shares\":25},{\"timestamp\":1795300000123,\"matchedBetId\":null,\"amount\":7.5,\"shares\":15}]")
                .Replace("HE7RNOyhIYndGatXkRKB\",\"contractId", "second\",\"contractId")
        ]

    equal [ "abc:YES 3 6"; "abc:NO 20 40" ] [
        for i in 0 .. batch.Trades.Count - 1 do
            let one = batch.Trade i
            $"{one.Token} {one.Collateral.Value} {one.Size}"
    ]

[<TestCase("\"outcome\":\"YES\",\"amount\":1", "a bet without its shares")>]
[<TestCase("\"amount\":1,\"shares\":2", "a bet without its outcome")>]
[<TestCase("\"outcome\":\"YES\",\"amount\":5,\"shares\":2",
           "amount and shares do not make a price between 0 and 1")>]
[<TestCase("\"outcome\":\"YES\",\"amount\":5,\"shares\":-9",
           "amount and shares do not make a price between 0 and 1")>]
[<TestCase("\"outcome\":\"YES\",\"amount\":null,\"shares\":2", "a bet without its amount")>]
let ``a bet that cannot be read is kept with its reason, and costs no other``
    (fields: string)
    (reason: string)
    =
    let batch, _ =
        bets [ bet fields; bet "\"outcome\":\"NO\",\"amount\":1,\"shares\":2" ]

    equal (1, [ reason ]) (batch.Trades.Count, reasons batch)

[<Test>]
let ``rows share milliseconds at the edge of a page: it is asked for again, and nothing is counted twice``
    ()
    =
    let row (id: int) (ms: int64) =
        $$"""{"id":"b{{id}}","contractId":"abc","userId":"u","createdTime":{{ms}},"outcome":"YES","amount":1,"shares":2}"""

    let top = 1_795_300_000_000L
    // Of the last millisecond three rows exist, and two of them are on the first page.
    let page = [
        for i in 1..998 do
            row i (top - int64 i)

        row 999 (top - 999L)
        row 1000 (top - 999L)
    ]

    let batch, decoded = bets page
    equal 1000 batch.Trades.Count
    let next = single decoded.Next
    Assert.That(next.Path, Does.EndWith $"&beforeTime={top - 998L}")

    let batch, last =
        answered
            next
            $"[{row 1000 (top - 999L)},{row 1001 (top - 999L)},{row 999 (top - 999L)},{row 1002 (top - 1000L)}]"

    equal [ "b1001"; "b1002" ] [ for i in 0 .. batch.Trades.Count - 1 -> (batch.Trade i).Transaction ]

    equal [] last.Next

[<Test>]
let ``more bets in one millisecond than a page holds are a gap, and the walk goes on before them`` () =
    let at = 1_795_300_000_000L

    let batch, decoded =
        bets [
            for i in 1..1000 ->
                $$"""{"id":"b{{i}}","contractId":"abc","userId":"u","createdTime":{{at}},"outcome":"YES","amount":1,"shares":2}"""
        ]

    equal 1000 batch.Trades.Count
    let struct (_, since, until) = single decoded.Truncated
    equal (at, at + 1L) (since.Micros / 1000L, until.Micros / 1000L)
    Assert.That((single decoded.Next).Path, Does.EndWith $"&beforeTime={at}")

// ---- depth

let private order (outcome: string) (limit: string) (fields: string) =
    bet
        $"\"outcome\":\"{outcome}\",\"amount\":20,\"shares\":40,\"limitProb\":{limit},\"orderAmount\":100,{fields}"

let private isOpen = "\"isFilled\":false,\"isCancelled\":false"

let private levels (levels: Level[]) =
    levels
    |> Array.map (fun level -> string level.Price, string level.Size)
    |> List.ofArray

[<Test>]
let ``open limit orders are a book: one of No is an ask of Yes at its limit`` () =
    let batch, decoded =
        answered
            (first (Need.Books [ token "abc:YES"; token "abc:NO" ]))
            (let rows =
                String.concat "," [
                    order "YES" "0.4" isOpen
                    order "YES" "0.4" isOpen
                    order "YES" "0.25" isOpen
                    order "NO" "0.6" isOpen
                    order "NO" "0.7" "\"isFilled\":false,\"isCancelled\":true"
                    order "NO" "0.7" "\"isFilled\":true,\"isCancelled\":false"
                    order "NO" "0.7" $"{isOpen},\"expiresAt\":1795000000000"
                    order "NO" "0.7" $"{isOpen},\"answerId\":\"other\""
                ]

             $"[{rows}]")

    equal (ValueNone, []) (decoded.Fault, decoded.Missing)
    let yes, no = batch.Book 0, batch.Book 1
    equal [ "0.4", "400"; "0.25", "320" ] (levels yes.Bids)
    equal [ "0.6", "200" ] (levels yes.Asks)
    equal [ "0.4", "200" ] (levels no.Bids)
    equal [ "0.6", "400"; "0.75", "320" ] (levels no.Asks)
    equal (Verdict.Unverifiable, Doubt.NoHash) (yes.Verdict, yes.Doubt)

[<Test>]
let ``a market without limit orders has empty books, and one with more than are served has none`` () =
    let ask = first (Need.Books [ token "abc:a1:YES" ])
    let batch, _ = answered ask "[]"
    isTrue ((batch.Book 0).Flags.HasFlag Flags.Empty)
    let rows = String.concat "," (List.replicate 1000 (order "YES" "0.4" isOpen))
    let batch, decoded = answered ask $"[{rows}]"
    equal (0, [ token "abc:a1:YES" ]) (batch.Books.Count, decoded.Missing)

[<Test>]
let ``orders of one price that are more than can be counted are as many as can be`` () =
    let ask = first (Need.Books [ token "abc:YES" ])

    let large =
        bet $"\"outcome\":\"YES\",\"amount\":0,\"shares\":0,\"limitProb\":0.5,\"orderAmount\":4e12,{isOpen}"

    let batch, decoded = answered ask $"[{large},{large}]"
    equal ValueNone decoded.Fault
    equal [ "0.5", "9000000000000" ] (levels (batch.Book 0).Bids)

[<Test>]
let ``a page of limit orders is full, whether all of its rows can be read or not`` () =
    let ask = first (Need.Books [ token "abc:YES" ])

    let rows =
        String.concat "," (bet "\"outcome\":\"NO\"" :: List.replicate 999 (order "YES" "0.4" isOpen))

    let batch, decoded = answered ask $"[{rows}]"
    equal (0, [ token "abc:YES" ]) (batch.Books.Count, decoded.Missing)

// ---- the stream

[<Test>]
let ``a connection subscribes to the topics of its markets, once each`` () =
    let session = manifold.Stream.Value.Session()

    equal
        [
            """{"type":"subscribe","txid":1,"topics":["contract/abc/new-bet","contract/abc"]}"""
        ]
        (session.Open [ token "abc:YES"; token "abc:NO" ])

    equal [] (session.Subscribe [ token "abc:YES" ])
    equal [] (session.Unsubscribe [ token "abc:YES" ])
    equal 1 (session.Unsubscribe [ token "abc:NO" ]).Length

[<Test>]
let ``bets come as fills, and a bad one costs no other`` () =
    let session = manifold.Stream.Value.Session()
    let frame = Frame(Names())

    let rows =
        String.concat "," [ bet "\"outcome\":\"NO\",\"amount\":1,\"shares\":2"; bet "\"outcome\":\"NO\"" ]

    session.Decode
        (memory $$$"""{"type":"broadcast","topic":"contract/abc/new-bet","data":{"bets":[{{{rows}}}]}}""")
        received
        frame

    let told = frame.Events[0]
    equal (1, StreamKind.Trade, 500_000L, 2_000_000L) (frame.Events.Count, told.Kind, told.Price, told.Size)
    equal 1 frame.Batch.Rejections.Count
    frame.Clear()
    session.Decode (memory """{"type":"ack","txid":0,"success":true}""") received frame
    equal 1L frame.Pongs
    frame.Clear()

    session.Decode
        (memory
            """{"type":"broadcast","topic":"contract/abc","data":{"contract":{"id":"abc","isResolved":true}}}""")
        received
        frame

    equal StreamKind.Resolved frame.Events[0].Kind

// ---- forms: what is known of earlier messages changes nothing but the time it takes

/// All that a frame says of a message, in words.
let private said (session: StreamSession) (frame: Frame) (message: byte[]) =
    let names = frame.Batch.Names
    frame.Clear()
    let pongs, unknown = frame.Pongs, frame.Unknown
    session.Decode (ReadOnlyMemory message) received frame

    [
        for i in 0 .. frame.Events.Count - 1 do
            let one = frame.Events[i]

            $"{one.Kind} {names.Text one.Market} {names.Text one.Token} {one.At} {one.Side} {one.Price} {one.Size} {one.Detail.Start}+{one.Detail.Length} {one.IsLast}"

        for one in frame.Batch.Rejections do
            $"{one.Offset} {one.Reason} {Encoding.Latin1.GetString one.Bytes}"

        yield! frame.Notes
        $"{frame.Pongs - pongs} {frame.Unknown - unknown}"
    ]

let private number =
    Gen.oneof [
        Gen.choose (-20, 2000) |> Gen.map string
        Gen.choose (1, 1_000_000_000)
        |> Gen.map (fun n -> (double n / 123_456_789.0).ToString "R")
        Gen.choose (1, 1_000_000_000)
        |> Gen.map (fun n -> (double n / 98_765_432_123_456.0).ToString "R")
        Gen.elements [
            "0"
            "-0"
            "1."
            ".5"
            "-"
            "1e2"
            "1.5e-7"
            "1e400"
            "007"
            "0.1234567890123456789012"
            "\"12.5\""
            "\"\""
            "null"
            "true"
            "[1]"
        ]
    ]

let private usually (usual: Gen<string>) (other: Gen<string>) = Gen.frequency [ 12, usual; 1, other ]

let private anything =
    Gen.elements [
        "null"
        "true"
        "false"
        "0"
        "\"\""
        "\"a\\\"b\""
        "\"é\""
        "[]"
        "{}"
        "{\"a\":[1,{\"b\":null}]}"
        "[\"x\",-1.5e3]"
        "5."
    ]

let private quotedText =
    usually
        (Gen.elements [ "\"abc\""; "\"HE7RNOyhIYndGatXkRKB\""; "\"cA1JupYR5AR8btHUs2xvkui7jA93\"" ])
        (Gen.oneof [ anything; Gen.constant ("\"" + String('x', 190) + "\"") ])

let private stamp =
    usually
        (Gen.elements [ "1795300000123"; "1795300000124"; "1795300474000" ])
        (Gen.elements [
            "null"
            "\"2026-11-21T22:26:40.123Z\""
            "\"soon\""
            "1795300000.5"
            "-1"
            "99999999999999999999"
        ])

let private truth = usually (Gen.elements [ "true"; "false" ]) anything

let private blank =
    Gen.frequency [ 30, Gen.constant ""; 1, Gen.elements [ " "; "\n\t" ] ]

/// An object of members that are nearly always there, mostly in this order.
let private object (members: (string * Gen<string>) list) = gen {
    let! isUsual = Gen.frequency [ 3, Gen.constant true; 1, Gen.constant false ]

    let! members =
        if isUsual then
            Gen.constant (Array.ofList members)
        else
            Gen.shuffle members

    let! missing =
        Gen.frequency [ 4, Gen.constant -1; 1, Gen.choose (0, members.Length - 1) ]

    let! parts =
        members
        |> Seq.indexed
        |> Seq.filter (fun (i, _) -> i <> missing)
        |> Seq.map (fun (_, (name, value)) -> gen {
            let! value = value
            let! one = blank
            let! other = blank
            return $"{one}\"{name}\"{other}:{value}{one}"
        })
        |> Gen.sequenceToList

    return "{" + String.concat "," parts + "}"
}

let private several most (one: Gen<string>) = gen {
    let! count = Gen.frequency [ 4, Gen.constant 1; 1, Gen.choose (0, most) ]
    let! items = Gen.listOfLength count one
    let! space = blank
    return "[" + String.concat $",{space}" items + "]"
}

let private fill =
    object [
        "matchedBetId", Gen.elements [ "null"; "\"other\""; "null" ]
        "amount", number
        "shares", number
        "timestamp", stamp
    ]

let private generated =
    object [
        "id", quotedText
        "userId", quotedText
        "contractId", quotedText
        "createdTime", stamp
        "amount", number
        "shares", number
        "outcome", usually (Gen.elements [ "\"YES\""; "\"NO\"" ]) anything
        "answerId", Gen.elements [ "null"; "\"a1\"" ]
        "probBefore", number
        "probAfter", number
        "limitProb", Gen.elements [ "null"; "0.5"; "0.5" ]
        "orderAmount", number
        "isFilled", truth
        "isCancelled", truth
        "isRedemption", truth
        "isApi", anything
        "fees",
        Gen.elements [
            "{\"creatorFee\":0,\"platformFee\":0}"
            "{\"creatorFee\":0.25,\"platformFee\":1}"
            "{}"
        ]
        "fills", usually (several 3 fill) anything
    ]

let private broadcast =
    object [
        "type", usually (Gen.constant "\"broadcast\"") (Gen.elements [ "\"ack\""; "\"other\""; "null" ])
        "topic", quotedText
        "data", object [ "bets", several 3 generated ]
    ]

/// Bytes that are wrong, or end too early, or go on.
let private broken (message: byte[]) = gen {
    let! at = Gen.choose (0, message.Length - 1)
    let! bit = Gen.choose (0, 7)

    return!
        Gen.elements [
            message
            Array.truncate at message
            Array.append message [| ' 'B |]
            Array.append message (Encoding.UTF8.GetBytes "x")
            Array.updateAt at (message[at] ^^^ (1uy <<< bit)) message
            Array.updateAt at 0xE9uy message
            Array.removeAt at message
            Array.insertAt at message[at] message
        ]
}

let private conversations = gen {
    let! forms = Gen.listOfLength 4 broadcast

    return!
        Gen.listOfLength
            24
            (gen {
                let! form = Gen.elements forms
                let! fresh = broadcast
                let! message = Gen.frequency [ 4, Gen.constant form; 1, Gen.constant fresh ]

                // Other values in the same form.
                let! digit = Gen.choose (0, 9)
                let message = message.Replace("3", string digit).Replace("NO", "YES")
                return! Gen.frequency [ 2, Gen.constant (utf8 message); 1, broken (utf8 message) ]
            })
}

[<Property(MaxTest = 300)>]
let ``a message says the same, whether its form is known or not`` () =
    Prop.forAll (Arb.fromGen conversations) (fun messages ->
        let session, frame = manifold.Stream.Value.Session(), Frame(Names())

        for message in messages do
            let fresh = said (manifold.Stream.Value.Session()) (Frame(Names())) message
            equal fresh (said session frame message))

[<Test>]
let ``what comes in a known form is read without care, and any other with it`` () =
    let session, frame = manifold.Stream.Value.Session(), Frame(Names())

    let told (shares: string) (fills: string) =
        let row =
            bet
                $"\"outcome\":\"YES\",\"amount\":10,\"shares\":{shares},\"fees\":{{\"creatorFee\":0}},\"fills\":[{fills}]"

        said
            session
            frame
            (utf8 $$$"""{"type":"broadcast","topic":"contract/abc/new-bet","data":{"bets":[{{{row}}}]}}""")
        |> ignore

        frame.Events.Count, frame.Unusual

    let fill (shares: string) =
        $"{{\"matchedBetId\":null,\"amount\":10,\"shares\":{shares},\"timestamp\":1795300000123}}"

    equal (1, 1L) (told "20" (fill "20"))
    equal (1, 1L) (told "17.25" (fill "17.25"))
    equal (1, 1L) (told "\"30.5\"" (fill "1.5e1"))
    equal (1, 2L) (told "40" (fill "20" + "," + fill "20"))
    equal (1, 2L) (told "50" (fill "20" + "," + fill "30"))
    equal (1, 2L) (told "60" (fill "60"))
    // Another form, and a price that is none.
    equal (1, 3L) (told "60" "")
    equal (0, 4L) (told "5" (fill "5"))
