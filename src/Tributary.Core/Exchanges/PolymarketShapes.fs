/// What a recorded value of Polymarket is, judged by its shape alone: which members it has, never where it came from.
module internal Tributary.Exchanges.PolymarketShapes

open System
open System.Collections.Generic
open System.Text
open Tributary

/// A value of an object, by its first byte and by its bytes.
[<Struct>]
type private Value = {
    Json: ReadOnlyMemory<byte>
} with

    member this.First = if this.Json.IsEmpty then 0uy else this.Json.Span[0]
    member this.IsObject = this.First = '{'B
    member this.IsList = this.First = '['B
    member this.IsText = this.First = '"'B

/// An object's members by their names (escapes in names are not undone: no exchange sends any).
type private Members = Dictionary<string, Value>

let private cut (json: ReadOnlyMemory<byte>) start until : Value = {
    Json = json.Slice(start, until - start)
}

/// The members of an object; nothing when it breaks off or is malformed.
let private membersOf (json: ReadOnlyMemory<byte>) : Members option =
    let bytes = json.Span
    let found = Members()
    let mutable at = 0
    let mutable first, ok = true, Json.take bytes &at '{'B
    let mutable start, length = 0, 0

    while ok && Json.``member`` bytes &at &first &start &length &ok do
        Json.space bytes &at
        let from = at
        ok <- Json.skip bytes &at

        if ok then
            found[Encoding.UTF8.GetString(bytes.Slice(start, length))] <- cut json from at

    if ok then Some found else None

/// The elements of a list; nothing when it breaks off or is malformed.
let private elementsOf (json: ReadOnlyMemory<byte>) : Value list option =
    let bytes = json.Span
    let found = List<Value>()
    let mutable at = 0
    let mutable first, ok = true, Json.take bytes &at '['B

    while ok && Json.element bytes &at &first &ok do
        Json.space bytes &at
        let from = at
        ok <- Json.skip bytes &at

        if ok then
            found.Add(cut json from at)

    if ok then Some(List.ofSeq found) else None

/// The content of a JSON string, escapes undone.
let private contentOf (value: Value) =
    if value.IsText && value.Json.Length >= 2 then
        Json.tryText (value.Json.Slice(1, value.Json.Length - 2).Span)
    else
        ValueNone

/// A JSON value that stands inside a string.
let private inner (value: Value) =
    match contentOf value with
    | ValueSome text when
        text.AsSpan().TrimStart().StartsWith "{"
        || text.AsSpan().TrimStart().StartsWith "["
        ->
        let bytes = Encoding.UTF8.GetBytes text

        ValueSome {
            Json = ReadOnlyMemory(bytes).Trim(ReadOnlySpan " \r\n\t"B)
        }
    | _ -> ValueNone

let private has (members: Members) names =
    names |> List.forall members.ContainsKey

let private hasAny (members: Members) names =
    names |> List.exists members.ContainsKey

let private isList (members: Members) name =
    match members.TryGetValue name with
    | true, value -> value.IsList
    | _ -> false

let private textOf (members: Members) name =
    match members.TryGetValue name with
    | true, value -> ValueOption.defaultValue "" (contentOf value)
    | _ -> ""

/// The first element of a list is an object with these members, or the list is empty.
let private holds (members: Members) name names =
    match members.TryGetValue name with
    | true, list when list.IsList ->
        match elementsOf list.Json with
        | Some [] -> true
        | Some(first :: _) ->
            first.IsObject
            && (match membersOf first.Json with
                | Some inside -> has inside names
                | None -> false)
        | None -> false
    | _ -> false

// Walks without a question: their decoders ask for nothing more.
let private marketWalk =
    Walk.Markets(Need.MarketsById [], PageState.first "offset markets ")

let private eventWalk =
    Walk.Markets(Need.MarketsById [], PageState.first "offset events ")

let private pageWalk =
    Walk.Markets(Need.MarketsById [], PageState.first "keyset markets ")

let private trades route = Walk.Trades([], PageState.first route)

