// The whole pipeline, here and in CI: dotnet fsi build.fsx TARGET [ARGUMENTS]
// Needs nothing but the .NET SDK that global.json names. Run without a target it lists them.

open System
open System.Diagnostics
open System.IO
open System.Runtime.InteropServices
open System.Text.RegularExpressions

let root = __SOURCE_DIRECTORY__
let configuration = "Release"
let solution = "Tributary.sln"

exception StepFailed of exitCode: int

/// Runs a program in the project's folder, its output straight to ours; a failure ends the build with its exit code.
let run (program: string) (arguments: string list) =
    let info = ProcessStartInfo(program, arguments, WorkingDirectory = root)
    use running = Process.Start info |> Option.ofObj |> Option.get
    running.WaitForExit()

    if running.ExitCode <> 0 then
        raise (StepFailed running.ExitCode)

/// Runs a program and answers what it printed and its exit code; `echo` shows every line as it comes.
let capture echo (program: string) (arguments: string list) =
    let info =
        ProcessStartInfo(program, arguments, WorkingDirectory = root, RedirectStandardOutput = true)

    use running = Process.Start info |> Option.ofObj |> Option.get
    let lines = ResizeArray<string>()
    let mutable line = running.StandardOutput.ReadLine()

    while not (isNull line) do
        lines.Add line

        if echo then
            Console.WriteLine line

        line <- running.StandardOutput.ReadLine()

    running.WaitForExit()
    List.ofSeq lines, running.ExitCode

let dotnet arguments = run "dotnet" arguments

/// Paket's source is a variable, so that no file names a registry: it is the first enabled source of this machine.
let usePackageSource () =
    if isNull (Environment.GetEnvironmentVariable "TRIBUTARY_NUGET") then
        let listed, _ =
            capture false "dotnet" [ "nuget"; "list"; "source"; "--format"; "Short" ]

        match listed |> List.tryFind _.StartsWith("E ") with
        | Some line -> Environment.SetEnvironmentVariable("TRIBUTARY_NUGET", line.Substring(2).Trim())
        | None ->
            eprintfn
                "No package source is enabled: add one with 'dotnet nuget add source', or set TRIBUTARY_NUGET."

            raise (StepFailed 1)

let restore () =
    usePackageSource ()
    dotnet [ "tool"; "restore" ]
    dotnet [ "paket"; "restore" ]

let build () =
    restore ()
    dotnet [ "build"; solution; "-c"; configuration; "--nologo"; "-v"; "quiet" ]

/// Paket writes the source's address into the lock: the variable's name is put back, so that the lock fits every machine.
let update () =
    usePackageSource ()
    dotnet [ "tool"; "restore" ]
    let lock = Path.Combine(root, "paket.lock")

    let unlocked () =
        if File.Exists lock then File.ReadAllText lock else ""
    // On a cold cache the first lock is incomplete (a package not yet cached looks free of dependencies): repeat until it stands.
    let rec settle before rounds =
        File.Delete lock
        dotnet [ "paket"; "install" ]

        if unlocked () <> before && rounds > 0 then
            settle (unlocked ()) (rounds - 1)

    settle (unlocked ()) 8
    File.WriteAllText(lock, Regex.Replace(unlocked (), "remote: \S+", "remote: %TRIBUTARY_NUGET%"))

let sources = [ "build.fsx"; "src"; "tests"; "scripts"; "docs/template" ]

let format () =
    restore ()
    dotnet ("fantomas" :: sources)

let formatCheck () =
    restore ()
    dotnet ("fantomas" :: "--check" :: sources)

let test arguments =
    build ()

    let output, exitCode =
        capture
            true
            "dotnet"
            ([ "test"; "--solution"; solution; "-c"; configuration; "--no-build" ]
             @ arguments)

    let total name =
        output
        |> List.choose (fun line ->
            let found = Regex.Match(line, $@"^\s+{name}: (\d+)\s*$")

            if found.Success then
                Some(int found.Groups[1].Value)
            else
                None)
        |> List.tryLast
        |> Option.defaultValue 0

    printfn "%d passed, %d failed, %d skipped" (total "succeeded") (total "failed") (total "skipped")

    if exitCode <> 0 then
        raise (StepFailed exitCode)

let project name = $"src/{name}/{name}.fsproj"

/// Builds one program, with all that it needs, and runs it.
let start folder name assembly arguments =
    restore ()

    dotnet [
        "build"
        $"{folder}/{name}/{name}.fsproj"
        "-c"
        configuration
        "--nologo"
        "-v"
        "quiet"
    ]

    dotnet ($"{folder}/{name}/bin/{configuration}/net10.0/{assembly}.dll" :: arguments)

