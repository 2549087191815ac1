namespace Tributary.Server

open System.Text.Encodings.Web
open System.Text.Json
open Tributary

/// What the HTTP door shows of a collector. All of it may be asked at any time, from any thread.
[<NoComparison; NoEquality>]
type Shown = {
    /// Every setting that it runs with, by its path; secrets as their references.
    Settings: unit -> Map<string, string>
    Pulse: unit -> Pulse
    Alerts: unit -> Alert list
    Health: Pulse -> Health
    Measures: unit -> Family list
}

[<RequireQualifiedAccess>]
module Shown =
    /// A running engine.
    let ofEngine (engine: Engine) : Shown = {
        Settings = fun () -> Settings.flat engine.Settings
        Pulse = engine.Pulse
        Alerts = fun () -> engine.Alerts
        Health =
            fun pulse ->
                Health.judge
                    Health.defaults
                    engine.Died.IsCompleted
                    engine.Ready.IsCompletedSuccessfully
                    pulse
        Measures = engine.Measures
    }

/// What the answers say.
module internal Answers =
    let private options =
        JsonSerializerOptions(WriteIndented = true, Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping)

    let json value =
        JsonSerializer.Serialize(value, options) + "\n"

    let private iso (value: Instant voption) = value |> ValueOption.map Instant.text

    let private reasons (health: Health) = [
        for reason in health.Reasons ->
            {|
                code = Health.word reason.Complaint
                detail = reason.Detail
            |}
    ]

    let healthWord health =
        match health with
        | Health.Ready -> "ready"
        | Health.Degraded _ -> "degraded"
        | Health.Unready _ -> "unready"

    let health (found: Health) =
        json {|
            status = healthWord found
            reasons = reasons found
        |}

    /// A pulse for machines.
    let status (pulse: Pulse) (found: Health) (alerts: Alert list) =
        json {|
            collector = pulse.Collector
            at = Instant.text pulse.At
            started = Instant.text pulse.Started
            status = healthWord found
            reasons = reasons found
            alerts = [
                for alert in alerts ->
                    {|
                        rule = alert.Rule
                        subject = alert.Subject
                        since = Instant.text alert.Since
                        message = alert.Message
                    |}
            ]
            last_received = iso pulse.LastReceived
            requests = pulse.Requests
            requests_failed = pulse.Failures
            connections = pulse.Connections
            connections_open = pulse.Connected
            clock_skew_seconds = pulse.Skew |> ValueOption.map _.TotalSeconds
            disk_free_bytes = pulse.FreeBytes
            limits = [
                for limit in pulse.Limits ->
                    {|
                        limit = limit.Limit
                        left = limit.Left
                        most = limit.Most
                    |}
            ]
            errors = [
                for error in pulse.Errors ->
                    {|
                        endpoint = error.Endpoint
                        at = Instant.text error.At
                        detail = error.Detail
                    |}
            ]
            streams = [
                for stream in pulse.Streams ->
                    {|
                        stream = string stream.Stream
                        polls_due = stream.Due
                        polls_good = stream.Good
                    |}
            ]
            outbox = {|
                rows = pulse.Backlog.Rows
                dropped = pulse.Backlog.Dropped
                bytes = pulse.Backlog.Bytes
                since = iso pulse.Backlog.Since
                troubles = pulse.Backlog.Troubles
            |}
            markets = [
                for market in pulse.Markets ->
                    {|
                        exchange = string market.Exchange
                        market = string market.Market
                        slug = market.Slug
                        last_trade = iso market.LastTrade
                        trade_interval_seconds = market.TradeInterval |> ValueOption.map _.TotalSeconds
                        last_book = iso market.LastBook
                        verdict = market.Verdict |> ValueOption.map Verdict.text
                        trades = market.Trades
                        books = market.Books
                        deltas = market.Deltas
                        gaps = [
                            for gap in market.Gaps ->
                                {|
                                    stream = string gap.Stream
                                    token = gap.Token |> ValueOption.map string
                                    cause = string gap.Cause
                                    since = Instant.text gap.Since
                                |}
                        ]
                    |}
            ]
        |}

    // ---- series of single markets: only as many as were asked for

    let private ofMarket name help pick (markets: MarketPulse list) : Family = {
        Measure = {
            Name = name
            Kind = MeasureKind.Counter
            Help = help
        }
        Readings = [
            for market in markets ->
                struct ($"exchange={market.Exchange},slug={market.Slug}",
                        Measured.Number(float (pick market: int64)))
        ]
    }

    /// The busiest markets, so many at most.
    let markets (most: int) (pulse: Pulse) : Family list =
        let chosen =
            pulse.Markets
            |> List.sortByDescending (fun market -> market.Trades + market.Books + market.Deltas)
            |> List.truncate most

        [
            ofMarket "market_trades" "Trades stored, of the busiest markets." _.Trades chosen
            ofMarket "market_books" "Whole books stored, of the busiest markets." _.Books chosen
            ofMarket "market_deltas" "Changes of books stored, of the busiest markets." _.Deltas chosen
        ]
