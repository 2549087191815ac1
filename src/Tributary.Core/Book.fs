namespace Tributary

open System

/// One side, worst first, a part of its book: no step further away than that.
[<Struct; NoComparison; NoEquality>]
type private Half =
    val mutable Levels: Level[]
    val mutable Count: int
    /// The best price, or what stands for it while there is none.
    val mutable Best: int64

    member half.Span = ReadOnlySpan<Level>(half.Levels, 0, half.Count)

    /// Where the price stands or would stand, and whether it is there; `isRising` says that prices rise towards the best, as those of
    /// bids do. Hot: changes are mostly near the best, so the search begins there, and goes back by doubling steps before it halves
    /// them.
    member half.Find(isRising: bool, price: int64, index: byref<int>) : bool =
        let levels = half.Levels

        let inline isBefore i =
            if isRising then
                levels[i].Price.Millionths < price
            else
                levels[i].Price.Millionths > price

        // Everything from `high` on is at or behind the price.
        let mutable high, step = half.Count, 1

        while high >= step && not (isBefore (high - step)) do
            high <- high - step
            step <- step * 2

        let mutable from, until = max 0 (high - step + 1), high

        while from < until do
            let middle = (from + until) >>> 1

            if isBefore middle then
                from <- middle + 1
            else
                until <- middle

        index <- from
        from < half.Count && levels[from].Price.Millionths = price

    member private half.Keep(isRising: bool) =
        half.Best <-
            if half.Count > 0 then
                half.Levels[half.Count - 1].Price.Millionths
            elif isRising then
                0L
            else
                Fixed.One

    member half.Set(isRising: bool, price: int64, size: int64) : bool =
        let mutable at = 0
        let isThere = half.Find(isRising, price, &at)
        let levels, count = half.Levels, half.Count

        if isThere && size = 0L then
            Array.Copy(levels, at + 1, levels, at, count - at - 1)
            half.Count <- count - 1
            half.Keep isRising
            true
        elif isThere then
            let isNew = levels[at].Size.Millionths <> size

            if isNew then
                levels[at] <- {
                    Price = Price.ofMillionths price
                    Size = Size.trusted size
                }

            isNew
        elif size = 0L then
            false
        else
            if count = levels.Length then
                Array.Resize(&half.Levels, max 8 (count * 2))

            let levels = half.Levels
            Array.Copy(levels, at, levels, at + 1, count - at)

            levels[at] <- {
                Price = Price.ofMillionths price
                Size = Size.trusted size
            }

            half.Count <- count + 1
            half.Keep isRising
            true

    member half.Load(isRising: bool, best: ReadOnlySpan<Level>) =
        if best.Length > half.Levels.Length then
            // With room for what comes.
            half.Levels <- Array.zeroCreate (max 8 (best.Length + best.Length / 2))

        let target = Span<Level>(half.Levels, 0, best.Length)
        best.CopyTo target
        target.Reverse()
        half.Count <- best.Length
        half.Keep isRising

    static member Empty(isRising: bool) =
        let mutable half = Unchecked.defaultof<Half>
        half.Levels <- Array.Empty()
        half.Keep isRising
        half

[<Sealed>]
type Book() =
    let mutable bids = Half.Empty true
    let mutable asks = Half.Empty false

    let span side =
        if side = Side.Buy then bids.Span else asks.Span

    let find side price (at: byref<int>) =
        if side = Side.Buy then
            bids.Find(true, price, &at)
        else
            asks.Find(false, price, &at)

    static let isReverse (worst: ReadOnlySpan<Level>) (best: ReadOnlySpan<Level>) =
        let mutable same = worst.Length = best.Length
        let mutable i = 0

        while same && i < best.Length do
            let one, other = worst[worst.Length - 1 - i], best[i]

            same <-
                one.Price.Millionths = other.Price.Millionths
                && one.Size.Millionths = other.Size.Millionths

            i <- i + 1

        same

    static let isComplement (side: ReadOnlySpan<Level>) (other: ReadOnlySpan<Level>) =
        let mutable same = side.Length = other.Length
        let mutable i = 0

        while same && i < side.Length do
            same <-
                side[i].Price.Millionths = Fixed.One - other[i].Price.Millionths
                && side[i].Size.Millionths = other[i].Size.Millionths

            i <- i + 1

        same

    member _.Clear() =
        bids.Load(true, ReadOnlySpan.Empty)
        asks.Load(false, ReadOnlySpan.Empty)

    member _.Load(bestBids: ReadOnlySpan<Level>, bestAsks: ReadOnlySpan<Level>) =
        bids.Load(true, bestBids)
        asks.Load(false, bestAsks)

    member _.Set(side: Side, price: int64, size: int64) : bool =
        if side = Side.Buy then
            bids.Set(true, price, size)
        else
            asks.Set(false, price, size)

    member _.Size(side: Side, price: int64) : int64 =
        let mutable at = 0

        if find side price &at then
            (span side).[at].Size.Millionths
        else
            0L

    member _.Rank(side: Side, price: int64) : int =
        let mutable at = 0
        let isThere = find side price &at
        (span side).Length - at - (if isThere then 1 else 0)

    member _.Count(side: Side) : int = (span side).Length
    member _.Levels(side: Side) : ReadOnlySpan<Level> = span side

    member _.Depth(side: Side, n: int) : Level[] =
        let levels = span side
        let taken = levels.Slice(levels.Length - min n levels.Length).ToArray()
        Array.Reverse taken
        taken

    member _.BestBid: int64 = bids.Best
    member _.BestAsk: int64 = asks.Best

    member internal _.Glance(side: Side) : int64 =
        let levels = span side
        let mutable sum, at = 0L, levels.Length - 1

        while at >= 0 && at >= levels.Length - 24 do
            sum <- sum + levels[at].Size.Millionths
            at <- at - 8

        sum

    member _.IsCrossed: bool = bids.Count > 0 && asks.Count > 0 && bids.Best >= asks.Best

    member _.Has(bestBids: ReadOnlySpan<Level>, bestAsks: ReadOnlySpan<Level>) : bool =
        isReverse bids.Span bestBids && isReverse asks.Span bestAsks

    member _.IsMirrorOf(other: Book) : bool =
        isComplement bids.Span (other.Levels Side.Sell)
        && isComplement asks.Span (other.Levels Side.Buy)

    member _.CopyTo(side: Side, n: int, levels: Rows<Level>) : unit =
        let worst = span side

        for i = worst.Length - 1 downto max 0 (worst.Length - n) do
            levels.Add &worst[i]
