namespace Tributary.Stores

open System.Collections.Generic
open System.Threading
open System.Threading.Tasks
open Tributary

/// Why a store did not take what it was given. All of them may pass, and then the same batches are written again.
[<RequireQualifiedAccess>]
type StoreFault =
    /// No space is left on the device.
    | Full of detail: string
    /// Somebody else holds the file.
    | Locked of detail: string
    /// Anything else: an I/O error, a file that is damaged.
    | Failed of detail: string

    /// One sentence for a person.
    override this.ToString() =
        match this with
        | Full detail -> $"no space is left for the store ({detail})"
        | Locked detail -> $"another program holds the store ({detail})"
        | Failed detail -> $"the store failed: {detail}"

/// Why a store could not be opened; each says what to do.
[<RequireQualifiedAccess>]
type OpenFault =
    /// The file was made by a later version of Tributary.
    | Newer of path: string * found: int * known: int
    /// Another program holds the file.
    | InUse of path: string * detail: string
    /// The file is something else.
    | NotOurs of path: string * detail: string
    /// There is no such file, or no folder to make it in, or no permission.
    | Unreachable of path: string * detail: string

    /// One sentence for a person.
    override this.ToString() =
        match this with
        | Newer(path, found, known) ->
            $"{path} was made by a later version of Tributary (schema {found}; this version knows up to {known}): update Tributary, or use another file"
        | InUse(path, detail) -> $"{path} is in use: {detail}"
        | NotOurs(path, detail) -> $"{path} is not a Tributary store: {detail}"
        | Unreachable(path, detail) -> $"{path} cannot be opened: {detail}"

/// Which rows are read. Nothing in a field does not restrict.
type Query = {
    Exchange: ExchangeId voption
    Market: MarketId voption
    Token: TokenId voption
    /// From this moment, by the exchange's clock, …
    Since: Instant
    /// … to before this one.
    Until: Instant
    /// The most rows to answer, oldest first.
    Limit: int
    /// Of more trades, books, deltas, prices or rows of the account than that, the newest instead of the oldest; answered oldest first either way.
    Latest: bool
}

[<RequireQualifiedAccess>]
module Query =
    let everything = {
        Exchange = ValueNone
        Market = ValueNone
        Token = ValueNone
        Since = Instant.ofMicros System.Int64.MinValue
        Until = Instant.ofMicros System.Int64.MaxValue
        Limit = System.Int32.MaxValue
        Latest = false
    }

/// What a store holds of one market.
type MarketSummary = {
    Exchange: ExchangeId
    Market: MarketId
    /// Empty while no description is stored.
    Slug: string
    Question: string
    Status: string
    Trades: int64
    FirstTrade: Instant voption
    LastTrade: Instant voption
    Books: int64
    FirstBook: Instant voption
    LastBook: Instant voption
    Deltas: int64
    FirstDelta: Instant voption
    LastDelta: Instant voption
    Gaps: int64
    OpenGaps: int64
    /// One for each flow that is followed: how far it has come, and how its last run went.
    Checkpoints: Checkpoint list
}

/// What a store holds, all in all.
type StoreStatus = {
    Markets: MarketSummary list
    Quarantined: int64
    /// The latest value of every counter.
    Metrics: Metric list
    /// The size of its file or files, where it has any.
    Bytes: int64
    /// What else there is to know, a sentence each: what waits, what is not as it should be.
    Notes: string list
}

/// A gap, and the name of the collector that saw it.
type RecordedGap = { Collector: string; Gap: Gap }

/// How many rows of a table were deleted because they were older than they are kept.
type Expired = { Table: string; Rows: int64 }

/// What compacting a file did.
type Compacted = {
    Expired: Expired list
    /// The size of the file, with its log, in bytes.
    Before: int64
    After: int64
}

/// Why a file was not compacted. It is whole, and as it was but for rows that were deleted because they were old.
[<RequireQualifiedAccess>]
type CompactFault =
    /// It cannot be opened, or somebody writes to it.
    | Unopened of OpenFault
    /// So many bytes are needed beside it while that is done, and so many are free.
    | NoRoom of path: string * needed: int64 * free: int64
    | Failed of StoreFault

    /// One sentence for a person.
    override this.ToString() =
        let size (bytes: int64) =
            if bytes >= 1_000_000_000L then
                $"%.1f{float bytes / 1e9} GB"
            else
                $"%.1f{float bytes / 1e6} MB"

        match this with
        | Unopened fault -> string fault
        | NoRoom(path, needed, free) ->
            $"compacting {path} needs {size needed} beside it for a while, and {size free} are free: make room first"
        | Failed fault -> string fault

/// A place where batches become durable. Append twice, store once: rows are told apart by what they say (a trade's identity; a
/// book's token, time and hash; a delta's token, time, ordinal, side and price; a price's token, time and kind), and a repeat changes nothing
/// (a gap that is closed or healed, and a checkpoint, are the only things ever updated). One contract test runs against every store; `Memory` is the reference.
[<NoComparison; NoEquality>]
type Store = {
    Name: string
    /// Writes batches, in their order, as one transaction: when it answers Ok all of it is durable, else none of it is there.
    /// Sets `Inserted` on the trades, books, deltas and prices that were new. Called by one writer at a time.
    Write: IReadOnlyList<Batch> -> CancellationToken -> Task<Result<unit, StoreFault>>
    Checkpoints: unit -> Task<Checkpoint list>
    /// All gaps that overlap the span of time; an open one goes on for ever.
    Gaps: Query -> Task<RecordedGap list>
    /// The gaps that this collector left open.
    OpenGaps: unit -> Task<Gap list>
    /// The newest version of every market.
    Markets: unit -> Task<Market list>
    Trades: Query -> Task<Trade list>
    Books: Query -> Task<OrderBookSnapshot list>
    /// In the order in which they are applied: by time, of one time by token, and by ordinal.
    Deltas: Query -> Task<OrderBookDelta list>
    /// By time, of one time by token, and by kind.
    Prices: Query -> Task<PricePoint list>
    /// What became of the account's own orders: by time, of one time by order, by what is filled, and by status.
    OwnOrders: Query -> Task<OwnOrder list>
    /// The account's own trades and how far each has come: by time, of one time by trade, by order, by status, and by token.
    OwnTrades: Query -> Task<OwnTrade list>
    /// Every confirmation and every withdrawal, by time, of one time by question, answer, exchange, market and token.
    Matches: unit -> Task<MarketMatch list>
    /// All trades that a query is about, summed up by exchange, market, day, source and side of the fill, in this order. Its `Limit` and
    /// `Latest` restrict nothing.
    Tally: Query -> Task<Tally list>
    /// All of them, by time.
    Links: unit -> Task<TradeLink list>
    Quarantine: unit -> Task<Rejection list>
    Status: unit -> Task<StoreStatus>
    /// What waits for a store that is elsewhere, and what is wrong with that; cheap enough to be asked every second. Never throws.
    Backlog: unit -> Backlog
    /// Deletes what is older, at this moment, than it is kept, a little at a time, so that writes go on in between; what was deleted is a
    /// gap of cause `Expired`. Answers the tables that lost rows. A store that forgets by itself, or never, deletes nothing.
    Expire: RetentionSettings -> Instant -> CancellationToken -> Task<Result<Expired list, StoreFault>>
    /// Ends when everything that was written can be read, which takes a while where the store is elsewhere.
    Flush: CancellationToken -> Task<unit>
    Close: unit -> ValueTask
}
