namespace Tributary

open System
open System.Threading
open System.Threading.Channels
open System.Threading.Tasks
open Microsoft.Extensions.Logging
open Tributary.Stores

/// How a due poll of one flow ended.
[<RequireQualifiedAccess>]
type PollOutcome =
    /// It brought so many new rows.
    | Stored of rows: int
    /// The book is the one that is stored already.
    | Unchanged
    /// It brought nothing; a gap says so.
    | Missed of Cause

/// One due poll of one flow, for whoever keeps accounts.
type Polled = {
    Job: Job
    Due: Instant
    Market: MarketId
    Token: TokenId voption
    Outcome: PollOutcome
    /// When that was known.
    At: Instant
}

/// What an engine runs with.
[<NoComparison; NoEquality>]
type EngineOptions = {
    Settings: Settings
    /// Opened for writing by the caller; closed by `StopAsync`.
    Store: Store
    Clock: TimeProvider
    /// Where log lines go; `Logs.none` for nowhere.
    Logs: ILoggerFactory
    /// The collector of an exchange under its settings; those of the registry unless told otherwise.
    Collector: CollectorSettings -> Collector
    /// A file to which a line is appended after each commit, for each job that got further: JSON with `job`, `watermark`, `rows`.
    ProgressLog: string option
    /// Hears of every poll; called from several threads.
    Polled: Polled -> unit
} with

    /// Without a progress log, and nobody hears of polls.
    static member Create:
        settings: Settings * store: Store * clock: TimeProvider * logs: ILoggerFactory -> EngineOptions

    /// The same with one collector, whatever the settings call it.
    member Collecting: collector: Collector -> EngineOptions

/// How an engine is doing.
type EngineStatus = {
    /// The last run of each job.
    Results: CollectionResult list
    /// Why nothing is asked at present; empty when all is well.
    Paused: Cause list
    Counts: Metric list
    Flows: int
    /// Flows with an open gap.
    Broken: int
}

/// How an engine ended.
type StopReport = {
    /// Rows stored since it started.
    Rows: int64
    Took: TimeSpan
    /// What could not be stored in time; nothing when all is safe.
    Undrained: string option
}

/// The door: collects what the settings name into the store, until it is stopped. For C# it offers members and tasks.
[<Sealed>]
type Engine =
    /// Resumes from the store, and begins. Returns when the first refresh of markets was ordered, not when it is done. Throws an
    /// `AuthenticationException` when an exchange does not take credentials that are required, or there are none, and a `TimeoutException` when
    /// it does not answer who asks with them; both say what to do.
    static member StartAsync: options: EngineOptions * ct: CancellationToken -> Task<Engine>

    /// What it runs with, and what it took on since.
    member Settings: Settings

    /// From now on collects the markets that these settings name and discover, and no others; whatever else they say is passed over. Markets that
    /// stay are not touched: no poll of theirs is missed, and their live books go on.
    member Follow: settings: Settings -> unit

    /// How it is doing now: cheap enough to be asked every second.
    member Pulse: unit -> Pulse

    /// The alerts that fire now.
    member Alerts: Alert list

    /// Everything that is measured.
    member Measures: unit -> Family list

    /// Stores rows that were not asked of an exchange, in line with those that were; ends when they are durable.
    member Add: fill: (Batch -> unit) -> Task

    /// Stops asking, lets what is under way end (for five seconds at most), writes everything, and closes the store.
    member StopAsync: limit: TimeSpan -> Task<StopReport>

    /// Waits until every market that the configuration names has been looked up once.
    member Ready: Task

    /// Ends when the scheduler has died, which is a bug of ours and was logged: nothing is asked any more. Stop the engine then.
    member Died: Task

    /// What is collected, as it becomes durable. A reader that falls more than `capacity` events behind is told so by an exception
    /// of its channel (`OverflowException`), and is read no further: it never misses something without knowing.
    member Subscribe: capacity: int -> ChannelReader<MarketEvent>

    /// As the other, of the events that are wanted; the others do not count.
    member Subscribe: capacity: int * isWanted: Func<MarketEvent, bool> -> ChannelReader<MarketEvent>

    /// The reader is told nothing more, and what it has not read is let go.
    member Unsubscribe: reader: ChannelReader<MarketEvent> -> unit

    /// Nothing is asked until `Resume`; what falls due meanwhile becomes gaps of cause `Paused`.
    member Pause: unit -> unit
    member Resume: unit -> unit
    member StatusAsync: unit -> Task<EngineStatus>
