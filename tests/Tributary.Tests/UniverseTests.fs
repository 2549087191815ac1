module Tributary.Tests.UniverseTests

open System
open System.Text.RegularExpressions
open NUnit.Framework
open FsCheck
open FsCheck.FSharp
open FsCheck.NUnit
open Tributary

let private mk slug volume : Market = {
    Exchange = good (ExchangeId.Parse "polymarket")
    Market = market slug
    Event = ""
    Slug = slug
    Question = ""
    Outcomes = [|
        {
            Name = "Yes"
            Token = ValueSome(token (slug + "-yes"))
        }
        {
            Name = "No"
            Token = ValueSome(token (slug + "-no"))
        }
    |]
    Status = MarketStatus.Open
    AcceptsOrders = true
    TickSize = ValueNone
    MinimumSize = ValueNone
    NegRisk = false
    Start = ValueNone
    End = ValueNone
    ClosedAt = ValueNone
    Winner = ""
    Volume = ValueSome(size (string<int> volume))
    Liquidity = ValueNone
    OpenInterest = ValueNone
    Tags = [||]
    Updated = ValueNone
    Received = seconds 0L
    Raw = ""
}

let private shut market = {
    market with
        Market.Status = MarketStatus.Closed
}

let private ofEvent event market = { market with Market.Event = event }
let private tagged tag market = { market with Market.Tags = [| tag |] }

let private nobody: Picks = {
    Slugs = []
    Events = []
    Excluded = []
    Discovery = ValueNone
}

let private all: Discovery = {
    Tags = []
    MinVolume = ValueNone
    MinLiquidity = ValueNone
    Slugs = []
    WithClosed = false
    MaxMarkets = 2
}

let private discovering discovery = {
    nobody with
        Discovery = ValueSome discovery
}

let private chosen picks active markets =
    Universe.choose picks (Set.ofList active) markets |> List.map snd

let private slugs (markets: Market list) = markets |> List.map _.Slug |> List.sort

let private after picks now markets universe =
    Universe.absorb picks true (seconds now) markets universe

[<TestCase("", "", true)>]
[<TestCase("", "a", false)>]
[<TestCase("*", "", true)>]
[<TestCase("*", "anything", true)>]
[<TestCase("btc-*", "btc-updown", true)>]
[<TestCase("btc-*", "eth-btc-updown", false)>]
[<TestCase("*-15m-*", "btc-updown-15m-1786", true)>]
[<TestCase("*b", "abcb", true)>]
[<TestCase("a?c", "abc", true)>]
[<TestCase("a?c", "ac", false)>]
[<TestCase("a.c", "abc", false)>]
[<TestCase("**a**", "bab", true)>]
let ``a star stands for any text, a question mark for one character``
    (pattern: string, text: string, expected: bool)
    =
    equal expected (Universe.matches pattern text)

type Wild =
    static member Pattern() : Arbitrary<string> =
        Gen.elements [ 'a'; 'b'; '*'; '?' ]
        |> Gen.listOf
        |> Gen.map (Array.ofList >> String)
        |> Arb.fromGen

[<Property(Arbitrary = [| typeof<Wild> |])>]
let ``patterns match what the same regular expression matches`` (pattern: string) (text: string) =
    let text = text.Replace('*', 'a').Replace('?', 'b')

    let expression =
        "^" + Regex.Escape(pattern).Replace("\\*", ".*").Replace("\\?", ".") + "$"

    Universe.matches pattern text = Regex.IsMatch(text, expression)

[<Test>]
let ``a market is collected because it is named, of a named event, or discovered`` () =
    let picks = {
        discovering all with
            Slugs = [ "a" ]
            Events = [ "e" ]
    }

    equal
        [ Choice.Named; Choice.OfEvent "e"; Choice.Discovered ]
        (chosen picks [] [ mk "a" 1; mk "b" 1 |> ofEvent "e"; mk "c" 1 ])

[<Test>]
let ``what is excluded is not collected, whatever chooses it`` () =
    equal
        [ Choice.Excluded ]
        (chosen
            {
                discovering all with
                    Slugs = [ "a" ]
                    Excluded = [ "a" ]
            } [] [ mk "a" 1 ])

