module Tributary.Tests.Stores.DeliveryTests

open System
open System.Numerics
open FsCheck
open FsCheck.FSharp
open NUnit.Framework
open FsCheck.NUnit
open Tributary
open Tributary.Stores.QuestDb
open Tributary.Tests.Stores.Vocabulary

let private always generator holds =
    Prop.forAll (Arb.fromGen generator) holds

// ---- what an answer means

let private isFailing answer =
    match answer with
    | Answer.Failing _ -> true
    | _ -> false

let private isRefused answer =
    match answer with
    | Answer.Refused _ -> true
    | _ -> false

let private isDenied answer =
    match answer with
    | Answer.Denied _ -> true
    | _ -> false

let private isTaken answer = answer = Answer.Taken

/// A status, what it means with the row 3 named, and without a row.
let private statuses: (int * (Answer -> bool) * (Answer -> bool)) list =
    let badRow answer = answer = Answer.BadRow(2, "no")
    let doubtful answer = answer = Answer.DoubtfulRow(2, "no")

    [
        200, isTaken, isTaken
        204, isTaken, isTaken
        301, isFailing, isFailing
        400, badRow, isRefused
        401, isDenied, isDenied
        403, isDenied, isDenied
        404, isDenied, isDenied
        405, isDenied, isDenied
        408, isFailing, isFailing
        413, isRefused, isRefused
        415, isDenied, isDenied
        421, isFailing, isFailing
        429, isFailing, isFailing
        500, doubtful, isFailing
        502, isFailing, isFailing
        503, isFailing, isFailing
        504, isFailing, isFailing
        507, isFailing, isFailing
        509, isFailing, isFailing
        523, isFailing, isFailing
        524, isFailing, isFailing
        529, isFailing, isFailing
        599, isFailing, isFailing
    ]

[<Test>]
let ``every status of the reference means one thing, with a row and without`` () =
    for status, withRow, without in statuses do
        let named = Answer.judge status "no" (ValueSome 3)
        Assert.That(withRow named, $"{status} with a row: %A{named}")

        // Row 0 is the request as a whole.
        for row in [ ValueNone; ValueSome 0; ValueSome -1 ] do
            let unnamed = Answer.judge status "no" row
            Assert.That(without unnamed, $"{status} with %A{row}: %A{unnamed}")

[<Test>]
let ``what a person reads has the status, and what to do when only a person can`` () =
    let text status message =
        match Answer.judge status message ValueNone with
        | Answer.Refused reason
        | Answer.Failing reason
        | Answer.Denied reason -> reason
        | other -> failwith $"%A{other}"

    for status, message, expected in
        [
            400, "bad precision", "bad precision (HTTP 400)"
            500, "disk full", "disk full (HTTP 500)"
            503, "", "HTTP 503"
            401, "", "check username and password, or token"
            404, "", "check addr"
            415, "", "take gzip out of the connection"
            421, "", "primary"
        ] do
        Assert.That(text status message, Does.Contain expected)

// ---- a server to deliver to

[<RequireQualifiedAccess>]
type private Temper =
    | Good
    /// 400 with a line.
    | Named
    /// 400 without a line.
    | Unnamed
    /// 500 with a line.
    | Doubted
    /// 500 without a line: it fails in the commit.
    | Poison

/// Requests from one number on, so many, that fail with an answer.
type private Trouble = {
    From: int
    Count: int
    Answer: Answer
}

type private World = {
    Rows: Temper[]
    Troubles: Trouble list
}

let private serve world number (range: RowRange) =
    let trouble =
        world.Troubles
        |> List.tryFind (fun one -> number >= one.From && number < one.From + one.Count)

    let rows = Array.sub world.Rows range.First range.Count

    match trouble, Array.tryFindIndex (fun row -> row = Temper.Named || row = Temper.Doubted) rows with
    | Some trouble, _ -> trouble.Answer
    | None, Some row when rows[row] = Temper.Named -> Answer.BadRow(row, "bad")
    | None, Some row -> Answer.DoubtfulRow(row, "hard")
    | None, None when Array.contains Temper.Unnamed rows -> Answer.Refused "no"
    | None, None when Array.contains Temper.Poison rows -> Answer.Failing "broken"
    | None, None -> Answer.Taken

