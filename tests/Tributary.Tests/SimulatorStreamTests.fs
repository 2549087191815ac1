module Tributary.Tests.SimulatorStreamTests

open System
open System.Collections.Generic
open System.Net.Http
open System.Net.WebSockets
open System.Security.Cryptography
open System.Text
open System.Text.Json
open System.Threading
open System.Threading.Tasks
open FsUnit
open NUnit.Framework
open Tributary.Server.Simulator

/// Time stands; the sessions are advanced by hand.
type private Standing() =
    inherit TimeProvider()

    override _.GetUtcNow() =
        DateTimeOffset(2026, 11, 20, 12, 7, 11, TimeSpan.Zero)

    override _.GetTimestamp() = 0L

let private small = {
    SimulatorOptions.Default with
        Seed = 7
        Markets = 40
        History = TimeSpan.FromMinutes 1.0
        Limits = false
        MessagesPerSecond = 60.0
        TradesPerSecond = 10.0
        Clock = Standing()
}

let private only fault = {
    small with
        StreamFaults = Set.singleton fault
        StreamFaultRate = 0.05
}

let private text (name: string) (element: JsonElement) = string (element.GetProperty name)
let private items (element: JsonElement) = List.ofSeq (element.EnumerateArray())

/// A book as a client keeps it: the texts that it was told, by price.
type private Copy(market: Market, token: string) =
    let rising = Comparer<decimal>.Create(fun a b -> compare a b)
    let falling = Comparer<decimal>.Create(fun a b -> compare b a)
    let bids = SortedDictionary<decimal, string * string> rising
    let asks = SortedDictionary<decimal, string * string> falling

    let fill (side: SortedDictionary<decimal, string * string>) (levels: JsonElement) =
        side.Clear()

        for level in items levels do
            side[decimal (text "price" level)] <- (text "price" level, text "size" level)

    let printed (side: SortedDictionary<decimal, string * string>) =
        String.Join(
            ",",
            side.Values
            |> Seq.map (fun (price, size) -> $"{{\"price\":\"{price}\",\"size\":\"{size}\"}}")
        )

    let millionths (side: SortedDictionary<decimal, string * string>) =
        side.Values
        |> Seq.map (fun (price, size) ->
            struct (int64 (decimal price * 1_000_000m), int64 (decimal size * 1_000_000m)))
        |> Seq.rev
        |> Array.ofSeq

    member val Tick = "" with get, set
    member val Last = "" with get, set
    member val Told = "" with get, set
    member val Timestamp = 0L with get, set
    member _.Bids = bids
    member _.Asks = asks

    member _.Load(event: JsonElement) =
        fill bids (event.GetProperty "bids")
        fill asks (event.GetProperty "asks")

    member _.Change(entry: JsonElement) =
        let side = if text "side" entry = "BUY" then bids else asks
        let price = text "price" entry

        if text "size" entry = "0" then
            side.Remove(decimal price) |> ignore
        else
            side[decimal price] <- (price, text "size" entry)

    /// The ten fields, as plainly as can be.
    member this.Hash =
        let negRisk = if market.Info.Event.NegRisk then "true" else "false"

        $"{{\"market\":\"{market.Info.Condition}\",\"asset_id\":\"{token}\",\"timestamp\":\"{this.Timestamp}\",\"hash\":\"\",\"bids\":[{printed bids}],\"asks\":[{printed asks}],\"min_order_size\":\"{market.Info.MinimumSize}\",\"tick_size\":\"{this.Tick}\",\"neg_risk\":{negRisk},\"last_trade_price\":\"{this.Last}\"}}"
        |> Encoding.UTF8.GetBytes
        |> SHA1.HashData
        |> Convert.ToHexStringLower

    member _.Levels = struct (millionths bids, millionths asks)

