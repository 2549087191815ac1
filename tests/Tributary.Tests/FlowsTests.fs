module Tributary.Tests.FlowsTests

open System
open NUnit.Framework
open Tributary

let private exchange = good (ExchangeId.Parse "polymarket")
let private yes = ValueSome(token "yes")

let private flows () =
    let meters = new Meters()
    Flows meters, meters

let private batch () = Batch(Names())

/// What a step writes: its gaps, in short, and its checkpoints.
let private writes (step: Batch -> unit) =
    let batch = batch ()
    step batch

    [
        for gap in batch.Gaps ->
            gap.Since.Micros / 1_000_000L,
            (match gap.Until with
             | ValueSome until -> until.Micros / 1_000_000L
             | ValueNone -> -1L),
            gap.Cause,
            gap.Healed.IsSome
    ]

let private openEnd = -1L

let private books (flows: Flows) (batch: Batch) =
    flows.Begin(exchange, Stream.Books, market "m", yes, Gaps.untouched, batch)
    (flows.TryFind(exchange, Stream.Books, "yes")).Value

let private trades (flows: Flows) (batch: Batch) =
    flows.Begin(exchange, Stream.Trades, market "m", ValueNone, Gaps.follow (seconds 0L), batch)
    (flows.TryFind(exchange, Stream.Trades, "m")).Value

let private isGood at (flow: Flow) (batch: Batch) =
    flow.IsGood(seconds at, seconds at, 0, TimeSpan.Zero, batch)

let private isMissed cause at (flow: Flow) (batch: Batch) =
    flow.IsMissed(cause, seconds at, 1, batch)

let private checkpoint stream token since watermark : Checkpoint = {
    Job = ""
    Exchange = exchange
    Stream = stream
    Market = market "m"
    Token = token
    Since = seconds since
    Watermark = seconds watermark
    Rows = 0
    Error = ""
    Duration = TimeSpan.Zero
    State = ""
}

let private gap stream token since cause : Gap = {
    Exchange = exchange
    Stream = stream
    Market = market "m"
    Token = token
    Since = seconds since
    Until = ValueNone
    Cause = cause
    Healed = ValueNone
}

[<Test>]
let ``a gap is written when it opens and when it ends`` () =
    let flows, meters = flows ()
    let flow = books flows (batch ())
    equal [] (writes (isGood 1L flow))
    equal [ 1L, openEnd, Cause.Late, false ] (writes (isMissed Cause.Late 2L flow))
    equal [] (writes (isMissed Cause.Refused 3L flow))
    equal [ 1L, 4L, Cause.Late, false ] (writes (isGood 4L flow))
    equal (1L, 1L) (meters.Total Count.gapsOpened, meters.Total Count.gapsClosed)
    equal (2L, 2L) (meters.Total Count.pollsGood, meters.Total Count.pollsMissed)

[<Test>]
let ``what was missed of trades is healed by the next follow`` () =
    let flows, _ = flows ()
    let flow = trades flows (batch ())
    equal [ 0L, openEnd, Cause.Late, false ] (writes (isMissed Cause.Late 2L flow))
    equal [ 0L, 4L, Cause.Late, true ] (writes (isGood 4L flow))

[<Test>]
let ``a poll that was skipped while an answer was on its way lies in a gap of its own`` () =
    let flows, meters = flows ()
    let flow = books flows (batch ())
    writes (isGood 1L flow) |> ignore
    writes (isMissed Cause.Late 9L flow) |> ignore

    equal [ 1L, 5L, Cause.Late, false; 5L, openEnd, Cause.Late, false ] (writes (isGood 5L flow))

    equal [ 5L, 10L, Cause.Late, false ] (writes (isGood 10L flow))
    equal (2L, 2L) (meters.Total Count.gapsOpened, meters.Total Count.gapsClosed)

[<Test>]
let ``every good poll leaves a checkpoint, and no watermark goes back`` () =
    let flows, _ = flows ()
    let flow = trades flows (batch ())
    let written = batch ()
    flow.IsGood(seconds 50L, seconds 60L, 3, TimeSpan.FromSeconds 1.0, written)
    flow.IsGood(seconds 40L, seconds 70L, 0, TimeSpan.FromSeconds 1.0, written)

    equal [ seconds 0L, seconds 50L, 3; seconds 0L, seconds 50L, 0 ] [
        for point in written.Checkpoints -> point.Since, point.Watermark, point.Rows
    ]

    equal "polymarket/trades/m" written.Checkpoints[0].Job

[<Test>]
let ``books that were not polled between two runs have a gap, which is written at once`` () =
    let flows, meters = flows ()
    flows.Resume([ checkpoint Stream.Books yes 1L 9L ], [])
    let written = batch ()
    let flow = books flows written
    equal [ Cause.Stopped, seconds 9L ] [ for gap in written.Gaps -> gap.Cause, gap.Since ]
    equal [] (writes (isMissed Cause.Unreachable 20L flow))
    equal [ 9L, 30L, Cause.Stopped, false ] (writes (isGood 30L flow))
    equal (1L, 1L) (meters.Total Count.gapsOpened, meters.Total Count.gapsClosed)
    equal (ValueSome(seconds 1L)) flow.Track.Since

