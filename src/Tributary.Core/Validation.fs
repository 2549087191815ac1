namespace Tributary

open System
open System.Collections.Generic

/// What a believable event looks like: the configured limits.
type Rules = {
    /// A trade below this price is flagged `OutOfBounds` (and kept).
    MinPrice: Price
    /// A trade above this price is flagged `OutOfBounds` (and kept).
    MaxPrice: Price
    /// A trade older than this is flagged `Old` in a live follow; a book whose last change is older is flagged `Stale`.
    MaxAge: TimeSpan
    /// A trade further in the future than this is an error; less far is flagged `Future`.
    MaxFuture: TimeSpan
}

/// What is wrong with a row: it is not stored as data but quarantined.
[<RequireQualifiedAccess>]
type RuleError =
    | None = 0
    | PriceOutside = 1
    | SizeNotPositive = 2
    | FarFuture = 3

/// Trade ids seen lately: up to a number, the oldest forgotten first. A repeat is ordinary (every follow re-reads a window), so
/// it is counted and not an error.
[<Sealed>]
type Repeats(capacity: int) =
    let seen = HashSet<TradeId>(capacity)
    let ring: TradeId[] = Array.zeroCreate (max 1 capacity)
    let mutable next = 0

    /// Remembers an id; false when it was remembered already.
    member _.Remember(id: TradeId) =
        if seen.Contains id then
            false
        else
            if seen.Count = ring.Length then
                seen.Remove ring[next] |> ignore

            ring[next] <- id
            next <- (next + 1) % ring.Length
            seen.Add id

    member _.Knows(id: TradeId) = seen.Contains id
    member _.Count = seen.Count

// Moments and prices are compared by their numbers: comparing the structs would box them, row by row.

