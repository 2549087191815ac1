namespace Tributary

open System
open System.Globalization

/// How grave a finding is.
[<RequireQualifiedAccess>]
type Grade =
    /// As it should be.
    | Ok
    /// Collecting works, and somebody should look at it.
    | Warning
    /// Collecting does not work, or soon will not.
    | Failed

    override this.ToString() =
        match this with
        | Ok -> "ok"
        | Warning -> "warning"
        | Failed -> "failed"

/// One thing that was looked at.
type Observation = {
    Grade: Grade
    /// What was looked at, in a word or two.
    Subject: string
    /// What was seen.
    Seen: string
    /// What to do about it; empty when there is nothing to do.
    Remedy: string
}

/// By how much this machine's clock is ahead of the exchange's: somewhere between the two; behind when negative.
[<Struct>]
type Skew = {
    AtLeast: TimeSpan
    AtMost: TimeSpan
} with

    /// What is certain of it: zero when the clocks may agree.
    member this.Certain =
        if this.AtLeast > TimeSpan.Zero then this.AtLeast
        elif this.AtMost < TimeSpan.Zero then this.AtMost
        else TimeSpan.Zero

[<RequireQualifiedAccess>]
module Skew =
    /// Of a question that was sent and answered at these moments by this machine's clock, when the exchange's showed one of those: it
    /// looked at it somewhen in between. Of several questions what all of them allow; nothing when they contradict each other, as
    /// after a clock was set.
    let ofAnswers (answers: (struct (Instant * Instant * Interval)) list) : Skew voption =
        match answers with
        | [] -> ValueNone
        | _ ->
            let skew = {
                AtLeast =
                    answers
                    |> List.map (fun (struct (sent, _, shown)) -> sent - shown.Until)
                    |> List.max
                AtMost =
                    answers
                    |> List.map (fun (struct (_, received, shown)) -> received - shown.Since)
                    |> List.min
            }

            if skew.AtLeast <= skew.AtMost then
                ValueSome skew
            else
                ValueNone

/// What a store's file is.
[<RequireQualifiedAccess>]
type StoreFile =
    | Absent
    /// A store of a version: this program's own, or another.
    | Ours of found: int * known: int
    /// A file of something else.
    | Foreign of detail: string
    | Unreadable of detail: string

/// What waits in an outbox for another store to show it.
type Waits = {
    Path: string
    Rows: int64
    Bytes: int64
    /// The most bytes that it may hold; nothing where it has no bound of its own.
    Limit: int64 voption
    /// Since when the oldest row waits.
    Age: TimeSpan voption
}

/// Something that was measured. Addresses are shown as the configuration shows them.
[<RequireQualifiedAccess>]
type Measurement =
    /// Where the configuration is, and its mistakes with their places.
    | Configuration of place: string * mistakes: string list
    /// To how many addresses the name of a host leads.
    | Name of setting: string * address: string * isNeeded: bool * Result<struct (int * TimeSpan), string>
    /// The status that a question was answered with, whether that was JSON, and the time it took.
    | Answer of
        setting: string *
        address: string *
        isNeeded: bool *
        Result<struct (int * bool * TimeSpan), string>
    /// How long the live connection took to open, and to answer a ping.
    | Live of setting: string * address: string * Result<struct (TimeSpan * TimeSpan), string>
    /// Whether an exchange takes the credentials of an account, or why not; `isNeeded` when collecting does not begin without them.
    | Account of exchange: string * isNeeded: bool * Result<string, string>
    /// Nothing when the exchange did not tell its time.
    | Clock of exchange: string * Skew voption
    /// Names of limits, what is configured, and what the exchange documents.
    | Limits of exchange: string * (struct (string * int * int)) list
    /// Free bytes where the store is.
    | Room of folder: string * Result<int64, string>
    /// The median of what a write to the disk took, until it was safe there.
    | Sync of folder: string * Result<TimeSpan, string>
    | Store of path: string * StoreFile
    /// The program that writes to the store.
    | Holder of path: string * string voption
    /// What is damaged in the file, and whether there was time to look at all of it.
    | Damage of path: string * found: string list * isWhole: bool
    /// A QuestDB's version.
    | Server of address: string * Result<string, string>
    /// Its tables beside ours: how many there are, those that are missing, what will be changed, what is otherwise, and what cannot be
    /// written to.
    | Tables of
        found: int *
        missing: string list *
        mend: string list *
        notes: string list *
        refusals: string list
    /// Tables that show nothing of what they take, each with the reason.
    | Suspended of (struct (string * string)) list
    | Outbox of Waits

