module Tributary.Tests.CalendarTests

open System
open FsCheck.NUnit
open NUnit.Framework
open Tributary

let private minute = TimeSpan.FromMinutes 1.0
let private at minutes = seconds (int64 (60.0 * minutes))

let private from since until : Interval = { Since = at since; Until = at until }

let private market since gaps : CalendarMarket = {
    Since = at since
    Gaps = gaps |> List.map (fun (since, until) -> from since until)
}

/// Whole, Partly and Nothing as letters.
let private drawn markets =
    Calendar.spans minute (from 0.0 6.0) markets
    |> Array.map (fun covered ->
        match covered with
        | Covered.Whole -> 'W'
        | Covered.Partly -> 'p'
        | Covered.Nothing -> '.')
    |> String

[<Test>]
let ``what no gap touches is whole`` () =
    equal "WWWWWW" (drawn [ market 0.0 [] ])

[<Test>]
let ``before the first market there is nothing`` () =
    equal "..pWWW" (drawn [ market 2.5 [] ])
    equal "..WWWW" (drawn [ market 2.0 [] ])
    equal "......" (drawn [])

[<Test>]
let ``a gap makes the spans that it touches partial, and those that it fills nothing`` () =
    equal "Wp.pWW" (drawn [ market 0.0 [ 1.5, 3.25 ] ])

[<Test>]
let ``as long as one market is collected it is not nothing`` () =
    equal "WpppWW" (drawn [ market 0.0 [ 1.5, 3.25 ]; market 0.0 [] ])
    equal "W.pWWW" (drawn [ market 0.0 [ 1.0, 2.5 ]; market 0.0 [ 1.0, 2.0 ] ])

[<Test>]
let ``two halves of a span are all of it`` () =
    equal "W.WWWW" (drawn [ market 0.0 [ 1.0, 1.5; 1.5, 2.0 ] ])

[<Test>]
let ``gaps from before and beyond count within`` () =
    equal "..WWp." (drawn [ market -5.0 [ -3.0, 2.0; 4.5, 9.0 ] ])

[<FsCheck.NUnit.Property>]
let ``a gap more never makes anything better`` (gaps: (uint8 * uint8) list) (since: uint8) (length: uint8) =
    let worth covered =
        match covered with
        | Covered.Whole -> 2
        | Covered.Partly -> 1
        | Covered.Nothing -> 0

    let one (since: uint8, length: uint8) =
        float since / 40.0, (float since + float length) / 40.0

    let spans gaps =
        Calendar.spans minute (from 0.0 6.0) [ market 0.0 (gaps |> List.map one); market 1.0 [] ]

    Array.forall2
        (fun before after -> worth after <= worth before)
        (spans gaps)
        (spans ((since, length) :: gaps))
