module Tributary.Tests.Exchanges.PolymarketShapesTests

open NUnit.Framework
open Tributary
open Tributary.Tests

/// The kind; `rows ` before it when it decodes; what holds it in front.
let rec private kinds (json: System.ReadOnlyMemory<byte>) : string list =
    match Shapes.recognise [ collector ] json with
    | ValueSome(struct (_, Shape.Rows(kind, _))) -> [ $"rows {kind}" ]
    | ValueSome(struct (_, Shape.Recognised kind)) -> [ kind ]
    | ValueSome(struct (_, Shape.Holds(place, values))) -> [
        for value in values do
            for kind in kinds value -> $"{place}: {kind}"
      ]
    | ValueNone -> [ "unknown" ]

let private is (expected: string list) (json: string) = equal expected (kinds (memory json))

let private book =
    """{"market":"0xm","asset_id":"71","timestamp":1,"bids":[],"asks":[{"size":1,"price":0.5,"x":0}],"extra":{}}"""

[<TestCase("""{"event_type":"book","market":"m","asset_id":"7","timestamp":"1","buys":[],"sells":[]}""",
           "rows book (stream)")>]
[<TestCase("""{"asset":"7","conditionId":"m","side":"BUY","price":"1","size":"2","timestamp":3}""",
           "rows trade v1")>]
[<TestCase("""{"timestamp":3,"token_id":"7","condition_id":"m","side":"BUY","price":1,"size":2}""",
           "rows trade v2")>]
[<TestCase("""{"data":[],"pagination":{"has_more":false}}""", "rows trade v2 page")>]
[<TestCase("""{"conditionId":"m","question":"?"}""", "rows gamma market")>]
[<TestCase("""{"id":"1","question":"?","clobTokenIds":null}""", "rows gamma market")>]
[<TestCase("""{"markets":[{"conditionId":"m","outcomes":"[]"}],"next_cursor":"c"}""", "rows gamma page")>]
[<TestCase("""{"events":[{"id":"1","ticker":"t","slug":"s","title":"T"}]}""", "rows gamma page")>]
[<TestCase("""{"id":"1","slug":"s","title":"T","markets":[]}""", "rows gamma event")>]
[<TestCase("""{"event_type":"price_change","market":"m","price_changes":[]}""", "price_change")>]
[<TestCase("""{"event_type":"price_change","asset_id":"7","changes":[]}""", "price_change (until 2025-09)")>]
[<TestCase("""{"market":"m","price_changes":[{"asset_id":"7","price":"1","size":"0"}]}""", "price_change")>]
[<TestCase("""{"event_type":"last_trade_price","asset_id":"7"}""", "last_trade_price")>]
[<TestCase("""{"asset_id":"7","price":"1","size":"0","side":"BUY","hash":"h","best_bid":"0","best_ask":"1"}""",
           "price_change (one level)")>]
[<TestCase("""{"event_type":"brand_new","market":"m"}""", "stream event of an unknown type")>]
[<TestCase("""{"event_type":"book","bids":[],"asks":[]}""", "unknown")>]
[<TestCase("""{"bids":[],"asks":[],"timestamp":1}""", "levels without a token")>]
[<TestCase("""{"price":"1","size":"2","side":"sell","timestamp":"1"}""", "trade without a token")>]
[<TestCase("""{"id":"1","label":"Crypto","slug":"crypto"}""", "gamma tag")>]
[<TestCase("""{"events":[],"pagination":{"hasMore":false}}""", "gamma search")>]
[<TestCase("""{"condition_id":"m","tokens":[{"token_id":"7","outcome":"Yes"}]}""", "clob market")>]
[<TestCase("""{"id":"1","taker_order_id":"2","asset_id":"7"}""", "own trade")>]
[<TestCase("""{"id":"1","original_size":"2","size_matched":"0"}""", "own order")>]
[<TestCase("""{"topic":"crypto_prices","type":"update","payload":{}}""", "live data (RTDS)")>]
[<TestCase("""{"base_fee":0}""", "fee rate")>]
[<TestCase("""{"mid":"0.5"}""", "midpoint")>]
[<TestCase("""{"history":[{"t":1,"p":0.5}]}""", "price history")>]
[<TestCase("""{"error":"No orderbook exists for the requested token id"}""", "error")>]
[<TestCase("""{"assets_ids":["7"],"type":"market"}""", "subscription")>]
[<TestCase("""{"operation":"subscribe","assets_ids":["7"]}""", "subscription")>]
[<TestCase("\"PONG\"", "keep-alive")>]
[<TestCase("[]", "empty list")>]
[<TestCase("{}", "empty object")>]
[<TestCase("1786728432", "server time")>]
let ``a value is told by its members`` (json: string, kind: string) = is [ kind ] json

[<Test>]
let ``a list is judged element by element`` () =
    is [ "list: rows book"; "list: midpoint"; "list: unknown" ] $"""[{book},{{"mid":"0.5"}},{{"what":1}}]"""

[<Test>]
let ``a recorder's own object is looked into, and named`` () =
    is [ "'raw': rows book" ] $"""{{"ts":1,"raw":{book}}}"""
    is [ "'anything': rows book" ] $"""{{"complement_id":"7","anything":{book}}}"""
    is [ "'data': midpoint" ] """{"ts":1,"data":{"mid":"0.5"}}"""
    is [ "'msg': list: rows book" ] $"""{{"msg":[{book}]}}"""
    is [ "list: rows book" ] $"""[1786728432.5,{book}]"""

[<Test>]
let ``an exchange's value may stand inside a text`` () =
    let text = System.Text.Json.JsonSerializer.Serialize book
    is [ "text: rows book" ] text
    is [ "'payload': rows book" ] $"""{{"payload":{text}}}"""

[<TestCase("null")>]
[<TestCase("true")>]
[<TestCase("7")>]
[<TestCase("\"hello\"")>]
[<TestCase("[1,2]")>]
[<TestCase("{\"a\":")>]
[<TestCase("[{\"mid\":\"1\"}")>]
[<TestCase("")>]
[<TestCase("<html>")>]
[<TestCase("""{"type":"trade","sid":1,"msg":{"market_ticker":"K","yes_price":5,"count":1,"taker_side":"yes","ts":1}}""")>]
[<TestCase("""{"cursor":"","markets":[]}""")>]
[<TestCase("""{"cursor":"","markets":[{"ticker":"K","title":"?"}]}""")>]
[<TestCase("""{"id":"m","question":"?","slug":"s","outcomeType":"BINARY","probability":0.5}""")>]
let ``what is nobody's, or another exchange's, is unknown`` (json: string) = is [ "unknown" ] json

[<Test>]
let ``wrappers in wrappers end somewhere`` () =
    let mutable json = book

    for _ in 1..60 do
        json <- $"""{{"raw":{json}}}"""

    is [ "unknown" ] json
