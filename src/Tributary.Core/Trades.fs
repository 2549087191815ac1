namespace Tributary

open System
open System.Buffers
open System.Buffers.Binary
open System.Collections.Generic
open System.Security.Cryptography
open System.Text

/// What makes a fill this fill and no other, but for its occurrence number. Data API rows carry no trade id (Polymarket), and
/// one transaction can hold several fills.
type Tuple = {
    Exchange: string
    Source: Source
    Transaction: string
    Token: string
    /// In lower case.
    Wallet: string
    Side: Side
    Price: Price
    Size: Size
    At: Instant
}

/// The (market, second) groups that the edge of a page may have cut: for each market the second of its last row, and how
/// often each tuple of that second was met. A walk hands it from page to page.
type Carry = private Carry of Map<string, struct (Instant * Map<TradeId, int>)>

/// Identity of trades. Where content alone tells fills apart, fills of identical content are numbered within one reading of
/// their whole (market, second) group; so any two readings agree on the ids, whatever their pages.
[<RequireQualifiedAccess>]
module Trades =
    /// The layout of what is hashed. Another layout gives other ids, so it gets another version; vectors in the tests hold it.
    [<Literal>]
    let Version = 1uy

    // Version 1: one byte of version; exchange, source (api, stream, chain), transaction, token and wallet, each as its length
    // in UTF-8 (uint16) and its bytes; the side (one byte: 0 buy, 1 sell); price and size in millionths and the exchange's
    // timestamp in microseconds (int64 each); the occurrence number from 0 (int32). All numbers big-endian. Of a log of the chain: one
    // byte of version; exchange, source and transaction as above; the index of the log within its block (int32).
    let private tail = 1 + 8 + 8 + 8 + 4

    let private text (into: byte[]) at (utf8: ReadOnlySpan<byte>) =
        BinaryPrimitives.WriteUInt16BigEndian(Span<byte>(into, at, 2), uint16 utf8.Length)
        utf8.CopyTo(Span<byte>(into, at + 2, utf8.Length))
        at + 2 + utf8.Length

    let private numbers (into: byte[]) start (side: Side) (price: Price) (size: Size) (at: Instant) =
        into[start] <- byte side
        BinaryPrimitives.WriteInt64BigEndian(Span<byte>(into, start + 1, 8), price.Millionths)
        BinaryPrimitives.WriteInt64BigEndian(Span<byte>(into, start + 9, 8), size.Millionths)
        BinaryPrimitives.WriteInt64BigEndian(Span<byte>(into, start + 17, 8), at.Micros)
        start + tail

    /// The first 16 bytes of the SHA-256 of `content`, whose last four bytes are set to the occurrence number first.
    let private digest (content: byte[]) length (occurrence: int) (hash: byte[]) : TradeId =
        BinaryPrimitives.WriteInt32BigEndian(Span<byte>(content, length - 4, 4), occurrence)
        SHA256.HashData(ReadOnlySpan(content, 0, length), Span hash) |> ignore

        {
            High = BinaryPrimitives.ReadUInt64BigEndian(ReadOnlySpan(hash, 0, 8))
            Low = BinaryPrimitives.ReadUInt64BigEndian(ReadOnlySpan(hash, 8, 8))
        }

    let private sources =
        [| Source.Api; Source.Stream; Source.Chain |]
        |> Array.map (fun source -> Encoding.UTF8.GetBytes(Source.text source))

    /// The id of a fill that is a log of the chain, by the log's index within its block.
    let identifyLog (exchange: string) (transaction: string) (index: int) : TradeId =
        let bytes (s: string) = Encoding.UTF8.GetBytes s
        let content = Array.zeroCreate (32 + 3 * (exchange.Length + transaction.Length))
        content[0] <- Version
        let n = text content 1 (ReadOnlySpan(bytes exchange))
        let n = text content n (ReadOnlySpan sources[int Source.Chain])
        let n = text content n (ReadOnlySpan(bytes transaction))
        digest content (n + 4) index (Array.zeroCreate 32)

    /// The id of the fill that is the `occurrence`-th (from 0) of its tuple.
    let identify (tuple: Tuple) (occurrence: int) : TradeId =
        let bytes (s: string) = Encoding.UTF8.GetBytes s

        let characters =
            tuple.Exchange.Length
            + tuple.Transaction.Length
            + tuple.Token.Length
            + tuple.Wallet.Length

        let content = Array.zeroCreate (64 + 3 * characters)
        content[0] <- Version
        let n = text content 1 (ReadOnlySpan(bytes tuple.Exchange))
        let n = text content n (ReadOnlySpan sources[int tuple.Source])
        let n = text content n (ReadOnlySpan(bytes tuple.Transaction))
        let n = text content n (ReadOnlySpan(bytes tuple.Token))
        let n = text content n (ReadOnlySpan(bytes tuple.Wallet))
        let n = numbers content n tuple.Side tuple.Price tuple.Size tuple.At
        digest content n occurrence (Array.zeroCreate 32)

    /// Gives the last trade of a batch its id as a sighting of its own: streams tell of each fill once, and what they repeat is equal in
    /// everything, the millisecond included. Two fills that are equal in all of it are one here; the API's numbers tell them apart.
    let identifyLast (batch: Batch) =
        let row = &batch.Trades[batch.Trades.Count - 1]
        let content = ArrayPool<byte>.Shared.Rent 2048
        let hash = ArrayPool<byte>.Shared.Rent 32
        content[0] <- Version
        let n = text content 1 (ReadOnlySpan(Encoding.UTF8.GetBytes batch.Exchange))
        let n = text content n (ReadOnlySpan sources[int row.Source])
        let n = text content n (batch.Utf8 row.Transaction)
        let n = text content n (ReadOnlySpan(batch.Names.Utf8 row.Token))
        let n = text content n (batch.Utf8 row.Wallet)
        let n = numbers content n row.Side row.Price row.Size row.At
        row.Id <- digest content n 0 hash
        ArrayPool<byte>.Shared.Return content
        ArrayPool<byte>.Shared.Return hash

    /// The start of a walk: no group is cut.
    let noCarry = Carry Map.empty

    /// What a carry holds, for a checkpoint: of each market the second, and how often each of its tuples was met.
    let carried (Carry carry) : (string * Instant * (TradeId * int) list) list = [
        for KeyValue(market, struct (second, group)) in carry -> market, second, Map.toList group
    ]

    /// The carry that held this.
    let carrying (groups: (string * Instant * (TradeId * int) list) seq) : Carry =
        groups
        |> Seq.map (fun (market, second, group) -> market, struct (second, Map.ofList group))
        |> Map.ofSeq
        |> Carry

    /// Numbers the trades of one page and gives them their ids. The pages of a walk are numbered in their order, each with
    /// the carry of the one before, so that a group which a page edge cuts is counted on.
    let number (Carry carried) (batch: Batch) : Carry =
        if batch.Trades.Count = 0 then
            Carry carried
        else
            let rows = batch.Trades
            let exchange = Encoding.UTF8.GetBytes batch.Exchange
            let content = ArrayPool<byte>.Shared.Rent 2048
            let hash = Array.zeroCreate 32
            // By the id of occurrence 0, which is the digest of the tuple.
            let counts = batch.Counts
            counts.Clear()
            let edges = Dictionary<Name, Instant>()

            for KeyValue(_, struct (_, group)) in carried do
                for KeyValue(first, count) in group do
                    counts[first] <- count

            let firsts = ArrayPool<TradeId>.Shared.Rent rows.Count

            for i in 0 .. rows.Count - 1 do
                let row = &rows[i]
                content[0] <- Version
                let n = text content 1 (ReadOnlySpan exchange)
                let n = text content n (ReadOnlySpan sources[int row.Source])
                let n = text content n (batch.Utf8 row.Transaction)

                if row.Source = Source.Chain then
                    // A log has a place of its own: nothing is numbered, and no group is cut.
                    row.Id <- digest content (n + 4) row.Occurrence hash
                elif row.Occurrence < 0 then
                    // The exchange's own id is in it.
                    let n = text content n (ReadOnlySpan(batch.Names.Utf8 row.Token))
                    let n = text content n (batch.Utf8 row.Wallet)
                    let n = numbers content n row.Side row.Price row.Size row.At
                    row.Id <- digest content n 0 hash
                else
                    let n = text content n (ReadOnlySpan(batch.Names.Utf8 row.Token))
                    let n = text content n (batch.Utf8 row.Wallet)
                    let n = numbers content n row.Side row.Price row.Size row.At
                    let first = digest content n 0 hash
                    let mutable met = 0
                    counts.TryGetValue(first, &met) |> ignore
                    counts[first] <- met + 1
                    row.Occurrence <- met
                    row.Id <- if met = 0 then first else digest content n met hash
                    firsts[i] <- first
                    edges[row.Market] <- row.At

            ArrayPool<byte>.Shared.Return content
            // What the next page may go on with: for each market the group of its last row.
            let mutable carry = carried

            for KeyValue(market, at) in edges do
                let key = batch.Names.Text market

                let before =
                    match Map.tryFind key carried with
                    | Some(struct (second, group)) when second = at -> group
                    | _ -> Map.empty

                carry <- Map.add key (struct (at, before)) carry

            for i in 0 .. rows.Count - 1 do
                let row = &rows[i]

                if row.Source <> Source.Chain && row.Occurrence >= 0 && edges[row.Market] = row.At then
                    let key = batch.Names.Text row.Market
                    let struct (second, group) = carry[key]
                    carry <- Map.add key (struct (second, Map.add firsts[i] counts[firsts[i]] group)) carry

            ArrayPool<TradeId>.Shared.Return firsts
            Carry carry

    /// Two readings of the same markets and times as one, with the larger count of every tuple: because ids number identical
    /// fills from 0 in each reading, that is the union by identity.
    let merge (one: Trade seq) (other: Trade seq) : Trade list =
        Seq.append one other
        |> Seq.distinctBy (fun trade ->
            struct (trade.Exchange, trade.Market, trade.At, trade.Id, trade.Source))
        |> List.ofSeq
