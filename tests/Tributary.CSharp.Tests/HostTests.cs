using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Diagnostics.HealthChecks;
using Microsoft.Extensions.Hosting;
using NUnit.Framework;

namespace Tributary.CSharp.Tests;

[TestFixture]
public sealed class HostTests : ExchangeFixture
{
    private Dictionary<string, string?> Section => new()
    {
        ["Tributary:ExchangeUrl"] = Exchange.Address.AbsoluteUri,
        ["Tributary:StorePath"] = StorePath,
        ["Tributary:Markets:0"] = Exchange.Market,
        ["Tributary:BooksEvery"] = "00:00:00.5",
    };

    private static HostApplicationBuilder Builder(Dictionary<string, string?> section)
    {
        var builder = Host.CreateEmptyApplicationBuilder(new());
        builder.Configuration.AddInMemoryCollection(section);
        return builder;
    }

    private static IHost HostWith(Dictionary<string, string?> section)
    {
        var builder = Builder(section);
        builder.Services.AddTributary(builder.Configuration.GetSection("Tributary"));
        builder.Services.AddHealthChecks().AddTributary();
        builder.Services.AddSingleton<Listener>();
        builder.Services.AddHostedService(services => services.GetRequiredService<Listener>());
        return builder.Build();
    }

    [Test]
    [CancelAfter(30_000)]
    public async Task A_host_starts_and_stops_it_and_its_services_listen(CancellationToken ct)
    {
        using var host = HostWith(Section);
        var client = host.Services.GetRequiredService<TributaryClient>();
        var health = host.Services.GetRequiredService<HealthCheckService>();
        Assert.That((await health.CheckHealthAsync(ct)).Status, Is.EqualTo(HealthStatus.Unhealthy), "not started");
        await host.StartAsync(ct);
        Assert.That(client.IsRunning, Is.True);
        var heard = await host.Services.GetRequiredService<Listener>().Heard.Task.WaitAsync(ct);
        Assert.That(heard.Slug, Is.EqualTo(Exchange.Market));
        var entry = (await health.CheckHealthAsync(ct)).Entries["tributary"];
        Assert.That(entry.Status, Is.Not.EqualTo(HealthStatus.Unhealthy));
        Assert.That(entry.Data["flows"], Is.EqualTo(3));
        await host.StopAsync(ct);
        Assert.That(client.IsRunning, Is.False);
        Assert.That((await health.CheckHealthAsync(ct)).Status, Is.EqualTo(HealthStatus.Unhealthy));
    }

    [Test]
    public async Task A_key_that_is_no_option_ends_the_start()
    {
        var section = Section;
        section["Tributary:Market"] = "typo";
        var error = (await Assert.ThrowsAsync<TributaryException>(() => HostWith(section).StartAsync()))!;
        Assert.That(error.Kind, Is.EqualTo(TributaryErrorKind.Configuration));
        Assert.That(error.Message, Does.Contain("'Market'"));
    }

    [Test]
    public async Task Options_that_make_no_sense_end_the_start_with_every_problem()
    {
        var section = Section;
        section["Tributary:StreamCapacity"] = "-1";
        section["Tributary:Collector"] = "$";
        var error = (await Assert.ThrowsAsync<TributaryException>(() => HostWith(section).StartAsync()))!;
        Assert.That(error.Message, Does.Contain("StreamCapacity: ").And.Contain("collector: "));
    }

    [Test]
    public async Task A_value_of_the_wrong_kind_is_named_by_its_key()
    {
        var section = Section;
        section["Tributary:BooksEvery"] = "often";
        var error = (await Assert.ThrowsAsync<TributaryException>(() => HostWith(section).StartAsync()))!;
        Assert.That(error.Message, Does.Contain("Tributary:BooksEvery"));
    }

    [Test]
    public async Task Options_in_code_change_those_of_the_section()
    {
        var builder = Builder(Section);

        builder.Services.AddTributary(
            builder.Configuration.GetSection("Tributary"),
            options => options with { StorePath = Path.Combine(Folder, "other.db") });

        using (var host = builder.Build())
        {
            await host.StartAsync();
            await host.StopAsync();
        }

        Assert.That(File.Exists(Path.Combine(Folder, "other.db")), Is.True);
        Assert.That(File.Exists(StorePath), Is.False);
    }

    /// <summary>A service of the host's own that reads the stream.</summary>
    private sealed class Listener(TributaryClient client) : BackgroundService
    {
        public TaskCompletionSource<MarketEvent> Heard { get; } = new();

        protected override async Task ExecuteAsync(CancellationToken stoppingToken) =>
            Heard.SetResult(await client.StreamAsync(stoppingToken).FirstAsync(stoppingToken));
    }
}
