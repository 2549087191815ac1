/// Manifold: play money, no order book. Markets and bets over REST, bets over its WebSocket (`manifold-api.md`).
///
/// A market is an automatic market maker with open limit orders beside it: those are its order book here, and the probability that each bet
/// leads to is a series of its own. A binary market has the tokens `<id>:YES` and `<id>:NO`; of a market with answers each answer has such a
/// pair, `<id>:<answer>:YES` and `…:NO`.
[<RequireQualifiedAccess>]
module Tributary.Exchanges.Manifold

open System
open System.Buffers.Text
open System.Collections.Generic
open System.Runtime.CompilerServices
open System.Text
open System.Text.Json
open System.Text.Unicode
open Tributary

let private exchange = Known.exchange "manifold"

let private escaped (text: string) = Uri.EscapeDataString text

let private asked endpoint path walk : Request = {
    Endpoint = endpoint
    Host = "rest_url"
    Path = path
    Body = ValueNone
    Walk = walk
}

/// The market of a token, the answer within it or nothing, and the side.
let private partsOf (token: TokenId) : struct (string * string * bool) =
    match (string token).Split ':' with
    | [| market; side |] -> struct (market, "", side = "YES")
    | [| market; answer; side |] -> struct (market, answer, side = "YES")
    | _ -> struct (string token, "", true)

let private marketsOf (tokens: TokenId list) =
    tokens
    |> List.map (fun token ->
        let struct (market, _, _) = partsOf token
        market)
    |> List.distinct

// ---- markets (section 2)

/// Milliseconds, as a number; some are texts in ISO 8601.
let private moment (names: string list) (element: JsonElement) : Instant voption =
    names
    |> List.tryPick (fun name ->
        let mutable read = Instant.ofMicros 0L

        if
            Instant.tryRead (ReadOnlySpan(Encoding.UTF8.GetBytes(Element.text name element))) &read
            && read.Micros > 0L
        then
            Some read
        else
            None)
    |> ValueOption.ofOption

let private answersOf (element: JsonElement) = [
    match Element.tryMember "answers" element with
    | ValueSome answers when answers.ValueKind = JsonValueKind.Array ->
        for answer in answers.EnumerateArray() do
            if answer.ValueKind = JsonValueKind.Object then
                struct (Element.text "id" answer, Element.text "text" answer)
    | _ -> ()
]

/// Its answers are markets of their own, each with its pool; lists leave them out.
let private isMulti element =
    (Element.text "mechanism" element).StartsWith "cpmm-multi-"

let private isTradable element =
    isMulti element || Element.text "mechanism" element = "cpmm-1"

/// Kinds that nobody can trade any more, or never could; and bets on the price of something, which predict nothing.
let private isOlder mechanism =
    match mechanism with
    | ""
    | "dpm-2"
    | "qf"
    | "none"
    | "perp" -> true
    | _ -> false

let private tokenOf text =
    match TokenId.Parse text with
    | Ok token -> ValueSome token
    | Error _ -> ValueNone

let private marketOf (received: Instant) (element: JsonElement) raw : Result<Market, string> =
    let id = Element.text "id" element

    match MarketId.Parse id with
    | Error message -> Error message
    | Ok market ->
        let answers = answersOf element
        let isResolved = Element.isTrue "isResolved" element
        let closes = moment [ "closeTime" ] element

        let status =
            if isResolved then
                MarketStatus.Resolved
            else
                match closes with
                | ValueSome closes when closes <= received -> MarketStatus.Closed
                | _ -> MarketStatus.Open

        let size name =
            Element.number [ name ] element |> ValueOption.bind Size.tryOfMillionths

        let resolution = Element.text "resolution" element

        Ok {
            Exchange = exchange
            Market = market
            Event = ""
            Slug = Element.text "slug" element
            Question = Element.text "question" element
            Outcomes = [|
                if isMulti element then
                    for struct (answer, text) in answers do
                        {
                            Name = text
                            Token = tokenOf $"{id}:{answer}:YES"
                        }

                        {
                            Name = $"{text} (no)"
                            Token = tokenOf $"{id}:{answer}:NO"
                        }
                elif isTradable element then
                    {
                        Name = "Yes"
                        Token = tokenOf $"{id}:YES"
                    }

                    {
                        Name = "No"
                        Token = tokenOf $"{id}:NO"
                    }
                else
                    // Of older kinds, which nobody can trade any more.
                    for struct (_, text) in answers do
                        { Name = text; Token = ValueNone }
            |]
            Status = status
            AcceptsOrders = (status = MarketStatus.Open && isTradable element)
            TickSize = ValueNone
            MinimumSize = ValueNone
            NegRisk = false
            Start = moment [ "createdTime" ] element
            End = closes
            ClosedAt =
                match status with
                | MarketStatus.Resolved -> moment [ "resolutionTime" ] element
                | MarketStatus.Closed -> closes
                | _ -> ValueNone
            // A market may be resolved anew: its status is that of this description.
            Winner =
                match resolution with
                | _ when not isResolved -> ""
                | "YES" -> "Yes"
                | "NO" -> "No"
                | answer ->
                    answers
                    |> List.tryPick (fun (struct (id, text)) -> if id = answer then Some text else None)
                    |> Option.defaultValue ""
            Volume = size "volume"
            Liquidity = size "totalLiquidity"
            OpenInterest = ValueNone
            Tags = [|
                match Element.tryMember "groupSlugs" element with
                | ValueSome slugs when slugs.ValueKind = JsonValueKind.Array ->
                    for slug in slugs.EnumerateArray() do
                        if slug.ValueKind = JsonValueKind.String then
                            string (slug.GetString())
                | _ -> ()

                // The twin of a question, paid in what was prize money once.
                if Element.text "token" element = "CASH" then
                    "cash"
            |]
            Updated = moment [ "lastUpdatedTime" ] element
            Received = received
            Raw = raw
        }

let private isWithoutAnswers element =
    isMulti element && (answersOf element).IsEmpty

/// `incomplete` receives the ids of markets whose answers a list leaves out. Asked for by itself (`isWhole`), a market has those that it has.
let private marketReader isWhole (incomplete: List<string>) (strange: HashSet<string>) =
    RowReader(fun json at batch ->
        let add (element: JsonElement) raw : string | null =
            match Element.text "id" element with
            | "" -> "a market without an id"
            | id when not isWhole && isWithoutAnswers element ->
                incomplete.Add id
                null
            | _ ->
                match marketOf batch.Received element raw with
                | Ok market ->
                    let mechanism = Element.text "mechanism" element

                    if not (isTradable element || isOlder mechanism) then
                        strange.Add mechanism |> ignore

                    batch.Markets.Add market
                    null
                | Error message -> message

        Element.reading add json &at)

let private pageRows = 1000

/// Discovery looks at markets that somebody bet on within this time …
let private recent = TimeSpan.FromDays 7.0

/// … and at so many pages of them at most.
let private mostPages = 20

let private listPage need (state: PageState) before : Request =
    let after =
        match before with
        | "" -> ""
        | id -> $"&before={escaped id}"

    asked "markets" $"/markets?limit={pageRows}&sort=last-bet-time{after}" (Walk.Markets(need, state))

