namespace Tributary.FakeQuestDb

open System
open System.Text
open System.Text.Json

/// What goes wrong with one request.
[<RequireQualifiedAccess>]
type FaultKind =
    /// The connection breaks before anything was done.
    | Abort
    /// All goes well, but later.
    | Slow of TimeSpan
    /// No answer ever comes.
    | Hang
    /// This answer, and nothing done.
    | Answer of status: int * contentType: string * body: string
    /// The server's own JSON error, and nothing done.
    | Refuse of status: int * code: string * message: string * line: int voption
    /// All is committed, and the connection breaks before the answer.
    | CommitThenAbort
    /// The tables of the request are suspended before its rows come: 204, and the rows wait until RESUME WAL.
    | Suspend of tag: string * message: string
    /// A part of the body is read, then the connection breaks.
    | CloseMidBody
    /// A poison row: 400 with the number of the first row that has this text.
    | RejectRow of containing: string

/// A fault and which requests it is for. It strikes `Times` of them, after it let `Skip` of them pass.
type Fault = {
    Kind: FaultKind
    /// `/write`, `/exec`, `/settings`, `/ping`, or any. `/write` is `/api/v2/write`, too.
    Path: string option
    /// Requests with rows of this table.
    Table: string option
    /// Requests whose body, or query, has this text.
    Containing: string option
    Skip: int
    Times: int
}

[<RequireQualifiedAccess>]
module Fault =
    let on path kind = {
        Kind = kind
        Path = Some path
        Table = None
        Containing = None
        Skip = 0
        Times =
            match kind with
            | FaultKind.RejectRow _ -> Int32.MaxValue
            | _ -> 1
    }

    /// Strikes the next request to `/write`.
    let onWrite kind = on "/write" kind
    /// Strikes the next request to `/exec`.
    let onExec kind = on "/exec" kind

    /// Strikes the next request to `/exec` with the error of a bad statement.
    let execFails message =
        onExec (FaultKind.Refuse(400, "", message, ValueSome 0))

    let table name (fault: Fault) : Fault = { fault with Table = Some name }
    let containing text (fault: Fault) : Fault = { fault with Containing = Some text }
    let times count (fault: Fault) : Fault = { fault with Times = count }
    let always (fault: Fault) : Fault = { fault with Times = Int32.MaxValue }
    let after count (fault: Fault) : Fault = { fault with Skip = count }

    /// Only `/settings` fails, for good.
    let settingsDown =
        FaultKind.Refuse(503, "unavailable", "starting", ValueNone)
        |> on "/settings"
        |> always

    /// The JSON of `POST /control`: `fault` is `abort`, `slow` (`milliseconds`), `hang`, `answer` (`status`, `contentType`, `body`),
    /// `refuse` (`status`, `code`, `message`, `line`), `commitThenAbort`, `suspend` (`tag`, `message`), `closeMidBody`, `rejectRow`
    /// (`text`), `settingsDown` or `execFails` (`message`, `position`). `path` ("*" for any), `table`, `containing`, `skip` and
    /// `times` say which requests it strikes.
    let ofJson (json: JsonElement) : Fault =
        let tryGet (name: string) =
            match json.TryGetProperty name with
            | true, found when found.ValueKind <> JsonValueKind.Null -> Some found
            | _ -> None

        let text name otherwise =
            tryGet name |> Option.map string |> Option.defaultValue otherwise

        let number name otherwise =
            tryGet name |> Option.map _.GetInt32() |> Option.defaultValue otherwise

        let refuse () =
            let status = number "status" 500

            FaultKind.Refuse(
                status,
                text "code" (if status = 400 then "invalid" else "internal error"),
                text "message" "as told",
                (match tryGet "line" with
                 | Some line -> ValueSome(line.GetInt32())
                 | None -> ValueNone)
            )

        let name = text "fault" ""

        let fault =
            match name with
            | "abort" -> onWrite FaultKind.Abort
            | "slow" ->
                onWrite (FaultKind.Slow(TimeSpan.FromMilliseconds(float (number "milliseconds" 1000))))
            | "hang" -> onWrite FaultKind.Hang
            | "answer" ->
                onWrite (
                    FaultKind.Answer(number "status" 500, text "contentType" "text/plain", text "body" "")
                )
            | "refuse" -> onWrite (refuse ())
            | "commitThenAbort" -> onWrite FaultKind.CommitThenAbort
            | "suspend" ->
                onWrite (
                    FaultKind.Suspend(text "tag" "DISK FULL", text "message" "could not write, disk is full")
                )
            | "closeMidBody" -> onWrite FaultKind.CloseMidBody
            | "rejectRow" -> onWrite (FaultKind.RejectRow(text "text" ""))
            | "settingsDown" -> settingsDown
            | "execFails" ->
                onExec (FaultKind.Refuse(400, "", text "message" "as told", ValueSome(number "position" 0)))
            | other -> invalidArg "fault" $"there is no fault '{other}'"

        {
            fault with
                Path =
                    match tryGet "path" with
                    | Some path when string path = "*" -> None
                    | Some path -> Some(string path)
                    | None -> fault.Path
                Table = tryGet "table" |> Option.map string
                Containing = tryGet "containing" |> Option.map string
                Skip = number "skip" 0
                Times = number "times" fault.Times
        }

