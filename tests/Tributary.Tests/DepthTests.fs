module Tributary.Tests.DepthTests

open System
open System.Collections.Generic
open NUnit.Framework
open Tributary
open Tributary.Exchanges
open Tributary.Tests.Exchanges

let private part = collector.Stream.Value
let private session = part.Session()
let private up, down = "1111", "2222"
let private condition = "0xc0ffee"
let private start = 1_790_000_000_000L

let private described: Market = {
    Exchange = collector.Exchange
    Market = market condition
    Event = ""
    Slug = ""
    Question = ""
    Outcomes = [|
        for name, id in [ "Yes", up; "No", down ] ->
            {
                Name = name
                Token = ValueSome(token id)
            }
    |]
    Status = MarketStatus.Open
    AcceptsOrders = true
    TickSize = ValueSome(price "0.01")
    MinimumSize = ValueSome(size "5")
    NegRisk = false
    Start = ValueNone
    End = ValueNone
    ClosedAt = ValueNone
    Winner = ""
    Volume = ValueNone
    Liquidity = ValueNone
    OpenInterest = ValueNone
    Tags = [||]
    Updated = ValueNone
    Received = received
    Raw = ""
}

let private cents (price: int) = Fixed.text (10_000L * int64 price)

/// A market as the exchange has it, and the live book that hears of it. Prices are cents, sizes shares, moments milliseconds; both clocks
/// are the same. Unless said otherwise a message is of the token "yes" and comes over connection 1.
type private World(mode: DepthMode, rules: DepthRules) =
    let names = Names()
    let depth = Depth(collector.Exchange, part, rules, names)
    let out = Batch names
    let frame = Frame names
    let bids, asks = SortedDictionary<int, int>(), SortedDictionary<int, int>()
    let mutable now, changedAt, last = 0L, 0L, "0.5"
    let instant (ms: int64) = Instant.ofMillis (start + ms)

    // Worst first, as served.
    let levels isUp isBid =
        let side = if isUp = isBid then bids else asks

        [
            for KeyValue(price, size) in side -> cents (if isUp then price else 100 - price), string size
        ]
        |> List.sortBy (fun (price, _) -> if isBid then decimal price else -(decimal price))

    let hashed isUp : HashedBook = {
        Market = condition
        Token = if isUp then up else down
        Timestamp = string (start + changedAt)
        Bids = levels isUp true
        Asks = levels isUp false
        MinimumSize = "5"
        TickSize = "0.01"
        NegRisk = false
        LastTradePrice = last
    }

    let members isUp =
        let book = hashed isUp

        let side (levels: (string * string) list) =
            list [
                for price, size in levels -> object [ "price", quoted price; "size", quoted size ]
            ]

        [
            "market", quoted book.Market
            "asset_id", quoted book.Token
            "timestamp", quoted book.Timestamp
            "hash", quoted (PolymarketHash.hash HashEra.Ten book)
            "bids", side book.Bids
            "asks", side book.Asks
        ]

    do
        out.Exchange <- string collector.Exchange
        depth.Follow(described, mode)

        for price, size in [ 40, 5; 39, 5; 38, 5 ] do
            bids[price] <- size

        for price, size in [ 60, 5; 61, 5 ] do
            asks[price] <- size

    new(mode) = World(mode, DepthRules.usual)
    new() = World DepthMode.Full
    member _.Depth = depth
    member _.Out = out
    member _.Now = instant now
    member _.At ms = instant ms
    member _.Wait ms = now <- now + ms

    /// The price of the last fill, which hashes cover from now on.
    member _.Last
        with set value = last <- value

    /// Time passes, and is noticed.
    member this.Pass ms =
        this.Wait ms
        depth.Tick(instant now, out)

    /// What was ordered since it was asked last.
    member _.Orders =
        let orders = List.ofSeq depth.Orders
        depth.Orders.Clear()
        orders

    member _.Subscribe connection =
        depth.Subscribed(connection, [ token up ], instant now)

    member _.Lose(connection: int) =
        depth.Lost(connection, Cause.Disconnect, instant now, out)

    member _.Hear(text: string, ?connection: int) =
        let bytes = utf8 text
        frame.Clear()
        session.Decode (ReadOnlyMemory bytes) (instant now) frame
        equal [] (reasons frame.Batch)
        depth.Hear(defaultArg connection 1, ReadOnlySpan bytes, frame, instant now, out)

    // ---- what the exchange does and says

    /// The level changes; answers the message that says so.
    member _.Set(side, price, size) =
        let levels = if side = Side.Buy then bids else asks

        if size = 0 then
            levels.Remove price |> ignore
        else
            levels[price] <- size

        changedAt <- now
        let bid = if bids.Count = 0 then "0" else cents (Seq.max bids.Keys)
        let ask = if asks.Count = 0 then "1" else cents (Seq.min asks.Keys)

        let level =
            object [
                "asset_id", quoted up
                "price", quoted (cents price)
                "size", quoted (string size)
                "side", quoted (if side = Side.Buy then "BUY" else "SELL")
                "hash", quoted (PolymarketHash.hash HashEra.Ten (hashed true))
                "best_bid", quoted bid
                "best_ask", quoted ask
            ]

        object [
            "market", quoted condition
            "price_changes", list [ level ]
            "timestamp", quoted (string (start + now))
            "event_type", quoted "price_change"
        ]

    /// The level changes, and the message comes.
    member this.Change(side, price, size) = this.Hear(this.Set(side, price, size))

    /// The level changes, and the message does not come.
    member this.Silently(side, price, size) = this.Set(side, price, size) |> ignore

    /// The first book of a subscription.
    member _.First(?isDown: bool) =
        members (not (defaultArg isDown false))
        @ [
            "tick_size", quoted "0.01"
            "last_trade_price", quoted last
            "event_type", quoted "book"
        ]
        |> object

    /// The book that follows fills.
    member _.Refresh(?isDown: bool) =
        object (members (not (defaultArg isDown false)) @ [ "event_type", quoted "book" ])

    member _.Fill(price: int, size: int) =
        object [
            "market", quoted condition
            "asset_id", quoted up
            "price", quoted (cents price)
            "size", quoted (string size)
            "fee_rate_bps", quoted "0"
            "side", quoted "SELL"
            "timestamp", quoted (string (start + now))
            "transaction_hash", quoted "0x1"
            "event_type", quoted "last_trade_price"
        ]

    /// A poll brings the book as it is.
    member _.Poll() =
        let polled = Batch names

        let body =
            members true
            @ [
                "min_order_size", quoted "5"
                "tick_size", quoted "0.01"
                "neg_risk", "false"
                "last_trade_price", quoted last
            ]
            |> object

        collector.Decode
            (single (collector.Ask(Need.Books [ token up ])))
            (memory (list [ body ]))
            (instant now)
            polled
        |> ignore

        equal Verdict.Verified polled.Books[0].Verdict
        depth.Polled(&polled.Books[0], polled, instant now, out)

    // ---- what is recorded

    member _.Deltas = [
        for i in 0 .. out.Deltas.Count - 1 do
            let delta = out.Delta i
            let ms = delta.At.Micros / 1_000L - start
            $"{ms}.{delta.Ordinal} {Side.text delta.Side} {delta.Price} {delta.Size} {Verdict.text delta.Verdict}"
    ]

    member _.Books = [
        for i in 0 .. out.Books.Count - 1 do
            let book = out.Book i
            $"{book.At.Micros / 1_000L - start} {Reason.text book.Reason} {Verdict.text book.Verdict}"
    ]

    member _.Gaps =
        let moment (at: Instant) =
            string (decimal (at.Micros - 1_000L * start) / 1_000m)

        [
            for gap in out.Gaps do
                equal (ValueSome(token up)) gap.Token
                let until = gap.Until |> ValueOption.map moment |> ValueOption.defaultValue "-"

                let healed =
                    match gap.Healed with
                    | ValueSome(struct (_, how)) -> " " + how
                    | ValueNone -> ""

                $"{moment gap.Since}..{until} {gap.Cause}{healed}"
        ]

    /// The live book's verdict and doubt; the levels are those of the exchange, or not.
    member _.State =
        match depth.TryBook(token up) with
        | ValueSome(struct (book, _, verdict, doubt)) ->
            let side isBid =
                levels true isBid
                |> List.map (fun (p, s) -> { Price = price p; Size = size s })
                |> List.rev
                |> Array.ofList

            let isRight = book.Has(ReadOnlySpan(side true), ReadOnlySpan(side false))
            struct (Verdict.text verdict, Doubt.text doubt, isRight)
        | ValueNone -> struct ("", "", false)

