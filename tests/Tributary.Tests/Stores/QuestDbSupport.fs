/// A QuestDB for tests: the fake one, or a real one when TRIBUTARY_TEST_QUESTDB holds its configuration string. Tests that use a
/// real one drop all tables of Tributary's there.
module Tributary.Tests.Stores.QuestDbSupport

open System
open System.IO
open System.Threading
open System.Threading.Tasks
open Microsoft.Extensions.Logging.Abstractions
open Tributary
open Tributary.FakeQuestDb
open Tributary.Stores
open Tributary.Stores.QuestDb
open Tributary.Tests.Stores.Vocabulary

let private given =
    Environment.GetEnvironmentVariable "TRIBUTARY_TEST_QUESTDB"
    |> Option.ofObj
    |> Option.filter (fun text -> text <> "")

let isReal = given.IsSome

type TestServer = {
    Connection: string
    /// Nothing when it is a real one.
    Fake: FakeQuestDb option
} with

    /// What the server answers to a statement, as values by column.
    member this.Ask(sql: string) : Task<Map<string, string> list> = task {
        use server =
            new Server(sound (ConfigString.parse this.Connection), TimeProvider.System)

        use! answer = server.Ask(sql, CancellationToken.None)

        let columns = [ for name in answer.Columns -> name ]

        return [
            for row in answer.Rows ->
                Map.ofList [ for name in columns -> name, (answer.Value(row, name)).ToString() ]
        ]
    }

    member this.Number(sql: string) : Task<int64> = task {
        let! rows = this.Ask sql
        return int64 (Map.toList rows.Head |> List.head |> snd)
    }

    interface IAsyncDisposable with
        member this.DisposeAsync() =
            match this.Fake with
            | Some fake -> (fake :> IAsyncDisposable).DisposeAsync()
            | None -> ValueTask()

/// An address and quick tries, for a fake.
let connectionTo (fake: FakeQuestDb) =
    $"http::addr=127.0.0.1:{fake.Port};retry_timeout=400;request_timeout=2000;auto_flush_interval=10;"

let startFake (change: FakeQuestDbOptions -> FakeQuestDbOptions) : Task<TestServer> = task {
    let! fake =
        FakeQuestDb.StartAsync(change FakeQuestDbOptions.Default, CancellationToken.None)

    return {
        Connection = connectionTo fake
        Fake = Some fake
    }
}

/// A server without any table of ours.
let startServer () : Task<TestServer> = task {
    match given with
    | None ->
        // So that nothing is there that the store has not made.
        return!
            startFake (fun options -> {
                options with
                    CreateTables = false
                    CreateColumns = false
            })
    | Some connection ->
        let server = { Connection = connection; Fake = None }

        for view, _ in Schema.views do
            let! _ = server.Ask $"DROP MATERIALIZED VIEW IF EXISTS \"{view}\""
            ()

        for table in Tables.all 2 false do
            let! _ = server.Ask $"DROP TABLE IF EXISTS \"{table.Name}\""
            ()

        return server
}

let settingsFor (folder: string) (server: TestServer) kind : StoreSettings =
    let defaults = (Settings.defaults []).Store

    {
        defaults with
            Kind = kind
            Path = Path.Combine(folder, "test.db")
            QuestDb.Outbox = Path.Combine(folder, "outbox.db")
            QuestDb.Look = TimeSpan.FromMilliseconds 100.0
            QuestDb.Connection = sound (Secret.ofConnection server.Connection)
    }

let openAs (settings: StoreSettings) : Store =
    let kind = Registry.tryFind settings.Kind |> Option.get

    sound (
        kind.ToWrite {
            Settings = settings
            Collector = "main"
            Clock = TimeProvider.System
            Log = NullLogger.Instance
        }
    )

let flush (store: Store) =
    use patience = new CancellationTokenSource(TimeSpan.FromSeconds 30.0)
    store.Flush(patience.Token).Wait()

/// Every question waits until what was written is there to be read.
let patient (store: Store) : Store =
    let after (ask: unit -> Task<'T>) : Task<'T> = task {
        use patience = new CancellationTokenSource(TimeSpan.FromSeconds 30.0)
        do! store.Flush patience.Token
        return! ask ()
    }

    {
        store with
            Gaps = fun query -> after (fun () -> store.Gaps query)
            Trades = fun query -> after (fun () -> store.Trades query)
            Books = fun query -> after (fun () -> store.Books query)
            Deltas = fun query -> after (fun () -> store.Deltas query)
            Prices = fun query -> after (fun () -> store.Prices query)
            OwnOrders = fun query -> after (fun () -> store.OwnOrders query)
            OwnTrades = fun query -> after (fun () -> store.OwnTrades query)
            Matches = fun () -> after store.Matches
            Tally = fun query -> after (fun () -> store.Tally query)
            Links = fun () -> after store.Links
            Quarantine = fun () -> after store.Quarantine
            Status = fun () -> after store.Status
            Markets = fun () -> after store.Markets
    }

/// Stops the server and starts it again. A real one by the command in TRIBUTARY_TEST_QUESTDB_RESTART; without it there is no such
/// test.
let restart (server: TestServer) =
    match server.Fake, Environment.GetEnvironmentVariable "TRIBUTARY_TEST_QUESTDB_RESTART" with
    | Some fake, _ ->
        fake.StopAsync().Wait()
        fake.StartAgainAsync(CancellationToken.None).Wait()
    | None, (null | "") -> NUnit.Framework.Assert.Ignore "TRIBUTARY_TEST_QUESTDB_RESTART holds no command"
    | None, command ->
        use running = Diagnostics.Process.Start("/bin/sh", [ "-c"; string command ])
        running.WaitForExit()
        NUnit.Framework.Assert.That(running.ExitCode, NUnit.Framework.Is.Zero)
