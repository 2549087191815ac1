namespace Tributary

open System

/// What may be wrong with a collector. None of these loses anything in silence: whatever is missing lies in gaps.
[<RequireQualifiedAccess>]
type Complaint =
    /// The scheduler has died, which is a bug of ours: nothing is asked any more.
    | Died
    /// The configured markets have not been looked up yet.
    | Starting
    /// The store does not take what was collected.
    | StoreFailed
    /// It was told to wait.
    | Paused
    /// Nothing at all was received for a while.
    | Silent
    /// Live connections are missing.
    | Disconnected
    /// Holes are open, by cause.
    | Gaps of Cause
    /// A store elsewhere is in trouble, or rows wait long for it.
    | Backlog
    /// Our clock and the exchange's differ.
    | Skew
    /// The disk is almost full.
    | Disk

/// A complaint as people are told of it.
type HealthReason = { Complaint: Complaint; Detail: string }

/// What a load balancer, a watchdog and a person want to know.
[<RequireQualifiedAccess>]
type Health =
    /// All is well.
    | Ready
    /// It collects, and something is wrong.
    | Degraded of HealthReason list
    /// It collects nothing, or cannot keep it. The last reasons may be others.
    | Unready of HealthReason list

    member this.Reasons =
        match this with
        | Ready -> []
        | Degraded reasons
        | Unready reasons -> reasons

/// What health tolerates.
type HealthRules = {
    Silence: TimeSpan
    BacklogAge: TimeSpan
    Skew: TimeSpan
    FreeBytes: int64
}

[<RequireQualifiedAccess>]
module Health =
    /// A minute of silence, five minutes of backlog, five seconds of skew, 500 MB of disk.
    let defaults: HealthRules = {
        Silence = TimeSpan.FromMinutes 1.0
        BacklogAge = TimeSpan.FromMinutes 5.0
        Skew = TimeSpan.FromSeconds 5.0
        FreeBytes = 500_000_000L
    }

    /// The word of a complaint in answers, metrics and alerts.
    let word complaint =
        match complaint with
        | Complaint.Died -> "died"
        | Complaint.Starting -> "starting"
        | Complaint.StoreFailed -> "store_failed"
        | Complaint.Paused -> "paused"
        | Complaint.Silent -> "silent"
        | Complaint.Disconnected -> "disconnected"
        | Complaint.Gaps cause -> $"gaps_{cause}"
        | Complaint.Backlog -> "backlog"
        | Complaint.Skew -> "skew"
        | Complaint.Disk -> "disk"

    /// With these nothing is collected, or nothing that was can be kept.
    let private isFatal complaint =
        match complaint with
        | Complaint.Died
        | Complaint.Starting
        | Complaint.StoreFailed -> true
        | _ -> false

    let private seconds (span: TimeSpan) = $"%.0f{span.TotalSeconds} s"

    /// Whether too little is free to go on with everything. Once it was, a fifth more is wanted, so that it does not go to and fro at the edge.
    let isTight (least: int64) (wasTight: bool) (free: int64) =
        if wasTight then
            free <= least + least / 5L
        else
            free < least

    /// Judges a pulse. Without markets, silence is what was asked for.
    let judge (rules: HealthRules) (isDead: bool) (isReady: bool) (pulse: Pulse) : Health =
        let reasons = [
            let reason complaint detail = {
                Complaint = complaint
                Detail = detail
            }

            if isDead then
                reason
                    Complaint.Died
                    "the scheduler has died: nothing is asked any more; restart it, and report it"

            if not isReady && not isDead then
                reason Complaint.Starting "the configured markets have not been looked up yet"

            for cause in pulse.Paused do
                match cause with
                | Cause.StoreFailed ->
                    reason
                        Complaint.StoreFailed
                        "the store does not take what was collected; polling waits for it"
                | cause -> reason Complaint.Paused $"nothing is asked at present: {cause}"

            let heard = ValueOption.defaultValue pulse.Started pulse.LastReceived

            if not pulse.Markets.IsEmpty && pulse.At - heard > rules.Silence then
                reason Complaint.Silent $"nothing at all was received for {seconds (pulse.At - heard)}"

            if pulse.Connected < pulse.Connections then
                reason
                    Complaint.Disconnected
                    $"{pulse.Connections - pulse.Connected} of {pulse.Connections} live connections are not open"

            let gaps =
                pulse.Markets
                |> List.collect (fun market -> market.Gaps |> List.map (fun gap -> gap, market.Slug))
                |> List.groupBy (fun (gap, _) -> gap.Cause)

            for cause, gaps in gaps do
                let streams =
                    gaps
                    |> List.map (fun (gap, _) -> string gap.Stream)
                    |> List.distinct
                    |> String.concat ", "

                let markets = gaps |> List.map snd |> List.distinct |> List.length

                reason
                    (Complaint.Gaps cause)
                    $"{gaps.Length} gaps are open ({streams}) in {markets} markets: {cause}"

            for trouble in pulse.Backlog.Troubles do
                reason Complaint.Backlog trouble

            match pulse.Backlog.Since with
            | ValueSome since when pulse.At - since > rules.BacklogAge ->
                reason
                    Complaint.Backlog
                    $"{pulse.Backlog.Rows} rows wait, the oldest for {seconds (pulse.At - since)}"
            | _ -> ()

            match pulse.Skew with
            | ValueSome skew when skew.Duration() > rules.Skew ->
                let direction = if skew > TimeSpan.Zero then "ahead of" else "behind"
                reason Complaint.Skew $"our clock is {seconds (skew.Duration())} {direction} the exchange's"
            | _ -> ()

            match pulse.FreeBytes with
            | ValueSome free when free < rules.FreeBytes ->
                reason Complaint.Disk $"{free / 1_000_000L} MB are free where the store is"
            | _ -> ()
        ]

        if reasons |> List.exists (fun reason -> isFatal reason.Complaint) then
            Health.Unready(reasons |> List.sortBy (fun reason -> not (isFatal reason.Complaint)))
        elif reasons.IsEmpty then
            Health.Ready
        else
            Health.Degraded reasons
