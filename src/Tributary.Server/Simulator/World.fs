namespace Tributary.Server.Simulator

open System
open System.Collections.Generic

/// The whole exchange as a function of simulated time. Nothing happens by itself: whoever looks brings the time, and
/// everything due until then is played first. All of it is used under one lock: the world itself.
[<Sealed>]
type internal World(options: SimulatorOptions, start: DateTimeOffset) =
    let seed = options.Seed
    let born = Micros.ofDate (start - options.History)
    let catalog = Catalog.create seed start options.Markets

    let active = catalog.Markets |> Array.filter _.ClosedAt.IsNone |> Array.map _.Index

    let place = Dictionary(active |> Seq.mapi (fun i index -> KeyValuePair(index, i)))

    // One market in ten is busy and has most of the trades; four in ten are quiet for minutes.
    let weight index =
        let random = Dice.Keyed(int64 seed, 4L, int64 index)

        match place[index] % 10 with
        | 0 -> 8.0 + 12.0 * random.Unit()
        | n when n < 6 -> 0.3 + 1.7 * random.Unit()
        | _ -> 0.01 + 0.02 * random.Unit()

    let weights = active |> Array.sumBy weight

    let idle = {
        ChangesPerSecond = 0.0
        TransactionsPerSecond = 0.0
        HasBids = false
        HasAsks = false
    }

    /// Fills a transaction, in the mean: seven of ten hold one, the others about three.
    let fillsPerTransaction = 1.6

    let temper (info: MarketInfo) =
        if info.ClosedAt.IsSome then
            idle
        else
            let random = Dice.Keyed(int64 seed, 5L, int64 info.Index)
            let share = weight info.Index / weights

            match place[info.Index] % 40 with
            | 27 -> idle
            | 7
            | 17 as n -> {
                idle with
                    ChangesPerSecond = 1.0 / 120.0
                    HasBids = (n = 7)
                    HasAsks = (n = 17)
              }
            | n -> {
                ChangesPerSecond =
                    match n % 10 with
                    | 0 -> 2.0 + 4.0 * random.Unit()
                    | n when n < 6 -> 1.0 / (2.0 + 28.0 * random.Unit())
                    | _ -> 1.0 / (120.0 + 480.0 * random.Unit())
                TransactionsPerSecond = options.TradesPerSecond / fillsPerTransaction * share
                HasBids = true
                HasAsks = true
              }

    let markets =
        catalog.Markets |> Array.map (fun info -> Market(info, temper info, seed, born))

    let by key =
        Dictionary<string, Market>(markets |> Seq.map (fun market -> KeyValuePair(key market.Info, market)))

    let find (known: Dictionary<string, 'a>) key =
        match known.TryGetValue key with
        | true, found -> Some found
        | _ -> None

    let byCondition = by _.Condition
    let bySlug = by _.Slug
    let byId = by (_.Id >> string)

    let byToken =
        Dictionary<string, struct (Market * int)>(
            seq {
                for market in markets do
                    for token in 0..1 -> KeyValuePair(market.Info.Tokens[token], struct (market, token))
            }
        )

    let ofEvent = markets |> Array.groupBy (fun market -> market.Info.Event.Id) |> dict

    let mutable advanced = born
    let mutable frozen: int64 voption = ValueNone

    // One market is drawn every twenty seconds; the last half of them never resolves, so that an exchange remains.
    let resolveEvery = 20L * Micros.perSecond

    let resolve at =
        let random = Dice.Keyed(int64 seed, 6L, at - born)
        let market = markets[active[random.Below active.Length]]
        let trading = active |> Array.filter (fun index -> markets[index].Closed.IsNone)

        if market.Closed.IsNone && trading.Length > active.Length / 2 then
            market.Resolve at

    let play until =
        for market in markets do
            market.Advance until

    do play (Micros.ofDate start)
    do advanced <- Micros.ofDate start

    member _.Catalog = catalog
    member _.Markets = markets
    member _.Frozen = frozen

    member _.MarketById(id: string) = find byId id
    member _.MarketBySlug(slug: string) = find bySlug slug
    member _.MarketByCondition(condition: string) = find byCondition condition
    member _.MarketByToken(token: string) = find byToken token
    member _.MarketsOf(event: EventInfo) = ofEvent[event.Id]

    /// Plays everything due until now, resolutions too when they are switched on.
    member _.Advance(now: int64, resolving: bool) =
        if frozen.IsNone && now > advanced then
            if resolving then
                for slot in (advanced - born) / resolveEvery + 1L .. (now - born) / resolveEvery do
                    let at = born + slot * resolveEvery
                    play at
                    resolve at

            play now
            advanced <- now

    /// From here on nothing changes, and every fill can be seen.
    member _.Freeze(now: int64) =
        if frozen.IsNone then
            frozen <- ValueSome now

    /// Whether the Data API shows this fill by now.
    member _.Shows(fill: inref<Fill>, now: int64) = frozen.IsSome || fill.VisibleAt <= now

    /// The wallet of a trader; some are printed in mixed case, as the exchange does.
    member _.Wallet(trader: int) =
        let digits = Dice.Keyed(int64 seed, 7L, int64 trader).Hex 20

        if trader % 4 = 0 then
            "0x"
            + String.mapi (fun i c -> if i % 3 = 0 then Char.ToUpperInvariant c else c) digits
        else
            "0x" + digits
