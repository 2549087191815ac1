module Tributary.Tests.MetersTests

open System
open System.Collections.Generic
open System.Diagnostics
open System.Diagnostics.Metrics
open System.IO
open System.Text.RegularExpressions
open NUnit.Framework
open Tributary

let private at = seconds 1_800_000_000L
let private ms (count: int) = TimeSpan.FromMilliseconds(float count)

let private linesOf (meters: Meters) =
    Exposition.text (meters.Families()) |> _.TrimEnd().Split('\n') |> List.ofArray

let private withoutHelp (lines: string list) =
    lines |> List.filter (fun line -> not (line.StartsWith '#'))

[<Test>]
let ``what is counted is told by its labels, with the exchange that it is of`` () =
    use meters = new Meters()
    meters.Add(Count.commits, "")
    let own = meters.Of "polymarket"
    own.Add(Count.eventsStored, "stream=trades", 3L)
    own.Add(Count.eventsStored, "stream=trades")
    own.Add(Count.eventsStored, "stream=books", 0L)

    equal
        [
            "# HELP tributary_commits_total Transactions of the store."
            "# TYPE tributary_commits_total counter"
            "tributary_commits_total 1"
            "# HELP tributary_events_stored_total Events that the store had not seen before, by stream."
            "# TYPE tributary_events_stored_total counter"
            "tributary_events_stored_total{exchange=\"polymarket\",stream=\"trades\"} 4"
        ]
        (linesOf meters)

    equal 4L (meters.Total Count.eventsStored)
    equal 0L (meters.Total(Count.eventsStored, _.Contains("stream=books")))

[<Test>]
let ``durations are counted in buckets, each of which holds the smaller ones`` () =
    use meters = new Meters()

    for took in [ ms 1; ms 3; ms 40; TimeSpan.FromMinutes 2.0; ms -5 ] do
        meters.Add(Took.commit, "", took)

    let lines = linesOf meters |> withoutHelp

    let bucket bound =
        lines
        |> List.find (fun line -> line.Contains $"le=\"{bound}\"")
        |> fun line -> int (line.Split(' ')[1])

    equal [ 2; 3; 4; 4; 5 ] ([ "0.001"; "0.005"; "0.05"; "60"; "+Inf" ] |> List.map bucket)
    isTrue (lines |> List.contains "tributary_commit_seconds_count 5")
    isTrue (lines |> List.contains "tributary_commit_seconds_sum 120.044")

[<Test>]
let ``as rows, a duration is how long half and nearly all of it took`` () =
    use meters = new Meters()

    for i in 1..100 do
        meters.Add(Took.request, "endpoint=x", ms (if i = 100 then 10_000 else 10))

    let rows =
        meters.Snapshot at |> List.map (fun row -> row.Name, row.Labels, row.Value)

    match rows with
    | [ "request_seconds", "endpoint=x,quantile=0.5", half
        "request_seconds", "endpoint=x,quantile=0.99", most ] ->
        Assert.That(half, Is.InRange(0.01, 0.013))
        Assert.That(most, Is.InRange(0.01, 0.013))
    | other -> failwith $"%A{other}"

[<Test>]
let ``a gauge is read when somebody looks`` () =
    use meters = new Meters()
    let value = ref 1.0
    meters.Watch(Gauge.markets, fun () -> [ struct ("exchange=x", value.Value) ])
    equal [ "tributary_markets{exchange=\"x\"} 1" ] (linesOf meters |> withoutHelp)
    value.Value <- 2.5
    equal [ "tributary_markets{exchange=\"x\"} 2.5" ] (linesOf meters |> withoutHelp)

[<Test>]
let ``a label's value may hold anything`` () =
    use meters = new Meters()
    meters.Add(Count.warnings, "flag=a\"b\\c\nd")
    equal [ @"tributary_warnings_total{flag=""a\""b\\c\nd""} 1" ] (linesOf meters |> withoutHelp)

