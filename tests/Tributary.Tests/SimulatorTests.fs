module Tributary.Tests.SimulatorTests

open System
open System.Net
open System.Net.Http
open System.Security.Cryptography
open System.Text
open System.Text.Json
open System.Threading
open System.Threading.Tasks
open FsUnit
open NUnit.Framework
open Tributary.Server.Simulator

/// A clock that stands until it is moved.
type internal Clock() =
    inherit TimeProvider()
    let mutable now = DateTimeOffset(2026, 11, 20, 12, 7, 11, TimeSpan.Zero)
    member _.Advance(seconds: float) = now <- now.AddSeconds seconds
    override _.GetUtcNow() = now
    override _.GetTimestamp() = now.UtcTicks
    override _.TimestampFrequency = TimeSpan.TicksPerSecond

let private small = {
    SimulatorOptions.Default with
        Seed = 7
        Markets = 60
        History = TimeSpan.FromMinutes 3.0
        Limits = false
}

/// An exchange, its clock and a client of it.
let private withExchange options (test: Simulator -> Clock -> HttpClient -> Task<unit>) : Task = task {
    let clock = Clock()

    let! simulator =
        Simulator.StartAsync({ options with Clock = clock }, CancellationToken.None)

    use _ = simulator
    use client = new HttpClient(BaseAddress = simulator.Address)
    do! test simulator clock client
}

/// The answer's status and text.
let internal ask (client: HttpClient) (path: string) = task {
    use! response = client.GetAsync path
    let! text = response.Content.ReadAsStringAsync()
    return int response.StatusCode, text
}

let internal get (client: HttpClient) path = task {
    let! status, text = ask client path
    status |> should equal 200
    use document = JsonDocument.Parse text
    return document.RootElement.Clone()
}

let private post (client: HttpClient) (path: string) (tokens: string seq) = task {
    let ids = tokens |> Seq.map (fun token -> $"""{{"token_id":"{token}"}}""")
    let body = "[" + String.Join(",", ids) + "]"

    use! response =
        client.PostAsync(path, new StringContent(body, Encoding.UTF8, "application/json"))

    let! text = response.Content.ReadAsStringAsync()
    return int response.StatusCode, text
}

let internal text (name: string) (element: JsonElement) = string (element.GetProperty name)
let internal items (element: JsonElement) = List.ofSeq (element.EnumerateArray())

let private whenThere (name: string) (element: JsonElement) =
    match element.TryGetProperty name with
    | true, found when found.ValueKind <> JsonValueKind.Null -> Some(string found)
    | _ -> None

/// Every item of a keyset list.
let private walk client name query = task {
    let found = ResizeArray<JsonElement>()
    let mutable cursor = Some ""

    while cursor.IsSome do
        let! page = get client $"gamma/{name}/keyset?{query}&after_cursor={cursor.Value}"
        found.AddRange(items (page.GetProperty(name: string)))
        cursor <- whenThere "next_cursor" page

    return List.ofSeq found
}

let private tokens (market: JsonElement) =
    match JsonSerializer.Deserialize<string[]>(text "clobTokenIds" market) with
    | null -> []
    | tokens -> List.ofArray tokens

let private books client tokens = task {
    let! _, answer = post client "clob/books" tokens
    use document = JsonDocument.Parse answer
    return document.RootElement.Clone() |> items
}

[<FsCheck.NUnit.Property>]
let ``the names of a set of faults are read back as that set`` (switches: Set<FaultSwitch>) =
    let names = switches |> Seq.map FaultSwitch.name |> String.concat ","
    FaultSwitch.parse names = Ok switches

[<Test>]
let ``an unknown fault gets the list of those that exist`` () =
    match FaultSwitch.parse "latency,moon" with
    | Error message ->
        message |> should haveSubstring "moon"

        message
        |> should haveSubstring "latency, 425, 429, 5xx, html, cut, repeat, resolve"
    | Ok _ -> failwith "accepted"

    FaultSwitch.parse "all"
    |> should equal (Ok(FaultSwitch.all |> List.map fst |> Set.ofList): Result<_, string>)

