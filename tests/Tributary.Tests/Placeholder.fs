module Tributary.Tests.Placeholder

open NUnit.Framework

[<Test>]
let ``one`` () = Assert.That(1, Is.EqualTo 1)
