module Tributary.Tests.FaultTests

open System
open NUnit.Framework
open FsCheck.NUnit
open Tributary

let private every = [
    Fault.Throttled ValueNone
    Fault.Throttled(ValueSome(TimeSpan.FromSeconds 3.0))
    Fault.Throttled(ValueSome(TimeSpan.FromHours 3.0))
    Fault.Throttled(ValueSome(TimeSpan.FromSeconds -3.0))
    Fault.Unreachable "refused"
    Fault.TimedOut(TimeSpan.FromSeconds 10.0)
    Fault.Restarting
    Fault.Failing(503, "html")
    Fault.Refused(404, "")
    Fault.TooLarge 1L
    Fault.Undecodable(0, "cut")
    Fault.RepeatedPage "c"
    Fault.StoreFailed "full"
]

[<Property>]
let ``every fault has a verdict at every attempt, and no wait is longer than a minute`` (attempt: int) =
    every
    |> List.forall (fun fault ->
        match Fault.verdict attempt fault with
        | FaultVerdict.RetryAfter wait -> wait > TimeSpan.Zero && wait <= TimeSpan.FromMinutes 1.0
        | _ -> true)

[<Test>]
let ``no fault is retried for ever`` () =
    for fault in every do
        match Fault.verdict Fault.Attempts fault with
        | FaultVerdict.RetryAfter _ -> Assert.Fail $"%A{fault}"
        | _ -> ()

[<TestCase(1, 0.5)>]
[<TestCase(2, 1.0)>]
[<TestCase(3, 2.0)>]
[<TestCase(7, 30.0)>]
[<TestCase(Int32.MaxValue, 30.0)>]
[<TestCase(0, 0.5)>]
let ``the back-off doubles up to half a minute`` (attempt: int, expected: float) =
    equal (TimeSpan.FromSeconds expected) (Fault.backOff attempt)

[<Test>]
let ``a body cut on its way is asked for once more, then kept`` () =
    let cut = Fault.Undecodable(10, "breaks off")
    equal (FaultVerdict.RetryAfter(TimeSpan.FromSeconds 0.5)) (Fault.verdict 1 cut)
    equal FaultVerdict.Quarantine (Fault.verdict 2 cut)

[<Test>]
let ``every fault says what it is, and leaves a cause`` () =
    for fault in every do
        isTrue (Fault.explain fault <> "")
        isTrue (List.contains (Fault.cause fault) Cause.all)