[<Test>]
let ``the book hash reproduces the vector of py-clob-client`` () =
    let one = 1_000_000L

    BookJson.hash {
        Market = "0xaabbcc"
        Token = "100"
        Timestamp = 123456789L
        Bids = [| struct (300_000L, 100L * one); struct (400_000L, 100L * one) |]
        Asks = [| struct (600_000L, 100L * one); struct (700_000L, 100L * one) |]
        MinimumOrderSize = "100"
        TickSize = "0.01"
        NegRisk = false
        LastTradePrice = "0.5"
    }
    |> should equal "0458ea5755c9f73d64a14636fa5c36ed460ec394"

[<Test>]
let ``the same seed and start give the same exchange however often it is asked`` () =
    let history steps seed =
        let mutable seen = []

        let reading =
            withExchange { small with Seed = seed } (fun simulator clock client -> task {
                let! markets = walk client "markets" "closed=false"

                for _ in 1..steps do
                    clock.Advance(60.0 / float steps)
                    let! _ = ask client "data/trades?limit=3"
                    ()

                let! _, list = ask client "gamma/markets?limit=100&closed=false"
                let! books = books client (List.collect tokens markets)
                seen <- list :: List.sort (List.map string books) @ [ $"%A{simulator.Ledger.Trades}" ]
            })

        task {
            do! reading
            return seen
        }

    task {
        let! once = history 1 7
        let! often = history 12 7
        let! other = history 1 8
        once |> should equal often
        once |> should not' (equal other)
    }
    :> Task

[<Test>]
let ``every book verifies, is in order and mirrors its sibling`` () =
    withExchange small (fun _ clock client -> task {
        let! markets = walk client "markets" "closed=false"
        markets |> should haveLength 60

        for _ in 1..4 do
            clock.Advance 45.0
            let! found = books client (List.collect tokens markets)
            let book = found |> List.map (fun book -> text "asset_id" book, book) |> dict
            found |> should haveLength 120

            let levels (name: string) (book: JsonElement) = [
                for level in items (book.GetProperty name) ->
                    decimal (text "price" level), decimal (text "size" level)
            ]

            for market in markets do
                let yes, no =
                    match tokens market with
                    | [ yes; no ] -> book[yes], book[no]
                    | _ -> failwith "two tokens"

                for one in [ yes; no ] do
                    let unsigned = (one.GetRawText()).Replace(text "hash" one, "")

                    Convert.ToHexStringLower(SHA1.HashData(Encoding.UTF8.GetBytes unsigned))
                    |> should equal (text "hash" one)

                    let bids, asks = levels "bids" one, levels "asks" one
                    let tick = decimal (text "tick_size" one)
                    bids |> should equal (bids |> List.sortBy fst)
                    asks |> should equal (asks |> List.sortByDescending fst)

                    for price, size in bids @ asks do
                        price % tick |> should equal 0m
                        price |> should be (greaterThan 0m)
                        size |> should be (greaterThan 0m)

                    if not bids.IsEmpty && not asks.IsEmpty then
                        fst (List.last bids) |> should be (lessThan (fst (List.last asks)))

                let mirrored side =
                    levels side no |> List.map (fun (price, size) -> 1m - price, size)

                levels "bids" yes |> should equal (mirrored "asks")
                levels "asks" yes |> should equal (mirrored "bids")
                text "timestamp" yes |> should equal (text "timestamp" no)

        let! last = books client (List.collect tokens markets)

        let sides (book: JsonElement) = [
            for side in [ "bids"; "asks" ] -> (items (book.GetProperty side)).Length
        ]

        let shapes = last |> List.map sides
        shapes |> should contain [ 0; 0 ]

        shapes
        |> List.exists (fun shape -> shape[0] > 0 && shape[1] = 0)
        |> should be True
    })

[<Test>]
let ``a busy book changes within seconds and a quiet one stays for minutes`` () =
    withExchange small (fun _ clock client -> task {
        let! markets = walk client "markets" "closed=false"

        let hashes () = task {
            let! found = books client (List.collect tokens markets)
            return found |> List.map (text "hash") |> Set.ofList
        }

        let! before = hashes ()
        clock.Advance 5.0
        let! after = hashes ()
        let unchanged = Set.intersect before after
        unchanged.Count |> should be (greaterThan 40)
        unchanged.Count |> should be (lessThan 115)
    })

