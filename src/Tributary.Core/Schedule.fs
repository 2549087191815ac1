namespace Tributary

open System

[<Struct>]
type Job = { Exchange: ExchangeId; Stream: Stream }

type MarketResult = {
    Market: MarketId
    Rows: int
    Error: string
}

type CollectionResult = {
    Job: Job
    Due: Instant
    Duration: TimeSpan
    Markets: MarketResult list
    Fault: Fault voption
}

type Cadences = {
    Books: TimeSpan
    Trades: TimeSpan
    Markets: TimeSpan
    Jitter: float
    Seed: uint64
}

[<RequireQualifiedAccess>]
type Signal =
    | Tick of now: Instant
    | Finished of now: Instant * CollectionResult
    | Pause of Cause
    | Resume of Cause
    | Add of ExchangeId * MarketId list
    | Remove of ExchangeId * Stream * MarketId list
    | Stop

[<RequireQualifiedAccess>]
type Order =
    | Run of Job * due: Instant * MarketId list
    | Missed of Job * firstDue: Instant * count: int * Cause * MarketId list
    | Drained

/// One job's place in time.
[<NoComparison; NoEquality>]
type Slot = {
    Every: TimeSpan
    /// The next point of its grid, before jitter.
    Next: Instant
    /// How many points of the grid have passed: what its jitter is drawn from.
    Count: int64
    Markets: Set<MarketId>
    IsRunning: bool
    /// Failed runs in a row.
    Failures: int
    /// After a failure: not before this moment, and the cause of what is missed until then.
    Waits: (struct (Instant * Cause)) voption
    Last: CollectionResult voption
}

[<NoComparison; NoEquality>]
type Schedule = {
    Cadences: Cadences
    Slots: (Job * Slot) list
    Now: Instant
    Pauses: Cause list
    IsStopping: bool
}

