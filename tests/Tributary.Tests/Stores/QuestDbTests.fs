/// QuestDB as a store, over real sockets, against a server that misbehaves: whatever it does, every row is there once in the end, or
/// says why it is not.
module Tributary.Tests.Stores.QuestDbTests

open System
open System.Collections.Concurrent
open System.Diagnostics
open System.IO
open System.Net.Security
open System.Net.Sockets
open System.Security.Cryptography
open System.Security.Cryptography.X509Certificates
open System.Threading
open System.Threading.Tasks
open FsCheck
open FsCheck.FSharp
open Microsoft.Extensions.Logging
open NUnit.Framework
open FsCheck.NUnit
open Tributary
open Tributary.Stores
open Tributary.Stores.QuestDb
open Tributary.FakeQuestDb
open Tributary.Tests
open Tributary.Tests.Stores.Vocabulary
open Tributary.Tests.Stores.QuestDbSupport

/// A server, an outbox in a folder, and the store over both.
type private Bench(change: FakeQuestDbOptions -> FakeQuestDbOptions) =
    let folder = temporaryFolder ()

    let server =
        (startFake (fun options ->
            change {
                options with
                    CreateTables = false
                    CreateColumns = false
                    DataFolder = Some(Path.Combine(folder, "server"))
            }))
            .Result

    let lines = new Words()
    member _.Folder = folder
    member _.Server = server
    member _.Fake = server.Fake.Value
    member _.Lines = lines

    member this.Open(?adjust: StoreSettings -> StoreSettings) : Store =
        let settings = settingsFor folder server "questdb" |> defaultArg adjust id

        match Store.openForWriting settings "main" TimeProvider.System lines with
        | Ok store -> store
        | Error fault -> failwith $"{fault}"

    /// The same server, with other options.
    member _.Connected (more: string) (settings: StoreSettings) : StoreSettings =
        let keyOf (option: string) = option.Split('=')[0]

        let options (text: string) =
            text.Split(';', StringSplitOptions.RemoveEmptyEntries)

        let given = options more |> Array.map keyOf

        let kept =
            server.Connection.Replace("http::", "")
            |> options
            |> Array.filter (fun option -> not (Array.contains (keyOf option) given))

        let all = String.Join(";", Array.append kept (options more))

        {
            settings with
                QuestDb.Connection = sound (Secret.ofConnection $"http::{all};")
        }

    /// Waits until something is so, while things happen elsewhere.
    member _.Until(what: string, condition: unit -> bool) =
        let watch = Stopwatch.StartNew()

        let isSo () =
            try
                condition ()
            with :? QuestDbException ->
                false

        while not (isSo ()) do
            if watch.Elapsed > TimeSpan.FromSeconds 20.0 then
                let log = String.Join("\n", lines.All)
                failwith $"it took too long until {what}\n{log}"

            Thread.Sleep 10

    /// Nobody asks for anything that may fail here.
    member this.Flush(store: Store) =
        try
            flush store
        with error ->
            let log = String.Join("\n", lines.All)
            failwith $"{error.Message}\n{log}"

    interface IDisposable with
        member _.Dispose() =
            (server :> IAsyncDisposable).DisposeAsync().AsTask().Wait()
            Directory.Delete(folder, true)

let private plain = id

/// Some rows of every kind, in three batches.
let private contents () = [
    batch [
        described market
        fill "m1" 1 10L
        fill "m1" 2 20L
        book "m1" 1 10L
        delta "m1" 0 11L
        delta "m1" 1 11L
        point "m1" 11L
    ]
    batch [
        hole gap
        fill "m2" 1 15L
        book "m2" 2 5L
        delta "m2" 0 5L
        link 1 2
        rejected "no side" "{}" "/a"
        measured "rows" 1.0 5L
    ]
    batch [
        fill "m2" 2 30L
        paid "16.5"
        point "m2" 30L
        hole { gap with Until = ValueSome(at 300L) }
        book "m1" 3 30L
        delta "m1" 0 12L
        link 1 3
    ]
]

let private expected =
    lazy
        (let store = Memory.create "main"
         write store (contents ())
         everything store)

