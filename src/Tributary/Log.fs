/// Every message that the engine logs, by name. Values are named, and none of them is ever a secret.
[<RequireQualifiedAccess>]
module internal Tributary.Log

open System
open Microsoft.Extensions.Logging

let started (log: ILogger) (collector: string) (store: string) =
    log.LogInformation("Collector {Collector} started, storing to {Store}", collector, store)

let doorOpened (log: ILogger) (address: Uri) =
    log.LogInformation("Health, status and metrics at {Address}", address)

let pageClosed (log: ILogger) (detail: string) =
    log.LogWarning("There is no page: {Detail}", detail)

let doorClosed (log: ILogger) (address: string) (detail: string) =
    log.LogWarning(
        "There is no HTTP door at {Address}: {Detail}. Collecting goes on without it; http.listen takes another port",
        address,
        detail
    )

let reloaded (log: ILogger) (change: string) =
    log.LogInformation("Configuration: {Change}", change)

let reloadedNothing (log: ILogger) =
    log.LogInformation("Configuration: read again, and nothing that counts while running is different")

let reloadRefused (log: ILogger) (mistake: string) =
    log.LogError("The new configuration is refused, and the old one goes on: {Mistake}", mistake)

let matches (log: ILogger) (confirmed: int) (withdrawn: int) (file: string) =
    log.LogInformation(
        "Matches of {File}: {Confirmed} new, {Withdrawn} withdrawn",
        file,
        confirmed,
        withdrawn
    )

let matchUntold (log: ILogger) (mistake: string) =
    log.LogWarning("A match is not told yet: {Mistake}", mistake)

let matchesUnread (log: ILogger) (file: string) (error: exn) =
    log.LogError(error, "The matches of {File} are not stored, and will be with the next start", file)

let resumed (log: ILogger) (flows: int) (openGaps: int) =
    log.LogInformation("Resuming {Flows} flows with {OpenGaps} open gaps", flows, openGaps)

let stopped (log: ILogger) (rows: int64) (took: TimeSpan) =
    log.LogInformation(
        "Stopped: everything is stored ({Rows} rows in all), {Seconds:0.0} s",
        rows,
        took.TotalSeconds
    )

let undrained (log: ILogger) (detail: string) =
    log.LogError("Stopped before everything was stored: {Detail}. The next start records the gap", detail)

let expired (log: ILogger) (table: string) (rows: int64) =
    log.LogInformation("{Rows} rows of {Table} were older than they are kept, and are deleted", rows, table)

let notExpired (log: ILogger) (detail: string) =
    log.LogWarning("Old rows are not deleted now, and will be later: {Detail}", detail)

let marketAdded (log: ILogger) (slug: string) (market: string) =
    log.LogInformation("Collecting {Slug} ({Market})", slug, market)

let marketClosed (log: ILogger) (slug: string) (market: string) =
    log.LogInformation(
        "{Slug} ({Market}) takes no more orders, or is not wanted any more: its books are no longer collected",
        slug,
        market
    )

let unknownSlug (log: ILogger) (slug: string) =
    log.LogWarning("No market or event is called {Slug}: check the spelling in the configuration", slug)

let authRefused (log: ILogger) (exchange: string) (reason: string) =
    log.LogWarning(
        "{Exchange}: {Reason}. Public data is collected, and nothing of an account; with auth: required collecting would not begin",
        exchange,
        reason
    )

let keyRefused (log: ILogger) (exchange: string) (reason: string) =
    log.LogWarning(
        "{Exchange}: {Reason}. Public data is collected without it; with auth: required collecting would not begin",
        exchange,
        reason
    )

let keyUnchecked (log: ILogger) (exchange: string) (detail: string) =
    log.LogWarning(
        "{Exchange}: the key could not be checked ({Detail}), and is used unchecked",
        exchange,
        detail
    )

let authUnanswered (log: ILogger) (exchange: string) (detail: string) =
    log.LogWarning(
        "{Exchange}: the credentials are not checked yet ({Detail}): it is tried again until they are",
        exchange,
        detail
    )

let authAccepted (log: ILogger) (exchange: string) (address: string) =
    log.LogInformation("{Exchange}: own orders and trades of {Address} are collected", exchange, address)

let ownMissed (log: ILogger) isNews (exchange: string) (fault: string) =
    let level = if isNews then LogLevel.Warning else LogLevel.Debug

    log.Log(
        level,
        "{Exchange}: own orders and trades could not be fetched: {Fault}. They are asked for again, from where they were known last",
        exchange,
        fault
    )

