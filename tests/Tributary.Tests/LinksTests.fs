module Tributary.Tests.LinksTests

open System
open FsCheck
open FsCheck.FSharp
open NUnit.Framework
open FsCheck.NUnit
open Tributary

let private idOf number : TradeId = { High = 0UL; Low = uint64 number }

/// A sighting in second 1000, of this number and size.
let private seen source number (shares: int64) : Trade = {
    Exchange = good (ExchangeId.Parse "polymarket")
    Market = market "0xm"
    Token = token "71"
    Outcome = "Yes"
    Side = Side.Buy
    Price = price "0.5"
    Size = Size.tryOfMillionths(shares * 1_000_000L).Value
    Collateral = ValueNone
    Id = idOf number
    Transaction = "0xaa"
    Source = source
    At = seconds 1_000L
    Received = seconds 1_001L
    Flags = Flags.None
}

let private api = seen Source.Api
let private stream = seen Source.Stream

let private hearing trades links =
    List.fold (fun links trade -> Links.hear trade links) links trades

let private pairsOf (settled: Settled) = [
    for link in settled.Links -> int link.Trade.Low, int link.Other.Low
]

let private unconfirmedOf (settled: Settled) = [ for trade in settled.Unconfirmed -> int trade.Id.Low ]

/// What is found of these trades when they are old enough, and what was never confirmed.
let private found trades =
    let struct (links, settled) =
        Links.none |> hearing trades |> Links.settle (seconds 1_031L)

    let struct (_, last) = Links.settle (seconds 1_601L) links
    equal [] last.Links
    pairsOf settled, unconfirmedOf last

let private cases: (string * Trade list * (int * int) list * int list) list = [
    "nothing", [], [], []
    "one of each", [ api 1 5L; stream 2 5L ], [ 1, 2 ], []
    "the stream alone", [ stream 2 5L ], [], [ 2 ]
    "the API alone", [ api 1 5L ], [], []
    "identical fills, each of them once", [ api 1 5L; api 2 5L; stream 3 5L; stream 4 5L ], [ 1, 3; 2, 4 ], []
    "more of the stream than of the API", [ api 1 5L; stream 3 5L; stream 4 5L ], [ 1, 3 ], [ 4 ]
    "one event for several fills", [ api 1 5L; api 2 3L; stream 3 8L ], [ 1, 3; 2, 3 ], []
    "several events for one fill", [ api 1 8L; stream 2 5L; stream 3 3L ], [ 1, 2; 1, 3 ], []
    "the same size goes before a sum", [ api 1 5L; api 2 3L; api 3 8L; stream 4 8L ], [ 3, 4 ], []
    "sizes that do not add up", [ api 1 5L; api 2 2L; stream 3 8L ], [], [ 3 ]
    "two sums beside each other",
    [ api 1 7L; api 2 6L; api 3 4L; api 4 3L; stream 5 11L; stream 6 9L ],
    [ 1, 5; 2, 6; 3, 5; 4, 6 ],
    []
    "a sum and what is left of it", [ api 1 5L; api 2 3L; stream 3 8L; stream 4 1L ], [ 1, 3; 2, 3 ], [ 4 ]
    "another transaction",
    [
        api 1 5L
        {
            stream 2 5L with
                Transaction = "0xbb"
        }
    ],
    [],
    [ 2 ]
    "another token", [ api 1 5L; { stream 2 5L with Token = token "72" } ], [], [ 2 ]
    "another side", [ api 1 5L; { stream 2 5L with Side = Side.Sell } ], [], [ 2 ]
    "another price",
    [
        api 1 5L
        {
            stream 2 5L with
                Price = price "0.51"
        }
    ],
    [],
    [ 2 ]
    "a transaction that was settled later", [ api 1 5L; { stream 2 5L with At = seconds 996L } ], [ 1, 2 ], []
    "no transaction, the same second",
    [
        { api 1 5L with Transaction = "" }
        {
            stream 2 5L with
                Transaction = ""
                At = Instant.ofMicros 1_000_999_999L
        }
    ],
    [ 1, 2 ],
    []
    "no transaction, another second",
    [
        { api 1 5L with Transaction = "" }
        {
            stream 2 5L with
                Transaction = ""
                At = seconds 999L
        }
    ],
    [],
    [ 2 ]
    "a chain's are not compared", [ seen Source.Chain 1 5L; stream 2 5L ], [], [ 2 ]
]

[<Test>]
let ``trades that are one fill are found`` () =
    for name, trades, pairs, unconfirmed in cases do
        for trades in [ trades; List.rev trades ] do
            let found = found trades

            if found <> (pairs, unconfirmed) then
                Assert.Fail $"{name}: expected %A{(pairs, unconfirmed)}\nbut found %A{found}"

[<Test>]
let ``a link is dated with the API's trade`` () =
    let struct (_, settled) =
        Links.none
        |> hearing [ api 1 5L; { stream 2 5L with At = seconds 996L } ]
        |> Links.settle (seconds 1_030L)

    equal
        [
            {
                Trade = idOf 1
                Other = idOf 2
                At = seconds 1_000L
            }
        ]
        settled.Links

[<Test>]
let ``nothing is compared before all of it may have come, and what comes late is compared with the rest`` () =
    let links = Links.none |> hearing [ stream 3 8L; stream 4 8L; api 1 8L ]
    let struct (links, settled) = Links.settle (seconds 1_029L) links
    equal ([], []) (pairsOf settled, unconfirmedOf settled)
    let struct (links, settled) = Links.settle (seconds 1_030L) links
    equal [ 1, 3 ] (pairsOf settled)
    let links = links |> hearing [ api 2 8L; api 1 8L; stream 3 8L ]
    let struct (links, settled) = Links.settle (seconds 1_031L) links
    equal [ 2, 4 ] (pairsOf settled)
    let struct (_, settled) = Links.settle (seconds 1_601L) links
    equal ([], []) (pairsOf settled, unconfirmedOf settled)