/// Everything is there, once, and what the server misses is in quarantine for a reason.
let private holds (bench: Bench) (store: Store) =
    bench.Flush store

    let ours (gaps: RecordedGap list) =
        gaps |> List.filter (fun gap -> string gap.Gap.Exchange <> "questdb")

    let trades, books, changes, gaps, markets, quarantine, checkpoints =
        everything (patient store)

    let trades', books', changes', gaps', markets', quarantine', checkpoints' =
        expected.Value

    equal trades' trades
    equal books' books
    equal changes' changes
    equal gaps' (ours gaps)
    equal markets' markets
    equal quarantine' quarantine
    equal checkpoints' checkpoints

[<Test>]
let ``what was written before the server came is there when it has come`` () =
    use bench = new Bench(plain)
    bench.Fake.StopAsync().Wait()
    let store = bench.Open()
    write store (contents ())
    bench.Until("it is said that QuestDB is away", fun () -> not (bench.Lines.With("waits in").IsEmpty))
    bench.Fake.StartAgainAsync(CancellationToken.None).Wait()
    holds bench store
    equal 1 (bench.Lines.With "waits in").Length
    equal 1 (bench.Lines.With "takes rows again after").Length
    close store

let private script: (string * Fault list) list = [
    "aborts", [ Fault.onWrite FaultKind.Abort |> Fault.times 3 ]
    "is slow",
    [
        Fault.onWrite (FaultKind.Slow(TimeSpan.FromMilliseconds 150.0)) |> Fault.times 4
    ]
    "never answers", [ Fault.onWrite FaultKind.Hang |> Fault.times 2 ]
    "commits and loses the answer", [ Fault.onWrite FaultKind.CommitThenAbort |> Fault.times 4 ]
    "closes in the middle of the body", [ Fault.onWrite FaultKind.CloseMidBody |> Fault.times 3 ]
    for status, code in
        [
            500, "internal error"
            503, "retry operation"
            504, "timeout"
            507, "insufficient storage"
            509, "bandwidth"
            523, "origin"
            524, "timeout"
            529, "overloaded"
            599, "network"
            421, "not accepting writes"
            404, "not found"
            401, "unauthorized"
        ] do
        $"answers {status}",
        [
            Fault.onWrite (FaultKind.Refuse(status, code, code, ValueNone)) |> Fault.times 5
        ]
    "answers 413",
    [
        Fault.onWrite (FaultKind.Refuse(413, "request too large", "too large", ValueNone))
        |> Fault.table "trades"
    ]
    "answers 500 for a row, twice",
    [
        Fault.onWrite (FaultKind.Refuse(500, "internal error", "oops", ValueSome 1))
        |> Fault.table "trades"
        |> Fault.times 2
    ]
    "answers in HTML",
    [
        Fault.onWrite (FaultKind.Answer(502, "text/html", "<html>bad gateway</html>"))
        |> Fault.times 4
    ]
    "has no settings yet",
    [
        Fault.on "/settings" (FaultKind.Refuse(503, "", "starting", ValueNone))
        |> Fault.times 3
    ]
    "aborts when asked for its settings", [ Fault.on "/settings" FaultKind.Abort |> Fault.times 3 ]
    "refuses statements at first", [ Fault.execFails "busy" |> Fault.times 5 ]
    "aborts statements", [ Fault.onExec FaultKind.Abort |> Fault.times 5 ]
]

let private names = script |> List.map fst |> List.toArray

[<Test; TestCaseSource "names">]
let ``every row is stored once by a server that`` (fault: string) =
    use bench = new Bench(plain)

    for fault in script |> List.find (fun (name, _) -> name = fault) |> snd do
        bench.Fake.Faults.Add fault

    let store = bench.Open(bench.Connected "request_timeout=300;")
    write store (contents ())
    holds bench store
    equal [] (result (store.Quarantine()) |> List.filter (fun row -> row.Exchange = "questdb"))
    close store

