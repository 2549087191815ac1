namespace Tributary

open System
open System.Text

/// A question to an exchange; what its answer is about stands in it.
type PlainRequest = {
    /// The limit that it counts against.
    Endpoint: string
    /// The setting that holds the base address.
    Host: string
    /// Path and query below the base address.
    Path: string
    /// A JSON body makes it a POST.
    Body: string voption
}

/// A whole order book.
type PlainBook = {
    Market: MarketId
    Token: TokenId
    /// In any order.
    Bids: Level[]
    /// In any order.
    Asks: Level[]
    At: Instant
}

/// A fill.
type PlainTrade = {
    Market: MarketId
    Token: TokenId
    Outcome: string
    /// The taker's.
    Side: Side
    Price: Price
    Size: Size
    At: Instant
    /// What tells it from others of its second: a transaction, or the exchange's own id; or empty.
    Transaction: string
    /// The taker's wallet or name, or empty.
    Wallet: string
}

/// What an answer says.
type PlainAnswer = {
    Markets: Market list
    Books: PlainBook list
    /// Newest first, as pages come.
    Trades: PlainTrade list
    /// What to ask next: the following page.
    Next: PlainRequest list
    /// Tokens that were asked for and that the exchange does not know.
    Missing: TokenId list
    /// Why rows of it cannot be read, a sentence each.
    Rejected: string list
}

/// An exchange in plain values, for one that is written elsewhere: it is polled for markets, order books and trades.
[<NoComparison; NoEquality>]
type PlainExchange = {
    Exchange: ExchangeId
    /// Settings that hold base addresses, with their defaults.
    Hosts: (string * string) list
    /// Requests in any ten seconds, by endpoint.
    Limits: (string * int) list
    Ask: Need -> PlainRequest list
    /// What an answer to a request of a need says; an error keeps the answer in quarantine.
    Decode: Need -> PlainRequest -> ReadOnlyMemory<byte> -> Instant -> Result<PlainAnswer, string>
}