type private Run = {
    End: Step
    Requests: RowRange list
    Taken: RowRange list
    Waits: TimeSpan list
    /// What comes after.
    Number: int
    Clock: Instant
}

let private retryFor = TimeSpan.FromSeconds 10.0
let private mostWait = TimeSpan.FromMilliseconds 1000.0

/// One delivery to its end. Every request takes a millisecond.
let private deliverFor retryFor mostWait jitter isolating number clock world =
    let began = clock
    let mutable clock, number = clock, number

    let mutable delivery =
        Delivery.start clock retryFor mostWait isolating world.Rows.Length

    let mutable step = Delivery.next delivery
    let requests, taken, waits = ResizeArray(), ResizeArray(), ResizeArray()
    let mutable ended = false

    let send range =
        requests.Add range
        let answer = serve world number range

        if answer = Answer.Taken then
            taken.Add range

        number <- number + 1
        clock <- clock + TimeSpan.FromMilliseconds 1.0

        let struct (next, following) =
            Delivery.answered clock (jitter number) answer delivery

        delivery <- next
        step <- following

    while not ended do
        match step with
        | Step.Send range -> send range
        | Step.SendAfter(wait, range) ->
            Assert.That(wait, Is.GreaterThanOrEqualTo TimeSpan.Zero)
            Assert.That(wait, Is.LessThanOrEqualTo(mostWait + TimeSpan.FromMilliseconds 5.0))
            Assert.That(clock + wait < began + retryFor, "a wait goes beyond the deadline")
            waits.Add wait
            clock <- clock + wait
            send range
        | Step.Done _
        | Step.Later _ -> ended <- true

        Assert.That(requests.Count, Is.LessThan 100_000)

    {
        End = step
        Requests = List.ofSeq requests
        Taken = List.ofSeq taken
        Waits = List.ofSeq waits
        Number = number
        Clock = clock
    }

let private deliver isolating world =
    deliverFor retryFor mostWait (fun _ -> 0.0) isolating 0 (at 0L) world

let private world rows = { Rows = rows; Troubles = [] }

let private badRows step =
    match step with
    | Step.Done bad -> List.sort [ for struct (row, _) in bad -> row ]
    | other -> failwith $"%A{other}"

let private isLater step =
    match step with
    | Step.Later _ -> true
    | _ -> false

let private tempers rows where temper =
    Array.init rows (fun row -> if List.contains row where then temper else Temper.Good)

let private anyWorld =
    let temper =
        Gen.frequency [
            30, Gen.constant Temper.Good
            1, Gen.constant Temper.Named
            1, Gen.constant Temper.Unnamed
            1, Gen.constant Temper.Doubted
            1, Gen.constant Temper.Poison
        ]

    let trouble = gen {
        let! from = Gen.choose (0, 60)
        let! count = Gen.choose (1, 12)

        let! answer =
            Gen.elements [
                Answer.Failing "busy"
                Answer.Unreachable "gone"
                Answer.DoubtfulRow(0, "disk full")
            ]

        return {
            From = from
            Count = count
            Answer = answer
        }
    }

    gen {
        let! count = Gen.choose (1, 300)
        let! rows = Gen.arrayOfLength count temper
        let! howMany = Gen.choose (0, 2)
        let! troubles = Gen.listOfLength howMany trouble
        return { Rows = rows; Troubles = troubles }
    }

/// As the sender does: again after a failure, and after two of them with a search.
let private toTheEnd seed world =
    let random = Random(seed: int)

    let rec go (attempt: int) runs number clock =
        let run =
            deliverFor
                retryFor
                mostWait
                (fun _ -> 2.0 * random.NextDouble() - 1.0)
                (attempt >= 2)
                number
                clock
                world

        let runs = runs @ [ run ]

        if isLater run.End && attempt < 6 then
            go (attempt + 1) runs run.Number (run.Clock + TimeSpan.FromSeconds 1.0)
        else
            runs

    go 0 [] 0 (at 0L)

