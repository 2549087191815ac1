using System.Collections.Concurrent;
using System.Runtime.CompilerServices;
using System.Threading.Channels;
using Microsoft.Extensions.Hosting;
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
/// A collector in this process: it asks the exchange, stores what it hears, streams it, and reads what is stored. Its members may be
/// used from several threads. In a host, <see cref="TributaryServices"/> starts and stops it.
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
public sealed class TributaryClient : IHostedService, IAsyncDisposable
{
    private readonly TributaryOptions _options;
    private readonly Settings _settings;
    private readonly ConcurrentDictionary<MarketId, string> _slugs = new();
    private readonly TaskCompletionSource<Engine> _running = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly Lazy<Task<StopReport?>> _stopped;
    private readonly Lock _gate = new();
    private Store? _stored;
    private volatile Engine? _engine;
    private bool _isStarting;

    /// <summary>
    /// A client that collects nothing yet: <see cref="StartAsync(CancellationToken)"/> begins. What is stored can be read without.
    /// </summary>
    /// <param name="options">What is collected, from where and into which file.</param>
    /// <exception cref="TributaryException">
    /// <see cref="TributaryErrorKind.Configuration"/>: the options or the configuration have mistakes; the message names all of them.
    /// </exception>
    public TributaryClient(TributaryOptions options)
    {
        _options = options;
        _settings = SettingsOf(options);
        _stopped = new(EndAsync);
    }

    /// <summary>It collects: it was started, and was not stopped.</summary>
    public bool IsRunning =>
        !_stopped.IsValueCreated && _engine is { Died.IsCompleted: false };

    /// <summary>A client that has begun to collect.</summary>
    /// <param name="options">What is collected, from where and into which file.</param>
    /// <param name="ct">Gives up starting; it does not stop a client that has started.</param>
    /// <returns>The running collector; dispose it to stop.</returns>
    /// <exception cref="TributaryException">As the constructor and <see cref="StartAsync(CancellationToken)"/>.</exception>
    public static async Task<TributaryClient> StartAsync(TributaryOptions options, CancellationToken ct = default)
    {
        var client = new TributaryClient(options);
        await client.StartAsync(ct).ConfigureAwait(false);
        return client;
    }

    /// <summary>
    /// Opens the store and begins to collect, where the last run ended. It does not wait for the exchange: markets that cannot be
    /// looked up yet, and slugs that nobody answers to, are logged, and asked for again.
    /// </summary>
    /// <param name="ct">Gives up starting; it does not stop a client that has started.</param>
    /// <returns>Done when it collects.</returns>
    /// <exception cref="TributaryException">
    /// <see cref="TributaryErrorKind.Configuration"/>, <see cref="TributaryErrorKind.StoreInUse"/> or
    /// <see cref="TributaryErrorKind.StoreFailed"/>.
    /// </exception>
    /// <exception cref="InvalidOperationException">It was started already.</exception>
    /// <exception cref="ObjectDisposedException">The client is stopped.</exception>
    public async Task StartAsync(CancellationToken ct = default)
    {
        ObjectDisposedException.ThrowIf(_stopped.IsValueCreated, this);

        lock (_gate)
        {
            if (_isStarting)
                throw new InvalidOperationException("The client was started already.");

            _isStarting = true;
        }

        try
        {
            var engine = await BeginAsync(ct).ConfigureAwait(false);

            _engine = engine;

            // It was stopped meanwhile.
            if (!_running.TrySetResult(engine))
                await engine.StopAsync(_options.StopLimit).ConfigureAwait(false);
        }
        catch
        {
            lock (_gate)
                _isStarting = false;

            throw;
        }
    }

    private async Task<Engine> BeginAsync(CancellationToken ct)
    {
        if (!Setup.hasWork(_settings))
            throw new TributaryException(
                TributaryErrorKind.Configuration,
                "There is nothing to collect: name markets or events, or a configuration that does.");

        var store = Open(_options, _settings);

        try
        {
            foreach (var market in await store.Markets.Invoke(null!).WaitAsync(ct).ConfigureAwait(false))
                _slugs[market.Market] = market.Slug;

            var what = EngineOptions.Create(_settings, store, _options.TimeProvider, LogsOf(_options));

            if (_options.Exchange is { } exchange)
                what = what.Collecting(ExchangeDoor.Open(exchange));

            return await Engine.StartAsync(what, ct).ConfigureAwait(false);
        }
        catch (Exception error)
        {
            await CloseAsync(store).ConfigureAwait(false);

            if (error is ArgumentException or System.Security.Authentication.AuthenticationException)
                throw new TributaryException(TributaryErrorKind.Configuration, error.Message, error);

            throw;
        }
    }

