namespace Tributary

open System
open System.ComponentModel
open System.Diagnostics
open System.IO
open System.Net.Http
open System.Text
open System.Text.Json
open System.Threading
open System.Threading.Tasks
open Polly
open Polly.Retry

/// A place that is told, and how a notice gets there: an error says why it did not, without any secret.
[<NoComparison; NoEquality>]
type internal Sink = {
    Name: string
    Tell: AlertNotice -> CancellationToken -> Task<Result<unit, string>>
}

/// How a notice looks to the programs that are told.
[<RequireQualifiedAccess>]
module internal NoticeBody =
    /// All that is known, as an object.
    let json (notice: AlertNotice) =
        JsonSerializer.Serialize {|
            collector = notice.Collector
            rule = notice.Rule
            subject = notice.Subject
            state = Alerts.state notice
            at = string notice.At
            since = string notice.Since
            value = notice.Value
            threshold = notice.Threshold
            message = notice.Message
            repeated = notice.IsRepeated
            withheld = notice.Withheld
        |}

    /// The facts of a notice by the names that a program finds them under in its environment.
    let facts (notice: AlertNotice) = [
        "TRIBUTARY_ALERT_COLLECTOR", notice.Collector
        "TRIBUTARY_ALERT_RULE", notice.Rule
        "TRIBUTARY_ALERT_SUBJECT", notice.Subject
        "TRIBUTARY_ALERT_STATE", Alerts.state notice
        "TRIBUTARY_ALERT_SINCE", string notice.Since
        "TRIBUTARY_ALERT_VALUE", notice.Value.ToString Globalization.CultureInfo.InvariantCulture
        "TRIBUTARY_ALERT_THRESHOLD", notice.Threshold.ToString Globalization.CultureInfo.InvariantCulture
        "TRIBUTARY_ALERT_MESSAGE", notice.Message
    ]

    let private cut most (text: string) =
        if text.Length <= most then
            text
        else
            // Half of a surrogate pair is no text.
            let length =
                if Char.IsHighSurrogate text[most - 2] then
                    most - 2
                else
                    most - 1

            text.Substring(0, length) + "…"

    let of' format (notice: AlertNotice) =
        let line = $"[{notice.Collector}] {Alerts.text notice}"

        match format with
        | WebhookFormat.Json -> json notice
        | WebhookFormat.Slack ->
            // Slack's own three: a name in angle brackets would call people.
            let text = line.Replace("&", "&amp;").Replace("<", "&lt;").Replace(">", "&gt;")
            JsonSerializer.Serialize {| text = text |}
        | WebhookFormat.Discord ->
            JsonSerializer.Serialize {|
                content = cut 2_000 line
                // What an @ in a slug looks like calls nobody.
                allowed_mentions = {| parse = Array.empty<string> |}
            |}

/// Posting a notice to a webhook.
[<RequireQualifiedAccess>]
module internal Webhook =
    /// How one attempt went, for the retry strategy.
    type private Posted = { Fault: Fault voption }

    // NOTE: no span tells of it to whoever traces the process, and nothing of what .NET says about an address is repeated: its path is a key.
    let private client =
        let handler =
            new SocketsHttpHandler(
                AllowAutoRedirect = false,
                UseCookies = false,
                PooledConnectionLifetime = TimeSpan.FromMinutes 5.0,
                ActivityHeadersPropagator = null
            )

        new HttpClient(handler, Timeout = Timeout.InfiniteTimeSpan)

    let private explain fault =
        match fault with
        | Fault.Throttled(ValueSome wait) -> $"it wants to be left alone for %.0f{wait.TotalSeconds} s"
        | Fault.Failing(status, _)
        | Fault.Refused(status, _) -> $"it answered with status {status}"
        | other -> Fault.explain other

    let private faultOf (clock: TimeProvider) (response: HttpResponseMessage) =
        let status = int response.StatusCode

        let wait = RetryAfter.find clock response

        if status >= 200 && status < 300 then
            ValueNone
        elif status = 429 || (status >= 500 && wait.IsSome) then
            ValueSome(Fault.Throttled wait)
        elif status >= 500 then
            ValueSome(Fault.Failing(status, ""))
        else
            ValueSome(Fault.Refused(status, ""))

    let private post timeout (clock: TimeProvider) (address: Uri) body ct = task {
        use timer = new CancellationTokenSource(timeout, clock)
        use limited = CancellationTokenSource.CreateLinkedTokenSource(ct, timer.Token)

        try
            use content = new StringContent(body, Encoding.UTF8, "application/json")
            use request = new HttpRequestMessage(HttpMethod.Post, address, Content = content)

            use! response =
                client.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, limited.Token)

            return { Fault = faultOf clock response }
        with
        | :? OperationCanceledException when not ct.IsCancellationRequested ->
            return {
                Fault = ValueSome(Fault.TimedOut timeout)
            }
        | :? HttpRequestException as error ->
            return {
                Fault = ValueSome(Fault.Unreachable(string error.HttpRequestError))
            }
    }

    /// A verdict asks for the next attempt, or for none: four at most.
    let private pipeline (clock: TimeProvider) =
        let wait (attempt: int) (posted: Posted | null) =
            match posted with
            | null -> Nullable()
            | posted ->
                match posted.Fault |> ValueOption.map (Fault.verdict (attempt + 1)) with
                | ValueSome(FaultVerdict.RetryAfter wait) -> Nullable wait
                | _ -> Nullable()

        ResiliencePipelineBuilder<Posted>(TimeProvider = clock)
            .AddRetry(
                RetryStrategyOptions<Posted>(
                    MaxRetryAttempts = Fault.Attempts,
                    ShouldHandle =
                        (fun state ->
                            ValueTask<bool>((wait state.AttemptNumber state.Outcome.Result).HasValue)),
                    DelayGenerator =
                        (fun state ->
                            ValueTask<Nullable<TimeSpan>>(wait state.AttemptNumber state.Outcome.Result))
                )
            )
            .Build()

    let sink (settings: WebhookSettings) (url: Secret) (clock: TimeProvider) : Sink =
        let pipeline = pipeline clock

        {
            Name = "webhook"
            Tell =
                fun notice ct -> task {
                    // Read each time: a file may have another one by now.
                    match Secret.reveal url |> Result.map Secret.tryWebhook with
                    | Error reason -> return Error reason
                    | Ok None -> return Error $"{url} does not hold a URL such as https://example.com/hook"
                    | Ok(Some address) ->
                        let body = NoticeBody.of' settings.Format notice

                        let once ct =
                            ValueTask<Posted>(post settings.Timeout clock address body ct)

                        let! posted = pipeline.ExecuteAsync(once, ct)

                        return
                            match posted.Fault with
                            | ValueNone -> Ok()
                            | ValueSome fault -> Error(explain fault)
                }
        }

