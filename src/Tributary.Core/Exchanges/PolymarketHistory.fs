/// Trades of the past from the Data API: `/v2/trades` by its cursor, `/trades` by windows of time; and the CLOB's `/prices-history`
/// (`polymarket-api.md` sections 3, 4.1, 4.2 and 4.6). A place is a word and numbers, so that a checkpoint can hold it.
module internal Tributary.Exchanges.PolymarketHistory

open System
open System.Security.Cryptography
open System.Text
open Tributary

let private aSecond = TimeSpan.FromSeconds 1.0
let private seconds (at: Instant) = at.Micros / 1_000_000L
let private span since until : Interval = { Since = since; Until = until }

/// What has been read once everything from `reached` on was: nothing while that lies behind the end.
let private readFrom (state: HistoryState) reached =
    Intervals.ofSeq [ span (max state.Since reached) state.Until ]

let private request endpoint host path (state: HistoryState) : Request = {
    Endpoint = endpoint
    Host = host
    Path = path
    Body = ValueNone
    Walk = Walk.History state
}

let private onFrom place (state: HistoryState) = { state with Place = place }
let private market (state: HistoryState) = string state.Markets.Head

/// The times of a page's oldest and newest rows; nothing when it has none.
let private bounds from (batch: Batch) : Interval voption =
    let rows = batch.Trades

    if rows.Count = from then
        ValueNone
    else
        let mutable oldest, newest = rows[from].At, rows[from].At

        for i in from + 1 .. rows.Count - 1 do
            let at = rows[i].At

            if at.Micros < oldest.Micros then
                oldest <- at

            if at.Micros > newest.Micros then
                newest <- at

        ValueSome(span oldest newest)

// ---- v2: one cursor from the newest fill back. The place is the time of the oldest row so far and the cursor.

[<Literal>]
let private RowsV2 = 1000

/// Three years of any length: a condition is looked back on for a fixed three years (section 4.2), and what is said to be read must not
/// reach further back than what is served.
let private horizon = TimeSpan.FromDays(3.0 * 365.0)

/// Where a walk by cursors stands.
type private Cursor = {
    /// The time of the oldest row so far.
    Oldest: Instant
    /// What is asked with next; empty for the first page.
    Next: string
    /// The last one that a page with rows gave: an empty page may have led astray.
    Good: string
    /// The print of the first page that is of this one second alone, or `-`.
    Print: string
    /// The server did not take a cursor any more, and the walk began anew.
    IsAnew: bool
    /// How often it went back to the good one.
    Returns: int
}

let private mostReturns = 5

let private textOf (cursor: Cursor) =
    let word = if cursor.IsAnew then "anew" else "cursor"
    let escaped (text: string) = Uri.EscapeDataString text

    $"{word} {seconds cursor.Oldest} {escaped cursor.Next} {escaped cursor.Good} {cursor.Print} {cursor.Returns}"

let private cursorOf (state: HistoryState) : Cursor voption =
    match state.Place.Split ' ' with
    | [| ("cursor" | "anew") as word; oldest; next; good; print; returns |] ->
        ValueSome {
            Oldest = Instant.ofSeconds (int64 oldest)
            Next = Uri.UnescapeDataString next
            Good = Uri.UnescapeDataString good
            Print = print
            IsAnew = (word = "anew")
            Returns = int returns
        }
    | _ -> ValueNone

let private printOf (body: ReadOnlyMemory<byte>) =
    Convert.ToHexStringLower(SHA256.HashData(body.Span).AsSpan(0, 8))

let private askV2 (state: HistoryState) =
    let after =
        match cursorOf state with
        | ValueSome cursor when cursor.Next <> "" -> $"&cursor={Uri.EscapeDataString cursor.Next}"
        | _ -> ""

    // Each match once, from the taker's view. Fills under 0.01 share are left out whatever is asked.
    request
        "data_trades"
        "data_url"
        $"/v2/trades?condition={market state}&limit={RowsV2}&taker_only=true{after}"
        state

