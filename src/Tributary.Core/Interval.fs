namespace Tributary

open System

/// A stretch of time: from `Since` on, to before `Until`.
[<Struct>]
type Interval = {
    Since: Instant
    Until: Instant
} with

    /// `2026-07-24T00:00:16.000000Z to 2026-07-25T00:00:00.000000Z`
    override this.ToString() = $"{this.Since} to {this.Until}"

/// Sets of moments, as intervals in order that neither touch nor overlap.
[<RequireQualifiedAccess>]
module Intervals =
    let none: Interval list = []

    /// The moments of any intervals, in any order; those without a moment fall away.
    let ofSeq (intervals: Interval seq) : Interval list =
        let grow done' next =
            match done' with
            | last :: earlier when next.Since <= last.Until ->
                {
                    last with
                        Until = max last.Until next.Until
                }
                :: earlier
            | _ -> next :: done'

        intervals
        |> Seq.filter (fun one -> one.Since < one.Until)
        |> Seq.sortBy _.Since
        |> Seq.fold grow []
        |> List.rev

    let union (one: Interval list) (other: Interval list) = ofSeq (List.append one other)

    /// One more interval.
    let add since until known =
        union [ { Since = since; Until = until } ] known

    /// The moments of the first set that are not in the second.
    let rec except (taken: Interval list) (from: Interval list) : Interval list =
        match from, taken with
        | [], _ -> []
        | _, [] -> from
        | first :: _, away :: others when away.Until <= first.Since -> except others from
        | first :: rest, away :: _ when first.Until <= away.Since -> first :: except taken rest
        | first :: rest, away :: _ ->
            let after = { first with Since = away.Until }

            let left =
                if after.Since < after.Until then
                    except taken (after :: rest)
                else
                    except taken rest

            if first.Since < away.Since then
                { first with Until = away.Since } :: left
            else
                left

    /// The moments that are in both.
    let common (one: Interval list) (other: Interval list) : Interval list = except (except other one) one

    /// Whether all moments of the interval are in the set; an interval without a moment is in every set.
    let covers (interval: Interval) (known: Interval list) =
        interval.Since >= interval.Until || List.isEmpty (except known [ interval ])

    /// How long they are together.
    let length (known: Interval list) =
        known
        |> List.sumBy (fun one -> (one.Until.Micros - one.Since.Micros) * 10L)
        |> TimeSpan
