module Tributary.Tests.Exchanges.KalshiTests

open System
open System.Security.Cryptography
open System.Text
open NUnit.Framework
open Tributary
open Tributary.Exchanges
open Tributary.Tests

let private key = RSA.Create 2048

/// With a key of its own.
let internal keyed =
    Kalshi.collector {
        Registry.defaultOptions with
            Secrets = Map.ofList [ "key_id", "me"; "key", key.ExportPkcs8PrivateKeyPem() ]
    }

let internal keyless = Kalshi.collector Registry.defaultOptions
let private received = Instant.ofMillis 1_795_341_600_000L

let private answered (request: Request) (body: string) =
    let batch = Batch()
    let decoded = keyless.Decode request (memory body) received batch
    batch, decoded

let private first need = List.head (keyless.Ask need)

let private market (fields: string) =
    $$"""{"ticker":"KXRAIN-26-T1","event_ticker":"KXRAIN-26","title":"Will it rain?","yes_sub_title":"In May","open_time":"2026-05-01T00:00:00Z","close_time":"2026-06-01T00:00:00Z","updated_time":"2026-05-02T10:00:00.5Z","volume_fp":"12.50","open_interest_fp":"3.00","price_ranges":[{"start":"0.0000","end":"0.1000","step":"0.0010"},{"start":"0.1000","end":"1.0000","step":"0.0100"}],{{fields}}}"""

let private marketsById =
    first (Need.MarketsById [ good (MarketId.Parse "KXRAIN-26-T1") ])

// ---- markets

[<Test>]
let ``a market has a token for each side, and the finest step of its grid`` () =
    let batch, decoded =
        answered
            marketsById
            $"""{{"cursor":"","markets":[{market "\"status\":\"active\",\"result\":\"\""}]}}"""

    equal ValueNone decoded.Fault
    equal [] decoded.Next
    let one = single (List.ofSeq batch.Markets)
    equal [ "KXRAIN-26-T1:YES"; "KXRAIN-26-T1:NO" ] (one.Tokens |> Array.map string |> List.ofArray)
    equal ("KXRAIN-26", "KXRAIN-26-T1", "Will it rain?: In May") (one.Event, one.Slug, one.Question)
    equal (MarketStatus.Open, true, ValueSome(price "0.001")) (one.Status, one.AcceptsOrders, one.TickSize)
    equal (ValueSome(size "12.5"), ValueSome(size "3")) (one.Volume, one.OpenInterest)
    isTrue one.IsTradable

[<TestCase("initialized", "", "pending", "")>]
[<TestCase("active", "", "open", "")>]
[<TestCase("inactive", "", "closed", "")>]
[<TestCase("closed", "", "closed", "")>]
[<TestCase("determined", "yes", "closed", "")>]
[<TestCase("disputed", "yes", "closed", "")>]
[<TestCase("finalized", "yes", "resolved", "Yes")>]
[<TestCase("finalized", "no", "resolved", "No")>]
[<TestCase("finalized", "scalar", "resolved", "")>]
[<TestCase("a word of tomorrow", "", "closed", "")>]
let ``a market's status is what its word says, and a word that nobody knows is never open``
    (word: string)
    (result: string)
    (status: string)
    (winner: string)
    =
    let batch, _ =
        answered marketsById $"""{{"markets":[{market $"\"status\":\"{word}\",\"result\":\"{result}\""}]}}"""

    let one = single (List.ofSeq batch.Markets)
    equal (status, winner) (string one.Status, one.Winner)

[<Test>]
let ``pages go on until the cursor is empty or missing, whatever their length, and never in a circle`` () =
    let page cursor =
        $"""{{"markets":[{market "\"status\":\"active\""}],"cursor":"{cursor}"}}"""

    let discovery = first (Need.MarketsByEvent [ "KXRAIN-26" ])
    let _, decoded = answered discovery (page "next")
    let second = single decoded.Next
    Assert.That(second.Path, Does.EndWith "&cursor=next")
    let _, again = answered second (page "next")
    equal (ValueSome(Fault.RepeatedPage "next")) again.Fault

    let batch, sameRows = answered second (page "other")
    equal (ValueSome(Fault.RepeatedPage "other")) sameRows.Fault
    equal 0 batch.Markets.Count
    let _, last = answered second """{"markets":null}"""
    equal (ValueNone, []) (last.Fault, last.Next)

[<Test>]
let ``markets that no page of many had are looked for in the archive, though the first page has a cursor``
    ()
    =
    let _, decoded = answered marketsById """{"cursor":"more","markets":[]}"""
    let second = single decoded.Next
    Assert.That(second.Path, Does.EndWith "&cursor=more")
    let _, decoded = answered second """{"cursor":"","markets":[]}"""
    Assert.That((single decoded.Next).Path, Does.StartWith "/historical/markets?")

[<Test>]
let ``a market that is not live any more is looked for in the archive`` () =
    let _, decoded = answered marketsById """{"cursor":"","markets":[]}"""
    let next = single decoded.Next
    Assert.That(next.Path, Does.StartWith "/historical/markets?")
    Assert.That(next.Path, Does.Contain "KXRAIN-26-T1")

[<Test>]
let ``discovery goes by events, whose series and category are tags, and leaves combinations out`` () =
    let discovery =
        first (
            Need.MarketsLike {
                Tags = []
                MinVolume = ValueNone
                MinLiquidity = ValueNone
                Slugs = []
                WithClosed = false
                MaxMarkets = 10
            }
        )

    Assert.That(discovery.Path, Does.StartWith "/events?limit=200&with_nested_markets=true&status=open")

    let batch, _ =
        answered
            discovery
            $"""{{"events":[{{"event_ticker":"KXRAIN-26","series_ticker":"KXRAIN","category":"Weather","markets":[{market "\"status\":\"active\""},7]}}],"cursor":""}}"""

    equal [ "weather"; "KXRAIN" ] (List.ofArray (single (List.ofSeq batch.Markets)).Tags)
    equal 1 batch.Rejections.Count

// ---- books

let private tokens = [ token "KX-A:YES"; token "KX-A:NO" ]

let private levels (levels: Level[]) =
    levels
    |> Array.map (fun level -> string level.Price, string level.Size)
    |> List.ofArray

[<Test>]
let ``the asks of a token are the bids for the other one, complemented`` () =
    let batch, decoded =
        answered
            (first (Need.Books tokens))
            """{"orderbook_fp":{"yes_dollars":[["0.0100","5.00"],["0.4200","77.25"]],"no_dollars":[["0.5000","0.05"],["0.5500","3.00"]]}}"""

    equal (ValueNone, []) (decoded.Fault, decoded.Missing)
    let yes, no = batch.Book 0, batch.Book 1
    equal [ "0.42", "77.25"; "0.01", "5" ] (levels yes.Bids)
    equal [ "0.45", "3"; "0.5", "0.05" ] (levels yes.Asks)
    equal [ "0.55", "3"; "0.5", "0.05" ] (levels no.Bids)
    equal [ "0.58", "77.25"; "0.99", "5" ] (levels no.Asks)
    equal (Verdict.Unverifiable, Doubt.NoHash, received) (yes.Verdict, yes.Doubt, yes.At)
    isTrue (yes.Flags.HasFlag Flags.Complemented)

[<TestCase("""{"orderbook_fp":{}}""", "Empty")>]
[<TestCase("""{"orderbook_fp":{"yes_dollars":null,"no_dollars":null}}""", "Empty")>]
[<TestCase("""{"orderbook_fp":{"no_dollars":[["0.5","1"]]}}""", "OneSided")>]
let ``a side that is missing or null is empty`` (body: string) (flag: string) =
    let batch, decoded = answered (first (Need.Books tokens)) body
    equal (ValueNone, 2) (decoded.Fault, batch.Books.Count)
    isTrue ((batch.Book 0).Flags.HasFlag(Enum.Parse<Flags> flag))

[<TestCase("""{"orderbook":{"yes":[[42,77]]}}""", "an answer without 'orderbook_fp'")>]
[<TestCase("""{"orderbook_fp":{"yes_dollars":[["0.42","-1"]]}}""", "a level's size is negative")>]
[<TestCase("""{"orderbook_fp":{"yes_dollars":[["x","1"]]}}""", "a level's price is not a decimal number")>]
let ``a book that is no book is kept with its reason, and both tokens are missing``
    (body: string)
    (reason: string)
    =
    let batch, decoded = answered (first (Need.Books tokens)) body
    Assert.That(batch.Rejections[0].Reason, Does.StartWith reason)
    equal tokens decoded.Missing

