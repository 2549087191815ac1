namespace Tributary

open System
open System.Runtime.CompilerServices
open System.Runtime.InteropServices
open System.Runtime.Intrinsics
open System.Text

/// A price in millionths of the currency's unit: 0.55 is 550000. It may lie outside [0, 1]; validation judges that.
[<Struct>]
type Price =
    private
    | PriceOf of int64

    member this.Millionths = let (PriceOf value) = this in value
    override this.ToString() = Fixed.text this.Millionths

/// A size in millionths of a share: never negative.
[<Struct>]
type Size =
    private
    | SizeOf of int64

    member this.Millionths = let (SizeOf value) = this in value
    override this.ToString() = Fixed.text this.Millionths

[<RequireQualifiedAccess>]
module Price =
    let zero = PriceOf 0L
    let one = PriceOf Fixed.One
    let ofMillionths value = PriceOf value

    /// Reads a decimal text exactly; see `Fixed.parse` for what is accepted.
    let parse (text: string) =
        let mutable value, rounded = 0L, false

        match Fixed.parse (ReadOnlySpan(Encoding.UTF8.GetBytes text)) &value &rounded with
        | NumberFault.None -> Ok(PriceOf value)
        | fault -> Error $"the price '{text}' {Fixed.explain fault}"

    /// The price of the complementary outcome: 1 - p.
    let complement (price: Price) = PriceOf(Fixed.One - price.Millionths)

[<RequireQualifiedAccess>]
module Size =
    let zero = SizeOf 0L

    /// Nothing when the number is negative.
    let tryOfMillionths value =
        if value < 0L then ValueNone else ValueSome(SizeOf value)

    /// For a number that is known not to be negative.
    let internal trusted value = SizeOf value

    /// Reads a decimal text exactly; negative sizes are refused.
    let parse (text: string) =
        let mutable value, rounded = 0L, false

        match Fixed.parse (ReadOnlySpan(Encoding.UTF8.GetBytes text)) &value &rounded with
        | NumberFault.None when value >= 0L -> Ok(SizeOf value)
        | NumberFault.None -> Error $"the size '{text}' {Fixed.explain NumberFault.Negative}"
        | fault -> Error $"the size '{text}' {Fixed.explain fault}"

/// What every identity has in common: some characters, not too many, and none that is white, a control, a quote or a backslash:
/// so an identity reads the same in JSON, whoever wrote it.
[<RequireQualifiedAccess>]
module internal Identity =
    [<Literal>]
    let Longest = 200

    // White space and controls, and what would need an escape in a request.
    let private refused =
        System.Buffers.SearchValues.Create(
            ReadOnlySpan [| yield '"'B; yield '\\'B; yield 127uy; for b in 0uy .. 32uy -> b |]
        )

    /// The bytes that are refused, sixteen at a time.
    let inline private isRefused (bytes: Vector128<byte>) =
        Vector128.LessThanOrEqual(bytes, Vector128.Create 32uy)
        ||| Vector128.Equals(bytes, Vector128.Create '"'B)
        ||| Vector128.Equals(bytes, Vector128.Create '\\'B)
        ||| Vector128.Equals(bytes, Vector128.Create 127uy)

    // NOTE: `=` of vectors is that of the language, which puts them into boxes.
    let inline private isAny (bytes: Vector128<byte>) =
        Vector128.ExtractMostSignificantBits bytes <> 0u

    let isValid (text: ReadOnlySpan<byte>) =
        // Most ids are this long: two loads that may overlap cost less than a call into a general search.
        if text.Length >= 8 && text.Length <= 32 then
            let start = &MemoryMarshal.GetReference text

            if text.Length >= 16 then
                let first = Vector128.LoadUnsafe &start
                let last = Vector128.LoadUnsafe(&start, unativeint (text.Length - 16))
                not (isAny (isRefused first ||| isRefused last))
            else
                let first = Unsafe.ReadUnaligned<uint64> &start

                let last = Unsafe.ReadUnaligned<uint64> &(Unsafe.Add(&start, text.Length - 8))

                not (isAny (isRefused (Vector128.Create(first, last).AsByte())))
        else
            text.Length > 0 && text.Length <= Longest && not (text.ContainsAny refused)

    let parse what make (text: string) =
        if isValid (ReadOnlySpan(Encoding.UTF8.GetBytes text)) then
            Ok(make text)
        else
            Error
                $"'{text}' is not {what}: 1 to {Longest} characters without spaces, quotes and backslashes are"

