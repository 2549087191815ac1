namespace Tributary.Stores

open System
open System.Collections.Generic
open System.Threading
open System.Threading.Tasks
open Tributary

/// Deletes old rows over the writing connection, in transactions of some thousand rows at most. In each of them the gap that tells of
/// them grows, so that at no moment anything is missing in silence, however the process ends.
///
/// Books can be rebuilt afterwards wherever they could before, from the first moment that is kept on:
/// 1. Changes go up to the newest whole book, at or before the moment from which they are kept, that no proof disagreed with.
/// 2. Whole books go up to the newest such book at or before the moment from which they are kept, or the oldest change that is there, if that
///    is earlier: that change, and each hole behind it, needs them.
[<Sealed>]
type internal SqliteExpiry(db: Connection, collector: string) =
    /// Rows that one transaction deletes, about: a deletion takes some microseconds, and writes wait as long.
    let fewSmall, fewLarge = 4_000L, 500L

    let ask sql = db.Prepare sql

    let tokens = ask "SELECT id FROM token_keys ORDER BY id"
    let markets = ask "SELECT id FROM market_keys ORDER BY id"
    let metrics = ask "SELECT id FROM metric_keys ORDER BY id"

    let baseUpTo =
        ask
            "SELECT at FROM orderbook_snapshots WHERE token = ?1 AND at <= ?2 AND verdict <> 2 ORDER BY at DESC LIMIT 1"

    let firstDelta =
        ask "SELECT at FROM orderbook_deltas WHERE token = ?1 ORDER BY at LIMIT 1"

    /// Of the first rows of a key before a moment: the first, the last, and what has to stay out of it.
    let span table key order =
        ask
            $"SELECT min(at), max(at) FROM (SELECT at FROM {table} WHERE {key} = ?1 AND at < ?2 ORDER BY {order} LIMIT ?3)"

    let delete table key =
        ask $"DELETE FROM {table} WHERE {key} = ?1 AND at <= ?2"

    let deltaSpan, deleteDeltas =
        span "orderbook_deltas" "token" "at, ordinal, side, price", delete "orderbook_deltas" "token"

    let bookSpan, deleteBooks =
        span "orderbook_snapshots" "token" "at, hash", delete "orderbook_snapshots" "token"

    let tradeSpan, deleteTrades =
        span "trades" "market" "at, trade_id, source", delete "trades" "market"

    let statsSpan, deleteStats =
        span "market_stats" "market" "at", delete "market_stats" "market"

    let metricSpan, deleteMetrics =
        span "collection_metrics" "metric" "at", delete "collection_metrics" "metric"

    let lastStats = ask "SELECT max(at) FROM market_stats WHERE market = ?1"

    let lastMetric = ask "SELECT max(at) FROM collection_metrics WHERE metric = ?1"

    let lateTrade =
        ask "SELECT 1 FROM trades WHERE market = ?1 AND at <= ?2 AND received >= ?3 LIMIT 1"

    let unlink =
        [ "trade_id"; "other_id" ]
        |> List.map (fun side ->
            ask
                $"DELETE FROM trade_links WHERE {side} IN (SELECT trade_id FROM trades WHERE market = ?1 AND at <= ?2)")

    let oldestWaiting = ask "SELECT min(written) FROM outbox"
    let ofToken = ask "SELECT market FROM token_keys WHERE id = ?1"

    // One row that grows, and that is torn open again where somebody had read the past anew.
    let growGap =
        ask
            "UPDATE gaps SET until = max(until, ?6), healed_at = NULL, healed_by = NULL
             WHERE collector = ?1 AND market = ?2 AND stream = ?3 AND token = ?4 AND cause = ?5"

    let addGap =
        ask
            "INSERT INTO gaps (collector, market, stream, token, cause, since, until) VALUES (?1, ?2, ?3, ?4, ?5, ?7, ?6)"

    let metricKey =
        ask
            "INSERT INTO metric_keys (name, labels) VALUES ('rows_expired', ?1)
             ON CONFLICT (name, labels) DO UPDATE SET name = excluded.name RETURNING id"

    let metric =
        ask
            "INSERT INTO collection_metrics (metric, at, value)
             VALUES (?1, ?2, ?3 + coalesce((SELECT value FROM collection_metrics WHERE metric = ?1 ORDER BY at DESC LIMIT 1), 0))
             ON CONFLICT (metric, at) DO UPDATE SET value = value + ?3"

    let keys (statement: Statement) =
        statement.Rows(fun row -> row.Integer 0)

    let oneOf (statement: Statement) : int64 voption =
        match statement.Rows(fun row -> row.IntegerOrNull 0) with
        | found :: _ -> found
        | [] -> ValueNone

    let transaction (work: unit -> int64) : int64 =
        db.Execute "BEGIN IMMEDIATE"

        try
            let rows = work ()
            db.Execute "COMMIT"
            rows
        with _ ->
            db.Rollback()
            reraise ()

    let tell market stream token (first: int64) (last: int64) =
        for statement in [ growGap; addGap ] do
            statement.Text(1, collector)
            statement.Integer(2, market)
            statement.Text(3, string (stream: Stream))
            statement.Integer(4, token)
            statement.Text(5, string Cause.Expired)
            statement.Integer(6, last + 1L)

        growGap.Run()

        if db.Changes = 0 then
            addGap.Integer(7, first)
            addGap.Run()

    /// Deletes the first rows of a key before a moment; `few` bounds them, but for those of the last moment. The first and the last of
    /// them are told.
    let deleteFirst
        (span: Statement)
        (delete: Statement)
        key
        (before: int64)
        few
        (spare: int64 -> bool)
        (told: int64 -> int64 -> unit)
        =
        span.Integer(1, key)
        span.Integer(2, before)
        span.Integer(3, few)

        match span.Rows(fun row -> struct (row.IntegerOrNull 0, row.IntegerOrNull 1)) with
        | [ struct (ValueSome first, ValueSome last) ] when not (spare last) ->
            told first last
            delete.Integer(1, key)
            delete.Integer(2, last)
            delete.Run()
            int64 db.Changes
        | _ -> 0L

    let marketOf token =
        ofToken.Integer(1, token)
        oneOf ofToken |> ValueOption.get

    let newestBase token (upTo: int64) =
        baseUpTo.Integer(1, token)
        baseUpTo.Integer(2, upTo)
        oneOf baseUpTo

    let none (_: int64) = false

    let deltas (before: int64) token =
        match newestBase token before with
        | ValueNone -> 0L
        | ValueSome start ->
            deleteFirst deltaSpan deleteDeltas token start fewSmall none (fun first last ->
                tell (marketOf token) Stream.Depth token first last)

    let books (before: int64) token =
        firstDelta.Integer(1, token)

        let needed =
            match oneOf firstDelta with
            | ValueSome first -> min first before
            | ValueNone -> before

        match newestBase token needed with
        | ValueNone -> 0L
        | ValueSome start ->
            deleteFirst bookSpan deleteBooks token start fewLarge none (fun first last ->
                tell (marketOf token) Stream.Books token first last)

    let trades (before: int64) (waiting: int64 voption) market =
        // What a store that is elsewhere has not got yet is read from here.
        let isWaiting (last: int64) =
            match waiting with
            | ValueSome since ->
                lateTrade.Integer(1, market)
                lateTrade.Integer(2, last)
                lateTrade.Integer(3, since)
                (oneOf lateTrade).IsSome
            | ValueNone -> false

        deleteFirst tradeSpan deleteTrades market before fewSmall isWaiting (fun first last ->
            tell market Stream.Trades 0L first last

            for statement in unlink do
                statement.Integer(1, market)
                statement.Integer(2, last)
                statement.Run())

    let stats (before: int64) market =
        lastStats.Integer(1, market)

        match oneOf lastStats with
        | ValueSome newest ->
            deleteFirst statsSpan deleteStats market (min before newest) fewSmall none (fun first last ->
                tell market Stream.Markets 0L first last)
        | ValueNone -> 0L

    let counters (before: int64) metric =
        lastMetric.Integer(1, metric)

        match oneOf lastMetric with
        | ValueSome newest ->
            deleteFirst metricSpan deleteMetrics metric (min before newest) fewSmall none (fun _ _ -> ())
        | ValueNone -> 0L

    let aDay = 86_400_000_000L

    /// Whether anything is to be deleted at all.
    static member IsWanted(retention: RetentionSettings) =
        retention.OrderbookDeltas.IsSome
        || retention.OrderbookSnapshots.IsSome
        || retention.MarketStats.IsSome
        || retention.CollectionMetrics.IsSome
        || retention.Trades.IsSome

    /// Deletes all that is too old at a moment. `alone` runs a step while nobody else uses the connection, and answers what it answers;
    /// others have their turn between two steps.
    member _.Run
        (retention: RetentionSettings, now: Instant, alone: (unit -> int64) -> int64, ct: CancellationToken)
        : Task<Expired list> = task {
        let expired = ResizeArray<Expired>()
        let mutable waiting = ValueNone

        alone (fun () ->
            waiting <- oneOf oldestWaiting
            0L)
        |> ignore

        let before (age: TimeSpan) =
            let moment = (now - age).Micros

            match waiting with
            // Rows are received soon after they were; an hour is more than late ones take.
            | ValueSome since -> min moment (since - 3_600_000_000L)
            | ValueNone -> moment

        let each table (keysOf: Statement) (step: int64 -> int64) : Task<unit> = task {
            let all = ResizeArray<int64>()

            alone (fun () ->
                all.AddRange(keys keysOf)
                0L)
            |> ignore

            let mutable rows = 0L

            for key in all do
                let mutable more = not ct.IsCancellationRequested

                while more do
                    let deleted = alone (fun () -> transaction (fun () -> step key))
                    rows <- rows + deleted
                    more <- deleted > 0L && not ct.IsCancellationRequested

                    if more then
                        do! Task.Delay(2, CancellationToken.None)

            if rows > 0L then
                alone (fun () ->
                    transaction (fun () ->
                        metricKey.Text(1, $"table={table}")
                        metric.Integer(1, (oneOf metricKey).Value)
                        metric.Integer(2, now.Micros)
                        metric.Real(3, float rows)
                        metric.Run()
                        rows))
                |> ignore

                expired.Add { Table = table; Rows = rows }
        }

        match retention.OrderbookDeltas with
        | Some age -> do! each "orderbook_deltas" tokens (deltas (before age))
        | None -> ()

        match retention.OrderbookSnapshots with
        | Some age -> do! each "orderbook_snapshots" tokens (books (before age))
        | None -> ()

        match retention.Trades with
        | Some age ->
            // Whole days, as they are audited.
            let moment = (now - age).Micros
            do! each "trades" markets (trades (moment - moment % aDay) waiting)
        | None -> ()

        match retention.MarketStats with
        | Some age -> do! each "market_stats" markets (stats (before age))
        | None -> ()

        match retention.CollectionMetrics with
        | Some age -> do! each "collection_metrics" metrics (counters (before age))
        | None -> ()

        return List.ofSeq expired
    }
