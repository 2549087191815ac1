module Tributary.Tests.BookTests

open System
open System.Collections.Generic
open NUnit.Framework
open FsCheck
open FsCheck.FSharp
open FsCheck.NUnit
open Tributary

let private level (price: int64, size: int64) : Level = {
    Price = Price.ofMillionths price
    Size = (Size.tryOfMillionths size).Value
}

let private levels pairs = pairs |> List.map level |> Array.ofList

let private pair (level: Level) =
    level.Price.Millionths, level.Size.Millionths

let private cents price = 10_000L * int64 price
let private shares size = 1_000_000L * int64 size

/// Levels in cents and shares, best first.
let private book bids asks =
    let book = Book()

    let side pairs =
        pairs |> List.map (fun (price, size) -> cents price, shares size) |> levels

    book.Load(ReadOnlySpan(side bids), ReadOnlySpan(side asks))
    book

let private best (book: Book) side =
    book.Depth(side, Int32.MaxValue) |> Array.map pair |> List.ofArray

/// What a book is, with nothing clever about it.
type private Model() =
    let bids =
        SortedDictionary<int64, int64>(Comparer<int64>.Create(fun a b -> compare b a))

    let asks = SortedDictionary<int64, int64>()

    member _.Side side = if side = Side.Buy then bids else asks

    member this.Set(side, price, size) =
        let levels = this.Side side

        let before =
            match levels.TryGetValue price with
            | true, size -> size
            | _ -> 0L

        if size = 0L then
            levels.Remove price |> ignore
        else
            levels[price] <- size

        before <> size

    /// Best first.
    member this.Levels side = [ for KeyValue(price, size) in this.Side side -> price, size ]

    member this.Load(bids, asks) =
        for side, levels in [ Side.Buy, bids; Side.Sell, asks ] do
            (this.Side side).Clear()

            for price, size in levels do
                (this.Side side)[price] <- size

/// Prices are drawn from few, so that levels are met again; some are off the grid and some at the bounds.
type private Step =
    | Set of Side * price: int64 * size: int64
    | Load of bids: (int64 * int64) list * asks: (int64 * int64) list
    | Clear

let private prices =
    Gen.frequency [
        20, Gen.choose (1, 99) |> Gen.map cents
        2, Gen.elements [ 0L; Fixed.One; 1L; 999_999L; 123_456L; 505_000L ]
    ]

let private sizes =
    Gen.frequency [
        2, Gen.constant 0L
        3, Gen.choose (1, 3) |> Gen.map shares
        1, Gen.constant 1L
    ]

let private sides = Gen.elements [ Side.Buy; Side.Sell ]

let private sideOf falling =
    Gen.listOf (Gen.zip prices (Gen.choose (1, 9) |> Gen.map shares))
    |> Gen.map (fun pairs ->
        let rising = pairs |> List.distinctBy fst |> List.sortBy fst
        if falling then List.rev rising else rising)

let private steps =
    Gen.frequency [
        60, Gen.zip3 sides prices sizes |> Gen.map Set
        1, Gen.zip (sideOf true) (sideOf false) |> Gen.map Load
        1, Gen.constant Clear
    ]
    |> Gen.listOf

let private play (steps: Step list) =
    let book, model = Book(), Model()

    for step in steps do
        match step with
        | Set(side, price, size) -> equal (model.Set(side, price, size)) (book.Set(side, price, size))
        | Load(bids, asks) ->
            book.Load(ReadOnlySpan(levels bids), ReadOnlySpan(levels asks))
            model.Load(bids, asks)
        | Clear ->
            book.Clear()
            model.Load([], [])

    book, model

let private holds (check: Book -> Model -> unit) =
    Prop.forAll (Arb.fromGen steps) (fun steps -> play steps ||> check)

let private both check =
    for side in [ Side.Buy; Side.Sell ] do
        check side

[<Property(MaxTest = 300)>]
let ``after any steps the levels are those of the model, and every set says whether it changed something``
    ()
    =
    holds (fun book model ->
        both (fun side ->
            equal (model.Levels side) (best book side)
            equal (List.rev (model.Levels side)) [ for level in (book.Levels side).ToArray() -> pair level ]
            equal (model.Levels side).Length (book.Count side)))

[<Property(MaxTest = 300)>]
let ``the best prices are those of the model, and a book is crossed when they have met`` () =
    holds (fun book model ->
        let bestOf side none =
            match model.Levels side with
            | [] -> none
            | (price, _) :: _ -> price

        let bid, ask = bestOf Side.Buy 0L, bestOf Side.Sell Fixed.One
        equal (bid, ask) (book.BestBid, book.BestAsk)

        equal
            (not (model.Levels Side.Buy).IsEmpty
             && not (model.Levels Side.Sell).IsEmpty
             && bid >= ask)
            book.IsCrossed)

