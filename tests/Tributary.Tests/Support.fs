/// What several test files need.
[<AutoOpen>]
module Tributary.Tests.Support

open System
open System.Text
open NUnit.Framework
open Tributary

let utf8 (text: string) = Encoding.UTF8.GetBytes text
let memory (text: string) = ReadOnlyMemory(utf8 text)

let equal (expected: 't) (actual: 't) =
    if actual <> expected then
        Assert.Fail $"expected %A{expected}\nbut was  %A{actual}"

let isTrue (condition: bool) = Assert.That condition

/// The value of something that must be good.
let good (result: Result<'t, string>) =
    match result with
    | Ok value -> value
    | Error message -> failwith message

let price text = good (Price.parse text)
let size text = good (Size.parse text)
let market text = good (MarketId.Parse text)
let token text = good (TokenId.Parse text)
let seconds (count: int64) = Instant.ofSeconds count
