/// Rows as they wait for a store that is elsewhere: whole in themselves, with full strings, and in a version of their own, so that
/// whoever reads them later needs nothing else, and no store's way of writing is fixed by them.
///
/// Version 4, all numbers little-endian: the version (1 byte), the exchange (text), the batch's `received` (int64), the names (int32,
/// then texts), the rows (int32, then as below). A text is its length in UTF-8 (int32) and its bytes; a name is its place among the
/// names (int32).
///     trade   market, token, outcome (names), side, source (1 byte each), flags (int32), price, size, at, received (int64),
///             collateral (int64, -1 where it is not known), id (16 bytes, big-endian), transaction (text)
///     book    market, token (names), verdict, doubt, reason (1 byte each), flags, sequence (int32), tick, at, received (int64), hash (text),
///             bids and asks (each: int32, then price and size in int64)
///     delta   market, token (names), side, verdict, doubt (1 byte each), ordinal, sequence (int32), price, size, at, received (int64),
///             hash (text)
///     price   market, token (names), kind (1 byte), price, at, received (int64)
///     metric  name, labels (names), at (int64), value (float64)
/// Version 3, which is still read, had no sequences.
/// Version 2, which is still read, had no prices, and no collateral in its trades.
/// Version 1, which is still read, had no deltas either, and no `received`, doubt and reason in its rows: they were received when the batch
/// was, doubts were not told of, and every book was polled.
[<RequireQualifiedAccess>]
module internal Tributary.Stores.Neutral

open System
open System.Buffers.Binary
open System.Collections.Generic
open System.IO
open System.Text
open Tributary

[<Literal>]
let Version = 4uy

/// A growing run of bytes, used again and again.
[<Sealed>]
type Sink() =
    let mutable bytes: byte[] = Array.zeroCreate 65_536
    let mutable length = 0

    member _.Room(count: int) : Span<byte> =
        if length + count > bytes.Length then
            Array.Resize(&bytes, max (length + count) (bytes.Length * 2))

        let room = Span(bytes, length, count)
        length <- length + count
        room

    member this.Byte(value: byte) = (this.Room 1)[0] <- value

    member this.Int32(value: int) =
        BinaryPrimitives.WriteInt32LittleEndian(this.Room 4, value)

    member this.Int64(value: int64) =
        BinaryPrimitives.WriteInt64LittleEndian(this.Room 8, value)

    member this.Float(value: float) =
        BinaryPrimitives.WriteDoubleLittleEndian(this.Room 8, value)

    member this.Text(utf8: ReadOnlySpan<byte>) =
        this.Int32 utf8.Length
        utf8.CopyTo(this.Room utf8.Length)

    member _.Written: ReadOnlySpan<byte> = ReadOnlySpan(bytes, 0, length)
    member _.Clear() = length <- 0

