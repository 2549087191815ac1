module Tributary.Tests.IntakeTests

open System
open System.Collections.Generic
open System.Threading
open System.Threading.Tasks
open Microsoft.Extensions.Logging.Abstractions
open NUnit.Framework
open Tributary
open Tributary.Stores

/// A batch of so many rows that can be told from others.
let private mk (name: string) rows =
    let batch = Batch(Names())
    batch.Exchange <- name

    for i in 1..rows do
        batch.Metrics.Add {
            Name = name
            Labels = ""
            At = seconds (int64 i)
            Value = 0.0
        }

    batch

/// An intake over a store that does what it is told, and what became of it all.
type private Bench
    (
        capacity: int,
        groupRows: int,
        groupTime: TimeSpan,
        write: string list -> CancellationToken -> Task<Result<unit, StoreFault>>
    ) =
    let clock = Clock()
    let said = List<string>()
    let stored = List<string list>()

    let say text = lock said (fun () -> said.Add text)

    let store = {
        Memory.create "main" with
            Write =
                fun batches ct -> task {
                    let names = [ for batch in batches -> batch.Exchange ]
                    let! result = write names ct

                    if result.IsOk then
                        lock stored (fun () -> stored.Add names)

                    return result
                }
    }

    let intake =
        Intake(
            store,
            capacity,
            groupTime,
            groupRows,
            clock,
            new Meters(),
            NullLogger.Instance,
            {
                StoreFailed = fun _ -> say "failed"
                StoreRecovered = fun () -> say "recovered"
                Committed =
                    fun batches ->
                        for batch in batches do
                            say batch.Exchange
            }
        )

    member _.Clock = clock
    member _.Intake = intake
    member _.Said = lock said (fun () -> List.ofSeq said)
    /// The groups that the store took.
    member _.Stored = lock stored (fun () -> List.ofSeq stored)

    member _.Offer name =
        intake.Offer(mk name 1, CancellationToken.None)

let private sound (_: string list) (_: CancellationToken) : Task<Result<unit, StoreFault>> =
    Task.FromResult(Ok())

/// Fails so many times, in a way of its own each time.
let private failing times =
    let mutable left = times

    fun (_: string list) (_: CancellationToken) -> task {
        if left > 0 then
            left <- left - 1

            if left % 2 = 0 then
                invalidOp "a bug of the store"

            return Error(StoreFault.Full "disk")
        else
            return Ok()
    }

let private patience = TimeSpan.FromSeconds 5.0

/// Moves the clock until something is so.
let private until (bench: Bench) (condition: unit -> bool) = task {
    let limit = DateTime.UtcNow + patience

    while not (condition ()) do
        if DateTime.UtcNow > limit then
            failwith "it did not come to pass"

        bench.Clock.Advance(TimeSpan.FromMilliseconds 50.0)
        do! Task.Delay 1
}

let private done' (bench: Bench) (work: Task) = task {
    do! until bench (fun () -> work.IsCompleted)
    do! work
}

[<Test>]
let ``what is offered is stored in its order`` () : Task = task {
    let bench = Bench(100, 3, TimeSpan.Zero, sound)
    let names = [ for i in 1..20 -> string i ]
    let promises = List<Task>()

    for name in names do
        let! promise = bench.Offer name
        promises.Add promise

    bench.Intake.Start()
    do! done' bench (Task.WhenAll promises)
    equal names (List.concat bench.Stored)
    equal names bench.Said
    isTrue (bench.Stored |> List.forall (fun group -> group.Length <= 3))
}

[<Test>]
let ``a group waits for others as long as it may`` () : Task = task {
    let bench = Bench(100, 1000, TimeSpan.FromSeconds 1.0, sound)
    bench.Intake.Start()
    let! first = bench.Offer "a"
    let! second = bench.Offer "b"
    do! until bench (fun () -> bench.Clock.Waiting > 0 || bench.Stored.Length > 0)
    do! done' bench (Task.WhenAll(first, second))
    equal [ [ "a"; "b" ] ] bench.Stored
}

