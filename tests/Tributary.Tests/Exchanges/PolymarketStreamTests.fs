module Tributary.Tests.Exchanges.PolymarketStreamTests

open System
open System.Text
open NUnit.Framework
open FsCheck.NUnit
open Tributary
open Tributary.Tests

let private condition = "0x" + String('c', 64)

let private part = collector.Stream.Value
let private session = part.Session()

/// An event with its slices read: what a frame said.
type private Said = {
    Kind: StreamKind
    Market: string
    Token: string
    At: Instant
    Side: Side
    Price: string
    Size: string
    Best: int64 * int64
    Hash: string
    Text: string
    Detail: string
    IsLast: bool
}

let private hearBytes (bytes: byte[]) =
    let names = Names()
    let frame = Frame names
    session.Decode (ReadOnlyMemory bytes) received frame

    let text (slice: Slice) =
        Encoding.UTF8.GetString(bytes, slice.Start, slice.Length)

    let said = [
        for i in 0 .. frame.Events.Count - 1 do
            let event = frame.Events[i]

            {
                Kind = event.Kind
                // A change leaves its market to its token: both of them are of this one.
                Market =
                    if event.Kind = StreamKind.Change && event.Market.Key = 0 then
                        condition
                    else
                        names.Text event.Market
                Token = names.Text event.Token
                At = event.At
                Side = event.Side
                Price = Fixed.text event.Price
                Size = Fixed.text event.Size
                Best = event.BestBid, event.BestAsk
                Hash = text event.Hash
                Text = text event.Text
                Detail = text event.Detail
                IsLast = event.IsLast
            }
    ]

    frame, said

let private hear (text: string) = hearBytes (utf8 text)
let private said text = snd (hear text)
let private rejected (frame: Frame) = [ for one in frame.Batch.Rejections -> one.Offset, one.Reason ]

let private up, down = String('7', 77), String('3', 76) + "0"
let private stamp = "1790000000123"
let private moment = Instant.ofMillis 1_790_000_000_123L
let private hashOf digit = String(digit, 40)
let private quotedAll = List.map (fun (name, value) -> name, quoted value)

let private level token price size side hash best =
    quotedAll [
        "asset_id", token
        "price", price
        "size", size
        "side", side
        "hash", hash
        "best_bid", fst best
        "best_ask", snd best
    ]

let private mirrored = [
    level up "0.41" "17.5" "BUY" (hashOf 'a') ("0.41", "0.43")
    level down "0.59" "17.5" "SELL" (hashOf 'b') ("0.57", "0.59")
]

let private changesOf levels = [
    "market", quoted condition
    "price_changes", list (List.map object levels)
    "timestamp", quoted stamp
    "event_type", quoted "price_change"
]

let private change = object (changesOf mirrored)

let private nothing = {
    Kind = StreamKind.Change
    Market = condition
    Token = up
    At = moment
    Side = Side.Buy
    Price = "0"
    Size = "0"
    Best = -1L, -1L
    Hash = ""
    Text = ""
    Detail = ""
    IsLast = true
}

let private expected = [
    {
        nothing with
            Price = "0.41"
            Size = "17.5"
            Best = 410_000L, 430_000L
            Hash = hashOf 'a'
    }
    {
        nothing with
            Token = down
            Side = Side.Sell
            Price = "0.59"
            Size = "17.5"
            Best = 570_000L, 590_000L
            Hash = hashOf 'b'
    }
]

// ---- changes

[<Test>]
let ``a change in the usual form says both tokens' levels`` () =
    let frame, said = hear change
    equal expected said
    equal 0L frame.Unusual
    equal [] (rejected frame)

/// Any order of members, at both levels, with white space wherever it may stand.
let private shuffled (seed: int) (levels: (string * string) list list) =
    let random = Random seed

    let space () =
        [| ""; ""; ""; " "; "\n\t"; "  \r\n" |][random.Next 6]

    let order members =
        let array = Array.ofList members
        random.Shuffle array
        List.ofArray array

    let spaced text = space () + text + space ()

    let object members =
        order members
        |> List.map (fun (name, value) -> spaced (quoted name) + ":" + spaced value)
        |> String.concat ","
        |> sprintf "{%s}"

    let rows =
        levels |> List.map (fun level -> spaced (object level)) |> String.concat ","

    changesOf [] |> changed [ "price_changes", $"[{rows}]" ] |> object |> spaced

[<Property(MaxTest = 500)>]
let ``any order of members and any white space says the same`` (seed: int) =
    let frame, said = hear (shuffled seed mirrored)
    equal [] (rejected frame)
    equal expected said

[<Property(MaxTest = 300)>]
let ``members that nobody knows are passed over, wherever they stand`` (seed: int) =
    let more =
        mirrored |> List.map (fun level -> ("x", """{"price":["0.9",null]}""") :: level)

    equal expected (said (shuffled seed more))

