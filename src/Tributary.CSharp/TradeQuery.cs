namespace Tributary.CSharp;

/// <summary>Which stored trades are asked for: those that meet all of it. What is left out restricts nothing.</summary>
/// <example>
/// <code>
/// var query = new TradeQuery { Market = "will-it-rain-tomorrow", Since = DateTimeOffset.UtcNow.AddDays(-1), Source = TradeSource.Api };
/// </code>
/// </example>
public sealed record TradeQuery
{
    /// <summary>The market, by its slug or as the exchange keys it. Default all.</summary>
    public string? Market { get; init; }

    /// <summary>The outcome's token as the exchange keys it. Default all.</summary>
    public string? Token { get; init; }

    /// <summary>From this moment on, by the exchange's clock. Default the first.</summary>
    public DateTimeOffset? Since { get; init; }

    /// <summary>To before this moment. Default the last.</summary>
    public DateTimeOffset? Until { get; init; }

    /// <summary>
    /// Sightings of one source. Default all: of one fill there may be one in each, so whoever counts fills asks for one source.
    /// </summary>
    public TradeSource? Source { get; init; }
}
