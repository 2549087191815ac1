namespace Tributary

open System
open System.Collections.Concurrent
open System.Collections.Generic
open System.Diagnostics
open System.Diagnostics.Metrics
open System.Threading

/// What a measure is.
[<RequireQualifiedAccess>]
type MeasureKind =
    /// Goes up from the start of the process.
    | Counter
    /// Goes up and down.
    | Gauge
    /// How long something took: a histogram, in seconds.
    | Duration

/// Something that is measured, by the name that it has everywhere: in `status`, in `collection_metrics`, and, with the usual prefix and
/// ending, for Prometheus and OpenTelemetry.
type Measure = {
    Name: string
    Kind: MeasureKind
    Help: string
}

[<RequireQualifiedAccess>]
module internal Measure =
    let make kind name help = {
        Name = name
        Kind = kind
        Help = help
    }

/// Every counter: one vocabulary for all components. What a counter is counted by is said in labels, `key=value` pairs separated by commas;
/// the exchange is one of them where there is one.
[<RequireQualifiedAccess>]
module Count =
    let private counter = Measure.make MeasureKind.Counter

    let requests = counter "requests" "Requests sent, by endpoint and outcome."

    let bytesReceived =
        counter "bytes_received" "Bytes received, decompressed, by endpoint."

    let eventsReceived = counter "events_received" "Events decoded, by stream."

    let eventsStored =
        counter "events_stored" "Events that the store had not seen before, by stream."

    let eventsRejected = counter "events_rejected" "Rows that cannot be true, by rule."

    let unchanged =
        counter "events_unchanged" "Books that are as they were at the poll before."

    let duplicates =
        counter "duplicates" "Rows that were read again, by stream: every follow re-reads a window."

    let dropped =
        counter
            "events_dropped"
            "Trades, books, changes and prices that were given up because there was no room for what waits for a store elsewhere; gaps say which."

    let quarantined = counter "events_quarantined" "Rows and bodies kept in quarantine."

    let faults =
        counter "faults" "Faults that remained after all retries, by endpoint and cause."

    let warnings = counter "warnings" "Rows flagged by validation, by flag."
    let books = counter "books" "Polled books, by verdict."

    let pollsDue =
        counter "polls_due" "Polls that fell due, one for each token or market and time, by stream."

    let pollsGood =
        counter "polls_good" "Polls that brought what they should, by stream."

    let pollsMissed =
        counter "polls_missed" "Polls that did not, by stream and cause; each lies in a gap."

    let gapsOpened = counter "gaps_opened" "Gaps that began, by stream and cause."
    let gapsClosed = counter "gaps_closed" "Gaps that ended, by stream."
    let states = counter "book_states" "States of live books, by verdict."

    let early =
        counter "events_early" "Updates that came before the first book they were for, by stream."

    let late =
        counter "events_late" "Updates that were older than the book they were for, by stream."

    let unknownMessages =
        counter "messages_unknown" "Messages of kinds that nobody knows."

    let unusualMessages =
        counter "messages_unusual" "Messages that were not in the usual form, and were read with care."

    let crossed = counter "books_crossed" "Live books that stayed crossed."

    let wrongBest =
        counter "best_prices_wrong" "Best prices that the exchange told and that were not those of the book."

    let agreed = counter "books_agreed" "Polled books that agreed with the live ones."
    let connects = counter "connects" "Live connections that were opened."
    let disconnects = counter "disconnects" "Live connections that were lost, by cause."

    let resubscribed =
        counter "resubscribed" "Subscriptions that were begun anew because a book could not be proven."

    let moved = counter "moved" "Tokens that were moved to another connection."

    let rotated =
        counter "rotated" "Connections that were replaced because they said nothing any more."

    let unconfirmed =
        counter "trades_unconfirmed" "Fills of the stream that the API did not confirm in time."

    let linked =
        counter "trades_linked" "Fills of the stream that are linked to the API's."

    let ownMissed =
        counter
            "own_missed"
            "Times that the account's own orders and trades could not be fetched, by cause; the next time that they can, they are read from where they were known last."

    let commits = counter "commits" "Transactions of the store."

    let storeFailures =
        counter "store_failures" "Transactions that the store did not take; each is tried again."

    let notices = counter "notices" "Alerts that were told, by rule and state."
    let noticesSent = counter "notices_sent" "Notices that arrived, by sink."

    let noticesFailed =
        counter "notices_failed" "Notices that did not arrive, after all attempts, by sink."

    let noticesDropped =
        counter
            "notices_dropped"
            "Notices that nobody tried to send, because too many waited or the collector stopped, by sink."

