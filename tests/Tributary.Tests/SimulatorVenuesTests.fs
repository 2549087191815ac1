/// The simulated exchange in the words of others: what their references say, whoever collects from it.
module Tributary.Tests.SimulatorVenuesTests

open System
open System.Collections.Generic
open System.Net.Http
open System.Security.Cryptography
open System.Text
open System.Text.Json
open System.Threading
open System.Threading.Tasks
open NUnit.Framework
open Tributary.Server.Simulator
open Tributary.Tests.SimulatorTests

let private of' venue = {
    SimulatorOptions.Default with
        Venue = venue
        Seed = 7
        Markets = 30
        History = TimeSpan.FromMinutes 10.0
        Limits = false
}

let private withExchange options (test: Simulator -> Clock -> HttpClient -> Task<unit>) : Task = task {
    let clock = Clock()

    let! simulator =
        Simulator.StartAsync({ options with Clock = clock }, CancellationToken.None)

    use _ = simulator
    use client = new HttpClient(BaseAddress = Uri(simulator.Address, "rest/"))
    do! test simulator clock client
}

let private within (name: string) (element: JsonElement) = items (element.GetProperty name)

let private number (name: string) (element: JsonElement) = element.GetProperty(name).GetDecimal()

// ---- Kalshi

/// Every row of a list that goes on behind a cursor.
let private walk client (path: string) name = task {
    let found = List<JsonElement>()
    let mutable next = Some ""

    while next.IsSome do
        let join = if path.Contains '?' then '&' else '?'

        let cursor =
            if next.Value = "" then
                ""
            else
                $"{join}cursor={Uri.EscapeDataString next.Value}"

        let! page = get client (path + cursor)
        found.AddRange(within name page)

        next <-
            if text "cursor" page = "" then
                None
            else
                Some(text "cursor" page)

    return List.ofSeq found
}

[<Test>]
let ``kalshi's lists go on by cursor and tell each market once`` () =
    withExchange (of' Venue.Kalshi) (fun _ _ client -> task {
        let! events =
            walk client "events?limit=3&status=open&with_nested_markets=true" "events"

        let nested = events |> List.collect (within "markets") |> List.map (text "ticker")
        let! listed = walk client "markets?limit=7&status=open" "markets"
        equal 30 nested.Length
        equal (List.sort nested) (listed |> List.map (text "ticker") |> List.sort)

        // The words of objects are not those of queries.
        equal [ "active" ] (listed |> List.map (text "status") |> List.distinct)
        let! settled = walk client "markets?status=settled" "markets"
        equal [ "finalized" ] (settled |> List.map (text "status") |> List.distinct)
        let! status, _ = ask client "markets?status=active"
        equal 400 status
    })

[<Test>]
let ``kalshi's books are bids alone, rising, on the grid, and meet the market's best prices`` () =
    withExchange (of' Venue.Kalshi) (fun _ _ client -> task {
        let! markets = walk client "markets?status=open" "markets"

        for market in markets do
            let! answer = get client $"""markets/{text "ticker" market}/orderbook"""
            let book = answer.GetProperty "orderbook_fp"

            let side (name: string) =
                within name book
                |> List.map (fun level -> decimal (string level[0]), decimal (string level[1]))

            let yes, no = side "yes_dollars", side "no_dollars"
            equal (yes |> List.sortBy fst) yes
            equal (no |> List.sortBy fst) no
            let step = decimal (text "step" (within "price_ranges" market |> List.head))

            for price, size in yes @ no do
                equal 0m (price % step)
                equal 0m (size % 0.01m)
                isTrue (size > 0m)

            let best (levels: (decimal * decimal) list) =
                match List.tryLast levels with
                | Some level -> level
                | None -> 0m, 0m

            equal
                (best yes)
                (decimal (text "yes_bid_dollars" market), decimal (text "yes_bid_size_fp" market))

            equal (1m - fst (best no)) (decimal (text "yes_ask_dollars" market))
            isTrue (fst (best yes) + fst (best no) < 1m)
    })

[<Test>]
let ``kalshi's trades are told of YES, newest first, and are those of the ledger`` () =
    withExchange (of' Venue.Kalshi) (fun simulator clock client -> task {
        clock.Advance 30.0
        simulator.Freeze()
        let! markets = walk client "markets" "markets"
        let told = HashSet<string * string * decimal * decimal * int64>()

        for market in markets do
            let! trades =
                walk client $"""markets/trades?ticker={text "ticker" market}&limit=9""" "trades"

            let times =
                trades
                |> List.map (fun trade -> DateTimeOffset.Parse(text "created_time" trade))

            equal (List.sortDescending times) times

            for trade in trades do
                equal
                    1m
                    (decimal (text "yes_price_dollars" trade)
                     + decimal (text "no_price_dollars" trade))

                let isBid = text "taker_book_side" trade = "bid"
                equal (if isBid then "yes" else "no") (text "taker_outcome_side" trade)

                isTrue (
                    told.Add(
                        text "trade_id" trade,
                        (if isBid then "BUY" else "SELL"),
                        decimal (text "yes_price_dollars" trade),
                        decimal (text "count_fp" trade),
                        DateTimeOffset.Parse(text "created_time" trade).ToUnixTimeSeconds()
                    )
                )

        let known =
            simulator.Ledger.Trades
            |> Array.map (fun trade ->
                trade.Transaction, trade.Side, trade.Price, trade.Size, trade.Timestamp)

        isTrue (known.Length > 100)
        equal (List.sort (List.ofArray known)) (told |> List.ofSeq |> List.sort)
    })

