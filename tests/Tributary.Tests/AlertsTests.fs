/// What is told when: the rules and the board, without a clock, and then the sinks on real sockets and processes.
module Tributary.Tests.AlertsTests

open System
open System.Collections.Concurrent
open System.Diagnostics
open System.IO
open System.Text.Json
open System.Threading
open System.Threading.Tasks
open Microsoft.AspNetCore.Http
open Microsoft.Extensions.Logging
open NUnit.Framework
open FsCheck.NUnit
open Tributary

// ---- pulses

let private start = seconds 1_000_000L
let private after (count: float) = start + TimeSpan.FromSeconds count
let private s = TimeSpan.FromSeconds: float -> TimeSpan
let private polymarket = good (ExchangeId.Parse "polymarket")

/// All is well, so long after the start.
let private well count : Pulse = {
    At = after count
    Collector = "main"
    Started = start
    Paused = []
    LastReceived = ValueSome(after count)
    Markets = []
    Streams = []
    Requests = 0L
    Failures = 0L
    Connected = 0
    Connections = 0
    Limits = []
    Errors = []
    Backlog = Backlog.none
    Skew = ValueNone
    FreeBytes = ValueNone
}

let private quiet slug (last: float) (usual: float) : MarketPulse = {
    Exchange = polymarket
    Market = market ("0x" + slug)
    Slug = slug
    LastTrade = ValueSome(after last)
    TradeInterval = ValueSome(s usual)
    LastBook = ValueNone
    Verdict = ValueNone
    Trades = 2L
    Books = 0L
    Deltas = 0L
    Gaps = []
}

let private stream kind due good : StreamPulse = {
    Stream = kind
    Due = due
    Good = good
}

let private troubles texts (pulse: Pulse) = {
    pulse with
        Pulse.Backlog.Troubles = texts
}

let private storeFailed (pulse: Pulse) = {
    pulse with
        Paused = [ Cause.StoreFailed ]
}

let private watching rules : AlertPolicy = {
    Watches = rules |> List.map (fun (rule, lasting) -> { Rule = rule; For = s lasting })
    RepeatEvery = s 3600.0
    MaxNotices = 1000
    Window = s 600.0
}

let private playing policy (pulses: Pulse list) : AlertBoard * AlertNotice list =
    ((Alerts.none, []), pulses)
    ||> List.fold (fun (board, told) pulse ->
        let board, notices = Alerts.step policy board pulse
        board, told @ notices)

let private play policy pulses = snd (playing policy pulses)

/// What was told: the moment in seconds, the rule, the subject, and `firing`, `again` or `resolved`.
let private told policy pulses =
    play policy pulses
    |> List.map (fun notice ->
        let state =
            if notice.IsResolved then "resolved"
            elif notice.IsRepeated then "again"
            else "firing"

        (notice.At - start).TotalSeconds, notice.Rule, notice.Subject, state)

// ---- each rule

[<Test>]
let ``nothing at all received for long enough fires, and the first byte ends it`` () =
    let policy = watching [ AlertRule.NothingReceived(s 60.0), 0.0 ]

    let heard at last = { well at with LastReceived = last }

    equal
        [
            70.0, "nothing_received", "", "firing"
            80.0, "nothing_received", "", "resolved"
        ]
        (told policy [
            heard 60.0 ValueNone // since the start, and not longer than 60 s
            heard 70.0 ValueNone
            heard 75.0 (ValueSome(after 5.0))
            heard 80.0 (ValueSome(after 79.0))
        ])

[<Test>]
let ``a store that takes nothing fires by its cause of the pause, and other pauses do not`` () =
    let policy = watching [ AlertRule.StoreFailed, 0.0 ]

    equal
        [ 10.0, "store_failed", "", "firing"; 20.0, "store_failed", "", "resolved" ]
        (told policy [
            well 0.0
            storeFailed (well 10.0)
            {
                well 20.0 with
                    Paused = [ Cause.Paused ]
            }
        ])

