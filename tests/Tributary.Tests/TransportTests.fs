module Tributary.Tests.TransportTests

open System
open System.Collections.Concurrent
open System.IO
open System.IO.Compression
open System.Net
open System.Net.Sockets
open System.Text
open System.Threading
open System.Threading.Tasks
open Microsoft.AspNetCore.Builder
open Microsoft.AspNetCore.Hosting
open Microsoft.AspNetCore.Http
open Microsoft.Extensions.DependencyInjection
open Microsoft.Extensions.Hosting
open Microsoft.Extensions.Logging
open NUnit.Framework
open Tributary

let private write
    status
    kind
    (headers: (string * string) list)
    (bytes: byte[])
    (context: HttpContext)
    : Task =
    context.Response.StatusCode <- status
    context.Response.ContentType <- kind

    for name, value in headers do
        context.Response.Headers[name] <- value

    context.Response.Body.WriteAsync(bytes, 0, bytes.Length)

let private json status text =
    write status "application/json" [] (utf8 text)

let private ok = json 200 "[1]"

let private throttled header text =
    write 429 "application/json" [ "Retry-After", header ] (utf8 text)

let private options (root: Uri) : TransportOptions = {
    Hosts = Map.ofList [ "data_url", root ]
    RateLimits = Map.empty
    BySecond = Set.empty
    LimitsOf = fun _ -> []
    Sign = fun _ _ _ -> []
    Timeout = TimeSpan.FromSeconds 5.0
    Retries = 4
    MaxResponse = 100_000L
    Proxy = None
    Window = TimeSpan.FromSeconds 1.0
}

let private request path : Request = {
    Endpoint = "trades"
    Host = "data_url"
    Path = path
    Body = ValueNone
    Walk = Walk.Books []
}

let private text =
    Judge(fun body _ ->
        let text = Encoding.UTF8.GetString body.Span

        if text.EndsWith ']' then
            Ok text
        else
            Error(Fault.Undecodable(text.Length, "cut")))

/// Asks for one thing, on a clock that hurries while a retry waits. Answers how it went, and how long the waits were.
let private askWith options = task {
    let clock = Clock()
    let began = clock.GetUtcNow()
    let meters = new Meters()
    use transport = new Transport(options, clock, meters, new Words())
    let asked = transport.Ask(request "/trades", text, CancellationToken.None)

    while not asked.IsCompleted do
        if clock.Waiting > 0 then
            clock.Advance(TimeSpan.FromMilliseconds 100.0)

        do! Task.Delay 1

    let! answer = asked
    return answer, clock.GetUtcNow() - began
}

let private ask root = askWith (options root)

let private faultOf (answer: Result<string, Failure>) =
    match answer with
    | Error failure -> failure.Fault
    | Ok text -> failwith $"it was answered: {text}"

let private equalOk expected (answer: Result<string, Failure>) =
    match answer with
    | Ok text -> equal expected text
    | Error failure -> failwith (Fault.explain failure.Fault)

let private isAbout (expected: float) (waited: TimeSpan) =
    if waited.TotalSeconds < expected || waited.TotalSeconds > expected + 0.35 then
        Assert.Fail $"waited {waited.TotalSeconds} s instead of {expected} s"

[<Test>]
let ``what may pass is asked again, a little later each time`` () =
    serving [ json 500 "{}"; json 503 "{}"; json 425 "{}"; ok ] (fun root heard -> task {
        let! answer, waited = ask root
        equalOk "[1]" answer
        isAbout 3.5 waited
        equal 4 heard.Count
    })

[<Test>]
let ``four failures are enough`` () =
    serving [ json 425 "{}" ] (fun root heard -> task {
        let! answer, _ = ask root
        equal Fault.Restarting (faultOf answer)
        equal 4 heard.Count
    })

[<Test>]
let ``no more is repeated than the settings allow`` () =
    serving [ json 500 "{}" ] (fun root heard -> task {
        let! _ = askWith { options root with Retries = 1 }
        equal 2 heard.Count
        let! _ = askWith { options root with Retries = 0 }
        equal 3 heard.Count
    })