/// Follows the channel, keeps books and notes what does not fit.
type private Reader(find: string -> Market) =
    let books = Dictionary<string, Copy>()
    let events = List<JsonElement>()
    let wrong = List<string>()

    let check (token: string) (event: JsonElement) (stamped: JsonElement) =
        let copy = books[token]
        copy.Timestamp <- int64 (text "timestamp" stamped)
        copy.Told <- text "hash" event

        if copy.Hash <> copy.Told then
            wrong.Add $"hash {token} {stamped}"

    let best (side: SortedDictionary<decimal, string * string>) none =
        if side.Count = 0 then none else fst (Seq.last side.Values)

    let one (event: JsonElement) =
        events.Add event

        match text "event_type" event with
        | "book" ->
            let token = text "asset_id" event

            match event.TryGetProperty "tick_size" with
            | true, tick ->
                books[token] <-
                    Copy(find token, token, Tick = string tick, Last = text "last_trade_price" event)
            | _ -> ()

            match books.TryGetValue token with
            | true, copy ->
                copy.Load event
                check token event event
            | _ -> ()
        | "price_change" ->
            for change in items (event.GetProperty "price_changes") do
                match books.TryGetValue(text "asset_id" change) with
                | true, copy ->
                    copy.Change change
                    check (text "asset_id" change) change event

                    if
                        best copy.Bids "0" <> text "best_bid" change
                        || best copy.Asks "1" <> text "best_ask" change
                    then
                        wrong.Add $"best {event}"
                | _ -> ()
        | "last_trade_price" ->
            match books.TryGetValue(text "asset_id" event) with
            | true, copy -> copy.Last <- text "price" event
            | _ -> ()
        | "tick_size_change" ->
            match books.TryGetValue(text "asset_id" event) with
            | true, copy -> copy.Tick <- text "new_tick_size" event
            | _ -> ()
        | _ -> ()

    member _.Take(payload: string) =
        if payload <> "PONG" then
            use document = JsonDocument.Parse payload
            let root = document.RootElement.Clone()

            if root.ValueKind = JsonValueKind.Array then
                items root |> List.iter one
            else
                one root

    member _.Books = books
    member _.Events = events
    member _.Wrong = wrong

    member _.Of kind =
        events |> Seq.filter (fun event -> text "event_type" event = kind) |> List.ofSeq

let private subscription (tokens: string seq) =
    let ids = tokens |> Seq.map (fun token -> $"\"{token}\"") |> String.concat ","

    $"{{\"assets_ids\":[{ids}],\"type\":\"market\",\"initial_dump\":true,\"level\":2,\"custom_feature_enabled\":true}}"

let private operation name (tokens: string seq) =
    let ids = tokens |> Seq.map (fun token -> $"\"{token}\"") |> String.concat ","
    $"{{\"operation\":\"{name}\",\"assets_ids\":[{ids}]}}"

let private openTokens (exchange: Exchange) =
    exchange.World.Markets
    |> Array.filter _.Closed.IsNone
    |> Array.collect _.Info.Tokens

let private marketOf (exchange: Exchange) token =
    match exchange.World.MarketByToken token with
    | Some struct (market, _) -> market
    | None -> failwith token

/// A connection that is driven through simulated time.
type private Drive(exchange: Exchange, ?reader: Reader) =
    let session = exchange.Open()
    let reader = reader |> Option.defaultWith (fun () -> Reader(marketOf exchange))
    let mutable now = exchange.Now

    member val Frames = List<Frame>()
    member _.Session = session
    member _.Reader = reader
    member _.Now = now

    member this.Run(seconds: float, ?step: float) =
        let until = now + int64 (seconds * 1e6)

        while now < until && not session.IsClosed do
            now <- min until (now + int64 (1e6 * defaultArg step 0.25))

            for frame in session.Advance now do
                this.Frames.Add frame

                if frame.Close = 0 then
                    reader.Take(Encoding.UTF8.GetString frame.Payload)

    member this.Say(text: string) =
        session.Hear text
        this.Run(0.000001)

let private driven options seconds =
    let exchange = Exchange options
    let drive = Drive exchange
    drive.Say(subscription (openTokens exchange))
    drive.Run seconds
    struct (exchange, drive)

let private injected (exchange: Exchange) fault =
    exchange.Ledger.Injections
    |> Array.filter (fun injection -> injection.Kind = StreamFault.name fault)

let private agree (exchange: Exchange) (reader: Reader) token =
    let copy = reader.Books[token]

    match exchange.Ledger.BookAt(token, Int64.MaxValue / 1000L) with
    | ValueSome book ->
        let struct (bids, asks) = copy.Levels

        copy.Told = book.Hash
        && copy.Timestamp = book.Timestamp
        && bids = book.Bids
        && asks = book.Asks
    | ValueNone -> false

