namespace Tributary.Stores

open System.Threading
open System.Threading.Tasks
open Tributary

/// Rows in parts: whole seconds of them, in the order of time, so many as fit into memory.
[<RequireQualifiedAccess>]
module InParts =
    let private most = 20_000

    /// The first part of the rows that a query is about, by whoever answers it (such as `Store.Trades`) and with the time of a row, and where the
    /// next part begins; nothing when this was the last. A second with more rows than a part holds is read as a whole. The query's
    /// limit restricts nothing.
    let next
        (read: Query -> Task<'Row list>)
        (at: 'Row -> Instant)
        (query: Query)
        : Task<struct ('Row list * Instant voption)> = task {
        let mutable limit = most
        let mutable found = Unchecked.defaultof<struct ('Row list * Instant voption)>

        while limit > 0 do
            let! rows =
                read {
                    query with
                        Limit = limit
                        Latest = false
                }

            if rows.Length < limit then
                found <- struct (rows, ValueNone)
                limit <- 0
            else
                // The last second may go on behind the limit.
                let last = at (List.last rows)
                let edge = Instant.ofMicros (last.Micros - last.Micros % 1_000_000L)

                if edge > query.Since then
                    found <- struct (rows |> List.takeWhile (fun row -> at row < edge), ValueSome edge)
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
                next store.Trades _.At {
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
