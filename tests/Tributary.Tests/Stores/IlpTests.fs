module Tributary.Tests.Stores.IlpTests

open System
open System.Text
open FsCheck
open FsCheck.FSharp
open NUnit.Framework
open FsCheck.NUnit
open Tributary.Stores.QuestDb
open Tributary.Tests

/// Bytes as a person reads them: printable ASCII as it is, everything else as `<0A>`.
let readable (bytes: ReadOnlyMemory<byte>) =
    let text = StringBuilder()

    for b in bytes.ToArray() do
        if b >= 0x20uy && b < 0x7Fuy && b <> byte '<' then
            text.Append(char b)
        else
            text.Append $"<%02X{b}>"
        |> ignore

    text.ToString()

/// Eight bytes, the lowest first, as `readable` has them.
let double (value: float) =
    readable (ReadOnlyMemory(BitConverter.GetBytes value))

let private t = Ilp.table "t"
let private v = Ilp.column "v"

/// The line of table `t` at time 7 with what is written in between.
let private lineOf protocol (write: LineWriter -> unit) =
    let payload = Payload()
    let writer = LineWriter protocol
    writer.Begin(payload, t)
    write writer
    writer.End 7L
    equal 1 payload.RowCount
    readable payload.Memory

let private line = lineOf 2

let private refused (write: LineWriter -> unit) =
    let payload = Payload()
    let writer = LineWriter 2
    writer.Begin(payload, t)

    let wrong = Assert.Catch(fun () -> write writer)
    isTrue (wrong :? ArgumentException || wrong :? InvalidOperationException)
    equal 0 payload.Length

let private symbol (text: string) =
    line (fun writer -> writer.Symbol(v, text))

let private quoted (text: string) =
    line (fun writer -> writer.String(v, text))

// ---- symbols and strings

[<Test>]
let ``symbols come first, then fields, then the time with its unit`` () =
    equal
        "t,a=x,b=y c=1i,d=\"z\" 7t<0A>"
        (line (fun writer ->
            writer.Symbol(Ilp.column "a", "x")
            writer.Symbol(Ilp.column "b", "y")
            writer.Long(Ilp.column "c", 1L)
            writer.String(Ilp.column "d", "z")))

[<Test>]
let ``a row may have symbols only`` () = equal "t,v=x 7t<0A>" (symbol "x")

[<Test>]
let ``a symbol escapes the space, the comma, the equals sign, line ends and the backslash`` () =
    equal "t,v=a\\ b\\,c\\=d\\<0A>e\\<0D>f\\\\g\"h/i 7t<0A>" (symbol "a b,c=d\ne\rf\\g\"h/i")

[<Test>]
let ``a string escapes the quote, the backslash and line ends`` () =
    equal "t v=\"a b,c=d\\<0A>e\\<0D>f\\\\g\\\"h/i\" 7t<0A>" (quoted "a b,c=d\ne\rf\\g\"h/i")

[<Test>]
let ``an empty symbol and an empty string are there`` () =
    equal "t,v= 7t<0A>" (symbol "")
    equal "t v=\"\" 7t<0A>" (quoted "")

[<Test>]
let ``a character beyond the basic plane is four bytes`` () =
    equal "t,v=a<F0><9F><98><80>b 7t<0A>" (symbol "a😀b")

    equal
        "t v=\"größe <E2><82><AC> <F0><9F><98><80>\" 7t<0A>"
        (quoted "größe € 😀" |> _.Replace("<C3><B6>", "ö").Replace("<C3><9F>", "ß"))

[<Test>]
let ``a lone surrogate is U+FFFD, before and behind whatever stands there`` () =
    equal "t,v=a<EF><BF><BD>b 7t<0A>" (symbol "a\uD83Db")
    equal "t v=\"<EF><BF><BD>\\\"<EF><BF><BD>\" 7t<0A>" (quoted "\uDE00\"\uD83D")

[<Test>]
let ``broken UTF-8 is repaired, and escapes in it are kept`` () =
    let bytes = [| byte 'a'; 0xFFuy; byte ','; 0xC3uy |]

    equal
        "t,v=a<EF><BF><BD>\\,<EF><BF><BD> 7t<0A>"
        (line (fun writer -> writer.Symbol(v, ReadOnlySpan bytes)))

    equal
        "t v=\"a<EF><BF><BD>,<EF><BF><BD>\" 7t<0A>"
        (line (fun writer -> writer.String(v, ReadOnlySpan bytes)))

