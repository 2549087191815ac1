/// What is logged: by whom, how often, and how the lines of one market or one connection are found.
module Tributary.Tests.LogsTests

open System
open System.IO
open System.Text.Json
open System.Threading
open System.Threading.Tasks
open Microsoft.Extensions.Logging
open NUnit.Framework
open FsCheck.NUnit
open Tributary
open Tributary.Server.Simulator

let private seconds (count: int) = TimeSpan.FromSeconds(float count)
let private at count = Instant.ofMicros 0L + seconds count

// ---- how often

[<Test>]
let ``three of a kind are said, and the others counted until their span is over`` () =
    let repeats = Repeats<string>(3, seconds 60)
    let said = [ for second in 1..5 -> repeats.IsSaid("a", at second) ]
    equal [ true; true; true; false; false ] said
    isTrue (repeats.IsSaid("b", at 6))
    equal [] (repeats.Take(at 60, false))
    equal [ struct ("a", 2, seconds 60) ] (repeats.Take(at 61, false))
    // The next span begins with the next that comes.
    isTrue (repeats.IsSaid("a", at 100))
    equal [] (repeats.Take(at 200, false))

[<Property>]
let ``each is said or counted, whenever they come`` (kinds: byte list) (pauses: byte list) =
    let repeats = Repeats<byte>(2, seconds 60)
    let mutable now, said, counted = at 0, 0, 0

    let count all =
        for struct (_, left, _) in repeats.Take(now, all) do
            counted <- counted + left

    for kind, pause in List.zip (List.truncate pauses.Length kinds) (List.truncate kinds.Length pauses) do
        now <- now + seconds (int pause % 40)
        count false

        if repeats.IsSaid(kind % 3uy, now) then
            said <- said + 1

    count true
    said + counted = min kinds.Length pauses.Length

let private logged (test: Clock -> ILogger -> Words -> unit) =
    let clock, words = Clock(), new Words()
    let logs = Logs.sampled clock words

    try
        test clock (logs.CreateLogger "Tributary.Requests") words
    finally
        logs.Dispose()

    words

[<Test>]
let ``of a line that repeats ten a minute are said, and then how many more there were`` () =
    logged (fun clock log words ->
        for i in 1..224 do
            Log.requestFailed log true "books" $"/books/{i}?k" "timed out"
            clock.Advance(TimeSpan.FromMilliseconds 100.0)

        equal 10 words.All.Length
        clock.Advance(seconds 60)

        equal "Warning: … 214 more in 60 s: books failed: timed out (/books/224)" (List.last words.All)

        Log.requestFailed log true "books" "/books" "timed out"
        equal "Warning: books failed: timed out (/books)" (List.last words.All))
    |> fun words -> equal 12 words.All.Length

[<Test>]
let ``another endpoint, another cause or another level is another kind; another market is not`` () =
    let words =
        logged (fun _ log _ ->
            for i in 1..30 do
                Log.requestFailed log true "books" "/books" $"fault {i}"
                Log.requestFailed log true "trades" "/trades" "timed out"
                Log.gapOpened log "books" i "throttled"
                Log.gapOpened log "books" i "exchange_down"
                Log.marketAdded log $"slug-{i}" $"0x{i}")

    // What was left out when logging ends is told at once.
    equal 55 words.All.Length
    equal 5 (words.With "20 more in 0 s").Length
    equal 1 (words.With "20 more in 0 s: Collecting slug-30 (0x30)").Length

[<Test>]
let ``what was asked for to find a fault, and what ends a collector, is always said`` () =
    let words =
        logged (fun _ log _ ->
            for _ in 1..30 do
                Log.note log "polymarket" "a note"
                Log.schedulerDied log (InvalidOperationException "why"))

    equal 60 words.All.Length

// ---- by whom

let private config (folder: string) (text: string) =
    let path = Path.Combine(folder, "config.yaml")
    File.WriteAllText(path, text.TrimStart())
    path

type private Line = {
    Category: string
    Level: string
    Values: Map<string, string>
}

