namespace Tributary

open System
open System.Collections.Generic
open System.IO
open System.IO.Compression
open System.Runtime.InteropServices
open System.Text
open Tributary.Exchanges

/// What became of a recorded value.
[<RequireQualifiedAccess>]
type RecordingClass =
    /// Rows were read from it.
    | Decoded
    /// Known, but nothing that is collected.
    | Recognised
    /// Neither: the reasons say why.
    | Failed

    override this.ToString() =
        match this with
        | Decoded -> "decoded"
        | Recognised -> "recognised"
        | Failed -> "failed"

/// Why something could not be read, and where it stands: `file:line`, or `file@byte` in a file that is not read by lines.
type RecordingReason = { Place: string; Text: string }

/// The values of one kind in one file.
type Finding = {
    File: string
    /// Empty when it is of no known exchange.
    Exchange: string
    /// Such as `book`, `gamma market in 'raw'`, `last_trade_price`; `file` when the file itself could not be read.
    Kind: string
    Class: RecordingClass
    Count: int64
    Rows: int64
    /// Books by the verdict on their hash.
    Verified: int64
    Mismatched: int64
    Unverifiable: int64
    /// The first few.
    Reasons: RecordingReason list
}

type RecordingReport = {
    Files: int
    /// In the order of the files, and within one in the order of appearance.
    Findings: Finding list
}

/// Counts that grow while a file is read.
[<Sealed>]
type private Tally(file: string, exchange: string, kind: string, outcome: RecordingClass) =
    /// Enough to see what is wrong; a file can hold a million failures.
    static let mostReasons = 5
    let reasons = List<RecordingReason>()
    member val Count = 0L with get, set
    member val Rows = 0L with get, set
    member val Verified = 0L with get, set
    member val Mismatched = 0L with get, set
    member val Unverifiable = 0L with get, set

    member _.Because(reason: RecordingReason) =
        if reasons.Count < mostReasons then
            reasons.Add reason

    member this.Finding: Finding = {
        File = file
        Exchange = exchange
        Kind = kind
        Class = outcome
        Count = this.Count
        Rows = this.Rows
        Verified = this.Verified
        Mismatched = this.Mismatched
        Unverifiable = this.Unverifiable
        Reasons = List.ofSeq reasons
    }

