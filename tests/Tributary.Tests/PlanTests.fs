module Tributary.Tests.PlanTests

open System
open System.Collections.Generic
open System.Text
open NUnit.Framework
open FsCheck
open FsCheck.FSharp
open FsCheck.NUnit
open Tributary

// A model of the Data API in this test: fills of one market, served as v1 and v2 serve them, with their quirks.

type private Fill = {
    Second: int64
    /// Fills of the same number are identical in every field.
    Number: int
    /// In millionths.
    Size: int64
}

type private Quirks = {
    /// Rows that v1 gives at most, whatever is asked.
    CapV1: int
    /// The largest offset that v1 honours; beyond it the rows at that offset come again, or a refusal.
    OffsetV1: int
    RepeatsOffsets: bool
    /// Rows of a v2 page.
    PageV2: int
    /// One v2 page in so many is empty, and not the end.
    EmptyV2: int
    /// One v2 request in so many is answered with an empty first page, whose cursor leads to the beginning; 0 for never.
    AstrayV2: int
}

let private now = 1_790_000_000L
let private condition = "0x" + String.replicate 32 "ab"

let private rowV1 (fill: Fill) =
    $"""{{"proxyWallet":"0xaa","side":"BUY","asset":"71","conditionId":"{condition}","size":{decimal fill.Size / 1_000_000m},"price":0.5,"timestamp":{fill.Second},"outcome":"Yes","transactionHash":"0x{fill.Number:x}"}}"""

let private rowV2 (fill: Fill) =
    $"""{{"proxy_wallet":"0xaa","side":"BUY","token_id":"71","condition_id":"{condition}","size":{decimal fill.Size / 1_000_000m},"price":0.5,"timestamp":{fill.Second},"outcome":"Yes","transaction_hash":"0x{fill.Number:x}"}}"""

let private parameters (path: string) =
    path.Substring(path.IndexOf '?' + 1).Split '&'
    |> Array.map (fun pair -> let parts = pair.Split('=', 2) in parts[0], Uri.UnescapeDataString parts[1])
    |> dict

let private threeYears = 3L * 365L * 86_400L

/// The status and body that the model answers with. `fills` are newest first.
let private answer (quirks: Quirks) (fills: Fill[]) (number: int) (request: Request) : int * string =
    let asked = parameters request.Path

    if request.Path.StartsWith "/v2/" then
        let served =
            fills
            |> Array.filter (fun fill -> fill.Size >= 10_000L && fill.Second >= now - threeYears)

        let at, page =
            match asked.TryGetValue "cursor" with
            | true, cursor ->
                let parts = cursor.Split '-'
                int parts[0], int parts[1]
            | _ -> 0, 0

        if quirks.AstrayV2 > 0 && number * 7_919 % 10_007 % quirks.AstrayV2 = 0 then
            200, """{"data":[],"pagination":{"has_more":true,"next_cursor":"0-0"}}"""
        elif page % quirks.EmptyV2 = quirks.EmptyV2 - 1 then
            200, $"""{{"data":[],"pagination":{{"has_more":true,"next_cursor":"{at}-{page + 1}"}}}}"""
        else
            let rows = served |> Array.skip at |> Array.truncate quirks.PageV2
            let next = at + rows.Length

            let pagination =
                if next < served.Length then
                    $"""{{"has_more":true,"next_cursor":"{next}-{page + 1}"}}"""
                else
                    """{"has_more":false,"next_cursor":null}"""

            let data = rows |> Array.map rowV2 |> String.concat ","
            200, $"""{{"data":[{data}],"pagination":{pagination}}}"""
    else
        let first, last = int64 asked["start"], int64 asked["end"]

        let offset =
            match asked.TryGetValue "offset" with
            | true, offset -> int offset
            | _ -> 0

        if offset > quirks.OffsetV1 && not quirks.RepeatsOffsets then
            400, ""
        else
            let rows =
                fills
                |> Array.filter (fun fill -> fill.Second >= first && fill.Second <= last)
                |> Array.skip 0

            let rows =
                rows
                |> Array.skip (min rows.Length (min offset quirks.OffsetV1))
                |> Array.truncate (min (int asked["limit"]) quirks.CapV1)

            200, $"""[{rows |> Array.map rowV1 |> String.concat ","}]"""

// ---- a run over the model: what is stored is a set of ids; a kill forgets all that was not

let private collector =
    Exchanges.Polymarket.collector Exchanges.Registry.defaultOptions

