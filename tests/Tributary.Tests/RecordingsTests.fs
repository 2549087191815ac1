module Tributary.Tests.RecordingsTests

open System.IO
open System.IO.Compression
open System.Text
open NUnit.Framework
open Tributary

let mutable private folder = ""

[<SetUp>]
let makeFolder () =
    folder <- (Directory.CreateTempSubdirectory "tributary").FullName

[<TearDown>]
let removeFolder () = Directory.Delete(folder, true)

let private write name (bytes: byte[]) =
    let path = Path.Combine(folder, name)
    Directory.CreateDirectory(nonNull (Path.GetDirectoryName path)) |> ignore
    File.WriteAllBytes(path, bytes)
    path

let private gzip (bytes: byte[]) =
    use memory = new MemoryStream()

    using (new GZipStream(memory, CompressionLevel.Optimal)) (fun stream ->
        stream.Write(bytes, 0, bytes.Length))

    memory.ToArray()

let private read path =
    (Recordings.read [ path ] ignore).Findings

/// Class, kind and count of all findings.
let private counts findings =
    findings
    |> List.map (fun finding -> string finding.Class, finding.Kind, finding.Count)

let private reasons findings = [
    for finding in findings do
        for reason in finding.Reasons -> reason.Place.Replace(folder, ""), reason.Text
]

let private mid = """{"mid":"0.5"}"""

let private trade at =
    $"""{{"asset":"71","conditionId":"0xm","side":"BUY","price":0.5,"size":1,"timestamp":{at},"transactionHash":"0xt"}}"""

[<TestCase("a.json", "{0}")>]
[<TestCase("a.json", "[{0}]")>]
[<TestCase("a.json", "\n [ {0} ]\n")>]
[<TestCase("a.jsonl", "{0}\n")>]
[<TestCase("a.ndjson", "\n{0}\r\n\n")>]
[<TestCase("a.txt", "{0}")>]
let ``a value is found in every kind of file`` (name: string, text: string) =
    let bytes = utf8 (text.Replace("{0}", mid))
    equal [ "recognised", "midpoint", 1L ] (counts (read (write name bytes)))
    equal [ "recognised", "midpoint", 1L ] (counts (read (write (name + ".gz") (gzip bytes))))

[<Test>]
let ``values may follow each other without a list`` () =
    equal
        [ "recognised", "midpoint", 3L; "recognised", "keep-alive", 1L ]
        (counts (read (write "a.json" (utf8 $"{mid}{mid}\nPONG\n{mid}"))))

[<Test>]
let ``a byte order mark is passed over`` () =
    for name in [ "a.json"; "a.jsonl" ] do
        equal
            [ "recognised", "midpoint", 1L ]
            (counts (read (write name (Array.append [| 0xEFuy; 0xBBuy; 0xBFuy |] (utf8 mid)))))

[<Test>]
let ``a line that cannot be read has its place, and the others are read`` () =
    let bytes =
        Array.concat [
            utf8 "{\"mid\":\""
            [| 0xFFuy |]
            utf8 $"\"}}\n{mid}\n{{\"mid\":\n{{\"what\":1}}\n{mid}"
        ]

    let found = read (write "a.jsonl" bytes)
    isTrue (List.contains ("recognised", "midpoint", 2L) (counts found))

    equal
        [
            "/a.jsonl:1", "not valid UTF-8"
            "/a.jsonl:3", "the JSON breaks off or is malformed"
            "/a.jsonl:4", "of no known shape"
        ]
        (reasons found)

[<Test>]
let ``a list that breaks off keeps its good elements`` () =
    let found = read (write "a.json" (utf8 $"[{mid},{mid},{{\"mid\":"))
    equal [ "recognised", "midpoint", 2L; "failed", "unknown", 1L ] (counts found)

[<Test>]
let ``a bad row has its byte within the file`` () =
    let found =
        read (write "a.json" (utf8 $"""[{trade 5},{(trade 5).Replace("BUY", "HOLD")}]"""))

    equal [ "decoded", "trade v1", 1L; "failed", "trade v1", 1L ] (counts found)
    equal [ $"/a.json@{(trade 5).Length + 2}", "the side is neither BUY nor SELL" ] (reasons found)

[<Test>]
let ``a file that cannot be read says why`` () =
    let lines = gzip (utf8 (String.replicate 1_000 (mid + "\n") + trade 5))
    let damaged = Array.copy lines
    damaged[lines.Length / 2] <- ~~~damaged[lines.Length / 2]

    let reason name bytes =
        reasons (read (write name bytes)) |> List.map snd |> List.last

    equal "the file is empty" (reason "a.json" [||])
    equal "the file is empty" (reason "a.jsonl.gz" [||])
    equal "the file holds no value" (reason "b.jsonl" (utf8 "\n \n"))
    equal "the file is named .gz and is not gzip" (reason "c.json.gz" (utf8 mid))
    equal "the file is UTF-16; UTF-8 is read" (reason "d.json" (Encoding.Unicode.GetPreamble()))
    equal "the gzip data is cut short" (reason "e.jsonl.gz" lines[.. lines.Length - 12])
    equal "the gzip data is cut short" (reason "e.json.gz" lines[..20])
    equal "the gzip data is damaged" (reason "f.jsonl.gz" damaged)
    isTrue ((reasons (read (Path.Combine(folder, "nothing.json")))).Length = 1)

[<Test>]
let ``gzip files that were joined are one file`` () =
    let part = gzip (utf8 (mid + "\n"))
    equal [ "recognised", "midpoint", 2L ] (counts (read (write "a.jsonl.gz" (Array.append part part))))

[<Test>]
let ``a folder is read with all below it, in the order of names, recordings alone`` () =
    for name in [ "b.json"; "a/z.jsonl"; "c.ndjson.gz"; "notes.md" ] do
        write name (if name.EndsWith "gz" then gzip (utf8 mid) else utf8 mid) |> ignore

    let report = Recordings.read [ folder ] ignore
    equal 3 report.Files

    equal
        [ "a/z.jsonl"; "b.json"; "c.ndjson.gz" ]
        (report.Findings
         |> List.map (fun finding -> Path.GetRelativePath(folder, finding.File)))

[<Test>]
let ``long lines and many of them are read in bounded pieces`` () =
    let long = $"""{{"mid":"{String.replicate 300_000 "5"}"}}"""
    let text = String.replicate 2_000 (mid + "\n") + long + "\n" + mid
    equal [ "recognised", "midpoint", 2_002L ] (counts (read (write "a.jsonl" (utf8 text))))

let private ids name (text: string) =
    let found = System.Collections.Generic.List<string>()

    Recordings.read [ write name (utf8 text) ] (fun event ->
        match event with
        | MarketEvent.Trade trade -> found.Add(string trade.Id)
        | _ -> ())
    |> ignore

    List.ofSeq found

[<Test>]
let ``identical fills of one reading are told apart, however its rows are kept`` () =
    let listed = ids "a.json" $"[{trade 5},{trade 5},{trade 4}]"
    equal 3 (List.distinct listed).Length
    equal listed (ids "a.jsonl" $"{trade 5}\n{trade 5}\n{trade 4}")

[<Test>]
let ``a page that was recorded twice gives the same fills`` () =
    equal 1 (List.distinct (ids "a.jsonl" $"[{trade 5}]\n[{trade 5}]")).Length