/// A world whose first book has come, at 0 by the clock.
let private begun (world: World) =
    world.Subscribe 1
    world.Hear(world.First())
    // The first poll is asked for at once, and the first checkpoint is written.
    world.Pass 0L
    world.Orders |> ignore
    world.Out.Checkpoints.Clear()
    world

let private verified = struct ("verified", "", true)

// ---- first books and changes

[<Test>]
let ``the first book is verified`` () =
    let w = begun (World())
    equal verified w.State
    equal [ "0 first verified" ] w.Books
    equal ([], []) (w.Gaps, w.Orders)

[<Test>]
let ``a change with the right hash is verified, and changes of a millisecond have their places in it`` () =
    let w = begun (World())
    w.Wait 10L
    w.Change(Side.Buy, 41, 7)
    w.Change(Side.Sell, 60, 0)
    w.Change(Side.Buy, 39, 2)
    w.Wait 1L
    w.Change(Side.Buy, 39, 3)

    equal
        [
            "10.0 buy 0.41 7 verified"
            "10.1 sell 0.6 0 verified"
            "10.2 buy 0.39 2 verified"
            "11.0 buy 0.39 3 verified"
        ]
        w.Deltas

    equal verified w.State
    equal [] w.Gaps

[<Test>]
let ``a change before the first book is kept for it`` () =
    let w = World()
    w.Subscribe 1
    let first = w.First()
    w.Wait 10L
    w.Change(Side.Buy, 41, 7)
    equal (1L, []) (w.Depth.Counts.Early, w.Deltas)
    w.Hear first
    equal [ "10.0 buy 0.41 7 verified" ] w.Deltas
    equal verified w.State

