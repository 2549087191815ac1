/// What is decided about rows on their way to QuestDB: what an answer means, what is sent next, how far a table has come, and when
/// a row is there for good. All of it pure.
namespace Tributary.Stores.QuestDb

open System
open Tributary

/// What a server's answer to some rows means. The statuses are those of QuestDB's `LineHttpProcessor`.
[<RequireQualifiedAccess>]
type internal Answer =
    /// They are in the write-ahead log.
    | Taken
    /// This row, counted from 0 within what was sent, will never be taken; nothing of the request was.
    | BadRow of row: int * reason: string
    /// This row was too much for the server, which may be its fault or ours; nothing of the request was taken.
    | DoubtfulRow of row: int * reason: string
    /// These rows will not be taken as they are; fewer of them may.
    | Refused of reason: string
    /// The server has a trouble that may pass.
    | Failing of reason: string
    /// No answer: it may have taken them or not.
    | Unreachable of reason: string
    /// Nothing will be taken until a person does something about it.
    | Denied of reason: string
    /// The table is not the one that the rows were made for: no fault of theirs.
    | Changed

[<RequireQualifiedAccess>]
module internal Answer =
    /// From a status and, where the body was JSON with them, the message and the row (1 is the first; 0 is the request as a whole).
    let judge (status: int) (message: string) (row: int voption) =
        let named =
            row
            |> ValueOption.filter (fun row -> row > 0)
            |> ValueOption.map (fun row -> row - 1)

        match status, named with
        | status, _ when status >= 200 && status < 300 -> Answer.Taken
        | 400, ValueSome row -> Answer.BadRow(row, message)
        | 500, ValueSome row -> Answer.DoubtfulRow(row, message)
        | (400 | 413), _ -> Answer.Refused $"{message} (HTTP {status})"
        | 415, _ -> Answer.Denied "it cannot read compressed rows (HTTP 415): take gzip out of the connection"
        | (401 | 403), _ ->
            Answer.Denied
                $"it does not accept the user or the token (HTTP {status}): check username and password, or token, of the connection"
        | (404 | 405), _ ->
            Answer.Denied
                $"it takes no line protocol over HTTP at this address (HTTP {status}): check addr of the connection, and line.http.enabled on the server"
        | 421, _ -> Answer.Failing "it is read-only (HTTP 421): name the primary's address first in addr"
        | _ ->
            Answer.Failing(
                if message = "" then
                    $"HTTP {status}"
                else
                    $"{message} (HTTP {status})"
            )

/// Some rows of a payload.
[<Struct>]
type internal RowRange = { First: int; Count: int }

/// What to do next with a payload.
[<RequireQualifiedAccess>]
type internal Step =
    | Send of RowRange
    | SendAfter of TimeSpan * RowRange
    /// Every row was taken or is among those that never will be.
    | Done of bad: (struct (int * string)) list
    /// Not now: the same rows are sent again later.
    | Later of Answer

/// What some rows of a payload wait for.
[<RequireQualifiedAccess>]
type internal Errand =
    /// To be sent.
    | Rows of RowRange
    /// This row failed alone. A row that was taken before is sent again, to see whether the server takes anything; so many times
    /// together make the row bad.
    | Check of row: int * reason: string

/// How a payload gets to the server, whatever it answers: retries with one deadline for all of it, and a search for the rows that
/// are in the way. A row that the server does not name for certain is only bad when it fails alone while another one gets
/// through: else it is not the row. `isolating` says that this payload failed as a whole more than once while the server answered.
type internal Delivery = private {
    Deadline: Instant
    MostWait: TimeSpan
    Isolating: bool
    Waiting: Errand list
    /// Rows that made the server fail by its own account, and how often.
    Doubts: Map<int, int>
    /// How often a row failed alone and another one got through after it.
    Proofs: Map<int, int>
    Bad: (struct (int * string)) list
    /// Rows that failed alone while nothing had got through.
    Suspects: (struct (int * string)) list
    Failures: int
    /// A row that was taken.
    Control: int voption
}

