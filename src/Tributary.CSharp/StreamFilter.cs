namespace Tributary.CSharp;

/// <summary>Kinds of <see cref="MarketEvent"/>; several together.</summary>
[Flags]
public enum MarketEventKinds
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary><see cref="TradeEvent"/>.</summary>
    Trades = 1,

    /// <summary><see cref="BookEvent"/>.</summary>
    Books = 2,

    /// <summary><see cref="BookDeltaEvent"/>.</summary>
    BookDeltas = 4,

    /// <summary><see cref="GapEvent"/>.</summary>
    Gaps = 8,

    /// <summary><see cref="MarketInfoEvent"/>.</summary>
    Markets = 16,

    /// <summary>Every kind.</summary>
    All = Trades | Books | BookDeltas | Gaps | Markets,
}

/// <summary>Which events of the stream a reader wants: those that meet all of it. What is left out restricts nothing.</summary>
/// <example>
/// <code>
/// var filter = new StreamFilter { Kinds = MarketEventKinds.Trades | MarketEventKinds.Gaps, Markets = ["will-it-rain-tomorrow"] };
///
/// await foreach (var happened in client.StreamAsync(filter))
///     Console.WriteLine(happened);
/// </code>
/// </example>
public sealed record StreamFilter
{
    /// <summary>Kinds of events. Default all.</summary>
    public MarketEventKinds Kinds { get; init; } = MarketEventKinds.All;

    /// <summary>Markets, by their slugs or as the exchange keys them. Default all.</summary>
    public IReadOnlyList<string> Markets { get; init; } = [];

    /// <summary>Tokens: events of none, and of other ones, are left out. Default all.</summary>
    public IReadOnlyList<string> Tokens { get; init; } = [];
}