let private decodeV2 (question: Request) (state: HistoryState) (body: ReadOnlyMemory<byte>) (batch: Batch) =
    let mark, from = batch.Mark(), batch.Trades.Count
    let mutable next, more = ValueNone, false
    let fault = PolymarketTrades.readV2 body.Span question.Path batch &next &more
    let page = bounds from batch

    let before =
        cursorOf state
        |> ValueOption.defaultWith (fun () -> {
            Oldest = batch.Received + TimeSpan.FromDays 366.0
            Next = ""
            Good = ""
            Print = "-"
            IsAnew = false
            Returns = 0
        })

    // Of a page that is of the second at hand alone its time does not tell whether it came before.
    let isOfSecond =
        match page with
        | ValueSome page -> page.Since = before.Oldest && page.Until = before.Oldest
        | ValueNone -> false

    // Pages go back in time: one that goes forward, or that leads to itself, came before.
    let isAgain =
        match page with
        | ValueSome page when page.Until > before.Oldest -> true
        | _ when before.Next <> "" && next = ValueSome before.Next -> true
        | _ -> isOfSecond && before.Print <> "-" && printOf body = before.Print

    let oldest =
        match page with
        | ValueSome page -> page.Since
        | ValueNone -> before.Oldest

    let goOn cursor = {
        Decoded.nothing with
            Read = readFrom state (cursor.Oldest + aSecond)
            Next = [ askV2 (onFrom (textOf cursor) state) ]
    }

    match fault with
    | ValueSome fault -> Decoded.faulty fault
    | ValueNone when isAgain && before.Next <> before.Good && before.Returns < mostReturns ->
        batch.Rollback mark

        goOn {
            before with
                Next = before.Good
                Returns = before.Returns + 1
        }
    | ValueNone when isAgain ->
        batch.Rollback mark
        Decoded.faulty (Fault.RepeatedPage(ValueOption.defaultValue "" next))
    | ValueNone ->
        match next with
        | ValueNone when more ->
            Decoded.faulty (Fault.Undecodable(0, "'has_more' is true and 'next_cursor' is missing"))
        | ValueNone -> {
            Decoded.nothing with
                Read = readFrom state (batch.Received - horizon + aSecond)
          }
        | ValueSome _ when oldest < state.Since -> {
            Decoded.nothing with
                Read = readFrom state state.Since
          }
        | ValueSome next ->
            match page with
            // An empty page is not the end, even the first.
            | ValueNone -> goOn { before with Next = next }
            | ValueSome page ->
                goOn {
                    before with
                        Oldest = oldest
                        Next = next
                        Good = next
                        Print =
                            (if page.Since < page.Until then "-"
                             elif isOfSecond && before.Print <> "-" then before.Print
                             else printOf body)
                        Returns = 0
                }

// ---- v1: windows of time, newest first. A full window is cut at its oldest second, and the next one ends with it: nothing is read
// twice but that second. What fills a window with one second is read on by offset, and is never called whole.

/// Half of the most that is documented (section 4.1), for pages of several megabytes are held by each walk; a server that allows less
/// gives less.
[<Literal>]
let private RowsV1 = 5_000

/// The largest offset that is documented.
[<Literal>]
let private MostOffset = 10_000

/// No server caps a page at less. A page with more rows than this may have been cut anywhere, for caps were lowered in silence before;
/// so the walk goes on behind it until one has fewer.
[<Literal>]
let private LeastCap = 20

let private (|Window|Second|) (state: HistoryState) =
    match state.Place.Split ' ' with
    | [| "second"; second; offset; pages; mark |] ->
        Second(struct (Instant.ofSeconds (int64 second), int offset, int pages, mark))
    | [| "window"; last |] -> Window(Instant.ofSeconds (int64 last))
    // What is newer than what can be called read is worth having all the same.
    | _ -> Window(state.Until + HistoryState.settled)

let private askV1 (state: HistoryState) =
    // Without a start, and at 0, the server looks back three years only; 1 means everything.
    let first, last, offset =
        match state with
        | Window last -> max 1L (seconds state.Since), seconds last, ""
        | Second(struct (second, offset, _, _)) -> seconds second, seconds second, $"&offset={offset}"

    request
        "data_trades"
        "data_url"
        $"/trades?market={market state}&limit={RowsV1}&takerOnly=true&start={first}&end={last}{offset}"
        state

/// Goes on before a second; the end, when that is all.
let private before second (state: HistoryState) (decoded: Decoded) = {
    decoded with
        Read = readFrom state second
        Next =
            if second <= state.Since then
                []
            else
                [ askV1 (onFrom $"window {seconds second - 1L}" state) ]
}

let private truncated second (state: HistoryState) =
    before second state {
        Decoded.nothing with
            IsWhole = true
            Truncated = [ struct (state.Markets.Head, second, second + aSecond) ]
    }

