/// A collector that is killed at any moment loses nothing that it had acknowledged. The collector is a process of its own, the exchange
/// is in this one.
module Tributary.Tests.KillTests

open System
open System.Collections.Generic
open System.Diagnostics
open System.IO
open System.Text.Json
open System.Threading
open System.Threading.Tasks
open NUnit.Framework
open Tributary
open Tributary.Cli
open Tributary.Server.Simulator
open Tributary.Stores

/// So many in an ordinary run; `dotnet fsi build.fsx kill` and `kill-questdb` say how many.
let killsOr few =
    match Environment.GetEnvironmentVariable "TRIBUTARY_KILLS" with
    | null
    | "" -> few
    | times -> int times

let private kills = killsOr 2
let private seed = 20261122

/// A program that lies beside the tests.
let program name =
    Path.Combine(AppContext.BaseDirectory, name + ".dll")

/// Starts a program, its arguments behind it; what little it prints is not shown.
let launch (commandLine: string list) =
    let info =
        ProcessStartInfo("dotnet", commandLine, RedirectStandardError = true, RedirectStandardOutput = true)

    Process.Start info |> Option.ofObj |> Option.get

/// Runs `tributary` with more in its environment, and kills it if it does not end in time: its exit code, and what it printed on standard
/// output and standard error.
let tributaryFor (limit: TimeSpan) (environment: (string * string) list) (arguments: string list) = task {
    let info =
        ProcessStartInfo(
            "dotnet",
            program "Tributary.Cli" :: arguments,
            RedirectStandardError = true,
            RedirectStandardOutput = true
        )

    for name, value in environment do
        info.Environment[name] <- value

    use running = Process.Start info |> Option.ofObj |> Option.get
    let output = running.StandardOutput.ReadToEndAsync()
    let errors = running.StandardError.ReadToEndAsync()
    use patience = new CancellationTokenSource(limit)

    try
        do! running.WaitForExitAsync patience.Token
    with :? OperationCanceledException ->
        running.Kill()
        do! running.WaitForExitAsync()

    let! output = output
    let! errors = errors
    return struct (running.ExitCode, output, errors)
}

let tributary environment arguments =
    tributaryFor (TimeSpan.FromMinutes 5.0) environment arguments

let private config =
    """
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

let private run (folder: string) (exchange: Uri) (arguments: string list) =
    launch (
        [
            program "Tributary.Cli"
            "start"
            "--config"
            Path.Combine(folder, "config.yaml")
            "--store"
            Path.Combine(folder, "store.db")
            "--exchange-url"
            string exchange
            "--progress-log"
            Path.Combine(folder, "progress.log")
            "--log-level"
            "error"
        ]
        @ arguments
    )

/// What the collector said it had stored, by job: rows, and the last watermark.
let logged (path: string) =
    let rows = Dictionary<string, int>()
    let marks = Dictionary<string, Instant>()

    for line in File.ReadLines path do
        use entry = JsonDocument.Parse line
        let job = string (entry.RootElement.GetProperty("job").GetString())
        let mutable moment = Instant.ofMicros 0L

        Instant.tryIso
            (ReadOnlySpan(
                Text.Encoding.UTF8.GetBytes(string (entry.RootElement.GetProperty("watermark").GetString()))
            ))
            &moment
        |> ignore

        let before = if rows.ContainsKey job then rows[job] else 0
        rows[job] <- before + entry.RootElement.GetProperty("rows").GetInt32()
        marks[job] <- moment

    rows, marks

[<Test>]
let ``a collector that is killed again and again loses nothing that it had stored`` () = task {
    let folder = Directory.CreateTempSubdirectory("tributary-kill-").FullName
    File.WriteAllText(Path.Combine(folder, "config.yaml"), config)
    let random = Random seed

    use! simulator =
        Simulator.StartAsync(
            {
                SimulatorOptions.Default with
                    Markets = 60
                    TradesPerSecond = 40.0
            },
            Threading.CancellationToken.None
        )

    for _ in 1..kills do
        use collector = run folder simulator.Address []
        // From before the first request to well into collecting.
        do! Task.Delay(random.Next(500, 6000))
        collector.Kill() // SIGKILL
        do! collector.WaitForExitAsync()

    use last = run folder simulator.Address [ "--for"; "8s" ]
    do! Task.Delay 4000
    simulator.Freeze()
    let stopped = DateTimeOffset.UtcNow
    do! last.WaitForExitAsync()
    let! errors = last.StandardError.ReadToEndAsync()
    Assert.That(last.ExitCode, Is.EqualTo Terminal.Exit.Done, errors)

    let store =
        match Sqlite.openForReading (Path.Combine(folder, "store.db")) with
        | Ok store -> store
        | Error fault -> failwithf "%A" fault

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

    TestContext.Out.WriteLine $"{kills} kills:"
    Accounting.lines report |> List.iter TestContext.Out.WriteLine
    Assert.That(report.Unexplained, Is.EqualTo 0, String.concat "\n" (Accounting.lines report))
    Assert.That(report.TradesStored, Is.EqualTo simulator.Ledger.Trades.Length)

    // Every line of the log was earned.
    let rows, marks = logged (Path.Combine(folder, "progress.log"))
    let! trades = store.Trades Query.everything
    let! books = store.Books Query.everything
    let! checkpoints = store.Checkpoints()

    let there =
        Seq.append
            (trades |> Seq.countBy (fun trade -> $"{trade.Exchange}/trades/{trade.Market}"))
            (books
             |> Seq.countBy (fun book -> $"{book.Exchange}/books/{book.Market}/{book.Token}"))
        |> dict

    for KeyValue(job, count) in rows do
        let stored = if there.ContainsKey job then there[job] else 0
        Assert.That(stored, Is.GreaterThanOrEqualTo count, $"{job}: the log has rows that the store has not")

    for checkpoint in checkpoints do
        match marks.TryGetValue checkpoint.Job with
        | true, mark ->
            Assert.That(checkpoint.Watermark.Micros, Is.GreaterThanOrEqualTo mark.Micros, checkpoint.Job)
        | _ -> ()

    // Where the collector was dead, a gap says so.
    let! gaps = store.Gaps Query.everything
    let stops = gaps |> List.filter (fun recorded -> recorded.Gap.Cause = Cause.Stopped)
    Assert.That(rows.Count = 0 || stops.Length > 0, Is.True, "no gap of cause stopped")
    do! store.Close()

    use file = new Connection(Path.Combine(folder, "store.db"), Access.Read)
    use check = file.Prepare "PRAGMA integrity_check"
    equal [ "ok" ] (check.Rows(fun row -> row.Text 0))
    Directory.Delete(folder, true)
}
