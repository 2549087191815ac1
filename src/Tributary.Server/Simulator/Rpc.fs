namespace Tributary.Server.Simulator

open System
open System.Collections.Generic
open System.Globalization
open System.Numerics
open System.Text.Json

/// Polygon as the exchange settles on it: JSON-RPC at `/rpc`, one call or a batch. There is a block a second, which is simpler than
/// the real chain's two and no help to whoever reads it: blocks and times have to be asked for all the same. Of each fill there are two
/// `OrderFilled` logs, the maker's and then the taker's own, whose counterparty is the contract; until 2026-04-28 in the layout of
/// version 1, then of version 2.
[<Sealed>]
type internal Rpc(options: SimulatorOptions, world: World) =
    /// 2020-01-01: block 0.
    let genesis = 1_577_836_800L
    /// 2026-04-28: from here on the second version.
    let secondVersion = 1_777_334_400L

    let mostBlocks = 1_000_000L
    let mostLogs = 10_000
    /// As deep as blocks are replaced.
    let reorgDepth = 40L

    let orderFilled1 =
        "0xd0a08e8c493f9c94f29311604c9de1b4e8c8d4c06bd0c789af57f2d65bfec0f6"

    let orderFilled2 =
        "0xd543adfd945773f1a62f74f0ee55a5e3b9b1a28262980ba90b1a89f2ea84d8ee"

    let exchange negRisk isFirst =
        match isFirst, negRisk with
        | true, false -> "0x4bfb41d5b3570defd03c39a9a4d8de6bd8b8982e"
        | true, true -> "0xc5d563a36ae78145c45a50134d48a1215220f80a"
        | false, false -> "0xe111180000d2663c0091e4f400237545b87b996b"
        | false, true -> "0xe2222d279d744050d28e00520010520000310f59"

    let third = "0xe3333700ca9d93003f00f0f71f8515005f6c00aa"

    let hex (number: int64) = $"0x{number:x}"
    let word (number: int64) = number.ToString "x64"

    let words = Dictionary<string, string>()

    /// A token's number as a word.
    let wordOf (token: string) =
        match words.TryGetValue token with
        | true, known -> known
        | _ ->
            let digits =
                (BigInteger.Parse(token, CultureInfo.InvariantCulture)).ToString("x").TrimStart('0')

            let padded = digits.PadLeft(64, '0')
            words[token] <- padded
            padded

    let address (wallet: string) =
        "0x" + wallet.Substring(2).ToLowerInvariant().PadLeft(64, '0')

    let second block = genesis + block

    /// `0x1f`, or `latest`.
    let blockOf now (value: JsonElement) =
        match value.GetString() with
        | "latest"
        | "finalized"
        | "safe" -> now - genesis
        | "earliest" -> 0L
        | Null -> raise (Refused(-32602, "invalid block"))
        | NonNull text ->
            match
                Int64.TryParse(
                    text.AsSpan(min 2 text.Length),
                    NumberStyles.HexNumber,
                    CultureInfo.InvariantCulture
                )
            with
            | true, number when text.StartsWith "0x" -> number
            | _ -> raise (Refused(-32602, $"invalid block {text}"))

    let hashOf (block: int64) =
        "0x" + Dice.Keyed(int64 options.Seed, 51L, block).Hex 32

    let block (writer: Utf8JsonWriter) now (value: JsonElement) =
        let number = blockOf now value

        if second number > now then
            writer.WriteNullValue()
        else
            writer.WriteStartObject()
            writer.WriteString("number", hex number)
            writer.WriteString("hash", hashOf number)
            writer.WriteString("parentHash", hashOf (number - 1L))
            writer.WriteString("timestamp", hex (second number))
            writer.WriteStartArray "transactions"
            writer.WriteEndArray()
            writer.WriteEndObject()

    let collateralOf price size =
        int64 (Math.Round(decimal price * decimal size / 1_000_000m, MidpointRounding.ToEven))

    /// The data of the log of one order: whether it buys which token, for how much, and what it paid.
    let dataOf isFirst buys token size collateral fee =
        if isFirst then
            let asset, other =
                (if buys then
                     word 0L, wordOf token
                 else
                     wordOf token, word 0L)

            let given, taken = (if buys then collateral, size else size, collateral)
            $"0x{asset}{other}{word given}{word taken}{word fee}"
        else
            let side = if buys then 0L else 1L
            let given, taken = (if buys then collateral, size else size, collateral)
            $"0x{word side}{wordOf token}{word given}{word taken}{word fee}{word 0L}{word 0L}"

    let strings (value: JsonElement) =
        match value.ValueKind with
        | JsonValueKind.Array -> [ for one in value.EnumerateArray() -> string (one.GetString()) ]
        | JsonValueKind.String -> [ string (value.GetString()) ]
        | _ -> []

    let log
        (writer: Utf8JsonWriter)
        (contract: string)
        (topics: string list)
        (data: string)
        (number: int64)
        (transaction: string)
        (index: int)
        (isRemoved: bool)
        =
        writer.WriteStartObject()
        writer.WriteString("address", contract)
        writer.WriteStartArray "topics"

        for topic in topics do
            writer.WriteStringValue topic

        writer.WriteEndArray()
        writer.WriteString("data", data)
        writer.WriteString("blockNumber", hex number)

        if not options.RpcPlain then
            writer.WriteString("blockTimestamp", hex (second number))

        writer.WriteString("transactionHash", transaction)
        writer.WriteString("transactionIndex", "0x0")
        writer.WriteString("blockHash", hashOf number)
        writer.WriteString("logIndex", hex (int64 index))
        writer.WriteBoolean("removed", isRemoved)
        writer.WriteEndObject()

    /// Fills of these blocks, in the order in which they were settled: by second, by market, by number.
    let settled first last =
        let found = List<struct (int64 * int * int)>()

        for index in 0 .. world.Markets.Length - 1 do
            let market = world.Markets[index]

            for number in market.Until(second first - 1L) .. market.Until(second last) - 1 do
                found.Add(struct (market.Fill(number).Second, index, number))

        found.Sort()
        found

    let logs (writer: Utf8JsonWriter) now (dice: Dice) (filter: JsonElement) =
        let first = blockOf now (filter.GetProperty "fromBlock")
        let last = min (blockOf now (filter.GetProperty "toBlock")) (now - genesis)

        if last - first >= mostBlocks then
            raise (
                Refused(-32602, $"block range is too large: {last - first + 1L}, the maximum is {mostBlocks}")
            )

        let wanted =
            match filter.TryGetProperty "address" with
            | true, value -> strings value |> List.map _.ToLowerInvariant() |> set
            | _ -> Set.empty

        let topics =
            match filter.TryGetProperty "topics" with
            | true, value when value.GetArrayLength() > 0 -> strings value[0] |> set
            | _ -> Set.empty

        let isWanted contract topic =
            (wanted.IsEmpty || wanted.Contains contract)
            && (topics.IsEmpty || topics.Contains topic)

        // Counted before any is made.
        let count =
            world.Markets
            |> Array.sumBy (fun market -> market.Until(second last) - market.Until(second first - 1L))

        if 2 * count > mostLogs && wanted <> set [ third ] then
            raise (Refused(-32005, $"query returned more than {mostLogs} results"))

        writer.WriteStartArray()
        let mutable block, index = -1L, 0

        if wanted <> set [ third ] then
            for struct (at, place, number) in settled first last do
                let market = world.Markets[place]
                let fill = market.Fill number

                if at <> block then
                    block <- at
                    index <- 0

                let isFirst = at < secondVersion
                let contract = exchange market.Info.Event.NegRisk isFirst
                let topic = if isFirst then orderFilled1 else orderFilled2

                // A block that was replaced: what it held is not there, or in another transaction.
                let isReplaced = options.RpcReorgs && at > now - reorgDepth && dice.Chance 0.5

                let transaction =
                    if isReplaced then
                        "0x" + dice.Hex 32
                    else
                        market.TransactionHash fill

                if isWanted contract topic then
                    let collateral = collateralOf fill.Price fill.Size
                    let taker, maker = world.Wallet fill.Taker, world.Wallet fill.Maker

                    let order n =
                        "0x" + Dice.Keyed(int64 options.Seed, 52L, int64 place, int64 number, n).Hex 32

                    let token = market.Info.Tokens[fill.Token]
                    let other = market.Info.Tokens[1 - fill.Token]
                    let number = at - genesis

                    let makers =
                        if fill.Minted then
                            dataOf isFirst fill.Buys other fill.Size (fill.Size - collateral) 0L
                        else
                            dataOf isFirst (not fill.Buys) token fill.Size collateral 0L

                    log
                        writer
                        contract
                        [ topic; order 1L; address maker; address taker ]
                        makers
                        number
                        transaction
                        index
                        isReplaced

                    let takers = dataOf isFirst fill.Buys token fill.Size collateral (collateral / 100L)

                    log
                        writer
                        contract
                        [ topic; order 2L; address taker; address contract ]
                        takers
                        number
                        transaction
                        (index + 1)
                        isReplaced

                index <- index + 2

        if options.RpcUnknown > 0 && wanted.Contains third then
            let every = int64 options.RpcUnknown

            for slot in (first + every - 1L) / every .. last / every do
                log writer third [ "0x" + String.replicate 32 "33" ] "0x" (slot * every) (hashOf slot) 0 false

        writer.WriteEndArray()

    let call (writer: Utf8JsonWriter) now (dice: Dice) (name: string) (parameters: JsonElement) =
        match name with
        | "eth_chainId" -> writer.WriteStringValue "0x89"
        | "eth_blockNumber" -> writer.WriteStringValue(hex (now - genesis))
        | "eth_getBlockByNumber" -> block writer now parameters[0]
        | "eth_getLogs" -> logs writer now dice parameters[0]
        | other -> raise (Refused(-32601, $"the method {other} does not exist/is not available"))

    /// One call, on a sheet of its own: an error takes back what was written of the result.
    let one (writer: Utf8JsonWriter) now dice (request: JsonElement) =
        use sheet = Sheet.Take()

        let id =
            match request.TryGetProperty "id" with
            | true, id -> id.GetRawText()
            | _ -> "null"

        writer.WriteStartObject()
        writer.WriteString("jsonrpc", "2.0")
        writer.WritePropertyName "id"
        writer.WriteRawValue id

        try
            call
                sheet.Json
                now
                dice
                (string (request.GetProperty("method").GetString()))
                (request.GetProperty "params")

            writer.WritePropertyName "result"
            writer.WriteRawValue(sheet.Written.Span, true)
        with
        | Refused(code, message) ->
            writer.WriteStartObject "error"
            writer.WriteNumber("code", code)
            writer.WriteString("message", message)
            writer.WriteEndObject()
        | :? KeyNotFoundException
        | :? InvalidOperationException
        | :? IndexOutOfRangeException ->
            writer.WriteStartObject "error"
            writer.WriteNumber("code", -32602)
            writer.WriteString("message", "invalid argument")
            writer.WriteEndObject()

        writer.WriteEndObject()

    member _.Answer(writer: Utf8JsonWriter, now: int64, ask: Ask) : Answer =
        let now = Micros.toSeconds now

        try
            use document = JsonDocument.Parse ask.Body

            match document.RootElement.ValueKind with
            | JsonValueKind.Array ->
                writer.WriteStartArray()

                for request in document.RootElement.EnumerateArray() do
                    one writer now ask.Dice request

                writer.WriteEndArray()
            | _ -> one writer now ask.Dice document.RootElement

            Answer.json
        with :? JsonException ->
            raise (Refused(400, "parse error"))
