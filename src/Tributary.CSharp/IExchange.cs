using Microsoft.FSharp.Collections;
using Microsoft.FSharp.Core;

namespace Tributary.CSharp;

/// <summary>
/// An exchange of your own, that is polled for markets, order books and trades. It says what to ask and what the answers mean; asking,
/// limits, retries, gaps, validation, identities and storing are done for it. Its functions depend on their arguments alone.
/// </summary>
/// <example>
/// <code>
/// var options = new TributaryOptions { Exchange = new MyExchange(), Markets = ["will-it-rain-tomorrow"] };
/// await using var client = await TributaryClient.StartAsync(options);
/// </code>
/// </example>
public interface IExchange
{
    /// <summary>Its name in tables, such as <c>myexchange</c>: small letters.</summary>
    string Name { get; }

    /// <summary>Its base addresses, by the names of the settings that may change them, which end in <c>_url</c>.</summary>
    IReadOnlyDictionary<string, Uri> Addresses { get; }

    /// <summary>How many requests it allows in any ten seconds, by endpoint. An endpoint without one has no limit.</summary>
    IReadOnlyDictionary<string, int> Limits { get; }

    /// <summary>What to ask for a need: each request is the beginning of a walk over pages.</summary>
    /// <param name="need">What is wanted; a <c>switch</c> over its kinds. A kind that it cannot serve has no requests.</param>
    /// <returns>Requests, or none.</returns>
    IEnumerable<ExchangeRequest> Ask(ExchangeNeed need);

    /// <summary>
    /// What an answer says. What it throws keeps the answer in quarantine, and what was asked for becomes a gap of cause <c>undecodable</c>.
    /// </summary>
    /// <param name="request">What was asked; its path tells which page it is.</param>
    /// <param name="body">The answer's bytes; they are valid during the call.</param>
    /// <param name="received">When they arrived.</param>
    /// <returns>Rows, and what to ask next.</returns>
    ExchangeAnswer Decode(ExchangeRequest request, ReadOnlyMemory<byte> body, DateTimeOffset received);
}

/// <summary>What is wanted of an exchange.</summary>
public abstract record ExchangeNeed
{
    private protected ExchangeNeed() { }
}

/// <summary>Markets by their slugs, whatever their state.</summary>
/// <param name="Slugs">At least one.</param>
public sealed record MarketsBySlug(IReadOnlyList<string> Slugs) : ExchangeNeed;

/// <summary>All markets of events, by the events' slugs.</summary>
/// <param name="Slugs">At least one.</param>
public sealed record MarketsByEvent(IReadOnlyList<string> Slugs) : ExchangeNeed;

/// <summary>Markets again, as the exchange keys them.</summary>
/// <param name="Markets">Their ids.</param>
public sealed record MarketsById(IReadOnlyList<string> Markets) : ExchangeNeed;

/// <summary>Open markets that discovery may choose from; it is no harm to answer more.</summary>
/// <param name="Tags">Markets with any of these tags; none restricts nothing.</param>
/// <param name="Patterns">Slugs like any of these, with <c>*</c> and <c>?</c>; none restricts nothing.</param>
/// <param name="MinimumVolume">Lifetime volume in units of the currency, or null.</param>
public sealed record MarketsLike(IReadOnlyList<string> Tags, IReadOnlyList<string> Patterns, decimal? MinimumVolume) : ExchangeNeed;

/// <summary>The order books of tokens, now.</summary>
/// <param name="Tokens">At least one.</param>
public sealed record BooksOf(IReadOnlyList<string> Tokens) : ExchangeNeed;

/// <summary>Trades of markets, newest first, back to where each is known.</summary>
/// <param name="Markets">At least one.</param>
public sealed record TradesOf(IReadOnlyList<TradesSince> Markets) : ExchangeNeed;

/// <summary>A market whose trades are known up to a moment.</summary>
/// <param name="Market">As the exchange keys it.</param>
/// <param name="Since">Trades from here on are wanted.</param>
public sealed record TradesSince(string Market, DateTimeOffset Since);

