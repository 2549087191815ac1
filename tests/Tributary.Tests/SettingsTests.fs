module Tributary.Tests.SettingsTests

open System
open System.IO
open System.Text.RegularExpressions
open NUnit.Framework
open FsCheck
open FsCheck.FSharp
open FsCheck.NUnit
open Tributary

let private known = Setup.known
let private defaults = Settings.defaults known
let private nothing (_: string) : string option = None
let private variables pairs name = Map.tryFind name (Map.ofList pairs)

let private text (lines: string list) = String.concat "\n" lines
let private loadIn environment files = Settings.load known environment files
let private load lines = loadIn nothing [ "a.yaml", text lines ]

let private mistakes result =
    match result with
    | Ok _ -> []
    | Error found -> found |> List.map Mistake.render

let private sound result =
    match result with
    | Ok value -> value
    | Error found -> failwith (found |> List.map Mistake.render |> String.concat "\n")

let private polymarket (settings: Settings) = settings.Collectors.Head

let private config = Path.Combine(root, "config")

// ---- what is read

[<Test>]
let ``an empty configuration gives the defaults`` () = load [] |> sound |> equal defaults

[<Test>]
let ``every setting that is given arrives`` () =
    let settings =
        load [
            "collector: second"
            "log_format: json"
            "store: {kind: memory, path: 'x y.db', synchronous: normal, group_time: 1s500ms, group_rows: 5}"
            "schedule: {books: 1m, jitter: 0.1}"
            "validation: {min_price: 0.01, remember_trades: 7}"
            "collectors:"
            "  polymarket:"
            "    gamma_url: http://localhost:8080/gamma"
            "    rate_limits: {all: 10}"
            "    max_response: 512KB"
            "    trades_source: v2"
            "    markets: [{slug: x}, {slug: y, enabled: false}, {event: z}]"
            "    discovery: {enabled: true, tags: [politics], min_volume: 1.5, slugs: ['btc-*', 'a?b']}"
        ]
        |> sound

    equal
        {
            Kind = "memory"
            Path = "x y.db"
            Synchronous = Synchronous.Normal
            GroupTime = TimeSpan.FromSeconds 1.5
            GroupRows = 5
            MinFree = (Settings.defaults []).Store.MinFree
            Retention = (Settings.defaults []).Store.Retention
            QuestDb = (Settings.defaults []).Store.QuestDb
        }
        settings.Store

    equal ("second", LogFormat.Json) (settings.Collector, settings.LogFormat)
    equal (TimeSpan.FromMinutes 1.0, 0.1) (settings.Schedule.Books, settings.Schedule.Jitter)
    equal (0.01m, 7) (settings.Validation.MinPrice, settings.Validation.RememberTrades)

    let polymarket = polymarket settings
    equal "http://localhost:8080/gamma/markets" (string (Uri(polymarket.Urls["gamma_url"].Uri, "markets")))
    let documented = (Settings.defaults known).Collectors.Head.RateLimits
    equal (Map.add "all" 10 documented) polymarket.RateLimits
    equal (512_000L, TradesSource.V2) (polymarket.MaxResponse, polymarket.TradesSource)

    equal
        [
            PickTarget.Market "x", true
            PickTarget.Market "y", false
            PickTarget.Event "z", true
        ]
        (polymarket.Markets |> List.map (fun pick -> pick.Target, pick.Enabled))

    equal
        {
            Enabled = true
            Tags = [ "politics" ]
            MinVolume = Some 1.5m
            MinLiquidity = None
            Slugs = [ "btc-*"; "a?b" ]
            MaxMarkets = 200
        }
        polymarket.Discovery

[<TestCase("250ms", 250.0)>]
[<TestCase("10s", 10_000.0)>]
[<TestCase("5m", 300_000.0)>]
[<TestCase("1h30m", 5_400_000.0)>]
[<TestCase("1m1s1ms", 61_001.0)>]
[<TestCase("1d", 86_400_000.0)>]
let ``durations carry their units`` written milliseconds =
    let settings = load [ $"schedule: {{books: {written}}}" ] |> sound
    equal milliseconds settings.Schedule.Books.TotalMilliseconds

