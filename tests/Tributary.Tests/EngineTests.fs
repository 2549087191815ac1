/// The engine against the simulated exchange, over real sockets, into a real file: whatever goes wrong, the books balance.
[<NUnit.Framework.Parallelizable(NUnit.Framework.ParallelScope.None)>]
module Tributary.Tests.EngineTests

open System
open System.Collections.Concurrent
open System.IO
open System.Net.Http
open System.Text.RegularExpressions
open System.Threading
open System.Threading.Tasks
open Microsoft.AspNetCore.Http
open Microsoft.Extensions.Logging
open NUnit.Framework
open Tributary
open Tributary.Cli
open Tributary.Server.Simulator
open Tributary.Stores

let internal ms (count: int) = TimeSpan.FromMilliseconds(float count)

let private exchange = {
    SimulatorOptions.Default with
        Markets = 6
        TradesPerSecond = 10.0
        FaultRate = 0.1
}

let private cadence: ScheduleSettings = {
    Books = ms 400
    Trades = ms 300
    Markets = ms 1000
    Jitter = 0.05
}

/// An exchange, a folder, and the engines that run one after the other.
type internal Bench(options: SimulatorOptions) =
    let folder = Directory.CreateTempSubdirectory("tributary-").FullName
    let simulator = Simulator.StartAsync(options, CancellationToken.None).Result
    let polls = ConcurrentQueue<Polled>()
    let words = new Words(LogLevel.Information)

    member _.Path = Path.Combine(folder, "store.db")
    member _.Simulator = simulator
    member _.Words = words
    member _.Polls = polls

    member val Cadence = cadence with get, set
    /// What is changed in the settings of the store.
    member val Stored: StoreSettings -> StoreSettings = id with get, set
    /// What is changed in the settings of alerts.
    member val Alerts: AlertSettings -> AlertSettings = id with get, set

    member this.OpenStore() =
        match Sqlite.openForWriting this.Path "main" Synchronous.Normal with
        | Ok store -> store
        | Error fault -> failwith $"%A{fault}"

    member this.Read(question: Store -> Task<'T>) = task {
        match Sqlite.openForReading this.Path with
        | Ok store ->
            let! answer = question store
            do! store.Close()
            return answer
        | Error fault -> return failwith $"%A{fault}"
    }

    /// Collects everything that the exchange has, with a store of one's own making.
    member this.StartWith(store: Store, ?change: CollectorSettings -> CollectorSettings) =
        let defaults = Settings.defaults Setup.known

        let collectors =
            defaults.Collectors
            |> List.truncate 1
            |> List.map (fun collector ->
                {
                    collector with
                        Urls =
                            collector.Urls
                            |> Map.map (fun name _ ->
                                Address.ofUri (Uri(simulator.Address, name.Replace("_url", "/"))))
                        Discovery = {
                            collector.Discovery with
                                Enabled = true
                        }
                        Live = { collector.Live with Enabled = false }
                }
                |> defaultArg change id)

        Engine.StartAsync(
            {
                Settings = {
                    defaults with
                        Schedule = this.Cadence
                        Alerts = this.Alerts defaults.Alerts
                        Store = this.Stored defaults.Store
                        Collectors = collectors
                }
                Store = store
                Clock = TimeProvider.System
                Logs = words
                Collector = Setup.collector
                ProgressLog = None
                Polled = polls.Enqueue
            },
            CancellationToken.None
        )

    member this.Start() = this.StartWith(this.OpenStore())

    /// Waits until something is so.
    member _.Until(what: string, condition: unit -> bool) = task {
        let limit = DateTime.UtcNow.AddSeconds 30.0

        while not (condition ()) do
            if DateTime.UtcNow > limit then
                let log = String.Join("\n", words.All)
                failwith $"it took too long until {what}\n{log}"

            do! Task.Delay 20
    }

    /// How many polls of a stream ended well after a moment.
    member _.Good(stream: Stream, since: Instant) =
        polls
        |> Seq.filter (fun poll -> poll.Job.Stream = stream && poll.Due > since && not poll.Outcome.IsMissed)
        |> Seq.length

    member _.Now = Instant.ofDateTimeOffset (TimeProvider.System.GetUtcNow())

    /// The exchange stands still and behaves, every flow is read once more, and the engine stops.
    member this.Finish(engine: Engine) = task {
        simulator.Freeze()
        simulator.Faults <- Set.empty
        let frozen = this.Now

        let flows =
            polls
            |> Seq.filter (fun poll -> poll.Job.Stream = Stream.Trades)
            |> Seq.map _.Market
            |> Set.ofSeq

        do!
            this.Until(
                "all trades are read",
                fun () ->
                    let read =
                        polls
                        |> Seq.filter (fun poll ->
                            poll.Job.Stream = Stream.Trades
                            && poll.Due > frozen
                            && not poll.Outcome.IsMissed)
                        |> Seq.map _.Market
                        |> Set.ofSeq

                    Set.isSubset flows read
            )

        let! report = engine.StopAsync(TimeSpan.FromSeconds 10.0)
        equal None report.Undrained
    }

    member this.Account() =
        let truth: Accounting.Truth = {
            Exchange = "polymarket"
            Trades = simulator.Ledger.Trades
            Requests = simulator.Ledger.Requests
            Polls = Accounting.polls polls
            BookCadence = this.Cadence.Books
            Stopped = TimeProvider.System.GetUtcNow()
        }

        this.Read(fun store -> Accounting.account truth store)

    /// Nothing is missing that no gap tells of, and there was something to miss.
    member this.Balances() = task {
        let! report = this.Account()

        if report.Unexplained > 0 || report.TradesExpected = 0 || report.BooksStored = 0 then
            let lines = String.Join("\n", Accounting.lines report @ this.Words.All)
            Assert.Fail lines

        return report
    }

    member this.Gaps() =
        this.Read(fun store -> store.Gaps Query.everything)

    interface IAsyncDisposable with
        member _.DisposeAsync() =
            ValueTask(
                task {
                    do! (simulator :> IAsyncDisposable).DisposeAsync()
                    Directory.Delete(folder, true)
                }
                :> Task
            )

