using NUnit.Framework;

namespace Tributary.CSharp.Tests;

[TestFixture]
public sealed class TributaryClientTests : ExchangeFixture
{
    private TributaryOptions Options => new()
    {
        ExchangeUrl = Exchange.Address,
        StorePath = StorePath,
        Markets = [Exchange.Market],
        BooksEvery = TimeSpan.FromMilliseconds(500),
        TradesEvery = TimeSpan.FromMilliseconds(500),
        MarketsEvery = TimeSpan.FromSeconds(2),
    };

    private static CancellationToken Patience() => new CancellationTokenSource(TimeSpan.FromSeconds(15)).Token;

    private static readonly DateTimeOffset LongAgo = DateTimeOffset.UtcNow.AddDays(-30);

    private static async Task<TributaryException> Refusal(Func<Task> what) =>
        (await Assert.ThrowsAsync<TributaryException>(what))!;

    private static async Task<TributaryErrorKind> KindOf(Func<Task> what) => (await Refusal(what)).Kind;

    [Test]
    public async Task Trades_and_books_are_streamed_with_exact_numbers_and_two_times()
    {
        await using var client = await TributaryClient.StartAsync(Options);
        var trades = new List<TradeEvent>();
        var books = new List<BookEvent>();
        var markets = new List<MarketInfoEvent>();

        await foreach (var happened in client.StreamAsync(Patience()))
        {
            switch (happened)
            {
                case TradeEvent trade: trades.Add(trade); break;
                case BookEvent book: books.Add(book); break;
                case MarketInfoEvent market: markets.Add(market); break;
            }

            if (trades.Count >= 3 && books.Count >= 4 && markets.Count >= 1)
                break;
        }

        Assert.Multiple(() =>
        {
            Assert.That(markets[0].Slug, Is.EqualTo(Exchange.Market));
            Assert.That(markets[0].State, Is.EqualTo(MarketState.Open));
            Assert.That(markets[0].Outcomes, Has.Count.EqualTo(2));
        });

        foreach (var trade in trades)
        {
            Assert.Multiple(() =>
            {
                Assert.That(trade.Exchange, Is.EqualTo("polymarket"));
                Assert.That(trade.Slug, Is.EqualTo(Exchange.Market));
                Assert.That(trade.Price, Is.InRange(0.001m, 0.999m));
                Assert.That(trade.Size, Is.GreaterThan(0m));
                Assert.That(trade.Id, Does.Match("^[0-9a-f]{32}$"));
                Assert.That(markets[0].Outcomes, Does.Contain(new MarketOutcome(trade.Outcome, trade.Token)));
                Assert.That(trade.At, Is.LessThanOrEqualTo(trade.Received).And.GreaterThan(LongAgo));
            });
        }

        foreach (var book in books)
        {
            Assert.Multiple(() =>
            {
                Assert.That(book.Verdict, Is.EqualTo(BookVerdict.Verified));
                Assert.That(book.Bids, Is.Ordered.Descending.By(nameof(PriceLevel.Price)));
                Assert.That(book.Asks, Is.Ordered.By(nameof(PriceLevel.Price)));
                Assert.That(book.BestBid!.Value.Price, Is.LessThan(book.BestAsk!.Value.Price));
                Assert.That(markets[0].Outcomes.Select(outcome => outcome.Token), Does.Contain(book.Token));
            });
        }
    }

    [Test]
    public async Task A_filter_leaves_out_what_is_not_wanted()
    {
        await using var client = await TributaryClient.StartAsync(Options);
        var token = "";

        await foreach (var happened in client.StreamAsync(new StreamFilter { Kinds = MarketEventKinds.Books }, Patience()).Take(3))
            token = ((BookEvent)happened).Token;

        var ofToken = new StreamFilter { Tokens = [token], Kinds = MarketEventKinds.Books | MarketEventKinds.BookDeltas };

        await foreach (var happened in client.StreamAsync(ofToken, Patience()).Take(5))
            Assert.That(happened is BookEvent { Token: var of } ? of : ((BookDeltaEvent)happened).Token, Is.EqualTo(token));

        var ofMarket = client.StreamAsync(new StreamFilter { Markets = [Exchange.Market] }, Patience());
        Assert.That(await ofMarket.AnyAsync(), Is.True);
        using var soon = new CancellationTokenSource(TimeSpan.FromSeconds(2));

        await Assert.CatchAsync<OperationCanceledException>(
            async () => await client.StreamAsync(new StreamFilter { Markets = ["another"] }, soon.Token).AnyAsync(soon.Token),
            "nothing is collected of another market");
    }

