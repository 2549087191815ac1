/// What lies in config/deploy is what the program, its stores and the tools there understand, as far as that shows without them.
module Tributary.Tests.DeployTests

open System
open System.Diagnostics
open System.IO
open System.Text.Json
open System.Text.RegularExpressions
open NUnit.Framework
open Tributary.Stores.QuestDb
open YamlDotNet.RepresentationModel

let private deploy = Path.Combine(root, "config", "deploy")

let private text name =
    File.ReadAllText(Path.Combine(deploy, name))

/// What is wrong with these words on the command line; nothing when they are understood. Asked for its help behind them, the program
/// reads them and does nothing.
let private complaint (words: string list) =
    use running =
        KillTests.launch (KillTests.program "Tributary.Cli" :: words @ [ "--help" ])

    let output = running.StandardOutput.ReadToEndAsync()
    let errors = running.StandardError.ReadToEnd()
    running.WaitForExit()

    if running.ExitCode = 0 && output.Result.Contains $"USAGE: tributary {words.Head}" then
        ""
    else
        errors

let private isUnderstood words =
    Assert.That(complaint words, Is.Empty, String.concat " " words)

[<Test>]
let ``a command line that is not understood is found out`` () =
    Assert.That(complaint [ "start"; "--stor"; "x" ], Does.Contain "--stor")
    Assert.That(complaint [ "stat"; "--store"; "x" ], Does.Contain "stat")

// ---------------------------------------------------------------------------------------------------------------------------

let private yaml name : YamlNode =
    use reader = new StringReader(text name)
    let stream = YamlStream()
    stream.Load reader
    equal 1 stream.Documents.Count
    stream.Documents[0].RootNode

/// What stands under these keys; a number is a place in a list.
let rec private under (path: string list) (node: YamlNode) : YamlNode =
    match path, node with
    | [], _ -> node
    | key :: rest, (:? YamlMappingNode as map) ->
        match map.Children.TryGetValue(YamlScalarNode key) with
        | true, child -> under rest child
        | _ -> failwith $"there is no {key}"
    | key :: rest, (:? YamlSequenceNode as list) -> under rest list.Children[int key]
    | _ -> failwith $"there is nothing under {path}"

let private texts (node: YamlNode) =
    match node with
    | :? YamlSequenceNode as list -> [ for child in list.Children -> string child ]
    | :? YamlMappingNode as map -> [ for child in map.Children -> string child.Key ]
    | node -> [ string node ]

let private at path node = string (under path node)

[<Test>]
let ``the services of compose collect into both stores, and show them`` () =
    let compose = yaml "compose.yaml"
    equal [ "tributary"; "questdb"; "grafana" ] (texts (under [ "services" ] compose))
    let ours = under [ "services"; "tributary" ] compose
    isUnderstood (texts (under [ "command" ] ours))
    equal "true" (at [ "read_only" ] ours)
    equal [ "ALL" ] (texts (under [ "cap_drop" ] ours))

    // Where it builds from is here, and what it mounts is there.
    let context = Path.GetFullPath(Path.Combine(deploy, at [ "build"; "context" ] ours))
    equal root context
    isTrue (File.Exists(Path.Combine(context, at [ "build"; "dockerfile" ] ours)))
    let named = texts (under [ "volumes" ] compose)

    for service in texts (under [ "services" ] compose) do
        for volume in texts (under [ "services"; service; "volumes" ] compose) do
            let source = (volume.Split ':')[0]

            if source.StartsWith '.' then
                isTrue (Directory.Exists(Path.Combine(deploy, source)))
            else
                Assert.That(named, Does.Contain source)

        // Nothing listens to strangers, and no password stands here.
        if service <> "tributary" then
            for port in texts (under [ "services"; service; "ports" ] compose) do
                Assert.That(port, Does.StartWith "127.0.0.1:")

    Assert.That(at [ "services"; "questdb"; "image" ] compose, Does.Match @"^questdb/questdb:\d+\.\d+\.\d+$")
    Assert.That(at [ "services"; "grafana"; "image" ] compose, Does.Match @"^grafana/grafana:\d+\.\d+\.\d+$")

    for name, value in
        Regex.Matches(text "compose.yaml", @"(\w*PASSWORD): (.*)")
        |> Seq.map (fun one -> one.Groups[1].Value, one.Groups[2].Value) do
        Assert.That(value, Does.Match @"^\$\{\w+:\?.*\}$", name)

