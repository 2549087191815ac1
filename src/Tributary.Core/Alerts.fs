namespace Tributary

open System

/// What is worth telling somebody about. Shares are from 0 to 1, windows end now.
[<RequireQualifiedAccess>]
type AlertRule =
    /// Nothing at all was received for longer than this: a dead man's switch.
    | NothingReceived of after: TimeSpan
    /// The store does not take what is collected, so nothing is asked.
    | StoreFailed
    /// The store elsewhere cannot be reached, or a table of it is suspended.
    | StoreTrouble
    /// Fewer bytes are free where the store is.
    | FreeDisk of below: int64
    /// Rows wait longer than this for the store elsewhere.
    | Backlog of olderThan: TimeSpan
    /// A hole of a stream is open for longer than this.
    | GapsOpen of after: TimeSpan
    /// A smaller share of a stream's polls was good, of at least so many polls.
    | Coverage of below: float * window: TimeSpan * atLeast: int
    /// A larger share of the requests failed, of at least so many requests.
    | RequestErrors of above: float * window: TimeSpan * atLeast: int
    /// Our clock and the exchange's differ by more, either way.
    | ClockSkew of above: TimeSpan
    /// A market had no trade for so many times its usual interval, and for at least this long.
    | MarketQuiet of times: float * atLeast: TimeSpan

/// A rule, and how long it must hold before it fires.
type AlertWatch = { Rule: AlertRule; For: TimeSpan }

/// What is watched, and how often one is told.
type AlertPolicy = {
    /// In the order in which they are told when several begin at once; each rule at most once.
    Watches: AlertWatch list
    /// What still holds is told again after so long.
    RepeatEvery: TimeSpan
    /// At most so many notices in a window; what is over waits, and is counted.
    MaxNotices: int
    Window: TimeSpan
}

/// Whom an alert is about.
[<RequireQualifiedAccess>]
type AlertSubject =
    /// The collector as a whole.
    | Collector
    | Stream of Stream
    | Market of ExchangeId * MarketId

/// Where an alert stands.
[<RequireQualifiedAccess>]
type AlertPhase =
    /// It holds, but not for long enough.
    | Pending
    | Firing
    /// It is over, and its end is still to be told.
    | Ended

/// What is known of a rule and a subject for which something holds or held.
type Alert = {
    /// The rule's name, which is its key in the configuration.
    Rule: string
    /// The stream, or the market's slug; empty when it is the collector as a whole.
    Subject: string
    Phase: AlertPhase
    /// Since when it holds.
    Since: Instant
    /// When it was last told; nothing before the first time.
    Told: Instant voption
    /// A notice of it waits for its turn.
    IsHeld: bool
    /// What was measured, and what it was compared with: seconds, shares, bytes or a count, as the rule has it.
    Value: float
    Threshold: float
    /// What is the matter, in a sentence.
    Message: string
}

/// Something to tell. A notice that begins an alert is followed by one that ends it, with the same rule, subject and `Since`.
type AlertNotice = {
    Collector: string
    Rule: string
    /// The stream, or the market's slug; empty when it is the collector as a whole.
    Subject: string
    At: Instant
    Since: Instant
    /// It is over.
    IsResolved: bool
    /// It was told before, and still holds.
    IsRepeated: bool
    Value: float
    Threshold: float
    Message: string
    /// How many notices were held back since the one before, because there were too many: those that still matter come later.
    Withheld: int
}

/// What was counted up to a moment: of each subject all, and what of it was bad.
type private Sample = {
    At: Instant
    Counts: Map<AlertSubject, struct (int64 * int64)>
}

/// All that is remembered between two pulses.
type AlertBoard = private {
    Started: Instant
    /// Of each rule that has a window, the newest first.
    Samples: Map<string, Sample list>
    Alerts: Map<string * AlertSubject, Alert>
    /// When notices went out, within the window of the limit.
    Sent: Instant list
    Withheld: int
}

