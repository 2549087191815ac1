/// What `top` shows: two answers of a collector and what was typed in, lines of text out.
[<RequireQualifiedAccess>]
module Tributary.Cli.Views

open System
open Tributary.Cli.Terminal

/// A column of the table that it can be sorted by.
[<RequireQualifiedAccess>]
type Column =
    | Slug
    | Trades
    | Changes
    | TradeAge
    | BookAge
    | Gaps

let private columns = [
    Column.Changes, "chg/s"
    Column.Trades, "trd/min"
    Column.TradeAge, "trade"
    Column.BookAge, "book"
    Column.Gaps, "gaps"
    Column.Slug, "market"
]

/// What was typed so far.
type Keys = {
    Sort: Column
    /// The other way round.
    IsReversed: bool
    Filter: string
    /// The filter is being typed.
    IsTyping: bool
    /// Rows of the table that lie above the screen.
    Above: int
}

let start = {
    Sort = Column.Changes
    IsReversed = false
    Filter = ""
    IsTyping = false
    Above = 0
}

/// What a key does; nothing: it is over.
let press (page: int) (key: ConsoleKeyInfo) (keys: Keys) : Keys voption =
    let next () =
        let at = columns |> List.findIndex (fun (column, _) -> column = keys.Sort)
        fst columns[(at + 1) % columns.Length]

    let scrolled by = {
        keys with
            Above = max 0 (keys.Above + by)
    }

    match key.Key, key.KeyChar with
    | ConsoleKey.Escape, _ ->
        ValueSome {
            keys with
                Filter = ""
                IsTyping = false
                Above = 0
        }
    | ConsoleKey.Enter, _ -> ValueSome { keys with IsTyping = false }
    | ConsoleKey.Backspace, _ when keys.IsTyping ->
        ValueSome {
            keys with
                Filter = keys.Filter.Substring(0, max 0 (keys.Filter.Length - 1))
        }
    | _, letter when keys.IsTyping && not (Char.IsControl letter) ->
        ValueSome {
            keys with
                Filter = keys.Filter + string letter
                Above = 0
        }
    | ConsoleKey.UpArrow, _ -> ValueSome(scrolled -1)
    | ConsoleKey.DownArrow, _ -> ValueSome(scrolled 1)
    | ConsoleKey.PageUp, _ -> ValueSome(scrolled -page)
    | ConsoleKey.PageDown, _ -> ValueSome(scrolled page)
    | ConsoleKey.Home, _ -> ValueSome { keys with Above = 0 }
    | _, '/' -> ValueSome { keys with IsTyping = true }
    | _, 's' -> ValueSome { keys with Sort = next (); Above = 0 }
    | _, 'r' ->
        ValueSome {
            keys with
                IsReversed = not keys.IsReversed
        }
    | _, 'q' -> ValueNone
    | _ -> ValueSome keys

/// What a collector answered: the first time, the last time but one, and the last time.
type Looks = {
    First: Running.Collector
    Before: Running.Collector
    Now: Running.Collector
}

[<RequireQualifiedAccess>]
module Looks =
    let start now = { First = now; Before = now; Now = now }

    /// A collector that was started anew counts from nothing.
    let next (now: Running.Collector) looks =
        if now.At = looks.Now.At then
            looks // the same answer again
        elif now.Started = looks.First.Started && now.IsRunning = looks.First.IsRunning then
            {
                looks with
                    Before = looks.Now
                    Now = now
            }
        else
            start now

/// A row of the table, and what it is sorted by.
type private Row = {
    Market: Running.Market
    PerSecond: float
    PerMinute: float
}

let private rate (before: int64) (now: int64) (seconds: float) =
    if seconds > 0.0 then
        float (max 0L (now - before)) / seconds
    else
        0.0

let private number (value: float) =
    if value >= 9.95 || value = 0.0 then
        $"%.0f{value}"
    else
        $"%.1f{value}"

let private ago (now: DateTimeOffset) (moment: DateTimeOffset voption) =
    match moment with
    | ValueSome moment -> age (max TimeSpan.Zero (now - moment))
    | ValueNone -> "-"

