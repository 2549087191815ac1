module Tributary.Tests.HistoryTests

open System
open System.Collections.Generic
open NUnit.Framework
open FsCheck.NUnit
open Tributary

let private exchange = good (ExchangeId.Parse "polymarket")
let private yes = token "1001"
let private ms (count: int) = Instant.ofMillis (int64 count)

let private level (cents: int, shares: int) : Level = {
    Price = Price.ofMillionths (int64 cents * 10_000L)
    Size = good (Size.parse (string shares))
}

/// A whole book that came on the stream.
let private whole at bids asks : OrderBookSnapshot = {
    Exchange = exchange
    Market = market "will-it"
    Token = yes
    Bids = bids |> List.map level |> Array.ofList
    Asks = asks |> List.map level |> Array.ofList
    Hash = ""
    Sequence = ValueNone
    Verdict = Verdict.Verified
    Doubt = Doubt.None
    Reason = Reason.First
    At = ms at
    Received = ms at
    Flags = Flags.None
}

let private polled at bids asks = {
    whole at bids asks with
        Reason = Reason.Poll
}

let private change at ordinal side cents shares : OrderBookDelta =
    let level = level (cents, shares)

    {
        Exchange = exchange
        Market = market "will-it"
        Token = yes
        Ordinal = ordinal
        Sequence = ValueNone
        Side = side
        Price = level.Price
        Size = level.Size
        Hash = ""
        Verdict = Verdict.Verified
        Doubt = Doubt.None
        At = ms at
        Received = ms at
    }

let private bid at cents shares = change at 0 Side.Buy cents shares

let private gap since until : Gap = {
    Exchange = exchange
    Stream = Stream.Depth
    Market = market "will-it"
    Token = ValueSome yes
    Since = ms since
    Until =
        match until with
        | Some until -> ValueSome(ms until)
        | None -> ValueNone
    Cause = Cause.Disconnect
    Healed = ValueNone
}

/// What a store would give of all this for a moment.
let private around at gaps (books: OrderBookSnapshot list) (changes: OrderBookDelta list) : Past =
    let next = books |> List.tryFind (fun book -> book.At > at)

    let moments = (books |> List.map _.At) @ (changes |> List.map _.At)

    {
        Gaps = gaps
        Books = books |> List.filter (fun book -> book.At <= at)
        Changes = changes |> List.filter (fun change -> change.At <= at)
        Next =
            match next with
            | Some next -> ValueSome next
            | None -> ValueNone
        NextChange =
            changes
            |> List.tryFind (fun change ->
                change.At > at && next |> Option.forall (fun next -> change.At <= next.At))
            |> ValueOption.ofOption
        IsLive = true
        LiveSince =
            books
            |> List.filter (fun book -> book.Reason <> Reason.Poll)
            |> List.map _.At
            |> List.sort
            |> List.tryHead
            |> ValueOption.ofOption
        Proven =
            if moments.IsEmpty then
                ValueNone
            else
                ValueSome(List.max moments)
        LastSign =
            if moments.IsEmpty then
                ValueNone
            else
                ValueSome(List.max moments)
    }

let private askedIn past at = History.bookAt (ms at) past

let private asked at gaps books changes =
    askedIn (around (ms at) gaps books changes) at

let private levels (levels: Level[]) =
    levels
    |> Array.map (fun level ->
        int (level.Price.Millionths / 10_000L), int (level.Size.Millionths / 1_000_000L))
    |> List.ofArray

/// Bids and asks of a book that is known.
let private known answer =
    match answer with
    | BookAt.Known book -> levels book.Bids, levels book.Asks
    | BookAt.NotKnown(since, until, why) -> failwith $"not known between {since} and {until}: {why}"

let private unknown (since: int option) (until: int option) why =
    let moment at =
        match at with
        | Some at -> ValueSome(ms at)
        | None -> ValueNone

    BookAt.NotKnown(moment since, moment until, why)

let private first = whole 10 [ 40, 5; 39, 1 ] [ 60, 7 ]

[<Test>]
let ``the changes up to the moment are applied to the whole book before it`` () =
    let changes = [ bid 20 41 3; bid 30 40 0; bid 40 41 9 ]
    equal ([ 40, 5; 39, 1 ], [ 60, 7 ]) (known (asked 19 [] [ first ] changes))
    equal ([ 41, 3; 40, 5; 39, 1 ], [ 60, 7 ]) (known (asked 20 [] [ first ] changes))
    equal ([ 41, 3; 39, 1 ], [ 60, 7 ]) (known (asked 39 [] [ first ] changes))