[<Test>]
let ``NUL is U+FFFD in a symbol, and itself in a string`` () =
    equal "t,v=a<EF><BF><BD>b 7t<0A>" (symbol "a\000b")
    equal "t v=\"a<00>b\" 7t<0A>" (quoted "a\000b")

[<Test>]
let ``a text that is all escapes fits into a buffer that was too small`` () =
    let text = String('\\', 100_000)
    let escaped = String('\\', 200_000)
    let payload = Payload 64
    let writer = LineWriter 2
    writer.Begin(payload, t)
    writer.Symbol(v, text)
    writer.String(v, text)
    writer.End 7L
    equal $"t,v={escaped} v=\"{escaped}\" 7t<0A>" (readable payload.Memory)

[<Test>]
let ``a symbol behind a field is a bug`` () =
    refused (fun writer ->
        writer.Long(v, 1L)
        writer.Symbol(v, "x"))

[<Test>]
let ``an id is thirty-two lower-case hex digits`` () =
    equal
        "t v=\"0123456789abcdeffedcba9876543210\" 7t<0A>"
        (line (fun writer -> writer.Hex(v, 0x0123456789ABCDEFUL, 0xFEDCBA9876543210UL)))

    equal "t v=\"000000000000000000000000000000ff\" 7t<0A>" (line (fun writer -> writer.Hex(v, 0UL, 255UL)))

// ---- numbers

[<TestCase(0L, "0i")>]
[<TestCase(-1L, "-1i")>]
[<TestCase(Int64.MaxValue, "9223372036854775807i")>]
[<TestCase(-9223372036854775807L, "-9223372036854775807i")>]
let ``a whole number ends in i`` (value: int64, expected: string) =
    equal $"t v={expected} 7t<0A>" (line (fun writer -> writer.Long(v, value)))

[<Test>]
let ``the smallest whole number would be NULL, and is refused`` () =
    refused (fun writer -> writer.Long(v, Int64.MinValue))
    refused (fun writer -> writer.Timestamp(v, Int64.MinValue))

[<TestCase(0.0, "0")>]
[<TestCase(-0.0, "-0")>]
[<TestCase(0.1, "0.1")>]
[<TestCase(1500.25, "1500.25")>]
[<TestCase(1e20, "1E20")>]
[<TestCase(1e-7, "1E-07")>]
[<TestCase(Double.MaxValue, "1.7976931348623157E308")>]
[<TestCase(Double.Epsilon, "5E-324")>]
[<TestCase(Double.NaN, "NaN")>]
[<TestCase(Double.PositiveInfinity, "Infinity")>]
[<TestCase(Double.NegativeInfinity, "-Infinity")>]
let ``version 1 writes a double as the shortest text that is the same number``
    (value: float, expected: string)
    =
    equal $"t v={expected} 7t<0A>" (lineOf 1 (fun writer -> writer.Double(v, value)))

[<Test>]
let ``from version 2 on a double is its eight bytes`` () =
    equal "t v==<10><00><00><00><00><00><00><F8>? 7t<0A>" (line (fun writer -> writer.Double(v, 1.5)))

    for value in [ 0.0; -0.0; Double.MaxValue; Double.Epsilon; nan; infinity; -infinity ] do
        equal $"t v==<10>{double value} 7t<0A>" (lineOf 3 (fun writer -> writer.Double(v, value)))

[<Test>]
let ``a boolean is t or f`` () =
    equal
        "t v=t,v=f 7t<0A>"
        (line (fun writer ->
            writer.Boolean(v, true)
            writer.Boolean(v, false)))

[<Test>]
let ``a timestamp is microseconds and ends in t, also before 1970`` () =
    equal
        "t v=1784851200000001t,v=-62135596800000000t 7t<0A>"
        (line (fun writer ->
            writer.Timestamp(v, 1_784_851_200_000_001L)
            writer.Timestamp(v, -62_135_596_800_000_000L)))

[<TestCase(0L, "<01><00>")>]
[<TestCase(1L, "<01><01>")>]
[<TestCase(-1L, "<01><FF>")>]
[<TestCase(127L, "<01><7F>")>]
[<TestCase(128L, "<02><00><80>")>]
[<TestCase(-128L, "<01><80>")>]
[<TestCase(-129L, "<02><FF><7F>")>]
[<TestCase(550000L, "<03><08>d<70>")>]
[<TestCase(Int64.MaxValue, "<08><7F><FF><FF><FF><FF><FF><FF><FF>")>]
[<TestCase(Int64.MinValue, "<08><80><00><00><00><00><00><00><00>")>]
let ``a decimal is its scale and as few bytes as hold the number, the highest first``
    (unscaled: int64, expected: string)
    =
    let expected = expected.Replace("<70>", "p")
    equal $"t v==<17><06>{expected} 7t<0A>" (lineOf 3 (fun writer -> writer.Decimal(v, unscaled, 6)))

