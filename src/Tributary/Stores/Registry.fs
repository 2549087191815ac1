/// The stores that Tributary has, by the names that configuration uses: a new one is one line here.
[<RequireQualifiedAccess>]
module Tributary.Stores.Registry

open Tributary

/// From a store's settings and the name of the collector that writes to it to the store.
let all: (string * (StoreSettings -> string -> Result<Store, OpenFault>)) list = [
    "sqlite", fun settings collector -> Sqlite.openForWriting settings.Path collector settings.Synchronous
    "memory", fun _ collector -> Ok(Memory.create collector)
]

let tryFind kind =
    all |> List.tryFind (fun (known, _) -> known = kind) |> Option.map snd