[<Test>]
let ``Retry-After is obeyed in seconds and in the body`` () =
    serving [ throttled "7" "{}"; json 429 """{"retry_after_seconds":3}"""; ok ] (fun root _ -> task {
        let! answer, waited = ask root
        equalOk "[1]" answer
        isAbout 10.0 waited
    })

[<Test>]
let ``Retry-After is obeyed as a date`` () =
    let date = Clock().GetUtcNow().AddSeconds(9.0).ToString "r"

    serving [ throttled date "{}"; ok ] (fun root _ -> task {
        let! answer, waited = ask root
        equalOk "[1]" answer
        isAbout 9.0 waited
    })

[<Test>]
let ``a date that is past and a wait that is nonsense are no wait`` () =
    let past = Clock().GetUtcNow().AddSeconds(-9.0).ToString "r"

    serving
        [
            throttled past "{}"
            json 429 """{"retry_after_seconds":-5}"""
            json 429 """{"retry_after_seconds":"soon"}"""
            ok
        ]
        (fun root _ -> task {
            let! answer, waited = ask root
            equalOk "[1]" answer
            isAbout 2.2 waited
        })

[<Test>]
let ``a wait of more than a minute is left to the schedule`` () =
    serving [ throttled "90" "{}" ] (fun root heard -> task {
        let! answer, _ = ask root
        equal (Fault.Throttled(ValueSome(TimeSpan.FromSeconds 90.0))) (faultOf answer)
        equal 1 heard.Count
    })

[<TestCase(200)>]
[<TestCase(502)>]
[<TestCase(404)>]
let ``a page of HTML is a failure, whatever its status and its type`` (status: int) =
    serving
        [
            write status "text/html" [] (utf8 "<!DOCTYPE html>")
            write status "application/json" [] (utf8 "\n <html></html>")
            ok
        ]
        (fun root heard -> task {
            let! answer, _ = ask root
            equalOk "[1]" answer
            equal 3 heard.Count
        })

[<TestCase("""{"error":"No orderbook exists"}""", "No orderbook exists")>]
[<TestCase("""["a list"]""", """["a list"]""")>]
[<TestCase("\"a text\"", "\"a text\"")>]
[<TestCase("no JSON\r\nat all", "no JSON at all")>]
[<TestCase("", "")>]
let ``a refusal is passed on at once, with its words`` (body: string, words: string) =
    serving [ json 404 body ] (fun root heard -> task {
        let! answer, _ = ask root
        equal (Fault.Refused(404, words)) (faultOf answer)
        equal 1 heard.Count
    })

[<Test>]
let ``long words are cut`` () =
    serving [ json 400 (String('x', 5000)) ] (fun root _ -> task {
        let! answer, _ = ask root
        equal (Fault.Refused(400, String('x', 200) + "…")) (faultOf answer)
    })

let private packed (pack: IO.Stream -> IO.Stream) =
    use into = new MemoryStream()

    do
        use stream = pack into
        let bytes = utf8 ("[" + String('7', 50_000) + "]")
        stream.Write(bytes, 0, bytes.Length)

    into.ToArray()

let private gzip =
    packed (fun into -> new GZipStream(into, CompressionMode.Compress, true))

let private brotli =
    packed (fun into -> new BrotliStream(into, CompressionMode.Compress, true))

[<Test>]
let ``gzip and brotli are unpacked`` () =
    serving
        [
            write 200 "application/json" [ "Content-Encoding", "gzip" ] gzip
            write 200 "application/json" [ "Content-Encoding", "br" ] brotli
        ]
        (fun root _ -> task {
            let! first, _ = ask root
            equalOk ("[" + String('7', 50_000) + "]") first
            let! second, _ = ask root
            equalOk ("[" + String('7', 50_000) + "]") second
        })

