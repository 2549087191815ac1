/// The scripts run as programs of their own, over the library's Release build; the exchange is in this process.
module Tributary.Tests.ScriptTests

open System
open System.Diagnostics
open System.IO
open System.Net.Http
open System.Text.Json
open System.Threading
open System.Threading.Tasks
open NUnit.Framework
open Tributary
open Tributary.Server.Simulator
open Tributary.Stores


/// What a script printed as lines, what it complained of, and its exit code.
let private run (script: string) (arguments: string list) = task {
    let library =
        Path.Combine(root, "src", "Tributary", "bin", "Release", "net10.0", "Tributary.dll")

    Assume.That(File.Exists library, "scripts need the Release build: dotnet fsi build.fsx build")

    let info =
        ProcessStartInfo(
            "dotnet",
            "fsi" :: Path.Combine("scripts", script) :: arguments,
            WorkingDirectory = root,
            RedirectStandardOutput = true,
            RedirectStandardError = true
        )

    info.Environment.Remove "TRIBUTARY_ENV" |> ignore
    use running = Process.Start info |> Option.ofObj |> Option.get
    let complaints = running.StandardError.ReadToEndAsync()
    let! printed = running.StandardOutput.ReadToEndAsync()
    let! complaints = complaints
    do! running.WaitForExitAsync()
    let lines = printed.Split('\n', StringSplitOptions.RemoveEmptyEntries)
    return List.ofArray lines, complaints, running.ExitCode
}

/// The condition id and the slug of the market that traded last.
let private busiest (exchange: Uri) = task {
    use client = new HttpClient(BaseAddress = exchange)
    let! trades = client.GetStringAsync "data/trades?limit=1"
    use document = JsonDocument.Parse trades

    let text (name: string) =
        string (document.RootElement[0].GetProperty name)

    return text "conditionId", text "slug"
}

[<Test>]
let ``backfill stores every trade of a market once, however often it is run`` () : Task = task {
    let! simulator =
        Simulator.StartAsync(
            {
                SimulatorOptions.Default with
                    Markets = 5
                    History = TimeSpan.FromMinutes 2.0
            },
            CancellationToken.None
        )

    use _ = simulator
    simulator.Freeze()
    let! condition, slug = busiest simulator.Address
    let folder = Directory.CreateTempSubdirectory("tributary-script-").FullName
    let path = Path.Combine(folder, "store.db")

    let backfill () =
        run "backfill.fsx" [
            slug
            "--since"
            "1h"
            "--store"
            path
            "--exchange-url"
            string simulator.Address
        ]

    try
        let! first, complaints, code = backfill ()
        complaints |> equal ""
        code |> equal 0

        let truth =
            simulator.Ledger.Trades
            |> Array.filter (fun trade -> trade.Condition = condition)
            |> Array.length

        let pages, conclusion = first |> List.splitAt (first.Length - 1)
        List.head conclusion |> _.StartsWith("read since ") |> isTrue
        // Two sources tell of the same trades.
        pages |> List.filter _.Contains($" {truth} trades, ") |> List.length |> equal 2

        let! again, _, code = backfill ()
        code |> equal 0

        // What may have come since is asked for again, and is not new.
        again
        |> List.filter _.Contains(" trades, ")
        |> List.forall _.Contains(", 0 new")
        |> isTrue

        match Sqlite.openForReading path with
        | Error fault -> Assert.Fail(string fault)
        | Ok store ->
            let! trades = store.Trades Query.everything
            trades |> List.length |> equal truth
            trades |> List.forall (fun trade -> string trade.Market = condition) |> isTrue
            do! store.Close()
    finally
        Directory.Delete(folder, true)
}

[<Test>]
let ``backfill answers arguments that it does not understand with its usage and exit code 2`` () : Task = task {
    for arguments, complaint in
        [
            [ "--sinse"; "1h" ], "--sinse"
            [ "some-slug"; "--since"; "yesterday" ], "'yesterday'"
        ] do
        let! printed, complaints, code = run "backfill.fsx" arguments
        code |> equal 2
        printed |> equal []
        complaints.Contains complaint |> isTrue
        complaints.Contains "dotnet fsi scripts/backfill.fsx SLUG" |> isTrue
}

let private scripts =
    [ "backfill"; "explore"; "coverage"; "export"; "book" ]
    |> List.map (fun name -> name + ".fsx")

[<Test>]
let ``each script fits on a screen`` () =
    for script in scripts do
        let lines = File.ReadAllLines(Path.Combine(root, "scripts", script)).Length
        Assert.That(lines, Is.LessThan 60, script)