// ---- layers

[<Test>]
let ``a later layer wins, maps merge, lists are replaced and markets add up`` () =
    let settings =
        loadIn nothing [
            "base.yaml",
            text [
                "store: {path: a.db, group_rows: 5}"
                "collectors: {polymarket: {markets: [{slug: one}, {slug: two}], discovery: {tags: [x, y]}}}"
            ]
            "development.yaml", "store: {path: b.db}\ncollectors:"
            "markets/p.yaml",
            "collectors: {polymarket: {markets: [{event: one}, {slug: two, enabled: false}], discovery: {tags: [z]}}}"
        ]
        |> sound

    equal ("b.db", 5) (settings.Store.Path, settings.Store.GroupRows)
    equal [ "z" ] (polymarket settings).Discovery.Tags

    equal
        [
            PickTarget.Market "one", true
            PickTarget.Event "one", true
            PickTarget.Market "two", false
        ]
        ((polymarket settings).Markets
         |> List.map (fun pick -> pick.Target, pick.Enabled))

[<Test>]
let ``the layers of a folder are the base, the environment and the markets by name`` () =
    let names = [
        "markets/b.yaml"
        "production.yaml"
        "development.yaml"
        "base.yaml"
        "markets/a.yaml"
        "notes.txt"
    ]

    let layers environment = Settings.layers environment names

    equal [ "base.yaml"; "markets/a.yaml"; "markets/b.yaml" ] (layers None |> sound)

    equal
        [ "base.yaml"; "production.yaml"; "markets/a.yaml"; "markets/b.yaml" ]
        (layers (Some "production") |> sound)

    equal
        [
            "staging.yaml: TRIBUTARY_ENV names an environment that has no such file; there are: development, production"
        ]
        (layers (Some "staging") |> mistakes)

    equal
        [ "../base.yaml" ]
        (layers (Some "../base") |> mistakes |> List.map (fun line -> line.Split(':')[0]))

[<Test>]
let ``a file whose name ends in yml is not passed over in silence`` () =
    equal
        [ "markets/a.yml: this file would not be read; let its name end in .yaml" ]
        (Settings.layers None [ "base.yaml"; "markets/a.yml" ] |> mistakes)

/// Trees in which a key always has the same kind of value, as in any configuration that is right.
let private trees =
    let at: Yaml.Place = { File = "t"; Line = 1; Column = 1 }
    let scalar = Gen.elements [ "1"; "2"; "3" ]

    let leaf text : Yaml.Node =
        Yaml.Node.Scalar {
            Place = at
            Written = text
            Text = text
        }

    let rec tree depth =
        let value key =
            match key with
            | "map" when depth > 0 -> tree (depth - 1)
            | "markets"
            | "list" ->
                Gen.listOf scalar
                |> Gen.map (fun items -> Yaml.Node.Sequence(at, List.map leaf items))
            | _ -> Gen.map leaf scalar

        let entry key =
            Gen.frequency [ 4, value key; 1, Gen.constant (Yaml.Node.Empty at) ]
            |> Gen.map (fun node -> {
                Yaml.Key = key
                Yaml.At = at
                Yaml.Node = node
            })

        [ "a"; "b"; "map"; "list"; "markets" ]
        |> List.filter (fun key -> depth > 0 || key <> "map")
        |> Gen.subListOf
        |> Gen.bind (Seq.map entry >> Gen.sequenceToList)
        |> Gen.map (fun entries -> Yaml.Node.Mapping(at, entries))

    Arb.fromGen (tree 2)

[<Property(MaxTest = 200, QuietOnSuccess = true)>]
let ``merging is associative`` () =
    let over = Yaml.merge (fun key -> key = "markets")

    Prop.forAll (Arb.fromGen (Gen.three trees.Generator)) (fun (a, b, c) ->
        over (over a b) c = over a (over b c))

