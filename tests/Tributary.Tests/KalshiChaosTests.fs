/// Live books of the simulated Kalshi while it loses, repeats and disorders its messages, over real sockets: every loss is a gap, and every
/// book that is called verified is the true one.
[<NUnit.Framework.Parallelizable(NUnit.Framework.ParallelScope.None)>]
module Tributary.Tests.KalshiChaosTests

open System
open System.Collections.Generic
open System.IO
open System.Security.Cryptography
open System.Threading
open System.Threading.Tasks
open Microsoft.Extensions.Logging
open NUnit.Framework
open Tributary
open Tributary.Server.Simulator
open Tributary.Stores

let private sound (result: Result<'t, 'e>) =
    match result with
    | Ok value -> value
    | Error fault -> failwith (string fault)

/// A collector of everything that an exchange of this venue has, for so long; then the exchange behaves, and what is left heals.
let private collect
    (options: SimulatorOptions)
    (lasting: TimeSpan)
    (judge: Simulator -> Store -> Words -> Task<unit>)
    : Task = task {
    use key = RSA.Create 2048

    let! simulator =
        Simulator.StartAsync(
            {
                options with
                    PublicKey = key.ExportSubjectPublicKeyInfoPem()
            },
            CancellationToken.None
        )

    use _ = simulator
    let folder = Directory.CreateTempSubdirectory("tributary-kalshi-").FullName
    let path = Path.Combine(folder, "store.db")

    let settings =
        Settings.defaults Setup.known
        |> Setup.preferring (Venue.name options.Venue)
        |> sound
        |> Setup.askingAt simulator.Address
        |> Setup.onFirst (fun collector -> {
            collector with
                Discovery = {
                    collector.Discovery with
                        Enabled = true
                }
                Live = {
                    collector.Live with
                        CompareEvery = TimeSpan.FromSeconds 2.0
                        DeadAfter = TimeSpan.FromSeconds 3.0
                }
        })
        |> Setup.every (TimeSpan.FromSeconds 2.0) (TimeSpan.FromSeconds 2.0) (TimeSpan.FromSeconds 60.0)

    let collectorOf (settings: CollectorSettings) =
        settings
        |> Setup.collectorWith (Map.ofList [ "key_id", "test"; "key", key.ExportPkcs8PrivateKeyPem() ])

    let words = new Words(LogLevel.Information)

    let! engine =
        Engine.StartAsync(
            {
                EngineOptions.Create(
                    settings,
                    sound (Sqlite.openForWriting path "main" Synchronous.Normal),
                    TimeProvider.System,
                    words
                ) with
                    Collector = collectorOf
            },
            CancellationToken.None
        )

    do! Task.Delay lasting
    simulator.StreamFaults <- Set.empty
    let reader = sound (Sqlite.openForReading path)
    let patience = DateTime.UtcNow + TimeSpan.FromSeconds 30.0
    let mutable isHealed = false

    while not isHealed && DateTime.UtcNow < patience do
        do! Task.Delay 500
        let! gaps = reader.Gaps Query.everything

        isHealed <-
            gaps
            |> List.forall (fun one -> one.Gap.Stream <> Stream.Depth || one.Gap.Until.IsSome)

    if not isHealed then
        Assert.Fail $"gaps stay open:\n{words.Text}"

    let! report = engine.StopAsync(TimeSpan.FromSeconds 10.0)
    equal None report.Undrained
    do! judge simulator reader words
    do! reader.Close()
    Directory.Delete(folder, true)
}

let private depthOf (gaps: RecordedGap list) =
    gaps |> List.map _.Gap |> List.filter (fun gap -> gap.Stream = Stream.Depth)

let private levels (side: Level[]) =
    side
    |> Array.map (fun level -> struct (level.Price.Millionths, level.Size.Millionths))

