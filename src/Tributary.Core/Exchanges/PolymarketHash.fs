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
        MinimumSize = absent
        Tick = absent
        NegRisk = -1
        LastTrade = absent
    }

    let private market = "{\"market\":\""B
    let private token = "\",\"asset_id\":\""B
    let private timestamp = "\",\"timestamp\":\""B
    let private bids = "\",\"hash\":\"\",\"bids\":"B
    let private asks = ",\"asks\":"B
    let private minimum = ",\"min_order_size\":\""B
    let private tick = "\",\"tick_size\":\""B
    let private isNegRisk = "\",\"neg_risk\":true"B
    let private notNegRisk = "\",\"neg_risk\":false"B
    let private lastTrade = ",\"last_trade_price\":\""B
    let private quote = "\""B
    let private brace = "}"B

    let private put (into: byte[]) (at: byref<int>) (bytes: ReadOnlySpan<byte>) =
        bytes.CopyTo(Span(into, at, bytes.Length))
        at <- at + bytes.Length

    /// Writes the 40 hex digits of the hash of these bytes into `hex`.
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
        (hex: Span<byte>)
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
        let digest = hex.Slice(0, SHA1.HashSizeInBytes)
        SHA1.HashData(ReadOnlySpan(buffer, 0, n), digest) |> ignore
        ArrayPool<byte>.Shared.Return buffer
        let mutable i = SHA1.HashSizeInBytes - 1

        while i >= 0 do // from the end, because the digits overwrite the digest
            let b = int digest[i]

            let digit (nibble: int) =
                byte (
                    if nibble < 10 then
                        int '0'B + nibble
                    else
                        int 'a'B + nibble - 10
                )

            hex[2 * i + 1] <- digit (b &&& 15)
            hex[2 * i] <- digit (b >>> 4)
            i <- i - 1

    let private levelsText (levels: (string * string) list) =
        levels
        |> List.map (fun (price, size) -> $"{{\"price\":\"{price}\",\"size\":\"{size}\"}}")
        |> String.concat ","
        |> fun inner -> Encoding.UTF8.GetBytes $"[{inner}]"

    /// The hash that the exchange would give this book.
    let hash (era: HashEra) (book: HashedBook) : string =
        let utf8 (text: string) = Encoding.UTF8.GetBytes text
        let hex = Array.zeroCreate 40

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
            (Span hex)

        Encoding.ASCII.GetString hex

    /// An array of levels that is not compact (white space, another order of members, numbers) as its compact form, its values
    /// verbatim. Rare: it may allocate.
    let private compacted (levels: ReadOnlySpan<byte>) =
        let mutable reader = Json.Utf8JsonReader levels
        let text = ResizeArray<string * string>()
        let mutable price, size, name = "", "", ""

        while reader.Read() do
            match reader.TokenType with
            | Json.JsonTokenType.PropertyName -> name <- string (reader.GetString())
            | Json.JsonTokenType.String
            | Json.JsonTokenType.Number ->
                let value = Encoding.UTF8.GetString reader.ValueSpan

                if name = "price" then
                    price <- value
                elif name = "size" then
                    size <- value
            | Json.JsonTokenType.EndObject -> text.Add((price, size))
            | _ -> ()

        levelsText (List.ofSeq text)

    // Values that a message may leave out though its hash covers them (a WebSocket book has no minimum size and no neg-risk):
    // a hash that agrees with one of them is proof enough, since 160 bits do not agree by chance.
    let private minimumSizes = [| "5"B; "15"B; "1"B; "0"B |]

    /// 2025-01-01: books before it are hashed with six members.
    let private endOfSix = Instant.ofSeconds 1_735_689_600L

    /// Compares a book's hash with what its members give, in whichever era's form. A book whose members are all there and agree
    /// with no form is `Mismatched`; one that lacks a hash or a member and agrees with none is `Unverifiable`.
    let internal verify (json: ReadOnlySpan<byte>) (parts: inref<BookParts>) (at: Instant) : Verdict =
        if parts.Hash.Length <> 40 || parts.Market.Length < 0 || parts.Timestamp.Length < 0 then
            Verdict.Unverifiable
        else
            let expected = json.Slice(parts.Hash.Start, 40)
            let m = json.Slice(parts.Market.Start, parts.Market.Length)
            let a = json.Slice(parts.Token.Start, parts.Token.Length)
            let t = json.Slice(parts.Timestamp.Start, parts.Timestamp.Length)
            let mutable bidLevels = json.Slice(parts.Bids.Start, parts.Bids.Length)
            let mutable askLevels = json.Slice(parts.Asks.Start, parts.Asks.Length)

            if not parts.Compact then
                bidLevels <- ReadOnlySpan(compacted bidLevels)
                askLevels <- ReadOnlySpan(compacted askLevels)

            let step =
                if parts.Tick.Length > 0 then
                    json.Slice(parts.Tick.Start, parts.Tick.Length)
                else
                    ReadOnlySpan.Empty

            let last =
                if parts.LastTrade.Length > 0 then
                    json.Slice(parts.LastTrade.Start, parts.LastTrade.Length)
                else
                    ReadOnlySpan.Empty

            let mutable hex = Span<byte>(Array.zeroCreate 40)
            let mutable agreed = false

            let whole =
                parts.MinimumSize.Length >= 0 && parts.NegRisk >= 0 && parts.Tick.Length >= 0
            // The newest form first: that is what nearly every book is.
            if not agreed && parts.Tick.Length >= 0 then
                let known = parts.MinimumSize.Length >= 0
                let mutable i = 0

                while not agreed && i < (if known then 1 else minimumSizes.Length) do
                    let min =
                        if known then
                            json.Slice(parts.MinimumSize.Start, parts.MinimumSize.Length)
                        else
                            ReadOnlySpan minimumSizes[i]

                    let mutable risk = if parts.NegRisk > 0 then 1 else 0
                    let lastRisk = if parts.NegRisk < 0 then 1 else risk

                    while not agreed && risk <= lastRisk do
                        if parts.LastTrade.Length >= 0 then
                            compute HashEra.Ten m a t bidLevels askLevels min step (risk = 1) last hex
                            agreed <- hex.SequenceEqual expected

                        if not agreed then
                            compute HashEra.Nine m a t bidLevels askLevels min step (risk = 1) last hex
                            agreed <- hex.SequenceEqual expected

                        risk <- risk + 1

                    i <- i + 1

            if not agreed then
                compute HashEra.Six m a t bidLevels askLevels ReadOnlySpan.Empty step false last hex
                agreed <- hex.SequenceEqual expected

            if agreed then Verdict.Verified
            elif whole || at < endOfSix then Verdict.Mismatched
            else Verdict.Unverifiable
