module Tributary.Tests.HealthTests

open System
open NUnit.Framework
open Tributary

let private now = seconds 1_800_000_000L
let private ago count = now - TimeSpan.FromSeconds(float count)

let private marketWith gaps : MarketPulse = {
    Exchange =
        match ExchangeId.Parse "polymarket" with
        | Ok id -> id
        | Error message -> failwith message
    Market = market "m1"
    Slug = "one"
    LastTrade = ValueNone
    TradeInterval = ValueNone
    LastBook = ValueNone
    Verdict = ValueNone
    Trades = 0L
    Books = 0L
    Deltas = 0L
    Gaps = gaps
}

let private well: Pulse = {
    At = now
    Collector = "main"
    Started = ago 3600
    Paused = []
    LastReceived = ValueSome(ago 1)
    Markets = [ marketWith [] ]
    Streams = []
    Requests = 10L
    Failures = 0L
    Connected = 1
    Connections = 1
    Limits = []
    Errors = []
    Backlog = Backlog.none
    Skew = ValueSome(TimeSpan.FromSeconds 0.2)
    FreeBytes = ValueSome 10_000_000_000L
}

let private gap cause : OpenGap = {
    Stream = Stream.Books
    Token = ValueSome(token "t1")
    Cause = cause
    Since = ago 30
}

let private judge = Health.judge Health.defaults false true

let private words (health: Health) =
    health.Reasons |> List.map (fun reason -> Health.word reason.Complaint)

[<Test>]
let ``a collector that lacks nothing is ready`` () = equal Health.Ready (judge well)

let private degraded: (string * Pulse) list = [
    "silent",
    {
        well with
            LastReceived = ValueSome(ago 61)
    }
    "disconnected", { well with Connected = 0 }
    "paused", { well with Paused = [ Cause.Paused ] }
    "gaps_unreachable",
    {
        well with
            Markets = [ marketWith [ gap Cause.Unreachable ] ]
    }
    "backlog",
    {
        well with
            Backlog = {
                Backlog.none with
                    Troubles = [ "trades is suspended" ]
            }
    }
    "backlog",
    {
        well with
            Backlog = {
                Backlog.none with
                    Rows = 5L
                    Since = ValueSome(ago 301)
            }
    }
    "skew",
    {
        well with
            Skew = ValueSome(TimeSpan.FromSeconds -6.0)
    }
    "disk",
    {
        well with
            FreeBytes = ValueSome 499_999_999L
    }
]

[<Test>]
let ``what is wrong while it collects makes it degraded, with the reason`` () =
    for word, pulse in degraded do
        let health = judge pulse
        isTrue health.IsDegraded
        equal [ word ] (words health)

[<Test>]
let ``just within what is tolerated it is ready`` () =
    for pulse in
        [
            {
                well with
                    LastReceived = ValueSome(ago 60)
            }
            {
                well with
                    Backlog = {
                        Backlog.none with
                            Rows = 5L
                            Since = ValueSome(ago 300)
                    }
            }
            {
                well with
                    Skew = ValueSome(TimeSpan.FromSeconds 5.0)
            }
            {
                well with
                    FreeBytes = ValueSome 500_000_000L
            }
            {
                well with
                    Skew = ValueNone
                    FreeBytes = ValueNone
            }
            // Nothing is collected, so nothing comes.
            {
                well with
                    LastReceived = ValueNone
                    Markets = []
            }
        ] do
        equal Health.Ready (judge pulse)

[<TestCase(false, 100L, false)>]
[<TestCase(false, 99L, true)>]
[<TestCase(true, 100L, true)>]
[<TestCase(true, 120L, true)>]
[<TestCase(true, 121L, false)>]
let ``a disk is tight below the least, and again free a fifth above``
    (before: bool)
    (free: int64)
    (after: bool)
    =
    equal after (Health.isTight 100L before free)

[<Test>]
let ``silence counts from the start when nothing ever came`` () =
    equal [ "silent" ] (words (judge { well with LastReceived = ValueNone }))

    equal
        Health.Ready
        (judge {
            well with
                LastReceived = ValueNone
                Started = ago 60
        })

[<Test>]
let ``a collector that cannot keep what it collects is not ready, and that reason comes first`` () =
    let health =
        judge {
            well with
                Paused = [ Cause.StoreFailed ]
                Connected = 0
                FreeBytes = ValueSome 0L
        }

    isTrue health.IsUnready
    equal [ "store_failed"; "disconnected"; "disk" ] (words health)

[<Test>]
let ``one that has not begun, or is dead, is not ready`` () =
    let starting = Health.judge Health.defaults false false well
    equal (true, [ "starting" ]) (starting.IsUnready, words starting)
    let dead = Health.judge Health.defaults true false well
    equal (true, [ "died" ]) (dead.IsUnready, words dead)

[<Test>]
let ``gaps are told by their cause, with how many there are and where`` () =
    let health =
        judge {
            well with
                Markets = [
                    marketWith [ gap Cause.Late; gap Cause.Late ]
                    marketWith [ gap Cause.Missing ]
                ]
        }

    equal
        [
            "2 gaps are open (books) in 1 markets: late"
            "1 gaps are open (books) in 1 markets: missing"
        ]
        (health.Reasons |> List.map _.Detail)
