/// The completion scripts, in the shells that they are made for. They come from the program itself; zsh and fish are asked where they are
/// installed, and everywhere their scripts are read as far as that goes without them.
module Tributary.Tests.CompletionTests

open System
open System.Diagnostics
open System.IO
open NUnit.Framework
open Tributary.Cli
open Tributary.Cli.Completions

let private read (program: string) (arguments: string list) =
    let info =
        ProcessStartInfo(program, arguments, RedirectStandardOutput = true, RedirectStandardError = true)

    use running = Process.Start info |> Option.ofObj |> Option.get
    let errors = running.StandardError.ReadToEndAsync()
    let output = running.StandardOutput.ReadToEnd()
    running.WaitForExit()
    Assert.That(running.ExitCode, Is.EqualTo 0, output + errors.Result)
    output

let private isInstalled (program: string) =
    string (Environment.GetEnvironmentVariable "PATH")
    |> _.Split(Path.PathSeparator)
    |> Array.exists (fun folder -> File.Exists(Path.Combine(folder, program)))

let private line = Completions.read ()

/// What the program says of a command, or of itself.
let private help (command: string list) =
    read "dotnet" ([ KillTests.program "Tributary.Cli" ] @ command @ [ "--help" ])

/// What the program prints, in a file.
let private script (shell: string) (test: string -> unit) =
    let path = Path.GetTempFileName()

    try
        File.WriteAllText(path, read "dotnet" [ KillTests.program "Tributary.Cli"; "completions"; shell ])
        test path
    finally
        File.Delete path

let private sorted (text: string) =
    text.Split([| '\n'; '\r' |], StringSplitOptions.RemoveEmptyEntries)
    |> Array.map _.Trim()
    |> Array.filter (fun word -> word <> "")
    |> Array.distinct
    |> Array.sort
    |> String.concat " "

/// What bash offers behind these words, the last of which is being typed.
let private inBash path (words: string) =
    let ask =
        "source \"$1\"; shift; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); _tributary; printf '%s\\n' \"${COMPREPLY[@]}\""

    read "bash" ([ "-c"; ask; "bash"; path; "tributary" ] @ List.ofArray (words.Split ' '))

// What is offered behind some words. The same in every shell, but that zsh names no value of a list twice.
let private expected = [
    "sta", "start status"
    "validate", "validate-config"
    "backfill --sou", "--source"
    "backfill --source ", "bets candles chain prices trades v1 v2"
    "backfill --source ch", "chain"
    "demo --store ", "both questdb sqlite"
    "tap --kind ", "book delta gap market trade"
    "--log-level ", "debug error info trace warning"
    "--log-level debug status --st", "--store"
    "status --log-level w", "warning"
    "completions ", "bash fish zsh"
    "alerts t", "test"
]

[<Test; Platform("Linux,MacOsX")>]
let ``bash completes commands, options and values`` () =
    script "bash" (fun path ->
        for words, answer in expected do
            let offered =
                (sorted (inBash path words)).Split ' '
                |> Array.filter (fun word -> words <> "completions " || not (word.StartsWith '-'))
                |> String.concat " "

            Assert.That(offered, Is.EqualTo answer, words)

        equal "v2,prices" (sorted (inBash path "backfill --source v2,p"))
        equal "" (sorted (inBash path "start --market "))
        equal "" (sorted (inBash path "start --for 1"))

        // Files, also with a space in their names.
        let folder = Directory.CreateTempSubdirectory("tributary-completion-").FullName
        File.WriteAllText(Path.Combine(folder, "a b.db"), "")

        equal (Path.Combine(folder, "a b.db")) (sorted (inBash path $"status --store {folder}/a"))
        equal (Path.Combine(folder, "a b.db")) (sorted (inBash path $"decode {folder}/a"))
        Directory.Delete(folder, true))

[<Test; Platform("Linux,MacOsX")>]
let ``the line of the manual works in bash as it stands`` () =
    let program = KillTests.program "Tributary.Cli"

    read "bash" [
        "-c"
        $"tributary() {{ dotnet '{program}' \"$@\"; }}; source <(tributary completions bash); complete -p tributary"
    ]
    |> _.Trim()
    |> equal "complete -F _tributary tributary"

[<Test; Platform("Linux,MacOsX")>]
let ``bash offers every command and every option that there is`` () =
    script "bash" (fun path ->
        let offered = (sorted (inBash path "")).Split ' '

        for command in line.Commands do
            Assert.That(offered, Does.Contain command.Name)
            let options = (sorted (inBash path $"{command.Name} -")).Split ' '

            for option in command.Options @ line.Common do
                for name in option.Names |> List.filter _.StartsWith("--") do
                    Assert.That(options, Does.Contain name, command.Name))

[<Test>]
let ``the help of each command tells of the options and values that are completed`` () =
    Assert.That(line.Commands.Length, Is.GreaterThan 10)
    let whole = help []

    for command in line.Commands do
        Assert.That(whole, Does.Contain $"\n    {command.Name} ")
        let help = help [ command.Name ]

        for option in command.Options @ line.Common do
            for name in option.Names do
                Assert.That(help, Does.Contain name, command.Name)

            match option.Value with
            // The demo refers to the simulator's help for its faults.
            | Value.SeveralOf _ when (command.Name, option.Names) = ("demo", [ "--faults" ]) -> ()
            | Value.OneOf values
            | Value.SeveralOf values ->
                for value in values do
                    Assert.That(help, Does.Contain value, $"{command.Name} {option.Names}")
            | _ -> ()

