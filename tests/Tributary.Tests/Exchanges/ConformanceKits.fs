/// What each registered exchange says, for the cases of conformance.
module Tributary.Tests.Exchanges.ConformanceKits

open System
open Tributary
open Tributary.Exchanges
open Tributary.Tests
open Tributary.Tests.Exchanges.ConformanceKit

let private joined (items: string list) = String.concat "," items

let private follow id = {
    Market = good (MarketId.Parse id)
    Since = received - TimeSpan.FromHours 1.0
}

// ---- Polymarket

let private condition =
    "0x5f65177b394277fd294cd75650044e32ba009a95022d88a0c1d565897d72f8f1"

let private up, down =
    "52114319501245915516055106046884209969926127482827954674443846427813813222426",
    "71321045679252212594626385532706912750332728571942532289631379312455583992563"

let private gamma (id: string) (fields: string) =
    $$"""{"id":"{{id}}","question":"Will it rain?","conditionId":"{{condition}}","slug":"rain-{{id}}","outcomes":"[\"Yes\", \"No\"]","outcomePrices":"[\"0.46\", \"0.54\"]","clobTokenIds":"[\"{{up}}\", \"{{down}}\"]","orderPriceMinTickSize":0.01,"orderMinSize":5,{{fields}}}"""

let private trading =
    "\"active\":true,\"closed\":false,\"enableOrderBook\":true,\"acceptingOrders\":true"

let private polymarketLevels (levels: (string * string) list) =
    levels
    |> List.map (fun (price, size) -> $"{{\"price\":\"{price}\",\"size\":\"{size}\"}}")
    |> joined

let private polymarket: Kit = {
    Name = "polymarket"
    Collector = Polymarket.collector Registry.defaultOptions
    Markets = {
        Need = Need.MarketsByEvent [ "rain" ]
        Row = fun i -> gamma (string i) trading
        Page =
            fun isLast rows ->
                let markets = joined rows
                let cursor = if isLast then "" else ",\"next_cursor\":\"more\""
                $"{{\"markets\":[{markets}]{cursor}}}"
        PageRows = 2
        Needed = []
    }
    Trades = {
        Need = Need.Trades [ follow condition ]
        Row =
            fun i ->
                $$"""{"proxy_wallet":"0xe0","side":"BUY","token_id":"{{up}}","condition_id":"{{condition}}","size":10.5,"price":0.46,"timestamp":{{1_790_000_000 + i}},"outcome":"Yes","transaction_hash":"0xa{{i}}"}"""
        Page =
            fun isLast rows ->
                let more =
                    if isLast then
                        "\"next_cursor\":null,\"has_more\":false"
                    else
                        "\"next_cursor\":\"more\",\"has_more\":true"

                $"{{\"data\":[{joined rows}],\"pagination\":{{{more}}}}}"
        PageRows = 2
        Needed = [ "side"; "token_id"; "condition_id"; "size"; "price"; "timestamp" ]
    }
    Tokens = [ token up ]
    Book =
        fun bids asks ->
            $$"""[{"market":"{{condition}}","asset_id":"{{up}}","timestamp":"1790000000123","hash":"","bids":[{{polymarketLevels bids}}],"asks":[{{polymarketLevels asks}}]}]"""
    SortsLevels = true
    Statuses = [
        gamma "1" trading, MarketStatus.Open
        gamma "1" "\"closed\":false,\"enableOrderBook\":false", MarketStatus.Pending
        gamma "1" "\"closed\":true", MarketStatus.Closed
        gamma "1" "\"closed\":true,\"umaResolutionStatus\":\"resolved\"", MarketStatus.Resolved
    ]
    Frames = [
        $$"""{"market":"{{condition}}","asset_id":"{{up}}","timestamp":"1790000000123","hash":"7e04418b8ffe6e9085ba0667e23a38bce9fd2937","bids":[{"price":"0.44","size":"7.5"}],"asks":[{"price":"0.47","size":"250"}],"event_type":"book"}"""
        $$"""{"market":"{{condition}}","price_changes":[{"asset_id":"{{up}}","price":"0.44","size":"30","side":"BUY","hash":"7e04418b8ffe6e9085ba0667e23a38bce9fd2937","best_bid":"0.44","best_ask":"0.47"}],"timestamp":"1790000000223","event_type":"price_change"}"""
        $$"""{"market":"{{condition}}","asset_id":"{{up}}","price":"0.44","size":"5","side":"SELL","timestamp":"1790000000323","transaction_hash":"0xa1","event_type":"last_trade_price"}"""
    ]
    Impossible = [
        "markets: a row without what it needs",
        "nothing but its condition id is needed, and without that a market is not traded yet: it is told, and no fault"
    ]
}

