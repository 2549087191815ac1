/// The SQLite store against the bare loop that it cannot be faster than: the same statement on the same table, with the same
/// rows, settings and transactions, every value bound as it will be stored; and its tallies against a loop that only reads and adds.
module Tributary.Bench.StoreBench

open System
open System.Buffers.Binary
open System.IO
open System.Security.Cryptography
open System.Text
open System.Threading
open SQLitePCL
open Tributary
open Tributary.Stores
open Tributary.Bench.Measure

let private markets = 200

let internal known result =
    match result with
    | Ok value -> value
    | Error fault -> failwith $"%A{fault}"

/// The rows twice: as batches, and as what is bound.
[<NoComparison; NoEquality>]
type internal Rows = {
    Batches: Batch[]
    PerBatch: int
    /// Nine a row: market, at, source, token, side, price, size, received, flags.
    Numbers: int64[]
    Ids: byte[]
    Transactions: byte[]
    MarketNames: string[]
    /// Two of each market.
    TokenNames: string[]
}

let internal columns = 9

/// Trades of all markets in the order of time, as a recorder meets them.
let private generate (count: int) : Rows =
    let perBatch = 500
    let random = Random 20260724
    let names = Names()

    let marketNames = Array.init markets (fun i -> $"0x%064x{i + 1}")

    let digits () =
        String.init 77 (fun _ -> string (random.Next 10))

    let tokenNames = Array.init (2 * markets) (fun _ -> digits ())
    let marketKeys = marketNames |> Array.map (fun name -> names.Intern(name: string))
    let tokenKeys = tokenNames |> Array.map (fun name -> names.Intern(name: string))

    let outcomes = [| names.Intern "Yes"; names.Intern "No" |]

    let numbers = Array.zeroCreate<int64>(count * columns)
    let ids = Array.zeroCreate<byte>(count * 16)
    let transactions = Array.zeroCreate<byte>(count * 32)
    let hex = Array.zeroCreate<byte> 66
    hex[0] <- '0'B
    hex[1] <- 'x'B
    random.NextBytes ids
    let seed = Array.zeroCreate<byte> 8
    let started = 1_784_851_200_000_000L

    let batches = [|
        for start in 0..perBatch .. count - 1 do
            let batch = Batch names
            batch.Exchange <- "polymarket"
            batch.Received <- Instant.ofMicros (started + int64 start * 40_000L + 1_000_000L)

            for i in start .. min count (start + perBatch) - 1 do
                let market = random.Next markets
                let yes = random.Next 2
                let at = started + int64 i * 40_000L / 1_000_000L * 1_000_000L // whole seconds, as served
                BinaryPrimitives.WriteInt32LittleEndian(Span seed, i / 2) // two fills a transaction
                let transaction = Span(transactions, i * 32, 32)
                SHA256.HashData(ReadOnlySpan seed, transaction) |> ignore

                Encoding.UTF8.GetBytes(
                    Convert.ToHexStringLower(ReadOnlySpan(transactions, i * 32, 32)),
                    0,
                    64,
                    hex,
                    2
                )
                |> ignore

                let row: TradeRow = {
                    Market = marketKeys[market]
                    Token = tokenKeys[2 * market + yes]
                    Outcome = outcomes[yes]
                    Side = if random.Next 2 = 0 then Side.Buy else Side.Sell
                    Source = Source.Api
                    Price = Price.ofMillionths (int64 (1 + random.Next 999) * 1_000L)
                    Size = known (Size.parse $"{1 + random.Next 5000}.{random.Next 100}")
                    At = Instant.ofMicros at
                    Received = batch.Received
                    Transaction = batch.Keep(ReadOnlySpan hex)
                    Wallet = { Start = 0; Length = 0 }
                    Flags = Flags.None
                    Occurrence = 0
                    Collateral = ValueNone
                    Id = {
                        High = BinaryPrimitives.ReadUInt64BigEndian(ReadOnlySpan(ids, i * 16, 8))
                        Low = BinaryPrimitives.ReadUInt64BigEndian(ReadOnlySpan(ids, i * 16 + 8, 8))
                    }
                    Inserted = false
                }

                batch.Trades.Add &row
                let at = i * columns
                numbers[at] <- int64 market + 1L
                numbers[at + 1] <- row.At.Micros
                numbers[at + 2] <- int64 row.Source
                numbers[at + 3] <- int64 (2 * market + yes) + 1L
                numbers[at + 4] <- int64 row.Side
                numbers[at + 5] <- row.Price.Millionths
                numbers[at + 6] <- row.Size.Millionths
                numbers[at + 7] <- batch.Received.Micros
                numbers[at + 8] <- int64 row.Flags

            batch
    |]

    {
        Batches = batches
        PerBatch = perBatch
        Numbers = numbers
        Ids = ids
        Transactions = transactions
        MarketNames = marketNames
        TokenNames = tokenNames
    }

