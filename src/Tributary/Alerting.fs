namespace Tributary

open System
open System.Threading
open System.Threading.Channels
open System.Threading.Tasks
open Microsoft.Extensions.Logging

/// The bounded queue before a sink, and the loop that empties it: one slow sink is nobody else's trouble.
[<Sealed>]
type private Lane(sink: Sink, meters: Meters, log: ILogger) =
    let stopping = new CancellationTokenSource()
    let label = $"sink={sink.Name}"

    let queue =
        Channel.CreateBounded<AlertNotice>(BoundedChannelOptions(256, SingleReader = true))

    let tell (notice: AlertNotice) = task {
        let! told = task {
            try
                return! Sinks.tell sink notice stopping.Token
            with :? OperationCanceledException ->
                return Error "the collector stopped"
        }

        match told with
        | Ok() -> meters.Add(Count.noticesSent, label)
        | Error reason ->
            meters.Add(Count.noticesFailed, label)
            Log.noticeFailed log sink.Name notice.Rule reason
    }

    let work =
        Task.Run<unit>(fun () -> task {
            let mutable isOpen = true

            while isOpen do
                match queue.Reader.TryRead() with
                | true, notice when not stopping.IsCancellationRequested -> do! tell notice
                | true, _ -> meters.Add(Count.noticesDropped, label)
                | _ ->
                    let! more = queue.Reader.WaitToReadAsync()
                    isOpen <- more
        })

    /// Never waits.
    member _.Offer(notice: AlertNotice) =
        if not (queue.Writer.TryWrite notice) then
            meters.Add(Count.noticesDropped, label)
            Log.noticeDropped log sink.Name notice.Rule

    /// Takes nothing more, sends what waits for at most this long, and says what is left.
    member _.Stop(limit: TimeSpan, clock: TimeProvider) = task {
        queue.Writer.TryComplete() |> ignore

        try
            do! work.WaitAsync(limit, clock)
        with :? TimeoutException ->
            match queue.Reader.Count with
            | 0 -> ()
            | left -> Log.noticesLeft log sink.Name left

            stopping.Cancel()
            do! work

        stopping.Dispose()
    }

/// Looks at a collector's pulse again and again and tells what is wrong: to the log, and to the sinks that are configured. Disposing it stops
/// looking and gives the sinks five seconds to take what waits.
[<Sealed>]
type Alerting
    internal
    (
        settings: AlertSettings,
        sinks: Sink list,
        pulse: unit -> Pulse,
        clock: TimeProvider,
        meters: Meters,
        log: ILogger
    ) =
    let policy = Setup.alertPolicy settings
    let lanes = sinks |> List.map (fun sink -> Lane(sink, meters, log))
    let looking = obj ()

    // Immutable, so whoever looks sees a whole one.
    let mutable board = Alerts.none

    let look () =
        let next, notices = Alerts.step policy (Volatile.Read &board) (pulse ())
        Volatile.Write(&board, next)

        for notice in notices do
            meters.Add(Count.notices, $"rule={notice.Rule},state={Alerts.state notice}")
            Log.alert log notice.Rule notice.IsResolved (Alerts.text notice)

            for lane in lanes do
                lane.Offer notice

    let timer =
        let every =
            if settings.Enabled then
                settings.Look
            else
                Timeout.InfiniteTimeSpan

        clock.CreateTimer(
            (fun _ ->
                // One look at a time: a pulse that takes long to come costs looks, and no threads.
                if Monitor.TryEnter looking then
                    try
                        try
                            look ()
                        with error ->
                            Log.lookFailed log error
                    finally
                        Monitor.Exit looking),
            null,
            every,
            every
        )

    /// What fires now, in the order of rules and subjects.
    member _.Firing: Alert list = Alerts.firing (Volatile.Read &board)

    interface IAsyncDisposable with
        member _.DisposeAsync() =
            ValueTask(
                task {
                    do! timer.DisposeAsync()
                    let! _ = Task.WhenAll(lanes |> List.map _.Stop(TimeSpan.FromSeconds 5.0, clock))
                    ()
                }
            )

/// Telling people that a collector is not well.
[<RequireQualifiedAccess>]
module Alerting =
    /// Begins to look; nothing is ever told when the settings say so. `pulse` is called every `Look`, by one thread at a time; it may throw,
    /// which is logged.
    let start
        (settings: AlertSettings)
        (pulse: unit -> Pulse)
        (clock: TimeProvider)
        (meters: Meters)
        (logs: ILoggerFactory)
        =
        new Alerting(
            settings,
            Sinks.configured settings clock,
            pulse,
            clock,
            meters,
            Logs.logger Logs.Alerts logs
        )

    /// Sends one notice of rule `test` everywhere, at the same time, and answers of each sink, by name, whether it arrived, or why not.
    let test
        (settings: AlertSettings)
        (collector: string)
        (clock: TimeProvider)
        (logs: ILoggerFactory)
        (ct: CancellationToken)
        : Task<(string * Result<unit, string>) list> = task {
        let now = Instant.ofDateTimeOffset (clock.GetUtcNow())

        let notice: AlertNotice = {
            Collector = collector
            Rule = "test"
            Subject = ""
            At = now
            Since = now
            IsResolved = false
            IsRepeated = false
            Value = 0.0
            Threshold = 0.0
            Message = "somebody tries whether alerts arrive here"
            Withheld = 0
        }

        Log.alert (Logs.logger Logs.Alerts logs) notice.Rule notice.IsResolved (Alerts.text notice)

        let! told =
            Sinks.configured settings clock
            |> List.map (fun sink -> task {
                let! told = Sinks.tell sink notice ct
                return sink.Name, told
            })
            |> Task.WhenAll

        return ("log", Ok()) :: List.ofArray told
    }
