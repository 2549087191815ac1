namespace Tributary.Stores.QuestDb

open System
open System.Collections.Concurrent
open System.Collections.Generic
open System.IO
open System.Net.Http
open System.Text
open System.Text.Json
open System.Threading
open System.Threading.Channels
open System.Threading.Tasks
open Microsoft.Extensions.Logging
open Tributary
open Tributary.Stores

// Not the one of System.Text.
type private RowEncoder = Tributary.Stores.QuestDb.Encoder

/// How rows are sent.
type internal SenderOptions = {
    /// The name that gaps and counters carry.
    Collector: string
    /// How long entries are kept after they can be read at the server: for servers that commit without a sync.
    Keep: TimeSpan
    /// After what time the server may drop the bulk.
    TimeToLive: TimeSpan voption
    /// Bars of prices are kept up to date by the server.
    Views: bool
    /// Prices and sizes of trades are decimals.
    Decimals: bool
    /// How often the write-ahead logs are looked at.
    LookEvery: TimeSpan
}

/// What is known of a server that rows can be sent to.
type private Ready = {
    Protocol: int
    /// Rises with every time that it was found out.
    Number: int
    Verdicts: Map<string, Schema.Verdict>
}

/// Rows that were read and encoded.
type private Prepared = {
    Payload: Payload
    Range: EntryRange
    UpTo: int64
    /// More waits than went into this one.
    IsLong: bool
    /// Rows that cannot be encoded, and why.
    Unfit: (struct (byte[] * string)) list
}

/// Ends a wait early.
[<Sealed>]
type private Bell() =
    let rung =
        Channel.CreateBounded<unit>(BoundedChannelOptions(1, FullMode = BoundedChannelFullMode.DropWrite))

    member _.Ring() = rung.Writer.TryWrite() |> ignore

    /// Waits until it rings, so long at most.
    member _.Wait(limit: TimeSpan, clock: TimeProvider, ct: CancellationToken) : Task<unit> = task {
        use limited = CancellationTokenSource.CreateLinkedTokenSource ct
        use timer = new CancellationTokenSource(limit, clock)
        use _ = timer.Token.Register(fun () -> limited.Cancel())

        try
            let! _ = rung.Reader.ReadAsync limited.Token
            ()
        with :? OperationCanceledException when not ct.IsCancellationRequested ->
            ()
    }

/// One table's way to the server, as far as others see it.
[<Sealed>]
type private Track(lane: Lane) =
    let bell = Bell()
    let mutable rows = 0
    member _.Lane = lane
    member _.Table = lane.Table
    member val Position = Position.start with get, set
    member val Settling = Settling.start with get, set
    /// Rises when everything that is still held has to be sent again.
    member val Generation = 0 with get, set
    member val Health = TableHealth.Sound with get, set
    member val Wal: WalState voption = ValueNone with get, set
    /// When its log was last seen to be sound.
    member val SoundAt = Instant.ofMicros 0L with get, set
    member val Refusal = "" with get, set
    /// The server answers, and does not take these rows.
    member val IsFailing = false with get, set

    member _.Wake(more: int) =
        Interlocked.Add(&rows, more) |> ignore
        bell.Ring()

    /// Rows that came since this was last asked.
    member _.Pending = Volatile.Read &rows
    member _.TakePending() = Interlocked.Exchange(&rows, 0)

    /// Waits for a wake-up, so long at most.
    member _.Wait(limit, clock, ct) = bell.Wait(limit, clock, ct)

