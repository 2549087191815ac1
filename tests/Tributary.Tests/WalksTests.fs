module Tributary.Tests.WalksTests

open System
open System.Text
open NUnit.Framework
open Tributary

let private ask path : Request = {
    Endpoint = "trades"
    Host = "data_url"
    Path = path
    Body = ValueNone
    Walk = Walk.Books []
}

let private next paths = {
    Decoded.nothing with
        Next = List.map ask paths
}

let private waiting (progress: Progress) = progress.Waiting |> List.map _.Path
let private empty () = Batch(Names())

let private span (text: string) =
    ReadOnlySpan(Encoding.UTF8.GetBytes text)

/// A page with so many fills that are all alike.
let private alike count =
    let batch = empty ()
    batch.Exchange <- "polymarket"


    for _ in 1..count do
        let row: TradeRow = {
            Market = batch.Names.Intern(span "m")
            Token = batch.Names.Intern(span "t")
            Outcome = batch.Names.Intern(span "Yes")
            Side = Side.Buy
            Source = Source.Api
            Price = price "0.5"
            Size = size "1"
            At = seconds 9L
            Received = seconds 9L
            Transaction = batch.KeepLower(span "0xab")
            Wallet = batch.KeepLower(span "0xcd")
            Flags = Flags.None
            Occurrence = 0
            Collateral = ValueNone
            Id = { High = 0UL; Low = 0UL }
            Inserted = false
        }

        batch.Trades.Add &row

    batch

let private occurrences (batch: Batch) = [
    for i in 0 .. batch.Trades.Count - 1 -> batch.Trades[i].Occurrence
]

[<Test>]
let ``a walk is done when nothing waits`` () =
    let one = Walks.start (ask "1")
    isTrue (not (Walks.isDone one))
    let two = one |> Walks.answered (next [ "2" ]) (empty ())
    equal [ "2" ] (waiting two)
    let three = two |> Walks.answered (next []) (empty ())
    isTrue (Walks.isDone three)
    equal 2 three.Pages

[<Test>]
let ``the halves of a window come before what waited already`` () =
    let progress =
        Walks.start (ask "all")
        |> Walks.answered (next [ "new"; "old" ]) (empty ())
        |> Walks.answered (next [ "newer"; "newish" ]) (empty ())

    equal [ "newer"; "newish"; "old" ] (waiting progress)

[<Test>]
let ``when one of several fails the others go on`` () =
    let progress =
        Walks.start (ask "all")
        |> Walks.answered (next [ "new"; "old" ]) (empty ())
        |> Walks.failed (Fault.Refused(400, "")) (empty ())

    equal [ "old" ] (waiting progress)
    let ended = progress |> Walks.answered (next []) (empty ())
    isTrue (Walks.isDone ended)

    equal
        [ "new", Fault.Refused(400, "") ]
        (ended.Failed |> List.map (fun (request, fault) -> request.Path, fault))

[<Test>]
let ``a refusal with a meaning is an answer without rows`` () =
    let progress =
        Walks.start (ask "v2")
        |> Walks.understood {
            next [ "v1" ] with
                Notes = [ "no v2 here" ]
        }

    equal [ "v1" ] (waiting progress)
    equal [ "no v2 here" ] progress.Notes
    isTrue progress.Failed.IsEmpty

[<Test>]
let ``the newest moment of all pages is kept`` () =
    let head at = { next [ "more" ] with Head = at }

    let progress =
        Walks.start (ask "1")
        |> Walks.answered (head ValueNone) (empty ())
        |> Walks.answered (head (ValueSome(seconds 5L))) (empty ())
        |> Walks.answered (head (ValueSome(seconds 3L))) (empty ())
        |> Walks.answered (head ValueNone) (empty ())

    equal (ValueSome(seconds 5L)) progress.Head

[<Test>]
let ``what is missing, cut short or remarkable adds up`` () =
    let page name = {
        next [ "more" ] with
            Missing = [ token name ]
            Truncated = [ struct (market name, seconds 1L, seconds 2L) ]
            Notes = [ name ]
    }

    let progress =
        Walks.start (ask "1")
        |> Walks.answered (page "a") (empty ())
        |> Walks.answered (page "b") (empty ())

    equal [ token "a"; token "b" ] progress.Missing
    equal 2 progress.Truncated.Length
    equal [ "a"; "b" ] progress.Notes

[<Test>]
let ``identical fills are numbered across the edge of a page, also after one that failed in its middle`` () =
    let first, second, third = alike 2, alike 1, alike 1

    Walks.start (ask "1")
    |> Walks.answered (next [ "2" ]) first
    |> Walks.answered (next [ "3"; "4" ]) second
    |> Walks.failed (Fault.Undecodable(9, "")) third
    |> ignore

    equal [ 0; 1 ] (occurrences first)
    equal [ 2 ] (occurrences second)
    equal [ 3 ] (occurrences third)