/// <summary>A question to an exchange.</summary>
/// <param name="Endpoint">The limit that it counts against, and its name in counters.</param>
/// <param name="Address">The name of one of <see cref="IExchange.Addresses"/>.</param>
/// <param name="Path">Path and query below it, beginning with a slash.</param>
/// <param name="Body">A JSON body, which makes it a POST; null makes it a GET.</param>
public sealed record ExchangeRequest(string Endpoint, string Address, string Path, string? Body = null)
{
    /// <summary>What it was asked for; set when it comes back with its answer.</summary>
    public ExchangeNeed? Need { get; init; }
}

/// <summary>What an answer says.</summary>
public sealed record ExchangeAnswer
{
    /// <summary>Descriptions of markets. Default none.</summary>
    public IReadOnlyList<ExchangeMarket> Markets { get; init; } = [];

    /// <summary>Order books. Default none.</summary>
    public IReadOnlyList<ExchangeBook> Books { get; init; } = [];

    /// <summary>Trades, newest first. Default none.</summary>
    public IReadOnlyList<ExchangeTrade> Trades { get; init; } = [];

    /// <summary>The following page, if there is one. Default none.</summary>
    public IReadOnlyList<ExchangeRequest> Next { get; init; } = [];

    /// <summary>Tokens that were asked for and that the exchange does not know: a gap of cause <c>missing</c>. Default none.</summary>
    public IReadOnlyList<string> Missing { get; init; } = [];

    /// <summary>Why rows of the answer cannot be read, a sentence each: they are kept in quarantine, and cost no other row. Default none.</summary>
    public IReadOnlyList<string> Rejected { get; init; } = [];
}

/// <summary>A market's description.</summary>
public sealed record ExchangeMarket
{
    /// <summary>As the exchange keys it.</summary>
    public required string Market { get; init; }

    /// <summary>The name that people pick it by.</summary>
    public required string Slug { get; init; }

    /// <summary>What it asks.</summary>
    public required string Question { get; init; }

    /// <summary>The possible answers, each with its token.</summary>
    public required IReadOnlyList<MarketOutcome> Outcomes { get; init; }

    /// <summary>Where it is in its life.</summary>
    public required MarketState State { get; init; }

    /// <summary>Orders are taken. Default: when it is open.</summary>
    public bool? AcceptsOrders { get; init; }

    /// <summary>The group of markets that it belongs to. Default none.</summary>
    public string Event { get; init; } = "";

    /// <summary>The outcome that won. Default none.</summary>
    public string Winner { get; init; } = "";

    /// <summary>The smallest step of its prices, in units of the currency.</summary>
    public decimal? TickSize { get; init; }

    /// <summary>Lifetime volume in units of the currency.</summary>
    public decimal? Volume { get; init; }

    /// <summary>When trading began.</summary>
    public DateTimeOffset? Start { get; init; }

    /// <summary>When it is to end.</summary>
    public DateTimeOffset? End { get; init; }

    /// <summary>When it was closed.</summary>
    public DateTimeOffset? ClosedAt { get; init; }

    /// <summary>When the exchange last changed the description.</summary>
    public DateTimeOffset? Updated { get; init; }

    /// <summary>Tags. Default none.</summary>
    public IReadOnlyList<string> Tags { get; init; } = [];

    /// <summary>The JSON as it was received. Default none.</summary>
    public string Raw { get; init; } = "";
}

/// <summary>A whole order book of one token.</summary>
/// <param name="Market">The market as the exchange keys it.</param>
/// <param name="Token">The outcome's token.</param>
/// <param name="Bids">In any order; levels without shares are left out.</param>
/// <param name="Asks">In any order; levels without shares are left out.</param>
/// <param name="At">When it was so, by the exchange's clock.</param>
public sealed record ExchangeBook(
    string Market,
    string Token,
    IReadOnlyList<PriceLevel> Bids,
    IReadOnlyList<PriceLevel> Asks,
    DateTimeOffset At);

