namespace Tributary

open System
open System.Collections.Generic

/// Which markets discovery would choose. An empty criterion does not restrict.
type Discovery = {
    /// Tag slugs: a market with any of them qualifies.
    Tags: string list
    /// Lifetime volume in units of the currency.
    MinVolume: Size voption
    MinLiquidity: Size voption
    /// Patterns of market slugs with `*` and `?`: any of them.
    Slugs: string list
    /// Markets that are closed as well: for their past.
    WithClosed: bool
    /// The most markets to take, largest volume first.
    MaxMarkets: int
}

/// A market whose trades are followed, and up to when they are known.
[<Struct>]
type Follow = { Market: MarketId; Since: Instant }

/// What we want to know. A need carries a set, so that batch endpoints and shared limits are used well.
[<RequireQualifiedAccess>]
type Need =
    /// These markets by their slugs, whatever their state.
    | MarketsBySlug of string list
    /// All markets of these events, by the events' slugs.
    | MarketsByEvent of string list
    /// These markets again.
    | MarketsById of MarketId list
    | MarketsLike of Discovery
    /// The order books of these tokens, now.
    | Books of TokenId list
    /// The trades of these markets since the moments that they are known up to, newest first.
    | Trades of Follow list

/// Where the reading of a part of the past stands: what is left of it to ask depends on nothing else.
[<NoComparison>]
type HistoryState = {
    /// The name of the source that is read.
    Source: string
    /// Whose past it is; a source that tells of one market at a time is read for one.
    Markets: MarketId list
    /// The markets of their tokens, and the names of their outcomes, for sources that tell tokens alone.
    Tokens: IReadOnlyDictionary<string, struct (MarketId * string)>
    /// From this moment on …
    Since: Instant
    /// … to before this one.
    Until: Instant
    /// Where the next request begins, in the source's own words; empty for the first.
    Place: string
    /// An answer that cannot be read without another one. It is not kept with the place: whoever goes on from there asks for it again.
    Held: ReadOnlyMemory<byte>
}

/// What an answer will be about: the state of a walk over pages, which travels with each request.
[<RequireQualifiedAccess>]
type Walk =
    | Markets of Need * PageState
    | Books of TokenId list
    | Trades of Follow list * PageState
    | History of HistoryState

/// Where in a walk a page stands.
and PageState = {
    /// Which of its endpoints or formats the exchange's decoder is using; its own word.
    Route: string
    /// Pages before this one.
    Page: int
    /// The cursors asked with, and the marks of first rows, so far: seeing one again means that the walk goes in a circle.
    Seen: Set<string>
    /// The newest trade of the first page: a later page that is as new is the first one again.
    Newest: Instant voption
    /// The oldest trade so far, or the upper bound of the next window where the exchange pages by windows.
    Until: Instant voption
}

/// A question to an exchange: everything that its answer's decoder needs travels with it.
type Request = {
    /// The name of the endpoint, which its rate limits and its counters go by.
    Endpoint: string
    /// The setting that holds the base address, such as `clob_url`.
    Host: string
    /// Path and query below the base address.
    Path: string
    /// A JSON body makes it a POST.
    Body: string voption
    Walk: Walk
}

/// What a page said besides its rows.
type Decoded = {
    /// What to ask next: the following page, or the halves of what was too much.
    Next: Request list
    /// What was wrong with the page as a whole. Rows before the fault stay in the batch, but for a repeated page: those are
    /// no rows.
    Fault: Fault voption
    /// Tokens that were asked for and are not in the answer.
    Missing: TokenId list
    /// The newest trade time on the page, by the exchange's clock.
    Head: Instant voption
    /// Spans of trades that this source cannot give whole: they become gaps of cause `Truncated`.
    Truncated: (struct (MarketId * Instant * Instant)) list
    /// Of a part of the past: what has been read whole with this page, as far as the source serves it.
    Read: Interval list
    /// No (market, second) group goes on behind this page: the next one is numbered anew.
    IsWhole: bool
    /// What was met that may be a fill and could not be read as one.
    Unknown: int64
    /// Things worth telling a person: a slug that nobody knows, a market that is not deployed yet.
    Notes: string list
}

[<RequireQualifiedAccess>]
module Decoded =
    let nothing = {
        Next = []
        Fault = ValueNone
        Missing = []
        Head = ValueNone
        Truncated = []
        Read = []
        IsWhole = false
        Unknown = 0L
        Notes = []
    }

    let faulty fault = { nothing with Fault = ValueSome fault }

[<RequireQualifiedAccess>]
module PageState =
    let first route = {
        Route = route
        Page = 0
        Seen = Set.empty
        Newest = ValueNone
        Until = ValueNone
    }

[<RequireQualifiedAccess>]
module HistoryState =
    /// What has been read is not called read up to now: an exchange publishes some fills late, and out of order.
    let settled = TimeSpan.FromMinutes 2.0

/// How often endpoints may be asked.
[<Struct>]
type Limit = {
    /// What its setting is called.
    Name: string
    /// So many requests in any ten seconds.
    PerTenSeconds: int
    /// Which requests count against it.
    Counts: string
    /// The exchange counts by the second: at most a tenth of them in any.
    BySecond: bool
}

/// A place that an exchange is asked at.
type HostSetting = {
    /// The setting that holds its address.
    Setting: string
    /// The address when nothing is said.
    Address: string
    /// What it is asked for.
    Serves: string
}

