namespace Tributary

open System
open System.IO
open System.Text.RegularExpressions
open Tributary.Stores.QuestDb

/// What the settings need to know of an exchange: the addresses it has, and its limits.
type KnownExchange = {
    Name: string
    Hosts: HostSetting list
    Limits: Limit list
    Secrets: SecretSetting list
}

type private SecretSource =
    | Value of string
    | InFile of path: string

/// A value that is never printed: wherever it is shown, it is the reference that stands in the configuration.
[<StructuredFormatDisplay("{Reference}")>]
type Secret = private {
    Written: string
    Source: SecretSource
} with

    /// What may be shown: `${VARIABLE}`, `file:PATH`, or an address that has no password in it.
    member this.Reference = this.Written
    override this.ToString() = this.Written

/// Where secrets come from.
[<RequireQualifiedAccess>]
module Secret =
    /// The value itself, for the one who sends it. A `file:PATH` is read now, every time, and trimmed.
    let reveal secret =
        match secret.Source with
        | Value value -> Ok value
        | InFile path ->
            try
                Ok(File.ReadAllText(path).Trim())
            with
            | :? IOException
            | :? UnauthorizedAccessException -> Error $"the file {path}, which holds a secret, cannot be read"

    /// As `reveal`, of what somebody else must not have: a file that this user's group or all others can read is refused, with the remedy.
    let internal revealOwn secret =
        let isOpen (path: string) =
            let target =
                match File.ResolveLinkTarget(path, true) with
                | null -> path
                | target -> target.FullName

            let others =
                UnixFileMode.GroupRead
                ||| UnixFileMode.GroupWrite
                ||| UnixFileMode.OtherRead
                ||| UnixFileMode.OtherWrite

            not (OperatingSystem.IsWindows())
            && File.GetUnixFileMode target &&& others <> UnixFileMode.None

        match secret.Source with
        | Value _ -> reveal secret
        | InFile path ->
            try
                if File.Exists path && isOpen path then
                    Error
                        $"the file {path}, which holds a secret, is open to other users, so it is not used: chmod 600 {path}"
                else
                    reveal secret
            with
            | :? IOException
            | :? UnauthorizedAccessException -> reveal secret

    /// A text that holds no secret.
    let internal ofText text = { Written = text; Source = Value text }

    /// What stands in the file itself: references are gone, and their defaults stand in their places.
    let internal literal (written: string) =
        Regex.Replace(written, @"\$\{[^}:]*(:(?<default>[^}]*))?\}", "${default}")

    /// A password that stands in the file itself: a user part in front of an `@` that is more than a name and references.
    let private isLiteral (written: string) =
        let own = literal written

        match own.LastIndexOf '@' with
        | -1 -> false
        | at ->
            let user = Regex.Replace(own.Substring(0, at), "^[a-z0-9]+://", "")
            user <> "" && not (user.EndsWith ':' && user.IndexOf ':' = user.Length - 1)

    let private proxies = [ "http"; "https"; "socks4"; "socks4a"; "socks5" ]

    /// The address of a proxy. Its messages quote nothing.
    let internal proxy: Yaml.Kind<Secret> = {
        Noun = "a proxy"
        Print = _.Reference
        Parse =
            fun scalar ->
                let from source =
                    Ok {
                        Written = scalar.Written
                        Source = source
                    }

                if isLiteral scalar.Written then
                    Error "a password must not stand in this file; refer to it with ${VARIABLE} or file:PATH"
                elif scalar.Text.StartsWith "file:" && scalar.Text.Length > 5 then
                    from (InFile(scalar.Text.Substring 5))
                else
                    match Uri.TryCreate(scalar.Text, UriKind.Absolute) with
                    | true, NonNull uri when List.contains uri.Scheme proxies && uri.Host <> "" ->
                        from (Value scalar.Text)
                    | _ ->
                        Error
                            "expected a proxy such as http://host:8080, ${VARIABLE} or file:PATH; got something else, not shown as it may hold a password"
    }

    // A value behind one of these.
    let private hidden =
        Regex @"(?:^|;|::)(?:password|pass|token|tls_roots_password)=(?:;;|[^;])"

    let private holdsSecret (written: string) = hidden.IsMatch(literal written)

    /// A secret that stands elsewhere: in the environment, or in a file. Its messages quote nothing.
    let internal elsewhere noun : Yaml.Kind<Secret> = {
        Noun = noun
        Print = _.Reference
        Parse =
            fun scalar ->
                if scalar.Text.StartsWith "file:" && scalar.Text.Length > 5 then
                    Ok {
                        Written = scalar.Written
                        Source = InFile(scalar.Text.Substring 5)
                    }
                elif literal scalar.Written <> "" then
                    Error $"{noun} must not stand in this file; refer to it with ${{VARIABLE}} or file:PATH"
                else
                    Ok {
                        Written = scalar.Written
                        Source = Value scalar.Text
                    }
    }

    /// The address of a webhook: `http` or `https`, without a user, which nobody would send.
    let internal tryWebhook (text: string) : Uri option =
        match Uri.TryCreate(text, UriKind.Absolute) with
        | true, NonNull uri when (uri.Scheme = "http" || uri.Scheme = "https") && uri.UserInfo = "" ->
            Some uri
        | _ -> None

    /// The address of a webhook. It stands elsewhere, because whoever knows it can post there.
    let internal webhook: Yaml.Kind<Secret> =
        let kind = elsewhere "a webhook's URL"

        {
            kind with
                Parse =
                    fun scalar ->
                        match kind.Parse scalar with
                        | Ok { Source = Value text } when (tryWebhook text).IsNone ->
                            Error
                                $"expected a URL such as https://example.com/hook in {scalar.Written}; got something else, not shown"
                        | parsed -> parsed
        }

    /// A configuration string of QuestDB's clients. Its messages quote no password.
    let internal connection: Yaml.Kind<Secret> = {
        Noun = "a configuration string"
        Print = _.Reference
        Parse =
            fun scalar ->
                if scalar.Text.StartsWith "file:" && scalar.Text.Length > 5 then
                    Ok {
                        Written = scalar.Written
                        Source = InFile(scalar.Text.Substring 5)
                    }
                elif holdsSecret scalar.Written then
                    Error
                        "a password or token must not stand in this file; refer to it with ${VARIABLE}, or to the whole with file:PATH"
                else
                    match ConfigString.parse scalar.Text with
                    | Ok _ ->
                        Ok {
                            Written = scalar.Written
                            Source = Value scalar.Text
                        }
                    | Error mistakes -> Error(String.concat "; " mistakes)
    }

    /// For a configuration string that a person typed just now, or the `file:PATH` of one: shown without its secrets.
    let internal ofConnection (text: string) : Result<Secret, string> =
        match ConfigString.parse text with
        | _ when text.StartsWith "file:" && text.Length > 5 ->
            Ok {
                Written = text
                Source = InFile(text.Substring 5)
            }
        | Ok _ ->
            Ok {
                Written = ConfigString.redact text
                Source = Value text
            }
        | Error mistakes -> Error(String.concat "; " mistakes)

