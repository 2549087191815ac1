/// Order books of the CLOB: `GET /book`, `POST /books` (`polymarket-api.md` section 3).
module internal Tributary.Exchanges.PolymarketBooks

open System
open System.Collections.Generic
open System.Text
open Tributary

// Order books: GET /book, POST /books.
//
//   {"market":"0x…","asset_id":"7132…","timestamp":"1786728432337","hash":"<40 hex>",
//    "bids":[{"price":"0.001","size":"2200.8"},…], "asks":[{"price":"0.999","size":"50"},…],
//    "min_order_size":"5","tick_size":"0.001","neg_risk":false,"last_trade_price":"0.004"}
//
// The timestamp is the last change of the book, in milliseconds. Levels come worst first (best last); both orders were documented
// at times, so either is read, and the hash is checked over the server's own.

let private levelPrice = "{\"price\":\""B
let private levelSize = ",\"size\":\""B
let private priceName = "price"B
let private sizeName = "size"B

let private isQuoted (json: ReadOnlySpan<byte>) start = start > 0 && json[start - 1] = '"'B

/// A level in any other form than the usual: members in another order, numbers without quotes, white space.
let private unusualLevel
    (json: ReadOnlySpan<byte>)
    (at: byref<int>)
    (price: byref<int64>)
    (size: byref<int64>)
    (flags: byref<Flags>)
    (verbatim: byref<bool>)
    : string | null =
    let mutable first, ok, rounded = true, Json.take json &at '{'B, false
    let mutable keyStart, keyLength, start, length = 0, 0, 0, 0
    let mutable hasPrice, hasSize = false, false
    let mutable reason: string | null = if ok then null else "a level is not an object"

    while isNull reason && Json.``member`` json &at &first &keyStart &keyLength &ok do
        let key = json.Slice(keyStart, keyLength)
        let isPrice = key.SequenceEqual(ReadOnlySpan priceName)

        if isPrice || key.SequenceEqual(ReadOnlySpan sizeName) then
            let mutable value = 0L

            if not (Json.numeral json &at &start &length) then
                reason <- "a level's price or size is not a number"
            else
                verbatim <- verbatim && isQuoted json start

                match Fixed.parse (json.Slice(start, length)) &value &rounded with
                | NumberFault.None ->
                    if rounded then
                        flags <- flags ||| Flags.Rounded

                    if isPrice then
                        price <- value
                        hasPrice <- true
                    else
                        size <- value
                        hasSize <- true
                | fault ->
                    reason <-
                        (if isPrice then "a level's price " else "a level's size ")
                        + Fixed.explain fault
        elif not (Json.skip json &at) then
            ok <- false

    if not (isNull reason) then
        reason
    elif not ok then
        "a level is malformed"
    elif not hasPrice || not hasSize then
        "a level lacks its price or size"
    else
        null

/// One side: appends its levels to the batch, best first in the end.
let private side
    (json: ReadOnlySpan<byte>)
    (at: byref<int>)
    (batch: Batch)
    bestIsHighest
    (flags: byref<Flags>)
    (compact: byref<bool>)
    (verbatim: byref<bool>)
    (count: byref<int>)
    : string | null =
    let levels = batch.Levels
    let start = levels.Count
    let mutable first, ok = true, Json.take json &at '['B
    let opening = at - 1
    let mutable inLevels, met = 0, 0 // bytes and number of the levels: between them stand commas alone, if it is compact

    let mutable reason: string | null =
        if ok then null else "a side of the book is not a list"

    let mutable rises, falls, repeats = false, false, false
    let mutable before = 0L

    while isNull reason && Json.element json &at &first &ok do
        let mutable price, size = 0L, 0L
        let from = at

        if Json.isAt json at levelPrice then
            at <- at + levelPrice.Length

        if
            not (
                at > from
                && Fixed.tryQuoted json &at &price
                && Json.isAt json at levelSize
                && (at <- at + levelSize.Length
                    Fixed.tryQuoted json &at &size)
                && at < json.Length
                && json[at] = '}'B
            )
        then
            at <- from
            compact <- false
            reason <- unusualLevel json &at &price &size &flags &verbatim
        else
            at <- at + 1

        inLevels <- inLevels + at - from
        met <- met + 1

        if isNull reason then
            if size < 0L then
                reason <- "a level's size is negative"
            elif size = 0L then
                flags <- flags ||| Flags.ZeroSize
            else
                if levels.Count > start then
                    if price > before then rises <- true
                    elif price < before then falls <- true
                    else repeats <- true

                before <- price

                let level = {
                    Price = Price.ofMillionths price
                    Size = Size.trusted size
                }

                levels.Add &level

    if isNull reason && not ok then
        reason <- "a side of the book breaks off or is malformed"

    if isNull reason then
        compact <- compact && at - opening = inLevels + max 0 (met - 1) + 2
        let mutable kept = levels.Count - start

        if rises && falls then
            flags <- flags ||| Flags.Disordered

        if repeats || rises && falls then
            kept <- Levels.repair (levels.Slice(start, kept)) &flags
            levels.Truncate(start + kept)
            falls <- false // it rises now

        if bestIsHighest <> falls then
            levels.Slice(start, kept).Reverse()

        count <- kept

    reason

