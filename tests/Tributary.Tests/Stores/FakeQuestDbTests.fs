/// The server that stands in for QuestDB is held to what the real one was seen to do.
module Tributary.Tests.FakeQuestDbTests

open System
open System.Diagnostics
open System.IO
open System.IO.Compression
open System.Net.Http
open System.Net.Http.Headers
open System.Text
open System.Text.Json
open System.Threading
open System.Threading.Tasks
open NUnit.Framework
open Tributary.FakeQuestDb

// ---- the line protocol -----------------------------------------------------------------------------------------------

/// Text and bytes in any mixture.
let private line (parts: obj list) =
    use all = new MemoryStream()

    for part in parts do
        match part with
        | :? string as text -> all.Write(ReadOnlySpan(utf8 text))
        | :? (byte[]) as bytes -> all.Write(ReadOnlySpan bytes)
        | :? float as number -> all.Write(ReadOnlySpan(BitConverter.GetBytes number))
        | :? int as number -> all.Write(ReadOnlySpan(BitConverter.GetBytes number))
        | :? int64 as number -> all.Write(ReadOnlySpan(BitConverter.GetBytes number))
        | other -> failwith $"{other}"

    ReadOnlyMemory(all.ToArray())

let private parsed body =
    match Ilp.parse 3 body with
    | Ok rows -> List.ofSeq rows
    | Error error -> failwith $"line {error.Line}: {error.Message}"

let private micros value =
    ValueSome {
        Value = value
        Unit = TimeUnit.Micros
        Suffixed = true
    }

/// Table, symbols, fields and time of the only row.
let private only body =
    match parsed body with
    | [ row ] -> row.Table, List.ofArray row.Symbols, List.ofArray row.Fields, row.Time
    | rows -> failwith $"{rows.Length} rows"

[<Test>]
let ``a row has a table, symbols, fields and a timestamp`` () =
    equal
        ("trades",
         [ "exchange", "polymarket"; "side", "buy" ],
         [ "size", Value.Double 1.5; "ok", Value.Boolean true ],
         micros 7L)
        (only (line [ "trades,exchange=polymarket,side=buy size=1.5,ok=t 7t\n" ]))