// ---- the environment

[<TestCase("${NAME}.db", "x.db")>]
[<TestCase("a/${NAME}/${NAME}.db", "a/x/x.db")>]
[<TestCase("${OTHER:data/y.db}", "data/y.db")>]
[<TestCase("${BLANK:z}", "z")>]
[<TestCase("$${NAME}", "${NAME}")>]
[<TestCase("$5 $$ {}", "$5 $$ {}")>]
[<TestCase("${OTHER:}", "data/tributary.db")>]
let ``variables are filled in`` written expected =
    let environment = variables [ "NAME", "x"; "BLANK", "" ]

    let settings =
        loadIn environment [ "a.yaml", $"store: {{path: '{written}'}}" ] |> sound

    equal expected settings.Store.Path

[<Test>]
let ``a variable is read once and not searched for others`` () =
    let settings =
        loadIn (variables [ "A", "${B}" ]) [ "a.yaml", "store: {path: '${A}'}" ]
        |> sound

    equal "${B}" settings.Store.Path

[<Test>]
let ``a missing variable that a later layer replaces is no mistake`` () =
    equal
        "b.db"
        (sound (loadIn nothing [ "a.yaml", "store: {path: '${GONE}'}"; "b.yaml", "store: {path: b.db}" ]))
            .Store.Path

// ---- mistakes

[<Test>]
let ``five different mistakes give five located messages in one run`` () =
    equal
        [
            "base.yaml:1:1: unknown key 'stoer'; did you mean 'store'?"
            "base.yaml:3:11: expected a duration such as 10s, 5m or 1h; got 'soon'"
            "base.yaml:4:41: min_price (0.9) must be less than max_price (0.5)"
            "markets/p.yaml:4:15: expected a slug such as will-it-rain-tomorrow (the last part of the page's address); got 'Will it rain?'"
            "markets/p.yaml:5:15: the environment variable MARKET is not set; set it, or write ${MARKET:default}"
        ]
        (loadIn nothing [
            "base.yaml",
            text [
                "stoer: {kind: sqlite}"
                "schedule:"
                "  trades: soon"
                "validation: {max_price: 0.5, min_price: 0.9}"
            ]
            "markets/p.yaml",
            text [
                "collectors:"
                "  polymarket:"
                "    markets:"
                "      - slug: Will it rain?"
                "      - slug: ${MARKET}"
            ]
         ]
         |> mistakes)

