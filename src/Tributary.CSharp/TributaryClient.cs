using System.Collections.Concurrent;
using System.Runtime.CompilerServices;
using System.Threading.Channels;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.FSharp.Collections;
using Microsoft.FSharp.Core;
using Tributary.Stores;

namespace Tributary.CSharp;

/// <summary>How a collector is doing.</summary>
/// <param name="Flows">How many flows are followed: the trades of each market and the books of each token.</param>
/// <param name="FlowsInGap">How many of them have an open gap.</param>
/// <param name="Paused">Why nothing is asked at present; empty when all is well.</param>
public sealed record TributaryStatus(int Flows, int FlowsInGap, IReadOnlyList<GapCause> Paused);

/// <summary>How far the reading of one market's past from one source has come.</summary>
/// <param name="Market">The market as the exchange keys it.</param>
/// <param name="Slug">The market's slug.</param>
/// <param name="Source">The source that is read, such as <c>v2</c> and <c>v1</c> of the Data API: each has trades that the other leaves out.</param>
/// <param name="Pages">Pages read so far.</param>
/// <param name="Rows">Trades read so far.</param>
/// <param name="NewRows">Of these, trades that the store did not have.</param>
/// <param name="Oldest">How far back it has come; null before the first trade.</param>
/// <param name="IsComplete">Everything that the source serves of it is stored, but for what is a gap.</param>
/// <param name="Error">What kept it from its end; null when nothing did.</param>
public sealed record BackfillProgress(
    string Market,
    string Slug,
    string Source,
    int Pages,
    int Rows,
    int NewRows,
    DateTimeOffset? Oldest,
    bool IsComplete,
    string? Error);

/// <summary>How a backfill ended.</summary>
/// <param name="Markets">One for each market and source that something was left to read of.</param>
public sealed record BackfillResult(IReadOnlyList<BackfillProgress> Markets)
{
    /// <summary>Everything that was asked for is stored; otherwise run the same backfill again.</summary>
    public bool IsComplete => Markets.All(market => market.IsComplete);

    /// <summary>Trades that the store did not have.</summary>
    public int NewRows => Markets.Sum(market => market.NewRows);
}

/// <summary>
/// A collector that runs in this process: it asks the exchange, stores what it hears, and streams it. Its members may be used from
/// several threads.
/// </summary>
/// <example>
/// <code>
/// var options = new TributaryOptions { Markets = ["will-it-rain-tomorrow"] };
/// await using var client = await TributaryClient.StartAsync(options);
///
/// await foreach (var happened in client.StreamAsync())
/// {
///     if (happened is TradeEvent trade)
///         Console.WriteLine($"{trade.At:O} {trade.Slug} {trade.Side} {trade.Size} at {trade.Price}");
/// }
/// </code>
/// </example>
public sealed class TributaryClient : IAsyncDisposable
{
    private readonly Engine _engine;
    private readonly TributaryOptions _options;
    private readonly ConcurrentDictionary<MarketId, string> _slugs;
    private readonly Lazy<Task<StopReport>> _stopped;

    private TributaryClient(Engine engine, TributaryOptions options, IEnumerable<Market> known)
    {
        _engine = engine;
        _options = options;
        _slugs = new(known.Select(market => KeyValuePair.Create(market.Market, market.Slug)));
        _stopped = new(() => engine.StopAsync(options.StopLimit));
    }

    /// <summary>
    /// Opens the store and begins to collect, where the last run ended. It does not wait for the exchange: markets that cannot be
    /// looked up yet, and slugs that nobody answers to, are logged, and asked for again.
    /// </summary>
    /// <param name="options">What is collected, from where and into which file.</param>
    /// <param name="ct">Gives up starting; it does not stop a client that has started.</param>
    /// <returns>The running collector; dispose it to stop.</returns>
    /// <exception cref="TributaryException">
    /// <see cref="TributaryErrorKind.Configuration"/>, <see cref="TributaryErrorKind.StoreInUse"/> or
    /// <see cref="TributaryErrorKind.StoreFailed"/>.
    /// </exception>
    public static async Task<TributaryClient> StartAsync(TributaryOptions options, CancellationToken ct = default)
    {
        var settings = SettingsOf(options);

        if (!Setup.hasWork(settings))
            throw new TributaryException(
                TributaryErrorKind.Configuration,
                "There is nothing to collect: name markets or events, or a configuration that does.");

        var store = Open(settings, LogOf(options));

        try
        {
            var known = await store.Markets.Invoke(null!).WaitAsync(ct).ConfigureAwait(false);
            var what = EngineOptions.Create(settings, store, options.TimeProvider, LogOf(options));
            var engine = await Engine.StartAsync(what, ct).ConfigureAwait(false);
            return new TributaryClient(engine, options, known);
        }
        catch (Exception error)
        {
            await CloseAsync(store).ConfigureAwait(false);

            if (error is ArgumentException)
                throw new TributaryException(TributaryErrorKind.Configuration, error.Message, error);

            throw;
        }
    }