[<Test>]
let ``rows that will never be taken are kept in quarantine with the reason, and all others are stored`` () =
    use bench = new Bench(plain)
    // By their transactions.
    for poison in [ 3; 7; 8 ] do
        bench.Fake.Faults.Add(Fault.onWrite (FaultKind.RejectRow(transaction poison)))

    let store = bench.Open()
    write store [ batch [ for number in 1..10 -> fill "m1" number (int64 number) ] ]

    bench.Fake.Faults.Add(
        Fault.onWrite (FaultKind.Refuse(500, "internal error", "bad unit", ValueSome 1))
        |> Fault.containing (transaction 21)
        |> Fault.always
    )

    bench.Flush store
    write store [ batch [ fill "m1" 21 21L; fill "m1" 22 22L ] ]
    bench.Flush store
    bench.Flush store

    equal
        [ 1L; 2L; 4L; 5L; 6L; 9L; 10L; 22L ]
        (trades store |> List.map (fun row -> row.At.Micros - (at 0L).Micros))

    let kept = result (store.Quarantine())
    equal 4 kept.Length
    equal [ "questdb/trades" ] (kept |> List.map _.Source |> List.distinct)

    for row in kept do
        let line = Text.Encoding.UTF8.GetString row.Bytes
        isTrue (line.StartsWith "trades,")

    for poison in [ 3; 7; 8; 21 ] do
        equal
            1
            (kept
             |> List.filter (fun row -> (Text.Encoding.UTF8.GetString row.Bytes).Contains(transaction poison)))
                .Length

    close store

[<Test>]
let ``a batch that makes the server fail is searched, and only its bad row stays behind`` () =
    use bench = new Bench(plain)

    bench.Fake.Faults.Add(
        Fault.onWrite (FaultKind.Refuse(500, "internal error", "commit failed", ValueNone))
        |> Fault.containing (transaction 5)
        |> Fault.always
    )

    let store = bench.Open(bench.Connected "retry_timeout=50;")
    write store [ batch [ for number in 1..9 -> fill "m1" number (int64 number) ] ]
    bench.Flush store
    bench.Flush store
    equal 8 (trades store).Length
    equal [ "commit failed (HTTP 500)" ] (result (store.Quarantine()) |> List.map _.Reason)
    close store

[<Test>]
let ``a look at the table that fails while a backlog goes out mixes up no rows`` () =
    use bench = new Bench(plain)
    bench.Fake.StopAsync().Wait()
    let store = bench.Open(bench.Connected "auto_flush_rows=10;")

    for first in 0..10..90 do
        write store [
            batch [ for number in first .. first + 9 -> fill "m1" number (int64 number) ]
        ]

    bench.Fake.Faults.Add(Fault.onWrite (FaultKind.RejectRow(transaction 15)))

    bench.Fake.Faults.Add(
        Fault.onExec FaultKind.Abort
        |> Fault.containing "table_columns('trades')"
        |> Fault.after 1
        |> Fault.times 3
    )

    bench.Fake.StartAgainAsync(CancellationToken.None).Wait()
    bench.Flush store

    equal
        (List.except [ 15L ] [ 0L .. 99L ])
        (trades store |> List.map (fun row -> row.At.Micros - (at 0L).Micros))

    bench.Flush store
    equal 1 (result (store.Quarantine())).Length
    close store

[<Test>]
let ``an outbox that drops its oldest rows while they go out comes to its end, and says what is missing`` () =
    use bench = new Bench(plain)
    // Ten rows in so long a time: far fewer than come in.
    bench.Fake.Faults.Add(Fault.onWrite (FaultKind.Slow(TimeSpan.FromMilliseconds 300.0)) |> Fault.always)

    let small (settings: StoreSettings) = {
        bench.Connected "auto_flush_rows=10;" settings with
            StoreSettings.QuestDb.OutboxSize = 20_000L
            StoreSettings.QuestDb.OutboxFull = OutboxFull.DropOldest
    }

    let store = bench.Open small
    let mutable written = 0

    while written < 2_000 do
        write store [
            batch [ for number in written .. written + 4 -> fill "m1" number (int64 number) ]
        ]

        written <- written + 5

    bench.Fake.Faults.Clear()
    bench.Flush store
    let there = trades store |> List.map (fun row -> row.At.Micros) |> Set.ofList

    let missing = [
        for number in 0 .. written - 1 do
            let moment = (at (int64 number)).Micros

            if not (there.Contains moment) then
                moment
    ]

    let dropped =
        gaps store
        |> List.map _.Gap
        |> List.filter (fun gap -> gap.Cause = Cause.Overrun)

    Assert.That(missing, Is.Not.Empty)
    Assert.That(store.Backlog().Dropped, Is.GreaterThanOrEqualTo(int64 missing.Length))

    for moment in missing do
        isTrue (
            dropped
            |> List.exists (fun gap -> gap.Since.Micros <= moment && moment < gap.Until.Value.Micros)
        )

    close store