[<Test>]
let ``decimals need version 3, and a scale that the server has`` () =
    refused (fun writer -> writer.Decimal(v, 1L, 6))

    Assert.Throws<ArgumentOutOfRangeException>(fun () -> (LineWriter 3).Decimal(v, 1L, 77))
    |> ignore

// ---- arrays

[<Test>]
let ``the sides of a book are an array of two rows`` () =
    let payload = Payload()
    let writer = LineWriter 2
    writer.Begin(payload, t)
    let values = [| for i in 1..100 -> float i |]
    writer.Array(Ilp.column "bids", ReadOnlySpan [| 2; 50 |], ReadOnlySpan values)
    writer.End 7L

    let expected = values |> Array.map double |> String.concat ""
    equal $"t bids==<0E><0A><02><02><00><00><00>2<00><00><00>{expected} 7t<0A>" (readable payload.Memory)
    // Two for the second '=' and the type, one for the element's, one for the dimensions, and the rest.
    equal ("t bids=".Length + 812 + " 7t\n".Length) payload.Length

[<Test>]
let ``an array has any number of dimensions from 1 to 32, and any of them may be empty`` () =
    equal
        $"t v==<0E><0A><01><01><00><00><00>{double 1.5} 7t<0A>"
        (line (fun writer -> writer.Array(v, ReadOnlySpan [| 1 |], ReadOnlySpan [| 1.5 |])))

    equal
        "t v==<0E><0A><02><02><00><00><00><00><00><00><00> 7t<0A>"
        (line (fun writer -> writer.Array(v, ReadOnlySpan [| 2; 0 |], ReadOnlySpan<float>.Empty)))

    equal
        $"t v==<0E><0A><03><01><00><00><00><02><00><00><00><01><00><00><00>{double nan}{double infinity} 7t<0A>"
        (line (fun writer -> writer.Array(v, ReadOnlySpan [| 1; 2; 1 |], ReadOnlySpan [| nan; infinity |])))

    let ones = String.replicate 32 "<01><00><00><00>"

    equal
        $"t v==<0E><0A> {ones}{double 3.0} 7t<0A>"
        (line (fun writer -> writer.Array(v, ReadOnlySpan(Array.create 32 1), ReadOnlySpan [| 3.0 |])))

[<Test>]
let ``an array without dimensions, of other lengths than said, or in version 1 is a bug`` () =
    refused (fun writer -> writer.Array(v, ReadOnlySpan<int>.Empty, ReadOnlySpan [| 1.0 |]))
    refused (fun writer -> writer.Array(v, ReadOnlySpan(Array.create 33 1), ReadOnlySpan [| 1.0 |]))
    refused (fun writer -> writer.Array(v, ReadOnlySpan [| 2 |], ReadOnlySpan [| 1.0 |]))
    refused (fun writer -> writer.Array(v, ReadOnlySpan [| -1 |]).Clear())
    refused (fun writer -> writer.Array(v, ReadOnlySpan [| 65_536; 65_536 |]).Clear())

    Assert.Throws<InvalidOperationException>(fun () ->
        (LineWriter 1).Array(v, ReadOnlySpan [| 1 |], ReadOnlySpan [| 1.0 |]))
    |> ignore

[<TestCase 0>]
[<TestCase 4>]
let ``there are the versions 1 to 3`` (version: int) =
    Assert.Throws<ArgumentException>(fun () -> LineWriter version |> ignore)
    |> ignore

// ---- names

