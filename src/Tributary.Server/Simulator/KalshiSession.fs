namespace Tributary.Server.Simulator

open System
open System.Buffers
open System.Collections.Generic
open System.Text.Encodings.Web
open System.Text.Json

/// A JSON object as a frame's bytes.
module internal FrameJson =
    let write (members: Utf8JsonWriter -> unit) : byte[] =
        let buffer = ArrayBufferWriter<byte> 1024

        use writer =
            new Utf8JsonWriter(
                buffer,
                JsonWriterOptions(
                    Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
                    SkipValidation = true
                )
            )

        writer.WriteStartObject()
        members writer
        writer.WriteEndObject()
        writer.Flush()
        buffer.WrittenSpan.ToArray()

/// A refused command: its code among those of the protocol, and for people why.
exception internal Declined of code: int * message: string * market: string

/// One subscription to one channel.
[<Sealed>]
type internal Subscription(sid: int, channel: string, isYesScale: bool) =
    member _.Sid = sid
    member _.Channel = channel
    /// Prices of NO are told in those of YES.
    member _.IsYesScale = isYesScale
    /// The number of the last message: they are counted over all markets.
    member val Sequence = 0 with get, set
    /// Empty, of a channel that may be without: all.
    member val Markets = Dictionary<string, Market>()
    /// A message that waits for so many successors.
    member val Held: byte[] voption = ValueNone with get, set
    member val Successors = 0 with get, set

