module Tributary.Tests.LatenessTests

open System
open NUnit.Framework
open FsCheck.NUnit
open Tributary

let private micros (count: int64) = TimeSpan(10L * count)

let private durations (values: TimeSpan seq) =
    let durations = Durations()

    for value in values do
        durations.Add value

    durations

[<Property(MaxTest = 300)>]
let ``a quantile is above the truth by a fifth of itself at most`` (values: uint32 list) (share: byte) =
    let values = values |> List.map (fun value -> 4L + int64 value % 3_600_000_000L)
    let share = float share / 255.0
    let sorted = List.sort values
    let found = (durations (List.map micros values)).Quantile share

    if values.IsEmpty then
        equal TimeSpan.Zero found
    else
        let rank = max 1 (int (ceil (share * float values.Length)))
        let truth = micros sorted[rank - 1]
        isTrue (found > truth)
        isTrue (truth.TotalMicroseconds >= found.TotalMicroseconds * 0.8)

[<Test>]
let ``the shortest durations, and those below zero, count as microseconds`` () =
    for duration in [ TimeSpan.Zero; micros 1L; TimeSpan.FromSeconds -5.0 ] do
        let found = (durations [ duration ]).Quantile 0.5
        isTrue (found > TimeSpan.Zero && found <= micros 2L)

[<Test>]
let ``what is longer than everything counts as the longest`` () =
    isTrue ((durations [ TimeSpan.MaxValue ]).Quantile 1.0 > TimeSpan.FromHours 1.0)

[<Test>]
let ``what is cleared is counted no more`` () =
    let some = durations [ micros 5L; micros 7L ]
    equal 2L some.Count
    some.Clear()
    equal (0L, TimeSpan.Zero) (some.Count, some.Quantile 0.99)

// Seconds: how long messages waited, how old they were, and the youngest of them.
[<TestCase(0.001, 0.05, 0.02, "None")>]
[<TestCase(0.9, 0.05, 0.02, "None")>]
[<TestCase(1.5, 0.05, 0.02, "WeAreSlow")>]
[<TestCase(1.5, 9.0, -7.0, "WeAreSlow")>]
[<TestCase(0.001, 3.0, 0.02, "ExchangeIsLate")>]
[<TestCase(0.001, 1.5, 0.02, "None")>]
[<TestCase(0.001, 9.0, 8.0, "ClocksDiffer")>]
[<TestCase(0.001, 0.0, -0.2, "None")>]
[<TestCase(0.001, 0.0, -0.3, "ClocksDiffer")>]
let ``why messages seem old`` (waited: float, age: float, earliest: float, expected: string) =
    let some (value: float) =
        durations (Seq.replicate 200 (TimeSpan.FromSeconds value))

    equal expected (string (Lateness.judge (some waited) (some age) (TimeSpan.FromSeconds earliest)))

[<Test>]
let ``one slow message in many is no lateness`` () =
    let most = Seq.replicate 999 (micros 500L)
    let some = durations (Seq.append most [ TimeSpan.FromSeconds 30.0 ])
    equal Lateness.None (Lateness.judge some some TimeSpan.Zero)

[<Test>]
let ``no messages are not late`` () =
    equal Lateness.None (Lateness.judge (Durations()) (Durations()) (TimeSpan.FromHours 1.0))

[<Test>]
let ``every judgement has its words`` () =
    let all = [
        Lateness.None
        Lateness.WeAreSlow
        Lateness.ExchangeIsLate
        Lateness.ClocksDiffer
    ]

    equal 4 (all |> List.map Lateness.explain |> List.distinct |> List.length)
