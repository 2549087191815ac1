module Tributary.Tests.Stores.SqliteTests

open System
open System.Diagnostics
open System.IO
open System.Threading
open FsCheck
open FsCheck.FSharp
open NUnit.Framework
open FsCheck.NUnit
open Tributary
open Tributary.Stores
open Tributary.Tests.Stores.Vocabulary

let private folders = ResizeArray<string>()

let private newPath () =
    let folder = temporaryFolder ()
    folders.Add folder
    Path.Combine(folder, "data", "test.db")

[<OneTimeTearDown>]
let ``the folders go`` () =
    for folder in folders do
        Directory.Delete(folder, true)

let private openAs collector path =
    sound (Sqlite.openForWriting path collector Synchronous.Full)

let private openAt path = openAs "main" path
let private readAt path = sound (Sqlite.openForReading path)

/// A store at a new path, closed in the end.
let private withStore (test: string -> Store -> unit) =
    let path = newPath ()
    let store = openAt path

    try
        test path store
    finally
        close store

let private access path mode = new Connection(path, mode)

/// What another tool reads: the columns of every row, as texts.
let private query path columns (sql: string) =
    use db = access path Access.Read
    use statement = db.Prepare sql

    statement.Rows(fun row -> [
        for column in 0 .. columns - 1 -> if row.IsNull column then "null" else row.Text column
    ])

let private execute path sql =
    use db = access path Access.Write
    db.Execute sql

let private refused (opened: Result<Store, OpenFault>) =
    match opened with
    | Ok store ->
        close store
        failwith "it was opened"
    | Error fault -> fault

/// A database that something else made.
let private madeBy sql =
    let path = newPath ()
    Directory.CreateDirectory(string (Path.GetDirectoryName path)) |> ignore
    execute path sql
    path

// ---- opening

[<Test>]
let ``a file and its folder are made for writing, marked as ours and with the version`` () =
    withStore (fun path _ ->
        equal [ [ string SqliteSchema.ApplicationId ] ] (query path 1 "PRAGMA application_id")
        equal [ [ string SqliteSchema.version ] ] (query path 1 "PRAGMA user_version")
        equal [ [ "wal" ] ] (query path 1 "PRAGMA journal_mode"))

[<Test>]
let ``a missing file is not made for reading, and the answer says what makes one`` () =
    let path = newPath ()

    match refused (Sqlite.openForReading path) with
    | OpenFault.Unreachable(where, detail) ->
        equal path where
        Assert.That(detail, Does.Contain "tributary start")
        Assert.That(detail, Does.Contain "tributary demo")
    | other -> failwith $"%A{other}"

    equal false (File.Exists path)

[<Test>]
let ``a second writer is told that the file is in use, until the first one closes it`` () =
    let path = newPath ()
    let first = openAt path

    match refused (Sqlite.openForWriting path "second" Synchronous.Full) with
    | OpenFault.InUse(where, detail) ->
        equal path where
        Assert.That(detail, Does.Contain "store.path")
    | other -> failwith $"%A{other}"

    close first
    close (openAt path)

[<Test>]
let ``a file that somebody else has locked is in use`` () =
    let path = newPath ()
    close (openAt path)
    use other = access path Access.Write
    other.Execute "PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE"

    match refused (Sqlite.openForWriting path "main" Synchronous.Full) with
    | OpenFault.InUse(where, _) -> equal path where
    | other -> failwith $"%A{other}"

[<Test>]
let ``a file of a later version is left alone`` () =
    let path = newPath ()
    close (openAt path)
    execute path "PRAGMA user_version = 99"
    let newer = OpenFault.Newer(path, 99, SqliteSchema.version)
    equal newer (refused (Sqlite.openForWriting path "main" Synchronous.Full))
    equal newer (refused (Sqlite.openForReading path))
    equal [ [ "99" ] ] (query path 1 "PRAGMA user_version")

[<Test>]
let ``another program's database is not ours and stays as it is`` () =
    let path = madeBy "CREATE TABLE songs (title TEXT)"
    let before = File.ReadAllBytes path

    for opened in
        [
            Sqlite.openForWriting path "main" Synchronous.Full
            Sqlite.openForReading path
        ] do
        match refused opened with
        | OpenFault.NotOurs(where, _) -> equal path where
        | other -> failwith $"%A{other}"

    equal before (File.ReadAllBytes path)

[<Test>]
let ``a file that is no database is not ours and stays as it is`` () =
    let path = newPath ()
    Directory.CreateDirectory(string (Path.GetDirectoryName path)) |> ignore
    let text = String.replicate 300 "this is a letter to my bank; "
    File.WriteAllText(path, text)

    for opened in
        [
            Sqlite.openForWriting path "main" Synchronous.Full
            Sqlite.openForReading path
        ] do
        match refused opened with
        | OpenFault.NotOurs(where, _) -> equal path where
        | other -> failwith $"%A{other}"

    equal text (File.ReadAllText path)

