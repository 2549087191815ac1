/// What a command asks the collector that runs, at its HTTP door.
[<RequireQualifiedAccess>]
module Tributary.Cli.Running

open System
open System.Net
open System.Net.Http
open System.Net.Http.Headers
open System.Text.Json
open System.Threading.Tasks
open Tributary
open Tributary.Stores

/// A market that is collected.
type Market = {
    Slug: string
    Trades: int64
    Books: int64
    Deltas: int64
    LastTrade: DateTimeOffset voption
    LastBook: DateTimeOffset voption
    /// Empty before the first book.
    Verdict: string
    /// The causes of its open gaps.
    Gaps: string list
}

/// What a collector answers about itself: what `/status` says, as far as it is shown. Or, when none answers, what its store says of the markets.
type Collector = {
    /// It answered; else `Reasons` says why not.
    IsRunning: bool
    Name: string
    At: DateTimeOffset
    Started: DateTimeOffset
    /// `ready`, `degraded` or `unready`.
    Status: string
    Reasons: string list
    Alerts: string list
    Requests: int64
    Failed: int64
    Connections: int
    Connected: int
    Skew: float voption
    FreeBytes: int64 voption
    Waiting: int64
    Troubles: string list
    /// What is left of which limit, and how much it allows; the one that is used up most first.
    Limits: (string * int64 * int64) list
    /// Newest first.
    Errors: (DateTimeOffset * string) list
    Markets: Market list
} with

    /// Rows stored since it started.
    member this.Rows =
        this.Markets
        |> List.sumBy (fun market -> market.Trades + market.Books + market.Deltas)

/// What an exchange names may hold what a terminal obeys.
let private clean (text: string | null) =
    String.filter (Char.IsControl >> not) (string text)

/// Reads an answer of `/status`. Members that nobody knows are passed over; one that is missing is an error.
let parse (text: string) : Result<Collector, string> =
    try
        use document = JsonDocument.Parse text

        let get (name: string) (json: JsonElement) = json.GetProperty name
        let text name json = clean ((get name json).GetString())
        let number name json = (get name json).GetInt64()

        let optional read name (json: JsonElement) =
            match json.TryGetProperty(name: string) with
            | true, value when value.ValueKind <> JsonValueKind.Null -> ValueSome(read value)
            | _ -> ValueNone

        let moment = optional (fun value -> value.GetDateTimeOffset())
        let list name read json = [ for item in (get name json).EnumerateArray() -> read item ]

        /// What an older collector does not tell.
        let listOrNone name read json =
            optional id name json
            |> ValueOption.map (fun items -> [ for item in items.EnumerateArray() -> read item ])
            |> ValueOption.defaultValue []

        let root = document.RootElement

        Ok {
            IsRunning = true
            Name = text "collector" root
            At = (get "at" root).GetDateTimeOffset()
            Started = (get "started" root).GetDateTimeOffset()
            Status = text "status" root
            Reasons = list "reasons" (text "detail") root
            Alerts = list "alerts" (text "message") root
            Requests = number "requests" root
            Failed = number "requests_failed" root
            Connections = int (number "connections" root)
            Connected = int (number "connections_open" root)
            Skew = optional _.GetDouble() "clock_skew_seconds" root
            FreeBytes = optional _.GetInt64() "disk_free_bytes" root
            Waiting = number "rows" (get "outbox" root)
            Troubles = list "troubles" (fun item -> clean (item.GetString())) (get "outbox" root)
            Limits =
                listOrNone
                    "limits"
                    (fun item ->
                        text "limit" item,
                        number "left" item,
                        optional _.GetInt64() "most" item |> ValueOption.defaultValue 0L)
                    root
                |> List.sortBy (fun (_, left, most) -> float left / float (max 1L most))
            Errors =
                listOrNone
                    "errors"
                    (fun item ->
                        (get "at" item).GetDateTimeOffset(),
                        $"""{text "endpoint" item}: {text "detail" item}""")
                    root
            Markets =
                list
                    "markets"
                    (fun item -> {
                        Slug = text "slug" item
                        Trades = number "trades" item
                        Books = number "books" item
                        Deltas = number "deltas" item
                        LastTrade = moment "last_trade" item
                        LastBook = moment "last_book" item
                        Verdict =
                            optional (fun value -> clean (value.GetString())) "verdict" item
                            |> ValueOption.defaultValue ""
                        Gaps = list "gaps" (text "cause") item
                    })
                    root
        }
    with
    | :? JsonException
    | :? FormatException
    | :? InvalidOperationException
    | :? Collections.Generic.KeyNotFoundException -> Error "its answer is not a collector's"

