namespace Tributary

open System
open System.Buffers.Text

/// A moment: microseconds since 1970-01-01 UTC. Two of them are on every event: the exchange's and ours.
[<Struct>]
type Instant = {
    /// Microseconds since 1970-01-01 UTC.
    Micros: int64
} with

    static member (-)(a: Instant, b: Instant) = TimeSpan((a.Micros - b.Micros) * 10L)
    static member (+)(a: Instant, b: TimeSpan) = { Micros = a.Micros + b.Ticks / 10L }
    static member (-)(a: Instant, b: TimeSpan) = { Micros = a.Micros - b.Ticks / 10L }

    /// `2026-07-24T00:00:16.000000Z`; outside the years 1 to 9999 the bare count of microseconds.
    override this.ToString() =
        if
            this.Micros >= -62_135_596_800_000_000L
            && this.Micros <= 253_402_300_799_999_999L
        then
            DateTime.UnixEpoch.AddTicks(this.Micros * 10L).ToString "yyyy-MM-ddTHH:mm:ss.ffffffZ"
        else
            $"{this.Micros} us"

[<RequireQualifiedAccess>]
module Instant =
    /// The first microsecond of the year 1 and the last of 9999: moments outside are refused as unreadable.
    let private earliest, latest = -62_135_596_800_000_000L, 253_402_300_799_999_999L

    let ofMicros micros : Instant = { Micros = micros }

    /// More than this time has passed since then. Hot paths ask here, and compare `Micros`: the language's operators put what they
    /// compare into boxes.
    let hasPassed (limit: TimeSpan) (since: Instant) (now: Instant) =
        (now.Micros - since.Micros) * 10L > limit.Ticks

    let ofSeconds (seconds: int64) : Instant = { Micros = seconds * 1_000_000L }
    let ofMillis (millis: int64) : Instant = { Micros = millis * 1_000L }

    let ofDateTimeOffset (moment: DateTimeOffset) : Instant = {
        Micros = (moment.UtcTicks - DateTime.UnixEpoch.Ticks) / 10L
    }

    let toDateTimeOffset (instant: Instant) =
        DateTimeOffset(DateTime.UnixEpoch.AddTicks(instant.Micros * 10L))

    /// `2026-07-24T00:00:16.000000Z`
    let text (instant: Instant) = instant.ToString()

    /// An epoch number in seconds or, when above 1e12, milliseconds. False when it is none, or too large.
    let tryOfEpoch (number: int64) (instant: byref<Instant>) =
        if number >= 0L && number <= latest / 1_000L then
            instant <-
                if number > 1_000_000_000_000L then
                    ofMillis number
                else
                    ofSeconds number

            instant.Micros <= latest
        else
            false

    /// Reads an epoch number in seconds or, when above 1e12, milliseconds (the heuristic that every tool for these feeds uses).
    /// Decimals are microseconds; what lies beyond is rounded. False when it is no such number.
    let tryEpoch (text: ReadOnlySpan<byte>) (instant: byref<Instant>) =
        let mutable number, used = 0L, 0

        if
            Utf8Parser.TryParse(text, &number, &used)
            && used = text.Length
            && tryOfEpoch number &instant
        then
            true
        else
            // Rare: decimals, which recorders write and exchanges do not.
            let mutable millionths, rounded = 0L, false

            if Fixed.parse text &millionths &rounded = NumberFault.None && millionths >= 0L then
                instant <-
                    ofMicros (
                        if millionths > 1_000_000_000_000L * Fixed.One then
                            millionths / 1_000L
                        else
                            millionths
                    )

                instant.Micros <= latest
            else
                false

    let private digits (text: ReadOnlySpan<byte>) start count =
        let mutable number = if start + count <= text.Length then 0 else -1
        let mutable i = start

        while number >= 0 && i < start + count do
            let digit = int text[i] - int '0'B
            number <- if digit >= 0 && digit <= 9 then number * 10 + digit else -1
            i <- i + 1

        number

    /// Reads ISO 8601 as the exchanges write it: `T` or a space between date and time, 0 to 9 decimals (beyond microseconds
    /// cut off), `Z`, `+00`, `+00:00` or nothing (UTC); a date alone is its midnight.
    let tryIso (text: ReadOnlySpan<byte>) (instant: byref<Instant>) =
        let year, month, day = digits text 0 4, digits text 5 2, digits text 8 2

        if
            text.Length < 10
            || text[4] <> '-'B
            || text[7] <> '-'B
            || year < 1
            || month < 1
            || month > 12
            || day < 1
            || day > DateTime.DaysInMonth(year, month)
        then
            false
        else
            let date = DateTime(year, month, day, 0, 0, 0, DateTimeKind.Utc)
            let midnight = (date.Ticks - DateTime.UnixEpoch.Ticks) / 10L

            if text.Length = 10 then
                instant <- ofMicros midnight
                true
            else
                let hour, minute, second = digits text 11 2, digits text 14 2, digits text 17 2

                if
                    text.Length < 19
                    || (text[10] <> 'T'B && text[10] <> ' 'B)
                    || text[13] <> ':'B
                    || text[16] <> ':'B
                    || hour < 0
                    || hour > 23
                    || minute < 0
                    || minute > 59
                    || second < 0
                    || second > 60
                then
                    false
                else
                    let mutable i = 19
                    let mutable micros, unit = 0L, 100_000L
                    let mutable ok = true

                    if i < text.Length && text[i] = '.'B then
                        i <- i + 1
                        let first = i

                        while i < text.Length && text[i] >= '0'B && text[i] <= '9'B do
                            micros <- micros + int64 (text[i] - '0'B) * unit
                            unit <- unit / 10L
                            i <- i + 1

                        ok <- i > first && i - first <= 9

                    let mutable offset = 0L

                    if i < text.Length && (text[i] = 'Z'B || text[i] = 'z'B) then
                        i <- i + 1
                    elif i < text.Length && (text[i] = '+'B || text[i] = '-'B) then
                        let sign = if text[i] = '-'B then -1L else 1L
                        let hours = digits text (i + 1) 2
                        i <- i + 3

                        let colon = i < text.Length && text[i] = ':'B

                        if colon then
                            i <- i + 1

                        let hasMinutes = colon || i < text.Length
                        let minutes = if hasMinutes then digits text i 2 else 0

                        if hasMinutes then
                            i <- i + 2

                        ok <- ok && hours >= 0 && hours <= 23 && minutes >= 0 && minutes <= 59
                        offset <- sign * (int64 hours * 60L + int64 minutes) * 60_000_000L

                    if ok && i = text.Length then
                        let clock = (int64 hour * 3600L + int64 minute * 60L + int64 second) * 1_000_000L
                        instant <- ofMicros (midnight + clock + micros - offset)
                        instant.Micros >= earliest && instant.Micros <= latest
                    else
                        false

    /// Reads an epoch number or ISO 8601: recorders write either.
    let tryRead (text: ReadOnlySpan<byte>) (instant: byref<Instant>) =
        tryEpoch text &instant || tryIso text &instant
