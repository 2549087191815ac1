/// The command `tributary`: understands the arguments, runs one command, and turns what goes wrong into a line and an exit code.
module Tributary.Cli.Program

open System
open System.IO
open Argu
open Tributary.Cli.Arguments
open Tributary.Cli.Terminal

let private parser =
    ArgumentParser.Create<Arguments>(programName = "tributary", checkStructure = false)

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
    | Backfill arguments -> Commands.backfill common arguments
    | Validate_Config arguments -> Commands.validateConfig common arguments
    | Status arguments -> Commands.status common arguments
    | Markets arguments -> Commands.markets common arguments
    | Decode arguments -> Decoding.decode arguments
    | Simulate arguments -> Commands.simulate common arguments
    | Demo arguments -> Commands.demo common arguments
    | Log_Level _
    | Verbose -> refuse Exit.Usage (parser.PrintUsage())

[<EntryPoint>]
let main argv =
    let isVerbose = argv |> Array.exists (fun word -> word = "--verbose" || word = "-v")

    try
        let arguments = parser.ParseCommandLine(argv, raiseOnUsage = true)
        (run arguments).GetAwaiter().GetResult()
    with
    | :? ArguParseException as error when error.ErrorCode = ErrorCode.HelpText ->
        Console.WriteLine error.Message
        Exit.Done
    | :? ArguParseException as error ->
        eprintfn "%s" error.Message
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
