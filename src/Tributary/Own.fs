namespace Tributary

open System
open System.Collections.Generic
open System.Net.WebSockets
open System.Text
open System.Threading
open System.Threading.Channels
open System.Threading.Tasks
open Microsoft.Extensions.Logging

/// How an exchange answered who we say we are.
[<RequireQualifiedAccess>]
type internal SignIn =
    | Accepted
    /// The exchange does not take the credentials, and says why in a few words.
    | Refused of reason: string
    /// It said neither.
    | Unanswered of detail: string

/// How an account is reached.
type internal OwnOptions = {
    /// Without a signature: the account has its own.
    Transport: TransportOptions
    /// Of its live connection; nothing when those are off.
    Channel: Uri option
    Every: TimeSpan
    /// How much of what was read before is read again.
    Overlap: TimeSpan
    /// A connection that says nothing for so long, not even to a ping, is dead.
    DeadAfter: TimeSpan
}

/// What was told of an account before: what is said again is no news, and what is not said any more is asked for.
[<Sealed>]
type internal OwnMemory(part: AccountPart) =
    // The last state of each order that is not over.
    let orders = Dictionary<string, OwnOrder>()
    // Orders that the live connection told of since the last poll began: the poll may be older.
    let touched = HashSet<string>()
    let trades = Dictionary<struct (string * string * string), Instant>()
    let unsettled = Dictionary<string, Instant>()
    let rejected = HashSet<string>()
    let mutable newest: Instant voption = ValueNone
    let mutable read: Instant voption = ValueNone
    // A trade that nobody settles any more does not hold the others up.
    let longest = TimeSpan.FromDays 1.0

    let earlier (a: Instant) (b: Instant) = if a.Micros < b.Micros then a else b

    /// The order is in a state that was not told before.
    let isNewOrder (order: OwnOrder) =
        match orders.TryGetValue order.Order with
        | true, known when known.Status = order.Status && known.Filled = order.Filled -> false
        | _ ->
            if part.IsOver order then
                orders.Remove order.Order |> ignore
            else
                orders[order.Order] <- order

            true

    let isNewTrade (trade: OwnTrade) =
        if part.IsSettled trade then
            unsettled.Remove trade.Trade |> ignore
        elif not (trades.ContainsKey(struct (trade.Trade, trade.Order, trade.Status))) then
            unsettled[trade.Trade] <- trade.At

        match newest with
        | ValueSome before when before.Micros >= trade.At.Micros -> ()
        | _ -> newest <- ValueSome trade.At

        trades.TryAdd(struct (trade.Trade, trade.Order, trade.Status), trade.At)

    /// What is stored already: an order that was not over is asked for when nobody tells of it any more.
    member _.Remember(stored: OwnOrder seq) =
        lock orders (fun () ->
            for order in stored |> Seq.sortBy _.Received.Micros do
                isNewOrder order |> ignore)

    /// What of a poll, or of the live connection, is news.
    member _.News(told: Batch, isLive: bool, into: Batch) =
        lock orders (fun () ->
            for order in told.OwnOrders do
                if isLive then
                    touched.Add order.Order |> ignore

                if (isLive || not (touched.Contains order.Order)) && isNewOrder order then
                    into.OwnOrders.Add order

            for trade in told.OwnTrades do
                if isNewTrade trade then
                    into.OwnTrades.Add trade

            for rejection in told.Rejections do
                // A row that cannot be read is on its page again and again.
                if rejected.Add(Encoding.UTF8.GetString rejection.Bytes) then
                    into.Rejections.Add rejection)

    /// A poll begins: the orders that it should tell of.
    member _.Begin() : Set<string> =
        lock orders (fun () ->
            touched.Clear()
            Set.ofSeq orders.Keys)

    /// Of the orders that a poll should have told of, those that it did not, and of which nothing was heard meanwhile.
    member _.Vanished(expected: Set<string>, told: HashSet<string>) : string list =
        lock orders (fun () ->
            expected
            |> Set.filter (fun id ->
                not (told.Contains id) && not (touched.Contains id) && orders.ContainsKey id)
            |> Set.toList)

    /// Nobody knows the order any more.
    member _.Forget(id: string) =
        lock orders (fun () -> orders.Remove id |> ignore)

    /// From when on trades are to be read: behind the last that was read whole, unless one before it is still under way; everything at first.
    member _.Since(overlap: TimeSpan) : Instant voption =
        lock orders (fun () ->
            read
            |> ValueOption.map (fun read ->
                let mutable since = read

                for at in unsettled.Values do
                    if read - at < longest then
                        since <- earlier since at

                since - overlap))

    /// Every trade up to the newest was read.
    member _.ReadWhole() =
        lock orders (fun () ->
            read <- newest

            match newest with
            | ValueSome newest ->
                for KeyValue(key, at) in Seq.toArray trades do
                    if newest - at > longest + longest then
                        trades.Remove key |> ignore

                for KeyValue(key, at) in Seq.toArray unsettled do
                    if newest - at > longest then
                        unsettled.Remove key |> ignore
            | ValueNone -> ())

