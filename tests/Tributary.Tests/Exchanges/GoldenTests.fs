/// Payloads in, expected events beside them: `fixtures/<exchange>/<name>.json` and `<name>.expected.txt`. The payloads were written
/// after the exchange's reference; none is a recording. TRIBUTARY_GOLDEN=write writes what is found, to be read before it is kept.
module Tributary.Tests.Exchanges.GoldenTests

open System
open System.IO
open NUnit.Framework
open Tributary
open Tributary.Tests


let payloads =
    Directory.EnumerateFiles(fixtures, "*.json", SearchOption.AllDirectories)
    |> Seq.sort
    |> Seq.map (fun path -> Path.GetRelativePath(fixtures, path))

let private levels (levels: Level[]) =
    levels
    |> Array.map (fun level -> $"{level.Price} x {level.Size}")
    |> String.concat ", "

let private line event =
    match event with
    | MarketEvent.Trade trade ->
        $"trade {trade.At} {trade.Market} {trade.Token} '{trade.Outcome}' {Side.text trade.Side} {trade.Price} x {trade.Size} tx {trade.Transaction} id {trade.Id} [{trade.Flags}]"
    | MarketEvent.Book book ->
        $"book {book.At} {book.Market} {book.Token} {Verdict.text book.Verdict} [{book.Flags}]\n  bids {levels book.Bids}\n  asks {levels book.Asks}"
    | MarketEvent.Delta delta ->
        $"delta {delta.At} {delta.Ordinal} {delta.Market} {delta.Token} {Side.text delta.Side} {delta.Price} x {delta.Size} {Verdict.text delta.Verdict}"
    | MarketEvent.Market market ->
        let outcomes =
            market.Outcomes
            |> Array.map (fun outcome -> $"{outcome.Name} {outcome.Token}")
            |> String.concat ", "

        let tags = String.concat "," market.Tags
        $"market {market.Market} {market.Slug} of '{market.Event}' {market.Status} winner '{market.Winner}' tick {market.TickSize} volume {market.Volume} end {market.End} tags {tags}\n  {outcomes}"
    | MarketEvent.Gap gap -> $"gap {gap.Since} {gap.Cause}"

let private found (path: string) =
    let events = Collections.Generic.List<string>()
    let report = Recordings.read [ path ] (line >> events.Add)

    [
        for finding in report.Findings do
            $"{finding.Class} {finding.Kind}: {finding.Count} values, {finding.Rows} rows"

            for reason in finding.Reasons do
                let place = reason.Place.Replace(path, "")
                $"  {place} {reason.Text}"

        yield! events
    ]
    |> String.concat "\n"

[<TestCaseSource(nameof payloads)>]
let ``a payload gives the events beside it`` (name: string) =
    let path = Path.Combine(fixtures, name)
    let beside = path.Replace(".json", ".expected.txt")

    if Environment.GetEnvironmentVariable "TRIBUTARY_GOLDEN" = "write" then
        File.WriteAllText(beside, found path + "\n")

    equal (File.ReadAllText beside) (found path + "\n")