let private check db result =
    if result <> raw.SQLITE_OK then
        failwith (raw.sqlite3_errmsg(db).utf8_to_string())

let private connect path =
    let mutable db = Unchecked.defaultof<sqlite3>

    if
        raw.sqlite3_open_v2 (path, &db, raw.SQLITE_OPEN_READWRITE ||| raw.SQLITE_OPEN_NOMUTEX, null)
        <> raw.SQLITE_OK
    then
        failwith $"{path} cannot be opened"

    db

let private prepare (db: sqlite3) (sql: string) =
    let mutable statement = Unchecked.defaultof<sqlite3_stmt>
    check db (raw.sqlite3_prepare_v3 (db, sql, 1u, &statement))
    statement

/// A sum over every column of every row that a file holds, the names in place of their keys.
let internal contents path =
    let db = connect path

    let statement =
        prepare
            db
            "SELECT m.name, k.name, coalesce(t.outcome, k.outcome), t.trade_id, t.transaction_hash, t.at, t.source, t.side,
                    t.price, t.size, t.received, t.flags
             FROM trades t JOIN market_keys m ON m.id = t.market JOIN token_keys k ON k.id = t.token"

    let mutable total = 0UL

    while raw.sqlite3_step statement = raw.SQLITE_ROW do
        let mutable row = 0UL

        for column in 0..4 do
            row <- row * 31UL + sum 0UL (raw.sqlite3_column_blob (statement, column))

        for column in 5..11 do
            row <- row * 31UL + uint64 (raw.sqlite3_column_int64 (statement, column))

        // In any order: two files may number the same markets otherwise.
        total <- total + (row ^^^ (row >>> 29)) * 0x9E3779B97F4A7C15UL

    statement.Dispose()
    db.Dispose()
    total

/// A new file with all tables, and what it takes away when it is done.
let internal withFile folder (work: string -> Run) =
    let path = Path.Combine(folder, $"{Guid.NewGuid():N}.db")
    let run = work path
    let checksum = contents path

    for ending in [ ""; "-wal"; "-shm"; ".lock" ] do
        File.Delete(path + ending)

    { run with Checksum = checksum }

let internal count rows = rows.Numbers.Length / columns

let private ours folder (rows: Rows) () =
    withFile folder (fun path ->
        let store = known (Sqlite.openForWriting path "bench" Synchronous.Full)

        let run =
            measure (count rows) (fun () ->
                for batch in rows.Batches do
                    known (store.Write [| batch |] CancellationToken.None |> _.Result)

                0UL)

        store.Close().AsTask().Wait()
        run)

let private insert =
    "INSERT INTO trades (market, at, trade_id, source, token, outcome, side, price, size, transaction_hash, received, flags,
                         collateral)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
     ON CONFLICT (market, at, trade_id, source) DO NOTHING"

let internal bare folder (rows: Rows) () =
    withFile folder (fun path ->
        let made = known (Sqlite.openForWriting path "bench" Synchronous.Full)
        made.Close().AsTask().Wait()
        let db = connect path

        let execute (sql: string) = check db (raw.sqlite3_exec (db, sql))

        execute
            "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 4000;
              PRAGMA journal_size_limit = 67108864; PRAGMA cache_size = -32000; PRAGMA temp_store = MEMORY;
              PRAGMA foreign_keys = OFF;
              BEGIN; INSERT INTO exchanges VALUES (1, 'polymarket')"

        for i in 0 .. rows.MarketNames.Length - 1 do
            execute
                $"INSERT INTO market_keys (id, exchange, name) VALUES ({i + 1}, 1, '{rows.MarketNames[i]}')"

        for i in 0 .. rows.TokenNames.Length - 1 do
            let outcome = if i % 2 = 0 then "Yes" else "No"

            execute
                $"INSERT INTO token_keys (id, market, name, outcome) VALUES ({i + 1}, {i / 2 + 1}, '{rows.TokenNames[i]}', '{outcome}')"

        execute "COMMIT"
        let start, commit = prepare db "BEGIN IMMEDIATE", prepare db "COMMIT"
        let statement = prepare db insert

        let run (statement: sqlite3_stmt) =
            if raw.sqlite3_step statement <> raw.SQLITE_DONE then
                failwith (raw.sqlite3_errmsg(db).utf8_to_string())

            raw.sqlite3_reset statement |> ignore

        let measured =
            measure (count rows) (fun () ->
                let numbers = rows.Numbers
                let mutable i = 0

                while i < count rows do
                    run start

                    for i in i .. min (count rows) (i + rows.PerBatch) - 1 do
                        let at = i * columns
                        raw.sqlite3_bind_int64 (statement, 1, numbers[at]) |> ignore
                        raw.sqlite3_bind_int64 (statement, 2, numbers[at + 1]) |> ignore

                        raw.sqlite3_bind_blob (statement, 3, ReadOnlySpan(rows.Ids, i * 16, 16))
                        |> ignore

                        raw.sqlite3_bind_int64 (statement, 4, numbers[at + 2]) |> ignore
                        raw.sqlite3_bind_int64 (statement, 5, numbers[at + 3]) |> ignore
                        raw.sqlite3_bind_null (statement, 6) |> ignore
                        raw.sqlite3_bind_int64 (statement, 7, numbers[at + 4]) |> ignore
                        raw.sqlite3_bind_int64 (statement, 8, numbers[at + 5]) |> ignore
                        raw.sqlite3_bind_int64 (statement, 9, numbers[at + 6]) |> ignore

                        raw.sqlite3_bind_blob (statement, 10, ReadOnlySpan(rows.Transactions, i * 32, 32))
                        |> ignore

                        raw.sqlite3_bind_int64 (statement, 11, numbers[at + 7]) |> ignore
                        raw.sqlite3_bind_int64 (statement, 12, numbers[at + 8]) |> ignore
                        raw.sqlite3_bind_null (statement, 13) |> ignore
                        run statement

                    run commit
                    i <- i + rows.PerBatch

                0UL)

        for one in [ start; commit; statement ] do
            one.Dispose()

        db.Dispose()
        measured)

