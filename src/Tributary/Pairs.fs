/// What a mapping changes in a store.
[<RequireQualifiedAccess>]
module Tributary.Pairs

open System.Threading.Tasks
open Tributary
open Tributary.Stores

/// As `Mapping.changes`, of what a store knows. Its markets are read only when names have to be looked up in them.
let changes
    (store: Store)
    (now: Instant)
    (mapping: Mapping)
    : Task<struct (MarketMatch list * Mistake list)> = task {
    let! stored = store.Matches()

    let! markets =
        if Mapping.needsMarkets mapping then
            store.Markets()
        else
            Task.FromResult []

    return Mapping.changes now markets stored mapping
}