[<Test>]
let ``what another connection says of a book is not heard`` () =
    let w = begun (World())
    w.Wait 10L
    w.Hear(w.Set(Side.Buy, 41, 7), 9)
    equal [] w.Deltas

[<Test>]
let ``tokens that nobody follows are passed over`` () =
    let w = begun (World())
    w.Hear(w.First().Replace(up, "3333"))
    equal [ "0 first verified" ] w.Books

// ---- repeats

[<Test>]
let ``a repeat is counted and not stored`` () =
    let w = begun (World())
    w.Wait 10L
    let message = w.Set(Side.Buy, 41, 7)

    for _ in 1..3 do
        w.Hear message

    equal [ "10.0 buy 0.41 7 verified" ] w.Deltas
    equal 2L w.Depth.Counts.Repeats
    equal verified w.State

[<Test>]
let ``a book that is compared for two reasons is asked for once`` () =
    let w = World()
    w.Subscribe 1
    w.Hear(w.First())
    w.Wait 10L
    let message = w.Set(Side.Buy, 41, 7)
    w.Hear message
    w.Change(Side.Buy, 41, 8)
    w.Hear message
    w.Pass 501L
    equal [ DepthOrder.Compare [ token up ] ] w.Orders

[<Test>]
let ``a repeat that would undo a later change of its millisecond is ambiguous until a poll tells`` () =
    let w = begun (World())
    w.Wait 10L
    let message = w.Set(Side.Buy, 41, 7)
    w.Hear message
    w.Change(Side.Buy, 41, 8)
    w.Hear message
    equal (struct ("unverifiable", "ambiguous", true)) w.State
    equal [ "10.0 buy 0.41 7 verified"; "10.1 buy 0.41 8 verified" ] w.Deltas
    w.Pass 501L
    equal [ DepthOrder.Compare [ token up ] ] w.Orders
    w.Poll()
    equal verified w.State
    w.Wait 10L
    w.Change(Side.Buy, 41, 9)
    equal verified w.State
    isTrue (w.Gaps |> List.forall _.EndsWith("unchanged"))

[<Test>]
let ``a change that leads back to an earlier book of its millisecond is no repeat`` () =
    let w = begun (World())
    w.Wait 10L
    w.Change(Side.Buy, 41, 7)
    w.Change(Side.Buy, 42, 3)
    w.Change(Side.Buy, 42, 0)

    equal
        [
            "10.0 buy 0.41 7 verified"
            "10.1 buy 0.42 3 verified"
            "10.2 buy 0.42 0 verified"
        ]
        w.Deltas

    equal verified w.State
    equal (0L, []) (w.Depth.Counts.Repeats, w.Gaps)

[<Test>]
let ``a change that is made again within its millisecond is found by the next hash`` () =
    let w = begun (World())
    w.Wait 10L
    w.Change(Side.Buy, 41, 7)
    w.Change(Side.Buy, 41, 8)
    w.Change(Side.Buy, 41, 7)
    equal (struct ("unverifiable", "ambiguous", false)) w.State
    w.Wait 10L
    w.Change(Side.Buy, 40, 2)
    equal verified w.State

    equal
        [
            "10.0 buy 0.41 7 verified"
            "10.1 buy 0.41 8 verified"
            "10.2 buy 0.41 7 unverifiable"
            "20.0 buy 0.4 2 verified"
        ]
        w.Deltas

    equal [] w.Gaps

