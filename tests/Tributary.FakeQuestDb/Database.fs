namespace Tributary.FakeQuestDb

open System
open System.Collections.Generic
open System.Globalization
open System.IO
open System.Security.Cryptography
open System.Text
open System.Text.Json
open System.Threading
open System.Threading.Tasks
open SQLitePCL

/// What waits in a table's write-ahead log.
[<RequireQualifiedAccess>]
type internal Transaction =
    | Rows of Cell[][]
    | Truncate
    /// A change of columns or settings: already done, but it counts.
    | Structure

[<Sealed>]
type internal Table(id: int, spec: TableSpec) =
    let columns = ResizeArray spec.Columns
    let index = Dictionary<string, int>(StringComparer.OrdinalIgnoreCase)

    do
        for i in 0 .. columns.Count - 1 do
            index[columns[i].Name] <- i

    member _.Id = id
    member val Name = spec.Name with get, set
    member _.Columns = columns
    member _.Index = index

    member _.Designated =
        match spec.Designated with
        | Some name -> index[name]
        | None -> -1

    member _.PartitionBy = spec.PartitionBy
    member _.Wal = spec.Wal
    member val Ttl = spec.Ttl with get, set
    /// The columns that make a row itself; none without deduplication.
    member val Keys = [| for key in spec.Keys -> index[key] |] with get, set
    member val SequencerTxn = 0L with get, set
    member val WriterTxn = 0L with get, set
    member val Suspended = false with get, set
    member val ErrorTag = "" with get, set
    member val ErrorMessage = "" with get, set
    member val Pending = Queue<Transaction>()
    member val Insert: Statement voption = ValueNone with get, set
    /// A row that says nothing.
    member val Absent = [| for column in spec.Columns -> Cast.absent column.Type |] with get, set

    /// Its name in SQLite.
    member _.Sql = $"t{id}"
    member _.Directory = $"{spec.Name}~{id}"

    member this.Enqueue(transaction: Transaction) =
        this.SequencerTxn <- this.SequencerTxn + 1L
        this.Pending.Enqueue transaction

type internal View = {
    Name: string
    Sql: string
    Base: string
    Id: int
}

type internal DatabaseOptions = {
    Folder: string option
    ApplyDelay: TimeSpan
    CreateTables: bool
    CreateColumns: bool
    Clock: TimeProvider
    /// How much of the end of the log is lost when it is opened, counted back from its last record.
    Forget: TimeSpan
}