[<TestCase("gzip")>]
[<TestCase("br")>]
let ``what cannot be unpacked is unreadable, and asked for once more`` (encoding: string) =
    let bytes = if encoding = "gzip" then gzip else brotli
    let broken = Array.append bytes[.. bytes.Length / 2] (Array.create 200 0xA5uy)

    serving [ write 200 "application/json" [ "Content-Encoding", encoding ] broken ] (fun root heard -> task {
        let! answer, _ = ask root
        equal Cause.Undecodable (Fault.cause (faultOf answer))
        equal 2 heard.Count
    })

[<Test>]
let ``a body beyond the limit is not read to its end`` () =
    serving [ json 200 ("[" + String('7', 100_000) + "]") ] (fun root heard -> task {
        let! answer, _ = ask root
        equal (Fault.TooLarge 100_000L) (faultOf answer)
        equal 1 heard.Count
    })

[<Test>]
let ``a small body that unpacks to a large one is too large`` () =
    serving [ write 200 "application/json" [ "Content-Encoding", "gzip" ] gzip ] (fun root _ -> task {
        let! answer, _ =
            askWith {
                options root with
                    MaxResponse = 20_000L
            }

        equal (Fault.TooLarge 20_000L) (faultOf answer)
    })

[<Test>]
let ``a body that is cut off is asked for again`` () =
    let cut (context: HttpContext) : Task = task {
        context.Response.ContentLength <- Nullable 1000L
        do! context.Response.Body.WriteAsync(utf8 "[1", 0, 2)
        do! context.Response.Body.FlushAsync()
        context.Abort()
    }

    serving [ cut; ok ] (fun root _ -> task {
        let! answer, _ = ask root
        equalOk "[1]" answer
    })

[<Test>]
let ``bytes that cannot be read come with the fault, after a second try`` () =
    serving [ json 200 "[1" ] (fun root heard -> task {
        let! answer, _ = ask root

        match answer with
        | Error failure ->
            equal (Fault.Undecodable(2, "cut")) failure.Fault
            equal "[1" (Encoding.UTF8.GetString failure.Body)
        | Ok _ -> failwith "answered"

        equal 2 heard.Count
    })

[<Test>]
let ``where nobody listens it is unreachable`` () : Task = task {
    use free = new TcpListener(IPAddress.Loopback, 0)
    free.Start()
    let port = (free.LocalEndpoint :?> IPEndPoint).Port
    free.Stop()
    let! answer, _ = ask (Uri $"http://127.0.0.1:{port}/")
    equal Cause.Unreachable (Fault.cause (faultOf answer))
}

[<Test>]
let ``an answer that does not come in time is given up`` () =
    let slow (context: HttpContext) : Task =
        Task.Delay(Timeout.Infinite, context.RequestAborted)

    serving [ slow ] (fun root _ -> task {
        let patience = TimeSpan.FromMilliseconds 150.0

        let! answer, _ =
            askWith {
                options root with
                    Timeout = patience
                    Retries = 0
            }

        equal (Fault.TimedOut patience) (faultOf answer)
    })

[<Test>]
let ``a request that is cancelled throws`` () =
    let slow (context: HttpContext) : Task =
        Task.Delay(Timeout.Infinite, context.RequestAborted)

    serving [ slow ] (fun root _ -> task {
        use cancel = new CancellationTokenSource(100)

        use transport =
            new Transport(options root, TimeProvider.System, new Meters(), new Words())

        let asked = transport.Ask(request "/trades", text, cancel.Token)
        let! _ = Task.WhenAny(asked :> Task, Task.Delay 5000)
        isTrue asked.IsCanceled
    })

[<Test>]
let ``a body makes it a POST, below the base address`` () =
    serving [ ok ] (fun root heard -> task {
        use transport =
            new Transport(options (Uri(root, "clob/")), TimeProvider.System, new Meters(), new Words())

        let! _ =
            transport.Ask(
                {
                    request "/books?a=1" with
                        Body = ValueSome "[2]"
                },
                text,
                CancellationToken.None
            )

        let! _ = transport.Ask(request "/book", text, CancellationToken.None)
        equal [ "POST /clob/books?a=1 [2]"; "GET /clob/book" ] (List.ofSeq heard)
    })

