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
