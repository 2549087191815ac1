namespace Tributary.Exchanges

open System
open System.Buffers
open System.Security.Cryptography
open System.Text
open Tributary

/// Which members of a book its hash covers; the exchange has added some twice.
[<RequireQualifiedAccess>]
type HashEra =
    /// Until the end of 2024: up to the levels.
    | Six
    /// 2025: with minimum size, tick size and neg-risk.
    | Nine
    /// Since the end of November 2025: with the last trade's price.
    | Ten

/// The verbatim pieces of a book that its hash is made of, as slices of the JSON that it came in. A negative length means that
/// the piece was not there.
[<Struct>]
type internal BookParts = {
    mutable Market: Slice
    mutable Token: Slice
    mutable Timestamp: Slice
    mutable Hash: Slice
    /// The whole arrays, brackets included.
    mutable Bids: Slice
    mutable Asks: Slice
    /// Every level was `{"price":"…","size":"…"}` to the byte, so the arrays can be hashed as they are.
    mutable Compact: bool
    /// Every value is the text that the exchange served: a recorder that made numbers of them has lost what was hashed.
    mutable Verbatim: bool
    mutable MinimumSize: Slice
    mutable Tick: Slice
    /// -1 unknown, 0 false, 1 true.
    mutable NegRisk: int
    mutable LastTrade: Slice
}

/// A book's members as texts, verbatim as the exchange served them.
type HashedBook = {
    Market: string
    Token: string
    Timestamp: string
    /// Price and size, in the server's order.
    Bids: (string * string) list
    Asks: (string * string) list
    MinimumSize: string
    TickSize: string
    NegRisk: bool
    LastTradePrice: string
}