/// How many times a range can be halved, and once more.
let private depth rows = 2 + BitOperations.Log2(uint32 rows)

[<Property(MaxTest = 400)>]
let ``all good rows are taken, and the bad ones are found, each once, or nothing is given up`` () =
    always (Gen.zip anyWorld (Gen.choose (0, 1_000_000))) (fun (world, seed) ->
        let runs = toTheEnd seed world
        let last = List.last runs

        let where predicate = [
            for row in 0 .. world.Rows.Length - 1 do
                if predicate world.Rows[row] then
                    row
        ]

        let good = where (fun row -> row = Temper.Good)

        match last.End with
        | Step.Done bad ->
            equal (where (fun row -> row <> Temper.Good)) (List.sort [ for struct (row, _) in bad -> row ])
            let covered = Array.zeroCreate world.Rows.Length

            for range in last.Taken do
                for row in range.First .. range.First + range.Count - 1 do
                    covered[row] <- covered[row] + 1

            for row in good do
                Assert.That(covered[row], Is.GreaterThan 0)

            // A row goes again only alone, to see whether the server takes anything.
            let repeats = covered |> Array.sumBy (fun times -> max 0 (times - 1))
            let alone = last.Taken |> List.filter (fun range -> range.Count = 1) |> List.length
            Assert.That(repeats, Is.LessThanOrEqualTo alone)
        | _ -> equal [] good

        let poisoned = world.Rows.Length - good.Length
        let troubled = world.Troubles |> List.sumBy _.Count

        for run in runs do
            Assert.That(
                run.Requests.Length,
                Is.LessThanOrEqualTo(60 + (poisoned + troubled) * (2 * depth world.Rows.Length + 12))
            ))

[<Test>]
let ``a payload without rows is done`` () =
    equal (Step.Done []) (Delivery.next (Delivery.start (at 0L) retryFor mostWait false 0))

[<Test>]
let ``good rows go in one request`` () =
    let run = deliver false (world (tempers 1_000 [] Temper.Good))
    equal (Step.Done []) run.End
    equal [ { First = 0; Count = 1_000 } ] run.Requests

[<Test>]
let ``a row that is named is left out, and the rest goes in two requests`` () =
    let run = deliver false (world (tempers 10 [ 3 ] Temper.Named))
    equal (Step.Done [ struct (3, "bad") ]) run.End

    equal
        [
            { First = 0; Count = 10 }
            { First = 0; Count = 3 }
            { First = 4; Count = 6 }
        ]
        run.Requests

[<Test>]
let ``rows that are named are bad also when there are no others`` () =
    equal [ 0; 1 ] (badRows (deliver false (world [| Temper.Named; Temper.Named |])).End)

[<Test>]
let ``a row beyond the rows is no row`` () =
    let one = Delivery.start (at 0L) retryFor mostWait false 4

    let struct (_, step) = Delivery.answered (at 0L) 0.0 (Answer.BadRow(4, "bad")) one

    equal (Step.Send { First = 0; Count = 2 }) step

[<Test>]
let ``a search finds the one row that makes a server fail while others pass`` () =
    for row in [ 0; 1; 617; 998; 999 ] do
        let rows = tempers 1_000 [ row ] Temper.Poison
        equal true (isLater (deliver false (world rows)).End)
        let run = deliver true (world rows)
        equal [ row ] (badRows run.End)
        Assert.That(run.Requests.Length, Is.LessThan 40)

[<Test>]
let ``a row that is refused without its name is found without a search by the caller`` () =
    for row in [ 0; 500; 999 ] do
        let run = deliver false (world (tempers 1_000 [ row ] Temper.Unnamed))
        equal [ row ] (badRows run.End)
        Assert.That(run.Requests.Length, Is.LessThan 40)

[<Test>]
let ``a row that the server fails over is tried again, then alone, then compared`` () =
    let run = deliver false (world (tempers 10 [ 9 ] Temper.Doubted))
    equal [ 9 ] (badRows run.End)
    equal (List.replicate 3 { First = 0; Count = 10 }) (List.take 3 run.Requests)
    equal [ 10.0; 20.0 ] (List.take 2 run.Waits |> List.map _.TotalMilliseconds)

