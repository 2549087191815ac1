/// The pages of docs that are made from the code: what stands below their mark is what the code says. `build.fsx docs` makes them anew.
module Tributary.Tests.ReferenceTests

open System
open System.IO
open System.Reflection
open System.Text.RegularExpressions
open System.Xml.Linq
open NUnit.Framework
open Tributary
open Tributary.Stores
open Tributary.Stores.QuestDb

let private mark =
    "<!-- What follows is made from the code by: dotnet fsi build.fsx docs -->"

/// A row of a table; what would end a cell does not.
let private row (cells: string list) =
    cells
    |> List.map _.Replace("|", "\\|")
    |> String.concat " | "
    |> fun cells -> $"| {cells} |"

let private table (head: string list) rows =
    row head :: row (head |> List.map (fun _ -> "---")) :: List.map row rows

let private code text = if text = "" then "" else $"`{text}`"

/// Compares what stands below the mark of a page, or writes it.
let private holds (page: string) (made: string list) =
    let path = Path.Combine(root, "docs", page)
    let text = File.ReadAllText path
    let at = text.IndexOf mark
    Assert.That(at, Is.GreaterThan 0, $"{page} has no line {mark}")
    let above = text.Substring(0, at + mark.Length)
    let whole = above + "\n\n" + String.concat "\n" made + "\n"

    if Environment.GetEnvironmentVariable "TRIBUTARY_GOLDEN" = "write" then
        File.WriteAllText(path, whole)

    Assert.That(
        File.ReadAllText path,
        Is.EqualTo whole,
        $"docs/{page} is out of date: run 'dotnet fsi build.fsx docs', and read what changed."
    )

// ---- what the code says about itself

let private summaries =
    lazy
        (let file = Path.Combine(AppContext.BaseDirectory, "Tributary.xml") |> XDocument.Load

         Map.ofSeq [
             for one in file.Descendants(XName.Get "member") do
                 for name in one.Attributes(XName.Get "name") do
                     name.Value, Regex.Replace(one.Value, @"\s+", " ").Trim()
         ])

let private summary key =
    summaries.Value |> Map.tryFind key |> Option.defaultValue ""

/// The default stands in a column of its own.
let private withoutDefault text =
    Regex.Replace(text, @"\s*Default(?::| )(?:`[^`]*`|[^.;`]|\.(?=\S))*\.", "").Trim()

let private ofType (it: Type) =
    withoutDefault (summary $"T:{it.FullName}")

/// The property whose setting a key is.
let private property (it: Type) (key: string) =
    it.GetProperties()
    |> Array.tryFind (fun one ->
        one.Name.Equals(key.Replace("_", ""), StringComparison.OrdinalIgnoreCase)
        && one.DeclaringType = it)

let private inside (it: Type) =
    if it.IsGenericType && not it.IsValueType then
        Array.last (it.GetGenericArguments())
    else
        it

let private meaning (it: Type) (one: PropertyInfo) =
    match withoutDefault (summary $"P:{it.FullName}.{one.Name}") with
    | "" -> ofType (inside one.PropertyType)
    | text -> text

// ---- the configuration

/// What no property says for itself.
let private spoken =
    Map.ofList [
        "slug", "One market, by its slug: the last part of its page's address."
        "event", "All markets of an event, by its slug."
        "slugs", "A pattern with `*` and `?`."
        "depth", "How much of their books is stored."
    ]

let private exchange name =
    Setup.known |> List.find (fun known -> known.Name = name)

let private pair = typeof<string * string>.GetGenericTypeDefinition()

/// The type whose keys a path leads to.
let rec private typeAt (it: Type) (path: string list) =
    match path with
    | [] -> it
    | "[]" :: rest -> typeAt it rest
    | _ :: rest when it = typeof<CollectorSettings list> -> typeAt typeof<CollectorSettings> rest
    | key :: rest ->
        match property it key with
        | Some one when one.PropertyType = typeof<CollectorSettings list> -> typeAt one.PropertyType rest
        | Some one -> typeAt (inside one.PropertyType) rest
        | None -> it

/// Path → what it is for.
let private means (path: string list) =
    let key = List.last path
    let it = typeAt typeof<Settings> (List.take (path.Length - 1) path)

    match path with
    | [ "collectors"; name ] -> $"How {name} is collected."
    | [ "log_levels"; name ] -> summary ("P:" + (Logs.category name).Replace("Tributary.", "Tributary.Logs."))
    | [ "collectors"; name; "rate_limits"; limit ] ->
        (exchange name).Limits
        |> List.find (fun one -> one.Name = limit)
        |> fun one -> one.Counts
    | [ "collectors"; name; key ] when key.EndsWith "_url" ->
        (exchange name).Hosts
        |> List.find (fun one -> one.Setting = key)
        |> fun one -> $"Where it is asked for {one.Serves}."
    | [ "collectors"; name; key ] when (exchange name).Secrets |> List.exists (fun one -> one.Setting = key) ->
        (exchange name).Secrets
        |> List.find (fun one -> one.Setting = key)
        |> fun one -> $"A secret: {one.Holds}. `${{VARIABLE}}`, or `file:PATH`. Default none."
    | _ ->
        match property it key with
        | Some one -> meaning it one
        | None -> spoken |> Map.tryFind key |> Option.defaultValue ""

