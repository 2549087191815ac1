/// The market channel: `wss://…/ws/market` (`polymarket-api.md` section 5.1).
module internal Tributary.Exchanges.PolymarketStream

open System
open System.Buffers
open System.Runtime.CompilerServices
open System.Runtime.InteropServices
open System.Text
open System.Text.Unicode
open Tributary

// A frame is a message or a list of messages, `PONG`, or nothing. Nearly all messages are of this form:
//
//   {"market":"0x…","price_changes":[{"asset_id":"7132…","price":"0.06","size":"374.34","side":"BUY","hash":"<40 hex>",
//    "best_bid":"0.07","best_ask":"0.08"},…],"timestamp":"1786728438403","event_type":"price_change"}
//
// `size` is the new total, "0" removes the level; BUY is the side of bids; the hash is that of the asset's whole book afterwards.

let private marketStart = "{\"market\":\""B
let private changesStart = "\",\"price_changes\":["B
// The keys inside of a change as numbers, eight bytes each, the last ones overlapping: hot, two changes a message.
[<Literal>]
let private Asset0 = 0x5F7465737361227BUL

[<Literal>]
let private Asset1 = 0x223A2264695F7465UL

[<Literal>]
let private Price0 = 0x6563697270222C22UL

[<Literal>]
let private Price1 = 0x223A226563697270UL

[<Literal>]
let private Size0 = 0x3A22657A6973222CUL

[<Literal>]
let private Size1 = 0x223A22657A697322UL

[<Literal>]
let private Buy0 = 0x3A2265646973222CUL

[<Literal>]
let private Buy1 = 0x68222C2259554222UL

[<Literal>]
let private Buy2 = 0x223A226873616822UL

[<Literal>]
let private Sell0 = 0x3A2265646973222CUL

[<Literal>]
let private Sell1 = 0x222C224C4C455322UL

[<Literal>]
let private Sell2 = 0x223A226873616822UL

[<Literal>]
let private BestBid0 = 0x5F74736562222C22UL

[<Literal>]
let private BestBid1 = 0x223A226469625F74UL

[<Literal>]
let private BestAsk0 = 0x615F74736562222CUL

[<Literal>]
let private BestAsk1 = 0x223A226B73615F74UL

/// Longer than any of these keys, and shorter than what follows the last one.
let private keyRoom = 24

let private timestampStart = "],\"timestamp\":\""B
let private changeEnd = "\",\"event_type\":\"price_change\"}"B

let private hashLength = 40
let private hexDigits = SearchValues.Create(ReadOnlySpan "0123456789abcdef"B)
let private none = Slice.none

/// The members of one change that are numbers or texts.
[<Struct>]
type private Level = {
    mutable Token: Slice
    mutable Side: Side
    mutable Price: int64
    mutable Size: int64
    mutable BestBid: int64
    mutable BestAsk: int64
    mutable Hash: Slice
}

/// Its market is known by its token: looking it up for every change would cost as much as the rest.
let private addChange (frame: Frame) (level: inref<Level>) =
    let event: StreamEvent = {
        Kind = StreamKind.Change
        Market = { Key = 0 }
        Token = { Key = 0 }
        At = Instant.ofMicros 0L
        Message = frame.Messages
        Side = level.Side
        Price = level.Price
        Size = level.Size
        BestBid = level.BestBid
        BestAsk = level.BestAsk
        Hash = level.Hash
        Text = level.Token
        Detail = none
        Row = -1
        Sequence = 0
        IsLast = false
    }

    frame.Events.Add &event

/// The moment of a message's changes, their tokens, and which of them is its token's last one.
let private finish (json: ReadOnlySpan<byte>) (frame: Frame) first (at: Instant) =
    let events = frame.Events
    let names = frame.Batch.Names

    // One right behind the other, so that the waits for memory overlap.
    for i in first .. events.Count - 1 do
        let event = &events[i]
        event.Token <- names.Intern(json.Slice(event.Text.Start, event.Text.Length))
        event.Text <- none
        event.At <- at

    for i in first .. events.Count - 1 do
        let token = events[i].Token
        let mutable j = i + 1

        while j < events.Count && events[j].Token.Key <> token.Key do
            j <- j + 1

        events[i].IsLast <- j = events.Count

let private noLevel: Level = {
    Token = none
    Side = Side.Buy
    Price = 0L
    Size = 0L
    BestBid = -1L
    BestAsk = -1L
    Hash = none
}