[<Test>]
let ``a second delivery that would undo a change of its millisecond is told by the next hash`` () =
    let w = begun (World())
    w.Wait 10L
    let message = w.Set(Side.Buy, 41, 7)
    w.Hear message
    w.Change(Side.Buy, 41, 8)
    w.Hear message
    w.Wait 10L
    w.Change(Side.Buy, 40, 2)
    equal verified w.State

    equal
        [
            "10.0 buy 0.41 7 verified"
            "10.1 buy 0.41 8 verified"
            "20.0 buy 0.4 2 verified"
        ]
        w.Deltas

    equal [] w.Gaps

[<Test>]
let ``a taker who leads back to an earlier book of its millisecond is found by the next hash`` () =
    let w = begun (World())
    w.Wait 10L
    w.Change(Side.Sell, 59, 4)
    w.Change(Side.Sell, 58, 6)
    w.Silently(Side.Sell, 58, 0)
    w.Hear(w.Fill(58, 6))
    w.Last <- "0.58"
    w.Silently(Side.Sell, 58, 6)
    w.Silently(Side.Sell, 58, 0)
    w.Last <- "0.5"
    w.Hear(w.Refresh())
    equal (struct ("unverifiable", "ambiguous", false)) w.State
    w.Wait 10L
    w.Last <- "0.58"
    w.Change(Side.Buy, 40, 2)
    equal verified w.State

    equal
        [
            "10.0 sell 0.59 4 verified"
            "10.1 sell 0.58 6 verified"
            "10.2 sell 0.58 0 unverifiable"
            "20.0 buy 0.4 2 verified"
        ]
        w.Deltas

    equal [] w.Gaps

[<Test>]
let ``fills older than ten seconds are forgotten, and the others keep their numbers`` () =
    let fills = Fills()

    for i in 1L .. 100_000L do
        fills.Add {
            FilledAt = Instant.ofMillis (100L * i)
            Filled = i
        }

    equal (99_899L, 100_000L) (fills.First, fills.Next)

    for number in fills.First .. fills.Next - 1L do
        equal (number + 1L) fills[number].Filled

// ---- lost, late and doubted changes

[<Test>]
let ``after a lost change the next one is not verified, and a gap goes from the last proven state to the next``
    ()
    =
    let w = begun (World())
    w.Wait 10L
    w.Change(Side.Buy, 41, 7)
    w.Wait 10L
    w.Silently(Side.Buy, 39, 1)
    w.Wait 10L
    w.Change(Side.Buy, 41, 8)
    equal (struct ("unverifiable", "pending", false)) w.State
    equal [] w.Gaps
    w.Pass 501L
    equal [ "10..- mismatch" ] w.Gaps
    equal [ DepthOrder.Compare [ token up ] ] w.Orders
    w.Silently(Side.Buy, 38, 1)
    w.Poll()
    equal [ "10..- mismatch"; "10..531 mismatch" ] w.Gaps
    equal [ "0 first verified"; "531 resync verified" ] w.Books
    equal [ "10.0 buy 0.41 7 verified"; "30.0 buy 0.41 8 unverifiable" ] w.Deltas
    equal verified w.State

[<Test>]
let ``a change that takes back a lost one has a row, although it leaves its level as it was`` () =
    let w = begun (World())
    w.Wait 10L
    w.Change(Side.Buy, 41, 7)
    w.Wait 10L
    w.Silently(Side.Buy, 45, 1)
    w.Wait 10L
    w.Change(Side.Buy, 45, 0)
    equal [] w.Gaps
    equal [ "10.0 buy 0.41 7 verified"; "30.0 buy 0.45 0 verified" ] w.Deltas
    equal verified w.State

[<Test>]
let ``a poll of the very state that a lost change left unproven ends the gap`` () =
    let w = begun (World())
    w.Wait 10L
    w.Silently(Side.Buy, 39, 1)
    w.Wait 10L
    w.Change(Side.Buy, 41, 8)
    w.Pass 501L
    equal [ "0..- mismatch" ] w.Gaps
    w.Poll()
    equal [ "0..- mismatch"; "0..20 mismatch" ] w.Gaps
    equal verified w.State

[<Test>]
let ``a lost change shows at once when the best price is another one`` () =
    let w = begun (World())
    w.Wait 10L
    w.Silently(Side.Buy, 45, 1)
    w.Wait 10L
    w.Change(Side.Buy, 38, 8)
    equal (struct ("mismatched", "best_price", false)) w.State
    equal [ "0..- mismatch" ] w.Gaps
    equal [ DepthOrder.Compare [ token up ] ] w.Orders

