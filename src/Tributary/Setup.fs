/// From settings to what Core and the runtime take.
[<RequireQualifiedAccess>]
module Tributary.Setup

open System
open Microsoft.Extensions.Logging
open Tributary
open Tributary.Stores

/// An exchange as the settings need to know it.
let knownAs (collector: Collector) : KnownExchange = {
    Name = string collector.Exchange
    Hosts = collector.Hosts
    Limits = collector.Limits
    Secrets = collector.Secrets
}

/// Every registered exchange.
let known: KnownExchange list =
    Exchanges.Registry.all
    |> List.map (fun (_, make) -> knownAs (make Exchanges.Registry.defaultOptions))

// ---- settings as a program makes them: from files, then changed

let private environment name =
    Environment.GetEnvironmentVariable name |> Option.ofObj

/// As `read`, when these exchanges are all that there are.
let readOf (known: KnownExchange list) (path: string option) : Result<Settings, Mistake list> =
    match path with
    | None -> Ok(Settings.defaults known)
    | Some path -> Settings.read environment path |> Result.bind (Settings.load known environment)

/// The configuration in a file or a folder, or the defaults when there is no path; otherwise every mistake in it.
let read (path: string option) : Result<Settings, Mistake list> = readOf known path

/// The configuration in a file or a folder, what is wrong in it as if nothing had been said there, and every mistake.
let readDespite (path: string option) : struct (Settings * Mistake list) =
    match path |> Option.map (Settings.read environment) with
    | None -> struct (Settings.defaults known, [])
    | Some(Ok files) -> Settings.loadDespite known environment files
    | Some(Error mistakes) -> struct (Settings.defaults known, mistakes)

/// As `check`, when these exchanges are all that there are.
let checkOf (known: KnownExchange list) (settings: Settings) : Result<Settings, Mistake list> =
    let written = Settings.describe settings
    let lines = written.Split '\n'

    let byKey (mistake: Mistake) = {
        mistake with
            File = lines[mistake.Line - 1].TrimStart(' ', '-').Split(':')[0]
            Line = 0
    }

    Settings.load known environment [ "settings", written ]
    |> Result.mapError (List.map byKey)

/// The settings again if a configuration file might say the same; otherwise every mistake in them, by the key instead of a place.
let check (settings: Settings) : Result<Settings, Mistake list> = checkOf known settings

/// Puts an exchange first: what is said of markets without naming an exchange is said of the first. An error when nobody knows it.
let preferring (exchange: string) (settings: Settings) : Result<Settings, string> =
    match settings.Collectors |> List.partition (fun one -> one.Exchange = exchange) with
    | [], others ->
        let names = others |> List.map _.Exchange |> String.concat ", "
        Error $"no exchange is called '{exchange}'; there are {names}"
    | found, others ->
        Ok {
            settings with
                Collectors = found @ others
        }

/// Changes the settings of the first exchange.
let onFirst change (settings: Settings) = {
    settings with
        Collectors =
            match settings.Collectors with
            | first :: others -> change first :: others
            | [] -> []
}

/// Asks the first exchange below one address, each of its hosts under its own name: `gamma_url` at `/gamma/`.
let askingAt (address: Uri) (settings: Settings) =
    let root = Uri(address.AbsoluteUri.TrimEnd '/' + "/")

    settings
    |> onFirst (fun collector -> {
        collector with
            Urls =
                collector.Urls
                |> Map.map (fun name _ -> Address.ofUri (Uri(root, name.Replace("_url", "/"))))
    })

/// Picks these markets and events of the first exchange, by slug, beside those that are picked already.
let picking (markets: string seq) (events: string seq) (settings: Settings) =
    let pick target = { Target = target; Enabled = true }

    settings
    |> onFirst (fun collector -> {
        collector with
            Markets = [
                yield! collector.Markets
                for slug in markets -> pick (PickTarget.Market slug)
                for slug in events -> pick (PickTarget.Event slug)
            ]
    })

/// Stores into this SQLite file.
let storingAt (path: string) (settings: Settings) = {
    settings with
        Settings.Store.Kind = "sqlite"
        Settings.Store.Path = path
}

/// Stores into the QuestDB that a configuration string of its clients names; into the SQLite file as well when `both`. The outbox
/// stays where it is configured. An error says what is wrong with the string, without its secrets.
let sendingTo (both: bool) (connection: string) (settings: Settings) : Result<Settings, string> =
    Secret.ofConnection connection
    |> Result.map (fun connection -> {
        settings with
            Settings.Store.Kind = if both then "both" else "questdb"
            Settings.Store.QuestDb.Connection = connection
    })

/// Lets batches wait for QuestDB in this file.
let waitingAt (outbox: string) (settings: Settings) = {
    settings with
        Settings.Store.QuestDb.Outbox = outbox
}

