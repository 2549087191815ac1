module Tributary.Tests.AuditTests

open System
open NUnit.Framework
open FsCheck.NUnit
open Tributary

let private aDay = TimeSpan.FromDays 1.0
let private first = Instant.ofSeconds (20_000L * 86_400L)
let private day n = first + aDay * float n
let private now = day 2
let private id = market "0xm"

let private limits = [
    {
        Source = "v2"
        Horizon = ValueSome(TimeSpan.FromDays 1095.0)
        Omits = "dust below 0.01"
    }
    {
        Source = "v1"
        Horizon = ValueNone
        Omits = ""
    }
    {
        Source = "chain"
        Horizon = ValueNone
        Omits = ""
    }
]

let private described: Market = {
    Exchange = good (ExchangeId.Parse "polymarket")
    Market = id
    Event = ""
    Slug = "m"
    Question = ""
    Outcomes = [||]
    Status = MarketStatus.Open
    AcceptsOrders = true
    TickSize = ValueNone
    MinimumSize = ValueNone
    NegRisk = false
    Start = ValueSome first
    End = ValueNone
    ClosedAt = ValueNone
    Winner = ""
    Volume = ValueNone
    Liquidity = ValueNone
    OpenInterest = ValueNone
    Tags = [||]
    Updated = ValueNone
    Received = now
    Raw = ""
}

let private read source intervals : Coverage = {
    Market = id
    Source = source
    Read = Intervals.ofSeq intervals
    Unknown = 0L
}

let private from since until : Interval = { Since = since; Until = until }
let private always: Interval = from (Instant.ofMicros Int64.MinValue) now

let private gap cause since until : Gap = {
    Exchange = described.Exchange
    Stream = Stream.History
    Market = id
    Token = ValueNone
    Since = since
    Until = ValueSome until
    Cause = cause
    Healed = ValueNone
}

let private second n = first + TimeSpan.FromSeconds(float n)

let private verdicts coverage gaps tallies =
    (Audit.market limits coverage gaps tallies always now described).Days
    |> List.map (fun one -> string one.Verdict)

let private some = {
    DayTally.none with
        Api = { Fills = 1L; Size = 1m; Value = 1m }
}

let private twoDays = [ from first (day 2) ]

[<Test>]
let ``a day that v1 or the chain was read for is complete, up to what was read`` () =
    for source in [ "v1"; "chain" ] do
        equal [ "complete"; "complete" ] (verdicts [ read source twoDays ] [] Map.empty)

    // The day that is still running is judged up to what was read of it.
    let audited =
        Audit.market
            limits
            [ read "v1" [ from first (day 1 + TimeSpan.FromHours 5.0) ] ]
            []
            Map.empty
            always
            (day 1 + TimeSpan.FromHours 9.0)
            described

    equal (day 1 + TimeSpan.FromHours 5.0) (List.last audited.Days).Judged.Until
    equal DayVerdict.Complete (List.last audited.Days).Verdict

[<Test>]
let ``v2 alone is never complete`` () =
    equal
        [ "degraded: dust below 0.01"; "degraded: dust below 0.01" ]
        (verdicts [ read "v2" twoDays ] [] Map.empty)

[<Test>]
let ``what lies beyond the horizon of v2 is missing, or older than three years beside what is there`` () =
    let old = {
        described with
            Start = ValueSome(now - TimeSpan.FromDays 1097.0)
    }

    let since = now - TimeSpan.FromDays 1094.0

    let audited tallies =
        (Audit.market limits [ read "v2" [ from since now ] ] [] tallies always now old).Days
        |> List.truncate 4
        |> List.map (fun one -> string one.Verdict)

    equal
        [
            "missing: older than 3 years"
            "missing: older than 3 years"
            "missing: older than 3 years"
            "degraded: dust below 0.01"
        ]
        (audited Map.empty)

    equal
        "degraded: older than 3 years"
        (audited (Map.ofList [ Tally.dayOf (now - TimeSpan.FromDays 1097.0), some ])).Head

[<Test>]
let ``a second that v1 did not give whole is truncated, unless the chain was read`` () =
    let holes = [ gap Cause.Truncated (second 500) (second 501) ]

    equal
        [ "degraded: truncated (1 s)"; "complete" ]
        (verdicts [ read "v1" twoDays; read "v2" twoDays ] holes Map.empty)

    equal [ "complete"; "complete" ] (verdicts [ read "v1" twoDays; read "chain" twoDays ] holes Map.empty)

[<Test>]
let ``a block that the endpoint did not give is named, unless v1 was read`` () =
    let holes = [ gap Cause.Refused (second 500) (second 501) ]

    equal
        [ "degraded: blocks that the endpoint does not give (1 s)"; "complete" ]
        (verdicts [ read "chain" twoDays ] holes Map.empty)

    equal [ "complete"; "complete" ] (verdicts [ read "v1" twoDays; read "chain" twoDays ] holes Map.empty)

[<Test>]
let ``rows that cannot be read are named, whatever source was read`` () =
    equal
        [ "degraded: rows that cannot be read (10 s)"; "complete" ]
        (verdicts
            [ read "v1" twoDays; read "chain" twoDays ]
            [ gap Cause.Undecodable (second 500) (second 510) ]
            Map.empty)

[<Test>]
let ``a chain with logs that nobody can read proves nothing`` () =
    let strange = {
        read "chain" twoDays with
            Unknown = 7L
    }

    equal
        [
            "degraded: 7 logs of unknown layout on the chain"
            "degraded: 7 logs of unknown layout on the chain"
        ]
        (verdicts [ strange ] [] Map.empty)

    equal [ "complete"; "complete" ] (verdicts [ strange; read "v1" twoDays ] [] Map.empty)

