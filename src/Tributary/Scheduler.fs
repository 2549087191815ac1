namespace Tributary

open System
open System.Threading
open System.Threading.Tasks

type private Message =
    | Heard of Signal
    | Look of AsyncReplyChannel<Schedule>

/// The mailbox around `Schedule.step`: it hears signals, carries out orders, and keeps the clock. It decides nothing.
[<Sealed>]
type internal Scheduler(schedule: Schedule, clock: TimeProvider, carryOut: Order -> unit, died: exn -> unit) =
    let stopping = new CancellationTokenSource()

    let now () =
        Instant.ofDateTimeOffset (clock.GetUtcNow())

    let agent =
        new MailboxProcessor<Message>(
            (fun inbox ->
                let alarm =
                    clock.CreateTimer(
                        (fun _ -> inbox.Post(Heard(Signal.Tick(now ())))),
                        null,
                        Timeout.InfiniteTimeSpan,
                        Timeout.InfiniteTimeSpan
                    )

                /// One timer, always set to the next moment at which something is due.
                let setAlarm schedule =
                    let wait =
                        match Schedule.wake schedule with
                        | ValueSome moment -> max (TimeSpan.FromMilliseconds 1.0) (moment - now ())
                        | ValueNone -> Timeout.InfiniteTimeSpan

                    alarm.Change(wait, Timeout.InfiniteTimeSpan) |> ignore

                let rec loop schedule = async {
                    match! inbox.Receive() with
                    | Heard signal ->
                        let next, orders = Schedule.step schedule signal
                        List.iter carryOut orders // starts work; the result comes back as a signal
                        setAlarm next
                        return! loop next
                    | Look reply ->
                        reply.Reply schedule
                        return! loop schedule
                }

                loop schedule),
            stopping.Token
        )

    do agent.Error.Add died

    member _.Start() =
        agent.Start()
        agent.Post(Heard(Signal.Tick(now ())))

    member _.Hear signal = agent.Post(Heard signal)

    member _.Look() : Task<Schedule> =
        agent.PostAndAsyncReply Look |> Async.StartAsTask

    interface IDisposable with
        member _.Dispose() = stopping.Cancel()