/// How many lines the head takes.
let private headLines = 6

/// The rows of markets that fit on a screen of so many lines.
let pageOf height = max 1 (height - headLines - 2)

/// The head where no collector answers: what the store says.
let private headOfStore (looks: Looks) =
    let before, now = looks.Before, looks.Now
    let gaps = now.Markets |> List.sumBy _.Gaps.Length

    let perSecond = number (rate before.Rows now.Rows (now.At - before.At).TotalSeconds)

    [
        $"No collector answers ({String.concat String.Empty now.Reasons})"
        $"{now.Name}: {now.Markets.Length} markets, {now.Rows} rows, {perSecond} rows/s, {gaps} open gaps"
        yield! now.Troubles |> List.truncate 3
    ]

/// The head of a running collector: the collector as a whole.
let private headOfCollector (looks: Looks) =
    let before, now = looks.Before, looks.Now

    // Between two looks, or since the start when there is but one.
    let seconds, rows, requests =
        if now.At > before.At then
            (now.At - before.At).TotalSeconds, before.Rows, before.Requests
        else
            (now.At - now.Started).TotalSeconds, 0L, 0L

    let perSecond before now = number (rate before now seconds)
    let gaps = now.Markets |> List.sumBy _.Gaps.Length

    let free =
        match now.FreeBytes with
        | ValueSome free -> $"%.1f{float free / 1e9} GB free"
        | ValueNone -> "no disk"

    let skew =
        match now.Skew with
        | ValueSome skew -> $"clock %+.1f{skew} s"
        | ValueNone -> "clock ?"

    let limit =
        match now.Limits with
        | (limit, left, 0L) :: _ -> $", least left: {limit} {left}"
        | (limit, left, most) :: _ -> $", least left: {limit} {left} of {most}"
        | [] -> ""

    let outbox =
        if now.Waiting > 0L || not now.Troubles.IsEmpty then
            $"outbox {now.Waiting} rows " + String.concat "; " now.Troubles
        else
            "outbox empty"

    [
        $"{now.Name}: {now.Status}, up {age (now.At - now.Started)}, {now.Markets.Length} markets, {gaps} open gaps"
        $"{perSecond rows now.Rows} rows/s ({now.Rows} in all), {perSecond requests now.Requests} requests/s ({now.Failed} failed{limit})"
        $"connections {now.Connected} of {now.Connections}, {skew}, {free}, {outbox}"
        (match now.Reasons with
         | [] -> ""
         | reasons -> "! " + String.concat "; " reasons)
        (match now.Alerts, now.Errors with
         | alert :: _, _ -> "alert: " + alert
         | [], (at, error) :: _ -> $"last error {age (now.At - at)} ago: {error}"
         | [], [] -> "")
    ]

/// The head: five lines.
let head (width: int) (looks: Looks) : string list =
    let lines =
        if looks.Now.IsRunning then
            headOfCollector looks
        else
            headOfStore looks

    lines @ [ for _ in lines.Length + 1 .. headLines - 1 -> "" ]
    |> List.map (cut width)

let private widths = [ 6; 8; 7; 7; 12; 14 ]

