// What the scripts share. Without a clone, from the package, the next line is: #r "nuget: Tributary, 0.1.0"
#load "built-by-dotnet-fsi-build.fsx-build.fsx"

open System
open System.IO
open System.IO.Compression
open System.Security.Cryptography
open System.Text.Json
open System.Threading.Tasks
open Tributary
open Tributary.Stores

/// Ends the script with a sentence and an exit code: 1 failed, 2 usage, 78 configuration invalid, as the command line has them.
let refuse code (message: string) : 'a =
    eprintfn "%s" message
    exit code

/// The script's arguments: values of options by name, and the other words in order. What is no option is answered with the usage.
let parse (usage: string) (options: string list) : Map<string, string> * string list =
    let rec read found rest words =
        match words with
        | [] -> found, List.rev rest
        | ("--help" | "-h") :: _ ->
            printfn "%s" usage
            exit 0
        | (name: string) :: value :: words when List.contains name options ->
            read (Map.add name value found) rest words
        | name :: _ when name.StartsWith '-' -> refuse 2 $"{name}: no such option, or no value\n{usage}"
        | word :: words -> read found (word :: rest) words

    fsi.CommandLineArgs |> List.ofArray |> List.tail |> read Map.empty []

/// A duration back from now such as `6h`, or a time such as `2026-11-01T12:00:00Z`.
let moment usage (text: string) : Instant =
    let mutable found = Instant.ofMicros 0L

    match Yaml.tryDuration text with
    | Some back -> Instant.ofDateTimeOffset (DateTimeOffset.UtcNow - back)
    | None when Instant.tryIso (ReadOnlySpan(Text.Encoding.UTF8.GetBytes text)) &found -> found
    | None ->
        refuse 2 $"'{text}' is neither a duration such as 6h nor a time such as 2026-11-01T12:00:00Z\n{usage}"

/// The project's configuration with what `--store` and `--exchange-url` say instead.
let settings usage (options: Map<string, string>) : Settings =
    let change settings name (value: string) =
        match name with
        | "--store" when value.StartsWith "http" && value.Contains "::" ->
            match Setup.sendingTo false value settings with
            | Ok settings -> settings
            | Error message -> refuse 2 $"--store: {message}\n{usage}"
        | "--store" -> Setup.storingAt value settings
        | "--exchange-url" when value.StartsWith "http" && Uri.IsWellFormedUriString(value, UriKind.Absolute) ->
            Setup.askingAt (Uri value) settings
        | "--exchange-url" -> refuse 2 $"'{value}' is not an address such as http://127.0.0.1:8080\n{usage}"
        | _ -> settings

    match Setup.read (Some(Path.Combine(__SOURCE_DIRECTORY__, "..", "config"))) with
    | Ok settings -> options |> Map.fold change settings
    | Error mistakes -> mistakes |> List.map Mistake.render |> String.concat "\n" |> refuse 78