[<Test>]
let ``every message of kalshi's that is lost or late is a gap of all its connection's books, and verified books are true``
    ()
    =
    let options = {
        SimulatorOptions.Default with
            Venue = Venue.Kalshi
            Markets = 10
            TradesPerSecond = 5.0
            MessagesPerSecond = 60.0
            StreamFaults = Set.ofList [ StreamFault.Dropped; StreamFault.Reordered; StreamFault.Duplicated ]
            StreamFaultRate = 0.004
    }

    collect options (TimeSpan.FromSeconds 15.0) (fun simulator store words -> task {
        let lost =
            simulator.Ledger.Injections
            |> Array.filter (fun one -> one.Misleads && one.Detail.StartsWith "sid 1 ")

        let! gaps = store.Gaps Query.everything

        let gaps =
            depthOf gaps |> List.groupBy (fun gap -> string gap.Token.Value) |> Map.ofList

        isTrue (lost.Length > 2)
        let tokens = gaps.Keys |> List.ofSeq
        isTrue (tokens.Length >= 16)

        for token in tokens do
            for one in lost do
                let isFound =
                    gaps[token]
                    |> List.exists (fun gap ->
                        gap.Since.Micros / 1000L <= one.At / 1000L && gap.Until.Value.Micros >= one.At)

                if not isFound then
                    Assert.Fail
                        $"{one.Detail} of {token} at {one.At} lies in no gap of %A{gaps[token]}\n{words.Text}"

        // The time of a whole book is ours, a little later than the state that it shows: what is so at some moment nearby is true.
        let around = [ -60L..5L..60L ]
        let random = Random 1
        let mutable compared = 0

        for name in tokens do
            let! extent = Rebuild.extent store (token name)

            let! books =
                store.Books {
                    Query.everything with
                        Token = ValueSome(token name)
                }

            let live = books |> List.filter (fun book -> book.Reason <> Reason.Poll)
            let first = live |> List.map _.At |> List.min

            let! deltas =
                store.Deltas {
                    Query.everything with
                        Token = ValueSome(token name)
                }

            match deltas with
            | [] -> ()
            | deltas ->
                let last = deltas |> List.map _.At |> List.max

                for _ in 1..15 do
                    let at = first.Micros + random.NextInt64(max 1L (last.Micros - first.Micros))
                    let! found = Rebuild.bookAt store extent (Instant.ofMicros at)

                    match found with
                    | BookAt.Known book when book.Verdict = Verdict.Verified ->
                        compared <- compared + 1

                        let isTrueNearby =
                            around
                            |> List.exists (fun apart ->
                                match simulator.Ledger.BookAt(name, at / 1000L + apart) with
                                | ValueSome known ->
                                    known.Bids = levels book.Bids && known.Asks = levels book.Asks
                                | ValueNone -> false)

                        if not isTrueNearby then
                            Assert.Fail $"the verified book of {name} at {at} was never so: %A{book}"
                    | _ -> ()

        isTrue (compared > 50)
    })

[<Test>]
let ``connections of kalshi's that break off, or say nothing any more, come back with whole books`` () =
    let options = {
        SimulatorOptions.Default with
            Venue = Venue.Kalshi
            // The first connection is closed in its fourth second, and the second one falls silent in its fifth.
            Seed = 105
            Markets = 6
            MessagesPerSecond = 30.0
            StreamFaults = Set.ofList [ StreamFault.Close; StreamFault.SilentSocket ]
    }

    // Silence is noticed by two polls that differ, five seconds apart.
    collect options (TimeSpan.FromSeconds 24.0) (fun simulator store words -> task {
        // What befalls later connections may come too late to be noticed before the end.
        let struck =
            simulator.Ledger.Injections |> Array.filter (fun one -> one.Session <= 2)

        let! gaps = store.Gaps Query.everything

        for kind in [ "close"; "silent-socket" ] do
            if not (struck |> Array.exists (fun one -> one.Kind = kind)) then
                Assert.Fail $"no {kind} among %A{struck}\n{words.Text}"

        for one in struck do
            let isFound =
                depthOf gaps
                |> List.exists (fun gap ->
                    gap.Since.Micros <= one.At + 1_000_000L && gap.Until.Value.Micros >= one.At)

            if not isFound then
                Assert.Fail $"%A{one} lies in no gap of %A{depthOf gaps}\n{words.Text}"
    })

[<Test>]
let ``bets that manifold's channel loses are had from its lists`` () =
    let options = {
        SimulatorOptions.Default with
            Venue = Venue.Manifold
            Markets = 6
            TradesPerSecond = 10.0
            StreamFaults = Dialect.streamFaults Venue.Manifold
            StreamFaultRate = 0.05
    }

    collect options (TimeSpan.FromSeconds 12.0) (fun simulator store words -> task {
        let! trades = store.Trades Query.everything

        let stored =
            trades
            |> List.filter (fun trade -> trade.Source = Source.Api)
            |> List.map _.Transaction
            |> HashSet

        let told =
            trades
            |> List.filter (fun trade -> trade.Source = Source.Stream)
            |> List.map _.Transaction
            |> HashSet

        // What is so new that no list was asked for it since is not yet there.
        let settled = simulator.Now.AddSeconds -15.0

        let missing =
            simulator.Ledger.Trades
            |> Array.filter (fun trade ->
                trade.VisibleAt < settled && not (stored.Contains trade.Transaction))

        if missing.Length > 0 then
            Assert.Fail $"%A{missing[0]} and {missing.Length - 1} more\n{words.Text}"

        isTrue (told.Count > 20)

        isTrue (
            told
            |> Seq.forall (fun id ->
                simulator.Ledger.Trades |> Array.exists (fun trade -> trade.Transaction = id))
        )
    })
