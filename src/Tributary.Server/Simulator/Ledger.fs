namespace Tributary.Server.Simulator

open System
open System.Collections.Generic

/// One true fill, whether it could be seen yet or not.
type LedgerTrade = {
    Condition: string
    Token: string
    /// The taker's wallet in lower case; the exchange prints some in mixed case.
    Wallet: string
    /// "BUY" or "SELL": the taker's.
    Side: string
    Price: decimal
    Size: decimal
    PriceMillionths: int64
    SizeMillionths: int64
    /// Seconds since 1970.
    Timestamp: int64
    Transaction: string
    /// 0 for the first of the fills that are equal in everything above, 1 for the second.
    Occurrence: int
    /// The simulated instant from which the Data API shows it.
    VisibleAt: DateTimeOffset
}

/// A book that was delivered.
[<Struct>]
type LedgerBook = {
    Token: string
    /// Milliseconds since 1970; 0 where the exchange tells no time of a book.
    Timestamp: int64
    /// The exchange's; where it tells none, `LedgerBook.digest`.
    Hash: string
}

module LedgerBook =
    /// A hash of a book's levels, (price, size) in millionths, best first: of an exchange whose books say none, this tells what a book
    /// that was delivered said.
    let digest (bids: struct (int64 * int64)[]) (asks: struct (int64 * int64)[]) =
        let side (levels: struct (int64 * int64)[]) =
            levels
            |> Array.map (fun struct (price, size) -> $"{price}:{size}")
            |> String.concat ","

        side bids + "|" + side asks
        |> Text.Encoding.ASCII.GetBytes
        |> Security.Cryptography.SHA256.HashData
        |> Convert.ToHexStringLower

/// One request as the exchange saw it.
type LedgerRequest = {
    /// 1 for the first request after the start.
    Sequence: int64
    /// Real time.
    Received: DateTimeOffset
    Simulated: DateTimeOffset
    Method: string
    PathAndQuery: string
    Status: int
    /// The name of the fault that struck it, or "limit" when it came over a limit.
    Fault: string option
    /// From the request to the finished answer, before it was sent.
    Milliseconds: float
    /// The tokens whose books were asked for.
    Asked: string[]
    /// The books in an answer that was sent whole.
    Books: LedgerBook[]
    /// Rows of trades in an answer that was sent whole.
    Rows: int
}

/// The true book of a token at an instant.
type TrueBook = {
    Token: string
    /// Milliseconds since 1970 of the last change until that instant.
    Timestamp: int64
    /// As `/book` and the market channel print it.
    Hash: string
    /// (price, size) in millionths, best first.
    Bids: struct (int64 * int64)[]
    /// (price, size) in millionths, best first.
    Asks: struct (int64 * int64)[]
    TickSize: string
    /// Verbatim, trailing zeros included; "" when never traded.
    LastTradePrice: string
}

/// A true state of a token's book.
[<Struct>]
type TrueState = {
    /// Milliseconds since 1970.
    Timestamp: int64
    Hash: string
}

/// A connection of the market channel.
type LedgerConnection = {
    /// From 1 on; the answer to the upgrade says it in the header `Simulator-Session`.
    Session: int
    /// Simulated microseconds since 1970.
    Opened: int64
    /// Simulated microseconds of its end, on whichever side.
    Ended: int64 voption
    /// Frames that were sent, with PONG and the farewell.
    Frames: int64
    /// The tokens that it is subscribed to now.
    Tokens: string[]
}

/// What the ledger knows of books, however it is kept.
type internal Truth = {
    BookAt: string -> int64 -> TrueBook voption
    States: string -> TrueState[]
    Injections: unit -> Injection[]
    Connections: unit -> LedgerConnection[]
}

/// What truly happened, on the exchange's side. Safe to read from any thread.
[<Sealed>]
type Ledger internal (trades: unit -> LedgerTrade[], truth: Truth) =
    let requests = Queue<LedgerRequest>()
    let mutable held = 0
    let mutable forgotten = 0L

    // Bounds the memory: a poll of 400 books, or a long list of markets in the address, weighs as much as many small ones.
    let most = 3_000_000
    let mostRequests = 200_000

    let weight request =
        1
        + request.PathAndQuery.Length / 16
        + request.Asked.Length
        + request.Books.Length

    /// Every true fill until now, oldest first.
    member _.Trades = trades ()

    /// The true book of a token after every change whose millisecond is not later than this one; none when the token is
    /// unknown, or the instant lies before the start or before what is remembered (`SimulatorOptions.LedgerChanges`). After a
    /// resolution it stays the last book.
    member _.BookAt(token: string, atMillis: int64) = truth.BookAt token atMillis

    /// Every true state of a token's book that the ledger remembers, oldest first, as the market channel tells them: each
    /// price change on its own, a trade or a new tick as a whole. Every hash is computed for it, some 20 µs each.
    member _.States(token: string) = truth.States token

    /// The latest misbehaviours of the market channel, oldest first; 500,000 at most.
    member _.Injections = truth.Injections()

    /// Every connection of the market channel, oldest first.
    member _.Connections = truth.Connections()

    /// The latest requests, oldest first, without those to `/ledger` and `/control`.
    member _.Requests = lock requests requests.ToArray

    /// How many older requests were let go to bound the memory.
    member _.Forgotten = lock requests (fun () -> forgotten)

    member internal _.Add(request: LedgerRequest) =
        lock requests (fun () ->
            requests.Enqueue request
            held <- held + weight request

            while held > most || requests.Count > mostRequests do
                held <- held - weight (requests.Dequeue())
                forgotten <- forgotten + 1L)