[<Test>]
let ``a keyset walk sees every market once, and the wrong cursor name repeats the first page`` () =
    withExchange { small with Markets = 230 } (fun _ _ client -> task {
        let! all = walk client "markets" "closed=false&limit=500"
        all |> List.map (text "id") |> List.distinct |> should haveLength 230
        all |> should haveLength 230

        let! events = walk client "events" "closed=false&limit=9"

        let inside =
            events |> List.collect (fun event -> items (event.GetProperty "markets"))

        inside
        |> List.map (text "id")
        |> set
        |> should equal (all |> List.map (text "id") |> set)

        let! byVolume =
            walk client "markets" "closed=false&order=volumeNum&ascending=false&limit=30"

        byVolume |> should haveLength 230
        let volumes = byVolume |> List.map (text "volumeNum" >> float)
        volumes |> should equal (List.sortDescending volumes)

        let! first = get client "gamma/markets/keyset?limit=100"
        let cursor = text "next_cursor" first

        for wrong in [ "cursor"; "next_cursor" ] do
            let! again = get client $"gamma/markets/keyset?limit=100&{wrong}={cursor}"
            string again |> should equal (string first)
    })

[<Test>]
let ``closed markets come with closed=true alone, and an event list without closed is of closed events`` () =
    withExchange small (fun _ _ client -> task {
        let! closed = walk client "markets" "closed=true"
        closed |> should not' (be Empty)

        closed
        |> List.forall (fun market -> (market.GetProperty "closed").GetBoolean())
        |> should be True

        for market in closed do
            [ "[\"1\", \"0\"]"; "[\"0\", \"1\"]" ]
            |> should contain (text "outcomePrices" market)

        let id = text "id" closed.Head
        let! hidden = get client $"gamma/markets?id={id}"
        items hidden |> should be Empty
        let! shown = get client $"gamma/markets?id={id}&closed=true"
        items shown |> should haveLength 1
        let! one = get client $"""gamma/markets/slug/{text "slug" closed.Head}"""
        text "id" one |> should equal id
        let! events = get client "gamma/events?limit=500"

        items events
        |> List.map (text "closed")
        |> List.distinct
        |> should equal [ "True" ]

        let! gone, _ = ask client $"clob/book?token_id={(tokens closed.Head).Head}"
        gone |> should equal 404
        let! unknown, _ = ask client "gamma/events/slug/never-heard-of"
        unknown |> should equal 404
    })

[<Test>]
let ``filters choose by id, slug, condition, token and tag`` () =
    withExchange small (fun _ _ client -> task {
        let! markets = walk client "markets" "closed=false"
        let a, b = markets[3], markets[17]

        for query in
            [
                $"""id={text "id" a}&id={text "id" b}"""
                $"""slug={text "slug" a}&slug={text "slug" b}"""
                $"""condition_ids={text "conditionId" a}&condition_ids={text "conditionId" b}"""
                $"clob_token_ids={(tokens a).Head}&clob_token_ids={(tokens b)[1]}"
            ] do
            let! found = get client $"gamma/markets?{query}"
            items found |> List.map (text "id") |> should equal [ text "id" a; text "id" b ]

        let! crypto = walk client "events" "closed=false&tag_slug=crypto"
        let! tag = get client "gamma/tags/slug/crypto"
        let! byId = walk client "events" $"""closed=false&tag_id={text "id" tag}"""
        crypto |> should not' (be Empty)
        crypto |> List.map (text "id") |> should equal (byId |> List.map (text "id"))
    })

[<Test>]
let ``a batch of books leaves unknown tokens out and comes in another order`` () =
    withExchange small (fun simulator _ client -> task {
        let! markets = walk client "markets" "closed=false"
        let wanted = markets |> List.collect tokens |> List.truncate 10
        let! found = books client (wanted @ [ "12345" ])
        let got = found |> List.map (text "asset_id")
        got |> should not' (equal wanted)
        set got |> should equal (set wanted)

        let request = Array.last simulator.Ledger.Requests
        request.Asked |> should haveLength 11
        request.Books |> Array.map _.Token |> List.ofArray |> should equal got
        request.Books[0].Hash |> should equal (text "hash" found.Head)
        let! status, message = post client "clob/books" (List.replicate 501 "1")
        status |> should equal 400
        message |> should equal """{"error":"payload exceeds limit"}"""
    })