let private decodeV1 (question: Request) (state: HistoryState) (body: ReadOnlyMemory<byte>) (batch: Batch) =
    let mark, from, refused = batch.Mark(), batch.Trades.Count, batch.Rejections.Count
    let fault = PolymarketTrades.readV1 body.Span question.Path batch
    let rows = batch.Trades
    let met = rows.Count - from + batch.Rejections.Count - refused
    // Groups are never cut by windows; and what offsets repeat must not be counted on.
    let whole = { Decoded.nothing with IsWhole = true }

    let onBy second offset pages = {
        whole with
            Read = readFrom state (second + aSecond)
            Next = [
                askV1 (onFrom $"second {seconds second} {offset} {pages} {printOf body}" state)
            ]
    }

    match fault, state, bounds from batch with
    | ValueSome fault, _, _ -> Decoded.faulty fault
    | _, Second(struct (second, _, 1, _)), _ when met = 0 -> before second state whole
    | _, Second(struct (second, offset, pages, mark)), _ ->
        if met = 0 || printOf body = mark || offset + met > MostOffset then
            truncated second state
        else
            onBy second (offset + met) (pages + 1)
    | _, Window _, _ when met < LeastCap -> before state.Since state whole
    | _, Window _, ValueNone ->
        Decoded.faulty (
            Fault.Undecodable(0, "a page without one readable trade: where the next begins is not known")
        )
    | _, Window last, ValueSome page when page.Until >= last + aSecond ->
        batch.Rollback mark
        Decoded.faulty (Fault.RepeatedPage(question.Path))
    | _, Window _, ValueSome page when page.Since = page.Until -> onBy page.Since met 1
    | _, Window _, ValueSome page ->
        let oldest = page.Since
        let mutable kept = from

        for i in from .. rows.Count - 1 do
            if rows[i].At.Micros > oldest.Micros then
                rows[kept] <- rows[i]
                batch.TradeOrigins[kept] <- batch.TradeOrigins[i]
                kept <- kept + 1

        rows.Truncate kept
        batch.TradeOrigins.Truncate kept
        before (oldest + aSecond) state whole

// ---- prices of tokens, oldest first, in windows

/// Longer ranges are refused, or answered thinly (section 3).
let private longestRange = 15L * 86_400L

/// Tokens of resolved markets answer in points half a day apart, or not at all.
let private coarse = 720

let private askPrices (state: HistoryState) =
    let token, first, fidelity =
        match state.Place.Split ' ' with
        | [| token; first; fidelity; _ |] -> token, int64 first, int fidelity
        | _ -> Seq.min state.Tokens.Keys, seconds state.Since, 1

    let last = min (seconds state.Until) (first + longestRange)

    request
        "prices_history"
        "clob_url"
        $"/prices-history?market={token}&startTs={first}&endTs={last}&fidelity={fidelity}"
        {
            state with
                Place =
                    (if state.Place = "" then
                         $"{token} {first} {fidelity} 0"
                     else
                         state.Place)
        }

let private historyMembers = Members [ "history" ]
let private pointMembers = Members [ "t"; "p" ]

let private point (market: Name) (token: Name) =
    RowReader(fun json at batch ->
        let mutable walk = Members.Begin(json, &at)
        let mutable start, length = 0, 0
        let mutable moment, price = ValueNone, ValueNone

        while pointMembers.Next(json, &at, &walk) do
            match walk.Index with
            | 0 ->
                walk.Ok <- Json.numeral json &at &start &length
                let mutable read = Instant.ofMicros 0L

                if walk.Ok && Instant.tryRead (json.Slice(start, length)) &read then
                    moment <- ValueSome read
            | 1 ->
                walk.Ok <- Json.numeral json &at &start &length
                let mutable value, rounded = 0L, false

                if
                    walk.Ok
                    && Fixed.parse (json.Slice(start, length)) &value &rounded = NumberFault.None
                then
                    price <- ValueSome(Price.ofMillionths value)
            | _ -> walk.Ok <- Json.skip json &at

        match moment, price with
        | _ when not walk.Ok -> "the point breaks off or is malformed"
        | ValueNone, _ -> "a point without a readable time"
        | _, ValueNone -> "a point without a readable price"
        | _, ValueSome price when price.Millionths < 0L || price.Millionths > Fixed.One ->
            "the price lies outside 0 to 1"
        | ValueSome moment, ValueSome price ->
            let row: PriceRow = {
                Market = market
                Token = token
                At = moment
                Received = batch.Received
                Kind = PriceKind.History
                Price = price
                Inserted = false
            }

            batch.Prices.Add &row
            null)

