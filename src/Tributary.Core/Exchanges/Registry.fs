/// Every exchange that Tributary knows: a new one is one line here.
[<RequireQualifiedAccess>]
module Tributary.Exchanges.Registry

open Tributary

/// What applies when the configuration says nothing.
let defaultOptions: AskOptions = {
    BooksPerRequest = 100
    MarketsPerRequest = 20
    TradesSource = "auto"
    Secrets = Map.empty
}

/// Collectors by the names that configuration uses.
let all: (string * (AskOptions -> Collector)) list = [
    "polymarket", Polymarket.collector
    "kalshi", Kalshi.collector
    "manifold", Manifold.collector
]

let tryFind name =
    all |> List.tryFind (fun (known, _) -> known = name) |> Option.map snd

/// Exchanges that tell an account of its own orders and trades.
let accounts: (string * AccountPart) list = [ "polymarket", PolymarketAccount.part ]

let tryAccount name =
    accounts |> List.tryFind (fun (known, _) -> known = name) |> Option.map snd
