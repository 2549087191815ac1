namespace Tributary

open System
open System.Collections.Concurrent
open System.Collections.Generic

/// What was stored of one market since the start.
[<Sealed>]
type internal MarketActivity() =
    // The newest trade by the exchange's clock, and the usual time between two, in microseconds.
    let mutable newest, usual = Int64.MinValue, -1.0
    member val Trades = 0L with get, set
    member val Books = 0L with get, set
    member val Deltas = 0L with get, set
    /// By our clock.
    member val LastTrade: Instant voption = ValueNone with get, set
    /// By our clock.
    member val LastBook: Instant voption = ValueNone with get, set
    member val Verdict: Verdict voption = ValueNone with get, set

    /// An average in which the last ten weigh two thirds.
    member _.TradeInterval: TimeSpan voption =
        if usual < 0.0 then
            ValueNone
        else
            ValueSome(TimeSpan.FromMicroseconds usual)

    member this.Traded(at: Instant, received: Instant) =
        this.Trades <- this.Trades + 1L
        this.LastTrade <- ValueSome received

        // Pages come newest first, and the past may be read late: only what is newer tells of an interval.
        if newest = Int64.MinValue then
            newest <- at.Micros
        elif at.Micros >= newest then
            let interval = float (at.Micros - newest)
            newest <- at.Micros

            usual <-
                if usual < 0.0 then
                    interval
                else
                    usual + (interval - usual) / 10.0

/// What was stored of each market since the start, by the market's name. Told by one writer, and read by anybody.
[<Sealed>]
type internal Activity() =
    let markets = ConcurrentDictionary<int, MarketActivity>()

    let find (market: Name) =
        match markets.TryGetValue market.Key with
        | true, known -> known
        | _ -> markets.GetOrAdd(market.Key, fun _ -> MarketActivity())

    /// These batches are durable.
    member _.Committed(batches: IReadOnlyList<Batch>) =
        for batch in batches do
            for i in 0 .. batch.Trades.Count - 1 do
                let row = &batch.Trades[i]

                if row.Inserted then
                    (find row.Market).Traded(row.At, row.Received)

            for i in 0 .. batch.Books.Count - 1 do
                let row = &batch.Books[i]
                let market = find row.Market
                market.LastBook <- ValueSome row.Received
                market.Verdict <- ValueSome row.Verdict

                if row.Inserted then
                    market.Books <- market.Books + 1L

            // Changes of one market follow each other: the last of them tells.
            let mutable inserted = 0L

            for i in 0 .. batch.Deltas.Count - 1 do
                let row = &batch.Deltas[i]

                if row.Inserted then
                    inserted <- inserted + 1L

                if i + 1 = batch.Deltas.Count || batch.Deltas[i + 1].Market.Key <> row.Market.Key then
                    let market = find row.Market
                    market.LastBook <- ValueSome row.Received
                    market.Verdict <- ValueSome row.Verdict
                    market.Deltas <- market.Deltas + inserted
                    inserted <- 0L

    member _.TryFind(market: Name) : MarketActivity voption =
        match markets.TryGetValue market.Key with
        | true, known -> ValueSome known
        | _ -> ValueNone
