namespace Tributary.Server.Simulator

open System
open System.Collections.Generic

/// What one entry of a market's tape is about.
type internal ChangeKind =
    | Level = 0uy
    | Fill = 1uy
    | Tick = 2uy
    | Resolved = 3uy

/// One entry of a market's tape. What happens in one instant is a moment: some entries, the last of which ends it.
[<Struct>]
type internal Change = {
    /// Microseconds since 1970.
    At: int64
    /// Level: the new total, above zero for bids and below for asks. Fill: its number. Tick: the new one.
    Value: int64
    /// Level: the first token's price in millionths.
    Price: int
    Kind: ChangeKind
    /// Whether it is the last of its moment.
    Ends: bool
}

/// A market's book between two moments, in the frame of its first token.
type internal Still = {
    /// Microseconds of the last change.
    Changed: int64
    Tick: int64
    /// As printed; "" when never traded.
    Last: string[]
    /// (price, signed size) of every level.
    Levels: struct (int * int64)[]
}

/// A book that is played from a still along the tape.
[<Sealed>]
type internal Replay(still: Still) =
    let levels = SortedDictionary<int, int64>()

    do
        for struct (price, size) in still.Levels do
            levels[price] <- size

    let last = Array.copy still.Last
    let mutable tick = still.Tick
    let mutable changed = still.Changed

    let pick wanted = [|
        for pair in levels do
            if wanted pair.Value then
                struct (int64 pair.Key, abs pair.Value)
    |]

    let complement (side: struct (int64 * int64)[]) =
        side
        |> Array.map (fun struct (price, size) -> struct (Millionths.one - price, size))

    member _.Changed = changed
    member _.Tick = tick
    member _.Last(token: int) = last[token]

    /// Plays one entry; `tell` gives a fill's token and printed price.
    member _.Play(change: inref<Change>, tell: int -> int64 -> struct (int * string)) =
        if change.Kind <> ChangeKind.Resolved then
            changed <- change.At

        match change.Kind with
        | ChangeKind.Level when change.Value = 0L -> levels.Remove change.Price |> ignore
        | ChangeKind.Level -> levels[change.Price] <- change.Value
        | ChangeKind.Fill ->
            let struct (token, text) = tell (int change.Value) tick
            last[token] <- text
        | ChangeKind.Tick -> tick <- change.Value
        | _ -> ()

    /// Bids ascending and asks descending, as seen by the token 0 or 1.
    member _.Sides(token: int) =
        let bids = pick (fun size -> size > 0L)
        let asks = pick (fun size -> size < 0L) |> Array.rev

        if token = 0 then
            struct (bids, asks)
        else
            struct (complement asks, complement bids)

/// How many entries all tapes hold together.
[<Sealed>]
type internal TapeRoom(most: int) =
    member val Held = 0 with get, set
    member _.Most = most

/// Some moments after a still.
type internal Reel = { Start: Still; Changes: List<Change> }

/// Every change of a market's book since the tape began. Reels of some thousand entries each begin with a still, so that
/// any instant is found by playing one of them.
[<Sealed>]
type internal Tape(room: TapeRoom, start: Still) =
    let size = 4096
    let reels = List<Reel>()
    let reel still = { Start = still; Changes = List 8 }
    do reels.Add(reel start)

    /// Adds a moment; `still` takes the book after it when a new reel begins.
    member _.Add(moment: List<Change>, still: unit -> Still) =
        let last = reels[reels.Count - 1]
        last.Changes.AddRange moment
        room.Held <- room.Held + moment.Count

        if last.Changes.Count >= size then
            reels.Add(reel (still ()))

        while room.Held > room.Most && reels.Count > 1 do
            room.Held <- room.Held - reels[0].Changes.Count
            reels.RemoveAt 0

    member _.Reels = reels

    /// The book after every change whose millisecond is not later than this one; none when it is forgotten.
    member _.At(millis: int64, tell) : Replay voption =
        let isAfter at = Micros.toMilliseconds at > millis

        let mutable low, high = 0, reels.Count - 1

        while low < high do
            let middle = (low + high + 1) / 2

            if isAfter reels[middle].Start.Changed then
                high <- middle - 1
            else
                low <- middle

        let found = reels[low]

        if isAfter found.Start.Changed then
            ValueNone
        else
            let replay = Replay found.Start
            let mutable i = 0

            while i < found.Changes.Count && not (isAfter found.Changes[i].At) do
                let change = found.Changes[i]
                replay.Play(&change, tell)
                i <- i + 1

            ValueSome replay

    /// Where it begins, and every entry since.
    member _.Copy() : struct (Still * Change[]) =
        let all = List<Change>()

        for reel in reels do
            all.AddRange reel.Changes

        struct (reels[0].Start, all.ToArray())

    /// Every state that the channel tells, oldest first: each entry of a moment, or the whole of a moment with a fill or
    /// a new tick. `see` is called with the book at each.
    static member Walk(struct (start, changes: Change[]), tell, see: Replay -> unit) =
        let replay = Replay start
        see replay
        let mutable i = 0

        while i < changes.Length do
            let mutable j = i
            let mutable whole = changes[i].Kind <> ChangeKind.Level

            while not changes[j].Ends do
                j <- j + 1
                whole <- whole || changes[j].Kind <> ChangeKind.Level

            for k in i..j do
                replay.Play(&changes[k], tell)

                if (not whole || k = j) && changes[k].Kind <> ChangeKind.Resolved then
                    see replay

            i <- j + 1
