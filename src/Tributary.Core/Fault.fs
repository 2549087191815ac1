namespace Tributary

open System

/// What can go wrong between a socket and a store, one union for the whole journey.
[<RequireQualifiedAccess>]
type Fault =
    /// 429: asked too often; the exchange may say how long to wait.
    | Throttled of retryAfter: TimeSpan voption
    /// No answer: name not found, connection refused or lost.
    | Unreachable of detail: string
    /// No answer in the time that is configured.
    | TimedOut of after: TimeSpan
    /// 425: the matching engine restarts.
    | Restarting
    /// A 5xx, or an error page in HTML whatever its status: something before the exchange answered for it.
    | Failing of status: int * detail: string
    /// Any other status that is not a success: asking again would not help.
    | Refused of status: int * detail: string
    /// The answer is larger than the configured limit.
    | TooLarge of limit: int64
    /// The answer is not what its decoder reads, from this byte on.
    | Undecodable of offset: int * reason: string
    /// A page came a second time, so the walk would never end.
    | RepeatedPage of cursor: string
    /// The store did not take it.
    | StoreFailed of detail: string

/// What is done about a fault.
[<RequireQualifiedAccess>]
type FaultVerdict =
    /// Ask again after this long.
    | RetryAfter of TimeSpan
    /// Keep the bytes, say so, and go on.
    | Quarantine
    /// Not this time; the next poll is another matter.
    | GiveUp

[<RequireQualifiedAccess>]
module Fault =
    /// Half a second, doubled with each attempt, 30 seconds at most. Attempts count from 1.
    let backOff attempt =
        TimeSpan.FromSeconds(min 30.0 (0.5 * Math.Pow(2.0, float (max 1 attempt - 1))))

    /// How often the same request is worth repeating.
    [<Literal>]
    let Attempts = 4

    /// Total: every fault at every attempt has an answer. Attempts count from 1; the fourth failure of one request is the last.
    let verdict attempt fault =
        let retry wait =
            if attempt >= Attempts then
                FaultVerdict.GiveUp
            else
                FaultVerdict.RetryAfter wait

        match fault with
        | Fault.Throttled(ValueSome wait) when wait > TimeSpan.FromMinutes 1.0 -> FaultVerdict.GiveUp
        | Fault.Throttled(ValueSome wait) -> retry (max wait (TimeSpan.FromMilliseconds 100.0))
        | Fault.Throttled ValueNone
        | Fault.Unreachable _
        | Fault.TimedOut _
        | Fault.Restarting
        | Fault.Failing _ -> retry (backOff attempt)
        | Fault.Undecodable _ when attempt = 1 -> retry (backOff attempt) // a body cut on its way reads well the second time
        | Fault.Undecodable _ -> FaultVerdict.Quarantine
        | Fault.RepeatedPage _ when attempt = 1 -> retry (backOff attempt)
        | Fault.RepeatedPage _
        | Fault.Refused _
        | Fault.TooLarge _
        | Fault.StoreFailed _ -> FaultVerdict.GiveUp

    /// The cause of the gap that a fault leaves.
    let cause fault =
        match fault with
        | Fault.Throttled _ -> Cause.Throttled
        | Fault.Unreachable _
        | Fault.TimedOut _ -> Cause.Unreachable
        | Fault.Restarting -> Cause.Restart
        | Fault.Failing _
        | Fault.Refused _ -> Cause.Refused
        | Fault.TooLarge _
        | Fault.Undecodable _ -> Cause.Undecodable
        | Fault.RepeatedPage _ -> Cause.Truncated
        | Fault.StoreFailed _ -> Cause.StoreFailed

    /// One sentence for a person, without the text of an exception's stack.
    let explain fault =
        match fault with
        | Fault.Throttled(ValueSome wait) -> $"too many requests (429): wait %.1f{wait.TotalSeconds} s"
        | Fault.Throttled ValueNone -> "too many requests (429)"
        | Fault.Unreachable detail -> $"no answer: {detail}"
        | Fault.TimedOut after -> $"no answer within %.1f{after.TotalSeconds} s"
        | Fault.Restarting -> "the matching engine is restarting (425)"
        | Fault.Failing(status, detail) -> $"the exchange failed with status {status}: {detail}"
        | Fault.Refused(status, detail) -> $"the exchange refused with status {status}: {detail}"
        | Fault.TooLarge limit -> $"the answer is larger than {limit} bytes"
        | Fault.Undecodable(offset, reason) -> $"unreadable from byte {offset} on: {reason}"
        | Fault.RepeatedPage cursor -> $"the page after '{cursor}' came a second time"
        | Fault.StoreFailed detail -> $"the store failed: {detail}"
