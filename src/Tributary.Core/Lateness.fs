namespace Tributary

open System
open System.Numerics

/// Durations in buckets that grow by about a fifth, from a microsecond to an hour: quantiles within a fifth of the truth, in constant
/// space. Negative ones count as the shortest.
[<Sealed>]
type Durations() =
    // Four buckets for each doubling.
    let counts: int64[] = Array.zeroCreate (4 * 40)
    let mutable total = 0L

    static let bucketOf (micros: int64) =
        let micros = uint64 (max 1L micros)
        let doublings = BitOperations.Log2 micros

        let quarter =
            if doublings < 2 then
                0
            else
                int (micros >>> (doublings - 2)) &&& 3

        min (4 * 40 - 1) (4 * doublings + quarter)

    /// The upper end of a bucket, in microseconds.
    static let endOf bucket =
        let doublings, quarter = bucket / 4, bucket % 4

        if doublings < 2 then
            1L <<< (doublings + 1)
        else
            int64 (4 + quarter + 1) <<< (doublings - 2)

    member _.Count = total

    /// So many of this length.
    member _.Add(duration: TimeSpan, times: int64) =
        let bucket = bucketOf (duration.Ticks / 10L)
        counts[bucket] <- counts[bucket] + times
        total <- total + times

    member this.Add(duration: TimeSpan) = this.Add(duration, 1L)

    /// The duration that this share (0 to 1) does not exceed; zero when there are none.
    member _.Quantile(share: float) : TimeSpan =
        if total = 0L then
            TimeSpan.Zero
        else
            let wanted = max 1L (int64 (Math.Ceiling(share * float total)))
            let mutable bucket, seen = 0, counts[0]

            while seen < wanted do
                bucket <- bucket + 1
                seen <- seen + counts[bucket]

            TimeSpan(endOf bucket * 10L)

    member _.Clear() =
        Array.Clear counts
        total <- 0L

/// Why messages seem old when they are dealt with.
[<RequireQualifiedAccess>]
type Lateness =
    /// They are not.
    | None
    /// They wait here before they are dealt with.
    | WeAreSlow
    /// They come late, some much later than others.
    | ExchangeIsLate
    /// All of them are as old as each other, or come from the future.
    | ClocksDiffer

[<RequireQualifiedAccess>]
module Lateness =
    /// From how long messages waited here (`waited`), and how old they were when they came by the exchange's clock (`age`; `earliest` is
    /// the youngest of them, negative when it came before it happened).
    let judge (waited: Durations) (age: Durations) (earliest: TimeSpan) : Lateness =
        let seconds = TimeSpan.FromSeconds: float -> TimeSpan

        if waited.Count = 0L then
            Lateness.None
        elif waited.Quantile 0.99 > seconds 1.0 then
            Lateness.WeAreSlow
        elif earliest < seconds -0.25 || earliest > seconds 2.0 then
            Lateness.ClocksDiffer
        elif age.Quantile 0.99 > seconds 2.0 then
            Lateness.ExchangeIsLate
        else
            Lateness.None

    let explain lateness =
        match lateness with
        | Lateness.None -> "messages are dealt with in time"
        | Lateness.WeAreSlow ->
            "messages wait here for more than a second: this machine is too slow for what it collects, or its disk is"
        | Lateness.ExchangeIsLate -> "the exchange sends messages more than two seconds after they happened"
        | Lateness.ClocksDiffer ->
            "this machine's clock and the exchange's differ: see that the time is synchronised here"
