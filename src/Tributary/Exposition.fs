/// Measures as text in the form that Prometheus reads (text format 0.0.4).
[<RequireQualifiedAccess>]
module Tributary.Exposition

open System.Globalization
open System.Text

/// The content type of the text.
[<Literal>]
let ContentType = "text/plain; version=0.0.4; charset=utf-8"

/// As Prometheus calls a measure: with our prefix, unless it is of the process or of .NET, and a counter with its ending.
let nameOf (measure: Measure) =
    let isOurs =
        not (measure.Name.StartsWith "process_" || measure.Name.StartsWith "dotnet_")

    let prefix = if isOurs then "tributary_" else ""
    let ending = if measure.Kind = MeasureKind.Counter then "_total" else ""
    $"{prefix}{measure.Name}{ending}"

let private number (value: float) =
    value.ToString("R", CultureInfo.InvariantCulture)

let private escaped (text: string) =
    text.Replace("\\", "\\\\").Replace("\"", "\\\"").Replace("\n", "\\n")

/// `key=value,…` as `{key="value",…}`, and one pair more where there is one.
let private labels (pairs: string) (more: string) =
    let inside =
        Labels.pairs pairs
        |> Array.map (fun (struct (key, value)) -> $"{key}=\"{escaped value}\"")
        |> fun pairs -> if more = "" then pairs else Array.append pairs [| more |]
        |> String.concat ","

    if inside = "" then "" else $"{{{inside}}}"

/// The measures as text.
let text (families: Family list) : string =
    let into = StringBuilder()

    let line (text: string) =
        into.Append(text).Append('\n') |> ignore

    for family in families do
        let name = nameOf family.Measure

        let kind =
            match family.Measure.Kind with
            | MeasureKind.Counter -> "counter"
            | MeasureKind.Gauge -> "gauge"
            | MeasureKind.Duration -> "histogram"

        line $"# HELP {name} {family.Measure.Help.Replace('\n', ' ')}"
        line $"# TYPE {name} {kind}"

        for struct (pairs, reading) in family.Readings do
            match reading with
            | Measured.Number value -> line $"{name}{labels pairs System.String.Empty} {number value}"
            | Measured.Histogram histogram ->
                for struct (bound, count) in histogram.Buckets do
                    let upTo = $"le=\"{number bound}\""
                    line $"{name}_bucket{labels pairs upTo} {count}"

                let all = "le=\"+Inf\""
                line $"{name}_bucket{labels pairs all} {histogram.Total}"
                line $"{name}_sum{labels pairs System.String.Empty} {number histogram.Sum}"
                line $"{name}_count{labels pairs System.String.Empty} {histogram.Total}"

    into.ToString()
