module Tributary.Tests.Stores.SchemaTests

open System
open System.Threading.Tasks
open NUnit.Framework

open Tributary.Stores.QuestDb
open Tributary.Tests.Stores.Vocabulary
open Tributary.Tests.Stores.QuestDbSupport

let private tableOf protocol decimals name =
    Tables.all protocol decimals |> List.find (fun table -> table.Name = name)

let private statements protocol decimals ttl =
    Tables.all protocol decimals |> List.map (Tables.create ttl)

// ---- statements

let private golden = [
    "CREATE TABLE IF NOT EXISTS \"markets\" (\"at\" TIMESTAMP, \"exchange\" SYMBOL, \"market\" SYMBOL CAPACITY 65536, \"event\" VARCHAR, \"slug\" VARCHAR, \"question\" VARCHAR, \"outcomes\" VARCHAR, \"tags\" VARCHAR, \"status\" SYMBOL, \"accepts_orders\" BOOLEAN, \"tick_size\" DOUBLE, \"minimum_size\" DOUBLE, \"neg_risk\" BOOLEAN, \"starts\" TIMESTAMP, \"ends\" TIMESTAMP, \"closed\" TIMESTAMP, \"winner\" VARCHAR, \"updated\" TIMESTAMP, \"received\" TIMESTAMP, \"version\" VARCHAR, \"raw\" VARCHAR) TIMESTAMP(\"at\") PARTITION BY MONTH WAL DEDUP UPSERT KEYS(\"at\", \"exchange\", \"market\", \"version\")"
    "CREATE TABLE IF NOT EXISTS \"market_stats\" (\"at\" TIMESTAMP, \"exchange\" SYMBOL, \"market\" SYMBOL CAPACITY 65536, \"volume\" DOUBLE, \"liquidity\" DOUBLE, \"open_interest\" DOUBLE) TIMESTAMP(\"at\") PARTITION BY MONTH WAL DEDUP UPSERT KEYS(\"at\", \"exchange\", \"market\")"
    "CREATE TABLE IF NOT EXISTS \"trades\" (\"at\" TIMESTAMP, \"exchange\" SYMBOL, \"market\" SYMBOL CAPACITY 65536, \"outcome\" SYMBOL, \"side\" SYMBOL, \"source\" SYMBOL, \"flags\" SYMBOL, \"token\" VARCHAR, \"price\" DOUBLE, \"size\" DOUBLE, \"collateral\" DOUBLE, \"trade_id\" VARCHAR, \"transaction_hash\" VARCHAR, \"received\" TIMESTAMP) TIMESTAMP(\"at\") PARTITION BY DAY WAL DEDUP UPSERT KEYS(\"at\", \"exchange\", \"market\", \"trade_id\", \"source\")"
    "CREATE TABLE IF NOT EXISTS \"orderbook_snapshots\" (\"at\" TIMESTAMP, \"exchange\" SYMBOL, \"market\" SYMBOL CAPACITY 65536, \"token\" SYMBOL CAPACITY 131072, \"verdict\" SYMBOL, \"doubt\" SYMBOL, \"reason\" SYMBOL, \"flags\" SYMBOL, \"bids\" DOUBLE[][], \"asks\" DOUBLE[][], \"best_bid\" DOUBLE, \"best_bid_size\" DOUBLE, \"best_ask\" DOUBLE, \"best_ask_size\" DOUBLE, \"mid\" DOUBLE, \"spread\" DOUBLE, \"spread_bps\" DOUBLE, \"hash\" VARCHAR, \"sequence\" LONG, \"received\" TIMESTAMP) TIMESTAMP(\"at\") PARTITION BY HOUR WAL DEDUP UPSERT KEYS(\"at\", \"exchange\", \"market\", \"token\", \"hash\")"
    "CREATE TABLE IF NOT EXISTS \"orderbook_deltas\" (\"at\" TIMESTAMP, \"exchange\" SYMBOL, \"market\" SYMBOL CAPACITY 65536, \"token\" SYMBOL CAPACITY 131072, \"side\" SYMBOL, \"verdict\" SYMBOL, \"doubt\" SYMBOL, \"ordinal\" LONG, \"price\" DOUBLE, \"size\" DOUBLE, \"hash\" VARCHAR, \"sequence\" LONG, \"received\" TIMESTAMP) TIMESTAMP(\"at\") PARTITION BY HOUR WAL DEDUP UPSERT KEYS(\"at\", \"exchange\", \"market\", \"token\", \"ordinal\", \"side\", \"price\")"
    "CREATE TABLE IF NOT EXISTS \"trade_links\" (\"at\" TIMESTAMP, \"other_id\" VARCHAR, \"trade_id\" VARCHAR) TIMESTAMP(\"at\") PARTITION BY DAY WAL DEDUP UPSERT KEYS(\"at\", \"other_id\", \"trade_id\")"
    "CREATE TABLE IF NOT EXISTS \"gaps\" (\"since\" TIMESTAMP, \"collector\" SYMBOL, \"exchange\" SYMBOL, \"stream\" SYMBOL, \"market\" SYMBOL CAPACITY 65536, \"cause\" SYMBOL, \"token\" VARCHAR, \"until\" TIMESTAMP, \"healed_at\" TIMESTAMP, \"healed_by\" VARCHAR) TIMESTAMP(\"since\") PARTITION BY MONTH WAL DEDUP UPSERT KEYS(\"since\", \"collector\", \"exchange\", \"stream\", \"market\", \"cause\", \"token\")"
    "CREATE TABLE IF NOT EXISTS \"prices\" (\"at\" TIMESTAMP, \"exchange\" SYMBOL, \"market\" SYMBOL CAPACITY 65536, \"token\" SYMBOL CAPACITY 131072, \"kind\" SYMBOL, \"price\" DOUBLE, \"received\" TIMESTAMP) TIMESTAMP(\"at\") PARTITION BY DAY WAL DEDUP UPSERT KEYS(\"at\", \"exchange\", \"market\", \"token\", \"kind\")"
    "CREATE TABLE IF NOT EXISTS \"own_orders\" (\"at\" TIMESTAMP, \"exchange\" SYMBOL, \"market\" SYMBOL CAPACITY 65536, \"token\" SYMBOL CAPACITY 131072, \"side\" SYMBOL, \"status\" SYMBOL, \"order_id\" VARCHAR, \"price\" DOUBLE, \"size\" DOUBLE, \"filled\" DOUBLE, \"received\" TIMESTAMP) TIMESTAMP(\"at\") PARTITION BY MONTH WAL DEDUP UPSERT KEYS(\"at\", \"exchange\", \"order_id\", \"status\", \"filled\")"
    "CREATE TABLE IF NOT EXISTS \"own_trades\" (\"at\" TIMESTAMP, \"exchange\" SYMBOL, \"market\" SYMBOL CAPACITY 65536, \"token\" SYMBOL CAPACITY 131072, \"side\" SYMBOL, \"status\" SYMBOL, \"trade_id\" VARCHAR, \"order_id\" VARCHAR, \"price\" DOUBLE, \"size\" DOUBLE, \"is_taker\" BOOLEAN, \"transaction_hash\" VARCHAR, \"received\" TIMESTAMP) TIMESTAMP(\"at\") PARTITION BY MONTH WAL DEDUP UPSERT KEYS(\"at\", \"exchange\", \"trade_id\", \"order_id\", \"status\", \"token\")"
    "CREATE TABLE IF NOT EXISTS \"market_matches\" (\"at\" TIMESTAMP, \"exchange\" SYMBOL, \"market\" SYMBOL CAPACITY 65536, \"token\" SYMBOL CAPACITY 131072, \"question\" SYMBOL, \"answer\" SYMBOL, \"is_withdrawn\" BOOLEAN) TIMESTAMP(\"at\") PARTITION BY MONTH WAL DEDUP UPSERT KEYS(\"at\", \"exchange\", \"question\", \"answer\", \"market\", \"token\")"
    "CREATE TABLE IF NOT EXISTS \"quarantine\" (\"received\" TIMESTAMP, \"exchange\" SYMBOL, \"source\" VARCHAR, \"position\" LONG, \"reason\" VARCHAR, \"bytes\" VARCHAR, \"content\" VARCHAR) TIMESTAMP(\"received\") PARTITION BY MONTH WAL DEDUP UPSERT KEYS(\"received\", \"content\")"
    "CREATE TABLE IF NOT EXISTS \"collection_metrics\" (\"at\" TIMESTAMP, \"collector\" SYMBOL, \"name\" SYMBOL, \"labels\" SYMBOL, \"value\" DOUBLE) TIMESTAMP(\"at\") PARTITION BY DAY WAL DEDUP UPSERT KEYS(\"at\", \"collector\", \"name\", \"labels\")"
]