let private table = [
    "log_levle: info", "1:1: unknown key 'log_levle'; did you mean 'log_level'?"
    "intake: {size: 1}", "1:10: unknown key 'size'; the keys here are: capacity"
    "collectors: {predictit: {}}",
    "1:14: unknown key 'predictit'; the keys here are: polymarket, kalshi, manifold"
    "log_level: loud", "1:12: expected one of trace, debug, info, warning, error; got 'loud'"
    "schedule: {books: 0s}", "1:19: expected a duration from 100ms to 1d; got '0s'"
    "store: {retention: {trades: 30m}}", "1:29: expected a duration from 1h to 36500d; got '30m'"
    "schedule: {books: 10}", "1:19: expected a duration such as 10s, 5m or 1h; got '10'"
    "schedule: {books: -5s}", "1:19: expected a duration such as 10s, 5m or 1h; got '-5s'"
    "schedule: {books: 999999999d}", "1:19: expected a duration such as 10s, 5m or 1h; got '999999999d'"
    "schedule: {books: ٣s}", "1:19: expected a duration such as 10s, 5m or 1h; got '٣s'"
    "schedule: {jitter: NaN}", "1:20: expected a number from 0 to 0.5; got 'NaN'"
    "schedule: 5s", "1:11: expected a map of keys and values; got a single value"
    "intake: {capacity: [1]}", "1:20: expected a whole number from 1 to 65536; got a list"
    "intake: {capacity: -1}", "1:20: expected a whole number from 1 to 65536; got '-1'"
    "intake: {capacity: 99999999999}", "1:20: expected a whole number; got '99999999999'"
    "store: {path: ''}", "1:15: expected a text on one line; got ''"
    "validation: {max_price: 50%}", "1:25: expected a number; got '50%'"
    "collectors: {polymarket: {enabled: yes}}", "1:36: expected true or false; got 'yes'"
    "collectors: {polymarket: {clob_url: clob.polymarket.com}}",
    "1:37: expected a URL such as https://example.com, without user or query; got 'clob.polymarket.com'"
    "collectors: {polymarket: {max_response: 64}}", "1:41: expected a size such as 512KB or 64MB; got '64'"
    "collectors: {polymarket: {books_per_request: 501}}",
    "1:46: expected a whole number from 1 to 500; got '501'"
    "collectors: {polymarket: {rate_limits: {all: 0}}}",
    "1:46: expected a whole number from 1 to 1000000; got '0'"
    "collectors: {polymarket: {markets: [x]}}", "1:37: expected a map of keys and values; got a single value"
    "collectors: {polymarket: {markets: {slug: x}}}", "1:36: expected a list of maps; got a map"
    "collectors: {polymarket: {markets: [{enabled: true}]}}",
    "1:37: expected either a slug (one market) or an event (all its markets)"
    "collectors: {polymarket: {markets: [{slug: x, event: y}]}}",
    "1:54: expected either a slug (one market) or an event (all its markets)"
    "collectors: {polymarket: {discovery: {tags: x}}}",
    "1:45: expected a list such as [a, b]; got a single value"
    "store: {kind: sqlite}\nstore: {kind: memory}",
    "2:1: duplicate key 'store', first given in line 1; keep one of them"
    "- a", "1:1: expected a map of keys and values; got a list"
    "store: *other", "1:8: an alias (*name) is not read here; write the value out"
    "store: {path: !env x}", "1:15: a tag (!name) is not read here; write the value alone"
    "log_level: info\n---\nlog_level: debug", "2:1: only the first document of a file is read; remove '---'"
    "? [a]\n: 1", "1:3: expected a key, a plain name"
    "store:\n\tpath: x", "2:1: not valid YAML: indent with spaces, not with tabs"
    "log_level: a: b", "1:13: not valid YAML: While scanning a plain scalar value, found invalid mapping"
    "store: {path: ${X}}",
    "1:16: not valid YAML: While parsing a flow mapping, did not find expected ',' or '}'; inside [ ] and { } a ${VARIABLE} needs quotes around it"
    "a: [1, 2\nb: 3", "1:6: not valid YAML: a [ or { that is opened here is not closed"
    "store: {path: '${X'}",
    "1:15: expected ${VARIABLE} or ${VARIABLE:default}; a '${' of its own is written '$${'"
    "store: {path: 'a/${X}/b'}", "1:15: the environment variable X is not set; set it, or write ${X:default}"
]

let private mistaken = [ for written, expected in table -> [| written; expected |] ]

[<TestCaseSource(nameof mistaken)>]
let ``each mistake has its place and its remedy`` (written: string) (expected: string) =
    equal [ $"a.yaml:{expected}" ] (load [ written ] |> mistakes)

[<Test>]
let ``a mistake that two layers make together is placed in the later one`` () =
    equal
        [ "b.yaml:2:14: min_price (0.5) must be less than max_price (0.2)" ]
        (loadIn nothing [
            "a.yaml", "validation: {max_price: 0.6, min_price: 0.5}"
            "b.yaml", "validation:\n  max_price: 0.2"
         ]
         |> mistakes)

[<Test>]
let ``a file that is not YAML does not hide the mistakes of the others`` () =
    equal
        [ "a.yaml:1:4"; "b.yaml:1:1" ]
        (loadIn nothing [ "b.yaml", "nothing: 1"; "a.yaml", "a: @" ]
         |> mistakes
         |> List.map (fun line -> String.Join(':', line.Split(':') |> Array.take 3)))

// ---- secrets

