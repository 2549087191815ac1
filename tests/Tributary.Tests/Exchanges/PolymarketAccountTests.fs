module Tributary.Tests.PolymarketAccountTests

open System
open System.Text
open NUnit.Framework
open FsCheck.NUnit
open Tributary
open Tributary.Exchanges

let private part = PolymarketAccount.part

let private hex (bytes: byte[]) =
    Convert.ToHexString(bytes).ToLowerInvariant()

let private utf8 (text: string) = Encoding.UTF8.GetBytes text
let private memory (text: string) = ReadOnlyMemory(utf8 text)

// The key, the address and the signature of the vector in the exchange's clients (polymarket-api.md section 8): a key that everybody knows.
let private vectorKey =
    "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"

let private vectorAddress = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"

let private vectorSignature =
    Convert.FromHexString
        "f62319a987514da40e57e2f4d7529f7bac38f0355bd88bb5adbb3768d80de6c1682518e0af677d5260366425f4361e7b70c25ae232aff0ab2331e2b164a1aedc1b"

let private keyOf text =
    match Secp256k1.tryKey text with
    | Ok key -> key
    | Error message -> failwith message

let private order =
    bigint.Parse "115792089237316195423570985008687907852837564279074904382605163141518161494337"

let private number (bytes: byte[]) =
    Numerics.BigInteger(ReadOnlySpan bytes, true, true)

// ---- vectors

[<TestCase("", "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470")>]
[<TestCase("abc", "4e03657aea45a94fc7d47ba826c8d667c0d1e6e33a64a036ec44f58fa12d6c45")>]
[<TestCase("Transfer(address,address,uint256)",
           "ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef")>]
[<TestCase("OrderFilled(bytes32,address,address,uint8,uint256,uint256,uint256,uint256,bytes32,bytes32)",
           "d543adfd945773f1a62f74f0ee55a5e3b9b1a28262980ba90b1a89f2ea84d8ee")>]
let ``Keccak-256 of known texts`` (text: string, expected: string) =
    equal expected (hex (Keccak.hash (utf8 text)))

[<TestCase(135)>]
[<TestCase(136)>]
[<TestCase(137)>]
[<TestCase(272)>]
let ``Keccak-256 differs from its neighbours at the edges of a block`` (length: int) =
    let at length =
        hex (Keccak.hash (Array.zeroCreate length))

    equal 3 (List.distinct [ at (length - 1); at length; at (length + 1) ]).Length

[<TestCase "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed">]
[<TestCase "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359">]
[<TestCase "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB">]
[<TestCase "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb">]
let ``the case of an address's letters is its checksum`` (address: string) =
    equal address (Secp256k1.checksummed (address.ToLowerInvariant()))
    isTrue (Secp256k1.isAddress address)
    isTrue (Secp256k1.isAddress ("0x" + address.Substring(2).ToLowerInvariant()))
    // One letter in the other case.
    let at = address |> Seq.findIndexBack Char.IsAsciiLetterUpper

    isTrue (
        not (
            Secp256k1.isAddress (address.Remove(at, 1).Insert(at, string (Char.ToLowerInvariant address[at])))
        )
    )

[<TestCase("ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
           "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266")>]
[<TestCase("59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
           "0x70997970C51812dc3A010C7d01b50e0d17dc79C8")>]
[<TestCase("0000000000000000000000000000000000000000000000000000000000000001",
           "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf")>]
let ``a private key's wallet has its address`` (key: string, address: string) =
    equal address (Secp256k1.addressOf (keyOf key))

[<TestCase "">]
[<TestCase "hush">]
[<TestCase "0000000000000000000000000000000000000000000000000000000000000000">]
[<TestCase "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141">]
[<TestCase "zz0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80">]
let ``what is no private key is refused without being repeated`` (text: string) =
    match Secp256k1.tryKey text with
    | Ok _ -> Assert.Fail "it was taken"
    | Error message -> isTrue (text = "" || not (message.Contains(text, StringComparison.OrdinalIgnoreCase)))

