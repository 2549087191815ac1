namespace Tributary.Server.Simulator

open System
open System.Buffers.Text
open System.Globalization
open System.Text
open System.Text.Json

/// Events and markets: `/gamma/...`.
module internal Gamma =
    // Gamma's dates come in several costumes.
    let private plain (date: DateTimeOffset) =
        date.UtcDateTime.ToString("yyyy-MM-dd'T'HH:mm:ss'Z'", CultureInfo.InvariantCulture)

    let private fractional (date: DateTimeOffset) =
        date.UtcDateTime.ToString("yyyy-MM-dd'T'HH:mm:ss.FFFFFFF'Z'", CultureInfo.InvariantCulture)

    let private nanoseconds (date: DateTimeOffset) =
        date.UtcDateTime.ToString("yyyy-MM-dd'T'HH:mm:ss.fffffff'00Z'", CultureInfo.InvariantCulture)

    let private spaced (date: DateTimeOffset) =
        date.UtcDateTime.ToString("yyyy-MM-dd HH:mm:ss'+00'", CultureInfo.InvariantCulture)

    let private dateOnly (date: DateTimeOffset) =
        date.UtcDateTime.ToString("yyyy-MM-dd", CultureInfo.InvariantCulture)

    /// Shortest digits that give the same float back, noise included.
    let private noisy (value: float) =
        value.ToString("R", CultureInfo.InvariantCulture)

    let private writeTag (writer: Utf8JsonWriter) (tag: Tag) =
        writer.WriteStartObject()
        writer.WriteString("id", tag.Id)
        writer.WriteString("label", tag.Label)
        writer.WriteString("slug", tag.Slug)
        writer.WriteEndObject()

    let private prices (market: Market) =
        if market.Closed.IsSome then
            [| for token in 0..1 -> if market.Winner = token then "1" else "0" |]
        else
            let struct (bid, ask) = market.Book.Best 0
            let middle = (bid + ask) / 2L

            [| Millionths.text middle; Millionths.text (Millionths.one - middle) |]

    let private writeMarket (writer: Utf8JsonWriter) withEvent (market: Market) =
        let info = market.Info
        let event = info.Event
        let struct (bid, ask) = market.Book.Best 0
        let isOpen = market.Closed.IsNone
        writer.WriteStartObject()
        writer.WriteString("id", string info.Id)
        writer.WriteString("question", info.Title)
        writer.WriteString("conditionId", info.Condition)
        writer.WriteString("slug", info.Slug)
        writer.WriteString("resolutionSource", "")
        writer.WriteString("endDate", plain event.Ends)
        writer.WriteString("liquidity", noisy info.Liquidity)
        writer.WriteString("startDate", fractional (event.Created.AddHours 1.0))
        writer.WriteString("description", $"This market resolves to the outcome of \"{info.Title}\".\n")
        writer.EncodedArray("outcomes", info.Outcomes)
        writer.EncodedArray("outcomePrices", prices market)
        writer.WriteString("volume", noisy market.Volume)
        writer.WriteBoolean("active", true)
        writer.WriteBoolean("closed", not isOpen)
        writer.WriteString("marketMakerAddress", "")
        let created = if info.Index % 5 = 0 then nanoseconds else fractional
        writer.WriteString("createdAt", created event.Created)
        writer.WriteString("updatedAt", fractional (Micros.toDate market.Updated))

        match market.Closed with
        | ValueSome at ->
            let date = Micros.toDate at
            writer.WriteString("closedTime", spaced date)
            writer.WriteString("umaEndDate", (if info.Index % 2 = 0 then spaced date else plain date))
            writer.WriteString("umaResolutionStatus", "resolved")
            writer.EncodedArray("umaResolutionStatuses", [| "proposed"; "resolved" |])
        | ValueNone -> writer.WriteString("umaResolutionStatuses", "[]")

        writer.WriteBoolean("new", false)
        writer.WriteBoolean("featured", false)
        writer.WriteBoolean("archived", false)
        writer.WriteBoolean("restricted", true)

        if info.GroupTitle <> "" then
            writer.WriteString("groupItemTitle", info.GroupTitle)

        writer.WriteString("questionID", info.Question)
        writer.WriteBoolean("enableOrderBook", true)
        writer.WriteNumber("orderPriceMinTickSize", Millionths.toDecimal market.Tick)
        writer.WriteNumber("orderMinSize", info.MinimumSize)
        writer.WriteNumber("volumeNum", market.Volume)
        writer.WriteNumber("liquidityNum", info.Liquidity)
        writer.WriteString("endDateIso", dateOnly event.Ends)
        writer.WriteString("startDateIso", dateOnly (event.Created.AddHours 1.0))

        info.Window
        |> ValueOption.iter (fun at -> writer.WriteString("eventStartTime", plain at))

        info.Game
        |> ValueOption.iter (fun at ->
            writer.WriteString("gameStartTime", spaced at)
            writer.WriteString("sportsMarketType", "moneyline"))

        writer.WriteNumber("volumeClob", market.Volume)
        writer.WriteNumber("liquidityClob", info.Liquidity)
        writer.WriteBoolean("acceptingOrders", isOpen)
        writer.WriteBoolean("negRisk", event.NegRisk)

        if event.NegRisk then
            writer.WriteString("negRiskMarketID", "0x" + Dice.Keyed(8L, int64 event.Id).Hex 32)

        writer.EncodedArray("clobTokenIds", info.Tokens)
        writer.WriteBoolean("ready", false)
        writer.WriteBoolean("funded", false)

        if withEvent then
            writer.WriteStartArray "events"
            writer.WriteStartObject()
            writer.WriteString("id", string event.Id)
            writer.WriteString("ticker", event.Slug)
            writer.WriteString("slug", event.Slug)
            writer.WriteString("title", event.Title)
            writer.WriteEndObject()
            writer.WriteEndArray()

        writer.WriteNumber("spread", Millionths.toDecimal (ask - bid))

        // A change too small for plain digits: Gamma prints it with an exponent.
        writer.WriteNumber("oneHourPriceChange", (if info.Index % 4 = 0 then 1e-05 else -0.0125))

        match market.LastPrice 0 with
        | ValueSome price -> writer.WriteNumber("lastTradePrice", Millionths.toDecimal price)
        | ValueNone -> writer.WriteNull "lastTradePrice"

        writer.WriteNumber("bestBid", Millionths.toDecimal bid)
        writer.WriteNumber("bestAsk", Millionths.toDecimal ask)
        writer.WriteString("version", "v1")
        writer.WriteEndObject()

    let private isClosed (world: World) event =
        world.MarketsOf event |> Array.forall _.Closed.IsSome

    let private volume (world: World) event =
        world.MarketsOf event |> Array.sumBy _.Volume

    let private liquidity (world: World) event =
        world.MarketsOf event |> Array.sumBy _.Info.Liquidity

    let private writeEvent (writer: Utf8JsonWriter) (world: World) (event: EventInfo) =
        let markets = world.MarketsOf event
        writer.WriteStartObject()
        writer.WriteString("id", string event.Id)
        writer.WriteString("ticker", event.Slug)
        writer.WriteString("slug", event.Slug)
        writer.WriteString("title", event.Title)
        writer.WriteString("description", "")
        writer.WriteString("startDate", fractional (event.Created.AddHours 1.0))
        writer.WriteString("creationDate", fractional event.Created)
        writer.WriteString("endDate", plain event.Ends)
        writer.WriteBoolean("active", true)
        writer.WriteBoolean("closed", isClosed world event)
        writer.WriteBoolean("archived", false)
        writer.WriteBoolean("restricted", true)
        writer.WriteNumber("liquidity", liquidity world event)
        writer.WriteNumber("volume", volume world event)
        writer.WriteBoolean("enableOrderBook", true)
        writer.WriteBoolean("negRisk", event.NegRisk)
        writer.WriteNumber("commentCount", 0)
        writer.Array("tags", event.Tags, writeTag writer)
        writer.Array("markets", markets, writeMarket writer false)
        writer.WriteEndObject()

    /// A list that can be asked for: what its items are, how they are ordered, and how many come at most.
    type private Listing<'a> = {
        Name: string
        Items: 'a seq
        Id: 'a -> int
        Key: string -> 'a -> float
        Cap: int
        Write: 'a -> unit
    }

    let private unprocessable message = raise (Refused(422, message))

    let private encode (key: float) (id: int) =
        Base64Url.EncodeToString(ReadOnlySpan(utf8 $"{noisy key}|{id}"))

    let private decode (cursor: string) =
        try
            match Encoding.UTF8.GetString(Base64Url.DecodeFromChars cursor).Split '|' with
            | [| key; id |] -> struct (Double.Parse(key, CultureInfo.InvariantCulture), Int32.Parse id)
            | _ -> unprocessable "invalid cursor"
        with
        | :? FormatException
        | :? OverflowException -> unprocessable "invalid cursor"

    let private page (writer: Utf8JsonWriter) keyset (query: Query) listing =
        let order = query.One "order" |> Option.defaultValue "id"
        let ascending = query.Flag("ascending", 422) |> Option.defaultValue true

        let position item =
            struct (listing.Key order item, listing.Id item)

        let sorted =
            listing.Items
            |> (if ascending then
                    Seq.sortBy position
                else
                    Seq.sortByDescending position)

        // A larger limit is silently brought down to the cap.
        let limit =
            query.Whole("limit", 422)
            |> Option.defaultValue 20L
            |> min (int64 listing.Cap)
            |> int

        if keyset then
            if query.Has "offset" then
                unprocessable "offset is not supported, use after_cursor"

            let rest =
                match query.One "after_cursor" with
                | None
                | Some "" -> sorted
                | Some cursor ->
                    let after = decode cursor

                    let passed at =
                        if ascending then at <= after else at >= after

                    sorted |> Seq.skipWhile (position >> passed)

            let items = rest |> Seq.truncate (limit + 1) |> Array.ofSeq
            let shown = Array.truncate limit items
            writer.WriteStartObject()
            writer.Array(listing.Name, shown, listing.Write)

            if items.Length > shown.Length && shown.Length > 0 then
                let struct (key, id) = position (Array.last shown)
                writer.WriteString("next_cursor", encode key id)

            writer.WriteEndObject()
        else
            let offset = query.Whole("offset", 422) |> Option.defaultValue 0L

            if offset > 10_000L then
                unprocessable "offset must not exceed 10000"

            writer.WriteStartArray()

            sorted
            |> Seq.indexed
            |> Seq.skipWhile (fun (i, _) -> int64 i < offset)
            |> Seq.truncate limit
            |> Seq.iter (snd >> listing.Write)

            writer.WriteEndArray()

        Answer.json

    /// Whether the item passes a filter of several values; no value is no filter.
    let private among (query: Query) name cap =
        let wanted = query.All name

        if wanted.Length > cap then
            unprocessable $"too many values for {name}"

        let wanted = Set.ofList wanted
        fun value -> wanted.IsEmpty || wanted.Contains value

    let private between (query: Query) name =
        let low = query.Real(name + "_min", 422) |> Option.defaultValue -infinity
        let high = query.Real(name + "_max", 422) |> Option.defaultValue infinity
        fun value -> value >= low && value <= high

    let private markets writer (world: World) keyset (query: Query) =
        // Also beside an id filter: a closed market is not found without closed=true.
        let closed = query.Flag("closed", 422) |> Option.defaultValue false
        let id = among query "id" 400
        let slug = among query "slug" 100
        let condition = among query "condition_ids" 100
        let token = among query "clob_token_ids" 100
        let tag = among query "tag_id" 1
        let volume = between query "volume_num"
        let liquidity = between query "liquidity_num"

        let matches (market: Market) =
            let info = market.Info

            market.Closed.IsSome = closed
            && id (string info.Id)
            && slug info.Slug
            && condition info.Condition
            && Array.exists token info.Tokens
            && info.Event.Tags |> Array.exists (fun known -> tag known.Id)
            && volume market.Volume
            && liquidity info.Liquidity

        page writer keyset query {
            Name = "markets"
            Items = world.Markets |> Seq.filter matches
            Id = _.Info.Id
            Key =
                function
                | "volumeNum"
                | "volume_num"
                | "volume" -> _.Volume
                | "liquidityNum"
                | "liquidity_num"
                | "liquidity" -> _.Info.Liquidity
                | "startDate"
                | "createdAt" -> fun market -> float (market.Info.Event.Created.ToUnixTimeMilliseconds())
                | "endDate" -> fun market -> float (market.Info.Event.Ends.ToUnixTimeMilliseconds())
                | "id" -> fun market -> float market.Info.Id
                | other -> unprocessable $"order by {other} is not valid"
            Cap = 100
            Write = writeMarket writer true
        }

    let private events writer (world: World) keyset (query: Query) =
        // Without the parameter only closed events come: the opposite of the markets.
        let closed = query.Flag("closed", 422) |> Option.defaultValue true
        let id = among query "id" 400
        let slug = among query "slug" 100
        let tag = among query "tag_id" 1
        let tagSlug = among query "tag_slug" 1
        let volumes = between query "volume_num"
        let liquidities = between query "liquidity_num"

        let matches (event: EventInfo) =
            isClosed world event = closed
            && id (string event.Id)
            && slug event.Slug
            && event.Tags |> Array.exists (fun known -> tag known.Id && tagSlug known.Slug)
            && volumes (volume world event)
            && liquidities (liquidity world event)

        page writer keyset query {
            Name = "events"
            Items = world.Events |> Seq.filter matches
            Id = _.Id
            Key =
                function
                | "volume" -> volume world
                | "liquidity" -> liquidity world
                | "startDate" -> fun event -> float (event.Created.ToUnixTimeMilliseconds())
                | "endDate" -> fun event -> float (event.Ends.ToUnixTimeMilliseconds())
                | "id" -> fun event -> float event.Id
                | other -> unprocessable $"order by {other} is not valid"
            Cap = 500
            Write = writeEvent writer world
        }

    let private one name found write (writer: Utf8JsonWriter) =
        match found with
        | Some item ->
            write item
            Answer.json
        | None ->
            writer.WriteStartObject()
            writer.WriteString("type", "not found error")
            writer.WriteString("error", $"{name} not found")
            writer.WriteEndObject()
            { Answer.json with Status = 404 }

    /// Answers a request whose path went on with these parts after the host's prefix.
    let answer (writer: Utf8JsonWriter) (world: World) (ask: Ask) (path: string list) =
        let event wanted = world.Events |> Array.tryFind wanted

        let tag wanted =
            world.Catalog.Tags |> Array.tryFind wanted

        match path with
        | [ "markets" ] -> markets writer world false ask.Query
        | [ "markets"; "keyset" ] -> markets writer world true ask.Query
        | [ "markets"; "slug"; slug ] -> one "slug" (world.MarketBySlug slug) (writeMarket writer true) writer
        | [ "markets"; id ] -> one "id" (world.MarketById id) (writeMarket writer true) writer
        | [ "events" ] -> events writer world false ask.Query
        | [ "events"; "keyset" ] -> events writer world true ask.Query
        | [ "events"; "slug"; slug ] ->
            one "slug" (event (fun event -> event.Slug = slug)) (writeEvent writer world) writer
        | [ "events"; id ] ->
            one "id" (event (fun event -> string event.Id = id)) (writeEvent writer world) writer
        | [ "tags" ] ->
            writer.WriteStartArray()
            world.Catalog.Tags |> Array.iter (writeTag writer)
            writer.WriteEndArray()
            Answer.json
        | [ "tags"; "slug"; slug ] -> one "slug" (tag (fun tag -> tag.Slug = slug)) (writeTag writer) writer
        | [ "tags"; id ] -> one "id" (tag (fun tag -> tag.Id = id)) (writeTag writer) writer
        | _ -> Answer.error 404 "not found" writer