/// Writes gaps under this collector's name.
let named (collector: string) (settings: Settings) = { settings with Collector = collector }

/// Asks for each flow this often.
let every books trades markets (settings: Settings) = {
    settings with
        Settings.Schedule.Books = books
        Settings.Schedule.Trades = trades
        Settings.Schedule.Markets = markets
}

/// Polls are all there is: no live connections.
let pollingOnly (settings: Settings) =
    settings
    |> onFirst (fun collector -> {
        collector with
            CollectorSettings.Live.Enabled = false
    })

/// Nobody signs in: public data is all there is.
let withoutAccounts (settings: Settings) = {
    settings with
        Collectors =
            settings.Collectors
            |> List.map (fun collector ->
                if (Exchanges.Registry.tryAccount collector.Exchange).IsSome then
                    { collector with Auth = AuthMode.Off }
                else
                    collector)
}

/// It is to be collected: a market or event is picked, or discovery is on.
let isWanted (collector: CollectorSettings) =
    collector.Enabled
    && (collector.Discovery.Enabled || collector.Markets |> List.exists _.Enabled)

/// Somebody is to be collected: markets, or an account of one's own.
let hasWork (settings: Settings) =
    settings.Collectors
    |> List.exists (fun collector ->
        isWanted collector
        || collector.Enabled
           && collector.Auth <> AuthMode.Off
           && (Exchanges.Registry.tryAccount collector.Exchange).IsSome
           && collector.Secrets.Values |> Seq.exists Option.isSome)

let private opening (settings: Settings) clock logs : Registry.Opening = {
    Settings = settings.Store
    Collector = settings.Collector
    Clock = clock
    Log = Logs.logger Logs.Store logs
}

let private kindOf (settings: Settings) =
    match Registry.tryFind settings.Store.Kind with
    | Some kind -> kind
    | None -> invalidArg (nameof settings) $"there is no store of kind '{settings.Store.Kind}'"

/// The store that the settings name, open for writing.
let openStore (settings: Settings) (clock: TimeProvider) (logs: ILoggerFactory) : Result<Store, OpenFault> =
    (kindOf settings).ToWrite(opening settings clock logs)

/// The store that the settings name, open for reading, also while a collector writes to it.
let openStoreToRead (settings: Settings) : Result<Store, OpenFault> =
    (kindOf settings).ToRead(opening settings TimeProvider.System Logs.none)

/// Why rows as old as this would vanish from where they are stored; nothing when they would not.
let vanishing (since: Instant) (now: Instant) (settings: Settings) : string voption =
    match settings.Store.Kind, settings.Store.QuestDb.Ttl with
    | ("questdb" | "both"), Some life when since < now - life ->
        let kept =
            if settings.Store.Kind = "both" then
                ", and stay in the SQLite file alone"
            else
                ""

        ValueSome
            $"rows older than %.0f{life.TotalDays} days (store.questdb.ttl) would vanish from QuestDB{kept}: begin later with --since, or let rows live longer"
    | _ -> ValueNone

// ---- what Core and the runtime take

/// The secrets that are given; one that cannot be read is left out, and the exchange says what it lacks.
let private revealed (settings: CollectorSettings) =
    settings.Secrets
    |> Map.toList
    |> List.choose (fun (name, secret) ->
        secret
        |> Option.bind (fun secret ->
            match Secret.revealOwn secret with
            | Ok "" -> None
            | Ok text -> Some(name, text)
            | Error _ -> None))
    |> Map.ofList
    |> Map.filter (fun _ _ -> settings.Auth <> AuthMode.Off)

/// Why secrets that are given cannot be used, each with what to do.
let private unreadable (settings: CollectorSettings) : string list =
    if settings.Auth = AuthMode.Off then
        []
    else
        settings.Secrets.Values
        |> Seq.choose id
        |> Seq.choose (fun secret ->
            match Secret.revealOwn secret with
            | Ok _ -> None
            | Error reason -> Some reason)
        |> List.ofSeq

/// Whose own orders and trades are collected, if anybody's; an error says why what is given does not serve, without a word of it.
let internal account (settings: CollectorSettings) : Result<(AccountPart * Credentials) option, string> =
    /// Whoever is between could read what is sent there.
    let isOpen (host: string) =
        let address = settings.Urls[host].Uri
        (address.Scheme = "http" || address.Scheme = "ws") && not address.IsLoopback

    match unreadable settings, Exchanges.Registry.tryAccount settings.Exchange with
    | reason :: _, _ -> Error reason
    | [], None -> Ok None
    | [], Some part ->
        match part.Given(revealed settings) with
        | Error reason -> Error reason
        | Ok ValueNone -> Ok None
        | Ok(ValueSome credentials) ->
            match [ part.Time.Host; part.Channel.Host ] |> List.filter isOpen with
            | [] -> Ok(Some(part, credentials))
            | host :: _ ->
                Error
                    $"credentials are not sent where others can read them: let '{host}' begin with https or wss"