[<Test>]
let ``Grafana asks QuestDB as the reader that compose makes`` () =
    let compose = yaml "compose.yaml"
    let source = under [ "datasources"; "0" ] (yaml "grafana/datasources/questdb.yaml")
    let questdb = under [ "services"; "questdb"; "environment" ] compose
    equal (at [ "QDB_PG_READONLY_USER" ] questdb) (at [ "user" ] source)
    equal "questdb:8812" (at [ "url" ] source)
    let password = (at [ "secureJsonData"; "password" ] source).TrimStart '$'

    equal
        (at [ "QDB_PG_READONLY_PASSWORD" ] questdb)
        (at [ "services"; "grafana"; "environment"; password ] compose)

    let mounted = texts (under [ "services"; "grafana"; "volumes" ] compose)

    let dashboards =
        at [ "providers"; "0"; "options"; "path" ] (yaml "grafana/dashboards/tributary.yaml")

    isTrue (mounted |> List.contains $"./grafana/dashboards:{dashboards}:ro")

// ---------------------------------------------------------------------------------------------------------------------------
// The dashboard's queries against the tables that Tributary makes.

let private columns =
    dict [
        for table in Tables.all 2 false -> table.Name, (table.Columns |> List.map _.Name)
    ]

let private wordsOfSql =
    set [
        "select"
        "as"
        "from"
        "where"
        "is"
        "null"
        "not"
        "and"
        "sample"
        "by"
        "group"
        "order"
        "desc"
        "limit"
        "count"
        "$__timefilter"
    ]

/// What a query names that is neither a word of SQL nor a name it gives itself: its table, and the columns that must be there.
let private named (sql: string) =
    let sql = Regex.Replace(sql, "'[^']*'", "")

    let given = [
        for alias in Regex.Matches(sql, "(?i)\\bAS \"?(\\w+)\"?") -> alias.Groups[1].Value
    ]

    let table = Regex.Match(sql, "(?i)\\bFROM \"?(\\w+)\"?").Groups[1].Value

    let names = [
        for word in Regex.Matches(sql, "\"(?<quoted>\\w+)\"|(?<!\\w)(?<bare>[$A-Za-z_]\\w*)") do
            if word.Groups["quoted"].Success then
                word.Groups["quoted"].Value
            elif not (wordsOfSql.Contains(word.Value.ToLowerInvariant())) then
                word.Value
    ]

    table,
    names
    |> List.filter (fun name -> name <> table && not (List.contains name given))

/// What is not in the tables.
let private wrong (sql: string) =
    match named sql with
    | table, _ when not (columns.ContainsKey table) -> [ table ]
    | table, names -> names |> List.filter (fun name -> not (List.contains name columns[table]))

[<TestCase("SELECT \"at\" AS \"time\", count() AS n FROM trades WHERE $__timeFilter(\"at\") SAMPLE BY 1m", "")>]
[<TestCase("SELECT moment FROM trades", "moment")>]
[<TestCase("SELECT at FROM fills", "fills")>]
[<TestCase("SELECT count() FROM gaps WHERE \"closed\" IS NULL", "closed")>]
let ``a query that names what is not there is found out`` sql (found: string) =
    equal found (String.concat " " (wrong sql))

