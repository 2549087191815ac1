namespace Tributary

open System

/// One side, worst first: `isRising` says that prices rise towards the best, as those of bids do.
[<Sealed>]
type private Half(isRising: bool) =
    let mutable levels: Level[] = Array.Empty()
    let mutable count = 0

    member _.Count = count
    member _.Span = ReadOnlySpan<Level>(levels, 0, count)
    member _.Best = levels[count - 1].Price.Millionths

    /// Where the price stands or would stand, and whether it is there. Hot: changes are mostly near the best, so the search
    /// begins there, and goes back by doubling steps before it halves them.
    member _.Find(price: int64, index: byref<int>) : bool =
        let inline isBefore (level: Level) =
            if isRising then
                level.Price.Millionths < price
            else
                level.Price.Millionths > price

        // Everything from `high` on is at or behind the price.
        let mutable high, step = count, 1

        while high >= step && not (isBefore levels[high - step]) do
            high <- high - step
            step <- step * 2

        let mutable from, until = max 0 (high - step + 1), high

        while from < until do
            let middle = (from + until) >>> 1

            if isBefore levels[middle] then
                from <- middle + 1
            else
                until <- middle

        index <- from
        from < count && levels[from].Price.Millionths = price

    member this.Set(price: int64, size: int64) : bool =
        let mutable at = 0

        if this.Find(price, &at) then
            if size = 0L then
                Array.Copy(levels, at + 1, levels, at, count - at - 1)
                count <- count - 1
                true
            elif levels[at].Size.Millionths = size then
                false
            else
                levels[at] <- {
                    levels[at] with
                        Size = Size.trusted size
                }

                true
        elif size = 0L then
            false
        else
            if count = levels.Length then
                Array.Resize(&levels, max 8 (count * 2))

            Array.Copy(levels, at, levels, at + 1, count - at)

            levels[at] <- {
                Price = Price.ofMillionths price
                Size = Size.trusted size
            }

            count <- count + 1
            true

    member _.Clear() = count <- 0

    member _.Load(best: ReadOnlySpan<Level>) =
        if best.Length > levels.Length then
            // With room for what comes.
            levels <- Array.zeroCreate (max 8 (best.Length + best.Length / 2))

        let target = Span<Level>(levels, 0, best.Length)
        best.CopyTo target
        target.Reverse()
        count <- best.Length

[<Sealed>]
type Book() =
    let bids = Half true
    let asks = Half false

    let half side = if side = Side.Buy then bids else asks

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
        bids.Clear()
        asks.Clear()

    member _.Load(bestBids: ReadOnlySpan<Level>, bestAsks: ReadOnlySpan<Level>) =
        bids.Load bestBids
        asks.Load bestAsks

    member _.Set(side: Side, price: int64, size: int64) : bool = (half side).Set(price, size)

    member _.Size(side: Side, price: int64) : int64 =
        let mutable at = 0
        let half = half side

        if half.Find(price, &at) then
            half.Span[at].Size.Millionths
        else
            0L

    member _.Rank(side: Side, price: int64) : int =
        let mutable at = 0
        let half = half side
        let isThere = half.Find(price, &at)
        half.Count - at - (if isThere then 1 else 0)

    member _.Count(side: Side) : int = (half side).Count
    member _.Levels(side: Side) : ReadOnlySpan<Level> = (half side).Span

    member _.Depth(side: Side, n: int) : Level[] =
        let levels = (half side).Span
        let taken = levels.Slice(levels.Length - min n levels.Length).ToArray()
        Array.Reverse taken
        taken

    member _.BestBid: int64 = if bids.Count = 0 then 0L else bids.Best
    member _.BestAsk: int64 = if asks.Count = 0 then Fixed.One else asks.Best

    member _.IsCrossed: bool = bids.Count > 0 && asks.Count > 0 && bids.Best >= asks.Best

    member _.Has(bestBids: ReadOnlySpan<Level>, bestAsks: ReadOnlySpan<Level>) : bool =
        isReverse bids.Span bestBids && isReverse asks.Span bestAsks

    member _.IsMirrorOf(other: Book) : bool =
        isComplement bids.Span (other.Levels Side.Sell)
        && isComplement asks.Span (other.Levels Side.Buy)

    member _.CopyTo(side: Side, n: int, levels: Rows<Level>) : unit =
        let worst = (half side).Span

        for i = worst.Length - 1 downto max 0 (worst.Length - n) do
            levels.Add &worst[i]
