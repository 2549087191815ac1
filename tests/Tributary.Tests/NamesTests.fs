module Tributary.Tests.NamesTests

open System
open NUnit.Framework
open Tributary

[<Test>]
let ``a text has one name, and a name its text`` () =
    let names = Names()
    let first = names.Intern "0xabc"
    equal first (names.Intern(ReadOnlySpan(utf8 "0xabc")))
    equal "0xabc" (names.Text first)
    equal "0xabc" (Text.Encoding.UTF8.GetString(names.Utf8 first))
    Assert.That(names.Intern "0xabd", Is.Not.EqualTo first)

[<Test>]
let ``the empty text is name 0 from the start`` () =
    let names = Names()
    equal 0 (names.Intern "").Key
    equal 1 names.Count

[<Test>]
let ``names outlive the table's growth`` () =
    let names = Names()
    let given = [| for i in 0..5_000 -> names.Intern $"token {i}" |]
    given |> Array.iteri (fun i name -> equal $"token {i}" (names.Text name))
    equal 5_002 names.Count

[<Test>]
let ``threads that meet the same texts agree on their names`` () =
    let names = Names()

    let seen =
        Array.Parallel.init 8 (fun thread ->
            [|
                for i in 0..4_999 ->
                    let text = string ((i * 7 + thread * 1_000) % 5_000)
                    let name = names.Intern text
                    equal text (names.Text name)
                    text, name
            |]
            |> Array.sort)

    for other in seen do
        equal seen[0] other

    equal 5_001 names.Count