let private single need id =
    asked "market" $"/market/{escaped id}" (Walk.Markets(need, PageState.first "rows"))

let private askMarkets need : Request list =
    match need with
    | Need.MarketsBySlug slugs ->
        slugs
        |> List.map (fun slug ->
            asked "market" $"/slug/{escaped slug}" (Walk.Markets(need, PageState.first "rows")))
    | Need.MarketsById ids -> ids |> List.map (string >> single need)
    // What comes nearest to an event here is a topic.
    | Need.MarketsByEvent topics ->
        topics
        |> List.map (fun topic ->
            asked
                "markets"
                $"/search-markets?term=&filter=all&topicSlug={escaped topic}&limit={pageRows}"
                (Walk.Markets(need, PageState.first "rows")))
    | Need.MarketsLike wanted when not wanted.Tags.IsEmpty ->
        let filter = if wanted.WithClosed then "all" else "open"

        wanted.Tags
        |> List.map (fun topic ->
            asked
                "markets"
                $"/search-markets?term=&filter={filter}&topicSlug={escaped topic}&limit={pageRows}"
                (Walk.Markets(need, PageState.first "rows")))
    | Need.MarketsLike _ -> [ listPage need (PageState.first "list") "" ]
    | _ -> []

/// The last bet's time of the last market of a page, and its id: where the next page begins. Rejected rows have none.
let private endOf (batch: Batch) from (last: string) =
    if batch.Markets.Count = from then
        struct (ValueNone, last)
    else
        let market = batch.Markets[batch.Markets.Count - 1]
        use raw = JsonDocument.Parse market.Raw
        struct (moment [ "lastBetTime" ] raw.RootElement, string market.Market)

let private decodeMarkets
    (question: Request)
    need
    (state: PageState)
    (body: ReadOnlyMemory<byte>)
    (batch: Batch)
    =
    let json = body.Span
    let mark, from, refused = batch.Mark(), batch.Markets.Count, batch.Rejections.Count
    let incomplete, strange = List<string>(), HashSet<string>()
    let mutable at = 0

    let fault =
        match
            Json.oneOrMany
                json
                &at
                question.Path
                (marketReader (question.Endpoint = "market" || state.Route = "recording") incomplete strange)
                batch
        with
        | ValueSome fault -> ValueSome fault
        | ValueNone -> Json.``end`` json at

    let met =
        batch.Markets.Count - from + incomplete.Count + batch.Rejections.Count - refused

    // A page that begins as an earlier one did: an id that the exchange does not know any more is answered by the first page.
    let first =
        if batch.Markets.Count > from then
            "first " + string batch.Markets[from].Market
        else
            ""

    let details = incomplete |> Seq.map (single need) |> List.ofSeq

    let notes = [
        for mechanism in strange do
            $"markets of a mechanism that nobody knows ('{mechanism}') are described, and not followed"

        // It takes no offset that would go on beyond any number of them.
        if question.Endpoint = "markets" && state.Route = "rows" && met >= pageRows then
            $"{question.Path}: {pageRows} markets came, and there may be more"
    ]

    match fault with
    | ValueSome fault -> Decoded.faulty fault
    | ValueNone when state.Route = "list" && first <> "" && state.Seen.Contains first ->
        batch.Rollback mark
        Decoded.faulty (Fault.RepeatedPage first)
    | ValueNone when state.Route = "list" && met >= pageRows && state.Page < mostPages ->
        let struct (lastBet, last) = endOf batch from ""

        let isOver =
            match lastBet with
            | ValueSome at -> at < batch.Received - recent
            | ValueNone -> true

        {
            Decoded.nothing with
                Notes = notes
                Next = [
                    yield! details

                    if not isOver then
                        listPage
                            need
                            {
                                state with
                                    Page = state.Page + 1
                                    Seen = state.Seen.Add first
                            }
                            last
                ]
        }
    | ValueNone -> {
        Decoded.nothing with
            Next = details
            Notes = notes
      }

// ---- bets (section 3)

/// What a bet says, as numbers and slices.
[<Struct>]
type private Bet = {
    mutable Id: Slice
    mutable Market: Slice
    mutable Answer: Slice
    mutable User: Slice
    mutable At: Instant
    mutable IsYes: bool
    /// On a numbered answer of a kind of market that is no more: its amount and shares make no price.
    mutable IsOld: bool
    /// Mana and shares that the bettor took at once; negative when sold.
    mutable Amount: double
    mutable Shares: double
    mutable ProbAfter: double
    mutable IsRedemption: bool
    /// It led to another probability than it found, and says so.
    mutable IsMoved: bool
    /// A limit order's probability; negative for any other bet.
    mutable Limit: double
    /// What is left of its amount.
    mutable Rest: double
    mutable IsOpen: bool
    mutable Expires: Instant voption
}

let private betMembers =
    Members [
        "id"
        "contractId"
        "answerId"
        "userId"
        "createdTime"
        "amount"
        "shares"
        "outcome"
        "probAfter"
        "isRedemption"
        "limitProb"
        "orderAmount"
        "isFilled"
        "isCancelled"
        "expiresAt"
        "fills"
        "probBefore"
    ]

let private fillMembers =
    Members [ "amount"; "shares"; "timestamp"; "matchedBetId" ]

// A literal in place would be a new array each time.
let private yesWord, noWord = "YES"B, "NO"B

let private sliced start length : Slice = { Start = start; Length = length }

/// A bet as far as it was read, and the fill at hand.
[<Struct; NoComparison; NoEquality>]
type private Draft =
    val mutable Bet: Bet
    val mutable HasTime: bool
    val mutable HasSide: bool
    val mutable HasAmount: bool
    val mutable HasShares: bool
    val mutable IsFilled: bool
    val mutable IsCancelled: bool
    // `amount`, `shares` and others, which are computed when somebody asks for them: a fill has numbers of its own.
    val mutable Mana: Scalar
    val mutable Stake: Scalar
    val mutable Order: Scalar
    val mutable ProbBefore: Scalar
    val mutable ProbAfter: Scalar
    // The fills that a taker got at once, added up.
    val mutable IsFilledIn: bool
    val mutable Fills: int
    val mutable Taken: double
    val mutable Bought: double
    val mutable Matched: double
    val mutable MatchedShares: double
    // One fill.
    val mutable Amount: double
    val mutable Shares: double
    val mutable At: Instant
    val mutable HasMoment: bool
    val mutable IsMatched: bool

    /// Before the first member.
    static member Begin() =
        let mutable draft = Draft()
        draft.Bet.ProbAfter <- -1.0
        draft.Bet.Limit <- -1.0
        draft

/// What is found in a message beside the members of bets, which are known by their places in `betMembers`.
[<RequireQualifiedAccess>]
module private Code =
    /// The places of `fillMembers` are counted from here.
    [<Literal>]
    let Fill = 20

    /// The fills of a bet begin.
    [<Literal>]
    let Fills = 30

    /// A fill is complete.
    [<Literal>]
    let FillOver = 31

    /// A bet is complete.
    [<Literal>]
    let BetOver = 32

    /// The kind of the message.
    [<Literal>]
    let Kind = 33

