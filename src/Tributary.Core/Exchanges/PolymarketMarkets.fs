/// Markets and events of Gamma (`polymarket-api.md` section 2).
module internal Tributary.Exchanges.PolymarketMarkets

open System
open System.Collections.Generic
open System.Text
open System.Text.Json
open Tributary

let exchange =
    match ExchangeId.Parse "polymarket" with
    | Ok id -> id
    | Error message -> invalidOp message

// Markets: Gamma /markets/keyset and /events/keyset (after_cursor, next_cursor absent on the last page); the older offset lists as
// a fallback. Nothing but `id` is never missing; lists come as JSON texts inside strings or as lists.

/// A list of texts: a list, or a string whose content is a list; "", null, "null" and "[]" are none.
let rec private texts (element: JsonElement) : string list =
    match element.ValueKind with
    | JsonValueKind.Array -> [ for item in element.EnumerateArray() -> string (item.ToString()) ]
    | JsonValueKind.String ->
        match element.GetString() with
        | null
        | ""
        | "null" -> []
        | inner when inner.StartsWith '[' ->
            use parsed = JsonDocument.Parse inner
            texts parsed.RootElement
        | single -> [ single ]
    | _ -> []

let private text, isTrue, tryMember =
    Element.text, Element.isTrue, Element.tryMember

let private number, moment = Element.number, Element.moment

let private list name element =
    match tryMember name element with
    | ValueSome value -> texts value
    | ValueNone -> []

let private slugsOf (list: JsonElement) = [
    for item in list.EnumerateArray() do
        if item.ValueKind = JsonValueKind.Object && text "slug" item <> "" then
            text "slug" item
]

let private slugs name element =
    match tryMember name element with
    | ValueSome list when list.ValueKind = JsonValueKind.Array -> slugsOf list
    | _ -> []

/// The slugs of a list of objects; none when it is malformed.
let private slugList (json: ReadOnlySpan<byte>) =
    try
        let mutable reader = Utf8JsonReader json
        use document = JsonDocument.ParseValue &reader
        slugsOf document.RootElement
    with
    | :? JsonException
    | :? InvalidOperationException -> []

/// A Gamma market.
let private marketOf (received: Instant) event (eventTags: string list) (element: JsonElement) raw =
    match MarketId.Parse(text "conditionId" element) with
    | Error message -> Error message
    | Ok id ->
        let names = list "outcomes" element
        // Protocol V2 markets are traded by position ids.
        let tokens =
            list
                (if text "version" element = "v2" then
                     "positionIds"
                 else
                     "clobTokenIds")
                element

        let prices = list "outcomePrices" element

        let outcomes = [|
            for i in 0 .. max names.Length tokens.Length - 1 do
                {
                    Name = if i < names.Length then names[i] else ""
                    Token =
                        match
                            (if i < tokens.Length then
                                 TokenId.Parse tokens[i]
                             else
                                 Error "")
                        with
                        | Ok token -> ValueSome token
                        | Error _ -> ValueNone
                }
        |]

        let isClosed = isTrue "closed" element

        let winner =
            let isOne (price: string) =
                match Price.parse price with
                | Ok price -> price = Price.one
                | Error _ -> false

            match List.tryFindIndex isOne prices with
            | Some i when isClosed && i < outcomes.Length -> outcomes[i].Name
            | _ -> ""

        let takesOrders =
            isTrue "enableOrderBook" element && isTrue "acceptingOrders" element

        let size names =
            number names element |> ValueOption.bind Size.tryOfMillionths

        Ok {
            Exchange = exchange
            Market = id
            Event =
                match event, slugs "events" element with
                | "", first :: _ -> first
                | _ -> event
            Slug = text "slug" element
            Question = text "question" element
            Outcomes = outcomes
            Status =
                if isClosed && (winner <> "" || text "umaResolutionStatus" element = "resolved") then
                    MarketStatus.Resolved
                elif isClosed then
                    MarketStatus.Closed
                elif takesOrders then
                    MarketStatus.Open
                else
                    MarketStatus.Pending
            AcceptsOrders = takesOrders
            TickSize = number [ "orderPriceMinTickSize" ] element |> ValueOption.map Price.ofMillionths
            MinimumSize = size [ "orderMinSize" ]
            NegRisk = isTrue "negRisk" element
            Start = moment [ "startDate"; "startDateIso" ] element
            End = moment [ "endDate"; "endDateIso" ] element
            ClosedAt = moment [ "closedTime" ] element
            Winner = winner
            Volume = size [ "volumeNum"; "volume" ]
            Liquidity = size [ "liquidityNum"; "liquidity" ]
            OpenInterest = size [ "openInterest" ]
            Tags = slugs "tags" element @ eventTags |> List.distinct |> Array.ofList
            Updated = moment [ "updatedAt" ] element
            Received = received
            Raw = raw
        }

