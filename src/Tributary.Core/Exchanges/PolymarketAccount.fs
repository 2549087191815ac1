/// An account's own orders and trades (`polymarket-api.md` sections 5.2 and 8). A wallet signs once for API credentials (L1), and these sign
/// everything else (L2).
[<RequireQualifiedAccess>]
module Tributary.Exchanges.PolymarketAccount

open System
open System.Buffers.Binary
open System.Buffers.Text
open System.Collections.Generic
open System.Globalization
open System.Security.Cryptography
open System.Text
open System.Text.Json
open Tributary

// ---- L1: typed data (EIP-712) over domain {name, version, chainId} and
// ClobAuth(address address,string timestamp,uint256 nonce,string message)

let private utf8 (text: string) = Encoding.UTF8.GetBytes text
let private hashOf (text: string) = Keccak.hash (utf8 text)

/// A number or an address as a word of 32 bytes.
let private word (bytes: byte[]) =
    Array.append (Array.zeroCreate (32 - bytes.Length)) bytes

let private numberWord (number: int64) =
    let bytes: byte[] = Array.zeroCreate 8
    BinaryPrimitives.WriteInt64BigEndian(Span bytes, number)
    word bytes

let private addressWord (address: string) =
    word (Convert.FromHexString(address.Substring 2))

/// What a wallet signs to show that it is asked for by its owner.
let digest (chain: int64) (address: string) (timestamp: string) (nonce: int64) : byte[] =
    let domain =
        [
            hashOf "EIP712Domain(string name,string version,uint256 chainId)"
            hashOf "ClobAuthDomain"
            hashOf "1"
            numberWord chain
        ]
        |> Array.concat
        |> Keccak.hash

    let message =
        [
            hashOf "ClobAuth(address address,string timestamp,uint256 nonce,string message)"
            addressWord address
            hashOf timestamp
            numberWord nonce
            hashOf "This message attests that I control the given wallet"
        ]
        |> Array.concat
        |> Keccak.hash

    Keccak.hash (Array.concat [ [| 0x19uy; 0x01uy |]; domain; message ])

// Polygon, where the exchange is.
let private polygon = 137L

let private seconds (now: Instant) =
    (now.Micros / 1_000_000L).ToString CultureInfo.InvariantCulture

/// The headers of a request for API credentials.
let private walletHeaders (credentials: Credentials) (key: byte[]) (now: Instant) =
    let timestamp = seconds now

    let signature =
        digest polygon credentials.Address timestamp 0L |> Secp256k1.sign key

    [
        "POLY_ADDRESS", credentials.Address
        "POLY_SIGNATURE", "0x" + Convert.ToHexString(signature).ToLowerInvariant()
        "POLY_TIMESTAMP", timestamp
        "POLY_NONCE", "0"
    ]

// ---- L2: HMAC-SHA256 over time, method, path and body

let private alphabet (text: string) =
    text.Replace('+', '-').Replace('/', '_')

/// The bytes of a secret in either alphabet of Base64.
let private secretBytes (secret: string) =
    let standard = secret.Trim().Replace('-', '+').Replace('_', '/').TrimEnd '='
    Convert.FromBase64String(standard + String('=', (4 - standard.Length % 4) % 4))

/// The signature of a request, in Base64 for addresses with its padding. The path has no query.
let hmac (secret: string) (timestamp: string) (method: string) (path: string) (body: string) : string =
    HMACSHA256.HashData(secretBytes secret, utf8 (timestamp + method + path + body))
    |> Convert.ToBase64String
    |> alphabet

let private sign (credentials: Credentials) (method: string) (path: string) (now: Instant) =
    if path.StartsWith("/auth/", StringComparison.Ordinal) then
        match credentials.PrivateKey with
        | ValueSome key -> walletHeaders credentials key now
        | ValueNone -> []
    elif path.StartsWith("/data/", StringComparison.Ordinal) && credentials.IsComplete then
        let timestamp = seconds now

        [
            "POLY_ADDRESS", credentials.Address
            "POLY_SIGNATURE", hmac credentials.Secret timestamp method path ""
            "POLY_TIMESTAMP", timestamp
            "POLY_API_KEY", credentials.Key
            "POLY_PASSPHRASE", credentials.Passphrase
        ]
    else
        []

// ---- credentials

