module Tributary.Tests.ScheduleTests

open System
open NUnit.Framework
open FsCheck
open FsCheck.FSharp
open FsCheck.NUnit
open Tributary

let private exchange = good (ExchangeId.Parse "polymarket")
let private m number = market $"m{number}"
let private ms (count: int64) = Instant.ofMicros (count * 1000L)

let private calm: Cadences = {
    Books = TimeSpan.FromSeconds 10.0
    Trades = TimeSpan.FromSeconds 5.0
    Markets = TimeSpan.FromMinutes 5.0
    BooksPerJob = 2
    TradesPerJob = 3
    Jitter = 0.0
    Seed = 7UL
}

let private job stream shard : Job = {
    Exchange = exchange
    Stream = stream
    Shard = shard
}

let private books = job Stream.Books 0
let private refresh = job Stream.Markets 0

/// Hears one signal after the other; what was ordered, in the order of the signals.
let private after (signals: Signal list) schedule =
    ((schedule, []), signals)
    ||> List.fold (fun (schedule, orders) signal ->
        let next, more = Schedule.step schedule signal
        next, orders @ more)

let private orders signals schedule = after signals schedule |> snd
let private state signals schedule = after signals schedule |> fst

let private start cadences =
    Schedule.start cadences (ms 0L) [ exchange ]

let private tick at = Signal.Tick(ms at)

let private add markets =
    Signal.Add(ms 0L, exchange, List.map m markets)

let private remove stream markets =
    Signal.Remove(exchange, stream, List.map m markets)

let private finished job at fault =
    Signal.Finished(
        ms at,
        {
            Job = job
            Due = ms at
            Duration = TimeSpan.Zero
            Markets = []
            Fault = fault
        }
    )

let private well job at = finished job at ValueNone
let private ill job at fault = finished job at (ValueSome fault)

/// When each run of a job was due, in milliseconds.
let private runs job orders = [
    for order in orders do
        match order with
        | Order.Run(run, due, _) when run = job -> due.Micros / 1000L
        | _ -> ()
]

/// The first point, the count and the cause of everything that a job missed.
let private missed job orders = [
    for order in orders do
        match order with
        | Order.Missed(run, first, count, cause, _) when run = job -> first.Micros / 1000L, count, cause
        | _ -> ()
]

/// Only books of two markets, which have just run.
let private running = start calm |> state [ add [ 1; 2 ]; tick 0L; well refresh 1L ]
let private resting = running |> state [ well books 1L ]

[<Test>]
let ``the first tick runs everything at once`` () =
    let first = start calm |> orders [ add [ 1 ]; tick 0L ]

    equal [ refresh; books; job Stream.Trades 0 ] [
        for order in first do
            match order with
            | Order.Run(job, _, _) -> job
            | _ -> ()
    ]

[<Test>]
let ``a late tick does not move the grid`` () =
    equal
        [ 10_000L; 20_000L ]
        (resting
         |> orders [ tick 10_400L; well books 10_500L; tick 20_001L ]
         |> runs books)

[<Test>]
let ``nothing runs before it is due`` () =
    equal [] (resting |> orders [ tick 4_999L ] |> missed books)
    equal [ 10_000L ] (resting |> orders [ tick 9_999L; tick 10_000L ] |> runs books)

[<Test>]
let ``a job never runs twice at once: the point is missed, and late`` () =
    let heard =
        running
        |> orders [ tick 10_000L; tick 20_000L; well books 20_001L; tick 30_000L ]

    equal [ 30_000L ] (heard |> runs books)
    equal [ 10_000L, 1, Cause.Late; 20_000L, 1, Cause.Late ] (heard |> missed books)

[<Test>]
let ``after an hour's sleep there is one run and one word about the rest`` () =
    let heard = resting |> orders [ tick 3_605_000L ]
    equal [ 3_600_000L ] (heard |> runs books)
    equal [ 10_000L, 359, Cause.Late ] (heard |> missed books)

