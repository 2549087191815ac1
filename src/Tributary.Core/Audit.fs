namespace Tributary

open System

/// So many fills, and what they come to.
[<Struct>]
type Sums = {
    Fills: int64
    /// Shares.
    Size: decimal
    /// Price times size, in units of the currency.
    Value: decimal
} with

    static member (+)(one: Sums, other: Sums) = {
        Fills = one.Fills + other.Fills
        Size = one.Size + other.Size
        Value = one.Value + other.Value
    }

[<RequireQualifiedAccess>]
module Sums =
    let none = { Fills = 0L; Size = 0m; Value = 0m }

    // Millionths squared of billions of units go beyond a decimal's 28 digits: what lies below a millionth is cut off first.
    let ofTally (tally: Tally) = {
        Fills = tally.Rows
        Size = (UInt128.op_Explicit tally.Size: decimal) / 1_000_000m
        Value =
            (Int128.op_Explicit (tally.Notional / Int128.op_Implicit 1_000_000L): decimal)
            / 1_000_000m
    }

/// What is stored of a market and a day (UTC), each source by itself: of one fill there may be a sighting in each.
type DayTally = {
    Api: Sums
    Stream: Sums
    /// The takers' own logs, which are comparable with the API.
    Chain: Sums
    /// The makers' logs, which are the same fills once more.
    Makers: Sums
    /// Fills that only the stream told of: they may never have settled.
    Unconfirmed: int64
    /// The sum of the ids of the sightings by the API and the chain, modulo 2^128: the same for the same rows, whatever their order.
    Digest: UInt128
}

[<RequireQualifiedAccess>]
module DayTally =
    let none = {
        Api = Sums.none
        Stream = Sums.none
        Chain = Sums.none
        Makers = Sums.none
        Unconfirmed = 0L
        Digest = UInt128.Zero
    }

    let add (one: DayTally) (other: DayTally) = {
        Api = one.Api + other.Api
        Stream = one.Stream + other.Stream
        Chain = one.Chain + other.Chain
        Makers = one.Makers + other.Makers
        Unconfirmed = one.Unconfirmed + other.Unconfirmed
        Digest = one.Digest + other.Digest
    }

    /// What a store says of one market and day.
    let ofTallies (tallies: Tally seq) : DayTally =
        (none, tallies)
        ||> Seq.fold (fun day tally ->
            let sums = Sums.ofTally tally

            let day =
                if tally.Source = Source.Stream then
                    day
                else
                    {
                        day with
                            Digest = day.Digest + tally.Digest
                    }

            match tally.Source with
            | Source.Stream -> {
                day with
                    Stream = day.Stream + sums
                    Unconfirmed = day.Unconfirmed + tally.Rows - tally.Linked
              }
            | Source.Chain when tally.IsMaker -> { day with Makers = day.Makers + sums }
            | Source.Chain -> { day with Chain = day.Chain + sums }
            | _ -> { day with Api = day.Api + sums })

/// Whether a day is known to be whole.
[<RequireQualifiedAccess>]
type DayVerdict =
    | Complete
    /// Something of it is stored or was read, and why that may not be all.
    | Degraded of reasons: string list
    /// Nothing of it was read.
    | Missing of reason: string

    override this.ToString() =
        match this with
        | Complete -> "complete"
        | Degraded reasons -> "degraded: " + String.concat "; " reasons
        | Missing reason -> $"missing: {reason}"

/// One day of a market, judged.
type AuditedDay = {
    /// Its beginning, UTC.
    Day: Instant
    /// The part of it that was judged: of the market's life, of what was asked about, and up to what was read.
    Judged: Interval
    Tally: DayTally
    /// Holes in the trades that overlap the part, those of the API's limits among them.
    Gaps: int
    Truncated: int
    Verdict: DayVerdict
    /// What the sources say differently, though it changes no verdict: the union is stored.
    Notes: string list
}

type AuditedMarket = {
    Market: Market
    Days: AuditedDay list
    Total: DayTally
}