[<Test>]
let ``roots that cannot be read are said when the store is opened, and closing twice is closing once`` () =
    use bench = new Bench(plain)

    let settings = settingsFor bench.Folder bench.Server "questdb" |> bench.Connected ""

    let wrong: StoreSettings = {
        settings with
            QuestDb.Connection = sound (Secret.ofConnection "https::addr=localhost:1;tls_roots=/nowhere.pem;")
    }

    match Store.openForWriting wrong "main" TimeProvider.System bench.Lines with
    | Ok _ -> Assert.Fail "it was opened"
    | Error fault -> isTrue ((string fault).Contains "tls_roots cannot be read")

    let store = bench.Open()
    write store (contents ())
    close store
    close store

[<Test>]
let ``a table in trouble holds up no other, and loses nothing`` () =
    use bench = new Bench(plain)

    bench.Fake.Faults.Add(
        Fault.onWrite (FaultKind.Refuse(500, "internal error", "disk full", ValueNone))
        |> Fault.table "trades"
        |> Fault.always
    )

    let store = bench.Open(bench.Connected "retry_timeout=20;")
    write store (contents ())
    bench.Until("the books are there", fun () -> (books store).Length = 3)
    bench.Until("it is said", fun () -> not (bench.Lines.With("table trades").IsEmpty))
    bench.Fake.Faults.Clear()
    holds bench store
    close store

[<Test>]
let ``a server that loses what it had not synced gets it again`` () =
    use bench = new Bench(plain)
    let store = bench.Open()
    write store (contents ())
    bench.Flush store
    // All of it, tables and all.
    bench.Fake.ForgetUnsynced(TimeSpan.FromHours 1.0)

    bench.Until(
        "it is there again",
        fun () ->
            try
                (trades store).Length = 4
            with _ ->
                false
    )

    holds bench store
    close store

/// Sends rows that nobody saw in the log before the server's power went.
let private sentUnseen (bench: Bench) (rows: Batch list) =
    let rare (settings: StoreSettings) = {
        settings with
            StoreSettings.QuestDb.Look = TimeSpan.FromHours 1.0
    }

    let store = bench.Open rare
    write store [ batch [ fill "m1" 1 10L ] ]
    bench.Flush store
    Thread.Sleep 50
    let from = DateTimeOffset.UtcNow
    Thread.Sleep 5

    for one in rows do
        let taken = bench.Fake.Counters.RowsAcknowledged["trades"]
        write store [ one ]

        bench.Until(
            "the server has taken it",
            fun () -> bench.Fake.Counters.RowsAcknowledged["trades"] > taken
        )

    bench.Fake.ForgetUnsynced(DateTimeOffset.UtcNow - from)
    bench.Fake.StopAsync().Wait()
    bench.Fake.StartAgainAsync(CancellationToken.None).Wait()
    store

[<Test>]
let ``what the server lost before anybody saw it in the log is sent again`` () =
    use bench = new Bench(plain)

    let store =
        sentUnseen bench [ batch [ fill "m1" 2 20L ]; batch [ fill "m1" 3 30L ] ]

    bench.Flush store
    equal 3 (trades store).Length
    close store

[<Test>]
let ``new rows do not hide that the server lost old ones`` () =
    use bench = new Bench(plain)

    let store =
        sentUnseen bench [ batch [ fill "m1" 2 20L ]; batch [ fill "m1" 3 30L ] ]

    // As many transactions as were lost, before anybody looks.
    for number in 4..6 do
        let taken = bench.Fake.Counters.RowsAcknowledged["trades"]
        write store [ batch [ fill "m1" number (10L * int64 number) ] ]

        bench.Until(
            "the server has taken it",
            fun () -> bench.Fake.Counters.RowsAcknowledged["trades"] > taken
        )

    bench.Flush store
    equal 6 (trades store).Length
    close store

[<Test>]
let ``a table that is dropped is made again, and what is still held is sent again`` () =
    use bench = new Bench(plain)
    let store = bench.Open()
    write store (contents ())
    bench.Flush store
    bench.Fake.Execute "DROP TABLE trades" |> ignore

    bench.Until(
        "it is there again",
        fun () ->
            try
                (trades store).Length = 4
            with _ ->
                false
    )

    holds bench store
    equal 1 (bench.Lines.With "is not there any more").Length
    close store

