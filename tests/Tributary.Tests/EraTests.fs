module Tributary.Tests.EraTests

open System
open NUnit.Framework
open Tributary

let private day (text: string) =
    let mutable instant = Instant.ofMicros 0L
    isTrue (Instant.tryIso (ReadOnlySpan(utf8 text)) &instant)
    instant

let private eras = [ Era.until "2025-01-01" 6; Era.until "2025-11-30" 9; Era.now 10 ]

[<TestCase("2024-12-31", 6)>]
[<TestCase("2025-01-01", 9)>]
[<TestCase("2025-11-29", 9)>]
[<TestCase("2025-11-30", 10)>]
[<TestCase("9999-12-31", 10)>]
let ``a moment has the format of its era`` (date: string, format: int) = equal format (Era.at eras (day date))

[<Test>]
let ``eras go from the oldest to the one in use`` () =
    let refused eras =
        Assert.Throws<ArgumentException>(fun () -> Era.at eras |> ignore) |> ignore

    refused []
    refused [ Era.until "2025-01-01" 6 ]
    refused [ Era.until "2025-11-30" 9; Era.until "2025-01-01" 6; Era.now 10 ]
    refused [ Era.now 9; Era.now 10 ]

[<Test>]
let ``an era ends on a date`` () =
    Assert.Throws<ArgumentException>(fun () -> Era.until "soon" 1 |> ignore)
    |> ignore
