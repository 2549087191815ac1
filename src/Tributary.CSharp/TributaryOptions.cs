using Microsoft.Extensions.Logging;

namespace Tributary.CSharp;

/// <summary>
/// What is collected, from where and into which file. What is left out is as the configuration says, and where there is none, as
/// its documented defaults say.
/// </summary>
/// <example>
/// <code>
/// var options = new TributaryOptions { StorePath = "data/rain.db", Markets = ["will-it-rain-tomorrow"] };
/// </code>
/// </example>
public sealed record TributaryOptions
{
    /// <summary>A configuration file, or a folder with a <c>base.yaml</c>. Default: none, nothing is read.</summary>
    public string? ConfigPath { get; init; }

    /// <summary>The SQLite file to store into; it is made when it is not there. Default <c>data/tributary.db</c>.</summary>
    public string? StorePath { get; init; }

    /// <summary>
    /// A configuration string of QuestDB's clients, such as <c>http::addr=localhost:9000;</c>: stores there instead, or to both when
    /// <see cref="StorePath"/> is given, too. Batches wait in an outbox, a file on this machine, until they can be read there.
    /// Default none. It may hold a password: take it from where secrets are kept.
    /// </summary>
    public string? QuestDb { get; init; }

    /// <summary>
    /// A store of your own instead of all of these: it is written to, and read from, and disposed with the client. Default none.
    /// </summary>
    public ITributaryStore? Store { get; init; }

    /// <summary>Slugs of markets to collect, beside those of the configuration. Default none.</summary>
    public IReadOnlyList<string> Markets { get; init; } = [];

    /// <summary>Slugs of events, all of whose markets are collected. Default none.</summary>
    public IReadOnlyList<string> Events { get; init; } = [];

    /// <summary>An exchange of your own instead of the ones that Tributary knows. Default none.</summary>
    public IExchange? Exchange { get; init; }

    /// <summary>
    /// An address to ask instead of the exchange's own, such as that of <c>tributary simulate</c>. Default: the real exchange.
    /// </summary>
    public Uri? ExchangeUrl { get; init; }

    /// <summary>How often order books are asked for, 100 ms to 1 day. Default 10 s.</summary>
    public TimeSpan? BooksEvery { get; init; }

    /// <summary>How often trades are asked for, 100 ms to 1 day. Default 5 s.</summary>
    public TimeSpan? TradesEvery { get; init; }

    /// <summary>How often market descriptions are asked for, 100 ms to 1 day. Default 5 min.</summary>
    public TimeSpan? MarketsEvery { get; init; }

    /// <summary>
    /// The name under which this collector records its gaps: letters, digits, <c>-</c> and <c>_</c>. Default <c>main</c>.
    /// </summary>
    public string? Collector { get; init; }

    /// <summary>
    /// How many events a reader of the stream may fall behind before it is told, at least 1. Default 100 000: the first poll of a
    /// busy market may bring thousands at once.
    /// </summary>
    public int StreamCapacity { get; init; } = 100_000;

    /// <summary>How long stopping may take until everything is stored. Default 20 s.</summary>
    public TimeSpan StopLimit { get; init; } = TimeSpan.FromSeconds(20);

    /// <summary>Where log lines go, under the categories <c>Tributary.Engine</c>, <c>.Requests</c>, <c>.Live</c>, <c>.Store</c> and <c>.Alerts</c>. Default nowhere.</summary>
    public ILoggerFactory? LoggerFactory { get; init; }

    /// <summary>The clock. Default the system's.</summary>
    public TimeProvider TimeProvider { get; init; } = TimeProvider.System;

    /// <summary>What makes no sense whatever the configuration says, a sentence each.</summary>
    internal IEnumerable<string> Mistakes()
    {
        if (StreamCapacity < 1)
            yield return $"{nameof(StreamCapacity)}: expected at least 1; got {StreamCapacity}";

        if (StopLimit <= TimeSpan.Zero || StopLimit > TimeSpan.FromHours(1))
            yield return $"{nameof(StopLimit)}: expected up to 1 hour; got {StopLimit}";

        if (ExchangeUrl is { } url && (!url.IsAbsoluteUri || url.Scheme is not ("http" or "https")))
            yield return $"{nameof(ExchangeUrl)}: expected an address such as http://localhost:8080; got '{url}'";

        if (Store is not null && (StorePath ?? QuestDb) is not null)
            yield return $"{nameof(Store)}: one store, please: neither {nameof(StorePath)} nor {nameof(QuestDb)} beside it";

        if (StorePath is "")
            yield return $"{nameof(StorePath)}: expected a file; got an empty text";
    }

    /// <summary>Shows no member: <see cref="QuestDb"/> may hold a password.</summary>
    public override string ToString() => nameof(TributaryOptions);
}