[<Test>]
let ``the official signature of a wallet is found to be that wallet's`` () =
    let digest = PolymarketAccount.digest 80002L vectorAddress "10000000" 23L
    equal (ValueSome vectorAddress) (Secp256k1.recover digest vectorSignature)
    // Of another chain, address, time or nonce it is somebody else's.
    for other in
        [
            PolymarketAccount.digest 137L vectorAddress "10000000" 23L
            PolymarketAccount.digest 80002L "0x70997970C51812dc3A010C7d01b50e0d17dc79C8" "10000000" 23L
            PolymarketAccount.digest 80002L vectorAddress "10000001" 23L
            PolymarketAccount.digest 80002L vectorAddress "10000000" 24L
        ] do
        Assert.That(Secp256k1.recover other vectorSignature, Is.Not.EqualTo(ValueSome vectorAddress))

[<Test>]
let ``our signature of the official digest is that wallet's, in its lower form`` () =
    let digest = PolymarketAccount.digest 80002L vectorAddress "10000000" 23L

    for _ in 1..8 do
        let signature = Secp256k1.sign (keyOf vectorKey) digest
        equal 65 signature.Length
        isTrue (number signature[32..63] <= order / 2I)
        equal (ValueSome vectorAddress) (Secp256k1.recover digest signature)

[<Property(MaxTest = 25)>]
let ``whoever signs is found`` (seed: byte[]) (text: string) =
    let key = Security.Cryptography.SHA256.HashData seed
    let digest = Keccak.hash (utf8 (string text))
    Secp256k1.recover digest (Secp256k1.sign key digest) = ValueSome(Secp256k1.addressOf key)

[<Test>]
let ``what is no signature is nobody's`` () =
    let digest = Keccak.hash [| 1uy |]
    let sound = Secp256k1.sign (keyOf vectorKey) digest
    let zero: byte[] = Array.zeroCreate 32
    let most = order.ToByteArray(true, true)

    for broken in
        [
            sound[0..63]
            Array.concat [ zero; sound[32..] ]
            Array.concat [ sound[0..31]; zero; sound[64..] ]
            Array.concat [ most; sound[32..] ]
            Array.concat [ sound[0..31]; most; sound[64..] ]
            Array.concat [ sound[0..63]; [| 29uy |] ]
            // No point has this x.
            Array.concat [ Array.concat [ Array.zeroCreate 31; [| 5uy |] ]; sound[32..] ]
        ] do
        equal ValueNone (Secp256k1.recover digest broken)

[<Test>]
let ``the official HMAC of a request`` () =
    equal
        "ZwAdJKvoYRlEKDkNMwd5BuwNNtg93kNaR_oU2HrfVvc="
        (PolymarketAccount.hmac
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
            "1000000"
            "test-sign"
            "/orders"
            """{"hash": "0x123"}""")

[<TestCase "-_-_AAAA">]
[<TestCase "+/+/AAAA">]
let ``a secret may be in either alphabet`` (secret: string) =
    equal
        (PolymarketAccount.hmac "-_-_AAAA" "1" "GET" "/data/orders" "")
        (PolymarketAccount.hmac secret "1" "GET" "/data/orders" "")

// ---- credentials

let private give secrets = part.Given(Map.ofList secrets)

let private api = [
    "api_key", "00000000-1111-2222-3333-444444444444"
    "api_secret", "aHVzaC1zZWNyZXQ="
    "api_passphrase", "hush-passphrase"
]

let private mine =
    match give (("address", vectorAddress) :: api) with
    | Ok(ValueSome credentials) -> credentials
    | other -> failwith $"%A{other}"

[<Test>]
let ``a private key, or API credentials with an address, are enough`` () =
    match give [ "private_key", vectorKey ], give (("private_key", vectorKey) :: api) with
    | Ok(ValueSome wallet), Ok(ValueSome both) ->
        equal (vectorAddress, false) (wallet.Address, wallet.IsComplete)
        equal (vectorAddress, true) (both.Address, both.IsComplete)
    | other -> Assert.Fail $"%A{other}"

    isTrue mine.IsComplete

    match give [] with
    | Ok ValueNone -> ()
    | other -> Assert.Fail $"%A{other}"

