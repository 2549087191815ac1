module Tributary.Tests.ArchiveTests

open System
open System.Collections.Generic
open System.Threading
open System.Threading.Tasks
open Microsoft.Extensions.Logging.Abstractions
open NUnit.Framework
open Tributary
open Tributary.Server.Simulator
open Tributary.Stores
open Tributary.Tests.Stores

// Backfills of the simulated exchange's archive, over real sockets into a real file.

let private options = {
    SimulatorOptions.Default with
        Markets = 4
        Archive = 12_000
        Limits = false
        History = TimeSpan.FromMinutes 1.0
        V1Limit = 200
        V1Offset = 300
}

let private idOf = BackfillKillTests.idOf

let private silent = {
    new IProgress<BackfillProgress> with
        member _.Report _ = ()
}

/// No test waits for limits: the simulated exchange has none of them here.
let private settingsFor (simulator: Simulator) =
    let settings =
        (Settings.defaults Setup.known |> Setup.askingAt simulator.Address).Collectors.Head

    {
        settings with
            RateLimits = settings.RateLimits |> Map.map (fun _ _ -> 1_000_000)
    }

let private backfill (simulator: Simulator) store order =
    Backfill.run
        (settingsFor simulator)
        Validation.defaults
        store
        TimeProvider.System
        Logs.none
        order
        silent
        CancellationToken.None

let private everything names = {
    BackfillOrder.everything [ Selection.Pattern "*" ] with
        Sources = names
}

let private started options = task {
    let! simulator = Simulator.StartAsync(options, CancellationToken.None)
    simulator.Freeze()
    return simulator
}

let private ok result =
    match result with
    | Ok value -> value
    | Error fault -> failwith $"{fault}"

/// The fills of all markets that a store has descriptions of.
let private fillsOf (simulator: Simulator) (store: Store) = task {
    let! markets = store.Markets()

    return [|
        for market in markets do
            match simulator.Fills(string market.Market) with
            | ValueSome fills -> yield! fills
            | ValueNone -> ()
    |]
}

let private stored (store: Store) = task {
    let! trades = store.Trades Query.everything
    return trades |> List.map _.Id |> HashSet
}

let private threeYearsAgo (simulator: Simulator) =
    simulator.Now.AddDays(-3.0 * 365.0).ToUnixTimeSeconds()

/// Seconds in which a market had more fills than v1 gives by its offsets.
let private tooMany (options: SimulatorOptions) (fills: LedgerTrade[]) =
    fills
    |> Array.countBy (fun fill -> struct (fill.Condition, fill.Timestamp))
    |> Array.filter (fun (_, count) -> count > options.V1Limit + options.V1Offset)
    |> Array.map fst
    |> set

[<Test>]
let ``the archive has what makes a history hard`` () : Task = task {
    let! simulator = started options
    use _ = simulator
    let store = Memory.create "test"

    let! _ =
        backfill simulator store {
            everything [ "v2" ] with
                Since = Instant.ofDateTimeOffset simulator.Now - TimeSpan.FromMinutes 1.0
        }

    let! fills = fillsOf simulator store
    isTrue (fills.Length >= 12_000)
    isTrue (fills |> Array.exists (fun fill -> fill.Occurrence > 0))
    isTrue (fills |> Array.exists (fun fill -> fill.SizeMillionths < 10_000L))
    isTrue (fills |> Array.exists (fun fill -> fill.Timestamp < threeYearsAgo simulator))
    isTrue (not (tooMany options fills).IsEmpty)
    // Numbers and times lead to the same fills.
    equal fills.Length (fills |> Array.map idOf |> Array.distinct |> Array.length)

    let ofMarket = fills |> Array.groupBy _.Condition

    for _, some in ofMarket do
        equal (some |> Array.map _.Timestamp |> Array.sort) (some |> Array.map _.Timestamp)
}

[<Test>]
let ``v1 and v2 together bring every fill once, and what neither gives whole is a gap`` () : Task = task {
    let! simulator = started options
    use _ = simulator
    let store = Memory.create "test"
    let! answer = backfill simulator store (everything [])
    isTrue (ok answer |> List.forall _.IsDone)
    let! fills = fillsOf simulator store
    let! ids = stored store
    let truth = fills |> Array.map idOf |> HashSet
    // Nothing is made up.
    equal 0 (ids |> Seq.filter (truth.Contains >> not) |> Seq.length)
    let bursts = tooMany options fills
    let! gaps = store.Gaps Query.everything

    let truncated =
        gaps
        |> List.filter (fun gap -> gap.Gap.Cause = Cause.Truncated)
        |> List.map (fun gap -> struct (string gap.Gap.Market, gap.Gap.Since.Micros / 1_000_000L))
        |> set

    equal Set.empty (Set.difference bursts truncated)

    for fill in fills do
        if not (ids.Contains(idOf fill)) then
            // Dust in a burst, or a burst that is older than what v2 serves.
            isTrue (truncated.Contains(struct (fill.Condition, fill.Timestamp)))

            isTrue (
                fill.SizeMillionths < 10_000L
                || fill.Timestamp < threeYearsAgo simulator + 86_400L
            )
}

