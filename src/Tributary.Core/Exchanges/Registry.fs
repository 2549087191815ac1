/// Every exchange that Tributary knows: a new one is one line here.
[<RequireQualifiedAccess>]
module Tributary.Exchanges.Registry

open Tributary

/// What applies when the configuration says nothing.
let defaultOptions: AskOptions = {
    BooksPerRequest = 100
    MarketsPerRequest = 20
    TradesSource = "auto"
}

/// Collectors by the names that configuration uses.
let all: (string * (AskOptions -> Collector)) list = [ "polymarket", Polymarket.collector ]

let tryFind name =
    all |> List.tryFind (fun (known, _) -> known = name) |> Option.map snd

/// The questions that show whether an exchange answers, by its name; none for one that is not registered.
let probes (name: string) : Probe list =
    match name with
    | "polymarket" -> Polymarket.probes
    | _ -> []