/// An exchange's base address. It is shown as it stands in the configuration: a `${VARIABLE}` in it may hold a key, as the endpoints of a
/// chain have them in their paths.
[<StructuredFormatDisplay("{Shown}")>]
type Address = private {
    At: Uri
    Written: string
} with

    /// Its path ends in a slash.
    member this.Uri = this.At

    member this.Shown = this.Written
    override this.ToString() = this.Written

[<RequireQualifiedAccess>]
module Address =
    /// One that holds no secret.
    let ofUri (uri: Uri) = {
        At = Uri(uri.AbsoluteUri.TrimEnd '/' + "/")
        Written = uri.AbsoluteUri.TrimEnd '/'
    }

    /// A part of a path that nobody would choose for a name: long, with letters and digits.
    let private isKey (part: string) =
        part.Length >= 20
        && Seq.exists Char.IsAsciiDigit part
        && Seq.exists Char.IsAsciiLetter part

    let internal url: Yaml.Kind<Address> = {
        Noun = Yaml.url.Noun
        Print = _.Written
        Parse =
            fun scalar ->
                if (Secret.literal scalar.Written).Split '/' |> Array.skip 1 |> Array.exists isKey then
                    Error
                        "a key must not stand in this file; refer to it with ${VARIABLE}, as in https://example.com/v2/${KEY}"
                else
                    Yaml.url.Parse scalar
                    |> Result.map (fun uri -> {
                        At = uri
                        Written = scalar.Written.TrimEnd '/'
                    })
    }

/// How log lines look: for people, or one JSON object a line.
[<RequireQualifiedAccess>]
type LogFormat =
    | Text
    | Json

/// What SQLite waits for before a batch counts as stored. `full` survives a power cut; `normal` survives a crash of the
/// process only.
[<RequireQualifiedAccess>]
type Synchronous =
    | Full
    | Normal

/// What happens when the outbox is full: with `block` polling stops until there is room, with `drop_oldest` the oldest rows become gaps
/// of cause `overrun`.
[<RequireQualifiedAccess>]
type OutboxFull =
    /// Nothing is taken until there is room: polling stops, and gaps say so.
    | Block
    /// The oldest rows go, and gaps of cause `overrun` say which.
    | DropOldest

/// QuestDB as a store.
type QuestDbSettings = {
    /// A configuration string as QuestDB's clients have it, or `file:PATH` of one. A password or token must not stand here itself:
    /// `http::addr=host:9000;username=admin;password=${QUESTDB_PASSWORD};`. Default `http::addr=localhost:9000;`.
    Connection: Secret
    /// The file in which batches wait for QuestDB, relative to the working directory. Default `data/outbox.db`. With both stores on
    /// there is none: the SQLite file does its work.
    Outbox: string
    /// The most bytes that wait. Default 10 GB.
    OutboxSize: int64
    /// Default `Block`.
    OutboxFull: OutboxFull
    /// How long batches are kept after they can be read at the server, for servers that commit without a sync. Default 10 min.
    Keep: TimeSpan
    /// After what time the server drops trades, books and counters. Default none: never.
    Ttl: TimeSpan option
    /// Materialised views `trades_1m`, `trades_1h` and `trades_1d` with bars of prices are made. Default false.
    Views: bool
    /// Prices and sizes of trades are DECIMAL columns, exact whatever their size. Needs QuestDB 9.2. Default false.
    Decimals: bool
    /// How often the server's write-ahead logs are looked at. Default 5 s.
    Look: TimeSpan
}

/// After what time rows are deleted from the SQLite file, data set by data set. What is deleted is a gap of cause `expired`. Markets, gaps,
/// quarantine, checkpoints, prices, the account's own orders and trades, and matches always stay, and in QuestDB `ttl` rules.
type RetentionSettings = {
    /// Changes of books. They go up to a whole book that stays, so that every later book can be rebuilt. Default none: never.
    OrderbookDeltas: TimeSpan option
    /// Whole books. Those from which changes that are kept begin stay, and all behind them. Default none: never.
    OrderbookSnapshots: TimeSpan option
    /// Volumes, liquidity and open interest; the newest of each market stay. Default none: never.
    MarketStats: TimeSpan option
    /// Counters and gauges; the newest of each stays. Default none: never.
    CollectionMetrics: TimeSpan option
    /// Trades, and what links them; in whole days (UTC). Default none: never.
    Trades: TimeSpan option
}

/// Where events are stored.
type StoreSettings = {
    /// `sqlite` (the default), `questdb`, `both`, or `memory`, which forgets.
    Kind: string
    /// The database file, relative to the working directory. Default `data/tributary.db`.
    Path: string
    /// Default `Full`.
    Synchronous: Synchronous
    /// At most so long does a batch wait for others to share its transaction; 0s never waits. Default 100 ms.
    GroupTime: TimeSpan
    /// At most so many rows share a transaction. Default 10 000.
    GroupRows: int
    /// With fewer bytes free on the disk of the store books are not collected any more, which is a gap of cause `store_failed` (or of the cause of a gap that is open already); trades
    /// are, until nothing is left. Default 200 MB.
    MinFree: int64
    Retention: RetentionSettings
    QuestDb: QuestDbSettings
}

/// How often what is asked for.
type ScheduleSettings = {
    /// Order books. Default 10 s.
    Books: TimeSpan
    /// Trades. Default 5 s.
    Trades: TimeSpan
    /// Market data. Default 5 min.
    Markets: TimeSpan
    /// The share of a cadence by which a run may start later, 0 to 0.5; the grid itself stays. Default 0.05.
    Jitter: float
}

/// What a believable event looks like.
type ValidationSettings = {
    /// A trade below this price is flagged, and kept. (Outside 0 to 1 it is an error, whatever stands here.) Default 0.001.
    MinPrice: decimal
    /// A trade above this price is flagged, and kept. Default 0.999.
    MaxPrice: decimal
    /// An older trade in a live follow, or a book that last changed before, is flagged. Default 24 h.
    MaxAge: TimeSpan
    /// An event further in the future than this is an error. Default 5 min.
    MaxFuture: TimeSpan
    /// How many trade ids are remembered to notice repetitions. Default 100 000.
    RememberTrades: int
}

/// The lane between the sockets and the store.
type IntakeSettings = {
    /// How many batches fit; when it is full, collecting waits. Default 64.
    Capacity: int
}