/// Every gauge. They are read when somebody looks.
[<RequireQualifiedAccess>]
module Gauge =
    let private gauge = Measure.make MeasureKind.Gauge

    let markets =
        gauge
            "markets"
            "Markets that are collected, by state: active, or closing, whose last trades may still come."

    let openGaps = gauge "gaps_open" "Gaps that are open, by stream and cause."

    let coverage =
        gauge
            "coverage_ratio"
            "Polls that brought what they should, of those that fell due since the start, by stream."

    let connections =
        gauge "connections" "Live connections, by state: open, or wanted and not open."

    let intakeWaiting =
        gauge "intake_batches" "Batches that wait for the store, of at most intake.capacity."

    let framesWaiting =
        gauge "frames_waiting" "Frames of live connections that wait to be decoded."

    let limitLeft =
        gauge "limit_headroom" "Requests that a limit leaves at present, by limit."

    let backlogRows = gauge "outbox_rows" "Rows that wait for a store elsewhere."
    let backlogBytes = gauge "outbox_bytes" "Bytes that wait for a store elsewhere."

    let backlogAge =
        gauge "outbox_age_seconds" "The age of the oldest row that waits for a store elsewhere."

    let storeTroubles =
        gauge
            "store_troubles"
            "What is wrong with the store elsewhere: suspended tables, a server that is away."

    let silence = gauge "silence_seconds" "How long nothing at all was received."

    let skew =
        gauge "clock_skew_seconds" "How far our clock is ahead of the exchange's, to about a second."

    let freeBytes = gauge "disk_free_bytes" "Bytes that are free where the store is."

    let alerts = gauge "alerts_firing" "Alerts that fire at present, by rule."

    let paused =
        gauge "paused" "1 for each reason for which nothing is asked at present, by cause."

/// Every duration.
[<RequireQualifiedAccess>]
module Took =
    let private duration = Measure.make MeasureKind.Duration

    let request =
        duration "request_seconds" "From sending a request to having read its answer, by endpoint."

    let limiter =
        duration "limiter_wait_seconds" "What requests waited for a limit, by endpoint."

    let receive =
        duration "exchange_to_receive_seconds" "From an event at the exchange to its arrival, by stream."

    let untilDurable =
        duration
            "receive_to_durable_seconds"
            "From the arrival of a change of a live book to its being durable."

    let commit = duration "commit_seconds" "Transactions of the store."

/// Spans for whoever traces the process: `request` (tags `endpoint`, `outcome`) around each attempt, and `commit` (tags `batches`, `rows`,
/// `outcome`) around each transaction of the store. Nobody listening, they cost nothing.
[<RequireQualifiedAccess>]
module Trace =
    /// The name under which .NET listeners find the spans.
    [<Literal>]
    let SourceName = "Tributary"

    let private source = new ActivitySource(SourceName)

    let internal start (name: string) (kind: ActivityKind) : Activity | null =
        source.StartActivity(name, kind)

    /// The value is asked for when somebody listens.
    let internal tag (key: string) (value: unit -> obj | null) (span: Activity | null) =
        match span with
        | null -> ()
        | span -> span.SetTag(key, value ()) |> ignore