/// An account's own orders and trades: asked for again and again, and listened to in between. Whatever the live connection missed is asked
/// for when it is open again; what could not be asked for is, the next time, from where it was known last.
[<Sealed>]
type internal OwnAccount
    (
        part: AccountPart,
        given: Credentials,
        options: OwnOptions,
        pool: BatchPool,
        clock: TimeProvider,
        meters: Meters,
        log: ILogger
    ) =
    let exchange = string part.Exchange
    let mutable credentials = given
    // How far the exchange's clock is ahead of ours.
    let mutable ahead = TimeSpan.Zero

    let now () =
        Instant.ofDateTimeOffset (clock.GetUtcNow())

    /// The path that the exchange itself sees: whatever stands before it, such as a proxy, has its own.
    let signed method (path: string) (moment: Instant) =
        let root = options.Transport.Hosts[part.Time.Host].AbsolutePath.TrimEnd '/'

        let own =
            if path.StartsWith(root + "/", StringComparison.Ordinal) then
                path.Substring root.Length
            else
                path

        part.Sign credentials method own (moment + ahead)

    let transport =
        new Transport({ options.Transport with Sign = signed }, clock, meters, log)

    let memory = OwnMemory part
    // Asks for a poll before its time.
    let soon =
        Channel.CreateBounded<unit>(BoundedChannelOptions(1, FullMode = BoundedChannelFullMode.DropWrite))

    let hidden (fault: Fault) =
        Credentials.hide credentials (Fault.explain fault)

    let compareClocks (ct: CancellationToken) = task {
        let judge =
            Judge(fun body received ->
                match part.TimeOf body with
                | ValueSome shown -> Ok(struct (shown, received))
                | ValueNone -> Error(Fault.Undecodable(0, "the answer is no time")))

        match! transport.Ask(part.Time, judge, ct) with
        | Ok(struct (shown, received)) ->
            // Within what it is rounded to the clocks agree.
            ahead <-
                if received.Micros < shown.Since.Micros then
                    shown.Since - received
                elif received.Micros > shown.Until.Micros then
                    shown.Until - received
                else
                    TimeSpan.Zero
        | Error _ -> () // whatever is asked next says why
    }

    let derive (ct: CancellationToken) = task {
        let mutable waiting, last = part.Derive, ValueNone

        while not credentials.IsComplete && not waiting.IsEmpty do
            let judge = Judge(fun body _ -> part.Derived credentials body)

            match! transport.Ask(waiting.Head, judge, ct) with
            | Ok found ->
                credentials <- found
                last <- ValueNone
            | Error failure -> last <- ValueSome failure.Fault

            waiting <- waiting.Tail

        return last
    }

    /// Asks a question; an attempt that fails leaves nothing in the batch but what could not be read.
    let question (what: AccountAsk) (batch: Batch) (ct: CancellationToken) = task {
        let request = part.Ask what
        let latest = ref (now ())

        let judge =
            Judge(fun body received ->
                batch.Clear()
                latest.Value <- received
                part.Decode credentials what body received batch)

        match! transport.Ask(request, judge, ct) with
        | Ok next -> return Ok next
        | Error failure ->
            batch.Clear()

            match failure.Fault with
            | Fault.Undecodable(offset, reason) ->
                batch.Rejections.Add {
                    Exchange = exchange
                    Source = request.Path.Split('?')[0]
                    Offset = offset
                    Reason = reason
                    Bytes = Credentials.hideBytes credentials (Array.truncate (1 <<< 20) failure.Body)
                    Received = latest.Value
                }
            | _ -> ()

            return Error failure.Fault
    }

    let signIn (ct: CancellationToken) : Task<SignIn> = task {
        credentials <- given
        do! compareClocks ct
        let! failed = derive ct

        let refused (fault: Fault) =
            match fault with
            | Fault.Refused(status, _) ->
                SignIn.Refused
                    $"the exchange does not take the credentials of {given.Address} (status {status}): {hidden fault}"
            | fault -> SignIn.Unanswered(hidden fault)

        match failed with
        | ValueSome fault -> return refused fault
        | ValueNone ->
            let batch = pool.Rent()
            let! answer = question (AccountAsk.Orders "") batch ct
            pool.Return batch

            return
                match answer with
                | Ok _ -> SignIn.Accepted
                | Error fault -> refused fault
    }

    /// Hands on what is news in a batch, and gives the batch back.
    let handOn (store: Batch -> Task) (told: Batch) isLive : Task = task {
        meters.Add(Count.eventsReceived, "stream=own_orders", int64 told.OwnOrders.Count)
        meters.Add(Count.eventsReceived, "stream=own_trades", int64 told.OwnTrades.Count)
        let news = pool.Rent()
        news.Exchange <- exchange
        news.Received <- told.Received
        memory.News(told, isLive, news)
        pool.Return told

        if news.RowCount > 0 then
            do! store news
        else
            pool.Return news
    }

    /// Every page of something.
    let walk
        (store: Batch -> Task)
        (ask: string -> AccountAsk)
        (seeing: Batch -> unit)
        (ct: CancellationToken)
        = task {
        let seen = HashSet<string>()
        let mutable cursor, isOver, fault = "", false, ValueNone

        while not isOver do
            let batch = pool.Rent()

            match! question (ask cursor) batch ct with
            | Error failed ->
                fault <- ValueSome failed
                isOver <- true
                do! handOn store batch false
            | Ok next ->
                seeing batch
                do! handOn store batch false

                match next with
                | ValueNone -> isOver <- true
                | ValueSome next when not (seen.Add next) ->
                    fault <- ValueSome(Fault.RepeatedPage next)
                    isOver <- true
                | ValueSome next -> cursor <- next

        return fault
    }

    /// Open orders, orders that are not open any more, trades: the first fault, if there was one.
    let poll (store: Batch -> Task) (ct: CancellationToken) : Task<Fault voption> = task {
        let expected = memory.Begin()
        let told = HashSet<string>()

        let seeing (batch: Batch) =
            for order in batch.OwnOrders do
                told.Add order.Order |> ignore

        let! orders = walk store AccountAsk.Orders seeing ct
        let mutable fault = orders

        if fault.IsNone then
            for id in memory.Vanished(expected, told) do
                let batch = pool.Rent()

                match! question (AccountAsk.Order id) batch ct with
                | Ok _ ->
                    if batch.OwnOrders.Count = 0 then
                        memory.Forget id

                    do! handOn store batch false
                | Error(Fault.Refused(404, _)) ->
                    memory.Forget id
                    pool.Return batch
                | Error failed ->
                    fault <- ValueSome failed
                    do! handOn store batch false

        let since = memory.Since options.Overlap
        let! trades = walk store (fun cursor -> AccountAsk.Trades(since, cursor)) ignore ct

        if trades.IsNone then
            memory.ReadWhole()

        return fault |> ValueOption.orElse trades
    }

    // ---- the live connection

    let mutable isOpen = false

    let listenOnce (store: Batch -> Task) (address: Uri) (ct: CancellationToken) : Task<string> = task {
        use ended = CancellationTokenSource.CreateLinkedTokenSource ct
        use socket = new ClientWebSocket()
        socket.Options.KeepAliveInterval <- Timeout.InfiniteTimeSpan

        match options.Transport.Proxy with
        | Some proxy -> socket.Options.Proxy <- Proxy.make proxy
        | None -> ()

        let send (text: string) =
            socket.SendAsync(
                ReadOnlyMemory(Encoding.UTF8.GetBytes text),
                WebSocketMessageType.Text,
                true,
                ended.Token
            )

        use patience = CancellationTokenSource.CreateLinkedTokenSource ct
        patience.CancelAfter(TimeSpan.FromSeconds 10.0)
        do! socket.ConnectAsync(address, patience.Token)
        do! send (part.Channel.Open credentials)
        let heardAt = ref (clock.GetTimestamp())
        isOpen <- true
        meters.Add(Count.connects, "")
        Log.ownChannelOpened log exchange
        // What it was not there for.
        soon.Writer.TryWrite() |> ignore

        let reading () : Task<string> = task {
            let mutable buffer: byte[] = Array.zeroCreate 65_536
            let mutable held, reason = 0, ""

            while reason = "" do
                if held = buffer.Length then
                    Array.Resize(&buffer, 2 * held)

                let! piece =
                    socket.ReceiveAsync(Memory<byte>(buffer, held, buffer.Length - held), ended.Token)

                Volatile.Write(&heardAt.contents, clock.GetTimestamp())

                if piece.MessageType = WebSocketMessageType.Close then
                    reason <- $"closed by the exchange ({socket.CloseStatus})"
                elif held + piece.Count > (16 <<< 20) then
                    reason <- "a message of more than 16 MB"
                else
                    held <- held + piece.Count

                    if piece.EndOfMessage then
                        meters.Add(Count.bytesReceived, "endpoint=user", int64 held)
                        meters.Heard(now ())
                        let batch = pool.Rent()

                        let unknown =
                            part.Channel.Hear credentials (ReadOnlyMemory(buffer, 0, held)) (now ()) batch

                        meters.Add(Count.unknownMessages, "", int64 unknown)
                        held <- 0
                        do! handOn store batch true

            return reason
        }

        let pinging () : Task<string> = task {
            let every = min part.Channel.PingEvery (options.DeadAfter / 3.0)
            let mutable reason = ""

            while reason = "" do
                do! Task.Delay(every, clock, ended.Token)
                let silent = clock.GetElapsedTime(Volatile.Read &heardAt.contents)

                if silent > options.DeadAfter then
                    reason <- $"no answer to a ping for %.0f{silent.TotalSeconds} s"
                else
                    do! send part.Channel.Ping

            return reason
        }

        let both = [| reading (); pinging () |]

        try
            let! first = Task.WhenAny both
            return! first
        finally
            ended.Cancel()
            socket.Abort()

            for one in both do
                // Its end was our doing.
                one.ContinueWith(fun (one: Task<string>) -> one.Exception |> ignore) |> ignore
    }

    let listen (store: Batch -> Task) (address: Uri) (ct: CancellationToken) : Task = task {
        let mutable failures = 0

        while not ct.IsCancellationRequested do
            let mutable detail = ""

            try
                try
                    let! reason = listenOnce store address ct
                    detail <- reason
                with
                | :? OperationCanceledException when ct.IsCancellationRequested -> ()
                | :? OperationCanceledException -> detail <- "no answer within 10 s"
                | :? WebSocketException as error -> detail <- Credentials.hide credentials error.Message
            finally
                failures <- if isOpen then 1 else failures + 1
                isOpen <- false

            if not ct.IsCancellationRequested then
                meters.Add(Count.disconnects, $"cause={Cause.Disconnect}")
                Log.ownChannelLost log (failures = 1) exchange detail
                do! Task.Delay(Fault.backOff failures, clock, ct)
    }

    let ask (store: Batch -> Task) (ct: CancellationToken) : Task = task {
        let mutable isMissing, isRefused = false, false

        while not ct.IsCancellationRequested && not isRefused do
            match! poll store ct with
            | ValueNone ->
                if isMissing then
                    isMissing <- false
                    Log.ownBack log exchange
            | ValueSome fault ->
                meters.Add(Count.ownMissed, $"cause={Fault.cause fault}")
                Log.ownMissed log (not isMissing) exchange (hidden fault)
                isMissing <- true

                match fault with
                // Credentials that were derived may be derived anew; our clock may have been set.
                | Fault.Refused((401 | 403), _) ->
                    match! signIn ct with
                    | SignIn.Refused reason ->
                        isRefused <- true
                        Log.authRefused log exchange reason
                    | SignIn.Accepted
                    | SignIn.Unanswered _ -> ()
                | _ -> ()

            if not isRefused then
                use early = CancellationTokenSource.CreateLinkedTokenSource ct
                let woken = soon.Reader.WaitToReadAsync(early.Token).AsTask()
                let! _ = Task.WhenAny(woken, Task.Delay(options.Every, clock, early.Token))
                early.Cancel()
                let mutable nothing = ()
                soon.Reader.TryRead &nothing |> ignore
    }

    member _.Exchange = part.Exchange

    /// Orders of an earlier run, as they are stored.
    member _.Remember(stored: OwnOrder seq) = memory.Remember stored

    /// Says who we are, and asks whether that is taken.
    member _.SignIn(ct: CancellationToken) : Task<SignIn> = signIn ct

    /// The live connection is open.
    member _.IsOpen = isOpen

    /// Collects until it is stopped; or until the credentials are refused, which is said once.
    member _.Run(isSignedIn: bool, store: Batch -> Task, ct: CancellationToken) : Task<unit> = task {
        let mutable attempt, outcome =
            0, (if isSignedIn then ValueSome SignIn.Accepted else ValueNone)

        while outcome.IsNone do
            match! signIn ct with
            | SignIn.Unanswered detail ->
                attempt <- attempt + 1

                if attempt = 1 then
                    Log.authUnanswered log exchange detail

                do! Task.Delay(Fault.backOff attempt, clock, ct)
            | told -> outcome <- ValueSome told

        match outcome with
        | ValueSome(SignIn.Refused reason) -> Log.authRefused log exchange reason
        | _ ->
            Log.authAccepted log exchange given.Address
            use ended = CancellationTokenSource.CreateLinkedTokenSource ct
            let asking = ask store ended.Token

            let listening =
                match options.Channel with
                | Some address -> listen store address ended.Token
                | None -> Task.CompletedTask

            try
                do! asking
            finally
                ended.Cancel()

            do! listening
    }

    interface IDisposable with
        member _.Dispose() = (transport :> IDisposable).Dispose()