/// Which API trades are read from.
[<RequireQualifiedAccess>]
type TradesSource =
    | Auto
    | V1
    | V2

/// One market, or all markets of one event, by its slug.
[<RequireQualifiedAccess>]
type PickTarget =
    | Market of slug: string
    | Event of slug: string

/// A market or event that is named in the configuration.
type MarketPick = {
    Target: PickTarget
    /// Whether it is collected; false keeps discovery from choosing it, too. Default true.
    Enabled: bool
}

/// Which markets are found by themselves. A market must meet every condition that is given.
type DiscoverySettings = {
    /// Whether any are. Default false.
    Enabled: bool
    /// Slugs of tags, one of which a market must have. Default none: any.
    Tags: string list
    /// The least traded volume, in the exchange's currency. Default none.
    MinVolume: decimal option
    /// The least liquidity, in the exchange's currency. Default none.
    MinLiquidity: decimal option
    /// Patterns with `*` and `?`, one of which the slug must match. Default none: any.
    Slugs: string list
    /// At most so many markets are chosen. Default 200.
    MaxMarkets: int
}

/// Live order books of an exchange.
type LiveSettings = {
    /// Whether order books are followed live; then the polls of books compare instead of being all there is. Default true.
    Enabled: bool
    /// Tokens on one connection, 2 to 400. Default 200.
    TokensPerConnection: int
    /// How much of the books is stored: every change (`full`), the best N levels (`top-N`), whole books now and then (`snapshots`), or
    /// nothing (`off`). Default `full`.
    Depth: DepthMode
    /// Patterns with `*` and `?` of slugs whose books are stored otherwise; the first that matches counts. Default none.
    DepthOf: (string * DepthMode) list
    /// Whole books are stored at least this often while a book changes. Default 10 min.
    SnapshotEvery: TimeSpan
    /// Whole books are stored after so many changes of a book at the latest. Default 2 000.
    SnapshotChanges: int
    /// A book that no poll was compared with for so long is asked for. Default 30 s.
    CompareEvery: TimeSpan
    /// A connection that says nothing for so long, not even to a ping, is dead. Default 15 s.
    DeadAfter: TimeSpan
}

/// What is done with an exchange's secrets.
[<RequireQualifiedAccess>]
type AuthMode =
    /// They are not used.
    | Off
    /// They are used if there are any; when they are refused, one warning says so, and public data is collected.
    | Optional
    /// Collecting does not begin without them.
    | Required

/// How one exchange is collected.
type CollectorSettings = {
    /// The exchange's name in the registry.
    Exchange: string
    /// Whether it is collected. Default true.
    Enabled: bool
    /// Its addresses, by the names of their settings.
    Urls: Map<string, Address>
    /// Requests per 10 s, by the names of the limits; lower them when something else shares this address. Default: what the exchange
    /// documents.
    RateLimits: Map<string, int>
    /// How long an answer may take. Default 30 s.
    Timeout: TimeSpan
    /// How often a failed request is tried again. Default 4.
    Retries: int
    /// The most bytes that are read of one answer. Default 64 MB.
    MaxResponse: int64
    /// A proxy for all of this exchange's requests. As its address may hold a password it is `${VARIABLE}`, or `file:PATH` whose content is
    /// the address; only one without a password may stand in the file itself. Default none.
    Proxy: Secret option
    /// The secrets that this exchange takes, by the names of their settings: `${VARIABLE}`, or `file:PATH`. Default none.
    Secrets: Map<string, Secret option>
    /// What is done with them: `optional` uses them if they are there, and collects public data when they are refused, after one
    /// warning; `required` does not begin without; `off` leaves them alone. Default `optional`.
    Auth: AuthMode
    /// How often the account's own orders and trades are asked for, beside what its live connection tells. Default 30 s.
    OwnEvery: TimeSpan
    /// Tokens per order-book request, 1 to 500. Default 100.
    BooksPerRequest: int
    /// Markets per trades request, 1 to 20. Default 20.
    MarketsPerRequest: int
    /// Default `Auto`.
    TradesSource: TradesSource
    /// How much of what was read before is read again, for trades that the exchange publishes late. Default 60 s.
    Overlap: TimeSpan
    /// How far back the first request for a market's trades reaches. Default 1 h.
    Lookback: TimeSpan
    /// The markets and events that are named. A name that is given twice counts as it was given last. Default none.
    Markets: MarketPick list
    Discovery: DiscoverySettings
    Live: LiveSettings
}

/// The HTTP door of a running collector: health, status and metrics, to be read alone.
type HttpSettings = {
    /// Where it listens: an address of this machine and a port, or `off`. 127.0.0.1 is for this machine alone. When the port is taken it
    /// collects without a door, and says so. Default `127.0.0.1:9464`.
    Listen: System.Net.IPEndPoint option
    /// What whoever asks must send as `Authorization: Bearer TOKEN`: `${VARIABLE}`, or `file:PATH`. Default none: nobody must.
    Token: Secret option
    /// A page for people at `/`: overview, markets, live depth, coverage, gaps. Default false.
    Web: bool
}

/// Something that is or is not.
type AlertStateSettings = {
    /// Whether it is watched. Default true.
    Enabled: bool
    /// For how long it must hold before it fires.
    For: TimeSpan
}

/// Something that lasts, or is off, for a time.
type AlertTimeSettings = {
    /// Whether it is watched. Default true.
    Enabled: bool
    /// For how long it must hold before it fires.
    For: TimeSpan
    /// More than this fires.
    Threshold: TimeSpan
}

/// A size that must not be fallen below.
type AlertSizeSettings = {
    /// Whether it is watched. Default true.
    Enabled: bool
    /// For how long it must hold before it fires.
    For: TimeSpan
    /// Less than this fires.
    Threshold: int64
}

/// A share of what was done in a window of time.
type AlertShareSettings = {
    /// Whether it is watched. Default true.
    Enabled: bool
    /// For how long it must hold before it fires.
    For: TimeSpan
    /// The share, 0 to 1, beyond which it fires.
    Threshold: float
    /// Over what time it is counted; before so long a run says nothing.
    Window: TimeSpan
    /// Of fewer in the window nothing is said.
    AtLeast: int
}

/// Markets that are quieter than usual.
type AlertQuietSettings = {
    /// Whether it is watched. Default true.
    Enabled: bool
    /// For how long it must hold before it fires.
    For: TimeSpan
    /// After how many times its usual interval without a trade a market is too quiet.
    Threshold: float
    /// But not before so long.
    AtLeast: TimeSpan
}

/// How a webhook wants to be told.
[<RequireQualifiedAccess>]
type WebhookFormat =
    /// All that is known, as an object.
    | Json
    | Slack
    | Discord