/// Empties the outbox into QuestDB: a lane and a connection for each table, so that a table in trouble holds up no other, and
/// encoding overlaps sending. Nothing is forgotten before it can be read there. Disposing stops it where it is.
[<Sealed>]
type internal Sender
    (
        server: Server,
        outbox: Outbox,
        outboxPath: string,
        local: Store,
        options: SenderOptions,
        clock: TimeProvider,
        log: ILogger
    ) =
    let connection = server.Options
    let name = "QuestDB"
    let stopping = new CancellationTokenSource()

    let now () =
        Instant.ofDateTimeOffset (clock.GetUtcNow())

    let tracks =
        [
            Lane.Markets
            Lane.MarketStats
            Lane.Trades
            Lane.Books
            Lane.Deltas
            Lane.Prices
            Lane.Links
            Lane.OwnOrders
            Lane.OwnTrades
            Lane.Matches
            Lane.Gaps
            Lane.Rejections
            Lane.Metrics
        ]
        |> List.map Track

    let mutable flushes = 0

    // ---- the server as a whole

    let gate = new SemaphoreSlim(1)
    let mutable ready: Ready option = None
    let mutable preparations = 0
    let told = HashSet<string>()

    let tellOnce (say: string -> unit) (words: string) =
        if lock told (fun () -> told.Add words) then
            say words

    let measured = obj ()
    let mutable unseen: Waiting list voption = ValueNone
    let mutable measuredAt = Instant.ofMicros 0L

    // Since when it takes nothing, and what was said of it since.
    let mutable away: Instant voption = ValueNone
    let saidAway = HashSet<string>()

    let isAway (detail: string) =
        lock told (fun () ->
            if away.IsNone then
                away <- ValueSome(now ())

            if saidAway.Add detail then
                Log.remoteAway log detail outboxPath)

    let isBack () =
        lock told (fun () ->
            match away with
            | ValueSome since ->
                away <- ValueNone
                saidAway.Clear()
                Log.remoteBack log name (now () - since)
            | ValueNone -> ())

    let execute sql ct : Task<unit> = task {
        use! _ = server.Ask(sql, ct)
        ()
    }

    let describeTables ct = Catalogue.tables server ct

    /// Makes the tables that are missing, and judges those that are there.
    let prepareTables protocol ct : Task<Map<string, Schema.Verdict>> = task {
        let wanted = Tables.all protocol options.Decimals
        let! before = describeTables ct

        for table in wanted do
            if not (Map.containsKey table.Name before) then
                do! execute (Tables.create options.TimeToLive table) ct

        let! after = describeTables ct
        let verdicts = Dictionary<string, Schema.Verdict>()

        for table in wanted do
            match Map.tryFind table.Name after with
            | None -> () // dropped this very moment: the next look tells
            | Some(struct (found, hours)) ->
                let! columns = Catalogue.columns server table.Name ct
                let verdict = Schema.compare protocol table { found with Columns = columns }

                if verdict.Refusals.IsEmpty then
                    for statement in verdict.Mend do
                        do! execute statement ct
                        Log.remoteNote log name $"mended: {statement}"

                for note in verdict.Notes do
                    tellOnce (Log.remoteNote log name) note

                match Tables.timeToLive options.TimeToLive table with
                | ValueSome(struct (wanted, text)) when hours <> wanted ->
                    try
                        do! execute $"ALTER TABLE \"{table.Name}\" SET TTL {text}" ct
                    with :? QuestDbException as error ->
                        tellOnce (Log.remoteNote log name) $"the time to live is not set: {error.Message}"
                | ValueNone when hours > 0 ->
                    tellOnce
                        (Log.remoteNote log name)
                        $"{table.Name} drops rows that are older than {hours} h: what is collected of earlier times will not be found there"
                | _ -> ()

                verdicts[table.Name] <- verdict

        if options.Views then
            for view, statement in Schema.views do
                try
                    do! execute statement ct
                with :? QuestDbException as error ->
                    tellOnce (Log.remoteNote log name) $"{view} is not made: {error.Message}"

        return
            verdicts
            |> Seq.map (fun (KeyValue(table, verdict)) -> table, verdict)
            |> Map.ofSeq
    }

    /// What is known of the server; found out now if need be.
    let prepareServer (ct: CancellationToken) : Task<Ready> = task {
        do! gate.WaitAsync ct

        try
            match ready with
            | Some ready -> return ready
            | None ->
                let! protocol = server.Negotiate ct

                if options.Decimals && protocol < 3 then
                    raise (
                        QuestDbException(
                            $"decimals are configured, and the server speaks version {protocol} of the line protocol only: they need 3 (QuestDB 9.2); switch decimals off, or update the server",
                            true
                        )
                    )

                let! verdicts = prepareTables protocol ct
                preparations <- preparations + 1

                let found = {
                    Protocol = protocol
                    Number = preparations
                    Verdicts = verdicts
                }

                ready <- Some found
                return found
        finally
            gate.Release() |> ignore
    }

    let forgetServer () = ready <- None

    // ---- health, and what may be forgotten

    let questdb =
        match ExchangeId.Parse "questdb" with
        | Ok id -> id
        | Error message -> invalidOp message

    let marketOf table =
        match MarketId.Parse table with
        | Ok id -> id
        | Error message -> invalidOp message

    /// A table that does not show what it took is a gap of its own: of the exchange `questdb`, with the table for its market.
    let gapOf (table: string) since until : Gap = {
        Exchange = questdb
        Stream =
            match table with
            | "trades"
            | "trade_links" -> Stream.Trades
            | "orderbook_snapshots" -> Stream.Books
            | "orderbook_deltas" -> Stream.Depth
            | "prices" -> Stream.Prices
            | _ -> Stream.Markets
        Market = marketOf table
        Token = ValueNone
        Since = since
        Until = until
        Cause = Cause.StoreFailed
        Healed = ValueNone
    }

    // The open ones, by table; those of an earlier run among them.
    let open' = Dictionary<string, Instant>()

    let record (gap: Gap) : Task<bool> = task {
        let batch = Batch()
        batch.Gaps.Add gap

        match! local.Write [| batch |] CancellationToken.None with
        | Ok() ->
            for track in tracks do
                if track.Lane.IsGaps then
                    track.Wake 1

            return true
        | Error _ -> return false // The engine hears of that store's troubles itself; the next look tries again.
    }

    let judge (track: Track) (state: WalState voption) (began: Instant) : Task<unit> = task {
        let before = track.Health
        let health = TableHealth.judge track.Wal state
        track.Health <- health
        track.Wal <- state

        if health = TableHealth.Sound then
            match open'.TryGetValue track.Table with
            | true, since ->
                let! isRecorded = record (gapOf track.Table since (ValueSome began))

                if isRecorded then
                    open'.Remove track.Table |> ignore

                if before <> TableHealth.Sound then
                    Log.remoteNote log name (TableHealth.explain track.Table health)
            | _ -> ()

            track.SoundAt <- began
        else
            // How far it lags is no news.
            if before <> health && not (before.IsLagging && health.IsLagging) then
                Log.remoteUnhealthy log name (TableHealth.explain track.Table health)

            if not (open'.ContainsKey track.Table) then
                let since = if track.SoundAt.Micros = 0L then began else track.SoundAt
                let! isRecorded = record (gapOf track.Table since ValueNone)

                if isRecorded then
                    open'[track.Table] <- since
    }

    // Two looks at a time could not tell which is the newer one.
    let looking = new SemaphoreSlim(1)

    let lookAlone ct : Task<unit> = task {
        let began = now ()
        let isKnown = ready.IsSome
        let! ids = describeTables ct
        use! answer = server.Ask("SELECT * FROM wal_tables()", ct)
        let line = server.Line

        let states =
            Map.ofList [
                for row in answer.Rows do
                    let get column = answer.Value(row, column)
                    let table = (Catalogue.text (get "name")).ToLowerInvariant()

                    match Map.tryFind table ids with
                    | Some(struct (found, _)) ->
                        table,
                        {
                            Id = found.Id
                            Suspended = Catalogue.isTrue (get "suspended")
                            WriterTxn = Catalogue.number (get "writerTxn")
                            SequencerTxn = Catalogue.number (get "sequencerTxn")
                            ErrorTag = Catalogue.text (get "errorTag")
                            ErrorMessage = Catalogue.text (get "errorMessage")
                        }
                    | None -> ()
            ]

        for track in tracks do
            let state =
                match Map.tryFind track.Table states with
                | Some state -> ValueSome state
                | None -> ValueNone

            let release, applied, lost =
                lock track (fun () ->
                    let struct (settling, lost) = Settling.looked began line state track.Settling

                    // What was taken is not there any more, or may not be: what is still held goes again.
                    match lost with
                    | ValueSome entry ->
                        track.Generation <- track.Generation + 1
                        track.Position <- Position.behind entry
                        track.Wake 1

                        if entry = 0L then
                            forgetServer ()
                    | ValueNone -> ()

                    let struct (settling, release) = Settling.release (now ()) options.Keep settling
                    track.Settling <- settling
                    release, Settling.applied settling, lost)

            // What has to be sent again is not to be forgotten early.
            if applied > 0L || lost.IsSome then
                outbox.IsApplied track.Table applied

            match release with
            | ValueSome upTo -> outbox.Release track.Table upTo
            | ValueNone -> ()

            if isKnown then
                do! judge track state began
    }

    /// Learns how far each table's log has come, and what of it was lost.
    let look (ct: CancellationToken) : Task<unit> = task {
        do! looking.WaitAsync ct

        try
            do! lookAlone ct
        finally
            looking.Release() |> ignore
    }

    // ---- one lane

    let rejected (table: string) (bytes: byte[]) (reason: string) : Rejection = {
        Exchange = "questdb"
        Source = $"questdb/{table}"
        Offset = 0
        Reason = reason
        Bytes = bytes
        Received = now ()
    }

    /// Rows that the server will never take stay here.
    let quarantine (track: Track) (bad: (struct (byte[] * string)) list) : Task<unit> = task {
        if not bad.IsEmpty then
            let batch = Batch()

            for struct (bytes, reason) in bad do
                Log.rowRefused log name track.Table reason

                // A row of the quarantine stands in it already.
                if not track.Lane.IsRejections then
                    batch.Rejections.Add(rejected track.Table bytes reason)

            if batch.RowCount > 0 then
                match! local.Write [| batch |] CancellationToken.None with
                | Ok() -> ()
                | Error fault -> raise (IOException(string fault))
    }

    let mostRows = ValueOption.defaultValue 75_000 connection.AutoFlushRows |> max 1

    let mostBytes =
        min connection.MaxBufferSize (ValueOption.defaultValue 16_777_216 connection.AutoFlushBytes)

    /// Reads and encodes what comes next, if there is anything.
    let prepare
        (track: Track)
        (encoder: RowEncoder)
        (batch: Batch)
        (payload: Payload)
        (position: Position)
        (isLong: bool)
        : struct (Position * Prepared voption) =
        let last = outbox.Last track.Table
        let struct (position, range) = Position.next last isLong position

        match range with
        | ValueNone -> struct (position, ValueNone)
        | ValueSome range ->
            payload.Clear()
            let unfit = List<struct (byte[] * string)>()
            let mutable upTo = range.After
            let mutable more, isFull = true, false

            while more do
                // In pieces, so that a long wait is not read into memory at once.
                match outbox.Read track.Table upTo range.UpTo (min mostRows 5_000) with
                | [] -> more <- false
                | entries ->
                    for entry in entries do
                        if more then
                            try
                                outbox.Open track.Table entry batch

                                let count = Lane.count track.Lane batch

                                let reject index reason =
                                    let shown =
                                        match track.Lane with
                                        | Lane.Trades -> string (batch.Trade index)
                                        | Lane.Books -> string (batch.Book index)
                                        | Lane.Deltas -> string (batch.Delta index)
                                        | Lane.Prices -> string (batch.PricePoint index)
                                        | Lane.Links -> string batch.Links[index]
                                        | Lane.OwnOrders -> string batch.OwnOrders[index]
                                        | Lane.OwnTrades -> string batch.OwnTrades[index]
                                        | Lane.Matches -> string batch.Matches[index]
                                        | Lane.Markets
                                        | Lane.MarketStats -> string batch.Markets[index]
                                        | Lane.Gaps -> string batch.Gaps[index]
                                        | Lane.Rejections -> batch.Rejections[index].Source
                                        | Lane.Metrics -> string batch.Metrics[index]

                                    unfit.Add(struct (Encoding.UTF8.GetBytes shown, reason))

                                encoder.Append(track.Lane, batch, 0, count, payload, reject)
                            with :? InvalidDataException as error ->
                                unfit.Add(
                                    struct (entry.Content.ToArray(),
                                            $"entry {entry.Number} of the outbox is damaged: {error.Message}")
                                )

                            upTo <- entry.Number
                            entry.Free()
                            isFull <- payload.RowCount >= mostRows || payload.Length >= mostBytes
                            more <- not isFull

            struct (position,
                    ValueSome {
                        Payload = payload
                        Range = range
                        // Numbers in between are of other tables, or of entries that were dropped.
                        UpTo = (if isFull then upTo else range.UpTo)
                        IsLong = isFull && upTo < range.UpTo
                        Unfit = List.ofSeq unfit
                    })

    let jitter =
        Random(options.Collector |> Seq.fold (fun sum letter -> sum * 31 + int letter) 7)

    let nextJitter () =
        lock jitter (fun () -> 2.0 * jitter.NextDouble() - 1.0)

    /// Whether a table is still the one that rows are made for: what looks like a bad row may be another table.
    let isAsPrepared (table: string) ct : Task<bool> = task {
        match ready with
        | None -> return false
        | Some known ->
            let! tables = describeTables ct

            match Map.tryFind table tables with
            | None -> return false
            | Some(struct (found, _)) ->
                let! columns = Catalogue.columns server table ct

                let wanted =
                    Tables.all known.Protocol options.Decimals
                    |> List.find (fun one -> one.Name = table)

                let verdict = Schema.compare known.Protocol wanted { found with Columns = columns }

                return
                    verdict.Mend.IsEmpty
                    && verdict.Refusals.IsEmpty
                    && (match Map.tryFind table known.Verdicts with
                        | Some before ->
                            before.LevelsAsText = verdict.LevelsAsText && before.Decimals = verdict.Decimals
                        | None -> false)
    }

    /// Sends a payload to the end: the rows that will never be taken, or why it has to be tried again later.
    let deliver
        (track: Track)
        (generation: int)
        (client: HttpClient)
        (compressed: MemoryStream)
        (prepared: Prepared)
        (isolating: bool)
        (ct: CancellationToken)
        : Task<Result<(struct (byte[] * string)) list, Answer>> = task {
        let payload = prepared.Payload

        let mutable delivery =
            Delivery.start
                (now ())
                connection.RetryTimeout
                connection.RetryMaxBackoff
                isolating
                payload.RowCount

        let mutable step = Delivery.next delivery
        let mutable outcome = ValueNone

        let mutable isVerified = false

        let send (range: RowRange) = task {
            let! heard = task {
                if track.Generation = generation then
                    return! server.Send(client, payload.Slice(range.First, range.Count), compressed, ct)
                else
                    return Answer.Changed
            }

            let! answer = task {
                match heard with
                | Answer.Unreachable _ when track.Generation <> generation -> return Answer.Changed
                | Answer.BadRow _
                | Answer.DoubtfulRow _
                | Answer.Refused _ when not isVerified ->
                    let! isSame = isAsPrepared track.Table ct
                    isVerified <- isSame
                    return if isSame then heard else Answer.Changed
                | _ -> return heard
            }

            let struct (next, following) =
                Delivery.answered (now ()) (nextJitter ()) answer delivery

            delivery <- next
            step <- following
        }

        while outcome.IsNone do
            match step with
            | Step.Send range -> do! send range
            | Step.SendAfter(wait, range) ->
                do! Task.Delay(wait, clock, ct)
                do! send range
            | Step.Done bad ->
                outcome <-
                    ValueSome(
                        Ok [
                            for struct (row, reason) in bad do
                                struct ((payload.Row row).ToArray(), reason)
                        ]
                    )
            | Step.Later answer -> outcome <- ValueSome(Error answer)

        return outcome.Value
    }

    let explain answer =
        let at = $"QuestDB at {server.Address.Authority}"

        match answer with
        | Answer.Unreachable reason -> $"QuestDB cannot be reached ({reason})"
        | Answer.Denied reason
        | Answer.Failing reason
        | Answer.Refused reason
        | Answer.BadRow(_, reason)
        | Answer.DoubtfulRow(_, reason) -> $"{at} takes no rows: {reason}"
        | Answer.Changed -> $"{at} has another table now"
        | Answer.Taken -> ""

    /// Waits until rows should go: there are many, the oldest has waited long enough, or somebody waits for them.
    let gather (track: Track) (ct: CancellationToken) : Task<unit> = task {
        if track.Pending = 0 then
            do! track.Wait(TimeSpan.FromSeconds 1.0, clock, ct)

        let began = clock.GetTimestamp()

        let isWaiting () =
            let limit =
                ValueOption.defaultValue Timeout.InfiniteTimeSpan connection.AutoFlushInterval

            track.Pending > 0
            && track.Pending < mostRows
            && Volatile.Read &flushes = 0
            && (limit < TimeSpan.Zero || clock.GetElapsedTime began < limit)

        while isWaiting () do
            let left =
                match connection.AutoFlushInterval with
                | ValueSome limit -> max (TimeSpan.FromMilliseconds 1.0) (limit - clock.GetElapsedTime began)
                | ValueNone -> TimeSpan.FromSeconds 1.0

            do! track.Wait(left, clock, ct)

        track.TakePending() |> ignore
    }

    let backOff failures =
        TimeSpan.FromSeconds(min 10.0 (0.5 * Math.Pow(2.0, float (min failures 10))))

    let run (track: Track) : Task<unit> = task {
        let ct = stopping.Token

        // A look comes before the first rows, so that what a server lost is not hidden by them.
        let made ct : Task = task {
            let generation = track.Generation
            do! look ct

            if track.Generation <> generation then
                raise (IOException $"what the server had of {track.Table} is sent again")
        }

        let mutable client = server.Connect made
        use compressed = new MemoryStream()
        let payloads = [| Payload(); Payload() |]
        let batch = Batch()
        let mutable encoder: RowEncoder voption = ValueNone
        let mutable preparedBy = 0
        let mutable preparedIn = 0
        let mutable failures = 0
        let mutable isolating = false
        let mutable waiting: Prepared voption = ValueNone
        let mutable isLong = false

        let rest (wait: TimeSpan) = Task.Delay(wait, clock, ct)

        while not ct.IsCancellationRequested do
            try
                let! found = prepareServer ct

                if found.Number <> preparedBy then
                    preparedBy <- found.Number
                    waiting <- ValueNone

                    match Map.tryFind track.Table found.Verdicts with
                    | Some verdict when verdict.Refusals.IsEmpty ->
                        track.Refusal <- ""

                        encoder <-
                            ValueSome(
                                RowEncoder {
                                    Protocol = found.Protocol
                                    Decimals = verdict.Decimals
                                    LevelsAsText = verdict.LevelsAsText
                                    Collector = options.Collector
                                }
                            )
                    | Some verdict ->
                        encoder <- ValueNone
                        track.Refusal <- String.Join("; ", verdict.Refusals)
                        let table = track.Table

                        tellOnce
                            (fun detail -> Log.remoteRefused log name table detail outboxPath)
                            track.Refusal
                    | None -> encoder <- ValueNone

                match encoder with
                | ValueNone ->
                    // Somebody may mend it.
                    do! rest (TimeSpan.FromSeconds 10.0)
                    forgetServer ()
                | ValueSome encoder ->
                    if waiting.IsNone && not isLong then
                        do! gather track ct

                    let struct (generation, position) =
                        lock track (fun () -> struct (track.Generation, track.Position))

                    if generation <> preparedIn then
                        preparedIn <- generation
                        waiting <- ValueNone
                        // NOTE: over a connection that knew a table which was dropped, the first rows of the next one get lost.
                        client.Dispose()
                        client <- server.Connect made

                    if waiting.IsNone then
                        let struct (position, next) =
                            prepare track encoder batch payloads[0] position isLong

                        lock track (fun () ->
                            if track.Generation = generation then
                                track.Position <- position)

                        waiting <- next

                    match waiting with
                    | ValueNone -> isLong <- false
                    | ValueSome current ->
                        let line = server.Line
                        let sending = deliver track generation client compressed current isolating ct
                        // While it is under way, the next one is made, as if all goes well.
                        let ahead = Position.advance current.Range current.UpTo track.Position
                        let isMore = current.IsLong || Position.hasTwoEnds ahead

                        // Never the one that is on its way.
                        let spare =
                            if obj.ReferenceEquals(current.Payload, payloads[0]) then
                                payloads[1]
                            else
                                payloads[0]

                        let struct (position, following) =
                            try
                                if isMore || track.Pending >= mostRows then
                                    prepare track encoder batch spare ahead current.IsLong
                                else
                                    struct (ahead, ValueNone)
                            with _ ->
                                // What is under way is waited for first; then it is tried again, and said.
                                struct (ahead, ValueNone)

                        match! sending with
                        | Ok bad ->
                            do! quarantine track (current.Unfit @ bad)

                            if current.Payload.RowCount > 0 then
                                isBack ()

                            if track.IsFailing then
                                track.IsFailing <- false
                                Log.remoteNote log name $"{track.Table} takes rows again"

                            failures <- 0
                            isolating <- false
                            isLong <- isMore
                            let at = now ()

                            let isSame =
                                lock track (fun () ->
                                    let isSame = track.Generation = generation

                                    if isSame then
                                        track.Position <- position
                                        let taken = Position.taken ahead
                                        track.Settling <- Settling.taken taken at line track.Settling

                                    isSame)

                            waiting <- if isSame then following else ValueNone
                        | Error answer ->
                            failures <- failures + 1

                            isolating <-
                                match answer with
                                | Answer.Failing _ -> failures >= 2
                                | _ -> false

                            match answer with
                            | Answer.Unreachable _
                            | Answer.Denied _ ->
                                isAway (explain answer)
                                forgetServer () // another one may answer next
                            | Answer.Changed -> forgetServer ()
                            | _ when not track.IsFailing ->
                                track.IsFailing <- true
                                Log.remoteAway log $"{explain answer} (table {track.Table})" outboxPath
                            | _ -> ()

                            do! rest (backOff failures)

                            waiting <-
                                match answer with
                                | Answer.Unreachable _
                                | Answer.Denied _ when track.Generation = generation -> waiting
                                // Other tables than it was encoded for; or rows that came meanwhile show whether it is these.
                                | _ -> ValueNone
            with
            | :? OperationCanceledException when ct.IsCancellationRequested -> ()
            | :? QuestDbException as error ->
                failures <- failures + 1
                waiting <- ValueNone
                isAway error.Message

                try
                    do! rest (backOff failures)
                with :? OperationCanceledException ->
                    ()
            | error ->
                // The outbox could not be read or written, or it is a bug of ours: nothing is lost, and it is tried again.
                failures <- failures + 1
                waiting <- ValueNone
                Log.jobCrashed log $"questdb/{track.Table}" error

                try
                    do! rest (backOff failures)
                with :? OperationCanceledException ->
                    ()

        client.Dispose()
    }

    // Somebody waits for what a look tells.
    let lookSoon = Bell()

    let watch () : Task<unit> = task {
        let ct = stopping.Token

        let mutable knowsGaps = false

        /// Those that an earlier run left open.
        let recall () = task {
            if not knowsGaps then
                let! gaps = local.OpenGaps()
                do! looking.WaitAsync ct

                for gap in gaps do
                    if gap.Exchange = questdb then
                        open'.TryAdd(string gap.Market, gap.Since) |> ignore

                looking.Release() |> ignore
                knowsGaps <- true
        }

        try
            while not ct.IsCancellationRequested do
                let wait =
                    if Volatile.Read &flushes > 0 then
                        TimeSpan.FromMilliseconds 20.0
                    else
                        options.LookEvery

                do! lookSoon.Wait(wait, clock, ct)

                try
                    do! recall ()

                    if ready.IsSome then
                        do! look ct
                with
                | :? QuestDbException as error -> isAway error.Message
                | :? OperationCanceledException when ct.IsCancellationRequested -> ()
                | error -> Log.jobCrashed log "questdb/health" error
        with :? OperationCanceledException ->
            ()
    }

    let mutable work: Task = Task.CompletedTask

    member _.Start() =
        if connection.Tls && not connection.TlsVerify then
            Log.remoteUnchecked log name

        work <-
            Task.WhenAll [
                yield Task.Run<unit>(watch) :> Task
                for track in tracks do
                    yield Task.Run<unit>(fun () -> run track) :> Task
            ]

    /// These batches are in the outbox.
    member _.Wake(batches: IReadOnlyList<Batch>) =
        for track in tracks do
            let mutable rows = 0

            for batch in batches do
                rows <- rows + Lane.count track.Lane batch

            if rows > 0 then
                track.Wake rows

    /// Ends when everything that is in the outbox now can be read at the server.
    member _.Flush(ct: CancellationToken) : Task<unit> = task {
        let goals = [
            for track in tracks do
                track.Wake 1
                track, outbox.Last track.Table
        ]

        let each is = task {
            while ready.IsNone
                  || not (
                      goals
                      |> List.forall (fun (track, goal) -> goal = 0L || lock track (fun () -> is track goal))
                  ) do
                do! Task.Delay(TimeSpan.FromMilliseconds 10.0, clock, ct)
        }

        // As long as rows are on their way, looks after them would only hold them up.
        do! each (fun track goal -> Position.taken track.Position >= goal)
        Interlocked.Increment &flushes |> ignore
        lookSoon.Ring()

        try
            do! each (fun track goal -> Settling.applied track.Settling >= goal)
        finally
            Interlocked.Decrement &flushes |> ignore
    }

    /// It takes no rows at present.
    member _.IsAway = away.IsSome

    /// Rows that were not seen at the server yet.
    member _.Unseen: int64 =
        outbox.Waiting()
        |> List.sumBy (fun waiting ->
            match tracks |> List.tryFind (fun track -> track.Table = waiting.Table) with
            | Some track when
                lock track (fun () -> Settling.applied track.Settling)
                >= outbox.Last waiting.Table
                ->
                0L
            | _ -> waiting.Rows)

    /// A sentence for each thing that somebody should know.
    member _.Notes: string list = [
        for track in tracks do
            if track.Refusal <> "" then
                $"{track.Table} is held back: {track.Refusal}"

            if track.Health <> TableHealth.Sound then
                TableHealth.explain track.Table track.Health
    ]

    /// What waits, and what is wrong. A large outbox is not measured more often than every five seconds.
    member this.Backlog() : Backlog =
        lock measured (fun () ->
            let at = now ()

            if Instant.hasPassed (TimeSpan.FromSeconds 5.0) measuredAt at || unseen.IsNone then
                measuredAt <- at

                try
                    unseen <- ValueSome(outbox.Unseen())
                with :? SqliteException ->
                    () // it is written to just now, or closed: what was known stands

            let waiting = unseen |> ValueOption.defaultValue []

            {
                Rows = waiting |> List.sumBy _.Rows
                Bytes = waiting |> List.sumBy _.Bytes
                Since = waiting |> List.map _.Since |> List.sort |> List.tryHead |> ValueOption.ofOption
                Dropped = outbox.Dropped()
                Troubles = [
                    if this.IsAway then
                        $"{name} takes no rows at present"

                    yield! this.Notes
                ]
            })

    /// Stops where it is: what is not at the server waits for the next start.
    member _.StopAsync() : Task<unit> = task {
        stopping.Cancel()
        do! work
        (server :> IDisposable).Dispose()
    }