[<Test>]
let ``what is named and cannot be traded says so`` () =
    equal
        [ Choice.NotTradable MarketStatus.Closed ]
        (chosen { nobody with Slugs = [ "a" ] } [] [ shut (mk "a" 1) ])

[<Test>]
let ``the places of discovery go to the largest volumes`` () =
    equal
        [ Choice.BeyondMaximum; Choice.Discovered; Choice.Discovered ]
        (chosen (discovering all) [] [ mk "a" 1; mk "b" 3; mk "c" 2 ])

[<Test>]
let ``a place that is taken is kept as long as the market can be traded`` () =
    equal
        [ Choice.Discovered; Choice.Discovered; Choice.BeyondMaximum ]
        (chosen (discovering all) [ "a" ] [ mk "a" 1; mk "b" 3; mk "c" 2 ])

    equal
        [ Choice.NotTradable MarketStatus.Closed; Choice.Discovered; Choice.Discovered ]
        (chosen (discovering all) [ "a" ] [ shut (mk "a" 1); mk "b" 3; mk "c" 2 ])

[<Test>]
let ``a named market needs no place`` () =
    equal
        [ Choice.Named; Choice.Discovered; Choice.Discovered ]
        (chosen { discovering all with Slugs = [ "a" ] } [] [ mk "a" 9; mk "b" 3; mk "c" 2 ])

[<Test>]
let ``discovery asks for every condition that is given`` () =
    let wanted = {
        all with
            MinVolume = ValueSome(size "5")
            Tags = [ "crypto"; "weather" ]
            Slugs = [ "btc-*"; "will-?" ]
    }

    equal
        [ Choice.Discovered; Choice.Unwanted; Choice.Unwanted; Choice.Unwanted ]
        (chosen (discovering wanted) [] [
            mk "btc-1" 5 |> tagged "crypto"
            mk "btc-2" 4 |> tagged "crypto"
            mk "btc-3" 5 |> tagged "sports"
            mk "eth-4" 5 |> tagged "crypto"
        ])

[<Test>]
let ``a market without a volume does not meet the least one`` () =
    let wanted = {
        all with
            MinVolume = ValueSome(size "5")
    }

    equal [ Choice.Unwanted ] (chosen (discovering wanted) [] [ { mk "a" 0 with Volume = ValueNone } ])

[<Test>]
let ``a refresh tells what is new and what closed`` () =
    let picks = discovering all
    let universe, changes = Universe.empty |> after picks 0L [ mk "a" 1; mk "b" 1 ]
    equal [ "a"; "b" ] (slugs changes.Added)

    let universe, changes =
        universe |> after picks 1L [ shut (mk "a" 1); mk "b" 1; mk "c" 1 ]

    equal [ "c" ] (slugs changes.Added)
    equal [ "a" ] (slugs changes.Closed)
    equal (Set.ofList [ "b"; "c" ]) universe.Active

[<Test>]
let ``the trades of a market that closed are followed for ten minutes`` () =
    let picks = { nobody with Slugs = [ "a" ] }
    let universe, _ = Universe.empty |> after picks 0L [ mk "a" 1 ]
    let universe, changes = universe |> after picks 100L [ shut (mk "a" 1) ]
    equal [] changes.Removed
    let universe, changes = universe |> after picks 700L [ shut (mk "a" 1) ]
    equal [] changes.Removed
    let universe, changes = universe |> after picks 701L [ shut (mk "a" 1) ]
    equal [ "a" ] (slugs changes.Removed)
    isTrue universe.Known.IsEmpty

[<Test>]
let ``a market that opens again is closing no more`` () =
    let picks = { nobody with Slugs = [ "a" ] }
    let universe, _ = Universe.empty |> after picks 0L [ mk "a" 1 ]
    let universe, _ = universe |> after picks 1L [ shut (mk "a" 1) ]
    let universe, changes = universe |> after picks 2L [ mk "a" 1 ]
    equal [ "a" ] (slugs changes.Added)
    isTrue universe.Closing.IsEmpty