/// Whatever is sent, this is the answer.
let private stubborn rows answer = {
    Rows = Array.create rows Temper.Good
    Troubles = [
        {
            From = 0
            Count = 1_000_000
            Answer = answer
        }
    ]
}

let private refusals = [
    Answer.Failing "disk full"
    Answer.Unreachable "gone"
    Answer.DoubtfulRow(0, "disk full")
    Answer.Refused "a proxy says no"
    Answer.Denied "who are you"
]

[<Test>]
let ``a server that fails everything makes no row bad, and is not asked for ever`` () =
    for answer in refusals do
        for isolating in [ false; true ] do
            for rows in [ 1; 2; 60; 75_000 ] do
                let run = deliver isolating (stubborn rows answer)
                Assert.That(isLater run.End, $"%A{answer} {isolating} {rows}: %A{run.End}")
                Assert.That(run.Requests.Length, Is.LessThan 2_000)

[<Test>]
let ``a server that begins to fail everything during a search makes no row bad`` () =
    for answer in refusals do
        for from in 1..60 do
            let rows = tempers 200 [ 40; 150 ] Temper.Poison

            let run =
                deliver true {
                    Rows = rows
                    Troubles = [
                        {
                            From = from
                            Count = 1_000_000
                            Answer = answer
                        }
                    ]
                }

            match run.End with
            | Step.Later _ -> ()
            | other -> equal [ 40; 150 ] (badRows other)

[<Test>]
let ``denied rows wait at once`` () =
    let run = deliver false (stubborn 10 (Answer.Denied "who are you"))
    equal (Step.Later(Answer.Denied "who are you")) run.End
    equal 1 run.Requests.Length

[<Test>]
let ``waits double, are capped, and end before the deadline`` () =
    let run = deliver false (stubborn 10 (Answer.Unreachable "gone"))
    equal (Step.Later(Answer.Unreachable "gone")) run.End

    let expected =
        [ 10.0; 20.0; 40.0; 80.0; 160.0; 320.0; 640.0 ] @ List.replicate 8 1000.0

    equal expected (run.Waits |> List.map _.TotalMilliseconds)

[<Test>]
let ``without time for it nothing is tried again`` () =
    for most in [ TimeSpan.Zero; mostWait ] do
        let run =
            deliverFor TimeSpan.Zero most (fun _ -> -1.0) false 0 (at 0L) (stubborn 10 (Answer.Failing "no"))

        equal 1 run.Requests.Length
        equal [] run.Waits

// ---- how far a table has come

[<RequireQualifiedAccess>]
type private Event =
    /// So many new entries.
    | Arrive of int
    /// The next request, which holds so many entries, goes through or not.
    | Send of most: int * succeeds: bool

let private anyEvents =
    Gen.listOf (
        Gen.frequency [
            2, Gen.choose (0, 30) |> Gen.map Event.Arrive
            5,
            Gen.zip (Gen.choose (1, 12)) (Gen.frequency [ 4, Gen.constant true; 1, Gen.constant false ])
            |> Gen.map Event.Send
        ]
    )

/// What was sent, and where that leaves us.
type private Progress = {
    Position: Position
    Last: int64
    Sent: Set<int64>
    IsLong: bool
}

let private advance (progress: Progress) event =
    match event with
    | Event.Arrive count -> {
        progress with
            Last = progress.Last + int64 count
      }
    | Event.Send(most, succeeds) ->
        let struct (position, range) =
            Position.next progress.Last progress.IsLong progress.Position

        match range with
        | ValueNone ->
            // Then there is nothing to send.
            equal progress.Last (Position.taken position)

            {
                progress with
                    Position = position
                    IsLong = false
            }
        | ValueSome range ->
            Assert.That(range.UpTo, Is.GreaterThan range.After)
            Assert.That(range.UpTo, Is.LessThanOrEqualTo progress.Last)
            let upTo = min range.UpTo (range.After + int64 most)

            if succeeds then
                let sent = Set.ofSeq (seq { range.After + 1L .. upTo })
                equal Set.empty (Set.intersect sent progress.Sent)
                let next = Position.advance range upTo position

                {
                    progress with
                        Position = next
                        Sent = progress.Sent + sent
                        IsLong = upTo < range.UpTo || Position.hasTwoEnds next
                }
            else
                { progress with Position = position }

