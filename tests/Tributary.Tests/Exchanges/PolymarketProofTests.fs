module Tributary.Tests.Exchanges.PolymarketProofTests

open System
open NUnit.Framework
open Tributary
open Tributary.Exchanges
open Tributary.Tests

let private part = collector.Stream.Value

let private described tick least negRisk : Market = {
    Exchange = collector.Exchange
    Market = market "0xaabbcc"
    Event = ""
    Slug = ""
    Question = ""
    Outcomes = [||]
    Status = MarketStatus.Open
    AcceptsOrders = true
    TickSize = ValueSome(price tick)
    MinimumSize = ValueSome(size least)
    NegRisk = negRisk
    Start = ValueNone
    End = ValueNone
    ClosedAt = ValueNone
    Winner = ""
    Volume = ValueNone
    Liquidity = ValueNone
    OpenInterest = ValueNone
    Tags = [||]
    Updated = ValueNone
    Received = received
    Raw = ""
}

// The public vector's book (`PolymarketHashTests`).
let private book: HashedBook = {
    Market = "0xaabbcc"
    Token = "100"
    Timestamp = "123456789"
    Bids = [ "0.3", "100"; "0.4", "100" ]
    Asks = [ "0.7", "100"; "0.6", "100" ]
    MinimumSize = "100"
    TickSize = "0.01"
    NegRisk = false
    LastTradePrice = "0.5"
}

let private at = Instant.ofMillis 123_456_789L

let private loaded (book: HashedBook) =
    let live = Book()

    for side, levels in [ Side.Buy, book.Bids; Side.Sell, book.Asks ] do
        for p, s in levels do
            live.Set(side, (price p).Millionths, (size s).Millionths) |> ignore

    live

let private proof last =
    let proof = part.Proof (market "0xaabbcc") (token "100")
    proof.Describe(described "0.01" "100" false)
    proof.Traded(ReadOnlySpan(utf8 last))
    proof

let private says (proof: BookProof) (book: HashedBook) hash hint =
    proof.Agrees(loaded book, at, ReadOnlySpan(utf8 hash), hint)

let private ten (book: HashedBook) last =
    PolymarketHash.hash HashEra.Ten { book with LastTradePrice = last }

[<Test>]
let ``asks are hashed falling, as the exchange serves them: those of the public vector rise`` () =
    let rising = { book with Asks = List.rev book.Asks }
    let hash = "0458ea5755c9f73d64a14636fa5c36ed460ec394"
    equal hash (ten rising "0.5")
    isTrue (not (says (proof "0.5") rising hash -1L))
    isTrue (says (proof "0.5") rising (ten book "0.5") -1L)

[<Test>]
let ``a live book has the hash of its text`` () =
    isTrue (says (proof "0.5") book (ten book "0.5") -1L)

[<Test>]
let ``each of the three eras agrees, and another one after it`` () =
    let proof = proof "0.5"

    for era in
        [
            HashEra.Ten
            HashEra.Nine
            HashEra.Six
            HashEra.Nine
            HashEra.Ten
            HashEra.Six
            HashEra.Ten
        ] do
        isTrue (says proof book (PolymarketHash.hash era book) -1L)

[<Test>]
let ``a level, the moment, the token or the market that differs is seen`` () =
    let hash = ten book "0.5"

    for other in
        [
            { book with Bids = [ "0.3", "100" ] }
            {
                book with
                    Bids = [ "0.3", "100"; "0.4", "100.01" ]
            }
            {
                book with
                    Asks = [ "0.7", "100"; "0.61", "100" ]
            }
            { book with Bids = []; Asks = [] }
        ] do
        isTrue (not (says (proof "0.5") other hash -1L))

    isTrue (
        not (
            (proof "0.5")
                .Agrees(loaded book, at + TimeSpan.FromMilliseconds 1.0, ReadOnlySpan(utf8 hash), -1L)
        )
    )

    for market', token' in [ "0xaabbcc", "101"; "0xaabbcd", "100" ] do
        let proof = part.Proof (market market') (token token')
        proof.Describe(described "0.01" "100" false)
        proof.Traded(ReadOnlySpan "0.5"B)
        isTrue (not (says proof book hash -1L))

