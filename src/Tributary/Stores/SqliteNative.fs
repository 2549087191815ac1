namespace Tributary.Stores

open System
open System.IO
open System.Text
open SQLitePCL
open Tributary

/// What SQLite said instead of doing its work. `Code` is its extended result code.
[<Sealed>]
type internal SqliteException(code: int, message: string) =
    inherit IOException(message)
    member _.Code = code
    /// The result code without its refinement, such as `SQLITE_BUSY`.
    member _.Primary = code &&& 0xFF

/// A prepared statement that is used again and again. Parameters count from 1, columns from 0, as in SQLite. One user at a
/// time.
[<Sealed>]
type internal Statement(db: sqlite3, sql: string) =
    static let persistent = 1u // SQLITE_PREPARE_PERSISTENT

    let fail () =
        raise (SqliteException(raw.sqlite3_extended_errcode db, raw.sqlite3_errmsg(db).utf8_to_string()))

    let handle =
        let mutable prepared = Unchecked.defaultof<sqlite3_stmt>

        if raw.sqlite3_prepare_v3 (db, sql, persistent, &prepared) <> raw.SQLITE_OK then
            fail ()

        prepared

    let check result =
        if result <> raw.SQLITE_OK then
            fail ()

    member _.Null(index: int) =
        check (raw.sqlite3_bind_null (handle, index))

    member _.Integer(index: int, value: int64) =
        check (raw.sqlite3_bind_int64 (handle, index, value))

    member _.Real(index: int, value: float) =
        check (raw.sqlite3_bind_double (handle, index, value))

    member _.Text(index: int, value: string) =
        check (raw.sqlite3_bind_text (handle, index, value))

    member _.Text(index: int, utf8: ReadOnlySpan<byte>) =
        if utf8.IsEmpty then
            // NOTE: an empty span has no address, and SQLite takes a text without address for NULL.
            check (raw.sqlite3_bind_text (handle, index, ""))
        else
            check (raw.sqlite3_bind_text (handle, index, utf8))

    member _.Blob(index: int, bytes: ReadOnlySpan<byte>) =
        if bytes.IsEmpty then
            check (raw.sqlite3_bind_zeroblob (handle, index, 0))
        else
            check (raw.sqlite3_bind_blob (handle, index, bytes))

    member this.IntegerOrNull(index: int, value: int64 voption) =
        match value with
        | ValueSome value -> this.Integer(index, value)
        | ValueNone -> this.Null index

    member this.TextOrNull(index: int, value: string voption) =
        match value with
        | ValueSome value -> this.Text(index, value)
        | ValueNone -> this.Null index

    /// Moves to the next row: false when there are no more. After a failure the statement is ready to be used again.
    member _.Step() =
        match raw.sqlite3_step handle with
        | raw.SQLITE_ROW -> true
        | raw.SQLITE_DONE -> false
        | _ ->
            let failure =
                SqliteException(raw.sqlite3_extended_errcode db, raw.sqlite3_errmsg(db).utf8_to_string())

            raw.sqlite3_reset handle |> ignore
            raise failure

    /// Ready for new parameters; the old ones stay until they are replaced.
    member _.Reset() = raw.sqlite3_reset handle |> ignore

    /// Runs to the end, whatever rows there are.
    member this.Run() =
        while this.Step() do
            ()

        this.Reset()

    /// All rows.
    member this.Rows(read: Statement -> 'T) : 'T list =
        let rows = ResizeArray()

        try
            while this.Step() do
                rows.Add(read this)
        finally
            this.Reset()

        List.ofSeq rows

    member _.IsNull(column: int) =
        raw.sqlite3_column_type (handle, column) = raw.SQLITE_NULL

    member _.IsBlob(column: int) =
        raw.sqlite3_column_type (handle, column) = raw.SQLITE_BLOB

    member _.Integer(column: int) =
        raw.sqlite3_column_int64 (handle, column)

    member _.Real(column: int) =
        raw.sqlite3_column_double (handle, column)

    /// The bytes of a blob or a text, valid until the next step.
    member _.Bytes(column: int) =
        raw.sqlite3_column_blob (handle, column)

    member this.Text(column: int) =
        Encoding.UTF8.GetString(this.Bytes column)

    member this.IntegerOrNull(column: int) =
        if this.IsNull column then
            ValueNone
        else
            ValueSome(this.Integer column)

    member this.InstantOrNull(column: int) =
        this.IntegerOrNull column |> ValueOption.map Instant.ofMicros

    member this.Instant(column: int) = Instant.ofMicros (this.Integer column)

    interface IDisposable with
        member _.Dispose() = handle.Dispose()

/// How a file is opened.
[<RequireQualifiedAccess>]
type internal Access =
    /// Nothing is ever written through this connection.
    | Read
    /// As `Read`, of a file that nobody writes to meanwhile: not even the files beside it that readers share are made.
    | Still
    /// The file is made when it is not there.
    | Write

/// A connection. One user at a time: it has no lock of its own.
[<Sealed>]
type internal Connection(path: string, access: Access) =
    static do Batteries_V2.Init()

    let handle =
        let flags =
            raw.SQLITE_OPEN_NOMUTEX
            ||| match access with
                | Access.Read -> raw.SQLITE_OPEN_READONLY
                | Access.Still -> raw.SQLITE_OPEN_READONLY ||| raw.SQLITE_OPEN_URI
                | Access.Write -> raw.SQLITE_OPEN_READWRITE ||| raw.SQLITE_OPEN_CREATE

        let name =
            match access with
            | Access.Still -> Uri(IO.Path.GetFullPath path).AbsoluteUri + "?immutable=1"
            | Access.Read
            | Access.Write -> path

        let mutable opened = Unchecked.defaultof<sqlite3>
        let result = raw.sqlite3_open_v2 (name, &opened, flags, null)

        if result <> raw.SQLITE_OK then
            let failure = SqliteException(result, raw.sqlite3_errstr(result).utf8_to_string())
            opened.Dispose()
            raise failure

        raw.sqlite3_busy_timeout (opened, 2_000) |> ignore
        opened

    let statements = ResizeArray<Statement>()

    /// A statement that lives as long as the connection.
    member _.Prepare(sql: string) =
        let statement = new Statement(handle, sql)
        statements.Add statement
        statement

    /// Runs statements, separated by semicolons, for their effect.
    member _.Execute(sql: string) =
        if raw.sqlite3_exec (handle, sql) <> raw.SQLITE_OK then
            raise (
                SqliteException(
                    raw.sqlite3_extended_errcode handle,
                    raw.sqlite3_errmsg(handle).utf8_to_string()
                )
            )

    /// The one number that a statement answers.
    member _.Number(sql: string) =
        use statement = new Statement(handle, sql)
        if statement.Step() then statement.Integer 0 else 0L

    /// Ends any statement that is still running when `isOver` says so: it throws with `SQLITE_INTERRUPT`.
    member _.InterruptWhen(isOver: unit -> bool) =
        let asked = delegate_progress (fun _ -> if isOver () then 1 else 0)
        raw.sqlite3_progress_handler (handle, 10_000, asked, null)

    /// The rowid of the last row that was inserted.
    member _.LastRow = raw.sqlite3_last_insert_rowid handle

    /// How many rows the last statement changed.
    member _.Changes = raw.sqlite3_changes handle

    /// Ends a transaction that did not work out, if SQLite has not done so itself.
    member this.Rollback() =
        if raw.sqlite3_get_autocommit handle = 0 then
            this.Execute "ROLLBACK"

    interface IDisposable with
        member _.Dispose() =
            for statement in statements do
                (statement :> IDisposable).Dispose()

            handle.Dispose()
