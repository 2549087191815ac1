namespace Tributary.Server.Simulator

open System
open System.Buffers.Binary
open System.Buffers.Text
open System.Collections.Generic
open System.Security.Cryptography
open System.Text.Json

/// A row of the trade feed: a fill as its taker sees it, or as its maker does.
[<Struct>]
type internal Row = {
    Market: Market
    Fill: Fill
    Maker: bool
}

/// The rows of some markets, newest first. Every row has a place that later fills never change, which is what makes a
/// cursor stable: the fill's second, and inside the second a number that no other row has.
module internal Feed =
    [<Struct; NoComparison>]
    type Place = {
        Second: int64
        Number: int64
    } with

        member this.IsBefore(other: Place) =
            this.Second < other.Second
            || (this.Second = other.Second && this.Number < other.Number)

    let newest = {
        Second = Int64.MaxValue
        Number = Int64.MaxValue
    }

    let private place (world: World) (market: Market) index maker =
        let number = int64 index * int64 world.Capacity + int64 market.Info.Index

        {
            Second = market.Fill(index).Second
            Number = number * 2L + (if maker then 0L else 1L)
        }

    /// (place, row) of every visible row after a place, down to a second. Markets are merged by their newest rows.
    let rows (world: World) now (markets: Market seq) takerOnly (after: Place) (since: int64) = seq {
        let heads = PriorityQueue<struct (Market * int * bool), struct (int64 * int64)>()

        let push (market: Market) index maker =
            if index >= 0 && market.Fill(index).Second >= since then
                let at = place world market index maker
                heads.Enqueue(struct (market, index, maker), struct (-at.Second, -at.Number))

        for market in markets do
            push market (market.Until after.Second - 1) false

        while heads.Count > 0 do
            let struct (market, index, maker) = heads.Dequeue()
            let fill = market.Fill index

            if maker || takerOnly then
                push market (index - 1) false
            else
                push market index true

            let at = place world market index maker

            if at.IsBefore after && world.Shows(&fill, now) then
                struct (at,
                        {
                            Market = market
                            Fill = fill
                            Maker = maker
                        })
    }

    let side row =
        // A maker on the other token does the same as the taker, on the same token the opposite.
        let buys =
            if row.Maker && not row.Fill.Minted then
                not row.Fill.Buys
            else
                row.Fill.Buys

        if buys then "BUY" else "SELL"

    let token row =
        if row.Maker && row.Fill.Minted then
            1 - row.Fill.Token
        else
            row.Fill.Token

    let price row =
        if row.Maker && row.Fill.Minted then
            Millionths.one - row.Fill.Price
        else
            row.Fill.Price

/// The cursor of `/v2/trades`: a place, the page size and the endpoint's name, signed.
module internal Cursor =
    [<Struct; NoComparison>]
    type Cursor = {
        After: Feed.Place
        Limit: int
        Hop: int
    }

    let private kind = 't'B
    let private length = 25

    let private sign (seed: int) (payload: byte[]) =
        let key: byte[] = BitConverter.GetBytes seed
        let digest: byte[] = HMACSHA256.HashData(key, payload)
        Array.take 8 digest

    let write seed (cursor: Cursor) =
        let payload = Array.zeroCreate<byte> length
        payload[0] <- kind
        BinaryPrimitives.WriteInt64BigEndian(payload.AsSpan 1, cursor.After.Second)
        BinaryPrimitives.WriteInt64BigEndian(payload.AsSpan 9, cursor.After.Number)
        BinaryPrimitives.WriteInt32BigEndian(payload.AsSpan 17, cursor.Limit)
        BinaryPrimitives.WriteInt32BigEndian(payload.AsSpan 21, cursor.Hop)
        Base64Url.EncodeToString(ReadOnlySpan(Array.append payload (sign seed payload)))

    let read seed (text: string) =
        let refuse () = raise (Refused(400, "invalid cursor"))

        let bytes =
            try
                Base64Url.DecodeFromChars text
            with :? FormatException ->
                refuse ()

        if bytes.Length <> length + 8 || bytes[0] <> kind then
            refuse ()

        let payload = Array.take length bytes

        if sign seed payload <> Array.skip length bytes then
            refuse ()

        {
            After = {
                Second = BinaryPrimitives.ReadInt64BigEndian(ReadOnlySpan(payload, 1, 8))
                Number = BinaryPrimitives.ReadInt64BigEndian(ReadOnlySpan(payload, 9, 8))
            }
            Limit = BinaryPrimitives.ReadInt32BigEndian(ReadOnlySpan(payload, 17, 4))
            Hop = BinaryPrimitives.ReadInt32BigEndian(ReadOnlySpan(payload, 21, 4))
        }

