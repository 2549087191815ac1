/// Words to say what a batch holds in a line, and to ask a store what it has.
module Tributary.Tests.Stores.Vocabulary

open System
open System.IO
open System.Text
open System.Threading
open System.Threading.Tasks
open NUnit.Framework
open Tributary
open Tributary.Stores

let sound result =
    match result with
    | Ok value -> value
    | Error error -> failwith $"%A{error}"

let equal (expected: 't) (actual: 't) =
    if actual <> expected then
        Assert.Fail $"expected %A{expected}\nbut was  %A{actual}"

let exchange = sound (ExchangeId.Parse "polymarket")
let marketId name = sound (MarketId.Parse name)
let tokenId name = sound (TokenId.Parse name)

/// Microseconds after the beginning of 2026-07-24.
let at micros =
    Instant.ofMicros (1_784_851_200_000_000L + micros)

let price text = sound (Price.parse text)
let size text = sound (Size.parse text)

let utf8 (text: string) =
    ReadOnlySpan(Encoding.UTF8.GetBytes text)

/// A 0x and 64 hex digits, as settled transactions have.
let transaction (number: int) = $"0x%064x{number}"

/// Forty hex digits, as books have.
let hash (number: int) = $"%040x{number}"

/// One batch; the names that it holds are its own unless they are given.
let batchOf (names: Names) (fill: Batch -> unit) =
    let batch = Batch names
    batch.Exchange <- "polymarket"
    batch.Received <- at 3_000_000L
    fill batch
    batch

let batch (contents: (Batch -> unit) list) =
    batchOf (Names()) (fun batch ->
        for content in contents do
            content batch)

/// A fill of `market`'s Yes token, numbered within its batch when all rows are there.
let fillOf market token outcome (text: string) (number: int) micros (batch: Batch) =
    let row: TradeRow = {
        Market = batch.Names.Intern(utf8 market)
        Token = batch.Names.Intern(utf8 token)
        Outcome = batch.Names.Intern(utf8 outcome)
        Side = Side.Sell
        Source = Source.Api
        Price = price text
        Size = size "10.5"
        At = at micros
        Received = batch.Received
        Transaction = batch.KeepLower(utf8 (transaction number))
        Wallet = batch.KeepLower(utf8 "0x00000000000000000000000000000000000000aa")
        Flags = Flags.OffGrid ||| Flags.Old
        Occurrence = 0
        Collateral = ValueNone
        Id = { High = 0UL; Low = 0UL }
        Inserted = false
    }

    batch.Trades.Add &row
    Trades.number Trades.noCarry batch |> ignore

let fill market number micros =
    fillOf market $"{market}-yes" "Yes" "0.55" number micros

/// The last fill says what was paid for it.
let paid amount (batch: Batch) =
    let row = &batch.Trades[batch.Trades.Count - 1]

    row <- {
        row with
            Collateral = ValueSome(size amount)
    }

/// The last fill was told of by the source, and is flagged.
let toldBy source (flags: Flags) (batch: Batch) =
    let row = &batch.Trades[batch.Trades.Count - 1]

    row <- {
        row with
            Source = source
            Flags = flags
    }

    Trades.number Trades.noCarry batch |> ignore

let private level (text: string, shares: string) : Level = {
    Price = price text
    Size = size shares
}

let bookOf market bids asks (hash: string) micros (batch: Batch) =
    let first = batch.Levels.Count

    for level in List.map level (bids @ asks) do
        let mutable level = level
        batch.Levels.Add &level

    let row: BookRow = {
        Market = batch.Names.Intern(utf8 market)
        Token = batch.Names.Intern(utf8 $"{market}-yes")
        At = at micros
        Received = batch.Received
        FirstBid = first
        BidCount = List.length bids
        FirstAsk = first + List.length bids
        AskCount = List.length asks
        Hash = batch.Keep(utf8 hash)
        Tick = price "0.01"
        LastTrade = { Start = 0; Length = -1 }
        Sequence = 0
        Verdict = Verdict.Verified
        Doubt = Doubt.None
        Reason = Reason.Poll
        Flags = Flags.None
        Inserted = false
    }

    batch.Books.Add &row

