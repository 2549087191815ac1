module Tributary.Tests.MatchingTests

open System
open NUnit.Framework
open FsCheck
open FsCheck.FSharp
open FsCheck.NUnit
open Tributary

let private parsed result =
    match result with
    | Ok value -> value
    | Error message -> failwith message

let private moment (text: string) =
    Instant.ofDateTimeOffset (DateTimeOffset.Parse(text, Globalization.CultureInfo.InvariantCulture))

let private asking exchange market question (ends: string) : Market = {
    Exchange = parsed (ExchangeId.Parse exchange)
    Market = parsed (MarketId.Parse market)
    Event = ""
    Slug = market
    Question = question
    Outcomes = [|
        for name in [ "Yes"; "No" ] ->
            {
                Name = name
                Token = ValueSome(parsed (TokenId.Parse $"{market}:{name}"))
            }
    |]
    Status = MarketStatus.Open
    AcceptsOrders = true
    TickSize = ValueNone
    MinimumSize = ValueNone
    NegRisk = false
    Start = ValueNone
    End = if ends = "" then ValueNone else ValueSome(moment ends)
    ClosedAt = ValueNone
    Winner = ""
    Volume = ValueNone
    Liquidity = ValueNone
    OpenInterest = ValueNone
    Tags = [||]
    Updated = ValueNone
    Received = Instant.ofMicros 0L
    Raw = ""
}

let private none _ _ = false

let private scoreOf (one: string, ends: string) (other: string, otherEnds: string) =
    Matching.score (asking "polymarket" "a" one ends) (asking "kalshi" "b" other otherEnds)

/// Titles as the exchanges write them, and when they end.
let private alike = [
    ("Will Donald Trump win the 2028 US presidential election?", "2028-11-07Z"),
    ("Will Trump win the 2028 U.S. Presidential Election?", "2028-11-08Z")

    ("Will Bitcoin be above $100k on December 31, 2026?", "2026-12-31Z"),
    ("Bitcoin price on Dec 31, 2026: $100,000 or above", "2026-12-31Z")

    ("Will BTC hit $120,000 by 31 December 2026?", "2026-12-31Z"),
    ("Will Bitcoin reach 120K by December 31st, 2026?", "2027-01-01Z")

    ("Fed cuts rates by 25 bps in March 2027?", "2027-03-17Z"),
    ("Will the Federal Reserve cut interest rates by 0.25% in March 2027?", "2027-03-18Z")

    ("Will José Martínez be elected president in 2027?", "2027-06-01Z"),
    ("Jose Martinez wins the 2027 presidential election", "2027-06-02Z")

    ("Russia x Ukraine ceasefire before 2027?", "2026-12-31Z"),
    ("Will there be a Russia-Ukraine cease fire by the end of 2026?", "2026-12-31Z")

    ("Will OpenAI release GPT-6 before July 2027?", "2027-06-30Z"),
    ("GPT-6 released by June 30, 2027?", "2027-06-30Z")

    ("Will JD Vance win the 2028 US Presidential Election?", "2028-11-07Z"),
    ("Who will win the next presidential election?: J.D. Vance", "2029-01-20Z")

    ("Will Tesla deliver over 500k vehicles in Q1 2027?", "2027-03-31Z"),
    ("Tesla Q1 2027 deliveries above 500,000", "2027-04-02Z")

    ("Will unemployment exceed 5% in 2027?", "2027-12-31Z"),
    ("Unemployment over 5 percent in 2027", "2027-12-31Z")
]

let private alikeCases =
    alike |> List.map (fun (a, b) -> TestCaseData(box a, box b))

[<TestCaseSource(nameof alikeCases)>]
let ``titles that ask the same are proposed`` (case: (string * string) * (string * string)) =
    let one, other = case
    let score = scoreOf one other
    Assert.That(score, Is.GreaterThanOrEqualTo 0.6)
    Assert.That(score, Is.LessThanOrEqualTo 1.0)