/// One connection of Kalshi's WebSocket v2 (AsyncAPI 2.0.0): order books, trades and the life of markets. What it hears and the
/// instants to which it is advanced decide its frames.
[<Sealed>]
type internal KalshiSession(hub: Hub, number: int, rate: float) as this =
    let world = hub.World
    let random = Dice.Keyed(int64 world.Seed, 31L, int64 number)
    let outlet = Outlet(hub, number, random)
    let subscriptions = List<Subscription>()
    let mutable lastSid = 0

    // (signed total by price) of every market whose changes are told, in the frame of YES.
    let books = Dictionary<int, Dictionary<int, int64>>()

    let marketId (market: Market) = Dialect.uuid world.Seed market.Info

    do
        outlet.GiveUp <-
            fun () ->
                for pair in books do
                    hub.Unwitness(world.Markets[pair.Key], this)

                books.Clear()
                hub.Unwatch this

    let send (payload: byte[]) = outlet.Send payload |> ignore

    let release (subscription: Subscription) =
        match subscription.Held with
        | ValueSome payload ->
            subscription.Successors <- subscription.Successors - 1

            if subscription.Successors <= 0 then
                subscription.Held <- ValueNone
                send payload
        | ValueNone -> ()

    /// A numbered message, for all that may befall it.
    let tell (subscription: Subscription) (tokens: string[]) (members: Utf8JsonWriter -> unit) =
        if outlet.Mood = Mood.Open then
            subscription.Sequence <- subscription.Sequence + 1
            let place = $"sid {subscription.Sid} seq {subscription.Sequence}"

            let payload =
                FrameJson.write (fun writer ->
                    members writer
                    writer.WriteNumber("sid", subscription.Sid)
                    writer.WriteNumber("seq", subscription.Sequence))

            if outlet.Has StreamFault.Dropped && random.Chance rate then
                outlet.Inject(StreamFault.Dropped, tokens, true, place)
            elif
                outlet.Has StreamFault.Reordered
                && subscription.Held.IsNone
                && random.Chance rate
            then
                subscription.Held <- ValueSome payload
                subscription.Successors <- random.Between(1, 3)

                outlet.Inject(
                    StreamFault.Reordered,
                    tokens,
                    true,
                    $"{place} after {subscription.Successors} more"
                )
            else
                send payload

                if outlet.Has StreamFault.Duplicated && random.Chance rate then
                    outlet.Inject(StreamFault.Duplicated, tokens, false, place)
                    send payload

                release subscription

    let bookOf (market: Market) =
        match books.TryGetValue market.Info.Index with
        | true, book -> book
        | _ ->
            let book = Dictionary<int, int64>()

            for step in 1 .. market.Book.Steps - 1 do
                if market.Book.Signed step <> 0L then
                    book[int (market.Book.Price step)] <- market.Book.Signed step

            books[market.Info.Index] <- book
            hub.Witness(market, this)
            book

    /// Nobody needs what nobody is told of.
    let forget (market: Market) =
        if subscriptions.TrueForAll(fun one -> not (one.Markets.ContainsKey market.Info.Condition)) then
            if books.Remove market.Info.Index then
                hub.Unwitness(market, this)

    let writeMarket (writer: Utf8JsonWriter) (market: Market) =
        writer.WriteString("market_ticker", market.Info.Condition)
        writer.WriteString("market_id", marketId market)

    /// NO's price, on the scale that was asked for.
    let ofNo (subscription: Subscription) (price: int64) =
        if subscription.IsYesScale then
            price
        else
            Millionths.one - price

    let snapshot (subscription: Subscription) (market: Market) =
        let book = bookOf market

        let side (writer: Utf8JsonWriter) (name: string) (levels: struct (int64 * int64)[]) =
            // A side without levels is left out.
            if levels.Length > 0 then
                writer.Array(
                    name,
                    levels,
                    fun struct (price, size) ->
                        writer.WriteStartArray()
                        writer.WriteStringValue(Kalshi.dollars price)
                        writer.WriteStringValue(Kalshi.count size)
                        writer.WriteEndArray()
                )

        tell subscription market.Info.Tokens (fun writer ->
            writer.WriteString("type", "orderbook_snapshot")
            writer.WriteStartObject "msg"
            writeMarket writer market

            side writer "yes_dollars_fp" [|
                for pair in book |> Seq.sortBy _.Key do
                    if pair.Value > 0L then
                        struct (int64 pair.Key, pair.Value)
            |]

            // The best last, whatever the scale.
            side writer "no_dollars_fp" [|
                for pair in book |> Seq.sortByDescending _.Key do
                    if pair.Value < 0L then
                        struct (ofNo subscription (int64 pair.Key), -pair.Value)
            |]

            writer.WriteEndObject())

    let delta (subscription: Subscription) (market: Market) isYes (price: int64) (change: int64) at =
        tell subscription market.Info.Tokens (fun writer ->
            writer.WriteString("type", "orderbook_delta")
            writer.WriteStartObject "msg"
            writeMarket writer market

            writer.WriteString(
                "price_dollars",
                Kalshi.dollars (if isYes then price else ofNo subscription price)
            )

            let sign = if change < 0L then "-" else ""
            writer.WriteString("delta_fp", sign + Kalshi.count (abs change))
            writer.WriteString("side", (if isYes then "yes" else "no"))
            // Sometimes the milliseconds are missing.
            writer.WriteString("ts", Kalshi.iso (Micros.toDate at))

            if market.Info.Index % 10 <> 9 then
                writer.WriteNumber("ts_ms", Micros.toMilliseconds at)

            writer.WriteEndObject())

    let trade (subscription: Subscription) (market: Market) (fill: Fill) =
        tell subscription market.Info.Tokens (fun writer ->
            writer.WriteString("type", "trade")
            writer.WriteStartObject "msg"
            writeMarket writer market
            Kalshi.writeFill writer world.Seed market fill
            writer.WriteNumber("ts", fill.Second)
            writer.WriteNumber("ts_ms", Micros.toMilliseconds fill.At)
            writer.WriteEndObject())

    /// The best prices (0 and 1 where there is no offer) with their sizes.
    let best (book: Dictionary<int, int64>) =
        let mutable bid, ask = 0, int Millionths.one

        for pair in book do
            if pair.Value > 0L then
                bid <- max bid pair.Key
            elif pair.Value < 0L then
                ask <- min ask pair.Key

        let size price =
            match book.TryGetValue price with
            | true, size -> abs size
            | _ -> 0L

        struct (bid, size bid, ask, size ask)

    // What was told last of each market.
    let quoted = Dictionary<int, struct (int * int64 * int * int64)>()

    let quote (subscription: Subscription) (market: Market) struct (bid, bidSize, ask, askSize) at =
        if outlet.Mood = Mood.Open then
            FrameJson.write (fun writer ->
                writer.WriteString("type", "ticker")
                writer.WriteNumber("sid", subscription.Sid)
                writer.WriteStartObject "msg"
                writeMarket writer market
                writer.WriteString("yes_bid_dollars", Kalshi.dollars (int64 bid))
                writer.WriteString("yes_ask_dollars", Kalshi.dollars (int64 ask))
                writer.WriteString("yes_bid_size_fp", Kalshi.count bidSize)
                writer.WriteString("yes_ask_size_fp", Kalshi.count askSize)
                writer.WriteNumber("ts", Micros.toSeconds at)
                writer.WriteNumber("ts_ms", Micros.toMilliseconds at)
                writer.WriteString("time", Kalshi.iso (Micros.toDate at))
                writer.WriteEndObject())
            |> send

    let ofChannel channel =
        subscriptions.FindAll(fun one -> one.Channel = channel)

    let subscribers channel (market: Market) =
        (ofChannel channel)
            .FindAll(fun one -> one.Markets.Count = 0 || one.Markets.ContainsKey market.Info.Condition)

    let happened (market: Market) (changes: List<Change>) first last at =
        let book = books[market.Info.Index]
        let listeners = subscribers "orderbook_delta" market

        for i in first..last do
            let change = changes[i]

            match change.Kind with
            | ChangeKind.Level ->
                let before =
                    match book.TryGetValue change.Price with
                    | true, size -> size
                    | _ -> 0L

                if change.Value = 0L then
                    book.Remove change.Price |> ignore
                else
                    book[change.Price] <- change.Value

                let yes = max 0L change.Value - max 0L before
                let no = max 0L (-change.Value) - max 0L (-before)

                for listener in listeners do
                    // What is taken away is told before what is put there.
                    for isYes, moved in List.sortBy snd [ true, yes; false, no ] do
                        if moved <> 0L then
                            delta listener market isYes (int64 change.Price) moved at
            | ChangeKind.Fill ->
                let fill = market.Fills[int change.Value]

                for listener in subscribers "trade" market do
                    trade listener market fill
            | _ -> ()

        // Told when any of it is another one; it has no number.
        match subscribers "ticker" market with
        | listeners when listeners.Count > 0 ->
            let now = best book

            match quoted.TryGetValue market.Info.Index with
            | true, before when before = now -> ()
            | _ ->
                quoted[market.Info.Index] <- now

                for listener in listeners do
                    quote listener market now at
        | _ -> ()

    let announced (news: Announcement) =
        for listener in ofChannel "market_lifecycle_v2" do
            if outlet.Mood = Mood.Open then
                let told (kind: string) more =
                    FrameJson.write (fun writer ->
                        writer.WriteString("type", "market_lifecycle_v2")
                        writer.WriteNumber("sid", listener.Sid)
                        writer.WriteStartObject "msg"
                        writer.WriteString("event_type", kind)
                        writer.WriteString("market_ticker", news.Market.Info.Condition)
                        more writer
                        writer.WriteEndObject())
                    |> send

                let second = Micros.toSeconds news.At

                if news.IsNew then
                    told "created" (fun writer -> writer.WriteNumber("open_ts", second))
                    told "activated" ignore
                else
                    told "determined" (fun writer ->
                        writer.WriteString("result", (if news.Market.Winner = 0 then "yes" else "no"))
                        writer.WriteNumber("determination_ts", second))

                    told "settled" (fun writer -> writer.WriteNumber("settled_ts", second))

    // ---- commands

    let texts (name: string) (parameters: JsonElement) =
        match parameters.TryGetProperty name with
        | true, value when value.ValueKind = JsonValueKind.Array -> [
            for item in value.EnumerateArray() -> string item
          ]
        | _ -> []

    let text (name: string) (parameters: JsonElement) =
        match parameters.TryGetProperty name with
        | true, value when value.ValueKind = JsonValueKind.String -> Some(string value)
        | _ -> None

    let flag (name: string) (parameters: JsonElement) =
        match parameters.TryGetProperty name with
        | true, value -> value.ValueKind = JsonValueKind.True
        | _ -> false

    let tickersOf parameters =
        Option.toList (text "market_ticker" parameters)
        @ texts "market_tickers" parameters

    /// One that nobody knows spoils the whole command.
    let marketsOf tickers =
        tickers
        |> List.map (fun ticker ->
            match world.MarketByCondition ticker with
            | Some market -> market
            | None -> raise (Declined(16, "Market not found", ticker)))

    let add (subscription: Subscription) (markets: Market list) =
        let fresh =
            markets
            |> List.filter (fun market -> subscription.Markets.TryAdd(market.Info.Condition, market))

        for market in fresh do
            bookOf market |> ignore

        fresh

    let answer (id: int) (kind: string) (sid: int voption) (members: Utf8JsonWriter -> unit) =
        if outlet.Mood = Mood.Open then
            send (
                FrameJson.write (fun writer ->
                    writer.WriteNumber("id", id)
                    writer.WriteString("type", kind)
                    sid |> ValueOption.iter (fun sid -> writer.WriteNumber("sid", sid))
                    members writer)
            )

    /// A reply that has a number of its own among the messages of its subscription.
    let numbered (subscription: Subscription) id kind members =
        subscription.Sequence <- subscription.Sequence + 1

        answer id kind (ValueSome subscription.Sid) (fun writer ->
            writer.WriteNumber("seq", subscription.Sequence)
            members writer)

    let subscribe id parameters =
        let channels = texts "channels" parameters
        let tickers = tickersOf parameters

        if channels.IsEmpty then
            raise (Declined(3, "Channels required", ""))

        for channel in channels do
            match channel with
            | "orderbook_delta" when tickers.IsEmpty -> raise (Declined(14, "Market ticker required", ""))
            | "orderbook_delta"
            | "trade"
            | "ticker"
            | "market_lifecycle_v2" -> ()
            | _ -> raise (Declined(8, "Unknown channel name", ""))

        let markets = marketsOf tickers

        for channel in channels do
            lastSid <- lastSid + 1
            let subscription = Subscription(lastSid, channel, flag "use_yes_price" parameters)
            subscriptions.Add subscription

            if (channel = "trade" || channel = "ticker") && markets.IsEmpty then
                for market in world.Markets do
                    bookOf market |> ignore

            let fresh =
                if channel = "market_lifecycle_v2" then
                    []
                else
                    add subscription markets

            answer id "subscribed" ValueNone (fun writer ->
                writer.WriteStartObject "msg"
                writer.WriteString("channel", channel)
                writer.WriteNumber("sid", subscription.Sid)
                writer.WriteEndObject())

            if channel = "orderbook_delta" then
                for market in fresh do
                    snapshot subscription market

    let bySid (parameters: JsonElement) =
        let sids =
            match parameters.TryGetProperty "sids", parameters.TryGetProperty "sid" with
            | (true, several), _ when several.ValueKind = JsonValueKind.Array -> [
                for sid in several.EnumerateArray() -> sid.GetInt32()
              ]
            | _, (true, one) -> [ one.GetInt32() ]
            | _ -> raise (Declined(4, "Subscription IDs required", ""))

        sids
        |> List.map (fun sid ->
            match subscriptions.Find(fun one -> one.Sid = sid) |> Option.ofObj with
            | Some found -> found
            | None -> raise (Declined(7, "Unknown subscription ID", "")))

    let update id parameters =
        let subscription =
            match bySid parameters with
            | [ one ] -> one
            | _ -> raise (Declined(12, "Exactly one subscription ID is required", ""))

        let tickers = tickersOf parameters

        if tickers.IsEmpty then
            raise (Declined(14, "Market ticker required", ""))

        let markets = marketsOf tickers

        let told =
            match text "action" parameters with
            | Some "add_markets" -> add subscription markets
            | Some "delete_markets" ->
                for market in markets do
                    subscription.Markets.Remove market.Info.Condition |> ignore
                    forget market

                []
            | Some "get_snapshot" -> markets
            | Some _ -> raise (Declined(13, "Unknown action", ""))
            | None -> raise (Declined(15, "Action required", ""))

        numbered subscription id "ok" (fun writer ->
            writer.WriteStartObject "msg"
            writer.Array("market_tickers", subscription.Markets.Keys, writer.WriteStringValue)
            writer.WriteEndObject())

        if subscription.Channel = "orderbook_delta" then
            for market in told do
                snapshot subscription market

    let unsubscribe id parameters =
        for subscription in bySid parameters do
            subscriptions.Remove subscription |> ignore
            numbered subscription id "unsubscribed" ignore

            for market in subscription.Markets.Values do
                forget market

    let obey (message: JsonElement) =
        let id =
            match message.TryGetProperty "id" with
            | true, value when value.ValueKind = JsonValueKind.Number -> value.GetInt32()
            | _ -> 0

        let parameters =
            match message.TryGetProperty "params" with
            | true, value when value.ValueKind = JsonValueKind.Object -> value
            | _ -> message

        try
            match text "cmd" message with
            | Some "subscribe" -> subscribe id parameters
            | Some "update_subscription" -> update id parameters
            | Some "unsubscribe" -> unsubscribe id parameters
            | Some "list_subscriptions" ->
                answer id "ok" ValueNone (fun writer ->
                    writer.Array(
                        "msg",
                        subscriptions,
                        fun one ->
                            writer.WriteStartObject()
                            writer.WriteString("channel", one.Channel)
                            writer.WriteNumber("sid", one.Sid)
                            writer.WriteEndObject()
                    ))
            | _ -> raise (Declined(5, "Unknown command", ""))
        with Declined(code, detail, market) ->
            answer id "error" ValueNone (fun writer ->
                writer.WriteStartObject "msg"
                writer.WriteNumber("code", code)
                writer.WriteString("msg", detail)

                if market <> "" then
                    writer.WriteString("market_ticker", market)

                writer.WriteEndObject())

    do
        hub.Watch this
        outlet.Beat outlet.Strike

    interface IWitness with
        member _.Happened(market, changes, first, last, at) =
            if outlet.Mood = Mood.Open then
                happened market changes first last at

        member _.Announced news = announced news

    interface IChannelSession with
        member _.Number = number

        member _.Connection =
            outlet.Connection [|
                for one in ofChannel "orderbook_delta" do
                    for market in one.Markets.Values do
                        yield! market.Info.Tokens
            |]

        member _.IsDead = (outlet.Mood = Mood.Dead)

        member _.Hear text =
            lock world (fun () ->
                hub.Advance world.Advanced

                if outlet.Mood = Mood.Open then
                    try
                        use document = JsonDocument.Parse text

                        if document.RootElement.ValueKind = JsonValueKind.Object then
                            obey document.RootElement
                    with
                    | :? JsonException
                    | :? InvalidOperationException
                    | :? FormatException ->
                        answer 0 "error" ValueNone (fun writer ->
                            writer.WriteStartObject "msg"
                            writer.WriteNumber("code", 1)
                            writer.WriteString("msg", "Unable to process message")
                            writer.WriteEndObject()))

        member _.Advance now =
            lock world (fun () -> outlet.Advance now)

        member _.Leave() =
            lock world (fun () ->
                if outlet.Mood <> Mood.Closed then
                    outlet.Close 1006)
