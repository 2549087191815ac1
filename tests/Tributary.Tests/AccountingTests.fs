/// The accounts are worth something only if they notice what is missing.
module Tributary.Tests.AccountingTests

open System
open System.IO
open NUnit.Framework
open Tributary.Cli
open Tributary.Stores

let private run (arguments: string list) = Program.main (Array.ofList arguments)

/// A demo with faults, kept; each test spoils a copy of it.
let private kept =
    lazy
        (let folder = Directory.CreateTempSubdirectory("tributary-").FullName

         let faults = "latency,425,429,5xx,html,cut"

         let code =
             run [
                 "demo"
                 "--keep"
                 folder
                 "--seconds"
                 "6"
                 "--markets"
                 "20"
                 "--faults"
                 faults
             ]

         folder, code)

/// A demo of all exchanges with faults, kept.
let private keptOfAll =
    lazy
        (let folder = Directory.CreateTempSubdirectory("tributary-").FullName

         let code =
             run [
                 "demo"
                 "--exchanges"
                 "all"
                 "--keep"
                 folder
                 "--seconds"
                 "8"
                 "--markets"
                 "12"
                 "--faults"
                 "latency,425,429,5xx,html,cut,repeat"
             ]

         folder, code)

[<OneTimeTearDown>]
let removeThem () =
    for one in [ kept; keptOfAll ] do
        if one.IsValueCreated then
            Directory.Delete(fst one.Value, true)

/// The exit code of a recount of a kept demo after this SQL.
let private recountOf (demo: string) sql =
    let folder = Directory.CreateTempSubdirectory("tributary-").FullName

    try
        for file in [ "tributary.db"; "truth.json" ] do
            File.Copy(Path.Combine(demo, file), Path.Combine(folder, file))

        do
            use db = new Connection(Path.Combine(folder, "tributary.db"), Access.Write)

            for line in (sql: string list) do
                db.Execute line
                equal 1 db.Changes

        run [ "demo"; "--recount"; folder ]
    finally
        Directory.Delete(folder, true)

let private recountAfter sql = recountOf (fst kept.Value) sql

[<Test>]
let ``a demo with faults balances, and so does its recount`` () =
    equal 0 (snd kept.Value)
    equal 0 (recountAfter [])

[<Test>]
let ``a demo of three exchanges with faults balances for each of them`` () =
    let folder, code = keptOfAll.Value
    equal 0 code
    equal 0 (recountOf folder [])

    use db = new Connection(Path.Combine(folder, "tributary.db"), Access.Read)

    for exchange in [ "polymarket"; "kalshi"; "manifold" ] do
        let count what =
            db.Number $"SELECT count(*) FROM {what}_readable WHERE exchange = '{exchange}'"

        isTrue (count "trades" > 100L)
        isTrue (count "orderbook_snapshots" > 10L)

[<TestCase("kalshi")>]
[<TestCase("manifold")>]
let ``a book that is gone is noticed, too, where the exchange gives no hash`` exchange =
    equal
        1
        (recountOf (fst keptOfAll.Value) [
            // The one that stands once among those of its token.
            $"DELETE FROM orderbook_snapshots WHERE rowid = (SELECT min(s.rowid) FROM orderbook_snapshots s JOIN token_keys k ON k.id = s.token JOIN market_keys m ON m.id = k.market JOIN exchanges e ON e.id = m.exchange WHERE e.name = '{exchange}' AND (SELECT count(*) FROM orderbook_snapshots o WHERE o.token = s.token AND o.bids = s.bids AND o.asks = s.asks) = 1)"
        ])

[<TestCase("kalshi")>]
[<TestCase("manifold")>]
let ``a trade of theirs that is gone is noticed`` exchange =
    equal
        1
        (recountOf (fst keptOfAll.Value) [
            $"DELETE FROM trades WHERE (market, trade_id) = (SELECT t.market, t.trade_id FROM trades t JOIN market_keys m ON m.id = t.market JOIN exchanges e ON e.id = m.exchange WHERE e.name = '{exchange}' LIMIT 1)"
        ])

[<TestCase("demo --exchanges atlantis --seconds 1")>]
[<TestCase("simulate --exchange atlantis")>]
[<TestCase("start --exchange atlantis --market x --store never.db")>]
[<TestCase("markets --exchange atlantis --slug x")>]
let ``an exchange that nobody knows is refused`` (line: string) =
    equal 2 (run (List.ofArray (line.Split ' ')))

[<Test>]
let ``a trade that is gone is noticed`` () =
    equal 1 (recountAfter [ "DELETE FROM trades WHERE trade_id = (SELECT min(trade_id) FROM trades)" ])

[<Test>]
let ``a book that is gone is noticed`` () =
    equal
        1
        (recountAfter [
            "DELETE FROM orderbook_snapshots WHERE hash = (SELECT min(hash) FROM orderbook_snapshots)"
        ])

[<Test>]
let ``a trade that is there twice is noticed`` () =
    equal
        1
        (recountAfter [
            "UPDATE trades SET size = size + 1 WHERE trade_id = (SELECT min(trade_id) FROM trades)"
        ])

[<Test>]
let ``a gap that is gone is noticed`` () =
    equal
        1
        (recountAfter [
            "DELETE FROM gaps WHERE (market, stream, token, since, cause) = (SELECT market, stream, token, since, cause FROM gaps ORDER BY until - since DESC LIMIT 1)"
        ])

[<Test>]
let ``a demo writes over nothing but an earlier demo`` () =
    let folder = Directory.CreateTempSubdirectory("tributary-").FullName

    try
        let recorded = Path.Combine(folder, "tributary.db")
        File.WriteAllText(recorded, "a year of somebody's recording")
        equal 2 (run [ "demo"; "--keep"; folder; "--seconds"; "1" ])
        equal "a year of somebody's recording" (File.ReadAllText recorded)
    finally
        Directory.Delete(folder, true)

[<TestCase("simulate --port 99999")>]
[<TestCase("simulate --markets 0")>]
[<TestCase("simulate --fault-rate 7")>]
[<TestCase("demo --seconds 0")>]
[<TestCase("backfill")>]
[<TestCase("backfill --market x --since 2999-01-01 --store never.db")>]
[<TestCase("backfill --markets x --until 2020-01-01 --since 2021-01-01 --store never.db")>]
[<TestCase("backfill --markets x --source v9 --store never.db")>]
[<TestCase("backfill --markets x --parallel 0 --store never.db")>]
[<TestCase("backfill --markets @no-such-file --store never.db")>]
[<TestCase("backfill --markets event: --store never.db")>]
[<TestCase("audit --since yesterday --store never.db")>]
[<TestCase("nonsense")>]
let ``arguments that make no sense are usage`` (words: string) =
    equal 2 (run (List.ofArray (words.Split ' ')))