let private different = [
    ("Bitcoin Up or Down - 15 minutes from 01:00 UTC", "2026-11-28Z"),
    ("Ethereum Up or Down - 15 minutes from 01:00 UTC", "2026-11-28Z")

    ("Will Trump win the 2028 US presidential election?", "2028-11-07Z"),
    ("Will Vance win the 2028 US presidential election?", "2028-11-07Z")

    ("Will trump win the election?", "2028-11-07Z"), ("Will vance win the election?", "2028-11-07Z")

    ("Will Trump win the 2028 US presidential election?", "2028-11-07Z"),
    ("Will Trump win the 2024 US presidential election?", "2024-11-05Z")

    ("Will Bitcoin be above $100k on December 31, 2026?", "2026-12-31Z"),
    ("Will Bitcoin be above $120k on December 31, 2026?", "2026-12-31Z")

    ("Will the Fed cut rates in March 2027?", "2027-03-17Z"),
    ("Will the Fed cut rates in June 2027?", "2027-06-16Z")

    ("Fed cuts rates by 25 bps in March 2027?", "2027-03-17Z"),
    ("Fed cuts rates by 50 bps in March 2027?", "2027-03-17Z")

    ("Will Bitcoin be above $100k on December 1, 2026?", "2026-12-01Z"),
    ("Will Bitcoin be above $100k on December 24, 2026?", "2026-12-24Z")

    ("Will Bitcoin be above $100k on December 31?", "2026-12-31Z"),
    ("Will Ethereum be above $100k on December 31?", "2026-12-31Z")

    ("Russia x Ukraine ceasefire before 2027?", "2026-12-31Z"),
    ("Russia x Ukraine ceasefire before 2028?", "2027-12-31Z")

    ("Will Arsenal win the Premier League?", "2027-05-20Z"),
    ("Will Arsenal win the Premier League?", "2029-05-20Z")
    ("Fed rate hike in 2027?", "2027-12-31Z"), ("Will the Fed cut rates in 2027?", "2027-12-31Z")

    ("Will China invade Taiwan in 2027?", "2027-12-31Z"),
    ("Will China blockade Taiwan in 2027?", "2027-12-31Z")

    ("Will Taylor Swift release an album in 2027?", "2027-12-31Z"),
    ("Will Taylor Swift get married in 2027?", "2027-12-31Z")

    ("Highest temperature in NYC on November 28?", "2026-11-28Z"),
    ("Highest temperature in Chicago on November 28?", "2026-11-28Z")

    ("Will Gavin Newsom win the 2028 Democratic presidential nomination?", "2028-08-20Z"),
    ("Will Gavin Newsom win the 2028 US presidential election?", "2028-11-07Z")

    ("Will it ship before July 2027?", "2027-06-30Z"), ("Will it ship before June 2027?", "2027-05-31Z")

    ("Will it rain in Paris tomorrow?", ""), ("Will inflation exceed 3%?", "")
]

let private differentCases =
    different |> List.map (fun (a, b) -> TestCaseData(box a, box b))

[<TestCaseSource(nameof differentCases)>]
let ``titles that ask something else are not`` (case: (string * string) * (string * string)) =
    let one, other = case
    Assert.That(scoreOf one other, Is.LessThan 0.6)

[<Test>]
let ``the same title is worth 1 where the ends agree, and less where they do not`` () =
    let title = "Will Arsenal win the Premier League?"
    equal 1.0 (scoreOf (title, "2027-05-20Z") (title, "2027-05-22Z"))

    let near, unknown =
        scoreOf (title, "2027-05-20Z") (title, "2027-05-30Z"), scoreOf (title, "") (title, "")

    Assert.That(near, Is.LessThan 1.0)
    Assert.That(unknown, Is.LessThan 1.0)
    equal 0.85 (scoreOf (title, "2027-05-20Z") (title, "2027-08-20Z"))

[<TestCase("Will Bitcoin be below $100k on Dec 31?", "Will Bitcoin be above $100k on Dec 31?", true)>]
[<TestCase("Will Trump not be elected president in 2028?", "Will Trump be elected president in 2028?", true)>]
[<TestCase("Won't Trump be elected president in 2028?", "Will Trump be elected president in 2028?", true)>]
[<TestCase("Will Bitcoin be under $100k on Dec 31?", "Will Bitcoin be below $100k on Dec 31?", false)>]
[<TestCase("Will Bitcoin be over $100k on Dec 31?", "Will Bitcoin be above $100k on Dec 31?", false)>]
let ``a question the other way round is said to be inverted``
    (one: string)
    (other: string)
    (isInverted: bool)
    =
    let found =
        Matching.find none 0.6 [ asking "polymarket" "a" one ""; asking "kalshi" "b" other "" ]

    match found.Proposals with
    | [ one ] -> equal isInverted one.IsInverted
    | other -> Assert.Fail $"%A{other}"

[<Test>]
let ``a proposal says what speaks for it and against it`` () =
    let found =
        Matching.find none 0.0 [
            asking "polymarket" "a" "Will Bitcoin be above $100k on December 31, 2026?" "2026-12-31Z"
            asking "kalshi" "b" "Will Bitcoin be above $120k on December 31, 2026?" "2026-12-30Z"
        ]

    match found.Proposals with
    | [ one ] ->
        equal "kalshi" (string one.First.Exchange)
        equal "polymarket" (string one.Second.Exchange)
        equal 1.0 one.Dates
        equal 1.0 one.Outcomes
        Assert.That(one.Why, Does.Contain "same names: bitcoin")
        Assert.That(one.Why, Does.Contain "same year: 2026")
        Assert.That(one.Why, Does.Contain "they end 1 days apart")
        Assert.That(one.Why, Does.Contain "another number: 120000 and 100000")
    | other -> Assert.Fail $"%A{other}"