let private isText (scalar: inref<Scalar>) =
    scalar.Kind = ScalarKind.String || scalar.Kind = ScalarKind.Null

/// A string, or nothing when it is null.
let private text (scalar: inref<Scalar>) =
    sliced scalar.Start (if scalar.Kind = ScalarKind.String then scalar.Length else 0)

/// A number, quoted or not, or nothing.
let private isNumeral (scalar: inref<Scalar>) =
    scalar.Kind >= ScalarKind.String || scalar.Kind = ScalarKind.Null

/// A number that is computed when somebody asks for it; one that is null says nothing.
let private later (json: ReadOnlySpan<byte>) (scalar: inref<Scalar>) (number: byref<Scalar>) =
    let mutable value = 0.0

    if scalar.Kind <> ScalarKind.Null && scalar.Length > 0 then
        number <- scalar

    scalar.Kind = ScalarKind.Plain || Scalar.double json &scalar &value

/// What one member says, of a bet or of the fill at hand; false when it cannot be read. Hot: a call for each costs more than most of them.
[<MethodImpl(MethodImplOptions.AggressiveInlining)>]
let private takeMember (json: ReadOnlySpan<byte>) code (scalar: inref<Scalar>) (draft: byref<Draft>) : bool =
    match code with
    | 0 ->
        draft.Bet.Id <- sliced scalar.Start scalar.Length

        // A whole number is one, too; an exponent would have lost digits.
        scalar.Kind = ScalarKind.String
        || scalar.Kind > ScalarKind.String
           && json.Slice(scalar.Start, scalar.Length).IndexOfAnyExceptInRange('0'B, '9'B) < 0
    | 1 ->
        draft.Bet.Market <- text &scalar
        scalar.Kind = ScalarKind.String
    | 2 ->
        draft.Bet.Answer <- text &scalar
        isText &scalar
    | 3 ->
        draft.Bet.User <- text &scalar
        isText &scalar
    | 4 ->
        let mutable read = Instant.ofMicros 0L
        draft.HasTime <- Scalar.instant json &scalar &read
        draft.Bet.At <- read
        isNumeral &scalar
    | 5 ->
        draft.HasAmount <- scalar.Kind <> ScalarKind.Null
        later json &scalar &draft.Mana
    | 6 ->
        draft.HasShares <- scalar.Kind <> ScalarKind.Null
        later json &scalar &draft.Stake
    | 7 ->
        let word = text &scalar
        let word = json.Slice(word.Start, word.Length)
        draft.Bet.IsYes <- word.SequenceEqual(ReadOnlySpan yesWord)

        draft.Bet.IsOld <-
            word.Length > 0
            && not draft.Bet.IsYes
            && not (word.SequenceEqual(ReadOnlySpan noWord))

        draft.HasSide <- word.Length > 0
        isText &scalar
    | 8 -> later json &scalar &draft.ProbAfter
    | 9 -> Scalar.boolean json &scalar &draft.Bet.IsRedemption
    | 10 -> Scalar.double json &scalar &draft.Bet.Limit
    | 11 -> later json &scalar &draft.Order
    | 12 -> Scalar.boolean json &scalar &draft.IsFilled
    | 13 -> Scalar.boolean json &scalar &draft.IsCancelled
    | 14 ->
        let mutable read = Instant.ofMicros 0L

        if Scalar.instant json &scalar &read then
            draft.Bet.Expires <- ValueSome read

        isNumeral &scalar
    | 16 -> later json &scalar &draft.ProbBefore
    | 20 -> Scalar.double json &scalar &draft.Amount
    | 21 -> Scalar.double json &scalar &draft.Shares
    | 22 ->
        if Scalar.instant json &scalar &draft.At then
            draft.HasMoment <- true
            true
        else
            isText &scalar && (text &scalar).Length = 0
    | 23 ->
        draft.IsMatched <- (text &scalar).Length > 0
        isText &scalar
    | _ -> false

/// The fill at hand is complete. A maker's own row repeats the fills that came to it later, each of which its taker's row has as well: those
/// are left out.
let private addFill (draft: byref<Draft>) =
    draft.Fills <- draft.Fills + 1

    // Against the pool there are takers alone.
    if
        not draft.IsMatched
        || not draft.HasMoment
        || draft.At.Micros <= draft.Bet.At.Micros
    then
        draft.Taken <- draft.Taken + draft.Amount
        draft.Bought <- draft.Bought + draft.Shares

        if draft.IsMatched then
            draft.Matched <- draft.Matched + draft.Amount
            draft.MatchedShares <- draft.MatchedShares + draft.Shares

    draft.Amount <- 0.0
    draft.Shares <- 0.0
    draft.HasMoment <- false
    draft.IsMatched <- false

/// Takes the scalar of a member, and says so to the forms.
let private readMember
    (json: ReadOnlySpan<byte>)
    (at: byref<int>)
    code
    (forms: Forms | null)
    (draft: byref<Draft>)
    =
    let mutable scalar = Scalar()
    Json.space json &at

    match forms with
    | null -> ()
    | forms -> forms.Scalar(at, code)

    Scalar.read json &at &scalar && takeMember json code &scalar &draft

let private takeFills
    (json: ReadOnlySpan<byte>)
    (at: byref<int>)
    (forms: Forms | null)
    (draft: byref<Draft>)
    =
    let mutable isFirst, ok = true, Json.take json &at '['B
    draft.IsFilledIn <- true

    match forms with
    | null -> ()
    | forms -> forms.Place(at, Code.Fills)

    while ok && Json.element json &at &isFirst &ok do
        let mutable walk = Members.Begin(json, &at)

        while fillMembers.Next(json, &at, &walk) do
            if walk.Index < 0 then
                walk.Ok <- Json.skip json &at
            else
                walk.Ok <- readMember json &at (Code.Fill + walk.Index) forms &draft

        ok <- walk.Ok

        if ok then
            addFill &draft

            match forms with
            | null -> ()
            | forms -> forms.Place(at, Code.FillOver)

    ok

let private isName (json: ReadOnlySpan<byte>) (part: Slice) =
    Identity.isValid (json.Slice(part.Start, part.Length))

/// All members were read: what is wrong with the bet, or nothing, and it is whole.
let private judge (json: ReadOnlySpan<byte>) (draft: byref<Draft>) : string | null =
    let bet = &draft.Bet

    if not (isName json bet.Id) then
        "a bet without its id"
    elif not (isName json bet.Market) then
        "a bet without its market ('contractId')"
    elif bet.Answer.Length > 0 && not (isName json bet.Answer) then
        "the answer's id is not an identity"
    elif bet.User.Length > 0 && not (isName json bet.User) then
        "the user's id is not an identity"
    elif bet.Market.Length + bet.Answer.Length + 5 > Identity.Longest then
        "the ids of market and answer are too long for a token"
    elif not draft.HasTime then
        "a bet without a readable time"
    elif not draft.HasSide then
        "a bet without its outcome"
    elif not draft.HasAmount then
        "a bet without its amount"
    elif not draft.HasShares then
        "a bet without its shares"
    else
        // Where answers sum to one, a bet on one of them trades in the others, too: their rows say that nothing is left of it, and yet what
        // they took of resting orders changed hands.
        if bet.IsRedemption then
            bet.Amount <- draft.Matched
            bet.Shares <- draft.MatchedShares
        // Some kinds of bets have no list of fills, or an empty one: then the whole is one.
        elif draft.IsFilledIn && (draft.Fills > 0 || bet.Limit >= 0.0) then
            bet.Amount <- draft.Taken
            bet.Shares <- draft.Bought
        else
            Scalar.double json &draft.Mana &bet.Amount |> ignore
            Scalar.double json &draft.Stake &bet.Shares |> ignore

        null

