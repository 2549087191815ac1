// Writes the stored trades of a market to files, one for each day (UTC), gzipped, with a file of digests that `sha256sum -c` checks.
// The same store gives the same bytes. Needs the library: dotnet fsi build.fsx build

#load "shared.fsx"

open System.Collections.Generic
open System.IO
open Tributary
open Tributary.Stores
open Shared

let usage =
    "dotnet fsi scripts/export.fsx SLUG FOLDER [OPTIONS]
  --format csv|jsonl   (csv)
  --since WHEN         a duration back such as 30d, or a time such as 2026-11-01T00:00:00Z (the first)
  --until WHEN         (the last)
  --store STORE        a SQLite file, or a configuration string of QuestDB (as the configuration says)"

let options, words = parse usage [ "--format"; "--since"; "--until"; "--store" ]

let since = edge usage options "--since" Query.everything.Since
let until = edge usage options "--until" Query.everything.Until

let slug, folder, format =
    match words, options.TryFind "--format" |> Option.defaultValue "csv" with
    | [ slug; folder ], ("csv" | "jsonl" as format) -> slug, folder, format
    | [ _; _ ], other -> refuse 2 $"--format takes csv or jsonl; got '{other}'\n{usage}"
    | _ -> refuse 2 $"A market and a folder, please.\n{usage}"

let days = SortedDictionary<string, List<string>>()

let add (trade: Trade) =
    let day = (string trade.At).Substring(0, 10)
    days.TryAdd(day, List()) |> ignore
    days[day].Add(if format = "csv" then csv trade else json trade)

reading (settings usage options) (fun store -> eachPart store slug since until (List.iter add))

let digests = [
    for KeyValue(day, lines) in days do
        printfn $"{slug}-{day}.{format}.gz: {lines.Count} trades"

        pack
            folder
            $"{slug}-{day}.{format}.gz"
            (if format = "csv" then
                 Seq.append [ header ] lines
             else
                 lines)
]

File.WriteAllText(Path.Combine(folder, $"{slug}.sha256"), String.concat "" digests)