/// Trades: `/data/trades` and `/data/v2/trades`.
module internal Data =
    let private bad message = raise (Refused(400, message))

    /// The members of a row under the names of version 1; version 2 writes the same in snake_case.
    [<NoComparison; NoEquality>]
    type private Names = {
        Wallet: string
        Token: string
        Condition: string
        EventSlug: string
        OutcomeIndex: string
        ProfileImage: string
        ProfileImageOptimized: string
        Transaction: string
    }

    let private v1 = {
        Wallet = "proxyWallet"
        Token = "asset"
        Condition = "conditionId"
        EventSlug = "eventSlug"
        OutcomeIndex = "outcomeIndex"
        ProfileImage = "profileImage"
        ProfileImageOptimized = "profileImageOptimized"
        Transaction = "transactionHash"
    }

    let private v2 = {
        Wallet = "proxy_wallet"
        Token = "token_id"
        Condition = "condition_id"
        EventSlug = "event_slug"
        OutcomeIndex = "outcome_index"
        ProfileImage = "profile_image"
        ProfileImageOptimized = "profile_image_optimized"
        Transaction = "transaction_hash"
    }

    let private pseudonyms = [| "Brave-Otter"; "Quiet-Lynx"; "Odd-\"Heron\""; "Wise-Çınar" |]

    let private writeRow (writer: Utf8JsonWriter) (world: World) names (row: Row) =
        let info = row.Market.Info
        let token = Feed.token row
        let trader = if row.Maker then row.Fill.Maker else row.Fill.Taker
        writer.WriteStartObject()
        writer.WriteString(names.Wallet, world.Wallet trader)
        writer.WriteString("side", Feed.side row)
        writer.WriteString(names.Token, info.Tokens[token])
        writer.WriteString(names.Condition, info.Condition)
        writer.WriteNumber("size", Millionths.toDecimal row.Fill.Size)
        writer.WriteNumber("price", Millionths.toDecimal (Feed.price row))
        writer.WriteNumber("timestamp", row.Fill.Second)
        writer.WriteString("title", info.Title)
        writer.WriteString("slug", info.Slug)
        writer.WriteString("icon", "")
        writer.WriteString(names.EventSlug, info.Event.Slug)
        writer.WriteString("outcome", info.Outcomes[token])
        writer.WriteNumber(names.OutcomeIndex, token)
        writer.WriteString("name", (if trader % 3 = 0 then "" else $"trader{trader}"))
        writer.WriteString("pseudonym", pseudonyms[trader % pseudonyms.Length])
        writer.WriteString("bio", "")
        writer.WriteString(names.ProfileImage, "")
        writer.WriteString(names.ProfileImageOptimized, "")
        writer.WriteString(names.Transaction, row.Market.TransactionHash row.Fill)
        writer.WriteEndObject()

    let private marketsOfEvents (world: World) (ids: string list) =
        let wanted = Set.ofList ids

        world.Markets
        |> Array.filter (fun market -> wanted.Contains(string market.Info.Event.Id))

    /// The markets asked for: by condition, by event, or all of them.
    let private markets (world: World) conditions events =
        match conditions, events with
        | [], [] -> world.Markets
        | [], events -> marketsOfEvents world events
        | conditions, _ ->
            conditions
            |> List.distinct
            |> List.choose world.MarketByCondition
            |> Array.ofList

    let private onSide (query: Query) =
        match query.One "side" |> Option.map _.ToUpperInvariant() with
        | None -> fun _ -> true
        | Some("BUY" | "SELL" as wanted) -> fun struct (_, row) -> Feed.side row = wanted
        | Some other -> bad $"invalid side: {other}"

    /// Both versions look back so far unless they are told otherwise (version 1) or whatever they are told (version 2).
    let private threeYears = 3L * 365L * 86_400L

    let private firstVersion
        (options: SimulatorOptions)
        (writer: Utf8JsonWriter)
        (world: World)
        now
        (query: Query)
        =
        let limit = query.Whole("limit", 400) |> Option.defaultValue 100L
        let offset = query.Whole("offset", 400) |> Option.defaultValue 0L

        if limit > 10_000L then
            bad "max limit of 10000 exceeded"

        if offset > int64 options.V1Offset && not options.V1Repeats then
            bad $"max historical activity offset of {options.V1Offset} exceeded"

        // What is too much is given less, and an offset too far gives what was given before: without a word.
        let limit = min limit (int64 options.V1Limit)
        let offset = min offset (int64 options.V1Offset)

        if query.Has "market" && query.Has "eventId" then
            bad "market and eventId are mutually exclusive"

        let since =
            match query.Whole("start", 400) with
            | None
            | Some 0L -> Micros.toSeconds now - threeYears
            | Some start -> start

        let until = query.Whole("end", 400) |> Option.defaultValue Int64.MaxValue
        let takerOnly = query.Flag("takerOnly", 400) |> Option.defaultValue true
        let markets = markets world (query.List "market") (query.List "eventId")

        let rows =
            Feed.rows world now markets takerOnly { Feed.newest with Second = until } since
            |> Seq.filter (onSide query)
            |> Seq.truncate (int (offset + limit))

        let mutable seen = 0L
        writer.WriteStartArray()

        for struct (_, row) in rows do
            if seen >= offset then
                writeRow writer world v1 row

            seen <- seen + 1L

        writer.WriteEndArray()

        {
            Answer.json with
                Rows = int (max 0L (seen - offset))
        }

    let private isCondition (text: string) =
        text.Length = 66
        && text.StartsWith("0x", StringComparison.Ordinal)
        && text |> Seq.skip 2 |> Seq.forall Char.IsAsciiHexDigit

    /// How many rows this page shows: now and then fewer than asked for, or none, though it is not the last.
    let private size (random: Dice) (cursor: Cursor.Cursor) =
        match random.Below 16 with
        | 0 when cursor.Hop < 2 -> 0
        | 1 -> max 1 (cursor.Limit / 2)
        | _ -> cursor.Limit

    let private secondVersion seed (writer: Utf8JsonWriter) (world: World) now (ask: Ask) =
        let query = ask.Query

        let conditions =
            [ "condition"; "condition_id"; "conditionId" ] |> List.collect query.List

        let events = query.List "event_id"
        let limit = query.Whole("limit", 400) |> Option.defaultValue 100L

        if query.Has "offset" then
            bad "offset is not supported, use cursor"

        if limit < 1L || limit > 1000L then
            bad "limit must be between 1 and 1000"

        if conditions.Length > 20 || events.Length > 20 then
            bad "at most 20 values"

        if not (List.forall isCondition conditions) then
            bad "malformed condition"

        let takerOnly = query.Flag("taker_only", 400) |> Option.defaultValue true

        let from =
            match query.One "cursor" with
            | Some text when text <> "" -> Cursor.read seed text
            | _ -> {
                After = Feed.newest
                Limit = int limit
                Hop = 0
              }

        let size = size ask.Dice from

        // One row more than a whole page, to know whether anything is left.
        let rows =
            Feed.rows
                world
                now
                (markets world conditions events)
                takerOnly
                from.After
                (Micros.toSeconds now - threeYears)
            // Dust is left out, whatever is asked.
            |> Seq.filter (fun struct (_, row) -> row.Fill.Size >= 10_000L)
            |> Seq.filter (onSide query)
            |> Seq.truncate (size + 1)
            |> Array.ofSeq

        let shown = Array.truncate size rows

        let next =
            if rows.Length = shown.Length then
                ValueNone
            elif shown.Length = 0 then
                ValueSome { from with Hop = from.Hop + 1 }
            else
                let struct (last, _) = Array.last shown
                ValueSome { from with After = last; Hop = 0 }

        writer.WriteStartObject()
        writer.Array("data", shown, (fun (struct (_, row)) -> writeRow writer world v2 row))
        writer.WriteStartObject "pagination"
        writer.WriteNumber("limit", from.Limit)
        writer.WriteNull "offset"
        writer.WriteBoolean("has_more", next.IsSome)

        match next with
        | ValueSome cursor -> writer.WriteString("next_cursor", Cursor.write seed cursor)
        | ValueNone -> writer.WriteNull "next_cursor"

        writer.WriteEndObject()
        writer.WriteEndObject()
        { Answer.json with Rows = shown.Length }

    /// Answers a request whose path went on with these parts after the host's prefix.
    let answer (options: SimulatorOptions) (writer: Utf8JsonWriter) world now (ask: Ask) (path: string list) =
        match path with
        | [ "trades" ] -> firstVersion options writer world now ask.Query
        | [ "v2"; "trades" ] when options.V2 -> secondVersion options.Seed writer world now ask
        | _ -> Answer.error 404 "not found" writer
