namespace Tributary.Server.Simulator

open System

/// One sliding window: a ring holds the instants of the last `count` requests that were let through, and the oldest must
/// have left the window before the next may pass.
[<Sealed>]
type internal Window(count: int) =
    let passed = Array.create count Int64.MinValue
    let mutable oldest = 0

    /// Microseconds until there is room; zero or less when there is room now.
    member _.Wait(now: int64) =
        if passed[oldest] = Int64.MinValue then
            0L
        else
            passed[oldest] + 10L * Micros.perSecond - now

    member _.Pass(now: int64) =
        passed[oldest] <- now
        oldest <- (oldest + 1) % count

/// The documented limits per ten seconds of real time. A request falls under several of them at once.
[<Sealed>]
type internal Limits() =
    let window (count: int) = Window count
    let everything = window 15_000
    let gamma = window 4000
    let gammaEvents = window 500
    let gammaMarkets = window 300
    let gammaLists = window 900
    let gammaTags = window 200
    let clob = window 9000
    let ok = window 100
    let tick = window 200

    let single =
        dict [ for name in [ "book"; "price"; "midpoint" ] -> name, window 1500 ]

    let books = window 500
    let prices = window 1000
    let data = window 1000
    let trades = window 200

    let scopes path = [
        everything

        match path with
        | "gamma" :: rest ->
            gamma

            match rest with
            | "events" :: rest ->
                gammaEvents

                if List.isEmpty rest || rest = [ "keyset" ] then
                    gammaLists
            | "markets" :: rest ->
                gammaMarkets

                if List.isEmpty rest || rest = [ "keyset" ] then
                    gammaLists
            | "tags" :: _ -> gammaTags
            | _ -> ()
        | "clob" :: rest ->
            clob

            match rest with
            | [ "ok" ] -> ok
            | [ "books" ] -> books
            | [ "tick-size" ] -> tick
            | [ "prices-history" ] -> prices
            | [ name ] when single.ContainsKey name -> single[name]
            | _ -> ()
        | "data" :: rest ->
            data

            match rest with
            | [ "trades" ]
            | [ "v2"; "trades" ] -> trades
            | _ -> ()
        | _ -> ()
    ]

    /// Lets a request through and counts it, or says how long to wait. Refused requests do not count.
    member this.Enter(path: string list, now: int64) : TimeSpan voption =
        lock this (fun () ->
            let windows = scopes path
            let wait = windows |> List.map _.Wait(now) |> List.max

            if wait > 0L then
                ValueSome(TimeSpan.FromMicroseconds(float wait))
            else
                for window in windows do
                    window.Pass now

                ValueNone)