[<Test>]
let ``each table is made by one statement`` () =
    List.iter2 equal golden (statements 2 false ValueNone)

let private changed (before: string list) (after: string list) =
    List.zip before after |> List.filter (fun (one, other) -> one <> other)

[<Test>]
let ``version 1 has levels as texts, and nothing else is different`` () =
    match changed golden (statements 1 false ValueNone) with
    | [ two, one ] -> equal (two.Replace("DOUBLE[][]", "VARCHAR")) one
    | other -> failwith $"%A{other}"

    equal golden (statements 3 false ValueNone)

[<Test>]
let ``decimals are for the prices and sizes of trades`` () =
    match changed golden (statements 3 true ValueNone) with
    | [ doubles, decimals ] ->
        equal (doubles.Replace("\" DOUBLE", "\" DECIMAL(19,6)")) decimals
        Assert.That(decimals, Does.StartWith "CREATE TABLE IF NOT EXISTS \"trades\"")
    | other -> failwith $"%A{other}"

[<Test>]
let ``every table has a timestamp first, and keys among its columns that are no arrays`` () =
    for protocol in 1..3 do
        for table in Tables.all protocol (protocol = 3) do
            equal Tables.Kind.Timestamp table.Columns.Head.Kind
            equal table.Columns (List.distinctBy _.Name table.Columns)

            for key in table.Keys do
                let column = table.Columns |> List.find (fun column -> column.Name = key)
                Assert.That(column.Kind, Is.Not.EqualTo Tables.Kind.Levels)