[<Test>]
let ``a gap that a poll does not end leads to a new subscription, and then to another connection`` () =
    let w = begun (World())
    w.Wait 10L
    w.Silently(Side.Buy, 45, 1)
    w.Change(Side.Buy, 38, 8)
    equal [ DepthOrder.Compare [ token up ] ] w.Orders
    w.Pass 10_001L
    equal [ DepthOrder.Renew(1, [ token up ]) ] w.Orders
    w.Pass 10_001L
    equal [ DepthOrder.Move(token up) ] w.Orders

[<Test>]
let ``a hash that covers a fill which is announced later is no gap`` () =
    let w = begun (World())
    w.Wait 10L
    w.Last <- "0.45"
    w.Change(Side.Buy, 39, 4)
    equal (struct ("unverifiable", "pending", true)) w.State
    w.Wait 88L
    w.Hear(w.Fill(45, 3))
    equal verified w.State
    w.Pass 600L
    equal ([], []) (w.Gaps, w.Orders)
    equal [ "10.0 buy 0.39 4 unverifiable" ] w.Deltas
    w.Change(Side.Buy, 39, 5)
    equal verified w.State

[<Test>]
let ``a change that was overtaken has its row and its place in time, and nothing is missing`` () =
    let w = begun (World())
    w.Wait 10L
    let overtaken = w.Set(Side.Buy, 38, 1)
    w.Wait 10L
    w.Change(Side.Buy, 39, 4)
    w.Hear overtaken
    equal verified w.State
    w.Pass 600L
    equal [] w.Gaps
    equal [ "20.0 buy 0.39 4 unverifiable"; "10.0 buy 0.38 1 unverifiable" ] w.Deltas
    equal 1L w.Depth.Counts.Late

[<Test>]
let ``a whole book that comes late, of a state that was overwritten and nobody missed, is a gap`` () =
    let w = begun (World())
    w.Wait 10L
    w.Silently(Side.Buy, 40, 3)
    let late = w.Refresh()
    w.Wait 10L
    w.Change(Side.Buy, 40, 2)
    equal (verified, []) (w.State, w.Gaps)
    w.Hear late
    w.Hear late
    equal verified w.State
    equal [ "10..20 mismatch" ] w.Gaps
    equal [ "0 first verified"; "20 resync verified" ] w.Books

[<Test>]
let ``a whole book that comes late and is known changes nothing`` () =
    let w = begun (World())
    w.Wait 10L
    w.Change(Side.Buy, 40, 3)
    let late = w.Refresh()
    w.Wait 10L
    w.Change(Side.Buy, 40, 2)
    w.Hear late
    equal (verified, []) (w.State, w.Gaps)

[<Test>]
let ``a lost book that the mirror shows is a gap, although the next change overwrites it`` () =
    let w = begun (World())
    w.Depth.Subscribed(1, [ token down ], w.Now)
    w.Hear(w.First(isDown = true))
    w.Wait 10L
    w.Silently(Side.Buy, 40, 3)
    w.Hear(w.Refresh(isDown = true))
    w.Wait 10L
    w.Change(Side.Buy, 40, 2)
    equal verified w.State
    equal [ "0..20 mismatch" ] w.Gaps

[<Test>]
let ``books of both tokens that follow a fill lack nothing`` () =
    let w = begun (World())
    w.Depth.Subscribed(1, [ token down ], w.Now)
    w.Hear(w.First(isDown = true))
    w.Wait 10L
    w.Silently(Side.Buy, 40, 3)
    w.Last <- "0.40"
    w.Hear(w.Fill(40, 2))
    w.Hear(w.Refresh(isDown = true))
    w.Hear(w.Refresh())
    w.Wait 10L
    w.Change(Side.Buy, 40, 2)
    equal (verified, []) (w.State, w.Gaps)

[<Test>]
let ``a repeat that comes late changes nothing`` () =
    let w = begun (World())
    w.Wait 10L
    let message = w.Set(Side.Buy, 41, 7)
    w.Hear message
    w.Wait 10L
    w.Change(Side.Buy, 41, 0)
    w.Hear message
    equal verified w.State
    equal ([], 2) (w.Gaps, w.Deltas.Length)

// ---- connections

[<Test>]
let ``a lost connection is a gap, which the first book of the next one ends`` () =
    let w = begun (World())
    w.Wait 10L
    w.Lose 1
    equal [ "0..- disconnect" ] w.Gaps
    w.Silently(Side.Buy, 41, 7)
    w.Wait 1_000L
    w.Subscribe 2
    w.Hear(w.First(), 2)
    equal [ "0..- disconnect"; "0..10 disconnect" ] w.Gaps
    equal [ "0 first verified"; "10 resync verified" ] w.Books
    equal verified w.State

