namespace Tributary

open System
open System.Collections.Generic
open System.Threading
open System.Threading.Tasks
open Microsoft.Extensions.Logging
open Tributary.Stores

/// Why a question was not answered.
[<RequireQualifiedAccess>]
type AskFault =
    /// The settings cannot work: a secret that cannot be read.
    | Unusable of detail: string
    /// Nobody answers to these slugs.
    | UnknownMarkets of slugs: string list
    /// The exchange did not answer.
    | Unanswered of Fault
    /// What was read could not be stored.
    | NotStored of StoreFault

    /// One sentence for a person.
    override this.ToString() =
        match this with
        | Unusable detail -> detail
        | UnknownMarkets slugs ->
            let names = String.concat ", " slugs
            $"no market is called {names}: 'tributary markets' searches for the right slug"
        | Unanswered fault -> $"the market could not be looked up: {Fault.explain fault}"
        | NotStored fault -> string fault


/// What discovery would do with what it found.
type MarketChoices = {
    /// Every market that was looked at, and why it would be collected, or not.
    Choices: (Market * Choice) list
    /// Slugs of the configuration that nobody answers to.
    Unknown: string list
    /// Every page was answered; otherwise the picture is not whole.
    IsWhole: bool
}

/// Questions that need no running engine.
[<RequireQualifiedAccess>]
module Ask =
    let internal asker (settings: CollectorSettings) rules clock logs ct = task {
        let log = Logs.logger Logs.Requests logs
        let collector = Setup.collector settings

        match Setup.transport settings collector with
        | Error message -> return Error message
        | Ok how ->
            match! Admission.enter settings collector how clock log ct with
            | Error message -> return Error message
            | Ok(struct (collector, how)) ->
                let pool, meters = BatchPool(), new Meters()
                let transport = new Transport(how, clock, meters, log)
                return Ok(struct (Asker(collector, transport, rules, pool, meters, log), pool, transport))
    }

    /// The markets that the settings of an exchange would collect, and those that they would not, each with the reason. An error
    /// when the settings cannot work (a secret that cannot be read).
    let markets
        (settings: CollectorSettings)
        (clock: TimeProvider)
        (logs: ILoggerFactory)
        (ct: CancellationToken)
        = task {
        match! asker settings Validation.defaults clock logs ct with
        | Error message -> return Error message
        | Ok(struct (asker, pool, transport)) ->
            use _ = transport
            let picks = Setup.picks settings
            let dropped (batch: Batch) = task { pool.Return batch }

            let! struct (markets, fault) =
                asker.Markets(Universe.needs picks Universe.empty, dropped, ct)

            let isWhole = fault.IsNone

            let _, changes =
                Universe.absorb
                    picks
                    isWhole
                    (Instant.ofDateTimeOffset (clock.GetUtcNow()))
                    markets
                    Universe.empty

            return
                Ok {
                    Choices = Universe.choose picks Set.empty markets
                    Unknown = changes.Unknown
                    IsWhole = isWhole
                }
    }