/// The tables, their write-ahead logs, and what is visible of them. Every member may be called at any time.
[<Sealed>]
type internal Database(options: DatabaseOptions) =
    let gate = obj ()
    let mutable sqlite = new Sqlite()
    let tables = Dictionary<string, Table>(StringComparer.OrdinalIgnoreCase)
    let views = Dictionary<string, View>(StringComparer.OrdinalIgnoreCase)
    let mutable lastId = 0
    let mutable journal: Journal voption = ValueNone
    let mutable replaying = false
    let mutable epoch = 0
    let work = new SemaphoreSlim 0
    let stopping = new CancellationTokenSource()

    let nowMicros () =
        (options.Clock.GetUtcNow().UtcTicks - DateTime.UnixEpoch.Ticks) / 10L

    let nowText () =
        Iso.ofMicros (nowMicros ()) |> Option.defaultValue ""

    let buffer = new MemoryStream()

    let record (write: BinaryWriter -> unit) =
        match journal with
        | ValueSome journal when not replaying ->
            buffer.SetLength(int64 Journal.HeadLength)
            buffer.Position <- int64 Journal.HeadLength
            use writer = new BinaryWriter(buffer, Encoding.UTF8, true)
            write writer
            writer.Flush()

            journal.Append(
                options.Clock.GetUtcNow().ToUnixTimeMilliseconds(),
                Span(buffer.GetBuffer(), 0, int buffer.Length)
            )
        | _ -> ()

    let recordSql (sql: string) =
        record (fun writer ->
            writer.Write 1uy
            writer.Write sql)

    let recordRows (table: Table) (rows: Cell[][]) =
        record (fun writer ->
            writer.Write 2uy
            writer.Write table.Id
            writer.Write rows.Length

            for row in rows do
                writer.Write row.Length

                for cell in row do
                    match cell with
                    | Cell.Null -> writer.Write 0uy
                    | Cell.Integer value ->
                        writer.Write 1uy
                        writer.Write value
                    | Cell.Real value ->
                        writer.Write 2uy
                        writer.Write value
                    | Cell.Text value ->
                        writer.Write 3uy
                        writer.Write value
                    | Cell.Blob value ->
                        writer.Write 4uy
                        writer.Write value.Length
                        writer.Write value)

    let readRows (reader: BinaryReader) : Cell[][] =
        Array.init (reader.ReadInt32()) (fun _ ->
            Array.init (reader.ReadInt32()) (fun _ ->
                match reader.ReadByte() with
                | 0uy -> Cell.Null
                | 1uy -> Cell.Integer(reader.ReadInt64())
                | 2uy -> Cell.Real(reader.ReadDouble())
                | 3uy -> Cell.Text(reader.ReadString())
                | _ -> Cell.Blob(reader.ReadBytes(reader.ReadInt32()))))

    let signal () = work.Release() |> ignore

    // ---- rows --------------------------------------------------------------------------------------------------------

    /// The same 16 bytes for rows that are the same by their keys, NULL being equal to NULL.
    let keyOf (keys: int[]) (cell: int -> Cell) =
        let text = StringBuilder()

        for key in keys do
            match cell key with
            | Cell.Null -> text.Append "n;"
            | Cell.Integer value -> text.Append('i').Append(value).Append(';')
            | Cell.Real value -> text.Append('r').Append(BitConverter.DoubleToInt64Bits value).Append(';')
            | Cell.Text value -> text.Append('t').Append(value.Length).Append(':').Append(value)
            | Cell.Blob _ -> text // an array is no key
            |> ignore

        (SHA256.HashData(Encoding.UTF8.GetBytes(string text))).AsSpan(0, 16).ToArray()

    let insertOf (table: Table) =
        match table.Insert with
        | ValueSome statement -> statement
        | ValueNone ->
            let names =
                table.Columns
                |> Seq.map (fun column -> Select.quote column.Name)
                |> String.concat ", "

            let places = String.Join(", ", Seq.replicate (table.Columns.Count + 1) "?")

            let statement =
                sqlite.Prepare $"INSERT OR REPLACE INTO {table.Sql} (\"~key\", {names}) VALUES ({places})"

            table.Insert <- ValueSome statement
            statement

    let insert (table: Table) (row: Cell[]) =
        let statement = insertOf table

        let cell i =
            if i < row.Length then row[i] else table.Absent[i]

        if table.Keys.Length = 0 then
            statement.Null 1
        else
            statement.Blob(1, keyOf table.Keys cell)

        for i in 0 .. table.Columns.Count - 1 do
            match cell i with
            | Cell.Null -> statement.Null(i + 2)
            | Cell.Integer value -> statement.Integer(i + 2, value)
            | Cell.Real value -> statement.Real(i + 2, value)
            | Cell.Text value -> statement.Text(i + 2, value)
            | Cell.Blob value -> statement.Blob(i + 2, value)

        statement.Run()

    let scalarText (sql: string) =
        use statement = sqlite.Prepare sql

        if statement.Step() && statement.Type 0 <> raw.SQLITE_NULL then
            Some(statement.Text 0)
        else
            None

    /// Drops the partitions that ended longer ago than the time to live, counted from now or from the newest row.
    let expire (table: Table) =
        if table.Ttl <> 0 && table.Designated >= 0 then
            let column = Select.quote table.Columns[table.Designated].Name

            match scalarText $"SELECT max({column}) FROM {table.Sql}" with
            | None -> ()
            | Some newest ->
                let utc micros =
                    DateTime(DateTime.UnixEpoch.Ticks + micros * 10L, DateTimeKind.Utc)

                let last = utc (min (nowMicros ()) (Iso.micros newest))

                let cut =
                    if table.Ttl > 0 then
                        last.AddHours(-float table.Ttl)
                    else
                        last.AddMonths table.Ttl

                // A partition that has not ended before the cut begins here.
                let floor =
                    match table.PartitionBy with
                    | "HOUR" -> cut.Date.AddHours(float cut.Hour)
                    | "DAY" -> cut.Date
                    | "WEEK" -> cut.Date.AddDays(-float((int cut.DayOfWeek + 6) % 7))
                    | "MONTH" -> DateTime(cut.Year, cut.Month, 1)
                    | _ -> DateTime(cut.Year, 1, 1)

                let text =
                    floor.ToString("yyyy-MM-dd'T'HH:mm:ss.000000'Z'", CultureInfo.InvariantCulture)

                sqlite.Execute $"DELETE FROM {table.Sql} WHERE {column} < {Select.literal text}"

    let applyOne (table: Table) =
        match table.Pending.Peek() with
        | Transaction.Structure -> ()
        | Transaction.Truncate -> sqlite.Execute $"DELETE FROM {table.Sql}"
        | Transaction.Rows rows ->
            sqlite.Execute "BEGIN"

            for row in rows do
                insert table row

            expire table
            sqlite.Execute "COMMIT"

        table.Pending.Dequeue() |> ignore
        table.WriterTxn <- table.WriterTxn + 1L

    /// One transaction of each table; whether there may be more.
    let applySome () =
        lock gate (fun () ->
            let ready =
                tables.Values
                |> Seq.filter (fun table -> not table.Suspended && table.Pending.Count > 0)
                |> List.ofSeq

            ready |> List.iter applyOne
            not ready.IsEmpty)

    let worker () = task {
        try
            while true do
                do! work.WaitAsync stopping.Token

                if options.ApplyDelay > TimeSpan.Zero then
                    do! Task.Delay(options.ApplyDelay, options.Clock, stopping.Token)

                while not stopping.IsCancellationRequested && applySome () do
                    do! Task.Yield()
        with :? OperationCanceledException ->
            ()
    }

    // ---- tables ------------------------------------------------------------------------------------------------------

    let tableOf (name: string) =
        match tables.TryGetValue name with
        | true, table -> table
        | _ -> Sql.fail 0 $"table does not exist [table={name}]"

    let affinity columnType =
        match columnType with
        | ColumnType.Byte
        | ColumnType.Short
        | ColumnType.Int
        | ColumnType.Long
        | ColumnType.Boolean -> "INTEGER"
        | ColumnType.Float
        | ColumnType.Double -> "REAL"
        | ColumnType.Array _
        | ColumnType.Decimal _ -> "BLOB" // as it comes
        | _ -> "TEXT"

    let checkKeys (columns: ColumnSpec seq) (designated: string option) (keys: string list) =
        let same (a: string) (b: string) =
            a.Equals(b, StringComparison.OrdinalIgnoreCase)

        for key in keys do
            match columns |> Seq.tryFind (fun column -> same column.Name key) with
            | None -> Sql.fail 0 $"deduplicate key column not found [column={key}]"
            | Some { Type = ColumnType.Array _ } ->
                Sql.fail 0 $"dedup key columns cannot include ARRAY [column={key}]"
            | Some _ -> ()

        match designated with
        | Some name when not keys.IsEmpty && not (List.exists (same name) keys) ->
            Sql.fail 0 $"deduplicate key list must include dedicated timestamp column [column={name}]"
        | None when not keys.IsEmpty ->
            Sql.fail 0 "deduplication is possible only with a designated timestamp"
        | _ -> ()

    let uniqueIndex (table: Table) =
        sqlite.Execute $"CREATE UNIQUE INDEX IF NOT EXISTS {table.Sql}_key ON {table.Sql} (\"~key\")"

    let create (spec: TableSpec) =
        checkKeys spec.Columns spec.Designated spec.Keys

        let twice =
            spec.Columns
            |> List.countBy _.Name.ToLowerInvariant()
            |> List.tryFind (snd >> (<) 1)

        match twice with
        | Some(name, _) -> Sql.fail 0 $"Duplicate column [name={name}]"
        | None -> ()

        let table = Table(lastId + 1, spec)

        let columns =
            spec.Columns
            |> List.map (fun column -> $", {Select.quote column.Name} {affinity column.Type}")
            |> String.concat ""

        sqlite.Execute $"CREATE TABLE {table.Sql} (\"~key\" BLOB{columns})"

        if not spec.Keys.IsEmpty then
            uniqueIndex table

        lastId <- table.Id
        tables[spec.Name] <- table
        table

    let forget (table: Table) =
        table.Insert
        |> ValueOption.iter (fun statement -> (statement :> IDisposable).Dispose())

        table.Insert <- ValueNone

    let structure (table: Table) =
        table.Enqueue Transaction.Structure
        signal ()

    let addColumn (table: Table) (column: ColumnSpec) =
        forget table

        let filler =
            match Cast.absent column.Type with
            | Cell.Integer value -> $" DEFAULT {value}"
            | _ -> ""

        sqlite.Execute
            $"ALTER TABLE {table.Sql} ADD COLUMN {Select.quote column.Name} {affinity column.Type}{filler}"

        table.Index[column.Name] <- table.Columns.Count
        table.Columns.Add column
        table.Absent <- Array.append table.Absent [| Cast.absent column.Type |]
        structure table

    /// The newest of each set of rows that are now the same gets the key; older ones stay as they are.
    let enableDedup (table: Table) (keys: string list) =
        checkKeys
            table.Columns
            (if table.Designated < 0 then
                 None
             else
                 Some table.Columns[table.Designated].Name)
            keys

        table.Keys <- [| for key in keys -> table.Index[key] |]
        sqlite.Execute $"DROP INDEX IF EXISTS {table.Sql}_key"
        sqlite.Execute $"UPDATE {table.Sql} SET \"~key\" = NULL"
        uniqueIndex table

        let names =
            table.Columns
            |> Seq.map (fun column -> Select.quote column.Name)
            |> String.concat ", "

        let keyed = ResizeArray<int64 * byte[]>()
        use rows = sqlite.Prepare $"SELECT rowid, {names} FROM {table.Sql}"

        while rows.Step() do
            let cell i =
                match rows.Type(i + 1) with
                | raw.SQLITE_NULL -> Cell.Null
                | raw.SQLITE_INTEGER -> Cell.Integer(rows.Integer(i + 1))
                | raw.SQLITE_FLOAT -> Cell.Real(rows.Real(i + 1))
                | raw.SQLITE_BLOB -> Cell.Blob [||]
                | _ -> Cell.Text(rows.Text(i + 1))

            keyed.Add(rows.Integer 0, keyOf table.Keys cell)

        use clear =
            sqlite.Prepare $"UPDATE {table.Sql} SET \"~key\" = NULL WHERE \"~key\" = ?"

        use set = sqlite.Prepare $"UPDATE {table.Sql} SET \"~key\" = ? WHERE rowid = ?"

        for row, key in keyed do
            clear.Blob(1, key)
            clear.Run()
            set.Blob(1, key)
            set.Integer(2, row)
            set.Run()

    let drop (table: Table) =
        forget table
        tables.Remove table.Name |> ignore
        sqlite.Execute $"DROP TABLE {table.Sql}"

    let columnSql (column: ColumnSpec) =
        $"{Select.quote column.Name} {column.Type}"

    let createSql (spec: TableSpec) =
        let columns = spec.Columns |> List.map columnSql |> String.concat ", "
        let designated = spec.Designated |> Option.get |> Select.quote
        $"CREATE TABLE {Select.quote spec.Name} ({columns}) TIMESTAMP({designated}) PARTITION BY {spec.PartitionBy} WAL"

    /// Carries a statement out that changes something.
    let change statement =
        match statement with
        | SqlStatement.CreateTable(ifNotExists, spec) ->
            if not (tables.ContainsKey spec.Name) then
                create spec |> ignore
            elif not ifNotExists then
                Sql.fail 13 $"table already exists [name={spec.Name}]"
        | SqlStatement.AddColumn(name, ifNotExists, column) ->
            let table = tableOf name

            if not (table.Index.ContainsKey column.Name) then
                addColumn table column
            elif not ifNotExists then
                Sql.fail 0 $"column '{column.Name}' already exists"
        | SqlStatement.SetTtl(name, ttl) ->
            let table = tableOf name
            table.Ttl <- ttl
            structure table
        | SqlStatement.DedupEnable(name, keys) ->
            let table = tableOf name
            enableDedup table keys
            structure table
        | SqlStatement.DedupDisable name ->
            let table = tableOf name
            table.Keys <- [||]
            sqlite.Execute $"UPDATE {table.Sql} SET \"~key\" = NULL"
            structure table
        | SqlStatement.Suspend(name, tag, message) ->
            let table = tableOf name
            table.Suspended <- true
            table.ErrorTag <- tag
            table.ErrorMessage <- message
        | SqlStatement.Resume name ->
            let table = tableOf name
            table.Suspended <- false
            table.ErrorTag <- ""
            table.ErrorMessage <- ""
            signal ()
        | SqlStatement.Drop(name, ifExists) ->
            if tables.ContainsKey name then
                drop tables[name]
            elif not ifExists then
                Sql.fail 0 $"table does not exist [table={name}]"
        | SqlStatement.Rename(name, target) ->
            let table = tableOf name

            if tables.ContainsKey target then
                Sql.fail 0 $"table '{target}' already exists"

            tables.Remove name |> ignore
            table.Name <- target
            tables[target] <- table
            structure table
        | SqlStatement.Truncate name ->
            (tableOf name).Enqueue Transaction.Truncate
            signal ()
        | SqlStatement.CreateView(name, ifNotExists, sql, baseTable) ->
            if not (views.ContainsKey name) then
                let from = tableOf baseTable
                lastId <- lastId + 1

                views[name] <- {
                    Name = name
                    Sql = sql
                    Base = from.Name
                    Id = lastId
                }
            elif not ifNotExists then
                Sql.fail 0 $"view already exists [name={name}]"
        | SqlStatement.DropView(name, ifExists) ->
            if not (views.Remove name || ifExists) then
                Sql.fail 0 $"materialized view does not exist [view={name}]"
        | SqlStatement.Query _ -> ()

    /// A change that comes from inside.
    let changeBy sql =
        change (Sql.parse sql)
        recordSql sql

    let play (payload: byte[]) =
        use reader = new BinaryReader(new MemoryStream(payload))

        match reader.ReadByte() with
        | 1uy -> change (Sql.parse (reader.ReadString()))
        | _ ->
            let id = reader.ReadInt32()
            let rows = readRows reader

            tables.Values
            |> Seq.tryFind (fun table -> table.Id = id)
            |> Option.iter (fun table -> table.Enqueue(Transaction.Rows rows))

    let openLog (lost: string -> int64 -> bool) =
        sqlite.Function("qdb_micros", Iso.micros)
        sqlite.Execute "PRAGMA synchronous=OFF"

        match options.Folder with
        | None -> ()
        | Some folder ->
            Directory.CreateDirectory folder |> ignore
            let path = Path.Combine(folder, "questdb.log")
            replaying <- true
            journal <- ValueSome(Journal.Open(path, lost path, play))
            replaying <- false
            signal ()

    do
        openLog (fun path ->
            if options.Forget > TimeSpan.Zero then
                let from = Journal.LastMoment path - int64 options.Forget.TotalMilliseconds
                fun at -> at > from
            else
                fun _ -> false)

    let working = Task.Run(fun () -> worker () :> Task)

    // ---- meta functions ----------------------------------------------------------------------------------------------

    let rowsSource (columns: (string * ColumnType) list) (rows: Cell list list) : Source =
        let sqlOf cell =
            match cell with
            | Cell.Null
            | Cell.Blob _ -> "NULL"
            | Cell.Integer value -> string value
            | Cell.Real value -> value.ToString("R", CultureInfo.InvariantCulture)
            | Cell.Text value -> Select.literal value

        let select cells =
            List.map2 (fun (name, _) cell -> $"{sqlOf cell} AS {Select.quote name}") columns cells
            |> String.concat ", "

        let sql =
            match rows with
            | [] ->
                let nothing = select (columns |> List.map (fun _ -> Cell.Null))
                $"(SELECT {nothing} WHERE 0)"
            | rows ->
                let all = rows |> List.map (fun row -> "SELECT " + select row)
                "(" + String.Join(" UNION ALL ", all) + ")"

        {
            Sql = sql
            Columns = [| for name, columnType in columns -> name, ValueSome columnType |]
            Designated = ValueNone
            HasRowId = false
        }

    let flag value = Cell.Integer(if value then 1L else 0L)

    let ordered () =
        tables.Values |> Seq.sortBy _.Id |> List.ofSeq

    /// As the server shows a time to live: in the largest unit that fits.
    let ttlOf (table: Table) =
        let ttl = table.Ttl

        if ttl >= 0 then
            if ttl = 0 || ttl % 24 <> 0 then ttl, "HOUR"
            elif ttl % (24 * 7) = 0 then ttl / (24 * 7), "WEEK"
            else ttl / 24, "DAY"
        elif ttl % 12 = 0 then
            -ttl / 12, "YEAR"
        else
            -ttl, "MONTH"

    let pendingRows (table: Table) =
        table.Pending
        |> Seq.sumBy (fun transaction ->
            match transaction with
            | Transaction.Rows rows -> int64 rows.Length
            | _ -> 0L)

    let tablesSource () =
        rowsSource [
            "id", ColumnType.Int
            "table_name", ColumnType.Varchar
            "designatedTimestamp", ColumnType.Varchar
            "partitionBy", ColumnType.Varchar
            "maxUncommittedRows", ColumnType.Int
            "o3MaxLag", ColumnType.Long
            "walEnabled", ColumnType.Boolean
            "directoryName", ColumnType.Varchar
            "dedup", ColumnType.Boolean
            "ttlValue", ColumnType.Int
            "ttlUnit", ColumnType.Varchar
            "matView", ColumnType.Boolean
            "table_suspended", ColumnType.Boolean
            "wal_pending_row_count", ColumnType.Long
        ] [
            for table in ordered () do
                let value, unit = ttlOf table

                [
                    Cell.Integer(int64 table.Id)
                    Cell.Text table.Name
                    (if table.Designated < 0 then
                         Cell.Null
                     else
                         Cell.Text table.Columns[table.Designated].Name)
                    Cell.Text table.PartitionBy
                    Cell.Integer 500_000L
                    Cell.Integer 600_000_000L
                    flag table.Wal
                    Cell.Text table.Directory
                    flag (table.Keys.Length > 0)
                    Cell.Integer(int64 value)
                    Cell.Text unit
                    flag false
                    flag table.Suspended
                    Cell.Integer(pendingRows table)
                ]
        ]

    let columnsSource (table: Table) =
        rowsSource [
            "column", ColumnType.Varchar
            "type", ColumnType.Varchar
            "indexed", ColumnType.Boolean
            "indexBlockCapacity", ColumnType.Int
            "symbolCached", ColumnType.Boolean
            "symbolCapacity", ColumnType.Int
            "designated", ColumnType.Boolean
            "upsertKey", ColumnType.Boolean
        ] [
            for i in 0 .. table.Columns.Count - 1 do
                let column = table.Columns[i]
                let isSymbol = column.Type = ColumnType.Symbol

                let capacity =
                    if not isSymbol then 0
                    elif column.Capacity = 0 then 256
                    else column.Capacity

                [
                    Cell.Text column.Name
                    Cell.Text(string column.Type)
                    flag false
                    Cell.Integer 0L
                    flag isSymbol
                    Cell.Integer(int64 capacity)
                    flag (i = table.Designated)
                    flag (Array.contains i table.Keys)
                ]
        ]

    let walSource () =
        rowsSource [
            "name", ColumnType.Varchar
            "suspended", ColumnType.Boolean
            "writerTxn", ColumnType.Long
            "bufferedTxnSize", ColumnType.Long
            "sequencerTxn", ColumnType.Long
            "errorTag", ColumnType.Varchar
            "errorMessage", ColumnType.Varchar
            "memoryPressure", ColumnType.Int
        ] [
            for table in ordered () do
                if table.Wal then
                    [
                        Cell.Text table.Name
                        flag table.Suspended
                        Cell.Integer table.WriterTxn
                        Cell.Integer 0L
                        Cell.Integer table.SequencerTxn
                        Cell.Text table.ErrorTag
                        Cell.Text table.ErrorMessage
                        Cell.Integer 0L
                    ]
        ]

    let viewsSource () =
        rowsSource [
            "view_name", ColumnType.Varchar
            "refresh_type", ColumnType.Varchar
            "base_table_name", ColumnType.Varchar
            "view_sql", ColumnType.Varchar
            "view_table_dir_name", ColumnType.Varchar
            "invalidation_reason", ColumnType.Varchar
            "view_status", ColumnType.Varchar
        ] [
            for view in views.Values |> Seq.sortBy _.Id do
                let sound = tables.ContainsKey view.Base

                [
                    Cell.Text view.Name
                    Cell.Text "immediate"
                    Cell.Text view.Base
                    Cell.Text view.Sql
                    Cell.Text $"{view.Name}~{view.Id}"
                    (if sound then
                         Cell.Null
                     else
                         Cell.Text "base table is dropped or renamed")
                    Cell.Text(if sound then "valid" else "invalid")
                ]
        ]

    let source (name: string) =
        match tables.TryGetValue name with
        | true, table ->
            ValueSome {
                Sql = table.Sql
                Columns = [| for column in table.Columns -> column.Name, ValueSome column.Type |]
                Designated =
                    if table.Designated < 0 then
                        ValueNone
                    else
                        ValueSome table.Columns[table.Designated].Name
                HasRowId = true
            }
        | _ -> ValueNone

    let call (name: string) argument =
        match name.ToLowerInvariant(), argument with
        | "tables", ValueNone -> ValueSome(tablesSource ())
        | "wal_tables", ValueNone -> ValueSome(walSource ())
        | "materialized_views", ValueNone -> ValueSome(viewsSource ())
        | "table_columns", ValueSome table -> ValueSome(columnsSource (tableOf table))
        | _ -> ValueNone

    // ---- results -----------------------------------------------------------------------------------------------------

    let seen (statement: Statement) i =
        match statement.Type i with
        | raw.SQLITE_INTEGER -> ColumnType.Long
        | raw.SQLITE_FLOAT -> ColumnType.Double
        | _ -> ColumnType.Varchar

    /// With every character as it is that JSON lets be, as the server writes it.
    let jsonText (text: string) =
        let quoted = StringBuilder(text.Length + 2).Append '"'

        for c in text do
            match c with
            | '"'
            | '\\' -> quoted.Append('\\').Append c
            | c when c < ' ' -> quoted.Append("\\u").Append((int c).ToString "x4")
            | c -> quoted.Append c
            |> ignore

        string (quoted.Append '"')

    let writeValue (json: Utf8JsonWriter) quoteLongs (statement: Statement) i (declared: ColumnType voption) =
        let kind = statement.Type i

        if kind = raw.SQLITE_NULL then
            json.WriteNullValue()
        else
            match declared |> ValueOption.defaultWith (fun () -> seen statement i) with
            | ColumnType.Boolean -> json.WriteBooleanValue(statement.Integer i <> 0L)
            | ColumnType.Byte
            | ColumnType.Short
            | ColumnType.Int -> json.WriteNumberValue(statement.Integer i)
            | ColumnType.Long ->
                if quoteLongs then
                    json.WriteStringValue(string (statement.Integer i))
                else
                    json.WriteNumberValue(statement.Integer i)
            | ColumnType.Float
            | ColumnType.Double ->
                let value = statement.Real i

                if not (Double.IsFinite value) then
                    json.WriteNullValue()
                else
                    let text = value.ToString("R", CultureInfo.InvariantCulture)

                    json.WriteRawValue(
                        if text.IndexOfAny [| '.'; 'E' |] < 0 then
                            text + ".0"
                        else
                            text
                    )
            | ColumnType.Decimal(_, scale) ->
                if kind = raw.SQLITE_INTEGER then
                    json.WriteStringValue(Decimals.text scale (bigint (statement.Integer i)))
                elif kind = raw.SQLITE_FLOAT then
                    json.WriteNumberValue(statement.Real i)
                else
                    json.WriteStringValue(statement.Text i)
            | ColumnType.Array _ -> json.WriteRawValue(Arrays.toJson (statement.Blob i))
            | _ -> json.WriteRawValue(jsonText (statement.Text i), true)

    let writeColumn (json: Utf8JsonWriter) (name: string) columnType =
        json.WriteStartObject()
        json.WriteString("name", name)

        match columnType with
        | ColumnType.Array dimensions ->
            json.WriteString("type", "ARRAY")
            json.WriteNumber("dim", dimensions)
            json.WriteString("elemType", "DOUBLE")
        | other -> json.WriteString("type", string other)

        json.WriteEndObject()

    let query (json: Utf8JsonWriter) (text: string) tokens quoteLongs (skip: int) (take: int) =
        let translated = Select.translate source call nowText tokens text.Length
        use statement = sqlite.Prepare translated.Sql
        let mutable more = statement.Step()
        json.WriteStartObject()
        json.WriteString("query", text)
        json.WriteStartArray "columns"

        translated.Columns
        |> Array.iteri (fun i (name, columnType) ->
            columnType
            |> ValueOption.defaultWith (fun () -> if more then seen statement i else ColumnType.Varchar)
            |> writeColumn json name)

        json.WriteEndArray()

        json.WriteNumber(
            "timestamp",
            match translated.Designated with
            | ValueSome name -> translated.Columns |> Array.findIndex (fst >> (=) name)
            | ValueNone -> -1
        )

        json.WriteStartArray "dataset"
        let mutable row = 0

        while more do
            if row >= skip && row < take then
                json.WriteStartArray()

                translated.Columns
                |> Array.iteri (fun i (_, columnType) -> writeValue json quoteLongs statement i columnType)

                json.WriteEndArray()

            row <- row + 1
            more <- statement.Step()

        json.WriteEndArray()
        json.WriteNumber("count", max 0 (min row take - skip))
        json.WriteEndObject()

    // ---- writing -----------------------------------------------------------------------------------------------------

    let refused line (table: string) (column: string) reason : LineError = {
        Line = line
        Status = 400
        Code = "invalid"
        Message = Ilp.errorText line $"table: {table}, column: {column}; {reason}"
    }

    let create' (row: Row) =
        let nanos =
            match row.Time with
            | ValueSome {
                            Unit = TimeUnit.Nanos
                            Suffixed = true
                        } -> ColumnType.TimestampNanos
            | _ -> ColumnType.Timestamp

        let spec = {
            Name = row.Table
            Columns = [
                {
                    Name = "timestamp"
                    Type = nanos
                    Capacity = 0
                }
            ]
            Designated = Some "timestamp"
            PartitionBy = "DAY"
            Ttl = 0
            Wal = true
            Keys = []
        }

        changeBy (createSql spec)
        tables[row.Table]

    let newColumn (table: Table) (row: Row) (name: string) (kind: Result<ColumnType option, string>) =
        match kind with
        | _ when not options.CreateColumns ->
            Error(refused row.Number table.Name name "new columns are disabled")
        | Error reason -> Error(refused row.Number table.Name name reason)
        | Ok None -> Ok -1
        | Ok(Some columnType) ->
            let column = {
                Name = name
                Type = columnType
                Capacity = 0
            }

            changeBy $"ALTER TABLE {Select.quote table.Name} ADD COLUMN {columnSql column}"
            Ok(table.Columns.Count - 1)

    let cells (table: Table) (row: Row) (now: int64) : Result<Cell[], LineError> =
        let mutable error = ValueNone
        let mutable cells = Array.copy table.Absent
        let mutable designated = Cell.Null

        let put i (name: string) (cast: Result<Cell, string>) =
            match cast with
            | Error reason -> error <- ValueSome(refused row.Number table.Name name reason)
            | Ok cell ->
                if i >= cells.Length then
                    cells <- Array.append cells table.Absent[cells.Length ..]

                cells[i] <- cell

                if i = table.Designated then
                    designated <- cell

        /// The column, made when it is not there; -1 when there is none to be made.
        let find name kind =
            match table.Index.TryGetValue name with
            | true, i -> i
            | _ ->
                match newColumn table row name (kind ()) with
                | Ok i -> i
                | Error reason ->
                    error <- ValueSome reason
                    -1

        for name, text in row.Symbols do
            if error.IsNone then
                let i = find name (fun () -> Ok(Some ColumnType.Symbol))

                if i >= 0 then
                    put i name (Cast.symbol table.Columns[i].Type text)

        for name, value in row.Fields do
            if error.IsNone then
                let i = find name (fun () -> Cast.automatic value)

                if i >= 0 then
                    put i name (Cast.value table.Columns[i].Type value)

        let at = table.Designated

        if error.IsNone && at >= 0 && designated = Cell.Null then
            let text =
                try
                    match row.Time, table.Columns[at].Type with
                    | ValueSome time, ColumnType.TimestampNanos -> Iso.ofNanos (Ilp.nanos time)
                    | ValueSome time, _ -> Iso.ofMicros (Ilp.micros time)
                    | ValueNone, ColumnType.TimestampNanos -> Iso.ofNanos (now * 1000L)
                    | ValueNone, _ -> Iso.ofMicros now
                with :? OverflowException ->
                    None

            match text with
            | Some text -> cells[at] <- Cell.Text text
            | None ->
                error <-
                    ValueSome(
                        refused row.Number table.Name table.Columns[at].Name "designated timestamp overflow"
                    )

        match error with
        | ValueSome error -> Error error
        | ValueNone -> Ok cells

    /// Takes the rows of one request. `cache` is what the connection remembers of the tables it wrote to. All is committed, table
    /// by table, or nothing; what was created on the way stays.
    member _.Write
        (cache: Dictionary<string, int>, rows: ResizeArray<Row>, parseError: LineError voption)
        : Result<unit, LineError> =
        lock gate (fun () ->
            let now = nowMicros ()
            let batches = List<struct (Table * ResizeArray<Cell[]>)>()
            let discarded = HashSet<string>(StringComparer.OrdinalIgnoreCase)

            let mutable current: struct (string * Table * ResizeArray<Cell[]>) voption =
                ValueNone

            let mutable error = ValueNone
            let mutable i = 0

            let resolve (row: Row) =
                let table =
                    match tables.TryGetValue row.Table with
                    | true, table -> ValueSome table
                    | _ -> ValueNone

                match cache.TryGetValue row.Table with
                | true, id when not (tables.Values |> Seq.exists (fun table -> table.Id = id)) ->
                    // Dropped while this connection had it open.
                    discarded.Add row.Table |> ignore
                    ValueNone
                | _ ->
                    match table with
                    | ValueSome _ -> table
                    | ValueNone when options.CreateTables -> ValueSome(create' row)
                    | ValueNone ->
                        error <-
                            ValueSome {
                                Line = row.Number
                                Status = 400
                                Code = "invalid"
                                Message =
                                    Ilp.errorText
                                        row.Number
                                        $"table: {row.Table}; table does not exist, creating new tables is disabled"
                            }

                        ValueNone

            let batchOf (row: Row) =
                match current with
                | ValueSome(struct (name, table, batch)) when name = row.Table ->
                    ValueSome(struct (table, batch))
                | _ when discarded.Contains row.Table -> ValueNone
                | _ ->
                    match resolve row with
                    | ValueNone -> ValueNone
                    | ValueSome table ->
                        cache[row.Table] <- table.Id

                        let known =
                            batches
                            |> Seq.tryFind (fun (struct (other, _)) -> Object.ReferenceEquals(other, table))

                        let struct (_, batch) as found =
                            match known with
                            | Some found -> found
                            | None ->
                                let added = struct (table, ResizeArray<Cell[]>())
                                batches.Add added
                                added

                        current <- ValueSome(struct (row.Table, table, batch))
                        ValueSome found

            while error.IsNone && i < rows.Count do
                match batchOf rows[i] with
                | ValueSome(struct (table, batch)) ->
                    match cells table rows[i] now with
                    | Ok row -> batch.Add row
                    | Error reason -> error <- ValueSome reason
                | ValueNone -> ()

                i <- i + 1

            let error =
                match error with
                | ValueNone -> parseError
                | some -> some

            for name in discarded do
                cache.Remove name |> ignore

            match error with
            | ValueSome error -> Error error
            | ValueNone ->
                for struct (table, batch) in batches do
                    let rows = batch.ToArray()
                    recordRows table rows
                    table.Enqueue(Transaction.Rows rows)

                if batches.Count > 0 then
                    signal ()

                Ok())

    /// Runs a statement and answers its JSON, or where and why it is refused.
    member _.Execute
        (text: string, quoteLongs: bool, skip: int, take: int)
        : Result<ReadOnlyMemory<byte>, struct (int * string)> =
        lock gate (fun () ->
            try
                let buffer = new MemoryStream()

                use json =
                    new Utf8JsonWriter(
                        buffer,
                        JsonWriterOptions(
                            Encoder = Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping
                        )
                    )

                match Sql.parse text with
                | SqlStatement.Query tokens -> query json text tokens quoteLongs skip take
                | statement ->
                    change statement
                    recordSql text
                    json.WriteStartObject()
                    json.WriteString("ddl", "OK")
                    json.WriteEndObject()

                json.Flush()
                Ok(ReadOnlyMemory(buffer.GetBuffer(), 0, int buffer.Length))
            with
            | SqlError(position, message) -> Error(struct (position, message))
            | SqliteError message -> Error(struct (0, message)))

    /// As when applying failed: rows are taken, and wait.
    member _.Suspend(table: string, tag: string, message: string) =
        lock gate (fun () ->
            if tables.ContainsKey table then
                changeBy
                    $"ALTER TABLE {Select.quote table} SUSPEND WAL WITH {Select.literal tag}, {Select.literal message}")

    /// Loses what was written after this moment, as when the power goes: the tables are what the log still says.
    member _.ForgetAfter(moment: DateTimeOffset) =
        lock gate (fun () ->
            match journal with
            | ValueNone -> invalidOp "without a data folder nothing can be forgotten"
            | ValueSome journal ->
                (journal :> IDisposable).Dispose()

                for table in List.ofSeq tables.Values do
                    forget table

                tables.Clear()
                views.Clear()
                lastId <- 0
                epoch <- epoch + 1
                (sqlite :> IDisposable).Dispose()
                sqlite <- new Sqlite()
                let from = moment.ToUnixTimeMilliseconds()
                openLog (fun _ at -> at > from))

    /// Changes whenever connections have to forget what they knew.
    member _.Epoch = Volatile.Read &epoch

    /// Whether everything that is not suspended can be seen.
    member _.Settled =
        lock gate (fun () ->
            tables.Values
            |> Seq.forall (fun table -> table.Suspended || table.Pending.Count = 0))

    interface IAsyncDisposable with
        member _.DisposeAsync() =
            ValueTask(
                task {
                    stopping.Cancel()
                    do! working

                    lock gate (fun () ->
                        journal |> ValueOption.iter (fun journal -> (journal :> IDisposable).Dispose())

                        for table in tables.Values do
                            forget table

                        (sqlite :> IDisposable).Dispose())
                }
                :> Task
            )