[<Test>]
let ``what is older than kalshi's cut-off is in the archive alone`` () =
    let options = {
        of' Venue.Kalshi with
            Archive = 300
            ArchiveAge = TimeSpan.FromDays 30.0
    }

    withExchange options (fun simulator _ client -> task {
        simulator.Freeze()
        let! cutoff = get client "historical/cutoff"
        let cutoff = DateTimeOffset.Parse(text "trades_created_ts" cutoff)
        let! markets = walk client "markets?status=open" "markets"
        let ticker = text "ticker" markets.Head

        let times rows =
            rows |> List.map (fun trade -> DateTimeOffset.Parse(text "created_time" trade))

        let! old = walk client $"historical/trades?ticker={ticker}&limit=4" "trades"
        let! live = walk client $"markets/trades?ticker={ticker}" "trades"
        isTrue (times old |> List.forall (fun at -> at < cutoff))
        isTrue (times live |> List.forall (fun at -> at >= cutoff))
        equal 10 old.Length

        match simulator.Fills ticker with
        | ValueSome fills -> equal (Seq.length fills) (old.Length + live.Length)
        | ValueNone -> Assert.Fail "the market is unknown"
    })

let private signed (key: RSA) (clock: Clock) (path: string) =
    let at = string (clock.GetUtcNow().ToUnixTimeMilliseconds())
    let request = new HttpRequestMessage(HttpMethod.Get, path)
    let place = "/rest/" + path.Split('?')[0]
    request.Headers.Add("KALSHI-ACCESS-KEY", "me")
    request.Headers.Add("KALSHI-ACCESS-TIMESTAMP", at)

    request.Headers.Add(
        "KALSHI-ACCESS-SIGNATURE",
        key.SignData(
            Encoding.UTF8.GetBytes $"{at}GET{place}",
            HashAlgorithmName.SHA256,
            RSASignaturePadding.Pss
        )
        |> Convert.ToBase64String
    )

    request

[<Test>]
let ``many of kalshi's books at once are for a key's owner`` () = task {
    use key = RSA.Create 2048
    use other = RSA.Create 2048

    do!
        withExchange
            {
                of' Venue.Kalshi with
                    PublicKey = key.ExportSubjectPublicKeyInfoPem()
            }
            (fun _ clock client -> task {
                let! markets = walk client "markets?status=open" "markets"

                let path =
                    markets
                    |> List.truncate 3
                    |> List.map (fun market -> $"""tickers={text "ticker" market}""")
                    |> String.concat "&"
                    |> sprintf "markets/orderbooks?%s"

                let! status, _ = ask client path
                equal 401 status
                use! refused = client.SendAsync(signed other clock path)
                equal 401 (int refused.StatusCode)
                use! answer = client.SendAsync(signed key clock path)
                equal 200 (int answer.StatusCode)
                let! body = answer.Content.ReadAsStringAsync()
                use document = JsonDocument.Parse body
                equal 3 (within "orderbooks" document.RootElement).Length
            })
}

[<Test>]
let ``without a key kalshi answers five requests at once, and a refusal does not say when to come again`` () =
    withExchange { of' Venue.Kalshi with Limits = true } (fun _ clock client -> task {
        for _ in 1..5 do
            let! status, _ = ask client "exchange/status"
            equal 200 status

        use! refused = client.GetAsync "exchange/status"
        equal 429 (int refused.StatusCode)
        isTrue (isNull refused.Headers.RetryAfter)
        clock.Advance 0.25
        let! status, _ = ask client "exchange/status"
        equal 200 status
    })

// ---- Manifold

[<Test>]
let ``manifold refuses a parameter that it does not know`` () =
    withExchange (of' Venue.Manifold) (fun _ _ client -> task {
        for path in
            [
                "markets?limit=5&status=open"
                "bets?contractId=x&cursor=y"
                "search-markets?tag=z"
            ] do
            let! status, body = ask client path
            equal 400 status
            isTrue (body.Contains "message")
    })

