namespace Tributary.Server.Simulator

open System
open System.Collections.Generic
open System.Text

/// What goes out on a connection.
[<Struct>]
type internal Frame = {
    /// The simulated microsecond at which it is sent.
    At: int64
    /// UTF-8; shared between connections, not to be changed.
    Payload: byte[]
    /// 0 for a text; otherwise the connection ends with this code, and without a farewell when it is 1006.
    Close: int
}

[<RequireQualifiedAccess>]
type internal MessageKind =
    | PriceChange
    | Book
    | Trade
    | Best
    | Tick

/// One event of a market, rendered once for all connections.
[<Sealed>]
type internal Message(kind: MessageKind, token: int, payload: byte[]) =
    member _.Kind = kind
    /// The token 0 or 1; -1 for both.
    member _.Token = token
    member _.Payload = payload
    /// A price change in its form before 2025-09, for each token; empty when nobody wants it.
    member val Old: byte[][] = [||] with get, set

/// A connection's interest in a market.
[<Sealed>]
type internal Listener(market: Market, audience: IAudience) =
    member _.Market = market
    member _.Audience = audience
    member val Wants = [| false; false |]
    /// Tokens that get no book.
    member val Withheld = [| false; false |]
    /// Tokens whose first book is late.
    member val Awaits = [| false; false |]
    /// Tokens of which nothing is told.
    member val Silent = [| false; false |]
    /// The instant of the last message.
    member val Heard = Int64.MinValue with get, set
    /// A message that waits for so many successors.
    member val Held: Message voption = ValueNone with get, set
    member val Successors = 0 with get, set
    /// The instant before which no trade is told.
    member val TradesFrom = Int64.MinValue with get, set

/// A connection as the channel sees it.
and internal IAudience =
    abstract Deliver: Listener * Message -> unit
    /// `new_market` or `market_resolved`.
    abstract Announce: Announcement * payload: byte[] -> unit
    abstract WantsOld: bool

/// Somebody who hears what happens in a market as it happens, to tell it in words of their own.
type internal IWitness =
    /// A moment: the changes from `first` to `last`.
    abstract Happened: Market * changes: List<Change> * first: int * last: int * at: int64 -> unit
    /// A market appeared or resolved.
    abstract Announced: Announcement -> unit

/// A market that somebody listens to.
[<Sealed>]
type internal Hall(market: Market) =
    member _.Market = market
    /// For those who listen; none while there are only witnesses.
    member val Telling: Telling voption = ValueNone with get, set
    member val Listeners = List<Listener>()
    member val Witnesses = List<IWitness>()