let ownBack (log: ILogger) (exchange: string) =
    log.LogInformation("{Exchange}: own orders and trades are known again", exchange)

let ownChannelOpened (log: ILogger) (exchange: string) =
    log.LogInformation("{Exchange}: the account's live connection is open", exchange)

let ownChannelLost (log: ILogger) isNews (exchange: string) (detail: string) =
    let level = if isNews then LogLevel.Warning else LogLevel.Debug

    log.Log(
        level,
        "{Exchange}: the account's live connection is lost ({Detail}); another one follows, and what it missed is asked for",
        exchange,
        detail
    )

/// What the collector of an exchange does without, said as it begins.
let without (log: ILogger) (exchange: string) (text: string) =
    log.LogInformation("{Exchange}: {Note}", exchange, text)

/// What a live connection was told that a person should know, such as that a subscription was refused.
let told (log: ILogger) (exchange: string) (text: string) =
    log.LogWarning("{Exchange}: {Note}", exchange, text)

let note (log: ILogger) (exchange: string) (text: string) =
    log.LogDebug("{Exchange}: {Note}", exchange, text)

let retrying (log: ILogger) (endpoint: string) (fault: string) (attempt: int) (wait: TimeSpan) =
    log.LogDebug(
        "{Endpoint}: {Fault}; attempt {Attempt} in {Wait} ms",
        endpoint,
        fault,
        attempt + 1,
        wait.TotalMilliseconds
    )

let requestFailed (log: ILogger) isNews (endpoint: string) (path: string) (fault: string) =
    let level = if isNews then LogLevel.Warning else LogLevel.Debug
    log.Log(level, "{Endpoint} failed: {Fault} ({Path})", endpoint, fault, path.Split('?')[0])

let answersAgain (log: ILogger) (endpoint: string) =
    log.LogInformation("{Endpoint} answers again", endpoint)

let connected (log: ILogger) (exchange: string) (connection: int) (tokens: int) =
    log.LogInformation(
        "{Exchange}: connection {Connection} is open, with {Tokens} tokens",
        exchange,
        connection,
        tokens
    )

/// One line for each token that a connection carries from now on: with it the lines of a connection and those of a market are found from
/// each other.
let subscribed
    (log: ILogger)
    (exchange: string)
    (connection: int)
    (market: TokenId -> string)
    (tokens: TokenId list)
    =
    if log.IsEnabled LogLevel.Debug then
        for token in tokens do
            log.LogDebug(
                "{Exchange}: connection {Connection} carries {Market} {Token}",
                exchange,
                connection,
                market token,
                string token
            )

let disconnected (log: ILogger) (exchange: string) (connection: int) (detail: string) =
    log.LogWarning(
        "{Exchange}: connection {Connection} is lost ({Detail}); another one follows",
        exchange,
        connection,
        detail
    )

let connectionSilent (log: ILogger) (exchange: string) (connection: int) =
    log.LogWarning(
        "{Exchange}: connection {Connection} says nothing while its books change; it is replaced",
        exchange,
        connection
    )

let lateness (log: ILogger) (exchange: string) (detail: string) (p50: TimeSpan) (p99: TimeSpan) =
    log.LogWarning(
        "{Exchange}: {Detail} (age of messages: half of them {P50:0} ms or more, one in a hundred {P99:0} ms or more)",
        exchange,
        detail,
        p50.TotalMilliseconds,
        p99.TotalMilliseconds
    )

let announced (log: ILogger) (exchange: string) (slug: string) =
    log.LogInformation("{Exchange} announces {Slug}", exchange, slug)

let unconfirmed (log: ILogger) (count: int) =
    log.LogWarning("{Count} fills of the stream were not confirmed by the API within ten minutes", count)

let earlierUnread (log: ILogger) (detail: string) =
    log.LogWarning(
        "The fills of the last ten minutes could not be read: {Detail}. Some of them may stay in the store twice, as the stream's and as the API's",
        detail
    )

let gapOpened (log: ILogger) (stream: string) (count: int) (cause: string) =
    log.LogWarning("Gap: {Stream} of {Count} flows, cause {Cause}", stream, count, cause)

/// A gap of one market, as it was stored: what `market_gaps` has.
let gap (log: ILogger) (gap: Gap) =
    if log.IsEnabled LogLevel.Debug then
        let token =
            match gap.Token with
            | ValueSome token -> string token
            | ValueNone -> ""

        match gap.Until with
        | ValueNone ->
            log.LogDebug(
                "{Exchange}: gap of {Stream} of {Market} {Token} since {Since}, cause {Cause}",
                string gap.Exchange,
                string gap.Stream,
                string gap.Market,
                token,
                string gap.Since,
                string gap.Cause
            )
        | ValueSome until ->
            log.LogDebug(
                "{Exchange}: the gap of {Stream} of {Market} {Token} from {Since} on, cause {Cause}, ended at {Until}",
                string gap.Exchange,
                string gap.Stream,
                string gap.Market,
                token,
                string gap.Since,
                string gap.Cause,
                string until
            )

