/// Every code block of the README and of the pages beside it runs, as it stands there.
module Tributary.Tests.ReadmeTests

open System
open System.Diagnostics
open System.IO
open System.Net
open System.Net.Sockets
open System.Text.RegularExpressions
open System.Threading
open System.Threading.Tasks
open NUnit.Framework
open Tributary
open Tributary.FakeQuestDb
open Tributary.Server.Simulator
open Tributary.Stores

let private pages = [
    "README.md"
    for page in Directory.GetFiles(Path.Combine(root, "docs"), "*.md") |> Array.sort do
        Path.GetRelativePath(root, page)
]

let private textOf (page: string) =
    File.ReadAllText(Path.Combine(root, page))

let private blocks language page =
    Regex.Matches(textOf page, $@"```{language}\n(.*?)```", RegexOptions.Singleline)
    |> Seq.map (fun block -> block.Groups[1].Value)
    |> List.ofSeq

let private pagesWith language =
    pages |> List.filter (fun page -> not (blocks language page).IsEmpty)

let private freePort () =
    use listener = new TcpListener(IPAddress.Loopback, 0)
    listener.Start()
    let port = (listener.LocalEndpoint :?> IPEndPoint).Port
    listener.Stop()
    port

/// Runs a program in a folder; answers what it printed.
let private run (folder: string) (path: string) (program: string) (arguments: string list) =
    let info =
        ProcessStartInfo(
            program,
            arguments,
            WorkingDirectory = folder,
            RedirectStandardOutput = true,
            RedirectStandardError = true
        )

    info.Environment["PATH"] <- path
    use running = Process.Start info |> Option.ofObj |> Option.get
    let output = running.StandardOutput.ReadToEndAsync()
    let errors = running.StandardError.ReadToEndAsync()
    running.WaitForExit()
    let said = String.concat "\n" (arguments @ [ output.Result; errors.Result ])
    Assert.That(running.ExitCode, Is.EqualTo 0, said)
    output.Result

let private path =
    Environment.GetEnvironmentVariable "PATH"
    |> Option.ofObj
    |> Option.defaultValue ""

let private hasPython =
    path.Split ':'
    |> Array.exists (fun folder -> File.Exists(Path.Combine(folder, "python3")))

/// Runs lines as one shell script in a folder, where `tributary` is the program that was built with this test.
let private shell (folder: string) (script: string) =
    let bin = Path.Combine(folder, "bin")
    Directory.CreateDirectory bin |> ignore
    let program = Path.Combine(bin, "tributary")
    let built = Path.Combine(AppContext.BaseDirectory, "Tributary.Cli.dll")
    File.WriteAllText(program, $"#!/bin/sh\nexec dotnet '{built}' \"$@\"\n")

    File.SetUnixFileMode(
        program,
        UnixFileMode.UserRead ||| UnixFileMode.UserWrite ||| UnixFileMode.UserExecute
    )

    run folder $"{bin}:{path}" "bash" [ "-e"; "-c"; script ]

let private inFolder work =
    let folder = Directory.CreateTempSubdirectory("tributary-readme-").FullName

    for part in [ "config"; "scripts"; "src" ] do
        File.CreateSymbolicLink(Path.Combine(folder, part), Path.Combine(root, part))
        |> ignore

    try
        work folder
    finally
        Directory.Delete(folder, true)

let private withCommands = pagesWith "sh"

[<TestCaseSource(nameof withCommands); Platform("Linux,MacOsX")>]
let ``the commands of a page run, and its queries answer`` (page: string) =
    inFolder (fun folder ->
        let port = string (freePort ())

        let questdb =
            FakeQuestDb.StartAsync(FakeQuestDbOptions.Default, CancellationToken.None).Result

        use _ = {
            new IDisposable with
                member _.Dispose() =
                    (questdb :> IAsyncDisposable).DisposeAsync().AsTask().Wait()
        }

        for block in blocks "sh" page do
            // The build's own targets build this test: that they exist is tested below, that they work is what CI runs.
            let lines =
                block.Replace("18080", port).Replace("localhost:9000", $"127.0.0.1:{questdb.Port}").Split
                    '\n'
                |> Array.filter (fun line -> not (line.StartsWith "dotnet fsi build.fsx"))

            shell folder (String.concat "\n" lines) |> ignore

        use file = new Connection(Path.Combine(folder, "try.db"), Access.Read)

        for block in blocks "sql" page do
            for query in
                block.Split(';', StringSplitOptions.RemoveEmptyEntries ||| StringSplitOptions.TrimEntries) do
                use statement = file.Prepare query
                let rows = statement.Rows(fun row -> row.Text 0)
                // What a page collects has no gaps, and not each of them collects books.
                let may =
                    page <> "README.md" || query.Contains "gaps" || query.Contains "market_spreads"

                Assert.That(rows.Length, Is.GreaterThanOrEqualTo(if may then 0 else 1), query)

        for block in blocks "python" page do
            if hasPython then
                Assert.That(run folder path "python3" [ "-c"; block ], Does.Contain " bid ")
            else
                TestContext.Out.WriteLine "there is no python3 here: its lines were not run")

