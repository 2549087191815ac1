module Tributary.Tests.Exchanges.PolymarketChainTests

open System
open System.Collections.Generic
open System.Numerics
open System.Text
open NUnit.Framework
open FsCheck
open FsCheck.FSharp
open FsCheck.NUnit
open Tributary
open Tributary.Exchanges
open Tributary.Tests

/// To prove that the topics are those of the events.
let private keccak (text: string) =
    "0x" + Convert.ToHexStringLower(Keccak.hash (utf8 text))

let private orderFilledV1 =
    "0xd0a08e8c493f9c94f29311604c9de1b4e8c8d4c06bd0c789af57f2d65bfec0f6"

let private orderFilledV2 =
    "0xd543adfd945773f1a62f74f0ee55a5e3b9b1a28262980ba90b1a89f2ea84d8ee"

[<Test>]
let ``the topics are those of the events`` () =
    equal "0xc5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470" (keccak "")

    equal
        orderFilledV1
        (keccak "OrderFilled(bytes32,address,address,uint256,uint256,uint256,uint256,uint256)")

    equal
        orderFilledV2
        (keccak "OrderFilled(bytes32,address,address,uint8,uint256,uint256,uint256,uint256,bytes32,bytes32)")

// Computed with Python's hashlib from the layout in `Trades.fs`.
[<TestCase(0, "8807bb79bd3bac855f9ef88ab56fbf55")>]
[<TestCase(7, "4c4abb1ca2d2ec7033b7b764e4e98462")>]
let ``a log's id is of its transaction and its index`` (index: int, id: string) =
    equal id (string (Trades.identifyLog "polymarket" ("0x" + String.replicate 32 "ab") index))

// ---- logs, made by hand

let private v1Address = "0x4bFb41d5B3570DeFd03C39a9A4D8dE6Bd8B8982E"
let private v2Address = "0xE111180000d2663C0091e4f400237545B87B996B"

let private token =
    BigInteger.Parse "71321045679252212594626385532706912750332728571942532289631379312455583992563"

let private wallet = "0x" + String.replicate 20 "1a"
let private other = "0x" + String.replicate 20 "2b"

let private word (number: BigInteger) =
    (number.ToString "x").TrimStart('0').PadLeft(64, '0')

let private small (number: int64) = word (BigInteger number)

let private padded (address: string) =
    "0x" + address.Substring(2).ToLowerInvariant().PadLeft(64, '0')

/// An order that was filled: its owner, against whom, and what it does.
type private Order = {
    IsV2: bool
    Owner: string
    Against: string
    Buys: bool
    Collateral: int64
    Shares: int64
    Index: int
    Block: int64
}

let private dataOf order =
    let given, taken =
        if order.Buys then
            order.Collateral, order.Shares
        else
            order.Shares, order.Collateral

    if order.IsV2 then
        let side = if order.Buys then 0L else 1L
        $"0x{small side}{word token}{small given}{small taken}{small 9L}{small 0L}{small 0L}"
    elif order.Buys then
        $"0x{small 0L}{word token}{small given}{small taken}{small 9L}"
    else
        $"0x{word token}{small 0L}{small given}{small taken}{small 9L}"

let private transaction = "0x" + String.replicate 32 "CD"

let private logWith data timed order =
    let address = if order.IsV2 then v2Address else v1Address

    let topic = if order.IsV2 then orderFilledV2 else orderFilledV1

    let time =
        if timed then
            $"\"blockTimestamp\":\"0x{1_780_000_000L + order.Block:x}\","
        else
            ""

    $"""{{"address":"{address}","topics":["{topic}","0x{String.replicate 32 "77"}","{padded order.Owner}","{padded order.Against}"],"data":"{data}","blockNumber":"0x{order.Block:x}",{time}"transactionHash":"{transaction}","transactionIndex":"0x1","blockHash":"0x00","logIndex":"0x{order.Index:x}","removed":false}}"""

let private logOf timed order = logWith (dataOf order) timed order

let private collector = Polymarket.collector Registry.defaultOptions