[<RequireQualifiedAccess>]
module internal Delivery =
    /// After so many failures that name the same row, it is tried alone …
    let private mostDoubts = 3
    /// … and after so many proofs it is to blame.
    let private mostProofs = 3
    /// When so many rows failed alone and nothing got through, it is not the rows.
    let private mostSuspects = 50
    let private firstWait = 10.0

    let start (now: Instant) (retryFor: TimeSpan) (mostWait: TimeSpan) isolating rows = {
        Deadline = now + retryFor
        MostWait = mostWait
        Isolating = isolating
        Waiting =
            (if rows > 0 then
                 [ Errand.Rows { First = 0; Count = rows } ]
             else
                 [])
        Doubts = Map.empty
        Proofs = Map.empty
        Bad = []
        Suspects = []
        Failures = 0
        Control = ValueNone
    }

    let private one row = { First = row; Count = 1 }

    /// What is sent first.
    let next (delivery: Delivery) =
        match delivery.Waiting, delivery.Control, delivery.Suspects with
        | Errand.Rows range :: _, _, _ -> Step.Send range
        | Errand.Check _ :: _, ValueSome taken, _ -> Step.Send(one taken)
        | _, _, struct (_, reason) :: _ -> Step.Later(Answer.Failing reason) // nothing got through
        | _ -> Step.Done delivery.Bad

    let private halves range = [
        Errand.Rows { range with Count = range.Count / 2 }
        Errand.Rows {
            First = range.First + range.Count / 2
            Count = range.Count - range.Count / 2
        }
    ]

    let private around range row =
        [
            { range with Count = row }
            {
                First = range.First + row + 1
                Count = range.Count - row - 1
            }
        ]
        |> List.filter (fun range -> range.Count > 0)
        |> List.map Errand.Rows

    let private count row counts =
        Map.tryFind row counts |> Option.defaultValue 0

    /// What follows from the answer to the last step. `jitter` lies from -1 to 1.
    let answered
        (now: Instant)
        (jitter: float)
        (answer: Answer)
        (delivery: Delivery)
        : struct (Delivery * Step) =
        let errand, others = List.head delivery.Waiting, List.tail delivery.Waiting

        let go delivery =
            match delivery.Waiting with
            // Now that something got through, there is something to compare with.
            | [] when delivery.Control.IsSome && not delivery.Suspects.IsEmpty ->
                let delivery = {
                    delivery with
                        Waiting = [ for struct (row, _) in delivery.Suspects -> Errand.Rows(one row) ]
                        Suspects = []
                }

                struct (delivery, next delivery)
            | _ -> struct (delivery, next delivery)

        let later () = struct (delivery, Step.Later answer)

        /// The same again, unless the time is over.
        let again range delivery =
            let doubled = firstWait * Math.Pow(2.0, float (min delivery.Failures 20))

            let wait =
                TimeSpan.FromMilliseconds(
                    max 0.0 (min doubled delivery.MostWait.TotalMilliseconds + 5.0 * jitter)
                )

            if now + wait >= delivery.Deadline then
                later ()
            else
                struct ({
                            delivery with
                                Waiting = Errand.Rows range :: others
                                Failures = delivery.Failures + 1
                        },
                        Step.SendAfter(wait, range))

        let into errands =
            go {
                delivery with
                    Waiting = errands @ others
                    Failures = 0
            }

        let without range row reason =
            go {
                delivery with
                    Waiting = around range row @ others
                    Bad = struct (range.First + row, reason) :: delivery.Bad
                    Failures = 0
            }

        /// It failed alone.
        let suspect row reason =
            if delivery.Control.IsSome then
                into [ Errand.Check(row, reason) ]
            elif delivery.Suspects.Length >= mostSuspects then
                later ()
            else
                go {
                    delivery with
                        Waiting = others
                        Suspects = struct (row, reason) :: delivery.Suspects
                        Failures = 0
                }

        match errand, answer with
        | Errand.Check(row, reason), Answer.Taken ->
            let proven = 1 + count row delivery.Proofs

            if proven >= mostProofs then
                go {
                    delivery with
                        Waiting = others
                        Bad = struct (row, reason) :: delivery.Bad
                        Failures = 0
                }
            else
                go {
                    delivery with
                        // Last, so that some time goes by.
                        Waiting = others @ [ Errand.Rows(one row) ]
                        Proofs = Map.add row proven delivery.Proofs
                        Failures = 0
                }
        | Errand.Check(row, _), (Answer.Failing _ | Answer.Unreachable _ | Answer.DoubtfulRow _) ->
            again (one row) delivery
        | Errand.Check _, _ -> later ()
        | Errand.Rows range, Answer.Taken ->
            go {
                delivery with
                    Waiting = others
                    Control = ValueSome range.First
                    Failures = 0
            }
        // A server that finds a fault in row after row and takes none: the rows are not what it minds.
        | Errand.Rows _, Answer.BadRow _ when delivery.Control.IsNone && delivery.Bad.Length >= mostSuspects ->
            later ()
        | Errand.Rows range, Answer.BadRow(row, reason) when row < range.Count -> without range row reason
        | Errand.Rows range, Answer.DoubtfulRow(row, reason) when row < range.Count ->
            let key = range.First + row
            let doubts = 1 + count key delivery.Doubts

            if doubts < mostDoubts then
                again range {
                    delivery with
                        Doubts = Map.add key doubts delivery.Doubts
                }
            elif range.Count = 1 then
                suspect key reason
            else
                go {
                    delivery with
                        Waiting = around range row @ Errand.Rows(one key) :: others
                        Doubts = Map.add key doubts delivery.Doubts
                        Failures = 0
                }
        | Errand.Rows range,
          (Answer.BadRow(_, reason) | Answer.DoubtfulRow(_, reason) | Answer.Refused reason) ->
            if range.Count > 1 then
                into (halves range)
            else
                suspect range.First reason
        | Errand.Rows range, Answer.Failing reason when delivery.Isolating ->
            if range.Count > 1 then
                into (halves range)
            else
                suspect range.First reason
        | Errand.Rows range, (Answer.Failing _ | Answer.Unreachable _) -> again range delivery
        | Errand.Rows _, (Answer.Denied _ | Answer.Changed) -> later ()