    [Test]
    public async Task What_is_stored_is_read_while_it_is_collected_and_afterwards()
    {
        var heard = new List<MarketEvent>();

        await using (var client = await TributaryClient.StartAsync(Options))
        {
            await foreach (var happened in client.StreamAsync(Patience()))
            {
                heard.Add(happened);

                if (heard.OfType<TradeEvent>().Count() >= 3 && heard.OfType<BookEvent>().Count() >= 4)
                    break;
            }

            Assert.That((await client.GetMarketsAsync()).Single().Slug, Is.EqualTo(Exchange.Market));
        }

        await using var reader = new TributaryClient(Options);
        Assert.That(reader.IsRunning, Is.False);
        var market = (await reader.GetMarketsAsync()).Single();
        var all = await reader.GetTradesAsync(new TradeQuery { Market = market.Slug }).ToListAsync();
        Assert.That(all, Is.Ordered.By(nameof(TradeEvent.At)));
        Assert.That(heard.OfType<TradeEvent>(), Is.SubsetOf(all));

        foreach (var source in Enum.GetValues<TradeSource>())
        {
            var own = await reader.GetTradesAsync(new TradeQuery { Market = market.Market, Source = source }).ToListAsync();
            Assert.That(own, Is.EqualTo(all.Where(trade => trade.Source == source)));
        }

        var (since, until) = (all[1].At, all[^1].At);
        var part = await reader.GetTradesAsync(new TradeQuery { Since = since, Until = until }).ToListAsync();
        Assert.That(part, Is.EqualTo(all.Where(trade => trade.At >= since && trade.At < until)));
        var token = all[0].Token;
        Assert.That(await reader.GetTradesAsync(new TradeQuery { Token = token }).AllAsync(trade => trade.Token == token), Is.True);

        var whole = heard.OfType<BookEvent>().First(book => book.Verdict == BookVerdict.Verified && book.Bids.Count > 0);
        var answer = await reader.GetBookAsync(whole.Token, whole.At);
        Assert.That(answer, Is.InstanceOf<KnownBook>(), answer.ToString());
        Assert.That(((KnownBook)answer).BestBid, Is.Not.Null);
        var early = (UnknownBook)await reader.GetBookAsync(whole.Token, LongAgo);

        Assert.Multiple(() =>
        {
            Assert.That(early.Reason, Is.EqualTo(UnknownReason.Before));
            Assert.That(early.Since, Is.Null);
            Assert.That(early.Until, Is.GreaterThan(LongAgo));
            Assert.That(early.Explanation, Does.Contain("later"));
        });

        var unknown = await Refusal(async () => await reader.GetTradesAsync(new TradeQuery { Market = "no-such" }).AnyAsync());
        Assert.That(unknown.Kind, Is.EqualTo(TributaryErrorKind.UnknownMarket));
        Assert.That((await Assert.ThrowsAsync<ArgumentException>(() => reader.GetBookAsync("", since)))!.ParamName, Is.EqualTo("token"));
    }

    [Test]
    public async Task A_store_that_is_not_there_is_named_with_what_makes_one()
    {
        await using var client = new TributaryClient(Options);
        var error = await Refusal(() => client.GetMarketsAsync());
        Assert.That(error.Kind, Is.EqualTo(TributaryErrorKind.StoreFailed));
        Assert.That(error.Message, Does.Contain(Options.StorePath!).And.Contain("tributary start"));
    }

    [Test]
    public async Task A_reader_may_come_before_the_start_and_a_client_starts_once()
    {
        var client = new TributaryClient(Options);
        var early = client.StreamAsync(Patience()).FirstAsync();
        await client.StartAsync();
        Assert.That(client.IsRunning, Is.True);
        Assert.That((await early).Exchange, Is.EqualTo("polymarket"));
        await Assert.ThrowsAsync<InvalidOperationException>(() => client.StartAsync());
        await client.StopAsync();
        Assert.That(client.IsRunning, Is.False);
        await Assert.ThrowsAsync<ObjectDisposedException>(() => client.StartAsync());

        var never = new TributaryClient(Options);
        var waiting = never.StreamAsync(Patience()).FirstAsync();
        await never.DisposeAsync();
        await Assert.ThrowsAsync<ObjectDisposedException>(async () => await waiting);
    }

