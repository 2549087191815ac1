namespace Tributary

open System

/// Why the book of a token at some moment is not known.
[<RequireQualifiedAccess>]
type Ignorance =
    /// Nothing is recorded of the token.
    | Nothing
    /// The moment lies before the first whole book.
    | Before
    /// The moment lies in a hole, or in what a hole left without a whole book to begin with.
    | Gap of Cause
    /// Changes between two whole books were not recorded.
    | Skipped
    /// Its proof disagreed, and nothing that is recorded has settled it.
    | Unsettled
    /// Nothing is recorded since.
    | After

    /// One clause for a person.
    override this.ToString() =
        match this with
        | Nothing -> "nothing is recorded of it"
        | Before -> "its first whole book came later"
        | Gap cause -> $"there is a gap (cause: {cause})"
        | Skipped -> "the changes between two whole books were not recorded"
        | Unsettled -> "its proof disagreed, and nothing has settled it yet"
        | After -> "nothing is recorded of it since"

/// A book as it was at some moment.
type KnownBook = {
    /// Best first.
    Bids: Level[]
    /// Best first.
    Asks: Level[]
    /// When it last changed, by the exchange's clock.
    At: Instant
    Verdict: Verdict
    /// Why it is not `Verified`.
    Doubt: Doubt
    /// When the whole book that it was rebuilt from was, and why that was stored.
    Base: Instant
    Reason: Reason
    /// How many changes were applied to that.
    Changes: int
}

/// What is known of a token's book at a moment.
[<RequireQualifiedAccess>]
type BookAt =
    | Known of KnownBook
    /// Nothing in `since` is the beginning of time; nothing in `until` is that no later book is known.
    | NotKnown of since: Instant voption * until: Instant voption * why: Ignorance

/// What is stored around a moment: as much as `History.bookAt` needs, and no more.
type Past = {
    /// The gaps of the token that overlap the time from the base (the beginning when there is none) to the next whole book.
    Gaps: Gap list
    /// The newest whole books at or before the moment, in any order: all those of the newest millisecond that holds one that no proof
    /// disagreed with.
    Books: OrderBookSnapshot list
    /// All changes from that millisecond to the moment, in the order of `At` and `Ordinal`.
    Changes: OrderBookDelta list
    /// The first whole book after the moment.
    Next: OrderBookSnapshot voption
    /// The first change after the moment, if it comes before that book.
    NextChange: OrderBookDelta voption
    /// Somebody followed the token's live book. Otherwise it was only polled.
    IsLive: bool
    /// The first state of the live book that was proven; nothing when none was.
    LiveSince: Instant voption
    /// No state is proven that is later than this one.
    Proven: Instant voption
    /// Nothing is recorded of the token that is later: no change, no book, no good poll.
    LastSign: Instant voption
}

