/// The HTTP door, over a collector that runs against the simulated exchange.
module Tributary.Tests.HttpTests

open System
open System.Net
open System.Net.Http
open System.Net.Http.Headers
open System.Text.Json
open System.Threading
open System.Threading.Tasks
open Microsoft.Extensions.Logging.Abstractions
open NUnit.Framework
open Tributary
open Tributary.Server
open Tributary.Server.Simulator

let private opened token engine : Task<Door> =
    Door.StartAsync(
        {
            Address = IPAddress.Loopback
            Port = 0
            Token = token
            Web = None
        },
        Shown.ofEngine engine,
        CancellationToken.None
    )

let private exchange = {
    SimulatorOptions.Default with
        Markets = 3
        TradesPerSecond = 10.0
}

/// A collector that has stored something, and its door.
let private with' token (test: EngineTests.Bench -> HttpClient -> Task<unit>) : Task = task {
    let bench = EngineTests.Bench exchange
    use _ = bench
    let! engine = bench.Start()
    let! door = opened token engine
    use client = new HttpClient(BaseAddress = door.Address)

    let hasAll () =
        let markets = engine.Pulse().Markets
        markets.Length = 3 && markets |> List.forall (fun market -> market.Books >= 2L)

    do! bench.Until("books of all markets", fun () -> hasAll () && engine.Ready.IsCompleted)
    do! test bench client
    do! (door :> IAsyncDisposable).DisposeAsync()
    do! bench.Finish engine
}

let private document (client: HttpClient) (path: string) = task {
    let! text = client.GetStringAsync path
    return JsonDocument.Parse(text).RootElement
}

let private text (name: string) (json: JsonElement) =
    string (json.GetProperty(name).GetString())

[<Test>]
let ``a collector that is well says so, and what it does`` () =
    with' None (fun bench client -> task {
        let! live = document client "health/live"
        equal "live" (text "status" live)
        let! status = document client "status"
        equal "main" (text "collector" status)
        let markets = status.GetProperty("markets").EnumerateArray() |> List.ofSeq
        equal 3 markets.Length

        for market in markets do
            Assert.That(text "slug" market, Is.Not.Empty)
            Assert.That(market.GetProperty("books").GetInt64(), Is.GreaterThanOrEqualTo 2L)
            equal "verified" (text "verdict" market)

        // A machine that is busy may be late with a poll.
        let isReady () =
            use response = client.GetAsync("health/ready").Result

            response.StatusCode = HttpStatusCode.OK
            && response.Content.ReadAsStringAsync().Result.Contains "\"status\": \"ready\""

        do! bench.Until("it is ready", isReady)
    })

[<Test>]
let ``metrics are Prometheus' text, and series of single markets come only when asked for`` () =
    with' None (fun _ client -> task {
        use! response = client.GetAsync "metrics"
        let! metrics = response.Content.ReadAsStringAsync()
        let kind = response.Content.Headers.ContentType |> Option.ofObj |> Option.map string
        equal (Some Exposition.ContentType) kind

        for line in
            [
                "tributary_events_stored_total{exchange=\"polymarket\",stream=\"books\"}"
                "tributary_request_seconds_bucket{exchange=\"polymarket\",endpoint=\"clob_books\",le=\"+Inf\"}"
                "tributary_markets{exchange=\"polymarket\",state=\"active\"} 3"
                "process_cpu_seconds_total "
            ] do
            Assert.That(metrics, Does.Contain line)

        Assert.That(metrics, Does.Not.Contain "slug=")
        let! some = client.GetStringAsync "metrics?markets=2"

        equal
            2
            (some.Split('\n')
             |> Array.filter _.StartsWith("tributary_market_books_total{")
             |> Array.length)

        use! wrong = client.GetAsync "metrics?markets=all"
        equal HttpStatusCode.BadRequest wrong.StatusCode
    })

[<Test>]
let ``with a token nothing is told to whoever has none, but that somebody is there`` () =
    with' (Some "open sesame") (fun _ client -> task {
        for path in [ "status"; "metrics"; "health/ready"; "anything" ] do
            use! refused = client.GetAsync path
            let! said = refused.Content.ReadAsStringAsync()
            equal HttpStatusCode.Unauthorized refused.StatusCode
            Assert.That(said, Does.Not.Contain "sesame")

        use! live = client.GetAsync "health/live"
        equal HttpStatusCode.OK live.StatusCode
        client.DefaultRequestHeaders.Authorization <- AuthenticationHeaderValue("Bearer", "open sesam")
        use! wrong = client.GetAsync "status"
        equal HttpStatusCode.Unauthorized wrong.StatusCode
        client.DefaultRequestHeaders.Authorization <- AuthenticationHeaderValue("Bearer", "open sesame")
        use! right = client.GetAsync "status"
        equal HttpStatusCode.OK right.StatusCode
    })

[<Test>]
let ``what there is none of is said, and nothing can be changed`` () =
    with' None (fun _ client -> task {
        use! none = client.GetAsync "healthz"
        let! said = none.Content.ReadAsStringAsync()
        equal HttpStatusCode.NotFound none.StatusCode
        Assert.That(said, Does.Contain "/health/ready")
        use! posted = client.PostAsync("status", new StringContent "")
        equal HttpStatusCode.MethodNotAllowed posted.StatusCode
    })

[<Test>]
let ``an exchange that does not answer makes it degraded, not dead, until it answers again`` () =
    with' None (fun bench client -> task {
        let reasons () =
            let status = (document client "health/ready").Result

            text "status" status,
            [
                for reason in status.GetProperty("reasons").EnumerateArray() -> text "code" reason
            ]

        do! bench.Until("it is ready", fun () -> reasons () = ("ready", []))
        bench.Simulator.Faults <- Set.ofList [ FaultSwitch.ServerError ]

        do!
            bench.Until(
                "a gap that is open",
                fun () -> snd (reasons ()) |> List.exists _.StartsWith("gaps_")
            )

        equal "degraded" (fst (reasons ()))
        bench.Simulator.Faults <- Set.empty
        do! bench.Until("no reason", fun () -> reasons () = ("ready", []))
    })

[<Test>]
let ``a port that is taken stops nothing`` () : Task = task {
    let bench = EngineTests.Bench exchange
    use _ = bench
    let! engine = bench.Start()
    let! first = opened None engine

    let! second =
        Door.TryOpenAsync(
            {
                Listen = Some(IPEndPoint(IPAddress.Loopback, first.Address.Port))
                Token = None
                Web = false
            },
            Shown.ofEngine engine,
            None,
            Logs.none,
            CancellationToken.None
        )

    isTrue second.IsNone
    do! (first :> IAsyncDisposable).DisposeAsync()
    do! bench.Finish engine
}
