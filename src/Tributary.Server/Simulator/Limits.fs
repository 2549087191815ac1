namespace Tributary.Server.Simulator

open System

/// One sliding window: a ring holds the instants of the last `count` requests that were let through, and the oldest must
/// have left the window before the next may pass.
[<Sealed>]
type internal Window(count: int, ?seconds: int64) =
    let length = Micros.perSecond * defaultArg seconds 10L
    let passed = Array.create count Int64.MinValue
    let mutable oldest = 0

    /// Microseconds until there is room; zero or less when there is room now.
    member _.Wait(now: int64) =
        if passed[oldest] = Int64.MinValue then
            0L
        else
            passed[oldest] + length - now

    member _.Pass(now: int64) =
        passed[oldest] <- now
        oldest <- (oldest + 1) % count

/// A bucket of tokens: so many a second flow in, and as many it holds.
[<Sealed>]
type internal Bucket(perSecond: float) =
    let mutable held = perSecond
    let mutable filled = Int64.MinValue

    /// Microseconds until there is a token; zero or less when there is one now.
    member _.Wait(now: int64) =
        if filled <> Int64.MinValue then
            held <- min perSecond (held + perSecond * float (now - filled) / 1e6)

        filled <- now

        if held >= 1.0 then
            0L
        else
            int64 ((1.0 - held) / perSecond * 1e6) + 1L

    member _.Pass() = held <- held - 1.0

/// The documented limits of Polymarket's per ten seconds of real time: a request falls under several of them at once. Of Kalshi's a bucket
/// for a key's owner and one for everybody else, of Manifold's so many a minute.
[<Sealed>]
type internal Limits(venue: Venue) =
    let owner = Bucket 20.0
    let anybody = Bucket 5.0
    let minute = Window(500, 60L)
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

    let through wait pass =
        if wait > 0L then
            ValueSome(TimeSpan.FromMicroseconds(float wait))
        else
            pass ()
            ValueNone

    /// Lets a request through and counts it, or says how long to wait. Refused requests do not count.
    member this.Enter(path: string list, isOwner: bool, now: int64) : TimeSpan voption =
        lock this (fun () ->
            match venue with
            | Venue.Kalshi ->
                let bucket = if isOwner then owner else anybody
                through (bucket.Wait now) bucket.Pass
            | Venue.Manifold -> through (minute.Wait now) (fun () -> minute.Pass now)
            | Venue.Polymarket ->
                let windows = scopes path

                through (windows |> List.map _.Wait(now) |> List.max) (fun () ->
                    for window in windows do
                        window.Pass now))
