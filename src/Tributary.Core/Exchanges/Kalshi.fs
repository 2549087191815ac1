/// Kalshi: markets, order books, trades and candlesticks over REST, live books over its WebSocket (`kalshi-api.md`).
///
/// A market has one book of bids alone, for YES and for NO. Who bids p for NO offers YES at 1 - p: so each of its two tokens,
/// `<ticker>:YES` and `<ticker>:NO`, has the bids for it as its bids and the other's, complemented, as its asks (`Flags.Complemented`).
[<RequireQualifiedAccess>]
module Tributary.Exchanges.Kalshi

open System
open System.Buffers.Text
open System.Collections.Generic
open System.Security.Cryptography
open System.Text
open System.Text.Json
open System.Text.Unicode
open Tributary

let private exchange = Known.exchange "kalshi"

// ---- tokens

let private yes, no = ":YES"B, ":NO"B

/// The name of a market's token; the buffer is used again and again.
let private tokenOf (buffer: byte[]) (names: Names) (ticker: ReadOnlySpan<byte>) (suffix: byte[]) : Name =
    ticker.CopyTo(Span buffer)
    suffix.CopyTo(Span(buffer, ticker.Length, suffix.Length))
    names.Intern(ReadOnlySpan(buffer, 0, ticker.Length + suffix.Length))

/// Identities leave room for what follows them.
let private isTicker (ticker: ReadOnlySpan<byte>) =
    Identity.isValid ticker && ticker.Length + 4 <= Identity.Longest

let private tickerOf (token: TokenId) =
    let text = string token

    match text.LastIndexOf ':' with
    | -1 -> text
    | at -> text.Substring(0, at)

let private tickersOf (tokens: TokenId list) =
    tokens |> List.map tickerOf |> List.distinct

let private escaped (text: string) = Uri.EscapeDataString text

let private asked endpoint path walk : Request = {
    Endpoint = endpoint
    Host = "rest_url"
    Path = path
    Body = ValueNone
    Walk = walk
}

// ---- markets (section 2.1)

/// The words of objects, which are not those of queries. A word that nobody knows is never taken for an open market.
let private statusOf word =
    match word with
    | "initialized"
    | "unopened" -> MarketStatus.Pending
    | "active"
    | "open" -> MarketStatus.Open
    | "finalized"
    | "settled" -> MarketStatus.Resolved
    // "determined" is a result that is not paid yet, and may still be disputed or amended.
    | _ -> MarketStatus.Closed

/// The finest step of the grid: its label (`price_level_structure`) has names that come and go.
let private stepOf (element: JsonElement) =
    match Element.tryMember "price_ranges" element with
    | ValueSome ranges when ranges.ValueKind = JsonValueKind.Array ->
        [
            for range in ranges.EnumerateArray() do
                if range.ValueKind = JsonValueKind.Object then
                    match Element.number [ "step" ] range with
                    | ValueSome step when step > 0L -> step
                    | _ -> ()
        ]
        |> function
            | [] -> ValueNone
            | steps -> ValueSome(Price.ofMillionths (List.min steps))
    | _ -> ValueNone

let private marketOf received (tags: string list) (element: JsonElement) raw : Result<Market, string> =
    let ticker = Element.text "ticker" element

    match MarketId.Parse ticker with
    | Error message -> Error message
    | Ok _ when not (isTicker (ReadOnlySpan(Encoding.UTF8.GetBytes ticker))) ->
        Error "the ticker is too long for its tokens"
    | Ok id ->
        let status = statusOf (Element.text "status" element)
        let title, part = Element.text "title" element, Element.text "yes_sub_title" element

        let size name =
            Element.number [ name ] element |> ValueOption.bind Size.tryOfMillionths

        Ok {
            Exchange = exchange
            Market = id
            Event = Element.text "event_ticker" element
            Slug = ticker
            Question =
                if title = "" then part
                elif part = "" || title.Contains part then title
                else $"{title}: {part}"
            Outcomes = [|
                for name, suffix in [ "Yes", ":YES"; "No", ":NO" ] ->
                    {
                        Name = name
                        Token = ValueSome(Known.token (ticker + suffix))
                    }
            |]
            Status = status
            AcceptsOrders = (status = MarketStatus.Open)
            TickSize = stepOf element
            MinimumSize = ValueNone
            NegRisk = false
            Start = Element.moment [ "open_time" ] element
            End = Element.moment [ "expected_expiration_time"; "close_time" ] element
            ClosedAt =
                match status with
                | MarketStatus.Closed
                | MarketStatus.Resolved ->
                    // One that is paused is going to close.
                    Element.moment [ "close_time" ] element
                    |> ValueOption.bind (fun at -> if at <= received then ValueSome at else ValueNone)
                | _ -> ValueNone
            Winner =
                match status, Element.text "result" element with
                | MarketStatus.Resolved, "yes" -> "Yes"
                | MarketStatus.Resolved, "no" -> "No"
                | _ -> ""
            Volume = size "volume_fp"
            Liquidity = ValueNone // "always 0.0000"
            OpenInterest = size "open_interest_fp"
            Tags = Array.ofList tags
            Updated = Element.moment [ "updated_time" ] element
            Received = received
            Raw = raw
        }

let private marketReader tags =
    RowReader(fun json at batch ->
        let add (element: JsonElement) raw : string | null =
            match marketOf batch.Received tags element raw with
            | Ok market ->
                batch.Markets.Add market
                null
            | Error message -> message

        Element.reading add json &at)

let private eventMembers =
    Members [ "event_ticker"; "series_ticker"; "category"; "markets" ]

/// An event holds whole markets: each is a row of its own, so a bad one costs no other. Its series and category are their tags.
let private eventReader source =
    RowReader(fun json at batch ->
        let mutable walk = Members.Begin(json, &at)
        let mutable start, length = 0, 0
        let mutable series, category, markets = "", "", -1

        while eventMembers.Next(json, &at, &walk) do
            match walk.Index with
            | 1
            | 2 ->
                walk.Ok <- Json.textOrNull json &at &start &length

                if walk.Ok then
                    let text = ValueOption.defaultValue "" (Json.tryText (json.Slice(start, length)))

                    if walk.Index = 1 then
                        series <- text
                    else
                        category <- text.ToLowerInvariant()
            | 3 ->
                if Json.peek json &at = '['B then
                    markets <- at

                walk.Ok <- Json.skip json &at
            | _ -> walk.Ok <- Json.skip json &at

        if not walk.Ok then
            "the event breaks off or is malformed"
        else
            if markets >= 0 then
                let tags = [ category; series ] |> List.filter ((<>) "")
                let mutable inside = markets
                // The list was skipped as sound, so there is no fault.
                Json.rows json &inside source (marketReader tags) batch |> ignore

            null)

/// `markets` or `events`, and the query behind it: so a page can ask for the next one.
let private marketsPage need (state: PageState) cursor : Request =
    let words = state.Route.Split(' ', 2)

    let list, endpoint, limit =
        match words[0] with
        | "events" -> "/events", "events", 200
        | "historical" -> "/historical/markets", "historical", 1000
        | _ -> "/markets", "markets", 1000

    let after =
        match cursor with
        | ValueSome cursor -> $"&cursor={escaped cursor}"
        | ValueNone -> ""

    asked endpoint $"{list}?limit={limit}{words[1]}{after}" (Walk.Markets(need, state))

let private firstMarkets need route =
    marketsPage need (PageState.first route) ValueNone

/// As many as an address bears.
let private mostTickers = 100

let private byTickers list need (tickers: string list) =
    tickers
    |> List.chunkBySize mostTickers
    |> List.map (fun chunk ->
        let names = chunk |> List.map escaped |> String.concat ","
        firstMarkets need $"{list} &tickers={names}")

let private askMarkets need : Request list =
    match need with
    | Need.MarketsBySlug tickers -> byTickers "markets" need tickers
    | Need.MarketsById ids -> byTickers "markets" need (List.map string ids)
    | Need.MarketsByEvent events ->
        events
        |> List.map (fun event -> firstMarkets need $"markets &event_ticker={escaped event}")
    | Need.MarketsLike wanted ->
        // Events tell the series and the category of their markets, and leave the combinations out, which are most of all.
        let states =
            if wanted.WithClosed then
                [ "&status=open"; "&status=closed"; "&status=settled" ]
            else
                [ "&status=open" ]

        states
        |> List.map (fun state -> firstMarkets need $"events &with_nested_markets=true{state}")
    | _ -> []

let private pageMembers =
    Members [ "cursor"; "markets"; "events"; "trades"; "market" ]

/// A page: its rows, by the list that it holds, and the cursor of the next; absent, null and empty are the end.
let private page
    (json: ReadOnlySpan<byte>)
    source
    (readers: (struct (int * RowReader)) list)
    (batch: Batch)
    (cursor: byref<string voption>)
    : Fault voption =
    let mutable at = 0
    let mutable walk = Members.Begin(json, &at)
    let mutable start, length = 0, 0
    let mutable fault, isPage = ValueNone, false

    while fault.IsNone && pageMembers.Next(json, &at, &walk) do
        if walk.Index = 0 then
            walk.Ok <- Json.textOrNull json &at &start &length

            if walk.Ok && length > 0 then
                cursor <- Json.tryText (json.Slice(start, length))
        else
            let index = walk.Index

            match readers |> List.tryFind (fun (struct (place, _)) -> place = index) with
            | Some(struct (_, reader)) ->
                isPage <- true

                // A list may be null where it is empty.
                if not (Json.takeNull json &at) then
                    fault <- Json.oneOrMany json &at source reader batch
            | None -> walk.Ok <- Json.skip json &at

    if fault.IsSome then
        fault
    elif not walk.Ok then
        ValueSome(Fault.Undecodable(at, "the page breaks off or is malformed"))
    elif not isPage then
        ValueSome(Fault.Undecodable(0, "a page without the list that was asked for"))
    else
        Json.``end`` json at

/// Marks what an earlier page had.
let private foundWord = "found "

let private decodeMarkets
    (question: Request)
    need
    (state: PageState)
    (body: ReadOnlyMemory<byte>)
    (batch: Batch)
    =
    let mark, from = batch.Mark(), batch.Markets.Count
    let mutable cursor = ValueNone

    let readers = [
        struct (1, marketReader [])
        struct (2, eventReader question.Path)
        struct (4, marketReader [])
    ]

    let fault =
        if state.Route = "rows" then
            let mutable at = 0

            match Json.oneOrMany body.Span &at question.Path (marketReader []) batch with
            | ValueSome fault -> ValueSome fault
            | ValueNone -> Json.``end`` body.Span at
        else
            page body.Span question.Path readers batch &cursor

    // A cursor that was asked with, or a first market that began an earlier page: a walk in a circle.
    let first =
        if batch.Markets.Count > from then
            "first " + string batch.Markets[from].Market
        else
            ""

    let isAgain =
        cursor.IsSome && state.Seen.Contains cursor.Value
        || first <> "" && state.Seen.Contains first

    match fault, cursor with
    | ValueSome fault, _ -> Decoded.faulty fault
    | _ when isAgain ->
        batch.Rollback mark
        Decoded.faulty (Fault.RepeatedPage(ValueOption.defaultValue first cursor))
    | ValueNone, ValueSome cursor ->
        let next = {
            state with
                Page = state.Page + 1
                Seen =
                    state.Seen.Add cursor
                    |> Set.add first
                    |> Set.union (
                        match state.Route.Split(' ', 2) with
                        | [| "markets"; query |] when query.StartsWith "&tickers=" ->
                            set [
                                for i in from .. batch.Markets.Count - 1 do
                                    foundWord + string batch.Markets[i].Market
                            ]
                        | _ -> Set.empty
                    )
        }

        {
            Decoded.nothing with
                Next = [ marketsPage need next (ValueSome cursor) ]
        }
    | ValueNone, ValueNone ->
        // What live does not know may have gone over to the archive.
        let wanted =
            match need, state.Route.Split(' ', 2) with
            | Need.MarketsById ids, [| "markets"; query |] ->
                ids
                |> List.map string
                |> List.filter (fun ticker -> query.Contains(escaped ticker))
            | Need.MarketsBySlug tickers, [| "markets"; query |] ->
                tickers |> List.filter (fun ticker -> query.Contains(escaped ticker))
            | _ -> []

        let found =
            HashSet(
                seq {
                    for i in from .. batch.Markets.Count - 1 do
                        string batch.Markets[i].Market
                }
            )

        {
            Decoded.nothing with
                Next =
                    wanted
                    |> List.filter (fun ticker ->
                        not (found.Contains ticker) && not (state.Seen.Contains(foundWord + ticker)))
                    |> byTickers "historical" need
        }