/// One market, of the event and with the tags that are known already. `notes` receives what cannot be a row yet.
let private marketReader event tags (notes: List<string>) =
    RowReader(fun json at batch ->
        let add (element: JsonElement) (raw: string) : string | null =
            match marketOf batch.Received event tags element raw with
            | Ok market ->
                batch.Markets.Add market
                null
            | Error message ->
                match text "id" element, text "conditionId" element with
                | "", "" -> "a market without an id"
                | id, "" ->
                    let slug = text "slug" element
                    notes.Add $"market {id} ({slug}) has no condition id yet"
                    null
                | _ -> message

        Element.reading add json &at)

let private eventMembers = Members [ "slug"; "markets"; "tags" ]

/// An event holds whole markets: each is a row of its own, so a bad one costs no other.
let private eventReader source (notes: List<string>) =
    RowReader(fun json at batch ->
        let mutable walk = Members.Begin(json, &at)
        let mutable start, length = 0, 0
        let mutable slug, tags, markets = "", [], -1

        while eventMembers.Next(json, &at, &walk) do
            let opening = Json.peek json &at
            let from = at

            if walk.Index = 0 then
                walk.Ok <- Json.textOrNull json &at &start &length

                if walk.Ok then
                    slug <- ValueOption.defaultValue "" (Json.tryText (json.Slice(start, length)))
            else
                walk.Ok <- Json.skip json &at

                if walk.Index = 1 && opening = '['B then
                    markets <- from
                elif walk.Index = 2 && opening = '['B then
                    tags <- slugList (json.Slice(from, at - from))

        if not walk.Ok then
            "the event breaks off or is malformed"
        else
            if markets >= 0 then
                let mutable inside = markets
                // The list was skipped as sound, so there is no fault.
                Json.rows json &inside source (marketReader slug tags notes) batch |> ignore

            null)

/// The server takes 100 values of a filter and addresses of 8 KB; this leaves room for the rest of the address.
let private mostValues, longestFilter = 100, 7_000

let private marketsPerPage = 100

let private discoveryQuery (wanted: Discovery) =
    let bound name (limit: Size voption) =
        match limit with
        | ValueSome limit -> $"&{name}={limit}"
        | ValueNone -> ""

    bound "volume_num_min" wanted.MinVolume
    + bound "liquidity_num_min" wanted.MinLiquidity

/// `closed` is always sent: without it the server leaves out closed markets, whatever is asked for by name.
let private request (need: Need) (query: string) isEvents isOffset (state: PageState) cursor : Request =
    let list = if isEvents then "/events" else "/markets"

    let path =
        if isOffset then
            $"{list}?limit={marketsPerPage}&offset={state.Page * marketsPerPage}&order=id&ascending=true{query}"
        else
            let after =
                match cursor with
                | ValueSome cursor -> $"&after_cursor={Uri.EscapeDataString(string<string> cursor)}"
                | ValueNone -> ""

            $"{list}/keyset?limit={marketsPerPage}&order=id&ascending=true{query}{after}"

    {
        Endpoint = if isEvents then "gamma_events" else "gamma_markets"
        Host = "gamma_url"
        Path = path
        Body = ValueNone
        Walk = Walk.Markets(need, state)
    }

/// `keyset` or `offset`, `markets` or `events`, and the query: so a page can ask for the next one.
let private route isOffset isEvents query =
    (if isOffset then "offset " else "keyset ")
    + (if isEvents then "events " else "markets ")
    + query

let private askMarkets need isEvents queries = [
    for query in queries do
        for closed in [ "false"; "true" ] do
            let query = $"{query}&closed={closed}"
            request need query isEvents false (PageState.first (route false isEvents query)) ValueNone
]

/// Filters by any of these values, as many as one address bears in each.
let private repeated key (values: string list) =
    let rec fill filter count rest =
        match rest with
        | value :: others ->
            let longer = $"{filter}&{key}={Uri.EscapeDataString(string<string> value)}"

            if filter <> "" && (longer.Length > longestFilter || count = mostValues) then
                filter :: fill "" 0 rest
            else
                fill longer (count + 1) others
        | [] when filter = "" -> []
        | [] -> [ filter ]

    fill "" 0 values

let private gammaMembers = Members [ "markets"; "events"; "next_cursor" ]

