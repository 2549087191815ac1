namespace Tributary

open System
open System.Collections.Generic

/// What there is of a market's trades of one day, of one source, and of the takers' or the makers' side: two records that are of the same
/// trades have the same tallies.
type Tally = {
    Exchange: ExchangeId
    Market: MarketId
    /// The first moment of the day, UTC.
    Day: Instant
    Source: Source
    /// Of the rows that are flagged as a maker's part; otherwise of all others.
    IsMaker: bool
    Rows: int64
    /// The sum of the sizes, in millionths.
    Size: UInt128
    /// The sum of price times size, in millionths of millionths. Exact as long as it is below 2^127, which no exchange comes near.
    Notional: Int128
    /// How many of the rows a link names, on either side.
    Linked: int64
    /// The sum of the ids as numbers, modulo 2^128: the same for the same rows, whatever their order.
    Digest: UInt128
}

[<RequireQualifiedAccess>]
module Tally =
    let private day = 86_400_000_000L

    /// The first moment of a moment's day, UTC.
    let dayOf (at: Instant) : Instant =
        let past = at.Micros % day
        Instant.ofMicros (at.Micros - (if past < 0L then past + day else past))

    /// By exchange, market, day, source, and takers first.
    let internal order (one: Tally) (other: Tally) =
        let byExchange = String.CompareOrdinal(string one.Exchange, string other.Exchange)

        if byExchange <> 0 then
            byExchange
        else
            let byMarket = String.CompareOrdinal(string one.Market, string other.Market)

            if byMarket <> 0 then
                byMarket
            elif one.Day.Micros <> other.Day.Micros then
                compare one.Day.Micros other.Day.Micros
            elif one.Source <> other.Source then
                compare (byte one.Source) (byte other.Source)
            else
                compare one.IsMaker other.IsMaker

[<Sealed>]
type private Sum() =
    [<DefaultValue>]
    val mutable Rows: int64

    [<DefaultValue>]
    val mutable Size: UInt128

    [<DefaultValue>]
    val mutable Notional: Int128

    [<DefaultValue>]
    val mutable Linked: int64

    [<DefaultValue>]
    val mutable Digest: UInt128

/// Makes tallies of trades, in whatever order they come. Markets are known by whatever the caller knows them by.
[<Sealed>]
type Tallies<'Market when 'Market: equality and 'Market: not null>() =
    let sums = Dictionary<struct ('Market * int64 * Source * bool), Sum>()

    /// Hot: an audit counts every row of a store.
    member _.Add
        (
            market: 'Market,
            at: Instant,
            source: Source,
            flags: Flags,
            price: Price,
            size: Size,
            id: TradeId,
            isLinked: bool
        ) =
        let isMaker = flags &&& Flags.Maker <> Flags.None
        let key = struct (market, (Tally.dayOf at).Micros, source, isMaker)
        let mutable sum = Unchecked.defaultof<Sum>

        if not (sums.TryGetValue(key, &sum)) then
            sum <- Sum()
            sums[key] <- sum

        sum.Rows <- sum.Rows + 1L
        sum.Size <- sum.Size + UInt128(0UL, uint64 size.Millionths)
        sum.Notional <- sum.Notional + Math.BigMul(price.Millionths, size.Millionths)
        sum.Digest <- sum.Digest + UInt128(id.High, id.Low)

        if isLinked then
            sum.Linked <- sum.Linked + 1L

    /// By exchange, market, day, source, and takers first.
    member _.Result(nameOf: 'Market -> struct (ExchangeId * MarketId)) : Tally list =
        let found = ResizeArray<Tally> sums.Count

        for KeyValue(struct (market, day, source, isMaker), sum) in sums do
            let struct (exchange, market) = nameOf market

            found.Add {
                Exchange = exchange
                Market = market
                Day = Instant.ofMicros day
                Source = source
                IsMaker = isMaker
                Rows = sum.Rows
                Size = sum.Size
                Notional = sum.Notional
                Linked = sum.Linked
                Digest = sum.Digest
            }

        found.Sort(Comparison Tally.order)
        List.ofSeq found
