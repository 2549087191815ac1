namespace Tributary.Server.Simulator

open System
open System.Collections.Generic

/// One true fill, compactly: strings are made from the numbers when somebody asks.
[<Struct>]
type internal Fill = {
    /// The token traded: 0 or 1.
    Token: int
    /// The taker's side.
    Buys: bool
    Price: int64
    Size: int64
    /// The timestamp it carries: seconds since 1970.
    Second: int64
    /// The same in microseconds, for exchanges that tell more than the second.
    At: int64
    /// The instant, in microseconds, from which the Data API shows it.
    VisibleAt: int64
    /// Number of its transaction within the market.
    Transaction: int
    /// 0 for the first of identical fills, 1 for the second.
    Occurrence: int
    Taker: int
    Maker: int
    /// The maker stands on the other token at the complement of the price.
    Minted: bool
}

/// The fills of a market from before the exchange was started, of which there may be millions: each is a function of its number, so
/// that none is kept. They come in blocks of equal stretches of time, made anew when somebody looks into them. There are identical
/// fills in one transaction, dust below a hundredth of a share, transactions of several fills, stretches without any fill, and now and
/// then a second with hundreds of them.
[<Sealed>]
type internal Archive(seed: int, market: int, count: int, since: int64, until: int64, tick: int64) =
    static let size = 1_000
    let blocks = (count + size - 1) / size

    /// The first second of a block.
    let start block =
        since + (until - since) * int64 block / int64 (max 1 blocks)

    let inBlock block = min size (count - block * size)

    /// What a size is a multiple of, so that what is paid for it comes out even.
    let unit = int (Millionths.one / tick)

    let drawSize (random: Dice) =
        match random.Below 20 with
        | 0 when unit < 10_000 -> int64 (unit * random.Between(1, 9_999 / unit)) // dust
        | n when n < 10 -> Millionths.one * int64 (random.Between(5, 300))
        | n when n < 16 -> 10_000L * int64 (random.Between(100, 20_000))
        | _ -> int64 unit * int64 (random.Between(1_000_000 / unit, 90_000_000 / unit))

    let make block : Fill[] =
        let random = Dice.Keyed(int64 seed, 40L, int64 market, int64 block)
        let fills = Array.zeroCreate<Fill>(inBlock block)
        let first, next = start block, start (block + 1)
        let length = max 1L (next - first)
        // Some stretches are quiet but for their beginning, some have most of their fills in one second.
        let busy = if random.Chance 0.2 then max 1L (length / 20L) else length
        let burst = first + int64 (random.Unit() * float busy)
        let inBurst = if random.Chance 0.2 then fills.Length * 6 / 10 else 0

        let seconds =
            Array.init fills.Length (fun i ->
                if i < inBurst then
                    burst
                else
                    first + int64 (random.Unit() * float busy))

        Array.sortInPlace seconds
        let steps = Millionths.one / tick
        let fair = 1L + int64 (random.Below(int (steps - 2L)))
        let mutable i = 0

        while i < fills.Length do
            let second = seconds[i]
            // One transaction, and what it holds: one fill, a sweep, or some that are identical.
            let held = if random.Chance 0.7 then 1 else random.Between(2, 4)
            let identical = held > 1 && random.Chance 0.4
            let token, buys = random.Below 2, random.Chance 0.5
            let taker, maker = random.Below 4000, 4000 + random.Below 1000
            let minted = random.Chance 0.3
            let from = i
            let mutable drawn = drawSize random

            let price step =
                tick * Math.Clamp(fair + int64 (random.Below 21) - 10L + step, 1L, steps - 1L)

            let mutable paid = price 0L

            while i < fills.Length && i < from + held && seconds[i] = second do
                if i > from && not identical then
                    drawn <- drawSize random
                    paid <- price (int64 (i - from))

                fills[i] <- {
                    Token = token
                    Buys = buys
                    Price = paid
                    Size = drawn
                    Second = second
                    At = second * Micros.perSecond
                    VisibleAt = second * Micros.perSecond
                    Transaction = -1 - (block * size + from)
                    Occurrence = 0
                    Taker = taker
                    Maker = maker
                    Minted = minted
                }

                i <- i + 1

            // Sweeps may hold the same twice as well.
            for j in from + 1 .. i - 1 do
                let mutable before = 0

                for k in from .. j - 1 do
                    if fills[k].Price = fills[j].Price && fills[k].Size = fills[j].Size then
                        before <- before + 1

                fills[j] <- { fills[j] with Occurrence = before }

        fills

    // Whoever reads, reads on: a few blocks are enough.
    let made = Queue<struct (int * Fill[])>()

    let fillsOf block =
        let mutable found = null: Fill[] | null

        for struct (number, fills) in made do
            if number = block then
                found <- fills

        match found with
        | null ->
            let fills = make block

            if made.Count = 4 then
                made.Dequeue() |> ignore

            made.Enqueue(struct (block, fills))
            fills
        | fills -> fills

    let volume =
        lazy
            (let mutable sum = 0.0

             for block in 0 .. blocks - 1 do
                 for fill in make block do
                     sum <- sum + float fill.Price / 1e6 * (float fill.Size / 1e6)

             sum)

    static member None = Archive(0, 0, 0, 0L, 0L, 10_000L)

    /// How many fills there are. Their numbers count from 0, the oldest.
    member _.Count = count

    /// A fill by its number. Timestamps never go back from one to the next. Not to be called by two at once.
    member _.Item(number: int) =
        (fillsOf (number / size))[number % size]

    /// How many of the fills carry this second or an earlier one.
    member _.Until(second: int64) =
        if count = 0 || second < since then
            0
        elif second >= until then
            count
        else
            let guess =
                int (
                    Math.Clamp(
                        (second - since) * int64 blocks / max 1L (until - since),
                        0L,
                        int64 (blocks - 1)
                    )
                )

            // Rounding may have put it one beside.
            let mutable block = guess

            while block > 0 && start block > second do
                block <- block - 1

            while block < blocks - 1 && start (block + 1) <= second do
                block <- block + 1

            let fills = fillsOf block
            let mutable low, high = 0, fills.Length

            while low < high do
                let middle = (low + high) / 2

                if fills[middle].Second <= second then
                    low <- middle + 1
                else
                    high <- middle

            block * size + low

    /// Prices times sizes, in units of the currency.
    member _.Volume = volume.Value
