/// What the frames of each exchange's live connection cost to decode, in turns: per byte against Polymarket's, and what they allocate.
module Tributary.Bench.ExchangesBench

open System
open System.Diagnostics
open System.Text
open Tributary
open Tributary.Exchanges
open Tributary.Bench.Measure

let private utf8 (text: string) = Encoding.UTF8.GetBytes text
let private received = Instant.ofMillis 1_790_000_000_000L
let private messages = 50_000

let private digits (random: Random) count =
    String(Array.init count (fun i -> if i = 0 then '7' else char (int '0' + random.Next 10)))

let private hex (random: Random) count =
    String(Array.init count (fun _ -> "0123456789abcdef"[random.Next 16]))

let private polymarket (random: Random) =
    let markets =
        Array.init 50 (fun _ -> "0x" + hex random 64, digits random 77, digits random 77)

    [|
        for i in 1..messages do
            let condition, one, other = markets[random.Next markets.Length]
            let price = random.Next(1, 99)
            let side = if random.Next 2 = 0 then "BUY" else "SELL"
            let opposite = if side = "BUY" then "SELL" else "BUY"

            let level token price side =
                $"{{\"asset_id\":\"{token}\",\"price\":\"0.%02d{price}\",\"size\":\"{random.Next 5000}.%02d{random.Next 100}\",\"side\":\"{side}\",\"hash\":\"{hex random 40}\",\"best_bid\":\"0.44\",\"best_ask\":\"0.45\"}}"

            utf8
                $"{{\"market\":\"{condition}\",\"price_changes\":[{level one price side},{level other (100 - price) opposite}],\"timestamp\":\"{1_790_000_000_000L + int64 i}\",\"event_type\":\"price_change\"}}"
    |]

let private tickers (random: Random) =
    Array.init 50 (fun i -> $"KXHIGHNY-26JUN{i}-T{random.Next(10, 99)}.99", Guid.NewGuid())

let private kalshi (random: Random) =
    let markets = tickers random

    [|
        for i in 1..messages do
            let ticker, id = markets[random.Next markets.Length]
            let side = if random.Next 2 = 0 then "yes" else "no"

            utf8
                $"{{\"type\":\"orderbook_delta\",\"sid\":1,\"seq\":{i},\"msg\":{{\"market_ticker\":\"{ticker}\",\"market_id\":\"{id}\",\"price_dollars\":\"0.%02d{random.Next(1, 99)}00\",\"delta_fp\":\"{random.Next 500}.%02d{random.Next 100}\",\"side\":\"{side}\",\"ts_ms\":{1_790_000_000_000L + int64 i}}}}}"
    |]

let private manifold (random: Random) =
    let markets = Array.init 50 (fun _ -> hex random 12)

    [|
        for i in 1..messages do
            let market = markets[random.Next markets.Length]
            let shares = 10.0 + random.NextDouble() * 100.0

            utf8
                $"{{\"type\":\"broadcast\",\"topic\":\"contract/{market}/new-bet\",\"data\":{{\"bets\":[{{\"id\":\"{hex random 12}\",\"userId\":\"{hex random 28}\",\"contractId\":\"{market}\",\"createdTime\":{1_790_000_000_000L + int64 i},\"amount\":10,\"shares\":{shares},\"outcome\":\"YES\",\"probBefore\":{random.NextDouble()},\"probAfter\":{random.NextDouble()},\"orderAmount\":10,\"isFilled\":true,\"isCancelled\":false,\"isApi\":false,\"fees\":{{\"creatorFee\":0,\"platformFee\":0,\"liquidityFee\":0}},\"fills\":[{{\"matchedBetId\":null,\"amount\":10,\"shares\":{shares},\"timestamp\":{1_790_000_000_000L + int64 i}}}]}}]}}}}"
    |]

/// So many messages begin a conversation. After them its markets are known.
let private first = 2_000

/// A second time over the same frames: what is new in them is known by then.
type private Side(name: string, part: StreamPart, frames: byte[][]) =
    let frame = Frame(Names())
    let bytes = frames |> Seq.skip first |> Seq.sumBy (fun one -> int64 one.Length)
    let count = frames.Length - first
    let times, allocations = ResizeArray<float>(), ResizeArray<float>()

    member _.Name = name
    member _.Bytes = float bytes / float count

    member _.Run() =
        let session = part.Session()
        let events = ref 0

        let decode (one: byte[]) =
            frame.Clear()
            session.Decode (ReadOnlyMemory one) received frame
            events.Value <- events.Value + frame.Events.Count

            if frame.Batch.Rejections.Count > 0 then
                failwith frame.Batch.Rejections[0].Reason

        for i in 0 .. first - 1 do
            decode frames[i]

        let before = GC.GetAllocatedBytesForCurrentThread()
        let watch = Stopwatch.GetTimestamp()

        for i in first .. frames.Length - 1 do
            decode frames[i]

        times.Add(Stopwatch.GetElapsedTime(watch).TotalNanoseconds / float bytes)
        allocations.Add(float (GC.GetAllocatedBytesForCurrentThread() - before) / float count)

        if events.Value < frames.Length then
            failwith $"{name}: {events.Value} events of {frames.Length} frames"

    member _.Forget() =
        times.Clear()
        allocations.Clear()

    member _.PerByte = median (List.ofSeq times)
    member _.Allocated = median (List.ofSeq allocations)

let run (rest: string list) =
    let rounds =
        match rest with
        | rounds :: _ -> int rounds
        | [] -> 15

    let random = Random 20261127
    let options = Registry.defaultOptions
    use key = Security.Cryptography.RSA.Create 2048

    let keyed = {
        options with
            Secrets = Map.ofList [ "key_id", "me"; "key", key.ExportPkcs8PrivateKeyPem() ]
    }

    let sides = [
        Side("polymarket", (Polymarket.collector options).Stream.Value, polymarket random)
        Side("kalshi", (Kalshi.collector keyed).Stream.Value, kalshi random)
        Side("manifold", (Manifold.collector options).Stream.Value, manifold random)
    ]

    for side in sides do
        for _ in 1..3 do
            side.Run()

        side.Forget()

    for _ in 1..rounds do
        for side in sides do
            side.Run()

    printfn "| exchange | bytes a message | ns a byte | against polymarket | B allocated a message |"
    printfn "| --- | ---: | ---: | ---: | ---: |"
    let reference = sides.Head.PerByte

    for side in sides do
        printfn
            $"| %s{side.Name} | %.0f{side.Bytes} | %.3f{side.PerByte} | %.2f{side.PerByte / reference} | %.3f{side.Allocated} |"

    // 1.5 times at most, and nothing in the steady state.
    let isGood =
        sides
        |> List.forall (fun side -> side.PerByte / reference <= 1.5 && side.Allocated < 0.05)

    printfn
        "%s"
        (if isGood then
             "within 1.5x, nothing allocated"
         else
             "MISSED")

    if isGood then 0 else 1