[<Test>]
let ``both tokens of a market are one question; with a key many markets are`` () =
    let other = [ token "KX-B:YES"; token "KX-B:NO" ]

    equal
        [ "/markets/KX-A/orderbook?depth=0"; "/markets/KX-B/orderbook?depth=0" ]
        (keyless.Ask(Need.Books(tokens @ other)) |> List.map _.Path)

    equal
        [ "/markets/orderbooks?tickers=KX-A&tickers=KX-B" ]
        (keyed.Ask(Need.Books(tokens @ other)) |> List.map _.Path)

// ---- trades

let private follow = {
    Market = good (MarketId.Parse "KX-A")
    Since = received - TimeSpan.FromHours 1.0
}

let private trade (fields: string) =
    $$"""{"trade_id":"c174ce46-46d8-705a-6f03-2e1037bd1dd1","ticker":"KX-A","count_fp":"12.61","created_time":"2026-11-22T05:51:39.54467Z",{{fields}}}"""

let private trades (rows: string list) =
    let rows = String.concat "," rows
    answered (first (Need.Trades [ follow ])) $"""{{"cursor":"","trades":[{rows}]}}"""

[<TestCase("\"taker_outcome_side\":\"yes\",\"taker_book_side\":\"bid\",\"taker_side\":\"yes\"", "buy")>]
[<TestCase("\"taker_outcome_side\":\"no\"", "sell")>]
[<TestCase("\"taker_book_side\":\"ask\"", "sell")>]
[<TestCase("\"taker_side\":\"yes\"", "buy")>]
let ``a trade is told of Yes: a taker of No sells it`` (sides: string) (side: string) =
    let batch, decoded =
        trades [
            trade $"{sides},\"yes_price_dollars\":\"0.3800\",\"no_price_dollars\":\"0.6200\""
        ]

    equal ValueNone decoded.Fault
    let one = batch.Trade 0

    equal
        ("KX-A:YES", side, "0.38", "12.61")
        (string one.Token, Side.text one.Side, string one.Price, string one.Size)

    equal "c174ce46-46d8-705a-6f03-2e1037bd1dd1" one.Transaction
    equal "2026-11-22T05:51:39.544670Z" (string one.At)

[<TestCase("\"taker_side\":\"yes\"", "a trade without 'yes_price_dollars'")>]
[<TestCase("\"yes_price_dollars\":\"0.38\"", "a trade without its taker's side")>]
[<TestCase("\"taker_side\":\"yes\",\"yes_price\":38", "a trade without 'yes_price_dollars'")>]
[<TestCase("\"taker_side\":\"yes\",\"yes_price_dollars\":\"0.38\",\"no_price_dollars\":\"0.63\"",
           "the prices of YES and NO do not add up to 1")>]
let ``a number that is not there is never a zero: such a trade is kept with its reason``
    (fields: string)
    (reason: string)
    =
    let batch, _ =
        trades [ trade fields; trade "\"taker_side\":\"no\",\"yes_price_dollars\":\"0.38\"" ]

    equal (1, 1) (batch.Trades.Count, batch.Rejections.Count)
    equal reason batch.Rejections[0].Reason

[<Test>]
let ``a trade that is read twice is one trade, and two of the same content are two`` () =
    let row = trade "\"taker_side\":\"no\",\"yes_price_dollars\":\"0.38\""
    let other = row.Replace("c174ce46", "d174ce46")
    let batch, _ = trades [ row; row; other ]
    Trades.number Trades.noCarry batch |> ignore
    equal (batch.Trade 0).Id (batch.Trade 1).Id
    isTrue ((batch.Trade 0).Id <> (batch.Trade 2).Id)

[<Test>]
let ``recordings from before 2026-03-12 have cents`` () =
    let batch = Batch()

    match Shapes.recognise [ keyless ] (memory (trade "\"taker_side\":\"yes\",\"yes_price\":38")) with
    | ValueSome(struct (_, Shape.Rows("trade", walk))) ->
        keyless.Decode
            {
                first (Need.Trades [ follow ]) with
                    Walk = walk
            }
            (memory (trade "\"taker_side\":\"yes\",\"yes_price\":38"))
            received
            batch
        |> ignore

        equal "0.38" (string (batch.Trade 0).Price)
    | other -> failwith $"%A{other}"

// ---- the past

/// Walks as a backfill does, answering each request by its path.
let rec private past (answers: (string * string) list) (requests: Request list) = [
    match requests with
    | [] -> ()
    | request :: rest ->
        let path, body = List.head answers
        Assert.That(request.Path, Does.StartWith path)
        let _, decoded = answered request body
        equal ValueNone decoded.Fault
        yield decoded
        yield! past (List.tail answers) (rest @ decoded.Next)
]

let private history since until : HistoryState = {
    Source = "trades"
    Markets = [ follow.Market ]
    Tokens = dict [] |> System.Collections.ObjectModel.ReadOnlyDictionary
    Since = since
    Until = until
    Place = ""
    Held = ReadOnlyMemory.Empty
}

let private source = keyless.History |> List.find (fun one -> one.Name = "trades")

let private cutoff (at: string) =
    "/historical/cutoff", $"""{{"trades_created_ts":"{at}"}}"""

[<Test>]
let ``the past is read from the archive up to its cut-off and live from there on, and again when the cut-off moved``
    ()
    =
    let since, until =
        Instant.ofMillis 1_770_000_000_000L, Instant.ofMillis 1_790_000_000_000L

    let page = """{"cursor":"","trades":[]}"""

    let pages =
        past [
            cutoff "2026-06-01T00:00:00Z"
            "/historical/trades?ticker=KX-A&limit=1000&min_ts=1769999999&max_ts=1780275600", page
            "/markets/trades?ticker=KX-A&limit=1000&min_ts=1780268400&max_ts=1790000001", page
            cutoff "2026-06-02T00:00:00Z"
            "/historical/trades?ticker=KX-A&limit=1000&min_ts=1769999999&max_ts=1780362000", page
            "/markets/trades?ticker=KX-A&limit=1000&min_ts=1780354800", page
            cutoff "2026-06-02T00:00:00Z"
        ] [ source.Ask(history since until) ]

    equal 7 pages.Length
    equal [ { Since = since; Until = until } ] (List.last pages).Read
    isTrue (pages |> List.take 6 |> List.forall (fun page -> page.Read.IsEmpty))

[<Test>]
let ``a walk in a circle of two cursors ends`` () =
    let mutable request =
        source.Ask(history (Instant.ofMillis 1_770_000_000_000L) (Instant.ofMillis 1_790_000_000_000L))

    let mutable fault, pages = ValueNone, 0
    let _, decoded = answered request """{"trades_created_ts":"2026-06-01T00:00:00Z"}"""
    request <- single decoded.Next

    while fault.IsNone && pages < 10 do
        let cursor = if pages % 2 = 0 then "A" else "B"
        let id = $"c174ce46-46d8-705a-6f03-{pages % 2}"

        let row =
            trade "\"taker_side\":\"no\",\"yes_price_dollars\":\"0.38\""
            |> _.Replace("c174ce46-46d8-705a-6f03-2e1037bd1dd1", id)

        let _, decoded = answered request $"""{{"cursor":"{cursor}","trades":[{row}]}}"""
        pages <- pages + 1
        fault <- decoded.Fault

        if fault.IsNone then
            request <- single decoded.Next

    equal (ValueSome(Fault.RepeatedPage "A")) fault
    isTrue (pages <= 4)

// ---- the stream

let private part = keyed.Stream.Value

let private described: Market =
    let batch, _ =
        answered
            marketsById
            $"""{{"markets":[{(market "\"status\":\"active\"").Replace("KXRAIN-26-T1", "KX-A")},{(market "\"status\":\"active\"").Replace("KXRAIN-26-T1", "KX-B")}]}}"""

    batch.Markets[0]

