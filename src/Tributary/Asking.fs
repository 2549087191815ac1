namespace Tributary

open System
open System.Collections.Concurrent
open System.Collections.Generic
open System.Threading
open System.Threading.Tasks
open Microsoft.Extensions.Logging

/// Batches that are waiting to be used again. All of them share one `Names`.
[<Sealed>]
type internal BatchPool() =
    let names = Names()
    let idle = ConcurrentBag<Batch>()
    member _.Names = names

    member _.Rent() =
        match idle.TryTake() with
        | true, batch -> batch
        | _ -> Batch names

    member _.Return(batch: Batch) =
        batch.Clear()

        if idle.Count < 64 then
            idle.Add batch

/// Walks over the pages of an exchange's answers: asks, decodes, and hands every page on. What comes next is `Walks`' decision.
[<Sealed>]
type internal Asker
    (collector: Collector, transport: Transport, rules: Rules, pool: BatchPool, meters: Meters, log: ILogger)
    =
    // By the token's key in the one `Names` of the pool.
    let ticks = ConcurrentDictionary<int, Price>()

    let tick (token: Name) =
        match ticks.TryGetValue token.Key with
        | true, tick -> tick
        | _ -> Price.zero

    /// An answer this large is kept in quarantine in its beginning alone.
    let mostQuarantined = 1 <<< 20

    let quarantine (request: Request) (failure: Failure) (received: Instant) (batch: Batch) =
        match failure.Fault with
        | Fault.Undecodable(offset, reason) ->
            batch.Rejections.Add {
                Exchange = string collector.Exchange
                Source = request.Path
                Offset = offset
                Reason = reason
                Bytes = Array.truncate mostQuarantined failure.Body
                Received = received
            }
        | _ -> ()

    // Endpoints that fail at present: the first failure is news, the next hundred are not.
    let troubled = ConcurrentDictionary<string, unit>()

    member _.Collector = collector

    /// The tick grid of a market's tokens, for validation.
    member _.Knows(market: Market) =
        match market.TickSize with
        | ValueSome tick ->
            for token in market.Tokens do
                ticks[(pool.Names.Intern(string token)).Key] <- tick
        | ValueNone -> ()

    /// The market's tokens are not asked for any more.
    member _.Forgets(market: Market) =
        for token in market.Tokens do
            ticks.TryRemove((pool.Names.Intern(string token)).Key) |> ignore

    /// Asks what waits, page by page, until nothing does. `page` is given each page's batch, then its owner, and the progress that includes it; it is
    /// called for a failed request as well, with whatever of its rows was good. `live` says that old trades are remarkable.
    /// Throws only when cancelled.
    member _.Go
        (from: Progress, live: bool, page: Batch -> Progress -> Task<unit>, ct: CancellationToken)
        : Task<Progress> = task {
        let mutable progress = from

        while not (Walks.isDone progress) do
            let request = progress.Waiting.Head
            let batch = pool.Rent()
            batch.Exchange <- string collector.Exchange
            let latest = ref (Instant.ofMicros 0L)

            let judge =
                Judge(fun body received ->
                    // Of what an attempt before this one left. After the last attempt the good rows stay, whatever its fault.
                    batch.Clear()
                    latest.Value <- received
                    let decoded = collector.Decode request body received batch
                    Validation.sift rules live tick body.Span request.Path batch

                    match decoded.Fault with
                    | ValueNone -> Ok decoded
                    | ValueSome fault -> Error fault)

            match! transport.Ask(request, judge, ct) with
            | Ok decoded ->
                if fst (troubled.TryRemove request.Endpoint) then
                    Log.answersAgain log request.Endpoint

                progress <- Walks.answered decoded batch progress
            | Error failure ->
                match collector.OnFault request failure.Fault with
                | ValueSome meaning ->
                    batch.Clear()
                    progress <- Walks.understood meaning progress
                | ValueNone ->
                    let fault = failure.Fault
                    let isNews = troubled.TryAdd(request.Endpoint, ())
                    Log.requestFailed log isNews request.Endpoint request.Path (Fault.explain fault)
                    meters.Failed(request.Endpoint, transport.Now, Fault.explain fault)
                    meters.Add(Count.faults, $"endpoint={request.Endpoint},cause={Fault.cause fault}")

                    match fault with
                    | Fault.RepeatedPage _ -> batch.Clear()
                    | _ -> quarantine request failure latest.Value batch

                    progress <- Walks.failed fault batch progress

            do! page batch progress

        for note in progress.Notes do
            Log.note log (string collector.Exchange) note

        return progress
    }

    /// As `Go`, from a first request.
    member this.Walk
        (request: Request, live: bool, page: Batch -> Progress -> Task<unit>, ct: CancellationToken)
        =
        this.Go(Walks.start request, live, page, ct)

    /// All walks of a need at the same time.
    member this.WalkAll
        (requests: Request list, live: bool, page: Batch -> Progress -> Task<unit>, ct: CancellationToken)
        : Task<Progress[]> =
        requests
        |> List.map (fun request -> this.Walk(request, live, page, ct))
        |> Task.WhenAll

    /// The markets that some needs bring, in memory, and what kept a walk from its end, if anything did.
    member this.Markets
        (needs: Need list, rejected: Batch -> Task<unit>, ct: CancellationToken)
        : Task<struct (Market list * Fault voption)> = task {
        let markets = List<Market>()

        let page (batch: Batch) _ =
            lock markets (fun () -> markets.AddRange batch.Markets)
            batch.Markets.Clear()
            rejected batch

        let! walks = this.WalkAll(needs |> List.collect collector.Ask, true, page, ct)
        let faults = walks |> Seq.collect _.Failed |> Seq.map snd
        return struct (List.ofSeq markets, faults |> Seq.tryHead |> ValueOption.ofOption)
    }
