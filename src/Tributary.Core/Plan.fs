namespace Tributary

open System
open System.Buffers
open System.Collections.Generic
open System.Globalization
open System.Text
open System.Text.Json

/// A walk through the past that has not come to its end.
[<NoComparison; NoEquality>]
type Unfinished = {
    Since: Instant
    Until: Instant
    /// What it has read so far.
    Read: Interval list
    /// Where it goes on, in its source's words.
    Place: string
    /// Whose past it reads.
    Markets: MarketId list
    Carry: Carry
}

/// How far the past of a market has been read from a source: what a checkpoint says of it.
[<NoComparison; NoEquality>]
type Reading = {
    /// By walks that came to their end.
    Read: Interval list
    /// What those met that may be a fill and could not be read as one.
    Unknown: int64
    Walk: Unfinished voption
}

/// The part of a market's past that is wanted.
[<NoComparison; NoEquality>]
type Wanted = {
    Market: Market
    Since: Instant
    Until: Instant
}

/// A walk that is to be done.
[<NoComparison; NoEquality>]
type HistoryJob = {
    Source: HistorySource
    Markets: Market list
    Since: Instant
    Until: Instant
    /// Where it goes on; empty when it begins.
    Place: string
    Carry: Carry
    /// What it read before it was interrupted.
    Read: Interval list
    /// What is known of each of its markets besides.
    Known: Reading list
}

/// A job's requests and fills as one may expect them.
[<Struct>]
type Estimate = { Requests: int64; Fills: int64 }