/// A connection and the books of two markets that come over it. Moments are milliseconds after the start.
type private World() =
    let names = Names()
    let depth = Depth(keyed.Exchange, part, DepthRules.usual, names)
    let session = part.Session()
    let frame = Frame names
    let out = Batch names
    let start = received.Micros / 1_000L
    let mutable now = 0L
    let instant (ms: int64) = Instant.ofMillis (start + ms)

    let other = {
        described with
            Market = good (MarketId.Parse "KX-B")
            Outcomes = [|
                for side in [ "YES"; "NO" ] ->
                    {
                        Name = side
                        Token = ValueSome(token $"KX-B:{side}")
                    }
            |]
    }

    do
        out.Exchange <- "kalshi"
        depth.Follow(described, DepthMode.Full)
        depth.Follow(other, DepthMode.Full)

    let all = [ yield! described.Tokens; yield! other.Tokens ]
    member val Opening = session.Open all
    member _.Session = session
    member _.Frame = frame
    member _.Out = out
    member _.Depth = depth
    member _.Subscribe() = depth.Subscribed(1, all, instant now)

    member _.Hear (ms: int64) (text: string) =
        now <- ms
        let bytes = utf8 text
        frame.Clear()
        session.Decode (ReadOnlyMemory bytes) (instant now) frame
        depth.Hear(1, ReadOnlySpan bytes, frame, instant now, out)

    member this.Snapshot (ms: int64) (sequence: int) (ticker: string) =
        this.Hear
            ms
            $$$"""{"type":"orderbook_snapshot","sid":7,"seq":{{{sequence}}},"msg":{"market_ticker":"{{{ticker}}}","market_id":"x","yes_dollars_fp":[["0.4000","5.00"]],"no_dollars_fp":[["0.6000","7.00"]]}}"""

    member this.Delta
        (ms: int64)
        (sequence: int)
        (ticker: string)
        (side: string)
        (price: string)
        (size: string)
        =
        this.Hear
            ms
            $$$"""{"type":"orderbook_delta","sid":7,"seq":{{{sequence}}},"msg":{"market_ticker":"{{{ticker}}}","market_id":"x","price_dollars":"{{{price}}}","delta_fp":"{{{size}}}","side":"{{{side}}}","ts_ms":{{{start + ms}}}}}"""

    member _.Book(id: string) =
        match depth.TryBook(token id) with
        | ValueSome(struct (book, _, verdict, doubt)) ->
            let side side = [ for level in book.Depth(side, 10) -> string level.Price, string level.Size ]

            side Side.Buy, side Side.Sell, Verdict.text verdict, Doubt.text doubt
        | ValueNone -> [], [], "", ""

    /// A book of KX-A that was asked for: (price, size) of its bids for YES and NO.
    member _.Poll (ms: int64) (yes: string) (no: string) =
        now <- ms
        let batch = Batch names

        keyless.Decode
            (first (Need.Books tokens))
            (memory $"{{\"orderbook_fp\":{{\"yes_dollars\":[{yes}],\"no_dollars\":[{no}]}}}}")
            (instant now)
            batch
        |> ignore

        for i in 0 .. batch.Books.Count - 1 do
            depth.Polled(&batch.Books[i], batch, instant now, out)

    member _.Tick(ms: int64) =
        now <- ms
        depth.Tick(instant now, out)

    member _.Gaps = [
        for gap in out.Gaps do
            let moment (at: Instant) = at.Micros / 1_000L - start

            let until =
                gap.Until |> ValueOption.map (moment >> string) |> ValueOption.defaultValue "-"

            $"{gap.Token.Value} {moment gap.Since}..{until} {gap.Cause}"
    ]

let private begun () =
    let world = World()
    // Numbers of the messages that books are as of.
    let numbers () = [ for i in 0 .. world.Out.Books.Count - 1 -> (world.Out.Book i).Sequence ]
    world.Subscribe()
    world.Hear 0L """{"id":1,"type":"subscribed","msg":{"channel":"orderbook_delta","sid":7}}"""
    world.Hear 0L """{"id":2,"type":"subscribed","msg":{"channel":"trade","sid":8}}"""
    world.Snapshot 1L 1 "KX-A"
    world.Snapshot 1L 2 "KX-B"
    equal [ ValueSome 1; ValueSome 1; ValueSome 2; ValueSome 2 ] (numbers ())
    world.Out.Clear()
    world.Depth.Orders.Clear()
    world

[<Test>]
let ``a connection asks for books in prices of Yes, for trades, best prices and news of markets`` () =
    let world = World()

    equal
        [
            """{"id":1,"cmd":"subscribe","params":{"channels":["orderbook_delta"],"market_tickers":["KX-A","KX-B"],"use_yes_price":true}}"""
            """{"id":2,"cmd":"subscribe","params":{"channels":["trade"],"market_tickers":["KX-A","KX-B"]}}"""
            """{"id":3,"cmd":"subscribe","params":{"channels":["ticker"],"market_tickers":["KX-A","KX-B"]}}"""
            """{"id":4,"cmd":"subscribe","params":{"channels":["market_lifecycle_v2"]}}"""
        ]
        world.Opening

[<Test>]
let ``a whole book and its changes are the books of both tokens, verified as long as no number is missing``
    ()
    =
    let world = begun ()
    equal ([ "0.4", "5" ], [ "0.6", "7" ], "verified", "") (world.Book "KX-A:YES")
    equal ([ "0.4", "7" ], [ "0.6", "5" ], "verified", "") (world.Book "KX-A:NO")
    world.Delta 10L 3 "KX-A" "yes" "0.4000" "-5.00"
    world.Delta 11L 4 "KX-B" "no" "0.5500" "0.25"
    world.Delta 12L 5 "KX-A" "yes" "0.3900" "1.50"
    equal ([ "0.39", "1.5" ], [ "0.6", "7" ], "verified", "") (world.Book "KX-A:YES")
    equal ([ "0.4", "5" ], [ "0.55", "0.25"; "0.6", "7" ], "verified", "") (world.Book "KX-B:YES")
    equal ([ "0.45", "0.25"; "0.4", "7" ], [ "0.6", "5" ], "verified", "") (world.Book "KX-B:NO")
    equal [] world.Gaps

    let rows = [
        for i in 0 .. world.Out.Deltas.Count - 1 do
            let row = world.Out.Delta i

            if string row.Token = "KX-A:YES" then
                equal (ValueSome row.Ordinal) row.Sequence
                $"{row.Ordinal} {Side.text row.Side} {row.Price} {row.Size} {Verdict.text row.Verdict}"
    ]

    equal [ "3 buy 0.4 0 verified"; "5 buy 0.39 1.5 verified" ] rows

[<Test>]
let ``missing numbers are a gap of all markets from the last good message to their next whole books`` () =
    let world = begun ()
    world.Delta 10L 3 "KX-A" "yes" "0.3900" "1.00"
    world.Delta 20L 4 "KX-B" "yes" "0.3900" "1.00"
    world.Delta 30L 7 "KX-A" "yes" "0.3800" "1.00"

    equal
        [
            for id in [ "KX-A:YES"; "KX-A:NO"; "KX-B:YES"; "KX-B:NO" ] -> $"{id} 20..- mismatch"
        ]
        (List.sort world.Gaps
         |> List.sortBy (fun gap -> gap.Replace("YES", "1").Replace("NO", "2")))

    equal ("mismatched", "sequence") (let _, _, verdict, doubt = world.Book "KX-A:YES" in verdict, doubt)

    match List.ofSeq world.Depth.Orders with
    | [ DepthOrder.Renew(1, tokens) ] ->
        equal
            [
                """{"id":5,"cmd":"update_subscription","params":{"sids":[7],"action":"get_snapshot","market_tickers":["KX-A","KX-B"]}}"""
            ]
            (world.Session.Renew(tokens |> List.sortBy string))
    | orders -> failwith $"%A{orders}"

    world.Out.Clear()
    world.Hear 40L """{"id":4,"sid":7,"seq":8,"type":"ok","msg":{"market_tickers":["KX-A","KX-B"]}}"""
    world.Snapshot 50L 9 "KX-A"
    world.Delta 60L 10 "KX-A" "yes" "0.3900" "2.00"
    equal [ "KX-A:YES 20..50 mismatch"; "KX-A:NO 20..50 mismatch" ] world.Gaps
    equal ([ "0.4", "5"; "0.39", "2" ], [ "0.6", "7" ], "verified", "") (world.Book "KX-A:YES")
    equal "mismatched" (let _, _, verdict, _ = world.Book "KX-B:YES" in verdict)
    world.Snapshot 70L 11 "KX-B"
    equal 4 world.Gaps.Length