[<Test>]
let ``the small answers agree with the book`` () =
    withExchange small (fun _ _ client -> task {
        let! markets = walk client "markets" "closed=false"
        let token = (tokens markets.Head).Head
        let! book = get client $"clob/book?token_id={token}"

        let best (side: string) =
            items (book.GetProperty side) |> List.last |> text "price" |> decimal

        let single path name = task {
            let! answer = get client $"clob/{path}token_id={token}"
            return decimal (text name answer)
        }

        let! bid = single "price?side=BUY&" "price"
        let! ask = single "price?side=SELL&" "price"
        let! mid = single "midpoint?" "mid"
        let! spread = single "spread?" "spread"
        let! tick = single "tick-size?" "minimum_tick_size"
        (bid, ask) |> should equal (best "bids", best "asks")
        mid |> should equal ((bid + ask) / 2m)
        spread |> should equal (ask - bid)
        tick |> should equal (decimal (text "tick_size" book))
        let! last = get client $"clob/last-trade-price?token_id={token}"
        let! market = get client $"""clob/markets/{text "market" book}"""

        items (market.GetProperty "tokens")
        |> List.map (text "token_id")
        |> should contain token

        [ "BUY"; "SELL"; "" ] |> should contain (text "side" last)
        let! time = get client "clob/time"
        time.GetInt64() |> should equal 1795176431L
        let! ok = get client "clob/ok"
        string ok |> should equal "OK"
    })

/// Everything that tells one fill from another, in the words of version 1 or 2.
let private fill wallet token condition transaction row =
    let all = [ wallet; token; condition; transaction; "side"; "price"; "size"; "timestamp" ]
    all |> List.map (fun name -> (text name row).ToLowerInvariant())

let private fill1 = fill "proxyWallet" "asset" "conditionId" "transactionHash"
let private fill2 = fill "proxy_wallet" "token_id" "condition_id" "transaction_hash"

let private ofLedger (trade: LedgerTrade) = [
    trade.Wallet
    trade.Token
    trade.Condition
    trade.Transaction
    trade.Side.ToLowerInvariant()
    string trade.Price
    string trade.Size
    string trade.Timestamp
]

/// The conditions with the most trades.
let private busiest count (simulator: Simulator) =
    simulator.Ledger.Trades
    |> Array.countBy _.Condition
    |> Array.sortByDescending snd
    |> Array.truncate count
    |> Array.map fst

[<Test>]
let ``a cursor walk yields every trade exactly once while new ones arrive, and v1 has the same rows`` () =
    withExchange small (fun simulator clock client -> task {
        let conditions = busiest 5 simulator
        let now = clock.GetUtcNow()

        let mine (trade: LedgerTrade) =
            Array.contains trade.Condition conditions

        let truth =
            simulator.Ledger.Trades
            |> Array.filter (fun trade -> mine trade && trade.VisibleAt <= now)
            |> Array.map ofLedger
            |> List.ofArray

        let rows = ResizeArray()
        let mutable cursor = Some ""
        let mutable pages = 0
        let list = String.Join("&condition=", conditions)

        while cursor.IsSome do
            let! page =
                get client $"data/v2/trades?condition={list}&limit=70&cursor={cursor.Value}"

            rows.AddRange(items (page.GetProperty "data"))
            let pagination = page.GetProperty "pagination"
            cursor <- whenThere "next_cursor" pagination
            (pagination.GetProperty "has_more").GetBoolean() |> should equal cursor.IsSome
            pages <- pages + 1
            clock.Advance 0.5

        pages |> should be (greaterThan 5)
        let seen = rows |> Seq.map fill2 |> List.ofSeq
        // What became visible during the walk may have been met too, behind the truth of the beginning.
        let counted rows = rows |> List.countBy id |> Map.ofList
        let truth, seen = counted truth, counted seen

        for KeyValue(row, times) in truth do
            Map.tryFind row seen |> Option.defaultValue 0 |> should equal times

        let list = String.Join(",", conditions)
        simulator.Freeze()
        let! first = get client $"data/trades?market={list}&limit=10000"
        let times = items first |> List.map (text "timestamp" >> int64)
        times |> should equal (List.sortDescending times)

        items first
        |> List.map fill1
        |> List.sort
        |> should
            equal
            (simulator.Ledger.Trades
             |> Array.filter mine
             |> Array.map ofLedger
             |> List.ofArray
             |> List.sort)
    })