// What a value may be called, and what it is told by.

let private isSidesBy sides members =
    sides |> List.forall (fun side -> holds members side [ "price"; "size" ])

let private isLevels members =
    isSidesBy [ "bids"; "asks" ] members || isSidesBy [ "buys"; "sells" ] members

let private isBook members =
    (isLevels members
     || has members [ "hash" ]
        && (has members [ "bids"; "asks" ] || has members [ "buys"; "sells" ]))
    && has members [ "market"; "asset_id"; "timestamp" ]

let private isMarket members =
    has members [ "conditionId" ]
    && hasAny members [ "question"; "questionID"; "outcomes"; "clobTokenIds"; "outcomePrices" ]
    || has members [ "id"; "question" ]
       && hasAny members [
           "outcomes"
           "clobTokenIds"
           "outcomePrices"
           "questionID"
           "enableOrderBook"
           "umaResolutionStatuses"
       ]

let private isEvent members =
    isList members "markets"
    && has members [ "slug"; "title" ]
    && not (has members [ "event_ticker" ])
    || has members [ "id"; "ticker"; "slug"; "title" ]

/// A list whose first element is one of these objects, or an empty one.
let private listOf is (members: Members) name =
    match members.TryGetValue name with
    | true, list when list.IsList ->
        match elementsOf list.Json with
        | Some [] -> not (has members [ "cursor" ]) // an empty page of another exchange has one
        | Some(first :: _) -> first.IsObject && (membersOf first.Json |> Option.exists is)
        | None -> false
    | _ -> false

let private isTradeV1 members =
    has members [ "asset"; "conditionId"; "side"; "price"; "size"; "timestamp" ]

let private isTradeV2 members =
    has members [ "token_id"; "condition_id"; "side"; "price"; "size"; "timestamp" ]

let private isActivity members =
    hasAny members [ "usdcSize"; "usdc_size" ]

let private isToken (name: string) =
    name.Length >= 40 && name |> Seq.forall Char.IsAsciiDigit

let private isOnly (members: Members) names =
    members.Count = List.length names && has members names

/// Events of the WebSocket's market and user channels by their `event_type`.
let private streamed members name =
    match name with
    | "book" when isBook members -> Shape.Rows("book (stream)", Walk.Books [])
    | "book" when has members [ "bids"; "asks" ] && not (has members [ "asset_id" ]) ->
        Shape.Recognised "levels without a token"
    | "book" -> Shape.Rows("book (stream)", Walk.Books [])
    | "price_change" when has members [ "price_changes" ] -> Shape.Recognised "price_change"
    | "price_change" -> Shape.Recognised "price_change (until 2025-09)"
    | "last_trade_price"
    | "best_bid_ask"
    | "tick_size_change"
    | "new_market"
    | "market_resolved" -> Shape.Recognised name
    | "order" -> Shape.Recognised "own order"
    | "trade" -> Shape.Recognised "own trade"
    | _ -> Shape.Recognised "stream event of an unknown type"