/// A bet in any order of its members. The forms are those of the conversation that it came in, or nothing.
let private takeBet
    (json: ReadOnlySpan<byte>)
    (at: byref<int>)
    (forms: Forms | null)
    (draft: byref<Draft>)
    : string | null =
    let mutable walk = Members.Begin(json, &at)
    let mutable fills = -1
    draft <- Draft.Begin()

    while betMembers.Next(json, &at, &walk) do
        match walk.Index with
        | 15 ->
            if Json.peek json &at <> '['B then
                walk.Ok <- Json.skip json &at
            elif draft.HasTime then
                walk.Ok <- takeFills json &at forms &draft
            else
                // Whose they are is told by the time of the bet, which comes later.
                fills <- at
                walk.Ok <- Json.skip json &at
        | -1 -> walk.Ok <- Json.skip json &at
        | code -> walk.Ok <- readMember json &at code forms &draft

    if walk.Ok && fills >= 0 && draft.HasTime then
        let mutable inside = fills
        walk.Ok <- takeFills json &inside forms &draft

    if walk.Ok then
        judge json &draft
    else
        "the bet breaks off or is malformed"

/// A bet with all that a page of them is asked for.
let private readBet (json: ReadOnlySpan<byte>) (at: byref<int>) (bet: byref<Bet>) : string | null =
    let mutable draft = Draft()
    let reason = takeBet json &at null &draft
    bet <- draft.Bet

    if isNull reason then
        let mutable amount, order, before = 0.0, 0.0, -1.0
        Scalar.double json &draft.Mana &amount |> ignore
        Scalar.double json &draft.Order &order |> ignore
        Scalar.double json &draft.ProbBefore &before |> ignore
        Scalar.double json &draft.ProbAfter &bet.ProbAfter |> ignore
        bet.IsOpen <- bet.Limit >= 0.0 && not draft.IsFilled && not draft.IsCancelled
        bet.Rest <- order - amount
        bet.IsMoved <- before >= 0.0 && bet.ProbAfter >= 0.0 && before <> bet.ProbAfter

    reason

let private yes, no = ":YES"B, ":NO"B

/// The name of a bet's token; the buffer is used again and again.
let private tokenName
    (buffer: byte[])
    (names: Names)
    (market: ReadOnlySpan<byte>)
    (answer: ReadOnlySpan<byte>)
    isYes
    : Name =
    let mutable length = market.Length
    market.CopyTo(Span buffer)

    if answer.Length > 0 then
        buffer[length] <- ':'B
        answer.CopyTo(Span(buffer, length + 1, answer.Length))
        length <- length + 1 + answer.Length

    let suffix = if isYes then yes else no
    suffix.CopyTo(Span(buffer, length, suffix.Length))
    names.Intern(ReadOnlySpan(buffer, 0, length + suffix.Length))

/// Something changed hands: not in a redemption (the same person's YES and NO taken back against each other), but for what it took of orders
/// on its way; and not in a limit order that waits.
let private isTrade (bet: inref<Bet>) =
    not bet.IsOld && bet.Amount <> 0.0 && bet.Shares <> 0.0

let private millionths (value: double) =
    int64 (Math.Round(value * 1_000_000.0, MidpointRounding.ToEven))

/// The price in the outcome's own terms, and the size; nothing when they are no numbers of a trade.
let private priced (bet: inref<Bet>) : (struct (int64 * int64)) voption =
    let price = bet.Amount / bet.Shares

    if Math.Abs bet.Shares < 9.0e12 && price >= 0.0 && price <= 1.000001 then
        ValueSome(struct (min Fixed.One (millionths price), millionths (Math.Abs bet.Shares)))
    else
        ValueNone

/// A bet as a trade, and the probability that it led to.
let private betReader () =
    let buffer: byte[] = Array.zeroCreate 256

    RowReader(fun json at batch ->
        let mutable bet = Unchecked.defaultof<Bet>

        match readBet json &at &bet with
        | null ->
            let market = json.Slice(bet.Market.Start, bet.Market.Length)
            let answer = json.Slice(bet.Answer.Start, bet.Answer.Length)
            let name = batch.Names.Intern market

            if isTrade &bet && (priced &bet).IsNone then
                "amount and shares do not make a price between 0 and 1"
            else
                if isTrade &bet then
                    let struct (price, size) = (priced &bet).Value

                    let row: TradeRow = {
                        Market = name
                        Token = tokenName buffer batch.Names market answer bet.IsYes
                        Outcome = batch.Names.Intern(if bet.IsYes then "Yes" else "No")
                        Side = if bet.Amount > 0.0 then Side.Buy else Side.Sell
                        Source = Source.Api
                        Price = Price.ofMillionths price
                        Size = Size.trusted size
                        Collateral = ValueSome(Size.trusted (millionths (Math.Abs bet.Amount)))
                        At = bet.At
                        Received = batch.Received
                        Transaction = batch.Keep(json.Slice(bet.Id.Start, bet.Id.Length))
                        Wallet = batch.Keep(json.Slice(bet.User.Start, bet.User.Length))
                        Flags = Flags.Rounded
                        Occurrence = -1
                        Id = { High = 0UL; Low = 0UL }
                        Inserted = false
                    }

                    batch.Trades.Add &row

                if
                    bet.ProbAfter >= 0.0
                    && bet.ProbAfter <= 1.0
                    && (not bet.IsRedemption || bet.IsMoved)
                    && not bet.IsOld
                then
                    let row: PriceRow = {
                        Market = name
                        Token = tokenName buffer batch.Names market answer true
                        At = bet.At
                        Received = batch.Received
                        Kind = PriceKind.Probability
                        Price = Price.ofMillionths (millionths bet.ProbAfter)
                        Inserted = false
                    }

                    batch.Prices.Add &row

                null
        | reason -> reason)

