namespace Tributary.Server.Simulator

open System
open System.Net
open System.Threading
open System.Threading.Tasks
open Microsoft.AspNetCore.Builder
open Microsoft.AspNetCore.Hosting
open Microsoft.AspNetCore.Http
open Microsoft.Extensions.DependencyInjection
open Microsoft.Extensions.Hosting

/// Leaves Ctrl-C and SIGTERM to the program that the simulator runs in.
[<Sealed>]
type internal NoLifetime() =
    interface IHostLifetime with
        member _.WaitForStartAsync _ = Task.CompletedTask
        member _.StopAsync _ = Task.CompletedTask

/// A simulated exchange on a real socket of 127.0.0.1. It speaks Polymarket's REST protocol under `/gamma`, `/clob` and
/// `/data` and its market channel at `/ws/market`; or that of another venue, under `/rest` and `/ws`. It tells what truly happened
/// under `/ledger`. Disposing it closes the socket.
/// For other processes: `GET /ledger/trades`, `/ledger/fills?market=CONDITION` (with the archive), `/ledger/requests`, `/ledger/connections` and `/ledger/injections` (JSON Lines),
/// `/ledger/book?token=…&at=MILLISECONDS`, `GET /control/state`, `POST /control/freeze` and
/// `POST /control/faults?set=…&stream=…&messages=…`.
[<Sealed>]
type Simulator private (app: WebApplication, exchange: Exchange) =
    /// Starts an exchange; it answers when the task is done.
    static member StartAsync(options: SimulatorOptions, ct: CancellationToken) : Task<Simulator> = task {
        let builder = WebApplication.CreateEmptyBuilder(WebApplicationOptions())

        builder.WebHost
            .UseKestrelCore()
            .ConfigureKestrel(fun kestrel ->
                kestrel.AddServerHeader <- false
                kestrel.Listen(IPAddress.Loopback, options.Port))
        |> ignore

        builder.Services.AddSingleton<IHostLifetime, NoLifetime>() |> ignore
        let exchange = Exchange options
        let app = builder.Build()
        app.Use Socket.coalesce |> ignore
        // The exchange starts no pings.
        app.UseWebSockets(WebSocketOptions(KeepAliveInterval = TimeSpan.Zero)) |> ignore
        app.Run(RequestDelegate exchange.Handle)

        do! app.StartAsync ct
        return Simulator(app, exchange)
    }

    /// `http://127.0.0.1:PORT/`; the three hosts are `gamma`, `clob` and `data` below it.
    member _.Address = Uri(Seq.head app.Urls)

    /// The market channel: `ws://127.0.0.1:PORT/ws/market` of a Polymarket.
    member this.Channel =
        let address = UriBuilder this.Address
        address.Scheme <- "ws"

        address.Path <-
            match exchange.Venue with
            | Venue.Polymarket -> "/ws/market"
            | Venue.Kalshi -> "/ws/v2"
            | Venue.Manifold -> "/ws/ws"

        address.Uri

    /// What truly happened.
    member _.Ledger = exchange.Ledger

    /// All fills of a market by its condition id, oldest first, those of the archive too, which `Ledger.Trades` leaves out; nothing
    /// when there is no such market. They are made while they are read: there may be millions.
    member _.Fills(condition: string) : LedgerTrade seq voption = exchange.Fills condition

    /// The exchange stops changing: no new trades or book changes, and every late row can be seen at once. It goes on
    /// answering.
    member _.Freeze() = exchange.Freeze()

    /// The faults that are on. They may be switched at any time.
    member _.Faults
        with get (): Set<FaultSwitch> = exchange.Faults
        and set (value: Set<FaultSwitch>) = exchange.Faults <- value

    /// The faults of the market channel that are on. They may be switched at any time.
    member _.StreamFaults
        with get (): Set<StreamFault> = exchange.StreamFaults
        and set (value: Set<StreamFault>) = exchange.StreamFaults <- value

    /// Price changes a simulated second beside the ordinary ones. May be set at any time.
    member _.MessagesPerSecond
        with get (): float = exchange.MessagesPerSecond
        and set (value: float) = exchange.MessagesPerSecond <- value

    /// Accounts of those who sign: their own orders and trades at `/clob/data`, and their channel at `/ws/user`.
    member _.Accounts = exchange.Accounts

    member internal _.Exchange = exchange

    /// The simulated time.
    member _.Now = Micros.toDate exchange.Now

    interface IAsyncDisposable with
        member _.DisposeAsync() =
            ValueTask(
                task {
                    do! app.StopAsync(CancellationToken true)
                    do! app.DisposeAsync()
                }
                :> Task
            )
