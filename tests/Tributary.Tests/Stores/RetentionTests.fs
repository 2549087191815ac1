/// What is older than it is kept goes, without harm to what stays and not in silence; and files that are compacted stay whole.
module Tributary.Tests.Stores.RetentionTests

open System
open System.Diagnostics
open System.IO
open System.Threading
open System.Threading.Tasks
open NUnit.Framework
open Tributary
open Tributary.Cli
open Tributary.Stores
open Tributary.Tests
open Tributary.Tests.Stores.QuestDbSupport
open Tributary.Tests.Stores.Vocabulary

let private never = (Settings.defaults []).Store.Retention
let private aSecond = 1_000_000L
let private aDay = 86_400L * aSecond

let private temporary (test: string -> Task<unit>) : Task = task {
    let folder = Directory.CreateTempSubdirectory("tributary-retention-").FullName

    try
        do! test folder
    finally
        Directory.Delete(folder, true)
}

let private openAt path =
    sound (Sqlite.openForWriting path "main" Synchronous.Normal)

let private expire (store: Store) retention (now: Instant) = task {
    let! answer = store.Expire retention now CancellationToken.None
    return sound answer
}

let private number (path: string) (sql: string) =
    use db = new Connection(path, Access.Read)
    db.Number sql

let private integrity (path: string) =
    use db = new Connection(path, Access.Read)
    use check = db.Prepare "PRAGMA integrity_check"
    check.Rows(fun row -> row.Text 0)

let private ofCause cause (gaps: RecordedGap list) =
    gaps |> List.map _.Gap |> List.filter (fun gap -> gap.Cause = cause)

/// So many old trades. In small batches, for the vocabulary numbers the trades of a batch again with every one.
let private fillUp store rows =
    for part in 0 .. rows / 5_000 - 1 do
        write store [
            for small in 0..49 ->
                batch [ for i in 1..100 -> fill "m1" i (int64 (part * 5_000 + small * 100 + i)) ]
        ]

// ---- books