[<Test>]
let ``v2 alone brings all but dust and what is older than three years`` () : Task = task {
    let! simulator = started options
    use _ = simulator
    let store = Memory.create "test"
    let! answer = backfill simulator store (everything [ "v2" ])
    isTrue (ok answer |> List.forall _.IsDone)
    let! fills = fillsOf simulator store
    let! ids = stored store

    for fill in fills do
        let isServed =
            fill.SizeMillionths >= 10_000L && fill.Timestamp >= threeYearsAgo simulator

        // The edge moves while one reads.
        if abs (fill.Timestamp - threeYearsAgo simulator) > 60L then
            equal isServed (ids.Contains(idOf fill))
}

[<TestCase(true)>]
[<TestCase(false)>]
let ``v1 alone brings all but what is too much for its offsets`` (repeats: bool) : Task = task {
    let! simulator = started { options with V1Repeats = repeats }
    use _ = simulator
    let store = Memory.create "test"
    let! answer = backfill simulator store (everything [ "v1" ])
    isTrue (ok answer |> List.forall _.IsDone)
    let! fills = fillsOf simulator store
    let! ids = stored store
    let truth = fills |> Array.map idOf |> HashSet
    equal 0 (ids |> Seq.filter (truth.Contains >> not) |> Seq.length)
    let bursts = tooMany options fills

    for fill in fills do
        if not (bursts.Contains(struct (fill.Condition, fill.Timestamp))) then
            isTrue (ids.Contains(idOf fill))
}

[<Test>]
let ``faults on the way change nothing of what is stored`` () : Task = task {
    let! simulator =
        started {
            options with
                Archive = 4_000
                V1Limit = 10_000
                Faults =
                    set [
                        FaultSwitch.ServerError
                        FaultSwitch.Html
                        FaultSwitch.CutBody
                        FaultSwitch.RepeatedPage
                    ]
                FaultRate = 0.04
        }

    use _ = simulator
    let store = Memory.create "test"
    let mutable isDone, rounds = false, 0

    while not isDone && rounds < 20 do
        let! answer = backfill simulator store (everything [])
        rounds <- rounds + 1

        isDone <-
            match answer with
            | Ok results -> results |> List.forall _.IsDone
            | Error _ -> false

    isTrue isDone
    let! fills = fillsOf simulator store
    let! ids = stored store
    equal (fills |> Array.map idOf |> set) (set ids)
}

/// What the chain says of a fill, from the taker's view.
let private ofChain (trade: Trade) =
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

[<TestCase(false, false)>]
[<TestCase(true, false)>]
[<TestCase(false, true)>]
let ``the chain alone brings every fill once, and its maker's part beside it``
    (plain: bool, reorgs: bool)
    : Task = task {
    let! simulator =
        Simulator.StartAsync(
            {
                options with
                    RpcPlain = plain
                    RpcReorgs = reorgs
                    TradesPerSecond = 30.0
                    History = TimeSpan.FromMinutes 3.0
            },
            CancellationToken.None
        )

    use _ = simulator
    let store = Memory.create "test"
    let! answer = backfill simulator store (everything [ "chain" ])
    isTrue (ok answer |> List.forall _.IsDone)
    let! fills = fillsOf simulator store
    let! trades = store.Trades Query.everything
    let! checkpoints = store.Checkpoints()

    let coverages = Plan.coverage checkpoints.Head.Exchange checkpoints
    // Some closed ones come on top.
    isTrue (coverages.Length >= 4 && trades.Length > 2 * 12_000 - 1)

    for coverage in coverages do
        let isRead (at: Instant) =
            Intervals.covers
                {
                    Since = at
                    Until = at + TimeSpan.FromSeconds 1.0
                }
                coverage.Read

        let expected =
            fills
            |> Array.filter (fun fill ->
                fill.Condition = string coverage.Market && isRead (seconds fill.Timestamp))
            |> Array.map ofLedger
            |> Array.sort

        let mine =
            trades
            |> List.filter (fun trade -> trade.Market = coverage.Market && isRead trade.At)

        let makers, takers =
            mine |> List.partition (fun trade -> trade.Flags.HasFlag Flags.Maker)

        // Fills of less than a share may be paid to a millionth more or less.
        let large (struct (_, _, _, _, size, _)) = size >= 1_000_000L

        equal
            (Array.filter large expected)
            (takers |> List.map ofChain |> List.filter large |> Array.ofList |> Array.sort)

        equal expected.Length takers.Length
        equal takers.Length makers.Length
        // The newest blocks may still be replaced.
        isTrue (
            (List.last coverage.Read).Until <
                Instant.ofDateTimeOffset simulator.Now - TimeSpan.FromSeconds 60.0
        )
}

