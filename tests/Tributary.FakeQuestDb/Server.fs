namespace Tributary.FakeQuestDb

open System
open System.Collections.Generic
open System.IO
open System.IO.Compression
open System.Net
open System.Net.Sockets
open System.Text
open System.Text.Json
open System.Threading
open System.Threading.Tasks
open Microsoft.AspNetCore.Builder
open Microsoft.AspNetCore.Connections.Features
open Microsoft.AspNetCore.Hosting
open Microsoft.AspNetCore.Http
open Microsoft.Extensions.DependencyInjection
open Microsoft.Extensions.Hosting

/// What the server is like. Start from `FakeQuestDbOptions.Default`.
type FakeQuestDbOptions = {
    /// The port on 127.0.0.1; 0 takes any free one.
    Port: int
    /// Where the log of everything committed is kept; without it, all is gone with the process.
    DataFolder: string option
    /// The newest version of the line protocol it speaks, 1 to 3.
    MaxProtocol: int
    MaxNameLength: int
    /// Whether a row makes the table that it is for.
    CreateTables: bool
    /// Whether a row makes the columns that it has.
    CreateColumns: bool
    /// Answers 421 to every write.
    ReadOnly: bool
    /// How long committed rows stay invisible.
    ApplyDelay: TimeSpan
    /// Name and password that `/write` and `/exec` want.
    User: (string * string) option
    /// The bearer token that `/write` and `/exec` want.
    Token: string option
    /// See `IlpOptions`.
    Strict: bool
    /// Whether there is a `/settings`; old servers have none.
    HasSettings: bool
    /// How much of the end of the log is lost at the start, counted back from its last record: a loss of power.
    ForgetUnsynced: TimeSpan
    Clock: TimeProvider
} with

    static member Default = {
        Port = 0
        DataFolder = None
        MaxProtocol = 3
        MaxNameLength = 127
        CreateTables = true
        CreateColumns = true
        ReadOnly = false
        ApplyDelay = TimeSpan.Zero
        User = None
        Token = None
        Strict = true
        HasSettings = true
        ForgetUnsynced = TimeSpan.Zero
        Clock = TimeProvider.System
    }

/// Leaves Ctrl-C and SIGTERM to the program that the server runs in.
[<Sealed>]
type internal NoLifetime() =
    interface IHostLifetime with
        member _.WaitForStartAsync _ = Task.CompletedTask
        member _.StopAsync _ = Task.CompletedTask

/// What a connection knows of the tables that it wrote to.
type internal Remembered = {
    Epoch: int
    Tables: Dictionary<string, int>
}