[<Test>]
let ``a path that cannot be a file is unreachable`` () =
    let path = newPath ()
    Directory.CreateDirectory path |> ignore
    let below = Path.Combine(path + ".lock", "x.db")
    File.WriteAllText(path + ".lock", "a file where a folder is wanted")

    for path in [ path; below ] do
        match refused (Sqlite.openForWriting path "main" Synchronous.Full) with
        | OpenFault.Unreachable(where, detail) ->
            equal path where
            Assert.That(detail, Is.Not.Empty)
        | other -> failwith $"%A{other}"

[<Test>]
let ``an empty file becomes a store, but not for a reader`` () =
    let path = newPath ()
    Directory.CreateDirectory(string (Path.GetDirectoryName path)) |> ignore
    File.WriteAllBytes(path, [||])

    match refused (Sqlite.openForReading path) with
    | OpenFault.Unreachable(_, detail) -> Assert.That(detail, Does.Contain "tributary start")
    | other -> failwith $"%A{other}"

    close (openAt path)
    close (readAt path)

[<Test>]
let ``a file of an earlier version is taken forward with all that is in it`` () =
    let path = madeBy ""
    use db = access path Access.Write
    let one = "CREATE TABLE songs (title TEXT); INSERT INTO songs VALUES ('Tainaron');"
    let two = "ALTER TABLE songs ADD COLUMN year INTEGER; UPDATE songs SET year = 1985;"

    let view shows : SqliteSchema.View list = [
        {
            Name = "songs_readable"
            Row = "a song"
            Identity = [ "song" ]
            Columns = [
                {
                    Name = "song"
                    Shows = shows
                    Meaning = "what it is called"
                }
            ]
            From = "songs"
        }
    ]

    SqliteSchema.migrate [ one ] (view "title") db
    SqliteSchema.migrate [ one; two ] (view "title || ' ' || year") db
    equal [ [ "Tainaron 1985" ] ] (query path 1 "SELECT * FROM songs_readable")
    equal [ [ "2" ] ] (query path 1 "PRAGMA user_version")
    // What is up to date is not touched.
    SqliteSchema.migrate [ one; two ] (view "title") db
    equal [ [ "Tainaron 1985" ] ] (query path 1 "SELECT * FROM songs_readable")

[<Test>]
let ``books of the version before deltas were written are read, and nothing is doubted of them`` () =
    let path = madeBy ""

    do
        use db = access path Access.Write
        SqliteSchema.migrate (List.take 2 SqliteSchema.steps) [] db

        db.Execute
            "INSERT INTO exchanges VALUES (1, 'polymarket');
             INSERT INTO market_keys (id, exchange, name) VALUES (1, 1, 'm1');
             INSERT INTO token_keys (id, market, name, books) VALUES (1, 1, 'm1-yes', 1);
             INSERT INTO orderbook_snapshots (token, at, hash, received, verdict, reason, flags, bids, asks)
             VALUES (1, 10, 'h', 20, 1, 'poll', 0, '[]', '[[500000,1000000]]')"

    let store = openAt path

    match books store with
    | [ book ] ->
        equal (Verdict.Unverifiable, Doubt.None, Reason.Poll) (book.Verdict, book.Doubt, book.Reason)
    | other -> failwith $"%A{other}"

    write store [ batch [ delta "m1" 1 30L; delta "m1" 2 30L ] ]
    let summary = (result (store.Status())).Markets.Head
    equal (1L, 2L, ValueSome(at 30L)) (summary.Books, summary.Deltas, summary.FirstDelta)
    close store

[<Test>]
let ``trades and jobs of the version before are read: what was paid is not known, and no job has a state``
    ()
    =
    let path = madeBy ""

    do
        use db = access path Access.Write
        SqliteSchema.migrate (List.take 3 SqliteSchema.steps) [] db

        db.Execute
            $"INSERT INTO exchanges VALUES (1, 'polymarket');
             INSERT INTO market_keys (id, exchange, name, trades) VALUES (1, 1, 'm1', 1);
             INSERT INTO token_keys (id, market, name) VALUES (1, 1, 'm1-yes');
             INSERT INTO trades (market, at, trade_id, source, token, side, price, size, received, flags)
             VALUES (1, {(at 10L).Micros}, zeroblob(16), 0, 1, 0, 550000, 10500000, 20, 0);
             INSERT INTO trade_links (other_id, trade_id, at) VALUES (randomblob(16), zeroblob(16), 10);
             INSERT INTO checkpoints (job, market, stream, since, watermark, rows, error, duration, runs, total_rows, total_errors)
             VALUES ('polymarket/trades/m1', 1, 'trades', 0, 10, 1, '', 5, 1, 1, 0)"

    let store = openAt path
    equal [ ValueNone ] (trades store |> List.map _.Collateral)
    equal [ 1L, 1L ] (tallies store |> List.map (fun one -> one.Rows, one.Linked))
    equal [ "" ] (result (store.Checkpoints()) |> List.map _.State)

    write store [
        batch [ fill "m1" 1 10L; paid "5.775"; reached { checkpoint with State = "page 2" } ]
    ]

    equal [ ValueNone; ValueSome(size "5.775") ] (trades store |> List.map _.Collateral |> List.sort)

    equal [ "page 2" ] (result (store.Checkpoints()) |> List.map _.State)
    close store