    /// <summary>
    /// What is collected from this call on, each event once it is durable. Every call is a reader of its own. It ends when the client
    /// stops.
    /// </summary>
    /// <param name="ct">Ends the reading, with an <see cref="OperationCanceledException"/>; the client goes on.</param>
    /// <returns>Events in the order in which they were stored.</returns>
    /// <exception cref="TributaryException">
    /// <see cref="TributaryErrorKind.ReaderTooSlow"/>: the reader missed events. They are in the store; read on with a new call.
    /// </exception>
    /// <exception cref="ObjectDisposedException">The client is stopped.</exception>
    public IAsyncEnumerable<MarketEvent> StreamAsync(CancellationToken ct = default)
    {
        ObjectDisposedException.ThrowIf(_stopped.IsValueCreated, this);
        return ReadAsync(_engine.Subscribe(_options.StreamCapacity), ct);
    }

    /// <summary>How this collector is doing now.</summary>
    /// <param name="ct">Gives up waiting for the answer.</param>
    /// <returns>Counts of what is followed and what is broken.</returns>
    /// <exception cref="ObjectDisposedException">The client is stopped.</exception>
    public async Task<TributaryStatus> GetStatusAsync(CancellationToken ct = default)
    {
        ObjectDisposedException.ThrowIf(_stopped.IsValueCreated, this);
        var status = await _engine.StatusAsync().WaitAsync(ct).ConfigureAwait(false);
        return new(status.Flows, status.Broken, [.. status.Paused.Select(cause => (GapCause)cause.Tag)]);
    }

    /// <summary>
    /// Stops asking, stores everything and closes the store. A second call waits for the first and changes nothing.
    /// </summary>
    /// <returns>Done when everything is stored.</returns>
    /// <exception cref="TributaryException">
    /// <see cref="TributaryErrorKind.StoreFailed"/>: not everything could be stored within
    /// <see cref="TributaryOptions.StopLimit"/>. The next start records the gap.
    /// </exception>
    public async Task StopAsync()
    {
        var report = await _stopped.Value.ConfigureAwait(false);

        if (report.Undrained is { } undrained)
            throw new TributaryException(TributaryErrorKind.StoreFailed, undrained.Value);
    }

    /// <summary>
    /// As <see cref="StopAsync"/>, but what could not be stored is logged instead of thrown, so that it hides no other exception.
    /// </summary>
    /// <returns>Done when the store is closed.</returns>
    public async ValueTask DisposeAsync() => await _stopped.Value.ConfigureAwait(false);

    /// <summary>
    /// Reads the trades of markets, newest first, back to a moment, and stores them. What was read is noted with the rows: the same
    /// backfill again, also after it was cancelled or killed, asks for what is missing and nothing else. The store must not be in use, also not by a client.
    /// </summary>
    /// <param name="options">Which exchange is asked and into which file is stored; its markets and events do not matter here.</param>
    /// <param name="markets">The slugs of the markets.</param>
    /// <param name="since">How far back, by the exchange's clock.</param>
    /// <param name="progress">Hears after each page.</param>
    /// <param name="ct">Stops between two pages, with an <see cref="OperationCanceledException"/>; what was read is stored.</param>
    /// <returns>How far each market came; one that was not answered to its end says why.</returns>
    /// <exception cref="TributaryException">Every kind but <see cref="TributaryErrorKind.ReaderTooSlow"/>.</exception>
    /// <example>
    /// <code>
    /// var yesterday = DateTimeOffset.UtcNow.AddDays(-1);
    /// var result = await TributaryClient.BackfillAsync(options, ["will-it-rain-tomorrow"], yesterday);
    /// Console.WriteLine($"{result.NewRows} new trades");
    /// </code>
    /// </example>
    public static async Task<BackfillResult> BackfillAsync(
        TributaryOptions options,
        IEnumerable<string> markets,
        DateTimeOffset since,
        IProgress<BackfillProgress>? progress = null,
        CancellationToken ct = default)
    {
        var settings = SettingsOf(options);
        var store = Open(settings, LogOf(options));

        try
        {
            var everything = BackfillOrderModule.everything(ListModule.OfSeq(markets.Select(Selection.NewSlug)));

            var order = new BackfillOrder(
                everything.Markets,
                InstantModule.ofDateTimeOffset(since),
                everything.Until,
                everything.Sources,
                everything.Parallel);

            var answer = await Backfill.run(
                settings.Collectors.Head,
                Setup.rules(settings.Validation),
                store,
                options.TimeProvider,
                LogOf(options),
                order,
                new Forward(progress),
                ct).ConfigureAwait(false);

            return answer.IsOk ? new([.. answer.ResultValue.Select(Said)]) : throw Fault(answer.ErrorValue);
        }
        finally
        {
            await CloseAsync(store).ConfigureAwait(false);
        }
    }