[<Test>]
let ``whoever listens by .NET's own means hears the same, until the meters are disposed`` () =
    let heard = List<string>()
    use listener = new MeterListener()
    let meters = new Meters()

    listener.InstrumentPublished <-
        fun instrument listener ->
            if instrument.Meter.Name = Meters.MeterName then
                listener.EnableMeasurementEvents instrument

    let words (tags: KeyValuePair<string, obj | null>[]) =
        tags |> Array.map (fun tag -> $"{tag.Key}={tag.Value}") |> String.concat ","

    listener.SetMeasurementEventCallback<int64>(fun instrument value tags _ ->
        heard.Add $"{instrument.Name} {words (tags.ToArray())} {value}")

    listener.SetMeasurementEventCallback<float>(fun instrument value tags _ ->
        heard.Add $"{instrument.Name} {words (tags.ToArray())} {value}")

    listener.Start()
    // Other tests count at the same time: these labels are ours.
    let mine = $"stream={Guid.NewGuid()}"
    (meters.Of "x").Add(Count.late, mine, 2L)
    meters.Add(Took.receive, mine, ms 250)
    meters.Watch(Gauge.skew, fun () -> [ struct (mine, 7.0) ])
    listener.RecordObservableInstruments()
    (meters :> IDisposable).Dispose()
    meters.Add(Count.late, mine, 3L)

    equal
        [
            $"tributary.events_late exchange=x,{mine} 2"
            $"tributary.exchange_to_receive_seconds {mine} 0.25"
            $"tributary.clock_skew_seconds {mine} 7"
        ]
        (heard |> Seq.filter _.Contains(mine) |> List.ofSeq)

[<Test>]
let ``names are in one form, counters end as Prometheus has it, and everything says what it is`` () =
    use meters = new Meters()
    Machine.watch meters

    let vocabulary = [
        for owner in
            [
                typeof<Measure>.Assembly.GetType "Tributary.CountModule"
                typeof<Measure>.Assembly.GetType "Tributary.Count"
                typeof<Measure>.Assembly.GetType "Tributary.Gauge"
                typeof<Measure>.Assembly.GetType "Tributary.Took"
            ] do
            match owner with
            | null -> ()
            | owner ->
                for property in owner.GetProperties() do
                    match property.GetValue null with
                    | :? Measure as measure -> measure
                    | _ -> ()

        for family in meters.Families() do
            family.Measure
    ]

    Assert.That(vocabulary.Length, Is.GreaterThan 40)
    equal vocabulary.Length (vocabulary |> List.distinctBy _.Name |> List.length)

    for measure in vocabulary do
        let name = Exposition.nameOf measure
        Assert.That(name, Does.Match "^[a-z][a-z0-9_]*$")
        Assert.That(measure.Help, Does.EndWith ".", name)
        equal (measure.Kind = MeasureKind.Counter) (name.EndsWith "_total")

        if measure.Kind = MeasureKind.Duration then
            Assert.That(name, Does.EndWith "_seconds")

/// Where Prometheus' own checker is, if it is here.
let private promtool =
    [ "/usr/bin/promtool"; "/usr/local/bin/promtool" ] |> List.tryFind File.Exists

[<Test>]
let ``Prometheus' own checker finds no fault with the text`` () =
    match promtool with
    | None -> Assert.Ignore "promtool is not here: Debian's package prometheus has it"
    | Some promtool ->
        use meters = new Meters()
        Machine.watch meters
        let own = meters.Of "polymarket"
        own.Add(Count.requests, "endpoint=clob_books,outcome=ok", 3L)
        own.Add(Took.request, "endpoint=clob_books", ms 20)
        meters.Watch(Gauge.openGaps, fun () -> [ struct ("exchange=x,stream=books,cause=late", 1.0) ])

        let info =
            ProcessStartInfo(
                promtool,
                [ "check"; "metrics" ],
                RedirectStandardInput = true,
                RedirectStandardError = true,
                RedirectStandardOutput = true
            )

        use running = Process.Start info |> Option.ofObj |> Option.get
        running.StandardInput.Write(Exposition.text (meters.Families()))
        running.StandardInput.Close()
        let said = running.StandardError.ReadToEnd() + running.StandardOutput.ReadToEnd()
        running.WaitForExit()
        Assert.That(running.ExitCode, Is.EqualTo 0, said)
        Assert.That(Regex.Replace(said, @"\s", ""), Is.Empty)