[<Test>]
let ``a suspended table is a gap, a note and a line in the log, until it is resumed`` () =
    use bench = new Bench(plain)
    let store = bench.Open()
    write store [ batch [ fill "m1" 1 10L ] ]
    bench.Flush store

    bench.Fake.Execute "ALTER TABLE trades SUSPEND WAL WITH 'DISK FULL', 'no space left'"
    |> ignore

    write store [ batch [ fill "m1" 2 20L ] ]

    let healthGaps () =
        gaps store
        |> List.map _.Gap
        |> List.filter (fun gap -> string gap.Exchange = "questdb")

    bench.Until("the gap is there", fun () -> not (healthGaps ()).IsEmpty)
    let gap = (healthGaps ()).Head

    equal
        ("trades", Stream.Trades, Cause.StoreFailed, ValueNone)
        (string gap.Market, gap.Stream, gap.Cause, gap.Until)

    let said = (bench.Lines.With "is suspended").Head
    isTrue (said.Contains "DISK FULL: no space left" && said.Contains "RESUME WAL")
    isTrue ((result (store.Status())).Notes |> List.exists _.Contains("is suspended"))
    equal 1 (trades store).Length
    equal [] (result (store.OpenGaps())) // it is no flow's
    bench.Fake.Execute "ALTER TABLE trades RESUME WAL" |> ignore
    bench.Flush store
    bench.Until("the gap is closed", fun () -> (healthGaps ()).Head.Until.IsSome)
    equal 2 (trades store).Length
    equal 1 (healthGaps ()).Length
    close store

[<Test>]
let ``entries are forgotten when they can be read and are old enough, and not before`` () =
    use bench = new Bench(plain)

    let soon (settings: StoreSettings) = {
        settings with
            StoreSettings.QuestDb.Keep = TimeSpan.Zero
    }

    let waiting () =
        use file = new Connection(Path.Combine(bench.Folder, "outbox.db"), Access.Read)
        file.Number "SELECT count(*) FROM outbox"

    let store = bench.Open()
    write store (contents ())
    bench.Flush store
    isTrue (waiting () > 0L)
    close store
    bench.Fake.Execute "ALTER TABLE trades SUSPEND WAL" |> ignore
    let store = bench.Open soon
    write store [ batch [ fill "m1" 40 40L ] ]

    bench.Until(
        "all but trades is forgotten",
        fun () ->
            use file = new Connection(Path.Combine(bench.Folder, "outbox.db"), Access.Read)
            file.Number "SELECT count(*) FROM outbox WHERE kind <> 'trades'" = 0L
    )

    isTrue (waiting () > 0L)
    bench.Fake.Execute "ALTER TABLE trades RESUME WAL" |> ignore
    bench.Until("trades are forgotten, too", fun () -> waiting () = 0L)
    equal 5 (trades store).Length
    close store

[<Test>]
let ``a flush looks at no table while its rows are on their way`` () =
    use bench = new Bench(plain)

    // Only who flushes, and who connects, has a reason to look.
    let rare (settings: StoreSettings) = {
        settings with
            StoreSettings.QuestDb.Look = TimeSpan.FromHours 1.0
    }

    bench.Fake.Faults.Add(Fault.onWrite (FaultKind.Slow(TimeSpan.FromMilliseconds 400.0)))
    let store = bench.Open rare
    write store [ batch [ fill "m1" 1 10L ] ]
    bench.Flush store

    let requests = bench.Fake.Counters.Requests

    let before, after =
        requests
        |> List.splitAt (requests |> List.findIndex (fun request -> request.Path = "/write"))

    let looks (requests: Heard list) =
        requests
        |> List.filter (fun request -> request.Statement = "SELECT * FROM wal_tables()")
        |> List.length

    equal 1 (looks before) // of the new connection
    Assert.That(looks after, Is.GreaterThan 0)
    equal 1 (trades store).Length
    close store

[<Property(MaxTest = 300)>]
let ``pages give every row once, in the order of time, however many there are of a moment`` () =
    let cases = gen {
        let! most = Gen.choose (1, 6)
        let! moments = Gen.listOf (Gen.choose (-3, 9))
        let! since = Gen.choose (-4, 5)
        let! until = Gen.choose (0, 11)
        return most, moments, since, until
    }

    Prop.forAll (Arb.fromGen cases) (fun (most, moments, since, until) ->
        let moment (micros: int) = Instant.ofMicros (int64 micros)
        let rows = moments |> List.indexed |> List.sortBy snd
        let taken = ResizeArray()

        let ask (since: Instant) (until: Instant) limit =
            rows
            |> List.filter (fun (_, at) -> moment at >= since && moment at < until)
            |> List.truncate limit
            |> Task.FromResult

        Pages.each most ask (snd >> moment) (moment since) (moment until) taken.Add
        |> result

        equal (rows |> List.filter (fun (_, at) -> at >= since && at < until) |> List.map snd) [
            for _, at in taken -> at
        ]

        equal taken.Count (taken |> Seq.distinct |> Seq.length))