/// Writes rows of batches in the newest version. One user at a time; an answer is valid until the next one.
[<Sealed>]
type Writer() =
    let head, rows = Sink(), Sink()
    // The place of each name, by its key in the batch's `Names`.
    let places = Dictionary<int, int>()
    let names = List<Name>()

    let place (name: Name) =
        match places.TryGetValue name.Key with
        | true, place -> place
        | _ ->
            let place = names.Count
            places[name.Key] <- place
            names.Add name
            place

    let finish (batch: Batch) count : ReadOnlySpan<byte> =
        head.Clear()
        head.Byte Version
        head.Text(ReadOnlySpan(Encoding.UTF8.GetBytes batch.Exchange))
        head.Int64 batch.Received.Micros
        head.Int32 names.Count

        for name in names do
            head.Text(ReadOnlySpan(batch.Names.Utf8 name))

        head.Int32 count
        let written = rows.Written
        written.CopyTo(head.Room written.Length)
        head.Written

    let start () =
        rows.Clear()
        names.Clear()
        places.Clear()

    let levels (side: Span<Level>) =
        rows.Int32 side.Length

        for i in 0 .. side.Length - 1 do
            rows.Int64 side[i].Price.Millionths
            rows.Int64 side[i].Size.Millionths

    /// The trades that are marked as inserted, of which there are so many.
    member _.Trades(batch: Batch, count: int) : ReadOnlySpan<byte> =
        start ()

        for i in 0 .. batch.Trades.Count - 1 do
            let row = &batch.Trades[i]

            if row.Inserted then
                rows.Int32(place row.Market)
                rows.Int32(place row.Token)
                rows.Int32(place row.Outcome)
                rows.Byte(byte row.Side)
                rows.Byte(byte row.Source)
                rows.Int32(int row.Flags)
                rows.Int64 row.Price.Millionths
                rows.Int64 row.Size.Millionths
                rows.Int64 row.At.Micros
                rows.Int64 row.Received.Micros

                rows.Int64(
                    match row.Collateral with
                    | ValueSome amount -> amount.Millionths
                    | ValueNone -> -1L
                )

                BinaryPrimitives.WriteUInt64BigEndian(rows.Room 8, row.Id.High)
                BinaryPrimitives.WriteUInt64BigEndian(rows.Room 8, row.Id.Low)
                rows.Text(batch.Utf8 row.Transaction)

        finish batch count

    /// The books that are marked as inserted, of which there are so many.
    member _.Books(batch: Batch, count: int) : ReadOnlySpan<byte> =
        start ()

        for i in 0 .. batch.Books.Count - 1 do
            let row = &batch.Books[i]

            if row.Inserted then
                rows.Int32(place row.Market)
                rows.Int32(place row.Token)
                rows.Byte(byte row.Verdict)
                rows.Byte(byte row.Doubt)
                rows.Byte(byte row.Reason)
                rows.Int32(int row.Flags)
                rows.Int32 row.Sequence
                rows.Int64 row.Tick.Millionths
                rows.Int64 row.At.Micros
                rows.Int64 row.Received.Micros
                rows.Text(batch.Utf8 row.Hash)
                levels (batch.Levels.Slice(row.FirstBid, row.BidCount))
                levels (batch.Levels.Slice(row.FirstAsk, row.AskCount))

        finish batch count

    /// The deltas that are marked as inserted, of which there are so many.
    member _.Deltas(batch: Batch, count: int) : ReadOnlySpan<byte> =
        start ()

        for i in 0 .. batch.Deltas.Count - 1 do
            let row = &batch.Deltas[i]

            if row.Inserted then
                rows.Int32(place row.Market)
                rows.Int32(place row.Token)
                rows.Byte(byte row.Side)
                rows.Byte(byte row.Verdict)
                rows.Byte(byte row.Doubt)
                rows.Int32 row.Ordinal
                rows.Int32 row.Sequence
                rows.Int64 row.Price.Millionths
                rows.Int64 row.Size.Millionths
                rows.Int64 row.At.Micros
                rows.Int64 row.Received.Micros
                rows.Text(batch.Utf8 row.Hash)

        finish batch count

    /// The prices that are marked as inserted, of which there are so many.
    member _.Prices(batch: Batch, count: int) : ReadOnlySpan<byte> =
        start ()

        for i in 0 .. batch.Prices.Count - 1 do
            let row = &batch.Prices[i]

            if row.Inserted then
                rows.Int32(place row.Market)
                rows.Int32(place row.Token)
                rows.Byte(byte row.Kind)
                rows.Int64 row.Price.Millionths
                rows.Int64 row.At.Micros
                rows.Int64 row.Received.Micros

        finish batch count

    member _.Metrics(batch: Batch) : ReadOnlySpan<byte> =
        start ()

        for metric in batch.Metrics do
            rows.Int32(place (batch.Names.Intern metric.Name))
            rows.Int32(place (batch.Names.Intern metric.Labels))
            rows.Int64 metric.At.Micros
            rows.Float metric.Value

        finish batch batch.Metrics.Count

let private nowhere: Slice = { Start = 0; Length = 0 }

let private sizeOf millionths =
    match Size.tryOfMillionths millionths with
    | ValueSome size -> size
    | ValueNone -> raise (InvalidDataException "a negative size")