[<Test>]
let ``trouble of the store elsewhere is told in its own words`` () =
    let policy = watching [ AlertRule.StoreTrouble, 0.0 ]

    let notices =
        play policy [ well 0.0 |> troubles [ "trades is suspended"; "books is suspended" ] ]

    equal 1 notices.Length
    equal 2.0 notices.Head.Value
    Assert.That(notices.Head.Message, Does.Contain "trades is suspended; books is suspended")

[<Test>]
let ``a disk that fills up fires below the threshold, and a store without a disk never does`` () =
    let policy = watching [ AlertRule.FreeDisk 1_000L, 0.0 ]

    equal
        [ 2.0, "free_disk", "", "firing" ]
        (told policy [
            well 0.0
            {
                well 1.0 with
                    FreeBytes = ValueSome 1_000L
            }
            {
                well 2.0 with
                    FreeBytes = ValueSome 999L
            }
        ])

[<Test>]
let ``rows that wait too long are a backlog, however few they are`` () =
    let policy = watching [ AlertRule.Backlog(s 60.0), 0.0 ]

    let waiting at since = {
        well at with
            Backlog = {
                Backlog.none with
                    Rows = 1L
                    Since = ValueSome(after since)
            }
    }

    equal
        [ 100.0, "backlog", "", "firing"; 101.0, "backlog", "", "resolved" ]
        (told policy [ waiting 60.0 0.0; waiting 100.0 30.0; waiting 101.0 100.0 ])

[<Test>]
let ``a clock fires when it is wrong either way`` () =
    for skew in [ 6.0; -6.0 ] do
        equal
            [ 1.0, "clock_skew", "", "firing" ]
            (told (watching [ AlertRule.ClockSkew(s 5.0), 0.0 ]) [
                well 0.0
                {
                    well 1.0 with
                        Skew = ValueSome(s skew)
                }
            ])

[<Test>]
let ``a hole that is open for too long fires for its stream, with its cause, until it is closed`` () =
    let policy = watching [ AlertRule.GapsOpen(s 60.0), 0.0 ]

    let broken at (gaps: (Stream * float) list) =
        let pulse = well at

        {
            pulse with
                Markets = [
                    {
                        quiet "m1" 0.0 60.0 with
                            Gaps = [
                                for stream, since in gaps ->
                                    {
                                        Stream = stream
                                        Token = ValueNone
                                        Cause = Cause.Unreachable
                                        Since = after since
                                    }
                            ]
                    }
                ]
        }

    let notices =
        play policy [
            broken 60.0 [ Stream.Books, 0.0 ]
            broken 61.0 [ Stream.Books, 0.0; Stream.Depth, 50.0 ]
            broken 62.0 [ Stream.Depth, 50.0 ]
        ]

    equal
        [ "books", false; "books", true ]
        (notices |> List.map (fun notice -> notice.Subject, notice.IsResolved))

    Assert.That(notices.Head.Message, Does.Contain "unreachable")

[<Test>]
let ``coverage is judged by what was due and good in the window, stream by stream`` () =
    let policy = watching [ AlertRule.Coverage(0.9, s 60.0, 10), 0.0 ]

    let polled at books trades = {
        well at with
            Streams = [ stream Stream.Books (int64 at) books; stream Stream.Trades (int64 at) trades ]
    }

    equal
        [ 60.0, "coverage", "books", "firing"; 90.0, "coverage", "books", "resolved" ]
        (told policy [
            polled 0.0 0L 0L
            polled 30.0 20L 30L // the window is not full: nothing is said
            polled 60.0 50L 60L
            polled 90.0 80L 90L // what was bad lies before the window
        ])

[<Test>]
let ``requests that fail are judged over the window, and too few say nothing`` () =
    let policy = watching [ AlertRule.RequestErrors(0.5, s 60.0, 10), 0.0 ]

    let asked at requests failures = {
        well at with
            Requests = requests
            Failures = failures
    }

    equal [] (told policy [ asked 0.0 0L 0L; asked 60.0 9L 9L ])
    equal [] (told policy [ asked 0.0 0L 0L; asked 60.0 10L 5L ])

    equal
        [
            60.0, "request_errors", "", "firing"
            120.0, "request_errors", "", "resolved"
        ]
        (told policy [
            asked 0.0 1000L 0L // errors of an hour ago, or good hours, weigh nothing
            asked 60.0 1010L 6L
            asked 65.0 1011L 7L
            asked 120.0 1030L 7L
        ])

