namespace Tributary

open System
open System.Collections.Generic
open System.Threading
open System.Threading.Channels
open System.Threading.Tasks
open Microsoft.Extensions.Logging
open Tributary.Stores

/// What the intake tells the rest of the engine.
type internal IntakeEvents = {
    /// The store does not take data (once, when it begins).
    StoreFailed: StoreFault -> unit
    /// It does again.
    StoreRecovered: unit -> unit
    /// Batches are durable, in their order.
    Committed: IReadOnlyList<Batch> -> unit
}

/// A batch in the lane, and who waits for it.
[<Struct; NoComparison; NoEquality>]
type private Offered = {
    Batch: Batch
    Promise: TaskCompletionSource
    /// By the clock's ticks.
    Since: int64
}

/// The bounded lane between sockets and the store. Offering waits when it is full, so a slow store slows the polls; what was offered
/// is written in order, in groups, and acknowledged only when it is durable. A store that fails is tried again with the same
/// group until it takes it: nothing that was offered is dropped.
[<Sealed>]
type internal Intake
    (
        store: Store,
        capacity: int,
        groupTime: TimeSpan,
        groupRows: int,
        clock: TimeProvider,
        meters: Meters,
        log: ILogger,
        events: IntakeEvents
    ) =
    let lane =
        Channel.CreateBounded<Offered>(
            BoundedChannelOptions(capacity, SingleReader = true, FullMode = BoundedChannelFullMode.Wait)
        )

    let abandon = new CancellationTokenSource()
    let mutable lastFault: StoreFault voption = ValueNone

    let explain fault =
        match fault with
        | StoreFault.Full detail -> $"no space is left ({detail})"
        | StoreFault.Locked detail -> $"another program holds it ({detail})"
        | StoreFault.Failed detail -> detail

    /// Whatever a store throws is its failure too: a lane that stops silently would stop everything.
    let tryWrite (group: IReadOnlyList<Batch>) = task {
        use span = Trace.start "commit" Diagnostics.ActivityKind.Internal
        span |> Trace.tag "batches" (fun () -> group.Count)

        span
        |> Trace.tag "rows" (fun () -> box (group |> Seq.sumBy (fun (batch: Batch) -> batch.RowCount)))

        let began = clock.GetTimestamp()

        let! written = task {
            try
                return! store.Write group abandon.Token
            with error ->
                return Error(StoreFault.Failed error.Message)
        }

        if written.IsOk then
            meters.Add(Took.commit, "", clock.GetElapsedTime began)
        else
            meters.Add(Count.storeFailures, "")

        span |> Trace.tag "outcome" (fun () -> if written.IsOk then "ok" else "failed")
        return written
    }

    /// Writes a group until the store takes it; false when told to give up.
    let write (group: IReadOnlyList<Batch>) = task {
        let began = clock.GetTimestamp()
        let mutable written, attempt = false, 0

        while not written && not abandon.IsCancellationRequested do
            match! tryWrite group with
            | Ok() ->
                written <- true

                if lastFault.IsSome then
                    lastFault <- ValueNone
                    Log.storeRecovered log store.Name (clock.GetElapsedTime began)
                    events.StoreRecovered()
            | Error _ when abandon.IsCancellationRequested -> ()
            | Error fault ->
                attempt <- attempt + 1

                if lastFault.IsNone then
                    events.StoreFailed fault // before it is said, so that whoever reads it finds the polls stopped
                    Log.storeFailed log store.Name (explain fault)

                lastFault <- ValueSome fault

                try
                    do! Task.Delay(Fault.backOff (min attempt 4), clock, abandon.Token)
                with :? OperationCanceledException ->
                    ()

        return written
    }

    let run () = task {
        let group = List<Batch>()
        let waiting = List<TaskCompletionSource>()
        let mutable item = Unchecked.defaultof<Offered>

        try
            let mutable isOpen = true

            while isOpen do
                let! more = lane.Reader.WaitToReadAsync abandon.Token
                isOpen <- more
                let mutable oldest = clock.GetTimestamp()
                let mutable rows = 0
                // A group ends when it is large, when it is old, or when the lane closes.
                let mutable gathering = more

                while gathering do
                    if lane.Reader.TryRead &item then
                        // It may have waited while the group before was written.
                        if group.Count = 0 then
                            oldest <- item.Since

                        group.Add item.Batch
                        waiting.Add item.Promise
                        rows <- rows + item.Batch.RowCount
                        gathering <- rows < groupRows
                    else
                        let left = groupTime - clock.GetElapsedTime oldest

                        if left <= TimeSpan.Zero then
                            gathering <- false
                        else
                            use soon = new CancellationTokenSource(left, clock)

                            try
                                let! more = lane.Reader.WaitToReadAsync soon.Token
                                gathering <- more
                            with :? OperationCanceledException ->
                                gathering <- false

                if group.Count > 0 then
                    let! written = write group

                    if written then
                        // It is stored whatever becomes of telling so.
                        try
                            events.Committed group
                        with error ->
                            Log.jobCrashed log "intake" error

                        for promise in waiting do
                            promise.SetResult()
                    else
                        for promise in waiting do
                            promise.SetCanceled abandon.Token

                    group.Clear()
                    waiting.Clear()
        with :? OperationCanceledException ->
            ()

        // Whatever is left was not stored, and is not said to be.
        for promise in waiting do
            promise.TrySetCanceled() |> ignore

        while lane.Reader.TryRead &item do
            item.Promise.TrySetCanceled() |> ignore
    }

    let running = lazy (Task.Run<unit>(fun () -> run ()))
    /// Batches that wait to be written.
    member _.Waiting = lane.Reader.Count
    member _.Start() = running.Force() |> ignore

    /// Puts a batch into the lane, waiting for room. The inner task ends when the batch is durable; it is cancelled when the store
    /// was given up, or the lane is closed. The batch belongs to the lane until then.
    member _.Offer(batch: Batch, ct: CancellationToken) : Task<Task> = task {
        let promise =
            TaskCompletionSource TaskCreationOptions.RunContinuationsAsynchronously

        try
            do!
                lane.Writer.WriteAsync(
                    {
                        Batch = batch
                        Promise = promise
                        Since = clock.GetTimestamp()
                    },
                    ct
                )
        with :? ChannelClosedException ->
            promise.SetCanceled()

        return promise.Task
    }

    /// No more is taken; what is in the lane is written. Answers what kept it from that within the time, if anything did.
    member _.Drain(limit: TimeSpan) : Task<string voption> = task {
        lane.Writer.TryComplete() |> ignore
        let all = running.Force()
        let! first = Task.WhenAny(all :> Task, Task.Delay(limit, clock))

        if Object.ReferenceEquals(first, all) then
            return ValueNone
        else
            abandon.Cancel()
            // A store that does not even give up is waited for no longer.
            let! _ = Task.WhenAny(all :> Task, Task.Delay(TimeSpan.FromSeconds 2.0, clock))

            return
                match lastFault with
                | ValueSome fault -> ValueSome(explain fault)
                | ValueNone -> ValueSome "the store was too slow"
    }
