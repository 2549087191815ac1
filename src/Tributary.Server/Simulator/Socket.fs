namespace Tributary.Server.Simulator

open System
open System.Buffers
open System.Collections.Concurrent
open System.IO
open System.Net.WebSockets
open System.Text
open System.Threading
open System.Threading.Tasks
open Microsoft.AspNetCore.Http
open Microsoft.AspNetCore.Http.Features

/// Gathers what a WebSocket writes, message by message, into few large writes. A write to Kestrel for each message would
/// cost more than the message.
[<Sealed>]
type internal Coalescing(inner: Stream) =
    inherit Stream()
    let buffer = Array.zeroCreate<byte> 131_072
    let mutable used = 0

    /// Sends what was gathered.
    member _.PushAsync(ct: CancellationToken) : ValueTask =
        if used = 0 then
            ValueTask.CompletedTask
        else
            let some = ReadOnlyMemory(buffer, 0, used)
            used <- 0
            inner.WriteAsync(some, ct)

    override _.CanRead = true
    override _.CanWrite = true
    override _.CanSeek = false
    override _.Length = raise (NotSupportedException())

    override _.Position
        with get () = raise (NotSupportedException())
        and set _ = raise (NotSupportedException())

    override _.Seek(_, _) = raise (NotSupportedException())
    override _.SetLength _ = raise (NotSupportedException())
    override _.Read(_: byte[], _: int, _: int) : int = raise (NotSupportedException())
    override _.Write(_: byte[], _: int, _: int) : unit = raise (NotSupportedException())
    override _.Flush() = ()
    override _.FlushAsync(_: CancellationToken) = Task.CompletedTask

    override _.ReadAsync(into: Memory<byte>, ct: CancellationToken) = inner.ReadAsync(into, ct)

    override this.WriteAsync(some: ReadOnlyMemory<byte>, ct: CancellationToken) : ValueTask =
        if used + some.Length <= buffer.Length then
            some.CopyTo(buffer.AsMemory used)
            used <- used + some.Length
            ValueTask.CompletedTask
        else
            ValueTask(
                task {
                    do! this.PushAsync ct

                    if some.Length <= buffer.Length then
                        some.CopyTo buffer
                        used <- some.Length
                    else
                        do! inner.WriteAsync(some, ct)
                }
                :> Task
            )

    override _.Dispose(disposing: bool) =
        if disposing then
            inner.Dispose()

/// The market channel on a real socket: a session, a clock and nothing else.
module internal Socket =
    let private key = "coalescing"

    /// How long the writer sleeps when it has sent all there is.
    let private rest = TimeSpan.FromMilliseconds 2.0

    /// A middleware before that of WebSockets: what an upgrade gives is wrapped.
    let coalesce (http: HttpContext) (next: RequestDelegate) : Task =
        match http.Features.Get<IHttpUpgradeFeature>() with
        | null -> ()
        | feature ->
            http.Features.Set<IHttpUpgradeFeature>(
                {
                    new IHttpUpgradeFeature with
                        member _.IsUpgradableRequest = feature.IsUpgradableRequest

                        member _.UpgradeAsync() = task {
                            let! stream = feature.UpgradeAsync()
                            let coalescing = new Coalescing(stream)
                            http.Items[key] <- coalescing
                            return coalescing :> Stream
                        }
                }
            )

        next.Invoke http

    /// Sends on what was written to an upgraded connection.
    let push (http: HttpContext) (ct: CancellationToken) : Task = task {
        match http.Items[key] with
        | :? Coalescing as stream -> do! stream.PushAsync ct
        | _ -> ()
    }

    /// Reads text frames until the client closes or is gone.
    let private listen (socket: WebSocket) (heard: ConcurrentQueue<string>) ct : Task = task {
        let buffer = ArrayBufferWriter<byte> 65_536
        let mutable isOpen = true

        try
            while isOpen do
                let! result = socket.ReceiveAsync(buffer.GetMemory 16_384, ct)

                if result.MessageType = WebSocketMessageType.Close then
                    isOpen <- false
                else
                    buffer.Advance result.Count

                    if result.EndOfMessage then
                        heard.Enqueue(Encoding.UTF8.GetString buffer.WrittenSpan)
                        buffer.ResetWrittenCount()
        with
        | :? WebSocketException
        | :? OperationCanceledException
        | :? IOException -> ()
    }

    /// Runs a session in real time on an accepted socket.
    let private run
        (now: unit -> int64)
        (stride: int64)
        (session: IChannelSession)
        (socket: WebSocket)
        (stream: Coalescing)
        (abort: unit -> unit)
        ct
        = task {
        let heard = ConcurrentQueue<string>()
        let listening = listen socket heard ct
        let mutable isOpen = true
        let mutable told = now ()

        let finish (code: int) = task {
            if code = 1006 then
                abort ()
            else
                do! socket.CloseOutputAsync(enum code, "", ct)
                do! stream.PushAsync ct
                let! _ = Task.WhenAny(listening, Task.Delay(1000, ct))
                ()
        }

        while isOpen do
            let mutable text = ""

            while heard.TryDequeue &text do
                session.Hear text

            // What a slow client left undone is done piece by piece, so that it does not fill the memory at once.
            let present = now ()
            told <- min present (told + stride)
            let frames = session.Advance told

            for frame in frames do
                if isOpen then
                    if frame.Close = 0 then
                        do!
                            socket.SendAsync(
                                ReadOnlyMemory frame.Payload,
                                WebSocketMessageType.Text,
                                true,
                                ct
                            )
                    else
                        isOpen <- false
                        do! finish frame.Close

            if isOpen then
                do! stream.PushAsync ct

                if listening.IsCompleted then
                    // The client said farewell, or is gone. A dead connection answers not even that.
                    isOpen <- false

                    if session.IsDead || socket.State <> WebSocketState.CloseReceived then
                        abort ()
                    else
                        do! finish 1000
                elif told = present then
                    do! Task.Delay(rest, ct)
    }

    /// Serves one connection, with pings of the protocol itself so often, if at all. `now` is the simulated time, and `stride` the longest piece of it that is told at once.
    let serve
        now
        (stride: int64)
        (pings: TimeSpan)
        (openSession: unit -> IChannelSession)
        (http: HttpContext)
        : Task = task {
        if not http.WebSockets.IsWebSocketRequest then
            http.Response.StatusCode <- 400
        else
            let session = openSession ()

            match session with
            | :? Session as session -> session.EraOld <- string http.Request.Query["era"] = "old"
            | _ -> ()

            http.Response.Headers["Simulator-Session"] <- string session.Number

            try
                try
                    let! accepted =
                        http.WebSockets.AcceptWebSocketAsync(
                            WebSocketAcceptContext(
                                DangerousEnableCompression = true,
                                KeepAliveInterval = pings,
                                KeepAliveTimeout = 3.0 * pings
                            )
                        )

                    use socket = accepted

                    match http.Items[key] with
                    | :? Coalescing as stream ->
                        do! run now stride session socket stream http.Abort http.RequestAborted
                    | _ -> ()
                with
                | :? WebSocketException
                | :? OperationCanceledException
                | :? IOException -> ()
            finally
                session.Leave()
    }