let private bookMembers =
    Members [
        "market"
        "asset_id"
        "timestamp"
        "hash"
        "bids"
        "asks"
        "min_order_size"
        "tick_size"
        "neg_risk"
        "last_trade_price"
        // very old recordings:
        "buys"
        "sells"
    ]

let private book (json: ReadOnlySpan<byte>) (at: byref<int>) (batch: Batch) : string | null =
    let mutable parts = PolymarketHash.noParts
    let mutable reason: string | null = null
    let mutable flags = Flags.None
    let mutable walk = Members.Begin(json, &at)
    let mutable start, length = 0, 0
    let mutable firstBid, bidCount, firstAsk, askCount = 0, 0, 0, 0
    let mutable hasBids, hasAsks, isNegRisk = false, false, false

    while isNull reason && bookMembers.Next(json, &at, &walk) do
        match walk.Index with
        | 0 ->
            walk.Ok <- Json.string json &at &start &length
            parts.Market <- { Start = start; Length = length }
        | 1 ->
            walk.Ok <- Json.identity json &at &start &length
            parts.Token <- { Start = start; Length = length }
        | 2 ->
            walk.Ok <- Json.numeral json &at &start &length
            parts.Timestamp <- { Start = start; Length = length }
        | 3 ->
            walk.Ok <- Json.textOrNull json &at &start &length
            parts.Hash <- { Start = start; Length = length }
        | 4
        | 10 ->
            Json.space json &at
            start <- at
            firstBid <- batch.Levels.Count
            reason <- side json &at batch true &flags &parts.Compact &parts.Verbatim &bidCount
            parts.Bids <- { Start = start; Length = at - start }
            hasBids <- true
        | 5
        | 11 ->
            Json.space json &at
            start <- at
            firstAsk <- batch.Levels.Count
            reason <- side json &at batch false &flags &parts.Compact &parts.Verbatim &askCount
            parts.Asks <- { Start = start; Length = at - start }
            hasAsks <- true
        | 6 ->
            walk.Ok <- Json.numeral json &at &start &length
            parts.Verbatim <- parts.Verbatim && (length = 0 || isQuoted json start)

            parts.MinimumSize <- {
                Start = start
                Length = (if length = 0 then -1 else length)
            }
        | 7 ->
            walk.Ok <- Json.numeral json &at &start &length
            parts.Verbatim <- parts.Verbatim && (length = 0 || isQuoted json start)

            parts.Tick <- {
                Start = start
                Length = (if length = 0 then -1 else length)
            }
        | 8 ->
            if Json.peek json &at = 'n'B then
                walk.Ok <- Json.takeNull json &at
            else
                walk.Ok <- Json.boolean json &at &isNegRisk
                parts.NegRisk <- if isNegRisk then 1 else 0
        | 9 ->
            walk.Ok <- Json.numeral json &at &start &length
            parts.LastTrade <- { Start = start; Length = length }
            parts.Verbatim <- parts.Verbatim && (length = 0 || isQuoted json start)
        | _ -> walk.Ok <- Json.skip json &at

        if not walk.Ok && isNull reason then
            reason <- $"'{bookMembers.Name walk.Index}' is malformed"

    if not (isNull reason) then
        reason
    elif not walk.Ok then
        "the book breaks off or is malformed"
    else
        let mutable moment = Instant.ofMicros 0L
        let mutable tick, rounded = 0L, false

        if
            parts.Token.Length <= 0
            || not (Identity.isValid (json.Slice(parts.Token.Start, parts.Token.Length)))
        then
            "a book without a token ('asset_id')"
        elif
            parts.Market.Length <= 0
            || not (Identity.isValid (json.Slice(parts.Market.Start, parts.Market.Length)))
        then
            "a book without a market"
        elif not hasBids || not hasAsks then
            "a book without bids or asks"
        elif
            parts.Timestamp.Length <= 0
            || not (Instant.tryRead (json.Slice(parts.Timestamp.Start, parts.Timestamp.Length)) &moment)
        then
            "a book without a readable timestamp"
        elif
            parts.Tick.Length > 0
            && Fixed.parse (json.Slice(parts.Tick.Start, parts.Tick.Length)) &tick &rounded
               <> NumberFault.None
        then
            "'tick_size' is not a number"
        else
            // A recorder may have made a date of the time.
            parts.Verbatim <-
                parts.Verbatim
                && json
                    .Slice(parts.Timestamp.Start, parts.Timestamp.Length)
                    .IndexOfAnyExceptInRange('0'B, '9'B)
                    <
                    0

            let verdict = PolymarketHash.verify json &parts moment

            let row: BookRow = {
                Market = batch.Names.Intern(json.Slice(parts.Market.Start, parts.Market.Length))
                Token = batch.Names.Intern(json.Slice(parts.Token.Start, parts.Token.Length))
                At = moment
                FirstBid = firstBid
                BidCount = bidCount
                FirstAsk = firstAsk
                AskCount = askCount
                Hash = batch.Keep(json.Slice(parts.Hash.Start, max 0 parts.Hash.Length))
                Tick = Price.ofMillionths tick
                LastTrade =
                    if parts.LastTrade.Length < 0 then
                        parts.LastTrade
                    else
                        batch.Keep(json.Slice(parts.LastTrade.Start, parts.LastTrade.Length))
                Sequence = 0
                Received = batch.Received
                Verdict = verdict
                Doubt =
                    match verdict with
                    | Verdict.Verified -> Doubt.None
                    | Verdict.Mismatched -> Doubt.Hash
                    | _ when parts.Hash.Length = 40 && not parts.Verbatim -> Doubt.NotCanonical
                    | _ -> Doubt.NoHash
                Reason = Reason.Poll
                Flags = flags
                Inserted = false
            }

            batch.Books.Add &row
            null

