/// The packages, used by strangers: programs outside of this repository that have nothing but the packages and the machine's package
/// source. `dotnet fsi build.fsx pack-test` runs them with the program that `pack` published, too.
[<NUnit.Framework.Parallelizable(NUnit.Framework.ParallelScope.None)>]
module Tributary.Tests.PackTests

open System
open System.Diagnostics
open System.IO
open System.IO.Compression
open System.Runtime.InteropServices
open System.Text.Json
open System.Text.RegularExpressions
open System.Threading
open System.Xml.Linq
open NUnit.Framework
open Tributary
open Tributary.Cli
open Tributary.Server.Simulator

let private version =
    Regex
        .Match(File.ReadAllText(Path.Combine(root, "Directory.Build.props")), "<Version>(.*)</Version>")
        .Groups[1].Value

/// A folder beside everything else: packages, a cache of their own so that no older package of the same version is taken, and programs.
let private place =
    lazy Directory.CreateTempSubdirectory("tributary-pack-").FullName

let private folder name =
    Directory.CreateDirectory(Path.Combine(place.Value, name)).FullName

/// Runs a program to its end: what it printed, what it complained of, its exit code.
let private run (where: string) (program: string) (arguments: string list) =
    let info =
        ProcessStartInfo(
            program,
            arguments,
            WorkingDirectory = where,
            RedirectStandardOutput = true,
            RedirectStandardError = true
        )

    info.Environment["NUGET_PACKAGES"] <- folder "cache"
    // A test run inside of a build must not hand on what that build was told.
    for name in [ "TRIBUTARY_ENV"; "MSBuildSDKsPath"; "MSBUILD_EXE_PATH" ] do
        info.Environment.Remove name |> ignore

    use running = Process.Start info |> Option.ofObj |> Option.get
    let errors = running.StandardError.ReadToEndAsync()
    let output = running.StandardOutput.ReadToEnd()
    running.WaitForExit()
    struct (output, errors.Result, running.ExitCode)

/// What a program printed that ended well.
let private well where program arguments =
    let struct (output, errors, code) = run where program arguments
    let line = String.concat " " (program :: arguments)
    Assert.That(code, Is.EqualTo 0, $"{line}\n{output}\n{errors}")
    output

/// Made of what the build left, once.
let private packages =
    lazy
        (let built =
            Path.Combine(root, "src", "Tributary.Cli", "bin", "Release", "net10.0", "Tributary.Cli.dll")

         Assume.That(File.Exists built, "packages need the Release build: dotnet fsi build.fsx build")
         let packages = folder "packages"

         let info =
             ProcessStartInfo(
                 "dotnet",
                 [
                     "pack"
                     "Tributary.sln"
                     "-c"
                     "Release"
                     "--no-build"
                     "--nologo"
                     "-v"
                     "quiet"
                     "-o"
                     packages
                 ],
                 WorkingDirectory = root,
                 RedirectStandardOutput = true
             )

         use packing = Process.Start info |> Option.ofObj |> Option.get
         let output = packing.StandardOutput.ReadToEnd()
         packing.WaitForExit()
         Assert.That(packing.ExitCode, Is.EqualTo 0, output)
         packages)

[<OneTimeTearDown>]
let ``the folder goes`` () =
    if place.IsValueCreated then
        Directory.Delete(place.Value, true)

let private opened name =
    ZipFile.OpenRead(Path.Combine(packages.Value, $"{name}.{version}.nupkg"))

/// The elements of a nuspec by name, whatever namespace it is in.
let private elements (package: ZipArchive) (name: string) =
    let entry = package.Entries |> Seq.find _.FullName.EndsWith(".nuspec")
    use stream = entry.Open()

    XDocument.Load(stream).Descendants()
    |> Seq.filter (fun element -> element.Name.LocalName = name)
    |> List.ofSeq

let private attribute (name: string) (element: XElement) =
    match element.Attribute name with
    | null -> ""
    | attribute -> attribute.Value

let private exchange () =
    Simulator.StartAsync(
        {
            SimulatorOptions.Default with
                Markets = 20
                TradesPerSecond = 40.0
        },
        CancellationToken.None
    )

