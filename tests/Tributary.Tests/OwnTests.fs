/// An account's own orders and trades, over real sockets against the simulated exchange: signed, paged, listened to, refused.
[<NUnit.Framework.Parallelizable(NUnit.Framework.ParallelScope.None)>]
module Tributary.Tests.OwnTests

open System
open System.Collections.Concurrent
open System.Diagnostics
open System.IO
open System.Threading
open System.Threading.Tasks
open NUnit.Framework
open Tributary
open Tributary.Exchanges
open Tributary.Server.Simulator
open Tributary.Stores

// A key that everybody knows.
let private key = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
let private wallet = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
let private condition = "0x" + String('c', 64)

let private mine = UnixFileMode.UserRead ||| UnixFileMode.UserWrite

let private until what (isSo: unit -> bool) : Task<unit> = task {
    let watch = Stopwatch.StartNew()

    while not (isSo ()) do
        if watch.Elapsed > TimeSpan.FromSeconds 40.0 then
            Assert.Fail $"it did not come to this in time: {what}"

        do! Task.Delay 20
}

/// What an engine hands to its store.
type private Told() =
    let orders, trades = ConcurrentQueue<OwnOrder>(), ConcurrentQueue<OwnTrade>()
    let mutable books = 0
    member _.Orders = List.ofSeq orders
    member _.Trades = List.ofSeq trades
    member _.Books = books

    member this.Over(store: Store) = {
        store with
            Write =
                fun batches ct -> task {
                    let! written = store.Write batches ct

                    if written.IsOk then
                        for batch in batches do
                            Seq.iter orders.Enqueue batch.OwnOrders
                            Seq.iter trades.Enqueue batch.OwnTrades
                            books <- books + batch.Books.Count

                    return written
                }
    }

    /// An order, its state, and what of it is filled.
    member this.States(order: string) =
        this.Orders
        |> List.filter (fun one -> one.Order = order)
        |> List.map (fun one -> one.Status, string one.Filled)

    member this.Stages(trade: string) =
        this.Trades
        |> List.filter (fun one -> one.Trade = trade)
        |> List.map (fun one -> one.Status)

let private exchange = {
    SimulatorOptions.Default with
        Markets = 2
        TradesPerSecond = 1.0
}

/// Runs an engine with an account over a simulated exchange; the settings of the exchange are one's own.
let private running
    (options: SimulatorOptions)
    (mode: UnixFileMode)
    (extra: string)
    (before: Simulator -> unit)
    (test: Simulator -> Told -> Words -> Task<unit>)
    : Task = task {
    use! simulator = Simulator.StartAsync(options, CancellationToken.None)
    before simulator
    let folder = Directory.CreateTempSubdirectory("tributary-own-").FullName

    try
        let file = Path.Combine(folder, "wallet")
        File.WriteAllText(file, key + "\n")
        File.SetUnixFileMode(file, mode)
        let config = Path.Combine(folder, "config.yaml")
        let at name = Uri(simulator.Address, name + "/")

        File.WriteAllText(
            config,
            $"""
schedule: {{books: 500ms, trades: 500ms, markets: 1s}}
http: {{listen: off}}
collectors:
  kalshi: {{enabled: false}}
  manifold: {{enabled: false}}
  polymarket:
    gamma_url: {at "gamma"}
    clob_url: {at "clob"}
    data_url: {at "data"}
    ws_url: {at "ws"}
    discovery: {{enabled: true}}
    private_key: file:{file}
{extra}
"""
        )

        let settings =
            match Setup.read (Some config) with
            | Ok settings -> settings
            | Error mistakes -> failwith (String.Join("\n", mistakes |> List.map Mistake.render))

        let told, words = Told(), new Words()

        let! engine =
            Engine.StartAsync(
                EngineOptions.Create(settings, told.Over(Memory.create "main"), TimeProvider.System, words),
                CancellationToken.None
            )

        try
            do! test simulator told words
        finally
            engine.StopAsync(TimeSpan.FromSeconds 10.0).Wait()

        Assert.That(words.Text, Does.Not.Contain key)
        Assert.That(words.Text, Does.Not.Contain "bug of ours")
        let struct (api, secret, passphrase) = simulator.Accounts.CredentialsOf wallet

        for given in [ api; secret; passphrase ] do
            Assert.That(words.Text, Does.Not.Contain given)
    finally
        Directory.Delete(folder, true)
}