let internal with' options (test: Bench -> Task<unit>) : Task = task {
    let bench = Bench options
    use _ = bench :> IAsyncDisposable
    do! test bench
}

/// Runs for a while, and to the end.
let private collect (bench: Bench) (time: TimeSpan) = task {
    let! engine = bench.Start()
    do! Task.Delay time
    do! bench.Finish engine
    return! bench.Balances()
}

/// The sum of a counter over labels that hold all these words.
let internal count (measure: Measure) (words: string list) (status: EngineStatus) =
    status.Counts
    |> List.filter (fun metric -> metric.Name = measure.Name && words |> List.forall metric.Labels.Contains)
    |> List.sumBy (fun metric -> int metric.Value)

[<Test>]
let ``everything that a sound exchange serves is stored, and all books are verified`` () =
    with' exchange (fun bench -> task {
        let! report = collect bench (ms 3000)
        equal report.BooksStored report.BooksVerified
        equal 0L report.Quarantined
        equal [] (bench.Words.With "failed")
    })

[<Test>]
let ``an exchange that misbehaves in every way leaves nothing unexplained`` () =
    with'
        {
            exchange with
                Faults = FaultSwitch.all |> List.map fst |> Set.ofList
        }
        (fun bench -> task {
            let! report = collect bench (ms 5000)
            isTrue (report.FaultsInjected > 0)
            equal [] (bench.Words.With "bug of ours")
        })

[<Test>]
let ``an exchange without the new trades API is read by the old one`` () =
    with' { exchange with V2 = false } (fun bench -> task {
        let! report = collect bench (ms 2500)
        isTrue (report.TradesStored > 0)
    })

[<Test>]
let ``a market that resolves is polled no more, and leaves no gap open`` () =
    with'
        {
            exchange with
                Faults = Set.ofList [ FaultSwitch.Resolve ]
                Speed = 10.0
                Markets = 4
        }
        (fun bench -> task {
            let! engine = bench.Start()
            do! bench.Until("a market closed", fun () -> bench.Words.With "takes no more orders" <> [])
            bench.Simulator.Faults <- Set.empty
            do! Task.Delay 1500
            let since = bench.Now
            do! Task.Delay 1000

            let missed =
                bench.Polls
                |> Seq.filter (fun poll -> poll.Due > since && poll.Outcome.IsMissed)
                |> List.ofSeq

            equal [] missed
            do! bench.Finish engine
            let! report = bench.Balances()
            equal 0 report.OpenGaps
        })