let quarantined (log: ILogger) (source: string) (reason: string) =
    let shown =
        if source.Length > 120 then
            source.Substring(0, 120) + "…"
        else
            source

    log.LogWarning("Quarantined from {Source}: {Reason}", shown, reason)

let storeFailed (log: ILogger) (store: string) (detail: string) =
    log.LogError(
        "{Store} does not take what was collected: {Detail}. Polling stops; it goes on by itself when this clears",
        store,
        detail
    )

let diskTight (log: ILogger) (free: float) =
    log.LogError(
        "{Free:0} MB are free where the store is (store.min_free): books are not collected any more, and that is a gap; trades are, as long as there is room",
        free
    )

let diskFree (log: ILogger) (free: float) =
    log.LogInformation("{Free:0} MB are free where the store is: books are collected again", free)

let storeRecovered (log: ILogger) (store: string) (took: TimeSpan) =
    log.LogInformation(
        "{Store} takes data again after {Seconds:0.0} s: polling goes on",
        store,
        took.TotalSeconds
    )

let jobFinished (log: ILogger) (job: string) (rows: int) (errors: int) (took: TimeSpan) =
    log.LogDebug(
        "{Job}: {Rows} new rows, {Errors} errors, {Milliseconds:0} ms",
        job,
        rows,
        errors,
        took.TotalMilliseconds
    )

let jobCrashed (log: ILogger) (job: string) (error: exn) =
    log.LogError(error, "{Job} failed in a way that is a bug of ours: {Message}", job, error.Message)

let schedulerDied (log: ILogger) (error: exn) =
    log.LogCritical(error, "The scheduler died, which is a bug of ours: {Message}", error.Message)

let remoteAway (log: ILogger) (detail: string) (outbox: string) =
    log.LogWarning(
        "{Detail}. What is collected waits in {Outbox} and goes out by itself when this clears",
        detail,
        outbox
    )

let remoteLeft (log: ILogger) (store: string) (rows: int64) (outbox: string) =
    log.LogWarning("{Rows} rows wait in {Outbox} for {Store}: the next start sends them", rows, outbox, store)

let remoteBack (log: ILogger) (store: string) (took: TimeSpan) =
    log.LogInformation("{Store} takes rows again after {Seconds:0.0} s", store, took.TotalSeconds)

let remoteNote (log: ILogger) (store: string) (note: string) =
    log.LogInformation("{Store}: {Note}", store, note)

let remoteRefused (log: ILogger) (store: string) (table: string) (detail: string) (outbox: string) =
    log.LogError("{Store}: rows of {Table} are held back in {Outbox}: {Detail}", store, table, outbox, detail)

let remoteUnhealthy (log: ILogger) (store: string) (detail: string) =
    log.LogError("{Store}: {Detail}", store, detail)

let remoteUnchecked (log: ILogger) (store: string) =
    log.LogWarning(
        "{Store}: the server's certificate is NOT checked (tls_verify=unsafe_off): anybody in between can read and change everything",
        store
    )

let rowRefused (log: ILogger) (store: string) (table: string) (reason: string) =
    log.LogError(
        "{Store} will never take a row of {Table}: {Reason}. It is kept here, in quarantine",
        store,
        table,
        reason
    )

let alert (log: ILogger) (rule: string) isResolved (text: string) =
    let level =
        if isResolved then
            LogLevel.Information
        else
            LogLevel.Warning

    log.Log(level, "Alert {Rule}: {Text}", rule, text)

let noticeFailed (log: ILogger) (sink: string) (rule: string) (detail: string) =
    log.LogError("The {Sink} of alerts was not told of {Rule}: {Detail}", sink, rule, detail)

let noticeDropped (log: ILogger) (sink: string) (rule: string) =
    log.LogError("The {Sink} of alerts was not told of {Rule}: too many notices wait for it", sink, rule)

let noticesLeft (log: ILogger) (sink: string) (count: int) =
    log.LogWarning("{Count} notices were not sent to the {Sink} of alerts before the end", count, sink)

let lookFailed (log: ILogger) (error: exn) =
    log.LogError(error, "Alerts could not be judged, which is a bug of ours: {Message}", error.Message)