/// The live book of a token over some hundred seconds: whole books now and then, some that a proof disagreed with, and holes.
let private recording (random: Random) (seconds': int) : Batch =
    let bids, asks =
        Collections.Generic.SortedDictionary<int, int>(), Collections.Generic.SortedDictionary<int, int>()

    let text cents = $"0.%02d{cents}"
    let mutable isAway, awaySince, last = false, 0L, 0

    batchOf (Names()) (fun batch ->
        let whole isTrue number micros =
            let side (levels: Collections.Generic.SortedDictionary<int, int>) = [
                for KeyValue(cents, shares) in levels ->
                    text cents, string (if isTrue then shares else shares + 1)
            ]

            bookOf "m1" (List.rev (side bids)) (side asks) (hash number) micros batch
            let row = &batch.Books[batch.Books.Count - 1]

            row <- {
                row with
                    Verdict = if isTrue then Verdict.Verified else Verdict.Mismatched
                    Doubt = if isTrue then Doubt.None else Doubt.Hash
                    Reason = if random.Next 2 = 0 then Reason.Poll else Reason.First
                    Received = at micros
            }

        bids[48] <- 30
        asks[52] <- 10
        whole true 0 0L

        for i in 1..seconds' do
            let micros = int64 i * aSecond

            if isAway && random.Next 6 = 0 then
                isAway <- false

                hole
                    {
                        gap with
                            Stream = Stream.Depth
                            Since = at awaySince
                            Until = ValueSome(at micros)
                    }
                    batch

                whole true (1000 + i) micros
            elif not isAway && random.Next 60 = 0 then
                isAway <- true
                awaySince <- int64 last * aSecond

            let levels, side, cents =
                if random.Next 2 = 0 then
                    bids, Side.Buy, random.Next(40, 50)
                else
                    asks, Side.Sell, random.Next(51, 60)

            let shares = if random.Next 4 = 0 then 0 else random.Next(1, 500)
            let isSame = (if levels.ContainsKey cents then levels[cents] else 0) = shares

            if shares = 0 then
                levels.Remove cents |> ignore
            else
                levels[cents] <- shares

            if not isAway && not isSame && random.Next 3 > 0 then
                deltaOf "m1" side (text cents) (string shares) 0 (hash i) micros batch
                let row = &batch.Deltas[batch.Deltas.Count - 1]

                row <- {
                    row with
                        Verdict = Verdict.Verified
                        Doubt = Doubt.None
                        Received = at micros
                }

                last <- i

                match random.Next 12 with
                | 0 -> whole true i micros
                | 1 -> whole false (2000 + i) (micros + 1000L)
                | _ -> ()
            elif not isSame then
                // It did not take place after all.
                levels.Remove cents |> ignore
                levels[cents] <- 7

                if not isAway then
                    deltaOf "m1" side (text cents) "7" 0 (hash i) micros batch
                    last <- i)

let private booksOf (store: Store) (moments: Instant list) = task {
    let id = token "m1-yes"
    let! extent = Rebuild.extent store id
    let found = ResizeArray()

    for moment in moments do
        let! book = Rebuild.bookAt store extent moment
        found.Add(book)

    return List.ofSeq found
}

[<Test>]
let ``every book from the kept moment on is rebuilt as before, and none before it becomes another`` () =
    temporary (fun folder -> task {
        let mutable known, deleted = 0, 0L

        for seed in 1..25 do
            let random = Random seed
            let path = Path.Combine(folder, $"{seed}.db")
            let store = openAt path
            let length = 300
            write store [ recording random length ]
            let now = at (int64 length * aSecond)

            let age isSet =
                if isSet then
                    Some(TimeSpan.FromSeconds(float (random.Next(20, length))))
                else
                    None

            let retention = {
                never with
                    OrderbookDeltas = age (seed % 3 <> 1)
                    OrderbookSnapshots = age (seed % 3 <> 2)
            }

            let kept =
                [ retention.OrderbookDeltas; retention.OrderbookSnapshots ]
                |> List.choose (Option.map (fun age -> now - age))
                |> List.max

            let moments = [
                for i in 0..length do
                    at (int64 i * aSecond)
                    at (int64 i * aSecond + 500_000L)
            ]

            let! before = booksOf store moments
            let! expired = expire store retention now
            deleted <- deleted + (expired |> List.sumBy _.Rows)
            let! after = booksOf store moments

            for moment, before, after in List.zip3 moments before after do
                match before, after with
                | BookAt.Known _, BookAt.NotKnown _ when moment < kept -> ()
                | BookAt.NotKnown _, BookAt.NotKnown _ -> ()
                | _ ->
                    if before <> after then
                        Assert.Fail $"seed {seed}, {moment}, kept from {kept}: %A{before} became %A{after}"

                if before.IsKnown && moment >= kept then
                    known <- known + 1

            do! store.Close()
            equal [ "ok" ] (integrity path)

        // Otherwise nothing was tried.
        Assert.That(known, Is.GreaterThan 2_000)
        Assert.That(deleted, Is.GreaterThan 1_000L)
    })

[<Test>]
let ``changes go up to a whole book that stays, and a gap that grows says so`` () =
    temporary (fun folder -> task {
        let store = openAt (Path.Combine(folder, "store.db"))

        write store [
            batch [
                yield book "m1" 1 0L
                for second in 1L .. 9L do
                    yield delta "m1" (int second) (second * aSecond)
                yield book "m1" 2 (10L * aSecond)
                for second in 11L .. 19L do
                    yield delta "m1" (int second) (second * aSecond)
                yield book "m1" 3 (20L * aSecond)
                yield delta "m1" 21 (21L * aSecond)
            ]
        ]

        let keep = {
            never with
                OrderbookDeltas = Some(TimeSpan.FromSeconds 5.0)
        }

        // The book at 10 is the newest one at 14: the changes behind it are needed.
        let! expired = expire store keep (at (19L * aSecond))

        equal
            [
                {
                    Table = "orderbook_deltas"
                    Rows = 9L
                }
            ]
            expired

        let! deltas = store.Deltas Query.everything
        equal (at (11L * aSecond)) deltas.Head.At
        let! gaps = store.Gaps Query.everything

        let told = gaps |> ofCause Cause.Expired |> List.exactlyOne
        equal Stream.Depth told.Stream
        equal (at aSecond, ValueSome(at (9L * aSecond + 1L))) (told.Since, told.Until)

        let! _ = expire store keep (at (26L * aSecond))
        let! again = expire store keep (at (26L * aSecond))
        equal [] again
        let! gaps = store.Gaps Query.everything
        let told = gaps |> ofCause Cause.Expired |> List.exactlyOne
        equal (at aSecond, ValueSome(at (19L * aSecond + 1L))) (told.Since, told.Until)
        let! books = store.Books Query.everything
        equal 3 books.Length

        // Now the books that no change needs.
        let! expired =
            expire
                store
                {
                    keep with
                        OrderbookSnapshots = Some(TimeSpan.FromSeconds 1.0)
                }
                (at (26L * aSecond))

        equal
            [
                {
                    Table = "orderbook_snapshots"
                    Rows = 2L
                }
            ]
            expired

        let! books = store.Books Query.everything
        equal [ at (20L * aSecond) ] (books |> List.map _.At)
        let! status = store.Status()
        equal (1L, 1L) (status.Markets.Head.Books, status.Markets.Head.Deltas)

        let counted =
            status.Metrics
            |> List.filter (fun metric -> metric.Name = "rows_expired")
            |> List.map (fun metric -> metric.Labels, metric.Value)

        equal [ "table=orderbook_deltas", 18.0; "table=orderbook_snapshots", 2.0 ] counted
        do! store.Close()
    })

[<Test>]
let ``trades go in whole days with their links, the newest counters stay, and markets, gaps and the like all stay``
    ()
    =
    temporary (fun folder -> task {
        let path = Path.Combine(folder, "store.db")
        let store = openAt path
        let midnight = 0L // the vocabulary's time begins at one

        write store [
            batch [
                yield described market
                yield hole gap
                yield reached checkpoint
                yield rejected "unreadable" "bytes" "there"
                yield point "m1" 1L
                for i in 1..3 do
                    yield fill "m1" i (midnight + int64 i)
                for i in 4..5 do
                    yield fill "m1" i (midnight + aDay + int64 i)
                yield measured "requests" 1.0 1L
                yield measured "requests" 2.0 (2L * aDay)
            ]
        ]

        let! trades = store.Trades Query.everything

        write store [
            batch [ linkOf trades[1].Id trades[0].Id 1L; linkOf trades[4].Id trades[3].Id 1L ]
        ]
        // Half a day more than a day: the second day is not over that long.
        let now = at (midnight + 2L * aDay + aDay / 2L)

        let! expired =
            expire
                store
                {
                    never with
                        Trades = Some(TimeSpan.FromDays 1.0)
                        MarketStats = Some(TimeSpan.FromDays 1.0)
                        CollectionMetrics = Some(TimeSpan.FromDays 1.0)
                }
                now

        equal
            [
                { Table = "trades"; Rows = 3L }
                {
                    Table = "collection_metrics"
                    Rows = 1L
                }
            ]
            expired

        let! left = store.Trades Query.everything
        equal (trades |> List.skip 3) left
        let! links = store.Links()
        equal [ trades[4].Id ] (links |> List.map _.Trade)
        let! gaps = store.Gaps Query.everything
        let told = gaps |> ofCause Cause.Expired |> List.exactlyOne

        equal
            (Stream.Trades, ValueNone, at 1L, ValueSome(at 4L))
            (told.Stream, told.Token, told.Since, told.Until)

        equal 1 (gaps |> ofCause Cause.Disconnect).Length
        let! status = store.Status()
        equal (2L, 1L) (status.Markets.Head.Trades, status.Quarantined)
        let! markets = store.Markets()
        equal 1 markets.Length
        let! checkpoints = store.Checkpoints()
        equal 1 checkpoints.Length
        let! prices = store.Prices Query.everything
        equal 1 prices.Length
        do! store.Close()
        equal 1L (number path "SELECT count(*) FROM market_stats")
    })

[<Test>]
let ``writes go on while old rows are deleted`` () =
    temporary (fun folder -> task {
        let path = Path.Combine(folder, "store.db")
        let store = openAt path
        fillUp store 50_000

        let deleting =
            expire
                store
                {
                    never with
                        Trades = Some(TimeSpan.FromDays 1.0)
                }
                (at (3L * aDay))

        let mutable writes, longest = 0, TimeSpan.Zero

        while not deleting.IsCompleted do
            let began = Stopwatch.GetTimestamp()
            write store [ batch [ fill "m2" writes (2L * aDay + int64 writes) ] ]
            longest <- max longest (Stopwatch.GetElapsedTime began)
            writes <- writes + 1
            do! Task.Delay 1

        let! expired = deleting
        equal [ { Table = "trades"; Rows = 50_000L } ] expired

        TestContext.Out.WriteLine
            $"{writes} writes meanwhile, the longest took {longest.TotalMilliseconds} ms"

        Assert.That(writes, Is.GreaterThan 5)
        Assert.That(longest, Is.LessThan(TimeSpan.FromSeconds 2.0))
        let! trades = store.Trades Query.everything
        equal writes trades.Length
        do! store.Close()
    })

[<Test>]
let ``a collector says what went, and what could not go is tried again later`` () =
    temporary (fun folder -> task {
        let store = openAt (Path.Combine(folder, "store.db"))
        fillUp store 5_000
        let words = new Words()

        let keep = {
            never with
                Trades = Some(TimeSpan.FromDays 1.0)
        }

        let run (store: Store) =
            Retention.run store keep TimeProvider.System words CancellationToken.None

        do! run store
        do! run store

        equal
            [
                "Information: 5000 rows of trades were older than they are kept, and are deleted"
            ]
            words.All

        do!
            run {
                store with
                    Expire = fun _ _ _ -> Task.FromResult(Error(StoreFault.Locked "by somebody"))
            }

        equal 1 (words.With "Old rows are not deleted now").Length
        do! store.Close()
    })

[<Test>]
let ``what another store has not taken yet is not deleted`` () =
    temporary (fun folder -> task {
        let! server = startFake id
        let settings = settingsFor folder server "both"
        do! server.Fake.Value.StopAsync()
        let store = openAs settings
        write store [ batch [ fill "m1" 1 10L; book "m1" 1 10L; book "m1" 2 20L ] ]

        let keep = {
            never with
                Trades = Some(TimeSpan.FromDays 1.0)
                OrderbookSnapshots = Some(TimeSpan.FromDays 1.0)
        }

        // The rows are old, and have waited since this moment, which is earlier than they were received: nothing is settled.
        let early = at (3L * aDay)

        using (new Connection(settings.Path, Access.Write)) (fun db ->
            db.Execute $"UPDATE outbox SET written = {(at 1_000_000L).Micros}")

        let! expired = expire store keep early
        equal [] expired
        do! store.Close()
        (server :> IAsyncDisposable).DisposeAsync().AsTask().Wait()
    })

[<Test>]
let ``a day whose trades were deleted is not called complete`` () =
    let limits = [
        {
            Source = "v1"
            Horizon = ValueNone
            Omits = ""
        }
    ]

    let whole: Interval = { Since = at 0L; Until = at aDay }

    let coverage = [
        {
            Market = market.Market
            Source = "v1"
            Read = [ whole ]
            Unknown = 0L
        }
    ]

    let verdict gaps =
        (Audit.market limits coverage gaps Map.empty whole (at aDay) { market with Start = ValueSome(at 0L) })
            .Days
        |> List.map (fun day -> string day.Verdict)

    let expired = {
        gap with
            Stream = Stream.Trades
            Token = ValueNone
            Since = at 0L
            Until = ValueSome(at (aDay / 2L))
            Cause = Cause.Expired
    }

    equal [ "complete" ] (verdict [])
    equal [ "degraded: expired: older than it is kept (12.0 h)" ] (verdict [ expired ])

// ---- compacting

let private compacted path retention now = task {
    let! answer = Sqlite.compact path "main" retention now CancellationToken.None
    return answer
}

let private filled path rows =
    let store = openAt path

    fillUp store rows
    write store [ batch [ fill "m1" 1 (2L * aDay) ] ]
    store.Close().AsTask().Wait()

[<Test>]
let ``compacting deletes what is old, and makes the file small`` () =
    temporary (fun folder -> task {
        let path = Path.Combine(folder, "store.db")
        filled path 20_000

        match!
            compacted
                path
                {
                    never with
                        Trades = Some(TimeSpan.FromDays 1.0)
                }
                (at (3L * aDay))
        with
        | Ok done' ->
            equal [ { Table = "trades"; Rows = 20_000L } ] done'.Expired
            equal done'.After (FileInfo(path).Length)
            Assert.That(done'.After, Is.LessThan(done'.Before / 4L))
        | Error fault -> Assert.Fail(string fault)

        equal 1L (number path "SELECT count(*) FROM trades")
        equal [ "ok" ] (integrity path)
        Assert.That(number path "SELECT count(*) FROM sqlite_stat1", Is.GreaterThan 0L)
        let store = openAt path
        write store [ batch [ fill "m1" 2 (2L * aDay + 1L) ] ]
        do! store.Close()
    })

