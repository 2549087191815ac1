module Tributary.Tests.DepthChaosTests

open System
open NUnit.Framework
open Tributary.Server.Simulator
open Tributary.Tests.DepthChaos

/// TRIBUTARY_CHAOS="SEEDS MESSAGES" makes it longer.
let private extent seeds messages =
    match Environment.GetEnvironmentVariable "TRIBUTARY_CHAOS" with
    | null
    | "" -> seeds, messages
    | text ->
        match text.Split(' ', StringSplitOptions.RemoveEmptyEntries) with
        | [| seeds; messages |] -> int seeds, int messages
        | _ -> failwith "TRIBUTARY_CHAOS is to be two numbers: SEEDS MESSAGES"

let private calm: Plan = {
    Seed = 1
    Markets = 12
    Rate = 200.0
    Messages = 4_000
    Faults = Set.empty
    FaultRate = 0.0
    HashEvery = 1
}

let private nothingWrong outcome =
    if not outcome.Wrong.IsEmpty then
        let first = outcome.Wrong |> List.truncate 5 |> String.concat "\n"
        Assert.Fail $"{outcome.Wrong.Length} things are wrong; the first are:\n{first}"

let private each seeds plan check =
    for seed in 1..seeds do
        let outcome = run { plan with Seed = seed }
        nothingWrong outcome
        check outcome

[<Test>]
let ``without faults nearly all states are verified, and nothing is missing`` () =
    let seeds, messages = extent 2 4_000

    each seeds { calm with Messages = messages } (fun outcome ->
        let all = outcome.Verified + outcome.Unverifiable + outcome.Mismatched
        isTrue (outcome.Messages >= messages && all > 0L)

        if float outcome.Verified < 0.95 * float all then
            Assert.Fail $"%A{outcome}"

        // A book that came back to an earlier state within a millisecond looks like a repeat until the next proof: such a hole has no
        // length and is healed.
        equal
            []
            (outcome.Gaps
             |> List.filter (fun gap -> gap.Healed.IsNone || gap.Until <> ValueSome gap.Since)))

[<Test>]
let ``with every fault of a stream, no state that is recorded as verified or that lies in no gap is wrong``
    ()
    =
    let seeds, messages = extent 6 3_000

    each
        seeds
        {
            calm with
                Messages = messages
                Faults = StreamFault.all |> List.map fst |> Set.ofList
                FaultRate = 0.02
        }
        (fun outcome -> isTrue (outcome.Misleading > 0 && not outcome.Gaps.IsEmpty))

[<Test>]
let ``with one hash in sixteen, what is not verified is true all the same`` () =
    let seeds, messages = extent 2 4_000

    each
        seeds
        {
            calm with
                Messages = messages
                HashEvery = 16
        }
        (fun outcome -> isTrue (outcome.Unproven > 0))