let private isSecret (text: string) =
    try
        (secretBytes text).Length > 0
    with :? FormatException ->
        false

// What a header can carry: nothing that ends a line.
let private isWord (text: string) =
    text |> Seq.forall (fun letter -> letter > ' ' && letter < '\127')

let private given (secrets: Map<string, string>) : Result<Credentials voption, string> =
    let text name =
        secrets |> Map.tryFind name |> Option.defaultValue ""

    let privateKey, key, secret, passphrase =
        text "private_key", text "api_key", text "api_secret", text "api_passphrase"

    let address, funder = text "address", text "funder"

    let wallet =
        match privateKey with
        | "" -> Ok ValueNone
        | digits -> Secp256k1.tryKey digits |> Result.map ValueSome

    let api = [ key; secret; passphrase ]

    match wallet with
    | Error reason -> Error reason
    | _ when privateKey = "" && api |> List.forall ((=) "") ->
        if address = "" && funder = "" then
            Ok ValueNone
        else
            Error
                "an address alone shows nothing: 'private_key' is missing, or 'api_key', 'api_secret' and 'api_passphrase'"
    | _ when List.contains "" api && api |> List.exists ((<>) "") ->
        Error "'api_key', 'api_secret' and 'api_passphrase' are given together or not at all"
    | _ when secret <> "" && not (isSecret secret) -> Error "'api_secret' is not Base64"
    | _ when not (isWord key && isWord passphrase) ->
        Error "'api_key' or 'api_passphrase' has letters in it that no header takes"
    | _ when address <> "" && not (Secp256k1.isAddress address) ->
        Error "'address' is no address: 0x and 40 hexadecimal digits, in mixed case with the right checksum"
    | _ when funder <> "" && not (Secp256k1.isAddress funder) ->
        Error "'funder' is no address: 0x and 40 hexadecimal digits, in mixed case with the right checksum"
    | Ok ValueNone when address = "" ->
        Error "API credentials need the 'address' of the wallet that they were made with"
    | Ok wallet ->
        let own =
            match wallet with
            | ValueSome key -> Secp256k1.addressOf key
            | ValueNone -> Secp256k1.checksummed address

        if address <> "" && Secp256k1.checksummed address <> own then
            Error "'address' is not that of 'private_key': the address of a proxy wallet is 'funder'"
        else
            Ok(
                ValueSome {
                    Address = own
                    Funder = funder
                    PrivateKey = wallet
                    Key = key
                    Secret = secret
                    Passphrase = passphrase
                }
            )

let private derived (credentials: Credentials) (body: ReadOnlyMemory<byte>) : Result<Credentials, Fault> =
    try
        use document = JsonDocument.Parse body
        let root = document.RootElement

        let text name =
            if root.ValueKind = JsonValueKind.Object then
                Element.text name root
            else
                ""

        let key, secret, passphrase = text "apiKey", text "secret", text "passphrase"

        if
            key <> ""
            && passphrase <> ""
            && isWord key
            && isWord passphrase
            && isSecret secret
        then
            Ok {
                credentials with
                    Key = key
                    Secret = secret
                    Passphrase = passphrase
            }
        else
            Error(Fault.Undecodable(0, "the answer holds no API credentials"))
    with :? JsonException ->
        Error(Fault.Undecodable(0, "the answer is no JSON"))

/// `/time` answers the seconds since 1970 as a bare number: it is behind by up to one.
let timeOf (body: ReadOnlyMemory<byte>) : Interval voption =
    let mutable second, read = 0L, 0

    if
        Utf8Parser.TryParse(body.Span.TrimEnd("\r\n "B.AsSpan()), &second, &read)
        && second > 0L
        && second < 10_000_000_000L
    then
        ValueSome {
            Since = Instant.ofSeconds second
            Until = Instant.ofSeconds (second + 1L)
        }
    else
        ValueNone

// ---- requests

let private request endpoint path body : Request = {
    Endpoint = endpoint
    Host = "clob_url"
    Path = path
    Body = body
    // What an answer is about stands in the account's own question.
    Walk = Walk.Books []
}

/// The cursors of the first page, and of none.
let private first, last = "MA==", "LTE="