[<Test>]
let ``a job waits as long as the exchange says`` () =
    let throttled = Fault.Throttled(ValueSome(TimeSpan.FromSeconds 25.0))

    let heard =
        running
        |> orders [ ill books 1_000L throttled; tick 10_000L; tick 20_000L; tick 30_000L ]

    equal [ 30_000L ] (heard |> runs books)
    equal [ 10_000L, 1, Cause.Throttled; 20_000L, 1, Cause.Throttled ] (heard |> missed books)

[<Test>]
let ``a wait that is told is neither nothing nor for ever`` () =
    let retried wait =
        start calm
        |> state [
            tick 0L
            ill refresh 1_000L (Fault.Throttled(ValueSome(TimeSpan.FromSeconds(wait: float))))
        ]
        |> Schedule.wake

    equal (ValueSome(ms 1_500L)) (retried 0.0)
    equal (ValueSome(ms 3_601_000L)) (retried 1e9)

[<Test>]
let ``who is unreachable is left alone twice as long each time, and half a minute at most`` () =
    let mutable schedule = start calm
    let mutable at = 0L
    let waits = ResizeArray()

    for _ in 1..8 do
        schedule <- schedule |> state [ tick at; ill refresh at (Fault.Unreachable "") ]
        let next = (Schedule.wake schedule).Value.Micros / 1000L
        waits.Add(next - at)
        at <- next

    equal [ 500L; 1000L; 2000L; 4000L; 8000L; 16_000L; 30_000L; 30_000L ] (List.ofSeq waits)

[<Test>]
let ``a refresh that failed is tried again soon, whatever its jitter, and its grid begins there`` () =
    let heard =
        start { calm with Jitter = 0.5 }
        |> state [ tick 200_000L; ill refresh 250_000L (Fault.Unreachable "") ]

    equal (ValueSome(ms 250_500L)) (Schedule.wake heard)

    let again =
        start calm
        |> orders [
            tick 0L
            ill refresh 299_900L (Fault.Unreachable "")
            tick 300_400L
            well refresh 300_500L
            tick 600_400L
        ]

    equal [ 0L; 300_400L; 600_400L ] (runs refresh again)

[<Test>]
let ``success ends the wait`` () =
    let heard =
        running
        |> state [
            ill books 1_000L (Fault.Unreachable "")
            tick 10_000L
            well books 10_100L
            tick 20_000L
            ill books 20_100L (Fault.Unreachable "")
        ]

    equal [ 30_000L ] (heard |> orders [ tick 30_000L ] |> runs books)

[<Test>]
let ``a pause misses for its cause, and the first of several counts`` () =
    let heard =
        resting
        |> orders [
            Signal.Pause Cause.Paused
            tick 10_000L
            Signal.Pause Cause.StoreFailed
            tick 20_000L
            Signal.Resume Cause.Paused
            tick 30_000L
            Signal.Resume Cause.StoreFailed
            tick 40_000L
        ]

    equal
        [
            10_000L, 1, Cause.Paused
            20_000L, 1, Cause.Paused
            30_000L, 1, Cause.StoreFailed
        ]
        (missed books heard)

    equal [ 40_000L ] (runs books heard)

[<Test>]
let ``a pause that is ordered twice ends once`` () =
    let schedule =
        resting
        |> state [
            Signal.Pause Cause.Paused
            Signal.Pause Cause.Paused
            Signal.Resume Cause.Paused
        ]

    equal [] (Schedule.paused schedule)

/// The markets of each job of a stream, by shard.
let private placed stream schedule =
    schedule
    |> orders [ tick 1_000_000L ]
    |> List.choose (fun order ->
        match order with
        | Order.Run(job, _, markets) when job.Stream = stream ->
            Some(job.Shard, markets |> List.map string |> List.sort)
        | _ -> None)
    |> List.sort

[<Test>]
let ``markets fill one job after the other, and each has one place`` () =
    equal
        [ 0, [ "m1"; "m2" ]; 1, [ "m3"; "m4" ]; 2, [ "m5" ] ]
        (start calm
         |> state [ add [ 1; 2; 3 ]; add [ 3; 1; 4; 5 ] ]
         |> placed Stream.Books)

    equal
        [ 0, [ "m1"; "m2"; "m3" ]; 1, [ "m4" ] ]
        (start calm |> state [ add [ 1; 2; 3; 4; 4 ] ] |> placed Stream.Trades)

