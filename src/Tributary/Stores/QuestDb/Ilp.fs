/// QuestDB's line protocol, versions 1 to 3: names, values and rows as the server reads them. It knows no table of ours.
namespace Tributary.Stores.QuestDb

open System
open System.Buffers
open System.Buffers.Binary
open System.Buffers.Text
open System.Globalization
open System.Runtime.CompilerServices
open System.Runtime.InteropServices
open System.Runtime.Intrinsics
open System.Text
open System.Text.Unicode

/// A text that is written again and again. Behind it are zeros, so that a short one is copied as the 32 bytes that a processor copies
/// at once: cheaper than a call that counts.
[<Struct; NoComparison; NoEquality>]
type internal Word = {
    Padded: byte[]
    Length: int
} with

    static member Of(text: string) : Word =
        let bytes = Encoding.UTF8.GetBytes text

        {
            Padded = Array.append bytes (Array.zeroCreate 32)
            Length = bytes.Length
        }

/// A column's name as it stands in front of its values.
[<NoComparison; NoEquality>]
type internal Column = {
    Name: string
    /// `name=`, escaped: a symbol or a field in text.
    Text: Word
    /// `name==`, escaped: a field in binary.
    Binary: Word
}

[<RequireQualifiedAccess>]
module internal Ilp =
    /// The length of a name when the server does not say another: bytes of UTF-8.
    [<Literal>]
    let LongestName = 127

    /// 9999-12-31T23:59:59.999999Z: the server refuses a row that is later, or earlier than 1970.
    [<Literal>]
    let LatestMicros = 253_402_300_799_999_999L

    /// Whether the server takes it as the time of a row.
    let isRowTime (micros: int64) = uint64 micros <= uint64 LatestMicros

    let private refusal isTable (name: string) =
        let refused (rune: Rune) =
            match rune.Value with
            | 0xFEFF
            | 0xFFFD -> true // a byte order mark; what a lone surrogate would become
            | code when code < 0x10 || code = 0x7F -> true
            | code when code < 0x80 ->
                (if isTable then @"?,'""\/:()+*%~" else @"?.,'""\/:()+-*%~").Contains(char code)
            | _ -> false

        // '-' and single points are fine in a table's name.
        let shown (rune: Rune) =
            if rune.Value > 0x20 && rune.Value < 0x7F then
                $"'{rune}'"
            else
                $"U+%04X{rune.Value}"

        name.EnumerateRunes()
        |> Seq.tryFind refused
        |> Option.map (fun rune -> $"must not hold {shown rune}")

    let private check isTable longest (name: string) =
        let what = if isTable then "table" else "column"

        let wrong reason =
            Error $"the {what} name '{name}' {reason}"

        if name = "" then
            Error $"the name of a {what} must not be empty"
        elif Encoding.UTF8.GetByteCount name > longest then
            wrong $"is longer than {longest} bytes"
        else
            match refusal isTable name with
            | Some reason -> wrong reason
            | None when isTable && (name.StartsWith ' ' || name.EndsWith ' ') ->
                wrong "must not begin or end with a space"
            | None when isTable && (name.StartsWith '.' || name.EndsWith '.' || name.Contains "..") ->
                wrong "must not begin or end with a point, or hold two in a row"
            | None -> Ok name

    /// The name, when a table may have it on a server that takes names of so many bytes.
    let tableName longest name = check true longest name

    /// The name, when a column may have it on a server that takes names of so many bytes.
    let columnName longest name = check false longest name

    let private sound result =
        match result with
        | Ok name -> name
        | Error message -> invalidArg "name" message

    let private escapedName (name: string) =
        name.Replace(" ", "\\ ").Replace(",", "\\,").Replace("=", "\\=")

    /// The table's name as it begins a row. Throws for a name that no table can have.
    let table name =
        Encoding.UTF8.GetBytes(escapedName (sound (tableName LongestName name)))

    /// A column's name, encoded once. Throws for a name that no column can have.
    let column name : Column =
        let escaped = escapedName (sound (columnName LongestName name))

        {
            Name = name
            Text = Word.Of(escaped + "=")
            Binary = Word.Of(escaped + "==")
        }

    // What stops a bulk copy: what needs an escape, and all bytes of more than seven bits, which may be broken UTF-8.
    let private stopping (escaped: string) =
        SearchValues.Create(
            ReadOnlySpan [|
                for c in escaped do
                    byte c

                for b in 0x80uy .. 0xFFuy do
                    b
            |]
        )

    let internal symbolStops = stopping " ,=\n\r\\\000"
    let internal stringStops = stopping "\"\\\n\r"

    let internal symbolEscapes = SearchValues.Create(ReadOnlySpan " ,=\n\r\\\000"B)
    let internal stringEscapes = SearchValues.Create(ReadOnlySpan "\"\\\n\r"B)

    /// U+FFFD in UTF-8.
    let internal replacement = [| 0xEFuy; 0xBFuy; 0xBDuy |]

