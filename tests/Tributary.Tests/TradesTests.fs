module Tributary.Tests.TradesTests

open NUnit.Framework
open FsCheck
open FsCheck.FSharp
open FsCheck.NUnit
open Tributary

let private tuple: Tuple = {
    Exchange = "polymarket"
    Source = Source.Api
    Transaction = "0xaa"
    Token = "71"
    Wallet = "0xbb"
    Side = Side.Buy
    Price = price "0.49"
    Size = size "10.5"
    At = seconds 1_786_728_432L
}

let private identified tuple occurrence =
    string (Trades.identify tuple occurrence)

// Computed with Python's hashlib from the layout in `Trades.fs`.
[<Test>]
let ``the layout of version 1 gives the ids that it gave`` () =
    equal "d392d01f88a2ee50829d96b7ed930a30" (identified tuple 0)
    equal "91978c55bdd788f00b064bf2aa3726d2" (identified tuple 1)

    let least = {
        tuple with
            Transaction = ""
            Token = "1"
            Wallet = ""
            Side = Side.Sell
            Price = Price.zero
            Size = size "0.000001"
            At = seconds 0L
    }

    equal "657ad04744a1d0c77b9984cc9613b93e" (identified least 0)

    let strange = {
        tuple with
            Exchange = "kalshi"
            Source = Source.Stream
            Transaction = "0xé"
            Token = "market:yes"
            Wallet = ""
            Side = Side.Sell
            Price = Price.ofMillionths 999_999L
            Size = size "9223372036854.775807"
            At = Instant.ofMicros -1L
    }

    equal "c2cbbb4ccc9d730c856993a0b87e8598" (identified strange 7)

    let largest = {
        tuple with
            Source = Source.Chain
            Transaction = "0x" + String.replicate 32 "ab"
            Token = System.String('9', 78)
            Wallet = "0x" + String.replicate 20 "cd"
            Price = Price.ofMillionths 333_333L
            Size = size "1"
            At = seconds 1_700_000_000L
    }

    equal "72012dd36324321af665919ad693b28b" (identified largest System.Int32.MaxValue)

/// A fill as the tests write it: its market, its second, and what tells it from others of that second.
type private Fill = {
    Market: string
    At: int64
    Content: int
}

let private add (batch: Batch) fill =
    let mutable row: TradeRow = {
        Market = batch.Names.Intern fill.Market
        Token = batch.Names.Intern "71"
        Outcome = batch.Names.Intern "Yes"
        Side = Side.Buy
        Source = Source.Api
        Price = price "0.5"
        Size = Size.tryOfMillionths(int64 fill.Content + 1L).Value
        At = seconds fill.At
        Received = seconds 0L
        Transaction = batch.Keep(System.ReadOnlySpan(utf8 $"0x{fill.Market}"))
        Wallet = { Start = 0; Length = 0 }
        Flags = Flags.None
        Occurrence = 0
        Collateral = ValueNone
        Id = { High = 0UL; Low = 0UL }
        Inserted = false
    }

    batch.Trades.Add &row

/// Numbers pages in their order; answers all trades.
let private number (pages: Fill list list) : Trade list =
    let names = Names()
    let mutable carry = Trades.noCarry

    [
        for page in pages do
            let batch = Batch names
            batch.Exchange <- "polymarket"
            page |> List.iter (add batch)
            carry <- Trades.number carry batch
            for i in 0 .. batch.Trades.Count - 1 -> batch.Trade i
    ]

let private ids trades =
    trades |> List.map (fun (trade: Trade) -> trade.Id)

/// A reading as exchanges give it, newest first, with identical fills in it.
let private reading = gen {
    let! fills =
        Gen.listOf (
            gen {
                let! market = Gen.elements [ "a"; "b" ]
                let! at = Gen.choose (0, 4)
                let! content = Gen.choose (0, 1)

                return {
                    Market = market
                    At = int64 at
                    Content = content
                }
            }
        )

    return fills |> List.sortBy (fun fill -> -fill.At)
}

let rec private cutAt sizes fills =
    match sizes, fills with
    | _, [] -> []
    | [], rest -> [ rest ]
    | size :: sizes, rest ->
        let count = min (List.length rest) size
        List.take count rest :: cutAt sizes (List.skip count rest)

[<Property>]
let ``a group cut by page edges is numbered as if it was not cut`` () =
    Prop.forAll (Arb.fromGen (Gen.zip reading (Gen.listOf (Gen.choose (0, 4))))) (fun (fills, sizes) ->
        ids (number (cutAt sizes fills)) = ids (number [ fills ]))

[<Test>]
let ``identical fills have different ids, and the same ones in every reading`` () =
    let fill = { Market = "a"; At = 1L; Content = 0 }
    let first = ids (number [ [ fill; fill; fill ] ])
    equal 3 (List.distinct first).Length
    equal first (ids (number [ [ fill ]; []; [ fill; fill ] ]))

[<Test>]
let ``a numbered row has the id that identify gives its content`` () =
    let batch = Batch()
    batch.Exchange <- "polymarket"
    let fill = { Market = "a"; At = 5L; Content = 9 }
    add batch fill
    add batch fill
    Trades.number Trades.noCarry batch |> ignore

    let content = {
        tuple with
            Transaction = "0xa"
            Wallet = ""
            Price = price "0.5"
            Size = size "0.00001"
            At = seconds 5L
    }

    equal [ Trades.identify content 0; Trades.identify content 1 ] [ for i in 0..1 -> batch.Trades[i].Id ]

/// The multiset that a merge should be: of every tuple the larger count.
let private larger one other =
    let counts = List.countBy id >> Map.ofList
    let one, other = counts one, counts other

    Seq.append (Map.keys one) (Map.keys other)
    |> Seq.distinct
    |> Seq.collect (fun key ->
        let count = max (defaultArg (one.TryFind key) 0) (defaultArg (other.TryFind key) 0)
        Seq.replicate count key)
    |> Seq.sort
    |> List.ofSeq

[<Property>]
let ``two readings merge by the larger count of every tuple`` () =
    Prop.forAll (Arb.fromGen (Gen.zip reading reading)) (fun (one, other) ->
        let merged = Trades.merge (number [ one ]) (number [ other ])

        let content (trade: Trade) = {
            Market = string trade.Market
            At = trade.At.Micros / 1_000_000L
            Content = int trade.Size.Millionths - 1
        }

        List.sort (List.map content merged) = larger one other)
