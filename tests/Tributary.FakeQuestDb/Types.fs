namespace Tributary.FakeQuestDb

open System
open System.Globalization
open System.Numerics
open System.Text

/// A type of a column.
[<RequireQualifiedAccess>]
type internal ColumnType =
    | Symbol
    | Varchar
    | String
    | Char
    | Uuid
    | IPv4
    | Geohash of bits: string
    | Binary
    | Byte
    | Short
    | Int
    | Long
    | Long256
    | Float
    | Double
    | Boolean
    | Date
    | Timestamp
    | TimestampNanos
    | Decimal of precision: int * scale: int
    | Array of dimensions: int

    /// As `table_columns` and results name it.
    override this.ToString() =
        match this with
        | Symbol -> "SYMBOL"
        | Varchar -> "VARCHAR"
        | String -> "STRING"
        | Char -> "CHAR"
        | Uuid -> "UUID"
        | IPv4 -> "IPv4"
        | Geohash bits -> $"GEOHASH({bits})"
        | Binary -> "BINARY"
        | Byte -> "BYTE"
        | Short -> "SHORT"
        | Int -> "INT"
        | Long -> "LONG"
        | Long256 -> "LONG256"
        | Float -> "FLOAT"
        | Double -> "DOUBLE"
        | Boolean -> "BOOLEAN"
        | Date -> "DATE"
        | Timestamp -> "TIMESTAMP"
        | TimestampNanos -> "TIMESTAMP_NS"
        | Decimal(precision, scale) -> $"DECIMAL({precision},{scale})"
        | Array dimensions -> "DOUBLE" + String.replicate dimensions "[]"

/// A value as SQLite has it.
[<Struct; RequireQualifiedAccess>]
type internal Cell =
    | Null
    | Integer of integer: int64
    | Real of real: float
    | Text of text: string
    /// An array, see `Arrays`.
    | Blob of blob: byte[]

/// Times as texts that sort as they should: always with six decimals, or nine.
module internal Iso =
    let private ticksAt1970 = DateTime.UnixEpoch.Ticks

    /// None before the year 1 and after 9999.
    let ofMicros (micros: int64) =
        let days = micros / 86_400_000_000L

        if days < -719_162L || days > 2_932_896L then
            None
        else
            // The round-trip format has seven decimals and is much faster than a pattern.
            let text =
                DateTime(ticksAt1970 + micros * 10L, DateTimeKind.Utc)
                    .ToString("O", CultureInfo.InvariantCulture)

            Some(String.Concat(text.AsSpan(0, 26), "Z".AsSpan()))

    let ofNanos (nanos: int64) =
        let micros = nanos / 1000L
        let micros = if nanos < micros * 1000L then micros - 1L else micros

        ofMicros micros
        |> Option.map (fun text -> $"{text.Substring(0, 26)}{nanos - micros * 1000L:D3}Z")

    /// The microseconds of a text that `ofMicros` or `ofNanos` made.
    let micros (text: string) =
        let seconds =
            DateTime.ParseExact(
                text.Substring(0, 19),
                "yyyy-MM-dd'T'HH:mm:ss",
                CultureInfo.InvariantCulture,
                DateTimeStyles.AssumeUniversal ||| DateTimeStyles.AdjustToUniversal
            )

        (seconds.Ticks - ticksAt1970) / 10L + int64 (text.Substring(20, 6))

    /// A literal such as 2026-11, 2026-11-22 or 2026-11-22T10:00:00.5Z with all its places.
    let complete decimals (literal: string) =
        let text = literal.TrimEnd('Z').Replace(' ', 'T')
        let pattern = "0000-01-01T00:00:00.000000000"

        let shaped =
            text.Length >= 4
            && text.Length <= pattern.Length
            && Seq.forall2
                (fun (c: char) (p: char) -> if Char.IsAsciiDigit p then Char.IsAsciiDigit c else c = p)
                text
                pattern

        if shaped then
            ValueSome((text + pattern.Substring text.Length).Substring(0, 20 + decimals) + "Z")
        else
            ValueNone

module internal Decimals =
    /// With this many decimals, or None when digits would be lost.
    let rescale (scale: int) (fromScale: int) (unscaled: bigint) =
        if fromScale <= scale then
            Some(unscaled * BigInteger.Pow(10I, scale - fromScale))
        else
            let divisor = BigInteger.Pow(10I, fromScale - scale)
            let struct (quotient, rest) = BigInteger.DivRem(unscaled, divisor)
            if rest.IsZero then Some quotient else None

    let text (scale: int) (unscaled: bigint) =
        let digits = BigInteger.Abs(unscaled).ToString().PadLeft(scale + 1, '0')
        let sign = if unscaled.Sign < 0 then "-" else ""

        if scale = 0 then
            sign + digits
        else
            $"{sign}{digits.Substring(0, digits.Length - scale)}.{digits.Substring(digits.Length - scale)}"

    /// Scale and unscaled value of a plain number.
    let parse (text: string) =
        let point = text.IndexOf '.'

        match
            BigInteger.TryParse(
                text.Replace(".", ""),
                NumberStyles.AllowLeadingSign,
                CultureInfo.InvariantCulture
            )
        with
        | true, unscaled -> Some((if point < 0 then 0 else text.Length - point - 1), unscaled)
        | _ -> None