[<Test>]
let ``counts that begin anew with a collector are not compared with those before`` () =
    let policy = watching [ AlertRule.RequestErrors(0.5, s 60.0, 1), 0.0 ]

    let anew = {
        well 60.0 with
            Started = after 50.0
            Requests = 5L
            Failures = 5L
    }

    equal [] (told policy [ { well 0.0 with Requests = 100L }; anew ])

[<TestCase(119.0, false)>]
[<TestCase(121.0, true)>]
let ``a market is quiet after so many times its usual interval`` silent fires =
    let policy = watching [ AlertRule.MarketQuiet(10.0, s 60.0), 0.0 ]

    let pulse = {
        well silent with
            Markets = [ quiet "busy" 0.0 12.0 ]
    }

    equal fires (not (told policy [ pulse ]).IsEmpty)

[<Test>]
let ``a market is not quiet before the least time, and one without a usual interval never is`` () =
    let policy = watching [ AlertRule.MarketQuiet(10.0, s 60.0), 0.0 ]

    let pulse at = {
        well at with
            Markets = [
                quiet "bursts" 0.0 0.1
                {
                    quiet "new" 0.0 1.0 with
                        TradeInterval = ValueNone
                }
            ]
    }

    equal [ 61.0, "market_quiet", "bursts", "firing" ] (told policy [ pulse 60.0; pulse 61.0 ])

[<Test>]
let ``when nothing is asked, markets are not said to be quiet, and those that were go on being so`` () =
    let policy = watching [ AlertRule.MarketQuiet(10.0, s 60.0), 0.0 ]

    let pulse at markets = { well at with Markets = markets }
    let one, other = quiet "one" 0.0 1.0, quiet "other" 40.0 1.0

    equal
        [
            61.0, "market_quiet", "one", "firing"
            120.0, "market_quiet", "other", "firing"
        ]
        (told policy [
            pulse 61.0 [ one; other ]
            storeFailed (pulse 110.0 [ one; other ])
            pulse 120.0 [ one; other ]
        ])

[<Test>]
let ``a market that is not collected any more is no longer quiet`` () =
    let policy = watching [ AlertRule.MarketQuiet(10.0, s 60.0), 0.0 ]

    equal
        [
            61.0, "market_quiet", "one", "firing"
            62.0, "market_quiet", "one", "resolved"
        ]
        (told policy [
            {
                well 61.0 with
                    Markets = [ quiet "one" 0.0 1.0 ]
            }
            well 62.0
        ])

// ---- from pending to resolved

let private trouble lasting =
    watching [ AlertRule.StoreFailed, lasting ]

[<Test>]
let ``what does not hold for long enough is never told`` () =
    equal
        []
        (told (trouble 30.0) [
            storeFailed (well 0.0)
            storeFailed (well 29.0)
            well 30.0
            storeFailed (well 31.0)
            storeFailed (well 60.0)
        ])

[<Test>]
let ``an alert is told once, again after its time, and when it is over, since it began`` () =
    let notices =
        play (trouble 30.0) [
            for at in 0.0..10.0..7200.0 do
                yield storeFailed (well at)

            yield well 7210.0
        ]

    equal [ 30.0; 3630.0; 7210.0 ] (notices |> List.map (fun notice -> (notice.At - start).TotalSeconds))

    equal [ start ] (notices |> List.map _.Since |> List.distinct)
    equal [ false; true; false ] (notices |> List.map _.IsRepeated)
    equal [ false; false; true ] (notices |> List.map _.IsResolved)

[<Test>]
let ``what fires is told in the order of the rules`` () =
    let policy = watching [ AlertRule.StoreTrouble, 0.0; AlertRule.StoreFailed, 0.0 ]

    equal
        [ "store_trouble"; "store_failed" ]
        (play policy [ well 0.0 |> storeFailed |> troubles [ "away" ] ]
         |> List.map _.Rule)