// ---- differences

/// A table as it is made, for a server that shows it.
let private asMade (table: Tables.Table) : Schema.FoundTable = {
    Id = 1L
    IsWal = true
    HasDedup = true
    PartitionBy = string table.Partition
    Columns =
        table.Columns
        |> List.mapi (fun i column -> {
            Name = column.Name
            Type = string column.Kind
            IsDesignated = (i = 0)
            IsKey = (i = 0 || List.contains column.Name table.Keys)
        })
}

let private ofType name kind (found: Schema.FoundTable) = {
    found with
        Columns =
            found.Columns
            |> List.map (fun column ->
                if column.Name = name then
                    { column with Type = kind }
                else
                    column)
}

let private without name (found: Schema.FoundTable) = {
    found with
        Columns = found.Columns |> List.filter (fun column -> column.Name <> name)
}

let private fine: Schema.Verdict = {
    Mend = []
    Notes = []
    Refusals = []
    LevelsAsText = false
    Decimals = false
}

let private trades = tableOf 2 false "trades"
let private snapshots = tableOf 2 false "orderbook_snapshots"
let private books1 = tableOf 1 false "orderbook_snapshots"
let private exact = tableOf 3 true "trades"

[<Test>]
let ``a table as it is made has no difference`` () =
    for protocol in 1..3 do
        for decimals in [ false; protocol = 3 ] do
            for table in Tables.all protocol decimals do
                equal
                    {
                        fine with
                            LevelsAsText = protocol < 2
                            Decimals = (decimals && table.Name = "trades")
                    }
                    (Schema.compare protocol table (asMade table))

[<Test>]
let ``capitals in the names of columns are no difference, and further columns neither`` () =
    let made = asMade trades

    let found = {
        made with
            Columns =
                {
                    Name = "mine"
                    Type = "LONG256"
                    IsDesignated = false
                    IsKey = false
                }
                :: (made.Columns
                    |> List.map (fun column -> {
                        column with
                            Name = column.Name.ToUpperInvariant()
                    }))
    }

    equal fine (Schema.compare 2 trades found)

let private dedup =
    "ALTER TABLE \"trades\" DEDUP ENABLE UPSERT KEYS(\"at\", \"exchange\", \"market\", \"trade_id\", \"source\")"

let private otherwise = "rename the table, and it is made anew"