/// Does the work with a store that was opened, and closes it whatever happens. Ctrl-C may end it anywhere: what is stored stays.
let private using (opened: Result<Store, OpenFault>) (work: Store -> Task<'a>) : 'a =
    match opened with
    | Error fault -> refuse 1 (string fault)
    | Ok store ->
        try
            (work store).GetAwaiter().GetResult()
        finally
            store.Close().AsTask().Wait()

/// The store that `--store` names, or the configuration, to write to.
let storing (settings: Settings) work =
    using (Setup.openStore settings TimeProvider.System Logs.none) work

/// The same to read, also while a collector writes to it.
let reading (settings: Settings) work =
    using (Setup.openStoreToRead settings) work

/// The stored market of a slug.
let marketOf (store: Store) (slug: string) : Task<Market> = task {
    let! markets = store.Markets()

    return
        match markets |> List.tryFind (fun market -> market.Slug = slug) with
        | Some market -> market
        | None -> refuse 1 $"nothing is stored of '{slug}': 'tributary status' lists what is"
}

/// The rows that a query is about, oldest first, a part at a time.
let private allParts read at (query: Query) (part: 'row list -> unit) : Task<unit> = task {
    let mutable next = ValueSome query.Since

    while next.IsSome do
        let! struct (rows, following) =
            InParts.next read at { query with Since = next.Value }

        part rows
        next <- following
}

/// The stored trades of a market, oldest first, a part at a time. Of a fill that several sources told of each sighting is one.
let eachPart (store: Store) (slug: string) since until (part: Trade list -> unit) : Task<unit> = task {
    let! market = marketOf store slug

    do!
        allParts
            store.Trades
            _.At
            {
                Query.everything with
                    Exchange = ValueSome market.Exchange
                    Market = ValueSome market.Market
                    Since = since
                    Until = until
            }
            part
}

/// The mean spread of the whole books of a token, and how many they are, by the beginning of each span of so many microseconds. A book
/// whose proof disagreed, and one with an empty side, have none.
let spreadsOf (store: Store) token since (every: int64) : Task<Map<int64, decimal * int>> = task {
    let mutable found = Map.empty

    let add (book: OrderBookSnapshot) =
        match book.Spread with
        | ValueSome spread when book.Verdict <> Verdict.Mismatched ->
            let span = book.At.Micros / every * every
            let sum, count = found |> Map.tryFind span |> Option.defaultValue (0m, 0)
            found <- found |> Map.add span (sum + decimal spread / 1_000_000m, count + 1)
        | _ -> ()

    do!
        allParts
            store.Books
            _.At
            {
                Query.everything with
                    Token = token
                    Since = since
            }
            (List.iter add)

    return found |> Map.map (fun _ (sum, count) -> sum / decimal count, count)
}

/// The fills of a market, each once as in the view `fills`: no maker's part, and no sighting that is linked to another one that counts.
let fillsOf (store: Store) (slug: string) (since: Instant) : Task<Trade list> = task {
    let! links = store.Links()
    let others = links |> List.map _.Other |> Set.ofList

    let counts (trade: Trade) =
        trade.Flags &&& Flags.Maker = Flags.None && not (others.Contains trade.Id)

    let found = ResizeArray<Trade>()
    do! eachPart store slug since Query.everything.Until (List.filter counts >> found.AddRange)
    return List.ofSeq found
}

let price (trade: Trade) =
    decimal trade.Price.Millionths / 1_000_000m

let spreadText =
    function
    | Some(mean: decimal, books: int) -> $"spread {mean:F4} of {books} books"
    | None -> "no book"

/// The prices of trades, in their order, and what was paid, by the beginning of each span of so many microseconds.
let candlesOf (every: int64) (trades: Trade list) : (int64 * decimal list * decimal) list =
    trades
    |> List.groupBy (fun trade -> trade.At.Micros / every * every)
    |> List.map (fun (at, trades) -> at, List.map price trades, trades |> List.sumBy _.Value)

/// A duration in microseconds, or its default.
let span usage (options: Map<string, string>) (name: string) (default': string) =
    match options.TryFind name |> Option.defaultValue default' |> Yaml.tryDuration with
    | Some span when span > TimeSpan.Zero -> span.Ticks / 10L
    | _ -> refuse 2 $"{name} takes a duration such as 1h\n{usage}"

/// A line of bars, the highest of which is the largest value.
let sparkline (values: float list) =
    let least, most = List.min values, List.max values
    let bars = "▁▂▃▄▅▆▇█"

    values
    |> List.map (fun value ->
        bars[if most > least then
                 int ((value - least) / (most - least) * 7.0)
             else
                 3])
    |> Array.ofList
    |> String

/// A whole number from 1 on, or its default.
let number usage (options: Map<string, string>) (name: string) (default': int) =
    match options.TryFind name |> Option.map Int32.TryParse with
    | None -> default'
    | Some(true, number) when number > 0 -> number
    | Some _ -> refuse 2 $"{name} takes a number from 1 on\n{usage}"

/// The moment that an option names, or its default.
let edge usage (options: Map<string, string>) (name: string) (default': Instant) =
    options.TryFind name
    |> Option.map (moment usage)
    |> Option.defaultValue default'

/// The outcome that `--outcome` names, or the market's first.
let outcomeOf usage (options: Map<string, string>) (market: Market) : Outcome =
    let isIt (outcome: Outcome) =
        options.TryFind "--outcome" |> Option.forall ((=) outcome.Name)

    match market.Outcomes |> Array.tryFind isIt with
    | Some outcome -> outcome
    | None ->
        let names = market.Outcomes |> Array.map _.Name |> String.concat ", "
        refuse 2 $"'{market.Slug}' has the outcomes {names}\n{usage}"

/// Prices from 0 to 1 as a line.
let plot (file: string) (prices: decimal list) =
    let point i (price: decimal) =
        let x = float i * 800.0 / float (max 1 (prices.Length - 1))
        $"{x:F1},{200.0 - float price * 200.0:F1}"

    let points = prices |> List.mapi point |> String.concat " "

    File.WriteAllText(
        file,
        $"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 800 200'><polyline fill='none' stroke='black' points='{points}'/></svg>\n"
    )

/// A trade's columns, and their names.
let columns = [
    "at", (fun (trade: Trade) -> string trade.At)
    "token", (fun trade -> string trade.Token)
    "outcome", _.Outcome
    "side", (fun trade -> (string trade.Side).ToLowerInvariant())
    "price", (fun trade -> string trade.Price)
    "size", (fun trade -> string trade.Size)
    "source", (fun trade -> (string trade.Source).ToLowerInvariant())
    "trade_id", (fun trade -> string trade.Id)
    "transaction_hash", _.Transaction
]

/// A value as RFC 4180 has it.
let private escaped (text: string) =
    if text.IndexOfAny [| ','; '"'; '\n'; '\r' |] < 0 then
        text
    else
        "\"" + text.Replace("\"", "\"\"") + "\""

/// The columns' names as a line.
let header = columns |> List.map fst |> String.concat ","

/// A trade as a line of CSV.
let csv (trade: Trade) =
    columns
    |> List.map (fun (_, value) -> escaped (value trade))
    |> String.concat ","

/// A trade as a line of JSON.
let json (trade: Trade) =
    columns
    |> List.map (fun (name, value) -> name, value trade)
    |> dict
    |> JsonSerializer.Serialize

/// Writes lines into a gzip file, the same bytes each time; answers their line for `sha256sum -c`.
let pack (folder: string) (name: string) (lines: string seq) : string =
    use packed = new MemoryStream()

    (use gzip = new GZipStream(packed, CompressionLevel.Optimal, true)

     for line in lines do
         gzip.Write(ReadOnlySpan(Text.Encoding.UTF8.GetBytes(line + "\n"))))

    Directory.CreateDirectory folder |> ignore
    File.WriteAllBytes(Path.Combine(folder, name), packed.ToArray())
    $"{Convert.ToHexStringLower(SHA256.HashData(packed.ToArray()))}  {name}\n"