let private ask (what: AccountAsk) : Request =
    let page cursor =
        Uri.EscapeDataString(if cursor = "" then first else cursor)

    match what with
    | AccountAsk.Orders cursor -> request "own_orders" $"/data/orders?next_cursor={page cursor}" ValueNone
    | AccountAsk.Trades(since, cursor) ->
        let after =
            match since with
            | ValueSome since -> $"after={max 0L (since.Micros / 1_000_000L)}&"
            | ValueNone -> ""

        request "own_trades" $"/data/trades?{after}next_cursor={page cursor}" ValueNone
    | AccountAsk.Order id -> request "own_orders" $"/data/order/{Uri.EscapeDataString id}" ValueNone

// ---- rows

/// Why a row cannot be read.
exception private Unreadable of reason: string

let private refuse reason = raise (Unreadable reason)

let private needed name element =
    match Element.text name element with
    | "" -> refuse $"'{name}' is missing"
    | text -> text

let private amount name element =
    let mutable value, rounded = 0L, false
    let digits = utf8 (needed name element)

    match Fixed.parse (ReadOnlySpan digits) &value &rounded with
    | NumberFault.None when rounded -> refuse $"'{name}' has more than six decimals"
    | NumberFault.None when value >= 0L -> value
    | _ -> refuse $"'{name}' is no amount"

let private sizeOf name element =
    match Size.tryOfMillionths (amount name element) with
    | ValueSome size -> size
    | ValueNone -> refuse $"'{name}' is no size"

let private priceOf element =
    let price = amount "price" element

    if price > Fixed.One then
        refuse "'price' is more than 1"

    Price.ofMillionths price

let private marketOf element =
    match MarketId.Parse(needed "market" element) with
    | Ok market -> market
    | Error message -> refuse message

let private tokenOf element =
    match TokenId.Parse(needed "asset_id" element) with
    | Ok token -> token
    | Error message -> refuse message

let private opposite side =
    if side = Side.Buy then Side.Sell else Side.Buy

let private sideOf (text: string) =
    match text.ToUpperInvariant() with
    | "BUY" -> Side.Buy
    | "SELL" -> Side.Sell
    | _ -> refuse "'side' is neither BUY nor SELL"

/// Seconds or milliseconds, as a number or a text, or a date: the first of several members that has one.
let private momentOf names element =
    let tryRead name =
        let text = utf8 (Element.text name element)
        let mutable moment = Instant.ofMicros 0L

        if
            text.Length > 0
            && (Instant.tryEpoch (ReadOnlySpan text) &moment
                || Instant.tryIso (ReadOnlySpan text) &moment)
        then
            Some moment
        else
            None

    match List.tryPick tryRead names with
    | Some moment -> moment
    | None -> refuse $"'{List.head names}' is no time"

/// A status in lower case, without what its kind is called.
let private statusOf (text: string) =
    let text = text.ToUpperInvariant()

    [ "TRADE_STATUS_"; "ORDER_STATUS_" ]
    |> List.tryFind text.StartsWith
    |> function
        | Some prefix -> text.Substring prefix.Length
        | None -> text
    |> _.ToLowerInvariant()

/// `{"id":"0x…","market":"0x…","asset_id":"…","side":"BUY","original_size":"5","size_matched":"0","price":"0.56","status":"LIVE",
/// "created_at":1737678469}`; the channel's has `type` and, in milliseconds, `timestamp` beside it.
let private orderOf (received: Instant) (element: JsonElement) : OwnOrder =
    let size, filled = sizeOf "original_size" element, sizeOf "size_matched" element

    let status =
        match Element.text "type" element, Element.text "status" element with
        // It may still say what it was.
        | "CANCELLATION", _ -> "canceled"
        | ("PLACEMENT" | "UPDATE"), "" when filled >= size -> "matched"
        | ("PLACEMENT" | "UPDATE"), "" -> "live"
        | _ -> statusOf (needed "status" element)

    {
        Exchange = PolymarketMarkets.exchange
        Market = marketOf element
        Token = tokenOf element
        Order = needed "id" element
        Side = sideOf (needed "side" element)
        Price = priceOf element
        Size = size
        Filled = filled
        Status = status
        At = momentOf [ "timestamp"; "created_at" ] element
        Received = received
    }