[<Test>]
let ``a step that fails leaves the version that was`` () =
    let path = madeBy ""
    use db = access path Access.Write
    let one = "CREATE TABLE songs (title TEXT);"
    SqliteSchema.migrate [ one ] [] db

    Assert.Throws<SqliteException>(fun () ->
        SqliteSchema.migrate [ one; "CREATE TABLE more (x); CREATE TABLE songs (x);" ] [] db)
    |> ignore

    equal [ [ "1" ] ] (query path 1 "PRAGMA user_version")
    equal [ [ "songs" ] ] (query path 1 "SELECT name FROM sqlite_schema")

[<Test>]
let ``our own file from before the first version is brought up to date`` () =
    let path = madeBy $"PRAGMA application_id = {SqliteSchema.ApplicationId}"
    let store = openAt path
    write store [ batch [ fill "m1" 1 10L ] ]
    equal 1 (trades store).Length
    close store

// ---- reading beside a writer

[<Test>]
let ``a reader sees what a writer has written, and never half of it`` () =
    withStore (fun path store ->
        let reader = readAt path
        equal [] (trades reader)
        write store [ batch [ fill "m1" 1 10L; fill "m1" 2 20L ] ]
        equal 2 (trades reader).Length
        equal (everything store) (everything reader)
        close reader)

[<Test>]
let ``a reader writes nothing and left no gaps`` () =
    withStore (fun path store ->
        write store [ batch [ hole gap ] ]
        let reader = readAt path

        match tryWrite reader [ batch [ fill "m1" 1 10L ] ] with
        | Error(StoreFault.Failed detail) -> Assert.That(detail, Does.Contain "reading only")
        | other -> failwith $"%A{other}"

        equal [] (result (reader.OpenGaps()))
        equal 1 (gaps reader).Length
        close reader
        equal [] (trades store))

[<Test>]
let ``reads go on while batches are written`` () =
    withStore (fun _ store ->
        let writing =
            Tasks.Task.Run(fun () ->
                for number in 1..200 do
                    write store [
                        batch [ fill "m1" number (int64 number); fill "m2" number (int64 number) ]
                    ])

        let mutable seen = 0

        while not writing.IsCompleted do
            let count = (trades store).Length
            equal 0 (count % 2)
            Assert.That(count, Is.GreaterThanOrEqualTo seen)
            seen <- count

        writing.Wait()
        equal 400 (trades store).Length)

[<Test>]
let ``tallies are made while batches are written, each of one moment`` () =
    withStore (fun _ store ->
        let writing =
            Tasks.Task.Run(fun () ->
                for number in 1..200 do
                    write store [
                        batch [ fill "m1" number (int64 number); fill "m2" number (int64 number) ]
                    ])

        let mutable seen = 0L

        while not writing.IsCompleted do
            match tallies store |> List.map _.Rows with
            | [] -> ()
            | [ one; other ] ->
                equal one other
                Assert.That(one, Is.GreaterThanOrEqualTo seen)
                seen <- one
            | other -> failwith $"%A{other}"

        writing.Wait()
        equal [ 200L; 200L ] (tallies store |> List.map _.Rows))

[<Test>]
let ``tallies are read market by market, and nothing is kept or sorted for them`` () =
    withStore (fun path store ->
        write store [ batch [ fill "m1" 1 10L ] ]

        let plan =
            query path 4 $"EXPLAIN QUERY PLAN {Sqlite.tallyRows}"
            |> List.map List.last
            |> String.concat "\n"

        Assert.That(plan, Does.Contain "SEARCH t USING PRIMARY KEY (market=? AND at>? AND at<?)")
        Assert.That(plan, Does.Contain "SEARCH trade_links USING PRIMARY KEY (other_id=?)")

        Assert.That(
            plan,
            Does.Contain "SEARCH trade_links USING COVERING INDEX trade_links_trade (trade_id=?)"
        )

        Assert.That(plan, Does.Not.Contain "TEMP B-TREE"))

[<Test>]
let ``each collector has its own gaps`` () =
    let path = newPath ()
    let first = openAs "first" path
    write first [ batch [ hole gap ] ]
    close first
    let second = openAs "second" path
    equal [] (result (second.OpenGaps()))
    write second [ batch [ hole gap; hole { gap with Since = at 7L } ] ]
    equal [ at 7L; gap.Since ] (result (second.OpenGaps()) |> List.map _.Since)
    equal 3 (gaps second).Length
    close second

// ---- what is not committed is not there

[<Test>]
let ``a transaction that was not committed when the process died is not there`` () =
    withStore (fun path store ->
        write store [ batch [ fill "m1" 1 10L ] ]
        use other = access path Access.Write
        other.Execute "BEGIN IMMEDIATE; DELETE FROM trades; UPDATE market_keys SET trades = 0"
        // What a disk holds at this moment is what is found after a crash.
        let copy = newPath ()
        Directory.CreateDirectory(string (Path.GetDirectoryName copy)) |> ignore

        for ending in [ ""; "-wal" ] do
            File.Copy(path + ending, copy + ending)

        other.Execute "ROLLBACK"
        let found = openAt copy
        equal (everything store) (everything found)
        equal [ [ "ok" ] ] (query copy 1 "PRAGMA integrity_check")
        close found)