/// Events of all markets as JSON.
module internal EventJson =
    let private put (ink: Ink) (text: string) = ink.Put(Encoding.UTF8.GetBytes text)

    let millis at = string (Micros.toMilliseconds at)

    /// A text that needs escapes, quoted.
    let private quoted (text: string) = Text.Json.JsonSerializer.Serialize text

    let private list (items: string[]) =
        "[" + String.Join(",", Array.map quoted items) + "]"

    let lastTrade (market: Market) (fill: Fill) (printed: string) at =
        let info = market.Info
        let fee = if info.Index % 7 = 0 then "" else "0"
        let side = if fill.Buys then "BUY" else "SELL"

        Encoding.UTF8.GetBytes
            $"{{\"market\":\"{info.Condition}\",\"asset_id\":\"{info.Tokens[fill.Token]}\",\"price\":\"{printed}\",\"size\":\"{Millionths.text fill.Size}\",\"fee_rate_bps\":\"{fee}\",\"side\":\"{side}\",\"timestamp\":\"{millis at}\",\"event_type\":\"last_trade_price\",\"transaction_hash\":\"{market.TransactionHash fill}\"}}"

    let tickSize (info: MarketInfo) token before after at =
        Encoding.UTF8.GetBytes
            $"{{\"market\":\"{info.Condition}\",\"asset_id\":\"{info.Tokens[token]}\",\"old_tick_size\":\"{Millionths.text before}\",\"new_tick_size\":\"{Millionths.text after}\",\"timestamp\":\"{millis at}\",\"event_type\":\"tick_size_change\"}}"

    let announcement (announced: Announcement) =
        let market = announced.Market
        let info = market.Info
        let event = info.Event
        let tags = event.Tags |> Array.map _.Slug |> list
        let tokens = list info.Tokens
        let ink = Ink()

        if announced.IsNew then
            let title = quoted info.Title

            let description =
                quoted $"This market resolves to the outcome of \"{info.Title}\".\n"

            put
                ink
                $"{{\"id\":\"{info.Id}\",\"question\":{title},\"market\":\"{info.Condition}\",\"slug\":\"{info.Slug}\",\"description\":{description},\"assets_ids\":{tokens},\"outcomes\":{list info.Outcomes},"

            put
                ink
                $"\"event_message\":{{\"id\":\"{event.Id}\",\"ticker\":\"{event.Slug}\",\"slug\":\"{event.Slug}\",\"title\":{quoted event.Title},\"description\":{description}}},\"timestamp\":\"{millis announced.At}\",\"tags\":{tags},"

            let gameStart =
                match info.Game with
                | ValueSome at -> at.UtcDateTime.ToString "yyyy-MM-dd HH:mm:ss+00"
                | ValueNone -> ""

            let sports = if info.Game.IsSome then "moneyline" else ""

            put
                ink
                $"\"condition_id\":\"{info.Condition}\",\"active\":true,\"clob_token_ids\":{tokens},\"sports_market_type\":\"{sports}\",\"line\":\"\",\"game_start_time\":\"{gameStart}\",\"order_price_min_tick_size\":\"{Millionths.text market.Tick}\",\"group_item_title\":{quoted info.GroupTitle},"

            put
                ink
                "\"taker_base_fee\":\"0\",\"fees_enabled\":false,\"fee_schedule\":{\"exponent\":\"0\",\"rate\":\"0\",\"taker_only\":true,\"rebate_rate\":\"0\"},\"event_type\":\"new_market\"}"
        else
            put
                ink
                $"{{\"id\":\"{info.Id}\",\"market\":\"{info.Condition}\",\"assets_ids\":{tokens},\"winning_asset_id\":\"{info.Tokens[market.Winner]}\",\"winning_outcome\":{quoted info.Outcomes[market.Winner]},\"timestamp\":\"{millis announced.At}\",\"tags\":{tags},\"event_type\":\"market_resolved\"}}"

        ink.Take()