// ---- counting what is there

/// What the sums over all rows come down to.
let private ofSums (rows: int64) (size: UInt128) (notional: Int128) (digest: UInt128) =
    let mutable total = uint64 rows

    for part in [ size; Int128.op_Explicit notional; digest ] do
        total <- (total ^^^ uint64 part ^^^ uint64 (part >>> 64)) * 0x9E3779B97F4A7C15UL

    total

let private ourTally (path: string) units () =
    let store = known (Sqlite.openForReading path)

    let run =
        measure units (fun () ->
            let tallies = (store.Tally Query.everything).Result

            ofSums
                (tallies |> List.sumBy _.Rows)
                (tallies |> List.fold (fun sum one -> sum + one.Size) UInt128.Zero)
                (tallies |> List.fold (fun sum one -> sum + one.Notional) Int128.Zero)
                (tallies |> List.fold (fun sum one -> sum + one.Digest) UInt128.Zero))

    store.Close().AsTask().Wait()
    run

/// The same sums of the whole table, by nothing and without a look at links.
let private bareTally (path: string) units () =
    let db = connect path
    let statement = prepare db "SELECT price, size, trade_id FROM trades"

    let run =
        measure units (fun () ->
            let mutable rows = 0L
            let mutable size, notional, digest = UInt128.Zero, Int128.Zero, UInt128.Zero

            while raw.sqlite3_step statement = raw.SQLITE_ROW do
                let price = raw.sqlite3_column_int64 (statement, 0)
                let millionths = raw.sqlite3_column_int64 (statement, 1)
                let id = raw.sqlite3_column_blob (statement, 2)
                rows <- rows + 1L
                size <- size + UInt128.op_Implicit (uint64 millionths)
                notional <- notional + Math.BigMul(price, millionths)
                digest <- digest + BinaryPrimitives.ReadUInt128BigEndian id

            ofSums rows size notional digest)

    statement.Dispose()
    db.Dispose()
    run

/// A file with these rows, none of which is linked.
let private tallied folder (rows: Rows) rounds =
    let path = Path.Combine(folder, "tallied.db")
    let store = known (Sqlite.openForWriting path "bench" Synchronous.Normal)

    for batch in rows.Batches do
        known (store.Write [| batch |] CancellationToken.None |> _.Result)

    store.Close().AsTask().Wait()
    ourTally path (count rows) () |> ignore
    bareTally path (count rows) () |> ignore

    compare
        $"the tallies of {count rows} trades, against their bare sums"
        _.Busy
        0.3
        rounds
        (ourTally path (count rows))
        (bareTally path (count rows))

/// By the wall's clock, as a user waits for it, and by processor time, where the disk's moods do not count.
let run (rowCount: int) rounds : Comparison list =
    let rows = generate rowCount
    let folder = Directory.CreateTempSubdirectory("tributary-bench-").FullName

    try
        // Both sides once, unmeasured: their code is compiled, the disk is awake.
        let few = generate (rowCount / 10)
        ours folder few () |> ignore
        bare folder few () |> ignore

        let waited =
            compare
                $"{rowCount} trades of {markets} markets, {rows.PerBatch} a transaction, synchronous=FULL"
                _.Elapsed
                0.8
                rounds
                (ours folder rows)
                (bare folder rows)

        [
            waited
            {
                waited with
                    Work = "the same by processor time"
                    Clock = _.Busy
            }
            tallied folder rows rounds
        ]
    finally
        Directory.Delete(folder, true)
