/// Live books against the simulated exchange in simulated time: the same decisions as in a running collector, without sockets and
/// without waiting, and every row held to the exchange's own ledger.
module Tributary.Tests.DepthChaos

open System
open System.Collections.Generic
open System.Text
open Tributary
open Tributary.Server.Simulator

/// Time stands; sessions are advanced by hand.
type private Standing() =
    inherit TimeProvider()

    override _.GetUtcNow() =
        DateTimeOffset(2026, 11, 20, 12, 7, 11, TimeSpan.Zero)

    override _.GetTimestamp() = 0L

type Plan = {
    Seed: int
    Markets: int
    /// Messages a simulated second.
    Rate: float
    /// It ends when so many messages were heard.
    Messages: int
    Faults: Set<StreamFault>
    FaultRate: float
    /// One hash in so many is computed.
    HashEvery: int
}

/// What came of it. Everything that must not be is a sentence in `Wrong`.
type Outcome = {
    Messages: int
    /// Changes of levels that were recorded, by their verdict: verified, unverifiable, mismatched.
    Verified: int64
    Unverifiable: int64
    Mismatched: int64
    Gaps: Gap list
    Injections: int
    /// Injections that lost or disordered something.
    Misleading: int
    /// True states at the end of their millisecond, and how many of them lie in a gap.
    States: int
    InGap: int
    /// Lost changes that the next change of the same level overwrote: nothing can tell of them.
    Overwritten: int
    /// Recorded, not verified, and not in a gap: they must be true all the same.
    Unproven: int
    Wrong: string list
}

let private collector =
    Exchanges.Polymarket.collector {
        BooksPerRequest = 100
        MarketsPerRequest = 20
        TradesSource = "auto"
        Secrets = Map.empty
    }

let private part = collector.Stream.Value
// It remembers nothing, so one does for all connections.
let private talk = part.Session()

let private ok result =
    match result with
    | Ok value -> value
    | Error(message: string) -> failwith message

let private describe (market: Server.Simulator.Market) : Tributary.Market =
    let info = market.Info

    {
        Exchange = collector.Exchange
        Market = ok (MarketId.Parse info.Condition)
        Event = info.Event.Slug
        Slug = info.Slug
        Question = info.Title
        Outcomes =
            Array.map2
                (fun name token -> {
                    Name = name
                    Token = ValueSome(ok (TokenId.Parse token))
                })
                info.Outcomes
                info.Tokens
        Status = MarketStatus.Open
        AcceptsOrders = true
        TickSize = ValueSome(Price.ofMillionths market.Tick)
        MinimumSize = Size.tryOfMillionths (1_000_000L * int64 info.MinimumSize)
        NegRisk = info.Event.NegRisk
        Start = ValueNone
        End = ValueNone
        ClosedAt = ValueNone
        Winner = ""
        Volume = ValueNone
        Liquidity = ValueNone
        OpenInterest = ValueNone
        Tags = [||]
        Updated = ValueNone
        Received = Instant.ofMicros 0L
        Raw = ""
    }

/// A row of a book's record: a change or a whole book.
[<Struct>]
type private Recorded = {
    At: int64
    Order: int
    Hash: string
    Verdict: Verdict
    /// The book after it.
    Levels: string
    Kind: string
}

let private printed (bids: struct (int64 * int64) seq) (asks: struct (int64 * int64) seq) =
    let side (levels: struct (int64 * int64) seq) =
        String.Join(" ", levels |> Seq.map (fun struct (price, size) -> $"{price}:{size}"))

    side bids + " | " + side asks

/// A book as a reader of the record keeps it.
[<Sealed>]
type private Rebuilt() =
    let bids =
        SortedDictionary<int64, int64>(Comparer<int64>.Create(fun a b -> compare b a))

    let asks = SortedDictionary<int64, int64>()

    member _.Load(snapshot: OrderBookSnapshot) =
        bids.Clear()
        asks.Clear()

        for level in snapshot.Bids do
            bids[level.Price.Millionths] <- level.Size.Millionths

        for level in snapshot.Asks do
            asks[level.Price.Millionths] <- level.Size.Millionths

    member _.Apply(delta: OrderBookDelta) =
        let side = if delta.Side = Side.Buy then bids else asks

        if delta.Size.Millionths = 0L then
            side.Remove delta.Price.Millionths |> ignore
        else
            side[delta.Price.Millionths] <- delta.Size.Millionths

    member _.Text =
        let levels (side: SortedDictionary<int64, int64>) =
            side |> Seq.map (fun (KeyValue(price, size)) -> struct (price, size))

        printed (levels bids) (levels asks)

