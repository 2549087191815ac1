/// Every case of conformance with every registered exchange, and noise on the payloads in `fixtures/<exchange>`.
module Tributary.Tests.Exchanges.ConformanceTests

open System
open System.IO
open NUnit.Framework
open FsCheck
open FsCheck.FSharp
open FsCheck.NUnit
open Tributary
open Tributary.Exchanges
open Tributary.Tests
open Tributary.Tests.Exchanges.ConformanceKit

let private kits = ConformanceKits.all

let pairs = [
    for kit in kits do
        for name, _ in cases do
            TestCaseData(kit.Name, name)
]

[<Test>]
let ``every registered exchange has its answers, and there are more than seventy cases with names of their own``
    ()
    =
    equal (Registry.all |> List.map fst) (ConformanceKits.registered |> List.map _.Name)
    let names = cases |> List.map fst
    equal names (List.distinct names)
    isTrue (names.Length >= 70)

    // What is declared impossible is a case, and has a reason.
    for kit in kits do
        for beginning, why in kit.Impossible do
            isTrue (why <> "" && names |> List.exists _.StartsWith(beginning))

[<TestCaseSource(nameof pairs)>]
let ``an exchange stands`` (exchange: string) (case: string) =
    let kit = kits |> List.find (fun kit -> kit.Name = exchange)

    match impossible kit case with
    | Some _ -> ()
    | None -> (cases |> List.find (fst >> (=) case) |> snd) kit

[<Test>]
let ``the matrix of all cases and exchanges`` () =
    let outcome (kit: Kit) name check =
        match impossible kit name with
        | Some _ -> "impossible"
        | None ->
            try
                // A failing assertion fails the test at once, whoever catches it: so it is made in a context of its own.
                use _ = new NUnit.Framework.Internal.TestExecutionContext.IsolatedContext()
                check kit
                "passed"
            with _ ->
                "FAILED"

    let results = [
        for name, check in cases -> name, [ for kit in kits -> outcome kit name check ]
    ]

    let write (line: string) = TestContext.Out.WriteLine line
    let names = kits |> List.map _.Name |> String.concat " | "
    write $"| case | {names} |"
    write $"""| --- |{String.replicate kits.Length " --- |"}"""

    for name, outcomes in results do
        write $"""| {name} | {String.concat " | " outcomes} |"""

    write ""

    for i, kit in List.indexed kits do
        let count word =
            results |> List.filter (fun (_, outcomes) -> outcomes[i] = word) |> List.length

        write
            $"""{kit.Name}: {cases.Length} cases, {count "passed"} passed, {count "impossible"} impossible, {count "FAILED"} failed"""

        for name, _ in cases do
            match impossible kit name with
            | Some why -> write $"  {name}: {why}"
            | None -> ()

    isTrue (results |> List.forall (snd >> List.forall ((<>) "FAILED")))

// ---- noise

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

    payload.Collector.Decode request (ReadOnlyMemory bytes) (seconds 0L) batch
    |> ignore

    Shapes.recognise [ payload.Collector ] (ReadOnlyMemory bytes) |> ignore

[<Test>]
let ``every exchange has payloads`` () =
    for exchange, _ in Registry.all do
        isTrue (payloads |> List.exists (fun payload -> payload.Name.StartsWith exchange))

[<Property>]
let ``noise never makes decoding throw`` (noise: byte[]) (at: int) =
    for payload in payloads do
        let at = abs (at % payload.Bytes.Length)
        decode payload (Array.concat [ payload.Bytes[.. at - 1]; noise; payload.Bytes[at..] ])
        decode payload noise