/// What an exchange does with two markets, of whose messages some are lost on their way: each hole, as it should be found.
type private Losses(seed: int) =
    let random = Random seed
    let world = begun ()
    let tickers = [| "KX-A"; "KX-B" |]
    // Bids of YES by cents; the other side stands still.
    let truth =
        tickers
        |> Array.map (fun _ -> Array.init 40 (fun cents -> if cents = 40 - 1 then 5 else 0))

    let lostSince: int64 option[] = [| None; None |]
    let expected = Collections.Generic.List<string>()
    let mutable sequence, isLost, told = 2, false, 2L
    // Whole books that are asked for and have not come yet.
    let mutable asked = 0

    let hear ms text =
        world.Hear ms text

        for order in world.Depth.Orders do
            match order with
            | DepthOrder.Renew _ -> asked <- max asked 1
            | _ -> ()

        world.Depth.Orders.Clear()

    /// A message goes out; whether it arrives.
    let arrives () =
        sequence <- sequence + 1

        if random.Next 50 = 0 then
            isLost <- true
            false
        else
            if isLost then
                for i in 0..1 do
                    if lostSince[i].IsNone then
                        lostSince[i] <- Some told

            isLost <- false
            true

    let change ms =
        let i, cents = random.Next 2, random.Next 39

        let size =
            if truth[i][cents] > 0 && random.Next 2 = 0 then
                -truth[i][cents]
            else
                random.Next(1, 9)

        truth[i][cents] <- truth[i][cents] + size

        if arrives () then
            world.Delta ms sequence tickers.[i] "yes" $"0.%02d{cents + 1}" (string size)

            for order in world.Depth.Orders do
                match order with
                | DepthOrder.Renew _ -> asked <- 5
                | _ -> ()

            world.Depth.Orders.Clear()
            told <- ms

    let whole ms i =
        let levels =
            truth[i]
            |> Array.indexed
            |> Array.filter (fun (_, size) -> size > 0)
            |> Array.map (fun (cents, size) -> $"[\"0.%02d{cents + 1}00\",\"{size}\"]")
            |> String.concat ","

        if arrives () then
            hear
                ms
                $$$"""{"type":"orderbook_snapshot","sid":7,"seq":{{{sequence}}},"msg":{"market_ticker":"{{{tickers[i]}}}","yes_dollars_fp":[{{{levels}}}],"no_dollars_fp":[["0.6000","7.00"]]}}"""

            match lostSince[i] with
            | Some since ->
                for side in [ "YES"; "NO" ] do
                    expected.Add $"{tickers[i]}:{side} {since}..{ms} mismatch"

                lostSince[i] <- None
            | None -> ()

            told <- ms
        else
            // It will be asked for again.
            asked <- 5

    do
        // So that the test's truth and what came first agree.
        for i in 0..1 do
            truth[i][39] <- 5

        for step in 1..400 do
            let ms = int64 (10 + 3 * step)
            change ms

            if asked > 0 then
                asked <- asked - 1

                if asked = 0 then
                    whole (ms + 1L) 0
                    whole (ms + 2L) 1

    member _.World = world
    member _.Expected = List.ofSeq expected |> List.sort
    member _.Open = lostSince |> Array.exists _.IsSome || isLost

    member _.Truth(i: int) = [
        for cents in 39..-1..0 do
            if truth[i][cents] > 0 then
                Fixed.text (int64 (cents + 1) * 10_000L), string (truth[i][cents])
    ]

[<Test>]
let ``every loss is found, with its exact bounds, and healed by the next whole book`` () =
    let mutable holes = 0

    for seed in 1..200 do
        let run = Losses seed

        let closed =
            run.World.Gaps |> List.filter (fun gap -> not (gap.Contains "..-")) |> List.sort

        equal run.Expected closed
        holes <- holes + closed.Length

        if not run.Open then
            for i, ticker in [ 0, "KX-A"; 1, "KX-B" ] do
                let bids, _, verdict, _ = run.World.Book $"{ticker}:YES"
                equal (run.Truth i |> List.truncate 10, "verified") (bids, verdict)

    isTrue (holes > 2_000)

[<Test>]
let ``a number that came before is a repeat, and is passed over`` () =
    let world = begun ()
    world.Delta 10L 3 "KX-A" "yes" "0.4000" "1.00"
    world.Delta 10L 3 "KX-A" "yes" "0.4000" "1.00"
    equal ([ "0.4", "6" ], [ "0.6", "7" ], "verified", "") (world.Book "KX-A:YES")

[<Test>]
let ``a change that takes more than is there is a gap, and the whole book is asked for`` () =
    let world = begun ()
    world.Delta 10L 3 "KX-A" "yes" "0.4000" "-5.01"
    equal ("mismatched", "negative") (let _, _, verdict, doubt = world.Book "KX-A:YES" in verdict, doubt)
    isTrue (List.contains (DepthOrder.Renew(1, [ token "KX-A:YES" ])) (List.ofSeq world.Depth.Orders))

[<Test>]
let ``a change of zero is no change, and a whole book without sides is an empty one`` () =
    let world = begun ()
    world.Delta 10L 3 "KX-A" "yes" "0.4000" "0.00"
    equal 0 world.Out.Deltas.Count
    let fresh = World()
    fresh.Subscribe()

    fresh.Hear
        1L
        """{"type":"orderbook_snapshot","sid":1,"seq":1,"msg":{"market_ticker":"KX-A","market_id":"x"}}"""

    equal ([], [], "verified", "") (fresh.Book "KX-A:YES")

[<Test>]
let ``a whole book on the other scale of prices than was asked for is refused`` () =
    let world = World()
    world.Subscribe()

    world.Hear
        1L
        """{"type":"orderbook_snapshot","sid":1,"seq":1,"msg":{"market_ticker":"KX-A","market_id":"x","yes_dollars_fp":[["0.4000","5.00"]],"no_dollars_fp":[["0.3000","7.00"]]}}"""

    Assert.That(world.Frame.Batch.Rejections[0].Reason, Does.Contain "not on the scale that was asked for")
    equal ([], [], "", "") (world.Book "KX-A:YES")

[<TestCase("\"ts_ms\":1795341600010", 10)>]
[<TestCase("\"ts\":\"2026-11-22T11:20:00.01Z\",\"ts_ms\":1795341600012", 12)>]
[<TestCase("\"ts\":\"2026-11-22T10:00:00.010Z\"", 10)>]
[<TestCase("\"other\":[{}]", 1)>]
let ``a change's time is its milliseconds, else its text, else that of the message before``
    (field: string)
    (ms: int)
    =
    let world = begun ()

    world.Hear
        20L
        $$$"""{"type":"orderbook_delta","sid":7,"seq":3,"msg":{"market_ticker":"KX-A","price_dollars":"0.41","delta_fp":"1","side":"yes",{{{field}}}}}"""

    let at = (world.Out.Delta 0).At.Micros / 1_000L - received.Micros / 1_000L
    equal (int64 ms) at

[<Test>]
let ``a command that one bad market spoils is tried again without it, or in halves`` () =
    let world = World()

    world.Hear
        1L
        """{"id":1,"type":"error","msg":{"code":16,"msg":"Market not found","market_ticker":"KX-B"}}"""

    equal
        [
            """{"id":5,"cmd":"subscribe","params":{"channels":["orderbook_delta"],"market_tickers":["KX-A"],"use_yes_price":true}}"""
        ]
        (List.ofSeq world.Frame.Replies)

    equal
        [ "'orderbook_delta' of market KX-B was refused: Market not found (16)" ]
        (List.ofSeq world.Frame.Notes)

    // One half first: a second subscription would have numbers of its own. The other is added to it.
    world.Hear 2L """{"id":2,"type":"error","msg":{"code":11,"msg":"Invalid parameter"}}"""

    equal
        [
            """{"id":6,"cmd":"subscribe","params":{"channels":["trade"],"market_tickers":["KX-A"]}}"""
        ]
        (List.ofSeq world.Frame.Replies)

    world.Hear 3L """{"id":6,"type":"subscribed","msg":{"channel":"trade","sid":8}}"""

    equal
        [
            """{"id":7,"cmd":"update_subscription","params":{"sids":[8],"action":"add_markets","market_tickers":["KX-B"]}}"""
        ]
        (List.ofSeq world.Frame.Replies)

