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
    let world = World(options, start)
    let faults = Faults(options.Faults, options.FaultRate)
    let limits = Limits()
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

    let ledgerTrade (market: Market) (fill: Fill) : LedgerTrade = {
        Condition = market.Info.Condition
        Token = market.Info.Tokens[fill.Token]
        Wallet = (world.Wallet fill.Taker).ToLowerInvariant()
        Side = if fill.Buys then "BUY" else "SELL"
        Price = Millionths.toDecimal fill.Price
        Size = Millionths.toDecimal fill.Size
        PriceMillionths = fill.Price
        SizeMillionths = fill.Size
        Timestamp = fill.Second
        Transaction = market.TransactionHash fill
        Occurrence = fill.Occurrence
        VisibleAt =
            match world.Frozen with
            | ValueSome at -> Micros.toDate (min at fill.VisibleAt)
            | ValueNone -> Micros.toDate fill.VisibleAt
    }

    let ledger =
        Ledger(fun () ->
            atNow (fun _ -> [|
                for market in world.Markets do
                    for fill in market.Fills -> ledgerTrade market fill
            |])
            |> Seq.sortBy _.Timestamp // stable, which Array.sortBy is not
            |> Array.ofSeq)

    let answer (ask: Ask) (writer: Utf8JsonWriter) now =
        match ask.Path with
        | "gamma" :: path -> Gamma.answer writer world ask path
        | "clob" :: path -> Clob.answer writer world now ask path
        | "data" :: path -> Data.answer options writer world now ask path
        | _ -> Answer.error 404 "not found" writer

    /// The exchange's true answer, written on the sheet.
    let write (sheet: Sheet) ask =
        try
            atNow (answer ask sheet.Json)
        with Refused(status, message) ->
            sheet.Clear()
            Answer.error status message sheet.Json

    let throttled (sheet: Sheet) retryAfter = {
        Answer.error 429 "Too Many Requests" sheet.Json with
            RetryAfter = ValueSome retryAfter
    }

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

        let ask = {
            Method = http.Request.Method
            Path = path
            Query = Wire.queryOf http
            Body = body
            Dice = Dice.Keyed(int64 options.Seed, 9L, number)
        }

        use sheet = Sheet.Take()

        let over =
            if options.Limits then
                limits.Enter(path, elapsed ())
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
            atNow (fun now -> struct (now, world.Markets |> Array.sumBy _.Fills.Count))

        writer.WriteStartObject()
        writer.WriteString("now", Micros.toDate now)
        writer.WriteBoolean("frozen", world.Frozen.IsSome)

        writer.Array(
            "faults",
            faults.Switches,
            (fun switch -> writer.WriteStringValue(FaultSwitch.name switch))
        )

        writer.WriteNumber("markets", options.Markets)
        writer.WriteNumber("trades", trades)
        writer.WriteNumber("requests", Volatile.Read &sequence)
        writer.WriteEndObject()

    let control (http: HttpContext) path : Task =
        match http.Request.Method, path with
        | "GET", [ "ledger"; "trades" ] -> Wire.sendLines http ledger.Trades LedgerJson.trade
        | "GET", [ "ledger"; "requests" ] -> Wire.sendLines http ledger.Requests LedgerJson.request
        | "POST", [ "control"; "freeze" ] ->
            freeze ()
            Wire.sendJson http 200 state
        | "POST", [ "control"; "faults" ] ->
            match FaultSwitch.parse (string http.Request.Query["set"]) with
            | Ok chosen ->
                faults.Switches <- chosen
                Wire.sendJson http 200 state
            | Error message -> Wire.sendJson http 400 (Answer.error 400 message >> ignore)
        | "GET", [ "control"; "state" ] -> Wire.sendJson http 200 state
        | _ -> Wire.sendJson http 404 (Answer.error 404 "not found" >> ignore)

    member _.Ledger = ledger
    member _.Freeze() = freeze ()

    member _.Faults
        with get () = faults.Switches
        and set value = faults.Switches <- value

    /// Answers one HTTP request.
    member _.Handle(http: HttpContext) : Task =
        match Wire.pathOf http with
        | ("ledger" | "control") :: _ as path -> control http path
        | path -> exchange http path