[<Test>]
let ``credentials that do not suffice are refused with what is missing`` () =
    let refused secrets =
        match give secrets with
        | Error(reason: string) -> reason
        | other -> failwith $"%A{other}"

    Assert.That(refused api, Does.Contain "'address'")
    Assert.That(refused (List.truncate 2 api), Does.Contain "together")
    Assert.That(refused [ "address", vectorAddress ], Does.Contain "'private_key'")
    Assert.That(refused (("address", "0x12") :: api), Does.Contain "'address'")
    Assert.That(refused [ "private_key", "hush" ], Does.Contain "64")

    Assert.That(
        refused [
            "private_key", vectorKey
            "address", "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
        ],
        Does.Contain "funder"
    )

    Assert.That(
        refused [ "address", vectorAddress; api[0]; "api_secret", "not base64!"; api[2] ],
        Does.Contain "'api_secret'"
    )

[<Test>]
let ``credentials are not printed`` () =
    for text in [ $"{mine}"; $"%A{mine}"; $"%O{mine}"; string mine ] do
        Assert.That(text, Does.Not.Contain("hush").And.Not.Contain("aHVzaC").And.Not.Contain "4444")

[<Test>]
let ``a request for credentials is signed by the wallet, any other by the credentials`` () =
    let wallet =
        match give [ "private_key", vectorKey ] with
        | Ok(ValueSome wallet) -> wallet
        | other -> failwith $"%A{other}"

    let now = Instant.ofMicros 1_700_000_000_900_000L
    let l1 = Map.ofList (part.Sign wallet "GET" "/auth/derive-api-key" now)
    equal (vectorAddress, "1700000000", "0") (l1["POLY_ADDRESS"], l1["POLY_TIMESTAMP"], l1["POLY_NONCE"])

    equal
        (ValueSome vectorAddress)
        (Secp256k1.recover
            (PolymarketAccount.digest 137L vectorAddress "1700000000" 0L)
            (Convert.FromHexString(l1["POLY_SIGNATURE"].Substring 2)))

    let l2 = Map.ofList (part.Sign mine "GET" "/data/orders" now)
    equal mine.Key l2["POLY_API_KEY"]
    equal "hush-passphrase" l2["POLY_PASSPHRASE"]

    equal (PolymarketAccount.hmac mine.Secret "1700000000" "GET" "/data/orders" "") l2["POLY_SIGNATURE"]

    equal [] (part.Sign mine "GET" "/time" now)
    equal [] (part.Sign mine "GET" "/book" now)

[<Test>]
let ``an answer with credentials is read, any other is refused without being repeated`` () =
    let wallet = {
        mine with
            Key = ""
            Secret = ""
            Passphrase = ""
    }

    match part.Derived wallet (memory """{"apiKey":"k","secret":"aHVzaA==","passphrase":"p"}""") with
    | Ok found -> equal ("k", "aHVzaA==", "p") (found.Key, found.Secret, found.Passphrase)
    | Error fault -> Assert.Fail(Fault.explain fault)

    for other in [ "[]"; "{}"; "hush"; """{"apiKey":"hush","secret":"","passphrase":"x"}""" ] do
        match part.Derived wallet (memory other) with
        | Ok _ -> Assert.Fail other
        | Error fault -> Assert.That(Fault.explain fault, Does.Not.Contain "hush")

// ---- orders and trades: made up, in the exchange's shape

let private market = "0x" + String('a', 64)
let private received = Instant.ofSeconds 1_700_000_100L

let private orderJson (changes: (string * string) list) =
    let members =
        [
            "id", "\"0xorder1\""
            "status", "\"LIVE\""
            "owner", $"\"{mine.Key}\""
            "market", $"\"{market}\""
            "asset_id", "\"111\""
            "side", "\"BUY\""
            "original_size", "\"5.000001\""
            "size_matched", "\"1.5\""
            "price", "\"0.56\""
            "created_at", "1700000000"
        ]
        |> List.filter (fun (name, _) -> not (List.exists (fst >> (=) name) changes))

    members @ changes
    |> List.map (fun (name, value) -> $"\"{name}\":{value}")
    |> String.concat ","
    |> fun members -> "{" + members + "}"

let private tradeJson side status (makers: string list) =
    let makers = String.concat "," makers

    $$"""{"id":"t1","taker_order_id":"0xtaken","market":"{{market}}","asset_id":"111","side":"BUY","size":"7","price":"0.4","status":"{{status}}","match_time":"1700000050","owner":"somebody-else","maker_address":"0x0000000000000000000000000000000000000001","trader_side":"{{side}}","transaction_hash":"0xAB","maker_orders":[{{makers}}]}"""

