namespace Tributary

open System

/// One flow of some markets of one exchange: as many as one request holds, so that batch endpoints and limits are used well, and
/// a request that fails or hangs keeps nobody else waiting.
[<Struct>]
type Job = {
    Exchange: ExchangeId
    Stream: Stream
    /// From 0; the refresh of markets has one shard.
    Shard: int
}

/// How one market fared in a run.
type MarketResult = {
    Market: MarketId
    /// New rows.
    Rows: int
    /// What went wrong, or empty.
    Error: string
}

/// How a run ended: the answer that every job gives.
type CollectionResult = {
    Job: Job
    /// When it was due.
    Due: Instant
    Duration: TimeSpan
    Markets: MarketResult list
    /// What kept the whole run from its purpose, when something did; it makes the next runs wait.
    Fault: Fault voption
}

/// How often each flow is due.
type Cadences = {
    Books: TimeSpan
    Trades: TimeSpan
    Markets: TimeSpan
    /// The most markets in one job of books.
    BooksPerJob: int
    /// The most markets in one job of trades.
    TradesPerJob: int
    /// The share of its cadence by which a run may start later, 0 to 0.5: so that a fleet does not ask in step.
    Jitter: float
    /// What the jitter is drawn from: the same seed, the same moments.
    Seed: uint64
}

/// What the schedule hears.
[<RequireQualifiedAccess>]
type Signal =
    | Tick of now: Instant
    | Finished of now: Instant * CollectionResult
    /// Nothing is asked until resumed; what falls due meanwhile is missed for this cause.
    | Pause of Cause
    | Resume of Cause
    /// From now on these markets' books and trades are collected; those that are already stay where they are.
    | Add of now: Instant * ExchangeId * MarketId list
    /// The markets of an exchange are worth a look soon: it told of one that came into being, or is over.
    | Refresh of now: Instant * ExchangeId
    /// These flows of these markets no longer.
    | Remove of ExchangeId * Stream * MarketId list
    | Stop

/// What the schedule wants done.
[<RequireQualifiedAccess>]
type Order =
    | Run of Job * due: Instant * MarketId list
    /// So many runs, the first of them due then, did not and will not take place.
    | Missed of Job * firstDue: Instant * count: int * Cause * MarketId list
    /// After `Stop`: nothing runs any more.
    | Drained

/// What runs when: each job on a grid of its cadence, never twice at the same time, never in a burst after a pause; a failure makes
/// it wait, but a refresh of markets that failed begins its grid anew when the wait is over. Every point of the grid of a job with
/// markets is in one `Run` or counted in one `Missed`. It knows no clock: moments come with the signals.
[<NoComparison; NoEquality>]
type Schedule

[<RequireQualifiedAccess>]
module Schedule =
    /// Nothing to do until markets are added; the refresh of markets of these exchanges is due at once.
    val start: Cadences -> now: Instant -> ExchangeId list -> Schedule

    /// The whole policy: a schedule and one signal in, a schedule and its orders out.
    val step: Schedule -> Signal -> Schedule * Order list

    /// When the next `Tick` is wanted; nothing when a signal must come first.
    val wake: Schedule -> Instant voption

    /// The last result of each job.
    val results: Schedule -> CollectionResult list

    /// Why nothing is asked at present, if so.
    val paused: Schedule -> Cause list