/// The book of a token at any moment, from what is stored: whole books, the changes behind them, and the holes.
[<RequireQualifiedAccess>]
module History =
    /// A hole counts when it was not healed: healed ("unchanged") says that the book was the same all the while.
    let private isHole (gap: Gap) =
        gap.Stream = Stream.Depth && gap.Healed.IsNone

    /// A gap is closed on the left and open on the right.
    let private contains (moment: Instant) (gap: Gap) =
        gap.Since <= moment
        && (match gap.Until with
            | ValueSome until -> moment < until
            | ValueNone -> true)

    /// Nothing is later than any moment.
    let private latest (ends: Instant voption list) =
        if ends |> List.exists _.IsNone then
            ValueNone
        else
            List.max ends

    /// A poll that nothing proves does not count beside a live book: it may be of an earlier moment than it was received at.
    let counts isLive (book: OrderBookSnapshot) =
        not (isLive && book.Reason = Reason.Poll && book.Verdict = Verdict.Unverifiable)

    /// The whole book to begin with. Several of one millisecond are states within it: the stream's own is preferred, because its place
    /// among the changes is known best.
    let baseOf isLive (books: OrderBookSnapshot list) =
        books
        |> List.filter (fun book -> book.Verdict <> Verdict.Mismatched && counts isLive book)
        |> List.sortBy (fun book -> struct (book.At, book.Reason <> Reason.Poll, book.Received))
        |> List.tryLast

    /// The changes behind a whole book. Of its own millisecond these are the ones behind that with its very hash. Where none has it: all of
    /// them, because in their order they lead to the end of it; but where updates may be missing (the book came on the stream, or ends a
    /// hole) those that came later than the book.
    let private behind (book: OrderBookSnapshot) endsHole (changes: OrderBookDelta list) =
        let same, later =
            changes
            |> List.filter (fun change -> change.At >= book.At)
            |> List.partition (fun change -> change.At = book.At)

        let rest =
            match
                same
                |> List.tryFindIndexBack (fun change -> book.Hash <> "" && change.Hash = book.Hash)
            with
            | Some index -> List.skip (index + 1) same
            | None when endsHole || book.Reason <> Reason.Poll ->
                same |> List.filter (fun change -> change.Received >= book.Received)
            | None -> same

        rest @ later

    /// What a doubt leaves to be settled by a later state.
    let private isDisputed verdict doubt =
        verdict = Verdict.Mismatched
        || verdict = Verdict.Unverifiable
           && doubt <> Doubt.NoHash
           && doubt <> Doubt.NotChecked
           && doubt <> Doubt.NotCanonical

    /// The book at a moment: after all changes that are not later.
    ///
    /// 1. In a hole that was not healed it is not known; nor after the last sign of life, nor before the first whole book.
    /// 2. The base is the newest whole book at or before the moment that no proof disagreed with. A hole between the two leaves no base.
    /// 3. The changes behind it are applied in their order. Verdict and doubt are those of the last one, else the base's.
    /// 4. A state whose proof disagreed is known when a later one was proven without a hole between them: then it was true.
    /// 5. A whole book that comes next, without a change or a hole before it, has to be the same one. Otherwise changes were not recorded.
    ///    A change that comes next and that no proof disagreed with has to change something. Otherwise it takes back what was not recorded (or
    ///    the exchange told of an order that came and went: nobody can tell the two apart).
    /// 6. Before the live book began nobody listened: what came and went between two polls left no trace, even where the polls agree. There
    ///    a polled book is known at its own moment alone.
    ///
    /// A token whose live book nobody followed was only polled: the newest book stands for the time until the next one, and but for its own
    /// moment it is `Unverifiable`, `NotChecked`.
    let bookAt (moment: Instant) (past: Past) : BookAt =
        let holes = past.Gaps |> List.filter isHole

        match holes |> List.filter (contains moment), baseOf past.IsLive past.Books, past.LastSign with
        | (first :: _ as around), _, _ ->
            let since = around |> List.map _.Since |> List.min
            BookAt.NotKnown(ValueSome since, around |> List.map _.Until |> latest, Ignorance.Gap first.Cause)
        | [], None, ValueNone -> BookAt.NotKnown(ValueNone, ValueNone, Ignorance.Nothing)
        | [], None, ValueSome _ ->
            BookAt.NotKnown(ValueNone, past.Next |> ValueOption.map _.At, Ignorance.Before)
        | [], Some _, ValueSome sign when moment > sign ->
            BookAt.NotKnown(ValueSome sign, ValueNone, Ignorance.After)
        | [], Some start, _ ->
            let between =
                holes
                |> List.filter (fun gap ->
                    gap.Since <= moment
                    && (match gap.Until with
                        | ValueSome until -> until > start.At && until > gap.Since
                        | ValueNone -> false))

            if not between.IsEmpty then
                let hole = between |> List.maxBy _.Until
                let since = between |> List.map _.Since |> List.min
                BookAt.NotKnown(ValueSome since, past.Next |> ValueOption.map _.At, Ignorance.Gap hole.Cause)
            else
                let endsHole = holes |> List.exists (fun gap -> gap.Until = ValueSome start.At)

                let changes = behind start endsHole past.Changes
                let book = Book()
                book.Load(ReadOnlySpan start.Bids, ReadOnlySpan start.Asks)

                for change in changes do
                    book.Set(change.Side, change.Price.Millionths, change.Size.Millionths) |> ignore

                let struct (at, verdict, doubt) =
                    match List.tryLast changes with
                    | Some last -> struct (last.At, last.Verdict, last.Doubt)
                    | None -> struct (start.At, start.Verdict, start.Doubt)

                let isSettled =
                    match past.Proven with
                    | ValueSome proven -> proven >= at
                    | ValueNone -> false

                let isWhole (until: Instant) =
                    holes |> List.forall (fun gap -> gap.Since > until || gap.Since <= moment)

                /// When the state that contradicts this one was, if there is one.
                let contradicted =
                    match past.NextChange, past.Next with
                    | ValueSome next, _ when
                        (next.Verdict = Verdict.Verified || next.Doubt = Doubt.NotChecked)
                        && isWhole next.At
                        && book.Size(next.Side, next.Price.Millionths) = next.Size.Millionths
                        ->
                        ValueSome next.At
                    | ValueNone, ValueSome next when
                        past.IsLive
                        && next.Verdict <> Verdict.Mismatched
                        && isWhole next.At
                        && not (book.Has(ReadOnlySpan next.Bids, ReadOnlySpan next.Asks))
                        ->
                        ValueSome next.At
                    | _ -> ValueNone

                let isUnheard =
                    match past.LiveSince with
                    | ValueSome since ->
                        start.Reason = Reason.Poll && changes.IsEmpty && at < moment && moment < since
                    | ValueNone -> false

                if contradicted.IsSome || isUnheard then
                    let next = past.Next |> ValueOption.map _.At

                    BookAt.NotKnown(
                        ValueSome at,
                        contradicted
                        |> ValueOption.orElse next
                        |> ValueOption.orElse (if isUnheard then past.LiveSince else ValueNone),
                        Ignorance.Skipped
                    )
                elif past.IsLive && not isSettled && isDisputed verdict doubt then
                    BookAt.NotKnown(
                        past.Proven |> ValueOption.orElse (ValueSome at),
                        ValueNone,
                        Ignorance.Unsettled
                    )
                else
                    let isPolled = not past.IsLive && moment <> at

                    BookAt.Known {
                        Bids = book.Depth(Side.Buy, Int32.MaxValue)
                        Asks = book.Depth(Side.Sell, Int32.MaxValue)
                        At = at
                        Verdict = if isPolled then Verdict.Unverifiable else verdict
                        Doubt = if isPolled then Doubt.NotChecked else doubt
                        Base = start.At
                        Reason = start.Reason
                        Changes = changes.Length
                    }
