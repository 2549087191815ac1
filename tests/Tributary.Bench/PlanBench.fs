/// The whole exchange planned over connections: how long that takes, and what a token costs as long as it says nothing.
module Tributary.Bench.PlanBench

open System
open System.Diagnostics
open Tributary

/// The longest that the plan may take, and the most bytes that may stay for a token.
let private mostSeconds, mostBytes = 1.0, 2_048.0

let private ok result =
    match result with
    | Ok value -> value
    | Error(message: string) -> failwith message

/// Markets of two tokens, with names as long as the exchange's.
let private markets count : Market[] =
    let random = Random 1

    let digits () =
        String.init 77 (fun i -> string (if i = 0 then random.Next(1, 10) else random.Next 10))

    Array.init count (fun i ->
        let condition =
            "0x" + Convert.ToHexStringLower(Array.init 32 (fun _ -> byte (random.Next 256)))

        {
            StreamBench.describe (condition, [| digits (); digits () |]) with
                Slug = $"market-{i}"
        })

let private kept () = GC.GetTotalMemory true

let run (arguments: string list) =
    let count =
        match arguments with
        | "--markets" :: count :: _ -> int count
        | _ -> 46_000

    let all = markets count

    let tokens =
        all |> Array.map (fun market -> List.ofArray market.Tokens) |> List.ofArray

    let plan () =
        let started = Stopwatch.GetTimestamp()
        let placed = Shards.add tokens (Shards.empty 200)
        (Stopwatch.GetElapsedTime started).TotalSeconds, placed

    // Once unmeasured: the code is compiled.
    plan () |> ignore
    let before = kept ()
    let seconds, (shards, placed) = plan ()
    let placed = List.length placed
    let ofPlan = kept () - before
    let names = Names()

    let depth =
        Depth(StreamBench.collector.Exchange, StreamBench.part, DepthRules.usual, names)

    let started = Stopwatch.GetTimestamp()

    for market in all do
        depth.Follow(market, DepthMode.Full)

    for connection in Shards.connections shards do
        depth.Subscribed(connection, Shards.tokens connection shards, StreamBench.received)

    let following = (Stopwatch.GetElapsedTime started).TotalSeconds
    let perToken = float (kept () - before) / float (2 * count)

    printfn
        "%d markets, %d tokens on %d connections: planned in %.3f s (must be under %.0f s), followed and subscribed in %.3f s"
        count
        depth.Tokens
        placed
        seconds
        mostSeconds
        following

    printfn
        "kept for a token that has said nothing: %.0f B, %.0f B of them by the plan (must be under %.0f B; its market's description apart)"
        perToken
        (float ofPlan / float (2 * count))
        mostBytes

    GC.KeepAlive shards
    GC.KeepAlive depth
    GC.KeepAlive all

    if seconds < mostSeconds && perToken < mostBytes then
        0
    else
        1
