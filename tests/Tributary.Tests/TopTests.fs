/// How a running collector is watched.
module Tributary.Tests.TopTests

open System
open System.Diagnostics
open System.IO
open System.Net
open System.Net.Sockets
open System.Text.Json
open System.Threading
open System.Threading.Tasks
open NUnit.Framework

open Tributary.Cli
open Tributary.Server
open Tributary.Server.Simulator
open Tributary.Tests.EngineTests

let private at seconds =
    DateTimeOffset(2026, 11, 1, 12, 0, 0, TimeSpan.Zero).AddSeconds seconds

let private mk slug trades deltas : Running.Market = {
    Slug = slug
    Trades = trades
    Books = 1L
    Deltas = deltas
    LastTrade = ValueSome(at 99.0)
    LastBook = ValueSome(at 100.0)
    Verdict = "verified"
    Gaps = []
}

let private collector seconds markets : Running.Collector = {
    IsRunning = true
    Name = "main"
    At = at seconds
    Started = at 0.0
    Status = "ready"
    Reasons = []
    Alerts = []
    Requests = 100L
    Failed = 2L
    Connections = 2
    Connected = 2
    Skew = ValueSome 0.25
    FreeBytes = ValueSome 12_300_000_000L
    Waiting = 0L
    Troubles = []
    Limits = [ "polymarket data", 40L, 200L ]
    Errors = []
    Markets = markets
}

let private looks before now =
    Views.Looks.start before |> Views.Looks.next now

let private two =
    looks
        (collector 100.0 [ mk "a" 10L 100L; mk "b" 0L 0L ])
        (collector 110.0 [ mk "a" 11L 200L; mk "b" 5L 5L ])

let private slugs (lines: string list) =
    lines
    |> List.skip 6
    |> List.map (fun line -> line.Split(' ')[0])
    |> List.takeWhile ((<>) "")

let private typed (text: string) keys =
    (keys, text)
    ||> Seq.fold (fun keys letter ->
        match Views.press 10 (ConsoleKeyInfo(letter, ConsoleKey.None, false, false, false)) keys with
        | ValueSome next -> next
        | ValueNone -> failwith "it is over")

[<Test>]
let ``rates are those between two looks`` () =
    let lines = Views.screen 80 24 two Views.start
    Assert.That(lines[0], Is.EqualTo "main: ready, up 110 s, 2 markets, 0 open gaps")
    Assert.That(lines[1], Does.StartWith "11 rows/s (223 in all), 0 requests/s (2 failed")
    Assert.That(lines[6], Does.Match @"^a +10 +6\.0 ")
    Assert.That(lines[7], Does.Match @"^b +0\.5 +30 ")

[<Test>]
let ``a screen has its size, whatever there is to show`` () =
    for width, height in [ 80, 24; 200, 50; 40, 10 ] do
        for markets in
            [
                []
                [ mk (String('x', 300)) 1L 1L ]
                [ for i in 1..2_000 -> mk $"market-{i}" (int64 i) (int64 i) ]
            ] do
            let now = {
                collector 110.0 markets with
                    Reasons = [ String('r', 500) ]
                    Alerts = [ String('a', 500) ]
            }

            let lines = Views.screen width height (looks now now) Views.start
            equal height lines.Length

            for line in lines do
                Assert.That(line.Length, Is.LessThanOrEqualTo width)

[<Test>]
let ``keys sort, reverse, filter, scroll and end`` () =
    let order keys = slugs (Views.screen 80 24 two keys)
    equal [ "a"; "b" ] (order Views.start)
    equal [ "b"; "a" ] (order (typed "s" Views.start)) // by trades
    equal [ "b"; "a" ] (order (typed "r" Views.start))
    equal [ "b" ] (order (typed "/B" Views.start))

    let many =
        looks (collector 100.0 []) (collector 110.0 [ for i in 10..60 -> mk $"m{i}" 0L (int64 (100 - i)) ])

    let press key keys =
        (Views.press 16 (ConsoleKeyInfo('\000', key, false, false, false)) keys).Value

    let first keys =
        (Views.screen 80 24 many keys |> slugs).Head

    equal "m10" (first Views.start)
    equal "m11" (first (press ConsoleKey.DownArrow Views.start))
    equal "m26" (first (press ConsoleKey.PageDown Views.start))
    // Not beyond the end.
    equal "m45" (first { Views.start with Above = 1_000 })
    equal Views.start (Views.start |> typed "/x" |> press ConsoleKey.Escape)
    isTrue (Views.press 10 (ConsoleKeyInfo('q', ConsoleKey.Q, false, false, false)) Views.start).IsNone
    // While a filter is typed, letters are letters.
    equal "sq" (typed "/sq" Views.start).Filter