let private rows: (string * (string * string) list * (string * Value) list * RowTime voption) list = [
    "t,a=b\n", [ "a", "b" ], [], ValueNone
    "t,a=b 5t\n", [ "a", "b" ], [], micros 5L
    "t x=1i", [], [ "x", Value.Long 1L ], ValueNone
    "t x=1i\r\n", [], [ "x", Value.Long 1L ], ValueNone
    "t,a= x=1i\n", [ "a", "" ], [ "x", Value.Long 1L ], ValueNone
    """t,a=b\ c\,d\=e\\f\""" + "\n" + "g x=1i\n", [ "a", "b c,d=e\\f\ng" ], [ "x", Value.Long 1L ], ValueNone
    "t,a=\"b/c\" x=1i\n", [ "a", "\"b/c\"" ], [ "x", Value.Long 1L ], ValueNone
    "t,a\\ b\\=c=😀 x=1i\n", [ "a b=c", "😀" ], [ "x", Value.Long 1L ], ValueNone
    "t x=\"a \\\"b\\\\ c\\\nd, e=f\" 5t\n", [], [ "x", Value.Text "a \"b\\ c\nd, e=f" ], micros 5L
    "t x=\"\",y=\n", [], [ "x", Value.Text ""; "y", Value.Null ], ValueNone
    "t X=1i,x=2i\n", [], [ "X", Value.Long 1L ], ValueNone
    "t,a=b a=2i\n", [ "a", "b" ], [], ValueNone
    "t x=-9223372036854775808i\n", [], [ "x", Value.Null ], ValueNone
    "t x=0x1fi\n", [], [ "x", Value.Long256 "0x1f" ], ValueNone
    "t x=1e5,y=Infinity\n", [], [ "x", Value.Double 1e5; "y", Value.Double infinity ], ValueNone
    "t x=-1.50d\n", [], [ "x", Value.Decimal(2, -150I) ], ValueNone
    "t x=15e-3d\n", [], [ "x", Value.Decimal(3, 15I) ], ValueNone
    "t a=t,b=True,c=F,d=FALSE\n",
    [],
    [
        "a", Value.Boolean true
        "b", Value.Boolean true
        "c", Value.Boolean false
        "d", Value.Boolean false
    ],
    ValueNone
    "t a=1t,b=2m,c=3n,d=-4t\n",
    [],
    [
        "a", Value.Timestamp 1L
        "b", Value.Timestamp 2000L
        "c", Value.TimestampNanos 3L
        "d", Value.Timestamp -4L
    ],
    ValueNone
]

[<Test>]
let ``every form of text that the server takes is read`` () =
    for text, symbols, fields, time in rows do
        equal ("t", symbols, fields, time) (only (line [ text ]))

[<Test>]
let ``a timestamp's suffix beats the precision of the request`` () =
    let time precision text =
        let options = {
            IlpOptions.Default with
                Precision = precision
        }

        match Ilp.parseWith options (line [ $"t x=1i {text}\n" ]) with
        | Ok rows -> rows[0].Time |> ValueOption.map Ilp.micros
        | Error error -> failwith error.Message

    for precision, text, expected in
        [
            TimeUnit.Seconds, "2", 2_000_000L
            TimeUnit.Seconds, "2t", 2L
            TimeUnit.Hours, "2m", 2_000L
            TimeUnit.Minutes, "2", 120_000_000L
            TimeUnit.Nanos, "2999", 2L
            TimeUnit.Micros, "2999n", 2L
        ] do
        equal (ValueSome expected) (time precision text)

[<Test>]
let ``binary doubles, arrays and decimals are read, newlines in them and all`` () =
    let ten = BitConverter.ToDouble(Array.create 8 10uy, 0) // eight newlines

    for parts, expected in
        ([
            [ [| 16uy |]; ten ], Value.Double ten
            [ [| 14uy; 10uy; 2uy |]; 2; 1; 0.5; 100.0 ], Value.Array([| 2; 1 |], [| 0.5; 100.0 |])
            [ [| 14uy; 10uy; 2uy |]; 2; 0 ], Value.Array([| 2; 0 |], [||])
            [ [| 23uy; 2uy; 1uy; 52uy |] ], Value.Decimal(2, 52I)
            [ [| 23uy; 2uy; 2uy; 0xFFuy; 0x38uy |] ], Value.Decimal(2, -200I)
            [ [| 23uy; 2uy; 0uy |] ], Value.Null
            [ [| 15uy |]; 10L ], Value.Long 10L
            [ [| 13uy; 2uy |]; 10L ], Value.Timestamp 10L
            [ [| 13uy; 1uy |]; 10L ], Value.TimestampNanos 10L
            [ [| 6uy; 1uy |] ], Value.Boolean true
            [ [| 3uy |]; 10 ], Value.Long 10L
        ]
        : (obj list * Value) list) do
        let body = line ([ ("t x==" :> obj) ] @ parts @ [ (",y=1i 5t\n" :> obj) ])
        equal ("t", [], [ "x", expected; "y", Value.Long 1L ], micros 5L) (only body)

let private bad: (obj list * int * int) list = [
    [ "# a comment\n" ], 400, 1
    [ "t\n" ], 400, 1
    [ "t 5t\n" ], 400, 1
    [ ",a=b x=1i\n" ], 400, 1
    [ "t x=1i,\n" ], 400, 1
    [ "t x\n" ], 400, 1
    [ "t x=abc\n" ], 400, 1
    [ "t x=1_000i\n" ], 400, 1
    [ "t x=9223372036854775808i\n" ], 400, 1
    [ "t x=1e400\n" ], 400, 1
    [ "t x=\"a\nb\"\n" ], 400, 1
    [ "t x=\"a" ], 400, 1
    [ "t x=\"a\"b\n" ], 400, 1
    [ "t,a=b,x=1i\n\nt,a=b=c x=1i\n" ], 400, 2
    [ "t x=1i -5t\n" ], 400, 1
    [ "t x=1i 5x\n" ], 400, 1
    [ "t x=1i 5t 6t\n" ], 400, 1
    [ "t x=1i 253402300800000000t\n" ], 500, 1
    [ "t x=1i 9223372036854775807m\n" ], 400, 1
    [ "t,a="; [| 0xFFuy |]; " x=1i\n" ], 500, 1
    [ "t x=\""; [| 0xFFuy |]; "\"\n" ], 400, 1
    [ "t,a="; [| 0uy |]; " x=1i\n" ], 400, 1
    [ "t,a.b=c x=1i\n" ], 400, 1
    [ "t a-b=1i\n" ], 400, 1
    [ "t\\\\ x=1i\n" ], 400, 1
    [ "a/b x=1i\n" ], 400, 1
    [ ".t x=1i\n" ], 400, 1
    [ "a..b x=1i\n" ], 400, 1
    [ String('a', 128) + " x=1i\n" ], 400, 1
    [ "t x=1i\n\nt,a=\\\nb x=1i\nt x=y\n" ], 400, 3 // neither blank lines nor newlines in values count
    [ "t x=="; [| 14uy; 9uy; 1uy |]; 0; "\n" ], 400, 1
    [ "t x=="; [| 14uy; 10uy; 33uy |]; "\n" ], 400, 1
    [ "t x=="; [| 14uy; 10uy; 0uy |]; "\n" ], 400, 1
    [ "t x=="; [| 14uy; 10uy; 1uy |]; -1; "\n" ], 400, 1
    [ "t x=="; [| 14uy; 10uy; 1uy |]; 1000; 0.5; "\n" ], 400, 1
    [ "t x=="; [| 14uy; 10uy; 2uy |]; 1_000_000; 1_000_000; "\n" ], 400, 1
    [ "t x=="; [| 16uy |]; 0.5; "z\n" ], 400, 1
    [ "t x=="; [| 13uy; 0uy |]; 5L; "\n" ], 500, 1
    [ "t x=="; [| 23uy; 77uy; 1uy; 1uy |]; "\n" ], 400, 1
    [ "t x=="; [| 23uy; 2uy; 2uy; 0uy; 1uy |]; "\n" ], 400, 1
    [ "t x=="; [| 99uy |]; "\n" ], 400, 1
    [ "t,x=="; [| 16uy |]; 0.5; "\n" ], 400, 1
]

[<Test>]
let ``what the server refuses is refused, with the row's number`` () =
    for parts, status, number in bad do
        match Ilp.parse 3 (line parts) with
        | Ok rows -> Assert.Fail $"%A{parts} was read as %A{List.ofSeq rows}"
        | Error error -> equal (parts, status, number) (parts, error.Status, error.Line)

[<Test>]
let ``binary values need the version of the protocol that has them`` () =
    for parts, needed in
        ([
            [ "t x=="; [| 16uy |]; 0.5; "\n" ], 2
            [ "t x=="; [| 23uy; 0uy; 1uy; 1uy |]; "\n" ], 3
            [ "t x=1.5d\n" ], 3
        ]
        : (obj list * int) list) do
        equal false (Result.isOk (Ilp.parse (needed - 1) (line parts)))
        equal true (Result.isOk (Ilp.parse needed (line parts)))

[<Test>]
let ``a server that is not strict stores broken UTF-8 inside quotes`` () =
    let options = {
        IlpOptions.Default with
            Strict = false
    }

    match Ilp.parseWith options (line [ "t x=\""; [| 0xFFuy |]; "\"\n" ]) with
    | Ok rows -> equal ("x", Value.Text "\uFFFD") rows[0].Fields[0]
    | Error error -> failwith error.Message

// ---- the server ------------------------------------------------------------------------------------------------------

/// Ten seconds are for ever.
let private patience () =
    (new CancellationTokenSource(TimeSpan.FromSeconds 10.0)).Token

let private withServer options (test: FakeQuestDb -> HttpClient -> Task<unit>) : Task = task {
    let! fake = FakeQuestDb.StartAsync(options, CancellationToken.None)
    use _ = fake

    use client =
        new HttpClient(BaseAddress = fake.Address, Timeout = TimeSpan.FromSeconds 10.0)

    do! test fake client
}

let private standard = FakeQuestDbOptions.Default

let private send (client: HttpClient) (path: string) (body: ReadOnlyMemory<byte>) = task {
    use! response = client.PostAsync(path, new ReadOnlyMemoryContent(body))
    let! text = response.Content.ReadAsStringAsync()
    return int response.StatusCode, text
}

/// The status of a write.
let private write client (text: string) = task {
    let! status, _ = send client "/write" (memory text)
    return status
}

/// Status, code and line of a refused write.
let private refusal client (text: string) = task {
    let! status, text = send client "/write" (memory text)
    use document = JsonDocument.Parse text
    let error = document.RootElement
    Assert.That(string (error.GetProperty "errorId"), Is.Not.Empty)

    return status, string (error.GetProperty "code"), error.GetProperty("line").GetInt32()
}

let private ask (client: HttpClient) (query: string) = task {
    use! response =
        client.GetAsync("/exec?quoteLargeNum=true&query=" + Uri.EscapeDataString query)

    let! text = response.Content.ReadAsStringAsync()
    use document = JsonDocument.Parse text
    return int response.StatusCode, document.RootElement.Clone()
}

/// Every row of an answer, as JSON.
let private dataset client query = task {
    let! status, answer = ask client query

    if status <> 200 then
        failwith $"{query}: {answer}"

    return [
        for row in answer.GetProperty("dataset").EnumerateArray() -> row.GetRawText()
    ]
}

let private run client sql = task {
    let! status, answer = ask client sql
    equal (200, """{"ddl":"OK"}""") (status, answer.GetRawText())
}

/// What is visible once everything was applied.
let private settled (fake: FakeQuestDb) client query = task {
    do! fake.SettledAsync(patience ())
    return! dataset client query
}

let private tableT =
    """CREATE TABLE "t" ("at" TIMESTAMP, "k" SYMBOL, "x" LONG, "y" VARCHAR) TIMESTAMP("at") PARTITION BY DAY WAL DEDUP UPSERT KEYS("at","k")"""

[<Test>]
let ``settings tell the protocol, and an old server has none`` () : Task = task {
    for options, expected in [ standard, "[1,2,3]"; { standard with MaxProtocol = 2 }, "[1,2]" ] do
        do!
            withServer options (fun _ client -> task {
                let! text = client.GetStringAsync "/settings"
                use document = JsonDocument.Parse text
                let config = document.RootElement.GetProperty "config"
                equal expected (config.GetProperty("line.proto.support.versions").GetRawText())
                equal 127 (config.GetProperty("cairo.max.file.name.length").GetInt32())
            })

    do!
        withServer { standard with HasSettings = false } (fun _ client -> task {
            use! response = client.GetAsync "/settings"
            equal 404 (int response.StatusCode)
        })
}

[<Test>]
let ``what was answered 204 can be asked for`` () : Task =
    withServer standard (fun fake client -> task {
        do! run client tableT
        let! status = write client "t,k=a x=1i,y=\"one\" 5t\nt,k=b 6t\n"
        equal 204 status
        let! rows = settled fake client "SELECT * FROM \"t\" ORDER BY \"at\""

        equal
            [
                """["1970-01-01T00:00:00.000005Z","a","1","one"]"""
                """["1970-01-01T00:00:00.000006Z","b",null,null]"""
            ]
            rows
    })

[<Test>]
let ``a bad row keeps its whole request out, whatever tables it is for`` () : Task =
    withServer standard (fun fake client -> task {
        do! run client tableT
        let! refused = refusal client "t,k=a x=1i 5t\nother x=1i 5t\nother x=oh 5t\n"
        equal (400, "invalid", 3) refused
        let! refused = refusal client "t,k=a x=1i 5t\n\nt,k=a x=1.5 5t\n"
        equal (400, "invalid", 2) refused
        let! refused = refusal client "t,k=a,x=symbol 5t\nt oops\n"
        equal (400, "invalid", 1) refused
        let! rows = settled fake client "SELECT count() FROM t"
        equal [ """["0"]""" ] rows
        let! rows = dataset client "SELECT count() FROM other" // made on the way, and stays
        equal [ """["0"]""" ] rows
    })

[<Test>]
let ``a row with the same keys replaces the whole row, and NULL is a key like any other`` () : Task =
    withServer standard (fun fake client -> task {
        do! run client tableT
        let! _ = write client "t,k=a x=1i,y=\"one\" 5t\nt,k=a x=2i 5t\nt x=3i 5t\n"
        let! _ = write client "t x=4i 5t\nt,k=a x=5i 6t\n"
        let! rows = settled fake client "SELECT k, x, y FROM t ORDER BY x"
        equal [ """["a","2",null]"""; """[null,"4",null]"""; """["a","5",null]""" ] rows
        let! _ = write client "free x=1i 5t\nfree x=1i 5t\n"
        let! rows = settled fake client "SELECT count() FROM free"
        equal [ """["2"]""" ] rows
    })

[<Test>]
let ``precision, gzip, chunks and the other path are understood`` () : Task =
    withServer standard (fun fake client -> task {
        let at = "SELECT timestamp FROM p"
        let! status, _ = send client "/api/v2/write?precision=s" (memory "p x=1i 2")
        equal 204 status
        let! rows = settled fake client at
        equal [ """["1970-01-01T00:00:02.000000Z"]""" ] rows
        let! status, _ = send client "/write?precision=days" (memory "p x=1i 2")
        equal 400 status

        let post encoding (bytes: byte[]) = task {
            use content = new ByteArrayContent(bytes)
            content.Headers.ContentEncoding.Add encoding
            use request = new HttpRequestMessage(HttpMethod.Post, "/write", Content = content)
            request.Headers.TransferEncodingChunked <- true
            use! response = client.SendAsync request
            return int response.StatusCode
        }

        use zipped = new MemoryStream()
        use gzip = new GZipStream(zipped, CompressionMode.Compress)
        gzip.Write(ReadOnlySpan(utf8 "z x=1i 2t\n"))
        gzip.Close()
        let! status = post "gzip" (zipped.ToArray())
        equal 204 status
        let! status = post "gzip" (utf8 "z x=1i 2t\n")
        equal 415 status
        let! status = post "br" (zipped.ToArray()) // taken for text
        equal 400 status
        let! rows = settled fake client "SELECT count() FROM z"
        equal [ """["1"]""" ] rows
        use! response = client.GetAsync "/write"
        equal 405 (int response.StatusCode)
        use! response = client.PostAsync("/exec?query=tables()", new StringContent "")
        equal 405 (int response.StatusCode)
        let! status = write client ""
        equal 204 status
    })

[<Test>]
let ``without the right name or token only settings and ping answer`` () : Task =
    withServer
        {
            standard with
                User = Some("me", "secret")
                Token = Some "token"
        }
        (fun _ client -> task {
            let status (path: string) = task {
                use! response = client.GetAsync path
                return int response.StatusCode
            }

            let! exec = status "/exec?query=tables()"
            let! settings = status "/settings"
            let! ping = status "/ping"
            let! written = write client "t x=1i 1t"
            equal (401, 200, 204, 401) (exec, settings, ping, written)

            for scheme, value in [ "Basic", Convert.ToBase64String(utf8 "me:secret"); "Bearer", "token" ] do
                client.DefaultRequestHeaders.Authorization <- AuthenticationHeaderValue(scheme, value)
                let! written = write client "t x=1i 1t"
                equal 204 written
        })

[<Test>]
let ``a column takes what can be cast to it and refuses the rest`` () : Task =
    withServer standard (fun fake client -> task {
        do!
            run
                client
                "CREATE TABLE c (ts TIMESTAMP, s SYMBOL, v VARCHAR, l LONG, i INT, b BYTE, d DOUBLE, f BOOLEAN, n DECIMAL(6,2), a DOUBLE[][], t TIMESTAMP, u UUID) TIMESTAMP(ts) PARTITION BY DAY WAL"

        for fields, expected in
            [
                "c,v=a", 204
                "c,l=a", 400
                "c s=\"a\",v=\"b\"", 204
                "c l=\"1\"", 400
                "c l=1.5", 400
                "c d=1i,t=5i,n=1i", 204
                "c i=3000000000i", 400
                "c b=128i", 400
                "c f=t,l=t", 204
                "c f=1i", 400
                "c n=1.25d,d=1.25d", 204
                "c n=1.255d", 400
                "c n=10000d", 400
                "c n=0.5", 204
                "c N=0.5", 204
                "c u=\"11111111-2222-3333-4444-555555555555\"", 204
                "c u=\"one\"", 400
                "c fresh=1.5d", 400 // decimal columns are not made on the way
            ] do
            let! status = write client (fields + " 5t\n")
            equal (fields, expected) (fields, status)

        let array dimensions (values: obj list) =
            line (
                [ "c a=="; [| 14uy; 10uy; byte (List.length dimensions) |] ]
                @ dimensions
                @ values
                @ [ " 9t\n" ]
            )

        let! status, _ = send client "/write" (array [ 1 ] [ 0.5 ])
        equal 400 status
        let! status, _ = send client "/write" (array [ 2; 2 ] [ 0.5; nan; 100.0; 1e-7 ])
        equal 204 status
        let! rows = settled fake client "SELECT a FROM c WHERE a IS NOT NULL"
        equal [ "[[[0.5,null],[100,1E-07]]]" ] rows
        let! rows = settled fake client "SELECT n FROM c WHERE n > 0.6 ORDER BY n"
        equal [ """["1.00"]"""; """["1.25"]""" ] rows
    })

[<Test>]
let ``a suspended table answers 204 and shows its rows when it is resumed`` () : Task =
    withServer standard (fun fake client -> task {
        let state =
            "SELECT suspended, writerTxn, sequencerTxn FROM wal_tables() WHERE name = 't'"

        do! run client tableT
        let! _ = write client "t,k=a x=1i 5t\n"
        do! fake.SettledAsync(patience ())
        do! run client "ALTER TABLE t SUSPEND WAL"
        let! status = write client "t,k=b x=1i 5t\n"
        equal 204 status
        let! rows = dataset client state
        equal [ """[true,"1","2"]""" ] rows
        let! rows = dataset client "SELECT count() FROM t"
        equal [ """["1"]""" ] rows
        do! run client "ALTER TABLE t RESUME WAL"
        let! rows = settled fake client "SELECT count() FROM t"
        equal [ """["2"]""" ] rows
        let! rows = dataset client state
        equal [ """[false,"2","2"]""" ] rows
    })

[<Test>]
let ``the first rows after a drop are lost on a connection that knew the table`` () : Task =
    withServer standard (fun fake client -> task {
        do! run client tableT
        let! _ = write client "t,k=a x=1i 5t\n"
        do! fake.SettledAsync(patience ())
        do! run client "DROP TABLE t"
        do! run client tableT

        for expected in [ 0; 1 ] do
            let! status = write client "t,k=a x=1i 5t\n"
            equal 204 status
            let! rows = settled fake client "SELECT count() FROM t"
            equal [ $"""["{expected}"]""" ] rows

        let! rows = dataset client "SELECT id FROM tables()"
        equal [ "[2]" ] rows
        let! rows = dataset client "SELECT sequencerTxn FROM wal_tables()"
        equal [ """["1"]""" ] rows
    })

[<Test>]
let ``a table is described as it was made and changed`` () : Task =
    withServer { standard with CreateTables = false } (fun fake client -> task {
        let! refused = refusal client "t,k=a x=1i 5t\n"
        equal (400, "invalid", 1) refused

        do!
            run
                client
                """CREATE TABLE IF NOT EXISTS "t" ("at" TIMESTAMP, "k" SYMBOL CAPACITY 65536, "n" DECIMAL(19,6), "b" DOUBLE[][]) TIMESTAMP("at") PARTITION BY HOUR TTL 36 HOURS WAL DEDUP UPSERT KEYS("at", "k")"""

        do! run client "CREATE TABLE IF NOT EXISTS t (other LONG)" // compares nothing
        let! status, _ = ask client "CREATE TABLE t (other LONG)"
        equal 400 status
        do! run client "ALTER TABLE t ADD COLUMN \"extra\" VARCHAR"

        let! rows =
            dataset
                client
                "SELECT \"column\", type, symbolCapacity, designated, upsertKey FROM table_columns('t')"

        equal
            [
                """["at","TIMESTAMP",0,true,true]"""
                """["k","SYMBOL",65536,false,true]"""
                """["n","DECIMAL(19,6)",0,false,false]"""
                """["b","DOUBLE[][]",0,false,false]"""
                """["extra","VARCHAR",0,false,false]"""
            ]
            rows

        let described =
            "SELECT table_name, designatedTimestamp, partitionBy, walEnabled, dedup, ttlValue, ttlUnit FROM tables()"

        let! rows = dataset client described
        equal [ """["t","at","HOUR",true,true,36,"HOUR"]""" ] rows
        do! run client "ALTER TABLE t SET TTL 2 DAYS"
        do! run client "ALTER TABLE t DEDUP DISABLE"
        do! run client "RENAME TABLE 't' TO 'u'"
        let! rows = dataset client described
        equal [ """["u","at","HOUR",true,false,2,"DAY"]""" ] rows
        let! _ = write client "u,k=a extra=\"x\" 5t\nu,k=a extra=\"y\" 5t\n"
        let! status, _ = ask client "ALTER TABLE u DEDUP ENABLE UPSERT KEYS(\"k\")"
        equal 400 status
        let! status, _ = ask client "ALTER TABLE u DEDUP ENABLE UPSERT KEYS(at, b)"
        equal 400 status
        do! run client "ALTER TABLE u DEDUP ENABLE UPSERT KEYS(at, k)"

        do!
            run
                client
                "CREATE MATERIALIZED VIEW IF NOT EXISTS v AS (SELECT at, k, last(extra) FROM u SAMPLE BY 1m) PARTITION BY DAY"

        let! rows =
            settled fake client "SELECT view_name, base_table_name, view_status FROM materialized_views()"

        equal [ """["v","u","valid"]""" ] rows
        do! run client "TRUNCATE TABLE u"
        let! rows = settled fake client "SELECT count() FROM u"
        equal [ """["0"]""" ] rows
    })

[<Test>]
let ``partitions older than the time to live are gone`` () : Task =
    withServer standard (fun fake client -> task {
        do!
            run
                client
                "CREATE TABLE t (at TIMESTAMP, x LONG) TIMESTAMP(at) PARTITION BY DAY TTL 2 DAYS WAL DEDUP UPSERT KEYS(at)"

        let day = 86_400_000_000L

        for ago in [ 10L; 8L; 7L ] do
            let! status = write client $"t x={ago}i {(20_000L - ago) * day}t\n"
            equal 204 status

        let! rows = settled fake client "SELECT x FROM t ORDER BY at"
        equal [ """["8"]"""; """["7"]""" ] rows
        let! status = write client $"t x=1i {day}t\n" // taken, and never seen
        equal 204 status
        let! rows = settled fake client "SELECT count() FROM t"
        equal [ """["2"]""" ] rows
    })

[<Test>]
let ``queries are answered in QuestDB's shapes`` () : Task =
    withServer standard (fun fake client -> task {
        do! run client tableT

        let! _ =
            write client "t,k=a x=1i,y=\"it's\" 5t\nt,k=b x=2i 6t\nt,k=a x=9007199254740993i 7t\nt x=4i 8t\n"

        do! fake.SettledAsync(patience ())

        for query, expected in
            [
                "SELECT x FROM t WHERE k = 'a' AND \"at\" >= '1970-01-01T00:00:00.000006Z'",
                [ """["9007199254740993"]""" ]
                "SELECT x FROM t WHERE \"at\" > '1970-01-01T00:00:00Z' AND y = 'it''s'", [ """["1"]""" ]
                "SELECT x FROM t WHERE \"at\" > 6 AND x < 5", [ """["4"]""" ]
                "SELECT x FROM t WHERE k = NULL OR (k IS NULL AND x = 4)", [ """["4"]""" ]
                "SELECT count(*) FROM t WHERE k != 'a'", [ """["2"]""" ]
                "SELECT k, x FROM t LATEST ON \"at\" PARTITION BY k ORDER BY x",
                [ """["b","2"]"""; """[null,"4"]"""; """["a","9007199254740993"]""" ]
                "SELECT k, count() AS n, min(\"at\") FROM t GROUP BY k ORDER BY n DESC, k LIMIT 1",
                [ """["a","2","1970-01-01T00:00:00.000005Z"]""" ]
                "SELECT k, count() n FROM t ORDER BY n DESC, k LIMIT 1", [ """["a","2"]""" ]
                "SELECT max(n) FROM (SELECT k, count() n FROM t)", [ """["2"]""" ]
                "SELECT coalesce(k, 'none') FROM t ORDER BY at DESC LIMIT 2", [ """["none"]"""; """["a"]""" ]
                "SELECT at::long FROM t ORDER BY at LIMIT 1,2", [ """["6"]""" ]
                "SELECT DISTINCT k FROM t WHERE k IN ('a', 'c')", [ """["a"]""" ]
            ] do
            let! rows = dataset client query
            equal (query, expected) (query, rows)

        let! status, answer = ask client "SELECT \"at\", x, k FROM t LIMIT 0"
        equal 200 status

        equal
            """[{"name":"at","type":"TIMESTAMP"},{"name":"x","type":"LONG"},{"name":"k","type":"SYMBOL"}]"""
            (answer.GetProperty("columns").GetRawText())

        equal 0 (answer.GetProperty("timestamp").GetInt32())
        equal 0 (answer.GetProperty("count").GetInt32())

        for query, position in
            [
                "SELECT nope FROM t", 7
                "SELECT x FROM nope", 14
                "SELECT x FROM t WHERE", 21
                "", 0
            ] do
            let! status, answer = ask client query
            equal (query, 400, query) (query, status, string (answer.GetProperty "query"))
            Assert.That(string (answer.GetProperty "error"), Is.Not.Empty)
            Assert.That(answer.GetProperty("position").GetInt32(), Is.LessThanOrEqualTo position)
    })

[<Test>]
let ``committed rows stay invisible for as long as applying takes`` () : Task =
    withServer
        {
            standard with
                ApplyDelay = TimeSpan.FromDays 1.0
        }
        (fun _ client -> task {
            do! run client tableT
            let! status = write client "t,k=a x=1i 5t\n"
            equal 204 status
            let! rows = dataset client "SELECT count() FROM t"
            equal [ """["0"]""" ] rows
            let! rows = dataset client "SELECT writerTxn, sequencerTxn FROM wal_tables()"
            equal [ """["0","1"]""" ] rows
        })

// ---- faults ----------------------------------------------------------------------------------------------------------

[<Test>]
let ``a fault strikes the requests that it is for, and no others`` () : Task =
    withServer standard (fun fake client -> task {
        let refuse status =
            Fault.onWrite (FaultKind.Refuse(status, "internal error", "oh", ValueNone))

        fake.Faults.Add(refuse 507 |> Fault.table "b" |> Fault.after 1 |> Fault.times 2)
        fake.Faults.Add(Fault.onWrite (FaultKind.Refuse(400, "invalid", "oh", ValueSome 2)))

        for table, expected in [ "a", 400; "a", 204; "b", 204; "b", 507; "a", 204; "b", 507; "b", 204 ] do
            let! status = write client $"{table} x=1i 5t\n"
            equal (table, expected) (table, status)

        equal [] fake.Faults.Remaining
        equal (Map [ "a", 2L; "b", 2L ]) fake.Counters.RowsAcknowledged
        equal (Map [ "a", 3L; "b", 4L ]) fake.Counters.RowsReceived
        equal [ [ "a" ]; [ "a" ]; [ "b" ] ] (fake.Counters.Writes |> List.take 3 |> List.map _.Tables)
    })

[<Test>]
let ``a poison row is named every time it comes`` () : Task =
    withServer standard (fun fake client -> task {
        fake.Faults.Add(Fault.onWrite (FaultKind.RejectRow "poison"))

        for _ in 1..3 do
            let! refused = refusal client "t x=1i 5t\n\nt y=\"a\\\nb\" 5t\nt y=\"a poison\" 6t\n"
            equal (400, "invalid", 3) refused

        let! status = write client "t x=1i 5t\n"
        equal 204 status
    })

[<Test>]
let ``a reply can be lost after the commit or before it`` () : Task =
    withServer standard (fun fake client -> task {
        do! run client tableT

        for kind, expected in [ FaultKind.Abort, 0; FaultKind.CloseMidBody, 0; FaultKind.CommitThenAbort, 1 ] do
            fake.Faults.Add(Fault.onWrite kind)
            let mutable broken = false

            try
                let! _ = write client "t,k=a x=1i 5t\n"
                ()
            with :? HttpRequestException ->
                broken <- true

            equal true broken
            let! rows = settled fake client "SELECT count() FROM t"
            equal [ $"""["{expected}"]""" ] rows

        fake.Faults.Add(Fault.onWrite FaultKind.Hang)

        use impatient =
            new HttpClient(BaseAddress = fake.Address, Timeout = TimeSpan.FromMilliseconds 50.0)

        let mutable given = false

        try
            let! _ = write impatient "t,k=a x=1i 5t\n"
            ()
        with :? TaskCanceledException ->
            given <- true

        equal true given
    })

[<Test>]
let ``faults can be set over HTTP`` () : Task =
    withServer standard (fun fake client -> task {
        let control (json: string) = task {
            use! response = client.PostAsync("/control", new StringContent(json))
            return int response.StatusCode
        }

        do! run client tableT

        let! status =
            control
                """[{"fault":"answer","status":502,"body":"<html>","times":2},{"fault":"settingsDown"},
                {"fault":"execFails","containing":"tables()","message":"later"},
                {"fault":"suspend","table":"t","tag":"DISK FULL"}]"""

        equal 200 status

        for table, expected in [ "a", 502; "a", 502; "a", 204; "t,k=a", 204 ] do
            let! status = write client $"{table} x=1i 5t\n"
            equal (table, expected) (table, status)

        use! settings = client.GetAsync "/settings"
        equal 503 (int settings.StatusCode)
        let! status, answer = ask client "tables()"
        equal (400, "later") (status, string (answer.GetProperty "error"))

        let! rows =
            dataset client "SELECT suspended, errorTag FROM wal_tables() WHERE name = 't'"

        equal [ """[true,"DISK FULL"]""" ] rows
        let! _ = control """{"do":"clear"}"""
        equal [] fake.Faults.Remaining
        let! status = control """{"fault":"nonsense"}"""
        equal 400 status
    })

// ---- stops, kills and power ------------------------------------------------------------------------------------------

let private temporary () =
    Path.Combine(Path.GetTempPath(), "tributary-fake-" + Guid.NewGuid().ToString "N")

[<Test>]
let ``a server that was stopped comes back on its port with its tables`` () : Task = task {
    for folder in [ None; Some(temporary ()) ] do
        do!
            withServer { standard with DataFolder = folder } (fun fake client -> task {
                do! run client tableT
                let! _ = write client "t,k=a x=1i 5t\n"
                do! run client "ALTER TABLE t SUSPEND WAL"
                let! _ = write client "t,k=b x=2i 5t\n"
                do! fake.StopAsync()
                let mutable refused = false

                try
                    let! _ = write client "t,k=c x=1i 5t\n"
                    ()
                with :? HttpRequestException ->
                    refused <- true

                equal true refused
                do! fake.StartAgainAsync CancellationToken.None
                do! run client "ALTER TABLE t RESUME WAL"
                let! status = write client "t,k=a x=3i 5t\n"
                equal 204 status
                let! rows = settled fake client "SELECT k, x FROM t ORDER BY k"
                equal [ """["a","3"]"""; """["b","2"]""" ] rows
            })

        folder |> Option.iter (fun folder -> Directory.Delete(folder, true))
}

[<Test>]
let ``a torn end of the log is no row, and the next start writes on behind the whole ones`` () : Task = task {
    let folder = temporary ()

    let options = {
        standard with
            DataFolder = Some folder
    }

    let rowsOf (fake: FakeQuestDb) client =
        settled fake client "SELECT k FROM t ORDER BY k"

    do!
        withServer options (fun _ client -> task {
            do! run client tableT
            let! _ = write client "t,k=a x=1i 5t\n"
            let! _ = write client "t,k=b x=1i 5t\n"
            return ()
        })

    let log = Path.Combine(folder, "questdb.log")
    let length = FileInfo(log).Length

    using (File.OpenWrite log) (fun file -> file.SetLength(length - 3L))

    do!
        withServer options (fun fake client -> task {
            let! rows = rowsOf fake client
            equal [ """["a"]""" ] rows
            let! _ = write client "t,k=c x=1i 5t\n"
            return ()
        })

    do!
        withServer options (fun fake client -> task {
            let! rows = rowsOf fake client
            equal [ """["a"]"""; """["c"]""" ] rows
        })

    Directory.Delete(folder, true)
}

[<Test>]
let ``the log gives back every kind of change and value`` () : Task = task {
    let folder = temporary ()

    do!
        withServer
            {
                standard with
                    DataFolder = Some folder
            }
            (fun fake client -> task {
                do! run client tableT
                let! _ = write client "t,k=a x=1i 5t\n"
                do! run client "DROP TABLE t"

                do!
                    run
                        client
                        "CREATE TABLE old (at TIMESTAMP, n DECIMAL(6,2)) TIMESTAMP(at) PARTITION BY DAY WAL"

                let! _ = write client "old n=1.25d,d=0.1,f=t,s=\"😀\" 5t\n"

                let! _ =
                    send
                        client
                        "/write"
                        (line [ "old a=="; [| 14uy; 10uy; 2uy |]; 2; 1; 0.5; infinity; " 6t\n" ])

                do! run client "RENAME TABLE old TO u"
                do! run client "ALTER TABLE u DEDUP ENABLE UPSERT KEYS(at)"
                do! run client "ALTER TABLE u SET TTL 3 MONTHS"
                let! _ = write client "u n=7d 7t\n"

                let look () = task {
                    let! rows = settled fake client "SELECT * FROM u ORDER BY at"
                    let! tables = dataset client "tables()"
                    let! wal = dataset client "wal_tables()"
                    return rows, tables, wal
                }

                let! before = look ()

                equal
                    [
                        """["1970-01-01T00:00:00.000005Z","1.25",0.1,true,"😀",null]"""
                        """["1970-01-01T00:00:00.000006Z",null,null,false,null,[[0.5],[null]]]"""
                        """["1970-01-01T00:00:00.000007Z","7.00",null,false,null,null]"""
                    ]
                    (let rows, _, _ = before in rows)

                do! fake.StopAsync()
                do! fake.StartAgainAsync CancellationToken.None
                let! after = look ()
                equal before after
            })

    Directory.Delete(folder, true)
}

[<Test>]
let ``a loss of power takes what was written last`` () : Task = task {
    let folder = temporary ()
    let clock = Clock()

    do!
        withServer
            {
                standard with
                    DataFolder = Some folder
                    Clock = clock
            }
            (fun fake client -> task {
                do! run client tableT
                let! _ = write client "t,k=a x=1i 5t\n"
                clock.Advance(TimeSpan.FromSeconds 10.0)
                let! _ = write client "t,k=b x=1i 5t\n"
                fake.ForgetUnsynced(TimeSpan.FromSeconds 5.0)
                let! rows = settled fake client "SELECT k FROM t"
                equal [ """["a"]""" ] rows
                let! status = write client "t,k=c x=1i 5t\n"
                equal 204 status
                let! rows = settled fake client "SELECT k FROM t ORDER BY k"
                equal [ """["a"]"""; """["c"]""" ] rows
            })

    Directory.Delete(folder, true)
}

[<Test>]
let ``a process that is killed has lost nothing that it answered 204`` () : Task = task {
    let folder = temporary ()

    let start () =
        let program = Path.Combine(AppContext.BaseDirectory, "Tributary.FakeQuestDb.dll")

        let info =
            ProcessStartInfo(
                "dotnet",
                [ program; "--port"; "0"; "--data"; folder ],
                RedirectStandardOutput = true
            )

        let running = Process.Start info |> Option.ofObj |> Option.get
        let first = running.StandardOutput.ReadLine() |> Option.ofObj |> Option.get
        equal true (first.StartsWith "listening on http://127.0.0.1:")
        running, new HttpClient(BaseAddress = Uri(first.Substring "listening on ".Length))

    let running, client = start ()
    do! run client tableT

    for i in 1..20 do
        let! status = write client $"t,k=a{i} x=1i 5t\n"
        equal 204 status

    running.Kill()
    running.WaitForExit()
    client.Dispose()
    let running, client = start ()
    let deadline = Stopwatch.StartNew()
    let mutable rows: string list = []

    while rows <> [ """["20"]""" ] && deadline.Elapsed < TimeSpan.FromSeconds 10.0 do
        let! seen = dataset client "SELECT count() FROM t"
        rows <- seen

    equal [ """["20"]""" ] rows
    running.Kill()
    running.WaitForExit()
    client.Dispose()
    Directory.Delete(folder, true)
}
