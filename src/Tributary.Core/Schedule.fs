namespace Tributary

open System

[<Struct>]
type Job = {
    Exchange: ExchangeId
    Stream: Stream
    Shard: int
}

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
    BooksPerJob: int
    TradesPerJob: int
    Jitter: float
    Seed: uint64
}

[<RequireQualifiedAccess>]
type Signal =
    | Tick of now: Instant
    | Finished of now: Instant * CollectionResult
    | Pause of Cause
    | Resume of Cause
    | Add of now: Instant * ExchangeId * MarketId list
    | Refresh of now: Instant * ExchangeId
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
    let private newSlot every now : Slot = {
        Every = every
        Next = now
        Count = 0L
        Markets = Set.empty
        IsRunning = false
        Failures = 0
        Waits = ValueNone
        Last = ValueNone
    }

    let start (cadences: Cadences) now (exchanges: ExchangeId list) : Schedule = {
        Cadences = cadences
        Slots = [
            for exchange in exchanges do
                {
                    Exchange = exchange
                    Stream = Stream.Markets
                    Shard = 0
                },
                newSlot cadences.Markets now
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
            | Stream.Depth -> 4UL
            | Stream.History -> 5UL
            | Stream.Prices -> 6UL

        let mutable z =
            seed
            + stream * 0xD1B54A32D192ED03UL
            + uint64 job.Shard * 0xDABA0B6EB09322E3UL
            + uint64 count * 0x9E3779B97F4A7C15UL

        z <- (z ^^^ (z >>> 30)) * 0xBF58476D1CE4E5B9UL
        z <- (z ^^^ (z >>> 27)) * 0x94D049BB133111EBUL
        z <- z ^^^ (z >>> 31)
        float (z >>> 11) / float (1UL <<< 53)

    /// When a slot's next run starts: its point of the grid, and the jitter. Nobody waits for the first refresh of markets, and one that
    /// is tried again has waited enough.
    let private due cadences job (slot: Slot) : Instant =
        if job.Stream = Stream.Markets && (slot.Count = 0L || slot.Waits.IsSome) then
            slot.Next
        else
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

    /// How long a job leaves the exchange alone after a fault; the request was repeated already. What the exchange asks for is
    /// done, within reason.
    let private patience failures fault =
        match fault with
        | Fault.Throttled(ValueSome wait) -> min (TimeSpan.FromHours 1.0) (max (Fault.backOff 1) wait)
        | _ -> Fault.backOff (failures + 1)

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
            let until = now + patience slot.Failures fault

            {
                slot with
                    IsRunning = false
                    // Nothing can be collected without markets: a refresh that failed is not left until its next turn.
                    Next =
                        if result.Job.Stream = Stream.Markets then
                            until
                        else
                            slot.Next
                    Failures = slot.Failures + 1
                    Waits = ValueSome(struct (until, Fault.cause fault))
                    Last = ValueSome result
            }

    /// Gives each market that has none a place: in the first shard with room, or in a new one.
    let private place exchange stream every most markets (schedule: Schedule) =
        let mine, others =
            schedule.Slots
            |> List.partition (fun (job, _) -> job.Exchange = exchange && job.Stream = stream)

        let placed = mine |> Seq.map (fun (_, slot) -> slot.Markets) |> Set.unionMany

        let mutable waiting =
            markets |> List.distinct |> List.filter (placed.Contains >> not)

        let fill (slot: Slot) =
            let taken, left =
                waiting |> List.splitAt (min waiting.Length (max 0 (most - slot.Markets.Count)))

            waiting <- left

            if taken.IsEmpty then
                slot
            else
                {
                    slot with
                        // A job that had nothing to do begins its grid now.
                        Next =
                            if slot.Markets.IsEmpty then
                                max slot.Next schedule.Now
                            else
                                slot.Next
                        Markets = slot.Markets + Set.ofList taken
                }

        let filled = mine |> List.map (fun (job, slot) -> job, fill slot)

        let added = [
            let mutable shard = mine.Length

            while not waiting.IsEmpty do
                {
                    Exchange = exchange
                    Stream = stream
                    Shard = shard
                },
                fill (newSlot every schedule.Now)

                shard <- shard + 1
        ]

        {
            schedule with
                Slots = others @ filled @ added
        }

    /// What an exchange announces is in its lists a little later; and one look serves several announcements.
    let private soonEnough = TimeSpan.FromSeconds 2.0

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
        | Signal.Add(now, exchange, markets) ->
            let cadences = schedule.Cadences

            { schedule with Now = now }
            |> place exchange Stream.Books cadences.Books cadences.BooksPerJob markets
            |> place exchange Stream.Trades cadences.Trades cadences.TradesPerJob markets,
            []
        | Signal.Refresh(now, exchange) ->
            let soon = now + soonEnough

            {
                schedule with
                    Now = now
                    Slots =
                        schedule.Slots
                        |> List.map (fun (job, slot) ->
                            if
                                job.Exchange = exchange
                                && job.Stream = Stream.Markets
                                && slot.Waits.IsNone
                                && slot.Next > soon
                            then
                                job, { slot with Next = soon }
                            else
                                job, slot)
            },
            []
        | Signal.Remove(exchange, stream, markets) ->
            let gone = Set.ofList markets

            {
                schedule with
                    Slots =
                        schedule.Slots
                        |> List.map (fun (job, slot) ->
                            if job.Exchange = exchange && job.Stream = stream then
                                job,
                                {
                                    slot with
                                        Markets = slot.Markets - gone
                                }
                            else
                                job, slot)
            },
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