[<TestCase("trades", true, true)>]
[<TestCase("a b,c=d", false, false)>] // a comma
[<TestCase("a b=d", true, true)>]
[<TestCase("größe😀", true, true)>]
[<TestCase("", false, false)>]
[<TestCase("a-b", true, false)>]
[<TestCase("a.b", true, false)>]
[<TestCase("a..b", false, false)>]
[<TestCase(".a", false, false)>]
[<TestCase("a.", false, false)>]
[<TestCase(" a", false, true)>]
[<TestCase("a ", false, true)>]
[<TestCase("a?b", false, false)>]
[<TestCase("a'b", false, false)>]
[<TestCase("a\"b", false, false)>]
[<TestCase("a\\b", false, false)>]
[<TestCase("a/b", false, false)>]
[<TestCase("a:b", false, false)>]
[<TestCase("a(b", false, false)>]
[<TestCase("a)b", false, false)>]
[<TestCase("a+b", false, false)>]
[<TestCase("a*b", false, false)>]
[<TestCase("a%b", false, false)>]
[<TestCase("a~b", false, false)>]
[<TestCase("a\nb", false, false)>]
[<TestCase("a\rb", false, false)>]
[<TestCase("a\u000Fb", false, false)>]
[<TestCase("a\u007Fb", false, false)>]
[<TestCase("a\uFEFFb", false, false)>]
let ``names of tables and columns have their own rules`` (name: string, table: bool, column: bool) =
    equal table (Ilp.tableName 127 name).IsOk
    equal column (Ilp.columnName 127 name).IsOk

[<Test>]
let ``what is wrong with a name is a sentence`` () =
    equal (Error "the name of a table must not be empty") (Ilp.tableName 127 "")
    equal (Error "the column name 'a-b' must not hold '-'") (Ilp.columnName 127 "a-b")
    equal (Error "the table name 'a\000' must not hold U+0000") (Ilp.tableName 127 "a\000")
    equal (Error "the table name 'äé' is longer than 3 bytes") (Ilp.tableName 3 "äé")

    equal
        (Error "the table name 'a..b' must not begin or end with a point, or hold two in a row")
        (Ilp.tableName 127 "a..b")

[<Test>]
let ``a name is as long as the server takes it`` () =
    isTrue (Ilp.tableName 127 (String('a', 127))).IsOk
    isTrue (Ilp.tableName 127 (String('a', 128))).IsError
    isTrue (Ilp.columnName 127 (String('ä', 64))).IsError
    isTrue (Ilp.columnName 128 (String('ä', 64))).IsOk

[<Test>]
let ``names are escaped, and bad ones do not get as far as a row`` () =
    let payload = Payload()
    let writer = LineWriter 2
    writer.Begin(payload, Ilp.table "a b=c")
    writer.Symbol(Ilp.column "d e", "x")
    writer.Double(Ilp.column "f=g", 1.5)
    writer.End 7L
    equal $"a\\ b\\=c,d\\ e=x f\\=g==<10>{double 1.5} 7t<0A>" (readable payload.Memory)
    Assert.Throws<ArgumentException>(fun () -> Ilp.table "a/b" |> ignore) |> ignore
    Assert.Throws<ArgumentException>(fun () -> Ilp.column "a/b" |> ignore) |> ignore

// ---- times of rows

[<Test>]
let ``a row's time lies between 1970 and the end of 9999`` () =
    for micros, isTime in
        [
            0L, true
            253_402_300_799_999_999L, true
            -1L, false
            253_402_300_800_000_000L, false
            Int64.MinValue, false
            Int64.MaxValue, false
        ] do
        equal isTime (Ilp.isRowTime micros)

        if not isTime then
            refused (fun writer -> writer.End micros)

// ---- payloads

let private filled (texts: string list) =
    let payload = Payload 64
    let writer = LineWriter 2

    for text in texts do
        writer.Begin(payload, t)
        writer.String(v, text)
        writer.End 7L

    payload

let private rows (payload: Payload) = [ for i in 0 .. payload.RowCount - 1 -> readable (payload.Row i) ]

let private rowOf text = $"t v=\"{text}\" 7t<0A>"

[<Test>]
let ``a payload knows its rows, newlines in values and all`` () =
    let payload = filled [ "a"; "b\nb"; "c" ]
    equal 3 payload.RowCount
    equal [ rowOf "a"; rowOf "b\\<0A>b"; rowOf "c" ] (rows payload)
    equal payload.Length payload.Memory.Length
    equal (String.concat "" (rows payload)) (readable payload.Memory)

[<Test>]
let ``a row is removed wherever it stands, and nothing else`` () =
    for index, left in [ 0, [ "b"; "c" ]; 1, [ "a"; "c" ]; 2, [ "a"; "b" ] ] do
        let payload = filled [ "a"; "b"; "c" ]
        payload.Remove index
        equal (List.map rowOf left) (rows payload)
        equal (String.concat "" (rows payload)) (readable payload.Memory)

    let payload = filled [ "a" ]
    payload.Remove 0
    equal (0, 0) (payload.RowCount, payload.Length)
    Assert.Throws<ArgumentOutOfRangeException>(fun () -> payload.Remove 0) |> ignore