/// An address to which each notice is posted.
type WebhookSettings = {
    /// Where to, as `${VARIABLE}`, or `file:PATH` whose content is the URL: whoever knows it can post there, so it never stands here itself.
    /// Default none: nowhere.
    Url: Secret option
    /// `json` has `rule`, `subject`, `state`, `since`, `value`, `threshold`, `message` and `collector`; `slack` and `discord` are one text.
    /// Default `Json`.
    Format: WebhookFormat
    /// How long one attempt may take; there are four, as long as it answers nothing, 429 or 5xx. Default 10 s.
    Timeout: TimeSpan
}

/// A program that is run for each notice: the notice is an object of JSON on its standard input, and in its environment as
/// `TRIBUTARY_ALERT_RULE`, `_SUBJECT`, `_STATE`, `_SINCE`, `_VALUE`, `_THRESHOLD`, `_MESSAGE` and `_COLLECTOR`.
type CommandSettings = {
    /// A path, or a name that is found in `PATH`. Default none.
    Program: string option
    /// They are shown as they are: a secret belongs into the environment, which the program inherits. Default none.
    Arguments: string list
    /// After so long it is killed, with all that it started. Default 30 s.
    Timeout: TimeSpan
}

/// What one is told about, how often, and where. What fires and what is over is always logged.
type AlertSettings = {
    /// Whether anything is watched. Default true.
    Enabled: bool
    /// How often it is looked. Default 10 s.
    Look: TimeSpan
    /// What still holds is told again after so long. Default 4 h.
    RepeatEvery: TimeSpan
    /// At most so many notices in a window; more are held back and counted, and the next notice says how many. Default 20.
    MaxNotices: int
    /// The window of `max_notices`. Default 10 min.
    Window: TimeSpan
    /// A dead man's switch: nothing at all was received for so long.
    NothingReceived: AlertTimeSettings
    /// The store does not take what is collected (a full disk, a locked file), so nothing is asked.
    StoreFailed: AlertStateSettings
    /// QuestDB cannot be reached, or a table of it is suspended.
    StoreTrouble: AlertStateSettings
    /// Too little is free on the disk of the store.
    FreeDisk: AlertSizeSettings
    /// Rows wait for QuestDB, the oldest for longer than this.
    Backlog: AlertTimeSettings
    /// A hole of a stream is open for longer than this.
    GapsOpen: AlertTimeSettings
    /// A smaller share of the polls of a stream was good.
    Coverage: AlertShareSettings
    /// A larger share of the requests failed.
    RequestErrors: AlertShareSettings
    /// This machine's clock and the exchange's differ by more.
    ClockSkew: AlertTimeSettings
    /// A market has no trade for many times its usual interval.
    MarketQuiet: AlertQuietSettings
    Webhook: WebhookSettings
    Command: CommandSettings
}

/// Measures and traces for OpenTelemetry.
type TelemetrySettings = {
    /// An OTLP receiver (HTTP, protobuf), to which measures go every ten seconds, and traces. The variables
    /// `OTEL_EXPORTER_OTLP_HEADERS` and `OTEL_RESOURCE_ATTRIBUTES` count, too. Default none.
    Otlp: Address option
}

/// Everything that can be configured.
type Settings = {
    /// The name that this process writes into its gap rows. Default `main`.
    Collector: string
    /// What is too unimportant to be logged is left out. Default info.
    LogLevel: string
    /// The levels of modules that have one of their own; the others have `log_level`. Default none.
    LogLevels: Map<string, string>
    /// Default `Text`.
    LogFormat: LogFormat
    Store: StoreSettings
    Schedule: ScheduleSettings
    Validation: ValidationSettings
    Intake: IntakeSettings
    Http: HttpSettings
    Telemetry: TelemetrySettings
    Alerts: AlertSettings
    /// One for every known exchange, in the registry's order; an exchange that is not configured has no markets.
    Collectors: CollectorSettings list
}

