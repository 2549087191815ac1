module Tributary.Tests.TallyTests

open System
open FsCheck
open FsCheck.FSharp
open NUnit.Framework
open FsCheck.NUnit
open Tributary

let private day = 86_400_000_000L
let private polymarket = good (ExchangeId.Parse "polymarket")
let private named name = struct (polymarket, market name)

let private sizeOf millionths =
    Size.tryOfMillionths millionths |> ValueOption.get

let private tallies rows =
    let tallies = Tallies<string>()

    for name, at, source, flags, price, size, high, low, isLinked in rows do
        tallies.Add(
            name,
            Instant.ofMicros at,
            source,
            flags,
            Price.ofMillionths price,
            sizeOf size,
            { High = high; Low = low },
            isLinked
        )

    tallies.Result named

[<TestCase(0L, 0L)>]
[<TestCase(1L, 0L)>]
[<TestCase(86_399_999_999L, 0L)>]
[<TestCase(86_400_000_000L, 86_400_000_000L)>]
[<TestCase(-1L, -86_400_000_000L)>]
[<TestCase(-86_400_000_000L, -86_400_000_000L)>]
[<TestCase(-86_400_000_001L, -172_800_000_000L)>]
let ``a day begins at midnight UTC, also before 1970`` (at: int64, first: int64) =
    equal (Instant.ofMicros first) (Tally.dayOf (Instant.ofMicros at))

[<Test>]
let ``sums are exact beyond what 64 bits hold, and the digest goes round`` () =
    let most = Int64.MaxValue

    let row high low =
        "m1", 0L, Source.Api, Flags.None, 1_000_000L, most, high, low, false

    match tallies [ row UInt64.MaxValue UInt64.MaxValue; row 0UL 3UL; row 0UL 0UL ] with
    | [ one ] ->
        equal 3L one.Rows
        equal "27670116110564327421" (string one.Size)
        equal "27670116110564327421000000" (string one.Notional)
        equal (UInt128(0UL, 2UL)) one.Digest
    | other -> failwith $"%A{other}"

[<Test>]
let ``a price below zero counts against the others`` () =
    let row price =
        "m1", 0L, Source.Api, Flags.None, price, 7L, 0UL, 0UL, false

    equal [ Int128.op_Implicit -14L ] (tallies [ row 3L; row -5L ] |> List.map _.Notional)

[<Property(MaxTest = 300)>]
let ``the order of rows makes no difference`` () =
    let row = gen {
        let! name = Gen.elements [ "m1"; "m2"; "M2" ]
        let! at = Gen.elements [ 0L; 5L; day; -3L; 40L * day ]
        let! source = Gen.elements [ Source.Api; Source.Stream; Source.Chain ]

        let! flags =
            Gen.elements [ Flags.None; Flags.Maker; Flags.Maker ||| Flags.Old; Flags.Old ]

        let! price = Gen.choose64 (-1_000_000L, 1_000_000L)
        let! size = Gen.choose64 (0L, Int64.MaxValue)
        let! high = Gen.choose64 (Int64.MinValue, Int64.MaxValue)
        let! isLinked = Gen.elements [ true; false ]
        return name, at, source, flags, price, size, uint64 high, uint64 size, isLinked
    }

    let orders = gen {
        let! rows = Gen.listOf row
        let! other = Gen.shuffle rows
        return rows, List.ofArray other
    }

    Prop.forAll (Arb.fromGen orders) (fun (rows, other) ->
        let found = tallies rows
        equal found (tallies other)
        equal (int64 rows.Length) (found |> List.sumBy _.Rows)

        let key (one: Tally) =
            string one.Market, one.Day, one.Source, one.IsMaker

        equal found (found |> List.distinctBy key)
        // In the order of their names' code points.
        equal found (found |> List.sortBy key))
