namespace Tributary

open System

/// What a live connection tells of.
type StreamKind =
    /// A level's new total.
    | Change = 0uy
    /// A whole book: a row of the frame's batch.
    | Book = 1uy
    /// A fill.
    | Trade = 2uy
    /// A market's tick size is another one now.
    | TickSize = 3uy
    /// The best prices, by themselves.
    | BestPrices = 4uy
    /// A market came into being.
    | NewMarket = 5uy
    /// A market's winner is known.
    | Resolved = 6uy

/// One thing that a frame says, as numbers and slices of its bytes: valid as long as those are.
[<Struct>]
type StreamEvent = {
    Kind: StreamKind
    /// Not of a change: its token tells.
    Market: Name
    /// The token that it is about; of a resolved market the winner.
    mutable Token: Name
    mutable At: Instant
    /// The number of its message within the connection's frames: a frame may hold several.
    Message: int
    /// For a fill the taker's.
    Side: Side
    /// In millionths: of a level, a fill, a tick.
    Price: int64
    /// In millionths: a level's new total, a fill's size.
    Size: int64
    /// The best bid after a change; 0 when there is none, -1 when it was not said.
    BestBid: int64
    /// The best ask after a change; 1 000 000 when there is none, -1 when it was not said.
    BestAsk: int64
    /// The exchange's hash of the whole book after a change; empty when it gave none.
    Hash: Slice
    /// Verbatim: the price of a fill, the tick size, the slug of a market.
    mutable Text: Slice
    /// A fill's transaction, or the name of the outcome that won.
    Detail: Slice
    /// The row of a book in the frame's batch.
    Row: int
    /// Its message says no more of this token.
    mutable IsLast: bool
}

/// What a connection's frames say, in their order: made once, filled anew by every frame.
[<Sealed>]
type Frame(names: Names) =
    member val Events = Rows<StreamEvent>()
    /// The whole books of the frame, with their levels, and rejections: bytes that could not be read.
    member val Batch = Batch names
    /// For a decoder: where the members of the message at hand are.
    member val internal Parts: Slice[] = Array.zeroCreate 32
    /// Messages so far.
    member val Messages = 0 with get, set
    /// Messages that were read with care because they were not in the usual form.
    member val Unusual = 0L with get, set
    /// Messages of kinds that nobody knows.
    member val Unknown = 0L with get, set
    /// Answers to a ping.
    member val Pongs = 0L with get, set

    /// Forgets the events and books of the frame before.
    member this.Clear() =
        this.Events.Truncate 0
        this.Batch.Clear()

/// What an exchange's hash of a token's book covers beside the levels, as far as it is known: it can say whether a book has a hash.
[<AbstractClass; AllowNullLiteral>]
type BookProof() =
    /// The market's description: minimum size, tick size, and the like.
    abstract Describe: Market -> unit
    /// The price of the last fill, verbatim.
    abstract Traded: price: ReadOnlySpan<byte> -> unit
    /// The tick size, verbatim.
    abstract Tick: tick: ReadOnlySpan<byte> -> unit
    /// Enough is known to tell.
    abstract IsReady: bool

    /// Whether the book, last changed at this moment, has this hash, given as text. `hint` is the price that changed, in
    /// millionths: a hash may cover a fill at it that is not announced yet.
    abstract Agrees: book: Book * at: Instant * hash: ReadOnlySpan<byte> * hint: int64 -> bool

/// The live part of an exchange, pure as the rest: what to send, and what frames mean.
[<NoComparison; NoEquality>]
type StreamPart = {
    /// The setting that holds the address, such as `ws_url`.
    Host: string
    /// The path below it.
    Path: string
    /// The most tokens on one connection that are known to work.
    MostTokens: int
    /// The frame that begins a connection, with its first tokens.
    Open: TokenId list -> string
    /// More tokens on an open connection; their whole books are asked for.
    Subscribe: TokenId list -> string
    Unsubscribe: TokenId list -> string
    /// What keeps a connection alive, and how often.
    Ping: string
    PingEvery: TimeSpan
    /// Appends what a frame says: good messages as events, bad ones as rejections of its batch. Same bytes, same events.
    Decode: ReadOnlyMemory<byte> -> Instant -> Frame -> unit
    /// The proof of a token's books.
    Proof: MarketId -> TokenId -> BookProof
}
