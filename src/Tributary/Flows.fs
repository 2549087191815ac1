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
        meters: Meters
    ) =
    let gate = obj ()
    let mutable track = track

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

    /// The hole ends with the poll that was good: from then on nothing is missing.
    let closed (hole: (struct (Instant * Cause)) voption) now (batch: Batch) =
        match hole with
        | ValueSome hole ->
            // Depth that was not seen is gone; trades are there when the follow has caught up.
            let healed =
                if stream = Stream.Trades then
                    ValueSome(struct (now, "follow"))
                else
                    ValueNone

            batch.Gaps.Add(gap hole (ValueSome now) healed)
            meters.Add(Count.gapsClosed, $"stream={stream}")
        | ValueNone -> ()

    member _.Market = market
    member _.Token = token
    member _.Job = job
    member _.Track = track
    /// The book that was stored last: when it comes again, it is unchanged.
    member val LastBook: struct (Instant * string) = struct (Instant.ofMicros 0L, "") with get, set

    /// Up to when the flow is known; nothing before its first good poll.
    member _.Good = track.Good

    /// A poll was good up to `at`. Leaves the end of an open gap, and the checkpoint.
    member _.IsGood(at: Instant, now: Instant, rows: int, took: TimeSpan, batch: Batch) =
        lock gate (fun () ->
            let at =
                match track.Good with
                | ValueSome good -> max at good
                | ValueNone -> at

            let struct (next, hole) = Gaps.good at track
            track <- next
            closed hole now batch
            meters.Add(Count.pollsGood, $"stream={stream}")

            batch.Checkpoints.Add {
                Job = job
                Exchange = exchange
                Stream = stream
                Market = market
                Token = token
                Since = ValueOption.defaultValue at next.Since
                Watermark = at
                Rows = rows
                Error = ""
                Duration = took
            })

    /// `count` due polls did not bring what they should. Leaves the beginning of a gap, unless one is open.
    member _.IsMissed(cause: Cause, at: Instant, count: int, batch: Batch) =
        lock gate (fun () ->
            let struct (next, hole) = Gaps.missed cause at track
            track <- next
            meters.Add(Count.pollsMissed, $"stream={stream},cause={cause}", int64 count)

            match hole with
            | ValueSome hole ->
                batch.Gaps.Add(gap hole ValueNone ValueNone)
                meters.Add(Count.gapsOpened, $"stream={stream},cause={cause}")
            | ValueNone -> ())

    /// Part of what was asked for cannot be had.
    member _.IsTruncated(since: Instant, until: Instant, batch: Batch) =
        batch.Gaps.Add(gap (struct (since, Cause.Truncated)) (ValueSome until) ValueNone)
        meters.Add(Count.gapsOpened, $"stream={stream},cause={Cause.Truncated}")

    /// The flow ends for a good reason (its market closed): an open gap ends with it.
    member _.Ends(at: Instant, batch: Batch) =
        lock gate (fun () ->
            match track.Broken, track.Good with
            | ValueSome cause, ValueSome since ->
                track <- { track with Broken = ValueNone }
                batch.Gaps.Add(gap (struct (since, cause)) (ValueSome at) ValueNone)
                meters.Add(Count.gapsClosed, $"stream={stream}")
            | _ -> ())

/// All flows of a collector, found by what they are about.
[<Sealed>]
type internal Flows(meters: Meters) =
    let flows = ConcurrentDictionary<struct (ExchangeId * Stream * string), Flow>()

    static member private Key(exchange, stream, market: MarketId, token: TokenId voption) =
        match token with
        | ValueSome token -> struct (exchange, stream, string token)
        | ValueNone -> struct (exchange, stream, string market)

    member _.All = flows.Values

    /// The flow, made when it is new: it then begins with this track.
    member _.Get(exchange, stream, market, token, track: unit -> Track) : Flow =
        flows.GetOrAdd(
            Flows.Key(exchange, stream, market, token),
            (fun _ -> Flow(exchange, stream, market, token, track (), meters))
        )

    /// The flow of a token's books, or of a market's trades, if there is one.
    member _.TryFind(exchange: ExchangeId, stream: Stream, key: string) : Flow voption =
        match flows.TryGetValue(struct (exchange, stream, key)) with
        | true, flow -> ValueSome flow
        | _ -> ValueNone

    member _.Remove(exchange, stream, market, token) =
        flows.TryRemove(Flows.Key(exchange, stream, market, token)) |> ignore

    /// Takes up what an earlier run left. Books were not polled in between, which is a gap; trades are read from where it stopped.
    member _.Resume(checkpoints: Checkpoint list, openGaps: Gap list) =
        let openHoles =
            openGaps
            |> List.map (fun gap -> struct (gap.Stream, gap.Market, gap.Token), gap)
            |> Map.ofList

        for checkpoint in checkpoints do
            let hole =
                Map.tryFind (struct (checkpoint.Stream, checkpoint.Market, checkpoint.Token)) openHoles

            let track: Track =
                match checkpoint.Stream, hole with
                | _, Some gap -> {
                    Since = ValueSome checkpoint.Since
                    // The hole's own beginning: its row is closed under that identity.
                    Good = ValueSome gap.Since
                    Broken = ValueSome gap.Cause
                  }
                | Stream.Books, None -> Gaps.resume checkpoint.Since checkpoint.Watermark ValueNone
                | _, None -> {
                    Since = ValueSome checkpoint.Since
                    Good = ValueSome checkpoint.Watermark
                    Broken = ValueNone
                  }

            let key =
                Flows.Key(checkpoint.Exchange, checkpoint.Stream, checkpoint.Market, checkpoint.Token)

            flows[key] <-
                Flow(
                    checkpoint.Exchange,
                    checkpoint.Stream,
                    checkpoint.Market,
                    checkpoint.Token,
                    track,
                    meters
                )