// ---- Kalshi

let private kalshiMarket (i: int) (status: string) =
    $$"""{"ticker":"KX-{{i}}","event_ticker":"KX","title":"Will it rain?","yes_sub_title":"Rain","status":"{{status}}","result":"","open_time":"2026-05-01T00:00:00Z","close_time":"2026-06-01T00:00:00Z","volume_fp":"12.50","price_ranges":[{"start":"0.0000","end":"1.0000","step":"0.0100"}]}"""

let private pair price size = $"[\"{price}\",\"{size}\"]"

let private complement (price: string) =
    string (Price.complement (Tributary.Tests.Support.price price))

let private kalshiPage (list: string) isLast rows =
    let cursor = if isLast then "" else "more"
    $"{{\"cursor\":\"{cursor}\",\"{list}\":[{joined rows}]}}"

let private kalshi: Kit = {
    Name = "kalshi"
    Collector = KalshiTests.keyed
    Markets = {
        Need = Need.MarketsByEvent [ "KX" ]
        Row = fun i -> kalshiMarket i "active"
        Page = kalshiPage "markets"
        PageRows = 2
        Needed = [ "ticker" ]
    }
    Trades = {
        Need = Need.Trades [ follow "KX-1" ]
        Row =
            fun i ->
                $$"""{"trade_id":"c174ce46-46d8-705a-6f03-{{i}}","ticker":"KX-1","count_fp":"12.61","created_time":"2026-09-21T14:13:2{{i % 10}}.54467Z","yes_price_dollars":"0.3800","no_price_dollars":"0.6200","taker_outcome_side":"yes"}"""
        Page = kalshiPage "trades"
        PageRows = 2
        Needed = [
            "trade_id"
            "ticker"
            "count_fp"
            "created_time"
            "yes_price_dollars"
            "taker_outcome_side"
        ]
    }
    Tokens = [ token "KX-1:YES" ]
    Book =
        fun bids asks ->
            let yes = bids |> List.map (fun (price, size) -> pair price size) |> joined

            let no =
                asks |> List.map (fun (price, size) -> pair (complement price) size) |> joined

            $"{{\"orderbook_fp\":{{\"yes_dollars\":[{yes}],\"no_dollars\":[{no}]}}}}"
    SortsLevels = true
    Statuses = [
        kalshiMarket 1 "initialized", MarketStatus.Pending
        kalshiMarket 1 "active", MarketStatus.Open
        kalshiMarket 1 "inactive", MarketStatus.Closed
        kalshiMarket 1 "determined", MarketStatus.Closed
        kalshiMarket 1 "finalized", MarketStatus.Resolved
        kalshiMarket 1 "a word of tomorrow", MarketStatus.Closed
    ]
    Frames = [
        """{"type":"orderbook_snapshot","sid":1,"seq":1,"msg":{"market_ticker":"KX-1","market_id":"x","yes_dollars_fp":[["0.4400","7.50"]],"no_dollars_fp":[["0.4700","250.00"]]}}"""
        """{"type":"orderbook_delta","sid":1,"seq":2,"msg":{"market_ticker":"KX-1","market_id":"x","price_dollars":"0.4400","delta_fp":"22.50","side":"yes","ts_ms":1790000000223}}"""
        """{"type":"trade","sid":2,"msg":{"trade_id":"d91bc706-ee49-470d-82d8-11418bda6fed","market_ticker":"KX-1","yes_price_dollars":"0.440","no_price_dollars":"0.560","count_fp":"5.00","taker_side":"no","ts_ms":1790000000323}}"""
    ]
    Impossible = [
        "books: a token that is asked for and not answered",
        "an answer is of one market, and says both of its tokens; an unknown one is a refusal (404), which is told to be missing"
    ]
}

// ---- Manifold

let private manifoldMarket (i: int) (fields: string) =
    $$"""{"id":"m{{i}}","slug":"rain-{{i}}","question":"Will it rain?","outcomeType":"BINARY","mechanism":"cpmm-1","createdTime":1780000000000,"closeTime":1799000000000,"lastBetTime":{{1_790_000_000_000L - int64 i}},"volume":205,{{fields}}}"""