[<Test>]
let ``what fires can be looked at`` () =
    let board, _ = Alerts.step (trouble 30.0) Alerts.none (storeFailed (well 0.0))
    equal [] (Alerts.firing board)
    let board, _ = Alerts.step (trouble 30.0) board (storeFailed (well 30.0))
    equal [ "store_failed" ] (Alerts.firing board |> List.map _.Rule)

[<Test>]
let ``a clock that is set back neither ends nor repeats an alert, and lets the next one through`` () =
    let policy = {
        watching [ AlertRule.StoreFailed, 0.0; AlertRule.StoreTrouble, 0.0 ] with
            MaxNotices = 1
    }

    equal
        [ 5000.0, "store_failed", "", "firing"; 0.0, "store_trouble", "", "firing" ]
        (told policy [ storeFailed (well 5000.0); well 0.0 |> storeFailed |> troubles [ "away" ] ])

// ---- the limit

let private quietAt at count = {
    well at with
        Markets = [ for i in 1..count -> quiet $"m{i}" -1000.0 1.0 ]
}

let private atMost count = {
    watching [ AlertRule.MarketQuiet(10.0, s 60.0), 0.0 ] with
        MaxNotices = count
}

[<Test>]
let ``what is over the limit waits for its turn, and each notice says how many wait`` () =
    let notices =
        play (atMost 2) [ for at in [ 0.0; 300.0; 600.0; 1200.0 ] -> quietAt at 5 ]

    equal
        [ 0.0, "m1"; 0.0, "m2"; 600.0, "m3"; 600.0, "m4"; 1200.0, "m5" ]
        (notices
         |> List.map (fun notice -> (notice.At - start).TotalSeconds, notice.Subject))

    equal [ 0; 3; 0; 0; 0 ] (notices |> List.map _.Withheld)
    Assert.That(Alerts.text notices[1], Does.Contain "3 more notices were held back")

[<Test>]
let ``what was over before its turn came is told in a word`` () =
    let notices =
        play (atMost 1) [ quietAt 0.0 1; quietAt 10.0 3; quietAt 20.0 1; quietAt 600.0 1 ]

    equal [ "market_quiet"; Alerts.Withheld ] (notices |> List.map _.Rule)
    equal [ 0; 2 ] (notices |> List.map _.Withheld)

[<Test>]
let ``an end that waits for its turn is forgotten when it holds again`` () =
    equal
        [
            0.0, "market_quiet", "m1", "firing"
            1200.0, "market_quiet", "m1", "resolved"
        ]
        (told (atMost 1) [ quietAt 0.0 1; quietAt 10.0 0; quietAt 20.0 1; quietAt 1200.0 0 ])

/// Any history: which of five markets are quiet at each look.
let private history (quiets: byte list) = [
    for i, bits in List.indexed quiets do
        {
            well (float i * 100.0) with
                Markets = [
                    for bit in 0..4 do
                        if bits &&& (1uy <<< bit) <> 0uy then
                            quiet $"m{bit}" -1000.0 1.0
                ]
        }

    // Then all is well for as long as it takes to say everything.
    for i in 0..40 do
        well (float (quiets.Length + i) * 100.0)
]

[<Property>]
let ``notices of a subject begin, repeat and end in turn, and in the end nothing is left``
    (quiets: byte list)
    =
    let policy = { atMost 3 with RepeatEvery = s 500.0 }

    let board, notices = playing policy (history quiets)

    let inTurn (notices: AlertNotice list) =
        (Some false, notices)
        ||> List.fold (fun isFiring notice ->
            match isFiring, notice.IsRepeated, notice.IsResolved with
            | Some false, false, false -> Some true
            | Some true, true, false -> Some true
            | Some true, false, true -> Some false
            | _ -> None)
        |> (=) (Some false)

    (Alerts.firing board).IsEmpty
    && notices
       |> List.filter (fun notice -> notice.Rule <> Alerts.Withheld)
       |> List.groupBy _.Subject
       |> List.forall (snd >> inTurn)