[<Test>]
let ``a removed market leaves its place in one stream to the next`` () =
    let schedule =
        start calm |> state [ add [ 1; 2; 3 ]; remove Stream.Books [ 1 ]; add [ 9 ] ]

    equal [ 0, [ "m2"; "m9" ]; 1, [ "m3" ] ] (placed Stream.Books schedule)
    equal [ 0, [ "m1"; "m2"; "m3" ]; 1, [ "m9" ] ] (placed Stream.Trades schedule)

[<Test>]
let ``a market that is added long after the last tick has missed nothing yet`` () =
    let heard =
        start calm
        |> orders [
            tick 0L
            Signal.Add(ms 90_000L, exchange, [ m 1 ])
            well refresh 90_000L
            tick 90_001L
        ]

    equal [] (missed books heard)
    equal [ 90_000L ] (runs books heard)

[<Test>]
let ``a job without markets is not woken for`` () =
    let schedule =
        resting |> state [ remove Stream.Books [ 1; 2 ]; remove Stream.Trades [ 1; 2 ] ]

    equal (ValueSome(ms 300_000L)) (Schedule.wake schedule)

[<Test>]
let ``to stop is to start nothing and to wait for what runs`` () =
    let heard = running |> orders [ Signal.Stop; tick 10_000L ]
    equal [] heard
    let trades = job Stream.Trades 0

    equal [ Order.Drained ] (running |> orders [ Signal.Stop; well trades 10_000L; well books 10_001L ])

    equal ValueNone (running |> state [ Signal.Stop ] |> Schedule.wake)

[<Test>]
let ``what does not run is drained at once`` () =
    equal [ Order.Drained ] (start calm |> orders [ Signal.Stop ])

[<Test>]
let ``the last result of a job can be read`` () =
    equal [ ms 1L; ms 1L ] (resting |> Schedule.results |> List.map _.Due)

/// How long after each of the first points of its grid a job runs.
let private delays seed shard =
    let mutable schedule =
        start {
            calm with
                Jitter = 0.5
                Seed = seed
                BooksPerJob = 1
        }
        |> state [ add [ 0; 1; 2 ] ]

    [
        for at in 0L..100L..300_000L do
            let next, heard = Schedule.step schedule (tick at)
            schedule <- next

            for order in heard do
                match order with
                | Order.Run(run, due, _) ->
                    schedule <- schedule |> state [ well run at ]

                    if run = job Stream.Books shard then
                        at - due.Micros / 1000L
                | _ -> ()
    ]

[<Test>]
let ``jitter stays in its share, is the same for a seed, and differs between jobs`` () =
    let one = delays 1UL 0
    equal 30 one.Length
    isTrue (one |> List.forall (fun delay -> delay >= 0L && delay <= 5_100L))
    isTrue ((List.distinct one).Length > 15)
    equal one (delays 1UL 0)
    isTrue (one <> delays 2UL 0)
    isTrue (one <> delays 1UL 1)

// ---------------------------------------------------------------------------------------------------------------------------

/// What may happen next, told without moments.
type Step =
    | Wait of milliseconds: int
    | Ends of shard: int * isTrades: bool * fault: int
    | Pauses of isOn: bool
    | Adds of market: int

type Steps =
    static member Step() : Arbitrary<Step> =
        Arb.fromGen (
            Gen.frequency [
                6, Gen.choose (0, 25_000) |> Gen.map Wait
                1, Gen.choose (0, 400_000) |> Gen.map Wait
                5,
                Gen.map3
                    (fun shard isTrades fault -> Ends(shard, isTrades, fault))
                    (Gen.choose (0, 2))
                    (Gen.elements [ true; false ])
                    (Gen.choose (0, 3))
                1, Gen.elements [ true; false ] |> Gen.map Pauses
                1, Gen.choose (0, 5) |> Gen.map Adds
            ]
        )