/// A cursor over an entry.
[<Sealed>]
type Cursor(bytes: ReadOnlyMemory<byte>) =
    let mutable at = 0

    member _.Rest = bytes.Length - at

    member _.Take(count: int) : ReadOnlySpan<byte> =
        // A count that damage made up is out of range here, and nobody reads beyond the entry.
        let taken = bytes.Span.Slice(at, count)
        at <- at + count
        taken

    member this.Byte() = (this.Take 1)[0]

    member this.Int32() =
        BinaryPrimitives.ReadInt32LittleEndian(this.Take 4)

    member this.Int64() =
        BinaryPrimitives.ReadInt64LittleEndian(this.Take 8)

    member this.Float() =
        BinaryPrimitives.ReadDoubleLittleEndian(this.Take 8)

    member this.Text() : ReadOnlySpan<byte> = this.Take(this.Int32())

    /// How many things follow that take so many bytes each, or more: never more than there is room for.
    member this.Count(least: int) =
        let count = this.Int32()

        if count < 0 || int64 count * int64 least > int64 this.Rest then
            raise (InvalidDataException "a count of more than there is")

        count

    member this.TradeId() : TradeId =
        let id = this.Take 16

        {
            High = BinaryPrimitives.ReadUInt64BigEndian id
            Low = BinaryPrimitives.ReadUInt64BigEndian(id.Slice 8)
        }

    member this.Size() = sizeOf (this.Int64())

    /// Levels onto the batch's; answers how many.
    member this.Levels(batch: Batch) =
        let count = this.Count 16
        // Hot: a hundred of them in a book, so the cursor moves over all of them at once.
        let levels = this.Take(16 * count)

        for i in 0 .. count - 1 do
            let pair = levels.Slice(16 * i, 16)

            let level: Level = {
                Price = Price.ofMillionths (BinaryPrimitives.ReadInt64LittleEndian pair)
                Size = sizeOf (BinaryPrimitives.ReadInt64LittleEndian(pair.Slice 8))
            }

            batch.Levels.Add &level

        count

/// Works on an entry; what is not as it was written is an `InvalidDataException`.
let damages (work: unit -> unit) =
    try
        work ()
    with
    | :? ArgumentException
    | :? IndexOutOfRangeException -> raise (InvalidDataException "it ends too early")

let private oneOf (most: byte) what (value: byte) =
    if value > most then
        raise (InvalidDataException $"no {what} is {value}")

    value

let private side (source: Cursor) : Side =
    LanguagePrimitives.EnumOfValue(oneOf 1uy "side" (source.Byte()))

let private verdict (source: Cursor) : Verdict =
    LanguagePrimitives.EnumOfValue(oneOf 2uy "verdict" (source.Byte()))

let private doubt (source: Cursor) : Doubt =
    LanguagePrimitives.EnumOfValue(oneOf (byte (Doubt.all.Length - 1)) "doubt" (source.Byte()))

let private kind (source: Cursor) : PriceKind =
    LanguagePrimitives.EnumOfValue(oneOf (byte (PriceKind.all.Length - 1)) "kind" (source.Byte()))

let private reason (source: Cursor) : Reason =
    LanguagePrimitives.EnumOfValue(oneOf (byte (Reason.all.Length - 1)) "reason" (source.Byte()))

/// The head into the batch, which is cleared; then each of the rows, of so many bytes or more. It is told the entry's version.
let private read (bytes: ReadOnlyMemory<byte>) (batch: Batch) least (row: byte -> Cursor -> Name[] -> unit) =
    damages (fun () ->
        let source = Cursor bytes

        let version = source.Byte()

        if version = 0uy then
            raise (InvalidDataException "version 0, which there never was")
        elif version > Version then
            raise (InvalidDataException $"version {version}, of a later Tributary")

        batch.Clear()
        batch.Exchange <- Encoding.UTF8.GetString(source.Text())
        batch.Received <- Instant.ofMicros (source.Int64())
        let names = Array.init (source.Count 4) (fun _ -> batch.Names.Intern(source.Text()))

        for _ in 1 .. source.Count least do
            row version source names

        if source.Rest > 0 then
            raise (InvalidDataException "it ends too late"))

let private receivedIn version (source: Cursor) (batch: Batch) : Instant =
    if version = 1uy then
        batch.Received
    else
        Instant.ofMicros (source.Int64())