/// Why an exchange whose secrets are required cannot do without what is missing; nothing when nothing is.
let internal lacking (settings: CollectorSettings) : string option =
    let given = revealed settings
    let missing = settings.Secrets.Keys |> Seq.filter (given.ContainsKey >> not)

    match settings.Auth, Exchanges.Registry.tryAccount settings.Exchange with
    | (AuthMode.Off | AuthMode.Optional), _ -> None
    | AuthMode.Required, Some _ when given.IsEmpty ->
        Some
            "there are no credentials: set 'private_key', or 'api_key', 'api_secret', 'api_passphrase' and 'address'"
    | AuthMode.Required, None when not (Seq.isEmpty missing) ->
        missing
        |> Seq.map (fun name -> $"'{name}'")
        |> String.concat " and "
        |> fun names -> Some $"{names} is not given"
    | AuthMode.Required, _ -> None

/// The collector of an exchange under its settings, with these secrets.
let internal collectorWith secrets (settings: CollectorSettings) : Collector =
    match Exchanges.Registry.tryFind settings.Exchange with
    | None -> invalidArg (nameof settings) $"no exchange is called '{settings.Exchange}'"
    | Some make ->
        make {
            BooksPerRequest = settings.BooksPerRequest
            MarketsPerRequest = settings.MarketsPerRequest
            TradesSource =
                match settings.TradesSource with
                | TradesSource.Auto -> "auto"
                | TradesSource.V1 -> "v1"
                | TradesSource.V2 -> "v2"
            Secrets = secrets
        }

/// The collector of an exchange under its settings.
let collector (settings: CollectorSettings) : Collector =
    collectorWith (revealed settings) settings

/// How the exchange is reached; an error when the proxy's secret cannot be read or is no address.
let transport (settings: CollectorSettings) (collector: Collector) : Result<TransportOptions, string> =
    let proxy =
        match settings.Proxy with
        | None -> Ok None
        | Some secret ->
            Secret.reveal secret
            |> Result.bind (fun address ->
                match Uri.TryCreate(address, UriKind.Absolute) with
                | true, uri -> Ok(Option.ofObj uri)
                | _ -> Error "the proxy's secret is not an address such as http://host:port")

    proxy
    |> Result.map (fun proxy -> {
        Hosts = settings.Urls |> Map.map (fun _ address -> address.Uri)
        RateLimits = settings.RateLimits
        BySecond = collector.Limits |> List.filter _.BySecond |> List.map _.Name |> Set.ofList
        LimitsOf = collector.LimitsOf
        Sign = collector.Sign
        Timeout = settings.Timeout
        Retries = settings.Retries
        MaxResponse = settings.MaxResponse
        Proxy = proxy
        Window = TimeSpan.FromSeconds 10.0
    })

/// The address of a live connection below that of a setting.
let private channel (settings: CollectorSettings) host (path: string) : Uri =
    let root = settings.Urls[host].Uri

    UriBuilder(
        Uri(root, path),
        Scheme = root.Scheme.Replace("http", "ws"),
        Port = (if root.IsDefaultPort then -1 else root.Port)
    )
        .Uri

/// How an account is reached.
let internal own
    (settings: CollectorSettings)
    (part: AccountPart)
    (transport: TransportOptions)
    : OwnOptions = {
    Transport = transport
    Channel =
        if settings.Live.Enabled then
            Some(channel settings part.Channel.Host part.Channel.Path)
        else
            None
    Every = settings.OwnEvery
    Overlap = settings.Overlap
    DeadAfter = settings.Live.DeadAfter
}

/// How live connections to an exchange are made: nothing where it has none, or they are switched off.
let internal live
    (settings: CollectorSettings)
    (name: string)
    (collector: Collector)
    (part: StreamPart)
    : Result<LiveOptions, string> =
    let proxy =
        match settings.Proxy with
        | None -> Ok None
        | Some secret ->
            Secret.reveal secret
            |> Result.map (fun address ->
                match Uri.TryCreate(address, UriKind.Absolute) with
                | true, uri -> Option.ofObj uri
                | _ -> None)

    proxy
    |> Result.map (fun proxy ->
        let root = settings.Urls[part.Host].Uri

        {
            Address = channel settings part.Host part.Path
            Proxy = proxy
            Headers = fun now -> collector.Sign "GET" (Uri(root, part.Path)).AbsolutePath now
            TokensPerConnection = min part.MostTokens settings.Live.TokensPerConnection
            Rules = {
                DepthRules.usual with
                    CompareEvery = settings.Live.CompareEvery
                    SnapshotEvery = settings.Live.SnapshotEvery
                    SnapshotChanges = settings.Live.SnapshotChanges
            }
            DeadAfter = settings.Live.DeadAfter
            ModeOf =
                fun market ->
                    settings.Live.DepthOf
                    |> List.tryFind (fun (slugs, _) -> Universe.matches slugs market.Slug)
                    |> Option.map snd
                    |> Option.defaultValue settings.Live.Depth
            BatchTime = TimeSpan.FromMilliseconds 20.0
            Seed = name |> Seq.fold (fun sum letter -> sum * 31 + int letter) 7
        })