[<Test>]
let ``markets that come and go on an open connection wait for the numbers of its subscriptions`` () =
    let world = World()
    equal [] (world.Session.Subscribe [ token "KX-C:YES"; token "KX-C:NO" ])
    world.Hear 0L """{"id":1,"type":"subscribed","msg":{"channel":"orderbook_delta","sid":7}}"""

    // Each subscription's own, whether the other ever has one or not.
    let added id sid = [
        $$$"""{"id":{{{id}}},"cmd":"update_subscription","params":{"sids":[{{{sid}}}],"action":"add_markets","market_tickers":["KX-C"]}}"""
    ]

    equal (added 5 7) (List.ofSeq world.Frame.Replies)

    equal
        [
            """{"id":6,"cmd":"update_subscription","params":{"sids":[7],"action":"add_markets","market_tickers":["KX-D"]}}"""
        ]
        (world.Session.Subscribe [ token "KX-D:YES" ])

    world.Hear 0L """{"id":2,"type":"subscribed","msg":{"channel":"trade","sid":8}}"""

    equal (added 7 8 @ [ (added 8 8).Head.Replace("KX-C", "KX-D") ]) (List.ofSeq world.Frame.Replies)

    equal [] (world.Session.Unsubscribe [ token "KX-C:YES" ])
    equal 2 (world.Session.Unsubscribe [ token "KX-C:NO" ]).Length

let private doubted (world: World) =
    [ "KX-A:YES"; "KX-A:NO"; "KX-B:YES"; "KX-B:NO" ]
    |> List.forall (fun id ->
        let _, _, verdict, doubt = world.Book id in (verdict, doubt) = ("mismatched", "sequence"))

let private change (sequence: int) (fields: string) =
    $$$"""{"type":"orderbook_delta","sid":7,"seq":{{{sequence}}},"msg":{"market_ticker":"KX-A","market_id":"x",{{{fields}}}}}"""

[<TestCase("\"price_dollars\":\"0.40\",\"delta_fp\":\"x\",\"side\":\"yes\"", "")>]
[<TestCase("\"price_dollars\":\"0.40\",\"delta_fp\":\"1\",\"side\":\"maybe\"", "")>]
[<TestCase("\"price_dollars\":\"40\",\"delta_fp\":\"1\",\"side\":\"yes\"", "")>]
[<TestCase("\"price_dollars\":\"0.40\",\"delta_fp\":\"1\",\"side\":\"yes\"", "}")>]
[<TestCase("\"price_dollars\":\"0.40\",\"delta_fp\":\"1\",\"side\":\"yes\",\"ts_ms\":99999999999990", "")>]
let ``a change that is refused is missing: all books are doubted from the last good message, and asked for``
    (fields: string)
    (after: string)
    =
    let world = begun ()
    world.Delta 5L 3 "KX-A" "yes" "0.3900" "1.00"
    world.Hear 10L (change 4 fields + after)
    equal 1 world.Frame.Batch.Rejections.Count
    isTrue (doubted world)

    equal
        [
            "KX-A:NO 5..- mismatch"
            "KX-A:YES 5..- mismatch"
            "KX-B:NO 5..- mismatch"
            "KX-B:YES 5..- mismatch"
        ]
        (List.sort world.Gaps)

    isTrue (
        world.Depth.Orders
        |> Seq.exists (function
            | DepthOrder.Renew(1, tokens) -> tokens.Length = 4
            | _ -> false)
    )

    world.Out.Clear()
    world.Snapshot 20L 5 "KX-A"
    world.Delta 30L 6 "KX-A" "yes" "0.3900" "1.00"
    equal [ "KX-A:NO 5..20 mismatch"; "KX-A:YES 5..20 mismatch" ] (List.sort world.Gaps)
    equal ([ "0.4", "5"; "0.39", "1" ], [ "0.6", "7" ], "verified", "") (world.Book "KX-A:YES")

[<Test>]
let ``a message that cannot be read at all may have been a change; a fill that is refused was none`` () =
    let world = begun ()

    world.Hear
        4L
        """{"type":"trade","sid":8,"msg":{"trade_id":"d91bc706","market_ticker":"KX-A","count_fp":"x"}}"""

    equal (1, []) (world.Frame.Batch.Rejections.Count, world.Gaps)
    world.Hear 5L "{\"type\":\"orderbook_del"
    isTrue (doubted world)
    // It was that one: no further hole.
    world.Depth.Orders.Clear()
    world.Snapshot 20L 4 "KX-A"
    equal ([ "0.4", "5" ], [ "0.6", "7" ], "verified", "") (world.Book "KX-A:YES")

[<TestCase("\"yes_dollars\":[[\"0.40\",\"5\"]],\"no_dollars\":[[\"0.60\",\"5\"]]")>]
[<TestCase("\"yes\":[[40,5]],\"no\":[[60,5]]")>]
[<TestCase("\"yes_dollars_fp\":[[\"0.40\",\"5\"]],\"no\":[[60,5]]")>]
[<TestCase("\"yes_dollars_fp\":[[\"-0.50\",\"5\"]]")>]
[<TestCase("\"yes_dollars_fp\":[[40,\"5\"]]")>]
let ``a whole book in another form is no empty one, and none on another scale`` (sides: string) =
    let world = World()
    world.Subscribe()

    world.Hear
        1L
        $$$"""{"type":"orderbook_snapshot","sid":7,"seq":1,"msg":{"market_ticker":"KX-A","market_id":"x",{{{sides}}}}}"""

    equal (1, 0) (world.Frame.Batch.Rejections.Count, world.Frame.Batch.Books.Count)
    equal ([], [], "", "") (world.Book "KX-A:YES")

[<TestCase("""{"orderbook_fp":{"yes":[[40,5]],"no":[]}}""")>]
[<TestCase("""{"orderbook_fp":{"yes_dollars":[["40","5"]]}}""")>]
let ``a polled book in another form is no empty one, and none on another scale`` (body: string) =
    let batch, decoded = answered (first (Need.Books tokens)) body
    equal (1, 0) (batch.Rejections.Count, batch.Books.Count)
    equal tokens decoded.Missing

[<Test>]
let ``numbers are of one subscription: what another one tells is not taken, and its number ends the old one``
    ()
    =
    let world = begun ()

    world.Hear
        5L
        ((change 1 "\"price_dollars\":\"0.40\",\"delta_fp\":\"1\",\"side\":\"yes\"")
            .Replace("\"sid\":7", "\"sid\":9"))

    Assert.That(world.Frame.Batch.Rejections[0].Reason, Does.Contain "not the one to books")
    isTrue (doubted world)
    world.Hear 6L """{"id":9,"type":"subscribed","msg":{"channel":"orderbook_delta","sid":9}}"""

    world.Hear
        7L
        """{"type":"orderbook_snapshot","sid":9,"seq":1,"msg":{"market_ticker":"KX-A","market_id":"x","yes_dollars_fp":[["0.4000","5.00"]],"no_dollars_fp":[["0.6000","7.00"]]}}"""

    equal ([ "0.4", "5" ], [ "0.6", "7" ], "verified", "") (world.Book "KX-A:YES")

[<TestCase(9)>]
[<TestCase(17)>]
[<TestCase(18)>]
let ``a refusal that no market is the cause of is said, and splits nothing`` (code: int) =
    let world = World()
    world.Hear 1L $$$"""{"id":1,"type":"error","msg":{"code":{{{code}}},"msg":"No"}}"""
    equal 0 world.Frame.Replies.Count
    equal [ $"'orderbook_delta' was refused: No ({code})" ] (List.ofSeq world.Frame.Notes)
    // Books that are asked for make the subscription after all.
    Assert.That(single (world.Session.Renew [ token "KX-A:YES" ]), Does.Contain "\"cmd\":\"subscribe\"")