/// Wanted minus covered is what is left to read. What has been read is kept in checkpoints, written with the rows that it stands for.
[<RequireQualifiedAccess>]
module Plan =
    let nothing: Reading = {
        Read = []
        Unknown = 0L
        Walk = ValueNone
    }

    // ---- checkpoints

    let private prefix (exchange: ExchangeId) source = $"{exchange}/history-{source}/"

    /// The name of the checkpoint of a source and a market.
    let jobName exchange source (market: MarketId) = $"{prefix exchange source}{market}"

    let private sourceOf (checkpoint: Checkpoint) =
        let marker = "/history-"

        match checkpoint.Job.IndexOf(marker, StringComparison.Ordinal) with
        | -1 -> ValueNone
        | at ->
            let rest = checkpoint.Job.Substring(at + marker.Length)

            match rest.IndexOf '/' with
            | -1 -> ValueNone
            | slash -> ValueSome(rest.Substring(0, slash))

    /// `{"version":1,"read":[[since,until],…],"unknown":0,"walk":{"since":…,"until":…,"read":[…],"place":"…","markets":["0x…",…],
    /// "carry":[{"market":"0x…","second":…,"met":[["id",count],…]}]}}`; times in microseconds since 1970.
    let write (reading: Reading) : string =
        let buffer = ArrayBufferWriter<byte>()
        use json = new Utf8JsonWriter(buffer)

        let intervals (name: string) (set: Interval list) =
            json.WriteStartArray name

            for one in set do
                json.WriteStartArray()
                json.WriteNumberValue one.Since.Micros
                json.WriteNumberValue one.Until.Micros
                json.WriteEndArray()

            json.WriteEndArray()

        json.WriteStartObject()
        json.WriteNumber("version", 1)
        intervals "read" reading.Read
        json.WriteNumber("unknown", reading.Unknown)

        match reading.Walk with
        | ValueNone -> ()
        | ValueSome walk ->
            json.WriteStartObject "walk"
            json.WriteNumber("since", walk.Since.Micros)
            json.WriteNumber("until", walk.Until.Micros)
            intervals "read" walk.Read
            json.WriteString("place", walk.Place)
            json.WriteStartArray "markets"

            for market in walk.Markets do
                json.WriteStringValue(string market)

            json.WriteEndArray()
            json.WriteStartArray "carry"

            for market, second, group in Trades.carried walk.Carry do
                json.WriteStartObject()
                json.WriteString("market", market)
                json.WriteNumber("second", second.Micros)
                json.WriteStartArray "met"

                for id, count in group do
                    json.WriteStartArray()
                    json.WriteStringValue(string id)
                    json.WriteNumberValue count
                    json.WriteEndArray()

                json.WriteEndArray()
                json.WriteEndObject()

            json.WriteEndArray()
            json.WriteEndObject()

        json.WriteEndObject()
        json.Flush()
        Encoding.UTF8.GetString buffer.WrittenSpan

    let private idOf (text: string) : TradeId = {
        High = UInt64.Parse(text.AsSpan(0, 16), NumberStyles.HexNumber, CultureInfo.InvariantCulture)
        Low = UInt64.Parse(text.AsSpan(16, 16), NumberStyles.HexNumber, CultureInfo.InvariantCulture)
    }

    let private text (element: JsonElement) =
        element.GetString() |> Option.ofObj |> Option.get

    /// What `write` wrote. A state that is not of this version, or damaged, is as good as none: what it stood for is read again.
    let read (state: string) : Reading =
        let intervals (element: JsonElement) =
            Intervals.ofSeq [
                for pair in element.EnumerateArray() ->
                    {
                        Since = Instant.ofMicros (pair[0].GetInt64())
                        Until = Instant.ofMicros (pair[1].GetInt64())
                    }
            ]

        try
            use document = JsonDocument.Parse state
            let root = document.RootElement

            if root.GetProperty("version").GetInt32() <> 1 then
                nothing
            else
                let walk =
                    match root.TryGetProperty "walk" with
                    | true, walk ->
                        ValueSome {
                            Since = Instant.ofMicros (walk.GetProperty("since").GetInt64())
                            Until = Instant.ofMicros (walk.GetProperty("until").GetInt64())
                            Read = intervals (walk.GetProperty "read")
                            Place = text (walk.GetProperty "place")
                            Markets = [
                                for market in walk.GetProperty("markets").EnumerateArray() ->
                                    Known.market (text market)
                            ]
                            Carry =
                                Trades.carrying [
                                    for group in walk.GetProperty("carry").EnumerateArray() ->
                                        text (group.GetProperty "market"),
                                        Instant.ofMicros (group.GetProperty("second").GetInt64()),
                                        [
                                            for met in group.GetProperty("met").EnumerateArray() ->
                                                idOf (text met[0]), met[1].GetInt32()
                                        ]
                                ]
                        }
                    | _ -> ValueNone

                {
                    Read = intervals (root.GetProperty "read")
                    Unknown = root.GetProperty("unknown").GetInt64()
                    Walk = walk
                }
        with
        | :? JsonException
        | :? KeyNotFoundException
        | :? FormatException
        | :? IndexOutOfRangeException
        | :? ArgumentException
        | :? InvalidOperationException -> nothing

    /// What the checkpoints of an exchange say, by source and market.
    let readings
        (exchange: ExchangeId)
        (checkpoints: Checkpoint seq)
        : Map<struct (string * string), Reading> =
        checkpoints
        |> Seq.filter (fun one ->
            one.Exchange = exchange
            && (one.Stream = Stream.History || one.Stream = Stream.Prices))
        |> Seq.choose (fun one ->
            match sourceOf one with
            | ValueSome source -> Some(struct (source, string one.Market), read one.State)
            | ValueNone -> None)
        |> Map.ofSeq

    /// What each source was read for, of each market, as the checkpoints of an exchange say.
    let coverage exchange (checkpoints: Checkpoint seq) : Coverage list =
        let found = Dictionary<struct (string * string), struct (Interval list * int64)>()

        let add source market read unknown =
            let key = struct (source, market)

            found[key] <-
                match found.TryGetValue key with
                | true, struct (known, before) -> struct (Intervals.union known read, before + unknown)
                | _ -> struct (read, unknown)

        for KeyValue(struct (source, market), reading) in readings exchange checkpoints do
            add source market reading.Read reading.Unknown

            reading.Walk
            |> ValueOption.iter (fun walk ->
                for market in walk.Markets do
                    add source (string market) walk.Read 0L)

        [
            for KeyValue(struct (source, market), struct (read, unknown)) in found do
                {
                    Market = Known.market market
                    Source = source
                    Read = read
                    Unknown = unknown
                }
        ]

    // ---- jobs

    /// The horizon moves on while one reads: that nothing is left of its last day is not worth another pass …
    let private beforeHorizon = TimeSpan.FromDays 1.0

    /// … but a pass that comes so far takes that day, too.
    let private upToHorizon (source: HistorySource) (now: Instant) (wanted: Wanted list) (since: Instant) =
        match source.Limits.Horizon with
        | ValueSome horizon when since <= now - horizon + beforeHorizon ->
            let first = wanted |> List.map _.Since |> List.min
            min since (max first (now - horizon))
        | _ -> since

    /// What a source can be read for, of what is wanted.
    let private servable (source: HistorySource) (now: Instant) (wanted: Wanted) : Interval =
        let since =
            match source.Limits.Horizon with
            | ValueSome horizon -> max wanted.Since (now - horizon + beforeHorizon)
            | ValueNone -> wanted.Since

        let since =
            match wanted.Market.Start with
            | ValueSome start when source.FromStart -> max since (start - TimeSpan.FromDays 1.0)
            | _ -> since

        {
            Since = since
            Until = min wanted.Until (now - HistoryState.settled)
        }

    let private known source (market: MarketId) (readings: Map<struct (string * string), Reading>) =
        readings
        |> Map.tryFind (struct (source, string market))
        |> Option.defaultValue nothing

    /// What a market's checkpoint says was read, and what walks that read it with others read of it so far.
    let private covered source (market: MarketId) (readings: Map<struct (string * string), Reading>) =
        readings
        |> Map.fold
            (fun set (struct (name, _)) reading ->
                match reading.Walk with
                | ValueSome walk when name = source && List.contains market walk.Markets ->
                    Intervals.union set walk.Read
                | _ -> set)
            (known source market readings).Read

    /// The next jobs, at most one of each source and market: walks that were interrupted go on where they stopped, then comes what is
    /// missing, the newest first. With what these have read the jobs are planned again, until there are none.
    let jobs
        (sources: HistorySource list)
        (now: Instant)
        (readings: Map<struct (string * string), Reading>)
        (wanted: Wanted list)
        : HistoryJob list =
        // Walks that read several markets at once are few; looking through them for each market would be quadratic otherwise.
        let shared =
            readings
            |> Map.filter (fun _ reading ->
                match reading.Walk with
                | ValueSome walk -> walk.Markets.Length > 1
                | ValueNone -> false)

        let around source (market: MarketId) =
            shared
            |> Map.add (struct (source, string market)) (known source market readings)
            |> covered source market

        [
            for source in sources do
                let lacking =
                    wanted
                    |> List.map (fun one ->
                        let missing =
                            Intervals.except
                                (around source.Name one.Market.Market)
                                (Intervals.ofSeq [ servable source now one ])

                        struct (one.Market, missing))
                    |> List.filter (fun struct (_, missing) -> not missing.IsEmpty)

                // Of those that were interrupted, those whose rest is wanted.
                let resumed =
                    lacking
                    |> List.choose (fun struct (market, missing) ->
                        match (known source.Name market.Market readings).Walk with
                        | ValueSome walk ->
                            let rest =
                                Intervals.except walk.Read [
                                    {
                                        Since = walk.Since
                                        Until = walk.Until
                                    }
                                ]

                            let members =
                                lacking
                                |> List.filter (fun struct (other, _) ->
                                    other.Market = market.Market || List.contains other.Market walk.Markets)
                                |> List.map (fun struct (other, _) -> other)

                            if
                                (Intervals.common rest missing).IsEmpty
                                || members.Length < walk.Markets.Length
                            then
                                None
                            else
                                Some {
                                    Source = source
                                    Markets = members |> List.sortBy (fun one -> one.Market <> market.Market)
                                    Since = walk.Since
                                    Until = walk.Until
                                    Place = walk.Place
                                    Carry = walk.Carry
                                    Read = walk.Read
                                    Known = []
                                }
                        | ValueNone -> None)

                let taken =
                    resumed
                    |> List.collect _.Markets
                    |> List.map (fun market -> string market.Market)
                    |> Set.ofList

                let left =
                    lacking
                    |> List.filter (fun struct (market, _) -> not (taken.Contains(string market.Market)))

                /// From the first missing moment to behind the last: what one pass reads for all of them.
                let around (members: (struct (Market * Interval list)) list) : Interval = {
                    Since = members |> List.map (fun struct (_, missing) -> missing.Head.Since) |> List.min
                    Until =
                        members
                        |> List.map (fun struct (_, missing) -> (List.last missing).Until)
                        |> List.max
                }

                let parts =
                    if source.MostMarkets > 1 then
                        left
                        |> List.chunkBySize source.MostMarkets
                        |> List.map (fun members -> around members, members)
                    elif source.CanJump then
                        left
                        |> List.map (fun (struct (_, missing) as one) -> List.last missing, [ one ])
                    else
                        left |> List.map (fun one -> around [ one ], [ one ])

                let fresh =
                    parts
                    |> List.map (fun (part, members) -> {
                        Source = source
                        Markets = members |> List.map (fun struct (market, _) -> market)
                        Since = upToHorizon source now wanted part.Since
                        Until = part.Until
                        Place = ""
                        Carry = Trades.noCarry
                        Read = []
                        Known = []
                    })

                for job in resumed @ fresh do
                    {
                        job with
                            Known =
                                job.Markets
                                |> List.map (fun market ->
                                    let before = known source.Name market.Market readings

                                    // A walk that gives way to another keeps what it read.
                                    let kept =
                                        match before.Walk with
                                        | ValueSome walk when walk.Markets = [ market.Market ] ->
                                            Intervals.union before.Read walk.Read
                                        | _ -> before.Read

                                    {
                                        before with
                                            Read = kept
                                            Walk = ValueNone
                                    })
                    }
        ]

    /// The request that a job begins or goes on with.
    let request (job: HistoryJob) : Request =
        let tokens = Dictionary<string, struct (MarketId * string)>()

        for market in job.Markets do
            for outcome in market.Outcomes do
                outcome.Token
                |> ValueOption.iter (fun token ->
                    tokens[string token] <- struct (market.Market, outcome.Name))

        job.Source.Ask {
            Source = job.Source.Name
            Markets = job.Markets |> List.map _.Market
            Tokens = tokens
            Since = job.Since
            Until = job.Until
            Place = job.Place
            Held = ReadOnlyMemory<byte>.Empty
        }

    /// All of the job's past is read.
    let isDone (progress: Progress) =
        Walks.isDone progress && progress.Failed.IsEmpty

    /// How much of the job is read: 0 to 1.
    let share (job: HistoryJob) (progress: Progress) =
        if isDone progress then
            1.0
        else
            let read = Intervals.length (Intervals.union job.Read progress.Read)
            let all = job.Until - job.Since
            if all <= TimeSpan.Zero then 0.0 else min 1.0 (read / all)

    /// Adds to a page's batch what it stands for: how far the job has come, and the holes that it leaves. `before` is the progress
    /// without the page. Of a page that failed nothing is said: whoever goes on asks for it again.
    let commit (exchange: ExchangeId) (job: HistoryJob) (before: Progress) (after: Progress) (batch: Batch) =
        let ids = job.Markets |> List.map _.Market

        let gap market since until cause : Gap = {
            Exchange = exchange
            Stream = job.Source.Stream
            Market = market
            Token = ValueNone
            Since = since
            Until = ValueSome until
            Cause = cause
            Healed = ValueNone
        }

        for struct (market, since, until) in List.skip before.Truncated.Length after.Truncated do
            batch.Gaps.Add(gap market since until job.Source.Withholds)

        // A page that brings nothing is no place to go on from: where it led may be wrong.
        let isNews =
            batch.Trades.Count + batch.Prices.Count + batch.Rejections.Count > 0
            || after.Read <> before.Read
            || Walks.isDone after

        if isNews && after.Failed.Length = before.Failed.Length then
            // Rows that could not be read lie somewhere in what the page brought.
            if batch.Rejections.Count > 0 then
                match Intervals.except before.Read after.Read with
                | [] -> ()
                | brought ->
                    let since = brought.Head.Since - TimeSpan.FromSeconds 1.0

                    for market in ids do
                        batch.Gaps.Add(gap market since (List.last brought).Until Cause.Undecodable)

            let read = Intervals.union job.Read after.Read
            let finished = isDone after

            let checkpoint (market: MarketId) (reading: Reading) =
                let all =
                    match reading.Walk with
                    | ValueSome walk -> Intervals.union reading.Read walk.Read
                    | ValueNone -> reading.Read

                let newest =
                    match List.tryLast all with
                    | Some newest -> newest
                    | None -> { Since = job.Until; Until = job.Until }

                batch.Checkpoints.Add {
                    Job = jobName exchange job.Source.Name market
                    Exchange = exchange
                    Stream = job.Source.Stream
                    Market = market
                    Token = ValueNone
                    Since = newest.Since
                    Watermark = newest.Until
                    Rows = batch.Trades.Count + batch.Prices.Count
                    Error = ""
                    Duration = TimeSpan.Zero
                    State = write reading
                }

            if finished then
                for market, known in List.zip ids job.Known do
                    checkpoint market {
                        Read = Intervals.union known.Read read
                        Unknown = known.Unknown + after.Unknown
                        Walk = ValueNone
                    }
            else
                match after.Waiting with
                | { Walk = Walk.History state } :: _ ->
                    checkpoint ids.Head {
                        job.Known.Head with
                            Walk =
                                ValueSome {
                                    Since = job.Since
                                    Until = job.Until
                                    Read = read
                                    Place = state.Place
                                    Markets = ids
                                    Carry = after.Carry
                                }
                    }
                | _ -> ()

    // ---- what it will take

    /// What a fill is worth on average where nothing else is known, in millionths of the currency: enough for a forecast.
    let private usualFill = 40_000_000m

    /// What a job will take, judged by the volume of its markets and their time; at least one request.
    let estimate (now: Instant) (job: HistoryJob) : Estimate =
        let fills =
            job.Markets
            |> List.sumBy (fun market ->
                let volume =
                    match market.Volume with
                    | ValueSome volume -> decimal volume.Millionths
                    | ValueNone -> 0m

                let from = market.Start |> ValueOption.defaultValue (now - TimeSpan.FromDays 90.0)
                let until = market.ClosedAt |> ValueOption.defaultValue now

                let life = [
                    {
                        Since = from
                        Until = max until (from + TimeSpan.FromHours 1.0)
                    }
                ]

                let left = Intervals.except job.Read [ { Since = job.Since; Until = job.Until } ]

                let share = Intervals.length (Intervals.common left life) / Intervals.length life
                int64 (volume / usualFill * decimal share))

        {
            Fills = fills
            Requests = 1L + fills / int64 job.Source.PageRows
        }
