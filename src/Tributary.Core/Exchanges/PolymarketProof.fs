/// Whether a live book has the hash that came with its last change (`polymarket-api.md` section 6). The book is printed in the
/// canonical form, which is the one that the exchange hashes: no trailing zeros in prices and sizes. What else is hashed stands
/// verbatim as the exchange gave it.
module internal Tributary.Exchanges.PolymarketProof

open System
open System.Buffers.Binary
open System.Buffers.Text
open System.Security.Cryptography
open System.Text
open Tributary

// What stands around a level's numbers, as numbers of eight and two bytes: `{"price":"`, `","size":"` and `"},`.
let private wordOf (text: byte[]) =
    BinaryPrimitives.ReadUInt64LittleEndian(ReadOnlySpan text)

let private price8, size8, colon2, end4 =
    wordOf "{\"price\""B, wordOf "\",\"size\""B, uint16 (wordOf ":\"      "B), uint32 (wordOf "\"},     "B)

/// A book's text is made here: one for each thread, as large as the largest book so far.
[<Sealed; AbstractClass>]
type private Scratch =
    [<ThreadStatic; DefaultValue>]
    static val mutable private buffer: byte[] | null

    static member Room(needed: int) : byte[] =
        match Scratch.buffer with
        | null ->
            let made = Array.zeroCreate (max 16_384 needed)
            Scratch.buffer <- made
            made
        | held when held.Length < needed ->
            let made = Array.zeroCreate (needed * 2)
            Scratch.buffer <- made
            made
        | held -> held

let inline private put (into: byte[]) (at: int) (bytes: byte[]) =
    Buffer.BlockCopy(bytes, 0, into, at, bytes.Length)
    at + bytes.Length

let inline private putText (into: byte[]) (at: int) (text: ReadOnlySpan<byte>) =
    text.CopyTo(Span<byte>(into, at, text.Length))
    at + text.Length

/// `[{"price":"…","size":"…"},…]`, worst first as the exchange has it.
let private writeSide (levels: ReadOnlySpan<Level>) (into: byte[]) start =
    let mutable at = start
    into[at] <- '['B
    at <- at + 1

    let whole = Span into

    for i in 0 .. levels.Length - 1 do
        BinaryPrimitives.WriteUInt64LittleEndian(whole.Slice at, price8)
        BinaryPrimitives.WriteUInt16LittleEndian(whole.Slice(at + 8), colon2)
        at <- at + 10
        at <- at + Fixed.format levels[i].Price.Millionths (whole.Slice at)
        BinaryPrimitives.WriteUInt64LittleEndian(whole.Slice at, size8)
        BinaryPrimitives.WriteUInt16LittleEndian(whole.Slice(at + 8), colon2)
        at <- at + 10
        at <- at + Fixed.format levels[i].Size.Millionths (whole.Slice at)
        BinaryPrimitives.WriteUInt32LittleEndian(whole.Slice at, end4)
        at <- at + 3

    if levels.Length > 0 then
        at <- at - 1

    into[at] <- ']'B
    at + 1

let private utf8 (text: string) = Encoding.UTF8.GetBytes text

/// A short text that is set anew again and again.
[<Sealed>]
type private Written() =
    let mutable bytes: byte[] = Array.Empty()
    let mutable length = 0
    member _.Text = ReadOnlySpan(bytes, 0, length)

    member _.Set(text: ReadOnlySpan<byte>) =
        if bytes.Length < text.Length then
            bytes <- Array.zeroCreate (max 8 text.Length)

        text.CopyTo(Span bytes)
        length <- text.Length