/// A page of bets, newest first. Its bounds are those of all its rows, whether they are trades or not: the next page begins there.
let private betsPage
    (json: ReadOnlySpan<byte>)
    source
    (seen: Set<string>)
    (batch: Batch)
    (met: byref<int>)
    (oldest: byref<Instant>)
    (newest: byref<Instant>)
    (border: HashSet<string>)
    : Fault voption =
    let reader = betReader ()

    let low, high, count =
        ref (Instant.ofMicros Int64.MaxValue), ref (Instant.ofMicros Int64.MinValue), ref 0

    // Rows of the border came with the page before.
    let once =
        RowReader(fun json at batch ->
            let start = at
            let mutable bet = Unchecked.defaultof<Bet>

            match readBet json &at &bet with
            | null ->
                let id = Encoding.UTF8.GetString(json.Slice(bet.Id.Start, bet.Id.Length))
                count.Value <- count.Value + 1

                if bet.At.Micros < low.Value.Micros then
                    low.Value <- bet.At
                    border.Clear()

                if bet.At.Micros = low.Value.Micros then
                    border.Add id |> ignore

                if bet.At.Micros > high.Value.Micros then
                    high.Value <- bet.At

                if seen.Contains id then
                    null
                else
                    at <- start
                    reader.Invoke(json, &at, batch)
            | reason ->
                count.Value <- count.Value + 1
                reason)

    let mutable at = 0

    let fault =
        match Json.oneOrMany json &at source once batch with
        | ValueSome fault -> ValueSome fault
        | ValueNone -> Json.``end`` json at

    met <- count.Value
    oldest <- low.Value
    newest <- high.Value
    fault

let private millis (at: Instant) = at.Micros / 1_000L

/// Else the legs of a bet on other answers are left out, and what they took of resting orders with them.
let private withLegs = "&includeZeroShareRedemptions=true"

/// Rows can be committed out of order: what is a minute old is asked for again.
let private late = TimeSpan.FromSeconds 60.0

let private tradesPage (follows: Follow list) (state: PageState) : Request =
    let follow = List.head follows

    let before =
        match state.Until with
        | ValueSome until -> $"&beforeTime={millis until}"
        | ValueNone -> ""

    asked
        "bets"
        $"/bets?contractId={escaped (string follow.Market)}{withLegs}&limit={pageRows}&afterTime={max 0L (millis (follow.Since - late))}{before}"
        (Walk.Trades(follows, state))

/// A trade this much later than our clock does not move the watermark: a clock that is wrong must not hide what follows.
let private tolerance = TimeSpan.FromSeconds 5.0

let private longestWalk = 200
let private aMillisecond = TimeSpan.FromMilliseconds 1.0

let private decodeTrades
    (question: Request)
    (follows: Follow list)
    (state: PageState)
    (body: ReadOnlyMemory<byte>)
    (batch: Batch)
    =
    let mark = batch.Mark()
    let border = HashSet<string>()
    let mutable met, oldest, newest = 0, Instant.ofMicros 0L, Instant.ofMicros 0L

    let fault =
        betsPage body.Span question.Path state.Seen batch &met &oldest &newest border

    // What is as new as the bound was not asked for: a page that comes again.
    let isAgain =
        match state.Until with
        | ValueSome until -> met > 0 && newest >= until
        | ValueNone -> false

    let head =
        if met > 0 && newest.Micros > 0L && newest <= batch.Received + tolerance then
            ValueSome newest
        else
            ValueNone

    let decoded =
        match fault, follows with
        | ValueSome fault, _ -> Decoded.faulty fault
        | _, [] -> Decoded.nothing // a recording: nothing is asked
        | _ when isAgain ->
            batch.Rollback mark
            Decoded.faulty (Fault.RepeatedPage question.Path)
        // There is no cursor: the end is a page that is not full.
        | _, _ when met < pageRows -> Decoded.nothing
        | _, follow :: _ ->
            let truncated until =
                struct (follow.Market, follow.Since, until)

            if state.Page >= longestWalk || newest.Micros < 0L then
                {
                    Decoded.nothing with
                        Truncated = [ truncated (max follow.Since (oldest + aMillisecond)) ]
                }
            elif oldest = newest then
                // More than a page in one millisecond: what is left of it cannot be had.
                {
                    Decoded.nothing with
                        Truncated = [ struct (follow.Market, oldest, oldest + aMillisecond) ]
                        Next = [
                            tradesPage follows {
                                state with
                                    Page = state.Page + 1
                                    Until = ValueSome oldest
                            }
                        ]
                }
            else
                // Bounds are exclusive, and rows share milliseconds: that of the oldest is asked for again, and what came is left out.
                {
                    Decoded.nothing with
                        Next = [
                            tradesPage follows {
                                state with
                                    Page = state.Page + 1
                                    Until = ValueSome(oldest + aMillisecond)
                                    Seen = Set.ofSeq border
                            }
                        ]
                }

    { decoded with Head = head }

// ---- the past: the same bets, from the newest back. The place is the bound of the next page in milliseconds.

let private askPast (state: HistoryState) : Request =
    let before =
        match state.Place with
        | "" -> millis state.Until + 1L
        | place -> int64 place

    asked
        "bets"
        $"/bets?contractId={escaped (string state.Markets.Head)}{withLegs}&limit={pageRows}&afterTime={max 0L (millis state.Since - 1L)}&beforeTime={before}"
        (Walk.History state)

let private decodePast (question: Request) (state: HistoryState) (body: ReadOnlyMemory<byte>) (batch: Batch) =
    let mark = batch.Mark()
    let border = HashSet<string>()
    let mutable met, oldest, newest = 0, Instant.ofMicros 0L, Instant.ofMicros 0L

    let fault =
        betsPage body.Span question.Path Set.empty batch &met &oldest &newest border

    let isAgain = state.Place <> "" && met > 0 && millis newest >= int64 state.Place

    let read reached = {
        Decoded.nothing with
            IsWhole = true
            Read =
                Intervals.ofSeq [
                    {
                        Since = max state.Since reached
                        Until = state.Until
                    }
                ]
    }

    match fault with
    | ValueSome fault -> Decoded.faulty fault
    | ValueNone when isAgain ->
        batch.Rollback mark
        Decoded.faulty (Fault.RepeatedPage question.Path)
    | ValueNone when met < pageRows -> read state.Since
    | ValueNone when oldest = newest -> {
        read (oldest + aMillisecond) with
            Truncated = [ struct (state.Markets.Head, oldest, oldest + aMillisecond) ]
            Next = [
                askPast {
                    state with
                        Place = string (millis oldest)
                }
            ]
      }
    | ValueNone -> {
        read (oldest + aMillisecond) with
            Next = [
                askPast {
                    state with
                        Place = string (millis oldest + 1L)
                }
            ]
      }

let private sources: HistorySource list = [
    {
        Name = "bets"
        Stream = Stream.History
        Limits = {
            Source = "bets"
            Horizon = ValueNone
            Omits = ""
        }
        IsUsual = true
        CanJump = true
        FromStart = false
        Withholds = Cause.Truncated
        MostMarkets = 1
        Endpoint = "bets"
        PageRows = pageRows
        Ask = askPast
    }
]

// ---- depth: open limit orders (section 4)

let private booksOf (tokens: TokenId list) : Request list =
    tokens
    |> List.groupBy (fun token ->
        let struct (market, _, _) = partsOf token
        market)
    |> List.map (fun (market, tokens) ->
        asked
            "bets"
            $"/bets?contractId={escaped market}&kinds=open-limit&limit={pageRows}"
            (Walk.Books tokens))

