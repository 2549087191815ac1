namespace Tributary

open System
open System.Collections.Generic
open System.Threading
open System.Threading.Tasks
open Tributary.Stores

/// Trades in parts: whole seconds of them, in the order of time, so many as fit into memory.
[<RequireQualifiedAccess>]
module InParts =
    let private most = 20_000

    /// The first part of the trades that a query is about, and where the next one begins; nothing when this was the last. A second with
    /// more trades than a part holds is read as a whole. The query's limit restricts nothing.
    let next (store: Store) (query: Query) : Task<struct (Trade list * Instant voption)> = task {
        let mutable limit = most
        let mutable found = Unchecked.defaultof<struct (Trade list * Instant voption)>

        while limit > 0 do
            let! trades =
                store.Trades {
                    query with
                        Limit = limit
                        Latest = false
                }

            if trades.Length < limit then
                found <- struct (trades, ValueNone)
                limit <- 0
            else
                // The last second may go on behind the limit.
                let last = (List.last trades).At
                let edge = Instant.ofMicros (last.Micros - last.Micros % 1_000_000L)

                if edge > query.Since then
                    found <- struct (trades |> List.takeWhile (fun trade -> trade.At < edge), ValueSome edge)
                    limit <- 0
                else
                    limit <- limit * 2

        return found
    }

    /// Calls `part` with the trades of each part of a market's and with the time that it covers.
    let internal trades
        (store: Store)
        (exchange: ExchangeId)
        (market: MarketId)
        (span: Interval)
        (part: Interval -> Trade list -> Task<unit>)
        (ct: CancellationToken)
        : Task<unit> = task {
        let mutable since = span.Since

        while since < span.Until do
            ct.ThrowIfCancellationRequested()

            let! struct (found, following) =
                next store {
                    Query.everything with
                        Exchange = ValueSome exchange
                        Market = ValueSome market
                        Since = since
                        Until = span.Until
                }

            let until = following |> ValueOption.defaultValue span.Until
            do! part { Since = since; Until = until } found
            since <- until
    }

/// Audits of what a store holds.
[<RequireQualifiedAccess>]
module Audits =
    /// What is stored of a market, by day.
    let private tallies (store: Store) (market: Market) (span: Interval) = task {
        let! found =
            store.Tally {
                Query.everything with
                    Exchange = ValueSome market.Exchange
                    Market = ValueSome market.Market
                    Since = span.Since
                    Until = span.Until
            }

        return
            found
            |> List.groupBy _.Day
            |> List.map (fun (day, own) -> day, DayTally.ofTallies own)
            |> Map.ofList
    }

    let private patience = TimeSpan.FromSeconds 5.0

    /// Whether all that was written can be read.
    let private isSettled (store: Store) (clock: TimeProvider) (ct: CancellationToken) = task {
        use soon = new CancellationTokenSource(patience, clock)
        use either = CancellationTokenSource.CreateLinkedTokenSource(soon.Token, ct)

        try
            do! store.Flush either.Token
            return true
        with :? OperationCanceledException when not ct.IsCancellationRequested ->
            return false
    }

    /// Judges every day of the markets of an exchange that a store has, or of those that `isWanted` picks, within some time. Calls
    /// `report` after each market. While rows are on their way to where they are read, nothing is complete. Memory does not depend on the number of trades.
    let run
        (collector: Collector)
        (store: Store)
        (isWanted: Market -> bool)
        (wanted: Interval)
        (clock: TimeProvider)
        (report: AuditedMarket -> unit)
        (ct: CancellationToken)
        : Task<AuditedMarket list> = task {
        let now = Instant.ofDateTimeOffset (clock.GetUtcNow())
        // What checkpoints stand for was written before them.
        let! checkpoints = store.Checkpoints()
        let! isSettled = isSettled store clock ct
        let! markets = store.Markets()
        let! gaps = store.Gaps Query.everything
        let coverage = Plan.coverage collector.Exchange checkpoints
        let audited = List<AuditedMarket>()

        let limits =
            collector.History
            |> List.filter (fun source -> source.Stream = Stream.History)
            |> List.map _.Limits

        let mine =
            markets
            |> List.filter (fun market -> market.Exchange = collector.Exchange && isWanted market)
            |> List.sortBy _.Slug

        let gaps =
            gaps
            |> List.map _.Gap
            |> List.filter (fun gap -> gap.Exchange = collector.Exchange)
            |> List.groupBy _.Market
            |> Map.ofList

        for market in mine do
            // What is newer than what was read of a day belongs to a later audit, so that this one's sums and digest stay what they are.
            let span = {
                wanted with
                    Until = min wanted.Until (Audit.until limits coverage market now)
            }

            ct.ThrowIfCancellationRequested()
            let! tallies = tallies store market span

            let one =
                Audit.market
                    limits
                    coverage
                    (gaps |> Map.tryFind market.Market |> Option.defaultValue [])
                    tallies
                    wanted
                    now
                    market

            let one =
                if isSettled then
                    one
                else
                    Audit.doubting "rows wait in the outbox and cannot be read yet" one

            report one
            audited.Add one

        return List.ofSeq audited
    }