[<TestCase(1, false); TestCase(2, false); TestCase(3, false); TestCase(3, true)>]
let ``servers of every version hold the same`` (version: int) (decimals: bool) =
    use bench = new Bench(fun options -> { options with MaxProtocol = version })

    let store =
        bench.Open(fun settings -> {
            settings with
                StoreSettings.QuestDb.Decimals = decimals
        })

    write store (contents ())
    holds bench store
    close store

[<Test>]
let ``decimals need a server that has them`` () =
    use bench = new Bench(fun options -> { options with MaxProtocol = 2 })

    let store =
        bench.Open(fun settings -> {
            settings with
                StoreSettings.QuestDb.Decimals = true
        })

    write store (contents ())
    bench.Until("it is said", fun () -> not (bench.Lines.With("they need 3").IsEmpty))
    close store

[<Test>]
let ``an old server without settings gets version 1`` () =
    use bench =
        new Bench(fun options -> {
            options with
                MaxProtocol = 1
                HasSettings = false
        })

    let store = bench.Open()
    write store (contents ())
    holds bench store
    close store

[<Test>]
let ``requests are compressed when the connection says so`` () =
    use bench = new Bench(plain)
    let store = bench.Open(bench.Connected "gzip=on;")
    write store (contents ())
    holds bench store
    close store

[<Test>]
let ``an address that is dead is passed over`` () =
    use bench = new Bench(plain)

    let store =
        bench.Open(fun settings -> {
            settings with
                StoreSettings.QuestDb.Connection =
                    sound (
                        Secret.ofConnection
                            $"http::addr=127.0.0.1:1,127.0.0.1:{bench.Fake.Port};retry_timeout=400;auto_flush_interval=10;"
                    )
        })

    write store (contents ())
    holds bench store
    close store

/// A door with a certificate of its own in front of the server.
let private withTls (bench: Bench) (test: int -> string -> unit) =
    use key = RSA.Create 2048

    let request =
        CertificateRequest("CN=localhost", key, HashAlgorithmName.SHA256, RSASignaturePadding.Pkcs1)

    let names = SubjectAlternativeNameBuilder()
    names.AddDnsName "localhost"
    request.CertificateExtensions.Add(names.Build())
    request.CertificateExtensions.Add(X509BasicConstraintsExtension(true, false, 0, true))
    let today = DateTimeOffset.UtcNow
    use signed = request.CreateSelfSigned(today.AddDays -1.0, today.AddDays 1.0)

    use certificate =
        X509CertificateLoader.LoadPkcs12(signed.Export X509ContentType.Pfx, null)

    let pem = Path.Combine(bench.Folder, "roots.pem")
    File.WriteAllText(pem, signed.ExportCertificatePem())
    use listener = new TcpListener(Net.IPAddress.Loopback, 0)
    listener.Start()

    let serve (client: TcpClient) : Task = task {
        use client = client
        use tls = new SslStream(client.GetStream())
        do! tls.AuthenticateAsServerAsync certificate
        use behind = new TcpClient("127.0.0.1", bench.Fake.Port)
        let there = behind.GetStream()
        let! _ = Task.WhenAny(tls.CopyToAsync there, there.CopyToAsync tls)
        ()
    }

    let accepting = task {
        try
            while true do
                let! client = listener.AcceptTcpClientAsync()
                serve client |> ignore
        with
        | :? SocketException
        | :? ObjectDisposedException -> ()
    }

    test (listener.LocalEndpoint :?> Net.IPEndPoint).Port pem
    listener.Stop()
    accepting.Wait()

let private tls port more (settings: StoreSettings) : StoreSettings = {
    settings with
        QuestDb.Connection =
            sound (
                Secret.ofConnection
                    $"https::addr=localhost:{port};retry_timeout=400;auto_flush_interval=10;{more}"
            )
}

