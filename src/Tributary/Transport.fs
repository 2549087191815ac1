namespace Tributary

open System
open System.Buffers
open System.Collections.Concurrent
open System.Collections.Generic
open System.IO
open System.Net
open System.Net.Http
open System.Net.Http.Headers
open System.Text
open System.Threading
open System.Threading.RateLimiting
open System.Threading.Tasks
open Microsoft.Extensions.Logging
open Polly
open Polly.Retry

/// Where and how an exchange is reached.
type TransportOptions = {
    /// Base addresses by the names of their settings. Paths of requests go below them.
    Hosts: Map<string, Uri>
    /// Requests in any window of time, by the names of the limits.
    RateLimits: Map<string, int>
    /// Of these limits at most a tenth in any tenth of that time.
    BySecond: Set<string>
    /// The limits that an endpoint counts against.
    LimitsOf: string -> string list
    /// The headers that show whose a request is, by its method, its path and the moment.
    Sign: string -> string -> Instant -> (string * string) list
    /// For one attempt, from sending to the last byte.
    Timeout: TimeSpan
    /// Attempts beyond the first, at most; a fault's verdict may give up earlier.
    Retries: int
    /// A larger body is a fault.
    MaxResponse: int64
    /// An address with an optional user and password; never logged.
    Proxy: Uri option
    /// In what time the limits count: ten seconds.
    Window: TimeSpan
}

/// A request that failed for good.
type Failure = {
    Fault: Fault
    /// The body that could not be read, when that is what failed.
    Body: byte[]
}

/// How one attempt went, for the retry strategy.
type private Attempt = { Failure: Failure voption }

/// What came back, judged by the caller: its value, or the fault that its bytes hold.
type Judge<'T> = delegate of body: ReadOnlyMemory<byte> * received: Instant -> Result<'T, Fault>

/// How to go through a proxy whose address may hold a user and a password.
[<RequireQualifiedAccess>]
module internal Proxy =
    let make (address: Uri) : IWebProxy =
        // Without the user and password, which a message of .NET may quote.
        let proxy =
            WebProxy(Uri(address.GetComponents(UriComponents.SchemeAndServer, UriFormat.UriEscaped)))

        if address.UserInfo <> "" then
            match address.UserInfo.Split(':', 2) |> Array.map Uri.UnescapeDataString with
            | [| user; password |] -> proxy.Credentials <- NetworkCredential(user, password)
            | parts -> proxy.Credentials <- NetworkCredential(parts[0], "")

        proxy

/// How long a server wants to be left alone.
[<RequireQualifiedAccess>]
module internal RetryAfter =
    /// Both forms of the header: seconds, or a date.
    let find (clock: TimeProvider) (response: HttpResponseMessage) : TimeSpan voption =
        match response.Headers.RetryAfter with
        | null -> ValueNone
        | value ->
            match Option.ofNullable value.Delta, Option.ofNullable value.Date with
            | Some wait, _ -> ValueSome wait
            | None, Some moment -> ValueSome(max TimeSpan.Zero (moment - clock.GetUtcNow()))
            | None, None -> ValueNone