/// The way of a request through the server.
[<Sealed>]
type internal Handler
    (options: FakeQuestDbOptions, database: unit -> Database, faults: Faults, counters: Counters) =
    let instance = Guid.NewGuid().ToString("N").Substring(0, 12)
    let mutable errors = 0

    let sendText (http: HttpContext) (status: int) (contentType: string) (body: string) : Task = task {
        http.Response.StatusCode <- status
        http.Response.ContentType <- contentType
        do! http.Response.Body.WriteAsync(ReadOnlyMemory(Encoding.UTF8.GetBytes body))
    }

    let json (write: Utf8JsonWriter -> unit) =
        use buffer = new MemoryStream()

        use writer =
            new Utf8JsonWriter(
                buffer,
                JsonWriterOptions(Encoder = Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping)
            )

        writer.WriteStartObject()
        write writer
        writer.WriteEndObject()
        writer.Flush()
        Encoding.UTF8.GetString(buffer.ToArray())

    let sendJson http status write =
        sendText http status "application/json; charset=utf-8" (json write)

    let sendError http status (code: string) (message: string) (line: int voption) =
        let number = Interlocked.Increment &errors

        sendJson http status (fun writer ->
            writer.WriteString("code", code)
            writer.WriteString("message", message)
            line |> ValueOption.iter (fun line -> writer.WriteNumber("line", line))
            writer.WriteString("errorId", $"{instance}-{number}"))

    let sendExecError http (query: string) (position: int) (message: string) =
        sendJson http 400 (fun writer ->
            writer.WriteString("query", query)
            writer.WriteString("error", message)
            writer.WriteNumber("position", position))

    let mayEnter (http: HttpContext) =
        let given = string http.Request.Headers.Authorization

        let basic (user, password) =
            given = "Basic " + Convert.ToBase64String(Encoding.UTF8.GetBytes $"{user}:{password}")

        match options.User, options.Token with
        | None, None -> true
        | user, token ->
            Option.exists basic user
            || token |> Option.exists (fun token -> given = "Bearer " + token)

    let precision (http: HttpContext) =
        match string http.Request.Query["precision"] with
        | ""
        | "n"
        | "ns" -> ValueSome TimeUnit.Nanos
        | "u"
        | "us" -> ValueSome TimeUnit.Micros
        | "ms" -> ValueSome TimeUnit.Millis
        | "s" -> ValueSome TimeUnit.Seconds
        | "m" -> ValueSome TimeUnit.Minutes
        | "h" -> ValueSome TimeUnit.Hours
        | _ -> ValueNone

    let remembered (http: HttpContext) (database: Database) =
        let key: obj = "questdb.tables"

        let fresh () = {
            Epoch = database.Epoch
            Tables = Dictionary<string, int>(StringComparer.OrdinalIgnoreCase)
        }

        match http.Features.Get<IConnectionItemsFeature>() with
        | null -> (fresh ()).Tables
        | connection ->
            match connection.Items.TryGetValue key with
            | true, (:? Remembered as known) when known.Epoch = database.Epoch -> known.Tables
            | _ ->
                let known = fresh ()
                connection.Items[key] <- known
                known.Tables

    let hang (http: HttpContext) : Task = task {
        try
            do! Task.Delay(Timeout.InfiniteTimeSpan, http.RequestAborted)
        with :? OperationCanceledException ->
            http.Abort()
    }

    /// The body as it came; None when it was told to break off.
    let bodyOf (http: HttpContext) breakOff = task {
        let buffer =
            new MemoryStream(int (min 1_000_000_000L (http.Request.ContentLength.GetValueOrDefault 0L)))

        if breakOff then
            let some = Array.zeroCreate<byte> 1024
            let! _ = http.Request.Body.ReadAsync(Memory some)
            http.Abort()
            return None
        else
            do! http.Request.Body.CopyToAsync(buffer, http.RequestAborted)
            return Some(ReadOnlyMemory(buffer.GetBuffer(), 0, int buffer.Length))
    }

    let unzip (body: ReadOnlyMemory<byte>) =
        try
            use input =
                new GZipStream(new MemoryStream(body.ToArray()), CompressionMode.Decompress)

            use output = new MemoryStream()
            input.CopyTo output

            if output.Length = 0L && body.Length > 0 && body.Span[0] <> 0x1fuy then
                None
            else
                Some(ReadOnlyMemory(output.ToArray()))
        with :? InvalidDataException ->
            None

    /// Answers one write; tells the tables with their rows.
    let write (http: HttpContext) (body: ReadOnlyMemory<byte>) : Task<(string * int) list> = task {
        let unzipped =
            if string http.Request.Headers.ContentEncoding = "gzip" then
                unzip body
            else
                Some body

        match unzipped, precision http with
        | None, _ ->
            do! sendError http 415 "not supported" "gzip decompression failed" (ValueSome 0)
            return []
        | _, ValueNone ->
            do! sendError http 400 "not supported" "unsupported precision" (ValueSome 0)
            return []
        | Some body, ValueSome precision ->
            let rows, error =
                Ilp.read
                    {
                        MaxProtocol = options.MaxProtocol
                        Precision = precision
                        Strict = options.Strict
                        MaxName = options.MaxNameLength
                    }
                    body

            let tables = rows |> Seq.countBy _.Table |> List.ofSeq
            let database = database ()

            let fault =
                faults.Take("/write", Seq.map fst tables, Bytes.contains body, (fun _ -> true))

            let commit (answer: unit -> Task) : Task = task {
                match database.Write(remembered http database, rows, error) with
                | Ok() -> do! answer ()
                | Error error ->
                    do! sendError http error.Status error.Code error.Message (ValueSome error.Line)
            }

            let accepted () : Task =
                http.Response.StatusCode <- 204
                Task.CompletedTask

            match fault with
            | ValueNone -> do! commit accepted
            | ValueSome(FaultKind.Slow time) ->
                do! Task.Delay(time, options.Clock, http.RequestAborted)
                do! commit accepted
            | ValueSome(FaultKind.Abort | FaultKind.CloseMidBody) -> http.Abort()
            | ValueSome FaultKind.Hang -> do! hang http
            | ValueSome(FaultKind.Answer(status, contentType, body)) ->
                do! sendText http status contentType body
            | ValueSome(FaultKind.Refuse(status, code, message, line)) ->
                do! sendError http status code message line
            | ValueSome FaultKind.CommitThenAbort ->
                do!
                    commit (fun () ->
                        http.Abort()
                        Task.CompletedTask)
            | ValueSome(FaultKind.Suspend(tag, message)) ->
                for table, _ in tables do
                    database.Suspend(table, tag, message)

                do! commit accepted
            | ValueSome(FaultKind.RejectRow text) ->
                let at = body.Span.IndexOf(ReadOnlySpan(Encoding.UTF8.GetBytes text))

                let line =
                    rows
                    |> Seq.tryFind (fun row -> at < row.Start + row.Length)
                    |> Option.map _.Number
                    |> Option.defaultValue (rows.Count + 1)

                do! sendError http 400 "invalid" (Ilp.errorText line "poison") (ValueSome line)

            return tables
    }

    let exec (http: HttpContext) : Task = task {
        let query = string http.Request.Query["query"]

        let limits =
            (string http.Request.Query["limit"]).Split(',', StringSplitOptions.RemoveEmptyEntries)

        let skip, take =
            match limits with
            | [| count |] -> 0, int count
            | [| first; last |] -> int first, int last
            | _ -> 0, Int32.MaxValue

        let run () : Task = task {
            let quoteLongs = string http.Request.Query["quoteLargeNum"] = "true"

            match database().Execute(query, quoteLongs, skip, take) with
            | Ok body ->
                http.Response.ContentType <- "application/json; charset=utf-8"
                do! http.Response.Body.WriteAsync body
            | Error(struct (position, message)) -> do! sendExecError http query position message
        }

        let has (text: string) =
            query.Contains(text, StringComparison.OrdinalIgnoreCase)

        match faults.Take("/exec", [], has, (fun _ -> true)) with
        | ValueSome(FaultKind.Slow time) ->
            do! Task.Delay(time, options.Clock, http.RequestAborted)
            do! run ()
        | ValueSome(FaultKind.Abort | FaultKind.CloseMidBody) -> http.Abort()
        | ValueSome FaultKind.Hang -> do! hang http
        | ValueSome(FaultKind.Answer(status, contentType, body)) -> do! sendText http status contentType body
        | ValueSome(FaultKind.Refuse(400, "", message, line)) ->
            do! sendExecError http query (ValueOption.defaultValue 0 line) message
        | ValueSome(FaultKind.Refuse(status, code, message, line)) ->
            do! sendError http status code message line
        | ValueSome FaultKind.CommitThenAbort ->
            database().Execute(query, false, 0, Int32.MaxValue) |> ignore
            http.Abort()
        | _ -> do! run ()
    }

    let settings (http: HttpContext) : Task =
        sendJson http 200 (fun writer ->
            writer.WriteStartObject "config"
            writer.WriteString("release.type", "OSS")
            writer.WriteString("release.version", "9.4.4")
            writer.WriteBoolean("acl.enabled", options.User.IsSome || options.Token.IsSome)

            if options.MaxProtocol > 1 then
                writer.WriteStartArray "line.proto.support.versions"

                for version in 1 .. options.MaxProtocol do
                    writer.WriteNumberValue version

                writer.WriteEndArray()
                writer.WriteStartArray "ilp.proto.transports"
                writer.WriteStringValue "http"
                writer.WriteEndArray()

            writer.WriteNumber("cairo.max.file.name.length", options.MaxNameLength)
            writer.WriteStartArray "accepting.writes"

            if not options.ReadOnly then
                writer.WriteStringValue "http"

            writer.WriteEndArray()
            writer.WriteEndObject()
            writer.WriteNumber("preferences.version", 0)
            writer.WriteStartObject "preferences"
            writer.WriteEndObject())

    let plain (http: HttpContext) path (answer: unit -> Task) : Task = task {
        match faults.Take(path, [], (fun _ -> false), (fun _ -> true)) with
        | ValueNone -> do! answer ()
        | ValueSome(FaultKind.Slow time) ->
            do! Task.Delay(time, options.Clock, http.RequestAborted)
            do! answer ()
        | ValueSome(FaultKind.Answer(status, contentType, body)) -> do! sendText http status contentType body
        | ValueSome(FaultKind.Refuse(status, code, message, line)) ->
            do! sendError http status code message line
        | ValueSome FaultKind.Hang -> do! hang http
        | ValueSome _ -> http.Abort()
    }

    let state (http: HttpContext) : Task =
        let counts (writer: Utf8JsonWriter) (name: string) (source: Map<string, int64>) =
            writer.WriteStartObject name

            for KeyValue(table, rows) in source do
                writer.WriteNumber(table, rows)

            writer.WriteEndObject()

        sendJson http 200 (fun writer ->
            let requests = counters.Requests
            writer.WriteStartObject "requests"

            for path, count in requests |> List.countBy _.Path do
                writer.WriteNumber(path, count)

            writer.WriteEndObject()
            counts writer "rowsReceived" counters.RowsReceived
            counts writer "rowsAcknowledged" counters.RowsAcknowledged
            writer.WriteNumber("bytes", counters.Bytes)
            let struct (measured, time) = counters.Measured
            writer.WriteNumber("measuredBytes", measured)
            writer.WriteNumber("measuredSeconds", time.TotalSeconds)
            writer.WriteNumber("connections", counters.Connections)
            writer.WriteNumber("mostConcurrent", counters.MostConcurrent)
            writer.WriteNumber("faults", faults.Remaining.Length)
            writer.WriteBoolean("settled", database().Settled))

    let control (http: HttpContext) : Task = task {
        try
            use! body = JsonDocument.ParseAsync http.Request.Body

            let one (json: JsonElement) =
                match json.TryGetProperty "do" with
                | true, verb when string verb = "clear" -> faults.Clear()
                | true, verb when string verb = "measure" -> counters.Measure()
                | true, verb when string verb = "forgetUnsynced" ->
                    let seconds = json.GetProperty("seconds").GetDouble()
                    database().ForgetAfter(options.Clock.GetUtcNow().AddSeconds -seconds)
                | true, verb -> invalidArg "do" $"there is no '{verb}' to do"
                | _ -> faults.Add(Fault.ofJson json)

            if body.RootElement.ValueKind = JsonValueKind.Array then
                Seq.iter one (body.RootElement.EnumerateArray())
            else
                one body.RootElement

            do! state http
        with
        | :? JsonException
        | :? ArgumentException
        | :? InvalidOperationException
        | :? KeyNotFoundException as mistake -> do! sendError http 400 "invalid" mistake.Message ValueNone
    }

    /// Answers one HTTP request.
    member _.Handle(http: HttpContext) : Task = task {
        let path =
            match string http.Request.Path with
            | "/api/v2/write" -> "/write"
            | path -> path

        let mutable rows: (string * int) list = []
        let mutable bytes = 0

        let refused status text =
            sendText http status "text/plain; charset=utf-8" text

        if path = "/control" then
            if http.Request.Method = "POST" then
                do! control http
            else
                do! state http
        else
            let isWrite = path = "/write"

            if isWrite then
                counters.Enter()

            try
                match path, http.Request.Method with
                | ("/write" | "/exec"), _ when not (mayEnter http) -> do! refused 401 "Unauthorized\r\n"
                | "/write", "POST" ->
                    let breakOff =
                        faults.Take(
                            "/write",
                            [],
                            (fun _ -> false),
                            (fun kind -> kind = FaultKind.CloseMidBody)
                        )

                    match! bodyOf http breakOff.IsSome with
                    | None -> ()
                    | Some body ->
                        bytes <- body.Length

                        if options.ReadOnly then
                            do!
                                sendError
                                    http
                                    421
                                    "not accepting writes"
                                    "the instance is read-only"
                                    (ValueSome 0)
                        else
                            let! written = write http body
                            rows <- written
                | "/exec", "GET" -> do! exec http
                | "/settings", "GET" when options.HasSettings -> do! plain http path (fun () -> settings http)
                | "/ping", _ ->
                    do!
                        plain http path (fun () ->
                            http.Response.Headers["X-Influxdb-Version"] <- "v2.7.4"
                            http.Response.StatusCode <- 204
                            Task.CompletedTask)
                | "/settings", "GET" -> do! refused 404 "Not Found\r\n"
                | ("/write" | "/exec" | "/settings"), _
                | "/api/v3/write_lp", _ -> do! refused 405 "Method not supported\r\n"
                | _ -> do! refused 404 "Not Found\r\n"
            finally
                if isWrite then
                    counters.Leave()

                let aborted = http.RequestAborted.IsCancellationRequested

                counters.Add(
                    {
                        At = options.Clock.GetUtcNow()
                        Method = http.Request.Method
                        Path = path
                        Statement = string http.Request.Query["query"]
                        Connection = http.Connection.Id
                        Tables = List.map fst rows
                        Rows = List.sumBy snd rows
                        Bytes = bytes
                        Status = if aborted then 0 else http.Response.StatusCode
                    },
                    rows
                )
    }

