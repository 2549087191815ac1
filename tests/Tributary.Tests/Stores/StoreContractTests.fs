namespace Tributary.Tests.Stores

open System
open System.Collections.Concurrent
open System.Collections.Generic
open System.IO
open System.Threading
open System.Threading.Tasks
open NUnit.Framework
open Tributary
open Tributary.Stores
open Tributary.Tests.Stores.Vocabulary
open Tributary.Tests.Stores.QuestDbSupport

[<AutoOpen>]
module DocumentsInMemory =
    /// A place for documents as somebody might write one: it lives as long as its folder.
    let internal places =
        ConcurrentDictionary<string, Dictionary<struct (string * string), Document>>()

    let internal documentsIn (folder: string) : DocumentStore =
        let rows = places.GetOrAdd(folder, fun _ -> Dictionary())

        let isIt (wanted: string voption) actual =
            wanted.IsNone || wanted = ValueSome actual

        let readOnly (rows: Document seq) : Task<IReadOnlyList<Document>> = Task.FromResult(Array.ofSeq rows)

        {
            Name = "documents"
            Put =
                fun documents _ ->
                    for row in documents do
                        rows[struct (row.Table, row.Key)] <- row

                    Task.CompletedTask
            Get =
                fun table keys ->
                    readOnly [|
                        for key in keys do
                            match rows.TryGetValue(struct (table, key)) with
                            | true, row -> row
                            | _ -> ()
                    |]
            Find =
                fun query ->
                    let found =
                        rows.Values
                        |> Seq.filter (fun row ->
                            row.Table = query.Table
                            && isIt query.Exchange row.Exchange
                            && isIt query.Market row.Market
                            && isIt query.Token row.Token
                            && row.At >= query.Since
                            && row.At < query.Until)
                        |> Seq.sortWith (fun one other ->
                            match compare one.At other.At with
                            | 0 -> String.CompareOrdinal(one.Key, other.Key)
                            | by -> by)
                        |> Array.ofSeq

                    let skipped =
                        if query.Latest then
                            max 0 (found.Length - query.Limit)
                        else
                            0

                    readOnly (found |> Seq.skip skipped |> Seq.truncate query.Limit)
            Totals =
                fun table ->
                    rows.Values
                    |> Seq.filter (fun row -> row.Table = table)
                    |> Seq.groupBy (fun row -> row.Exchange, row.Market)
                    |> Seq.map (fun ((exchange, market), own) -> {
                        Exchange = exchange
                        Market = market
                        Count = int64 (Seq.length own)
                        First = own |> Seq.map _.At |> Seq.min
                        Last = own |> Seq.map _.At |> Seq.max
                    })
                    |> Array.ofSeq
                    |> fun totals -> Task.FromResult totals
            Close = fun () -> ValueTask()
        }