// ---- books (section 3)

let private bookMembers = Members [ "orderbook_fp"; "ticker" ]
let private sideMembers = Members [ "yes_dollars"; "no_dollars" ]

/// `["0.0100","1050129.00"]`
let private level
    (json: ReadOnlySpan<byte>)
    (at: byref<int>)
    (price: byref<int64>)
    (size: byref<int64>)
    (flags: byref<Flags>)
    : string | null =
    let mutable start, length, rounded = 0, 0, false
    let mutable ok = Json.take json &at '['B && Json.numeral json &at &start &length

    if not ok then
        "a level is malformed"
    else
        let mutable reason: string | null = null

        match Fixed.parse (json.Slice(start, length)) &price &rounded with
        // So are cents, which are another price than they say.
        | NumberFault.None when price < 0L || price > Fixed.One ->
            reason <- "a level's price lies outside 0 to 1"
        | NumberFault.None when rounded -> flags <- flags ||| Flags.Rounded
        | NumberFault.None -> ()
        | fault -> reason <- "a level's price " + Fixed.explain fault

        ok <- Json.take json &at ','B && Json.numeral json &at &start &length

        if ok && isNull reason then
            match Fixed.parse (json.Slice(start, length)) &size &rounded with
            | NumberFault.None when size < 0L -> reason <- "a level's size is negative"
            | NumberFault.None -> ()
            | fault -> reason <- "a level's size " + Fixed.explain fault

        if rounded then
            flags <- flags ||| Flags.Rounded

        if not (ok && Json.take json &at ']'B) then
            "a level is malformed"
        else
            reason

/// One side's bids, best first in the batch; a missing side and null are an empty one. `isComplement`: its prices are those of the
/// other token.
let private bids
    (json: ReadOnlySpan<byte>)
    (at: byref<int>)
    isComplement
    (batch: Batch)
    (flags: byref<Flags>)
    (first: byref<int>)
    (count: byref<int>)
    : string | null =
    first <- batch.Levels.Count
    count <- 0

    if Json.takeNull json &at then
        null
    elif not (Json.take json &at '['B) then
        "a side of the book is not a list"
    else
        let mutable isFirst, ok, reason = true, true, (null: string | null)
        let mutable rises, falls, repeats, before = false, false, false, 0L

        while isNull reason && Json.element json &at &isFirst &ok do
            let mutable price, size = 0L, 0L
            reason <- level json &at &price &size &flags

            if isNull reason then
                let price = if isComplement then Fixed.One - price else price

                if size = 0L then
                    flags <- flags ||| Flags.ZeroSize
                else
                    if batch.Levels.Count > first then
                        if price > before then rises <- true
                        elif price < before then falls <- true
                        else repeats <- true

                    before <- price

                    let level = {
                        Price = Price.ofMillionths price
                        Size = Size.trusted size
                    }

                    batch.Levels.Add &level

        if not (isNull reason) then
            reason
        elif not ok then
            "a side of the book breaks off or is malformed"
        else
            count <- batch.Levels.Count - first

            if rises && falls then
                flags <- flags ||| Flags.Disordered

            if repeats || rises && falls then
                count <- Levels.repair (batch.Levels.Slice(first, count)) &flags
                batch.Levels.Truncate(first + count)
                falls <- false

            if not falls then
                batch.Levels.Slice(first, count).Reverse()

            null

/// The bids of both sides are in the batch: the rows of both tokens' books.
let private addBooks
    (batch: Batch)
    (ticker: ReadOnlySpan<byte>)
    (buffer: byte[])
    (struct (firstYes, countYes))
    (struct (firstNo, countNo))
    at
    verdict
    flags
    =
    let market = batch.Names.Intern ticker
    let yesAsks = Levels.complement firstNo countNo batch
    let noAsks = Levels.complement firstYes countYes batch

    let sided bids asks =
        if bids = 0 && asks = 0 then Flags.Empty
        elif bids = 0 || asks = 0 then Flags.OneSided
        else Flags.None

    for isYes in [| true; false |] do
        let firstBid, bidCount, firstAsk, askCount =
            if isYes then
                firstYes, countYes, yesAsks, countNo
            else
                firstNo, countNo, noAsks, countYes

        let row: BookRow = {
            Market = market
            Token = tokenOf buffer batch.Names ticker (if isYes then yes else no)
            At = at
            Received = batch.Received
            FirstBid = firstBid
            BidCount = bidCount
            FirstAsk = firstAsk
            AskCount = askCount
            Hash = Slice.none
            Tick = Price.zero
            LastTrade = { Start = 0; Length = -1 }
            Sequence = 0
            Verdict = verdict
            Doubt =
                if verdict = Verdict.Verified then
                    Doubt.None
                else
                    Doubt.NoHash
            Reason = Reason.Poll
            Flags = flags ||| sided bidCount askCount ||| Flags.Complemented
            Inserted = false
        }

        batch.Books.Add &row

/// A side that is missing is an empty one, unless there is a list that may be it by another name.
let private strangeSides =
    "a side of the book is missing, and there is a list of a name that nobody knows"

/// `{"orderbook_fp":{"yes_dollars":[…],"no_dollars":[…]}}`, in the list of many with its ticker. It says no time: ours is.
let private bookReader (ticker: string) =
    RowReader(fun json at batch ->
        let mutable walk = Members.Begin(json, &at)
        let mutable start, length = 0, 0
        let mutable name = ReadOnlySpan(Encoding.UTF8.GetBytes ticker)
        let mutable flags, reason, isThere = Flags.None, (null: string | null), false
        let mutable firstYes, countYes, firstNo, countNo = 0, 0, 0, 0
        let mutable sidesHere, isStrange = 0, false

        while isNull reason && bookMembers.Next(json, &at, &walk) do
            match walk.Index with
            | 0 ->
                isThere <- true
                let mutable sides = Members.Begin(json, &at)

                while isNull reason && sideMembers.Next(json, &at, &sides) do
                    match sides.Index with
                    | 0 ->
                        sidesHere <- sidesHere + 1
                        reason <- bids json &at false batch &flags &firstYes &countYes
                    | 1 ->
                        sidesHere <- sidesHere + 1
                        reason <- bids json &at false batch &flags &firstNo &countNo
                    | _ ->
                        isStrange <- isStrange || Json.peek json &at = '['B
                        sides.Ok <- Json.skip json &at

                walk.Ok <- sides.Ok
            | 1 ->
                walk.Ok <- Json.string json &at &start &length

                if walk.Ok then
                    name <- json.Slice(start, length)
            | _ -> walk.Ok <- Json.skip json &at

        if not (isNull reason) then
            reason
        elif not walk.Ok then
            "the book breaks off or is malformed"
        elif not isThere then
            "an answer without 'orderbook_fp'"
        elif isStrange && sidesHere < 2 then
            strangeSides
        elif not (isTicker name) then
            "a book without its market's ticker"
        else
            addBooks
                batch
                name
                (Array.zeroCreate 256)
                (struct (firstYes, countYes))
                (struct (firstNo, countNo))
                batch.Received
                Verdict.Unverifiable
                flags

            null)

let private booksMembers = Members [ "orderbooks" ]

/// Most of what one request takes.
let private mostBooks = 100

let private bookRequest (tokens: TokenId list) : Request =
    match tickersOf tokens with
    | [ ticker ] -> asked "orderbook" $"/markets/{escaped ticker}/orderbook?depth=0" (Walk.Books tokens)
    | tickers ->
        let names = tickers |> List.map escaped |> String.concat "&tickers="
        asked "orderbooks" $"/markets/orderbooks?tickers={names}" (Walk.Books tokens)

/// Both tokens of a market are one question; many of them may need a key.
let private askBooks hasKey (options: AskOptions) (tokens: TokenId list) : Request list =
    tokens
    |> List.groupBy tickerOf
    |> List.chunkBySize (
        if hasKey then
            max 1 (min mostBooks (options.BooksPerRequest / 2))
        else
            1
    )
    |> List.map (List.collect snd >> bookRequest)

let private decodeBooks
    (question: Request)
    (tokens: TokenId list)
    (body: ReadOnlyMemory<byte>)
    (batch: Batch)
    =
    let json = body.Span
    let from = batch.Books.Count
    let mutable at = 0

    let fault =
        match tickersOf tokens with
        | [ ticker ] when not (question.Path.Contains "/orderbooks?") ->
            match Json.row json &at question.Path (bookReader ticker) batch with
            | ValueSome fault -> ValueSome fault
            | ValueNone -> Json.``end`` json at
        | _ ->
            let mutable walk = Members.Begin(json, &at)
            let mutable fault, isThere = ValueNone, false

            while fault.IsNone && booksMembers.Next(json, &at, &walk) do
                if walk.Index = 0 then
                    isThere <- true

                    if not (Json.takeNull json &at) then
                        fault <- Json.rows json &at question.Path (bookReader "") batch
                else
                    walk.Ok <- Json.skip json &at

            if fault.IsSome then
                fault
            elif not walk.Ok || not isThere then
                ValueSome(Fault.Undecodable(at, "an answer without 'orderbooks', or one that breaks off"))
            else
                Json.``end`` json at

    // Of a market both books come, whichever was asked for.
    let wanted = HashSet(tokens |> List.map string)
    let answered = HashSet<string>()
    let mutable kept = from

    for i in from .. batch.Books.Count - 1 do
        let token = batch.Names.Text batch.Books[i].Token

        if wanted.Count = 0 || wanted.Contains token then
            answered.Add token |> ignore
            batch.Books[kept] <- batch.Books[i]
            batch.BookOrigins[kept] <- batch.BookOrigins[i]
            kept <- kept + 1

    batch.Books.Truncate kept
    batch.BookOrigins.Truncate kept

    {
        Decoded.nothing with
            Fault = fault
            Missing = tokens |> List.filter (fun token -> not (answered.Contains(string token)))
    }

let private refusedBooks (tokens: TokenId list) status : Decoded voption =
    match tickersOf tokens with
    | [ _ ] when status = 404 ->
        ValueSome {
            Decoded.nothing with
                Missing = tokens
        }
    | [ _ ] -> ValueNone
    // Without a key, or one that spoils the rest.
    | tickers when status = 400 || status = 401 || status = 403 || status = 404 || status = 414 ->
        ValueSome {
            Decoded.nothing with
                Next =
                    tokens
                    |> List.groupBy tickerOf
                    |> List.splitInto (if status = 401 || status = 403 then tickers.Length else 2)
                    |> List.map (List.collect snd >> bookRequest)
        }
    | _ -> ValueNone

// ---- trades

let private tradeMembers =
    Members [
        "count_fp"
        "created_time"
        "is_block_trade"
        "no_price_dollars"
        "taker_book_side"
        "taker_outcome_side"
        "taker_side"
        "ticker"
        "trade_id"
        "yes_price_dollars"
        // on the stream:
        "market_ticker"
        "ts"
        "ts_ms"
        // in recordings from before 2026-03-12:
        "yes_price"
        "count"
    ]

[<Struct>]
type private Fill = {
    mutable Ticker: Slice
    mutable Id: Slice
    mutable Side: Side
    mutable Price: int64
    mutable Size: int64
    mutable At: Instant
    mutable Flags: Flags
    mutable Text: Slice
}

let private sliced start length : Slice = { Start = start; Length = length }

