/// The recordings that lie outside of this repository: TRIBUTARY_RECORDED names their folder.
module Tributary.Tests.RecordedTests

open System
open System.IO
open NUnit.Framework
open Tributary

let private findings =
    lazy
        (match Environment.GetEnvironmentVariable "TRIBUTARY_RECORDED" with
         | null
         | "" -> []
         | folder -> (Recordings.read [ Path.Combine(folder, "polymarket") ] ignore).Findings)

let private needRecordings () =
    if findings.Value.IsEmpty then
        Assert.Ignore "TRIBUTARY_RECORDED names no folder of recordings, so none was read."

[<Test>]
let ``no recorded value fails`` () =
    needRecordings ()

    findings.Value
    |> List.filter (fun finding -> finding.Class = RecordingClass.Failed)
    |> equal []

[<TestCase("ssmd_polymarket_book.jsonl", 10L)>]
[<TestCase("polypy_hash_2025-10.jsonl", 3L)>]
[<TestCase("polypy_ws_msg_book_yes_2024-11.json", 1L)>]
[<TestCase("polypy_book_data_a.json", 1L)>]
let ``every book whose hash is known to be right is verified`` (file: string, books: int64) =
    needRecordings ()

    let found =
        findings.Value |> List.filter (fun finding -> finding.File.EndsWith file)

    equal books (found |> List.sumBy _.Verified)
    equal 0L (found |> List.sumBy (fun finding -> finding.Mismatched + finding.Unverifiable))
