namespace Tributary.Server.Simulator

open System

/// What another exchange calls the same markets, and what their books are made of.
module internal Dialect =
    /// What all sizes are multiples of, in millionths.
    let grain venue =
        match venue with
        | Venue.Polymarket -> 1L
        // Two decimals. The size of a limit order of Manifold's is so much mana at whole percents, which is exact then.
        | Venue.Kalshi
        | Venue.Manifold -> 10_000L

    /// A page of Manifold's holds a thousand orders, and all of a question's books have to be on it.
    let mostLevels venue =
        match venue with
        | Venue.Polymarket
        | Venue.Kalshi -> 60
        | Venue.Manifold -> 20

    /// The letters of a slug's first word, for a series: `KXMAYOR`.
    let private series (slug: string) =
        let word = Array.head (slug.Split '-')
        "KX" + String.filter Char.IsAsciiLetter (word.ToUpperInvariant())

    /// `KXMAYOR-30011`.
    let eventTicker (event: EventInfo) = $"{series event.Slug}-{event.Id}"

    let seriesTicker (event: EventInfo) = series event.Slug

    let private letters =
        "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

    /// An id of letters and digits, as Manifold draws them.
    let id seed (key: int64) (number: int64) =
        let random = Dice.Keyed(int64 seed, key, number)
        String.init 12 (fun _ -> string letters[random.Below letters.Length])

    /// A question with several answers is one market of Manifold's.
    let isMulti (info: MarketInfo) = info.Event.NegRisk

    let contract seed (info: MarketInfo) =
        if isMulti info then
            id seed 51L (int64 info.Event.Id)
        else
            id seed 52L (int64 info.Id)

    /// Empty when it is the only one.
    let answer seed (info: MarketInfo) =
        if isMulti info then id seed 53L (int64 info.Id) else ""

    /// A market under its names at that exchange, with prices on its grid.
    let market venue seed (info: MarketInfo) =
        match venue with
        | Venue.Polymarket -> info
        | Venue.Kalshi ->
            let ticker = $"{eventTicker info.Event}-{info.Id}"

            {
                info with
                    Condition = ticker
                    Tokens = [| ticker + ":YES"; ticker + ":NO" |]
                    Outcomes = [| "Yes"; "No" |]
                    Tick = if info.Tick < 2_500L then 1_000L else 10_000L
            }
        | Venue.Manifold ->
            let name =
                match answer seed info with
                | "" -> contract seed info
                | answer -> $"{contract seed info}:{answer}"

            {
                info with
                    Condition = name
                    Tokens = [| name + ":YES"; name + ":NO" |]
                    Outcomes = [| "Yes"; "No" |]
                    Tick = 10_000L
            }

    let catalog venue seed (made: Catalog) = {
        made with
            Markets = made.Markets |> Array.map (market venue seed)
    }

    /// A fill's own id, where the exchange gives each one: a number of its transaction, and which it is among identical ones.
    let private drawn seed (info: MarketInfo) (fill: Fill) =
        Dice.Keyed(
            int64 seed,
            54L,
            int64 info.Index,
            int64 fill.Transaction,
            int64 fill.Token,
            fill.Price,
            fill.Size,
            int64 fill.Occurrence
        )

    /// Looks like a UUID, and is none: its version is random.
    let tradeId seed info fill =
        let hex = (drawn seed info fill).Hex 16
        $"{hex[0..7]}-{hex[8..11]}-{hex[12..15]}-{hex[16..19]}-{hex[20..31]}"

    /// The market's other name on the channel.
    let uuid seed (info: MarketInfo) =
        let hex = Dice.Keyed(int64 seed, 59L, int64 info.Id).Hex 16
        $"{hex[0..7]}-{hex[8..11]}-{hex[12..15]}-{hex[16..19]}-{hex[20..31]}"

    /// What can go wrong on a channel.
    let streamFaults venue =
        match venue with
        | Venue.Polymarket -> StreamFault.all |> List.map fst |> Set.ofList
        // Whether a half-open connection answers pings is the business of another layer; books are never crossed.
        | Venue.Kalshi ->
            Set.ofList [
                StreamFault.Dropped
                StreamFault.Duplicated
                StreamFault.Reordered
                StreamFault.SilentSocket
                StreamFault.Close
            ]
        | Venue.Manifold ->
            Set.ofList [
                StreamFault.Dropped
                StreamFault.Duplicated
                StreamFault.Reordered
                StreamFault.SilentSocket
                StreamFault.HalfOpen
                StreamFault.Close
            ]

    let betId seed info fill =
        let random = drawn seed info fill
        String.init 12 (fun _ -> string letters[random.Below letters.Length])

    /// The instant from which on a fill is listed: Kalshi's are at once, or nearly so.
    let visibleAt venue (fill: inref<Fill>) =
        match venue with
        | Venue.Kalshi -> min fill.VisibleAt (fill.At + 300_000L)
        | Venue.Polymarket
        | Venue.Manifold -> fill.VisibleAt

    /// Of Kalshi's fills the price of YES, and whether the taker bought YES: who takes NO sells it.
    let ofYes (fill: Fill) =
        struct ((if fill.Token = 0 then
                     fill.Price
                 else
                     Millionths.one - fill.Price),
                (fill.Token = 0) = fill.Buys)
