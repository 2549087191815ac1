/// What the doctor says of a machine, and that looking changes nothing: judged from tables, and seen against a simulated exchange, real
/// files and a fake QuestDB.
module Tributary.Tests.DoctorTests

open System
open System.Collections.Generic
open System.IO
open System.Text
open System.Text.Json
open System.Threading
open System.Threading.Tasks
open Microsoft.AspNetCore.Http
open NUnit.Framework
open Tributary
open Tributary.Cli
open Tributary.FakeQuestDb
open Tributary.Server.Simulator
open Tributary.Stores
open Tributary.Tests.Stores.QuestDbSupport
open Tributary.Tests.Stores.Vocabulary

// ---- judging

let private span seconds =
    TimeSpan.FromSeconds(float seconds: float)

let private skew least most =
    ValueSome {
        AtLeast = span least
        AtMost = span most
    }

let private grades measured =
    Diagnosis.judge measured |> List.map _.Grade

let private waits rows bytes age =
    Measurement.Outbox {
        Path = "outbox.db"
        Rows = rows
        Bytes = bytes
        Limit = ValueSome 1_000L
        Age = age
    }

[<Test>]
let ``each measurement has its grade`` () =
    let ok, warning, failed = Grade.Ok, Grade.Warning, Grade.Failed

    let answer isNeeded status isJson took =
        Measurement.Answer("clob_url", "http://here", isNeeded, Ok(struct (status, isJson, span took)))

    for measured, expected in
        [
            Measurement.Configuration("config", []), [ ok ]
            Measurement.Configuration("config", [ "a:1:2: wrong"; "b: wrong" ]), [ failed; failed ]
            Measurement.Name("clob_url", "http://here", true, Ok(struct (2, span 0.01))), [ ok ]
            Measurement.Name("clob_url", "http://here", true, Error "host not found"), [ failed ]
            Measurement.Name("rpc_url", "http://here", false, Error "host not found"), [ warning ]
            answer true 200 true 0.1, [ ok ]
            answer true 200 true 6.0, [ warning ]
            answer true 200 false 0.1, [ failed ]
            answer true 302 true 0.1, [ failed ]
            answer true 403 true 0.1, [ failed ]
            answer false 403 true 0.1, [ warning ]
            answer true 404 true 0.1, [ failed ]
            answer true 407 true 0.1, [ failed ]
            answer true 425 true 0.1, [ warning ]
            answer true 429 true 0.1, [ warning ]
            answer true 502 false 0.1, [ failed ]
            Measurement.Live("ws_url", "ws://here", Ok(struct (span 0.1, span 0.1))), [ ok ]
            Measurement.Live("ws_url", "ws://here", Error "no answer"), [ failed ]
            Measurement.Account("polymarket", true, Ok "0xabc"), [ ok ]
            Measurement.Account("polymarket", false, Error "refused"), [ warning ]
            Measurement.Account("polymarket", true, Error "refused"), [ failed ]
            Measurement.Clock("polymarket", ValueNone), [ warning ]
            Measurement.Clock("polymarket", skew -0.2 0.9), [ ok ]
            Measurement.Clock("polymarket", skew 1.0 1.5), [ ok ]
            Measurement.Clock("polymarket", skew 1.1 1.5), [ warning ]
            Measurement.Clock("polymarket", skew -2.0 -1.1), [ warning ]
            Measurement.Clock("polymarket", skew 300.0 301.0), [ warning ]
            Measurement.Clock("polymarket", skew 300.1 301.0), [ failed ]
            Measurement.Clock("polymarket", skew -400.0 -301.0), [ failed ]
            Measurement.Limits("polymarket", [ struct ("clob", 9000, 9000) ]), [ ok ]
            Measurement.Limits("polymarket", [ struct ("clob", 9001, 9000) ]), [ warning ]
            Measurement.Room("data", Ok 1_000_000_000L), [ ok ]
            Measurement.Room("data", Ok 999_999_999L), [ warning ]
            Measurement.Room("data", Ok 99_999_999L), [ failed ]
            Measurement.Room("data", Error "no such device"), [ failed ]
            Measurement.Sync("data", Ok(span 0.05)), [ ok ]
            Measurement.Sync("data", Ok(span 0.051)), [ warning ]
            Measurement.Sync("data", Error "denied"), [ failed ]
            Measurement.Store("a.db", StoreFile.Absent), [ ok ]
            Measurement.Store("a.db", StoreFile.Ours(5, 6)), [ ok ]
            Measurement.Store("a.db", StoreFile.Ours(6, 6)), [ ok ]
            Measurement.Store("a.db", StoreFile.Ours(7, 6)), [ failed ]
            Measurement.Store("a.db", StoreFile.Foreign "a picture"), [ failed ]
            Measurement.Store("a.db", StoreFile.Unreadable "denied"), [ failed ]
            Measurement.Holder("a.db", ValueNone), [ ok ]
            Measurement.Holder("a.db", ValueSome "process 1"), [ ok ]
            Measurement.Damage("a.db", [], true), [ ok ]
            Measurement.Damage("a.db", [], false), [ ok ]
            Measurement.Damage("a.db", [ "page 3 is lost" ], true), [ failed ]
            Measurement.Server("here", Ok "9.4.4"), [ ok ]
            Measurement.Server("here", Error "refused"), [ failed ]
            Measurement.Tables(10, [], [], [], []), [ ok ]
            Measurement.Tables(9, [ "trades" ], [], [], []), [ ok ]
            Measurement.Tables(10, [], [ "ALTER" ], [ "other" ], [ "wrong" ]), [ failed; warning; warning ]
            Measurement.Suspended [], [ ok ]
            Measurement.Suspended [ struct ("trades", "DISK FULL") ], [ failed ]
            waits 0L 0L ValueNone, [ ok ]
            waits 10L 100L (ValueSome(span 60)), [ ok ]
            waits 10L 100L (ValueSome(span 901)), [ warning ]
            waits 10L 500L (ValueSome(span 60)), [ warning ]
            waits 10L 950L (ValueSome(span 60)), [ failed ]
        ] do
        Assert.That(grades measured, Is.EqualTo<Grade list> expected, $"%A{measured}")

