namespace Tributary.Server.Simulator

open System
open System.Collections.Generic
open System.Text.Json

/// One connection of Manifold's WebSocket: bets as they are made, and parts of markets that changed. It numbers nothing and repeats
/// nothing.
[<Sealed>]
type internal ManifoldSession(hub: Hub, number: int, rate: float) as this =
    let world = hub.World
    let random = Dice.Keyed(int64 world.Seed, 32L, int64 number)
    let outlet = Outlet(hub, number, random)
    let topics = HashSet<string>()
    let heard = HashSet<int>()
    let mutable held: byte[] voption = ValueNone
    let mutable spoke = hub.Now

    // It drops a connection from which no message of the application came for so long.
    let patience = 60L * Micros.perSecond

    do
        outlet.GiveUp <-
            fun () ->
                for index in heard do
                    hub.Unwitness(world.Markets[index], this)

                heard.Clear()
                hub.Unwatch this

    let send (payload: byte[]) = outlet.Send payload |> ignore

    let broadcast (topic: string) (tokens: string[]) (data: Utf8JsonWriter -> unit) =
        if outlet.Mood = Mood.Open && topics.Contains topic then
            let payload =
                FrameJson.write (fun writer ->
                    writer.WriteString("type", "broadcast")
                    writer.WriteString("topic", topic)
                    writer.WriteStartObject "data"
                    data writer
                    writer.WriteEndObject())

            if outlet.Has StreamFault.Dropped && random.Chance rate then
                outlet.Inject(StreamFault.Dropped, tokens, true, topic)
            elif outlet.Has StreamFault.Reordered && held.IsNone && random.Chance rate then
                held <- ValueSome payload
                outlet.Inject(StreamFault.Reordered, tokens, true, topic)
            else
                send payload

                if outlet.Has StreamFault.Duplicated && random.Chance rate then
                    outlet.Inject(StreamFault.Duplicated, tokens, false, topic)
                    send payload

                held |> ValueOption.iter send
                held <- ValueNone

    let happened (market: Market) (changes: List<Change>) first last =
        let fills = [
            for i in first..last do
                if changes[i].Kind = ChangeKind.Fill then
                    market.Fills[int changes[i].Value]
        ]

        if not fills.IsEmpty then
            let bets (writer: Utf8JsonWriter) =
                writer.Array("bets", fills, Manifold.writeBet writer world market)

            broadcast "global/new-bet" market.Info.Tokens bets
            broadcast $"contract/{Dialect.contract world.Seed market.Info}/new-bet" market.Info.Tokens bets

    let announced (news: Announcement) =
        let market = news.Market
        let id = Dialect.contract world.Seed market.Info

        let contract (writer: Utf8JsonWriter) =
            writer.WritePropertyName "contract"

            let whole =
                Manifold.contracts world |> Array.find (fun contract -> contract.Id = id)

            if news.IsNew then
                Manifold.writeContract writer world.Seed false whole
            else
                // A part: what changed.
                let isOver = whole.Markets |> Array.forall _.Closed.IsSome
                writer.WriteStartObject()
                writer.WriteString("id", id)
                writer.WriteString("slug", Manifold.slug whole)
                writer.WriteBoolean("isResolved", isOver)

                if isOver && not (Manifold.isMulti whole) then
                    writer.WriteString("resolution", (if market.Winner = 0 then "YES" else "NO"))

                writer.WriteEndObject()

        if news.IsNew then
            broadcast "global/new-contract" market.Info.Tokens contract
        else
            broadcast "global/updated-contract" market.Info.Tokens contract
            broadcast $"contract/{id}" market.Info.Tokens contract

    /// Whose bets are to be told.
    let hear () =
        let isWanted (market: Market) =
            topics.Contains "global/new-bet"
            || topics.Contains $"contract/{Dialect.contract world.Seed market.Info}/new-bet"

        for market in world.Markets do
            let isIn = heard.Contains market.Info.Index

            if isWanted market && not isIn then
                heard.Add market.Info.Index |> ignore
                hub.Witness(market, this)
            elif isIn && not (isWanted market) then
                heard.Remove market.Info.Index |> ignore
                hub.Unwitness(market, this)

    let acknowledge (txid: int64 voption) (error: string) =
        send (
            FrameJson.write (fun writer ->
                writer.WriteString("type", "ack")
                txid |> ValueOption.iter (fun id -> writer.WriteNumber("txid", id))
                writer.WriteBoolean("success", (error = ""))

                if error <> "" then
                    writer.WriteString("error", error))
        )

    let obey (message: JsonElement) =
        let txid =
            match message.TryGetProperty "txid" with
            | true, value when value.ValueKind = JsonValueKind.Number -> ValueSome(value.GetInt64())
            | _ -> ValueNone

        let named =
            match message.TryGetProperty "topics" with
            | true, value when value.ValueKind = JsonValueKind.Array -> [
                for item in value.EnumerateArray() -> string item
              ]
            | _ -> []

        let kind =
            match message.TryGetProperty "type" with
            | true, value -> string value
            | _ -> ""

        match kind with
        | "ping"
        | "identify" -> acknowledge txid ""
        // A topic that nobody knows is acknowledged, and stays silent for ever.
        | "subscribe" ->
            topics.UnionWith named
            hear ()
            acknowledge txid ""
        | "unsubscribe" ->
            topics.ExceptWith named
            hear ()
            acknowledge txid ""
        | _ -> acknowledge txid $"unknown message type {kind}"

    let pulse () =
        outlet.Strike()

        if
            (outlet.Mood = Mood.Open || outlet.Mood = Mood.Mute)
            && hub.Now - spoke > patience
        then
            outlet.Close 1006

    do
        hub.Watch this
        outlet.Beat pulse

    interface IWitness with
        member _.Happened(market, changes, first, last, _) =
            if outlet.Mood = Mood.Open then
                happened market changes first last

        member _.Announced news = announced news

    interface IChannelSession with
        member _.Number = number

        member _.Connection =
            outlet.Connection [|
                for index in heard do
                    yield! world.Markets[index].Info.Tokens
            |]

        member _.IsDead = (outlet.Mood = Mood.Dead)

        member _.Hear text =
            lock world (fun () ->
                hub.Advance world.Advanced
                spoke <- hub.Now

                if outlet.Mood = Mood.Open || outlet.Mood = Mood.Mute then
                    try
                        use document = JsonDocument.Parse text

                        if document.RootElement.ValueKind = JsonValueKind.Object then
                            obey document.RootElement
                    with
                    | :? JsonException
                    | :? FormatException -> acknowledge ValueNone "the message cannot be read")

        member _.Advance now =
            lock world (fun () -> outlet.Advance now)

        member _.Leave() =
            lock world (fun () ->
                if outlet.Mood <> Mood.Closed then
                    outlet.Close 1006)
