/// What measuring and being asked cost a collector: the same live books with it and without, in turns; and how long `/metrics` takes when there
/// are many markets. The exchange is a process of its own.
module Tributary.Bench.MetricsBench

open System
open System.Diagnostics
open System.IO
open System.Net
open System.Net.Http
open System.Threading
open Tributary
open Tributary.Server
open Tributary.Stores
open Tributary.Bench.Measure

let private asking = new HttpClient()

let private get (address: Uri) (path: string) =
    asking.GetByteArrayAsync(Uri(address, path)).Result

/// Collects everything that an exchange with these arguments has, as `tributary start` would, while somebody looks.
let private collecting (exchange: string list) (look: Engine -> Uri -> 'T) : 'T =
    let folder = Directory.CreateTempSubdirectory("tributary-metrics-").FullName
    use simulator = LoadBench.launch ("simulate" :: exchange) true

    try
        let address = Uri(string (simulator.StandardOutput.ReadLine()))

        let settings =
            Settings.defaults Setup.known
            |> Setup.askingAt address
            |> Setup.storingAt (Path.Combine(folder, "store.db"))
            |> Setup.onFirst (fun collector -> {
                collector with
                    Discovery = {
                        collector.Discovery with
                            Enabled = true
                            MaxMarkets = 100_000
                    }
            })

        let clock = TimeProvider.System

        match Setup.openStore settings clock Logs.none with
        | Error fault -> failwith (string fault)
        | Ok store ->
            let engine =
                Engine
                    .StartAsync(
                        EngineOptions.Create(settings, store, clock, Logs.none),
                        CancellationToken.None
                    )
                    .Result

            let door =
                Door
                    .StartAsync(
                        {
                            Address = IPAddress.Loopback
                            Port = 0
                            Token = None
                            Web = None
                        },
                        Shown.ofEngine engine,
                        CancellationToken.None
                    )
                    .Result

            try
                engine.Ready.Wait()
                look engine door.Address
            finally
                (door :> IAsyncDisposable).DisposeAsync().AsTask().Wait()
                engine.StopAsync(TimeSpan.FromSeconds 20.0).Wait()
    finally
        simulator.Kill()
        simulator.WaitForExit()
        Directory.Delete(folder, true)

/// Processor time of this process, of one core, and bytes that it allocated a second.
type private Slice = { Share: float; Allocated: float }

let private slice (length: TimeSpan) (ask: (unit -> unit) voption) =
    use me = Process.GetCurrentProcess()
    let before, heap = me.TotalProcessorTime, GC.GetTotalAllocatedBytes true
    let watch = Stopwatch.StartNew()

    ask |> ValueOption.iter (fun ask -> ask ())
    Thread.Sleep(max TimeSpan.Zero (length - watch.Elapsed))
    me.Refresh()

    {
        Share = (me.TotalProcessorTime - before) / watch.Elapsed
        Allocated = float (GC.GetTotalAllocatedBytes true - heap) / watch.Elapsed.TotalSeconds
    }

/// What was counted so far, over all labels.
let private counted (engine: Engine) (name: string) =
    engine.Measures()
    |> List.filter (fun family -> family.Measure.Name = name)
    |> List.sumBy (fun family ->
        family.Readings
        |> List.sumBy (fun (struct (_, value)) ->
            match value with
            | Measured.Number number -> number
            | Measured.Histogram histogram -> float histogram.Total))

/// With and without, in turns of two seconds. Without, nothing is counted or timed, and nobody asks; with, `/metrics` and health are asked once
/// in each by this very process, which counts as a cost, too: more often than Prometheus asks by default.
let private pair (rate: int) (rounds: int) =
    let length = TimeSpan.FromSeconds 2.0

    collecting
        [
            "--markets"
            "200"
            "--messages"
            string rate
            "--trades"
            string (max 20 (rate / 100))
        ]
        (fun engine door ->
            Thread.Sleep(TimeSpan.FromSeconds 30.0)
            let heard = counted engine "events_received"
            let watch = Stopwatch.StartNew()
            Thread.Sleep(TimeSpan.FromSeconds 10.0)

            let pace = (counted engine "events_received" - heard) / watch.Elapsed.TotalSeconds

            let side isOn =
                Metering.IsOff <- not isOn

                slice
                    length
                    (if isOn then
                         ValueSome(fun () ->
                             get door "/metrics" |> ignore
                             get door "/health/ready" |> ignore)
                     else
                         ValueNone)

            let rounds = [
                for round in 1..rounds do
                    if round % 2 = 1 then
                        let first = side true
                        struct (first, side false)
                    else
                        let first = side false
                        struct (side true, first)
            ]

            Metering.IsOff <- false
            struct (pace, rounds))

/// How long an answer takes, and how long it is.
let private answers (door: Uri) (path: string) =
    for _ in 1..200 do
        get door path |> ignore

    let mutable length, lines = 0, 0

    let times = [
        for _ in 1..500 do
            let watch = Stopwatch.StartNew()
            let body = get door path
            let took = watch.Elapsed.TotalMilliseconds
            length <- body.Length

            lines <- body.AsSpan().Count(byte '\n')

            took
    ]

    let ordered = List.sort times |> Array.ofList
    printfn "| %s | %d | %d | %.2f | %.2f |" path lines length ordered[250] ordered[495]
    ordered[250]

/// `metrics --messages N --rounds N --markets N`.
let run (arguments: string list) =
    let argument = LoadBench.argument
    let rate = argument "--messages" 10_000 arguments
    let markets = argument "--markets" 2_000 arguments

    let struct (pace, rounds) = pair rate (argument "--rounds" 60 arguments)

    printfn "## metrics\n\n%s\n" (machine ())
    printfn "%d messages a second of 200 markets (%.0f events a second), to SQLite on the disk:" rate pace
    printfn ""

    printfn "| | measured and asked | neither | more, mean and its standard error | more, median |"
    printfn "| --- | ---: | ---: | ---: | ---: |"

    let row name form (of': Slice -> float) =
        let more = rounds |> List.map (fun (struct (on, off)) -> of' on - of' off)
        let mean = List.average more

        let error =
            sqrt (
                (more |> List.sumBy (fun one -> (one - mean) ** 2.0))
                / float (rounds.Length * (rounds.Length - 1))
            )

        let ons = rounds |> List.averageBy (fun (struct (on, _)) -> of' on)
        let offs = rounds |> List.averageBy (fun (struct (_, off)) -> of' off)

        printfn
            "| %s | %s | %s | %s ± %s | %s |"
            name
            (form ons)
            (form offs)
            (form mean)
            (form error)
            (form (median more))

        mean

    let share value = $"%.2f{100.0 * value} %%"
    let more = row $"of one core, {rounds.Length} rounds" share _.Share

    row "allocated, B/event" (fun value -> $"%.1f{value / pace}") _.Allocated
    |> ignore

    printfn "\nmore must be under 2 %% of a core on average"

    let half =
        collecting [ "--markets"; string markets ] (fun engine door ->
            let patience = Stopwatch.StartNew()

            while counted engine "markets" < float markets
                  && patience.Elapsed < TimeSpan.FromMinutes 2.0 do
                Thread.Sleep 500

            Thread.Sleep(TimeSpan.FromSeconds 20.0)
            let known = counted engine "markets"
            printfn "\n/metrics of %.0f markets that are polled, asked over loopback 500 times:\n" known
            printfn "| path | lines | bytes | half within, ms | 99 of 100 within, ms |"
            printfn "| --- | ---: | ---: | ---: | ---: |"
            let half = answers door "/metrics"
            answers door "/metrics?markets=100" |> ignore
            half)

    printfn "\nhalf of them must be within 5 ms"
    if more < 0.02 && half < 5.0 then 0 else 1
