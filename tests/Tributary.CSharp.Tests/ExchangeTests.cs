using System.Globalization;
using System.Text.Json;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;
using NUnit.Framework;

namespace Tributary.CSharp.Tests;

/// <summary>An exchange that somebody wrote in C#, behind a real socket.</summary>
[TestFixture]
public sealed class ExchangeTests
{
    private WebApplication _server = null!;
    private string _folder = null!;

    private static readonly long Second = DateTimeOffset.UtcNow.ToUnixTimeSeconds() - 60;

    [OneTimeSetUp]
    public async Task Start_the_server()
    {
        var builder = WebApplication.CreateSlimBuilder();
        _server = builder.Build();
        _server.Urls.Add("http://127.0.0.1:0");
        _server.MapGet("/api/markets", () => Results.Json(new[] { new { id = "m-1", slug = "rain", question = "Rain?", yes = "t-1", no = "t-2" } }));

        // One book whole, one that is none.
        _server.MapGet("/api/book/{token}", (string token) => token == "t-1"
            ? Results.Json(new { token, at = Second, bids = new[] { new[] { "0.41", "10" }, ["0.4", "5.5"] }, asks = new[] { new[] { "0.43", "7" } } })
            : Results.Text("{}", "application/json"));

        // Two pages of trades; the first points to the second.
        _server.MapGet("/api/trades", (int? before) => before is null
            ? Results.Json(new { next = 2, trades = new[] { new { id = 3, price = "0.42", size = "1", at = Second + 2 }, new { id = 2, price = "0.4", size = "2.5", at = Second + 1 } } })
            : Results.Json(new { next = (int?)null, trades = new[] { new { id = 1, price = "0.39", size = "-1", at = Second }, new { id = 0, price = "0.38", size = "4", at = Second } } }));

        await _server.StartAsync();
    }

    [OneTimeTearDown]
    public async Task Stop_the_server() => await _server.DisposeAsync();

    [SetUp]
    public void Make_a_folder() => _folder = Directory.CreateTempSubdirectory("tributary-exchange-").FullName;

    [TearDown]
    public void Remove_the_folder() => Directory.Delete(_folder, recursive: true);

    private Uri Address =>
        new(_server.Services.GetRequiredService<IServer>().Features.Get<IServerAddressesFeature>()!.Addresses.First());

    private TributaryOptions Options => new()
    {
        Exchange = new OwnExchange(Address),
        StorePath = Path.Combine(_folder, "own.db"),
        Markets = ["rain"],
        BooksEvery = TimeSpan.FromMilliseconds(300),
        TradesEvery = TimeSpan.FromMilliseconds(300),
    };

    [Test]
    [CancelAfter(30_000)]
    public async Task An_exchange_of_ones_own_is_polled_validated_and_stored(CancellationToken ct)
    {
        var heard = new List<MarketEvent>();

        await using (var client = await TributaryClient.StartAsync(Options, ct))
        {
            await foreach (var happened in client.StreamAsync(ct))
            {
                heard.Add(happened);

                if (heard.OfType<TradeEvent>().Count() == 3 && heard.OfType<BookEvent>().Any()
                    && heard.OfType<GapEvent>().Any(gap => gap.Token == "t-2"))
                    break;
            }
        }

        await using var reader = new TributaryClient(Options);
        var trades = await reader.GetTradesAsync(new TradeQuery { Market = "rain" }, ct).ToListAsync(ct);

        Assert.Multiple(() =>
        {
            Assert.That(heard.Select(one => one.Exchange).Distinct(), Is.EqualTo(new[] { "own" }));
            Assert.That(trades.Select(trade => (trade.Price, trade.Size)), Is.EqualTo(new[] { (0.38m, 4m), (0.4m, 2.5m), (0.42m, 1m) }));
            Assert.That(trades.Select(trade => trade.Id), Is.Unique);
        });

        var book = heard.OfType<BookEvent>().First();

        Assert.Multiple(() =>
        {
            Assert.That(book.Token, Is.EqualTo("t-1"));
            Assert.That(book.Bids, Is.EqualTo(new[] { new PriceLevel(0.41m, 10m), new PriceLevel(0.4m, 5.5m) }));
            Assert.That(book.BestAsk, Is.EqualTo(new PriceLevel(0.43m, 7m)));
            Assert.That(book.Verdict, Is.EqualTo(BookVerdict.Unverifiable));
        });
    }

