module Tributary.Tests.JsonTests

open System
open System.Text
open System.Text.Json
open NUnit.Framework
open FsCheck
open FsCheck.FSharp
open FsCheck.NUnit
open Tributary

/// How far one value goes, when it is one.
let private skip (text: string) =
    let mutable at = 0

    if Json.skip (ReadOnlySpan(utf8 text)) &at then
        Some at
    else
        None

let private isJson (text: string) =
    try
        use _ = JsonDocument.Parse text
        true
    with :? JsonException ->
        false

let private space = Gen.elements [ ""; ""; ""; " "; "\n\t " ]

let private text =
    Gen.elements [ "\"\""; "\"a\""; "\"é\\\"\\\\\\u0041\\n\""; "\"}],:{\""; "\"bids\"" ]

let rec private value depth =
    let scalar =
        Gen.oneof [
            text
            Gen.elements [
                "true"
                "false"
                "null"
                "0"
                "-1.5"
                "1e-05"
                "123456789012345678901234567890"
            ]
        ]

    let separated items = gen {
        let! items = Gen.resize 4 (Gen.listOf items)
        let! before = space
        let! behind = space
        return String.concat $"{before},{behind}" items
    }

    if depth = 0 then
        scalar
    else
        let pair = gen {
            let! key = text
            let! gap = space
            let! value = value (depth - 1)
            return $"{key}{gap}:{gap}{value}"
        }

        Gen.frequency [
            2, scalar
            2, separated (value (depth - 1)) |> Gen.map (fun items -> $"[{items}]")
            2, separated pair |> Gen.map (fun items -> $"{{{items}}}")
        ]

let private json = Arb.fromGen (value 4)

[<Property>]
let ``skip takes every valid value whole`` () =
    Prop.forAll json (fun text ->
        let length = (utf8 text).Length
        skip text = Some length && skip (text + " ,") = Some length)

[<Property>]
let ``skip takes no prefix of a container`` () =
    Prop.forAll json (fun text ->
        (text[0] <> '[' && text[0] <> '{' && text[0] <> '"')
        || Seq.forall (fun length -> skip (text.Substring(0, length)) = None) (seq { 0 .. text.Length - 1 }))

// What is between the quotes and within a number is for others to judge; what brackets, colons, commas and quotes say is not.
[<Property>]
let ``skip takes nothing whose structure is broken`` () =
    let broken = gen {
        let! text = value 3 |> Gen.where (fun text -> not (text.Contains(char 92)))
        let! at = Gen.choose (0, max 0 (text.Length - 1))
        let! junk = Gen.elements [ "{"; "}"; "["; "]"; ","; ":"; "\"" ]
        return text.Insert(at, junk)
    }

    Prop.forAll (Arb.fromGen broken) (fun text -> skip text <> Some (utf8 text).Length || isJson text)

[<TestCase("[1,]")>]
[<TestCase("[,1]")>]
[<TestCase("[1 2]")>]
[<TestCase("{\"a\" 1}")>]
[<TestCase("{\"a\":1,}")>]
[<TestCase("{\"a\":1 \"b\":2}")>]
[<TestCase("{1:2}")>]
[<TestCase("[}")>]
[<TestCase("{]")>]
[<TestCase("tru")>]
[<TestCase("+1")>]
[<TestCase("-")>]
[<TestCase("\"a\nb\"")>]
[<TestCase("\"a\\")>]
[<TestCase("")>]
let ``skip refuses`` (text: string) = equal None (skip text)

[<Test>]
let ``nesting is taken up to 64 deep`` () =
    let nested depth = String('[', depth) + String(']', depth)

    equal (Some 128) (skip (nested 64))
    equal None (skip (nested 65))
    equal None (skip (String('[', 1_000_000)))

[<TestCase("true", true)>]
[<TestCase("\"true\"", true)>]
[<TestCase("false", false)>]
[<TestCase("\"false\"", false)>]
let ``a boolean may stand in quotes`` (text: string, expected: bool) =
    let mutable at, value = 0, not expected
    isTrue (Json.boolean (ReadOnlySpan(utf8 text)) &at &value)
    equal (expected, text.Length) (value, at)

[<TestCase("\"712\"", true)>]
[<TestCase("712", true)>]
[<TestCase("7.12e77", false)>]
[<TestCase("-7", false)>]
[<TestCase("null", false)>]
let ``an identity is a text or a whole number that kept its digits`` (text: string, expected: bool) =
    let mutable at, start, length = 0, 0, 0
    equal expected (Json.identity (ReadOnlySpan(utf8 text)) &at &start &length)

[<TestCase("abc", "abc")>]
[<TestCase("a\\u0041\\n", "aA\n")>]
let ``escapes are undone`` (raw: string, expected: string) =
    equal (ValueSome expected) (Json.tryText (ReadOnlySpan(utf8 raw)))

[<TestCase("\\ud800")>]
[<TestCase("\\x")>]
let ``escapes that mean nothing have no text`` (raw: string) =
    equal ValueNone (Json.tryText (ReadOnlySpan(utf8 raw)))

[<Test>]
let ``bytes that are not UTF-8 have no text`` () =
    equal ValueNone (Json.tryText (ReadOnlySpan [| 0xC3uy; 0x28uy |]))

let private reader =
    RowReader(fun json at batch ->
        let mutable start, length = 0, 0

        if Json.string json &at &start &length then
            let mutable level: Level = { Price = Price.zero; Size = Size.zero }

            batch.Levels.Add &level
            null
        else
            "not a text")

/// The good rows, the bad ones as they stood, and whether the list was whole.
let private rows (text: string) =
    let batch = Batch()
    let mutable at = 0
    let fault = Json.rows (ReadOnlySpan(utf8 text)) &at "test" reader batch
    batch.Levels.Count, [ for bad in batch.Rejections -> Encoding.UTF8.GetString bad.Bytes ], fault.IsNone

[<Test>]
let ``a bad row costs no good one`` () =
    equal (2, [ "{\"a\":[1]}"; "7" ], true) (rows "[\"a\", {\"a\":[1]} ,7,\"b\"]")

[<Test>]
let ``rows before the break are kept`` () =
    equal (1, [], false) (rows "[\"a\",")
    equal (1, [ "7" ], false) (rows "[\"a\",7 \"b\"]")
    equal (0, [], false) (rows "{}")