[<Test>]
let ``an outage in which nothing changed is healed, and two of them are two rows`` () =
    let w = begun (World())

    for connection in [ 1; 2 ] do
        w.Wait 1_000L
        w.Lose connection
        w.Wait 1_000L
        w.Subscribe(connection + 1)
        w.Hear(w.First(), connection + 1)

    equal
        [
            "0..- disconnect"
            "0..0 disconnect unchanged"
            "0.001..- disconnect"
            "0.001..0.001 disconnect unchanged"
        ]
        w.Gaps

    equal verified w.State

[<Test>]
let ``a first book that does not come in ten seconds is a gap, and asked for anew`` () =
    let w = World()
    w.Subscribe 1
    w.Pass 9_999L
    equal ([], []) (w.Gaps, w.Orders)
    w.Pass 2L
    equal [ "0..- starved" ] w.Gaps
    equal [ DepthOrder.Renew(1, [ token up ]) ] w.Orders
    w.Subscribe 1
    w.Silently(Side.Buy, 41, 7)
    w.Hear(w.First())
    equal [ "0..- starved"; "0..10001 starved" ] w.Gaps
    equal [ "10001 resync verified" ] w.Books

[<Test>]
let ``a poll that is ahead of a silent connection for five seconds replaces the connection`` () =
    let w = begun (World())
    w.Wait 10L
    w.Silently(Side.Buy, 41, 7)
    w.Poll()
    w.Pass 5_000L
    equal ([], []) (w.Gaps, w.Orders)
    w.Pass 1L
    equal [ "0..- starved" ] w.Gaps
    equal [ DepthOrder.Rotate 1 ] w.Orders

[<Test>]
let ``a poll that is ahead of one book of a connection that speaks subscribes to it anew`` () =
    let w = begun (World())
    w.Depth.Subscribed(1, [ token down ], w.Now)
    w.Wait 10L
    w.Silently(Side.Buy, 41, 7)
    w.Poll()
    w.Wait 10L
    w.Hear(w.First(isDown = true))
    w.Pass 0L
    w.Orders |> ignore
    w.Pass 5_001L
    equal [ "0..- starved" ] w.Gaps
    equal [ DepthOrder.Renew(1, [ token up ]) ] w.Orders

[<Test>]
let ``a poll that the stream catches up with is nothing`` () =
    let w = begun (World())
    w.Wait 10L
    let message = w.Set(Side.Buy, 41, 7)
    w.Poll()
    w.Wait 100L
    w.Hear message
    w.Poll()
    equal 1L w.Depth.Counts.Agreed
    w.Pass 6_000L
    equal ([], []) (w.Gaps, w.Orders)

[<Test>]
let ``a book that no poll was compared with for thirty seconds is asked for`` () =
    let w = begun (World())
    w.Poll()
    w.Pass 30_000L
    equal [] w.Orders
    w.Pass 1L
    equal [ DepthOrder.Compare [ token up ] ] w.Orders

// ---- hand-over

[<Test>]
let ``a move to a connection that is not ahead is done with its first book`` () =
    let w = begun (World())
    w.Wait 10L
    w.Subscribe 2
    w.Change(Side.Buy, 41, 7)
    w.Hear(w.First(), 2)
    equal [ DepthOrder.Unsubscribe(1, token up) ] w.Orders
    w.Wait 10L
    w.Hear(w.Set(Side.Buy, 41, 8), 2)
    equal [ "10.0 buy 0.41 7 verified"; "20.0 buy 0.41 8 verified" ] w.Deltas
    equal [] w.Gaps
    isTrue (w.Depth.IsIdle 1)

[<Test>]
let ``a move to a connection that is ahead waits for the old one, and loses nothing`` () =
    let w = begun (World())
    w.Subscribe 2
    w.Wait 10L
    let first = w.Set(Side.Buy, 41, 7)
    w.Hear(w.First(), 2)
    w.Wait 10L
    let second = w.Set(Side.Buy, 41, 8)
    w.Hear(second, 2)
    equal ([], []) (w.Deltas, w.Orders)
    w.Hear first
    equal [ DepthOrder.Unsubscribe(1, token up) ] w.Orders
    w.Hear second
    equal [ "10.0 buy 0.41 7 verified"; "20.0 buy 0.41 8 verified" ] w.Deltas
    equal verified w.State
    equal [] w.Gaps

