namespace Tributary

open System
open System.Collections.Concurrent

/// One flow: the books of a token, or the trades of a market. Its track says what is known of it; every change of the track leaves
/// its rows in a batch, so that they become durable with the rows that they are about.
[<Sealed>]
type internal Flow
    (
        exchange: ExchangeId,
        stream: Stream,
        market: MarketId,
        token: TokenId voption,
        track: Track,
        watermark: Instant,
        meters: Meters
    ) =
    let gate = obj ()
    let meters = meters.Of(string exchange)
    let mutable track = track
    let mutable watermark = watermark
    let mutable last: Checkpoint voption = ValueNone
    let mutable isOver = false

    let job =
        match token with
        | ValueSome token -> $"{exchange}/{stream}/{market}/{token}"
        | ValueNone -> $"{exchange}/{stream}/{market}"

    let gap (struct (since, cause)) until healed : Gap = {
        Exchange = exchange
        Stream = stream
        Market = market
        Token = token
        Since = since
        Until = until
        Cause = cause
        Healed = healed
    }

    let closed (hole: (struct (Instant * Cause)) voption) until healed (batch: Batch) =
        match hole with
        | ValueSome hole ->
            batch.Gaps.Add(gap hole (ValueSome until) healed)
            meters.Add(Count.gapsClosed, $"stream={stream}")
        | ValueNone -> ()

    let opened (hole: (struct (Instant * Cause)) voption) (batch: Batch) =
        match hole with
        | ValueSome(struct (_, cause) as hole) ->
            batch.Gaps.Add(gap hole ValueNone ValueNone)
            meters.Add(Count.gapsOpened, $"stream={stream},cause={cause}")
        | ValueNone -> ()

    member _.Exchange = exchange
    member _.Stream = stream
    member _.Market = market
    member _.Token = token
    member _.Job = job
    member _.Track = track
    /// The book that was stored last: when it comes again, it is unchanged.
    member val LastBook: struct (Instant * string) = struct (Instant.ofMicros 0L, "") with get, set

    /// Up to when the flow has been read, by the exchange's clock where that is what is read by (trades).
    member _.Watermark = watermark

    /// A poll was good `now`, and has read everything up to `until`. Leaves the end of an open gap, and the checkpoint.
    member _.IsGood(until: Instant, now: Instant, rows: int, took: TimeSpan, batch: Batch) =
        lock gate (fun () ->
            let struct (next, ended, begun) = Gaps.good now track
            track <- next
            watermark <- max watermark until

            // The hole ends with the poll that was good. Depth that was not seen is gone; trades are there when the follow has
            // caught up.
            let healed =
                if stream = Stream.Trades then
                    ValueSome(struct (now, "follow"))
                else
                    ValueNone

            if not isOver then
                closed ended now healed batch
                opened begun batch

            meters.Add(Count.pollsGood, $"stream={stream}")

            let checkpoint: Checkpoint = {
                Job = job
                Exchange = exchange
                Stream = stream
                Market = market
                Token = token
                Since = ValueOption.defaultValue now next.Since
                Watermark = watermark
                Rows = rows
                Error = ""
                Duration = took
                State = ""
            }

            last <- ValueSome checkpoint
            batch.Checkpoints.Add checkpoint)

    /// `count` due polls did not bring what they should. Leaves the beginning of a gap, unless one is open, and the checkpoint of the
    /// last good poll with what went wrong since, for `status`. A flow that is over hears of polls that were under way when it
    /// ended: nothing would close their gap later.
    member _.IsMissed(cause: Cause, at: Instant, count: int, batch: Batch) =
        lock gate (fun () ->
            let struct (next, hole) = Gaps.missed cause at track
            track <- next
            meters.Add(Count.pollsMissed, $"stream={stream},cause={cause}", int64 count)

            opened hole batch

            match last with
            | ValueSome checkpoint ->
                batch.Checkpoints.Add {
                    checkpoint with
                        Rows = 0
                        Error = string cause
                        Duration = TimeSpan.Zero
                }
            | ValueNone -> ()

            if isOver then
                closed hole at ValueNone batch)

    /// Part of what was asked for cannot be had.
    member _.IsTruncated(since: Instant, until: Instant, batch: Batch) =
        batch.Gaps.Add(gap (struct (since, Cause.Truncated)) (ValueSome until) ValueNone)
        meters.Add(Count.gapsOpened, $"stream={stream},cause={Cause.Truncated}")

    /// The flow goes on from an earlier run. Leaves the beginning of the gap since then, if there is one: it may not be written yet.
    member _.IsResumed(batch: Batch) = opened (Gaps.hole track) batch

    /// The flow ends for a good reason (its market closed): an open gap ends with it.
    member _.Ends(at: Instant, batch: Batch) =
        lock gate (fun () ->
            if not isOver then
                isOver <- true
                closed (Gaps.hole track) at ValueNone batch)