let private market: Market = {
    Exchange = collector.Exchange
    Market = market condition
    Event = ""
    Slug = "some-market"
    Question = ""
    Outcomes = [|
        {
            Name = "Yes"
            Token = ValueSome(token "71")
        }
    |]
    Status = MarketStatus.Open
    AcceptsOrders = true
    TickSize = ValueNone
    MinimumSize = ValueNone
    NegRisk = false
    Start = ValueNone
    End = ValueNone
    ClosedAt = ValueNone
    Winner = ""
    Volume = Size.tryOfMillionths 4_000_000_000L
    Liquidity = ValueNone
    OpenInterest = ValueNone
    Tags = [||]
    Updated = ValueNone
    Received = seconds now
    Raw = ""
}

type private Stored() =
    member val Ids = HashSet<TradeId>()
    member val Checkpoints = Dictionary<string, Checkpoint>()
    member val Gaps = List<Gap>()
    member val Requests = 0 with get, set

    member this.Write(batch: Batch) =
        for i in 0 .. batch.Trades.Count - 1 do
            this.Ids.Add batch.Trades[i].Id |> ignore

        for checkpoint in batch.Checkpoints do
            this.Checkpoints[checkpoint.Job] <- checkpoint

        this.Gaps.AddRange batch.Gaps

let private sources names =
    collector.History |> List.filter (fun source -> List.contains source.Name names)

let private wholePast until : Wanted = {
    Market = market
    Since = seconds 0L
    Until = seconds until
}

let private planned (stored: Stored) names wanted =
    Plan.jobs (sources names) (seconds now) (Plan.readings collector.Exchange stored.Checkpoints.Values) [
        wanted
    ]

/// Reads until nothing is left, or `kill` says so of the count of pages that were written. False when it was killed.
let private read quirks fills (stored: Stored) names wanted (kill: int -> bool) =
    let mutable written, isKilled = 0, false
    let tried = HashSet<string>()
    let mutable jobs = planned stored names wanted

    while not isKilled && not jobs.IsEmpty do
        for job in jobs do
            let mutable progress = Walks.resume (Plan.request job) job.Carry

            while not isKilled && not (Walks.isDone progress) do
                let request = progress.Waiting.Head
                let batch = Batch()
                let before = progress
                stored.Requests <- stored.Requests + 1

                match answer quirks fills stored.Requests request with
                | 200, body ->
                    let decoded =
                        collector.Decode
                            request
                            (ReadOnlyMemory(Encoding.UTF8.GetBytes body))
                            (seconds now)
                            batch

                    match decoded.Fault with
                    | ValueSome fault -> failwith $"{request.Path}: {Fault.explain fault}"
                    | ValueNone -> progress <- Walks.answered decoded batch progress
                | status, _ ->
                    match collector.OnFault request (Fault.Refused(status, "")) with
                    | ValueSome decoded -> progress <- Walks.understood decoded progress
                    | ValueNone -> failwith $"{request.Path}: {status}"

                Plan.commit collector.Exchange job before progress batch

                if kill written then
                    isKilled <- true
                else
                    stored.Write batch
                    written <- written + 1

        jobs <-
            planned stored names wanted
            |> List.filter (fun job -> tried.Add $"{job.Source.Name} {job.Since} {job.Until} {job.Place}")

    not isKilled

let private never _ = false

/// What the ids of these fills are when they are all known.
let private truth (fills: Fill[]) =
    fills
    |> Array.countBy id
    |> Array.collect (fun (fill, count) ->
        Array.init count (fun occurrence ->
            Trades.identify
                {
                    Exchange = string collector.Exchange
                    Source = Source.Api
                    Transaction = $"0x{fill.Number:x}"
                    Token = "71"
                    Wallet = "0xaa"
                    Side = Side.Buy
                    Price = price "0.5"
                    Size = Size.tryOfMillionths(fill.Size).Value
                    At = seconds fill.Second
                }
                occurrence))
    |> set

let private usual = {
    CapV1 = 25
    OffsetV1 = 10_000
    RepeatsOffsets = false
    PageV2 = 7
    EmptyV2 = 5
    AstrayV2 = 0
}