    /// <summary>
    /// What is collected from this call on, each event once it is durable; from the start on when the client has not started yet.
    /// Every call is a reader of its own. It ends when the client stops.
    /// </summary>
    /// <param name="ct">Ends the reading, with an <see cref="OperationCanceledException"/>; the client goes on.</param>
    /// <returns>Events in the order in which they were stored.</returns>
    /// <exception cref="TributaryException">
    /// <see cref="TributaryErrorKind.ReaderTooSlow"/>: the reader missed events. They are in the store; read on with a new call.
    /// </exception>
    /// <exception cref="ObjectDisposedException">The client is stopped.</exception>
    public IAsyncEnumerable<MarketEvent> StreamAsync(CancellationToken ct = default) => StreamAsync(new StreamFilter(), ct);

    /// <summary>As the other, of some events only.</summary>
    /// <param name="filter">Which events are wanted; the others do not count against <see cref="TributaryOptions.StreamCapacity"/>.</param>
    /// <param name="ct">Ends the reading, with an <see cref="OperationCanceledException"/>; the client goes on.</param>
    /// <returns>Events in the order in which they were stored.</returns>
    /// <exception cref="TributaryException">
    /// <see cref="TributaryErrorKind.ReaderTooSlow"/>: the reader missed events. They are in the store; read on with a new call.
    /// </exception>
    /// <exception cref="ObjectDisposedException">The client is stopped.</exception>
    public IAsyncEnumerable<MarketEvent> StreamAsync(StreamFilter filter, CancellationToken ct = default)
    {
        ObjectDisposedException.ThrowIf(_stopped.IsValueCreated, this);
        var isWanted = Wanted(filter);

        return ReadAsync(_engine?.Subscribe(_options.StreamCapacity, isWanted), isWanted, ct);
    }

    /// <summary>How this collector is doing now; before its start, this waits for it.</summary>
    /// <param name="ct">Gives up waiting for the answer.</param>
    /// <returns>Counts of what is followed and what is broken.</returns>
    /// <exception cref="ObjectDisposedException">The client is stopped.</exception>
    public async Task<TributaryStatus> GetStatusAsync(CancellationToken ct = default)
    {
        ObjectDisposedException.ThrowIf(_stopped.IsValueCreated, this);
        var engine = await _running.Task.WaitAsync(ct).ConfigureAwait(false);
        var status = await engine.StatusAsync().WaitAsync(ct).ConfigureAwait(false);
        return new(status.Flows, status.Broken, [.. status.Paused.Select(cause => (GapCause)cause.Tag)]);
    }

    /// <summary>The stored markets, each as it was described last, by their slugs. It need not be started.</summary>
    /// <param name="ct">Gives up waiting for the answer.</param>
    /// <returns>One for each market.</returns>
    /// <exception cref="TributaryException"><see cref="TributaryErrorKind.StoreFailed"/>: there is no store to read, or it cannot be read.</exception>
    /// <exception cref="ObjectDisposedException">The client is stopped.</exception>
    public async Task<IReadOnlyList<MarketInfoEvent>> GetMarketsAsync(CancellationToken ct = default)
    {
        var markets = await ReadingAsync(store => store.Markets.Invoke(null!), ct).ConfigureAwait(false);
        return [.. markets.OrderBy(market => market.Slug, StringComparer.Ordinal).Select(Door.Event)];
    }

