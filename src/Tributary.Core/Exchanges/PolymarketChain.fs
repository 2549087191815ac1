/// Trades of the past from Polygon itself, by JSON-RPC: the `OrderFilled` logs of the exchange's contracts (`polymarket-api.md` section
/// 4.5). What settled stands there, whatever the APIs show.
module internal Tributary.Exchanges.PolymarketChain

open System
open System.Collections.Generic
open System.Globalization
open System.Numerics
open System.Text
open Tributary

// Of one match there is a log for each maker's order, and one for the taker's own, which has the exchange for its counterparty:
//
//   {"address":"0x4bfb…","topics":["0xd0a0…"(OrderFilled),"0x…"(order),"0x…"(maker),"0x…"(taker)],"data":"0x…","blockNumber":"0x4c5f6a0",
//    "blockTimestamp":"0x66f2…"(not everywhere),"transactionHash":"0x…","logIndex":"0x1f","removed":false}
//
//   data, V1   makerAssetId, takerAssetId, makerAmountFilled, takerAmountFilled, fee                    asset 0 is the currency
//   data, V2   side (0 buy, 1 sell, the maker's), tokenId, makerAmountFilled, takerAmountFilled, fee, builder, metadata
//
// "maker" is whoever signed the order that was filled: in the log of the taker's own order that is the taker.

let private v1 = [
    "0x4bfb41d5b3570defd03c39a9a4d8de6bd8b8982e" // CTF Exchange
    "0xc5d563a36ae78145c45a50134d48a1215220f80a" // NegRisk CTF Exchange
]

// Sources disagree on the address of the second exchange for negative risk: both are asked for.
let private v2 = [
    "0xe111180000d2663c0091e4f400237545b87b996b"
    "0xe2222d279d744050d28e00520010520000310f59"
    "0xe2222d002000ba0053cef3375333610f64600036"
]

/// Its logs have a layout that nobody has published yet.
let private v3 = [ "0xe3333700ca9d93003f00f0f71f8515005f6c00aa" ]

/// `OrderFilled(bytes32,address,address,uint256,uint256,uint256,uint256,uint256)`
let orderFilledV1 =
    "0xd0a08e8c493f9c94f29311604c9de1b4e8c8d4c06bd0c789af57f2d65bfec0f6"

/// `OrderFilled(bytes32,address,address,uint8,uint256,uint256,uint256,uint256,bytes32,bytes32)`
let orderFilledV2 =
    "0xd543adfd945773f1a62f74f0ee55a5e3b9b1a28262980ba90b1a89f2ea84d8ee"

/// Polygon. An endpoint of another chain has none of these logs, and would look complete.
let private chainId = 137L

/// The newest blocks may still be replaced by others: they are not read. (Polygon has replaced some tens of blocks at a time.)
[<Literal>]
let private Margin = 64L

let private aSecond = TimeSpan.FromSeconds 1.0

// ---- what is asked

let private hex (number: int64) = $"0x{number:x}"

let private list (words: string list) =
    words |> List.map (fun word -> $"\"{word}\"") |> String.concat ","

let private call id (name: string) (parameters: string) =
    $"""{{"jsonrpc":"2.0","id":{id},"method":"{name}","params":[{parameters}]}}"""

let private batchOf calls = "[" + String.concat "," calls + "]"

let private block id number =
    call id "eth_getBlockByNumber" $"\"{number}\",false"

let private logs id (addresses: string list) (topics: string) first last =
    call
        id
        "eth_getLogs"
        $"""{{"address":[{list addresses}],"topics":{topics},"fromBlock":"{hex first}","toBlock":"{hex last}"}}"""

/// A range of blocks: so many from the first; `isCareful` once a range was refused.
[<Struct>]
type private Range = {
    First: int64
    Width: int64
    Head: int64
    IsCareful: bool
} with

    member this.Last = min (this.First + this.Width - 1L) (this.Head - Margin)

