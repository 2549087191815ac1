/// A live connection to an exchange that numbers its messages, over real sockets: signed, resnapshotted, stored.
module Tributary.Tests.KalshiLiveTests

open System
open System.IO
open System.Net
open System.Net.WebSockets
open System.Security.Cryptography
open System.Text
open System.Text.Json
open System.Threading
open System.Threading.Tasks
open Microsoft.AspNetCore.Builder
open Microsoft.AspNetCore.Hosting
open Microsoft.AspNetCore.Http
open Microsoft.Extensions.Logging
open NUnit.Framework
open Tributary
open Tributary.Stores

let private sound (result: Result<'t, 'e>) =
    match result with
    | Ok value -> value
    | Error fault -> failwith (string fault)

let private market =
    """{"ticker":"KX-A","event_ticker":"KX","title":"Will it rain?","status":"active","result":"","updated_time":"2026-05-02T10:00:00Z","volume_fp":"12.50","price_ranges":[{"start":"0.0000","end":"1.0000","step":"0.0100"}]}"""

/// One market; its market channel loses what it is told to lose.
type private Exchange(key: RSA) =
    let refused = ResizeArray<string>()
    // How many whole books were asked for, and when the last message before a loss was, by its own clock.
    let mutable renewed, lostAt = 0, 0L

    let isSigned (request: HttpRequest) =
        let header (name: string) = string request.Headers[name]

        let text = $"""{header "KALSHI-ACCESS-TIMESTAMP"}{request.Method}{request.Path}"""

        header "KALSHI-ACCESS-KEY" = "me"
        && key.VerifyData(
            Encoding.UTF8.GetBytes text,
            Convert.FromBase64String(header "KALSHI-ACCESS-SIGNATURE"),
            HashAlgorithmName.SHA256,
            RSASignaturePadding.Pss
        )

    let send (socket: WebSocket) (text: string) =
        socket.SendAsync(
            ReadOnlyMemory(Encoding.UTF8.GetBytes text),
            WebSocketMessageType.Text,
            true,
            CancellationToken.None
        )

    let stamp () =
        DateTimeOffset.UtcNow.ToUnixTimeMilliseconds()

    let talk (socket: WebSocket) : Task = task {
        let buffer = Array.zeroCreate<byte> 65_536
        let mutable sequence, bid = 0, 0

        let next () =
            sequence <- sequence + 1
            sequence

        let snapshot () =
            let levels = if bid > 0 then $"[\"0.4000\",\"{bid}.00\"]" else ""

            send
                socket
                $$$"""{"type":"orderbook_snapshot","sid":7,"seq":{{{next ()}}},"msg":{"market_ticker":"KX-A","market_id":"11111111-aaaa-4aaa-8aaa-000000000001","yes_dollars_fp":[{{{levels}}}],"no_dollars_fp":[["0.6000","7.00"]]}}"""

        let delta size (at: int64) =
            bid <- bid + size

            send
                socket
                $$$"""{"type":"orderbook_delta","sid":7,"seq":{{{next ()}}},"msg":{"market_ticker":"KX-A","market_id":"11111111-aaaa-4aaa-8aaa-000000000001","price_dollars":"0.4000","delta_fp":"{{{size}}}.00","side":"yes","ts_ms":{{{at}}}}}"""

        let mutable isOpen = true

        while isOpen do
            let! part = socket.ReceiveAsync(Memory<byte> buffer, CancellationToken.None)
            isOpen <- part.MessageType <> WebSocketMessageType.Close

            if isOpen then
                use command = JsonDocument.Parse(ReadOnlyMemory(buffer, 0, part.Count))
                let root = command.RootElement
                let id = root.GetProperty("id").GetInt32()
                let parameters = root.GetProperty "params"

                match string (root.GetProperty("cmd").GetString()) with
                | "subscribe" ->
                    match string ((parameters.GetProperty "channels").[0].GetString()) with
                    | "orderbook_delta" ->
                        if not (parameters.GetProperty("use_yes_price").GetBoolean()) then
                            refused.Add "the scale was not said"

                        do!
                            send
                                socket
                                $$$"""{"id":{{{id}}},"type":"subscribed","msg":{"channel":"orderbook_delta","sid":7}}"""

                        do! snapshot ()
                        do! Task.Delay 300

                        for _ in 1..5 do
                            lostAt <- stamp ()
                            do! delta 10 lostAt

                        do! Task.Delay 300
                        // Two messages go astray.
                        sequence <- sequence + 2
                        bid <- bid + 5
                        do! delta 1 (stamp ())
                    | channel ->
                        do!
                            send
                                socket
                                $$$"""{"id":{{{id}}},"type":"subscribed","msg":{"channel":"{{{channel}}}","sid":{{{8 + id}}}}}"""
                | "update_subscription" when
                    string (parameters.GetProperty("action").GetString()) = "get_snapshot"
                    ->
                    renewed <- renewed + 1

                    do!
                        send
                            socket
                            $$$"""{"id":{{{id}}},"sid":7,"seq":{{{next ()}}},"type":"ok","msg":{"market_tickers":["KX-A"]}}"""

                    do! snapshot ()
                    do! delta 2 (stamp ())
                | other -> refused.Add other
    }

    member _.Refused = List.ofSeq refused
    member _.Renewed = renewed
    member _.LostAt = lostAt

    member _.Answer(http: HttpContext) : Task = task {
        if not (isSigned http.Request) then
            refused.Add $"{http.Request.Path} is not signed"
            http.Response.StatusCode <- 401
        elif http.WebSockets.IsWebSocketRequest then
            use! socket = http.WebSockets.AcceptWebSocketAsync()

            try
                do! talk socket
            with :? WebSocketException ->
                () // the other side went away
        else
            let body =
                match string http.Request.Path with
                | path when path.EndsWith "/events" ->
                    $"{{\"cursor\":\"\",\"events\":[{{\"event_ticker\":\"KX\",\"series_ticker\":\"KX\",\"markets\":[{market}]}}]}}"
                | path when path.EndsWith "/markets" -> $"{{\"cursor\":\"\",\"markets\":[{market}]}}"
                | path when path.EndsWith "/orderbook" ->
                    """{"orderbook_fp":{"yes_dollars":[],"no_dollars":[["0.4000","7.00"]]}}"""
                | path when path.EndsWith "/trades" -> """{"cursor":"","trades":[]}"""
                | path when path.EndsWith "/account/limits" -> """{"read":{"refill_rate":200}}"""
                | path ->
                    refused.Add path
                    "{}"

            http.Response.ContentType <- "application/json"
            do! http.Response.WriteAsync body
    }