let demo arguments =
    start "src" "Tributary.Cli" "Tributary.Cli" ("demo" :: arguments)

let bench arguments =
    start "tests" "Tributary.Bench" "Tributary.Bench" arguments

/// Runs these tests of killing, as many kills as told.
let kills tests times arguments =
    let times = arguments |> List.tryHead |> Option.defaultValue times
    Environment.SetEnvironmentVariable("TRIBUTARY_KILLS", times)

    start "tests" "Tributary.Tests" "Tributary.Tests" [
        "--filter"
        $"FullyQualifiedName~{tests}"
        "--output"
        "Detailed"
    ]

/// `start` against the simulator, killed at random moments; then every row is accounted for.
let kill arguments = kills "Tests.KillTests" "10" arguments

/// The same with QuestDB behind it, where the database is killed, too, and loses what it had not synced.
let killQuestDb arguments =
    kills "QuestDbKillTests" "100" arguments

/// A backfill of ten million fills of fifty markets, killed at random moments; then every row is compared, and audited. Fewer are
/// chosen by TRIBUTARY_FILLS and TRIBUTARY_MARKETS.
let killBackfill arguments =
    for name, usual in [ "TRIBUTARY_FILLS", "10000000"; "TRIBUTARY_MARKETS", "50" ] do
        if isNull (Environment.GetEnvironmentVariable name) then
            Environment.SetEnvironmentVariable(name, usual)

    kills "BackfillKillTests" "20" arguments

/// A benchmark that runs the program beside itself.
let private benchBeside name arguments =
    restore ()

    dotnet [
        "build"
        project "Tributary.Cli"
        "-c"
        configuration
        "--nologo"
        "-v"
        "quiet"
    ]

    // As the program is set: see its runtimeconfig.template.json.
    for setting, value in
        [
            "GCgen0MaxBudget", "1000000"
            "TC_QuickJit", "0"
            "TC_CallCountingDelayMs", "0"
        ] do
        Environment.SetEnvironmentVariable("DOTNET_" + setting, value)

    bench (name :: arguments)

/// Live books against everything that the exchange can do wrong, in simulated time: a hundred seeds of ten thousand messages, or as told.
let chaos arguments =
    let seeds, messages =
        match arguments with
        | seeds :: messages :: _ -> seeds, messages
        | [ seeds ] -> seeds, "10000"
        | [] -> "100", "10000"

    Environment.SetEnvironmentVariable("TRIBUTARY_CHAOS", $"{seeds} {messages}")

    start "tests" "Tributary.Tests" "Tributary.Tests" [
        "--filter"
        "FullyQualifiedName~DepthChaosTests"
        "--output"
        "Detailed"
    ]

/// Makes those pages of docs anew that are made from the code.
let docs () =
    Environment.SetEnvironmentVariable("TRIBUTARY_GOLDEN", "write")

    start "tests" "Tributary.Tests" "Tributary.Tests" [
        "--filter"
        "FullyQualifiedName~ReferenceTests|FullyQualifiedName~SignalsTests.the"
    ]

/// The page of a collector in a browser, view by view, and `top` on a terminal; the test says where the pictures are.
let screenshots () =
    start "tests" "Tributary.Tests" "Tributary.Tests" [
        "--filter"
        "FullyQualifiedName~WebTests.every|FullyQualifiedName~TopTests.on"
        "--output"
        "Detailed"
    ]

/// The cases of conformance with every registered exchange.
let conformance () =
    start "tests" "Tributary.Tests" "Tributary.Tests" [
        "--filter"
        "FullyQualifiedName~ConformanceTests.the"
        "--output"
        "Detailed"
    ]

/// One sentence about what `dotnet publish` said when it failed for want of something; nothing when that was something else.
let wanting runtime (lines: string list) =
    let found pattern =
        lines
        |> List.collect (fun line -> [ for one in Regex.Matches(line, pattern) -> one.Groups[1].Value ])
        |> List.distinct

    let missing =
        found @"NU110[123]: Unable to find (?:a stable )?package (Microsoft\.[\w.-]*\w)"

    if not missing.IsEmpty then
        let names = String.concat ", " missing

        Some
            $"The package source has no {names}, so nothing can be published for {runtime} from here: name another source, or publish on such a machine."
    elif not (found "(NETSDK1083|NETSDK1082|NETSDK1094|NETSDK1084)").IsEmpty then
        Some
            $"The SDK has no runtime for '{runtime}': linux-x64, linux-arm64, linux-musl-x64, osx-arm64 and win-x64 are some that it has."
    else
        None