[<Property(MaxTest = 300)>]
let ``size and rank of any price are those of the model`` (price: uint32) =
    holds (fun book model ->
        both (fun side ->
            let known = model.Levels side
            let asked = cents (int (price % 101u)) :: 500_001L :: List.map fst known

            for price in asked do
                let size = known |> List.tryPick (fun (p, s) -> if p = price then Some s else None)
                equal (defaultArg size 0L) (book.Size(side, price))

                let isBetter (other, _) =
                    if side = Side.Buy then other > price else other < price

                equal (known |> List.filter isBetter |> List.length) (book.Rank(side, price))))

[<Property(MaxTest = 300)>]
let ``the best n levels are the first n of the model, whether they are given or appended to a batch``
    (n: byte)
    =
    holds (fun book model ->
        let n = int n % 12
        let rows = Rows<Level>()
        let before = level (1L, 1L)
        rows.Add &before

        both (fun side ->
            let expected = model.Levels side |> List.truncate n
            equal expected (book.Depth(side, n) |> Array.map pair |> List.ofArray)
            rows.Truncate 1
            book.CopyTo(side, n, rows)
            equal expected [ for level in rows.Slice(1, rows.Count - 1).ToArray() -> pair level ]))

[<Property(MaxTest = 300)>]
let ``a book has exactly its own levels, and no longer when one of them differs`` () =
    holds (fun book model ->
        let bids, asks = model.Levels Side.Buy, model.Levels Side.Sell

        let has bids asks =
            book.Has(ReadOnlySpan(levels bids), ReadOnlySpan(levels asks))

        isTrue (has bids asks)

        for i, (price, size) in List.indexed bids do
            isTrue (not (has (List.updateAt i (price, size + 1L) bids) asks))
            isTrue (not (has (List.removeAt i bids) asks))

        for i, (price, size) in List.indexed asks do
            isTrue (not (has bids (List.updateAt i (price + 1L, size) asks)))
            isTrue (not (has bids (List.removeAt i asks))))

[<Property(MaxTest = 300)>]
let ``the complement of a book is its mirror, and no longer after a change on one side`` () =
    holds (fun book model ->
        let complement side = [| for price, size in model.Levels side -> level (Fixed.One - price, size) |]
        let other = Book()
        other.Load(ReadOnlySpan(complement Side.Sell), ReadOnlySpan(complement Side.Buy))
        isTrue (book.IsMirrorOf other)
        isTrue (other.IsMirrorOf book)

        if other.Set(Side.Sell, 444_444L, 1L) then
            isTrue (not (book.IsMirrorOf other))
            isTrue (not (other.IsMirrorOf book)))

[<Property(MaxTest = 200)>]
let ``a snapshot and the changes to the next one are the next one`` () =
    let books = Gen.zip (sideOf true) (sideOf false)

    Prop.forAll (Arb.fromGen (Gen.zip books books)) (fun ((bids, asks), (nextBids, nextAsks)) ->
        let book = Book()
        book.Load(ReadOnlySpan(levels bids), ReadOnlySpan(levels asks))

        for side, before, after in [ Side.Buy, bids, nextBids; Side.Sell, asks, nextAsks ] do
            for price, _ in before do
                if not (List.exists (fun (p, _) -> p = price) after) then
                    isTrue (book.Set(side, price, 0L))

            for price, size in after do
                book.Set(side, price, size) |> ignore

        isTrue (book.Has(ReadOnlySpan(levels nextBids), ReadOnlySpan(levels nextAsks))))

[<Test>]
let ``a zero size removes the level`` () =
    let book = book [ 50, 3; 49, 2 ] [ 51, 1 ]
    isTrue (book.Set(Side.Buy, cents 50, 0L))
    equal [ cents 49, shares 2 ] (best book Side.Buy)
    equal (cents 49) book.BestBid

[<Test>]
let ``a zero size where there is no level changes nothing`` () =
    isTrue (not ((book [ 50, 3 ] []).Set(Side.Buy, cents 49, 0L)))

[<Test>]
let ``a set that changes nothing answers false`` () =
    isTrue (not ((book [ 50, 3 ] []).Set(Side.Buy, cents 50, shares 3)))

[<Test>]
let ``a new book has no levels, and its best prices are the bounds`` () =
    let book = Book()
    equal (0L, Fixed.One, false) (book.BestBid, book.BestAsk, book.IsCrossed)
    equal (0, 0) (book.Count Side.Buy, book.Count Side.Sell)
    isTrue (book.Has(ReadOnlySpan(), ReadOnlySpan()))
    isTrue (book.IsMirrorOf(Book()))

[<TestCase(50, 51, false)>]
[<TestCase(50, 50, true)>]
[<TestCase(51, 50, true)>]
let ``a book whose best bid has come to its best ask is crossed`` (bid: int, ask: int, crossed: bool) =
    equal crossed (book [ bid, 1 ] [ ask, 1 ]).IsCrossed

[<Test>]
let ``a book of one side is never crossed`` () =
    isTrue (not (book [ 100, 1 ] []).IsCrossed)
    isTrue (not (book [] [ 0, 1 ]).IsCrossed)