/// Arrays as bytes: how many dimensions, their lengths, the values.
module internal Arrays =
    let toBytes (dimensions: int[]) (values: float[]) : byte[] =
        let head = 4 * (1 + dimensions.Length)
        let bytes = Array.zeroCreate<byte>(head + 8 * values.Length)
        Buffer.BlockCopy([| dimensions.Length |], 0, bytes, 0, 4)
        Buffer.BlockCopy(dimensions, 0, bytes, 4, 4 * dimensions.Length)
        Buffer.BlockCopy(values, 0, bytes, head, 8 * values.Length)
        bytes

    let private number (value: float) =
        if Double.IsFinite value then
            value.ToString("R", CultureInfo.InvariantCulture)
        else
            "null"

    /// Nested JSON, with null for what is not a number.
    let toJson (bytes: byte[]) : string =
        let dimensions = Array.zeroCreate<int>(BitConverter.ToInt32(bytes, 0))
        Buffer.BlockCopy(bytes, 4, dimensions, 0, 4 * dimensions.Length)
        let values = 4 * (1 + dimensions.Length)

        if bytes.Length = values then
            "[]"
        else
            let text = StringBuilder()
            let mutable next = values

            let rec level depth =
                text.Append '[' |> ignore

                for i in 0 .. dimensions[depth] - 1 do
                    if i > 0 then
                        text.Append ',' |> ignore

                    if depth = dimensions.Length - 1 then
                        text.Append(number (BitConverter.ToDouble(bytes, next))) |> ignore
                        next <- next + 8
                    else
                        level (depth + 1)

                text.Append ']' |> ignore

            level 0
            string text