[<FsCheck.NUnit.Property>]
let ``the names of a set of stream faults are read back as that set`` (faults: Set<StreamFault>) =
    let names = faults |> Seq.map StreamFault.name |> String.concat ","
    StreamFault.parse names = Ok faults

[<Test>]
let ``a reader that follows snapshots and deltas has the true books, and every hash verifies`` () =
    let struct (exchange, drive) = driven small 60.0
    let reader = drive.Reader
    reader.Wrong |> should be Empty
    reader.Of "price_change" |> List.length |> should be (greaterThan 3000)
    reader.Of "last_trade_price" |> should not' (be Empty)
    reader.Of "best_bid_ask" |> should not' (be Empty)
    let tokens = openTokens exchange
    reader.Books.Count |> should equal tokens.Length

    for token in tokens do
        agree exchange reader token |> should be True

[<Test>]
let ``both tokens of a market mirror each other in every price change`` () =
    let struct (exchange, drive) = driven small 20.0

    for event in drive.Reader.Of "price_change" do
        for pair in items (event.GetProperty "price_changes") |> List.chunkBySize 2 do
            match pair with
            | [ yes; no ] ->
                let info = (marketOf exchange (text "asset_id" yes)).Info
                info.Tokens |> should equal [| text "asset_id" yes; text "asset_id" no |]

                decimal (text "price" yes) + decimal (text "price" no) |> should equal 1m
                text "size" yes |> should equal (text "size" no)
                text "side" yes |> should not' (equal (text "side" no))
            | _ -> Assert.Fail "not in pairs"

[<Test>]
let ``the first dump is one array, and a later subscription brings the new tokens alone`` () =
    let exchange = Exchange small
    let drive = Drive exchange
    let tokens = openTokens exchange
    drive.Say(subscription (Array.take 6 tokens))
    drive.Frames |> should haveCount 1
    let first = drive.Reader.Of "book"

    first
    |> List.map (text "asset_id")
    |> should equal (List.ofArray (Array.take 6 tokens))

    for book in first do
        book.TryGetProperty "tick_size" |> fst |> should be True
        book.TryGetProperty "last_trade_price" |> fst |> should be True
        book.TryGetProperty "min_order_size" |> fst |> should be False

    drive.Say(operation "subscribe" (Array.take 8 tokens))

    drive.Reader.Of "book"
    |> List.skip 6
    |> List.map (text "asset_id")
    |> should equal [ tokens[6]; tokens[7] ]

    drive.Say(operation "subscribe" [ "1234" ])
    drive.Frames |> should haveCount 2

[<Test>]
let ``after an unsubscription a token is not told any more`` () =
    let exchange = Exchange small
    let drive = Drive exchange
    let tokens = openTokens exchange
    drive.Say(subscription tokens)
    drive.Run 10.0
    drive.Say(operation "unsubscribe" tokens)
    let before = drive.Reader.Events.Count
    drive.Run 10.0
    drive.Reader.Events.Count |> should equal before
    drive.Say(operation "subscribe" tokens)
    drive.Run 5.0
    drive.Reader.Wrong |> should be Empty

[<Test>]
let ``PING is answered with PONG, and nonsense with nothing`` () =
    let drive = Drive(Exchange small)
    drive.Say "PING"
    drive.Say "hello"
    drive.Say "[1]"
    drive.Say "{}"
    let frame = Seq.exactlyOne drive.Frames
    Encoding.UTF8.GetString frame.Payload |> should equal "PONG"

[<Test>]
let ``the same seed gives the same frames in whatever steps time goes`` () =
    let frames options step =
        let exchange = Exchange options
        let drive = Drive exchange
        drive.Say(subscription (openTokens exchange))
        drive.Run(12.0, step)

        [
            for frame in drive.Frames -> struct (frame.At, Encoding.UTF8.GetString frame.Payload, frame.Close)
        ]

    let calm = frames small 0.05
    frames small 3.0 |> should equal calm
    frames { small with Seed = 8 } 3.0 |> should not' (equal calm)

    let wild = {
        small with
            StreamFaults = Set.ofList (List.map fst StreamFault.all)
    }

    frames wild 3.0 |> should equal (frames wild 0.05)