    /// <summary>
    /// Stored trades, oldest first, read in parts: memory does not depend on how many there are. It need not be started, and what is
    /// stored meanwhile may be among them.
    /// </summary>
    /// <param name="query">Which ones.</param>
    /// <param name="ct">Ends the reading, with an <see cref="OperationCanceledException"/>.</param>
    /// <returns>Trades in the order of their times.</returns>
    /// <exception cref="TributaryException">
    /// <see cref="TributaryErrorKind.UnknownMarket"/>: nothing is stored of that market. <see cref="TributaryErrorKind.StoreFailed"/>: there
    /// is no store to read, or it cannot be read.
    /// </exception>
    /// <exception cref="ObjectDisposedException">The client is stopped.</exception>
    /// <example>
    /// <code>
    /// await foreach (var trade in client.GetTradesAsync(new TradeQuery { Market = "will-it-rain-tomorrow", Source = TradeSource.Api }))
    ///     Console.WriteLine($"{trade.At:O} {trade.Size} at {trade.Price}");
    /// </code>
    /// </example>
    public async IAsyncEnumerable<TradeEvent> GetTradesAsync(
        TradeQuery query,
        [EnumeratorCancellation] CancellationToken ct = default)
    {
        var markets = await ReadingAsync(store => store.Markets.Invoke(null!), ct).ConfigureAwait(false);
        var slugs = markets.ToDictionary(market => market.Market, market => market.Slug);
        var asked = QueryOf(query, markets);

        while (true)
        {
            var (trades, following) = await ReadingAsync(store => InParts.next(store.Trades, FuncConvert.FromFunc((Trade trade) => trade.At), asked), ct).ConfigureAwait(false);

            foreach (var trade in trades)
            {
                ct.ThrowIfCancellationRequested();

                if (query.Source is not { } source || (TradeSource)trade.Source == source)
                    yield return Door.Event(trade, slugs.GetValueOrDefault(trade.Market, ""));
            }

            if (following.IsNone)
                yield break;

            asked = new(asked.Exchange, asked.Market, asked.Token, following.Value, asked.Until, asked.Limit, asked.Latest);
        }
    }

    /// <summary>
    /// The order book of a token at a moment, rebuilt from what is stored: whole books, changes and gaps. It need not be started.
    /// </summary>
    /// <param name="token">The outcome's token as the exchange keys it.</param>
    /// <param name="at">The moment, by the exchange's clock.</param>
    /// <param name="ct">Gives up waiting for the answer.</param>
    /// <returns>The book, or between which moments it is not known, and why.</returns>
    /// <exception cref="ArgumentException">The token is no token.</exception>
    /// <exception cref="TributaryException"><see cref="TributaryErrorKind.StoreFailed"/>: there is no store to read, or it cannot be read.</exception>
    /// <exception cref="ObjectDisposedException">The client is stopped.</exception>
    public async Task<BookAnswer> GetBookAsync(string token, DateTimeOffset at, CancellationToken ct = default)
    {
        var id = TokenOf(token, nameof(token));
        var extent = await ReadingAsync(store => Rebuild.extent(store, id), ct).ConfigureAwait(false);

        var answer = await ReadingAsync(
            store => Rebuild.bookAt(store, extent, InstantModule.ofDateTimeOffset(at)),
            ct).ConfigureAwait(false);

        return Door.Answer(answer, token, at);
    }

    /// <summary>
    /// Stops asking, stores everything and closes the store. A second call waits for the first and changes nothing.
    /// </summary>
    /// <param name="ct">Gives up waiting; stopping goes on.</param>
    /// <returns>Done when everything is stored.</returns>
    /// <exception cref="TributaryException">
    /// <see cref="TributaryErrorKind.StoreFailed"/>: not everything could be stored within
    /// <see cref="TributaryOptions.StopLimit"/>. The next start records the gap.
    /// </exception>
    public async Task StopAsync(CancellationToken ct = default)
    {
        var report = await _stopped.Value.WaitAsync(ct).ConfigureAwait(false);

        if (report?.Undrained is { } undrained)
            throw new TributaryException(TributaryErrorKind.StoreFailed, undrained.Value);
    }

    /// <summary>
    /// As <see cref="StopAsync"/>, but what could not be stored is logged instead of thrown, so that it hides no other exception.
    /// </summary>
    /// <returns>Done when the store is closed.</returns>
    public async ValueTask DisposeAsync() => await _stopped.Value.ConfigureAwait(false);