/// A fill in any order of its members, from REST or the stream. It is told in terms of YES: a taker of NO sells YES. Prices in cents are
/// read in recordings alone: today a number that is not there is no zero.
let private readFill
    (json: ReadOnlySpan<byte>)
    (at: byref<int>)
    isRecorded
    (fill: byref<Fill>)
    : string | null =
    let mutable walk = Members.Begin(json, &at)
    let mutable start, length, rounded, isRounded = 0, 0, false, false
    let mutable reason: string | null = null
    let mutable price, other, size = ValueNone, ValueNone, ValueNone
    let mutable cents, count = ValueNone, ValueNone
    let mutable outcome, book, old = 0uy, 0uy, 0uy
    let mutable created, stamp, millis = ValueNone, ValueNone, ValueNone
    fill.Ticker <- Slice.none
    fill.Id <- Slice.none
    fill.Flags <- Flags.None

    while isNull reason && tradeMembers.Next(json, &at, &walk) do
        match walk.Index with
        | 0
        | 3
        | 9
        | 13
        | 14 as index ->
            walk.Ok <- Json.numeral json &at &start &length

            if walk.Ok && length > 0 then
                let mutable value = 0L

                match Fixed.parse (json.Slice(start, length)) &value &isRounded with
                | NumberFault.None ->
                    rounded <- rounded || isRounded

                    match index with
                    | 0 -> size <- ValueSome value
                    | 3 -> other <- ValueSome value
                    | 9 ->
                        price <- ValueSome value
                        fill.Text <- sliced start length
                    | 13 -> cents <- ValueSome value
                    | _ -> count <- ValueSome value
                | fault -> reason <- $"'{tradeMembers.Name index}' {Fixed.explain fault}"
        | 1
        | 11
        | 12 as index ->
            walk.Ok <- Json.numeral json &at &start &length
            let mutable read = Instant.ofMicros 0L

            if walk.Ok && length > 0 && Instant.tryRead (json.Slice(start, length)) &read then
                match index with
                | 1 -> created <- ValueSome read
                | 11 -> stamp <- ValueSome read
                | _ -> millis <- ValueSome read
        | 4
        | 5
        | 6 as index ->
            walk.Ok <- Json.textOrNull json &at &start &length

            if walk.Ok && length > 0 then
                match index with
                | 4 -> book <- json[start]
                | 5 -> outcome <- json[start]
                | _ -> old <- json[start]
        | 7
        | 10 ->
            walk.Ok <- Json.string json &at &start &length
            fill.Ticker <- sliced start length
        | 8 ->
            walk.Ok <- Json.string json &at &start &length
            fill.Id <- sliced start length
        | _ -> walk.Ok <- Json.skip json &at

        if not walk.Ok && isNull reason then
            reason <- $"'{tradeMembers.Name walk.Index}' is malformed"

    if isRecorded then
        price <-
            price
            |> ValueOption.orElse (cents |> ValueOption.map (fun cents -> cents / 100L))

        size <- size |> ValueOption.orElse count

    // Of the side of the book "bid" is YES and "ask" is NO, always.
    let taker =
        match outcome, book, old with
        | 'y'B, _, _
        | 0uy, 'b'B, _
        | 0uy, 0uy, 'y'B -> ValueSome Side.Buy
        | 'n'B, _, _
        | 0uy, 'a'B, _
        | 0uy, 0uy, 'n'B -> ValueSome Side.Sell
        | _ -> ValueNone

    if not (isNull reason) then
        reason
    elif not walk.Ok then
        "the trade breaks off or is malformed"
    elif not (isTicker (json.Slice(fill.Ticker.Start, fill.Ticker.Length))) then
        "a trade without its market's ticker"
    elif not (Identity.isValid (json.Slice(fill.Id.Start, fill.Id.Length))) then
        "a trade without its id"
    else
        match taker, price, size, millis |> ValueOption.orElse created |> ValueOption.orElse stamp with
        | ValueNone, _, _, _ -> "a trade without its taker's side"
        | _, ValueNone, _, _ -> "a trade without 'yes_price_dollars'"
        | _, _, ValueNone, _ -> "a trade without 'count_fp'"
        | _, _, _, ValueNone -> "a trade without a readable time"
        | ValueSome taker, ValueSome price, ValueSome size, ValueSome moment ->
            if size < 0L then
                "the size is negative"
            elif other.IsSome && price + other.Value <> Fixed.One then
                "the prices of YES and NO do not add up to 1"
            else
                fill.Side <- taker
                fill.Price <- price
                fill.Size <- size
                fill.At <- moment

                if rounded then
                    fill.Flags <- Flags.Rounded

                null

let private tradeReader isRecorded =
    let buffer: byte[] = Array.zeroCreate 256

    RowReader(fun json at batch ->
        let mutable fill = Unchecked.defaultof<Fill>

        match readFill json &at isRecorded &fill with
        | null ->
            let ticker = json.Slice(fill.Ticker.Start, fill.Ticker.Length)

            let row: TradeRow = {
                Market = batch.Names.Intern ticker
                Token = tokenOf buffer batch.Names ticker yes
                Outcome = batch.Names.Intern "Yes"
                Side = fill.Side
                Source = Source.Api
                Price = Price.ofMillionths fill.Price
                Size = Size.trusted fill.Size
                Collateral = ValueNone
                At = fill.At
                Received = batch.Received
                Transaction = batch.Keep(json.Slice(fill.Id.Start, fill.Id.Length))
                Wallet = Slice.none
                Flags = fill.Flags
                Occurrence = -1
                Id = { High = 0UL; Low = 0UL }
                Inserted = false
            }

            batch.Trades.Add &row
            null
        | reason -> reason)

let private seconds (at: Instant) = at.Micros / 1_000_000L

/// A walk that is longer than this is cut, and the rest becomes a gap.
let private longestWalk = 200

let private tradesPage (follows: Follow list) (state: PageState) cursor : Request =
    let follow = List.head follows

    let after =
        match cursor with
        | ValueSome cursor -> $"&cursor={escaped cursor}"
        | ValueNone -> ""

    // Whether the bounds are inclusive is not documented: a second more does no harm.
    let since = max 0L (seconds follow.Since - 1L)

    asked
        "trades"
        $"/markets/trades?ticker={escaped (string follow.Market)}&limit=1000&min_ts={since}{after}"
        (Walk.Trades(follows, state))

/// The times of a page's oldest and newest rows; nothing when it has none.
let private bounds from (batch: Batch) : Interval voption =
    let mutable found: Interval voption = ValueNone

    for i in from .. batch.Trades.Count - 1 do
        let at = batch.Trades[i].At

        found <-
            match found with
            | ValueNone -> ValueSome { Since = at; Until = at }
            | ValueSome one ->
                ValueSome {
                    Since = (if at.Micros < one.Since.Micros then at else one.Since)
                    Until = (if at.Micros > one.Until.Micros then at else one.Until)
                }

    found

/// The row that a page begins with: seeing it again means that the walk goes in a circle.
let private firstOf from (batch: Batch) =
    if batch.Trades.Count > from then
        "first " + batch.Text batch.Trades[from].Transaction
    else
        ""

/// A trade this much later than our clock does not move the watermark: a clock that is wrong must not hide what follows.
let private tolerance = TimeSpan.FromSeconds 5.0

let private decodeTrades
    (question: Request)
    (follows: Follow list)
    (state: PageState)
    (body: ReadOnlyMemory<byte>)
    (batch: Batch)
    =
    let json = body.Span
    let mark, from = batch.Mark(), batch.Trades.Count
    let mutable cursor, at = ValueNone, 0

    let fault =
        if state.Route = "rows" then
            match Json.oneOrMany json &at question.Path (tradeReader true) batch with
            | ValueSome fault -> ValueSome fault
            | ValueNone -> Json.``end`` json at
        else
            page json question.Path [ struct (3, tradeReader follows.IsEmpty) ] batch &cursor

    let found, first = bounds from batch, firstOf from batch

    let head =
        match found with
        | ValueSome found when found.Until <= batch.Received + tolerance -> ValueSome found.Until
        | _ -> ValueNone

    let isAgain =
        cursor.IsSome && state.Seen.Contains cursor.Value
        || first <> "" && state.Seen.Contains first

    let decoded =
        match fault, cursor, follows with
        | ValueSome fault, _, _ -> Decoded.faulty fault
        | _, _, [] -> Decoded.nothing // a recording: nothing is asked
        | _ when isAgain ->
            batch.Rollback mark
            Decoded.faulty (Fault.RepeatedPage(ValueOption.defaultValue first cursor))
        | _, ValueNone, _ -> Decoded.nothing
        | _, ValueSome _, follow :: _ when
            found.IsSome && found.Value.Since < follow.Since - TimeSpan.FromSeconds 2.0
            ->
            Decoded.nothing
        | _, ValueSome _, follow :: _ when state.Page >= longestWalk ->
            let reached =
                match found with
                | ValueSome found -> found.Since + TimeSpan.FromSeconds 1.0
                | ValueNone -> follow.Since

            {
                Decoded.nothing with
                    Truncated = [ struct (follow.Market, follow.Since, reached) ]
            }
        | _, ValueSome cursor, _ ->
            let next = {
                state with
                    Page = state.Page + 1
                    Seen = state.Seen.Add cursor |> Set.add first
            }

            {
                Decoded.nothing with
                    Next = [ tradesPage follows next (ValueSome cursor) ]
            }

    { decoded with Head = head }

// ---- the past: live and archive (section 4)

// Trades before a cut-off, which moves, are in the archive alone. So: read the cut-off, walk the archive up to it and what is live from it
// on, overlapping, and read it again: if it moved meanwhile, what lies between is asked of the archive once more. The place is a step, the
// cut-off in seconds, and the cursor.

let private overlap = 3_600L

let private readAll (state: HistoryState) = {
    Decoded.nothing with
        IsWhole = true
        Read = [
            {
                Since = state.Since
                Until = state.Until
            }
        ]
}

let private ticker (state: HistoryState) = string state.Markets.Head

let private askPast (state: HistoryState) : Request =
    let walk = Walk.History state
    let name = escaped (ticker state)
    let first, last = max 0L (seconds state.Since - 1L), seconds state.Until + 1L

    let after cursor =
        if cursor = "" then "" else $"&cursor={cursor}"

    match state.Place.Split ' ' with
    | [| "old"; cutoff; cursor; _ |] ->
        let until = min last (int64 cutoff + overlap)

        asked
            "historical"
            $"/historical/trades?ticker={name}&limit=1000&min_ts={first}&max_ts={until}{after cursor}"
            walk
    | [| "new"; cutoff; cursor; _ |] ->
        let since = max first (int64 cutoff - overlap)

        asked
            "trades"
            $"/markets/trades?ticker={name}&limit=1000&min_ts={since}&max_ts={last}{after cursor}"
            walk
    | _ -> asked "historical" "/historical/cutoff" walk

let private at place (state: HistoryState) = askPast { state with Place = place }

let private decodeCutoff (state: HistoryState) (body: ReadOnlyMemory<byte>) =
    let mutable cutoff = Instant.ofMicros 0L

    let text =
        RawValue.membersOf body
        |> Option.map (fun members -> RawObject.textOf members "trades_created_ts")
        |> Option.defaultValue ""

    if not (Instant.tryIso (ReadOnlySpan(Encoding.UTF8.GetBytes text)) &cutoff) then
        Decoded.faulty (Fault.Undecodable(0, "a cut-off without a readable 'trades_created_ts'"))
    else
        let now = seconds cutoff

        let walk =
            match state.Place.Split ' ' with
            | [| "again"; before |] when
                now <= int64 before || state.Until <= Instant.ofSeconds (int64 before)
                ->
                ValueNone
            | [| "again"; _ |] -> ValueSome $"old {now}  "
            | _ when state.Since < cutoff -> ValueSome $"old {now}  "
            | _ -> ValueSome $"new {now}  "

        match walk with
        | ValueNone -> readAll state
        | ValueSome place -> {
            Decoded.nothing with
                Next = [ at place state ]
          }

