module Tributary.Tests.Exchanges.PolymarketHashTests

open System.Security.Cryptography
open NUnit.Framework
open Tributary
open Tributary.Exchanges
open Tributary.Tests

// polymarket-api.md section 6: the vector of py-clob-client's tests.
let private book: HashedBook = {
    Market = "0xaabbcc"
    Token = "100"
    Timestamp = "123456789"
    Bids = [ "0.3", "100"; "0.4", "100" ]
    Asks = [ "0.6", "100"; "0.7", "100" ]
    MinimumSize = "100"
    TickSize = "0.01"
    NegRisk = false
    LastTradePrice = "0.5"
}

let private sha1 (text: string) =
    System.Convert.ToHexStringLower(SHA1.HashData(utf8 text))

[<Test>]
let ``the hash of the public vector`` () =
    equal "0458ea5755c9f73d64a14636fa5c36ed460ec394" (PolymarketHash.hash HashEra.Ten book)

[<Test>]
let ``each era hashes the members of its time`` () =
    let six =
        """{"market":"0xaabbcc","asset_id":"100","timestamp":"123456789","hash":"","bids":[{"price":"0.3","size":"100"},{"price":"0.4","size":"100"}],"asks":[{"price":"0.6","size":"100"},{"price":"0.7","size":"100"}]"""

    let nine =
        six + ",\"min_order_size\":\"100\",\"tick_size\":\"0.01\",\"neg_risk\":false"

    equal (sha1 (six + "}")) (PolymarketHash.hash HashEra.Six book)
    equal (sha1 (nine + "}")) (PolymarketHash.hash HashEra.Nine book)
    equal (sha1 (nine + ",\"last_trade_price\":\"0.5\"}")) (PolymarketHash.hash HashEra.Ten book)

/// The verdict of the decoder on a book of these members, in this order.
let private verdict (members: (string * string) list) =
    let inside =
        members
        |> List.map (fun (name, value) -> $"\"{name}\":{value}")
        |> String.concat ","

    let batch = Batch()
    let collector = Polymarket.collector Registry.defaultOptions

    let request: Request = {
        Endpoint = ""
        Host = ""
        Path = ""
        Body = ValueNone
        Walk = Walk.Books []
    }

    collector.Decode request (memory $"{{{inside}}}") (seconds 0L) batch |> ignore
    batch.Books[0].Verdict

let private quoted text = $"\"{text}\""

let private levels (side: (string * string) list) =
    side
    |> List.map (fun (price, size) -> $"{{\"price\":\"{price}\",\"size\":\"{size}\"}}")
    |> String.concat ","
    |> sprintf "[%s]"

let private members era (book: HashedBook) = [
    "market", quoted book.Market
    "asset_id", quoted book.Token
    "timestamp", quoted book.Timestamp
    "hash", quoted (PolymarketHash.hash era book)
    "bids", levels book.Bids
    "asks", levels book.Asks
    "min_order_size", quoted book.MinimumSize
    "tick_size", quoted book.TickSize
    "neg_risk", (if book.NegRisk then "true" else "false")
    "last_trade_price", quoted book.LastTradePrice
]

let private without names =
    List.filter (fun (name, _) -> not (List.contains name names))

let private replaced name value =
    List.map (fun (known, old) -> known, (if known = name then value else old))

let private at moment book = {
    book with
        HashedBook.Timestamp = moment
}

let private of2026 = at "1786728432337" { book with MinimumSize = "5" }
let private of2025 = at "1761179883493" { book with MinimumSize = "5" }

[<Test>]
let ``a book that agrees with its hash is verified, whatever the order of its members`` () =
    equal Verdict.Verified (verdict (members HashEra.Ten of2026))
    equal Verdict.Verified (verdict (List.rev (members HashEra.Ten of2026)))

[<Test>]
let ``neg-risk and an empty last price are part of the hash`` () =
    let other = {
        of2026 with
            NegRisk = true
            LastTradePrice = ""
    }

    equal Verdict.Verified (verdict (members HashEra.Ten other))
    equal Verdict.Mismatched (verdict (members HashEra.Ten other |> replaced "neg_risk" "false"))

[<Test>]
let ``trailing zeros are hashed as they were served`` () =
    let zeros = { of2026 with LastTradePrice = "0.870" }
    equal Verdict.Verified (verdict (members HashEra.Ten zeros))
    equal Verdict.Mismatched (verdict (members HashEra.Ten zeros |> replaced "last_trade_price" "\"0.87\""))

[<Test>]
let ``white space and the order within a level do not matter`` () =
    let loose =
        """[ {"size": "100", "price": "0.3"}, {"price":"0.4" ,"size":"100", "x": [1.2.3]} ]"""

    equal Verdict.Verified (verdict (members HashEra.Ten of2026 |> replaced "bids" loose))

[<Test>]
let ``a level that was changed is a mismatch`` () =
    let changed = levels [ "0.3", "100"; "0.4", "101" ]
    equal Verdict.Mismatched (verdict (members HashEra.Ten of2026 |> replaced "bids" changed))

[<Test>]
let ``a stream's first book lacks minimum size and neg-risk and is verified all the same`` () =
    let lacking = without [ "min_order_size"; "neg_risk" ]
    equal Verdict.Verified (verdict (members HashEra.Ten of2026 |> lacking))
    equal Verdict.Verified (verdict (members HashEra.Ten { of2026 with NegRisk = true } |> lacking))

[<Test>]
let ``a stream's book of 2025 lacks its tick as well`` () =
    let lacking =
        without [ "min_order_size"; "neg_risk"; "tick_size"; "last_trade_price" ]

    equal Verdict.Verified (verdict (members HashEra.Nine of2025 |> lacking))

[<Test>]
let ``a book of 2024 is hashed up to its levels`` () =
    let old = at "1732928643796" book
    equal Verdict.Verified (verdict (members HashEra.Six old))

    let lacking =
        without [ "min_order_size"; "neg_risk"; "tick_size"; "last_trade_price" ]

    equal Verdict.Verified (verdict (members HashEra.Six old |> lacking))

[<Test>]
let ``a book that lacks what its hash covers is unverifiable, not mismatched`` () =
    let changed = members HashEra.Ten { of2026 with MinimumSize = "7" }

    for lacking in [ "hash"; "min_order_size"; "tick_size" ] do
        equal Verdict.Unverifiable (verdict (changed |> without [ lacking ]))

    equal Verdict.Unverifiable (verdict (members HashEra.Ten of2026 |> without [ "last_trade_price" ]))
    equal Verdict.Unverifiable (verdict (members HashEra.Ten of2026 |> replaced "hash" "\"0xabc123\""))
    equal Verdict.Unverifiable (verdict (members HashEra.Ten of2026 |> replaced "hash" "null"))

[<Test>]
let ``a book that a recorder rewrote is unverifiable, unless it agrees all the same`` () =
    let members = members HashEra.Ten of2026
    let other = """[{"price":0.30,"size":"100"},{"price":"0.4","size":"100"}]"""
    equal Verdict.Unverifiable (verdict (members |> replaced "bids" other))
    equal Verdict.Unverifiable (verdict (members |> replaced "last_trade_price" "0.50"))
    equal Verdict.Unverifiable (verdict (members |> replaced "tick_size" "0.010"))
    equal Verdict.Unverifiable (verdict (members |> replaced "timestamp" "\"2026-08-14T17:27:12.337Z\""))
    equal Verdict.Verified (verdict (members |> replaced "timestamp" "1786728432337"))
    let same = """[{"price":0.3,"size":100},{"price":0.4,"size":100}]"""
    equal Verdict.Verified (verdict (members |> replaced "bids" same))