/// <summary>A fill.</summary>
/// <param name="Market">The market as the exchange keys it.</param>
/// <param name="Token">The outcome's token.</param>
/// <param name="Outcome">The outcome's name, or empty.</param>
/// <param name="Side">The taker's side.</param>
/// <param name="Price">In units of the currency per share, to six decimals.</param>
/// <param name="Size">In shares, to six decimals.</param>
/// <param name="At">When it was, by the exchange's clock.</param>
/// <param name="Id">What tells it from others of its second: the exchange's own id, or the transaction; or empty.</param>
public sealed record ExchangeTrade(
    string Market,
    string Token,
    string Outcome,
    TradeSide Side,
    decimal Price,
    decimal Size,
    DateTimeOffset At,
    string Id = "");

/// <summary>A C# exchange as the engine takes one.</summary>
internal static class ExchangeDoor
{
    public static Collector Open(IExchange exchange) =>
        Plain.collector(new(
            ExchangeIdOf(exchange.Name),
            ListModule.OfSeq(exchange.Addresses.Select(one => new Tuple<string, string>(one.Key, one.Value.AbsoluteUri))),
            ListModule.OfSeq(exchange.Limits.Select(one => new Tuple<string, int>(one.Key, one.Value))),
            FuncConvert.FromFunc((Need need) => ListModule.OfSeq(exchange.Ask(NeedOf(need)).Select(Request))),
            FuncConvert.FromFunc((Need need, PlainRequest request, ReadOnlyMemory<byte> body, Instant received) =>
                Decode(exchange, need, request, body, received))));

    private static FSharpResult<PlainAnswer, string> Decode(
        IExchange exchange,
        Need need,
        PlainRequest request,
        ReadOnlyMemory<byte> body,
        Instant received)
    {
        try
        {
            var asked = new ExchangeRequest(
                request.Endpoint,
                request.Host,
                request.Path,
                request.Body.IsSome ? request.Body.Value : null) { Need = NeedOf(need) };

            return FSharpResult<PlainAnswer, string>.NewOk(Answer(exchange, exchange.Decode(asked, body, Door.Time(received)), received));
        }
        catch (Exception error) when (error is not OutOfMemoryException)
        {
            return FSharpResult<PlainAnswer, string>.NewError(error.Message);
        }
    }

    /// <summary>A row that is no row is rejected alone.</summary>
    private static PlainAnswer Answer(IExchange exchange, ExchangeAnswer answer, Instant received)
    {
        var rejected = answer.Rejected.ToList();

        FSharpList<TTo> Good<TFrom, TTo>(IEnumerable<TFrom> rows, Func<TFrom, TTo> make)
        {
            var good = new List<TTo>();

            foreach (var row in rows)
            {
                try
                {
                    good.Add(make(row));
                }
                catch (Exception error) when (error is FormatException or OverflowException or ArgumentException)
                {
                    rejected.Add($"{error.Message} ({row})");
                }
            }

            return ListModule.OfSeq(good);
        }

        return new(
            Good(answer.Markets, market => MarketOf(exchange, market, received)),
            Good(answer.Books, BookOf),
            Good(answer.Trades, TradeOf),
            ListModule.OfSeq(answer.Next.Select(Request)),
            Good(answer.Missing, TokenOf),
            ListModule.OfSeq(rejected));
    }

    private static ExchangeNeed NeedOf(Need need) => need switch
    {
        Need.MarketsBySlug { Item: var slugs } => new MarketsBySlug([.. slugs]),
        Need.MarketsByEvent { Item: var slugs } => new MarketsByEvent([.. slugs]),
        Need.MarketsById { Item: var ids } => new MarketsById([.. ids.Select(id => id.ToString())]),
        Need.MarketsLike { Item: var like } => new MarketsLike([.. like.Tags], [.. like.Slugs], Amount(like.MinVolume)),
        Need.Books { Item: var tokens } => new BooksOf([.. tokens.Select(token => token.ToString())]),
        Need.Trades { Item: var follows } => new TradesOf(
            [.. follows.Select(follow => new TradesSince(follow.Market.ToString(), Door.Time(follow.Since)))]),
        _ => throw new InvalidOperationException($"A need of an unknown kind: {need}"),
    };