[<Test>]
let ``a market that was refused is never given a book that does not change`` () =
    let world = World()
    world.Hear 1L """{"id":1,"type":"error","msg":{"code":16,"msg":"Gone","market_ticker":"KX-B"}}"""
    world.Hear 2L """{"id":5,"type":"subscribed","msg":{"channel":"orderbook_delta","sid":7}}"""
    equal [] (world.Session.Renew [ token "KX-B:YES" ])
    Assert.That(single (world.Session.Renew [ token "KX-A:YES" ]), Does.Contain "get_snapshot")

[<Test>]
let ``an error that is a text is said`` () =
    let world = World()
    world.Hear 1L """{"id":9,"type":"error","msg":"over capacity"}"""
    equal [ "the exchange refused something: over capacity (0)" ] (List.ofSeq world.Frame.Notes)

[<Test>]
let ``numbers that begin anew are a loss, and not repeats for ever`` () =
    let world = begun ()

    for i in 3..40 do
        world.Delta (int64 i) i "KX-A" "yes" "0.3900" "1.00"

    world.Delta 50L 1 "KX-A" "yes" "0.3900" "3.00"
    isTrue (doubted world)
    world.Snapshot 60L 2 "KX-A"
    world.Delta 70L 3 "KX-A" "yes" "0.3900" "1.00"
    equal ([ "0.4", "5"; "0.39", "1" ], [ "0.6", "7" ], "verified", "") (world.Book "KX-A:YES")

[<Test>]
let ``a message of the last number that says something else is no repeat`` () =
    let world = begun ()
    world.Delta 10L 3 "KX-A" "yes" "0.4000" "1.00"
    world.Delta 10L 3 "KX-A" "yes" "0.4000" "2.00"
    isTrue (doubted world)

/// Twelve digits that stand for a ticker.
let private hex (ticker: string) =
    Convert.ToHexString(SHA256.HashData(utf8 ticker)).Substring(0, 12).ToLowerInvariant()

[<Test>]
let ``repeats are counted`` () =
    let world = begun ()
    world.Delta 10L 3 "KX-A" "yes" "0.4000" "1.00"
    world.Delta 10L 3 "KX-A" "yes" "0.4000" "1.00"
    equal 1L world.Frame.Repeats

/// Of 50 seeds: changes as the exchange writes them, many of them with a byte too many, too few, or another one.
[<Test>]
let ``whatever is done to a change, the quick reader says what the careful one does`` () =
    for seed in 1..50 do
        let random = Random seed
        let quick, careful = part.Session(), part.Session()
        let names = Names()
        let one, other = Frame names, Frame names

        for session in [ quick; careful ] do
            session.Open tokens |> ignore

        // White space is enough to be read with care.
        let decode (session: StreamSession) (frame: Frame) (space: string) (bytes: byte[]) =
            frame.Clear()
            let bytes = Array.append (utf8 space) bytes
            session.Decode (ReadOnlyMemory bytes) received frame

            [ for event in frame.Events.Span.ToArray() -> { event with Message = 0 } ],
            [ for rejection in frame.Batch.Rejections -> rejection.Reason ],
            List.ofSeq frame.Notes

        for number in 1..200 do
            let ticker = [ "KX-A"; "KX-B"; "KXBTCD-26JUL2502-T74299.99"; "é" ][random.Next 4]
            let side = [ "yes"; "no" ][random.Next 2]
            let sign = [ ""; "-" ][random.Next 2]
            let id = $"89d05e15-d5fa-4e8b-b7ab-{hex ticker}"

            let bytes =
                utf8
                    $$$"""{"type":"orderbook_delta","sid":7,"seq":{{{number}}},"msg":{"market_ticker":"{{{ticker}}}","market_id":"{{{id}}}","price_dollars":"0.{{{random.Next 10_000}}}","delta_fp":"{{{sign}}}{{{random.Next 1_000_000}}}.{{{random.Next 100}}}","side":"{{{side}}}","ts_ms":{{{1_795_341_000_000L + int64 (random.Next 600_000)}}}}}"""

            let place = random.Next bytes.Length

            let bytes =
                match random.Next 8 with
                | 0 -> Array.removeAt place bytes
                | 1 -> Array.insertAt place (byte (random.Next 256)) bytes
                | 2 -> Array.updateAt place (byte (random.Next 256)) bytes
                | 3 -> Array.updateAt place (bytes[place] + 1uy) bytes
                | _ -> bytes

            let expected = decode careful other " " bytes
            let found = decode quick one "" bytes

            if found <> expected then
                Assert.Fail $"seed {seed}: {Encoding.Latin1.GetString bytes}: {expected}, but quick {found}"

        isTrue (one.Unusual > 0L && one.Unusual < 150L)
        equal 200L other.Unusual

[<TestCase(3, 4)>] // answers have numbers of their own …
[<TestCase(3, 3)>] // … or have not …
[<TestCase(222, 3)>] // … or those of something else.
let ``an answer's number explains itself at most, and hides nothing that follows`` (answer: int) (next: int) =
    let world = begun ()

    world.Hear
        5L
        $$$"""{"id":4,"sid":7,"seq":{{{answer}}},"type":"ok","msg":{"market_tickers":["KX-A","KX-B"]}}"""

    world.Delta 10L next "KX-A" "yes" "0.3900" "1.00"
    equal [] world.Gaps
    equal ([ "0.4", "5"; "0.39", "1" ], [ "0.6", "7" ], "verified", "") (world.Book "KX-A:YES")

[<Test>]
let ``a scale that a book contradicts is given up for the connection: all books are asked for on the other one``
    ()
    =
    let world = World()
    world.Subscribe()

    let book (sequence: int) (ticker: string) (yes: string) (no: string) =
        $$$"""{"type":"orderbook_snapshot","sid":7,"seq":{{{sequence}}},"msg":{"market_ticker":"{{{ticker}}}","market_id":"x","yes_dollars_fp":[["{{{yes}}}","5.00"]],"no_dollars_fp":[["{{{no}}}","7.00"]]}}"""

    // It can be read in both ways: an ask of 0.44, or of 0.56.
    world.Hear 1L (book 1 "KX-A" "0.22" "0.56")
    equal [ "0.56", "7" ] (let _, asks, _, _ = world.Book "KX-A:YES" in asks)
    // This one cannot: 0.40 is bid for NO.
    world.Hear 2L (book 2 "KX-B" "0.50" "0.40")
    equal 1 world.Frame.Notes.Count
    equal "mismatched" (let _, _, verdict, _ = world.Book "KX-A:YES" in verdict)
    world.Hear 3L (book 3 "KX-A" "0.22" "0.56")
    world.Hear 4L (book 4 "KX-B" "0.50" "0.40")
    equal ([ "0.22", "5" ], [ "0.44", "7" ], "verified", "") (world.Book "KX-A:YES")
    equal ([ "0.5", "5" ], [ "0.6", "7" ], "verified", "") (world.Book "KX-B:YES")
    world.Delta 5L 5 "KX-A" "no" "0.5600" "-2.00"
    world.Delta 6L 6 "KX-A" "no" "0.5000" "1.00"
    equal [ "0.44", "5"; "0.5", "1" ] (let _, asks, _, _ = world.Book "KX-A:YES" in asks)

[<Test>]
let ``one crossed book does not turn a scale that others showed`` () =
    let world = begun ()

    world.Hear
        3L
        """{"type":"orderbook_snapshot","sid":7,"seq":3,"msg":{"market_ticker":"KX-A","market_id":"x","yes_dollars_fp":[["0.4000","5.00"]],"no_dollars_fp":[["0.3000","7.00"]]}}"""

    equal 1 world.Frame.Batch.Rejections.Count
    isTrue (doubted world)
    world.Snapshot 4L 4 "KX-A"
    equal ([ "0.4", "5" ], [ "0.6", "7" ], "verified", "") (world.Book "KX-A:YES")

[<Test>]
let ``with our clock ahead, a book that is asked for later is of the exchange's time`` () =
    let world = begun ()
    // Two seconds ahead: what is of 100 and of 600 comes at 2100 and at 2600 by our clock.
    let late (ms: int) (sequence: int) =
        world.Hear
            (int64 ms + 2_000L)
            (change
                sequence
                $"\"price_dollars\":\"0.39\",\"delta_fp\":\"1\",\"side\":\"yes\",\"ts_ms\":{received.Micros / 1_000L + int64 ms}")

    late 100 3
    late 600 4

    equal
        [ 100L; 600L ]
        ([ 0; 2 ]
         |> List.map (fun i -> (world.Out.Delta i).At.Micros / 1_000L - received.Micros / 1_000L))

    late 900 6
    world.Snapshot 3_000L 7 "KX-A"

    equal
        [ "KX-A:NO 600..1000 mismatch"; "KX-A:YES 600..1000 mismatch" ]
        (world.Gaps |> List.filter (fun gap -> not (gap.Contains "..-")) |> List.sort)

