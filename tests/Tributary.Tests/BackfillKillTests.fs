/// A backfill that is killed at any moment goes on where it was, and ends with every fill once. The backfill is a process of its own, the
/// exchange is in this one, with every quirk that a history has.
module Tributary.Tests.BackfillKillTests

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
open Tributary.Tests.KillTests

let private setting name few =
    match Environment.GetEnvironmentVariable name with
    | null
    | "" -> few
    | times -> int times

let private fills = setting "TRIBUTARY_FILLS" 60_000
let private markets = setting "TRIBUTARY_MARKETS" 5
let private kills = killsOr 3

/// Limits would make it long, and are another test's matter.
let private config =
    """
collectors:
  polymarket:
    rate_limits:
      data: 100000
      data_trades: 100000
      rpc: 100000
"""

let private options = {
    SimulatorOptions.Default with
        Markets = markets
        Archive = fills
        Limits = false
        TradesPerSecond = 2.0
        History = TimeSpan.FromMinutes 1.0
        V1Limit = 500
        V1Offset = 50
        RpcReorgs = true
        Faults =
            set [
                FaultSwitch.ServerError
                FaultSwitch.Html
                FaultSwitch.CutBody
                FaultSwitch.RepeatedPage
            ]
        FaultRate = 0.002
        LedgerChanges = 100_000
}

let private words (folder: string) (command: string) (arguments: string list) =
    [
        program "Tributary.Cli"
        command
        "--config"
        Path.Combine(folder, "config.yaml")
        "--store"
        Path.Combine(folder, "store.db")
    ]
    @ arguments

/// Runs to the end: the exit code and what was printed.
let private finish (commandLine: string list) = task {
    use running = launch commandLine
    let output = running.StandardOutput.ReadToEndAsync()
    let errors = running.StandardError.ReadToEndAsync()
    do! running.WaitForExitAsync()
    let! output = output
    let! errors = errors
    return struct (running.ExitCode, output, errors)
}

let private tupleOf (trade: Trade) =
    struct (trade.Transaction,
            string trade.Token,
            trade.Side,
            trade.Price.Millionths,
            trade.Size.Millionths,
            trade.At)

let private ofLedger (fill: LedgerTrade) =
    struct (fill.Transaction,
            fill.Token,
            (if fill.Side = "BUY" then Side.Buy else Side.Sell),
            fill.PriceMillionths,
            fill.SizeMillionths,
            seconds fill.Timestamp)

let private idOf (fill: LedgerTrade) =
    Trades.identify
        {
            Exchange = "polymarket"
            Source = Source.Api
            Transaction = fill.Transaction
            Token = fill.Token
            Wallet = fill.Wallet
            Side = if fill.Side = "BUY" then Side.Buy else Side.Sell
            Price = Price.ofMillionths fill.PriceMillionths
            Size = Size.tryOfMillionths(fill.SizeMillionths).Value
            At = seconds fill.Timestamp
        }
        fill.Occurrence