[<Test>]
let ``what was not read is missing, or named where some of the day was`` () =
    equal "missing: not read" (verdicts [] [] Map.empty).Head
    equal "degraded: not read" (verdicts [] [] (Map.ofList [ first, some ])).Head

    match verdicts [ read "v1" [ from first (second 3_600); from (day 1) (day 2) ] ] [] Map.empty with
    | [ a; b ] ->
        Assert.That(a, Does.StartWith "degraded: not read from ")
        equal "complete" b
    | other -> failwith $"%A{other}"

[<Test>]
let ``days that went by since the last reading are missing`` () =
    let audited =
        Audit.market
            limits
            [ read "v1" twoDays ]
            []
            Map.empty
            (from first (day 5))
            (day 4 + TimeSpan.FromHours 1.0)
            described

    equal
        [
            "complete"
            "complete"
            "missing: not read"
            "missing: not read"
            "missing: not read"
        ]
        (audited.Days |> List.map (fun one -> string one.Verdict))

    isTrue (not (Audit.isComplete [ audited ]))

[<Test>]
let ``while rows are on their way nothing is complete`` () =
    let audited =
        Audit.market limits [ read "v1" [ from first (day 1) ] ] [] Map.empty always now described
        |> Audit.doubting "rows wait"

    equal
        [ "degraded: rows wait"; "missing: not read" ]
        (audited.Days |> List.map (fun one -> string one.Verdict))

[<Test>]
let ``sources that disagree are noted`` () =
    let tally = {
        DayTally.none with
            Api = { Fills = 3L; Size = 3m; Value = 1m }
            Chain = { Fills = 5L; Size = 5m; Value = 2m }
            Unconfirmed = 1L
    }

    let audited =
        Audit.market
            limits
            [ read "v1" twoDays; read "chain" twoDays ]
            []
            (Map.ofList [ first, tally ])
            always
            now
            described

    equal
        [
            "2 fills on the chain that the API does not show"
            "1 fills that only the stream told of"
        ]
        audited.Days.Head.Notes

    equal [] audited.Days[1].Notes

[<Property(MaxTest = 300)>]
let ``a day with a second that no sound source was read for is never complete, and any other is``
    (pieces: (int * int * int) list)
    (holes: (int * int) list)
    =
    // Two days in steps of an hour.
    let hour n =
        first + TimeSpan.FromHours(float (abs n % 48))

    let coverage =
        pieces
        |> List.map (fun (source, a, b) ->
            let name = List.item (abs source % 3) [ "v1"; "v2"; "chain" ]
            read name [ from (min (hour a) (hour b)) (max (hour a) (hour b)) ])

    let gaps =
        holes
        |> List.map (fun (a, b) ->
            gap Cause.Truncated (min (hour a) (hour b)) (max (hour a) (hour b) + TimeSpan.FromSeconds 1.0))

    let audited = Audit.market limits coverage gaps Map.empty always now described

    for one in audited.Days do
        let isWhole at =
            coverage
            |> List.exists (fun piece ->
                piece.Source <> "v2"
                && Intervals.covers (from at (at + TimeSpan.FromSeconds 1.0)) piece.Read
                && (piece.Source = "chain"
                    || gaps |> List.forall (fun gap -> at < gap.Since || at >= gap.Until.Value)))

        let moments = [
            let mutable at = one.Judged.Since

            while at < one.Judged.Until do
                at
                at + TimeSpan.FromMinutes 59.0
                at <- at + TimeSpan.FromHours 1.0
        ]

        let expected =
            moments |> List.filter (fun at -> at < one.Judged.Until) |> List.forall isWhole

        equal expected (one.Verdict = DayVerdict.Complete)

let private tally source isMaker rows linked : Tally = {
    Exchange = described.Exchange
    Market = id
    Day = first
    Source = source
    IsMaker = isMaker
    Rows = rows
    Size = UInt128.op_Implicit (uint64 rows * 2_000_000UL)
    Notional = Int128.op_Implicit (rows * 1_000_000_000_000L)
    Linked = linked
    Digest = UInt128.op_Implicit (uint64 rows)
}

[<Test>]
let ``each source is counted by itself, makers beside takers, and the stream's fills that nobody confirms``
    ()
    =
    let day =
        DayTally.ofTallies [
            tally Source.Api false 2L 1L
            tally Source.Chain false 3L 2L
            tally Source.Chain true 5L 0L
            tally Source.Stream false 7L 6L
        ]

    equal { Fills = 2L; Size = 4m; Value = 2m } day.Api
    equal 3L day.Chain.Fills
    equal 5L day.Makers.Fills
    equal { Fills = 7L; Size = 14m; Value = 7m } day.Stream
    equal 1L day.Unconfirmed
    // The stream's sightings depend on when one listened: they are not in it.
    equal (UInt128.op_Implicit 10UL) day.Digest

[<Test>]
let ``a volume beyond all bounds of a decimal's digits is still counted`` () =
    let large = {
        tally Source.Api false 1L 0L with
            Size = UInt128.op_Implicit UInt64.MaxValue
            Notional = Int128.op_Implicit Int64.MaxValue * Int128.op_Implicit 1_000_000_000_000L
    }

    equal 9_223_372_036_854_775_807m (DayTally.ofTallies [ large ]).Api.Value
