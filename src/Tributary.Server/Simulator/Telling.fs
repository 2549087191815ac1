namespace Tributary.Server.Simulator

open System
open System.Security.Cryptography
open System.Text

/// The fixed pieces of the channel's JSON; a literal in place would be a new array each time.
module internal Part =
    let market = "{\"market\":\""B
    let priceChanges = "\",\"price_changes\":["B
    let comma = ","B
    let assetId = "{\"asset_id\":\""B
    let commaAssetId = "\",\"asset_id\":\""B
    let quotedPrice = "\",\"price\":\""B
    let onlyPrice = "{\"price\":\""B
    let buy = "\",\"side\":\"BUY\",\"hash\":\""B
    let sell = "\",\"side\":\"SELL\",\"hash\":\""B
    let onlyBuy = "\",\"side\":\"BUY\"}"B
    let onlySell = "\",\"side\":\"SELL\"}"B
    let bestBid = "\",\"best_bid\":\""B
    let bestAsk = "\",\"best_ask\":\""B
    let spread = "\",\"spread\":\""B
    let minus = "-"B
    let zero = "0"B
    let timestamp = "],\"timestamp\":\""B
    let quotedTimestamp = "\",\"timestamp\":\""B
    let priceChangeEnd = "\",\"event_type\":\"price_change\"}"B
    let changes = "\",\"changes\":["B
    let changesEnd = "],\"event_type\":\"price_change\"}"B
    let bestEnd = "\",\"event_type\":\"best_bid_ask\"}"B
    let price = ",{\"price\":\""B
    let size = "\",\"size\":\""B
    let quoteEnd = "\"}"B
    let noHash = "\",\"hash\":\"\",\"bids\":["B
    let asks = "],\"asks\":["B
    let hash = "\",\"hash\":\""B
    let bids = "\",\"bids\":["B
    let tick = "],\"tick_size\":\""B
    let last = "\",\"last_trade_price\":\""B
    let firstBook = "\",\"event_type\":\"book\"}"B
    let book = "],\"event_type\":\"book\"}"B
    let digits = "0123456789abcdef"B

/// One side of a market's book as text, for both tokens at once: the bids of the first are the asks of the second, in the
/// same order. A change moves the text behind it and writes one level.
[<Sealed>]
type internal SideText(falling: bool) =
    let mutable prices = Array.zeroCreate<int> 64
    let mutable count = 0
    let lengths = [| Array.zeroCreate<int> 64; Array.zeroCreate<int> 64 |]
    let texts = [| Array.zeroCreate<byte> 4096; Array.zeroCreate<byte> 4096 |]
    let used = [| 0; 0 |]

    /// Where a price is, or would be.
    let find price =
        let mutable low, high = 0, count

        while low < high do
            let middle = (low + high) / 2

            if
                (if falling then
                     prices[middle] > price
                 else
                     prices[middle] < price)
            then
                low <- middle + 1
            else
                high <- middle

        low

    /// Replaces the text of a level, `was` bytes long, by another.
    let splice (token: int, index: int, was: int, text: ReadOnlySpan<byte>) =
        let mutable at = 0
        let lengths = lengths[token]

        // From the nearer end: most changes are near the best, which comes last.
        if index > count / 2 then
            at <- used[token]

            for i in index .. count - 1 do
                at <- at - lengths[i]
        else
            for i in 0 .. index - 1 do
                at <- at + lengths[i]

        let length = used[token] + text.Length - was

        if length > texts[token].Length then
            Array.Resize(&texts[token], 2 * length)

        let bytes = texts[token]

        if text.Length <> was then
            Buffer.BlockCopy(bytes, at + was, bytes, at + text.Length, used[token] - at - was)

        text.CopyTo(bytes.AsSpan at)
        used[token] <- length

    let grow () =
        if count = prices.Length then
            Array.Resize(&prices, 2 * count)
            Array.Resize(&lengths[0], 2 * count)
            Array.Resize(&lengths[1], 2 * count)

    /// The best price of the first token; -1 when the side is empty.
    member _.Best = if count = 0 then -1 else prices[count - 1]

    member _.Has(price: int) =
        let index = find price
        index < count && prices[index] = price

    /// Puts a level's total, zero for none; the two texts are its levels as the tokens see them, each after a comma.
    member _.Set(price: int, isThere: bool, first: ReadOnlySpan<byte>, second: ReadOnlySpan<byte>) =
        let index = find price
        let found = index < count && prices[index] = price

        if found && isThere then
            splice (0, index, lengths[0][index], first)
            splice (1, index, lengths[1][index], second)
            lengths[0][index] <- first.Length
            lengths[1][index] <- second.Length
        elif found then
            splice (0, index, lengths[0][index], ReadOnlySpan.Empty)
            splice (1, index, lengths[1][index], ReadOnlySpan.Empty)
            let behind = count - index - 1
            Array.Copy(prices, index + 1, prices, index, behind)
            Array.Copy(lengths[0], index + 1, lengths[0], index, behind)
            Array.Copy(lengths[1], index + 1, lengths[1], index, behind)
            count <- count - 1
        elif isThere then
            splice (0, index, 0, first)
            splice (1, index, 0, second)
            grow ()
            let behind = count - index
            Array.Copy(prices, index, prices, index + 1, behind)
            Array.Copy(lengths[0], index, lengths[0], index + 1, behind)
            Array.Copy(lengths[1], index, lengths[1], index + 1, behind)
            prices[index] <- price
            lengths[0][index] <- first.Length
            lengths[1][index] <- second.Length
            count <- count + 1

    /// The levels as the token sees them.
    member _.Text(token: int) =
        if used[token] = 0 then
            ReadOnlySpan.Empty
        else
            ReadOnlySpan(texts[token], 1, used[token] - 1)

