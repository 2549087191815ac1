/// Trades of the Data API: `/v2/trades` and `/trades` (`polymarket-api.md` section 4).
module internal Tributary.Exchanges.PolymarketTrades

open System
open System.Text
open Tributary

// Trades: Data API /v2/trades (a cursor walk) and /trades (v1, windows of time). Newest first in both; no trade id in either.
//
//   {"proxyWallet":"0x…","side":"BUY","asset":"7132…","conditionId":"0x…","size":10.5,"price":0.49,"timestamp":1786728432,
//    "title":…,"slug":…,"icon":…,"eventSlug":…,"outcome":"Yes","outcomeIndex":0,"name":…,"pseudonym":…,"bio":…,
//    "profileImage":…,"profileImageOptimized":…,"transactionHash":"0x…"}     and the same in snake_case, asset = token_id, in v2

let private tradeMembersV1 =
    Members [
        "proxyWallet"
        "side"
        "asset"
        "conditionId"
        "size"
        "price"
        "timestamp"
        "title"
        "slug"
        "icon"
        "eventSlug"
        "outcome"
        "outcomeIndex"
        "name"
        "pseudonym"
        "bio"
        "profileImage"
        "profileImageOptimized"
        "transactionHash"
    ]

let private tradeMembersV2 =
    Members [
        "proxy_wallet"
        "side"
        "token_id"
        "condition_id"
        "size"
        "price"
        "timestamp"
        "title"
        "slug"
        "icon"
        "event_slug"
        "outcome"
        "outcome_index"
        "name"
        "pseudonym"
        "bio"
        "profile_image"
        "profile_image_optimized"
        "transaction_hash"
    ]

let private buy = "BUY"B
let private sell = "SELL"B

/// Names are kept for ever, so they have a bound.
let private longestOutcome = 1_000

let private isAbsentOrValid (json: ReadOnlySpan<byte>) (part: Slice) =
    part.Length = 0 || Identity.isValid (json.Slice(part.Start, part.Length))

let private trade
    (members: Members)
    (json: ReadOnlySpan<byte>)
    (at: byref<int>)
    (batch: Batch)
    : string | null =
    let mutable reason: string | null = null
    let mutable walk = Members.Begin(json, &at)
    let mutable start, length = 0, 0
    let mutable wallet, token, market = Slice.none, Slice.none, Slice.none
    let mutable outcome, transaction = Slice.none, Slice.none
    let mutable side = ValueNone
    let mutable price, size, moment = ValueNone, ValueNone, ValueNone
    let mutable flags = Flags.None

    while isNull reason && members.Next(json, &at, &walk) do
        match walk.Index with
        | 0 ->
            walk.Ok <- Json.textOrNull json &at &start &length
            wallet <- { Start = start; Length = length }
        | 1 ->
            walk.Ok <- Json.string json &at &start &length

            let word =
                if walk.Ok then
                    json.Slice(start, length)
                else
                    ReadOnlySpan.Empty

            if Ascii.EqualsIgnoreCase(word, ReadOnlySpan buy) then
                side <- ValueSome Side.Buy
            elif Ascii.EqualsIgnoreCase(word, ReadOnlySpan sell) then
                side <- ValueSome Side.Sell
            else
                reason <- "the side is neither BUY nor SELL"
        | 2 ->
            walk.Ok <- Json.identity json &at &start &length
            token <- { Start = start; Length = length }
        | 3 ->
            walk.Ok <- Json.string json &at &start &length
            market <- { Start = start; Length = length }
        | 4
        | 5 ->
            walk.Ok <- Json.numeral json &at &start &length
            let mutable value, rounded = 0L, false

            if walk.Ok then
                match Fixed.parse (json.Slice(start, length)) &value &rounded with
                | NumberFault.None ->
                    if rounded then
                        flags <- flags ||| Flags.Rounded

                    if walk.Index = 5 then
                        price <- ValueSome(Price.ofMillionths value)
                    elif value < 0L then
                        reason <- "the size is negative"
                    else
                        size <- ValueSome(Size.trusted value)
                | fault ->
                    reason <- (if walk.Index = 5 then "the price " else "the size ") + Fixed.explain fault
        | 6 ->
            walk.Ok <- Json.numeral json &at &start &length
            let mutable read = Instant.ofMicros 0L

            if walk.Ok && Instant.tryRead (json.Slice(start, length)) &read then
                moment <- ValueSome read
        | 11 ->
            walk.Ok <- Json.textOrNull json &at &start &length
            outcome <- { Start = start; Length = length }
        | 18 ->
            walk.Ok <- Json.textOrNull json &at &start &length
            transaction <- { Start = start; Length = length }
        | _ -> walk.Ok <- Json.skip json &at

        if not walk.Ok && isNull reason then
            reason <- $"'{members.Name walk.Index}' is malformed"

    if not (isNull reason) then
        reason
    elif not walk.Ok then
        "the trade breaks off or is malformed"
    else
        match side, price, size, moment with
        | ValueNone, _, _, _ -> "a trade without a side"
        | _, ValueNone, _, _ -> "a trade without a price"
        | _, _, ValueNone, _ -> "a trade without a size"
        | _, _, _, ValueNone -> "a trade without a readable timestamp"
        | ValueSome side, ValueSome price, ValueSome size, ValueSome moment ->
            if not (Identity.isValid (json.Slice(token.Start, token.Length))) then
                "a trade without a token"
            elif not (Identity.isValid (json.Slice(market.Start, market.Length))) then
                "a trade without a market (condition id)"
            elif not (isAbsentOrValid json transaction) then
                "the transaction is not an identity"
            elif not (isAbsentOrValid json wallet) then
                "the wallet is not an identity"
            elif outcome.Length > longestOutcome then
                "the outcome's name is too long to be one"
            else
                let name = json.Slice(outcome.Start, outcome.Length)

                let row: TradeRow = {
                    Market = batch.Names.Intern(json.Slice(market.Start, market.Length))
                    Token = batch.Names.Intern(json.Slice(token.Start, token.Length))
                    Outcome =
                        (if name.IndexOf '\\'B < 0 then
                             batch.Names.Intern name
                         else
                             batch.Names.Intern(ValueOption.defaultValue "" (Json.tryText name)))
                    Side = side
                    Source = Source.Api
                    Price = price
                    Size = size
                    At = moment
                    Transaction = batch.KeepLower(json.Slice(transaction.Start, transaction.Length))
                    Wallet = batch.KeepLower(json.Slice(wallet.Start, wallet.Length))
                    Flags = flags
                    Occurrence = 0
                    Collateral = ValueNone
                    Id = { High = 0UL; Low = 0UL }
                    Received = batch.Received
                    Inserted = false
                }

                batch.Trades.Add &row
                null