[<RequireQualifiedAccess>]
type private Place =
    /// Where is the head, and where does the chain begin?
    | Head
    /// Which block was the first of the part that is wanted? It lies behind the first of these (numbers and seconds), and not behind the
    /// second.
    | Seek of low: int64 * lowAt: int64 * high: int64 * highAt: int64 * head: int64 * step: int
    | Logs of Range
    /// One block has more logs than the endpoint gives: when was it?
    | Skip of Range

/// A start that is early by so many blocks costs nothing.
[<Literal>]
let private NearEnough = 2_000L

let private firstWidth = 1_000L
let private mostWidth = 1_000_000L

let private placeOf (state: HistoryState) =
    match state.Place.Split ' ' with
    | [| "seek"; low; lowAt; high; highAt; head; step |] ->
        Place.Seek(int64 low, int64 lowAt, int64 high, int64 highAt, int64 head, int step)
    | [| ("logs" | "skip") as word; first; width; head; careful |] ->
        let range = {
            First = int64 first
            Width = int64 width
            Head = int64 head
            IsCareful = (careful = "careful")
        }

        if word = "skip" then Place.Skip range else Place.Logs range
    | _ -> Place.Head

let private textOf place =
    match place with
    | Place.Head -> ""
    | Place.Seek(low, lowAt, high, highAt, head, step) -> $"seek {low} {lowAt} {high} {highAt} {head} {step}"
    | Place.Logs range
    | Place.Skip range ->
        let verb = if place.IsSkip then "skip" else "logs"
        let word = if range.IsCareful then "careful" else "bold"
        $"{verb} {range.First} {range.Width} {range.Head} {word}"

let private request (body: string) (state: HistoryState) : Request = {
    Endpoint = "rpc"
    Host = "rpc_url"
    // Some endpoints do not know their own address with a slash behind it.
    Path = ""
    Body = ValueSome body
    Walk = Walk.History state
}

/// Blocks come at a steady pace, so the block of a moment is near where that pace puts it; every third guess halves what is left, for
/// whatever pace there was.
let private guess (since: int64) low lowAt high highAt step =
    if step % 3 = 2 then
        low + (high - low) / 2L
    else
        let share = float (since - lowAt) / float (max 1L (highAt - lowAt))
        Math.Clamp(low + int64 (share * float (high - low)), low + 1L, high - 1L)

let private sinceOf (state: HistoryState) = state.Since.Micros / 1_000_000L

let ask (state: HistoryState) : Request =
    let body =
        match placeOf state with
        | Place.Head -> batchOf [ call 1 "eth_chainId" ""; block 2 "latest"; block 3 (hex 1L) ]
        | Place.Seek(low, lowAt, high, highAt, _, step) ->
            batchOf [ block 1 (hex (guess (sinceOf state) low lowAt high highAt step)) ]
        | Place.Skip range -> batchOf [ block 1 (hex range.First) ]
        | Place.Logs range ->
            batchOf [
                logs 1 (v1 @ v2) $"[[{list [ orderFilledV1; orderFilledV2 ]}]]" range.First range.Last
                block 2 (hex range.Last)
                logs 3 v3 "[]" range.First range.Last
            ]

    request body state

let private at place (state: HistoryState) =
    ask {
        state with
            Place = textOf place
            Held = ReadOnlyMemory<byte>.Empty
    }

// ---- what is answered

/// What one call was answered with: where its result lies, or an error.
[<Struct>]
type private Answer = {
    Id: int
    Result: Slice
    Code: int64
    /// Empty when there is a result.
    Message: string
}

let private answerMembers = Members [ "jsonrpc"; "id"; "result"; "error" ]
let private errorMembers = Members [ "code"; "message" ]

