/// The command `tributary`: understands the arguments, runs one command, and turns what goes wrong into a line and an exit code.
module Tributary.Cli.Program

open System
open System.Reflection
open Argu
open Tributary.Cli.Arguments
open Tributary.Cli.Terminal

/// NOTE: lazy, because reading all the unions takes longer than everything else that `--version` does.
let private parser =
    lazy
        ArgumentParser.Create<Arguments>(
            programName = "tributary",
            helpTextMessage =
                "Tributary records prediction-market data, and says exactly what it has and what it has not.\n\n"
                + "Exit codes: 0 done, 1 failed, 2 wrong arguments, 78 invalid configuration, 130 stopped by Ctrl-C.\n",
            checkStructure = false
        )

let private version =
    match Assembly.GetExecutingAssembly().GetName().Version with
    | null -> "unknown"
    | version -> version.ToString 3

let private run (arguments: ParseResults<Arguments>) =
    let common: Commands.Common = {
        Level = arguments.TryGetResult Arguments.Log_Level
        Verbose = arguments.Contains Arguments.Verbose
    }

    match common.Level with
    | Some level when not (List.contains level levelNames) ->
        let names = String.concat ", " levelNames
        refuse Exit.Usage $"there is no log level '{level}': {names} are the levels"
    | _ -> ()

    match arguments.GetSubCommand() with
    | Start arguments -> Commands.start common arguments
    | Backfill arguments -> Backfilling.backfill common arguments
    | Audit arguments -> Auditing.audit common arguments
    | Validate_Config arguments -> Commands.validateConfig common arguments
    | Top arguments -> Watching.top common arguments
    | Alerts arguments -> Commands.alerts common arguments
    | Doctor arguments -> Examining.doctor common arguments
    | Status arguments -> Commands.status common arguments
    | Compact arguments -> Compacting.compact common arguments
    | Book arguments -> Books.book common arguments
    | Tap arguments -> Tapping.tap common arguments
    | Markets arguments -> Commands.markets common arguments
    | Match arguments -> Pairing.pairing common arguments
    | Exchanges arguments -> Exchanging.exchanges arguments
    | Decode arguments -> Decoding.decode arguments
    | Simulate arguments -> Commands.simulate common arguments
    | Demo arguments -> Demo.demo common arguments
    | Completions arguments -> Completions.completions arguments
    | Log_Level _
    | Verbose -> refuse Exit.Usage (parser.Value.PrintUsage())

/// The first line of what the parser says: the rest is the whole usage, which a slip of the finger does not need.
let private firstLine (message: string) =
    let line = message.ReplaceLineEndings("\n").Split('\n')[0]
    if line.StartsWith "ERROR: " then line.Substring 7 else line

[<EntryPoint>]
let main argv =
    // What people type for --help anywhere.
    let argv =
        argv
        |> Array.map (fun word -> if word = "-h" || word = "-?" then "--help" else word)

    let argv = if argv = [| "help" |] then [| "--help" |] else argv
    let isVerbose = argv |> Array.exists (fun word -> word = "--verbose" || word = "-v")

    try
        if argv = [| "--version" |] then
            Console.WriteLine $"tributary {version}"
            Exit.Done
        else
            let arguments = parser.Value.ParseCommandLine(argv, raiseOnUsage = true)
            (run arguments).GetAwaiter().GetResult()
    with
    | :? ArguParseException as error when error.ErrorCode = ErrorCode.HelpText ->
        Console.WriteLine error.Message
        Exit.Done
    | :? ArguParseException as error ->
        let command =
            match Array.tryHead argv with
            | Some word when not (word.StartsWith '-') && not (error.Message.Contains $"'{word}'") ->
                $" {word}"
            | _ -> ""

        eprintfn "tributary: %s ('tributary%s --help' lists what there is)" (firstLine error.Message) command
        Exit.Usage
    | Refused(code, message) ->
        eprintfn "tributary: %s" message
        code
    | :? OperationCanceledException -> Exit.Interrupted
    | error ->
        if isVerbose then
            eprintfn "%O" error
        else
            eprintfn "tributary: %s (--verbose shows where)" error.Message

        Exit.Failed