let private added key (counts: Dictionary<'k, int>) by =
    counts[key] <-
        (match counts.TryGetValue key with
         | true, before -> before
         | _ -> 0)
        + by

/// Compares a market's rows with the ledger: what the API told is true, and the chain has every fill as often as there is one. Answers how
/// many fills there are, and how many of them the API brought.
let private compared (simulator: Simulator) (store: Store) (until: Instant) (market: Tributary.Market) = task {
    let truth = Dictionary<_, int>()
    let ids = HashSet<TradeId>()

    match simulator.Fills(string market.Market) with
    | ValueSome found ->
        for fill in found do
            if seconds fill.Timestamp < until then
                added (ofLedger fill) truth 1
                ids.Add(idOf fill) |> ignore
    | ValueNone -> failwith $"the exchange has no {market.Slug}"

    let mutable count, ofApi = ids.Count, 0

    let part _ (trades: Trade list) = task {
        for trade in trades do
            if trade.Source = Source.Api then
                ofApi <- ofApi + 1

                if not (ids.Contains trade.Id) then
                    failwith $"no fill of the exchange: {trade}"
            elif trade.Flags &&& Flags.Maker = Flags.None then
                added (tupleOf trade) truth -1
    }

    do!
        InParts.trades
            store
            market.Exchange
            market.Market
            { Since = seconds 0L; Until = until }
            part
            CancellationToken.None

    for KeyValue(fill, left) in truth do
        if left <> 0 then
            failwith $"{market.Slug}: {fill} is on the chain, and in the store {left} times less"

    return struct (count, ofApi)
}

[<Test>]
let ``a backfill that is killed again and again ends with every fill once, and its audit says complete``
    ()
    : Task = task {
    let folder = Directory.CreateTempSubdirectory("tributary-backfill-").FullName
    File.WriteAllText(Path.Combine(folder, "config.yaml"), config)
    let random = Random 20261126
    use! simulator = Simulator.StartAsync(options, CancellationToken.None)
    // What is settled for every source.
    let until = Instant.ofDateTimeOffset simulator.Now - TimeSpan.FromSeconds 90.0

    let arguments = [
        "--markets"
        "*"
        "--source"
        "v2,v1,chain"
        "--until"
        string until
        "--exchange-url"
        string simulator.Address
        "--log-level"
        "error"
    ]

    let watch = Stopwatch.StartNew()
    // So long takes the whole of it, about: the kills lie within.
    let expected = max 4_000 (fills / 40)
    let mutable killed = 0

    for _ in 1..kills do
        use running = launch (words folder "backfill" arguments)
        do! Task.Delay(random.Next(800, max 1_500 (expected / (kills + 1))))

        if not running.HasExited then
            running.Kill() // SIGKILL
            killed <- killed + 1

        do! running.WaitForExitAsync()

    let mutable code, rounds, errors = -1, 0, ""

    // A request that the faults strike to the end leaves a rest for the next run.
    while code <> Terminal.Exit.Done && rounds < 10 do
        let! struct (exit, _, said) = finish (words folder "backfill" arguments)
        code <- exit
        errors <- said
        rounds <- rounds + 1

    Assert.That(code, Is.EqualTo Terminal.Exit.Done, errors)

    let store =
        match Sqlite.openForReading (Path.Combine(folder, "store.db")) with
        | Ok store -> store
        | Error fault -> failwithf "%A" fault

    let! markets = store.Markets()
    let mutable all, ofApi = 0L, 0L

    for market in markets do
        let! struct (count, api) = compared simulator store until market
        all <- all + int64 count
        ofApi <- ofApi + int64 api

    do! store.Close()

    // Asked again after a kill: one page of each walk that was going on.
    let again =
        simulator.Ledger.Requests
        |> Seq.filter (fun request ->
            request.Status = 200
            && request.Fault.IsNone
            && request.PathAndQuery.Contains "cursor=")
        |> Seq.countBy _.PathAndQuery
        |> Seq.sumBy (fun (_, times) -> times - 1)

    let! struct (audited, printed, complaints) =
        finish (words folder "audit" [ "--until"; string until; "--json" ])

    use report = JsonDocument.Parse(if printed = "" then "{}" else printed)

    let line =
        $"{all} fills in %.0f{watch.Elapsed.TotalSeconds} s with {killed} kills and {rounds} runs to the end; the API gives {ofApi} of them; {again} pages asked again"

    TestContext.Out.WriteLine line
    isTrue (all >= int64 fills)
    Assert.That(again, Is.LessThanOrEqualTo(8 * (killed + rounds)))

    Assert.That(
        audited,
        Is.EqualTo Terminal.Exit.Done,
        complaints + printed.Substring(0, min 2_000 printed.Length)
    )

    isTrue (report.RootElement.GetProperty("complete").GetBoolean())
    Directory.Delete(folder, true)
}
