namespace Tributary.Server.Simulator

open System

/// Lists of names on the command line.
module internal Names =
    /// Reads a comma-separated list; "all" is everything, "none" is nothing. The error lists the names.
    let parse what (all: ('a * string) list) (text: string) : Result<Set<'a>, string> =
        let add chosen (word: string) =
            chosen
            |> Result.bind (fun chosen ->
                match word.Trim().ToLowerInvariant() with
                | ""
                | "none" -> Ok chosen
                | "all" -> Ok(all |> List.map fst |> Set.ofList)
                | word ->
                    match all |> List.tryFind (snd >> (=) word) with
                    | Some(switch, _) -> Ok(Set.add switch chosen)
                    | None ->
                        let names = all |> List.map snd |> String.concat ", "
                        Error $"'{word}' is not {what}; they are {names}, all, none")

        text.Split ',' |> Array.fold add (Ok Set.empty)

/// Whose protocol an exchange speaks.
[<RequireQualifiedAccess>]
type Venue =
    | Polymarket
    /// Numbered messages, books of bids alone, signed connections.
    | Kalshi
    /// Bets, open limit orders in place of books, play money.
    | Manifold

[<RequireQualifiedAccess>]
module Venue =
    /// Every venue with its name on the command line, in a fixed order.
    let all = [
        Venue.Polymarket, "polymarket"
        Venue.Kalshi, "kalshi"
        Venue.Manifold, "manifold"
    ]

    /// The name on the command line.
    let name venue =
        all |> List.find (fst >> (=) venue) |> snd

    let tryParse (text: string) =
        all |> List.tryFind (snd >> (=) text) |> Option.map fst

/// One way in which the exchange misbehaves on request.
[<RequireQualifiedAccess>]
type FaultSwitch =
    /// An answer comes 100 to 1500 ms late.
    | Latency
    /// The matching engine restarts: for about two seconds every CLOB call answers 425.
    | EngineRestart425
    /// 429 with Retry-After, by turns in seconds and as a date.
    | Throttle429
    /// 500 or 503 with a JSON error.
    | ServerError
    /// A page of HTML, by turns with status 502 and with status 200.
    | Html
    /// A body that ends in the middle, by turns with the connection and as a complete answer of half a JSON text.
    | CutBody
    /// A follow-up page answers page 1 again, with its cursor.
    | RepeatedPage
    /// From time to time a market resolves and its tokens lose their books.
    | Resolve

[<RequireQualifiedAccess>]
module FaultSwitch =
    /// Every switch with its name on the command line, in a fixed order.
    let all = [
        FaultSwitch.Latency, "latency"
        FaultSwitch.EngineRestart425, "425"
        FaultSwitch.Throttle429, "429"
        FaultSwitch.ServerError, "5xx"
        FaultSwitch.Html, "html"
        FaultSwitch.CutBody, "cut"
        FaultSwitch.RepeatedPage, "repeat"
        FaultSwitch.Resolve, "resolve"
    ]

    /// The name on the command line and in the ledger.
    let name switch =
        all |> List.find (fst >> (=) switch) |> snd

    /// Reads a comma-separated list of names; "all" is every switch, "none" is no switch. The error lists the names.
    let parse (text: string) : Result<Set<FaultSwitch>, string> = Names.parse "a fault" all text

/// One way in which the market channel misbehaves on request. Every time one strikes, the ledger has an `Injection`.
[<RequireQualifiedAccess>]
type StreamFault =
    /// One token in five gets no book until it is subscribed anew; its deltas come. For the subscriptions made while it
    /// is on.
    | WithheldBooks
    /// One market in five says nothing more from some moment 1 to 30 s after its subscription on, until it is subscribed
    /// anew. For the subscriptions made while it is on.
    | SilentAssets
    /// The connection answers PONG and says nothing more: each second with a chance of one in thirty.
    | SilentSocket
    /// The connection neither answers PONG nor closes, and says nothing more: each second with a chance of one in thirty.
    | HalfOpen
    /// A price change is never sent.
    | Dropped
    /// A price change is sent twice, at once or some messages later.
    | Duplicated
    /// A price change is sent after one to three of its successors.
    | Reordered
    /// The bests in a best_bid_ask, and more rarely those in a price change, are not the book's.
    | WrongBest
    /// Three trades in ten, and those that follow them closely, are told some 88 ms after the books whose hashes contain
    /// them.
    | HashRace
    /// The first books of three markets in ten come 50 to 300 ms after the subscription, and deltas come before them.
    | DeltaFirst
    /// Up to four times a second a book is truly crossed, for 2 to 40 ms.
    | Crossed
    /// The connection is closed with 1000, 1001, 1011 or 1012, or breaks off (1006): each second with a chance of one in
    /// thirty.
    | Close
    /// Up to once in five seconds the tick of a market truly becomes finer.
    | TickSize
    /// Every new market, and others from time to time, are announced up to 146 times within 45 s.
    | Repeats

[<RequireQualifiedAccess>]
module StreamFault =
    /// Every switch with its name on the command line, in a fixed order.
    let all = [
        StreamFault.WithheldBooks, "withheld"
        StreamFault.SilentAssets, "silent-assets"
        StreamFault.SilentSocket, "silent-socket"
        StreamFault.HalfOpen, "half-open"
        StreamFault.Dropped, "dropped"
        StreamFault.Duplicated, "duplicated"
        StreamFault.Reordered, "reordered"
        StreamFault.WrongBest, "wrong-best"
        StreamFault.HashRace, "hash-race"
        StreamFault.DeltaFirst, "delta-first"
        StreamFault.Crossed, "crossed"
        StreamFault.Close, "close"
        StreamFault.TickSize, "tick-size"
        StreamFault.Repeats, "repeats"
    ]

    /// The name on the command line and in the ledger.
    let name fault =
        all |> List.find (fst >> (=) fault) |> snd

    /// Reads a comma-separated list of names; "all" is every switch, "none" is no switch. The error lists the names.
    let parse (text: string) : Result<Set<StreamFault>, string> = Names.parse "a stream fault" all text

/// What the simulated exchange is like. Start from `SimulatorOptions.Default`.
type SimulatorOptions = {
    /// Whose protocol it speaks.
    Venue: Venue
    /// Same seed, start and history: the same markets, books and trades at every simulated instant.
    Seed: int
    /// Active markets, of two tokens each; some closed ones come on top.
    Markets: int
    /// The port on 127.0.0.1; 0 takes any free one.
    Port: int
    /// Simulated seconds per real second.
    Speed: float
    /// The simulated time at the start; the clock's when none.
    Start: DateTimeOffset voption
    /// The faults that are on at the start.
    Faults: Set<FaultSwitch>
    /// How likely each switch is to strike a request.
    FaultRate: float
    /// Whether the documented request limits hold.
    Limits: bool
    /// Mean number of fills a simulated second, on the whole exchange.
    TradesPerSecond: float
    /// How far back trades reach at the start.
    History: TimeSpan
    /// Real time: what the simulated time runs on, and the limits and delays too.
    Clock: TimeProvider
    /// How many fills there were before `History`, over all active markets. They are made when somebody asks, so that millions of
    /// them take no memory.
    Archive: int
    /// How far back the archive reaches.
    ArchiveAge: TimeSpan
    /// The most rows that v1 gives, whatever is asked.
    V1Limit: int
    /// The largest offset that v1 takes.
    V1Offset: int
    /// An offset that is too large gives the rows at the largest again, instead of being refused.
    V1Repeats: bool
    /// The chain's logs do not say when their blocks were.
    RpcPlain: bool
    /// The newest blocks of the chain are replaced again and again.
    RpcReorgs: bool
    /// Once in so many blocks there is a log whose layout nobody knows; 0 for never.
    RpcUnknown: int
    /// Whether `/v2/trades` exists; a client has to fall back to v1 when not.
    V2: bool
    /// Mean number of price changes a simulated second on the whole exchange, from the start on and beside those that
    /// happen anyway; 0 for none.
    MessagesPerSecond: float
    /// The faults of the market channel that are on at the start.
    StreamFaults: Set<StreamFault>
    /// How likely each of them is to strike a message; those that strike connections and tokens have their own rates.
    StreamFaultRate: float
    /// How often the market of a next window `btc-updown-15m-*` appears, 400 at most; zero for never. With a quarter of an
    /// hour every window gets its market before it opens. Each resolves two minutes after its window.
    NewMarketEvery: TimeSpan
    /// The public half of the key (in PEM) whose owner may read order books in bulk and open connections; for an exchange
    /// that wants signatures. Empty: nobody may.
    PublicKey: string
    /// How many changes of books the ledger remembers, over all markets; some 24 bytes each. Older ones are forgotten
    /// by the markets that have many.
    LedgerChanges: int
} with

    static member Default = {
        Venue = Venue.Polymarket
        Seed = 1
        Markets = 200
        Port = 0
        Speed = 1.0
        Start = ValueNone
        Faults = Set.empty
        FaultRate = 0.03
        Limits = true
        TradesPerSecond = 20.0
        History = TimeSpan.FromMinutes 30.0
        Clock = TimeProvider.System
        Archive = 0
        ArchiveAge = TimeSpan.FromDays 1461.0
        V1Limit = 10_000
        V1Offset = 3_000
        V1Repeats = false
        RpcPlain = false
        RpcReorgs = false
        RpcUnknown = 0
        V2 = true
        MessagesPerSecond = 0.0
        StreamFaults = Set.empty
        StreamFaultRate = 0.01
        NewMarketEvery = TimeSpan.Zero
        PublicKey = ""
        LedgerChanges = 8_000_000
    }
