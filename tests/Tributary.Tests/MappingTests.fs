module Tributary.Tests.MappingTests

open System
open System.IO
open NUnit.Framework
open Tributary
open Tributary.Tests.Stores.Vocabulary

let private exchanges = [ "polymarket"; "kalshi"; "manifold" ]

let private parsed text =
    match Mapping.parse exchanges "m.yaml" text with
    | Ok mapping -> mapping
    | Error mistakes -> failwith (mistakes |> List.map Mistake.render |> String.concat "\n")

let private mistakes text =
    match Mapping.parse exchanges "m.yaml" text with
    | Ok _ -> []
    | Error mistakes -> mistakes |> List.map Mistake.render

let private kalshi = sound (ExchangeId.Parse "kalshi")

// As a person writes it: comments, a list on one line, an inverted market, a name instead of a key.
let private written =
    """# Mine.
questions:
  fed-cut: # the big one
    confirmed_at: 2026-07-24T00:00:00Z
    answers:
      yes:
        - exchange: polymarket
          market: m1
          token: "71321045679252212594626385532706912750332728571942532289631379312455583992563"
        # Kalshi asks whether it stays.
        - { exchange: kalshi, market: KXFED-27MAR, outcome: No }
      no:
        - {exchange: polymarket, market: m1, token: m1-no, outcome: "No"}
        - {exchange: kalshi, market: KXFED-27MAR, token: "KXFED-27MAR:YES"}
        # the last of it

refused:
  - [polymarket:m2, "kalshi:a:b"]

# the end
"""

[<Test>]
let ``a mapping is read, with keys or names of outcomes`` () =
    let mapping = parsed written
    let question = List.exactlyOne mapping.Questions
    equal "fed-cut" question.Name
    equal (ValueSome(at 0L)) question.ConfirmedAt

    equal
        [
            "yes",
            [
                "polymarket",
                "m1",
                ValueSome(
                    tokenId "71321045679252212594626385532706912750332728571942532289631379312455583992563"
                ),
                ""
                "kalshi", "KXFED-27MAR", ValueNone, "No"
            ]
            "no",
            [
                "polymarket", "m1", ValueSome(tokenId "m1-no"), "No"
                "kalshi", "KXFED-27MAR", ValueSome(tokenId "KXFED-27MAR:YES"), ""
            ]
        ]
        (question.Answers
         |> List.map (fun (answer, outcomes) ->
             answer,
             outcomes
             |> List.map (fun one -> string one.Exchange, string one.Market, one.Token, one.Outcome)))

    equal [ [ struct (exchange, marketId "m2"); struct (kalshi, marketId "a:b") ] ] mapping.Refused
    equal Mapping.empty (parsed "")
    equal Mapping.empty (parsed "questions:\nrefused:\n")

let private wrong = [
    "question:\n", [ "m.yaml:1:1: unknown key 'question'; did you mean 'questions'?" ]

    "questions:\n  a:\n    confirmed_at: yesterday\n    answers:\n      yes:\n        - {exchange: kalshi, market: K, outcome: Yes}\n",
    [ "m.yaml:3:19: expected a time such as 2026-11-01T12:00:00Z; got 'yesterday'" ]

    "questions:\n  a: {}\n", [ "m.yaml:2:3: question 'a' has no answers: add 'answers:' below it" ]

    "questions:\n  a:\n    answers:\n      yes:\n",
    [
        "m.yaml:4:11: answer 'yes' has no outcomes: list them below it, each behind a '-'"
    ]

    "questions:\n  a:\n    answers:\n      yes:\n        - {exchange: kalsi, market: K, outcome: Yes}\n        - {exchange: kalshi, outcome: Yes}\n        - {exchange: kalshi, market: K}\n",
    [
        "m.yaml:5:22: there is no exchange 'kalsi'; there are: polymarket, kalshi, manifold"
        "m.yaml:6:11: an outcome needs its market: add 'market: …'"
        "m.yaml:7:11: an outcome needs 'token: …', the exchange's key, or 'outcome: …', its name"
    ]

    "questions:\n  a:\n    answers:\n      yes:\n        - {exchange: kalshi, market: K, outcome: Yes}\n      no:\n        - {exchange: kalshi, market: K, outcome: yes}\n",
    [
        "m.yaml:7:11: outcome yes of kalshi:K stands under answer 'yes' already, in line 5: keep one of them"
    ]

    "refused:\n  - [kalshi:K]\n  - [kalshi, polymarket:m]\n  - kalshi:K\n",
    [
        "m.yaml:2:5: expected two markets or more, such as [polymarket:0x12, kalshi:KXFED-27MAR]"
        "m.yaml:3:6: expected exchange:market, such as kalshi:KXFED-27MAR; got 'kalshi'"
        "m.yaml:4:5: expected a list of markets that do not ask the same, such as [polymarket:0x12, kalshi:KXFED-27MAR]"
    ]

    "questions: [a\n",
    [
        "m.yaml:2:1: not valid YAML: While parsing a flow sequence, did not find expected ',' or ']'"
    ]
]

