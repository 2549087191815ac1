/// Whatever is killed, the collector or the database, every row that was acknowledged is in QuestDB once. Both are processes of their
/// own, the exchange is in this one.
module Tributary.Tests.Stores.QuestDbKillTests

open System
open System.Collections.Concurrent
open System.Diagnostics
open System.IO
open System.Net
open System.Net.Http
open System.Net.Sockets
open System.Threading
open System.Threading.Tasks
open Microsoft.Extensions.Logging.Abstractions
open NUnit.Framework
open Tributary
open Tributary.Cli
open Tributary.Server.Simulator
open Tributary.Stores
open Tributary.Stores.QuestDb
open Tributary.Tests.KillTests
open Tributary.Tests.Stores.Vocabulary

let private kills = killsOr 4
let private markets = 60
let private seed = 20261125

/// A loss of power takes less than this; `keep` is longer.
let private mostForgotten = TimeSpan.FromSeconds 2.0

let private config folder =
    $"""
store:
  group_time: 20ms
  questdb:
    outbox: {Path.Combine(folder, "outbox.db")}
    keep: 8s
    look: 500ms
schedule:
  books: 1s
  trades: 1s
  markets: 5s
collectors:
  polymarket:
    live:
      enabled: false
    discovery:
      enabled: true
"""

/// A port that nobody listens at.
let private freePort () =
    use listener = new TcpListener(IPAddress.Loopback, 0)
    listener.Start()
    (listener.LocalEndpoint :?> IPEndPoint).Port

/// What is killed.
[<RequireQualifiedAccess>]
type private Victim =
    | Collector
    | Database
    /// With what it wrote last.
    | Power of forgotten: TimeSpan
    | Both

    override this.ToString() =
        match this with
        | Collector -> "the collector"
        | Database -> "the database"
        | Power _ -> "the database's power"
        | Both -> "both"

/// Collector and database, and what it takes to start them again.
[<Sealed>]
type private Scene(folder: string, exchange: Uri) =
    let port = freePort ()

    let connection =
        $"http::addr=127.0.0.1:{port};retry_timeout=500;auto_flush_interval=20;"

    let mutable runs = 0
    let said = ConcurrentQueue<string>()

    let heard (running: Process) =
        running.ErrorDataReceived.Add(fun line -> line.Data |> Option.ofObj |> Option.iter said.Enqueue)
        running.BeginErrorReadLine()
        running

    let database forgotten =
        launch [
            program "Tributary.FakeQuestDb"
            "--port"
            string port
            "--data"
            Path.Combine(folder, "server")
            "--no-create"
            "--forget"
            string forgotten
        ]
        |> heard

    let collector () =
        runs <- runs + 1

        launch [
            program "Tributary.Cli"
            "start"
            "--config"
            Path.Combine(folder, "config.yaml")
            "--questdb"
            connection
            "--exchange-url"
            string exchange
            "--progress-log"
            Path.Combine(folder, $"progress.{runs}.log")
            "--log-level"
            "error"
        ]
        |> heard

    let mutable serving = database 0.0
    let mutable collecting = collector ()

    let kill (victim: Process) = task {
        victim.Kill() // SIGKILL
        do! victim.WaitForExitAsync()
        victim.Dispose()
    }

    member _.Connection = connection
    member _.Logs = [ for run in 1..runs -> Path.Combine(folder, $"progress.{run}.log") ]

    /// What they wrote to standard error.
    member _.Said = List.ofSeq said

    /// Is done when books of so many tokens were acknowledged.
    member this.Began(tokens: int) = task {
        let log = this.Logs.Head

        let isBegun () =
            File.Exists log
            && (logged log |> fst).Keys |> Seq.filter _.Contains("/books/") |> Seq.length
               >= tokens

        while not (isBegun ()) do
            do! Task.Delay 50
    }

    /// Kills, and starts again after the pause.
    member _.Strike(victim: Victim, pause: TimeSpan) = task {
        match victim with
        | Victim.Collector ->
            do! kill collecting
            collecting <- collector ()
        | Victim.Database ->
            do! kill serving
            do! Task.Delay pause
            serving <- database 0.0
        | Victim.Power forgotten ->
            do! kill serving
            do! Task.Delay pause
            serving <- database forgotten.TotalSeconds
        | Victim.Both ->
            do! kill serving
            do! kill collecting
            collecting <- collector ()
            do! Task.Delay pause
            serving <- database 0.0
    }

    /// Asks the collector to stop, and waits until it has.
    member _.Stop() = task {
        use signal = Process.Start("kill", [ "-TERM"; string collecting.Id ])
        do! signal.WaitForExitAsync()
        do! collecting.WaitForExitAsync()
        return collecting.ExitCode
    }

    interface IAsyncDisposable with
        member _.DisposeAsync() =
            ValueTask(
                task {
                    for left in [ serving; collecting ] do
                        if not left.HasExited then
                            left.Kill()
                            do! left.WaitForExitAsync()
                }
                :> Task
            )

let private settings folder connection : StoreSettings =
    let defaults = (Settings.defaults []).Store

    {
        defaults with
            Kind = "questdb"
            QuestDb.Outbox = Path.Combine(folder, "outbox.db")
            QuestDb.Look = TimeSpan.FromMilliseconds 100.0
            QuestDb.Connection = sound (Secret.ofConnection connection)
    }

