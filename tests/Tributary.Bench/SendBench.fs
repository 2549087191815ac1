/// The way of rows from the outbox to a receiver against ready-made payloads of the same bytes, in the same requests, on the same
/// connections: sending saturates the receiver when both take as long. The receiver is a process of its own.
module Tributary.Bench.SendBench

open System
open System.Collections.Generic
open System.Diagnostics
open System.IO
open System.Net.Http
open System.Text.Json
open System.Threading
open System.Threading.Tasks
open Microsoft.Extensions.Logging.Abstractions
open Tributary
open Tributary.Stores
open Tributary.Stores.QuestDb
open Tributary.Bench.Measure

let private known result =
    match result with
    | Ok value -> value
    | Error fault -> failwith $"%A{fault}"

// As the sender fills its requests.
let private mostRows = 75_000
let private mostBytes = 16_777_216

let private encoder () =
    Encoder {
        Protocol = 2
        Decimals = false
        LevelsAsText = false
        Collector = "bench"
    }

/// A receiver, and how to ask it.
[<NoComparison; NoEquality>]
type private Target = {
    Name: string
    Port: int
    Process: Process
    /// What it took since it was last asked: bytes, and seconds from the head of the first request to the last answer.
    Heard: unit -> struct (int64 * float)
}

let private asking = new HttpClient()

let private launch (arguments: string list) =
    ProcessStartInfo("dotnet", arguments, RedirectStandardOutput = true)
    |> Process.Start
    |> Option.ofObj
    |> Option.get

let private plain name (pace: float) =
    let running = launch [ typeof<Target>.Assembly.Location; "receive"; string pace ]
    let port = int (string (running.StandardOutput.ReadLine()))

    {
        Name = name
        Port = port
        Process = running
        Heard =
            fun () ->
                match (asking.GetStringAsync($"http://127.0.0.1:{port}/measured").Result).Split ' ' with
                | [| bytes; _; seconds |] -> struct (int64 bytes, float seconds)
                | _ -> failwith "the receiver says something else"
    }

let private fake () =
    let running =
        launch [
            Path.Combine(AppContext.BaseDirectory, "Tributary.FakeQuestDb.dll")
            "--no-create"
        ]

    let line = string (running.StandardOutput.ReadLine())
    let port = int (line.Substring(line.LastIndexOf ':' + 1))
    let control = $"http://127.0.0.1:{port}/control"

    {
        Name = "the strict fake server"
        Port = port
        Process = running
        Heard =
            fun () ->
                use state = JsonDocument.Parse(asking.GetStringAsync(control).Result)
                use again = new StringContent("{\"do\":\"measure\"}")
                asking.PostAsync(control, again).Result.EnsureSuccessStatusCode() |> ignore

                struct (state.RootElement.GetProperty("measuredBytes").GetInt64(),
                        state.RootElement.GetProperty("measuredSeconds").GetDouble())
    }

/// Runs one side: the time by the receiver's clock, so that neither side's start and end count, and all that the process allocated.
let private timed target rows (send: unit -> unit) : Run =
    target.Heard() |> ignore
    GC.Collect()
    let allocated = GC.GetTotalAllocatedBytes true
    let busy = Environment.CpuUsage.TotalTime.TotalSeconds
    send ()
    let busy = Environment.CpuUsage.TotalTime.TotalSeconds - busy
    let allocated = GC.GetTotalAllocatedBytes true - allocated
    let struct (bytes, elapsed) = target.Heard()

    {
        Elapsed = elapsed
        Busy = busy
        Units = rows
        Allocated = allocated
        Checksum = uint64 bytes
    }

let private connection target =
    known (ConfigString.parse $"http::addr=127.0.0.1:{target.Port};auto_flush_interval=10;")

// ---- theirs

/// The requests that the sender makes of these batches.
let private requests lane (batches: Batch[]) : ReadOnlyMemory<byte>[] =
    let encoder = encoder ()
    let made = List<ReadOnlyMemory<byte>>()
    let mutable payload = Payload()

    let finish () =
        if payload.RowCount > 0 then
            made.Add(payload.Memory)
            payload <- Payload()

    for batch in batches do
        encoder.Append(lane, batch, 0, Lane.count lane batch, payload, IlpBench.refuse)

        if payload.RowCount >= mostRows || payload.Length >= mostBytes then
            finish ()

    finish ()
    made.ToArray()

let private post (client: HttpClient) target (payload: ReadOnlyMemory<byte>) : Task = task {
    use! response =
        client.PostAsync(
            $"http://127.0.0.1:{target.Port}/write?precision=u",
            new ReadOnlyMemoryContent(payload)
        )

    response.EnsureSuccessStatusCode() |> ignore
}

let private oneConnection () =
    new HttpClient(new SocketsHttpHandler(MaxConnectionsPerServer = 1, UseProxy = false))