[<RequireQualifiedAccess>]
module Schedule =
    let private every (cadences: Cadences) stream =
        match stream with
        | Stream.Books -> cadences.Books
        | Stream.Trades -> cadences.Trades
        | Stream.Markets -> cadences.Markets

    let start (cadences: Cadences) now (exchanges: ExchangeId list) : Schedule = {
        Cadences = cadences
        Slots = [
            for exchange in exchanges do
                for stream in [ Stream.Markets; Stream.Books; Stream.Trades ] do
                    { Exchange = exchange; Stream = stream },
                    {
                        Every = every cadences stream
                        Next = now
                        Count = 0L
                        Markets = Set.empty
                        IsRunning = false
                        Failures = 0
                        Waits = ValueNone
                        Last = ValueNone
                    }
        ]
        Now = now
        Pauses = []
        IsStopping = false
    }

    /// A refresh of markets runs without any; the other jobs have nothing to do then.
    let private isIdle (job: Job) slot =
        job.Stream <> Stream.Markets && slot.Markets.IsEmpty

    /// A number in [0, 1) that depends on nothing but its arguments (SplitMix64's finish).
    let private draw (seed: uint64) (job: Job) (count: int64) =
        let stream =
            match job.Stream with
            | Stream.Markets -> 1UL
            | Stream.Books -> 2UL
            | Stream.Trades -> 3UL

        let mutable z =
            seed + stream * 0xD1B54A32D192ED03UL + uint64 count * 0x9E3779B97F4A7C15UL

        z <- (z ^^^ (z >>> 30)) * 0xBF58476D1CE4E5B9UL
        z <- (z ^^^ (z >>> 27)) * 0x94D049BB133111EBUL
        z <- z ^^^ (z >>> 31)
        float (z >>> 11) / float (1UL <<< 53)

    /// When a slot's next run starts: its point of the grid, and the jitter.
    let private due cadences job (slot: Slot) : Instant =
        slot.Next
        + slot.Every.Multiply(cadences.Jitter * draw cadences.Seed job slot.Count)

    let private skip (points: int64) (slot: Slot) = {
        slot with
            Next = slot.Next + TimeSpan(slot.Every.Ticks * points)
            Count = slot.Count + points
    }

    /// What one job does at a moment: at most one run, and a word about every point of its grid that passed without one.
    let private tick (schedule: Schedule) (now: Instant) (job, slot: Slot) : (Job * Slot) * Order list =
        if isIdle job slot || due schedule.Cadences job slot > now then
            (job, slot), []
        else
            let markets = Set.toList slot.Markets
            // Points before the last one that is due were slept through: no burst makes up for them.
            let passed = max 0L ((now.Micros - slot.Next.Micros) / (slot.Every.Ticks / 10L))
            let latest = skip passed slot

            let behind, current =
                if passed > 0L && due schedule.Cadences job latest > now then
                    passed - 1L, skip (passed - 1L) slot
                else
                    passed, latest

            let missed first count cause =
                Order.Missed(job, first, int count, cause, markets)

            let late =
                if behind > 0L then
                    [ missed slot.Next behind Cause.Late ]
                else
                    []

            let instead cause =
                (job, skip 1L current), [ missed slot.Next (behind + 1L) cause ]

            match schedule.Pauses, slot.Waits with
            | cause :: _, _ -> instead cause
            | [], _ when slot.IsRunning -> instead Cause.Late
            | [], ValueSome(struct (until, cause)) when until > now -> instead cause
            | [], _ ->
                (job,
                 {
                     skip 1L current with
                         IsRunning = true
                 }),
                late @ [ Order.Run(job, current.Next, markets) ]

    let private change job update (schedule: Schedule) = {
        schedule with
            Slots =
                schedule.Slots
                |> List.map (fun (known, slot) -> if known = job then known, update slot else known, slot)
    }

    let private drained (schedule: Schedule) =
        if
            schedule.IsStopping
            && schedule.Slots |> List.forall (fun (_, slot) -> not slot.IsRunning)
        then
            [ Order.Drained ]
        else
            []

    let private finished (now: Instant) (result: CollectionResult) (slot: Slot) =
        match result.Fault with
        | ValueNone -> {
            slot with
                IsRunning = false
                Failures = 0
                Waits = ValueNone
                Last = ValueSome result
          }
        | ValueSome fault ->
            // The request was repeated already; what is decided here is how long the job leaves the exchange alone.
            let wait =
                match fault with
                | Fault.Throttled(ValueSome wait) -> wait
                | _ -> Fault.backOff (slot.Failures + 1)

            {
                slot with
                    IsRunning = false
                    // Nothing can be collected without markets: a refresh that failed is not left until its next turn.
                    Next =
                        if result.Job.Stream = Stream.Markets then
                            min slot.Next (now + wait)
                        else
                            slot.Next
                    Failures = slot.Failures + 1
                    Waits = ValueSome(struct (now + wait, Fault.cause fault))
                    Last = ValueSome result
            }

    let step (schedule: Schedule) signal : Schedule * Order list =
        match signal with
        | Signal.Tick now when schedule.IsStopping -> { schedule with Now = now }, []
        | Signal.Tick now ->
            let ticked = schedule.Slots |> List.map (tick schedule now)

            {
                schedule with
                    Now = now
                    Slots = List.map fst ticked
            },
            List.collect snd ticked
        | Signal.Finished(now, result) ->
            let schedule = change result.Job (finished now result) { schedule with Now = now }
            schedule, drained schedule
        | Signal.Pause cause ->
            {
                schedule with
                    Pauses = schedule.Pauses @ [ cause ] |> List.distinct
            },
            []
        | Signal.Resume cause ->
            {
                schedule with
                    Pauses = schedule.Pauses |> List.filter ((<>) cause)
            },
            []
        | Signal.Add(exchange, markets) ->
            let add slot = {
                slot with
                    // A job that had nothing to do begins its grid now.
                    Next =
                        if slot.Markets.IsEmpty then
                            max slot.Next schedule.Now
                        else
                            slot.Next
                    Markets = slot.Markets + Set.ofList markets
            }

            schedule
            |> change
                {
                    Exchange = exchange
                    Stream = Stream.Books
                }
                add
            |> change
                {
                    Exchange = exchange
                    Stream = Stream.Trades
                }
                add,
            []
        | Signal.Remove(exchange, stream, markets) ->
            schedule
            |> change { Exchange = exchange; Stream = stream } (fun slot -> {
                slot with
                    Markets = slot.Markets - Set.ofList markets
            }),
            []
        | Signal.Stop ->
            let schedule = { schedule with IsStopping = true }
            schedule, drained schedule

    let wake (schedule: Schedule) =
        if schedule.IsStopping then
            ValueNone
        else
            schedule.Slots
            |> List.filter (fun (job, slot) -> not (isIdle job slot))
            |> List.map (fun (job, slot) -> due schedule.Cadences job slot)
            |> function
                | [] -> ValueNone
                | dues -> ValueSome(List.min dues)

    let results (schedule: Schedule) =
        schedule.Slots |> List.choose (fun (_, slot) -> ValueOption.toOption slot.Last)

    let paused (schedule: Schedule) = schedule.Pauses