[<Test>]
let ``TLS with roots of one's own works, and a certificate of somebody else is refused`` () =
    use bench = new Bench(plain)

    withTls bench (fun port pem ->
        let store = bench.Open(tls port "")
        write store (contents ())
        bench.Until("it is said", fun () -> not (bench.Lines.With("cannot be reached").IsEmpty))
        close store
        equal [] (bench.Lines.With "NOT checked")
        let store = bench.Open(tls port $"tls_roots={pem};")
        holds bench store
        close store)

[<Test>]
let ``who does not check certificates is told so loudly`` () =
    use bench = new Bench(plain)

    withTls bench (fun port _ ->
        let store = bench.Open(tls port "tls_verify=unsafe_off;")
        write store (contents ())
        holds bench store
        equal 1 (bench.Lines.With "Warning: QuestDB: the server's certificate is NOT checked").Length
        close store)

[<Test>]
let ``a wrong password is one clear line without it, and what is collected waits`` () =
    use bench =
        new Bench(fun options -> {
            options with
                User = Some("admin", "quest")
        })

    let store = bench.Open(bench.Connected "username=admin;password=wrong-and-secret;")

    write store (contents ())
    bench.Until("it is said", fun () -> not (bench.Lines.With("username and password").IsEmpty))
    close store
    equal 1 (bench.Lines.With "waits in").Length
    equal [] (bench.Lines.With "wrong-and-secret")

    let store = bench.Open(bench.Connected "username=admin;password=quest;")

    holds bench store
    close store

[<Test>]
let ``a bearer token opens the door`` () =
    use bench =
        new Bench(fun options -> {
            options with
                Token = Some "t-o-k-e-n"
        })

    let store = bench.Open(bench.Connected "token=t-o-k-e-n;")
    write store (contents ())
    holds bench store
    close store

[<Test>]
let ``a server that is read-only is waited for, with the remedy`` () =
    use bench = new Bench(plain)

    bench.Fake.Faults.Add(
        Fault.onWrite (FaultKind.Refuse(421, "not accepting writes", "read only", ValueNone))
        |> Fault.always
    )

    let store = bench.Open(bench.Connected "retry_timeout=20;")
    write store (contents ())
    bench.Until("it is said", fun () -> not (bench.Lines.With("read-only").IsEmpty))
    bench.Fake.Faults.Clear()
    holds bench store
    close store

[<Test>]
let ``a table of somebody else is refused with the remedy, and all others are written`` () =
    use bench = new Bench(plain)

    bench.Fake.Execute "CREATE TABLE trades (ts TIMESTAMP, price LONG) TIMESTAMP(ts) PARTITION BY DAY WAL"
    |> ignore

    let store = bench.Open()
    write store (contents ())
    bench.Until("the books are there", fun () -> (books store).Length = 3)
    bench.Until("it is said", fun () -> not (bench.Lines.With("held back").IsEmpty))
    let said = (bench.Lines.With "held back").Head
    isTrue (said.Contains "rename the table")
    close store

[<Test>]
let ``a table that lacks a column and its keys is mended`` () =
    use bench = new Bench(plain)

    let trades' = Tables.all 3 false |> List.find (fun table -> table.Name = "trades")

    let before: Tables.Table = {
        trades' with
            Columns = trades'.Columns |> List.filter (fun column -> column.Name <> "flags")
    }

    bench.Fake.Execute((Tables.create ValueNone before).Replace("\"trade_id\", ", ""))
    |> ignore

    let store = bench.Open()
    write store (contents ())
    holds bench store
    equal 2 (bench.Lines.With "mended").Length
    close store

[<Test>]
let ``old rows expire after the configured time, and bars are made on request`` () =
    use bench = new Bench(plain)

    let store =
        bench.Open(fun settings -> {
            settings with
                StoreSettings.QuestDb.Ttl = Some(TimeSpan.FromDays 36_000.0)
                StoreSettings.QuestDb.Views = true
        })

    write store (contents ())
    holds bench store
    equal 3L (bench.Server.Number "SELECT count(*) FROM materialized_views()").Result
    close store

[<Test>]
let ``times that the server cannot hold are kept in quarantine`` () =
    use bench = new Bench(plain)
    let store = bench.Open()

    write store [
        batch [
            fill "m1" 1 10L
            fill "m1" 2 (-2_000_000_000_000_000L) // before 1970
            fill "m1" 3 260_000_000_000_000_000L // after 9999
        ]
    ]

    bench.Flush store
    bench.Flush store
    equal 1 (trades store).Length
    equal 2 (result (store.Quarantine())).Length
    close store