let private place (simulator: Simulator) token size =
    simulator.Accounts.Place(wallet, condition, token, true, 0.4m, size)

[<Test; CancelAfter 120_000>]
let ``own orders and trades are read, listened to, and fetched when the connection had been lost`` () : Task =
    let ids = ResizeArray<string>()

    let before (simulator: Simulator) =
        for size in [ 10m; 20m; 30m ] do
            ids.Add(place simulator "111" size)

        ids.Add(simulator.Accounts.Fill(ids[0], 4m, false))

    running
        {
            exchange with
                // Two hours off: signatures bear the exchange's time.
                Start = ValueSome(DateTimeOffset.UtcNow.AddHours -2.0)
        }
        mine
        "    own_every: 1h"
        before
        (fun simulator told words -> task {
            let accounts = simulator.Accounts
            let first, second, third, trade = ids[0], ids[1], ids[2], ids[3]

            do!
                until "three orders over two pages, and a trade" (fun () ->
                    told.Orders.Length >= 3 && told.Trades.Length >= 1)

            equal [ "live", "4" ] (told.States first)
            equal [ "live", "0" ] (told.States third)
            equal [ "matched" ] (told.Stages trade)
            let made = told.Trades.Head
            equal (first, false, Side.Buy) (made.Order, made.IsTaker, made.Side)
            equal ("4", "0.4") (string made.Size, string made.Price)

            // It had no credentials yet.
            equal
                [
                    "GET /auth/derive-api-key 400"
                    "POST /auth/api-key 200"
                    "GET /data/orders 200"
                ]
                (List.truncate 3 accounts.Asked)

            do! until "a live connection" (fun () -> accounts.Listening = 1)
            // Nothing is asked from here on, for an hour: what comes now was listened to.
            do!
                until "the poll that follows it" (fun () ->
                    (accounts.Asked |> List.filter ((=) "GET /data/trades 200")).Length >= 2)

            let asked = accounts.Asked.Length
            accounts.Settle(trade, "MINED")
            accounts.Settle(trade, "CONFIRMED")
            accounts.Cancel second
            do! until "its end" (fun () -> told.States second = [ "live", "0"; "canceled", "0" ])
            equal [ "matched"; "mined"; "confirmed" ] (told.Stages trade)
            equal asked accounts.Asked.Length

            // What happens while nobody listens.
            accounts.Disconnect()
            do! until "nobody listens" (fun () -> accounts.Listening = 0)
            let missed = accounts.Fill(third, 30m, true)
            let last = place simulator "222" 5m

            do!
                until "what was missed" (fun () ->
                    told.States third = [ "live", "0"; "matched", "30" ]
                    && told.Stages missed = [ "matched" ]
                    && told.States last = [ "live", "0" ])

            isTrue (accounts.Asked |> List.contains $"GET /data/order/{third} 200")
            let taken = told.Trades |> List.find (fun one -> one.Trade = missed)
            equal (third, true) (taken.Order, taken.IsTaker)

            // Each state once.
            let states = told.Orders |> List.map (fun one -> one.Order, one.Status, one.Filled)
            equal (List.distinct states).Length states.Length
            let stages = told.Trades |> List.map (fun one -> one.Trade, one.Order, one.Status)
            equal (List.distinct stages).Length stages.Length
            equal 1 (words.With "the account's live connection is lost").Length
            equal [] (words.With "Quarantined")
        })

[<Test; CancelAfter 120_000>]
let ``credentials that are refused are one warning, and public data is collected`` () : Task =
    running
        exchange
        mine
        "    own_every: 200ms"
        (fun simulator -> simulator.Accounts.IsRefusing <- true)
        (fun simulator told words -> task {
            do! until "books" (fun () -> told.Books >= 12)
            equal 1 (words.With "does not take the credentials").Length

            equal
                []
                (words.With "credentials"
                 |> List.filter (fun line ->
                     not (line.StartsWith "Warning: polymarket: the exchange does not take")))

            equal ([], []) (told.Orders, told.Trades)
            equal 0 simulator.Accounts.Listening
        })