[<Test>]
let ``the configuration reference is what the settings say`` () =
    let keys = Settings.keys Setup.known

    let shown (path: string list) =
        (String.concat "." path).Replace(".[]", "[]")

    let isSection (key: Yaml.Key) = key.Takes = ""

    let above (key: Yaml.Key) =
        List.take (key.Path.Length - 1) key.Path

    for key in keys do
        Assert.That(means key.Path, Is.Not.Empty, $"{shown key.Path} has no word about what it is for")

    let sections = keys |> List.map above |> List.distinct

    holds "configuration.md" [
        for section in sections do
            let held =
                keys |> List.filter (fun key -> above key = section && not (isSection key))

            if not held.IsEmpty then
                match section with
                | [] -> "## The whole"
                | path -> $"## `{shown path}`"

                ""

                match section with
                | [] -> ()
                | path ->
                    means (path |> List.filter ((<>) "[]"))
                    ""

                yield!
                    table [ "key"; "takes"; "default"; "meaning" ] [
                        for key in held do
                            [
                                code (List.last key.Path)
                                key.Takes
                                code (key.Value.Trim '"')
                                means key.Path
                            ]
                    ]

                ""
    ]

// ---- the data

/// Columns that one store alone has, and what they mean.
let private onlyThere =
    Map.ofList [
        ("collection_metrics", "collector"), "the configured name of the collector that counted"
    ]

let private viewOf (table: string) =
    SqliteSchema.views
    |> List.find (fun view -> view.Name = table + "_readable" || view.Name = table)

let private tables = Tables.all 3 false

[<Test>]
let ``every column of QuestDB is a column of a view, or said to be there alone`` () =
    for table in tables do
        for column in table.Columns do
            let known =
                (viewOf table.Name).Columns |> List.exists (fun one -> one.Name = column.Name)

            Assert.That(
                known <> onlyThere.ContainsKey((table.Name, column.Name)),
                Is.True,
                $"{table.Name}.{column.Name}"
            )

[<Test>]
let ``what makes a row itself is the same in both stores`` () =
    for table in tables do
        let keys = table.Columns.Head.Name :: table.Keys |> List.sort
        let identity = (viewOf table.Name).Identity |> List.sort
        // QuestDB has the market beside a token, and the moment that it needs in every key.
        let more = List.except identity keys

        Assert.That(List.except keys identity, Is.Empty, table.Name)
        let needed = if table.Name = "own_trades" then "at" else "received"
        Assert.That(List.except [ "market"; needed; "collector" ] more, Is.Empty, table.Name)

[<Test>]
let ``the data dictionary is what the schema says`` () =
    let withFile work =
        let folder = Directory.CreateTempSubdirectory("tributary-schema-").FullName

        try
            use db = new Connection(Path.Combine(folder, "schema.db"), Access.Write)
            SqliteSchema.migrate SqliteSchema.steps SqliteSchema.views db
            work db
        finally
            Directory.Delete(folder, true)

    let columnsOf view =
        withFile (fun db ->
            use statement = db.Prepare $"SELECT name FROM pragma_table_info('{view}')"
            statement.Rows(fun row -> row.Text 0))

    holds "data.md" [
        for view in SqliteSchema.views do
            let name = view.Name.Replace("_readable", "")
            let table' = tables |> List.tryFind (fun table -> table.Name = name)
            let meanings = view.Columns |> List.map (fun one -> one.Name, one.Meaning)

            let inQuestDb =
                table'
                |> Option.map _.Columns
                |> Option.defaultValue []
                |> List.map (fun one -> one.Name, string one.Kind)
                |> Map.ofList

            // The file itself is asked, so that a column that is not there cannot be told of.
            let inSqlite = columnsOf view.Name
            equal (List.map fst meanings) inSqlite

            $"## `{name}`"
            ""
            $"A row is {view.Row}."
            ""

            let identity = view.Identity |> List.map code |> String.concat ", "
            $"- What makes it itself: {identity}"
            $"- SQLite: the view `{view.Name}`"

            match table' with
            | Some table ->
                let designated = table.Columns.Head.Name
                let partition = (string table.Partition).ToLowerInvariant()
                $"- QuestDB: the table `{name}`, its timestamp `{designated}`, partitioned by {partition}"
            | None -> "- QuestDB: none"

            ""

            yield!
                table [ "column"; "QuestDB"; "meaning" ] [
                    for name, meaning in meanings do
                        [
                            code name
                            inQuestDb |> Map.tryFind name |> Option.map code |> Option.defaultValue ""
                            meaning
                        ]

                    for KeyValue((table, column), meaning) in onlyThere do
                        if table = name then
                            [ code column; code inQuestDb[column]; $"{meaning} (QuestDB alone)" ]
                ]

            ""
    ]

[<Test>]
let ``README has the table of exchanges`` () =
    let path = Path.Combine(root, "README.md")
    let page = File.ReadAllText path
    let head, tail = "<!-- tributary exchanges -->\n", "<!-- end -->"
    let at = page.IndexOf head + head.Length
    Assert.That(at, Is.GreaterThan head.Length, "README.md has no such mark")

    let made =
        [
            for headings, rows in Tributary.Cli.Exchanging.tables.Value ->
                String.concat "\n" (table headings rows)
        ]
        |> String.concat "\n\n"

    let whole =
        page.Substring(0, at) + made + "\n" + page.Substring(page.IndexOf(tail, at))

    if Environment.GetEnvironmentVariable "TRIBUTARY_GOLDEN" = "write" then
        File.WriteAllText(path, whole)

    Assert.That(File.ReadAllText path, Is.EqualTo whole, "out of date: run 'dotnet fsi build.fsx docs'")