/// Requests to bytes over HTTP: pooled connections, decompression, shared limits, retries by verdict.
[<Sealed>]
type Transport(options: TransportOptions, clock: TimeProvider, meters: Meters, log: ILogger) =
    let handler =
        new SocketsHttpHandler(
            AutomaticDecompression = (DecompressionMethods.GZip ||| DecompressionMethods.Brotli),
            PooledConnectionLifetime = TimeSpan.FromMinutes 5.0, // names are looked up again from time to time
            ConnectTimeout = min options.Timeout (TimeSpan.FromSeconds 10.0),
            AllowAutoRedirect = false,
            UseCookies = false
        )

    do
        match options.Proxy with
        | Some address -> handler.Proxy <- Proxy.make address
        | None -> ()

    let client = new HttpClient(handler, Timeout = Timeout.InfiniteTimeSpan)

    let tenthsOf name =
        if options.BySecond.Contains name then 10 else 1

    /// How many requests a limit allows in its own window.
    let permitsOf name =
        max 1 (options.RateLimits[name] / tenthsOf name)

    // The exchange counts in any window of time; the limiter counts in segments, and gives a permit back with the segment in which it
    // was taken. Fifty segments for the window and one more: then no permit comes back too early, and few come back late.
    let limiters =
        options.RateLimits
        |> Map.map (fun name _ ->
            new SlidingWindowRateLimiter(
                SlidingWindowRateLimiterOptions(
                    PermitLimit = permitsOf name,
                    Window = options.Window / float (tenthsOf name) * 1.02,
                    SegmentsPerWindow = 51,
                    QueueLimit = Int32.MaxValue,
                    QueueProcessingOrder = QueueProcessingOrder.OldestFirst,
                    AutoReplenishment = true
                )
            ))

    let now () =
        Instant.ofDateTimeOffset (clock.GetUtcNow())

    /// Waits for a permit of every limit that the endpoint counts against: of the widest first, so that the permit of the narrowest,
    /// which is the one that is waited for, is taken when the request goes out.
    let admitted endpoint (ct: CancellationToken) = task {
        let mine =
            options.LimitsOf endpoint
            |> List.distinct
            |> List.filter options.RateLimits.ContainsKey
            |> List.sortByDescending (fun name -> options.RateLimits[name])

        for name in mine do
            use! lease = limiters[name].AcquireAsync(1, ct)
            ignore lease.IsAcquired // it always is: the queue has no bound
    }

    let message (request: Request) =
        let root = options.Hosts[request.Host]
        let address = Uri(root.AbsoluteUri.TrimEnd('/') + request.Path)

        let message =
            match request.Body with
            | ValueNone -> new HttpRequestMessage(HttpMethod.Get, address)
            | ValueSome body ->
                new HttpRequestMessage(
                    HttpMethod.Post,
                    address,
                    Content = new StringContent(body, Encoding.UTF8, "application/json")
                )

        for name, value in options.Sign message.Method.Method address.AbsolutePath (now ()) do
            message.Headers.Add(name, value)

        message

    /// A member of an error's body, when that is a JSON object with such a member.
    let read name (body: ReadOnlyMemory<byte>) (value: Json.JsonElement -> 'T voption) =
        try
            use document = Json.JsonDocument.Parse body

            if document.RootElement.ValueKind = Json.JsonValueKind.Object then
                match document.RootElement.TryGetProperty(name: string) with
                | true, found -> value found
                | _ -> ValueNone
            else
                ValueNone
        with :? Json.JsonException ->
            ValueNone

    /// An error's body in a few words: its `error` text, else its beginning.
    let summary (body: ReadOnlyMemory<byte>) =
        read "error" body (fun error -> ValueSome(error.ToString()))
        |> ValueOption.defaultWith (fun () ->
            Encoding.UTF8.GetString(body.Span.Slice(0, min 2048 body.Length)))
        |> fun text -> text.ReplaceLineEndings " "
        |> fun text ->
            if text.Length > 200 then
                text.Substring(0, 200) + "…"
            else
                text

    let isHtml (response: HttpResponseMessage) (body: ReadOnlyMemory<byte>) =
        let declared =
            match response.Content.Headers.ContentType with
            | null -> false
            | kind -> kind.MediaType = "text/html"

        declared || body.Span.TrimStart(" \r\n\t"B.AsSpan()).StartsWith("<"B.AsSpan())

    let faultOf (response: HttpResponseMessage) (body: ReadOnlyMemory<byte>) =
        let status = int response.StatusCode

        if status = 429 then
            RetryAfter.find clock response
            |> ValueOption.orElseWith (fun () ->
                read "retry_after_seconds" body (fun seconds ->
                    if seconds.ValueKind = Json.JsonValueKind.Number then
                        ValueSome(TimeSpan.FromSeconds(Math.Clamp(seconds.GetDouble(), 0.0, 86_400.0)))
                    else
                        ValueNone))
            |> Fault.Throttled
            |> ValueSome
        elif status = 425 then
            ValueSome Fault.Restarting
        elif isHtml response body then
            ValueSome(Fault.Failing(status, "a page in HTML instead of JSON"))
        elif status >= 500 then
            ValueSome(Fault.Failing(status, summary body))
        elif status < 200 || status >= 300 then
            ValueSome(Fault.Refused(status, summary body))
        else
            ValueNone

    let readInto (stream: Stream) (buffer: Memory<byte>) (ct: CancellationToken) = task {
        try
            return! stream.ReadAsync(buffer, ct)
        with :? InvalidOperationException as error ->
            // NOTE: what Brotli throws where gzip throws `InvalidDataException`.
            return raise (InvalidDataException error.Message)
    }

    // Answers seldom say how long they are, and are about as long as the last one: growing into large buffers would leave one of every
    // size to the pool, for each thread that reads.
    let lengths = ConcurrentDictionary<string, int64>()

    /// Reads a body of any length up to the limit into a rented buffer.
    let receive (endpoint: string) (response: HttpResponseMessage) (ct: CancellationToken) = task {
        use! stream = response.Content.ReadAsStreamAsync ct

        let expected =
            match Option.ofNullable response.Content.Headers.ContentLength with
            | Some length -> length
            | None ->
                match lengths.TryGetValue endpoint with
                | true, last -> last + last / 8L
                | _ -> 65_536L

        let mutable buffer =
            ArrayPool<byte>.Shared.Rent(int (min (max expected 4096L) 16_777_216L) + 1)

        let mutable length, more = 0, true

        while more do
            if length = buffer.Length then
                let larger = ArrayPool<byte>.Shared.Rent(buffer.Length * 2)
                Array.blit buffer 0 larger 0 length
                ArrayPool<byte>.Shared.Return buffer
                buffer <- larger

            let! count =
                readInto stream (Memory<byte>(buffer, length, buffer.Length - length)) ct

            length <- length + count
            more <- count > 0 && int64 length <= options.MaxResponse

        lengths[endpoint] <- int64 length
        return struct (buffer, length)
    }

    // How far our clock is ahead, smoothed over some answers.
    let mutable skew: TimeSpan voption = ValueNone

    /// An answer says when it was made, without the fraction of the second: half of one is what is left out on average.
    let compareClocks (response: HttpResponseMessage) =
        match Option.ofNullable response.Headers.Date with
        | None -> ()
        | Some date ->
            let found = clock.GetUtcNow() - date - TimeSpan.FromSeconds 0.5

            skew <-
                match skew with
                | ValueSome before when (found - before).Duration() < TimeSpan.FromSeconds 5.0 ->
                    ValueSome(before + (found - before) / 8.0)
                | _ -> ValueSome found

    /// One attempt: sends, reads, judges. Whatever .NET throws on the way becomes a fault here.
    let attempt (request: Request) (judge: Judge<'T>) (ct: CancellationToken) : Task<Result<'T, Failure>> =
        task {
            use limited = CancellationTokenSource.CreateLinkedTokenSource ct
            let failed fault = Error { Fault = fault; Body = [||] }

            try
                let asked = clock.GetTimestamp()
                do! admitted request.Endpoint ct
                meters.Add(Took.limiter, $"endpoint={request.Endpoint}", clock.GetElapsedTime asked)
                limited.CancelAfter options.Timeout
                use message = message request
                let sent = clock.GetTimestamp()

                use! response =
                    client.SendAsync(message, HttpCompletionOption.ResponseHeadersRead, limited.Token)

                let! struct (buffer, length) = receive request.Endpoint response limited.Token

                try
                    let body = ReadOnlyMemory<byte>(buffer, 0, length)
                    meters.Add(Count.bytesReceived, $"endpoint={request.Endpoint}", int64 length)
                    meters.Add(Took.request, $"endpoint={request.Endpoint}", clock.GetElapsedTime sent)
                    meters.Heard(now ())
                    compareClocks response

                    if int64 length > options.MaxResponse then
                        return failed (Fault.TooLarge options.MaxResponse)
                    else
                        match faultOf response body with
                        | ValueSome fault -> return failed fault
                        | ValueNone ->
                            match judge.Invoke(body, now ()) with
                            | Ok value -> return Ok value
                            | Error fault -> return Error { Fault = fault; Body = body.ToArray() }
                finally
                    ArrayPool<byte>.Shared.Return buffer
            with
            | :? OperationCanceledException when not ct.IsCancellationRequested ->
                return failed (Fault.TimedOut options.Timeout)
            | :? HttpRequestException as error -> return failed (Fault.Unreachable error.Message)
            | :? IOException as error -> return failed (Fault.Unreachable error.Message)
            | :? InvalidDataException as error -> return failed (Fault.Undecodable(0, error.Message))
        }

    /// The moment, by the clock that everything here goes by.
    member _.Now = now ()

    /// How far our clock is ahead of the exchange's, to about a second; nothing before the first answer.
    member _.Skew = skew

    /// What each limit leaves at present, and what it allows in its window.
    member _.Headroom: struct (string * int64 * int) list = [
        for KeyValue(name, limiter) in limiters do
            match limiter.GetStatistics() with
            | null -> ()
            | statistics -> struct (name, statistics.CurrentAvailablePermits, permitsOf name)
    ]

    /// How many requests the narrowest limit of an endpoint leaves at present, and how many it allows in its window.
    member _.Left(endpoint: string) : struct (int64 * int) =
        options.LimitsOf endpoint
        |> List.filter options.RateLimits.ContainsKey
        |> List.sortBy permitsOf
        |> List.tryHead
        |> Option.map (fun name ->
            let left =
                match limiters[name].GetStatistics() with
                | null -> 0L
                | statistics -> statistics.CurrentAvailablePermits

            struct (left, permitsOf name))
        |> Option.defaultValue (struct (Int64.MaxValue, Int32.MaxValue))

    /// Asks once, and again as long as the fault's verdict says so. The judge may be called for each attempt; what it did for one
    /// that failed must not count. Answers the last failure; throws only when cancelled.
    member _.Ask<'T>(request: Request, judge: Judge<'T>, ct: CancellationToken) : Task<Result<'T, Failure>> =
        task {
            let last = ref ValueNone

            let outcome (tried: Attempt) =
                match tried.Failure with
                | ValueNone -> "ok"
                | ValueSome failure -> string (Fault.cause failure.Fault)

            /// Attempts count from 1.
            let wait number (tried: Attempt | null) =
                match tried with
                | null -> ValueNone
                | tried ->
                    match
                        tried.Failure
                        |> ValueOption.map (fun failure -> Fault.verdict number failure.Fault)
                    with
                    | ValueSome(FaultVerdict.RetryAfter wait) -> ValueSome wait
                    | _ -> ValueNone

            let strategy =
                RetryStrategyOptions<Attempt>(
                    MaxRetryAttempts = max 1 options.Retries,
                    ShouldHandle =
                        (fun state ->
                            let again =
                                options.Retries > 0
                                && (wait (state.AttemptNumber + 1) state.Outcome.Result).IsSome

                            ValueTask<bool> again),
                    DelayGenerator =
                        (fun state ->
                            match wait (state.AttemptNumber + 1) state.Outcome.Result with
                            | ValueSome wait -> ValueTask<Nullable<TimeSpan>>(Nullable wait)
                            | ValueNone -> ValueTask<Nullable<TimeSpan>>(Nullable())),
                    OnRetry =
                        (fun state ->
                            match state.Outcome.Result with
                            | null -> ()
                            | tried ->
                                tried.Failure
                                |> ValueOption.iter (fun failure ->
                                    let fault = Fault.explain failure.Fault

                                    Log.retrying
                                        log
                                        request.Endpoint
                                        fault
                                        (state.AttemptNumber + 1)
                                        state.RetryDelay)

                            ValueTask.CompletedTask)
                )

            let pipeline =
                ResiliencePipelineBuilder<Attempt>(TimeProvider = clock).AddRetry(strategy).Build()

            let once (ct: CancellationToken) = task {
                use span = Trace.start "request" Diagnostics.ActivityKind.Client
                span |> Trace.tag "endpoint" (fun () -> request.Endpoint)
                let! result = attempt request judge ct
                last.Value <- ValueSome result

                let tried = {
                    Failure =
                        match result with
                        | Ok _ -> ValueNone
                        | Error failure -> ValueSome failure
                }

                let outcome = outcome tried
                span |> Trace.tag "outcome" (fun () -> outcome)
                meters.Add(Count.requests, $"endpoint={request.Endpoint},outcome={outcome}")
                return tried
            }

            let! _ = pipeline.ExecuteAsync((fun ct -> ValueTask<Attempt>(once ct)), ct)
            return last.Value.Value
        }

    interface IDisposable with
        member _.Dispose() =
            client.Dispose()

            for KeyValue(_, limiter) in limiters do
                limiter.Dispose()
