namespace Tributary.Server.Simulator

open System
open System.Collections.Generic

/// A market that appeared, or one that resolved.
type internal Announcement = {
    /// Microseconds since 1970.
    At: int64
    Market: Market
    IsNew: bool
}

/// The markets of rolling windows that are still to come.
module internal Newcomers =
    let private most = 400
    let private length = 900L

    /// (the instant of its appearance, market) of every one. The first appears after one `every`.
    let create (seed: int) (start: DateTimeOffset) (every: TimeSpan) (catalog: Catalog) =
        let random = Dice.Keyed(int64 seed, 23L)
        let taken = catalog.Markets |> Seq.map _.Slug |> HashSet
        let mutable eventId = catalog.Events |> Seq.map _.Id |> Seq.max
        let mutable marketId = catalog.Markets |> Seq.map _.Id |> Seq.max
        let count = min most (int (TimeSpan.FromDays 4.0 / every))
        let mutable window = 0L

        [|
            for number in 1..count do
                let appears = start + every * float number
                // The next window at that instant, or the next that has no market yet.
                window <- max window (length * (appears.ToUnixTimeSeconds() / length + 1L))

                while taken.Contains $"btc-updown-15m-{window}" do
                    window <- window + length

                let slug = $"btc-updown-15m-{window}"
                let opens = DateTimeOffset.FromUnixTimeSeconds window
                window <- window + length
                eventId <- eventId + random.Between(1, 9)
                marketId <- marketId + random.Between(1, 7)
                let title = $"Bitcoin Up or Down - 15 minutes from {opens:``HH:mm``} UTC"

                struct (Micros.ofDate appears,
                        {
                            Index = 0
                            Id = marketId
                            Condition = "0x" + random.Hex 32
                            Question = "0x" + random.Hex 32
                            Slug = slug
                            Title = title
                            GroupTitle = ""
                            Outcomes = [| "Up"; "Down" |]
                            Tokens = Array.init 2 (fun _ -> random.Digits 77)
                            Tick = 10_000L
                            MinimumSize = 5
                            Event = {
                                Id = eventId
                                Slug = slug
                                Title = title
                                Tags =
                                    catalog.Tags
                                    |> Array.filter (fun tag ->
                                        tag.Slug = "crypto" || tag.Slug = "up-or-down")
                                NegRisk = false
                                Created = appears
                                Ends = opens.AddSeconds(float length)
                            }
                            Window = ValueSome opens
                            Game = ValueNone
                            Volume = 0.0
                            Liquidity = 500.0
                            ClosedAt = ValueNone
                        })
        |]
        |> Array.mapi (fun i struct (at, info) ->
            struct (at,
                    {
                        info with
                            Index = catalog.Markets.Length + i
                    }))

