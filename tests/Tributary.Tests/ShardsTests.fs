module Tributary.Tests.ShardsTests

open NUnit.Framework
open FsCheck.NUnit
open Tributary

/// The two tokens of a market.
let private pair (n: int) = [ token $"%d{n}1"; token $"%d{n}2" ]

let private planned most markets =
    fst (Shards.add [ for n in 1..markets -> pair n ] (Shards.empty most))

let private sizes shards = [
    for number in Shards.connections shards -> (Shards.tokens number shards).Length
]

let private all shards =
    Shards.connections shards
    |> List.collect (fun number -> [ for token in Shards.tokens number shards -> string token, number ])

/// Both views of it say the same.
let private isConsistent shards =
    for text, number in all shards do
        equal (ValueSome number) (Shards.tryFind (token text) shards)

    equal (all shards).Length (all shards |> List.distinctBy fst).Length
    isTrue (sizes shards |> List.forall (fun size -> size > 0))

[<Property>]
let ``tokens of a market stay together, and no connection bears more than it may``
    (most: byte)
    (markets: byte)
    (batches: byte)
    =
    let most, markets, batches = 2 + int most % 20, 1 + int markets, 1 + int batches % 5

    let shards =
        [ for n in 1..markets -> pair n ]
        |> List.splitInto batches
        |> List.fold (fun shards batch -> fst (Shards.add batch shards)) (Shards.empty most)

    isConsistent shards
    isTrue (sizes shards |> List.forall (fun size -> size <= most))
    equal (2 * markets) (List.sum (sizes shards))

    for n in 1..markets do
        equal
            1
            (pair n
             |> List.map (fun token -> Shards.tryFind token shards)
             |> List.distinct
             |> List.length)

    // As few connections as whole markets allow.
    let each = most / 2
    equal ((markets + each - 1) / each) (sizes shards).Length

[<Property>]
let ``adding what is there changes nothing`` (most: byte) (markets: byte) =
    let markets = [ for n in 1 .. 1 + int markets % 50 -> pair n ]
    let shards, _ = Shards.add markets (Shards.empty (2 + int most % 20))
    let again, placed = Shards.add markets shards
    equal [] placed
    equal (all shards) (all again)

[<Test>]
let ``add answers what is new on each connection`` () =
    let shards, placed = Shards.add [ pair 1; pair 2; pair 3 ] (Shards.empty 4)
    equal [ 0, pair 1 @ pair 2; 1, pair 3 ] placed
    let _, placed = Shards.add [ pair 3; pair 4 ] shards
    equal [ 1, pair 4 ] placed

[<Test>]
let ``a market that is larger than a connection has one of its own`` () =
    let large = [ for n in 1..5 -> token $"9%d{n}" ]
    let shards, placed = Shards.add [ pair 1; large; pair 2 ] (Shards.empty 4)
    equal [ 0, pair 1 @ pair 2; 1, large ] placed
    isConsistent shards

[<Test>]
let ``a token that is removed is gone, and its connection with the last one`` () =
    let shards = planned 2 2
    let fewer = Shards.remove (token "11") shards
    equal ValueNone (Shards.tryFind (token "11") fewer)
    equal [ token "12" ] (Shards.tokens 0 fewer)
    let none = Shards.remove (token "12") fewer
    equal [ 1 ] (Shards.connections none)
    equal (all none) (all (Shards.remove (token "12") none))

[<Test>]
let ``the room that a token leaves is used, and a number never again`` () =
    let shards = planned 2 2 |> Shards.remove (token "11") |> Shards.remove (token "12")
    let shards, placed = Shards.add [ pair 3 ] shards
    equal [ 2, pair 3 ] placed
    let shards = shards |> Shards.remove (token "21") |> Shards.remove (token "31")
    let shards, placed = Shards.add [ [ token "4" ] ] shards
    equal 1 placed.Length
    isTrue (fst placed.Head < 3)
    isConsistent shards

[<Test>]
let ``a token that moves gets another connection than it has`` () =
    let shards, number = Shards.move (token "11") (planned 4 2)
    equal 1 number
    equal [ token "11" ] (Shards.tokens 1 shards)
    equal 3 (Shards.tokens 0 shards).Length
    isConsistent shards
    let shards, number = Shards.move (token "12") shards
    equal 1 number
    let shards, number = Shards.move (token "12") shards
    equal 0 number
    isConsistent shards

[<Test>]
let ``a connection that is replaced has the same tokens and a number that was never used`` () =
    let shards, fresh = Shards.replace 0 (planned 4 3)
    equal 2 fresh
    equal [] (Shards.tokens 0 shards)
    equal (pair 1 @ pair 2) (Shards.tokens 2 shards)
    isConsistent shards

    let shards, fresh = Shards.replace 1 shards
    equal 3 fresh
    let shards, placed = Shards.add [ pair 4 ] shards
    equal [ 3, pair 4 ] placed
    isConsistent shards

[<Test>]
let ``a connection that is not there is not replaced`` () =
    let shards = planned 4 1
    let same, number = Shards.replace 7 shards
    equal 7 number
    equal (all shards) (all same)

[<Test>]
let ``a whole exchange is planned in one call`` () =
    let shards = planned 400 46_000
    equal 230 (sizes shards).Length
    isTrue (sizes shards |> List.forall ((=) 400))