/// All flows of a collector, found by what they are about: books by their token, trades by their market.
[<Sealed>]
type internal Flows(meters: Meters) =
    let flows = ConcurrentDictionary<struct (ExchangeId * Stream * string), Flow>()
    // What an earlier run left of flows that have not begun in this one.
    let earlier = ConcurrentDictionary<struct (ExchangeId * Stream * string), Flow>()

    /// What is known of a flow that was read from one moment to another, and not since: books were not polled in between, which is a gap;
    /// trades are read from where it stopped.
    static let left stream (since: Instant) (watermark: Instant) =
        match stream with
        | Stream.Books -> Gaps.resume since watermark ValueNone
        | _ -> {
            Gaps.follow watermark with
                Since = ValueSome since
          }

    static let keyOf exchange stream (market: MarketId) (token: TokenId voption) =
        match token with
        | ValueSome token -> struct (exchange, stream, string token)
        | ValueNone -> struct (exchange, stream, string market)

    member _.All = flows.Values

    /// A flow is collected from now on: from where an earlier run left it, which may leave the beginning of a gap, else with
    /// this track. One that is collected already goes on.
    member _.Begin(exchange, stream, market, token, track: Track, batch: Batch) =
        let key = keyOf exchange stream market token

        if not (flows.ContainsKey key) then
            flows[key] <-
                match earlier.TryRemove key with
                | true, flow ->
                    flow.IsResumed batch
                    flow
                | _ ->
                    let watermark = ValueOption.defaultValue (Instant.ofMicros 0L) track.Good
                    Flow(exchange, stream, market, token, track, watermark, meters)

    /// The flow of a token's books, or of a market's trades, if it is collected.
    member _.TryFind(exchange: ExchangeId, stream: Stream, key: string) : Flow voption =
        match flows.TryGetValue(struct (exchange, stream, key)) with
        | true, flow -> ValueSome flow
        | _ -> ValueNone

    /// A flow is collected no longer; an open gap ends with it. Should it come back in this run, it goes on as after a stop.
    member _.End(exchange, stream, market, token, at, batch) =
        let key = keyOf exchange stream market token

        match flows.TryRemove key with
        | true, flow ->
            flow.Ends(at, batch)

            // Of one that was never good there is nothing to go on from.
            match flow.Track.Since with
            | ValueSome since when flow.Watermark.Micros > 0L ->
                earlier[key] <-
                    Flow(
                        exchange,
                        stream,
                        market,
                        token,
                        left stream since flow.Watermark,
                        flow.Watermark,
                        meters
                    )
            | _ -> ()
        | _ -> ()

    /// Takes up what an earlier run left. A gap that is open goes on as it is, also when nothing was ever good.
    member _.Resume(checkpoints: Checkpoint list, openGaps: Gap list) =
        let take exchange stream market token track watermark =
            earlier[keyOf exchange stream market token] <-
                Flow(exchange, stream, market, token, track, watermark, meters)

        // Live books keep their own accounts.
        let checkpoints = checkpoints |> List.filter (fun one -> Stream.isPolled one.Stream)
        let openGaps = openGaps |> List.filter (fun gap -> Stream.isPolled gap.Stream)

        for checkpoint in checkpoints do
            take
                checkpoint.Exchange
                checkpoint.Stream
                checkpoint.Market
                checkpoint.Token
                (left checkpoint.Stream checkpoint.Since checkpoint.Watermark)
                checkpoint.Watermark

        for gap in openGaps do
            let key = keyOf gap.Exchange gap.Stream gap.Market gap.Token

            let since, watermark =
                match earlier.TryGetValue key with
                | true, flow -> ValueOption.defaultValue gap.Since flow.Track.Since, flow.Watermark
                | _ -> gap.Since, gap.Since

            let track = Gaps.resume since gap.Since (ValueSome gap.Cause)
            take gap.Exchange gap.Stream gap.Market gap.Token track watermark