let private opening settings : Registry.Opening = {
    Settings = settings
    Collector = "main"
    Clock = TimeProvider.System
    Log = NullLogger.Instance
}

/// How often each event is in its table, at most, whatever the moments that it was stored with.
let private repeated connection = task {
    use server = new Server(sound (ConfigString.parse connection), TimeProvider.System)

    let ask sql = task {
        use! answer = server.Ask(sql, CancellationToken.None)
        return [ for row in answer.Rows -> string row[0] ]
    }

    let mutable surplus = 0

    for table, identity in
        [
            "trades", "exchange, market, trade_id, source"
            "orderbook_snapshots", "exchange, market, token, \"at\", hash"
            "market_stats", "exchange, market, \"at\""
            "gaps", "collector, exchange, stream, market, token, \"since\", cause"
            "collection_metrics", "name, labels, \"at\""
        ] do
        let! all = ask $"SELECT count(*) FROM {table}"
        let! different = ask $"SELECT DISTINCT {identity} FROM {table}"
        TestContext.Out.WriteLine $"{table, -20}{all.Head} rows, {different.Length} different"
        surplus <- surplus + int all.Head - different.Length

    return surplus
}

[<Test>]
let ``collector and database are killed again and again, and every acknowledged row is stored once``
    ()
    : Task = task {
    let folder = Directory.CreateTempSubdirectory("tributary-kill-").FullName
    File.WriteAllText(Path.Combine(folder, "config.yaml"), config folder)
    let random = Random seed

    use! simulator =
        Simulator.StartAsync(
            {
                SimulatorOptions.Default with
                    Markets = markets
                    TradesPerSecond = 100.0
                    History = TimeSpan.FromMinutes 2.0
            },
            CancellationToken.None
        )

    use scene = new Scene(folder, simulator.Address)
    // A flow of which nothing was ever acknowledged has left no trace that it was there.
    do! scene.Began(2 * markets)
    let struck = ResizeArray<Victim>()

    for _ in 1..kills do
        // From before a run's first request to well into collecting.
        do! Task.Delay(random.Next(200, 2500))

        let victim =
            match random.Next 4 with
            | 0 -> Victim.Collector
            | 1 -> Victim.Database
            | 2 -> Victim.Power(mostForgotten * random.NextDouble())
            | _ -> Victim.Both

        let pause =
            if random.Next 2 = 0 then
                TimeSpan.Zero
            else
                TimeSpan.FromMilliseconds(float (random.Next 1500))

        struck.Add victim
        do! scene.Strike(victim, pause)

    do! Task.Delay 3000
    simulator.Freeze()
    do! Task.Delay 3000
    let stopped = DateTimeOffset.UtcNow
    let! exitCode = scene.Stop()
    scene.Said |> List.iter TestContext.Out.WriteLine
    equal Terminal.Exit.Done exitCode
    let settings = settings folder scene.Connection
    let kind = Registry.tryFind "questdb" |> Option.get

    // What still waits goes out.
    let sending = sound (kind.ToWrite(opening settings))
    use patience = new CancellationTokenSource(TimeSpan.FromSeconds 60.0)
    do! sending.Flush patience.Token
    do! sending.Close()

    let store = sound (kind.ToRead(opening settings))

    let! report =
        Accounting.account
            {
                Exchange = "polymarket"
                Trades = simulator.Ledger.Trades
                Requests = simulator.Ledger.Requests
                Polls = [||]
                BookCadence = TimeSpan.FromSeconds 1.0
                Stopped = stopped
            }
            store

    let kinds =
        struck
        |> Seq.countBy string
        |> Seq.map (fun (victim, times) -> $"{victim} {times}")
        |> String.concat ", "

    TestContext.Out.WriteLine $"{kills} kills: {kinds}"
    Accounting.lines report |> List.iter TestContext.Out.WriteLine
    let! surplus = repeated scene.Connection
    equal 0 surplus
    Assert.That(report.Unexplained, Is.EqualTo 0, String.concat "\n" (Accounting.lines report))
    Assert.That(report.TradesStored, Is.EqualTo simulator.Ledger.Trades.Length)
    equal 0L report.Quarantined

    // Every line of the log was earned. A run counts a row once; the next one may meet it again, and count it, too.
    let! trades = store.Trades Query.everything
    let! books = store.Books Query.everything

    let there =
        Seq.append
            (trades |> Seq.countBy (fun trade -> $"{trade.Exchange}/trades/{trade.Market}"))
            (books
             |> Seq.countBy (fun book -> $"{book.Exchange}/books/{book.Market}/{book.Token}"))
        |> dict

    let mutable acknowledged = 0

    for log in scene.Logs do
        if File.Exists log then
            let rows, _ = logged log

            for KeyValue(job, count) in rows do
                acknowledged <- acknowledged + count
                let stored = if there.ContainsKey job then there[job] else 0

                Assert.That(
                    stored,
                    Is.GreaterThanOrEqualTo count,
                    $"{job}: the log has rows that the store has not"
                )

    TestContext.Out.WriteLine $"acknowledged {acknowledged} rows in {scene.Logs.Length} runs"
    do! store.Close()
    Directory.Delete(folder, true)
}
