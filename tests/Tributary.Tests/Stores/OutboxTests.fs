module Tributary.Tests.Stores.OutboxTests

open System
open System.Collections
open System.Collections.Generic
open System.IO
open System.Threading
open System.Threading.Tasks
open FsCheck
open FsCheck.FSharp
open NUnit.Framework
open FsCheck.NUnit
open Tributary
open Tributary.Stores
open Tributary.Tests
open Tributary.Tests.Stores.Vocabulary

let private folders = ResizeArray<string>()

let private newPath () =
    let folder = temporaryFolder ()
    folders.Add folder
    Path.Combine(folder, "outbox.db")

[<OneTimeTearDown>]
let ``the folders go`` () =
    for folder in folders do
        Directory.Delete(folder, true)

let private clock = Clock()
let private moment = Instant.ofDateTimeOffset (clock.GetUtcNow())

let private blocking bytes =
    Shipping.Rows {
        Bytes = bytes
        WhenFull = WhenFull.Block
    }

let private dropping bytes =
    Shipping.Rows {
        Bytes = bytes
        WhenFull = WhenFull.DropOldest
    }

let private rows = blocking Int64.MaxValue
let private modes = [ rows; Shipping.References ]

let private openAs shipping path =
    sound (Sqlite.openShipping path "main" Synchronous.Full shipping clock)

/// A store at a new path and its outbox, closed in the end.
let private withOutbox shipping (test: string -> Store -> Outbox -> unit) =
    let path = newPath ()
    let store, outbox = openAs shipping path

    try
        test path store outbox
    finally
        close store

let private execute path sql =
    use db = new Connection(path, Access.Write)
    db.Execute sql

let private number path sql =
    use db = new Connection(path, Access.Read)
    db.Number sql

let private entries (outbox: Outbox) table =
    outbox.Read table 0L (outbox.Last table) Int32.MaxValue