/// How often something took at most so long, and how long all of it took.
type Histogram = {
    /// Upper bounds in seconds, and how many durations do not exceed each.
    Buckets: struct (float * int64) list
    Total: int64
    Sum: float
    /// Half, and 99 of 100, did not take longer: in seconds, within a fifth.
    Half: float
    Most: float
}

/// The value of a measure under its labels.
[<RequireQualifiedAccess>]
type Measured =
    | Number of float
    | Histogram of Histogram

/// A measure with all its labels and values at a moment.
type Family = {
    Measure: Measure
    Readings: struct (string * Measured) list
}

[<RequireQualifiedAccess>]
module internal Labels =
    let join (one: string) (other: string) =
        if one = "" then other
        elif other = "" then one
        else $"{one},{other}"

    /// `key=value,…` as pairs.
    let pairs (labels: string) : struct (string * string)[] =
        labels.Split(',', StringSplitOptions.RemoveEmptyEntries)
        |> Array.map (fun pair ->
            let at = pair.IndexOf '='
            struct (pair.Substring(0, at), pair.Substring(at + 1)))

    let tags (labels: string) : KeyValuePair<string, obj | null>[] =
        pairs labels
        |> Array.map (fun (struct (key, value)) -> KeyValuePair(key, value))

/// .NET's instruments, by the name that listeners ask for. They end with their owner.
[<Sealed>]
type internal Instruments() =
    let meter = new Meter "Tributary"
    let counters = ConcurrentDictionary<string, Counter<int64>>()
    let histograms = ConcurrentDictionary<string, Histogram<float>>()

    member _.Counter(measure: Measure) =
        counters.GetOrAdd(
            measure.Name,
            fun name -> meter.CreateCounter<int64>("tributary." + name, description = measure.Help)
        )

    member _.Histogram(measure: Measure) =
        histograms.GetOrAdd(
            measure.Name,
            fun name -> meter.CreateHistogram<float>("tributary." + name, "s", measure.Help)
        )

    member _.Watch(measure: Measure, read: unit -> Measurement<float> seq) =
        let name = "tributary." + measure.Name

        if measure.Kind = MeasureKind.Counter then
            meter.CreateObservableCounter<float>(name, read, description = measure.Help)
            |> ignore
        else
            meter.CreateObservableGauge<float>(name, read, description = measure.Help)
            |> ignore

    interface IDisposable with
        member _.Dispose() = meter.Dispose()

/// Whether anything is counted and timed: it always is, but in the benchmark that tells what that costs.
[<AbstractClass; Sealed>]
type internal Metering private () =
    static let mutable isOff = false

    static member IsOff
        with get () = isOff
        and set value = isOff <- value

/// A counter under its labels: for paths that count often.
[<Sealed>]
type internal Counting(measure: Measure, labels: string, instrument: Counter<int64>) =
    let mutable count = 0L
    let tags = Labels.tags labels
    member _.Measure = measure
    member _.Labels = labels
    member _.Count = Volatile.Read &count

    member _.Add(amount: int64) =
        if not Metering.IsOff then
            Interlocked.Add(&count, amount) |> ignore

            if instrument.Enabled then
                instrument.Add(amount, tags)

