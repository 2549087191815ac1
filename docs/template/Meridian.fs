/// Meridian, an imaginary exchange: a template for a real one. It stands every case of conformance that can be with it, so what is kept of
/// it stays right.
///
/// A real file says here where the facts are from, and when they were seen:
///     https://api.meridian.example/docs (seen 2026-11)
[<RequireQualifiedAccess>]
module Tributary.Exchanges.Meridian

open System
open System.Text
open System.Text.Json
open Tributary

let private exchange = Known.exchange "meridian"

let private escaped (text: string) = Uri.EscapeDataString text

let private asked endpoint path walk : Request = {
    Endpoint = endpoint
    Host = "api_url"
    Path = path
    Body = ValueNone // a JSON body would make it a POST
    Walk = walk
}

// ---- reading members. What cannot be read is an error that says which member it was: a number that is not there is never a zero.

let private read parse (name: string) (element: JsonElement) =
    match Element.text name element with
    | "" -> Error $"'{name}' is missing"
    | text when text.Length > Identity.Longest -> Error $"'{name}' is longer than anything that it can be"
    | text -> parse text |> Result.mapError (fun (reason: string) -> $"'{name}': {reason}")

let private moment (text: string) : Result<Instant, string> =
    let mutable at = Instant.ofMicros 0L

    if Instant.tryIso (ReadOnlySpan(Encoding.UTF8.GetBytes text)) &at then
        Ok at
    else
        Error "it is no time such as 2026-11-01T12:00:00.123Z"

/// The first of these that is an error; null when there is none. A row reader answers with why a row is refused, or null.
let private firstError (errors: (string | null) list) : string | null =
    match errors |> List.tryFind (isNull >> not) with
    | Some reason -> reason
    | None -> null

