using Microsoft.FSharp.Core;

namespace Tributary.CSharp;

/// <summary>
/// Something that was collected and is stored durably: a <see cref="TradeEvent"/>, a <see cref="BookEvent"/>, a
/// <see cref="BookDeltaEvent"/>, a <see cref="GapEvent"/> or a <see cref="MarketInfoEvent"/>. All times are UTC.
/// </summary>
/// <example>
/// <code>
/// var line = happened switch
/// {
///     TradeEvent trade => $"{trade.Side} {trade.Size} at {trade.Price}",
///     BookEvent book => $"{book.BestBid?.Price} / {book.BestAsk?.Price}",
///     GapEvent gap => $"nothing is known since {gap.Since}: {gap.Cause}",
///     _ => happened.Slug,
/// };
/// </code>
/// </example>
public abstract record MarketEvent
{
    private protected MarketEvent() { }

    /// <summary>The exchange's name, such as <c>polymarket</c>.</summary>
    public required string Exchange { get; init; }

    /// <summary>The market as the exchange keys it (Polymarket: the condition id).</summary>
    public required string Market { get; init; }

    /// <summary>The market's slug; empty while no description of it is known.</summary>
    public required string Slug { get; init; }

    /// <summary>When it happened, by the exchange's clock, to the microsecond.</summary>
    public required DateTimeOffset At { get; init; }

    /// <summary>When this collector had it, by its own clock, to the microsecond.</summary>
    public required DateTimeOffset Received { get; init; }
}

/// <summary>The side of the taker of a trade.</summary>
public enum TradeSide
{
    /// <summary>The taker bought.</summary>
    Buy,

    /// <summary>The taker sold.</summary>
    Sell,
}

/// <summary>A fill.</summary>
public sealed record TradeEvent : MarketEvent
{
    /// <summary>The outcome's token as the exchange keys it.</summary>
    public required string Token { get; init; }

    /// <summary>The outcome's name, or empty.</summary>
    public required string Outcome { get; init; }

    /// <summary>The taker's side.</summary>
    public required TradeSide Side { get; init; }

    /// <summary>In units of the currency per share, exact to six decimals.</summary>
    public required decimal Price { get; init; }

    /// <summary>In shares, exact to six decimals.</summary>
    public required decimal Size { get; init; }

    /// <summary>32 hexadecimal digits, made from the trade's content: the same fill has the same id for everybody.</summary>
    public required string Id { get; init; }

    /// <summary>The settling transaction, or empty. Many fills share one.</summary>
    public required string Transaction { get; init; }

    /// <summary>
    /// Where it was sighted. The stream tells of a fill first and the API confirms it a little later, with an id of its own: whoever
    /// counts fills counts one of the two.
    /// </summary>
    public required TradeSource Source { get; init; }
}

/// <summary>Where a trade was sighted.</summary>
public enum TradeSource
{
    /// <summary>The exchange's list of trades.</summary>
    Api,

    /// <summary>Its live stream.</summary>
    Stream,

    /// <summary>The chain that it settles on.</summary>
    Chain,
}

/// <summary>One price level of an order book.</summary>
/// <param name="Price">In units of the currency per share, exact to six decimals.</param>
/// <param name="Size">All shares that rest at this price, exact to six decimals.</param>
public readonly record struct PriceLevel(decimal Price, decimal Size);

/// <summary>Whether an order book was proven to be what the exchange had.</summary>
public enum BookVerdict
{
    /// <summary>The exchange's hash agrees.</summary>
    Verified,

    /// <summary>There is no proof either way.</summary>
    Unverifiable,

    /// <summary>The exchange's hash disagrees.</summary>
    Mismatched,
}

/// <summary>Why an order book is not <see cref="BookVerdict.Verified"/>.</summary>
public enum BookDoubt
{
    /// <summary>There is no doubt: the proof is there, one way or the other.</summary>
    None,

    /// <summary>The exchange gave no hash, or too little of what its hash covers.</summary>
    NoHash,

    /// <summary>Its hash was not computed, to save processor time; a later state's may have been.</summary>
    NotChecked,

    /// <summary>Its hash disagrees, and may cover a last trade price that is still on its way.</summary>
    Pending,

    /// <summary>A level was not written in the form that hashes are made of.</summary>
    NotCanonical,

    /// <summary>An update came again within the millisecond of its first coming.</summary>
    Ambiguous,

    /// <summary>The hash of the whole book disagrees.</summary>
    Hash,

