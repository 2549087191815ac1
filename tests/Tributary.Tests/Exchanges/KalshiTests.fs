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

    member _.Gaps = [
        for gap in out.Gaps do
            let moment (at: Instant) = at.Micros / 1_000L - start

            let until =
                gap.Until |> ValueOption.map (moment >> string) |> ValueOption.defaultValue "-"

            $"{gap.Token.Value} {moment gap.Since}..{until} {gap.Cause}"
    ]

let private begun () =
    let world = World()
    world.Subscribe()
    world.Hear 0L """{"id":1,"type":"subscribed","msg":{"channel":"orderbook_delta","sid":7}}"""
    world.Hear 0L """{"id":2,"type":"subscribed","msg":{"channel":"trade","sid":8}}"""
    world.Snapshot 1L 1 "KX-A"
    world.Snapshot 1L 2 "KX-B"
    world.Out.Clear()
    world.Depth.Orders.Clear()
    world

[<Test>]
let ``a connection asks for books in prices of Yes, for trades and for news of markets`` () =
    let world = World()

    equal
        [
            """{"id":1,"cmd":"subscribe","params":{"channels":["orderbook_delta"],"market_tickers":["KX-A","KX-B"],"use_yes_price":true}}"""
            """{"id":2,"cmd":"subscribe","params":{"channels":["trade"],"market_tickers":["KX-A","KX-B"]}}"""
            """{"id":3,"cmd":"subscribe","params":{"channels":["market_lifecycle_v2"]}}"""
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
                """{"id":4,"cmd":"update_subscription","params":{"sids":[7],"action":"get_snapshot","market_tickers":["KX-A","KX-B"]}}"""
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
            """{"id":4,"cmd":"subscribe","params":{"channels":["orderbook_delta"],"market_tickers":["KX-A"],"use_yes_price":true}}"""
        ]
        (List.ofSeq world.Frame.Replies)

    equal
        [ "'orderbook_delta' of market KX-B was refused: Market not found (16)" ]
        (List.ofSeq world.Frame.Notes)

    world.Hear 2L """{"id":2,"type":"error","msg":{"code":11,"msg":"Invalid parameter"}}"""
    equal 2 world.Frame.Replies.Count

[<Test>]
let ``markets that come and go on an open connection wait for the numbers of its subscriptions`` () =
    let world = World()
    equal [] (world.Session.Subscribe [ token "KX-C:YES"; token "KX-C:NO" ])
    world.Hear 0L """{"id":1,"type":"subscribed","msg":{"channel":"orderbook_delta","sid":7}}"""
    equal 0 world.Frame.Replies.Count
    world.Hear 0L """{"id":2,"type":"subscribed","msg":{"channel":"trade","sid":8}}"""

    equal
        [
            for id, sid in [ 4, 7; 5, 8 ] ->
                $$$"""{"id":{{{id}}},"cmd":"update_subscription","params":{"sids":[{{{sid}}}],"action":"add_markets","market_tickers":["KX-C"]}}"""
        ]
        (List.ofSeq world.Frame.Replies)

    equal [] (world.Session.Unsubscribe [ token "KX-C:YES" ])
    equal 2 (world.Session.Unsubscribe [ token "KX-C:NO" ]).Length

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

// ---- keys

[<Test>]
let ``without a key there is no live connection, and that is said`` () =
    equal ValueNone (keyless.Stream |> ValueOption.map _.Host)
    Assert.That(single keyless.Notes, Does.Contain "there is no key")
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