/// How far the entries of a table were taken. After a long wait there are two ends: the backlog, oldest first, and what is new
/// meanwhile, which does not wait for it.
type internal Position = private {
    /// Everything up to here.
    Taken: int64
    /// And from behind here …
    From: int64
    /// … to here.
    To: int64
    /// The backlog has its turn.
    BacklogIsNext: bool
}

/// Entries behind the first number and up to the second.
[<Struct>]
type internal EntryRange = { After: int64; UpTo: int64 }

[<RequireQualifiedAccess>]
module internal Position =
    let start = {
        Taken = 0L
        From = 0L
        To = 0L
        BacklogIsNext = true
    }

    /// Everything up to this entry was taken, and nothing behind it.
    let behind (entry: int64) = { start with Taken = entry }

    /// There is a backlog, and what is new does not wait for it.
    let hasTwoEnds position = position.To > position.Taken

    /// All entries up to here were taken, without a hole.
    let taken position = position.Taken

    /// What to read next, when `last` is the newest entry. `isLong` says that what waits does not fit into one request; from then
    /// on new entries do not wait for old ones.
    let next (last: int64) (isLong: bool) position : struct (Position * EntryRange voption) =
        let position =
            if not (hasTwoEnds position) && isLong && last > position.Taken then
                {
                    position with
                        From = last
                        To = last
                        BacklogIsNext = true
                }
            else
                position

        let backlog =
            if hasTwoEnds position then
                {
                    After = position.Taken
                    UpTo = position.From
                }
            else
                { After = position.Taken; UpTo = last }

        if hasTwoEnds position && not position.BacklogIsNext && last > position.To then
            struct ({ position with BacklogIsNext = true }, ValueSome { After = position.To; UpTo = last })
        elif backlog.UpTo > backlog.After then
            struct ({ position with BacklogIsNext = false }, ValueSome backlog)
        else
            struct (position, ValueNone)

    /// The entries from behind `range.After` to `upTo` were taken.
    let advance (range: EntryRange) (upTo: int64) position =
        let moved =
            if range.After = position.Taken then
                { position with Taken = upTo }
            else
                { position with To = upTo }

        // The two ends have met.
        if moved.Taken >= moved.From && hasTwoEnds moved then
            { moved with Taken = moved.To }
        else
            moved

/// What a server says of a table's write-ahead log: `wal_tables()`.
type internal WalState = {
    /// Another table of the same name has another one.
    Id: int64
    Suspended: bool
    /// The last transaction that can be read.
    WriterTxn: int64
    /// The last transaction that was taken.
    SequencerTxn: int64
    /// Such as `DISK FULL`.
    ErrorTag: string
    ErrorMessage: string
}

[<Struct>]
type internal Acknowledged = {
    UpTo: int64
    At: Instant
    /// The number of the connection that questions went over at that time.
    Line: int
    /// The transaction that was the last one at some moment after.
    Txn: int64 voption
}

/// From "taken" to "there for good": a taken entry can be read once the log's writer has passed the transaction that was the last
/// one after it was taken; it is forgotten a while later, for servers that commit without a sync.
type internal Settling = private {
    Open: Acknowledged list
    AppliedUpTo: int64
    /// Applied, with the moment they were taken; newest first.
    Kept: Acknowledged list
    LastTxn: int64
    LastId: int64
    WasSuspended: bool
}

