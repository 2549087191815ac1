/// Whether the tables of a server are the ones that are written to. `CREATE TABLE IF NOT EXISTS` compares nothing, so a table that
/// was there before may be any other: each difference is mended, or explained, or refused.
[<RequireQualifiedAccess>]
module internal Tributary.Stores.QuestDb.Schema

open System

type FoundColumn = {
    Name: string
    /// As `table_columns()` prints it.
    Type: string
    IsDesignated: bool
    IsKey: bool
}

/// A table as a server describes it.
type FoundTable = {
    /// Another table of the same name has another one.
    Id: int64
    IsWal: bool
    HasDedup: bool
    PartitionBy: string
    Columns: FoundColumn list
}

/// What has to happen before rows are sent.
type Verdict = {
    /// Statements that make the difference good, in this order.
    Mend: string list
    /// What works, but is not as we would have made it.
    Notes: string list
    /// What keeps rows from being sent, each with the remedy.
    Refusals: string list
    /// How the table that is there wants the sides of a book.
    LevelsAsText: bool
    /// Prices and sizes of trades are decimals there.
    Decimals: bool
}

let private texts = [ "SYMBOL"; "VARCHAR"; "STRING" ]

let private isDecimal (kind: string) = kind.StartsWith "DECIMAL"

/// The digits behind the point of `DECIMAL(19,6)`.
let private scale (kind: string) =
    match kind.TrimEnd(')').Split ',' with
    | [| _; scale |] ->
        match Int32.TryParse scale with
        | true, scale -> scale
        | _ -> 0
    | _ -> 0

let private quoted name = $"\"{name}\""

/// How a column that is there gets on with the one that is wanted: nothing to say, a note, or a refusal.
let private judge protocol (table: Tables.Table) (wanted: Tables.Column) (found: FoundColumn) =
    let kind = string wanted.Kind
    let place = $"{table.Name}.{wanted.Name}"

    let refuse remedy =
        Some(Error $"column {place} is a {found.Type}, and a {kind} is needed: {remedy}")

    let otherwise = "rename the table, and it is made anew"

    match wanted.Kind with
    | _ when found.Type = kind -> None
    | Tables.Kind.Symbol
    | Tables.Kind.Varchar when List.contains found.Type texts ->
        Some(Ok $"column {place} is a {found.Type}; made by Tributary it would be a {kind}")
    | Tables.Kind.Levels
    | Tables.Kind.Varchar when wanted.Name = "bids" || wanted.Name = "asks" ->
        match found.Type with
        | "VARCHAR"
        | "STRING" ->
            Some(
                Ok
                    $"column {place} is a {found.Type}: levels go there as JSON texts, as for servers before 9.0"
            )
        | "DOUBLE[][]" when protocol >= 2 -> None
        | _ -> refuse otherwise
    | Tables.Kind.Double when isDecimal found.Type ->
        if table.Name = "trades" && protocol >= 3 && scale found.Type >= 6 then
            Some(Ok $"column {place} is a {found.Type}: prices and sizes go there as decimals")
        else
            refuse otherwise
    | Tables.Kind.Decimal when found.Type = "DOUBLE" ->
        Some(
            Ok
                $"column {place} is a DOUBLE, though decimals are configured; rename the table, and it is made anew with decimals"
        )
    | _ -> refuse otherwise

/// Compares a table that is there with the one that is wanted.
let compare (protocol: int) (wanted: Tables.Table) (found: FoundTable) : Verdict =
    let tryColumn name =
        found.Columns
        |> List.tryFind (fun column -> String.Equals(column.Name, name, StringComparison.OrdinalIgnoreCase))

    let missing, judged =
        wanted.Columns |> List.partition (fun column -> (tryColumn column.Name).IsNone)

    let opinions =
        judged
        |> List.choose (fun column -> judge protocol wanted column (tryColumn column.Name).Value)

    let designated = wanted.Columns.Head.Name

    let isDesignated =
        match tryColumn designated with
        | Some column -> column.IsDesignated
        | None -> false

    let keys = designated :: wanted.Keys

    let foundKeys =
        found.Columns |> List.filter _.IsKey |> List.map _.Name.ToLowerInvariant()

    let hasKeys = found.HasDedup && Set.ofList foundKeys = Set.ofList keys

    let kindOf name =
        match tryColumn name with
        | Some column -> column.Type
        | None -> ""

    // Both sides of a book go there in one way.
    let sides =
        if wanted.Name = "orderbook_snapshots" then
            [ kindOf "bids"; kindOf "asks" ] |> List.filter (fun kind -> kind <> "")
        else
            []

    let asText = sides |> List.filter (fun side -> List.contains side texts)

    // All numbers of a trade go there in one way, too: as its price does.
    let price = if wanted.Name = "trades" then kindOf "price" else ""

    let kindFor (column: Tables.Column) =
        match asText, column.Kind with
        | side :: _, Tables.Kind.Levels -> side
        | _, (Tables.Kind.Double | Tables.Kind.Decimal) when price <> "" -> price
        | _ -> string column.Kind

    {
        Mend = [
            for column in missing do
                if column.Name <> designated then
                    $"ALTER TABLE {quoted wanted.Name} ADD COLUMN {quoted column.Name} {kindFor column}"

            if found.IsWal && isDesignated && not hasKeys then
                let list = keys |> List.map quoted |> String.concat ", "
                $"ALTER TABLE {quoted wanted.Name} DEDUP ENABLE UPSERT KEYS({list})"
        ]
        Notes = [
            for opinion in opinions do
                match opinion with
                | Ok note -> note
                | Error _ -> ()

            if found.PartitionBy <> string wanted.Partition && found.PartitionBy <> "" then
                $"table {wanted.Name} is partitioned by {found.PartitionBy}; made by Tributary it would be by {wanted.Partition}"
        ]
        Refusals = [
            if not found.IsWal then
                $"table {wanted.Name} has no write-ahead log, so rows that are sent twice would be there twice: run ALTER TABLE \"{wanted.Name}\" SET TYPE WAL and restart the server, or rename the table"

            if not isDesignated then
                $"table {wanted.Name} has another designated timestamp than {designated}: rename the table, and it is made anew"

            for opinion in opinions do
                match opinion with
                | Error refusal -> refusal
                | Ok _ -> ()

            if not asText.IsEmpty && asText.Length < sides.Length then
                $"table {wanted.Name} has bids and asks of different types: rename the table, and it is made anew"
        ]
        LevelsAsText = protocol < 2 || not asText.IsEmpty
        Decimals = wanted.Name = "trades" && isDecimal (kindOf "price")
    }

/// Bars of prices and volumes for each token, that the server keeps up to date itself.
let views =
    [ "trades_1m", "1m"; "trades_1h", "1h"; "trades_1d", "1d" ]
    |> List.map (fun (name, step) ->
        name,
        $"CREATE MATERIALIZED VIEW IF NOT EXISTS \"{name}\" AS (SELECT \"at\", exchange, market, token, first(price) AS open, max(price) AS high, min(price) AS low, last(price) AS close, sum(size) AS volume, count() AS trades FROM trades SAMPLE BY {step}) PARTITION BY MONTH")