[<Test>]
let ``time, verdict and doubt are those of the last change, else those of the whole book`` () =
    let doubted = {
        bid 20 41 3 with
            Verdict = Verdict.Unverifiable
            Doubt = Doubt.NotChecked
    }

    match asked 15 [] [ first ] [ doubted ], asked 25 [] [ first ] [ doubted; bid 30 41 4 ] with
    | BookAt.Known before, BookAt.Known after ->
        equal (ms 10, Verdict.Verified, 0) (before.At, before.Verdict, before.Changes)
        equal (ms 20, Verdict.Unverifiable, Doubt.NotChecked) (after.At, after.Verdict, after.Doubt)
        equal (ms 10, Reason.First, 1) (after.Base, after.Reason, after.Changes)
    | before, after -> failwith $"%A{before} %A{after}"

[<Test>]
let ``nothing is known before the first whole book, nor of a token that nobody recorded`` () =
    equal (unknown None (Some 10) Ignorance.Before) (asked 9 [] [ first ] [])
    equal (unknown None None Ignorance.Nothing) (asked 9 [] [] [])

[<Test>]
let ``nothing is known after the last sign of life`` () =
    let past = {
        around (ms 50) [] [ first ] [ bid 20 41 3 ] with
            LastSign = ValueSome(ms 30)
    }

    equal ([ 41, 3; 40, 5; 39, 1 ], [ 60, 7 ]) (known (askedIn past 30))
    equal (unknown (Some 30) None Ignorance.After) (askedIn past 31)

// The gap of 20 to 30 ends with a whole book; what was known before and after it is.
[<TestCase(19, true)>]
[<TestCase(20, false)>]
[<TestCase(29, false)>]
[<TestCase(30, true)>]
let ``a gap is closed on the left and open on the right`` (at: int) (isKnown: bool) =
    let books = [ first; whole 30 [ 50, 1 ] [ 51, 2 ] ]

    match asked at [ gap 20 (Some 30) ] books [] with
    | BookAt.Known book -> isTrue (isKnown && (levels book.Bids = [ 50, 1 ]) = (at >= 30))
    | answer ->
        isTrue (not isKnown)
        equal (unknown (Some 20) (Some 30) (Ignorance.Gap Cause.Disconnect)) answer

[<Test>]
let ``a gap that is open goes on for ever`` () =
    equal
        (unknown (Some 20) None (Ignorance.Gap Cause.Disconnect))
        (asked 99 [ gap 20 None ] [ first ] [ bid 100 1 1 ])

[<Test>]
let ``a gap that was healed, or that is of another stream, or that is empty, does not count`` () =
    let healed = {
        gap 20 (Some 30) with
            Healed = ValueSome(struct (ms 31, "unchanged"))
    }

    let ofPolls = {
        gap 20 (Some 30) with
            Stream = Stream.Books
    }

    for one in [ healed; ofPolls; gap 25 (Some 25) ] do
        equal
            ([ 40, 5; 39, 1 ], [ 60, 7 ])
            (known (asked 25 [ one ] [ first; whole 40 [ 40, 5; 39, 1 ] [ 60, 7 ] ] []))

[<Test>]
let ``a whole book on the other side of a gap is no base`` () =
    equal
        (unknown (Some 20) (Some 50) (Ignorance.Gap Cause.Disconnect))
        (asked 45 [ gap 20 (Some 30) ] [ first; whole 50 [] [] ] [ bid 40 41 3 ])

[<Test>]
let ``a book that a proof disagreed with is no base`` () =
    let wrong = {
        whole 15 [ 1, 1 ] [] with
            Verdict = Verdict.Mismatched
    }

    equal ([ 40, 5; 39, 1 ], [ 60, 7 ]) (known (asked 16 [] [ first; wrong ] [ bid 20 41 3 ]))