/// Runs a collector whose log is JSON lines, and reads them.
let private run (options: SimulatorOptions) (text: string) (arguments: string list) : Task<Line list> = task {
    let folder = Directory.CreateTempSubdirectory("tributary-logs-").FullName

    try
        use! simulator = Simulator.StartAsync(options, CancellationToken.None)

        let! struct (code, _, errors) =
            KillTests.tributary
                []
                ([
                    "start"
                    "--config"
                    config folder text
                    "--store"
                    Path.Combine(folder, "store.db")
                    "--exchange-url"
                    string simulator.Address
                 ]
                 @ arguments)

        Assert.That(code, Is.EqualTo 0, errors)

        return [
            for line in errors.Split('\n', StringSplitOptions.RemoveEmptyEntries) do
                use entry = JsonDocument.Parse line

                let text (name: string) =
                    string (entry.RootElement.GetProperty(name).GetString())

                {
                    Category = text "Category"
                    Level = text "LogLevel"
                    Values =
                        Map.ofSeq [
                            for value in entry.RootElement.GetProperty("State").EnumerateObject() ->
                                value.Name, string value.Value
                        ]
                }
        ]
    finally
        Directory.Delete(folder, true)
}

let private quiet = {
    SimulatorOptions.Default with
        Markets = 4
        Limits = false
}

[<Test>]
let ``each module has the level that it is given, and the others have the general one`` () : Task = task {
    let text =
        """
log_level: warning
log_levels: {live: debug, engine: info}
log_format: json
collectors: {polymarket: {discovery: {enabled: true}}}
"""

    let! lines = run quiet text [ "--for"; "4s" ]

    let levels category =
        lines
        |> List.filter (fun line -> line.Category = category)
        |> List.map _.Level
        |> List.distinct
        |> List.sort

    Assert.That(levels "Tributary.Live", Does.Contain "Debug")
    equal [ "Information" ] (levels "Tributary.Engine")

    for line in lines do
        if line.Category <> "Tributary.Live" && line.Category <> "Tributary.Engine" then
            Assert.That(line.Level, Is.EqualTo("Warning").Or.EqualTo "Error", line.Category)

    // The command line is above all of them.
    let! lines = run quiet text [ "--for"; "2s"; "--log-level"; "error" ]
    equal [] lines
}

[<Test>]
let ``a module that there is not is a mistake with its place`` () =
    match Settings.load Setup.known (fun _ -> None) [ "a.yaml", "log_levels:\n  lives: debug\n" ] with
    | Ok _ -> Assert.Fail "it was taken"
    | Error mistakes ->
        let text = mistakes |> List.map Mistake.render |> String.concat "\n"
        Assert.That(text, Does.StartWith "a.yaml:2:3: ")
        Assert.That(text, Does.Contain "live")

[<Test>]
let ``from a connection its markets are found, and what happened to both`` () : Task = task {
    let! lines =
        run
            {
                quiet with
                    Markets = 20
                    MessagesPerSecond = 200.0
                    StreamFaults = set [ StreamFault.Close ]
            }
            """
log_level: debug
log_format: json
collectors:
  polymarket:
    discovery: {enabled: true}
    live: {tokens_per_connection: 2}
"""
            [ "--for"; "15s" ]

    let having name value =
        lines |> List.filter (fun line -> Map.tryFind name line.Values = Some value)

    let values name (lines: Line list) =
        lines |> List.choose (fun line -> Map.tryFind name line.Values) |> List.distinct

    let messages = List.map (fun line -> line.Values["{OriginalFormat}"])

    let lost =
        lines
        |> List.filter (fun line ->
            line.Values["{OriginalFormat}"].StartsWith "{Exchange}: connection {Connection} is lost")
        |> values "Connection"

    Assert.That(lost, Is.Not.Empty)

    // Of the market of a lost connection it is told when it began, that it had a gap, that this ended, and on which connection.
    let isWhole market =
        let told = having "Market" market

        [
            "Collecting {Slug}"
            "{Exchange}: connection {Connection} carries"
            "{Exchange}: gap of {Stream} of {Market}"
            "{Exchange}: the gap of {Stream} of {Market}"
        ]
        |> List.forall (fun begins -> messages told |> List.exists _.StartsWith(begins))
        && (values "Connection" told).Length > 1

    Assert.That(
        lost
        |> List.collect (having "Connection" >> values "Market")
        |> List.exists isWhole,
        Is.True
    )
}