/// The market that traded last, while the exchange goes on.
let private busiest (simulator: Simulator) =
    use client = new Net.Http.HttpClient(BaseAddress = simulator.Address)

    use document =
        JsonDocument.Parse(client.GetStringAsync("data/trades?limit=1").Result)

    string (document.RootElement[0].GetProperty "slug")

[<Test>]
let ``there are four packages, each with what a stranger needs to know`` () =
    let names = [ "Tributary"; "Tributary.CSharp"; "Tributary.Cli"; "Tributary.Core" ]

    Directory.GetFiles(packages.Value, "*.nupkg")
    |> Array.map (fun path -> Path.GetRelativePath(packages.Value, path))
    |> Array.sort
    |> List.ofArray
    |> equal (names |> List.map (fun name -> $"{name}.{version}.nupkg") |> List.sort)

    let descriptions =
        names
        |> List.map (fun name ->
            use package = opened name
            let text element = (elements package element).Head.Value
            equal "MIT" (text "license")
            equal "README.md" (text "readme")
            let readme = package.GetEntry "README.md" |> Option.ofObj
            equal (Some(FileInfo(Path.Combine(root, "README.md")).Length)) (readme |> Option.map _.Length)
            text "description")

    equal 4 (List.distinct descriptions).Length

[<TestCase("Tributary.Core", "FSharp.Core")>]
[<TestCase("Tributary",
           "FSharp.Core Microsoft.Extensions.Logging.Abstractions Polly.Core SQLitePCLRaw.bundle_e_sqlite3 System.Threading.RateLimiting Tributary.Core YamlDotNet")>]
[<TestCase("Tributary.CSharp",
           "Microsoft.Extensions.Configuration.Binder Microsoft.Extensions.Diagnostics.HealthChecks Microsoft.Extensions.Hosting.Abstractions Tributary")>]
let ``a library has its documentation and asks for what it needs, at least in the version it was tested with``
    name
    (needs: string)
    =
    use package = opened name

    for extension in [ "dll"; "xml" ] do
        Assert.That(package.GetEntry $"lib/net10.0/{name}.{extension}", Is.Not.Null, extension)

    use documentation =
        (package.GetEntry $"lib/net10.0/{name}.xml" |> Option.ofObj |> Option.get).Open()

    Assert.That(Seq.length (XDocument.Load(documentation).Descendants "member"), Is.GreaterThan 30)
    let dependencies = elements package "dependency"
    equal needs (dependencies |> List.map (attribute "id") |> List.sort |> String.concat " ")

    for dependency in dependencies do
        Assert.That(attribute "version" dependency, Does.Match @"^[0-9][0-9.]*$", attribute "id" dependency)

[<Test>]
let ``the command has its exchange and SQLite for every system within, and asks for nothing`` () =
    use package = opened "Tributary.Cli"
    equal [] (elements package "dependency")
    let names = package.Entries |> Seq.map _.FullName |> Set.ofSeq

    for file in
        [
            "Tributary.Server.dll"
            "runtimes/linux-x64/native/libe_sqlite3.so"
            "runtimes/linux-musl-arm64/native/libe_sqlite3.so"
            "runtimes/osx-arm64/native/libe_sqlite3.dylib"
            "runtimes/win-x64/native/e_sqlite3.dll"
        ] do
        Assert.That(names, Does.Contain $"tools/net10.0/any/{file}")

