/// Every code block of the README runs, as it stands there.
module Tributary.Tests.ReadmeTests

open System
open System.Diagnostics
open System.IO
open System.Net
open System.Net.Sockets
open System.Text.RegularExpressions
open System.Threading
open NUnit.Framework
open Tributary.FakeQuestDb
open Tributary.Stores

let private blocks language =
    Regex.Matches(
        File.ReadAllText(Path.Combine(root, "README.md")),
        $@"```{language}\n(.*?)```",
        RegexOptions.Singleline
    )
    |> Seq.map (fun block -> block.Groups[1].Value)
    |> List.ofSeq

let private freePort () =
    use listener = new TcpListener(IPAddress.Loopback, 0)
    listener.Start()
    let port = (listener.LocalEndpoint :?> IPEndPoint).Port
    listener.Stop()
    port

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

    let info =
        ProcessStartInfo(
            "bash",
            [ "-e"; "-c"; script ],
            WorkingDirectory = folder,
            RedirectStandardOutput = true,
            RedirectStandardError = true
        )

    info.Environment["PATH"] <- $"""{bin}:{Environment.GetEnvironmentVariable "PATH"}"""
    use running = Process.Start info |> Option.ofObj |> Option.get
    let output = running.StandardOutput.ReadToEndAsync()
    let errors = running.StandardError.ReadToEndAsync()
    running.WaitForExit()
    Assert.That(running.ExitCode, Is.EqualTo 0, $"{script}\n{output.Result}\n{errors.Result}")
    output.Result

let private inFolder work =
    let folder = Directory.CreateTempSubdirectory("tributary-readme-").FullName

    for part in [ "config"; "scripts"; "src" ] do
        File.CreateSymbolicLink(Path.Combine(folder, part), Path.Combine(root, part))
        |> ignore

    try
        work folder
    finally
        Directory.Delete(folder, true)

[<Test; Platform("Linux,MacOsX")>]
let ``the commands of the README run, and its queries answer`` () =
    inFolder (fun folder ->
        let port = string (freePort ())

        let questdb =
            FakeQuestDb.StartAsync(FakeQuestDbOptions.Default, CancellationToken.None).Result

        use _ = {
            new IDisposable with
                member _.Dispose() =
                    (questdb :> IAsyncDisposable).DisposeAsync().AsTask().Wait()
        }

        for block in blocks "sh" do
            // The build's own targets build this test: that they exist is tested below, that they work is what CI runs.
            let lines =
                block.Replace("18080", port).Replace("localhost:9000", $"127.0.0.1:{questdb.Port}").Split
                    '\n'
                |> Array.filter (fun line -> not (line.StartsWith "dotnet fsi build.fsx"))

            shell folder (String.concat "\n" lines) |> ignore

        use file = new Connection(Path.Combine(folder, "try.db"), Access.Read)

        for block in blocks "sql" do
            for query in
                block.Split(';', StringSplitOptions.RemoveEmptyEntries ||| StringSplitOptions.TrimEntries) do
                use statement = file.Prepare query
                let rows = statement.Rows(fun row -> row.Text 0)

                if query.Contains "gaps" then
                    Assert.That(rows.Length, Is.GreaterThanOrEqualTo 0)
                else
                    Assert.That(rows.Length, Is.GreaterThan 0, query))

[<Test; Platform("Linux,MacOsX")>]
let ``the targets that the README names are there`` () =
    let named =
        Regex.Matches(File.ReadAllText(Path.Combine(root, "README.md")), @"build\.fsx ([a-z-]+)")
        |> Seq.map (fun found -> found.Groups[1].Value)
        |> Seq.distinct
        |> List.ofSeq

    let build = File.ReadAllText(Path.Combine(root, "build.fsx"))
    Assert.That(named.Length, Is.GreaterThan 3)

    for target in named do
        Assert.That(build, Does.Contain $"\"{target}\"", target)

[<Test>]
let ``the C# of the README is part of a test`` () =
    let squeezed (text: string) = Regex.Replace(text, @"\s+", " ").Trim()

    let tests =
        Directory.GetFiles(Path.Combine(root, "tests/Tributary.CSharp.Tests"), "*.cs")
        |> Array.map (File.ReadAllText >> squeezed)

    for block in blocks "csharp" do
        Assert.That(tests |> Array.exists _.Contains(squeezed block), Is.True, block)
