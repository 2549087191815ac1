namespace Tributary.Server.Simulator

open System.Collections.Generic

/// What a connection does.
[<RequireQualifiedAccess>]
type internal Mood =
    | Open
    /// Answers that it lives, and tells nothing else.
    | Mute
    /// Answers nothing.
    | Dead
    | Closed

/// A connection of the market channel, whatever is spoken on it. There is no socket in it.
[<Interface>]
type internal IChannelSession =
    /// From 1 on, in the order in which connections came.
    abstract Number: int
    /// What the ledger says of it.
    abstract Connection: LedgerConnection
    /// Whether it does not even answer a farewell.
    abstract IsDead: bool
    /// A text frame of the client's, at the instant to which the exchange was advanced. What makes no sense is ignored, or refused.
    abstract Hear: string -> unit
    /// The frames until this instant that were not given yet, in order. With several connections any of them may be ahead of the others.
    abstract Advance: int64 -> List<Frame>
    /// The client went away.
    abstract Leave: unit -> unit

/// What goes out on a connection, and what befalls it as a whole. Used under the world's lock.
[<Sealed>]
type internal Outlet(hub: Hub, number: int, random: Dice) =
    let world = hub.World
    let frames = Queue<Frame>()
    let mutable mood = Mood.Open
    let opened = hub.Now
    let mutable ended: int64 voption = ValueNone
    let mutable sent = 0L

    // Bounds the memory: a reader that is so far behind would be put out by the real exchange, too.
    let mostFrames = 500_000

    let enqueue payload close =
        frames.Enqueue {
            At = hub.Now
            Payload = payload
            Close = close
        }

    let inject kind tokens misleads detail =
        world.Injections.Add {
            Kind = StreamFault.name kind
            Session = number
            Tokens = tokens
            At = hub.Now
            Misleads = misleads
            Detail = detail
        }

    member _.Number = number
    member _.Mood = mood
    /// Gives up what the connection holds, when it ends.
    member val GiveUp: unit -> unit = ignore with get, set
    member _.Has fault = world.Has fault

    /// Notes that a fault struck.
    member _.Inject(kind, tokens: string[], misleads, detail) = inject kind tokens misleads detail

    /// Sends a text.
    member _.Enqueue(payload: byte[]) = enqueue payload 0

    member this.Close(code: int) =
        this.GiveUp()
        mood <- Mood.Closed
        ended <- ValueSome hub.Now
        enqueue [||] code

    /// Sends a text, or ends the connection of a reader that is too slow. Says whether it goes on.
    member this.Send(payload: byte[]) =
        enqueue payload 0

        if frames.Count > mostFrames then
            inject StreamFault.Close [||] false "1008, too slow"
            this.Close 1008
            false
        else
            true

    /// What may befall it in a second.
    member this.Strike() =
        if mood = Mood.Open || mood = Mood.Mute then
            let strikes fault =
                world.Has fault && random.Chance(1.0 / 30.0)

            if mood = Mood.Open && strikes StreamFault.SilentSocket then
                mood <- Mood.Mute
                inject StreamFault.SilentSocket [||] true ""

            if strikes StreamFault.HalfOpen then
                mood <- Mood.Dead
                inject StreamFault.HalfOpen [||] true ""
            elif strikes StreamFault.Close then
                let code = random.Pick [| 1000; 1001; 1006; 1011; 1012 |]
                inject StreamFault.Close [||] false (string code)
                this.Close code

    /// Does this every second, until the connection ends.
    member this.Beat(pulse: unit -> unit) =
        hub.At(
            hub.Now + Micros.perSecond,
            fun _ ->
                pulse ()

                if mood <> Mood.Closed then
                    this.Beat pulse
        )

    /// The frames until this instant.
    member _.Advance(now: int64) : List<Frame> =
        hub.Advance now
        let due = List<Frame>(frames.Count)

        while frames.Count > 0 && frames.Peek().At <= now do
            due.Add(frames.Dequeue())

        sent <- sent + int64 due.Count
        due

    member _.Connection(tokens: string[]) : LedgerConnection = {
        Session = number
        Opened = opened
        Ended = ended
        Frames = sent
        Tokens = tokens
    }