[<Test>]
let ``what was collected is listed, drawn, rebuilt and exported`` () : Task = task {
    let bench =
        EngineTests.Bench {
            SimulatorOptions.Default with
                Markets = 3
                TradesPerSecond = 10.0
        }

    use _ = bench
    let! engine = bench.Start()
    do! bench.Until("books and trades", fun () -> bench.Good(Stream.Books, seconds 0L) >= 12)
    do! bench.Finish engine
    let! all = bench.Read(fun store -> store.Trades Query.everything)
    let! markets = bench.Read _.Markets()

    let at (script: string) arguments =
        run script (arguments @ [ "--store"; bench.Path ])

    let folder = Directory.CreateTempSubdirectory("tributary-export-").FullName

    try
        let! listed, _, code = at "explore.fsx" []
        equal 0 code

        equal
            (markets |> List.map _.Slug |> set)
            (listed |> List.map (fun line -> line.Split(' ') |> Array.last) |> set)

        // The market with the most trades stands first.
        let slug = listed.Head.Split(' ') |> Array.last
        let market = markets |> List.find (fun market -> market.Slug = slug)

        let own =
            all
            |> List.filter (fun trade ->
                trade.Market = market.Market
                && trade.Source = Source.Api
                && trade.Outcome = market.Outcomes[0].Name)

        // One candle of all of it.
        let svg = Path.Combine(folder, "plot.svg")

        let! drawn, complaints, code =
            at "explore.fsx" [ slug; "--every"; "100000d"; "--plot"; svg ]

        Assert.That(code, Is.Zero, complaints)
        let prices = own |> List.map _.Price
        let volume = own |> List.sumBy _.Value

        let! books = bench.Read(fun store -> store.Books Query.everything)

        let spreads =
            books
            |> List.filter (fun book ->
                book.Token = market.Outcomes[0].Token.Value
                && book.Verdict <> Verdict.Mismatched)
            |> List.choose (fun book -> book.Spread |> ValueOption.toOption |> Option.map decimal)

        let spread = List.average spreads / 1_000_000m

        Assert.That(
            drawn[0],
            Does.EndWith
                $"  {prices.Head} {List.max prices} {List.min prices} {List.last prices}  {volume:F2}  spread {spread:F4} of {spreads.Length} books"
        )

        Assert.That(File.ReadAllText svg, Does.Contain "<polyline")

        for format in [ "csv"; "jsonl" ] do
            let export name = task {
                let into = Path.Combine(folder, name)
                let! said, complaints, code = at "export.fsx" [ slug; into; "--format"; format ]
                Assert.That(code, Is.Zero, complaints)

                return
                    said,
                    [
                        for file in Directory.GetFiles into |> Array.sort ->
                            string (Path.GetFileName file), File.ReadAllBytes file
                    ]
            }

            let! said, first = export $"{format}-1"
            let! _, second = export $"{format}-2"
            equal first second

            let rows =
                all |> List.filter (fun trade -> trade.Market = market.Market) |> List.length

            equal rows (said |> List.sumBy (fun line -> int (line.Split(' ')[1])))

            let digests =
                first
                |> List.filter (fun (name, _) -> name.EndsWith ".gz")
                |> List.map (fun (name, bytes) ->
                    $"{Convert.ToHexStringLower(Security.Cryptography.SHA256.HashData bytes)}  {name}\n")

            equal
                (String.concat "" digests)
                (first
                 |> List.find (fun (name, _) -> name.EndsWith ".sha256")
                 |> snd
                 |> Text.Encoding.UTF8.GetString)

        let! shown, complaints, code = at "book.fsx" [ slug; "--depth"; "2" ]
        Assert.That(code, Is.Zero, complaints)
        equal 5 shown.Length
        Assert.That(shown.Head, Does.StartWith slug)
        let! _, complaints, code = at "book.fsx" [ slug; "--at"; "30d" ]
        equal 1 code
        Assert.That(complaints, Does.StartWith "not known from …")

        let! calendar, complaints, code = at "coverage.fsx" [ slug ]
        Assert.That(code, Is.Zero, complaints)
        // Polled trades are no proof of a whole day.
        isTrue (calendar |> List.exists _.Contains("▓"))
        isTrue (calendar |> List.exists _.Contains("degraded: not read"))
    finally
        Directory.Delete(folder, true)
}

[<Test>]
let ``a script without its store, or with a market that is not there, says what to do`` () : Task = task {
    let nowhere =
        Path.Combine(Path.GetTempPath(), Guid.NewGuid().ToString "N", "none.db")

    let! _, complaints, code = run "coverage.fsx" [ "--store"; nowhere ]
    equal 1 code
    Assert.That(complaints, Does.Contain nowhere)
    Assert.That(complaints, Does.Contain "tributary start")

    let! _, complaints, code =
        run "export.fsx" [ "--format"; "parquet"; "some-slug"; "." ]

    equal 2 code
    Assert.That(complaints, Does.Contain "csv or jsonl")
    Assert.That(complaints, Does.Contain "dotnet fsi scripts/export.fsx SLUG FOLDER")
}

[<Test>]
let ``without a build, the complaint is of a file that is named after what to type`` () : Task = task {
    let folder = Directory.CreateTempSubdirectory("tributary-unbuilt-").FullName
    let scripts = Directory.CreateDirectory(Path.Combine(folder, "scripts")).FullName

    for file in Directory.GetFiles(Path.Combine(root, "scripts"), "*.fsx") do
        File.Copy(file, Path.Combine(scripts, string (Path.GetFileName file)))

    let! _, complaints, code = run (Path.Combine(scripts, "book.fsx")) []
    equal 1 code
    Assert.That(complaints, Does.Contain "built-by-dotnet-fsi-build.fsx-build.fsx")
    Assert.That(complaints, Does.Contain "Unable to find the file 'Tributary.Core.dll'")
    Directory.Delete(folder, true)
}