/// Fills newest first: some identical, some dust, some older than three years, some seconds with several.
let private someFills = gen {
    let! count = Gen.choose (0, 250)

    let! fills =
        Gen.listOfLength
            count
            (gen {
                let! age =
                    Gen.frequency [
                        6, Gen.choose (0, 120)
                        3, Gen.choose (0, 100_000)
                        1, Gen.choose (int threeYears - 1_000_000, int threeYears + 50_000_000)
                    ]

                let! number = Gen.choose (1, 4)
                let! size = Gen.elements [ 5_000L; 1_000_000L; 2_500_000L ]

                return {
                    Second = now - 600L - int64 age
                    Number = number
                    Size = size
                }
            })

    return fills |> List.sortByDescending _.Second |> Array.ofList
}

let private fewPerSecond most (fills: Fill[]) =
    fills
    |> Array.groupBy _.Second
    |> Array.collect (fun (_, group) -> Array.truncate most group)

let private isServedByV2 (fill: Fill) =
    fill.Size >= 10_000L && fill.Second >= now - threeYears

[<Property(MaxTest = 200)>]
let ``v1 gives every fill once, whatever its windows cut`` () =
    Prop.forAll (Arb.fromGen someFills) (fun fills ->
        let fills = fewPerSecond 19 fills
        let stored = Stored()
        read usual fills stored [ "v1" ] (wholePast now) never |> isTrue
        equal (truth fills) (set stored.Ids)
        equal 0 stored.Gaps.Count
        // All but the last minutes, in which fills may still appear.
        let read = (Plan.coverage collector.Exchange stored.Checkpoints.Values).Head.Read

        equal
            [
                {
                    Since = seconds 0L
                    Until = seconds now - HistoryState.settled
                }
            ]
            read)

[<Property(MaxTest = 200)>]
let ``v2 gives every fill that it serves once, however its pages cut a second`` () =
    Prop.forAll (Arb.fromGen someFills) (fun fills ->
        let stored = Stored()
        read usual fills stored [ "v2" ] (wholePast now) never |> isTrue
        equal (truth (Array.filter isServedByV2 fills)) (set stored.Ids)
        // It is not called read beyond what it serves.
        let read = (Plan.coverage collector.Exchange stored.Checkpoints.Values).Head.Read
        isTrue (read.Head.Since >= seconds (now - threeYears)))

[<Property(MaxTest = 200)>]
let ``a reading that is killed at any page goes on, asks one page again, and gives the same``
    (kills: NonNegativeInt list)
    =
    Prop.forAll (Arb.fromGen someFills) (fun fills ->
        let fills = fewPerSecond 19 fills
        let whole, broken = Stored(), Stored()
        read usual fills whole [ "v2"; "v1" ] (wholePast now) never |> isTrue
        let mutable killed = 0

        for NonNegativeInt pages in kills do
            if
                not (
                    read usual fills broken [ "v2"; "v1" ] (wholePast now) (fun written ->
                        written = pages % 9)
                )
            then
                killed <- killed + 1

        read usual fills broken [ "v2"; "v1" ] (wholePast now) never |> isTrue
        equal (truth fills) (set broken.Ids)
        equal (set whole.Ids) (set broken.Ids)
        // After each kill one page with rows is asked again, and the empty one before it, if there was one.
        isTrue (broken.Requests <= whole.Requests + 2 * killed))

[<Property(MaxTest = 100)>]
let ``a page that leads back to the beginning is seen through, and nothing is made up`` (every: PositiveInt) =
    Prop.forAll (Arb.fromGen someFills) (fun fills ->
        let stored = Stored()

        let quirks = {
            usual with
                AstrayV2 = 6 + every.Get % 20
        }

        read quirks fills stored [ "v2" ] (wholePast now) never |> isTrue
        equal (truth (Array.filter isServedByV2 fills)) (set stored.Ids))

[<Test>]
let ``what was read is not asked for again, and what came since is`` () =
    let fills = [|
        for age in 0L .. 99L ->
            {
                Second = now - 600L - age * 60L
                Number = 1
                Size = 1_000_000L
            }
    |]

    let stored = Stored()

    read usual fills stored [ "v1"; "v2" ] (wholePast (now - 3_000L)) never
    |> isTrue

    let asked = stored.Requests

    read usual fills stored [ "v1"; "v2" ] (wholePast (now - 3_000L)) never
    |> isTrue

    equal asked stored.Requests
    let job = (planned stored [ "v1" ] (wholePast now)).Head
    equal (seconds (now - 3_000L)) job.Since
    equal (seconds now - HistoryState.settled) job.Until

