/// What the tests of Polymarket's decoders share: answers in, rows out.
[<AutoOpen>]
module Tributary.Tests.Exchanges.PolymarketSupport

open System
open Tributary
open Tributary.Exchanges
open Tributary.Tests

let collector = Polymarket.collector Registry.defaultOptions
let received = seconds 1_786_728_500L

/// A page of a recording: nothing more is asked for.
let page walk : Request = {
    Endpoint = "test"
    Host = ""
    Path = "/test"
    Body = ValueNone
    Walk = walk
}

let decodeBytes (request: Request) (body: byte[]) =
    let batch = Batch()
    let decoded = collector.Decode request (ReadOnlyMemory body) received batch
    batch, decoded

let decode request (body: string) = decodeBytes request (utf8 body)
let trades (batch: Batch) = [ for i in 0 .. batch.Trades.Count - 1 -> batch.Trade i ]
let books (batch: Batch) = [ for i in 0 .. batch.Books.Count - 1 -> batch.Book i ]
let reasons (batch: Batch) = [ for rejection in batch.Rejections -> rejection.Reason ]

/// The only one there is.
let single (all: 't list) =
    match all with
    | [ one ] -> one
    | _ -> failwith $"%d{all.Length} of them"

let isFaulty (decoded: Decoded) = decoded.Fault.IsSome

let isRepeated (decoded: Decoded) =
    match decoded.Fault with
    | ValueSome(Fault.RepeatedPage _) -> true
    | _ -> false

/// `{"a":1,"b":2}`
let object members =
    members
    |> List.map (fun (name, value) -> $"\"{name}\":{value}")
    |> String.concat ","
    |> sprintf "{%s}"

let list (values: string list) = "[" + String.concat "," values + "]"

let quoted text = $"\"{text}\""

/// These members, with some others in their places.
let changed changes members =
    members
    |> List.map (fun (name, value) ->
        name, defaultArg (List.tryPick (fun (n, v) -> if n = name then Some v else None) changes) value)