[<Test>]
let ``rows are cut off, taken as a run, copied, and cleared`` () =
    let payload = filled [ "a"; "b"; "c" ]
    equal (rowOf "b" + rowOf "c") (readable (payload.Slice(1, 2)))
    equal "" (readable (payload.Slice(3, 0)))

    Assert.Throws<ArgumentOutOfRangeException>(fun () -> payload.Slice(2, 2) |> ignore)
    |> ignore

    payload.Truncate 5
    equal 3 payload.RowCount
    payload.Truncate 1
    equal [ rowOf "a" ] (rows payload)
    payload.Add((filled [ "d" ]).Row(0).Span)
    equal [ rowOf "a"; rowOf "d" ] (rows payload)
    payload.Clear()
    equal (0, 0) (payload.RowCount, payload.Length)
    equal "" (readable payload.Memory)

[<Test>]
let ``a row that is not ended leaves no trace`` () =
    let payload = filled [ "a" ]
    let writer = LineWriter 2
    writer.Begin(payload, t)
    writer.String(v, String('x', 10_000)) // the buffer grows in the middle of it
    equal [ rowOf "a" ] (rows payload)
    writer.Begin(payload, t)
    writer.String(v, "b")
    writer.End 7L
    equal [ rowOf "a"; rowOf "b" ] (rows payload)

[<Test>]
let ``a fragment goes on where it was cut off`` () =
    let scratch = Payload()
    let writer = LineWriter 2
    writer.Begin(scratch, t)
    writer.Symbol(Ilp.column "a", "x")
    let symbols = writer.Fragment()
    writer.Begin scratch
    writer.Long(Ilp.column "b", 1L)
    let field = writer.Fragment()
    equal 0 scratch.RowCount

    let payload = Payload()
    writer.Begin payload
    writer.Put symbols
    writer.Symbol(Ilp.column "c", "y")
    writer.Put field
    writer.Long(Ilp.column "d", 2L)
    writer.End 7L
    equal "t,a=x,c=y b=1i,d=2i 7t<0A>" (readable payload.Memory)

[<Test>]
let ``once the buffers have grown nothing is allocated`` () =
    let payload = Payload()
    let writer = LineWriter 2
    let text = String('é', 1_000) + ",\""
    let lengths, values = [| 2; 50 |], Array.zeroCreate<float> 100

    let work () =
        payload.Clear()

        for _ in 1..200 do
            writer.Begin(payload, t)
            writer.Symbol(v, text)
            writer.String(v, text)
            writer.Hex(v, 1UL, 2UL)
            writer.Long(v, 3L)
            writer.Double(v, 4.5)
            writer.Timestamp(v, 5L)
            writer.Array(v, ReadOnlySpan lengths, ReadOnlySpan values)
            writer.End 7L

    work ()
    work ()
    let before = GC.GetAllocatedBytesForCurrentThread()
    work ()
    equal 0L (GC.GetAllocatedBytesForCurrentThread() - before)

// ---- there and back, by a reader that knows nothing of the writer

type private Value = Tributary.FakeQuestDb.Value

let private readBy protocol (payload: Payload) =
    match Tributary.FakeQuestDb.Ilp.parse protocol payload.Memory with
    | Ok rows -> rows
    | Error error -> failwith $"%A{error}\n{readable payload.Memory}"

/// Characters that mean something somewhere, halves of pairs, and any others.
let private anyText =
    Gen.frequency [
        4, Gen.elements [ " "; ","; "="; "\""; "\\"; "\n"; "\r"; "\000"; "\t"; "t"; "i"; "<" ]
        2, Gen.elements [ "é"; "€"; "😀"; "\uFEFF"; "\uFFFD"; "\uD83D"; "\uDE00" ]
        2, Gen.choose (0, 0xFFFF) |> Gen.map (fun code -> string (char code))
    ]
    |> Gen.listOf
    |> Gen.map (String.concat "")

/// What is left of a text in UTF-8.
let private sent (text: string) =
    Encoding.UTF8.GetString(Encoding.UTF8.GetBytes text)