let private oneAnswer (json: ReadOnlySpan<byte>) (at: byref<int>) (answer: byref<Answer>) =
    let mutable walk = Members.Begin(json, &at)
    let mutable start, length = 0, 0
    let mutable id, code, message = 0, 0L, ""
    let mutable result = Slice.none

    while answerMembers.Next(json, &at, &walk) do
        match walk.Index with
        | 1 ->
            if not (Json.takeNull json &at) then
                walk.Ok <- Json.numeral json &at &start &length

                Int32.TryParse(json.Slice(start, length), CultureInfo.InvariantCulture, &id)
                |> ignore
        | 2 ->
            Json.space json &at
            start <- at
            walk.Ok <- Json.skip json &at
            result <- { Start = start; Length = at - start }
        | 3 ->
            message <- "an error without a message"
            let mutable inner = Members.Begin(json, &at)

            while errorMembers.Next(json, &at, &inner) do
                match inner.Index with
                | 0 ->
                    inner.Ok <- Json.numeral json &at &start &length

                    Int64.TryParse(json.Slice(start, length), CultureInfo.InvariantCulture, &code)
                    |> ignore
                | 1 ->
                    inner.Ok <- Json.string json &at &start &length

                    if inner.Ok then
                        message <- ValueOption.defaultValue message (Json.tryText (json.Slice(start, length)))
                | _ -> inner.Ok <- Json.skip json &at

            walk.Ok <- inner.Ok
        | _ -> walk.Ok <- Json.skip json &at

    answer <- {
        Id = id
        Result = result
        Code = code
        Message = message
    }

    walk.Ok

/// All answers of a body: of a batch, or the one error that some endpoints give to all of it.
let private answersOf (body: ReadOnlyMemory<byte>) : Result<List<Answer>, Fault> =
    let json = body.Span
    let answers = List<Answer>()
    let mutable answer = Unchecked.defaultof<Answer>
    let mutable at, ok, first = 0, true, true

    match Json.peek json &at with
    | '{'B ->
        ok <- oneAnswer json &at &answer

        if ok then
            answers.Add answer
    | _ ->
        ok <- Json.take json &at '['B

        while ok && Json.element json &at &first &ok do
            ok <- oneAnswer json &at &answer

            if ok then
                answers.Add answer

    if ok then
        Ok answers
    else
        Error(Fault.Undecodable(at, "an answer that breaks off or is no JSON-RPC"))

let private find id (answers: List<Answer>) =
    let found = answers.FindIndex(fun answer -> answer.Id = id)
    if found < 0 then ValueNone else ValueSome answers[found]

/// `0x1f`; negative when it is no such number, or a larger one.
let private number (text: ReadOnlySpan<byte>) =
    let mutable value = 0L

    if
        text.Length > 2
        && text[0] = '0'B
        && Int64.TryParse(text.Slice 2, NumberStyles.HexNumber, CultureInfo.InvariantCulture, &value)
    then
        value
    else
        -1L

let private blockMembers = Members [ "number"; "timestamp" ]

/// A block's number and time in seconds; negative when the answer has none.
let private blockOf (json: ReadOnlySpan<byte>) (result: Slice) : struct (int64 * int64) =
    let mutable at, start, length = result.Start, 0, 0
    let mutable found, seconds = -1L, -1L

    if result.Length > 0 && Json.peek json &at = '{'B then
        let mutable walk = Members.Begin(json, &at)

        while blockMembers.Next(json, &at, &walk) do
            match walk.Index with
            | 0 ->
                walk.Ok <- Json.string json &at &start &length
                found <- number (json.Slice(start, length))
            | 1 ->
                walk.Ok <- Json.string json &at &start &length
                seconds <- number (json.Slice(start, length))
            | _ -> walk.Ok <- Json.skip json &at

    struct (found, seconds)

/// Ways of saying "ask for less" (Alchemy, Infura, QuickNode, Ankr, Erigon, and others): there is no code that means only that.
let private isTooMuch (message: string) =
    [
        "more than"
        "block range"
        "blocks range"
        "range is too"
        "range too"
        "too large"
        "response size"
        "limit exceeded"
        "exceed maximum"
        "max results"
        "query timeout"
        "reduce"
    ]
    |> List.exists (fun part -> message.Contains(part, StringComparison.OrdinalIgnoreCase))

