namespace Tributary.Server.Simulator

open System
open System.Collections.Generic

/// How often things happen in a market, and which sides its book has.
type internal Temper = {
    ChangesPerSecond: float
    TransactionsPerSecond: float
    HasBids: bool
    HasAsks: bool
    /// Levels that a side has at most.
    MostLevels: int
}

/// One market living its own life: every draw comes from its own source, so that its book and its fills are a function
/// of simulated time alone. All sizes are multiples of `grain`. `Advance` is called under the world's lock.
[<Sealed>]
type internal Market(info: MarketInfo, temper: Temper, seed: int, born: int64, archive: Archive, grain: int64)
    =
    let random = Dice.Keyed(int64 seed, 2L, int64 info.Index)
    let mutable book = Book info.Tick
    let fills = List<Fill>()
    let last: int64 voption[] = [| ValueNone; ValueNone |]
    let lastBuys = [| false; false |]
    let pages: RenderedBook voption[] = [| ValueNone; ValueNone |]
    let moment = List<Change>()
    let printed = [| ""; "" |]
    // Changes a second beside those of its temper.
    let mutable load = 0.0
    let mutable rate = temper.ChangesPerSecond + temper.TransactionsPerSecond
    let mutable tape: Tape voption = ValueNone
    let mutable followed: List<Change> voption = ValueNone
    // The end of a crossed burst and the step of the bid that crosses.
    let mutable crossing: struct (int64 * int) voption = ValueNone
    // Quiet books were last changed well before the history begins.
    let mutable changed = born - Micros.perSecond * int64 (random.Between(0, 86_400))
    let mutable updated = changed
    let mutable closed = info.ClosedAt |> ValueOption.map Micros.ofDate
    let mutable winner = if closed.IsSome then random.Below 2 else -1
    let mutable transactions = 0
    let mutable traded = 0.0
    let mutable contracts = 0L
    let mutable next = Int64.MaxValue

    /// Some markets print a last price with all the decimals of the tick ("0.50"), and that is what is hashed.
    let print tick price =
        if info.Index % 3 = 0 then
            Millionths.padded tick price
        else
            Millionths.text price

    let note kind price value =
        if tape.IsSome then
            moment.Add {
                At = 0L
                Value = value
                Price = price
                Kind = kind
                Ends = false
            }

    /// Every change of the book goes through here.
    let put step size =
        if book.Signed step <> size then
            book.Set(step, size)
            note ChangeKind.Level (int (book.Price step)) size

    // Levels a side: makers come back up to `least`, as far as there is room, and no more than `most` come.
    let most = min temper.MostLevels (random.Between(10, 60))
    let least = most / 2

    /// The step below which bids stand and above which asks stand: a walk that keeps clear of both ends.
    let mutable fair =
        match temper.HasBids, temper.HasAsks with
        | true, false -> book.Steps - 1
        | false, true -> 0
        | _ -> random.Between(book.Steps / 8, book.Steps * 7 / 8)

    let whole size = size / grain * grain

    let drawSize () =
        match random.Below 10 with
        | n when n < 5 -> Millionths.one * int64 (random.Between(5, 3000))
        | n when n < 8 -> 10_000L * int64 (random.Between(100, 200_000))
        | _ -> whole (int64 (random.Between(1_000_000, 900_000_000)))

    let signed isBid size = if isBid then size else -size

    let count isBid = if isBid then book.Bids else book.Asks

    /// How many steps a side has.
    let room isBid =
        if isBid then fair else book.Steps - 1 - fair

    /// A new level on a free step, mostly near the best; none when all the steps within reach are taken.
    let place isBid =
        let reach = min (room isBid) (most * 3 / 2)

        let step distance =
            if isBid then fair - distance else fair + 1 + distance

        let mutable distance = int (float reach * Math.Pow(random.Unit(), 3.0))

        if count isBid < reach then
            while book.Size(step distance) <> 0L do
                distance <- (distance + 1) % reach

            put (step distance) (signed isBid (drawSize ()))

    let refill () =
        // Below the reach of `place`, or it would never be enough.
        let enough isBid = min least (room isBid * 2 / 3)

        while temper.HasBids && book.Bids < enough true do
            place true

        while temper.HasAsks && book.Asks < enough false do
            place false

    /// An existing level, near the best rather than far.
    let someLevel isBid =
        let away = if isBid then -1 else 1
        let best = if isBid then book.Bid else book.Ask
        let mutable step = best

        for _ in 1 .. random.Below(count isBid) do
            if random.Chance 0.7 then
                step <- step + away

                while step > 0 && step < book.Steps && book.Size step = 0L do
                    step <- step + away

        if step <= 0 || step >= book.Steps then best else step

    let still () = {
        Changed = changed
        Tick = book.Tick
        Last = Array.copy printed
        Levels = [|
            for step in 1 .. book.Steps - 1 do
                if book.Signed step <> 0L then
                    struct (int (book.Price step), book.Signed step)
        |]
    }

    let write at (tape: Tape) =
        for i in 0 .. moment.Count - 1 do
            moment[i] <- {
                moment[i] with
                    At = at
                    Ends = (i = moment.Count - 1)
            }

        tape.Add(moment, still)
        followed |> ValueOption.iter _.AddRange(moment)
        moment.Clear()

    /// Ends a moment: the book counts as changed at this instant.
    let touch at =
        changed <- at
        pages[0] <- ValueNone
        pages[1] <- ValueNone

        match tape with
        | ValueSome tape ->
            // An order that came and went leaves the book as it was, with a new time: a level is told again.
            if moment.Count = 0 then
                if book.Bid > 0 then
                    note ChangeKind.Level (int (book.Price book.Bid)) (book.Signed book.Bid)
                elif book.Ask < book.Steps then
                    note ChangeKind.Level (int (book.Price book.Ask)) (book.Signed book.Ask)
                else
                    note ChangeKind.Tick 0 book.Tick

            write at tape
        | ValueNone -> ()

    /// The fair price moves by one step; what stands in its way is taken back.
    let drift () =
        let up = random.Chance(if fair < book.Steps / 2 then 0.52 else 0.48)
        let step = if up then fair + 1 else fair - 1

        if step >= 10 && step <= book.Steps - 10 then
            put (if up then fair + 1 else fair) 0L
            fair <- step

            if count up < most then
                place up

    let change at =
        let isBid = temper.HasBids && (not temper.HasAsks || random.Chance 0.5)

        match random.Below 20 with
        | n when n < 5 && count isBid < most -> place isBid
        | n when n >= 5 && n < 9 && count isBid > least -> put (someLevel isBid) 0L
        | n when n >= 9 && n < 12 && temper.HasBids && temper.HasAsks -> drift ()
        | _ ->
            let step = someLevel isBid
            put step (signed isBid (drawSize ()))

        refill ()
        touch at

    /// Takes from a level; a rest below the smallest amount of the Data API is taken back by its maker.
    let take step size =
        let left = book.Size step - size

        if left < 10_000L then
            put step 0L
        else
            put step (signed (step <= fair) left)

    /// (step, size) of every fill of one taker order: one, a sweep of some levels, or several identical ones.
    let execute takesAsks =
        let best () =
            if takesAsks then book.Ask else book.Bid

        let fill size =
            let step = best ()
            let size = min size (book.Size step)
            take step size
            struct (step, size)

        match random.Below 10 with
        | 0 ->
            let times = random.Between(2, 4)
            let each = whole (min (drawSize () / 4L) (book.Size(best ()) / int64 times))

            if each >= 10_000L then
                let step = best ()
                take step (each * int64 times)
                List.replicate times (struct (step, each))
            else
                [ fill (drawSize ()) ]
        | 1
        | 2 ->
            let levels = random.Between(2, 4)

            [
                for i in 1..levels -> fill (if i = levels then drawSize () else Int64.MaxValue)
            ]
        | _ -> [ fill (drawSize ()) ]

    /// How long after its timestamp the Data API shows a fill: mostly within 2 s, at times up to 8 s, never later.
    let lag () =
        if random.Chance 0.95 then
            int64 (random.Below 2_000_000)
        else
            int64 (random.Between(2_000_000, 8_000_000))

    let trade at =
        let takesAsks = random.Chance 0.5
        let token = random.Below 2
        // Taking YES asks is buying YES or, seen from the other side, selling NO.
        let buys = takesAsks = (token = 0)
        let taker = random.Below 4000
        let second = Micros.toSeconds at

        let appears lag =
            max at (second * Micros.perSecond + lag)

        let together = lag ()
        let apart = random.Chance 0.25
        let seen = List<struct (int64 * int64)>()

        for struct (step, size) in execute takesAsks do
            let price = book.Price(if token = 0 then step else book.Steps - step)
            let occurrence = seen.FindAll(fun other -> other = struct (price, size)).Count
            seen.Add(struct (price, size))

            fills.Add {
                Token = token
                Buys = buys
                Price = price
                Size = size
                Second = second
                At = at
                VisibleAt = appears (if apart then lag () else together)
                Transaction = transactions
                Occurrence = occurrence
                Taker = taker
                Maker = 4000 + random.Below 1000
                Minted = random.Chance 0.3
            }

            contracts <- contracts + size
            traded <- traded + float price / 1e6 * (float size / 1e6)
            last[token] <- ValueSome price
            lastBuys[token] <- buys
            printed[token] <- print book.Tick price
            note ChangeKind.Fill 0 (int64 (fills.Count - 1))

        transactions <- transactions + 1
        updated <- at
        // A moment of its own: the exchange tells of it with whole books, and of what makers add in the same instant with changes.
        touch at
        refill ()

        if moment.Count > 0 then
            touch at

    do
        if closed.IsNone then
            for isBid, wanted in [ true, temper.HasBids; false, temper.HasAsks ] do
                if wanted then
                    for _ in 1 .. min most (room isBid * 2 / 3) do
                        place isBid

            let first = random.Wait rate
            next <- if first = Int64.MaxValue then first else born + first

    member _.Info = info
    member _.Book = book
    /// Those since the exchange was born, in the order in which they happened; timestamps never go back.
    member _.Fills = fills
    /// Those from before, which are all older.
    member _.Archive = archive
    /// How many fills there are, with those of the archive.
    member _.FillCount = archive.Count + fills.Count

    /// A fill by its number: the archive's first, then those since.
    member _.Fill(number: int) =
        if number < archive.Count then
            archive[number]
        else
            fills[number - archive.Count]

    /// How many of all fills carry this second or an earlier one.
    member _.Until(second: int64) =
        let mutable low, high = 0, fills.Count

        while low < high do
            let middle = (low + high) / 2

            if fills[middle].Second <= second then
                low <- middle + 1
            else
                high <- middle

        if low > 0 then
            archive.Count + low
        else
            archive.Until second

    /// The instant of the last trade, or of the resolution.
    member _.Updated = updated
    /// The instant at which it closed.
    member _.Closed = closed
    /// The outcome that won; -1 while open.
    member _.Winner = winner
    /// With an archive it is what all fills come to; without one most of it is from before.
    member _.Volume = (if archive.Count > 0 then archive.Volume else info.Volume) + traded
    /// The sizes of all fills since it was born, in millionths.
    member _.Contracts = contracts
    member _.LastPrice(token: int) = last[token]
    member _.LastBuys(token: int) = lastBuys[token]
    /// The last price as the exchange prints it; "" when never traded.
    member _.Printed(token: int) = printed[token]
    /// The tick in force; the catalog has the first one.
    member _.Tick = book.Tick
    /// Milliseconds of the last change of the book.
    member _.Timestamp = Micros.toMilliseconds changed
    member _.IsTwoSided = temper.HasBids && temper.HasAsks

    /// A fill's token and price as printed under this tick.
    member _.Tell (number: int) (tick: int64) =
        let fill = fills[number]
        struct (fill.Token, print tick fill.Price)

    /// From here on every change is kept.
    member _.Record(room: TapeRoom) = tape <- ValueSome(Tape(room, still ()))

    member _.Tape = tape

    /// The changes since they were last taken away, for whoever tells them; none when nobody does.
    member _.Followed
        with get () = followed
        and set value = followed <- value

    /// Changes a second beside the ordinary ones, from this instant on.
    member _.SetLoad(perSecond: float, at: int64) =
        if closed.IsNone && perSecond <> load then
            load <- perSecond
            rate <- temper.ChangesPerSecond + temper.TransactionsPerSecond + load
            let wait = random.Wait rate

            // Nothing else happens while the book is crossed.
            let earliest =
                match crossing with
                | ValueSome struct (due, _) -> due + 1L
                | ValueNone -> at

            next <-
                if wait = Int64.MaxValue then
                    wait
                else
                    max earliest (at + wait)

    /// Puts a bid above the best ask, to be taken back so many microseconds later. Says whether there was room for it.
    member _.Cross(at: int64, lasting: int64, size: int64) =
        let mutable step = book.Ask + 1

        while step < book.Steps && book.Signed step <> 0L do
            step <- step + 1

        let can = closed.IsNone && crossing.IsNone && book.Bid > 0 && step < book.Steps

        if can then
            put step size
            touch at
            crossing <- ValueSome struct (at + lasting, step)

            // Nothing else happens meanwhile.
            if next <= at + lasting then
                next <- at + lasting + 1L

        can

    /// Makes the tick finer; what stands on the old steps stands on the new ones. Says whether there is a finer one.
    member _.Refine(at: int64) =
        let finer =
            match book.Tick with
            | 10_000L
            | 5_000L -> 1_000L
            | 2_500L
            | 1_000L -> 100L
            | _ -> 0L

        let can = finer > 0L && closed.IsNone && crossing.IsNone && tape.IsSome

        if can then
            let old = book
            let factor = int (old.Tick / finer)
            book <- Book finer

            for step in 1 .. old.Steps - 1 do
                if old.Signed step <> 0L then
                    book.Set(step * factor, old.Signed step)

            // A side that takes up everything stays so.
            fair <-
                if fair = old.Steps - 1 then
                    book.Steps - 1
                else
                    fair * factor

            note ChangeKind.Tick 0 finer
            touch at

        can

    /// The transaction hash that many fills share.
    member _.TransactionHash(fill: Fill) =
        "0x"
        + Dice.Keyed(int64 seed, 3L, int64 info.Index, int64 fill.Transaction).Hex 32

    /// Plays everything that happens up to this instant.
    member _.Advance(until: int64) =
        let mutable isDue = true

        while isDue do
            match crossing with
            | ValueSome struct (due, step) when due <= until ->
                put step 0L
                crossing <- ValueNone
                touch due
            | ValueNone when next <= until ->
                if random.Unit() * rate < temper.TransactionsPerSecond then
                    trade next
                else
                    change next

                next <- next + random.Wait rate
            | _ -> isDue <- false

    /// Ends the market: its book is gone, and trading with it.
    member _.Resolve(at: int64) =
        winner <- random.Below 2
        closed <- ValueSome at
        updated <- at
        next <- Int64.MaxValue
        crossing <- ValueNone
        note ChangeKind.Resolved 0 (int64 winner)
        tape |> ValueOption.iter (write at)

    /// The book of a token as it goes over the wire, rendered once for every change.
    member _.Page(token: int) =
        match pages[token] with
        | ValueSome page -> page
        | ValueNone ->
            let struct (bids, asks) = book.Sides token

            let page =
                BookJson.render {
                    Market = info.Condition
                    Token = info.Tokens[token]
                    Timestamp = Micros.toMilliseconds changed
                    Bids = bids
                    Asks = asks
                    MinimumOrderSize = string info.MinimumSize
                    TickSize = Millionths.text book.Tick
                    NegRisk = info.Event.NegRisk
                    LastTradePrice = printed[token]
                }

            pages[token] <- ValueSome page
            page

    /// A token's book on the tape as a page of the ledger's own.
    member _.PageOf(replay: Replay, token: int) : BookPage =
        let struct (bids, asks) = replay.Sides token

        {
            Market = info.Condition
            Token = info.Tokens[token]
            Timestamp = Micros.toMilliseconds replay.Changed
            Bids = bids
            Asks = asks
            MinimumOrderSize = string info.MinimumSize
            TickSize = Millionths.text replay.Tick
            NegRisk = info.Event.NegRisk
            LastTradePrice = replay.Last token
        }
