/// Everything that the simulated exchange can do wrong is seen where an operator looks, and is gone when it stops.
[<NUnit.Framework.Parallelizable(NUnit.Framework.ParallelScope.None)>]
module Tributary.Tests.SignalsTests

open System
open System.Collections.Generic
open System.IO
open System.Threading.Tasks
open NUnit.Framework
open Tributary
open Tributary.Server.Simulator
open Tributary.Tests.EngineTests

/// What is done to the collector.
type private Fault =
    | Asked of FaultSwitch
    | Streamed of StreamFault

/// Where it is seen. Of several gaps, reasons and alerts one is enough; where there are none, none may come.
type private Signal = {
    Fault: Fault
    /// What happens, for the page.
    Means: string
    /// The measure that changes, and a part of its labels; nothing for what is true, and is recorded as it is.
    Measure: Measure voption
    Labels: string
    /// The causes of gaps, with which the health reasons are named.
    Causes: Cause list
    Alerts: string list
    /// It strikes subscriptions that are made while it is on.
    IsOfSubscriptions: bool
    /// The gaps close within milliseconds: they are counted, and health and alerts seldom see one.
    IsBrief: bool
}

let private signal fault means measure labels causes alerts = {
    Fault = fault
    Means = means
    Measure = ValueSome measure
    Labels = labels
    Causes = causes
    Alerts = alerts
    IsOfSubscriptions = false
    IsBrief = false
}

let private asked fault means measure labels causes alerts =
    signal (Asked fault) means measure labels causes alerts

let private streamed fault means measure labels causes =
    signal (Streamed fault) means measure labels causes (if List.isEmpty causes then [] else [ "gaps_open" ])

let private truly fault means = {
    streamed fault means Count.states "" [] with
        Measure = ValueNone
}

let private ofSubscriptions signal = { signal with IsOfSubscriptions = true }

let private brief signal = {
    signal with
        IsBrief = true
        Alerts = []
}

/// The table of the page, in the order of the switches.
let private signals = [
    asked FaultSwitch.Latency "answers come late" Count.pollsMissed "cause=late" [ Cause.Late ] [
        "gaps_open"
        "coverage"
    ]
    asked FaultSwitch.EngineRestart425 "the matching engine restarts (425)" Count.requests "outcome=restart" [
        Cause.Restart
    ] [ "request_errors" ]
    asked FaultSwitch.Throttle429 "too many requests (429)" Count.requests "outcome=throttled" [
        Cause.Throttled
    ] [ "request_errors" ]
    asked FaultSwitch.ServerError "the server fails (5xx)" Count.requests "outcome=refused" [ Cause.Refused ] [
        "request_errors"
    ]
    asked FaultSwitch.Html "a page of HTML instead of JSON" Count.requests "outcome=refused" [ Cause.Refused ] [
        "request_errors"
    ]
    asked FaultSwitch.CutBody "answers end in the middle" Count.faults "endpoint=" [
        Cause.Unreachable
        Cause.Undecodable
    ] [ "request_errors" ]
    asked FaultSwitch.RepeatedPage "the next page is the first again" Count.requests "outcome=truncated" [
        Cause.Truncated
    ] [ "request_errors" ]
    asked FaultSwitch.Resolve "markets resolve, which is no fault" Gauge.markets "state=closing" [] []
    streamed StreamFault.WithheldBooks "a subscription gets no first book" Count.gapsOpened "stream=depth" [
        Cause.Stopped
        Cause.Starved
        Cause.Missing
        Cause.Mismatch
    ]
    |> ofSubscriptions
    streamed
        StreamFault.SilentAssets
        "a market says nothing more on an open connection"
        Count.gapsOpened
        "stream=depth"
        [ Cause.Mismatch; Cause.Starved; Cause.Stopped ]
    |> ofSubscriptions
    streamed StreamFault.SilentSocket "a connection answers pings and says nothing more" Count.rotated "" [
        Cause.Mismatch
        Cause.Starved
    ]
    |> brief
    streamed StreamFault.HalfOpen "a connection answers nothing and stays open" Count.disconnects "" [
        Cause.Starved
        Cause.Mismatch
    ]
    streamed StreamFault.Dropped "changes are lost" Count.states "verdict=mismatched" [ Cause.Mismatch ]
    |> brief
    streamed StreamFault.Duplicated "changes come twice" Count.duplicates "stream=depth" []
    streamed StreamFault.Reordered "changes come out of order" Count.states "verdict=unverifiable" []
    streamed StreamFault.WrongBest "best prices are not the book's" Count.wrongBest "" []
    streamed
        StreamFault.HashRace
        "a hash knows of a fill that is told later"
        Count.states
        "verdict=unverifiable"
        []
    streamed StreamFault.DeltaFirst "changes come before the first book" Count.early "stream=depth" []
    |> ofSubscriptions
    truly StreamFault.Crossed "books are crossed for a moment, and truly"
    streamed StreamFault.Close "a connection is closed" Count.disconnects "" [ Cause.Disconnect ]
    truly StreamFault.TickSize "ticks become finer, truly"
    truly StreamFault.Repeats "a market is announced many times"
]