[<Test>]
let ``a collector that was started anew counts from nothing`` () =
    let again = {
        collector 110.0 [ mk "a" 1L 50L ] with
            Started = at 105.0
    }

    let lines =
        Views.screen 80 24 (looks (collector 100.0 [ mk "a" 10L 100L ]) again) Views.start

    Assert.That(lines[6], Does.Match "^a +10 +12 ")

[<Test>]
let ``what is wrong is told`` () =
    let now = {
        collector 110.0 [
            {
                mk "a" 1L 1L with
                    Gaps = [ "unreachable"; "late" ]
            }
        ] with
            Status = "degraded"
            Reasons = [ "two gaps" ]
            Errors = [ at 100.0, "clob_books: it timed out" ]
            Waiting = 7L
            Troubles = [ "trades is suspended" ]
    }

    let text = String.concat "\n" (Views.screen 160 24 (looks now now) Views.start)

    for words in
        [
            "degraded"
            "! two gaps"
            "last error 10 s ago: clob_books: it timed out"
            "outbox 7 rows trades is suspended"
            "2 unreachable"
        ] do
        Assert.That(text, Does.Contain words)

[<Test>]
let ``where no collector answers the store is shown, and its rates are those between two looks`` () =
    let stored seconds trades = {
        collector seconds [
            {
                mk "a" trades 0L with
                    Gaps = [ "open" ]
            }
        ] with
            IsRunning = false
            Name = "store.db"
            Reasons = [ "connection refused" ]
            Started = DateTimeOffset.UnixEpoch
    }

    let lines =
        Views.screen 80 24 (looks (stored 100.0 10L) (stored 110.0 30L)) Views.start

    equal "No collector answers (connection refused)" lines[0]
    equal "store.db: 1 markets, 31 rows, 2.0 rows/s, 1 open gaps" lines[1]
    Assert.That(lines[6], Does.Match @"^a .* 1 open$")
    // The same look again changes nothing.
    let again =
        looks (stored 100.0 10L) (stored 110.0 30L)
        |> Views.Looks.next (stored 110.0 30L)

    equal lines (Views.screen 80 24 again Views.start)
    // A single look knows no rate.
    let once = Views.screen 80 24 (Views.Looks.start (stored 110.0 30L)) Views.start
    equal "store.db: 1 markets, 31 rows, 0 rows/s, 1 open gaps" once[1]
    // When one answers again, it counts from there.
    equal 1 (looks (stored 100.0 10L) (collector 110.0 [])).First.Limits.Length

[<Test>]
let ``what a store has of an exchange cannot command a terminal either, and an older collector tells no limits``
    ()
    =
    let status: Tributary.Stores.StoreStatus = {
        Markets = []
        Quarantined = 0L
        Metrics = []
        Bytes = 0L
        Notes = [ "a\u001b[2Jb" ]
    }

    equal [ "a[2Jb" ] (Running.ofStore "store.db" "nobody" (at 0.0) status).Troubles

    let older =
        """{"collector":"main","at":"2026-11-01T00:00:00Z","started":"2026-11-01T00:00:00Z","status":"ready","reasons":[],"alerts":[],
            "requests":0,"requests_failed":0,"connections":0,"connections_open":0,
            "limits":[{"limit":"data","left":3}],"outbox":{"rows":0,"troubles":[]},"markets":[]}"""

    match Running.parse older with
    | Ok collector ->
        equal [ "data", 3L, 0L ] collector.Limits

        Assert.That(
            Views.head 160 (Views.Looks.start collector) |> String.concat "\n",
            Does.Contain "least left: data 3)"
        )
    | Error message -> failwith message

