/// Measures and traces to an OTLP receiver, by OpenTelemetry's own package.
[<RequireQualifiedAccess>]
module Tributary.Server.Telemetry

open System
open OpenTelemetry
open OpenTelemetry.Exporter
open OpenTelemetry.Metrics
open OpenTelemetry.Resources
open OpenTelemetry.Trace
open Tributary

let private every = TimeSpan.FromSeconds 10.0

/// Begins to send what the settings want sent, under the collector's name. Disposing it sends the last, for a few seconds at most. A
/// receiver that does not answer costs nothing else.
let start (settings: Settings) : IDisposable =
    let parts: IDisposable list =
        match settings.Telemetry.Otlp with
        | None -> []
        | Some address ->
            let to' (path: string) (options: OtlpExporterOptions) =
                options.Protocol <- OtlpExportProtocol.HttpProtobuf
                options.Endpoint <- Uri(address.Uri, path)
                options.TimeoutMilliseconds <- 5_000

            let resource (builder: ResourceBuilder) =
                builder.AddService("tributary", serviceInstanceId = settings.Collector)
                |> ignore

            [
                Sdk
                    .CreateMeterProviderBuilder()
                    .ConfigureResource(resource)
                    .AddMeter(Meters.MeterName)
                    .AddOtlpExporter(fun exporter reader ->
                        to' "v1/metrics" exporter

                        reader.PeriodicExportingMetricReaderOptions.ExportIntervalMilliseconds <-
                            Nullable(int every.TotalMilliseconds))
                    .Build()
                Sdk
                    .CreateTracerProviderBuilder()
                    .ConfigureResource(resource)
                    .AddSource(Trace.SourceName)
                    .AddOtlpExporter(to' "v1/traces")
                    .Build()
            ]

    {
        new IDisposable with
            member _.Dispose() = parts |> List.iter _.Dispose()
    }