let artifacts = Path.Combine(root, "artifacts")

/// What kind of machine this is.
let here = RuntimeInformation.RuntimeIdentifier

/// The program as one file for a kind of machine, in artifacts/RUNTIME.
let publish runtime =
    let folder = Path.Combine(artifacts, runtime)

    if Directory.Exists folder then
        Directory.Delete(folder, true)

    let output, exitCode =
        capture false "dotnet" [
            "publish"
            project "Tributary.Cli"
            "-c"
            configuration
            "-r"
            runtime
            "-o"
            folder
            "--nologo"
            "-v"
            "quiet"
        ]

    if exitCode <> 0 then
        match wanting runtime output with
        | Some sentence -> eprintfn "%s" sentence
        | None -> output |> List.iter (eprintfn "%s")

        raise (StepFailed exitCode)

    // The program under the name that people type, and nothing else: the tool's package has the symbols.
    for file in Directory.GetFiles folder do
        match Path.GetFileName file with
        | "Tributary.Cli" -> File.Move(file, Path.Combine(folder, "tributary"))
        | "Tributary.Cli.exe" -> File.Move(file, Path.Combine(folder, "tributary.exe"))
        | _ -> File.Delete file

    printfn "artifacts/%s" runtime

let pack arguments =
    let runtime =
        match arguments with
        | [] -> "linux-x64"
        | [ "--runtime"; runtime ] -> runtime
        | _ ->
            eprintfn "pack takes --runtime RID, such as linux-arm64, and nothing else; default: linux-x64."
            raise (StepFailed 2)

    build ()

    if Directory.Exists artifacts then
        Directory.GetFiles(artifacts, "Tributary*.nupkg") |> Array.iter File.Delete

    dotnet [
        "pack"
        solution
        "-c"
        configuration
        "--no-build"
        "--nologo"
        "-v"
        "quiet"
        "-o"
        artifacts
    ]

    for package in Directory.GetFiles(artifacts, "*.nupkg") |> Array.sort do
        printfn "artifacts/%s" (Path.GetFileName package)

    publish runtime

/// The packages and the published program in the hands of strangers.
let packTest () =
    pack [ "--runtime"; here ]
    Environment.SetEnvironmentVariable("TRIBUTARY_PUBLISHED", "1")

    start "tests" "Tributary.Tests" "Tributary.Tests" [
        "--filter"
        "FullyQualifiedName~PackTests"
        "--output"
        "Detailed"
    ]

/// How long the published program takes to start, beside one that does nothing and was published the same way. `--version` must take
/// at most twice as long.
let benchStart arguments =
    let rounds =
        match arguments with
        | [] -> 41
        | [ "--rounds"; rounds ] -> int rounds
        | _ ->
            eprintfn "bench-start takes --rounds N and nothing else; default: 41."
            raise (StepFailed 2)

    restore ()
    publish here
    // Outside of the repository, whose settings are not its own.
    let folder = Directory.CreateTempSubdirectory("tributary-hello-").FullName

    try
        File.WriteAllText(
            Path.Combine(folder, "Hello.fs"),
            "[<EntryPoint>]\nlet main _ =\n    System.Console.WriteLine \"hello\"\n    0\n"
        )

        File.WriteAllText(
            Path.Combine(folder, "Hello.fsproj"),
            """<Project Sdk="Microsoft.NET.Sdk">
  <PropertyGroup>
    <OutputType>Exe</OutputType>
    <TargetFramework>net10.0</TargetFramework>
    <InvariantGlobalization>true</InvariantGlobalization>
    <SelfContained>true</SelfContained>
    <PublishSingleFile>true</PublishSingleFile>
    <PublishReadyToRun>true</PublishReadyToRun>
    <IncludeNativeLibrariesForSelfExtract>true</IncludeNativeLibrariesForSelfExtract>
  </PropertyGroup>
  <ItemGroup>
    <Compile Include="Hello.fs" />
  </ItemGroup>
</Project>"""
        )

        dotnet [
            "publish"
            folder
            "-c"
            configuration
            "-r"
            here
            "-o"
            Path.Combine(folder, "out")
            "--nologo"
            "-v"
            "quiet"
        ]

        let hello = Path.Combine(folder, "out", "Hello")
        let ours = Path.Combine(artifacts, here, "tributary")

        let time (program: string) (arguments: string list) =
            let info =
                ProcessStartInfo(
                    program,
                    arguments,
                    RedirectStandardOutput = true,
                    RedirectStandardError = true
                )

            let began = Stopwatch.GetTimestamp()
            use running = Process.Start info |> Option.ofObj |> Option.get
            running.StandardOutput.ReadToEnd() |> ignore
            running.WaitForExit()
            Stopwatch.GetElapsedTime(began).TotalMilliseconds

        let runs = [
            "hello", hello, []
            "tributary --version", ours, [ "--version" ]
            "tributary --help", ours, [ "--help" ]
            "tributary status --store nothing", ours, [ "status"; "--store"; "/nothing" ]
        ]

        let measure () =
            runs |> List.map (fun (_, program, arguments) -> time program arguments)

        measure () |> ignore // from here on both lie in memory
        let measured = [ for _ in 1..rounds -> measure () ] |> List.transpose
        let median (times: float list) = (List.sort times)[times.Length / 2]
        let least = median measured.Head

        printfn "| program | median | range | of hello |"
        printfn "| --- | ---: | --- | ---: |"

        for (name, _, _), times in List.zip runs measured do
            printfn
                "| %s | %.1f ms | %.1f to %.1f ms | **%.2f** |"
                name
                (median times)
                (List.min times)
                (List.max times)
                (median times / least)

        if median measured[1] > 2.0 * least then
            eprintfn "tributary --version takes more than twice as long as hello."
            raise (StepFailed 1)
    finally
        Directory.Delete(folder, true)