/// What is wanted, what is there, and what that leads to.
let private differences
    : (string * int * Tables.Table * (Schema.FoundTable -> Schema.FoundTable) * Schema.Verdict) list = [
    "a missing column",
    2,
    trades,
    without "flags",
    {
        fine with
            Mend = [ "ALTER TABLE \"trades\" ADD COLUMN \"flags\" SYMBOL" ]
    }

    "a missing key",
    2,
    trades,
    without "source",
    {
        fine with
            Mend = [ "ALTER TABLE \"trades\" ADD COLUMN \"source\" SYMBOL"; dedup ]
    }

    "no dedup",
    2,
    trades,
    (fun found -> {
        found with
            HasDedup = false
            Columns = found.Columns |> List.map (fun column -> { column with IsKey = false })
    }),
    { fine with Mend = [ dedup ] }

    "other keys",
    2,
    trades,
    (fun found -> {
        found with
            Columns =
                found.Columns
                |> List.map (fun column -> {
                    column with
                        IsKey = column.IsKey && column.Name <> "source"
                })
    }),
    { fine with Mend = [ dedup ] }

    "more keys",
    2,
    trades,
    (fun found -> {
        found with
            Columns = found.Columns |> List.map (fun column -> { column with IsKey = true })
    }),
    { fine with Mend = [ dedup ] }

    "no write-ahead log",
    2,
    trades,
    (fun found -> {
        found with
            IsWal = false
            HasDedup = false
    }),
    {
        fine with
            Refusals = [
                "table trades has no write-ahead log, so rows that are sent twice would be there twice: run ALTER TABLE \"trades\" SET TYPE WAL and restart the server, or rename the table"
            ]
    }

    "another designated timestamp",
    2,
    trades,
    (fun found -> {
        found with
            Columns =
                found.Columns
                |> List.map (fun column -> {
                    column with
                        IsDesignated = (column.Name = "received")
                })
    }),
    {
        fine with
            Refusals = [ $"table trades has another designated timestamp than at: {otherwise}" ]
    }

    "no designated timestamp",
    2,
    trades,
    without "at",
    {
        fine with
            Refusals = [ $"table trades has another designated timestamp than at: {otherwise}" ]
    }

    "another partition",
    2,
    trades,
    (fun found -> { found with PartitionBy = "YEAR" }),
    {
        fine with
            Notes = [ "table trades is partitioned by YEAR; made by Tributary it would be by DAY" ]
    }

    "a wrong type",
    2,
    trades,
    ofType "price" "LONG",
    {
        fine with
            Refusals = [ $"column trades.price is a LONG, and a DOUBLE is needed: {otherwise}" ]
    }

    "a timestamp in nanoseconds",
    2,
    trades,
    ofType "received" "TIMESTAMP_NS",
    {
        fine with
            Refusals = [
                $"column trades.received is a TIMESTAMP_NS, and a TIMESTAMP is needed: {otherwise}"
            ]
    }

    "a text of another kind",
    2,
    trades,
    ofType "token" "SYMBOL",
    {
        fine with
            Notes = [ "column trades.token is a SYMBOL; made by Tributary it would be a VARCHAR" ]
    }

    "a symbol that is a text",
    2,
    trades,
    ofType "market" "STRING",
    {
        fine with
            Notes = [ "column trades.market is a STRING; made by Tributary it would be a SYMBOL" ]
    }

    "a decimal where doubles are wanted",
    3,
    tableOf 3 false "trades",
    (ofType "price" "DECIMAL(30,8)" >> ofType "size" "DECIMAL(19,6)"),
    {
        fine with
            Notes = [
                "column trades.price is a DECIMAL(30,8): prices and sizes go there as decimals"
                "column trades.size is a DECIMAL(19,6): prices and sizes go there as decimals"
            ]
            Decimals = true
    }

    "a decimal of too few places",
    3,
    tableOf 3 false "trades",
    ofType "size" "DECIMAL(18,3)",
    {
        fine with
            Refusals = [
                $"column trades.size is a DECIMAL(18,3), and a DOUBLE is needed: {otherwise}"
            ]
    }

    "a decimal, and a server that cannot take them",
    2,
    trades,
    ofType "size" "DECIMAL(19,6)",
    {
        fine with
            Refusals = [
                $"column trades.size is a DECIMAL(19,6), and a DOUBLE is needed: {otherwise}"
            ]
    }

    "a decimal in another table",
    3,
    tableOf 3 false "prices",
    ofType "price" "DECIMAL(19,6)",
    {
        fine with
            Refusals = [
                $"column prices.price is a DECIMAL(19,6), and a DOUBLE is needed: {otherwise}"
            ]
    }

    "doubles where decimals are wanted",
    3,
    exact,
    (ofType "price" "DOUBLE" >> ofType "size" "DOUBLE"),
    {
        fine with
            Notes = [
                $"column trades.price is a DOUBLE, though decimals are configured; {otherwise} with decimals"
                $"column trades.size is a DOUBLE, though decimals are configured; {otherwise} with decimals"
            ]
    }

    "a table from before collateral",
    2,
    trades,
    without "collateral",
    {
        fine with
            Mend = [ "ALTER TABLE \"trades\" ADD COLUMN \"collateral\" DOUBLE" ]
    }

    "a table from before collateral, with decimals",
    3,
    exact,
    without "collateral",
    {
        fine with
            Mend = [ "ALTER TABLE \"trades\" ADD COLUMN \"collateral\" DECIMAL(19,6)" ]
            Decimals = true
    }

    "a table from before collateral, with other decimals than are wanted",
    3,
    tableOf 3 false "trades",
    (without "collateral"
     >> ofType "price" "DECIMAL(30,8)"
     >> ofType "size" "DECIMAL(30,8)"),
    {
        fine with
            Mend = [ "ALTER TABLE \"trades\" ADD COLUMN \"collateral\" DECIMAL(30,8)" ]
            Notes = [
                "column trades.price is a DECIMAL(30,8): prices and sizes go there as decimals"
                "column trades.size is a DECIMAL(30,8): prices and sizes go there as decimals"
            ]
            Decimals = true
    }

    "a table from before collateral, with doubles where decimals are wanted",
    3,
    exact,
    (without "collateral" >> ofType "price" "DOUBLE" >> ofType "size" "DOUBLE"),
    {
        fine with
            Mend = [ "ALTER TABLE \"trades\" ADD COLUMN \"collateral\" DOUBLE" ]
            Notes = [
                $"column trades.price is a DOUBLE, though decimals are configured; {otherwise} with decimals"
                $"column trades.size is a DOUBLE, though decimals are configured; {otherwise} with decimals"
            ]
    }

    "levels as texts",
    2,
    snapshots,
    (ofType "bids" "VARCHAR" >> ofType "asks" "STRING"),
    {
        fine with
            Notes = [
                "column orderbook_snapshots.bids is a VARCHAR: levels go there as JSON texts, as for servers before 9.0"
                "column orderbook_snapshots.asks is a STRING: levels go there as JSON texts, as for servers before 9.0"
            ]
            LevelsAsText = true
    }

    "levels as texts, and one side missing",
    2,
    snapshots,
    (without "bids" >> ofType "asks" "VARCHAR"),
    {
        fine with
            Mend = [ "ALTER TABLE \"orderbook_snapshots\" ADD COLUMN \"bids\" VARCHAR" ]
            Notes = [
                "column orderbook_snapshots.asks is a VARCHAR: levels go there as JSON texts, as for servers before 9.0"
            ]
            LevelsAsText = true
    }

    "a table from before doubts",
    2,
    snapshots,
    without "doubt",
    {
        fine with
            Mend = [ "ALTER TABLE \"orderbook_snapshots\" ADD COLUMN \"doubt\" SYMBOL" ]
    }

    "one side missing",
    2,
    snapshots,
    without "asks",
    {
        fine with
            Mend = [ "ALTER TABLE \"orderbook_snapshots\" ADD COLUMN \"asks\" DOUBLE[][]" ]
    }

    "one side in another way than the other",
    2,
    snapshots,
    ofType "asks" "VARCHAR",
    {
        fine with
            Notes = [
                "column orderbook_snapshots.asks is a VARCHAR: levels go there as JSON texts, as for servers before 9.0"
            ]
            Refusals = [
                $"table orderbook_snapshots has bids and asks of different types: {otherwise}"
            ]
            LevelsAsText = true
    }

    "an array of one dimension",
    2,
    snapshots,
    ofType "bids" "DOUBLE[]",
    {
        fine with
            Refusals = [
                $"column orderbook_snapshots.bids is a DOUBLE[], and a DOUBLE[][] is needed: {otherwise}"
            ]
    }

    "arrays, and a server that cannot take them",
    1,
    books1,
    (ofType "bids" "DOUBLE[][]" >> ofType "asks" "DOUBLE[][]"),
    {
        fine with
            Refusals = [
                $"column orderbook_snapshots.bids is a DOUBLE[][], and a VARCHAR is needed: {otherwise}"
                $"column orderbook_snapshots.asks is a DOUBLE[][], and a VARCHAR is needed: {otherwise}"
            ]
            LevelsAsText = true
    }
]

