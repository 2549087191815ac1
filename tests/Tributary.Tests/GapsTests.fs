module Tributary.Tests.GapsTests

open NUnit.Framework
open FsCheck.NUnit
open Tributary

let private good at track =
    let struct (track, ended, _) = Gaps.good (seconds at) track
    struct (track, ended)

let private missed cause at track = Gaps.missed cause (seconds at) track
let private after (struct (track: Track, _)) = track
let private hole (struct (_: Track, hole: (struct (Instant * Cause)) voption)) = hole
let private opened at cause = ValueSome(struct (seconds at, cause))

[<Test>]
let ``good polls leave no hole`` () =
    equal ValueNone (Gaps.untouched |> good 1L |> after |> good 2L |> hole)

[<Test>]
let ``a hole begins at the last moment that was proven good, not when it was noticed`` () =
    equal
        (opened 1L Cause.Unreachable)
        (Gaps.untouched |> good 1L |> after |> missed Cause.Unreachable 9L |> hole)

[<Test>]
let ``a hole that is open keeps its first cause`` () =
    let broken = Gaps.untouched |> good 1L |> after |> missed Cause.Late 2L |> after
    equal ValueNone (broken |> missed Cause.Refused 3L |> hole)
    equal (opened 1L Cause.Late) (broken |> missed Cause.Refused 3L |> after |> good 4L |> hole)

[<Test>]
let ``a hole before anything was good begins at the first failure`` () =
    equal (opened 5L Cause.Restart) (Gaps.untouched |> missed Cause.Restart 5L |> hole)

[<Test>]
let ``a collector that starts again was stopped, unless a hole was open`` () =
    equal (opened 7L Cause.Stopped) (Gaps.resume (seconds 1L) (seconds 7L) ValueNone |> good 9L |> hole)

    equal
        (opened 7L Cause.Throttled)
        (Gaps.resume (seconds 1L) (seconds 7L) (ValueSome Cause.Throttled)
         |> good 9L
         |> hole)

[<Test>]
let ``a poll that was missed after the good one lies in a hole of its own`` () =
    let broken = Gaps.untouched |> good 1L |> after |> missed Cause.Late 9L |> after
    let struct (track, ended, begun) = Gaps.good (seconds 5L) broken
    equal (opened 1L Cause.Late, opened 5L Cause.Late) (ended, begun)
    equal (opened 5L Cause.Late) (track |> good 10L |> hole)

[<Test>]
let ``a flow that is followed has no hole yet`` () =
    equal ValueNone (Gaps.follow (seconds 3L) |> good 4L |> hole)
    equal (ValueSome(seconds 3L)) (Gaps.follow (seconds 3L) |> good 4L |> after).Since

[<Property>]
let ``holes that open are as many as holes that end, or one more`` (polls: bool list) =
    let mutable track, begun, ended = Gaps.untouched, 0, 0

    for i, isGood in List.indexed polls do
        let struct (next, hole) =
            (if isGood then good else missed Cause.Late) (int64 i) track

        track <- next

        if hole.IsSome && isGood then
            ended <- ended + 1
        elif hole.IsSome then
            begun <- begun + 1

    begun = ended + (if track.Broken.IsSome then 1 else 0)