[<Property>]
let ``no window has more notices than the limit, and what is missing was counted`` (quiets: byte list) =
    let limited = play (atMost 3) (history quiets)
    let unlimited = play (atMost 1000) (history quiets)

    let real =
        limited
        |> List.filter (fun notice -> notice.Rule <> Alerts.Withheld)
        |> List.length

    let counted = limited |> List.sumBy _.Withheld

    limited
    |> List.forall (fun last ->
        limited
        |> List.filter (fun notice -> notice.At <= last.At && notice.At > last.At - s 600.0)
        |> List.length
        |> fun count -> count <= 3)
    && (real = unlimited.Length || counted > 0)
    && unlimited |> List.forall (fun notice -> notice.Withheld = 0)

[<Property>]
let ``the same pulses give the same notices`` (quiets: byte list) =
    play (atMost 3) (history quiets) = play (atMost 3) (history quiets)

// ---- the sinks

let private usual = (Settings.defaults []).Alerts

/// Settings as a file of configuration gives them.
let private configured (variables: (string * string) list) (lines: string list) =
    let text =
        String.concat "\n" ("alerts:" :: (lines |> List.map (fun line -> "  " + line)))

    match Settings.load [] (fun name -> Map.tryFind name (Map.ofList variables)) [ "a.yaml", text ] with
    | Ok settings -> settings.Alerts
    | Error mistakes -> failwith (mistakes |> List.map Mistake.render |> String.concat "\n")

let private key = "T0/B0/keykeykey"
let private hook (server: Uri) = string (Uri(server, key))

let private posting server format =
    configured [ "HOOK", hook server ] [ $"webhook: {{url: '${{HOOK}}', format: {format}, timeout: 300ms}}" ]

let private status code (context: HttpContext) : Task =
    context.Response.StatusCode <- code
    Task.CompletedTask

/// Says nothing until the client goes away.
let private hang (context: HttpContext) : Task =
    Task.Delay(Timeout.Infinite, context.RequestAborted).ContinueWith(ignore: Task -> unit)

let private sendTest settings = task {
    let words = new Words()

    let! told =
        Alerting.test settings "main" TimeProvider.System words CancellationToken.None

    return Map.ofList told, words.Text
}

let private bodies (heard: ConcurrentQueue<string>) = [
    for asked in heard -> asked.Substring($"POST /{key} ".Length)
]

[<Test>]
let ``a 500 is tried again, and the notice arrives whole`` () =
    serving [ status 500; status 200 ] (fun server heard -> task {
        let! told, words = sendTest (posting server "json")
        equal (Ok()) told["webhook"]
        equal 2 heard.Count
        Assert.That(words, Does.Not.Contain "keykeykey")

        use body = JsonDocument.Parse (bodies heard).Head
        let names = [ for member' in body.RootElement.EnumerateObject() -> member'.Name ]

        for name in
            [
                "rule"
                "subject"
                "state"
                "since"
                "value"
                "threshold"
                "message"
                "collector"
            ] do
            Assert.That(names, Does.Contain name)

        equal "firing" (string (body.RootElement.GetProperty "state"))
        equal "main" (string (body.RootElement.GetProperty "collector"))
    })

[<Test>]
let ``a 429 is tried again when it says so`` () =
    let throttled (context: HttpContext) : Task =
        context.Response.StatusCode <- 429
        context.Response.Headers.RetryAfter <- "1"
        Task.CompletedTask

    serving [ throttled; status 204 ] (fun server heard -> task {
        let watch = Stopwatch.StartNew()
        let! told, _ = sendTest (posting server "json")
        equal (Ok()) told["webhook"]
        equal 2 heard.Count
        Assert.That(watch.Elapsed, Is.GreaterThan(s 0.9))
    })

[<TestCase(404)>]
[<TestCase(302)>]
let ``a refusal is final, and names no address`` code =
    serving [ status code ] (fun server heard -> task {
        let! told, words = sendTest (posting server "json")
        equal (Error $"it answered with status {code}") told["webhook"]
        equal 1 heard.Count
        Assert.That(words, Does.Not.Contain "keykeykey")
    })