[<Test>]
let ``a store that another program holds stops the polls with one line, and they go on by themselves`` () =
    with' exchange (fun bench -> task {
        // A store waits for two seconds before it says that another holds it.
        bench.Cadence <- {
            cadence with
                Books = ms 2500
                Trades = ms 2500
        }

        let! engine = bench.Start()
        do! bench.Until("something is stored", fun () -> bench.Good(Stream.Books, seconds 0L) > 5)
        let other = new Connection(bench.Path, Access.Write)
        other.Execute "BEGIN IMMEDIATE"
        do! bench.Until("polls stop", fun () -> bench.Words.With "does not take" <> [])
        // The schedule hears of it by a message.
        do!
            bench.Until(
                "the schedule is paused",
                fun () -> engine.StatusAsync().Result.Paused = [ Cause.StoreFailed ]
            )

        do! Task.Delay 1500
        (other :> IDisposable).Dispose()
        do! bench.Until("polls go on", fun () -> bench.Words.With "takes data again" <> [])
        let since = bench.Now
        do! bench.Until("books come", fun () -> bench.Good(Stream.Books, since) > 5)
        equal 1 (bench.Words.With "does not take").Length
        do! bench.Finish engine
        let! report = bench.Balances()
        isTrue (report.GapCauses |> List.exists (fst >> (=) "store_failed"))
        equal 0 report.OpenGaps
    })

[<Test>]
let ``a full disk stops the polls, and nothing that was read is lost`` () =
    with' exchange (fun bench -> task {
        let store = bench.OpenStore()
        let isFull = ref false

        let full = {
            store with
                Write =
                    fun batches ct ->
                        if isFull.Value then
                            Task.FromResult(Error(StoreFault.Full "disk"))
                        else
                            store.Write batches ct
        }

        let! engine = bench.StartWith full
        do! bench.Until("something is stored", fun () -> bench.Good(Stream.Books, seconds 0L) > 5)
        isFull.Value <- true
        do! bench.Until("polls stop", fun () -> bench.Words.With "no space is left" <> [])
        do! Task.Delay 1500
        isFull.Value <- false
        let since = bench.Now
        do! bench.Until("books come", fun () -> bench.Good(Stream.Books, since) > 5)
        do! bench.Finish engine
        let! report = bench.Balances()
        isTrue (report.GapCauses |> List.exists (fst >> (=) "store_failed"))
    })

[<Test>]
let ``a store that never recovers is given up in time, with the reason`` () =
    with' exchange (fun bench -> task {
        let store = bench.OpenStore()

        let broken = {
            store with
                Write = fun _ _ -> Task.FromResult(Error(StoreFault.Failed "gone"))
        }

        let! engine = bench.StartWith broken
        do! bench.Until("it fails", fun () -> bench.Words.With "gone" <> [])
        let began = DateTime.UtcNow
        let! report = engine.StopAsync(TimeSpan.FromSeconds 3.0)
        equal (Some "gone") report.Undrained
        isTrue (DateTime.UtcNow - began < TimeSpan.FromSeconds 6.0)
        equal [] (bench.Words.With "bug of ours")
    })

[<Test>]
let ``between two runs there is a gap for books, and no trade is lost`` () =
    with' exchange (fun bench -> task {
        let! first = bench.Start()
        do! bench.Until("something is stored", fun () -> bench.Good(Stream.Books, seconds 0L) > 12)
        let! stopped = first.StopAsync(TimeSpan.FromSeconds 10.0)
        equal None stopped.Undrained
        do! Task.Delay 1200
        let! second = bench.Start()
        do! Task.Delay 1500
        do! bench.Finish second
        let! report = bench.Balances()
        equal 0 report.OpenGaps
        let! gaps = bench.Gaps()

        let stopped =
            gaps
            |> List.filter (fun recorded ->
                recorded.Gap.Cause = Cause.Stopped && recorded.Gap.Stream = Stream.Books)

        // One for each token.
        equal 12 stopped.Length
    })

[<Test>]
let ``markets of an earlier run are polled at once, even if the refresh fails`` () =
    with' exchange (fun bench -> task {
        let! first = bench.Start()
        do! bench.Until("something is stored", fun () -> bench.Good(Stream.Trades, seconds 0L) >= 6)
        let! _ = first.StopAsync(TimeSpan.FromSeconds 10.0)
        let since = bench.Now

        let nowhere (collector: CollectorSettings) = {
            collector with
                Urls =
                    collector.Urls
                    |> Map.add "gamma_url" (Address.ofUri (Uri "http://127.0.0.1:9/"))
        }

        let! second = bench.StartWith(bench.OpenStore(), nowhere)
        do! bench.Until("books come", fun () -> bench.Good(Stream.Books, since) >= 12)
        do! bench.Finish second
        let! _ = bench.Balances()
        ()
    })

