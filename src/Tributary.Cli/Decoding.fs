/// `tributary decode`: what recordings hold, and what of it can be read.
module Tributary.Cli.Decoding

open System
open System.IO
open System.Text.Json
open System.Threading.Tasks
open Argu
open Tributary
open Tributary.Cli.Arguments
open Tributary.Cli.Terminal

let private levels (levels: Level[]) = [|
    for level in levels -> [| string level.Price; string level.Size |]
|]

let private flags (flags: Flags) = [|
    for flag in Enum.GetValues<Flags>() do
        if flag <> Flags.None && flags &&& flag = flag then
            JsonNamingPolicy.SnakeCaseLower.ConvertName(string flag)
|]

/// One event as one line of JSON: names in full, numbers as decimal texts, times as ISO texts.
let line event =
    match event with
    | MarketEvent.Trade trade ->
        JsonSerializer.Serialize {|
            event = "trade"
            exchange = string trade.Exchange
            at = Instant.text trade.At
            market = string trade.Market
            token = string trade.Token
            outcome = trade.Outcome
            side = Side.text trade.Side
            price = string trade.Price
            size = string trade.Size
            value = trade.Value
            trade_id = string trade.Id
            transaction = trade.Transaction
            source = Source.text trade.Source
            flags = flags trade.Flags
        |}
    | MarketEvent.Book book ->
        JsonSerializer.Serialize {|
            event = "order_book"
            exchange = string book.Exchange
            at = Instant.text book.At
            market = string book.Market
            token = string book.Token
            bids = levels book.Bids
            asks = levels book.Asks
            best_bid = book.BestBid |> ValueOption.map (fun level -> string level.Price)
            best_ask = book.BestAsk |> ValueOption.map (fun level -> string level.Price)
            mid = book.Mid
            spread = book.Spread |> ValueOption.map Fixed.text
            spread_bps = book.SpreadBps
            hash = book.Hash
            sequence = book.Sequence
            verdict = Verdict.text book.Verdict
            doubt = Doubt.text book.Doubt
            reason = Reason.text book.Reason
            flags = flags book.Flags
        |}
    | MarketEvent.Delta delta ->
        JsonSerializer.Serialize {|
            event = "order_book_delta"
            exchange = string delta.Exchange
            at = Instant.text delta.At
            market = string delta.Market
            token = string delta.Token
            ordinal = delta.Ordinal
            side = Side.text delta.Side
            price = string delta.Price
            size = string delta.Size
            hash = delta.Hash
            sequence = delta.Sequence
            verdict = Verdict.text delta.Verdict
            doubt = Doubt.text delta.Doubt
        |}
    | MarketEvent.Market market ->
        JsonSerializer.Serialize {|
            event = "market"
            exchange = string market.Exchange
            market = string market.Market
            market_event = market.Event
            slug = market.Slug
            question = market.Question
            status = string market.Status
            outcomes = [|
                for outcome in market.Outcomes ->
                    {|
                        name = outcome.Name
                        token = outcome.Token |> ValueOption.map string
                    |}
            |]
            tick_size = market.TickSize |> ValueOption.map string
            minimum_size = market.MinimumSize |> ValueOption.map string
            neg_risk = market.NegRisk
            start = market.Start |> ValueOption.map Instant.text
            ``end`` = market.End |> ValueOption.map Instant.text
            closed_at = market.ClosedAt |> ValueOption.map Instant.text
            winner = market.Winner
            volume = market.Volume |> ValueOption.map string
            liquidity = market.Liquidity |> ValueOption.map string
        |}
    | MarketEvent.Gap gap ->
        JsonSerializer.Serialize {|
            event = "gap"
            exchange = string gap.Exchange
            stream = string gap.Stream
            market = string gap.Market
            token = gap.Token |> ValueOption.map string
            since = Instant.text gap.Since
            until = gap.Until |> ValueOption.map Instant.text
            cause = string gap.Cause
        |}

let private verdicts (finding: Finding) =
    if finding.Verified + finding.Mismatched + finding.Unverifiable = 0L then
        ""
    else
        $"{finding.Verified} verified, {finding.Mismatched} mismatched, {finding.Unverifiable} unverifiable"

let private summarise (report: RecordingReport) =
    let ofClass wanted =
        report.Findings |> List.filter (fun finding -> finding.Class = wanted)

    let values findings =
        findings |> List.sumBy (fun finding -> finding.Count)

    [
        for finding in report.Findings do
            [
                string finding.Class
                finding.File
                finding.Kind
                string finding.Count
                (if finding.Rows = 0L then "" else string finding.Rows)
                verdicts finding
            ]
    ]
    |> List.sortBy (fun row -> row[0] = "failed", row[0] = "recognised")
    |> table [ "class"; "file"; "kind"; "values"; "rows"; "books by hash" ]

    let failed = ofClass RecordingClass.Failed

    for finding in failed do
        for reason in finding.Reasons do
            Console.WriteLine $"{reason.Place}: {reason.Text}"

    let decoded, recognised =
        ofClass RecordingClass.Decoded, ofClass RecordingClass.Recognised

    Console.WriteLine
        $"{report.Files} files: {values decoded} values decoded to {decoded |> List.sumBy _.Rows} rows, {values recognised} recognised and not collected, {values failed} failed"

let decode (arguments: ParseResults<DecodeArguments>) =
    let paths = arguments.GetResult DecodeArguments.Paths

    match
        paths
        |> List.filter (fun path -> not (File.Exists path || Directory.Exists path))
    with
    | [] -> ()
    | missing ->
        let names = String.concat ", " missing
        refuse Exit.Usage $"there is no file or folder {names}"

    let report =
        if arguments.Contains DecodeArguments.Json then
            use out = new StreamWriter(Console.OpenStandardOutput(), bufferSize = 65_536)
            let report = Recordings.read paths (fun event -> out.WriteLine(line event))
            out.Flush()
            let before = Console.Out
            // The events have standard output for themselves.
            Console.SetOut Console.Error

            try
                summarise report
            finally
                Console.SetOut before

            report
        else
            let report = Recordings.read paths ignore
            summarise report
            report

    let hasFailed =
        report.Findings
        |> List.exists (fun finding -> finding.Class = RecordingClass.Failed)

    Task.FromResult(
        if hasFailed || report.Files = 0 then
            Exit.Failed
        else
            Exit.Done
    )
