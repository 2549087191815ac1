/// What a store does with rows that it may have already: decisions that every store shares, whatever it is made of.
[<RequireQualifiedAccess>]
module internal Tributary.Stores.Merging

open System.Collections.Generic
open Tributary

/// A version of a market is described by all but these.
let private described (market: Market) = {
    market with
        Volume = ValueNone
        Liquidity = ValueNone
        OpenInterest = ValueNone
        Updated = ValueNone
        Received = Instant.ofMicros 0L
        Raw = ""
}

/// When a description was made, as far as that is known.
let momentOf (market: Market) =
    ValueOption.defaultValue market.Received market.Updated

let hasStats (market: Market) =
    market.Volume.IsSome || market.Liquidity.IsSome || market.OpenInterest.IsSome

let newest (versions: Market seq) =
    versions
    |> Seq.sortBy (fun version -> struct (momentOf version, version.Received))
    |> Seq.tryLast

/// Whether a description says something that these versions do not.
let isNews (versions: Market seq) (market: Market) =
    let at = momentOf market
    let isSame version = described version = described market

    not (
        versions
        |> Seq.filter (fun version -> momentOf version <= at)
        |> newest
        |> Option.exists isSame
        || versions |> Seq.exists (fun version -> momentOf version = at && isSame version)
    )

/// A version, with the newest numbers beside it.
let withStats (numbers: Market voption) (version: Market) =
    match numbers with
    | ValueSome numbers -> {
        version with
            Volume = numbers.Volume
            Liquidity = numbers.Liquidity
            OpenInterest = numbers.OpenInterest
      }
    | ValueNone -> version

/// A gap is only ever closed or healed, never opened again.
let gap (known: Gap voption) (gap: Gap) =
    match known with
    // What was dropped of our own making grows with every drop, and what was healed before is torn open again.
    | ValueSome known when gap.Cause = Cause.Overrun && gap.Until > known.Until && known.Until.IsSome -> {
        known with
            Until = gap.Until
            Healed = ValueNone
      }
    | ValueSome known -> {
        known with
            Until = ValueOption.orElse gap.Until known.Until
            Healed = ValueOption.orElse gap.Healed known.Healed
      }
    | ValueNone -> gap

/// A watermark never goes back: what was read stays read, whatever order the reports come in.
let checkpoint (known: Checkpoint voption) (checkpoint: Checkpoint) =
    match known with
    | ValueSome known -> {
        checkpoint with
            Watermark = max known.Watermark checkpoint.Watermark
      }
    | ValueNone -> checkpoint

/// Whether a gap is what a query is about: one overlaps a span of time that begins before it ends, and an open one goes on for ever.
let isAbout (query: Query) (gap: Gap) =
    (query.Exchange.IsNone || query.Exchange = ValueSome gap.Exchange)
    && (query.Market.IsNone || query.Market = ValueSome gap.Market)
    && (match query.Token, gap.Token with
        | ValueNone, _ -> true
        | wanted, ValueSome _ -> wanted = gap.Token
        | _, ValueNone -> query.Market.IsSome)
    && gap.Since < query.Until
    && (match gap.Until with
        | ValueSome until -> until > query.Since || gap.Since >= query.Since
        | ValueNone -> true)

/// What rows of the account's own orders are sorted by.
let orderOfOrder (row: OwnOrder) =
    struct (row.At, row.Order, row.Filled.Millionths, row.Status, string row.Exchange)

/// What rows of the account's own trades are sorted by.
let orderOfTrade (row: OwnTrade) =
    struct (row.At, row.Trade, row.Order, row.Status, struct (string row.Token, string row.Exchange))

/// What confirmations and withdrawals are sorted by.
let orderOfMatch (row: MarketMatch) =
    struct (row.At,
            row.Question,
            row.Answer,
            string row.Exchange,
            struct (string row.Market, string row.Token))

/// Of each counter its latest value, by names and labels.
let latest (metrics: Metric seq) : Metric list =
    metrics
    |> Seq.groupBy (fun metric -> struct (metric.Name, metric.Labels))
    |> Seq.map (fun (_, same) -> same |> Seq.maxBy _.At)
    |> Seq.sortBy (fun metric -> struct (metric.Name, metric.Labels))
    |> List.ofSeq

/// The trades that links name, on either side.
let linked (links: TradeLink seq) : HashSet<TradeId> =
    let found = HashSet()

    for link in links do
        found.Add link.Trade |> ignore
        found.Add link.Other |> ignore

    found