let private isThrottle code (message: string) =
    code = 429L
    || code = -32029L
    || [ "too many requests"; "rate limit"; "capacity" ]
       |> List.exists (fun part -> message.Contains(part, StringComparison.OrdinalIgnoreCase))

let private faultOf (answer: Answer) =
    if isThrottle answer.Code answer.Message then
        Fault.Throttled ValueNone
    else
        Fault.Refused(200, $"{answer.Message} (JSON-RPC error {answer.Code})")

// ---- logs

let private logMembers =
    Members [
        "address"
        "topics"
        "data"
        "blockNumber"
        "blockTimestamp"
        "transactionHash"
        "logIndex"
        "removed"
    ]

/// What is read of one log, as places in the JSON.
[<Struct; NoComparison; NoEquality>]
type private Log =
    val mutable Address: Slice
    val mutable Topic: Slice
    val mutable Maker: Slice
    val mutable Taker: Slice
    val mutable Data: Slice
    val mutable Transaction: Slice
    val mutable Block: int64
    val mutable Seconds: int64
    val mutable Index: int64
    val mutable IsRemoved: bool

let private readLog (json: ReadOnlySpan<byte>) (at: byref<int>) (log: byref<Log>) =
    let mutable walk = Members.Begin(json, &at)
    let mutable start, length = 0, 0
    log <- Log()
    log.Seconds <- -1L

    while logMembers.Next(json, &at, &walk) do
        match walk.Index with
        | 0 ->
            walk.Ok <- Json.string json &at &start &length
            log.Address <- { Start = start; Length = length }
        | 1 ->
            let mutable first, ok, count = true, Json.take json &at '['B, 0

            while ok && Json.element json &at &first &ok do
                ok <- Json.string json &at &start &length
                let slice = { Start = start; Length = length }

                match count with
                | 0 -> log.Topic <- slice
                | 2 -> log.Maker <- slice
                | 3 -> log.Taker <- slice
                | _ -> ()

                count <- count + 1

            walk.Ok <- ok
        | 2 ->
            walk.Ok <- Json.string json &at &start &length
            log.Data <- { Start = start; Length = length }
        | 3 ->
            walk.Ok <- Json.string json &at &start &length
            log.Block <- number (json.Slice(start, length))
        | 4 ->
            if not (Json.takeNull json &at) then
                walk.Ok <- Json.string json &at &start &length
                log.Seconds <- number (json.Slice(start, length))
        | 5 ->
            walk.Ok <- Json.string json &at &start &length
            log.Transaction <- { Start = start; Length = length }
        | 6 ->
            walk.Ok <- Json.string json &at &start &length
            log.Index <- number (json.Slice(start, length))
        | 7 -> walk.Ok <- Json.boolean json &at &log.IsRemoved
        | _ -> walk.Ok <- Json.skip json &at

    walk.Ok

let private bytesOf (json: ReadOnlySpan<byte>) (slice: Slice) = json.Slice(slice.Start, slice.Length)

let private isEqual (json: ReadOnlySpan<byte>) (slice: Slice) (text: string) =
    Ascii.EqualsIgnoreCase(bytesOf json slice, text.AsSpan())

/// The n-th word of the data as hexadecimal digits: 64 of them.
let private word (data: ReadOnlySpan<byte>) n = data.Slice(2 + 64 * n, 64)

/// An amount in millionths; negative when it is larger than any there is.
let private amount (data: ReadOnlySpan<byte>) n =
    let digits = word data n

    if digits.Slice(0, 48).ContainsAnyExcept '0'B then
        -1L
    else
        let mutable value = 0L

        if
            Int64.TryParse(
                digits.Slice 48,
                NumberStyles.AllowHexSpecifier,
                CultureInfo.InvariantCulture,
                &value
            )
        then
            value
        else
            -1L