[<Test>]
let ``a webhook that hangs is given up, each time after its timeout`` () =
    serving [ hang ] (fun server heard -> task {
        let! told, words = sendTest (posting server "json")
        equal (Error "no answer within 0.3 s") told["webhook"]
        equal 4 heard.Count
        Assert.That(words, Does.Not.Contain "keykeykey")
    })

[<Test>]
let ``a webhook where nobody listens is no answer, and names no address`` () = task {
    let settings = posting (Uri "http://127.0.0.1:1/") "json"
    let! told, words = sendTest settings
    equal (Error "no answer: ConnectionError") told["webhook"]
    Assert.That(words, Does.Not.Contain "keykeykey")
}

[<Test>]
let ``Slack gets a text in which no name calls people, and Discord one of at most 2000 characters`` () =
    let notice: AlertNotice = {
        (play (trouble 0.0) [ storeFailed (well 0.0) ]).Head with
            Message = "<!channel> & " + String('x', 1975) + "🦀🦀🦀🦀"
    }

    let read name (body: string) =
        use body = JsonDocument.Parse body
        body.RootElement.GetProperty(name: string).GetString() |> string

    let slack = NoticeBody.of' WebhookFormat.Slack notice |> read "text"
    Assert.That(slack, Does.StartWith "[main] firing: store_failed: &lt;!channel&gt; &amp; xxx")

    for extra in 0..3 do
        let longer = {
            notice with
                Message = notice.Message.Insert(20, String('y', extra))
        }

        let discord = NoticeBody.of' WebhookFormat.Discord longer |> read "content"
        Assert.That(discord.Length, Is.LessThanOrEqualTo 2000)
        isTrue (discord.EndsWith '…')

        isTrue (
            not (Char.IsSurrogate discord[discord.Length - 2])
            || Char.IsLowSurrogate discord[discord.Length - 2]
        )

[<Test>]
let ``the URL is read from its file each time, and a file that is gone is said`` () =
    serving [ status 200 ] (fun server heard -> task {
        let path = Path.GetTempFileName()

        try
            File.WriteAllText(path, hook server + "\n")
            let settings = configured [] [ $"webhook: {{url: 'file:{path}', format: slack}}" ]
            let! told, _ = sendTest settings
            equal (Ok()) told["webhook"]
            Assert.That((bodies heard).Head, Does.Contain "somebody tries whether alerts arrive here")

            File.WriteAllText(path, "not a URL: keykeykey")
            let! told, _ = sendTest settings
            equal (Error $"file:{path} does not hold a URL such as https://example.com/hook") told["webhook"]

            File.Delete path
            let! told, _ = sendTest settings
            equal (Error $"the file {path}, which holds a secret, cannot be read") told["webhook"]
        finally
            File.Delete path
    })

/// A folder with a shell script; the test gets both paths.
let private withScript (lines: string list) (test: string -> string -> Task<unit>) : Task = task {
    let folder = Directory.CreateTempSubdirectory("tributary-alerts-").FullName
    let script = Path.Combine(folder, "tell.sh")
    File.WriteAllLines(script, "#!/bin/sh" :: lines)

    if not (OperatingSystem.IsWindows()) then
        File.SetUnixFileMode(script, UnixFileMode.UserRead ||| UnixFileMode.UserExecute)

    try
        do! test folder script
    finally
        Directory.Delete(folder, true)
}

let private running (program: string) (arguments: string list) timeout =
    let listed = arguments |> List.map (fun one -> $"'{one}'") |> String.concat ", "

    configured [] [
        $"command: {{program: '{program}', arguments: [{listed}], timeout: {timeout}}}"
    ]