/// Finished rows, one after the other, in one run of bytes that is reused. A row is there whole or not at all. Memory that was
/// given out is valid until the next change.
[<Sealed>]
type internal Payload(capacity: int) =
    let mutable bytes: byte[] = Array.zeroCreate (max 64 capacity)
    let mutable length = 0
    // Where each row starts.
    let mutable starts: int[] = Array.zeroCreate 256
    let mutable count = 0

    let endOf row =
        if row + 1 < count then starts[row + 1] else length

    let check row =
        if uint row >= uint count then
            raise (ArgumentOutOfRangeException(nameof row, $"there are {count} rows"))

    new() = Payload(65_536)

    member _.RowCount = count
    /// The bytes of all rows.
    member _.Length = length
    /// All rows, ready to be sent.
    member _.Memory = ReadOnlyMemory<byte>(bytes, 0, length)

    /// One row, its newline included.
    member _.Row(row: int) : ReadOnlyMemory<byte> =
        check row
        ReadOnlyMemory<byte>(bytes, starts[row], endOf row - starts[row])

    /// So many rows from this one on, ready to be sent.
    member _.Slice(first: int, rows: int) : ReadOnlyMemory<byte> =
        if first < 0 || rows < 0 || first > count - rows then
            raise (ArgumentOutOfRangeException(nameof rows, $"there are {count} rows"))

        let start = if first = count then length else starts[first]

        let finish =
            if first + rows = count then
                length
            else
                starts[first + rows]

        ReadOnlyMemory<byte>(bytes, start, finish - start)

    /// Takes exactly this row out; those behind it move up.
    member _.Remove(row: int) =
        check row
        let start = starts[row]
        let next = endOf row
        Buffer.BlockCopy(bytes, next, bytes, start, length - next)

        for i in row + 1 .. count - 1 do
            starts[i - 1] <- starts[i] - (next - start)

        count <- count - 1
        length <- length - (next - start)

    /// Keeps only the first so many rows.
    member _.Truncate(rows: int) =
        if rows < count then
            check rows
            length <- starts[rows]
            count <- rows

    member _.Clear() =
        length <- 0
        count <- 0

    /// What rows are written into, behind `Length`.
    member internal _.Buffer = bytes

    /// A larger buffer that holds the same up to `used`, and has room for `more`.
    member internal _.Grow(used: int, more: int) : byte[] =
        let needed = int64 used + int64 more

        if needed > int64 Array.MaxLength then
            raise (OutOfMemoryException "a payload cannot hold two gigabytes")

        let larger: byte[] =
            Array.zeroCreate (int (min (int64 Array.MaxLength) (max needed (2L * int64 bytes.Length))))

        Buffer.BlockCopy(bytes, 0, larger, 0, used)
        bytes <- larger
        larger

    /// What was written from `Length` to here is one more row.
    [<MethodImpl(MethodImplOptions.AggressiveInlining)>]
    member internal _.Finish(at: int) =
        if count = starts.Length then
            Array.Resize(&starts, count * 2)

        starts[count] <- length
        count <- count + 1
        length <- at

    /// Adds a row that was finished elsewhere, its newline included.
    member this.Add(row: ReadOnlySpan<byte>) =
        if bytes.Length - length < row.Length then
            this.Grow(length, row.Length) |> ignore

        row.CopyTo(Span<byte>(bytes, length, bytes.Length - length))
        this.Finish(length + row.Length)

/// The beginning of a row, or a part of one, kept to be put into many rows.
[<NoComparison; NoEquality>]
type internal Fragment = { Bytes: byte[]; HasField: bool }