/// A server on a real socket of 127.0.0.1 that behaves like QuestDB towards whoever writes lines to `/write` and asks at `/exec`.
[<Sealed>]
type FakeQuestDb private (options: FakeQuestDbOptions) =
    let faults = Faults()
    let counters = Counters()
    let mutable database: Database voption = ValueNone
    let mutable app: WebApplication voption = ValueNone
    let mutable port = options.Port

    let opened () =
        match database with
        | ValueSome database -> database
        | ValueNone -> invalidOp "the server is stopped"

    let handler = Handler(options, opened, faults, counters)

    let listen (ct: CancellationToken) : Task = task {
        let builder = WebApplication.CreateEmptyBuilder(WebApplicationOptions())

        builder.WebHost
            .UseKestrelCore()
            .ConfigureKestrel(fun kestrel ->
                kestrel.AddServerHeader <- false
                kestrel.Limits.MaxRequestBodySize <- Nullable()
                kestrel.Limits.MinRequestBodyDataRate <- null
                kestrel.Limits.MaxRequestLineSize <- 65_536
                kestrel.Limits.MaxRequestHeadersTotalSize <- 65_536
                kestrel.Listen(IPAddress.Loopback, port))
        |> ignore

        builder.Services.AddSingleton<IHostLifetime, NoLifetime>() |> ignore
        let built = builder.Build()

        built.Run(
            RequestDelegate(fun http -> task {
                try
                    do! handler.Handle http
                with
                | :? OperationCanceledException
                | :? IOException
                | :? ObjectDisposedException // stopped meanwhile
                | :? InvalidOperationException
                | :? BadHttpRequestException -> http.Abort()
            })
        )

        try
            do! built.StartAsync ct
            app <- ValueSome built
            port <- Uri(Seq.head built.Urls).Port
        with _ ->
            do! built.DisposeAsync()
            raise (IOException $"port {port} is taken")
    }

    member private _.Open(forget: TimeSpan) =
        if database.IsNone then
            database <-
                ValueSome(
                    new Database(
                        {
                            Folder = options.DataFolder
                            ApplyDelay = options.ApplyDelay
                            CreateTables = options.CreateTables
                            CreateColumns = options.CreateColumns
                            Clock = options.Clock
                            Forget = forget
                        }
                    )
                )

    /// Starts a server; it answers when the task is done.
    static member StartAsync(options: FakeQuestDbOptions, ct: CancellationToken) : Task<FakeQuestDb> = task {
        let fake = FakeQuestDb options
        fake.Open options.ForgetUnsynced
        do! fake.ListenAsync ct
        return fake
    }

    member private _.ListenAsync(ct: CancellationToken) : Task = listen ct

    /// `http://127.0.0.1:PORT/`, also while it is stopped.
    member _.Address = Uri $"http://127.0.0.1:{port}/"

    member _.Port = port

    /// The faults to come. They may be added at any time.
    member _.Faults = faults

    member _.Counters = counters

    /// Breaks all connections and refuses new ones. With a data folder the tables are closed, too.
    member _.StopAsync() : Task = task {
        match app with
        | ValueSome running ->
            app <- ValueNone
            do! running.StopAsync(CancellationToken true)
            do! running.DisposeAsync()
        | ValueNone -> ()

        if options.DataFolder.IsSome then
            match database with
            | ValueSome closing ->
                database <- ValueNone
                do! (closing :> IAsyncDisposable).DisposeAsync()
            | ValueNone -> ()
    }

    /// After `StopAsync`: the same port and the same tables, which a data folder gives back from its log.
    member this.StartAgainAsync(ct: CancellationToken) : Task = task {
        this.Open TimeSpan.Zero
        do! listen ct
    }

    /// Runs a statement as `/exec` would; fails when it is refused.
    member _.Execute(sql: string) : JsonElement =
        match opened().Execute(sql, false, 0, Int32.MaxValue) with
        | Ok body ->
            use document = JsonDocument.Parse body
            document.RootElement.Clone()
        | Error(struct (position, message)) -> invalidOp $"{message} (at {position} of {sql})"

    /// The one number that a query answers, such as a count.
    member this.Number(sql: string) : int64 =
        this.Execute(sql).GetProperty("dataset").[0].[0].GetInt64()

    /// Loses what was written in this last time, as when the power goes. Needs a data folder.
    member _.ForgetUnsynced(last: TimeSpan) =
        opened().ForgetAfter(options.Clock.GetUtcNow() - last)

    /// Whether everything written can be seen, except in suspended tables.
    member _.IsSettled = opened().Settled

    /// Is done when everything written can be seen, except in suspended tables.
    member this.SettledAsync(ct: CancellationToken) : Task = task {
        while not this.IsSettled do
            do! Task.Delay(2, ct)
    }

    interface IAsyncDisposable with
        member this.DisposeAsync() =
            ValueTask(
                task {
                    do! this.StopAsync()

                    match database with
                    | ValueSome closing ->
                        database <- ValueNone
                        do! (closing :> IAsyncDisposable).DisposeAsync()
                    | ValueNone -> ()
                }
                :> Task
            )