/// A resting order: YES at L bids L for YES; NO at L bids 1 - L for NO, which is an ask of YES at L.
[<Struct>]
type private Order = {
    Answer: string
    IsYes: bool
    /// In terms of YES.
    Price: int64
    Shares: int64
}

let private mostShares = 9_000_000_000_000_000_000L

let private addBook (batch: Batch) (token: TokenId) (orders: Order list) =
    let struct (market, _, isYes) = partsOf token

    let side (wanted: Order list) price =
        let first = batch.Levels.Count

        let levels =
            wanted
            |> List.groupBy price
            |> List.map (fun (price, orders) ->
                // Each is sound by itself; together they may be more than is counted.
                let total =
                    orders
                    |> List.fold
                        (fun sum order ->
                            if sum > mostShares - order.Shares then
                                mostShares
                            else
                                sum + order.Shares)
                        0L

                struct (price, total))

        struct (first, levels)

    let price (order: Order) =
        if isYes then order.Price else Fixed.One - order.Price

    let bids, asks = orders |> List.partition (fun order -> order.IsYes = isYes)

    let append (levels: (struct (int64 * int64)) list) =
        for struct (price, size) in levels do
            let level = {
                Price = Price.ofMillionths price
                Size = Size.trusted size
            }

            batch.Levels.Add &level

    let struct (firstBid, levels) = side bids price
    append (levels |> List.sortByDescending (fun (struct (price, _)) -> price))
    let bidCount = batch.Levels.Count - firstBid
    let struct (firstAsk, levels) = side asks price
    append (levels |> List.sortBy (fun (struct (price, _)) -> price))
    let askCount = batch.Levels.Count - firstAsk

    let row: BookRow = {
        Market = batch.Names.Intern market
        Token = batch.Names.Intern(string token)
        At = batch.Received
        Received = batch.Received
        FirstBid = firstBid
        BidCount = bidCount
        FirstAsk = firstAsk
        AskCount = askCount
        Hash = Slice.none
        Tick = Price.zero
        LastTrade = { Start = 0; Length = -1 }
        Sequence = 0
        Verdict = Verdict.Unverifiable
        Doubt = Doubt.NoHash
        Reason = Reason.Poll
        Flags =
            Flags.Complemented
            ||| Flags.Rounded
            ||| (if bidCount = 0 && askCount = 0 then Flags.Empty
                 elif bidCount = 0 || askCount = 0 then Flags.OneSided
                 else Flags.None)
        Inserted = false
    }

    batch.Books.Add &row
    let origin = sliced 0 0
    batch.BookOrigins.Add &origin

let private decodeBooks
    (question: Request)
    (tokens: TokenId list)
    (body: ReadOnlyMemory<byte>)
    (batch: Batch)
    =
    let json = body.Span
    let orders = List<Order>()
    let met = ref 0
    let refused = batch.Rejections.Count

    let reader =
        RowReader(fun json at batch ->
            let mutable bet = Unchecked.defaultof<Bet>
            met.Value <- met.Value + 1

            match readBet json &at &bet with
            | null ->
                let price = millionths bet.Limit

                // Those of closed markets come, too, and some that have expired.
                let isThere =
                    bet.IsOpen
                    && bet.Rest > 0.0
                    && price > 0L
                    && price < Fixed.One
                    && (match bet.Expires with
                        | ValueSome at -> at > batch.Received
                        | ValueNone -> true)

                if isThere then
                    let own = if bet.IsYes then bet.Limit else 1.0 - bet.Limit
                    let shares = millionths (bet.Rest / own)

                    if shares > 0L && shares < mostShares then
                        orders.Add {
                            Answer = Encoding.UTF8.GetString(json.Slice(bet.Answer.Start, bet.Answer.Length))
                            IsYes = bet.IsYes
                            Price = price
                            Shares = shares
                        }

                null
            | reason -> reason)

    let mutable at = 0

    let fault =
        match Json.oneOrMany json &at question.Path reader batch with
        | ValueSome fault -> ValueSome fault
        | ValueNone -> Json.``end`` json at

    // A row that is no object was not read at all.
    let served = max met.Value (batch.Rejections.Count - refused)

    if fault.IsSome then
        Decoded.faulty fault.Value
    elif served >= pageRows then
        {
            Decoded.nothing with
                Missing = tokens
                Notes = [
                    $"more than {pageRows} limit orders are open: their book is not served whole"
                ]
        }
    else
        for token in tokens do
            let struct (_, answer, _) = partsOf token
            addBook batch token (orders |> Seq.filter (fun order -> order.Answer = answer) |> List.ofSeq)

        Decoded.nothing

// ---- the stream (section 5)

let private envelopeMembers =
    Members [ "type"; "topic"; "data"; "txid"; "success"; "error" ]

let private dataMembers = Members [ "bets"; "contract" ]
let private contractMembers = Members [ "id"; "slug"; "isResolved" ]

let private broadcastWord, ackWord = "broadcast"B, "ack"B

/// Which message this is, for its acknowledgement.
let private pingId = 0

/// The token of a market's side.
[<Struct>]
type private KnownToken = { Market: int; Token: Name }

