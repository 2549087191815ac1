// The best bid and ask of a market, live in a browser or by curl: GET /best/SLUG answers server-sent events.
//
//   dotnet run --project tests/Tributary.Sample -- --Tributary:Markets:0=SLUG --Tributary:StorePath=sample.db

using System.Runtime.CompilerServices;
using Tributary.CSharp;

var builder = WebApplication.CreateBuilder(args);
builder.Services.AddTributary(builder.Configuration.GetSection("Tributary"));
builder.Services.AddHealthChecks().AddTributary();

var app = builder.Build();
app.MapHealthChecks("/health");

app.MapGet("/best/{slug}", (string slug, TributaryClient client, CancellationToken ct) =>
    TypedResults.ServerSentEvents(BestAsync(client, slug, ct), eventType: "best"));

app.Run();

static async IAsyncEnumerable<Best> BestAsync(
    TributaryClient client,
    string slug,
    [EnumeratorCancellation] CancellationToken ct)
{
    var filter = new StreamFilter
    {
        Markets = [slug],
        Kinds = MarketEventKinds.Books | MarketEventKinds.BookDeltas | MarketEventKinds.Gaps,
    };

    var ladders = new Dictionary<string, Ladder>();
    var told = new Dictionary<string, Best>();

    await foreach (var happened in client.StreamAsync(filter, ct))
    {
        switch (happened)
        {
            // What a poll brings may be older than what the live stream told since.
            case BookEvent book when !ladders.TryGetValue(book.Token, out var known) || known.At <= book.At:
                ladders[book.Token] = new Ladder(book);
                break;
            case BookDeltaEvent change when ladders.TryGetValue(change.Token, out var known):
                known.Apply(change);
                break;
            // From here on the book is not known, until the next whole one comes.
            case GapEvent { Token: { } lost, Until: null }:
                ladders.Remove(lost);
                break;
        }

        foreach (var (token, ladder) in ladders)
        {
            var best = new Best(token, ladder.Bid, ladder.Ask);

            if (told.GetValueOrDefault(token) != best)
                yield return told[token] = best;
        }
    }
}

/// <summary>What a browser gets; null where a side is empty.</summary>
internal sealed record Best(string Token, decimal? Bid, decimal? Ask);

/// <summary>A book that follows its changes.</summary>
internal sealed class Ladder
{
    private readonly SortedDictionary<decimal, decimal> _bids = [];
    private readonly SortedDictionary<decimal, decimal> _asks = [];

    public Ladder(BookEvent book)
    {
        At = book.At;

        foreach (var level in book.Bids)
            _bids[-level.Price] = level.Size;

        foreach (var level in book.Asks)
            _asks[level.Price] = level.Size;
    }

    public DateTimeOffset At { get; private set; }
    public decimal? Bid => _bids.Count > 0 ? -_bids.First().Key : null;
    public decimal? Ask => _asks.Count > 0 ? _asks.First().Key : null;

    public void Apply(BookDeltaEvent change)
    {
        var (levels, key) = change.Side == BookSide.Bid ? (_bids, -change.Price) : (_asks, change.Price);
        At = change.At;

        if (change.Size == 0)
            levels.Remove(key);
        else
            levels[key] = change.Size;
    }
}