/// Judges what was measured on this machine and around it.
[<RequireQualifiedAccess>]
module Diagnosis =
    /// A live clock that is off by more flags good rows, or refuses them.
    let private mostSkew = TimeSpan.FromSeconds 1.0
    let private worstSkew = TimeSpan.FromMinutes 5.0
    let private slowAnswer = TimeSpan.FromSeconds 5.0
    let private littleRoom, leastRoom = 1_000_000_000L, 100_000_000L
    /// Every commit waits for the disk at least once.
    let private slowSync = TimeSpan.FromMilliseconds 50.0
    let private longWait = TimeSpan.FromMinutes 15.0

    let private finding grade subject seen remedy = {
        Grade = grade
        Subject = subject
        Seen = seen
        Remedy = remedy
    }

    let private fine subject seen = finding Grade.Ok subject seen ""

    let private count (number: int64) one many =
        if number = 1L then
            $"1 {one}"
        else
            number.ToString("N0", CultureInfo.InvariantCulture) + " " + many

    let private plural number word = count (int64 number) word (word + "s")

    let private span (span: TimeSpan) =
        let span = span.Duration()

        let number (value: float) (format: string) =
            value.ToString(format, CultureInfo.InvariantCulture)

        if span < TimeSpan.FromSeconds 1.0 then
            number span.TotalMilliseconds "0.#" + " ms"
        elif span < TimeSpan.FromMinutes 2.0 then
            number span.TotalSeconds "0.0" + " s"
        elif span < TimeSpan.FromHours 2.0 then
            number span.TotalMinutes "0" + " min"
        else
            number span.TotalHours "0" + " h"

    let private size (bytes: int64) =
        let number (value: float) =
            value.ToString("0.#", CultureInfo.InvariantCulture)

        if bytes >= 1_000_000_000L then
            number (float bytes / 1e9) + " GB"
        elif bytes >= 1_000_000L then
            number (float bytes / 1e6) + " MB"
        else
            number (float bytes / 1e3) + " KB"

    /// What only some commands need is no failure of the rest.
    let private missed isNeeded =
        if isNeeded then Grade.Failed else Grade.Warning

    let private unneeded isNeeded =
        if isNeeded then "" else "; collecting does not need it"

    let private answered setting address isNeeded status isJson took =
        let subject = $"exchange {setting}"
        let seen = $"{address} answers {status} in {span took}"

        match status with
        | 429 ->
            finding
                Grade.Warning
                subject
                seen
                "too much was asked from this address: lower rate_limits, or see what else asks from here"
        | 425 -> finding Grade.Warning subject seen "the exchange is restarting: wait a minute"
        | 401
        | 403
        | 451 ->
            finding
                (missed isNeeded)
                subject
                (seen + unneeded isNeeded)
                "the exchange refuses this machine's address, or a proxy or firewall does: set 'proxy', or ask from elsewhere"
        | 407 -> finding Grade.Failed subject seen "the proxy wants a user and a password: see 'proxy'"
        | _ when status >= 500 ->
            finding
                (missed isNeeded)
                subject
                (seen + unneeded isNeeded)
                "the exchange is in trouble: try again later; gaps will say what is missed"
        | _ when status < 200 || status >= 300 ->
            finding
                (missed isNeeded)
                subject
                (seen + unneeded isNeeded)
                $"what is there is not the exchange's: check {setting}"
        | _ when not isJson ->
            finding
                (missed isNeeded)
                subject
                (seen + ", and not with JSON" + unneeded isNeeded)
                $"somebody else answers, such as a portal or a proxy: check {setting} and 'proxy'"
        | _ when took > slowAnswer ->
            finding
                Grade.Warning
                subject
                seen
                "answers are slow: see the network, or slow the cadences of 'schedule'"
        | _ -> fine subject seen

    let private clock exchange (skew: Skew voption) =
        match skew with
        | ValueNone ->
            finding
                Grade.Warning
                "clock"
                $"{exchange} did not tell its time"
                "see that this machine's clock is set, as by NTP"
        | ValueSome skew ->
            let certain = skew.Certain

            if certain = TimeSpan.Zero then
                let within = max (skew.AtLeast.Duration()) (skew.AtMost.Duration())
                fine "clock" $"within {span within} of {exchange}'s"
            else
                let side = if certain > TimeSpan.Zero then "ahead of" else "behind"
                let seen = $"this machine is at least {span certain} {side} {exchange}"
                let remedy = "let NTP set the clock (timedatectl set-ntp true)"

                if certain.Duration() > worstSkew then
                    finding
                        Grade.Failed
                        "clock"
                        seen
                        (remedy + ": events will be refused as of the future, or flagged as old")
                elif certain.Duration() > mostSkew then
                    finding Grade.Warning "clock" seen remedy
                else
                    fine "clock" seen

    let private limits exchange (limits: (struct (string * int * int)) list) =
        let over =
            limits
            |> List.filter (fun (struct (_, configured, documented)) -> configured > documented)

        match over with
        | [] ->
            fine "limits" $"""{plural limits.Length "limit"} of {exchange}, none above what it documents"""
        | over ->
            let each =
                over
                |> List.map (fun (struct (name, configured, documented)) ->
                    $"{name} {configured} (documented {documented})")
                |> String.concat ", "

            finding
                Grade.Warning
                "limits"
                $"above what {exchange} documents for 10 s: {each}"
                "lower them in rate_limits, or answers will be 429"

    let private room folder free =
        let remedy =
            "make room, or store elsewhere (store.path); when it is full nothing is asked, and gaps say so"

        match free with
        | Error detail ->
            finding Grade.Failed "disk" $"{folder}: {detail}" "see that the folder can be written to"
        | Ok free when free < leastRoom -> finding Grade.Failed "disk" $"{size free} free in {folder}" remedy
        | Ok free when free < littleRoom ->
            finding Grade.Warning "disk" $"{size free} free in {folder}" remedy
        | Ok free -> fine "disk" $"{size free} free in {folder}"

    let private sync folder took =
        match took with
        | Error detail ->
            finding
                Grade.Failed
                "sync"
                $"nothing can be written in {folder}: {detail}"
                "see that this user may write there, or store elsewhere (store.path)"
        | Ok took when took > slowSync ->
            finding
                Grade.Warning
                "sync"
                $"a write in {folder} is safe on the disk after {span took} (median)"
                "that is slow, as of a network drive or a busy disk: store on a local one, or raise store.group_time"
        | Ok took -> fine "sync" $"a write in {folder} is safe on the disk after {span took} (median)"

    let private store path file =
        match file with
        | StoreFile.Absent -> fine "store" $"{path} is not there yet: 'tributary start' makes it"
        | StoreFile.Ours(found, known) when found > known ->
            finding
                Grade.Failed
                "store"
                $"{path} was made by a later version of Tributary (schema {found}; this one knows up to {known})"
                "update Tributary, or use another file"
        | StoreFile.Ours(found, known) when found < known ->
            fine "store" $"{path} has schema {found}: the next 'tributary start' takes it forward to {known}"
        | StoreFile.Ours(found, _) -> fine "store" $"{path} has schema {found}, this version's"
        | StoreFile.Foreign detail ->
            finding
                Grade.Failed
                "store"
                $"{path} is not a Tributary store: {detail}"
                "name another file as store.path (or store.questdb.outbox)"
        | StoreFile.Unreadable detail ->
            finding
                Grade.Failed
                "store"
                $"{path} cannot be read: {detail}"
                "see to the file and its permissions"

    let private damage path (found: string list) isWhole =
        match found with
        | [] when isWhole -> fine "damage" $"none in {path}"
        | [] -> fine "damage" $"none in the part of {path} that there was time for"
        | first :: others ->
            let more = if others.IsEmpty then "" else $", and {others.Length} more"

            finding
                Grade.Failed
                "damage"
                $"{path} is damaged: {first}{more}"
                "stop the collector, keep a copy, and save what is left with: sqlite3 FILE .recover | sqlite3 NEW"

    let private tables
        found
        (missing: string list)
        (mend: string list)
        (notes: string list)
        (refusals: string list)
        = [
        for refusal in refusals do
            finding Grade.Failed "questdb tables" refusal "until then its rows wait in the outbox"

        for note in notes do
            finding Grade.Warning "questdb tables" note ""

        if not mend.IsEmpty then
            let statements = String.concat "; " mend
            finding Grade.Warning "questdb tables" $"'tributary start' will run: {statements}" ""

        match missing with
        | [] when refusals.IsEmpty && notes.IsEmpty && mend.IsEmpty ->
            fine "questdb tables" $"""{plural found "table"}, as they should be"""
        | [] -> ()
        | missing ->
            let names = String.concat ", " missing
            fine "questdb tables" $"{found} there; 'tributary start' makes {names}"
    ]

    let private outbox (waits: Waits) =
        let share =
            match waits.Limit with
            | ValueSome limit -> float waits.Bytes / float limit
            | ValueNone -> 0.0

        let age =
            match waits.Age with
            | ValueSome age -> $", the oldest for {span age}"
            | ValueNone -> ""

        let bound =
            match waits.Limit with
            | ValueSome limit -> $" of {size limit}"
            | ValueNone -> ""

        let seen =
            if waits.Rows = 0L then
                $"nothing waits for QuestDB in {waits.Path}"
            else
                $"""{count waits.Rows "row" "rows"} ({size waits.Bytes}{bound}) wait for QuestDB in {waits.Path}{age}"""

        let remedy =
            "see that QuestDB runs, and that a collector does: rows go out while 'tributary start' runs"

        if share >= 0.95 then
            finding Grade.Failed "outbox" seen (remedy + "; or raise store.questdb.outbox_size")
        elif share >= 0.5 || waits.Age > ValueSome longWait then
            finding Grade.Warning "outbox" seen remedy
        else
            fine "outbox" seen

    /// What a measurement means; most are one finding.
    let judge (measured: Measurement) : Observation list =
        match measured with
        | Measurement.Configuration(place, []) -> [ fine "configuration" $"{place}: no mistakes" ]
        | Measurement.Configuration(_, mistakes) -> [
            for mistake in mistakes do
                finding
                    Grade.Failed
                    "configuration"
                    mistake
                    "mend it; 'tributary start' does not begin before, and what follows here takes the default instead"
          ]
        | Measurement.Name(setting, address, _, Ok(struct (found, took))) -> [
            fine
                $"name {setting}"
                $"""{address} leads to {count (int64 found) "address" "addresses"} in {span took}"""
          ]
        | Measurement.Name(setting, address, isNeeded, Error detail) -> [
            finding
                (missed isNeeded)
                $"name {setting}"
                ($"{address} leads nowhere: {detail}" + unneeded isNeeded)
                $"check {setting}, and this machine's DNS"
          ]
        | Measurement.Answer(setting, address, isNeeded, Ok(struct (status, isJson, took))) -> [
            answered setting address isNeeded status isJson took
          ]
        | Measurement.Answer(setting, address, isNeeded, Error detail) -> [
            finding
                (missed isNeeded)
                $"exchange {setting}"
                ($"{address} does not answer: {detail}" + unneeded isNeeded)
                $"check {setting}, 'proxy', and the network"
          ]
        | Measurement.Live(setting, address, Ok(struct (opened, answered))) -> [
            fine $"live {setting}" $"{address} opens in {span opened} and answers a ping in {span answered}"
          ]
        | Measurement.Live(setting, address, Error detail) -> [
            finding
                Grade.Failed
                $"live {setting}"
                $"{address}: {detail}"
                $"check {setting}, 'proxy', and that WebSockets may pass; until then books are only polled"
          ]
        | Measurement.Account(exchange, _, Ok address) -> [
            fine "account" $"{exchange} takes the credentials of {address}"
          ]
        | Measurement.Account(exchange, isNeeded, Error reason) -> [
            finding
                (missed isNeeded)
                "account"
                $"{exchange}: {reason}"
                (if isNeeded then
                     $"see the secrets of collectors.{exchange}; 'tributary start' does not begin without them (auth: required)"
                 else
                     $"see the secrets of collectors.{exchange}; until then public data alone is collected")
          ]
        | Measurement.Clock(exchange, skew) -> [ clock exchange skew ]
        | Measurement.Limits(exchange, all) -> [ limits exchange all ]
        | Measurement.Room(folder, free) -> [ room folder free ]
        | Measurement.Sync(folder, took) -> [ sync folder took ]
        | Measurement.Store(path, file) -> [ store path file ]
        | Measurement.Holder(path, ValueSome holder) -> [ fine "writer" $"{holder} writes to {path}" ]
        | Measurement.Holder(path, ValueNone) -> [ fine "writer" $"nobody writes to {path} now" ]
        | Measurement.Damage(path, found, isWhole) -> [ damage path found isWhole ]
        | Measurement.Server(address, Ok version) -> [ fine "questdb" $"{address} is QuestDB {version}" ]
        | Measurement.Server(_, Error detail) -> [
            finding
                Grade.Failed
                "questdb"
                detail
                "until it answers, rows wait in the outbox; check store.questdb.connection"
          ]
        | Measurement.Tables(found, missing, mend, notes, refusals) ->
            tables found missing mend notes refusals
        | Measurement.Suspended [] -> [ fine "questdb log" "no table is suspended" ]
        | Measurement.Suspended tables -> [
            for struct (table, reason) in tables do
                let why = if reason = "" then "" else $" ({reason})"

                finding
                    Grade.Failed
                    "questdb log"
                    $"table {table} is suspended{why}: it takes rows and does not show them"
                    $"see to the cause, then run: ALTER TABLE \"{table}\" RESUME WAL"
          ]
        | Measurement.Outbox waits -> [ outbox waits ]

    /// The gravest of some findings; `Ok` when there are none.
    let gravest (findings: Observation list) =
        if findings |> List.exists (fun one -> one.Grade = Grade.Failed) then
            Grade.Failed
        elif findings |> List.exists (fun one -> one.Grade = Grade.Warning) then
            Grade.Warning
        else
            Grade.Ok
