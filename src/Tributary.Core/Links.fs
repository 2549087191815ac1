namespace Tributary

open System

/// Sightings that can only be of the same fill if they agree in all of this.
type private LinkKey = {
    Transaction: string
    Token: TokenId
    Side: Side
    Price: int64
    /// In microseconds; 0 where there is a transaction, for that is settled once.
    Second: int64
}

/// Sightings of one transaction's fills of one token, side and price.
type private Sightings = {
    Api: Map<TradeId, Trade>
    Stream: Map<TradeId, Trade>
    /// Those that were linked.
    Linked: Set<TradeId>
    /// When the latest of them was.
    Latest: Instant
}

/// What was heard of trades lately, by the exchange's API and by its stream, until it is known which of them are the same.
type Links = private {
    Groups: Map<LinkKey, Sightings>
    // The same keys in the order of their latest sightings.
    Order: Set<struct (Instant * LinkKey)>
    // Those of which something was heard since they were last compared.
    Fresh: Set<struct (Instant * LinkKey)>
    Held: int
    // Up to here all is forgotten.
    Horizon: Instant
}

/// What became known.
type Settled = {
    /// Each pair once.
    Links: TradeLink list
    /// Trades that only the stream told of, and the API not within `Links.keep`: each once. They may never have settled.
    Unconfirmed: Trade list
}