[<Test>]
let ``a move whose old connection ends before it has caught up leaves a gap up to the new one's first book``
    ()
    =
    let w = begun (World())
    w.Subscribe 2
    w.Wait 10L
    w.Silently(Side.Buy, 41, 7)
    w.Hear(w.First(), 2)
    w.Wait 10L
    w.Hear(w.Set(Side.Buy, 41, 8), 2)
    w.Lose 1
    equal [ "0..- starved"; "0..10 starved" ] w.Gaps
    equal [ "20.0 buy 0.41 8 verified" ] w.Deltas
    equal verified w.State

// ---- books that stay crossed

[<Test>]
let ``a crossed book is remarkable only when it stays so`` () =
    let w = begun (World())
    w.Wait 10L
    w.Change(Side.Buy, 65, 1)
    w.Wait 1_999L
    w.Change(Side.Buy, 30, 1)
    w.Change(Side.Buy, 65, 0)
    w.Wait 10_000L
    w.Change(Side.Buy, 65, 1)
    w.Wait 2_000L
    w.Change(Side.Buy, 30, 2)
    equal 0L w.Depth.Counts.Crossed
    w.Wait 1L
    w.Change(Side.Buy, 30, 3)
    w.Change(Side.Buy, 30, 4)
    equal 1L w.Depth.Counts.Crossed
    w.Depth.Unfollow(described, w.Now, w.Out)
    let last = w.Out.Book(w.Out.Books.Count - 1)
    equal (Reason.Last, Flags.Crossed) (last.Reason, last.Flags)

// ---- how much is stored

[<Test>]
let ``the best two levels are kept as if there were no more`` () =
    let w = begun (World(DepthMode.Top 2))
    let first = w.Out.Book 0
    equal (2, 2) (first.Bids.Length, first.Asks.Length)
    w.Wait 10L
    w.Change(Side.Buy, 41, 7)
    w.Wait 10L
    w.Change(Side.Buy, 38, 9)
    w.Change(Side.Buy, 39, 9)
    w.Wait 10L
    w.Change(Side.Buy, 40, 6)
    w.Wait 10L
    w.Change(Side.Buy, 41, 0)
    w.Wait 10L
    w.Change(Side.Sell, 60, 0)

    equal
        [
            "10.0 buy 0.41 7 verified"
            "10.1 buy 0.39 0 verified"
            "30.0 buy 0.4 6 verified"
            "40.0 buy 0.41 0 verified"
            "40.1 buy 0.39 9 verified"
            "50.0 sell 0.6 0 verified"
        ]
        w.Deltas

    equal verified w.State

[<Test>]
let ``only whole books, or nothing, are stored when no more is wanted`` () =
    for mode, books in [ DepthMode.Snapshots, [ "0 first verified" ]; DepthMode.Off, [] ] do
        let w = begun (World mode)
        w.Wait 10L
        w.Change(Side.Buy, 41, 7)
        equal ([], books) (w.Deltas, w.Books)
        equal verified w.State

[<Test>]
let ``a whole book is stored after so many changes, and after some time`` () =
    let rules = {
        DepthRules.usual with
            SnapshotChanges = 3
    }

    let w = begun (World(DepthMode.Full, rules))

    for n in 1..7 do
        w.Wait 10L
        w.Change(Side.Buy, 41, n)

    equal [ "0 first verified"; "30 periodic verified"; "60 periodic verified" ] w.Books
    w.Wait 600_000L
    w.Change(Side.Buy, 41, 9)
    equal "600070 periodic verified" (List.last w.Books)

[<Test>]
let ``one hash in four is computed when that is wanted, and all of them after a doubt`` () =
    let w = begun (World())
    w.Depth.HashEvery <- 4

    for n in 1..8 do
        w.Wait 10L
        w.Change(Side.Buy, 41, n)

    equal [ 40; 80 ] [
        for delta in w.Deltas do
            if delta.EndsWith " verified" then
                int (delta.Split('.')[0])
    ]

    equal [] w.Gaps

// ---- books that come after fills

/// 5 at 40 and 2 at 39 are taken.
let private sweep (w: World) =
    w.Silently(Side.Buy, 40, 0)
    w.Silently(Side.Buy, 39, 3)

