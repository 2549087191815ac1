module Tributary.Tests.FixedTests

open System
open System.Globalization
open NUnit.Framework
open FsCheck.NUnit
open Tributary

/// The fault, the millionths and whether they were rounded.
let private parse (text: string) =
    let mutable value, rounded = 0L, false
    let fault = Fixed.parse (ReadOnlySpan(utf8 text)) &value &rounded
    struct (fault, value, rounded)

/// The millionths of a quoted number and how far the cursor went, when it was the plain case.
let private tryQuoted (text: string) =
    let mutable at, value = 1, 0L

    if Fixed.tryQuoted (ReadOnlySpan(utf8 text)) &at &value then
        Some struct (value, at)
    else
        None

[<TestCase("0", 0L)>]
[<TestCase("1", 1_000_000L)>]
[<TestCase("0.55", 550_000L)>]
[<TestCase(".48", 480_000L)>]
[<TestCase("-.48", -480_000L)>]
[<TestCase("1500.250000", 1_500_250_000L)>]
[<TestCase("0.870", 870_000L)>]
[<TestCase("0.5000000000", 500_000L)>]
[<TestCase("-3", -3_000_000L)>]
[<TestCase("-0", 0L)>]
[<TestCase("007", 7_000_000L)>]
[<TestCase("1e-05", 10L)>]
[<TestCase("1E+3", 1_000_000_000L)>]
[<TestCase("2.5e2", 250_000_000L)>]
[<TestCase("0e999999999999", 0L)>]
[<TestCase("0.000001", 1L)>]
[<TestCase("9223372036854.775807", Int64.MaxValue)>]
[<TestCase("-9223372036854.775808", Int64.MinValue)>]
let ``a decimal number is read exactly`` (text: string, millionths: int64) =
    equal (struct (NumberFault.None, millionths, false)) (parse text)

[<TestCase("0.0000005", 0L)>]
[<TestCase("0.0000015", 2L)>]
[<TestCase("0.0000025", 2L)>]
[<TestCase("0.00000250001", 3L)>]
[<TestCase("-0.0000015", -2L)>]
[<TestCase("0.3333333333", 333_333L)>]
[<TestCase("0.9999999", 1_000_000L)>]
[<TestCase("1e-7", 0L)>]
[<TestCase("6e-7", 1L)>]
[<TestCase("1e-300", 0L)>]
[<TestCase("79945.98005599984", 79_945_980_056L)>]
let ``what lies beyond six decimals is rounded half-even, and said`` (text: string, millionths: int64) =
    equal (struct (NumberFault.None, millionths, true)) (parse text)

[<TestCase("", NumberFault.Empty)>]
[<TestCase("NaN", NumberFault.NotANumber)>]
[<TestCase("Infinity", NumberFault.NotANumber)>]
[<TestCase("-", NumberFault.NotANumber)>]
[<TestCase(".", NumberFault.NotANumber)>]
[<TestCase("5.", NumberFault.NotANumber)>]
[<TestCase("+5", NumberFault.NotANumber)>]
[<TestCase(" 5", NumberFault.NotANumber)>]
[<TestCase("5 ", NumberFault.NotANumber)>]
[<TestCase("1e", NumberFault.NotANumber)>]
[<TestCase("1e+", NumberFault.NotANumber)>]
[<TestCase("e5", NumberFault.NotANumber)>]
[<TestCase("1.2.3", NumberFault.NotANumber)>]
[<TestCase("1,5", NumberFault.NotANumber)>]
[<TestCase("--1", NumberFault.NotANumber)>]
[<TestCase("0x10", NumberFault.NotANumber)>]
[<TestCase("9223372036854.775808", NumberFault.TooLarge)>]
[<TestCase("-9223372036854.775809", NumberFault.TooLarge)>]
[<TestCase("1e30", NumberFault.TooLarge)>]
[<TestCase("1e999999999999", NumberFault.TooLarge)>]
let ``what is no number, or none that we can keep, is a fault and zero`` (text: string, fault: NumberFault) =
    let struct (found, value, _) = parse text
    equal (struct (fault, 0L)) (struct (found, value))