let book market number micros =
    bookOf market [ "0.48", "30"; "0.47", "500.25" ] [ "0.52", "10"; "0.6", "1" ] (hash number) micros

/// A level of `market`'s Yes token that changed.
let deltaOf market side (text: string) shares ordinal (hash: string) micros (batch: Batch) =
    let row: DeltaRow = {
        Market = batch.Names.Intern(utf8 market)
        Token = batch.Names.Intern(utf8 $"{market}-yes")
        At = at micros
        Received = batch.Received
        Ordinal = ordinal
        Sequence = 0
        Side = side
        Price = price text
        Size = size shares
        Hash = batch.Keep(utf8 hash)
        Verdict = Verdict.Unverifiable
        Doubt = Doubt.NotChecked
        Inserted = false
    }

    batch.Deltas.Add &row

let delta market ordinal micros =
    deltaOf market Side.Buy "0.48" "12.5" ordinal (hash ordinal) micros

/// A price of `market`'s Yes token.
let pointOf market kind (text: string) micros (batch: Batch) =
    let row: PriceRow = {
        Market = batch.Names.Intern(utf8 market)
        Token = batch.Names.Intern(utf8 $"{market}-yes")
        At = at micros
        Received = batch.Received
        Kind = kind
        Price = price text
        Inserted = false
    }

    batch.Prices.Add &row

let point market micros =
    pointOf market PriceKind.History "0.55" micros

let idOf (number: int) : TradeId = {
    High = uint64 number
    Low = UInt64.MaxValue
}

/// The trade of the first number was seen as that of the second, too.
let linkOf trade other micros (batch: Batch) =
    let row: TradeLink = {
        Trade = trade
        Other = other
        At = at micros
    }

    batch.Links.Add &row

let link trade other =
    linkOf (idOf trade) (idOf other) (int64 trade)

let market: Market = {
    Exchange = exchange
    Market = marketId "m1"
    Event = "rain"
    Slug = "will-it-rain"
    Question = "Will it rain, \"really\"?"
    Outcomes = [|
        {
            Name = "Yes"
            Token = ValueSome(tokenId "m1-yes")
        }
        { Name = "No"; Token = ValueNone }
    |]
    Status = MarketStatus.Open
    AcceptsOrders = true
    TickSize = ValueSome(price "0.01")
    MinimumSize = ValueSome(size "5")
    NegRisk = false
    Start = ValueNone
    End = ValueSome(at 9_000_000L)
    ClosedAt = ValueNone
    Winner = ""
    Volume = ValueSome(size "1000.5")
    Liquidity = ValueNone
    OpenInterest = ValueNone
    Tags = [| "weather"; "größe" |]
    Updated = ValueSome(at 1_000L)
    Received = at 3_000_000L
    Raw = "{\"slug\":\"will-it-rain\"}"
}

let described (market: Market) (batch: Batch) = batch.Markets.Add market

/// A state of one of the account's own orders for `market`'s Yes token.
let ownOrder market order status filled micros : OwnOrder = {
    Exchange = exchange
    Market = marketId market
    Token = tokenId $"{market}-yes"
    Order = order
    Side = Side.Sell
    Price = price "0.62"
    Size = size "40.5"
    Filled = size filled
    Status = status
    At = at micros
    Received = at 3_000_000L
}

/// A status of one of the account's own trades of `market`'s Yes token.
let ownTrade market trade order status micros : OwnTrade = {
    Exchange = exchange
    Market = marketId market
    Token = tokenId $"{market}-yes"
    Trade = trade
    Order = order
    Side = Side.Buy
    Price = price "0.333333"
    Size = size "12.25"
    IsTaker = true
    Status = status
    Transaction = transaction 7
    At = at micros
    Received = at 3_000_000L
}