let targets = [
    "restore", "fetch the tools and packages that the lock file names", (fun _ -> restore ())
    "build", "build everything (warnings are errors)", (fun _ -> build ())
    "format", "format all F# code", (fun _ -> format ())
    "format-check", "fail when a file is not formatted", (fun _ -> formatCheck ())
    "test", "build and run all tests; arguments go to dotnet test", test
    "demo",
    "collect from the simulated exchange and account for everything; arguments go to tributary demo",
    demo
    "bench", "the benchmarks: both sides of every pair in one run", bench
    "load",
    "processor time and memory of collecting 200 markets at real speed; --seconds N",
    benchBeside "load"
    "soak",
    "live books at 10,000 messages a second for ten minutes, through to the disk; --messages N, --seconds N, --burst N",
    benchBeside "soak"
    "metrics",
    "what measuring costs at 10,000 messages a second, with it and without in turns, and /metrics of 2,000 markets; --rounds N",
    benchBeside "metrics"
    "plan",
    "time and memory of planning 46,000 markets over connections; --markets N",
    (fun arguments -> bench ("plan" :: arguments))
    "chaos", "live books against every misbehaviour, 100 seeds of 10,000 messages (or as told)", chaos
    "kill", "kill -9 a collector ten times (or as often as told), then account for every row", kill
    "kill-backfill",
    "kill -9 a backfill of ten million fills twenty times (or as often as told), then compare every row and audit",
    killBackfill
    "kill-questdb",
    "kill -9 a collector or its database a hundred times (or as often as told), then account for every row",
    killQuestDb
    "docs", "make what is made from the code in docs anew: settings, tables, faults", (fun _ -> docs ())
    "conformance",
    "the matrix of all cases that an exchange has to stand, for every registered exchange",
    (fun _ -> conformance ())
    "screenshots",
    "show the page of a collector in Chromium and top on a terminal, and keep pictures of them",
    (fun _ -> screenshots ())
    "pack",
    "make the packages, and the program as one file, in artifacts/; --runtime RID, such as linux-arm64",
    pack
    "pack-test", "pack, then use the packages and the program as strangers would", (fun _ -> packTest ())
    "bench-start", "how long the program takes to start, beside one that does nothing; --rounds N", benchStart
    "update", "resolve paket.dependencies anew into paket.lock", (fun _ -> update ())
]

let usage () =
    printfn "dotnet fsi build.fsx TARGET [ARGUMENTS]"

    targets
    |> List.iter (fun (name, meaning, _) -> printfn "  %-14s%s" name meaning)

let exitCode =
    match List.ofArray fsi.CommandLineArgs |> List.tail with
    | [] ->
        usage ()
        0
    | name :: arguments ->
        match targets |> List.tryFind (fun (target, _, _) -> target = name) with
        | None ->
            eprintfn "There is no target '%s'." name
            usage ()
            2
        | Some(_, _, action) ->
            try
                action arguments
                0
            with StepFailed code ->
                eprintfn "%s failed (exit code %d)." name code
                code

exit exitCode
