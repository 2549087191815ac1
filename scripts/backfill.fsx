// Reads the past trades of one market into a store. What was read is not asked for again: after an interruption, type the same once more.
// Needs the library: dotnet fsi build.fsx build

#load "shared.fsx"

open System
open System.Threading
open Tributary
open Shared

let usage =
    "dotnet fsi scripts/backfill.fsx SLUG [OPTIONS]
  SLUG                  the market: the last part of its page's address
  --since WHEN          how far back: a duration such as 6h, or a time such as 2026-11-01T12:00:00Z (the first trade)
  --store STORE         a SQLite file, or a configuration string of QuestDB (as the configuration says)
  --exchange-url URL    ask here instead, such as the address that 'tributary simulate' prints"

let options, words = parse usage [ "--since"; "--store"; "--exchange-url" ]

let slug =
    match words with
    | [ slug ] -> slug
    | _ -> refuse 2 $"One market, please.\n{usage}"

let since = edge usage options "--since" (Instant.ofSeconds 0L)

let configured = settings usage options

let say = {
    new IProgress<BackfillProgress> with
        member _.Report progress =
            let at = progress.Oldest |> ValueOption.map string |> ValueOption.defaultValue "now"

            printfn
                $"{progress.Slug} ({progress.Source}): {progress.Pages} pages, {progress.Rows} trades, {progress.NewRows} new, back to {at}"
}

let outcome =
    storing configured (fun store ->
        Backfill.run
            configured.Collectors.Head
            (Setup.rules configured.Validation)
            store
            TimeProvider.System
            Logs.none
            {
                BackfillOrder.everything [ Selection.Slug slug ] with
                    Since = since
            }
            say
            CancellationToken.None)

match outcome with
| Error fault -> refuse 1 (string fault)
| Ok results ->
    match results |> List.tryFind (_.IsDone >> not) with
    | Some result -> refuse 1 $"incomplete: {result.Error}"
    | None -> printfn "read since %O" since