[<Test>]
let ``a proxy is asked with its password, which nobody reads`` () : Task = task {
    // A proxy that refuses to open a tunnel: the message about that quotes the proxy's address.
    use proxy = new TcpListener(IPAddress.Loopback, 0)
    proxy.Start()
    let port = (proxy.LocalEndpoint :?> IPEndPoint).Port
    let heard = ConcurrentQueue<string>()

    let refuse () : Task = task {
        for step in
            [
                "407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\""
                "502 Bad Gateway"
            ] do
            use! client = proxy.AcceptTcpClientAsync()
            let stream = client.GetStream()
            let buffer = Array.zeroCreate<byte> 4096
            let! count = stream.ReadAsync(buffer, 0, buffer.Length)
            heard.Enqueue(Encoding.ASCII.GetString(buffer, 0, count))

            let answer =
                utf8 $"HTTP/1.1 {step}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

            do! stream.WriteAsync(answer, 0, answer.Length)
    }

    let refusing = refuse ()
    let words = new Words()

    let options = {
        options (Uri "https://exchange.invalid/") with
            Proxy = Some(Uri $"http://someone:s%%40cret@127.0.0.1:{port}")
            Retries = 0
    }

    use transport = new Transport(options, TimeProvider.System, new Meters(), words)
    let! answer = transport.Ask(request "/trades", text, CancellationToken.None)
    do! refusing.WaitAsync(TimeSpan.FromSeconds 5.0)
    let told = Fault.explain (faultOf answer) + words.Text
    isTrue (String.Join("", heard).Contains(Convert.ToBase64String(utf8 "someone:s@cret")))
    isTrue (not (told.Contains "s%40cret") && not (told.Contains "s@cret"))
}

// ---------------------------------------------------------------------------------------------------------------------------

let private most (window: float) (moments: float list) =
    moments
    |> List.map (fun from ->
        moments
        |> List.filter (fun at -> at >= from && at < from + window)
        |> List.length)
    |> List.max

[<Test>]
let ``requests of all jobs share the limits of their endpoint`` () =
    let seen = ConcurrentQueue<int64>()

    let stamped (context: HttpContext) : Task =
        seen.Enqueue(Environment.TickCount64)
        ok context

    serving [ stamped ] (fun root _ -> task {
        let options = {
            options root with
                RateLimits = Map.ofList [ "trades", 4; "all", 50 ]
                LimitsOf = fun _ -> [ "all"; "trades" ]
                Window = TimeSpan.FromMilliseconds 500.0
        }

        use transport =
            new Transport(options, TimeProvider.System, new Meters(), new Words())

        let! _ =
            Task.WhenAll [
                for _ in 1..12 -> transport.Ask(request "/trades", text, CancellationToken.None)
            ]
        // The server's moments, with some allowance for the way.
        isTrue ((seen |> Seq.map float |> List.ofSeq |> most 350.0) <= 4)
        equal 12 seen.Count
    })

[<Test>]
let ``of a limit that counts by the second no more than a tenth goes out in any tenth of its time`` () =
    let seen = ConcurrentQueue<int64>()

    let stamped (context: HttpContext) : Task =
        seen.Enqueue(Environment.TickCount64)
        ok context

    serving [ stamped ] (fun root _ -> task {
        let options = {
            options root with
                RateLimits = Map.ofList [ "read", 30 ]
                BySecond = Set.singleton "read"
                LimitsOf = fun _ -> [ "read" ]
                Window = TimeSpan.FromSeconds 5.0
        }

        use transport =
            new Transport(options, TimeProvider.System, new Meters(), new Words())

        let! _ =
            Task.WhenAll [
                for _ in 1..9 -> transport.Ask(request "/trades", text, CancellationToken.None)
            ]
        // With some allowance for the way.
        isTrue ((seen |> Seq.map float |> List.ofSeq |> most 350.0) <= 3)
        equal 9 seen.Count
    })