let private withFSharp = pagesWith "fsharp"

[<TestCaseSource(nameof withFSharp)>]
let ``the F# of a page is a script that runs`` (page: string) : Task = task {
    let! simulator =
        Simulator.StartAsync(
            {
                SimulatorOptions.Default with
                    Markets = 20
            },
            CancellationToken.None
        )

    use _ = simulator

    inFolder (fun folder ->
        // The build in the place of the package, as the scripts have it.
        let build = Path.Combine(root, "scripts", "built-by-dotnet-fsi-build.fsx-build.fsx")

        let script =
            (blocks "fsharp" page |> String.concat "\n")
                .Replace("#r \"nuget: Tributary, 0.1.0\"", $"#load @\"{build}\"")
                .Replace("http://127.0.0.1:18080", string simulator.Address)

        Assert.That(script, Does.Contain build)
        File.WriteAllText(Path.Combine(folder, "page.fsx"), script)
        TestContext.Out.WriteLine(run folder path "dotnet" [ "fsi"; "page.fsx" ]))
}

let private withSettings = pagesWith "yaml"

[<TestCaseSource(nameof withSettings)>]
let ``the settings of a page are sound`` (page: string) =
    for block in blocks "yaml" page do
        let mistakes =
            if block.StartsWith "questions:" then
                Mapping.parse (Setup.known |> List.map _.Name) page block |> Result.map ignore
            else
                Settings.load Setup.known (fun _ -> None) [ page, block ] |> Result.map ignore

        match mistakes with
        | Ok() -> ()
        | Error mistakes -> Assert.Fail(mistakes |> List.map Mistake.render |> String.concat "\n")

[<Test>]
let ``the links between the pages lead somewhere`` () =
    for page in pages do
        for link in Regex.Matches(textOf page, @"\]\(([^):#]+)(?:#[^)]*)?\)") do
            let folder =
                Path.GetDirectoryName(Path.Combine(root, page)) |> Option.ofObj |> Option.get

            let target = Path.Combine(folder, link.Groups[1].Value)
            Assert.That(File.Exists target || Directory.Exists target, Is.True, $"{page}: {link.Value}")

[<Test>]
let ``every page is named in the README`` () =
    for page in List.tail pages do
        Assert.That(textOf "README.md", Does.Contain $"]({page})")

[<Test; Platform("Linux,MacOsX")>]
let ``the targets that the pages name are there`` () =
    let named =
        Regex.Matches(pages |> List.map textOf |> String.concat "\n", @"build\.fsx ([a-z-]+)")
        |> Seq.map (fun found -> found.Groups[1].Value)
        |> Seq.distinct
        |> List.ofSeq

    let build = File.ReadAllText(Path.Combine(root, "build.fsx"))
    Assert.That(named.Length, Is.GreaterThan 3)

    for target in named do
        Assert.That(build, Does.Contain $"\"{target}\"", target)

[<Test>]
let ``the C# of the pages is part of a test`` () =
    let squeezed (text: string) = Regex.Replace(text, @"\s+", " ").Trim()

    let tests =
        Directory.GetFiles(Path.Combine(root, "tests/Tributary.CSharp.Tests"), "*.cs")
        |> Array.map (File.ReadAllText >> squeezed)

    for block in pages |> List.collect (blocks "csharp") do
        Assert.That(tests |> Array.exists _.Contains(squeezed block), Is.True, block)