/// `market`'s Yes token answers a question.
let matched question answer market micros : MarketMatch = {
    Exchange = exchange
    Question = question
    Answer = answer
    Market = marketId market
    Token = tokenId $"{market}-yes"
    IsWithdrawn = false
    At = at micros
}

let ordered (row: OwnOrder) (batch: Batch) = batch.OwnOrders.Add row
let traded (row: OwnTrade) (batch: Batch) = batch.OwnTrades.Add row
let confirmed (row: MarketMatch) (batch: Batch) = batch.Matches.Add row

let gap: Gap = {
    Exchange = exchange
    Stream = Stream.Books
    Market = marketId "m1"
    Token = ValueSome(tokenId "m1-yes")
    Since = at 100L
    Until = ValueNone
    Cause = Cause.Disconnect
    Healed = ValueNone
}

let hole (gap: Gap) (batch: Batch) = batch.Gaps.Add gap

let checkpoint: Checkpoint = {
    Job = "polymarket/trades/m1"
    Exchange = exchange
    Stream = Stream.Trades
    Market = marketId "m1"
    Token = ValueNone
    Since = at 0L
    Watermark = at 500L
    Rows = 7
    Error = ""
    Duration = TimeSpan.FromMilliseconds 12.5
    State = ""
}

let reached (checkpoint: Checkpoint) (batch: Batch) = batch.Checkpoints.Add checkpoint

let rejected reason (bytes: string) source (batch: Batch) =
    batch.Rejections.Add {
        Exchange = "polymarket"
        Source = source
        Offset = 17
        Reason = reason
        Bytes = Encoding.UTF8.GetBytes bytes
        Received = at 3_000_000L
    }

let measured name value micros (batch: Batch) =
    batch.Metrics.Add {
        Name = name
        Labels = "exchange=polymarket"
        At = at micros
        Value = value
    }

let result (task: Task<'t>) = task.GetAwaiter().GetResult()

let tryWrite (store: Store) (batches: Batch list) =
    result (store.Write (List.toArray batches) CancellationToken.None)

let write store batches = sound (tryWrite store batches)
let close (store: Store) = store.Close().AsTask().Wait()

let trades (store: Store) = result (store.Trades Query.everything)
let books (store: Store) = result (store.Books Query.everything)
let deltas (store: Store) = result (store.Deltas Query.everything)
let prices (store: Store) = result (store.Prices Query.everything)

let ownOrders (store: Store) =
    result (store.OwnOrders Query.everything)

let ownTrades (store: Store) =
    result (store.OwnTrades Query.everything)

let matches (store: Store) = result (store.Matches())
let tallies (store: Store) = result (store.Tally Query.everything)
let links (store: Store) = result (store.Links())
let gaps (store: Store) = result (store.Gaps Query.everything)
let markets (store: Store) = result (store.Markets())

/// All that the doors show, times of ours left out.
let everything (store: Store) =
    let zero = Instant.ofMicros 0L

    trades store
    |> List.map (fun row -> { row with Trade.Received = zero })
    |> List.sortBy string,
    books store
    |> List.map (fun row -> {
        row with
            OrderBookSnapshot.Received = zero
    })
    |> List.sortBy (fun row -> struct (string row.Token, row.At, row.Hash)),
    (deltas store
     |> List.map (fun row -> {
         row with
             OrderBookDelta.Received = zero
     }),
     links store,
     prices store |> List.map (fun row -> { row with PricePoint.Received = zero })),
    gaps store |> List.sort,
    markets store,
    result (store.Quarantine()) |> List.map (fun row -> row.Reason, row.Bytes),
    result (store.Checkpoints())

/// A folder of its own for a test, gone afterwards.
let temporaryFolder () =
    Directory.CreateTempSubdirectory("tributary-").FullName