let private makerJson owner asset more =
    $$"""{"order_id":"0xmade","owner":"{{owner}}","maker_address":"0x0000000000000000000000000000000000000002","asset_id":"{{asset}}","matched_amount":"2.25","price":"0.6","outcome":"No"{{more}}}"""

let private decoded what (json: string) =
    let batch = Batch()
    let answer = part.Decode mine what (memory json) received batch
    struct (answer, batch)

let private page (rows: string list) =
    let rows = String.concat "," rows
    $$"""{"data":[{{rows}}],"next_cursor":"LTE="}"""

[<Test>]
let ``an open order is a row`` () =
    let struct (answer, batch) = decoded (AccountAsk.Orders "") (page [ orderJson [] ])
    equal (Ok ValueNone) answer
    equal 0 batch.Rejections.Count
    let order = batch.OwnOrders[0]
    equal ("0xorder1", "live", Side.Buy) (order.Order, order.Status, order.Side)
    equal (560_000L, 5_000_001L) (order.Price.Millionths, order.Size.Millionths)
    equal 1_500_000L order.Filled.Millionths
    equal (Instant.ofSeconds 1_700_000_000L, received) (order.At, order.Received)

[<TestCase("\"PLACEMENT\"", "\"LIVE\"", "live")>]
[<TestCase("\"UPDATE\"", "\"MATCHED\"", "matched")>]
[<TestCase("\"CANCELLATION\"", "\"LIVE\"", "canceled")>]
[<TestCase("\"CANCELLATION\"", "\"CANCELED\"", "canceled")>]
[<TestCase("\"UPDATE\"", "\"\"", "live")>]
[<TestCase("\"UPDATE\"", "\"ORDER_STATUS_LIVE\"", "live")>]
let ``the channel tells an order's states`` (kind: string, status: string, expected: string) =
    let batch = Batch()

    let json =
        orderJson [
            "event_type", "\"order\""
            "type", kind
            "status", status
            "timestamp", "\"1700000001234\""
        ]

    equal 0 (part.Channel.Hear mine (memory json) received batch)
    equal 0 batch.Rejections.Count
    equal expected batch.OwnOrders[0].Status
    equal (Instant.ofMillis 1_700_000_001_234L) batch.OwnOrders[0].At

[<Test>]
let ``a trade that took is a row of the order that took`` () =
    let struct (_, batch) =
        decoded (AccountAsk.Trades(ValueNone, "")) (page [ tradeJson "TAKER" "TRADE_STATUS_MATCHED" [] ])

    equal 1 batch.OwnTrades.Count
    let trade = batch.OwnTrades[0]
    equal ("t1", "0xtaken", "matched", true) (trade.Trade, trade.Order, trade.Status, trade.IsTaker)
    equal (400_000L, 7_000_000L) (trade.Price.Millionths, trade.Size.Millionths)
    equal ("0xab", Instant.ofSeconds 1_700_000_050L) (trade.Transaction, trade.At)

[<TestCase("111", "", "sell")>]
[<TestCase("222", "", "buy")>]
[<TestCase("222", ",\"side\":\"SELL\"", "sell")>]
let ``a trade that made is a row of each own order in it, with its own token, side, price and size``
    (asset: string, more: string, side: string)
    =
    let struct (_, batch) =
        decoded
            (AccountAsk.Trades(ValueNone, ""))
            (page [
                tradeJson "MAKER" "CONFIRMED" [
                    makerJson "somebody-else" "333" ""
                    makerJson mine.Key asset more
                ]
            ])

    equal 0 batch.Rejections.Count
    equal 1 batch.OwnTrades.Count
    let trade = batch.OwnTrades[0]
    equal ("0xmade", asset, false) (trade.Order, string trade.Token, trade.IsTaker)
    equal side ((string trade.Side).ToLowerInvariant())
    equal (600_000L, 2_250_000L) (trade.Price.Millionths, trade.Size.Millionths)