[<Test>]
let ``hundreds of digits are refused without work`` () =
    let struct (fault, _, _) = parse (String('9', 401))
    equal NumberFault.TooLarge fault

[<Property>]
let ``format then parse is identity`` (millionths: int64) =
    parse (Fixed.text millionths) = struct (NumberFault.None, millionths, false)

[<Test>]
let ``the smallest and the largest number survive format and parse`` () =
    for millionths in [ Int64.MinValue; Int64.MinValue + 1L; -1L; 0L; 1L; Int64.MaxValue ] do
        equal (struct (NumberFault.None, millionths, false)) (parse (Fixed.text millionths))

[<TestCase(500_000L, "0.5")>]
[<TestCase(-500_000L, "-0.5")>]
[<TestCase(1L, "0.000001")>]
[<TestCase(1_500_250_000L, "1500.25")>]
[<TestCase(0L, "0")>]
[<TestCase(9_000_000L, "9")>]
[<TestCase(10_000_000L, "10")>]
[<TestCase(99_010_000L, "99.01")>]
[<TestCase(100_000_001L, "100.000001")>]
[<TestCase(999_100_100L, "999.1001")>]
[<TestCase(1_000_000_000L, "1000")>]
let ``the canonical form has no trailing zeros and a leading one`` (millionths: int64, text: string) =
    equal text (Fixed.text millionths)

[<Property>]
let ``parse agrees with decimal`` (whole: int) (fraction: uint64) (digits: byte) =
    let digits = int digits % 12 + 1
    let fraction = fraction % uint64 (10.0 ** float digits)
    let text = $"{whole}.{fraction.ToString().PadLeft(digits, '0')}"
    let exact = Decimal.Parse(text, CultureInfo.InvariantCulture) * 1_000_000m
    let expected = Math.Round(exact, MidpointRounding.ToEven)
    parse text = struct (NumberFault.None, int64 expected, expected <> exact)

[<Property>]
let ``the quick reader agrees with parse wherever it answers``
    (whole: uint64)
    (fraction: uint64)
    (digits: byte)
    =
    let whole = whole % 10_000_000_000_000UL
    let digits = int digits % 9
    let fraction = fraction % uint64 (10.0 ** float digits)

    let text =
        if digits = 0 then
            string whole
        else
            $"{whole}.{fraction.ToString().PadLeft(digits, '0')}"

    match tryQuoted $"\"{text}\"," with
    | Some(struct (value, at)) -> at = text.Length + 2 && parse text = struct (NumberFault.None, value, false)
    | None -> text.IndexOf '.' > 12 || text.Length > 12 && digits = 0 || digits > 6

[<TestCase("\"\"")>]
[<TestCase("\".5\"")>]
[<TestCase("\"5.\"")>]
[<TestCase("\"-1\"")>]
[<TestCase("\"1e5\"")>]
[<TestCase("\"0.1234567\"")>]
[<TestCase("\"1234567890123\"")>]
[<TestCase("\"0.5")>]
[<TestCase("\"0.5 \"")>]
let ``the quick reader leaves everything else to parse`` (text: string) = equal None (tryQuoted text)

[<Property>]
let ``eight bytes are digits, and their number, as one by one`` (seed: int) =
    let random = Random seed
    let text = Array.init 8 (fun _ -> byte (random.Next(int '0'B, int '9'B + 1)))

    if random.Next 2 = 0 then
        text[random.Next 8] <- byte (random.Next 256)

    let eight = BitConverter.ToUInt64(text, 0)
    let areDigits = text |> Array.forall (fun b -> b >= '0'B && b <= '9'B)
    equal areDigits (Fixed.areDigits eight)

    if areDigits then
        equal (Int64.Parse(Text.Encoding.ASCII.GetString text)) (Fixed.ofDigits eight)
