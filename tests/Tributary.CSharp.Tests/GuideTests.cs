using NUnit.Framework;

namespace Tributary.CSharp.Tests;

/// <summary>The C# of docs/csharp.md, to the letter: another test compares the two.</summary>
[TestFixture]
public sealed class GuideTests : ExchangeFixture
{
    private readonly StringWriter _printed = new();
    private TextWriter _console = null!;

    [SetUp]
    public void Listen()
    {
        _console = Console.Out;
        Console.SetOut(_printed);
    }

    [TearDown]
    public void Leave() => Console.SetOut(_console);

    [Test]
    [CancelAfter(60_000)]
    public async Task The_tour_of_the_guide_prints_what_it_promises(CancellationToken ct)
    {
        var options = new TributaryOptions
        {
            ExchangeUrl = Exchange.Address,
            StorePath = StorePath,
            Markets = [Exchange.Market],
            BooksEvery = TimeSpan.FromMilliseconds(500),
            TradesEvery = TimeSpan.FromMilliseconds(500),
        };

        await Stream(options, ct);
        Assert.That(_printed.ToString().Trim().Split('\n'), Has.Length.EqualTo(20));
        await Past(options, ct);
        Assert.That(_printed.ToString(), Does.Contain("all of it"));
        await Read(options, ct);
        Assert.That(_printed.ToString(), Does.Contain($"{Exchange.Market}: "));
    }

    private static async Task Stream(TributaryOptions options, CancellationToken ct)
    {
        await using var client = await TributaryClient.StartAsync(options, ct);

        await foreach (var happened in client.StreamAsync(ct).Take(20))
        {
            var line = happened switch
            {
                TradeEvent trade => $"{trade.At:O} {trade.Outcome} {trade.Side} {trade.Size} at {trade.Price}",
                BookEvent book => $"{book.At:O} {book.BestBid?.Price} / {book.BestAsk?.Price}, {book.Verdict}",
                BookDeltaEvent delta => $"{delta.At:O} {delta.Side} {delta.Price}: {delta.Size}",
                GapEvent gap => $"{gap.Since:O} {gap.Stream} is missing: {gap.Cause}",
                MarketInfoEvent market => market.Question,
                _ => happened.ToString(),
            };

            Console.WriteLine(line);
        }
    }

    private static async Task Read(TributaryOptions options, CancellationToken ct)
    {
        await using var reader = new TributaryClient(options);

        foreach (var market in await reader.GetMarketsAsync(ct))
        {
            var token = market.Outcomes[0].Token!;

            switch (await reader.GetBookAsync(token, DateTimeOffset.UtcNow, ct))
            {
                case KnownBook book:
                    Console.WriteLine($"{market.Slug}: {book.BestBid?.Price} / {book.BestAsk?.Price}, {book.Verdict}");
                    break;
                case UnknownBook unknown:
                    Console.WriteLine($"{market.Slug}: not known, {unknown.Explanation}");
                    break;
            }

            await foreach (var trade in reader.GetTradesAsync(new TradeQuery { Market = market.Slug }, ct).Take(3))
                Console.WriteLine($"{trade.At:O} {trade.Price} x {trade.Size}");
        }
    }

    private static async Task Past(TributaryOptions options, CancellationToken ct)
    {
        var progress = new Progress<BackfillProgress>(page => Console.WriteLine($"{page.Slug}: {page.Rows} trades, {page.NewRows} new"));
        var past = await TributaryClient.BackfillAsync(options, options.Markets, DateTimeOffset.UtcNow.AddHours(-1), progress, ct);
        Console.WriteLine(past.IsComplete ? "all of it" : "not all of it");
    }
}
