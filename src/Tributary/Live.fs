namespace Tributary

open System
open System.Buffers
open System.Collections.Concurrent
open System.Collections.Generic
open System.Net
open System.Net.WebSockets
open System.Text
open System.Threading
open System.Threading.Channels
open System.Threading.Tasks
open Microsoft.Extensions.Logging

/// What arrives at the pump.
[<Struct>]
type private Arrival = {
    Connection: int
    /// A frame's bytes, in a rented buffer; null for anything else.
    Buffer: byte[] | null
    Length: int
    Received: Instant
    /// When it was put into the lane, by the clock's ticks.
    Stamp: int64
    What: Notice
}

/// What a connection says of itself.
and [<RequireQualifiedAccess; Struct>] private Notice =
    | Frame
    | Tick
    /// The first frame was sent.
    | Opened
    | Closed of cause: Cause * detail: string

/// How an exchange's live connections are made.
type internal LiveOptions = {
    Address: Uri
    Proxy: Uri option
    /// What the request for a connection bears beside the usual headers: made anew for each, because a signature has its time.
    Headers: Instant -> (string * string) list
    TokensPerConnection: int
    Rules: DepthRules
    /// A connection that says nothing at all for so long, not even to a ping, is dead.
    DeadAfter: TimeSpan
    ModeOf: Market -> DepthMode
    /// Rows wait for so long, at most, to share a batch.
    BatchTime: TimeSpan
    /// What the waits between attempts are drawn from.
    Seed: int
}

/// What the live part asks of the rest of the engine.
type internal LiveEvents = {
    /// Takes a batch into the lane to the store; waits for room.
    Store: Batch -> Task
    /// Asks for whole books, and hands them to `Polled`.
    Compare: TokenId list -> unit
    /// An exchange tells of a market, by its slug: once each.
    Announced: string -> unit
    /// A market's winner is known.
    Resolved: MarketId -> unit
}