let private manifold: Kit = {
    Name = "manifold"
    Collector = ManifoldTests.manifold
    Markets = {
        Need =
            Need.MarketsLike {
                Tags = []
                MinVolume = ValueNone
                MinLiquidity = ValueNone
                Slugs = []
                WithClosed = false
                MaxMarkets = 10
            }
        Row = fun i -> manifoldMarket i "\"isResolved\":false"
        Page = fun _ rows -> $"[{joined rows}]"
        PageRows = 1000
        Needed = [ "id" ]
    }
    Trades = {
        Need = Need.Trades [ follow "m1" ]
        Row =
            fun i ->
                $$"""{"id":"b{{i}}","contractId":"m1","userId":"u1","createdTime":{{1_790_000_000_000L - int64 i}},"amount":10,"shares":20,"outcome":"YES","probAfter":0.5}"""
        Page = fun _ rows -> $"[{joined rows}]"
        PageRows = 1000
        Needed = [ "id"; "contractId"; "createdTime"; "amount"; "shares"; "outcome" ]
    }
    Tokens = [ token "m1:YES" ]
    Book =
        fun bids asks ->
            let order (i: int) (outcome: string) (limit: string) (mana: decimal) =
                $$"""{"id":"o{{outcome}}{{i}}","contractId":"m1","userId":"u1","createdTime":1790000000000,"amount":0,"shares":0,"outcome":"{{outcome}}","limitProb":{{limit}},"orderAmount":{{mana}},"isFilled":false,"isCancelled":false}"""

            [
                for i, (price, size) in List.indexed bids ->
                    order i "YES" price (decimal price * decimal size)
                for i, (price, size) in List.indexed asks ->
                    order i "NO" price ((1m - decimal price) * decimal size)
            ]
            |> joined
            |> sprintf "[%s]"
    SortsLevels = true
    Statuses = [
        manifoldMarket 1 "\"isResolved\":false", MarketStatus.Open
        (manifoldMarket 1 "\"isResolved\":false").Replace("1799000000000", "1789000000000"),
        MarketStatus.Closed
        manifoldMarket 1 "\"isResolved\":true,\"resolution\":\"YES\"", MarketStatus.Resolved
    ]
    Frames = [
        """{"type":"broadcast","topic":"contract/m1/new-bet","data":{"bets":[{"id":"b1","contractId":"m1","userId":"u1","createdTime":1790000000000,"amount":10,"shares":20,"outcome":"YES"}]}}"""
        """{"type":"broadcast","topic":"contract/m1","data":{"contract":{"id":"m1","isResolved":true}}}"""
    ]
    Impossible = [
        "books: a level of less than nothing",
        "an order with less than nothing left of it is one that was filled: it is passed over"
        "books: a token that is asked for and not answered",
        "there is no list of books: a token without open limit orders has an empty one"
    ]
}

// ---- the template of the documentation

let private meridianMarket (i: int) (state: string) =
    $$"""{"id":"m{{i}}","slug":"rain-{{i}}","question":"Will it rain?","state":"{{state}}","tick":"0.01","outcomes":[{"name":"Yes","token":"t1"},{"name":"No","token":"t2"}]}"""

let private meridianPage isLast rows =
    let next = if isLast then "null" else "\"more\""
    $"{{\"rows\":[{joined rows}],\"next\":{next}}}"

let private meridian: Kit = {
    Name = "meridian"
    Collector = Meridian.collector Registry.defaultOptions
    Markets = {
        Need = Need.MarketsByEvent [ "rain" ]
        Row = fun i -> meridianMarket i "open"
        Page = meridianPage
        PageRows = 2
        Needed = [ "id" ]
    }
    Trades = {
        Need = Need.Trades [ follow "m1" ]
        Row =
            fun i ->
                $$"""{"id":"f{{i}}","market":"m1","token":"t1","outcome":"Yes","taker":"buys","price":"0.42","size":"12.5","at":"2026-09-21T14:13:2{{i % 10}}.5Z"}"""
        Page = meridianPage
        PageRows = 2
        Needed = [ "id"; "market"; "token"; "taker"; "price"; "size"; "at" ]
    }
    Tokens = [ token "t1" ]
    Book =
        fun bids asks ->
            let side levels =
                levels |> List.map (fun (price, size) -> pair price size) |> joined

            $"{{\"rows\":[{{\"market\":\"m1\",\"token\":\"t1\",\"at\":\"2026-09-21T14:13:20Z\",\"bids\":[{side bids}],\"asks\":[{side asks}]}}]}}"
    SortsLevels = true
    Statuses = [
        meridianMarket 1 "announced", MarketStatus.Pending
        meridianMarket 1 "open", MarketStatus.Open
        meridianMarket 1 "halted", MarketStatus.Closed
        meridianMarket 1 "settled", MarketStatus.Resolved
        meridianMarket 1 "a word of tomorrow", MarketStatus.Closed
    ]
    Frames = []
    Impossible = [ "stream:", "it is polled: there is no live connection" ]
}

/// Of every exchange in the registry.
let registered = [ polymarket; kalshi; manifold ]

/// With the template that the documentation gives to begin with.
let all = registered @ [ meridian ]