let decode (question: Request) need (state: PageState) (body: ReadOnlyMemory<byte>) (batch: Batch) =
    let json = body.Span
    let notes = List<string>()
    let start, before = batch.Mark(), batch.Markets.Count
    let refused = batch.Rejections.Count
    let words = state.Route.Split(' ', 3)

    let isOffset, isEvents =
        words[0] = "offset", words.Length > 1 && words[1] = "events"

    let query = if words.Length > 2 then words[2] else ""

    let reader =
        if isEvents then
            eventReader question.Path notes
        else
            marketReader "" [] notes

    let mutable at, cursor, isPage = 0, ValueNone, false

    let fault =
        if Json.peek json &at = '{'B && words[0] = "keyset" then
            let mutable walk = Members.Begin(json, &at)
            let mutable start, length = 0, 0
            let mutable fault = ValueNone

            while fault.IsNone && gammaMembers.Next(json, &at, &walk) do
                match walk.Index with
                | 0 ->
                    isPage <- true
                    fault <- Json.rows json &at question.Path (marketReader "" [] notes) batch
                | 1 ->
                    isPage <- true
                    fault <- Json.rows json &at question.Path (eventReader question.Path notes) batch
                | 2 ->
                    walk.Ok <- Json.textOrNull json &at &start &length

                    if walk.Ok && length > 0 then
                        cursor <- Json.tryText (json.Slice(start, length))
                | _ -> walk.Ok <- Json.skip json &at

            if fault.IsSome then
                fault
            elif not walk.Ok then
                ValueSome(Fault.Undecodable(at, "the page breaks off or is malformed"))
            elif not isPage then
                ValueSome(Fault.Undecodable(0, "a page without 'markets' or 'events'"))
            else
                Json.``end`` json at
        else
            match Json.oneOrMany json &at question.Path reader batch with
            | ValueSome fault -> ValueSome fault
            | ValueNone -> Json.``end`` json at

    // The guard against a walk in a circle: a cursor that was asked with, or a first market that began an earlier page.
    let mark =
        if batch.Markets.Count > before then
            "first " + string batch.Markets[before].Market
        else
            ""

    let met =
        batch.Markets.Count - before + batch.Rejections.Count - refused + notes.Count

    let next cursor =
        let seen = (if mark = "" then state.Seen else state.Seen.Add mark)

        let state = {
            state with
                Page = state.Page + 1
                Seen =
                    match cursor with
                    | ValueSome cursor -> seen.Add cursor
                    | ValueNone -> seen
        }

        [ request need query isEvents isOffset state cursor ]

    let decoded =
        match fault, cursor with
        | ValueSome fault, _ -> Decoded.faulty fault
        | _, ValueSome cursor when state.Seen.Contains cursor ->
            batch.Rollback start
            Decoded.faulty (Fault.RepeatedPage cursor)
        | _ when mark <> "" && state.Seen.Contains mark ->
            batch.Rollback start
            Decoded.faulty (Fault.RepeatedPage mark)
        | _, ValueSome cursor -> {
            Decoded.nothing with
                Next = next (ValueSome cursor)
          }
        // Without a cursor a page that is not full is the last (the server clamps a larger limit, so the limit is the clamp).
        | _ when isOffset && met >= marketsPerPage -> {
            Decoded.nothing with
                Next = next ValueNone
          }
        | _ -> Decoded.nothing

    {
        decoded with
            Notes = List.ofSeq notes
    }

/// The first page of each walk.
let ask need : Request list =
    match need with
    | Need.MarketsBySlug wanted -> askMarkets need false (repeated "slug" wanted)
    | Need.MarketsByEvent wanted -> askMarkets need true (repeated "slug" wanted)
    | Need.MarketsById ids -> askMarkets need false (repeated "condition_ids" (List.map string ids))
    | Need.MarketsLike wanted ->
        // Of the present only open markets are discovered. Tags can be asked for by their slugs on events alone.
        let isEvents = not wanted.Tags.IsEmpty

        let states =
            if wanted.WithClosed then
                [ "&closed=false"; "&closed=true" ]
            else
                [ "&closed=false" ]

        let queries =
            if isEvents then
                wanted.Tags |> List.map (fun tag -> $"&tag_slug={Uri.EscapeDataString tag}")
            else
                [ discoveryQuery wanted ]

        List.allPairs queries states
        |> List.map (fun (query, state) -> query + state)
        |> List.map (fun query ->
            request need query isEvents false (PageState.first (route false isEvents query)) ValueNone)
    | _ -> []

/// A keyset route that is not there is answered by the older offset list.
let refused need (state: PageState) status : Decoded voption =
    match state.Route.Split(' ', 3) with
    | [| "keyset"; kind; query |] when
        state.Page = 0 && (status = 404 || status = 405 || status = 410 || status = 501)
        ->
        let isEvents = kind = "events"

        ValueSome {
            Decoded.nothing with
                Next = [
                    request need query isEvents true (PageState.first (route true isEvents query)) ValueNone
                ]
        }
    | _ -> ValueNone