    private async Task<StopReport?> EndAsync()
    {
        // Whoever waits for a start that does not come is told so.
        var isRunning = !_running.TrySetException(new ObjectDisposedException(nameof(TributaryClient)));
        StopReport? report = null;

        if (isRunning)
            report = await (await _running.Task.ConfigureAwait(false)).StopAsync(_options.StopLimit).ConfigureAwait(false);
        else
            _ = _running.Task.Exception; // it is nobody's surprise

        Store? stored;

        lock (_gate)
            (stored, _stored) = (_stored, null);

        // A store of the caller's own is closed with the engine, or was never opened.
        if (stored is not null && (_options.Store is null || report is null))
            await CloseAsync(stored).ConfigureAwait(false);

        return report;
    }

    /// <summary>Reads what is stored, over a connection of its own.</summary>
    private async Task<T> ReadingAsync<T>(Func<Store, Task<T>> read, CancellationToken ct)
    {
        Store store;

        lock (_gate)
        {
            ObjectDisposedException.ThrowIf(_stopped.IsValueCreated, this);
            store = _stored ??= _options.Store is { } own
                ? StoreDoor.Open(own, _settings.Collector)
                : Opened(Setup.openStoreToRead(_settings));
        }

        try
        {
            return await read(store).WaitAsync(ct).ConfigureAwait(false);
        }
        catch (Exception error) when (error is not OperationCanceledException)
        {
            throw new TributaryException(TributaryErrorKind.StoreFailed, error.Message, error);
        }
    }

    private static TokenId TokenOf(string token, string parameter)
    {
        var parsed = TokenId.Parse(token);
        return parsed.IsOk ? parsed.ResultValue : throw new ArgumentException(parsed.ErrorValue, parameter);
    }

    private static Query QueryOf(TradeQuery query, IEnumerable<Market> markets)
    {
        var all = QueryModule.everything;
        var (exchange, market) = (all.Exchange, all.Market);

        if (query.Market is { } name)
        {
            var found = markets.FirstOrDefault(known => known.Slug == name || known.Market.ToString() == name)
                ?? throw new TributaryException(TributaryErrorKind.UnknownMarket, $"Nothing is stored of a market '{name}'.");

            exchange = FSharpValueOption<ExchangeId>.NewValueSome(found.Exchange);
            market = FSharpValueOption<MarketId>.NewValueSome(found.Market);
        }

        return new(
            exchange,
            market,
            query.Token is { } token
                ? FSharpValueOption<TokenId>.NewValueSome(TokenOf(token, nameof(query)))
                : all.Token,
            query.Since is { } since ? InstantModule.ofDateTimeOffset(since) : all.Since,
            query.Until is { } until ? InstantModule.ofDateTimeOffset(until) : all.Until,
            all.Limit,
            all.Latest);
    }

    private Func<Tributary.MarketEvent, bool> Wanted(StreamFilter filter)
    {
        var (markets, tokens) = (filter.Markets.ToHashSet(), filter.Tokens.ToHashSet());

        bool IsOf(MarketId market, string? token) =>
            (markets.Count == 0 || markets.Contains(market.ToString()) || markets.Contains(SlugOf(market)))
            && (tokens.Count == 0 || (token is not null && tokens.Contains(token)));

        bool Has(MarketEventKinds kind) => (filter.Kinds & kind) != 0;

        return happened => happened switch
        {
            Tributary.MarketEvent.Trade { Item: var it } => Has(MarketEventKinds.Trades) && IsOf(it.Market, it.Token.ToString()),
            Tributary.MarketEvent.Book { Item: var it } => Has(MarketEventKinds.Books) && IsOf(it.Market, it.Token.ToString()),
            Tributary.MarketEvent.Delta { Item: var it } => Has(MarketEventKinds.BookDeltas) && IsOf(it.Market, it.Token.ToString()),
            Tributary.MarketEvent.Gap { Item: var it } => Has(MarketEventKinds.Gaps) && IsOf(it.Market, Door.Text(it.Token)),
            Tributary.MarketEvent.Market { Item: var it } => Heard(it) && Has(MarketEventKinds.Markets) && IsOf(it.Market, null),
            _ => true,
        };
    }

