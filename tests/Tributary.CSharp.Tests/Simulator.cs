using System.Diagnostics;
using System.Text.Json;

namespace Tributary.CSharp.Tests;

/// <summary>The simulated exchange as a program of its own, as any C# developer would start it.</summary>
internal sealed class Simulator : IDisposable
{
    private readonly Process _process;

    private Simulator(Process process, Uri address, string market)
    {
        _process = process;
        Address = address;
        Market = market;
    }

    public Uri Address { get; }

    /// <summary>The slug of an open market that trades.</summary>
    public string Market { get; }

    public static async Task<Simulator> StartAsync()
    {
        var process = Process.Start(new ProcessStartInfo("dotnet")
        {
            ArgumentList = { Build.Of("src", "Tributary.Cli"), "simulate", "--port", "0", "--markets", "20" },
            RedirectStandardOutput = true,
        })!;

        var address = new Uri(await process.StandardOutput.ReadLineAsync() + "/");
        using var client = new HttpClient { BaseAddress = address };
        var trades = await client.GetStringAsync("data/trades?limit=1");
        var slug = JsonDocument.Parse(trades).RootElement[0].GetProperty("slug").GetString()!;
        return new(process, address, slug);
    }

    public void Dispose()
    {
        _process.Kill(entireProcessTree: true);
        _process.WaitForExit();
        _process.Dispose();
    }
}