[<Test>]
let ``the command prints both sizes, and refuses a store that is written to, is not there, or is something else``
    ()
    =
    temporary (fun folder -> task {
        let path = Path.Combine(folder, "store.db")
        filled path 5_000

        let run arguments = task {
            use running =
                KillTests.launch (KillTests.program "Tributary.Cli" :: "compact" :: arguments)

            let output = running.StandardOutput.ReadToEndAsync()
            let errors = running.StandardError.ReadToEndAsync()
            do! running.WaitForExitAsync()
            let! output = output
            let! errors = errors
            return struct (running.ExitCode, output + errors)
        }

        let config = Path.Combine(folder, "config.yaml")
        File.WriteAllText(config, "store:\n  retention:\n    trades: 1d\n")
        let! struct (code, said) = run [ "--store"; path; "--config"; config ]
        Assert.That(code, Is.EqualTo Terminal.Exit.Done, said)
        Assert.That(said, Does.Contain "trades: 5,001 rows were older than they are kept")
        Assert.That(said, Does.Match $@"{path}: [\d.]+ MB before, [\d.]+ MB after")
        let store = openAt path
        let! struct (code, said) = run [ "--store"; path ]
        equal Terminal.Exit.Failed code
        Assert.That(said, Does.Contain "is in use: a collector writes to it; stop that one")
        do! store.Close()
        let! struct (code, said) = run [ "--store"; path + ".none" ]
        equal Terminal.Exit.Failed code
        Assert.That(said, Does.Contain "there is no such file")
        let other = Path.Combine(folder, "other.db")
        using (new Connection(other, Access.Write)) (fun db -> db.Execute "CREATE TABLE a (b)")
        let! struct (code, said) = run [ "--store"; other ]
        equal Terminal.Exit.Failed code
        Assert.That(said, Does.Contain "is not a Tributary store")
    })