let private uint256 (digits: ReadOnlySpan<byte>) =
    let mutable value = BigInteger.Zero
    // A leading zero, for hexadecimal numbers have signs.
    let text = "0" + Encoding.ASCII.GetString digits

    if BigInteger.TryParse(text, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, &value) then
        value.ToString CultureInfo.InvariantCulture
    else
        ""

/// Collateral for shares, in millionths: to the nearest, and to the even one between two.
let private quotient (collateral: int64) (shares: int64) : struct (int64 * bool) =
    let shares = UInt128.op_Implicit (uint64 shares)

    let scaled =
        UInt128.op_Implicit (uint64 collateral) * UInt128.op_Implicit 1_000_000UL

    let whole = scaled / shares
    let rest = scaled - whole * shares
    let twice = rest + rest
    let isUp = twice > shares || (twice = shares && UInt128.IsOddInteger whole)
    let price = int64 (UInt128.op_Explicit whole: uint64)
    struct ((if isUp then price + 1L else price), rest <> UInt128.Zero)

/// What cannot be known from a log alone.
[<NoComparison; NoEquality>]
type private Known = {
    Tokens: IReadOnlyDictionary<string, struct (MarketId * string)>
    /// The blocks that were asked for.
    Range: Range
    /// The seconds of blocks, where the logs do not say.
    Times: Dictionary<int64, int64>
}

let private fill
    (known: Known)
    (json: ReadOnlySpan<byte>)
    (log: inref<Log>)
    (origin: Slice)
    (batch: Batch)
    : string | null =
    let data = bytesOf json log.Data
    let isV2 = isEqual json log.Topic orderFilledV2
    let words = if isV2 then 7 else 5

    if data.Length <> 2 + 64 * words then
        $"the data of an OrderFilled log is {data.Length} characters long"
    elif log.Maker.Length <> 66 || log.Taker.Length <> 66 then
        "an OrderFilled log without maker and taker"
    elif log.Block < known.Range.First || log.Block > known.Range.Last then
        $"a log of block {log.Block}, which was not asked for"
    elif log.Index < 0L || log.Index > int64 Int32.MaxValue then
        "a log without a readable index"
    elif not (Identity.isValid (bytesOf json log.Transaction)) then
        "a log without a transaction"
    else
        let given, taken = amount data 2, amount data 3

        // Whose order was filled: does it buy, and what?
        let struct (buys, token) =
            if isV2 then
                struct (amount data 0 = 0L, uint256 (word data 1))
            elif (word data 0).ContainsAnyExcept '0'B then
                struct (false, uint256 (word data 0))
            else
                struct (true, uint256 (word data 1))

        let collateral, shares = if buys then given, taken else taken, given

        if given < 0L || taken < 0L then
            "an amount that is larger than any there is"
        elif token = "" || token = "0" then
            "an OrderFilled log without a token"
        elif shares = 0L then
            "an OrderFilled log without shares"
        else
            match known.Tokens.TryGetValue token with
            | false, _ -> null // of a market that was not asked for
            | true, struct (market, outcome) ->
                let seconds =
                    if log.Seconds >= 0L then
                        log.Seconds
                    else
                        match known.Times.TryGetValue log.Block with
                        | true, seconds -> seconds
                        | _ -> -1L

                if seconds < 0L then
                    $"the time of block {log.Block} is not known"
                else
                    // The exchange itself is the counterparty of the taker's own order.
                    let address = bytesOf json log.Address
                    let taker = bytesOf json log.Taker
                    let isTakers = Ascii.EqualsIgnoreCase(address.Slice 2, taker.Slice 26)
                    let struct (price, isRounded) = quotient collateral shares

                    let flags =
                        (if isRounded then Flags.Rounded else Flags.None)
                        ||| (if isTakers then Flags.None else Flags.Maker)

                    let wallet = batch.Keep("0x"B)
                    let rest = batch.KeepLower((bytesOf json log.Maker).Slice 26)

                    let row: TradeRow = {
                        Market = batch.Names.Intern(string market)
                        Token = batch.Names.Intern token
                        Outcome = batch.Names.Intern outcome
                        // A maker's order does the opposite of what the taker does with that token.
                        Side = if buys = isTakers then Side.Buy else Side.Sell
                        Source = Source.Chain
                        Price = Price.ofMillionths price
                        Size = Size.trusted shares
                        Collateral = Size.tryOfMillionths collateral
                        At = Instant.ofSeconds seconds
                        Received = batch.Received
                        Transaction = batch.KeepLower(bytesOf json log.Transaction)
                        Wallet = {
                            wallet with
                                Length = wallet.Length + rest.Length
                        }
                        Flags = flags
                        Occurrence = int log.Index
                        Id = { High = 0UL; Low = 0UL }
                        Inserted = false
                    }

                    batch.Trades.Add &row
                    let origin = origin
                    batch.TradeOrigins.Add &origin
                    null