[<Test; Platform("Linux,MacOsX")>]
let ``a program finds the notice on its input and the facts in its environment`` () =
    withScript [ "cat > \"$1/notice\""; "env | grep ^TRIBUTARY_ALERT_ > \"$1/facts\"" ] (fun folder script -> task {
        let! told, _ = sendTest (running script [ folder ] "30s")
        equal (Ok()) told["command"]
        use notice = JsonDocument.Parse(File.ReadAllText(Path.Combine(folder, "notice")))
        equal "test" (string (notice.RootElement.GetProperty "rule"))
        let facts = File.ReadAllText(Path.Combine(folder, "facts"))

        for fact in
            [
                "RULE=test"
                "SUBJECT="
                "STATE=firing"
                "SINCE=20"
                "VALUE=0"
                "THRESHOLD=0"
                "MESSAGE=somebody tries"
                "COLLECTOR=main"
            ] do
            Assert.That(facts, Does.Contain $"TRIBUTARY_ALERT_{fact}")
    })

[<Test; Platform("Linux,MacOsX")>]
let ``a program that reads nothing and says much is none the worse for it`` () =
    withScript [ "head -c 1000000 /dev/zero"; "head -c 1000000 /dev/zero >&2" ] (fun _ script -> task {
        let! told, _ = sendTest (running script [] "30s")
        equal (Ok()) told["command"]
    })

[<Test; Platform("Linux,MacOsX")>]
let ``a program that fails, hangs or is not there is said to`` () =
    withScript [ "exit 7" ] (fun folder script -> task {
        let! told, _ = sendTest (running script [] "30s")
        equal (Error "it ended with exit code 7") told["command"]

        let! told, _ = sendTest (running (Path.Combine(folder, "nothing")) [] "30s")

        match told["command"] with
        | Error reason -> Assert.That(reason, Does.EndWith "cannot be started: No such file or directory")
        | Ok() -> Assert.Fail()
    })

[<Test; Platform("Linux,MacOsX")>]
let ``a program that hangs is killed with all that it started`` () =
    withScript [ "sleep 600 & echo $! > \"$1/child\""; "wait" ] (fun folder script -> task {
        let! told, _ = sendTest (running script [ folder ] "1s")
        equal (Error "it did not end within 1.0 s, and was killed") told["command"]
        let child = int (File.ReadAllText(Path.Combine(folder, "child")).Trim())

        // A zombie until somebody takes note of its end.
        let isAlive () =
            try
                let stat = File.ReadAllText $"/proc/{child}/stat"
                not (stat.Contains ") Z ")
            with _ ->
                false

        let limit = Stopwatch.StartNew()

        while isAlive () && limit.Elapsed < s 10.0 do
            do! Task.Delay 10

        isTrue (not (isAlive ()))
    })

// ---- the whole

/// A collector whose store fails when it is told to.
let private failing () =
    let clock = Clock()
    let isFailing = ref false

    let pulse () =
        let now = Instant.ofDateTimeOffset (clock.GetUtcNow())

        {
            well 0.0 with
                At = now
                Started = now
                LastReceived = ValueSome now
                Paused = (if isFailing.Value then [ Cause.StoreFailed ] else [])
        }

    clock, isFailing, pulse

let private count (meters: Meters) name = meters.Total name

[<Test>]
let ``a store that fails and recovers is told twice, to the log and to the webhook, in spite of a hundred looks``
    ()
    =
    serving [ status 200 ] (fun server heard -> task {
        let clock, isFailing, pulse = failing ()
        let words, meters = new Words(), new Meters()
        let alerting = Alerting.start (posting server "slack") pulse clock meters words

        // The time that a webhook has is the clock's, too: it stands while a notice is on its way.
        let pass looks = task {
            for _ in 1..looks do
                clock.Advance(s 10.0)

                while count meters Count.noticesSent < count meters Count.notices do
                    do! Task.Delay 1
        }

        do! pass 10
        isFailing.Value <- true
        do! pass 100
        equal [ "store_failed" ] (alerting.Firing |> List.map _.Rule)
        isFailing.Value <- false
        do! pass 10
        equal [] alerting.Firing
        do! (alerting :> IAsyncDisposable).DisposeAsync() // sends what waits
        equal 2L (count meters Count.noticesSent)

        match bodies heard with
        | [ first; last ] ->
            Assert.That(first, Does.Contain "[main] firing: store_failed: ")
            Assert.That(last, Does.Contain "[main] resolved after 17 min: store_failed: ")
        | others -> Assert.Fail $"%A{others}"

        let lines = words.Text.Split '\n'
        equal 2 lines.Length
        Assert.That(lines[0], Does.StartWith "Warning: Alert store_failed: firing: ")
        Assert.That(lines[1], Does.StartWith "Information: Alert store_failed: resolved after ")
        equal 0 clock.Waiting
    })