    /// <summary>The best bid or ask that came with the change disagrees.</summary>
    BestPrice,

    /// <summary>The complementary token's book is not its mirror.</summary>
    Mirror,

    /// <summary>The book that a poll brought is another one.</summary>
    Poll,

    /// <summary>Updates are missing: the connection was lost or silent, or the first book never came.</summary>
    Missed,

    /// <summary>Bids stood above asks for longer than a match takes.</summary>
    Crossed,

    /// <summary>The exchange numbers its messages, and numbers are missing.</summary>
    Sequence,

    /// <summary>A change took more from a level than was there.</summary>
    Negative,
}

/// <summary>Why a whole order book was stored.</summary>
public enum BookReason
{
    /// <summary>It was asked for.</summary>
    Poll,

    /// <summary>The first one of a live subscription.</summary>
    First,

    /// <summary>The one that ends a gap of a live book, or that the exchange sent anew.</summary>
    Resync,

    /// <summary>So that any moment can be rebuilt cheaply: every so many changes or minutes.</summary>
    Periodic,

    /// <summary>The last one of a market that is over.</summary>
    Last,
}

/// <summary>A whole order book of one token.</summary>
public sealed record BookEvent : MarketEvent
{
    /// <summary>The outcome's token as the exchange keys it.</summary>
    public required string Token { get; init; }

    /// <summary>From the highest price down.</summary>
    public required IReadOnlyList<PriceLevel> Bids { get; init; }

    /// <summary>From the lowest price up.</summary>
    public required IReadOnlyList<PriceLevel> Asks { get; init; }

    /// <summary>Whether the book was proven to be what the exchange had.</summary>
    public required BookVerdict Verdict { get; init; }

    /// <summary>Why it is not verified.</summary>
    public required BookDoubt Doubt { get; init; }

    /// <summary>Why it was taken.</summary>
    public required BookReason Reason { get; init; }

    /// <summary>The exchange's own hash of the book, or empty.</summary>
    public required string Hash { get; init; }

    /// <summary>The exchange's number of the message that it is as of; null where it numbers none.</summary>
    public int? Sequence { get; init; }

    /// <summary>The highest bid; null when there are no bids.</summary>
    public PriceLevel? BestBid => Bids.Count > 0 ? Bids[0] : null;

    /// <summary>The lowest ask; null when there are no asks.</summary>
    public PriceLevel? BestAsk => Asks.Count > 0 ? Asks[0] : null;
}

/// <summary>A side of an order book.</summary>
public enum BookSide
{
    /// <summary>Offers to buy.</summary>
    Bid,

    /// <summary>Offers to sell.</summary>
    Ask,
}

/// <summary>
/// A change of one price level of a live order book. A book is rebuilt from a <see cref="BookEvent"/> by applying the changes
/// behind it in the order of <see cref="MarketEvent.At"/> and <see cref="Ordinal"/>, but never across a <see cref="GapEvent"/>.
/// </summary>
public sealed record BookDeltaEvent : MarketEvent
{
    /// <summary>The outcome's token as the exchange keys it.</summary>
    public required string Token { get; init; }

    /// <summary>Its place, from 0, among the changes of this token at this time.</summary>
    public required int Ordinal { get; init; }

    /// <summary>The side that the level is on.</summary>
    public required BookSide Side { get; init; }

    /// <summary>In units of the currency per share, exact to six decimals.</summary>
    public required decimal Price { get; init; }

    /// <summary>All shares that rest at this price now, exact to six decimals; zero removes the level.</summary>
    public required decimal Size { get; init; }

    /// <summary>Whether the book after it was proven to be what the exchange had.</summary>
    public required BookVerdict Verdict { get; init; }

    /// <summary>Why that book is not verified.</summary>
    public required BookDoubt Doubt { get; init; }

    /// <summary>The exchange's own hash of the book after it, or empty.</summary>
    public required string Hash { get; init; }

    /// <summary>The exchange's number of its message; null where it numbers none.</summary>
    public int? Sequence { get; init; }
}

/// <summary>Why there is a gap.</summary>
public enum GapCause
{
    /// <summary>No collector ran.</summary>
    Stopped,

    /// <summary>Collecting was paused.</summary>
    Paused,

    /// <summary>A due poll was skipped: the one before still ran, or this machine was busy or asleep.</summary>
    Late,

    /// <summary>The collector waited because of an earlier failure.</summary>
    BackOff,

    /// <summary>No answer: connection refused, lost, or timed out.</summary>
    Unreachable,