[<Sealed>]
type private Proof(market: MarketId, token: TokenId) =
    inherit BookProof()

    // Most tokens of a large subscription never change: what is long is made when it is needed.
    let mutable prefix: byte[] = Array.Empty()
    let mutable minimum: byte[] = Array.Empty()
    let mutable tick: byte[] = Array.Empty()
    let mutable tickDecimals = 0
    let mutable isNegRisk = false
    let mutable isDescribed = false
    // The last price and the one before, as they were written; a hash that covers one in another way of writing shows which.
    let mutable last = Written()
    let mutable before = Written()
    let mutable era = HashEra.Ten

    let digest: byte[] = Array.zeroCreate SHA1.HashSizeInBytes

    /// A price with as many decimals as the tick has: some markets print `0.870`.
    let padded (price: int64) =
        let buffer = Array.zeroCreate 32
        let length = Fixed.format price (Span buffer)
        let text = Encoding.ASCII.GetString(buffer, 0, length)
        let point = text.IndexOf '.'
        let decimals = if point < 0 then 0 else text.Length - point - 1

        if decimals >= tickDecimals then
            utf8 text
        else
            utf8 ((if point < 0 then text + "." else text) + String('0', tickDecimals - decimals))

    let canonical (price: int64) =
        let buffer = Array.zeroCreate 32
        let length = Fixed.format price (Span buffer)
        Array.sub buffer 0 length

    /// The text from the levels on, and where what follows them begins.
    let mutable buffer: byte[] = Array.Empty()
    let mutable levelsEnd = 0

    let write (book: Book) (at: Instant) =
        if prefix.Length = 0 then
            prefix <-
                Array.concat [
                    PolymarketHash.market
                    utf8 (string market)
                    PolymarketHash.token
                    utf8 (string token)
                    PolymarketHash.timestamp
                ]

        let bids = book.Levels Side.Buy
        let asks = book.Levels Side.Sell
        buffer <- Scratch.Room(512 + prefix.Length + 72 * (bids.Length + asks.Length))
        let mutable n = put buffer 0 prefix
        let mutable written = 0

        Utf8Formatter.TryFormat(at.Micros / 1000L, Span<byte>(buffer, n, 24), &written)
        |> ignore

        n <- put buffer (n + written) PolymarketHash.bids
        n <- writeSide bids buffer n
        n <- put buffer n PolymarketHash.asks
        levelsEnd <- writeSide asks buffer n

    /// Hashes what was written with this last price and compares.
    let says (era: HashEra) (price: ReadOnlySpan<byte>) (hash: ReadOnlySpan<byte>) =
        let mutable n = levelsEnd

        if era <> HashEra.Six then
            n <- put buffer n PolymarketHash.minimum
            n <- put buffer n minimum
            n <- put buffer n PolymarketHash.tick
            n <- put buffer n tick

            n <-
                put
                    buffer
                    n
                    (if isNegRisk then
                         PolymarketHash.isNegRisk
                     else
                         PolymarketHash.notNegRisk)

        if era = HashEra.Ten then
            n <- put buffer n PolymarketHash.lastTrade
            n <- putText buffer n price
            n <- put buffer n PolymarketHash.quote

        n <- put buffer n PolymarketHash.brace
        SHA1.HashData(ReadOnlySpan(buffer, 0, n), Span digest) |> ignore
        PolymarketHash.says hash (ReadOnlySpan digest)

    let remember (price: ReadOnlySpan<byte>) =
        if not (price.SequenceEqual last.Text) then
            let oldest = before
            before <- last
            oldest.Set price
            last <- oldest

    /// What else may stand for the last price: rare, so it may allocate.
    let others (hint: int64) =
        let mutable value, rounded = 0L, false

        let isPrice = Fixed.parse last.Text &value &rounded = NumberFault.None

        let price = value

        [
            before.Text.ToArray()

            if isPrice then
                canonical price
                padded price

            canonical hint
            padded hint
        ]

    let setTick (text: byte[]) =
        tick <- text
        let point = Array.IndexOf(text, '.'B)
        tickDecimals <- if point < 0 then 0 else text.Length - point - 1

    override _.Describe(market: Market) =
        match market.TickSize, market.MinimumSize with
        | ValueSome size, ValueSome least ->
            setTick (canonical size.Millionths)
            minimum <- canonical least.Millionths
            isNegRisk <- market.NegRisk
            isDescribed <- true
        | _ -> ()

    override _.Traded(price: ReadOnlySpan<byte>) = remember price

    override _.Tick(text: ReadOnlySpan<byte>) =
        if not (text.SequenceEqual(ReadOnlySpan tick)) then
            setTick (text.ToArray())

    override _.IsReady = isDescribed

    override _.Agrees(book: Book, at: Instant, hash: ReadOnlySpan<byte>, hint: int64) : bool =
        if not isDescribed || hash.Length <> 40 then
            false
        else
            write book at

            if says era last.Text hash then
                true
            else
                let mutable agreed = false

                for price in others hint do
                    if not agreed && says HashEra.Ten (ReadOnlySpan price) hash then
                        agreed <- true
                        era <- HashEra.Ten
                        remember (ReadOnlySpan price)

                for older in [| HashEra.Nine; HashEra.Six |] do
                    if not agreed && era <> older && says older last.Text hash then
                        agreed <- true
                        era <- older

                agreed

/// The proof of one token's books.
let create (market: MarketId) (token: TokenId) : BookProof = Proof(market, token)