/// An exchange's name as it stands in configuration and tables, such as `polymarket`.
[<Struct>]
type ExchangeId =
    private
    | ExchangeIdOf of string

    override this.ToString() = let (ExchangeIdOf text) = this in text

    static member Parse text =
        Identity.parse "an exchange" ExchangeIdOf text

/// A market as its exchange keys it in books and trades (Polymarket: the condition id).
[<Struct>]
type MarketId =
    private
    | MarketIdOf of string

    override this.ToString() = let (MarketIdOf text) = this in text

    static member Parse text =
        Identity.parse "a market id" MarketIdOf text

/// One outcome of a market as its exchange keys it (Polymarket: a uint256 as a decimal text of up to 78 digits).
[<Struct>]
type TokenId =
    private
    | TokenIdOf of string

    override this.ToString() = let (TokenIdOf text) = this in text

    static member Parse text =
        Identity.parse "a token id" TokenIdOf text

/// The side of an order; for a trade, the taker's.
type Side =
    | Buy = 0uy
    | Sell = 1uy

/// Which source a trade was sighted in.
type Source =
    | Api = 0uy
    | Stream = 1uy
    | Chain = 2uy

[<RequireQualifiedAccess>]
module Side =
    let text side =
        if side = Side.Sell then "sell" else "buy"

[<RequireQualifiedAccess>]
module Source =
    let text source =
        match source with
        | Source.Stream -> "stream"
        | Source.Chain -> "chain"
        | _ -> "api"

/// The first 16 bytes of a SHA-256 over the trade's content (`Trades.identify`): the same fill has the same id for everybody.
[<Struct>]
type TradeId = {
    /// The first eight bytes, big-endian.
    High: uint64
    /// The last eight bytes, big-endian.
    Low: uint64
} with

    override this.ToString() = $"%016x{this.High}%016x{this.Low}"

/// Whether a book was proven to be what the exchange had.
type Verdict =
    /// Its hash (or another proof) agrees.
    | Verified = 0uy
    /// There is no proof either way.
    | Unverifiable = 1uy
    /// The proof is there and disagrees.
    | Mismatched = 2uy

[<RequireQualifiedAccess>]
module Verdict =
    let text verdict =
        match verdict with
        | Verdict.Verified -> "verified"
        | Verdict.Mismatched -> "mismatched"
        | _ -> "unverifiable"

/// Why a book is not `Verified`.
type Doubt =
    /// There is none: the proof is there, one way or the other.
    | None = 0uy
    /// The exchange gave no hash, or too little of what its hash covers.
    | NoHash = 1uy
    /// Its hash was not computed, to save processor time; a later state's may have been.
    | NotChecked = 2uy
    /// Its hash disagrees, and may cover a last trade price that is still on its way.
    | Pending = 3uy
    /// A level was not written in the canonical form that hashes are made of.
    | NotCanonical = 4uy
    /// An update came again within the millisecond of its first coming: a repeat, or the same change made twice.
    | Ambiguous = 5uy
    /// The hash of the whole book disagrees.
    | Hash = 6uy
    /// The best bid or ask that came with the change disagrees.
    | BestPrice = 7uy
    /// The complementary token's book is not its mirror.
    | Mirror = 8uy
    /// The book that a poll brought is another one.
    | Poll = 9uy
    /// Updates are missing: the connection was lost or silent, or the first book never came.
    | Missed = 10uy
    /// Bids stood above asks for longer than a match takes.
    | Crossed = 11uy
    /// The exchange numbers its messages, and numbers are missing.
    | Sequence = 12uy
    /// A change took more from a level than was there.
    | Negative = 13uy