/// The whole exchange as a function of simulated time. Nothing happens by itself: whoever looks brings the time, and
/// everything due until then is played first. All of it is used under one lock: the world itself.
[<Sealed>]
type internal World(options: SimulatorOptions, start: DateTimeOffset, injections: Injections) =
    let seed = options.Seed
    let born = Micros.ofDate (start - options.History)

    let catalog =
        let made =
            Catalog.create seed start options.Markets |> Dialect.catalog options.Venue seed

        // What has an archive is older than it.
        if options.Archive = 0 then
            made
        else
            let aged (event: EventInfo) = {
                event with
                    Created = event.Created - options.ArchiveAge
            }

            {
                made with
                    Events = made.Events |> Array.map aged
                    Markets = made.Markets |> Array.map (fun info -> { info with Event = aged info.Event })
            }


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
        MostLevels = Dialect.mostLevels options.Venue
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
                MostLevels = idle.MostLevels
              }

    let archived = Micros.toSeconds (Micros.ofDate (start - options.ArchiveAge))

    /// The market's share of the archive, down to the second before the exchange was born.
    let archive (info: MarketInfo) =
        if options.Archive = 0 || info.ClosedAt.IsSome then
            Archive.None
        else
            let number = place[info.Index]

            let share =
                options.Archive / active.Length
                + (if number < options.Archive % active.Length then 1 else 0)

            Archive(seed, info.Index, share, archived, Micros.toSeconds born, info.Tick)

    let mutable markets =
        catalog.Markets
        |> Array.map (fun info ->
            Market(info, temper info, seed, born, archive info, Dialect.grain options.Venue))

    let mutable events = catalog.Events

    // The windows that appear while it runs, in the order in which they do.
    let newcomers =
        if options.NewMarketEvery > TimeSpan.Zero then
            Newcomers.create seed start options.NewMarketEvery catalog
            |> Array.map (fun struct (at, info) -> struct (at, Dialect.market options.Venue seed info))
        else
            [||]

    let room = TapeRoom options.LedgerChanges
    let announced = List<Announcement>()

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

    let ofEvent =
        Dictionary(
            markets
            |> Array.groupBy (fun market -> market.Info.Event.Id)
            |> Array.map KeyValuePair
        )

    let mutable advanced = born
    let mutable frozen: int64 voption = ValueNone

    // One market is drawn every twenty seconds; the last half of them never resolves, so that an exchange remains.
    let resolveEvery = 20L * Micros.perSecond

    let resolve at =
        let random = Dice.Keyed(int64 seed, 6L, at - born)
        let market = markets[active[random.Below active.Length]]
        let trading = active |> Array.filter (fun index -> markets[index].Closed.IsNone)

        let finish (market: Market) =
            market.Resolve at

            announced.Add {
                At = at
                Market = market
                IsNew = false
            }

        if market.Closed.IsNone && trading.Length > active.Length / 2 then
            finish market

    let play until =
        for market in markets do
            market.Advance until

    let inject kind at (market: Market) detail =
        injections.Add {
            Kind = StreamFault.name kind
            Session = 0
            Tokens = market.Info.Tokens
            At = at
            Misleads = false
            Detail = detail
        }

    let draw key at =
        let random = Dice.Keyed(int64 seed, key, at - born)
        struct (random, markets[random.Below markets.Length])

    let cross at =
        let struct (random, market) = draw 21L at
        let lasting = 1000L * int64 (random.Between(2, 40))

        if market.Cross(at, lasting, Millionths.one * int64 (random.Between(5, 500))) then
            inject StreamFault.Crossed at market $"for {lasting / 1000L} ms"

    let refine at =
        let struct (_, market) = draw 22L at
        let before = market.Tick

        if market.IsTwoSided && market.Refine at then
            inject
                StreamFault.TickSize
                at
                market
                $"from {Millionths.text before} to {Millionths.text market.Tick}"

    /// A new window's market appears, as whole as the others.
    let appear (info: MarketInfo) at =
        let temper = {
            ChangesPerSecond = 1.0
            TransactionsPerSecond = 0.2
            HasBids = true
            HasAsks = true
            MostLevels = idle.MostLevels
        }

        let market =
            Market(info, temper, seed, at, Archive.None, Dialect.grain options.Venue)

        market.Record room
        markets <- Array.append markets [| market |]
        events <- Array.append events [| info.Event |]
        byCondition[info.Condition] <- market
        bySlug[info.Slug] <- market
        byId[string info.Id] <- market
        ofEvent[info.Event.Id] <- [| market |]

        for token in 0..1 do
            byToken[info.Tokens[token]] <- struct (market, token)

        announced.Add {
            At = at
            Market = market
            IsNew = true
        }

    let conclude (info: MarketInfo) at =
        let market = bySlug[info.Slug]
        market.Resolve at

        announced.Add {
            At = at
            Market = market
            IsNew = false
        }

    // (instant, action) of what newcomers do, in order; and how many of them are done.
    let diary =
        [|
            for struct (at, info) in newcomers do
                struct (at, fun at -> appear info at)
                struct (Micros.ofDate (info.Event.Ends.AddMinutes 2.0), fun at -> conclude info at)
        |]
        |> Array.sortBy (fun struct (at, _) -> at)

    let mutable turned = 0
    let possible = Dialect.streamFaults options.Venue
    let mutable faults = Set.intersect possible options.StreamFaults

    /// What happens at regular instants after `advanced`, until now.
    let slots every act now = [
        for slot in (advanced - born) / every + 1L .. (now - born) / every ->
            struct (born + slot * every, act)
    ]

    let load perSecond at =
        let trading =
            active
            |> Array.filter (fun index -> markets[index].IsTwoSided && markets[index].Closed.IsNone)

        let sum = trading |> Array.sumBy weight

        for index in trading do
            markets[index].SetLoad(perSecond * weight index / sum, at)

    let mutable messages = 0.0

    let setMessages perSecond at =
        if perSecond <> messages then
            messages <- perSecond
            // Whoever looks last may bring a time before one that was played.
            load perSecond (max at advanced)

    do
        play (Micros.ofDate start)
        advanced <- Micros.ofDate start

        for market in markets do
            market.Record room

        setMessages options.MessagesPerSecond advanced

    member _.Catalog = catalog
    /// Those that exist by now; new ones come at the end.
    member _.Markets = markets
    member _.Events = events
    /// How many markets there will ever be.
    member _.Capacity = catalog.Markets.Length + newcomers.Length
    /// The instant until which it was played.
    member _.Advanced = advanced
    member _.Seed = seed
    /// The instant at which its history begins, but for the archive.
    member _.Born = born
    member _.Injections = injections
    /// Markets that appeared and resolved, in order.
    member _.Announced = announced

    /// Whether a fault of the market channel is on.
    member _.Has fault =
        not faults.IsEmpty && faults.Contains fault

    /// The faults of the market channel that are on.
    member _.StreamFaults
        with get () = faults
        and set value = faults <- Set.intersect possible value

    /// Price changes a second beside the ordinary ones, from this instant on.
    member _.SetMessages(perSecond: float, at: int64) = setMessages perSecond at

    member _.Messages = messages
    member _.Frozen = frozen

    member _.MarketById(id: string) = find byId id
    member _.MarketBySlug(slug: string) = find bySlug slug
    member _.MarketByCondition(condition: string) = find byCondition condition
    member _.MarketByToken(token: string) = find byToken token
    member _.MarketsOf(event: EventInfo) = ofEvent[event.Id]

    /// Plays everything due until now, resolutions too when they are switched on.
    member _.Advance(now: int64, resolving: bool) =
        if frozen.IsNone && now > advanced then
            let due = [
                while turned < diary.Length && (let struct (at, _) = diary[turned] in at <= now) do
                    diary[turned]
                    turned <- turned + 1

                if resolving then
                    yield! slots resolveEvery resolve now

                if faults.Contains StreamFault.Crossed then
                    yield! slots (Micros.perSecond / 4L) cross now

                if faults.Contains StreamFault.TickSize then
                    yield! slots (5L * Micros.perSecond) refine now
            ]

            for struct (at, act) in due |> List.sortBy (fun struct (at, _) -> at) do
                play at
                act at

            play now
            advanced <- now

    /// From here on nothing changes, and every fill can be seen.
    member _.Freeze(now: int64) =
        if frozen.IsNone then
            frozen <- ValueSome now

    /// Whether the exchange lists this fill by now.
    member _.Shows(fill: inref<Fill>, now: int64) =
        frozen.IsSome || Dialect.visibleAt options.Venue &fill <= now

    /// The wallet of a trader; some are printed in mixed case, as the exchange does.
    member _.Wallet(trader: int) =
        let digits = Dice.Keyed(int64 seed, 7L, int64 trader).Hex 20

        if trader % 4 = 0 then
            "0x"
            + String.mapi (fun i c -> if i % 3 = 0 then Char.ToUpperInvariant c else c) digits
        else
            "0x" + digits
