namespace Tributary

open System
open System.Collections.Generic
open System.Threading
open System.Threading.Tasks
open Tributary.Stores

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
