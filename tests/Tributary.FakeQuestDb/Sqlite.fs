namespace Tributary.FakeQuestDb

open System
open SQLitePCL

/// SQLite refused a statement.
exception internal SqliteError of message: string

/// A prepared statement. Parameters count from 1, columns from 0.
[<Sealed>]
type internal Statement(db: sqlite3, sql: string) =
    let fail () =
        raise (SqliteError(raw.sqlite3_errmsg(db).utf8_to_string()))

    let handle =
        let mutable prepared = Unchecked.defaultof<sqlite3_stmt>

        if raw.sqlite3_prepare_v2 (db, sql, &prepared) <> raw.SQLITE_OK then
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

    member _.Blob(index: int, value: byte[]) =
        check (raw.sqlite3_bind_blob (handle, index, ReadOnlySpan value))

    /// Moves to the next row: false when there are no more.
    member _.Step() =
        match raw.sqlite3_step handle with
        | raw.SQLITE_ROW -> true
        | raw.SQLITE_DONE -> false
        | _ ->
            raw.sqlite3_reset handle |> ignore
            fail ()

    member _.Reset() = raw.sqlite3_reset handle |> ignore

    /// Runs to the end and is ready to run again.
    member this.Run() =
        while this.Step() do
            ()

        this.Reset()

    member _.Columns = raw.sqlite3_column_count handle

    /// One of the `SQLITE_…` types.
    member _.Type(column: int) =
        raw.sqlite3_column_type (handle, column)

    member _.Integer(column: int) =
        raw.sqlite3_column_int64 (handle, column)

    member _.Real(column: int) =
        raw.sqlite3_column_double (handle, column)

    member _.Text(column: int) =
        raw.sqlite3_column_text(handle, column).utf8_to_string()

    member _.Blob(column: int) =
        raw.sqlite3_column_blob(handle, column).ToArray()

    interface IDisposable with
        member _.Dispose() = handle.Dispose()

/// A database in memory. One user at a time.
[<Sealed>]
type internal Sqlite() =
    static do Batteries_V2.Init()

    let handle =
        let mutable opened = Unchecked.defaultof<sqlite3>

        if raw.sqlite3_open (":memory:", &opened) <> raw.SQLITE_OK then
            raise (SqliteError "SQLite does not open")

        opened

    member _.Prepare(sql: string) = new Statement(handle, sql)

    /// Runs statements for their effect.
    member _.Execute(sql: string) =
        if raw.sqlite3_exec (handle, sql) <> raw.SQLITE_OK then
            raise (SqliteError(raw.sqlite3_errmsg(handle).utf8_to_string()))

    /// Adds a function of one text that answers a number, or NULL for NULL.
    member _.Function(name: string, number: string -> int64) =
        let call =
            delegate_function_scalar (fun context _ arguments ->
                if raw.sqlite3_value_type arguments[0] = raw.SQLITE_NULL then
                    raw.sqlite3_result_null context
                else
                    raw.sqlite3_result_int64 (
                        context,
                        number (raw.sqlite3_value_text(arguments[0]).utf8_to_string())
                    ))

        raw.sqlite3_create_function (handle, name, 1, raw.SQLITE_DETERMINISTIC, null, call)
        |> ignore

    interface IDisposable with
        member _.Dispose() = handle.Dispose()