[<Test>]
let ``REST and the channel print the same hash for the same state`` () =
    let struct (exchange, drive) =
        driven
            {
                small with
                    StreamFaults = Set.ofList [ StreamFault.TickSize; StreamFault.Crossed ]
            }
            31.0

    for pair in drive.Reader.Books do
        match exchange.World.MarketByToken pair.Key with
        | Some struct (market, token) ->
            let page = market.Page token
            pair.Value.Told |> should equal page.Hash
            pair.Value.Timestamp |> should equal page.Timestamp
        | None -> Assert.Fail pair.Key

[<Test>]
let ``the ledger has every state that was told, in order, and the book at any instant`` () =
    let struct (exchange, drive) = driven { small with Markets = 12 } 20.0
    let told = Dictionary<string, List<TrueState>>()

    let tell token stamp hash =
        if not (told.ContainsKey token) then
            told[token] <- List()

        told[token].Add { Timestamp = int64 stamp; Hash = hash }

    for event in drive.Reader.Events do
        match text "event_type" event with
        | "book" -> tell (text "asset_id" event) (text "timestamp" event) (text "hash" event)
        | "price_change" ->
            for change in items (event.GetProperty "price_changes") do
                tell (text "asset_id" change) (text "timestamp" event) (text "hash" change)
        | _ -> ()

    for pair in told do
        let states = exchange.Ledger.States pair.Key
        states |> should equal (pair.Value.ToArray())

        for i in 0 .. max 1 (states.Length / 7) .. states.Length - 1 do
            let state = states[i]

            let last =
                states |> Array.findBack (fun other -> other.Timestamp <= state.Timestamp)

            match exchange.Ledger.BookAt(pair.Key, state.Timestamp) with
            | ValueSome book -> book.Hash |> should equal last.Hash
            | ValueNone -> Assert.Fail "forgotten"

    exchange.Ledger.BookAt("1", 0L) |> should equal (ValueNone: TrueBook voption)

    exchange.Ledger.BookAt(Seq.head told.Keys, 0L)
    |> should equal (ValueNone: TrueBook voption)

[<Test>]
let ``the ledger forgets the oldest changes when it holds enough`` () =
    let exchange =
        Exchange {
            small with
                Markets = 3
                MessagesPerSecond = 1000.0
                LedgerChanges = 10_000
        }

    exchange.Open().Advance(exchange.Now + 20_000_000L) |> should haveCount 0
    let token = (openTokens exchange)[0]
    let states = exchange.Ledger.States token
    states.Length |> should be (lessThan 10_000)

    match exchange.Ledger.BookAt(token, states[0].Timestamp) with
    | ValueSome book -> states |> Array.exists (fun state -> state.Hash = book.Hash) |> should be True
    | ValueNone -> Assert.Fail "forgotten"

    exchange.Ledger.BookAt(token, states[0].Timestamp - 1L).IsNone |> should be True