[<TestCase("abc", 5, "abc")>]
[<TestCase("abcdef", 4, "abc…")>]
[<TestCase("市場市場", 8, "市場市場")>]
[<TestCase("市場市場", 7, "市場市…")>]
[<TestCase("市場市場", 6, "市場…")>]
let ``a text is cut to the columns of the screen, of which some letters take two`` (text: string) width cut =
    equal cut (Terminal.cut width text)
    Assert.That(Terminal.cells cut, Is.LessThanOrEqualTo width)

[<Test>]
let ``an answer that is none is an error, and unknown members are passed over`` () =
    equal (Error "its answer is not a collector's") (Running.parse "<html>")
    equal (Error "its answer is not a collector's") (Running.parse "{}")

[<Test>]
let ``what an exchange names cannot command a terminal`` () =
    let answer =
        """{"collector":"main","at":"2026-11-01T00:00:00Z","started":"2026-11-01T00:00:00Z","status":"ready","reasons":[],"alerts":[],
            "requests":0,"requests_failed":0,"connections":0,"connections_open":0,"limits":[],"errors":[],
            "outbox":{"rows":0,"troubles":[]},
            "markets":[{"slug":"a\u001b[2Jb","trades":0,"books":0,"deltas":0,"gaps":[]}]}"""

    match Running.parse answer with
    | Ok collector -> equal [ "a[2Jb" ] (collector.Markets |> List.map _.Slug)
    | Error message -> failwith message

let private freePort () =
    use listener = new TcpListener(IPAddress.Loopback, 0)
    listener.Start()
    (listener.LocalEndpoint :?> IPEndPoint).Port

/// What a command prints, in a pipe, and its exit code.
let private run (folder: string) (arguments: string list) = task {
    let info =
        ProcessStartInfo(
            "dotnet",
            KillTests.program "Tributary.Cli" :: arguments,
            WorkingDirectory = folder,
            RedirectStandardOutput = true,
            RedirectStandardError = true
        )

    info.Environment["TOP_TOKEN"] <- "open sesame"
    use running = Process.Start info |> Option.ofObj |> Option.get
    let! printed = running.StandardOutput.ReadToEndAsync()
    let! complaints = running.StandardError.ReadToEndAsync()
    do! running.WaitForExitAsync()
    return printed, complaints, running.ExitCode
}

[<Test>]
let ``a command asks the collector that runs, with its token, and else the store`` () : Task = task {
    let bench =
        Bench {
            SimulatorOptions.Default with
                Markets = 3
                TradesPerSecond = 10.0
        }

    use _ = bench
    // Seldom, so that no poll is late on a busy machine.
    bench.Cadence <- {
        Books = TimeSpan.FromSeconds 10.0
        Trades = TimeSpan.FromSeconds 10.0
        Markets = TimeSpan.FromSeconds 10.0
        Jitter = 0.0
    }

    let! engine = bench.Start()
    let port = freePort ()
    let folder = Directory.CreateTempSubdirectory("tributary-top-").FullName

    try
        let! door =
            Door.StartAsync(
                {
                    Address = IPAddress.Loopback
                    Port = port
                    Token = Some "open sesame"
                    Web = None
                },
                Shown.ofEngine engine,
                CancellationToken.None
            )

        do! bench.Until("books", fun () -> bench.Good(Tributary.Stream.Books, seconds 0L) >= 6)

        let config token =
            let file = Path.Combine(folder, $"{token}.yaml")

            File.WriteAllText(
                file,
                $"http: {{listen: '127.0.0.1:{port}', token: '${{{token}}}'}}\nstore: {{path: '{bench.Path}'}}\n"
            )

            file

        let right = config "TOP_TOKEN"
        let! once, complaints, code = run folder [ "top"; "--once"; "--config"; right ]
        Assert.That(code, Is.Zero, complaints)
        Assert.That(once, Does.StartWith "main: ready, ")
        Assert.That(once, Does.Not.Contain "\u001b")
        Assert.That(once, Does.Not.Contain "sesame")

        equal
            (engine.Pulse().Markets.Length)
            (once.Split('\n') |> Array.filter _.Contains(" verified ") |> Array.length)

        let! status, _, _ = run folder [ "status"; "--config"; right ]
        Assert.That(status, Does.StartWith "main: ready, ")
        Assert.That(status, Does.Contain "3 markets, ")
        let! asJson, _, _ = run folder [ "status"; "--json"; "--config"; right ]
        use document = JsonDocument.Parse asJson

        equal
            "main"
            (string (document.RootElement.GetProperty("running").GetProperty("collector").GetString()))

        // Another store is another matter.
        let! named, _, _ = run folder [ "status"; "--json"; "--store"; bench.Path ]
        use document = JsonDocument.Parse named
        equal JsonValueKind.Null (document.RootElement.GetProperty("running").ValueKind)

        // Somebody is there: what the store has is not the answer.
        let! _, refused, code = run folder [ "top"; "--once"; "--config"; config "HOME" ]
        equal 1 code
        Assert.That(refused, Does.Contain "the token is another one there (http.token)")
        let! status, complaints, code = run folder [ "status"; "--config"; config "HOME" ]
        equal 0 code
        Assert.That(complaints, Does.Contain "does not tell: the token is another one there (http.token)")
        Assert.That(status, Does.Contain "3 markets, ")

        do! (door :> IAsyncDisposable).DisposeAsync()
        let! nobody, _, code = run folder [ "top"; "--once"; "--config"; right ]
        equal 0 code
        Assert.That(nobody, Does.StartWith "No collector answers (")
        Assert.That(nobody, Does.Contain "3 markets, ")
        do! bench.Finish engine
    finally
        Directory.Delete(folder, true)
}