[<Test>]
let ``a polled book is a true state: what is behind it in its millisecond is told by its hash`` () =
    let hashed hash (change: OrderBookDelta) = { change with Hash = hash }

    let changes = [
        hashed "a" (change 20 0 Side.Buy 41 3)
        hashed "b" (change 20 1 Side.Buy 41 4)
        hashed "c" (change 20 2 Side.Buy 41 5)
    ]

    let poll hash = {
        polled 20 [ 41, 4; 40, 5; 39, 1 ] [ 60, 7 ] with
            Hash = hash
    }

    for hash, applied in [ "b", 1; "none", 3 ] do
        match asked 20 [] [ first; poll hash ] changes with
        | BookAt.Known book ->
            equal [ 41, 5; 40, 5; 39, 1 ] (levels book.Bids)
            equal applied book.Changes
        | answer -> failwith $"%A{answer}"

[<Test>]
let ``what is disputed at the end of a recording is not known, and is as soon as a later state is proven``
    ()
    =
    let pending = {
        bid 20 41 3 with
            Verdict = Verdict.Unverifiable
            Doubt = Doubt.Pending
    }

    let past = {
        around (ms 20) [] [ first ] [ pending ] with
            Proven = ValueSome(ms 10)
    }

    equal (unknown (Some 10) None Ignorance.Unsettled) (askedIn past 20)
    equal ([ 41, 3; 40, 5; 39, 1 ], [ 60, 7 ]) (known (askedIn { past with Proven = ValueSome(ms 20) } 20))

[<Test>]
let ``whole books that differ without a change between them show that changes were not recorded`` () =
    let later = polled 50 [ 30, 1 ] [ 60, 7 ]
    equal (unknown (Some 20) (Some 50) Ignorance.Skipped) (asked 25 [] [ first; later ] [ bid 20 41 3 ])
    equal ([ 30, 1 ], [ 60, 7 ]) (known (asked 50 [] [ first; later ] [ bid 20 41 3 ]))

[<Test>]
let ``a proven change that leaves its level as it was shows that another one was not recorded`` () =
    let changes = [ bid 20 41 3; bid 40 45 0; bid 50 41 9 ]
    equal ([ 40, 5; 39, 1 ], [ 60, 7 ]) (known (asked 15 [] [ first ] changes))
    equal (unknown (Some 20) (Some 40) Ignorance.Skipped) (asked 25 [] [ first ] changes)
    equal ([ 41, 3; 40, 5; 39, 1 ], [ 60, 7 ]) (known (asked 40 [] [ first ] changes))

    // What came and went is recorded after all, by somebody else.
    let all = bid 30 45 1 :: changes |> List.sortBy _.At
    equal ([ 41, 3; 40, 5; 39, 1 ], [ 60, 7 ]) (known (asked 25 [] [ first ] all))

[<Test>]
let ``a poll that nothing proves is no base beside a live book, and contradicts none`` () =
    let unproven = {
        polled 30 [ 1, 1 ] [] with
            Verdict = Verdict.Unverifiable
            Doubt = Doubt.NoHash
    }

    let past at isLive = {
        around (ms at) [] [ first; unproven ] [ bid 20 41 3 ] with
            IsLive = isLive
            Next = ValueNone
    }

    for at in [ 25; 30 ] do
        equal ([ 41, 3; 40, 5; 39, 1 ], [ 60, 7 ]) (known (askedIn (past at true) at))

    equal ([ 1, 1 ], []) (known (askedIn (past 30 false) 30))

[<Test>]
let ``between a polled book and the first live one nobody listened, whatever came and went`` () =
    let before = polled 5 [ 40, 5; 39, 1 ] [ 60, 7 ]
    equal (unknown (Some 5) (Some 10) Ignorance.Skipped) (asked 7 [] [ before; first ] [ bid 20 41 3 ])
    equal ([ 40, 5; 39, 1 ], [ 60, 7 ]) (known (asked 10 [] [ before; first ] [ bid 20 41 3 ]))

[<Test>]
let ``between two polls before the live book began a book is not known, even where the polls agree`` () =
    let books = [ polled 5 [ 40, 5 ] []; polled 8 [ 40, 5 ] []; whole 10 [ 40, 5 ] [] ]
    equal (unknown (Some 5) (Some 8) Ignorance.Skipped) (asked 6 [] books [])
    equal ([ 40, 5 ], []) (known (asked 8 [] books []))
    equal (unknown (Some 8) (Some 10) Ignorance.Skipped) (asked 9 [] books [])

[<Test>]
let ``a live book that begins with a state that was polled before is known from there on`` () =
    let past at = {
        around (ms at) [] [ polled 10 [ 40, 5; 39, 1 ] [ 60, 7 ] ] [ bid 20 41 3 ] with
            LiveSince = ValueSome(ms 10)
    }

    equal ([ 40, 5; 39, 1 ], [ 60, 7 ]) (known (askedIn (past 15) 15))
    equal ([ 41, 3; 40, 5; 39, 1 ], [ 60, 7 ]) (known (askedIn (past 20) 20))

