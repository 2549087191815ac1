namespace Tributary.FakeQuestDb

open System
open System.Collections.Generic

/// What a query reads from.
type internal Source = {
    /// What stands after FROM in SQLite.
    Sql: string
    /// Without a type when only the values show it.
    Columns: (string * ColumnType voption)[]
    Designated: string voption
    /// Whether later rows have greater row ids.
    HasRowId: bool
}

/// Turns the SELECTs of QuestDB into SQLite's: `LATEST ON`, grouping without GROUP BY, NULL that equals NULL, literals that are
/// times.
module internal Select =
    let private keywords =
        HashSet<string>(
            [
                "and"
                "or"
                "not"
                "in"
                "is"
                "null"
                "like"
                "between"
                "case"
                "when"
                "then"
                "else"
                "end"
                "asc"
                "desc"
                "true"
                "false"
                "distinct"
                "as"
            ],
            StringComparer.OrdinalIgnoreCase
        )

    let private aggregates =
        HashSet<string>(
            [ "count"; "count_distinct"; "min"; "max"; "sum"; "avg" ],
            StringComparer.OrdinalIgnoreCase
        )

    let quote (name: string) =
        "\"" + name.Replace("\"", "\"\"") + "\""

    let literal (text: string) = "'" + text.Replace("'", "''") + "'"

    let private isWord (token: Token) word =
        token.Kind = TokenKind.Word && token.Is word

    /// The index of the bracket that closes the one at `start`.
    let private closing (tokens: Token[]) start =
        let rec go i depth =
            if i >= tokens.Length then
                Sql.fail tokens[start].At "unbalanced ("
            elif tokens[i].Is "(" then
                go (i + 1) (depth + 1)
            elif tokens[i].Is ")" then
                if depth = 1 then i else go (i + 1) (depth - 1)
            else
                go (i + 1) depth

        go start 0

    /// The parts between commas that stand in no bracket.
    let private split (tokens: Token[]) : Token[] list =
        let parts = ResizeArray<Token[]>()
        let mutable depth, start = 0, 0

        for i in 0 .. tokens.Length - 1 do
            if tokens[i].Is "(" then
                depth <- depth + 1
            elif tokens[i].Is ")" then
                depth <- depth - 1
            elif depth = 0 && tokens[i].Is "," then
                parts.Add tokens[start .. i - 1]
                start <- i + 1

        parts.Add tokens[start..]
        List.ofSeq parts

    /// Whether one call is the whole expression.
    let private isCall (tokens: Token[]) =
        tokens.Length >= 3
        && tokens[0].Kind = TokenKind.Word
        && tokens[1].Is "("
        && closing tokens 1 = tokens.Length - 1

    let private hasAggregate (tokens: Token[]) =
        tokens
        |> Seq.pairwise
        |> Seq.exists (fun (name, next) ->
            name.Kind = TokenKind.Word && aggregates.Contains name.Text && next.Is "(")

    let private hasArithmetic (tokens: Token[]) =
        tokens
        |> Seq.indexed
        |> Seq.exists (fun (i, token) ->
            isWord token "avg"
            || token.Is "+"
            || token.Is "-"
            || token.Is "/"
            || (token.Is "*" && not (i > 0 && tokens[i - 1].Is "(")))

    type private Scope = {
        Columns: IReadOnlyDictionary<string, string * ColumnType voption>
        Aliases: IReadOnlySet<string>
        SourceName: string
    }

    let private typed tokens = Sql.columnType (Sql.Cursor(tokens, 0))

    let rec private typeOf (scope: Scope) (tokens: Token[]) : ColumnType voption =
        match tokens with
        | [| token |] when token.IsName && scope.Columns.ContainsKey token.Text ->
            snd scope.Columns[token.Text]
        | [| _; dot; name |] when dot.Is "." && scope.Columns.ContainsKey name.Text ->
            snd scope.Columns[name.Text]
        | [| token |] when token.Kind = TokenKind.Literal -> ValueSome ColumnType.Varchar
        | [| token |] when token.Kind = TokenKind.Number ->
            ValueSome(
                if token.Text.IndexOfAny [| '.'; 'e'; 'E' |] >= 0 then
                    ColumnType.Double
                else
                    ColumnType.Int
            )
        | [| token |] when isWord token "true" || isWord token "false" -> ValueSome ColumnType.Boolean
        | _ when tokens.Length >= 3 && tokens[tokens.Length - 2].Is "::" ->
            ValueSome(typed tokens[tokens.Length - 1 ..])
        | _ when isCall tokens ->
            let inner = tokens[2 .. tokens.Length - 2]

            match tokens[0].Text.ToLowerInvariant() with
            | "count"
            | "count_distinct" -> ValueSome ColumnType.Long
            | "avg" -> ValueSome ColumnType.Double
            | "min"
            | "max"
            | "coalesce"
            | "nullif" -> typeOf scope (List.head (split inner))
            | "sum" ->
                match typeOf scope inner with
                | ValueSome(ColumnType.Decimal(_, scale)) when not (hasArithmetic inner) ->
                    ValueSome(ColumnType.Decimal(76, scale))
                | ValueSome(ColumnType.Byte | ColumnType.Short | ColumnType.Int | ColumnType.Long) ->
                    ValueSome ColumnType.Long
                | ValueSome(ColumnType.Double | ColumnType.Float) -> ValueSome ColumnType.Double
                | _ -> ValueNone
            | "cast" ->
                match inner |> Array.tryFindIndexBack (fun token -> isWord token "as") with
                | Some i -> ValueSome(typed inner[i + 1 ..])
                | None -> ValueNone
            | "now"
            | "systimestamp" -> ValueSome ColumnType.Timestamp
            | _ -> ValueNone
        | _ -> ValueNone

    let private cast sql source target =
        match source, target with
        | ValueSome(ColumnType.Timestamp | ColumnType.TimestampNanos), ColumnType.Long -> $"qdb_micros({sql})"
        | ValueSome(ColumnType.Decimal(_, scale)), (ColumnType.Double | ColumnType.Float) ->
            $"({sql} / 1e{scale})"
        | _, (ColumnType.Double | ColumnType.Float) -> $"CAST({sql} AS REAL)"
        | _, (ColumnType.Long | ColumnType.Int | ColumnType.Short | ColumnType.Byte) ->
            $"CAST({sql} AS INTEGER)"
        | _, (ColumnType.Varchar | ColumnType.String | ColumnType.Symbol) -> $"CAST({sql} AS TEXT)"
        | _ -> sql

    type Translated = {
        Sql: string
        Columns: (string * ColumnType voption)[]
        Designated: string voption
    }

    type private Translator
        (
            table: string -> Source voption,
            call: string -> string voption -> Source voption,
            now: unit -> string,
            length: int
        ) =
        member this.Expression(scope: Scope, tokens: Token[]) : string =
            let arithmetic = hasArithmetic tokens
            let parts = ResizeArray<string>()
            let mutable last = ValueNone
            let mutable i = 0

            let columnAt j =
                if tokens[j].IsName && scope.Columns.ContainsKey tokens[j].Text then
                    snd scope.Columns[tokens[j].Text]
                else
                    ValueNone

            /// The type of the column that a literal is compared with: the one before it, else the next.
            let beside j =
                match last with
                | ValueSome _ -> last
                | ValueNone ->
                    seq { j + 1 .. tokens.Length - 1 }
                    |> Seq.tryPick (fun k ->
                        match columnAt k with
                        | ValueSome found -> Some found
                        | ValueNone -> None)
                    |> ValueOption.ofOption

            let castAfter j source sql =
                if j + 2 < tokens.Length && tokens[j + 1].Is "::" then
                    let rest = tokens[j + 2 ..]
                    i <- j + 3
                    cast sql source (typed rest)
                else
                    i <- j + 1
                    sql

            while i < tokens.Length do
                let token = tokens[i]
                let next = if i + 1 < tokens.Length then tokens[i + 1].Text else ""

                match token.Kind with
                | TokenKind.Sign when token.Is "(" && i + 1 < tokens.Length && isWord tokens[i + 1] "select" ->
                    let close = closing tokens i
                    parts.Add("(" + (this.Select tokens[i + 1 .. close - 1]).Sql + ")")
                    i <- close + 1
                | TokenKind.Sign ->
                    parts.Add(
                        match token.Text with
                        | "=" -> "IS"
                        | "!="
                        | "<>" -> "IS NOT"
                        | "::"
                        | "~"
                        | "["
                        | "{" -> Sql.fail token.At $"unexpected token [{token.Text}]"
                        | sign -> sign
                    )

                    i <- i + 1
                | TokenKind.Number ->
                    parts.Add(
                        match beside i with
                        | ValueSome(ColumnType.Decimal(_, scale)) when not arithmetic ->
                            match Decimals.parse token.Text with
                            | Some(from, unscaled) ->
                                match Decimals.rescale scale from unscaled with
                                | Some exact -> string exact
                                | None -> $"({token.Text} * 1e{scale})"
                            | None -> token.Text
                        | ValueSome ColumnType.Timestamp when not arithmetic ->
                            match Int64.TryParse token.Text with
                            | true, micros ->
                                match Iso.ofMicros micros with
                                | Some text -> literal text
                                | None -> Sql.fail token.At "timestamp out of range"
                            | _ -> token.Text
                        | _ -> token.Text
                    )

                    i <- i + 1
                | TokenKind.Literal ->
                    let explicit = next = "::"

                    let decimals =
                        match beside i with
                        | ValueSome ColumnType.TimestampNanos -> 9
                        | ValueSome(ColumnType.Timestamp | ColumnType.Date) -> 6
                        | _ -> if explicit then 6 else -1

                    let text =
                        if decimals < 0 then
                            token.Text
                        else
                            match Iso.complete decimals token.Text with
                            | ValueSome text -> text
                            | ValueNone -> Sql.fail token.At $"Invalid date [str={token.Text}]"

                    parts.Add(literal text)
                    i <- if explicit then i + 3 else i + 1
                | TokenKind.Word when next = "(" && not (keywords.Contains token.Text) ->
                    match token.Text.ToLowerInvariant() with
                    | "count" when i + 2 < tokens.Length && tokens[i + 2].Is ")" ->
                        parts.Add "count(*)"
                        i <- i + 3
                    | "count_distinct" ->
                        let close = closing tokens (i + 1)
                        parts.Add $"count(DISTINCT {this.Expression(scope, tokens[i + 2 .. close - 1])})"
                        i <- close + 1
                    | "now"
                    | "systimestamp" ->
                        parts.Add(literal (now ()))
                        i <- closing tokens (i + 1) + 1
                    | "cast" ->
                        let close = closing tokens (i + 1)
                        let inner = tokens[i + 2 .. close - 1]

                        match inner |> Array.tryFindIndexBack (fun token -> isWord token "as") with
                        | Some at ->
                            let value = inner[.. at - 1]

                            parts.Add(
                                cast
                                    (this.Expression(scope, value))
                                    (typeOf scope value)
                                    (typed inner[at + 1 ..])
                            )
                        | None -> Sql.fail token.At "'as' expected"

                        i <- close + 1
                    | "coalesce"
                    | "nullif"
                    | "abs"
                    | "round"
                    | "length"
                    | "lower"
                    | "upper"
                    | "concat" ->
                        parts.Add token.Text
                        i <- i + 1
                    | name when aggregates.Contains name ->
                        parts.Add token.Text
                        i <- i + 1
                    | name -> Sql.fail token.At $"unknown function name: {name}"
                | TokenKind.Word when keywords.Contains token.Text ->
                    if token.Is "and" || token.Is "or" then
                        last <- ValueNone

                    parts.Add(token.Text.ToUpperInvariant())
                    i <- i + 1
                | _ ->
                    if
                        next = "."
                        && token.Text.Equals(scope.SourceName, StringComparison.OrdinalIgnoreCase)
                    then
                        i <- i + 2

                    let token =
                        if i < tokens.Length then
                            tokens[i]
                        else
                            Sql.fail length "column expected"

                    match scope.Columns.TryGetValue token.Text with
                    | true, (name, columnType) ->
                        last <- columnType

                        let sql =
                            match columnType with
                            | ValueSome(ColumnType.Decimal(_, scale)) when arithmetic ->
                                $"({quote name} / 1e{scale})"
                            | _ -> quote name

                        parts.Add(castAfter i columnType sql)
                    | _ when scope.Aliases.Contains token.Text ->
                        parts.Add(quote token.Text)
                        i <- i + 1
                    | _ -> Sql.fail token.At $"Invalid column: {token.Text}"

            String.Join(' ', parts)

        member this.Source(cursor: Sql.Cursor) : Source * string =
            let position = cursor.Position

            let source, name =
                if cursor.Accepts "(" then
                    let inner = ResizeArray<Token>()
                    let mutable depth = 1

                    while depth > 0 do
                        let token = cursor.Next()

                        if token.Is "(" then
                            depth <- depth + 1
                        elif token.Is ")" then
                            depth <- depth - 1

                        if depth > 0 then
                            inner.Add token

                    let translated = this.Query(inner.ToArray())

                    {
                        Sql = $"({translated.Sql})"
                        Columns = translated.Columns
                        Designated = translated.Designated
                        HasRowId = false
                    },
                    ""
                else
                    let name = cursor.Name()

                    let found =
                        if cursor.Accepts "(" then
                            let argument =
                                if cursor.Sees ")" then
                                    ValueNone
                                else
                                    ValueSome(cursor.Name())

                            cursor.Expect ")"

                            match call name argument with
                            | ValueSome source -> source
                            | ValueNone -> Sql.fail position $"unknown function name: {name}"
                        else
                            match table name with
                            | ValueSome source -> source
                            | ValueNone -> Sql.fail position $"table does not exist [table={name}]"

                    found, name

            if cursor.Accepts "AS" then
                source, cursor.Name()
            else
                match cursor.Peek with
                | ValueSome token when
                    token.IsName
                    && not (
                        token.Kind = TokenKind.Word
                        && Array.exists token.Is [|
                            "WHERE"
                            "LATEST"
                            "SAMPLE"
                            "GROUP"
                            "ORDER"
                            "LIMIT"
                            "UNION"
                            "JOIN"
                            "ASOF"
                        |]
                    )
                    ->
                    source, cursor.Name()
                | _ -> source, name

        /// The tokens before the next of these words that stands in no bracket.
        member _.Until(cursor: Sql.Cursor, words: string list) : Token[] =
            let found = ResizeArray<Token>()
            let mutable depth, go = 0, true

            while go do
                match cursor.Peek with
                | ValueNone -> go <- false
                | ValueSome token when depth = 0 && token.Kind = TokenKind.Word && List.exists token.Is words ->
                    go <- false
                | ValueSome token when depth = 0 && token.Is ";" -> go <- false
                | ValueSome token ->
                    if token.Is "(" then
                        depth <- depth + 1
                    elif token.Is ")" then
                        depth <- depth - 1

                    found.Add(cursor.Next())

            found.ToArray()

        member this.Select(tokens: Token[]) : Translated =
            let cursor = Sql.Cursor(tokens, length)
            cursor.Expect "SELECT"
            let distinct = cursor.Accepts "DISTINCT"
            let items = split (this.Until(cursor, [ "FROM"; "LIMIT"; "ORDER" ]))

            let source, sourceName =
                if cursor.Accepts "FROM" then
                    this.Source cursor
                else
                    {
                        Sql = ""
                        Columns = [||]
                        Designated = ValueNone
                        HasRowId = false
                    },
                    ""

            let columns =
                Dictionary<string, string * ColumnType voption>(StringComparer.OrdinalIgnoreCase)

            for name, columnType in source.Columns do
                columns[name] <- (name, columnType)

            let aliases = HashSet<string>(StringComparer.OrdinalIgnoreCase)

            let scope = {
                Columns = columns
                Aliases = HashSet<string>()
                SourceName = sourceName
            }

            let withAliases = { scope with Aliases = aliases }

            let alias (item: Token[]) =
                let n = item.Length

                if n >= 3 && isWord item[n - 2] "as" then
                    item[.. n - 3], ValueSome item[n - 1].Text
                elif
                    n >= 2
                    && item[n - 1].IsName
                    && not (item[n - 1].Kind = TokenKind.Word && keywords.Contains item[n - 1].Text)
                    && (item[n - 2].Kind <> TokenKind.Sign || item[n - 2].Is ")")
                    && not (item[n - 2].Kind = TokenKind.Word && keywords.Contains item[n - 2].Text)
                then
                    item[.. n - 2], ValueSome item[n - 1].Text
                else
                    item, ValueNone

            let taken = HashSet<string>(StringComparer.OrdinalIgnoreCase)

            let free (name: string) =
                let candidates = Seq.append [ name ] (Seq.initInfinite (fun i -> $"{name}{i + 1}"))

                candidates |> Seq.find taken.Add

            /// Expression, name, type, and whether it says by what to group.
            let outputs = [
                for item in items do
                    match item with
                    | [||] -> Sql.fail cursor.Position "column expected"
                    | [| star |] when star.Is "*" ->
                        for name, columnType in source.Columns do
                            quote name, free name, columnType, true
                    | _ ->
                        let expression, chosen = alias item

                        let name =
                            match chosen with
                            | ValueSome name -> name
                            | ValueNone ->
                                if isCall expression then
                                    expression[0].Text.ToLowerInvariant()
                                else
                                    let last = expression[expression.Length - 1]

                                    match columns.TryGetValue last.Text with
                                    | true, (name, _) when
                                        expression.Length = 1 || expression.Length = 3 && expression[1].Is "."
                                        ->
                                        name
                                    | _ -> if expression.Length = 1 then last.Text else "column"

                        let constant =
                            expression
                            |> Array.forall (fun token ->
                                token.Kind = TokenKind.Literal || token.Kind = TokenKind.Number)

                        this.Expression(scope, expression),
                        free name,
                        typeOf scope expression,
                        not (hasAggregate expression || constant)
            ]

            for _, name, _, _ in outputs do
                aliases.Add name |> ignore

            let mutable from = if source.Sql = "" then "" else " FROM " + source.Sql

            if cursor.Accepts "WHERE" then
                let condition =
                    this.Until(cursor, [ "LATEST"; "SAMPLE"; "GROUP"; "ORDER"; "LIMIT" ])

                from <- $"{from} WHERE {this.Expression(scope, condition)}"

            if cursor.Accepts("LATEST", "ON") then
                let at = this.Expression(scope, [| cursor.Next() |])
                cursor.Expect("PARTITION", "BY")

                let keys =
                    this.Expression(
                        scope,
                        this.Until(cursor, [ "SAMPLE"; "GROUP"; "ORDER"; "LIMIT"; "WHERE" ])
                    )

                let later = if source.HasRowId then ", rowid DESC" else ""

                from <-
                    $" FROM (SELECT *, row_number() OVER (PARTITION BY {keys} ORDER BY {at} DESC{later}) AS \"~n\"{from}) WHERE \"~n\" = 1"

            let grouped =
                if cursor.Accepts("GROUP", "BY") then
                    " GROUP BY "
                    + this.Expression(withAliases, this.Until(cursor, [ "ORDER"; "LIMIT" ]))
                elif
                    items |> List.exists (fun item -> hasAggregate (fst (alias item)))
                    && outputs |> List.exists (fun (_, _, _, groups) -> groups)
                then
                    let places =
                        outputs
                        |> List.indexed
                        |> List.choose (fun (i, (_, _, _, groups)) ->
                            if groups then Some(string (i + 1)) else None)

                    " GROUP BY " + String.Join(", ", places)
                else
                    ""

            let ordered =
                if cursor.Accepts("ORDER", "BY") then
                    " ORDER BY " + this.Expression(withAliases, this.Until(cursor, [ "LIMIT" ]))
                else
                    ""

            let limited =
                if cursor.Accepts "LIMIT" then
                    let first = cursor.Number()

                    if cursor.Accepts "," then
                        $" LIMIT {max 0 (cursor.Number() - first)} OFFSET {first}"
                    else
                        $" LIMIT {first}"
                else
                    ""

            cursor.End()

            let listed =
                outputs
                |> List.map (fun (sql, name, _, _) -> $"{sql} AS {quote name}")
                |> String.concat ", "

            let chosen = if distinct then "DISTINCT " else ""

            {
                Sql = $"SELECT {chosen}{listed}{from}{grouped}{ordered}{limited}"
                Columns = [| for _, name, columnType, _ in outputs -> name, columnType |]
                Designated =
                    match source.Designated with
                    | ValueSome designated when
                        grouped = ""
                        && outputs |> List.exists (fun (sql, _, _, _) -> sql = quote designated)
                        ->
                        outputs
                        |> List.pick (fun (sql, name, _, _) ->
                            if sql = quote designated then Some name else None)
                        |> ValueSome
                    | _ -> ValueNone
            }

        /// A SELECT, or the name of what is wanted whole.
        member this.Query(tokens: Token[]) : Translated =
            if tokens.Length > 0 && isWord tokens[0] "select" then
                this.Select tokens
            elif tokens.Length > 0 && tokens[0].IsName then
                let word text = {
                    Kind = TokenKind.Word
                    Text = text
                    At = 0
                }

                let star = {
                    Kind = TokenKind.Sign
                    Text = "*"
                    At = 0
                }

                this.Select(Array.append [| word "SELECT"; star; word "FROM" |] tokens)
            else
                Sql.fail 0 "query expected"

    /// `table` and `call` find what stands after FROM; `now` is the server's time as a text.
    let translate table call now (tokens: Token list) length =
        Translator(table, call, now, length).Query(Array.ofList tokens)
