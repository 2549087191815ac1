// What the scripts share. "Unable to find the file"? The library is not built yet. Type: dotnet fsi build.fsx build
// NOTE: SQLite's own library is found below a folder that is named by #I, and not below that of a longer #r.
#I "../src/Tributary/bin/Release/net10.0"
#r "Tributary.Core.dll"
#r "Tributary.dll"
#r "Microsoft.Extensions.Logging.Abstractions.dll"

open System
open System.IO
open System.Threading.Tasks
open Microsoft.Extensions.Logging.Abstractions
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
        | "--store" -> Setup.storingAt value settings
        | "--exchange-url" when value.StartsWith "http" && Uri.IsWellFormedUriString(value, UriKind.Absolute) ->
            Setup.askingAt (Uri value) settings
        | "--exchange-url" -> refuse 2 $"'{value}' is not an address such as http://127.0.0.1:8080\n{usage}"
        | _ -> settings

    match Setup.read (Some(Path.Combine(__SOURCE_DIRECTORY__, "..", "config"))) with
    | Ok settings -> options |> Map.fold change settings
    | Error mistakes -> mistakes |> List.map Mistake.render |> String.concat "\n" |> refuse 78

/// Opens the store, does the work, and closes the store whatever happens. Ctrl-C may end it anywhere: what is stored stays.
let storing (settings: Settings) (work: Store -> Task<'a>) : 'a =
    match Setup.openStore settings TimeProvider.System NullLogger.Instance with
    | Error fault -> refuse 1 (string fault)
    | Ok store ->
        try
            (work store).GetAwaiter().GetResult()
        finally
            store.Close().AsTask().Wait()
