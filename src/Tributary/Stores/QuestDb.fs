/// QuestDB as a store: batches are durable in the outbox, a SQLite file on this machine, before anybody is told so, and go from
/// there to the server. It is read as every other store is.
[<RequireQualifiedAccess>]
module Tributary.Stores.QuestDb.Store

open System
open System.IO
open System.Security.Cryptography
open System.Threading
open System.Threading.Tasks
open Microsoft.Extensions.Logging
open Tributary
open Tributary.Stores

/// Where the server is, or why that cannot be known.
let internal connection (settings: QuestDbSettings) : Result<ConnectionOptions, OpenFault> =
    let shown = string settings.Connection

    match Secret.reveal settings.Connection with
    | Error message -> Error(OpenFault.Unreachable(shown, message))
    | Ok text ->
        match ConfigString.parse text with
        | Error mistakes -> Error(OpenFault.Unreachable(shown, String.concat "; " mistakes))
        | Ok options ->
            try
                Server.LoadRoots options |> ignore
                Ok options
            with
            | :? IOException
            | :? UnauthorizedAccessException
            | :? CryptographicException as error ->
                Error(OpenFault.Unreachable(shown, $"tls_roots cannot be read: {error.Message}"))

let private isOurs (gap: Gap) = string gap.Exchange = "questdb"

let private start
    (settings: StoreSettings)
    (collector: string)
    (clock: TimeProvider)
    (log: ILogger)
    (path: string)
    (shipping: Shipping)
    =
    connection settings.QuestDb
    |> Result.bind (fun connection ->
        Sqlite.openShipping path collector settings.Synchronous shipping clock
        |> Result.map (fun (local, outbox) ->
            let sender =
                Sender(
                    new Server(connection, clock),
                    outbox,
                    path,
                    local,
                    {
                        Collector = collector
                        Keep = settings.QuestDb.Keep
                        TimeToLive = settings.QuestDb.Ttl |> ValueOption.ofOption
                        Views = settings.QuestDb.Views
                        Decimals = settings.QuestDb.Decimals
                        LookEvery = settings.QuestDb.Look
                    },
                    clock,
                    log
                )

            sender.Start()
            local, sender, connection))

/// Batches are durable when they are in the file; then they are on their way.
let private writing (local: Store) (sender: Sender) batches ct = task {
    match! local.Write batches ct with
    | Ok() ->
        sender.Wake batches
        return Ok()
    | Error fault -> return Error fault
}

/// What waits gets a moment to go out; the rest goes with the next start. Closing again is waiting for the first time.
let private closing (log: ILogger) (path: string) (local: Store) (sender: Sender) : unit -> Task =
    let closed =
        lazy
            (task {
                try
                    if not sender.IsAway then
                        use soon = new CancellationTokenSource(TimeSpan.FromSeconds 2.0)

                        try
                            do! sender.Flush soon.Token
                        with :? OperationCanceledException ->
                            ()

                    match sender.Unseen with
                    | 0L -> ()
                    | rows -> Log.remoteLeft log "QuestDB" rows path

                    do! sender.StopAsync()
                finally
                    local.Close().AsTask().Wait()
            }
            :> Task)

    fun () -> closed.Force()

/// The gaps of our own tables are not of any flow.
let private openGaps (local: Store) () = task {
    let! gaps = local.OpenGaps()
    return gaps |> List.filter (isOurs >> not)
}

