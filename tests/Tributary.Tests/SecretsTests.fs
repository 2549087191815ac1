/// Secrets are fed in everywhere that takes one, and everything that comes out is searched for them.
module Tributary.Tests.SecretsTests

open System
open System.IO
open System.Net.Http
open System.Text
open System.Threading
open System.Threading.Tasks
open NUnit.Framework
open Tributary.Server.Simulator

// What none of the outputs may hold. Each is long, and none is a part of another.
let private secrets = [
    "DOOR_TOKEN", "hush-door-5f0c1a"
    "HOOK", "http://127.0.0.1:1/services/T000/hush-hook-71bb2e"
    "RPC_KEY", "hushrpc90aa41c7d2b3f6"
    "QDB_PASSWORD", "hush-questdb-11d0"
    "PROXY", "http://somebody:hush-proxy-8ac4@127.0.0.1:1"
    "OTEL_EXPORTER_OTLP_HEADERS", "authorization=hush-otlp-2b7e"
    "IN_CLEAR", "hush-clear-93fe"
    // A key that everybody knows, of a wallet that nobody uses.
    "WALLET_KEY", "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
    "ADDRESS", "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
    "API_KEY", "hush-api-key-4e1d"
    "API_SECRET", "aHVzaC1hcGktc2VjcmV0"
    "API_PASSPHRASE", "hush-passphrase-c07a"
]

let private wallet = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"

let private marks = [
    "hush"
    "ac0974bec39a17e36ba4a6b4d238ff94"
    "aHVzaC1hcGkt"
    // As a Basic header would have them.
    Convert.ToBase64String(Encoding.UTF8.GetBytes "admin:hush-questdb-11d0")
    Convert.ToBase64String(Encoding.UTF8.GetBytes "somebody:hush-proxy-8ac4")
    Uri.EscapeDataString(snd secrets[1])
]

let private holds (what: string) (text: string) =
    for mark in marks do
        let at = text.IndexOf(mark, StringComparison.OrdinalIgnoreCase)

        if at >= 0 then
            Assert.Fail
                $"{what} holds a secret: …{text.Substring(max 0 (at - 200), min 300 (text.Length - max 0 (at - 200)))}…"

/// The account shows itself with a wallet, or with API credentials.
let private byWallet = "private_key: '${WALLET_KEY}'"

let private byKey =
    "api_key: '${API_KEY}', api_secret: '${API_SECRET}', api_passphrase: '${API_PASSPHRASE}', address: '${ADDRESS}'"

let private config
    (folder: string)
    (exchange: Uri)
    (port: int)
    (format: string)
    (proxy: string)
    (account: string)
    =
    let account = account.Replace(", ", "\n    ")
    let at name = Uri(exchange, name + "/")

    $$"""
log_level: trace
log_format: {{format}}
store:
  kind: both
  path: {{folder}}/store.db
  questdb:
    connection: http::addr=127.0.0.1:1;username=admin;password=${QDB_PASSWORD};
schedule: {books: 500ms, trades: 500ms, markets: 1s}
http: {listen: '127.0.0.1:{{port}}', token: '${DOOR_TOKEN}', web: true}
telemetry: {otlp: 'http://127.0.0.1:1'}
alerts:
  look: 1s
  store_trouble: {for: 0s}
  webhook: {url: '${HOOK}', timeout: 200ms}
  command: {program: sh, arguments: ['-c', 'exit 3'], timeout: 5s}
collectors:
  polymarket:
    gamma_url: {{at "gamma"}}
    clob_url: {{at "clob"}}
    data_url: {{at "data"}}
    ws_url: {{at "ws"}}
    rpc_url: http://127.0.0.1:1/v2/${RPC_KEY}
    retries: 1
    timeout: 2s
    proxy: {{proxy}}
    {{account}}
    own_every: 1s
    discovery: {enabled: true}
"""

let private freePort () =
    use listener = new System.Net.Sockets.TcpListener(System.Net.IPAddress.Loopback, 0)
    listener.Start()
    (listener.LocalEndpoint :?> System.Net.IPEndPoint).Port

