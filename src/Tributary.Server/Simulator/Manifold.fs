namespace Tributary.Server.Simulator

open System
open System.Collections.Generic
open System.Text.Json

/// One question of Manifold's: a market of the exchange, or, with several answers, all those of an event.
type internal Contract = { Id: string; Markets: Market[] }

/// Manifold's answers, below `/rest/`. Left out: users, comments, and the market maker's own offer.
module internal Manifold =
    let isMulti (contract: Contract) =
        Dialect.isMulti contract.Markets[0].Info

    let slug (contract: Contract) =
        let info = contract.Markets[0].Info
        if isMulti contract then info.Event.Slug else info.Slug

    let contracts (world: World) : Contract[] =
        world.Markets
        |> Array.groupBy (fun market -> Dialect.contract world.Seed market.Info)
        |> Array.map (fun (id, markets) -> { Id = id; Markets = markets })

    let private amount (millionths: int64) = Millionths.toDecimal millionths

    /// What so many shares at this price come to. Sizes and prices are both in hundredths.
    let mana (price: int64) (size: int64) = price * size / Millionths.one

    let private error status (message: string) = raise (Refused(status, message))

    /// The schemas are strict: a parameter that nobody knows is refused.
    let private only (query: Query) (names: string list) =
        for name in query.Names do
            if not (List.contains name names) then
                error 400 $"Unrecognized key(s) in object: '{name}'"

    /// The middle of the book, or what there is of it.
    let probability (market: Market) =
        let book = market.Book

        if market.Winner >= 0 then
            (if market.Winner = 0 then 1.0 else 0.0)
        else
            let struct (bid, ask) = book.Best 0
            float (bid + ask) / 2.0 / float Millionths.one

    let private closed (contract: Contract) =
        if contract.Markets |> Array.forall _.Closed.IsSome then
            contract.Markets
            |> Array.map (fun market -> market.Closed.Value)
            |> Array.max
            |> ValueSome
        else
            ValueNone

    let private lastBet (contract: Contract) =
        contract.Markets |> Array.map _.Updated |> Array.max

    let private writeAnswer (writer: Utf8JsonWriter) seed (index: int) (market: Market) =
        writer.WriteStartObject()
        writer.WriteString("id", Dialect.answer seed market.Info)
        writer.WriteNumber("index", index)
        writer.WriteString("text", market.Info.GroupTitle)
        writer.WriteNumber("probability", probability market)
        writer.WriteStartObject "pool"
        writer.WriteNumber("YES", 100)
        writer.WriteNumber("NO", 100)
        writer.WriteEndObject()
        writer.WriteNumber("totalLiquidity", 100)
        writer.WriteNumber("volume", Math.Round(market.Volume, 6))

        match market.Closed with
        | ValueSome at ->
            writer.WriteString("resolution", (if market.Winner = 0 then "YES" else "NO"))
            writer.WriteNumber("resolutionTime", Micros.toMilliseconds at)
        | ValueNone -> ()

        writer.WriteEndObject()

    /// Lists leave answers and topics out.
    let writeContract (writer: Utf8JsonWriter) seed isFull (contract: Contract) =
        let info = contract.Markets[0].Info
        let multi = isMulti contract
        let slug = slug contract
        let millis (at: DateTimeOffset) = at.ToUnixTimeMilliseconds()
        writer.WriteStartObject()
        writer.WriteString("id", contract.Id)
        writer.WriteString("slug", slug)
        writer.WriteString("url", $"https://manifold.markets/somebody/{slug}")
        writer.WriteString("question", (if multi then info.Event.Title else info.Title))
        writer.WriteString("creatorId", Dialect.id seed 55L 0L)
        writer.WriteString("creatorUsername", "somebody")
        writer.WriteString("creatorName", "Somebody")
        writer.WriteNumber("createdTime", millis info.Event.Created)
        writer.WriteNumber("closeTime", millis info.Event.Ends)
        writer.WriteString("outcomeType", (if multi then "MULTIPLE_CHOICE" else "BINARY"))
        writer.WriteString("mechanism", (if multi then "cpmm-multi-1" else "cpmm-1"))

        if not multi then
            writer.WriteNumber("probability", probability contract.Markets[0])
            writer.WriteNumber("p", 0.5)
            writer.WriteStartObject "pool"
            writer.WriteNumber("YES", 100)
            writer.WriteNumber("NO", 100)
            writer.WriteEndObject()

        writer.WriteNumber("totalLiquidity", 100)
        writer.WriteNumber("volume", Math.Round(contract.Markets |> Array.sumBy _.Volume, 6))
        writer.WriteNumber("volume24Hours", 0)

        match closed contract with
        | ValueSome at ->
            writer.WriteBoolean("isResolved", true)

            if multi then
                writer.WriteString("resolution", "CHOOSE_MULTIPLE")
            else
                writer.WriteString("resolution", (if contract.Markets[0].Winner = 0 then "YES" else "NO"))

            writer.WriteNumber("resolutionTime", Micros.toMilliseconds at)
        | ValueNone -> writer.WriteBoolean("isResolved", false)

        writer.WriteNumber("uniqueBettorCount", 3)
        writer.WriteNumber("lastUpdatedTime", Micros.toMilliseconds (lastBet contract))
        writer.WriteNumber("lastBetTime", Micros.toMilliseconds (lastBet contract))
        writer.WriteString("token", "MANA")

        if isFull then
            if multi then
                writer.WriteBoolean("shouldAnswersSumToOne", false)
                writer.WriteString("addAnswersMode", "DISABLED")
                writer.WriteStartArray "answers"
                contract.Markets |> Array.iteri (writeAnswer writer seed)
                writer.WriteEndArray()

            writer.Array("groupSlugs", info.Event.Tags |> Array.map _.Slug, writer.WriteStringValue)
            writer.WriteString("textDescription", $"This market resolves to the outcome of \"{info.Title}\".")

        writer.WriteEndObject()

    let private limitOf (query: Query) least most =
        match query.Whole("limit", 400) with
        | None -> least
        | Some count when count <= int64 most -> int count
        | Some _ -> error 400 "limit: Number is too large"

    let private list (writer: Utf8JsonWriter) (world: World) (query: Query) =
        only query [ "limit"; "sort"; "order"; "before" ]

        let key (contract: Contract) =
            match query.One "sort" with
            | None
            | Some "created-time" -> contract.Markets[0].Info.Event.Created.ToUnixTimeMilliseconds()
            | Some("updated-time" | "last-bet-time" | "last-comment-time") ->
                Micros.toMilliseconds (lastBet contract)
            | Some _ -> error 400 "sort: Invalid enum value"

        let all = contracts world |> Array.sortByDescending key

        // Strictly before the market that is named; one that nobody knows is as if none were named.
        let rest =
            match
                query.One "before"
                |> Option.bind (fun id -> all |> Array.tryFind (fun one -> one.Id = id))
            with
            | Some found -> all |> Array.filter (fun one -> key one < key found)
            | None -> all

        writer.WriteStartArray()

        for contract in Array.truncate (limitOf query 500 1000) rest do
            writeContract writer world.Seed false contract

        writer.WriteEndArray()
        Answer.json

    let private search (writer: Utf8JsonWriter) (world: World) (query: Query) =
        only query [ "term"; "filter"; "sort"; "contractType"; "topicSlug"; "limit"; "offset" ]
        let term = query.One "term" |> Option.defaultValue ""

        let isWanted (contract: Contract) =
            let info = contract.Markets[0].Info

            (match query.One "filter" with
             | Some "open" -> (closed contract).IsNone
             | Some("closed" | "resolved") -> (closed contract).IsSome
             | _ -> true)
            && (match query.One "topicSlug" with
                | None
                | Some "" -> true
                | Some topic -> info.Event.Tags |> Array.exists (fun tag -> tag.Slug = topic))
            && info.Title.Contains(term, StringComparison.OrdinalIgnoreCase)

        writer.WriteStartArray()

        for contract in
            contracts world
            |> Array.filter isWanted
            |> Array.truncate (limitOf query 100 1000) do
            writeContract writer world.Seed false contract

        writer.WriteEndArray()
        Answer.json

    let private one (writer: Utf8JsonWriter) (world: World) isIt =
        match contracts world |> Array.tryFind isIt with
        | Some contract ->
            writeContract writer world.Seed true contract
            Answer.json
        | None -> error 404 "Contract not found"

    let private user (world: World) trader =
        Dialect.id world.Seed 56L (int64 trader)

    let private writeFees (writer: Utf8JsonWriter) =
        writer.WriteStartObject "fees"
        writer.WriteNumber("creatorFee", 0)
        writer.WriteNumber("platformFee", 0)
        writer.WriteNumber("liquidityFee", 0)
        writer.WriteEndObject()

    /// A taker's bet, with its one fill against a maker's order.
    let writeBet (writer: Utf8JsonWriter) (world: World) (market: Market) (fill: Fill) =
        let info = market.Info
        let seed = world.Seed
        let sign = if fill.Buys then 1m else -1m
        let paid = sign * amount (mana fill.Price fill.Size)
        let shares = sign * amount fill.Size
        let at = Micros.toMilliseconds fill.At
        let struct (price, _) = Dialect.ofYes fill
        writer.WriteStartObject()
        writer.WriteString("id", Dialect.betId seed info fill)
        writer.WriteString("contractId", Dialect.contract seed info)

        if Dialect.isMulti info then
            writer.WriteString("answerId", Dialect.answer seed info)

        writer.WriteString("userId", user world fill.Taker)
        writer.WriteNumber("createdTime", at)
        writer.WriteNumber("amount", paid)
        writer.WriteNumber("shares", shares)
        writer.WriteString("outcome", (if fill.Token = 0 then "YES" else "NO"))
        writer.WriteNumber("probBefore", amount price)
        writer.WriteNumber("probAfter", amount price)
        writeFees writer
        writer.WriteNumber("loanAmount", 0)
        writer.WriteBoolean("isApi", false)
        writer.WriteBoolean("isRedemption", false)
        writer.WriteNumber("orderAmount", paid)
        writer.WriteBoolean("isFilled", true)
        writer.WriteBoolean("isCancelled", false)
        writer.WriteStartArray "fills"
        writer.WriteStartObject()
        writer.WriteString("matchedBetId", Dialect.id seed 57L (int64 fill.Maker))
        writer.WriteNumber("amount", paid)
        writer.WriteNumber("shares", shares)
        writer.WriteNumber("timestamp", at)
        writer.WriteEndObject()
        writer.WriteEndArray()
        writer.WriteEndObject()

    /// YES and NO of one person, taken back against each other: no trade, and yet a row. One in eight fills has them beside it.
    let private writeRedemptions (writer: Utf8JsonWriter) (world: World) (market: Market) (fill: Fill) =
        let info = market.Info
        let seed = world.Seed
        let id = Dialect.betId seed info fill

        for outcome in [ "YES"; "NO" ] do
            writer.WriteStartObject()
            writer.WriteString("id", id[0..9] + (if outcome = "YES" then "-y" else "-n"))
            writer.WriteString("contractId", Dialect.contract seed info)

            if Dialect.isMulti info then
                writer.WriteString("answerId", Dialect.answer seed info)

            writer.WriteString("userId", user world fill.Taker)
            writer.WriteNumber("createdTime", Micros.toMilliseconds fill.At)
            writer.WriteNumber("amount", -5m)
            writer.WriteNumber("shares", -10m)
            writer.WriteString("outcome", outcome)
            writer.WriteNumber("probBefore", 0.5)
            writer.WriteNumber("probAfter", 0.5)
            writer.WriteBoolean("isRedemption", true)
            writeFees writer
            writer.WriteEndObject()

    let private hasRedemptions (fill: Fill) = (fill.Taker + fill.Transaction) % 8 = 0

    /// Every level as one or two people's orders, some filled in part; and one that has expired.
    let private orders (writer: Utf8JsonWriter) (world: World) now (contract: Contract) limit =
        let seed = world.Seed
        let mutable left = limit

        let order (market: Market) number isYes price (shares: int64) (expires: int64 voption) =
            if left > 0 then
                left <- left - 1
                let info = market.Info
                let own = if isYes then price else Millionths.one - price
                let rest = mana own shares
                let filled = if number % 5 = 0 then rest else 0L
                writer.WriteStartObject()
                writer.WriteString("id", Dialect.id seed 58L (int64 info.Id * 1_000_000L + int64 number))
                writer.WriteString("contractId", contract.Id)

                if Dialect.isMulti info then
                    writer.WriteString("answerId", Dialect.answer seed info)

                writer.WriteString("userId", user world (4000 + number % 1000))
                writer.WriteNumber("createdTime", Micros.toMilliseconds (now - 3_600_000_000L))
                writer.WriteNumber("amount", amount filled)
                writer.WriteNumber("shares", (if filled = 0L then 0m else amount shares))
                writer.WriteString("outcome", (if isYes then "YES" else "NO"))
                writer.WriteNumber("limitProb", amount price)
                writer.WriteNumber("orderAmount", amount (rest + filled))
                writer.WriteNumber("probBefore", probability market)
                writer.WriteNumber("probAfter", probability market)
                writer.WriteBoolean("isFilled", false)
                writer.WriteBoolean("isCancelled", false)
                writer.WriteBoolean("isRedemption", false)

                expires
                |> ValueOption.iter (fun at -> writer.WriteNumber("expiresAt", Micros.toMilliseconds at))

                writer.WriteStartArray "fills"

                if filled > 0L then
                    writer.WriteStartObject()
                    writer.WriteString("matchedBetId", Dialect.id seed 57L (int64 number))
                    writer.WriteNumber("amount", amount filled)
                    writer.WriteNumber("shares", amount shares)
                    writer.WriteNumber("timestamp", Micros.toMilliseconds (now - 60_000_000L))
                    writer.WriteEndObject()

                writer.WriteEndArray()
                writeFees writer
                writer.WriteEndObject()

        for market in contract.Markets do
            if market.Closed.IsNone then
                let book = market.Book

                for step in 1 .. book.Steps - 1 do
                    let size = book.Size step
                    let isYes = book.Signed step > 0L

                    if size >= 20_000L && step % 3 = 0 then
                        let first = size / 20_000L * 10_000L
                        order market (2 * step) isYes (book.Price step) first ValueNone
                        order market (2 * step + 1) isYes (book.Price step) (size - first) ValueNone
                    elif size > 0L then
                        order market (2 * step) isYes (book.Price step) size ValueNone

                order market 999 true 10_000L Millionths.one (ValueSome(now - 1_000_000L))

    let private delivered (contract: Contract) : LedgerBook[] = [|
        for market in contract.Markets do
            if market.Closed.IsNone then
                for token in 0..1 do
                    let struct (bids, asks) = market.Book.Sides token

                    {
                        Token = market.Info.Tokens[token]
                        Timestamp = 0L
                        Hash = LedgerBook.digest (Array.rev bids) (Array.rev asks)
                    }
    |]

    let private bets (writer: Utf8JsonWriter) (world: World) now (query: Query) =
        only query [
            "contractId"
            "contractSlug"
            "answerId"
            "limit"
            "beforeTime"
            "afterTime"
            "order"
            "kinds"
            // Answers are independent here: no bet moves another answer.
            "includeZeroShareRedemptions"
        ]

        let limit = limitOf query 1000 10_000
        let ids, slugs = query.All "contractId", query.One "contractSlug"

        let asked =
            contracts world
            |> Array.filter (fun contract -> List.contains contract.Id ids || slugs = Some(slug contract))

        let ofAnswer (market: Market) =
            match query.One "answerId" with
            | Some answer -> Dialect.answer world.Seed market.Info = answer
            | None -> true

        writer.WriteStartArray()

        match query.One "kinds" with
        | Some "open-limit" ->
            for contract in asked do
                orders writer world now contract limit

            writer.WriteEndArray()
            let books = asked |> Array.collect delivered

            {
                Answer.json with
                    Asked = books |> Array.map _.Token
                    Books = books
            }
        | Some _ -> error 400 "kinds: Invalid enum value"
        | None ->
            // Both bounds are exclusive.
            let after = query.Whole("afterTime", 400) |> Option.defaultValue Int64.MinValue
            let before = query.Whole("beforeTime", 400) |> Option.defaultValue Int64.MaxValue
            let rows = PriorityQueue<struct (Market * int), struct (int64 * int)>()

            let push (market: Market) index =
                if index >= 0 then
                    let at = Micros.toMilliseconds (market.Fill index).At

                    if at > after then
                        rows.Enqueue(struct (market, index), struct (-at, market.Info.Index))

            for contract in asked do
                for market in contract.Markets |> Array.filter ofAnswer do
                    let last =
                        if before = Int64.MaxValue then
                            market.FillCount
                        else
                            market.Until(before / 1000L)

                    push market (last - 1)

            let mutable written = 0

            while written < limit && rows.Count > 0 do
                let struct (market, index) = rows.Dequeue()
                let fill = market.Fill index
                push market (index - 1)

                if Micros.toMilliseconds fill.At < before && world.Shows(&fill, now) then
                    writeBet writer world market fill
                    written <- written + 1

                    if hasRedemptions fill && written + 1 < limit then
                        writeRedemptions writer world market fill
                        written <- written + 2

            writer.WriteEndArray()
            { Answer.json with Rows = written }

    let answer (writer: Utf8JsonWriter) (world: World) now (ask: Ask) path =
        match path with
        | [ "markets" ] -> list writer world ask.Query
        | [ "search-markets" ] -> search writer world ask.Query
        | [ "market"; id ] -> one writer world (fun contract -> contract.Id = id)
        | [ "slug"; name ] -> one writer world (fun contract -> slug contract = name)
        | [ "bets" ] -> bets writer world now ask.Query
        | _ -> error 404 "Not Found"

    /// The shape of errors.
    let refusal status (message: string) (writer: Utf8JsonWriter) =
        writer.WriteStartObject()
        writer.WriteString("message", message)
        writer.WriteEndObject()
        { Answer.json with Status = status }