/// What the store says of the markets, when no collector answers for this reason.
let ofStore (name: string) (why: string) (at: DateTimeOffset) (status: StoreStatus) : Collector = {
    IsRunning = false
    Name = name
    At = at
    Started = DateTimeOffset.UnixEpoch
    Status = ""
    Reasons = [ why ]
    Alerts = []
    Requests = 0L
    Failed = 0L
    Connections = 0
    Connected = 0
    Skew = ValueNone
    FreeBytes = ValueNone
    Waiting = 0L
    Troubles = status.Notes |> List.map clean
    Limits = []
    Errors = []
    Markets = [
        for market in status.Markets do
            let latest moments =
                moments
                |> List.choose ValueOption.toOption
                |> List.sortDescending
                |> List.tryHead
                |> Option.map Instant.toDateTimeOffset
                |> ValueOption.ofOption

            {
                Slug =
                    clean (
                        if market.Slug = "" then
                            string market.Market
                        else
                            market.Slug
                    )
                Trades = market.Trades
                Books = market.Books
                Deltas = market.Deltas
                LastTrade = latest [ market.LastTrade ]
                LastBook = latest [ market.LastBook; market.LastDelta ]
                Verdict = ""
                Gaps = List.replicate (int market.OpenGaps) "open"
            }
    ]
}

/// Why nothing is known of a running collector.
[<RequireQualifiedAccess>]
type Silence =
    /// Nobody is there, as when none runs.
    | Away of detail: string
    /// Somebody is there, and does not tell us.
    | Unanswered of detail: string

    override this.ToString() =
        match this with
        | Away detail
        | Unanswered detail -> detail

/// Where a collector is asked, and with which token.
type Door = { Address: Uri; Token: Secret option }

/// The door that the settings name; an error when they name none.
let doorOf (settings: HttpSettings) : Result<Door, Silence> =
    match settings.Listen with
    | None -> Error(Silence.Away "http.listen is off")
    | Some listen ->
        // Who listens everywhere listens here.
        let host =
            if listen.Address.Equals IPAddress.Any then
                IPAddress.Loopback
            elif listen.Address.Equals IPAddress.IPv6Any then
                IPAddress.IPv6Loopback
            else
                listen.Address

        Ok {
            Address = Uri $"http://{IPEndPoint(host, listen.Port)}"
            Token = settings.Token
        }

/// Asks for a path of a door; an error says why there is no answer, without the token.
let ask (door: Door) (patience: TimeSpan) (path: string) : Task<Result<string, Silence>> = task {
    match door.Token |> Option.map Secret.reveal with
    | Some(Error message) -> return Error(Silence.Unanswered message)
    | token ->
        // Straight to the door: neither a proxy nor wherever it might send us is to see the token.
        use client =
            new HttpClient(
                new SocketsHttpHandler(UseProxy = false, AllowAutoRedirect = false),
                Timeout = patience
            )

        match token with
        | Some(Ok token) ->
            client.DefaultRequestHeaders.Authorization <- AuthenticationHeaderValue("Bearer", token)
        | _ -> ()

        try
            use! response = client.GetAsync(Uri(door.Address, path))
            let! body = response.Content.ReadAsStringAsync()

            return
                if response.IsSuccessStatusCode then
                    Ok body
                elif int response.StatusCode = 401 then
                    Error(Silence.Unanswered "the token is another one there (http.token)")
                else
                    Error(Silence.Unanswered $"it answered {int response.StatusCode}")
        with
        | :? HttpRequestException as error -> return Error(Silence.Away error.Message)
        | :? TaskCanceledException ->
            return Error(Silence.Unanswered $"no answer within %.0f{patience.TotalSeconds} s")
}

/// How the collector is that runs.
let status (door: Door) (patience: TimeSpan) : Task<Result<Collector, Silence>> = task {
    let! answer = ask door patience "/status"
    return answer |> Result.bind (parse >> Result.mapError Silence.Unanswered)
}