let private nameOf fault =
    match fault with
    | Asked fault -> FaultSwitch.name fault
    | Streamed fault -> StreamFault.name fault

/// Faults that make a hole only now and then: whether one is seen in time is left to chance.
let private mayBreak signal =
    match signal.Fault with
    | Streamed(StreamFault.Duplicated | StreamFault.Reordered | StreamFault.HashRace | StreamFault.DeltaFirst | StreamFault.WrongBest)
    // Its books are asked for until the exchange says that it is over.
    | Asked FaultSwitch.Resolve -> true
    | _ -> signal.IsOfSubscriptions

[<Test>]
let ``every switch of the simulated exchange has its line`` () =
    equal
        ((FaultSwitch.all |> List.map snd) @ (StreamFault.all |> List.map snd))
        (signals |> List.map (fun signal -> nameOf signal.Fault))

[<Test>]
let ``the page has the table`` () =
    let path = Path.Combine(root, "docs", "operating.md")
    let page = File.ReadAllText path

    let rows = [
        for signal in signals do
            let labels =
                if signal.Labels = "" || signal.Labels = "endpoint=" then
                    ""
                else
                    $"{{{signal.Labels}}}"

            let listed (words: string list) =
                if words.IsEmpty then
                    "none"
                else
                    words |> List.map (fun word -> $"`{word}`") |> String.concat ", "

            let gaps = signal.Causes |> List.map string |> listed

            let measure =
                match signal.Measure with
                | ValueSome measure -> [ Exposition.nameOf measure + labels ]
                | ValueNone -> []

            $"| `{nameOf signal.Fault}` | {signal.Means} | {listed measure} | {gaps} | {listed signal.Alerts} |"
    ]

    // The rows stand behind the head of this table.
    let head =
        "| fault | what happens | measure | gap | alert |\n| --- | --- | --- | --- | --- |\n"

    let at = page.IndexOf head + head.Length
    Assert.That(at, Is.GreaterThan head.Length, "docs/operating.md has no such table")
    let until = page.IndexOf("\n\n", at)

    let whole = page.Substring(0, at) + String.concat "\n" rows + page.Substring until

    if Environment.GetEnvironmentVariable "TRIBUTARY_GOLDEN" = "write" then
        File.WriteAllText(path, whole)

    Assert.That(File.ReadAllText path, Is.EqualTo whole, "out of date: run 'dotnet fsi build.fsx docs'")