[<Test>]
let ``numbered books are followed over a signed connection; what is lost is a gap that the next whole book ends``
    ()
    : Task = task {
    use key = RSA.Create 2048
    let exchange = Exchange key
    let builder = WebApplication.CreateEmptyBuilder(WebApplicationOptions())

    builder.WebHost.UseKestrelCore().ConfigureKestrel(fun kestrel -> kestrel.Listen(IPAddress.Loopback, 0))
    |> ignore

    use app = builder.Build()
    app.UseWebSockets() |> ignore
    app.Run(RequestDelegate exchange.Answer)
    do! app.StartAsync()
    let root = Uri(Seq.head app.Urls)
    let folder = Directory.CreateTempSubdirectory("tributary-kalshi-").FullName
    let path = Path.Combine(folder, "store.db")
    let pem = Path.Combine(folder, "key.pem")
    File.WriteAllText(pem, key.ExportPkcs8PrivateKeyPem())
    File.SetUnixFileMode(pem, UnixFileMode.UserRead ||| UnixFileMode.UserWrite)

    let configuration =
        $"""
schedule: {{books: 60s, trades: 1s, markets: 10s}}
http: {{listen: off}}
collectors:
  polymarket: {{enabled: false}}
  manifold: {{enabled: false}}
  kalshi:
    rest_url: {root}rest
    ws_url: {root.AbsoluteUri.Replace("http:", "ws:")}ws/
    key_id: ${{KALSHI_TEST_ID:}}
    key: file:{pem}
    discovery: {{enabled: true}}
"""

    Environment.SetEnvironmentVariable("KALSHI_TEST_ID", "me")
    let file = Path.Combine(folder, "config.yaml")
    File.WriteAllText(file, configuration)

    let settings =
        match Setup.read (Some file) with
        | Ok settings -> settings
        | Error mistakes -> failwith (String.Join("\n", mistakes |> List.map Mistake.render))

    let words = new Words(LogLevel.Information)
    let store = sound (Sqlite.openForWriting path "main" Synchronous.Normal)

    let! engine =
        Engine.StartAsync(
            EngineOptions.Create(settings, store, TimeProvider.System, words),
            CancellationToken.None
        )

    let reader = sound (Sqlite.openForReading path)
    let token = token "KX-A:YES"

    let ofToken = {
        Query.everything with
            Token = ValueSome token
    }

    let patience = DateTime.UtcNow + TimeSpan.FromSeconds 30.0
    let mutable isDone = false

    while not isDone && DateTime.UtcNow < patience do
        let! gaps = reader.Gaps ofToken

        isDone <-
            gaps
            |> List.exists (fun one -> one.Gap.Stream = Stream.Depth && one.Gap.Until.IsSome)

        do! Task.Delay 100

    do! Task.Delay 500
    let! report = engine.StopAsync(TimeSpan.FromSeconds 10.0)
    equal None report.Undrained
    let! gaps = reader.Gaps ofToken
    let! deltas = reader.Deltas ofToken
    let! books = reader.Books ofToken
    let! extent = Rebuild.extent reader token
    let! struct (_, newest) = Rebuild.newestBook reader extent
    do! reader.Close()
    equal [] exchange.Refused

    let depth =
        gaps |> List.map _.Gap |> List.filter (fun gap -> gap.Stream = Stream.Depth)

    match depth with
    | [ gap ] ->
        equal (exchange.LostAt, Cause.Mismatch) (gap.Since.Micros / 1_000L, gap.Cause)
        isTrue (gap.Until.IsSome && gap.Until.Value > gap.Since)
    | gaps -> Assert.Fail $"%A{gaps}\n{words.Text}"

    equal 1 exchange.Renewed
    // The change that showed the loss is not one of them.
    equal [ "10"; "20"; "30"; "40"; "50"; "58" ] [ for change in deltas -> string change.Size ]

    isTrue (deltas |> List.forall (fun change -> change.Verdict = Verdict.Verified))

    equal
        [ Reason.First; Reason.Resync ]
        (books |> List.map _.Reason |> List.filter (fun reason -> reason <> Reason.Poll))

    match newest with
    | BookAt.Known book ->
        equal ("58", Verdict.Verified) (string book.Bids[0].Size, book.Verdict)
        equal "0.6" (string book.Asks[0].Price)
    | other -> Assert.Fail $"%A{other}"

    do! app.StopAsync(CancellationToken true)
    Directory.Delete(folder, true)
}
