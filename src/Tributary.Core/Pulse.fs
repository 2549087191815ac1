namespace Tributary

open System

/// A hole that is open now.
type OpenGap = {
    Stream: Stream
    /// Nothing when it is about the whole market.
    Token: TokenId voption
    Cause: Cause
    /// The last moment that is proven good.
    Since: Instant
}

/// How one market that is collected is doing.
type MarketPulse = {
    Exchange: ExchangeId
    Market: MarketId
    Slug: string
    /// When a trade of it was last stored, by our clock; nothing before the first of this run.
    LastTrade: Instant voption
    /// The usual time between its trades: an average in which the latest weigh most. Nothing before the second.
    TradeInterval: TimeSpan voption
    /// When a book or a change of one was last stored, by our clock.
    LastBook: Instant voption
    /// The verdict on the newest state of a book of it.
    Verdict: Verdict voption
    /// Rows stored since the collector started: trades, whole books, changes of books.
    Trades: int64
    Books: int64
    Deltas: int64
    Gaps: OpenGap list
}

/// The polls of one stream that are over, since the collector started: one for each token or market and time.
type StreamPulse = {
    Stream: Stream
    /// Those that fell due.
    Due: int64
    /// Those that brought what they should.
    Good: int64
}

/// What a store still has to do.
type Backlog = {
    /// Rows that wait for a store elsewhere: safe on this machine, and not seen there yet.
    Rows: int64
    Bytes: int64
    /// When the oldest of them was written.
    Since: Instant voption
    /// Rows that were given up since the start because there was no room for them here; gaps of cause `overrun` say which.
    Dropped: int64
    /// What is wrong with the store elsewhere, a sentence each: it cannot be reached, a table is suspended.
    Troubles: string list
}

[<RequireQualifiedAccess>]
module Backlog =
    /// Nothing waits, and all is well.
    let none = {
        Rows = 0L
        Bytes = 0L
        Since = ValueNone
        Dropped = 0L
        Troubles = []
    }

/// The last failure of an endpoint, after all retries.
type EndpointError = {
    Endpoint: string
    At: Instant
    Detail: string
}

/// What a limit leaves at present.
type LimitPulse = {
    Limit: string
    Left: int64
    /// What it allows in its window.
    Most: int
}

/// How a collector is doing at a moment: what health, alerts, the status page and the live view are made of. Counts go up from the start of the
/// collector, so that two pulses give the rates between them.
type Pulse = {
    At: Instant
    /// The collector's configured name.
    Collector: string
    Started: Instant
    /// Why nothing is asked at present; empty when all is well.
    Paused: Cause list
    /// When anything at all was last received; nothing before the first.
    LastReceived: Instant voption
    Markets: MarketPulse list
    Streams: StreamPulse list
    /// Requests that were sent, and those of them that failed.
    Requests: int64
    Failures: int64
    /// Live connections that are open, and those that are wanted.
    Connected: int
    Connections: int
    /// Of every limit of every exchange.
    Limits: LimitPulse list
    /// The last of each endpoint that ever failed in this run, newest first.
    Errors: EndpointError list
    Backlog: Backlog
    /// How far our clock is ahead of the exchange's, to about a second; nothing before the first answer.
    Skew: TimeSpan voption
    /// Bytes that are free where the store is; nothing when it has no place on a disk.
    FreeBytes: int64 voption
}