let private temporary (test: string -> Task<unit>) : Task = task {
    let folder = Directory.CreateTempSubdirectory("tributary-hidden-").FullName

    try
        do! test folder
    finally
        Directory.Delete(folder, true)
}

let private write (folder: string) (text: string) =
    let path = Path.Combine(folder, "config.yaml")
    File.WriteAllText(path, text.TrimStart())
    path

/// Runs a command, for so long at most, and searches what it prints.
let private searchedFor (limit: TimeSpan) (arguments: string list) = task {
    let! struct (code, output, errors) = KillTests.tributaryFor limit secrets arguments

    let what = String.concat " " arguments
    holds $"standard output of {what}" output
    holds $"standard error of {what}" errors
    return struct (code, output + errors)
}

let private searched arguments =
    searchedFor (TimeSpan.FromSeconds 8.0) arguments

let private stored (folder: string) =
    Directory.GetFiles(folder, "*", SearchOption.AllDirectories)

let private read (path: string) =
    Encoding.Latin1.GetString(File.ReadAllBytes path)

let private searchedFiles (folder: string) =
    for path in stored folder do
        holds path (read path)

/// Everything that the door answers, with the token and without, while a collector runs.
let private askedAll (door: Uri) = task {
    use client = new HttpClient()
    client.Timeout <- TimeSpan.FromSeconds 5.0
    let mutable answers = 0

    for token in [ "hush-door-5f0c1a"; "hush-wrong"; "" ] do
        for path in
            [
                "/"
                "/health/live"
                "/health/ready"
                "/status"
                "/settings"
                "/metrics"
                "/metrics?markets=100"
                "/nowhere"
                "/page.js"
                "/web/market?market=x"
                "/web/prices"
                "/web/gaps"
                "/web/calendar"
            ] do
            use request = new HttpRequestMessage(HttpMethod.Get, Uri(door, path))

            if token <> "" then
                request.Headers.Authorization <- Headers.AuthenticationHeaderValue("Bearer", token)

            use! answer = client.SendAsync request
            let! body = answer.Content.ReadAsStringAsync()
            answers <- answers + 1
            holds $"{path}" (body + string answer.Headers)

    return answers
}

[<Test; CancelAfter 300_000>]
let ``no secret is in a log, an answer, a file or an error of a collector, whatever fails`` () =
    temporary (fun folder -> task {
        use! simulator =
            Simulator.StartAsync(
                {
                    SimulatorOptions.Default with
                        Markets = 4
                        MessagesPerSecond = 50.0
                        FaultRate = 0.3
                        Faults = set (List.map fst FaultSwitch.all)
                        StreamFaults = set (List.map fst StreamFault.all)
                },
                CancellationToken.None
            )

        for format in [ "text"; "json" ] do
            let port = freePort ()
            let path = write folder (config folder simulator.Address port format "" byWallet)

            let running =
                searchedFor (TimeSpan.FromMinutes 2.0) [
                    "start"
                    "--config"
                    path
                    "--for"
                    "12s"
                    "--verbose"
                    "--progress-log"
                    Path.Combine(folder, "progress")
                ]

            // The door is asked while it is open.
            let door = Uri $"http://127.0.0.1:{port}"
            let mutable asked = 0

            while asked = 0 && not running.IsCompleted do
                do! Task.Delay 200

                try
                    let! answers = askedAll door
                    asked <- answers
                with
                | :? HttpRequestException
                | :? TaskCanceledException -> ()

            Assert.That(asked, Is.GreaterThan 0, "nobody answered at the door")

            for arguments in [ [ "status" ]; [ "status"; "--json" ]; [ "top"; "--once" ] ] do
                let! _ = searched (arguments @ [ "--config"; path ])
                ()

            let! struct (code, said) = running
            Assert.That(code, Is.EqualTo 0, said)
            // It was all tried: the server, the hook, the command.
            Assert.That(said, Does.Contain "QuestDB")
            Assert.That(said, Does.Contain "webhook")
            Assert.That(said, Does.Contain "command")
            // The wallet was taken, and what it was given is a secret as well.
            Assert.That(said, Does.Contain $"own orders and trades of {wallet}")
            let struct (key, secret, passphrase) = simulator.Accounts.CredentialsOf wallet

            for text in said :: [ for path in stored folder -> read path ] do
                for given in [ key; secret; passphrase ] do
                    Assert.That(text, Does.Not.Contain given)

            File.Delete path
            searchedFiles folder
    })