    /// <summary>The exchange asked to slow down.</summary>
    Throttled,

    /// <summary>The exchange's matching engine was restarting.</summary>
    Restart,

    /// <summary>The exchange answered with an error.</summary>
    Refused,

    /// <summary>The answer could not be read.</summary>
    Undecodable,

    /// <summary>The answer left this out though it was asked for.</summary>
    Missing,

    /// <summary>A page or a window was cut short and the rest could not be had.</summary>
    Truncated,

    /// <summary>The store could not keep what was collected.</summary>
    StoreFailed,

    /// <summary>The collector dropped it because too much came at once.</summary>
    Overrun,

    /// <summary>A live connection was lost.</summary>
    Disconnect,

    /// <summary>A live connection said nothing.</summary>
    Starved,

    /// <summary>A proof disagreed.</summary>
    Mismatch,

    /// <summary>It was there, and was older than it is to be kept: it was deleted.</summary>
    Expired,
}

/// <summary>Which flow of a market a gap is in.</summary>
public enum GapStream
{
    /// <summary>Market descriptions.</summary>
    Markets,

    /// <summary>Order books.</summary>
    Books,

    /// <summary>Trades.</summary>
    Trades,

    /// <summary>Live order books.</summary>
    Depth,

    /// <summary>Trades of the past, read once: a backfill.</summary>
    History,

    /// <summary>The exchange's own history of prices.</summary>
    Prices,
}

/// <summary>A hole in what was collected. It comes when the gap opens, and again when it is closed or healed.</summary>
public sealed record GapEvent : MarketEvent
{
    /// <summary>The flow that has the hole.</summary>
    public required GapStream Stream { get; init; }

    /// <summary>The outcome's token, or null when the whole market is meant.</summary>
    public required string? Token { get; init; }

    /// <summary>Why.</summary>
    public required GapCause Cause { get; init; }

    /// <summary>The moment of the last event that was proven good; the same as <see cref="MarketEvent.At"/>.</summary>
    public DateTimeOffset Since => At;

    /// <summary>When good events began again; null while the gap is open.</summary>
    public required DateTimeOffset? Until { get; init; }

    /// <summary>When what was missing was fetched after all; null if it was not.</summary>
    public required DateTimeOffset? HealedAt { get; init; }
}

/// <summary>Where a market is in its life.</summary>
public enum MarketState
{
    /// <summary>Announced; no orders yet.</summary>
    Pending,

    /// <summary>Orders are accepted.</summary>
    Open,

    /// <summary>Trading is over or paused; no outcome yet.</summary>
    Closed,

    /// <summary>The winner is known.</summary>
    Resolved,
}

/// <summary>One possible answer of a market.</summary>
/// <param name="Name">As the exchange calls it.</param>
/// <param name="Token">Its token, or null while it has none.</param>
public sealed record MarketOutcome(string Name, string? Token);

/// <summary>A market's description as the exchange gave it.</summary>
public sealed record MarketInfoEvent : MarketEvent
{
    /// <summary>What the market asks.</summary>
    public required string Question { get; init; }

    /// <summary>The exchange's name for the group of markets that it belongs to, or empty.</summary>
    public required string Event { get; init; }

    /// <summary>The possible answers.</summary>
    public required IReadOnlyList<MarketOutcome> Outcomes { get; init; }

    /// <summary>Where it is in its life.</summary>
    public required MarketState State { get; init; }

    /// <summary>The outcome that won, once resolved, or empty.</summary>
    public required string Winner { get; init; }

    /// <summary>The smallest step of its prices, in units of the currency; null when not given.</summary>
    public required decimal? TickSize { get; init; }

    /// <summary>The smallest order, in shares; null when not given.</summary>
    public required decimal? MinimumSize { get; init; }

    /// <summary>When it is to end; null when not given.</summary>
    public required DateTimeOffset? End { get; init; }
}

/// <summary>From the engine's values to those of this door.</summary>
internal static class Door
{
    public static DateTimeOffset Time(Instant instant) => InstantModule.toDateTimeOffset(instant);

    public static DateTimeOffset? Time(FSharpValueOption<Instant> instant) =>
        instant.IsSome ? Time(instant.Value) : null;

    private static decimal Exact(long millionths) => millionths / 1_000_000m;

    public static string? Text<T>(FSharpValueOption<T> id) where T : notnull =>
        id.IsSome ? id.Value.ToString() : null;

    private static int? Number(FSharpValueOption<int> number) => number.IsSome ? number.Value : null;

