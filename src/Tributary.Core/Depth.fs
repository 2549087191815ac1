namespace Tributary

open System
open System.Collections.Generic

/// How much of live order books is stored.
[<RequireQualifiedAccess>]
type DepthMode =
    /// Every change, and whole books now and then.
    | Full
    /// The best so many levels of a side, as if the book had no more: what leaves them is removed, what enters them is set.
    | Top of levels: int
    /// Whole books now and then.
    | Snapshots
    /// Nothing.
    | Off

/// When something is done about a live book.
type DepthRules = {
    /// A hash that disagrees may cover a fill that is announced later: for so long it is only doubted.
    Grace: TimeSpan
    /// The first book of a token comes within this time of its subscription.
    FirstBook: TimeSpan
    /// A poll that is ahead of the stream for longer than this shows that the stream lacks something.
    Behind: TimeSpan
    /// A book that no poll was compared with for so long is asked for.
    CompareEvery: TimeSpan
    /// A step that did not help is followed by the next one after this time.
    Patience: TimeSpan
    /// Whole books are stored at least this often while a book changes …
    SnapshotEvery: TimeSpan
    /// … and after so many changes.
    SnapshotChanges: int
    /// A crossed book is remarkable when it stays so for longer.
    CrossedFor: TimeSpan
    /// Checkpoints are written this often, of books that changed.
    CheckpointEvery: TimeSpan
}

[<RequireQualifiedAccess>]
module DepthRules =
    let usual = {
        Grace = TimeSpan.FromMilliseconds 500.0
        FirstBook = TimeSpan.FromSeconds 10.0
        Behind = TimeSpan.FromSeconds 5.0
        CompareEvery = TimeSpan.FromSeconds 30.0
        Patience = TimeSpan.FromSeconds 10.0
        SnapshotEvery = TimeSpan.FromMinutes 10.0
        SnapshotChanges = 2_000
        CrossedFor = TimeSpan.FromSeconds 2.0
        CheckpointEvery = TimeSpan.FromSeconds 5.0
    }

/// What is to be done about a live book, from the gentlest to the roughest.
[<RequireQualifiedAccess>]
type DepthOrder =
    /// Ask for the whole books of these tokens, and tell `Polled` what came.
    | Compare of TokenId list
    /// Ask for the whole books of these tokens on this connection once more.
    | Renew of connection: int * TokenId list
    /// Subscribe on another connection; when the book has come there, the old subscription is dropped.
    | Move of TokenId
    /// The token's book comes over another connection now: the subscription on this one is over.
    | Unsubscribe of connection: int * TokenId
    /// Replace the connection, with all its tokens: it says nothing any more.
    | Rotate of connection: int

/// What was counted over all books.
[<Sealed>]
type DepthCounts() =
    /// Changes of a level, new ones.
    member val Changes = 0L with get, set
    /// Updates that came again, or left the level as it was.
    member val Repeats = 0L with get, set
    /// Updates that are older than the book.
    member val Late = 0L with get, set
    /// Updates of a token whose first book has not come.
    member val Early = 0L with get, set
    /// States whose hash, poll or mirror agreed.
    member val Verified = 0L with get, set
    /// States of which nothing was found out.
    member val Unverifiable = 0L with get, set
    /// States that a proof disagreed with.
    member val Mismatched = 0L with get, set
    /// Best prices that were not those of the book: with a change, of one that its hash proved; by themselves, of one that stayed different.
    member val WrongBest = 0L with get, set
    /// Polls that agreed with the stream.
    member val Agreed = 0L with get, set
    /// Books that stayed crossed.
    member val Crossed = 0L with get, set
    member val GapsOpened = 0L with get, set
    member val GapsClosed = 0L with get, set

/// An update that is kept while its book is not proven: what a poll brings is older than what came since.
type private Held = {
    HeldAt: Instant
    HeldSide: Side
    HeldPrice: int64
    HeldSize: int64
    HeldHash: byte[]
}

/// What an update said: a part of its hash, and of the change itself (nothing of it for a whole book, which says all), and the message
/// that it came with. The hash alone would not do: a change that undoes an earlier one of its millisecond leads to the same book.
[<Struct>]
type private Said = {
    Key: uint64
    Change: int
    Message: int
}

/// Changes that came before in their millisecond, word for word, or that lead back to an earlier state of it: a second delivery, or made
/// again. The next hash tells. Their places among the changes of their millisecond are kept for them.
type private Repeated = { Changes: Held list; Place: int }

/// A whole book that differs from the one before by what a taker took, as long as the fills for it are not all known.
[<Struct>]
type private Sweep = {
    SweptAt: Instant
    /// The total of all levels together.
    Taken: int64
    /// Levels that were touched: of each, makers may have taken back a rest that is too small.
    Touched: int
    /// The last proven state before it.
    GoodBefore: Instant
    Since: Instant
}

/// What a new connection said of a book that the old one is still telling of: its first whole book, which is ahead, and what followed.
type private Handover = {
    BookAt: Instant
    BookHash: byte[]
    BookBids: Level[]
    BookAsks: Level[]
    BookIsProven: bool
    HeardAt: Instant
    Following: List<Held>
}

/// What every change of a book looks at, side by side: with thousands of tokens each further place would be a wait for memory.
[<Struct; NoComparison; NoEquality>]
type private Hot =
    val mutable At: Instant
    val mutable SnapshotAt: Instant
    val mutable Ordinal: int
    val mutable Sequence: int
    val mutable HashLength: int
    val mutable Connection: int
    val mutable Next: int
    val mutable LatelyNext: int
    val mutable Seen: int
    val mutable Fresh: int
    val mutable Failed: int
    val mutable Unchecked: int
    val mutable SinceSnapshot: int
    val mutable Verdict: Verdict
    val mutable Doubt: Doubt
    val mutable IsReady: bool
    val mutable Owes: Reason voption
    val mutable SuspectSince: Instant voption
    val mutable CrossedSince: Instant voption
    val mutable Mirrored: Instant voption
    val mutable Gap: (struct (Instant * Cause)) voption
    val mutable Ahead: (struct (Instant * Instant)) voption

/// One token's live book, and what is known about it.
[<Sealed; AllowNullLiteral>]
type private Tracked
    (market: MarketId, token: TokenId, marketName: Name, tokenName: Name, mode: DepthMode, proof: BookProof) =
    let mutable hot = Hot()
    let mutable hash: byte[] = Array.Empty()

    do
        hot.Verdict <- Verdict.Unverifiable
        hot.Doubt <- Doubt.Missed
        hot.Fresh <- -1
        hot.Connection <- -1
        hot.Next <- -1

    member _.Market = market
    member _.Token = token
    member _.MarketName = marketName
    member _.TokenName = tokenName
    member _.Mode = mode
    member _.Proof = proof

    /// Whether the proof knows enough to tell; set with each description.
    member _.IsReady
        with get () = hot.IsReady
        and set value = hot.IsReady <- value

    member val Complement: Tracked = null with get, set
    /// The fills of the market, both tokens' together.
    member val Fills = Fills() with get, set
    /// Those before this one have explained an earlier change.
    member val FillsUsed = 0L with get, set
    member val Sweeps: List<Sweep> | null = null with get, set
    /// Nothing before the first book.
    member val Book: Book | null = null with get, set

    /// When the book last changed, by the exchange's clock.
    member _.At
        with get () = hot.At
        and set value = hot.At <- value

    /// How many changes there were in that millisecond.
    member _.Ordinal
        with get () = hot.Ordinal
        and set value = hot.Ordinal <- value

    /// The exchange's number of the last message that told of the book; 0 where it numbers none.
    member _.Sequence
        with get () = hot.Sequence
        and set value = hot.Sequence <- value

    /// The exchange's hash of the book, as text; empty when it gave none.
    member _.Hash
        with get () = ReadOnlySpan<byte>(hash, 0, hot.HashLength)
        and set (text: ReadOnlySpan<byte>) =
            if hash.Length < text.Length then
                hash <- Array.zeroCreate text.Length

            text.CopyTo(Span hash)
            hot.HashLength <- text.Length

    member _.Verdict
        with get () = hot.Verdict
        and set value = hot.Verdict <- value

    member _.Doubt
        with get () = hot.Doubt
        and set value = hot.Doubt <- value

    /// The last state that was proven.
    member val GoodAt: Instant voption = ValueNone with get, set
    /// The first book of all.
    member val FirstAt = Instant.ofMicros 0L with get, set
    member val GoodSince: Instant voption = ValueNone with get, set
    /// Microseconds that tell apart the holes that begin with the same proven state: one for each that turned out to be none.
    member val Unchanged = 0L with get, set

    /// The hole since then.
    member _.Gap
        with get () = hot.Gap
        and set value = hot.Gap <- value

    /// Since when (our clock) hashes disagree without a better explanation.
    member _.SuspectSince
        with get () = hot.SuspectSince
        and set value = hot.SuspectSince <- value

    /// States since the last proven one whose proof disagreed: one that is proven later does not prove these.
    member _.Failed
        with get () = hot.Failed
        and set value = hot.Failed <- value

    /// An update came late since then, and was not what the book lacked: it is not recorded.
    member val IsMissing = false with get, set
    /// The first of them.
    member val FailedAt = Instant.ofMicros 0L with get, set

    member _.Unchecked
        with get () = hot.Unchecked
        and set value = hot.Unchecked <- value

    /// The latest updates, a ring; so many of them are of this millisecond.
    member val Lately: Said[] = Array.Empty() with get, set

    member _.LatelyNext
        with get () = hot.LatelyNext
        and set value = hot.LatelyNext <- value

    member _.Seen
        with get () = hot.Seen
        and set value = hot.Seen <- value

    /// A message that says something new: what it repeats of this millisecond is then said on purpose.
    member _.Fresh
        with get () = hot.Fresh
        and set value = hot.Fresh <- value

    member val Held: List<Held> | null = null with get, set
    member val Repeated: Repeated voption = ValueNone with get, set

    /// The connection that it is subscribed on, and the one that it is about to move to; -1 is none.
    member _.Connection
        with get () = hot.Connection
        and set value = hot.Connection <- value

    member _.Next
        with get () = hot.Next
        and set value = hot.Next <- value

    /// The new connection is ahead; the old one may catch up.
    member val Handover: Handover voption = ValueNone with get, set
    /// Since when (our clock) the first book of the newest subscription is waited for.
    member val Awaits: Instant voption = ValueNone with get, set

    /// A poll showed a later state than the stream: its moment, and since when (our clock) that is known.
    member _.Ahead
        with get () = hot.Ahead
        and set value = hot.Ahead <- value

    member val ComparedAt = Instant.ofMicros 0L with get, set
    /// The last step of the ladder that was taken, and when.
    member val Rung = 0 with get, set
    member val RungAt = Instant.ofMicros 0L with get, set

    member _.SnapshotAt
        with get () = hot.SnapshotAt
        and set value = hot.SnapshotAt <- value

    member _.SinceSnapshot
        with get () = hot.SinceSnapshot
        and set value = hot.SinceSnapshot <- value

    /// A whole book is to be stored as soon as a message is over: so its place among the changes of its millisecond is behind those that
    /// came before it.
    member _.Owes
        with get () = hot.Owes
        and set value = hot.Owes <- value

    /// When its tick size changed.
    member val TickAt = Instant.ofMicros 0L with get, set

    /// The complementary token had a whole book of this moment, which is later than ours: ours was another one then, too.
    member _.Mirrored
        with get () = hot.Mirrored
        and set value = hot.Mirrored <- value

    member _.CrossedSince
        with get () = hot.CrossedSince
        and set value = hot.CrossedSince <- value

    member val IsCrossed = false with get, set
    /// Changed since the last checkpoint.
    member val IsDirty = false with get, set
    member val IsOver = false with get, set

    /// Reads a little here and there, so that it is near when it is needed; the answer means nothing.
    member t.Glance: int64 =
        hot.At.Micros
        + (if hot.Ahead.IsSome then 1L else 0L)
        + (if t.Handover.IsSome then 1L else 0L)