/// A change in the usual form: whole runs of keys are compared at once. False for anything else, the cursor then anywhere.
let private usualLevel (json: ReadOnlySpan<byte>) (at: byref<int>) (level: byref<Level>) =
    let mutable start, length = at + 13, 0

    let mutable ok =
        at + keyRoom <= json.Length
        && Json.eight json at = Asset0
        && Json.eight json (at + 5) = Asset1

    if ok then
        // The numbers of tokens have 70 to 78 digits.
        length <- json.Slice(start).IndexOfAnyExceptInRange('0'B, '9'B)
        at <- start + length

        ok <-
            length > 0
            && length <= Identity.Longest
            && at + keyRoom <= json.Length
            && Json.eight json at = Price0
            && Json.eight json (at + 3) = Price1

    if ok then
        level.Token <- { Start = start; Length = length }
        at <- at + 11

        ok <-
            Fixed.tryQuoted json &at &level.Price
            && at + keyRoom <= json.Length
            && Json.eight json at = Size0
            && Json.eight json (at + 1) = Size1

    if ok then
        at <- at + 9

        ok <-
            Fixed.tryQuoted json &at &level.Size
            && at + keyRoom <= json.Length
            && Json.eight json at = Buy0

    if ok then
        if Json.eight json (at + 8) = Buy1 && Json.eight json (at + 14) = Buy2 then
            level.Side <- Side.Buy
            at <- at + 22
        elif Json.eight json (at + 8) = Sell1 && Json.eight json (at + 15) = Sell2 then
            level.Side <- Side.Sell
            at <- at + 23
        else
            ok <- false

    if ok then
        level.Hash <- { Start = at; Length = hashLength }
        at <- at + hashLength

        ok <-
            at + keyRoom <= json.Length
            && Json.eight json at = BestBid0
            && Json.eight json (at + 6) = BestBid1
            && json.Slice(level.Hash.Start, hashLength).IndexOfAnyExcept hexDigits < 0

    if ok then
        at <- at + 14

        ok <-
            Fixed.tryQuoted json &at &level.BestBid
            && at + keyRoom <= json.Length
            && Json.eight json at = BestAsk0
            && Json.eight json (at + 5) = BestAsk1

    if ok then
        at <- at + 13
        ok <- Fixed.tryQuoted json &at &level.BestAsk && at < json.Length && json[at] = '}'B
        at <- at + 1

    ok

/// A whole message of changes in the usual form, or nothing of it.
let private usual (json: ReadOnlySpan<byte>) (at: byref<int>) (frame: Frame) =
    let start, first = at, frame.Events.Count
    let mutable ok = Json.isAt json at marketStart

    if ok then
        let from = at + marketStart.Length
        let length = json.Slice(from).IndexOf('"'B)
        ok <- length > 0 && Json.isAt json (from + length) changesStart

        if ok then
            // What is not compared with constants, or read as digits, has to be text that may be kept.
            ok <-
                Ascii.IsValid(json.Slice(from, length))
                && Identity.isValid (json.Slice(from, length))

            at <- from + length + changesStart.Length
            let mutable more = ok

            while more do
                let mutable level = noLevel

                if usualLevel json &at &level then
                    addChange frame &level

                    if at < json.Length && json[at] = ','B then
                        at <- at + 1
                    else
                        more <- false
                else
                    ok <- false
                    more <- false

            if ok && Json.isAt json at timestampStart then
                let digits = at + timestampStart.Length
                let length = json.Slice(digits).IndexOf('"'B)
                let mutable moment = Instant.ofMicros 0L

                ok <-
                    length > 0
                    && Instant.tryEpoch (json.Slice(digits, length)) &moment
                    && Json.isAt json (digits + length) changeEnd

                if ok then
                    at <- digits + length + changeEnd.Length
                    finish json frame first moment
            else
                ok <- false

    if not ok then
        frame.Events.Truncate first
        at <- start

    ok

// ---- any order of members, and the other messages

let private names = [
    "event_type"
    "market"
    "asset_id"
    "timestamp"
    "hash"
    "price_changes"
    "changes"
    "price"
    "size"
    "side"
    "best_bid"
    "best_ask"
    "new_tick_size"
    "transaction_hash"
    "slug"
    "condition_id"
    "winning_asset_id"
    "winning_outcome"
]

let private members = Members names

let private index name = List.findIndex ((=) name) names

let private iEvent, iMarket, iAsset, iTimestamp =
    index "event_type", index "market", index "asset_id", index "timestamp"