[<Test; Platform "Linux">]
let ``on a terminal of 80 by 24 it draws until q, and gives the screen back`` () : Task = task {
    if not (File.Exists "/usr/bin/script") then
        Assert.Ignore "there is no program 'script' here, which makes a terminal"

    let bench =
        Bench {
            SimulatorOptions.Default with
                Markets = 3
        }

    use _ = bench
    let! engine = bench.Start()

    let! door =
        Door.StartAsync(
            {
                Address = IPAddress.Loopback
                Port = 0
                Token = None
                Web = None
            },
            Shown.ofEngine engine,
            CancellationToken.None
        )

    do! bench.Until("books", fun () -> bench.Good(Tributary.Stream.Books, seconds 0L) >= 6)
    let program = KillTests.program "Tributary.Cli"

    let info =
        ProcessStartInfo(
            "/usr/bin/script",
            [
                "-qec"
                $"stty rows 24 cols 80; exec dotnet '{program}' top --url {door.Address}"
                "/dev/null"
            ],
            RedirectStandardInput = true,
            RedirectStandardOutput = true
        )

    info.Environment["TERM"] <- "xterm"
    use running = Process.Start info |> Option.ofObj |> Option.get
    use patience = new CancellationTokenSource(TimeSpan.FromSeconds 40.0)
    let shown = Text.StringBuilder()
    let buffer: char[] = Array.zeroCreate 4_096

    let frames () =
        shown.ToString().Split("q: quit").Length - 1

    while frames () < 3 do
        let! count = running.StandardOutput.ReadAsync(Memory buffer, patience.Token)
        isTrue (count > 0)
        shown.Append(buffer, 0, count) |> ignore

    do! running.StandardInput.WriteAsync "q"
    do! running.StandardInput.FlushAsync()
    let! rest = running.StandardOutput.ReadToEndAsync patience.Token
    do! running.WaitForExitAsync patience.Token
    let drawn = shown.ToString() + rest
    equal 0 running.ExitCode
    let into = drawn.IndexOf "\u001b[?1049h"
    let out = drawn.LastIndexOf "\u001b[?1049l"
    isTrue (into >= 0 && out > into)
    Assert.That(drawn, Does.Contain "q: quit")

    // The last frame, kept beside the pictures of the page.
    let frame =
        drawn.Substring(
            drawn.LastIndexOf "\u001b[H",
            drawn.LastIndexOf "\u001b[J" - drawn.LastIndexOf "\u001b[H"
        )

    let plain =
        Text.RegularExpressions.Regex.Replace(frame, "\u001b\\[[0-9?]*[A-Za-z]", "")

    let lines = plain.Split('\n') |> Array.map _.TrimEnd()
    equal 24 lines.Length

    Directory.CreateDirectory(Path.Combine(AppContext.BaseDirectory, "screenshots"))
    |> ignore

    File.WriteAllLines(Path.Combine(AppContext.BaseDirectory, "screenshots", "top.txt"), lines)
    do! (door :> IAsyncDisposable).DisposeAsync()
    do! bench.Finish engine
}