/// A market's book as the channel tells it: its text and hashes, kept up with the tape. It shares nothing with the book
/// that `/book` is made from, so the two check each other.
[<Sealed>]
type internal Telling(market: Market) =
    let info = market.Info
    let bids = SideText false
    let asks = SideText true
    let mutable tick = market.Tick
    let mutable prices = Prices.ofTick tick
    let mutable timestamp = market.Timestamp
    let last = [| market.Printed 0; market.Printed 1 |]
    let texts = [| Ink(); Ink() |]
    let hashed = Ink()
    let digest = Array.zeroCreate<byte> 20
    let hex = Array.zeroCreate<byte> 40
    let ascii (text: string) = Encoding.ASCII.GetBytes text

    let tokens = info.Tokens |> Array.map ascii

    let heads =
        info.Tokens
        |> Array.map (fun token ->
            ascii $"{{\"market\":\"{info.Condition}\",\"asset_id\":\"{token}\",\"timestamp\":\"")

    let tail token =
        let negRisk = if info.Event.NegRisk then "true" else "false"

        ascii
            $"],\"min_order_size\":\"{info.MinimumSize}\",\"tick_size\":\"{Millionths.text tick}\",\"neg_risk\":{negRisk},\"last_trade_price\":\"{last[token]}\"}}"

    let tails = [| tail 0; tail 1 |]

    let text (ink: Ink) (price: byte[]) size =
        ink.Clear()
        ink.Put(Part.price)
        ink.Put price
        ink.Put(Part.size)
        ink.Decimal size
        ink.Put(Part.quoteEnd)

    let set price signed =
        let step = price / int tick
        let size = abs (signed: int64)

        if size > 0L then
            text texts[0] prices[step] size
            text texts[1] prices[prices.Length - 1 - step] size

        // What was a bid may be an ask now.
        bids.Set(price, signed > 0L, texts[0].Written, texts[1].Written)
        asks.Set(price, signed < 0L, texts[0].Written, texts[1].Written)

    let side isBid token =
        if isBid = (token = 0) then
            bids.Text token
        else
            asks.Text token

    do
        let book = market.Book

        for step in 1 .. book.Steps - 1 do
            if book.Signed step <> 0L then
                set (int (book.Price step)) (book.Signed step)

    member _.Market = market
    member _.Tick = tick
    member _.Last(token: int) = last[token]

    member _.TokenText(token: int) = tokens[token]

    /// The text of a price of the first token, as the token sees it.
    member _.Price(price: int, token: int) =
        let step = price / int tick
        prices[if token = 0 then step else prices.Length - 1 - step]

    /// The best bid as the token sees it; "0" when there is none.
    member _.BestBid(token: int) =
        let best = if token = 0 then bids.Best else asks.Best

        if best < 0 then prices[0]
        elif token = 0 then prices[best / int tick]
        else prices[prices.Length - 1 - best / int tick]

    /// The best ask as the token sees it; "1" when there is none.
    member _.BestAsk(token: int) =
        let best = if token = 0 then asks.Best else bids.Best

        if best < 0 then prices[prices.Length - 1]
        elif token = 0 then prices[best / int tick]
        else prices[prices.Length - 1 - best / int tick]

    /// The best prices of the first token, to see whether they moved; -1 for none.
    member _.Bests = struct (bids.Best, asks.Best)

    /// Puts a level's signed total, and says whether it is (or was) a bid of the first token.
    member _.Level(price: int, signed: int64, at: int64) =
        timestamp <- Micros.toMilliseconds at
        let isBid = signed > 0L || (signed = 0L && bids.Has price)
        set price signed
        isBid

    member _.Fill(token: int, printed: string) =
        last[token] <- printed
        tails[token] <- tail token

    member _.Retick(finer: int64) =
        tick <- finer
        prices <- Prices.ofTick finer
        tails[0] <- tail 0
        tails[1] <- tail 1

    member _.Touch(at: int64) = timestamp <- Micros.toMilliseconds at

    /// The hash of the token's book as it stands; valid until the next is asked for.
    member _.Hash(token: int) =
        hashed.Clear()
        hashed.Put heads[token]
        hashed.Whole timestamp
        hashed.Put(Part.noHash)
        hashed.Put(side true token)
        hashed.Put(Part.asks)
        hashed.Put(side false token)
        hashed.Put tails[token]
        SHA1.HashData(hashed.Written, digest.AsSpan()) |> ignore

        for i in 0..19 do
            hex[2 * i] <- Part.digits[int digest[i] >>> 4]
            hex[2 * i + 1] <- Part.digits[int digest[i] &&& 15]

        hex

    /// A `book` event; the first one after a subscription has the tick and the last trade too.
    member this.Book(ink: Ink, token: int, isFirst: bool) =
        ink.Put heads[token]
        ink.Whole timestamp
        ink.Put(Part.hash)
        ink.Put(this.Hash token)
        ink.Put(Part.bids)
        ink.Put(side true token)
        ink.Put(Part.asks)
        ink.Put(side false token)

        if isFirst then
            ink.Put(Part.tick)
            ink.Put(ascii (Millionths.text tick))
            ink.Put(Part.last)
            ink.Put(ascii last[token])
            ink.Put(Part.firstBook)
        else
            ink.Put(Part.book)
