using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.DependencyInjection.Extensions;
using Microsoft.Extensions.Diagnostics.HealthChecks;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;

namespace Tributary.CSharp;

/// <summary>Registers a collector with a host: it starts and stops with it, and <see cref="TributaryClient"/> can be injected.</summary>
public static class TributaryServices
{
    /// <summary>
    /// Adds a <see cref="TributaryClient"/> as a singleton and as a hosted service. Its logger factory and its clock are the host's,
    /// where it has any. Options that make no sense end the host's start with a <see cref="TributaryException"/> that names all of them.
    /// </summary>
    /// <param name="services">Where it is added.</param>
    /// <param name="options">What is collected, from where and into which file.</param>
    /// <returns>The same services.</returns>
    /// <example>
    /// <code>
    /// builder.Services.AddTributary(new TributaryOptions { Markets = ["will-it-rain-tomorrow"] });
    /// </code>
    /// </example>
    public static IServiceCollection AddTributary(this IServiceCollection services, TributaryOptions options) =>
        services.Add(_ => options);

    /// <summary>
    /// As the other, with options from a configuration section: <c>Markets</c>, <c>StorePath</c> and so on, by the names of the
    /// properties of <see cref="TributaryOptions"/>; times as <c>00:00:10</c>. A key that is no option is a mistake.
    /// </summary>
    /// <param name="services">Where it is added.</param>
    /// <param name="section">Such as <c>builder.Configuration.GetSection("Tributary")</c>.</param>
    /// <param name="change">Changes what the section says. Default: nothing is changed.</param>
    /// <returns>The same services.</returns>
    /// <example>
    /// <code>
    /// builder.Services.AddTributary(
    ///     builder.Configuration.GetSection("Tributary"),
    ///     options => options with { Collector = Environment.MachineName });
    /// </code>
    /// </example>
    public static IServiceCollection AddTributary(
        this IServiceCollection services,
        IConfiguration section,
        Func<TributaryOptions, TributaryOptions>? change = null) =>
        services.Add(_ => (change ?? (options => options))(OptionsOf(section)));

    /// <summary>
    /// Adds a health check of the registered client: healthy while it collects, degraded while nothing is asked or flows have an
    /// open gap, unhealthy when it is not running.
    /// </summary>
    /// <param name="builder">Where it is added.</param>
    /// <param name="name">The check's name. Default <c>tributary</c>.</param>
    /// <param name="tags">Tags to filter checks by. Default none.</param>
    /// <returns>The same builder.</returns>
    /// <example>
    /// <code>
    /// builder.Services.AddHealthChecks().AddTributary();
    /// </code>
    /// </example>
    public static IHealthChecksBuilder AddTributary(
        this IHealthChecksBuilder builder,
        string name = "tributary",
        IEnumerable<string>? tags = null) =>
        builder.Add(new HealthCheckRegistration(
            name,
            services => new TributaryHealthCheck(services.GetRequiredService<TributaryClient>()),
            HealthStatus.Unhealthy,
            tags));

    private static IServiceCollection Add(this IServiceCollection services, Func<IServiceProvider, TributaryOptions> options)
    {
        services.TryAddSingleton(provider =>
        {
            var own = options(provider);

            return new TributaryClient(own with
            {
                LoggerFactory = own.LoggerFactory ?? provider.GetService<ILoggerFactory>(),
                TimeProvider = own.TimeProvider == TimeProvider.System
                    ? provider.GetService<TimeProvider>() ?? TimeProvider.System
                    : own.TimeProvider,
            });
        });

        return services.AddHostedService(provider => provider.GetRequiredService<TributaryClient>());
    }

    private static TributaryOptions OptionsOf(IConfiguration section)
    {
        try
        {
            return section.Get<TributaryOptions>(binder => binder.ErrorOnUnknownConfiguration = true) ?? new();
        }
        catch (InvalidOperationException error)
        {
            var words = error.InnerException is { } inner ? $"{error.Message} {inner.Message}" : error.Message;
            throw new TributaryException(TributaryErrorKind.Configuration, words, error);
        }
    }
}

/// <summary>What <see cref="TributaryServices.AddTributary(IHealthChecksBuilder, string, IEnumerable{string}?)"/> asks.</summary>
internal sealed class TributaryHealthCheck(TributaryClient client) : IHealthCheck
{
    public async Task<HealthCheckResult> CheckHealthAsync(HealthCheckContext context, CancellationToken cancellationToken = default)
    {
        if (!client.IsRunning)
            return new(context.Registration.FailureStatus, "not running");

        var status = await client.GetStatusAsync(cancellationToken).ConfigureAwait(false);

        var data = new Dictionary<string, object>
        {
            ["flows"] = status.Flows,
            ["flows_in_gap"] = status.FlowsInGap,
            ["paused"] = string.Join(", ", status.Paused),
        };

        return status switch
        {
            { Paused.Count: > 0 } => HealthCheckResult.Degraded($"nothing is asked: {data["paused"]}", data: data),
            { FlowsInGap: > 0 } => HealthCheckResult.Degraded($"{status.FlowsInGap} of {status.Flows} flows have an open gap", data: data),
            _ => HealthCheckResult.Healthy($"{status.Flows} flows are followed", data),
        };
    }
}
