namespace Tributary

open System

/// The level-2 order book of one token: the total size at every price, from a snapshot and the changes behind it, exact. Prices and
/// sizes are millionths. Levels stand worst first, so that the best is the last one and changes near it move little memory:
/// bids rise, asks fall. Any price is a level, on the tick grid or off it. One owner at a time; nothing is allocated while the
/// number of levels does not reach a new maximum.
[<Sealed>]
type Book =
    new: unit -> Book

    /// No levels on either side.
    member Clear: unit -> unit

    /// Takes a whole book, levels best first as batches and doors have them.
    member Load: bestBids: ReadOnlySpan<Level> * bestAsks: ReadOnlySpan<Level> -> unit

    /// Sets the total at a price; zero removes the level. Answers whether the book is another one now.
    member Set: side: Side * price: int64 * size: int64 -> bool

    /// The total at a price; zero when there is no level.
    member Size: side: Side * price: int64 -> int64

    /// How many levels of a side are better than this price.
    member Rank: side: Side * price: int64 -> int

    /// How many levels a side has.
    member Count: side: Side -> int

    /// The levels of a side, worst first. Valid until the next change.
    member Levels: side: Side -> ReadOnlySpan<Level>

    /// The best `n` levels of a side, best first.
    member Depth: side: Side * n: int -> Level[]

    /// The price of the best bid; 0 when there are no bids.
    member BestBid: int64

    /// The price of the best ask; 1 000 000 when there are no asks.
    member BestAsk: int64

    /// Reads a little of the best levels, so that they are near when they are needed; the answer means nothing.
    member internal Glance: side: Side -> int64

    /// The best bid is at or above the best ask.
    member IsCrossed: bool

    /// Has exactly these levels, given best first.
    member Has: bestBids: ReadOnlySpan<Level> * bestAsks: ReadOnlySpan<Level> -> bool

    /// The other book is that of the complementary token: its asks are these bids at one minus the price, and the other way round.
    member IsMirrorOf: other: Book -> bool

    /// Appends the best `n` levels of a side to a batch, best first.
    member CopyTo: side: Side * n: int * levels: Rows<Level> -> unit