/// Running a program for a notice.
[<RequireQualifiedAccess>]
module internal Command =
    let private start (settings: CommandSettings) (program: string) (notice: AlertNotice) =
        let info =
            ProcessStartInfo(
                program,
                settings.Arguments,
                UseShellExecute = false,
                RedirectStandardInput = true,
                RedirectStandardOutput = true,
                RedirectStandardError = true,
                StandardInputEncoding = UTF8Encoding false
            )

        for name, fact in NoticeBody.facts notice do
            info.Environment[name] <- fact

        Process.Start info

    let private finish (notice: AlertNotice) (running: Process) (ct: CancellationToken) = task {
        // What it says is its own business, but a pipe that is full would stop it.
        for output in [ running.StandardOutput; running.StandardError ] do
            output.BaseStream.CopyToAsync(Stream.Null, CancellationToken.None) |> ignore

        try
            do! running.StandardInput.WriteAsync((NoticeBody.json notice).AsMemory(), ct)
            running.StandardInput.Close()
        with :? IOException ->
            () // it reads nothing

        do! running.WaitForExitAsync ct

        return
            match running.ExitCode with
            | 0 -> Ok()
            | code -> Error $"it ended with exit code {code}"
    }

    let sink (settings: CommandSettings) (program: string) (clock: TimeProvider) : Sink = {
        Name = "command"
        Tell =
            fun notice ct -> task {
                use timer = new CancellationTokenSource(settings.Timeout, clock)
                use limited = CancellationTokenSource.CreateLinkedTokenSource(ct, timer.Token)

                try
                    match start settings program notice with
                    | null -> return Error $"{program} cannot be started"
                    | running ->
                        use running = running

                        try
                            return! finish notice running limited.Token
                        with :? OperationCanceledException ->
                            running.Kill(entireProcessTree = true)
                            ct.ThrowIfCancellationRequested()

                            return
                                Error
                                    $"it did not end within %.1f{settings.Timeout.TotalSeconds} s, and was killed"
                with :? Win32Exception as error ->
                    return
                        Error $"{program} cannot be started: {Win32Exception(error.NativeErrorCode).Message}"
            }
    }

[<RequireQualifiedAccess>]
module internal Sinks =
    /// Everything that is configured beside the log.
    let configured (settings: AlertSettings) (clock: TimeProvider) = [
        match settings.Webhook.Url with
        | Some url -> Webhook.sink settings.Webhook url clock
        | None -> ()

        match settings.Command.Program with
        | Some program -> Command.sink settings.Command program clock
        | None -> ()
    ]

    /// Tells a sink. Whatever goes wrong is an error, but that it was stopped.
    let tell (sink: Sink) (notice: AlertNotice) (ct: CancellationToken) : Task<Result<unit, string>> = task {
        try
            return! sink.Tell notice ct
        with
        | :? OperationCanceledException when ct.IsCancellationRequested ->
            return raise (OperationCanceledException ct)
        | error -> return Error $"a bug of ours: {error.GetType().Name}" // its message may quote anything
    }