[<Test>]
let ``a level without best prices says none, and sides in lower case are sides`` () =
    let bare =
        quotedAll [
            "asset_id", up
            "price", "0.41"
            "size", "0"
            "side", "sell"
            "hash", hashOf 'a'
        ]

    equal
        [
            {
                nothing with
                    Side = Side.Sell
                    Price = "0.41"
                    Hash = hashOf 'a'
            }
        ]
        (said (object (changesOf [ bare ])))

[<TestCase("0", "1", 0L, 1_000_000L)>]
[<TestCase("", "", 0L, 1_000_000L)>]
[<TestCase("0.001", "0.999", 1_000L, 999_000L)>]
let ``an empty side is a best bid of 0 and a best ask of 1``
    (bid: string, ask: string, bestBid: int64, bestAsk: int64)
    =
    let one = level up "0.41" "0" "BUY" (hashOf 'a') (bid, ask)
    equal [ bestBid, bestAsk ] (said (object (changesOf [ one ])) |> List.map _.Best)

[<Test>]
let ``only the last change of a token in a message is the last one`` () =
    let levels = [
        level up "0.41" "1" "BUY" (hashOf 'a') ("0.41", "0.43")
        level down "0.59" "1" "SELL" (hashOf 'b') ("0.57", "0.59")
        level up "0.40" "2" "BUY" (hashOf 'c') ("0.41", "0.43")
    ]

    for text in [ object (changesOf levels); object (List.rev (changesOf levels)) ] do
        equal [ false; true; true ] (said text |> List.map _.IsLast)

[<Test>]
let ``changes of the form before September 2025 have their token and hash in the message`` () =
    let old =
        object [
            "market", quoted condition
            "asset_id", quoted up
            "timestamp", quoted stamp
            "hash", quoted (hashOf 'e')
            "changes",
            list [
                object (quotedAll [ "price", "0.4"; "side", "SELL"; "size", "30" ])
                object (quotedAll [ "price", "0.5"; "side", "BUY"; "size", "0" ])
            ]
            "event_type", quoted "price_change"
        ]

    equal
        [
            {
                nothing with
                    Side = Side.Sell
                    Price = "0.4"
                    Size = "30"
                    Hash = hashOf 'e'
                    IsLast = false
            }
            {
                nothing with
                    Price = "0.5"
                    Hash = hashOf 'e'
            }
        ]
        (said old)

// ---- the other messages

let private book =
    object [
        "market", quoted condition
        "asset_id", quoted up
        "timestamp", quoted stamp
        "hash", quoted (hashOf 'd')
        "bids", """[{"price":"0.3","size":"5"},{"price":"0.4","size":"7.25"}]"""
        "asks", """[{"price":"0.6","size":"2"}]"""
        "tick_size", quoted "0.01"
        "event_type", quoted "book"
        "last_trade_price", quoted "0.370"
    ]

[<Test>]
let ``a book is a row of the frame's batch, its last price verbatim`` () =
    let frame, said = hear book
    equal [ StreamKind.Book ] (said |> List.map _.Kind)
    equal [ up, moment ] (said |> List.map (fun one -> one.Token, one.At))
    let row = frame.Batch.Book frame.Events[0].Row
    equal [ "0.4", "7.25"; "0.3", "5" ] [ for level in row.Bids -> string level.Price, string level.Size ]
    equal [ "0.6", "2" ] [ for level in row.Asks -> string level.Price, string level.Size ]
    equal (hashOf 'd') row.Hash
    equal "0.370" (frame.Batch.Text frame.Batch.Books[0].LastTrade)

/// The same with its type last, as it usually is.
let private usualBook =
    book.Replace("\"event_type\":\"book\",", "").TrimEnd '}'
    + ",\"event_type\":\"book\"}"

let private fill =
    quotedAll [
        "market", condition
        "asset_id", up
        "price", "0.40"
        "size", "12.5"
        "fee_rate_bps", ""
        "side", "SELL"
        "timestamp", stamp
        "transaction_hash", "0xfeed"
        "event_type", "last_trade_price"
    ]

[<Test>]
let ``a fill keeps its price as it was written`` () =
    equal
        [
            {
                nothing with
                    Kind = StreamKind.Trade
                    Side = Side.Sell
                    Price = "0.4"
                    Size = "12.5"
                    Text = "0.40"
                    Detail = "0xfeed"
            }
        ]
        (said (object fill))

[<Test>]
let ``a tick size that changes is kept as it was written`` () =
    let tick =
        quotedAll [
            "market", condition
            "asset_id", up
            "old_tick_size", "0.01"
            "new_tick_size", "0.001"
            "timestamp", stamp
            "event_type", "tick_size_change"
        ]

    equal
        [
            {
                nothing with
                    Kind = StreamKind.TickSize
                    Price = "0.001"
                    Text = "0.001"
            }
        ]
        (said (object tick))