[<Test>]
let ``each difference is mended, noted or refused`` () =
    for name, protocol, wanted, difference, expected in differences do
        let verdict = Schema.compare protocol wanted (difference (asMade wanted))

        if verdict <> expected then
            Assert.Fail $"{name}: expected %A{expected}\nbut was  %A{verdict}"

// ---- on a server

/// As the server describes a table.
let private describe (server: TestServer) name : Task<Schema.FoundTable> = task {
    let! tables = server.Ask "SELECT * FROM tables()"
    let! columns = server.Ask $"SELECT * FROM table_columns('{name}')"
    let table = tables |> List.find (fun row -> row["table_name"] = name)
    let isTrue (value: string) = value.ToLowerInvariant() = "true"

    let found: Schema.FoundTable = {
        Id = int64 table["id"]
        IsWal = isTrue table["walEnabled"]
        HasDedup = isTrue table["dedup"]
        PartitionBy = table["partitionBy"]
        Columns = [
            for row in columns ->
                {
                    Name = row["column"]
                    Type = row["type"]
                    IsDesignated = isTrue row["designated"]
                    IsKey = isTrue row["upsertKey"]
                }
        ]
    }

    return found
}

let private verdict protocol (wanted: Tables.Table) server = task {
    let! found = describe server wanted.Name
    return Schema.compare protocol wanted found
}

