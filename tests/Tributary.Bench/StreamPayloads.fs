/// Frames of a market channel as a busy exchange sends them, with true best prices and true hashes of whole books: about 680 bytes a
/// message: of a hundred 94 are changes of both tokens of a market, 4 are fills, and 2 are the whole books of about 2x50 levels that
/// follow one in four of the fills.
module Tributary.Bench.StreamPayloads

open System
open System.Collections.Generic
open System.Security.Cryptography
open System.Text

/// A market of this exchange: 50 levels a side around a fair price, on a tick of 0.001.
[<Sealed>]
type private Quoted(random: Random) =
    let hex count =
        Convert.ToHexStringLower(Array.init count (fun _ -> byte (random.Next 256)))

    let digits () =
        String.init 77 (fun i -> string (if i = 0 then random.Next(1, 10) else random.Next 10))

    // In ticks: size in millionths at each.
    let bids = SortedDictionary<int, int64>()
    let asks = SortedDictionary<int, int64>()
    let fair = random.Next(200, 800)

    do
        for i in 1..50 do
            bids[fair - i] <- int64 (random.Next(1, 100_000)) * 10_000L
            asks[fair + i] <- int64 (random.Next(1, 100_000)) * 10_000L

    member val Market = "0x" + hex 32
    member val Tokens = [| digits (); digits () |]
    member val LastTrade = [| "0.5"; "0.5" |]
    member _.Bids = bids
    member _.Asks = asks
    member _.Fair = fair

let private number (millionths: int64) =
    (decimal millionths / 1_000_000m).ToString "0.######"

let private price (tick: int) = number (int64 tick * 1_000L)

let private side (levels: (int * int64) seq) =
    levels
    |> Seq.map (fun (tick, size) -> $"{{\"price\":\"{price tick}\",\"size\":\"{number size}\"}}")
    |> String.concat ","

/// Both sides as the token sees them, worst first.
let private sides (market: Quoted) token =
    let pairs (levels: SortedDictionary<int, int64>) = [ for KeyValue(tick, size) in levels -> tick, size ]

    if token = 0 then
        side (pairs market.Bids), side (List.rev (pairs market.Asks))
    else
        side (List.rev (pairs market.Asks) |> List.map (fun (tick, size) -> 1000 - tick, size)),
        side (pairs market.Bids |> List.map (fun (tick, size) -> 1000 - tick, size))

let private hash (market: Quoted) token (at: int64) =
    let bids, asks = sides market token

    let text =
        $"{{\"market\":\"{market.Market}\",\"asset_id\":\"{market.Tokens[token]}\",\"timestamp\":\"{at}\",\"hash\":\"\",\"bids\":[{bids}],\"asks\":[{asks}],\"min_order_size\":\"5\",\"tick_size\":\"0.001\",\"neg_risk\":false,\"last_trade_price\":\"{market.LastTrade[token]}\"}}"

    Convert.ToHexStringLower(SHA1.HashData(Encoding.UTF8.GetBytes text))

let private book (market: Quoted) token (at: int64) isFirst =
    let bids, asks = sides market token

    let extra =
        if isFirst then
            $",\"tick_size\":\"0.001\",\"last_trade_price\":\"{market.LastTrade[token]}\""
        else
            ""

    $"{{\"market\":\"{market.Market}\",\"asset_id\":\"{market.Tokens[token]}\",\"timestamp\":\"{at}\",\"hash\":\"{hash market token at}\",\"bids\":[{bids}],\"asks\":[{asks}]{extra},\"event_type\":\"book\"}}"

let private best (market: Quoted) token =
    let bid = Seq.last market.Bids.Keys
    let ask = Seq.head market.Asks.Keys

    if token = 0 then
        price bid, price ask
    else
        price (1000 - ask), price (1000 - bid)

/// The tokens of an exchange, market by market.
type Session = {
    /// Condition id and both tokens.
    Markets: (string * string[])[]
    /// The first books, a frame a market.
    Dump: byte[][]
    Frames: byte[][]
}