[<Test>]
let ``trades go on from their watermark without a gap`` () =
    let flows, _ = flows ()
    flows.Resume([ checkpoint Stream.Trades ValueNone 1L 9L ], [])
    let written = batch ()
    let flow = trades flows written
    equal 0 written.Gaps.Count
    equal (seconds 9L) flow.Watermark
    equal [] (writes (isGood 30L flow))

[<Test>]
let ``a gap that is open keeps its identity over a restart`` () =
    let flows, _ = flows ()

    flows.Resume(
        [ checkpoint Stream.Books yes 1L 9L; checkpoint Stream.Trades ValueNone 1L 9L ],
        [
            gap Stream.Books yes 7L Cause.Throttled
            gap Stream.Trades ValueNone 8L Cause.Refused
        ]
    )

    equal [ 7L, 30L, Cause.Throttled, false ] (writes (isGood 30L (books flows (batch ()))))
    let follow = trades flows (batch ())
    equal (seconds 9L) follow.Watermark
    equal [ 8L, 30L, Cause.Refused, true ] (writes (isGood 30L follow))

[<Test>]
let ``a gap before anything was good is closed after a restart, too`` () =
    let flows, _ = flows ()

    flows.Resume(
        [],
        [
            gap Stream.Books yes 7L Cause.Restart
            gap Stream.Trades ValueNone 5L Cause.Refused
        ]
    )

    equal [ 7L, 30L, Cause.Restart, false ] (writes (isGood 30L (books flows (batch ()))))
    let follow = trades flows (batch ())
    equal (seconds 5L) follow.Watermark
    equal [ 5L, 30L, Cause.Refused, true ] (writes (isGood 30L follow))

[<Test>]
let ``a flow of an earlier run that nobody wants leaves nothing`` () =
    let flows, _ = flows ()
    flows.Resume([ checkpoint Stream.Books yes 1L 9L ], [])
    equal 0 flows.All.Count

[<Test>]
let ``an open gap ends with its flow`` () =
    let flows, meters = flows ()
    let flow = books flows (batch ())
    writes (isGood 1L flow) |> ignore
    writes (isMissed Cause.Missing 2L flow) |> ignore

    let ending (batch: Batch) =
        flows.End(exchange, Stream.Books, market "m", yes, seconds 3L, batch)

    equal [ 1L, 3L, Cause.Missing, false ] (writes ending)
    equal [] (writes ending)
    equal 0 flows.All.Count
    equal (1L, 1L) (meters.Total Count.gapsOpened, meters.Total Count.gapsClosed)

[<Test>]
let ``a poll that was under way when its flow ended leaves no gap open`` () =
    let flows, meters = flows ()
    let flow = books flows (batch ())
    writes (isGood 1L flow) |> ignore

    writes (fun batch -> flows.End(exchange, Stream.Books, market "m", yes, seconds 3L, batch))
    |> ignore

    equal
        [ 1L, openEnd, Cause.Missing, false; 1L, 4L, Cause.Missing, false ]
        (writes (isMissed Cause.Missing 4L flow))

    equal (1L, 1L) (meters.Total Count.gapsOpened, meters.Total Count.gapsClosed)

[<Test>]
let ``a market that comes back was not collected meanwhile`` () =
    let flows, _ = flows ()
    writes (isGood 1L (books flows (batch ()))) |> ignore

    writes (fun batch -> flows.End(exchange, Stream.Books, market "m", yes, seconds 3L, batch))
    |> ignore

    let began = batch ()
    let again = books flows began

    equal [ seconds 1L, ValueNone, Cause.Stopped ] [
        for gap in began.Gaps -> gap.Since, gap.Until, gap.Cause
    ]

    equal [ 1L, 90L, Cause.Stopped, false ] (writes (isGood 90L again))

[<Test>]
let ``an answer that comes after its flow ended closes nothing twice`` () =
    let flows, meters = flows ()
    let flow = books flows (batch ())
    writes (isMissed Cause.Late 1L flow) |> ignore

    writes (fun batch -> flows.End(exchange, Stream.Books, market "m", yes, seconds 3L, batch))
    |> ignore

    equal [] (writes (isGood 4L flow))
    equal (1L, 1L) (meters.Total Count.gapsOpened, meters.Total Count.gapsClosed)

[<Test>]
let ``a missed poll says what went wrong beside the last good one`` () =
    let flows, _ = flows ()
    let flow = books flows (batch ())
    let before, after = batch (), batch ()
    isMissed Cause.Late 1L flow before // nothing was good yet, so there is nothing to say it of
    isGood 2L flow (batch ())
    isMissed Cause.Refused 3L flow after
    equal 0 before.Checkpoints.Count
    equal [ "refused", seconds 2L ] [ for reached in after.Checkpoints -> reached.Error, reached.Watermark ]
