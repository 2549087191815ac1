/// Polymarket over REST: markets from Gamma, order books from the CLOB, trades from the Data API (`polymarket-api.md`).
[<RequireQualifiedAccess>]
module Tributary.Exchanges.Polymarket

open Tributary

// Requests in any ten seconds (polymarket-api.md section 7).
let private limits =
    [
        "all", 15_000
        "gamma", 4_000
        "gamma_listing", 900
        "gamma_markets", 300
        "gamma_events", 500
        "clob", 9_000
        "clob_book", 1_500
        "clob_books", 500
        "data", 1_000
        "data_trades", 200
        "prices_history", 1_000
        // Of a public endpoint: each has its own.
        "rpc", 100
    ]
    |> List.map (fun (name, count) -> { Name = name; PerTenSeconds = count })

let private limitsOf endpoint =
    match endpoint with
    | "gamma_markets"
    | "gamma_events" -> [ endpoint; "gamma_listing"; "gamma"; "all" ]
    | "clob_book"
    | "clob_books" -> [ endpoint; "clob"; "all" ]
    | "data_trades" -> [ endpoint; "data"; "all" ]
    | "prices_history" -> [ endpoint; "clob"; "all" ]
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

/// The collector under the given options.
let collector (options: AskOptions) : Collector = {
    Exchange = PolymarketMarkets.exchange
    Hosts = [
        "gamma_url", "https://gamma-api.polymarket.com"
        "clob_url", "https://clob.polymarket.com"
        "data_url", "https://data-api.polymarket.com"
        "rpc_url", "https://polygon-rpc.com"
        "ws_url", "wss://ws-subscriptions-clob.polymarket.com/ws/"
    ]
    Limits = limits
    LimitsOf = limitsOf
    Ask = ask options
    Decode = decode
    OnFault = onFault options
    Recognise = PolymarketShapes.recognise
    History = PolymarketHistory.sources @ [ PolymarketChain.source ]
    Stream = ValueSome PolymarketStream.part
}
