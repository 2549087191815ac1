// What is recorded of each market and day, as a calendar: █ complete, ▓ degraded, ░ degraded and without a fill, · missing.
// Needs the library: dotnet fsi build.fsx build

#load "shared.fsx"

open System
open System.Threading
open Tributary
open Shared

let usage =
    "dotnet fsi scripts/coverage.fsx [SLUG…] [OPTIONS]
  SLUG…           these markets (all that are stored)
  --since WHEN    a duration back such as 90d, or a time such as 2026-11-01T00:00:00Z (60d)
  --store STORE   a SQLite file, or a configuration string of QuestDB (as the configuration says)"

let options, slugs = parse usage [ "--since"; "--store" ]
let since = moment usage (options.TryFind "--since" |> Option.defaultValue "60d")
let configured = settings usage options
let until = Instant.ofDateTimeOffset DateTimeOffset.UtcNow

let mark (day: AuditedDay) =
    match day.Verdict with
    | DayVerdict.Complete -> '█'
    | DayVerdict.Degraded _ when day.Tally.Api.Fills + day.Tally.Chain.Fills + day.Tally.Stream.Fills > 0L ->
        '▓'
    | DayVerdict.Degraded _ -> '░'
    | DayVerdict.Missing _ -> '·'

let date (at: Instant) = (string at).Substring(0, 10)

reading configured (fun store -> task {
    let! audited =
        Audits.run
            (Setup.collector configured.Collectors.Head)
            store
            (fun market -> slugs.IsEmpty || List.contains market.Slug slugs)
            { Since = since; Until = until }
            TimeProvider.System
            ignore
            CancellationToken.None

    if audited.IsEmpty then
        refuse 1 "nothing is stored of these markets: 'tributary status' lists what is"

    for market in audited do
        match market.Days with
        | [] -> printfn $"{market.Market.Slug}: no day since {date since}"
        | days ->
            printfn
                $"{market.Market.Slug}  {date days.Head.Day} to {date (List.last days).Day}, a week is a line"

            for week in List.chunkBySize 7 days do
                printfn "  %s  %s" (date week.Head.Day) (String [| for day in week -> mark day |])

            for verdict, count in days |> List.countBy (fun day -> string day.Verdict) do
                printfn $"  {count} days {verdict}"
})