/// Live order books with their proofs, as a function of what connections and polls say and of the moments at which they say it.
///
/// A state of a book is `Verified` when the hash of the whole book, a poll, or the proven mirror agreed with that very state. What
/// is between two proven states and was not checked is `Unverifiable`; when a proof disagrees, or updates are known to be missing,
/// a gap begins at the last proven state, and ends with the next one. All its rows go to the batch that the caller owns.
[<Sealed>]
type Depth(exchange: ExchangeId, part: StreamPart, rules: DepthRules, names: Names) =
    static let sides = [| Side.Buy; Side.Sell |]
    // The levels of a sweep: used again and again.
    let touched = List<struct (Side * int64 * int64)>()
    let counts = DepthCounts()
    let orders = List<DepthOrder>()
    let tracked = Dictionary<string, Tracked>()
    // Up to when the tokens that are not followed any more were proven: they may come back.
    let left = Dictionary<string, struct (Instant * Instant)>()
    // By the name of the token; the books once more, so that the way to a book is short.
    let mutable byName: Tracked[] = Array.zeroCreate 1024
    let mutable books: (Book | null)[] = Array.zeroCreate 1024
    // When a connection last said something about any book.
    let heard = Dictionary<int, Instant>()
    // Up to which moment of the exchange's clock every message of a numbered connection came.
    let reached = Dictionary<int, Instant>()
    let rotating = HashSet<int>()
    // Of a token, best prices that its book did not have when they were told, and since when (our clock) it was told of some.
    let differing = Dictionary<int, struct (int64 * int64 * Instant)>()
    // One hash in so many changes of a token is computed.
    let mutable every = 1
    let mutable checkpointed = Instant.ofMicros 0L
    // Of no meaning: see `approach`.
    let mutable nearness = 0L

    let find (token: Name) : Tracked =
        if token.Key < byName.Length then
            byName[token.Key]
        else
            null

    /// With thousands of books the way to one is a chain of waits for memory, and a message tells of both tokens of its market. Looked
    /// at first, one step for all of them after the other, they come at the same time.
    let approach (events: Rows<StreamEvent>) =
        let mutable sum = nearness

        for i in 0 .. events.Count - 1 do
            let key = events[i].Token.Key

            if key < byName.Length then
                match byName[key] with
                | null -> ()
                | t -> sum <- sum + t.Glance

                match books[key] with
                | null -> ()
                | book -> sum <- sum + book.BestBid

        for i in 0 .. events.Count - 1 do
            let key = events[i].Token.Key

            if key < byName.Length then
                match books[key] with
                | null -> ()
                | book -> sum <- sum + book.Glance events[i].Side

        nearness <- sum

    let jobOf (t: Tracked) =
        $"{exchange}/{Stream.Depth}/{t.Market}/{t.Token}"

    let gapRow (t: Tracked) (struct (since, cause)) until healed : Gap = {
        Exchange = exchange
        Stream = Stream.Depth
        Market = t.Market
        Token = ValueSome t.Token
        Since = since
        Until = until
        Cause = cause
        Healed = healed
    }

    // ---- rows

    let levelsOf mode =
        match mode with
        | DepthMode.Top n -> n
        | _ -> Int32.MaxValue

    let snapshot (t: Tracked) (book: Book) reason (received: Instant) (out: Batch) =
        if t.Mode <> DepthMode.Off then
            let n = levelsOf t.Mode
            let first = out.Levels.Count
            book.CopyTo(Side.Buy, n, out.Levels)
            let middle = out.Levels.Count
            book.CopyTo(Side.Sell, n, out.Levels)
            let bids, asks = middle - first, out.Levels.Count - middle

            let flags =
                if bids = 0 && asks = 0 then Flags.Empty
                elif bids = 0 || asks = 0 then Flags.OneSided
                elif not t.IsCrossed then Flags.None
                elif book.BestBid = book.BestAsk then Flags.Locked
                else Flags.Crossed

            let row: BookRow = {
                Market = t.MarketName
                Token = t.TokenName
                At = t.At
                Received = received
                FirstBid = first
                BidCount = bids
                FirstAsk = middle
                AskCount = asks
                Hash = out.Keep(t.Hash)
                Tick = Price.zero
                LastTrade = { Start = 0; Length = -1 }
                Sequence = t.Sequence
                Verdict = t.Verdict
                Doubt = t.Doubt
                Reason = reason
                Flags = flags
                Inserted = false
            }

            out.Books.Add &row

        t.SnapshotAt <- received
        t.SinceSnapshot <- 0

    let delta (t: Tracked) (side: Side) (price: int64) (size: int64) (received: Instant) (out: Batch) =
        let row: DeltaRow = {
            Market = t.MarketName
            Token = t.TokenName
            At = t.At
            Received = received
            Ordinal = t.Ordinal
            Sequence = t.Sequence
            Side = side
            Price = Price.ofMillionths price
            Size = Size.trusted size
            Hash = out.Keep(t.Hash)
            Verdict = t.Verdict
            Doubt = t.Doubt
            Inserted = false
        }

        out.Deltas.Add &row
        t.Ordinal <- t.Ordinal + 1

    // ---- what is known

    let count (t: Tracked) =
        match t.Verdict with
        | Verdict.Verified -> counts.Verified <- counts.Verified + 1L
        | Verdict.Mismatched -> counts.Mismatched <- counts.Mismatched + 1L
        | _ -> counts.Unverifiable <- counts.Unverifiable + 1L

    /// The state is proven. An open gap ends with it. `isExplained` says that a state whose proof had disagreed is this one: what was missing
    /// was the price of a fill.
    let prove (t: Tracked) isExplained (received: Instant) (out: Batch) =
        let unexplained = if isExplained then t.Failed - 1 else t.Failed

        // States between the proven ones were not what the exchange had, and nobody noticed which update was missing.
        if unexplained > 0 && t.Gap.IsNone then
            let since =
                match t.GoodAt with
                | ValueSome good -> good + TimeSpan(10L * t.Unchanged)
                | ValueNone -> t.FirstAt

            t.Gap <- ValueSome(struct (since, Cause.Mismatch))
            counts.GapsOpened <- counts.GapsOpened + 1L

        t.Failed <- 0
        t.IsMissing <- false
        t.Repeated <- ValueNone
        t.Verdict <- Verdict.Verified
        t.Doubt <- Doubt.None
        t.SuspectSince <- ValueNone
        t.Unchecked <- 0
        t.IsDirty <- true

        match t.Held with
        | null -> ()
        | held -> held.Clear()

        match t.Gap with
        | ValueNone ->
            match t.GoodAt with
            | ValueSome good when good.Micros = t.At.Micros -> ()
            | _ -> t.Unchanged <- 0L
        | ValueSome(struct (since, _) as gap) ->
            t.Unchanged <-
                if t.At.Micros <= since.Micros then
                    min 900L (t.Unchanged + 1L)
                else
                    0L

            // Nothing had changed meanwhile: the book is still as it was at its beginning.
            let healed =
                if t.At.Micros <= since.Micros then
                    ValueSome(struct (received, "unchanged"))
                else
                    ValueNone

            out.Gaps.Add(gapRow t gap (ValueSome(max since t.At)) healed)
            counts.GapsClosed <- counts.GapsClosed + 1L
            t.Gap <- ValueNone
            t.Rung <- 0

        if t.GoodSince.IsNone then
            t.GoodSince <- ValueSome t.At

        t.GoodAt <- ValueSome t.At

    /// The state is not known to be true any more: a gap begins at the last one that was.
    let doubt (t: Tracked) verdict doubt cause (now: Instant) (out: Batch) =
        t.Verdict <- verdict
        t.Doubt <- doubt
        t.Repeated <- ValueNone

        if t.Gap.IsNone then
            let since =
                match t.GoodAt, t.Awaits with
                | ValueSome good, _ -> good + TimeSpan(10L * t.Unchanged)
                | ValueNone, ValueSome subscribed -> subscribed
                | ValueNone, ValueNone -> now

            let gap = struct (since, cause)
            t.Gap <- ValueSome gap
            out.Gaps.Add(gapRow t gap ValueNone ValueNone)
            counts.GapsOpened <- counts.GapsOpened + 1L
            t.Rung <- 0
            t.RungAt <- now

    /// The next step for a book that is not proven.
    let climb (t: Tracked) (now: Instant) =
        t.Rung <- t.Rung + 1
        t.RungAt <- now

        match t.Rung with
        | 1 when not part.IsNumbered && not (isNull t.Book) -> orders.Add(DepthOrder.Compare [ t.Token ])
        | n when n % 3 <> 0 && t.Connection >= 0 -> orders.Add(DepthOrder.Renew(t.Connection, [ t.Token ]))
        | _ when t.Connection >= 0 -> orders.Add(DepthOrder.Move t.Token)
        | _ -> ()

    /// A proof disagrees for good.
    let fail (t: Tracked) reason (received: Instant) (out: Batch) =
        let isNews = t.Gap.IsNone
        doubt t Verdict.Mismatched reason Cause.Mismatch received out

        if isNews then
            climb t received

    /// Best prices that were told by themselves. They may come before the change that leads to them: only when they stay different from the
    /// book's is a poll asked for, which decides.
    let witness (t: Tracked) (bid: int64) (ask: int64) (received: Instant) =
        match t.Book with
        | null -> ()
        | book when book.BestBid = bid && book.BestAsk = ask -> differing.Remove t.TokenName.Key |> ignore
        | _ ->
            let since =
                match differing.TryGetValue t.TokenName.Key with
                | true, struct (_, _, since) -> since
                | _ -> received

            differing[t.TokenName.Key] <- struct (bid, ask, since)

    /// The stream has been behind a poll for too long.
    let starve (t: Tracked) since (now: Instant) (out: Batch) =
        t.Ahead <- ValueNone
        doubt t Verdict.Unverifiable Doubt.Missed Cause.Starved now out

        let isSilent =
            match heard.TryGetValue t.Connection with
            | true, last -> last < since
            | _ -> false

        // Nothing came over the whole connection since then.
        if isSilent && t.Connection >= 0 && rotating.Add t.Connection then
            orders.Add(DepthOrder.Rotate t.Connection)
        else
            t.Rung <- 1
            climb t now

    let keyOf (hash: ReadOnlySpan<byte>) =
        if hash.Length < 16 then
            0UL
        else
            System.Buffers.Binary.BinaryPrimitives.ReadUInt64LittleEndian hash
            ^^^ (System.Buffers.Binary.BinaryPrimitives.ReadUInt64LittleEndian(hash.Slice 8)
                 * 0x9E3779B97F4A7C15UL)

    let ring = 128

    /// What stands for a change beside its hash.
    let said (side: Side) (price: int64) (size: int64) =
        let mixed =
            (uint64 price * 4UL + uint64 side) * 0x9E3779B97F4A7C15UL
            ^^^ uint64 size * 0xC2B2AE3D27D4EB4FUL

        int (mixed >>> 32) ||| 1

    /// What stands for a whole book.
    let whole = 0

    let isSame (one: Said) key change =
        one.Key = key && (one.Change = change || one.Change = whole || change = whole)

    /// Whether this update came lately.
    let isKnown (t: Tracked) (key: uint64) change =
        let mutable i, found = 0, false

        while not found && i < t.Lately.Length do
            found <- isSame t.Lately[i] key change
            i <- i + 1

        found

    let failed (t: Tracked) =
        if t.Failed = 0 then
            t.FailedAt <- t.At

        t.Failed <- t.Failed + 1

    /// Whether an earlier message of this millisecond said this.
    let isSeen (t: Tracked) (key: uint64) change message =
        let mutable i, found = 1, false

        while not found && i <= t.Seen do
            let one = t.Lately[(t.LatelyNext - i) &&& (ring - 1)]
            found <- one.Message <> message && isSame one key change
            i <- i + 1

        found

    let see (t: Tracked) (key: uint64) change message =
        if t.Lately.Length = 0 then
            t.Lately <- Array.zeroCreate ring

        t.Lately[t.LatelyNext] <-
            {
                Key = key
                Change = change
                Message = message
            }

        t.LatelyNext <- (t.LatelyNext + 1) &&& (ring - 1)
        t.Seen <- min ring (t.Seen + 1)

    /// Whether the message of this event says something of the token that no earlier one of this millisecond said.
    let isFresh (t: Tracked) (events: Rows<StreamEvent>) (from: int) (bytes: ReadOnlySpan<byte>) =
        let message = events[from].Message
        let mutable i, found = from, false

        while not found && i < events.Count && events[i].Message = message do
            let event = &events[i]

            if event.Token.Key = t.TokenName.Key then
                let hash = bytes.Slice(event.Hash.Start, event.Hash.Length)
                found <- not (isSeen t (keyOf hash) (said event.Side event.Price event.Size) message)

            i <- i + 1

        found

    let mostHeld = 512

    let hold (t: Tracked) at side price size (hash: ReadOnlySpan<byte>) =
        let held =
            match t.Held with
            | null ->
                let made = List()
                t.Held <- made
                made
            | held -> held

        // Too many of them are of no use: the first book comes, or the ladder goes on.
        if held.Count = mostHeld then
            held.RemoveRange(0, mostHeld / 2)

        held.Add {
            HeldAt = at
            HeldSide = side
            HeldPrice = price
            HeldSize = size
            HeldHash = hash.ToArray()
        }

    /// What is stored of a change, with the verdict on the book after it.
    let store (t: Tracked) (book: Book) side price size (rank: int) (had: int64) received (out: Batch) =
        t.SinceSnapshot <- t.SinceSnapshot + 1

        match t.Mode with
        | DepthMode.Full -> delta t side price size received out
        | DepthMode.Top n ->
            if rank < n then
                delta t side price size received out
                let levels = book.Levels side

                if size = 0L && levels.Length >= n then
                    let entered = levels[levels.Length - n]
                    delta t side entered.Price.Millionths entered.Size.Millionths received out
                elif had = 0L && levels.Length > n then
                    let left = levels[levels.Length - 1 - n]
                    delta t side left.Price.Millionths 0L received out
        | DepthMode.Snapshots
        | DepthMode.Off -> ()

        if
            t.Verdict = Verdict.Verified
            && (t.SinceSnapshot >= rules.SnapshotChanges
                || received.Micros - t.SnapshotAt.Micros > rules.SnapshotEvery.Ticks / 10L)
            && t.Owes.IsNone
        then
            t.Owes <- ValueSome Reason.Periodic

    /// Stores the whole book that is owed, when it is proven.
    let settle (t: Tracked) (book: Book) (received: Instant) (out: Batch) =
        match t.Owes with
        | ValueSome reason when t.Verdict = Verdict.Verified ->
            t.Owes <- ValueNone
            snapshot t book reason received out
        | _ -> ()

    /// A book that stays crossed is remarkable.
    let watchCrossing (t: Tracked) (book: Book) (received: Instant) =
        if book.IsCrossed then
            match t.CrossedSince with
            | ValueNone -> t.CrossedSince <- ValueSome received
            | ValueSome since when not t.IsCrossed && Instant.hasPassed rules.CrossedFor since received ->
                t.IsCrossed <- true
                counts.Crossed <- counts.Crossed + 1L
            | _ -> ()
        elif t.CrossedSince.IsSome then
            t.CrossedSince <- ValueNone
            t.IsCrossed <- false

    /// A change that is older than the book. Should it be a repeat after all, it is one of a row that is there.
    let late
        (t: Tracked)
        at
        ordinal
        (side: Side)
        (price: int64)
        (size: int64)
        (hash: ReadOnlySpan<byte>)
        received
        (out: Batch)
        =
        let row: DeltaRow = {
            Market = t.MarketName
            Token = t.TokenName
            At = at
            Received = received
            Ordinal = ordinal
            Sequence = 0
            Side = side
            Price = Price.ofMillionths price
            Size = Size.trusted size
            Hash = out.Keep hash
            Verdict = Verdict.Unverifiable
            Doubt = Doubt.NotChecked
            Inserted = false
        }

        out.Deltas.Add &row

    /// Something came late that nobody missed. What overtook it overwrote it, so the book is right; what it was in between is not
    /// recorded.
    let overtaken (t: Tracked) (book: Book) (at: Instant) (received: Instant) (out: Batch) =
        let gap = struct (at, Cause.Mismatch)
        out.Gaps.Add(gapRow t gap (ValueSome t.At) ValueNone)
        counts.GapsOpened <- counts.GapsOpened + 1L
        counts.GapsClosed <- counts.GapsClosed + 1L
        snapshot t book Reason.Resync received out

    /// A second delivery, or made again: until the next hash tells, the book is in doubt. Of a book whose changes are not all stored
    /// nothing is made again.
    let repeated (t: Tracked) (changes: Held list) (received: Instant) =
        failed t
        t.Verdict <- Verdict.Unverifiable
        t.Doubt <- Doubt.Ambiguous

        if t.Mode = DepthMode.Full then
            t.Repeated <- ValueSome { Changes = changes; Place = t.Ordinal }

            t.Ordinal <- t.Ordinal + changes.Length

        if t.SuspectSince.IsNone then
            t.SuspectSince <- ValueSome received

    /// Whether the book has this hash once the repeated changes are made again; they are taken back when not.
    let wasMadeAgain (t: Tracked) (book: Book) at (hash: ReadOnlySpan<byte>) price =
        match t.Repeated with
        | ValueSome { Changes = changes } when t.Gap.IsNone ->
            let before =
                changes |> List.map (fun change -> book.Size(change.HeldSide, change.HeldPrice))

            for change in changes do
                book.Set(change.HeldSide, change.HeldPrice, change.HeldSize) |> ignore

            let isIt = t.Proof.Agrees(book, at, hash, price)

            if not isIt then
                for change, had in List.zip changes before do
                    book.Set(change.HeldSide, change.HeldPrice, had) |> ignore

            isIt
        | _ -> false

    /// One change of a book that is there. `message` tells the entries of one message from those of others.
    let change
        (t: Tracked)
        (book: Book)
        (at: Instant)
        message
        side
        price
        size
        bestBid
        bestAsk
        (hash: ReadOnlySpan<byte>)
        isLast
        (received: Instant)
        (out: Batch)
        =
        let key, said = keyOf hash, said side price size

        if at.Micros < t.At.Micros then
            counts.Late <- counts.Late + 1L

            // Overtaken on its way, if it is no repeat. Its row has its place in time all the same, and where it is what a doubted
            // book lacked, nothing is missing any more.
            if key <> 0UL && t.Gap.IsNone && t.Mode = DepthMode.Full then
                let had = book.Size(side, price)

                if t.Failed > 0 && had = size then
                    t.IsMissing <- t.IsMissing || not (isKnown t key said)
                elif
                    t.Failed > 0
                    && book.Set(side, price, size)
                    && not (t.Hash.Length > 0 && t.IsReady && t.Proof.Agrees(book, t.At, t.Hash, price))
                then
                    book.Set(side, price, had) |> ignore
                    t.IsMissing <- t.IsMissing || not (isKnown t key said)
                elif t.Failed > 0 then
                    late t at 0 side price size hash received out
                    // It explains what it preceded; what failed before it lacked something else.
                    let isAll = at <= t.FailedAt && not t.IsMissing

                    if isAll then
                        t.Failed <- 0

                    prove t false received out

                    if not isAll then
                        snapshot t book Reason.Resync received out
                elif t.Failed = 0 && t.Verdict = Verdict.Verified && not (isKnown t key said) then
                    overtaken t book at received out
        elif
            at.Micros = t.At.Micros
            && key <> 0UL
            && t.Fresh <> message
            && isSeen t key said message
        then
            // It came before: a second delivery. Where it would change the book, it may also be the same change made again.
            counts.Repeats <- counts.Repeats + 1L

            if t.Verdict = Verdict.Verified && isLast && book.Size(side, price) <> size then
                repeated
                    t
                    [
                        {
                            HeldAt = at
                            HeldSide = side
                            HeldPrice = price
                            HeldSize = size
                            HeldHash = hash.ToArray()
                        }
                    ]
                    received
        else
            match t.Mirrored with
            | ValueSome moment ->
                t.Mirrored <- ValueNone

                // What the mirror showed did not come.
                if moment.Micros > t.At.Micros && moment.Micros < at.Micros && t.Gap.IsNone then
                    failed t
            | ValueNone -> ()

            let isNew = at.Micros > t.At.Micros

            if isNew then
                t.At <- at
                t.Ordinal <- 0
                t.Seen <- 0

            if key <> 0UL then
                see t key said message

            t.Fresh <- message

            let rank, had =
                match t.Mode with
                | DepthMode.Top _ -> book.Rank(side, price), book.Size(side, price)
                | _ -> 0, 0L

            let isChanged = book.Set(side, price, size)
            t.Hash <- hash

            if isChanged then
                counts.Changes <- counts.Changes + 1L
            else
                counts.Repeats <- counts.Repeats + 1L

            let isBest =
                (bestBid < 0L || bestBid = book.BestBid)
                && (bestAsk < 0L || bestAsk = book.BestAsk)

            let hasProof = hash.Length > 0 && t.IsReady

            let isBroken = t.Gap.IsSome || t.Failed > 0

            if not hasProof then
                // The mirror is what is left; a best price that disagrees is proof of the contrary.
                let isMirrored =
                    match t.Complement with
                    | null -> false
                    | other when other.Verdict = Verdict.Verified && other.At = at ->
                        match other.Book with
                        | null -> false
                        | mirror -> book.IsMirrorOf mirror
                    | _ -> false

                if isMirrored then
                    prove t false received out

                    if isBroken then
                        t.Owes <- ValueSome Reason.Resync
                elif not isBest && isLast then
                    failed t
                    fail t Doubt.BestPrice received out
                elif t.Gap.IsNone then
                    t.Verdict <- Verdict.Unverifiable
                    t.Doubt <- Doubt.NoHash
            elif not isBroken && t.SuspectSince.IsNone && isBest && t.Unchecked + 1 < every then
                t.Unchecked <- t.Unchecked + 1
                t.Verdict <- Verdict.Unverifiable
                t.Doubt <- Doubt.NotChecked
            elif t.Proof.Agrees(book, at, hash, price) then
                if not isBest then
                    counts.WrongBest <- counts.WrongBest + 1L

                // A hash of all other levels shows that a repeated change was a second delivery.
                let isExplained =
                    match t.Repeated with
                    | ValueSome again ->
                        again.Changes
                        |> List.forall (fun change -> change.HeldSide <> side || change.HeldPrice <> price)
                    | ValueNone -> false

                let isHole = t.Gap.IsSome || t.Failed > (if isExplained then 1 else 0)
                prove t isExplained received out

                if isHole then
                    t.Owes <- ValueSome Reason.Resync
            elif isLast && t.Repeated.IsSome && wasMadeAgain t book at hash price then
                // So it is no second delivery: their rows have their places.
                let again = t.Repeated.Value

                for i, change in List.indexed again.Changes do
                    late
                        t
                        change.HeldAt
                        (again.Place + i)
                        change.HeldSide
                        change.HeldPrice
                        change.HeldSize
                        (ReadOnlySpan change.HeldHash)
                        received
                        out

                let isHole = t.Failed > 1
                prove t true received out

                if isHole then
                    t.Owes <- ValueSome Reason.Resync
            elif not isLast then
                if t.Gap.IsNone then
                    t.Verdict <- Verdict.Unverifiable
                    t.Doubt <- Doubt.NotChecked
            elif t.Gap.IsNone then
                failed t
                t.Verdict <- Verdict.Unverifiable
                t.Doubt <- Doubt.Pending

                match t.SuspectSince with
                | ValueNone when isBest -> t.SuspectSince <- ValueSome received
                | ValueSome since when isBest && not (Instant.hasPassed rules.Grace since received) -> ()
                | _ -> fail t (if isBest then Doubt.Hash else Doubt.BestPrice) received out

            if t.Failed > 0 || t.Gap.IsSome then
                hold t at side price size hash

            match t.Ahead with
            | ValueSome(struct (ahead, _)) when at.Micros >= ahead.Micros -> t.Ahead <- ValueNone
            | _ -> ()

            watchCrossing t book received
            count t

            // What leaves its level as it was, at a moment of its own, may take back a change that never came: its row says so. See
            // `History.bookAt`.
            let mayTakeBack =
                isNew && hasProof && t.Failed = 0 && t.Gap.IsNone && t.Mode = DepthMode.Full

            if isChanged || mayTakeBack then
                store t book side price size rank had received out

            if isLast then
                settle t book received out

    /// A change of a book whose messages are numbered: none is missing, or its book would be in a gap.
    let shift (t: Tracked) (book: Book) (event: inref<StreamEvent>) (received: Instant) (out: Batch) =
        let had = book.Size(event.Side, event.Price)
        let total = had + event.Size

        if total < 0L then
            // More went than was there.
            fail t Doubt.Negative received out
        elif event.Size <> 0L then
            let rank =
                match t.Mode with
                | DepthMode.Top _ -> book.Rank(event.Side, event.Price)
                | _ -> 0

            let before = t.At
            // Clocks do not decide what came first: numbers do.
            t.At <- max t.At event.At
            t.Ordinal <- event.Sequence
            t.Sequence <- event.Sequence
            let wasCrossed = t.CrossedSince.IsSome && event.At.Micros > before.Micros
            book.Set(event.Side, event.Price, total) |> ignore
            counts.Changes <- counts.Changes + 1L
            prove t false received out
            t.Ahead <- ValueNone
            watchCrossing t book received

            // Bids above asks that outlive their moment: it is our book that is wrong.
            if wasCrossed && book.IsCrossed then
                t.GoodAt <- ValueSome before
                fail t Doubt.BestPrice received out

            count t
            store t book event.Side event.Price total rank had received out
            settle t book received out

    // ---- books that come after fills

    /// Whether a side, best first, is what is left of ours when a taker took from the best on: how much was taken, from how many
    /// levels. Nothing when it is anything else.
    let swept (worst: ReadOnlySpan<Level>) (left: ReadOnlySpan<Level>) : (struct (int64 * int)) voption =
        let count = worst.Length
        let mutable ours, theirs = 0, 0
        let mutable taken, touched = 0L, 0
        let mutable ok = left.Length <= count
        // What is gone altogether.
        let gone = count - left.Length

        while ok && ours < gone do
            taken <- taken + worst[count - 1 - ours].Size.Millionths
            touched <- touched + 1
            ours <- ours + 1

        while ok && theirs < left.Length do
            let before, now = worst[count - 1 - ours], left[theirs]

            if before.Price.Millionths <> now.Price.Millionths then
                ok <- false
            elif before.Size.Millionths <> now.Size.Millionths then
                if theirs = 0 && now.Size.Millionths < before.Size.Millionths then
                    taken <- taken + before.Size.Millionths - now.Size.Millionths
                    touched <- touched + 1
                else
                    ok <- false

            ours <- ours + 1
            theirs <- theirs + 1

        if ok then ValueSome(struct (taken, touched)) else ValueNone

    /// Whether a whole book is what a taker left of ours, on one side.
    let isSwept (book: Book) (bids: ReadOnlySpan<Level>) (asks: ReadOnlySpan<Level>) =
        match swept (book.Levels Side.Buy) bids, swept (book.Levels Side.Sell) asks with
        | ValueSome(struct (0L, _)), ValueSome _
        | ValueSome _, ValueSome(struct (0L, _)) -> true
        | _ -> false

    /// What a taker changed, into `touched`, in the order in which it was taken; answers how much that was.
    let touch (book: Book) (bids: ReadOnlySpan<Level>) (asks: ReadOnlySpan<Level>) : int64 =
        let mutable taken = 0L
        touched.Clear()

        for side in sides do
            let after = if side = Side.Buy then bids else asks
            let levels = book.Levels side
            let gone = levels.Length - after.Length
            let last = if after.Length = 0 then gone else gone + 1

            for k in 1..last do
                let level = levels[levels.Length - k]
                let size = if k <= gone then 0L else after[0].Size.Millionths

                if size <> level.Size.Millionths then
                    taken <- taken + level.Size.Millionths - size
                    touched.Add(struct (side, level.Price.Millionths, size))

        taken

    /// The most that a maker takes back of a level because it is too small to stand.
    let dust = 10_000L

    /// For so long are the fills of a sweep waited for: they come on their own, before or after it.
    let patienceForFills = TimeSpan.FromSeconds 2.0

    /// Whether fills that are known by now are what was taken.
    let isExplained (t: Tracked) (sweep: Sweep) =
        let fills = t.Fills
        let mutable from, found = max t.FillsUsed fills.First, false

        while not found && from < fills.Next do
            let mutable until, sum = from, 0L

            let near (fill: FillSeen) =
                abs (fill.FilledAt.Micros - sweep.SweptAt.Micros) <= 1_000_000L

            while not found && until < fills.Next && near fills[until] && sum <= sweep.Taken do
                sum <- sum + fills[until].Filled
                until <- until + 1L
                found <- sum <= sweep.Taken && sweep.Taken - sum <= dust * int64 sweep.Touched

            if found then t.FillsUsed <- until else from <- from + 1L

        found

    /// Nobody told of the fills: something else may have changed the book, too. From the last proven state before on, it was not
    /// known.
    let unexplained (t: Tracked) (book: Book) (sweep: Sweep) (received: Instant) (out: Batch) =
        if t.Gap.IsNone && t.Verdict = Verdict.Verified then
            let gap = struct (sweep.GoodBefore, Cause.Mismatch)
            out.Gaps.Add(gapRow t gap (ValueSome t.At) ValueNone)
            counts.GapsOpened <- counts.GapsOpened + 1L
            counts.GapsClosed <- counts.GapsClosed + 1L
            snapshot t book Reason.Resync received out
        else
            // It goes over into the hole that is open, or that is about to be.
            t.GoodAt <- ValueSome sweep.GoodBefore

            match t.Gap with
            | ValueSome(struct (since, cause)) when since > sweep.GoodBefore ->
                out.Gaps.Add(gapRow t (struct (sweep.GoodBefore, cause)) (ValueSome since) ValueNone)
                counts.GapsOpened <- counts.GapsOpened + 1L
                counts.GapsClosed <- counts.GapsClosed + 1L
            | _ -> ()

    let explainSweeps (t: Tracked) (now: Instant) (out: Batch) =
        match t.Sweeps, t.Book with
        | null, _
        | _, null -> ()
        | sweeps, book ->
            let mutable i = 0

            while i < sweeps.Count do
                let sweep = sweeps[i]

                if isExplained t sweep then
                    sweeps.RemoveAt i
                elif Instant.hasPassed patienceForFills sweep.Since now then
                    sweeps.RemoveAt i
                    unexplained t book sweep now out
                else
                    i <- i + 1

    /// Nobody waits for the fills any more.
    let giveUpSweeps (t: Tracked) (now: Instant) (out: Batch) =
        match t.Sweeps, t.Book with
        | null, _
        | _, null -> ()
        | sweeps, book ->
            for sweep in sweeps.ToArray() do
                if not (isExplained t sweep) then
                    unexplained t book sweep now out

            sweeps.Clear()

    /// Takes a whole book for the state, and applies what came after it.
    let adopt
        (t: Tracked)
        (at: Instant)
        (hash: ReadOnlySpan<byte>)
        (bids: ReadOnlySpan<Level>)
        (asks: ReadOnlySpan<Level>)
        isProven
        reason
        (received: Instant)
        (out: Batch)
        =
        let held =
            match t.Held with
            | null -> []
            // Overtaken ones have their place again.
            | held -> List.ofSeq held |> List.sortBy _.HeldAt

        let book =
            match t.Book with
            | null ->
                let made = Book()
                t.Book <- made
                books[t.TokenName.Key] <- made
                t.FirstAt <- at
                made
            | book -> book

        book.Load(bids, asks)

        if at <> t.At then
            t.At <- at
            t.Ordinal <- 0
            t.Seen <- 0

        t.Hash <- hash
        see t (keyOf hash) whole -1
        t.SuspectSince <- ValueNone
        t.Failed <- 0
        t.Repeated <- ValueNone

        if isProven || hash.Length > 0 && t.IsReady && t.Proof.Agrees(book, at, hash, -1L) then
            prove t false received out
        elif t.Gap.IsNone then
            t.Verdict <- Verdict.Unverifiable

            if hash.Length > 0 && t.IsReady then
                t.Failed <- 1
                t.Doubt <- Doubt.Pending
                t.SuspectSince <- ValueSome received
            else
                t.Doubt <- Doubt.NoHash

        count t
        snapshot t book reason received out

        // Of what came before it, only what is newer.
        for one in held do
            if one.HeldAt > at then
                change
                    t
                    book
                    one.HeldAt
                    -2
                    one.HeldSide
                    one.HeldPrice
                    one.HeldSize
                    -1L
                    -1L
                    (ReadOnlySpan one.HeldHash)
                    true
                    received
                    out

    /// The token's book comes over the new connection from now on.
    let switch (t: Tracked) =
        if t.Next >= 0 then
            if t.Connection >= 0 && t.Connection <> t.Next then
                orders.Add(DepthOrder.Unsubscribe(t.Connection, t.Token))

            t.Connection <- t.Next
            t.Next <- -1
            t.Awaits <- ValueNone

    /// The old connection has come as far as the new one began, so nothing is missing in between; or it never will.
    let handOver (t: Tracked) (now: Instant) isOver (out: Batch) =
        match t.Handover, t.Book with
        | ValueSome handover, NonNull book when t.At.Micros >= handover.BookAt.Micros ->
            t.Handover <- ValueNone
            switch t

            for one in List.ofSeq handover.Following |> List.sortBy _.HeldAt do
                change
                    t
                    book
                    one.HeldAt
                    -4
                    one.HeldSide
                    one.HeldPrice
                    one.HeldSize
                    -1L
                    -1L
                    (ReadOnlySpan one.HeldHash)
                    true
                    now
                    out
        | ValueSome handover, _ when isOver || Instant.hasPassed patienceForFills handover.HeardAt now ->
            t.Handover <- ValueNone
            doubt t Verdict.Unverifiable Doubt.Missed Cause.Starved now out
            switch t
            t.Held <- handover.Following

            adopt
                t
                handover.BookAt
                (ReadOnlySpan handover.BookHash)
                (ReadOnlySpan handover.BookBids)
                (ReadOnlySpan handover.BookAsks)
                handover.BookIsProven
                Reason.Resync
                now
                out
        | _ -> ()

    /// A whole book of an exchange that numbers its messages: it ends a gap, and otherwise says what is here already.
    let numberedBook
        (t: Tracked)
        (connection: int)
        (row: inref<BookRow>)
        (sequence: int)
        (from: Batch)
        received
        (out: Batch)
        =
        let bids: ReadOnlySpan<Level> =
            Span.op_Implicit (from.Levels.Slice(row.FirstBid, row.BidCount))

        let asks: ReadOnlySpan<Level> =
            Span.op_Implicit (from.Levels.Slice(row.FirstAsk, row.AskCount))

        let at = max t.At row.At

        // From here on it comes over the new connection.
        if t.Next = connection then
            switch t

        t.Awaits <- ValueNone
        t.Sequence <- sequence

        match t.Book with
        | null ->
            let reason = if t.Gap.IsSome then Reason.Resync else Reason.First
            adopt t at ReadOnlySpan.Empty bids asks true reason received out
        | _ when t.Gap.IsSome -> adopt t at ReadOnlySpan.Empty bids asks true Reason.Resync received out
        | book when book.Has(bids, asks) ->
            t.At <- at
            t.Ahead <- ValueNone
            prove t false received out
        | _ ->
            doubt t Verdict.Mismatched Doubt.Hash Cause.Mismatch received out
            adopt t at ReadOnlySpan.Empty bids asks true Reason.Resync received out

    let bookEvent
        (t: Tracked)
        (connection: int)
        (row: inref<BookRow>)
        (from: Batch)
        (received: Instant)
        (out: Batch)
        =
        let bids = from.Levels.Slice(row.FirstBid, row.BidCount)
        let asks = from.Levels.Slice(row.FirstAsk, row.AskCount)
        let bids: ReadOnlySpan<Level> = Span.op_Implicit bids
        let asks: ReadOnlySpan<Level> = Span.op_Implicit asks
        let hash = from.Utf8 row.Hash

        if row.LastTrade.Length >= 0 then
            t.Proof.Traded(from.Utf8 row.LastTrade)

        let isProven = row.Verdict = Verdict.Verified
        let isNext = t.Next = connection

        let isAhead =
            isNext && t.Gap.IsNone && not (isNull t.Book) && row.At.Micros > t.At.Micros

        // The first book of a move: the old subscription is not needed any more, once nothing can be missing in between.
        if isNext && not isAhead then
            switch t

        if t.Connection = connection then
            t.Awaits <- ValueNone

        match t.Book with
        | _ when isAhead ->
            if t.Handover.IsNone then
                t.Handover <-
                    ValueSome {
                        BookAt = row.At
                        BookHash = hash.ToArray()
                        BookBids = bids.ToArray()
                        BookAsks = asks.ToArray()
                        BookIsProven = isProven
                        HeardAt = received
                        Following = List()
                    }
        | null ->
            adopt
                t
                row.At
                hash
                bids
                asks
                isProven
                (if t.Gap.IsSome then Reason.Resync else Reason.First)
                received
                out
        // What the exchange had before the last proven state is no news, whoever sends it, unless it came late and is not known.
        | book when t.GoodAt.IsSome && row.At.Micros < t.GoodAt.Value.Micros ->
            let key = keyOf hash

            if
                t.Gap.IsNone
                && t.Verdict = Verdict.Verified
                && key <> 0UL
                && row.At.Micros > t.FirstAt.Micros
                && not (Instant.hasPassed patienceForFills row.At t.At)
                && not (isKnown t key whole)
            then
                see t key whole -1
                overtaken t book row.At received out
        | _ when t.Gap.IsSome -> adopt t row.At hash bids asks isProven Reason.Resync received out
        | _ when row.At.Micros < t.At.Micros -> () // what another connection had before, or what was overtaken
        | book when book.Has(bids, asks) ->
            // The exchange says the whole of what is here already.
            let isNew = row.At.Micros > t.At.Micros

            if isNew then
                t.At <- row.At
                t.Ordinal <- 0
                t.Seen <- 0

            t.Hash <- hash
            // Something came and went meanwhile that no change told of, unless it is the tick size that is new.
            let isHole = isNew && t.TickAt <> row.At

            if isHole then
                failed t

            if
                isProven
                || hash.Length > 0 && t.IsReady && t.Proof.Agrees(book, row.At, hash, -1L)
            then
                prove t false received out

                if isHole then
                    snapshot t book Reason.Resync received out
            elif isHole then
                t.Verdict <- Verdict.Unverifiable
                t.Doubt <- Doubt.Pending
                t.SuspectSince <- ValueSome received
        | book when row.At.Micros = t.At.Micros && isSeen t (keyOf hash) whole -3 ->
            // A state of this very millisecond that is past, unless a taker led back to it.
            if t.Verdict = Verdict.Verified && isSwept book bids asks then
                touch book bids asks |> ignore
                let at, text = row.At, hash.ToArray()

                repeated
                    t
                    [
                        for struct (side, price, size) in touched do
                            {
                                HeldAt = at
                                HeldSide = side
                                HeldPrice = price
                                HeldSize = size
                                HeldHash = text
                            }
                    ]
                    received
        | book when t.Failed = 0 && isSwept book bids asks ->
            // What a taker left of it: the exchange tells of that by a whole book.
            let before = t.GoodAt

            if row.At.Micros > t.At.Micros then
                t.At <- row.At
                t.Ordinal <- 0
                t.Seen <- 0

            t.Hash <- hash
            see t (keyOf hash) whole -1
            let taken = touch book bids asks

            for struct (side, price, size) in touched do
                book.Set(side, price, size) |> ignore

            counts.Changes <- counts.Changes + int64 touched.Count

            if
                isProven
                || hash.Length > 0 && t.IsReady && t.Proof.Agrees(book, row.At, hash, -1L)
            then
                prove t false received out

                let sweep = {
                    SweptAt = row.At
                    Taken = taken
                    Touched = touched.Count
                    GoodBefore = ValueOption.defaultValue t.At before
                    Since = received
                }

                if not (isExplained t sweep) then
                    match t.Sweeps with
                    | null ->
                        let made = List()
                        made.Add sweep
                        t.Sweeps <- made
                    | sweeps -> sweeps.Add sweep
            else
                failed t
                t.Verdict <- Verdict.Unverifiable
                t.Doubt <- Doubt.Pending
                t.SuspectSince <- ValueSome received

            // The verdict is on the whole of it: what is between is a part of one change.
            let verdict, doubt = t.Verdict, t.Doubt

            for i in 0 .. touched.Count - 1 do
                let struct (side, price, size) = touched[i]

                if i < touched.Count - 1 then
                    t.Verdict <- Verdict.Unverifiable
                    t.Doubt <- Doubt.NotChecked
                else
                    t.Verdict <- verdict
                    t.Doubt <- doubt

                store t book side price size 0 1L received out

            count t
        | _ ->
            // It differs from what the changes led to: something between the last proven state and this book did not come.
            doubt t Verdict.Mismatched Doubt.Hash Cause.Mismatch received out
            adopt t row.At hash bids asks isProven Reason.Resync received out

    /// Both tokens' books change at the same time: a whole book of one, even while its own hash waits for a fill, tells of the other's.
    let mirror (t: Tracked) =
        match t.Complement with
        | null -> ()
        | other when t.Gap.IsNone && other.Gap.IsNone && other.At.Micros < t.At.Micros ->
            match t.Book, other.Book with
            | NonNull book, NonNull theirs when not (theirs.IsMirrorOf book) ->
                other.Mirrored <- ValueSome t.At
            | _ -> ()
        | _ -> ()

    /// Numbered messages of a connection are missing: up to this moment all of them came.
    let lost (connection: int) (good: Instant) (received: Instant) (out: Batch) =
        let renewed = List<TokenId>()

        for t in tracked.Values do
            if t.Connection = connection && not (isNull t.Book) then
                if t.Gap.IsNone && t.GoodAt.IsSome && good > t.GoodAt.Value then
                    t.GoodAt <- ValueSome good
                    t.Unchanged <- 0L

                // One that is asked for already is not asked for with every message that is refused.
                let isDue = t.Gap.IsNone || Instant.hasPassed rules.Patience t.RungAt received
                doubt t Verdict.Mismatched Doubt.Sequence Cause.Mismatch received out

                if isDue then
                    t.Rung <- 1
                    t.RungAt <- received
                    renewed.Add t.Token

        if renewed.Count > 0 then
            orders.Add(DepthOrder.Renew(connection, List.ofSeq renewed))

    let isSuspectFor (t: Tracked) (now: Instant) limit =
        match t.SuspectSince with
        | ValueSome since -> Instant.hasPassed limit since now
        | ValueNone -> false

    let checkpoint (t: Tracked) (out: Batch) =
        match t.GoodAt, t.GoodSince with
        | ValueSome good, ValueSome since ->
            t.IsDirty <- false

            out.Checkpoints.Add {
                Job = jobOf t
                Exchange = exchange
                Stream = Stream.Depth
                Market = t.Market
                Token = ValueSome t.Token
                Since = since
                Watermark = good + TimeSpan(10L * t.Unchanged)
                Rows = 0
                Error =
                    match t.Gap with
                    | ValueSome(struct (_, cause)) -> string cause
                    | ValueNone -> ""
                Duration = TimeSpan.Zero
                State = ""
            }
        | _ -> ()

    let start (t: Tracked) =
        let key = t.TokenName.Key

        if key >= byName.Length then
            let length = max (key + 1) (2 * byName.Length)
            Array.Resize(&byName, length)
            Array.Resize(&books, length)

        byName[key] <- t
        tracked[string t.Token] <- t

    member _.Counts = counts

    /// The holes that are open now.
    member _.OpenGaps: Gap list = [
        for t in tracked.Values do
            match t.Gap with
            | ValueSome hole -> gapRow t hole ValueNone ValueNone
            | ValueNone -> ()
    ]

    /// One change in so many has its hash computed; 1 is all of them.
    member _.HashEvery
        with get () = every
        and set value = every <- max 1 value

    /// What is to be done, in this order; the caller does it and clears the list.
    member _.Orders = orders

    /// The tokens whose books are followed.
    member _.Tokens = tracked.Count

    /// Follows the books of a market's tokens from now on. One that is followed already takes in the new description.
    member _.Follow(market: Market, mode: DepthMode) =
        let mine = [
            for token in market.Tokens do
                match tracked.TryGetValue(string token) with
                | true, known -> known
                | _ ->
                    let t =
                        Tracked(
                            market.Market,
                            token,
                            names.Intern(string market.Market),
                            names.Intern(string token),
                            mode,
                            part.Proof market.Market token
                        )

                    start t
                    t
        ]

        for t in mine do
            t.Proof.Describe market
            t.IsReady <- t.Proof.IsReady

        match mine with
        | [ one; other ] ->
            one.Complement <- other
            other.Complement <- one
            other.Fills <- one.Fills
        | _ -> ()

    /// What an earlier run left: the last proven state of a token, and the hole since then, whose cause is that no collector ran, unless
    /// one was open before. Leaves the beginning of the gap.
    member _.Resume(token: TokenId, since: Instant, good: Instant, cause: Cause, out: Batch) =
        match tracked.TryGetValue(string token) with
        | true, t when t.GoodAt.IsNone && t.Gap.IsNone ->
            t.Unchanged <- good.Micros % 1_000L
            t.GoodAt <- ValueSome(good - TimeSpan(10L * t.Unchanged))
            t.GoodSince <- ValueSome since
            doubt t Verdict.Unverifiable Doubt.Missed cause good out
        | _ -> ()

    /// A token that was followed before in this run is followed again: meanwhile it was not, which is a gap.
    member this.Return(token: TokenId, out: Batch) =
        let mutable before = struct (Instant.ofMicros 0L, Instant.ofMicros 0L)

        if left.Remove(string token, &before) then
            let struct (since, good) = before
            this.Resume(token, since, good, Cause.Stopped, out)

    /// A market is over, or not wanted any more: the last book of each of its tokens is stored, and nothing of them is followed any more. An open gap ends.
    member _.Unfollow(market: Market, now: Instant, out: Batch) =
        for token in market.Tokens do
            match tracked.TryGetValue(string token) with
            | true, t ->
                giveUpSweeps t now out

                match t.Book with
                | null -> ()
                | book -> snapshot t book Reason.Last now out

                match t.Gap with
                | ValueSome(struct (since, _) as gap) ->
                    out.Gaps.Add(gapRow t gap (ValueSome(max since now)) ValueNone)
                    counts.GapsClosed <- counts.GapsClosed + 1L
                | ValueNone -> ()

                t.Gap <- ValueNone
                t.IsOver <- true
                checkpoint t out

                match t.GoodAt, t.GoodSince with
                | ValueSome good, ValueSome since ->
                    left[string token] <- struct (since, good + TimeSpan(10L * t.Unchanged))
                | _ -> ()

                for connection in [ t.Connection; t.Next ] do
                    if connection >= 0 then
                        orders.Add(DepthOrder.Unsubscribe(connection, t.Token))

                byName[t.TokenName.Key] <- null
                books[t.TokenName.Key] <- null
                tracked.Remove(string token) |> ignore
            | _ -> ()

    /// The frame that asks for these tokens on a connection was sent: their first books are due. A token that has a connection moves: it
    /// keeps the old one until its book came over the new one.
    member _.Subscribed(connection: int, tokens: TokenId seq, now: Instant) =
        heard.TryAdd(connection, now) |> ignore

        for token in tokens do
            match tracked.TryGetValue(string token) with
            | true, t ->
                if t.Connection < 0 || t.Connection = connection then
                    t.Connection <- connection
                else
                    t.Next <- connection

                if part.HasBooks then
                    t.Awaits <- ValueSome now
            | _ -> ()

    /// A connection is gone, or is given up: the books that came over it alone are not known from now on.
    member _.Lost(connection: int, cause: Cause, now: Instant, out: Batch) =
        heard.Remove connection |> ignore
        rotating.Remove connection |> ignore

        for t in tracked.Values do
            if t.Next = connection then
                t.Next <- -1
                t.Handover <- ValueNone

            if t.Connection = connection && t.Handover.IsSome then
                handOver t now true out
            elif t.Connection = connection then
                t.Connection <- t.Next
                t.Next <- -1
                t.Ahead <- ValueNone

                // A book that did not change was as proven as the connection's last message.
                match reached.TryGetValue connection with
                | true, good when t.Gap.IsNone && t.GoodAt.IsSome && good > t.GoodAt.Value ->
                    t.GoodAt <- ValueSome good
                    t.Unchanged <- 0L
                | _ -> ()

                // Of fills alone nothing is known here: polls see to it that none is missing.
                if part.HasBooks then
                    doubt t Verdict.Unverifiable Doubt.Missed cause now out

                if t.Connection < 0 then
                    t.Awaits <- ValueNone

        reached.Remove connection |> ignore

    /// What a frame said, in its order. The bytes are those that its events were decoded from.
    member _.Hear(connection: int, bytes: ReadOnlySpan<byte>, frame: Frame, received: Instant, out: Batch) =
        let events = frame.Events

        if events.Count > 0 then
            heard[connection] <- received

        approach events

        for i in 0 .. events.Count - 1 do
            let event = &events[i]

            match event.Kind with
            | StreamKind.Change ->
                match find event.Token with
                | null -> () // the mirror of a token that nobody asked for
                | t when t.Connection <> connection && t.Next <> connection -> ()
                | t ->
                    let hash = bytes.Slice(event.Hash.Start, event.Hash.Length)

                    match t.Book with
                    | null ->
                        counts.Early <- counts.Early + 1L
                        hold t event.At event.Side event.Price event.Size hash
                    // A connection whose first book has not come: what it tells has no beginning.
                    | _ when t.Next = connection ->
                        match t.Handover with
                        | ValueSome handover ->
                            handover.Following.Add {
                                HeldAt = event.At
                                HeldSide = event.Side
                                HeldPrice = event.Price
                                HeldSize = event.Size
                                HeldHash = hash.ToArray()
                            }
                        | ValueNone -> counts.Early <- counts.Early + 1L
                    | book ->
                        if event.At.Micros = t.At.Micros && not event.IsLast && isFresh t events i bytes then
                            t.Fresh <- event.Message

                        change
                            t
                            book
                            event.At
                            event.Message
                            event.Side
                            event.Price
                            event.Size
                            event.BestBid
                            event.BestAsk
                            hash
                            event.IsLast
                            received
                            out

                        if t.Handover.IsSome then
                            handOver t received false out
            | StreamKind.Book ->
                match find event.Token with
                | null -> ()
                | t when t.Connection <> connection && t.Next <> connection -> ()
                | t ->
                    let row = &frame.Batch.Books[event.Row]

                    if part.IsNumbered then
                        numberedBook t connection &row event.Sequence frame.Batch received out
                    else
                        bookEvent t connection &row frame.Batch received out
                        mirror t

                    if t.Handover.IsSome then
                        handOver t received false out
            | StreamKind.Trade ->
                match find event.Token with
                | null -> ()
                // Another connection's word of the same fill.
                | t when t.Connection <> connection -> ()
                | t ->
                    t.Fills.Add {
                        FilledAt = event.At
                        Filled = event.Size
                    }

                    explainSweeps t received out

                    match t.Complement with
                    | null -> ()
                    | other -> explainSweeps other received out

                    t.Proof.Traded(bytes.Slice(event.Text.Start, event.Text.Length))

                    // The fill that a doubted hash covered already.
                    match t.Book with
                    | null -> ()
                    | book when
                        t.SuspectSince.IsSome
                        && t.Gap.IsNone
                        && t.Hash.Length > 0
                        && t.Proof.Agrees(book, t.At, t.Hash, event.Price)
                        ->
                        let isHole = t.Failed > 1
                        prove t true received out

                        if isHole then
                            snapshot t book Reason.Resync received out
                    | _ -> ()
            | StreamKind.Shift ->
                match find event.Token with
                | null -> ()
                | t when t.Connection <> connection -> ()
                | t ->
                    match t.Book with
                    | null -> counts.Early <- counts.Early + 1L
                    // What a book lacks is not known: it is asked for as a whole.
                    | _ when t.Gap.IsSome -> counts.Early <- counts.Early + 1L
                    | book -> shift t book &event received out
            | StreamKind.BestPrices when part.IsNumbered ->
                match find event.Token with
                | null -> ()
                | t when t.Connection <> connection || t.Gap.IsSome -> ()
                | t -> witness t event.BestBid event.BestAsk received
            | StreamKind.Lost ->
                reached.Remove connection |> ignore
                lost connection event.At received out
            | StreamKind.TickSize ->
                match find event.Token with
                | null -> ()
                | t ->
                    t.TickAt <- event.At
                    t.Proof.Tick(bytes.Slice(event.Text.Start, event.Text.Length))
            | _ -> ()

        if part.IsNumbered && events.Count > 0 then
            let last = &events[events.Count - 1]

            // The exchange's time of what came over it last, every number before that having come.
            if last.Kind = StreamKind.Shift || last.Kind = StreamKind.Book then
                reached[connection] <- last.At

    /// A whole book that was asked for, with its own verdict: the witness that the stream cannot forge.
    member _.Polled(row: inref<BookRow>, from: Batch, received: Instant, out: Batch) =
        match find row.Token with
        | null -> ()
        | t ->
            t.ComparedAt <- received
            let hash = from.Utf8 row.Hash

            let bids: ReadOnlySpan<Level> =
                Span.op_Implicit (from.Levels.Slice(row.FirstBid, row.BidCount))

            let asks: ReadOnlySpan<Level> =
                Span.op_Implicit (from.Levels.Slice(row.FirstAsk, row.AskCount))

            if row.LastTrade.Length >= 0 && row.At.Micros >= t.At.Micros then
                t.Proof.Traded(from.Utf8 row.LastTrade)

            match t.Book with
            | null -> () // The stream's own first book is waited for; the ladder sees to it.
            // It proves nothing, and may be some seconds old. A stream that says nothing any more is behind it all the same.
            | book when part.IsNumbered ->
                match t.Ahead with
                | _ when t.Gap.IsSome -> ()
                | _ when book.Has(bids, asks) -> t.Ahead <- ValueNone
                | ValueNone -> t.Ahead <- ValueSome(struct (row.At, received))
                | ValueSome(struct (_, since)) when Instant.hasPassed rules.Behind since received ->
                    starve t since received out
                | ValueSome _ -> ()
            | _ when row.At.Micros < t.At.Micros || row.Verdict <> Verdict.Verified -> ()
            | book when book.Has(bids, asks) && row.At = t.At ->
                counts.Agreed <- counts.Agreed + 1L
                let wasBroken = t.Gap.IsSome

                if t.Verdict <> Verdict.Verified then
                    t.Hash <- hash
                    prove t false received out

                    if wasBroken then
                        snapshot t book Reason.Resync received out
            // A state of this very millisecond that is past, unless it is the latest one, which the book should be and is not.
            | _ when
                row.At = t.At
                && isSeen t (keyOf hash) whole -3
                && not (t.Gap.IsSome && hash.SequenceEqual(t.Hash))
                ->
                ()
            | _ when t.Gap.IsSome && t.Connection >= 0 && t.Awaits.IsNone ->
                adopt t row.At hash bids asks true Reason.Resync received out
            | _ ->
                if t.Ahead.IsNone && t.Gap.IsNone then
                    t.Ahead <- ValueSome(struct (row.At, received))

    /// Time passes: what was due and did not come is noticed, and the next steps are ordered.
    member _.Tick(now: Instant, out: Batch) =
        let compare = List<TokenId>()

        for t in tracked.Values do
            explainSweeps t now out

            if t.Handover.IsSome then
                handOver t now false out

            // A hash that nothing explains.
            if t.Gap.IsNone && isSuspectFor t now rules.Grace then
                match t.Doubt with
                | Doubt.Ambiguous
                | Doubt.NotChecked ->
                    t.ComparedAt <- now
                    compare.Add t.Token
                | _ -> fail t Doubt.Hash now out

                t.SuspectSince <- ValueSome now

            // The stream is behind what a poll showed.
            match t.Ahead with
            // Nothing came of this book since a poll differed from it: a second poll, which cannot be older than that, decides.
            | ValueSome(struct (_, since)) when part.IsNumbered ->
                if
                    Instant.hasPassed rules.Behind since now
                    && Instant.hasPassed rules.Behind t.ComparedAt now
                then
                    t.ComparedAt <- now
                    compare.Add t.Token
            | ValueSome(struct (_, since)) when Instant.hasPassed rules.Behind since now ->
                starve t since now out
            | _ -> ()

            // A first book that does not come.
            match t.Awaits with
            | ValueSome since when Instant.hasPassed rules.FirstBook since now ->
                match t.Book with
                | null -> doubt t Verdict.Unverifiable Doubt.Missed Cause.Starved now out
                | _ -> ()

                t.Awaits <- ValueSome now
                t.Rung <- max 1 t.Rung
                climb t now
            | ValueNone when
                t.Gap.IsSome
                && t.Connection >= 0
                && Instant.hasPassed rules.Patience t.RungAt now
                ->
                climb t now
            | _ -> ()

            if
                t.Connection >= 0
                && t.Gap.IsNone
                && Instant.hasPassed rules.CompareEvery t.ComparedAt now
                && (match t.Book with
                    | null -> false
                    | _ -> true)
            then
                t.ComparedAt <- now
                compare.Add t.Token

        // Best prices that the book still does not have.
        if differing.Count > 0 then
            for pair in Seq.toArray differing do
                let struct (bid, ask, since) = pair.Value

                match find { Key = pair.Key } with
                | null -> differing.Remove pair.Key |> ignore
                | t ->
                    match t.Book with
                    | null -> differing.Remove pair.Key |> ignore
                    | book when t.Gap.IsSome || book.BestBid = bid && book.BestAsk = ask ->
                        differing.Remove pair.Key |> ignore
                    | _ when Instant.hasPassed rules.Behind since now ->
                        differing.Remove pair.Key |> ignore
                        counts.WrongBest <- counts.WrongBest + 1L

                        if not (compare.Contains t.Token) then
                            t.ComparedAt <- now
                            compare.Add t.Token
                    | _ -> ()

        if compare.Count > 0 then
            orders.Add(DepthOrder.Compare(List.ofSeq compare))

        if Instant.hasPassed rules.CheckpointEvery checkpointed now then
            checkpointed <- now

            for t in tracked.Values do
                if t.IsDirty then
                    checkpoint t out

    /// The collector ends: how far each book is proven, so that the next start knows since when it was not.
    member _.Stop(now: Instant, out: Batch) =
        for t in tracked.Values do
            giveUpSweeps t now out
            checkpoint t out

    /// A book as it stands, with its verdict: for tests, and for whoever watches. Nothing before the first one.
    member _.TryBook(token: TokenId) : (struct (Book * Instant * Verdict * Doubt)) voption =
        match tracked.TryGetValue(string token) with
        | true, t ->
            match t.Book with
            | null -> ValueNone
            | book -> ValueSome(struct (book, t.At, t.Verdict, t.Doubt))
        | _ -> ValueNone

    /// The token's book is followed.
    member _.Follows(token: Name) : bool =
        match find token with
        | null -> false
        | _ -> true

    /// No token's book comes over this connection.
    member _.IsIdle(connection: int) : bool =
        tracked.Values |> Seq.forall (fun t -> t.Connection <> connection)

    /// Whether a gap is open for the token: since when, and why.
    member _.TryGap(token: TokenId) =
        match tracked.TryGetValue(string token) with
        | true, t -> t.Gap
        | _ -> ValueNone