/// Opens the outbox, and begins to empty it. A server that cannot be reached is no fault: what is written waits.
let openForWriting
    (settings: StoreSettings)
    (collector: string)
    (clock: TimeProvider)
    (log: ILogger)
    : Result<Store, OpenFault> =
    let limit = {
        Bytes = settings.QuestDb.OutboxSize
        WhenFull =
            match settings.QuestDb.OutboxFull with
            | OutboxFull.Block -> WhenFull.Block
            | OutboxFull.DropOldest -> WhenFull.DropOldest
    }

    start settings collector clock log settings.QuestDb.Outbox (Shipping.Rows limit)
    |> Result.map (fun (local, sender, connection) ->
        let server = new Server(connection, clock)
        let reader = Reader server
        let close = closing log settings.QuestDb.Outbox local sender

        {
            Name = "questdb"
            Write = writing local sender
            Checkpoints = local.Checkpoints
            Gaps = reader.Gaps
            OpenGaps = openGaps local
            // From here and not from the server: a collector starts while that is away.
            Markets = local.Markets
            Trades = reader.Trades
            Books = reader.Books
            Deltas = reader.Deltas
            Prices = reader.Prices
            OwnOrders = reader.OwnOrders
            OwnTrades = reader.OwnTrades
            // Nor does it need the server to see which of the mapping is new.
            Matches = local.Matches
            Tally = reader.Tally
            Links = reader.Links
            Quarantine = reader.Quarantine
            Status =
                fun () -> task {
                    let! checkpoints = local.Checkpoints()
                    let! held = local.Status()

                    try
                        return! reader.Status(checkpoints, held.Bytes, held.Notes @ sender.Notes)
                    with :? QuestDbException as error ->
                        // What is here can be told all the same.
                        return {
                            held with
                                Notes = error.Message :: held.Notes @ sender.Notes
                        }
                }
            Backlog = sender.Backlog
            Expire = fun _ _ _ -> Task.FromResult(Ok [])
            Flush = sender.Flush
            Close =
                fun () ->
                    ValueTask(
                        task {
                            do! close ()
                            (server :> IDisposable).Dispose()
                        }
                        :> Task
                    )
        })

/// Opens a SQLite file as ever, and sends to QuestDB what is written to it. It is read from the file.
let openBoth
    (settings: StoreSettings)
    (collector: string)
    (clock: TimeProvider)
    (log: ILogger)
    : Result<Store, OpenFault> =
    start settings collector clock log settings.Path Shipping.References
    |> Result.map (fun (local, sender, _) ->
        let close = closing log settings.Path local sender

        {
            local with
                Name = "sqlite and questdb"
                Write = writing local sender
                OpenGaps = openGaps local
                Status =
                    fun () -> task {
                        let! status = local.Status()

                        return {
                            status with
                                Notes = status.Notes @ sender.Notes
                        }
                    }
                Backlog = sender.Backlog
                Flush = sender.Flush
                Close = fun () -> ValueTask(close ())
        })

/// Opens the server for reading. Checkpoints are those of the collector on this machine, if its outbox is here.
let openForReading (settings: StoreSettings) (clock: TimeProvider) : Result<Store, OpenFault> =
    connection settings.QuestDb
    |> Result.map (fun connection ->
        let server = new Server(connection, clock)
        let reader = Reader server

        /// The outbox of a collector that runs here, or ran.
        let withLocal (read: Store -> Task<'T>) (none: 'T) : Task<'T> = task {
            match Sqlite.openForReading settings.QuestDb.Outbox with
            | Ok local ->
                let! answer = read local
                do! local.Close()
                return answer
            | Error _ -> return none
        }

        let checkpoints () =
            withLocal (fun local -> local.Checkpoints()) []

        {
            Name = "questdb"
            Write =
                fun _ _ -> Task.FromResult(Error(StoreFault.Failed "QuestDB was opened for reading only"))
            Checkpoints = checkpoints
            Gaps = reader.Gaps
            OpenGaps = fun () -> Task.FromResult []
            Markets = reader.Markets
            Trades = reader.Trades
            Books = reader.Books
            Deltas = reader.Deltas
            Prices = reader.Prices
            OwnOrders = reader.OwnOrders
            OwnTrades = reader.OwnTrades
            Matches = reader.Matches
            Tally = reader.Tally
            Links = reader.Links
            Quarantine = reader.Quarantine
            Status =
                fun () -> task {
                    let! found = checkpoints ()
                    let! held = withLocal (fun local -> local.Status()) Sqlite.emptyStatus
                    return! reader.Status(found, held.Bytes, held.Notes)
                }
            Backlog = fun () -> Backlog.none
            Expire = fun _ _ _ -> Task.FromResult(Ok [])
            Flush = Sqlite.whenSeen settings.QuestDb.Outbox clock
            Close =
                fun () ->
                    (server :> IDisposable).Dispose()
                    ValueTask()
        })