/// So many frames over so many markets, the same ones for the same seed. `permuted` sends the members of changes in another order.
let make seed markets frames permuted : Session =
    let random = Random(seed: int)
    let all = Array.init markets (fun _ -> Quoted random)
    let mutable now = 1_790_000_000_000L

    let dump = [|
        for market in all -> Encoding.UTF8.GetBytes $"[{book market 0 now true},{book market 1 now true}]"
    |]

    let change (market: Quoted) =
        now <- now + int64 (random.Next 2)
        let isBid = random.Next 2 = 0
        let levels = if isBid then market.Bids else market.Asks

        let tick =
            if isBid then
                market.Fair - 1 - random.Next 60
            else
                market.Fair + 1 + random.Next 60

        let size =
            if levels.ContainsKey tick && levels.Count > 40 && random.Next 2 = 0 then
                0L
            else
                int64 (random.Next(1, 100_000)) * 10_000L

        if size = 0L then
            levels.Remove tick |> ignore
        else
            levels[tick] <- size

        let entry token =
            let seen = if token = 0 then tick else 1000 - tick
            let word = if isBid = (token = 0) then "BUY" else "SELL"
            let bid, ask = best market token

            if permuted then
                $"{{\"price\":\"{price seen}\",\"asset_id\":\"{market.Tokens[token]}\",\"side\":\"{word}\",\"size\":\"{number size}\",\"best_ask\":\"{ask}\",\"best_bid\":\"{bid}\",\"hash\":\"{hash market token now}\"}}"
            else
                $"{{\"asset_id\":\"{market.Tokens[token]}\",\"price\":\"{price seen}\",\"size\":\"{number size}\",\"side\":\"{word}\",\"hash\":\"{hash market token now}\",\"best_bid\":\"{bid}\",\"best_ask\":\"{ask}\"}}"

        if permuted then
            $"{{\"event_type\":\"price_change\",\"price_changes\":[{entry 0},{entry 1}],\"timestamp\":\"{now}\",\"market\":\"{market.Market}\"}}"
        else
            $"{{\"market\":\"{market.Market}\",\"price_changes\":[{entry 0},{entry 1}],\"timestamp\":\"{now}\",\"event_type\":\"price_change\"}}"

    let trade (market: Quoted) token (tick: int) (size: int64) =
        market.LastTrade[token] <- price tick

        let transaction =
            Convert.ToHexStringLower(Array.init 32 (fun _ -> byte (random.Next 256)))

        $"{{\"market\":\"{market.Market}\",\"asset_id\":\"{market.Tokens[token]}\",\"price\":\"{price tick}\",\"size\":\"{number size}\",\"fee_rate_bps\":\"0\",\"side\":\"SELL\",\"timestamp\":\"{now}\",\"event_type\":\"last_trade_price\",\"transaction_hash\":\"0x{transaction}\"}}"

    /// A taker sells into the best bid of the first token, all of it or a part: the fill, and what is left of both books.
    let sweep (market: Quoted) = [
        now <- now + 1L
        let tick = Seq.last market.Bids.Keys
        let there = market.Bids[tick]

        let taken =
            if there < 20_000L || market.Bids.Count > 40 && random.Next 2 = 0 then
                there
            else
                there / 20_000L * 10_000L

        if taken = there then
            market.Bids.Remove tick |> ignore
        else
            market.Bids[tick] <- there - taken

        trade market 0 tick taken
        book market 0 now false
        book market 1 now false
    ]

    // A fill that some changes tell of, not a whole book.
    let fill (market: Quoted) =
        let token = random.Next 2

        let bid =
            if token = 0 then
                Seq.last market.Bids.Keys
            else
                1000 - Seq.head market.Asks.Keys

        [ trade market token bid (int64 (random.Next(1, 1000)) * 10_000L) ]

    {
        Markets = all |> Array.map (fun market -> market.Market, market.Tokens)
        Dump = dump
        Frames =
            Seq.initInfinite (fun _ ->
                let market = all[random.Next all.Length]

                match random.Next 100 with
                | 0 -> sweep market
                | n when n < 4 -> fill market
                | _ -> [ change market ])
            |> Seq.concat
            |> Seq.take frames
            |> Seq.map (fun text -> Encoding.UTF8.GetBytes(text: string))
            |> Array.ofSeq
    }