/// The first that fits counts: from what is named by the exchange to what is only likely.
let private shapes: (string * (Members -> bool)) list = [
    "book", (fun m -> isBook m)
    "gamma search",
    (fun m ->
        isList m "events"
        && (hasAny m [ "profiles"; "tags" ] && not (has m [ "id" ])
            || has m [ "pagination" ]))
    "gamma series", (fun m -> has m [ "ticker"; "slug"; "seriesType" ])
    "activity", (fun m -> isActivity m && hasAny m [ "conditionId"; "condition_id" ])
    "trade v1", isTradeV1
    "trade v2", isTradeV2
    "trade v2 page",
    (fun m ->
        listOf (fun row -> isTradeV2 row && not (isActivity row)) m "data"
        && (has m [ "pagination" ] || m.Count = 1 && m["data"].Json.Length > 2))
    "gamma market", isMarket
    "gamma page",
    (fun m ->
        not (has m [ "id" ])
        && (listOf isMarket m "markets" || listOf isEvent m "events"))
    "gamma event", isEvent
    "price_change", (fun m -> holds m "price_changes" [ "asset_id"; "price"; "size" ])
    "price_change (until 2025-09)",
    (fun m -> has m [ "asset_id" ] && holds m "changes" [ "price"; "size"; "side" ])
    "own trade", (fun m -> has m [ "id" ] && hasAny m [ "taker_order_id"; "maker_orders" ])
    "own order", (fun m -> has m [ "original_size"; "size_matched" ])
    "price_change (one level)",
    (fun m -> has m [ "asset_id"; "price"; "size"; "side"; "best_bid"; "best_ask" ])
    "market_resolved", (fun m -> has m [ "winning_asset_id" ])
    "new_market", (fun m -> has m [ "assets_ids"; "question" ])
    "tick_size_change", (fun m -> has m [ "asset_id"; "new_tick_size" ])
    "best_bid_ask", (fun m -> has m [ "asset_id"; "best_bid"; "best_ask" ])
    "last_trade_price", (fun m -> has m [ "asset_id"; "price"; "size"; "side"; "timestamp" ])
    "last trade price", (fun m -> has m [ "token_id"; "price"; "side" ])
    "live data (RTDS)", (fun m -> has m [ "topic"; "type"; "payload" ])
    "live data (PolyBolt)", (fun m -> has m [ "channel"; "seq"; "payload" ])
    "sports", (fun m -> has m [ "leagueAbbreviation" ] && hasAny m [ "gameId"; "homeTeam" ])
    "clob market", (fun m -> has m [ "condition_id" ] && holds m "tokens" [ "token_id" ])
    "clob market (short)", (fun m -> has m [ "c"; "mts" ] && holds m "t" [ "t"; "o" ])
    "clob market of a token", (fun m -> has m [ "condition_id"; "primary_token_id" ])
    "chain fill", (fun m -> hasAny m [ "makerAmountFilled"; "makerAssetId" ])
    "subscription",
    (fun m ->
        has m [ "assets_ids" ] && hasAny m [ "type"; "operation" ]
        || has m [ "auth"; "type" ]
        || has m [ "subscriptions" ] && hasAny m [ "action"; "op" ])
    "position", (fun m -> has m [ "asset"; "conditionId"; "size"; "avgPrice" ])
    "holders", (fun m -> has m [ "token"; "holders" ])
    "comment", (fun m -> has m [ "body"; "parentEntityType" ])
    "gamma tag", (fun m -> has m [ "id"; "label"; "slug" ] && not (has m [ "question" ]))
    "levels without a token",
    (fun m ->
        isLevels m
        && not (has m [ "asset_id" ])
        && hasAny m [ "timestamp"; "local_timestamp"; "ts" ])
    "book without a market or a time", (fun m -> isLevels m && has m [ "asset_id" ])
    "trade without a token",
    (fun m ->
        has m [ "price"; "size"; "side" ]
        && hasAny m [ "timestamp"; "local_timestamp"; "match_time"; "ts" ]
        && List.contains ((textOf m "side").ToLowerInvariant()) [ "buy"; "sell" ])
    "price history", (fun m -> holds m "history" [ "t"; "p" ])
    "fee rate", (fun m -> isOnly m [ "base_fee" ])
    "tick size", (fun m -> isOnly m [ "minimum_tick_size" ])
    "neg-risk", (fun m -> isOnly m [ "neg_risk" ])
    "midpoint", (fun m -> isOnly m [ "mid" ])
    "price", (fun m -> isOnly m [ "price" ])
    "last trade price", (fun m -> isOnly m [ "price"; "side" ])
    "spread", (fun m -> isOnly m [ "spread" ])
    "open interest", (fun m -> isOnly m [ "market"; "value" ])
    "prices by token", (fun m -> m.Count > 0 && m.Keys |> Seq.forall isToken)
    "error", (fun m -> (textOf m "error") <> "" && m.Count <= 4)
    "empty page", (fun m -> isList m "data" && m["data"].Json.Length <= 3 && has m [ "next_cursor" ])
    "empty object", (fun m -> m.Count = 0)
]