[<Test>]
let ``a batch that fails takes all batches of its write with it, and all goes well the second time`` () =
    withStore (fun path store ->
        let names = Names()
        write store [ batchOf names (fill "m1" 1 10L) ]

        let good =
            batchOf names (fun batch ->
                for number in 1..3 do
                    fill "m2" number 10L batch
                    book "m3" number 10L batch)

        // A batch whose rows point to no names fails in the middle.
        let bad = batchOf names (fill "m4" 1 10L)
        let row = &bad.Trades[0]
        row <- { row with Token = { Key = 1_000_000 } }

        Assert.Catch(fun () -> tryWrite store [ good; bad ] |> ignore) |> ignore
        equal 1 (trades store).Length
        equal [] (books store)
        equal [ [ "m1" ] ] (query path 1 "SELECT name FROM market_keys")
        write store [ good ]
        equal 4 (trades store).Length
        equal 3 (books store).Length
        equal true (good.Trades[0].Inserted && good.Books[2].Inserted)
        equal [ 1L; 3L; 0L ] ((result (store.Status())).Markets |> List.map _.Trades)
        equal [ [ "ok" ] ] (query path 1 "PRAGMA integrity_check"))

[<Test>]
let ``closing leaves one file, the log emptied`` () =
    let path = newPath ()
    let store = openAt path
    write store [ batch [ fill "m1" 1 10L ] ]
    close store
    equal false (File.Exists(path + "-wal"))

    match tryWrite store [ batch [ fill "m1" 2 10L ] ] with
    | Error(StoreFault.Failed detail) -> Assert.That(detail, Does.Contain "closed")
    | other -> failwith $"%A{other}"

[<Test>]
let ``a lock file that was left behind locks nothing`` () =
    // The lock is the system's, held by an open file: it goes with its process, however that ends.
    let path = newPath ()
    Directory.CreateDirectory(string (Path.GetDirectoryName path)) |> ignore
    File.WriteAllText(path + ".lock", "")
    close (openAt path)

// ---- faults while writing

let private many first =
    batch [
        for number in first .. first + 400 do
            book "m1" number (int64 number)
    ]

[<Test>]
let ``a locked file is a fault that passes`` () =
    withStore (fun path store ->
        write store [ batch [ fill "m1" 1 10L ] ]
        use other = access path Access.Write
        other.Execute "BEGIN IMMEDIATE"
        let waiting = batch [ fill "m2" 1 10L ]

        match tryWrite store [ waiting ] with
        | Error(StoreFault.Locked detail) -> Assert.That(detail, Does.Contain path)
        | other -> failwith $"%A{other}"

        other.Execute "ROLLBACK"
        write store [ waiting ]
        equal 2 (trades store).Length)

[<Test>]
let ``a disk without room is a fault that passes`` () =
    // A file system of half a megabyte, where the tests may make one.
    let folder = temporaryFolder ()

    let system program (arguments: string) =
        try
            use running =
                Process.Start(
                    ProcessStartInfo(
                        program,
                        arguments,
                        RedirectStandardError = true,
                        RedirectStandardOutput = true
                    )
                )
                |> Option.ofObj
                |> Option.get

            running.WaitForExit()
            running.ExitCode = 0
        with :? ComponentModel.Win32Exception ->
            false

    if not (system "mount" $"-t tmpfs -o size=512k tributary-test {folder}") then
        Directory.Delete(folder, true)
        Assert.Ignore "no permission to mount a small file system"

    try
        let path = Path.Combine(folder, "test.db")
        let store = openAt path

        try
            write store [ batch [ fill "m1" 1 10L ] ]
            let ballast = Path.Combine(folder, "ballast")
            File.WriteAllBytes(ballast, Array.zeroCreate 150_000)
            let large = [ many 1; many 1000; many 2000 ]

            match tryWrite store large with
            | Error(StoreFault.Full detail) -> Assert.That(detail, Does.Contain path)
            | other -> failwith $"%A{other}"

            equal [] (books store)
            equal 1 (trades store).Length
            File.Delete ballast
            write store [ many 1 ]
            equal 401 (books store).Length
            equal [ [ "ok" ] ] (query path 1 "PRAGMA integrity_check")
        finally
            close store
    finally
        system "umount" folder |> ignore
        Directory.Delete(folder, true)

// ---- the views

let private one path columns view =
    query path columns $"SELECT * FROM {view}" |> List.exactlyOne

[<Test>]
let ``trades are readable, to the last digit`` () =
    withStore (fun path store ->
        let written = batch [ described market; fill "m1" 1 10L; paid "5.774999" ]
        write store [ written ]

        equal
            [
                "polymarket"
                "will-it-rain"
                "m1"
                "m1-yes"
                "Yes"
                "sell"
                "0.55"
                "10.5"
                "5.774999"
                string written.Trades[0].Id
                transaction 1
                "api"
                "2026-07-24T00:00:00.000010Z"
                "2026-07-24T00:00:03.000000Z"
                "off_grid old"
            ]
            (one path 15 "trades_readable"))