[<Test>]
let ``a list of manifold's leaves answers out, and begins again behind a market that nobody knows`` () =
    withExchange (of' Venue.Manifold) (fun _ _ client -> task {
        let! all = get client "markets?limit=1000&sort=last-bet-time"
        let all = items all
        let id = text "id"
        isTrue (all |> List.exists (fun one -> text "mechanism" one = "cpmm-multi-1"))
        isTrue (all |> List.forall (fun one -> not (one.TryGetProperty("answers") |> fst)))
        let! again = get client "markets?limit=1000&sort=last-bet-time&before=nobody"
        equal (List.map id all) (items again |> List.map id)
        let! behind = get client $"markets?limit=1000&sort=last-bet-time&before={id all[2]}"
        let behind = items behind

        isTrue (
            behind.Length < all.Length
            && not (behind |> List.exists (fun one -> id one = id all[2]))
        )

        let multi = all |> List.find (fun one -> text "mechanism" one = "cpmm-multi-1")
        let! full = get client $"market/{id multi}"
        isTrue ((within "answers" full).Length >= 2)
        let! bySlug = get client $"""slug/{text "slug" multi}"""
        equal (id multi) (id bySlug)
    })

[<Test>]
let ``manifold's bets lie between bounds that are exclusive, redemptions beside them, and are those of the ledger``
    ()
    =
    withExchange (of' Venue.Manifold) (fun simulator clock client -> task {
        clock.Advance 30.0
        simulator.Freeze()
        let! markets = get client "markets?limit=1000"
        let told = List<string * string * decimal * decimal>()
        let mutable redemptions = 0

        for market in items markets do
            let! bets = get client $"""bets?contractId={text "id" market}&limit=10000"""
            let bets = items bets

            for bet in bets do
                if bet.GetProperty("isRedemption").GetBoolean() then
                    redemptions <- redemptions + 1
                else
                    let amount, shares = number "amount" bet, number "shares" bet
                    isTrue (amount * shares > 0m)

                    told.Add(
                        text "id" bet,
                        (if amount > 0m then "BUY" else "SELL"),
                        amount / shares,
                        abs shares
                    )

            match bets |> List.map (number "createdTime") |> List.distinct with
            | newest :: _ :: _ as times ->
                let oldest = List.last times

                let! inside =
                    get
                        client
                        $"""bets?contractId={text "id" market}&limit=10000&afterTime={oldest}&beforeTime={newest}"""

                equal
                    (bets
                     |> List.filter (fun bet ->
                         number "createdTime" bet > oldest && number "createdTime" bet < newest)
                     |> List.length)
                    (items inside).Length
            | _ -> ()

        let known =
            simulator.Ledger.Trades
            |> Array.map (fun trade -> trade.Transaction, trade.Side, trade.Price, trade.Size)

        isTrue (known.Length > 100 && redemptions > 10)
        equal (List.sort (List.ofArray known)) (told |> List.ofSeq |> List.sort)
    })

[<Test>]
let ``manifold's open orders add up to the book, but for those that have expired`` () =
    withExchange (of' Venue.Manifold) (fun simulator clock client -> task {
        let! markets = get client "search-markets?term=&filter=open&limit=1000"
        let now = clock.GetUtcNow().ToUnixTimeMilliseconds()

        for market in items markets do
            let! orders =
                get client $"""bets?contractId={text "id" market}&kinds=open-limit&limit=1000"""

            let orders = items orders
            isTrue (orders.Length < 1000)

            let standing =
                orders
                |> List.filter (fun order ->
                    match order.TryGetProperty "expiresAt" with
                    | true, at -> at.GetInt64() > now
                    | _ -> true)

            isTrue (orders.Length > standing.Length)

            let nameOf (order: JsonElement) =
                match order.TryGetProperty "answerId" with
                | true, answer -> $"""{text "id" market}:{answer}:YES"""
                | _ -> $"""{text "id" market}:YES"""

            for token, orders in standing |> List.groupBy nameOf do
                let side outcome =
                    orders
                    |> List.filter (fun order -> text "outcome" order = outcome)
                    |> List.groupBy (number "limitProb")
                    |> List.map (fun (price, orders) ->
                        let own = if outcome = "YES" then price else 1m - price

                        price,
                        orders
                        |> List.sumBy (fun order ->
                            (number "orderAmount" order - number "amount" order) / own))

                match simulator.Ledger.BookAt(token, now + 60_000L) with
                | ValueSome book ->
                    let levels side =
                        side
                        |> Array.map (fun struct (price: int64, size: int64) ->
                            decimal price / 1e6m, decimal size / 1e6m)
                        |> List.ofArray

                    equal (levels book.Bids |> List.sort) (side "YES" |> List.sort)
                    equal (levels book.Asks |> List.sort) (side "NO" |> List.sort)
                | ValueNone -> Assert.Fail $"{token} is unknown"
    })