[<Test; Platform("Linux,MacOsX")>]
let ``a C# program that refers to nothing but the package prints the trades of the README`` () = task {
    use! simulator = exchange ()
    let app = folder "csharp"

    let sample =
        Regex.Match(
            File.ReadAllText(Path.Combine(root, "README.md")),
            @"```csharp\n(.*?)```",
            RegexOptions.Singleline
        )

    let program =
        sample.Groups[1].Value.Replace("will-the-bill-pass-1", busiest simulator)

    File.WriteAllText(
        Path.Combine(app, "Program.cs"),
        $"using Tributary.CSharp;\n\nvar exchange = new Uri(args[0]);\n{program}"
    )

    File.WriteAllText(
        Path.Combine(app, "Stranger.csproj"),
        $"""<Project Sdk="Microsoft.NET.Sdk">
  <PropertyGroup>
    <OutputType>Exe</OutputType>
    <TargetFramework>net10.0</TargetFramework>
    <ImplicitUsings>enable</ImplicitUsings>
    <Nullable>enable</Nullable>
    <TreatWarningsAsErrors>true</TreatWarningsAsErrors>
  </PropertyGroup>
  <ItemGroup>
    <PackageReference Include="Tributary.CSharp" Version="{version}" />
  </ItemGroup>
</Project>"""
    )

    // Beside the sources that the machine is configured with.
    File.WriteAllText(
        Path.Combine(app, "nuget.config"),
        $"""<configuration><packageSources><add key="packed" value="{packages.Value}" /></packageSources></configuration>"""
    )

    let output = Path.Combine(app, "out")

    well app "dotnet" [ "build"; "-c"; "Release"; "--nologo"; "-v"; "quiet"; "-o"; output ]
    |> ignore

    let printed =
        well app "dotnet" [ Path.Combine(output, "Stranger.dll"); string simulator.Address ]

    Assert.That(printed, Does.Match @"^\S+ [a-z0-9-]+ (Buy|Sell) [0-9.]+ at [0-9.]+\n$")
    Assert.That(File.Exists(Path.Combine(app, "try.db")))

    // What only the command needs does not come along.
    let files =
        Directory.GetFiles(output, "*.dll")
        |> Array.map (fun path -> Path.GetRelativePath(output, path))

    Assert.That(files, Does.Contain "Tributary.CSharp.dll")

    for other in
        [
            "Tributary.Server.dll"
            "Tributary.Cli.dll"
            "Argu.dll"
            "Spectre.Console.dll"
        ] do
        Assert.That(files, Does.Not.Contain other)
}

[<Test; Platform("Linux,MacOsX")>]
let ``an F# script that refers to the package collects trades`` () = task {
    use! simulator = exchange ()
    let place = folder "script"

    File.WriteAllText(
        Path.Combine(place, "stranger.fsx"),
        $"""#i "nuget: {packages.Value}"
#r "nuget: Tributary, {version}"

open System
open System.Threading
open Microsoft.Extensions.Logging.Abstractions
open Tributary

let settings =
    Settings.defaults Setup.known
    |> Setup.askingAt (Uri fsi.CommandLineArgs[1])
    |> Setup.picking [ fsi.CommandLineArgs[2] ] []
    |> Setup.storingAt "script.db"

let collect () = task {{
    match Setup.openStore settings TimeProvider.System Logs.none with
    | Error fault -> return failwithf "%%A" fault
    | Ok store ->
        let! engine =
            Engine.StartAsync(
                EngineOptions.Create(settings, store, TimeProvider.System, Logs.none),
                CancellationToken.None
            )

        let events = engine.Subscribe 10_000
        let mutable found = false

        while not found do
            match! events.ReadAsync() with
            | MarketEvent.Trade trade ->
                printfn "%%O %%O at %%O" trade.Token trade.Size trade.Price
                found <- true
            | _ -> ()

        let! report = engine.StopAsync(TimeSpan.FromSeconds 20.0)
        return report.Undrained
}}

printfn "undrained: %%A" (collect().Result)
"""
    )

    let printed =
        well place "dotnet" [ "fsi"; "stranger.fsx"; string simulator.Address; busiest simulator ]

    Assert.That(printed, Does.Match @"(?m)^\S+ [0-9.]+ at [0-9.]+$")
    Assert.That(printed, Does.Contain "undrained: None")
    Assert.That(File.Exists(Path.Combine(place, "script.db")))
}