let private anyDouble =
    Gen.oneof [
        Gen.elements [ 0.0; -0.0; Double.MaxValue; Double.MinValue; Double.Epsilon; 1e20; 1e-7; 0.1 ]
        ArbMap.defaults |> ArbMap.generate<float> |> Gen.where Double.IsFinite
        ArbMap.defaults
        |> ArbMap.generate<int64>
        |> Gen.map BitConverter.Int64BitsToDouble
        |> Gen.where Double.IsFinite
    ]

let private anyLong =
    Gen.oneof [
        Gen.elements [ 0L; -1L; Int64.MaxValue; Int64.MinValue + 1L ]
        Gen.choose64 (Int64.MinValue + 1L, Int64.MaxValue)
    ]

let private anyArray = gen {
    let! dimensions = Gen.choose (1, 5)
    let! lengths = Gen.arrayOfLength dimensions (Gen.choose (0, 4))
    let! values = Gen.arrayOfLength (Array.fold (*) 1 lengths) anyDouble
    return lengths, values
}

let private bits (value: float) = BitConverter.DoubleToInt64Bits value

let private always generator (holds: 'a -> unit) =
    Prop.forAll (Arb.fromGen generator) holds

[<Property(MaxTest = 500)>]
let ``any text is read as it was written`` () =
    always (Gen.three anyText) (fun (symbol, first, second) ->
        let payload = Payload 64
        let writer = LineWriter 2
        writer.Begin(payload, t)
        writer.Symbol(v, symbol)
        writer.String(Ilp.column "first", first)
        writer.String(Ilp.column "second", second)
        writer.End 7L
        writer.Begin(payload, t)
        writer.Long(v, 1L)
        writer.End 8L
        let rows = readBy 2 payload
        equal 2 rows.Count
        equal [| "v", (sent symbol).Replace('\000', '\uFFFD') |] rows[0].Symbols
        equal [| "first", Value.Text(sent first); "second", Value.Text(sent second) |] rows[0].Fields
        equal [| "v", Value.Long 1L |] rows[1].Fields)

[<Property(MaxTest = 500)>]
let ``any number and any time is read as it was written, in every version`` () =
    always
        (Gen.zip (Gen.zip anyLong anyDouble) (Gen.zip anyLong (Gen.choose64 (0L, Ilp.LatestMicros))))
        (fun ((long, double), (time, at)) ->
            for protocol in 1..3 do
                let payload = Payload 64
                let writer = LineWriter protocol
                writer.Begin(payload, t)
                writer.Long(Ilp.column "long", long)
                writer.Double(Ilp.column "double", double)
                writer.Timestamp(Ilp.column "time", time)
                writer.Boolean(Ilp.column "flag", (long > 0L))

                if protocol = 3 then
                    writer.Decimal(Ilp.column "decimal", long, 6)

                writer.End at
                let rows = readBy protocol payload
                let row = rows[0]
                let fields = dict row.Fields
                equal (Value.Long long) fields["long"]
                equal (Value.Timestamp time) fields["time"]
                equal (Value.Boolean(long > 0L)) fields["flag"]

                match fields["double"] with
                | Value.Double read -> equal (bits double) (bits read)
                | other -> failwith $"%A{other}"

                if protocol = 3 then
                    equal (Value.Decimal(6, bigint long)) fields["decimal"]

                match row.Time with
                | ValueSome time -> equal (at, true) (time.Value, time.Suffixed)
                | ValueNone -> failwith "no time")

[<Property(MaxTest = 200)>]
let ``any array is read as it was written`` () =
    always anyArray (fun (lengths, values) ->
        let payload = Payload 64
        let writer = LineWriter 2
        writer.Begin(payload, t)
        writer.Array(v, ReadOnlySpan lengths, ReadOnlySpan values)
        writer.End 7L

        let rows = readBy 2 payload

        match rows[0].Fields with
        | [| "v", Value.Array(dimensions, read) |] ->
            equal lengths dimensions
            equal (Array.map bits values) (Array.map bits read)
        | other -> failwith $"%A{other}")

[<Property(MaxTest = 200)>]
let ``rows that are left behind a removal are read as they were written`` () =
    always (Gen.zip (Gen.nonEmptyListOf anyText) (Gen.choose (0, 1_000))) (fun (texts, choice) ->
        let payload = filled texts
        let index = choice % texts.Length
        payload.Remove index

        equal (texts |> List.removeAt index |> List.map (fun text -> Value.Text(sent text))) [
            for row in readBy 2 payload -> snd row.Fields[0]
        ])