    /// <summary>A market's slug is known from here on, whoever wants to hear of it.</summary>
    private bool Heard(Market market)
    {
        _slugs[market.Market] = market.Slug;
        return true;
    }

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

        if (options.Exchange is not null)
            throw new TributaryException(
                TributaryErrorKind.Configuration,
                $"{nameof(options.Exchange)}: an exchange of one's own has no past to read; start a client, which follows its trades.");

        var store = Open(options, settings);

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
                LogsOf(options),
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
        ChannelReader<Tributary.MarketEvent>? subscribed,
        Func<Tributary.MarketEvent, bool> isWanted,
        [EnumeratorCancellation] CancellationToken ct)
    {
        var engine = await _running.Task.WaitAsync(ct).ConfigureAwait(false);
        var reader = subscribed ?? engine.Subscribe(_options.StreamCapacity, isWanted);

        try
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
        finally
        {
            // Whoever stops listening is told nothing more.
            engine.Unsubscribe(reader);
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
                return Door.Event(market);
            default:
                throw new InvalidOperationException($"An event of an unknown kind: {happened}");
        }
    }

    private string SlugOf(MarketId market) => _slugs.GetValueOrDefault(market, "");

    private static Settings SettingsOf(TributaryOptions options)
    {
        var mistakes = options.Mistakes().ToList();
        var known = Setup.known;

        if (options.Exchange is { } exchange)
        {
            try
            {
                known = ListModule.OfSeq([Setup.knownAs(ExchangeDoor.Open(exchange))]);
            }
            catch (FormatException error)
            {
                throw Wrong([.. mistakes, $"{nameof(TributaryOptions.Exchange)}: {error.Message}"]);
            }
        }

        var read = Setup.readOf(known, options.ConfigPath is { } place ? FSharpOption<string>.Some(place) : null);

        // Without a configuration there is nothing to compare the options with.
        if (!read.IsOk)
            throw Wrong([.. mistakes, .. read.ErrorValue.Select(MistakeModule.render)]);

        var settings = read.ResultValue;

        if (options.StorePath is { } path)
            settings = Setup.storingAt(path, settings);

        if (options.QuestDb is { } connection)
        {
            var sending = Setup.sendingTo(options.StorePath is not null, connection, settings);

            if (sending.IsOk)
                settings = sending.ResultValue;
            else
                mistakes.Add($"{nameof(TributaryOptions.QuestDb)}: {sending.ErrorValue}");
        }

        if (options.ExchangeUrl is { IsAbsoluteUri: true } address)
            settings = Setup.askingAt(address, settings);

        if (options.Collector is { } collector)
            settings = Setup.named(collector, settings);

        var schedule = settings.Schedule;

        settings = Setup.every(
            options.BooksEvery ?? schedule.Books,
            options.TradesEvery ?? schedule.Trades,
            options.MarketsEvery ?? schedule.Markets,
            settings);

        var found = Setup.checkOf(known, Setup.picking(options.Markets, options.Events, settings));

        if (!found.IsOk)
            mistakes.AddRange(found.ErrorValue.Select(MistakeModule.render));

        return mistakes.Count == 0 ? found.ResultValue : throw Wrong(mistakes);
    }

    private static TributaryException Wrong(IEnumerable<string> mistakes) =>
        new(TributaryErrorKind.Configuration, string.Join(Environment.NewLine, mistakes));

    private static Store Open(TributaryOptions options, Settings settings) =>
        options.Store is { } own
            ? StoreDoor.Open(own, settings.Collector)
            : Opened(Setup.openStore(settings, TimeProvider.System, LogsOf(options)));

    private static Store Opened(FSharpResult<Store, OpenFault> opened) =>
        opened.IsOk
            ? opened.ResultValue
            : throw new TributaryException(
                opened.ErrorValue.IsInUse ? TributaryErrorKind.StoreInUse : TributaryErrorKind.StoreFailed,
                opened.ErrorValue.ToString());

    private static ValueTask CloseAsync(Store store) => store.Close.Invoke(null!);

    private static ILoggerFactory LogsOf(TributaryOptions options) =>
        options.LoggerFactory ?? NullLoggerFactory.Instance;

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