[<Test; Platform("Linux,MacOsX")>]
let ``the scripts run from the package when their line about the build names it`` () = task {
    use! simulator = exchange ()
    let place = folder "research"

    for from in [ "scripts"; "config" ] do
        let into = Directory.CreateDirectory(Path.Combine(place, from)).FullName

        for file in Directory.GetFiles(Path.Combine(root, from)) do
            if not (file.EndsWith "-build.fsx") then
                File.Copy(file, Path.Combine(into, Path.GetRelativePath(Path.Combine(root, from), file)))

    let shared = Path.Combine(place, "scripts", "shared.fsx")
    let text = File.ReadAllText shared
    let line = "#load \"built-by-dotnet-fsi-build.fsx-build.fsx\"\n"
    Assert.That(text, Does.Contain line)

    // The comment above says the same; where the packages lie is for the machine to know.
    Assert.That(text, Does.Contain $"#r \"nuget: Tributary, {version}\"")

    File.WriteAllText(
        shared,
        text.Replace(line, $"#i \"nuget: {packages.Value}\"\n#r \"nuget: Tributary, {version}\"\n")
    )

    let slug = busiest simulator

    let at (script: string) arguments =
        well place "dotnet" ([ "fsi"; $"scripts/{script}"; slug ] @ arguments @ [ "--store"; "research.db" ])

    let read =
        at "backfill.fsx" [ "--since"; "1h"; "--exchange-url"; string simulator.Address ]

    Assert.That(read, Does.Contain "read since ")
    Assert.That(at "explore.fsx" [], Does.Contain "no book")
    Assert.That(at "export.fsx" [ "exported" ], Does.Contain slug)
}

/// The command in an empty folder, without a configuration.
let private works (tributary: string) = task {
    let place = folder (Guid.NewGuid().ToString "N")
    equal $"tributary {version}" (well place tributary [ "--version" ] |> _.Trim())

    let demo = well place tributary [ "demo"; "--seconds"; "2"; "--markets"; "5" ]
    Assert.That(demo, Does.Contain "Everything is accounted for.")

    use! simulator = exchange ()
    let slug = busiest simulator
    let address = (string simulator.Address).TrimEnd '/'

    well place tributary [
        "start"
        "--market"
        slug
        "--exchange-url"
        address
        "--for"
        "5s"
        "--log-level"
        "error"
    ]
    |> ignore

    // Where the defaults say.
    use status =
        JsonDocument.Parse(well place tributary [ "status"; "--json"; "--store"; "data/tributary.db" ])

    let market = status.RootElement.GetProperty("markets")[0]
    equal slug (string (market.GetProperty "slug"))
    Assert.That(market.GetProperty("trades").GetInt64(), Is.GreaterThan 0L)
    Assert.That(market.GetProperty("books").GetInt64(), Is.GreaterThan 0L)
    Assert.That(Directory.GetFileSystemEntries place, Has.Length.EqualTo 1)
}

[<Test; Platform("Linux,MacOsX")>]
let ``the command is installed as a tool, and works in an empty folder`` () = task {
    let tools = folder "tools"

    well (folder "empty") "dotnet" [
        "tool"
        "install"
        "Tributary.Cli"
        "--version"
        version
        "--tool-path"
        tools
        "--add-source"
        packages.Value
    ]
    |> ignore

    do! works (Path.Combine(tools, "tributary"))
}

[<Test; Platform("Linux")>]
let ``the published program is one file that works without .NET, without a home, and completes its own line``
    ()
    = task {
    let published =
        Path.Combine(root, "artifacts", RuntimeInformation.RuntimeIdentifier)

    Assume.That(
        Environment.GetEnvironmentVariable "TRIBUTARY_PUBLISHED" = "1",
        "takes the program that pack published: dotnet fsi build.fsx pack-test"
    )

    equal
        [| "tributary" |]
        (Directory.GetFileSystemEntries published
         |> Array.map (fun path -> Path.GetRelativePath(published, path)))

    let program = Path.Combine(published, "tributary")
    let unpacked = folder "unpacked"
    let bare = Path.Combine(folder "bare", "tributary")

    // Only what a service is given: no PATH to a dotnet, no home, and where to unpack.
    File.WriteAllText(
        bare,
        $"#!/bin/sh\nexec env -i DOTNET_BUNDLE_EXTRACT_BASE_DIR='{unpacked}' '{program}' \"$@\"\n"
    )

    File.SetUnixFileMode(bare, UnixFileMode.UserRead ||| UnixFileMode.UserExecute)
    do! works bare

    Assert.That(
        well place.Value bare [ "completions"; "bash" ],
        Does.Contain "complete -F _tributary tributary"
    )
}