let private millionths (amount: decimal) = int64 (Math.Round(amount * 1_000_000m))

let private size (amount: decimal option) =
    match amount with
    | Some amount -> Size.tryOfMillionths (millionths amount)
    | None -> ValueNone

let picks (settings: CollectorSettings) : Picks =
    let enabled, disabled = settings.Markets |> List.partition _.Enabled

    {
        Slugs =
            enabled
            |> List.choose (fun pick ->
                match pick.Target with
                | PickTarget.Market slug -> Some slug
                | PickTarget.Event _ -> None)
        Events =
            enabled
            |> List.choose (fun pick ->
                match pick.Target with
                | PickTarget.Event slug -> Some slug
                | PickTarget.Market _ -> None)
        Excluded =
            disabled
            |> List.map (fun pick ->
                match pick.Target with
                | PickTarget.Market slug
                | PickTarget.Event slug -> slug)
        Discovery =
            if settings.Discovery.Enabled then
                ValueSome {
                    Tags = settings.Discovery.Tags
                    MinVolume = size settings.Discovery.MinVolume
                    MinLiquidity = size settings.Discovery.MinLiquidity
                    Slugs = settings.Discovery.Slugs
                    WithClosed = false
                    MaxMarkets = settings.Discovery.MaxMarkets
                }
            else
                ValueNone
    }

let rules (settings: ValidationSettings) : Rules = {
    MinPrice = Price.ofMillionths (millionths settings.MinPrice)
    MaxPrice = Price.ofMillionths (millionths settings.MaxPrice)
    MaxAge = settings.MaxAge
    MaxFuture = settings.MaxFuture
}

/// A job is one request's worth: of a market's books there are usually two. The seed of the jitter is the collector's name: two collectors do not ask in step, and one asks at the same offsets again.
let cadences (settings: Settings) : Cadences = {
    BooksPerJob =
        settings.Collectors
        |> List.map (fun collector -> max 1 (collector.BooksPerRequest / 2))
        |> List.min
    TradesPerJob = settings.Collectors |> List.map _.MarketsPerRequest |> List.min
    Books = settings.Schedule.Books
    Trades = settings.Schedule.Trades
    Markets = settings.Schedule.Markets
    Jitter = settings.Schedule.Jitter
    Seed =
        settings.Collector
        |> Seq.fold (fun seed letter -> (seed ^^^ uint64 letter) * 0x100000001B3UL) 0xCBF29CE484222325UL
}

/// What is watched, in the order in which it is told.
let alertPolicy (settings: AlertSettings) : AlertPolicy =
    let watch isEnabled lasting rule = [
        if isEnabled then
            { Rule = rule; For = lasting }
    ]

    {
        Watches = [
            let silence = settings.NothingReceived
            yield! AlertRule.NothingReceived silence.Threshold |> watch silence.Enabled silence.For

            yield!
                AlertRule.StoreFailed
                |> watch settings.StoreFailed.Enabled settings.StoreFailed.For

            yield!
                AlertRule.StoreTrouble
                |> watch settings.StoreTrouble.Enabled settings.StoreTrouble.For

            let disk = settings.FreeDisk
            yield! AlertRule.FreeDisk disk.Threshold |> watch disk.Enabled disk.For
            let backlog = settings.Backlog
            yield! AlertRule.Backlog backlog.Threshold |> watch backlog.Enabled backlog.For
            let gaps = settings.GapsOpen
            yield! AlertRule.GapsOpen gaps.Threshold |> watch gaps.Enabled gaps.For
            let polls = settings.Coverage

            yield!
                AlertRule.Coverage(polls.Threshold, polls.Window, polls.AtLeast)
                |> watch polls.Enabled polls.For

            let errors = settings.RequestErrors

            yield!
                AlertRule.RequestErrors(errors.Threshold, errors.Window, errors.AtLeast)
                |> watch errors.Enabled errors.For

            let skew = settings.ClockSkew
            yield! AlertRule.ClockSkew skew.Threshold |> watch skew.Enabled skew.For
            let quiet = settings.MarketQuiet

            yield!
                AlertRule.MarketQuiet(quiet.Threshold, quiet.AtLeast)
                |> watch quiet.Enabled quiet.For
        ]
        RepeatEvery = settings.RepeatEvery
        MaxNotices = settings.MaxNotices
        Window = settings.Window
    }