let private source =
    collector.History |> List.find (fun source -> source.Name = "chain")

let private condition = market ("0x" + String.replicate 32 "ef")

let private stateAt place : HistoryState = {
    Source = "chain"
    Markets = [ condition ]
    Tokens = dict [ string token, struct (condition, "Yes") ] |> Dictionary :> IReadOnlyDictionary<_, _>
    Since = seconds 1_780_000_000L
    Until = seconds 1_790_000_000L
    Place = place
    Held = ReadOnlyMemory<byte>.Empty
}

let private answer (logs: string list) =
    let list = String.concat "," logs
    $"""[{{"jsonrpc":"2.0","id":1,"result":[{list}]}},{{"jsonrpc":"2.0","id":2,"result":{{"number":"0x64","timestamp":"0x{1_780_000_100L:x}"}}}},{{"jsonrpc":"2.0","id":3,"result":[]}}]"""

/// Blocks 1 to 100 of a chain of 100,000.
let private place = "logs 1 100 100000 bold"

[<Test>]
let ``both events are asked for, at every address`` () =
    let body = (source.Ask(stateAt place)).Body.Value

    for part in
        [
            orderFilledV1
            orderFilledV2
            v1Address.ToLowerInvariant()
            v2Address.ToLowerInvariant()
        ] do
        Assert.That(body, Does.Contain part)

let private decodeWith (request: Request) (body: string) =
    let batch = Batch()

    let decoded =
        collector.Decode request (ReadOnlyMemory(Encoding.UTF8.GetBytes body)) (seconds 1_785_000_000L) batch

    struct (decoded, batch)

let private decode body =
    decodeWith (source.Ask(stateAt place)) body

let private order = {
    IsV2 = false
    Owner = wallet
    Against = other
    Buys = true
    Collateral = 5_000_000L
    Shares = 10_000_000L
    Index = 3
    Block = 7L
}

let private onlyTrade (batch: Batch) =
    equal 1 batch.Trades.Count
    equal 0 batch.Rejections.Count
    Trades.number Trades.noCarry batch |> ignore
    batch.Trade 0

// Whose order it was, what it did, and what that makes of the taker's side.
[<TestCase(false, true, true, Side.Buy, false)>]
[<TestCase(false, false, true, Side.Sell, false)>]
[<TestCase(false, true, false, Side.Sell, true)>]
[<TestCase(false, false, false, Side.Buy, true)>]
[<TestCase(true, true, true, Side.Buy, false)>]
[<TestCase(true, false, true, Side.Sell, false)>]
[<TestCase(true, true, false, Side.Sell, true)>]
[<TestCase(true, false, false, Side.Buy, true)>]
let ``a log is a fill from the taker's view, and flagged where it is a maker's part``
    (isV2: bool, buys: bool, isTakers: bool, side: Side, isMaker: bool)
    =
    let contract = if isV2 then v2Address else v1Address

    let struct (decoded, batch) =
        decode (
            answer [
                logOf true {
                    order with
                        IsV2 = isV2
                        Buys = buys
                        Against = if isTakers then contract else other
                }
            ]
        )

    equal ValueNone decoded.Fault
    let trade = onlyTrade batch
    equal side trade.Side
    equal isMaker (trade.Flags.HasFlag Flags.Maker)
    equal (string token) (string trade.Token)
    equal condition trade.Market
    equal (price "0.5") trade.Price
    equal 10_000_000L trade.Size.Millionths
    equal (ValueSome(Size.tryOfMillionths(5_000_000L).Value)) trade.Collateral
    equal (transaction.ToLowerInvariant()) trade.Transaction
    equal (seconds 1_780_000_007L) trade.At
    equal Source.Chain trade.Source
    equal "Yes" trade.Outcome
    equal (Trades.identifyLog "polymarket" (transaction.ToLowerInvariant()) 3) trade.Id

