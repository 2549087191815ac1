/// The tables of a Tributary database in QuestDB: the data sets, names and identities of the other stores, in QuestDB's types.
/// Every table has a designated timestamp, partitions, a write-ahead log, and DEDUP keys, so that sending a row again changes
/// nothing.
[<RequireQualifiedAccess>]
module internal Tributary.Stores.QuestDb.Tables

open System

/// A type of a column, as DDL writes it.
[<RequireQualifiedAccess>]
type Kind =
    | Symbol
    | Varchar
    | Double
    /// Nineteen digits, six of them decimals: millionths, exactly. Needs protocol v3.
    | Decimal
    | Long
    | Boolean
    /// Microseconds since 1970 UTC.
    | Timestamp
    /// Two dimensions: a row of prices and a row of sizes. Needs protocol v2.
    | Levels

    override this.ToString() =
        match this with
        | Symbol -> "SYMBOL"
        | Varchar -> "VARCHAR"
        | Double -> "DOUBLE"
        | Decimal -> "DECIMAL(19,6)"
        | Long -> "LONG"
        | Boolean -> "BOOLEAN"
        | Timestamp -> "TIMESTAMP"
        | Levels -> "DOUBLE[][]"

type Column = {
    Name: string
    Kind: Kind
    /// How many different values a symbol is laid out for; 0 leaves it to the server.
    Capacity: int
}

/// How much of time one folder of a table holds.
[<RequireQualifiedAccess>]
type Partition =
    | Hour
    | Day
    | Month

    override this.ToString() =
        match this with
        | Hour -> "HOUR"
        | Day -> "DAY"
        | Month -> "MONTH"

type Table = {
    Name: string
    /// The first is the designated timestamp.
    Columns: Column list
    Partition: Partition
    /// What makes a row itself beside the designated timestamp.
    Keys: string list
    /// Old partitions may be dropped when a time to live is configured: the bulk, not the record of what there is.
    Expires: bool
}

let private column kind name = {
    Name = name
    Kind = kind
    Capacity = 0
}

let private symbol = column Kind.Symbol
let private varchar = column Kind.Varchar
let private double = column Kind.Double
let private long = column Kind.Long
let private boolean = column Kind.Boolean
let private timestamp = column Kind.Timestamp
let private many capacity name = { symbol name with Capacity = capacity }