[<Test>]
let ``whatever has failed says what to do about it`` () =
    for measured in
        [
            Measurement.Configuration("config", [ "a:1:2: wrong" ])
            Measurement.Name("clob_url", "http://here", true, Error "host not found")
            Measurement.Answer("clob_url", "http://here", true, Ok(struct (500, true, span 1)))
            Measurement.Live("ws_url", "ws://here", Error "no answer")
            Measurement.Clock("polymarket", skew 301 302)
            Measurement.Room("data", Ok 1L)
            Measurement.Sync("data", Error "denied")
            Measurement.Store("a.db", StoreFile.Ours(7, 6))
            Measurement.Damage("a.db", [ "page 3 is lost" ], true)
            Measurement.Server("here", Error "refused")
            Measurement.Tables(10, [], [], [], [ "wrong" ])
            Measurement.Suspended [ struct ("trades", "") ]
            waits 1L 1_000L ValueNone
        ] do
        for one in Diagnosis.judge measured do
            Assert.That(one.Remedy, Is.Not.Empty, $"%A{measured}")

/// Sent, received, and the second that was shown.
let private told (sent: float) (received: float) (second: int64) =
    let moment (at: float) = Instant.ofMicros (int64 (at * 1e6))

    struct (moment sent,
            moment received,
            {
                Interval.Since = seconds second
                Until = seconds (second + 1L)
            })

[<Test>]
let ``answers that are rounded to the second tell the skew together`` () =
    equal ValueNone (Skew.ofAnswers [])
    // One alone leaves more than a second open.
    equal (skew -1.0 0.1) (Skew.ofAnswers [ told 100.0 100.1 100L ])
    // At 100.9 it still was second 100, at 101.0 it was 101.
    equal (skew -0.1 0.1) (Skew.ofAnswers [ told 100.9 100.95 100L; told 101.0 101.1 101L ])
    equal (skew 6.0 6.5) (Skew.ofAnswers [ told 107.0 107.1 100L; told 107.4 107.5 101L ])
    equal (span 6.0) (Skew.ofAnswers [ told 107.0 107.1 100L; told 107.4 107.5 101L ]).Value.Certain
    // The clock was set in between.
    equal ValueNone (Skew.ofAnswers [ told 100.0 100.1 100L; told 200.0 200.1 101L ])

// ---- looking

let private tributary = KillTests.tributary

let private temporary (test: string -> Task<unit>) : Task = task {
    let folder = Directory.CreateTempSubdirectory("tributary-doctor-").FullName

    try
        do! test folder
    finally
        Directory.Delete(folder, true)
}

