/// `tributary completions`: scripts that complete the command line in a shell. They are made from the argument types and the lists
/// that the commands themselves check against, so that they say what this very program takes.
module Tributary.Cli.Completions

open System
open System.Threading.Tasks
open Argu
open FSharp.Reflection
open Tributary
open Tributary.Cli.Arguments
open Tributary.Cli.Terminal
open Tributary.Server.Simulator

/// What stands behind an option, or on its own behind a command.
[<RequireQualifiedAccess>]
type Value =
    | Nothing
    /// A file or a folder.
    | Path
    | OneOf of string list
    /// With commas between them.
    | SeveralOf of string list
    /// What only the person knows, such as a slug or a duration.
    | Free

/// An option, with every name that it goes by.
type Option = {
    Names: string list
    About: string
    Value: Value
    MayRepeat: bool
}

type Command = {
    Name: string
    About: string
    Options: Option list
    /// What it takes beside options.
    Operand: Value
}

type CommandLine = {
    /// What every command takes.
    Common: Option list
    Commands: Command list
}

/// The values of options whose type is a text: command (`*` is all of them), option, and the list that its command checks against.
let enumerated =
    let orAllOrNone names = names @ [ "all"; "none" ]
    let faults = Value.SeveralOf(FaultSwitch.all |> List.map snd |> orAllOrNone)

    let exchanges = Setup.known |> List.map _.Name
    let venues = Venue.all |> List.map snd

    let sources =
        (Settings.defaults Setup.known).Collectors
        |> List.collect (fun collector -> (Setup.collector collector).History |> List.map _.Name)
        |> List.distinct

    [
        "*", "--log-level", Value.OneOf levelNames
        "backfill", "--source", Value.SeveralOf sources
        "tap", "--kind", Value.SeveralOf Tapping.kinds
        "simulate", "--faults", faults
        "simulate", "--stream-faults", Value.SeveralOf(StreamFault.all |> List.map snd |> orAllOrNone)
        "demo", "--faults", faults
        "demo", "--store", Value.OneOf Demo.stores
        "demo", "--exchanges", Value.SeveralOf(venues @ [ "all" ])

        for command in [ "start"; "backfill"; "doctor"; "tap"; "markets" ] do
            command, "--exchange", Value.OneOf exchanges

        "simulate", "--exchange", Value.OneOf venues
    ]

/// The first words of a usage line: up to its first semicolon or example.
let private about (usage: string) =
    let ends =
        [ "; "; ", such as"; ", or "; ": " ]
        |> List.map (fun mark -> usage.IndexOf(mark, StringComparison.Ordinal))
        |> List.filter (fun at -> at > 0)

    usage.Substring(0, List.fold min usage.Length ends).TrimEnd '.'

let private valueOf command (case: ArgumentCaseInfo) =
    let known =
        enumerated
        |> List.tryFind (fun (where, name, _) ->
            (where = "*" || where = command)
            && List.contains name case.CommandLineNames.Value)

    match known, List.ofArray (case.UnionCaseInfo.GetFields()) with
    | _, [] -> Value.Nothing
    | Some(_, _, values), _ -> values
    | None, field :: _ when FSharpType.IsUnion field.PropertyType && not field.PropertyType.IsGenericType ->
        FSharpType.GetUnionCases field.PropertyType
        |> Array.map _.Name.ToLowerInvariant()
        |> List.ofArray
        |> Value.OneOf
    | None, field :: _ when List.contains field.Name [ "path"; "file"; "folder" ] -> Value.Path
    | _ -> Value.Free

let private optionsOf command (cases: ArgumentCaseInfo list) = [
    for case in cases do
        if
            case.ArgumentType <> ArgumentType.SubCommand
            && not case.IsMainCommand
            && not case.IsHidden.Value
        then
            {
                Names = case.CommandLineNames.Value
                About = about case.Description.Value
                Value = valueOf command case
                MayRepeat = not case.IsUnique.Value
            }
]

