namespace Tributary.Stores.QuestDb

open System
open System.Buffers
open System.Collections.Generic
open System.IO
open System.IO.Compression
open System.Net
open System.Net.Http
open System.Net.Http.Headers
open System.Net.Security
open System.Net.Sockets
open System.Security.Cryptography.X509Certificates
open System.Text
open System.Text.Json
open System.Threading
open System.Threading.Tasks
open Tributary

/// QuestDB did not do what it was asked. The message names the address and what to do, and holds no secret.
[<Sealed>]
type QuestDbException(message: string, isDenied: bool) =
    inherit IOException(message)
    /// It was asked of a table that is not there.
    member _.IsNoTable = message.Contains "table does not exist"
    /// Nothing will change until a person does something about it.
    member _.IsDenied = isDenied

/// What a query answered: values by the names of their columns.
[<Sealed>]
type internal Answered(document: JsonDocument) =
    let root = document.RootElement

    let places =
        match root.TryGetProperty "columns" with
        | true, columns ->
            columns.EnumerateArray()
            |> Seq.mapi (fun i column -> KeyValuePair(string (column.GetProperty("name").GetString()), i))
            |> Dictionary
        | _ -> Dictionary()

    member _.Columns: string seq = places.Keys
    member _.Has(column: string) = places.ContainsKey column

    member _.Rows: JsonElement seq =
        match root.TryGetProperty "dataset" with
        | true, dataset -> dataset.EnumerateArray()
        | _ -> Seq.empty

    /// A value of a row; undefined when there is no such column.
    member _.Value(row: JsonElement, column: string) : JsonElement =
        match places.TryGetValue column with
        | true, place -> row[place]
        | _ -> JsonElement()

    interface IDisposable with
        member _.Dispose() = document.Dispose()

