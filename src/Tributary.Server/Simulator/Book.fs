namespace Tributary.Server.Simulator

open System

/// One market's book in the frame of its first outcome: a size at each step of the tick, above zero for bids and below
/// zero for asks. The second outcome's book is this one seen from the other side, so the two mirror by construction.
[<Sealed>]
type internal Book(tick: int64) =
    let steps = int (Millionths.one / tick)
    let sizes = Array.zeroCreate<int64>(steps + 1)
    let mutable bid = 0
    let mutable ask = steps
    let mutable bids = 0
    let mutable asks = 0

    let price step = int64 step * tick

    /// Prices lie on the steps 1 to Steps - 1.
    member _.Steps = steps
    /// The step of the best bid; 0 when there is none.
    member _.Bid = bid
    /// The step of the best ask; Steps when there is none.
    member _.Ask = ask
    member _.Bids = bids
    member _.Asks = asks
    member _.Tick = tick
    member _.Price step = price step
    /// Above zero for a bid, below zero for an ask.
    member _.Signed step = sizes[step]
    member _.Size step = abs sizes[step]

    /// Puts a level's new total: above zero a bid, below zero an ask, zero for none.
    member _.Set(step, size: int64) =
        let before = sizes[step]
        sizes[step] <- size
        bids <- bids + Convert.ToInt32(size > 0L) - Convert.ToInt32(before > 0L)
        asks <- asks + Convert.ToInt32(size < 0L) - Convert.ToInt32(before < 0L)

        if size > 0L then
            bid <- max bid step

        if size < 0L then
            ask <- min ask step

        while bid > 0 && sizes[bid] <= 0L do
            bid <- bid - 1

        while ask < steps && sizes[ask] >= 0L do
            ask <- ask + 1

    member _.Clear() =
        Array.Clear sizes
        bid <- 0
        ask <- steps
        bids <- 0
        asks <- 0

    /// The best bid and ask as seen by the token 0 or 1; an empty side counts as 0 or 1.
    member _.Best(token: int) =
        if token = 0 then
            struct (price bid, price ask)
        else
            struct (price (steps - ask), price (steps - bid))

    /// Bids ascending and asks descending, so that the best comes last in both, as seen by the token 0 or 1.
    member _.Sides(token: int) =
        let rising = Array.zeroCreate<struct (int64 * int64)> bids
        let falling = Array.zeroCreate<struct (int64 * int64)> asks

        let seen step =
            if token = 0 then price step else price (steps - step)

        let mutable next = 0

        for step in 1..bid do
            if sizes[step] > 0L then
                rising[next] <- struct (seen step, sizes[step])
                next <- next + 1

        next <- 0

        for step in steps - 1 .. -1 .. ask do
            if sizes[step] < 0L then
                falling[next] <- struct (seen step, -sizes[step])
                next <- next + 1

        if token = 0 then
            struct (rising, falling)
        else
            struct (falling, rising)