[<TestCase(1L, 3L, "0.333333", true)>]
[<TestCase(2L, 3L, "0.666667", true)>]
[<TestCase(1L, 2L, "0.5", false)>]
[<TestCase(5L, 2_000_000_0L, "0", true)>]
[<TestCase(15L, 20_000_000L, "0.000001", true)>]
[<TestCase(25L, 10_000_000L, "0.000002", true)>]
[<TestCase(9_000_000_000_000_000L, 9_000_000_000_000_001L, "1", true)>]
let ``the price is the quotient of the amounts, half-even at the sixth decimal``
    (collateral: int64, shares: int64, expected: string, isRounded: bool)
    =
    let struct (_, batch) =
        decode (
            answer [
                logOf true {
                    order with
                        Collateral = collateral
                        Shares = shares
                }
            ]
        )

    let trade = onlyTrade batch
    equal (price expected) trade.Price
    equal isRounded (trade.Flags.HasFlag Flags.Rounded)

[<Test>]
let ``two fills that are equal in everything but their place are two`` () =
    let struct (_, batch) =
        decode (answer [ logOf true order; logOf true { order with Index = 4 } ])

    Trades.number Trades.noCarry batch |> ignore
    equal 2 batch.Trades.Count
    isTrue (batch.Trades[0].Id <> batch.Trades[1].Id)

[<Test>]
let ``a log of a block that was not asked for is none`` () =
    let struct (_, batch) =
        decode (
            answer [
                logOf true { order with Block = 101L }
                logOf true { order with Block = 100L }
            ]
        )

    equal 1 batch.Trades.Count
    equal [ "a log of block 101, which was not asked for" ] [ for one in batch.Rejections -> one.Reason ]

// How endpoints behave that are asked for too much and do not say so.
[<TestCase(true, 1L, 50L)>]
[<TestCase(false, 1L, 6L)>]
let ``blocks that are too much at once are asked for in shorter ranges``
    (isLarge: bool, first: int64, last: int64)
    =
    let fault =
        if isLarge then
            Fault.TooLarge 1_000_000L
        else
            Fault.TimedOut(TimeSpan.FromSeconds 30.0)

    match collector.OnFault (source.Ask(stateAt place)) fault with
    | ValueSome decoded ->
        let body = decoded.Next.Head.Body.Value
        Assert.That(body, Does.Contain $"\"fromBlock\":\"0x{first:x}\",\"toBlock\":\"0x{last:x}\"")
    | ValueNone -> Assert.Fail "not understood"

[<Test>]
let ``one block that is too large is passed over, one that nobody answers for is a fault`` () =
    let request = source.Ask(stateAt "logs 7 1 100000 careful")

    match collector.OnFault request (Fault.TooLarge 1_000_000L) with
    | ValueSome decoded -> Assert.That(decoded.Next.Head.Body.Value, Does.Contain "eth_getBlockByNumber")
    | ValueNone -> Assert.Fail "not understood"

    isTrue (collector.OnFault request (Fault.TimedOut(TimeSpan.FromSeconds 30.0))).IsNone
    isTrue (collector.OnFault request (Fault.Unreachable "")).IsNone

[<Test>]
let ``a bad log costs no good one, and a log that was taken back is none`` () =
    let removed =
        (logOf true { order with Index = 9 }).Replace("\"removed\":false", "\"removed\":true")

    let struct (decoded, batch) =
        decode (
            answer [
                logOf true order
                logWith "0x1234" true { order with Index = 4 }
                logOf true { order with Index = 5; Shares = 0L }
                removed
                logOf true { order with Index = 6 }
            ]
        )

    equal ValueNone decoded.Fault
    equal 2 batch.Trades.Count
    equal 2 batch.Rejections.Count
    Assert.That(batch.Rejections[0].Reason, Does.Contain "6 characters")
    Assert.That(batch.Rejections[1].Reason, Does.Contain "without shares")
    Assert.That(Encoding.UTF8.GetString batch.Rejections[0].Bytes, Does.StartWith "{\"address\"")

[<Test>]
let ``logs of other markets are left out`` () =
    let struct (decoded, batch) =
        decode ((answer [ logOf true order ]).Replace(word token, small 12L))

    equal ValueNone decoded.Fault
    equal 0 batch.Trades.Count
    equal 0 batch.Rejections.Count