[<Test; CancelAfter 300_000>]
let ``no secret is in what a command prints, with a proxy that fails and without`` () =
    temporary (fun folder -> task {
        use! simulator =
            Simulator.StartAsync(
                {
                    SimulatorOptions.Default with
                        Markets = 2
                },
                CancellationToken.None
            )

        for proxy in [ ""; "${PROXY}" ] do
            let path =
                write folder (config folder simulator.Address (freePort ()) "text" proxy byKey)

            for arguments in
                [
                    [ "validate-config"; "--config"; path ]
                    [ "start"; "--config"; path; "--dry-run" ]
                    [ "start"; "--config"; path; "--for"; "2s"; "--verbose" ]
                    [ "alerts"; "test"; "--config"; path; "--verbose" ]
                    [ "doctor"; "--config"; path; "--verbose" ]
                    [ "doctor"; "--config"; path; "--json" ]
                    [ "markets"; "--config"; path; "--market"; "no-such"; "--verbose" ]
                    // It waits for an endpoint that is away until somebody stops it.
                    [
                        "backfill"
                        "--config"
                        path
                        "--markets"
                        "*"
                        "--source"
                        "chain"
                        "--since"
                        "1h"
                        "--verbose"
                    ]
                    [ "audit"; "--config"; path ]
                    [ "status"; "--config"; path ]
                    [ "compact"; "--config"; path ]
                    // Typed where they can be seen already; the answer does not repeat them.
                    [
                        "start"
                        "--config"
                        path
                        "--for"
                        "1s"
                        "--questdb"
                        "http::addr=127.0.0.1:1;username=admin;password=hush-typed;what=1;"
                    ]
                    [
                        "start"
                        "--config"
                        path
                        "--for"
                        "1s"
                        "--exchange-url"
                        "http://a:hush-typed@127.0.0.1:1"
                    ]
                ] do
                let! struct (code, said) = searched arguments
                Assert.That(said, Does.Not.Contain "bug of ours", String.concat " " arguments)
                Assert.That(code, Is.Not.EqualTo 134, String.concat " " arguments)

            File.Delete path
            searchedFiles folder
    })

[<TestCase "http: {token: hush-in-the-file}">]
[<TestCase "http: {token: 'x${IN_CLEAR'}">]
[<TestCase "alerts: {webhook: {url: 'https://hooks.example.com/hush-in-the-file'}}">]
[<TestCase "store: {questdb: {connection: 'http::addr=db:9000;password=hush-in-the-file;'}}">]
[<TestCase "collectors: {polymarket: {proxy: 'http://me:hush-in-the-file@proxy:1'}}">]
[<TestCase "collectors: {polymarket: {rpc_url: 'https://rpc.example.com/v2/hushinthefile0123456789'}}">]
[<TestCase "collectors: {polymarket: {timeout: '${IN_CLEAR}'}}">]
[<TestCase "collectors: {polymarket: {private_key: 'hush-in-the-file'}}">]
[<TestCase "collectors: {polymarket: {api_secret: 'x${IN_CLEAR}'}}">]
[<TestCase "collectors: {polymarket: {auth: '${IN_CLEAR}'}}">]
[<TestCase "log_levels: {live: '${IN_CLEAR}'}">]
[<TestCase "http: {listen: '${IN_CLEAR}'}">]
[<TestCase "telemetry: {otlp: 'http://${IN_CLEAR}:x'}">]
let ``a secret in the wrong place is refused without being repeated`` (line: string) =
    temporary (fun folder -> task {
        let path = write folder line

        for command in
            [
                [ "validate-config"; "--config"; path ]
                [ "start"; "--config"; path ]
                [ "doctor"; "--config"; path ]
            ] do
            let! struct (code, said) = searched command
            Assert.That(code, Is.EqualTo 78, said)
    })
