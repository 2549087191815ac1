namespace Tributary

open System
open System.Collections.Generic
open System.Threading
open System.Threading.Tasks
open Microsoft.Extensions.Logging
open Tributary.Stores

/// How far a backfill has come.
type BackfillProgress = {
    Market: MarketId
    Slug: string
    Pages: int
    /// Read so far.
    Rows: int
    /// Of these, new to the store.
    NewRows: int
    /// How far back it has come.
    Oldest: Instant voption
    IsDone: bool
    /// What kept it from its end, or empty.
    Error: string
}

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
    let private asker (settings: CollectorSettings) rules clock log =
        let collector = Setup.collector settings
        let meters = Meters()

        Setup.transport settings collector
        |> Result.map (fun how ->
            let pool = BatchPool()
            let transport = new Transport(how, clock, meters, log)
            struct (Asker(collector, transport, rules, pool, meters, log), pool, transport))

    /// The markets that the settings of an exchange would collect, and those that they would not, each with the reason. An error
    /// when the settings cannot work (a secret that cannot be read).
    let markets (settings: CollectorSettings) (clock: TimeProvider) (log: ILogger) (ct: CancellationToken) =
        task {
            match asker settings Validation.defaults clock log with
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

    /// Ends a walk whose rows the store does not take.
    exception NotTaken of StoreFault

    /// Reads the trades of markets, newest first, back to a moment or as far as one walk goes, into a store. Reports after each page.
    let backfill
        (settings: CollectorSettings)
        (rules: Rules)
        (store: Store)
        (clock: TimeProvider)
        (log: ILogger)
        (slugs: string seq)
        (since: Instant)
        (report: IProgress<BackfillProgress>)
        (ct: CancellationToken)
        = task {
        let slugs = List.ofSeq slugs

        match asker settings rules clock log with
        | Error message -> return Error(AskFault.Unusable message)
        | Ok(struct (asker, pool, transport)) ->
            use _ = transport
            let collector = asker.Collector

            let write (batch: Batch) : Task<unit> = task {
                match! store.Write [| batch |] ct with
                | Ok() -> ()
                | Error fault -> raise (NotTaken fault)
            }

            let dropped (batch: Batch) = task { pool.Return batch }
            let! struct (found, asked) = asker.Markets([ Need.MarketsBySlug slugs ], dropped, ct)
            let found = found |> List.distinctBy _.Market

            let unknown =
                slugs
                |> List.filter (fun slug -> found |> List.forall (fun market -> market.Slug <> slug))

            if asked.IsSome then
                return Error(AskFault.Unanswered asked.Value)
            elif not unknown.IsEmpty then
                return Error(AskFault.UnknownMarkets unknown)
            else
                let described = pool.Rent()
                described.Exchange <- string collector.Exchange
                described.Markets.AddRange found
                found |> List.iter asker.Knows
                let results = List<BackfillProgress>()

                try
                    do! write described

                    for market in found do
                        let mutable seen = {
                            Market = market.Market
                            Slug = market.Slug
                            Pages = 0
                            Rows = 0
                            NewRows = 0
                            Oldest = ValueNone
                            IsDone = false
                            Error = ""
                        }

                        let page (batch: Batch) (progress: Progress) = task {
                            do! write batch
                            let mutable rows, fresh, oldest = 0, 0, seen.Oldest

                            for i in 0 .. batch.Trades.Count - 1 do
                                let row = batch.Trades[i]
                                rows <- rows + 1
                                fresh <- fresh + (if row.Inserted then 1 else 0)

                                oldest <-
                                    match oldest with
                                    | ValueSome before when before <= row.At -> oldest
                                    | _ -> ValueSome row.At

                            pool.Return batch

                            seen <- {
                                seen with
                                    Pages = progress.Pages
                                    Rows = seen.Rows + rows
                                    NewRows = seen.NewRows + fresh
                                    Oldest = oldest
                                    IsDone =
                                        Walks.isDone progress
                                        && progress.Failed.IsEmpty
                                        && progress.Truncated.IsEmpty
                                    Error =
                                        match progress.Failed, progress.Truncated with
                                        | (_, fault) :: _, _ -> Fault.explain fault
                                        | [], _ :: _ -> "the exchange does not serve all of it"
                                        | [], [] -> ""
                            }

                            report.Report seen
                        }

                        for request in
                            collector.Ask(
                                Need.Trades [
                                    {
                                        Market = market.Market
                                        Since = since
                                    }
                                ]
                            ) do
                            let! _ = asker.Walk(request, false, page, ct)
                            ()

                        results.Add seen

                    return Ok(List.ofSeq results)
                with NotTaken fault ->
                    return Error(AskFault.NotStored fault)
    }