[<Test>]
let ``where the logs do not say when their blocks were, that is asked, and the logs wait`` () =
    let struct (decoded, batch) =
        decode (answer [ logOf false order; logOf false { order with Index = 1; Block = 9L } ])

    equal 0 batch.Trades.Count
    let next = decoded.Next.Head
    Assert.That(next.Body.Value, Does.Contain "\"0x7\"")
    Assert.That(next.Body.Value, Does.Contain "\"0x9\"")

    let struct (decoded, batch) =
        decodeWith
            next
            $"""[{{"jsonrpc":"2.0","id":2,"result":{{"number":"0x9","timestamp":"0x{1_780_000_018L:x}"}}}},{{"jsonrpc":"2.0","id":1,"result":{{"number":"0x7","timestamp":"0x{1_780_000_014L:x}"}}}}]"""

    equal ValueNone decoded.Fault
    equal [ seconds 1_780_000_014L; seconds 1_780_000_018L ] [ for i in 0..1 -> (batch.Trade i).At ]

    equal
        [
            {
                Since = seconds 1_780_000_000L
                Until = seconds 1_780_000_100L
            }
        ]
        decoded.Read

[<TestCase("query returned more than 10000 results", -32005)>]
[<TestCase("block range is too large", -32602)>]
[<TestCase("Log response size exceeded. You can make eth_getLogs requests with up to a 2K block range", -32602)>]
[<TestCase("eth_getLogs is limited to a 10,000 range: exceed maximum block range: 10000", -32600)>]
[<TestCase("requested too many blocks from 1 to 3000, block range limit exceeded", -32614)>]
let ``an endpoint that says too much is asked for half of it`` (message: string, code: int) =
    let struct (decoded, _) =
        decode $"""[{{"jsonrpc":"2.0","id":1,"error":{{"code":{code},"message":"{message}"}}}}]"""

    equal ValueNone decoded.Fault

    match decoded.Next with
    | [ { Walk = Walk.History state } ] -> equal "logs 1 50 100000 careful" state.Place
    | other -> failwith $"%A{other}"

[<Test>]
let ``a block that has more than the endpoint gives is a hole, and the walk goes on behind it`` () =
    let struct (decoded, _) =
        decodeWith
            (source.Ask(stateAt "logs 7 1 100000 careful"))
            """[{"jsonrpc":"2.0","id":1,"error":{"code":-32005,"message":"query returned more than 10000 results"}}]"""

    equal ValueNone decoded.Fault
    let asked = decoded.Next.Head
    Assert.That(asked.Body.Value, Does.Contain "eth_getBlockByNumber")

    let struct (decoded, _) =
        decodeWith
            asked
            $"""[{{"jsonrpc":"2.0","id":1,"result":{{"number":"0x7","timestamp":"0x{1_780_000_014L:x}"}}}}]"""

    equal [ struct (condition, seconds 1_780_000_014L, seconds 1_780_000_015L) ] decoded.Truncated

    match decoded.Next with
    | [ { Walk = Walk.History state } ] -> equal "logs 8 2 100000 careful" state.Place
    | other -> failwith $"%A{other}"

[<TestCase("too many requests", -32005)>]
[<TestCase("Your app has exceeded its compute units per second capacity", 429)>]
let ``an endpoint that says too often is left in peace for a while`` (message: string, code: int) =
    let struct (decoded, _) =
        decode $"""{{"jsonrpc":"2.0","id":null,"error":{{"code":{code},"message":"{message}"}}}}"""

    equal (ValueSome(Fault.Throttled ValueNone)) decoded.Fault

[<Test>]
let ``an endpoint of another chain is refused by name`` () =
    let struct (decoded, _) =
        decodeWith
            (source.Ask(stateAt ""))
            """[{"jsonrpc":"2.0","id":1,"result":"0x1"},{"jsonrpc":"2.0","id":2,"result":{"number":"0x64","timestamp":"0x6a000000"}},{"jsonrpc":"2.0","id":3,"result":{"number":"0x1","timestamp":"0x5e000000"}}]"""

    match decoded.Fault with
    | ValueSome(Fault.Refused(_, detail)) ->
        Assert.That(detail, Does.Contain "chain 1, and not of Polygon (137)")
    | other -> failwith $"%A{other}"