/// A server, or one and its replicas: asked over HTTP, each user of it over a connection of its own.
[<Sealed>]
type internal Server(options: ConnectionOptions, clock: TimeProvider) =
    let addresses = Array.ofList options.Uris
    // The address that answered last; all users move on together when it does not.
    let mutable current = 0

    let roots = lazy (Server.LoadRoots options)

    let ssl () =
        let ssl = SslClientAuthenticationOptions()

        if not options.TlsVerify then
            ssl.RemoteCertificateValidationCallback <- fun _ _ _ _ -> true
        else
            match roots.Value with
            | null -> ()
            | certificates ->
                let policy = X509ChainPolicy(TrustMode = X509ChainTrustMode.CustomRootTrust)
                policy.CustomTrustStore.AddRange certificates
                policy.RevocationMode <- X509RevocationMode.NoCheck
                ssl.CertificateChainPolicy <- policy

        ssl

    /// A client with one connection, and one request on it at a time. Nothing goes over a new connection before `made` is done.
    let connect (made: CancellationToken -> Task) =
        let open' (target: DnsEndPoint) (ct: CancellationToken) : Task<IO.Stream> = task {
            let socket = new Socket(SocketType.Stream, ProtocolType.Tcp, NoDelay = true)

            try
                do! socket.ConnectAsync(target, ct)
                do! made ct
                return new NetworkStream(socket, true) :> IO.Stream
            with error ->
                socket.Dispose()
                return raise error
        }

        let handler =
            new SocketsHttpHandler(
                MaxConnectionsPerServer = 1,
                ConnectCallback = (fun context ct -> ValueTask<IO.Stream>(open' context.DnsEndPoint ct)),
                ConnectTimeout = options.AuthTimeout,
                AllowAutoRedirect = false,
                UseCookies = false,
                UseProxy = false,
                PooledConnectionLifetime = TimeSpan.FromMinutes 10.0,
                // The server closes a connection after five minutes without a request.
                PooledConnectionIdleTimeout = TimeSpan.FromMinutes 4.0
            )

        if options.Tls then
            handler.SslOptions <- ssl ()

        let client = new HttpClient(handler, Timeout = Timeout.InfiniteTimeSpan)
        client.DefaultRequestHeaders.ExpectContinue <- Nullable false

        match options.Credentials with
        | Credentials.Nobody -> ()
        | Credentials.Basic(user, password) ->
            let pair =
                Convert.ToBase64String(Encoding.UTF8.GetBytes $"{user}:{password.Reveal()}")

            client.DefaultRequestHeaders.Authorization <- AuthenticationHeaderValue("Basic", pair)
        | Credentials.Bearer token ->
            client.DefaultRequestHeaders.Authorization <- AuthenticationHeaderValue("Bearer", token.Reveal())

        client

    // Rises whenever questions may be answered by another server than before, or by the same one after it was started again.
    let mutable line = 0

    let asking =
        lazy
            (connect (fun _ ->
                Interlocked.Increment &line |> ignore
                Task.CompletedTask))

    let timeout (bytes: int) =
        let forBytes =
            if options.RequestMinThroughput > 0L then
                TimeSpan.FromSeconds(float bytes / float options.RequestMinThroughput)
            else
                TimeSpan.Zero

        options.RequestTimeout + forBytes

    /// What .NET says of a connection, in the innermost words.
    let rec words (error: exn) =
        match error.InnerException with
        | null -> error.Message
        | inner when (error :? HttpRequestException) || (error :? IOException) -> words inner
        | _ -> error.Message

    /// The authorities that are trusted; null means the system's. Throws what .NET says of the file.
    static member LoadRoots(options: ConnectionOptions) : X509Certificate2Collection | null =
        match options.Roots with
        | Roots.System -> null
        | Roots.File(path, password) ->
            let certificates = X509Certificate2Collection()

            match password with
            | ValueSome password ->
                certificates.AddRange(
                    X509CertificateLoader.LoadPkcs12CollectionFromFile(path, password.Reveal())
                )
            | ValueNone -> certificates.ImportFromPemFile path

            certificates

    member _.Options = options
    member _.Address = addresses[current % addresses.Length]

    /// The next address has its turn, unless somebody else has moved on already.
    member this.MoveOn(from: Uri) =
        if addresses.Length > 1 && this.Address = from then
            current <- (current + 1) % addresses.Length
            Interlocked.Increment &line |> ignore

    /// A client for rows. Nothing goes over its connection before `made` is done, also when it has to be made anew: who is at
    /// the other end may have lost what it had.
    member _.Connect(made: CancellationToken -> Task) = connect made

    /// The number of the connection that questions go over.
    member _.Line = Volatile.Read &line

    /// Sends rows over a connection. Throws only when `ct` is cancelled.
    member this.Send
        (client: HttpClient, rows: ReadOnlyMemory<byte>, compressed: MemoryStream, ct: CancellationToken)
        : Task<Answer> = task {
        let address = this.Address
        use limited = CancellationTokenSource.CreateLinkedTokenSource ct
        use timer = new CancellationTokenSource(timeout rows.Length, clock)
        use _ = timer.Token.Register(fun () -> limited.Cancel())

        try
            use request =
                new HttpRequestMessage(HttpMethod.Post, Uri(address, "write?precision=u"))

            let content =
                if options.Gzip then
                    compressed.SetLength 0L

                    using (new GZipStream(compressed, CompressionLevel.Fastest, true)) (fun gzip ->
                        gzip.Write rows.Span)

                    let content =
                        new ReadOnlyMemoryContent(
                            ReadOnlyMemory(compressed.GetBuffer(), 0, int compressed.Length)
                        )

                    content.Headers.ContentEncoding.Add "gzip"
                    content
                else
                    new ReadOnlyMemoryContent(rows)

            content.Headers.TryAddWithoutValidation("Content-Type", "text/plain; charset=utf-8")
            |> ignore

            request.Content <- content

            use! response =
                client.SendAsync(request, HttpCompletionOption.ResponseContentRead, limited.Token)

            let status = int response.StatusCode

            if status >= 200 && status < 300 then
                return Answer.Taken
            else
                let! body = response.Content.ReadAsStringAsync limited.Token
                let answer = Server.Judge(status, body)

                match answer with
                | Answer.Failing _
                | Answer.Denied _ -> this.MoveOn address
                | _ -> ()

                return answer
        with
        | :? OperationCanceledException when not ct.IsCancellationRequested ->
            this.MoveOn address

            let seconds = (timeout rows.Length).TotalSeconds
            return Answer.Unreachable $"{address.Authority} did not answer within %.1f{seconds} s"
        | :? HttpRequestException
        | :? IOException as error ->
            this.MoveOn address
            return Answer.Unreachable $"{address.Authority}: {words error}"
    }

    static member private Judge(status: int, body: string) =
        try
            use document = JsonDocument.Parse body

            let text =
                match document.RootElement.TryGetProperty "message" with
                | true, message -> string (message.GetString())
                | _ -> ""

            let row =
                match document.RootElement.TryGetProperty "line" with
                | true, line ->
                    match line.TryGetInt32() with
                    | true, row -> ValueSome row
                    | _ -> ValueNone
                | _ -> ValueNone

            Answer.judge status text row
        with
        | :? JsonException
        | :? InvalidOperationException ->
            let brief = body.ReplaceLineEndings(" ").Trim()

            Answer.judge
                status
                (if brief.Length > 200 then
                     brief.Substring(0, 200)
                 else
                     brief)
                ValueNone

    /// Asks for a resource at each address in turn, until one answers; a status other than 2xx comes with its body.
    member private this.Get(path: string, ct: CancellationToken) : Task<struct (int * IO.Stream)> = task {
        let mutable answer = ValueNone
        let mutable left = addresses.Length

        while answer.IsNone do
            left <- left - 1

            try
                let! found = this.GetOnce(path, ct)
                answer <- ValueSome found
            with :? QuestDbException when left > 0 ->
                ()

        return answer.Value
    }

    member private this.GetOnce(path: string, ct: CancellationToken) : Task<struct (int * IO.Stream)> = task {
        let address = this.Address
        use limited = CancellationTokenSource.CreateLinkedTokenSource ct

        use timer =
            new CancellationTokenSource(max options.RequestTimeout (TimeSpan.FromSeconds 60.0), clock)

        use _ = timer.Token.Register(fun () -> limited.Cancel())

        try
            let! response =
                asking.Value.GetAsync(
                    Uri(address, path),
                    HttpCompletionOption.ResponseContentRead,
                    limited.Token
                )

            let! body = response.Content.ReadAsStreamAsync limited.Token
            return struct (int response.StatusCode, body)
        with
        | :? OperationCanceledException when not ct.IsCancellationRequested ->
            this.MoveOn address
            return raise (QuestDbException($"QuestDB at {address.Authority} does not answer", false))
        | :? HttpRequestException
        | :? IOException as error ->
            this.MoveOn address

            return
                raise (
                    QuestDbException(
                        $"QuestDB at {address.Authority} cannot be reached ({words error}): see that it runs, and check addr",
                        false
                    )
                )
    }

    /// The newest version of the line protocol that the server and we speak.
    member this.Negotiate(ct: CancellationToken) : Task<int> = task {
        match options.ProtocolVersion with
        | ValueSome version -> return version
        | ValueNone ->
            let! struct (status, body) = this.Get("settings", ct)
            use body = body

            if status = 404 then
                return 1 // before 9.0 there was no such page
            elif status <> 200 then
                return
                    raise (
                        QuestDbException(
                            $"QuestDB at {this.Address.Authority} answers HTTP {status} when asked for its settings",
                            false
                        )
                    )
            else
                try
                    use! document = JsonDocument.ParseAsync(body, cancellationToken = ct)

                    let versions =
                        match document.RootElement.TryGetProperty "config" with
                        | true, config ->
                            match config.TryGetProperty "line.proto.support.versions" with
                            | true, versions -> [
                                for version in versions.EnumerateArray() -> version.GetInt32()
                              ]
                            | _ -> []
                        | _ -> []

                    return versions |> List.filter (fun version -> version <= 3) |> List.fold max 1
                with :? JsonException ->
                    return
                        raise (
                            QuestDbException(
                                $"what answers at {this.Address.Authority} is not QuestDB: its settings are not JSON; check addr",
                                true
                            )
                        )
    }

    /// The server's version, such as `9.4.4`; `before 9.0` when it does not tell.
    member this.Version(ct: CancellationToken) : Task<string> = task {
        let! struct (status, body) = this.Get("settings", ct)
        use body = body

        if status <> 200 then
            return "before 9.0"
        else
            try
                use! document = JsonDocument.ParseAsync(body, cancellationToken = ct)

                return
                    match document.RootElement.TryGetProperty "config" with
                    | true, config ->
                        match config.TryGetProperty "release.version" with
                        | true, version -> version.ToString()
                        | _ -> "of an unknown version"
                    | _ -> "before 9.0"
            with
            | :? JsonException
            | :? InvalidOperationException ->
                return
                    raise (
                        QuestDbException(
                            $"what answers at {this.Address.Authority} is not QuestDB: its settings are not JSON; check addr",
                            true
                        )
                    )
    }

    /// Runs a statement. Dispose of the answer.
    member this.Ask(sql: string, ct: CancellationToken) : Task<Answered> = task {
        let! struct (status, body) =
            this.Get($"exec?quoteLargeNum=true&query={Uri.EscapeDataString sql}", ct)

        use body = body

        if status = 200 then
            try
                let! document = JsonDocument.ParseAsync(body, cancellationToken = ct)
                return new Answered(document)
            with :? JsonException ->
                return
                    raise (
                        QuestDbException(
                            $"what answers at {this.Address.Authority} is not QuestDB: its answer is not JSON; check addr",
                            true
                        )
                    )
        else
            use reader = new StreamReader(body)
            let! text = reader.ReadToEndAsync ct

            let detail =
                try
                    use document = JsonDocument.Parse text

                    match document.RootElement.TryGetProperty "error" with
                    | true, error -> string (error.GetString())
                    | _ -> ""
                with
                | :? JsonException
                | :? InvalidOperationException -> ""

            return
                match status with
                | 401
                | 403 ->
                    raise (
                        QuestDbException(
                            $"QuestDB at {this.Address.Authority} does not accept the user or the token (HTTP {status}): check username and password, or token, of the connection",
                            true
                        )
                    )
                | _ when detail = "" ->
                    raise (
                        QuestDbException(
                            $"what answers at {this.Address.Authority} is not QuestDB, or not its HTTP server (HTTP {status} to a statement): check addr",
                            false
                        )
                    )
                | _ ->
                    raise (
                        QuestDbException(
                            $"QuestDB at {this.Address.Authority} refused a statement (HTTP {status}): {detail.Trim()} [{sql}]",
                            false
                        )
                    )
    }

    interface IDisposable with
        member _.Dispose() =
            if asking.IsValueCreated then
                asking.Value.Dispose()
