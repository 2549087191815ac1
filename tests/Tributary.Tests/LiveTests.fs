/// Live books and fills end to end, over real sockets against the simulated exchange: whatever happens to a connection, its books come
/// back, every hole is a row, and nobody else has one.
[<NUnit.Framework.Parallelizable(NUnit.Framework.ParallelScope.None)>]
module Tributary.Tests.LiveTests

open System
open System.Collections.Generic
open System.Threading.Tasks
open Microsoft.Extensions.Logging.Abstractions
open NUnit.Framework
open Tributary
open Tributary.Server.Simulator
open Tributary.Stores
open Tributary.Tests.EngineTests

let private sound = {
    SimulatorOptions.Default with
        Markets = 12
        Limits = false
        TradesPerSecond = 5.0
        MessagesPerSecond = 100.0
}

/// As many messages, and an exchange on which ten seconds pass in one; its clock is behind ours.
let private quick () = {
    sound with
        Speed = 10.0
        Start = ValueSome(DateTimeOffset.UtcNow.AddHours -1.0)
        TradesPerSecond = 0.5
        MessagesPerSecond = 10.0
}

let private cadence: ScheduleSettings = {
    Books = ms 500
    Trades = ms 1000
    Markets = ms 60_000
    Jitter = 0.05
}

/// Four connections at least, and short times.
let private changed (collector: CollectorSettings) = {
    collector with
        Live = {
            collector.Live with
                Enabled = true
                TokensPerConnection = 6
                CompareEvery = ms 2000
                DeadAfter = ms 3000
        }
}

let private start (bench: Bench) =
    bench.Cadence <- cadence
    bench.StartWith(bench.OpenStore(), changed)

/// Waits until something is so, without asking too often.
let private until (bench: Bench) what (condition: unit -> Task<bool>) = task {
    let limit = DateTime.UtcNow.AddSeconds 40.0
    let! isSo = condition ()
    let mutable isSo = isSo

    while not isSo do
        if DateTime.UtcNow > limit then
            let log = String.Join("\n", bench.Words.All)
            failwith $"it took too long until {what}\n{log}"

        do! Task.Delay 100
        let! now = condition ()
        isSo <- now
}

/// The gaps of live books, by token.
let private holes (bench: Bench) = task {
    let! gaps = bench.Gaps()

    return
        gaps
        |> List.map _.Gap
        |> List.filter (fun gap -> gap.Stream = Stream.Depth)
        |> List.groupBy (fun gap -> string gap.Token.Value)
        |> Map.ofList
}

let private isClosed (gaps: Gap list) = gaps |> List.forall _.Until.IsSome

/// Waits until each of these tokens has had a gap, and none has one any more.
let private healed (bench: Bench) what (tokens: Set<string>) =
    until bench what (fun () -> task {
        let! holes = holes bench

        return
            tokens
            |> Set.forall (fun token ->
                match Map.tryFind token holes with
                | Some gaps -> isClosed gaps
                | None -> false)
    })

/// Only these tokens had gaps; and of one of these causes.
let private onlyOf (bench: Bench) (tokens: Set<string>) (causes: Cause list) = task {
    let! holes = holes bench

    for KeyValue(token, gaps) in holes do
        if not (tokens.Contains token) then
            Assert.Fail $"nothing was wrong with {token}, but it has %A{gaps}"

        for gap in gaps do
            if not (List.contains gap.Cause causes) then
                Assert.Fail $"expected a cause of %A{causes}: %A{gap}"
}

let private opened (bench: Bench) = [
    for connection in bench.Simulator.Ledger.Connections do
        if connection.Ended.IsNone then
            connection
]

/// Waits until so many tokens are subscribed and their books have had time to come; the tokens of each connection.
let private settled (bench: Bench) (tokens: int) = task {
    do!
        until bench "all tokens are subscribed" (fun () ->
            Task.FromResult(opened bench |> List.sumBy _.Tokens.Length = tokens))

    do! Task.Delay 1500

    return
        Map.ofList [
            for connection in opened bench -> connection.Session, Set.ofArray connection.Tokens
        ]
}

let private struck (bench: Bench) fault = [
    for injection in bench.Simulator.Ledger.Injections do
        if injection.Kind = StreamFault.name fault then
            injection
]

/// Lets a fault strike some of these connections; their tokens.
let private strike (bench: Bench) fault (connections: Map<int, Set<string>>) = task {
    bench.Simulator.StreamFaults <- Set.singleton fault

    let sessions () =
        struck bench fault
        |> List.map _.Session
        |> List.filter connections.ContainsKey
        |> List.distinct

    let limit = DateTime.UtcNow.AddSeconds 30.0

    while (sessions ()).IsEmpty do
        isTrue (DateTime.UtcNow < limit)
        do! Task.Delay 10

    bench.Simulator.StreamFaults <- Set.empty
    let sessions = sessions ()
    return sessions, sessions |> List.map (fun session -> connections[session]) |> Set.unionMany
}