/// What every store promises: one run for each line of the registry, and one for a store over documents.
[<TestFixtureSource("Kinds")>]
type StoreContractTests(kind: string) =
    let mutable folder = ""
    let mutable store = Unchecked.defaultof<Store>
    let mutable server: TestServer voption = ValueNone

    let openStore () =
        let settings =
            match server with
            | ValueSome server -> settingsFor folder server kind
            | ValueNone -> {
                (Settings.defaults []).Store with
                    Kind = kind
                    Path = Path.Combine(folder, "test.db")
              }

        if kind = "documents" then
            Documents.store "main" (documentsIn folder)
        else
            patient (openAs settings)

    let size' text = Vocabulary.size text

    /// What a size comes back as: through the doubles of a store that has no other numbers.
    let stored (size: Size) =
        if kind = "questdb" then
            size' ((float size.Millionths / 1e6).ToString("R"))
        else
            size

    let storedBook (book: OrderBookSnapshot) =
        let storedLevel (level: Level) : Level = { level with Size = stored level.Size }

        {
            book with
                Bids = Array.map storedLevel book.Bids
                Asks = Array.map storedLevel book.Asks
        }

    static member Kinds = "documents" :: (Registry.all |> List.map _.Name)

    [<SetUp>]
    member _.Open() =
        folder <- temporaryFolder ()

        if kind = "questdb" || kind = "both" then
            server <- ValueSome(startServer().Result)

        store <- openStore ()

    [<TearDown>]
    member _.CloseAndForget() =
        close store

        server
        |> ValueOption.iter (fun server -> (server :> IAsyncDisposable).DisposeAsync().AsTask().Wait())

        server <- ValueNone
        Directory.Delete(folder, true)

    [<Test>]
    member _.``what was written is read back, field by field``() =
        let written =
            batch [ described market; fill "m1" 1 10L; fill "m1" 2 20L; book "m1" 1 10L ]

        write store [ written ]
        equal [ written.Trade 0; written.Trade 1 ] (trades store)
        equal [ written.Book 0 ] (books store)
        equal [ market ] (markets store)

    [<Test>]
    member _.``everything that is not usual comes back as it was as well``() =
        let odd =
            batch [
                fillOf "m1" "m1-yes" "" "0.000001" 1 10L
                fillOf "m1" "m1-no" "\u00dcber \"50\"" "1" 2 10L
                bookOf "m1" [] [] "" 1L
                bookOf "m1" [ "0.5", "9223372036854.775807" ] [] "NOT-HEX" 2L
                bookOf "m1" [] [ "0", "0.000001" ] (String('A', 40)) 3L
            ]

        for i in 0..1 do
            let row = &odd.Trades[i]

            row <- {
                row with
                    Transaction =
                        if i = 0 then
                            odd.Keep(utf8 "")
                        else
                            odd.Keep(utf8 "0xshort")
                    Source = if i = 0 then Source.Chain else Source.Stream
                    Side = Side.Buy
                    Flags = Flags.None
            }

        do
            let row = &odd.Books[1]
            row <- { row with Sequence = 12_345 }

        write store [ odd ]
        equal (Set.ofList [ odd.Trade 0; odd.Trade 1 ]) (Set.ofList (trades store))
        equal ([ odd.Book 0; odd.Book 1; odd.Book 2 ] |> List.map storedBook) (books store)

    [<Test>]
    member _.``append twice, store once``() =
        let batches = [
            batch [ described market; fill "m1" 1 10L; fill "m1" 2 20L; book "m1" 1 10L ]
            batch [ delta "m1" 0 10L; delta "m1" 1 10L; link 1 2; link 1 3 ]
            batch [ point "m1" 10L; point "m1" 20L; pointOf "m1" PriceKind.Probability "0.5" 10L ]
            batch [
                hole gap
                reached checkpoint
                rejected "no side" "{}" "/a"
                measured "rows" 1.0 5L
            ]
            batch [ fill "m2" 1 10L; hole { gap with Until = ValueSome(at 300L) } ]
        ]

        write store batches
        let once = everything store
        write store batches

        for one in batches do
            write store [ one ]

        equal once (everything store)

    [<Test>]
    member _.``the order of batches does not matter``() =
        let make () = [
            batch [ fill "m1" 1 10L; fill "m1" 2 20L ]
            batch [ fill "m1" 3 15L; book "m1" 1 10L ]
            batch [ delta "m1" 0 10L; link 1 3; delta "m1" 0 9L ]
            batch [ delta "m1" 1 10L; link 1 2; delta "m2" 0 10L; point "m1" 20L ]
            batch [ point "m2" 20L; point "m1" 10L; fill "m3" 7 10L; paid "1.5" ]
            batch [ book "m1" 2 5L; fill "m2" 1 10L ]
            batch [ hole gap ]
            batch [ hole { gap with Until = ValueSome(at 300L) } ]
        ]

        write store (make ())
        let forwards = everything store
        let other = Memory.create "main"

        for one in List.rev (make ()) do
            write other [ one ]

        equal forwards (everything other)

    [<Test>]
    member _.``a row is inserted the first time only, also within one batch``() =
        let first =
            batch [
                fill "m1" 1 10L
                book "m1" 1 10L
                book "m1" 1 10L
                delta "m1" 1 10L
                delta "m1" 1 10L
            ]

        write store [ first ]
        equal [ true ] [ first.Trades[0].Inserted ]
        equal [ true; false ] [ first.Books[0].Inserted; first.Books[1].Inserted ]
        equal [ true; false ] [ first.Deltas[0].Inserted; first.Deltas[1].Inserted ]

        let second =
            batch [
                fill "m1" 1 10L
                fill "m1" 2 10L
                book "m1" 2 10L
                delta "m1" 1 10L
                delta "m1" 2 10L
            ]

        write store [ second ]
        equal [ false; true ] [ second.Trades[0].Inserted; second.Trades[1].Inserted ]
        equal true second.Books[0].Inserted
        equal [ false; true ] [ second.Deltas[0].Inserted; second.Deltas[1].Inserted ]

    [<Test>]
    member _.``what was paid for a fill comes back, and where it is not known there is nothing``() =
        let written =
            batch [
                fill "m1" 1 10L
                paid "5.774999"
                fill "m1" 2 20L
                fill "m1" 3 30L
                paid "0"
                fill "m1" 4 40L
                paid "1234567890.123457"
                toldBy Source.Chain (Flags.Maker ||| Flags.Rounded)
            ]

        write store [ written ]
        equal [ for i in 0..3 -> written.Trade i ] (trades store)

        equal
            [
                ValueSome(size' "5.774999")
                ValueNone
                ValueSome(size' "0")
                ValueSome(size' "1234567890.123457")
            ]
            (trades store |> List.map _.Collateral)

    [<Test>]
    member _.``prices come back as they were, oldest first, each of them once``() =
        let written =
            batch [
                pointOf "m2" PriceKind.History "0.000001" 20L
                pointOf "m1" PriceKind.Probability "0.333333" 20L
                pointOf "m1" PriceKind.History "1" 20L
                pointOf "m1" PriceKind.History "-0.5" 10L
                pointOf "m1" PriceKind.History "0.9" 10L
            ]

        let row = &written.Prices[0]
        row <- { row with Received = at 7L }
        write store [ written ]
        equal [ true; true; true; true; false ] [ for i in 0..4 -> written.Prices[i].Inserted ]
        equal [ for i in [ 3; 2; 1; 0 ] -> written.PricePoint i ] (prices store)

        // What another delivery says otherwise makes no other price.
        let again = batch [ pointOf "m1" PriceKind.History "0.7" 10L; point "m1" 30L ]
        write store [ again ]
        equal [ false; true ] [ again.Prices[0].Inserted; again.Prices[1].Inserted ]
        equal 5 (prices store).Length

    [<Test>]
    member _.``the states of own orders come back as they were, each of them once``() =
        let placed = ownOrder "m1" "o-2" "live" "0" 10L

        let states = [
            placed
            {
                placed with
                    Filled = size' "10"
                    At = at 20L
            }
            {
                placed with
                    Filled = size' "10"
                    At = at 20L
                    Status = "matched"
            }
            {
                placed with
                    Filled = size' "40.5"
                    At = at 20L
            }
            // The same order id on another exchange is another order.
            {
                placed with
                    Exchange = sound (ExchangeId.Parse "kalshi")
                    At = at 30L
            }
        ]

        write store [ batch (states |> List.rev |> List.map ordered) ]
        equal states (ownOrders store)

        // What another delivery says otherwise makes no other state.
        write store [
            batch [
                ordered {
                    placed with
                        Price = price "0.7"
                        Received = at 9L
                }
                ordered placed
                ordered (ownOrder "m2" "o-1" "live" "0" 20L)
            ]
        ]

        equal 6 (ownOrders store).Length

        // Of one time by order.
        equal [ "o-2"; "o-1"; "o-2"; "o-2"; "o-2"; "o-2" ] (ownOrders store |> List.map _.Order)

    [<Test>]
    member _.``the statuses of own trades come back as they were, each of them once``() =
        let taken = ownTrade "m1" "t-1" "o-1" "matched" 20L

        let rows = [
            ownTrade "m1" "t-0" "o-1" "matched" 10L
            { taken with Status = "confirmed" }
            taken
            {
                taken with
                    Order = "o-2"
                    IsTaker = false
                    Side = Side.Sell
                    Transaction = ""
            }
            {
                taken with
                    Order = "o-2"
                    Token = tokenId "m1-no"
            }
        ]

        // Of one time by trade, order, status and token.
        let rows = [ rows[0]; rows[1]; rows[2]; rows[4]; rows[3] ]
        write store [ batch (rows |> List.rev |> List.map traded) ]
        equal rows (ownTrades store)
        // A trade is the same whenever it is said to have been.
        write store [ batch [ traded taken; traded { taken with At = at 21L } ] ]
        equal (List.length rows) (ownTrades store).Length

    [<Test>]
    member _.``own orders and trades are found by exchange, market, token, time and number, from either end``
        ()
        =
        write store [
            batch [
                for i in 1L .. 5L do
                    ordered (ownOrder "m1" $"o{i}" "live" "0" i)
                    ordered (ownOrder "m2" $"o{i}" "live" "0" (i + 10L))
                    traded (ownTrade "m1" $"t{i}" "o" "matched" i)
                    traded (ownTrade "m2" $"t{i}" "o" "matched" (i + 10L))
            ]
        ]

        let ofM1 = {
            Query.everything with
                Exchange = ValueSome exchange
                Market = ValueSome(marketId "m1")
                Token = ValueSome(tokenId "m1-yes")
        }

        let found query =
            result (store.OwnOrders query)
            |> List.map (fun row -> row.At.Micros - (at 0L).Micros),
            result (store.OwnTrades query)
            |> List.map (fun row -> row.At.Micros - (at 0L).Micros)

        let both times = times, times

        equal 10 (fst (found Query.everything)).Length
        equal 10 (snd (found Query.everything)).Length
        equal (both [ 1L .. 5L ]) (found ofM1)
        equal (both [ 4L; 5L ]) (found { ofM1 with Limit = 2; Latest = true })
        equal (both [ 1L; 2L ]) (found { ofM1 with Limit = 2 })

        equal
            (both [ 2L; 3L ])
            (found {
                ofM1 with
                    Since = at 2L
                    Until = at 4L
            })

        equal
            (both [])
            (found {
                ofM1 with
                    Exchange = ValueSome(sound (ExchangeId.Parse "kalshi"))
            })

        equal
            (both [])
            (found {
                ofM1 with
                    Token = ValueSome(tokenId "m2-yes")
            })

    [<Test>]
    member _.``matches and their withdrawals come back as they were, each of them once``() =
        let rain = matched "rain" "yes" "m1" 10L

        let rows = [
            rain
            { rain with Answer = "no" }
            { rain with Question = "snow" }
            {
                rain with
                    At = at 20L
                    IsWithdrawn = true
            }
            {
                rain with
                    Exchange = sound (ExchangeId.Parse "kalshi")
                    At = at 30L
            }
        ]

        let rows = [ rows[1]; rows[0]; rows[2]; rows[3]; rows[4] ]
        write store [ batch (rows |> List.rev |> List.map confirmed) ]
        equal rows (matches store)
        write store [ batch [ confirmed rain; confirmed { rain with At = at 40L } ] ]
        equal 6 (matches store).Length

    [<Test>]
    member _.``own orders, own trades and matches are there when a store is opened again``() =
        let rows () =
            batch [
                ordered (ownOrder "m1" "o-1" "live" "0" 10L)
                traded (ownTrade "m1" "t-1" "o-1" "matched" 10L)
                confirmed (matched "rain" "yes" "m1" 10L)
            ]

        write store [ rows () ]
        let before = ownOrders store, ownTrades store, matches store
        close store
        store <- openStore ()

        if kind = "memory" then
            equal ([], [], []) (ownOrders store, ownTrades store, matches store)
        else
            equal before (ownOrders store, ownTrades store, matches store)
            write store [ rows () ]
            equal before (ownOrders store, ownTrades store, matches store)

    [<Test>]
    member _.``prices are found by exchange, market, token, time and number, from either end``() =
        let names = Names()

        let elsewhere =
            batchOf names (fun batch ->
                batch.Exchange <- "kalshi"
                point "m1" 3L batch)

        write store [
            batchOf names (fun batch ->
                for i in 1L .. 5L do
                    point "m1" i batch
                    point "m2" (i + 10L) batch)
            elsewhere
        ]

        equal true elsewhere.Prices[0].Inserted

        let ofM1 = {
            Query.everything with
                Exchange = ValueSome exchange
                Market = ValueSome(marketId "m1")
                Token = ValueSome(tokenId "m1-yes")
        }

        let times query =
            result (store.Prices query)
            |> List.map (fun row -> row.At.Micros - (at 0L).Micros)

        equal 11 (times Query.everything).Length
        equal [ 1L .. 5L ] (times ofM1)
        equal [ 4L; 5L ] (times { ofM1 with Limit = 2; Latest = true })
        equal [ 1L; 2L ] (times { ofM1 with Limit = 2 })

        equal
            [ 2L; 3L ]
            (times {
                ofM1 with
                    Since = at 2L
                    Until = at 4L
            })

        equal
            [ 14L; 15L ]
            (times {
                Query.everything with
                    Limit = 2
                    Latest = true
            })

        equal
            [ 3L; 3L ]
            (times {
                Query.everything with
                    Since = at 3L
                    Until = at 4L
            })

        equal
            []
            (times {
                ofM1 with
                    Market = ValueSome(marketId "m2")
            })

    [<Test>]
    member _.``changes of a book come back as they were, in the order in which they are applied``() =
        let written =
            batch [
                deltaOf "m1" Side.Sell "0.52" "0" 1 (hash 1) 20L
                deltaOf "m1" Side.Buy "0.48" "30.25" 0 "" 20L
                deltaOf "m1" Side.Buy "-0.000001" "0.000001" Int32.MaxValue "NOT-HEX" 10L
                deltaOf "m1" Side.Buy "1" "9223372036854.775807" 2 (String('A', 40)) 20L
                deltaOf "m2" Side.Buy "0.5" "1" 0 (hash 2) 20L
            ]

        for i, verdict, doubt in [ 0, Verdict.Verified, Doubt.None; 1, Verdict.Mismatched, Doubt.BestPrice ] do
            let row = &written.Deltas[i]

            row <- {
                row with
                    Verdict = verdict
                    Doubt = doubt
                    Sequence = if i = 0 then Int32.MaxValue else 0
                    Received = at (int64 i)
            }

        write store [ written ]

        equal
            [
                for i in [ 2; 1; 0; 3; 4 ] ->
                    let delta = written.Delta i

                    {
                        delta with
                            OrderBookDelta.Size = stored delta.Size
                    }
            ]
            (deltas store)

    [<Test>]
    member _.``changes that differ in market, time, ordinal, side or price are other changes``() =
        let others = [
            delta "m1" 0 10L
            delta "m2" 0 10L
            delta "m1" 0 11L
            delta "m1" 1 10L
            deltaOf "m1" Side.Sell "0.48" "12.5" 0 (hash 0) 10L
            deltaOf "m1" Side.Buy "0.47" "12.5" 0 (hash 0) 10L
        ]

        let written = batch others
        write store [ written ]
        equal others.Length (deltas store).Length

        for i in 0 .. others.Length - 1 do
            equal true written.Deltas[i].Inserted

        // What another delivery says otherwise makes no other change.
        let again = batch [ deltaOf "m1" Side.Buy "0.48" "99" 0 (hash 9) 10L ]
        write store [ again ]
        equal false again.Deltas[0].Inserted
        equal others.Length (deltas store).Length

    [<Test>]
    member _.``every doubt and every reason comes back``() =
        let written =
            batch [
                for i in 0 .. Doubt.all.Length - 1 do
                    book "m1" i (int64 i)
                    delta "m1" 0 (int64 i)
            ]

        for i in 0 .. Doubt.all.Length - 1 do
            let doubt = fst Doubt.all[i]
            let row = &written.Books[i]

            row <- {
                row with
                    Doubt = doubt
                    Reason = fst Reason.all[i % Reason.all.Length]
                    Verdict = LanguagePrimitives.EnumOfValue(byte (i % 3))
            }

            let row = &written.Deltas[i]

            row <- {
                row with
                    Doubt = doubt
                    Verdict = LanguagePrimitives.EnumOfValue(byte (i % 3))
            }

        write store [ written ]
        equal [ for i in 0 .. written.Books.Count - 1 -> written.Book i ] (books store)
        equal [ for i in 0 .. written.Deltas.Count - 1 -> written.Delta i ] (deltas store)

    [<Test>]
    member _.``rows of one batch were received when each of them was``() =
        let written =
            batch [
                for i in 1..3 do
                    fun batch ->
                        batch.Received <- at (int64 i * 1_000L)
                        fill "m1" i (int64 i) batch
                        book "m1" i (int64 i) batch
                        delta "m1" i (int64 i) batch
            ]

        write store [ written ]
        let expected = [ at 1_000L; at 2_000L; at 3_000L ]
        equal expected (trades store |> List.map _.Received)
        equal expected (books store |> List.map _.Received)
        equal expected (deltas store |> List.map _.Received)

    [<Test>]
    member _.``links are there once, whoever sends them again``() =
        write store [ batch [ link 1 2; link 1 3; link 1 2 ] ]
        write store [ batch [ link 1 2 ]; batch [ link 4 1 ] ]

        equal
            [ idOf 1, idOf 2, at 1L; idOf 1, idOf 3, at 1L; idOf 4, idOf 1, at 4L ]
            (links store |> List.map (fun link -> link.Trade, link.Other, link.At))

    [<Test>]
    member _.``the latest rows are answered oldest first``() =
        write store [
            batch [
                for number in 1..5 do
                    fill "m1" number (int64 number)
                    fill "m2" number (int64 (number + 10))
                    book "m1" number (int64 number)
                    book "m2" number (int64 (number + 10))
                    delta "m1" number 3L
                    delta "m2" number 4L
            ]
        ]

        let latest count = {
            Query.everything with
                Limit = count
                Latest = true
        }

        let ofM1 count = {
            latest count with
                Market = ValueSome(marketId "m1")
                Token = ValueSome(tokenId "m1-yes")
        }

        let before moment (query: Query) = { query with Until = at moment }

        let tradesOf query =
            result (store.Trades query) |> List.map _.At

        let booksOf query =
            result (store.Books query) |> List.map _.At

        let deltasOf query =
            result (store.Deltas query)
            |> List.map (fun row -> string row.Market, row.Ordinal)

        equal [ at 14L; at 15L ] (tradesOf (latest 2))
        equal [ at 4L; at 5L ] (tradesOf (ofM1 2))
        equal [ at 2L; at 3L ] (tradesOf (ofM1 2 |> before 4L))
        equal [ at 13L; at 14L; at 15L ] (booksOf (latest 3))
        // The book that a moment is rebuilt from.
        equal [ at 3L ] (booksOf (ofM1 1 |> before 4L))
        equal [] (booksOf (ofM1 1 |> before 1L))
        equal [ "m2", 4; "m2", 5 ] (deltasOf (latest 2))
        equal [ "m1", 3; "m1", 4; "m1", 5 ] (deltasOf (ofM1 3))
        equal [ "m1", 5; "m2", 1 ] (deltasOf (latest 6) |> List.truncate 2)

        equal [ "m1", 1; "m1", 2 ] (deltasOf { ofM1 2 with Latest = false })
        // No more than there are.
        equal 5 (tradesOf (ofM1 9)).Length
        equal 10 (deltasOf (latest Int32.MaxValue)).Length
        equal [] (booksOf (latest 0))

    [<Test>]
    member _.``live books have gaps and checkpoints of their own``() =
        let depth = { gap with Stream = Stream.Depth }

        let followed = {
            checkpoint with
                Job = "polymarket/depth/m1/m1-yes"
                Stream = Stream.Depth
                Token = ValueSome(tokenId "m1-yes")
        }

        write store [ batch [ hole gap; hole depth; reached followed ] ]
        equal (Set.ofList [ gap; depth ]) (gaps store |> List.map _.Gap |> Set.ofList)
        equal [ followed ] (result (store.Checkpoints()))

        equal
            (Set.ofList [ Stream.Books; Stream.Depth ])
            (result (store.OpenGaps()) |> List.map _.Stream |> Set.ofList)

    [<Test>]
    member _.``two readings of identical fills merge by the larger count``() =
        let reading count =
            batch [ for _ in 1..count -> fill "m1" 1 10L ]

        write store [ reading 2 ]
        equal 2 (trades store).Length
        write store [ reading 3; reading 1 ]
        equal 3 (trades store).Length
        equal 3 (trades store |> List.distinctBy _.Id).Length

    [<Test>]
    member _.``the same fill seen in two sources is two sightings``() =
        let seen = batch [ fill "m1" 1 10L; fill "m1" 1 10L ]
        let row = &seen.Trades[1]

        row <- {
            row with
                Source = Source.Stream
                Id = seen.Trades[0].Id
        }

        write store [ seen ]
        equal [ Source.Api; Source.Stream ] (trades store |> List.map _.Source)

    [<Test>]
    member _.``a gap is open until it is closed, and then healed, once``() =
        let closed = { gap with Until = ValueSome(at 300L) }

        let healed = {
            closed with
                Healed = ValueSome(struct (at 900L, "backfill"))
        }

        write store [ batch [ hole gap ] ]
        equal [ gap ] (result (store.OpenGaps()))
        write store [ batch [ hole closed ]; batch [ hole gap ] ]
        equal [] (result (store.OpenGaps()))
        equal [ { Collector = "main"; Gap = closed } ] (gaps store)

        write store [
            batch [ hole healed ]
            batch [ hole closed ]
            batch [
                hole {
                    gap with
                        Until = ValueSome(at 999L)
                        Healed = ValueSome(struct (at 999L, "other"))
                }
            ]
        ]

        equal [ { Collector = "main"; Gap = healed } ] (gaps store)

    [<Test>]
    member _.``what was dropped grows with every drop``() =
        let dropped until = {
            gap with
                Cause = Cause.Overrun
                Until = ValueSome(at until)
        }

        let healed = {
            dropped 300L with
                Healed = ValueSome(struct (at 900L, "backfill"))
        }

        write store [ batch [ hole (dropped 300L) ]; batch [ hole healed ] ]
        write store [ batch [ hole (dropped 200L) ] ]
        equal [ healed ] (gaps store |> List.map _.Gap)
        write store [ batch [ hole (dropped 500L) ] ]
        equal [ dropped 500L ] (gaps store |> List.map _.Gap)

    [<Test>]
    member _.``gaps of another token, stream, cause or beginning are other gaps``() =
        let others = [
            gap
            { gap with Token = ValueNone }
            { gap with Stream = Stream.Trades }
            { gap with Cause = Cause.Starved }
            { gap with Since = at 101L }
            { gap with Market = marketId "m2" }
        ]

        write store [ batch (others |> List.map hole) ]
        equal (Set.ofList others) (gaps store |> List.map _.Gap |> Set.ofList)

    [<Test>]
    member _.``gaps are found by any moment that they touch``() =
        let closed = { gap with Until = ValueSome(at 300L) }

        let unended = {
            gap with
                Market = marketId "m2"
                Token = ValueNone
        }

        write store [ batch [ hole closed; hole unended ] ]

        let during since until =
            result (
                store.Gaps {
                    Query.everything with
                        Since = at since
                        Until = at until
                }
            )
            |> List.map (fun found -> string found.Gap.Market)
            |> List.sort

        equal [] (during 0L 100L)
        equal [ "m1"; "m2" ] (during 0L 101L)
        equal [ "m1"; "m2" ] (during 299L 900L)
        equal [ "m2" ] (during 300L 900L)

        let ofToken market =
            result (
                store.Gaps {
                    Query.everything with
                        Market = market
                        Token = ValueSome(tokenId "m2-yes")
                }
            )

        equal [] (ofToken ValueNone)
        // A gap of a whole market is one of each of its tokens.
        equal [ unended ] (ofToken (ValueSome(marketId "m2")) |> List.map _.Gap)

    [<Test>]
    member _.``a checkpoint is the last one of its job``() =
        let next = {
            checkpoint with
                Watermark = at 900L
                Rows = 2
                Error = "it broke"
        }

        let books = {
            checkpoint with
                Job = "polymarket/books/m1/m1-yes"
                Stream = Stream.Books
                Token = ValueSome(tokenId "m1-yes")
        }

        write store [ batch [ reached checkpoint ]; batch [ reached books; reached next ] ]
        equal [ books; next ] (result (store.Checkpoints()))

    [<Test>]
    member _.``a watermark never goes back``() =
        let earlier = {
            checkpoint with
                Watermark = checkpoint.Watermark - TimeSpan.FromSeconds 9.0
                Error = "late"
        }

        write store [ batch [ reached checkpoint ]; batch [ reached earlier ] ]

        equal
            [
                {
                    earlier with
                        Watermark = checkpoint.Watermark
                }
            ]
            (result (store.Checkpoints()))

    [<Test>]
    member _.``the state of a job is the one that was written last, whole, whatever its watermark``() =
        let after state watermark = {
            checkpoint with
                State = state
                Watermark = at watermark
        }

        let stored () =
            result (store.Checkpoints()) |> List.map (fun one -> one.State, one.Watermark)

        let long = String('x', 100_000) + "'\"größe\" 😀"
        write store [ batch [ reached (after long 500L) ] ]
        equal [ long, at 500L ] (stored ())
        write store [ batch [ reached (after "{\"page\":2}" 400L) ] ]
        equal [ "{\"page\":2}", at 500L ] (stored ())
        // What differs in its state alone is another one.
        write store [ batch [ reached (after "{\"page\":3}" 400L) ] ]
        equal [ "{\"page\":3}", at 500L ] (stored ())
        write store [ batch [ reached (after "" 600L) ] ]
        equal [ "", at 600L ] (stored ())

    [<Test>]
    member _.``a tally is of an exchange, a market, a day, a source and a side of the fill``() =
        let day = 86_400_000_000L

        let written =
            batch [
                fill "m1" 1 0L
                fill "m1" 2 (day - 1L)
                fill "m1" 3 -1L
                fill "m1" 4 day
                fill "m1" 5 5L
                toldBy Source.Stream Flags.None
                fill "m1" 6 5L
                toldBy Source.Chain (Flags.Rounded ||| Flags.OffGrid)
                fillOf "m1" "m1-no" "No" "0.000003" 7 6L
                toldBy Source.Chain (Flags.Maker ||| Flags.Rounded)
                fillOf "m2" "m2-yes" "Yes" "1" 8 5L
            ]

        let id index = written.Trades[index].Id

        write store [
            written
            batch [ linkOf (id 0) (id 4) 0L; linkOf (id 0) (id 5) 0L; link 1 2 ]
        ]

        let tally market first (source, isMaker) rows millions linked ids = {
            Exchange = exchange
            Market = marketId market
            Day = at first
            Source = source
            IsMaker = isMaker
            Rows = rows
            Size = UInt128.op_Implicit (uint64 rows * 10_500_000UL)
            Notional = Int128.op_Implicit (millions: int64)
            Linked = linked
            Digest =
                ids
                |> List.fold (fun sum index -> sum + UInt128((id index).High, (id index).Low)) UInt128.Zero
        }

        // 0.55 times 10.5, in millionths of millionths.
        let one = 550_000L * 10_500_000L

        let api, stream, chain =
            (Source.Api, false), (Source.Stream, false), (Source.Chain, false)

        let expected = [
            tally "m1" -day api 1L one 0L [ 2 ]
            tally "m1" 0L api 2L (2L * one) 1L [ 0; 1 ]
            tally "m1" 0L stream 1L one 1L [ 4 ]
            tally "m1" 0L chain 1L one 1L [ 5 ]
            tally "m1" 0L (Source.Chain, true) 1L (3L * 10_500_000L) 0L [ 6 ]
            tally "m1" day api 1L one 0L [ 3 ]
            tally "m2" 0L api 1L (1_000_000L * 10_500_000L) 0L [ 7 ]
        ]

        equal expected (tallies store)

        let queried query = result (store.Tally query)

        let ofM1 = {
            Query.everything with
                Market = ValueSome(marketId "m1")
        }

        equal (List.take 6 expected) (queried ofM1)
        equal (List.take 6 expected) (queried { ofM1 with Limit = 1; Latest = true })
        equal expected[0..0] (queried { ofM1 with Until = at 0L })
        equal expected[5..5] (queried { Query.everything with Since = at day })

        equal
            [ expected[4] ]
            (queried {
                Query.everything with
                    Token = ValueSome(tokenId "m1-no")
            })

        equal
            []
            (queried {
                ofM1 with
                    Exchange = ValueSome(sound (ExchangeId.Parse "kalshi"))
            })

        equal
            []
            (queried {
                ofM1 with
                    Since = at 1L
                    Until = at 2L
            })

    [<Test>]
    member _.``tallies are the sums of the rows that are read, whoever holds them, and in whatever order they came``
        ()
        =
        let random = Random 17

        let rows = [
            for number in 1..300 do
                let market = $"m{random.Next 4}"
                let text = $"0.%06d{random.Next 1_000_000}"
                let time = int64 (random.Next 4) * 43_200_000_000L + int64 (random.Next 3)
                let source: Source = LanguagePrimitives.EnumOfValue(byte (random.Next 3))
                let flags = if random.Next 3 = 0 then Flags.Maker else Flags.None
                let millionths = random.NextInt64 4_000_000_000_000_000L

                fun batch ->
                    fillOf market $"{market}-yes" "Yes" text number time batch
                    let row = &batch.Trades[batch.Trades.Count - 1]

                    row <- {
                        row with
                            Size = Size.tryOfMillionths millionths |> ValueOption.get
                    }

                    toldBy source flags batch
        ]

        let ids =
            let all = batch rows
            [ for i in 0 .. all.Trades.Count - 1 -> all.Trades[i].Id ]

        let pairs = [ for i in 0..2..80 -> linkOf ids[i] ids[(7 * i + 1) % 300] (int64 i) ]

        for part in List.chunkBySize 70 rows do
            write store [ batch part ]

        write store [ batch pairs ]
        // The second time changes nothing.
        write store [ batch (List.rev rows); batch pairs ]
        let counted = tallies store

        let other = Memory.create "other"
        write other [ batch (List.rev rows @ pairs) ]
        equal (tallies other) counted

        let named =
            links store
            |> List.collect (fun link -> [ link.Trade; link.Other ])
            |> Set.ofList

        let big (number: int64) = Numerics.BigInteger number

        let number (id: TradeId) =
            (Numerics.BigInteger id.High <<< 64) + Numerics.BigInteger id.Low

        let expected =
            trades store
            |> List.groupBy (fun row ->
                row.Market, row.At.Micros / 86_400_000_000L, row.Source, row.Flags.HasFlag Flags.Maker)
            |> List.map (fun (key, rows) ->
                key,
                (int64 rows.Length,
                 rows |> List.sumBy (fun row -> big row.Size.Millionths),
                 rows
                 |> List.sumBy (fun row -> big row.Size.Millionths * big row.Price.Millionths),
                 rows |> List.filter (fun row -> named.Contains row.Id) |> List.length |> int64,
                 (rows |> List.sumBy (fun row -> number row.Id)) % (Numerics.BigInteger.One <<< 128)))
            |> Map.ofList

        equal expected.Count counted.Length

        for one in counted do
            equal
                expected[one.Market, one.Day.Micros / 86_400_000_000L, one.Source, one.IsMaker]
                (one.Rows,
                 Numerics.BigInteger.op_Implicit one.Size,
                 Numerics.BigInteger.op_Implicit one.Notional,
                 one.Linked,
                 Numerics.BigInteger.op_Implicit one.Digest)

    [<Test>]
    member _.``an unchanged market is not stored again, but its numbers are``() =
        let later = {
            market with
                Volume = ValueSome(size "2000")
                Updated = ValueSome(at 2_000L)
                Received = at 4_000_000L
                Raw = "{}"
        }

        write store [ batch [ described market; described later ] ]

        equal
            [
                {
                    market with
                        Volume = ValueSome(size "2000")
                }
            ]
            (markets store)

    [<Test>]
    member _.``the newest version of a market counts, whatever came last, also when it is one that was there before``
        ()
        =
        let version micros accepts = {
            market with
                AcceptsOrders = accepts
                Updated = ValueSome(at micros)
                Volume = ValueNone
        }

        let latest () = (markets store).Head.AcceptsOrders
        write store [ batch [ described (version 1L true); described (version 3L false) ] ]
        equal false (latest ())
        write store [ batch [ described (version 2L true) ] ]
        equal false (latest ())
        write store [ batch [ described (version 4L true) ] ]
        equal true (latest ())

    [<Test>]
    member _.``what cannot be read is kept once, by its content``() =
        write store [
            batch [
                rejected "no side" "{\"a\":1}" "/page/1"
                rejected "no side" "{\"a\":1}" "/page/2"
            ]
            batch [ rejected "no price" "{\"a\":1}" "/page/1"; rejected "no side" "" "/page/1" ]
        ]

        let kept = result (store.Quarantine())

        equal
            (Set.ofList [ "no side", "{\"a\":1}"; "no price", "{\"a\":1}"; "no side", "" ])
            (kept
             |> List.map (fun row -> row.Reason, Text.Encoding.UTF8.GetString row.Bytes)
             |> Set.ofList)

        equal 3 kept.Length
        equal 3L (result (store.Status())).Quarantined

    [<Test>]
    member _.``queries restrict by exchange, market, token, time and number``() =
        write store [
            batch [
                for number in 1..5 do
                    fill "m1" number (int64 number)
                    fill "m2" number (int64 number)
                    book "m1" number (int64 number)

                fillOf "m1" "m1-no" "No" "0.45" 9 9L
            ]
        ]

        let times query =
            result (store.Trades query)
            |> List.map (fun row -> row.At.Micros - (at 0L).Micros)

        let ofM1 = {
            Query.everything with
                Market = ValueSome(marketId "m1")
        }

        equal 11 (times Query.everything).Length
        equal [ 1L; 2L; 3L; 4L; 5L; 9L ] (times ofM1)

        equal
            [ 2L; 3L ]
            (times {
                ofM1 with
                    Since = at 2L
                    Until = at 4L
            })

        equal [ 1L; 1L; 2L ] (times { Query.everything with Limit = 3 })

        equal
            [ 9L ]
            (times {
                Query.everything with
                    Token = ValueSome(tokenId "m1-no")
            })

        equal
            []
            (times {
                Query.everything with
                    Exchange = ValueSome(sound (ExchangeId.Parse "kalshi"))
            })

        let found =
            result (
                store.Books {
                    ofM1 with
                        Since = at 4L
                        Token = ValueSome(tokenId "m1-yes")
                }
            )

        equal [ hash 4; hash 5 ] (found |> List.map _.Hash)

        equal
            []
            (result (
                store.Books {
                    ofM1 with
                        Market = ValueSome(marketId "m2")
                }
            ))

    [<Test>]
    member _.``the same names on two exchanges are two markets``() =
        let names = Names()

        let onExchange name =
            batchOf names (fun batch ->
                batch.Exchange <- name
                fill "m1" 1 10L batch
                book "m1" 1 10L batch)

        write store [ onExchange "polymarket"; onExchange "kalshi" ]

        equal
            [ "kalshi"; "polymarket" ]
            (trades store |> List.map (fun row -> string row.Exchange) |> List.sort)

        equal 2 (books store).Length
        equal 2 (result (store.Status())).Markets.Length

    [<Test>]
    member _.``status says what there is of each market``() =
        write store [
            batch [
                described market
                fill "m1" 1 10L
                fill "m1" 2 30L
                book "m1" 1 20L
                delta "m1" 0 25L
                delta "m1" 1 25L
                reached checkpoint
            ]
            batch [
                delta "m1" 0 4L
                delta "m1" 0 25L
                hole gap
                hole {
                    gap with
                        Since = at 1L
                        Until = ValueSome(at 2L)
                }
                fill "m2" 1 5L
            ]
            batch [
                fill "m1" 1 10L
                measured "rows" 1.0 5L
                measured "rows" 7.5 9L
                measured "rows" 3.0 6L
            ]
        ]

        let status = result (store.Status())

        equal
            [
                {
                    Exchange = exchange
                    Market = marketId "m1"
                    Slug = "will-it-rain"
                    Question = market.Question
                    Status = "open"
                    Trades = 2L
                    FirstTrade = ValueSome(at 10L)
                    LastTrade = ValueSome(at 30L)
                    Books = 1L
                    FirstBook = ValueSome(at 20L)
                    LastBook = ValueSome(at 20L)
                    Deltas = 3L
                    FirstDelta = ValueSome(at 4L)
                    LastDelta = ValueSome(at 25L)
                    Gaps = 2L
                    OpenGaps = 1L
                    Checkpoints = [ checkpoint ]
                }
                {
                    Exchange = exchange
                    Market = marketId "m2"
                    Slug = ""
                    Question = ""
                    Status = ""
                    Trades = 1L
                    FirstTrade = ValueSome(at 5L)
                    LastTrade = ValueSome(at 5L)
                    Books = 0L
                    FirstBook = ValueNone
                    LastBook = ValueNone
                    Deltas = 0L
                    FirstDelta = ValueNone
                    LastDelta = ValueNone
                    Gaps = 0L
                    OpenGaps = 0L
                    Checkpoints = []
                }
            ]
            status.Markets

        equal [ "rows", 7.5 ] (status.Metrics |> List.map (fun metric -> metric.Name, metric.Value))
        equal 0L status.Quarantined

    [<Test>]
    member _.``an empty store has nothing, and nothing to write is written``() =
        write store []
        write store [ batch [] ]
        equal ([], [], ([], [], []), [], [], [], []) (everything store)
        equal [] (result (store.Status())).Markets

    [<Test>]
    member _.``a write that is cancelled before it begins leaves nothing``() =
        let cancelled = CancellationToken true
        let writing = store.Write [| batch [ fill "m1" 1 10L ] |] cancelled
        Assert.That(writing.IsCanceled)
        equal [] (trades store)

    [<Test>]
    member _.``what is closed and opened again has all that it had, and memory has nothing``() =
        write store [
            batch [
                described market
                fill "m1" 1 10L
                book "m1" 1 10L
                delta "m1" 1 10L
                point "m1" 10L
                link 1 2
                hole gap
                reached {
                    checkpoint with
                        State = "{\"cursor\":\"größe\"}"
                }
            ]
            batch [ rejected "no side" "{}" "/a"; measured "rows" 1.0 5L ]
        ]

        let before, status = everything store, result (store.Status())
        let counted = tallies store
        close store
        store <- openStore ()

        if kind = "memory" then
            equal ([], [], ([], [], []), [], [], [], []) (everything store)
        else
            equal before (everything store)
            equal counted (tallies store)
            equal status.Markets (result (store.Status())).Markets
            equal [ gap ] (result (store.OpenGaps()))
            let again = batch [ fill "m1" 1 10L; delta "m1" 1 10L; point "m1" 10L ]
            write store [ again ]
            equal false again.Trades[0].Inserted
            equal false again.Deltas[0].Inserted
            equal false again.Prices[0].Inserted