let private withServer (test: TestServer -> Task<unit>) : Task<unit> = task {
    let! server = startServer ()
    use _ = server
    do! test server
}

let private execute (server: TestServer) statement : Task<unit> = task {
    let! _ = server.Ask statement
    ()
}

[<TestCase(1, false)>]
[<TestCase(2, false)>]
[<TestCase(3, true)>]
let ``what is made on a server compares clean`` (protocol: int, decimals: bool) : Task =
    withServer (fun server -> task {
        for table in Tables.all protocol decimals do
            do! execute server (Tables.create (ValueSome(TimeSpan.FromDays 30.0)) table)
            // … and makes nothing the second time.
            do! execute server (Tables.create ValueNone table)
            let! verdict = verdict protocol table server

            equal
                {
                    fine with
                        LevelsAsText = protocol < 2
                        Decimals = (decimals && table.Name = "trades")
                }
                verdict
    })

[<Test>]
let ``what is mended on a server compares clean`` () : Task =
    withServer (fun server -> task {
        do!
            execute
                server
                "CREATE TABLE trades (at TIMESTAMP, exchange SYMBOL, market SYMBOL, price DOUBLE, size DOUBLE, token VARCHAR, trade_id VARCHAR) TIMESTAMP(at) PARTITION BY DAY WAL"

        let! before = verdict 2 trades server
        equal [] before.Refusals
        equal 8 before.Mend.Length

        for statement in before.Mend do
            do! execute server statement

        let! after = verdict 2 trades server
        equal fine after
    })

[<Test>]
let ``a table of somebody else is refused with the reasons`` () : Task =
    withServer (fun server -> task {
        do!
            execute
                server
                "CREATE TABLE trades (ts TIMESTAMP, at TIMESTAMP, price LONG) TIMESTAMP(ts) PARTITION BY DAY WAL"

        let! verdict = verdict 2 trades server

        equal
            [
                $"table trades has another designated timestamp than at: {otherwise}"
                $"column trades.price is a LONG, and a DOUBLE is needed: {otherwise}"
            ]
            verdict.Refusals
    })

[<Test>]
let ``views are made of the tables, and a second time nothing happens`` () : Task =
    withServer (fun server -> task {
        for table in Tables.all 2 false do
            do! execute server (Tables.create ValueNone table)

        for _ in 1..2 do
            for _, statement in Schema.views do
                do! execute server statement

        equal [ "trades_1m"; "trades_1h"; "trades_1d" ] (List.map fst Schema.views)
    })

[<Test>]
let ``rows live for whole partitions`` () =
    let lives (hours: float) =
        Tables.all 2 false
        |> List.choose (fun table ->
            match Tables.timeToLive (ValueSome(TimeSpan.FromHours hours)) table with
            | ValueSome(struct (_, text)) -> Some(table.Name, text)
            | ValueNone -> None)

    equal
        [
            "trades", "2 DAYS"
            "orderbook_snapshots", "36 HOURS"
            "orderbook_deltas", "36 HOURS"
            "trade_links", "2 DAYS"
            "prices", "2 DAYS"
            "collection_metrics", "2 DAYS"
        ]
        (lives 35.5)