[<Test>]
let ``each fault changes its measure, its gaps, the health and the alerts, and all of it clears again``
    ()
    : Task = task {
    let bench =
        Bench {
            SimulatorOptions.Default with
                Markets = 8
                Limits = false
                TradesPerSecond = 10.0
                MessagesPerSecond = 150.0
                FaultRate = 0.7
                StreamFaultRate = 0.3
        }

    use _ = bench
    let! slugs = ReloadTests.slugsOf bench

    bench.Cadence <- {
        Books = ms 600
        Trades = ms 600
        Markets = ms 1000
        Jitter = 0.0
    }

    let changed (collector: CollectorSettings) = {
        ReloadTests.picking slugs collector with
            Retries = 0
            Live = {
                collector.Live with
                    Enabled = true
                    // Many connections: what strikes a connection by chance is not waited for long.
                    TokensPerConnection = 2
                    CompareEvery = ms 1000
                    DeadAfter = ms 2000
            }
    }

    let alerts (settings: AlertSettings) = {
        settings with
            Look = ms 100
            GapsOpen = {
                settings.GapsOpen with
                    For = TimeSpan.Zero
                    Threshold = TimeSpan.Zero
            }
            RequestErrors = {
                settings.RequestErrors with
                    For = TimeSpan.Zero
                    Threshold = 0.1
                    Window = ms 2000
                    AtLeast = 3
            }
            Coverage = {
                settings.Coverage with
                    For = TimeSpan.Zero
                    Window = ms 2000
                    AtLeast = 3
            }
    }

    bench.Alerts <- alerts
    let! engine = bench.StartWith(bench.OpenStore(), changed)

    let health () =
        Health.judge Health.defaults false true (engine.Pulse())

    let isWell () =
        (health ()).IsReady && engine.Alerts.IsEmpty

    do! bench.Until("it is well", fun () -> engine.Ready.IsCompleted && isWell ())

    let read (measure: Measure) (words: string) =
        engine.Measures()
        |> List.filter (fun family -> family.Measure.Name = measure.Name)
        |> List.collect _.Readings
        |> List.sumBy (fun (struct (labels, reading)) ->
            match reading with
            | Measured.Number value when labels.Contains words -> value
            | _ -> 0.0)

    let valueOf signal =
        signal.Measure
        |> ValueOption.map (fun measure -> read measure signal.Labels)
        |> ValueOption.defaultValue 0.0

    /// How often a fault of the stream struck, as the exchange itself knows it.
    let struck signal =
        match signal.Fault with
        | Asked _ -> 0
        | Streamed fault ->
            bench.Simulator.Ledger.Injections
            |> Array.filter (fun injection -> injection.Kind = StreamFault.name fault)
            |> Array.length

    let holes () = read Count.gapsOpened "stream=depth"

    /// The last markets go and come back, so that they are subscribed anew.
    let stir () = task {
        let following some =
            engine.Follow {
                engine.Settings with
                    Collectors =
                        engine.Settings.Collectors
                        |> List.map (fun one -> {
                            (ReloadTests.picking some one) with
                                Live = one.Live
                        })
            }

        let count () = int (read Gauge.markets "state=active")
        let all = count ()
        following (List.take 2 slugs)
        do! bench.Until("some are left out", fun () -> count () <= 2)
        following slugs
        do! bench.Until("they are back", fun () -> count () >= all)
    }

    let mistakes = List<string>()

    for signal in signals do
        let before, holesBefore, struckBefore = valueOf signal, holes (), struck signal
        let reasons, fired = HashSet<string>(), HashSet<string>()
        let wanted = signal.Causes |> List.map (fun cause -> $"gaps_{cause}")

        let look () =
            for reason in (health ()).Reasons do
                reasons.Add(Health.word reason.Complaint) |> ignore

            for alert in engine.Alerts do
                fired.Add alert.Rule |> ignore

        let isSeen () =
            look ()

            let rise, strikes = valueOf signal - before, struck signal - struckBefore

            (signal.Measure.IsNone || rise > 0.0)
            && (signal.Fault.IsAsked || strikes > 0)
            // Some changes come twice by themselves: of these each must have been counted.
            && (signal.Fault <> Streamed StreamFault.Duplicated
                || (strikes >= 20 && rise >= float strikes))
            && (wanted.IsEmpty
                || (signal.IsBrief && holes () > holesBefore)
                || wanted |> List.exists reasons.Contains)
            && (signal.Alerts.IsEmpty || signal.Alerts |> List.exists fired.Contains)

        match signal.Fault with
        | Asked fault -> bench.Simulator.Faults <- Set.singleton fault
        | Streamed fault -> bench.Simulator.StreamFaults <- Set.singleton fault

        let limit = DateTime.UtcNow.AddSeconds 60.0

        let mutable stirred = DateTime.MinValue

        while not (isSeen ()) && DateTime.UtcNow < limit do
            if
                signal.IsOfSubscriptions
                && DateTime.UtcNow - stirred > TimeSpan.FromSeconds 10.0
            then
                do! stir ()
                stirred <- DateTime.UtcNow

            do! Task.Delay 30

        // What must not come has a moment to come.
        if wanted.IsEmpty then
            for _ in 1..20 do
                do! Task.Delay 30
                look ()

        bench.Simulator.Faults <- Set.empty
        bench.Simulator.StreamFaults <- Set.empty

        if not (isSeen ()) then
            let seen = String.Join(", ", Seq.append reasons fired)
            mistakes.Add $"{nameOf signal.Fault}: measure {valueOf signal - before}, seen {seen}"

        if wanted.IsEmpty && not (mayBreak signal) && reasons.Count + fired.Count > 0 then
            let seen = String.Join(", ", Seq.append reasons fired)
            mistakes.Add $"{nameOf signal.Fault}: {seen}, where nothing is wrong"

        let clear = DateTime.UtcNow.AddSeconds 40.0

        while not (isWell ()) && DateTime.UtcNow < clear do
            do! Task.Delay 30

        if not (isWell ()) then
            mistakes.Add $"{nameOf signal.Fault}: does not clear: %A{(health ()).Reasons} %A{engine.Alerts}"

    equal [] (List.ofSeq mistakes)
    let! report = engine.StopAsync(TimeSpan.FromSeconds 10.0)
    equal None report.Undrained
    let! gaps = bench.Gaps()
    let told = gaps |> List.map _.Gap.Cause |> Set.ofList

    // Each of them is a row.
    for cause in
        [
            Cause.Late
            Cause.Restart
            Cause.Throttled
            Cause.Refused
            Cause.Truncated
            Cause.Disconnect
            Cause.Mismatch
        ] do
        isTrue (told.Contains cause)
}
