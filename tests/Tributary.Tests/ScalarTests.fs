module Tributary.Tests.ScalarTests

open System
open System.Text
open NUnit.Framework
open FsCheck
open FsCheck.FSharp
open FsCheck.NUnit
open Tributary

/// What stands in front, so that a number is not at the very beginning.
let private before = "{\"a\":\"0123456789\",\"b\":"

/// A scalar, how much of the text it takes, and its number, when it has one.
let private read (value: string) (behind: string) =
    let text = Encoding.UTF8.GetBytes(before + value + behind)
    let mutable at, scalar, number = before.Length, Scalar(), Double.NaN

    if Scalar.read (ReadOnlySpan text) &at &scalar then
        let isNumber = Scalar.double (ReadOnlySpan text) &scalar &number
        Some(scalar.Kind, at - before.Length, (if isNumber then number else Double.NaN))
    else
        None

[<TestCase("null", ScalarKind.Null, Double.NaN)>]
[<TestCase("true", ScalarKind.True, Double.NaN)>]
[<TestCase("false", ScalarKind.False, Double.NaN)>]
[<TestCase("\"\"", ScalarKind.String, Double.NaN)>]
[<TestCase("\"-1.5e3\"", ScalarKind.String, -1500.0)>]
[<TestCase("\"a\\\"b\"", ScalarKind.String, Double.NaN)>]
[<TestCase("0", ScalarKind.Plain, 0.0)>]
[<TestCase("-12.5", ScalarKind.Plain, -12.5)>]
[<TestCase("0.123456789012345678", ScalarKind.Plain, 0.123456789012345678)>]
[<TestCase("123456789012345678", ScalarKind.Plain, 123456789012345678.0)>]
[<TestCase("1234567890.12345678", ScalarKind.Plain, 1234567890.12345678)>]
[<TestCase("1234567890.123456789", ScalarKind.Number, 1234567890.123456789)>]
[<TestCase("0.1234567890123456789", ScalarKind.Number, 0.1234567890123456789)>]
[<TestCase("0000000000000000000000000000000000000012", ScalarKind.Number, 12.0)>]
[<TestCase("1e-05", ScalarKind.Number, 1e-05)>]
[<TestCase("1.5E+3", ScalarKind.Number, 1500.0)>]
[<TestCase("1e400", ScalarKind.Number, Double.NaN)>]
[<TestCase("1.2.3", ScalarKind.Number, Double.NaN)>]
[<TestCase("-", ScalarKind.Number, Double.NaN)>]
let ``a scalar is the same in the middle of a text and at its end``
    (value: string, kind: ScalarKind, number: double)
    =
    for behind in
        [
            ""
            "}"
            ",\"c\":1}"
            ",\"c\":" + String('1', 100)
            " , \"c\":\"" + String('x', 100)
        ] do
        match read value behind with
        | Some(found, length, found') ->
            equal (kind, value.Length) (found, length)

            if value <> "null" && value <> "\"\"" then
                isTrue (found'.Equals number)
        | None -> Assert.Fail value

[<TestCase("")>]
[<TestCase("{}")>]
[<TestCase("[1]")>]
[<TestCase("nul")>]
[<TestCase("tru e")>]
[<TestCase("+1")>]
[<TestCase(".5")>]
[<TestCase("\"a")>]
[<TestCase("\"a\nb\"")>]
let ``what is no scalar is not read`` (value: string) =
    for behind in [ ""; String(' ', 100) ] do
        equal None (read value behind)

// What JavaScript prints of a double, and what C# prints.
let private printed =
    Gen.oneof [
        Gen.choose (Int32.MinValue, Int32.MaxValue)
        |> Gen.map (fun n -> double n / 1_234_567.0)
        Gen.choose (1, Int32.MaxValue)
        |> Gen.map (fun n -> double n / 4_321_987_654_321.0)
        Gen.choose (0, 1_000_000) |> Gen.map (fun n -> double n / 1_000.0)
        Gen.choose (0, Int32.MaxValue) |> Gen.map (fun n -> double n * 1_234_567.0)
    ]
    |> Gen.map (fun value -> value.ToString("R", Globalization.CultureInfo.InvariantCulture))

[<Property(MaxTest = 2_000)>]
let ``a number is the nearest double, or next to it when it has more than 15 digits`` () =
    Prop.forAll (Arb.fromGen printed) (fun value ->
        let nearest = Double.Parse(value, Globalization.CultureInfo.InvariantCulture)
        let digits = value |> Seq.filter Char.IsDigit |> Seq.length

        match read value ",\"c\":1}", read value "" with
        | Some(_, _, one), Some(_, _, other) ->
            one.Equals other
            && (if digits <= 15 then
                    one = nearest
                else
                    abs (one - nearest) <= Math.BitIncrement(abs nearest) - abs nearest)
        | _ -> false)

[<Property>]
let ``a moment is read as ever`` () =
    let texts =
        Gen.oneof [
            Gen.choose (0, Int32.MaxValue) |> Gen.map string
            Gen.choose (0, Int32.MaxValue)
            |> Gen.map (fun n -> string (1_700_000_000_000L + int64 n))
            Gen.elements [
                "-5"
                "1e3"
                "1795300000.5"
                "99999999999999999"
                "\"1795300000123\""
                "\"2026-11-21T22:26:40.123Z\""
                "null"
                "true"
            ]
        ]

    Prop.forAll (Arb.fromGen texts) (fun value ->
        let text = Encoding.UTF8.GetBytes(before + value)
        let bare = Encoding.UTF8.GetBytes(value.Trim '"')

        let mutable at, scalar, one, other =
            before.Length, Scalar(), Instant.ofMicros 0L, Instant.ofMicros 0L

        Scalar.read (ReadOnlySpan text) &at &scalar
        && Scalar.instant (ReadOnlySpan text) &scalar &one = Instant.tryRead (ReadOnlySpan bare) &other
        && one = other)