[<Test>]
let ``books are readable, with mid, spread and spread in basis points`` () =
    withStore (fun path store ->
        write store [ batch [ described market; book "m1" 1 10L ] ]

        equal
            [
                "polymarket"
                "will-it-rain"
                "m1"
                "m1-yes"
                "Yes"
                "0.48"
                "30.0"
                "0.52"
                "10.0"
                "0.5"
                "0.04"
                "800.0"
                hash 1
                "null"
                "verified"
                ""
                "poll"
                "2026-07-24T00:00:00.000010Z"
                "2026-07-24T00:00:03.000000Z"
                ""
                "[[0.48,30.0],[0.47,500.25]]"
                "[[0.52,10.0],[0.6,1.0]]"
            ]
            (one path 22 "orderbook_snapshots_readable"))

[<Test>]
let ``changes of a book are readable, with their doubt`` () =
    withStore (fun path store ->
        write store [ batch [ described market; deltaOf "m1" Side.Sell "0.52" "0" 3 (hash 1) 10L ] ]

        equal
            [
                "polymarket"
                "will-it-rain"
                "m1"
                "m1-yes"
                "Yes"
                "2026-07-24T00:00:00.000010Z"
                "3"
                "sell"
                "0.52"
                "0.0"
                hash 1
                "null"
                "unverifiable"
                "not_checked"
                "2026-07-24T00:00:03.000000Z"
            ]
            (one path 15 "orderbook_deltas_readable"))

[<Test>]
let ``own orders, own trades and matches are readable`` () =
    withStore (fun path store ->
        write store [
            batch [
                described market
                ordered (ownOrder "m1" "o-1" "live" "10.5" 10L)
                traded (ownTrade "m1" "t-1" "o-1" "matched" 20L)
                confirmed {
                    matched "rain" "yes" "m1" 30L with
                        IsWithdrawn = true
                }
            ]
        ]

        let row view columns =
            let listed = String.concat ", " columns

            query path (List.length columns) $"SELECT {listed} FROM {view}"
            |> List.exactlyOne

        equal
            [
                "polymarket"
                "will-it-rain"
                "m1-yes"
                "Yes"
                "sell"
                "0.62"
                "40.5"
                "10.5"
                "live"
            ]
            (row "own_orders_readable" [
                "exchange"
                "slug"
                "token"
                "outcome"
                "side"
                "price"
                "size"
                "filled"
                "status"
            ])

        equal
            [
                "t-1"
                "o-1"
                "buy"
                "0.333333"
                "12.25"
                "1"
                "matched"
                transaction 7
                "2026-07-24T00:00:00.000020Z"
            ]
            (row "own_trades_readable" [
                "trade_id"
                "order_id"
                "side"
                "price"
                "size"
                "is_taker"
                "status"
                "transaction_hash"
                "at"
            ])

        equal
            [ "rain"; "yes"; "polymarket"; "m1"; "Yes"; "1"; "2026-07-24T00:00:00.000030Z" ]
            (row "market_matches_readable" [
                "question"
                "answer"
                "exchange"
                "market"
                "outcome"
                "is_withdrawn"
                "at"
            ]))

let private spreads path =
    query
        path
        7
        "SELECT question, answer, sell_exchange, buy_exchange, sell_best_bid, buy_best_ask, round(spread, 6)
         FROM market_spreads ORDER BY question, answer, sell_exchange, buy_exchange"

/// What kalshi has.
let private onKalshi (fill: Batch -> unit) =
    batchOf (Names()) (fun batch ->
        batch.Exchange <- "kalshi"
        fill batch)

[<Test>]
let ``a spread is the bid of one exchange less the ask of another, of the newest books of an answer that stands confirmed``
    ()
    =
    withStore (fun path store ->
        let kalshi = sound (ExchangeId.Parse "kalshi")
        let rain = matched "rain" "yes" "m1" 10L

        let there = {
            matched "rain" "yes" "k1" 10L with
                Exchange = kalshi
        }

        write store [
            batch [
                confirmed rain
                confirmed there
                // Another answer is none to compare with, and neither is the same exchange.
                confirmed {
                    matched "rain" "no" "m2" 10L with
                        Exchange = exchange
                }
                confirmed (matched "rain" "yes" "m3" 10L)
                bookOf "m1" [ "0.9", "1" ] [ "0.91", "1" ] (hash 1) 1L
                bookOf "m1" [ "0.48", "30" ] [ "0.5", "10" ] (hash 2) 5L
                bookOf "m2" [ "0.2", "30" ] [ "0.21", "10" ] (hash 3) 5L
            ]
            onKalshi (fun batch ->
                bookOf "k1" [ "0.54", "7" ] [ "0.57", "8" ] (hash 4) 6L batch
                // Whatever a proof spoke against counts for nothing.
                bookOf "k1" [ "0.1", "7" ] [ "0.11", "8" ] (hash 5) 7L batch

                batch.Books[1] <-
                    {
                        batch.Books[1] with
                            Verdict = Verdict.Mismatched
                    })
        ]

        equal
            [
                [ "rain"; "yes"; "kalshi"; "polymarket"; "0.54"; "0.5"; "0.04" ]
                [ "rain"; "yes"; "polymarket"; "kalshi"; "0.48"; "0.57"; "-0.09" ]
            ]
            (spreads path)

        equal
            [ "2026-07-24T00:00:00.000006Z"; "2026-07-24T00:00:00.000005Z"; "7.0"; "10.0" ]
            (query
                path
                4
                "SELECT sell_at, buy_at, sell_best_bid_size, buy_best_ask_size FROM market_spreads WHERE spread > 0"
             |> List.exactlyOne)

        // What was withdrawn is not confirmed any more, and may be again.
        write store [
            batch [
                confirmed {
                    there with
                        At = at 20L
                        IsWithdrawn = true
                }
            ]
        ]

        equal [] (spreads path)
        write store [ batch [ confirmed { there with At = at 30L } ] ]
        equal 2 (spreads path).Length

        // An empty side has no price.
        write store [ batch [ bookOf "m1" [ "0.48", "30" ] [] (hash 6) 8L ] ]

        equal
            [ [ "null" ]; [ "-0.09" ] ]
            (query path 1 "SELECT round(spread, 6) FROM market_spreads ORDER BY sell_exchange"))

