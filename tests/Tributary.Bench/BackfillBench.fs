/// A backfill, from the bytes of its pages to rows on the disk, against the bare loop that inserts the same rows when they are ready-made.
module Tributary.Bench.BackfillBench

open System
open System.Collections.Generic
open System.IO
open System.Text
open System.Threading
open Tributary
open Tributary.Stores
open Tributary.Bench.Measure
open Tributary.Bench.StoreBench

let private pages = 300
let private perPage = 1_000

let private collector =
    Exchanges.Polymarket.collector Exchanges.Registry.defaultOptions

let private source =
    collector.History |> List.find (fun source -> source.Name = "v2")

let private received = Instant.ofSeconds 1_784_940_000L

let private job: HistoryJob =
    let market =
        match MarketId.Parse "0xbench" with
        | Ok market -> market
        | Error message -> failwith message

    {
        Source = source
        Markets = [
            {
                Exchange = collector.Exchange
                Market = market
                Event = ""
                Slug = "bench"
                Question = ""
                Outcomes = [||]
                Status = MarketStatus.Open
                AcceptsOrders = true
                TickSize = ValueNone
                MinimumSize = ValueNone
                NegRisk = false
                Start = ValueNone
                End = ValueNone
                ClosedAt = ValueNone
                Winner = ""
                Volume = ValueNone
                Liquidity = ValueNone
                OpenInterest = ValueNone
                Tags = [||]
                Updated = ValueNone
                Received = received
                Raw = ""
            }
        ]
        Since = Instant.ofSeconds 0L
        Until = received
        Place = ""
        Carry = Trades.noCarry
        Read = []
        Known = [ Plan.nothing ]
    }

/// Walks over all pages and hands on each batch, which is used again behind it.
let private walk (bodies: byte[][]) (names: Names) (stored: Batch -> unit) =
    let mutable progress = Walks.start (Plan.request job)
    let batch = Batch names

    for body in bodies do
        batch.Clear()
        batch.Exchange <- string collector.Exchange
        let request = progress.Waiting.Head
        let decoded = collector.Decode request (ReadOnlyMemory body) received batch
        Validation.sift Validation.defaults false (fun _ -> Price.zero) (ReadOnlySpan body) request.Path batch

        match decoded.Fault with
        | ValueSome fault -> failwith (Fault.explain fault)
        | ValueNone -> ()

        let before = progress
        progress <- Walks.answered decoded batch progress
        Plan.commit collector.Exchange job before progress batch
        stored batch

let private ours folder bodies () =
    withFile folder (fun path ->
        let store = known (Sqlite.openForWriting path "bench" Synchronous.Full)
        let names = Names()

        let run =
            measure (pages * perPage) (fun () ->
                walk bodies names (fun batch ->
                    known (store.Write [| batch |] CancellationToken.None |> _.Result))

                0UL)

        store.Close().AsTask().Wait()
        run)

/// The same rows, ready-made.
let private readyMade bodies : Rows =
    let names = Names()
    let numbers, ids, transactions = List<int64>(), List<byte>(), List<byte>()
    let marketKeys, tokenKeys = Dictionary<string, int64>(), Dictionary<string, int64>()
    let marketNames, tokenNames = List<string>(), List<string>()

    // Both tokens of a market, in the order of their outcomes, as the file numbers them.
    for struct (market, yes, no) in Payloads.markets do
        marketNames.Add market
        marketKeys[market] <- int64 marketNames.Count

        for token in [ yes; no ] do
            tokenNames.Add token
            tokenKeys[token] <- int64 tokenNames.Count

    walk bodies names (fun batch ->
        for i in 0 .. batch.Trades.Count - 1 do
            let row = batch.Trades[i]

            numbers.AddRange [
                marketKeys[names.Text row.Market]
                row.At.Micros
                int64 row.Source
                tokenKeys[names.Text row.Token]
                int64 row.Side
                row.Price.Millionths
                row.Size.Millionths
                row.Received.Micros
                int64 row.Flags
            ]

            ids.AddRange(Convert.FromHexString(string row.Id))
            transactions.AddRange(Convert.FromHexString((batch.Text row.Transaction).Substring 2)))

    {
        Batches = [||]
        PerBatch = perPage
        Numbers = numbers.ToArray()
        Ids = ids.ToArray()
        Transactions = transactions.ToArray()
        MarketNames = marketNames.ToArray()
        TokenNames = tokenNames.ToArray()
    }

let run rounds : Comparison list =
    let folder = Directory.CreateTempSubdirectory("tributary-bench-").FullName
    let bodies = Array.zeroCreate pages
    let mutable second = 1_784_937_600

    for i in 0 .. pages - 1 do
        let struct (page, last) = Payloads.historyPage second perPage $"cursor-{i}"
        bodies[i] <- page
        second <- last - 1

    let rows = readyMade bodies

    try
        // Both sides once, unmeasured.
        ours folder bodies () |> ignore
        bare folder rows () |> ignore

        let waited =
            compare
                $"{pages} pages of {perPage} trades: decoded, validated, identified and stored, and a bare loop of inserts"
                _.Elapsed
                0.6
                rounds
                (ours folder bodies)
                (bare folder rows)

        [
            waited
            {
                waited with
                    Work = "the same by processor time"
                    Clock = _.Busy
            }
        ]
    finally
        Directory.Delete(folder, true)
