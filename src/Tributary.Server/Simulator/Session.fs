namespace Tributary.Server.Simulator

open System
open System.Collections.Generic
open System.Text
open System.Text.Json

/// One connection of the market channel as a function of simulated time: what it hears and the instants to which it is
/// advanced decide its frames. There is no socket in it.
[<Sealed>]
type internal Session(hub: Hub, number: int, rate: float) as this =
    let world = hub.World
    let random = Dice.Keyed(int64 world.Seed, 30L, int64 number)
    let outlet = Outlet(hub, number, random)
    let listeners = Dictionary<int, Listener>()
    // Tokens that were struck once and then subscribed anew: they are left alone.
    let healed = HashSet<string>()
    // Copies that wait for so many messages to pass.
    let echoes = List<struct (byte[] * int)>()
    let mutable custom = false
    let mutable isOld = false
    let mutable wasDumped = false

    let on fault = outlet.Has fault

    let inject kind tokens misleads detail =
        outlet.Inject(kind, tokens, misleads, detail)

    do
        outlet.GiveUp <-
            fun () ->
                for pair in listeners do
                    hub.Leave pair.Value

                listeners.Clear()
                hub.Quit this

    /// Sends a message, and the copies whose turn it is.
    let send payload =
        if outlet.Send payload && echoes.Count > 0 then
            for i in echoes.Count - 1 .. -1 .. 0 do
                let struct (copy, left) = echoes[i]

                if left <= 1 then
                    outlet.Enqueue copy
                    echoes.RemoveAt i
                else
                    echoes[i] <- struct (copy, left - 1)

    let tokensOf (listener: Listener) =
        listener.Market.Info.Tokens
        |> Array.indexed
        |> Array.filter (fun (i, _) -> listener.Wants[i])
        |> Array.map snd

    /// The text with another number behind this key, the last time it occurs.
    let replaced (payload: byte[]) (key: string) =
        let text = Encoding.UTF8.GetString payload
        let at = text.LastIndexOf $"\"{key}\":\"" + key.Length + 4
        let until = text.IndexOf('"', at)
        // Far from any true best, and never equal to it.
        let wrong = Millionths.text (10_000L * int64 (random.Between(1, 98)) + 5_000L)
        struct (Encoding.UTF8.GetBytes(text.Substring(0, at) + wrong + text.Substring until), wrong)

    /// The payloads of a price change for this connection.
    let payloads (listener: Listener) (message: Message) =
        if isOld && message.Old.Length > 0 then
            [
                for token in 0..1 do
                    if listener.Wants[token] then
                        message.Old[token]
            ]
        else
            [ message.Payload ]

    let release (listener: Listener) =
        match listener.Held with
        | ValueSome held ->
            listener.Successors <- listener.Successors - 1

            if listener.Successors <= 0 then
                listener.Held <- ValueNone
                payloads listener held |> List.iter send
        | ValueNone -> ()

    let duplicate (listener: Listener) payload =
        let later = if random.Chance 0.5 then 0 else random.Between(1, 5)

        if later = 0 then
            inject StreamFault.Duplicated (tokensOf listener) false "at once"
            outlet.Enqueue payload
        else
            inject StreamFault.Duplicated (tokensOf listener) true $"after {later} more"
            echoes.Add(struct (payload, later))

    /// A price change that goes out, for all that may be wrong with it.
    let sendChange (listener: Listener) (message: Message) =
        for payload in payloads listener message do
            let payload =
                if not isOld && on StreamFault.WrongBest && random.Chance(rate / 4.0) then
                    let key = if random.Chance 0.5 then "best_bid" else "best_ask"
                    let struct (wrong, value) = replaced payload key
                    inject StreamFault.WrongBest (tokensOf listener) false $"{key} {value} in a price change"
                    wrong
                else
                    payload

            send payload

            if on StreamFault.Duplicated && random.Chance rate then
                duplicate listener payload

    let change (listener: Listener) (message: Message) =
        for token in 0..1 do
            if listener.Awaits[token] && listener.Wants[token] then
                listener.Awaits[token] <- false
                inject StreamFault.DeltaFirst [| listener.Market.Info.Tokens[token] |] false ""

        // A message is held only where its successors are soon to come.
        let isBusy = hub.Now - listener.Heard < Micros.perSecond

        if on StreamFault.Dropped && random.Chance rate then
            inject StreamFault.Dropped (tokensOf listener) true ""
        elif on StreamFault.Reordered && isBusy && listener.Held.IsNone && random.Chance rate then
            listener.Held <- ValueSome message
            listener.Successors <- random.Between(1, 3)
            inject StreamFault.Reordered (tokensOf listener) true $"after {listener.Successors} more"
        else
            sendChange listener message
            release listener

    let trade (listener: Listener) (message: Message) =
        if hub.Now > listener.TradesFrom && on StreamFault.HashRace && random.Chance 0.3 then
            let late = random.Between(70, 106)
            listener.TradesFrom <- hub.Now + 1000L * int64 late
            let tokens = [| listener.Market.Info.Tokens[message.Token] |]
            inject StreamFault.HashRace tokens false $"{late} ms"

        if hub.Now <= listener.TradesFrom then
            // The trades after a late one wait for it.
            hub.At(
                listener.TradesFrom,
                fun _ ->
                    if outlet.Mood = Mood.Open && listener.Wants[message.Token] then
                        send message.Payload
            )
        else
            send message.Payload

    let deliver (listener: Listener) (message: Message) =
        let wants token =
            listener.Wants[token] && not listener.Silent[token]

        let isWanted =
            if message.Token < 0 then
                wants 0 || wants 1
            else
                wants message.Token

        if outlet.Mood = Mood.Open && isWanted then
            match message.Kind with
            | MessageKind.PriceChange ->
                change listener message
                listener.Heard <- hub.Now
            | MessageKind.Book ->
                if not listener.Withheld[message.Token] then
                    listener.Awaits[message.Token] <- false
                    send message.Payload
                    release listener
            | MessageKind.Trade -> trade listener message
            | MessageKind.Tick -> send message.Payload
            | MessageKind.Best ->
                if custom then
                    if on StreamFault.WrongBest && random.Chance(10.0 * rate) then
                        let key = if random.Chance 0.5 then "best_bid" else "best_ask"
                        let struct (wrong, value) = replaced message.Payload key
                        let tokens = [| listener.Market.Info.Tokens[message.Token] |]
                        inject StreamFault.WrongBest tokens false $"{key} {value} in a best_bid_ask"
                        send wrong
                    else
                        send message.Payload

    /// The same market, again and again within 45 seconds.
    let repeat (news: Announcement) payload =
        let times = random.Between(1, 145)
        inject StreamFault.Repeats news.Market.Info.Tokens false $"{times} times"

        for _ in 1..times do
            hub.At(
                hub.Now + int64 (random.Below 45_000_000),
                fun _ ->
                    if outlet.Mood = Mood.Open then
                        send payload
            )

    let pulse () =
        outlet.Strike()

        if outlet.Mood = Mood.Open && custom && on StreamFault.Repeats && random.Chance 0.1 then
            let trading = world.Markets |> Array.filter _.Closed.IsNone

            if trading.Length > 0 then
                let market = random.Pick trading

                let news = {
                    At = Micros.ofDate market.Info.Event.Created
                    Market = market
                    IsNew = true
                }

                repeat news (EventJson.announcement news)

    /// One array of the books of these tokens.
    let dump (wanted: struct (Listener * int) list) =
        let ink = Ink()
        ink.Put("["B)

        for struct (listener, token) in wanted do
            listener.Awaits[token] <- false

            if ink.Length > 1 then
                ink.Put Part.comma

            hub.Telling(listener.Market).Book(ink, token, true)

        ink.Put("]"B)
        send (ink.Take())

    let silence (listener: Listener) =
        hub.At(
            hub.Now + int64 (random.Between(1_000_000, 30_000_000)),
            fun _ ->
                if outlet.Mood = Mood.Open && listeners.ContainsValue listener then
                    listener.Silent[0] <- true
                    listener.Silent[1] <- true
                    inject StreamFault.SilentAssets (tokensOf listener) true ""
        )

    let subscribe tokens withDump =
        let fresh = List<struct (Listener * int)>()

        for token in tokens do
            match world.MarketByToken token with
            | Some struct (market, side) when market.Closed.IsNone ->
                let listener =
                    match listeners.TryGetValue market.Info.Index with
                    | true, listener -> listener
                    | _ ->
                        let listener = Listener(market, this)
                        listeners[market.Info.Index] <- listener
                        hub.Enter listener

                        if
                            on StreamFault.SilentAssets && not (healed.Contains token) && random.Chance 0.2
                        then
                            silence listener

                        listener

                let isIll = listener.Withheld[side] || listener.Silent[side]

                if isIll then
                    healed.Add token |> ignore
                    listener.Withheld[side] <- false
                    listener.Silent[side] <- false

                if isIll || not listener.Wants[side] then
                    listener.Wants[side] <- true
                    fresh.Add(struct (listener, side))
            | _ -> ()

        if withDump then
            let isLate = HashSet<Listener>()

            if on StreamFault.DeltaFirst then
                for struct (listener, _) in fresh do
                    if random.Chance 0.3 && isLate.Add listener then
                        let own = [
                            for struct (other, token) in fresh do
                                if Object.ReferenceEquals(other, listener) then
                                    other.Awaits[token] <- true
                                    struct (other, token)
                        ]

                        hub.At(
                            hub.Now + int64 (random.Between(50_000, 300_000)),
                            fun _ ->
                                let own =
                                    own
                                    |> List.filter (fun struct (listener, token) ->
                                        listener.Wants[token] && not listener.Silent[token])

                                if outlet.Mood = Mood.Open && not own.IsEmpty then
                                    dump own
                        )

            let now = [
                for struct (listener, token) in fresh do
                    let name = listener.Market.Info.Tokens[token]

                    if isLate.Contains listener then
                        ()
                    elif on StreamFault.WithheldBooks && not (healed.Contains name) && random.Chance 0.2 then
                        listener.Withheld[token] <- true
                        inject StreamFault.WithheldBooks [| name |] true ""
                    else
                        struct (listener, token)
            ]

            if not now.IsEmpty || not wasDumped then
                dump now

            wasDumped <- true

    let unsubscribe tokens =
        for token in tokens do
            match world.MarketByToken token with
            | Some struct (market, side) ->
                match listeners.TryGetValue market.Info.Index with
                | true, listener ->
                    if listener.Withheld[side] || listener.Silent[side] then
                        healed.Add token |> ignore

                    listener.Wants[side] <- false
                    listener.Withheld[side] <- false
                    listener.Silent[side] <- false

                    if not (listener.Wants[0] || listener.Wants[1]) then
                        hub.Leave listener
                        listeners.Remove market.Info.Index |> ignore
                | _ -> ()
            | None -> ()

    let obey (message: JsonElement) =
        let flag (name: string) fallback =
            match message.TryGetProperty name with
            | true, value when value.ValueKind = JsonValueKind.True -> true
            | true, value when value.ValueKind = JsonValueKind.False -> false
            | _ -> fallback

        let text (name: string) =
            match message.TryGetProperty name with
            | true, value when value.ValueKind = JsonValueKind.String -> string value
            | _ -> ""

        let tokens =
            match message.TryGetProperty "assets_ids" with
            | true, value when value.ValueKind = JsonValueKind.Array -> [
                for token in value.EnumerateArray() -> string token
              ]
            | _ -> []

        custom <- flag "custom_feature_enabled" custom

        match text "operation", text "type" with
        | "unsubscribe", _ -> unsubscribe tokens
        | "subscribe", _
        | _, "market" -> subscribe tokens (flag "initial_dump" true)
        | _ -> ()

    do
        hub.Join this
        outlet.Beat pulse

    /// From 1 on, in the order in which connections came.
    member _.Number = number

    /// Whether price changes come in their form before 2025-09, with `changes`.
    member _.EraOld
        with get () = isOld
        and set value = isOld <- value

    member _.Connection =
        outlet.Connection(listeners.Values |> Seq.collect tokensOf |> Array.ofSeq)

    member _.IsClosed = (outlet.Mood = Mood.Closed)
    member _.IsDead = (outlet.Mood = Mood.Dead)

    /// A text frame of the client's, at the instant to which the exchange was advanced. What makes no sense is ignored.
    member _.Hear(text: string) =
        lock world (fun () ->
            hub.Advance world.Advanced

            if outlet.Mood = Mood.Open || outlet.Mood = Mood.Mute then
                if text = "PING" then
                    outlet.Enqueue "PONG"B
                else
                    try
                        use document = JsonDocument.Parse text

                        if document.RootElement.ValueKind = JsonValueKind.Object then
                            obey document.RootElement
                    with :? JsonException ->
                        ())

    member _.Advance(now: int64) : List<Frame> =
        lock world (fun () -> outlet.Advance now)

    member _.Leave() =
        lock world (fun () ->
            if outlet.Mood <> Mood.Closed then
                outlet.Close 1006)

    interface IChannelSession with
        member this.Number = this.Number
        member this.Connection = this.Connection
        member this.IsDead = this.IsDead
        member this.Hear text = this.Hear text
        member this.Advance now = this.Advance now
        member this.Leave() = this.Leave()

    interface IAudience with
        member _.WantsOld = isOld
        member _.Deliver(listener, message) = deliver listener message

        member _.Announce(news, payload) =
            if outlet.Mood = Mood.Open && custom then
                send payload

                if news.IsNew && on StreamFault.Repeats then
                    repeat news payload