[<RequireQualifiedAccess>]
module internal Settling =
    let start = {
        Open = []
        AppliedUpTo = 0L
        Kept = []
        LastTxn = -1L
        LastId = -1L
        WasSuspended = false
    }

    /// Entries up to here were taken, at this moment; `line` is the connection that questions go over.
    let taken (upTo: int64) (at: Instant) (line: int) settling =
        if upTo <= settling.AppliedUpTo then
            settling
        else
            {
                settling with
                    Open =
                        {
                            UpTo = upTo
                            At = at
                            Line = line
                            Txn = ValueNone
                        }
                        :: settling.Open
            }

    let private furthest (from: int64) (entries: Acknowledged list) =
        entries |> List.fold (fun most one -> max most one.UpTo) from

    /// What a look at the log, which began at `began` and went over the connection `line`, says. When it answers a number,
    /// whatever is still held behind that entry has to be sent again:
    /// 1. All of it, when the log is another one than before, or older; or when it is resumed: transactions may have been skipped.
    /// 2. What no look has seen in the log, when the connection is another one: a server that was started again meanwhile may
    ///    have lost it, and shows nothing of that.
    let looked
        (began: Instant)
        (line: int)
        (state: WalState voption)
        settling
        : struct (Settling * int64 voption) =
        match state with
        | ValueNone when settling.LastTxn < 0L && settling.Open.IsEmpty -> struct (start, ValueNone)
        | ValueNone -> struct (start, ValueSome 0L)
        | ValueSome state when settling.WasSuspended && not state.Suspended -> struct (start, ValueSome 0L)
        | ValueSome state when
            settling.LastTxn >= 0L
            && (state.SequencerTxn < settling.LastTxn || state.Id <> settling.LastId)
            ->
            struct (start, ValueSome 0L)
        | ValueSome state ->
            let isDoubted =
                settling.Open |> List.exists (fun one -> one.Txn.IsNone && one.Line <> line)

            let stamped, unstamped = settling.Open |> List.partition _.Txn.IsSome

            // What was taken while the look was under way waits for the next one; behind something doubted, all is doubted.
            let fresh, unseen =
                if isDoubted then
                    [], []
                else
                    unstamped |> List.partition (fun one -> one.At >= began)

            let seen =
                match unseen with
                | [] -> stamped
                | _ ->
                    {
                        UpTo = furthest 0L unseen
                        At = unseen |> List.map _.At |> List.max
                        Line = line
                        Txn = ValueSome state.SequencerTxn
                    }
                    :: stamped

            let isApplied one =
                not state.Suspended
                && (match one.Txn with
                    | ValueSome txn -> txn <= state.WriterTxn
                    | ValueNone -> false)

            let applied, waiting = List.partition isApplied seen
            let appliedUpTo = furthest settling.AppliedUpTo applied

            struct ({
                        Open = fresh @ waiting
                        AppliedUpTo = appliedUpTo
                        Kept = applied @ settling.Kept
                        LastTxn = state.SequencerTxn
                        LastId = state.Id
                        WasSuspended = state.Suspended
                    },
                    (if isDoubted then
                         ValueSome(furthest appliedUpTo waiting)
                     else
                         ValueNone))

    /// Entries up to here can be read.
    let applied settling = settling.AppliedUpTo

    /// The entries that are old enough to be forgotten, if there are any.
    let release (now: Instant) (keep: TimeSpan) settling : struct (Settling * int64 voption) =
        let old, young = settling.Kept |> List.partition (fun one -> one.At + keep <= now)

        match old with
        | [] -> struct (settling, ValueNone)
        | _ -> struct ({ settling with Kept = young }, ValueSome(old |> List.map _.UpTo |> List.max))

/// How a table is doing.
[<RequireQualifiedAccess>]
type internal TableHealth =
    | Sound
    /// It takes rows, and does not show them.
    | Suspended of tag: string * message: string
    /// Rows come faster than they are applied.
    | Lagging of transactions: int64
    | Missing

[<RequireQualifiedAccess>]
module internal TableHealth =
    /// A log that is this far behind at two looks, and did not move in between, lags.
    let private much = 100L

    let judge (before: WalState voption) (state: WalState voption) =
        match state with
        | ValueNone -> TableHealth.Missing
        | ValueSome state when state.Suspended -> TableHealth.Suspended(state.ErrorTag, state.ErrorMessage)
        | ValueSome state ->
            let behind = state.SequencerTxn - state.WriterTxn

            match before with
            | ValueSome before when
                behind > much
                && before.SequencerTxn - before.WriterTxn > much
                && state.WriterTxn = before.WriterTxn
                ->
                TableHealth.Lagging behind
            | _ -> TableHealth.Sound

    /// One sentence with the cause and what to do.
    let explain (table: string) health =
        match health with
        | TableHealth.Sound -> $"{table} takes rows and shows them"
        | TableHealth.Suspended(tag, message) ->
            let cause =
                match tag, message with
                | "", "" -> "no cause is given"
                | "", message -> message
                | tag, "" -> tag
                | tag, message -> $"{tag}: {message}"

            $"{table} is suspended ({cause}): rows wait in its log and cannot be read; remove the cause, then run ALTER TABLE \"{table}\" RESUME WAL"
        | TableHealth.Lagging transactions ->
            $"{table} is {transactions} transactions behind and does not move: look at the server's log, and at its disk and memory"
        | TableHealth.Missing ->
            $"{table} is not there any more: it is made again, and what is still held here is sent again"