[<Test>]
let ``values are completed for options that there are`` () =
    for where, name, values in enumerated do
        let options =
            if where = "*" then
                line.Common
            else
                line.Commands |> List.find (fun command -> command.Name = where) |> _.Options

        let option = options |> List.find (fun option -> List.contains name option.Names)
        equal values option.Value

// Presses the tab key in a terminal of its own, and notes what is offered.
let private pressTab =
    """
zmodload zsh/zpty || exit 3
setup=$(mktemp)
cat > $setup <<'IN'
PROMPT=
autoload -Uz compinit
compinit -D -u
source $1
bindkey '^I' complete-word
leave() { exit }
comppostfuncs=(leave)
compadd() {
    local -a found
    builtin compadd -O found "$@"
    print -rl -- $found >> $OFFERED
    builtin compadd "$@"
}
IN
zpty z "OFFERED=$2 zsh -f -i"
zpty -w z "source $setup $1; print rea''dy"
zpty -r z line '*ready*'
zpty -n -w z "tributary $3"$'\t'
while zpty -r z line; do :; done
rm -f $setup
"""

[<Test; Platform("Linux,MacOsX")>]
let ``zsh completes the same`` () =
    script "zsh" (fun path ->
        if isInstalled "zsh" then
            let folder = Directory.CreateTempSubdirectory("tributary-zsh-").FullName
            let program = Path.Combine(folder, "tab.zsh")
            let offered = Path.Combine(folder, "offered")
            File.WriteAllText(program, pressTab)

            for words, answer in expected do
                File.WriteAllText(offered, "")
                read "zsh" [ "-f"; program; path; offered; words ] |> ignore
                Assert.That(sorted (File.ReadAllText offered), Is.EqualTo answer, words)

            Directory.Delete(folder, true)
        else
            // Its brackets, quotes and blocks are those of bash.
            read "bash" [ "-n"; path ] |> ignore
            let text = File.ReadAllText path
            Assert.That(text, Does.StartWith "#compdef tributary\n")

            for command in line.Commands do
                Assert.That(text, Does.Contain $"'{command.Name}:")

                for option in command.Options do
                    for name in option.Names do
                        Assert.That(text, Does.Match $@"\n +{command.Name}\) .*{name}\[", command.Name))

/// The words of a line of fish: blanks apart, single quotes in which \' and \\ stand for ' and \.
let private fishWords (text: string) =
    let words = ResizeArray<string>()
    let word = Text.StringBuilder()
    let mutable isQuoted, isOpen, i = false, false, 0

    let close () =
        if isOpen then
            words.Add(word.ToString())
            word.Clear() |> ignore
            isOpen <- false

    while i < text.Length do
        match text[i] with
        | '\\' when isQuoted && i + 1 < text.Length && (text[i + 1] = '\'' || text[i + 1] = '\\') ->
            word.Append text[i + 1] |> ignore
            i <- i + 1
        | '\'' ->
            isQuoted <- not isQuoted
            isOpen <- true
        | ' ' when not isQuoted -> close ()
        | letter ->
            word.Append letter |> ignore
            isOpen <- true

        i <- i + 1

    close ()
    Assert.That(isQuoted, Is.False, text)
    List.ofSeq words

[<Test; Platform("Linux,MacOsX")>]
let ``fish completes the same`` () =
    script "fish" (fun path ->
        if isInstalled "fish" then
            for words, answer in expected do
                let offered =
                    read "fish" [
                        "-N"
                        "-c"
                        "source $argv[1]; complete -C $argv[2]"
                        path
                        $"tributary {words}"
                    ]

                // Each with its explanation behind a tab.
                let names =
                    offered.Split '\n'
                    |> Array.map (fun one -> (one.Split '\t')[0])
                    |> String.concat "\n"

                Assert.That(sorted names, Is.EqualTo answer, words)

            read "fish" [
                "-N"
                "-c"
                "source $argv[1]; complete -C $argv[2]"
                path
                "tributary tap --kind gap,b"
            ]
            |> _.StartsWith("gap,book")
            |> isTrue
        else
            let completions =
                File.ReadAllLines path
                |> Array.filter _.StartsWith("complete ")
                |> Array.map fishWords

            // Each flag with what it takes.
            let rec isUnderstood words =
                match words with
                | [] -> true
                | ("-c" | "-n" | "-a" | "-d" | "-l" | "-s") :: (value: string) :: rest ->
                    value <> "" && isUnderstood rest
                | ("-e" | "-f" | "-F" | "-x" | "-r") :: rest -> isUnderstood rest
                | _ -> false

            for words in completions do
                Assert.That(isUnderstood words.Tail, Is.True, String.concat " " words)

            for command in line.Commands do
                for option in command.Options do
                    for name in option.Names do
                        completions
                        |> Array.exists (fun words ->
                            List.contains $"__fish_seen_subcommand_from {command.Name}" words
                            && List.contains (name.TrimStart '-') words)
                        |> isTrue)

[<Test>]
let ``a shell that there is no script for is refused with the ones there are`` () =
    use running =
        KillTests.launch [ KillTests.program "Tributary.Cli"; "completions"; "tcsh" ]

    let complaint = running.StandardError.ReadToEnd()
    running.WaitForExit()
    equal Terminal.Exit.Usage running.ExitCode
    Assert.That(complaint, Does.Contain "tcsh")