/// What the server makes of it: `ofNumbers` for prices and sizes of trades, `ofLevels` for the sides of a book.
let private tables ofNumbers ofLevels : Table list = [
    {
        Name = "markets"
        Columns = [
            timestamp "at"
            symbol "exchange"
            many 65_536 "market"
            varchar "event"
            varchar "slug"
            varchar "question"
            varchar "outcomes"
            varchar "tags"
            symbol "status"
            boolean "accepts_orders"
            double "tick_size"
            double "minimum_size"
            boolean "neg_risk"
            timestamp "starts"
            timestamp "ends"
            timestamp "closed"
            varchar "winner"
            timestamp "updated"
            timestamp "received"
            varchar "version"
            varchar "raw"
        ]
        Partition = Partition.Month
        Keys = [ "exchange"; "market"; "version" ]
        Expires = false
    }
    {
        Name = "market_stats"
        Columns = [
            timestamp "at"
            symbol "exchange"
            many 65_536 "market"
            double "volume"
            double "liquidity"
            double "open_interest"
        ]
        Partition = Partition.Month
        Keys = [ "exchange"; "market" ]
        Expires = false
    }
    {
        Name = "trades"
        Columns = [
            timestamp "at"
            symbol "exchange"
            many 65_536 "market"
            symbol "outcome"
            symbol "side"
            symbol "source"
            symbol "flags"
            varchar "token"
            ofNumbers "price"
            ofNumbers "size"
            ofNumbers "collateral"
            varchar "trade_id"
            varchar "transaction_hash"
            timestamp "received"
        ]
        Partition = Partition.Day
        Keys = [ "exchange"; "market"; "trade_id"; "source" ]
        Expires = true
    }
    {
        Name = "orderbook_snapshots"
        Columns = [
            timestamp "at"
            symbol "exchange"
            many 65_536 "market"
            many 131_072 "token"
            symbol "verdict"
            symbol "doubt"
            symbol "reason"
            symbol "flags"
            ofLevels "bids"
            ofLevels "asks"
            double "best_bid"
            double "best_bid_size"
            double "best_ask"
            double "best_ask_size"
            double "mid"
            double "spread"
            double "spread_bps"
            varchar "hash"
            long "sequence"
            timestamp "received"
        ]
        Partition = Partition.Hour
        Keys = [ "exchange"; "market"; "token"; "hash" ]
        Expires = true
    }
    {
        Name = "orderbook_deltas"
        Columns = [
            timestamp "at"
            symbol "exchange"
            many 65_536 "market"
            many 131_072 "token"
            symbol "side"
            symbol "verdict"
            symbol "doubt"
            long "ordinal"
            double "price"
            double "size"
            varchar "hash"
            long "sequence"
            timestamp "received"
        ]
        Partition = Partition.Hour
        Keys = [ "exchange"; "market"; "token"; "ordinal"; "side"; "price" ]
        Expires = true
    }
    {
        Name = "trade_links"
        Columns = [ timestamp "at"; varchar "other_id"; varchar "trade_id" ]
        Partition = Partition.Day
        Keys = [ "other_id"; "trade_id" ]
        Expires = true
    }
    {
        Name = "gaps"
        Columns = [
            timestamp "since"
            symbol "collector"
            symbol "exchange"
            symbol "stream"
            many 65_536 "market"
            symbol "cause"
            varchar "token"
            timestamp "until"
            timestamp "healed_at"
            varchar "healed_by"
        ]
        Partition = Partition.Month
        Keys = [ "collector"; "exchange"; "stream"; "market"; "cause"; "token" ]
        Expires = false
    }
    {
        Name = "prices"
        Columns = [
            timestamp "at"
            symbol "exchange"
            many 65_536 "market"
            many 131_072 "token"
            symbol "kind"
            double "price"
            timestamp "received"
        ]
        Partition = Partition.Day
        Keys = [ "exchange"; "market"; "token"; "kind" ]
        Expires = true
    }
    {
        Name = "own_orders"
        Columns = [
            timestamp "at"
            symbol "exchange"
            many 65_536 "market"
            many 131_072 "token"
            symbol "side"
            symbol "status"
            varchar "order_id"
            double "price"
            double "size"
            double "filled"
            timestamp "received"
        ]
        Partition = Partition.Month
        Keys = [ "exchange"; "order_id"; "status"; "filled" ]
        Expires = false
    }
    {
        Name = "own_trades"
        Columns = [
            timestamp "at"
            symbol "exchange"
            many 65_536 "market"
            many 131_072 "token"
            symbol "side"
            symbol "status"
            varchar "trade_id"
            varchar "order_id"
            double "price"
            double "size"
            boolean "is_taker"
            varchar "transaction_hash"
            timestamp "received"
        ]
        Partition = Partition.Month
        Keys = [ "exchange"; "trade_id"; "order_id"; "status"; "token" ]
        Expires = false
    }
    {
        Name = "market_matches"
        Columns = [
            timestamp "at"
            symbol "exchange"
            many 65_536 "market"
            many 131_072 "token"
            symbol "question"
            symbol "answer"
            boolean "is_withdrawn"
        ]
        Partition = Partition.Month
        Keys = [ "exchange"; "question"; "answer"; "market"; "token" ]
        Expires = false
    }
    {
        Name = "quarantine"
        Columns = [
            timestamp "received"
            symbol "exchange"
            varchar "source"
            long "position"
            varchar "reason"
            varchar "bytes"
            varchar "content"
        ]
        Partition = Partition.Month
        Keys = [ "content" ]
        Expires = false
    }
    {
        Name = "collection_metrics"
        Columns = [
            timestamp "at"
            symbol "collector"
            symbol "name"
            symbol "labels"
            double "value"
        ]
        Partition = Partition.Day
        Keys = [ "collector"; "name"; "labels" ]
        Expires = true
    }
]

/// The tables for a server that speaks this version of the line protocol: below 2 there are no arrays, and levels are JSON texts.
let all (protocol: int) (decimals: bool) =
    tables
        (column (if decimals then Kind.Decimal else Kind.Double))
        (column (if protocol >= 2 then Kind.Levels else Kind.Varchar))

/// How long the rows of a table live, in hours and as DDL says it: whole partitions, for the server takes nothing else. Nothing when
/// they live for ever.
let timeToLive (ttl: TimeSpan voption) (table: Table) : struct (int * string) voption =
    match ttl with
    | ValueSome ttl when table.Expires ->
        match table.Partition with
        | Partition.Hour ->
            let hours = int (ceil ttl.TotalHours)
            ValueSome(struct (hours, $"{hours} HOURS"))
        | Partition.Day ->
            let days = int (ceil ttl.TotalDays)
            ValueSome(struct (24 * days, $"{days} DAYS"))
        | Partition.Month ->
            let months = int (ceil (ttl.TotalDays / 30.0))
            ValueSome(struct (30 * 24 * months, $"{months} MONTHS"))
    | _ -> ValueNone

/// The statement that makes a table. Names are quoted, because some are words of SQL.
let create (ttl: TimeSpan voption) (table: Table) =
    let quoted name = $"\"{name}\""

    let columns =
        table.Columns
        |> List.map (fun column ->
            let capacity =
                if column.Capacity = 0 then
                    ""
                else
                    $" CAPACITY {column.Capacity}"

            $"{quoted column.Name} {column.Kind}{capacity}")
        |> String.concat ", "

    let designated = table.Columns.Head.Name

    let lives =
        match timeToLive ttl table with
        | ValueSome(struct (_, text)) -> $" TTL {text}"
        | ValueNone -> ""

    let keys = designated :: table.Keys |> List.map quoted |> String.concat ", "

    $"CREATE TABLE IF NOT EXISTS {quoted table.Name} ({columns}) TIMESTAMP({quoted designated}) PARTITION BY {table.Partition}{lives} WAL DEDUP UPSERT KEYS({keys})"
