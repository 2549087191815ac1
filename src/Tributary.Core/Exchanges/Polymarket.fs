/// Polymarket over REST: markets from Gamma, order books from the CLOB, trades from the Data API (`polymarket-api.md`).
[<RequireQualifiedAccess>]
module Tributary.Exchanges.Polymarket

open System
open Tributary

// Requests in any ten seconds (polymarket-api.md section 7).
let private limits =
    [
        "gamma_markets", 300, "pages of markets"
        "gamma_events", 500, "pages of events"
        "gamma_listing", 900, "pages of markets and events together"
        "gamma", 4_000, "all of gamma together"
        "clob_book", 1_500, "single order books"
        "clob_books", 500, "order books, many in a request"
        "prices_history", 1_000, "the price history"
        "clob_auth", 100, "requests for API credentials"
        "own_orders", 500, "pages of the account's own orders"
        "own_trades", 500, "pages of the account's own trades"
        "clob", 9_000, "all of clob together"
        "data_trades", 200, "pages of trades"
        "data", 1_000, "all of data together"
        "all", 15_000, "all of these together"
        "rpc", 100, "what your endpoint of the chain allows: each has its own"
    ]
    |> List.map (fun (name, count, counts) -> {
        Name = name
        BySecond = false
        PerTenSeconds = count
        Counts = counts
    })

let private limitsOf endpoint =
    match endpoint with
    | "gamma_markets"
    | "gamma_events" -> [ endpoint; "gamma_listing"; "gamma"; "all" ]
    | "clob_book"
    | "clob_books" -> [ endpoint; "clob"; "all" ]
    | "data_trades" -> [ endpoint; "data"; "all" ]
    | "prices_history"
    | "clob_auth"
    | "own_orders"
    | "own_trades" -> [ endpoint; "clob"; "all" ]
    | "clob_time" -> [ "clob"; "all" ]
    | "rpc" -> [ endpoint ]
    | _ -> [ "all" ]

let private ask (options: AskOptions) need : Request list =
    match need with
    | Need.MarketsBySlug _
    | Need.MarketsByEvent _
    | Need.MarketsById _
    | Need.MarketsLike _ -> PolymarketMarkets.ask need
    | Need.Books tokens ->
        tokens
        |> List.chunkBySize options.BooksPerRequest
        |> List.map PolymarketBooks.request
    | Need.Trades follows -> PolymarketTrades.ask options follows

let private decode (request: Request) body received (batch: Batch) =
    batch.Exchange <- string PolymarketMarkets.exchange
    batch.Received <- received

    match request.Walk with
    | Walk.Markets(need, state) -> PolymarketMarkets.decode request need state body batch
    | Walk.Books asked -> PolymarketBooks.decode request asked body batch
    | Walk.Trades(follows, state) -> PolymarketTrades.decode request follows state body batch
    | Walk.History state when state.Source = PolymarketChain.source.Name ->
        PolymarketChain.decode state body batch
    | Walk.History state -> PolymarketHistory.decode request state body batch

let private onFault options (request: Request) fault =
    match request.Walk, fault with
    | Walk.History state, _ when state.Source = PolymarketChain.source.Name ->
        PolymarketChain.onFault state fault
    | Walk.Markets(need, state), Fault.Refused(status, _) -> PolymarketMarkets.refused need state status
    | Walk.Books asked, Fault.Refused(status, _) -> PolymarketBooks.refused asked status
    | Walk.Trades(follows, state), Fault.Refused(status, _) ->
        PolymarketTrades.refused options follows state status
    | Walk.History state, Fault.Refused(status, _) -> PolymarketHistory.refused state status
    | _ -> ValueNone

let private untimed (_: ReadOnlyMemory<byte>) : Interval voption = ValueNone

/// A question for each place that answers questions.
let private probes: Probe list = [
    {
        Host = "gamma_url"
        Path = "/markets/keyset?limit=1"
        Body = ValueNone
        IsNeeded = true
        Time = untimed
    }
    {
        Host = "clob_url"
        Path = "/time"
        Body = ValueNone
        IsNeeded = true
        Time = PolymarketAccount.timeOf
    }
    {
        Host = "data_url"
        Path = "/trades?limit=1"
        Body = ValueNone
        IsNeeded = true
        Time = untimed
    }
    {
        Host = "rpc_url"
        Path = ""
        Body = ValueSome """{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":[]}"""
        IsNeeded = false
        Time = untimed
    }
]

let private traits: Traits = {
    Currency = "USDC"
    Prices = "dollars, 0 to 1, on the market's tick (0.1, 0.01, 0.005, 0.0025, 0.001 or 0.0001)"
    Outcomes = "two a market, each with a token and a book of its own; the books mirror each other"
    Sides = "the taker's, of the token that it is told of"
    Streams = [
        {
            Stream = Stream.Depth
            Loss = "a hash, a best price, a mirror or a poll that disagrees; silence"
            Extent = "since the last state that was proven; not how much"
            Proof = "the SHA-1 of the whole book"
        }
        {
            Stream = Stream.Books
            Loss = "not"
            Extent = "not"
            Proof = "the SHA-1 of the whole book"
        }
        {
            Stream = Stream.Trades
            Loss = "a walk by cursors or windows that does not end"
            Extent = "the span that was not walked"
            Proof = "none: fills have no id, and are told apart by what they are"
        }
        {
            Stream = Stream.History
            Loss = "what the chain has and the API has not"
            Extent = "each fill, for the chain numbers its logs"
            Proof = "the chain"
        }
    ]
}

/// The collector under the given options.
let collector (options: AskOptions) : Collector = {
    Exchange = PolymarketMarkets.exchange
    Hosts =
        [
            "gamma_url", "https://gamma-api.polymarket.com", "markets and events"
            "clob_url", "https://clob.polymarket.com", "order books and the price history"
            "data_url", "https://data-api.polymarket.com", "trades"
            "ws_url", "wss://ws-subscriptions-clob.polymarket.com/ws/", "live order books and fills"
            "rpc_url",
            "https://polygon-rpc.com",
            "the chain, for `backfill --source chain`: it needs an archive of logs; its key is a `${VARIABLE}`"
        ]
        |> List.map (fun (setting, address, serves) -> {
            Setting = setting
            Address = address
            Serves = serves
        })
    Limits = limits
    Traits = traits
    Secrets = PolymarketAccount.secrets
    Notes = []
    Sign = fun _ _ _ -> []
    Admission = ValueNone
    Probes = probes
    LimitsOf = limitsOf
    Ask = ask options
    Decode = decode
    OnFault = onFault options
    Recognise = PolymarketShapes.recognise
    History = PolymarketHistory.sources @ [ PolymarketChain.source ]
    Stream = ValueSome PolymarketStream.part
}