[<Test>]
let ``a compaction that is killed at any moment leaves a whole file`` () =
    temporary (fun folder -> task {
        let path = Path.Combine(folder, "store.db")
        let config = Path.Combine(folder, "config.yaml")
        File.WriteAllText(config, "store:\n  retention:\n    trades: 1d\n")
        filled path 60_000
        let random = Random 20261127
        let plain = Path.Combine(folder, "plain.yaml")
        File.WriteAllText(plain, "")
        let rounds = KillTests.killsOr 8
        let mutable kills = 0

        for round in 1..rounds do
            use running =
                KillTests.launch [
                    KillTests.program "Tributary.Cli"
                    "compact"
                    "--store"
                    path
                    "--config"
                    // First all rows are copied, then they are deleted.
                    (if round <= rounds / 2 then plain else config)
                ]

            // From before it opens the file to when it is about done.
            do! Task.Delay(random.Next(150, 900))

            if not running.HasExited then
                running.Kill()
                kills <- kills + 1

            do! running.WaitForExitAsync()
            equal [ "ok" ] (integrity path)
            let rows = number path "SELECT count(*) FROM trades"
            // Whatever is missing is told.
            let told = number path "SELECT count(*) FROM gaps WHERE cause = 'expired'"
            Assert.That(rows = 60_001L || told = 1L, Is.True, $"{rows} rows are left, and {told} gaps tell")
            equal rows (number path "SELECT sum(trades) FROM market_keys")

        TestContext.Out.WriteLine $"{kills} kills"
        Assert.That(kills, Is.GreaterThan 0)

        match!
            compacted
                path
                {
                    never with
                        Trades = Some(TimeSpan.FromDays 1.0)
                }
                (at (30L * aDay))
        with
        | Ok _ -> ()
        | Error fault -> Assert.Fail(string fault)

        equal 0L (number path "SELECT count(*) FROM trades")
        equal [ "ok" ] (integrity path)
    })