/// Everything that the command line takes.
let read () : CommandLine =
    let parser = ArgumentParser.Create<Arguments>(checkStructure = false)

    let common =
        optionsOf "*" (parser.GetArgumentCases())
        @ [
            {
                Names = parser.HelpFlags
                About = "what there is"
                Value = Value.Nothing
                MayRepeat = false
            }
        ]

    let isCommon (option: Option) =
        common |> List.exists (fun one -> one.Names.Head = option.Names.Head)

    {
        Common = common
        Commands = [
            for nested in parser.GetSubCommandParsers() do
                match nested.ParentInfo with
                | None -> ()
                | Some case ->
                    let name = case.CommandLineNames.Value.Head
                    let cases = nested.GetArgumentCases()

                    {
                        Name = name
                        About = about case.Description.Value
                        Options = optionsOf name cases |> List.filter (isCommon >> not)
                        Operand =
                            cases
                            |> List.tryFind _.IsMainCommand
                            |> Option.map (valueOf name)
                            |> Option.defaultValue Value.Nothing
                    }
        ]
    }

let private joined (separator: string) (texts: string seq) = String.Join(separator, texts)
let private spaced = joined " "
let private isLong (name: string) = name.StartsWith "--"

let private longNames options =
    options |> List.collect _.Names |> List.filter isLong

// ---------------------------------------------------------------------------------------------------------------------------

/// For bash from 3.2 on, with or without its package of completions.
let bash (line: CommandLine) =
    let asks (command: string) (option: Option) =
        let patterns =
            option.Names |> List.map (fun name -> $"{command}' {name}'") |> joined " | "

        match option.Value with
        | Value.Nothing -> None
        | Value.Path -> Some $"        {patterns}) kind=path ;;"
        | Value.OneOf values -> Some $"        {patterns}) kind=one words='{spaced values}' ;;"
        | Value.SeveralOf values -> Some $"        {patterns}) kind=several words='{spaced values}' ;;"
        | Value.Free -> Some $"        {patterns}) return ;;"

    let takes (command: Command) =
        let options = spaced (longNames (command.Options @ line.Common))

        match command.Operand with
        | Value.OneOf values -> $"        {command.Name}) words='{spaced values} {options}' ;;"
        | Value.Path -> $"        {command.Name}) words='{options}'; [[ $word == -* ]] || kind=path ;;"
        | _ -> $"        {command.Name}) words='{options}' ;;"

    let names = line.Commands |> List.map _.Name
    let anyName = joined "|" names

    joined "\n" [
        "# Completes tributary in bash: source <(tributary completions bash)"
        "_tributary() {"
        "    local IFS=$' \\t\\n' word=${COMP_WORDS[COMP_CWORD]} command= kind= words= before= i"
        "    COMPREPLY=()"
        "    for ((i = 1; i < COMP_CWORD; i++)); do"
        "        case ${COMP_WORDS[i]} in"
        $"            {anyName}) command=${{COMP_WORDS[i]}}; break ;;"
        "        esac"
        "    done"
        "    # The word before may ask for a value; otherwise come options, and what the command takes beside them."
        "    case \"$command ${COMP_WORDS[COMP_CWORD-1]}\" in"
        yield! line.Common |> List.choose (asks "*")

        for command in line.Commands do
            yield! command.Options |> List.choose (asks command.Name)

        "    esac"
        "    [[ $kind ]] || case $command in"
        $"        '') words='{spaced names} {spaced (longNames line.Common)} --version' ;;"
        yield! line.Commands |> List.map takes
        "    esac"
        "    case $kind in"
        "        path)"
        "            compopt -o filenames 2> /dev/null"
        "            IFS=$'\\n'"
        "            COMPREPLY=($(compgen -f -- \"$word\")) ;;"
        "        several)"
        "            [[ $word == *,* ]] && before=${word%,*},"
        "            COMPREPLY=($(compgen -P \"$before\" -W \"$words\" -- \"${word##*,}\")) ;;"
        "        *)"
        "            COMPREPLY=($(compgen -W \"$words\" -- \"$word\")) ;;"
        "    esac"
        "}"
        "complete -F _tributary tributary"
        ""
    ]

