namespace Tributary.Server

open System
open System.Collections.Concurrent
open System.Collections.Generic
open System.IO
open System.Net
open System.Text
open System.Text.Json
open System.Threading
open System.Threading.Tasks
open Microsoft.AspNetCore.Http
open Tributary
open Tributary.Stores

/// The web page of a running collector: its files, and what they ask for. It reads through a connection of its own, so that looking disturbs
/// no collecting. Disposing it closes that.
[<Sealed>]
type Web(engine: Engine, store: Store, clock: TimeProvider) =
    static let files =
        let read name kind =
            use stream =
                typeof<Web>.Assembly.GetManifestResourceStream $"Tributary.Server.Web.{name}"
                |> Option.ofObj
                |> Option.get

            use bytes = new MemoryStream()
            stream.CopyTo bytes
            struct (kind, bytes.ToArray())

        Map.ofList [
            "/", read "index.html" "text/html; charset=utf-8"
            "/page.js", read "page.js" "text/javascript; charset=utf-8"
            "/page.css", read "page.css" "text/css; charset=utf-8"
        ]

    let depth, mostTrades, mostGaps, mostLines, mostListeners = 10, 200, 200, 200, 50
    let listeners = ref 0

    let now () =
        Instant.ofDateTimeOffset (clock.GetUtcNow())

    // Answers that many may ask for at once are made once in a while, however many ask.
    let made = ConcurrentDictionary<string, struct (Instant * Task<objnull>)>()

    /// The value, and when making it began: it knows of nothing later.
    let stamped (key: string) (age: TimeSpan) (make: unit -> Task<'T>) : Task<struct (Instant * 'T)> = task {
        let boxed () = task {
            let! value = make ()
            return box value
        }

        let struct (began, making) =
            lock made (fun () ->
                match made.TryGetValue key with
                // What is slow to be made is waited for, and not made twice.
                | true, struct (at, making) when
                    not making.IsCompleted || (making.IsCompletedSuccessfully && now () - at < age)
                    ->
                    struct (at, making)
                | _ ->
                    // What is old is let go, so that markets that nobody looks at any more are.
                    for KeyValue(other, struct (at, _)) in made.ToArray() do
                        if now () - at > TimeSpan.FromMinutes 1.0 then
                            made.TryRemove other |> ignore

                    let fresh = struct (now (), boxed ())
                    made[key] <- fresh
                    fresh)

        let! value = making
        return struct (began, unbox<'T> value)
    }

    let cached key age (make: unit -> Task<'T>) : Task<'T> = task {
        let! struct (_, value) = stamped key age make
        return value
    }

    /// What is stored of markets, by their slugs.
    let known () : Task<Map<string, Market>> =
        cached "markets" (TimeSpan.FromSeconds 10.0) (fun () -> task {
            let! markets = store.Markets()
            return markets |> List.map (fun market -> market.Slug, market) |> Map.ofList
        })

    let number (millionths: int64) = float millionths / 1e6

    let levels (levels: Level[]) = [|
        for level in Array.truncate depth levels ->
            [| number level.Price.Millionths; number level.Size.Millionths |]
    |]

    let marketOf (slug: string) : Task<Market option> = task {
        let! markets = known ()
        return Map.tryFind slug markets
    }

    let bookOf (token: TokenId) = task {
        let! extent = Rebuild.extent store token
        let! struct (_, book) = Rebuild.newestBook store extent

        return
            match book with
            | BookAt.Known book -> {|
                at = Instant.text book.At
                verdict = Verdict.text book.Verdict
                why = ""
                bids = levels book.Bids
                asks = levels book.Asks
              |}
            | BookAt.NotKnown(_, _, why) -> {|
                at = ""
                verdict = "unknown"
                why = string why
                bids = [||]
                asks = [||]
              |}
    }

    let tradeOf (trade: Trade) = {|
        at = Instant.text trade.At
        outcome = trade.Outcome
        side = Side.text trade.Side
        price = number trade.Price.Millionths
        size = number trade.Size.Millionths
    |}

    let booksNow (market: Market) = task {
        let found = List<obj>()

        for outcome in market.Outcomes do
            match outcome.Token with
            | ValueSome token ->
                let! book = bookOf token

                found.Add {|
                    outcome = outcome.Name
                    book = book
                |}
            | ValueNone -> ()

        return found.ToArray()
    }

    /// The same to all who look at a market, and rebuilt twice a second at most.
    let books (market: Market) : Task<struct (Instant * obj[])> =
        stamped $"books {market.Exchange} {market.Market}" (TimeSpan.FromMilliseconds 400.0) (fun () ->
            booksNow market)

    let marketAnswer (market: Market) = task {
        let! trades =
            store.Trades {
                Query.everything with
                    Exchange = ValueSome market.Exchange
                    Market = ValueSome market.Market
                    Limit = mostTrades
                    Latest = true
            }

        let! struct (_, books) = books market

        return
            Answers.json {|
                slug = market.Slug
                question = market.Question
                status = string market.Status
                books = books
                trades = [ for trade in trades -> tradeOf trade ]
            |}
    }

    /// The last prices of the first outcome of each of the markets with the most trades.
    let prices () = task {
        let! markets = known ()

        let busiest =
            engine.Pulse().Markets
            |> List.sortByDescending _.Trades
            |> List.choose (fun market -> Map.tryFind market.Slug markets)
            |> List.truncate mostLines

        let found = Dictionary<string, float list>()

        for market in busiest do
            match market.Outcomes |> Seq.tryHead with
            | Some first when first.Token.IsSome ->
                let! trades =
                    store.Trades {
                        Query.everything with
                            Exchange = ValueSome market.Exchange
                            Market = ValueSome market.Market
                            Token = first.Token
                            Limit = 60
                            Latest = true
                    }

                if not trades.IsEmpty then
                    found[market.Slug] <- [ for trade in trades -> number trade.Price.Millionths ]
            | _ -> ()

        return Answers.json found
    }

    let gapsSince (since: Instant) =
        store.Gaps {
            Query.everything with
                Since = since
                Until = now ()
        }

    let gaps () = task {
        let! markets = known ()

        let slugs = Dictionary<string, string>()

        for market in markets.Values do
            slugs[string market.Market] <- market.Slug

        let! found = gapsSince (now () - TimeSpan.FromDays 7.0)

        let latest =
            found
            |> List.sortByDescending (fun one -> struct (one.Gap.Until.IsNone, one.Gap.Since))
            |> List.truncate mostGaps

        return
            Answers.json [
                for one in latest ->
                    {|
                        market =
                            (match slugs.TryGetValue(string one.Gap.Market) with
                             | true, slug -> slug
                             | _ -> string one.Gap.Market)
                        stream = string one.Gap.Stream
                        cause = string one.Gap.Cause
                        since = Instant.text one.Gap.Since
                        until = one.Gap.Until |> ValueOption.map Instant.text
                        healed_by = one.Gap.Healed |> ValueOption.map (fun (struct (_, by)) -> by)
                    |}
            ]
    }

    let days = 60

    let calendar () = task {
        let now = now ()
        let day = TimeSpan.FromDays 1.0
        let midnight = Instant.ofMicros (now.Micros / 86_400_000_000L * 86_400_000_000L)
        let sinceDay = midnight - day * float (days - 1)
        let! status = store.Status()
        let! found = gapsSince sinceDay

        let holes =
            found
            // What was fetched after all is whole.
            |> List.filter (fun one -> one.Gap.Healed.IsNone)
            |> List.groupBy (fun one -> string one.Gap.Market)
            |> List.map (fun (market, gaps) ->
                market,
                [
                    for one in gaps ->
                        ({
                            Since = one.Gap.Since
                            Until = ValueOption.defaultValue now one.Gap.Until
                        }
                        : Interval)
                ])
            |> Map.ofList

        let markets: CalendarMarket list = [
            for market in status.Markets do
                let firsts =
                    [ market.FirstTrade; market.FirstBook; market.FirstDelta ]
                    |> List.choose ValueOption.toOption
                    |> fun firsts -> firsts @ [ for checkpoint in market.Checkpoints -> checkpoint.Since ]

                match firsts with
                | [] -> ()
                | firsts -> {
                    Since = List.min firsts
                    Gaps = holes |> Map.tryFind (string market.Market) |> Option.defaultValue []
                  }
        ]

        let text (spans: Covered[]) =
            spans
            |> Array.map (fun covered ->
                match covered with
                | Covered.Whole -> 'w'
                | Covered.Partly -> 'p'
                | Covered.Nothing -> 'n')
            |> String

        let minute = TimeSpan.FromMinutes 1.0

        // Whole hours, the one that is running the last.
        let sinceMinute =
            Instant.ofMicros (now.Micros / 3_600_000_000L * 3_600_000_000L)
            - TimeSpan.FromHours 23.0

        return
            Answers.json {|
                first_day = Instant.text sinceDay
                days = text (Calendar.spans day { Since = sinceDay; Until = now } markets)
                first_minute = Instant.text sinceMinute
                minutes = text (Calendar.spans minute { Since = sinceMinute; Until = now } markets)
            |}
    }

    /// The books and trades of a market as they change, as server-sent events: the books twice a second at most.
    let events (market: Market) (context: HttpContext) : Task = task {
        let ct = context.RequestAborted
        context.Response.ContentType <- "text/event-stream"
        context.Response.Headers.CacheControl <- "no-store"

        let isOfMarket event =
            match event with
            | MarketEvent.Trade trade -> trade.Market = market.Market
            | MarketEvent.Book book -> book.Market = market.Market
            | MarketEvent.Delta delta -> delta.Market = market.Market
            | MarketEvent.Gap gap -> gap.Market = market.Market
            | MarketEvent.Market _ -> false

        let send (kind: string) (value: obj) = task {
            let text = JsonSerializer.Serialize value
            do! context.Response.WriteAsync($"event: {kind}\ndata: {text}\n\n", ct)
            do! context.Response.Body.FlushAsync ct
        }

        let pause = TimeSpan.FromMilliseconds 500.0
        let heard = engine.Subscribe(10_000, isOfMarket)

        use _ = {
            new IDisposable with
                member _.Dispose() = engine.Unsubscribe heard
        }

        let mutable isOver = false
        // When something was heard that no book that was sent knows of.
        let mutable changed = ValueSome(now ())

        try
            while not isOver do
                match changed with
                | ValueSome since ->
                    let! struct (began, latest) = books market
                    do! send "books" latest

                    if began >= since then
                        changed <- ValueNone
                | ValueNone -> ()

                use soon = CancellationTokenSource.CreateLinkedTokenSource ct
                soon.CancelAfter(if changed.IsSome then pause else TimeSpan.FromSeconds 15.0)

                let! more = task {
                    try
                        let! more = heard.WaitToReadAsync soon.Token
                        return ValueSome more
                    with :? OperationCanceledException when not ct.IsCancellationRequested ->
                        return ValueNone
                }

                match more with
                | ValueSome false -> isOver <- true
                | ValueNone when changed.IsSome -> ()
                | ValueNone ->
                    // So that whoever is gone is noticed.
                    do! context.Response.WriteAsync(": nothing happened\n\n", ct)
                    do! context.Response.Body.FlushAsync ct
                | ValueSome true ->
                    let trades = List<obj>()
                    let mutable event = Unchecked.defaultof<MarketEvent>

                    while heard.TryRead &event do
                        match event with
                        | MarketEvent.Trade trade -> trades.Add(tradeOf trade)
                        | _ -> changed <- ValueSome(now ())

                    if trades.Count > 0 then
                        do! send "trades" (trades.ToArray())

                    do! Task.Delay(pause, clock, ct)
        with
        | :? OperationCanceledException -> ()
        | :? OverflowException -> () // it fell behind: the page asks anew
    }

    /// Whether a path is one of the page's files, which hold nothing of the collector.
    static member internal IsFile(path: string) = files.ContainsKey path

    static member internal File(path: string, context: HttpContext) : Task =
        let struct (kind, bytes) = files[path]
        context.Response.ContentType <- kind
        context.Response.ContentLength <- bytes.Length

        if HttpMethods.IsHead context.Request.Method then
            Task.CompletedTask
        else
            context.Response.Body.WriteAsync(ReadOnlyMemory bytes).AsTask()

    /// Answers what the page asks for.
    member internal _.Handle(path: string, context: HttpContext) : Task = task {
        let reply (code: int) (body: string) =
            context.Response.StatusCode <- code
            context.Response.ContentType <- "application/json"
            context.Response.WriteAsync body

        let ofMarket (work: Market -> Task<unit>) = task {
            let slug = string context.Request.Query["slug"]

            match! marketOf slug with
            | Some market -> do! work market
            | None ->
                do!
                    reply
                        404
                        (Answers.json {|
                            error = $"nothing is stored of '{slug}'"
                        |})
        }

        match path with
        | "/web/market" ->
            do!
                ofMarket (fun market -> task {
                    let! body = marketAnswer market
                    do! reply 200 body
                })
        | "/web/events" ->
            if Interlocked.Increment listeners > mostListeners then
                Interlocked.Decrement listeners |> ignore

                do!
                    reply
                        503
                        (Answers.json {|
                            error = $"{mostListeners} pages listen already"
                        |})
            else
                try
                    do!
                        ofMarket (fun market -> task {
                            try
                                do! events market context
                            with :? OperationCanceledException ->
                                ()
                        })
                finally
                    Interlocked.Decrement listeners |> ignore
        | "/web/prices" ->
            let! body = cached path (TimeSpan.FromSeconds 5.0) prices
            do! reply 200 body
        | "/web/gaps" ->
            let! body = cached path (TimeSpan.FromSeconds 5.0) gaps
            do! reply 200 body
        | "/web/calendar" ->
            let! body = cached path (TimeSpan.FromSeconds 20.0) calendar
            do! reply 200 body
        | _ ->
            do!
                reply
                    404
                    (Answers.json {|
                        error = "the page asks for nothing else"
                    |})
    }

    /// The page of an engine over the store that its settings name; an error when that cannot be opened to read (a store in memory cannot).
    static member Open(engine: Engine, clock: TimeProvider) : Result<Web, string> =
        match engine.Settings.Store.Kind with
        | "memory" -> Error "a store in memory cannot be looked into"
        | _ ->
            Setup.openStoreToRead engine.Settings
            |> Result.map (fun store -> new Web(engine, store, clock))
            |> Result.mapError string

    interface IAsyncDisposable with
        member _.DisposeAsync() = store.Close()