// ---- a chain of any pace

/// A model of a chain: blocks of any distance, logs in some of them, an endpoint that gives so many at most. Walks over it from a moment
/// on; the blocks whose logs it met, and how many requests that took.
let private walked (times: int64[]) (logsIn: Set<int>) most (since: int64) =
    let met = List<int64>()
    let mutable requests = 0

    let mutable waiting = [
        source.Ask {
            stateAt "" with
                Since = seconds since
                Until = seconds Int32.MaxValue
        }
    ]

    let head = times.Length - 1
    let hex (n: int64) = $"0x{n:x}"

    let block n =
        $"""{{"number":"{hex n}","timestamp":"{hex times[int n]}"}}"""

    let mutable read = []

    while not waiting.IsEmpty do
        requests <- requests + 1
        let request = waiting.Head
        use asked = Json.JsonDocument.Parse request.Body.Value

        let answers = [
            for call in asked.RootElement.EnumerateArray() do
                let id = call.GetProperty("id").GetInt32()
                let parameters = call.GetProperty "params"

                let number (text: string) = Convert.ToInt64(text, 16)

                match call.GetProperty("method").GetString() with
                | "eth_chainId" -> $"""{{"id":{id},"result":"0x89"}}"""
                | "eth_getBlockByNumber" ->
                    let asked = string (parameters[0].GetString())
                    let n = if asked = "latest" then int64 head else number asked
                    $"""{{"id":{id},"result":{block n}}}"""
                | _ ->
                    let filter = parameters[0]
                    let first = number (string (filter.GetProperty("fromBlock").GetString()))
                    let last = number (string (filter.GetProperty("toBlock").GetString()))
                    let found = logsIn |> Set.filter (fun n -> int64 n >= first && int64 n <= last)

                    if id = 3 then
                        $"""{{"id":{id},"result":[]}}"""
                    elif found.Count > most then
                        $"""{{"id":{id},"error":{{"code":-32005,"message":"query returned more than {most} results"}}}}"""
                    else
                        let logs =
                            found
                            |> Seq.map (fun n ->
                                logOf false {
                                    order with
                                        Block = int64 n
                                        Index = n
                                })
                            |> String.concat ","

                        $"""{{"id":{id},"result":[{logs}]}}"""
        ]

        let struct (decoded, batch) =
            decodeWith request $"""[{String.concat "," answers}]"""

        match decoded.Fault with
        | ValueSome fault -> failwith (Fault.explain fault)
        | ValueNone -> ()

        for i in 0 .. batch.Trades.Count - 1 do
            met.Add(int64 batch.Trades[i].Occurrence)

        read <- Intervals.union read decoded.Read
        waiting <- decoded.Next @ waiting.Tail

    struct (List.ofSeq met, read, requests)

[<Property(MaxTest = 60)>]
let ``a walk over a chain meets every log of the wanted part once, whatever the pace of its blocks``
    (seed: int)
    =
    let random = Random seed
    let count = random.Next(200, 20_000)
    let mutable at = 1_700_000_000L

    // Mostly steady, with pauses.
    let times =
        Array.init count (fun _ ->
            at <-
                at
                + (if random.Next 500 = 0 then
                       int64 (random.Next 5_000)
                   else
                       int64 (random.Next(1, 4)))

            at)

    let logsIn = set [ for _ in 1 .. random.Next 400 -> random.Next(1, count) ]
    let since = times[random.Next count]
    let struct (met, read, requests) = walked times logsIn (random.Next(5, 100)) since
    equal (List.distinct met) met
    let settled = count - 1 - 64

    for n in logsIn do
        if n <= settled && times[n] >= since then
            isTrue (List.contains (int64 n) met)

    if settled > 0 && times[settled] > since then
        equal
            [
                {
                    Since = seconds since
                    Until = seconds times[settled]
                }
            ]
            read

    isTrue (requests < 2_000)