let private tradeReaderV1 =
    RowReader(fun json at batch -> trade tradeMembersV1 json &at batch)

let private tradeReaderV2 =
    RowReader(fun json at batch -> trade tradeMembersV2 json &at batch)

/// Rows of one page: enough that a poll of twenty markets is one page, and not so many that most of them are old news.
let private tradesPerPage = 500

/// A walk that is longer than this is cut, and the rest becomes a gap.
let private longestWalk = 200

let private joined (follows: Follow list) =
    follows |> List.map (fun follow -> string follow.Market) |> String.concat ","

/// Taker-only is always asked for: each match once, from the taker's view. What v2 leaves out (fills under 0.01 share) it leaves out
/// whatever is asked (section 4.2).
let request (follows: Follow list) (state: PageState) cursor : Request =
    let floor = follows |> List.map _.Since.Micros |> List.min

    let path =
        match state.Route with
        | "v1" ->
            // Without a start the server looks back three years only; 1 means everything.
            let start = max 1L (floor / 1_000_000L)

            let until =
                match state.Until with
                | ValueSome until -> $"&end={until.Micros / 1_000_000L}"
                | ValueNone -> ""

            $"/trades?market={joined follows}&limit={tradesPerPage}&takerOnly=true&start={start}{until}"
        | _ ->
            let after =
                match cursor with
                | ValueSome cursor -> $"&cursor={Uri.EscapeDataString(string<string> cursor)}"
                | ValueNone -> ""

            $"/v2/trades?condition={joined follows}&limit={tradesPerPage}&taker_only=true{after}"

    {
        Endpoint = "data_trades"
        Host = "data_url"
        Path = path
        Body = ValueNone
        Walk = Walk.Trades(follows, state)
    }

let private pageMembers = Members [ "data"; "pagination" ]
let private paginationMembers = Members [ "next_cursor"; "has_more" ]

