namespace Tributary

open System

/// How much of a span of time was collected, over all markets.
[<RequireQualifiedAccess>]
type Covered =
    /// No gap of any market touches it.
    | Whole
    /// Some of it lies in a gap of some market, or before its beginning.
    | Partly
    /// Every market lies in gaps for all of it, or there was none yet.
    | Nothing

/// A market as the calendar sees it.
type CalendarMarket = {
    /// When the first of it was collected.
    Since: Instant
    /// The holes of any of its streams, in any order; they may overlap.
    Gaps: Interval list
}

/// Coverage as a calendar: spans of equal length, each with its colour.
[<RequireQualifiedAccess>]
module Calendar =
    /// The spans of a time, from the first to the last that begins before its end.
    let spans (length: TimeSpan) (time: Interval) (markets: CalendarMarket list) : Covered[] =
        let micros = length.Ticks / 10L

        let count = int ((time.Until.Micros - time.Since.Micros + micros - 1L) / micros)

        let touched, missing, known =
            Array.zeroCreate count, Array.zeroCreate count, Array.zeroCreate count

        let indexOf (at: Instant) =
            (at.Micros - time.Since.Micros) / micros

        let startOf index =
            time.Since.Micros + int64 index * micros

        for market in markets do
            let first = max 0L (indexOf market.Since)

            // A market that begins in the middle was not collected before.
            if first < int64 count && market.Since.Micros > startOf (int first) then
                touched[int first] <- true

            for i in int (min first (int64 count)) .. count - 1 do
                known[i] <- known[i] + 1

            // Merged, so that two halves of a span are all of it.
            for gap in Intervals.ofSeq market.Gaps do
                if gap.Until > time.Since && gap.Since < time.Until then
                    let from = int (max 0L (indexOf gap.Since))

                    let until =
                        int (min (int64 (count - 1)) (indexOf (Instant.ofMicros (gap.Until.Micros - 1L))))

                    for i in from..until do
                        touched[i] <- true

                        if
                            gap.Since.Micros <= startOf i
                            && gap.Until.Micros >= min (startOf (i + 1)) time.Until.Micros
                        then
                            missing[i] <- missing[i] + 1

        Array.init count (fun i ->
            if known[i] = 0 || missing[i] >= known[i] then
                Covered.Nothing
            elif touched[i] then
                Covered.Partly
            else
                Covered.Whole)