/// What `Writer.Trades` wrote, as the batch's only rows. An `InvalidDataException` says what is damaged.
let readTrades (bytes: ReadOnlyMemory<byte>) (batch: Batch) =
    read bytes batch 62 (fun version source names ->
        let market = names[source.Int32()]
        let token = names[source.Int32()]
        let outcome = names[source.Int32()]
        let side = side source

        let origin: Source =
            LanguagePrimitives.EnumOfValue(oneOf 2uy "source" (source.Byte()))

        let flags = enum (source.Int32())
        let price = Price.ofMillionths (source.Int64())
        let size = source.Size()
        let at = Instant.ofMicros (source.Int64())
        let received = receivedIn version source batch

        let collateral =
            if version < 3uy then
                ValueNone
            else
                match source.Int64() with
                | -1L -> ValueNone
                | amount -> ValueSome(sizeOf amount)

        let id = source.TradeId()

        let row: TradeRow = {
            Market = market
            Token = token
            Outcome = outcome
            Side = side
            Source = origin
            Price = price
            Size = size
            At = at
            Received = received
            Transaction = batch.Keep(source.Text())
            Wallet = nowhere
            Flags = flags
            Occurrence = 0
            Collateral = collateral
            Id = id
            Inserted = true
        }

        batch.Trades.Add &row
        let origin = nowhere
        batch.TradeOrigins.Add &origin)

/// What `Writer.Books` wrote, as the batch's only rows.
let readBooks (bytes: ReadOnlyMemory<byte>) (batch: Batch) =
    read bytes batch 41 (fun version source names ->
        let market = names[source.Int32()]
        let token = names[source.Int32()]
        let verdict = verdict source
        let doubt = if version = 1uy then Doubt.None else doubt source
        let reason = if version = 1uy then Reason.Poll else reason source
        let flags = enum (source.Int32())
        let sequence = if version < 4uy then 0 else source.Int32()
        let tick = Price.ofMillionths (source.Int64())
        let at = Instant.ofMicros (source.Int64())
        let received = receivedIn version source batch
        let hash = batch.Keep(source.Text())
        let firstBid = batch.Levels.Count
        let bids = source.Levels batch
        let firstAsk = batch.Levels.Count
        let asks = source.Levels batch

        let row: BookRow = {
            Market = market
            Token = token
            At = at
            Received = received
            FirstBid = firstBid
            BidCount = bids
            FirstAsk = firstAsk
            AskCount = asks
            Hash = hash
            Tick = tick
            LastTrade = { Start = 0; Length = -1 }
            Sequence = sequence
            Verdict = verdict
            Doubt = doubt
            Reason = reason
            Flags = flags
            Inserted = true
        }

        batch.Books.Add &row
        let origin = nowhere
        batch.BookOrigins.Add &origin)

/// What `Writer.Deltas` wrote, as the batch's only rows.
let readDeltas (bytes: ReadOnlyMemory<byte>) (batch: Batch) =
    read bytes batch 51 (fun version source names ->
        if version = 1uy then
            raise (InvalidDataException "version 1, which had no deltas")

        let market = names[source.Int32()]
        let token = names[source.Int32()]
        let side = side source
        let verdict = verdict source
        let doubt = doubt source
        let ordinal = source.Int32()
        let sequence = if version < 4uy then 0 else source.Int32()
        let price = Price.ofMillionths (source.Int64())
        let size = source.Size()
        let at = Instant.ofMicros (source.Int64())
        let received = Instant.ofMicros (source.Int64())

        let row: DeltaRow = {
            Market = market
            Token = token
            At = at
            Received = received
            Ordinal = ordinal
            Sequence = sequence
            Side = side
            Price = price
            Size = size
            Hash = batch.Keep(source.Text())
            Verdict = verdict
            Doubt = doubt
            Inserted = true
        }

        batch.Deltas.Add &row)

/// What `Writer.Prices` wrote, as the batch's only rows.
let readPrices (bytes: ReadOnlyMemory<byte>) (batch: Batch) =
    read bytes batch 33 (fun version source names ->
        if version < 3uy then
            raise (InvalidDataException $"version {version}, which had no prices")

        let market = names[source.Int32()]
        let token = names[source.Int32()]
        let kind = kind source
        let price = Price.ofMillionths (source.Int64())
        let at = Instant.ofMicros (source.Int64())

        let row: PriceRow = {
            Market = market
            Token = token
            At = at
            Received = Instant.ofMicros (source.Int64())
            Kind = kind
            Price = price
            Inserted = true
        }

        batch.Prices.Add &row)

/// What `Writer.Metrics` wrote, as the batch's only rows.
let readMetrics (bytes: ReadOnlyMemory<byte>) (batch: Batch) =
    read bytes batch 24 (fun _ source names ->
        let name = batch.Names.Text names[source.Int32()]
        let labels = batch.Names.Text names[source.Int32()]

        batch.Metrics.Add {
            Name = name
            Labels = labels
            At = Instant.ofMicros (source.Int64())
            Value = source.Float()
        })