let private second = 1_000_000L

/// Plays a plan to its end, and compares.
let run (plan: Plan) : Outcome =
    let exchange =
        Exchange {
            SimulatorOptions.Default with
                Seed = plan.Seed
                Markets = plan.Markets
                History = TimeSpan.FromMinutes 1.0
                Limits = false
                MessagesPerSecond = plan.Rate
                TradesPerSecond = plan.Rate / 25.0
                StreamFaults = plan.Faults
                StreamFaultRate = plan.FaultRate
                Clock = Standing()
        }

    let markets = exchange.World.Markets |> Array.filter _.Closed.IsNone
    let names = Names()
    let depth = Depth(collector.Exchange, part, DepthRules.usual, names)
    depth.HashEvery <- plan.HashEvery
    let frame = Frame names
    let out = Batch names
    out.Exchange <- string collector.Exchange
    let polls = Batch names
    let random = Random plan.Seed
    let mutable now = exchange.Now
    let mutable heard, order = 0, 0
    let wrong = List<string>()
    let gaps = Dictionary<struct (string * Instant * Cause), Gap>()
    let records = Dictionary<string, List<Recorded>>()
    let rebuilt = Dictionary<string, Rebuilt>()

    let recordOf token =
        match records.TryGetValue token with
        | true, record -> record
        | _ ->
            let record = List()
            records[token] <- record
            rebuilt[token] <- Rebuilt()
            record

    let rows =
        List<struct (int64 * int * string * Choice<OrderBookDelta, OrderBookSnapshot>)>()

    /// Takes the rows as a store would get them.
    let collect () =
        for gap in out.Gaps do
            let key = struct (string gap.Token.Value, gap.Since, gap.Cause)

            match gaps.TryGetValue key with
            | true, known when known.Until.IsSome && gap.Until.IsNone ->
                wrong.Add $"a closed gap is opened: {gap}"
            | _ -> gaps[key] <- gap

        for i in 0 .. out.Deltas.Count - 1 do
            let delta = out.Delta i
            order <- order + 1
            rows.Add(struct (delta.At.Micros, order, string delta.Token, Choice1Of2 delta))

        for i in 0 .. out.Books.Count - 1 do
            let book = out.Book i
            order <- order + 1
            rows.Add(struct (book.At.Micros, order, string book.Token, Choice2Of2 book))

        out.Clear()

    /// Reads the rows in the order of their moments, as whoever rebuilds a book does.
    let rebuild () =
        // A whole book has its place right behind the change that has its hash, if there is one in its millisecond.
        let changes = Dictionary<struct (string * int64 * string), int>()

        for struct (at, order, token, row) in rows do
            match row with
            | Choice1Of2 delta -> changes.TryAdd(struct (token, at, delta.Hash), order) |> ignore
            | Choice2Of2 _ -> ()

        let placed
            (struct (at, order, token, row):
                struct (int64 * int * string * Choice<OrderBookDelta, OrderBookSnapshot>))
            =
            match row with
            | Choice2Of2 snapshot ->
                match changes.TryGetValue(struct (token, at, snapshot.Hash)) with
                | true, change -> struct (at, change, 1)
                | _ -> struct (at, order, 1)
            | Choice1Of2 _ -> struct (at, order, 0)

        for struct (at, order, token, row) in rows |> Seq.sortBy placed do
            let record = recordOf token
            let book = rebuilt[token]

            let hash, verdict, kind =
                match row with
                | Choice1Of2 delta ->
                    book.Apply delta
                    delta.Hash, delta.Verdict, $"{delta.Side} {delta.Price} {delta.Size}"
                | Choice2Of2 snapshot ->
                    book.Load snapshot
                    snapshot.Hash, snapshot.Verdict, Reason.text snapshot.Reason

            record.Add {
                At = at / 1000L
                Order = order
                Hash = hash
                Verdict = verdict
                Levels = book.Text
                Kind = kind
            }

    // Connections by number; what is said on each, and when it was heard last.
    let sessions = Dictionary<int, Session>()
    let heardAt = Dictionary<int, int64>()
    let pinged = Dictionary<int, int64>()
    let waiting = List<struct (int * int64)>()
    let mutable shards = Shards.empty 16
    let retiring = Dictionary<int, int64>()
    let at () = Instant.ofMicros now

    let connect number =
        let tokens = Shards.tokens number shards

        if not tokens.IsEmpty then
            let session = exchange.Open()
            sessions[number] <- session
            heardAt[number] <- now
            pinged[number] <- now
            List.iter session.Hear (talk.Open tokens)
            depth.Subscribed(number, tokens, at ())

    let close number cause =
        match sessions.TryGetValue number with
        | true, session ->
            sessions.Remove number |> ignore
            session.Leave()
            depth.Lost(number, cause, at (), out)

            if not (retiring.Remove number) then
                let after, fresh = Shards.replace number shards
                shards <- after
                waiting.Add(struct (fresh, now + second / 2L + int64 (random.Next 1_000_000)))
        | _ -> ()

    let poll (tokens: string seq) =
        for token in tokens do
            match exchange.World.MarketByToken token with
            | Some struct (market, side) when market.Closed.IsNone ->
                polls.Clear()
                let request = (collector.Ask(Need.Books [ ok (TokenId.Parse token) ])).Head

                collector.Decode request (ReadOnlyMemory (market.Page side).Bytes) (at ()) polls
                |> ignore

                depth.Polled(&polls.Books[0], polls, at (), out)
            | _ -> ()

    let carryOut () =
        while depth.Orders.Count > 0 do
            let orders = depth.Orders.ToArray()
            depth.Orders.Clear()

            for order in orders do
                match order with
                | DepthOrder.Compare tokens -> poll (tokens |> List.map string)
                | DepthOrder.Renew(connection, tokens) ->
                    match sessions.TryGetValue connection with
                    | true, session ->
                        List.iter session.Hear (talk.Renew tokens)
                        depth.Subscribed(connection, tokens, at ())
                    | _ -> ()
                | DepthOrder.Move token ->
                    let after, number = Shards.move token shards
                    shards <- after

                    match sessions.TryGetValue number with
                    | true, session ->
                        List.iter session.Hear (talk.Subscribe [ token ])
                        depth.Subscribed(number, [ token ], at ())
                    | _ -> connect number
                | DepthOrder.Unsubscribe(connection, token) ->
                    match sessions.TryGetValue connection with
                    | true, session -> List.iter session.Hear (talk.Unsubscribe [ token ])
                    | _ -> ()
                | DepthOrder.Rotate number ->
                    let after, fresh = Shards.replace number shards
                    shards <- after
                    retiring[number] <- now
                    connect fresh

    for market in markets do
        depth.Follow(describe market, DepthMode.Full)

    let planned, placed =
        Shards.add [ for market in markets -> List.ofArray (describe market).Tokens ] shards

    shards <- planned

    for number, _ in placed do
        connect number

    let all = markets |> Array.collect _.Info.Tokens
    let mutable ticks = 0
    let limit = exchange.Now + 3_600L * second

    let rec play until limit =
        while heard < until && now < limit do
            now <- now + 20_000L
            ticks <- ticks + 1

            for number in Seq.toArray sessions.Keys do
                match sessions.TryGetValue number with
                | true, session ->
                    for sent in session.Advance now do
                        if sent.Close <> 0 then
                            close number Cause.Disconnect
                        elif sessions.ContainsKey number then
                            heard <- heard + 1
                            heardAt[number] <- now
                            frame.Clear()
                            talk.Decode (ReadOnlyMemory sent.Payload) (Instant.ofMicros sent.At) frame

                            for rejection in frame.Batch.Rejections do
                                wrong.Add $"{rejection.Reason}: {Encoding.UTF8.GetString rejection.Bytes}"

                            depth.Hear(
                                number,
                                ReadOnlySpan sent.Payload,
                                frame,
                                Instant.ofMicros sent.At,
                                out
                            )

                            collect ()
                            carryOut ()

                    if sessions.ContainsKey number then
                        if now - pinged[number] >= 10L * second then
                            pinged[number] <- now
                            session.Hear part.Ping

                        if now - heardAt[number] > 15L * second then
                            close number Cause.Starved
                | _ -> ()

            for i in waiting.Count - 1 .. -1 .. 0 do
                let struct (number, due) = waiting[i]

                if due <= now then
                    waiting.RemoveAt i
                    connect number

            for KeyValue(number, since) in Seq.toArray retiring do
                if now - since > 20L * second || depth.IsIdle number then
                    close number Cause.Disconnect

            if ticks % 500 = 0 then
                poll all

            if ticks % 10 = 0 then
                depth.Tick(at (), out)
                carryOut ()

            collect ()

    play plan.Messages limit
    // Well-behaved and quieter at the end, so that what was struck last is noticed.
    exchange.World.StreamFaults <- Set.empty
    exchange.MessagesPerSecond <- 10.0
    play Int32.MaxValue (now + 60L * second)

    rebuild ()

    // ---- the exchange's own word

    let mutable states, inGap, unproven, overwritten = 0, 0, 0, 0
    // What is held back may never come: its connection may end before.
    let lossy =
        [ StreamFault.Dropped; StreamFault.Reordered ] |> List.map StreamFault.name

    let dropped =
        exchange.Ledger.Injections
        |> Array.filter (fun one -> List.contains one.Kind lossy)

    let misleading = exchange.Ledger.Injections |> Array.filter _.Misleads

    let gapsOf =
        gaps.Values
        |> Seq.groupBy (fun gap -> string gap.Token.Value)
        |> Seq.map (fun (token, gaps) ->
            token,
            gaps
            |> Seq.filter _.Healed.IsNone
            |> Seq.map (fun gap ->
                struct (gap.Since.Micros / 1000L,
                        (match gap.Until with
                         | ValueSome until -> until.Micros / 1000L
                         | ValueNone -> Int64.MaxValue)))
            |> Array.ofSeq)
        |> dict

    for token in all do
        let truth = exchange.Ledger.States token

        let mine =
            HashSet(truth |> Seq.map (fun state -> struct (state.Timestamp, state.Hash)))

        let holes =
            match gapsOf.TryGetValue token with
            | true, holes -> holes
            | _ -> [||]

        let isInGap moment =
            holes
            |> Array.exists (fun struct (since, until) -> since <= moment && moment < until)

        let record =
            match records.TryGetValue token with
            | true, record -> record.ToArray()
            | _ -> [||]

        for row in record do
            if row.Verdict = Verdict.Verified && not (mine.Contains(struct (row.At, row.Hash))) then
                wrong.Add $"seed {plan.Seed}: a verified state that never was: {token} at {row.At} {row.Hash}"

        if record.Length > 0 then
            let first = record[0].At
            let ordered = record
            // The last state of each millisecond, as far as there was time to notice what is wrong with it.
            let last = now / 1000L - 30_000L

            let ends =
                truth
                |> Array.groupBy _.Timestamp
                |> Array.map (fun (moment, states) -> moment, Array.last states)
                |> Array.filter (fun (moment, _) -> moment >= first && moment <= last)

            let mutable next = 0
            let mutable lastTrue = 0L
            let doubted = List<string>()

            for moment, state in ends do
                while next < ordered.Length && ordered[next].At <= moment do
                    next <- next + 1

                states <- states + 1

                if isInGap moment then
                    inGap <- inGap + 1

                    // The state with which a hole begins is proven.
                    if holes |> Array.exists (fun struct (since, _) -> since = moment) then
                        overwritten <- overwritten + doubted.Count
                    else
                        for one in doubted do
                            wrong.Add $"seed {plan.Seed}: {token} at {one}, before the gap that it belongs to"

                    doubted.Clear()
                    lastTrue <- moment
                else
                    let row = ordered[next - 1]

                    if row.Verdict <> Verdict.Verified then
                        unproven <- unproven + 1

                    let isTrue =
                        // An order that came and went leaves the book as it was, with a new time and hash: nothing to store.
                        match exchange.Ledger.BookAt(token, moment) with
                        | ValueSome book -> printed book.Bids book.Asks = row.Levels
                        | ValueNone -> false

                    // A change that was lost, and overwritten by the next one of the same level: no message tells of it. It shows in
                    // that the record is true again with its next row, without a gap.
                    if isTrue then
                        overwritten <- overwritten + doubted.Count
                        doubted.Clear()
                        lastTrue <- moment
                    else if
                        dropped
                        |> Array.exists (fun injection ->
                            injection.At / 1000L > lastTrue
                            && injection.At / 1000L <= moment
                            && Array.contains token injection.Tokens)
                    then
                        doubted.Add
                            $"{moment} was {state.Hash} and is recorded as {row.Verdict} {row.Hash} of {row.At}"
                    else
                        wrong.Add
                            $"seed {plan.Seed}: {token} at {moment} was {state.Hash} and is recorded as {row.Verdict} {row.Hash} of {row.At}, in no gap"

            for one in doubted do
                wrong.Add $"seed {plan.Seed}: {token} at {one}, in no gap, and never again as it was"

    {
        Messages = heard
        Verified = depth.Counts.Verified
        Unverifiable = depth.Counts.Unverifiable
        Mismatched = depth.Counts.Mismatched
        Gaps = List.ofSeq gaps.Values
        Injections = exchange.Ledger.Injections.Length
        Misleading = misleading.Length
        States = states
        InGap = inGap
        Overwritten = overwritten
        Unproven = unproven
        Wrong = List.ofSeq wrong
    }
