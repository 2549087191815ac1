namespace Tributary

open System
open System.Collections.Generic
open System.Runtime.CompilerServices

/// Identities out of names that decoders have checked already.
[<RequireQualifiedAccess>]
module internal Known =
    let private ensured (parsed: Result<'T, string>) =
        match parsed with
        | Ok id -> id
        | Error message -> invalidOp message // a decoder let it through: a bug

    let exchange text = ensured (ExchangeId.Parse text)
    let market text = ensured (MarketId.Parse text)
    let token text = ensured (TokenId.Parse text)

/// Some bytes of a batch's own text buffer.
[<Struct>]
type Slice = { Start: int; Length: int }

[<RequireQualifiedAccess>]
module internal Slice =
    let none: Slice = { Start = 0; Length = 0 }

/// A growing array of structs that is reused, not thrown away. Rows are reached by reference.
[<Sealed>]
type Rows<'T when 'T: struct>() =
    let mutable items: 'T[] = Array.zeroCreate 64
    let mutable count = 0
    member _.Count = count
    member _.Item(index: int) : byref<'T> = &items[index]

    [<MethodImpl(MethodImplOptions.AggressiveInlining)>]
    member _.Add(item: inref<'T>) =
        if count = items.Length then
            Array.Resize(&items, count * 2)

        items[count] <- item
        count <- count + 1

    member _.Span = Span<'T>(items, 0, count)
    member _.Slice(start, length) = Span<'T>(items, start, length)
    member _.Truncate(length) = count <- length

/// A fill as it stands in a batch. `Occurrence` and `Id` are filled in by `Trades.number`.
[<Struct>]
type TradeRow = {
    Market: Name
    Token: Name
    Outcome: Name
    Side: Side
    Source: Source
    Price: Price
    Size: Size
    /// The exact amount of the currency that changed hands, where the source says it.
    Collateral: Size voption
    At: Instant
    Received: Instant
    /// As text, in the batch's buffer.
    Transaction: Slice
    /// The taker's wallet as text, lower-cased, in the batch's buffer.
    Wallet: Slice
    mutable Flags: Flags
    /// Its number among fills of the same content; negative where the exchange gives each an id of its own, which its transaction holds.
    mutable Occurrence: int
    mutable Id: TradeId
    /// The store had not seen it before: set by the store that wrote it.
    mutable Inserted: bool
}

/// A whole book as it stands in a batch: its levels lie in `Batch.Levels`, best first on both sides.
[<Struct>]
type BookRow = {
    Market: Name
    Token: Name
    At: Instant
    Received: Instant
    FirstBid: int
    BidCount: int
    FirstAsk: int
    AskCount: int
    /// The exchange's hash as text, in the batch's buffer.
    Hash: Slice
    /// Zero when the exchange did not say.
    Tick: Price
    /// The price of the last fill as the exchange wrote it, in the batch's buffer: its hash covers the very text. A negative length when it
    /// did not say; not stored.
    LastTrade: Slice
    /// The exchange's number of the message that it is as of; 0 where it numbers none.
    Sequence: int
    Verdict: Verdict
    Doubt: Doubt
    Reason: Reason
    mutable Flags: Flags
    mutable Inserted: bool
}

/// A change of one level of a live book as it stands in a batch.
[<Struct>]
type DeltaRow = {
    Market: Name
    Token: Name
    At: Instant
    Received: Instant
    Ordinal: int
    /// The exchange's number of its message; 0 where it numbers none.
    Sequence: int
    Side: Side
    Price: Price
    /// The level's new total.
    Size: Size
    /// The exchange's hash of the book after it, as text in the batch's buffer.
    Hash: Slice
    Verdict: Verdict
    Doubt: Doubt
    mutable Inserted: bool
}

/// A price of a token at a moment as it stands in a batch.
[<Struct>]
type PriceRow = {
    Market: Name
    Token: Name
    At: Instant
    Received: Instant
    Kind: PriceKind
    Price: Price
    mutable Inserted: bool
}

/// Bytes that could not be read, or rows that cannot be true: kept with the reason, never as data.
type Rejection = {
    Exchange: string
    /// Where it came from: an address without secrets, or a file and line.
    Source: string
    /// The position of the first byte within what was read.
    Offset: int
    Reason: string
    Bytes: byte[]
    Received: Instant
}

/// How far a job has come: written in the same transaction as the rows that it stands for.
type Checkpoint = {
    /// `exchange/stream/market` or `exchange/stream/market/token`: what it is about.
    Job: string
    Exchange: ExchangeId
    Stream: Stream
    Market: MarketId
    Token: TokenId voption
    /// Everything from here …
    Since: Instant
    /// … to here was read, but for the gaps in between.
    Watermark: Instant
    /// Rows that the last run brought, new ones only.
    Rows: int
    /// What went wrong in the last run, or empty.
    Error: string
    /// How long the last run took.
    Duration: TimeSpan
    /// What the job needs to go on where it stopped, in its own words; replaced as a whole each time. Empty where nothing is needed.
    State: string
}

/// A counter or a gauge at a moment.
type Metric = {
    Name: string
    /// `key=value` pairs in the order of their keys, separated by commas; may be empty.
    Labels: string
    At: Instant
    Value: float
}

/// The rows of one answer, in order, in columns that are reused from answer to answer. Decoders append; the store reads.
/// One owner at a time. Names belong to the `Names` that it was made with.
[<Sealed>]
type Batch(names: Names) =
    let mutable text: byte[] = Array.zeroCreate 4096
    let mutable textLength = 0

    new() = Batch(Names())
    member _.Names = names
    /// The exchange that all rows are of.
    member val Exchange = "" with get, set
    /// When the bytes arrived, by our clock: the `received` of the rows that a decoder makes of them.
    member val Received: Instant = { Micros = 0L } with get, set
    member val Trades = Rows<TradeRow>()
    /// Where each trade stands in the bytes it was read from: what is quarantined when it cannot be true.
    member val TradeOrigins = Rows<Slice>()
    member val Books = Rows<BookRow>()
    member val BookOrigins = Rows<Slice>()
    member val Levels = Rows<Level>()
    member val Deltas = Rows<DeltaRow>()
    member val Links = Rows<TradeLink>()
    member val Prices = Rows<PriceRow>()
    member val Markets = ResizeArray<Market>()
    member val OwnOrders = ResizeArray<OwnOrder>()
    member val OwnTrades = ResizeArray<OwnTrade>()
    member val Matches = ResizeArray<MarketMatch>()
    member val Gaps = ResizeArray<Gap>()
    member val Checkpoints = ResizeArray<Checkpoint>()
    member val Rejections = ResizeArray<Rejection>()
    member val Metrics = ResizeArray<Metric>()

    /// Where `Trades.number` counts: pages of ten thousand rows would leave large garbage otherwise.
    member val internal Counts = Dictionary<TradeId, int>()

    /// Copies a text into the batch's buffer.
    member _.Keep(utf8: ReadOnlySpan<byte>) : Slice =
        if textLength + utf8.Length > text.Length then
            Array.Resize(&text, max (textLength + utf8.Length) (text.Length * 2))

        utf8.CopyTo(Span<byte>(text, textLength, utf8.Length))

        let slice = {
            Start = textLength
            Length = utf8.Length
        }

        textLength <- textLength + utf8.Length
        slice

    /// As `Keep`, with A to Z in lower case.
    member this.KeepLower(utf8: ReadOnlySpan<byte>) : Slice =
        let slice = this.Keep utf8
        Text.Ascii.ToLowerInPlace(Span<byte>(text, slice.Start, slice.Length)) |> ignore
        slice

    /// The bytes of a kept text; valid until the batch is cleared.
    member _.Utf8(slice: Slice) =
        ReadOnlySpan<byte>(text, slice.Start, slice.Length)

    member this.Text(slice: Slice) =
        Text.Encoding.UTF8.GetString(this.Utf8 slice)

    /// All rows of all kinds.
    member this.RowCount =
        this.Trades.Count
        + this.Books.Count
        + this.Deltas.Count
        + this.Links.Count
        + this.Prices.Count
        + this.Markets.Count
        + this.OwnOrders.Count
        + this.OwnTrades.Count
        + this.Matches.Count
        + this.Gaps.Count
        + this.Checkpoints.Count
        + this.Rejections.Count
        + this.Metrics.Count

    /// The end of everything so far, for `Rollback`.
    member internal this.Mark() =
        struct (this.Trades.Count,
                this.Books.Count,
                this.Levels.Count,
                this.Markets.Count,
                this.Prices.Count,
                textLength)

    /// Takes back what a row added before it turned out to be bad.
    member internal this.Rollback(struct (trades, books, levels, markets, prices, kept)) =
        this.Trades.Truncate trades
        this.TradeOrigins.Truncate trades
        this.Books.Truncate books
        this.BookOrigins.Truncate books
        this.Levels.Truncate levels
        this.Markets.RemoveRange(markets, this.Markets.Count - markets)
        this.Prices.Truncate prices
        textLength <- kept

    member this.Clear() =
        this.Rollback(struct (0, 0, 0, 0, 0, 0))
        this.Deltas.Truncate 0
        this.Links.Truncate 0
        this.OwnOrders.Clear()
        this.OwnTrades.Clear()
        this.Matches.Clear()
        this.Gaps.Clear()
        this.Checkpoints.Clear()
        this.Rejections.Clear()
        this.Metrics.Clear()

    /// A trade as the doors give it.
    member this.Trade(index: int) : Trade =
        let row = &this.Trades[index]

        {
            Exchange = Known.exchange this.Exchange
            Market = Known.market (names.Text row.Market)
            Token = Known.token (names.Text row.Token)
            Outcome = names.Text row.Outcome
            Side = row.Side
            Price = row.Price
            Size = row.Size
            Collateral = row.Collateral
            Id = row.Id
            Transaction = this.Text row.Transaction
            Source = row.Source
            At = row.At
            Received = row.Received
            Flags = row.Flags
        }

    /// A book as the doors give it.
    member this.Book(index: int) : OrderBookSnapshot =
        let row = &this.Books[index]

        {
            Exchange = Known.exchange this.Exchange
            Market = Known.market (names.Text row.Market)
            Token = Known.token (names.Text row.Token)
            Bids = this.Levels.Slice(row.FirstBid, row.BidCount).ToArray()
            Asks = this.Levels.Slice(row.FirstAsk, row.AskCount).ToArray()
            Hash = this.Text row.Hash
            Sequence = Sequence.ofRow row.Sequence
            Verdict = row.Verdict
            Doubt = row.Doubt
            Reason = row.Reason
            At = row.At
            Received = row.Received
            Flags = row.Flags
        }

    /// A change of a book as the doors give it.
    member this.Delta(index: int) : OrderBookDelta =
        let row = &this.Deltas[index]

        {
            Exchange = Known.exchange this.Exchange
            Market = Known.market (names.Text row.Market)
            Token = Known.token (names.Text row.Token)
            Ordinal = row.Ordinal
            Sequence = Sequence.ofRow row.Sequence
            Side = row.Side
            Price = row.Price
            Size = row.Size
            Hash = this.Text row.Hash
            Verdict = row.Verdict
            Doubt = row.Doubt
            At = row.At
            Received = row.Received
        }

    /// A price as the doors give it.
    member this.PricePoint(index: int) : PricePoint =
        let row = &this.Prices[index]

        {
            Exchange = Known.exchange this.Exchange
            Market = Known.market (names.Text row.Market)
            Token = Known.token (names.Text row.Token)
            Kind = row.Kind
            Price = row.Price
            At = row.At
            Received = row.Received
        }