[<Test>]
let ``a trade on the channel is the trade of the Data API`` () =
    let struct (exchange, drive) = driven small 30.0

    let told =
        drive.Reader.Of "last_trade_price"
        |> List.map (fun event ->
            text "transaction_hash" event,
            text "asset_id" event,
            text "side" event,
            decimal (text "price" event),
            decimal (text "size" event),
            int64 (text "timestamp" event) / 1000L)

    let start = small.Clock.GetUtcNow().ToUnixTimeSeconds()

    let true' =
        exchange.Ledger.Trades
        |> Array.filter (fun trade -> trade.Timestamp > start)
        |> Array.map (fun trade ->
            trade.Transaction, trade.Token, trade.Side, trade.Price, trade.Size, trade.Timestamp)

    told
    |> List.filter (fun (_, _, _, _, _, second) -> second > start)
    |> List.sort
    |> should equal (true' |> List.ofArray |> List.sort)

[<Test>]
let ``price changes of the old era have changes and one token each`` () =
    let exchange = Exchange small
    let session = exchange.Open()
    session.EraOld <- true
    let tokens = openTokens exchange
    session.Hear(subscription tokens)
    let frames = session.Advance(exchange.Now + 10_000_000L)

    let changes = [
        for frame in frames do
            let json = Encoding.UTF8.GetString frame.Payload

            if json.EndsWith "\"event_type\":\"price_change\"}" then
                JsonDocument.Parse(json).RootElement
    ]

    changes |> should not' (be Empty)

    for change in changes do
        tokens |> should contain (text "asset_id" change)
        text "hash" change |> should haveLength 40
        items (change.GetProperty "changes") |> should not' (be Empty)

// -- Faults ----------------------------------------------------------------------------------------------------------

[<Test>]
let ``without faults the ledger has no injection`` () =
    let struct (exchange, _) = driven small 20.0
    exchange.Ledger.Injections |> should be Empty

[<Test>]
let ``withheld books do not come until the token is subscribed anew`` () =
    let struct (exchange, drive) = driven (only StreamFault.WithheldBooks) 20.0
    let withheld = injected exchange StreamFault.WithheldBooks |> Array.collect _.Tokens
    withheld |> should not' (be Empty)

    let missing =
        openTokens exchange
        |> Array.filter (fun token -> not (drive.Reader.Books.ContainsKey token))

    missing |> set |> should equal (set withheld)
    drive.Say(operation "subscribe" withheld)
    drive.Reader.Books.Count |> should equal (openTokens exchange).Length
    drive.Run 10.0
    drive.Reader.Wrong |> should be Empty

[<Test>]
let ``silent assets say nothing from their moment on`` () =
    let struct (exchange, drive) = driven (only StreamFault.SilentAssets) 60.0
    let silent = injected exchange StreamFault.SilentAssets
    silent |> should not' (be Empty)

    for injection in silent do
        injection.Misleads |> should be True

        let heard =
            drive.Reader.Events
            |> Seq.filter (fun event ->
                event.GetRawText().Contains injection.Tokens[0]
                && int64 (text "timestamp" event) > injection.At / 1000L)

        heard |> should be Empty

    let healthy = openTokens exchange |> Array.except (silent |> Array.collect _.Tokens)

    for token in healthy do
        agree exchange drive.Reader token |> should be True

    drive.Say(operation "subscribe" (silent |> Array.collect _.Tokens))

    for token in openTokens exchange do
        agree exchange drive.Reader token |> should be True

[<TestCase(true)>]
[<TestCase(false)>]
let ``a silent socket answers PONG alone, and a half-open one nothing`` (isMute: bool) =
    let fault =
        if isMute then
            StreamFault.SilentSocket
        else
            StreamFault.HalfOpen

    let struct (exchange, drive) = driven (only fault) 200.0
    let injection = injected exchange fault |> Array.exactlyOne
    injection.Session |> should equal drive.Session.Number
    injection.Misleads |> should be True

    drive.Frames
    |> Seq.map _.At
    |> Seq.max
    |> should be (lessThanOrEqualTo injection.At)

    drive.Frames.Clear()
    drive.Say "PING"
    drive.Frames.Count |> should equal (if isMute then 1 else 0)

[<Test>]
let ``dropped deltas are missing and in the ledger`` () =
    let struct (exchange, drive) = driven (only StreamFault.Dropped) 30.0
    let dropped = injected exchange StreamFault.Dropped
    dropped |> should not' (be Empty)

    // The exchange behind it is the same: what is missing was dropped.
    let struct (_, calm) = driven small 30.0

    let told (drive: Drive) =
        drive.Reader.Of "price_change" |> List.map _.GetRawText()

    let missing = List.except (told drive) (told calm)
    missing.Length |> should equal dropped.Length

    for message, injection in List.zip missing (List.ofArray dropped) do
        message |> should haveSubstring injection.Tokens[0]
        message |> should haveSubstring $"\"{injection.At / 1000L}\""

    drive.Reader.Wrong |> should not' (be Empty)

let private repeats (drive: Drive) =
    drive.Reader.Of "price_change"
    |> List.countBy _.GetRawText()
    |> List.filter (fun (_, count) -> count > 1)

[<Test>]
let ``duplicated deltas come twice and are in the ledger`` () =
    let struct (exchange, drive) = driven (only StreamFault.Duplicated) 30.0
    let duplicated = injected exchange StreamFault.Duplicated
    // A copy that waits may not have come yet.
    let waiting =
        duplicated.Length - (repeats drive |> List.sumBy (fun (_, count) -> count - 1))

    duplicated |> should not' (be Empty)
    waiting |> should be (lessThan 6)
    waiting |> should be (greaterThanOrEqualTo 0)

[<Test>]
let ``reordered deltas come after their successors and are in the ledger`` () =
    let struct (exchange, drive) = driven (only StreamFault.Reordered) 30.0
    let reordered = injected exchange StreamFault.Reordered
    reordered |> should not' (be Empty)

    let backwards =
        drive.Reader.Of "price_change"
        |> List.groupBy (text "market")
        |> List.sumBy (fun (_, events) ->
            events
            |> List.map (fun event -> int64 (text "timestamp" event))
            |> List.pairwise
            |> List.filter (fun (before, after) -> after < before)
            |> List.length)

    backwards |> should be (greaterThan (reordered.Length / 2))
    backwards |> should be (lessThanOrEqualTo reordered.Length)
    repeats drive |> should be Empty

[<Test>]
let ``wrong bests are wrong and in the ledger, and the hashes verify`` () =
    let struct (exchange, drive) = driven (only StreamFault.WrongBest) 60.0
    let details = injected exchange StreamFault.WrongBest |> Array.map _.Detail

    let inChanges =
        details |> Array.filter (fun detail -> detail.EndsWith "price change")

    inChanges |> should not' (be Empty)
    details.Length |> should be (greaterThan inChanges.Length)
    drive.Reader.Wrong.Count |> should equal inChanges.Length
    drive.Reader.Wrong |> Seq.forall _.StartsWith("best") |> should be True

[<Test>]
let ``in the hash race a book knows a trade before the client does`` () =
    let struct (exchange, drive) = driven (only StreamFault.HashRace) 60.0
    injected exchange StreamFault.HashRace |> should not' (be Empty)
    drive.Reader.Wrong |> should not' (be Empty)
    drive.Reader.Wrong |> Seq.forall _.StartsWith("hash") |> should be True
    drive.Run 1.0

    for token in openTokens exchange do
        let struct (bids, asks) = drive.Reader.Books[token].Levels

        match exchange.Ledger.BookAt(token, Int64.MaxValue / 1000L) with
        | ValueSome book ->
            bids |> should equal book.Bids
            asks |> should equal book.Asks
        | ValueNone -> Assert.Fail token

[<Test>]
let ``a delta may come before the first book`` () =
    let struct (exchange, drive) =
        driven
            {
                only StreamFault.DeltaFirst with
                    MessagesPerSecond = 600.0
            }
            5.0

    let first = injected exchange StreamFault.DeltaFirst |> Array.collect _.Tokens
    first |> should not' (be Empty)

    for token in first do
        let isOf kind (event: JsonElement) =
            text "event_type" event = kind && event.GetRawText().Contains(token: string)

        Seq.findIndex (isOf "price_change") drive.Reader.Events
        |> should be (lessThan (Seq.findIndex (isOf "book") drive.Reader.Events))

    drive.Reader.Wrong |> should be Empty

    for token in openTokens exchange do
        agree exchange drive.Reader token |> should be True

[<Test>]
let ``a crossed burst is truly in the book, for some milliseconds`` () =
    let struct (exchange, drive) = driven (only StreamFault.Crossed) 60.0
    let bursts = injected exchange StreamFault.Crossed
    bursts |> should not' (be Empty)

    for burst in bursts do
        for token in burst.Tokens do
            match exchange.Ledger.BookAt(token, burst.At / 1000L) with
            | ValueSome book ->
                let struct (bid, _), struct (ask, _) = book.Bids[0], book.Asks[0]
                bid |> should be (greaterThan ask)
            | ValueNone -> Assert.Fail token

    drive.Reader.Wrong |> should be Empty

    for token in openTokens exchange do
        agree exchange drive.Reader token |> should be True

[<Test>]
let ``a connection closes with one of the codes`` () =
    let codes = [
        for seed in 1..12 do
            let struct (exchange, drive) =
                driven
                    {
                        only StreamFault.Close with
                            Seed = seed
                            Markets = 6
                            MessagesPerSecond = 0.0
                    }
                    300.0

            let last = Seq.last drive.Frames
            let injection = injected exchange StreamFault.Close |> Array.exactlyOne
            injection.Detail |> should equal (string last.Close)
            drive.Session.IsClosed |> should be True
            last.Close
    ]

    codes
    |> List.forall (fun code -> List.contains code [ 1000; 1001; 1006; 1011; 1012 ])
    |> should be True

    codes |> List.distinct |> List.length |> should be (greaterThan 2)

[<Test>]
let ``a finer tick is told, hashed and answered by REST`` () =
    let struct (exchange, drive) = driven (only StreamFault.TickSize) 60.0
    let changes = injected exchange StreamFault.TickSize
    changes |> should not' (be Empty)
    drive.Reader.Of "tick_size_change" |> should haveLength (2 * changes.Length)
    drive.Reader.Wrong |> should be Empty

    for change in changes do
        for token in change.Tokens do
            agree exchange drive.Reader token |> should be True
            let market = marketOf exchange token
            drive.Reader.Books[token].Tick |> should equal (Millionths.text market.Tick)
            market.Tick |> should be (lessThan market.Info.Tick)

[<Test>]
let ``a market is announced many times`` () =
    let struct (exchange, drive) = driven (only StreamFault.Repeats) 120.0
    injected exchange StreamFault.Repeats |> should not' (be Empty)

    let most =
        drive.Reader.Of "new_market"
        |> List.countBy (text "market")
        |> List.map snd
        |> List.max

    most |> should be (greaterThan 20)

[<Test>]
let ``new windows appear, trade, are announced and resolve`` () =
    let exchange =
        Exchange {
            small with
                NewMarketEvery = TimeSpan.FromSeconds 30.0
        }

    let before = openTokens exchange
    let drive = Drive exchange
    drive.Say(subscription before)
    drive.Run 100.0
    let news = drive.Reader.Of "new_market"
    news |> should haveLength 3

    let tokens =
        news
        |> List.collect (fun event -> items (event.GetProperty "assets_ids") |> List.map string)

    openTokens exchange |> Array.except before |> should equal (Array.ofList tokens)

    news
    |> List.forall (fun event -> (text "slug" event).StartsWith "btc-updown-15m-")
    |> should be True

    drive.Say(operation "subscribe" tokens)
    drive.Run 30.0
    drive.Reader.Wrong |> should be Empty

    for token in tokens do
        agree exchange drive.Reader token |> should be True

    // What is left is global.
    exchange.MessagesPerSecond <- 0.0
    drive.Say(operation "unsubscribe" (Seq.append before tokens))
    drive.Run(1800.0, 10.0)

    drive.Reader.Of "market_resolved"
    |> List.map (text "market")
    |> should contain (text "market" news.Head)

    (marketOf exchange tokens.Head).Closed.IsSome |> should be True

// -- Over a socket ---------------------------------------------------------------------------------------------------

let private withSimulator options (test: Simulator -> HttpClient -> Task<unit>) : Task = task {
    let! simulator =
        Simulator.StartAsync(
            {
                options with
                    Clock = TimeProvider.System
            },
            CancellationToken.None
        )

    use _ = simulator
    use client = new HttpClient(BaseAddress = simulator.Address)
    do! test simulator client
}

let private send (socket: ClientWebSocket) (text: string) =
    socket.SendAsync(
        ArraySegment(Encoding.UTF8.GetBytes text),
        WebSocketMessageType.Text,
        true,
        CancellationToken.None
    )

let private receive (socket: ClientWebSocket) : Task<string option> = task {
    let buffer = Array.zeroCreate<byte> 65_536
    let message = List<byte>()
    let mutable isWhole = false
    let mutable isOpen = true
    use patience = new CancellationTokenSource(TimeSpan.FromSeconds 20.0)

    while isOpen && not isWhole do
        let! result = socket.ReceiveAsync(ArraySegment buffer, patience.Token)
        message.AddRange(ArraySegment(buffer, 0, result.Count))
        isWhole <- result.EndOfMessage
        isOpen <- result.MessageType <> WebSocketMessageType.Close

    return
        if isOpen then
            Some(Encoding.UTF8.GetString(message.ToArray()))
        else
            None
}

[<TestCase(true)>]
[<TestCase(false)>]
let ``over a socket, compressed or not, the books are those of the ledger and of REST`` (isCompressed: bool) =
    withSimulator small (fun simulator client -> task {
        use socket = new ClientWebSocket()

        if isCompressed then
            socket.Options.DangerousDeflateOptions <- WebSocketDeflateOptions()

        socket.Options.CollectHttpResponseDetails <- true
        do! socket.ConnectAsync(simulator.Channel, CancellationToken.None)

        match socket.HttpResponseHeaders with
        | null -> Assert.Fail "no headers"
        | headers ->
            headers.ContainsKey "Sec-WebSocket-Extensions" |> should equal isCompressed
            headers["Simulator-Session"] |> Seq.exactlyOne |> should equal "1"

        let! markets = client.GetStringAsync "gamma/markets?limit=100&closed=false"
        use document = JsonDocument.Parse markets

        let tokens = [
            for market in items document.RootElement do
                match JsonSerializer.Deserialize<string[]>(text "clobTokenIds" market) with
                | null -> ()
                | tokens -> yield! tokens
        ]

        let exchange = simulator.Exchange
        let reader = Reader(marketOf exchange)
        do! send socket (subscription tokens)

        while reader.Events.Count < 400 do
            let! message = receive socket
            reader.Take message.Value

        simulator.Freeze()
        do! send socket "PING"
        let mutable isLast = false

        while not isLast do
            let! message = receive socket
            isLast <- message = Some "PONG"
            reader.Take message.Value

        reader.Wrong |> should be Empty

        for token in tokens do
            agree exchange reader token |> should be True
            let! book = client.GetStringAsync $"clob/book?token_id={token}"
            use book = JsonDocument.Parse book
            text "hash" book.RootElement |> should equal reader.Books[token].Told
            let! truth = client.GetStringAsync $"ledger/book?token={token}"
            use truth = JsonDocument.Parse truth
            text "hash" truth.RootElement |> should equal reader.Books[token].Told

        do! socket.CloseAsync(WebSocketCloseStatus.NormalClosure, "", CancellationToken.None)
        socket.CloseStatus |> should equal (Nullable WebSocketCloseStatus.NormalClosure)
        let connection = simulator.Ledger.Connections |> Array.exactlyOne
        connection.Session |> should equal 1
        connection.Frames |> should be (greaterThan 2L)
        let! lines = client.GetStringAsync "ledger/connections"
        lines |> should startWith "{\"session\":1,"
    })

[<Test>]
let ``faults and load of the channel are switched while it runs, and every strike can be read as a line`` () =
    withSimulator { small with Speed = 20.0 } (fun simulator client -> task {
        let post (query: string) = task {
            use! answer = client.PostAsync("control/faults?" + query, null)
            let! body = answer.Content.ReadAsStringAsync()
            return struct (int answer.StatusCode, body)
        }

        let! struct (status, body) = post "set=latency"
        status |> should equal 200
        let! struct (status, _) = post "stream=moon"
        status |> should equal 400
        let! struct (status, body') = post "stream=crossed,dropped&messages=500"
        status |> should equal 200
        use state = JsonDocument.Parse body'
        body |> should haveSubstring "latency"
        state.RootElement.GetProperty("messages").GetDouble() |> should equal 500.0

        items (state.RootElement.GetProperty "stream")
        |> List.map string
        |> should equal [ "dropped"; "crossed" ]

        items (state.RootElement.GetProperty "faults")
        |> List.map string
        |> should equal [ "latency" ]

        simulator.MessagesPerSecond |> should equal 500.0
        do! Task.Delay 300
        let! lines = client.GetStringAsync "ledger/injections"
        lines |> should haveSubstring "\"kind\":\"crossed\""
        simulator.StreamFaults <- Set.empty
        simulator.MessagesPerSecond <- 0.0
    })

[<Test>]
let ``over a socket a connection closes with its code, or breaks off`` () =
    withSimulator
        {
            only StreamFault.Close with
                Speed = 200.0
                Markets = 6
                MessagesPerSecond = 0.0
        }
        (fun simulator _ -> task {
            for number in 1..6 do
                use socket = new ClientWebSocket()
                do! socket.ConnectAsync(simulator.Channel, CancellationToken.None)
                let mutable seen = ""

                while seen = "" do
                    try
                        let! message = receive socket

                        if message.IsNone then
                            seen <- string (int (Option.ofNullable socket.CloseStatus).Value)
                    with :? WebSocketException ->
                        // .NET takes 1012 for a mistake of the server's.
                        seen <- "1006 or 1012"

                let told =
                    simulator.Ledger.Injections
                    |> Array.find (fun injection -> injection.Session = number)

                seen |> should haveSubstring told.Detail
        })
