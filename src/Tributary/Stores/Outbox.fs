namespace Tributary.Stores

open System
open System.Buffers
open System.Collections.Generic
open SQLitePCL
open Tributary

/// What a SQLite file holds for a store that is elsewhere.
[<RequireQualifiedAccess>]
type internal Shipping =
    /// Nothing: it is the only store.
    | Off
    /// The bulk (trades, books, deltas, prices, counters) waits in the outbox, whole and in neutral form, and stands in no table; neither do
    /// links. What the next start needs (markets, matches, gaps, checkpoints) and what must never be dropped (the account's own
    /// orders and trades) stands in the tables, as ever.
    | Rows of limit: OutboxLimit
    /// Everything stands in the tables; the outbox refers to it.
    | References

/// What happens when the outbox is full.
and [<RequireQualifiedAccess>] internal WhenFull =
    /// No more of the bulk is taken until there is room: polling stops, and the gap has the cause `store_failed`.
    | Block
    /// The oldest rows go, each flow's with a gap of cause `overrun`.
    | DropOldest

and internal OutboxLimit = { Bytes: int64; WhenFull: WhenFull }

/// Rows of one table that wait together: those of one batch.
type internal OutboxEntry = {
    /// Numbers rise, and are never used again.
    Number: int64
    Rows: int
    /// In neutral form; otherwise references to the rows of this file.
    IsWhole: bool
    /// The first `Length` bytes; the buffer is used again: see `Free`.
    Buffer: byte[]
    Length: int
} with

    member this.Content = ReadOnlyMemory(this.Buffer, 0, this.Length)

    /// Nobody looks at the content any more. Who forgets to say so has done no harm.
    member this.Free() = ArrayPool.Shared.Return this.Buffer

/// How much of a table waits.
type internal Waiting = {
    Table: string
    Entries: int64
    Rows: int64
    Bytes: int64
    /// When the oldest was written.
    Since: Instant
}

/// The outbox has no room, and is not to drop anything.
exception internal OutboxFull of held: int64 * limit: int64

/// The outbox as the writing connection sees it: everything happens inside that connection's transactions.
[<Sealed>]
type internal OutboxWriter(db: Connection, clock: TimeProvider) =
    let insert =
        db.Prepare "INSERT INTO outbox (kind, written, rows, form, content) VALUES (?1, ?2, ?3, ?4, ?5)"

    let oldest =
        db.Prepare "SELECT entry, kind, length(content) FROM outbox WHERE form = 1 ORDER BY entry LIMIT 1"

    let content = db.Prepare "SELECT content FROM outbox WHERE entry = ?1"
    let delete = db.Prepare "DELETE FROM outbox WHERE entry = ?1"

    let measured =
        db.Prepare "SELECT coalesce(sum(length(content)), 0) FROM outbox WHERE kind = ?1 AND entry <= ?2"

    let apply =
        db.Prepare
            "INSERT INTO outbox_applied (kind, entry) VALUES (?1, ?2) ON CONFLICT (kind) DO UPDATE SET entry = excluded.entry"

    let release = db.Prepare "DELETE FROM outbox WHERE kind = ?1 AND entry <= ?2"

    let measure () =
        db.Number "SELECT coalesce(sum(length(content)), 0) FROM outbox"

    let mutable bytes = measure ()
    // What the transaction under way has added, whether there was bulk in it, and the first of its entries.
    let mutable added, isBulk, firstNew = 0L, false, Int64.MaxValue
    // How far each table was seen to be applied: those may go early when room is needed.
    let applied = Dictionary<string, int64>()

    let drop (kind: string) (upTo: int64) =
        measured.Text(1, kind)
        measured.Integer(2, upTo)
        let held = measured.Rows(fun row -> row.Integer 0) |> List.head
        release.Text(1, kind)
        release.Integer(2, upTo)
        release.Run()
        bytes <- bytes - held

    /// The moment, by the clock that entries are dated with.
    member _.Now = Instant.ofDateTimeOffset (clock.GetUtcNow())

    /// A transaction begins.
    member _.Begin() =
        added <- 0L
        isBulk <- false
        firstNew <- Int64.MaxValue

    member this.Add(kind: string, rows: int, isWhole: bool, entry: ReadOnlySpan<byte>) =
        insert.Text(1, kind)
        insert.Integer(2, this.Now.Micros)
        insert.Integer(3, rows)
        insert.Integer(4, (if isWhole then 1L else 0L))
        insert.Blob(5, entry)
        insert.Run()
        bytes <- bytes + int64 entry.Length
        added <- added + int64 entry.Length
        isBulk <- isBulk || isWhole
        firstNew <- min firstNew db.LastRow

    /// The store that is elsewhere has these, and has them for good.
    member _.Release(kind: string, upTo: int64) = drop kind upTo

    /// The store that is elsewhere shows these.
    member _.IsApplied(kind: string, upTo: int64) =
        match applied.TryGetValue kind with
        | true, known when known = upTo -> ()
        | _ ->
            applied[kind] <- upTo
            // For whoever reads there, in another process.
            apply.Text(1, kind)
            apply.Integer(2, upTo)
            apply.Run()

    /// Sees to it that no more than the limit is held, but for what this transaction has added to nothing: a write that is larger
    /// than the limit would never be taken else. `lost` hears of the entries that go and were not seen to be applied.
    member _.Fit(limit: OutboxLimit, lost: string -> byte[] -> unit) =
        if bytes > limit.Bytes then
            for KeyValue(kind, upTo) in List.ofSeq applied do
                drop kind upTo

            let held = bytes - added

            // What is small always has its place: it tells of the trouble, and helps to get out of it.
            if bytes > limit.Bytes && limit.WhenFull = WhenFull.Block && isBulk && held > 0L then
                raise (OutboxFull(held, limit.Bytes))

            let mutable more = bytes > limit.Bytes && limit.WhenFull = WhenFull.DropOldest

            while more do
                match oldest.Rows(fun row -> struct (row.Integer 0, row.Text 1, row.Integer 2)) with
                | [ struct (entry, kind, length) ] when entry < firstNew ->
                    content.Integer(1, entry)
                    lost kind (content.Rows(fun row -> row.Bytes(0).ToArray()) |> List.head)
                    delete.Integer(1, entry)
                    delete.Run()
                    bytes <- bytes - length
                    more <- bytes > limit.Bytes
                | _ -> more <- false // What is left is small, and tells what was lost; or it is new.

    /// The transaction was taken back.
    member _.Undone() = bytes <- measure ()

/// The outbox as whoever ships its entries sees it. All of it may be used from any thread.
[<NoComparison; NoEquality>]
type internal Outbox = {
    /// The newest entry of a table; 0 when it has none.
    Last: string -> int64
    /// Entries of a table, after the first number and up to the second, oldest first, until they make so many rows; at least one.
    Read: string -> int64 -> int64 -> int -> OutboxEntry list
    /// Puts the rows of an entry into a batch, which is cleared before. An `InvalidDataException` says that it is damaged.
    Open: string -> OutboxEntry -> Batch -> unit
    Waiting: unit -> Waiting list
    /// The same of entries that were not seen at the other store yet.
    Unseen: unit -> Waiting list
    /// Rows that were dropped for want of room since the file was opened; gaps say of what.
    Dropped: unit -> int64
    /// Entries of a table up to a number are at the other store for good: they are forgotten.
    Release: string -> int64 -> unit
    /// Entries up to a number can be read at the other store: they may be forgotten when there is no more room.
    IsApplied: string -> int64 -> unit
}