let private decodePrices
    (question: Request)
    (state: HistoryState)
    (body: ReadOnlyMemory<byte>)
    (batch: Batch)
    =
    let json = body.Span
    let from = batch.Prices.Count

    match state.Place.Split ' ' with
    | [| token; first; fidelity; got |] ->
        let first, fidelity, got = int64 first, int fidelity, int got
        let name = batch.Names.Intern(ReadOnlySpan(Encoding.UTF8.GetBytes token))

        let owner =
            let struct (id, _) = state.Tokens[token]
            batch.Names.Intern(ReadOnlySpan(Encoding.UTF8.GetBytes(string id)))

        let mutable at = 0
        let mutable walk = Members.Begin(json, &at)
        let mutable fault, isThere = ValueNone, false

        while fault.IsNone && historyMembers.Next(json, &at, &walk) do
            match walk.Index with
            | 0 ->
                isThere <- true
                fault <- Json.rows json &at question.Path (point owner name) batch
            | _ -> walk.Ok <- Json.skip json &at

        let got = got + batch.Prices.Count - from
        let next = first + longestRange
        let end' = seconds state.Until

        let tokenAfter =
            state.Tokens.Keys
            |> Seq.filter (fun other -> other > token)
            |> Seq.sort
            |> Seq.tryHead

        if fault.IsSome then
            Decoded.faulty fault.Value
        elif not walk.Ok || not isThere then
            Decoded.faulty (Fault.Undecodable(at, "an answer without 'history', or one that breaks off"))
        elif next < end' then
            {
                Decoded.nothing with
                    Next = [ askPrices (onFrom $"{token} {next} {fidelity} {got}" state) ]
            }
        elif got = 0 && fidelity < coarse then
            {
                Decoded.nothing with
                    Next = [ askPrices (onFrom $"{token} {seconds state.Since} {coarse} 0" state) ]
            }
        else
            match tokenAfter with
            | Some token -> {
                Decoded.nothing with
                    Next = [ askPrices (onFrom $"{token} {seconds state.Since} 1 0" state) ]
              }
            | None -> {
                Decoded.nothing with
                    Read = readFrom state state.Since
              }
    | _ -> Decoded.faulty (Fault.Undecodable(0, $"no place is called '{state.Place}'"))

// ---- together

/// What the past can be read from.
let sources: HistorySource list = [
    {
        Name = "v2"
        Stream = Stream.History
        Limits = {
            Source = "v2"
            Horizon = ValueSome horizon
            Omits = "dust below 0.01"
        }
        IsUsual = true
        CanJump = false
        FromStart = false
        Withholds = Cause.Truncated
        MostMarkets = 1
        Endpoint = "data_trades"
        PageRows = RowsV2
        Ask = askV2
    }
    {
        Name = "v1"
        Stream = Stream.History
        Limits = {
            Source = "v1"
            Horizon = ValueNone
            Omits = ""
        }
        IsUsual = true
        CanJump = true
        FromStart = false
        Withholds = Cause.Truncated
        MostMarkets = 1
        Endpoint = "data_trades"
        PageRows = RowsV1
        Ask = askV1
    }
    {
        Name = "prices"
        Stream = Stream.Prices
        Limits = {
            Source = "prices"
            Horizon = ValueNone
            Omits = ""
        }
        IsUsual = false
        CanJump = true
        FromStart = false
        Withholds = Cause.Truncated
        MostMarkets = 1
        Endpoint = "prices_history"
        PageRows = 21_600
        Ask = askPrices
    }
]

let decode (question: Request) (state: HistoryState) body (batch: Batch) =
    match state.Source with
    | "v2" -> decodeV2 question state body batch
    | "v1" -> decodeV1 question state body batch
    | _ -> decodePrices question state body batch

/// A cursor that the server does not take any more is begun anew, once; an offset beyond what it serves ends a second.
let refused (state: HistoryState) status : Decoded voption =
    match state.Source, state with
    | "v2", _ when status = 400 ->
        match cursorOf state with
        | ValueSome cursor when cursor.Next <> "" && not cursor.IsAnew ->
            let anew = {
                Oldest = state.Until + TimeSpan.FromDays 366.0
                Next = ""
                Good = ""
                Print = "-"
                IsAnew = true
                Returns = 0
            }

            ValueSome {
                Decoded.nothing with
                    IsWhole = true
                    Next = [ askV2 (onFrom (textOf anew) state) ]
            }
        | _ -> ValueNone
    | "v1", Second(struct (second, _, _, _)) when status = 400 -> ValueSome(truncated second state)
    | _ -> ValueNone
