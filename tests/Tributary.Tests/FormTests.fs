module Tributary.Tests.FormTests

open System
open System.Text
open NUnit.Framework
open Tributary

/// Reads a message with care: a form is to take the numbers called `n`, and to know where objects end.
let private learn (forms: Forms) (message: string) =
    forms.Begin()

    for i in 0 .. message.Length - 1 do
        if message.Substring(i).StartsWith "\"n\":" then
            forms.Scalar(i + 4, 1)
        elif message[i] = '}' then
            forms.Place(i + 1, 2)

    forms.Learn(ReadOnlySpan(utf8 message))

/// What a form finds in a message: the code of each place, and the text of the scalar there.
let private find (forms: Forms) (message: string) =
    let text = utf8 message

    if forms.Fits(ReadOnlySpan text) then
        Some [
            for one in forms.Found.ToArray() do
                if one.Code = 1 then
                    Encoding.UTF8.GetString(text, one.Scalar.Start, one.Scalar.Length)
                else
                    "}"
        ]
    else
        None

let private long = String('k', 100)

[<Test>]
let ``what stands between the scalars is the form, and what stands in them is not`` () =
    let forms = Forms()
    equal None (find forms """{"a":"x","n":1}""")
    learn forms """{"a":"x","n":1}"""
    equal (Some [ "1"; "}" ]) (find forms """{"a":"x","n":1}""")
    equal (Some [ "-2.5e7"; "}" ]) (find forms $"{{\"a\":\"%s{long}\",\"n\":-2.5e7}}")

    equal
        (Some [ "\"é"; "}" ])
        (find forms """{"a":null,"n":"\"é"}"""
         |> Option.map (List.map (fun s -> s.Replace("\\", ""))))

    for other in
        [
            """{"a":"x","n":1} """
            """{"a":"x", "n":1}"""
            """{"a":"x","n":1"""
            """{"a":"x","n":[1]}"""
            """{"a":"x","n":{}}"""
            """{"a":5.,"n":1}"""
            """{"a":"x","n":}"""
            """{"b":"x","n":1}"""
            "{\"a\":\"x\ty\",\"n\":1}"
            ""
        ] do
        equal None (find forms other)

[<Test>]
let ``what is not UTF-8 fits nothing`` () =
    let forms = Forms()
    learn forms """{"a":"x","n":1}"""
    let text = utf8 """{"a":"é","n":1}"""
    isTrue (forms.Fits(ReadOnlySpan text))
    text[7] <- 0xFFuy
    equal false (forms.Fits(ReadOnlySpan text))

[<Test>]
let ``forms that begin alike are all known, whichever came first, and however long they are`` () =
    let messages = [
        for count in 0..4 do
            for nested in [ "7"; "[]"; "{\"n\":true}"; $"[{{\"%s{long}\":1}},\"x\"]" ] do
                let items =
                    String.concat "," [ for i in 1..count -> $"{{\"n\":{i},\"%s{long}\":\"\"}}" ]

                $"{{\"list\":[{items}],\"more\":{nested}}}"
    ]

    for order in [ messages; List.rev messages ] do
        let forms = Forms()

        for message in order do
            learn forms message

        for message in messages do
            let ends = message |> Seq.filter ((=) '}') |> Seq.length
            let found = find forms message
            equal (Some ends) (found |> Option.map (List.filter ((=) "}") >> List.length))

[<Test>]
let ``a reader that goes back, or decides by a value, leaves no form`` () =
    let forms = Forms()
    let message = utf8 """{"a":1,"n":2}"""
    forms.Begin()
    forms.Scalar(11, 1)
    forms.Scalar(5, 1)
    forms.Learn(ReadOnlySpan message)
    equal false (forms.Fits(ReadOnlySpan message))
    forms.Begin()
    forms.Refuse()
    forms.Learn(ReadOnlySpan message)
    equal false (forms.Fits(ReadOnlySpan message))

[<Test>]
let ``messages that never look alike take no memory, and hide no form for long`` () =
    let forms = Forms()
    let usual = """{"a":"x","n":1}"""

    let odd =
        Array.init 20_000 (fun i ->
            utf8 $"{{\"%d{i % 7}\":0,\"%d{i % 13}\":true,\"k%d{i}\":[{{}}],\"%d{i % 3}\":null}}")

    let text = utf8 usual
    learn forms usual
    let before = GC.GetAllocatedBytesForCurrentThread()
    let mutable known = 0

    for one in odd do
        if not (forms.Fits(ReadOnlySpan one)) then
            forms.Begin()
            forms.Learn(ReadOnlySpan one)

        if forms.Fits(ReadOnlySpan text) then
            known <- known + 1
        else
            forms.Begin()
            forms.Learn(ReadOnlySpan text)

    equal 0L (GC.GetAllocatedBytesForCurrentThread() - before)
    Assert.That(known, Is.GreaterThan(odd.Length * 9 / 10))
