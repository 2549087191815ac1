module Tributary.Tests.InstantTests

open System
open NUnit.Framework
open FsCheck.NUnit
open Tributary

let private read (reader: byte[] -> bool * Instant) (text: string) =
    match reader (utf8 text) with
    | true, instant -> Some(string instant)
    | _ -> None

let private epoch =
    read (fun bytes ->
        let mutable instant = Instant.ofMicros 0L
        let ok = Instant.tryEpoch (ReadOnlySpan bytes) &instant
        ok, instant)

let private iso =
    read (fun bytes ->
        let mutable instant = Instant.ofMicros 0L
        let ok = Instant.tryIso (ReadOnlySpan bytes) &instant
        ok, instant)

[<TestCase("1786728432", "2026-08-14T17:27:12.000000Z")>]
[<TestCase("1786728432337", "2026-08-14T17:27:12.337000Z")>]
[<TestCase("0", "1970-01-01T00:00:00.000000Z")>]
[<TestCase("1786728432.5", "2026-08-14T17:27:12.500000Z")>]
[<TestCase("1786728432337.0", "2026-08-14T17:27:12.337000Z")>]
[<TestCase("1.786728432e9", "2026-08-14T17:27:12.000000Z")>]
let ``seconds and milliseconds are told apart by their size`` (text: string, expected: string) =
    equal (Some expected) (epoch text)

[<TestCase("")>]
[<TestCase("-1")>]
[<TestCase("soon")>]
[<TestCase("1786728432337000")>]
[<TestCase("99999999999999999999")>]
[<TestCase("1e300")>]
[<TestCase("1786728432 ")>]
let ``what is neither is no moment`` (text: string) = equal None (epoch text)

[<TestCase("2026-07-24T00:00:16Z", "2026-07-24T00:00:16.000000Z")>]
[<TestCase("2026-03-11T09:29:01.328428Z", "2026-03-11T09:29:01.328428Z")>]
[<TestCase("2026-03-11T09:29:01.328428999Z", "2026-03-11T09:29:01.328428Z")>]
[<TestCase("2026-03-11T09:29:01.3Z", "2026-03-11T09:29:01.300000Z")>]
[<TestCase("2026-07-24 00:00:16+00", "2026-07-24T00:00:16.000000Z")>]
[<TestCase("2026-05-14 23:30:00-05:30", "2026-05-15T05:00:00.000000Z")>]
[<TestCase("2026-05-14 23:30:00+0200", "2026-05-14T21:30:00.000000Z")>]
[<TestCase("2026-07-24T00:00:16", "2026-07-24T00:00:16.000000Z")>]
[<TestCase("2028-02-29", "2028-02-29T00:00:00.000000Z")>]
let ``the exchanges' ways to write a date are read`` (text: string, expected: string) =
    equal (Some expected) (iso text)

[<TestCase("")>]
[<TestCase("2026-02-29")>]
[<TestCase("2026-13-01")>]
[<TestCase("0000-01-01")>]
[<TestCase("2026-07-24T")>]
[<TestCase("2026-07-24T25:00:00Z")>]
[<TestCase("2026-07-24T00:00:16.Z")>]
[<TestCase("2026-07-24T00:00:16.1234567890Z")>]
[<TestCase("2026-07-24T00:00:16Zulu")>]
[<TestCase("2026-07-24T00:00:16+0")>]
[<TestCase("2026-07-24T00:00:16+00:")>]
[<TestCase("2026-07-24T00:00:16+99:00")>]
[<TestCase("0001-01-01T00:00:00+23:59")>]
[<TestCase("9999-12-31T23:59:60Z")>]
let ``what is no date, or beyond the calendar, is refused`` (text: string) = equal None (iso text)

[<Test>]
let ``an instant beyond the calendar still has a text`` () =
    equal "9223372036854775807 us" (string (Instant.ofMicros Int64.MaxValue))
    equal "-9223372036854775808 us" (string (Instant.ofMicros Int64.MinValue))

[<Property>]
let ``text then read is identity`` (micros: uint32) (days: uint16) =
    let instant = Instant.ofMicros (int64 days * 86_400_000_000L + int64 micros)
    iso (Instant.text instant) = Some(Instant.text instant)

[<Property>]
let ``a DateTimeOffset comes back as it was, to the microsecond`` (micros: uint32) (days: uint16) =
    let instant = Instant.ofMicros (int64 days * 86_400_000_000L + int64 micros)
    Instant.ofDateTimeOffset (Instant.toDateTimeOffset instant) = instant