/// `{"limit":500,"offset":null,"has_more":true,"next_cursor":"…"}`
let private pagination
    (json: ReadOnlySpan<byte>)
    (at: byref<int>)
    (cursor: byref<string voption>)
    (more: byref<bool>)
    =
    let mutable walk = Members.Begin(json, &at)
    let mutable start, length = 0, 0

    while paginationMembers.Next(json, &at, &walk) do
        match walk.Index with
        | 0 ->
            walk.Ok <- Json.textOrNull json &at &start &length

            if walk.Ok && length > 0 then
                cursor <- Json.tryText (json.Slice(start, length))
        | 1 -> walk.Ok <- Json.boolean json &at &more
        | _ -> walk.Ok <- Json.skip json &at

    walk.Ok

/// The rows of a v2 page, and the cursor of the next.
let readV2
    (json: ReadOnlySpan<byte>)
    source
    (batch: Batch)
    (cursor: byref<string voption>)
    (more: byref<bool>)
    =
    let mutable at = 0
    let mutable walk = Members.Begin(json, &at)
    let mutable hasData = false
    let mutable fault = ValueNone

    while fault.IsNone && pageMembers.Next(json, &at, &walk) do
        match walk.Index with
        | 0 ->
            hasData <- true
            fault <- Json.rows json &at source tradeReaderV2 batch
        | 1 -> walk.Ok <- Json.takeNull json &at || pagination json &at &cursor &more
        | _ -> walk.Ok <- Json.skip json &at

    if fault.IsSome then
        fault
    elif not walk.Ok then
        ValueSome(Fault.Undecodable(at, "the page breaks off or is malformed"))
    elif not hasData then
        ValueSome(Fault.Undecodable(0, "a page of trades without 'data'"))
    else
        Json.``end`` json at

let private readRows reader (json: ReadOnlySpan<byte>) source (batch: Batch) : Fault voption =
    let mutable at = 0

    match Json.oneOrMany json &at source reader batch with
    | ValueSome fault -> ValueSome fault
    | ValueNone -> Json.``end`` json at

/// The rows of a v1 page: an array.
let readV1 (json: ReadOnlySpan<byte>) source batch =
    readRows tradeReaderV1 json source batch

/// The next window of a v1 walk. A full page may have cut its oldest second: those rows are taken back and the next window
/// ends with that second, so that every second is read whole. A page full of one second cannot be had whole: it is kept, called
/// truncated, and the walk goes on before it.
let private nextWindow (follows: Follow list) (state: PageState) met from floor (batch: Batch) =
    let rows = batch.Trades

    let cut since until = {
        Decoded.nothing with
            Truncated = follows |> List.map (fun follow -> struct (follow.Market, since, until))
    }

    if met < tradesPerPage then
        Decoded.nothing
    elif rows.Count = from then
        // No row of a full page was readable: nobody knows which window comes next.
        cut floor (ValueOption.defaultValue batch.Received state.Until)
    else
        let mutable oldest, newest = rows[from].At, rows[from].At

        for i in from .. rows.Count - 1 do
            if rows[i].At.Micros < oldest.Micros then
                oldest <- rows[i].At

            if rows[i].At.Micros > newest.Micros then
                newest <- rows[i].At

        let next until = [
            request
                follows
                {
                    state with
                        Page = state.Page + 1
                        Until = ValueSome until
                }
                ValueNone
        ]

        let aSecond = TimeSpan.FromSeconds 1.0

        if oldest < floor then
            Decoded.nothing
        elif state.Page >= longestWalk then
            cut floor (oldest + aSecond)
        elif newest = oldest then
            {
                cut oldest (oldest + aSecond) with
                    Next =
                        if oldest - aSecond < floor then
                            []
                        else
                            next (oldest - aSecond)
            }
        else
            let mutable kept = from

            for i in from .. rows.Count - 1 do
                if rows[i].At.Micros > oldest.Micros then
                    rows[kept] <- rows[i]
                    batch.TradeOrigins[kept] <- batch.TradeOrigins[i]
                    kept <- kept + 1

            rows.Truncate kept
            batch.TradeOrigins.Truncate kept

            {
                Decoded.nothing with
                    Next = next oldest
            }

/// A trade this much later than our clock does not move the watermark: a clock that is wrong must not hide what follows.
let private tolerance = TimeSpan.FromSeconds 5.0