let private proxy written =
    loadIn (variables [ "PROXY", "http://me:hunter2@proxy:8080"; "USER", "me"; "PASSWORD", "hunter2" ]) [
        "a.yaml", text [ "collectors:"; "  polymarket:"; $"    proxy: {written}" ]
    ]

[<TestCase("${PROXY}")>]
[<TestCase("http://me:${PASSWORD}@proxy:8080")>]
[<TestCase("http://${USER}:${PASSWORD}@proxy:8080")>]
let ``a secret is used and never shown`` written =
    let settings = proxy written |> sound
    let secret = (polymarket settings).Proxy |> Option.get
    equal (Ok "http://me:hunter2@proxy:8080") (Secret.reveal secret)

    for shown in
        [
            Settings.describe settings
            $"%A{settings}"
            string settings
            string secret
            $"%A{secret}"
        ] do
        Assert.That(shown, Does.Not.Contain "hunter2")

    Assert.That(Settings.describe settings, Does.Contain written)

[<TestCase("http://me:hunter2@proxy:8080")>]
[<TestCase("http://hunter2@proxy:8080")>]
[<TestCase("me:hunter2@proxy:8080")>]
[<TestCase("${NONE:http://me:hunter2@proxy:8080}")>]
[<TestCase("http://${USER}:hunter2@proxy:8080")>]
[<TestCase("http://me:p@ss:hunter2@proxy:8080")>]
let ``a password in the file is a mistake that does not repeat it`` written =
    equal
        [
            "a.yaml:3:12: a password must not stand in this file; refer to it with ${VARIABLE} or file:PATH"
        ]
        (proxy written |> mistakes)

[<TestCase("timeout: ${PASSWORD}")>]
[<TestCase("clob_url: http://me:hunter2@clob")>]
[<TestCase("proxy: hunter2")>]
[<TestCase("proxy: [hunter2]")>]
[<TestCase("proxi: hunter2")>]
[<TestCase("timeout: ${NONE:http://me:hunter2@clob}")>]
let ``a secret in the wrong place is not shown either`` line =
    let found =
        loadIn (variables [ "PASSWORD", "hunter2" ]) [
            "a.yaml", text [ "collectors:"; "  polymarket:"; $"    {line}" ]
        ]
        |> mistakes

    equal 1 found.Length
    Assert.That(found.Head, Does.Not.Contain "hunter2")

let private webhook written =
    loadIn (variables [ "HOOK", "https://hooks.example.com/T0/hunter2"; "KEY", "hunter2" ]) [
        "a.yaml", text [ "alerts:"; "  webhook:"; $"    url: {written}" ]
    ]

[<Test>]
let ``a webhook is used and never shown`` () =
    let settings = webhook "${HOOK}" |> sound
    let secret = settings.Alerts.Webhook.Url |> Option.get
    equal (Ok "https://hooks.example.com/T0/hunter2") (Secret.reveal secret)

    for shown in [ string secret; $"%A{settings}"; Settings.describe settings ] do
        Assert.That(shown, Does.Contain "HOOK")
        Assert.That(shown, Does.Not.Contain "hunter2")

    equal None (webhook "${NONE:}" |> sound).Alerts.Webhook.Url

[<TestCase("https://hooks.example.com/T0/hunter2")>]
[<TestCase("https://hooks.example.com/T0/${KEY}")>]
[<TestCase("${NONE:https://hooks.example.com/T0/hunter2}")>]
let ``a webhook that stands in the file is a mistake that does not repeat it`` written =
    equal
        [
            "a.yaml:3:10: a webhook's URL must not stand in this file; refer to it with ${VARIABLE} or file:PATH"
        ]
        (webhook written |> mistakes)

[<Test>]
let ``a variable that holds no URL is a mistake that does not repeat it`` () =
    equal
        [
            "a.yaml:3:10: expected a URL such as https://example.com/hook in ${KEY}; got something else, not shown"
        ]
        (webhook "${KEY}" |> mistakes)

