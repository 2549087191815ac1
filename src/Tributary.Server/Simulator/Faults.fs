namespace Tributary.Server.Simulator

open System

/// What is done to one request.
[<RequireQualifiedAccess>]
type internal Fault =
    | Delay of TimeSpan
    | Restarting
    | Throttled of asDate: bool
    | Broken of status: int
    | Html of status: int
    /// In transit: the connection breaks; otherwise the answer is complete, and its JSON is not.
    | Cut of inTransit: bool
    | FirstPageAgain

module internal Fault =
    let switch fault =
        match fault with
        | Fault.Delay _ -> FaultSwitch.Latency
        | Fault.Restarting -> FaultSwitch.EngineRestart425
        | Fault.Throttled _ -> FaultSwitch.Throttle429
        | Fault.Broken _ -> FaultSwitch.ServerError
        | Fault.Html _ -> FaultSwitch.Html
        | Fault.Cut _ -> FaultSwitch.CutBody
        | Fault.FirstPageAgain -> FaultSwitch.RepeatedPage

    let pageParameters = [ "after_cursor"; "cursor"; "offset"; "before"; "beforeTime" ]

    /// Whether the request goes on from an earlier page. Gamma ignores `cursor`.
    let isFollowUp (ask: Ask) =
        match ask.Path with
        | "gamma" :: _ -> ask.Query.Has "after_cursor" || ask.Query.Has "offset"
        | "data" :: _ -> ask.Query.Has "cursor" || ask.Query.Has "offset"
        | "rest" :: _ -> [ "cursor"; "before"; "beforeTime" ] |> List.exists ask.Query.Has
        | _ -> false

    /// Whether a switch can strike this request at all.
    let concerns (ask: Ask) switch =
        match switch, ask.Path with
        | FaultSwitch.EngineRestart425, "clob" :: _ -> true
        | FaultSwitch.EngineRestart425, _ -> false
        | FaultSwitch.RepeatedPage, _ -> isFollowUp ask
        // Half a bare number is a number still.
        | FaultSwitch.CutBody, [ "clob"; ("time" | "ok") ] -> false
        | FaultSwitch.Resolve, _ -> false
        | _ -> true

/// Chooses the fault of each request, one at most: from the request's own source, so that a seed repeats it.
[<Sealed>]
type internal Faults(switches: Set<FaultSwitch>, rate: float) =
    let restart = 2L * Micros.perSecond
    let mutable switches = switches
    let mutable restartingUntil = Int64.MinValue
    let turns = Array.zeroCreate<int> FaultSwitch.all.Length

    /// True at every second strike of a switch.
    let turn switch =
        let i = FaultSwitch.all |> List.findIndex (fst >> (=) switch)
        turns[i] <- turns[i] + 1
        turns[i] % 2 = 0

    let make (random: Dice) now switch =
        match switch with
        | FaultSwitch.Latency -> Fault.Delay(TimeSpan.FromMilliseconds(float (random.Between(100, 1500))))
        | FaultSwitch.EngineRestart425 ->
            restartingUntil <- now + restart
            Fault.Restarting
        | FaultSwitch.Throttle429 -> Fault.Throttled(turn switch)
        | FaultSwitch.ServerError -> Fault.Broken(if turn switch then 503 else 500)
        | FaultSwitch.Html -> Fault.Html(if turn switch then 200 else 502)
        | FaultSwitch.CutBody -> Fault.Cut(turn switch)
        | FaultSwitch.RepeatedPage
        | FaultSwitch.Resolve -> Fault.FirstPageAgain

    member _.Switches
        with get () = switches
        and set value = switches <- value

    /// The fault of a request at this real time, in microseconds.
    member this.Choose(ask: Ask, now: int64) : Fault voption =
        lock this (fun () ->
            let concerned = switches |> Set.filter (Fault.concerns ask) |> Array.ofSeq

            if
                now < restartingUntil
                && concerned |> Array.contains FaultSwitch.EngineRestart425
            then
                ValueSome Fault.Restarting
            else
                // Whoever comes first in the line wins a double strike; the line begins elsewhere each time.
                let first =
                    if concerned.Length = 0 then
                        0
                    else
                        ask.Dice.Below concerned.Length

                Array.append (Array.skip first concerned) (Array.take first concerned)
                |> Array.filter (fun _ -> ask.Dice.Chance rate)
                |> Array.tryHead
                |> Option.map (make ask.Dice now)
                |> ValueOption.ofOption)