/// Every log of a result to a row, or a rejection, or nothing when it is of no market that was asked for.
let private readLogs
    (known: Known)
    (json: ReadOnlySpan<byte>)
    (result: Slice)
    source
    (batch: Batch)
    : Fault voption =

    let reader =
        RowReader(fun json at batch ->
            let mutable log = Log()
            Json.space json &at
            let start = at

            if not (readLog json &at &log) then
                "the log breaks off or is malformed"
            elif log.IsRemoved then
                null // of a block that was replaced
            else
                fill known json &log { Start = start; Length = at - start } batch)

    let mutable at = result.Start
    Json.rows json &at source reader batch

/// The blocks of a result whose times the logs do not say.
let private untimed (json: ReadOnlySpan<byte>) (result: Slice) : int64 list =
    let blocks = SortedSet<int64>()
    let mutable at, first, ok = result.Start, true, true
    let mutable log = Log()
    ok <- Json.take json &at '['B

    while ok && Json.element json &at &first &ok do
        ok <- readLog json &at &log

        if ok && log.Seconds < 0L && log.Block >= 0L then
            blocks.Add log.Block |> ignore

    List.ofSeq blocks

/// How many elements a result has, which is a list.
let private lengthOf (json: ReadOnlySpan<byte>) (result: Slice) =
    let mutable at, first, ok, count = result.Start, true, true, 0L

    if result.Length > 0 && Json.take json &at '['B then
        while ok && Json.element json &at &first &ok do
            ok <- Json.skip json &at
            count <- count + 1L

    count

// ---- a walk

let private readUpTo (state: HistoryState) (seconds: int64) =
    Intervals.ofSeq [
        {
            Since = state.Since
            Until = min state.Until (Instant.ofSeconds seconds)
        }
    ]

/// The range was read up to its last block, which came at this second: what is next?
let private next (state: HistoryState) (range: Range) (seconds: int64) (met: int64) unknown : Decoded =
    let isOver =
        Instant.ofSeconds seconds >= state.Until || range.Last >= range.Head - Margin

    // Ten thousand logs are what many endpoints give at most.
    let width =
        if met > 5_000L then
            max 1L (range.Width / 2L)
        elif met > 2_000L then
            range.Width
        elif range.IsCareful then
            range.Width + range.Width / 8L + 1L
        else
            range.Width * 2L

    {
        Decoded.nothing with
            IsWhole = true
            Unknown = unknown
            // The last block's second may have another block.
            Read = readUpTo state seconds
            Next =
                if isOver then
                    []
                else
                    [
                        at
                            (Place.Logs {
                                range with
                                    First = range.Last + 1L
                                    Width = min mostWidth width
                            })
                            state
                    ]
    }

/// The part from some block on; nothing when that is not settled yet.
let private from first head (state: HistoryState) =
    if first > head - Margin then
        Decoded.nothing
    else
        {
            Decoded.nothing with
                Next = [
                    at
                        (Place.Logs {
                            First = first
                            Width = firstWidth
                            Head = head
                            IsCareful = false
                        })
                        state
                ]
        }

