// Prints the order book of a token at any recorded moment, or between which moments it is not known, and why.
// Needs the library: dotnet fsi build.fsx build

#load "shared.fsx"

open System
open Tributary
open Shared

let usage =
    "dotnet fsi scripts/book.fsx SLUG [OPTIONS]
  SLUG             the market
  --outcome NAME   such as No (the market's first)
  --at WHEN        a duration back such as 6h, or a time such as 2026-11-01T12:00:00Z (the newest known book)
  --depth N        levels of each side (10)
  --store STORE    a SQLite file, or a configuration string of QuestDB (as the configuration says)"

let options, words = parse usage [ "--outcome"; "--at"; "--depth"; "--store" ]

let slug =
    match words with
    | [ slug ] -> slug
    | _ -> refuse 2 $"One market, please.\n{usage}"

let depth = number usage options "--depth" 10

let show (side: string) (levels: Level[]) =
    for level in levels do
        printfn "%s  %10O  %16O" side level.Price level.Size

reading (settings usage options) (fun store -> task {
    let! market = marketOf store slug
    let token = (outcomeOf usage options market).Token
    let! extent = Rebuild.extent store token.Value
    let! struct (newest, book) = Rebuild.newestBook store extent
    let moment = edge usage options "--at" newest

    let! answer = task {
        if moment = newest then
            return book
        else
            return! Rebuild.bookAt store extent moment
    }

    match answer with
    | BookAt.NotKnown(since, until, why) ->
        let text edge =
            edge |> ValueOption.map string |> ValueOption.defaultValue "…"

        refuse 1 $"not known from {text since} to {text until}: {why}"
    | BookAt.Known book ->
        printfn $"{slug} at {moment}: last changed {book.At}, {Verdict.text book.Verdict}"
        show "ask" (Array.rev (Array.truncate depth book.Asks))
        show "bid" (Array.truncate depth book.Bids)
})
