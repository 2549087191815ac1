/// A store for whoever only watches: everything is taken and acknowledged, and nothing is remembered but the markets' descriptions, whose
/// number is bounded, and what tells a repeat. `Memory` would keep every row for as long as somebody watches. Not in the registry: a configuration that names a
/// store wants its rows back.
[<RequireQualifiedAccess>]
module Tributary.Stores.Discard

open System.Collections.Concurrent
open System.Threading.Tasks
open Tributary

// A stream tells a fill again within seconds, a poll within its overlap.
let private trades = 100_000

/// A store that remembers nothing of what happens, but enough to tell what comes again: the ids of the latest trades, and of each token the
/// last book.
let create () : Store =
    let markets = ConcurrentDictionary<struct (ExchangeId * MarketId), Market>()
    let books = ConcurrentDictionary<string, struct (Instant * string)>()

    let repeats = Repeats trades

    let write (batch: Batch) =
        for market in batch.Markets do
            markets[struct (market.Exchange, market.Market)] <- market

        for i in 0 .. batch.Trades.Count - 1 do
            batch.Trades[i].Inserted <- repeats.Remember batch.Trades[i].Id

        for i in 0 .. batch.Books.Count - 1 do
            let row = batch.Books[i]
            let token = batch.Names.Text row.Token
            let state = struct (row.At, batch.Text row.Hash)

            batch.Books[i].Inserted <-
                (match books.TryGetValue token with
                 | true, before -> before <> state
                 | _ -> true)

            books[token] <- state

        for i in 0 .. batch.Deltas.Count - 1 do
            batch.Deltas[i].Inserted <- true

        for i in 0 .. batch.Prices.Count - 1 do
            batch.Prices[i].Inserted <- true

    let nothing _ = Task.FromResult []

    {
        Name = "nothing"
        Write =
            fun batches cancelled ->
                if cancelled.IsCancellationRequested then
                    Task.FromCanceled<Result<unit, StoreFault>> cancelled
                else
                    Seq.iter write batches
                    Task.FromResult(Ok())
        Checkpoints = nothing
        Gaps = nothing
        OpenGaps = nothing
        Markets = fun () -> Task.FromResult(List.ofSeq markets.Values)
        Trades = nothing
        Books = nothing
        Deltas = nothing
        Prices = nothing
        OwnOrders = nothing
        OwnTrades = nothing
        Matches = nothing
        Tally = nothing
        Links = nothing
        Quarantine = nothing
        Status =
            fun () ->
                Task.FromResult {
                    Markets = []
                    Quarantined = 0L
                    Metrics = []
                    Bytes = 0L
                    Notes = []
                }
        Backlog = fun () -> Backlog.none
        Expire = fun _ _ _ -> Task.FromResult(Ok [])
        Flush = fun _ -> Task.FromResult()
        Close = fun () -> ValueTask()
    }
