namespace Tributary.Server

open System
open System.Net
open System.Security.Cryptography
open System.Text
open System.Text.Encodings.Web
open System.Text.Json
open System.Threading
open System.Threading.Tasks
open Microsoft.AspNetCore.Builder
open Microsoft.AspNetCore.Hosting
open Microsoft.AspNetCore.Http
open Microsoft.Extensions.DependencyInjection
open Microsoft.Extensions.Hosting
open Microsoft.Extensions.Logging
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

/// How the HTTP door listens.
type DoorOptions = {
    /// Default 127.0.0.1: this machine alone.
    Address: IPAddress
    /// 0 takes any that is free.
    Port: int
    /// Whoever asks must send `Authorization: Bearer TOKEN`; nothing: nobody must.
    Token: string option
}

/// The collector's HTTP door: `/health/live`, `/health/ready`, `/status`, `/settings` and `/metrics`, to be read alone. Disposing it closes the socket.
[<Sealed>]
type Door private (app: WebApplication) =
    static let mostMarkets = 1_000

    static let answer (context: HttpContext) (code: int) (kind: string) (body: string) : Task =
        context.Response.StatusCode <- code
        context.Response.ContentType <- kind
        context.Response.Headers.CacheControl <- "no-store"
        context.Response.WriteAsync body

    static let isAdmitted (token: string option) (context: HttpContext) =
        match token with
        | None -> true
        | Some token ->
            // Both sides are hashed, so that comparing takes as long whatever was sent.
            let hash (text: string) =
                SHA256.HashData(Encoding.UTF8.GetBytes text)

            CryptographicOperations.FixedTimeEquals(
                ReadOnlySpan(hash $"Bearer {token}"),
                ReadOnlySpan(hash (string context.Request.Headers.Authorization))
            )

    static let handle (shown: Shown) (token: string option) (context: HttpContext) : Task =
        let path = string context.Request.Path

        let reply code body =
            answer context code "application/json" body

        let wrong code error =
            reply code (Answers.json {| error = error |})

        let isRead =
            HttpMethods.IsGet context.Request.Method
            || HttpMethods.IsHead context.Request.Method

        match path with
        // Says nothing but that somebody is there, so it needs no token.
        | "/health/live" when isRead -> reply 200 (Answers.json {| status = "live" |})
        | _ when not (isAdmitted token context) ->
            context.Response.Headers.WWWAuthenticate <- "Bearer"
            wrong 401 "this needs 'Authorization: Bearer TOKEN', with the token of http.token"
        | _ when not isRead -> wrong 405 "there is nothing to change here: GET alone"
        | "/health/ready" ->
            let health = shown.Health(shown.Pulse())
            reply (if health.IsUnready then 503 else 200) (Answers.health health)
        | "/status" ->
            let pulse = shown.Pulse()
            reply 200 (Answers.status pulse (shown.Health pulse) (shown.Alerts()))
        | "/settings" -> reply 200 (Answers.json (shown.Settings()))
        | "/metrics" ->
            match Int32.TryParse(string context.Request.Query["markets"]) with
            | true, most when most > 0 ->
                let more = Answers.markets (min most mostMarkets) (shown.Pulse())
                answer context 200 Exposition.ContentType (Exposition.text (shown.Measures() @ more))
            | _ when context.Request.Query.ContainsKey "markets" ->
                wrong 400 "markets takes a number from 1 on"
            | _ -> answer context 200 Exposition.ContentType (Exposition.text (shown.Measures()))
        | _ -> wrong 404 "there are /health/live, /health/ready, /status, /settings and /metrics here"

    /// Listens; an `IOException` when the address is taken.
    static member StartAsync(options: DoorOptions, shown: Shown, ct: CancellationToken) : Task<Door> = task {
        let builder = WebApplication.CreateEmptyBuilder(WebApplicationOptions())

        builder.WebHost
            .UseKestrelCore()
            .ConfigureKestrel(fun kestrel ->
                kestrel.AddServerHeader <- false
                kestrel.Listen(options.Address, options.Port))
        |> ignore

        builder.Services.AddSingleton<IHostLifetime, Simulator.NoLifetime>() |> ignore
        let app = builder.Build()
        app.Run(RequestDelegate(handle shown options.Token))
        do! app.StartAsync ct
        return new Door(app)
    }

    /// The door that the settings want: nothing when they want none, or when it cannot be opened, which is said in the log and stops
    /// nothing else.
    static member TryOpenAsync
        (settings: HttpSettings, shown: Shown, log: ILogger, ct: CancellationToken)
        : Task<Door option> = task {
        match settings.Listen, settings.Token |> Option.map Secret.reveal with
        | None, _ -> return None
        | Some listen, Some(Error message) ->
            Log.doorClosed log (string listen) message
            return None
        | Some listen, token ->
            try
                let! door =
                    Door.StartAsync(
                        {
                            Address = listen.Address
                            Port = listen.Port
                            Token = token |> Option.bind Result.toOption
                        },
                        shown,
                        ct
                    )

                Log.doorOpened log door.Address
                return Some door
            with :? IO.IOException as error ->
                Log.doorClosed log (string listen) error.Message
                return None
    }

    /// Where it listens.
    member _.Address = Uri(Seq.head app.Urls)

    interface IAsyncDisposable with
        member _.DisposeAsync() = app.DisposeAsync()
