/// Whether everything that an exchange served is in a store, or in a gap: the exchange's own ledger on one side, the store's rows on
/// the other. It trusts nothing that the collector says of itself but its rows.
module Tributary.Cli.Accounting

open System
open System.Collections.Generic
open System.IO
open System.Text.Json
open Tributary
open Tributary.Server.Simulator
open Tributary.Stores

/// A poll that fell due, as the collector's schedule saw it.
type DuePoll = {
    /// `books` or `trades`.
    Stream: string
    Market: string
    /// Empty for trades.
    Token: string
    Due: int64
    At: int64
    /// `stored`, `unchanged`, or the cause of its gap.
    Outcome: string
}

/// What the exchange says happened.
type Truth = {
    /// Its name.
    Exchange: string
    Trades: LedgerTrade[]
    Requests: LedgerRequest[]
    /// Empty when nobody kept them (a process that was killed).
    Polls: DuePoll[]
    /// The cadence of book polls: a longer silence than two and a half of them must lie in a gap.
    BookCadence: TimeSpan
    /// When the collector was told to stop.
    Stopped: DateTimeOffset
}

type Report = {
    Exchange: string
    TradesExpected: int
    TradesStored: int
    /// In the ledger more often than in the store.
    TradesMissing: int
    /// In the store more often than in the ledger.
    TradesSurplus: int
    PollsDue: int
    PollsStored: int
    PollsUnchanged: int
    PollsInGap: int
    /// Due, not answered, and in no gap.
    PollsUnexplained: int
    /// Different books that left the exchange whole.
    BooksDelivered: int
    /// Of these, neither in the store nor within a gap (a collector that is killed has what it was just given in a gap).
    BooksMissing: int
    /// Silences in the exchange's record of a token that no gap covers.
    SilencesUnexplained: int
    BooksVerified: int
    /// The exchange gives something to verify a book by.
    HasHashes: bool
    BooksStored: int
    Gaps: int
    OpenGaps: int
    GapCauses: (string * int) list
    Quarantined: int64
    FaultsInjected: int
    Requests: int
} with

    member this.Unexplained =
        this.TradesMissing
        + this.TradesSurplus
        + this.PollsUnexplained
        + this.BooksMissing
        + this.SilencesUnexplained

let private poll (polled: Polled) : DuePoll = {
    Stream = string polled.Job.Stream
    Market = string polled.Market
    Token =
        match polled.Token with
        | ValueSome token -> string token
        | ValueNone -> ""
    Due = polled.Due.Micros
    At = polled.At.Micros
    Outcome =
        match polled.Outcome with
        | PollOutcome.Stored _ -> "stored"
        | PollOutcome.Unchanged -> "unchanged"
        | PollOutcome.Missed cause -> string cause
}

let polls (polled: Polled seq) = polled |> Seq.map poll |> Array.ofSeq

/// How often each thing is there.
let private counted key items =
    let counts = Dictionary<_, int>(HashIdentity.Structural)

    for item in items do
        let key = key item

        counts[key] <-
            (match counts.TryGetValue key with
             | true, count -> count
             | _ -> 0)
            + 1

    counts

/// By how much the first has more than the second, over all keys.
let private excess (first: Dictionary<'K, int>) (second: Dictionary<'K, int>) =
    first
    |> Seq.sumBy (fun (KeyValue(key, count)) ->
        match second.TryGetValue key with
        | true, other -> max 0 (count - other)
        | _ -> count)

let private micros (moment: DateTimeOffset) =
    (Instant.ofDateTimeOffset moment).Micros

