using System.Collections.Concurrent;
using NUnit.Framework;

namespace Tributary.CSharp.Tests;

/// <summary>A store that somebody wrote in C#.</summary>
[TestFixture]
public sealed class StoreTests
{
    [Test]
    [CancelAfter(60_000)]
    public async Task A_store_of_ones_own_takes_everything_once_and_gives_it_back(CancellationToken ct)
    {
        using var exchange = await Simulator.StartAsync();
        var own = new OwnStore();

        var options = new TributaryOptions
        {
            ExchangeUrl = exchange.Address,
            Store = own,
            Markets = [exchange.Market],
            BooksEvery = TimeSpan.FromMilliseconds(500),
            TradesEvery = TimeSpan.FromMilliseconds(500),
        };

        var heard = new List<MarketEvent>();

        await using (var client = await TributaryClient.StartAsync(options, ct))
        {
            await foreach (var happened in client.StreamAsync(ct))
            {
                heard.Add(happened);

                if (heard.OfType<TradeEvent>().Count() >= 3 && heard.OfType<BookDeltaEvent>().Any() && heard.OfType<BookEvent>().Count() >= 4)
                    break;
            }

            var trades = await client.GetTradesAsync(new TradeQuery { Market = exchange.Market }, ct).ToListAsync(ct);
            Assert.That(heard.OfType<TradeEvent>(), Is.SubsetOf(trades));
            Assert.That((await client.GetMarketsAsync(ct)).Single().Slug, Is.EqualTo(exchange.Market));
        }

        Assert.That(own.Disposals, Is.EqualTo(1));

        // Nobody listened until the next run: that is a row.
        await using (var again = await TributaryClient.StartAsync(options, ct))
        {
            await foreach (var happened in again.StreamAsync(ct))
            {
                if (happened is GapEvent)
                    break;
            }
        }

        Assert.That(own.Disposals, Is.EqualTo(2));
        Assert.That(own.Rows.Values.Select(row => row.Table).Distinct(), Is.SupersetOf(new[] { "checkpoints", "gaps", "orderbook_deltas" }));

        // The next run goes on where this one ended: it knows the market, and what it is given again is not new.
        var before = own.Rows.Values.Count(row => row.Table == "trades");
        var longAgo = DateTimeOffset.UtcNow.AddDays(-30);
        var read = await TributaryClient.BackfillAsync(options, [exchange.Market], longAgo, ct: ct);
        Assert.That(read.IsComplete, Is.True);
        Assert.That(own.Rows.Values.Count(row => row.Table == "trades"), Is.EqualTo(before + read.NewRows));
        Assert.That(read.NewRows, Is.LessThan(read.Markets.Sum(one => one.Rows)));
    }

    [Test]
    [CancelAfter(60_000)]
    public async Task What_a_store_throws_is_tried_again(CancellationToken ct)
    {
        using var exchange = await Simulator.StartAsync();
        var own = new OwnStore { Refusals = 2 };
        var options = new TributaryOptions { ExchangeUrl = exchange.Address, Store = own, Markets = [exchange.Market] };
        await using var client = await TributaryClient.StartAsync(options, ct);
        Assert.That((await client.StreamAsync(ct).OfType<TradeEvent>().FirstAsync(ct)).Slug, Is.EqualTo(exchange.Market));
        Assert.That(own.Refusals, Is.EqualTo(0));
    }

    /// <summary>As short as a store can be: a dictionary.</summary>
    private sealed class OwnStore : ITributaryStore
    {
        public ConcurrentDictionary<(string, string), StoreRow> Rows { get; } = new();
        public int Refusals { get; set; }
        public int Disposals { get; private set; }
        public string Name => "dictionary";

        public Task PutAsync(IReadOnlyList<StoreRow> rows, CancellationToken ct)
        {
            if (Refusals > 0)
            {
                Refusals--;
                throw new IOException("not now");
            }

            foreach (var row in rows)
                Rows[(row.Table, row.Key)] = row;

            return Task.CompletedTask;
        }

        public Task<IReadOnlyList<StoreRow>> GetAsync(string table, IReadOnlyList<string> keys, CancellationToken ct) =>
            Answer(keys.Where(key => Rows.ContainsKey((table, key))).Select(key => Rows[(table, key)]));

        public Task<IReadOnlyList<StoreRow>> FindAsync(StoreQuery query, CancellationToken ct)
        {
            var found = Rows.Values
                .Where(row => row.Table == query.Table
                    && (query.Exchange is null || row.Exchange == query.Exchange)
                    && (query.Market is null || row.Market == query.Market)
                    && (query.Token is null || row.Token == query.Token)
                    && (query.Since is null || row.At >= query.Since)
                    && (query.Until is null || row.At < query.Until))
                .OrderBy(row => row.At).ThenBy(row => row.Key, StringComparer.Ordinal);

            return Answer(query.IsLatest ? found.TakeLast(query.Limit) : found.Take(query.Limit));
        }

        public Task<IReadOnlyList<StoreTotal>> TotalsAsync(string table, CancellationToken ct) =>
            Task.FromResult<IReadOnlyList<StoreTotal>>(
            [
                .. Rows.Values.Where(row => row.Table == table).GroupBy(row => (row.Exchange, row.Market)).Select(own =>
                    new StoreTotal(own.Key.Exchange, own.Key.Market, own.Count(), own.Min(row => row.At), own.Max(row => row.At))),
            ]);

        public ValueTask DisposeAsync()
        {
            Disposals++;
            return default;
        }

        private static Task<IReadOnlyList<StoreRow>> Answer(IEnumerable<StoreRow> rows) =>
            Task.FromResult<IReadOnlyList<StoreRow>>([.. rows]);
    }
}