[<Test>]
let ``a webhook that hangs delays neither the looks nor the log, and what it never took is counted`` () =
    serving [ hang ] (fun server _ -> task {
        let clock, isFailing, pulse = failing ()
        let words, meters = new Words(), new Meters()
        let alerting = Alerting.start (posting server "json") pulse clock meters words

        for _ in 1..4 do
            isFailing.Value <- true
            clock.Advance(s 100.0)
            isFailing.Value <- false
            clock.Advance(s 100.0)

        equal 8L (count meters Count.notices)
        let ending = (alerting :> IAsyncDisposable).DisposeAsync().AsTask()

        // Its clock stands, so that nothing but the limit of the end can end it.
        while not ending.IsCompleted do
            clock.Advance(s 1.0)
            do! Task.Delay 1

        do! ending
        equal 8L (count meters Count.noticesFailed + count meters Count.noticesDropped)
        Assert.That(words.Text, Does.Not.Contain "keykeykey")
    })

[<Test>]
let ``a pulse that throws is logged, and the next one counts`` () = task {
    let clock, isFailing, pulse = failing ()
    let words = new Words()
    let mutable throws = true

    let pulse () =
        if throws then
            failwith "no pulse"

        pulse ()

    let alerting = Alerting.start usual pulse clock (new Meters()) words
    clock.Advance(s 10.0)
    throws <- false
    isFailing.Value <- true
    clock.Advance(s 60.0)
    do! (alerting :> IAsyncDisposable).DisposeAsync()
    Assert.That(words.Text, Does.Contain "no pulse")
    Assert.That(words.Text, Does.Contain "firing: store_failed")
}

[<Test>]
let ``alerts that are off never look`` () = task {
    let clock = Clock()

    let off = {
        usual with
            AlertSettings.Enabled = false
    }

    let alerting =
        Alerting.start off (fun () -> failwith "looked") clock (new Meters()) (new Words())

    clock.Advance(TimeSpan.FromDays 1.0)
    do! (alerting :> IAsyncDisposable).DisposeAsync()
}

// ---- the command

/// `tributary alerts test` with a configuration; its exit code and what it said.
let private command (variables: (string * string) list) (lines: string list) =
    let path = Path.GetTempFileName()

    try
        File.WriteAllLines(path, lines)

        let info =
            ProcessStartInfo(
                "dotnet",
                [ KillTests.program "Tributary.Cli"; "alerts"; "test"; "--config"; path ],
                RedirectStandardOutput = true,
                RedirectStandardError = true
            )

        for name, value in variables do
            info.Environment[name] <- value

        use running = Process.Start info |> Option.ofObj |> Option.get
        let errors = running.StandardError.ReadToEndAsync()
        let output = running.StandardOutput.ReadToEnd()
        running.WaitForExit()
        running.ExitCode, output, errors.Result
    finally
        File.Delete path

[<Test>]
let ``alerts test says of every sink whether it was told`` () =
    serving [ status 200; status 403 ] (fun server heard -> task {
        let settings = [ "alerts: {webhook: {url: '${HOOK}', format: discord}}" ]
        let variables = [ "HOOK", hook server ]
        let code, output, errors = command variables settings
        equal (0, "log: ok\nwebhook: ok\n") (code, output.ReplaceLineEndings "\n")
        Assert.That(errors, Does.Contain "Alert test: firing: test: ")
        Assert.That((bodies heard).Head, Does.Contain "\"content\":\"[main] firing: test: ")

        let code, output, errors = command variables settings
        equal (1, "log: ok\nwebhook: it answered with status 403\n") (code, output.ReplaceLineEndings "\n")
        Assert.That(output + errors, Does.Not.Contain "keykeykey")

        let code, _, errors = command [] settings
        equal 78 code
        Assert.That(errors, Does.Contain "the environment variable HOOK is not set")
    })