/// A connection for each list of requests, one request on it at a time.
let private ready target rows (lanes: ReadOnlyMemory<byte>[] list) () =
    timed target rows (fun () ->
        let send (requests: ReadOnlyMemory<byte>[]) : Task = task {
            use client = oneConnection ()

            for request in requests do
                do! post client target request
        }

        lanes
        |> List.map (fun lane -> Task.Run(fun () -> send lane))
        |> Task.WhenAll
        |> _.Wait())

// ---- ours

/// An outbox that holds the batches.
let private fill path (batches: Batch[]) =
    let limit = {
        Bytes = Int64.MaxValue
        WhenFull = WhenFull.Block
    }

    let store, outbox =
        known (Sqlite.openShipping path "bench" Synchronous.Normal (Shipping.Rows limit) TimeProvider.System)

    for group in Array.chunkBySize 20 batches do
        known ((store.Write group CancellationToken.None).Result)

    store, outbox

/// The sender from the first look into the outbox until all of it can be read at the server.
let private ours target rows path (store, outbox) () =
    timed target rows (fun () ->
        let sender =
            Sender(
                new Server(connection target, TimeProvider.System),
                outbox,
                path,
                store,
                {
                    Collector = "bench"
                    Keep = TimeSpan.FromHours 1.0 // for the next round
                    TimeToLive = ValueNone
                    Views = false
                    Decimals = false
                    LookEvery = TimeSpan.FromSeconds 1.0
                },
                TimeProvider.System,
                NullLogger.Instance
            )

        sender.Start()
        // Rows that do not arrive are a failure, not a wait for ever.
        use patience = new CancellationTokenSource(TimeSpan.FromMinutes 2.0)
        sender.Flush(patience.Token).Wait()
        sender.StopAsync().Wait())

/// Rows from memory: the encoder fills one payload while the other one is under way.
let private encoded target rows (lanes: (Lane * Batch[]) list) () =
    timed target rows (fun () ->
        let send (lane, batches: Batch[]) : Task = task {
            use client = oneConnection ()
            let encoder = encoder ()
            let payloads = [| Payload(); Payload() |]
            let mutable sending = Task.CompletedTask
            let mutable turn = 0
            let mutable next = 0

            while next < batches.Length do
                let payload = payloads[turn]
                payload.Clear()

                while next < batches.Length
                      && payload.RowCount < mostRows
                      && payload.Length < mostBytes do
                    let batch = batches[next]
                    encoder.Append(lane, batch, 0, Lane.count lane batch, payload, IlpBench.refuse)
                    next <- next + 1

                do! sending
                sending <- post client target payload.Memory
                turn <- 1 - turn

            do! sending
        }

        lanes
        |> List.map (fun lane -> Task.Run(fun () -> send lane))
        |> Task.WhenAll
        |> _.Wait())

/// Both kinds of rows, and both at once.
let private rowsOf trades books =
    let trades = Lane.Trades, IlpBench.generate trades IlpBench.addTrade
    let books = Lane.Books, IlpBench.generate books IlpBench.addBook

    [
        $"trades", [ trades ]
        $"books of 2x50 levels", [ books ]
        $"both at once", [ trades; books ]
    ]

/// What a QuestDB takes over one connection, by the reference measurements on such a machine: 143 MB/s of trades and 155 MB/s of books.
let private asMeasured = 155e6

let private against (target: Target) least rounds folder kinds =
    try
        [
            for what: string, lanes: (Lane * Batch[]) list in kinds do
                let path = Path.Combine(folder, $"{Guid.NewGuid():N}.db")
                let store, outbox = fill path (lanes |> List.map snd |> Array.concat)
                let made = [ for lane, batches in lanes -> requests lane batches ]

                let rows =
                    lanes
                    |> List.sumBy (fun (lane, batches) -> batches |> Array.sumBy (Lane.count lane))

                let ours = ours target rows path (store, outbox)
                let theirs = ready target rows made
                let encoded = encoded target rows lanes
                // Once unmeasured: the code is compiled, the file is read.
                ours () |> ignore
                theirs () |> ignore
                encoded () |> ignore

                let said comparison =
                    eprintfn "%s" (table "row" [ comparison ])
                    comparison

                said (
                    compare
                        $"{rows} {what} to {target.Name}, from the outbox"
                        _.Elapsed
                        least
                        rounds
                        ours
                        theirs
                )

                said (compare $"the same from memory" _.Elapsed 0.0 rounds encoded theirs)
                store.Close().AsTask().Wait()
                File.Delete path
        ]
    finally
        target.Process.Kill()
        target.Process.Dispose()

/// By the wall's clock of the receiver.
let run rounds : Comparison list =
    let folder = Directory.CreateTempSubdirectory("tributary-bench-").FullName

    try
        against
            (plain "a receiver as fast as QuestDB was" asMeasured)
            0.9
            rounds
            folder
            (rowsOf 600_000 100_000)
        @ against (fake ()) 0.9 rounds folder (rowsOf 300_000 100_000)
        @ against (plain "one that does nothing" 0.0) 0.0 rounds folder (rowsOf 1_000_000 150_000)
    finally
        Directory.Delete(folder, true)