[<Test>]
let ``the books of a spread are looked up, not searched`` () =
    withStore (fun path store ->
        write store [ batch [ confirmed (matched "rain" "yes" "m1" 10L); book "m1" 1 10L ] ]

        let plan =
            query path 4 "EXPLAIN QUERY PLAN SELECT * FROM market_spreads WHERE question = 'rain'"
            |> List.map List.last

        for step in plan do
            Assert.That(step, Does.Not.Match "SCAN (s|b|ob)( |$)", String.concat "\n" plan))

[<Test>]
let ``the rows of one token or market are found in their order, from either end, and not sorted`` () =
    withStore (fun path store ->
        write store [ batch [ fill "m1" 1 10L; book "m1" 1 10L; delta "m1" 1 10L ] ]

        for latest in [ false; true ] do
            for sql in Sqlite.statementsOfOne latest do
                let plan =
                    query path 4 $"EXPLAIN QUERY PLAN {sql}"
                    |> List.map List.last
                    |> String.concat "\n"

                Assert.That(plan, Does.Not.Contain "TEMP B-TREE")

                Assert.That(
                    plan,
                    Does.Match
                        "SEARCH (b USING INDEX|d USING PRIMARY KEY|t USING PRIMARY KEY|p USING PRIMARY KEY)"
                ))

[<Test>]
let ``a side that is empty has no best, and the book no mid`` () =
    withStore (fun path store ->
        write store [ batch [ bookOf "m1" [] [ "0.6", "1" ] "" 10L ] ]

        equal
            [ "null"; "null"; "0.6"; "1.0"; "null"; "null"; "null"; "" ]
            (query
                path
                8
                "SELECT best_bid, best_bid_size, best_ask, best_ask_size, mid, spread, spread_bps, hash
                 FROM orderbook_snapshots_readable"
             |> List.exactlyOne))

[<Test>]
let ``every price and every whole flag is shown as it is written`` () =
    withStore (fun path store ->
        let prices = [ "0.001"; "0.000001"; "0.07"; "0.123456"; "0.999999"; "0.29" ]

        write store [
            batch [
                for number, text in List.indexed prices do
                    fillOf "m1" "m1-yes" "Yes" text number (int64 number)
            ]
        ]

        equal
            (prices
             |> List.map (fun text -> [ if text = "0.000001" then "1.0e-06" else text ]))
            (query path 1 "SELECT price FROM trades_readable ORDER BY at")

        execute path $"UPDATE trades SET flags = {2 * int Flags.Maker - 1}"

        equal
            "rounded off_grid at_bound out_of_bounds old future crossed locked one_sided empty disordered duplicate_level zero_size stale maker"
            (query path 1 "SELECT flags FROM trades_readable").Head.Head)

[<Test>]
let ``markets, their numbers, gaps, checkpoints, metrics and quarantine are readable`` () =
    withStore (fun path store ->
        let closed = {
            gap with
                Until = ValueSome(at 1_500_100L)
        }

        write store [
            batch [ described market; hole closed; reached checkpoint ]
            batch [
                reached {
                    checkpoint with
                        Watermark = at 900L
                        Rows = 2
                        Error = "it broke"
                        State = "page 2"
                }
            ]
            batch [ rejected "no side" "{\"a\":1}" "/page/1"; measured "rows" 7.5 9L ]
        ]

        equal
            [
                "will-it-rain"
                "open"
                "0.01"
                "5.0"
                "null"
                "2026-07-24T00:00:09.000000Z"
                "[\"weather\",\"größe\"]"
            ]
            (query
                path
                7
                "SELECT slug, status, tick_size, minimum_size, starts, ends, tags FROM markets_readable"
             |> List.exactlyOne)

        equal
            [
                "polymarket"
                "will-it-rain"
                "m1"
                "2026-07-24T00:00:00.001000Z"
                "1000.5"
                "null"
                "null"
            ]
            (one path 7 "market_stats_readable")

        equal
            [
                "main"
                "polymarket"
                "books"
                "will-it-rain"
                "m1"
                "m1-yes"
                "Yes"
                "disconnect"
                "2026-07-24T00:00:00.000100Z"
                "2026-07-24T00:00:01.500100Z"
                "1.5"
                "null"
                "null"
            ]
            (one path 13 "gaps_readable")

        equal
            [
                "polymarket/trades/m1"
                "polymarket"
                "trades"
                "will-it-rain"
                "m1"
                ""
                "2026-07-24T00:00:00.000000Z"
                "2026-07-24T00:00:00.000900Z"
                "2"
                "it broke"
                "0.0125"
                "2"
                "9"
                "1"
                "page 2"
            ]
            (one path 15 "checkpoints_readable")

        equal
            [
                "polymarket"
                "/page/1"
                "17"
                "no side"
                "2026-07-24T00:00:03.000000Z"
                "{\"a\":1}"
            ]
            (one path 6 "quarantine_readable")

        equal
            [ "rows"; "exchange=polymarket"; "2026-07-24T00:00:00.000009Z"; "7.5" ]
            (one path 4 "collection_metrics_readable"))