[<Test>]
let ``every query of the dashboard names tables and columns that there are`` () =
    use document = JsonDocument.Parse(text "grafana/dashboards/tributary.json")

    let string' (name: string) (element: JsonElement) = string (element.GetProperty name)

    let panels =
        document.RootElement.GetProperty("panels").EnumerateArray() |> List.ofSeq

    let queries = [
        for panel in panels do
            for target in panel.GetProperty("targets").EnumerateArray() do
                equal "questdb" (string' "uid" (target.GetProperty "datasource"))
                string' "title" panel, string' "rawSql" target
    ]

    for title, sql in queries do
        equal [] (wrong sql)

        // A line over time is sampled by the table's designated timestamp.
        if sql.Contains "SAMPLE BY" then
            let table, _ = named sql
            Assert.That(sql, Does.StartWith $"SELECT \"{columns[table].Head}\" AS \"time\"", title)

    for title in
        [
            "Trades per minute"
            "Open gaps"
            "Books by verdict"
            "Rows per stream and minute"
        ] do
        Assert.That(queries |> List.map fst, Does.Contain title)

    equal panels.Length (panels |> List.distinctBy (string' "id")).Length

// ---------------------------------------------------------------------------------------------------------------------------

/// The instructions of a Dockerfile with their arguments; lines that end in a backslash go on.
let private instructions =
    lazy
        (text "Dockerfile"
         |> fun text -> Regex.Replace(text, @"\\\n\s*", " ").Split '\n'
         |> Array.filter (fun line -> line.Trim() <> "" && not (line.StartsWith '#'))
         |> Array.map (fun line ->
             match line.Split(' ', 2) with
             | [| name; arguments |] -> name, arguments.Trim()
             | _ -> failwith line)
         |> List.ofArray)

let private all name =
    instructions.Value |> List.filter (fst >> (=) name) |> List.map snd

let private exec (text: string) =
    match JsonSerializer.Deserialize<string array> text with
    | null -> failwith text
    | words -> List.ofArray words

[<Test>]
let ``the image runs commands that there are, and not as root`` () =
    for name, _ in instructions.Value do
        Assert.That(
            [
                "FROM"
                "WORKDIR"
                "COPY"
                "RUN"
                "ENV"
                "VOLUME"
                "USER"
                "STOPSIGNAL"
                "HEALTHCHECK"
                "ENTRYPOINT"
                "CMD"
            ],
            Does.Contain name
        )

    for image in all "FROM" do
        Assert.That(image, Does.Match @"^mcr\.microsoft\.com/dotnet/(sdk|aspnet):10\.0( AS build)?$")

    equal [ "\"tributary\"" ] (all "ENTRYPOINT" |> List.map _.Trim('[', ']'))
    isUnderstood (exec (List.exactlyOne (all "CMD")))
    let health = Regex.Match(List.exactlyOne (all "HEALTHCHECK"), @"CMD (\[.*\])$")
    let health = exec health.Groups[1].Value
    equal "tributary" health.Head
    isUnderstood health.Tail
    equal [ "SIGTERM" ] (all "STOPSIGNAL")

    // The last user is not root, and nothing is done after it that would need to be.
    let after = instructions.Value |> List.skipWhile (fst >> (<>) "USER")
    equal ("USER", "$APP_UID") after.Head
    Assert.That(after.Tail |> List.map fst, Does.Not.Contain "RUN")

    // What is copied from here is here.
    for copied in all "COPY" |> List.filter (fun one -> not (one.StartsWith "--from")) do
        let source = Path.Combine(root, (copied.Split ' ')[0])
        Assert.That(File.Exists source || Directory.Exists source, copied)

    // Where the store is kept is a volume that is its user's, and where it is looked for.
    let volume = List.exactlyOne (all "VOLUME")

    for words in [ exec (List.exactlyOne (all "CMD")); health ] do
        Assert.That(List.last words, Does.StartWith(volume + "/"))

    Assert.That(all "RUN" |> List.last, Does.Contain $"chown $APP_UID {volume}")

// ---------------------------------------------------------------------------------------------------------------------------

/// The keys of a unit with their values, section by section.
let private unit' =
    lazy
        (let mutable section = ""

         [
             for line in (text "tributary.service").Split '\n' do
                 match line.Trim() with
                 | "" -> ()
                 | line when line.StartsWith '#' -> ()
                 | line when line.StartsWith '[' -> section <- line.Trim('[', ']')
                 | line ->
                     let parts = line.Split('=', 2)
                     equal 2 parts.Length
                     Assert.That(parts[0], Does.Match "^[A-Z][A-Za-z]+$", line)
                     (section, parts[0]), parts[1]
         ])

let private values key =
    unit'.Value |> List.filter (fst >> (=) key) |> List.map snd

[<Test>]
let ``the service runs commands that there are, hardened, and does not start again what cannot work`` () =
    equal
        [ "Install"; "Service"; "Unit" ]
        (unit'.Value |> List.map (fst >> fst) |> List.distinct |> List.sort)

    equal [] (values ("Service", "ExecStartPre"))

    for command in values ("Service", "ExecStart") do
        match List.ofArray (command.Split ' ') with
        | "/usr/local/bin/tributary" :: words -> isUnderstood words
        | _ -> Assert.Fail command

    let has key value =
        equal [ value ] (values ("Service", key))

    has "DynamicUser" "yes"
    has "ProtectSystem" "strict"
    has "NoNewPrivileges" "yes"
    has "CapabilityBoundingSet" ""
    has "KillSignal" "SIGTERM"
    has "Restart" "on-failure"

    has
        "RestartPreventExitStatus"
        $"{Tributary.Cli.Terminal.Exit.Usage} {Tributary.Cli.Terminal.Exit.Configuration}"

    // What it writes to are folders of its own.
    let state = List.exactlyOne (values ("Service", "StateDirectory"))
    has "WorkingDirectory" $"/var/lib/{state}"
    let start = List.exactlyOne (values ("Service", "ExecStart"))
    Assert.That(start, Does.Contain $"--store /var/lib/{state}/")
    let cache = List.exactlyOne (values ("Service", "CacheDirectory"))

    Assert.That(
        values ("Service", "Environment"),
        Does.Contain $"DOTNET_BUNDLE_EXTRACT_BASE_DIR=/var/cache/{cache}"
    )

[<Test; Platform("Linux")>]
let ``systemd finds nothing wrong with the service`` () =
    let verifier = "/usr/bin/systemd-analyze"
    Assume.That(File.Exists verifier, "systemd is not installed")
    let folder = Directory.CreateTempSubdirectory("tributary-unit-").FullName
    let path = Path.Combine(folder, "tributary.service")
    // The program is not installed here: any that is will do.
    File.WriteAllText(path, (text "tributary.service").Replace("/usr/local/bin/tributary", "/bin/true"))

    let info =
        ProcessStartInfo(
            verifier,
            [ "verify"; "--man=no"; path ],
            RedirectStandardError = true,
            RedirectStandardOutput = true
        )

    use running = Process.Start info |> Option.ofObj |> Option.get
    let complaints = running.StandardError.ReadToEnd()
    running.WaitForExit()
    Directory.Delete(folder, true)
    equal "" complaints
    equal 0 running.ExitCode

[<Test>]
let ``the commands of its README are there, and so are the files`` () =
    for line in (text "README.md").Split '\n' do
        let command =
            Regex.Match(line, @"(?:^sudo tributary|exec tributary tributary) (.*)$")

        if command.Success then
            isUnderstood (List.ofArray (command.Groups[1].Value.Split ' '))

        for file in Regex.Matches(line, @"config/[\w./*-]+") do
            let source = Path.Combine(root, file.Value.Replace("/*.yaml", ""))

            if not (file.Value.EndsWith ".env") then
                Assert.That(File.Exists source || Directory.Exists source, line)

    Assert.That(File.ReadAllLines(Path.Combine(root, ".gitignore")), Does.Contain ".env")