[<TestCase("0.4", "0.6", 400_000L, 600_000L)>]
[<TestCase("0", "0.6", 0L, 600_000L)>]
let ``best prices by themselves`` (bid: string, ask: string, bestBid: int64, bestAsk: int64) =
    let best =
        quotedAll [
            "event_type", "best_bid_ask"
            "market", condition
            "asset_id", up
            "best_bid", bid
            "best_ask", ask
            "spread", "0.2"
            "timestamp", stamp
        ]

    equal
        [
            {
                nothing with
                    Kind = StreamKind.BestPrices
                    Best = bestBid, bestAsk
            }
        ]
        (said (object best))

let private newMarket slug =
    object [
        "id", quoted "77"
        "question", quoted "Will it \\u0041?"
        "market", quoted condition
        "slug", quoted slug
        "assets_ids", list [ quoted up; quoted down ]
        "outcomes", """["Yes","No"]"""
        "event_message", """{"id":"1","slug":"another","tags":[{"market":"0x1"}]}"""
        "timestamp", quoted stamp
        "active", "true"
        "line", "null"
        "fee_schedule", """{"exponent":1,"rate":0.25}"""
        "event_type", quoted "new_market"
    ]

[<Test>]
let ``a new market says its id and slug, whatever lies within its other members`` () =
    equal
        [
            {
                nothing with
                    Kind = StreamKind.NewMarket
                    Token = ""
                    Text = "will-it"
            }
        ]
        (said (newMarket "will-it"))

[<Test>]
let ``a resolved market says its winner`` () =
    let resolved =
        object [
            "id", quoted "77"
            "market", quoted condition
            "assets_ids", list [ quoted up; quoted down ]
            "winning_asset_id", quoted down
            "winning_outcome", quoted "No"
            "timestamp", quoted stamp
            "event_type", quoted "market_resolved"
        ]

    equal
        [
            {
                nothing with
                    Kind = StreamKind.Resolved
                    Token = down
                    Detail = "No"
            }
        ]
        (said resolved)

[<Test>]
let ``a message of an unknown type is counted and passed over`` () =
    let frame, said =
        hear """{"event_type":"moon_phase","market":"0x1","phase":{"full":[true]}}"""

    equal [] said
    equal (1L, []) (frame.Unknown, rejected frame)

[<TestCase("PONG", 1L)>]
[<TestCase("[]", 0L)>]
[<TestCase(" [ ] ", 0L)>]
[<TestCase("", 0L)>]
[<TestCase(" \n", 0L)>]
let ``frames that say nothing`` (text: string, pongs: int64) =
    let frame, said = hear text
    equal [] said
    equal (pongs, []) (frame.Pongs, rejected frame)

// ---- several messages, and bad ones

[<Test>]
let ``messages in one frame are read in their order, and have numbers of their own`` () =
    let frame, said = hear (list [ change; object fill; book ])

    equal
        [ StreamKind.Change; StreamKind.Change; StreamKind.Trade; StreamKind.Book ]
        (said |> List.map _.Kind)

    equal [ 1; 1; 2; 3 ] [ for i in 0..3 -> frame.Events[i].Message ]

[<Test>]
let ``a frame that is filled anew forgets its events and goes on with its numbers`` () =
    let frame = Frame(Names())

    for n in 1..3 do
        frame.Clear()
        session.Decode (memory change) received frame
        equal 2 frame.Events.Count
        equal n frame.Events[0].Message

let private badLevel changes =
    object (changesOf [ mirrored[0]; mirrored[1] |> changed changes ])

/// What is wrong, and what the reason mentions.
let private bad = [
    badLevel [ "side", quoted "HOLD" ], "side"
    badLevel [ "price", quoted "abc" ], "price"
    badLevel [ "price", quoted "" ], "price"
    badLevel [ "size", quoted "-1" ], "negative"
    badLevel [ "size", quoted "1e400" ], "size"
    badLevel [ "best_bid", quoted "x" ], "best bid"
    badLevel [ "best_ask", quoted "x" ], "best ask"
    badLevel [ "asset_id", quoted "a b" ], "token"
    object (changesOf mirrored |> changed [ "timestamp", quoted "soon" ]), "timestamp"
    object (changesOf mirrored |> changed [ "market", quoted "" ]), "market"
    object (changesOf mirrored |> changed [ "price_changes", "7" ]), "list"
    object (changesOf mirrored |> changed [ "price_changes", "[7]" ]), "malformed"
    object (fill |> changed [ "price", quoted "" ]), "price"
    object (fill |> changed [ "size", quoted "-2" ]), "size"
    object (fill |> changed [ "side", quoted "" ]), "side"
    object (fill |> changed [ "timestamp", "null" ]), "timestamp"
    object (fill |> changed [ "asset_id", "null" ]), "token"
    """{"event_type":"tick_size_change","timestamp":"1790000000123"}""", "tick size"
    """{"event_type":"best_bid_ask","best_bid":"x"}""", "best prices"
    "7", "malformed"
    "\"text\"", "malformed"
    "null", "malformed"
]