/// All there is in a folder, to the byte.
let private picture (folder: string) =
    Map.ofList [
        for file in Directory.GetFileSystemEntries(folder, "*", SearchOption.AllDirectories) ->
            file,
            (if File.Exists file then
                 Convert.ToHexString(File.ReadAllBytes file)
             else
                 "folder")
    ]

let private looked (settings: Settings) = task {
    let! seen =
        Doctor.examine (DoctorOptions.Create("a test", settings, [])) ignore CancellationToken.None

    return seen
}

let private of' subject (seen: Observation list) =
    seen |> List.filter (fun one -> one.Subject = subject)

let private one subject seen = of' subject seen |> List.exactlyOne

/// Asks the simulator, and stores into a file of the folder.
let private plain (simulator: Simulator) (folder: string) =
    Settings.defaults Setup.known
    |> Setup.askingAt simulator.Address
    |> Setup.storingAt (Path.Combine(folder, "store.db"))

/// An exchange that nobody has to wait for: the tests that need none switch it off.
let private alone (folder: string) =
    Settings.defaults Setup.known
    |> Setup.onFirst (fun collector -> { collector with Enabled = false })
    |> Setup.storingAt (Path.Combine(folder, "store.db"))

let private written path =
    let store = sound (Sqlite.openForWriting path "main" Synchronous.Normal)
    store

let private many first =
    batch [
        for number in first .. first + 400 do
            book "m1" number (int64 number)
    ]

let private small = {
    SimulatorOptions.Default with
        Markets = 3
}

[<Test>]
let ``where everything is well, everything is looked at and nothing has failed`` () =
    temporary (fun folder -> task {
        use! simulator = Simulator.StartAsync(small, CancellationToken.None)
        do! (written (Path.Combine(folder, "store.db"))).Close()
        let! seen = looked (plain simulator folder)

        equal [] (seen |> List.filter (fun one -> one.Grade <> Grade.Ok && one.Subject <> "disk"))

        equal
            [
                "configuration"
                "disk"
                "sync"
                "store"
                "writer"
                "damage"
                "name gamma_url"
                "exchange gamma_url"
                "exchange clob_url"
                "exchange data_url"
                "exchange rpc_url"
                "live ws_url"
                "clock"
                "limits"
            ]
            (seen |> List.map _.Subject)
    })

[<Test>]
let ``the command says it in lines or in JSON, and with its exit code`` () =
    temporary (fun folder -> task {
        use! simulator = Simulator.StartAsync(small, CancellationToken.None)
        let path = Path.Combine(folder, "store.db")

        let! struct (code, output, errors) =
            tributary [] [ "doctor"; "--store"; path; "--exchange-url"; string simulator.Address ]

        Assert.That(code, Is.EqualTo Terminal.Exit.Done, output + errors)
        Assert.That(output, Does.Contain $"ok       store: {path} is not there yet")
        Assert.That(File.Exists path, Is.False)
        File.WriteAllText(path, "this is no database, but it is long enough to be looked at as one")

        let! struct (code, output, _) =
            tributary [] [
                "doctor"
                "--store"
                path
                "--exchange-url"
                string simulator.Address
                "--json"
            ]

        Assert.That(code, Is.EqualTo Terminal.Exit.Failed)
        use json = JsonDocument.Parse output
        equal "failed" (string (json.RootElement.GetProperty("verdict").GetString()))

        let store =
            json.RootElement.GetProperty("findings").EnumerateArray()
            |> Seq.find (fun one -> one.GetProperty("subject").GetString() = "store")

        equal "failed" (string (store.GetProperty("grade").GetString()))
        Assert.That(store.GetProperty("remedy").GetString(), Does.Contain "store.path")
    })

[<Test>]
let ``looking changes nothing, not even an earlier version or the files beside a store`` () =
    temporary (fun folder -> task {
        let path = Path.Combine(folder, "store.db")
        use! server = startServer ()
        let settings = settingsFor folder server "both"

        using (new Connection(path, Access.Write)) (fun db ->
            db.Execute "PRAGMA journal_mode = WAL"
            SqliteSchema.migrate (List.take 3 SqliteSchema.steps) [] db)

        let before = picture folder

        let! seen =
            looked {
                alone folder with
                    Store = { settings with Path = path }
            }

        equal before (picture folder)
        Assert.That((one "store" seen).Seen, Does.Contain "takes it forward")
        Assert.That((one "questdb tables" seen).Seen, Does.Contain "makes markets")
        Assert.That((one "questdb" seen).Grade, Is.EqualTo Grade.Ok)

        if not isReal then
            let! tables = server.Ask "SELECT * FROM tables()"
            equal [] tables
    })