let private iHash, iChanges, iOldChanges =
    index "hash", index "price_changes", index "changes"

let private iPrice, iSize, iSide = index "price", index "size", index "side"

let private iBestBid, iBestAsk, iTick =
    index "best_bid", index "best_ask", index "new_tick_size"

let private iTransaction, iSlug, iCondition =
    index "transaction_hash", index "slug", index "condition_id"

let private iWinner, iOutcome = index "winning_asset_id", index "winning_outcome"

let private levelNames = [ "asset_id"; "price"; "size"; "side"; "hash"; "best_bid"; "best_ask" ]
let private levelMembers = Members levelNames

let private buyWord, sellWord = "buy"B, "sell"B

let private isSell (json: ReadOnlySpan<byte>) (part: Slice) =
    part.Length = 4
    && Ascii.EqualsIgnoreCase(json.Slice(part.Start, part.Length), ReadOnlySpan sellWord)

let private isBuy (json: ReadOnlySpan<byte>) (part: Slice) =
    part.Length = 3
    && Ascii.EqualsIgnoreCase(json.Slice(part.Start, part.Length), ReadOnlySpan buyWord)

/// A number in millionths; `none` when it is not there.
let private amount (json: ReadOnlySpan<byte>) (part: Slice) (whenEmpty: int64) (value: byref<int64>) =
    let mutable rounded = false

    if part.Length = 0 then
        value <- whenEmpty
        true
    else
        Fixed.parse (json.Slice(part.Start, part.Length)) &value &rounded = NumberFault.None

/// One change in any order of members. `asset` and `hash` are those of the message, which the old form has there.
let private anyLevel
    (json: ReadOnlySpan<byte>)
    (at: byref<int>)
    (asset: Slice)
    (hash: Slice)
    (level: byref<Level>)
    : string | null =
    let mutable walk = Members.Begin(json, &at)
    let mutable start, length = 0, 0
    let mutable asset, hash = asset, hash
    let mutable price, size, side, bestBid, bestAsk = none, none, none, none, none
    let mutable hasBid, hasAsk = false, false

    while levelMembers.Next(json, &at, &walk) do
        match walk.Index with
        | 0 ->
            walk.Ok <- Json.identity json &at &start &length
            asset <- { Start = start; Length = length }
        | 1 ->
            walk.Ok <- Json.numeral json &at &start &length
            price <- { Start = start; Length = length }
        | 2 ->
            walk.Ok <- Json.numeral json &at &start &length
            size <- { Start = start; Length = length }
        | 3 ->
            walk.Ok <- Json.string json &at &start &length
            side <- { Start = start; Length = length }
        | 4 ->
            walk.Ok <- Json.textOrNull json &at &start &length
            hash <- { Start = start; Length = length }
        | 5 ->
            walk.Ok <- Json.numeral json &at &start &length
            bestBid <- { Start = start; Length = length }
            hasBid <- true
        | 6 ->
            walk.Ok <- Json.numeral json &at &start &length
            bestAsk <- { Start = start; Length = length }
            hasAsk <- true
        | _ -> walk.Ok <- Json.skip json &at

    if not walk.Ok then
        "a change is malformed"
    elif
        asset.Length <= 0
        || not (Identity.isValid (json.Slice(asset.Start, asset.Length)))
    then
        "a change without a token ('asset_id')"
    elif not (isBuy json side || isSell json side) then
        "a change whose side is neither BUY nor SELL"
    elif price.Length = 0 || not (amount json price 0L &level.Price) then
        "a change whose price is not a number"
    elif size.Length = 0 || not (amount json size 0L &level.Size) then
        "a change whose size is not a number"
    elif level.Size < 0L then
        "a change whose size is negative"
    elif hasBid && not (amount json bestBid 0L &level.BestBid) then
        "a change whose best bid is not a number"
    elif hasAsk && not (amount json bestAsk Fixed.One &level.BestAsk) then
        "a change whose best ask is not a number"
    else
        level.Token <- asset
        level.Side <- if isSell json side then Side.Sell else Side.Buy
        level.Hash <- if hash.Length = hashLength then hash else none
        null

/// An id, or the name of nothing.
let private nameOf (json: ReadOnlySpan<byte>) (names: Names) (part: Slice) : Name =
    if part.Length > 0 && Identity.isValid (json.Slice(part.Start, part.Length)) then
        names.Intern(json.Slice(part.Start, part.Length))
    else
        { Key = 0 }

let private found (part: Slice) = if part.Length > 0 then part else none