let private noProgress = {
    Position = Position.start
    Last = 0L
    Sent = Set.empty
    IsLong = false
}

[<Property(MaxTest = 500)>]
let ``whatever comes in between, no entry is skipped or sent twice, and what counts as taken has no hole``
    ()
    =
    always anyEvents (fun events ->
        let mutable progress = noProgress

        let step event =
            let before = Position.taken progress.Position
            progress <- advance progress event
            let taken = Position.taken progress.Position
            Assert.That(taken, Is.GreaterThanOrEqualTo before)
            equal true (Set.isSuperset progress.Sent (Set.ofSeq (seq { 1L .. taken })))

        List.iter step events
        let left = int progress.Last - progress.Sent.Count

        for _ in 0..left do
            step (Event.Send(1, true))

        equal progress.Last (Position.taken progress.Position)
        equal (int progress.Last) progress.Sent.Count)

[<Test>]
let ``new entries do not wait behind a long backlog`` () =
    // A thousand wait, ten go at once.
    let mutable progress =
        List.fold advance noProgress [ Event.Arrive 1_000; Event.Send(10, true); Event.Send(10, true) ]

    for _ in 1..20 do
        progress <- advance progress (Event.Arrive 1)
        progress <- advance progress (Event.Send(10, true))
        progress <- advance progress (Event.Send(10, true))
        equal true (progress.Sent.Contains progress.Last)

    // … and the backlog goes on meanwhile.
    Assert.That(Position.taken progress.Position, Is.GreaterThanOrEqualTo 200L)

[<Test>]
let ``nothing is read when nothing waits`` () =
    let struct (_, range) = Position.next 0L false Position.start
    equal ValueNone range
    let struct (_, again) = Position.next 0L true Position.start
    equal ValueNone again

// ---- when a row is there for good

let private wal writer sequencer : WalState = {
    Id = 7L
    Suspended = false
    WriterTxn = writer
    SequencerTxn = sequencer
    ErrorTag = ""
    ErrorMessage = ""
}

let private look moment state settling =
    Settling.looked (at moment) 1 (ValueSome state) settling

let private same (struct (settling, again): struct (Settling * int64 voption)) =
    equal ValueNone again
    settling

let private keep = TimeSpan.FromSeconds 600.0

