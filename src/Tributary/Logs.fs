namespace Tributary

open System
open System.Collections.Concurrent
open System.Collections.Generic
open System.Text
open System.Threading
open Microsoft.Extensions.Logging

/// Log lines of Tributary's modules. Each module has a category of its own, `Tributary.` and its name with a capital, so that its level can be
/// set for itself.
[<RequireQualifiedAccess>]
module Logs =
    /// Markets, polls, gaps, and the collector as a whole.
    [<Literal>]
    let Engine = "engine"

    /// Requests to exchanges: attempts, failures, limits.
    [<Literal>]
    let Requests = "requests"

    /// Connections of live books.
    [<Literal>]
    let Live = "live"

    /// What is written, and what waits for a server.
    [<Literal>]
    let Store = "store"

    /// What fires, and who was told.
    [<Literal>]
    let Alerts = "alerts"

    /// Health, status and metrics for others.
    [<Literal>]
    let Http = "http"

    /// All of them.
    let modules = [ Engine; Requests; Live; Store; Alerts; Http ]

    /// The category of a module.
    let category (name: string) =
        $"Tributary.{Char.ToUpperInvariant name[0]}{name.Substring 1}"

    /// Nowhere.
    let none: ILoggerFactory =
        Microsoft.Extensions.Logging.Abstractions.NullLoggerFactory.Instance

    let internal logger (name: string) (logs: ILoggerFactory) : ILogger = logs.CreateLogger(category name)

    /// So many lines of a kind are said within a minute.
    [<Literal>]
    let private Most = 10

    let private span = TimeSpan.FromSeconds 60.0

    /// Values of a message that tell one kind from another; there are few of each. Those that name one of many, such as a market, do not.
    let private telling =
        HashSet [
            "Exchange"
            "Endpoint"
            "Stream"
            "Cause"
            "Job"
            "Store"
            "Table"
            "Sink"
            "Rule"
        ]

    let private kindOf (category: string) (level: LogLevel) (state: obj | null) =
        match state with
        | :? IReadOnlyList<KeyValuePair<string, obj | null>> as values ->
            let kind = StringBuilder().Append(category).Append('|').Append(level)

            for KeyValue(name, value) in values do
                if telling.Contains name || name = "{OriginalFormat}" then
                    kind.Append('|').Append(value) |> ignore

            kind.ToString()
        | state -> $"{category}|{level}|{state}"

    /// What was left out, as it would have been said the last time.
    [<Struct; NoComparison; NoEquality>]
    type private Left = {
        Log: ILogger
        Level: LogLevel
        Text: unit -> string
    }

    [<Sealed>]
    type private Sampling(clock: TimeProvider) =
        let gate = obj ()
        let repeats = Repeats<string>(Most, span)
        let last = Dictionary<string, Left>()

        let say all =
            let left =
                lock gate (fun () -> [
                    for struct (kind, count, took) in
                        repeats.Take(Instant.ofDateTimeOffset (clock.GetUtcNow()), all) do
                        let mutable left = Unchecked.defaultof<Left>

                        if last.Remove(kind, &left) then
                            struct (left, count, took)
                ])

            for struct (left, count, took) in left do
                left.Log.Log(
                    left.Level,
                    "… {Repeated} more in {Seconds:0} s: {Last}",
                    count,
                    took.TotalSeconds,
                    left.Text()
                )

        let timer =
            clock.CreateTimer((fun _ -> say false), null, TimeSpan.FromSeconds 1.0, TimeSpan.FromSeconds 1.0)

        member _.IsSaid(kind, left: Left) =
            lock gate (fun () ->
                let isSaid = repeats.IsSaid(kind, Instant.ofDateTimeOffset (clock.GetUtcNow()))

                if not isSaid then
                    last[kind] <- left

                isSaid)

        member _.End() =
            timer.Dispose()
            say true

    [<Sealed>]
    type private SampledLogger(category: string, log: ILogger, sampling: Sampling) =
        interface ILogger with
            member _.BeginScope<'S when 'S: not null>(state: 'S) = log.BeginScope state
            member _.IsEnabled level = log.IsEnabled level

            member _.Log(level, id, state, error, format) =
                if log.IsEnabled level then
                    let isSaid =
                        level < LogLevel.Information
                        || level = LogLevel.Critical
                        || sampling.IsSaid(
                            kindOf category level (box state),
                            {
                                Log = log
                                Level = level
                                Text = fun () -> format.Invoke(state, error)
                            }
                        )

                    if isSaid then
                        log.Log(level, id, state, error, format)

    /// The same loggers, but of lines of one kind (one message, of one exchange, endpoint, stream, cause …) ten are said within a minute; then
    /// one more tells how many there were and what the last of them said. What is below information, or critical, is always said. Disposing
    /// it says what was left out so far, and disposes the others.
    let sampled (clock: TimeProvider) (logs: ILoggerFactory) : ILoggerFactory =
        let sampling = Sampling clock
        let loggers = ConcurrentDictionary<string, ILogger>()

        {
            new ILoggerFactory with
                member _.AddProvider provider = logs.AddProvider provider

                member _.CreateLogger category =
                    loggers.GetOrAdd(
                        category,
                        fun category ->
                            SampledLogger(category, logs.CreateLogger category, sampling) :> ILogger
                    )

                member _.Dispose() =
                    sampling.End()
                    logs.Dispose()
        }
