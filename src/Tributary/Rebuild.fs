/// The book of a token at any moment, out of any store. Reads what it needs around the moment, not the whole recording.
[<RequireQualifiedAccess>]
module Tributary.Rebuild

open System.Threading.Tasks
open Tributary
open Tributary.Stores

/// How far a token is recorded: the same for every moment, so that many moments read it once.
type Extent = {
    Token: TokenId
    /// Somebody followed its live book.
    IsLive: bool
    /// The first state of it that was proven.
    LiveSince: Instant voption
    /// The latest state that is known to be proven.
    Proven: Instant voption
    /// The latest moment that something is recorded of: a change, a book, or a poll that found nothing new (that one by our clock).
    LastSign: Instant voption
}

let private of' (token: TokenId) = {
    Query.everything with
        Token = ValueSome token
}

let private justAfter (moment: Instant) = Instant.ofMicros (moment.Micros + 1L)

let private newest (moments: Instant list) =
    match moments with
    | [] -> ValueNone
    | moments -> ValueSome(List.max moments)

/// How far a token is recorded.
let extent (store: Store) (token: TokenId) : Task<Extent> = task {
    let last limit = {
        of' token with
            Limit = limit
            Latest = true
    }

    // As many as may wait for a proof.
    let! changes = store.Deltas(last 256)
    let! books = store.Books(last 16)
    let! checkpoints = store.Checkpoints()

    let watermarks stream = [
        for checkpoint in checkpoints do
            if checkpoint.Stream = stream && checkpoint.Token = ValueSome token then
                checkpoint.Watermark
    ]

    let depth = watermarks Stream.Depth

    return {
        Token = token
        IsLive =
            not changes.IsEmpty
            || not depth.IsEmpty
            || books |> List.exists (fun book -> book.Reason <> Reason.Poll)
        LiveSince =
            match
                checkpoints
                |> List.filter (fun one -> one.Stream = Stream.Depth && one.Token = ValueSome token)
            with
            | [] -> ValueNone
            | own -> ValueSome(own |> List.map _.Since |> List.min)
        Proven =
            newest [
                yield! depth
                for change in changes do
                    if change.Verdict = Verdict.Verified then
                        change.At
                for book in books do
                    if book.Verdict = Verdict.Verified then
                        book.At
            ]
        LastSign =
            newest [
                yield! depth
                yield! watermarks Stream.Books
                yield! changes |> List.map _.At
                yield! books |> List.map _.At
            ]
    }
}

/// The newest whole books up to a moment: further back as long as a proof disagreed with all of them.
let rec private booksUpTo (store: Store) token isLive (moment: Instant) limit : Task<OrderBookSnapshot list> =
    task {
        let! books =
            store.Books {
                of' token with
                    Until = justAfter moment
                    Limit = limit
                    Latest = true
            }

        if (History.baseOf isLive books).IsSome || books.Length < limit then
            return books
        else
            return! booksUpTo store token isLive moment (limit * 8)
    }

/// So many changes are read at a time.
let private page = 20_000

/// The changes from one moment to another, both included.
let private changes (store: Store) token (since: Instant) (moment: Instant) : Task<OrderBookDelta list> = task {
    let found = ResizeArray<OrderBookDelta>()
    let mutable from, limit, isWhole = since, page, false

    while not isWhole do
        let! rows =
            store.Deltas {
                of' token with
                    Since = from
                    Until = justAfter moment
                    Limit = limit
            }

        isWhole <- rows.Length < limit

        if isWhole then
            found.AddRange rows
        else
            // The last millisecond may go on in the next page: it is read again.
            let last = (List.last rows).At
            found.AddRange(rows |> Seq.takeWhile (fun row -> row.At < last))
            limit <- if last = from then limit * 2 else page
            from <- last

    return List.ofSeq found
}

/// The book of a token at a moment.
let bookAt (store: Store) (extent: Extent) (moment: Instant) : Task<BookAt> = task {
    let token = extent.Token
    let! books = booksUpTo store token extent.IsLive moment 8

    let! rows =
        match History.baseOf extent.IsLive books with
        | Some start -> changes store token start.At moment
        | None -> Task.FromResult []

    let after = {
        of' token with
            Since = justAfter moment
            Limit = 1
    }

    // Between two that count there may be polls that do not.
    let! later = store.Books { after with Limit = 100 }
    let next = later |> List.filter (History.counts extent.IsLive) |> List.truncate 1

    let! following =
        match next with
        | [ next ] -> store.Deltas { after with Until = justAfter next.At }
        | _ -> store.Deltas after

    let! gaps =
        store.Gaps {
            of' token with
                Since =
                    match History.baseOf extent.IsLive books with
                    | Some start -> start.At
                    | None -> moment
                Until =
                    match next with
                    | [ next ] -> justAfter next.At
                    | _ -> justAfter moment
        }

    return
        History.bookAt moment {
            // Of several collectors, the hole of any one counts: it is not known which of them a change came from.
            Gaps = gaps |> List.map _.Gap
            Books = books
            Changes = rows
            Next =
                match next with
                | [ next ] -> ValueSome next
                | _ -> ValueNone
            NextChange =
                match following with
                | [ change ] -> ValueSome change
                | _ -> ValueNone
            IsLive = extent.IsLive
            LiveSince = extent.LiveSince
            Proven = extent.Proven
            LastSign = extent.LastSign
        }
}

/// The newest moment at which the book of a token is known, and the book there; the reason why there is none when it never is.
let newestBook (store: Store) (extent: Extent) : Task<struct (Instant * BookAt)> = task {
    let mutable moment = ValueOption.defaultValue (Instant.ofMicros 0L) extent.LastSign

    let! first = bookAt store extent moment
    let mutable answer = first
    // Holes may touch each other: a few steps back over them.
    let mutable steps = 16

    while steps > 0 do
        match answer with
        | BookAt.NotKnown(ValueSome since, _, _) when since <= moment ->
            steps <- steps - 1
            moment <- Instant.ofMicros (since.Micros - 1L)
            let! earlier = bookAt store extent moment
            answer <- earlier
        | _ -> steps <- 0

    return
        match answer with
        | BookAt.Known _ -> struct (moment, answer)
        | BookAt.NotKnown _ -> struct (ValueOption.defaultValue moment extent.LastSign, first)
}