    [Test]
    public async Task No_thread_is_left_behind()
    {
        async Task Once()
        {
            await using var client = await TributaryClient.StartAsync(Options);
            await client.StreamAsync(Patience()).FirstAsync();
        }

        static int Threads()
        {
            using var own = System.Diagnostics.Process.GetCurrentProcess();
            return own.Threads.Count;
        }

        for (var warm = 0; warm < 3; warm++)
            await Once();

        var before = Threads();

        for (var run = 0; run < 12; run++)
            await Once();

        Assert.That(Threads(), Is.LessThan(before + 12), "one thread for each run would be left");
    }

    [Test]
    public async Task Requests_and_commits_are_traced_and_counted_under_the_public_names()
    {
        var spans = new System.Collections.Concurrent.ConcurrentBag<string>();
        var counters = new System.Collections.Concurrent.ConcurrentBag<string>();

        using var traces = new System.Diagnostics.ActivityListener
        {
            ShouldListenTo = source => source.Name == TributaryDiagnostics.ActivitySourceName,
            Sample = (ref System.Diagnostics.ActivityCreationOptions<System.Diagnostics.ActivityContext> _) =>
                System.Diagnostics.ActivitySamplingResult.AllData,
            ActivityStopped = span => spans.Add($"{span.OperationName} {span.GetTagItem("outcome")}"),
        };

        System.Diagnostics.ActivitySource.AddActivityListener(traces);
        using var meters = new System.Diagnostics.Metrics.MeterListener();

        meters.InstrumentPublished = (instrument, listener) =>
        {
            if (instrument.Meter.Name == TributaryDiagnostics.MeterName)
                listener.EnableMeasurementEvents(instrument);
        };

        meters.SetMeasurementEventCallback<long>((instrument, _, _, _) => counters.Add(instrument.Name));
        meters.Start();

        await using (var client = await TributaryClient.StartAsync(Options))
            await client.StreamAsync(Patience()).OfType<BookEvent>().FirstAsync();

        Assert.That(spans, Has.Member("request ok").And.Member("commit ok"));
        Assert.That(counters, Has.Member("tributary.requests").And.Member("tributary.events_stored"));
    }

    [Test]
    public async Task The_status_counts_what_is_followed()
    {
        await using var client = await TributaryClient.StartAsync(Options);
        await foreach (var _ in client.StreamAsync(Patience()).OfType<BookEvent>().Take(2)) { }

        var status = await client.GetStatusAsync();
        Assert.That(status.Flows, Is.EqualTo(3), "the trades of a market and the books of its two tokens");
        Assert.That(status.Paused, Is.Empty);
    }

    [Test]
    public async Task Cancelling_ends_one_reader_and_the_client_goes_on()
    {
        await using var client = await TributaryClient.StartAsync(Options);
        using var enough = new CancellationTokenSource();

        await Assert.CatchAsync<OperationCanceledException>(async () =>
        {
            await foreach (var _ in client.StreamAsync(enough.Token))
                await enough.CancelAsync();
        });

        Assert.That(await client.StreamAsync(Patience()).AnyAsync(), Is.True);
    }

    [Test]
    public async Task A_reader_that_falls_behind_is_told_so()
    {
        await using var client = await TributaryClient.StartAsync(Options with { StreamCapacity = 1 });
        var slow = client.StreamAsync(Patience());

        Assert.That(
            await KindOf(async () =>
            {
                await foreach (var _ in slow)
                    await Task.Delay(TimeSpan.FromMilliseconds(100));
            }),
            Is.EqualTo(TributaryErrorKind.ReaderTooSlow));
    }

    [Test]
    public async Task Disposing_ends_the_stream_stores_everything_and_lets_go_of_the_file()
    {
        var streamed = 0;
        var client = await TributaryClient.StartAsync(Options);

        await foreach (var happened in client.StreamAsync(Patience()))
        {
            streamed += happened is TradeEvent { Source: TradeSource.Api } ? 1 : 0;

            if (streamed == 3)
                await client.DisposeAsync();
        }

        var again = await TributaryClient.BackfillAsync(Options, Options.Markets, LongAgo);
        Assert.That(again.Markets.Sum(read => read.Rows) - again.NewRows, Is.GreaterThanOrEqualTo(streamed));
        Assert.Throws<ObjectDisposedException>(() => client.StreamAsync());
        await Assert.DoesNotThrowAsync(() => client.StopAsync(), "stopping again changes nothing");
    }