let private nowMillis (bench: Bench) =
    bench.Simulator.Now.ToUnixTimeMilliseconds()

/// The exchange stands still, the engine stops, and every book is proven up to its last change.
let private finish (bench: Bench) (engine: Engine) = task {
    bench.Simulator.Freeze()
    do! Task.Delay 1500
    let! report = engine.StopAsync(TimeSpan.FromSeconds 10.0)
    equal None report.Undrained
    let! checkpoints = bench.Read _.Checkpoints()

    for checkpoint in checkpoints do
        if checkpoint.Stream = Stream.Depth then
            let token = string checkpoint.Token.Value

            match bench.Simulator.Ledger.BookAt(token, nowMillis bench) with
            | ValueSome truth ->
                let proven = checkpoint.Watermark.Micros / 1000L

                if proven <> truth.Timestamp then
                    let log = String.Join("\n", bench.Words.All)
                    Assert.Fail $"{token} is proven up to {proven}, and changed at {truth.Timestamp}\n{log}"
            | ValueNone -> Assert.Fail $"there is no book of {token}"

    equal [] (bench.Words.With "bug of ours")
}

[<Test>]
let ``fills of the stream are linked to those of the API, while it runs and when it stops`` () =
    with'
        {
            sound with
                Start = ValueSome(DateTimeOffset.UtcNow.AddMinutes -2.0)
                Markets = 6
                TradesPerSecond = 30.0
        }
        (fun bench -> task {
            bench.Cadence <- cadence
            let! engine = bench.StartWith(bench.OpenStore(), changed)

            do!
                until bench "fills are linked" (fun () -> task {
                    let! status = engine.StatusAsync()
                    return count Count.linked [] status > 10
                })

            do! bench.Finish engine
            let! links = bench.Read _.Links()
            let! trades = bench.Read(fun store -> store.Trades Query.everything)
            let byId = Dictionary<TradeId, Trade>()

            for trade in trades do
                byId[trade.Id] <- trade

            let ofSource source =
                trades |> List.filter (fun trade -> trade.Source = source)

            for link in links do
                let api, stream = byId[link.Trade], byId[link.Other]
                equal (Source.Api, Source.Stream) (api.Source, stream.Source)

                equal
                    (api.Transaction, api.Token, api.Side, api.Price)
                    (stream.Transaction, stream.Token, stream.Side, stream.Price)

            let sum ids =
                ids |> List.sumBy (fun id -> byId[id].Size.Millionths)

            for stream, parts in links |> List.groupBy _.Other do
                if parts.Length > 1 then
                    equal (sum [ stream ]) (parts |> List.map _.Trade |> sum)

            for api, parts in links |> List.groupBy _.Trade do
                let whole = parts |> List.map _.Other |> sum
                // One of the stream's that stands for several of the API's was summed above.
                isTrue (whole >= sum [ api ])

                if parts.Length > 1 then
                    equal (sum [ api ]) whole

            let linked = links |> List.map _.Other |> Set.ofList

            let alone =
                ofSource Source.Stream
                |> List.filter (fun trade -> not (linked.Contains trade.Id))

            equal [] alone
            isTrue (linked.Count > 50)
            use file = new Connection(bench.Path, Access.Read)
            equal (int64 (ofSource Source.Api).Length) (file.Number "SELECT count(*) FROM fills")
            equal 0L (file.Number "SELECT count(*) FROM fills WHERE NOT confirmed")
            let! status = engine.StatusAsync()
            equal linked.Count (count Count.linked [] status)
            equal 0 (count Count.unconfirmed [] status)
        })

[<Test>]
let ``fills that the stream told of before a stop are linked after the next start`` () =
    with'
        {
            sound with
                Markets = 6
                TradesPerSecond = 30.0
        }
        (fun bench -> task {
            bench.Cadence <- { cadence with Trades = ms 60_000 }
            let! first = bench.StartWith(bench.OpenStore(), changed)
            let! _ = settled bench 12
            do! Task.Delay 2000
            let! _ = first.StopAsync(TimeSpan.FromSeconds 10.0)
            let! trades = bench.Read(fun store -> store.Trades Query.everything)
            isTrue (trades |> List.exists (fun trade -> trade.Source = Source.Stream))
            let! second = start bench
            do! bench.Finish second
            use file = new Connection(bench.Path, Access.Read)
            equal 0L (file.Number "SELECT count(*) FROM fills WHERE NOT confirmed")
        })

