/// What a command asks the collector that runs, at its HTTP door.
[<RequireQualifiedAccess>]
module Tributary.Cli.Running

open System
open System.Net.Http
open System.Net.Http.Headers
open System.Text.Json
open System.Threading.Tasks
open Tributary

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

/// What a collector answers about itself: what `/status` says, as far as it is shown.
type Collector = {
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
    /// The narrowest first.
    Limits: (string * int64) list
    /// Newest first.
    Errors: (DateTimeOffset * string) list
    Markets: Market list
} with

    /// Rows stored since it started.
    member this.Rows =
        this.Markets
        |> List.sumBy (fun market -> market.Trades + market.Books + market.Deltas)

/// Reads an answer of `/status`. Members that nobody knows are passed over; one that is missing is an error.
let parse (text: string) : Result<Collector, string> =
    try
        use document = JsonDocument.Parse text

        let get (name: string) (json: JsonElement) = json.GetProperty name
        // What an exchange names may hold what a terminal obeys.
        let clean (text: string | null) =
            String.filter (Char.IsControl >> not) (string text)

        let text name json = clean ((get name json).GetString())
        let number name json = (get name json).GetInt64()

        let optional read name (json: JsonElement) =
            match json.TryGetProperty(name: string) with
            | true, value when value.ValueKind <> JsonValueKind.Null -> ValueSome(read value)
            | _ -> ValueNone

        let moment = optional (fun value -> value.GetDateTimeOffset())
        let list name read json = [ for item in (get name json).EnumerateArray() -> read item ]
        let root = document.RootElement

        Ok {
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
                list "limits" (fun item -> text "limit" item, number "left" item) root
                |> List.sortBy snd
            Errors =
                list
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
                            optional (fun value -> string (value.GetString())) "verdict" item
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

/// Asks for a path of the door that the settings name; an error says why there is no answer, without the token.
let ask (settings: HttpSettings) (patience: TimeSpan) (path: string) : Task<Result<string, string>> = task {
    match settings.Listen, settings.Token |> Option.map Secret.reveal with
    | None, _ -> return Error "http.listen is off"
    | _, Some(Error message) -> return Error message
    | Some listen, token ->
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
            use! response = client.GetAsync $"http://{listen}{path}"
            let! body = response.Content.ReadAsStringAsync()

            return
                if response.IsSuccessStatusCode then
                    Ok body
                elif int response.StatusCode = 401 then
                    Error "the token is another one there (http.token)"
                else
                    Error $"it answered {int response.StatusCode}"
        with
        | :? HttpRequestException as error -> return Error error.Message
        | :? TaskCanceledException -> return Error $"no answer within %.0f{patience.TotalSeconds} s"
}

/// How the collector is that runs.
let status (settings: HttpSettings) (patience: TimeSpan) : Task<Result<Collector, string>> = task {
    let! answer = ask settings patience "/status"
    return answer |> Result.bind parse
}