[<Test>]
let ``a pause is a gap, and its counters agree with the rows`` () =
    with' exchange (fun bench -> task {
        let! engine = bench.Start()
        do! bench.Until("something is stored", fun () -> bench.Good(Stream.Books, seconds 0L) >= 12)
        engine.Pause()
        do! Task.Delay 1000
        let! status = engine.StatusAsync()
        equal [ Cause.Paused ] status.Paused
        equal status.Flows status.Broken
        engine.Resume()
        let since = bench.Now
        do! bench.Until("books come", fun () -> bench.Good(Stream.Books, since) >= 12)
        do! bench.Finish engine
        let! status = engine.StatusAsync()
        let! gaps = bench.Gaps()
        let paused = gaps |> List.filter (fun recorded -> recorded.Gap.Cause = Cause.Paused)
        // Two tokens and one follow of each of six markets. An answer that was on its way at the pause makes two gaps of one.
        let flows =
            paused
            |> List.distinctBy (fun recorded ->
                struct (recorded.Gap.Stream, recorded.Gap.Market, recorded.Gap.Token))

        equal 18 flows.Length
        equal gaps.Length (count Count.gapsOpened [] status)
        equal (gaps |> List.filter _.Gap.Until.IsSome |> List.length) (count Count.gapsClosed [] status)

        equal
            (count Count.pollsDue [] status)
            (count Count.pollsGood [] status + count Count.pollsMissed [] status)

        equal (count Count.pollsDue [] status) bench.Polls.Count
        let! _ = bench.Balances()
        ()
    })

[<Test>]
let ``a reader that falls behind is told so, and one that keeps up hears everything`` () =
    with' exchange (fun bench -> task {
        let! engine = bench.Start()
        let slow = engine.Subscribe 1
        let quick = engine.Subscribe 100_000
        do! bench.Until("something is stored", fun () -> bench.Good(Stream.Books, seconds 0L) >= 12)
        do! bench.Finish engine
        let heard = ResizeArray()
        let mutable event = Unchecked.defaultof<_>

        while quick.TryRead &event do
            heard.Add event

        isTrue quick.Completion.IsCompletedSuccessfully
        let! trades = bench.Read(fun store -> store.Trades Query.everything)
        let! books = bench.Read(fun store -> store.Books Query.everything)
        equal trades.Length (heard |> Seq.filter _.IsTrade |> Seq.length)
        equal books.Length (heard |> Seq.filter _.IsBook |> Seq.length)

        while slow.TryRead &event do
            ()

        match slow.Completion.Exception with
        | null -> Assert.Fail "it was not told"
        | error -> isTrue (error.InnerException :? OverflowException)
    })

/// A proxy before the books of the exchange: passes everything on, and changes the answers' text.
let private changingBooks (bench: Bench) (change: string -> string) (context: HttpContext) : Task = task {
    use client = new HttpClient()

    use! answer =
        client.PostAsync(Uri(bench.Simulator.Address, "clob/books"), new StreamContent(context.Request.Body))

    let! text = answer.Content.ReadAsStringAsync()
    let bytes = utf8 (change text)
    context.Response.ContentType <- "application/json"
    do! context.Response.Body.WriteAsync(bytes, 0, bytes.Length)
}

let private clobAt root (collector: CollectorSettings) = {
    collector with
        Urls = collector.Urls |> Map.add "clob_url" (Address.ofUri root)
}

[<Test>]
let ``one bad book is kept in quarantine, and the others are stored`` () =
    with' exchange (fun bench -> task {
        let spoil =
            changingBooks bench (fun text -> text.Insert(text.IndexOf "\"size\":\"" + 8, "-"))

        do!
            serving [ spoil ] (fun root _ -> task {
                let! engine = bench.StartWith(bench.OpenStore(), clobAt root)
                do! bench.Until("books come", fun () -> bench.Good(Stream.Books, seconds 0L) > 22)
                do! bench.Finish engine
                let! report = bench.Balances()
                isTrue (report.Quarantined > 0L)
                let causes = report.GapCauses |> List.map fst |> List.except [ "late" ]
                equal [ "undecodable" ] causes
            })
    })

[<Test>]
let ``a book that nobody asked for is stored all the same`` () =
    with' { exchange with FaultRate = 0.0 } (fun bench -> task {
        let id = Regex "\"asset_id\":\"(\\d+)\""

        /// The first book once more, as another token's.
        let addBook (text: string) =
            let first = text.Substring(1, text.IndexOf "},{\"market\"")
            let other = id.Replace(first, "\"asset_id\":\"4711\"")
            $"[{other},{text.Substring 1}"

        do!
            serving [ changingBooks bench addBook ] (fun root _ -> task {
                let! engine = bench.StartWith(bench.OpenStore(), clobAt root)
                do! bench.Until("books come", fun () -> bench.Good(Stream.Books, seconds 0L) > 22)
                do! bench.Finish engine
                let! books = bench.Read(fun store -> store.Books Query.everything)
                isTrue (books |> List.exists (fun book -> string book.Token = "4711"))
            })
    })
