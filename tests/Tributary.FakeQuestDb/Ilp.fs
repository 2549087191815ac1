namespace Tributary.FakeQuestDb

open System
open System.Buffers
open System.Buffers.Binary
open System.Buffers.Text
open System.Globalization
open System.Numerics
open System.Text

/// The value of a field, as the line protocol says it.
[<RequireQualifiedAccess>]
type Value =
    | Null
    | Long of int64
    | Long256 of hexadecimal: string
    | Double of float
    | Boolean of bool
    | Text of string
    | Timestamp of micros: int64
    | TimestampNanos of nanos: int64
    /// The lengths, outermost first, and the values, row by row.
    | Array of dimensions: int[] * values: float[]
    | Decimal of scale: int * unscaled: bigint

[<RequireQualifiedAccess>]
type TimeUnit =
    | Nanos
    | Micros
    | Millis
    | Seconds
    | Minutes
    | Hours

/// The trailing timestamp of a row.
[<Struct>]
type RowTime = {
    Value: int64
    Unit: TimeUnit
    /// Whether the unit stood behind the number; otherwise it is the request's precision.
    Suffixed: bool
}

type Row = {
    /// From 1; blank lines do not count, nor do newlines inside values.
    Number: int
    Table: string
    Symbols: (string * string)[]
    Fields: (string * Value)[]
    Time: RowTime voption
    /// Where its bytes begin.
    Start: int
    /// How many bytes it has, without the end of the line.
    Length: int
}

/// Why a request is refused, and because of which row.
type LineError = {
    /// The row's number, from 1; 0 is the request as a whole.
    Line: int
    Status: int
    Code: string
    Message: string
}

type IlpOptions = {
    /// Binary doubles and arrays need 2, decimals need 3.
    MaxProtocol: int
    /// The unit of timestamps without a suffix.
    Precision: TimeUnit
    /// Refuses what a real server takes although no client should send it: broken UTF-8 inside quotes, arrays without
    /// dimensions, decimals with leading bytes that say nothing.
    Strict: bool
    /// In UTF-16 units, as the server counts.
    MaxName: int
} with

    static member Default = {
        MaxProtocol = 3
        Precision = TimeUnit.Nanos
        Strict = true
        MaxName = 127
    }