[<Test>]
let ``a source is read up to its horizon, whose last day is not worth another pass`` () =
    let threeYears = TimeSpan.FromDays 1095.0
    let stored = Stored()
    let job = (planned stored [ "v2" ] (wholePast now)).Head
    equal (seconds now - threeYears) job.Since

    // Three quarters of an hour behind the edge.
    let fill = {
        Second = now - 1095L * 86_400L + 2_700L
        Number = 1
        Size = 1_000_000L
    }

    read usual [| fill |] stored [ "v2" ] (wholePast now) never |> isTrue
    equal 1 stored.Ids.Count
    equal [] (planned stored [ "v2" ] (wholePast now) |> List.map _.Since)

[<TestCase(true)>]
[<TestCase(false)>]
let ``a second that v1 does not give whole is a gap, and no fill is made up`` (repeats: bool) =
    let quirks = {
        usual with
            CapV1 = 20
            OffsetV1 = 30
            RepeatsOffsets = repeats
    }

    let burst = now - 5_000L

    let fills = [|
        for number in 1..10 ->
            {
                Second = burst + 10L
                Number = number
                Size = 1_000_000L
            }
        for number in 1..90 ->
            {
                Second = burst
                Number = number
                Size = 1_000_000L
            }
        for number in 1..10 ->
            {
                Second = burst - 10L
                Number = number
                Size = 1_000_000L
            }
    |]

    let stored = Stored()
    read quirks fills stored [ "v1" ] (wholePast now) never |> isTrue
    let all = truth fills
    Set.isSubset (set stored.Ids) all |> isTrue
    isTrue (stored.Ids.Count >= 40 && stored.Ids.Count < all.Count)

    let gap = Seq.exactlyOne stored.Gaps
    equal (seconds burst) gap.Since
    equal (ValueSome(seconds (burst + 1L))) gap.Until
    equal Cause.Truncated gap.Cause
    equal Stream.History gap.Stream

[<Test>]
let ``a page full of one second that ends with it is whole`` () =
    let fills = [|
        for number in 1..22 ->
            {
                Second = now - 5_000L
                Number = number
                Size = 1_000_000L
            }
    |]

    let stored = Stored()
    read usual fills stored [ "v1" ] (wholePast now) never |> isTrue
    equal (truth fills) (set stored.Ids)
    equal 0 stored.Gaps.Count

[<Test>]
let ``what a checkpoint says is what is read from it`` () =
    let id: TradeId = {
        High = 7UL
        Low = 0xFFFF_FFFF_FFFF_FFFFUL
    }

    let reading: Reading = {
        Read = [
            {
                Since = seconds 1L
                Until = seconds 5L
            }
        ]
        Unknown = 3L
        Walk =
            ValueSome {
                Since = seconds 10L
                Until = seconds 90L
                Read = [
                    {
                        Since = seconds 50L
                        Until = seconds 90L
                    }
                ]
                Place = "cursor 50 a b\"c"
                Markets = [ market.Market ]
                Carry = Trades.carrying [ condition, seconds 50L, [ id, 2 ] ]
            }
    }

    let again = Plan.read (Plan.write reading)
    equal reading.Read again.Read
    equal reading.Unknown again.Unknown
    equal reading.Walk.Value.Place again.Walk.Value.Place
    equal reading.Walk.Value.Markets again.Walk.Value.Markets
    equal (Trades.carried reading.Walk.Value.Carry) (Trades.carried again.Walk.Value.Carry)
    equal (Plan.write reading) (Plan.write again)

[<TestCase "">]
[<TestCase "nonsense">]
[<TestCase "{\"version\":2}">]
[<TestCase "{\"version\":1,\"read\":7}">]
[<TestCase "{\"version\":1,\"read\":[[1]],\"unknown\":0}">]
[<TestCase "[]">]
let ``a state that cannot be read stands for nothing, so all is read again`` (state: string) =
    let again = Plan.read state
    equal [] again.Read
    equal true again.Walk.IsNone

[<Test>]
let ``a plan judges what it takes by the volume of the market and the part of its life`` () =
    let estimate wanted =
        Plan.jobs (sources [ "v2" ]) (seconds now) Map.empty [ wanted ]
        |> List.map (Plan.estimate (seconds now))
        |> List.exactlyOne

    // 4,000 of volume are a hundred fills of 40.
    let all = estimate (wholePast now)
    isTrue (all.Fills >= 99L && all.Fills <= 100L)
    equal 1L all.Requests

    let half =
        estimate {
            wholePast now with
                Since = seconds (now - 45L * 86_400L)
        }

    isTrue (half.Fills >= 49L && half.Fills <= 50L)