[<Test>]
let ``logs of a layout that nobody knows are counted`` () : Task = task {
    let! simulator = started { options with RpcUnknown = 1_000_000 }
    use _ = simulator
    let store = Memory.create "test"

    let! answer =
        backfill simulator store {
            everything [ "chain" ] with
                Since = Instant.ofDateTimeOffset simulator.Now - TimeSpan.FromDays 60.0
        }

    isTrue (ok answer |> List.forall _.IsDone)
    let! checkpoints = store.Checkpoints()

    for coverage in Plan.coverage checkpoints.Head.Exchange checkpoints do
        isTrue (coverage.Unknown >= 4L && coverage.Unknown <= 6L)
}

[<Test>]
let ``the price history of both tokens is read in ranges that the exchange takes`` () : Task = task {
    let! simulator = started options
    use _ = simulator
    let store = Memory.create "test"
    let now = Instant.ofDateTimeOffset simulator.Now

    let! answer =
        backfill simulator store {
            everything [ "prices" ] with
                Since = now - TimeSpan.FromDays 40.0
        }

    isTrue (ok answer |> List.forall _.IsDone)
    let! prices = store.Prices Query.everything
    let! markets = store.Markets()
    let! checkpoints = store.Checkpoints()

    for market in markets |> List.filter (fun market -> market.Status = MarketStatus.Open) do
        match simulator.Fills(string market.Market) with
        | ValueNone -> failwith market.Slug
        | ValueSome fills ->
            let fills = Array.ofSeq fills

            for token in market.Tokens do
                let own = prices |> List.filter (fun point -> point.Token = token)
                // Every minute of forty days, but for the last ones.
                isTrue (own.Length > 40 * 1_440 - 10 && own.Length <= 40 * 1_440 + 1)

                for point in own |> List.indexed |> List.filter (fun (i, _) -> i % 977 = 0) |> List.map snd do
                    let last = fills |> Array.findBack (fun fill -> seconds fill.Timestamp <= point.At)

                    let expected =
                        if last.Token = string token then
                            last.PriceMillionths
                        else
                            1_000_000L - last.PriceMillionths

                    equal expected point.Price.Millionths

    // What was read is not asked for again.
    let coverage = Plan.coverage checkpoints.Head.Exchange checkpoints

    isTrue (
        coverage
        |> List.forall (fun one ->
            one.Source = "prices" && Intervals.length one.Read >= TimeSpan.FromDays 39.9)
    )
}

/// What an audit of all markets says of a store.
let private audited (store: Store) until = task {
    do! store.Flush CancellationToken.None
    let collector = Setup.collector (Settings.defaults Setup.known).Collectors.Head

    let! report =
        Audits.run
            collector
            store
            (fun _ -> true)
            {
                Since = Instant.ofMicros Int64.MinValue
                Until = until
            }
            {
                new TimeProvider() with
                    override _.GetUtcNow() = Instant.toDateTimeOffset until
            }
            ignore
            CancellationToken.None

    return report
}

[<Test>]
let ``the same data has the same digest, in whatever order it came and in whatever store`` () : Task = task {
    let! simulator =
        started {
            options with
                Archive = 3_000
                V1Limit = 10_000
        }

    use _ = simulator
    use! server = QuestDbSupport.startServer ()
    let folder = Vocabulary.temporaryFolder ()
    let until = Instant.ofDateTimeOffset simulator.Now - TimeSpan.FromMinutes 10.0

    let sqlite =
        match Sqlite.openForWriting (IO.Path.Combine(folder, "one.db")) "main" Synchronous.Normal with
        | Ok store -> store
        | Error fault -> failwith $"{fault}"

    let questdb =
        QuestDbSupport.openAs (QuestDbSupport.settingsFor folder server "questdb")

    let digests = List<UInt128>()

    for store, orders in
        [
            Memory.create "test", [ [ "v1" ]; [ "v2" ]; [ "chain" ] ]
            sqlite, [ [ "chain" ]; [ "v2"; "v1" ]; [ "v2" ] ]
            questdb, [ [ "v2"; "chain"; "v1" ]; [ "chain" ] ]
        ] do
        for names in orders do
            let! answer =
                backfill simulator store {
                    everything names with
                        Until = ValueSome until
                }

            isTrue (ok answer |> List.forall _.IsDone)

        let! report = audited store until
        isTrue (Audit.isComplete report)
        digests.Add(Audit.digest report)

    do! sqlite.Close()
    do! questdb.Close()
    equal [ digests[0] ] (List.ofSeq (Seq.distinct digests))
    isTrue (digests[0] <> UInt128.Zero)
    IO.Directory.Delete(folder, true)
}
