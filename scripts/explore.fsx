// The busiest markets of a store; of one, its candles (open, high, low, close, volume) with the mean spread, a line of bars, a plot as SVG.
// Needs the library: dotnet fsi build.fsx build

#load "shared.fsx"

open Tributary
open Tributary.Stores
open Shared

let usage =
    "dotnet fsi scripts/explore.fsx [SLUG] [OPTIONS]
  SLUG             a market (without: the ten with the most trades)
  --outcome NAME   of this outcome (the market's first)
  --every SPAN     the length of a candle (1h)
  --since WHEN     a duration back such as 30d, or a time such as 2026-11-01T00:00:00Z (the first trade)
  --plot FILE      writes the closing prices as SVG
  --store STORE    a SQLite file, or a configuration string of QuestDB (as the configuration says)"

let options, words =
    parse usage [ "--outcome"; "--every"; "--since"; "--plot"; "--store" ]

let since = edge usage options "--since" Query.everything.Since
let every = span usage options "--every" "1h"

let explore store slug = task {
    let! market = marketOf store slug
    let outcome = outcomeOf usage options market
    let! fills = fillsOf store slug since
    let! spreads = spreadsOf store outcome.Token since every

    let candles =
        fills
        |> List.filter (fun trade -> trade.Outcome = outcome.Name)
        |> candlesOf every

    for at, prices, volume in candles do
        let candle = $"{prices.Head} {List.max prices} {List.min prices} {List.last prices}"
        printfn $"{Instant.ofMicros at}  {candle}  {volume:F2}  {spreadText (spreads.TryFind at)}"

    match candles |> List.map (fun (_, prices, _) -> List.last prices) with
    | [] -> refuse 1 $"no trade of {outcome.Name} is stored since then"
    | closes ->
        printfn "%s" (sparkline (List.map float closes))
        options.TryFind "--plot" |> Option.iter (fun file -> plot file closes)
}

let busiest (store: Store) = task {
    let! status = store.Status()

    for one in status.Markets |> List.sortByDescending _.Trades |> List.truncate 10 do
        printfn $"{one.Trades, 9} trades  {one.Books, 7} books  {one.Slug}"
}

match words with
| [] -> reading (settings usage options) busiest
| [ slug ] -> reading (settings usage options) (fun store -> explore store slug)
| _ -> refuse 2 $"One market at most, please.\n{usage}"