/// Reads the store and compares. Trades are compared as a multiset of everything that both sides keep of them.
let account (truth: Truth) (store: Store) = task {
    let mine = {
        Query.everything with
            Exchange =
                match ExchangeId.Parse truth.Exchange with
                | Ok exchange -> ValueSome exchange
                | Error message -> invalidOp message
    }

    let! trades = store.Trades mine
    let! books = store.Books mine
    let! gaps = store.Gaps mine
    let! status = store.Status()

    let ledgerTrades =
        truth.Trades
        |> counted (fun trade ->
            struct (trade.Token,
                    trade.Side,
                    trade.PriceMillionths,
                    trade.SizeMillionths,
                    trade.Timestamp,
                    trade.Transaction))

    let storedTrades =
        trades
        |> counted (fun trade ->
            struct (string trade.Token,
                    (if trade.Side = Side.Sell then "SELL" else "BUY"),
                    trade.Price.Millionths,
                    trade.Size.Millionths,
                    trade.At.Micros / 1_000_000L,
                    trade.Transaction))

    let gapsOf =
        gaps
        |> List.groupBy (fun recorded ->
            match recorded.Gap.Token with
            | ValueSome token -> "books/" + string token
            | ValueNone -> "trades/" + string recorded.Gap.Market)
        |> Map.ofList

    let isCovered flow from until =
        match Map.tryFind flow gapsOf with
        | None -> false
        | Some gaps ->
            gaps
            |> List.exists (fun { Gap = gap } ->
                gap.Since.Micros <= until
                && (match gap.Until with
                    | ValueSome closed -> closed.Micros >= from
                    | ValueNone -> true))

    let missed =
        truth.Polls
        |> Array.filter (fun poll -> poll.Outcome <> "stored" && poll.Outcome <> "unchanged")

    let unexplained =
        missed
        |> Array.filter (fun poll ->
            let flow =
                if poll.Token <> "" then
                    "books/" + poll.Token
                else
                    "trades/" + poll.Market

            not (isCovered flow poll.Due poll.At))

    let delivered = [|
        for request in truth.Requests do
            for book in request.Books do
                request, book
    |]

    let levels (side: Level[]) =
        side
        |> Array.map (fun level -> struct (level.Price.Millionths, level.Size.Millionths))

    let hasHashes = delivered |> Array.forall (fun (_, book) -> book.Timestamp <> 0L)

    let stored =
        books
        |> List.map (fun book ->
            if hasHashes then
                struct (string book.Token, book.At.Micros / 1000L, book.Hash)
            else
                // The exchange tells neither: what the book says is what there is to compare.
                struct (string book.Token, 0L, LedgerBook.digest (levels book.Bids) (levels book.Asks)))
        |> HashSet

    let different =
        delivered
        |> Array.map (fun (_, book) -> struct (book.Token, book.Timestamp, book.Hash))
        |> HashSet

    let lost =
        delivered
        |> Array.filter (fun (request, book) ->
            let at = micros request.Received

            not (stored.Contains(struct (book.Token, book.Timestamp, book.Hash)))
            && not (isCovered ("books/" + book.Token) at at))
        |> Array.distinctBy (fun (_, book) -> struct (book.Token, book.Timestamp, book.Hash))
        |> Array.length

    // The exchange's own record of each token: from one whole delivery to the next, and to the end. A token that was resolved
    // is asked for no more, so its silence begins with the last request that named it.
    let longest = int64 (truth.BookCadence.TotalMicroseconds * 2.5)

    let lastAsked =
        truth.Requests
        |> Seq.collect (fun request -> request.Asked |> Seq.map (fun token -> token, micros request.Received))
        |> Seq.fold
            (fun (last: Dictionary<string, int64>) (token, at) ->
                last[token] <- at
                last)
            (Dictionary())

    let silences =
        delivered
        |> Array.groupBy (fun (_, book) -> book.Token)
        |> Array.sumBy (fun (token, deliveries) ->
            let moments = deliveries |> Array.map (fun (request, _) -> micros request.Received)
            let last = min (micros truth.Stopped) lastAsked[token]

            Array.append moments [| last |]
            |> Array.pairwise
            |> Array.filter (fun (before, after) ->
                after - before > longest && not (isCovered ("books/" + token) before after))
            |> Array.length)

    return {
        Exchange = truth.Exchange
        HasHashes = hasHashes
        TradesExpected = truth.Trades.Length
        TradesStored = trades.Length
        TradesMissing = excess ledgerTrades storedTrades
        TradesSurplus = excess storedTrades ledgerTrades
        PollsDue = truth.Polls.Length
        PollsStored =
            truth.Polls
            |> Array.filter (fun poll -> poll.Outcome = "stored")
            |> Array.length
        PollsUnchanged =
            truth.Polls
            |> Array.filter (fun poll -> poll.Outcome = "unchanged")
            |> Array.length
        PollsInGap = missed.Length - unexplained.Length
        PollsUnexplained = unexplained.Length
        BooksDelivered = different.Count
        BooksMissing = lost
        SilencesUnexplained = silences
        BooksVerified =
            books
            |> List.filter (fun book -> book.Verdict = Verdict.Verified)
            |> List.length
        BooksStored = books.Length
        Gaps = gaps.Length
        OpenGaps = gaps |> List.filter _.Gap.Until.IsNone |> List.length
        GapCauses = gaps |> List.countBy (fun recorded -> string recorded.Gap.Cause) |> List.sort
        Quarantined = status.Quarantined
        FaultsInjected = truth.Requests |> Array.filter _.Fault.IsSome |> Array.length
        Requests = truth.Requests.Length
    }
}

// What a later recount needs, beside the store.

let private file folder = Path.Combine(folder, "truth.json")

let save folder (truths: Truth list) =
    use stream = File.Create(file folder)
    JsonSerializer.Serialize(stream, Array.ofList truths)

let load folder : Truth list =
    use stream = File.OpenRead(file folder)

    match JsonSerializer.Deserialize<Truth[]>(stream) with
    | null -> invalidOp $"{file folder} is empty"
    | truths -> List.ofArray truths

let private percent part whole =
    if whole = 0 then "100 %"
    elif part = whole then "100 %"
    else $"%.3f{100.0 * float part / float whole} %%"

let private linesWith quarantined (report: Report) = [
    let there = report.TradesExpected - report.TradesMissing
    $"trades      {there} of {report.TradesExpected} stored once ({percent there report.TradesExpected}); missing {report.TradesMissing}, surplus {report.TradesSurplus}"

    if report.PollsDue > 0 then
        $"polls       {report.PollsDue} due: {report.PollsStored} stored, {report.PollsUnchanged} unchanged, {report.PollsInGap} in a gap; unexplained {report.PollsUnexplained}"

    let kept = report.BooksDelivered - report.BooksMissing

    let verified =
        if report.HasHashes then
            $"{report.BooksVerified} of {report.BooksStored} verified by their hash"
        else
            $"{report.BooksStored} stored, without a hash to verify them by"

    $"books       {kept} of {report.BooksDelivered} delivered are stored or in a gap ({percent kept report.BooksDelivered}); {verified}"
    $"silences    {report.SilencesUnexplained} without a gap"

    let causes =
        if report.GapCauses.IsEmpty then
            ""
        else
            let words =
                report.GapCauses
                |> List.map (fun (cause, count) -> $"{cause} {count}")
                |> String.concat ", "

            $" ({words})"

    $"gaps        {report.Gaps}{causes}, {report.OpenGaps} open"

    $"exchange    {report.Requests} requests, {report.FaultsInjected} struck by a fault{quarantined}"
    $"unexplained {report.Unexplained}"
]

/// The summary, line by line.
let lines (report: Report) =
    linesWith $"; quarantined {report.Quarantined}" report

/// As `lines`, of one exchange among several: what is quarantined is known of all together.
let linesOfOne (report: Report) = linesWith "" report