let private decodePast (question: Request) (state: HistoryState) (body: ReadOnlyMemory<byte>) (batch: Batch) =
    match state.Place.Split ' ' with
    | [| ("old" | "new") as step; cutoff; asked; mark' |] ->
        let mark, from = batch.Mark(), batch.Trades.Count
        let mutable cursor = ValueNone

        let fault =
            page body.Span question.Path [ struct (3, tradeReader false) ] batch &cursor

        // The trade that a page begins with tells it from the one before, whatever its cursor.
        let first =
            if batch.Trades.Count > from then
                escaped (batch.Text batch.Trades[from].Transaction)
            else
                ""

        // A circle of any length comes back to a cursor that is kept, for ever more pages; see Brent's algorithm.
        let before, kept, steps, limit =
            match mark'.Split '|' with
            | [| before; kept; steps; limit |] -> before, kept, int steps, int limit
            | _ -> mark', "", 0, 1

        let marks next =
            if steps + 1 = limit then
                $"{first}|{next}|0|{2 * limit}"
            else
                $"{first}|{kept}|{steps + 1}|{limit}"

        match fault, cursor with
        | ValueSome fault, _ -> Decoded.faulty fault
        | _, ValueSome next when escaped next = asked || escaped next = kept || first <> "" && first = before ->
            batch.Rollback mark
            Decoded.faulty (Fault.RepeatedPage next)
        | _, ValueSome next -> {
            Decoded.nothing with
                IsWhole = true
                Next = [ at $"{step} {cutoff} {escaped next} {marks (escaped next)}" state ]
          }
        | _ when step = "old" && state.Until > Instant.ofSeconds (int64 cutoff) -> {
            Decoded.nothing with
                IsWhole = true
                Next = [ at $"new {cutoff}  " state ]
          }
        | _ -> {
            Decoded.nothing with
                IsWhole = true
                Next = [ at $"again {cutoff}" state ]
          }
    | _ -> decodeCutoff state body

// ---- candlesticks: the last price of each minute in which anything traded

/// Ten thousand candles come in one answer.
let private longestCandles = 10_000L * 60L

let private askCandles (state: HistoryState) : Request =
    let first =
        match state.Place with
        | "" -> seconds state.Since
        | place -> int64 place

    let last = min (seconds state.Until) (first + longestCandles - 60L)

    asked
        "candlesticks"
        $"/markets/candlesticks?market_tickers={escaped (ticker state)}&start_ts={first}&end_ts={last}&period_interval=1"
        (Walk.History { state with Place = string first })

let private candlesMembers = Members [ "market_ticker"; "candlesticks" ]
let private candlesPage = Members [ "markets" ]
let private candleMembers = Members [ "end_period_ts"; "price" ]
let private closeMembers = Members [ "close_dollars" ]

let private candleReader market token =
    RowReader(fun json at batch ->
        let mutable walk = Members.Begin(json, &at)
        let mutable start, length, rounded = 0, 0, false
        let mutable moment, price, isTraded = ValueNone, ValueNone, false

        while candleMembers.Next(json, &at, &walk) do
            match walk.Index with
            | 0 ->
                walk.Ok <- Json.numeral json &at &start &length
                let mutable read = Instant.ofMicros 0L

                if walk.Ok && Instant.tryEpoch (json.Slice(start, length)) &read then
                    moment <- ValueSome read
            | 1 when Json.peek json &at = '{'B ->
                isTraded <- true
                let mutable inside = Members.Begin(json, &at)

                while closeMembers.Next(json, &at, &inside) do
                    if inside.Index = 0 then
                        // Null, as all prices are, where nothing traded.
                        isTraded <- Json.peek json &at <> 'n'B
                        inside.Ok <- Json.numeral json &at &start &length
                        let mutable value = 0L

                        if
                            inside.Ok
                            && length > 0
                            && Fixed.parse (json.Slice(start, length)) &value &rounded = NumberFault.None
                        then
                            price <- ValueSome value
                    else
                        inside.Ok <- Json.skip json &at

                walk.Ok <- inside.Ok
            | _ -> walk.Ok <- Json.skip json &at

        match moment, price with
        | _ when not walk.Ok -> "the candlestick breaks off or is malformed"
        | ValueNone, _ -> "a candlestick without a readable 'end_period_ts'"
        | _, ValueSome price when price < 0L || price > Fixed.One -> "the price lies outside 0 to 1"
        | ValueSome moment, ValueSome price ->
            let row: PriceRow = {
                Market = market
                Token = token
                At = moment
                Received = batch.Received
                Kind = PriceKind.History
                Price = Price.ofMillionths price
                Inserted = false
            }

            batch.Prices.Add &row
            null
        | _, ValueNone when isTraded -> "a candlestick whose price has no 'close_dollars' that is a number"
        | _, ValueNone -> null) // nothing traded

let private decodeCandles
    (question: Request)
    (state: HistoryState)
    (body: ReadOnlyMemory<byte>)
    (batch: Batch)
    =
    let json = body.Span
    let name = ReadOnlySpan(Encoding.UTF8.GetBytes(ticker state))

    let reader =
        candleReader (batch.Names.Intern name) (tokenOf (Array.zeroCreate 256) batch.Names name yes)

    let series source =
        RowReader(fun json at batch ->
            let mutable walk = Members.Begin(json, &at)
            let mutable fault, isThere = ValueNone, false

            while fault.IsNone && candlesMembers.Next(json, &at, &walk) do
                if walk.Index = 1 then
                    isThere <- true

                    if not (Json.takeNull json &at) then
                        fault <- Json.rows json &at source reader batch
                else
                    walk.Ok <- Json.skip json &at

            if walk.Ok && fault.IsNone && not isThere then
                "a market without 'candlesticks'"
            elif fault.IsSome || not walk.Ok then
                "the candlesticks break off or are malformed"
            else
                null)

    let mutable cursor = 0
    let mutable walk = Members.Begin(json, &cursor)
    let mutable fault, isThere = ValueNone, false

    while fault.IsNone && candlesPage.Next(json, &cursor, &walk) do
        if walk.Index = 0 then
            isThere <- true

            if not (Json.takeNull json &cursor) then
                fault <- Json.rows json &cursor question.Path (series question.Path) batch
        else
            walk.Ok <- Json.skip json &cursor

    let next =
        match state.Place with
        | "" -> seconds state.Since
        | place -> int64 place + longestCandles

    if fault.IsSome then
        Decoded.faulty fault.Value
    elif not walk.Ok || not isThere then
        Decoded.faulty (Fault.Undecodable(cursor, "an answer without 'markets', or one that breaks off"))
    elif next < seconds state.Until then
        {
            Decoded.nothing with
                Next = [ askCandles { state with Place = string next } ]
        }
    else
        readAll state

let private sources: HistorySource list = [
    {
        Name = "trades"
        Stream = Stream.History
        Limits = {
            Source = "trades"
            Horizon = ValueNone
            Omits = ""
        }
        IsUsual = true
        CanJump = true
        FromStart = false
        Withholds = Cause.Truncated
        MostMarkets = 1
        Endpoint = "trades"
        PageRows = 1000
        Ask = askPast
    }
    {
        Name = "candles"
        Stream = Stream.Prices
        Limits = {
            Source = "candles"
            Horizon = ValueNone
            Omits = "markets of the archive"
        }
        IsUsual = false
        CanJump = true
        FromStart = false
        Withholds = Cause.Truncated
        MostMarkets = 1
        Endpoint = "candlesticks"
        PageRows = 10_000
        Ask = askCandles
    }
]

// ---- the stream (section 7)

let private envelopeMembers = Members [ "type"; "sid"; "seq"; "msg"; "id" ]

let private changeMembers =
    Members [
        "market_ticker"
        "market_id"
        "price_dollars"
        "delta_fp"
        "side"
        "ts_ms"
        "ts"
    ]

let private snapshotMembers =
    Members [ "market_ticker"; "market_id"; "yes_dollars_fp"; "no_dollars_fp"; "ts_ms" ]

let private answerMembers =
    Members [ "channel"; "sid"; "code"; "msg"; "market_ticker" ]

let private lifeMembers = Members [ "market_ticker"; "event_type" ]

let private deltaWord, snapshotWord, tradeWord =
    "orderbook_delta"B, "orderbook_snapshot"B, "trade"B

let private subscribedWord, okWord, errorWord = "subscribed"B, "ok"B, "error"B
let private unsubscribedWord = "unsubscribed"B

let private lifeWord, createdWord, settledWord =
    "market_lifecycle_v2"B, "created"B, "settled"B

let private tickerWord = "ticker"B

let private tickerMembers =
    Members [
        "market_ticker"
        "yes_bid_dollars"
        "yes_ask_dollars"
        "yes_bid_size_fp"
        "yes_ask_size_fp"
        "ts_ms"
        "ts"
    ]

// Nearly all messages are of this form:
//
//   {"type":"orderbook_delta","sid":1,"seq":3,"msg":{"market_ticker":"…","market_id":"<36 characters>","price_dollars":"0.3900",
//    "delta_fp":"-95.50","side":"no","ts_ms":1795341600017}}
//
// Hot: what comes before the number is the same in all of them, and what stands between the number and the price the same in all of a market.
// The keys behind are compared as numbers, eight bytes each, the last ones overlapping. Any other form is read with care.
let private deltaTicker = ",\"msg\":{\"market_ticker\":\""B

let private deltaId, deltaPrice = "\",\"market_id\":\""B, "\",\"price_dollars\":\""B

[<Literal>]
let private Size0 = 0x5F61746C6564222CUL // ,"delta_

[<Literal>]
let private Size1 = 0x223A2270665F6174UL // ta_fp":"

[<Literal>]
let private Side0 = 0x3A2265646973222CUL // ,"side":

[<Literal>]
let private Yes1 = 0x74222C2273657922UL // "yes","t

[<Literal>]
let private No1 = 0x7374222C226F6E22UL // "no","ts

[<Literal>]
let private Millis = 0x3A22736D5F737422UL // "ts_ms":

/// As much as any of these keys needs.
[<Literal>]
let private KeyRoom = 24

let private openingOf sid =
    Encoding.UTF8.GetBytes $"{{\"type\":\"orderbook_delta\",\"sid\":{sid},\"seq\":"

/// What the changes of a market say between their number and their price.
[<Struct; NoComparison; NoEquality>]
type private Heading = { Bytes: byte[] | null; Market: Name }

let private idLength = 36

/// Of so many messages it is known what they said.
let private keptMessages = 16

let inline private mixed (a: uint64) (b: uint64) =
    (a ^^^ (b * 0x9E3779B97F4A7C15UL)) * 0xC2B2AE3D27D4EB4FUL

/// What stands for a message.
let private contentOf (json: ReadOnlySpan<byte>) =
    let mutable sum = 0xCBF29CE484222325UL

    for i in 0 .. json.Length - 1 do
        sum <- (sum ^^^ uint64 json[i]) * 0x100000001B3UL

    sum

/// A time of the exchange's that is so far beyond ours is none.
let private mostAhead = TimeSpan.FromHours 1.0

let inline private isBeyond (moment: Instant) (received: Instant) =
    moment.Micros - received.Micros > mostAhead.Ticks / 10L

let private alreadySubscribed = 6

/// Errors that one of a command's markets may have caused; of others, such as a fault of the exchange's own, none is the cause.
let private isOfTickers code =
    match code with
    | 1
    | 2
    | 6
    | 11
    | 14
    | 16 -> true
    | code -> code >= 19 && code <= 22

let private otherScale =
    "bids for YES and NO add up to more than 1: the prices of NO are not on the scale that was asked for"

/// Takes these bytes.
let inline private takes (json: ReadOnlySpan<byte>) (at: byref<int>) (word: byte[]) =
    if Json.isAt json at word then
        at <- at + word.Length
        true
    else
        false

/// Takes digits, 18 at most.
let inline private takesDigits (json: ReadOnlySpan<byte>) (at: byref<int>) (value: byref<int64>) =
    let start = at
    let mutable number = 0L

    if at + 8 <= json.Length && Fixed.areDigits (Json.eight json at) then
        number <- Fixed.ofDigits (Json.eight json at)
        at <- at + 8

    while at < json.Length && json[at] - '0'B <= 9uy do
        number <- number * 10L + int64 (json[at] - '0'B)
        at <- at + 1

    value <- number
    at > start && at - start <= 18

/// Small whole numbers: subscriptions, sequences, ids.
let private whole (json: ReadOnlySpan<byte>) (at: byref<int>) (value: byref<int>) =
    let mutable start, length, used = 0, 0, 0

    if Json.takeNull json &at then
        true
    else
        Json.number json &at &start &length
        && Utf8Parser.TryParse(json.Slice(start, length), &value, &used)
        && used = length

/// A number in millionths; what is null or empty leaves it as it is.
let private millionths (json: ReadOnlySpan<byte>) (at: byref<int>) (value: byref<int64>) =
    let mutable start, length, rounded = 0, 0, false

    Json.numeral json &at &start &length
    && (length = 0
        || Fixed.parse (json.Slice(start, length)) &value &rounded = NumberFault.None)

/// The time of a message: its milliseconds, else what stands beside them, in seconds or as a text.
let private stamp
    (json: ReadOnlySpan<byte>)
    (at: byref<int>)
    areMillis
    (isMillis: byref<bool>)
    (moment: byref<Instant voption>)
    =
    let mutable start, length, read = 0, 0, Instant.ofMicros 0L
    let isSound = Json.numeral json &at &start &length

    if
        isSound
        && length > 0
        && not isMillis
        && Instant.tryRead (json.Slice(start, length)) &read
    then
        isMillis <- areMillis
        moment <- ValueSome read

    isSound

/// A channel's subscription: there is one for all markets, because numbers go over all of them.
[<Sealed>]
type private Subscription(channel: string) =
    member _.Channel = channel
    /// Its number; negative as long as it is not known.
    member val Sid = -1 with get, set
    /// A command to make it is on its way.
    member val IsAsked = false with get, set
    /// What is to be said when it has a number.
    member val Waiting = List<struct (string * string list)>()
    /// Markets that the exchange said are in it.
    member val Joined = HashSet<string>()
    /// Markets that it refused.
    member val Barred = HashSet<string>()

/// What a command asked for: an error names its id alone.
[<Struct>]
type private Command = {
    /// `subscribe` to a channel, or what an `update_subscription` does.
    What: string
    Tickers: string list
    /// The subscription that it is about; nothing for news of markets.
    Of: Subscription | null
}

/// A conversation. It remembers the numbers of its subscriptions and of their messages, for they tell what is missing: numbers go over all
/// markets of a subscription.
[<Sealed>]
type private Conversation() =
    let buffer: byte[] = Array.zeroCreate 256
    let mutable lastId = 0

    let books, trades, tickers =
        Subscription "orderbook_delta", Subscription "trade", Subscription "ticker"

    // Each has its markets, and numbers of its own.
    let subscriptions = [ books; trades; tickers ]
    // The last number of the subscription to books; negative before the first.
    let mutable sequence = -1
    // Answers have numbers as well, or have not: the last one in a row since then, and whether a change was seen to follow such a number
    // (1), or to have it itself (-1).
    let mutable answered, answersCount = -1, 0
    // What the latest numbers said, by which a second delivery is told from another message of its number.
    let keptNumbers: int[] = Array.create keptMessages -1
    let keptContents: uint64[] = Array.zeroCreate keptMessages
    // The exchange's time as far as it is known: never earlier than before, because numbers say what came first.
    let mutable clock: Instant voption = ValueNone
    // As long as no message said its time: when the first book came, by ours.
    let mutable ours: Instant voption = ValueNone
    // The least time that a message took, in microseconds, by our clock: it may be wrong, and the message early.
    let mutable lag = Int64.MaxValue
    // Up to here every message came.
    let mutable reached = Instant.ofMicros 0L
    // NO's prices are those of YES, as asked for. A book that can be read in one way only shows it.
    let mutable isYesScale, isShown, isContradicted = true, false, false
    // The message at hand: its subscription and number, and whether books may be what it is about.
    let mutable heardSid, heardNumber, isOfBooks = -1, 0, true
    // A message without a number was refused: it may be the next one.
    let mutable isOneRefused = false
    let commands = Dictionary<int, Command>()
    // How many tokens of a market are wanted.
    let wanted = Dictionary<string, HashSet<string>>()

    let quoted (tickers: string list) =
        tickers |> List.map (fun ticker -> $"\"{ticker}\"") |> String.concat ","

    let command what (tickers: string list) subscription (text: string) =
        lastId <- lastId + 1

        commands[lastId] <- {
            What = what
            Tickers = tickers
            Of = subscription
        }

        $"{{\"id\":{lastId},{text}}}"

    let subscribe channel (tickers: string list) (subscription: Subscription | null) =
        // The scale of NO's prices is said, because its default is going to change.
        let scale =
            if channel = "orderbook_delta" then
                ",\"use_yes_price\":true"
            else
                ""

        let markets =
            if tickers.IsEmpty then
                ""
            else
                $",\"market_tickers\":[{quoted tickers}]"

        match subscription with
        | null -> ()
        | subscription -> subscription.IsAsked <- true

        command
            channel
            tickers
            subscription
            $"\"cmd\":\"subscribe\",\"params\":{{\"channels\":[\"{channel}\"]{markets}{scale}}}"

    let update (subscription: Subscription) action (tickers: string list) =
        command
            action
            tickers
            subscription
            $"\"cmd\":\"update_subscription\",\"params\":{{\"sids\":[{subscription.Sid}],\"action\":\"{action}\",\"market_tickers\":[{quoted tickers}]}}"

    let isComing (subscription: Subscription) (ticker: string) =
        commands.Values
        |> Seq.exists (fun command ->
            obj.ReferenceEquals(command.Of, subscription)
            && (command.What = "add_markets" || command.What = subscription.Channel)
            && List.contains ticker command.Tickers)

    /// Markets of a subscription; what comes before it has a number waits for it. There is never a second one: its numbers would be others.
    let change (subscription: Subscription) action (tickers: string list) = [
        let tickers =
            if action = "delete_markets" then
                tickers
            else
                tickers |> List.filter (subscription.Barred.Contains >> not)

        if tickers.IsEmpty then
            ()
        elif subscription.Sid >= 0 then
            match action with
            | "get_snapshot" ->
                // A market that is not in the subscription would have a book that never changes.
                let joined, others = tickers |> List.partition subscription.Joined.Contains

                if not joined.IsEmpty then
                    update subscription action joined

                match others |> List.filter (isComing subscription >> not) with
                | [] -> ()
                | idle -> update subscription "add_markets" idle
            | "delete_markets" ->
                subscription.Joined.ExceptWith tickers
                update subscription action tickers
            | _ -> update subscription action tickers
        elif subscription.IsAsked then
            // Whole books come by themselves with a subscription.
            if action <> "get_snapshot" then
                subscription.Waiting.Add(struct (action, tickers))
        elif action <> "delete_markets" then
            subscribe subscription.Channel tickers subscription
    ]

    /// Says what waited. Without a subscription, the first of it makes one, and the rest waits on.
    let release (subscription: Subscription) (frame: Frame) =
        let held = subscription.Waiting.ToArray()
        subscription.Waiting.Clear()

        for struct (action, tickers) in held do
            frame.Replies.AddRange(change subscription action tickers)

    let want (tokens: TokenId list) = [
        for token in tokens do
            let ticker = tickerOf token

            match wanted.TryGetValue ticker with
            | true, own -> own.Add(string token) |> ignore
            | _ ->
                wanted[ticker] <- HashSet [ string token ]
                ticker
    ]

    let leave (tokens: TokenId list) = [
        for token in tokens do
            let ticker = tickerOf token

            match wanted.TryGetValue ticker with
            | true, own when own.Remove(string token) && own.Count = 0 ->
                wanted.Remove ticker |> ignore
                ticker
            | _ -> ()
    ]

    let timeOf (frame: Frame) =
        match clock, ours with
        | ValueSome told, _ -> told
        | _, ValueSome came -> came
        | _ -> frame.Batch.Received

    let event (frame: Frame) kind market token : StreamEvent = {
        Kind = kind
        Market = market
        Token = token
        At = timeOf frame
        Message = frame.Messages
        Side = Side.Buy
        Price = 0L
        Size = 0L
        BestBid = -1L
        BestAsk = -1L
        Hash = Slice.none
        Text = Slice.none
        Detail = Slice.none
        Row = -1
        Sequence = 0
        IsLast = true
    }

    let passed (moment: Instant) (received: Instant) =
        lag <- min lag (received.Micros - moment.Micros)

        match clock with
        | ValueSome before when before.Micros >= moment.Micros -> ()
        | ValueSome _ ->
            clock <- ValueSome moment
            reached <- if reached.Micros > moment.Micros then reached else moment
        | ValueNone ->
            // From here on it is the exchange's clock that counts.
            clock <- ValueSome moment
            reached <- moment

    /// Of all that the subscription to books tells, something is missing after this moment.
    let lose (good: Instant) (frame: Frame) =
        let lost = {
            event frame StreamKind.Lost { Key = 0 } { Key = 0 } with
                At = good
        }

        frame.Events.Add &lost

    // The tokens of a market, by the number of its name.
    let mutable pairs: (struct (Name * Name))[] = Array.zeroCreate 1024

    let tokensOf (names: Names) (market: Name) (ticker: ReadOnlySpan<byte>) : struct (Name * Name) =
        if market.Key >= pairs.Length then
            Array.Resize(&pairs, max (market.Key + 1) (2 * pairs.Length))

        let struct (known, _) = pairs[market.Key]

        if known.Key = 0 then
            pairs[market.Key] <- struct (tokenOf buffer names ticker yes, tokenOf buffer names ticker no)

        pairs[market.Key]

    /// A change of both tokens' books.
    let addChange (frame: Frame) (ticker: ReadOnlySpan<byte>) (market: Name) isYes price size number =
        let struct (yes, no) = tokensOf frame.Batch.Names market ticker
        let at = timeOf frame

        let change: StreamEvent = {
            Kind = StreamKind.Shift
            Market = market
            Token = yes
            At = at
            Message = frame.Messages
            Side = if isYes then Side.Buy else Side.Sell
            Price = if isYes || isYesScale then price else Fixed.One - price
            Size = size
            BestBid = -1L
            BestAsk = -1L
            Hash = Slice.none
            Text = Slice.none
            Detail = Slice.none
            Row = -1
            Sequence = number
            IsLast = true
        }

        frame.Events.Add &change
        frame.Events.Add &change
        let mirrored = &frame.Events[frame.Events.Count - 1]
        mirrored.Token <- no
        mirrored.Side <- if isYes then Side.Sell else Side.Buy
        mirrored.Price <- Fixed.One - change.Price

    /// Notes the number of a message with data: whether it is new. Where numbers are missing, or begin anew, that is said.
    /// `content` stands for all that it says.
    let isNext number (content: uint64) (frame: Frame) =
        let place = number % keptMessages

        if
            sequence >= 0
            && number <= sequence
            && keptNumbers[place] = number
            && keptContents[place] = content
        then
            frame.Repeats <- frame.Repeats + 1L
            false
        else
            if sequence < 0 || number = sequence + 1 then
                // An answer had this number, too: answers have none of their own.
                if sequence >= 0 && answered >= number then
                    answersCount <- -1
            elif answersCount >= 0 && answered > sequence && number = answered + 1 then
                answersCount <- 1
            elif not (isOneRefused && number > sequence) then
                lose reached frame

            sequence <- number
            answered <- -1
            isOneRefused <- false
            keptNumbers[place] <- number
            keptContents[place] <- content
            true

    /// Notes the number of an answer: it explains itself, and moves nothing else.
    let answerNumber number (frame: Frame) =
        let last = max sequence answered

        if sequence >= 0 && answersCount >= 0 then
            if number = last + 1 then
                answered <- number
            elif number > last && answersCount > 0 then
                lose reached frame
                answered <- number

    /// A subscription without a number has the first one that is heard of.
    let adopt sid (frame: Frame) =
        if books.Sid < 0 && sid >= 0 then
            books.Sid <- sid
            release books frame

    /// `{"market_ticker":"…","market_id":"…","price_dollars":"0.3900","delta_fp":"-95.50","side":"no","ts_ms":1795341600017}`
    let delta (json: ReadOnlySpan<byte>) (at: byref<int>) number (frame: Frame) : string | null =
        let mutable walk = Members.Begin(json, &at)
        let mutable start, length, rounded = 0, 0, false
        let mutable ticker = Slice.none
        let mutable price, size, hasPrice, hasSize, side = 0L, 0L, false, false, 0uy
        let mutable moment, isMillis = ValueNone, false

        while changeMembers.Next(json, &at, &walk) do
            match walk.Index with
            | 0 ->
                walk.Ok <- Json.string json &at &start &length
                ticker <- sliced start length
            | 2 ->
                walk.Ok <- Json.numeral json &at &start &length

                hasPrice <-
                    walk.Ok
                    && length > 0
                    && Fixed.parse (json.Slice(start, length)) &price &rounded = NumberFault.None
            | 3 ->
                walk.Ok <- Json.numeral json &at &start &length

                hasSize <-
                    walk.Ok
                    && length > 0
                    && Fixed.parse (json.Slice(start, length)) &size &rounded = NumberFault.None
            | 4 ->
                walk.Ok <- Json.string json &at &start &length

                if walk.Ok && length > 0 then
                    side <- json[start]
            | 5
            | 6 -> walk.Ok <- stamp json &at (walk.Index = 5) &isMillis &moment
            | _ -> walk.Ok <- Json.skip json &at

        if not walk.Ok then
            "the change is malformed"
        elif not (isTicker (json.Slice(ticker.Start, ticker.Length))) then
            "a change without its market's ticker"
        elif not hasPrice then
            "a change whose price is not a number"
        elif not hasSize then
            "a change whose size is not a number"
        elif side <> 'y'B && side <> 'n'B then
            "a change whose side is neither yes nor no"
        elif price < 0L || price > Fixed.One then
            "a change whose price lies outside 0 to 1"
        else
            match moment with
            | ValueSome moment when isBeyond moment frame.Batch.Received ->
                "a change whose time lies in the future"
            | moment ->
                match moment with
                | ValueSome moment -> passed moment frame.Batch.Received
                | ValueNone -> ()

                let ticker = json.Slice(ticker.Start, ticker.Length)
                addChange frame ticker (frame.Batch.Names.Intern ticker) (side = 'y'B) price size number
                null

    /// Whether the sides of a book are on the scale that holds. Bids for YES and for NO never add up to 1, so most books can be read in one
    /// way only. What contradicts the scale condemns it for the whole connection, unless it was shown before: then a second one does.
    let isOnScale firstYes countYes firstNo countNo (frame: Frame) =
        let levels = frame.Batch.Levels

        if countYes = 0 || countNo = 0 then
            // It can be read in both ways, so it tells nothing, and is told by what others show.
            not isContradicted
        else
            let best = levels[firstYes].Price.Millionths
            let bid = levels[firstNo].Price.Millionths
            // The best bid for NO if prices are on the other scale: the one that is worst on this.
            let other = Fixed.One - levels[firstNo + countNo - 1].Price.Millionths
            let isHere, isThere = best + bid < Fixed.One, best + other < Fixed.One

            if isHere && isThere then
                not isContradicted
            elif isHere then
                isShown <- true
                isContradicted <- false
                true
            elif not isThere then
                // Crossed on either.
                false
            elif isShown && not isContradicted then
                isContradicted <- true
                false
            else
                isYesScale <- not isYesScale
                isShown <- false
                isContradicted <- false
                let scale = if isYesScale then "YES" else "NO"

                frame.Notes.Add
                    $"prices of NO are read as prices of {scale} from here on, as a book shows; those that this connection told before may be wrong where they could be read both ways"

                // All books are asked for anew, this one too.
                false

    /// Replaces both sides of a market; a missing one is empty.
    let snapshot (json: ReadOnlySpan<byte>) (at: byref<int>) number (frame: Frame) : string | null =
        let batch = frame.Batch
        let mutable walk = Members.Begin(json, &at)
        let mutable start, length = 0, 0
        let mutable ticker = Slice.none
        let mutable flags, reason = Flags.None, (null: string | null)
        let mutable firstYes, countYes, firstNo, countNo = 0, 0, 0, 0
        let mutable sidesHere, isStrange, stamp = 0, false, ValueNone

        while isNull reason && snapshotMembers.Next(json, &at, &walk) do
            match walk.Index with
            | 0 ->
                walk.Ok <- Json.string json &at &start &length
                ticker <- sliced start length
            | 2 ->
                sidesHere <- sidesHere + 1
                reason <- bids json &at false batch &flags &firstYes &countYes
            | 3 ->
                sidesHere <- sidesHere + 1
                reason <- bids json &at isYesScale batch &flags &firstNo &countNo
            | 4 ->
                let mutable read = Instant.ofMicros 0L
                walk.Ok <- Json.numeral json &at &start &length

                if walk.Ok && length > 0 && Instant.tryRead (json.Slice(start, length)) &read then
                    stamp <- ValueSome read
            | _ ->
                isStrange <- isStrange || Json.peek json &at = '['B
                walk.Ok <- Json.skip json &at

        if not (isNull reason) then
            reason
        elif not walk.Ok then
            "the book is malformed"
        elif not (isTicker (json.Slice(ticker.Start, ticker.Length))) then
            "a book without its market's ticker"
        elif isStrange && sidesHere < 2 then
            strangeSides
        elif stamp.IsSome && isBeyond stamp.Value batch.Received then
            "a book whose time lies in the future"
        elif not (isOnScale firstYes countYes firstNo countNo frame) then
            otherScale
        else
            match stamp with
            | ValueSome stamp -> passed stamp batch.Received
            | ValueNone -> ()

            // It says no time. By our clock it is of now, which by the exchange's is earlier by what messages take at least; and it is not
            // earlier than what was told last.
            let moment =
                match clock with
                | ValueSome told ->
                    let now = Instant.ofMicros (batch.Received.Micros - lag)

                    if told.Micros >= now.Micros then
                        told + TimeSpan.FromMilliseconds 1.0
                    else
                        now
                | ValueNone ->
                    match ours with
                    | ValueSome came when came.Micros >= batch.Received.Micros ->
                        came + TimeSpan.FromMilliseconds 1.0
                    | _ -> batch.Received

            if ours.IsNone then
                ours <- ValueSome moment

            books.Joined.Add(Encoding.UTF8.GetString(json.Slice(ticker.Start, ticker.Length)))
            |> ignore

            reached <- if reached.Micros > moment.Micros then reached else moment

            let row = batch.Books.Count

            addBooks
                batch
                (json.Slice(ticker.Start, ticker.Length))
                buffer
                (struct (firstYes, countYes))
                (struct (firstNo, countNo))
                moment
                Verdict.Verified
                flags

            for i in row .. row + 1 do
                let book = {
                    event frame StreamKind.Book batch.Books[i].Market batch.Books[i].Token with
                        Row = i
                        Sequence = number
                }

                frame.Events.Add &book

            null

    let trade (json: ReadOnlySpan<byte>) (at: byref<int>) (frame: Frame) : string | null =
        let mutable fill = Unchecked.defaultof<Fill>

        match readFill json &at false &fill with
        | null ->
            let names = frame.Batch.Names
            let ticker = json.Slice(fill.Ticker.Start, fill.Ticker.Length)

            let told = {
                event frame StreamKind.Trade (names.Intern ticker) (tokenOf buffer names ticker yes) with
                    At = fill.At
                    Side = fill.Side
                    Price = fill.Price
                    Size = fill.Size
                    Text = fill.Text
                    Detail = fill.Id
            }

            frame.Events.Add &told
            null
        | reason -> reason

    let life (json: ReadOnlySpan<byte>) (at: byref<int>) (frame: Frame) : string | null =
        let mutable walk = Members.Begin(json, &at)
        let mutable start, length = 0, 0
        let mutable ticker, what = Slice.none, Slice.none

        while lifeMembers.Next(json, &at, &walk) do
            match walk.Index with
            | 0 ->
                walk.Ok <- Json.string json &at &start &length
                ticker <- sliced start length
            | 1 ->
                walk.Ok <- Json.string json &at &start &length
                what <- sliced start length
            | _ -> walk.Ok <- Json.skip json &at

        let name = json.Slice(ticker.Start, ticker.Length)
        let what = json.Slice(what.Start, what.Length)

        if not walk.Ok || not (isTicker name) then
            "news of a market without its ticker"
        else
            let market = frame.Batch.Names.Intern name

            if what.SequenceEqual(ReadOnlySpan createdWord) then
                let told = {
                    event frame StreamKind.NewMarket market { Key = 0 } with
                        Text = ticker
                }

                frame.Events.Add &told
            elif what.SequenceEqual(ReadOnlySpan settledWord) then
                let told = event frame StreamKind.Resolved market { Key = 0 }
                frame.Events.Add &told

            null

    /// The best prices of a market, told by themselves: a witness of both tokens' books.
    let ticker (json: ReadOnlySpan<byte>) (at: byref<int>) (frame: Frame) : string | null =
        let mutable walk = Members.Begin(json, &at)
        let mutable start, length = 0, 0
        let mutable name, moment, isMillis = Slice.none, ValueNone, false
        // A price without a size is one of the time before sizes were told.
        let mutable bid, ask, bidSize, askSize = -1L, -1L, 1L, 1L

        while tickerMembers.Next(json, &at, &walk) do
            match walk.Index with
            | 0 ->
                walk.Ok <- Json.string json &at &start &length
                name <- sliced start length
            | 1 -> walk.Ok <- millionths json &at &bid
            | 2 -> walk.Ok <- millionths json &at &ask
            | 3 -> walk.Ok <- millionths json &at &bidSize
            | 4 -> walk.Ok <- millionths json &at &askSize
            | 5
            | 6 -> walk.Ok <- stamp json &at (walk.Index = 5) &isMillis &moment
            | _ -> walk.Ok <- Json.skip json &at

        let name = json.Slice(name.Start, name.Length)

        if not walk.Ok then
            "the ticker is malformed"
        elif not (isTicker name) then
            "a ticker without its market"
        elif bid < 0L || bid > Fixed.One || ask < 0L || ask > Fixed.One then
            "a ticker without best prices between 0 and 1"
        else
            // Prices of 0 and 1, and those without a size, are no offers.
            let bid = if bidSize = 0L || bid = Fixed.One then 0L else bid
            let ask = if askSize = 0L || ask = 0L then Fixed.One else ask
            let market = frame.Batch.Names.Intern name
            let struct (yes, no) = tokensOf frame.Batch.Names market name

            let told = {
                event frame StreamKind.BestPrices market yes with
                    At = ValueOption.defaultValue frame.Batch.Received moment
                    BestBid = bid
                    BestAsk = ask
            }

            frame.Events.Add &told

            let mirrored = {
                told with
                    Token = no
                    BestBid = Fixed.One - ask
                    BestAsk = Fixed.One - bid
            }

            frame.Events.Add &mirrored
            null

    /// Its subscription has a number now: what waited for it is said.
    let numbered (channel: string) sid (frame: Frame) =
        match subscriptions |> List.tryFind (fun one -> one.Channel = channel) with
        | Some subscription ->
            // What came before was of another one.
            if obj.ReferenceEquals(subscription, books) && books.Sid >= 0 && books.Sid <> sid then
                lose reached frame
                sequence <- -1
                answered <- -1

            subscription.Sid <- sid
            subscription.IsAsked <- false
            release subscription frame
        | None -> ()

    /// A command was carried out.
    let succeeded id =
        let mutable command = Unchecked.defaultof<Command>

        if commands.Remove(id, &command) then
            match command.Of with
            | null -> ()
            | subscription ->
                if command.What = "add_markets" || command.What = subscription.Channel then
                    subscription.Joined.UnionWith command.Tickers

    /// One bad market may spoil a whole command: it is tried again without it, or in halves. There is one subscription all the same: the
    /// second half is added to that of the first.
    let refused id code (detail: string) (culprit: string) (frame: Frame) =
        let mutable command = Unchecked.defaultof<Command>

        if not (commands.Remove(id, &command)) then
            frame.Notes.Add $"the exchange refused something: {detail} ({code})"
        else
            match command.Of with
            | null -> frame.Notes.Add $"'{command.What}' was refused: {detail} ({code})"
            | subscription ->
                let isSubscribe = command.What = subscription.Channel

                if isSubscribe then
                    subscription.IsAsked <- false

                let again (tickers: string list) =
                    tickers
                    |> List.filter wanted.ContainsKey
                    |> change subscription (if isSubscribe then "add_markets" else command.What)
                    |> frame.Replies.AddRange

                let bar (ticker: string) =
                    frame.Notes.Add $"'{command.What}' of market {ticker} was refused: {detail} ({code})"

                    if code = alreadySubscribed then
                        subscription.Joined.Add ticker |> ignore
                    elif isSubscribe || command.What = "add_markets" then
                        subscription.Barred.Add ticker |> ignore

                match command.Tickers with
                | tickers when culprit <> "" && List.contains culprit tickers ->
                    bar culprit
                    again (tickers |> List.filter ((<>) culprit))
                | tickers when
                    tickers.IsEmpty
                    || not (isOfTickers code)
                    || isSubscribe && code = alreadySubscribed
                    ->
                    frame.Notes.Add $"'{command.What}' was refused: {detail} ({code})"
                | [ ticker ] -> bar ticker
                | tickers -> tickers |> List.splitInto 2 |> List.iter again

                if
                    isSubscribe
                    && isOfTickers code
                    && subscription.Sid < 0
                    && not subscription.IsAsked
                then
                    release subscription frame

    /// An acknowledgement or an error, which have no rows.
    let answer (json: ReadOnlySpan<byte>) (at: byref<int>) isError id (frame: Frame) : string | null =
        if Json.peek json &at <> '{'B then
            let start = at

            if Json.skip json &at then
                if isError then
                    let text =
                        ValueOption.defaultValue "" (Json.tryText (json.Slice(start, at - start)))

                    refused id 0 (text.Trim '"') "" frame

                null
            else
                "the answer is malformed"
        else
            let mutable walk = Members.Begin(json, &at)
            let mutable start, length = 0, 0
            let mutable channel, detail, culprit = Slice.none, "", ""
            let mutable sid, code = -1, 0

            while answerMembers.Next(json, &at, &walk) do
                match walk.Index with
                | 0 ->
                    walk.Ok <- Json.string json &at &start &length
                    channel <- sliced start length
                | 1 -> walk.Ok <- whole json &at &sid
                | 2 -> walk.Ok <- whole json &at &code
                | 3
                | 4 as index ->
                    walk.Ok <- Json.textOrNull json &at &start &length

                    if walk.Ok then
                        let text = ValueOption.defaultValue "" (Json.tryText (json.Slice(start, length)))
                        if index = 3 then detail <- text else culprit <- text
                | _ -> walk.Ok <- Json.skip json &at

            if not walk.Ok then
                "the answer is malformed"
            else
                if isError then
                    refused id code detail culprit frame
                else
                    succeeded id

                if isError then
                    ()
                elif channel.Length > 0 && sid >= 0 then
                    numbered (Encoding.UTF8.GetString(json.Slice(channel.Start, channel.Length))) sid frame

                null

    /// One message. Its type decides how its content is read, wherever it stands.
    let message (json: ReadOnlySpan<byte>) (at: byref<int>) (frame: Frame) : string | null =
        let mutable walk = Members.Begin(json, &at)
        let mutable start, length = 0, 0
        let mutable kind = Slice.none
        let mutable sid, number, id = -1, 0, 0
        let mutable content, until = -1, -1

        while envelopeMembers.Next(json, &at, &walk) do
            match walk.Index with
            | 0 ->
                walk.Ok <- Json.string json &at &start &length
                kind <- sliced start length
            | 1 -> walk.Ok <- whole json &at &sid
            | 2 -> walk.Ok <- whole json &at &number
            | 3 ->
                Json.space json &at
                content <- at
                walk.Ok <- Json.skip json &at
                until <- at
            | 4 -> walk.Ok <- whole json &at &id
            | _ -> walk.Ok <- Json.skip json &at

        let over = at
        Json.space json &at

        if not walk.Ok then
            "the message is malformed"
        else
            let whole = json
            let kind = json.Slice(kind.Start, kind.Length)
            let isChange = kind.SequenceEqual(ReadOnlySpan deltaWord)
            let isBook = kind.SequenceEqual(ReadOnlySpan snapshotWord)
            let json = if content >= 0 then json.Slice(0, until) else json
            let isNumbered = number > 0 && sid >= 0
            let mutable inside = max 0 content
            heardSid <- sid
            heardNumber <- number
            isOfBooks <- isChange || isBook || sid >= 0 && sid = books.Sid || kind.IsEmpty

            let reason: string | null =
                if not (Utf8.IsValid whole) then
                    "not valid UTF-8"
                elif at < whole.Length then
                    "something follows the end of the JSON"
                elif isChange || isBook then
                    // It may overtake the acknowledgement that says its subscription's number.
                    adopt sid frame

                    if content < 0 then
                        "a book or a change without its content"
                    elif not isNumbered then
                        "a book or a change without its number"
                    elif sid <> books.Sid then
                        "a book or a change of a subscription that is not the one to books"
                    elif not (isNext number (contentOf whole) frame) then
                        null
                    elif isChange then
                        delta json &inside number frame
                    else
                        snapshot json &inside number frame
                elif kind.SequenceEqual(ReadOnlySpan tradeWord) && content >= 0 then
                    trade json &inside frame
                elif kind.SequenceEqual(ReadOnlySpan lifeWord) && content >= 0 then
                    life json &inside frame
                elif kind.SequenceEqual(ReadOnlySpan errorWord) && content >= 0 then
                    answer json &inside true id frame
                elif kind.SequenceEqual(ReadOnlySpan subscribedWord) && content >= 0 then
                    answer json &inside false id frame
                elif
                    kind.SequenceEqual(ReadOnlySpan okWord)
                    || kind.SequenceEqual(ReadOnlySpan unsubscribedWord)
                then
                    succeeded id

                    if isNumbered && sid = books.Sid then
                        answerNumber number frame

                    null
                elif kind.SequenceEqual(ReadOnlySpan tickerWord) && content >= 0 then
                    ticker json &inside frame
                else
                    frame.Unknown <- frame.Unknown + 1L
                    null

            at <- over
            reason

    // How a change begins, of the subscription to books; nothing as long as that has no number.
    let mutable opening, openingSid = Array.empty<byte>, -1
    // Headings that were read with care once: open addressing, by what the exchange's id of the market begins with.
    let mutable headings: Heading[] = Array.zeroCreate 1024
    let mutable headingsCount = 0

    let placeOf (key: uint64) (json: ReadOnlySpan<byte>) at =
        let mask = headings.Length - 1
        let mutable place = int ((key * 0x9E3779B97F4A7C15UL) >>> 33) &&& mask
        let mutable isElsewhere = true

        while isElsewhere do
            match headings[place].Bytes with
            | null -> isElsewhere <- false
            | bytes when Json.isAt json at bytes -> isElsewhere <- false
            | _ -> place <- (place + 1) &&& mask

        place

    /// The key of a heading, which begins with a ticker of this length; there are as many bytes.
    let keyOf (json: ReadOnlySpan<byte>) at length =
        Json.eight json (at + length + deltaId.Length)

    /// Reads the heading of a market with care, and keeps it.
    let learn (json: ReadOnlySpan<byte>) at length (frame: Frame) =
        let id = at + length + deltaId.Length
        let whole = length + deltaId.Length + idLength + deltaPrice.Length
        let ticker = json.Slice(at, length)

        // What is not compared with constants, or read as digits, has to be text that may be kept.
        if
            Ascii.IsValid ticker
            && isTicker ticker
            && Json.isAt json (at + length) deltaId
            && Ascii.IsValid(json.Slice(id, idLength))
            && Identity.isValid (json.Slice(id, idLength))
            && Json.isAt json (id + idLength) deltaPrice
        then
            if 2 * (headingsCount + 1) > headings.Length then
                let before = headings
                headings <- Array.zeroCreate (2 * before.Length)

                for heading in before do
                    match heading.Bytes with
                    | null -> ()
                    | bytes ->
                        let json = ReadOnlySpan bytes
                        let length = bytes.Length - deltaId.Length - idLength - deltaPrice.Length
                        headings[placeOf (keyOf json 0 length) json 0] <- heading

            headings[placeOf (keyOf json at length) json at] <- {
                Bytes = json.Slice(at, whole).ToArray()
                Market = frame.Batch.Names.Intern ticker
            }

            headingsCount <- headingsCount + 1

    /// A change in the usual form, the whole frame; or nothing of it.
    let usual (json: ReadOnlySpan<byte>) (frame: Frame) =
        if openingSid <> books.Sid then
            openingSid <- books.Sid

            opening <-
                if openingSid >= 0 then
                    openingOf openingSid
                else
                    Array.empty

        let mutable at = 0
        let mutable number, millis, price, size = 0L, 0L, 0L, 0L
        let mutable start, length, market = 0, 0, { Key = 0 }

        let mutable ok =
            opening.Length > 0
            && takes json &at opening
            && takesDigits json &at &number
            && takes json &at deltaTicker

        if ok then
            start <- at
            length <- json.Slice(at).IndexOf '"'B

            ok <-
                length > 0
                && at + length + deltaId.Length + idLength + deltaPrice.Length <= json.Length

        if ok then
            let key = keyOf json at length
            let mutable place = placeOf key json at

            if isNull headings[place].Bytes then
                learn json at length frame
                place <- placeOf key json at

            market <- headings[place].Market

            match headings[place].Bytes with
            | null -> ok <- false
            | bytes ->
                at <- at + bytes.Length

                ok <-
                    Fixed.tryQuoted json &at &price
                    && at + KeyRoom <= json.Length
                    && Json.eight json at = Size0
                    && Json.eight json (at + 5) = Size1

        let mutable isNegative, isYes = false, false

        if ok then
            at <- at + 13

            if json[at] = '-'B then
                isNegative <- true
                at <- at + 1

            ok <-
                Fixed.tryQuoted json &at &size
                && at + KeyRoom <= json.Length
                && Json.eight json at = Side0

        if ok then
            let side = Json.eight json (at + 8)

            if side = Yes1 && Json.eight json (at + 14) = Millis then
                isYes <- true
                at <- at + 22
            elif side = No1 && Json.eight json (at + 13) = Millis then
                at <- at + 21
            else
                ok <- false

        ok <-
            ok
            && takesDigits json &at &millis
            && at + 2 = json.Length
            && json[at] = '}'B
            && json[at + 1] = '}'B
            && price <= Fixed.One
            && number > 0L
            && number <= int64 Int32.MaxValue
            // Fewer digits may be seconds.
            && millis > 1_000_000_000_000L
            && millis < 100_000_000_000_000L
            && not (isBeyond (Instant.ofMillis millis) frame.Batch.Received)

        if ok then
            let content =
                mixed (mixed (mixed (uint64 price) (uint64 size)) (uint64 millis)) (uint64 market.Key)
                ^^^ (if isYes then 1UL else 0UL)
                ^^^ (if isNegative then 2UL else 0UL)

            if isNext (int number) content frame then
                passed (Instant.ofMillis millis) frame.Batch.Received

                let ticker = json.Slice(start, length)
                addChange frame ticker market isYes price (if isNegative then -size else size) (int number)

        ok

    member _.Open(tokens: TokenId list) = [
        let markets = want tokens

        for subscription in subscriptions do
            subscribe subscription.Channel markets subscription

        subscribe "market_lifecycle_v2" [] null
    ]

    member _.Subscribe(tokens: TokenId list) =
        let markets = want tokens
        subscriptions |> List.collect (fun one -> change one "add_markets" markets)

    member _.Unsubscribe(tokens: TokenId list) =
        let markets = leave tokens

        subscriptions |> List.collect (fun one -> change one "delete_markets" markets)

    member _.Renew(tokens: TokenId list) =
        change books "get_snapshot" (tickersOf tokens)

    member _.Decode(bytes: ReadOnlyMemory<byte>, received: Instant, frame: Frame) =
        let json = bytes.Span
        frame.Batch.Exchange <- "kalshi"
        frame.Batch.Received <- received
        frame.Messages <- frame.Messages + 1
        let mutable at = 0

        if not (usual json frame || Json.peek json &at = 0uy && at = json.Length) then
            let start = at
            let events, mark = frame.Events.Count, frame.Batch.Mark()
            frame.Unusual <- frame.Unusual + 1L

            heardSid <- -1
            heardNumber <- 0
            isOfBooks <- true
            let clockBefore, lagBefore, reachedBefore = clock, lag, reached

            match message json &at frame with
            | null ->
                let origin = sliced start (json.Length - start)

                while frame.Batch.BookOrigins.Count < frame.Batch.Books.Count do
                    frame.Batch.BookOrigins.Add &origin
            | reason ->
                // That numbers are missing stays said.
                let mutable kept, isLost = events, false

                for i in events .. frame.Events.Count - 1 do
                    if frame.Events[i].Kind = StreamKind.Lost then
                        isLost <- true
                        frame.Events[kept] <- frame.Events[i]
                        kept <- kept + 1

                frame.Events.Truncate kept
                frame.Batch.Rollback mark
                clock <- clockBefore
                lag <- lagBefore
                reached <- reachedBefore

                // What it would have changed is not known. Should it come again, it is no repeat.
                if isOfBooks then
                    keptNumbers[max 0 heardNumber % keptMessages] <- -1

                    if heardNumber > 0 && heardSid >= 0 && heardSid = books.Sid then
                        sequence <- max sequence heardNumber
                    else
                        isOneRefused <- true

                    if not isLost then
                        lose reached frame

                frame.Batch.Rejections.Add {
                    Exchange = "kalshi"
                    Source = "ws/v2"
                    Offset = start
                    Reason = reason
                    Bytes = json.Slice(start).ToArray()
                    Received = received
                }

let private session () : StreamSession =
    let conversation = Conversation()

    {
        Open = conversation.Open
        Subscribe = conversation.Subscribe
        Unsubscribe = conversation.Unsubscribe
        Renew = conversation.Renew
        Decode = fun bytes received frame -> conversation.Decode(bytes, received, frame)
    }

let private part: StreamPart = {
    Host = "ws_url"
    Path = "v2"
    // 256 markets in a subscription are known to work.
    MostTokens = 512
    // The exchange pings by the protocol itself, and answers such pings.
    Ping = ""
    PingEvery = TimeSpan.FromSeconds 10.0
    IsNumbered = true
    HasBooks = true
    Session = session
    Proof = fun _ _ -> BookProof.none
}

// ---- signing (section 6)

/// The headers of a request: the signature is over the time, the method and the path from the root on, without its query. The key is made
/// anew for each, for it is not known to serve several at once.
let private sign (id: string) (pem: string) (method: string) (path: string) (now: Instant) =
    use key = RSA.Create()
    key.ImportFromPem pem
    let stamp = string (now.Micros / 1_000L)
    let text = Encoding.UTF8.GetBytes(stamp + method.ToUpperInvariant() + path)

    let signature =
        key.SignData(text, HashAlgorithmName.SHA256, RSASignaturePadding.Pss)

    [
        "KALSHI-ACCESS-KEY", id
        "KALSHI-ACCESS-TIMESTAMP", stamp
        "KALSHI-ACCESS-SIGNATURE", Convert.ToBase64String signature
    ]

/// What reading may cost with a key: tokens in a second, of which a request takes ten. So many requests are allowed in ten seconds.
let private allowed (body: ReadOnlyMemory<byte>) : Map<string, int> =
    try
        use document = JsonDocument.Parse body

        let root = document.RootElement

        let read =
            if root.ValueKind = JsonValueKind.Object then
                Element.tryMember "read" root
            else
                ValueNone

        match read with
        | ValueSome read when read.ValueKind = JsonValueKind.Object ->
            match Element.number [ "refill_rate" ] read with
            | ValueSome rate when rate >= Fixed.One && rate <= 1_000_000L * Fixed.One ->
                Map [ "read_signed", int (rate / Fixed.One) ]
            | _ -> Map.empty
        | _ -> Map.empty
    with :? JsonException ->
        Map.empty

/// A private key in PEM, whose line ends may be written as `\n`; what is wrong with it otherwise, without a word of it.
let private keyOf (pem: string) : Result<string, string> =
    let pem = pem.Replace("\\n", "\n")

    try
        sign "" pem "GET" "" (Instant.ofMicros 0L) |> ignore
        Ok pem
    with
    | :? ArgumentException
    | :? CryptographicException -> Error "the key is no RSA private key in PEM"

// ---- together

let private ask hasKey (options: AskOptions) need : Request list =
    match need with
    | Need.Books tokens -> askBooks hasKey options tokens
    | Need.Trades follows ->
        follows
        |> List.map (fun follow -> tradesPage [ follow ] (PageState.first "live") ValueNone)
    | _ -> askMarkets need

let private decode (request: Request) body received (batch: Batch) =
    batch.Exchange <- string exchange
    batch.Received <- received

    match request.Walk with
    | Walk.Markets(need, state) -> decodeMarkets request need state body batch
    | Walk.Books tokens -> decodeBooks request tokens body batch
    | Walk.Trades(follows, state) -> decodeTrades request follows state body batch
    | Walk.History state when state.Source = "candles" -> decodeCandles request state body batch
    | Walk.History state -> decodePast request state body batch

let private onFault (request: Request) fault =
    match request.Walk, fault with
    | Walk.Books tokens, Fault.Refused(status, _) -> refusedBooks tokens status
    // Of one market that is gone to the archive nothing is live.
    | Walk.Trades _, Fault.Refused(404, _) -> ValueSome Decoded.nothing
    | Walk.Markets(_, state), Fault.Refused(404, _) when state.Route.StartsWith "historical" ->
        ValueSome Decoded.nothing
    | _ -> ValueNone

let private recognise (members: RawObject) : Shape voption =
    let has, hasAny = RawObject.has members, RawObject.hasAny members
    let text = RawObject.textOf members
    let rows kind walk = ValueSome(Shape.Rows(kind, walk))
    let known kind = ValueSome(Shape.Recognised kind)

    if
        has [ "type" ]
        && hasAny [ "sid"; "msg"; "id" ]
        && not (has [ "conditionId" ])
        && text "type" <> ""
    then
        match text "type" with
        | "trade" when has [ "msg" ] -> ValueSome(Shape.Holds("'msg'", [ members["msg"].Json ]))
        | "subscribed"
        | "unsubscribed"
        | "ok"
        | "error"
        | "orderbook_snapshot"
        | "orderbook_delta"
        | "ticker"
        | "fill"
        | "market_lifecycle_v2"
        | "multivariate_market_lifecycle"
        | "multivariate_lookup"
        | "event_lifecycle"
        | "event_fee_update"
        | "market_position"
        | "order_group_updates"
        | "user_order"
        | "rfq_created"
        | "rfq_deleted"
        | "quote_created"
        | "quote_accepted"
        | "quote_executed" as kind -> known kind
        | _ when has [ "sid" ] -> known "stream message of an unknown type"
        | _ -> ValueNone
    elif has [ "trade_id" ] && hasAny [ "ticker"; "market_ticker" ] then
        if hasAny [ "order_id"; "is_taker" ] then
            known "own fill"
        else
            rows "trade" (Walk.Trades([], PageState.first "rows"))
    elif has [ "ticker"; "event_ticker" ] && not (hasAny [ "status"; "market_type" ]) then
        known "own settlement"
    elif has [ "ticker"; "event_ticker" ] then
        rows "market" (Walk.Markets(Need.MarketsById [], PageState.first "rows"))
    elif has [ "event_ticker"; "series_ticker" ] then
        match members.TryGetValue "markets" with
        | true, markets when markets.IsList && markets.Json.Length > 2 ->
            ValueSome(Shape.Holds("'markets'", [ markets.Json ]))
        | _ -> known "event"
    elif has [ "settlement_sources"; "ticker" ] then
        known "series"
    elif has [ "series" ] && members["series"].IsObject then
        known "series"
    elif RawObject.isList members "orderbooks" then
        rows "order books" (Walk.Books [])
    elif has [ "market_ticker" ] && hasAny [ "yes_dollars_fp"; "no_dollars_fp" ] then
        known "order book (stream)"
    elif has [ "market_ticker"; "delta_fp" ] then
        known "change of an order book (stream)"
    elif has [ "market_ticker"; "taker_side"; "count" ] then
        known "fill without an id, of an older kind"
    elif
        has [ "market_ticker" ]
        && hasAny [ "yes_bid_dollars"; "open_interest_fp"; "yes_bid" ]
    then
        known "ticker"
    elif has [ "schedule" ] && members["schedule"].IsObject then
        known "exchange schedule"
    elif has [ "usage_tier" ] then
        known "limits of the account"
    elif
        RawObject.inside members "error"
        |> Option.exists (fun error -> RawObject.has error [ "code"; "message" ])
    then
        known "error"
    elif hasAny [ "orderbook_fp"; "orderbook" ] then
        known "order book without a time"
    elif has [ "candlesticks" ] then
        known "candlesticks"
    elif has [ "trades_created_ts" ] then
        known "cut-off of the archive"
    elif has [ "exchange_active"; "trading_active" ] then
        known "exchange status"
    elif has [ "cmd"; "params" ] then
        known "command"
    elif
        has [ "cursor" ]
        && [ "markets"; "events"; "trades" ] |> List.exists (RawObject.isList members)
    then
        // One that is not empty is looked into; what stands beside its rows, such as milestones, is not.
        match
            [
                for name in [ "markets"; "events"; "trades" ] do
                    match members.TryGetValue name with
                    | true, value when value.IsList && value.Json.Length > 2 -> value.Json
                    | _ -> ()
            ]
        with
        | [] -> known "empty page"
        | lists -> ValueSome(Shape.Holds("page", lists))
    else
        ValueNone

let private untimed (_: ReadOnlyMemory<byte>) : Interval voption = ValueNone

/// The collector under the given options. `key_id` and `key` make it a key's owner: without them there is no live connection.
let collector (options: AskOptions) : Collector =
    let secret name =
        match options.Secrets.TryFind name with
        | Some text when text <> "" -> Some text
        | _ -> None

    let key =
        match secret "key_id", secret "key" with
        | Some id, Some pem -> keyOf pem |> Result.map (fun key -> Some(struct (id, key)))
        | None, None -> Ok None
        | Some _, None -> Error "'key_id' is given without 'key'"
        | None, Some _ -> Error "'key' is given without 'key_id'"

    {
        Exchange = exchange
        Hosts = [
            {
                Setting = "rest_url"
                Address = "https://external-api.kalshi.com/trade-api/v2"
                Serves = "markets, order books, trades, candlesticks"
            }
            {
                Setting = "ws_url"
                Address = "wss://external-api-ws.kalshi.com/trade-api/ws/"
                Serves = "live order books and fills, with a key"
            }
        ]
        Limits = [
            {
                Name = "read"
                // Lower than a key's, and undocumented.
                PerTenSeconds = 50
                Counts = "all requests, without a key"
                BySecond = true
            }
            {
                Name = "read_signed"
                PerTenSeconds = 200
                Counts = "all requests, with a key: what the lowest tier allows"
                BySecond = true
            }
        ]
        Traits = {
            Currency = "USD"
            Prices = "dollars, 0 to 1, in steps of the market's price ranges (cents, or finer)"
            Outcomes = "Yes and No; the asks of each are the bids of the other at 1 - p"
            Sides = "the taker's, told of Yes: a taker of No sells Yes"
            Streams = [
                {
                    Stream = Stream.Depth
                    Loss =
                        "numbers of messages that are missing; best prices (tickers) that stay other ones, and then a poll"
                    Extent =
                        "which messages of which subscription, from the last good one to the next whole book"
                    Proof = "every number from the whole book on"
                }
                {
                    Stream = Stream.Books
                    Loss = "not"
                    Extent = "not"
                    Proof = "none: no hash, no number, no time"
                }
                {
                    Stream = Stream.Trades
                    Loss = "a walk by cursors that does not end"
                    Extent = "the span that was not walked"
                    Proof = "the exchange's id of each"
                }
            ]
        }
        Secrets = [
            {
                Setting = "key_id"
                Holds = "the id of an API key"
            }
            {
                Setting = "key"
                Holds = "its RSA private key in PEM"
            }
        ]
        Notes = [
            match key with
            | Error reason -> $"{reason}: public data only, without live order books"
            | Ok None -> "without a key ('key_id', 'key') order books are polled: there is no live connection"
            | Ok(Some _) -> ()
        ]
        Sign =
            match key with
            | Ok(Some(struct (id, key))) -> sign id key
            | _ -> fun _ _ _ -> []
        Admission =
            match key with
            | Ok(Some _) ->
                ValueSome {
                    Question = asked "account" "/account/limits" (Walk.Books [])
                    Allows = allowed
                }
            | _ -> ValueNone
        LimitsOf =
            let limit =
                match key with
                | Ok(Some _) -> [ "read_signed" ]
                | _ -> [ "read" ]

            fun _ -> limit
        Probes = [
            {
                Host = "rest_url"
                Path = "/exchange/status"
                Body = ValueNone
                IsNeeded = true
                Time = untimed
            }
        ]
        Ask =
            ask
                (match key with
                 | Ok(Some _) -> true
                 | _ -> false)
                options
        Decode = decode
        OnFault = onFault
        Recognise = recognise
        History = sources
        Stream =
            match key with
            | Ok(Some _) -> ValueSome part
            | _ -> ValueNone
    }