[<Test; CancelAfter 120_000>]
let ``credentials that are refused later are one warning as well, and what was missed is counted`` () : Task =
    running exchange mine "    own_every: 100ms" ignore (fun simulator told words -> task {
        do! until "a live connection" (fun () -> simulator.Accounts.Listening = 1)
        simulator.Accounts.IsRefusing <- true
        do! until "the warning" (fun () -> not (words.With "does not take the credentials").IsEmpty)
        let books = told.Books
        do! until "books go on" (fun () -> told.Books >= books + 4)
        equal 1 (words.With "does not take the credentials").Length
        equal 1 (words.With "could not be fetched").Length
    })

[<Test; CancelAfter 120_000>]
let ``a key file that others can read is not used, and the warning says what to do`` () : Task =
    running exchange (mine ||| UnixFileMode.GroupRead) "" ignore (fun simulator told words -> task {
        do! until "books" (fun () -> told.Books >= 2)

        match words.With "chmod 600" with
        | [ warning ] -> isTrue (warning.StartsWith "Warning: polymarket: the file ")
        | other -> Assert.Fail $"%A{other}"

        equal [] simulator.Accounts.Asked
    })

[<Test; CancelAfter 120_000>]
let ``with auth: off nobody signs in`` () : Task =
    running exchange mine "    auth: off" ignore (fun simulator told _ -> task {
        do! until "books" (fun () -> told.Books >= 2)
        equal [] simulator.Accounts.Asked
    })

[<TestCase("private_key: '${WALLET:}'", "600", true, 78, "does not take the credentials")>]
[<TestCase("private_key: file:KEYFILE", "644", false, 78, "chmod 600")>]
[<TestCase("private_key: '${NOT_SET:}'", "600", false, 78, "there are no credentials")>]
[<TestCase("private_key: '${SHORT:}'", "600", false, 78, "64 hexadecimal digits")>]
[<TestCase("private_key: file:KEYFILE", "600", false, 0, "own orders and trades of 0xf39F")>]
let ``with auth: required collecting begins with good credentials alone``
    (line: string, mode: string, isRefusing: bool, expected: int, said: string)
    : Task = task {
    use! simulator = Simulator.StartAsync(exchange, CancellationToken.None)
    simulator.Accounts.IsRefusing <- isRefusing
    let folder = Directory.CreateTempSubdirectory("tributary-own-").FullName

    try
        let file = Path.Combine(folder, "wallet")
        File.WriteAllText(file, key)

        File.SetUnixFileMode(
            file,
            (if mode = "600" then
                 mine
             else
                 mine ||| UnixFileMode.OtherRead)
        )

        let config = Path.Combine(folder, "config.yaml")
        let at name = Uri(simulator.Address, name + "/")

        File.WriteAllText(
            config,
            $"""
http: {{listen: off}}
store: {{kind: memory}}
collectors:
  polymarket:
    gamma_url: {at "gamma"}
    clob_url: {at "clob"}
    data_url: {at "data"}
    ws_url: {at "ws"}
    discovery: {{enabled: true}}
    auth: required
    {line.Replace("KEYFILE", file)}
"""
        )

        let environment = [ "WALLET", key; "SHORT", "hush" ]

        let! struct (code, output, errors) =
            KillTests.tributaryFor (TimeSpan.FromSeconds 60.0) environment [
                "start"
                "--config"
                config
                "--for"
                "3s"
            ]

        let all = output + errors
        equal (expected, true) (code, all.Contains said)
        Assert.That(all, Does.Not.Contain key)
        Assert.That(all, Does.Not.Contain "hush")

        if expected <> 0 then
            Assert.That(errors, Does.Contain "auth is required")

        let! struct (_, output, errors) =
            KillTests.tributaryFor (TimeSpan.FromSeconds 60.0) environment [ "doctor"; "--config"; config ]

        let all = output + errors

        Assert.That(
            all,
            Does.Contain(
                if expected = 0 then
                    $"takes the credentials of {wallet}"
                else
                    said
            )
        )

        Assert.That(all, Does.Not.Contain key)
    finally
        Directory.Delete(folder, true)
}

// ---- what was told before