    private static PriceLevel[] Levels(Level[] levels) =>
        Array.ConvertAll(levels, level => new PriceLevel(Exact(level.Price.Millionths), Exact(level.Size.Millionths)));

    public static TradeEvent Event(Trade trade, string slug) => new()
    {
        Exchange = trade.Exchange.ToString(),
        Market = trade.Market.ToString(),
        Slug = slug,
        At = Time(trade.At),
        Received = Time(trade.Received),
        Token = trade.Token.ToString(),
        Outcome = trade.Outcome,
        Side = (TradeSide)trade.Side,
        Price = Exact(trade.Price.Millionths),
        Size = Exact(trade.Size.Millionths),
        Id = trade.Id.ToString(),
        Transaction = trade.Transaction,
        Source = (TradeSource)trade.Source,
    };

    public static BookEvent Event(OrderBookSnapshot book, string slug) => new()
    {
        Exchange = book.Exchange.ToString(),
        Market = book.Market.ToString(),
        Slug = slug,
        At = Time(book.At),
        Received = Time(book.Received),
        Token = book.Token.ToString(),
        Bids = Levels(book.Bids),
        Asks = Levels(book.Asks),
        Verdict = (BookVerdict)book.Verdict,
        Doubt = (BookDoubt)book.Doubt,
        Reason = (BookReason)book.Reason,
        Hash = book.Hash,
        Sequence = Number(book.Sequence),
    };

    public static BookDeltaEvent Event(OrderBookDelta delta, string slug) => new()
    {
        Exchange = delta.Exchange.ToString(),
        Market = delta.Market.ToString(),
        Slug = slug,
        At = Time(delta.At),
        Received = Time(delta.Received),
        Token = delta.Token.ToString(),
        Ordinal = delta.Ordinal,
        Side = (BookSide)delta.Side,
        Price = Exact(delta.Price.Millionths),
        Size = Exact(delta.Size.Millionths),
        Verdict = (BookVerdict)delta.Verdict,
        Doubt = (BookDoubt)delta.Doubt,
        Hash = delta.Hash,
        Sequence = Number(delta.Sequence),
    };

    /// <summary>A gap carries no time of ours: it is the moment at which the stream hears of it.</summary>
    public static GapEvent Event(Gap gap, string slug, DateTimeOffset now) => new()
    {
        Exchange = gap.Exchange.ToString(),
        Market = gap.Market.ToString(),
        Slug = slug,
        At = Time(gap.Since),
        Received = now,
        Stream = (GapStream)gap.Stream.Tag,
        Token = Text(gap.Token),
        Cause = (GapCause)gap.Cause.Tag,
        Until = Time(gap.Until),
        HealedAt = gap.Healed.IsSome ? Time(gap.Healed.Value.Item1) : null,
    };

    public static BookAnswer Answer(BookAt answer, string token, DateTimeOffset moment) => answer switch
    {
        BookAt.Known { Item: var book } => new KnownBook
        {
            Token = token,
            Moment = moment,
            Bids = Levels(book.Bids),
            Asks = Levels(book.Asks),
            At = Time(book.At),
            Verdict = (BookVerdict)book.Verdict,
            Doubt = (BookDoubt)book.Doubt,
            BaseAt = Time(book.Base),
            Changes = book.Changes,
        },
        BookAt.NotKnown unknown => new UnknownBook
        {
            Token = token,
            Moment = moment,
            Since = Time(unknown.since),
            Until = Time(unknown.until),
            Reason = (UnknownReason)unknown.why.Tag,
            Explanation = unknown.why.ToString(),
        },
        _ => throw new InvalidOperationException($"An answer of an unknown kind: {answer}"),
    };

    public static MarketInfoEvent Event(Market market) => new()
    {
        Exchange = market.Exchange.ToString(),
        Market = market.Market.ToString(),
        Slug = market.Slug,
        At = Time(market.Updated) ?? Time(market.Received),
        Received = Time(market.Received),
        Question = market.Question,
        Event = market.Event,
        Outcomes = Array.ConvertAll(market.Outcomes, outcome => new MarketOutcome(outcome.Name, Text(outcome.Token))),
        State = (MarketState)market.Status.Tag,
        Winner = market.Winner,
        TickSize = market.TickSize.IsSome ? Exact(market.TickSize.Value.Millionths) : null,
        MinimumSize = market.MinimumSize.IsSome ? Exact(market.MinimumSize.Value.Millionths) : null,
        End = Time(market.End),
    };
}
