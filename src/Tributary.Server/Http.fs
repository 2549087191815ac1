namespace Tributary.Server

open System
open System.Net
open System.Security.Cryptography
open System.Text
open System.Threading
open System.Threading.Tasks
open Microsoft.AspNetCore.Builder
open Microsoft.AspNetCore.Hosting
open Microsoft.AspNetCore.Http
open Microsoft.Extensions.DependencyInjection
open Microsoft.Extensions.Hosting
open Microsoft.Extensions.Logging
open Tributary

/// How the HTTP door listens.
type DoorOptions = {
    /// Default 127.0.0.1: this machine alone.
    Address: IPAddress
    /// 0 takes any that is free.
    Port: int
    /// Whoever asks must send `Authorization: Bearer TOKEN`; nothing: nobody must.
    Token: string option
    /// The page at `/`; nothing: there is none.
    Web: Web option
}

/// The collector's HTTP door: `/health/live`, `/health/ready`, `/status`, `/settings` and `/metrics`, to be read alone. Disposing it closes the socket.
[<Sealed>]
type Door private (app: WebApplication) =
    static let mostMarkets = 1_000

    static let answer (context: HttpContext) (code: int) (kind: string) (body: string) : Task =
        context.Response.StatusCode <- code
        context.Response.ContentType <- kind
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

    /// Of a door for this machine alone, another name in a browser's address is somebody else's trick to get in; a token keeps them out anyway.
    static let isHome (options: DoorOptions) (context: HttpContext) =
        options.Token.IsSome
        || not (IPAddress.IsLoopback options.Address)
        || (match context.Request.Host.Host with
            | "localhost"
            | "127.0.0.1"
            | "[::1]"
            | "::1"
            | "" -> true
            | host ->
                match IPAddress.TryParse host with
                | true, NonNull address -> IPAddress.IsLoopback address
                | _ -> false)

    static let guard (context: HttpContext) =
        let headers = context.Response.Headers

        headers.ContentSecurityPolicy <-
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

        headers.XContentTypeOptions <- "nosniff"
        headers["Referrer-Policy"] <- "no-referrer"
        headers.CacheControl <- "no-store"

    static let handle (shown: Shown) (options: DoorOptions) (context: HttpContext) : Task =
        let path = string context.Request.Path

        let reply code body =
            answer context code "application/json" body

        let wrong code error =
            reply code (Answers.json {| error = error |})

        let isRead =
            HttpMethods.IsGet context.Request.Method
            || HttpMethods.IsHead context.Request.Method

        guard context

        match path with
        | _ when not (isHome options context) ->
            wrong 421 "this door is for this machine: ask 127.0.0.1 or localhost"
        // The page's files hold nothing of the collector: what they ask for needs the token.
        | path when options.Web.IsSome && isRead && Web.IsFile path -> Web.File(path, context)
        // Says nothing but that somebody is there, so it needs no token.
        | "/health/live" when isRead -> reply 200 (Answers.json {| status = "live" |})
        | _ when not (isAdmitted options.Token context) ->
            context.Response.Headers.WWWAuthenticate <- "Bearer"
            wrong 401 "this needs 'Authorization: Bearer TOKEN', with the token of http.token"
        | _ when not isRead -> wrong 405 "there is nothing to change here: GET alone"
        | "/health/ready" ->
            let health = shown.Health(shown.Pulse())
            reply (if health.IsUnready then 503 else 200) (Answers.health health)
        | "/status" ->
            let pulse = shown.Pulse()
            reply 200 (Answers.status pulse (shown.Health pulse) (shown.Alerts()))
        | path when options.Web.IsSome && path.StartsWith "/web/" -> options.Web.Value.Handle(path, context)
        | "/settings" -> reply 200 (Answers.json (shown.Settings()))
        | "/metrics" ->
            match Int32.TryParse(string context.Request.Query["markets"]) with
            | true, most when most > 0 ->
                let more = Answers.markets (min most mostMarkets) (shown.Pulse())
                answer context 200 Exposition.ContentType (Exposition.text (shown.Measures() @ more))
            | _ when context.Request.Query.ContainsKey "markets" ->
                wrong 400 "markets takes a number from 1 on"
            | _ -> answer context 200 Exposition.ContentType (Exposition.text (shown.Measures()))
        | _ ->
            let page = if options.Web.IsSome then "/, " else ""
            wrong 404 $"there are {page}/health/live, /health/ready, /status, /settings and /metrics here"

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
        app.Run(RequestDelegate(handle shown options))
        do! app.StartAsync ct
        return new Door(app)
    }

    /// The door that the settings want: nothing when they want none, or when it cannot be opened, which is said in the log and stops
    /// nothing else.
    static member TryOpenAsync
        (settings: HttpSettings, shown: Shown, web: Web option, logs: ILoggerFactory, ct: CancellationToken)
        : Task<Door option> = task {
        let log = Logs.logger Logs.Http logs

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
                            Web = web
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