[<Test>]
let ``a bad message costs no good one, and is kept with its place and reason`` () =
    for message, word in bad do
        let frame, said = hear (list [ change; message; object fill ])

        if said.Length <> 3 then
            Assert.Fail $"{message}: %A{said}"

        equal (List.truncate 2 said) expected

        match List.ofSeq frame.Batch.Rejections with
        | [ rejection ] ->
            equal (2 + change.Length) rejection.Offset
            equal message (Encoding.UTF8.GetString rejection.Bytes)
            equal ("ws/market", received) (rejection.Source, rejection.Received)

            if not (rejection.Reason.Contains word) then
                Assert.Fail $"'{rejection.Reason}' does not mention '{word}'"
        | others -> Assert.Fail $"{message}: %A{others}"

[<Test>]
let ``text behind a message is kept, and costs the message nothing`` () =
    for whole, meant in
        [
            change, expected
            list [ change ], expected
            book, said book
            usualBook, said book
        ] do
        let frame, heard = hear (whole + " {\"more\"")
        equal meant heard
        equal [ whole.Length + 1, "something follows the end of the JSON" ] (rejected frame)

[<Test>]
let ``a book says the same wherever its type stands`` () =
    let frame, heard = hear usualBook
    equal (0L, said book) (frame.Unusual, heard)
    let other, _ = hear book
    equal 1L other.Unusual
    equal (string (other.Batch.Book 0)) (string (frame.Batch.Book 0))

[<Test>]
let ``what looks like a book up to its type is what its type says`` () =
    let frame, heard = hear (usualBook.Replace("\"book\"", "\"ladder\""))
    equal ([], 1L, 0, 0) (heard, frame.Unknown, frame.Batch.Books.Count, frame.Batch.Levels.Count)

[<Test>]
let ``a book that cannot be read leaves no levels behind`` () =
    let broken = book.Replace("0.6", "zero")
    let frame, said = hear (list [ broken; book ])
    equal 1 said.Length
    equal (1, 3, 1) (frame.Batch.Books.Count, frame.Batch.Levels.Count, frame.Batch.Rejections.Count)
    equal 0 frame.Events[0].Row

[<Test>]
let ``whatever a message is cut to, it says nothing and is kept`` () =
    for whole in [ change; book; object fill; shuffled 5 mirrored |> _.Trim() ] do
        for length in 1 .. whole.Length - 1 do
            let frame, said = hear (whole.Substring(0, length))
            equal [] said
            equal [ 0 ] (rejected frame |> List.map fst)

[<Test>]
let ``of a list that breaks off, the whole messages count, and the rest is kept`` () =
    let whole = list [ change; object fill ]

    for length in 1 .. whole.Length - 1 do
        let frame, said = hear (whole.Substring(0, length))

        let expected =
            if length <= change.Length then 0
            elif length < whole.Length - 1 then 2
            else 3

        equal expected said.Length
        equal 1 (rejected frame).Length

let private withBadByte (text: string) =
    let bytes = utf8 text
    bytes[text.IndexOf '!'] <- 0xFFuy
    bytes

[<Test>]
let ``a message that is no UTF-8 is kept, and those beside it count`` () =
    let frame, said =
        hearBytes (withBadByte (list [ change; newMarket "oh!"; object fill ]))

    equal 3 said.Length
    equal expected (List.truncate 2 said)
    equal [ 2 + change.Length, "not valid UTF-8" ] (rejected frame)

// ---- what is sent

[<Test>]
let ``a connection opens with its first tokens`` () =
    equal
        """{"assets_ids":["12","345"],"type":"market","initial_dump":true,"level":2,"custom_feature_enabled":true}"""
        (single (session.Open [ token "12"; token "345" ]))

[<Test>]
let ``more tokens are subscribed to, and given up`` () =
    equal
        """{"operation":"subscribe","assets_ids":["12","345"],"initial_dump":true,"level":2,"custom_feature_enabled":true}"""
        (single (session.Subscribe [ token "12"; token "345" ]))

    equal """{"operation":"unsubscribe","assets_ids":["12"]}""" (single (session.Unsubscribe [ token "12" ]))
    equal ("PING", TimeSpan.FromSeconds 10.0) (part.Ping, part.PingEvery)
