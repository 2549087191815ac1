/// What every exchange in the registry must stand, on the payloads in `fixtures/<exchange>`: damage never throws, and costs no row
/// but the damaged one.
module Tributary.Tests.Exchanges.ConformanceTests

open System
open System.IO
open System.Text.Json.Nodes
open NUnit.Framework
open FsCheck
open FsCheck.FSharp
open FsCheck.NUnit
open Tributary
open Tributary.Exchanges
open Tributary.Tests

/// One value of an exchange, and the walk whose decoder reads it.
type Payload = {
    Name: string
    Collector: Collector
    Walk: Walk
    Bytes: byte[]
} with

    override this.ToString() = this.Name

let rec private readable (collector: Collector) name depth (json: ReadOnlyMemory<byte>) = [
    match Shapes.recognise [ collector ] json with
    | ValueSome(struct (_, Shape.Rows(kind, walk))) -> {
        Name = $"{name}: {kind}"
        Collector = collector
        Walk = walk
        Bytes = json.ToArray()
      }
    | ValueSome(struct (_, Shape.Holds(_, values))) when depth > 0 ->
        for value in values do
            yield! readable collector name (depth - 1) value
    | _ -> ()
]


/// For each kind of each fixture its first value.
let payloads = [
    for exchange, make in Registry.all do
        for path in Directory.EnumerateFiles(Path.Combine(fixtures, exchange), "*.json") |> Seq.sort do
            yield!
                readable
                    (make Registry.defaultOptions)
                    $"{exchange}/{Path.GetFileName path}"
                    3
                    (ReadOnlyMemory(File.ReadAllBytes path))
                |> List.distinctBy _.Name
]

let private decode payload (bytes: byte[]) =
    let batch = Batch()

    let request: Request = {
        Endpoint = ""
        Host = ""
        Path = ""
        Body = ValueNone
        Walk = payload.Walk
    }

    let decoded =
        payload.Collector.Decode request (ReadOnlyMemory bytes) (seconds 0L) batch

    Shapes.recognise [ payload.Collector ] (ReadOnlyMemory bytes) |> ignore
    batch, decoded

/// The rows of a batch, without what says where they stood.
let private rows (batch: Batch) : string list = [
    for i in 0 .. batch.Trades.Count - 1 -> $"%A{batch.Trade i}"
    for i in 0 .. batch.Books.Count - 1 -> $"%A{batch.Book i}"
    for market in batch.Markets -> string market.Market
]

let private rowsOf payload =
    rows (fst (decode payload payload.Bytes))

let private text payload =
    Text.Encoding.UTF8.GetString payload.Bytes

[<Test>]
let ``every exchange has payloads, and each gives rows`` () =
    for exchange, _ in Registry.all do
        isTrue (payloads |> List.exists (fun payload -> payload.Name.StartsWith exchange))

[<TestCaseSource(nameof payloads)>]
let ``a truncated answer never throws and gives no row that the whole did not`` (payload: Payload) =
    let whole = rowsOf payload

    for length in 0 .. payload.Bytes.Length - 1 do
        let batch, decoded = decode payload payload.Bytes[.. length - 1]
        let read = rows batch

        if read <> List.truncate read.Length whole then
            Assert.Fail $"cut at {length}: %A{read}"

        // What follows the last bracket may be white space.
        if decoded.Fault.IsNone && read <> whole then
            Assert.Fail $"cut at {length} and no fault"

[<TestCaseSource(nameof payloads)>]
let ``the same bytes give the same rows`` (payload: Payload) = equal (rowsOf payload) (rowsOf payload)

let rec private objects (node: JsonNode | null) : JsonObject list =
    match node with
    | :? JsonObject as found -> [
        found
        for pair in List.ofSeq found do
            yield! objects pair.Value
      ]
    | :? JsonArray as list -> [
        for item in list do
            yield! objects item
      ]
    | _ -> []

/// A JSON text with one member of one of its objects changed: once for each.
let private changes (change: JsonObject -> string -> unit) (json: string) : string list =
    let changedAt i key =
        let copy = nonNull (JsonNode.Parse json)
        change (List.item i (objects copy)) key
        copy.ToJsonString()

    objects (JsonNode.Parse json)
    |> List.mapi (fun i found -> [ for pair in found -> changedAt i pair.Key ])
    |> List.concat

let private damages: (string * (JsonObject -> string -> unit)) list =
    let put (value: unit -> JsonNode | null) =
        fun (o: JsonObject) (key: string) -> o[key] <- value ()

    let raw (json: string) = put (fun () -> JsonNode.Parse json)

    [
        "null", raw "null"
        "a wrong type", raw "{\"a\":[1,2,{}]}"
        "a list", raw "[]"
        "a boolean", raw "true"
        "a number as a text", raw "\"12\""
        "a huge number", raw "1e300"
        "a tiny number", raw "1e-300"
        "a long number", raw (String('9', 500))
        "a giant text", put (fun () -> JsonValue.Create(String('x', 100_000)))
        "an odd text", raw "\"\\u0000\\\\\\\" \\u2028\""
        "nothing", (fun o key -> o.Remove key |> ignore)
        "an unknown member", (fun o key -> o["unknown " + key] <- JsonNode.Parse "[{\"a\":1.5e3}]")
    ]

[<TestCaseSource(nameof payloads)>]
let ``no member, whatever it becomes, makes decoding throw`` (payload: Payload) =
    for name, damage in damages do
        for json in changes damage (text payload) do
            try
                decode payload (utf8 json) |> ignore
            with error ->
                Assert.Fail $"{name}: {error}\n{json}"

[<TestCaseSource(nameof payloads)>]
let ``unknown members change no row`` (payload: Payload) =
    let whole = rowsOf payload

    for json in changes (fun o key -> o["unknown " + key] <- JsonNode.Parse "[{\"a\":null}]") (text payload) do
        equal whole (rows (fst (decode payload (utf8 json))))

[<TestCaseSource(nameof payloads)>]
let ``invalid UTF-8 and nesting never throw`` (payload: Payload) =
    for at in 0..7 .. payload.Bytes.Length - 1 do
        let broken = Array.copy payload.Bytes
        broken[at] <- 0xFFuy
        decode payload broken |> ignore

    decode payload (utf8 (String('[', 100_000))) |> ignore
    decode payload (utf8 (String.replicate 100_000 "{\"a\":")) |> ignore

[<Property>]
let ``noise never makes decoding throw`` (noise: byte[]) (at: int) =
    for payload in payloads do
        let at = abs (at % payload.Bytes.Length)
        let bytes = Array.concat [ payload.Bytes[.. at - 1]; noise; payload.Bytes[at..] ]
        decode payload bytes |> ignore
        decode payload noise |> ignore

[<TestCaseSource(nameof payloads)>]
let ``a bad row between good ones costs neither`` (payload: Payload) =
    let json = (text payload).Trim()
    let whole = rowsOf payload

    // Pages keep their rows in lists; a single row is put into one.
    if json.StartsWith "{" && payload.Name.Contains "page" |> not then
        let batch, decoded = decode payload (utf8 $"[{json},{{\"id\":[]}},7,{json}]")
        isTrue decoded.Fault.IsNone
        equal (whole @ whole) (rows batch)
