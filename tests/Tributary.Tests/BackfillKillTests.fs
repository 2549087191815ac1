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

/// The id of a fill as the Data API tells of it.
let internal idOf (fill: LedgerTrade) =
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

/// Whether a source alone can serve a fill; nothing where it may or may not.
let private isServed source (threeYearsAgo: int64) (bursts: Set<int64>) (fill: LedgerTrade) =
    match source with
    | "v2" when abs (fill.Timestamp - threeYearsAgo) < 3_600L -> ValueNone // the edge moves while one reads
    | "v2" -> ValueSome(fill.SizeMillionths >= 10_000L && fill.Timestamp > threeYearsAgo)
    | "v1" when bursts.Contains fill.Timestamp -> ValueNone
    | "v1" -> ValueSome true
    // The chain, which has no wallets of takers' to compare by: see below.
    | _ -> ValueNone

/// The seconds in which there is more than v1 gives by its offsets.
let private burstsOf (fills: LedgerTrade seq) =
    fills
    |> Seq.countBy _.Timestamp
    |> Seq.filter (fun (_, count) -> count > options.V1Limit + options.V1Offset)
    |> Seq.map fst
    |> set

/// Compares a market's rows with the ledger: what the API told is true and all that its sources serve, and the chain, if it was read, has
/// every fill as often as there is one. Answers how many fills the archive has, which is all before `born`, how many there are before
/// `until`, how many of these the API brought, and the days with bursts.
let private compared
    (simulator: Simulator)
    (store: Store)
    (sources: string)
    (born: Instant)
    (until: Instant)
    (market: Tributary.Market)
    = task {
    let names = sources.Split ','

    let whole =
        match simulator.Fills(string market.Market) with
        | ValueSome found -> Array.ofSeq found
        | ValueNone -> failwith $"the exchange has no {market.Slug}"

    let fills = whole |> Array.filter (fun fill -> seconds fill.Timestamp < until)
    let onChain = Dictionary<_, int>()
    let ids, ofApi = HashSet<TradeId>(), HashSet<TradeId>()

    for fill in fills do
        added (ofLedger fill) onChain 1
        ids.Add(idOf fill) |> ignore

    let part _ (trades: Trade list) = task {
        for trade in trades do
            if trade.Source = Source.Api then
                ofApi.Add trade.Id |> ignore

                if not (ids.Contains trade.Id) then
                    failwith $"no fill of the exchange: {trade}"
            elif trade.Flags &&& Flags.Maker = Flags.None then
                added (tupleOf trade) onChain -1
    }

    do!
        InParts.trades
            store
            market.Exchange
            market.Market
            { Since = seconds 0L; Until = until }
            part
            CancellationToken.None

    if Array.contains "chain" names then
        for KeyValue(fill, left) in onChain do
            if left <> 0 then
                failwith $"{market.Slug}: {fill} is on the chain, and in the store {left} times less"

    // Every fill has an id of its own.
    equal fills.Length ids.Count
    let bursts = burstsOf fills

    match names with
    | [| alone |] ->
        let threeYearsAgo = simulator.Now.AddDays(-3.0 * 365.0).ToUnixTimeSeconds()

        for fill in fills do
            match isServed alone threeYearsAgo bursts fill with
            | ValueSome isServed when isServed <> ofApi.Contains(idOf fill) ->
                failwith $"{market.Slug}: {fill} is served: {isServed}; stored: {not isServed}"
            | _ -> ()
    | _ -> ()

    let days =
        bursts
        |> Set.map (fun second -> (Instant.toDateTimeOffset (seconds second)).ToString "yyyy-MM-dd")

    let ofArchive =
        whole
        |> Array.filter (fun fill -> seconds fill.Timestamp < born)
        |> Array.length

    return struct (ofArchive, ids.Count, ofApi.Count, Set.map (fun day -> market.Slug, day) days)
}

/// What an audit says of each market and day: the verdict, and the reasons.
let private verdictsOf (report: JsonDocument) = [
    for market in report.RootElement.GetProperty("markets").EnumerateArray() do
        for day in market.GetProperty("days").EnumerateArray() do
            let text (name: string) (element: JsonElement) =
                string (element.GetProperty(name).GetString())

            (text "slug" market, text "day" day),
            text "verdict" day,
            [
                for reason in day.GetProperty("reasons").EnumerateArray() -> string (reason.GetString())
            ]
]

/// What the sources cannot give is named, and nothing else.
let private judged sources (bursts: Set<string * string>) (report: JsonDocument) =
    let verdicts = verdictsOf report
    let isComplete = report.RootElement.GetProperty("complete").GetBoolean()

    match sources with
    | "v2" ->
        isTrue (not isComplete)

        for day, verdict, reasons in verdicts do
            Assert.That(verdict, Is.Not.EqualTo "complete", $"{day}")

            for reason in reasons do
                Assert.That([ "dust below 0.01"; "older than 3 years" ], Does.Contain reason, $"{day}")
    | "v1" ->
        isTrue (not isComplete)

        for day, verdict, reasons in verdicts do
            equal (if bursts.Contains day then "degraded" else "complete") verdict
            isTrue (reasons |> List.forall _.StartsWith("truncated"))
    | _ -> isTrue (isComplete && not verdicts.IsEmpty)

// How many fills a millisecond is expected to bring.
[<TestCase("v2,v1,chain", 40)>]
[<TestCase("v2", 250)>]
[<TestCase("v1", 200)>]
[<TestCase("chain", 50)>]
let ``a backfill that is killed again and again ends with every fill once, and its audit says what may be missing``
    (sources: string, pace: int)
    : Task = task {
    let folder = Directory.CreateTempSubdirectory("tributary-backfill-").FullName
    File.WriteAllText(Path.Combine(folder, "config.yaml"), config)
    let random = Random 20261126
    use! simulator = Simulator.StartAsync(options, CancellationToken.None)
    // What is older is the archive.
    let born = Instant.ofDateTimeOffset simulator.Now - options.History
    // What is settled for every source.
    let until = Instant.ofDateTimeOffset simulator.Now - TimeSpan.FromSeconds 90.0

    let arguments = [
        "--markets"
        "*"
        "--source"
        sources
        "--until"
        string until
        "--exchange-url"
        string simulator.Address
        "--log-level"
        "error"
    ]

    let watch = Stopwatch.StartNew()
    // The kills lie within the whole of it.
    let expected = max 4_000 (fills / pace)
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
    let mutable archived, all, ofApi, bursts = 0L, 0L, 0L, Set.empty

    for market in markets do
        let! struct (ofArchive, count, api, days) =
            compared simulator store sources born until market

        archived <- archived + int64 ofArchive
        all <- all + int64 count
        ofApi <- ofApi + int64 api
        bursts <- Set.union bursts days

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

    TestContext.Out.WriteLine
        $"{sources}: {all} fills of {archived} in %.0f{watch.Elapsed.TotalSeconds} s with {killed} kills and {rounds} runs to the end; the API gave {ofApi} of them; {again} pages asked again"

    isTrue (archived >= int64 fills)
    Assert.That(again, Is.LessThanOrEqualTo(8 * (killed + rounds)))
    Assert.That(complaints, Is.Empty)
    judged sources bursts report
    let isComplete = report.RootElement.GetProperty("complete").GetBoolean()

    equal
        (if isComplete then
             Terminal.Exit.Done
         else
             Terminal.Exit.Failed)
        audited

    Directory.Delete(folder, true)
}