[<Test>]
let ``what waited while the group before was written waits no longer for others`` () : Task = task {
    let isHeld, gate = TaskCompletionSource(), TaskCompletionSource()

    let held (_: string list) (_: CancellationToken) = task {
        isHeld.TrySetResult() |> ignore
        do! gate.Task
        return Ok()
    }

    let bench = Bench(100, 1000, TimeSpan.FromSeconds 1.0, held)
    bench.Intake.Start()
    let! first = bench.Offer "a"
    do! until bench (fun () -> isHeld.Task.IsCompleted)
    let! second = bench.Offer "b"
    bench.Clock.Advance(TimeSpan.FromSeconds 1.0)
    gate.SetResult()
    // The clock stands still from here on.
    do! Task.WhenAll(first, second).WaitAsync patience
    equal [ [ "a" ]; [ "b" ] ] bench.Stored
}

[<Test>]
let ``a large group waits for nobody`` () : Task = task {
    let bench = Bench(100, 2, TimeSpan.FromHours 1.0, sound)
    let! first = bench.Offer "a"
    let! second = bench.Offer "b"
    bench.Intake.Start()
    do! Task.WhenAll(first, second).WaitAsync patience
    equal [ [ "a"; "b" ] ] bench.Stored
}

[<Test>]
let ``offering waits while the lane is full`` () : Task = task {
    let isHeld, gate = TaskCompletionSource(), TaskCompletionSource()

    let held (_: string list) (_: CancellationToken) = task {
        isHeld.TrySetResult() |> ignore
        do! gate.Task
        return Ok()
    }

    let bench = Bench(2, 1, TimeSpan.Zero, held)
    bench.Intake.Start()
    let! first = bench.Offer "1"
    do! isHeld.Task.WaitAsync patience
    let offers = [ for i in 2..5 -> bench.Offer(string i) ]
    equal [ true; true; false; false ] (offers |> List.map _.IsCompleted)
    gate.SetResult()
    let! promises = Task.WhenAll offers
    do! done' bench (Task.WhenAll promises)
    isTrue first.IsCompletedSuccessfully
    equal [ "1"; "2"; "3"; "4"; "5" ] (List.concat bench.Stored)
}

[<Test>]
let ``a store that fails gets the same group until it takes it, and each change is told once`` () : Task =
    task {
        let bench = Bench(100, 10, TimeSpan.Zero, failing 5)
        let! first = bench.Offer "a"
        let! second = bench.Offer "b"
        bench.Intake.Start()
        do! until bench (fun () -> bench.Said = [ "failed" ])
        isTrue (not first.IsCompleted)
        do! done' bench (Task.WhenAll(first, second))
        equal [ "failed"; "recovered"; "a"; "b" ] bench.Said
        equal [ "a"; "b" ] (List.concat bench.Stored)
    }

[<Test>]
let ``a drain writes everything that was offered`` () : Task = task {
    let bench = Bench(100, 10, TimeSpan.FromHours 1.0, sound)
    bench.Intake.Start()
    let! promise = bench.Offer "a"
    let! left = bench.Intake.Drain patience
    equal ValueNone left
    isTrue promise.IsCompletedSuccessfully
    equal [ [ "a" ] ] bench.Stored
}

[<Test>]
let ``a drain into a dead store gives up in time, says why, and promises nothing`` () : Task = task {
    let bench = Bench(100, 10, TimeSpan.Zero, failing Int32.MaxValue)
    bench.Intake.Start()
    let! promise = bench.Offer "a"
    do! until bench (fun () -> bench.Said <> [])
    let! late = bench.Offer "b"
    let drain = bench.Intake.Drain(TimeSpan.FromSeconds 3.0)
    do! until bench (fun () -> drain.IsCompleted)
    isTrue (ValueOption.isSome drain.Result)
    isTrue promise.IsCanceled
    isTrue late.IsCanceled
    equal [] bench.Stored
}

[<Test>]
let ``what is offered after the end is not promised`` () : Task = task {
    let bench = Bench(100, 10, TimeSpan.Zero, sound)
    bench.Intake.Start()
    let! _ = bench.Intake.Drain patience
    let! promise = bench.Offer "a"
    isTrue promise.IsCanceled
}