/// The screen: so many lines at most, none of them longer than the width.
let screen (width: int) (height: int) (looks: Looks) (keys: Keys) : string list =
    let now = looks.Now
    let slugWidth = max 8 (width - List.sum widths - widths.Length)

    /// What was counted of a market at a look, and how long ago that was; from the start, when that was now.
    let since (look: Running.Collector) pick =
        if now.At > look.At || not now.IsRunning then
            let known =
                look.Markets
                |> List.map (fun market -> market.Slug, (pick market: int64))
                |> Map.ofList

            (now.At - look.At).TotalSeconds, known
        else
            (now.At - now.Started).TotalSeconds, Map.empty

    // Trades are few: over all looks.
    let sinceFirst, trades = since looks.First _.Trades
    let sinceBefore, changes = since looks.Before _.Deltas

    let rows =
        now.Markets
        |> List.filter (fun market -> market.Slug.Contains(keys.Filter, StringComparison.OrdinalIgnoreCase))
        |> List.map (fun market ->
            let was known =
                known |> Map.tryFind market.Slug |> Option.defaultValue 0L

            {
                Market = market
                PerSecond = rate (was changes) market.Deltas sinceBefore
                PerMinute = 60.0 * rate (was trades) market.Trades sinceFirst
            })
        |> List.sortBy (fun row -> row.Market.Slug)

    let ageOf (moment: DateTimeOffset voption) =
        moment
        |> ValueOption.map (fun moment -> now.At - moment)
        |> ValueOption.defaultValue TimeSpan.MaxValue

    let sorted =
        match keys.Sort with
        | Column.Slug -> rows
        | Column.Trades -> rows |> List.sortByDescending _.PerMinute
        | Column.Changes -> rows |> List.sortByDescending _.PerSecond
        | Column.TradeAge -> rows |> List.sortBy (fun row -> ageOf row.Market.LastTrade)
        | Column.BookAge -> rows |> List.sortBy (fun row -> ageOf row.Market.LastBook)
        | Column.Gaps -> rows |> List.sortByDescending (fun row -> row.Market.Gaps.Length)

    let ordered = if keys.IsReversed then List.rev sorted else sorted
    let page = pageOf height
    let above = min keys.Above (max 0 (ordered.Length - page))

    let line (slug: string) (cells: string list) =
        let cells =
            List.map2 (fun (cell: string) width -> (cut width cell).PadLeft width) cells widths

        cut width (padRight slugWidth (cut slugWidth slug) + " " + String.concat " " cells)

    let titled column (text: string) =
        if column = keys.Sort then
            (if keys.IsReversed then "^" else "v") + text
        else
            text

    let title column =
        columns |> List.find (fun (one, _) -> one = column) |> snd |> titled column

    let table =
        ordered
        |> List.skip above
        |> List.truncate page
        |> List.map (fun row ->
            let gaps =
                match row.Market.Gaps with
                | [] -> "-"
                | gaps -> $"{gaps.Length} {gaps.Head}"

            line row.Market.Slug [
                number row.PerSecond
                number row.PerMinute
                ago now.At row.Market.LastTrade
                ago now.At row.Market.LastBook
                (if row.Market.Verdict = "" then "-" else row.Market.Verdict)
                gaps
            ])

    let footer =
        if keys.IsTyping then
            $"filter: {keys.Filter}_  Enter: done  Esc: none"
        else
            let filter = if keys.Filter = "" then "" else $" '{keys.Filter}'"
            let last = min ordered.Length (above + page)
            let first = min (above + 1) last
            $"{first}-{last} of {ordered.Length}{filter}  s: sort  r: reverse  /: filter  arrows: scroll  q: quit"

    head width looks
    @ [
        line (title Column.Slug) [
            title Column.Changes
            title Column.Trades
            title Column.TradeAge
            title Column.BookAge
            "verdict"
            title Column.Gaps
        ]
    ]
    @ table
    @ [ for _ in table.Length + 1 .. page -> "" ]
    @ [ ""; cut width footer ]
    |> List.truncate height

/// One line for a pipe.
let summary (looks: Looks) : string =
    let now = looks.Now
    let clock = now.At.ToUniversalTime().ToString "yyyy-MM-dd HH:mm:ss"

    let reasons =
        match now.Reasons with
        | [] -> ""
        | reasons -> "; " + String.concat "; " reasons

    $"{clock} "
    + (head 400 looks |> List.truncate 3 |> List.filter ((<>) "") |> String.concat "; ")
    + (if now.IsRunning then reasons else "")

/// All of it, for a pipe that wants it once.
let report (now: Running.Collector) : string list =
    screen 160 (now.Markets.Length + headLines + 2) (Looks.start now) { start with Sort = Column.Slug }
    |> List.map _.TrimEnd()
    |> List.filter ((<>) "")
    |> fun lines -> lines |> List.truncate (lines.Length - 1)
