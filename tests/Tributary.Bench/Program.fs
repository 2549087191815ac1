/// The benchmarks: both sides of every pair in one run. Exit code 1 when a ratio or a checksum is not as it must be.
module Tributary.Bench.Program

open Tributary.Bench.Measure

let private benchmarks = [
    "store", "row", (fun () -> StoreBench.run 1_000_000 5)
    "backfill", "row", (fun () -> BackfillBench.run 7)
    "decode", "row", (fun () -> DecodeBench.run 7)
    "ilp", "row", (fun () -> IlpBench.run 7)
    "stream", "message", (fun () -> StreamBench.run 7)
    "send", "row", (fun () -> SendBench.run 5)
]

let private print name unit comparisons =
    printfn "## %s\n\n%s\n\n%s\n" name (machine ()) (table unit comparisons)
    comparisons |> List.forall passes

[<EntryPoint>]
let main arguments =
    match List.ofArray arguments with
    | "load" :: rest -> LoadBench.run rest
    | "soak" :: rest -> LoadBench.soak rest
    | "metrics" :: rest -> MetricsBench.run rest
    | "exchanges" :: rest -> ExchangesBench.run rest
    | "plan" :: rest -> PlanBench.run rest
    | [ "receive"; pace ] -> Receiver.run (float pace)
    | _ ->
        let isAsked (name, _, _) =
            arguments.Length = 0 || Array.contains name arguments

        match benchmarks |> List.filter isAsked with
        | [] ->
            let names = benchmarks |> List.map (fun (name, _, _) -> name) |> String.concat ", "
            eprintfn "There are these benchmarks: %s; none named runs all." names
            2
        | asked ->
            let passed = asked |> List.map (fun (name, unit, run) -> print name unit (run ()))
            if List.forall id passed then 0 else 1