let private errorOf (result: Result<'T, string>) : string | null =
    match result with
    | Ok _ -> null
    | Error reason -> reason

// ---- pages: `{"markets":[…],"next":"CURSOR"}`. The end is a cursor that is null, empty or missing.

let private pageMembers = Members [ "next"; "rows" ]

/// Reads the rows of a page one by one, so that a bad one costs no good one, and its cursor.
let private page
    (json: ReadOnlySpan<byte>)
    source
    (reader: RowReader)
    (batch: Batch)
    (cursor: byref<string voption>)
    : Fault voption =
    let mutable at = 0
    let mutable walk = Members.Begin(json, &at)
    let mutable start, length = 0, 0
    let mutable fault, isPage = ValueNone, false

    while fault.IsNone && pageMembers.Next(json, &at, &walk) do
        match walk.Index with
        | 0 ->
            walk.Ok <- Json.textOrNull json &at &start &length

            if walk.Ok && length > 0 then
                cursor <- Json.tryText (json.Slice(start, length))
        | 1 ->
            isPage <- true
            fault <- Json.rows json &at source reader batch
        | _ -> walk.Ok <- Json.skip json &at

    if fault.IsSome then
        fault
    elif not walk.Ok then
        ValueSome(Fault.Undecodable(at, "the page breaks off or is malformed"))
    elif not isPage then
        // Never "no rows": a member that was renamed would look like that.
        ValueSome(Fault.Undecodable(0, "a page without 'rows'"))
    else
        Json.``end`` json at

/// What a page leads to: an end, the page behind it, or a circle.
let private after (mark: struct (int * int * int * int * int * int)) state cursor next (batch: Batch) =
    match cursor with
    | ValueNone -> Decoded.nothing
    | ValueSome again when state.Seen.Contains again ->
        batch.Rollback mark
        Decoded.faulty (Fault.RepeatedPage again)
    | ValueSome cursor -> {
        Decoded.nothing with
            Next = [
                next
                    {
                        state with
                            Page = state.Page + 1
                            Seen = state.Seen.Add cursor
                    }
                    cursor
            ]
      }

let private behind cursor =
    if cursor = "" then "" else $"&cursor={escaped cursor}"

// ---- markets
//
// {"id":"m1","slug":"rain","question":"Will it rain?","state":"open","tick":"0.01","ends":"2026-12-01T00:00:00Z",
//  "outcomes":[{"name":"Yes","token":"t1"},{"name":"No","token":"t2"}]}

/// A word that nobody knows is never taken for an open market.
let private statusOf word =
    match word with
    | "announced" -> MarketStatus.Pending
    | "open" -> MarketStatus.Open
    | "settled" -> MarketStatus.Resolved
    | _ -> MarketStatus.Closed

let private marketReader =
    RowReader(fun json at batch ->
        let add (element: JsonElement) raw : string | null =
            match read MarketId.Parse "id" element with
            | Error reason -> reason
            | Ok market ->
                let status = statusOf (Element.text "state" element)

                batch.Markets.Add {
                    Exchange = exchange
                    Market = market
                    Event = Element.text "event" element
                    Slug = Element.text "slug" element
                    Question = Element.text "question" element
                    Outcomes = [|
                        match Element.tryMember "outcomes" element with
                        | ValueSome outcomes when outcomes.ValueKind = JsonValueKind.Array ->
                            for outcome in outcomes.EnumerateArray() do
                                if outcome.ValueKind = JsonValueKind.Object then
                                    {
                                        Name = Element.text "name" outcome
                                        Token =
                                            match read TokenId.Parse "token" outcome with
                                            | Ok token -> ValueSome token
                                            | Error _ -> ValueNone
                                    }
                        | _ -> ()
                    |]
                    Status = status
                    AcceptsOrders = (status = MarketStatus.Open)
                    TickSize =
                        match read Price.parse "tick" element with
                        | Ok tick -> ValueSome tick
                        | Error _ -> ValueNone
                    MinimumSize = ValueNone
                    NegRisk = false
                    Start = ValueNone
                    End = Element.moment [ "ends" ] element
                    ClosedAt = ValueNone
                    Winner = Element.text "winner" element
                    Volume = Element.number [ "volume" ] element |> ValueOption.bind Size.tryOfMillionths
                    Liquidity = ValueNone
                    OpenInterest = ValueNone
                    Tags = [||]
                    Updated = Element.moment [ "updated" ] element
                    Received = batch.Received
                    Raw = raw
                }

                null

        Element.reading add json &at)

let private marketsPage need (state: PageState) cursor =
    asked "markets" $"/markets?{state.Route}{behind cursor}" (Walk.Markets(need, state))

let private marketsOf need (query: string) =
    marketsPage need (PageState.first query) ""

// ---- trades
//
// {"id":"f1","market":"m1","token":"t1","outcome":"Yes","taker":"buys","price":"0.42","size":"12.5","at":"2026-11-01T12:00:00.123Z"}

let private sideOf word =
    match word with
    | "buys" -> Ok Side.Buy
    | "sells" -> Ok Side.Sell
    | word -> Error $"'{word}' is neither 'buys' nor 'sells'"

let private tradeReader =
    RowReader(fun json at batch ->
        let add (element: JsonElement) _ : string | null =
            let id = read (Identity.parse "a trade's id" id) "id" element
            let market = read MarketId.Parse "market" element
            let token = read TokenId.Parse "token" element
            let side = read sideOf "taker" element
            let price = read Price.parse "price" element
            let size = read Size.parse "size" element
            let at = read moment "at" element

            match id, market, token, side, price, size, at with
            | Ok id, Ok market, Ok token, Ok side, Ok price, Ok size, Ok at ->
                let row: TradeRow = {
                    Market = batch.Names.Intern(string market)
                    Token = batch.Names.Intern(string token)
                    Outcome = batch.Names.Intern(Element.text "outcome" element)
                    Side = side
                    Source = Source.Api
                    Price = price
                    Size = size
                    Collateral = ValueNone
                    At = at // the exchange's time, never ours
                    Received = batch.Received
                    Transaction = batch.Keep(ReadOnlySpan(Encoding.UTF8.GetBytes id))
                    Wallet = Slice.none
                    Flags = Flags.None
                    Occurrence = -1 // its id tells it from all others; 0 where there is none: then fills of the same content are counted
                    Id = { High = 0UL; Low = 0UL } // filled in later
                    Inserted = false
                }

                batch.Trades.Add &row
                null
            | _ ->
                firstError [
                    errorOf id
                    errorOf market
                    errorOf token
                    errorOf side
                    errorOf price
                    errorOf size
                    errorOf at
                ]

        Element.reading add json &at)

let private tradesPage (follows: Follow list) (state: PageState) cursor =
    let follow = List.head follows
    let since = max 0L (follow.Since.Micros / 1_000_000L)

    asked
        "trades"
        $"/trades?market={escaped (string follow.Market)}&since={since}{behind cursor}"
        (Walk.Trades(follows, state))

// ---- order books
//
// {"market":"m1","token":"t1","at":"2026-11-01T12:00:00.123Z","bids":[["0.44","7.5"]],"asks":[["0.47","250"]]}

let private levelOf (element: JsonElement) : Result<Level, string> =
    if element.ValueKind <> JsonValueKind.Array || element.GetArrayLength() <> 2 then
        Error "a level is no pair of price and size"
    else
        match Price.parse (element[0].ToString()), Size.parse (element[1].ToString()) with
        | Ok price, Ok size -> Ok { Price = price; Size = size }
        | Error reason, _
        | _, Error reason -> Error reason

/// The levels of a side that are there, rising; of several at one price the last.
let private sideOfBook name (element: JsonElement) : Result<Level list, string> =
    match Element.tryMember name element with
    | ValueSome levels when levels.ValueKind = JsonValueKind.Array ->
        let levels = [ for level in levels.EnumerateArray() -> levelOf level ]

        match
            levels
            |> List.tryPick (function
                | Error reason -> Some reason
                | Ok _ -> None)
        with
        | Some reason -> Error $"'{name}': {reason}"
        | None ->
            levels
            |> List.choose Result.toOption
            |> List.rev
            |> List.distinctBy _.Price
            |> List.filter (fun level -> level.Size.Millionths > 0L)
            |> List.sortBy _.Price.Millionths
            |> Ok
    // Not "an empty side": a member that was renamed would look like that.
    | _ -> Error $"'{name}' is missing"

let private bookReader =
    RowReader(fun json at batch ->
        let add (element: JsonElement) _ : string | null =
            let market = read MarketId.Parse "market" element
            let token = read TokenId.Parse "token" element
            let at = read moment "at" element
            let bids = sideOfBook "bids" element
            let asks = sideOfBook "asks" element

            match market, token, at, bids, asks with
            | Ok market, Ok token, Ok at, Ok bids, Ok asks ->
                let append levels =
                    let first = batch.Levels.Count

                    for level in levels do
                        let level: Level = level
                        batch.Levels.Add &level

                    first

                // Best first on both sides.
                let firstBid = append (List.rev bids)
                let firstAsk = append asks

                let row: BookRow = {
                    Market = batch.Names.Intern(string market)
                    Token = batch.Names.Intern(string token)
                    At = at
                    Received = batch.Received
                    FirstBid = firstBid
                    BidCount = bids.Length
                    FirstAsk = firstAsk
                    AskCount = asks.Length
                    Hash = Slice.none
                    Tick = Price.zero
                    LastTrade = { Start = 0; Length = -1 }
                    Sequence = 0
                    // There is nothing to verify it by; what cannot be verified is not called verified.
                    Verdict = Verdict.Unverifiable
                    Doubt = Doubt.NoHash
                    Reason = Reason.Poll
                    Flags =
                        (if bids.IsEmpty && asks.IsEmpty then Flags.Empty
                         elif bids.IsEmpty || asks.IsEmpty then Flags.OneSided
                         else Flags.None)
                    Inserted = false
                }

                batch.Books.Add &row
                null
            | _ -> firstError [ errorOf market; errorOf token; errorOf at; errorOf bids; errorOf asks ]

        Element.reading add json &at)

// ---- together

let private ask (options: AskOptions) need : Request list =
    let slugs (texts: string list) =
        texts |> List.map escaped |> String.concat ","

    match need with
    | Need.MarketsBySlug found -> [ marketsOf need $"slugs={slugs found}" ]
    | Need.MarketsById ids -> [ marketsOf need $"ids={ids |> List.map string |> slugs}" ]
    | Need.MarketsByEvent events -> [ for event in events -> marketsOf need $"event={escaped event}" ]
    | Need.MarketsLike wanted -> [ marketsOf need (if wanted.WithClosed then "state=all" else "state=open") ]
    | Need.Trades follows -> [ for follow in follows -> tradesPage [ follow ] (PageState.first "") "" ]
    | Need.Books tokens -> [
        for chunk in tokens |> List.chunkBySize (max 1 options.BooksPerRequest) do
            asked "books" $"/books?tokens={chunk |> List.map string |> slugs}" (Walk.Books chunk)
      ]

let private decode (request: Request) (body: ReadOnlyMemory<byte>) received (batch: Batch) : Decoded =
    batch.Exchange <- string exchange
    batch.Received <- received
    let mark = batch.Mark()
    let mutable cursor = ValueNone

    let read reader =
        page body.Span request.Path reader batch &cursor

    match request.Walk with
    | Walk.Markets(need, state) ->
        match read marketReader with
        | ValueSome fault -> Decoded.faulty fault
        | ValueNone -> after mark state cursor (marketsPage need) batch
    | Walk.Trades(follows, state) ->
        let from = batch.Trades.Count

        match read tradeReader with
        | ValueSome fault -> Decoded.faulty fault
        | ValueNone ->
            let times = [ for i in from .. batch.Trades.Count - 1 -> batch.Trades[i].At ]

            {
                after mark state cursor (tradesPage follows) batch with
                    Head =
                        if times.IsEmpty then
                            ValueNone
                        else
                            ValueSome(List.max times)
            }
    | Walk.Books tokens ->
        let from = batch.Books.Count
        let fault = read bookReader

        let answered =
            set [
                for i in from .. batch.Books.Count - 1 -> batch.Names.Text batch.Books[i].Token
            ]

        {
            Decoded.nothing with
                Fault = fault
                Missing = tokens |> List.filter (fun token -> not (answered.Contains(string token)))
        }
    | Walk.History _ -> Decoded.nothing // it has no past that could be asked for

let collector (options: AskOptions) : Collector = {
    Exchange = exchange
    Hosts = [
        {
            Setting = "api_url"
            Address = "https://api.meridian.example/v2"
            Serves = "markets, order books and trades"
        }
    ]
    Limits = [
        {
            Name = "all"
            PerTenSeconds = 100
            Counts = "all requests together"
            BySecond = false
        }
    ]
    Traits = {
        Currency = "USD"
        Prices = "dollars, 0 to 1, on the market's tick"
        Outcomes = "two a market, each with a token and a book of its own"
        Sides = "the taker's"
        Streams = [
            {
                Stream = Stream.Books
                Loss = "not"
                Extent = "not"
                Proof = "none: no hash, no number"
            }
            {
                Stream = Stream.Trades
                Loss = "a walk by cursors that does not end"
                Extent = "the span that was not walked"
                Proof = "the exchange's id of each"
            }
        ]
    }
    Secrets = []
    Notes = []
    Sign = fun _ _ _ -> []
    Admission = ValueNone
    Probes = [
        {
            Host = "api_url"
            Path = "/markets?state=open"
            Body = ValueNone
            IsNeeded = true
            Time = fun _ -> ValueNone
        }
    ]
    LimitsOf = fun _ -> [ "all" ]
    Ask = ask options
    Decode = decode
    OnFault = fun _ _ -> ValueNone
    // What a recorded object is, if it is of this exchange at all, so that `tributary decode` knows it: the others show how.
    Recognise = fun _ -> ValueNone
    History = []
    Stream = ValueNone
}