[<Test>]
let ``a key in an endpoint's path is shown as its variable, and reaches the endpoint`` () =
    let key = "0123456789abcdef0123456789abcdef"

    // A variable's name may be as long as a key, and have digits, too.
    let loaded = loadIn (variables [ "POLYGON_ARCHIVE_KEY_2_OF_US", key ])

    let settings =
        loaded [
            "a.yaml",
            text [
                "collectors:"
                "  polymarket:"
                "    rpc_url: https://polygon.example.com/v2/${POLYGON_ARCHIVE_KEY_2_OF_US}"
            ]
        ]
        |> sound

    let address = settings.Collectors.Head.Urls["rpc_url"]
    equal $"https://polygon.example.com/v2/{key}/" (string address.Uri)

    for shown in [ string address; $"%A{settings}"; Settings.describe settings ] do
        Assert.That(shown, Does.Not.Contain key)

    let again = loaded [ "a.yaml", Settings.describe settings ] |> sound
    equal (string address.Uri) (string again.Collectors.Head.Urls["rpc_url"].Uri)

[<TestCase("https://polygon.example.com/v2/0123456789abcdef0123456789abcdef")>]
[<TestCase("https://polygon.example.com/aK3dJ5kLm9PqRs7tUvWx2yZ/rpc")>]
[<TestCase("https://polygon.example.com/v2/${NONE:0123456789abcdef0123456789abcdef}")>]
let ``a key that stands in the file is a mistake that does not repeat it`` (written: string) =
    equal
        [
            "a.yaml:3:14: a key must not stand in this file; refer to it with ${VARIABLE}, as in https://example.com/v2/${KEY}"
        ]
        (loadIn nothing [ "a.yaml", text [ "collectors:"; "  polymarket:"; $"    rpc_url: {written}" ] ]
         |> mistakes)

[<Test>]
let ``a secret in a file is read when it is needed`` () =
    let path = Path.GetTempFileName()

    try
        File.WriteAllText(path, "http://me:hunter2@proxy:8080\n")
        let secret = (proxy $"file:{path}" |> sound |> polymarket).Proxy |> Option.get
        equal (Ok "http://me:hunter2@proxy:8080") (Secret.reveal secret)
        File.Delete path
        equal (Error $"the file {path}, which holds a secret, cannot be read") (Secret.reveal secret)
    finally
        File.Delete path

// ---- describing

let private reload environment settings =
    loadIn environment [ "described.yaml", Settings.describe settings ] |> sound

[<Property(MaxTest = 200, QuietOnSuccess = true)>]
let ``what describe writes, load reads: texts`` (NonEmptyString path) (NonNegativeInt milliseconds) =
    let usable =
        not (String.IsNullOrWhiteSpace path)
        && not (Seq.exists Char.IsControl path)
        && not (Seq.exists Char.IsSurrogate path)

    let settings = {
        defaults with
            Store = {
                defaults.Store with
                    Path = if usable then path else "null"
                    GroupTime = TimeSpan.FromMilliseconds(float (milliseconds % 10_000))
            }
    }

    reload nothing settings = settings

[<TestCase("null")>]
[<TestCase("~")>]
[<TestCase("a: b # c")>]
[<TestCase("- [x, {y}]")>]
[<TestCase("C:\\data\\\"x\"")>]
[<TestCase("${HOME} $${HOME} $")>]
[<TestCase("größe 🦀 \u2028")>]
let ``awkward texts survive`` path =
    let settings = {
        defaults with
            Store = { defaults.Store with Path = path }
    }

    equal settings (reload nothing settings)