/// A histogram under its labels: for paths that measure often.
[<Sealed>]
type internal Timing(measure: Measure, labels: string, instrument: Histogram<float>) =
    static let bounds = [|
        0.001
        0.0025
        0.005
        0.01
        0.025
        0.05
        0.1
        0.25
        0.5
        1.0
        2.5
        5.0
        10.0
        30.0
        60.0
    |]

    // NOTE: not a `Lock`, which F#'s `lock` would take for any object, and so for another lock than its own.
    let gate = obj ()
    let counts: int64[] = Array.zeroCreate (bounds.Length + 1)
    let durations = Durations()
    let mutable sum = 0.0
    let tags = Labels.tags labels
    member _.Measure = measure
    member _.Labels = labels

    /// So many took this long.
    member this.Add(took: TimeSpan, times: int64) =
        if times > 0L && not Metering.IsOff then
            this.Count(took, times)

    member this.Add(took: TimeSpan) = this.Add(took, 1L)

    member private _.Count(took: TimeSpan, times: int64) =
        let seconds = max 0.0 took.TotalSeconds
        let mutable bucket = 0

        while bucket < bounds.Length && seconds > bounds[bucket] do
            bucket <- bucket + 1

        Monitor.Enter gate
        counts[bucket] <- counts[bucket] + times
        sum <- sum + seconds * float times
        durations.Add(took, times)
        Monitor.Exit gate

        if instrument.Enabled then
            for _ in 1L .. times do
                instrument.Record(seconds, tags)

    member _.Read() : Histogram =
        lock gate (fun () ->
            let mutable total = 0L

            let buckets = [
                for i in 0 .. bounds.Length - 1 do
                    total <- total + counts[i]
                    struct (bounds[i], total)
            ]

            {
                Buckets = buckets
                Total = durations.Count
                Sum = sum
                Half = (durations.Quantile 0.5).TotalSeconds
                Most = (durations.Quantile 0.99).TotalSeconds
            })

/// What all views of one process's meters share.
[<Sealed>]
type private Shared() =
    member val Instruments = new Instruments()
    member val Counts = ConcurrentDictionary<struct (string * string * string), Counting>()
    member val Timings = ConcurrentDictionary<struct (string * string * string), Timing>()
    member val Gauges = ConcurrentDictionary<Measure, unit -> struct (string * float) list>()
    member val Errors = ConcurrentDictionary<string, EndpointError>()
    /// Microseconds since 1970; 0 for never.
    member val HeardAt = ref 0L