/// Reads one book as a row of the batch.
let bookReader = RowReader(fun json at batch -> book json &at batch)

let decode (request: Request) asked (body: ReadOnlyMemory<byte>) (batch: Batch) =
    let json = body.Span
    let mutable at = 0
    let before = batch.Books.Count

    let fault =
        match Json.oneOrMany json &at request.Path bookReader batch with
        | ValueSome fault -> ValueSome fault
        | ValueNone -> Json.``end`` json at

    let answered = HashSet<string>(batch.Books.Count - before)

    for i in before .. batch.Books.Count - 1 do
        answered.Add(batch.Names.Text batch.Books[i].Token) |> ignore

    {
        Decoded.nothing with
            Fault = fault
            // Joined by token, never by position: unknown and resolved tokens are left out without a word.
            Missing =
                asked
                |> List.filter (fun token -> not (answered.Contains(string<TokenId> token)))
    }

/// One token is asked for by itself, so that its 404 can be told from the silence of a list.
let request tokens : Request =
    match tokens with
    | [ token ] -> {
        Endpoint = "clob_book"
        Host = "clob_url"
        Path = $"/book?token_id={Uri.EscapeDataString(string<TokenId> token)}"
        Body = ValueNone
        Walk = Walk.Books tokens
      }
    | _ ->
        let ids =
            tokens
            |> List.map (fun token -> $"{{\"token_id\":\"{token}\"}}")
            |> String.concat ","

        {
            Endpoint = "clob_books"
            Host = "clob_url"
            Path = "/books"
            Body = ValueSome $"[{ids}]"
            Walk = Walk.Books tokens
        }

/// What the answers 404, 400 and 413 mean.
let refused (tokens: TokenId list) status : Decoded voption =
    match tokens with
    // No book for a token that is unknown or resolved: said, and not an error.
    | [ _ ] when status = 404 ->
        ValueSome {
            Decoded.nothing with
                Missing = tokens
        }
    // "payload exceeds limit", or one token that spoils the rest.
    | _ :: _ :: _ when status = 400 || status = 413 ->
        ValueSome {
            Decoded.nothing with
                Next = tokens |> List.splitInto 2 |> List.map request
        }
    | _ -> ValueNone
