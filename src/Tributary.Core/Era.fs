namespace Tributary

open System

/// A format, and the first moment at which it was no longer used.
type Era<'T> = private { Until: Instant; Format: 'T }

/// Formats through time: an exchange changes its format, its recordings do not.
[<RequireQualifiedAccess>]
module Era =
    let private never = Instant.ofMicros Int64.MaxValue

    /// The format used until (not including) this date, `yyyy-MM-dd` in UTC.
    let until (date: string) format : Era<'T> =
        let mutable moment = never

        if not (Instant.tryIso (ReadOnlySpan(Text.Encoding.ASCII.GetBytes date)) &moment) then
            invalidArg (nameof date) $"'{date}' is not a date such as 2026-03-01"

        { Until = moment; Format = format }

    /// The format that is in use.
    let now format : Era<'T> = { Until = never; Format = format }

    /// The format of a moment. Checks the list once: oldest first, the last one open.
    let at (eras: Era<'T> list) : Instant -> 'T =
        let ordered = eras |> List.pairwise |> List.forall (fun (a, b) -> a.Until < b.Until)

        if eras.IsEmpty || not ordered || (List.last eras).Until <> never then
            invalidArg (nameof eras) "eras go from the oldest to the one that is in use"

        fun moment -> (eras |> List.find (fun era -> moment < era.Until)).Format