[<Test>]
let ``identical fills, shared transactions, late rows and mixed-case wallets occur`` () =
    withExchange small (fun simulator _ _ -> task {
        let trades = simulator.Ledger.Trades

        let late (trade: LedgerTrade) =
            (trade.VisibleAt - DateTimeOffset.FromUnixTimeSeconds trade.Timestamp).TotalSeconds

        trades.Length |> should be (greaterThan 2000)
        trades |> Array.map _.Occurrence |> Array.max |> should be (inRange 1 3)

        trades
        |> Array.forall (fun trade -> late trade >= 0.0 && late trade <= 8.0)
        |> should be True

        trades |> Array.exists (fun trade -> late trade > 4.0) |> should be True
        let prompt = trades |> Array.filter (fun trade -> late trade <= 2.0)
        prompt.Length |> should be (greaterThan (trades.Length * 9 / 10))
        trades |> Array.forall (fun trade -> trade.Size >= 0.01m) |> should be True

        let bySize = trades |> Array.countBy _.Transaction |> Array.map snd
        bySize |> should contain 1
        bySize |> Array.max |> should be (greaterThan 2)
        let rate = float trades.Length / 180.0
        rate |> should be (inRange 14.0 26.0)
        return ()
    })

[<Test>]
let ``a window of v1 is inclusive on both ends, and makers come on request`` () =
    withExchange small (fun simulator clock client -> task {
        let condition = Array.head (busiest 1 simulator)
        simulator.Freeze()
        let until = clock.GetUtcNow().ToUnixTimeSeconds() - 20L
        let since = until - 60L

        let truth =
            simulator.Ledger.Trades
            |> Array.filter (fun trade ->
                trade.Condition = condition
                && trade.Timestamp >= since
                && trade.Timestamp <= until)

        let query = $"market={condition}&start={since}&end={until}"
        let! takers = get client $"data/trades?{query}&limit=10000"
        let! both = get client $"data/trades?{query}&limit=10000&takerOnly=false"
        let! bought = get client $"data/trades?{query}&limit=10000&side=BUY"
        truth.Length |> should be (greaterThan 0)
        items takers |> should haveLength truth.Length
        items both |> should haveLength (2 * truth.Length)

        items bought
        |> should haveLength (truth |> Array.filter (fun trade -> trade.Side = "BUY")).Length

        let! page = get client $"data/trades?{query}&offset=2&limit=3"

        items page
        |> List.map string
        |> should equal (items takers |> List.map string |> List.skip 2 |> List.truncate 3)
    })

[<TestCase("gamma/markets/keyset?offset=5", 422)>]
[<TestCase("gamma/markets?offset=10001", 422)>]
[<TestCase("gamma/events/keyset?after_cursor=%%%", 422)>]
[<TestCase("data/trades?offset=3001", 400)>]
[<TestCase("data/trades?limit=10001", 400)>]
[<TestCase("data/v2/trades?limit=1001", 400)>]
[<TestCase("data/v2/trades?offset=1", 400)>]
[<TestCase("data/v2/trades?condition=0x12", 400)>]
[<TestCase("data/v2/trades?cursor=abc", 400)>]
[<TestCase("clob/book", 400)>]
[<TestCase("clob/book?token_id=1", 404)>]
[<TestCase("clob/books", 405)>]
let ``what goes over a cap or makes no sense is refused`` (path: string, status: int) =
    withExchange
        {
            small with
                Markets = 5
                History = TimeSpan.Zero
        }
        (fun _ _ client -> task {
            let! answered, text = ask client path
            answered |> should equal status
            text |> should startWith "{\"error\":"
        })

[<Test>]
let ``without v2 its route is not found`` () =
    withExchange { small with Markets = 5; V2 = false } (fun _ _ client -> task {
        let! status, _ = ask client "data/v2/trades"
        status |> should equal 404
        let! first, _ = ask client "data/trades"
        first |> should equal 200
    })

[<TestCase("gzip")>]
[<TestCase("br")>]
let ``an answer is compressed as the client likes it`` (encoding: string) =
    withExchange small (fun simulator _ plain -> task {
        use raw = new HttpClient(BaseAddress = simulator.Address)
        raw.DefaultRequestHeaders.Add("Accept-Encoding", encoding)
        use! response = raw.GetAsync "gamma/markets?limit=50"
        response.Content.Headers.ContentEncoding |> should contain encoding

        use handler =
            new HttpClientHandler(AutomaticDecompression = DecompressionMethods.All)

        use client = new HttpClient(handler, BaseAddress = simulator.Address)
        let! there = client.GetStringAsync "gamma/markets?limit=50"
        let! here = plain.GetStringAsync "gamma/markets?limit=50"
        there |> should equal here
    })

