/// Two sides, one work: measured in turns on one machine, so that what is compared had the same neighbours. A bare time means
/// nothing; the median of the ratios within rounds does.
module Tributary.Bench.Measure

open System
open System.Diagnostics
open System.Reflection
open System.Runtime.InteropServices

/// One run of one side.
type Run = {
    /// Seconds by the wall's clock, which also runs while a disk is waited for.
    Elapsed: float
    /// Seconds of processor time of the process.
    Busy: float
    /// Rows, messages: what the figures are per.
    Units: int
    /// Bytes that the running thread allocated.
    Allocated: int64
    /// A sum over every field: both sides did the same work when it is the same.
    Checksum: uint64
}

/// What came out of all rounds, for a row of the table.
[<NoComparison; NoEquality>]
type Comparison = {
    Work: string
    /// The clock that counts.
    Clock: Run -> float
    Ours: Run list
    Theirs: Run list
    /// The least median ratio that passes.
    Least: float
    /// The most bytes that ours may allocate per unit.
    MostAllocated: float
}

let median (values: float list) =
    let ordered = List.sort values
    let middle = ordered.Length / 2

    if ordered.Length % 2 = 1 then
        ordered[middle]
    else
        (ordered[middle - 1] + ordered[middle]) / 2.0

let private speed comparison run = float run.Units / comparison.Clock run

let private allocated run = float run.Allocated / float run.Units

/// How many times as fast as theirs ours was, in each round.
let ratios comparison =
    List.map2
        (fun ours theirs -> speed comparison ours / speed comparison theirs)
        comparison.Ours
        comparison.Theirs

let isEqual comparison =
    comparison.Ours @ comparison.Theirs |> List.distinctBy _.Checksum |> List.length = 1

let passes comparison =
    isEqual comparison
    && median (ratios comparison) >= comparison.Least
    && median (List.map allocated comparison.Ours) <= comparison.MostAllocated

/// Rounds of both sides, the first one changing from round to round.
let compare work clock least rounds (ours: unit -> Run) (theirs: unit -> Run) =
    let measured = [
        for round in 1..rounds do
            if round % 2 = 1 then
                let first = ours ()
                first, theirs ()
            else
                let first = theirs ()
                ours (), first
    ]

    {
        Work = work
        Clock = clock
        Ours = List.map fst measured
        Theirs = List.map snd measured
        Least = least
        MostAllocated = infinity
    }

let private processorTime () =
    Environment.CpuUsage.TotalTime.TotalSeconds

/// What a piece of work takes, and what it allocates.
let measure units (work: unit -> uint64) =
    let before = GC.GetAllocatedBytesForCurrentThread()
    let started, busy = Stopwatch.GetTimestamp(), processorTime ()
    let checksum = work ()
    let spent = processorTime () - busy

    {
        Elapsed = Stopwatch.GetElapsedTime(started).TotalSeconds
        Busy = spent
        Units = units
        Allocated = GC.GetAllocatedBytesForCurrentThread() - before
        Checksum = checksum
    }

/// Repeats a piece of work until it has used this many seconds of processor time, so that its code is compiled for good.
let warmUp seconds (work: unit -> 'T) =
    let from = processorTime ()

    while processorTime () - from < seconds do
        work () |> ignore

/// The machine and the versions, in one line.
let machine () =
    let sdk =
        Assembly.GetExecutingAssembly().GetCustomAttributes<AssemblyMetadataAttribute>()
        |> Seq.tryFind (fun attribute -> attribute.Key = "SdkVersion")
        |> Option.bind (fun attribute -> Option.ofObj attribute.Value)
        |> Option.defaultValue "unknown"

    $"{RuntimeInformation.RuntimeIdentifier}, {Environment.ProcessorCount} cores, .NET SDK {sdk}, runtime {Environment.Version}"

/// A Markdown table, a row for each comparison.
let table unit (comparisons: Comparison list) =
    String.concat "\n" [
        $"| work | ours, {unit}/s | theirs, {unit}/s | ratio: median (range, rounds) | must be | ours, B/{unit} | theirs, B/{unit} | checksums |"
        "| --- | ---: | ---: | --- | ---: | ---: | ---: | --- |"

        for comparison in comparisons do
            let all = ratios comparison

            let speedOf runs =
                median (List.map (speed comparison) runs)

            let allocatedOf runs = median (List.map allocated runs)

            let checksums =
                if isEqual comparison then
                    $"equal: %016x{comparison.Ours.Head.Checksum}"
                else
                    "NOT EQUAL"

            $"| {comparison.Work} | %.0f{speedOf comparison.Ours} | %.0f{speedOf comparison.Theirs} | **%.2f{median all}** (%.2f{List.min all} to %.2f{List.max all}, {all.Length}) | %g{comparison.Least} | %.1f{allocatedOf comparison.Ours} | %.1f{allocatedOf comparison.Theirs} | {checksums} |"
    ]

/// Adds bytes to a checksum, their order included.
let sum (checksum: uint64) (bytes: ReadOnlySpan<byte>) =
    let words = MemoryMarshal.Cast<byte, uint64> bytes
    let mutable total = checksum + uint64 bytes.Length

    for i in 0 .. words.Length - 1 do
        total <- total + (words[i] ^^^ uint64 i)

    for i in words.Length * 8 .. bytes.Length - 1 do
        total <- total + (uint64 bytes[i] <<< (i &&& 7))

    total