/// The rules of the line protocol as the server has them, written without a look at any encoder.
module Ilp =
    exception private Bad of status: int * message: string

    let private invalid message = raise (Bad(400, message))

    /// The last microsecond of the year 9999.
    let private lastMicro = 253_402_300_799_999_999L

    let private perMicro unit =
        match unit with
        | TimeUnit.Nanos
        | TimeUnit.Micros -> 1L
        | TimeUnit.Millis -> 1_000L
        | TimeUnit.Seconds -> 1_000_000L
        | TimeUnit.Minutes -> 60_000_000L
        | TimeUnit.Hours -> 3_600_000_000L

    /// A timestamp in microseconds, nanoseconds cut off.
    let micros (time: RowTime) =
        match time.Unit with
        | TimeUnit.Nanos -> time.Value / 1000L
        | unit -> Checked.(*) time.Value (perMicro unit)

    /// A timestamp in nanoseconds; fails beyond the year 2262.
    let nanos (time: RowTime) =
        match time.Unit with
        | TimeUnit.Nanos -> time.Value
        | unit -> Checked.(*) (Checked.(*) time.Value (perMicro unit)) 1000L

    let private strictUtf8 = UTF8Encoding(false, true)

    /// Ends a name, a symbol or a number unless it is escaped.
    let private special = SearchValues.Create(", =\n\r\\"B)

    let private inQuotes = SearchValues.Create("\"\\\n"B)
    let private inDouble = SearchValues.Create("0123456789+-.eE"B)

    let private forbidden isTable (c: char) =
        match c with
        | '?'
        | ','
        | '\''
        | '"'
        | '\\'
        | '/'
        | ':'
        | '('
        | ')'
        | '+'
        | '*'
        | '%'
        | '~'
        | '\uFEFF'
        | '\u007F' -> true
        | '.'
        | '-' -> not isTable
        | c -> c <= '\u000F'

    /// What is wrong with a name of a table or a column.
    let nameFault isTable maxLength (name: string) =
        if name.Length = 0 then
            Some "empty name"
        elif name.Length > maxLength then
            Some $"name is too long [maxNameLength={maxLength}]"
        elif name |> Seq.exists (forbidden isTable) then
            Some "name contains an illegal character"
        elif
            isTable
            && (name[0] = '.'
                || name[name.Length - 1] = '.'
                || name.Contains ".."
                || name[0] = ' '
                || name[name.Length - 1] = ' ')
        then
            Some "name begins or ends with a dot or a space, or has two dots in a row"
        else
            None

    /// Names come again in every row: each is decoded and checked once.
    [<Sealed>]
    type private Names(isTable: bool, maxLength: int) =
        let slots: struct (byte[] * string)[] = Array.create 512 (struct ([||], ""))

        let decode (bytes: ReadOnlySpan<byte>) =
            let name =
                try
                    strictUtf8.GetString bytes
                with :? DecoderFallbackException ->
                    invalid "name is not UTF-8"

            match nameFault isTable maxLength name with
            | Some fault -> invalid $"{fault} [name={name}]"
            | None -> name

        member _.Get(bytes: ReadOnlySpan<byte>) : string =
            let mutable hash = 2166136261u

            for i in 0 .. bytes.Length - 1 do
                hash <- (hash ^^^ uint32 bytes[i]) * 16777619u

            let slot = int (hash % 512u)
            let struct (known, name) = slots[slot]

            if known.Length > 0 && bytes.SequenceEqual(ReadOnlySpan known) then
                name
            else
                let name = decode bytes
                slots[slot] <- struct (bytes.ToArray(), name)
                name

    let private word (bytes: ReadOnlySpan<byte>) start =
        BinaryPrimitives.ReadUInt64LittleEndian(bytes.Slice(start, 8))

    /// Values that come again and again, as markets and tokens do, are one string each.
    [<Sealed>]
    type private Texts(encoding: Encoding) =
        let slots = Array.create 8192 ""

        member _.Get(bytes: ReadOnlySpan<byte>) : string =
            if bytes.Length < 8 || bytes.Length > 128 then
                encoding.GetString bytes
            else
                let mixed =
                    (word bytes 0 * 0x9E3779B97F4A7C15UL)
                    ^^^ (word bytes (bytes.Length / 2 - 4) * 0xC2B2AE3D27D4EB4FUL)
                    ^^^ (word bytes (bytes.Length - 8) * 0x165667B19E3779F9UL)

                let slot = int (mixed >>> 51) // 13 bits

                if Ascii.Equals(bytes, slots[slot].AsSpan()) then
                    slots[slot]
                else
                    let text = encoding.GetString bytes
                    slots[slot] <- text
                    text

    [<Sealed>]
    type private Reader(options: IlpOptions) =
        let symbolTexts = Texts strictUtf8

        let quotedTexts =
            Texts(
                if options.Strict then
                    strictUtf8
                else
                    UTF8Encoding(false, false)
            )

        let tables = Names(true, options.MaxName)
        let columns = Names(false, options.MaxName)
        let scratch = ArrayBufferWriter<byte>()
        let symbols = ResizeArray<string * string>()
        let fields = ResizeArray<string * Value>()
        let mutable at = 0

        let decodeSymbol (bytes: ReadOnlySpan<byte>) =
            if bytes.Contains 0uy then
                invalid "NUL in a symbol"

            try
                symbolTexts.Get bytes
            with :? DecoderFallbackException ->
                raise (Bad(500, "invalid UTF-8 in a symbol"))

        let decodeQuoted (bytes: ReadOnlySpan<byte>) =
            try
                quotedTexts.Get bytes
            with :? DecoderFallbackException ->
                invalid "invalid UTF-8 in a quoted string"

        let needs protocol what =
            if options.MaxProtocol < protocol then
                invalid $"{what} needs protocol version {protocol}"

        /// Whether the row ends here.
        member _.Ends(data: ReadOnlySpan<byte>) =
            at >= data.Length || data[at] = '\n'B || data[at] = '\r'B

        /// The escaped token that begins here with a backslash after `clean` bytes: unescaped, on the scratch sheet.
        member _.Unescape(data: ReadOnlySpan<byte>, clean: int, isName: bool) =
            scratch.ResetWrittenCount()
            scratch.Write(data.Slice(at, clean))
            at <- at + clean
            let mutable go = true

            while go do
                if at >= data.Length then
                    go <- false
                elif data[at] = '\\'B then
                    if at + 1 >= data.Length then
                        invalid "a backslash at the end"

                    if isName && data[at + 1] = '\\'B then
                        invalid "a backslash in a name"

                    scratch.Write(data.Slice(at + 1, 1))
                    at <- at + 2
                elif special.Contains data[at] then
                    go <- false
                else
                    let rest = data.Slice at
                    let hit = rest.IndexOfAny special
                    let run = if hit < 0 then rest.Length else hit
                    scratch.Write(rest.Slice(0, run))
                    at <- at + run

        member this.Name(data: ReadOnlySpan<byte>, isTable: bool) : string =
            let rest = data.Slice at
            let hit = rest.IndexOfAny special
            let clean = if hit < 0 then rest.Length else hit
            let names = if isTable then tables else columns

            if hit >= 0 && rest[hit] = '\\'B then
                this.Unescape(data, clean, true)
                names.Get scratch.WrittenSpan
            else
                at <- at + clean
                names.Get(rest.Slice(0, clean))

        member this.Symbol(data: ReadOnlySpan<byte>) : string =
            let rest = data.Slice at
            let hit = rest.IndexOfAny special
            let clean = if hit < 0 then rest.Length else hit

            if hit >= 0 && rest[hit] = '\\'B then
                this.Unescape(data, clean, false)
                decodeSymbol scratch.WrittenSpan
            else
                at <- at + clean
                decodeSymbol (rest.Slice(0, clean))

        member _.Quoted(data: ReadOnlySpan<byte>) : string =
            at <- at + 1
            scratch.ResetWrittenCount()
            let mutable text = Unchecked.defaultof<string>
            let mutable go = true

            while go do
                let rest = data.Slice at
                let hit = rest.IndexOfAny inQuotes

                if hit < 0 then
                    invalid "a quoted string without an end"

                match rest[hit] with
                | '"'B ->
                    at <- at + hit + 1
                    go <- false

                    if scratch.WrittenCount = 0 then
                        text <- decodeQuoted (rest.Slice(0, hit))
                    else
                        scratch.Write(rest.Slice(0, hit))
                        text <- decodeQuoted scratch.WrittenSpan
                | '\n'B -> invalid "a newline inside quotes"
                | _ ->
                    if hit + 1 >= rest.Length then
                        invalid "a quoted string without an end"

                    scratch.Write(rest.Slice(0, hit))
                    scratch.Write(rest.Slice(hit + 1, 1))
                    at <- at + hit + 2

            text

        member _.Take(data: ReadOnlySpan<byte>, count: int) : int =
            if count < 0 || data.Length - at < count then
                invalid "a binary value without its end"

            let start = at
            at <- at + count
            start

        member this.Array(data: ReadOnlySpan<byte>) : Value =
            let head = this.Take(data, 2)

            if data[head] <> 10uy then
                invalid $"ARRAY_INVALID_TYPE: element type {data[head]}"

            let count = int data[head + 1]

            if count = 0 && not options.Strict then
                Value.Null
            elif count = 0 || count > 32 then
                invalid $"an array of {count} dimensions"
            else
                let mutable total = 1L

                let lengths = this.Take(data, 4 * count)
                let dimensions = Array.zeroCreate<int> count

                for i in 0 .. count - 1 do
                    let length = BinaryPrimitives.ReadInt32LittleEndian(data.Slice(lengths + 4 * i, 4))

                    if length < 0 then
                        invalid "an array with a negative length"

                    dimensions[i] <- length

                for length in dimensions do
                    total <- total * int64 length

                    if total * 8L > int64 Int32.MaxValue then
                        invalid "an array that is too large"

                let start = this.Take(data, 8 * int total)
                let values = Array.zeroCreate<float>(int total)

                for i in 0 .. values.Length - 1 do
                    values[i] <- BinaryPrimitives.ReadDoubleLittleEndian(data.Slice(start + 8 * i, 8))

                Value.Array(dimensions, values)

        member this.Decimal(data: ReadOnlySpan<byte>) : Value =
            let head = this.Take(data, 2)
            let scale, length = int data[head], int data[head + 1]

            if scale > 76 then
                invalid $"a decimal of scale {scale}"

            if length > 32 then
                invalid $"a decimal of {length} bytes"

            let start = this.Take(data, length)

            if length = 0 then
                Value.Null
            else
                let bytes = data.Slice(start, length)
                let unscaled = BigInteger(bytes, isUnsigned = false, isBigEndian = true)

                if options.Strict && unscaled.GetByteCount() <> length then
                    invalid "a decimal with more bytes than it needs"

                Value.Decimal(scale, unscaled)

        /// What follows the second equals sign.
        member this.Binary(data: ReadOnlySpan<byte>) : Value =
            let kind = data[this.Take(data, 1)]
            needs 2 "a binary value"

            match kind with
            | 16uy -> Value.Double(BinaryPrimitives.ReadDoubleLittleEndian(data.Slice(this.Take(data, 8), 8)))
            | 14uy -> this.Array data
            | 23uy ->
                needs 3 "a decimal"
                this.Decimal data
            | 15uy -> Value.Long(BinaryPrimitives.ReadInt64LittleEndian(data.Slice(this.Take(data, 8), 8)))
            | 13uy ->
                let start = this.Take(data, 9)
                let value = BinaryPrimitives.ReadInt64LittleEndian(data.Slice(start + 1, 8))

                let inMicros unit =
                    Value.Timestamp(Checked.(*) value (perMicro unit))

                match data[start] with
                | 1uy -> Value.TimestampNanos value
                | 2uy -> inMicros TimeUnit.Micros
                | 3uy -> inMicros TimeUnit.Millis
                | 4uy -> inMicros TimeUnit.Seconds
                | 5uy -> inMicros TimeUnit.Minutes
                | 6uy -> inMicros TimeUnit.Hours
                | unit -> raise (Bad(500, $"unsupported timestamp unit {unit}"))
            | 6uy -> Value.Boolean(data[this.Take(data, 1)] = 1uy)
            | 3uy ->
                Value.Long(int64 (BinaryPrimitives.ReadInt32LittleEndian(data.Slice(this.Take(data, 4), 4))))
            | 2uy ->
                Value.Double(
                    float (BinaryPrimitives.ReadSingleLittleEndian(data.Slice(this.Take(data, 4), 4)))
                )
            | kind -> invalid $"unknown binary type {kind}"

        member _.Integer(text: ReadOnlySpan<byte>) : int64 =
            let mutable value, used = 0L, 0

            if
                text.IsEmpty
                || text[0] = '+'B
                || not (Utf8Parser.TryParse(text, &value, &used))
                || used <> text.Length
            then
                invalid $"not an integer: {Encoding.UTF8.GetString text}"

            value

        member _.Real(text: ReadOnlySpan<byte>) : float =
            if text.SequenceEqual("NaN"B.AsSpan()) then
                nan
            elif text.SequenceEqual("Infinity"B.AsSpan()) then
                infinity
            elif text.SequenceEqual("-Infinity"B.AsSpan()) then
                -infinity
            else
                let mutable value, used = 0.0, 0

                if
                    text.IndexOfAnyExcept inDouble >= 0
                    || not (Utf8Parser.TryParse(text, &value, &used))
                    || used <> text.Length
                    || Double.IsInfinity value
                then
                    invalid $"not a number: {Encoding.UTF8.GetString text}"

                value

        member _.DecimalText(text: string) : Value =
            let mantissa, exponent =
                match text.IndexOfAny [| 'e'; 'E' |] with
                | -1 -> text, 0
                | i ->
                    match
                        Int32.TryParse(
                            text.AsSpan(i + 1),
                            NumberStyles.AllowLeadingSign,
                            CultureInfo.InvariantCulture
                        )
                    with
                    | true, exponent when abs exponent <= 76 -> text.Substring(0, i), exponent
                    | _ -> invalid $"not a decimal: {text}"

            let point = mantissa.IndexOf '.'
            let digits = mantissa.Replace(".", "")

            let decimals =
                if point < 0 then
                    -exponent
                else
                    mantissa.Length - point - 1 - exponent

            match
                BigInteger.TryParse(digits, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture)
            with
            | true, unscaled when mantissa.IndexOf('.', point + 1) < 0 || point < 0 ->
                if decimals < 0 then
                    Value.Decimal(0, unscaled * BigInteger.Pow(10I, -decimals))
                elif decimals > 76 then
                    invalid $"a decimal of scale {decimals}"
                else
                    Value.Decimal(decimals, unscaled)
            | _ -> invalid $"not a decimal: {text}"

        /// A value without quotes: its last byte decides what it is.
        member this.Plain(data: ReadOnlySpan<byte>) : Value =
            let rest = data.Slice at
            let hit = rest.IndexOfAny special
            let length = if hit < 0 then rest.Length else hit

            if hit >= 0 && (rest[hit] = '\\'B || rest[hit] = '='B) then
                invalid "an escape or an equals sign in a value without quotes"

            let text = rest.Slice(0, length)
            at <- at + length

            if length = 0 then
                Value.Null
            else
                let front = text.Slice(0, length - 1)

                match text[length - 1] with
                | 'i'B ->
                    if front.StartsWith("0x"B.AsSpan()) then
                        let digits = Encoding.UTF8.GetString front

                        if
                            digits.Length < 3
                            || digits.Length > 66
                            || not (Seq.forall Char.IsAsciiHexDigit digits[2..])
                        then
                            invalid $"not a LONG256: {digits}"

                        Value.Long256 digits
                    else
                        match this.Integer front with
                        | Int64.MinValue -> Value.Null
                        | value -> Value.Long value
                | 't'B when length > 1 -> Value.Timestamp(this.Integer front)
                | 'm'B ->
                    try
                        Value.Timestamp(Checked.(*) (this.Integer front) 1000L)
                    with :? OverflowException ->
                        invalid "timestamp overflow"
                | 'n'B -> Value.TimestampNanos(this.Integer front)
                | 'd'B ->
                    needs 3 "a decimal"

                    match Encoding.UTF8.GetString front with
                    | "NaN"
                    | "Infinity"
                    | "-Infinity" -> Value.Null
                    | digits -> this.DecimalText digits
                | last when (last >= '0'B && last <= '9'B) || last = '.'B -> Value.Double(this.Real text)
                | _ ->
                    match Encoding.UTF8.GetString text with
                    | "t"
                    | "T"
                    | "true"
                    | "True"
                    | "TRUE" -> Value.Boolean true
                    | "f"
                    | "F"
                    | "false"
                    | "False"
                    | "FALSE" -> Value.Boolean false
                    | _ -> Value.Double(this.Real text)

        member this.Time(data: ReadOnlySpan<byte>) : RowTime =
            let rest = data.Slice at
            let hit = rest.IndexOfAny('\n'B, '\r'B)
            let length = if hit < 0 then rest.Length else hit

            if length = 0 then
                invalid "no timestamp after the space"

            let text = rest.Slice(0, length)

            let suffixed unit = {
                Value = 0L
                Unit = unit
                Suffixed = true
            }

            let kind, digits =
                match text[length - 1] with
                | 'n'B -> suffixed TimeUnit.Nanos, length - 1
                | 't'B -> suffixed TimeUnit.Micros, length - 1
                | 'm'B -> suffixed TimeUnit.Millis, length - 1
                | _ ->
                    {
                        Value = 0L
                        Unit = options.Precision
                        Suffixed = false
                    },
                    length

            let time = {
                kind with
                    Value = this.Integer(text.Slice(0, digits))
            }

            if time.Value < 0L then
                invalid "designated timestamp before 1970-01-01 is not allowed"

            try
                if micros time > lastMicro then
                    raise (Bad(500, "designated timestamp beyond 9999-12-31 is not allowed"))
            with :? OverflowException ->
                invalid "designated timestamp overflow"

            at <- at + length
            time

        member _.Known(name: string) =
            let same (other: string) =
                Object.ReferenceEquals(other, name)
                || other.Length = name.Length
                   && String.Equals(other, name, StringComparison.OrdinalIgnoreCase)

            let mutable found = false

            for other, _ in symbols do
                found <- found || same other

            for other, _ in fields do
                found <- found || same other

            found

        member _.Expect(data: ReadOnlySpan<byte>, wanted: byte, what: string) =
            if at >= data.Length || data[at] <> wanted then
                invalid $"{what} expected"

            at <- at + 1

        member this.Field(data: ReadOnlySpan<byte>) =
            let name = this.Name(data, false)
            this.Expect(data, '='B, "an equals sign after the name of a field")

            let value =
                if at >= data.Length then
                    Value.Null
                else
                    match data[at] with
                    | '='B ->
                        at <- at + 1

                        try
                            this.Binary data
                        with :? OverflowException ->
                            invalid "timestamp overflow"
                    | '"'B -> this.Quoted data |> Value.Text
                    | _ -> this.Plain data

            if not (this.Ends data || data[at] = ','B || data[at] = ' 'B) then
                invalid "a comma, a space or the end of the line expected after a value"

            if not (this.Known name) then
                fields.Add(name, value)

        member this.Row(data: ReadOnlySpan<byte>, number: int) : Row =
            let start = at
            symbols.Clear()
            fields.Clear()
            let table = this.Name(data, true)

            while at < data.Length && data[at] = ','B do
                at <- at + 1
                let name = this.Name(data, false)
                this.Expect(data, '='B, "an equals sign after the name of a symbol")
                let value = this.Symbol data

                if not (this.Known name) then
                    symbols.Add(name, value)

            let mutable time = ValueNone

            if not (this.Ends data) then
                this.Expect(data, ' 'B, "a space after the symbols")
                let rest = data.Slice at
                let hit = rest.IndexOfAny special

                // A number that no equals sign follows.
                if symbols.Count > 0 && (hit < 0 || rest[hit] = '\n'B || rest[hit] = '\r'B) then
                    time <- ValueSome(this.Time data)
                else
                    this.Field data

                    while not (this.Ends data) && data[at] = ','B do
                        at <- at + 1
                        this.Field data

                    if not (this.Ends data) then
                        this.Expect(data, ' 'B, "a space before the timestamp")
                        time <- ValueSome(this.Time data)

            if symbols.Count = 0 && fields.Count = 0 then
                invalid "a row without columns"

            {
                Number = number
                Table = table
                Symbols = symbols.ToArray()
                Fields = fields.ToArray()
                Time = time
                Start = start
                Length = at - start
            }

        member this.Rows(body: ReadOnlyMemory<byte>, into: ResizeArray<Row>) =
            let data = body.Span

            while at < data.Length do
                if this.Ends data then
                    at <- at + 1
                else
                    into.Add(this.Row(data, into.Count + 1))

    /// What the server says of a bad row.
    let errorText line reason =
        $"failed to parse line protocol:errors encountered on line(s):\nerror in line {line}: {reason}"

    /// The rows before the first bad one, and what is wrong with that.
    let read (options: IlpOptions) (body: ReadOnlyMemory<byte>) : ResizeArray<Row> * LineError voption =
        let rows = ResizeArray<Row>()
        let reader = Reader options
        let mutable error = ValueNone

        try
            reader.Rows(body, rows)
        with Bad(status, message) ->
            let line = rows.Count + 1

            error <-
                ValueSome {
                    Line = line
                    Status = status
                    Code = if status = 400 then "invalid" else "internal error"
                    Message = errorText line message
                }

        rows, error

    /// All rows, or why there are none.
    let parseWith (options: IlpOptions) (body: ReadOnlyMemory<byte>) : Result<ResizeArray<Row>, LineError> =
        match read options body with
        | rows, ValueNone -> Ok rows
        | _, ValueSome error -> Error error

    /// All rows, or why there are none; strict, and timestamps without a suffix are nanoseconds.
    let parse (maxProtocol: int) (body: ReadOnlyMemory<byte>) : Result<ResizeArray<Row>, LineError> =
        parseWith
            {
                IlpOptions.Default with
                    MaxProtocol = maxProtocol
            }
            body