[<Test>]
let ``a token that was only polled has its newest book, not checked but for its own moment`` () =
    let books = [ polled 10 [ 40, 5 ] []; polled 50 [ 41, 5 ] [] ]

    let past at = {
        around (ms at) [] books [] with
            IsLive = false
    }

    match askedIn (past 10) 10, askedIn (past 49) 49 with
    | BookAt.Known own, BookAt.Known later ->
        equal Verdict.Verified own.Verdict
        equal (Verdict.Unverifiable, Doubt.NotChecked) (later.Verdict, later.Doubt)
        equal [ 40, 5 ] (levels later.Bids)
    | own, later -> failwith $"%A{own} %A{later}"

/// A life of a book, and a recording of it with holes: changes in a hole may be missing, and it ends with a whole book.
type private Life(seed: int) =
    let random = Random seed

    let books, changes, gaps =
        List<OrderBookSnapshot>(), List<OrderBookDelta>(), List<Gap>()
    // The true book by the millisecond.
    let truth = SortedDictionary<int, (int * int) list * (int * int) list>()

    do
        let bids, asks = SortedDictionary<int, int>(), SortedDictionary<int, int>()
        let side (half: SortedDictionary<int, int>) = [ for KeyValue(price, size) in half -> price, size ]
        let mutable at, ordinal, since = 100, 0, -1

        let book reason received hash = {
            whole at (List.rev (side bids)) (side asks) with
                Reason = reason
                Received = ms received
                Hash = hash
        }

        for step in 1..200 do
            let pause = random.Next 3

            if pause > 0 then
                at <- at + pause
                ordinal <- 0

            // The state before was proven: from there on something may be missing.
            if since < 0 && step > 1 && random.Next 20 = 0 then
                since <- (Seq.last truth.Keys)

            let isBid = random.Next 2 = 0
            let cents, shares = random.Next(1, 6) + (if isBid then 0 else 50), random.Next 4
            let half = if isBid then bids else asks
            // A change changes something.
            let had = if half.ContainsKey cents then half[cents] else 0
            let shares = if shares = had then shares + 1 else shares
            half.Remove cents |> ignore

            if shares > 0 then
                half[cents] <- shares

            let hash = $"h{step}"

            if since < 0 || random.Next 3 > 0 then
                changes.Add {
                    change at ordinal (if isBid then Side.Buy else Side.Sell) cents shares with
                        Hash = hash
                        Received = ms (1000 + step)
                }

                ordinal <- ordinal + 1

            truth[at] <- (List.rev (side bids), side asks)

            if step = 1 then
                books.Add(book Reason.First (1000 + step) hash)
            elif since >= 0 && random.Next 8 = 0 then
                books.Add(book Reason.Resync (1000 + step) hash)
                gaps.Add(gap since (Some(max since at)))
                since <- -1
            elif since < 0 && random.Next 15 = 0 then
                books.Add(book Reason.Poll (2000 + step) hash)
            elif since < 0 && random.Next 15 = 0 then
                books.Add(book Reason.Periodic (1000 + step) hash)

        if since >= 0 then
            gaps.Add(gap since None)

    member _.Gaps = List.ofSeq gaps
    member _.First = Seq.head truth.Keys
    member _.Last = Seq.last truth.Keys

    member _.Truth(at: int) =
        truth |> Seq.filter (fun (KeyValue(key, _)) -> key <= at) |> Seq.last |> _.Value

    member this.Asked(at: int) =
        asked at this.Gaps (List.ofSeq books) (List.ofSeq changes)

[<Property>]
let ``a book rebuilt at any moment is the true one, and in a hole it is not known`` (seed: int) =
    let life = Life seed

    for at in life.First .. life.Last do
        let isHole =
            life.Gaps
            |> List.exists (fun gap ->
                gap.Since <= ms at
                && (match gap.Until with
                    | ValueSome until -> ms at < until
                    | ValueNone -> true))

        match life.Asked at with
        | BookAt.Known book ->
            isTrue (not isHole)
            equal (life.Truth at) (levels book.Bids, levels book.Asks)
        | BookAt.NotKnown _ -> isTrue isHole
