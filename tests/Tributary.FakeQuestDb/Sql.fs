namespace Tributary.FakeQuestDb

open System
open System.Collections.Generic

/// A statement that is refused, and where.
exception internal SqlError of position: int * message: string

[<RequireQualifiedAccess>]
type internal TokenKind =
    | Word
    | Quoted
    | Literal
    | Number
    | Sign

type internal Token = {
    Kind: TokenKind
    Text: string
    At: int
} with

    member this.Is(word: string) =
        (this.Kind = TokenKind.Word || this.Kind = TokenKind.Sign)
        && this.Text.Equals(word, StringComparison.OrdinalIgnoreCase)

    member this.IsName = this.Kind = TokenKind.Word || this.Kind = TokenKind.Quoted

type internal ColumnSpec = {
    Name: string
    Type: ColumnType
    Capacity: int
}

type internal TableSpec = {
    Name: string
    Columns: ColumnSpec list
    Designated: string option
    PartitionBy: string
    /// Hours, or months when negative; 0 keeps everything.
    Ttl: int
    Wal: bool
    Keys: string list
}

[<RequireQualifiedAccess>]
type internal SqlStatement =
    | CreateTable of ifNotExists: bool * TableSpec
    | AddColumn of table: string * ifNotExists: bool * ColumnSpec
    | SetTtl of table: string * ttl: int
    | DedupEnable of table: string * keys: string list
    | DedupDisable of table: string
    | Suspend of table: string * tag: string * message: string
    | Resume of table: string
    | Drop of table: string * ifExists: bool
    | Rename of table: string * name: string
    | Truncate of table: string
    | CreateView of name: string * ifNotExists: bool * sql: string * baseTable: string
    | DropView of name: string * ifExists: bool
    | Query of Token list