[<Test>]
let ``rows that wait for another store are found by it after the file was compacted`` () =
    temporary (fun folder -> task {
        use! server = startServer ()
        let settings = settingsFor folder server "both"

        match server.Fake with
        | Some fake -> do! fake.StopAsync()
        | None -> Assert.Ignore "a real server is not stopped"

        let store = openAs settings

        for i in 1..40 do
            write store [
                batch [ book "m1" i (int64 i); described { market with Slug = $"slug-{i}" } ]
            ]

        do! store.Close()

        // Holes between the rows, as of deletions by hand.
        using (new Connection(settings.Path, Access.Write)) (fun db ->
            db.Execute "DELETE FROM orderbook_snapshots WHERE rowid % 3 = 0")

        let left = number settings.Path "SELECT count(*) FROM orderbook_snapshots"

        match! compacted settings.Path never (at aDay) with
        | Ok _ -> ()
        | Error fault -> Assert.Fail(string fault)

        restart server
        let store = openAs settings
        flush store
        let! sent = server.Number "SELECT count() FROM orderbook_snapshots"
        equal left sent
        do! store.Close()
    })

[<Test>]
let ``compacting needs room, says how much, and changes nothing without it`` () =
    temporary (fun folder -> task {
        let small = Path.Combine(folder, "small")
        Directory.CreateDirectory small |> ignore

        let system program (arguments: string) =
            try
                use running =
                    Process.Start(ProcessStartInfo(program, arguments, RedirectStandardError = true))
                    |> Option.ofObj
                    |> Option.get

                running.WaitForExit()
                running.ExitCode = 0
            with :? ComponentModel.Win32Exception ->
                false

        if not (system "mount" $"-t tmpfs -o size=6m tributary-test {small}") then
            Assert.Ignore "no permission to mount a small file system"

        try
            let path = Path.Combine(small, "store.db")
            filled path 10_000

            match!
                compacted
                    path
                    {
                        never with
                            Trades = Some(TimeSpan.FromDays 1.0)
                    }
                    (at (9L * aDay))
            with
            | Error(CompactFault.NoRoom(_, needed, free) as fault) ->
                Assert.That(needed, Is.GreaterThan free)
                Assert.That(string fault, Does.Contain "make room first")
            | other -> Assert.Fail $"%A{other}"

            equal 10_001L (number path "SELECT count(*) FROM trades")

            // And the doctor warns of such a disk.
            let! seen =
                Doctor.examine
                    (DoctorOptions.Create(
                        "a test",
                        Settings.defaults Setup.known
                        |> Setup.onFirst (fun collector -> { collector with Enabled = false })
                        |> Setup.storingAt path,
                        []
                    ))
                    ignore
                    CancellationToken.None

            let disk = seen |> List.find (fun one -> one.Subject = "disk")
            equal Grade.Failed disk.Grade
        finally
            system "umount" small |> ignore
    })