[<RequireQualifiedAccess>]
module Doubt =
    /// Every doubt with its word in tables, in the order of their numbers.
    let all = [
        Doubt.None, ""
        Doubt.NoHash, "no_hash"
        Doubt.NotChecked, "not_checked"
        Doubt.Pending, "pending"
        Doubt.NotCanonical, "not_canonical"
        Doubt.Ambiguous, "ambiguous"
        Doubt.Hash, "hash"
        Doubt.BestPrice, "best_price"
        Doubt.Mirror, "mirror"
        Doubt.Poll, "poll"
        Doubt.Missed, "missed"
        Doubt.Crossed, "crossed"
        Doubt.Sequence, "sequence"
        Doubt.Negative, "negative"
    ]

    let private words = all |> List.map snd |> Array.ofList

    let text (doubt: Doubt) = words[int doubt]

    let tryParse word =
        all |> List.tryFind (snd >> (=) word) |> Option.map fst

/// Why a whole book was stored.
type Reason =
    /// It was asked for.
    | Poll = 0uy
    /// The first one of a live subscription.
    | First = 1uy
    /// The one that ends a gap of a live book, or that an exchange sent anew.
    | Resync = 2uy
    /// So that any moment can be rebuilt cheaply: every so many changes or minutes.
    | Periodic = 3uy
    /// The last one of a market that is over.
    | Last = 4uy

[<RequireQualifiedAccess>]
module Reason =
    /// Every reason with its word in tables, in the order of their numbers.
    let all = [
        Reason.Poll, "poll"
        Reason.First, "first"
        Reason.Resync, "resync"
        Reason.Periodic, "periodic"
        Reason.Last, "last"
    ]

    let private words = all |> List.map snd |> Array.ofList

    let text (reason: Reason) = words[int reason]

    let tryParse word =
        all |> List.tryFind (snd >> (=) word) |> Option.map fst

/// What is remarkable about a row that was kept; none of these loses it. Several may hold at once.
[<Flags>]
type Flags =
    | None = 0
    /// A number had more than six decimals and was rounded half-even.
    | Rounded = 1
    /// A price off the market's tick grid.
    | OffGrid = 2
    /// A price at 0 or 1 exactly.
    | AtBound = 4
    /// A price outside the configured bounds.
    | OutOfBounds = 8
    /// Older than a live follow expects.
    | Old = 16
    /// Later than our clock.
    | Future = 32
    /// Best bid above best ask.
    | Crossed = 64
    /// Best bid equal to best ask.
    | Locked = 128
    /// One side is empty.
    | OneSided = 256
    /// Both sides are empty.
    | Empty = 512
    /// Levels were not in order; they are stored sorted.
    | Disordered = 1024
    /// A price stood twice on one side; the last one counts.
    | DuplicateLevel = 2048
    /// A level of size 0, which is no level; it is left out.
    | ZeroSize = 4096
    /// The last change is older than the configured age.
    | Stale = 8192
    /// A maker's part of a fill whose taker's part is a row of its own: never counted beside it.
    | Maker = 16384
    /// Of a book: its asks are the bids of the complementary token, at 1 - p. The exchange's book has bids alone.
    | Complemented = 32768

/// One price level of an order book: the total size resting there.
[<Struct>]
type Level = { Price: Price; Size: Size }

/// One sighting of a fill, at the doors. (Inside the river it is a `TradeRow` of a `Batch`.)
type Trade = {
    Exchange: ExchangeId
    Market: MarketId
    Token: TokenId
    /// The outcome's name as the exchange gives it, or empty.
    Outcome: string
    /// The taker's side.
    Side: Side
    Price: Price
    Size: Size
    /// The exact amount of the currency that changed hands, where the source says it: the price is then its quotient by the size, rounded.
    Collateral: Size voption
    Id: TradeId
    /// The settling transaction, or empty. Many fills share one.
    Transaction: string
    Source: Source
    At: Instant
    Received: Instant
    Flags: Flags
} with

    /// Price times size in units of the currency, exact: int64 millionths squared do not fit, a decimal does.
    member this.Value =
        decimal this.Price.Millionths * decimal this.Size.Millionths
        / 1_000_000_000_000m

/// What a price is the price of.
type PriceKind =
    /// A point of the exchange's own price history.
    | History = 0uy
    /// The probability that an exchange without order books gives.
    | Probability = 1uy