let private order id status filled : OwnOrder = {
    Exchange = PolymarketAccount.part.Exchange
    Market = market condition
    Token = token "111"
    Order = id
    Side = Side.Buy
    Price = price "0.4"
    Size = size "10"
    Filled = size filled
    Status = status
    At = seconds 1L
    Received = seconds 2L
}

let private trade id status at : OwnTrade = {
    Exchange = PolymarketAccount.part.Exchange
    Market = market condition
    Token = token "111"
    Trade = id
    Order = "o"
    Side = Side.Buy
    Price = price "0.4"
    Size = size "10"
    IsTaker = false
    Status = status
    Transaction = ""
    At = seconds at
    Received = seconds at
}

let private news (memory: OwnMemory) isLive (orders: OwnOrder list) (trades: OwnTrade list) =
    let told, found = Batch(), Batch()
    told.OwnOrders.AddRange orders
    told.OwnTrades.AddRange trades
    memory.News(told, isLive, found)

    List.ofSeq found.OwnOrders |> List.map (fun one -> one.Order, one.Status),
    List.ofSeq found.OwnTrades |> List.map (fun one -> one.Trade, one.Status)

[<Test>]
let ``a state is news once; what was heard after a poll began is not taken back by it`` () =
    let memory = OwnMemory PolymarketAccount.part
    equal ([ "a", "live" ], []) (news memory false [ order "a" "live" "0" ] [])
    equal ([], []) (news memory false [ order "a" "live" "0" ] [])
    equal ([ "a", "live" ], []) (news memory false [ order "a" "live" "1" ] [])
    equal (Set [ "a" ]) (memory.Begin())
    equal ([ "a", "canceled" ], []) (news memory true [ order "a" "canceled" "1" ] [])
    // The answer is older than that.
    equal ([], []) (news memory false [ order "a" "live" "1" ] [])
    equal [] (memory.Vanished(Set [ "a" ], Collections.Generic.HashSet()))

[<Test>]
let ``an order that a poll should have told of and did not is asked for`` () =
    let memory = OwnMemory PolymarketAccount.part

    news memory false [ order "a" "live" "0"; order "b" "live" "0"; order "c" "live" "0" ] []
    |> ignore

    let expected = memory.Begin()
    news memory true [ order "c" "live" "1" ] [] |> ignore
    equal [ "b" ] (memory.Vanished(expected, Collections.Generic.HashSet [ "a" ]))
    memory.Forget "b"
    equal (Set [ "a"; "c" ]) (memory.Begin())

[<Test>]
let ``an order that was open before a stop is asked for after it, and is no news while it stays so`` () =
    let memory = OwnMemory PolymarketAccount.part

    let at moment order = {
        order with
            OwnOrder.Received = seconds moment
    }

    memory.Remember [
        order "a" "live" "5" |> at 4L
        order "a" "live" "0" |> at 2L
        order "b" "canceled" "0" |> at 5L
        order "b" "live" "0" |> at 3L
    ]

    let expected = memory.Begin()
    equal (Set [ "a" ]) expected
    equal ([], []) (news memory false [ order "a" "live" "5" ] [])
    equal [ "a" ] (memory.Vanished(expected, Collections.Generic.HashSet()))

[<Test>]
let ``trades are read from the last that was read whole, or from one that is under way`` () =
    let memory = OwnMemory PolymarketAccount.part
    let overlap = TimeSpan.FromSeconds 60.0
    equal ValueNone (memory.Since overlap)

    equal
        ([], [ "t", "matched"; "u", "confirmed" ])
        (news memory false [] [ trade "t" "matched" 1_000L; trade "u" "confirmed" 5_000L ])
    // The pages were not all read.
    equal ValueNone (memory.Since overlap)
    memory.ReadWhole()
    equal (ValueSome(seconds 940L)) (memory.Since overlap)
    equal ([], [ "t", "confirmed" ]) (news memory true [] [ trade "t" "confirmed" 1_000L ])
    equal (ValueSome(seconds 4_940L)) (memory.Since overlap)
    // Nobody settles it any more.
    news memory false [] [ trade "v" "retrying" 5_000L; trade "w" "confirmed" 200_000L ]
    |> ignore

    memory.ReadWhole()
    equal (ValueSome(seconds 199_940L)) (memory.Since overlap)
    equal ([], []) (news memory false [] [ trade "w" "confirmed" 200_000L ])