/// A cheap question that shows whether an exchange answers at one of its places.
[<NoComparison; NoEquality>]
type Probe = {
    /// The setting that holds the base address, such as `clob_url`.
    Host: string
    /// Path and query below the base address.
    Path: string
    /// A JSON body makes it a POST.
    Body: string voption
    /// Collecting needs an answer there; otherwise only what `Serves` of the place says does.
    IsNeeded: bool
    /// The moments that the exchange's clock may have shown when it answered; nothing where the answer does not tell.
    Time: ReadOnlyMemory<byte> -> Interval voption
}

/// What shows that an exchange takes the secrets that it is given.
[<NoComparison; NoEquality>]
type Admission = {
    /// Asked before anything else. A refusal (401) is one of the secrets.
    Question: Request
    /// The limits that the answer allows, by their names, in requests in ten seconds.
    Allows: ReadOnlyMemory<byte> -> Map<string, int>
}

/// What a recorded value is, judged by its shape alone.
[<RequireQualifiedAccess>]
type Shape =
    /// It decodes to rows, with this walk's decoder.
    | Rows of kind: string * Walk
    /// Known, but nothing that is collected (from here, or yet).
    | Recognised of kind: string
    /// Others stand inside, each to be judged by itself: a list, or a recorder's own object or text around what it received. `place`
    /// says where: `list`, `text`, or the quoted names of the members.
    | Holds of place: string * ReadOnlyMemory<byte> list

/// A secret that an exchange takes, if somebody has one.
type SecretSetting = {
    /// What its setting is called, such as `key`.
    Setting: string
    /// What it is, in a sentence for people.
    Holds: string
}

/// What a proof can show of a stream: the promise that its data come with.
type StreamTraits = {
    Stream: Stream
    /// How the loss of data is noticed.
    Loss: string
    /// Whether its size and its place are known then.
    Extent: string
    /// By what the data themselves are proven.
    Proof: string
}

/// How an exchange's data are to be read, beside those of others: `tributary exchanges` shows it.
type Traits = {
    /// What prices and sizes are paid in.
    Currency: string
    /// What a price is in the exchange's own words, and where prices may lie.
    Prices: string
    /// What its markets' outcomes are, and which of their books are made of another's.
    Outcomes: string
    /// What its trades' sides are made of.
    Sides: string
    Streams: StreamTraits list
}

/// What the configuration may change about asking.
type AskOptions = {
    /// Tokens in one request for books.
    BooksPerRequest: int
    /// Markets in one request for trades.
    MarketsPerRequest: int
    /// Which of an exchange's sources of trades is used; `auto` lets the collector choose.
    TradesSource: string
    /// What is known of the exchange's `SecretSetting`s, by their names.
    Secrets: Map<string, string>
}

/// A source of the past that can be read once and for all: of trades, or of prices.
[<NoComparison; NoEquality>]
type HistorySource = {
    Name: string
    /// What it is about: `History` for trades, `Prices`.
    Stream: Stream
    /// What it leaves out.
    Limits: SourceLimits
    /// What it is read for when nobody says by which sources.
    IsUsual: bool
    /// A part of the past can be asked for without all that is newer.
    CanJump: bool
    /// It is looked through from a market's start on: before that there is nothing, and looking takes long.
    FromStart: bool
    /// What a stretch that it does not give whole is called among the gaps: what each source withholds may be had from another.
    Withholds: Cause
    /// So many markets can be read in one walk.
    MostMarkets: int
    /// What its requests count against.
    Endpoint: string
    /// Fills that a page holds at most.
    PageRows: int
    /// The request at a place.
    Ask: HistoryState -> Request
}

/// An exchange, as pure functions: what to ask, and what the answers mean. The runtime does the asking. Adding an exchange
/// is a file with one of these and a line in the registry.
[<NoComparison; NoEquality>]
type Collector = {
    /// Its name in configuration, tables and counters.
    Exchange: ExchangeId
    /// The places that it is asked at.
    Hosts: HostSetting list
    /// All limits, with the exchange's published figures.
    Limits: Limit list
    Traits: Traits
    /// The secrets that it takes.
    Secrets: SecretSetting list
    /// What a person should be told before it begins, such as what it cannot do without a key.
    Notes: string list
    /// The headers that show a request to be a key's owner's, by its method, its path from the root on without the query, and the moment;
    /// none without a key.
    Sign: string -> string -> Instant -> (string * string) list
    /// What shows that the secrets are taken; nothing without any, or where an account of its own does (`AccountPart`).
    Admission: Admission voption
    /// A question for each place that answers questions.
    Probes: Probe list
    /// The limits that a request to an endpoint counts against, by their names.
    LimitsOf: string -> string list
    /// Turns a need into requests, each the start of a walk of its own.
    Ask: Need -> Request list
    /// Appends the rows of an answer to the batch: good ones as rows, bad ones as rejections. The instant is when the bytes
    /// arrived. Same request and same bytes, same rows.
    Decode: Request -> ReadOnlyMemory<byte> -> Instant -> Batch -> Decoded
    /// What it means that this request failed for good, if it means more than a fault: an unknown token, an endpoint that is no more, a
    /// question that was too large.
    OnFault: Request -> Fault -> Decoded voption
    /// What a recorded object is, if it is of this exchange at all: what it holds is judged by itself (`Shapes.recognise`).
    Recognise: RawObject -> Shape voption
    /// Sources of the past, in the order in which they are read.
    History: HistorySource list
    /// Live order books and fills, where the exchange has them.
    Stream: StreamPart voption
}