[<RequireQualifiedAccess>]
module PriceKind =
    /// Every kind with its word in tables, in the order of their numbers.
    let all = [ PriceKind.History, "history"; PriceKind.Probability, "probability" ]

    let private words = all |> List.map snd |> Array.ofList

    let text (kind: PriceKind) = words[int kind]

    let tryParse word =
        all |> List.tryFind (snd >> (=) word) |> Option.map fst

/// A price of a token at a moment, at the doors.
type PricePoint = {
    Exchange: ExchangeId
    Market: MarketId
    Token: TokenId
    Kind: PriceKind
    Price: Price
    At: Instant
    Received: Instant
}

/// The number that an exchange gives a message: of those of a subscription each is one more than the one before.
[<RequireQualifiedAccess>]
module Sequence =
    /// From a row, where 0 stands for none.
    let ofRow (number: int) : int voption =
        if number > 0 then ValueSome number else ValueNone

/// A whole order book at one moment, at the doors. Levels stand best first on both sides.
type OrderBookSnapshot = {
    Exchange: ExchangeId
    Market: MarketId
    Token: TokenId
    Bids: Level[]
    Asks: Level[]
    /// The exchange's own hash of the book, or empty.
    Hash: string
    /// The exchange's number of the message that it is as of, where it numbers its messages.
    Sequence: int voption
    Verdict: Verdict
    /// Why it is not `Verified`.
    Doubt: Doubt
    /// Why it was taken.
    Reason: Reason
    /// When the book last changed, by the exchange's clock.
    At: Instant
    Received: Instant
    Flags: Flags
} with

    static member private Best(levels: Level[]) =
        if levels.Length = 0 then ValueNone else ValueSome levels[0]

    /// The highest bid, or nothing when there are no bids.
    member this.BestBid = OrderBookSnapshot.Best this.Bids
    /// The lowest ask, or nothing when there are no asks.
    member this.BestAsk = OrderBookSnapshot.Best this.Asks
    /// Both sides have a level.
    member this.IsTwoSided = this.Bids.Length > 0 && this.Asks.Length > 0

    /// Best ask minus best bid in millionths (negative when crossed); nothing unless two-sided.
    member this.Spread =
        if this.IsTwoSided then
            ValueSome(this.Asks[0].Price.Millionths - this.Bids[0].Price.Millionths)
        else
            ValueNone

    /// The middle of best bid and best ask; exact, so it may have seven decimals; nothing unless two-sided.
    member this.Mid =
        if this.IsTwoSided then
            ValueSome(
                decimal (this.Asks[0].Price.Millionths + this.Bids[0].Price.Millionths)
                / 2_000_000m
            )
        else
            ValueNone

    /// The spread in basis points of the mid; nothing unless two-sided, or when the mid is zero.
    member this.SpreadBps =
        match this.Spread, this.Mid with
        | ValueSome spread, ValueSome mid when mid <> 0m ->
            ValueSome(decimal spread / 1_000_000m / mid * 10_000m)
        | _ -> ValueNone

/// A change of one level of a live order book, at the doors. Books are rebuilt from a snapshot by applying those behind it in the
/// order of `At` and `Ordinal`, but never across a gap.
type OrderBookDelta = {
    Exchange: ExchangeId
    Market: MarketId
    Token: TokenId
    /// Its place, from 0, among the changes of this token in this millisecond: every connection that saw the whole of it agrees. An update
    /// that leaves the level as it was has none and is not stored, unless it is the first of a later millisecond: then it takes back
    /// what never came. Where the exchange numbers its messages, that number.
    Ordinal: int
    /// The exchange's number of its message, where it numbers them.
    Sequence: int voption
    /// `Buy` for bids, `Sell` for asks.
    Side: Side
    Price: Price
    /// The level's new total; zero removes it.
    Size: Size
    /// The exchange's own hash of the book after it, or empty.
    Hash: string
    /// Of the book after it.
    Verdict: Verdict
    Doubt: Doubt
    At: Instant
    Received: Instant
}