let private wrongCases =
    wrong |> List.map (fun (a, b) -> TestCaseData(box a, box b))

[<TestCaseSource(nameof wrongCases)>]
let ``every mistake is named with its place and what to do`` (case: string * string list) =
    let text, expected = case
    equal expected (mistakes text)

// ---- what a store is told

let private confirmedAs (mapping: Mapping) markets stored now =
    let struct (rows, untold) = Mapping.changes (at now) markets stored mapping

    rows
    |> List.map (fun row -> row.Answer, string row.Token, row.IsWithdrawn, row.At.Micros - (at 0L).Micros),
    untold |> List.map Mistake.render,
    rows

let private fed =
    parsed
        """
questions:
  fed:
    confirmed_at: 2026-07-24T00:00:00.000100Z
    answers:
      yes:
        - {exchange: polymarket, market: m1, token: m1-yes}
        - {exchange: kalshi, market: K, outcome: no}
"""

let private ofKalshi = {
    market with
        Exchange = kalshi
        Market = marketId "K"
        Outcomes = [|
            {
                Name = "Yes"
                Token = ValueSome(tokenId "K:YES")
            }
            { Name = "No"; Token = ValueNone }
        |]
}

[<Test>]
let ``what a store does not know is new as of when it was confirmed, and then it is known`` () =
    let shown, untold, rows = confirmedAs fed [ ofKalshi ] [] 500L
    equal [ "yes", "K:No", false, 100L; "yes", "m1-yes", false, 100L ] shown
    equal [] untold
    equal ([], [], []) (confirmedAs fed [ ofKalshi ] rows 600L)

[<Test>]
let ``what is no longer said is withdrawn, once, and may be said again`` () =
    let _, _, rows = confirmedAs fed [ ofKalshi ] [] 500L
    let shown, _, withdrawn = confirmedAs Mapping.empty [] rows 600L
    equal [ "yes", "K:No", true, 600L; "yes", "m1-yes", true, 600L ] shown
    let stored = rows @ withdrawn
    equal ([], [], []) (confirmedAs Mapping.empty [] stored 700L)
    // Confirmed long ago by the file, but behind the withdrawal by the store.
    let shown, _, again = confirmedAs fed [ ofKalshi ] stored 800L
    equal [ "yes", "K:No", false, 800L; "yes", "m1-yes", false, 800L ] shown
    equal ([], [], []) (confirmedAs fed [ ofKalshi ] (again @ stored) 900L)

[<Test>]
let ``a clock that goes back does not undo what comes later`` () =
    let _, _, rows = confirmedAs fed [ ofKalshi ] [] 500L
    let shown, _, _ = confirmedAs Mapping.empty [] rows 50L
    equal [ "yes", "K:No", true, 101L; "yes", "m1-yes", true, 101L ] shown

[<Test>]
let ``a market that is not known yet is told of, and nothing of it is withdrawn`` () =
    let _, _, rows = confirmedAs fed [ ofKalshi ] [] 500L

    let shown, untold, _ =
        confirmedAs fed [] (rows |> List.filter (fun row -> row.Exchange = kalshi)) 600L

    equal [ "yes", "m1-yes", false, 100L ] shown

    equal
        [
            "m.yaml:8:11: the store does not know the market kalshi:K: collect it first, or add its token"
        ]
        untold

    let _, untold, _ =
        confirmedAs
            fed
            [
                {
                    ofKalshi with
                        Outcomes = [| { Name = "Maybe"; Token = ValueNone } |]
                }
            ]
            rows
            600L

    equal [ "m.yaml:8:11: the market kalshi:K has no outcome 'no'; it has: Maybe" ] untold

[<Test>]
let ``pairs of a question and pairs that were refused are settled`` () =
    let settled = Mapping.settled (parsed written)
    let ofPolymarket name = { market with Market = marketId name }
    let there name = { ofKalshi with Market = marketId name }
    isTrue (settled (ofPolymarket "m1") (there "KXFED-27MAR"))
    isTrue (settled (there "KXFED-27MAR") (ofPolymarket "m1"))
    isTrue (settled (ofPolymarket "m2") (there "a:b"))
    isTrue (not (settled (ofPolymarket "m1") (there "a:b")))

// ---- what is added to a file

let private answers markets =
    sound (
        Mapping.answersOf [] [
            for market, isInverted in markets ->
                {
                    Market = market
                    IsInverted = isInverted
                }
        ]
    )

let private question name markets : MappedQuestion = {
    Name = name
    ConfirmedAt = ValueSome(at 7L)
    Answers = answers markets
    At = { File = ""; Line = 0; Column = 0 }
}