[<Test>]
let ``entries are applied when the writer has passed what was last when they were seen to be taken`` () =
    let settling = Settling.start |> Settling.taken 5L (at 100L) 1
    let seen = settling |> look 200L (wal 8L 10L) |> same
    equal 0L (Settling.applied seen)
    let close = seen |> look 300L (wal 9L 12L) |> same
    equal 0L (Settling.applied close)
    let done' = close |> look 400L (wal 10L 14L) |> same
    equal 5L (Settling.applied done')

[<Test>]
let ``one look is enough when nothing waits in the log`` () =
    equal
        5L
        (Settling.start
         |> Settling.taken 5L (at 100L) 1
         |> look 200L (wal 10L 10L)
         |> same
         |> Settling.applied)

[<Test>]
let ``a look that began before the rows were taken says nothing of them`` () =
    for moment in [ 99L; 100L ] do
        let settling =
            Settling.start
            |> Settling.taken 5L (at 100L) 1
            |> look moment (wal 10L 10L)
            |> same

        equal 0L (Settling.applied settling)
        equal 5L (settling |> look 101L (wal 10L 10L) |> same |> Settling.applied)

[<Test>]
let ``rows that are taken during every look do not keep earlier ones from being settled`` () =
    let mutable settling = Settling.start
    let mutable moment = 0L

    for number in 1L .. 50L do
        moment <- moment + 10L
        settling <- settling |> Settling.taken (2L * number - 1L) (at moment) 1
        let began = moment + 1L
        // It is under way when the next one is taken.
        moment <- moment + 10L
        settling <- settling |> Settling.taken (2L * number) (at moment) 1
        settling <- settling |> look began (wal number number) |> same
        equal (2L * number - 1L) (Settling.applied settling)

[<Test>]
let ``a log that is shorter, another one, or gone says that all must be sent again`` () =
    let settling =
        Settling.start
        |> Settling.taken 5L (at 100L) 1
        |> look 200L (wal 10L 10L)
        |> same

    for state in
        [
            ValueSome(wal 9L 9L)
            ValueSome { wal 10L 10L with Id = 8L }
            ValueSome { wal 20L 20L with Id = 8L }
            ValueNone
        ] do
        let struct (anew, again) = Settling.looked (at 300L) 1 state settling
        equal (ValueSome 0L) again
        equal 0L (Settling.applied anew)
        equal struct (anew, ValueNone) (Settling.release (at 10_000_000_000L) keep anew)

[<Test>]
let ``what a suspended log held is sent again when it is resumed, for transactions may have been skipped``
    ()
    =
    let suspended = { wal 10L 12L with Suspended = true }

    let settling =
        Settling.start |> Settling.taken 5L (at 100L) 1 |> look 200L suspended |> same

    let struct (anew, again) =
        Settling.looked (at 300L) 1 (ValueSome(wal 12L 12L)) settling

    equal (ValueSome 0L) again
    equal 0L (Settling.applied anew)

[<Test>]
let ``a server that finds fault with row after row is at fault itself`` () =
    let mutable delivery =
        Delivery.start (at 0L) (TimeSpan.FromSeconds 10.0) (TimeSpan.FromSeconds 1.0) false 5_000

    let mutable step, sent = Delivery.next delivery, 0

    while (match step with
           | Step.Send _ -> true
           | _ -> false) do
        sent <- sent + 1

        let struct (next, following) =
            Delivery.answered (at 0L) 0.0 (Answer.BadRow(0, "gzip?")) delivery

        delivery <- next
        step <- following

    Assert.That(sent, Is.LessThan 100)
    Assert.That(step.IsLater)

[<Test>]
let ``after a new connection, what no look had seen is sent again, and what was seen is not`` () =
    let settling =
        Settling.start
        |> Settling.taken 5L (at 100L) 1
        |> look 200L (wal 1L 2L)
        |> same
        |> Settling.taken 6L (at 210L) 1
        |> Settling.taken 7L (at 220L) 2

    let struct (after, again) =
        Settling.looked (at 300L) 2 (ValueSome(wal 1L 4L)) settling

    equal (ValueSome 5L) again
    equal 0L (Settling.applied after)
    // The one that was seen goes on as before.
    equal
        5L
        (Settling.looked (at 400L) 2 (ValueSome(wal 2L 4L)) after
         |> same
         |> Settling.applied)

[<Test>]
let ``what can be read is only forgotten after a while, counted from when it was taken`` () =
    let settling =
        Settling.start
        |> Settling.taken 5L (at 0L) 1
        |> look 1_000_000L (wal 1L 1L)
        |> same
        |> Settling.taken 9L (at 60_000_000L) 1
        |> look 61_000_000L (wal 2L 2L)
        |> same

    let struct (settling, early) = Settling.release (at 599_999_999L) keep settling
    equal ValueNone early
    let struct (settling, first) = Settling.release (at 600_000_000L) keep settling
    equal (ValueSome 5L) first
    let struct (settling, between) = Settling.release (at 659_999_999L) keep settling
    equal ValueNone between
    let struct (settling, second) = Settling.release (at 660_000_000L) keep settling
    equal (ValueSome 9L) second
    let struct (_, none) = Settling.release (at 900_000_000L) keep settling
    equal ValueNone none

[<Test>]
let ``what was taken and is not applied is never forgotten`` () =
    let settling =
        Settling.start |> Settling.taken 5L (at 0L) 1 |> look 10L (wal 1L 2L) |> same

    equal struct (settling, ValueNone) (Settling.release (at 10_000_000_000L) keep settling)

/// A server whose writer lags behind, that is looked at now and then.
[<Property(MaxTest = 300)>]
let ``nothing is applied before the server has applied it, and all of it in the end`` () =
    let action =
        Gen.frequency [
            3, Gen.constant 0 // rows are taken
            3, Gen.constant 1 // the writer applies a transaction
            2, Gen.constant 2 // a look
            1, Gen.constant 3 // a look, during which rows are taken
        ]

    always (Gen.listOf action) (fun actions ->
        let mutable settling, moment = Settling.start, 0L
        let mutable writer, sequencer = 0L, 0L

        let take () =
            moment <- moment + 1L
            sequencer <- sequencer + 1L
            settling <- Settling.taken sequencer (at moment) 1 settling

        let see isBusy =
            moment <- moment + 1L
            let began = moment
            let state = wal writer sequencer

            if isBusy then
                take ()

            settling <- settling |> look began state |> same
            // Entry and transaction have the same numbers here.
            Assert.That(Settling.applied settling, Is.LessThanOrEqualTo writer)

        for action in actions do
            match action with
            | 0 -> take ()
            | 1 -> writer <- min sequencer (writer + 1L)
            | 2 -> see false
            | _ -> see true

        writer <- sequencer
        see false
        equal sequencer (Settling.applied settling))

// ---- how a table is doing

[<Test>]
let ``a table is sound, suspended, lagging or missing`` () =
    let suspended = {
        wal 1L 500L with
            Suspended = true
            ErrorTag = "DISK FULL"
            ErrorMessage = "no space"
    }

    for before, state, expected in
        [
            ValueNone, ValueNone, TableHealth.Missing
            ValueSome(wal 1L 1L), ValueNone, TableHealth.Missing
            ValueNone, ValueSome(wal 5L 5L), TableHealth.Sound
            ValueNone, ValueSome(wal 5L 5_000L), TableHealth.Sound // one look is no proof
            ValueSome(wal 5L 106L), ValueSome(wal 5L 107L), TableHealth.Lagging 102L
            ValueSome(wal 5L 105L), ValueSome(wal 5L 107L), TableHealth.Sound // it was not far behind before
            ValueSome(wal 5L 500L), ValueSome(wal 6L 900L), TableHealth.Sound // it moves
            ValueSome(wal 5L 500L), ValueSome(wal 5L 105L), TableHealth.Sound
            ValueNone, ValueSome suspended, TableHealth.Suspended("DISK FULL", "no space")
            ValueSome suspended, ValueSome suspended, TableHealth.Suspended("DISK FULL", "no space")
        ] do
        equal expected (TableHealth.judge before state)

[<Test>]
let ``each state of a table is explained with its cause and what to do`` () =
    for health, expected in
        [
            TableHealth.Sound, "trades takes rows and shows them"
            TableHealth.Suspended("DISK FULL", "no space"),
            "trades is suspended (DISK FULL: no space): rows wait in its log and cannot be read; remove the cause, then run ALTER TABLE \"trades\" RESUME WAL"
            TableHealth.Suspended("", "no space"),
            "trades is suspended (no space): rows wait in its log and cannot be read; remove the cause, then run ALTER TABLE \"trades\" RESUME WAL"
            TableHealth.Suspended("DISK FULL", ""),
            "trades is suspended (DISK FULL): rows wait in its log and cannot be read; remove the cause, then run ALTER TABLE \"trades\" RESUME WAL"
            TableHealth.Suspended("", ""),
            "trades is suspended (no cause is given): rows wait in its log and cannot be read; remove the cause, then run ALTER TABLE \"trades\" RESUME WAL"
            TableHealth.Lagging 102L,
            "trades is 102 transactions behind and does not move: look at the server's log, and at its disk and memory"
            TableHealth.Missing,
            "trades is not there any more: it is made again, and what is still held here is sent again"
        ] do
        equal expected (TableHealth.explain "trades" health)