/// The exchange with one fault that strikes every request.
let private struck switch test =
    withExchange
        {
            small with
                Markets = 20
                Faults = Set.singleton switch
                FaultRate = 1.0
        }
        test

[<Test>]
let ``latency delays an answer and leaves it whole`` () : Task = task {
    let options = {
        small with
            Markets = 5
            Faults = Set.singleton FaultSwitch.Latency
            FaultRate = 1.0
    }

    let! simulator = Simulator.StartAsync(options, CancellationToken.None)
    use _ = simulator
    use client = new HttpClient(BaseAddress = simulator.Address)
    let! status, _ = ask client "gamma/markets"
    status |> should equal 200
    let! _ = ask client "control/state"
    let request = Array.last simulator.Ledger.Requests
    request.Milliseconds |> should be (greaterThanOrEqualTo 90.0)
    Option.toList request.Fault |> should equal [ "latency" ]
}

[<Test>]
let ``an engine restart answers 425 to every CLOB call for two seconds`` () =
    struck FaultSwitch.EngineRestart425 (fun simulator clock client -> task {
        let! first, _ = ask client "clob/time"
        first |> should equal 425
        simulator.Faults <- Set.empty
        simulator.Faults <- Set.singleton FaultSwitch.EngineRestart425
        clock.Advance 1.0
        let! during, _ = ask client "clob/ok"
        during |> should equal 425
        let! elsewhere, _ = ask client "gamma/markets"
        elsewhere |> should equal 200
        simulator.Faults <- Set.empty
        let! after, _ = ask client "clob/ok"
        after |> should equal 200
    })

[<Test>]
let ``a throttled answer says when to come back, in seconds and as a date`` () =
    struck FaultSwitch.Throttle429 (fun _ clock client -> task {
        use! first = client.GetAsync "data/trades"
        use! second = client.GetAsync "data/trades"

        let after =
            [ first; second ] |> List.map _.Headers.RetryAfter |> List.choose Option.ofObj

        [ first; second ] |> List.map (_.StatusCode >> int) |> should equal [ 429; 429 ]

        after
        |> List.choose (_.Delta >> Option.ofNullable)
        |> should equal [ TimeSpan.FromSeconds 1.0 ]

        let date = after |> List.choose (_.Date >> Option.ofNullable) |> List.exactlyOne
        date |> should be (greaterThan (clock.GetUtcNow()))
    })

[<Test>]
let ``server errors are JSON with 500 and 503`` () =
    struck FaultSwitch.ServerError (fun _ _ client -> task {
        let! first, text = ask client "gamma/markets"
        let! second, _ = ask client "gamma/markets"
        set [ first; second ] |> should equal (set [ 500; 503 ])
        text |> should startWith "{\"error\":"
    })

[<Test>]
let ``a page of HTML comes with 502 and with 200`` () =
    struck FaultSwitch.Html (fun _ _ client -> task {
        use! first = client.GetAsync "clob/time"
        use! second = client.GetAsync "clob/time"

        set [ int first.StatusCode; int second.StatusCode ]
        |> should equal (set [ 200; 502 ])

        for response in [ first; second ] do
            string response.Content.Headers.ContentType |> should startWith "text/html"
    })

[<Test>]
let ``a body is cut by the connection or in the middle of its JSON, and counts as not delivered`` () =
    struck FaultSwitch.CutBody (fun simulator _ client -> task {
        let mutable broken = 0
        let mutable halves = 0

        for _ in 1..2 do
            try
                let! status, text = ask client "data/trades"
                status |> should equal 200
                halves <- halves + 1

                try
                    JsonDocument.Parse(text).Dispose()
                    failwith "the JSON is whole"
                with :? JsonException ->
                    ()
            with :? HttpRequestException ->
                broken <- broken + 1

        (broken, halves) |> should equal (1, 1)
        simulator.Ledger.Requests |> Array.sumBy _.Rows |> should equal 0
    })

[<Test>]
let ``a follow-up page answers the first page again with its cursor`` () =
    struck FaultSwitch.RepeatedPage (fun _ _ client -> task {
        let! first = get client "gamma/markets/keyset?limit=5"

        let! second =
            get client $"""gamma/markets/keyset?limit=5&after_cursor={text "next_cursor" first}"""

        string second |> should equal (string first)
        let! trades = get client "data/trades?limit=5"
        let! again = get client "data/trades?limit=5&offset=5"
        string again |> should equal (string trades)
    })