[<Test>]
let ``a book after fills is explained by them, whether they are told before it or after`` () =
    for isBefore in [ true; false ] do
        let w = begun (World())
        w.Wait 10L
        sweep w
        w.Last <- "0.39"
        let fills = [ w.Fill(40, 5); w.Fill(39, 2) ]

        if isBefore then
            fills |> List.iter w.Hear

        w.Hear(w.Refresh())

        if not isBefore then
            w.Wait 80L
            fills |> List.iter w.Hear

        equal verified w.State
        w.Pass 5_000L
        equal ([], []) (w.Gaps, w.Orders)

        equal [ "10.0 buy 0.4 0"; "10.1 buy 0.39 3" ] [
            for delta in w.Deltas -> delta.Substring(0, delta.LastIndexOf ' ')
        ]

        equal [ "0 first verified" ] w.Books

[<Test>]
let ``a book that is less than before, of which no fill tells, is a gap after two seconds`` () =
    let w = begun (World())
    w.Wait 10L
    sweep w
    w.Hear(w.Refresh())
    equal verified w.State
    w.Pass 2_000L
    equal [] w.Gaps
    w.Pass 1L
    equal [ "0..10 mismatch" ] w.Gaps
    equal [ "0 first verified"; "10 resync verified" ] w.Books

[<Test>]
let ``fills explain one sweep, not two`` () =
    let w = begun (World())
    w.Wait 10L
    sweep w
    w.Last <- "0.39"
    w.Hear(w.Fill(40, 5))
    w.Hear(w.Fill(39, 2))
    w.Hear(w.Refresh())
    w.Wait 10L
    w.Silently(Side.Buy, 39, 1)
    w.Hear(w.Refresh())
    w.Pass 2_001L
    equal [ "10..20 mismatch" ] w.Gaps

[<Test>]
let ``a book that has more than before is a gap at once`` () =
    let w = begun (World())
    w.Wait 10L
    w.Silently(Side.Buy, 41, 7)
    w.Hear(w.Refresh())
    equal [ "0..- mismatch"; "0..10 mismatch" ] w.Gaps
    equal verified w.State

// ---- from run to run

[<Test>]
let ``the end of a run leaves how far each book is proven`` () =
    let w = begun (World())
    w.Wait 10L
    w.Change(Side.Buy, 41, 7)
    w.Wait 10L
    w.Lose 1
    w.Depth.Stop(w.Now, w.Out)

    equal [ $"polymarket/depth/{condition}/{up}", w.At 0L, w.At 10L, "disconnect" ] [
        for one in w.Out.Checkpoints -> one.Job, one.Since, one.Watermark, one.Error
    ]

[<Test>]
let ``checkpoints of books that changed are written every five seconds`` () =
    let w = begun (World())
    w.Pass 1L
    let before = w.Out.Checkpoints.Count
    w.Pass 5_001L
    equal before w.Out.Checkpoints.Count
    w.Change(Side.Buy, 41, 7)
    w.Pass 1_000L
    equal before w.Out.Checkpoints.Count
    w.Pass 4_001L
    equal (before + 1) w.Out.Checkpoints.Count
    equal (w.At 5_002L) w.Out.Checkpoints[before].Watermark

[<Test>]
let ``the time between two runs is a gap, from the last proven state of the first to the first book of the second``
    ()
    =
    let w = World()
    w.Depth.Resume(token up, w.At -900L, w.At -500L, Cause.Restart, w.Out)
    equal [ "-500..- restart" ] w.Gaps
    begun w |> ignore
    equal [ "-500..- restart"; "-500..0 restart" ] w.Gaps
    w.Depth.Stop(w.Now, w.Out)
    equal [ w.At -900L, w.At 0L ] [ for one in w.Out.Checkpoints -> one.Since, one.Watermark ]

[<Test>]
let ``a book that is as it was at the end of the run before has missed nothing, and a later gap is another row``
    ()
    =
    let w = World()
    w.Depth.Resume(token up, w.At -900L, w.At 0L, Cause.Restart, w.Out)
    begun w |> ignore
    w.Depth.Stop(w.Now, w.Out)
    equal [ "0..- restart"; "0..0 restart unchanged" ] w.Gaps
    let next = World()
    next.Depth.Resume(token up, w.At -900L, w.Out.Checkpoints[0].Watermark, Cause.Restart, next.Out)
    begun next |> ignore
    equal [ "0.001..- restart"; "0.001..0.001 restart unchanged" ] next.Gaps

[<Test>]
let ``a market that is over leaves its last books, and its open gap ends`` () =
    let w = begun (World())
    w.Wait 10L
    w.Lose 1
    w.Wait 10L
    w.Depth.Unfollow(described, w.Now, w.Out)
    equal [ "0..- disconnect"; "0..20 disconnect" ] w.Gaps
    equal 2 w.Books.Length
    equal 0 w.Depth.Tokens
    equal ValueNone (w.Depth.TryGap(token up))
