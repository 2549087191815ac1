/// Live books and fills end to end, over real sockets against the simulated exchange: whatever happens to a connection, its books come
/// back, every hole is a row, and nobody else has one.
[<NUnit.Framework.Parallelizable(NUnit.Framework.ParallelScope.None)>]
module Tributary.Tests.LiveTests

open System
open System.Collections.Generic
open System.Threading.Tasks
open NUnit.Framework
open Tributary
open Tributary.Server.Simulator
open Tributary.Stores
open Tributary.Tests.EngineTests

let private sound = {
    SimulatorOptions.Default with
        Markets = 12
        Limits = false
        TradesPerSecond = 5.0
        MessagesPerSecond = 100.0
}

let private cadence: ScheduleSettings = {
    Books = ms 500
    Trades = ms 1000
    Markets = ms 60_000
    Jitter = 0.05
}

/// Four connections at least, and short times.
let private changed (collector: CollectorSettings) = {
    collector with
        Live = {
            collector.Live with
                TokensPerConnection = 6
                CompareEvery = ms 2000
                DeadAfter = ms 3000
        }
}

/// Waits until something is so, without asking too often.
let private until (bench: Bench) what (condition: unit -> Task<bool>) = task {
    let limit = DateTime.UtcNow.AddSeconds 40.0
    let! isSo = condition ()
    let mutable isSo = isSo

    while not isSo do
        if DateTime.UtcNow > limit then
            let log = String.Join("\n", bench.Words.All)
            failwith $"it took too long until {what}\n{log}"

        do! Task.Delay 100
        let! now = condition ()
        isSo <- now
}

[<Test>]
let ``fills of the stream are linked to those of the API, while it runs and when it stops`` () =
    with'
        {
            sound with
                Start = ValueSome(DateTimeOffset.UtcNow.AddMinutes -2.0)
                Markets = 6
                TradesPerSecond = 30.0
        }
        (fun bench -> task {
            bench.Cadence <- cadence
            let! engine = bench.StartWith(bench.OpenStore(), changed)

            do!
                until bench "fills are linked" (fun () -> task {
                    let! status = engine.StatusAsync()
                    return count Count.linked [] status > 10
                })

            do! bench.Finish engine
            let! links = bench.Read _.Links()
            let! trades = bench.Read(fun store -> store.Trades Query.everything)
            let byId = Dictionary<TradeId, Trade>()

            for trade in trades do
                byId[trade.Id] <- trade

            let ofSource source =
                trades |> List.filter (fun trade -> trade.Source = source)

            for link in links do
                let api, stream = byId[link.Trade], byId[link.Other]
                equal (Source.Api, Source.Stream) (api.Source, stream.Source)

                equal
                    (api.Transaction, api.Token, api.Side, api.Price)
                    (stream.Transaction, stream.Token, stream.Side, stream.Price)

            let sum ids =
                ids |> List.sumBy (fun id -> byId[id].Size.Millionths)

            for stream, parts in links |> List.groupBy _.Other do
                if parts.Length > 1 then
                    equal (sum [ stream ]) (parts |> List.map _.Trade |> sum)

            for api, parts in links |> List.groupBy _.Trade do
                let whole = parts |> List.map _.Other |> sum
                // One of the stream's that stands for several of the API's was summed above.
                isTrue (whole >= sum [ api ])

                if parts.Length > 1 then
                    equal (sum [ api ]) whole

            let linked = links |> List.map _.Other |> Set.ofList

            let alone =
                ofSource Source.Stream
                |> List.filter (fun trade -> not (linked.Contains trade.Id))

            equal [] alone
            isTrue (linked.Count > 50)
            use file = new Connection(bench.Path, Access.Read)
            equal (int64 (ofSource Source.Api).Length) (file.Number "SELECT count(*) FROM fills")
            equal 0L (file.Number "SELECT count(*) FROM fills WHERE NOT confirmed")
            let! status = engine.StatusAsync()
            equal linked.Count (count Count.linked [] status)
            equal 0 (count Count.unconfirmed [] status)
        })