    private async IAsyncEnumerable<MarketEvent> ReadAsync(
        ChannelReader<Tributary.MarketEvent> reader,
        [EnumeratorCancellation] CancellationToken ct)
    {
        while (await HasMoreAsync(reader, ct).ConfigureAwait(false))
        {
            while (reader.TryRead(out var happened))
            {
                ct.ThrowIfCancellationRequested();
                yield return Event(happened);
            }
        }
    }

    private static async ValueTask<bool> HasMoreAsync(ChannelReader<Tributary.MarketEvent> reader, CancellationToken ct)
    {
        try
        {
            return await reader.WaitToReadAsync(ct).ConfigureAwait(false);
        }
        catch (OverflowException error)
        {
            throw new TributaryException(TributaryErrorKind.ReaderTooSlow, error.Message, error);
        }
    }

    private MarketEvent Event(Tributary.MarketEvent happened)
    {
        switch (happened)
        {
            case Tributary.MarketEvent.Trade { Item: var trade }:
                return Door.Event(trade, SlugOf(trade.Market));
            case Tributary.MarketEvent.Book { Item: var book }:
                return Door.Event(book, SlugOf(book.Market));
            case Tributary.MarketEvent.Delta { Item: var delta }:
                return Door.Event(delta, SlugOf(delta.Market));
            case Tributary.MarketEvent.Gap { Item: var gap }:
                return Door.Event(gap, SlugOf(gap.Market), _options.TimeProvider.GetUtcNow());
            case Tributary.MarketEvent.Market { Item: var market }:
                _slugs[market.Market] = market.Slug;
                return Door.Event(market);
            default:
                throw new InvalidOperationException($"An event of an unknown kind: {happened}");
        }
    }

    private string SlugOf(MarketId market) => _slugs.GetValueOrDefault(market, "");

    private static Settings SettingsOf(TributaryOptions options)
    {
        var settings = Good(Setup.read(options.ConfigPath is { } place ? FSharpOption<string>.Some(place) : null));

        if (options.StorePath is { } path)
            settings = Setup.storingAt(path, settings);

        if (options.QuestDb is { } connection)
        {
            var sending = Setup.sendingTo(options.StorePath is not null, connection, settings);

            settings = sending.IsOk
                ? sending.ResultValue
                : throw new TributaryException(
                    TributaryErrorKind.Configuration,
                    $"{nameof(TributaryOptions.QuestDb)}: {sending.ErrorValue}");
        }

        if (options.ExchangeUrl is { } address)
            settings = Setup.askingAt(address, settings);

        if (options.Collector is { } collector)
            settings = Setup.named(collector, settings);

        var schedule = settings.Schedule;

        settings = Setup.every(
            options.BooksEvery ?? schedule.Books,
            options.TradesEvery ?? schedule.Trades,
            options.MarketsEvery ?? schedule.Markets,
            settings);

        return Good(Setup.check(Setup.picking(options.Markets, options.Events, settings)));
    }

    private static Settings Good(FSharpResult<Settings, Microsoft.FSharp.Collections.FSharpList<Mistake>> settings) =>
        settings.IsOk
            ? settings.ResultValue
            : throw new TributaryException(
                TributaryErrorKind.Configuration,
                string.Join(Environment.NewLine, settings.ErrorValue.Select(MistakeModule.render)));

    private static Store Open(Settings settings, ILogger log)
    {
        var opened = Setup.openStore(settings, TimeProvider.System, log);

        return opened.IsOk
            ? opened.ResultValue
            : throw new TributaryException(
                opened.ErrorValue.IsInUse ? TributaryErrorKind.StoreInUse : TributaryErrorKind.StoreFailed,
                opened.ErrorValue.ToString());
    }

    private static ValueTask CloseAsync(Store store) => store.Close.Invoke(null!);

    private static ILogger LogOf(TributaryOptions options) =>
        (options.LoggerFactory ?? NullLoggerFactory.Instance).CreateLogger("tributary");

    private static TributaryException Fault(AskFault fault) =>
        new(
            fault switch
            {
                AskFault.UnknownMarkets => TributaryErrorKind.UnknownMarket,
                AskFault.Unanswered => TributaryErrorKind.ExchangeUnreachable,
                AskFault.NotStored => TributaryErrorKind.StoreFailed,
                _ => TributaryErrorKind.Configuration,
            },
            fault.ToString());

    private static BackfillProgress Said(Tributary.BackfillProgress said) =>
        new(
            said.Market.ToString(),
            said.Slug,
            said.Source,
            said.Pages,
            said.Rows,
            said.NewRows,
            Door.Time(said.Oldest),
            said.IsDone,
            said.Error.Length == 0 ? null : said.Error);

    private sealed class Forward(IProgress<BackfillProgress>? to) : IProgress<Tributary.BackfillProgress>
    {
        public void Report(Tributary.BackfillProgress value) => to?.Report(Said(value));
    }
}