[<Test>]
let ``with both stores on, what was written while the server was away comes from the file`` () =
    use bench = new Bench(plain)
    bench.Fake.StopAsync().Wait()
    let settings = settingsFor bench.Folder bench.Server "both"

    let openBoth () =
        sound (Store.openBoth settings "main" TimeProvider.System bench.Lines)

    let store = openBoth ()
    write store (contents ())
    equal expected.Value (everything store)
    close store
    equal false (File.Exists settings.QuestDb.Outbox)
    bench.Fake.StartAgainAsync(CancellationToken.None).Wait()
    let store = openBoth ()
    bench.Flush store
    let remote = sound (Store.openForReading settings TimeProvider.System)
    equal expected.Value (everything remote)
    close remote
    close store

[<Test>]
let ``whoever reads the server can wait until all that was written is there`` () =
    use bench = new Bench(plain)
    let store = bench.Open()
    let settings = settingsFor bench.Folder bench.Server "questdb"
    let remote = sound (Store.openForReading settings TimeProvider.System)

    let isThere (remote: Store) =
        use soon = new CancellationTokenSource(TimeSpan.FromSeconds 1.0)

        try
            remote.Flush(soon.Token).Wait()
            true
        with :? AggregateException ->
            false

    bench.Fake.StopAsync().Wait()
    write store [ batch [ fill "m1" 1 10L ] ]
    isTrue (not (isThere remote))
    bench.Fake.StartAgainAsync(CancellationToken.None).Wait()
    bench.Flush store
    isTrue (isThere remote)
    equal 1 (trades remote).Length
    close remote
    close store
    // What was seen there is known without the writer.
    let remote = sound (Store.openForReading settings TimeProvider.System)
    isTrue (isThere remote)
    close remote

[<Test>]
let ``a connection that cannot be used is refused at once`` () =
    use bench = new Bench(plain)

    let settings = {
        settingsFor bench.Folder bench.Server "questdb" with
            QuestDb.Connection = Secret.ofText "file:/nowhere/at/all"
    }

    match Store.openForReading settings TimeProvider.System with
    | Ok _ -> Assert.Fail "it was opened"
    | Error fault -> isTrue ((string fault).Contains "it must begin with http:: or https::")

// ---- what a real server is asked, too, when one is given

/// The test, with a folder and a server without tables of ours.
let private onAnyServer (test: string -> TestServer -> unit) =
    let folder = temporaryFolder ()
    let server = startServer().Result

    try
        test folder server
    finally
        (server :> IAsyncDisposable).DisposeAsync().AsTask().Wait()
        Directory.Delete(folder, true)

let private holdsAll (store: Store) =
    let trades', books', changes', gaps', markets', quarantine', _ = expected.Value

    let trades, books, changes, gaps, markets, quarantine, _ =
        everything (patient store)

    equal trades' trades
    equal books' books
    equal changes' changes
    equal gaps' gaps
    equal markets' markets
    equal quarantine' quarantine

[<Test>]
let ``the same batch three times, and once more by the next run, is there once`` () =
    onAnyServer (fun folder server ->
        let settings = settingsFor folder server "questdb"
        let store = openAs settings

        for _ in 1..3 do
            write store (contents ())
            flush store

        close store
        // Another machine, which knows of nothing.
        File.Delete settings.QuestDb.Outbox
        let store = openAs settings
        write store (contents ())
        holdsAll store
        equal 4L (server.Number "SELECT count(*) FROM trades").Result
        equal 3L (server.Number "SELECT count(*) FROM orderbook_snapshots").Result
        close store)

[<Test>]
let ``a restart of the server in the middle loses nothing`` () =
    onAnyServer (fun folder server ->
        let store = openAs (settingsFor folder server "questdb")

        for content in contents () do
            write store [ content ]
            restart server

        holdsAll store
        close store)

[<Test>]
let ``arrays of any length come back as they went`` () =
    onAnyServer (fun folder server ->
        let store = openAs (settingsFor folder server "questdb")

        let side count = [ for i in 1..count -> $"0.%04d{i}", $"{i}.25" ]

        let sent =
            batch [
                for count in [ 0; 1; 2; 50; 999 ] do
                    bookOf "m1" (side count) (side (999 - count)) (hash count) (int64 count)
            ]

        write store [ sent ]
        let found = books (patient store)
        equal [ for i in 0..4 -> sent.Book i ] found
        close store)