[<Test>]
let ``the same run of a job counts once in its totals`` () =
    withStore (fun path store ->
        write store [ batch [ reached checkpoint ]; batch [ reached checkpoint ] ]

        equal
            [ [ "1"; "7"; "0" ] ]
            (query path 3 "SELECT runs, total_rows, total_errors FROM checkpoints_readable"))

[<Test>]
let ``fills show each fill once: a sighting that is linked to a better one is left out`` () =
    withStore (fun path store ->
        let seen = batch [ fill "m1" 1 10L; fill "m1" 2 20L; fill "m1" 3 30L ]

        for i in 1..2 do
            let row = &seen.Trades[i]
            row <- { row with Source = Source.Stream }

        write store [ seen ]

        write store [ batch [ linkOf seen.Trades[0].Id seen.Trades[1].Id 10L ] ]

        equal
            [
                [ string seen.Trades[0].Id; "api"; "1" ]
                [ string seen.Trades[2].Id; "stream"; "0" ]
            ]
            (query path 3 "SELECT trade_id, source, confirmed FROM fills ORDER BY at"))

[<Test>]
let ``fills are the takers': a maker's part is none, and the chain counts where the API tells nothing`` () =
    withStore (fun path store ->
        let written =
            batch [
                fill "m1" 1 10L // known to all three
                fill "m1" 2 11L
                toldBy Source.Stream Flags.None
                fill "m1" 3 12L
                toldBy Source.Chain Flags.Rounded
                fill "m1" 4 13L
                toldBy Source.Chain (Flags.Maker ||| Flags.Rounded)
                fill "m1" 5 20L // known to the chain and the stream
                toldBy Source.Chain Flags.None
                fill "m1" 6 21L
                toldBy Source.Chain Flags.Maker
                fill "m1" 7 22L
                toldBy Source.Stream Flags.None
                fill "m1" 8 30L // known to the stream alone
                toldBy Source.Stream Flags.None
            ]

        let id index = written.Trades[index].Id

        write store [
            written
            batch [ linkOf (id 0) (id 1) 10L; linkOf (id 0) (id 2) 10L; linkOf (id 4) (id 6) 20L ]
        ]

        equal
            [
                [ string (id 0); "api"; "1" ]
                [ string (id 4); "chain"; "1" ]
                [ string (id 7); "stream"; "0" ]
            ]
            (query path 3 "SELECT trade_id, source, confirmed FROM fills ORDER BY at"))

[<Test>]
let ``every view can be read, and every table keeps its rows strictly`` () =
    withStore (fun path _ ->
        for view in SqliteSchema.views do
            equal [] (query path 1 $"SELECT * FROM {view.Name}")

        equal
            []
            (query
                path
                1
                "SELECT name FROM pragma_table_list WHERE type = 'table' AND NOT strict AND name NOT LIKE 'sqlite%'"))

[<Test>]
let ``every key that a row refers to is there, though nothing looks at each insert`` () =
    withStore (fun path store ->
        write store [
            batch [
                described market
                fill "m1" 1 10L
                fillOf "m2" "m2-no" "No" "0.5" 2 20L
                book "m3" 1 10L
                delta "m4" 1 10L
                point "m5" 10L
                hole { gap with Market = marketId "m6" }
                reached {
                    checkpoint with
                        Market = marketId "m7"
                        Token = ValueSome(tokenId "m7-yes")
                }
                measured "rows" 1.0 5L
            ]
        ]

        equal [] (query path 4 "PRAGMA foreign_key_check"))

[<Test>]
let ``times before 1970 are shown as they are`` () =
    withStore (fun path store ->
        write store [
            batch [
                described {
                    market with
                        Start = ValueSome(Instant.ofMicros -1L)
                }
            ]
        ]

        equal [ [ "1969-12-31T23:59:59.999999Z" ] ] (query path 1 "SELECT starts FROM markets_readable"))

// ---- versions, totals, plans