[<Test>]
let ``what was not confirmed is told of once, and everything is forgotten in the end`` () =
    let links = Links.none |> hearing [ stream 3 8L; api 1 5L ]
    let struct (links, settled) = Links.settle (seconds 1_599L) links
    equal [] settled.Unconfirmed
    equal 2 (Links.count links)
    let struct (links, settled) = Links.settle (seconds 1_600L) links
    equal [ 3 ] (unconfirmedOf settled)
    equal 0 (Links.count links)
    // It does not begin anew.
    let links = links |> hearing [ stream 3 8L; api 2 8L ]
    equal 0 (Links.count links)
    let struct (_, settled) = Links.settle (seconds 9_999L) links
    equal ([], []) (pairsOf settled, unconfirmedOf settled)

[<Test>]
let ``no more is held than there is room for: the oldest go`` () =
    let mutable links = Links.none

    for number in 0 .. Links.most + 9 do
        links <-
            Links.hear
                {
                    stream number 1L with
                        Transaction = string number
                        At = Instant.ofMicros (int64 number)
                }
                links

    equal Links.most (Links.count links)
    let struct (_, settled) = Links.settle (seconds 10_000L) links
    equal 10 (settled.Unconfirmed |> List.map (fun trade -> int trade.Id.Low) |> List.min)

[<Test; CancelAfter 10_000>]
let ``a group that was made to take for ever is given up`` () =
    // No sum of even numbers is odd.
    let trades = [
        for number in 1..60 do
            api number (int64 (2 * number + 2_000))

        for number in 61..70 do
            stream number (int64 (2 * number + 60_001))
    ]

    equal [] (fst (found trades))

// ---- whatever the order

/// A transaction as both sides tell of it: fills of some sizes, joined by either side as it likes; now and then something is
/// missing, or told twice.
let private transaction number = gen {
    let! sizes = Gen.choose (1, 6) |> Gen.nonEmptyListOf |> Gen.map (List.truncate 6)
    let! joinedByStream = Gen.listOfLength sizes.Length (Gen.choose (0, 2))
    let! joinedByApi = Gen.listOfLength sizes.Length (Gen.choose (0, 3))
    let! isMissing = Gen.frequency [ 4, Gen.constant false; 1, Gen.constant true ]
    let! second = Gen.choose (1_000, 1_020)

    let told (make: int -> int64 -> Trade) offset groups =
        List.zip groups sizes
        |> List.groupBy fst
        |> List.mapi (fun i (_, own) -> {
            make (1_000 * number + offset + i) (own |> List.sumBy (snd >> int64)) with
                Transaction = $"0x{number}"
                At = seconds (int64 second)
        })

    // One side joins, or the other: never both.
    let! streamJoins = Gen.elements [ true; false ]
    let alone = List.indexed sizes |> List.map fst
    let ofApi = told api 0 (if streamJoins then alone else joinedByApi)
    let ofStream = told stream 500 (if streamJoins then joinedByStream else alone)
    return (if isMissing then List.tail ofApi else ofApi) @ ofStream
}

let private shuffledTwice = gen {
    let! count = Gen.choose (1, 4)

    let! transactions =
        Gen.sequenceToList [ for number in 1..count -> transaction number ]

    let trades = List.concat transactions
    let! repeated = Gen.subListOf trades
    let! one = Gen.shuffle (Array.ofList trades)
    let! other = Gen.shuffle (Array.ofList (trades @ repeated))
    return List.ofArray one, List.ofArray other
}

let private outcome trades =
    let struct (links, settled) =
        Links.none |> hearing trades |> Links.settle (seconds 1_100L)

    let struct (_, last) = Links.settle (seconds 2_000L) links
    settled.Links, last.Unconfirmed |> List.map _.Id

[<Property(MaxTest = 300)>]
let ``every order gives the same links, and repeats change nothing`` () =
    Prop.forAll (Arb.fromGen shuffledTwice) (fun (one, other) -> equal (outcome one) (outcome other))

[<Property(MaxTest = 300)>]
let ``what is linked adds up, and each trade of the stream is linked or unconfirmed`` () =
    Prop.forAll (Arb.fromGen shuffledTwice) (fun (trades, _) ->
        let links, unconfirmed = outcome trades
        let known = trades |> List.map (fun trade -> trade.Id, trade) |> Map.ofList
        equal (List.distinct links) links

        // A trade that is linked to several is their sum.
        for whole, parts in
            List.append
                (links
                 |> List.groupBy _.Other
                 |> List.map (fun (id, own) -> id, own |> List.map _.Trade))
                (links
                 |> List.groupBy _.Trade
                 |> List.map (fun (id, own) -> id, own |> List.map _.Other)) do
            let sizeOf id = known[id].Size.Millionths
            let sum = parts |> List.sumBy sizeOf
            // A part of a larger whole.
            isTrue (sum = sizeOf whole || parts.Length = 1 && sum > sizeOf whole)

        let linked = links |> List.map _.Other |> Set.ofList
        let streamed = trades |> List.filter (fun trade -> trade.Source = Source.Stream)

        for trade in streamed do
            isTrue (linked.Contains trade.Id <> List.contains trade.Id unconfirmed))
