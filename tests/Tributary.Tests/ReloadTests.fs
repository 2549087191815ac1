/// A collector takes on another configuration while it runs.
[<NUnit.Framework.Parallelizable(NUnit.Framework.ParallelScope.None)>]
module Tributary.Tests.ReloadTests

open System
open System.Diagnostics
open System.IO
open System.Net
open System.Net.Sockets
open System.Runtime.InteropServices
open System.Threading
open System.Threading.Tasks
open Microsoft.Extensions.Logging.Abstractions
open NUnit.Framework
open Tributary
open Tributary.Server.Simulator
open Tributary.Stores
open Tributary.Tests.EngineTests

// ---- what is different

let private load text =
    match Settings.load Setup.known (fun _ -> Some "s3cret") [ "a.yaml", text ] with
    | Ok settings -> settings
    | Error mistakes -> failwith $"%A{mistakes}"

let private between (before: string) (after: string) =
    Reload.changes (Settings.flat (load before)) (Settings.flat (load after))
    |> List.map string

[<Test>]
let ``the same settings change nothing, however they are written`` () =
    equal [] (between "schedule: {books: 60s}" "schedule:\n  books: 1m")

[<Test>]
let ``markets and discovery are taken on, all else needs a restart`` () =
    equal
        [
            "collectors.polymarket.discovery.max_markets: 200 is now 5"
            "collectors.polymarket.discovery.tags: [] is now [weather]"
            "collectors.polymarket.markets[a]: removed (was enabled)"
            "collectors.polymarket.markets[b]: enabled is now not enabled"
            "collectors.polymarket.markets[event:e]: added (enabled)"
            "collectors.polymarket.timeout: 30s is now 10s; needs a restart"
            "log_level: info is now debug; needs a restart"
        ]
        (between
            "collectors: {polymarket: {markets: [{slug: a}, {slug: b}]}}"
            "log_level: debug
collectors:
  polymarket:
    timeout: 10s
    markets: [{slug: b, enabled: false}, {event: e}]
    discovery: {tags: [weather], max_markets: 5}")

[<Test>]
let ``a secret is compared by its reference, and never shown`` () =
    let changes = between "http: {token: '${ONE}'}" "http: {token: '${TWO}'}"

    equal [ "http.token: ${ONE} is now ${TWO}; needs a restart" ] changes
    Assert.That(String.concat "" changes, Does.Not.Contain "s3cret")

[<Test>]
let ``what is taken on is the markets alone`` () =
    let running =
        load "schedule: {books: 60s}\ncollectors: {polymarket: {markets: [{slug: a}]}}"

    let fresh =
        load "schedule: {books: 5s}\ncollectors: {polymarket: {timeout: 10s, markets: [{slug: b}]}}"

    let next = Reload.takeOn running fresh
    equal running.Schedule next.Schedule
    equal running.Collectors.Head.Timeout next.Collectors.Head.Timeout
    equal fresh.Collectors.Head.Markets next.Collectors.Head.Markets
    // What needs a restart is still different afterwards.
    equal 2 (Reload.changes (Settings.flat next) (Settings.flat fresh)).Length

// ---- while it runs

let internal picking (slugs: string list) (collector: CollectorSettings) = {
    collector with
        Markets =
            slugs
            |> List.map (fun slug -> {
                Target = PickTarget.Market slug
                Enabled = true
            })
        Discovery = {
            collector.Discovery with
                Enabled = false
        }
        Live = {
            collector.Live with
                Enabled = true
                TokensPerConnection = 6
        }
}

let internal slugsOf (bench: Bench) = task {
    let settings =
        Setup.askingAt bench.Simulator.Address (Settings.defaults Setup.known)

    let everything = {
        settings.Collectors.Head with
            Discovery = {
                settings.Collectors.Head.Discovery with
                    Enabled = true
            }
    }

    match! Ask.markets everything TimeProvider.System Logs.none CancellationToken.None with
    | Error message -> return failwith message
    | Ok choices -> return choices.Choices |> List.map (fun (market, _) -> market.Slug) |> List.sort
}

[<Test>]
let ``ten reloads under load, each adding and removing markets, leave no gap for any other`` () : Task = task {
    let bench =
        Bench {
            SimulatorOptions.Default with
                Markets = 12
                Limits = false
                TradesPerSecond = 5.0
                MessagesPerSecond = 200.0
        }

    use _ = bench
    let! slugs = slugsOf bench
    equal 12 slugs.Length
    let stay, others = List.splitAt 4 slugs

    /// Two of the others are in, in their turn.
    let chosen turn =
        stay @ [ others[turn % 8]; others[(turn + 1) % 8] ]

    bench.Cadence <- {
        Books = ms 500
        Trades = ms 500
        Markets = ms 2000
        Jitter = 0.0
    }

    let! engine = bench.StartWith(bench.OpenStore(), picking (chosen 0))

    let collected () =
        engine.Pulse().Markets |> List.map _.Slug |> set

    /// Each has a book of its own since then, and no hole is open. (Some markets are quiet: a book is all that comes.)
    let areLive (since: Instant) (fresh: string list) () =
        let markets = engine.Pulse().Markets

        fresh
        |> List.forall (fun slug ->
            markets
            |> List.exists (fun market -> market.Slug = slug && market.LastBook > ValueSome since))
        && markets |> List.forall _.Gaps.IsEmpty

    do! bench.Until("all are live", areLive (seconds 0L) (chosen 0))

    for turn in 1..10 do
        let settings = {
            engine.Settings with
                Collectors = engine.Settings.Collectors |> List.map (picking (chosen turn))
        }

        let fresh = List.except (chosen (turn - 1)) (chosen turn)
        let since = bench.Now
        engine.Follow settings
        do! bench.Until($"turn {turn} is live", areLive since fresh)

    // The two that were left last are gone, but for their last trades.
    isTrue (Set.isSubset (set (chosen 10)) (collected ()))
    let! report = engine.StopAsync(TimeSpan.FromSeconds 10.0)
    equal None report.Undrained
    let! markets = bench.Read _.Markets()

    let slugOf =
        markets |> List.map (fun market -> market.Market, market.Slug) |> Map.ofList

    let! gaps = bench.Gaps()

    let told =
        gaps
        |> List.map (fun one -> slugOf[one.Gap.Market], string one.Gap.Stream, string one.Gap.Cause)

    equal [] (told |> List.filter (fun (slug, _, _) -> List.contains slug stay))

    // Those that came back were not collected meanwhile, and that is a row for each of their books.
    let back = [ others[0]; others[1]; others[2] ]

    for slug in back do
        let own = told |> List.filter (fun (one, _, _) -> one = slug)

        equal
            2
            (own
             |> List.filter (fun (_, stream, cause) -> stream = "depth" && cause = "stopped")
             |> List.length)

        equal
            2
            (own
             |> List.filter (fun (_, stream, cause) -> stream = "books" && cause = "stopped")
             |> List.length)

    equal [] (gaps |> List.filter (fun one -> one.Gap.Until.IsNone) |> List.map string)
}

[<DllImport("libc", SetLastError = true)>]
extern int private kill(int pid, int signal)

let private freePort () =
    use listener = new TcpListener(IPAddress.Loopback, 0)
    listener.Start()
    (listener.LocalEndpoint :?> IPEndPoint).Port

[<Test; Platform("Linux,MacOsX")>]
let ``a file that changes and a SIGHUP are taken on, a mistake is refused with its place, and a dry run says what would be``
    ()
    : Task = task {
    let bench =
        Bench {
            SimulatorOptions.Default with
                Markets = 4
                Limits = false
        }

    use _ = bench
    let! slugs = slugsOf bench
    let port = freePort ()
    let folder = Directory.CreateTempSubdirectory("tributary-reload-").FullName
    let file = Path.Combine(folder, "config.yaml")

    let writeTo (file: string) (more: string) (slugs: string list) =
        let markets =
            slugs |> List.map (fun slug -> $"{{slug: {slug}}}") |> String.concat ", "

        File.WriteAllText(
            file,
            $"http: {{listen: '127.0.0.1:{port}'}}\n{more}\ncollectors:\n  polymarket:\n    markets: [{markets}]\n"
        )

    let write = writeTo file

    let argumentsWith (file: string) = [
        KillTests.program "Tributary.Cli"
        "start"
        "--config"
        file
        "--store"
        Path.Combine(folder, "store.db")
        "--exchange-url"
        string bench.Simulator.Address
    ]

    write "" [ slugs[0] ]
    let said = System.Collections.Concurrent.ConcurrentQueue<string>()

    let info =
        ProcessStartInfo(
            "dotnet",
            argumentsWith file,
            RedirectStandardError = true,
            RedirectStandardOutput = true
        )

    use running = Process.Start info |> Option.ofObj |> Option.get
    running.ErrorDataReceived.Add(fun line -> line.Data |> Option.ofObj |> Option.iter said.Enqueue)
    running.BeginErrorReadLine()

    let heard (words: string) () = said |> Seq.exists _.Contains(words)

    let expect (words: string) = task {
        let limit = DateTime.UtcNow.AddSeconds 30.0

        while not (heard words ()) do
            if DateTime.UtcNow > limit then
                let all = String.Join("\n", said)
                failwith $"nothing was said of '{words}'\n{all}"

            do! Task.Delay 50
    }

    try
        do! expect $"Collecting {slugs[0]}"
        do! expect "Health, status and metrics"

        // A dry run asks the one that runs, and changes nothing.
        let next = Path.Combine(folder, "next.yaml")
        writeTo next "schedule: {books: 7s}" [ slugs[0]; slugs[1] ]
        use asking = KillTests.launch (argumentsWith next @ [ "--dry-run" ])
        let! answer = asking.StandardOutput.ReadToEndAsync()
        do! asking.WaitForExitAsync()
        equal 0 asking.ExitCode

        equal
            [
                $"collectors.polymarket.markets[{slugs[1]}]: added (enabled)"
                "schedule.books: 10s is now 7s; needs a restart"
            ]
            (answer.Trim().Split('\n') |> List.ofArray)

        // The file is seen by itself.
        write "schedule: {books: 7s}" [ slugs[0]; slugs[1] ]
        do! expect $"Collecting {slugs[1]}"
        do! expect "schedule.books: 10s is now 7s; needs a restart"

        // A mistake changes nothing.
        write "scheduel: {books: 7s}" [ slugs[2] ]
        do! expect "refused"
        do! expect "unknown key 'scheduel'; did you mean 'schedule'?"

        // Asked by hand.
        write "" [ slugs[1] ]
        equal 0 (kill (running.Id, 1))
        do! expect $"markets[{slugs[0]}]: removed"
        do! expect $"{slugs[0]} "
        equal 0 (kill (running.Id, 15))
        do! running.WaitForExitAsync()
        equal 0 running.ExitCode
        isTrue (said |> Seq.forall (fun line -> not (line.Contains $"Collecting {slugs[2]}")))
    finally
        if not running.HasExited then
            running.Kill()

        Directory.Delete(folder, true)
}