[<Test>]
let ``books without levels have hashes, too`` () =
    for bids, asks in [ [], []; book.Bids, []; [], book.Asks ] do
        let some = { book with Bids = bids; Asks = asks }
        isTrue (says (proof "0.5") some (ten some "0.5") -1L)

[<Test>]
let ``the market's description is part of the hash`` () =
    let other = {
        book with
            MinimumSize = "5"
            TickSize = "0.001"
            NegRisk = true
    }

    let proof = proof "0.5"
    isTrue (not (says proof other (ten other "0.5") -1L))
    proof.Describe(described "0.001" "5" true)
    isTrue (says proof other (ten other "0.5") -1L)

[<Test>]
let ``a tick size is hashed as it was written`` () =
    let other = { book with TickSize = "0.0010" }
    let proof = proof "0.5"
    proof.Tick(ReadOnlySpan "0.0010"B)
    isTrue (says proof other (ten other "0.5") -1L)

[<Test>]
let ``without a description nothing is ready and nothing agrees`` () =
    let proof = part.Proof (market "0xaabbcc") (token "100")
    proof.Traded(ReadOnlySpan "0.5"B)
    isTrue (not proof.IsReady)
    isTrue (not (says proof book (ten book "0.5") -1L))

    proof.Describe {
        described "0.01" "100" false with
            TickSize = ValueNone
    }

    isTrue (not proof.IsReady)
    proof.Describe(described "0.01" "100" false)
    isTrue proof.IsReady

[<Test>]
let ``what is no hash agrees with nothing`` () =
    for hash in [ ""; "0458"; String('0', 40); (ten book "0.5") + "0" ] do
        isTrue (not (says (proof "0.5") book hash -1L))

// ---- the price of the last fill may be another one than the last that was announced

// Announced before, announced last, the price that changed, and what the hash covers.
[<TestCase("", "0.5", -1L, "0.5", true)>]
[<TestCase("0.47", "0.5", -1L, "0.47", true)>]
[<TestCase("0.47", "0.5", 480_000L, "0.48", true)>]
[<TestCase("0.47", "0.5", 400_000L, "0.40", true)>]
[<TestCase("0.47", "0.5", -1L, "0.50", true)>]
[<TestCase("0.47", "0.50", -1L, "0.5", true)>]
[<TestCase("0.47", "0.5", 480_000L, "0.49", false)>]
[<TestCase("0.47", "0.5", 480_000L, "0.500", false)>]
[<TestCase("", "", 480_000L, "", true)>]
let ``a hash may cover the fill before, or one that is not announced yet``
    (before: string, last: string, hint: int64, covered: string, agrees: bool)
    =
    let proof = proof before
    proof.Traded(ReadOnlySpan(utf8 last))
    equal agrees (says proof book (ten book covered) hint)

[<Test>]
let ``a fill that a hash gave away is the last one from then on`` () =
    let proof = proof "0.5"
    isTrue (says proof book (ten book "0.48") 480_000L)
    isTrue (says proof book (ten book "0.48") -1L)
    // Announced at last, and the one before is still known.
    proof.Traded(ReadOnlySpan "0.48"B)
    isTrue (says proof book (ten book "0.5") -1L)

[<Test>]
let ``padding follows the tick size of the day`` () =
    let proof = proof "0.5"
    let finer = { book with TickSize = "0.001" }
    isTrue (not (says proof finer (ten finer "0.500") -1L))
    proof.Tick(ReadOnlySpan "0.001"B)
    isTrue (says proof finer (ten finer "0.500") -1L)

[<Test>]
let ``a large book is hashed whole`` () =
    let cents from until = [
        for n in from .. sign (until - from) .. until -> Fixed.text (1_000L * int64 n), $"%d{abs n}.25"
    ]

    let large = {
        book with
            Bids = cents 1 450
            Asks = cents 999 551
            TickSize = "0.001"
    }

    let proof = proof "0.5"
    proof.Tick(ReadOnlySpan "0.001"B)
    isTrue (says proof large (ten large "0.5") -1L)