[<Test>]
let ``a lost connection leaves quiet books proven up to its last message`` () =
    let world = begun ()
    world.Delta 3_600_000L 3 "KX-B" "yes" "0.3900" "1.00"
    world.Depth.Lost(1, Cause.Disconnect, received + TimeSpan.FromHours 1.5, world.Out)

    equal
        [
            for id in [ "KX-A:NO"; "KX-A:YES"; "KX-B:NO"; "KX-B:YES" ] -> $"{id} 3600000..- disconnect"
        ]
        (List.sort world.Gaps)

[<Test>]
let ``a book that stays crossed is wrong, though no number is missing`` () =
    let world = begun ()
    world.Delta 10L 3 "KX-A" "yes" "0.6500" "1.00"
    // In this very moment it may be matched.
    equal "verified" (let _, _, verdict, _ = world.Book "KX-A:YES" in verdict)
    world.Delta 20L 4 "KX-A" "yes" "0.3900" "1.00"
    equal "mismatched" (let _, _, verdict, _ = world.Book "KX-A:YES" in verdict)

[<Test>]
let ``fills and news of markets come over the stream, too`` () =
    let world = begun ()

    world.Hear
        5L
        """{"type":"trade","sid":8,"msg":{"trade_id":"d91bc706-ee49-470d-82d8-11418bda6fed","market_ticker":"KX-A","yes_price_dollars":"0.360","no_price_dollars":"0.640","count_fp":"136.00","taker_side":"no","ts":1795341600,"ts_ms":1795341600005}}"""

    let told = world.Frame.Events[0]
    equal (StreamKind.Trade, Side.Sell, 360_000L, 136_000_000L) (told.Kind, told.Side, told.Price, told.Size)

    world.Hear
        6L
        """{"type":"market_lifecycle_v2","sid":13,"msg":{"market_ticker":"KX-NEW","event_type":"created","open_ts":1694635200}}"""

    equal StreamKind.NewMarket world.Frame.Events[0].Kind

    world.Hear
        7L
        """{"type":"market_lifecycle_v2","sid":13,"msg":{"market_ticker":"KX-A","event_type":"settled"}}"""

    equal StreamKind.Resolved world.Frame.Events[0].Kind

/// Best prices of KX-A for YES, with their sizes.
let private quoted (bid: string) (ask: string) (sizes: string) =
    $$$"""{"type":"ticker","sid":9,"msg":{"market_ticker":"KX-A","price_dollars":"","yes_bid_dollars":"{{{bid}}}","yes_ask_dollars":"{{{ask}}}"{{{sizes}}},"ts":1795341600}}"""

[<TestCase("0.4000", "0.6000", "", "0.4 0.6", "0.4 0.6")>]
[<TestCase("0.4000", "1.0000", ",\"yes_bid_size_fp\":\"5.00\",\"yes_ask_size_fp\":\"0.00\"", "0.4 1", "0 0.6")>]
// Of combinations that nobody quotes.
[<TestCase("0.0000", "0.0000", "", "0 1", "0 1")>]
let ``a ticker is the best prices of both tokens`` (bid: string) (ask: string) sizes yes no =
    let world = begun ()
    world.Hear 5L (quoted bid ask sizes)

    equal [ yes; no ] [
        for told in world.Frame.Events.Span.ToArray() do
            equal StreamKind.BestPrices told.Kind
            $"{Price.ofMillionths told.BestBid} {Price.ofMillionths told.BestAsk}"
    ]

[<TestCase("""{"type":"ticker","sid":9,"msg":{"market_ticker":"KX-A"}}""")>]
[<TestCase("""{"type":"ticker","sid":9,"msg":{"market_ticker":"KX-A","yes_bid":40,"yes_ask":60}}""")>]
[<TestCase("""{"type":"ticker","sid":9,"msg":{"yes_bid_dollars":"0.40","yes_ask_dollars":"0.60"}}""")>]
let ``a ticker that says no best prices of a market is kept with its reason, and doubts no book``
    (json: string)
    =
    let world = begun ()
    world.Hear 5L json
    equal 1 world.Frame.Batch.Rejections.Count
    equal [] world.Gaps

/// All books were compared with polls just now.
let private compared () =
    let world = begun ()
    world.Tick 900L
    world.Depth.Orders.Clear()
    world

let private compares (world: World) =
    world.Depth.Orders
    |> Seq.sumBy (function
        | DepthOrder.Compare tokens -> tokens.Length
        | _ -> 0)

[<Test>]
let ``best prices that the book still does not have after five seconds let a poll decide`` () =
    let world = compared ()
    world.Hear 1_000L (quoted "0.4100" "0.6000" "")
    world.Tick 4_000L
    equal 0 (compares world)
    world.Tick 6_500L
    equal 2 (compares world)
    equal [] world.Gaps
    world.Tick 7_000L
    equal 2 (compares world)

[<Test>]
let ``best prices that come before their change, or that are the book's again, ask for nothing`` () =
    let early = compared ()
    early.Hear 1_000L (quoted "0.4100" "0.6000" "")
    early.Delta 1_100L 3 "KX-A" "yes" "0.4100" "1.00"
    early.Tick 7_000L
    equal 0 (compares early)
    let again = compared ()
    again.Hear 1_000L (quoted "0.4100" "0.6000" "")
    again.Hear 1_200L (quoted "0.4000" "0.6000" "")
    again.Tick 7_000L
    equal 0 (compares again)

// ---- recordings

let private shapeOf (json: string) =
    match Shapes.recognise [ keyless ] (memory json) with
    | ValueSome(struct (_, Shape.Rows(kind, _))) -> "rows: " + kind
    | ValueSome(struct (_, Shape.Holds(what, inside))) -> $"holds {inside.Length} of {what}"
    | ValueSome(struct (_, Shape.Recognised kind)) -> kind
    | ValueNone -> ""

[<TestCase("""{"orderbooks":[{"ticker":"KX-A","orderbook_fp":{}}]}""", "rows: order books")>]
[<TestCase("""{"orderbook_fp":{"yes_dollars":[]}}""", "order book without a time")>]
[<TestCase("""{"market_ticker":"KX-A","market_id":"x","yes_dollars_fp":[]}""", "order book (stream)")>]
[<TestCase("""{"market_ticker":"KX-A","price_dollars":"0.4","delta_fp":"1","side":"no"}""",
           "change of an order book (stream)")>]
[<TestCase("""{"market_ticker":"KX-A","price_dollars":"0.4","yes_bid_dollars":"0.3","volume_fp":"1"}""",
           "ticker")>]
[<TestCase("""{"market_ticker":"KX-A","yes_price":40,"no_price":60,"count":5,"taker_side":"no","ts":1}""",
           "fill without an id, of an older kind")>]
[<TestCase("""{"schedule":{"standard_hours":[],"maintenance_windows":[]}}""", "exchange schedule")>]
[<TestCase("""{"usage_tier":"basic","read":{"refill_rate":200}}""", "limits of the account")>]
[<TestCase("""{"error":{"code":"not_found","message":"not found"}}""", "error")>]
[<TestCase("""{"ticker":"KX-A","event_ticker":"KX","market_result":"yes","revenue":5}""", "own settlement")>]
[<TestCase("""{"ticker":"KX-A","event_ticker":"KX","status":"active"}""", "rows: market")>]
[<TestCase("""{"markets":[{"ticker":"KX-A"}],"milestones":[{"id":"x"}],"cursor":""}""", "holds 1 of page")>]
let ``what a recording holds is told by its members`` (json: string) (kind: string) =
    equal kind (shapeOf json)