[<Test>]
let ``absence proves nothing, and keeps its place`` () =
    let picks = discovering all
    let universe, _ = Universe.empty |> after picks 0L [ mk "a" 1; mk "b" 1 ]
    let universe, changes = universe |> after picks 1L [ mk "b" 1; mk "c" 9; mk "d" 9 ]
    equal [] changes.Added
    equal [] changes.Closed
    equal (Set.ofList [ "a"; "b" ]) universe.Active

[<Test>]
let ``what is neither active nor closing is not remembered`` () =
    let universe, _ =
        Universe.empty |> after (discovering all) 0L [ for i in 1..9 -> mk $"m{i}" i ]

    equal [ "m8"; "m9" ] (List.ofSeq universe.Known.Keys)

[<Test>]
let ``the last word about a market that was discovered is kept, even if it would not be discovered any more``
    ()
    =
    let picks = discovering { all with Tags = [ "crypto" ] }
    let universe, _ = Universe.empty |> after picks 0L [ mk "a" 1 |> tagged "crypto" ]
    let universe, changes = universe |> after picks 1L [ shut (mk "a" 1) ]
    equal [ MarketStatus.Closed ] (changes.Described |> List.map _.Status)

    let _, changes =
        universe
        |> after picks 2L [
            {
                mk "a" 1 with
                    Status = MarketStatus.Resolved
            }
        ]

    equal [ MarketStatus.Resolved ] (changes.Described |> List.map _.Status)

[<Test>]
let ``what nobody wants is not described`` () =
    let _, changes =
        Universe.empty
        |> after { nobody with Slugs = [ "a" ] } 0L [ mk "a" 1; mk "b" 1 ]

    equal [ "a" ] (slugs changes.Described)

[<Test>]
let ``a market that comes twice counts once, as it came last`` () =
    let picks = { discovering all with Slugs = [ "a" ] }
    let universe, changes = Universe.empty |> after picks 0L [ mk "a" 1; mk "a" 2 ]
    equal [ "a" ] (slugs changes.Added)
    equal (ValueSome(size "2")) universe.Known["a"].Volume

[<Test>]
let ``a slug is unknown only when every page was answered`` () =
    let picks = {
        nobody with
            Slugs = [ "a"; "b" ]
            Events = [ "e"; "f" ]
    }

    let answered = [ mk "a" 1; mk "c" 1 |> ofEvent "e" ]

    let unknown isWhole =
        (Universe.absorb picks isWhole (seconds 0L) answered Universe.empty |> snd).Unknown

    equal [ "b"; "f" ] (unknown true)
    equal [] (unknown false)

[<Test>]
let ``a refresh asks for what is named, for what is active, and for more`` () =
    let picks = {
        discovering all with
            Slugs = [ "a" ]
            Events = [ "e" ]
    }

    let universe, _ =
        Universe.empty |> after picks 0L [ mk "a" 1; mk "b" 1 |> ofEvent "e"; mk "c" 1 ]

    equal
        [
            Need.MarketsBySlug [ "a" ]
            Need.MarketsByEvent [ "e" ]
            Need.MarketsById [ market "c" ]
            Need.MarketsLike all
        ]
        (Universe.needs picks universe)

    equal [] (Universe.needs nobody Universe.empty)

[<Test>]
let ``what was collected goes on as far as it is still wanted`` () =
    let resumed =
        Universe.resume { nobody with Slugs = [ "a"; "b" ] } [ mk "a" 1; shut (mk "b" 1); mk "c" 1 ]

    equal (Set.ofList [ "a" ]) resumed.Active

    let resumed =
        Universe.resume (discovering { all with Tags = [ "crypto" ] }) [ mk "a" 1 ]

    equal (Set.ofList [ "a" ]) resumed.Active

    // Another pattern in the configuration, however, wants others.
    let resumed =
        Universe.resume (discovering { all with Slugs = [ "a*" ] }) [ mk "a" 1; mk "b" 1 ]

    equal (Set.ofList [ "a" ]) resumed.Active