/// What the entries of a table hold.
let private held (outbox: Outbox) table (rowsOf: Batch -> 'T list) : 'T list = [
    for entry in entries outbox table do
        let batch = Batch()
        outbox.Open table entry batch
        yield! rowsOf batch
]

let private tradesOf (batch: Batch) = [ for i in 0 .. batch.Trades.Count - 1 -> batch.Trade i ]

let private booksOf (batch: Batch) = [ for i in 0 .. batch.Books.Count - 1 -> batch.Book i ]

let private heldTrades outbox = held outbox "trades" tradesOf

let private heldBooks outbox =
    held outbox "orderbook_snapshots" booksOf

let private heldDeltas outbox =
    held outbox "orderbook_deltas" (fun batch -> [ for i in 0 .. batch.Deltas.Count - 1 -> batch.Delta i ])

let private heldPrices outbox =
    held outbox "prices" (fun batch -> [ for i in 0 .. batch.Prices.Count - 1 -> batch.PricePoint i ])

let private heldLinks outbox =
    held outbox "trade_links" (fun batch -> [ for i in 0 .. batch.Links.Count - 1 -> batch.Links[i] ])

let private heldGaps outbox =
    held outbox "gaps" (fun batch -> List.ofSeq batch.Gaps)

let private waitingRows (outbox: Outbox) =
    outbox.Waiting() |> List.map (fun one -> one.Table, one.Rows)

// ---- what goes in comes out

let private odd =
    batch [
        fillOf "m1" "m1-yes" "" "0.000001" 1 10L
        fillOf "m1" "m1-no" "\u00dcber \"50\" 😀" "1" 2 10L
        paid "9223372036854.775807"
        fill "m2" 3 20L
        fun batch ->
            let row = &batch.Trades[0]

            row <- {
                row with
                    Transaction = batch.Keep(utf8 "")
                    Source = Source.Chain
                    Side = Side.Buy
                    Flags = Flags.None
            }

            let row = &batch.Trades[1]

            row <- {
                row with
                    Transaction = batch.Keep(utf8 "0xshort")
                    Source = Source.Stream
            }
        bookOf "m1" [] [] "" 1L
        bookOf "m1" [ "0.5", "9223372036854.775807" ] [] "NOT-HEX" 2L
        bookOf "m1" [] [ "0", "0.000001" ] (String('A', 40)) 3L
        book "m2" 4 4L
    ]

[<Test>]
let ``trades and books come out as they were written`` () =
    for shipping in modes do
        withOutbox shipping (fun _ store outbox ->
            write store [ odd ]
            equal (tradesOf odd) (heldTrades outbox)
            equal (booksOf odd) (heldBooks outbox))

[<Test>]
let ``deltas and links come out as they were written, once`` () =
    for shipping in modes do
        withOutbox shipping (fun _ store outbox ->
            let written =
                batch [
                    deltaOf "m1" Side.Sell "0.52" "0" 3 (hash 1) 10L
                    deltaOf "m1" Side.Buy "0.48" "9223372036854.775807" 4 "NOT-HEX" 10L
                    deltaOf "m2" Side.Buy "-1" "1" 0 "" -5L
                    link 1 2
                    link 1 3
                ]

            for i, verdict, doubt in [ 0, Verdict.Mismatched, Doubt.Hash; 2, Verdict.Verified, Doubt.None ] do
                let row = &written.Deltas[i]

                row <- {
                    row with
                        Verdict = verdict
                        Doubt = doubt
                        Received = at (int64 i)
                }

            write store [ written ]
            write store [ batch [ delta "m3" 1 1L; deltaOf "m1" Side.Sell "0.52" "7" 3 (hash 2) 10L ] ]

            equal
                ([ for i in 0..2 -> written.Delta i ] @ [ (batch [ delta "m3" 1 1L ]).Delta 0 ])
                (heldDeltas outbox)

            equal [ for i in 0..1 -> written.Links[i] ] (heldLinks outbox))

[<Test>]
let ``prices come out as they were written, once`` () =
    for shipping in modes do
        withOutbox shipping (fun _ store outbox ->
            let written =
                batch [
                    pointOf "m1" PriceKind.History "-0.000001" 10L
                    pointOf "m1" PriceKind.Probability "0.333333" 10L
                    point "m2" -5L
                    point "m1" 10L
                ]

            let row = &written.Prices[1]
            row <- { row with Received = at 9L }
            write store [ written ]
            equal [ true; true; true; false ] [ for i in 0..3 -> written.Prices[i].Inserted ]
            write store [ batch [ point "m3" 1L; point "m1" 10L ] ]

            equal
                ([ for i in 0..2 -> written.PricePoint i ]
                 @ [ (batch [ point "m3" 1L ]).PricePoint 0 ])
                (heldPrices outbox)

            equal [ "prices", 4L ] (waitingRows outbox))

[<Test>]
let ``prices that wait are known again, and those that were dropped are a gap of their token`` () =
    let path = newPath ()
    let store, _ = openAs (dropping Int64.MaxValue) path
    write store [ batch [ point "m1" 10L; point "m1" 20L; point "m2" 15L ] ]
    close store
    let store, outbox = openAs (dropping 1L) path
    let again = batch [ point "m1" 10L; point "m1" 30L ]
    write store [ again ]
    equal [ false; true ] [ again.Prices[0].Inserted; again.Prices[1].Inserted ]
    equal [ at 30L ] (heldPrices outbox |> List.map _.At)

    equal
        (Set.ofList [ "m1-yes", at 10L, ValueSome(at 21L); "m2-yes", at 15L, ValueSome(at 16L) ])
        (heldGaps outbox
         |> List.filter (fun gap -> gap.Stream = Stream.Prices && gap.Cause = Cause.Overrun)
         |> List.map (fun gap -> string gap.Token.Value, gap.Since, gap.Until)
         |> Set.ofList)

    let once = batch [ point "m1" 10L ]
    write store [ once ]
    equal true once.Prices[0].Inserted
    close store

[<Test>]
let ``the state of a job is kept where its rows wait`` () =
    for shipping in modes do
        withOutbox shipping (fun _ store _ ->
            for state in [ "page 1"; "page 2" ] do
                write store [ batch [ fill "m1" 1 10L; reached { checkpoint with State = state } ] ]

            equal [ "page 2" ] (result (store.Checkpoints()) |> List.map _.State))

[<Test>]
let ``books come out with their reason, their doubt and when each was received`` () =
    for shipping in modes do
        withOutbox shipping (fun _ store outbox ->
            let written = batch [ book "m1" 1 1L; book "m1" 2 2L ]
            let row = &written.Books[1]

            row <- {
                row with
                    Verdict = Verdict.Mismatched
                    Doubt = Doubt.Poll
                    Reason = Reason.Last
                    Received = at 9L
            }

            write store [ written ]
            equal (booksOf written) (heldBooks outbox))

[<Test>]
let ``dropped deltas leave a gap of live books for each token, and links are kept`` () =
    let path = newPath ()
    let store, outbox = openAs (dropping 1L) path
    write store [ batch [ delta "m1" 1 10L; delta "m2" 1 15L; delta "m1" 1 20L; link 1 2 ] ]
    write store [ batch [ delta "m1" 1 30L ] ]
    equal [ at 30L ] (heldDeltas outbox |> List.map _.At)
    equal 1 (heldLinks outbox).Length

    equal
        (Set.ofList [ "m1-yes", at 10L, ValueSome(at 21L); "m2-yes", at 15L, ValueSome(at 16L) ])
        (heldGaps outbox
         |> List.filter (fun gap -> gap.Stream = Stream.Depth && gap.Cause = Cause.Overrun)
         |> List.map (fun gap -> string gap.Token.Value, gap.Since, gap.Until)
         |> Set.ofList)

    // What was dropped may come again.
    let again = batch [ delta "m1" 1 10L ]
    write store [ again ]
    equal true again.Deltas[0].Inserted
    close store

[<Test>]
let ``markets and their numbers come out in entries of their own`` () =
    for shipping in modes do
        withOutbox shipping (fun _ store outbox ->
            let plain = {
                market with
                    Market = marketId "m2"
                    Volume = ValueNone
                    Updated = ValueNone
            }

            write store [ batch [ described market; described plain ] ]

            equal
                [ { market with Volume = ValueNone }; plain ]
                (held outbox "markets" (fun batch -> List.ofSeq batch.Markets))

            equal
                [
                    market.Market, market.Updated, market.Volume, market.Liquidity, market.OpenInterest
                ]
                (held outbox "market_stats" (fun batch -> [
                    for row in batch.Markets ->
                        row.Market, row.Updated, row.Volume, row.Liquidity, row.OpenInterest
                ])))

[<Test>]
let ``a gap comes out as it is now, not as it was when it was written`` () =
    for shipping in modes do
        withOutbox shipping (fun _ store outbox ->
            let closed = { gap with Until = ValueSome(at 300L) }

            let whole = {
                gap with
                    Token = ValueNone
                    Cause = Cause.StoreFailed
            }

            write store [ batch [ hole gap; hole whole ] ]
            equal [ gap; whole ] (heldGaps outbox)
            write store [ batch [ hole closed ] ]
            equal [ closed; whole; closed ] (heldGaps outbox)

            let healed = {
                closed with
                    Healed = ValueSome(struct (at 400L, "backfill"))
            }

            write store [ batch [ hole healed ] ]
            equal [ healed; whole; healed; healed ] (heldGaps outbox))

[<Test>]
let ``what was quarantined and what was counted comes out`` () =
    for shipping in modes do
        withOutbox shipping (fun _ store outbox ->
            let written =
                batch [
                    rejected "no side" "{\u0000}" "/a"
                    rejected "no price" "" "/b"
                    measured "rows" 1.5 5L
                    measured "rows" -0.25 6L
                ]

            write store [ written ]

            equal
                (List.ofSeq written.Rejections)
                (held outbox "quarantine" (fun batch -> List.ofSeq batch.Rejections))

            equal
                (List.ofSeq written.Metrics)
                (held outbox "collection_metrics" (fun batch -> List.ofSeq batch.Metrics)))

[<Test>]
let ``own orders, own trades and matches come out, once, and stand in the tables in any case`` () =
    for shipping in modes do
        withOutbox shipping (fun path store outbox ->
            let written =
                batch [
                    ordered (ownOrder "m1" "o-1" "live" "0" 10L)
                    ordered (ownOrder "m1" "o-1" "live" "9223372036854.775807" 11L)
                    traded (ownTrade "m1" "t-1" "o-1" "matched" 12L)
                    traded {
                        ownTrade "m1" "t-1" "o-1" "größe 😀" 12L with
                            IsTaker = false
                            Transaction = ""
                    }
                    confirmed (matched "rain" "yes" "m1" 13L)
                    confirmed {
                        matched "rain" "yes" "m1" 14L with
                            IsWithdrawn = true
                    }
                ]

            write store [ written ]
            write store [ written ]

            equal
                (List.ofSeq written.OwnOrders)
                (held outbox "own_orders" (fun batch -> List.ofSeq batch.OwnOrders))

            equal
                (List.ofSeq written.OwnTrades)
                (held outbox "own_trades" (fun batch -> List.ofSeq batch.OwnTrades))

            equal
                (List.ofSeq written.Matches)
                (held outbox "market_matches" (fun batch -> List.ofSeq batch.Matches))

            equal [ 2L; 2L; 2L ] [
                for table in [ "own_orders"; "own_trades"; "market_matches" ] ->
                    number path $"SELECT count(*) FROM {table}"
            ])

[<Test>]
let ``the bulk stands in no table when it waits whole, and in the tables when it is referred to`` () =
    for shipping in modes do
        withOutbox shipping (fun path store outbox ->
            write store [ batch [ fill "m1" 1 10L; book "m1" 1 10L; measured "rows" 1.0 5L ] ]
            let bulk = [ "trades"; "orderbook_snapshots"; "collection_metrics" ]
            let isWhole = shipping.IsRows

            for table in bulk do
                equal [ isWhole ] (entries outbox table |> List.map _.IsWhole)
                equal (if isWhole then 0L else 1L) (number path $"SELECT count(*) FROM {table}"))

[<Test>]
let ``a batch with nothing for a table makes no entry of it`` () =
    for shipping in modes do
        withOutbox shipping (fun _ store outbox ->
            write store [ batch []; batch [ reached checkpoint ]; batch [ fill "m1" 1 10L ] ]
            equal [ "trades", 1L ] (waitingRows outbox)
            equal 0L (outbox.Last "orderbook_snapshots")
            equal [] (outbox.Read "orderbook_snapshots" 0L Int64.MaxValue 10))

[<Test>]
let ``entries are read in their order, from one number to another, until there are enough rows`` () =
    for shipping in modes do
        withOutbox shipping (fun _ store outbox ->
            for number in 1..4 do
                write store [
                    batch [
                        fill "m1" (2 * number) 10L
                        fill "m1" (2 * number + 1) 10L
                        book "m1" number 10L
                    ]
                ]

            let all = entries outbox "trades"
            let numbers = all |> List.map _.Number
            equal (List.sort numbers) numbers
            equal [ 2; 2; 2; 2 ] (all |> List.map _.Rows)

            let read after upTo rows =
                outbox.Read "trades" after upTo rows |> List.map _.Number

            let last = outbox.Last "trades"
            equal (List.last numbers) last
            equal (List.truncate 1 numbers) (read 0L last 1)
            equal (List.truncate 2 numbers) (read 0L last 3)
            equal (List.truncate 2 numbers) (read 0L last 4)
            equal numbers[2..3] (read numbers[1] last 100)
            equal numbers[1..2] (read numbers[0] numbers[2] 100)
            equal [] (read last last 100))

[<Test>]
let ``what waits is counted by table, with its oldest moment`` () =
    for shipping in modes do
        withOutbox shipping (fun _ store outbox ->
            equal [] (outbox.Waiting())
            let since = Instant.ofDateTimeOffset (clock.GetUtcNow())
            write store [ batch [ fill "m1" 1 10L; fill "m1" 2 10L; hole gap ] ]
            clock.Advance(TimeSpan.FromMinutes 1.0)
            write store [ batch [ fill "m1" 3 10L ] ]

            equal
                [ "gaps", 1L, 1L, since; "trades", 2L, 3L, since ]
                (outbox.Waiting()
                 |> List.map (fun one -> one.Table, one.Entries, one.Rows, one.Since))

            for one in outbox.Waiting() do
                let content = entries outbox one.Table |> List.sumBy _.Content.Length
                equal (int64 content) one.Bytes)

// ---- only what is new

[<Test>]
let ``a row that came before does not go again, and is not marked as inserted`` () =
    for shipping in modes do
        withOutbox shipping (fun _ store outbox ->
            let first = batch [ fill "m1" 1 10L; book "m1" 1 10L; book "m1" 1 10L ]
            write store [ first ]
            equal [ true; false ] [ first.Books[0].Inserted; first.Books[1].Inserted ]

            let second =
                batch [ fill "m1" 1 10L; fill "m1" 2 10L; book "m1" 1 10L; book "m1" 2 10L ]

            write store [ second ]
            equal [ false; true ] [ second.Trades[0].Inserted; second.Trades[1].Inserted ]
            equal [ false; true ] [ second.Books[0].Inserted; second.Books[1].Inserted ]
            equal [ first.Trade 0; second.Trade 1 ] (heldTrades outbox)
            equal [ first.Book 0; second.Book 1 ] (heldBooks outbox)
            write store [ batch [ fill "m1" 2 10L; book "m1" 2 10L ] ]
            equal 2 (entries outbox "trades").Length)

[<Test>]
let ``sightings of one fill by two sources are two`` () =
    for shipping in modes do
        withOutbox shipping (fun _ store outbox ->
            let sighting source =
                batch [
                    fill "m1" 1 10L
                    fun batch ->
                        let row = &batch.Trades[0]
                        row <- { row with Source = source }
                ]

            for source in [ Source.Api; Source.Stream; Source.Api; Source.Chain ] do
                write store [ sighting source ]

            equal [ Source.Api; Source.Stream; Source.Chain ] (heldTrades outbox |> List.map _.Source))

[<Test>]
let ``what waits is known again after closing and opening`` () =
    for shipping in modes do
        let path = newPath ()
        let store, _ = openAs shipping path

        // So many rows that they are not recalled in one piece.
        let parts last = [
            for part in 0..51 do
                batch [
                    for number in 1..100 do
                        fill $"m{part}" number 10L

                    book "m1" part 10L
                ]
            batch [ fill "new" last 10L ]
        ]

        write store (parts 1)
        close store
        let store, outbox = openAs shipping path
        let again = parts 2
        write store again
        equal [ "orderbook_snapshots", 52L; "trades", 5_202L ] (waitingRows outbox)

        for batch in again do
            for i in 0 .. batch.Trades.Count - 1 do
                equal (batch.Names.Text batch.Trades[i].Market = "new") batch.Trades[i].Inserted

        close store

[<Test>]
let ``a repeated market, gap, rejection or counter makes no entry when it stands in a table`` () =
    withOutbox Shipping.References (fun _ store outbox ->
        let make () =
            batch [
                described market
                hole gap
                rejected "no side" "{}" "/a"
                measured "rows" 1.0 5L
            ]

        write store [ make () ]
        let once = waitingRows outbox
        write store [ make () ]
        equal once (waitingRows outbox)
        equal 5 once.Length)

// ---- numbers, and forgetting

[<Test>]
let ``numbers rise, and are not used again after entries were forgotten and the file was opened again`` () =
    for shipping in modes do
        let path = newPath ()
        let mutable highest = 0L

        for round in 1..3 do
            let store, outbox = openAs shipping path
            equal 0L (outbox.Last "trades")

            for number in 1..3 do
                write store [ batch [ fill "m1" (10 * round + number) 10L ] ]
                let last = outbox.Last "trades"
                Assert.That(last, Is.GreaterThan highest)
                highest <- last

            outbox.Release "trades" highest
            equal [] (outbox.Waiting())
            close store

[<Test>]
let ``entries are forgotten up to a number, of one table`` () =
    for shipping in modes do
        withOutbox shipping (fun path store outbox ->
            for number in 1..3 do
                write store [ batch [ fill "m1" number 10L; book "m1" number 10L ] ]

            let numbers = entries outbox "trades" |> List.map _.Number
            outbox.Release "trades" numbers[1]
            equal [ numbers[2] ] (entries outbox "trades" |> List.map _.Number)
            equal 3 (entries outbox "orderbook_snapshots").Length
            outbox.Release "trades" numbers[1]
            outbox.Release "trades" 0L
            equal [ numbers[2] ] (entries outbox "trades" |> List.map _.Number)
            // What was forgotten as an entry still stands in its table, if it did.
            equal (if shipping.IsRows then 0L else 3L) (number path "SELECT count(*) FROM trades"))

[<Test>]
let ``old numbers of markets go with their entries, the newest stay, and all of them where they are the journal``
    ()
    =
    for shipping in modes do
        withOutbox shipping (fun path store outbox ->
            let version micros volume market = {
                market with
                    Updated = ValueSome(at micros)
                    Volume = ValueSome(size volume)
            }

            let other = { market with Market = marketId "m2" }

            for micros, volume in [ 1L, "1"; 3L, "3"; 2L, "2" ] do
                write store [ batch [ described (version micros volume market) ] ]

            write store [ batch [ described (version 1L "7" other) ] ]

            let count () =
                number path "SELECT count(*) FROM market_stats"

            let numbers = entries outbox "market_stats" |> List.map _.Number
            outbox.Release "market_stats" numbers[0]
            equal 4L (count ()) // one of those that wait may be needed
            outbox.Release "market_stats" (List.last numbers)
            equal (if shipping.IsRows then 2L else 4L) (count ())

            equal [ ValueSome(size "3"); ValueSome(size "7") ] (markets store |> List.map _.Volume))

[<Test>]
let ``a file that only holds what waits gives its room back`` () =
    withOutbox rows (fun path store outbox ->
        equal 2L (number path "PRAGMA auto_vacuum")

        for part in 0..9 do
            write store [
                batch [
                    for number in 1..2_000 do
                        book "m1" (part * 2_000 + number) 10L
                ]
            ]

        let before = number path "PRAGMA page_count"
        outbox.Release "orderbook_snapshots" (outbox.Last "orderbook_snapshots")
        Assert.That(number path "PRAGMA page_count", Is.LessThan(before / 4L)))

// ---- all or nothing

/// Batches, and what happens before the second one is looked at.
[<Sealed>]
type private Interrupted(batches: Batch list, interrupt: unit -> unit) =
    let batches = List<Batch> batches

    let sequence = seq {
        for i in 0 .. batches.Count - 1 do
            if i = 1 then
                interrupt ()

            batches[i]
    }

    interface IReadOnlyList<Batch> with
        member _.Count = batches.Count

        member _.Item
            with get i =
                if i = 1 then
                    interrupt ()

                batches[i]

        member _.GetEnumerator() : IEnumerator<Batch> = sequence.GetEnumerator()
        member _.GetEnumerator() : IEnumerator = sequence.GetEnumerator()

let private cancelled (store: Store) batches =
    use source = new CancellationTokenSource()

    Assert.Catch<OperationCanceledException>(fun () ->
        result (store.Write (Interrupted(batches, source.Cancel)) source.Token)
        |> ignore)
    |> ignore

[<Test>]
let ``a write that is cancelled in the middle leaves nothing, in no table and not in the outbox`` () =
    for shipping in modes do
        withOutbox shipping (fun path store outbox ->
            write store [ batch [ fill "m1" 1 10L; hole gap ] ]
            let before = outbox.Waiting(), everything store, heldTrades outbox

            let half () = [
                batch [
                    fill "m2" 2 10L
                    book "m2" 2 10L
                    described market
                    hole { gap with Since = at 7L }
                    rejected "no side" "{}" "/a"
                    measured "rows" 1.0 5L
                    reached checkpoint
                ]
                batch [ fill "m3" 3 10L ]
            ]

            cancelled store (half ())
            equal before (outbox.Waiting(), everything store, heldTrades outbox)
            equal 1L (number path "SELECT count(*) FROM market_keys")
            // What came before is known as ever, and what was taken back is new.
            write store [ batch [ fill "m1" 1 10L ] ]
            equal 1 (heldTrades outbox).Length
            let written = half ()
            write store written
            equal true (written.Head.Trades[0].Inserted && written.Head.Books[0].Inserted)
            equal 3 (heldTrades outbox).Length
            equal 1 (heldBooks outbox).Length
            equal 2 (heldGaps outbox).Length)

// All of the same length.
let private one number micros = batch [ fill "m1" number micros ]

/// How much room one of them takes.
let private lengthOfOne =
    lazy
        (let mutable length = 0L

         withOutbox rows (fun _ store outbox ->
             write store [ one 1 10L ]
             length <- (outbox.Waiting() |> List.head).Bytes)

         length)

let private full (store: Store) batches =
    match tryWrite store batches with
    | Error(StoreFault.Full detail) -> detail
    | other -> failwith $"%A{other}"

[<Test>]
let ``a full outbox takes no more, says what it holds and may hold, and takes again when there is room`` () =
    let length = lengthOfOne.Value

    withOutbox (blocking (3L * length)) (fun path store outbox ->
        for number in 1..3 do
            write store [ one number 10L ]

        for _ in 1..2 do
            let waiting = outbox.Waiting()
            let detail = full store [ one 4 10L ]
            Assert.That(detail, Does.Contain path)
            Assert.That(detail, Does.Contain $"holds {3L * length} bytes")
            Assert.That(detail, Does.Contain $"its limit is {3L * length}")
            equal waiting (outbox.Waiting())

        // What it has is known as ever.
        write store [ one 3 10L ]
        outbox.Release "trades" (entries outbox "trades").Head.Number
        let fourth = one 4 10L
        write store [ fourth ]
        equal true fourth.Trades[0].Inserted
        equal [ 3L ] (waitingRows outbox |> List.map snd)
        full store [ one 5 10L ] |> ignore)

[<Test>]
let ``a write that was taken back takes no room`` () =
    let length = lengthOfOne.Value

    withOutbox (blocking (3L * length)) (fun _ store outbox ->
        write store [ one 1 10L ]

        for _ in 1..5 do
            cancelled store [ one 2 10L; one 3 10L ]

        write store [ one 2 10L; one 3 10L ]
        full store [ one 4 10L ] |> ignore
        equal 3 (heldTrades outbox).Length)

[<Test>]
let ``what is small is taken when the outbox is full`` () =
    let length = lengthOfOne.Value

    withOutbox (blocking length) (fun _ store outbox ->
        write store [ one 1 10L ]

        write store [
            batch [ hole gap; described market; reached checkpoint; rejected "no side" "{}" "/a" ]
        ]

        equal [ gap ] (heldGaps outbox)
        full store [ one 2 10L ] |> ignore
        full store [ batch [ measured "rows" 1.0 5L ] ] |> ignore)

[<Test>]
let ``a write that is larger than the limit is taken when nothing else waits`` () =
    let length = lengthOfOne.Value

    for shipping in [ blocking (2L * length); dropping (2L * length) ] do
        withOutbox shipping (fun _ store outbox ->
            write store [ one 1 10L; one 2 10L; one 3 10L ]
            equal 3 (heldTrades outbox).Length
            equal [] (gaps store)
            outbox.Release "trades" (outbox.Last "trades")
            write store [ one 4 10L ]
            equal 1 (heldTrades outbox).Length)

[<Test>]
let ``the room is counted when the file is opened`` () =
    let length = lengthOfOne.Value
    let path = newPath ()
    let store, _ = openAs rows path
    write store [ one 1 10L; one 2 10L ]
    close store
    let store, outbox = openAs (blocking (2L * length)) path
    full store [ one 3 10L ] |> ignore
    outbox.Release "trades" (outbox.Last "trades")
    write store [ one 3 10L ]
    close store

// ---- dropping

[<Test>]
let ``the oldest rows go first, each flow's with a gap of the cause overrun`` () =
    let books (market: string) (numbers: int list) =
        batch [
            for number in numbers do
                book market number (int64 (100 * number))
        ]

    let mutable limit = 0L

    withOutbox rows (fun _ store outbox ->
        write store [ books "m1" [ 1; 2 ]; books "m1" [ 3; 4 ] ]
        limit <- (outbox.Waiting() |> List.head).Bytes + 200L)

    withOutbox (dropping limit) (fun _ store outbox ->
        write store [ books "m1" [ 5; 2 ] ]
        write store [ books "m2" [ 9; 3 ] ]
        equal [] (gaps store)
        let newest = books "m1" [ 6; 7 ]
        write store [ newest ]

        let hole market first last = {
            gap with
                Market = marketId market
                Token = ValueSome(tokenId $"{market}-yes")
                Since = at first
                Until = ValueSome(at (last + 1L))
                Cause = Cause.Overrun
        }

        equal [ hole "m1" 200L 500L ] (gaps store |> List.map _.Gap)
        equal [ hole "m1" 200L 500L ] (heldGaps outbox)
        write store [ books "m3" [ 1; 2 ] ]
        equal [ hole "m1" 200L 500L; hole "m2" 300L 900L ] (heldGaps outbox)

        equal
            [ 600L; 700L; 100L; 200L ]
            (heldBooks outbox |> List.map (fun book -> book.At.Micros - (at 0L).Micros))

        // A gap may be healed by what comes again: it is not taken for known.
        let again = books "m1" [ 5 ]
        write store [ again ]
        equal true again.Books[0].Inserted)

[<Test>]
let ``trades that go are a gap of their market, over all entries that went`` () =
    let length = lengthOfOne.Value

    withOutbox (dropping (2L * length)) (fun _ store outbox ->
        write store [ one 1 50L ]
        write store [ one 2 20L ]
        write store [ one 3 90L; one 4 95L ]

        equal
            [
                {
                    gap with
                        Stream = Stream.Trades
                        Token = ValueNone
                        Since = at 20L
                        Until = ValueSome(at 51L)
                        Cause = Cause.Overrun
                }
            ]
            (heldGaps outbox)

        equal [ at 90L; at 95L ] (heldTrades outbox |> List.map _.At))

[<Test>]
let ``counters go without a gap, and what is small stays`` () =
    let length = lengthOfOne.Value

    withOutbox (dropping length) (fun _ store outbox ->
        write store [ batch [ hole gap; described market; rejected "no side" "{}" "/a" ] ]
        write store [ batch [ measured "rows" 1.0 5L ] ]

        for number in 1..5 do
            write store [ one number (int64 number) ]

        let waiting = waitingRows outbox |> Map.ofList

        equal
            ValueNone
            (if waiting.ContainsKey "collection_metrics" then
                 ValueSome()
             else
                 ValueNone)

        equal 1L waiting["trades"]
        equal (1L, 1L, 1L) (waiting["markets"], waiting["market_stats"], waiting["quarantine"])
        equal true (List.contains gap (heldGaps outbox))
        equal 1 (markets store).Length)

[<Test>]
let ``what can be read at the other store goes first, and without a gap`` () =
    let length = lengthOfOne.Value

    for limit in [ blocking (2L * length); dropping (2L * length) ] do
        withOutbox limit (fun _ store outbox ->
            write store [ one 1 10L ]
            write store [ one 2 20L ]
            outbox.IsApplied "trades" (entries outbox "trades").Head.Number
            // As long as there is room it stays.
            equal 2 (heldTrades outbox).Length
            write store [ one 3 30L ]
            equal [ at 20L; at 30L ] (heldTrades outbox |> List.map _.At)
            equal [] (gaps store))

[<Test>]
let ``what has to be sent again does not go without a gap`` () =
    let length = lengthOfOne.Value

    withOutbox (dropping (2L * length)) (fun _ store outbox ->
        write store [ one 1 10L ]
        write store [ one 2 20L ]
        outbox.IsApplied "trades" (outbox.Last "trades")
        outbox.IsApplied "trades" 0L // the other store lost it
        write store [ one 3 30L ]
        equal [ at 10L ] (heldGaps outbox |> List.map _.Since))

[<Property(MaxTest = 25)>]
let ``whatever is dropped, every row waits, or is in a gap of its flow`` () =
    let action = Gen.zip (Gen.choose (1, 3)) (Gen.choose (1, 12))

    Prop.forAll (Arb.fromGen (Gen.nonEmptyListOf action)) (fun actions ->
        let limit = 6L * lengthOfOne.Value

        withOutbox (dropping limit) (fun _ store outbox ->
            let written = ResizeArray<Trade>()
            let mutable next = 0

            for market, count in actions do
                let batch =
                    batch [
                        for _ in 1..count do
                            next <- next + 1
                            // Not in order.
                            fill $"m{market}" next (int64 ((next * 7_919) % 1_000))
                    ]

                write store [ batch ]
                written.AddRange(tradesOf batch)
                let waiting = heldTrades outbox |> List.map _.Id |> Set.ofList
                let holes = heldGaps outbox

                for trade in written do
                    let isInHole =
                        holes
                        |> List.exists (fun gap ->
                            gap.Market = trade.Market
                            && gap.Stream = Stream.Trades
                            && trade.At >= gap.Since
                            && ValueSome trade.At < gap.Until)

                    Assert.That(waiting.Contains trade.Id || isInHole)

                let bulk =
                    outbox.Waiting()
                    |> List.filter (fun one -> one.Table = "trades")
                    |> List.sumBy _.Bytes

                let last = (List.last (entries outbox "trades")).Content.Length
                Assert.That(bulk, Is.LessThanOrEqualTo(max limit (int64 last)))))

// ---- damage

[<Test>]
let ``an entry that is damaged is said to be, and keeps nothing from being opened`` () =
    for shipping in modes do
        let path = newPath ()
        let store, _ = openAs shipping path

        write store [ batch [ fill "m1" 1 10L; book "m1" 1 10L; hole gap; measured "rows" 1.0 5L ] ]

        write store [ batch [ fill "m1" 2 10L ] ]
        close store
        execute path "UPDATE outbox SET content = x'0102' WHERE entry <= 4"
        let store, outbox = openAs shipping path

        for table in [ "trades"; "orderbook_snapshots"; "gaps"; "collection_metrics" ] do
            let entry = (entries outbox table).Head

            Assert.Throws<InvalidDataException>(fun () -> outbox.Open table entry (Batch()))
            |> ignore

        let second = (entries outbox "trades")[1]
        let opened = Batch()
        outbox.Open "trades" second opened
        equal 1 opened.Trades.Count
        // What can be read is known.
        write store [ batch [ fill "m1" 2 10L ] ]
        equal 2 (entries outbox "trades").Length
        close store

[<Test>]
let ``an entry that is damaged when it has to go is quarantined with its bytes`` () =
    let length = lengthOfOne.Value
    let path = newPath ()
    let store, _ = openAs (dropping (2L * length)) path
    write store [ one 1 10L ]
    write store [ one 2 20L ]
    close store
    // Of a later version, and as long as before.
    execute path "UPDATE outbox SET content = CAST(x'05' || substr(content, 2) AS BLOB) WHERE entry = 1"
    let store, outbox = openAs (dropping (2L * length)) path
    let content = (entries outbox "trades").Head.Content.ToArray()
    write store [ one 3 30L ]
    equal [ at 20L; at 30L ] (heldTrades outbox |> List.map _.At)

    match result (store.Quarantine()) with
    | [ rejection ] ->
        equal content rejection.Bytes
        Assert.That(rejection.Reason, Does.Contain "version 5")
        equal "outbox/trades" rejection.Source
    | other -> failwith $"%A{other}"

    equal [ "quarantine", 1L; "trades", 2L ] (waitingRows outbox)
    close store

[<Test>]
let ``a row that was deleted by hand is left out`` () =
    withOutbox Shipping.References (fun path store outbox ->
        write store [ batch [ fill "m1" 1 10L; fill "m1" 2 20L; book "m1" 1 10L; book "m1" 2 20L ] ]
        execute path "DELETE FROM trades WHERE at = (SELECT min(at) FROM trades)"
        execute path "DELETE FROM orderbook_snapshots WHERE at = (SELECT min(at) FROM orderbook_snapshots)"
        equal [ at 20L ] (heldTrades outbox |> List.map _.At)
        equal [ at 20L ] (heldBooks outbox |> List.map _.At))

[<Test>]
let ``references mean the same rows after the file was compacted`` () =
    let path = newPath ()
    let store, _ = openAs Shipping.References path

    write store [
        batch [
            for number in 1..20 do
                book "m1" number (int64 number)
                rejected $"no {number}" "{}" "/a"

                described {
                    market with
                        Market = marketId $"m{number}"
                }
        ]
    ]

    close store

    execute
        path
        "DELETE FROM orderbook_snapshots WHERE rowid % 2 = 0; DELETE FROM quarantine WHERE rowid % 2 = 0;
         DELETE FROM markets WHERE rowid % 2 = 0; VACUUM"

    let store, outbox = openAs Shipping.References path
    let odd = [ 1..2..20 ]
    equal (odd |> List.map (int64 >> at)) (heldBooks outbox |> List.map _.At)

    equal
        (odd |> List.map (fun number -> $"no {number}"))
        (held outbox "quarantine" (fun batch -> [ for row in batch.Rejections -> row.Reason ]))

    equal
        (odd |> List.map (fun number -> $"m{number}"))
        (held outbox "markets" (fun batch -> [ for row in batch.Markets -> string row.Market ]))

    close store

// ---- files of other times

[<Test>]
let ``a file from before there was an outbox is taken forward with all that is in it`` () =
    for shipping in modes do
        let path = newPath ()

        do
            use db = new Connection(path, Access.Write)
            SqliteSchema.migrate (List.truncate 1 SqliteSchema.steps) [] db
            equal 1L (db.Number "PRAGMA user_version")

            db.Execute
                $"INSERT INTO exchanges VALUES (1, 'polymarket');
                  INSERT INTO market_keys VALUES (1, 1, 'm1', 1);
                  INSERT INTO token_keys VALUES (1, 1, 'm1-yes', 'Yes', 0);
                  INSERT INTO trades VALUES (1, {(at 5L).Micros}, x'000102030405060708090a0b0c0d0e0f', 0, 1, NULL, 1,
                                             550000, 1000000, NULL, {(at 6L).Micros}, 0)"

        let store, outbox = openAs shipping path
        equal (int64 SqliteSchema.version) (number path "PRAGMA user_version")
        equal [ at 5L ] (trades store |> List.map _.At)
        equal [] (outbox.Waiting())
        let added = one 1 10L
        write store [ added ]
        equal [ added.Trade 0 ] (heldTrades outbox)
        close store

[<Test>]
let ``a file that was the only store goes on with references, and without them again`` () =
    let path = newPath ()

    let times shipping number =
        let store, outbox = openAs shipping path
        write store [ one number (int64 number) ]
        let held = heldTrades outbox |> List.map _.At
        let stored = trades store |> List.map _.At
        close store
        held, stored

    equal ([], [ at 1L ]) (times Shipping.Off 1)
    equal ([ at 2L ], [ at 1L; at 2L ]) (times Shipping.References 2)
    equal ([ at 2L ], [ at 1L; at 2L; at 3L ]) (times Shipping.Off 3)
    equal ([ at 2L; at 4L ], [ at 1L; at 2L; at 3L; at 4L ]) (times Shipping.References 4)

[<Test>]
let ``whole entries and references to rows wait in one file`` () =
    let path = newPath ()
    let store, _ = openAs Shipping.References path
    write store [ one 1 10L ]
    close store
    let store, outbox = openAs rows path
    let again = batch [ fill "m1" 1 10L; fill "m1" 2 20L ]
    write store [ again ]
    equal [ false; true ] [ again.Trades[0].Inserted; again.Trades[1].Inserted ]
    equal [ at 10L; at 20L ] (heldTrades outbox |> List.map _.At)
    equal [ false; true ] (entries outbox "trades" |> List.map _.IsWhole)
    close store

[<Test>]
let ``what waits is the same after a crash`` () =
    for shipping in modes do
        withOutbox shipping (fun path store outbox ->
            write store [ odd; batch [ hole gap ] ]
            // What a disk holds at this moment is what is found after a crash.
            let copy = newPath ()

            for ending in [ ""; "-wal" ] do
                File.Copy(path + ending, copy + ending)

            let found, foundOutbox = openAs shipping copy
            equal (outbox.Waiting()) (foundOutbox.Waiting())
            equal (heldTrades outbox) (heldTrades foundOutbox)
            equal (heldBooks outbox) (heldBooks foundOutbox)
            equal (heldGaps outbox) (heldGaps foundOutbox)
            close found)

// ---- many at work

[<Test>]
let ``entries are read and forgotten while others are written`` () =
    for shipping in modes do
        withOutbox shipping (fun _ store outbox ->
            let count = 150

            let writing =
                Task.Run(fun () ->
                    for number in 1..count do
                        write store [
                            batch [ fill "m1" number (int64 number); book "m1" number (int64 number) ]
                        ])

            let seen = ResizeArray<Instant>()
            let mutable after = 0L

            while seen.Count < count && not writing.IsFaulted do
                for entry in outbox.Read "trades" after (outbox.Last "trades") 10 do
                    let batch = Batch()
                    outbox.Open "trades" entry batch
                    seen.AddRange(tradesOf batch |> List.map _.At)
                    after <- entry.Number
                    outbox.IsApplied "trades" after

                outbox.Release "trades" after
                outbox.Waiting() |> ignore

            writing.Wait()
            equal [ for number in 1..count -> at (int64 number) ] (List.ofSeq seen)
            equal [ "orderbook_snapshots", int64 count ] (waitingRows outbox))

[<Test>]
let ``what a closed file is asked to forget is kept`` () =
    for shipping in modes do
        let path = newPath ()
        let store, outbox = openAs shipping path
        write store [ one 1 10L ]
        let last = outbox.Last "trades"
        close store
        close store
        outbox.Release "trades" last
        outbox.IsApplied "trades" last

        match tryWrite store [ one 2 10L ] with
        | Error(StoreFault.Failed detail) -> Assert.That(detail, Does.Contain "closed")
        | other -> failwith $"%A{other}"

        let store, outbox = openAs shipping path
        equal [ "trades", 1L ] (waitingRows outbox)
        close store

[<Test>]
let ``a file that cannot be opened is not held`` () =
    let path = newPath ()
    let store, _ = openAs rows path
    write store [ one 1 10L ]
    close store
    execute path "DROP INDEX outbox_kind; ALTER TABLE outbox RENAME TO inbox"

    match Sqlite.openShipping path "main" Synchronous.Full rows clock with
    | Error(OpenFault.Unreachable _) -> ()
    | other -> failwith $"%A{other}"

    execute path "ALTER TABLE inbox RENAME TO outbox"
    let store, outbox = openAs rows path
    equal 1 (heldTrades outbox).Length
    close store