/// `{"id":"…","taker_order_id":"0x…","market":"0x…","asset_id":"…","side":"BUY","size":"5","price":"0.4","status":"CONFIRMED",
/// "match_time":1737763207,"owner":"…","trader_side":"MAKER","transaction_hash":"0x…","maker_orders":[{"order_id":"0x…","owner":"…",
/// "maker_address":"0x…","asset_id":"…","matched_amount":"5","price":"0.6","side":"BUY"}]}`: a row for each of the account's orders in it.
let private tradesOf (credentials: Credentials) (received: Instant) (element: JsonElement) : OwnTrade list =
    let side, token = sideOf (needed "side" element), tokenOf element

    let same (a: string) (b: string) =
        a <> "" && a.Equals(b, StringComparison.OrdinalIgnoreCase)

    let isOwn owner address =
        same (Element.text owner element) credentials.Key
        || same (Element.text address element) credentials.Address

    let isTaker =
        match (Element.text "trader_side" element).ToUpperInvariant() with
        | "TAKER" -> true
        | "MAKER" -> false
        | _ -> isOwn "owner" "maker_address"

    let trade order = {
        Exchange = PolymarketMarkets.exchange
        Market = marketOf element
        Token = token
        Trade = needed "id" element
        Order = order
        Side = side
        Price = priceOf element
        Size = sizeOf "size" element
        IsTaker = true
        Status = statusOf (needed "status" element)
        Transaction = (Element.text "transaction_hash" element).ToLowerInvariant()
        At = momentOf [ "match_time"; "matchtime"; "timestamp" ] element
        Received = received
    }

    let made = [
        match Element.tryMember "maker_orders" element with
        | ValueSome orders when orders.ValueKind = JsonValueKind.Array ->
            for order in orders.EnumerateArray() do
                let address = Element.text "maker_address" order

                if
                    same (Element.text "owner" order) credentials.Key
                    || same address credentials.Address
                    || same address credentials.Funder
                then
                    let made = tokenOf order

                    {
                        trade (needed "order_id" order) with
                            Token = made
                            Side =
                                (match Element.text "side" order with
                                 // Of the same token one sells what the other buys; both buy when they are of a pair.
                                 | "" when made = token -> opposite side
                                 | "" -> side
                                 | text -> sideOf text)
                            Price = priceOf order
                            Size = sizeOf "matched_amount" order
                            IsTaker = false
                    }
        | _ -> ()
    ]

    match
        (if isTaker then
             trade (needed "taker_order_id" element) :: made
         else
             made)
    with
    | [] -> refuse "none of its orders is the account's"
    | rows -> rows

/// Appends what a row says, or keeps it with the reason why it cannot be read, without secrets.
let private reading
    (credentials: Credentials)
    source
    received
    (batch: Batch)
    (add: JsonElement -> unit)
    (element: JsonElement)
    =
    let reject reason =
        batch.Rejections.Add {
            Exchange = string PolymarketMarkets.exchange
            Source = source
            Offset = 0
            Reason = Credentials.hide credentials reason
            Bytes = Credentials.hideBytes credentials (utf8 (element.GetRawText()))
            Received = received
        }

    if element.ValueKind <> JsonValueKind.Object then
        reject "an object was expected"
    else
        try
            add element
        with
        | Unreadable reason -> reject reason
        | :? InvalidOperationException -> reject "a text in it is malformed"

let private readOrder credentials source received (batch: Batch) =
    reading credentials source received batch (orderOf received >> batch.OwnOrders.Add)

let private readTrade credentials source received (batch: Batch) =
    reading credentials source received batch (tradesOf credentials received >> batch.OwnTrades.AddRange)

let private decode
    (credentials: Credentials)
    (what: AccountAsk)
    (body: ReadOnlyMemory<byte>)
    (received: Instant)
    (batch: Batch)
    : Result<string voption, Fault> =
    batch.Exchange <- string PolymarketMarkets.exchange
    batch.Received <- received

    let page source (read: JsonElement -> unit) (root: JsonElement) =
        match root.ValueKind with
        // As it was before there were pages.
        | JsonValueKind.Array ->
            Seq.iter read (root.EnumerateArray())
            Ok ValueNone
        | JsonValueKind.Object ->
            match Element.tryMember "data" root with
            | ValueSome rows when rows.ValueKind = JsonValueKind.Array ->
                Seq.iter read (rows.EnumerateArray())

                match Element.text "next_cursor" root with
                | "" -> Ok ValueNone
                | cursor when cursor = last -> Ok ValueNone
                | cursor -> Ok(ValueSome cursor)
            | ValueSome rows when rows.ValueKind <> JsonValueKind.Null ->
                Error(Fault.Undecodable(0, $"'data' of {source} is no list"))
            | _ when Element.text "next_cursor" root = last -> Ok ValueNone // nothing, and nothing more
            | _ -> Error(Fault.Undecodable(0, $"{source} has no 'data'"))
        | _ -> Error(Fault.Undecodable(0, $"{source} is no page"))

    try
        use document = JsonDocument.Parse body
        let root = document.RootElement

        match what with
        | AccountAsk.Orders _ ->
            page "/data/orders" (readOrder credentials "/data/orders" received batch) root
        | AccountAsk.Trades _ ->
            page "/data/trades" (readTrade credentials "/data/trades" received batch) root
        | AccountAsk.Order _ ->
            if root.ValueKind <> JsonValueKind.Null then
                readOrder credentials "/data/order" received batch root

            Ok ValueNone
    with :? JsonException ->
        Error(Fault.Undecodable(0, "the answer is no JSON"))