[<Test>]
let ``with resolutions on a market closes and its tokens lose their books`` () =
    struck FaultSwitch.Resolve (fun _ clock client -> task {
        let! before = walk client "markets" "closed=false"
        clock.Advance 120.0
        let! after = walk client "markets" "closed=false"

        let gone =
            Set.difference (before |> List.map (text "id") |> set) (after |> List.map (text "id") |> set)

        gone |> should not' (be Empty)
        let resolved = before |> List.find (fun market -> gone.Contains(text "id" market))
        let! found = books client (List.collect tokens before)
        found |> should haveLength (2 * after.Length)
        let! market = get client $"""gamma/markets/{text "id" resolved}"""

        [ "[\"1\", \"0\"]"; "[\"0\", \"1\"]" ]
        |> should contain (text "outcomePrices" market)

        text "closedTime" market |> should endWith "+00"
    })

[<Test>]
let ``faults are switched while it runs, and a switched-off fault is gone`` () =
    struck FaultSwitch.ServerError (fun simulator _ client -> task {
        use! answer = client.PostAsync("control/faults?set=none", null)
        answer.StatusCode |> should equal HttpStatusCode.OK
        simulator.Faults |> should be Empty
        let! status, _ = ask client "gamma/markets"
        status |> should equal 200
        use! refused = client.PostAsync("control/faults?set=moon", null)
        refused.StatusCode |> should equal HttpStatusCode.BadRequest
    })

[<Test>]
let ``over a limit comes 429 with Retry-After, until the window has moved on`` () =
    withExchange
        {
            small with
                Markets = 5
                Limits = true
        }
        (fun simulator clock client -> task {
            for _ in 1..200 do
                let! status, _ = ask client "data/trades?limit=1"
                status |> should equal 200

            clock.Advance 4.0
            use! over = client.GetAsync "data/v2/trades?limit=1"
            over.StatusCode |> should equal HttpStatusCode.TooManyRequests
            over.Headers.GetValues "Retry-After" |> List.ofSeq |> should equal [ "6" ]

            (Array.last simulator.Ledger.Requests).Fault
            |> Option.toList
            |> should equal [ "limit" ]

            let! elsewhere, _ = ask client "clob/ok"
            elsewhere |> should equal 200
            clock.Advance 6.0
            let! later, _ = ask client "data/trades?limit=1"
            later |> should equal 200
        })

[<Test>]
let ``a frozen exchange shows every late row and changes no more`` () =
    withExchange small (fun simulator clock client -> task {
        let trades () = task {
            let! page = get client "data/trades?limit=10000"
            return items page
        }

        let all = simulator.Ledger.Trades.Length
        let! before = trades ()
        before.Length |> should be (lessThan all)
        use! frozen = client.PostAsync("control/freeze", null)
        frozen.StatusCode |> should equal HttpStatusCode.OK
        let! after = trades ()
        after |> should haveLength all
        clock.Advance 100.0
        let! later = trades ()
        later |> should haveLength all
        let now = clock.GetUtcNow()

        simulator.Ledger.Trades
        |> Array.forall (fun trade -> trade.VisibleAt <= now)
        |> should be True
    })

[<Test>]
let ``simulated time runs at its speed`` () =
    withExchange { small with Speed = 30.0 } (fun simulator clock client -> task {
        let! before = get client "clob/time"
        let trades = simulator.Ledger.Trades.Length
        clock.Advance 2.0
        let! after = get client "clob/time"
        after.GetInt64() - before.GetInt64() |> should equal 60L
        simulator.Ledger.Trades.Length |> should be (greaterThan (trades + 500))
    })

[<Test>]
let ``the ledger can be read as lines`` () =
    withExchange small (fun simulator _ client -> task {
        let! _ = ask client "clob/time"
        let! _, trades = ask client "ledger/trades"
        let! _, requests = ask client "ledger/requests"

        let lines (text: string) =
            text.Split('\n', StringSplitOptions.RemoveEmptyEntries)

        lines trades |> should haveLength simulator.Ledger.Trades.Length
        use document = JsonDocument.Parse((lines requests)[0])
        text "request" document.RootElement |> should equal "/clob/time"
    })