[<Test>]
let ``an order of before the API key is known by its address`` () =
    let maker =
        (makerJson "older-key" "222" "")
            .Replace("0x0000000000000000000000000000000000000002", vectorAddress.ToLowerInvariant())

    let struct (_, batch) =
        decoded (AccountAsk.Trades(ValueNone, "")) (page [ tradeJson "MAKER" "MINED" [ maker ] ])

    equal (1, 0) (batch.OwnTrades.Count, batch.Rejections.Count)

let private broken = [
    orderJson [ "original_size", "\"many\"" ], "'original_size'"
    orderJson [ "original_size", "\"1.0000001\"" ], "six decimals"
    orderJson [ "price", "\"1.01\"" ], "'price'"
    orderJson [ "size_matched", "\"-1\"" ], "'size_matched'"
    orderJson [ "side", "\"HOLD\"" ], "'side'"
    orderJson [ "created_at", "\"soon\"" ], "no time"
    orderJson [ "id", "null" ], "'id'"
    orderJson [ "status", "null" ], "'status'"
    "17", "object"
]

[<Test>]
let ``what cannot be read is kept with the reason, without secrets, and costs no other row`` () =
    for json, reason in broken do
        let struct (answer, batch) =
            decoded (AccountAsk.Orders "") (page [ orderJson []; json; orderJson [] ])

        equal (Ok ValueNone) answer
        equal (2, 1) (batch.OwnOrders.Count, batch.Rejections.Count)
        Assert.That(batch.Rejections[0].Reason, Does.Contain reason)
        Assert.That(Encoding.UTF8.GetString batch.Rejections[0].Bytes, Does.Not.Contain mine.Key)

    let struct (_, batch) =
        decoded (AccountAsk.Trades(ValueNone, "")) (page [ tradeJson "MAKER" "MINED" [] ])

    equal (0, 1) (batch.OwnTrades.Count, batch.Rejections.Count)

[<Test>]
let ``pages end with LTE=, and what is no page is a fault`` () =
    let answer json =
        let struct (answer, _) = decoded (AccountAsk.Orders "") json
        answer

    equal (Ok(ValueSome "MTAw")) (answer """{"data":[],"next_cursor":"MTAw"}""")
    equal (Ok ValueNone) (answer """{"data":null,"next_cursor":"LTE="}""")
    equal (Ok ValueNone) (answer "[]")

    for other in [ "{}"; "7"; """{"data":7}"""; "<html>" ] do
        isTrue (answer other).IsError

[<Test>]
let ``questions say from when and from where`` () =
    equal "/data/orders?next_cursor=MA%3D%3D" (part.Ask(AccountAsk.Orders "")).Path

    equal
        "/data/trades?after=1700000000&next_cursor=MTAw"
        (part.Ask(AccountAsk.Trades(ValueSome(Instant.ofMicros 1_700_000_000_900_000L), "MTAw"))).Path

    equal "/data/order/0xab" (part.Ask(AccountAsk.Order "0xab")).Path

[<Test>]
let ``the channel's other words are no events, and what nobody knows is counted`` () =
    let batch = Batch()

    let hear text =
        part.Channel.Hear mine (memory text) received batch

    equal 0 (hear "PONG")
    equal 0 (hear "[]")
    equal 1 (hear """{"event_type":"balance"}""")
    equal 0 batch.RowCount
    let event = orderJson [ "event_type", "\"order\"" ]
    let both = "[" + event + "," + tradeJson "TAKER" "MINED" [] + "]"
    equal 0 (hear both)
    equal (1, 1) (batch.OwnOrders.Count, batch.OwnTrades.Count)
    equal 0 (hear $"{{\"owner\":\"{mine.Key}\"")
    equal 1 batch.Rejections.Count
    Assert.That(Encoding.UTF8.GetString batch.Rejections[0].Bytes, Does.Not.Contain mine.Key)

[<Test>]
let ``the channel is opened with the credentials, for all markets`` () =
    use said = Json.JsonDocument.Parse(part.Channel.Open mine)
    let auth = said.RootElement.GetProperty "auth"
    equal (box mine.Key) (auth.GetProperty("apiKey").GetString())
    equal (box mine.Secret) (auth.GetProperty("secret").GetString())
    equal (box mine.Passphrase) (auth.GetProperty("passphrase").GetString())
    equal (box "user") (said.RootElement.GetProperty("type").GetString())