[<Sealed>]
type private Conversation() =
    let buffer: byte[] = Array.zeroCreate 256
    let forms = Forms()
    // By the keys of their markets, as far as there is room.
    let tokens: KnownToken[] = Array.zeroCreate 512
    let mutable namesOfTokens: Names | null = null
    let mutable lastId = pingId
    let wanted = Dictionary<string, HashSet<string>>()

    let said kind (markets: string list) = [
        if not markets.IsEmpty then
            lastId <- lastId + 1

            let topics =
                markets
                |> List.collect (fun market -> [ $"\"contract/{market}/new-bet\""; $"\"contract/{market}\"" ])
                |> String.concat ","

            $"{{\"type\":\"{kind}\",\"txid\":{lastId},\"topics\":[{topics}]}}"
    ]

    let want (tokens: TokenId list) = [
        for token in tokens do
            let struct (market, _, _) = partsOf token

            match wanted.TryGetValue market with
            | true, own -> own.Add(string token) |> ignore
            | _ ->
                wanted[market] <- HashSet [ string token ]
                market
    ]

    let leave (tokens: TokenId list) = [
        for token in tokens do
            let struct (market, _, _) = partsOf token

            match wanted.TryGetValue market with
            | true, own when own.Remove(string token) && own.Count = 0 ->
                wanted.Remove market |> ignore
                market
            | _ -> ()
    ]

    let event (frame: Frame) kind market token at : StreamEvent = {
        Kind = kind
        Market = market
        Token = token
        At = at
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

    /// The name of a bet's token. Those of markets without answers are remembered.
    let tokenOf (json: ReadOnlySpan<byte>) (names: Names) (market: Name) (bet: inref<Bet>) : Name =
        let place = (2 * market.Key + (if bet.IsYes then 1 else 0)) &&& (tokens.Length - 1)

        if not (obj.ReferenceEquals(namesOfTokens, names)) then
            namesOfTokens <- names
            Array.Clear tokens

        if bet.Answer.Length = 0 && tokens[place].Market = market.Key then
            tokens[place].Token
        else
            let token =
                tokenName
                    buffer
                    names
                    (json.Slice(bet.Market.Start, bet.Market.Length))
                    (json.Slice(bet.Answer.Start, bet.Answer.Length))
                    bet.IsYes

            if bet.Answer.Length = 0 then
                tokens[place] <- { Market = market.Key; Token = token }

            token

    /// A bet as a fill. A limit order that waits is none.
    let tell (json: ReadOnlySpan<byte>) (frame: Frame) (bet: inref<Bet>) : string | null =
        if not (isTrade &bet) then
            null
        else
            match priced &bet with
            | ValueNone -> "amount and shares do not make a price between 0 and 1"
            | ValueSome(struct (price, size)) ->
                let names = frame.Batch.Names
                let market = names.Intern(json.Slice(bet.Market.Start, bet.Market.Length))
                let token = tokenOf json names market &bet

                let told: StreamEvent = {
                    Kind = StreamKind.Trade
                    Market = market
                    Token = token
                    At = bet.At
                    Message = frame.Messages
                    Side = if bet.Amount > 0.0 then Side.Buy else Side.Sell
                    Price = price
                    Size = size
                    BestBid = -1L
                    BestAsk = -1L
                    Hash = Slice.none
                    Text = Slice.none
                    Detail = bet.Id
                    Row = -1
                    Sequence = 0
                    IsLast = true
                }

                frame.Events.Add &told
                null

    let bets (json: ReadOnlySpan<byte>) (at: byref<int>) (frame: Frame) =
        let mutable isFirst, ok = true, Json.take json &at '['B
        let mutable draft = Draft()

        while ok && Json.element json &at &isFirst &ok do
            Json.space json &at
            let start = at

            let reason =
                match takeBet json &at forms &draft with
                | null -> tell json frame &draft.Bet
                | reason -> reason

            match reason with
            | null -> forms.Place(at, Code.BetOver)
            | reason ->
                forms.Refuse()
                at <- start
                ok <- Json.skip json &at

                frame.Batch.Rejections.Add {
                    Exchange = "manifold"
                    Source = "ws"
                    Offset = start
                    Reason = reason
                    Bytes = json.Slice(start, at - start).ToArray()
                    Received = frame.Batch.Received
                }

        ok

    /// A part of a market's description: that it is resolved is news.
    let contract (json: ReadOnlySpan<byte>) (at: byref<int>) (frame: Frame) =
        forms.Refuse()
        let mutable walk = Members.Begin(json, &at)
        let mutable start, length = 0, 0
        let mutable id, isResolved = Slice.none, false

        while contractMembers.Next(json, &at, &walk) do
            match walk.Index with
            | 0 ->
                walk.Ok <- Json.string json &at &start &length
                id <- sliced start length
            | 2 -> walk.Ok <- Json.boolean json &at &isResolved
            | _ -> walk.Ok <- Json.skip json &at

        let name = json.Slice(id.Start, id.Length)

        if walk.Ok && isResolved && Identity.isValid name then
            let market = frame.Batch.Names.Intern name
            let told = event frame StreamKind.Resolved market { Key = 0 } frame.Batch.Received
            frame.Events.Add &told

        walk.Ok

    let data (json: ReadOnlySpan<byte>) (at: byref<int>) (frame: Frame) =
        let mutable walk = Members.Begin(json, &at)

        while dataMembers.Next(json, &at, &walk) do
            match walk.Index with
            | 0 when Json.peek json &at = '['B -> walk.Ok <- bets json &at frame
            | 1 when Json.peek json &at = '{'B -> walk.Ok <- contract json &at frame
            | _ -> walk.Ok <- Json.skip json &at

        walk.Ok

    let message (json: ReadOnlySpan<byte>) (at: byref<int>) (frame: Frame) : string | null =
        let mutable walk = Members.Begin(json, &at)
        let mutable start, length = 0, 0
        let mutable kind, error = Slice.none, Slice.none
        let mutable content, isGood, isRead = -1, true, false

        while envelopeMembers.Next(json, &at, &walk) do
            match walk.Index with
            | 0 ->
                Json.space json &at
                forms.Scalar(at, Code.Kind)
                walk.Ok <- Json.string json &at &start &length
                kind <- sliced start length
            | 2 when
                json.Slice(kind.Start, kind.Length).SequenceEqual(ReadOnlySpan broadcastWord)
                && Json.peek json &at = '{'B
                ->
                isRead <- true
                walk.Ok <- data json &at frame
            | 2 ->
                Json.space json &at
                content <- at
                walk.Ok <- Json.skip json &at
            | 4 ->
                forms.Refuse()
                walk.Ok <- Json.boolean json &at &isGood
            | 5 ->
                forms.Refuse()
                walk.Ok <- Json.textOrNull json &at &start &length
                error <- sliced start length
            | _ -> walk.Ok <- Json.skip json &at

        let over = at
        let kind = json.Slice(kind.Start, kind.Length)

        if not walk.Ok then
            "the message is malformed"
        elif kind.SequenceEqual(ReadOnlySpan ackWord) then
            forms.Refuse()
            frame.Pongs <- frame.Pongs + 1L

            if not isGood then
                let detail =
                    ValueOption.defaultValue "" (Json.tryText (json.Slice(error.Start, error.Length)))

                frame.Notes.Add $"the exchange refused something: {detail}"

            null
        elif isRead then
            frame.Unusual <- frame.Unusual + 1L
            null
        elif
            kind.SequenceEqual(ReadOnlySpan broadcastWord)
            && content >= 0
            && json[content] = '{'B
        then
            let mutable inside = content
            forms.Refuse()
            let isSound = data json &inside frame
            at <- over
            if isSound then null else "the message is malformed"
        else
            forms.Refuse()
            frame.Unknown <- frame.Unknown + 1L
            null

    /// A message of bets in a form that is known, or nothing of it.
    let usual (json: ReadOnlySpan<byte>) (frame: Frame) =
        let first = frame.Events.Count
        let mutable draft = Draft.Begin()
        let mutable ok, i = forms.Fits json, 0
        let found = forms.Found

        while ok && i < found.Length do
            let one = &found[i]
            i <- i + 1

            ok <-
                match one.Code with
                | code when code < Code.Fills -> takeMember json code &one.Scalar &draft
                | Code.Fills ->
                    draft.IsFilledIn <- true
                    draft.HasTime
                | Code.FillOver ->
                    addFill &draft
                    true
                | Code.BetOver ->
                    let isGood = isNull (judge json &draft) && isNull (tell json frame &draft.Bet)

                    draft <- Draft.Begin()

                    isGood
                | Code.Kind ->
                    json.Slice(one.Scalar.Start, one.Scalar.Length).SequenceEqual(ReadOnlySpan broadcastWord)
                    && one.Scalar.Kind = ScalarKind.String
                | _ -> false

        if not ok then
            frame.Events.Truncate first

        ok

    member _.Subscribe(tokens: TokenId list) = said "subscribe" (want tokens)
    member _.Unsubscribe(tokens: TokenId list) = said "unsubscribe" (leave tokens)

    member _.Decode(bytes: ReadOnlyMemory<byte>, received: Instant, frame: Frame) =
        let json = bytes.Span
        frame.Batch.Exchange <- "manifold"
        frame.Batch.Received <- received
        frame.Messages <- frame.Messages + 1
        let mutable at = 0

        if not (usual json frame) && not (Json.peek json &at = 0uy && at = json.Length) then
            let start = at
            let events, mark = frame.Events.Count, frame.Batch.Mark()
            forms.Begin()

            let reason: string | null =
                match message json &at frame with
                | null when not (Utf8.IsValid json) -> "not valid UTF-8"
                | null ->
                    Json.space json &at

                    if at < json.Length then
                        "something follows the end of the JSON"
                    else
                        null
                | reason -> reason

            match reason with
            | null -> forms.Learn json
            | reason ->
                frame.Events.Truncate events
                frame.Batch.Rollback mark

                frame.Batch.Rejections.Add {
                    Exchange = "manifold"
                    Source = "ws"
                    Offset = start
                    Reason = reason
                    Bytes = json.Slice(start).ToArray()
                    Received = received
                }

let private session () : StreamSession =
    let conversation = Conversation()

    {
        Open = conversation.Subscribe
        Subscribe = conversation.Subscribe
        Unsubscribe = conversation.Unsubscribe
        // There are no whole books.
        Renew = fun _ -> []
        Decode = fun bytes received frame -> conversation.Decode(bytes, received, frame)
    }

let private part: StreamPart = {
    Host = "ws_url"
    Path = "ws"
    MostTokens = 400
    // A message of the application: the protocol's own pings do not count as life.
    Ping = $"{{\"type\":\"ping\",\"txid\":{pingId}}}"
    PingEvery = TimeSpan.FromSeconds 10.0
    IsNumbered = false
    HasBooks = false
    Session = session
    Proof = fun _ _ -> BookProof.none
}

// ---- together

let private ask need : Request list =
    match need with
    | Need.Books tokens -> booksOf tokens
    | Need.Trades follows ->
        follows
        |> List.map (fun follow -> tradesPage [ follow ] (PageState.first "bets"))
    | _ -> askMarkets need

let private decode (request: Request) body received (batch: Batch) =
    batch.Exchange <- string exchange
    batch.Received <- received

    match request.Walk with
    | Walk.Markets(need, state) -> decodeMarkets request need state body batch
    | Walk.Books tokens -> decodeBooks request tokens body batch
    | Walk.Trades(follows, state) -> decodeTrades request follows state body batch
    | Walk.History state -> decodePast request state body batch

let private onFault (request: Request) fault =
    match request.Walk, fault with
    | Walk.Books tokens, Fault.Refused(404, _) ->
        ValueSome {
            Decoded.nothing with
                Missing = tokens
        }
    // A market that nobody knows (any more).
    | Walk.Markets _, Fault.Refused(404, detail) ->
        ValueSome {
            Decoded.nothing with
                Notes = [ $"{request.Path}: {detail}" ]
        }
    | _ -> ValueNone

let private errorMembers =
    HashSet [ "message"; "error"; "details"; "code"; "status"; "statusCode" ]

/// A text that is not itself JSON: what a recorder wraps around anything may be called a message, too.
let private isWords (text: string) =
    let text = text.Trim()

    text <> ""
    && not (text.StartsWith '{' || text.StartsWith '[' || text.StartsWith '"')

let private recognise (members: RawObject) : Shape voption =
    let has, text = RawObject.has members, RawObject.textOf members
    let known kind = ValueSome(Shape.Recognised kind)
    let markets = Walk.Markets(Need.MarketsById [], PageState.first "recording")

    if has [ "type"; "topic"; "data" ] && text "type" = "broadcast" then
        let isOfBets =
            RawObject.inside members "data"
            |> Option.exists (fun data -> RawObject.isList data "bets")

        if isOfBets then
            ValueSome(Shape.Holds("'data'", [ members["data"].Json ]))
        else
            known "news of a market"
    elif has [ "txid"; "type" ] || has [ "type"; "success" ] && text "type" = "ack" then
        known "acknowledgement"
    elif has [ "id"; "question"; "mechanism" ] || has [ "id"; "question"; "outcomeType" ] then
        ValueSome(Shape.Rows("market", markets))
    elif has [ "id"; "slug"; "answers" ] && not (has [ "conditionId" ]) then
        known "market (stream)"
    elif has [ "id"; "contractId"; "amount"; "shares"; "outcome" ] then
        match text "outcome" with
        | "YES"
        | "NO"
        | "" -> ValueSome(Shape.Rows("bet", Walk.Trades([], PageState.first "rows")))
        | _ -> known "bet on a market of an older kind"
    elif has [ "contractId"; "commentType" ] || has [ "contractId"; "userId"; "text" ] then
        known "comment"
    elif has [ "id"; "contractId"; "text"; "index" ] then
        known "answer"
    elif has [ "prob" ] && members.Count = 1 || has [ "answerProbs" ] then
        known "probability"
    elif
        has [ "message" ]
        && members.Keys |> Seq.forall errorMembers.Contains
        && isWords (text "message")
    then
        known "error"
    else
        ValueNone

let private untimed (_: ReadOnlyMemory<byte>) : Interval voption = ValueNone

/// The collector. Nothing that it reads needs a key.
let collector (_: AskOptions) : Collector = {
    Exchange = exchange
    Hosts = [
        {
            Setting = "rest_url"
            Address = "https://api.manifold.markets/v0"
            Serves = "markets, bets and open limit orders"
        }
        {
            Setting = "ws_url"
            Address = "wss://api.manifold.markets/"
            Serves = "live bets"
        }
    ]
    Limits = [
        {
            Name = "all"
            // 500 a minute of an address are documented.
            BySecond = false
            PerTenSeconds = 66
            Counts = "all requests together"
        }
    ]
    Traits = {
        Currency = "mana (play money)"
        Prices = "probabilities, 0 to 1, of any fraction; limit orders in whole percents"
        Outcomes =
            "Yes and No of a market, or of each of its answers; the asks of each are the bids of the other at 1 - p"
        Sides = "the bettor's, of the outcome that was bet on; a negative amount is a sale"
        Streams = [
            {
                Stream = Stream.Books
                Loss = "not"
                Extent = "not"
                Proof = "none: open limit orders as they were served, without the market maker's own offer"
            }
            {
                Stream = Stream.Trades
                Loss = "pages that do not meet: the last minute is read again at every poll"
                Extent = "the span that was not walked"
                Proof = "the exchange's id of each bet"
            }
        ]
    }
    Secrets = []
    Notes = []
    Sign = fun _ _ _ -> []
    Admission = ValueNone
    Probes = [
        {
            Host = "rest_url"
            Path = "/markets?limit=1"
            Body = ValueNone
            IsNeeded = true
            Time = untimed
        }
    ]
    LimitsOf = fun _ -> [ "all" ]
    Ask = ask
    Decode = decode
    OnFault = onFault
    Recognise = recognise
    History = sources
    Stream = ValueSome part
}