/// One connection: reads frames into the lane, sends what it is told in order, pings, and ends when the other side does or is silent.
[<Sealed>]
type private Wire
    (
        number: int,
        options: LiveOptions,
        part: StreamPart,
        session: StreamSession,
        first: TokenId list,
        lane: ChannelWriter<Arrival>,
        clock: TimeProvider,
        meters: Meters
    ) =
    let bytes = meters.Counter(Count.bytesReceived, "endpoint=stream")
    let ended = new CancellationTokenSource()

    let texts =
        Channel.CreateUnbounded<string>(UnboundedChannelOptions(SingleReader = true))
    // The last moment at which anything came, by the clock's ticks.
    let mutable heardAt = 0L
    // Said before anything is heard, so nobody else asks the session meanwhile.
    let opening = session.Open first
    // Otherwise the protocol's own pings keep it alive.
    let isPinged = part.Ping <> ""

    /// A frame that is larger ends the connection.
    let mostBytes = 64 <<< 20

    let now () =
        Instant.ofDateTimeOffset (clock.GetUtcNow())

    let tell what = task {
        let arrival = {
            Connection = number
            Buffer = null
            Length = 0
            Received = now ()
            Stamp = clock.GetTimestamp()
            What = what
        }

        try
            do! lane.WriteAsync arrival
        with :? ChannelClosedException ->
            ()
    }

    let receive (socket: ClientWebSocket) : Task<string> = task {
        let mutable buffer = ArrayPool<byte>.Shared.Rent 65_536
        let mutable held = 0
        let mutable reason = ""

        try
            while reason = "" do
                if held = buffer.Length then
                    if held >= mostBytes then
                        reason <- $"a frame of more than {mostBytes} bytes"
                    else
                        let larger = ArrayPool<byte>.Shared.Rent(2 * held)
                        Buffer.BlockCopy(buffer, 0, larger, 0, held)
                        ArrayPool<byte>.Shared.Return buffer
                        buffer <- larger

                if reason = "" then
                    let! part =
                        socket.ReceiveAsync(Memory<byte>(buffer, held, buffer.Length - held), ended.Token)

                    Volatile.Write(&heardAt, clock.GetTimestamp())

                    if part.MessageType = WebSocketMessageType.Close then
                        reason <-
                            match socket.CloseStatus with
                            | status when status.HasValue ->
                                $"closed by the exchange ({int status.Value} {socket.CloseStatusDescription})"
                            | _ -> "closed by the exchange"
                    else
                        held <- held + part.Count

                        if part.EndOfMessage then
                            let message = ArrayPool<byte>.Shared.Rent(max 1 held)
                            Buffer.BlockCopy(buffer, 0, message, 0, held)
                            let received = now ()
                            bytes.Add(int64 held)
                            meters.Heard received

                            let arrival = {
                                Connection = number
                                Buffer = message
                                Length = held
                                Received = received
                                Stamp = clock.GetTimestamp()
                                What = Notice.Frame
                            }

                            if not (lane.TryWrite arrival) then
                                do! lane.WriteAsync(arrival, ended.Token)

                            held <- 0
        finally
            ArrayPool<byte>.Shared.Return buffer

        return reason
    }

    let send (socket: ClientWebSocket) (text: string) =
        socket.SendAsync(
            ReadOnlyMemory(Encoding.UTF8.GetBytes text),
            WebSocketMessageType.Text,
            true,
            ended.Token
        )

    // A connection that is sound but quiet answers more than once before it counts as dead.
    let pingEvery = min part.PingEvery (options.DeadAfter / 3.0)

    /// Texts in their order, and pings in between.
    let speak (socket: ClientWebSocket) : Task<string> = task {
        let mutable reason = ""
        let mutable pinged = clock.GetTimestamp()

        while reason = "" do
            let mutable text = ""

            while texts.Reader.TryRead &text do
                do! send socket text
                // The exchange has no stated limit; a burst of subscriptions would find one.
                do! Task.Delay(TimeSpan.FromMilliseconds 50.0, clock, ended.Token)

            if isPinged && clock.GetElapsedTime pinged >= pingEvery then
                pinged <- clock.GetTimestamp()
                do! send socket part.Ping

            let silent = clock.GetElapsedTime(Volatile.Read &heardAt)

            if isPinged && silent > options.DeadAfter then
                reason <- $"no answer to a ping for %.0f{silent.TotalSeconds} s"
            else
                use soon = CancellationTokenSource.CreateLinkedTokenSource ended.Token
                soon.CancelAfter(TimeSpan.FromMilliseconds 500.0)

                try
                    let! _ = texts.Reader.WaitToReadAsync soon.Token
                    ()
                with :? OperationCanceledException when not ended.IsCancellationRequested ->
                    ()

        return reason
    }

    let rec words (error: exn) =
        match error.InnerException with
        | null -> error.Message
        | inner -> words inner

    let run () : Task<unit> = task {
        let socket = new ClientWebSocket()

        if isPinged then
            socket.Options.KeepAliveInterval <- Timeout.InfiniteTimeSpan
        else
            socket.Options.KeepAliveInterval <- pingEvery
            socket.Options.KeepAliveTimeout <- options.DeadAfter

        socket.Options.DangerousDeflateOptions <-
            WebSocketDeflateOptions(ServerContextTakeover = true, ClientContextTakeover = false)

        match options.Proxy with
        | Some proxy -> socket.Options.Proxy <- Proxy.make proxy
        | None -> ()

        let mutable cause, detail = Cause.Disconnect, ""

        try
            try
                use patience = CancellationTokenSource.CreateLinkedTokenSource ended.Token
                patience.CancelAfter(TimeSpan.FromSeconds 10.0)

                // A header that cannot be made is a connection that fails, as any other.
                for name, value in options.Headers(now ()) do
                    socket.Options.SetRequestHeader(name, value)

                do! socket.ConnectAsync(options.Address, patience.Token)
                Volatile.Write(&heardAt, clock.GetTimestamp())

                for text in opening do
                    do! send socket text

                do! tell Notice.Opened
                let reading, speaking = receive socket, speak socket
                let! done' = Task.WhenAny(reading, speaking)
                let! reason = done'
                detail <- reason

                if obj.ReferenceEquals(done', speaking) then
                    cause <- Cause.Starved
            with
            | :? OperationCanceledException when ended.IsCancellationRequested -> detail <- "told to stop"
            | :? OperationCanceledException ->
                cause <- Cause.Unreachable
                detail <- "no answer within 10 s"
            | error -> detail <- words error
        finally
            ended.Cancel()
            socket.Abort()
            socket.Dispose()

        do! tell (Notice.Closed(cause, detail))
    }

    let mutable running: Task = Task.CompletedTask
    member _.Number = number
    member _.First = first
    member _.Session = session
    member val IsOpen = false with get, set
    member _.Start() = running <- Task.Run<unit>(run)

    member _.Send(said: string seq) =
        for text in said do
            texts.Writer.TryWrite text |> ignore

    member _.Stop() = ended.Cancel()
    member _.Ended = running

/// Live order books and fills of one exchange: connections by plan, one pump that all frames go through in their order, and rows to the
/// store in batches. What anything means is decided by `Depth`.
[<Sealed>]
type internal Live
    (
        exchange: ExchangeId,
        part: StreamPart,
        options: LiveOptions,
        events: LiveEvents,
        pool: BatchPool,
        clock: TimeProvider,
        meters: Meters,
        log: ILogger
    ) =
    let depth = Depth(exchange, part, options.Rules, pool.Names)
    let frame = Frame pool.Names
    // Frames wait here when the pump does not keep up; then the sockets wait.
    let mostWaiting = 32_768

    let lane =
        Channel.CreateBounded<Arrival>(
            BoundedChannelOptions(mostWaiting, SingleReader = true, FullMode = BoundedChannelFullMode.Wait)
        )

    // Everything below belongs to whoever holds the gate: the pump, or a call from the engine.
    let gate = obj ()
    let mutable shards = Shards.empty options.TokensPerConnection
    let wires = Dictionary<int, Wire>()
    // Connections that wait for their turn, with the earliest moment.
    let due = List<struct (int * Instant)>()
    let retiring = Dictionary<int, Instant>()
    let failures = Dictionary<int, int>()
    let random = Random options.Seed
    let mutable lastConnect = Instant.ofMicros 0L
    let mutable out = pool.Rent()
    let mutable outSince = Instant.ofMicros 0L
    let announced = HashSet<int>()
    let resolved = HashSet<int>()
    let markets = Dictionary<string, Market>()
    // Of which market a token is, and the name of its outcome.
    let outcomes = Dictionary<int, struct (string * Name)>()
    let waited, age = Durations(), Durations()
    let mutable earliest = TimeSpan.MaxValue
    let mutable lateness = Lateness.None
    let mutable judged = Instant.ofMicros 0L
    let mutable ticked = Instant.ofMicros 0L
    let mutable isStopping = false
    // Why no connection is to be open at present.
    let mutable held: Cause voption = ValueNone
    let told = Dictionary<string, int64>()
    let heard = meters.Counter(Count.eventsReceived, "stream=depth")
    let aged = meters.Timing(Took.receive, "stream=depth")

    let now () =
        Instant.ofDateTimeOffset (clock.GetUtcNow())

    do out.Exchange <- string exchange

    let connect number at =
        if not (due.Exists(fun (struct (other, _)) -> other = number)) then
            due.Add(struct (number, at))

    /// A wait before the next attempt: doubled with each failure in a row, 30 s at most, and never the same for two.
    let backOff (count: int) =
        let seconds = min 30.0 (0.5 * Math.Pow(2.0, float (min count 8)))
        TimeSpan.FromSeconds(seconds * (0.5 + random.NextDouble()))

    /// Whoever is due connects, one every tenth of a second.
    let connectDue (at: Instant) =
        let mutable i = 0

        while held.IsNone && i < due.Count do
            let struct (number, moment) = due[i]

            if moment <= at && at - lastConnect >= TimeSpan.FromMilliseconds 100.0 then
                due.RemoveAt i
                let tokens = Shards.tokens number shards

                if not tokens.IsEmpty then
                    lastConnect <- at

                    let wire =
                        Wire(number, options, part, part.Session(), tokens, lane.Writer, clock, meters)

                    wires[number] <- wire
                    wire.Start()
            else
                i <- i + 1

    /// The exchange was asked for these tokens on this connection.
    let subscribed number (tokens: TokenId list) at =
        let marketOf (token: TokenId) =
            match outcomes.TryGetValue (pool.Names.Intern(string token)).Key with
            | true, struct (market, _) -> market
            | _ -> ""

        Log.subscribed log (string exchange) number marketOf tokens
        depth.Subscribed(number, tokens, at)

    /// Asks for tokens on a connection, now or with its first frame.
    let subscribe number (tokens: TokenId list) at =
        match wires.TryGetValue number with
        | true, wire when wire.IsOpen ->
            wire.Send(wire.Session.Subscribe tokens)
            subscribed number tokens at
        | true, wire ->
            // It is being made: what its first frame lacks follows.
            let late = tokens |> List.filter (fun token -> not (List.contains token wire.First))

            if not late.IsEmpty then
                wire.Send(wire.Session.Subscribe late)
        | _ -> connect number at

    let rotate number (at: Instant) =
        if wires.ContainsKey number && not (retiring.ContainsKey number) then
            let after, fresh = Shards.replace number shards
            shards <- after

            if fresh <> number then
                retiring[number] <- at
                connect fresh at

    let carryOut (at: Instant) =
        // Orders may lead to orders.
        while depth.Orders.Count > 0 do
            let orders = depth.Orders.ToArray()
            depth.Orders.Clear()

            for order in orders do
                match order with
                | DepthOrder.Compare tokens -> events.Compare tokens
                | DepthOrder.Renew(connection, tokens) ->
                    meters.Add(Count.resubscribed, "", int64 tokens.Length)

                    match wires.TryGetValue connection with
                    | true, wire when wire.IsOpen ->
                        wire.Send(wire.Session.Renew tokens)
                        subscribed connection tokens at
                    | _ -> ()
                | DepthOrder.Move token ->
                    meters.Add(Count.moved, "")
                    let after, number = Shards.move token shards
                    shards <- after
                    subscribe number [ token ] at
                | DepthOrder.Unsubscribe(connection, token) ->
                    match wires.TryGetValue connection with
                    | true, wire when wire.IsOpen -> wire.Send(wire.Session.Unsubscribe [ token ])
                    | _ -> ()
                | DepthOrder.Rotate connection ->
                    meters.Add(Count.rotated, "")
                    Log.connectionSilent log (string exchange) connection
                    rotate connection at

    let opened number (at: Instant) =
        match wires.TryGetValue number with
        | true, wire ->
            wire.IsOpen <- true
            failures.Remove number |> ignore
            Log.connected log (string exchange) number wire.First.Length
            meters.Add(Count.connects, "")
            subscribed number wire.First at
            let rest = Shards.tokens number shards |> List.except wire.First

            if not rest.IsEmpty then
                subscribed number rest at
        | _ -> ()

    let closed number cause (detail: string) (at: Instant) =
        match wires.TryGetValue number with
        | true, wire ->
            wires.Remove number |> ignore
            let cause = ValueOption.defaultValue cause held
            meters.Add(Count.disconnects, $"cause={cause}")

            if not isStopping then
                depth.Lost(number, cause, at, out)

                if not (retiring.Remove number) then
                    if held.IsNone then
                        Log.disconnected log (string exchange) number detail

                    let count =
                        match failures.TryGetValue number with
                        | true, count -> count
                        | _ -> 0

                    let after, fresh = Shards.replace number shards
                    shards <- after

                    if fresh <> number then
                        failures.Remove number |> ignore
                        failures[fresh] <- count + (if wire.IsOpen then 0 else 1)
                        connect fresh (at + backOff count)
        | _ -> ()

    /// Connections whose tokens have all moved, or had time to.
    let retire (at: Instant) =
        for KeyValue(number, since) in Seq.toArray retiring do
            if at - since > TimeSpan.FromSeconds 20.0 || depth.IsIdle number then
                match wires.TryGetValue number with
                | true, wire -> wire.Stop()
                | _ -> retiring.Remove number |> ignore

    /// The fills of a frame, as sightings of their own.
    let trades (bytes: byte[]) (received: Instant) =
        for i in 0 .. frame.Events.Count - 1 do
            let event = &frame.Events[i]

            if
                event.Kind = StreamKind.Trade
                && depth.Follows event.Token
                && event.Size > 0L
                && event.Price > 0L
                && event.Price < Fixed.One
            then
                let row: TradeRow = {
                    Market = event.Market
                    Token = event.Token
                    Outcome =
                        match outcomes.TryGetValue event.Token.Key with
                        | true, struct (_, name) -> name
                        | _ -> { Key = 0 }
                    Side = event.Side
                    Source = Source.Stream
                    Price = Price.ofMillionths event.Price
                    Size = (Size.tryOfMillionths event.Size).Value
                    At = event.At
                    Received = received
                    Transaction = out.Keep(ReadOnlySpan(bytes, event.Detail.Start, event.Detail.Length))
                    Wallet = { Start = 0; Length = 0 }
                    Flags = Flags.None
                    Occurrence = 0
                    Collateral = ValueNone
                    Id = { High = 0UL; Low = 0UL }
                    Inserted = false
                }

                out.Trades.Add &row
                Trades.identifyLast out

    /// What an exchange tells of markets: each is passed on once, however often it is repeated.
    let notices (bytes: byte[]) =
        for i in 0 .. frame.Events.Count - 1 do
            let event = &frame.Events[i]

            match event.Kind with
            | StreamKind.NewMarket when event.Text.Length > 0 && announced.Add event.Market.Key ->
                events.Announced(Encoding.UTF8.GetString(bytes, event.Text.Start, event.Text.Length))
            | StreamKind.Resolved when event.Market.Key <> 0 && resolved.Add event.Market.Key ->
                match MarketId.Parse(pool.Names.Text event.Market) with
                | Ok market -> events.Resolved market
                | Error _ -> ()
            | _ -> ()

    /// So many changes came so long after they happened.
    let arrivedAfter (late: TimeSpan) (changes: int64) =
        if changes > 0L then
            age.Add(late, changes)
            aged.Add(late, changes)

            // As numbers: comparing durations would box them.
            if late.Ticks < earliest.Ticks then
                earliest <- late

    let hear (arrival: inref<Arrival>) (buffer: byte[]) =
        frame.Clear()

        match wires.TryGetValue arrival.Connection with
        | true, wire ->
            wire.Session.Decode (ReadOnlyMemory(buffer, 0, arrival.Length)) arrival.Received frame
            wire.Send frame.Replies
        | _ -> () // it is over

        for note in frame.Notes do
            Log.told log (string exchange) note

        depth.Hear(arrival.Connection, ReadOnlySpan(buffer, 0, arrival.Length), frame, arrival.Received, out)
        trades buffer arrival.Received
        notices buffer

        for rejection in frame.Batch.Rejections do
            out.Rejections.Add rejection

        heard.Add(int64 frame.Events.Count)
        waited.Add(clock.GetElapsedTime arrival.Stamp)

        // Changes of one moment, which come together, are counted together.
        let mutable changes, moment = 0L, arrival.Received

        for i in 0 .. frame.Events.Count - 1 do
            let event = &frame.Events[i]

            if event.Kind = StreamKind.Change || event.Kind = StreamKind.Shift then
                if event.At.Micros <> moment.Micros then
                    arrivedAfter (arrival.Received - moment) changes
                    moment <- event.At
                    changes <- 0L

                changes <- changes + 1L

        arrivedAfter (arrival.Received - moment) changes

    /// What was counted since the last time.
    let count () =
        let counts = depth.Counts

        let add (measure: Measure) labels (total: int64) =
            let key: string = measure.Name + labels

            let before =
                match told.TryGetValue key with
                | true, before -> before
                | _ -> 0L

            told[key] <- total
            meters.Add(measure, labels, total - before)

        add Count.states "verdict=verified" counts.Verified
        add Count.states "verdict=unverifiable" counts.Unverifiable
        add Count.states "verdict=mismatched" counts.Mismatched
        add Count.duplicates "stream=depth" (counts.Repeats + frame.Repeats)
        add Count.late "stream=depth" counts.Late
        add Count.early "stream=depth" counts.Early
        add Count.unknownMessages "" frame.Unknown
        add Count.unusualMessages "" frame.Unusual
        add Count.gapsOpened "stream=depth" counts.GapsOpened
        add Count.gapsClosed "stream=depth" counts.GapsClosed
        add Count.crossed "" counts.Crossed
        add Count.wrongBest "" counts.WrongBest
        add Count.agreed "" counts.Agreed

    let judge (at: Instant) =
        if Instant.hasPassed (TimeSpan.FromSeconds 10.0) judged at then
            judged <- at
            let found = Lateness.judge waited age earliest

            if found <> lateness then
                lateness <- found

                Log.lateness
                    log
                    (string exchange)
                    (Lateness.explain found)
                    (age.Quantile 0.5)
                    (age.Quantile 0.99)

            waited.Clear()
            age.Clear()
            earliest <- TimeSpan.MaxValue

    let tick (at: Instant) =
        if at - ticked >= TimeSpan.FromMilliseconds 200.0 then
            ticked <- at
            depth.Tick(at, out)
            carryOut at
            retire at
            count ()
            judge at

        connectDue at

        // The proof of every change as long as there is time for it.
        let waiting = lane.Reader.Count

        depth.HashEvery <-
            if waiting > 4_000 then 16
            elif waiting < 500 then 1
            else depth.HashEvery

    /// The rows so far, if they are many or old enough.
    let takeOut (at: Instant) isAll : Batch | null =
        if out.RowCount = 0 then
            outSince <- at
            null
        elif
            isAll
            || out.RowCount >= 2_000
            || Instant.hasPassed options.BatchTime outSince at
        then
            let full = out
            out <- pool.Rent()
            out.Exchange <- string exchange
            outSince <- at
            full
        else
            null

    let ticker =
        clock.CreateTimer(
            (fun _ ->
                lane.Writer.TryWrite {
                    Connection = -1
                    Buffer = null
                    Length = 0
                    Received = now ()
                    Stamp = clock.GetTimestamp()
                    What = Notice.Tick
                }
                |> ignore),
            null,
            TimeSpan.FromMilliseconds 20.0,
            TimeSpan.FromMilliseconds 20.0
        )

    let take (arrival: inref<Arrival>) : Batch | null =
        Monitor.Enter gate

        try
            match arrival.Buffer with
            | null ->
                match arrival.What with
                | Notice.Opened -> opened arrival.Connection arrival.Received
                | Notice.Closed(cause, detail) -> closed arrival.Connection cause detail arrival.Received
                | _ -> ()

                tick (now ())
            | buffer ->
                hear &arrival buffer
                ArrayPool<byte>.Shared.Return buffer

                if depth.Orders.Count > 0 then
                    carryOut arrival.Received

            takeOut arrival.Received false
        finally
            Monitor.Exit gate

    let pump () : Task<unit> = task {
        let mutable isOpen = true

        while isOpen do
            let! more = lane.Reader.WaitToReadAsync()
            isOpen <- more
            let mutable arrival = Unchecked.defaultof<Arrival>

            while lane.Reader.TryRead &arrival do
                match
                    (try
                        take &arrival
                     with error ->
                         Log.jobCrashed log $"{exchange}/stream" error
                         null)
                with
                | null -> ()
                | full -> do! events.Store full
    }

    let mutable running: Task = Task.CompletedTask

    member _.Start() = running <- Task.Run<unit>(pump)

    /// Follows the live books of these markets from now on.
    member _.Follow(added: Market list) =
        lock gate (fun () ->
            let at = now ()

            let followed =
                added |> List.filter (fun market -> options.ModeOf market <> DepthMode.Off)

            for market in followed do
                markets[string market.Market] <- market

                for outcome in market.Outcomes do
                    outcome.Token
                    |> ValueOption.iter (fun token ->
                        outcomes[(pool.Names.Intern(string token)).Key] <-
                            struct (string market.Market, pool.Names.Intern outcome.Name))

                depth.Follow(market, options.ModeOf market)

                for token in market.Tokens do
                    depth.Return(token, out)

            let after, placed =
                Shards.add (followed |> List.map (fun market -> List.ofArray market.Tokens)) shards

            shards <- after

            for number, tokens in placed do
                subscribe number tokens at)

    /// A description may have changed.
    member _.Describe(described: Market) =
        lock gate (fun () ->
            if markets.ContainsKey(string described.Market) then
                depth.Follow(described, options.ModeOf described))

    /// What an earlier run left of a token: up to when its book was proven, and why it is not any more.
    member _.Resume(token: TokenId, since: Instant, good: Instant, cause: Cause) =
        lock gate (fun () -> depth.Resume(token, since, good, cause, out))

    /// Markets that are over.
    member _.Unfollow(closed: Market list) =
        lock gate (fun () ->
            for market in closed do
                if markets.Remove(string market.Market) then
                    depth.Unfollow(market, now (), out)

                    for token in market.Tokens do
                        shards <- Shards.remove token shards

            carryOut (now ()))

    /// Whole books that were asked for.
    member _.Polled(batch: Batch) =
        lock gate (fun () ->
            for i in 0 .. batch.Books.Count - 1 do
                depth.Polled(&batch.Books[i], batch, batch.Books[i].Received, out))

    /// Closes every connection, and opens none until `Release`: what is not heard meanwhile is a gap of this cause, from the last proven state on; a gap that is open already keeps its cause, and what was never proven has none.
    member _.Hold(cause: Cause) =
        lock gate (fun () ->
            held <- ValueSome cause

            for wire in wires.Values do
                wire.Stop())

    /// Connections are opened again.
    member _.Release() = lock gate (fun () -> held <- ValueNone)

    /// Connections that are open, and those that there are to be.
    member _.Connections: struct (int * int) =
        lock gate (fun () ->
            let opened = wires.Values |> Seq.filter _.IsOpen |> Seq.length
            struct (opened, max opened (Shards.connections shards |> Seq.length)))

    /// Frames that wait to be decoded.
    member _.Waiting = lane.Reader.Count

    /// The holes that are open, by the keys of their markets and tokens.
    member _.OpenGaps = lock gate (fun () -> depth.OpenGaps)

    member _.Counts = depth.Counts
    member _.Tokens = depth.Tokens

    /// Ends the connections, and leaves what is known up to now.
    member _.StopAsync() : Task<unit> = task {
        ticker.Dispose()

        let all =
            lock gate (fun () ->
                isStopping <- true
                due.Clear()
                Seq.toArray wires.Values)

        for wire in all do
            wire.Stop()

        do! Task.WhenAll(all |> Array.map _.Ended)
        lane.Writer.TryComplete() |> ignore
        do! running

        match
            lock gate (fun () ->
                depth.Stop(now (), out)
                count ()
                takeOut (now ()) true)
        with
        | null -> ()
        | full -> do! events.Store full
    }