/// The hash of an order book: SHA-1, in lower-case hex, of the compact JSON of the book with its hash left empty, all values
/// verbatim as served, levels in the server's order (`polymarket-api.md` section 6; recomputed there on recorded books).
[<RequireQualifiedAccess>]
module PolymarketHash =
    let private absent = { Start = 0; Length = -1 }

    let internal noParts: BookParts = {
        Market = absent
        Token = absent
        Timestamp = absent
        Hash = absent
        Bids = absent
        Asks = absent
        Compact = true
        Verbatim = true
        MinimumSize = absent
        Tick = absent
        NegRisk = -1
        LastTrade = absent
    }

    let internal market = "{\"market\":\""B
    let internal token = "\",\"asset_id\":\""B
    let internal timestamp = "\",\"timestamp\":\""B
    let internal bids = "\",\"hash\":\"\",\"bids\":"B
    let internal asks = ",\"asks\":"B
    let internal minimum = ",\"min_order_size\":\""B
    let internal tick = "\",\"tick_size\":\""B
    let internal isNegRisk = "\",\"neg_risk\":true"B
    let internal notNegRisk = "\",\"neg_risk\":false"B
    let internal lastTrade = ",\"last_trade_price\":\""B
    let internal quote = "\""B
    let internal brace = "}"B

    let private put (into: byte[]) (at: byref<int>) (bytes: ReadOnlySpan<byte>) =
        bytes.CopyTo(Span(into, at, bytes.Length))
        at <- at + bytes.Length

    /// Writes the 20 bytes of the hash of a book of these pieces.
    let private compute
        era
        (m: ReadOnlySpan<byte>)
        (a: ReadOnlySpan<byte>)
        (t: ReadOnlySpan<byte>)
        (bidLevels: ReadOnlySpan<byte>)
        (askLevels: ReadOnlySpan<byte>)
        (min: ReadOnlySpan<byte>)
        (step: ReadOnlySpan<byte>)
        negRisk
        (last: ReadOnlySpan<byte>)
        (digest: Span<byte>)
        =
        let room =
            m.Length
            + a.Length
            + t.Length
            + bidLevels.Length
            + askLevels.Length
            + min.Length
            + step.Length
            + last.Length
            + 256

        let buffer = ArrayPool<byte>.Shared.Rent room
        let mutable n = 0
        put buffer &n (ReadOnlySpan market)
        put buffer &n m
        put buffer &n (ReadOnlySpan token)
        put buffer &n a
        put buffer &n (ReadOnlySpan timestamp)
        put buffer &n t
        put buffer &n (ReadOnlySpan bids)
        put buffer &n bidLevels
        put buffer &n (ReadOnlySpan asks)
        put buffer &n askLevels

        if era <> HashEra.Six then
            put buffer &n (ReadOnlySpan minimum)
            put buffer &n min
            put buffer &n (ReadOnlySpan tick)
            put buffer &n step
            put buffer &n (ReadOnlySpan(if negRisk then isNegRisk else notNegRisk))

        if era = HashEra.Ten then
            put buffer &n (ReadOnlySpan lastTrade)
            put buffer &n last
            put buffer &n (ReadOnlySpan quote)

        put buffer &n (ReadOnlySpan brace)
        SHA1.HashData(ReadOnlySpan(buffer, 0, n), digest) |> ignore
        ArrayPool<byte>.Shared.Return buffer

    /// Whether 40 hex digits in lower case say this digest.
    let internal says (hex: ReadOnlySpan<byte>) (digest: ReadOnlySpan<byte>) =
        let mutable same = true
        let mutable i = 0

        while same && i < 40 do
            let nibble = (int digest[i / 2] >>> (if i % 2 = 0 then 4 else 0)) &&& 15
            same <- int hex[i] = (if nibble < 10 then int '0'B else int 'a'B - 10) + nibble
            i <- i + 1

        same

    let private levelsText (levels: (string * string) list) =
        levels
        |> List.map (fun (price, size) -> $"{{\"price\":\"{price}\",\"size\":\"{size}\"}}")
        |> String.concat ","
        |> fun inner -> Encoding.UTF8.GetBytes $"[{inner}]"

    /// The hash that the exchange would give this book.
    let hash (era: HashEra) (book: HashedBook) : string =
        let utf8 (text: string) = Encoding.UTF8.GetBytes text
        let digest = Array.zeroCreate SHA1.HashSizeInBytes

        compute
            era
            (ReadOnlySpan(utf8 book.Market))
            (ReadOnlySpan(utf8 book.Token))
            (ReadOnlySpan(utf8 book.Timestamp))
            (ReadOnlySpan(levelsText book.Bids))
            (ReadOnlySpan(levelsText book.Asks))
            (ReadOnlySpan(utf8 book.MinimumSize))
            (ReadOnlySpan(utf8 book.TickSize))
            book.NegRisk
            (ReadOnlySpan(utf8 book.LastTradePrice))
            (Span digest)

        Convert.ToHexStringLower digest

    let private priceName = "price"B
    let private sizeName = "size"B

    /// An array of levels that is not compact (white space, another order of members, numbers) as its compact form, its values
    /// verbatim. Its structure was read before. Rare: it may allocate.
    let private compacted (levels: ReadOnlySpan<byte>) =
        let texts = ResizeArray<string * string>()
        let mutable at, firstLevel, ok = 1, true, true // behind the bracket
        let mutable keyStart, keyLength, start, length = 0, 0, 0, 0

        while Json.element levels &at &firstLevel &ok do
            let mutable price, size = "", ""
            let mutable firstMember = true
            ok <- Json.take levels &at '{'B

            while ok && Json.``member`` levels &at &firstMember &keyStart &keyLength &ok do
                let key = levels.Slice(keyStart, keyLength)
                let isPrice = key.SequenceEqual(ReadOnlySpan priceName)

                if isPrice || key.SequenceEqual(ReadOnlySpan sizeName) then
                    ok <- Json.numeral levels &at &start &length
                    let value = Encoding.UTF8.GetString(levels.Slice(start, length))
                    if isPrice then price <- value else size <- value
                else
                    ok <- Json.skip levels &at

            texts.Add((price, size))

        levelsText (List.ofSeq texts)

    // Values that a message may leave out though its hash covers them (a WebSocket book has no minimum size and no neg-risk, and
    // after the first one no tick): a hash that agrees with one of them is proof enough, since 160 bits do not agree by chance.
    let private minimumSizes = [| "5"B; "15"B; "1"B; "0"B |]
    let private ticks = [| "0.01"B; "0.001"B; "0.1"B; "0.0001"B |]

    /// 2025-01-01: books before it are hashed with six members.
    let private endOfSix = Instant.ofSeconds 1_735_689_600L

    /// 2025-11-30, or a few days beside it: books before it are hashed with nine members.
    let private endOfNine = Instant.ofSeconds 1_764_460_800L

    let private slice (json: ReadOnlySpan<byte>) (part: Slice) =
        json.Slice(part.Start, max 0 part.Length)

    /// Compares a book's hash with what its members give, in whichever era's form. A book whose members are all there and agree
    /// with no form is `Mismatched`; one that lacks a hash, a member or the served texts and agrees with none is `Unverifiable`.
    let internal verify (json: ReadOnlySpan<byte>) (parts: inref<BookParts>) (at: Instant) : Verdict =
        if parts.Hash.Length <> 40 then
            Verdict.Unverifiable
        else
            let expected = slice json parts.Hash
            let m = slice json parts.Market
            let a = slice json parts.Token
            let t = slice json parts.Timestamp
            let mutable bidLevels = slice json parts.Bids
            let mutable askLevels = slice json parts.Asks

            if not parts.Compact then
                bidLevels <- ReadOnlySpan(compacted bidLevels)
                askLevels <- ReadOnlySpan(compacted askLevels)

            let last = slice json parts.LastTrade
            // As numbers: comparing moments would box them.
            let isSix, isBeforeTen = at.Micros < endOfSix.Micros, at.Micros < endOfNine.Micros
            let digest = ArrayPool<byte>.Shared.Rent SHA1.HashSizeInBytes
            let knowsTick, knowsMinimum = parts.Tick.Length >= 0, parts.MinimumSize.Length >= 0

            // Without a tick there is no last trade price either, and only the era that had none can be tried.
            let steps =
                if knowsTick then 1
                elif not isSix && isBeforeTen then ticks.Length
                else 0

            let minimums = if knowsMinimum then 1 else minimumSizes.Length
            let firstRisk = if parts.NegRisk > 0 then 1 else 0
            let lastRisk = if parts.NegRisk < 0 then 1 else firstRisk
            let mutable agreed = false
            let mutable i = 0

            // What a book of today says comes first, so nearly every book is hashed once.
            while not agreed && i < steps * minimums do
                let step =
                    if knowsTick then
                        slice json parts.Tick
                    else
                        ReadOnlySpan ticks[i / minimums]

                let min =
                    if knowsMinimum then
                        slice json parts.MinimumSize
                    else
                        ReadOnlySpan minimumSizes[i % minimums]

                let mutable risk = firstRisk

                while not agreed && risk <= lastRisk do
                    if parts.LastTrade.Length >= 0 then
                        compute HashEra.Ten m a t bidLevels askLevels min step (risk = 1) last (Span digest)
                        agreed <- says expected (ReadOnlySpan digest)

                    if not agreed then
                        compute HashEra.Nine m a t bidLevels askLevels min step (risk = 1) last (Span digest)
                        agreed <- says expected (ReadOnlySpan digest)

                    risk <- risk + 1

                i <- i + 1

            if not agreed && isBeforeTen then
                compute HashEra.Six m a t bidLevels askLevels last last false last (Span digest)
                agreed <- says expected (ReadOnlySpan digest)

            ArrayPool<byte>.Shared.Return digest

            let isWhole =
                knowsTick
                && knowsMinimum
                && parts.NegRisk >= 0
                && (parts.LastTrade.Length >= 0 || isBeforeTen)

            if agreed then
                Verdict.Verified
            elif parts.Verbatim && (isWhole || isSix) then
                Verdict.Mismatched
            else
                Verdict.Unverifiable