/// Says of each day of a market whether all of its fills are stored. Nothing is complete that no source was read for that leaves nothing
/// out.
[<RequireQualifiedAccess>]
module Audit =
    let private aDay = TimeSpan.FromDays 1.0

    let private interval since until : Interval = { Since = since; Until = until }

    let private intervalsOf (gaps: Gap list) =
        gaps
        |> List.map (fun gap ->
            interval gap.Since (ValueOption.defaultValue (Instant.ofMicros Int64.MaxValue) gap.Until))
        |> Intervals.ofSeq

    let private date (at: Instant) =
        (Instant.toDateTimeOffset at).ToString "yyyy-MM-dd HH:mm:ss"

    let private years (span: TimeSpan) =
        $"older than %.0f{span.TotalDays / 365.0} years"

    /// What is known of a market's past, ready to judge days by.
    [<NoComparison; NoEquality>]
    type private Known = {
        /// Read from sources that leave nothing out, and all of it readable.
        Whole: Interval list
        /// By what a source that was read for it leaves out.
        Partly: (string * Interval list) list
        Truncated: Interval list
        /// Blocks that the chain's endpoint did not give.
        Refused: Interval list
        Unreadable: Interval list
        /// It was stored, and deleted when it was old.
        Expired: Interval list
        /// The chain was read, and met what nobody can read.
        Strange: Interval list
        StrangeCount: int64
        /// Before this a source that was read serves nothing.
        Horizon: (Instant * string) voption
        /// Read from any source.
        Read: Interval list
        Api: Interval list
        Chain: Interval list
    }

    let private knownOf
        (limits: SourceLimits list)
        (coverage: Coverage list)
        (gaps: Gap list)
        (now: Instant)
        =
        let history =
            gaps
            |> List.filter (fun gap -> gap.Stream = Stream.History && gap.Healed.IsNone)

        let truncated =
            history |> List.filter (fun gap -> gap.Cause = Cause.Truncated) |> intervalsOf

        let unreadable =
            history |> List.filter (fun gap -> gap.Cause = Cause.Undecodable) |> intervalsOf

        let expired =
            gaps
            |> List.filter (fun gap ->
                gap.Cause = Cause.Expired
                && (gap.Stream = Stream.Trades || gap.Stream = Stream.History)
                && gap.Healed.IsNone)
            |> intervalsOf

        let read = [
            for one in coverage do
                match limits |> List.tryFind (fun limit -> limit.Source = one.Source) with
                | Some limit -> limit, one
                | None -> ()
        ]

        let isChain (limit: SourceLimits) = limit.Source = "chain"
        let ofApi = read |> List.filter (fst >> isChain >> not)
        let ofChain = read |> List.filter (fst >> isChain)

        let all some =
            some |> List.collect (fun (_, one: Coverage) -> one.Read) |> Intervals.ofSeq

        let refused =
            history |> List.filter (fun gap -> gap.Cause = Cause.Refused) |> intervalsOf

        let sound =
            ofChain
            |> List.filter (fun (_, one) -> one.Unknown = 0L)
            |> all
            |> Intervals.except refused


        let wholeApi =
            ofApi
            |> List.filter (fun (limit, _) -> limit.Omits = "")
            |> all
            |> Intervals.except truncated

        {
            Whole =
                Intervals.union sound wholeApi
                |> Intervals.except unreadable
                |> Intervals.except expired
            Partly =
                ofApi
                |> List.filter (fun (limit, _) -> limit.Omits <> "")
                |> List.map (fun (limit, one) -> limit.Omits, one.Read)
            Truncated = truncated
            Refused = refused
            Unreadable = unreadable
            Expired = expired
            Strange = ofChain |> List.filter (fun (_, one) -> one.Unknown > 0L) |> all
            StrangeCount = ofChain |> List.sumBy (fun (_, one) -> one.Unknown)
            Horizon =
                ofApi
                |> List.filter (fun (_, one) -> not one.Read.IsEmpty)
                |> List.choose (fun (limit, _) ->
                    match limit.Horizon with
                    | ValueSome back -> Some(now - back + aDay + aDay, years back)
                    | ValueNone -> None)
                |> List.tryHead
                |> ValueOption.ofOption
            Read = all read
            Api = all ofApi
            Chain = all ofChain
        }

    let private verdict (known: Known) (judged: Interval) (hasRows: bool) : DayVerdict =
        let lacking = Intervals.except known.Whole [ judged ]

        if lacking.IsEmpty then
            DayVerdict.Complete
        else
            let mutable rest = lacking

            /// The part of what is left that these explain; it is explained then.
            let take (by: Interval list) =
                let part = Intervals.common rest by
                rest <- Intervals.except by rest
                part

            let seconds (part: Interval list) =
                let count = (Intervals.length part).TotalSeconds

                if count < 7_200.0 then
                    $"%.0f{count} s"
                else
                    $"%.1f{count / 3_600.0} h"

            let reasons = [
                match take known.Expired with
                | [] -> ()
                | part -> $"expired: older than it is kept ({seconds part})"

                match take known.Truncated with
                | [] -> ()
                | part -> $"truncated ({seconds part})"

                match take known.Refused with
                | [] -> ()
                | part -> $"blocks that the endpoint does not give ({seconds part})"

                match take known.Unreadable with
                | [] -> ()
                | part -> $"rows that cannot be read ({seconds part})"

                for omits, read in known.Partly do
                    match take read with
                    | [] -> ()
                    | _ -> omits

                match take known.Strange with
                | [] -> ()
                | _ -> $"{known.StrangeCount} logs of unknown layout on the chain"
            ]

            let isUnread =
                not rest.IsEmpty
                && reasons.IsEmpty
                && not hasRows
                && Intervals.length rest = judged.Until - judged.Since

            let old, rest =
                match known.Horizon with
                | ValueSome(horizon, words) ->
                    let before =
                        Intervals.common rest [ interval (Instant.ofMicros Int64.MinValue) horizon ]

                    (if before.IsEmpty then [] else [ words ]), Intervals.except before rest
                | ValueNone -> [], rest

            let unread =
                match rest with
                | [] -> []
                | [ one ] when one = judged -> [ "not read" ]
                | some -> [ $"not read from {date some.Head.Since} to {date (List.last some).Until}" ]

            match isUnread, old @ unread with
            | true, all -> DayVerdict.Missing(String.concat "; " all)
            | false, all -> DayVerdict.Degraded(reasons @ all)

    /// How far an audit goes: of the day that is still running, up to what was read of it. Days that are over and were not read are missing.
    let until
        (limits: SourceLimits list)
        (coverage: Coverage list)
        (described: Market)
        (now: Instant)
        : Instant =
        coverage
        |> List.filter (fun one ->
            one.Market = described.Market
            && limits |> List.exists (fun limit -> limit.Source = one.Source))
        |> List.collect _.Read
        |> List.map _.Until
        |> List.filter (fun read -> Tally.dayOf read = Tally.dayOf now)
        |> function
            | [] -> now
            | some -> List.max some

    /// Judges a market. `tallies` are by day; what lies outside of `wanted` is left out.
    let market
        (limits: SourceLimits list)
        (coverage: Coverage list)
        (gaps: Gap list)
        (tallies: Map<Instant, DayTally>)
        (wanted: Interval)
        (now: Instant)
        (described: Market)
        : AuditedMarket =
        let coverage = coverage |> List.filter (fun one -> one.Market = described.Market)
        let gaps = gaps |> List.filter (fun gap -> gap.Market = described.Market)
        let known = knownOf limits coverage gaps now

        let first =
            [
                match described.Start with
                | ValueSome start -> start
                | ValueNone -> ()
                match Map.tryFindKey (fun _ _ -> true) tallies with
                | Some day -> day
                | None -> ()
            ]
            |> List.sort
            |> List.tryHead
            |> Option.defaultValue (Tally.dayOf now)

        let until = until limits coverage described now

        let last =
            match described.ClosedAt with
            | ValueSome closed -> min closed until
            | ValueNone -> until

        let life = interval (max wanted.Since first) (min wanted.Until (max last first))

        let judge day : AuditedDay =
            let judged = interval (max day life.Since) (min (day + aDay) life.Until)
            let tally = tallies |> Map.tryFind day |> Option.defaultValue DayTally.none

            let overlap (gap: Gap) =
                gap.Since < judged.Until
                && (match gap.Until with
                    | ValueSome until -> until > judged.Since
                    | ValueNone -> true)

            let ofTrades =
                gaps
                |> List.filter (fun gap ->
                    (gap.Stream = Stream.Trades || gap.Stream = Stream.History)
                    && gap.Healed.IsNone
                    && overlap gap)

            {
                Day = day
                Judged = judged
                Tally = tally
                Gaps = ofTrades.Length
                Truncated = ofTrades |> List.filter (fun gap -> gap.Cause = Cause.Truncated) |> List.length
                Verdict = verdict known judged (tally <> DayTally.none)
                Notes = [
                    if Intervals.covers judged known.Api && Intervals.covers judged known.Chain then
                        match tally.Chain.Fills - tally.Api.Fills with
                        | 0L -> ()
                        | more when more > 0L -> $"{more} fills on the chain that the API does not show"
                        | fewer -> $"{-fewer} fills of the API that are not on the chain"

                    if tally.Unconfirmed > 0L then
                        $"{tally.Unconfirmed} fills that only the stream told of"
                ]
            }

        let days =
            if life.Since >= life.Until then
                []
            else
                Tally.dayOf life.Since
                |> List.unfold (fun day ->
                    if day < life.Until then
                        Some(judge day, day + aDay)
                    else
                        None)

        {
            Market = described
            Days = days
            Total = days |> List.fold (fun sum day -> DayTally.add sum day.Tally) DayTally.none
        }

    /// The same, when this keeps anything from being called complete.
    let doubting (reason: string) (audited: AuditedMarket) = {
        audited with
            Days =
                audited.Days
                |> List.map (fun day -> {
                    day with
                        Verdict =
                            match day.Verdict with
                            | DayVerdict.Complete -> DayVerdict.Degraded [ reason ]
                            | DayVerdict.Degraded reasons -> DayVerdict.Degraded(reasons @ [ reason ])
                            | DayVerdict.Missing _ -> day.Verdict
                })
    }

    let isComplete (audited: AuditedMarket list) =
        audited |> List.exists (fun one -> not one.Days.IsEmpty)
        && audited
           |> List.forall (fun one ->
               not one.Days.IsEmpty
               && one.Days |> List.forall (fun day -> day.Verdict = DayVerdict.Complete))

    /// Of all markets together.
    let digest (audited: AuditedMarket list) : UInt128 =
        audited |> List.fold (fun sum one -> sum + one.Total.Digest) UInt128.Zero
