/// What a recorded value of Polymarket is, judged by its shape alone: which members it has, never where it came from.
module internal Tributary.Exchanges.PolymarketShapes

open System
open Tributary

let private has, hasAny = RawObject.has, RawObject.hasAny
let private isOnly, isList = RawObject.isOnly, RawObject.isList
let private textOf, holds = RawObject.textOf, RawObject.holds
let private isListOf = RawObject.isListOf

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

/// A list whose first element is one of these objects, or an empty one: but an empty page of another exchange has a cursor.
let private listOf is (members: RawObject) name =
    isListOf is members name
    && not (has members [ "cursor" ] && members[name].Json.Length <= 2)

let private isTradeV1 members =
    has members [ "asset"; "conditionId"; "side"; "price"; "size"; "timestamp" ]

let private isTradeV2 members =
    has members [ "token_id"; "condition_id"; "side"; "price"; "size"; "timestamp" ]

let private isActivity members =
    hasAny members [ "usdcSize"; "usdc_size" ]

let private isToken (name: string) =
    name.Length >= 40 && name |> Seq.forall Char.IsAsciiDigit

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
let private shapes: (string * (RawObject -> bool)) list = [
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

/// What an object is, if it is of this exchange at all.
let recognise (members: RawObject) : Shape voption =
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