// ---- the user channel

let private opening (credentials: Credentials) =
    let text (value: string) = JsonSerializer.Serialize value

    // Without `markets` it tells of all of them.
    $"""{{"auth":{{"apiKey":{text credentials.Key},"secret":{text credentials.Secret},"passphrase":{text credentials.Passphrase}}},"type":"user"}}"""

let private hear
    (credentials: Credentials)
    (bytes: ReadOnlyMemory<byte>)
    (received: Instant)
    (batch: Batch)
    : int =
    batch.Exchange <- string PolymarketMarkets.exchange
    batch.Received <- received
    let source = "ws user"

    /// How many parts of it nobody knows.
    let rec event (element: JsonElement) : int =
        match element.ValueKind with
        | JsonValueKind.Array -> element.EnumerateArray() |> Seq.sumBy event
        | JsonValueKind.Object ->
            match Element.text "event_type" element with
            | "order" ->
                readOrder credentials source received batch element
                0
            | "trade" ->
                readTrade credentials source received batch element
                0
            | "" when (Element.tryMember "maker_orders" element).IsSome ->
                readTrade credentials source received batch element
                0
            | "" when (Element.tryMember "original_size" element).IsSome ->
                readOrder credentials source received batch element
                0
            | _ -> 1
        | _ -> 1

    let trimmed = bytes.Span.Trim(" \r\n\t"B.AsSpan())

    if trimmed.IsEmpty || trimmed.SequenceEqual(ReadOnlySpan "PONG"B) then
        0
    else
        try
            use document = JsonDocument.Parse bytes
            event document.RootElement
        with :? JsonException ->
            batch.Rejections.Add {
                Exchange = string PolymarketMarkets.exchange
                Source = source
                Offset = 0
                Reason = "a message is no JSON"
                Bytes = Credentials.hideBytes credentials (bytes.ToArray())
                Received = received
            }

            0

let private ended =
    HashSet [ "matched"; "canceled"; "cancelled"; "invalid"; "unmatched" ]

let private settled = HashSet [ "confirmed"; "failed" ]

/// The secrets that make an account of it.
let secrets: SecretSetting list =
    [
        "private_key", "the wallet's private key, 64 hexadecimal digits: API credentials are derived from it"
        "api_key", "the key of API credentials, with the next two instead of a private key"
        "api_secret", "their secret"
        "api_passphrase", "their passphrase"
        "address",
        "the address of the wallet that API credentials were made with; needless with a private key"
        "funder", "the address that holds the funds, when it is a proxy wallet"
    ]
    |> List.map (fun (setting, holds) -> { Setting = setting; Holds = holds })

let part: AccountPart = {
    Exchange = PolymarketMarkets.exchange
    Given = given
    Time = request "clob_time" "/time" ValueNone
    TimeOf = timeOf
    Derive = [
        request "clob_auth" "/auth/derive-api-key" ValueNone
        request "clob_auth" "/auth/api-key" (ValueSome "")
    ]
    Derived = derived
    Sign = sign
    Ask = ask
    Decode = decode
    IsOver = fun order -> ended.Contains order.Status
    IsSettled = fun trade -> settled.Contains trade.Status
    Channel = {
        Host = "ws_url"
        Path = "user"
        Open = opening
        Ping = "PING"
        PingEvery = TimeSpan.FromSeconds 10.0
        Hear = hear
    }
}