let decode
    (question: Request)
    (follows: Follow list)
    (state: PageState)
    (body: ReadOnlyMemory<byte>)
    (batch: Batch)
    =
    let json = body.Span
    let mark, from, refused = batch.Mark(), batch.Trades.Count, batch.Rejections.Count
    let mutable cursor, more, at = ValueNone, false, 0

    let fault =
        match state.Route, Json.peek json &at with
        | "v2", '{'B -> readV2 json question.Path batch &cursor &more
        | route, _ when route.EndsWith "v2" -> readRows tradeReaderV2 json question.Path batch
        | _ -> readV1 json question.Path batch

    let met = batch.Trades.Count - from + batch.Rejections.Count - refused
    let latest = batch.Received + tolerance
    let mutable head: Instant voption = ValueNone
    let mutable oldest: Instant voption = ValueNone

    for i in from .. batch.Trades.Count - 1 do
        let moment = batch.Trades[i].At

        if
            moment.Micros <= latest.Micros
            && (head.IsNone || head.Value.Micros < moment.Micros)
        then
            head <- ValueSome moment

        if oldest.IsNone || oldest.Value.Micros > moment.Micros then
            oldest <- ValueSome moment

    let floor =
        if follows.IsEmpty then
            Instant.ofMicros Int64.MaxValue
        else
            follows |> List.map _.Since |> List.min

    let isPastFloor = oldest.IsSome && oldest.Value < floor

    // Pages go back in time. One that is as new as the first, when the walk had left that second already, is the first page once
    // more: a server that answers so makes up a cursor anew, so the cursor alone does not tell.
    let isFirstAgain =
        match head, state.Newest, state.Until with
        | ValueSome newest, ValueSome first, ValueSome reached ->
            state.Page > 0 && newest >= first && reached < first
        | _ -> false

    let decoded =
        match fault, state.Route, cursor with
        | ValueSome fault, _, _ -> Decoded.faulty fault
        | _ when follows.IsEmpty -> Decoded.nothing // a recording: nothing is asked
        | _, "v1", _ -> nextWindow follows state met from floor batch
        | _, "v2", _ when isFirstAgain ->
            batch.Rollback mark
            Decoded.faulty (Fault.RepeatedPage $"{state.Page}")
        | _, "v2", ValueSome cursor when state.Seen.Contains cursor ->
            batch.Rollback mark
            Decoded.faulty (Fault.RepeatedPage cursor)
        | _, "v2", ValueSome _ when isPastFloor -> Decoded.nothing
        | _, "v2", ValueSome _ when state.Page >= longestWalk ->
            // The second in which the walk stopped was not read whole.
            let reached = ValueOption.defaultValue floor oldest + TimeSpan.FromSeconds 1.0

            {
                Decoded.nothing with
                    Truncated = follows |> List.map (fun follow -> struct (follow.Market, floor, reached))
            }
        | _, "v2", ValueSome cursor ->
            let next = {
                state with
                    Page = state.Page + 1
                    Seen = state.Seen.Add cursor
                    Newest = state.Newest |> ValueOption.orElse head
                    Until = oldest |> ValueOption.orElse state.Until
            }

            {
                Decoded.nothing with
                    Next = [ request follows next (ValueSome cursor) ]
            }
        | _, "v2", ValueNone when more ->
            Decoded.faulty (Fault.Undecodable(0, "'has_more' is true and 'next_cursor' is missing"))
        | _ -> Decoded.nothing

    { decoded with Head = head }

/// The first page of each walk, some markets a request.
let ask (options: AskOptions) (follows: Follow list) : Request list =
    let source = if options.TradesSource = "v1" then "v1" else "v2"

    // Those that lag are walked together, so that they do not make the others walk deep.
    follows
    |> List.sortBy (fun follow -> struct (follow.Since.Micros, string follow.Market))
    |> List.chunkBySize options.MarketsPerRequest
    |> List.map (fun chunk -> request chunk (PageState.first source) ValueNone)

/// A v2 that is not there is answered by v1; a list that is refused is asked for in halves, so that one bad market costs no other.
let refused (options: AskOptions) (follows: Follow list) (state: PageState) status : Decoded voption =
    let isGone = status = 404 || status = 405 || status = 410 || status = 501

    if state.Page > 0 then
        ValueNone
    elif isGone && state.Route = "v2" && options.TradesSource = "auto" then
        ValueSome {
            Decoded.nothing with
                Next = [ request follows (PageState.first "v1") ValueNone ]
        }
    elif status = 400 && follows.Length > 1 then
        ValueSome {
            Decoded.nothing with
                Next =
                    follows
                    |> List.splitInto 2
                    |> List.map (fun half -> request half (PageState.first state.Route) ValueNone)
        }
    else
        ValueNone
