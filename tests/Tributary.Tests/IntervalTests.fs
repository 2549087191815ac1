module Tributary.Tests.IntervalTests

open NUnit.Framework
open FsCheck.NUnit
open Tributary

let private span since until = {
    Since = Instant.ofSeconds since
    Until = Instant.ofSeconds until
}

let private moments (set: Interval list) =
    set
    |> List.collect (fun one -> [ one.Since.Micros / 1_000_000L .. one.Until.Micros / 1_000_000L - 1L ])

let private made (pairs: (int * int) list) =
    pairs |> List.map (fun (a, b) -> span (int64 (abs a % 60)) (int64 (abs b % 60)))

let private model (intervals: Interval list) =
    intervals
    |> List.collect (fun one -> moments [ one ])
    |> List.distinct
    |> List.sort

[<Test>]
let ``intervals that touch or overlap are one`` () =
    let found =
        Intervals.ofSeq [ span 5L 7L; span 1L 3L; span 3L 5L; span 9L 9L; span 20L 30L ]

    equal [ span 1L 7L; span 20L 30L ] found

[<Property(MaxTest = 500)>]
let ``sets of intervals agree with sets of seconds`` (one: (int * int) list) (other: (int * int) list) =
    let a, b = made one, made other
    let left, right = Intervals.ofSeq a, Intervals.ofSeq b
    let isIn seconds second = List.contains second seconds
    let seconds, others = model a, model b
    equal seconds (moments left)
    equal (List.sort (List.distinct (seconds @ others))) (moments (Intervals.union left right))
    equal (List.filter (isIn others >> not) seconds) (moments (Intervals.except right left))
    equal (List.filter (isIn others) seconds) (moments (Intervals.common left right))
    equal (System.TimeSpan.FromSeconds(float seconds.Length)) (Intervals.length left)

[<TestCase(1, 7, true)>]
[<TestCase(2, 3, true)>]
[<TestCase(6, 8, false)>]
[<TestCase(8, 8, true)>]
[<TestCase(6, 21, false)>]
let ``an interval is covered when no moment of it is missing`` (since: int, until: int, expected: bool) =
    let known = [ span 1L 7L; span 20L 30L ]
    equal expected (Intervals.covers (span (int64 since) (int64 until)) known)
