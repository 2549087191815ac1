/// Measures and traces reach an OTLP receiver: a real one on a real socket, that keeps what it is sent.
module Tributary.Tests.TelemetryTests

open System
open System.Text
open System.Collections.Concurrent
open System.IO
open System.Net
open System.Threading
open System.Threading.Tasks
open Microsoft.AspNetCore.Builder
open Microsoft.AspNetCore.Hosting
open Microsoft.AspNetCore.Http
open NUnit.Framework
open Tributary
open Tributary.Server

/// What was posted, by path.
let private receiving (test: Uri -> ConcurrentDictionary<string, string> -> Task<unit>) : Task = task {
    let builder = WebApplication.CreateEmptyBuilder(WebApplicationOptions())

    builder.WebHost.UseKestrelCore().ConfigureKestrel(fun kestrel -> kestrel.Listen(IPAddress.Loopback, 0))
    |> ignore

    use app = builder.Build()
    let heard = ConcurrentDictionary<string, string>()

    app.Run(
        RequestDelegate(fun context -> task {
            use body = new MemoryStream()
            do! context.Request.Body.CopyToAsync body
            // Protobuf: names stand in it as they are.
            let text = Encoding.Latin1.GetString(body.ToArray())

            heard.AddOrUpdate(string context.Request.Path, text, (fun _ before -> before + text))
            |> ignore

            context.Response.StatusCode <- 200
        })
    )

    do! app.StartAsync()
    do! test (Uri(Seq.head app.Urls)) heard
    do! app.StopAsync(CancellationToken true)
}

let private sendingTo (address: string) =
    match
        Settings.load Setup.known (fun _ -> None) [
            "a.yaml", $"collector: north\ntelemetry: {{otlp: '{address}'}}"
        ]
    with
    | Ok settings -> settings
    | Error mistakes -> failwith $"%A{mistakes}"

[<Test>]
let ``counters, gauges, durations and traces are sent under the collector's name`` () =
    receiving (fun address heard -> task {
        use meters = new Meters()

        do
            use _ = Telemetry.start (sendingTo (string address))
            (meters.Of "polymarket").Add(Count.requests, "endpoint=clob_books,outcome=ok", 3L)
            meters.Add(Took.commit, "", TimeSpan.FromMilliseconds 20.0)
            meters.Watch(Gauge.freeBytes, fun () -> [ struct ("", 42.0) ])
            use span = Trace.start "request" Diagnostics.ActivityKind.Client
            span |> Trace.tag "endpoint" (fun () -> "clob_books")

        // Disposing sends the last.
        let metrics, traces = heard["/v1/metrics"], heard["/v1/traces"]

        for name in
            [
                "tributary.requests"
                "tributary.commit_seconds"
                "tributary.disk_free_bytes"
                "polymarket"
                "north"
            ] do
            Assert.That(metrics, Does.Contain name)

        Assert.That(traces, Does.Contain "clob_books")
    })

[<Test>]
let ``a receiver that is not there stops nothing`` () =
    use meters = new Meters()
    let began = DateTime.UtcNow

    do
        use _ = Telemetry.start (sendingTo "http://127.0.0.1:9")
        meters.Add(Count.commits, "")

    Assert.That(DateTime.UtcNow - began, Is.LessThan(TimeSpan.FromSeconds 30.0))
    equal 1L (meters.Total Count.commits)