[<Test>]
let ``outcomes of other names speak against it`` () =
    let question = "Who wins, Arsenal or Chelsea, on May 20?"
    let one = asking "polymarket" "a" question ""

    let other = {
        asking "kalshi" "b" question "" with
            Outcomes = [| for name in [ "Arsenal"; "Chelsea" ] -> { Name = name; Token = ValueNone } |]
    }

    let named = {
        one with
            Outcomes =
                other.Outcomes
                |> Array.map (fun outcome -> {
                    outcome with
                        Name = outcome.Name.ToUpper()
                })
    }

    Assert.That(Matching.score one other, Is.LessThan 0.6)
    Assert.That(Matching.score named other, Is.GreaterThan 0.9)

[<Test>]
let ``markets of one exchange are not proposed, and neither is what is settled`` () =
    let question = "Will Arsenal win the Premier League?"
    let a, b = asking "polymarket" "a" question "", asking "polymarket" "b" question ""
    let c = asking "kalshi" "c" question ""
    equal [] (Matching.find none 0.0 [ a; b ]).Proposals

    let pairs found =
        found |> List.map (fun one -> string one.First.Market, string one.Second.Market)

    equal [ "c", "a"; "c", "b" ] (pairs (Matching.find none 0.6 [ a; b; c ]).Proposals)

    let settled (one: Market) (other: Market) =
        [ one.Market; other.Market ] |> List.contains a.Market

    equal [ "c", "b" ] (pairs (Matching.find settled 0.6 [ a; b; c ]).Proposals)

[<Test>]
let ``a pair of which each has a better partner is left out`` () =
    let found =
        Matching.find none 0.3 [
            asking "polymarket" "a1" "Will Arsenal win the Premier League in 2027?" "2027-05-20Z"
            asking "polymarket" "a2" "Will Arsenal win the FA Cup in 2027?" "2027-05-20Z"
            asking "kalshi" "b1" "Arsenal wins the Premier League in 2027" "2027-05-20Z"
            asking "kalshi" "b2" "Arsenal wins the FA Cup in 2027" "2027-05-20Z"
        ]

    equal
        [ "b1", "a1"; "b2", "a2" ]
        (found.Proposals
         |> List.map (fun one -> string one.First.Market, string one.Second.Market)
         |> List.sort)

let private someMarkets =
    let names = [ "Trump"; "Vance"; "Newsom"; "Arsenal"; "Bitcoin" ]

    let verbs = [
        "win the election"
        "be above $100k"
        "be above $120k"
        "resign"
        "win the cup"
    ]

    let whens = [ ""; "in 2027"; "in 2028"; "by March 2027"; "on June 3, 2027" ]

    gen {
        let! exchange = Gen.elements [ "polymarket"; "kalshi"; "manifold" ]
        let! id = Gen.choose (1, 30)
        let! name = Gen.elements names
        let! verb = Gen.elements verbs
        let! time = Gen.elements whens
        let! ends = Gen.elements [ ""; "2027-03-31Z"; "2027-06-03Z"; "2028-11-07Z" ]
        return asking exchange $"m{id}" $"Will {name} {verb} {time}?" ends
    }
    |> Gen.listOf
    |> Gen.map (List.distinctBy (fun market -> struct (market.Exchange, market.Market)))

[<Property(MaxTest = 200)>]
let ``the same markets in any order give the same proposals`` () =
    let cases = gen {
        let! markets = someMarkets
        let! shuffled = Gen.shuffle markets
        return markets, List.ofArray shuffled
    }

    Prop.forAll (Arb.fromGen cases) (fun (markets, shuffled) ->
        let found = Matching.find none 0.2 markets
        equal found (Matching.find none 0.2 shuffled)

        for one in found.Proposals do
            Assert.That(one.Score, Is.InRange(0.2, 1.0))
            Assert.That(string one.First.Exchange, Is.LessThan(string one.Second.Exchange)))

[<Test>]
let ``of twenty thousand markets on each side few pairs are compared, and each finds its own`` () =
    // 200 subjects, 10 thresholds, 10 months: every word is frequent, and only together they tell a market.
    let count = 20_000
    let syllables = [| "ba"; "ce"; "di"; "fo"; "gu"; "ka"; "le"; "mi"; "no"; "pu" |]

    let months = [|
        "January"
        "February"
        "April"
        "May"
        "June"
        "July"
        "August"
        "September"
        "October"
        "November"
    |]

    let title i =
        let subject = i % 200

        let name =
            $"Q{syllables[subject / 100]}{syllables[subject / 10 % 10]}{syllables[subject % 10]}zor"

        let bound = 10 * (1 + i / 200 % 10)
        name, $"${bound}k", months[i / 2_000 % 10]

    let markets = [
        for i in 0 .. count - 1 do
            let name, bound, month = title i

            asking
                "polymarket"
                $"p{i}"
                $"Will the price of {name} be above {bound} in {month} 2027?"
                "2027-12-31Z"

            asking "kalshi" $"k{i}" $"{name} over {bound} in {month} 2027" "2027-12-31Z"
    ]

    let found = Matching.find none 0.8 markets
    Assert.That(found.Compared, Is.LessThan(count * 200), "of 400 million")

    let own =
        found.Proposals
        |> List.filter (fun one ->
            (string one.First.Market).Substring 1 = (string one.Second.Market).Substring 1)

    equal count own.Length
