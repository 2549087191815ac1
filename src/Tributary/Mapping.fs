namespace Tributary

open System
open System.Collections.Generic
open System.IO
open System.Text

/// An outcome of a market in the mapping.
type MappedOutcome = {
    Exchange: ExchangeId
    Market: MarketId
    /// The exchange's key of the outcome; nothing where the mapping says its name alone.
    Token: TokenId voption
    /// Its name; empty where the mapping says its key alone.
    Outcome: string
    At: Yaml.Place
}

/// A question that markets of several exchanges ask, and which of their outcomes are which answer.
type MappedQuestion = {
    Name: string
    ConfirmedAt: Instant voption
    /// In the order of the file; outcomes of one answer pay in the same case.
    Answers: (string * MappedOutcome list) list
    At: Yaml.Place
}

/// What a person said of which markets ask the same.
type Mapping = {
    Questions: MappedQuestion list
    /// Markets that do not ask the same, whatever it looks like.
    Refused: (struct (ExchangeId * MarketId)) list list
}

/// The file in which a person says which markets ask the same: read with all mistakes at once, added to without touching what stands there,
/// and compared with what a store knows of it. The only functions here that touch a disk are `read` and `write`.
[<RequireQualifiedAccess>]
module Mapping =
    let empty: Mapping = { Questions = []; Refused = [] }

    /// Its name in a configuration folder.
    [<Literal>]
    let FileName = "matches.yaml"

    /// The mapping of a configuration: in its folder, or beside its file.
    let beside (configuration: string) =
        if File.Exists configuration then
            let folder =
                Path.GetDirectoryName configuration |> Option.ofObj |> Option.defaultValue ""

            Path.Combine(folder, FileName)
        else
            Path.Combine(configuration, FileName)

    /// `exchange:market`, as a person names a market.
    let refOf (exchange: ExchangeId) (market: MarketId) = $"{exchange}:{market}"

    /// The two parts of `exchange:market`; the market may have more colons.
    let tryRef (text: string) : Result<struct (ExchangeId * MarketId), string> =
        let written = $"expected exchange:market, such as kalshi:KXFED-27MAR; got '{text}'"

        match text.IndexOf ':' with
        | -1 -> Error written
        | at ->
            match ExchangeId.Parse(text.Substring(0, at)), MarketId.Parse(text.Substring(at + 1)) with
            | Ok exchange, Ok market -> Ok(struct (exchange, market))
            | _ -> Error written

    // ---- reading

    let private placeOf (node: Yaml.Node) =
        match node with
        | Yaml.Node.Empty place
        | Yaml.Node.Sequence(place, _)
        | Yaml.Node.Mapping(place, _) -> place
        | Yaml.Node.Scalar scalar -> scalar.Place

    let private outcomeKeys = [ "exchange"; "market"; "token"; "outcome" ]
    let private questionKeys = [ "confirmed_at"; "answers" ]
    let private rootKeys = [ "questions"; "refused" ]

    /// The tree of a file, and what it says. Every mistake is told.
    let private understand (exchanges: string list) (report: Yaml.Report) (tree: Yaml.Node) : Mapping =
        let entriesOf expected (node: Yaml.Node) =
            match node with
            | Yaml.Node.Mapping(_, entries) -> entries
            | Yaml.Node.Empty _ -> []
            | other ->
                report (placeOf other) $"expected {expected}"
                []

        let checkKeys keys (entries: Yaml.Entry list) =
            for entry in entries do
                if not (List.contains entry.Key keys) then
                    report entry.At (Yaml.unknown keys entry.Key)

        let textOf what (node: Yaml.Node) =
            match node with
            | Yaml.Node.Scalar scalar when not (String.IsNullOrWhiteSpace scalar.Text) -> Some scalar.Text
            | other ->
                report (placeOf other) $"expected {what}, a text on one line"
                None

        let child key (entries: Yaml.Entry list) =
            entries |> List.tryFind (fun entry -> entry.Key = key) |> Option.map _.Node

        let identified what (parse: string -> Result<'T, string>) (node: Yaml.Node) =
            textOf what node
            |> Option.bind (fun text ->
                match parse text with
                | Ok id -> Some id
                | Error message ->
                    report (placeOf node) message
                    None)

        let knownExchange node =
            identified "an exchange" ExchangeId.Parse node
            |> Option.filter (fun exchange ->
                let isKnown = List.contains (string exchange) exchanges

                if not isKnown then
                    let listed = String.concat ", " exchanges
                    report (placeOf node) $"there is no exchange '{exchange}'; there are: {listed}"

                isKnown)

        let outcome (node: Yaml.Node) : MappedOutcome option =
            let at = placeOf node

            let entries =
                match node with
                | Yaml.Node.Mapping(_, entries) -> entries
                | other ->
                    report
                        (placeOf other)
                        "expected an outcome such as { exchange: kalshi, market: KXFED-27MAR, outcome: Yes }"

                    []

            if entries.IsEmpty then
                None
            else
                checkKeys outcomeKeys entries

                let need key what read =
                    match child key entries with
                    | Some node -> read node
                    | None ->
                        report at $"an outcome needs {what}: add '{key}: …'"
                        None

                let exchange = need "exchange" "its exchange" knownExchange
                let market = need "market" "its market" (identified "a market" MarketId.Parse)
                let token = child "token" entries |> Option.map (identified "a token" TokenId.Parse)
                let name = child "outcome" entries |> Option.map (textOf "the name of an outcome")

                if token.IsNone && name.IsNone then
                    report at "an outcome needs 'token: …', the exchange's key, or 'outcome: …', its name"

                match exchange, market, Option.flatten token, Option.flatten name with
                | Some exchange, Some market, token, name when token.IsSome || name.IsSome ->
                    Some {
                        Exchange = exchange
                        Market = market
                        Token = ValueOption.ofOption token
                        Outcome = Option.defaultValue "" name
                        At = at
                    }
                | _ -> None

        let answer (entry: Yaml.Entry) =
            let outcomes =
                match entry.Node with
                | Yaml.Node.Sequence(_, items) -> items |> List.choose outcome
                | Yaml.Node.Empty at ->
                    report at $"answer '{entry.Key}' has no outcomes: list them below it, each behind a '-'"
                    []
                | other ->
                    report (placeOf other) "expected a list of outcomes, each behind a '-'"
                    []

            entry.Key, outcomes

        let question (entry: Yaml.Entry) : MappedQuestion =
            let entries =
                entriesOf "a question: a map of 'confirmed_at' and 'answers'" entry.Node

            checkKeys questionKeys entries

            let confirmed =
                child "confirmed_at" entries
                |> Option.bind (fun node ->
                    match node with
                    | Yaml.Node.Empty _ -> None
                    | _ ->
                        textOf "a time" node
                        |> Option.bind (fun text ->
                            let mutable at = Instant.ofMicros 0L

                            if Instant.tryIso (ReadOnlySpan(Encoding.UTF8.GetBytes text)) &at then
                                Some at
                            else
                                report
                                    (placeOf node)
                                    $"expected a time such as 2026-11-01T12:00:00Z; got '{text}'"

                                None))

            let answers =
                match child "answers" entries with
                | Some node ->
                    entriesOf "answers: a map of each answer to its outcomes" node
                    |> List.map answer
                | None ->
                    report entry.At $"question '{entry.Key}' has no answers: add 'answers:' below it"
                    []

            // Two answers of one question never pay together.
            let seen =
                Dictionary<struct (ExchangeId * MarketId * string), struct (string * int)>()

            for name, outcomes in answers do
                for one in outcomes do
                    let key =
                        match one.Token with
                        | ValueSome token -> $"token {token}"
                        | ValueNone -> $"outcome {one.Outcome.ToLowerInvariant()}"

                    match seen.TryGetValue(struct (one.Exchange, one.Market, key)) with
                    | true, struct (other, line) ->
                        report
                            one.At
                            $"{key} of {refOf one.Exchange one.Market} stands under answer '{other}' already, in line {line}: keep one of them"
                    | _ -> seen[struct (one.Exchange, one.Market, key)] <- struct (name, one.At.Line)

            {
                Name = entry.Key
                ConfirmedAt = ValueOption.ofOption confirmed
                Answers = answers
                At = entry.At
            }

        let refusal (node: Yaml.Node) =
            match node with
            | Yaml.Node.Sequence(at, items) ->
                let refs =
                    items
                    |> List.choose (fun item ->
                        textOf "a market" item
                        |> Option.bind (fun text ->
                            match tryRef text with
                            | Ok found -> Some found
                            | Error message ->
                                report (placeOf item) message
                                None))

                if items.Length < 2 then
                    report at "expected two markets or more, such as [polymarket:0x12, kalshi:KXFED-27MAR]"

                refs
            | other ->
                report
                    (placeOf other)
                    "expected a list of markets that do not ask the same, such as [polymarket:0x12, kalshi:KXFED-27MAR]"

                []

        let root = entriesOf "a map of 'questions' and 'refused'" tree
        checkKeys rootKeys root

        {
            Questions =
                child "questions" root
                |> Option.map (entriesOf "a map of each question's name to the question" >> List.map question)
                |> Option.defaultValue []
            Refused =
                match child "refused" root with
                | None
                | Some(Yaml.Node.Empty _) -> []
                | Some(Yaml.Node.Sequence(_, items)) -> items |> List.map refusal
                | Some other ->
                    report (placeOf other) "expected a list, each of whose items is a list of markets"
                    []
        }

    /// What a mapping's text says, or every mistake in it. `exchanges` are the names that there are.
    let parse (exchanges: string list) (file: string) (text: string) : Result<Mapping, Mistake list> =
        let mistakes = ResizeArray<Mistake>()

        let report (place: Yaml.Place) message =
            mistakes.Add {
                File = file
                Line = place.Line
                Column = place.Column
                Message = message
            }

        let mapping = Yaml.parse report file text |> understand exchanges report

        if mistakes.Count = 0 then
            Ok mapping
        else
            mistakes
            |> Seq.sortBy (fun mistake -> mistake.Line, mistake.Column)
            |> List.ofSeq
            |> Error

    let private wrong file message =
        Error [
            {
                File = file
                Line = 0
                Column = 0
                Message = message
            }
        ]

    /// What a mapping's file says, or every mistake in it; nothing where there is no file.
    let read (exchanges: string list) (path: string) : Result<Mapping voption, Mistake list> =
        try
            if File.Exists path then
                parse exchanges path (File.ReadAllText path) |> Result.map ValueSome
            else
                Ok ValueNone
        with
        | :? IOException
        | :? UnauthorizedAccessException as error -> wrong path $"cannot be read: {error.Message}"

    /// Writes a mapping's text, whole or not at all; a link to it stays one.
    let write (path: string) (text: string) : Result<unit, string> =
        try
            let target =
                match
                    if File.Exists path then
                        File.ResolveLinkTarget(path, true)
                    else
                        null
                with
                | null -> Path.GetFullPath path
                | link -> link.FullName

            let folder = string (Path.GetDirectoryName target)
            Directory.CreateDirectory folder |> ignore
            let fresh = target + ".new"
            File.WriteAllText(fresh, text)
            File.Move(fresh, target, true)
            Ok()
        with
        | :? IOException
        | :? UnauthorizedAccessException as error -> Error $"{path} cannot be written: {error.Message}"

    // ---- what is settled

    /// Which pairs of markets a person has spoken of: confirmed under one question, or refused.
    let settled (mapping: Mapping) : Market -> Market -> bool =
        let together =
            HashSet<struct (struct (ExchangeId * MarketId) * struct (ExchangeId * MarketId))>()

        let groups = [
            for question in mapping.Questions do
                [
                    for _, outcomes in question.Answers do
                        for one in outcomes -> struct (one.Exchange, one.Market)
                ]

            yield! mapping.Refused
        ]

        for group in groups do
            for one in group do
                for other in group do
                    together.Add(struct (one, other)) |> ignore

        fun one other ->
            together.Contains(
                struct (struct (one.Exchange, one.Market), struct (other.Exchange, other.Market))
            )

    // ---- what a store does not know yet

    let private sameName (one: string) (other: string) =
        String.Equals(one.Trim(), other.Trim(), StringComparison.OrdinalIgnoreCase)

    /// The token that a description gives an outcome, or what stands for it where the exchange gives none.
    let private tokenOf (market: Market) (name: string) =
        market.Outcomes
        |> Array.tryFind (fun outcome -> sameName outcome.Name name)
        |> Option.bind (fun outcome ->
            match outcome.Token with
            | ValueSome token -> Some token
            | ValueNone -> TokenId.Parse $"{market.Market}:{outcome.Name}" |> Result.toOption)

    /// Whether names of outcomes have to be looked up in the markets.
    let needsMarkets (mapping: Mapping) =
        mapping.Questions
        |> List.exists (fun question ->
            question.Answers
            |> List.exists (fun (_, outcomes) -> outcomes |> List.exists _.Token.IsNone))

    /// The rows that take a store from what it knows to what the mapping says: new matches, and withdrawals of what is no longer said. And what
    /// could not be told yet, because the store does not know a market or its outcome; what it knew of that stays.
    let changes
        (now: Instant)
        (markets: Market list)
        (stored: MarketMatch list)
        (mapping: Mapping)
        : struct (MarketMatch list * Mistake list) =
        let described =
            markets
            |> List.map (fun market -> struct (market.Exchange, market.Market), market)
            |> dict

        let keyOf (row: MarketMatch) =
            struct (row.Question, row.Answer, row.Exchange, row.Market, row.Token)

        let latest =
            stored
            |> List.groupBy keyOf
            |> List.map (fun (key, rows) -> key, rows |> List.maxBy _.At)
            |> dict

        let untold = ResizeArray<Mistake>()
        // Of these nothing is known, and so nothing is withdrawn.
        let open' = HashSet<struct (string * string * ExchangeId * MarketId)>()

        let tokenIn (question: MappedQuestion) answer (one: MappedOutcome) =
            let miss message =
                open'.Add(struct (question.Name, answer, one.Exchange, one.Market)) |> ignore

                untold.Add {
                    File = one.At.File
                    Line = one.At.Line
                    Column = one.At.Column
                    Message = message
                }

                None

            match one.Token with
            | ValueSome token -> Some token
            | ValueNone ->
                match described.TryGetValue(struct (one.Exchange, one.Market)) with
                | false, _ ->
                    miss
                        $"the store does not know the market {refOf one.Exchange one.Market}: collect it first, or add its token"
                | true, market ->
                    match tokenOf market one.Outcome with
                    | Some token -> Some token
                    | None ->
                        let names = market.Outcomes |> Array.map _.Name |> String.concat ", "

                        miss
                            $"the market {refOf one.Exchange one.Market} has no outcome '{one.Outcome}'; it has: {names}"

        let wanted = [
            for question in mapping.Questions do
                for answer, outcomes in question.Answers do
                    for one in outcomes do
                        match tokenIn question answer one with
                        | None -> ()
                        | Some token -> {
                            Exchange = one.Exchange
                            Question = question.Name
                            Answer = answer
                            Market = one.Market
                            Token = token
                            IsWithdrawn = false
                            At = ValueOption.defaultValue now question.ConfirmedAt
                          }
        ]

        let wantedKeys = wanted |> List.map keyOf |> HashSet

        // Behind the latest word on it: of two the later one counts.
        let after (last: MarketMatch) (at: Instant) =
            if at > last.At then
                at
            else
                max now (Instant.ofMicros (last.At.Micros + 1L))

        let rows = [
            for row in wanted do
                match latest.TryGetValue(keyOf row) with
                | true, last when last.IsWithdrawn -> { row with At = after last row.At }
                | true, _ -> ()
                | _ -> row

            for KeyValue(key, last) in latest do
                let kept =
                    open'.Contains(struct (last.Question, last.Answer, last.Exchange, last.Market))

                if not last.IsWithdrawn && not kept && not (wantedKeys.Contains key) then
                    {
                        last with
                            IsWithdrawn = true
                            At = after last now
                    }
        ]

        struct (rows |> List.sortBy (fun row -> struct (row.At, row.IsWithdrawn, keyOf row)),
                List.ofSeq untold)

    // ---- adding to it

    /// A market that is to be confirmed; `IsInverted`: its no is the others' yes.
    type Confirmed = { Market: Market; IsInverted: bool }

    let private shown (market: Market) =
        let names = market.Outcomes |> Array.map _.Name |> String.concat ", "
        $"{refOf market.Exchange market.Market} ({names})"

    /// Which outcomes of the markets are which answer: those that are called the same, in small letters. `known` are the answers that a question
    /// has already. An error says why a person has to write it.
    let answersOf
        (known: string list)
        (markets: Confirmed list)
        : Result<(string * MappedOutcome list) list, string> =
        let nowhere: Yaml.Place = { File = ""; Line = 0; Column = 0 }

        let named (confirmed: Confirmed) =
            let outcomes = List.ofArray confirmed.Market.Outcomes

            let names =
                outcomes |> List.map (fun outcome -> outcome.Name.Trim().ToLowerInvariant())

            List.zip (if confirmed.IsInverted then List.rev names else names) outcomes

        match
            markets
            |> List.tryFind (fun one -> one.IsInverted && one.Market.Outcomes.Length <> 2)
        with
        | Some one ->
            Error $"{shown one.Market} has not two outcomes, so none of them is the other one inverted"
        | None ->
            let first =
                match known with
                | [] -> markets |> List.head |> named |> List.map fst
                | known -> known

            let shared =
                (first, markets)
                ||> List.fold (fun shared one ->
                    let names = named one |> List.map fst
                    shared |> List.filter (fun name -> List.contains name names))

            if shared.IsEmpty then
                let listed = markets |> List.map (_.Market >> shown) |> String.concat " and "
                Error $"no outcome is called the same in {listed}: write into the mapping which is which"
            else
                Ok [
                    for answer in shared do
                        answer,
                        [
                            for one in markets do
                                let outcome = named one |> List.find (fun (name, _) -> name = answer) |> snd

                                {
                                    Exchange = one.Market.Exchange
                                    Market = one.Market.Market
                                    Token = tokenOf one.Market outcome.Name |> ValueOption.ofOption
                                    Outcome = outcome.Name
                                    At = nowhere
                                }
                        ]
                ]

    /// What a new file begins with.
    let head =
        "# Which markets of several exchanges ask the same. Written by 'tributary match --confirm' and '--refuse', and by you: what you write stays.\n"
        + "# Outcomes under one answer pay in the same case. What is taken out here is withdrawn in the store.\n"

    let private lastLineOf (node: Yaml.Node) =
        let rec last node =
            match node with
            | Yaml.Node.Sequence(at, items) -> items |> List.map last |> List.fold max at.Line
            | Yaml.Node.Mapping(at, entries) ->
                entries
                |> List.map (fun entry -> max entry.At.Line (last entry.Node))
                |> List.fold max at.Line
            | other -> (placeOf other).Line

        last node

    let private treeOf text =
        match Yaml.parse (fun _ _ -> ()) "" text with
        | Yaml.Node.Mapping(_, entries) -> entries
        | _ -> []

    let private outcomeLines indent (one: MappedOutcome) = [
        $"{indent}- exchange: {Yaml.quoted (string one.Exchange)}"
        $"{indent}  market: {Yaml.quoted (string one.Market)}"

        if one.Outcome <> "" then
            $"{indent}  outcome: {Yaml.quoted one.Outcome}"

        match one.Token with
        // Always in quotes: some readers make numbers of digits.
        | ValueSome token -> $"{indent}  token: \"{token}\""
        | ValueNone -> ()
    ]

    let private questionLines (indent: string) (question: MappedQuestion) = [
        $"{indent}{Yaml.quoted question.Name}:"

        match question.ConfirmedAt with
        | ValueSome at -> $"{indent}  confirmed_at: {Instant.text at}"
        | ValueNone -> ()

        $"{indent}  answers:"

        for name, outcomes in question.Answers do
            $"{indent}    {Yaml.quoted name}:"

            for one in outcomes do
                yield! outcomeLines (indent + "      ") one
    ]

    /// Puts lines behind a line (from one), and behind the comments that belong to what stands above it.
    let private insertBehind (line: int) (indent: int) (added: string list) (lines: string list) =
        let isComment (text: string) =
            text.TrimStart().StartsWith '#'
            && text.Length - text.TrimStart().Length >= max 1 indent

        let above, below = List.splitAt (min line lines.Length) lines
        let comments = below |> List.takeWhile isComment
        above @ comments @ added @ List.skip comments.Length below

    /// Adds to a section of the root, which is made when it is not there.
    let private addTo (section: string) (text: string) (added: string -> string list) =
        let text =
            if text.Length > 0 && not (text.EndsWith '\n') then
                text + "\n"
            else
                text

        let lines = text.Split '\n' |> List.ofArray

        match treeOf text |> List.tryFind (fun entry -> entry.Key = section) with
        | None -> text + String.concat "\n" ("" :: $"{section}:" :: added "  ") + "\n"
        | Some entry ->
            let written = lines[entry.At.Line - 1]

            match entry.Node with
            | Yaml.Node.Mapping(_, first :: _) ->
                let indent = first.At.Column - 1
                insertBehind (lastLineOf entry.Node) indent (added (String(' ', indent))) lines
            | Yaml.Node.Sequence(_, first :: _) ->
                let at = (placeOf first).Line
                let indent = lines[at - 1].Length - lines[at - 1].TrimStart().Length
                insertBehind (lastLineOf entry.Node) indent (added (String(' ', indent))) lines
            | _ ->
                let bare = written.Replace("{}", "").Replace("[]", "").TrimEnd()

                lines
                |> List.mapi (fun i line -> if i = entry.At.Line - 1 then bare else line)
                |> insertBehind entry.At.Line 1 (added "  ")
            |> String.concat "\n"

    /// Without the places, which move.
    let private said (mapping: Mapping) =
        mapping.Questions
        |> List.map (fun question ->
            question.Name,
            question.ConfirmedAt,
            question.Answers
            |> List.map (fun (answer, outcomes) ->
                answer,
                outcomes
                |> List.map (fun one -> one.Exchange, one.Market, one.Token, one.Outcome))),
        mapping.Refused

    /// The text, if it says now what it is to say; otherwise what a person has to add.
    let private provided exchanges (wanted: Mapping) (lines: string list) (text: string) =
        match parse exchanges "" text with
        | Ok mapping when said mapping = said wanted -> Ok text
        | _ ->
            let added = String.concat "\n" lines

            Error
                $"the file is written in a way that cannot be added to without changing it; add this to it:\n{added}"

    /// The text of a mapping with one question more, everything else as it was; an error says what a person has to add, because the file is
    /// written in a way that cannot be added to.
    let withQuestion exchanges (mapping: Mapping) (question: MappedQuestion) (text: string) =
        let text = if text = "" then head else text

        addTo "questions" text (fun indent -> questionLines indent question)
        |> provided
            exchanges
            {
                mapping with
                    Questions = mapping.Questions @ [ question ]
            }
            ("questions:" :: questionLines "  " question)

    /// As `withQuestion`, with more outcomes under the answers of a question that is there.
    let withOutcomes
        exchanges
        (mapping: Mapping)
        (name: string)
        (answers: (string * MappedOutcome list) list)
        (text: string)
        =
        let more = Map.ofList answers

        let wanted = {
            mapping with
                Questions =
                    mapping.Questions
                    |> List.map (fun question ->
                        if question.Name = name then
                            {
                                question with
                                    Answers =
                                        question.Answers
                                        |> List.map (fun (answer, outcomes) ->
                                            answer,
                                            outcomes
                                            @ (more |> Map.tryFind answer |> Option.defaultValue []))
                            }
                        else
                            question)
        }

        let rec under (path: string list) (entries: Yaml.Entry list) =
            match path with
            | [] -> entries
            | key :: rest ->
                match entries |> List.tryFind (fun entry -> entry.Key = key) with
                | Some { Node = Yaml.Node.Mapping(_, entries) } -> under rest entries
                | _ -> []

        // From the end on, so that the lines above stay where they are.
        let places =
            [
                for entry in under [ "questions"; name; "answers" ] (treeOf text) do
                    match entry.Node, Map.tryFind entry.Key more with
                    | Yaml.Node.Sequence(_, first :: _), Some outcomes ->
                        struct (lastLineOf entry.Node, (placeOf first).Line, outcomes)
                    | _ -> ()
            ]
            |> List.sortDescending

        (text.Split '\n' |> List.ofArray, places)
        ||> List.fold (fun lines struct (last, first, outcomes) ->
            let line = lines[first - 1]
            let indent = line.Length - line.TrimStart().Length

            insertBehind last indent (outcomes |> List.collect (outcomeLines (String(' ', indent)))) lines)
        |> String.concat "\n"
        |> provided exchanges wanted [
            $"(question {name})"
            for answer, outcomes in answers do
                $"{answer}:"

                for one in outcomes do
                    yield! outcomeLines "  " one
        ]

    /// As `withQuestion`, with markets that do not ask the same.
    let withRefused
        exchanges
        (mapping: Mapping)
        (markets: (struct (ExchangeId * MarketId)) list)
        (text: string)
        =
        let text = if text = "" then head else text

        let listed =
            markets
            |> List.map (fun struct (exchange, market) -> $"\"{refOf exchange market}\"")
            |> String.concat ", "

        addTo "refused" text (fun indent -> [ $"{indent}- [{listed}]" ])
        |> provided
            exchanges
            {
                mapping with
                    Refused = mapping.Refused @ [ markets ]
            }
            [ "refused:"; $"  - [{listed}]" ]