module internal Sql =
    let fail position message = raise (SqlError(position, message))

    let tokens (text: string) : Token list =
        let found = ResizeArray<Token>()
        let mutable at = 0

        let isWord (c: char) =
            Char.IsLetterOrDigit c || c = '_' || c = '$'

        let add kind start value =
            found.Add {
                Kind = kind
                Text = value
                At = start
            }

        let quoted kind (quote: char) =
            let start = at
            let value = Text.StringBuilder()
            at <- at + 1
            let mutable go = true

            while go do
                if at >= text.Length then
                    fail start "unclosed quoted string?"

                if text[at] <> quote then
                    value.Append text[at] |> ignore
                    at <- at + 1
                elif at + 1 < text.Length && text[at + 1] = quote then
                    value.Append quote |> ignore
                    at <- at + 2
                else
                    at <- at + 1
                    go <- false

            add kind start (string value)

        while at < text.Length do
            let c = text[at]

            if Char.IsWhiteSpace c then
                at <- at + 1
            elif c = '-' && at + 1 < text.Length && text[at + 1] = '-' then
                while at < text.Length && text[at] <> '\n' do
                    at <- at + 1
            elif c = '\'' then
                quoted TokenKind.Literal '\''
            elif c = '"' then
                quoted TokenKind.Quoted '"'
            elif Char.IsDigit c then
                let start = at

                while at < text.Length
                      && (isWord text[at]
                          || text[at] = '.'
                          || ((text[at] = '-' || text[at] = '+') && (text[at - 1] = 'e' || text[at - 1] = 'E'))) do
                    at <- at + 1

                add TokenKind.Number start (text.Substring(start, at - start))
            elif isWord c then
                let start = at

                while at < text.Length && isWord text[at] do
                    at <- at + 1

                add TokenKind.Word start (text.Substring(start, at - start))
            else
                let two = if at + 1 < text.Length then text.Substring(at, 2) else ""

                match two with
                | "<="
                | ">="
                | "!="
                | "<>"
                | "::"
                | "||" ->
                    add TokenKind.Sign at two
                    at <- at + 2
                | _ ->
                    add TokenKind.Sign at (string c)
                    at <- at + 1

        List.ofSeq found

    /// A walk along tokens.
    [<Sealed>]
    type Cursor(tokens: Token[], length: int) =
        let mutable at = 0

        member _.Done = at >= tokens.Length

        member _.Position = if at < tokens.Length then tokens[at].At else length

        member _.Peek =
            if at < tokens.Length then
                ValueSome tokens[at]
            else
                ValueNone

        member this.Next() =
            if at >= tokens.Length then
                fail length "unexpected end of the statement"

            at <- at + 1
            tokens[at - 1]

        /// Whether these words come next, one after the other.
        member _.Sees([<ParamArray>] words: string[]) =
            at + words.Length <= tokens.Length
            && Seq.forall2
                (fun (word: string) i -> tokens[at + i].Is word)
                words
                (seq { 0 .. words.Length - 1 })

        /// Goes past these words if they come next.
        member this.Accepts([<ParamArray>] words: string[]) =
            let seen = this.Sees words

            if seen then
                at <- at + words.Length

            seen

        member this.Expect([<ParamArray>] words: string[]) =
            if not (this.Accepts words) then
                let wanted = String.Join(' ', words).ToLowerInvariant()
                fail this.Position $"'{wanted}' expected"

        /// A name, quoted or not; DDL takes single quotes, too.
        member this.Name() =
            let token = this.Next()

            match token.Kind with
            | TokenKind.Word
            | TokenKind.Quoted
            | TokenKind.Literal -> token.Text
            | _ -> fail token.At "name expected"

        member this.Number() =
            let token = this.Next()

            match Int32.TryParse token.Text with
            | true, number when token.Kind = TokenKind.Number -> number
            | _ -> fail token.At "number expected"

        member this.Names() =
            let names = ResizeArray [ this.Name() ]

            while this.Accepts "," do
                names.Add(this.Name())

            List.ofSeq names

        member this.End() =
            this.Accepts ";" |> ignore

            match this.Peek with
            | ValueSome token -> fail token.At $"unexpected token [{token.Text}]"
            | ValueNone -> ()

        member _.Rest() =
            let rest = tokens[at..]
            at <- tokens.Length
            List.ofArray rest

    let private simple =
        dict [
            "symbol", ColumnType.Symbol
            "varchar", ColumnType.Varchar
            "string", ColumnType.String
            "char", ColumnType.Char
            "uuid", ColumnType.Uuid
            "ipv4", ColumnType.IPv4
            "binary", ColumnType.Binary
            "byte", ColumnType.Byte
            "short", ColumnType.Short
            "int", ColumnType.Int
            "long", ColumnType.Long
            "long256", ColumnType.Long256
            "float", ColumnType.Float
            "double", ColumnType.Double
            "boolean", ColumnType.Boolean
            "date", ColumnType.Date
            "timestamp", ColumnType.Timestamp
            "timestamp_ns", ColumnType.TimestampNanos
        ]

    let columnType (cursor: Cursor) : ColumnType =
        let token = cursor.Next()
        let name = token.Text.ToLowerInvariant()

        if name = "decimal" then
            if cursor.Accepts "(" then
                let precision = cursor.Number()
                let scale = if cursor.Accepts "," then cursor.Number() else 0
                cursor.Expect ")"

                if precision < 1 || precision > 76 || scale > precision then
                    fail token.At "Invalid DECIMAL type"

                ColumnType.Decimal(precision, scale)
            else
                ColumnType.Decimal(18, 3)
        elif name = "geohash" then
            cursor.Expect "("
            let bits = cursor.Next().Text
            cursor.Expect ")"
            ColumnType.Geohash bits
        else
            match simple.TryGetValue name with
            | true, found ->
                let mutable dimensions = 0

                while cursor.Accepts("[", "]") do
                    dimensions <- dimensions + 1

                if dimensions = 0 then
                    found
                elif found = ColumnType.Double && dimensions <= 32 then
                    ColumnType.Array dimensions
                else
                    fail token.At $"unsupported array element type [type={token.Text.ToUpperInvariant()}]"
            | _ -> fail token.At $"unsupported column type: {token.Text}"

    let private column (cursor: Cursor) : ColumnSpec =
        let position = cursor.Position
        let name = cursor.Name()

        match Ilp.nameFault false 127 name with
        | Some fault -> fail position $"Invalid column name: {fault}"
        | None -> ()

        let columnType = columnType cursor
        let mutable capacity = 0
        let mutable go = true

        while go do
            if cursor.Accepts "CAPACITY" then
                capacity <- cursor.Number()
            elif cursor.Accepts "INDEX" then
                if cursor.Accepts "CAPACITY" then
                    cursor.Number() |> ignore
            elif not (cursor.Accepts "CACHE" || cursor.Accepts "NOCACHE") then
                go <- false

        {
            Name = name
            Type = columnType
            Capacity = capacity
        }

    /// Hours, or months when negative: `30 DAYS`, `2w`.
    let private ttl (cursor: Cursor) =
        let token = cursor.Next()

        let digits =
            token.Text.TrimEnd([| 'h'; 'H'; 'd'; 'D'; 'w'; 'W'; 'm'; 'M'; 'y'; 'Y' |])

        match Int32.TryParse digits with
        | true, count when token.Kind = TokenKind.Number ->
            let unit =
                if digits.Length < token.Text.Length then
                    token.Text.Substring digits.Length
                else
                    cursor.Name()

            match unit.ToUpperInvariant() with
            | "H"
            | "HOUR"
            | "HOURS" -> count
            | "D"
            | "DAY"
            | "DAYS" -> count * 24
            | "W"
            | "WEEK"
            | "WEEKS" -> count * 24 * 7
            | "M"
            | "MONTH"
            | "MONTHS" -> -count
            | "Y"
            | "YEAR"
            | "YEARS" -> -count * 12
            | _ ->
                fail token.At "invalid unit, expected 'HOUR(S)', 'DAY(S)', 'WEEK(S)', 'MONTH(S)' or 'YEAR(S)'"
        | _ -> fail token.At "missing or invalid integer value in TTL"

    let private partition (cursor: Cursor) =
        let position = cursor.Position
        let unit = cursor.Name().ToUpperInvariant()

        match unit with
        | "NONE"
        | "HOUR"
        | "DAY"
        | "WEEK"
        | "MONTH"
        | "YEAR" -> unit
        | _ -> fail position "'NONE', 'HOUR', 'DAY', 'WEEK', 'MONTH' or 'YEAR' expected"

    let private keys (cursor: Cursor) =
        cursor.Expect("UPSERT", "KEYS", "(")
        let names = cursor.Names()
        cursor.Expect ")"
        names

    let private tableName (cursor: Cursor) =
        let position = cursor.Position
        let name = cursor.Name()

        match Ilp.nameFault true 127 name with
        | Some fault -> fail position $"Invalid table name: {fault}"
        | None -> name

    let private createTable (cursor: Cursor) =
        let ifNotExists = cursor.Accepts("IF", "NOT", "EXISTS")
        let name = tableName cursor
        cursor.Expect "("
        let columns = ResizeArray [ column cursor ]

        while cursor.Accepts "," do
            columns.Add(column cursor)

        cursor.Expect ")"

        let designated =
            if cursor.Accepts("TIMESTAMP", "(") then
                let position = cursor.Position
                let name = cursor.Name()
                cursor.Expect ")"

                match
                    columns
                    |> Seq.tryFind (fun column ->
                        column.Name.Equals(name, StringComparison.OrdinalIgnoreCase))
                with
                | Some {
                           Type = (ColumnType.Timestamp | ColumnType.TimestampNanos)
                       } -> ()
                | Some _ -> fail position "TIMESTAMP column expected"
                | None -> fail position $"invalid designated timestamp column [name={name}]"

                Some name
            else
                None

        let partitionBy =
            if cursor.Accepts("PARTITION", "BY") then
                partition cursor
            else
                "NONE"

        let lives = if cursor.Accepts "TTL" then ttl cursor else 0

        let wal =
            if cursor.Accepts("BYPASS", "WAL") then
                false
            else
                cursor.Accepts "WAL" || partitionBy <> "NONE"

        let position = cursor.Position
        let keys = if cursor.Accepts "DEDUP" then keys cursor else []
        cursor.End()

        if not keys.IsEmpty && not wal then
            fail position "deduplication is possible only on WAL tables"

        SqlStatement.CreateTable(
            ifNotExists,
            {
                Name = name
                Columns = List.ofSeq columns
                Designated = designated
                PartitionBy = partitionBy
                Ttl = lives
                Wal = wal
                Keys = keys
            }
        )

    let private createView (cursor: Cursor) (text: string) =
        let ifNotExists = cursor.Accepts("IF", "NOT", "EXISTS")
        let name = tableName cursor

        // Everything between here and AS is about refreshing.
        while not (cursor.Sees "AS") do
            cursor.Next() |> ignore

        cursor.Expect("AS", "(")
        let start = cursor.Position
        let mutable depth = 1
        let mutable finish = start
        let mutable baseTable = ""
        let mutable afterFrom = false

        while depth > 0 do
            let token = cursor.Next()

            if afterFrom && baseTable = "" && token.IsName then
                baseTable <- token.Text

            afterFrom <- token.Is "FROM"

            if token.Is "(" then
                depth <- depth + 1
            elif token.Is ")" then
                depth <- depth - 1
                finish <- token.At

        SqlStatement.CreateView(name, ifNotExists, text.Substring(start, finish - start).Trim(), baseTable)

    let private alter (cursor: Cursor) =
        let table = cursor.Name()

        let statement =
            if cursor.Accepts("ADD", "COLUMN") then
                let ifNotExists = cursor.Accepts("IF", "NOT", "EXISTS")
                SqlStatement.AddColumn(table, ifNotExists, column cursor)
            elif cursor.Accepts("SET", "TTL") then
                SqlStatement.SetTtl(table, ttl cursor)
            elif cursor.Accepts("DEDUP", "ENABLE") then
                SqlStatement.DedupEnable(table, keys cursor)
            elif cursor.Accepts("DEDUP", "DISABLE") then
                SqlStatement.DedupDisable table
            elif cursor.Accepts("SUSPEND", "WAL") then
                if cursor.Accepts "WITH" then
                    let tag = cursor.Name()
                    cursor.Expect ","
                    SqlStatement.Suspend(table, tag, cursor.Name())
                else
                    SqlStatement.Suspend(table, "", "")
            elif cursor.Accepts("RESUME", "WAL") then
                if cursor.Accepts("FROM", "TRANSACTION") || cursor.Accepts("FROM", "TXN") then
                    cursor.Number() |> ignore

                SqlStatement.Resume table
            else
                fail cursor.Position "'add', 'set', 'dedup', 'suspend' or 'resume' expected"

        cursor.End()
        statement

    let parse (text: string) : SqlStatement =
        let all = Array.ofList (tokens text)
        let cursor = Cursor(all, text.Length)

        let ended statement =
            cursor.End()
            statement

        if all.Length = 0 then
            fail 0 "empty query"

        if cursor.Accepts("CREATE", "TABLE") then
            createTable cursor
        elif cursor.Accepts("CREATE", "MATERIALIZED", "VIEW") then
            createView cursor text
        elif cursor.Accepts("ALTER", "TABLE") then
            alter cursor
        elif cursor.Accepts("DROP", "MATERIALIZED", "VIEW") then
            let ifExists = cursor.Accepts("IF", "EXISTS")
            ended (SqlStatement.DropView(cursor.Name(), ifExists))
        elif cursor.Accepts("DROP", "TABLE") then
            let ifExists = cursor.Accepts("IF", "EXISTS")
            ended (SqlStatement.Drop(cursor.Name(), ifExists))
        elif cursor.Accepts("RENAME", "TABLE") then
            let table = cursor.Name()
            cursor.Expect "TO"
            ended (SqlStatement.Rename(table, tableName cursor))
        elif cursor.Accepts("TRUNCATE", "TABLE") then
            ended (SqlStatement.Truncate(cursor.Name()))
        else
            SqlStatement.Query(cursor.Rest())
