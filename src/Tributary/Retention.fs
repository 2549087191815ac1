/// Old rows go from the store while a collector runs.
[<RequireQualifiedAccess>]
module Tributary.Retention

open System
open System.Threading
open System.Threading.Tasks
open Microsoft.Extensions.Logging
open Tributary
open Tributary.Stores

/// How often a running collector looks for rows that have become too old.
let every = TimeSpan.FromHours 1.0

/// Deletes what is older, now, than it is kept, and says so in the log. What fails is tried again the next time.
let run
    (store: Store)
    (retention: RetentionSettings)
    (clock: TimeProvider)
    (log: ILogger)
    (ct: CancellationToken)
    : Task<unit> = task {
    match! store.Expire retention (Instant.ofDateTimeOffset (clock.GetUtcNow())) ct with
    | Ok expired ->
        for one in expired do
            Log.expired log one.Table one.Rows
    | Error fault -> Log.notExpired log (string fault)
}