/// Judges rows. An error keeps a row out of the data sets (it is quarantined), a flag stays with the stored row; both are counted.
[<RequireQualifiedAccess>]
module Validation =
    let defaults: Rules = {
        MinPrice = Price.ofMillionths 1_000L
        MaxPrice = Price.ofMillionths 999_000L
        MaxAge = TimeSpan.FromHours 24.0
        MaxFuture = TimeSpan.FromMinutes 5.0
    }

    let explain error =
        match error with
        | RuleError.PriceOutside -> "the price lies outside 0 to 1"
        | RuleError.SizeNotPositive -> "the size is not above zero"
        | RuleError.FarFuture -> "the time lies in the far future"
        | _ -> ""

    let private rules =
        Enum.GetValues<RuleError>()
        |> Seq.filter ((<>) RuleError.None)
        |> Seq.map (fun error -> explain error, string error)
        |> dict

    /// The rule that a row was rejected by, from the reason that its rejection gives; nothing when it was rejected for something else.
    let ruleOf (reason: string) : string voption =
        match rules.TryGetValue reason with
        | true, rule -> ValueSome rule
        | _ -> ValueNone

    let private reject error (origin: Slice) (body: ReadOnlySpan<byte>) source (batch: Batch) =
        batch.Rejections.Add {
            Exchange = batch.Exchange
            Source = source
            Offset = origin.Start
            Reason = explain error
            Bytes = body.Slice(origin.Start, origin.Length).ToArray()
            Received = batch.Received
        }

    let private isOutside (price: Price) =
        price.Millionths < 0L || price.Millionths > Fixed.One

    /// A price is a multiple of its tick. Without a known tick everything is on the grid.
    let private isOffGrid (tick: Price) (price: Price) =
        tick.Millionths > 0L && price.Millionths % tick.Millionths <> 0L

    /// Judges a trade received `now`; `tick` is zero when unknown. `live` is a follow of the present: only there age matters.
    let trade (rules: Rules) live (now: Instant) (tick: Price) (row: byref<TradeRow>) : RuleError =
        let price = row.Price

        if isOutside price then
            RuleError.PriceOutside
        elif row.Size.Millionths <= 0L then
            RuleError.SizeNotPositive
        elif row.At.Micros > (now + rules.MaxFuture).Micros then
            RuleError.FarFuture
        else
            let mutable flags = row.Flags

            if isOffGrid tick price then
                flags <- flags ||| Flags.OffGrid

            if price.Millionths = 0L || price.Millionths = Fixed.One then
                flags <- flags ||| Flags.AtBound
            elif
                price.Millionths < rules.MinPrice.Millionths
                || price.Millionths > rules.MaxPrice.Millionths
            then
                flags <- flags ||| Flags.OutOfBounds

            if row.At.Micros > now.Micros then
                flags <- flags ||| Flags.Future
            elif live && row.At.Micros < (now - rules.MaxAge).Micros then
                flags <- flags ||| Flags.Old

            row.Flags <- flags
            RuleError.None

    /// Judges a book whose levels stand best first. What decoding repaired (order, duplicates, empty levels) is flagged already.
    let book
        (rules: Rules)
        (now: Instant)
        (tick: Price)
        (row: byref<BookRow>)
        (bids: ReadOnlySpan<Level>)
        (asks: ReadOnlySpan<Level>)
        =
        let mutable outside, offGrid = false, false
        let grid = if row.Tick.Millionths > 0L then row.Tick else tick

        for i in 0 .. bids.Length - 1 do
            outside <- outside || isOutside bids[i].Price
            offGrid <- offGrid || isOffGrid grid bids[i].Price

        for i in 0 .. asks.Length - 1 do
            outside <- outside || isOutside asks[i].Price
            offGrid <- offGrid || isOffGrid grid asks[i].Price

        if outside then
            RuleError.PriceOutside
        elif row.At.Micros > (now + rules.MaxFuture).Micros then
            RuleError.FarFuture
        else
            let mutable flags = row.Flags

            if bids.Length = 0 && asks.Length = 0 then
                flags <- flags ||| Flags.Empty
            elif bids.Length = 0 || asks.Length = 0 then
                flags <- flags ||| Flags.OneSided
            elif bids[0].Price.Millionths > asks[0].Price.Millionths then
                flags <- flags ||| Flags.Crossed
            elif bids[0].Price.Millionths = asks[0].Price.Millionths then
                flags <- flags ||| Flags.Locked

            if offGrid then
                flags <- flags ||| Flags.OffGrid

            if row.At.Micros > now.Micros then
                flags <- flags ||| Flags.Future
            elif row.At.Micros < (now - rules.MaxAge).Micros then
                flags <- flags ||| Flags.Stale

            row.Flags <- flags
            RuleError.None

    /// Judges all rows of an answer: those that cannot be true become rejections with their bytes, the others get their flags.
    /// `tick` gives a token's grid, zero when unknown.
    let sift
        (rules: Rules)
        live
        (tick: Name -> Price)
        (body: ReadOnlySpan<byte>)
        (source: string)
        (batch: Batch)
        =
        let mutable kept = 0

        for i in 0 .. batch.Trades.Count - 1 do
            let row = &batch.Trades[i]

            match trade rules live batch.Received (tick row.Token) &row with
            | RuleError.None ->
                batch.Trades[kept] <- row
                batch.TradeOrigins[kept] <- batch.TradeOrigins[i]
                kept <- kept + 1
            | error -> reject error batch.TradeOrigins[i] body source batch

        batch.Trades.Truncate kept
        batch.TradeOrigins.Truncate kept
        kept <- 0

        for i in 0 .. batch.Books.Count - 1 do
            let row = &batch.Books[i]
            let bids = batch.Levels.Slice(row.FirstBid, row.BidCount)
            let asks = batch.Levels.Slice(row.FirstAsk, row.AskCount)

            match
                book
                    rules
                    batch.Received
                    (tick row.Token)
                    &row
                    (Span.op_Implicit bids)
                    (Span.op_Implicit asks)
            with
            | RuleError.None ->
                batch.Books[kept] <- row
                batch.BookOrigins[kept] <- batch.BookOrigins[i]
                kept <- kept + 1
            | error -> reject error batch.BookOrigins[i] body source batch

        batch.Books.Truncate kept
        batch.BookOrigins.Truncate kept
