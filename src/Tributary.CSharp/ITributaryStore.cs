using Microsoft.FSharp.Core;
using Tributary.Stores;

namespace Tributary.CSharp;

/// <summary>
/// A place of your own where what is collected becomes durable: a table of documents in PostgreSQL, a key-value store, a file. It keeps
/// rows and finds them again; what is new, what repeats and what replaces what is decided before it is called. It is called by one
/// writer at a time, and by readers meanwhile.
/// </summary>
/// <example>
/// <code>
/// await using var client = await TributaryClient.StartAsync(new TributaryOptions { Store = new PostgresStore(connection), Markets = [slug] });
/// </code>
/// </example>
public interface ITributaryStore : IAsyncDisposable
{
    /// <summary>Its name in log lines, such as <c>postgres</c>.</summary>
    string Name { get; }

    /// <summary>
    /// Makes all of these rows durable as one transaction, or throws and keeps none; what is thrown is logged, and the same rows come
    /// again. A row whose table and key are there already takes that one's place.
    /// </summary>
    /// <param name="rows">At least one.</param>
    /// <param name="ct">The collector gives up waiting.</param>
    /// <returns>Done when they are durable.</returns>
    Task PutAsync(IReadOnlyList<StoreRow> rows, CancellationToken ct);

    /// <summary>The rows of a table that have one of these keys, in any order.</summary>
    /// <param name="table">The table.</param>
    /// <param name="keys">At least one; the rows of some may not be there.</param>
    /// <param name="ct">The caller gives up waiting.</param>
    /// <returns>One row for each key that is there.</returns>
    Task<IReadOnlyList<StoreRow>> GetAsync(string table, IReadOnlyList<string> keys, CancellationToken ct);

    /// <summary>Rows by their time, those of one time by their keys, which are compared letter by letter (ordinal).</summary>
    /// <param name="query">Which ones.</param>
    /// <param name="ct">The caller gives up waiting.</param>
    /// <returns>The oldest of them first, also where the query asks for the latest.</returns>
    Task<IReadOnlyList<StoreRow>> FindAsync(StoreQuery query, CancellationToken ct);

    /// <summary>How many rows of a table there are, by exchange and market.</summary>
    /// <param name="table">The table.</param>
    /// <param name="ct">The caller gives up waiting.</param>
    /// <returns>One for each exchange and market that has any.</returns>
    Task<IReadOnlyList<StoreTotal>> TotalsAsync(string table, CancellationToken ct);
}

/// <summary>A row as a document: some fields to find it by, and all of it as JSON.</summary>
/// <param name="Table">
/// <c>markets</c>, <c>market_stats</c>, <c>trades</c>, <c>orderbook_snapshots</c>, <c>orderbook_deltas</c>, <c>trade_links</c>,
/// <c>prices</c>, <c>own_orders</c>, <c>own_trades</c>, <c>market_matches</c>, <c>gaps</c>, <c>quarantine</c>,
/// <c>collection_metrics</c> or <c>checkpoints</c>.
/// </param>
/// <param name="Key">Tells rows of a table apart; at most some hundred characters.</param>
/// <param name="Exchange">The exchange's name; empty where a row is of none.</param>
/// <param name="Market">The market as the exchange keys it; empty where a row is of none.</param>
/// <param name="Token">The token as the exchange keys it; empty where a row is of none.</param>
/// <param name="At">When it happened, to the microsecond.</param>
/// <param name="Json">
/// All columns by their names: prices and sizes as decimal texts, times as microseconds since 1970 UTC.
/// </param>
public sealed record StoreRow(
    string Table,
    string Key,
    string Exchange,
    string Market,
    string Token,
    DateTimeOffset At,
    string Json);

/// <summary>Which rows are asked for. What is null restricts nothing.</summary>
/// <param name="Table">The table.</param>
/// <param name="Exchange">Of this exchange.</param>
/// <param name="Market">Of this market.</param>
/// <param name="Token">Of this token.</param>
/// <param name="Since">From this moment on.</param>
/// <param name="Until">To before this moment.</param>
/// <param name="Limit">The most rows to answer.</param>
/// <param name="IsLatest">Of more rows than that, the newest instead of the oldest.</param>
public sealed record StoreQuery(
    string Table,
    string? Exchange,
    string? Market,
    string? Token,
    DateTimeOffset? Since,
    DateTimeOffset? Until,
    int Limit,
    bool IsLatest);

/// <summary>How many rows of a table are of one market.</summary>
/// <param name="Exchange">The exchange's name, or empty.</param>
/// <param name="Market">The market, or empty.</param>
/// <param name="Count">How many.</param>
/// <param name="First">The time of the first of them.</param>
/// <param name="Last">The time of the last of them.</param>
public sealed record StoreTotal(string Exchange, string Market, long Count, DateTimeOffset First, DateTimeOffset Last);

/// <summary>A C# store as the engine takes one.</summary>
internal static class StoreDoor
{
    public static Store Open(ITributaryStore store, string collector) =>
        Documents.store(collector, new(
            store.Name,
            Curried<IReadOnlyList<Document>, CancellationToken, Task>((rows, ct) => store.PutAsync([.. rows.Select(Row)], ct)),
            Curried<string, IReadOnlyList<string>, Task<IReadOnlyList<Document>>>(async (table, keys) =>
                [.. (await store.GetAsync(table, keys, CancellationToken.None).ConfigureAwait(false)).Select(Document)]),
            Function<DocumentQuery, Task<IReadOnlyList<Document>>>(async query =>
                [.. (await store.FindAsync(Query(query), CancellationToken.None).ConfigureAwait(false)).Select(Document)]),
            Function<string, Task<IReadOnlyList<DocumentTotal>>>(async table =>
                [.. (await store.TotalsAsync(table, CancellationToken.None).ConfigureAwait(false)).Select(Total)]),
            Function<Unit, ValueTask>(_ => store.DisposeAsync())));

    private static FSharpFunc<TFrom, TTo> Function<TFrom, TTo>(Func<TFrom, TTo> function) =>
        FuncConvert.FromFunc(function);

    private static FSharpFunc<TFirst, FSharpFunc<TSecond, TTo>> Curried<TFirst, TSecond, TTo>(Func<TFirst, TSecond, TTo> function) =>
        FuncConvert.FromFunc(function);

    private static StoreRow Row(Document row) =>
        new(row.Table, row.Key, row.Exchange, row.Market, row.Token, Door.Time(row.At), row.Json);

    private static Document Document(StoreRow row) =>
        new(row.Table, row.Key, row.Exchange, row.Market, row.Token, InstantModule.ofDateTimeOffset(row.At), row.Json);

    private static DocumentTotal Total(StoreTotal total) =>
        new(
            total.Exchange,
            total.Market,
            total.Count,
            InstantModule.ofDateTimeOffset(total.First),
            InstantModule.ofDateTimeOffset(total.Last));

    private static StoreQuery Query(DocumentQuery query) =>
        new(
            query.Table,
            Text(query.Exchange),
            Text(query.Market),
            Text(query.Token),
            query.Since.Micros == long.MinValue ? null : Door.Time(query.Since),
            query.Until.Micros == long.MaxValue ? null : Door.Time(query.Until),
            query.Limit,
            query.Latest);

    private static string? Text(FSharpValueOption<string> text) => text.IsSome ? text.Value : null;
}
