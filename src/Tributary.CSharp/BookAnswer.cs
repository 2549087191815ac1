namespace Tributary.CSharp;

/// <summary>
/// What is known of an order book at a moment: a <see cref="KnownBook"/>, or an <see cref="UnknownBook"/> that says between which
/// moments it is not known, and why. A book is never made up.
/// </summary>
/// <example>
/// <code>
/// var line = await client.GetBookAsync(token, noon) switch
/// {
///     KnownBook book => $"{book.BestBid?.Price} / {book.BestAsk?.Price}, {book.Verdict}",
///     UnknownBook unknown => $"not known: {unknown.Explanation}",
///     _ => "",
/// };
/// </code>
/// </example>
public abstract record BookAnswer
{
    private protected BookAnswer() { }

    /// <summary>The outcome's token as the exchange keys it.</summary>
    public required string Token { get; init; }

    /// <summary>The moment that was asked about, by the exchange's clock.</summary>
    public required DateTimeOffset Moment { get; init; }
}

/// <summary>The book as it was, after all changes up to the moment.</summary>
public sealed record KnownBook : BookAnswer
{
    /// <summary>From the highest price down.</summary>
    public required IReadOnlyList<PriceLevel> Bids { get; init; }

    /// <summary>From the lowest price up.</summary>
    public required IReadOnlyList<PriceLevel> Asks { get; init; }

    /// <summary>When it last changed, by the exchange's clock.</summary>
    public required DateTimeOffset At { get; init; }

    /// <summary>Whether it was proven to be what the exchange had.</summary>
    public required BookVerdict Verdict { get; init; }

    /// <summary>Why it is not verified.</summary>
    public required BookDoubt Doubt { get; init; }

    /// <summary>When the whole book was that it is rebuilt from.</summary>
    public required DateTimeOffset BaseAt { get; init; }

    /// <summary>How many changes were applied to that.</summary>
    public required int Changes { get; init; }

    /// <summary>The highest bid; null when there are no bids.</summary>
    public PriceLevel? BestBid => Bids.Count > 0 ? Bids[0] : null;

    /// <summary>The lowest ask; null when there are no asks.</summary>
    public PriceLevel? BestAsk => Asks.Count > 0 ? Asks[0] : null;
}

/// <summary>Why the book of a token at a moment is not known.</summary>
public enum UnknownReason
{
    /// <summary>Nothing is recorded of the token.</summary>
    Nothing,

    /// <summary>The moment lies before the first whole book.</summary>
    Before,

    /// <summary>The moment lies in a gap, or behind one without a whole book to begin with.</summary>
    Gap,

    /// <summary>Changes between two whole books were not recorded.</summary>
    Skipped,

    /// <summary>Its proof disagreed, and nothing that is recorded has settled it.</summary>
    Unsettled,

    /// <summary>Nothing is recorded since.</summary>
    After,
}

/// <summary>The book at the moment is not known.</summary>
public sealed record UnknownBook : BookAnswer
{
    /// <summary>Since when; null is the beginning of time.</summary>
    public required DateTimeOffset? Since { get; init; }

    /// <summary>Until when; null when no later book is known.</summary>
    public required DateTimeOffset? Until { get; init; }

    /// <summary>Why.</summary>
    public required UnknownReason Reason { get; init; }

    /// <summary>Why, in one clause for a person.</summary>
    public required string Explanation { get; init; }
}