let private seek low lowAt high highAt head step (state: HistoryState) =
    if sinceOf state <= lowAt then
        from low head state
    elif high - low <= NearEnough then
        from (low + 1L) head state
    else
        {
            Decoded.nothing with
                Next = [ at (Place.Seek(low, lowAt, high, highAt, head, step)) state ]
        }

let private decodeHead (state: HistoryState) (body: ReadOnlyMemory<byte>) (answers: List<Answer>) =
    let json = body.Span

    let textOf id =
        match find id answers with
        | ValueSome answer when answer.Result.Length > 2 ->
            Encoding.UTF8.GetString(bytesOf body.Span answer.Result).Trim '"'
        | _ -> ""

    let blockAt id =
        match find id answers with
        | ValueSome answer -> answer.Result
        | ValueNone -> Slice.none

    let chain = number (ReadOnlySpan(Encoding.UTF8.GetBytes(textOf 1)))
    let struct (head, headAt) = blockOf json (blockAt 2)
    let struct (first, firstAt) = blockOf json (blockAt 3)

    if chain <> chainId then
        Decoded.faulty (
            Fault.Refused(
                200,
                $"the endpoint is of chain {chain}, and not of Polygon ({chainId}): set 'rpc_url' to one that is"
            )
        )
    elif head < 0L || headAt < 0L then
        Decoded.faulty (Fault.Undecodable(0, "an answer without the newest block"))
    elif first < 0L || firstAt < 0L then
        Decoded.faulty (
            Fault.Refused(200, "the endpoint does not know block 1: logs of the past need an archive node")
        )
    elif sinceOf state >= headAt then
        Decoded.nothing
    else
        seek first firstAt head headAt head 0 state

let private decodeSeek
    (state: HistoryState)
    (json: ReadOnlySpan<byte>)
    (answers: List<Answer>)
    low
    lowAt
    high
    highAt
    head
    step
    =
    match find 1 answers with
    | ValueNone -> Decoded.faulty (Fault.Undecodable(0, "an answer without the block that was asked for"))
    | ValueSome answer ->
        let struct (found, seconds) = blockOf json answer.Result

        if found <= low || found >= high || seconds < 0L then
            Decoded.faulty (Fault.Undecodable(answer.Result.Start, "not the block that was asked for"))
        elif seconds < sinceOf state then
            seek found seconds high highAt head (step + 1) state
        else
            seek low lowAt found seconds head (step + 1) state

let private decodeLogs
    (state: HistoryState)
    (body: ReadOnlyMemory<byte>)
    (times: Dictionary<int64, int64>)
    (batch: Batch)
    (range: Range)
    (answers: List<Answer>)
    : Decoded =
    let json = body.Span

    match find 1 answers, find 2 answers, find 3 answers with
    | ValueSome found, ValueSome last, ValueSome others ->
        let struct (number, seconds) = blockOf json last.Result
        let missing = if times.Count > 0 then [] else untimed json found.Result

        if number <> range.Last || seconds < 0L then
            Decoded.faulty (
                Fault.Undecodable(last.Result.Start, $"not block {range.Last}, which was asked for")
            )
        elif not missing.IsEmpty then
            // The times of the blocks have to be asked for; the logs wait.
            let calls = missing |> List.mapi (fun i number -> block (i + 1) (hex number))

            {
                Decoded.nothing with
                    IsWhole = true
                    Next = [
                        request (batchOf calls) {
                            state with
                                Held = ReadOnlyMemory(body.ToArray())
                        }
                    ]
            }
        else
            let known = {
                Tokens = state.Tokens
                Range = range
                Times = times
            }

            match readLogs known json found.Result $"blocks {range.First} to {range.Last}" batch with
            | ValueSome fault -> Decoded.faulty fault
            | ValueNone -> next state range seconds (lengthOf json found.Result) (lengthOf json others.Result)
    | _ -> Decoded.faulty (Fault.Undecodable(0, "an answer without the logs that were asked for"))

