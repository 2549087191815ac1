namespace Tributary

open System
open System.Collections.Generic

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
    /// A level's total grows by so much, or shrinks: of an exchange that numbers its messages.
    | Shift = 7uy
    /// Numbered messages are missing, or what came cannot be: of all that the connection tells, what it is from this moment on is not known.
    | Lost = 8uy

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
    mutable Side: Side
    /// In millionths: of a level, a fill, a tick.
    mutable Price: int64
    /// In millionths: a level's new total or how much it grows by, a fill's size.
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
    /// The number that the exchange gave its message; 0 when it numbers none.
    Sequence: int
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
    /// Numbered messages that came before, word for word.
    member val Repeats = 0L with get, set
    /// Answers to a ping.
    member val Pongs = 0L with get, set
    /// What the connection is to say to it.
    member val Replies = List<string>()
    /// What a person should know, such as that a subscription was refused.
    member val Notes = List<string>()

    /// Forgets the events and books of the frame before.
    member this.Clear() =
        this.Events.Truncate 0
        this.Batch.Clear()
        this.Replies.Clear()
        this.Notes.Clear()

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

[<RequireQualifiedAccess>]
module BookProof =
    /// Of books that have no hash.
    let none = {
        new BookProof() with
            member _.Describe _ = ()
            member _.Traded _ = ()
            member _.Tick _ = ()
            member _.IsReady = false
            member _.Agrees(_, _, _, _) = false
    }

/// One connection's conversation: what to say, and what its frames mean. It may remember what was said before, such as the numbers of
/// messages and subscriptions; it knows no socket and no clock. One caller at a time.
[<NoComparison; NoEquality>]
type StreamSession = {
    /// The texts that begin the connection, with its first tokens.
    Open: TokenId list -> string list
    /// More tokens on the open connection; their whole books are asked for.
    Subscribe: TokenId list -> string list
    Unsubscribe: TokenId list -> string list
    /// The whole books of subscribed tokens, once more.
    Renew: TokenId list -> string list
    /// Appends what a frame says: good messages as events, bad ones as rejections of its batch. The same frames since the beginning, the
    /// same events.
    Decode: ReadOnlyMemory<byte> -> Instant -> Frame -> unit
}

/// The live part of an exchange, pure as the rest.
[<NoComparison; NoEquality>]
type StreamPart = {
    /// The setting that holds the address, such as `ws_url`.
    Host: string
    /// The path below it.
    Path: string
    /// The most tokens on one connection that are known to work.
    MostTokens: int
    /// What keeps a connection alive, and how often. Empty where the exchange asks, and is answered by the protocol itself.
    Ping: string
    PingEvery: TimeSpan
    /// Its messages are numbered: a book is proven as long as none is missing. Otherwise every state needs a proof of its own, and polls
    /// are compared with it.
    IsNumbered: bool
    /// It tells of whole books and their changes; otherwise of fills alone.
    HasBooks: bool
    /// A conversation that begins.
    Session: unit -> StreamSession
    /// The proof of a token's books.
    Proof: MarketId -> TokenId -> BookProof
}