[<Test>]
let ``who writes to a store is told by the number of the process`` () =
    temporary (fun folder -> task {
        let path = Path.Combine(folder, "store.db")
        let store = written path
        let config = Path.Combine(folder, "config.yaml")
        File.WriteAllText(config, "collectors:\n  polymarket:\n    enabled: false\n")

        let! struct (_, output, errors) =
            tributary [] [ "doctor"; "--store"; path; "--config"; config ]

        if OperatingSystem.IsLinux() then
            Assert.That(output, Does.Contain $"writer: process {Environment.ProcessId} (", errors)

        Assert.That(output, Does.Contain "writes to")
        write store [ batch [ fill "m1" 1 10L ] ]
        do! store.Close()
        let! seen = looked (alone folder)
        Assert.That((one "writer" seen).Seen, Does.StartWith "nobody")
    })

[<Test>]
let ``a damaged store is found out`` () =
    temporary (fun folder -> task {
        let path = Path.Combine(folder, "store.db")
        let store = written path
        write store [ many 1; many 1000 ]
        do! store.Close()

        using (File.OpenWrite path) (fun file ->
            file.Position <- file.Length / 2L
            file.Write(ReadOnlySpan(Array.create 8192 0xAAuy)))

        let! seen = looked (alone folder)
        equal Grade.Failed (Diagnosis.gravest (of' "damage" seen))
    })

[<Test>]
let ``a check that takes too long ends, and says that it has not seen everything`` () =
    temporary (fun folder -> task {
        let path = Path.Combine(folder, "store.db")
        let store = written path
        write store [ for i in 0..9 -> many (1 + i * 1000) ]
        do! store.Close()

        let! seen =
            Doctor.examine
                {
                    DoctorOptions.Create("a test", alone folder, []) with
                        CheckTime = TimeSpan.Zero
                }
                ignore
                CancellationToken.None

        Assert.That((one "damage" seen).Seen, Does.Contain "that there was time for")
        equal Grade.Ok (one "damage" seen).Grade
    })

let private answering (text: string) : HttpContext -> Task =
    fun context -> task { do! context.Response.Body.WriteAsync(Encoding.UTF8.GetBytes text) }

[<Test>]
let ``a clock that is six minutes wrong is a failure, and a page instead of JSON is one`` () =
    temporary (fun folder -> task {
        do!
            serving
                [
                    fun context ->
                        let text =
                            if context.Request.Path.Value = "/clob/time" then
                                string (DateTimeOffset.UtcNow.ToUnixTimeSeconds() - 360L)
                            else
                                "<html>Welcome to the hotel</html>"

                        answering text context
                ]
                (fun address _ -> task {
                    let! seen =
                        looked (
                            Settings.defaults Setup.known
                            |> Setup.askingAt address
                            |> Setup.storingAt (Path.Combine(folder, "store.db"))
                        )

                    equal Grade.Failed (one "clock" seen).Grade
                    Assert.That((one "clock" seen).Seen, Does.Contain "6 min ahead of polymarket")
                    equal Grade.Failed (one "exchange gamma_url" seen).Grade
                    equal Grade.Ok (one "exchange clob_url" seen).Grade
                    equal Grade.Warning (one "exchange rpc_url" seen).Grade
                    equal Grade.Failed (one "live ws_url" seen).Grade
                })
    })

[<Test>]
let ``a table that shows nothing, and rows that wait for long, are found out`` () =
    temporary (fun folder -> task {
        use! server = startServer ()
        let settings = settingsFor folder server "questdb"
        let store = openAs settings
        write store [ batch [ fill "m1" 1 10L ] ]
        flush store
        do! store.Close()
        let! seen = looked { alone folder with Store = settings }
        equal Grade.Ok (one "questdb tables" seen).Grade
        equal Grade.Ok (one "questdb log" seen).Grade
        equal Grade.Ok (one "outbox" seen).Grade

        match server.Fake with
        | None -> ()
        | Some fake ->
            let! _ = server.Ask "ALTER TABLE trades SUSPEND WAL"
            let! seen = looked { alone folder with Store = settings }
            Assert.That((one "questdb log" seen).Seen, Does.StartWith "table trades is suspended")
            do! fake.StopAsync()

        let store = openAs settings
        write store [ batch [ fill "m1" 2 20L ] ]
        do! store.Close()

        let! seen =
            Doctor.examine
                {
                    DoctorOptions.Create("a test", { alone folder with Store = settings }, []) with
                        Clock = {
                            new TimeProvider() with
                                override _.GetUtcNow() = DateTimeOffset.UtcNow.AddHours 1.0
                        }
                }
                ignore
                CancellationToken.None

        if not isReal then
            equal Grade.Failed (one "questdb" seen).Grade
            equal Grade.Warning (one "outbox" seen).Grade
            Assert.That((one "outbox" seen).Seen, Does.Contain "1 row")
    })

[<Test>]
let ``an invalid configuration exits with 78, and what can be looked at is`` () =
    temporary (fun folder -> task {
        use! simulator = Simulator.StartAsync(small, CancellationToken.None)
        let config = Path.Combine(folder, "config.yaml")
        let path = Path.Combine(folder, "other.db")
        File.WriteAllText(config, $"store:\n  path: {path}\n  sinchronous: full\nintake:\n  capacity: 0\n")

        let! struct (code, output, _) =
            tributary [] [ "doctor"; "--config"; config; "--exchange-url"; string simulator.Address ]

        Assert.That(code, Is.EqualTo Terminal.Exit.Configuration)
        Assert.That(output, Does.Contain $"failed   configuration: {config}:3:3")
        Assert.That(output, Does.Contain $"failed   configuration: {config}:5:")
        Assert.That(output, Does.Contain $"{path} is not there yet")
        Assert.That(output, Does.Contain "ok       clock")
    })

[<Test>]
let ``no password and no key is printed, whatever is wrong with what is behind it`` () =
    temporary (fun folder -> task {
        let config = Path.Combine(folder, "config.yaml")

        let secrets = [
            "RPC_KEY", "k9e8y7hush6g5f4d3s2a1"
            "MY_HOST", "hushhost.invalid"
            "QDB_PASSWORD", "hushword"
            "MY_PROXY", "http://me:hushproxy@127.0.0.1:1"
        ]

        File.WriteAllText(
            config,
            $$"""
store:
  kind: both
  path: {{folder}}/store.db
  questdb:
    connection: http::addr=127.0.0.1:1;username=me;password=${QDB_PASSWORD};
collectors:
  polymarket:
    gamma_url: http://${MY_HOST}/gamma
    rpc_url: http://127.0.0.1:1/v2/${RPC_KEY}
    clob_url: http://127.0.0.1:1
    data_url: http://127.0.0.1:1
    ws_url: ws://127.0.0.1:1
    proxy: ${PROXY_IF_ANY:}
"""
        )

        for proxy in [ []; [ "PROXY_IF_ANY", "http://me:hushproxy@127.0.0.1:1" ] ] do
            for form in [ []; [ "--json" ]; [ "--verbose" ] ] do
                let! struct (code, output, errors) =
                    tributary (secrets @ proxy) ([ "doctor"; "--config"; config ] @ form)

                Assert.That(code, Is.EqualTo Terminal.Exit.Failed, output + errors)
                Assert.That((output + errors).ToLowerInvariant(), Does.Not.Contain "hush")
                Assert.That(output, Does.Contain "${RPC_KEY}")

        let! struct (_, output, errors) =
            tributary secrets [
                "doctor"
                "--config"
                config
                "--exchange-url"
                "http://me:hushtyped@127.0.0.1:1"
                "--questdb"
                "http::addr=127.0.0.1:1;username=me;password=hushtyped;"
            ]

        Assert.That((output + errors).ToLowerInvariant(), Does.Not.Contain "hush")
    })

[<Test>]
let ``questions go through the proxy, which looks the names up itself`` () =
    temporary (fun folder -> task {
        do!
            serving [ answering "[]" ] (fun proxy heard -> task {
                let settings =
                    Settings.defaults Setup.known
                    |> Setup.askingAt (Uri "http://exchange.invalid")
                    |> Setup.storingAt (Path.Combine(folder, "store.db"))
                    |> Setup.onFirst (fun collector -> {
                        collector with
                            Proxy = Some(Secret.ofText (string proxy))
                            Live = { collector.Live with Enabled = false }
                    })

                let! seen = looked settings
                equal Grade.Ok (one "exchange gamma_url" seen).Grade
                equal [] (of' "name gamma_url" seen)
                Assert.That(Seq.length heard, Is.GreaterThanOrEqualTo 4)
            })
    })
