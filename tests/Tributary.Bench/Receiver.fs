/// A process that takes whatever is sent to it, as fast as it comes or at a given speed, and tells how much it was and how long it
/// took. It says of itself what a sender wants to hear of QuestDB.
module Tributary.Bench.Receiver

open System
open System.Collections.Concurrent
open System.Diagnostics
open System.IO
open System.Net
open System.Net.Sockets
open System.Text
open System.Threading
open Tributary.Stores.QuestDb

/// What came since the last time that somebody asked.
type private Heard() =
    let mutable bytes, requests = 0L, 0L
    let mutable first, last = 0L, 0L

    member this.Begins() =
        lock this (fun () ->
            if first = 0L then
                first <- Stopwatch.GetTimestamp())

    member this.Ends(length: int64) =
        lock this (fun () ->
            bytes <- bytes + length
            requests <- requests + 1L
            last <- Stopwatch.GetTimestamp())

    /// From the first request's head to the last answer.
    member this.Take() =
        lock this (fun () ->
            let taken =
                $"{bytes} {requests} {(Stopwatch.GetElapsedTime(first, last)).TotalSeconds:R}"

            bytes <- 0L
            requests <- 0L
            first <- 0L
            last <- 0L
            taken)

let private quoted (text: string) = $"\"{text}\""

/// An answer of `/exec`.
let private answer (columns: string list) (rows: string list list) =
    let named =
        columns
        |> List.map (fun name -> $"{{\"name\":\"{name}\",\"type\":\"VARCHAR\"}}")
        |> String.concat ","

    let rows =
        rows
        |> List.map (fun row -> "[" + String.concat "," row + "]")
        |> String.concat ","

    $"{{\"columns\":[{named}],\"dataset\":[{rows}]}}"

let private tables = Tables.all 2 false

let private describe (transactions: ConcurrentDictionary<string, int>) (sql: string) =
    if sql.Contains "wal_tables" then
        answer [ "name"; "suspended"; "writerTxn"; "sequencerTxn"; "errorTag"; "errorMessage" ] [
            for table in tables do
                let count =
                    match transactions.TryGetValue table.Name with
                    | true, count -> string count
                    | _ -> "0"

                [ quoted table.Name; "false"; count; count; "null"; "null" ]
        ]
    elif sql.Contains "table_columns" then
        let table = tables |> List.find (fun table -> sql.Contains $"'{table.Name}'")

        answer [ "column"; "type"; "designated"; "upsertKey" ] [
            for column in table.Columns do
                let isFirst = column.Name = table.Columns.Head.Name

                let flag value = if value then "true" else "false"

                [
                    quoted column.Name
                    quoted (string column.Kind)
                    flag isFirst
                    flag (isFirst || List.contains column.Name table.Keys)
                ]
        ]
    else
        answer [
            "id"
            "table_name"
            "walEnabled"
            "dedup"
            "partitionBy"
            "ttlValue"
            "ttlUnit"
        ] [
            for i, table in List.indexed tables do
                [
                    string (i + 1)
                    quoted table.Name
                    "true"
                    "true"
                    quoted ((string table.Partition).ToUpperInvariant())
                    "0"
                    "\"HOUR\""
                ]
        ]

/// One connection, until the other side closes it.
let private serve (heard: Heard) transactions (pace: float) (socket: Socket) =
    use socket = socket
    socket.NoDelay <- true
    let buffer = Array.zeroCreate<byte> 1_048_576
    let mutable held = 0
    let mutable isOpen = true

    let more () =
        let count = socket.Receive(buffer, held, buffer.Length - held, SocketFlags.None)
        held <- held + count
        isOpen <- count > 0

    let drop count =
        Buffer.BlockCopy(buffer, count, buffer, 0, held - count)
        held <- held - count

    let reply (status: string) (body: string) =
        let bytes =
            Encoding.UTF8.GetBytes
                $"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {body.Length}\r\n\r\n{body}"

        socket.Send bytes |> ignore

    try
        while isOpen do
            let headEnd = buffer.AsSpan(0, held).IndexOf(ReadOnlySpan "\r\n\r\n"B)

            if headEnd < 0 then
                more ()
            else
                let head = Encoding.ASCII.GetString(buffer, 0, headEnd)
                drop (headEnd + 4)
                let path = head.Split(' ', 3)[1]

                if head.StartsWith "POST" then
                    heard.Begins()
                    let began = Stopwatch.GetTimestamp()
                    let name = "content-length:"

                    let length =
                        head.Split("\r\n")
                        |> Array.find (fun line -> line.StartsWith(name, StringComparison.OrdinalIgnoreCase))
                        |> fun line -> int64 (line.Substring name.Length)

                    if held = 0 then
                        more ()

                    // A line begins with the name of its table.
                    let table =
                        Encoding.ASCII.GetString(buffer, 0, buffer.AsSpan(0, held).IndexOf(','B))

                    let mutable left = length

                    while isOpen && left > 0L do
                        let taken = int (min left (int64 held))
                        drop taken
                        left <- left - int64 taken

                        if left > 0L then
                            more ()

                    if pace > 0.0 then
                        let wait = float length / pace - (Stopwatch.GetElapsedTime began).TotalSeconds

                        if wait > 0.0 then
                            Thread.Sleep(TimeSpan.FromSeconds wait)

                    transactions
                    |> fun (counts: ConcurrentDictionary<string, int>) ->
                        counts.AddOrUpdate(table, 1, (fun _ count -> count + 1)) |> ignore

                    heard.Ends length
                    reply "204 OK" ""
                elif path.StartsWith "/measured" then
                    reply "200 OK" (heard.Take())
                elif path.StartsWith "/settings" then
                    reply "200 OK" "{\"config\":{\"line.proto.support.versions\":[1,2]}}"
                else
                    reply "200 OK" (describe transactions (Uri.UnescapeDataString path))
    with :? SocketException ->
        () // closed

/// Serves until it is killed; prints its port. `pace` is the most bytes a second over a connection; 0 is no limit.
let run (pace: float) =
    let heard = Heard()
    let transactions = ConcurrentDictionary<string, int>()
    use listener = new TcpListener(IPAddress.Loopback, 0)
    listener.Start()
    Console.WriteLine (listener.LocalEndpoint :?> IPEndPoint).Port

    while true do
        let socket = listener.AcceptSocket()
        Thread(ThreadStart(fun () -> serve heard transactions pace socket), IsBackground = true).Start()

    0