let private bookWord, changeWord, tradeWord =
    "book"B, "price_change"B, "last_trade_price"B

let private tickWord, bestWord = "tick_size_change"B, "best_bid_ask"B
let private newWord, resolvedWord = "new_market"B, "market_resolved"B

/// An event that has no more to it.
let private simple (frame: Frame) kind market token side detail text : StreamEvent = {
    Kind = kind
    Market = market
    Token = token
    At = Instant.ofMicros 0L
    Message = frame.Messages
    Side = side
    Price = 0L
    Size = 0L
    BestBid = -1L
    BestAsk = -1L
    Hash = none
    Text = text
    Detail = detail
    Row = -1
    Sequence = 0
    IsLast = true
}

/// The whole book that was read last.
let private addBook (frame: Frame) row =
    let book = &frame.Batch.Books[row]

    let event = {
        simple frame StreamKind.Book book.Market book.Token Side.Buy none none with
            At = book.At
            Row = row
    }

    frame.Events.Add &event

let private bookAsset, bookTimestamp, bookHash, bookBids =
    "\",\"asset_id\":\""B, "\",\"timestamp\":\""B, "\",\"hash\":\""B, "\",\"bids\":["B

let private bookEnd = "\"event_type\":\"book\"}"B

/// The cursor behind this text, which follows the next quote; negative when something else does.
let private behind (json: ReadOnlySpan<byte>) (at: int) (word: byte[]) =
    if at < 0 then
        at
    else
        let length = json.Slice(at).IndexOf '"'B

        if length >= 0 && Json.isAt json (at + length) word then
            at + length + word.Length
        else
            -1

/// A whole book that begins and ends as they usually do, or nothing of it: its levels are then read once, where `unusual` has to find
/// out first what a message is.
let private usualBook (json: ReadOnlySpan<byte>) (at: byref<int>) (frame: Frame) =
    let start = at

    let isLikely =
        Json.isAt json at marketStart
        && (let behindMarket = behind json (at + marketStart.Length) bookAsset
            let behindAsset = behind json behindMarket bookTimestamp
            let behindTimestamp = behind json behindAsset bookHash
            behind json behindTimestamp bookBids > 0)

    let mutable ok = false

    if isLikely then
        let mark, row = frame.Batch.Mark(), frame.Batch.Books.Count
        let reason = PolymarketBooks.bookReader.Invoke(json, &at, frame.Batch)

        ok <-
            isNull reason
            && json.Slice(start, at - start).EndsWith(ReadOnlySpan bookEnd)
            && Utf8.IsValid(json.Slice(start, at - start))

        if ok then
            addBook frame row
        else
            frame.Batch.Rollback mark
            at <- start

    ok