[<Test>]
let ``a connection that is half open is replaced, and each of its books has a gap that closes`` () =
    with' (quick ()) (fun bench -> task {
        let! engine = start bench
        let! connections = settled bench 24
        let! sessions, tokens = strike bench StreamFault.HalfOpen connections
        do! healed bench "the books of a half-open connection came back" tokens
        do! onlyOf bench tokens [ Cause.Starved ]
        // The same tokens, elsewhere.
        let elsewhere =
            opened bench
            |> List.filter (fun connection -> not (List.contains connection.Session sessions))
            |> Seq.collect _.Tokens
            |> Set.ofSeq

        equal 24 elsewhere.Count
        do! finish bench engine
    })

[<Test>]
let ``a connection that says nothing but PONG is replaced once polls show that its books moved on`` () =
    with' (quick ()) (fun bench -> task {
        let! engine = start bench
        let! connections = settled bench 24
        let! sessions, tokens = strike bench StreamFault.SilentSocket connections

        do!
            until bench "a silent connection was replaced" (fun () -> task {
                let! holes = holes bench

                let moved =
                    opened bench
                    |> List.filter (fun connection -> not (List.contains connection.Session sessions))
                    |> Seq.collect _.Tokens
                    |> Set.ofSeq

                return
                    not holes.IsEmpty
                    && holes |> Map.forall (fun _ -> isClosed)
                    && Set.isSubset tokens moved
            })

        do! onlyOf bench tokens [ Cause.Starved ]
        do! finish bench engine
        do! onlyOf bench tokens [ Cause.Starved ]
    })

[<Test>]
let ``first books that are withheld are asked for again`` () =
    with'
        {
            sound with
                StreamFaults = Set.singleton StreamFault.WithheldBooks
        }
        (fun bench -> task {
            let! engine = start bench
            let! _ = settled bench 24

            let tokens =
                struck bench StreamFault.WithheldBooks |> Seq.collect _.Tokens |> Set.ofSeq

            isTrue (tokens.Count > 0)
            do! healed bench "withheld books came" tokens
            do! onlyOf bench tokens [ Cause.Starved ]
            do! finish bench engine
        })

[<Test>]
let ``tokens that fall silent are subscribed anew, and the others of their connection have no gap`` () =
    with'
        {
            quick () with
                StreamFaults = Set.singleton StreamFault.SilentAssets
        }
        (fun bench -> task {
            let! engine = start bench
            let! _ = settled bench 24
            // What was chosen falls silent within three of our seconds.
            do! Task.Delay 3500
            bench.Simulator.StreamFaults <- Set.empty

            let silent = [
                for injection in struck bench StreamFault.SilentAssets do
                    for token in injection.Tokens do
                        token, injection.At
            ]

            isTrue (not silent.IsEmpty)
            do! Task.Delay 500

            let changed =
                Set.ofList [
                    for token, since in silent do
                        match bench.Simulator.Ledger.BookAt(token, nowMillis bench) with
                        | ValueSome truth when truth.Timestamp * 1000L > since -> token
                        | _ -> ()
                ]

            isTrue (not changed.IsEmpty)
            do! healed bench "silent tokens came back" changed
            do! onlyOf bench (silent |> List.map fst |> Set.ofList) [ Cause.Starved ]
            do! finish bench engine
        })

[<Test>]
let ``whatever a connection is closed with, it is made again`` () =
    with' (quick ()) (fun bench -> task {
        let! engine = start bench
        let! connections = settled bench 24
        let! _, first = strike bench StreamFault.Close connections
        do! healed bench "the books of a closed connection came back" first
        do! onlyOf bench first [ Cause.Disconnect ]

        let connections =
            Map.ofList [
                for connection in opened bench -> connection.Session, Set.ofArray connection.Tokens
            ]

        let! _, second = strike bench StreamFault.Close connections
        do! healed bench "the books of a closed connection came back again" second
        do! onlyOf bench (first + second) [ Cause.Disconnect ]
        do! finish bench engine
    })