/// What a value of the line protocol becomes in a column that is there, or why it is refused.
module internal Cast =
    let private protocolType value =
        match value with
        | Value.Null -> "NULL"
        | Value.Long _ -> "INTEGER"
        | Value.Long256 _ -> "LONG256"
        | Value.Double _ -> "FLOAT"
        | Value.Boolean _ -> "BOOLEAN"
        | Value.Text _ -> "STRING"
        | Value.Timestamp _
        | Value.TimestampNanos _ -> "TIMESTAMP"
        | Value.Array _ -> "ARRAY"
        | Value.Decimal _ -> "DECIMAL"

    /// What a column has where a row says nothing.
    let absent columnType =
        match columnType with
        | ColumnType.Boolean
        | ColumnType.Byte
        | ColumnType.Short -> Cell.Integer 0L
        | _ -> Cell.Null

    let private decimalCell precision scale (fromScale, unscaled) =
        match Decimals.rescale scale fromScale unscaled with
        | None -> Error $"decimal value does not fit scale {scale} without loss"
        | Some value when BigInteger.Abs value >= BigInteger.Pow(10I, precision) ->
            Error $"decimal value does not fit precision {precision}"
        | Some value when abs value <= bigint Int64.MaxValue -> Ok(Cell.Integer(int64 value))
        | Some value -> Ok(Cell.Text(Decimals.text scale value))

    let private time (text: string option) =
        match text with
        | Some text -> Ok(Cell.Text text)
        | None -> Error "timestamp out of range"

    /// The symbols of a row.
    let symbol columnType (text: string) =
        match columnType with
        | ColumnType.Symbol
        | ColumnType.Varchar
        | ColumnType.String -> Ok(Cell.Text text)
        | other -> Error $"cast error from protocol type: TAG to column type: {other}"

    let value columnType (value: Value) : Result<Cell, string> =
        let within low high (number: int64) =
            if number >= low && number <= high then
                Ok(Cell.Integer number)
            else
                Error $"line protocol value: {number} is out of bounds of column type: {columnType}"

        match value, columnType with
        | Value.Null, _ -> Ok(absent columnType)
        | Value.Long number, ColumnType.Long -> Ok(Cell.Integer number)
        | Value.Long number, ColumnType.Int -> within (int64 Int32.MinValue) (int64 Int32.MaxValue) number
        | Value.Long number, ColumnType.Short -> within -32768L 32767L number
        | Value.Long number, ColumnType.Byte -> within -128L 127L number
        | Value.Long number, (ColumnType.Double | ColumnType.Float) -> Ok(Cell.Real(float number))
        | Value.Long number, ColumnType.Timestamp -> time (Iso.ofMicros number)
        | Value.Long number, ColumnType.TimestampNanos -> time (Iso.ofNanos number)
        | Value.Long number, ColumnType.Date -> time (Iso.ofMicros (number * 1000L))
        | Value.Long number, ColumnType.Symbol -> Ok(Cell.Text(string number))
        | Value.Long number, ColumnType.Decimal(precision, scale) ->
            decimalCell precision scale (0, bigint number)
        | Value.Long256 text, ColumnType.Long256 -> Ok(Cell.Text text)
        | Value.Double number, (ColumnType.Double | ColumnType.Float) ->
            Ok(
                if Double.IsFinite number then
                    Cell.Real number
                else
                    Cell.Null
            )
        | Value.Double number, ColumnType.Decimal(precision, scale) ->
            match Decimals.parse ((decimal number).ToString CultureInfo.InvariantCulture) with
            | Some parts -> decimalCell precision scale parts
            | None -> Error "not a decimal"
        | Value.Boolean flag, ColumnType.Boolean -> Ok(Cell.Integer(if flag then 1L else 0L))
        | Value.Boolean flag, (ColumnType.Byte | ColumnType.Short | ColumnType.Int | ColumnType.Long) ->
            Ok(Cell.Integer(if flag then 1L else 0L))
        | Value.Boolean flag, (ColumnType.Float | ColumnType.Double) ->
            Ok(Cell.Real(if flag then 1.0 else 0.0))
        | Value.Text text, (ColumnType.Symbol | ColumnType.Varchar | ColumnType.String | ColumnType.Geohash _) ->
            Ok(Cell.Text text)
        | Value.Text text, ColumnType.Char when text.Length < 2 -> Ok(Cell.Text text)
        | Value.Text text, ColumnType.Uuid when fst (Guid.TryParseExact(text, "D")) ->
            Ok(Cell.Text(text.ToLowerInvariant()))
        | Value.Text text, ColumnType.IPv4 when fst (Net.IPAddress.TryParse text) -> Ok(Cell.Text text)
        | Value.Text text, ColumnType.Decimal(precision, scale) ->
            match Decimals.parse text with
            | Some parts -> decimalCell precision scale parts
            | None -> Error $"not a decimal: {text}"
        | Value.Timestamp micros, ColumnType.Timestamp -> time (Iso.ofMicros micros)
        | Value.Timestamp micros, ColumnType.Date -> time (Iso.ofMicros (micros / 1000L * 1000L))
        | Value.Timestamp micros, ColumnType.TimestampNanos ->
            if abs micros > Int64.MaxValue / 1000L then
                Error "timestamp out of range"
            else
                time (Iso.ofNanos (micros * 1000L))
        | Value.TimestampNanos nanos, (ColumnType.Timestamp | ColumnType.Date) ->
            time (Iso.ofMicros (nanos / 1000L))
        | Value.TimestampNanos nanos, ColumnType.TimestampNanos -> time (Iso.ofNanos nanos)
        | Value.Array(dimensions, values), ColumnType.Array count ->
            if dimensions.Length = count then
                Ok(Cell.Blob(Arrays.toBytes dimensions values))
            else
                Error
                    $"cast error from protocol type: {ColumnType.Array dimensions.Length} to column type: {columnType}"
        | Value.Decimal(fromScale, unscaled), ColumnType.Decimal(precision, scale) ->
            decimalCell precision scale (fromScale, unscaled)
        | Value.Decimal(fromScale, unscaled), (ColumnType.Double | ColumnType.Float) ->
            Ok(Cell.Real(Double.Parse(Decimals.text fromScale unscaled, CultureInfo.InvariantCulture)))
        | _ -> Error $"cast error from protocol type: {protocolType value} to column type: {columnType}"

    /// The type of a column that is made for a value; None for a null, which makes none.
    let automatic value : Result<ColumnType option, string> =
        match value with
        | Value.Null -> Ok None
        | Value.Long _ -> Ok(Some ColumnType.Long)
        | Value.Long256 _ -> Ok(Some ColumnType.Long256)
        | Value.Double _ -> Ok(Some ColumnType.Double)
        | Value.Boolean _ -> Ok(Some ColumnType.Boolean)
        | Value.Text _ -> Ok(Some ColumnType.Varchar)
        | Value.Timestamp _ -> Ok(Some ColumnType.Timestamp)
        | Value.TimestampNanos _ -> Ok(Some ColumnType.TimestampNanos)
        | Value.Array(dimensions, _) -> Ok(Some(ColumnType.Array dimensions.Length))
        | Value.Decimal _ -> Error "decimal columns must be created manually"
