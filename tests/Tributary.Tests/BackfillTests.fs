module Tributary.Tests.BackfillTests

open System
open System.Threading
open System.Threading.Tasks
open Microsoft.Extensions.Logging.Abstractions
open NUnit.Framework
open Tributary
open Tributary.Server.Simulator
open Tributary.Stores

let private silent = {
    new IProgress<BackfillProgress> with
        member _.Report _ = ()
}

/// The answer of a backfill of the first market of a simulated exchange, or of a slug.
let private backfill (slug: string option) (store: Store) = task {
    let! simulator =
        Simulator.StartAsync(
            {
                SimulatorOptions.Default with
                    Markets = 2
                    History = TimeSpan.FromMinutes 1.0
            },
            CancellationToken.None
        )

    use _ = simulator
    let clock, log = TimeProvider.System, Logs.none
    let settings = Settings.defaults Setup.known |> Setup.askingAt simulator.Address

    let discovering = {
        settings.Collectors.Head with
            Discovery.Enabled = true
    }

    let! found = Ask.markets discovering clock log CancellationToken.None

    let first =
        match found with
        | Ok choices -> (fst choices.Choices.Head).Slug
        | Error message -> failwith message

    return!
        Backfill.run
            settings.Collectors.Head
            Validation.defaults
            store
            clock
            log
            (BackfillOrder.everything [ Selection.Slug(Option.defaultValue first slug) ])
            silent
            CancellationToken.None
}

[<TestCase 0; TestCase 1>]
let ``a store that takes no more ends a backfill with its reason`` (taken: int) : Task = task {
    let memory = Memory.create "test"
    let writes = ref 0

    let store = {
        memory with
            Write =
                fun batches ct ->
                    writes.Value <- writes.Value + 1

                    if writes.Value > taken then
                        Task.FromResult(Error(StoreFault.Full "no space"))
                    else
                        memory.Write batches ct
    }

    let! answer = backfill None store
    answer |> equal (Error(AskFault.NotStored(StoreFault.Full "no space")))
}

[<Test>]
let ``a slug that nobody answers to ends a backfill before it begins`` () : Task = task {
    let! answer = backfill (Some "no-such-market") (Memory.create "test")
    answer |> equal (Error(AskFault.UnknownMarkets [ "no-such-market" ]))
}
