namespace Tributary.CSharp;

/// <summary>The names under which .NET listeners, such as OpenTelemetry's, find what Tributary tells of itself.</summary>
/// <example>
/// <code>
/// builder.Services.AddOpenTelemetry()
///     .WithMetrics(metrics => metrics.AddMeter(TributaryDiagnostics.MeterName))
///     .WithTracing(traces => traces.AddSource(TributaryDiagnostics.ActivitySourceName));
/// </code>
/// </example>
public static class TributaryDiagnostics
{
    /// <summary>The meter: counters <c>tributary.requests</c>, <c>tributary.events_stored</c>, <c>tributary.gaps_opened</c> and others.</summary>
    public const string MeterName = "Tributary";

    /// <summary>The activity source: <c>request</c> around each attempt to ask an exchange, <c>commit</c> around each transaction of the store.</summary>
    public const string ActivitySourceName = Trace.SourceName;
}