    private static PlainRequest Request(ExchangeRequest request) =>
        new(
            request.Endpoint,
            request.Address,
            request.Path,
            request.Body is { } body ? FSharpValueOption<string>.NewValueSome(body) : FSharpValueOption<string>.ValueNone);

    private static decimal? Amount(FSharpValueOption<Size> size) => size.IsSome ? size.Value.Millionths / 1_000_000m : null;

    private static T Good<T>(FSharpResult<T, string> parsed) =>
        parsed.IsOk ? parsed.ResultValue : throw new FormatException(parsed.ErrorValue);

    private static ExchangeId ExchangeIdOf(string name) => Good(ExchangeId.Parse(name));
    private static MarketId MarketIdOf(string market) => Good(MarketId.Parse(market));
    private static TokenId TokenOf(string token) => Good(TokenId.Parse(token));

    private static long Millionths(decimal value) => decimal.ToInt64(decimal.Round(value * 1_000_000m, MidpointRounding.ToEven));
    private static Price PriceOf(decimal price) => PriceModule.ofMillionths(Millionths(price));

    private static Size SizeOf(decimal size)
    {
        var known = SizeModule.tryOfMillionths(Millionths(size));
        return known.IsSome ? known.Value : throw new FormatException($"a size of {size}");
    }

    private static FSharpValueOption<T> Maybe<TFrom, T>(TFrom? value, Func<TFrom, T> make) where TFrom : struct =>
        value is { } some ? FSharpValueOption<T>.NewValueSome(make(some)) : FSharpValueOption<T>.ValueNone;

    private static Level[] LevelsOf(IReadOnlyList<PriceLevel> levels) =>
        [.. levels.Select(level => new Level(PriceOf(level.Price), SizeOf(level.Size)))];

    private static PlainBook BookOf(ExchangeBook book) =>
        new(
            MarketIdOf(book.Market),
            TokenOf(book.Token),
            LevelsOf(book.Bids),
            LevelsOf(book.Asks),
            InstantModule.ofDateTimeOffset(book.At));

    private static PlainTrade TradeOf(ExchangeTrade trade) =>
        new(
            MarketIdOf(trade.Market),
            TokenOf(trade.Token),
            trade.Outcome,
            (Side)trade.Side,
            PriceOf(trade.Price),
            SizeOf(trade.Size),
            InstantModule.ofDateTimeOffset(trade.At),
            trade.Id,
            "");

    private static Market MarketOf(IExchange exchange, ExchangeMarket market, Instant received)
    {
        FSharpValueOption<Instant> Time(DateTimeOffset? time) => Maybe(time, InstantModule.ofDateTimeOffset);

        return new(
            ExchangeIdOf(exchange.Name),
            MarketIdOf(market.Market),
            market.Event,
            market.Slug,
            market.Question,
            [.. market.Outcomes.Select(outcome => new Outcome(
                outcome.Name,
                outcome.Token is { } token
                    ? FSharpValueOption<TokenId>.NewValueSome(TokenOf(token))
                    : FSharpValueOption<TokenId>.ValueNone))],
            market.State switch
            {
                MarketState.Pending => MarketStatus.Pending,
                MarketState.Open => MarketStatus.Open,
                MarketState.Closed => MarketStatus.Closed,
                MarketState.Resolved => MarketStatus.Resolved,
                var other => throw new FormatException($"a market in the state {other}"),
            },
            market.AcceptsOrders ?? market.State == MarketState.Open,
            Maybe(market.TickSize, PriceOf),
            FSharpValueOption<Size>.ValueNone,
            false,
            Time(market.Start),
            Time(market.End),
            Time(market.ClosedAt),
            market.Winner,
            Maybe(market.Volume, SizeOf),
            FSharpValueOption<Size>.ValueNone,
            FSharpValueOption<Size>.ValueNone,
            [.. market.Tags],
            Time(market.Updated),
            received,
            market.Raw);
    }
}
