namespace Tributary.Server.Simulator

open System

/// One way in which the exchange misbehaves on request.
[<RequireQualifiedAccess>]
type FaultSwitch =
    /// An answer comes 100 to 1500 ms late.
    | Latency
    /// The matching engine restarts: for about two seconds every CLOB call answers 425.
    | EngineRestart425
    /// 429 with Retry-After, by turns in seconds and as a date.
    | Throttle429
    /// 500 or 503 with a JSON error.
    | ServerError
    /// A page of HTML, by turns with status 502 and with status 200.
    | Html
    /// A body that ends in the middle, by turns with the connection and as a complete answer of half a JSON text.
    | CutBody
    /// A follow-up page answers page 1 again, with its cursor.
    | RepeatedPage
    /// From time to time a market resolves and its tokens lose their books.
    | Resolve

[<RequireQualifiedAccess>]
module FaultSwitch =
    /// Every switch with its name on the command line, in a fixed order.
    let all = [
        FaultSwitch.Latency, "latency"
        FaultSwitch.EngineRestart425, "425"
        FaultSwitch.Throttle429, "429"
        FaultSwitch.ServerError, "5xx"
        FaultSwitch.Html, "html"
        FaultSwitch.CutBody, "cut"
        FaultSwitch.RepeatedPage, "repeat"
        FaultSwitch.Resolve, "resolve"
    ]

    /// The name on the command line and in the ledger.
    let name switch =
        all |> List.find (fst >> (=) switch) |> snd

    let private known =
        let names = all |> List.map snd |> String.concat ", "
        $"{names}, all, none"

    /// Reads a comma-separated list of names; "all" is every switch, "none" is no switch. The error lists the names.
    let parse (text: string) : Result<Set<FaultSwitch>, string> =
        let add chosen (word: string) =
            chosen
            |> Result.bind (fun chosen ->
                match word.Trim().ToLowerInvariant() with
                | ""
                | "none" -> Ok chosen
                | "all" -> Ok(all |> List.map fst |> Set.ofList)
                | word ->
                    match all |> List.tryFind (snd >> (=) word) with
                    | Some(switch, _) -> Ok(Set.add switch chosen)
                    | None -> Error $"'{word}' is not a fault; the faults are {known}")

        text.Split ',' |> Array.fold add (Ok Set.empty)

/// What the simulated exchange is like. Start from `SimulatorOptions.Default`.
type SimulatorOptions = {
    /// Same seed, start and history: the same markets, books and trades at every simulated instant.
    Seed: int
    /// Active markets, of two tokens each; some closed ones come on top.
    Markets: int
    /// The port on 127.0.0.1; 0 takes any free one.
    Port: int
    /// Simulated seconds per real second.
    Speed: float
    /// The simulated time at the start; the clock's when none.
    Start: DateTimeOffset voption
    /// The faults that are on at the start.
    Faults: Set<FaultSwitch>
    /// How likely each switch is to strike a request.
    FaultRate: float
    /// Whether the documented request limits hold.
    Limits: bool
    /// Mean number of fills a simulated second, on the whole exchange.
    TradesPerSecond: float
    /// How far back trades reach at the start.
    History: TimeSpan
    /// Real time: what the simulated time runs on, and the limits and delays too.
    Clock: TimeProvider
    /// Whether `/v2/trades` exists; a client has to fall back to v1 when not.
    V2: bool
} with

    static member Default = {
        Seed = 1
        Markets = 200
        Port = 0
        Speed = 1.0
        Start = ValueNone
        Faults = Set.empty
        FaultRate = 0.03
        Limits = true
        TradesPerSecond = 20.0
        History = TimeSpan.FromMinutes 30.0
        Clock = TimeProvider.System
        V2 = true
    }
