/// The stores that Tributary has, by the names that configuration uses: a new one is one line here.
[<RequireQualifiedAccess>]
module Tributary.Stores.Registry

open System
open Microsoft.Extensions.Logging
open Tributary

/// How a store is opened.
type Opening = {
    Settings: StoreSettings
    /// The name of the collector that writes to it.
    Collector: string
    Clock: TimeProvider
    Log: ILogger
}

/// A kind of store: how it is opened by the one who writes to it, and by those who only read.
[<NoComparison; NoEquality>]
type Kind = {
    Name: string
    ToWrite: Opening -> Result<Store, OpenFault>
    ToRead: Opening -> Result<Store, OpenFault>
}

let all: Kind list = [
    {
        Name = "sqlite"
        ToWrite =
            fun opening ->
                Sqlite.openForWriting opening.Settings.Path opening.Collector opening.Settings.Synchronous
        ToRead = fun opening -> Sqlite.openForReading opening.Settings.Path
    }
    {
        Name = "questdb"
        ToWrite =
            fun opening ->
                QuestDb.Store.openForWriting opening.Settings opening.Collector opening.Clock opening.Log
        ToRead = fun opening -> QuestDb.Store.openForReading opening.Settings opening.Clock
    }
    {
        Name = "both"
        ToWrite =
            fun opening -> QuestDb.Store.openBoth opening.Settings opening.Collector opening.Clock opening.Log
        ToRead = fun opening -> Sqlite.openForReading opening.Settings.Path
    }
    {
        Name = "memory"
        ToWrite = fun opening -> Ok(Memory.create opening.Collector)
        ToRead = fun opening -> Ok(Memory.create opening.Collector)
    }
]

let tryFind kind =
    all |> List.tryFind (fun known -> known.Name = kind)