/// Finds out which trades of the stream are trades of the API: those of the same transaction, token, side and price that have the
/// same size, else those whose sizes have the same sum, for either of them may tell of several fills as one. Where an exchange gives
/// no transaction, the second has to be the same.
///
/// What is heard in any order, and any number of times, before it is settled gives the same links.
[<RequireQualifiedAccess>]
module Links =
    /// Trades are compared when they are this old: by then the API shows all of a transaction. What comes later is compared with
    /// what is left.
    let settleAfter = TimeSpan.FromSeconds 30.0

    /// How long a trade waits for another sighting.
    let keep = TimeSpan.FromMinutes 10.0

    /// The most trades that are held; beyond it the oldest are forgotten, and nothing is said of them.
    let most = 200_000

    /// How many sums are tried before a group is left as it is. No real group comes near; it bounds the time that a made-up one takes.
    let private patience = 20_000

    let none: Links = {
        Groups = Map.empty
        Order = Set.empty
        Fresh = Set.empty
        Held = 0
        Horizon = Instant.ofMicros Int64.MinValue
    }

    let private keyOf (trade: Trade) : LinkKey = {
        Transaction = trade.Transaction
        Token = trade.Token
        Side = trade.Side
        Price = trade.Price.Millionths
        Second =
            if trade.Transaction = "" then
                trade.At.Micros - (trade.At.Micros % 1_000_000L)
            else
                0L
    }

    let private nothing: Sightings = {
        Api = Map.empty
        Stream = Map.empty
        Linked = Set.empty
        Latest = Instant.ofMicros Int64.MinValue
    }

    let private forget key (group: Sightings) (links: Links) =
        let place = struct (group.Latest, key)

        {
            links with
                Groups = Map.remove key links.Groups
                Order = Set.remove place links.Order
                Fresh = Set.remove place links.Fresh
                Held = links.Held - group.Api.Count - group.Stream.Count
        }

    /// One more was heard of.
    let private grown key (before: Sightings) (after: Sightings) (links: Links) =
        let old, place = struct (before.Latest, key), struct (after.Latest, key)

        {
            links with
                Groups = Map.add key after links.Groups
                Order = links.Order |> Set.remove old |> Set.add place
                Fresh = links.Fresh |> Set.remove old |> Set.add place
                Held = links.Held + 1
        }

    let rec private bounded (links: Links) =
        if links.Held <= most then
            links
        else
            let struct (_, oldest) = Set.minElement links.Order
            bounded (forget oldest links.Groups[oldest] links)

    /// Takes note of a trade of the API or the stream; those of a chain are not compared. A trade that is older than `keep` is not
    /// taken.
    let hear (trade: Trade) (links: Links) : Links =
        if trade.At <= links.Horizon || trade.Source = Source.Chain then
            links
        else
            let key = keyOf trade
            let group = links.Groups |> Map.tryFind key |> Option.defaultValue nothing

            let isApi = trade.Source = Source.Api
            let known = if isApi then group.Api else group.Stream

            if Map.containsKey trade.Id known then
                links
            else
                let known = Map.add trade.Id trade known

                let after = {
                    group with
                        Api = if isApi then known else group.Api
                        Stream = if isApi then group.Stream else known
                        Latest = max group.Latest trade.At
                }

                links |> grown key group after |> bounded

    let private linkOf (api: Trade) (stream: Trade) : TradeLink = {
        Trade = api.Id
        Other = stream.Id
        At = api.At
    }

    /// Largest first, and of one size by their ids: what is found depends on nothing else.
    let private ordered (trades: Map<TradeId, Trade>) (linked: Set<TradeId>) =
        trades
        |> Map.values
        |> Seq.filter (fun trade -> not (linked.Contains trade.Id))
        |> Seq.sortBy (fun trade -> struct (-trade.Size.Millionths, trade.Id))
        |> List.ofSeq

    /// Pairs of the same size, of two lists in order; and what is left of each.
    let rec private pairs found restApi restStream (api: Trade list) (stream: Trade list) =
        match api, stream with
        | a :: moreApi, s :: moreStream ->
            if a.Size = s.Size then
                pairs (struct (a, s) :: found) restApi restStream moreApi moreStream
            elif a.Size > s.Size then
                pairs found (a :: restApi) restStream moreApi stream
            else
                pairs found restApi (s :: restStream) api moreStream
        | _ -> struct (found, List.rev restApi @ api, List.rev restStream @ stream)

    /// Some of these trades, largest first, whose sizes have this sum: two of them or more.
    let private summing (tries: byref<int>) (target: int64) (parts: Trade list) : Trade list =
        let parts = Array.ofList parts
        let sizes = parts |> Array.map _.Size.Millionths
        // What is left from each place on; it cannot overflow a decimal.
        let rest = Array.scanBack (fun size sum -> decimal size + sum) sizes 0m
        let chosen = Collections.Generic.Stack<int>()
        let mutable missing, next, isFound, isOver = target, 0, false, false

        while not isFound && not isOver do
            tries <- tries - 1

            if missing = 0L && chosen.Count > 1 then
                isFound <- true
            elif tries <= 0 then
                isOver <- true
            elif missing > 0L && next < parts.Length && rest[next] >= decimal missing then
                if sizes[next] <= missing && sizes[next] > 0L then
                    chosen.Push next
                    missing <- missing - sizes[next]

                next <- next + 1
            elif chosen.Count = 0 then
                isOver <- true
            else
                // The last one was not it.
                let last = chosen.Pop()
                missing <- missing + sizes[last]
                next <- last + 1

        if isFound then
            [ for place in Seq.rev chosen -> parts[place] ]
        else
            []

    /// Wholes of which some parts are the sum, and what is left of both.
    let private sums (tries: byref<int>) (wholes: Trade list) (parts: Trade list) =
        let mutable found, restWholes, restParts = [], [], parts

        for whole in wholes do
            match summing &tries whole.Size.Millionths restParts with
            | [] -> restWholes <- whole :: restWholes
            | own ->
                let ids = own |> List.map _.Id |> Set.ofList
                restParts <- restParts |> List.filter (fun part -> not (ids.Contains part.Id))

                for part in own do
                    found <- struct (whole, part) :: found

        struct (found, List.rev restWholes, restParts)

    let private compare (group: Sightings) : TradeLink list =
        let struct (same, api, stream) =
            pairs [] [] [] (ordered group.Api group.Linked) (ordered group.Stream group.Linked)

        let mutable tries = patience
        let struct (ofStream, stream, api) = sums &tries stream api
        let struct (ofApi, _, _) = sums &tries api stream

        [
            for struct (api, stream) in same do
                linkOf api stream

            for struct (stream, api) in ofStream do
                linkOf api stream

            for struct (api, stream) in ofApi do
                linkOf api stream
        ]
        |> List.sort

    /// The links between sightings that count and other ones of the same market and time, all of which are known: as `settle` finds them.
    let between (counting: Trade list) (others: Trade list) : TradeLink list =
        let byKey (trades: Trade list) =
            trades |> List.groupBy keyOf |> Map.ofList

        let ofOthers = byKey others

        [
            for KeyValue(key, counting) in byKey counting do
                match Map.tryFind key ofOthers with
                | Some others ->
                    let ids (trades: Trade list) =
                        trades |> List.map (fun trade -> trade.Id, trade) |> Map.ofList

                    yield!
                        compare {
                            nothing with
                                Api = ids counting
                                Stream = ids others
                        }
                | None -> ()
        ]

    let private settleOlder (age: TimeSpan) (now: Instant) (links: Links) : struct (Links * Settled) =
        let horizon = now - keep

        let upTo moment (places: Set<struct (Instant * LinkKey)>) =
            places
            |> Seq.takeWhile (fun struct (latest, _) -> latest <= moment)
            |> List.ofSeq

        let mutable links, found, unconfirmed = links, [], []

        for struct (latest, key) in upTo (now - age) links.Fresh do
            let group = links.Groups[key]
            let own = compare group
            found <- own :: found

            let linked =
                (group.Linked, own)
                ||> List.fold (fun linked link -> linked |> Set.add link.Trade |> Set.add link.Other)

            links <- {
                links with
                    Groups = Map.add key { group with Linked = linked } links.Groups
                    Fresh = Set.remove (struct (latest, key)) links.Fresh
            }

        for struct (_, key) in upTo horizon links.Order do
            let group = links.Groups[key]

            unconfirmed <-
                [
                    for trade in Map.values group.Stream do
                        if not (group.Linked.Contains trade.Id) then
                            trade
                ]
                :: unconfirmed

            links <- forget key group links

        struct ({
                    links with
                        Horizon = max horizon links.Horizon
                },
                {
                    Links = found |> List.rev |> List.concat
                    Unconfirmed = unconfirmed |> List.rev |> List.concat
                })

    /// Compares what is old enough, and forgets what is too old. It does not matter how often it is asked.
    let settle (now: Instant) (links: Links) : struct (Links * Settled) = settleOlder settleAfter now links

    /// As `settle`, and compares whatever is known, however new: nothing more will be heard.
    let settleAll (now: Instant) (links: Links) : struct (Links * Settled) =
        // The stamps of an exchange may be ahead of our clock.
        settleOlder -keep now links

    /// How many trades are held.
    let count (links: Links) = links.Held
