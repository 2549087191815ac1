using NUnit.Framework;

namespace Tributary.CSharp.Tests;

/// <summary>The C# of the README, to the letter: another test compares the two.</summary>
[TestFixture]
public sealed class ReadmeTests
{
    [Test]
    [CancelAfter(30_000)]
    public async Task The_sample_of_the_readme_prints_a_trade()
    {
        using var simulator = await Simulator.StartAsync();
        var exchange = simulator.Address;
        var folder = Directory.CreateTempSubdirectory("tributary-readme-").FullName;
        var before = Directory.GetCurrentDirectory();
        var console = Console.Out;
        using var printed = new StringWriter();

        try
        {
            Directory.SetCurrentDirectory(folder);
            Console.SetOut(printed);
            await Sample(exchange);
        }
        finally
        {
            Console.SetOut(console);
            Directory.SetCurrentDirectory(before);
            Directory.Delete(folder, recursive: true);
        }

        Assert.That(printed.ToString(), Does.Contain("will-the-bill-pass-1"));
    }

    private static async Task Sample(Uri exchange)
    {
        var options = new TributaryOptions
        {
            Markets = ["will-the-bill-pass-1"],
            ExchangeUrl = exchange, // the address of 'tributary simulate'; leave it out for the real exchange
            StorePath = "try.db",
        };

        await using var client = await TributaryClient.StartAsync(options);

        await foreach (var happened in client.StreamAsync())
        {
            if (happened is TradeEvent trade)
            {
                Console.WriteLine($"{trade.At:O} {trade.Slug} {trade.Side} {trade.Size} at {trade.Price}");
                break;
            }
        }
    }
}
