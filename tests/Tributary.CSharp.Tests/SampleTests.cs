using System.Diagnostics;
using System.Net;
using System.Text.Json;
using NUnit.Framework;

namespace Tributary.CSharp.Tests;

/// <summary>The sample as its user starts it: a program of its own.</summary>
[TestFixture]
public sealed class SampleTests
{
    [Test]
    [CancelAfter(60_000)]
    public async Task The_sample_streams_the_best_bid_and_ask_as_server_sent_events(CancellationToken ct)
    {
        using var exchange = await Simulator.StartAsync();
        var folder = Directory.CreateTempSubdirectory("tributary-sample-").FullName;

        using var sample = Process.Start(new ProcessStartInfo("dotnet")
        {
            ArgumentList =
            {
                Build.Of("tests", "Tributary.Sample"),
                "--urls=http://127.0.0.1:0",
                $"--Tributary:ExchangeUrl={exchange.Address}",
                $"--Tributary:Markets:0={exchange.Market}",
                $"--Tributary:StorePath={Path.Combine(folder, "sample.db")}",
            },
            RedirectStandardOutput = true,
        })!;

        try
        {
            using var client = new HttpClient { BaseAddress = new Uri(await AddressOf(sample, ct)) };
            using var answer = await client.GetAsync($"best/{exchange.Market}", HttpCompletionOption.ResponseHeadersRead, ct);
            Assert.That(answer.Content.Headers.ContentType!.MediaType, Is.EqualTo("text/event-stream"));
            using var lines = new StreamReader(await answer.Content.ReadAsStreamAsync(ct));
            var tokens = new HashSet<string>();

            while (tokens.Count < 2)
            {
                var line = await lines.ReadLineAsync(ct) ?? throw new EndOfStreamException();

                if (line.StartsWith("data: "))
                {
                    var best = JsonDocument.Parse(line[6..]).RootElement;
                    Assert.That(best.GetProperty("bid").GetDecimal(), Is.LessThan(best.GetProperty("ask").GetDecimal()));
                    tokens.Add(best.GetProperty("token").GetString()!);
                }
            }

            using var health = await client.GetAsync("health", ct);
            Assert.That(health.StatusCode, Is.EqualTo(HttpStatusCode.OK));
        }
        finally
        {
            sample.Kill();
            await sample.WaitForExitAsync(CancellationToken.None);
            Directory.Delete(folder, recursive: true);
        }
    }

    private static async Task<string> AddressOf(Process sample, CancellationToken ct)
    {
        const string Listening = "Now listening on: ";

        while (await sample.StandardOutput.ReadLineAsync(ct) is { } line)
        {
            if (line.Contains(Listening))
            {
                _ = sample.StandardOutput.ReadToEndAsync(ct);
                return line[(line.IndexOf(Listening, StringComparison.Ordinal) + Listening.Length)..].Trim();
            }
        }

        throw new EndOfStreamException("The sample ended.");
    }
}
