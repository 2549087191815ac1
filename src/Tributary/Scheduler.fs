namespace Tributary

open System
open System.Threading

/// The mailbox around `Schedule.step`: it hears signals, carries out orders, and keeps the clock. It decides nothing.
[<Sealed>]
type internal Scheduler(schedule: Schedule, clock: TimeProvider, carryOut: Order -> unit, died: exn -> unit) =
    let stopping = new CancellationTokenSource()

    let now () =
        Instant.ofDateTimeOffset (clock.GetUtcNow())

    // Immutable, so whoever looks sees a whole one, even when the loop is dead.
    let mutable current = schedule

    let agent =
        new MailboxProcessor<Signal>(
            (fun inbox -> async {
                use alarm =
                    clock.CreateTimer(
                        (fun _ -> inbox.Post(Signal.Tick(now ()))),
                        null,
                        Timeout.InfiniteTimeSpan,
                        Timeout.InfiniteTimeSpan
                    )

                while true do
                    let! signal = inbox.Receive()
                    let next, orders = Schedule.step current signal
                    List.iter carryOut orders // starts work; the result comes back as a signal
                    Volatile.Write(&current, next)

                    // One timer, always set to the next moment at which something is due.
                    let wait =
                        match Schedule.wake next with
                        | ValueSome moment ->
                            TimeSpan.FromMilliseconds(
                                Math.Clamp((moment - now ()).TotalMilliseconds, 1.0, 86_400_000.0)
                            )
                        | ValueNone -> Timeout.InfiniteTimeSpan

                    alarm.Change(wait, Timeout.InfiniteTimeSpan) |> ignore
            }),
            stopping.Token
        )

    do agent.Error.Add died

    member _.Start() =
        agent.Start()
        agent.Post(Signal.Tick(now ()))

    member _.Hear signal = agent.Post signal

    /// The schedule as it stands.
    member _.Schedule = Volatile.Read &current

    interface IDisposable with
        member _.Dispose() = stopping.Cancel()