[<Test>]
let ``a market's version covers what is described and nothing else`` () =
    let version = Content.versionOf
    // The vector: this layout must never change, or every market would be stored anew.
    equal "e5885d213c0880c5da9a65df9fc68bb5" (Convert.ToHexStringLower(version market))

    for same in
        [
            { market with Volume = ValueNone }
            {
                market with
                    Liquidity = ValueSome(size "1")
            }
            {
                market with
                    OpenInterest = ValueSome(size "1")
            }
            { market with Updated = ValueNone }
            { market with Received = at 9L }
            { market with Raw = "" }
        ] do
        equal (version market) (version same)

    let others = [
        {
            market with
                Exchange = sound (ExchangeId.Parse "kalshi")
        }
        { market with Market = marketId "m2" }
        { market with Event = "" }
        { market with Slug = "x" }
        { market with Question = "x" }
        { market with Outcomes = [||] }
        {
            market with
                Outcomes = Array.rev market.Outcomes
        }
        {
            market with
                Status = MarketStatus.Closed
        }
        { market with AcceptsOrders = false }
        { market with TickSize = ValueNone }
        {
            market with
                TickSize = ValueSome Price.zero
        }
        { market with MinimumSize = ValueNone }
        { market with NegRisk = true }
        {
            market with
                Start = market.End
                End = ValueNone
        }
        { market with End = ValueNone }
        {
            market with
                ClosedAt = ValueSome(at 1L)
        }
        { market with Winner = "Yes" }
        {
            market with
                Tags = [| "weathergröße" |]
        }
    ]

    equal
        (others.Length + 1)
        (market :: others |> List.map (version >> Convert.ToHexString) |> List.distinct).Length

[<Test>]
let ``rows that are deleted by hand are no longer counted`` () =
    withStore (fun path store ->
        write store [
            batch [
                fill "m1" 1 10L
                fill "m1" 2 20L
                book "m1" 1 10L
                delta "m1" 1 10L
                delta "m1" 1 20L
                delta "m1" 2 20L
            ]
        ]

        execute
            path
            "DELETE FROM trades WHERE at < (SELECT max(at) FROM trades); DELETE FROM orderbook_snapshots;
             DELETE FROM orderbook_deltas WHERE ordinal = 2"

        let summary = (result (store.Status())).Markets.Head
        equal (1L, 0L, 2L) (summary.Trades, summary.Books, summary.Deltas))

[<Property(MaxTest = 40)>]
let ``whatever is written and asked for, the answers are those of memory`` () =
    let any = Gen.choose (0, 4)

    let row = gen {
        let! market = Gen.elements [ "m1"; "m2" ]
        let! ordinal = any
        let! time = any
        let! side = Gen.elements [ Side.Buy; Side.Sell ]
        let! cents = any

        return deltaOf market side $"0.{cents}" $"{cents}" ordinal (hash ordinal) (int64 time)
    }

    let other = gen {
        let! market = Gen.elements [ "m1"; "m2" ]
        let! number = any
        let! time = any
        return! Gen.elements [ fill market number (int64 time); book market number (int64 time) ]
    }

    let question = gen {
        let! market =
            Gen.elements [ ValueNone; ValueSome(marketId "m1"); ValueSome(marketId "m9") ]

        let! token =
            Gen.elements [ ValueNone; ValueSome(tokenId "m1-yes"); ValueSome(tokenId "m2-yes") ]

        let! since = any
        let! length = any
        let! limit = Gen.elements [ 0; 1; 2; 5; Int32.MaxValue ]
        let! latest = Gen.elements [ false; true ]

        return {
            Query.everything with
                Market = market
                Token = token
                Since = at (int64 since)
                Until = at (int64 (since + length))
                Limit = limit
                Latest = latest
        }
    }

    let batches = Gen.oneof [ row; other ] |> Gen.listOf |> Gen.listOf

    Prop.forAll (Arb.fromGen (Gen.zip batches (Gen.listOfLength 8 question))) (fun (batches, questions) ->
        withStore (fun _ store ->
            let memory = Memory.create "main"

            for contents in batches do
                let ours, theirs = batch contents, batch contents
                write store [ ours ]
                write memory [ theirs ]

                for i in 0 .. ours.Deltas.Count - 1 do
                    equal theirs.Deltas[i].Inserted ours.Deltas[i].Inserted

            for question in questions do
                equal (result (memory.Trades question)) (result (store.Trades question))
                equal (result (memory.Books question)) (result (store.Books question))
                equal (result (memory.Deltas question)) (result (store.Deltas question))

            equal (result (memory.Status())).Markets (result (store.Status())).Markets))

[<Test>]
let ``what a token's outcome is called is learned from whoever says it first`` () =
    withStore (fun path store ->
        write store [ batch [ book "m1" 1 10L ]; batch [ fillOf "m1" "m1-yes" "" "0.5" 1 10L ] ]

        let outcomes () =
            query path 1 "SELECT DISTINCT outcome FROM orderbook_snapshots_readable"

        equal [ [ "" ] ] (outcomes ())
        let names = Names()
        write store [ batchOf names (fill "m1" 2 20L) ]
        equal [ [ "Yes" ] ] (outcomes ())
        // A name that was given later is the row's own.
        write store [ batchOf names (fillOf "m1" "m1-yes" "Aye" "0.5" 3 30L) ]
        equal [ "Yes"; "Yes"; "Aye" ] (trades store |> List.map _.Outcome))