/// Two sightings of one fill.
[<Struct>]
type TradeLink = {
    /// The sighting that counts: the API's, else the chain's.
    Trade: TradeId
    /// The other one.
    Other: TradeId
    /// When the fill was, as the sighting that counts says it.
    At: Instant
}

/// What an exchange said of one of the account's own orders at a moment. Every state is a row of its own.
type OwnOrder = {
    Exchange: ExchangeId
    Market: MarketId
    Token: TokenId
    /// The exchange's id of the order.
    Order: string
    Side: Side
    Price: Price
    /// What was ordered.
    Size: Size
    /// What of it is filled.
    Filled: Size
    /// The exchange's word for its state, in lower case, such as `live` or `cancelled`.
    Status: string
    /// When it came to be so, by the exchange's clock.
    At: Instant
    Received: Instant
}

/// What an exchange said of one of the account's own trades. Every status that it goes through is a row of its own.
type OwnTrade = {
    Exchange: ExchangeId
    Market: MarketId
    Token: TokenId
    /// The exchange's id of the trade.
    Trade: string
    /// Which of the account's orders was filled.
    Order: string
    Side: Side
    Price: Price
    Size: Size
    /// The account took liquidity; otherwise it made it.
    IsTaker: bool
    /// The exchange's word for how far it has come, in lower case, such as `matched` or `confirmed`.
    Status: string
    /// The chain's transaction, or empty.
    Transaction: string
    /// When it was matched, by the exchange's clock.
    At: Instant
    Received: Instant
}

/// That an outcome answers a question that outcomes of other exchanges answer as well, as somebody confirmed it. Rows of the same question
/// and answer pay in the same case.
type MarketMatch = {
    Exchange: ExchangeId
    /// The name of the question in the mapping.
    Question: string
    /// The name of the answer in the mapping, such as `yes`.
    Answer: string
    Market: MarketId
    Token: TokenId
    /// Nothing in the mapping says so any more: the row with the latest `At` counts.
    IsWithdrawn: bool
    /// When it was confirmed, or withdrawn.
    At: Instant
}

/// Where a market is in its life.
[<RequireQualifiedAccess>]
type MarketStatus =
    /// Announced; no orders yet.
    | Pending
    /// Orders are accepted.
    | Open
    /// Trading is over or paused; no outcome yet.
    | Closed
    /// The winner is known.
    | Resolved

    override this.ToString() =
        match this with
        | Pending -> "pending"
        | Open -> "open"
        | Closed -> "closed"
        | Resolved -> "resolved"

/// One possible answer of a market.
type Outcome = { Name: string; Token: TokenId voption }

/// A market's description as an exchange gave it at one moment, its volumes beside it.
type Market = {
    Exchange: ExchangeId
    Market: MarketId
    /// The exchange's name for the group of markets that it belongs to, or empty.
    Event: string
    Slug: string
    Question: string
    Outcomes: Outcome[]
    Status: MarketStatus
    /// The order book is switched on and takes orders.
    AcceptsOrders: bool
    TickSize: Price voption
    MinimumSize: Size voption
    NegRisk: bool
    Start: Instant voption
    End: Instant voption
    ClosedAt: Instant voption
    /// The outcome that won, once resolved, or empty.
    Winner: string
    /// Lifetime volume in units of the currency.
    Volume: Size voption
    Liquidity: Size voption
    OpenInterest: Size voption
    Tags: string[]
    /// The exchange's update time, when it gave one.
    Updated: Instant voption
    Received: Instant
    /// The JSON as it was received.
    Raw: string
} with

    /// The tokens of all outcomes that have one.
    member this.Tokens = [|
        for outcome in this.Outcomes do
            match outcome.Token with
            | ValueSome token -> token
            | ValueNone -> ()
    |]

    /// Polling its books and trades makes sense: it is open, takes orders, and has a token for every outcome.
    member this.IsTradable =
        this.Status = MarketStatus.Open
        && this.AcceptsOrders
        && this.Outcomes.Length >= 2
        && this.Outcomes |> Array.forall _.Token.IsSome