let private walks =
    dict [
        "book", Walk.Books []
        "trade v1", trades "rows v1"
        "trade v2", trades "rows v2"
        "trade v2 page", trades "v2"
        "gamma market", marketWalk
        "gamma page", pageWalk
        "gamma event", eventWalk
    ]

let private shapeOf (members: Members) : Shape voption =
    match textOf members "event_type" with
    | "" ->
        match shapes |> List.tryFind (fun (_, fits) -> fits members) with
        | Some(kind, _) ->
            match walks.TryGetValue kind with
            | true, walk -> ValueSome(Shape.Rows(kind, walk))
            | _ -> ValueSome(Shape.Recognised kind)
        | None -> ValueNone
    | name when hasAny members [ "market"; "asset_id" ] -> ValueSome(streamed members name)
    | _ -> ValueNone

/// Names under which recorders keep what they received; under any other name only what decodes to rows is looked for.
let private wrappers =
    set [
        "raw"
        "data"
        "payload"
        "message"
        "msg"
        "event"
        "body"
        "response"
        "result"
        "content"
        "frame"
        "json"
        "record"
        "value"
    ]

/// Wrappers inside wrappers are looked into this deep.
let private deepest = 5

let rec private judge depth (value: Value) : Shape voption =
    match value.First with
    | '{'B ->
        match membersOf value.Json with
        | None -> ValueNone
        | Some members ->
            match shapeOf members with
            | ValueSome shape -> ValueSome shape
            | ValueNone -> if depth > 0 then wrapped depth members else ValueNone
    | '['B ->
        match elementsOf value.Json with
        | None -> ValueNone
        | Some [] -> ValueSome(Shape.Recognised "empty list")
        | Some elements -> if depth > 0 then listed depth elements else ValueNone
    | '"'B ->
        match inner value, contentOf value with
        | ValueSome content, _ when depth > 0 && (judge (depth - 1) content).IsSome ->
            ValueSome(Shape.Holds("text", [ content.Json ]))
        | _, ValueSome("PONG" | "PING" | "pong" | "ping") -> ValueSome(Shape.Recognised "keep-alive")
        | _, ValueSome "OK" -> ValueSome(Shape.Recognised "ok")
        | _ -> ValueNone
    | _ when
        value.Json.Length = 10
        && value.Json.Span.IndexOfAnyExceptInRange('0'B, '9'B) < 0
        ->
        ValueSome(Shape.Recognised "server time")
    | _ -> ValueNone

/// A recorder's own object around one or several of the exchange's.
and private wrapped depth members =
    let kept = [
        for KeyValue(name, value) in members do
            let candidate = ValueOption.defaultValue value (inner value)

            if candidate.IsObject || candidate.IsList then
                match judge (depth - 1) candidate with
                | ValueSome(Shape.Recognised("empty list" | "empty object")) -> ()
                | ValueSome(Shape.Recognised _) when not (wrappers.Contains name) -> ()
                | ValueSome _ -> name, candidate.Json
                | ValueNone -> ()
    ]

    match kept with
    | [] -> ValueNone
    | _ ->
        let names = kept |> List.map (fun (name, _) -> $"'{name}'") |> String.concat ", "
        ValueSome(Shape.Holds(names, List.map snd kept))

/// A list is judged element by element, because a frame may mix kinds. Numbers and texts beside the exchange's values (a
/// recorder's own time) are passed over.
and private listed depth elements =
    let values =
        elements
        |> List.map (fun element -> ValueOption.defaultValue element (inner element))
        |> List.filter (fun element -> element.IsObject || element.IsList)

    if values |> List.exists (fun value -> (judge (depth - 1) value).IsSome) then
        ValueSome(Shape.Holds("list", values |> List.map _.Json))
    else
        ValueNone

let recognise (json: ReadOnlyMemory<byte>) : Shape voption =
    judge deepest {
        Json = json.Trim(ReadOnlySpan " \r\n\t"B)
    }