    [Test]
    public async Task An_exchange_with_a_name_that_is_none_and_a_backfill_of_it_are_refused()
    {
        var wrong = Options with { Exchange = new OwnExchange(Address, "two words") };
        var error = (await Assert.ThrowsAsync<TributaryException>(() => TributaryClient.StartAsync(wrong)))!;
        Assert.That(error.Message, Does.Contain("Exchange: ").And.Contain("two words"));

        var past = (await Assert.ThrowsAsync<TributaryException>(
            () => TributaryClient.BackfillAsync(Options, ["rain"], DateTimeOffset.UtcNow.AddDays(-1))))!;

        Assert.That(past.Kind, Is.EqualTo(TributaryErrorKind.Configuration));
    }

    private sealed class OwnExchange(Uri address, string name = "own") : IExchange
    {
        public string Name => name;
        public IReadOnlyDictionary<string, Uri> Addresses => new Dictionary<string, Uri> { ["api_url"] = new(address, "api") };
        public IReadOnlyDictionary<string, int> Limits => new Dictionary<string, int> { ["books"] = 1000 };

        public IEnumerable<ExchangeRequest> Ask(ExchangeNeed need) => need switch
        {
            MarketsBySlug or MarketsById => [new("markets", "api_url", "/markets")],
            BooksOf books => books.Tokens.Select(token => new ExchangeRequest("books", "api_url", $"/book/{token}")),
            TradesOf => [new("trades", "api_url", "/trades")],
            _ => [],
        };

        public ExchangeAnswer Decode(ExchangeRequest request, ReadOnlyMemory<byte> body, DateTimeOffset received)
        {
            using var document = JsonDocument.Parse(body);
            var json = document.RootElement;

            return request.Endpoint switch
            {
                "markets" => new()
                {
                    Markets =
                    [
                        .. json.EnumerateArray().Select(market => new ExchangeMarket
                        {
                            Market = Text(market, "id"),
                            Slug = Text(market, "slug"),
                            Question = Text(market, "question"),
                            Outcomes = [new("Yes", Text(market, "yes")), new("No", Text(market, "no"))],
                            State = MarketState.Open,
                        }),
                    ],
                },
                "books" => new()
                {
                    Books = [new("m-1", Text(json, "token"), Levels(json, "bids"), Levels(json, "asks"), Time(json))],
                },
                _ => new()
                {
                    Trades =
                    [
                        .. json.GetProperty("trades").EnumerateArray().Select(trade => new ExchangeTrade(
                            "m-1", "t-1", "Yes", TradeSide.Buy, Number(trade, "price"), Number(trade, "size"), Time(trade),
                            trade.GetProperty("id").GetInt32().ToString(CultureInfo.InvariantCulture))),
                    ],
                    Next = json.GetProperty("next").ValueKind == JsonValueKind.Number
                        ? [request with { Path = $"/trades?before={json.GetProperty("next").GetInt32()}" }]
                        : [],
                },
            };
        }

        private static string Text(JsonElement json, string name) => json.GetProperty(name).GetString()!;
        private static decimal Decimal(string text) => decimal.Parse(text, CultureInfo.InvariantCulture);
        private static decimal Number(JsonElement json, string name) => Decimal(Text(json, name));
        private static DateTimeOffset Time(JsonElement json) => DateTimeOffset.FromUnixTimeSeconds(json.GetProperty("at").GetInt64());

        private static PriceLevel[] Levels(JsonElement json, string side) =>
            [.. json.GetProperty(side).EnumerateArray().Select(level => new PriceLevel(Decimal(level[0].GetString()!), Decimal(level[1].GetString()!)))];
    }
}