/// Which of an exchange's flows a gap or a checkpoint is about.
[<RequireQualifiedAccess>]
type Stream =
    | Markets
    | Books
    | Trades
    /// Live order books.
    | Depth
    /// Trades of the past, read once: a backfill.
    | History
    /// The exchange's own history of prices.
    | Prices

    override this.ToString() =
        match this with
        | Markets -> "markets"
        | Books -> "books"
        | Trades -> "trades"
        | Depth -> "depth"
        | History -> "history"
        | Prices -> "prices"

[<RequireQualifiedAccess>]
module Stream =
    /// Every stream, in the order of their declaration.
    let all = [
        Stream.Markets
        Stream.Books
        Stream.Trades
        Stream.Depth
        Stream.History
        Stream.Prices
    ]

    /// Its rows come from asking again and again, not from a connection and not from reading the past once.
    let isPolled stream =
        match stream with
        | Stream.Markets
        | Stream.Books
        | Stream.Trades -> true
        | Stream.Depth
        | Stream.History
        | Stream.Prices -> false

/// Why there is a hole.
[<RequireQualifiedAccess>]
type Cause =
    /// No collector ran.
    | Stopped
    /// We were told to pause.
    | Paused
    /// A due poll was skipped: the one before was still running, or this machine was busy or asleep.
    | Late
    /// We were waiting because of an earlier failure.
    | BackOff
    /// No answer: connection refused, lost, or timed out.
    | Unreachable
    /// The exchange told us to slow down.
    | Throttled
    /// The exchange's matching engine was restarting.
    | Restart
    /// The exchange answered with an error.
    | Refused
    /// The answer could not be read.
    | Undecodable
    /// The answer left this out though it was asked for.
    | Missing
    /// A page or a window was cut short and the rest could not be had.
    | Truncated
    /// The store could not keep what was collected (disk full, file locked).
    | StoreFailed
    /// We dropped it ourselves because too much came at once.
    | Overrun
    /// A live connection was lost.
    | Disconnect
    /// A live connection said nothing.
    | Starved
    /// A proof disagreed.
    | Mismatch
    /// It was there, and was older than it is to be kept: we deleted it. No failure, and nobody else can know it.
    | Expired

    override this.ToString() =
        match this with
        | Stopped -> "stopped"
        | Paused -> "paused"
        | Late -> "late"
        | BackOff -> "back_off"
        | Unreachable -> "unreachable"
        | Throttled -> "throttled"
        | Restart -> "restart"
        | Refused -> "refused"
        | Undecodable -> "undecodable"
        | Missing -> "missing"
        | Truncated -> "truncated"
        | StoreFailed -> "store_failed"
        | Overrun -> "overrun"
        | Disconnect -> "disconnect"
        | Starved -> "starved"
        | Mismatch -> "mismatch"
        | Expired -> "expired"

[<RequireQualifiedAccess>]
module Cause =
    /// Every cause, in the order of their declaration.
    let all = [
        Cause.Stopped
        Cause.Paused
        Cause.Late
        Cause.BackOff
        Cause.Unreachable
        Cause.Throttled
        Cause.Restart
        Cause.Refused
        Cause.Undecodable
        Cause.Missing
        Cause.Truncated
        Cause.StoreFailed
        Cause.Overrun
        Cause.Disconnect
        Cause.Starved
        Cause.Mismatch
        Cause.Expired
    ]

    let tryParse text =
        all |> List.tryFind (fun cause -> string cause = text)

/// One hole as one collector saw it.
type Gap = {
    Exchange: ExchangeId
    Stream: Stream
    Market: MarketId
    /// The token, or nothing when the whole market is meant.
    Token: TokenId voption
    /// The moment of the last event that was proven good: never the moment of noticing.
    Since: Instant
    /// When good events began again; nothing while the gap is open.
    Until: Instant voption
    Cause: Cause
    /// When what was missing was fetched after all, and by what; depth cannot be healed, trades can.
    Healed: (struct (Instant * string)) voption
}

/// What flows out at the doors.
[<RequireQualifiedAccess>]
type MarketEvent =
    | Trade of Trade
    | Book of OrderBookSnapshot
    | Delta of OrderBookDelta
    | Gap of Gap
    | Market of Market
