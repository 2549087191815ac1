namespace Tributary

open System
open System.Diagnostics
open System.IO
open System.Net
open System.Net.Http
open System.Net.Sockets
open System.Net.WebSockets
open System.Runtime.InteropServices
open System.Text
open System.Text.Json
open System.Text.RegularExpressions
open System.Threading
open System.Threading.Tasks
open SQLitePCL
open Tributary.Stores
open Tributary.Stores.QuestDb

/// What is looked at.
type DoctorOptions = {
    /// Where the settings come from, for a person.
    Place: string
    Settings: Settings
    /// What is wrong in the configuration.
    Mistakes: Mistake list
    /// How long an answer from elsewhere may take. Default 10 s.
    Patience: TimeSpan
    /// How long the store's pages are looked through for damage. Default 10 s.
    CheckTime: TimeSpan
    Clock: TimeProvider
} with

    /// The usual patience, and the system's clock.
    static member Create(place: string, settings: Settings, mistakes: Mistake list) = {
        Place = place
        Settings = settings
        Mistakes = mistakes
        Patience = TimeSpan.FromSeconds 10.0
        CheckTime = TimeSpan.FromSeconds 10.0
        Clock = TimeProvider.System
    }

/// Looks at everything that collecting needs, on this machine and around it: measures here, and has `Diagnosis` judge. It changes
/// nothing: no file is made but a small one that goes again, no table, and no version is taken forward.
[<RequireQualifiedAccess>]
module Doctor =
    // ---- words without secrets: .NET's own quote hosts and addresses, in which a key may stand

    /// `ConnectionRefused` as people say it.
    let private spoken (name: string) =
        Regex.Replace(name, "(?<!^)([A-Z])", " $1").ToLowerInvariant()

    let rec private words (patience: TimeSpan) (error: exn) =
        match error with
        | :? OperationCanceledException -> $"no answer within %.0f{patience.TotalSeconds} s"
        | :? SocketException as error -> spoken (string error.SocketErrorCode)
        | :? HttpRequestException as error when error.HttpRequestError = HttpRequestError.NameResolutionError ->
            "its name leads nowhere"
        | :? HttpRequestException as error when
            error.HttpRequestError = HttpRequestError.SecureConnectionError
            ->
            "no secure connection (is the certificate of somebody else?)"
        | :? HttpRequestException as error when error.HttpRequestError = HttpRequestError.ProxyTunnelError ->
            "the proxy does not let it through"
        | _ ->
            match error.InnerException with
            | null -> spoken (error.GetType().Name.Replace("Exception", ""))
            | inner -> words patience inner

    /// As the configuration shows it, without a user that somebody typed into it.
    let private shown (address: Tributary.Address) =
        Regex.Replace(address.Shown, "://[^/@]*@", "://")

    /// Waits no longer than the patience.
    let private patiently
        (patience: TimeSpan)
        (ct: CancellationToken)
        (ask: CancellationToken -> Task<'T>)
        : Task<Result<'T, string>> = task {
        use limited = CancellationTokenSource.CreateLinkedTokenSource ct
        limited.CancelAfter patience

        try
            let! answer = ask limited.Token
            return Ok answer
        with error when not ct.IsCancellationRequested ->
            return Error(words patience error)
    }

    // ---- the exchange

    let private lookUp options isNeeded setting (address: Tributary.Address) ct : Task<Measurement> = task {
        let! found =
            patiently options.Patience ct (fun ct -> task {
                let began = Stopwatch.GetTimestamp()
                let! found = Dns.GetHostAddressesAsync(address.Uri.IdnHost, ct)
                return struct (found.Length, Stopwatch.GetElapsedTime began)
            })

        return Measurement.Name(setting, shown address, isNeeded, found)
    }

    let private clientFor (proxy: Uri option) =
        let handler =
            new SocketsHttpHandler(
                AutomaticDecompression = (DecompressionMethods.GZip ||| DecompressionMethods.Brotli),
                AllowAutoRedirect = false,
                UseCookies = false
            )

        match proxy with
        | Some address -> handler.Proxy <- Proxy.make address
        | None -> ()

        new HttpClient(handler, Timeout = Timeout.InfiniteTimeSpan, MaxResponseContentBufferSize = 8_000_000L)

    type private Told = {
        Status: int
        IsJson: bool
        Took: TimeSpan
        Sent: Instant
        Received: Instant
        Time: Interval voption
    }

    let private isJson (body: ReadOnlyMemory<byte>) =
        try
            use _ = JsonDocument.Parse body
            true
        with :? JsonException ->
            false

    let private ask
        options
        (client: HttpClient)
        (root: Uri)
        (probe: Probe)
        (ct: CancellationToken)
        : Task<Told> = task {
        let now () =
            Instant.ofDateTimeOffset (options.Clock.GetUtcNow())

        use request =
            match probe.Body with
            | ValueNone ->
                new HttpRequestMessage(HttpMethod.Get, Uri(root.AbsoluteUri.TrimEnd '/' + probe.Path))
            | ValueSome body ->
                new HttpRequestMessage(
                    HttpMethod.Post,
                    Uri(root.AbsoluteUri.TrimEnd '/' + probe.Path),
                    Content = new StringContent(body, Encoding.UTF8, "application/json")
                )

        let began, sent = Stopwatch.GetTimestamp(), now ()
        use! response = client.SendAsync(request, ct)
        let! body = response.Content.ReadAsByteArrayAsync ct
        let took, received = Stopwatch.GetElapsedTime began, now ()

        return {
            Status = int response.StatusCode
            IsJson = isJson (ReadOnlyMemory body)
            Took = took
            Sent = sent
            Received = received
            Time = probe.Time(ReadOnlyMemory body)
        }
    }

    /// Each place once; where the time is told a few times more, for one answer alone may be off by what it is rounded to.
    let private question
        options
        client
        (address: Tributary.Address)
        (probe: Probe)
        ct
        : Task<Measurement * Told list> = task {
        let once () =
            patiently options.Patience ct (ask options client address.Uri probe)

        let! first = once ()
        let told = ResizeArray<Told>()

        match first with
        | Ok answer when answer.Time.IsSome ->
            told.Add answer

            for _ in 1..4 do
                do! Task.Delay(TimeSpan.FromMilliseconds 230.0, options.Clock, ct)

                match! once () with
                | Ok again -> told.Add again
                | Error _ -> ()
        | _ -> ()

        let answer =
            first
            |> Result.map (fun answer -> struct (answer.Status, answer.IsJson, answer.Took))

        return Measurement.Answer(probe.Host, shown address, probe.IsNeeded, answer), List.ofSeq told
    }

    /// Opens the live connection, pings, and listens until that is answered.
    let private live options (live: LiveOptions) (part: StreamPart) (ct: CancellationToken) = task {
        use socket = new ClientWebSocket()
        socket.Options.KeepAliveInterval <- Timeout.InfiniteTimeSpan

        live.Proxy
        |> Option.iter (fun proxy -> socket.Options.Proxy <- Proxy.make proxy)

        for name, value in live.Headers(Instant.ofDateTimeOffset (options.Clock.GetUtcNow())) do
            socket.Options.SetRequestHeader(name, value)

        let began = Stopwatch.GetTimestamp()
        do! socket.ConnectAsync(live.Address, ct)
        let opened, asked = Stopwatch.GetElapsedTime began, Stopwatch.GetTimestamp()
        // Where the protocol itself keeps a connection alive there is nothing to ask: it was let in.
        let isPinged = part.Ping <> ""

        if isPinged then
            do!
                socket.SendAsync(
                    ReadOnlyMemory(Encoding.UTF8.GetBytes part.Ping),
                    WebSocketMessageType.Text,
                    true,
                    ct
                )

        let frame = Frame(Names())
        let session = part.Session()
        let buffer: byte[] = Array.zeroCreate 65_536
        let mutable isOver = false

        while isPinged && frame.Pongs = 0L && not isOver do
            let! part' = socket.ReceiveAsync(Memory<byte> buffer, ct)
            isOver <- part'.MessageType = WebSocketMessageType.Close

            if not isOver then
                frame.Clear()

                session.Decode
                    (ReadOnlyMemory(buffer, 0, part'.Count))
                    (Instant.ofDateTimeOffset (options.Clock.GetUtcNow()))
                    frame

        return
            if isOver then
                Error "it was closed before it answered a ping"
            else
                Ok(struct (opened, Stopwatch.GetElapsedTime asked))
    }

    /// Whether the exchange takes the credentials of an account, where there are some.
    let private account
        options
        (settings: CollectorSettings)
        (collector: Collector)
        (transport: TransportOptions)
        (ct: CancellationToken)
        : Task<Measurement list> = task {
        let isNeeded = settings.Auth = AuthMode.Required
        let told answer = [ Measurement.Account(settings.Exchange, isNeeded, answer) ]

        match Setup.account settings, Setup.lacking settings with
        | Error reason, _
        | Ok _, Some reason -> return told (Error reason)
        | Ok None, None ->
            match collector.Admission with
            | ValueNone -> return []
            | ValueSome admission ->
                let log = Logs.logger Logs.Requests Logs.none

                let! answer =
                    patiently options.Patience ct (Admission.ask admission transport options.Clock log)

                return
                    match answer with
                    | Ok(struct (SignIn.Accepted, _)) -> Ok "'key_id'"
                    | Ok(struct (SignIn.Refused reason, _)) -> Error reason
                    | Ok(struct (SignIn.Unanswered detail, _))
                    | Error detail -> Error $"the key cannot be checked: {detail}"
                    |> told
        | Ok(Some(part, credentials)), None ->
            use meters = new Meters()

            use own =
                new OwnAccount(
                    part,
                    credentials,
                    Setup.own settings part { transport with Retries = 0 },
                    BatchPool(),
                    options.Clock,
                    meters,
                    Logs.logger Logs.Requests Logs.none
                )

            let! answer = patiently options.Patience ct own.SignIn

            return
                match answer with
                | Ok SignIn.Accepted -> Ok credentials.Address
                | Ok(SignIn.Refused reason) -> Error reason
                | Ok(SignIn.Unanswered detail)
                | Error detail -> Error $"the credentials cannot be checked: {detail}"
                |> told
    }

    let private ofExchange
        options
        (settings: CollectorSettings)
        (ct: CancellationToken)
        : Task<Measurement list> = task {
        let collector = Setup.collector settings
        let probes = collector.Probes

        let isNeeded setting =
            probes
            |> List.tryFind (fun probe -> probe.Host = setting)
            |> Option.forall _.IsNeeded

        // What is not asked need not be there.
        let isLive (part: StreamPart) =
            settings.Live.Enabled && settings.Urls.ContainsKey part.Host

        let hosts = [
            for probe in probes do
                if settings.Urls.ContainsKey probe.Host then
                    probe.Host

            match collector.Stream with
            | ValueSome part when isLive part -> part.Host
            | _ -> ()
        ]

        match Setup.transport settings collector with
        | Error detail ->
            return [
                for host in hosts ->
                    Measurement.Answer(host, shown settings.Urls[host], isNeeded host, Error detail)
            ]
        | Ok transport ->
            use client = clientFor transport.Proxy

            // With a proxy it is the proxy that looks names up.
            let names =
                if transport.Proxy.IsSome then
                    []
                else
                    hosts
                    |> List.distinctBy (fun host -> settings.Urls[host].Uri.IdnHost)
                    |> List.map (fun host -> lookUp options (isNeeded host) host settings.Urls[host] ct)

            let questions =
                probes
                |> List.filter (fun probe -> settings.Urls.ContainsKey probe.Host)
                |> List.map (fun probe -> question options client settings.Urls[probe.Host] probe ct)

            let opened =
                match collector.Stream with
                | ValueSome part when isLive part -> [
                    task {
                        match Setup.live settings options.Settings.Collector collector part with
                        | Error detail ->
                            return Measurement.Live(part.Host, shown settings.Urls[part.Host], Error detail)
                        | Ok how ->
                            let! answer = patiently options.Patience ct (live options how part)

                            return
                                Measurement.Live(
                                    part.Host,
                                    shown settings.Urls[part.Host],
                                    Result.bind id answer
                                )
                    }
                  ]
                | _ -> []

            let! names = Task.WhenAll names
            let! questions = Task.WhenAll questions
            let! opened = Task.WhenAll opened
            let! accounts = account options settings collector transport ct

            let skew =
                Skew.ofAnswers [
                    for _, told in questions do
                        for one in told do
                            match one.Time with
                            | ValueSome shown -> struct (one.Sent, one.Received, shown)
                            | ValueNone -> ()
                ]

            return [
                yield! names
                yield! Array.map fst questions
                yield! opened
                yield! accounts
                Measurement.Clock(settings.Exchange, skew)
                Measurement.Limits(
                    settings.Exchange,
                    [
                        for limit in collector.Limits do
                            match Map.tryFind limit.Name settings.RateLimits with
                            | Some configured -> struct (limit.Name, configured, limit.PerTenSeconds)
                            | None -> ()
                    ]
                )
            ]
    }

    // ---- the disk and the file

    /// The folder of a file, or the nearest one above it that is there.
    let private folderOf (path: string) =
        let rec up (folder: string | null) =
            match folder with
            | null -> Directory.GetCurrentDirectory()
            | folder when Directory.Exists folder -> folder
            | folder -> up (Path.GetDirectoryName folder)

        up (Path.GetDirectoryName(Path.GetFullPath path))

    let private room folder =
        try
            Ok(DriveInfo(folder).AvailableFreeSpace)
        with
        | :? IOException
        | :? UnauthorizedAccessException as error -> Error error.Message

    /// The median of some writes of a page, each waited for as a commit waits. The file goes with the handle.
    let private sync folder =
        try
            use file =
                File.OpenHandle(
                    Path.Combine(folder, $".tributary-doctor-{Environment.ProcessId}"),
                    FileMode.Create,
                    FileAccess.Write,
                    FileShare.None,
                    FileOptions.DeleteOnClose
                )

            let page: byte[] = Array.zeroCreate 4_096
            let took = ResizeArray<TimeSpan>()
            let began = Stopwatch.GetTimestamp()

            // The first one makes the file larger, which takes longer.
            RandomAccess.Write(file, ReadOnlySpan page, 0L)
            RandomAccess.FlushToDisk file

            while took.Count < 20
                  && (took.Count < 3 || Stopwatch.GetElapsedTime began < TimeSpan.FromSeconds 2.0) do
                let from = Stopwatch.GetTimestamp()
                RandomAccess.Write(file, ReadOnlySpan page, 0L)
                RandomAccess.FlushToDisk file
                took.Add(Stopwatch.GetElapsedTime from)

            took.Sort()
            Ok took[took.Count / 2]
        with
        | :? IOException
        | :? UnauthorizedAccessException as error -> Error error.Message

    /// Which process has a file open, where the system tells.
    let private openedBy (file: string) =
        let links (folder: string) =
            try
                Directory.GetFiles folder
            with
            | :? IOException
            | :? UnauthorizedAccessException -> [||]

        let isIt (link: string) =
            try
                match File.ResolveLinkTarget(link, false) with
                | null -> false
                | target -> target.FullName = file
            with
            | :? IOException
            | :? UnauthorizedAccessException -> false

        if RuntimeInformation.IsOSPlatform OSPlatform.Linux then
            Directory.GetDirectories "/proc"
            |> Seq.tryPick (fun folder ->
                match Int32.TryParse(Path.GetFileName folder) with
                | true, id when
                    id <> Environment.ProcessId
                    && links (Path.Combine(folder, "fd")) |> Array.exists isIt
                    ->
                    Some id
                | _ -> None)
            |> Option.map (fun id ->
                try
                    use running = Process.GetProcessById id
                    $"process {id} ({running.ProcessName})"
                with
                | :? ArgumentException
                | :? InvalidOperationException -> $"process {id}")
            |> Option.defaultValue "another Tributary"
        else
            "another Tributary"

    /// Who writes to a store. A shared lock, for an instant, tells whether somebody has the writer's.
    let private holder (path: string) : string voption =
        let file = Path.GetFullPath path + ".lock"

        if File.Exists file then
            try
                use _ = new FileStream(file, FileMode.Open, FileAccess.Read, FileShare.Read)
                ValueNone
            with
            | :? IOException as error when List.contains error.HResult Sqlite.lockedResults ->
                ValueSome(openedBy file)
            | :? IOException
            | :? UnauthorizedAccessException -> ValueNone
        else
            ValueNone

    let private damage options path (db: Connection) =
        let began = Stopwatch.GetTimestamp()
        db.InterruptWhen(fun () -> Stopwatch.GetElapsedTime began > options.CheckTime)

        try
            let rows = db.Prepare("PRAGMA quick_check(10)").Rows(fun row -> row.Text 0)
            Measurement.Damage(path, rows |> List.filter ((<>) "ok"), true)
        with :? SqliteException as error ->
            if error.Primary = raw.SQLITE_INTERRUPT then
                Measurement.Damage(path, [], false)
            else
                Measurement.Damage(path, [ error.Message ], true)

    let private waits options path (limit: int64 voption) (db: Connection) =
        let one sql =
            db.Prepare(sql).Rows(fun row -> struct (row.Integer 0, row.IntegerOrNull 1))
            |> List.head

        let struct (rows, since) =
            one
                "SELECT coalesce(sum(o.rows), 0), min(o.written) FROM outbox o
                 WHERE o.entry > coalesce((SELECT a.entry FROM outbox_applied a WHERE a.kind = o.kind), 0)"

        Measurement.Outbox {
            Path = path
            Rows = rows
            Bytes = db.Number "SELECT coalesce(sum(length(content)), 0) FROM outbox"
            Limit = limit
            Age =
                since
                |> ValueOption.map (fun since ->
                    Instant.ofDateTimeOffset (options.Clock.GetUtcNow()) - Instant.ofMicros since)
        }

    /// The file of a store, and what it holds for another one.
    let private ofFile options (path: string) (ships: bool) (limit: int64 voption) : Measurement list =
        let inside (db: Connection) = [
            match Sqlite.marks db with
            | struct (SqliteSchema.ApplicationId, found, _) ->
                Measurement.Store(path, StoreFile.Ours(found, SqliteSchema.version))
                Measurement.Holder(path, holder path)
                damage options path db

                if ships && found = SqliteSchema.version then
                    waits options path limit db
            | struct (0L, 0, false) -> Measurement.Store(path, StoreFile.Absent)
            | _ -> Measurement.Store(path, StoreFile.Foreign "it is a SQLite database of another program")
        ]

        let isStill () =
            (holder path).IsNone && not (File.Exists(path + "-wal"))

        let look access =
            try
                use db = new Connection(path, access)
                inside db
            with
            | :? SqliteException as error when error.Primary = raw.SQLITE_NOTADB -> [
                Measurement.Store(path, StoreFile.Foreign "it is not a SQLite database")
              ]
            | :? SqliteException as error when error.Primary = raw.SQLITE_CORRUPT -> [
                Measurement.Damage(path, [ error.Message ], true)
              ]
            | :? IOException
            | :? UnauthorizedAccessException as error -> [
                Measurement.Store(path, StoreFile.Unreadable error.Message)
              ]

        let folder = folderOf path

        [
            Measurement.Room(folder, room folder)
            Measurement.Sync(folder, sync folder)

            if not (File.Exists path) then
                Measurement.Store(path, StoreFile.Absent)
            elif not (isStill ()) then
                yield! look Access.Read
            else
                let seen = look Access.Still
                // A writer that came meanwhile has changed the pages under the eyes of who thought them still.
                if isStill () then yield! seen else yield! look Access.Read
        ]

    // ---- QuestDB

    let private ofServer
        options
        (settings: QuestDbSettings)
        (ct: CancellationToken)
        : Task<Measurement list> = task {
        let address = string settings.Connection

        match Store.connection settings with
        | Error fault -> return [ Measurement.Server(address, Error(string fault)) ]
        | Ok connection ->
            use server = new Server(connection, options.Clock)
            let found = ResizeArray<Measurement>()
            use limited = CancellationTokenSource.CreateLinkedTokenSource ct
            limited.CancelAfter options.Patience

            try
                let! version = server.Version limited.Token
                let! protocol = server.Negotiate limited.Token
                let! there = Catalogue.tables server limited.Token
                found.Add(Measurement.Server(address, Ok $"{version}, line protocol {protocol}"))

                let wanted = Tables.all protocol settings.Decimals

                let missing, present =
                    wanted |> List.partition (fun table -> not (there.ContainsKey table.Name))

                let verdicts = ResizeArray<Schema.Verdict>()

                for table in present do
                    let! columns = Catalogue.columns server table.Name limited.Token
                    let struct (one, _) = there[table.Name]
                    verdicts.Add(Schema.compare protocol table { one with Columns = columns })

                let all (pick: Schema.Verdict -> string list) =
                    verdicts |> Seq.collect pick |> List.ofSeq

                found.Add(
                    Measurement.Tables(
                        present.Length,
                        missing |> List.map _.Name,
                        all _.Mend,
                        all _.Notes,
                        all _.Refusals
                    )
                )

                let! suspended = Catalogue.suspended server limited.Token

                found.Add(
                    Measurement.Suspended(
                        suspended
                        |> List.filter (fun (struct (table, _)) ->
                            wanted |> List.exists (fun one -> one.Name = table))
                    )
                )
            with
            | :? QuestDbException as error -> found.Add(Measurement.Server(address, Error error.Message))
            | :? OperationCanceledException as error when not ct.IsCancellationRequested ->
                found.Add(Measurement.Server(address, Error $"{address}: {words options.Patience error}"))

            return List.ofSeq found
    }

    /// Looks at everything, and hands over each finding as soon as it is its turn. Throws only when cancelled.
    let examine
        (options: DoctorOptions)
        (tell: Observation -> unit)
        (ct: CancellationToken)
        : Task<Observation list> = task {
        let findings = ResizeArray<Observation>()

        let report measured =
            for finding in List.collect Diagnosis.judge measured do
                findings.Add finding
                tell finding

        let settings = options.Settings
        let store = settings.Store

        // Others are waited for while this machine is looked at.
        let exchanges =
            (match settings.Collectors |> List.filter Setup.isWanted with
             | [] -> settings.Collectors |> List.filter _.Enabled |> List.truncate 1
             | wanted -> wanted)
            |> List.map (fun one -> ofExchange options one ct)

        let isRemote = store.Kind = "questdb" || store.Kind = "both"

        let server =
            if isRemote then
                ofServer options store.QuestDb ct
            else
                Task.FromResult []

        report [
            Measurement.Configuration(options.Place, options.Mistakes |> List.map Mistake.render)
        ]

        match store.Kind with
        | "sqlite" -> report (ofFile options store.Path false ValueNone)
        | "both" -> report (ofFile options store.Path true ValueNone)
        | "questdb" -> report (ofFile options store.QuestDb.Outbox true (ValueSome store.QuestDb.OutboxSize))
        | _ -> ()

        let! server = server
        report server

        for exchange in exchanges do
            let! exchange = exchange
            report exchange

        return List.ofSeq findings
    }
