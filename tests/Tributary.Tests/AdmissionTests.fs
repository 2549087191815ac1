/// Whether an exchange takes the key that it is given, against the simulated Kalshi over real sockets.
module Tributary.Tests.AdmissionTests

open System
open System.IO
open System.Security.Cryptography
open System.Threading
open System.Threading.Tasks
open NUnit.Framework
open Tributary
open Tributary.Exchanges
open Tributary.Tests.Exchanges
open Tributary.Server.Simulator

let private exchange = {
    SimulatorOptions.Default with
        Venue = Venue.Kalshi
        Markets = 3
        TradesPerSecond = 2.0
}

/// Runs the program with a key of this kind, over a simulated exchange that knows the owner's.
let private run
    (whose: string)
    (extra: string)
    (arguments: string list)
    (judge: Simulator -> int -> string -> unit)
    : Task = task {
    use own = RSA.Create 2048
    use other = RSA.Create 2048

    use! simulator =
        Simulator.StartAsync(
            {
                exchange with
                    PublicKey = own.ExportSubjectPublicKeyInfoPem()
            },
            CancellationToken.None
        )

    let folder = Directory.CreateTempSubdirectory("tributary-admission-").FullName

    try
        let file = Path.Combine(folder, "key.pem")

        File.WriteAllText(
            file,
            match whose with
            | "own" -> own.ExportPkcs8PrivateKeyPem()
            | "other" -> other.ExportPkcs8PrivateKeyPem()
            | _ -> "no key at all"
        )

        if not (OperatingSystem.IsWindows()) then
            File.SetUnixFileMode(file, UnixFileMode.UserRead ||| UnixFileMode.UserWrite)

        let config = Path.Combine(folder, "config.yaml")

        File.WriteAllText(
            config,
            $"""
http: {{listen: off}}
store: {{kind: memory}}
schedule: {{books: 500ms, trades: 500ms, markets: 1s}}
collectors:
  polymarket: {{enabled: false}}
  manifold: {{enabled: false}}
  kalshi:
    rest_url: {Uri(simulator.Address, "rest/")}
    ws_url: {Uri(simulator.Address, "ws/")}
    discovery: {{enabled: true}}
    key_id: '${{KEY_ID:}}'
    key: file:{file}
{extra}
"""
        )

        let! struct (code, output, errors) =
            KillTests.tributaryFor
                (TimeSpan.FromSeconds 60.0)
                [ "KEY_ID", "the-id-of-it" ]
                (arguments @ [ "--config"; config ])

        let text = output + errors
        judge simulator code text
        Assert.That(text, Does.Not.Contain "the-id-of-it")
        Assert.That(text, Does.Not.Contain "PRIVATE KEY")
    finally
        Directory.Delete(folder, true)
}

let private has times (part: string) (text: string) =
    let found = text.Split('\n') |> Array.filter _.Contains(part) |> Array.length

    if found <> times then
        Assert.Fail $"'{part}' is there {found} times, and not {times}: {text}"

[<Test>]
let ``a key that the exchange takes opens live connections`` () : Task =
    run "own" "" [ "start"; "--for"; "4s" ] (fun simulator code text ->
        equal 0 code
        text |> has 0 "does not take the key"
        text |> has 0 "without a key"
        isTrue (simulator.Ledger.Connections.Length > 0))

[<Test>]
let ``a key that the exchange refuses is one warning, and public data is collected without it`` () : Task =
    run "other" "" [ "start"; "--for"; "4s" ] (fun simulator code text ->
        equal 0 code
        text |> has 1 "does not take the key (status 401)"
        text |> has 1 "order books are polled"
        equal 0 simulator.Ledger.Connections.Length
        text |> has 0 "could not be")

[<TestCase("other", "does not take the key (status 401)")>]
[<TestCase("none", "the key is no RSA private key in PEM")>]
let ``with auth: required collecting does not begin with a key that does not serve``
    (whose: string, said: string)
    : Task =
    run whose "    auth: required" [ "start"; "--for"; "4s" ] (fun _ code text ->
        equal 78 code
        Assert.That(text, Does.Contain said)
        Assert.That(text, Does.Contain "collectors.kalshi.auth is required"))

[<TestCase("own", "takes the credentials of 'key_id'")>]
[<TestCase("other", "does not take the key (status 401)")>]
let ``the doctor says whether the key is taken`` (whose: string, said: string) : Task =
    run whose "" [ "doctor" ] (fun _ _ text -> Assert.That(text, Does.Contain said))

[<Test>]
let ``a question goes without a key that is refused`` () : Task =
    run "other" "" [ "markets"; "--exchange"; "kalshi" ] (fun _ code text ->
        equal 0 code
        text |> has 1 "does not take the key (status 401)")

let private limits = KalshiTests.keyed.Limits

[<TestCase("""{"usage_tier":"advanced","read":{"refill_rate":300,"bucket_capacity":300}}""", 300)>]
[<TestCase("""{"read":{"refill_rate":"4000"}}""", 4000)>]
[<TestCase("""{"read":{"refill_rate":0}}""", 200)>]
[<TestCase("""{"read":null}""", 200)>]
[<TestCase("[]", 200)>]
[<TestCase("<html>", 200)>]
let ``an owner's tier says how often may be asked: a request costs ten tokens``
    (body: string)
    (expected: int)
    =
    let allowed = KalshiTests.keyed.Admission.Value.Allows(memory body)
    let usual = Map [ "read", 50; "read_signed", 200 ]
    equal (Map [ "read", 50; "read_signed", expected ]) (Admission.limited limits allowed usual)

[<TestCase(100, 100)>]
[<TestCase(1000, 300)>]
let ``a limit that somebody set stays, but for what the exchange does not allow``
    (configured: int)
    (expected: int)
    =
    let configured = Map [ "read_signed", configured ]
    equal (Map [ "read_signed", expected ]) (Admission.limited limits (Map [ "read_signed", 300 ]) configured)