/// For zsh: sourced after `compinit`, or as the file `_tributary` in a folder of `fpath`.
let zsh (line: CommandLine) =
    // Between single quotes, where brackets and colons mean something.
    let escaped (text: string) =
        text
            .Replace("\\", "\\\\")
            .Replace("[", "\\[")
            .Replace("]", "\\]")
            .Replace(":", "\\:")
            .Replace("'", "'\\''")

    let action label value =
        match value with
        | Value.Nothing -> ""
        | Value.Path -> $":{label}:_files"
        | Value.OneOf values -> $":{label}:({spaced values})"
        | Value.SeveralOf values -> $":{label}: _values -s , {label} {spaced values}"
        | Value.Free -> $":{label}: "

    let specs (option: Option) = [
        let label = (List.last (List.filter isLong option.Names)).Trim '-'

        for name in option.Names do
            let others = if option.MayRepeat then "*" else $"({spaced option.Names})"

            $"'{others}{name}[{escaped option.About}]{action label option.Value}'"
    ]

    let operand value =
        match value with
        | Value.Nothing
        | Value.Free -> []
        | Value.Path -> [ "'*:path:_files'" ]
        | value -> [ "'1" + action "value" value + "'" ]

    joined "\n" [
        "#compdef tributary"
        "# Completes tributary in zsh: source <(tributary completions zsh)"
        "_tributary() {"
        "    local curcontext=\"$curcontext\" state line ret=1"
        "    typeset -A opt_args"
        "    local -a common commands"
        "    common=("
        for option in line.Common do
            yield! specs option |> List.map (fun spec -> $"        {spec}")
        "    )"
        "    commands=("
        for command in line.Commands do
            $"        '{command.Name}:{escaped command.About}'"
        "    )"
        "    _arguments -C $common '(- *)--version[the version]' '1: :->command' '*:: :->rest' && ret=0"
        "    case $state in"
        "        command) _describe -t commands command commands && ret=0 ;;"
        "        rest)"
        "            case $words[1] in"
        for command in line.Commands do
            let all = (command.Options |> List.collect specs) @ operand command.Operand
            $"                {command.Name}) _arguments $common {spaced all} && ret=0 ;;"
        "            esac ;;"
        "    esac"
        "    return ret"
        "}"
        "if [[ $funcstack[1] == _tributary ]]; then _tributary \"$@\"; else compdef _tributary tributary; fi"
        ""
    ]

/// For fish from 3.0 on: sourced, or as `tributary.fish` in its folder of completions.
let fish (line: CommandLine) =
    let quoted (text: string) =
        "'" + text.Replace("\\", "\\\\").Replace("'", "\\'") + "'"

    let value value =
        match value with
        | Value.Nothing -> ""
        | Value.Path -> " -r -F"
        | Value.OneOf values -> $" -x -a {quoted (spaced values)}"
        | Value.SeveralOf values ->
            let list = $"(__tributary_list {spaced values})"
            $" -x -a {quoted list}"
        | Value.Free -> " -x"

    let names (option: Option) =
        option.Names
        |> List.map (fun name ->
            if isLong name then
                $" -l {name.Substring 2}"
            else
                $" -s {name.Substring 1}")
        |> joined ""

    let complete condition (option: Option) =
        $"complete -c tributary{condition}{names option}{value option.Value} -d {quoted option.About}"

    let behind (command: Command) =
        $" -n '__fish_seen_subcommand_from {command.Name}'"

    joined "\n" [
        "# Completes tributary in fish: tributary completions fish | source"
        "function __tributary_list"
        "    set -l before (commandline -ct | string match -r '^.*,')"
        "    for value in $argv"
        "        echo \"$before$value\""
        "    end"
        "end"
        "complete -c tributary -e"
        "complete -c tributary -f"
        yield! line.Common |> List.map (complete "")
        "complete -c tributary -n '__fish_use_subcommand' -l version -d 'the version'"

        for command in line.Commands do
            $"complete -c tributary -n '__fish_use_subcommand' -a {quoted command.Name} -d {quoted command.About}"

        for command in line.Commands do
            match command.Operand with
            | Value.OneOf values -> $"complete -c tributary{behind command} -a {quoted (spaced values)}"
            | Value.Path -> $"complete -c tributary{behind command} -F"
            | _ -> ()

            yield! command.Options |> List.map (complete (behind command))

        ""
    ]

let completions (arguments: ParseResults<CompletionsArguments>) =
    let script =
        match arguments.GetResult CompletionsArguments.Shell with
        | Shell.Bash -> bash
        | Shell.Zsh -> zsh
        | Shell.Fish -> fish

    Console.Write(script (read ()))
    Task.FromResult Exit.Done
