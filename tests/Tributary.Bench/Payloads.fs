/// Pages as the exchange serves them, in its documented order of members and compact as it sends them; the same from every run.
module Tributary.Bench.Payloads

open System
open System.Text
open Tributary.Exchanges

let private random = Random 20260724

let private hex bytes =
    Convert.ToHexStringLower(Array.init bytes (fun _ -> byte (random.Next 256)))

let private digits count =
    String.init count (fun i -> string (random.Next((if i = 0 then 1 else 0), 10)))

let private oneOf (items: 'T[]) = items[random.Next items.Length]

/// A market's id and the ids of its two tokens.
let markets = Array.init 50 (fun _ -> struct ("0x" + hex 32, digits 77, digits 77))

let private words = [|
    "rain"
    "vote"
    "launch"
    "bitcoin"
    "above"
    "before"
    "july"
    "final"
    "price"
    "will"
|]

let private wallets = Array.init 300 (fun _ -> "0x" + hex 20)

let private trade second =
    let struct (market, yes, no) = markets[random.Next 20]
    let outcome = random.Next 2
    let slug = String.Join('-', Array.init 6 (fun _ -> oneOf words))
    let image = $"https://polymarket-upload.s3.us-east-2.amazonaws.com/{slug}.png"
    let side = if random.Next 2 = 0 then "BUY" else "SELL"
    let token = if outcome = 0 then yes else no
    let name = if outcome = 0 then "Yes" else "No"
    let title = slug.Replace('-', ' ')
    let size = $"{random.Next(1, 3000)}.{random.Next(1, 999999):D6}".TrimEnd '0'
    let price = $"0.{random.Next(1, 999):D3}".TrimEnd '0'

    $"""{{"proxy_wallet":"{oneOf wallets}","side":"{side}","token_id":"{token}","condition_id":"{market}","size":{size},"price":{price},"timestamp":{second},"title":"Will the {title}?","slug":"{slug}","icon":"{image}","event_slug":"{slug}","outcome":"{name}","outcome_index":{outcome},"name":"trader{random.Next 9999}","pseudonym":"Quiet-Heron","bio":"","profile_image":"","profile_image_optimized":"","transaction_hash":"0x{hex 32}"}}"""

/// A page of a walk through the past, newest first, three fills a second; and the second of its last row.
let historyPage newest rows cursor =
    let list = [ for i in 0 .. rows - 1 -> trade (newest - i / 3) ] |> String.concat ","

    let page =
        Encoding.UTF8.GetBytes
            $"""{{"data":[{list}],"pagination":{{"limit":{rows},"offset":null,"has_more":true,"next_cursor":"{cursor}"}}}}"""

    struct (page, newest - (rows - 1) / 3)

/// A page of `/v2/trades`, newest first.
let tradesPage rows =
    let rows =
        [ for i in 0 .. rows - 1 -> trade (1_784_937_600 - i / 3) ] |> String.concat ","

    Encoding.UTF8.GetBytes
        $"""{{"data":[{rows}],"pagination":{{"limit":500,"offset":null,"has_more":false,"next_cursor":null}}}}"""

let private book token market levels =
    let middle = random.Next(100, 900)
    let price tick = $"0.{tick:D3}".TrimEnd '0'

    let size () =
        match random.Next 3 with
        | 0 -> string (random.Next(1, 5000))
        | 1 -> $"{random.Next(1, 5000)}.{random.Next(1, 9)}"
        | _ -> $"{random.Next(1, 5000)}.{random.Next(1, 99):D2}".TrimEnd '0'

    // Worst first, best last, on both sides.
    let bids = [ for i in min levels (middle - 1) .. -1 .. 1 -> price (middle - i), size () ]
    let asks = [ for i in min levels (999 - middle) .. -1 .. 1 -> price (middle + i), size () ]

    let body: HashedBook = {
        Market = market
        Token = token
        Timestamp = string (1_784_937_600_000L + int64 (random.Next 100_000))
        Bids = bids
        Asks = asks
        MinimumSize = "5"
        TickSize = "0.001"
        NegRisk = false
        LastTradePrice = price middle
    }

    let side levels =
        levels
        |> List.map (fun (price, size) -> $"""{{"price":"{price}","size":"{size}"}}""")
        |> String.concat ","

    $"""{{"market":"{market}","asset_id":"{token}","timestamp":"{body.Timestamp}","hash":"{PolymarketHash.hash HashEra.Ten body}","bids":[{side bids}],"asks":[{side asks}],"min_order_size":"5","tick_size":"0.001","neg_risk":false,"last_trade_price":"{body.LastTradePrice}"}}"""

/// The answer of `POST /books` for both tokens of every market, with so many levels a side and true hashes.
let booksPage levels =
    let books = [
        for struct (market, yes, no) in markets do
            book yes market levels
            book no market levels
    ]

    Encoding.UTF8.GetBytes $"""[{String.concat "," books}]"""