/// When somebody is told that something is wrong, and when that it is over.
[<RequireQualifiedAccess>]
module Alerts =
    /// Nothing was seen yet.
    let none: AlertBoard = {
        Started = Instant.ofMicros Int64.MinValue
        Samples = Map.empty
        Alerts = Map.empty
        Sent = []
        Withheld = 0
    }

    /// A rule's name: its key in the configuration.
    let name rule =
        match rule with
        | AlertRule.NothingReceived _ -> "nothing_received"
        | AlertRule.StoreFailed -> "store_failed"
        | AlertRule.StoreTrouble -> "store_trouble"
        | AlertRule.FreeDisk _ -> "free_disk"
        | AlertRule.Backlog _ -> "backlog"
        | AlertRule.GapsOpen _ -> "gaps_open"
        | AlertRule.Coverage _ -> "coverage"
        | AlertRule.RequestErrors _ -> "request_errors"
        | AlertRule.ClockSkew _ -> "clock_skew"
        | AlertRule.MarketQuiet _ -> "market_quiet"

    /// The rule of a notice that says only how many others were held back, all of them about what is over.
    [<Literal>]
    let Withheld = "withheld"

    // ---- what a pulse says about a rule

    type private Reading = {
        Id: AlertSubject
        Subject: string
        /// Nothing when it cannot be told at present: then what fires goes on firing.
        Holds: bool voption
        Value: float
        Threshold: float
        Message: string
    }

    let private span (time: TimeSpan) =
        if time < TimeSpan.FromMinutes 2.0 then
            $"%.0f{time.TotalSeconds} s"
        elif time < TimeSpan.FromHours 2.0 then
            $"%.0f{time.TotalMinutes} min"
        elif time < TimeSpan.FromDays 2.0 then
            $"%.1f{time.TotalHours} h"
        else
            $"%.1f{time.TotalDays} d"

    let private percent share = $"%.1f{share * 100.0} %%"
    let private megabytes (bytes: int64) = $"%.0f{float bytes / 1e6} MB"

    let private windowOf rule =
        match rule with
        | AlertRule.Coverage(_, window, _)
        | AlertRule.RequestErrors(_, window, _) -> ValueSome window
        | _ -> ValueNone

    let private sample rule (pulse: Pulse) = {
        At = pulse.At
        Counts =
            match rule with
            | AlertRule.Coverage _ ->
                Map.ofList [
                    for one in pulse.Streams ->
                        AlertSubject.Stream one.Stream, struct (one.Due, one.Due - one.Good)
                ]
            | _ -> Map.ofList [ AlertSubject.Collector, struct (pulse.Requests, pulse.Failures) ]
    }

    /// Sixty moments of a window are enough, and the last one before it is what it is compared with. Of a clock that was set back,
    /// what lies ahead is forgotten.
    let private remember (window: TimeSpan) (now: Sample) (samples: Sample list) =
        let inside, older =
            samples
            |> List.filter (fun one -> one.At < now.At)
            |> List.partition (fun one -> one.At > now.At - window)

        match inside with
        | latest :: _ when now.At - latest.At < window / 60.0 -> inside @ List.truncate 1 older
        | _ -> now :: inside @ List.truncate 1 older

    /// What was counted of a subject in the window; nothing while it is not full.
    let private within (window: TimeSpan) (now: Sample) (samples: Sample list) subject =
        let count sample =
            sample.Counts |> Map.tryFind subject |> Option.defaultValue (struct (0L, 0L))

        match List.tryLast samples with
        | Some first when first.At <= now.At - window ->
            let struct (all, bad), struct (allBefore, badBefore) = count now, count first
            ValueSome(struct (all - allBefore, bad - badBefore))
        | _ -> ValueNone

    /// A share of too few is not judged, but where there was nothing, there is nothing wrong.
    let private judged atLeast holds counted =
        match counted with
        | ValueNone -> ValueNone, 0.0
        | ValueSome(struct (0L, _)) -> ValueSome false, 0.0
        | ValueSome(struct (all, bad)) ->
            let share = float bad / float all

            (if all < int64 atLeast then
                 ValueNone
             else
                 ValueSome(holds share)),
            share

    let private about id subject holds value threshold message : Reading = {
        Id = id
        Subject = subject
        Holds = holds
        Value = value
        Threshold = threshold
        Message = message
    }

    let private whole holds =
        about AlertSubject.Collector "" (ValueSome holds)

    let private readings (samples: Sample list) (pulse: Pulse) rule : Reading list =
        let now = pulse.At

        match rule with
        | AlertRule.NothingReceived after ->
            let silent = now - ValueOption.defaultValue pulse.Started pulse.LastReceived
            let message = $"nothing at all was received for {span silent}"
            [ whole (silent > after) silent.TotalSeconds after.TotalSeconds message ]
        | AlertRule.StoreFailed ->
            let holds = List.contains Cause.StoreFailed pulse.Paused

            let message =
                "the store does not take what is collected, and nothing is asked until it does"

            [ whole holds (if holds then 1.0 else 0.0) 0.0 message ]
        | AlertRule.StoreTrouble ->
            let troubles = pulse.Backlog.Troubles
            let message = "the store elsewhere: " + String.concat "; " troubles
            [ whole (not troubles.IsEmpty) (float troubles.Length) 0.0 message ]
        | AlertRule.FreeDisk below -> [
            match pulse.FreeBytes with
            | ValueNone -> ()
            | ValueSome free ->
                let message =
                    $"{megabytes free} are free where the store is, less than {megabytes below}"

                whole (free < below) (float free) (float below) message
          ]
        | AlertRule.Backlog olderThan ->
            let oldest = ValueOption.defaultValue now pulse.Backlog.Since
            let waits = now - oldest

            let message =
                $"{pulse.Backlog.Rows} rows wait for the store elsewhere, the oldest for {span waits}"

            [ whole (waits > olderThan) waits.TotalSeconds olderThan.TotalSeconds message ]
        | AlertRule.GapsOpen after -> [
            let gaps =
                pulse.Markets |> List.collect _.Gaps |> List.groupBy _.Stream |> Map.ofList

            for stream in Stream.all do
                match Map.tryFind stream gaps with
                | None -> ()
                | Some gaps ->
                    let old = gaps |> List.filter (fun gap -> now - gap.Since > after)
                    let oldest = gaps |> List.map _.Since |> List.min

                    let causes =
                        old
                        |> List.map (fun gap -> string gap.Cause)
                        |> List.distinct
                        |> String.concat ", "

                    let message =
                        $"{old.Length} gaps of {stream} are open for more than {span after}, the oldest for {span (now - oldest)}: {causes}"

                    about
                        (AlertSubject.Stream stream)
                        (string stream)
                        (ValueSome(not old.IsEmpty))
                        (now - oldest).TotalSeconds
                        after.TotalSeconds
                        message
          ]
        | AlertRule.Coverage(below, window, atLeast) -> [
            for one in pulse.Streams do
                let id = AlertSubject.Stream one.Stream

                let holds, bad =
                    within window (sample rule pulse) samples id
                    |> judged atLeast (fun bad -> 1.0 - bad < below)

                let good = 1.0 - bad

                let message =
                    $"{percent good} of the polls of {one.Stream} were good in {span window}, less than {percent below}"

                about id (string one.Stream) holds good below message
          ]
        | AlertRule.RequestErrors(above, window, atLeast) ->
            let holds, failed =
                within window (sample rule pulse) samples AlertSubject.Collector
                |> judged atLeast (fun failed -> failed > above)

            let message =
                $"{percent failed} of the requests failed in {span window}, more than {percent above}"

            [ about AlertSubject.Collector "" holds failed above message ]
        | AlertRule.ClockSkew above -> [
            match pulse.Skew with
            | ValueNone -> ()
            | ValueSome skew ->
                let side = if skew > TimeSpan.Zero then "ahead of" else "behind"
                let apart = skew.Duration()

                let message =
                    $"this machine's clock is %.1f{apart.TotalSeconds} s {side} the exchange's"

                whole (apart > above) apart.TotalSeconds above.TotalSeconds message
          ]
        | AlertRule.MarketQuiet(times, atLeast) -> [
            // When nothing is asked or nothing comes at all, that is told, and not once for each market.
            let isDeaf =
                not pulse.Paused.IsEmpty
                || now - ValueOption.defaultValue pulse.Started pulse.LastReceived > atLeast

            for market in pulse.Markets do
                match market.LastTrade, market.TradeInterval with
                | ValueSome last, ValueSome usual ->
                    let quiet, limit = now - last, max atLeast (usual * times)
                    let id = AlertSubject.Market(market.Exchange, market.Market)
                    let holds = if isDeaf then ValueNone else ValueSome(quiet > limit)

                    let message =
                        $"no trade of {market.Slug} for {span quiet}; usually there is one every {span usual}"

                    about id market.Slug holds quiet.TotalSeconds limit.TotalSeconds message
                | _ -> ()
          ]

    // ---- from what holds to what is told

    let private fresh rule now (seen: Reading) : Alert = {
        Rule = rule
        Subject = seen.Subject
        Phase = AlertPhase.Pending
        Since = now
        Told = ValueNone
        IsHeld = false
        Value = seen.Value
        Threshold = seen.Threshold
        Message = seen.Message
    }

    /// It holds no more. Of what nobody was told of, nobody is told that it is over.
    let private ended (alert: Alert) : Alert voption =
        match alert.Phase, alert.Told with
        | AlertPhase.Pending, _
        | _, ValueNone -> ValueNone
        | AlertPhase.Ended, _ -> ValueSome alert
        | AlertPhase.Firing, _ ->
            ValueSome {
                alert with
                    Phase = AlertPhase.Ended
                    IsHeld = false
            }

    /// An end that was not told yet, of something that holds again, never was.
    let private holding (now: Instant) (lasting: TimeSpan) (seen: Reading) (alert: Alert) : Alert =
        let since = min alert.Since now

        {
            alert with
                Since = since
                Phase =
                    if alert.Phase <> AlertPhase.Pending || now - since >= lasting then
                        AlertPhase.Firing
                    else
                        AlertPhase.Pending
                IsHeld = (alert.IsHeld && alert.Phase <> AlertPhase.Ended)
                Value = seen.Value
                Threshold = seen.Threshold
                Message = seen.Message
        }

    let private judge now (watch: AlertWatch) (seen: Reading) (before: Alert option) : Alert voption =
        match seen.Holds, before with
        | ValueSome true, _ ->
            before
            |> Option.defaultWith (fun () -> fresh (name watch.Rule) now seen)
            |> holding now watch.For seen
            |> ValueSome
        | ValueSome false, Some alert ->
            ended {
                alert with
                    Value = seen.Value
                    Threshold = seen.Threshold
            }
        | ValueNone, Some alert when alert.Phase <> AlertPhase.Pending -> ValueSome alert
        | _ -> ValueNone

    let private isDue policy now (alert: Alert) =
        match alert.Phase, alert.Told with
        | AlertPhase.Pending, _ -> false
        | AlertPhase.Ended, _
        | AlertPhase.Firing, ValueNone -> true
        | AlertPhase.Firing, ValueSome told -> now - told >= policy.RepeatEvery

    let private isRepeated (alert: Alert) =
        alert.Phase = AlertPhase.Firing && alert.Told.IsSome

    let private notice (pulse: Pulse) (alert: Alert) : AlertNotice = {
        Collector = pulse.Collector
        Rule = alert.Rule
        Subject = alert.Subject
        At = pulse.At
        Since = alert.Since
        IsResolved = (alert.Phase = AlertPhase.Ended)
        IsRepeated = isRepeated alert
        Value = alert.Value
        Threshold = alert.Threshold
        Message = alert.Message
        Withheld = 0
    }

    /// Says that there was more than one was told of, when that is all there is to say.
    let private summary (pulse: Pulse) : AlertNotice =
        let message = "what was held back is over"

        notice pulse {
            fresh Withheld pulse.At (whole true 0.0 0.0 message) with
                Phase = AlertPhase.Ended
        }

    /// A board and the next pulse to the next board and what is told now. The same pulses give the same notices: an alert is told when it has
    /// held for long enough, again after `RepeatEvery`, and when it is over; what the limit holds back is told when there is room again
    /// if it still matters, and counted in any case.
    let step (policy: AlertPolicy) (board: AlertBoard) (pulse: Pulse) : AlertBoard * AlertNotice list =
        let now = pulse.At

        // Counts begin anew with the collector.
        let known =
            if board.Started = pulse.Started then
                board.Samples
            else
                Map.empty

        let samples =
            Map.ofList [
                for watch in policy.Watches do
                    match windowOf watch.Rule with
                    | ValueNone -> ()
                    | ValueSome window ->
                        let rule = name watch.Rule

                        rule,
                        Map.tryFind rule known
                        |> Option.defaultValue []
                        |> remember window (sample watch.Rule pulse)
            ]

        let seen =
            Map.ofList [
                for watch in policy.Watches do
                    let rule = name watch.Rule
                    let mine = Map.tryFind rule samples |> Option.defaultValue []

                    for reading in readings mine pulse watch.Rule do
                        (rule, reading.Id), (watch, reading)
            ]

        let alerts =
            Map.ofList [
                for KeyValue(id, (watch, reading)) in seen do
                    match judge now watch reading (Map.tryFind id board.Alerts) with
                    | ValueSome alert -> id, alert
                    | ValueNone -> ()

                // A market that is not collected any more, for one.
                for KeyValue(id, alert) in board.Alerts do
                    if not (seen.ContainsKey id) then
                        match ended alert with
                        | ValueSome alert -> id, alert
                        | ValueNone -> ()
            ]

        let sent =
            board.Sent |> List.filter (fun at -> at > now - policy.Window && at <= now)

        let place =
            policy.Watches
            |> List.mapi (fun place watch -> name watch.Rule, place)
            |> Map.ofList

        let placeOf (rule, _) =
            Map.tryFind rule place |> Option.defaultValue -1

        // What is new comes before what is repeated.
        let due =
            Map.toList alerts
            |> List.filter (fun (_, alert) -> isDue policy now alert)
            |> List.sortBy (fun (id, alert) -> isRepeated alert, placeOf id, id)

        let room = max 0 (policy.MaxNotices - sent.Length)
        let told, held = due |> List.splitAt (min room due.Length)

        let withheld =
            board.Withheld
            + (held |> List.filter (fun (_, alert) -> not alert.IsHeld) |> List.length)

        let notices =
            match told |> List.map (fun (_, alert) -> notice pulse alert) with
            | [] when withheld > 0 && room > 0 -> [ summary pulse ]
            | notices -> notices

        let afterwards =
            let heldBack =
                (alerts, held)
                ||> List.fold (fun alerts (id, alert) -> Map.add id { alert with IsHeld = true } alerts)

            (heldBack, told)
            ||> List.fold (fun alerts (id, alert) ->
                if alert.Phase = AlertPhase.Ended then
                    Map.remove id alerts
                else
                    Map.add
                        id
                        {
                            alert with
                                Told = ValueSome now
                                IsHeld = false
                        }
                        alerts)

        {
            Started = pulse.Started
            Samples = samples
            Alerts = afterwards
            Sent = List.map (fun _ -> now) notices @ sent
            Withheld = if notices.IsEmpty then withheld else 0
        },
        notices
        |> List.mapi (fun i notice ->
            if i = notices.Length - 1 then
                { notice with Withheld = withheld }
            else
                notice)

    /// What fires now, in the order of rules and subjects.
    let firing (board: AlertBoard) : Alert list =
        board.Alerts
        |> Map.toList
        |> List.map snd
        |> List.filter (fun alert -> alert.Phase = AlertPhase.Firing)

    /// `firing` or `resolved`.
    let state (notice: AlertNotice) =
        if notice.IsResolved then "resolved" else "firing"

    /// A notice in one line for a person: whether it begins, goes on or is over, and what it is about.
    let text (notice: AlertNotice) =
        let lasted = span (notice.At - notice.Since)

        let about =
            if notice.Subject = "" then
                notice.Rule
            else
                $"{notice.Rule} ({notice.Subject})"

        let said =
            if notice.IsResolved then
                $"resolved after {lasted}: {about}: it was: {notice.Message}"
            elif notice.IsRepeated then
                $"still firing after {lasted}: {about}: {notice.Message}"
            else
                $"firing: {about}: {notice.Message}"

        let more =
            match notice.Withheld with
            | 0 -> ""
            | 1 -> " (1 more notice was held back: too many at once)"
            | count -> $" ({count} more notices were held back: too many at once)"

        said + more