[<Test>]
let ``recorded books of many markets are rows`` () =
    let batch = Batch()

    let body =
        """{"orderbooks":[{"ticker":"KX-A","orderbook_fp":{"yes_dollars":[["0.40","5"]]}},{"ticker":"KX-B","orderbook_fp":{}}]}"""

    let decoded =
        keyless.Decode
            {
                first (Need.Books tokens) with
                    Path = "recorded"
                    Walk = Walk.Books []
            }
            (memory body)
            received
            batch

    equal (ValueNone, 4) (decoded.Fault, batch.Books.Count)

/// The folder of recordings that lie outside of this repository.
let private recorded name =
    match Environment.GetEnvironmentVariable "TRIBUTARY_RECORDED" with
    | null
    | "" ->
        Assert.Ignore "TRIBUTARY_RECORDED names no folder of recordings, so none was read."
        ""
    | folder -> IO.Path.Combine(folder, "kalshi", name)

[<Test>]
let ``a recorded session, on the other scale than was asked for, leads to its books`` () =
    let expected =
        System.Text.Json.JsonDocument.Parse(IO.File.ReadAllText(recorded "made_ws_session_expected.json"))

    let lines = [
        use file = IO.File.OpenRead(recorded "made_ws_session.jsonl.gz")

        use whole =
            new IO.Compression.GZipStream(file, IO.Compression.CompressionMode.Decompress)

        use reader = new IO.StreamReader(whole)
        let mutable line = reader.ReadLine()

        while not (isNull line) do
            yield string line
            line <- reader.ReadLine()
    ]

    let names = Names()
    let frame, out = Frame names, Batch names
    let session = part.Session()
    let depth = Depth(keyed.Exchange, part, DepthRules.usual, names)
    out.Exchange <- "kalshi"
    let books = expected.RootElement.GetProperty "books_in_each_sides_own_price"
    let tickers = [ for book in books.EnumerateObject() -> book.Name ]

    let tokens = [
        for ticker in tickers do
            let market = {
                described with
                    Market = good (MarketId.Parse ticker)
                    Outcomes = [|
                        for side in [ "YES"; "NO" ] ->
                            {
                                Name = side
                                Token = ValueSome(token $"{ticker}:{side}")
                            }
                    |]
            }

            depth.Follow(market, DepthMode.Full)
            yield! market.Tokens
    ]

    session.Open tokens |> ignore
    depth.Subscribed(1, tokens, received)
    let mutable rejected, notes = 0, 0

    let hear (line: string) =
        let bytes = utf8 line
        frame.Clear()
        session.Decode (ReadOnlyMemory bytes) (received + TimeSpan.FromMinutes 10.0) frame
        rejected <- rejected + frame.Batch.Rejections.Count
        notes <- notes + frame.Notes.Count
        depth.Hear(1, ReadOnlySpan bytes, frame, received + TimeSpan.FromMinutes 10.0, out)

    for i, line in List.indexed lines do
        hear line

        // The first book is on the other scale: it is asked for again.
        if i = 3 then
            equal (1, 1) (rejected, notes)
            hear line

    equal (1, 1) (rejected, notes)

    for book in books.EnumerateObject() do
        let side (name: string) = [
            for level in book.Value.GetProperty(name).EnumerateArray() ->
                price (string (level[0].GetString())), size (string (level[1].GetString()))
        ]

        for name in [ "yes"; "no" ] do
            match depth.TryBook(token $"{book.Name}:{name.ToUpperInvariant()}") with
            | ValueSome(struct (live, _, verdict, _)) ->
                equal Verdict.Verified verdict

                equal (side name |> List.sortDescending) [
                    for level in live.Depth(Side.Buy, 1_000) -> level.Price, level.Size
                ]
            | ValueNone -> failwith $"no book of {book.Name}"

// ---- keys

[<Test>]
let ``signatures are made as recorded ones were: those verify, and the altered ones do not`` () =
    use vectors =
        System.Text.Json.JsonDocument.Parse(IO.File.ReadAllText(recorded "signing_vectors_made.json"))

    use own = RSA.Create()
    own.ImportFromPem(string (vectors.RootElement.GetProperty("public_key_pem").GetString()))

    for case in vectors.RootElement.GetProperty("cases").EnumerateArray() do
        let text (name: string) =
            string (case.GetProperty(name).GetString())

        equal
            (case.GetProperty("valid").GetBoolean(), text "name")
            (own.VerifyData(
                Encoding.UTF8.GetBytes(text "message"),
                Convert.FromBase64String(text "signature_base64"),
                HashAlgorithmName.SHA256,
                RSASignaturePadding.Pss
             ),
             text "name")

[<Test>]
let ``without a key there is no live connection, and that is said`` () =
    equal ValueNone (keyless.Stream |> ValueOption.map _.Host)
    Assert.That(single keyless.Notes, Does.Contain "without a key")
    equal [] (keyless.Sign "GET" "/x" received)

[<TestCase("key_id", "'key_id' is given without 'key'")>]
[<TestCase("key", "'key' is given without 'key_id'")>]
[<TestCase("both", "the key is no RSA private key in PEM")>]
let ``a key that cannot be used falls back to public data, and its text is not said``
    (given: string)
    (reason: string)
    =
    let secrets =
        [ "key_id", "me"; "key", "s3cret" ]
        |> List.filter (fun (name, _) -> given = "both" || name = given)

    let collector =
        Kalshi.collector {
            Registry.defaultOptions with
                Secrets = Map.ofList secrets
        }

    Assert.That(single collector.Notes, Does.StartWith reason)
    Assert.That(single collector.Notes, Does.Not.Contain "s3cret")
    isTrue collector.Stream.IsNone

[<Test>]
let ``a signature is over the milliseconds, the method and the path`` () =
    match keyed.Sign "get" "/trade-api/ws/v2" received with
    | [ "KALSHI-ACCESS-KEY", "me"; "KALSHI-ACCESS-TIMESTAMP", stamp; "KALSHI-ACCESS-SIGNATURE", signature ] ->
        equal "1795341600000" stamp

        isTrue (
            key.VerifyData(
                Encoding.UTF8.GetBytes(stamp + "GET/trade-api/ws/v2"),
                Convert.FromBase64String signature,
                HashAlgorithmName.SHA256,
                RSASignaturePadding.Pss
            )
        )
    | headers -> failwith $"%A{headers}"

[<Test>]
let ``a key in PEM may be of either kind, with its line ends written out`` () =
    for pem in
        [
            key.ExportPkcs8PrivateKeyPem()
            key.ExportRSAPrivateKeyPem()
            key.ExportPkcs8PrivateKeyPem().Replace("\n", "\\n")
        ] do
        let collector =
            Kalshi.collector {
                Registry.defaultOptions with
                    Secrets = Map.ofList [ "key_id", "me"; "key", pem ]
            }

        isTrue (collector.Notes.IsEmpty && collector.Stream.IsSome)

// ---- a connection that says nothing any more

let private standing = "[\"0.4000\",\"5.00\"]", "[\"0.4000\",\"7.00\"]"
let private other = "[\"0.4100\",\"5.00\"]", "[\"0.4000\",\"7.00\"]"

[<Test>]
let ``a numbered book that two polls differ from, five seconds apart, is starved, and its silent connection is replaced``
    ()
    =
    let world = begun ()
    world.Poll 2_000L <|| other
    world.Tick 3_000L
    equal [] world.Gaps
    // It may have been an old answer: a second one is asked for.
    world.Tick 7_500L

    isTrue (
        world.Depth.Orders
        |> Seq.exists (function
            | DepthOrder.Compare _ -> true
            | _ -> false)
    )

    world.Depth.Orders.Clear()
    world.Poll 7_600L <|| other

    isTrue (
        world.Gaps
        |> List.exists (fun gap -> gap.StartsWith "KX-A:YES" && gap.EndsWith "..- starved")
    )

    isTrue (Seq.contains (DepthOrder.Rotate 1) world.Depth.Orders)

[<Test>]
let ``a poll that differs and then agrees, or a change that comes after it, is no silence`` () =
    let agreed = begun ()
    agreed.Poll 2_000L <|| other
    agreed.Poll 8_000L <|| standing
    agreed.Tick 9_000L
    equal [] agreed.Gaps
    let moving = begun ()
    moving.Poll 2_000L <|| other
    moving.Delta 3_000L 3 "KX-A" "yes" "0.3900" "1.00"
    moving.Poll 8_000L <|| other
    moving.Tick 9_000L
    equal [] moving.Gaps