let private added =
    """  "rain: or \"snow\"":
    confirmed_at: 2026-07-24T00:00:00.000007Z
    answers:
      yes:
        - exchange: polymarket
          market: m1
          outcome: Yes
          token: "m1-yes"
        - exchange: kalshi
          market: K
          outcome: No
          token: "K:No"
      no:
        - exchange: polymarket
          market: m1
          outcome: No
          token: "m1:No"
        - exchange: kalshi
          market: K
          outcome: Yes
          token: "K:YES"
"""

let private rain = question "rain: or \"snow\"" [ market, false; ofKalshi, true ]

[<Test>]
let ``a question is added to what a person wrote, and not a letter of that is another one`` () =
    let now = sound (Mapping.withQuestion exchanges (parsed written) rain written)
    equal (written.Replace("        # the last of it\n", "        # the last of it\n" + added)) now
    equal [ "fed-cut"; rain.Name ] ((parsed now).Questions |> List.map _.Name)

    let refused =
        sound (
            Mapping.withRefused
                exchanges
                (parsed now)
                [ struct (exchange, marketId "x"); struct (kalshi, marketId "y") ]
                now
        )

    equal
        (now.Replace("\"kalshi:a:b\"]\n", "\"kalshi:a:b\"]\n  - [\"polymarket:x\", \"kalshi:y\"]\n"))
        refused

let private bare = [
    "", Mapping.head + "\nquestions:\n" + added
    "questions:", "questions:\n" + added
    "questions: {}\n", "questions:\n" + added
    "refused: []\n", "refused: []\n\nquestions:\n" + added
    "# only mine\n", "# only mine\n\nquestions:\n" + added
]

let private bareCases = bare |> List.map (fun (a, b) -> TestCaseData(box a, box b))

[<TestCaseSource(nameof bareCases)>]
let ``a section that is not there is made`` (case: string * string) =
    let text, expected = case
    equal expected (sound (Mapping.withQuestion exchanges (parsed text) rain text))

[<Test>]
let ``a market joins a question, under the answers that are called as its outcomes are`` () =
    let manifold = {
        market with
            Exchange = sound (ExchangeId.Parse "manifold")
            Market = marketId "F"
            Outcomes = [|
                for name in [ "YES"; "NO" ] ->
                    {
                        Name = name
                        Token = ValueSome(tokenId $"F:{name}")
                    }
            |]
    }

    let more =
        sound (
            Mapping.answersOf [ "yes"; "no" ] [
                {
                    Market = manifold
                    IsInverted = false
                }
            ]
        )

    let now =
        sound (Mapping.withOutcomes exchanges (parsed written) "fed-cut" more written)

    let item name =
        $"        - exchange: manifold\n          market: F\n          outcome: {name}\n          token: \"F:{name}\"\n"

    equal
        (written
            .Replace("outcome: No }\n", "outcome: No }\n" + item "YES")
            .Replace("        # the last of it\n", "        # the last of it\n" + item "NO"))
        now

[<Test>]
let ``what cannot be added to as it is written is left alone, and a person is told what to add`` () =
    let text =
        "questions: {fed: {answers: {yes: [{exchange: kalshi, market: K, outcome: Yes}]}}}\n"

    match Mapping.withQuestion exchanges (parsed text) rain text with
    | Error message ->
        Assert.That(message, Does.EndWith("add this to it:\nquestions:\n" + added.TrimEnd '\n'))
    | Ok text -> Assert.Fail text

[<Test>]
let ``outcomes that are called otherwise are for a person to write down`` () =
    let teams = {
        ofKalshi with
            Outcomes = [| for name in [ "Arsenal"; "Chelsea" ] -> { Name = name; Token = ValueNone } |]
    }

    match
        Mapping.answersOf [] [
            { Market = market; IsInverted = false }
            { Market = teams; IsInverted = false }
        ]
    with
    | Error message ->
        equal
            "no outcome is called the same in polymarket:m1 (Yes, No) and kalshi:K (Arsenal, Chelsea): write into the mapping which is which"
            message
    | Ok answers -> Assert.Fail $"%A{answers}"

[<Test>]
let ``a file is written whole, through a link as well, and none is no mapping`` () =
    let folder = temporaryFolder ()

    try
        let path = Path.Combine(folder, "config", Mapping.FileName)
        equal (Ok ValueNone) (Mapping.read exchanges path)
        sound (Mapping.write path written)
        equal written (File.ReadAllText path)
        let link = Path.Combine(folder, "link.yaml")
        File.CreateSymbolicLink(link, path) |> ignore
        sound (Mapping.write link "questions:\n")
        equal "questions:\n" (File.ReadAllText path)
        isTrue (not (isNull (FileInfo(link).LinkTarget)))
        equal (Ok(ValueSome Mapping.empty)) (Mapping.read exchanges link)
        equal path (Mapping.beside (Path.Combine(folder, "config")))
        equal (Path.Combine(folder, Mapping.FileName)) (Mapping.beside link)
    finally
        Directory.Delete(folder, true)
