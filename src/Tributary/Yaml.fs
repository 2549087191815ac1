namespace Tributary

open System
open System.Globalization
open System.IO
open System.Text
open System.Text.RegularExpressions
open YamlDotNet.Core

/// One thing that is wrong in the configuration, where it is, and what to do about it. Lines and columns count from
/// one; line zero means the file as a whole.
type Mistake = {
    File: string
    Line: int
    Column: int
    Message: string
}

/// How a mistake is shown.
[<RequireQualifiedAccess>]
module Mistake =
    /// `file:line:column: message`, the form that terminals and editors turn into a link.
    let render mistake =
        if mistake.Line = 0 then
            $"{mistake.File}: {mistake.Message}"
        else
            $"{mistake.File}:{mistake.Line}:{mistake.Column}: {mistake.Message}"

/// YAML whose every node knows where it was written: parsed, merged in layers, filled in from the environment, and read
/// by a schema that names every mistake in one go. Knows no setting.
[<RequireQualifiedAccess>]
module Yaml =
    /// Where something was written; lines and columns count from one.
    [<Struct>]
    type Place = { File: string; Line: int; Column: int }

    /// A text as it stands in the file (`Written`) and with its `${…}` filled in (`Text`).
    type Scalar = {
        Place: Place
        Written: string
        Text: string
    }

    /// A located YAML tree. `Empty` is a key without a value (or `null`, or `~`): it says nothing.
    [<RequireQualifiedAccess>]
    type Node =
        | Empty of Place
        | Scalar of Scalar
        | Sequence of Place * Node list
        | Mapping of Place * Entry list

    /// One key of a mapping, where the key stands, and its value.
    and Entry = { Key: string; At: Place; Node: Node }

    /// Hears of a mistake at a place.
    type Report = Place -> string -> unit

    let private placeOf node =
        match node with
        | Node.Empty place
        | Node.Sequence(place, _)
        | Node.Mapping(place, _) -> place
        | Node.Scalar scalar -> scalar.Place

    // ---- parsing

    /// What the parser says, with a remedy for the two traps that people fall into, at the line where they did.
    let private syntax file (text: string) (mark: Mark) (message: string) =
        let lines = text.Split '\n'

        match lines |> Array.tryFindIndex (fun line -> Regex.IsMatch(line, @"^ *\t")) with
        // NOTE: the parser places a tab at the start of the block around it, not where it stands.
        | Some tab when message.Contains "tab" ->
            {
                File = file
                Line = tab + 1
                Column = 1
            },
            "not valid YAML: indent with spaces, not with tabs"
        | _ ->
            let line = Math.Clamp(int mark.Line, 1, lines.Length)

            let hint =
                if lines[line - 1].Contains "${" then
                    "; inside [ ] and { } a ${VARIABLE} needs quotes around it"
                else
                    ""

            {
                File = file
                Line = line
                Column = max 1 (int mark.Column)
            },
            $"not valid YAML: {message.TrimEnd '.'}{hint}"

    /// The events of a file, without the stream's own punctuation; or where and why it stops being YAML.
    let private events (text: string) =
        let parser = Parser(new StringReader(text))

        let rec go found =
            if parser.MoveNext() then
                match parser.Current with
                | null
                | :? Events.StreamStart
                | :? Events.StreamEnd
                | :? Events.DocumentEnd -> go found
                | event -> go (event :: found)
            else
                Ok(List.rev found)

        try
            go []
        with
        | :? YamlException as error -> Error(error.Start, error.Message)
        // NOTE: YamlDotNet 16 answers an unclosed bracket before a key with this, and without a place.
        | :? InvalidOperationException ->
            let mark =
                match parser.Current with
                | null -> Mark.Empty
                | event -> event.End

            Error(mark, "a [ or { that is opened here is not closed")

    /// A file as a tree. What is not valid YAML is reported, and the file counts as empty. Aliases and tags are refused:
    /// what is written is the value, where it is written.
    let parse (report: Report) file (text: string) : Node =
        let place (mark: Mark) = {
            File = file
            Line = int mark.Line
            Column = int mark.Column
        }

        // Each takes what it needs off the events and hands on the rest. The parser's events are balanced.
        let rec node (events: Events.ParsingEvent list) =
            match events with
            | [] -> Node.Empty(place Mark.Empty), []
            | event :: rest ->
                let at = place event.Start

                match event with
                | :? Events.NodeEvent as tagged when not tagged.Tag.IsEmpty ->
                    report at "a tag (!name) is not read here; write the value alone"
                | _ -> ()

                match event with
                | :? Events.Scalar as scalar ->
                    match scalar.Style, scalar.Value with
                    | ScalarStyle.Plain, ("" | "~" | "null") -> Node.Empty at, rest
                    | _, value ->
                        let scalar = {
                            Place = at
                            Written = value
                            Text = value
                        }

                        Node.Scalar scalar, rest
                | :? Events.SequenceStart ->
                    let found, rest = items [] rest
                    Node.Sequence(at, found), rest
                | :? Events.MappingStart ->
                    let found, rest = entries [] rest
                    Node.Mapping(at, found), rest
                | _ ->
                    report at "an alias (*name) is not read here; write the value out"
                    Node.Empty at, rest

        and items found events =
            match events with
            | [] -> List.rev found, []
            | (:? Events.SequenceEnd) :: rest -> List.rev found, rest
            | _ ->
                let item, rest = node events
                items (item :: found) rest

        and entries found events =
            match events with
            | [] -> List.rev found, []
            | (:? Events.MappingEnd) :: rest -> List.rev found, rest
            | _ ->
                let key, rest = node events
                let value, rest = node rest

                match key with
                | Node.Scalar { Text = name; Place = at } ->
                    match found |> List.tryFind (fun entry -> entry.Key = name) with
                    | None -> entries ({ Key = name; At = at; Node = value } :: found) rest
                    | Some first ->
                        let line = first.At.Line
                        report at $"duplicate key '{name}', first given in line {line}; keep one of them"
                        entries found rest
                | other ->
                    report (placeOf other) "expected a key, a plain name"
                    entries found rest

        let text = text.TrimStart '\uFEFF'

        match events text with
        | Error(mark, message) ->
            syntax file text mark message ||> report
            Node.Empty(place Mark.Empty)
        | Ok [] -> Node.Empty(place Mark.Empty)
        | Ok(_ :: events) -> // the document's start, and what is in it
            let tree, rest = node events

            match rest with
            | [] -> ()
            | second :: _ ->
                report (place second.Start) "only the first document of a file is read; remove '---'"

            tree

    // ---- layers and the environment

    /// The later layer over the earlier one: mappings merge key by key, all else is replaced, except that the sequences
    /// under a key for which `joins` holds are concatenated. An empty value leaves what was there. A mapping's keys come
    /// in the order in which they were last given.
    let rec merge (joins: string -> bool) (earlier: Node) (later: Node) : Node =
        match earlier, later with
        | _, Node.Empty _ -> earlier
        | Node.Mapping(_, old), Node.Mapping(place, fresh) ->
            let given key (entries: Entry list) =
                entries |> List.tryFind (fun entry -> entry.Key = key)

            let kept = old |> List.filter (fun entry -> (given entry.Key fresh).IsNone)

            let merged =
                fresh
                |> List.map (fun entry ->
                    match given entry.Key old, entry.Node with
                    | Some { Node = Node.Sequence(_, before) }, Node.Sequence(at, after) when joins entry.Key -> {
                        entry with
                            Node = Node.Sequence(at, before @ after)
                      }
                    | Some before, node -> {
                        entry with
                            Node = merge joins before.Node node
                      }
                    | None, _ -> entry)

            Node.Mapping(place, kept @ merged)
        | _ -> later

    let private reference =
        Regex @"\$\$\{|\$\{(?<name>[A-Za-z_][A-Za-z0-9_]*)(:(?<default>[^}]*))?\}|\$\{"

    /// Fills in `${VARIABLE}` and `${VARIABLE:default}`, also in the middle of a text; `$${` stands for `${`. A variable
    /// that is set to nothing counts as not set; a text that comes out empty, as an empty value.
    let rec substitute (environment: string -> string option) (report: Report) (node: Node) : Node =
        match node with
        | Node.Empty _ -> node
        | Node.Sequence(at, items) -> Node.Sequence(at, items |> List.map (substitute environment report))
        | Node.Mapping(at, entries) ->
            let filled =
                entries
                |> List.map (fun entry -> {
                    entry with
                        Node = substitute environment report entry.Node
                })

            Node.Mapping(at, filled)
        | Node.Scalar scalar ->
            let faults = ResizeArray<string>()

            let fault message =
                faults.Add message
                ""

            let fill (found: Match) =
                let name, fallback = found.Groups["name"].Value, found.Groups["default"]

                match found.Value with
                | "$${" -> "${"
                | "${" ->
                    fault "expected ${VARIABLE} or ${VARIABLE:default}; a '${' of its own is written '$${'"
                | _ ->
                    match environment name with
                    | Some value when value <> "" -> value
                    | _ when fallback.Success -> fallback.Value
                    | _ ->
                        fault
                            $"the environment variable {name} is not set; set it, or write ${{{name}:default}}"

            let text = reference.Replace(scalar.Written, fill)

            for message in faults do
                report scalar.Place message

            if faults.Count > 0 || (text = "" && scalar.Written <> "") then
                Node.Empty scalar.Place
            else
                Node.Scalar { scalar with Text = text }

    // ---- kinds of values

    /// What a kind of value is called, how it is read, and how it is written so that it is read again.
    [<NoComparison; NoEquality>]
    type Kind<'t> = {
        Noun: string
        Parse: Scalar -> Result<'t, string>
        Print: 't -> string
    }

    /// What a message may quote: nothing that came from the environment, and nothing that looks like `user:password@host`.
    let private quotable scalar =
        if scalar.Written.Contains '@' then
            "something with an '@', not shown as it may hold a password"
        elif scalar.Written <> scalar.Text then
            $"the value of '{scalar.Written}'"
        elif scalar.Text.Length > 80 then
            $"'{scalar.Text.Substring(0, 80)}…'"
        else
            $"'{scalar.Text}'"

    let private escape (text: string) = text.Replace("${", "$${")

    /// A kind from a parser that may say no; the example follows the noun in the message.
    let kind noun example (parse: string -> 't option) (print: 't -> string) : Kind<'t> = {
        Noun = noun
        Parse =
            fun scalar ->
                match parse scalar.Text with
                | Some value -> Ok value
                | None -> Error $"expected {noun}{example}; got {quotable scalar}"
        Print = print >> escape
    }

    /// The same kind, from the one value to the other, both included.
    let within (least: 't) (most: 't) (kind: Kind<'t>) =
        let noun = $"{kind.Noun} from {kind.Print least} to {kind.Print most}"

        {
            kind with
                Noun = noun
                Parse =
                    fun scalar ->
                        match kind.Parse scalar with
                        | Ok value when not (least <= value && value <= most) ->
                            Error $"expected {noun}; got {quotable scalar}"
                        | parsed -> parsed
        }

    let private tried (parsed: bool, value: 't) = if parsed then Some value else None
    let private invariant = CultureInfo.InvariantCulture

    /// `true` or `false`.
    let flag =
        kind "true or false" "" (Boolean.TryParse >> tried) (fun yes -> if yes then "true" else "false")

    /// A whole number without separators.
    let whole =
        kind
            "a whole number"
            ""
            (fun text -> Int32.TryParse(text, NumberStyles.AllowLeadingSign, invariant) |> tried)
            string<int>

    /// An exact number such as 0.001.
    let exact =
        kind
            "a number"
            ""
            (fun text ->
                let style = NumberStyles.AllowLeadingSign ||| NumberStyles.AllowDecimalPoint
                Decimal.TryParse(text, style, invariant) |> tried)
            (fun value -> value.ToString invariant)

    /// A number that need not be exact, such as a share.
    let real =
        kind
            "a number"
            ""
            (fun text -> Double.TryParse(text, NumberStyles.Float, invariant) |> tried)
            (fun value -> value.ToString("R", invariant))

    /// A text on one line that is not blank.
    let text =
        kind
            "a text on one line"
            ""
            (fun text ->
                if String.IsNullOrWhiteSpace text || Seq.exists Char.IsControl text then
                    None
                else
                    Some text)
            id

    /// A text that a pattern matches whole.
    let matching noun example pattern =
        let whole = Regex $@"\A(?:{pattern})\z"
        kind noun example (fun text -> if whole.IsMatch text then Some text else None) id

    /// One of a few names.
    let choice (names: (string * 't) list) =
        let listed = names |> List.map fst |> String.concat ", "

        kind
            $"one of {listed}"
            ""
            (fun text -> names |> List.tryFind (fun (name, _) -> name = text) |> Option.map snd)
            (fun value -> names |> List.find (fun (_, named) -> named = value) |> fst)

    let private units = [ "d", 86_400_000L; "h", 3_600_000L; "m", 60_000L; "s", 1_000L; "ms", 1L ]

    let private durations =
        units
        |> List.map (fun (unit, _) -> $@"(?:(?<{unit}>[0-9]{{1,9}}){unit})?")
        |> String.concat ""
        |> fun pattern -> Regex $@"\A{pattern}\z"

    /// A duration such as `250ms`, `10s`, `5m` or `1h30m`; nothing when the text is none.
    let tryDuration (text: string) =
        let found = durations.Match text

        let total =
            units
            |> List.sumBy (fun (unit, length) ->
                let count = found.Groups[unit].Value
                if count = "" then 0L else int64 count * length)

        if
            text <> ""
            && found.Success
            && total < TimeSpan.MaxValue.Ticks / TimeSpan.TicksPerMillisecond
        then
            Some(TimeSpan.FromMilliseconds(float total))
        else
            None

    let duration =
        let print (span: TimeSpan) =
            let parts, _ =
                (int64 span.TotalMilliseconds, units)
                ||> List.mapFold (fun left (unit, length) ->
                    let part = if left >= length then $"{left / length}{unit}" else ""
                    part, left % length)

            match String.concat "" parts with
            | "" -> "0s"
            | printed -> printed

        kind "a duration" " such as 10s, 5m or 1h" tryDuration print

    let private sizes = [ "GB", 1_000_000_000L; "MB", 1_000_000L; "KB", 1_000L; "B", 1L ]

    /// A number of bytes with its unit: B, KB, MB or GB, each a thousand of the one before.
    let bytes =
        let pattern = Regex @"\A([0-9]{1,9})(B|KB|MB|GB)\z"

        let parse text =
            let found = pattern.Match text

            if found.Success then
                sizes
                |> List.tryFind (fun (unit, _) -> unit = found.Groups[2].Value)
                |> Option.map (fun (_, length) -> int64 found.Groups[1].Value * length)
            else
                None

        let print count =
            let unit, length = sizes |> List.find (fun (_, length) -> count % length = 0L)
            $"{count / length}{unit}"

        kind "a size" " such as 512KB or 64MB" parse print

    /// The root of a service, `http` or `https`, without user, query or fragment. Its path always ends in a slash, so that
    /// relative addresses go below it.
    let url =
        let parse (text: string) =
            match Uri.TryCreate(text.TrimEnd '/' + "/", UriKind.Absolute) with
            | true, NonNull uri when
                List.contains uri.Scheme [ "http"; "https"; "ws"; "wss" ]
                && uri.UserInfo + uri.Query + uri.Fragment = ""
                ->
                Some uri
            | _ -> None

        let print (uri: Uri) = uri.AbsoluteUri.TrimEnd '/'
        kind "a URL" " such as https://example.com, without user or query" parse print

    // ---- reading

    /// How many letters must be changed, added, dropped or swapped with their neighbour to make one word of the other.
    let distance (one: string) (other: string) =
        let table =
            Array2D.init (one.Length + 1) (other.Length + 1) (fun i j ->
                if i = 0 then j
                elif j = 0 then i
                else 0)

        for i in 1 .. one.Length do
            for j in 1 .. other.Length do
                let cost = if one[i - 1] = other[j - 1] then 0 else 1

                let plain =
                    min (min (table[i - 1, j] + 1) (table[i, j - 1] + 1)) (table[i - 1, j - 1] + cost)

                let swapped =
                    if i > 1 && j > 1 && one[i - 1] = other[j - 2] && one[i - 2] = other[j - 1] then
                        table[i - 2, j - 2] + 1
                    else
                        plain

                table[i, j] <- min plain swapped

        table[one.Length, other.Length]

    /// What is said of a key that there is none of, with the key that was probably meant.
    let unknown (keys: seq<string>) (key: string) =
        match keys |> Seq.sortBy (distance key) |> Seq.tryHead with
        | Some near when distance key near <= max 1 (min 2 (key.Length / 3)) ->
            $"unknown key '{key}'; did you mean '{near}'?"
        | _ ->
            let listed = String.concat ", " keys
            $"unknown key '{key}'; the keys here are: {listed}"

    let private plain = Regex @"\A[A-Za-z0-9/](?:[A-Za-z0-9_./:+-]*[A-Za-z0-9_./+-])?\z"

    /// A scalar as YAML: plain where nothing can be mistaken, else in quotes.
    let internal quoted (text: string) =
        if plain.IsMatch text && text <> "null" then
            text
        else
            let written = StringBuilder "\""

            for rune in text.EnumerateRunes() do
                match rune.Value with
                | 0x22
                | 0x5C -> written.Append('\\').Append(rune.ToString())
                | code when (code >= 0x20 && code < 0x7F) || Rune.IsLetterOrDigit rune ->
                    written.Append(rune.ToString())
                | code -> written.Append $"\\U%08X{code}"
                |> ignore

            written.Append('"').ToString()

    /// A key that was read: where it stands (an item of a list as `[]`), what it takes (nothing: keys of its own), and its value as YAML.
    type Key = {
        Path: string list
        Takes: string
        Value: string
    }

    /// What reading writes down: the values as lines of YAML, and every key there is, those of items of empty lists included.
    type Written = {
        Lines: ResizeArray<string>
        Keys: ResizeArray<Key>
    }

    /// One mapping while it is being read. Every read names a key, the kind of its value and what counts when it is not
    /// given; mistakes are reported and reading goes on. What was read is also written down as YAML, so that the one schema
    /// that reads settings describes them too.
    [<Sealed>]
    type Section
        private
        (
            place: Place,
            entries: Entry list,
            report: Report,
            path: string list,
            indent: string,
            written: Written
        ) =
        let known = ResizeArray<string>()

        let find key =
            known.Add key

            entries
            |> List.tryFind (fun entry -> entry.Key = key)
            |> Option.map _.Node
            |> Option.defaultValue (Node.Empty place)

        let write key takes value =
            written.Lines.Add($"{indent}{key}: {value}".TrimEnd())

            written.Keys.Add {
                Path = path @ [ key ]
                Takes = takes
                Value = value
            }

        let refuse expected node =
            let got =
                match node with
                | Node.Sequence _ -> "a list"
                | Node.Mapping _ -> "a map"
                | _ -> "a single value"

            report (placeOf node) $"expected {expected}; got {got}"

        let parse (kind: Kind<'t>) node =
            match node with
            | Node.Empty _ -> None
            | Node.Scalar scalar ->
                match kind.Parse scalar with
                | Ok value -> Some value
                | Error message ->
                    report scalar.Place message
                    None
            | other ->
                refuse kind.Noun other
                None

        let inside node path indent written (read: Section -> 't) =
            let place, entries, report =
                match node with
                | Node.Mapping(place, entries) -> place, entries, report
                | Node.Empty place -> place, [], report
                | other ->
                    refuse "a map of keys and values" other
                    placeOf other, [], (fun _ _ -> ()) // one mistake is enough

            let section = Section(place, entries, report, path, indent, written)
            let value = read section
            section.Close()
            value

        /// Reads a whole tree; answers the value and its description.
        static member Root (report: Report) (tree: Node) (read: Section -> 't) : 't * Written =
            let written = {
                Lines = ResizeArray()
                Keys = ResizeArray()
            }

            let nowhere = { File = ""; Line = 0; Column = 0 }

            let above =
                Section(
                    nowhere,
                    [
                        {
                            Key = ""
                            At = placeOf tree
                            Node = tree
                        }
                    ],
                    report,
                    [],
                    "",
                    written
                )

            above.Whole read, written

        member private _.Whole(read: Section -> 't) = inside (find "") [] "" written read

        member private _.Close() =
            for entry in entries do
                if not (known.Contains entry.Key) then
                    report entry.At (unknown known entry.Key)

        /// One value.
        member _.Read(key, kind: Kind<'t>, fallback: 't) : 't =
            let value = find key |> parse kind |> Option.defaultValue fallback
            write key kind.Noun (quoted (kind.Print value))
            value

        /// One value that may be missing.
        member _.TryRead(key, kind: Kind<'t>, fallback: 't option) : 't option =
            let value = find key |> parse kind |> Option.orElse fallback
            write key kind.Noun (value |> Option.map (kind.Print >> quoted) |> Option.defaultValue "")
            value

        /// A list of values.
        member _.ReadAll(key, kind: Kind<'t>, fallback: 't list) : 't list =
            let values =
                match find key with
                | Node.Empty _ -> fallback
                | Node.Sequence(_, items) -> items |> List.choose (parse kind)
                | other ->
                    refuse "a list such as [a, b]" other
                    fallback

            let listed = values |> List.map (kind.Print >> quoted) |> String.concat ", "
            write key $"a list of {kind.Noun}" $"[{listed}]"
            values

        /// A mapping below this one.
        member _.Within(key, read: Section -> 't) : 't =
            let node = find key
            write key "" ""
            inside node (path @ [ key ]) (indent + "  ") written read

        /// A list of mappings. A new item starts from `blank`.
        member _.Each(key, blank: 't, fallback: 't list, read: 't -> Section -> 't) : 't list =
            let inItem = path @ [ key; "[]" ]

            let item node before =
                let parts = {
                    Lines = ResizeArray()
                    Keys = ResizeArray()
                }

                let value = inside node inItem "" parts (read before)

                // A part that ends in a colon has no value: a value that ended so would stand in quotes.
                let given =
                    parts.Lines
                    |> Seq.filter (fun part -> not (part.EndsWith ':'))
                    |> String.concat ", "

                value, $"{indent}  - {{{given}}}"

            let items =
                match find key with
                | Node.Empty _ -> fallback |> List.map (item (Node.Empty place))
                | Node.Sequence(_, items) -> items |> List.map (fun node -> item node blank)
                | other ->
                    refuse "a list of maps" other
                    []

            write key "a list of maps" (if items.IsEmpty then "[]" else "")
            written.Lines.AddRange(items |> List.map snd)

            // What an item may say, told of one that says nothing: its mistakes are nobody's.
            Section(place, [], (fun _ _ -> ()), inItem, "", { written with Lines = ResizeArray() })
            |> read blank
            |> ignore

            List.map fst items

        /// Which of the keys are given here.
        member _.Given(keys: string list) =
            entries |> List.map _.Key |> List.filter (fun key -> List.contains key keys)

        /// Reports a mistake that several keys make together, at the one that was given last.
        member _.Refuse(keys: string list, message) =
            let at =
                entries
                |> List.tryFindBack (fun entry -> List.contains entry.Key keys)
                |> Option.map (fun entry -> placeOf entry.Node)

            report (Option.defaultValue place at) message