/// Counters, gauges and durations that can be read back: for `status`, for `collection_metrics`, for Prometheus, and as .NET metrics for
/// whoever listens.
[<Sealed>]
type Meters private (shared: Shared, prefix: string) =
    new() = new Meters(Shared(), "")

    /// The name under which .NET listeners find them.
    static member MeterName = "Tributary"

    /// The same meters; what is counted through this view is of an exchange.
    member this.Of(exchange: string) =
        if exchange = "" then
            this
        else
            new Meters(shared, Labels.join prefix $"exchange={exchange}")

    member internal _.Counter(measure: Measure, labels: string) : Counting =
        shared.Counts.GetOrAdd(
            struct (measure.Name, prefix, labels),
            fun _ -> Counting(measure, Labels.join prefix labels, shared.Instruments.Counter measure)
        )

    member internal _.Timing(measure: Measure, labels: string) : Timing =
        shared.Timings.GetOrAdd(
            struct (measure.Name, prefix, labels),
            fun _ -> Timing(measure, Labels.join prefix labels, shared.Instruments.Histogram measure)
        )

    member this.Add(measure: Measure, labels: string, amount: int64) =
        if amount <> 0L && not Metering.IsOff then
            this.Counter(measure, labels).Add amount

    member this.Add(measure: Measure, labels: string) = this.Add(measure, labels, 1L)

    member this.Add(measure: Measure, labels: string, took: TimeSpan) =
        if not Metering.IsOff then
            this.Timing(measure, labels).Add took

    /// A gauge (or a counter that somebody else keeps) is read by this function, whenever somebody looks: its values by their labels.
    member _.Watch(measure: Measure, read: unit -> struct (string * float) list) =
        if shared.Gauges.TryAdd(measure, read) then
            shared.Instruments.Watch(
                measure,
                fun () ->
                    read ()
                    |> Seq.map (fun (struct (labels, value)) -> Measurement(value, Labels.tags labels))
            )

    /// Something was received.
    member _.Heard(at: Instant) =
        Volatile.Write(&shared.HeardAt.contents, at.Micros)

    /// When anything at all was last received.
    member _.LastHeard: Instant voption =
        match Volatile.Read &shared.HeardAt.contents with
        | 0L -> ValueNone
        | micros -> ValueSome(Instant.ofMicros micros)

    /// A request of an endpoint failed, after all retries.
    member _.Failed(endpoint: string, at: Instant, detail: string) =
        shared.Errors[endpoint] <-
            {
                Endpoint = endpoint
                At = at
                Detail = detail
            }

    /// The last failure of each endpoint, newest first.
    member _.Errors: EndpointError list =
        shared.Errors.Values |> Seq.sortByDescending _.At |> List.ofSeq

    /// The sum over the labels that are wanted.
    member _.Total(measure: Measure, isWanted: string -> bool) =
        shared.Counts.Values
        |> Seq.sumBy (fun counting ->
            if counting.Measure.Name = measure.Name && isWanted counting.Labels then
                counting.Count
            else
                0L)

    /// The sum over all labels.
    member this.Total(measure: Measure) = this.Total(measure, (fun _ -> true))

    /// Everything that is measured, in the order of names and labels.
    member _.Families() : Family list =
        [
            for counting in shared.Counts.Values do
                counting.Measure, struct (counting.Labels, Measured.Number(float counting.Count))

            for timing in shared.Timings.Values do
                timing.Measure, struct (timing.Labels, Measured.Histogram(timing.Read()))

            for KeyValue(measure, read) in shared.Gauges do
                for struct (labels, value) in read () do
                    measure, struct (labels, Measured.Number value)
        ]
        |> List.groupBy fst
        |> List.map (fun (measure, readings) -> {
            Measure = measure
            Readings = readings |> List.map snd |> List.sortBy (fun (struct (labels, _)) -> labels)
        })
        |> List.sortBy _.Measure.Name

    /// The same as rows: of a histogram, how long half and 99 of 100 took at most.
    member this.Snapshot(at: Instant) : Metric list = [
        for family in this.Families() do
            for struct (labels, reading) in family.Readings do
                let row labels value = {
                    Name = family.Measure.Name
                    Labels = labels
                    At = at
                    Value = value
                }

                match reading with
                | Measured.Number value -> row labels value
                | Measured.Histogram histogram ->
                    row (Labels.join labels "quantile=0.5") histogram.Half
                    row (Labels.join labels "quantile=0.99") histogram.Most
    ]

    interface IDisposable with
        /// Listeners hear no more of them, and gauges are read no more; what was counted can still be read.
        member _.Dispose() =
            shared.Gauges.Clear()
            (shared.Instruments :> IDisposable).Dispose()

/// What the process costs, under the names that Prometheus has for it everywhere.
[<RequireQualifiedAccess>]
module internal Machine =
    let private counter = Measure.make MeasureKind.Counter
    let private gauge = Measure.make MeasureKind.Gauge
    let private one (value: float) = [ struct ("", value) ]

    let watch (meters: Meters) =
        meters.Watch(
            counter "process_cpu_seconds" "Processor time that the process took.",
            fun () -> one Environment.CpuUsage.TotalTime.TotalSeconds
        )

        meters.Watch(
            gauge "process_resident_memory_bytes" "Memory of the process.",
            fun () -> one (float Environment.WorkingSet)
        )

        meters.Watch(
            gauge "dotnet_gc_heap_bytes" "The managed heap after the last collection.",
            fun () -> one (float (GC.GetGCMemoryInfo().HeapSizeBytes))
        )

        meters.Watch(
            counter "dotnet_gc_collections" "Collections of garbage, by generation.",
            fun () -> [
                for generation in 0 .. GC.MaxGeneration do
                    struct ($"generation={generation}", float (GC.CollectionCount generation))
            ]
        )

        meters.Watch(
            counter "dotnet_gc_pause_seconds" "How long collections stopped everything, all in all.",
            fun () -> one (GC.GetTotalPauseDuration().TotalSeconds)
        )

        meters.Watch(
            counter "dotnet_allocated_bytes" "Bytes allocated on the managed heap.",
            fun () -> one (float (GC.GetTotalAllocatedBytes()))
        )