/// Writes rows of one protocol version: `Begin`, symbols, fields, and `End`, which makes the row part of the payload. A row
/// that was begun and not ended leaves no trace. Reused for any number of rows and payloads, by one thread at a time. Values
/// that the protocol cannot tell from NULL, or has no form for, are refused with an exception: they are bugs of the caller.
[<Sealed>]
type internal LineWriter(protocol: int) =
    let mutable payload = Payload 0
    let mutable buffer = payload.Buffer
    let mutable at = 0
    let mutable start = 0
    // In front of the next field: a space, and commas after that.
    let mutable separator = ' 'B
    let mutable scratch: byte[] = Array.zeroCreate 256

    do
        if protocol < 1 || protocol > 3 then
            invalidArg (nameof protocol) $"there is no version {protocol} of the line protocol"

    let needs version what =
        if protocol < version then
            invalidOp $"version {protocol} of the line protocol has no {what}"

    [<MethodImpl(MethodImplOptions.NoInlining)>]
    let grow more = buffer <- payload.Grow(at, more)

    [<MethodImpl(MethodImplOptions.AggressiveInlining)>]
    let reserve more =
        if buffer.Length - at < more then
            grow more

    [<MethodImpl(MethodImplOptions.AggressiveInlining)>]
    let put (symbol: byte) =
        buffer[at] <- symbol
        at <- at + 1

    [<MethodImpl(MethodImplOptions.AggressiveInlining)>]
    let copy (bytes: ReadOnlySpan<byte>) =
        bytes.CopyTo(buffer.AsSpan at)
        at <- at + bytes.Length

    /// There is room for it, and for 32 bytes behind it.
    [<MethodImpl(MethodImplOptions.AggressiveInlining)>]
    let copyWord (word: Word) =
        if word.Length <= 32 then
            let bytes = Vector256.LoadUnsafe(&MemoryMarshal.GetArrayDataReference word.Padded)
            bytes.CopyTo(buffer.AsSpan at)
            at <- at + word.Length
        else
            copy (ReadOnlySpan(word.Padded, 0, word.Length))

    /// The separator and the name, and room for `more` bytes behind them.
    [<MethodImpl(MethodImplOptions.AggressiveInlining)>]
    let field (name: Word) more =
        reserve (1 + name.Length + more + 32)
        put separator
        separator <- ','B
        copyWord name

    /// Eight digits, the first one in the lowest byte: halves, quarters and eighths of the number side by side.
    let eight (value: uint64) : uint64 =
        let fours = value / 10_000UL ||| ((value % 10_000UL) <<< 32)
        let hundreds = ((fours * 10_486UL) >>> 20) &&& 0x0000007F0000007FUL
        let twos = hundreds ||| ((fours - hundreds * 100UL) <<< 16)
        let tens = ((twos * 103UL) >>> 10) &&& 0x000F000F000F000FUL
        (tens ||| ((twos - tens * 10UL) <<< 8)) + 0x3030303030303030UL

    let number (value: int64) =
        if value >= 1_000_000_000_000_000L && value < 10_000_000_000_000_000L then
            // A moment of the years 2001 to 2286.
            let high = uint64 value / 100_000_000UL
            BinaryPrimitives.WriteUInt64LittleEndian(buffer.AsSpan at, eight high)

            BinaryPrimitives.WriteUInt64LittleEndian(
                buffer.AsSpan(at + 8),
                eight (uint64 value - high * 100_000_000UL)
            )

            at <- at + 16
        else
            let mutable written = 0
            Utf8Formatter.TryFormat(value, buffer.AsSpan at, &written) |> ignore
            at <- at + written

    /// Valid UTF-8 with a backslash in front of every byte that needs one. There is room for it.
    let escaped (text: ReadOnlySpan<byte>) (escapes: SearchValues<byte>) =
        let mutable i = 0

        while i < text.Length do
            let rest = text.Slice i
            let next = rest.IndexOfAny escapes

            if next < 0 then
                copy rest
                i <- text.Length
            else
                copy (rest.Slice(0, next))
                let special = rest[next]

                if special = 0uy then
                    copy (ReadOnlySpan Ilp.replacement)
                else
                    put '\\'B
                    put special

                i <- i + next + 1

    /// Any bytes as valid UTF-8, escaped. There is room for three times their length.
    let unusual (text: ReadOnlySpan<byte>) escapes =
        if Utf8.IsValid text then
            escaped text escapes
        else
            // Rare: what is broken becomes U+FFFD, as the server would store it or fail.
            let repaired = Encoding.UTF8.GetBytes(Encoding.UTF8.GetString text)
            escaped (ReadOnlySpan repaired) escapes

    let inRange what (value: int64) =
        if value = Int64.MinValue then
            raise (ArgumentOutOfRangeException(what, "the smallest 64-bit integer means NULL"))

    /// A .NET text as UTF-8 in `scratch`: its length. A lone surrogate becomes U+FFFD.
    let encode (text: string) =
        let most = Encoding.UTF8.GetMaxByteCount text.Length

        if scratch.Length < most then
            scratch <- Array.zeroCreate (2 * most)

        Encoding.UTF8.GetBytes(text, 0, text.Length, scratch, 0)

    member _.Protocol = protocol

    /// A new row in this payload; one that was not ended is forgotten.
    [<MethodImpl(MethodImplOptions.AggressiveInlining)>]
    member _.Begin(into: Payload) =
        payload <- into
        buffer <- into.Buffer
        at <- into.Length
        start <- at
        separator <- ' 'B

    /// As `Begin`, and the name of the row's table, from `Ilp.table`.
    member this.Begin(into: Payload, table: byte[]) =
        this.Begin into
        reserve table.Length
        copy (ReadOnlySpan table)

    /// What was written since `Begin`.
    member _.Fragment() : Fragment = {
        Bytes = Array.sub buffer start (at - start)
        HasField = (separator = ','B)
    }

    /// What was written elsewhere goes on here.
    [<MethodImpl(MethodImplOptions.AggressiveInlining)>]
    member _.Put(fragment: Fragment) =
        reserve fragment.Bytes.Length
        copy (ReadOnlySpan fragment.Bytes)

        if fragment.HasField then
            separator <- ','B

    /// Symbols come before all fields. An empty text is the empty symbol, which is not NULL. NUL, which the server takes in no
    /// symbol, and broken UTF-8 become U+FFFD.
    member _.Symbol(column: Column, utf8: ReadOnlySpan<byte>) =
        if separator = ','B then
            invalidOp $"the symbol '{column.Name}' stands behind a field"

        reserve (1 + column.Text.Length + 3 * utf8.Length + 32)
        put ','B
        copyWord column.Text

        if utf8.IndexOfAny Ilp.symbolStops < 0 then
            copy utf8
        else
            unusual utf8 Ilp.symbolEscapes

    member this.Symbol(column: Column, text: string) =
        let length = encode text
        this.Symbol(column, ReadOnlySpan(scratch, 0, length))

    /// Any text, NUL included; broken UTF-8 becomes U+FFFD. An empty text is not NULL.
    member _.String(column: Column, utf8: ReadOnlySpan<byte>) =
        if utf8.IndexOfAny Ilp.stringStops < 0 then
            field column.Text (utf8.Length + 2)
            put '"'B
            copy utf8
        else
            field column.Text (3 * utf8.Length + 2)
            put '"'B
            unusual utf8 Ilp.stringEscapes

        put '"'B

    member this.String(column: Column, text: string) =
        let length = encode text
        this.String(column, ReadOnlySpan(scratch, 0, length))

    /// Thirty-two lower-case hex digits as a text.
    member _.Hex(column: Column, high: uint64, low: uint64) =
        field column.Text 50
        put '"'B
        // The bytes lie for a moment where nothing is written yet.
        BinaryPrimitives.WriteUInt64BigEndian(buffer.AsSpan(at + 33), high)
        BinaryPrimitives.WriteUInt64BigEndian(buffer.AsSpan(at + 41), low)
        let bytes = ReadOnlySpan<byte>(buffer, at + 33, 16)
        let mutable written = 0
        Convert.TryToHexStringLower(bytes, buffer.AsSpan(at, 32), &written) |> ignore

        at <- at + 32
        put '"'B

    /// Throws for the smallest 64-bit integer, which means NULL.
    member _.Long(column: Column, value: int64) =
        inRange (nameof value) value
        field column.Text 21
        number value
        put 'i'B

    /// NaN and infinities are sent as they are; the server reads them back as NULL. Version 1 writes the shortest text that is
    /// the same number, the others its eight bytes.
    member _.Double(column: Column, value: float) =
        if protocol = 1 then
            field column.Text 32
            let mutable written = 0

            value.TryFormat(
                buffer.AsSpan at,
                &written,
                ReadOnlySpan<char>.Empty,
                CultureInfo.InvariantCulture
            )
            |> ignore

            // 1E+20 is 1E20 to every reader of numbers.
            let plus = buffer.AsSpan(at, written).IndexOf '+'B

            if plus >= 0 then
                Buffer.BlockCopy(buffer, at + plus + 1, buffer, at + plus, written - plus - 1)
                written <- written - 1

            at <- at + written
        else
            field column.Binary 9
            put 16uy
            BinaryPrimitives.WriteDoubleLittleEndian(buffer.AsSpan at, value)
            at <- at + 8

    member _.Boolean(column: Column, value: bool) =
        field column.Text 1
        put (if value then 't'B else 'f'B)

    /// Microseconds since 1970 UTC. Throws for the smallest 64-bit integer, which means NULL.
    member _.Timestamp(column: Column, micros: int64) =
        inRange (nameof micros) micros
        field column.Text 21
        number micros
        put 't'B

    /// The head of an array of doubles with these lengths, outermost first (1 to 32 of them), and room for its values: 8
    /// bytes each, little-endian, row by row, all to be written before anything else is. Not in version 1. NULL is the field
    /// left out.
    member _.Array(column: Column, lengths: ReadOnlySpan<int>) : Span<byte> =
        needs 2 "arrays"

        if lengths.Length < 1 || lengths.Length > 32 then
            invalidArg (nameof lengths) $"an array has 1 to 32 dimensions, not {lengths.Length}"

        let mutable size = 8L

        for length in lengths do
            if length < 0 then
                invalidArg (nameof lengths) "a length is negative"

            size <- Math.Min(size * int64 length, int64 Int32.MaxValue)

        if size > int64 Array.MaxLength - 256L then
            invalidArg (nameof lengths) "an array cannot hold two gigabytes"

        field column.Binary (3 + 4 * lengths.Length + int size)
        put 14uy
        put 10uy
        put (byte lengths.Length)

        for length in lengths do
            BinaryPrimitives.WriteInt32LittleEndian(buffer.AsSpan at, length)
            at <- at + 4

        let values = buffer.AsSpan(at, int size)
        at <- at + int size
        values

    /// As the other, with the values, row by row.
    member this.Array(column: Column, lengths: ReadOnlySpan<int>, values: ReadOnlySpan<float>) =
        let mutable count = 1L

        for length in lengths do
            count <- Math.Min(count * int64 length, int64 Int32.MaxValue)

        if count <> int64 values.Length then
            invalidArg (nameof values) $"the lengths ask for {count} values, not {values.Length}"

        let into = this.Array(column, lengths)

        if BitConverter.IsLittleEndian then
            (MemoryMarshal.AsBytes values).CopyTo into
        else
            for i in 0 .. values.Length - 1 do
                BinaryPrimitives.WriteDoubleLittleEndian(into.Slice(8 * i), values[i])

    /// `unscaled` divided by ten to the power of `scale` (0 to 76), exactly. Only in version 3, and only into a column that is there.
    member _.Decimal(column: Column, unscaled: int64, scale: int) =
        needs 3 "decimals"

        if scale < 0 || scale > 76 then
            raise (ArgumentOutOfRangeException(nameof scale, "a scale lies between 0 and 76"))

        // As few bytes as hold the number and its sign.
        let magnitude = if unscaled < 0L then ~~~unscaled else unscaled

        let length =
            (64 - Numerics.BitOperations.LeadingZeroCount(uint64 magnitude)) / 8 + 1

        field column.Binary (3 + length)
        put 23uy
        put (byte scale)
        put (byte length)

        for i in length - 1 .. -1 .. 0 do
            put (byte (unscaled >>> (8 * i)))

    /// The row's own time, in microseconds since 1970 UTC, and the row is part of the payload. Throws for a time that the server
    /// would refuse: see `Ilp.isRowTime`.
    member _.End(micros: int64) =
        if not (Ilp.isRowTime micros) then
            raise (ArgumentOutOfRangeException(nameof micros, "a row's time lies between 1970 and 9999"))

        reserve 23
        put ' 'B
        number micros
        put 't'B
        put '\n'B
        payload.Finish at
