namespace Tributary.Tests

open System
open System.Threading

/// A clock that stands until it is moved; its timers ring in their order while it moves.
[<Sealed>]
type Clock() =
    inherit TimeProvider()
    let gate = obj ()
    let mutable now = DateTimeOffset(2026, 11, 20, 12, 0, 0, TimeSpan.Zero)
    let alarms = ResizeArray<Alarm>()

    member internal _.Gate = gate
    member internal _.Alarms = alarms
    override _.GetUtcNow() = lock gate (fun () -> now)
    override this.GetTimestamp() = this.GetUtcNow().UtcTicks
    override _.TimestampFrequency = TimeSpan.TicksPerSecond

    override this.CreateTimer(callback, state, dueTime, period) =
        let alarm = new Alarm(this, callback, state)
        alarm.Set(dueTime, period)
        alarm

    /// How many timers are set.
    member _.Waiting = lock gate (fun () -> alarms.Count)

    member this.Advance(by: TimeSpan) =
        let until = this.GetUtcNow() + by
        let mutable ringing = true

        while ringing do
            let next =
                lock gate (fun () ->
                    match alarms |> Seq.filter (fun alarm -> alarm.Due <= until) |> List.ofSeq with
                    | [] ->
                        now <- until
                        None
                    | due ->
                        let first = due |> List.minBy _.Due
                        now <- max now first.Due
                        first.Rings()
                        Some first)

            match next with
            | Some alarm -> alarm.Call()
            | None -> ringing <- false

and [<Sealed>] Alarm(clock: Clock, callback: TimerCallback, state: obj | null) =
    let mutable period = Timeout.InfiniteTimeSpan
    member val Due = DateTimeOffset.MaxValue with get, set

    member this.Set(dueTime: TimeSpan, every: TimeSpan) =
        lock clock.Gate (fun () ->
            clock.Alarms.Remove this |> ignore
            period <- every

            if dueTime <> Timeout.InfiniteTimeSpan then
                this.Due <- clock.GetUtcNow() + dueTime
                clock.Alarms.Add this)

    /// It is about to be called: it is set anew, or no more.
    member this.Rings() =
        if period > TimeSpan.Zero then
            this.Due <- this.Due + period
        else
            clock.Alarms.Remove this |> ignore

    member _.Call() = callback.Invoke state

    interface ITimer with
        member this.Change(dueTime, period) =
            this.Set(dueTime, period)
            true

        member this.Dispose() =
            lock clock.Gate (fun () -> clock.Alarms.Remove this |> ignore)

        member this.DisposeAsync() =
            (this :> IDisposable).Dispose()
            Tasks.ValueTask.CompletedTask