/// From `config/*.yaml` and the environment to typed settings: all of them, or every mistake there is.
[<RequireQualifiedAccess>]
module Settings =
    let private milliseconds = float >> TimeSpan.FromMilliseconds
    let private seconds = float >> TimeSpan.FromSeconds
    let private hours = float >> TimeSpan.FromHours
    let private days = float >> TimeSpan.FromDays

    // ---- what holds when nothing is said

    let private collector (known: KnownExchange) = {
        Exchange = known.Name
        Enabled = true
        Urls =
            known.Hosts
            |> List.map (fun host -> host.Setting, Address.ofUri (Uri host.Address))
            |> Map.ofList
        RateLimits =
            known.Limits
            |> List.map (fun limit -> limit.Name, limit.PerTenSeconds)
            |> Map.ofList
        Timeout = seconds 30
        Retries = 4
        MaxResponse = 64_000_000L
        Proxy = None
        Secrets = known.Secrets |> List.map (fun secret -> secret.Setting, None) |> Map.ofList
        Auth = AuthMode.Optional
        OwnEvery = seconds 30
        BooksPerRequest = 100
        MarketsPerRequest = 20
        TradesSource = TradesSource.Auto
        Overlap = seconds 60
        Lookback = hours 1
        Markets = []
        Discovery = {
            Enabled = false
            Tags = []
            MinVolume = None
            MinLiquidity = None
            Slugs = []
            MaxMarkets = 200
        }
        Live = {
            Enabled = true
            TokensPerConnection = 200
            Depth = DepthMode.Full
            DepthOf = []
            SnapshotEvery = seconds 600
            SnapshotChanges = 2_000
            CompareEvery = seconds 30
            DeadAfter = seconds 15
        }
    }

    let private alerts: AlertSettings = {
        Enabled = true
        Look = seconds 10
        RepeatEvery = hours 4
        MaxNotices = 20
        Window = seconds 600
        NothingReceived = {
            Enabled = true
            For = TimeSpan.Zero
            Threshold = seconds 120
        }
        StoreFailed = { Enabled = true; For = seconds 30 }
        StoreTrouble = { Enabled = true; For = seconds 60 }
        FreeDisk = {
            Enabled = true
            For = seconds 60
            Threshold = 1_000_000_000L
        }
        Backlog = {
            Enabled = true
            For = TimeSpan.Zero
            Threshold = seconds 600
        }
        // One that a late first poll opens reaches back an hour, and ends with the next.
        GapsOpen = {
            Enabled = true
            For = seconds 60
            Threshold = seconds 300
        }
        Coverage = {
            Enabled = true
            For = seconds 60
            Threshold = 0.95
            Window = seconds 600
            AtLeast = 20
        }
        RequestErrors = {
            Enabled = true
            For = seconds 60
            Threshold = 0.2
            Window = seconds 300
            AtLeast = 20
        }
        ClockSkew = {
            Enabled = true
            For = seconds 60
            Threshold = seconds 5
        }
        MarketQuiet = {
            Enabled = true
            For = TimeSpan.Zero
            Threshold = 20.0
            AtLeast = hours 1
        }
        Webhook = {
            Url = None
            Format = WebhookFormat.Json
            Timeout = seconds 10
        }
        Command = {
            Program = None
            Arguments = []
            Timeout = seconds 30
        }
    }

    /// The settings of an empty configuration.
    let defaults (known: KnownExchange list) : Settings = {
        Collector = "main"
        LogLevel = "info"
        LogLevels = Map.empty
        LogFormat = LogFormat.Text
        Store = {
            Kind = "sqlite"
            Path = "data/tributary.db"
            Synchronous = Synchronous.Full
            GroupTime = milliseconds 100
            GroupRows = 10_000
            MinFree = 200_000_000L
            Retention = {
                OrderbookDeltas = None
                OrderbookSnapshots = None
                MarketStats = None
                CollectionMetrics = None
                Trades = None
            }
            QuestDb = {
                Connection = Secret.ofText "http::addr=localhost:9000;"
                Outbox = "data/outbox.db"
                OutboxSize = 10_000_000_000L
                OutboxFull = OutboxFull.Block
                Keep = seconds 600
                Ttl = None
                Views = false
                Decimals = false
                Look = seconds 5
            }
        }
        Schedule = {
            Books = seconds 10
            Trades = seconds 5
            Markets = seconds 300
            Jitter = 0.05
        }
        Validation = {
            MinPrice = 0.001m
            MaxPrice = 0.999m
            MaxAge = hours 24
            MaxFuture = seconds 300
            RememberTrades = 100_000
        }
        Intake = { Capacity = 64 }
        Http = {
            Listen = Some(System.Net.IPEndPoint(System.Net.IPAddress.Loopback, 9464))
            Token = None
            Web = false
        }
        Telemetry = { Otlp = None }
        Alerts = alerts
        Collectors = known |> List.map collector
    }

    // ---- the schema: every key, its kind, and its bounds

    let private name =
        Yaml.matching "a name of letters, digits, '-' and '_'" "" "[A-Za-z0-9_-]{1,64}"

    let private slug =
        Yaml.matching
            "a slug"
            " such as will-it-rain-tomorrow (the last part of the page's address)"
            "[A-Za-z0-9][A-Za-z0-9._-]*"

    let private pattern =
        Yaml.matching "a slug with * and ?" " such as btc-updown-*" "[A-Za-z0-9._*?-]+"

    let private levels =
        [ "trace"; "debug"; "info"; "warning"; "error" ]
        |> List.map (fun level -> level, level)

    let private cadence = Yaml.duration |> Yaml.within (milliseconds 100) (days 1)
    let private amount = Yaml.exact |> Yaml.within 0m 1_000_000_000_000m
    let private probability = Yaml.exact |> Yaml.within 0m 1m
    let private upTo most kind = kind |> Yaml.within 1 most

    let private questdb (current: QuestDbSettings) (at: Yaml.Section) : QuestDbSettings = {
        Connection = at.Read("connection", Secret.connection, current.Connection)
        Outbox = at.Read("outbox", Yaml.text, current.Outbox)
        OutboxSize =
            at.Read(
                "outbox_size",
                Yaml.bytes |> Yaml.within 1_000_000L 1_000_000_000_000_000L,
                current.OutboxSize
            )
        OutboxFull =
            at.Read(
                "outbox_full",
                Yaml.choice [ "block", OutboxFull.Block; "drop_oldest", OutboxFull.DropOldest ],
                current.OutboxFull
            )
        Keep = at.Read("keep", Yaml.duration |> Yaml.within TimeSpan.Zero (days 30), current.Keep)
        Ttl = at.TryRead("ttl", Yaml.duration |> Yaml.within (hours 1) (days 36_500), current.Ttl)
        Views = at.Read("views", Yaml.flag, current.Views)
        Decimals = at.Read("decimals", Yaml.flag, current.Decimals)
        Look = at.Read("look", Yaml.duration |> Yaml.within (milliseconds 10) (hours 1), current.Look)
    }

    let private retention (current: RetentionSettings) (at: Yaml.Section) : RetentionSettings =
        let read key current =
            at.TryRead(key, Yaml.duration |> Yaml.within (hours 1) (days 36_500), current)

        {
            OrderbookDeltas = read "orderbook_deltas" current.OrderbookDeltas
            OrderbookSnapshots = read "orderbook_snapshots" current.OrderbookSnapshots
            MarketStats = read "market_stats" current.MarketStats
            CollectionMetrics = read "collection_metrics" current.CollectionMetrics
            Trades = read "trades" current.Trades
        }

    let private store (current: StoreSettings) (at: Yaml.Section) : StoreSettings = {
        Kind =
            at.Read(
                "kind",
                Yaml.choice [ for kind in [ "sqlite"; "questdb"; "both"; "memory" ] -> kind, kind ],
                current.Kind
            )
        Path = at.Read("path", Yaml.text, current.Path)
        Synchronous =
            at.Read(
                "synchronous",
                Yaml.choice [ "full", Synchronous.Full; "normal", Synchronous.Normal ],
                current.Synchronous
            )
        GroupTime =
            at.Read("group_time", Yaml.duration |> Yaml.within TimeSpan.Zero (seconds 10), current.GroupTime)
        GroupRows = at.Read("group_rows", Yaml.whole |> upTo 1_000_000, current.GroupRows)
        MinFree = at.Read("min_free", Yaml.bytes |> Yaml.within 0L 1_000_000_000_000_000L, current.MinFree)
        Retention = at.Within("retention", retention current.Retention)
        QuestDb = at.Within("questdb", questdb current.QuestDb)
    }

    let private schedule (current: ScheduleSettings) (at: Yaml.Section) : ScheduleSettings = {
        Books = at.Read("books", cadence, current.Books)
        Trades = at.Read("trades", cadence, current.Trades)
        Markets = at.Read("markets", cadence, current.Markets)
        Jitter = at.Read("jitter", Yaml.real |> Yaml.within 0.0 0.5, current.Jitter)
    }

    let private validation (current: ValidationSettings) (at: Yaml.Section) : ValidationSettings =
        let found = {
            MinPrice = at.Read("min_price", probability, current.MinPrice)
            MaxPrice = at.Read("max_price", probability, current.MaxPrice)
            MaxAge = at.Read("max_age", Yaml.duration |> Yaml.within (seconds 1) (days 3650), current.MaxAge)
            MaxFuture =
                at.Read("max_future", Yaml.duration |> Yaml.within TimeSpan.Zero (days 1), current.MaxFuture)
            RememberTrades = at.Read("remember_trades", Yaml.whole |> upTo 10_000_000, current.RememberTrades)
        }

        if found.MinPrice >= found.MaxPrice then
            at.Refuse(
                [ "min_price"; "max_price" ],
                $"min_price ({found.MinPrice}) must be less than max_price ({found.MaxPrice})"
            )

        found

    let private intake (current: IntakeSettings) (at: Yaml.Section) : IntakeSettings = {
        Capacity = at.Read("capacity", Yaml.whole |> upTo 65_536, current.Capacity)
    }

    /// An address and a port, or nothing.
    let private endpoint: Yaml.Kind<System.Net.IPEndPoint option> =
        let parse (text: string) =
            if text = "off" then
                Some None
            else
                match System.Net.IPEndPoint.TryParse text with
                | true, NonNull found when text.Contains ':' && found.Port > 0 -> Some(Some found)
                | _ -> None

        Yaml.kind "an address and a port, or off" " such as 127.0.0.1:9464" parse (fun found ->
            found |> Option.map string |> Option.defaultValue "off")

    let private telemetry (current: TelemetrySettings) (at: Yaml.Section) : TelemetrySettings = {
        Otlp = at.TryRead("otlp", Address.url, current.Otlp)
    }

    let private http (current: HttpSettings) (at: Yaml.Section) : HttpSettings = {
        Listen = at.Read("listen", endpoint, current.Listen)
        Token = at.TryRead("token", Secret.elsewhere "a token", current.Token)
        Web = at.Read("web", Yaml.flag, current.Web)
    }

    let private upToADay least =
        Yaml.duration |> Yaml.within least (days 1)

    let private lasting (at: Yaml.Section) current =
        at.Read("for", upToADay TimeSpan.Zero, current)

    let private stateAlert (current: AlertStateSettings) (at: Yaml.Section) : AlertStateSettings = {
        Enabled = at.Read("enabled", Yaml.flag, current.Enabled)
        For = lasting at current.For
    }

    let private timeAlert (current: AlertTimeSettings) (at: Yaml.Section) : AlertTimeSettings = {
        Enabled = at.Read("enabled", Yaml.flag, current.Enabled)
        For = lasting at current.For
        Threshold = at.Read("threshold", upToADay (seconds 1), current.Threshold)
    }

    let private sizeAlert (current: AlertSizeSettings) (at: Yaml.Section) : AlertSizeSettings = {
        Enabled = at.Read("enabled", Yaml.flag, current.Enabled)
        For = lasting at current.For
        Threshold =
            at.Read(
                "threshold",
                Yaml.bytes |> Yaml.within 1_000_000L 1_000_000_000_000_000L,
                current.Threshold
            )
    }

    let private shareAlert (current: AlertShareSettings) (at: Yaml.Section) : AlertShareSettings = {
        Enabled = at.Read("enabled", Yaml.flag, current.Enabled)
        For = lasting at current.For
        Threshold = at.Read("threshold", Yaml.real |> Yaml.within 0.0 1.0, current.Threshold)
        Window = at.Read("window", upToADay (seconds 10), current.Window)
        AtLeast = at.Read("at_least", Yaml.whole |> upTo 1_000_000, current.AtLeast)
    }

    let private quietAlert (current: AlertQuietSettings) (at: Yaml.Section) : AlertQuietSettings = {
        Enabled = at.Read("enabled", Yaml.flag, current.Enabled)
        For = lasting at current.For
        Threshold = at.Read("threshold", Yaml.real |> Yaml.within 2.0 1_000_000.0, current.Threshold)
        AtLeast = at.Read("at_least", Yaml.duration |> Yaml.within (seconds 1) (days 30), current.AtLeast)
    }

    let private webhook (current: WebhookSettings) (at: Yaml.Section) : WebhookSettings = {
        Url = at.TryRead("url", Secret.webhook, current.Url)
        Format =
            at.Read(
                "format",
                Yaml.choice [
                    "json", WebhookFormat.Json
                    "slack", WebhookFormat.Slack
                    "discord", WebhookFormat.Discord
                ],
                current.Format
            )
        Timeout =
            at.Read("timeout", Yaml.duration |> Yaml.within (milliseconds 100) (seconds 60), current.Timeout)
    }

    let private command (current: CommandSettings) (at: Yaml.Section) : CommandSettings = {
        Program = at.TryRead("program", Yaml.text, current.Program)
        Arguments = at.ReadAll("arguments", Yaml.text, current.Arguments)
        Timeout =
            at.Read("timeout", Yaml.duration |> Yaml.within (milliseconds 100) (seconds 600), current.Timeout)
    }

    let private alerting (current: AlertSettings) (at: Yaml.Section) : AlertSettings = {
        Enabled = at.Read("enabled", Yaml.flag, current.Enabled)
        Look = at.Read("look", Yaml.duration |> Yaml.within (seconds 1) (seconds 600), current.Look)
        RepeatEvery =
            at.Read("repeat_every", Yaml.duration |> Yaml.within (seconds 60) (days 30), current.RepeatEvery)
        MaxNotices = at.Read("max_notices", Yaml.whole |> upTo 1_000, current.MaxNotices)
        Window = at.Read("window", upToADay (seconds 10), current.Window)
        NothingReceived = at.Within("nothing_received", timeAlert current.NothingReceived)
        StoreFailed = at.Within("store_failed", stateAlert current.StoreFailed)
        StoreTrouble = at.Within("store_trouble", stateAlert current.StoreTrouble)
        FreeDisk = at.Within("free_disk", sizeAlert current.FreeDisk)
        Backlog = at.Within("backlog", timeAlert current.Backlog)
        GapsOpen = at.Within("gaps_open", timeAlert current.GapsOpen)
        Coverage = at.Within("coverage", shareAlert current.Coverage)
        RequestErrors = at.Within("request_errors", shareAlert current.RequestErrors)
        ClockSkew = at.Within("clock_skew", timeAlert current.ClockSkew)
        MarketQuiet = at.Within("market_quiet", quietAlert current.MarketQuiet)
        Webhook = at.Within("webhook", webhook current.Webhook)
        Command = at.Within("command", command current.Command)
    }

    let private pick (current: MarketPick) (at: Yaml.Section) : MarketPick =
        let before =
            match current.Target with
            | PickTarget.Market "" -> None, None
            | PickTarget.Market slug -> Some slug, None
            | PickTarget.Event slug -> None, Some slug

        let market = at.TryRead("slug", slug, fst before)
        let event = at.TryRead("event", slug, snd before)
        let enabled = at.Read("enabled", Yaml.flag, current.Enabled)

        let target =
            match market, event with
            | Some slug, None -> PickTarget.Market slug
            | None, Some slug -> PickTarget.Event slug
            | None, None when at.Given([ "slug"; "event" ]).Length = 1 -> current.Target // reported by the read
            | _ ->
                at.Refuse(
                    [ "slug"; "event" ],
                    "expected either a slug (one market) or an event (all its markets)"
                )

                current.Target

        { Target = target; Enabled = enabled }

    let private noPick = {
        Target = PickTarget.Market ""
        Enabled = true
    }

    /// The later mention of a market or event replaces the earlier one.
    let private lastNamed (picks: MarketPick list) =
        picks |> List.rev |> List.distinctBy _.Target |> List.rev

    let private discovery (current: DiscoverySettings) (at: Yaml.Section) : DiscoverySettings = {
        Enabled = at.Read("enabled", Yaml.flag, current.Enabled)
        Tags = at.ReadAll("tags", slug, current.Tags)
        MinVolume = at.TryRead("min_volume", amount, current.MinVolume)
        MinLiquidity = at.TryRead("min_liquidity", amount, current.MinLiquidity)
        Slugs = at.ReadAll("slugs", pattern, current.Slugs)
        MaxMarkets = at.Read("max_markets", Yaml.whole |> upTo 100_000, current.MaxMarkets)
    }

    /// `full`, `top-N`, `snapshots` or `off`.
    let private depth: Yaml.Kind<DepthMode> = {
        Noun = "a depth"
        Print =
            fun mode ->
                match mode with
                | DepthMode.Full -> "full"
                | DepthMode.Top levels -> $"top-{levels}"
                | DepthMode.Snapshots -> "snapshots"
                | DepthMode.Off -> "off"
        Parse =
            fun scalar ->
                match scalar.Text with
                | "full" -> Ok DepthMode.Full
                | "snapshots" -> Ok DepthMode.Snapshots
                | "off" -> Ok DepthMode.Off
                | text ->
                    match Int32.TryParse(if text.StartsWith "top-" then text.Substring 4 else "") with
                    | true, levels when levels >= 1 && levels <= 10_000 -> Ok(DepthMode.Top levels)
                    | _ -> Error $"expected full, top-N such as top-10, snapshots or off, got '{text}'"
    }

    let private depthOf (current: string * DepthMode) (at: Yaml.Section) : string * DepthMode =
        at.Read("slugs", pattern, fst current), at.Read("depth", depth, snd current)

    let private live (current: LiveSettings) (at: Yaml.Section) : LiveSettings = {
        Enabled = at.Read("enabled", Yaml.flag, current.Enabled)
        TokensPerConnection =
            at.Read("tokens_per_connection", Yaml.whole |> Yaml.within 2 400, current.TokensPerConnection)
        Depth = at.Read("depth", depth, current.Depth)
        DepthOf = at.Each("depth_of", ("*", DepthMode.Full), current.DepthOf, depthOf)
        SnapshotEvery =
            at.Read(
                "snapshot_every",
                Yaml.duration |> Yaml.within (seconds 1) (days 1),
                current.SnapshotEvery
            )
        SnapshotChanges = at.Read("snapshot_changes", Yaml.whole |> upTo 10_000_000, current.SnapshotChanges)
        CompareEvery =
            at.Read("compare_every", Yaml.duration |> Yaml.within (seconds 1) (hours 1), current.CompareEvery)
        DeadAfter =
            at.Read("dead_after", Yaml.duration |> Yaml.within (seconds 1) (seconds 600), current.DeadAfter)
    }

    let private exchange (current: CollectorSettings) (at: Yaml.Section) : CollectorSettings = {
        Exchange = current.Exchange
        Enabled = at.Read("enabled", Yaml.flag, current.Enabled)
        Urls =
            current.Urls
            |> Map.map (fun name address -> at.Read(name, Address.url, address))
        RateLimits =
            at.Within(
                "rate_limits",
                fun limits ->
                    current.RateLimits
                    |> Map.map (fun name count -> limits.Read(name, Yaml.whole |> upTo 1_000_000, count))
            )
        Timeout =
            at.Read("timeout", Yaml.duration |> Yaml.within (milliseconds 100) (seconds 600), current.Timeout)
        Retries = at.Read("retries", Yaml.whole |> Yaml.within 0 20, current.Retries)
        MaxResponse =
            at.Read("max_response", Yaml.bytes |> Yaml.within 1_000L 1_000_000_000L, current.MaxResponse)
        Proxy = at.TryRead("proxy", Secret.proxy, current.Proxy)
        Secrets =
            current.Secrets
            |> Map.map (fun name secret -> at.TryRead(name, Secret.elsewhere "a secret", secret))
        Auth =
            // Where there are none, there is nothing to say about them.
            if current.Secrets.IsEmpty then
                current.Auth
            else
                at.Read(
                    "auth",
                    Yaml.choice [
                        "off", AuthMode.Off
                        "optional", AuthMode.Optional
                        "required", AuthMode.Required
                    ],
                    current.Auth
                )
        OwnEvery =
            if current.Secrets.ContainsKey "private_key" then
                at.Read("own_every", cadence, current.OwnEvery)
            else
                current.OwnEvery
        BooksPerRequest = at.Read("books_per_request", Yaml.whole |> upTo 500, current.BooksPerRequest)
        MarketsPerRequest = at.Read("markets_per_request", Yaml.whole |> upTo 20, current.MarketsPerRequest)
        TradesSource =
            at.Read(
                "trades_source",
                Yaml.choice [ "auto", TradesSource.Auto; "v1", TradesSource.V1; "v2", TradesSource.V2 ],
                current.TradesSource
            )
        Overlap = at.Read("overlap", Yaml.duration |> Yaml.within TimeSpan.Zero (days 1), current.Overlap)
        Lookback = at.Read("lookback", Yaml.duration |> Yaml.within TimeSpan.Zero (days 30), current.Lookback)
        Markets = at.Each("markets", noPick, current.Markets, pick) |> lastNamed
        Discovery = at.Within("discovery", discovery current.Discovery)
        Live = at.Within("live", live current.Live)
    }

    let private schema (current: Settings) (at: Yaml.Section) : Settings = {
        Collector = at.Read("collector", name, current.Collector)
        LogLevel = at.Read("log_level", Yaml.choice levels, current.LogLevel)
        LogLevels =
            at.Within(
                "log_levels",
                fun section ->
                    Map.ofList [
                        for name in Logs.modules do
                            match
                                section.TryRead(name, Yaml.choice levels, Map.tryFind name current.LogLevels)
                            with
                            | Some level -> name, level
                            | None -> ()
                    ]
            )
        LogFormat =
            at.Read(
                "log_format",
                Yaml.choice [ "text", LogFormat.Text; "json", LogFormat.Json ],
                current.LogFormat
            )
        Store = at.Within("store", store current.Store)
        Schedule = at.Within("schedule", schedule current.Schedule)
        Validation = at.Within("validation", validation current.Validation)
        Intake = at.Within("intake", intake current.Intake)
        Http = at.Within("http", http current.Http)
        Telemetry = at.Within("telemetry", telemetry current.Telemetry)
        Alerts = at.Within("alerts", alerting current.Alerts)
        Collectors =
            at.Within(
                "collectors",
                fun collectors ->
                    current.Collectors
                    |> List.map (fun one -> collectors.Within(one.Exchange, exchange one))
            )
    }

    // ---- the doors

    /// As `load`, and beside the mistakes the settings without them: what is wrong has its default.
    let internal loadDespite
        (known: KnownExchange list)
        (environment: string -> string option)
        (files: (string * string) list)
        : struct (Settings * Mistake list) =
        let mistakes = ResizeArray<Mistake>()

        let report (place: Yaml.Place) message =
            mistakes.Add {
                File = place.File
                Line = place.Line
                Column = place.Column
                Message = message
            }

        let tree =
            files
            |> List.map (fun (file, text) -> Yaml.parse report file text)
            |> List.fold
                (Yaml.merge (fun key -> key = "markets"))
                (Yaml.Node.Empty { File = ""; Line = 0; Column = 0 })
            |> Yaml.substitute environment report

        let settings, _ = Yaml.Section.Root report tree (schema (defaults known))

        struct (settings,
                mistakes
                |> Seq.sortBy (fun mistake -> mistake.File, mistake.Line, mistake.Column)
                |> List.ofSeq)

    /// Settings from the texts of the layers, the first the weakest, each with the name of its file; or every mistake in
    /// them, by file and line. Lists of `markets` add up over the layers, all else is replaced.
    let load
        (known: KnownExchange list)
        (environment: string -> string option)
        (files: (string * string) list)
        =
        match loadDespite known environment files with
        | struct (settings, []) -> Ok settings
        | struct (_, mistakes) -> Error mistakes

    let private written (settings: Settings) =
        let nowhere: Yaml.Place = { File = ""; Line = 0; Column = 0 }

        let _, written =
            Yaml.Section.Root (fun _ _ -> ()) (Yaml.Node.Empty nowhere) (schema settings)

        written

    /// The settings as YAML, every key included; a secret appears as the reference to it. What it writes, `load` reads.
    let describe (settings: Settings) =
        String.concat "\n" (written settings).Lines + "\n"

    /// Every setting by its path, as a file would have it; secrets as their references. Named markets and events are
    /// `collectors.NAME.markets[SLUG]` and `collectors.NAME.markets[event:SLUG]`.
    let flat (settings: Settings) : Map<string, string> =
        let values =
            (written settings).Keys
            |> Seq.filter (fun key ->
                key.Takes <> ""
                && key.Takes <> "a list of maps"
                && not (List.contains "[]" key.Path))
            |> Seq.map (fun key -> String.concat "." key.Path, key.Value.Trim '"')

        let lists = seq {
            for one in settings.Collectors do
                for pick in one.Markets do
                    let name =
                        match pick.Target with
                        | PickTarget.Market slug -> slug
                        | PickTarget.Event slug -> "event:" + slug

                    $"collectors.{one.Exchange}.markets[{name}]",
                    (if pick.Enabled then "enabled" else "not enabled")

                for slugs, mode in one.Live.DepthOf do
                    $"collectors.{one.Exchange}.live.depth_of[{slugs}]", depth.Print mode
        }

        Map.ofSeq (Seq.append values lists)

    /// Every key that there is, in the order of `describe`, with what it takes and its default.
    let internal keys (known: KnownExchange list) : Yaml.Key list =
        List.ofSeq (written (defaults known)).Keys

    let private wrong file message =
        Error [
            {
                File = file
                Line = 0
                Column = 0
                Message = message
            }
        ]

    /// Which of a folder's files (their names relative to it) are layers, in order: `base.yaml`, then the environment's,
    /// then `markets/*.yaml` by name. Nothing is passed over in silence: a `.yml` is a mistake, and so is an environment
    /// that has no file.
    let layers (environment: string option) (names: string list) : Result<string list, Mistake list> =
        let isMarkets (name: string) = name.StartsWith "markets/"

        let yaml =
            names
            |> List.filter _.EndsWith(".yaml")
            |> List.sortWith (fun a b -> String.CompareOrdinal(a, b))

        let markets, top = yaml |> List.partition isMarkets
        // Which markets ask the same is no setting.
        let environments = top |> List.except [ "base.yaml"; "matches.yaml" ]

        let chosen =
            match environment with
            | None
            | Some "" -> []
            | Some name -> [ $"{name}.yaml" ]

        match names |> List.tryFind _.EndsWith(".yml"), List.except environments chosen with
        | Some yml, _ -> wrong yml "this file would not be read; let its name end in .yaml"
        | None, missing :: _ ->
            let listed =
                environments
                |> List.map (fun name -> name.Replace(".yaml", ""))
                |> String.concat ", "

            let exist =
                if listed = "" then
                    "there are none here"
                else
                    $"there are: {listed}"

            wrong missing $"TRIBUTARY_ENV names an environment that has no such file; {exist}"
        | None, [] when not (List.contains "base.yaml" top) ->
            wrong "base.yaml" "a configuration folder needs this file; it may be empty"
        | None, [] -> Ok("base.yaml" :: chosen @ markets)

    /// Reads a configuration folder's layers, or one file alone, for `load`. The only function here that touches a disk.
    let read
        (environment: string -> string option)
        (path: string)
        : Result<(string * string) list, Mistake list> =
        let within name = Path.Combine(path, name)

        let named folder =
            let where = within folder

            if Directory.Exists where then
                Directory.GetFiles where
                |> List.ofArray
                |> List.map (fun file -> folder + Path.GetFileName file)
            else
                []

        try
            if File.Exists path then
                Ok [ path, File.ReadAllText path ]
            elif Directory.Exists path then
                match layers (environment "TRIBUTARY_ENV") (named "" @ named "markets/") with
                | Ok names -> Ok(names |> List.map (fun name -> within name, File.ReadAllText(within name)))
                | Error mistakes ->
                    Error(
                        mistakes
                        |> List.map (fun mistake -> {
                            mistake with
                                File = within mistake.File
                        })
                    )
            else
                wrong path "there is no such file or folder"
        with
        | :? IOException
        | :? UnauthorizedAccessException as error -> wrong path $"cannot be read: {error.Message}"
