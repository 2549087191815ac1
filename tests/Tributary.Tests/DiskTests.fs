/// Little is left on the disk of the store.
[<NUnit.Framework.Parallelizable(NUnit.Framework.ParallelScope.None)>]
module Tributary.Tests.DiskTests

open System.ComponentModel
open System.Diagnostics
open System.IO
open System.Threading.Tasks
open System
open NUnit.Framework
open Tributary
open Tributary.Server.Simulator
open Tributary.Stores
open Tributary.Tests.EngineTests

let private system (program: string) (arguments: string) =
    try
        use running =
            Process.Start(ProcessStartInfo(program, arguments, RedirectStandardError = true))
            |> Option.ofObj
            |> Option.get

        running.WaitForExit()
        running.ExitCode = 0
    with :? Win32Exception ->
        false

[<Test; Platform "Linux">]
let ``before the disk is full books are not collected, which is a gap, and trades are; with room again all goes on``
    ()
    : Task = task {
    let folder = Directory.CreateTempSubdirectory("tributary-disk-").FullName

    if not (system "mount" $"-t tmpfs -o size=96m tributary-test {folder}") then
        Directory.Delete folder
        Assert.Ignore "no permission to mount a small file system"

    try
        let bench =
            Bench {
                SimulatorOptions.Default with
                    Markets = 3
                    Limits = false
                    TradesPerSecond = 10.0
                    MessagesPerSecond = 30.0
            }

        use _ = bench
        let path = Path.Combine(folder, "small.db")

        bench.Stored <-
            fun store -> {
                store with
                    Path = path
                    MinFree = 40_000_000L
            }

        let store =
            match Sqlite.openForWriting path "main" Synchronous.Normal with
            | Ok store -> store
            | Error fault -> failwith (string fault)

        let live (collector: CollectorSettings) = {
            collector with
                Live = { collector.Live with Enabled = true }
        }

        let! engine = bench.StartWith(store, live)
        let markets () = engine.Pulse().Markets
        let total pick = markets () |> List.sumBy pick

        let isWell () =
            (markets ()).Length = 3
            && markets ()
               |> List.forall (fun market -> market.Gaps.IsEmpty && market.LastBook.IsSome)

        do! bench.Until("all are collected", isWell)
        let ballast = Path.Combine(folder, "ballast")
        File.WriteAllBytes(ballast, Array.zeroCreate 60_000_000)

        let areBroken () =
            markets ()
            |> List.forall (fun market ->
                market.Gaps
                |> List.exists (fun gap -> gap.Stream = Stream.Books && gap.Cause = Cause.StoreFailed))

        do! bench.Until("no books are polled", areBroken)

        // The hole is told while it is open.
        let isTold () =
            markets ()
            |> List.forall (fun market ->
                market.Gaps
                |> List.exists (fun gap -> gap.Stream = Stream.Depth && gap.Cause = Cause.StoreFailed))

        do! bench.Until("no live book is known", isTold)

        let books, trades =
            total (fun market -> market.Books + market.Deltas), total _.Trades

        do! bench.Until("trades go on", fun () -> total _.Trades > trades + 5L)
        // What was under way when it began is all that came.
        Assert.That(total (fun market -> market.Books + market.Deltas), Is.LessThan(books + 200L))
        File.Delete ballast
        do! bench.Until("all are collected again", isWell)
        let! report = engine.StopAsync(TimeSpan.FromSeconds 10.0)
        equal None report.Undrained

        match Sqlite.openForReading path with
        | Error fault -> failwith (string fault)
        | Ok reading ->
            let! gaps = reading.Gaps Query.everything
            do! reading.Close()

            for stream, cause in [ Stream.Books, Cause.StoreFailed; Stream.Depth, Cause.StoreFailed ] do
                let own =
                    gaps
                    |> List.filter (fun one -> one.Gap.Stream = stream && one.Gap.Cause = cause)

                equal 6 own.Length
                isTrue (own |> List.forall _.Gap.Until.IsSome)
    finally
        system "umount" folder |> ignore
        Directory.Delete(folder, true)
}
