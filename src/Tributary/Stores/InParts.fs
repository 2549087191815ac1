namespace Tributary.Stores

open System.Threading
open System.Threading.Tasks
open Tributary

/// Trades in parts: whole seconds of them, in the order of time, so many as fit into memory.
[<RequireQualifiedAccess>]
module InParts =
    let private most = 20_000

    /// The first part of the trades that a query is about, by whoever answers it (`Store.Trades`), and where the next one begins; nothing when this was the last. A second with
    /// more trades than a part holds is read as a whole. The query's limit restricts nothing.
    let next
        (trades: Query -> Task<Trade list>)
        (query: Query)
        : Task<struct (Trade list * Instant voption)> = task {
        let mutable limit = most
        let mutable found = Unchecked.defaultof<struct (Trade list * Instant voption)>

        while limit > 0 do
            let! rows =
                trades {
                    query with
                        Limit = limit
                        Latest = false
                }

            if rows.Length < limit then
                found <- struct (rows, ValueNone)
                limit <- 0
            else
                // The last second may go on behind the limit.
                let last = (List.last rows).At
                let edge = Instant.ofMicros (last.Micros - last.Micros % 1_000_000L)

                if edge > query.Since then
                    found <- struct (rows |> List.takeWhile (fun trade -> trade.At < edge), ValueSome edge)
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
                next store.Trades {
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