/// The script of faults: each request takes the first that is for it.
[<Sealed>]
type Faults internal () =
    let script = ResizeArray<Fault>()

    member _.Add(fault: Fault) =
        lock script (fun () -> script.Add fault)

    member _.Clear() = lock script script.Clear
    /// Those that have not struck as often as they should.
    member _.Remaining = lock script (fun () -> List.ofSeq script)

    /// `tables` and `has` are about the request: which tables it has rows of, and whether a text is in it.
    member internal _.Take
        (path: string, tables: string seq, has: string -> bool, wanted: FaultKind -> bool)
        : FaultKind voption =
        let concerns (fault: Fault) =
            wanted fault.Kind
            && (fault.Path.IsNone || fault.Path = Some path)
            && (match fault.Table with
                | Some table ->
                    tables
                    |> Seq.exists (fun name -> name.Equals(table, StringComparison.OrdinalIgnoreCase))
                | None -> true)
            && (match fault.Containing with
                | Some text -> has text
                | None -> true)
            && (match fault.Kind with
                | FaultKind.RejectRow text -> has text
                | _ -> true)

        lock script (fun () ->
            let mutable struck = ValueNone
            let mutable i = 0

            while struck.IsNone && i < script.Count do
                let fault = script[i]

                if concerns fault then
                    if fault.Skip > 0 then
                        script[i] <- { fault with Skip = fault.Skip - 1 }
                        i <- i + 1
                    else
                        struck <- ValueSome fault.Kind

                        if fault.Times = Int32.MaxValue then
                            ()
                        elif fault.Times > 1 then
                            script[i] <- { fault with Times = fault.Times - 1 }
                        else
                            script.RemoveAt i
                else
                    i <- i + 1

            struck)

/// One request that came in.
type Heard = {
    At: DateTimeOffset
    Method: string
    Path: string
    /// What was asked at `/exec`; elsewhere empty.
    Statement: string
    Connection: string
    /// In the order of their first rows.
    Tables: string list
    Rows: int
    Bytes: int
    /// 0 when no answer was given.
    Status: int
}

/// What happened so far.
[<Sealed>]
type Counters internal () =
    let gate = obj ()
    let heard = ResizeArray<Heard>()
    let received = Collections.Generic.Dictionary<string, int64>()
    let acknowledged = Collections.Generic.Dictionary<string, int64>()
    let connections = Collections.Generic.HashSet<string>()
    let mutable bytes = 0L
    let mutable running = 0
    let mutable most = 0
    // Of the writes since `Measure`.
    let mutable measured = 0L
    let mutable first, last = 0L, 0L

    let snapshot source =
        lock gate (fun () -> Map.ofSeq (Seq.map (|KeyValue|) source))

    let add (counts: Collections.Generic.Dictionary<string, int64>) table (rows: int64) =
        match counts.TryGetValue table with
        | true, before -> counts[table] <- before + rows
        | _ -> counts[table] <- rows

    /// Every request except those to `/control`, in the order in which they ended.
    member _.Requests = lock gate (fun () -> List.ofSeq heard)

    /// Requests to `/write`.
    member this.Writes =
        this.Requests |> List.filter (fun request -> request.Path = "/write")

    /// Rows that came, by table, also those that were refused.
    member _.RowsReceived = snapshot received
    /// Rows that were answered 204, by table.
    member _.RowsAcknowledged = snapshot acknowledged
    /// Of the bodies of `/write`, as they came.
    member _.Bytes = lock gate (fun () -> bytes)
    member _.Connections = lock gate (fun () -> connections.Count)
    /// How many requests to `/write` were there at one time.
    member _.MostConcurrent = lock gate (fun () -> most)

    /// From here on, `Measured` is told.
    member _.Measure() =
        lock gate (fun () ->
            measured <- 0L
            first <- 0L
            last <- 0L)

    /// The bytes of all bodies of `/write` since `Measure`, and the time from the first request's head to the last one's answer.
    member _.Measured =
        lock gate (fun () -> struct (measured, Diagnostics.Stopwatch.GetElapsedTime(first, last)))

    member internal _.Enter() =
        lock gate (fun () ->
            running <- running + 1
            most <- max most running

            if first = 0L then
                first <- Diagnostics.Stopwatch.GetTimestamp())

    member internal _.Leave() =
        lock gate (fun () ->
            running <- running - 1
            last <- Diagnostics.Stopwatch.GetTimestamp())

    member internal _.Add(request: Heard, rows: (string * int) list) =
        lock gate (fun () ->
            heard.Add request
            connections.Add request.Connection |> ignore
            bytes <- bytes + int64 request.Bytes
            measured <- measured + int64 request.Bytes

            for table, count in rows do
                add received table (int64 count)

                if request.Status = 204 then
                    add acknowledged table (int64 count))

module internal Bytes =
    let contains (body: ReadOnlyMemory<byte>) (text: string) =
        body.Span.IndexOf(ReadOnlySpan(Encoding.UTF8.GetBytes text)) >= 0
