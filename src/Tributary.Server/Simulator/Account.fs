namespace Tributary.Server.Simulator

open System
open System.Collections.Concurrent
open System.Collections.Generic
open System.Globalization
open System.Net.WebSockets
open System.Security.Cryptography
open System.Text
open System.Text.Json
open System.Text.Json.Nodes
open System.Threading
open System.Threading.Channels
open System.Threading.Tasks
open Microsoft.AspNetCore.Http
open Tributary

/// An order of a simulated account.
type private PlacedOrder = {
    Id: string
    Wallet: string
    Condition: string
    Token: string
    Buys: bool
    Price: decimal
    Size: decimal
    mutable Matched: decimal
    mutable State: string
    /// Microseconds.
    PlacedAt: int64
}

/// A trade of a simulated account.
type private MadeTrade = {
    TradeId: string
    Order: PlacedOrder
    Amount: decimal
    Takes: bool
    mutable Stage: string
    MatchedAt: int64
}

/// Accounts of the simulated exchange: whoever signs with a wallet has one. It checks who asks as the exchange does: a wallet by finding who
/// signed, API credentials by their HMAC. What happens to an account is told from outside: place, fill, cancel.
[<Sealed>]
type Accounts internal (seed: int, now: unit -> int64) =
    let gate = obj ()
    let known = HashSet<string>()
    let orders = List<PlacedOrder>()
    let trades = List<MadeTrade>()

    let sockets =
        ConcurrentDictionary<Guid, struct (string * Channel<string> * CancellationTokenSource)>()

    let asked = ConcurrentQueue<string>()
    let mutable isRefusing = false

    // ---- who asks

    let lower (text: string) = text.ToLowerInvariant()

    let hash (what: string) (wallet: string) =
        SHA256.HashData(Encoding.UTF8.GetBytes $"{seed}/{what}/{lower wallet}")

    let keyOf wallet =
        Guid(ReadOnlySpan(hash "key" wallet, 0, 16)).ToString()

    let secretOf wallet =
        Convert.ToBase64String(hash "secret" wallet).Replace('+', '-').Replace('/', '_')

    let passphraseOf wallet =
        Convert.ToHexString(hash "passphrase" wallet)

    let keccak (text: string) =
        Keccak.hash (Encoding.UTF8.GetBytes text)

    /// A number as 32 bytes.
    let uint256 (number: int64) =
        Convert.FromHexString(number.ToString("x").PadLeft(64, '0'))

    /// Who signed the statement that wallets sign.
    let signer (wallet: string) (stamp: string) (nonce: int64) (signature: string) =
        let struct' = [|
            yield! keccak "ClobAuth(address address,string timestamp,uint256 nonce,string message)"
            yield! Convert.FromHexString(wallet.Substring(2).PadLeft(64, '0'))
            yield! keccak stamp
            yield! uint256 nonce
            yield! keccak "This message attests that I control the given wallet"
        |]

        let domain = [|
            yield! keccak "EIP712Domain(string name,string version,uint256 chainId)"
            yield! keccak "ClobAuthDomain"
            yield! keccak "1"
            yield! uint256 137L
        |]

        Secp256k1.recover
            (Keccak.hash [| 0x19uy; 1uy; yield! Keccak.hash domain; yield! Keccak.hash struct' |])
            (Convert.FromHexString(signature.Substring 2))

    let header (http: HttpContext) (name: string) = string http.Request.Headers[name]

    /// A signature is good for half a minute.
    let isOnTime (stamp: string) =
        match Int64.TryParse(stamp, NumberStyles.None, CultureInfo.InvariantCulture) with
        | true, stamp -> abs (now () / 1_000_000L - stamp) <= 30L
        | _ -> false

    let wallet (http: HttpContext) : string voption =
        let address, stamp, nonce, signature =
            header http "POLY_ADDRESS",
            header http "POLY_TIMESTAMP",
            header http "POLY_NONCE",
            header http "POLY_SIGNATURE"

        try
            match Int64.TryParse nonce with
            | true, nonce when
                isOnTime stamp
                && signer address stamp nonce signature = ValueSome address
                && not isRefusing
                ->
                ValueSome address
            | _ -> ValueNone
        with
        | :? FormatException
        | :? ArgumentException -> ValueNone

    let isKnown wallet =
        lock gate (fun () -> known.Contains(lower wallet))

    let account (http: HttpContext) (path: string) : string voption =
        let address, stamp = header http "POLY_ADDRESS", header http "POLY_TIMESTAMP"

        let key =
            Convert.FromBase64String((secretOf address).Replace('-', '+').Replace('_', '/'))

        let signature =
            HMACSHA256.HashData(key, Encoding.UTF8.GetBytes(stamp + http.Request.Method + path))
            |> Convert.ToBase64String

        if
            not isRefusing
            && isKnown address
            && isOnTime stamp
            && header http "POLY_API_KEY" = keyOf address
            && header http "POLY_PASSPHRASE" = passphraseOf address
            && header http "POLY_SIGNATURE" = signature.Replace('+', '-').Replace('/', '_')
        then
            ValueSome(lower address)
        else
            ValueNone

    // ---- what is told

    let text (amount: decimal) =
        amount.ToString("0.######", CultureInfo.InvariantCulture)

    let object (members: (string * string) list) =
        let json = JsonObject()

        for name, value in members do
            json[name] <- JsonValue.Create value

        json

    let sideOf buys = if buys then "BUY" else "SELL"

    let orderJson (order: PlacedOrder) =
        let json =
            object [
                "id", order.Id
                "status", order.State
                "owner", keyOf order.Wallet
                "maker_address", order.Wallet
                "market", order.Condition
                "asset_id", order.Token
                "side", sideOf order.Buys
                "original_size", text order.Size
                "size_matched", text order.Matched
                "price", text order.Price
                "outcome", "Yes"
                "order_type", "GTC"
                "expiration", "0"
            ]

        json["created_at"] <- JsonValue.Create(order.PlacedAt / 1_000_000L)
        json["associate_trades"] <- JsonArray()
        json

    // Somebody who trades with everybody.
    let stranger = "0x00000000000000000000000000000000000000aa"

    let tradeJson (trade: MadeTrade) =
        let order = trade.Order
        let second = string (trade.MatchedAt / 1_000_000L)
        let owner = if trade.Takes then order.Wallet else stranger

        let json =
            object [
                "id", trade.TradeId
                "taker_order_id", (if trade.Takes then order.Id else "0xstranger")
                "market", order.Condition
                "asset_id", order.Token
                // Who takes is on the other side.
                "side", sideOf (order.Buys = trade.Takes)
                "size", text trade.Amount
                "price", text order.Price
                "fee_rate_bps", "0"
                "status", trade.Stage
                "match_time", second
                "last_update", second
                "outcome", "Yes"
                "owner", keyOf owner
                "maker_address", owner
                "transaction_hash", "0x" + Convert.ToHexString(hash "transaction" trade.TradeId)
                "trader_side", (if trade.Takes then "TAKER" else "MAKER")
            ]

        let maker id wallet amount =
            object [
                "order_id", id
                "owner", keyOf wallet
                "maker_address", wallet
                "matched_amount", text amount
                "price", text order.Price
                "fee_rate_bps", "0"
                "asset_id", order.Token
                "outcome", "Yes"
            ]

        let makers = JsonArray()

        if trade.Takes then
            makers.Add(maker "0xresting" stranger trade.Amount)
        else
            // Somebody else's order beside it.
            makers.Add(maker "0xbeside" stranger 1m)
            makers.Add(maker order.Id order.Wallet trade.Amount)

        json["maker_orders"] <- makers
        json

    let push wallet (json: JsonObject) =
        let said = json.ToJsonString()

        for KeyValue(_, struct (listener, queue, _)) in sockets do
            if listener = lower wallet then
                queue.Writer.TryWrite said |> ignore

    let milliseconds () = string (now () / 1_000L)

    let tellOrder kind (order: PlacedOrder) =
        let json = orderJson order
        json["event_type"] <- JsonValue.Create "order"
        json["type"] <- JsonValue.Create(kind: string)
        json["timestamp"] <- JsonValue.Create(milliseconds ())
        push order.Wallet json

    let tellTrade (trade: MadeTrade) =
        let json = tradeJson trade
        json["event_type"] <- JsonValue.Create "trade"
        json["type"] <- JsonValue.Create "TRADE"
        json["status"] <- JsonValue.Create("TRADE_STATUS_" + trade.Stage)
        json["timestamp"] <- JsonValue.Create(milliseconds ())
        push trade.Order.Wallet json

    // Few, so that there are several pages.
    let pageRows = 2

    /// A page behind a cursor, which is a number in Base64.
    let page (http: HttpContext) (rows: JsonObject list) =
        let from =
            match string http.Request.Query["next_cursor"] with
            | "" -> 0
            | cursor -> int (Encoding.UTF8.GetString(Convert.FromBase64String cursor))

        let shown = rows |> List.skip (min from rows.Length) |> List.truncate pageRows

        let next =
            if from + pageRows < rows.Length then
                string (from + pageRows)
            else
                "-1"

        let json = JsonObject()
        json["limit"] <- JsonValue.Create pageRows
        json["count"] <- JsonValue.Create shown.Length
        json["next_cursor"] <- JsonValue.Create(Convert.ToBase64String(Encoding.UTF8.GetBytes next))
        json["data"] <- JsonArray(shown |> List.map (fun row -> row :> JsonNode) |> Array.ofList)
        json :> JsonNode

    let error (message: string) = object [ "error", message ] :> JsonNode

    let answer (http: HttpContext) (path: string list) : struct (int * JsonNode) =
        let own = "/" + String.Join('/', path)

        let ofAccount (read: string -> struct (int * JsonNode)) =
            match account http own with
            | ValueSome wallet -> lock gate (fun () -> read wallet)
            | ValueNone -> struct (401, error "Unauthorized/Invalid api key")

        match http.Request.Method, path with
        | "GET", [ "auth"; "derive-api-key" ]
        | "POST", [ "auth"; "api-key" ] ->
            match wallet http with
            | ValueNone -> struct (401, error "Invalid L1 Request headers")
            | ValueSome wallet when path = [ "auth"; "derive-api-key" ] && not (isKnown wallet) ->
                struct (400, error "Could not derive api key!")
            | ValueSome wallet ->
                lock gate (fun () -> known.Add(lower wallet) |> ignore)

                struct (200,
                        object [
                            "apiKey", keyOf wallet
                            "secret", secretOf wallet
                            "passphrase", passphraseOf wallet
                        ]
                        :> JsonNode)
        | "GET", [ "data"; "orders" ] ->
            ofAccount (fun wallet ->
                let open' =
                    orders
                    |> Seq.filter (fun order -> order.Wallet = wallet && order.State = "LIVE")

                struct (200, page http [ for order in open' -> orderJson order ]))
        | "GET", [ "data"; "order"; id ] ->
            ofAccount (fun wallet ->
                match orders |> Seq.tryFind (fun order -> order.Id = id && order.Wallet = wallet) with
                | Some order -> struct (200, orderJson order :> JsonNode)
                | None -> struct (404, error "order not found"))
        | "GET", [ "data"; "trades" ] ->
            ofAccount (fun wallet ->
                let after =
                    match Int64.TryParse(string http.Request.Query["after"]) with
                    | true, second -> second * 1_000_000L
                    | _ -> 0L

                let mine =
                    trades
                    |> Seq.filter (fun trade -> trade.Order.Wallet = wallet && trade.MatchedAt >= after)
                    |> Seq.rev

                struct (200, page http [ for trade in mine -> tradeJson trade ]))
        | _ -> struct (404, error "not found")

    /// Who opens a connection with these credentials.
    let listener (said: string) : string voption =
        try
            use json = JsonDocument.Parse said
            let auth = json.RootElement.GetProperty "auth"

            let text (name: string) =
                string (auth.GetProperty(name).GetString())

            lock gate (fun () ->
                known
                |> Seq.tryFind (fun wallet ->
                    not isRefusing
                    && text "apiKey" = keyOf wallet
                    && text "secret" = secretOf wallet
                    && text "passphrase" = passphraseOf wallet))
            |> ValueOption.ofOption
        with
        | :? JsonException
        | :? KeyNotFoundException
        | :? InvalidOperationException -> ValueNone

    let change id (what: PlacedOrder -> unit) =
        lock gate (fun () ->
            match orders |> Seq.tryFind (fun order -> order.Id = id) with
            | Some order -> what order
            | None -> invalidArg (nameof id) $"there is no order '{id}'")

    /// Every request to `auth` and `data`, as `GET /data/orders 200`.
    member _.Asked: string list = List.ofSeq asked

    /// Connections that were let in and are open.
    member _.Listening = sockets.Count

    /// The API credentials that a wallet is given: key, secret, passphrase.
    member _.CredentialsOf(wallet: string) : struct (string * string * string) =
        struct (keyOf wallet, secretOf wallet, passphraseOf wallet)

    /// Nobody is believed any more.
    member _.IsRefusing
        with get () = isRefusing
        and set value = isRefusing <- value

    /// Breaks every connection off.
    member _.Disconnect() =
        for KeyValue(_, struct (_, _, ending)) in sockets do
            ending.Cancel()

    /// An order of a wallet's account rests in the book; answers its id.
    member _.Place
        (wallet: string, condition: string, token: string, buys: bool, price: decimal, size: decimal)
        : string =
        lock gate (fun () ->
            let order = {
                Id = $"0x{orders.Count + 1:x64}"
                Wallet = lower wallet
                Condition = condition
                Token = token
                Buys = buys
                Price = price
                Size = size
                Matched = 0m
                State = "LIVE"
                PlacedAt = now ()
            }

            orders.Add order
            tellOrder "PLACEMENT" order
            order.Id)

    /// Some of an order is matched, as maker or as taker; answers the trade's id.
    member _.Fill(order: string, amount: decimal, takes: bool) : string =
        let id = ref ""

        change order (fun order ->
            order.Matched <- order.Matched + amount

            if order.Matched >= order.Size then
                order.State <- "MATCHED"

            id.Value <- $"trade-{trades.Count + 1}"

            let trade = {
                TradeId = id.Value
                Order = order
                Amount = amount
                Takes = takes
                Stage = "MATCHED"
                MatchedAt = now ()
            }

            trades.Add trade
            tellTrade trade
            tellOrder "UPDATE" order)

        id.Value

    /// A trade comes further: `MINED`, `CONFIRMED`, `RETRYING` or `FAILED`.
    member _.Settle(trade: string, stage: string) =
        lock gate (fun () ->
            for one in trades do
                if one.TradeId = trade then
                    one.Stage <- stage
                    tellTrade one)

    member _.Cancel(order: string) =
        change order (fun order ->
            order.State <- "CANCELED"
            tellOrder "CANCELLATION" order)

    /// Answers a request to `auth` or `data`.
    member internal _.Handle(http: HttpContext, path: string list) : Task = task {
        let struct (status, body) = answer http path
        let own = "/" + String.Join('/', path)
        asked.Enqueue $"{http.Request.Method} {own} {status}"
        http.Response.StatusCode <- status
        http.Response.ContentType <- "application/json"
        do! http.Response.WriteAsync(body.ToJsonString())
    }

    /// The user channel.
    member internal _.Serve(http: HttpContext) : Task = task {
        if not http.WebSockets.IsWebSocketRequest then
            http.Response.StatusCode <- 400
        else
            use! socket = http.WebSockets.AcceptWebSocketAsync()
            let buffer: byte[] = Array.zeroCreate 65_536
            use ending = CancellationTokenSource.CreateLinkedTokenSource http.RequestAborted
            let queue = Channel.CreateUnbounded<string>()
            let id = Guid.NewGuid()

            let hear () = task {
                let! part = socket.ReceiveAsync(Memory<byte> buffer, ending.Token)

                return
                    if part.MessageType = WebSocketMessageType.Close then
                        ValueNone
                    else
                        ValueSome(Encoding.UTF8.GetString(buffer, 0, part.Count))
            }

            let speak () : Task = task {
                while true do
                    let! said = queue.Reader.ReadAsync ending.Token

                    do!
                        socket.SendAsync(
                            ReadOnlyMemory(Encoding.UTF8.GetBytes said),
                            WebSocketMessageType.Text,
                            true,
                            ending.Token
                        )

                    do! Socket.push http ending.Token
            }

            try
                try
                    let! first = hear ()

                    match first |> ValueOption.bind listener with
                    | ValueNone ->
                        do! socket.CloseOutputAsync(WebSocketCloseStatus.NormalClosure, "", ending.Token)
                        do! Socket.push http ending.Token
                    | ValueSome wallet ->
                        sockets[id] <- struct (wallet, queue, ending)
                        let speaking = speak ()
                        let mutable isOpen = true

                        while isOpen do
                            match! hear () with
                            | ValueNone -> isOpen <- false
                            | ValueSome "PING" -> queue.Writer.TryWrite "PONG" |> ignore
                            | ValueSome _ -> ()

                        ending.Cancel()
                        do! speaking
                with
                | :? OperationCanceledException
                | :? WebSocketException -> ()
            finally
                sockets.TryRemove id |> ignore
                socket.Abort()
    }
