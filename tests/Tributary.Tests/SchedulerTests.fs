module Tributary.Tests.SchedulerTests

open System
open System.Collections.Concurrent
open System.Threading.Tasks
open NUnit.Framework
open Tributary

let private exchange = good (ExchangeId.Parse "polymarket")

let private calm: Cadences = {
    Books = TimeSpan.FromSeconds 10.0
    Trades = TimeSpan.FromSeconds 5.0
    Markets = TimeSpan.FromMinutes 5.0
    BooksPerJob = 2
    TradesPerJob = 3
    Jitter = 0.0
    Seed = 7UL
}

/// A scheduler of one refresh, on a clock that is moved by hand.
let private mk carryOut died =
    let clock = Clock()

    let start =
        Schedule.start calm (Instant.ofDateTimeOffset (clock.GetUtcNow())) [ exchange ]

    clock, new Scheduler(start, clock, carryOut, died)

let private until (condition: unit -> bool) = task {
    let limit = DateTime.UtcNow.AddSeconds 5.0

    while not (condition ()) do
        if DateTime.UtcNow > limit then
            failwith "it did not come to pass"

        do! Task.Delay 1
}

[<Test>]
let ``orders are carried out when the clock comes to them`` () : Task = task {
    let orders = ConcurrentQueue<Order>()
    let clock, scheduler = mk orders.Enqueue ignore
    use _ = scheduler
    scheduler.Start()
    do! until (fun () -> orders.Count = 1 && clock.Waiting = 1)
    clock.Advance(TimeSpan.FromSeconds 299.0)
    equal 1 orders.Count
    clock.Advance(TimeSpan.FromSeconds 1.0)
    do! until (fun () -> orders.Count = 2)

    match List.ofSeq orders with
    | [ Order.Run _; Order.Missed(_, _, 1, Cause.Late, _) ] -> ()
    | others -> failwith $"%A{others}"
}

[<Test>]
let ``the schedule can be looked at, also after the end`` () : Task = task {
    let clock, scheduler = mk ignore ignore
    scheduler.Start()
    scheduler.Hear(Signal.Pause Cause.Paused)
    do! until (fun () -> Schedule.paused scheduler.Schedule = [ Cause.Paused ])
    (scheduler :> IDisposable).Dispose()
    do! until (fun () -> clock.Waiting = 0)
    equal [ Cause.Paused ] (Schedule.paused scheduler.Schedule)
}

[<Test>]
let ``a dead loop is heard of`` () : Task = task {
    let died = TaskCompletionSource<exn>()
    let _, scheduler = mk (fun _ -> invalidOp "a bug") died.SetResult
    use _ = scheduler
    scheduler.Start()
    let! error = died.Task.WaitAsync(TimeSpan.FromSeconds 5.0)
    equal "a bug" error.Message
}