/// The channel behind all connections: plays the world and tells each market's changes, in the order of their instants,
/// to those who listen. Used under the world's lock.
[<Sealed>]
type internal Hub(world: World, isResolving: unit -> bool) =
    let halls = Dictionary<int, Hall>()
    let audiences = List<IAudience>()
    let watchers = List<IWitness>()
    // Actions at instants to come, in the order of instant and of asking.
    let timers = PriorityQueue<int64 -> unit, struct (int64 * int64)>()
    let moments = List<struct (int64 * int * int * int)>()
    let ink = Ink()
    let old = [| Ink(); Ink() |]
    let mutable asked = 0L
    let mutable announced = 0
    let mutable now = world.Advanced

    let byInstant =
        Comparison(fun struct (at, market, first, _) struct (at', market', first', _) ->
            if at <> at' then compare (at: int64) at'
            elif market <> market' then compare (market: int) market'
            else compare (first: int) first')

    let tell (hall: Hall) message =
        // By index: a listener may close its connection and leave.
        for i in hall.Listeners.Count - 1 .. -1 .. 0 do
            if i < hall.Listeners.Count then
                let listener = hall.Listeners[i]
                listener.Audience.Deliver(listener, message)

    let heads (info: MarketInfo) =
        ink.Put Part.market
        ink.Put(ReadOnlySpan(Encoding.ASCII.GetBytes info.Condition))

    let side isBid token =
        if isBid = (token = 0) then Part.buy else Part.sell

    let priceChange (hall: Hall) (telling: Telling) (changes: List<Change>) first last at =
        let info = telling.Market.Info
        let wantsOld = hall.Listeners.Exists _.Audience.WantsOld
        ink.Clear()
        heads info
        ink.Put Part.priceChanges

        if wantsOld then
            old[0].Clear()
            old[1].Clear()

        for i in first..last do
            let change = changes[i]
            let isBid = telling.Level(change.Price, change.Value, at)
            let size = abs change.Value

            for token in 0..1 do
                if i > first || token > 0 then
                    ink.Put Part.comma

                ink.Put Part.assetId
                ink.Put(telling.TokenText token)
                ink.Put Part.quotedPrice
                ink.Put(telling.Price(change.Price, token))
                ink.Put Part.size
                ink.Decimal size
                ink.Put(side isBid token)
                ink.Put(telling.Hash token)
                ink.Put Part.bestBid
                ink.Put(telling.BestBid token)
                ink.Put Part.bestAsk
                ink.Put(telling.BestAsk token)
                ink.Put Part.quoteEnd

                if wantsOld then
                    let old = old[token]

                    if i > first then
                        old.Put Part.comma

                    old.Put Part.onlyPrice
                    old.Put(telling.Price(change.Price, token))
                    old.Put Part.size
                    old.Decimal size
                    old.Put(if isBid = (token = 0) then Part.onlyBuy else Part.onlySell)

        ink.Put Part.timestamp
        ink.Whole(Micros.toMilliseconds at)
        ink.Put Part.priceChangeEnd
        let message = Message(MessageKind.PriceChange, -1, ink.Take())

        if wantsOld then
            message.Old <-
                Array.init 2 (fun token ->
                    ink.Clear()
                    heads info
                    ink.Put Part.commaAssetId
                    ink.Put(telling.TokenText token)
                    ink.Put Part.quotedTimestamp
                    ink.Whole(Micros.toMilliseconds at)
                    ink.Put Part.hash
                    ink.Put(telling.Hash token)
                    ink.Put Part.changes
                    ink.Put(old[token].Written)
                    ink.Put Part.changesEnd
                    ink.Take())

        tell hall message

    /// Trades, then new ticks, then both books.
    let refresh (hall: Hall) (telling: Telling) (changes: List<Change>) first last at =
        let market = telling.Market
        telling.Touch at

        for i in first..last do
            let change = changes[i]

            match change.Kind with
            | ChangeKind.Level -> telling.Level(change.Price, change.Value, at) |> ignore
            | ChangeKind.Fill ->
                let fill = market.Fills[int change.Value]
                let struct (_, printed) = market.Tell (int change.Value) telling.Tick
                telling.Fill(fill.Token, printed)
                tell hall (Message(MessageKind.Trade, fill.Token, EventJson.lastTrade market fill printed at))
            | _ when change.Value <> telling.Tick ->
                let before = telling.Tick
                telling.Retick change.Value

                for token in 0..1 do
                    let payload = EventJson.tickSize market.Info token before change.Value at
                    tell hall (Message(MessageKind.Tick, token, payload))
            | _ -> ()

        for token in 0..1 do
            ink.Clear()
            telling.Book(ink, token, false)
            tell hall (Message(MessageKind.Book, token, ink.Take()))

    let bests (hall: Hall) (telling: Telling) at =
        let struct (bid, ask) = telling.Bests

        let spread = if bid < 0 || ask < 0 then 0L else int64 (ask - bid)

        for token in 0..1 do
            ink.Clear()
            heads telling.Market.Info
            ink.Put Part.commaAssetId
            ink.Put(telling.TokenText token)
            ink.Put Part.bestBid
            ink.Put(telling.BestBid token)
            ink.Put Part.bestAsk
            // Here a side that is empty is "0", whichever it is.
            ink.Put(
                if (if token = 0 then ask else bid) < 0 then
                    Part.zero
                else
                    telling.BestAsk token
            )

            ink.Put Part.spread

            if spread < 0L then
                ink.Put Part.minus

            ink.Decimal(abs spread)
            ink.Put Part.quotedTimestamp
            ink.Whole(Micros.toMilliseconds at)
            ink.Put Part.bestEnd
            tell hall (Message(MessageKind.Best, token, ink.Take()))

    let render (hall: Hall) (telling: Telling) (changes: List<Change>) first last at =
        let struct (bid, ask) = telling.Bests
        let mutable isPlain = true

        for i in first..last do
            isPlain <- isPlain && changes[i].Kind = ChangeKind.Level

        if isPlain then
            priceChange hall telling changes first last at
        elif changes[last].Kind <> ChangeKind.Resolved then
            refresh hall telling changes first last at

        let struct (bid', ask') = telling.Bests

        if bid <> bid' || ask <> ask' then
            bests hall telling at

    let play (hall: Hall) (changes: List<Change>) first last at =
        // By index: a witness may close its connection and leave.
        for i in hall.Witnesses.Count - 1 .. -1 .. 0 do
            if i < hall.Witnesses.Count then
                hall.Witnesses[i].Happened(hall.Market, changes, first, last, at)

        match hall.Telling with
        | ValueSome telling -> render hall telling changes first last at
        | ValueNone -> ()

    /// The hall of a market, opened for the first who comes. Everything must have been told until now.
    let hallOf (market: Market) =
        match halls.TryGetValue market.Info.Index with
        | true, hall -> hall
        | _ ->
            let hall = Hall market
            market.Followed <- ValueSome(List())
            halls[market.Info.Index] <- hall
            hall

    let closeIfEmpty (hall: Hall) =
        if hall.Listeners.Count = 0 then
            hall.Telling <- ValueNone

            if hall.Witnesses.Count = 0 then
                halls.Remove hall.Market.Info.Index |> ignore
                hall.Market.Followed <- ValueNone

    let runTimers until =
        let mutable isDue = true

        while isDue do
            match timers.TryPeek() with
            | true, _, struct (at, _) when at <= until ->
                let act = timers.Dequeue()
                now <- max now at
                act at
            | _ -> isDue <- false

    /// The instant that is being told.
    member _.Now = now

    /// Plays the world until this instant, in microseconds, and tells all that happened.
    member _.Advance(until: int64) =
        world.Advance(until, isResolving ())
        let until = max until world.Advanced
        moments.Clear()

        for pair in halls do
            match pair.Value.Market.Followed with
            | ValueSome fresh ->
                let mutable first = 0

                for i in 0 .. fresh.Count - 1 do
                    if fresh[i].Ends then
                        moments.Add(struct (fresh[i].At, pair.Key, first, i))
                        first <- i + 1
            | ValueNone -> ()

        while announced < world.Announced.Count do
            moments.Add(struct (world.Announced[announced].At, Int32.MaxValue, announced, 0))
            announced <- announced + 1

        moments.Sort byInstant

        for struct (at, market, first, last) in moments do
            runTimers at
            now <- max now at

            if market = Int32.MaxValue then
                let news = world.Announced[first]

                for i in watchers.Count - 1 .. -1 .. 0 do
                    if i < watchers.Count then
                        watchers[i].Announced news

                let payload =
                    if audiences.Count > 0 then
                        EventJson.announcement news
                    else
                        [||]

                for i in audiences.Count - 1 .. -1 .. 0 do
                    if i < audiences.Count then
                        audiences[i].Announce(news, payload)
            else
                match halls.TryGetValue market with
                | true, hall ->
                    match hall.Market.Followed with
                    | ValueSome fresh -> play hall fresh first last at
                    | ValueNone -> ()
                | _ -> ()

        for pair in halls do
            pair.Value.Market.Followed |> ValueOption.iter _.Clear()

        if until > now then
            runTimers until
            now <- max now until

    /// Does something at an instant to come.
    member _.At(instant: int64, act: int64 -> unit) =
        asked <- asked + 1L
        timers.Enqueue(act, struct (max instant now, asked))

    /// Everything must have been told until now.
    member _.Enter(listener: Listener) =
        let hall = hallOf listener.Market

        if hall.Telling.IsNone then
            hall.Telling <- ValueSome(Telling listener.Market)

        hall.Listeners.Add listener

    member _.Leave(listener: Listener) =
        match halls.TryGetValue listener.Market.Info.Index with
        | true, hall ->
            hall.Listeners.Remove listener |> ignore
            closeIfEmpty hall
        | _ -> ()

    /// Everything must have been told until now.
    member _.Witness(market: Market, witness: IWitness) = (hallOf market).Witnesses.Add witness

    member _.Unwitness(market: Market, witness: IWitness) =
        match halls.TryGetValue market.Info.Index with
        | true, hall ->
            hall.Witnesses.Remove witness |> ignore
            closeIfEmpty hall
        | _ -> ()

    member _.Telling(market: Market) = halls[market.Info.Index].Telling.Value
    member _.Join(audience: IAudience) = audiences.Add audience
    member _.Quit(audience: IAudience) = audiences.Remove audience |> ignore
    member _.Watch(witness: IWitness) = watchers.Add witness
    member _.Unwatch(witness: IWitness) = watchers.Remove witness |> ignore
    member _.World = world
