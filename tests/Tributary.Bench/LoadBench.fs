/// What it costs to collect 200 markets (400 books every 10 s, trades every 5 s) at real speed: the collector and the exchange are
/// processes of their own, as they would be, and the collector alone is measured.
module Tributary.Bench.LoadBench

open System
open System.Diagnostics
open System.IO
open System.Net.Http
open System.Threading

/// What is collected, and within what limits.
type private Plan = {
    Folder: string
    Seconds: int
    /// Arguments of the simulated exchange.
    Exchange: string list
    /// From which second on it sends how many messages a second, when that changes.
    Rates: (float * int) list
    /// What the collector's configuration says of the exchange.
    Collector: string
    /// Of one core.
    MostProcessor: float
    /// Bytes that stay resident.
    MostMemory: int64
}

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

let internal launch (arguments: string list) redirect =
    ProcessStartInfo("dotnet", program :: arguments, RedirectStandardOutput = redirect)
    |> Process.Start
    |> Option.ofObj
    |> Option.get

let private asking = new HttpClient()

/// Runs exchange and collector side by side; true when the collector kept within its limits. `after` looks at what was stored.
let private watch (plan: Plan) (after: string -> bool) =
    let folder = plan.Folder
    let seconds = plan.Seconds
    File.WriteAllText(Path.Combine(folder, "config.yaml"), plan.Collector)

    use exchange = launch ("simulate" :: plan.Exchange) true

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
        let mutable rates = plan.Rates

        while not collector.HasExited do
            Thread.Sleep 500

            if not collector.HasExited then
                try
                    collector.Refresh()
                    peak <- max peak collector.WorkingSet64

                    match rates with
                    | (second, rate) :: later when began.Elapsed.TotalSeconds >= second ->
                        rates <- later

                        asking
                            .PostAsync($"{address}/control/faults?messages={rate}", null)
                            .Result.EnsureSuccessStatusCode()
                        |> ignore
                    | _ -> ()

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
            (100.0 * plan.MostProcessor)

        printfn "peak resident: %d MiB (must be under %d MiB)" (peak >>> 20) (plan.MostMemory >>> 20)
        printfn "exit code of the collector: %d" collector.ExitCode

        let isWhole = after (Path.Combine(folder, "store.db"))

        if
            share < plan.MostProcessor
            && peak < plan.MostMemory
            && collector.ExitCode = 0
            && isWhole
        then
            0
        else
            1
    finally
        exchange.Kill()
        exchange.WaitForExit()
        Directory.Delete(folder, true)

let private configuration live =
    $"collectors:\n  polymarket:\n    live:\n      enabled: {live}\n    discovery:\n      enabled: true\n"

let internal argument name usual (arguments: string list) =
    match arguments |> List.tryFindIndex ((=) name) with
    | Some at -> int arguments[at + 1]
    | None -> usual

let private newFolder () =
    Directory.CreateTempSubdirectory("tributary-load-").FullName

/// Polls alone: 400 books every 10 s, trades every 5 s.
let run (arguments: string list) =
    watch
        {
            Folder = newFolder ()
            Seconds = argument "--seconds" 120 arguments
            Exchange = [ "--markets"; "200" ]
            Rates = []
            Collector = configuration "false"
            MostProcessor = 0.25
            MostMemory = 200L <<< 20
        }
        (fun _ -> true)

/// Live books of 200 markets at so many messages a second, through to SQLite on the disk: how long a change takes until it is durable,
/// and whether anything was lost. With a burst there are so many messages a second for five seconds in the middle.
let soak (arguments: string list) =
    let rate = argument "--messages" 10_000 arguments
    let seconds = argument "--seconds" 600 arguments
    // A burst is to be absorbed: what comes in it may wait.
    let burst = argument "--burst" 0 arguments

    let judge path =
        match Tributary.Stores.Sqlite.openForReading path with
        | Error fault ->
            printfn "%O" fault
            false
        | Ok store ->
            let status = store.Status().Result

            // Other exchanges, of which nothing is collected here, count as well.
            let metric name labels =
                status.Metrics
                |> List.tryFind (fun metric ->
                    metric.Name = name
                    && (metric.Labels = labels || metric.Labels = $"exchange=polymarket,{labels}"))
                |> Option.map _.Value
                |> Option.defaultValue 0.0

            let gaps =
                (store.Gaps Tributary.Stores.Query.everything).Result
                |> List.filter (fun gap -> gap.Gap.Stream = Tributary.Stream.Depth)
                |> List.countBy _.Gap.Cause

            let stored = metric "events_stored" "stream=depth"

            let milliseconds quantile =
                1_000.0 * metric "receive_to_durable_seconds" $"quantile={quantile}"

            let p99 = milliseconds "0.99"

            printfn
                "events of the stream %.0f (%.0f a second); changes stored %.0f; states verified %.0f, unverifiable %.0f, mismatched %.0f"
                (metric "events_received" "stream=depth")
                (metric "events_received" "stream=depth" / float seconds)
                stored
                (metric "book_states" "verdict=verified")
                (metric "book_states" "verdict=unverifiable")
                (metric "book_states" "verdict=mismatched")

            printfn
                "receive to durable: half within %.0f ms, 99 of 100 within %.0f ms (must be within 250 ms)"
                (milliseconds "0.5")
                p99

            let told =
                gaps
                |> List.map (fun (cause, count) -> $"{cause} {count}")
                |> String.concat ", "

            printfn "gaps of live books: %s" (if told = "" then "none" else told)
            store.Close().AsTask().Wait()

            // A change that is made again within its millisecond looks like a second delivery until the next hash tells; where the next
            // change is of the same level, none tells. Such a gap is of what the messages say, not of what we dropped.
            let isDropped =
                gaps |> List.exists (fun (cause, _) -> cause <> Tributary.Cause.Mismatch)

            stored > 0.0 && (burst > 0 || p99 <= 250.0) && not isDropped

    watch
        {
            Folder = newFolder ()
            Seconds = seconds
            Exchange = [
                "--markets"
                "200"
                "--messages"
                string rate
                "--trades"
                string (max 20 (rate / 100))
            ]
            Rates =
                if burst > 0 then
                    [ float seconds / 2.0, burst; float seconds / 2.0 + 5.0, rate ]
                else
                    []
            Collector = configuration "true"
            MostProcessor = 2.0
            MostMemory = 300L <<< 20
        }
        judge
