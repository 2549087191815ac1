/// What it costs to collect 200 markets (400 books every 10 s, trades every 5 s) at real speed: the collector and the exchange are
/// processes of their own, as they would be, and the collector alone is measured.
module Tributary.Bench.LoadBench

open System
open System.Diagnostics
open System.IO
open System.Threading

/// Of one core.
let private mostProcessor = 0.25

let private mostMemory = 200L <<< 20

let private program =
    let rec up (folder: DirectoryInfo) =
        if File.Exists(Path.Combine(folder.FullName, "Tributary.sln")) then
            folder.FullName
        else
            folder.Parent |> Option.ofObj |> Option.get |> up

    Path.Combine(
        up (DirectoryInfo AppContext.BaseDirectory),
        "src/Tributary.Cli/bin/Release/net10.0/Tributary.Cli.dll"
    )

let private launch (arguments: string list) redirect =
    ProcessStartInfo("dotnet", program :: arguments, RedirectStandardOutput = redirect)
    |> Process.Start
    |> Option.ofObj
    |> Option.get

let run (arguments: string list) =
    let seconds =
        match arguments with
        | "--seconds" :: number :: _ -> int number
        | _ -> 120

    let folder = Directory.CreateTempSubdirectory("tributary-load-").FullName

    File.WriteAllText(
        Path.Combine(folder, "config.yaml"),
        "collectors:\n  polymarket:\n    live:\n      enabled: false\n    discovery:\n      enabled: true\n"
    )

    use exchange = launch [ "simulate"; "--markets"; "200" ] true

    try
        let address = string (exchange.StandardOutput.ReadLine())

        use collector =
            launch
                [
                    "start"
                    "--config"
                    Path.Combine(folder, "config.yaml")
                    "--store"
                    Path.Combine(folder, "store.db")
                    "--exchange-url"
                    address
                    "--log-level"
                    "warning"
                    "--for"
                    $"{seconds}s"
                ]
                false

        let began = Stopwatch.StartNew()
        let mutable peak, processor = 0L, TimeSpan.Zero
        let mutable warm, warmAt = TimeSpan.Zero, TimeSpan.Zero

        printfn "| after | processor so far | of one core | since warm (20 s) | resident |"
        printfn "| ---: | ---: | ---: | ---: | ---: |"

        let mutable next = 20.0

        while not collector.HasExited do
            Thread.Sleep 500

            if not collector.HasExited then
                try
                    collector.Refresh()
                    peak <- max peak collector.WorkingSet64
                    processor <- collector.TotalProcessorTime

                    if warmAt = TimeSpan.Zero && began.Elapsed.TotalSeconds >= 20.0 then
                        warm <- processor
                        warmAt <- began.Elapsed

                    if began.Elapsed.TotalSeconds >= next then
                        next <- next + 20.0
                        let share = processor / began.Elapsed

                        let sinceWarm =
                            if began.Elapsed - warmAt > TimeSpan.FromSeconds 5.0 then
                                $"%.1f{100.0 * ((processor - warm) / (began.Elapsed - warmAt))} %%"
                            else
                                ""

                        printfn
                            "| %.0f s | %.2f s | %.1f %% | %s | %d MiB |"
                            began.Elapsed.TotalSeconds
                            processor.TotalSeconds
                            (100.0 * share)
                            sinceWarm
                            (peak >>> 20)
                with :? InvalidOperationException ->
                    () // it ended just now

        let share = processor / began.Elapsed
        printfn ""

        printfn
            "of one core, from the start: %.1f %% (must be under %.0f %%)"
            (100.0 * share)
            (100.0 * mostProcessor)

        printfn "peak resident: %d MiB (must be under %d MiB)" (peak >>> 20) (mostMemory >>> 20)
        printfn "exit code of the collector: %d" collector.ExitCode

        if share < mostProcessor && peak < mostMemory && collector.ExitCode = 0 then
            0
        else
            1
    finally
        exchange.Kill()
        exchange.WaitForExit()
        Directory.Delete(folder, true)