/// Reads recordings of any exchange's payloads: what they are is judged by their shape. Files of JSON lines are read line by
/// line, so their size does not matter. Nothing that a file holds makes it throw.
[<RequireQualifiedAccess>]
module Recordings =
    /// The longest line, and the largest file that is read whole. Exchanges send frames of 32 MB.
    let private longestLine, largestFile = 64 <<< 20, 512 <<< 20

    /// Wrappers in wrappers beyond this are no recordings.
    let private deepest = 8

    let private collectors =
        Registry.all |> List.map (fun (_, make) -> make Registry.defaultOptions)

    let private recognise json =
        match Shapes.recognise collectors json with
        | ValueSome(struct (collector, shape)) -> Some(collector, shape)
        | ValueNone -> None

    /// One file: where its values stand, what was counted of them, and the group of trades that its last value may have cut.
    [<Sealed>]
    type private Reading(file: string, names: Names, onEvent: MarketEvent -> unit) =
        let batch = Batch names
        let tallies = Dictionary<struct (string * string * RecordingClass), Tally>()
        let order = List<Tally>()
        let mutable carry = Trades.noCarry

        let tally exchange kind outcome =
            match tallies.TryGetValue(struct (exchange, kind, outcome)) with
            | true, known -> known
            | _ ->
                let fresh = Tally(file, exchange, kind, outcome)
                tallies[struct (exchange, kind, outcome)] <- fresh
                order.Add fresh
                fresh

        let fail exchange kind reason =
            let failed = tally exchange kind RecordingClass.Failed
            failed.Count <- failed.Count + 1L
            failed.Because reason

        let decode (collector: Collector) kind walk (place: int -> string) (json: ReadOnlyMemory<byte>) =
            let exchange = string collector.Exchange
            let trades, books = batch.Trades.Count, batch.Books.Count
            let deltas = batch.Deltas.Count
            let markets, rejections = batch.Markets.Count, batch.Rejections.Count

            let request: Request = {
                Endpoint = "recording"
                Host = ""
                Path = file
                Body = ValueNone
                Walk = walk
            }

            let decoded = collector.Decode request json (Instant.ofMicros 0L) batch

            let rows =
                batch.Trades.Count - trades + batch.Books.Count - books + batch.Deltas.Count
                - deltas
                + batch.Markets.Count
                - markets

            for i in rejections .. batch.Rejections.Count - 1 do
                let rejection = batch.Rejections[i]

                fail exchange kind {
                    Place = place rejection.Offset
                    Text = rejection.Reason
                }

            match decoded.Fault with
            | ValueSome(Fault.Undecodable(offset, reason)) ->
                fail exchange kind { Place = place offset; Text = reason }
            | ValueSome fault ->
                fail exchange kind {
                    Place = place 0
                    Text = Fault.explain fault
                }
            | ValueNone -> ()

            if rows > 0 || decoded.Fault.IsNone && batch.Rejections.Count = rejections then
                let good = tally exchange kind RecordingClass.Decoded
                good.Count <- good.Count + 1L
                good.Rows <- good.Rows + int64 rows

                for note in decoded.Notes do
                    good.Because { Place = place 0; Text = note }

                for i in books .. batch.Books.Count - 1 do
                    match batch.Books[i].Verdict with
                    | Verdict.Verified -> good.Verified <- good.Verified + 1L
                    | Verdict.Mismatched -> good.Mismatched <- good.Mismatched + 1L
                    | _ -> good.Unverifiable <- good.Unverifiable + 1L

        /// Answers whether it is one row that stands by itself, and not a page of rows.
        let rec judge depth wrapper (place: int -> string) (json: ReadOnlyMemory<byte>) : bool =
            let named kind =
                if wrapper = "" then kind else $"{kind} in {wrapper}"

            match (if depth > deepest then None else recognise json) with
            | Some(collector, Shape.Rows(kind, walk)) ->
                decode collector (named kind) walk place json

                match walk with
                | Walk.Trades(_, state) -> state.Route.StartsWith "rows"
                | _ -> true
            | Some(collector, Shape.Recognised kind) ->
                let known = tally (string collector.Exchange) (named kind) RecordingClass.Recognised
                known.Count <- known.Count + 1L
                true
            | Some(_, Shape.Holds(within, values)) ->
                let wrapper = if within = "list" then wrapper else within

                for value in values do
                    judge (depth + 1) wrapper (inside json place value) value |> ignore

                within <> "list"
            | None ->
                fail "" "unknown" {
                    Place = place 0
                    Text = "of no known shape"
                }

                true

        /// The place of a part: behind the whole's own, unless it is a text whose escapes were undone.
        and inside (whole: ReadOnlyMemory<byte>) (place: int -> string) (part: ReadOnlyMemory<byte>) =
            match MemoryMarshal.TryGetArray whole, MemoryMarshal.TryGetArray part with
            | (true, a), (true, b) when Object.ReferenceEquals(a.Array, b.Array) ->
                let offset = b.Offset - a.Offset
                fun further -> place (offset + further)
            | _ -> fun _ -> place 0

        let emit () =
            for i in 0 .. batch.Trades.Count - 1 do
                onEvent (MarketEvent.Trade(batch.Trade i))

            for i in 0 .. batch.Books.Count - 1 do
                onEvent (MarketEvent.Book(batch.Book i))

            for i in 0 .. batch.Deltas.Count - 1 do
                onEvent (MarketEvent.Delta(batch.Delta i))

            for market in batch.Markets do
                onEvent (MarketEvent.Market market)

            batch.Clear()

        member _.Fail(place, text) =
            fail "" "file" { Place = place; Text = text }

        member _.IsEmpty = order.Count = 0
        member _.Findings = order |> Seq.map _.Finding |> List.ofSeq

        /// One value of the file.
        member _.Value (place: int -> string) (json: ReadOnlyMemory<byte>) =
            if not (Unicode.Utf8.IsValid json.Span) then
                fail "" "unknown" {
                    Place = place 0
                    Text = "not valid UTF-8"
                }
            else
                let isRow = judge 0 "" place json

                if batch.Trades.Count > 0 then
                    // Rows by themselves are one reading of their file; each page or list is a reading of its own.
                    if isRow then
                        carry <- Trades.number carry batch
                    else
                        Trades.number Trades.noCarry batch |> ignore

                emit ()

        /// A line that is not JSON.
        member _.Word (place: int -> string) (line: ReadOnlyMemory<byte>) =
            match Encoding.UTF8.GetString(line.Span).Trim() with
            | "PONG"
            | "PING"
            | "pong"
            | "ping" ->
                let known = tally "" "keep-alive" RecordingClass.Recognised
                known.Count <- known.Count + 1L
            | _ ->
                fail "" "unknown" {
                    Place = place 0
                    Text = "the JSON breaks off or is malformed"
                }

    /// The values that stand one after the other in these bytes. Behind one that is malformed it goes on at the next line that
    /// begins like one (or like PONG).
    let private values (reading: Reading) (place: int -> string) (json: ReadOnlyMemory<byte>) =
        let mutable at = 0

        /// The elements of a list that breaks off, up to there.
        let salvage from =
            let mutable inside = from + 1
            let mutable first, ok = true, true

            while ok && Json.element json.Span &inside &first &ok do
                Json.space json.Span &inside
                let start = inside
                ok <- Json.skip json.Span &inside

                if ok then
                    reading.Value (fun further -> place (start + further)) (json.Slice(start, inside - start))

        let endOfLine from =
            match json.Span.Slice(from).IndexOf '\n'B with
            | -1 -> json.Length
            | length -> from + length + 1

        let isStart at =
            at >= json.Length || "{[P".Contains(char json.Span[at])

        Json.space json.Span &at

        while at < json.Length do
            let start = at
            let here further = place (start + further)

            if Json.skip json.Span &at then
                reading.Value here (json.Slice(start, at - start))
            else
                if json.Span[start] = '['B then
                    salvage start

                at <- endOfLine start
                reading.Word here (json.Slice(start, at - start))

                while not (isStart at) do
                    at <- endOfLine at

            Json.space json.Span &at

    let private isUtf16 (bytes: ReadOnlySpan<byte>) =
        bytes.Length >= 2
        && (bytes[0] = 0xFFuy && bytes[1] = 0xFEuy || bytes[0] = 0xFEuy && bytes[1] = 0xFFuy)

    let private withoutMark (bytes: ReadOnlyMemory<byte>) =
        let span = bytes.Span

        if span.Length >= 3 && span[0] = 0xEFuy && span[1] = 0xBBuy && span[2] = 0xBFuy then
            bytes.Slice 3
        else
            bytes

    let private byLines (reading: Reading) (file: string) (stream: Stream) =
        let mutable buffer: byte[] = Array.zeroCreate 65_536
        let mutable filled, number, more, skipping = 0, 1L, true, false

        let take start length =
            let place =
                let number = number
                fun _ -> $"{file}:{number}"

            if skipping then
                skipping <- false
            else
                let line = ReadOnlyMemory(buffer, start, length)
                values reading place (if number = 1L then withoutMark line else line)

            number <- number + 1L

        while more do
            let read = stream.Read(buffer, filled, buffer.Length - filled)
            more <- read > 0
            let mutable searched, start = filled, 0
            filled <- filled + read

            if number = 1L && isUtf16 (ReadOnlySpan(buffer, 0, filled)) then
                reading.Fail(file, "the file is UTF-16; UTF-8 is read")
                more <- false
                filled <- 0

            let mutable next = ReadOnlySpan(buffer, searched, filled - searched).IndexOf '\n'B

            while next >= 0 do
                take start (searched + next - start)
                start <- searched + next + 1
                searched <- start
                next <- ReadOnlySpan(buffer, searched, filled - searched).IndexOf '\n'B

            if start > 0 then
                Buffer.BlockCopy(buffer, start, buffer, 0, filled - start)
                filled <- filled - start
            elif filled = buffer.Length && filled >= longestLine then
                if not skipping then
                    reading.Fail($"{file}:{number}", $"the line is longer than {longestLine >>> 20} MB")

                skipping <- true
                filled <- 0
            elif filled = buffer.Length then
                Array.Resize(&buffer, filled * 2)

        if filled > 0 then
            take 0 filled

    let private whole (reading: Reading) (file: string) (stream: Stream) =
        use memory = new MemoryStream()
        let buffer: byte[] = Array.zeroCreate 65_536
        let mutable read = stream.Read(buffer, 0, buffer.Length)

        while read > 0 && memory.Length + int64 read <= int64 largestFile do
            memory.Write(buffer, 0, read)
            read <- stream.Read(buffer, 0, buffer.Length)

        if read > 0 then
            reading.Fail(
                file,
                $"the file is larger than {largestFile >>> 20} MB; as JSON lines (.jsonl) it could be read"
            )
        else
            let json = ReadOnlyMemory(memory.GetBuffer(), 0, int memory.Length)

            if isUtf16 json.Span then
                reading.Fail(file, "the file is UTF-16; UTF-8 is read")
            else
                let content = withoutMark json
                let mark = json.Length - content.Length
                values reading (fun offset -> $"{file}@{mark + offset}") content

    /// .NET takes a gzip stream that was cut for one that has ended. The length that its trailer states tells them apart, unless
    /// several streams follow each other in one file: then nobody can tell.
    let private isCut (source: FileStream) (length: int64) =
        let buffer: byte[] = Array.zeroCreate 65_536
        source.Position <- source.Length - 4L
        source.ReadExactly(buffer, 0, 4)
        let stated = BitConverter.ToUInt32(buffer, 0)

        // A header: its magic, deflate, known flags, and a plausible level.
        let isHeader at =
            buffer[at] = 0x1Fuy
            && buffer[at + 1] = 0x8Buy
            && buffer[at + 2] = 8uy
            && buffer[at + 3] < 32uy
            && (buffer[at + 8] = 0uy || buffer[at + 8] = 2uy || buffer[at + 8] = 4uy)

        let rec hasHeader (start: int64) =
            source.Position <- start

            let read =
                source.ReadAtLeast(Span buffer, buffer.Length, throwOnEndOfStream = false)

            Seq.exists isHeader (seq { 0 .. read - 9 })
            || read = buffer.Length && hasHeader (start + int64 (read - 8))

        stated <> uint32 length && not (hasHeader 1L)

    /// Counts what is read through it.
    [<Sealed>]
    type private Counting(inner: Stream) =
        inherit Stream()
        member val Total = 0L with get, set
        member val Ended = false with get, set
        override _.CanRead = true
        override _.CanSeek = false
        override _.CanWrite = false
        override _.Length = raise (NotSupportedException())

        override _.Position
            with get () = raise (NotSupportedException())
            and set _ = raise (NotSupportedException())

        override _.Flush() = ()
        override _.Seek(_, _) = raise (NotSupportedException())
        override _.SetLength _ = raise (NotSupportedException())
        override _.Write(_: byte[], _: int, _: int) = raise (NotSupportedException())

        override this.Read(buffer: byte[], offset: int, count: int) =
            let read = inner.Read(buffer, offset, count)
            this.Total <- this.Total + int64 read
            this.Ended <- (read = 0)
            read

    let private stem (path: string) =
        if path.EndsWith(".gz", StringComparison.OrdinalIgnoreCase) then
            path[.. path.Length - 4]
        else
            path

    let private isJson (path: string) =
        (stem path).EndsWith(".json", StringComparison.OrdinalIgnoreCase)

    let private isRecording (path: string) =
        isJson path
        || (stem path).EndsWith(".jsonl", StringComparison.OrdinalIgnoreCase)
        || (stem path).EndsWith(".ndjson", StringComparison.OrdinalIgnoreCase)

    let private readFile (reading: Reading) (file: string) =
        try
            use source =
                new FileStream(file, FileMode.Open, FileAccess.Read, FileShare.ReadWrite ||| FileShare.Delete)

            let magic = [| source.ReadByte(); source.ReadByte() |]
            source.Position <- 0L
            let isGzip = magic = [| 0x1F; 0x8B |]

            if magic[0] < 0 then
                reading.Fail(file, "the file is empty")
            elif file.EndsWith(".gz", StringComparison.OrdinalIgnoreCase) && not isGzip then
                reading.Fail(file, "the file is named .gz and is not gzip")
            else
                let read (stream: Stream) =
                    if isJson file then
                        whole reading file stream
                    else
                        byLines reading file stream

                if isGzip then
                    use plain = new GZipStream(source, CompressionMode.Decompress, leaveOpen = true)
                    use counted = new Counting(plain)
                    read counted

                    if counted.Ended && isCut source counted.Total then
                        reading.Fail(file, "the gzip data is cut short")
                else
                    read source

                if reading.IsEmpty then
                    reading.Fail(file, "the file holds no value")
        with
        | :? InvalidDataException -> reading.Fail(file, "the gzip data is damaged")
        | :? IOException
        | :? UnauthorizedAccessException as error -> reading.Fail(file, error.Message)

    /// The recordings that a path means: itself, or all below it in the order of their names.
    let private filesOf (path: string) =
        if Directory.Exists path then
            Directory.EnumerateFiles(path, "*", EnumerationOptions(RecurseSubdirectories = true))
            |> Seq.filter isRecording
            |> Seq.sortWith (fun a b -> String.CompareOrdinal(a, b))
            |> List.ofSeq
        else
            [ path ]

    /// Reads files, and folders with all their files of `.json`, `.jsonl`, `.ndjson` and their `.gz`; hands every row on as an event,
    /// in order; answers what was found. Files of other names are read as lines. Recordings do not say when they were
    /// received, so `Received` is 1970-01-01 in all events.
    let read (paths: string list) (onEvent: MarketEvent -> unit) : RecordingReport =
        let names = Names()
        let files = paths |> List.collect filesOf

        {
            Files = files.Length
            Findings =
                files
                |> List.collect (fun file ->
                    let reading = Reading(file, names, onEvent)
                    readFile reading file
                    reading.Findings)
        }
