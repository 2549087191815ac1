namespace Tributary

open System.Collections.Concurrent
open System.Diagnostics
open System.Diagnostics.Metrics
open System.Threading

/// Every counter, by name: one vocabulary for all components. Labels are `key=value` pairs separated by commas.
[<RequireQualifiedAccess>]
module Count =
    /// Requests sent, by endpoint and outcome.
    let requests = "requests"
    /// Bytes of bodies received, decompressed, by endpoint.
    let bytesReceived = "bytes_received"
    /// Events decoded, by stream.
    let eventsReceived = "events_received"
    /// Events that a store had not seen before, by stream.
    let eventsStored = "events_stored"
    /// Books that are as they were at the poll before.
    let unchanged = "events_unchanged"
    /// Trades that were read again, as every follow does.
    let duplicates = "duplicates"
    /// Rows and bodies kept in quarantine, by reason.
    let quarantined = "events_quarantined"
    /// Faults that remained after all retries, by cause.
    let faults = "faults"
    /// Rows flagged by validation, by flag.
    let warnings = "warnings"
    /// Books by verdict.
    let books = "books"
    /// Polls that fell due, one for each token or market and time, by stream.
    let pollsDue = "polls_due"
    /// Polls that brought what they should, by stream.
    let pollsGood = "polls_good"
    /// Polls that did not, by stream and cause; each lies in a gap.
    let pollsMissed = "polls_missed"
    let gapsOpened = "gaps_opened"
    let gapsClosed = "gaps_closed"
    /// States of live books, by verdict.
    let states = "book_states"
    /// Updates that were older than the book they were for, by stream.
    let late = "events_late"
    /// Messages of kinds that nobody knows.
    let unknownMessages = "messages_unknown"
    /// Messages that were not in the usual form, and were read with care.
    let unusualMessages = "messages_unusual"
    /// Live books that stayed crossed.
    let crossed = "books_crossed"
    /// Best prices that came with a change and were not those of the proven book.
    let wrongBest = "best_prices_wrong"
    /// Polled books that agreed with the live ones.
    let agreed = "books_agreed"
    let connects = "connects"
    let disconnects = "disconnects"
    /// Subscriptions that were begun anew, because a book could not be proven.
    let resubscribed = "resubscribed"
    /// Tokens that were moved to another connection.
    let moved = "moved"
    /// Connections that were replaced because they said nothing any more.
    let rotated = "rotated"
    /// Stream trades that no API trade confirmed in time.
    let unconfirmed = "trades_unconfirmed"
    /// Stream trades that are linked to the API's.
    let linked = "trades_linked"
    /// Milliseconds from the arrival of a change of a live book to its being durable, by quantile, since the start. A gauge.
    let untilDurable = "receive_to_durable"
    /// Transactions of the store.
    let commits = "commits"

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

/// Counters that can be read back: for `status`, for `collection_metrics`, and as .NET metrics for whoever listens.
[<Sealed>]
type Meters() =
    let counts = ConcurrentDictionary<struct (string * string), int64 ref>()

    // Instruments live as long as the process; the name is the one that listeners ask for.
    static let meter = new Meter "Tributary"
    static let instruments = ConcurrentDictionary<string, Counter<int64>>()

    /// The name under which .NET listeners find the counters.
    static member MeterName = "Tributary"

    member _.Add(name: string, labels: string, amount: int64) =
        if amount <> 0L then
            let count = counts.GetOrAdd(struct (name, labels), (fun _ -> ref 0L))
            Interlocked.Add(&count.contents, amount) |> ignore

            let counter =
                instruments.GetOrAdd(name, (fun name -> meter.CreateCounter<int64>("tributary." + name)))

            if counter.Enabled then
                let tags =
                    labels.Split(',', System.StringSplitOptions.RemoveEmptyEntries)
                    |> Array.map (fun pair ->
                        let at = pair.IndexOf '='

                        System.Collections.Generic.KeyValuePair<string, obj | null>(
                            pair.Substring(0, at),
                            pair.Substring(at + 1)
                        ))

                counter.Add(amount, tags)

    member this.Add(name: string, labels: string) = this.Add(name, labels, 1L)

    /// The sum over all labels.
    member _.Total(name: string) =
        counts
        |> Seq.sumBy (fun (KeyValue(struct (known, _), count)) ->
            if known = name then Volatile.Read &count.contents else 0L)

    /// Everything that was counted, in the order of names and labels.
    member _.Snapshot(at: Instant) : Metric list = [
        for KeyValue(struct (name, labels), count) in counts do
            {
                Name = name
                Labels = labels
                At = at
                Value = float (Volatile.Read &count.contents)
            }
    ]