[<Test>]
let ``markets of new windows are followed before they open, and when they resolve their last book and the winner are stored``
    ()
    =
    // A window ends at a whole quarter of an hour of the exchange's time.
    let quarter = 900L
    let now = DateTimeOffset.UtcNow.ToUnixTimeSeconds()
    let opens = (now - 3600L) / quarter * quarter

    with'
        {
            sound with
                Markets = 2
                Speed = 100.0
                Start = ValueSome(DateTimeOffset.FromUnixTimeSeconds(opens - 160L))
                TradesPerSecond = 0.1
                MessagesPerSecond = 0.1
                NewMarketEvery = TimeSpan.FromSeconds 150.0
                StreamFaults = Set.singleton StreamFault.Repeats
        }
        (fun bench -> task {
            bench.Cadence <- cadence

            // Somebody has to be listened to when the first one is announced.
            let! found =
                Ask.markets
                    {
                        (Setup.askingAt bench.Simulator.Address (Settings.defaults Setup.known))
                            .Collectors.Head with
                            Discovery.Enabled = true
                    }
                    TimeProvider.System
                    Logs.none
                    System.Threading.CancellationToken.None

            let slug = (fst (good found).Choices.Head).Slug

            let! engine =
                bench.StartWith(
                    bench.OpenStore(),
                    fun collector -> {
                        changed collector with
                            Discovery = {
                                collector.Discovery with
                                    Slugs = [ "btc-updown-15m-*"; slug ]
                            }
                    }
                )

            let windows () = task {
                let! markets = bench.Read _.Markets()
                return markets |> List.filter _.Slug.StartsWith("btc-updown-15m-")
            }

            do!
                until bench "a window resolved" (fun () -> task {
                    let! windows = windows ()
                    return windows |> List.exists (fun market -> market.Status = MarketStatus.Resolved)
                })

            do! Task.Delay 500
            bench.Simulator.StreamFaults <- Set.empty
            let! report = engine.StopAsync(TimeSpan.FromSeconds 10.0)
            equal None report.Undrained
            let! windows = windows ()
            let! books = bench.Read(fun store -> store.Books Query.everything)

            let resolved =
                windows |> List.filter (fun market -> market.Status = MarketStatus.Resolved)

            for market in resolved do
                isTrue (market.Outcomes |> Array.exists (fun outcome -> outcome.Name = market.Winner))

                for token in market.Tokens do
                    // A poll may have brought the same book before.
                    match bench.Simulator.Ledger.BookAt(string token, nowMillis bench) with
                    | ValueSome truth ->
                        books
                        |> List.exists (fun book ->
                            book.Token = token && book.At.Micros / 1000L = truth.Timestamp)
                        |> isTrue
                    | ValueNone -> Assert.Fail $"there is no book of {market.Slug}"

            // The first of all appears ten of its seconds before its window.
            let opening (market: Tributary.Market) =
                Int64.Parse(market.Slug.Substring "btc-updown-15m-".Length)

            let later = windows |> List.filter (fun market -> opening market > opens)
            let mutable followed = 0

            for market in later do
                for token in market.Tokens do
                    match books |> List.tryFind (fun book -> book.Token = token) with
                    | Some first ->
                        followed <- followed + 1
                        isTrue (first.At < seconds (opening market))
                    | None -> () // It has just been announced.

            isTrue (followed >= 2)

            // Many times on the wire, once here.
            isTrue (not (struck bench StreamFault.Repeats).IsEmpty)

            for market in windows do
                let announced = bench.Words.With market.Slug |> List.filter _.Contains("announces")

                isTrue (announced.Length <= 1)

            isTrue (bench.Words.With "announces" |> List.length >= 3)
            let! holes = holes bench
            let ended = resolved |> Seq.collect _.Tokens |> Seq.map string |> Set.ofSeq

            isTrue (
                holes
                |> Map.forall (fun token gaps -> not (ended.Contains token) || isClosed gaps)
            )

            equal [] (bench.Words.With "bug of ours")
        })

[<Test>]
let ``between two runs live books have a gap that their first book closes, and what was before is still there``
    ()
    =
    with' sound (fun bench -> task {
        let! first = start bench
        let! _ = settled bench 24
        do! Task.Delay 2500
        let moment = bench.Now - ms 200
        let! report = first.StopAsync(TimeSpan.FromSeconds 10.0)
        equal None report.Undrained
        do! Task.Delay 700
        let! second = start bench

        let isStopped (gap: Gap) = gap.Cause = Cause.Stopped

        do!
            until bench "the gaps of the stop closed" (fun () -> task {
                let! holes = holes bench

                return
                    holes.Count = 24
                    && holes |> Map.forall (fun _ gaps -> List.exists isStopped gaps && isClosed gaps)
            })

        let! holes = holes bench

        for gaps in holes.Values do
            equal [ true ] (gaps |> List.map isStopped)

        do! finish bench second
        let mutable known = 0

        do!
            bench.Read(fun store -> task {
                for KeyValue(token, gaps) in holes do
                    // A hole begins with the last change that was proven, which of a quiet book is long before the stop.
                    let moment = min moment (gaps.Head.Since - ms 1)
                    let! extent = Rebuild.extent store (token |> TokenId.Parse |> good)
                    let! answer = Rebuild.bookAt store extent moment

                    match answer, bench.Simulator.Ledger.BookAt(token, moment.Micros / 1000L) with
                    | BookAt.Known book, ValueSome truth ->
                        known <- known + 1
                        equal (BookCommandTests.truly truth.Bids) (BookCommandTests.ours book.Bids)
                        equal (BookCommandTests.truly truth.Asks) (BookCommandTests.ours book.Asks)
                    // It has not changed since its first book.
                    | BookAt.NotKnown(_, _, Ignorance.Before), _ -> ()
                    | answer, _ -> Assert.Fail $"{token}: %A{answer}"
            })

        isTrue (known >= 12)
    })