    [Test]
    public async Task A_backfill_reports_its_progress_and_stores_every_row_once()
    {
        var reports = new Reports();
        var first = await TributaryClient.BackfillAsync(Options, Options.Markets, LongAgo, reports);
        var second = await TributaryClient.BackfillAsync(Options, Options.Markets, LongAgo);

        Assert.Multiple(() =>
        {
            Assert.That(first.IsComplete, Is.True, first.Markets[0].Error);
            Assert.That(first.Markets.Select(read => read.Source), Is.EquivalentTo(new[] { "v1", "v2" }));
            Assert.That(first.Markets, Has.All.Property("Slug").EqualTo(Exchange.Market));
            Assert.That(first.Markets, Has.All.Property("Oldest").GreaterThan(LongAgo));
            Assert.That(first.NewRows, Is.GreaterThanOrEqualTo(first.Markets.Max(read => read.Rows)), "of each trade one row");
            Assert.That(first.NewRows, Is.LessThan(first.Markets.Sum(read => read.Rows)), "which both sources have");
            Assert.That(reports.Select(report => report.Source).Distinct(), Is.EquivalentTo(new[] { "v1", "v2" }));
            Assert.That(first.Markets, Does.Contain(reports[^1]));
            Assert.That(second.Markets.Sum(read => read.Rows), Is.LessThan(first.NewRows), "only what may have come since");
        });
    }

    [Test]
    public async Task An_unknown_slug_is_named()
    {
        var error = await Refusal(() => TributaryClient.BackfillAsync(Options, ["no-such-market"], LongAgo));

        Assert.That(error.Kind, Is.EqualTo(TributaryErrorKind.UnknownMarket));
        Assert.That(error.Message, Does.Contain("no-such-market"));
    }

    [Test]
    public async Task A_second_client_on_the_same_store_is_refused()
    {
        await using var client = await TributaryClient.StartAsync(Options);
        Assert.That(await KindOf(() => TributaryClient.StartAsync(Options)), Is.EqualTo(TributaryErrorKind.StoreInUse));
    }

    [Test]
    public async Task A_file_that_is_no_store_is_refused_and_left_alone()
    {
        File.WriteAllText(Options.StorePath!, "a shopping list");
        Assert.That(await KindOf(() => TributaryClient.StartAsync(Options)), Is.EqualTo(TributaryErrorKind.StoreFailed));
        Assert.That(File.ReadAllText(Options.StorePath!), Is.EqualTo("a shopping list"));
    }

    [Test]
    public async Task All_mistakes_in_the_options_are_named_at_once()
    {
        var wrong = Options with
        {
            Markets = ["two words"],
            Collector = "$",
            BooksEvery = TimeSpan.FromMilliseconds(1),
            StreamCapacity = 0,
            StopLimit = TimeSpan.Zero,
            ExchangeUrl = new Uri("ftp://exchange"),
            QuestDb = "tcp::addr=x;",
        };

        var error = await Refusal(() => TributaryClient.StartAsync(wrong));
        Assert.That(error.Kind, Is.EqualTo(TributaryErrorKind.Configuration));
        Assert.That(error.Message, Does.Contain("slug: ").And.Contain("collector: ").And.Contain("books: "));
        Assert.That(error.Message, Does.Contain("StreamCapacity: ").And.Contain("StopLimit: ").And.Contain("ExchangeUrl: ").And.Contain("QuestDb: "));
    }

    [Test]
    public async Task A_client_with_nothing_to_collect_does_not_start() =>
        Assert.That(
            await KindOf(() => TributaryClient.StartAsync(Options with { Markets = [] })),
            Is.EqualTo(TributaryErrorKind.Configuration));

    [Test]
    public async Task AnExchange_that_does_not_answer_is_named_as_such() =>
        Assert.That(
            await KindOf(() => TributaryClient.BackfillAsync(
                Options with { ExchangeUrl = new Uri("http://127.0.0.1:9/") }, Options.Markets, LongAgo)),
            Is.EqualTo(TributaryErrorKind.ExchangeUnreachable));

    /// <summary>Progress that is heard at once, not on another thread later.</summary>
    private sealed class Reports : List<BackfillProgress>, IProgress<BackfillProgress>
    {
        public void Report(BackfillProgress value) => Add(value);
    }
}