/// One message in any order of its members.
let private unusual (json: ReadOnlySpan<byte>) (at: byref<int>) (frame: Frame) : string | null =
    let start, firstEvent = at, frame.Events.Count
    let batch = frame.Batch
    let names' = batch.Names
    let parts = frame.Parts
    parts.AsSpan().Fill { Start = 0; Length = -1 }
    let mutable walk = Members.Begin(json, &at)
    let mutable from, length = 0, 0

    while members.Next(json, &at, &walk) do
        if walk.Index < 0 then
            walk.Ok <- Json.skip json &at
        elif walk.Index = iChanges || walk.Index = iOldChanges then
            Json.space json &at
            from <- at
            walk.Ok <- Json.skip json &at
            parts[walk.Index] <- { Start = from; Length = at - from }
        else
            walk.Ok <-
                match Json.peek json &at with
                | '"'B -> Json.string json &at &from &length
                | 'n'B ->
                    length <- -1
                    Json.takeNull json &at
                | '{'B
                | '['B
                | 't'B
                | 'f'B ->
                    length <- -1
                    Json.skip json &at
                | _ -> Json.number json &at &from &length

            parts[walk.Index] <- { Start = from; Length = length }

    let over = at

    if not walk.Ok then
        "the message is malformed"
    else
        let kind = parts[iEvent]

        let kind =
            if kind.Length > 0 then
                json.Slice(kind.Start, kind.Length)
            elif parts[iChanges].Length >= 0 || parts[iOldChanges].Length >= 0 then
                ReadOnlySpan changeWord
            else
                ReadOnlySpan.Empty

        let mutable moment = Instant.ofMicros 0L
        let stamp = parts[iTimestamp]

        let hasMoment =
            stamp.Length > 0
            && Instant.tryEpoch (json.Slice(stamp.Start, stamp.Length)) &moment

        let mutable reason: string | null = null

        if kind.SequenceEqual(ReadOnlySpan bookWord) then
            at <- start
            let row = batch.Books.Count
            reason <- PolymarketBooks.bookReader.Invoke(json, &at, batch)

            if isNull reason then
                addBook frame row

            reason
        elif kind.SequenceEqual(ReadOnlySpan changeWord) then
            let market = parts[iMarket]

            if not hasMoment then
                "a change without a readable timestamp"
            elif
                market.Length <= 0
                || not (Identity.isValid (json.Slice(market.Start, market.Length)))
            then
                "a change without a market"
            else
                let list =
                    if parts[iChanges].Length >= 0 then
                        parts[iChanges]
                    else
                        parts[iOldChanges]

                let mutable cursor, isFirst, isGood = list.Start, true, list.Length > 0

                if isGood then
                    isGood <- Json.take json &cursor '['B

                if not isGood then
                    reason <- "the changes are not a list"

                while isNull reason && isGood && Json.element json &cursor &isFirst &isGood do
                    let mutable level = noLevel

                    reason <- anyLevel json &cursor (found parts[iAsset]) (found parts[iHash]) &level

                    if isNull reason then
                        addChange frame &level

                if isNull reason then
                    finish json frame firstEvent moment
                else
                    frame.Events.Truncate firstEvent

                at <- over
                reason
        else
            let mutable price, size = 0L, 0L

            if kind.SequenceEqual(ReadOnlySpan tradeWord) then
                let market, token =
                    nameOf json names' parts[iMarket], nameOf json names' parts[iAsset]

                let priceText, sizeText = found parts[iPrice], found parts[iSize]

                if not hasMoment then
                    "a fill without a readable timestamp"
                elif market.Key = 0 || token.Key = 0 then
                    "a fill without its market or token"
                elif priceText.Length = 0 || not (amount json priceText 0L &price) then
                    "a fill whose price is not a number"
                elif sizeText.Length = 0 || not (amount json sizeText 0L &size) || size < 0L then
                    "a fill whose size is no size"
                elif not (isBuy json parts[iSide] || isSell json parts[iSide]) then
                    "a fill whose side is neither BUY nor SELL"
                else
                    let side = if isSell json parts[iSide] then Side.Sell else Side.Buy

                    let event = {
                        simple frame StreamKind.Trade market token side (found parts[iTransaction]) priceText with
                            At = moment
                            Price = price
                            Size = size
                    }

                    frame.Events.Add &event
                    null
            elif kind.SequenceEqual(ReadOnlySpan tickWord) then
                let tick = found parts[iTick]

                if not hasMoment || tick.Length = 0 || not (amount json tick 0L &price) then
                    "a tick size change without its tick size or timestamp"
                else
                    let event = {
                        simple
                            frame
                            StreamKind.TickSize
                            (nameOf json names' parts[iMarket])
                            (nameOf json names' parts[iAsset])
                            Side.Buy
                            none
                            tick with
                            At = moment
                            Price = price
                    }

                    frame.Events.Add &event
                    null
            elif kind.SequenceEqual(ReadOnlySpan bestWord) then
                // Irregular and sometimes wrong: counted, and not believed.
                if
                    amount json (found parts[iBestBid]) 0L &price
                    && amount json (found parts[iBestAsk]) Fixed.One &size
                then
                    let event = {
                        simple
                            frame
                            StreamKind.BestPrices
                            (nameOf json names' parts[iMarket])
                            (nameOf json names' parts[iAsset])
                            Side.Buy
                            none
                            none with
                            At = moment
                            BestBid = price
                            BestAsk = size
                    }

                    frame.Events.Add &event
                    null
                else
                    "best prices that are not numbers"
            elif kind.SequenceEqual(ReadOnlySpan newWord) then
                let market =
                    if parts[iCondition].Length > 0 then
                        nameOf json names' parts[iCondition]
                    else
                        nameOf json names' parts[iMarket]

                let event = {
                    simple frame StreamKind.NewMarket market { Key = 0 } Side.Buy none (found parts[iSlug]) with
                        At = moment
                }

                frame.Events.Add &event
                null
            elif kind.SequenceEqual(ReadOnlySpan resolvedWord) then
                let event = {
                    simple
                        frame
                        StreamKind.Resolved
                        (nameOf json names' parts[iMarket])
                        (nameOf json names' parts[iWinner])
                        Side.Buy
                        (found parts[iOutcome])
                        none with
                        At = moment
                }

                frame.Events.Add &event
                null
            else
                frame.Unknown <- frame.Unknown + 1L
                null

/// Where the books that were read last stand in the bytes.
let private origins (frame: Frame) start until =
    let origin: Slice = {
        Start = start
        Length = until - start
    }

    while frame.Batch.BookOrigins.Count < frame.Batch.Books.Count do
        frame.Batch.BookOrigins.Add &origin

/// One message; a bad one costs no good one.
let private message (json: ReadOnlySpan<byte>) (at: byref<int>) (frame: Frame) =
    frame.Messages <- frame.Messages + 1
    Json.space json &at
    let start, events = at, frame.Events.Count

    if usual json &at frame then
        ()
    elif usualBook json &at frame then
        origins frame start at
    else
        let mark = frame.Batch.Mark()
        frame.Unusual <- frame.Unusual + 1L

        let reason: string | null =
            match unusual json &at frame with
            | null when not (Utf8.IsValid(json.Slice(start, at - start))) -> "not valid UTF-8"
            | reason -> reason

        match reason with
        | null -> origins frame start at
        | reason ->
            frame.Events.Truncate events
            frame.Batch.Rollback mark
            at <- start
            let isWhole = Json.skip json &at

            if not isWhole then
                at <- json.Length

            frame.Batch.Rejections.Add {
                Exchange = frame.Batch.Exchange
                Source = "ws/market"
                Offset = start
                Reason = reason
                Bytes = json.Slice(start, at - start).ToArray()
                Received = frame.Batch.Received
            }

let private pong = "PONG"B

/// What is left of a frame cannot be read.
let private rest (json: ReadOnlySpan<byte>) (at: int) (reason: string) (frame: Frame) =
    frame.Batch.Rejections.Add {
        Exchange = frame.Batch.Exchange
        Source = "ws/market"
        Offset = at
        Reason = reason
        Bytes = json.Slice(at).ToArray()
        Received = frame.Batch.Received
    }

let decode (bytes: ReadOnlyMemory<byte>) (received: Instant) (frame: Frame) =
    let json = bytes.Span
    frame.Batch.Exchange <- "polymarket"
    frame.Batch.Received <- received
    let mutable at, ok = 0, true

    if json.SequenceEqual(ReadOnlySpan pong) then
        frame.Pongs <- frame.Pongs + 1L
    else
        match Json.peek json &at with
        | 0uy when at = json.Length -> () // an empty frame
        | '['B ->
            at <- at + 1
            let mutable isFirst = true

            while Json.element json &at &isFirst &ok do
                message json &at frame
        | _ -> message json &at frame

        Json.space json &at

        // Where a message broke off, that is kept already.
        if not ok && (at < json.Length || frame.Batch.Rejections.Count = 0) then
            rest json at "the list of messages breaks off or is malformed" frame
        elif ok && at < json.Length then
            rest json at "something follows the end of the JSON" frame

// ---- what is sent

let private ids (tokens: TokenId list) =
    tokens |> List.map (fun token -> $"\"{token}\"") |> String.concat ","

/// `initial_dump` and `level` are said though they are the defaults: without them half of the sessions had no first book
/// (nautilus_trader#3963).
let openWith (tokens: TokenId list) =
    $"{{\"assets_ids\":[{ids tokens}],\"type\":\"market\",\"initial_dump\":true,\"level\":2,\"custom_feature_enabled\":true}}"

let subscribe (tokens: TokenId list) =
    $"{{\"operation\":\"subscribe\",\"assets_ids\":[{ids tokens}],\"initial_dump\":true,\"level\":2,\"custom_feature_enabled\":true}}"

let unsubscribe (tokens: TokenId list) =
    $"{{\"operation\":\"unsubscribe\",\"assets_ids\":[{ids tokens}]}}"

/// Nothing has to be remembered of what was said before.
let private session: StreamSession = {
    Open = fun tokens -> [ openWith tokens ]
    Subscribe = fun tokens -> [ subscribe tokens ]
    Unsubscribe = fun tokens -> [ unsubscribe tokens ]
    Renew = fun tokens -> [ unsubscribe tokens; subscribe tokens ]
    Decode = decode
}

let part: StreamPart = {
    Host = "ws_url"
    Path = "market"
    MostTokens = 400
    Ping = "PING"
    PingEvery = TimeSpan.FromSeconds 10.0
    IsNumbered = false
    HasBooks = true
    Session = fun () -> session
    Proof = PolymarketProof.create
}