let private faults = [|
    ValueNone
    ValueSome(Fault.Unreachable "")
    ValueSome(Fault.Throttled(ValueSome(TimeSpan.FromSeconds 17.0)))
    ValueSome(Fault.Refused(400, ""))
|]

/// All signals of a story, in which a tick follows every step, and only what runs may end.
let private tell (cadences: Cadences) (steps: Step list) =
    let mutable schedule = start cadences |> state [ add [ 0; 1; 2 ] ]
    let mutable now = 0L
    let heard = ResizeArray<Signal>()
    let ordered = ResizeArray<Order list>()
    let busy = Collections.Generic.HashSet<Job>()
    let mutable isSingle = true

    let hear signal =
        let next, orders = Schedule.step schedule signal
        schedule <- next
        heard.Add signal
        ordered.Add orders

        for order in orders do
            match order with
            | Order.Run(job, _, _) -> isSingle <- isSingle && busy.Add job
            | _ -> ()

    for step in steps do
        match step with
        | Wait milliseconds -> now <- now + int64 milliseconds
        | Ends(shard, isTrades, fault) ->
            let job = job (if isTrades then Stream.Trades else Stream.Books) shard

            if busy.Remove job then
                hear (finished job now faults[fault])
        | Pauses true -> hear (Signal.Pause Cause.Paused)
        | Pauses false -> hear (Signal.Resume Cause.Paused)
        | Adds number -> hear (Signal.Add(ms now, exchange, [ m number ]))

        hear (tick now)

    {|
        Schedule = schedule
        Heard = List.ofSeq heard
        Ordered = List.ofSeq ordered
        Now = now
        IsSingle = isSingle
    |}

let private jittery = {
    calm with
        Jitter = 0.4
        BooksPerJob = 1
        TradesPerJob = 2
}

/// The points of the grid that the orders speak of, of one job, in their order.
let private points (every: TimeSpan) job (orders: Order list list) = [
    for order in List.concat orders do
        match order with
        | Order.Run(run, due, _) when run = job -> due.Micros
        | Order.Missed(run, first, count, _, _) when run = job ->
            for i in 0 .. count - 1 do
                first.Micros + int64 i * every.Ticks / 10L
        | _ -> ()
]

[<Property(Arbitrary = [| typeof<Steps> |])>]
let ``every point of the grid is in one run or in one word about what was missed`` (steps: Step list) =
    let story = tell jittery steps

    [ Stream.Books, jittery.Books, 2; Stream.Trades, jittery.Trades, 1 ]
    |> List.forall (fun (stream, every, shards) ->
        [ 0..shards ]
        |> List.forall (fun shard ->
            let found = points every (job stream shard) story.Ordered
            let step = every.Ticks / 10L
            // Of the jobs that are there from the start, everything that is due by now with any jitter; of others, no holes.
            let sure = story.Now * 1000L - step * 4L / 10L

            let least =
                if shard < shards && sure >= 0L then
                    sure / step + 1L
                else
                    0L

            (steps.IsEmpty || int64 found.Length >= least)
            && found
               |> List.pairwise
               |> List.forall (fun (before, next) -> next - before = step)))

[<Property(Arbitrary = [| typeof<Steps> |])>]
let ``no job runs twice at once, and what is due next is not yet over`` (steps: Step list) =
    let story = tell jittery steps

    story.IsSingle
    && (match Schedule.wake story.Schedule with
        | ValueSome moment -> steps.IsEmpty || moment.Micros > story.Now * 1000L
        | ValueNone -> true)

[<Property(Arbitrary = [| typeof<Steps> |])>]
let ``the same signals give the same orders`` (steps: Step list) =
    let story = tell jittery steps
    let again = (start jittery |> state [ add [ 0; 1; 2 ] ]) |> after story.Heard |> snd
    again = List.concat story.Ordered

[<Test>]
let ``the first refresh of markets is due at once, whatever the jitter`` () =
    equal (ValueSome(ms 0L)) (Schedule.wake (start { calm with Jitter = 0.5 }))
