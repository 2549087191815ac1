namespace Tributary.Server.Simulator

open System
open System.Globalization
open System.Text.Json
open System.Threading
open System.Threading.Tasks
open Microsoft.AspNetCore.Http

/// The way of a request through the exchange: limits, fault, answer, ledger.
[<Sealed>]
type internal Exchange(options: SimulatorOptions) =
    let clock = options.Clock
    let started = clock.GetTimestamp()
    let start = options.Start |> ValueOption.defaultWith clock.GetUtcNow
    let injections = Injections()
    let world = World(options, start, injections)
    let faults = Faults(options.Faults, options.FaultRate)
    let limits = Limits options.Venue
    let seed = options.Seed
    let mutable sequence = 0L

    let elapsed () =
        clock.GetElapsedTime(started).Ticks / 10L

    let simulated () =
        Micros.ofDate start + int64 (float (elapsed ()) * options.Speed)

    /// Runs `read` on the world as it is now.
    let atNow read =
        lock world (fun () ->
            let now = simulated ()
            world.Advance(now, faults.Switches.Contains FaultSwitch.Resolve)
            read now)

    /// As the exchange tells a fill: Kalshi's are all told of YES.
    let ledgerTrade (market: Market) (fill: Fill) : LedgerTrade =
        let info = market.Info

        let struct (token, buys, price, transaction) =
            match options.Venue with
            | Venue.Polymarket -> struct (fill.Token, fill.Buys, fill.Price, market.TransactionHash fill)
            | Venue.Kalshi ->
                let struct (price, isYes) = Dialect.ofYes fill
                struct (0, isYes, price, Dialect.tradeId seed info fill)
            | Venue.Manifold -> struct (fill.Token, fill.Buys, fill.Price, Dialect.betId seed info fill)

        let visibleAt = Dialect.visibleAt options.Venue &fill

        {
            Condition = market.Info.Condition
            Token = info.Tokens[token]
            Wallet = (world.Wallet fill.Taker).ToLowerInvariant()
            Side = if buys then "BUY" else "SELL"
            Price = Millionths.toDecimal price
            Size = Millionths.toDecimal fill.Size
            PriceMillionths = price
            SizeMillionths = fill.Size
            Timestamp = fill.Second
            Transaction = transaction
            Occurrence = fill.Occurrence
            VisibleAt =
                match world.Frozen with
                | ValueSome at -> Micros.toDate (min at visibleAt)
                | ValueNone -> Micros.toDate visibleAt
        }

    let trades () =
        atNow (fun _ -> [|
            for market in world.Markets do
                for fill in market.Fills -> ledgerTrade market fill
        |])
        |> Seq.sortBy _.Timestamp // stable, which Array.sortBy is not
        |> Array.ofSeq

    let opened = ResizeArray<IChannelSession>()

    let truth = {
        BookAt =
            fun token at ->
                atNow (fun _ ->
                    match world.MarketByToken token with
                    | Some struct (market, side) ->
                        market.Tape
                        |> ValueOption.bind _.At(at, market.Tell)
                        |> ValueOption.map (fun replay ->
                            let page = market.PageOf(replay, side)

                            {
                                Token = token
                                Timestamp = page.Timestamp
                                Hash = BookJson.hash page
                                Bids = Array.rev page.Bids
                                Asks = Array.rev page.Asks
                                TickSize = page.TickSize
                                LastTradePrice = page.LastTradePrice
                            })
                    | None -> ValueNone)
        States =
            fun token ->
                let states = ResizeArray<TrueState>()

                // Copied first: to hash many states takes a while, and the exchange goes on.
                let found =
                    atNow (fun _ ->
                        match world.MarketByToken token with
                        | Some struct (market, side) ->
                            market.Tape |> ValueOption.map (fun tape -> struct (market, side, tape.Copy()))
                        | None -> ValueNone)

                match found with
                | ValueSome struct (market, side, copy) ->
                    Tape.Walk(
                        copy,
                        market.Tell,
                        fun replay ->
                            let page = market.PageOf(replay, side)

                            states.Add {
                                Timestamp = page.Timestamp
                                Hash = BookJson.hash page
                            }
                    )
                | ValueNone -> ()

                states.ToArray()
        Injections = fun () -> atNow (fun _ -> injections.All)
        Connections = fun () -> lock world (fun () -> [| for session in opened -> session.Connection |])
    }

    let ledger = Ledger(trades, truth)
    let accounts = Accounts(options.Seed, simulated)

    let hub = Hub(world, (fun () -> faults.Switches.Contains FaultSwitch.Resolve))

    // A tenth of a real second.
    let stride = int64 (1e5 * max 1.0 options.Speed)

    let opening (make: Hub * int * float -> #IChannelSession) =
        lock world (fun () ->
            hub.Advance world.Advanced
            let session = make (hub, opened.Count + 1, options.StreamFaultRate)
            opened.Add session
            session)

    let openSession () : IChannelSession =
        match options.Venue with
        | Venue.Polymarket -> opening Session :> IChannelSession
        | Venue.Kalshi -> opening KalshiSession :> IChannelSession
        | Venue.Manifold -> opening ManifoldSession :> IChannelSession

    let rpc = Rpc(options, world)

    let answer (ask: Ask) (writer: Utf8JsonWriter) now =
        match options.Venue, ask.Path with
        | Venue.Kalshi, "rest" :: path -> Kalshi.answer writer world now ask path
        | Venue.Manifold, "rest" :: path -> Manifold.answer writer world now ask path
        | Venue.Polymarket, [ "rpc" ] when ask.Method = "POST" -> rpc.Answer(writer, now, ask)
        | Venue.Polymarket, "gamma" :: path -> Gamma.answer writer world ask path
        | Venue.Polymarket, "clob" :: path -> Clob.answer writer world now ask path
        | Venue.Polymarket, "data" :: path -> Data.answer options writer world now ask path
        | _ -> Answer.error 404 "not found" writer

    /// The exchange's true answer, written on the sheet.
    let write (sheet: Sheet) ask =
        try
            atNow (answer ask sheet.Json)
        with Refused(status, message) ->
            sheet.Clear()

            match options.Venue with
            | Venue.Polymarket -> Answer.error status message sheet.Json
            | Venue.Kalshi -> Kalshi.refusal ask.Dice status message sheet.Json
            | Venue.Manifold -> Manifold.refusal status message sheet.Json

    let throttled (sheet: Sheet) retryAfter =
        match options.Venue with
        // It does not say when to come again.
        | Venue.Kalshi -> Answer.error 429 "too many requests" sheet.Json
        | Venue.Polymarket
        | Venue.Manifold -> {
            Answer.error 429 "Too Many Requests" sheet.Json with
                RetryAfter = ValueSome retryAfter
          }

    /// Whether a request is signed by the owner of the key.
    let signed (http: HttpContext) =
        if options.Venue = Venue.Kalshi then
            KalshiKey.check
                options.PublicKey
                (clock.GetUtcNow())
                http.Request.Method
                (http.Request.Path.ToUriComponent())
                (fun name -> string http.Request.Headers[name])
        else
            None

    let httpDate (at: DateTimeOffset) =
        at.ToString("R", CultureInfo.InvariantCulture)

    let cloudflare =
        utf8
            "<!DOCTYPE html>\n<html><head><title>502 Bad Gateway</title></head><body><center><h1>502 Bad Gateway</h1></center><hr><center>cloudflare</center></body></html>\n"

    /// The answer after its fault, and the bytes that go out.
    let misbehave (sheet: Sheet) ask fault =
        let onSheet (answer: Answer) = struct (answer, sheet.Written)
        // Nothing that comes in half was delivered.
        let nothing (answer: Answer) = { answer with Books = [||]; Rows = 0 }

        match fault with
        | ValueNone
        | ValueSome(Fault.Delay _) -> onSheet (write sheet ask)
        | ValueSome Fault.FirstPageAgain ->
            onSheet (
                write sheet {
                    ask with
                        Query = ask.Query.Without Fault.pageParameters
                }
            )
        | ValueSome Fault.Restarting -> onSheet (Answer.error 425 "matching engine is restarting" sheet.Json)
        | ValueSome(Fault.Throttled asDate) ->
            // A date has whole seconds: two ahead is one at least.
            let retryAfter =
                if asDate then
                    httpDate (clock.GetUtcNow().AddSeconds 2.0)
                else
                    "1"

            onSheet (throttled sheet retryAfter)
        | ValueSome(Fault.Broken status) ->
            onSheet (Answer.error status "could not process the request" sheet.Json)
        | ValueSome(Fault.Html status) -> struct (Answer.html status, ReadOnlyMemory cloudflare)
        | ValueSome(Fault.Cut true) -> onSheet (nothing (write sheet ask))
        | ValueSome(Fault.Cut false) ->
            let answer = write sheet ask
            let body = sheet.Written
            struct (nothing answer, body.Slice(0, body.Length / 2))

    let exchange (http: HttpContext) path = task {
        let number = Interlocked.Increment &sequence
        let received = clock.GetUtcNow()
        let at = simulated ()
        let before = clock.GetTimestamp()
        let! body = Wire.bodyOf http
        let signed = signed http

        let ask = {
            Method = http.Request.Method
            Path = path
            Query = Wire.queryOf http
            Body = body
            IsOwner = (signed = Some true)
            Dice = Dice.Keyed(int64 options.Seed, 9L, number)
        }

        use sheet = Sheet.Take()

        let over =
            if options.Limits then
                limits.Enter(path, ask.IsOwner, elapsed ())
            else
                ValueNone

        let fault =
            if over.IsSome then
                ValueNone
            else
                faults.Choose(ask, elapsed ())

        match fault with
        | ValueSome(Fault.Delay time) -> do! Task.Delay(time, clock, http.RequestAborted)
        | _ -> ()

        let struct (answer, body) =
            match over with
            | ValueSome wait ->
                let answer = throttled sheet (string (ceil wait.TotalSeconds))
                struct (answer, sheet.Written)
            | ValueNone when signed = Some false ->
                let answer = Kalshi.refusal ask.Dice 401 "unauthorized" sheet.Json
                struct (answer, sheet.Written)
            | ValueNone -> misbehave sheet ask fault

        answer.RetryAfter
        |> ValueOption.iter (fun value -> http.Response.Headers.RetryAfter <- value)

        // Before it goes out, so that whoever has an answer finds it in the ledger.
        ledger.Add {
            Sequence = number
            Received = received
            Simulated = Micros.toDate at
            Method = ask.Method
            PathAndQuery = string http.Request.Path + string http.Request.QueryString
            Status = answer.Status
            Fault =
                match over, fault with
                | ValueSome _, _ -> Some "limit"
                | _, ValueSome fault -> Some(FaultSwitch.name (Fault.switch fault))
                | _ -> None
            Milliseconds = clock.GetElapsedTime(before).TotalMilliseconds
            Asked = answer.Asked
            Books = answer.Books
            Rows = answer.Rows
        }

        match fault with
        | ValueSome(Fault.Cut true) -> do! Wire.sendBroken http answer.Status answer.ContentType body
        | _ -> do! Wire.send http answer.Status answer.ContentType body
    }

    let freeze () = atNow world.Freeze

    let state (writer: Utf8JsonWriter) =
        let struct (now, trades) =
            atNow (fun now -> struct (now, world.Markets |> Array.sumBy _.FillCount))

        writer.WriteStartObject()
        writer.WriteString("now", Micros.toDate now)
        writer.WriteBoolean("frozen", world.Frozen.IsSome)

        writer.Array(
            "faults",
            faults.Switches,
            (fun switch -> writer.WriteStringValue(FaultSwitch.name switch))
        )

        writer.Array(
            "stream",
            world.StreamFaults,
            (fun fault -> writer.WriteStringValue(StreamFault.name fault))
        )

        writer.WriteNumber("messages", world.Messages)
        writer.WriteNumber("markets", options.Markets)
        writer.WriteNumber("trades", trades)
        writer.WriteNumber("requests", Volatile.Read &sequence)
        writer.WriteNumber("connections", opened.Count)
        writer.WriteEndObject()

    /// What `POST /control/faults` asks for: `set` for requests (also when nothing is named), `stream` and `messages` for
    /// the market channel. Either all of it is done or nothing.
    let changes (query: Query) : Result<unit -> unit, string> =
        let requests =
            match query.One "set" with
            | None when query.Has "stream" || query.Has "messages" -> Ok faults.Switches
            | names -> FaultSwitch.parse (Option.defaultValue "" names)

        let stream =
            match query.One "stream" with
            | Some names -> StreamFault.parse names
            | None -> Ok world.StreamFaults

        let messages =
            match query.One "messages" with
            | None -> Ok world.Messages
            | Some text ->
                match Double.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture) with
                | true, rate when rate >= 0.0 && rate <= 1e6 -> Ok rate
                | _ -> Error $"messages takes a number from 0 to 1000000, not '{text}'"

        match requests, stream, messages with
        | Ok requests, Ok stream, Ok messages ->
            Ok(fun () ->
                faults.Switches <- requests

                atNow (fun now ->
                    world.StreamFaults <- stream
                    world.SetMessages(messages, now)))
        | Error message, _, _
        | _, Error message, _
        | _, _, Error message -> Error message

    /// A part at a time is made ready: there may be millions.
    let fills condition : LedgerTrade seq voption =
        match world.MarketByCondition condition with
        | None -> ValueNone
        | Some market ->
            ValueSome(
                seq {
                    let count = atNow (fun _ -> market.FillCount)

                    for first in 0..1000 .. count - 1 do
                        yield!
                            atNow (fun _ -> [|
                                for number in first .. min count (first + 1000) - 1 ->
                                    ledgerTrade market (market.Fill number)
                            |])
                }
            )

    let bookAt (http: HttpContext) =
        let query = Wire.queryOf http

        let at =
            match Int64.TryParse(query.One "at" |> Option.defaultValue "") with
            | true, at -> at
            | _ -> Int64.MaxValue / 1000L

        match ledger.BookAt(query.One "token" |> Option.defaultValue "", at) with
        | ValueSome book -> Wire.sendJson http 200 (fun writer -> LedgerJson.book writer book)
        | ValueNone -> Wire.sendJson http 404 (Answer.error 404 "no such book is remembered" >> ignore)

    let control (http: HttpContext) path : Task =
        match http.Request.Method, path with
        | "GET", [ "ledger"; "fills" ] ->
            match fills ((Wire.queryOf http).One "market" |> Option.defaultValue "") with
            | ValueSome found -> Wire.sendLines http found LedgerJson.trade
            | ValueNone -> Wire.sendJson http 404 (Answer.error 404 "no such market" >> ignore)
        | "GET", [ "ledger"; "trades" ] -> Wire.sendLines http ledger.Trades LedgerJson.trade
        | "GET", [ "ledger"; "requests" ] -> Wire.sendLines http ledger.Requests LedgerJson.request
        | "GET", [ "ledger"; "book" ] -> bookAt http
        | "GET", [ "ledger"; "injections" ] -> Wire.sendLines http ledger.Injections LedgerJson.injection
        | "GET", [ "ledger"; "connections" ] -> Wire.sendLines http ledger.Connections LedgerJson.connection
        | "POST", [ "control"; "freeze" ] ->
            freeze ()
            Wire.sendJson http 200 state
        | "POST", [ "control"; "faults" ] ->
            match changes (Wire.queryOf http) with
            | Ok change ->
                change ()
                Wire.sendJson http 200 state
            | Error message -> Wire.sendJson http 400 (Answer.error 400 message >> ignore)
        | "GET", [ "control"; "state" ] -> Wire.sendJson http 200 state
        | _ -> Wire.sendJson http 404 (Answer.error 404 "not found" >> ignore)

    member _.Venue = options.Venue
    member _.Ledger = ledger

    /// All fills of a market by its condition id, those of the archive too, oldest first; nothing when there is no such market.
    member _.Fills(condition: string) = fills condition
    member _.Freeze() = freeze ()

    member _.Faults
        with get () = faults.Switches
        and set value = faults.Switches <- value

    member _.StreamFaults
        with get () = world.StreamFaults
        and set value = lock world (fun () -> world.StreamFaults <- value)

    member _.MessagesPerSecond
        with get () = world.Messages
        and set value = atNow (fun now -> world.SetMessages(value, now))

    /// For tests; to be used under its own lock.
    member _.World = world

    /// The simulated instant of now, in microseconds.
    member _.Now = simulated ()

    /// A new connection of the market channel, without a socket. A test that drives it through simulated time gives the
    /// exchange a clock that stands.
    member _.Open() : Session = opening Session

    /// Accounts of those who sign.
    member _.Accounts = accounts

    /// Answers one HTTP request.
    member _.Handle(http: HttpContext) : Task =
        match options.Venue, Wire.pathOf http with
        | Venue.Polymarket, [ "ws"; "user" ] -> accounts.Serve http
        | Venue.Polymarket, "clob" :: (("auth" | "data") :: _ as path) -> accounts.Handle(http, path)
        | Venue.Polymarket, [ "ws"; "market" ]
        | Venue.Manifold, [ "ws"; "ws" ] -> Socket.serve simulated stride TimeSpan.Zero openSession http
        | Venue.Kalshi, [ "ws"; "v2" ] when signed http = Some true ->
            Socket.serve simulated stride (TimeSpan.FromSeconds 10.0) openSession http
        // Every connection wants a key.
        | Venue.Kalshi, [ "ws"; "v2" ] ->
            Wire.sendJson http 401 (Kalshi.refusal (Dice.Keyed 0L) 401 "unauthorized" >> ignore)
        | _, (("ledger" | "control") :: _ as path) -> control http path
        | _, path -> exchange http path