[<Test>]
let ``what describe writes, load reads: markets, discovery and secrets`` () =
    let environment = variables [ "PROXY", "http://me:hunter2@proxy:8080" ]

    let settings =
        loadIn environment [
            "a.yaml",
            text [
                "collectors:"
                "  polymarket:"
                "    proxy: ${PROXY}"
                "    lookback: 1d12h"
                "    markets: [{slug: x}, {event: y, enabled: false}]"
                "    discovery: {tags: [a, b], slugs: ['*-up?'], min_liquidity: 0.000001}"
                "alerts:"
                "  coverage: {enabled: false, for: 0s, threshold: 0.5, window: 1m, at_least: 1}"
                "  free_disk: {threshold: 5GB}"
                "  webhook: {url: 'file:/run/secrets/hook', format: discord}"
                "  command: {program: tell, arguments: ['a b', '-x'], timeout: 5s}"
            ]
        ]
        |> sound

    equal settings (reload environment settings)

[<Test>]
let ``a connection is read as QuestDB's clients read it, and its mistakes name no secret`` () =
    let known = variables [ "PASSWORD", "quest"; "X", "y" ]

    let mistakesOf (connection: string) =
        let file = text [ "store:"; $"  questdb: {{connection: '{connection}'}}" ]

        match loadIn known [ "a.yaml", file ] with
        | Ok _ -> []
        | Error mistakes -> mistakes |> List.map _.Message

    equal [] (mistakesOf "http::addr=db:9000;username=admin;password=${PASSWORD};")
    equal [] (mistakesOf "https::addr=db:9000;token=${X}${PASSWORD};")
    equal [ "unknown key 'adr'; did you mean 'addr'?" ] (mistakesOf "http::adr=db:9000;")

    for secret in
        [
            "password=hidden"
            "pass=hidden"
            "token=hidden"
            "password=${X}hidden"
            "password=${PASSWORD:hidden}"
            "password=${X};;hidden"
        ] do
        match mistakesOf $"http::addr=db:9000;username=u;{secret};" with
        | [ message ] -> Assert.That(message, Does.Contain "must not stand in this file")
        | others -> Assert.Fail $"%A{others}"

[<Test>]
let ``a connection is printed as it stands in the file`` () =
    let written = "http::addr=db:9000;username=admin;password=${PASSWORD};"
    let file = text [ "store:"; $"  questdb: {{connection: '{written}'}}" ]

    let settings =
        loadIn (variables [ "PASSWORD", "quest" ]) [ "a.yaml", file ] |> sound

    Assert.That(Settings.describe settings, Does.Contain "${PASSWORD}")
    Assert.That($"%A{settings}", Does.Not.Contain "password=quest")

// ---- the files that are shipped

[<Test>]
let ``the shipped configuration has no mistakes, in every environment`` () =
    for environment in [ nothing; variables [ "TRIBUTARY_ENV", "development" ] ] do
        let files = Settings.read environment config |> sound
        let settings = loadIn environment files |> sound
        Assert.That((polymarket settings).Markets, Is.Not.Empty)

[<Test>]
let ``base yaml names every key, and its values are the defaults`` () =
    let file = Path.Combine(config, "base.yaml")
    let files = Settings.read nothing file |> sound
    let found = loadIn nothing files |> sound
    let connection = found.Store.QuestDb.Connection
    equal (Ok "http::addr=localhost:9000;") (Secret.reveal connection)

    equal
        {
            defaults with
                Settings.Store.QuestDb.Connection = connection // it is a reference there
        }
        found

    let keys (lines: seq<string>) =
        lines
        |> Seq.map (fun line -> Regex.Match(line, @"^ *[a-z_]+:").Value)
        |> Seq.filter (fun key -> key <> "")
        |> List.ofSeq

    equal
        (keys (Settings.describe(defaults).Split '\n') |> List.sort)
        (keys (File.ReadLines file) |> List.sort)

[<Test>]
let ``a folder or file that is not there is a mistake, not an exception`` () =
    equal [ "nowhere: there is no such file or folder" ] (Settings.read nothing "nowhere" |> mistakes)

    let missing =
        Settings.read (variables [ "TRIBUTARY_ENV", "moon" ]) config |> mistakes

    equal
        [
            Path.Combine(config, "moon.yaml")
            + ": TRIBUTARY_ENV names an environment that has no such file; there are: development"
        ]
        missing