/// From an exchange in plain values to a collector.
[<RequireQualifiedAccess>]
module Plain =
    let private needOf walk =
        match walk with
        | Walk.Markets(need, _) -> need
        | Walk.Books tokens -> Need.Books tokens
        | Walk.Trades(follows, _) -> Need.Trades follows
        // It has no sources of the past that it could be asked with.
        | Walk.History _ -> Need.MarketsById []

    let private seenIn walk =
        match walk with
        | Walk.Markets(_, state)
        | Walk.Trades(_, state) -> state.Seen
        | Walk.Books _
        | Walk.History _ -> Set.empty

    let private mark (request: PlainRequest) =
        $"{request.Host} {request.Path} {ValueOption.defaultValue String.Empty request.Body}"

    let private requestOf need seen (request: PlainRequest) : Request =
        let state = {
            PageState.first "" with
                Page = Set.count seen
                Seen = Set.add (mark request) seen
        }

        {
            Endpoint = request.Endpoint
            Host = request.Host
            Path = request.Path
            Body = request.Body
            Walk =
                match need with
                | Need.Books tokens -> Walk.Books tokens
                | Need.Trades follows -> Walk.Trades(follows, state)
                | _ -> Walk.Markets(need, state)
        }

    let private plainOf (request: Request) : PlainRequest = {
        Endpoint = request.Endpoint
        Host = request.Host
        Path = request.Path
        Body = request.Body
    }

    let private mostKept = 4_096

    let private keep (batch: Batch) (text: string) =
        batch.Keep(ReadOnlySpan(Encoding.UTF8.GetBytes text))

    let private addBook (batch: Batch) (origin: Slice) (book: PlainBook) =
        let add (levels: Level seq) =
            let first = batch.Levels.Count

            for level in levels do
                let level = level
                batch.Levels.Add &level

            struct (first, batch.Levels.Count - first)

        let there (levels: Level[]) =
            levels |> Seq.filter (fun level -> level.Size.Millionths > 0L)

        let struct (firstBid, bids) =
            there book.Bids |> Seq.sortByDescending _.Price.Millionths |> add

        let struct (firstAsk, asks) =
            there book.Asks |> Seq.sortBy _.Price.Millionths |> add

        let row: BookRow = {
            Market = batch.Names.Intern(string book.Market)
            Token = batch.Names.Intern(string book.Token)
            At = book.At
            Received = batch.Received
            FirstBid = firstBid
            BidCount = bids
            FirstAsk = firstAsk
            AskCount = asks
            Hash = keep batch ""
            Tick = Price.zero
            LastTrade = { Start = 0; Length = -1 }
            Sequence = 0
            Verdict = Verdict.Unverifiable
            Doubt = Doubt.NoHash
            Reason = Reason.Poll
            Flags =
                (if bids = 0 && asks = 0 then Flags.Empty
                 elif bids = 0 || asks = 0 then Flags.OneSided
                 else Flags.None)
            Inserted = false
        }

        batch.Books.Add &row
        batch.BookOrigins.Add &origin

    let private addTrade (batch: Batch) (origin: Slice) (trade: PlainTrade) =
        let row: TradeRow = {
            Market = batch.Names.Intern(string trade.Market)
            Token = batch.Names.Intern(string trade.Token)
            Outcome = batch.Names.Intern trade.Outcome
            Side = trade.Side
            Source = Source.Api
            Price = trade.Price
            Size = trade.Size
            Collateral = ValueNone
            At = trade.At
            Received = batch.Received
            Transaction = keep batch trade.Transaction
            Wallet = keep batch trade.Wallet
            Flags = Flags.None
            Occurrence = 0
            Id = { High = 0UL; Low = 0UL }
            Inserted = false
        }

        batch.Trades.Add &row
        batch.TradeOrigins.Add &origin

    let private decode
        (plain: PlainExchange)
        (request: Request)
        (body: ReadOnlyMemory<byte>)
        received
        (batch: Batch)
        =
        batch.Exchange <- string plain.Exchange
        batch.Received <- received
        let need, seen = needOf request.Walk, seenIn request.Walk

        match plain.Decode need (plainOf request) body received with
        | Error message -> Decoded.faulty (Fault.Undecodable(0, message))
        | Ok answer ->
            let origin = {
                Start = 0
                Length = min body.Length mostKept
            }

            batch.Markets.AddRange answer.Markets
            answer.Books |> List.iter (addBook batch origin)
            answer.Trades |> List.iter (addTrade batch origin)

            for reason in answer.Rejected do
                batch.Rejections.Add {
                    Exchange = string plain.Exchange
                    Source = request.Path
                    Offset = 0
                    Reason = reason
                    Bytes = body.Slice(0, origin.Length).ToArray()
                    Received = received
                }

            match answer.Next |> List.tryFind (fun next -> seen.Contains(mark next)) with
            | Some again -> Decoded.faulty (Fault.RepeatedPage again.Path)
            | None -> {
                Decoded.nothing with
                    Next = answer.Next |> List.map (requestOf need seen)
                    Missing = answer.Missing
                    Head =
                        match answer.Trades with
                        | [] -> ValueNone
                        | trades -> ValueSome(trades |> List.map _.At |> List.max)
              }

    /// A collector that polls it. Nothing of it can be proven, and it has no live books and no past.
    let collector (plain: PlainExchange) : Collector = {
        Exchange = plain.Exchange
        Hosts =
            plain.Hosts
            |> List.map (fun (setting, address) -> {
                Setting = setting
                Address = address
                Serves = ""
            })
        Limits =
            plain.Limits
            |> List.map (fun (endpoint, count) -> {
                Name = endpoint
                BySecond = false
                PerTenSeconds = count
                Counts = $"requests to {endpoint}"
            })
        Traits = {
            Currency = ""
            Prices = "0 to 1"
            Outcomes = "as it names them"
            Sides = "the taker's"
            Streams = [
                for stream in [ Stream.Books; Stream.Trades ] do
                    {
                        Stream = stream
                        Loss = "not"
                        Extent = "not"
                        Proof = "none"
                    }
            ]
        }
        Secrets = []
        Notes = []
        Sign = fun _ _ _ -> []
        Admission = ValueNone
        Probes = []
        LimitsOf = fun endpoint -> [ endpoint ]
        Ask = fun need -> plain.Ask need |> List.map (requestOf need Set.empty)
        Decode = decode plain
        OnFault = fun _ _ -> ValueNone
        Recognise = fun _ -> ValueNone
        History = []
        Stream = ValueNone
    }