/// A block that the endpoint does not give is a hole in all the markets: it is named, and the walk goes on behind it.
let private decodeSkip
    (state: HistoryState)
    (json: ReadOnlySpan<byte>)
    (range: Range)
    (answers: List<Answer>)
    =
    match find 1 answers with
    | ValueNone -> Decoded.faulty (Fault.Undecodable(0, "an answer without the block that was asked for"))
    | ValueSome answer ->
        let struct (number, seconds) = blockOf json answer.Result

        if number <> range.First || seconds < 0L then
            Decoded.faulty (
                Fault.Undecodable(answer.Result.Start, $"not block {range.First}, which was asked for")
            )
        else
            let at = Instant.ofSeconds seconds

            {
                next state { range with Width = 1L } seconds 0L 0L with
                    Truncated = state.Markets |> List.map (fun market -> struct (market, at, at + aSecond))
            }

let private decodeTimes
    (state: HistoryState)
    (body: ReadOnlyMemory<byte>)
    (batch: Batch)
    (range: Range)
    answers
    =
    let times = Dictionary<int64, int64>()

    for answer: Answer in answers do
        let struct (number, seconds) = blockOf body.Span answer.Result

        if number >= 0L && seconds >= 0L then
            times[number] <- seconds

    match answersOf state.Held with
    | Ok held -> decodeLogs state state.Held times batch range held
    | Error fault -> Decoded.faulty fault

/// The same blocks, in ranges that are so many times shorter; a single one is passed over.
let private shorter times (range: Range) (state: HistoryState) =
    let blocks = range.Last - range.First + 1L

    let less = {
        range with
            Width = max 1L (blocks / times)
            IsCareful = true
    }

    {
        Decoded.nothing with
            IsWhole = true
            Next = [ at (if blocks > 1L then Place.Logs less else Place.Skip less) state ]
    }

/// Endpoints say in many ways that they were asked for too much, and some say nothing.
let onFault (state: HistoryState) (fault: Fault) : Decoded voption =
    match placeOf state, fault with
    | Place.Logs range, (Fault.TooLarge _ | Fault.Refused(413, _)) -> ValueSome(shorter 2L range state)
    // An endpoint that is away is asked in vain a few times more: so ranges get short quickly.
    | Place.Logs range, (Fault.TimedOut _ | Fault.Failing(504, _)) when range.Last > range.First ->
        ValueSome(shorter 16L range state)
    | _ -> ValueNone

let decode (state: HistoryState) (body: ReadOnlyMemory<byte>) (batch: Batch) : Decoded =
    match answersOf body with
    | Error fault -> Decoded.faulty fault
    | Ok answers ->
        let failed = answers.FindIndex(fun answer -> answer.Message <> "")

        match placeOf state with
        | Place.Logs range when
            failed >= 0
            && state.Held.IsEmpty
            && isTooMuch answers[failed].Message
            && not (isThrottle answers[failed].Code answers[failed].Message)
            ->
            shorter 2L range state
        | _ when failed >= 0 -> Decoded.faulty (faultOf answers[failed])
        | Place.Head -> decodeHead state body answers
        | Place.Seek(low, lowAt, high, highAt, head, step) ->
            decodeSeek state body.Span answers low lowAt high highAt head step
        | Place.Skip range -> decodeSkip state body.Span range answers
        | Place.Logs range when state.Held.IsEmpty -> decodeLogs state body (Dictionary()) batch range answers
        | Place.Logs range -> decodeTimes state body batch range answers

let source: HistorySource = {
    Name = "chain"
    Stream = Stream.History
    Limits = {
        Source = "chain"
        Horizon = ValueNone
        Omits = ""
    }
    IsUsual = false
    CanJump = true
    FromStart = true
    Withholds = Cause.Refused
    MostMarkets = 1_000
    Endpoint = "rpc"
    PageRows = 5_000
    Ask = ask
}
