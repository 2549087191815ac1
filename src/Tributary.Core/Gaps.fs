namespace Tributary

/// What is known of one flow (a token's books, a market's trades) of one collector: the last moment that was proven good, and
/// the hole that is open since then, if any.
[<Struct>]
type Track = {
    /// Nothing before the first good poll.
    Good: Instant voption
    /// The cause of the hole that is open since `Good`, and the last poll that was missed in it.
    Broken: (struct (Cause * Instant)) voption
    /// Where the unbroken account began.
    Since: Instant voption
}

/// When a hole begins, when it ends, and what is written down about it. A hole that began before anything was ever good begins
/// at the moment of the first failed poll.
[<RequireQualifiedAccess>]
module Gaps =
    let untouched: Track = {
        Good = ValueNone
        Broken = ValueNone
        Since = ValueNone
    }

    /// A flow that is read from `since` on: all before it is not asked for, and all after it is yet to be read.
    let follow (since: Instant) : Track = {
        Good = ValueSome since
        Broken = ValueNone
        Since = ValueSome since
    }

    /// A collector that starts again knows from its checkpoint up to when all was good: since then it was stopped, unless an
    /// earlier hole was still open then.
    let resume (since: Instant) (good: Instant) (openHole: Cause voption) : Track = {
        Good = ValueSome good
        Broken = ValueSome(struct (ValueOption.defaultValue Cause.Stopped openHole, good))
        Since = ValueSome since
    }

    /// The hole that is open, if one is: its beginning and its cause.
    let hole (track: Track) : (struct (Instant * Cause)) voption =
        match track.Broken, track.Good with
        | ValueSome(struct (cause, _)), ValueSome since -> ValueSome(struct (since, cause))
        | _ -> ValueNone

    /// A due poll did not bring what it should. Answers the hole's beginning and cause when it has just opened; a hole that is
    /// open already keeps its first cause.
    let missed
        (cause: Cause)
        (at: Instant)
        (track: Track)
        : struct (Track * (struct (Instant * Cause)) voption) =
        match track.Broken, track.Good with
        | ValueSome(struct (first, _)), _ ->
            struct ({
                        track with
                            Broken = ValueSome(struct (first, at))
                    },
                    ValueNone)
        | ValueNone, ValueSome good ->
            struct ({
                        track with
                            Broken = ValueSome(struct (cause, at))
                    },
                    ValueSome(struct (good, cause)))
        | ValueNone, ValueNone ->
            // Nothing was good yet: the first poll that failed is where our account begins.
            struct ({
                        Good = ValueSome at
                        Broken = ValueSome(struct (cause, at))
                        Since = ValueSome at
                    },
                    ValueSome(struct (at, cause)))

    /// A poll was good at this moment. Answers the hole that it ends, if one was open, and the hole that begins with it, if a
    /// poll was missed after it: an answer may be on its way while the next poll falls due and is skipped.
    let good
        (at: Instant)
        (track: Track)
        : struct (Track * (struct (Instant * Cause)) voption * (struct (Instant * Cause)) voption) =
        let next = {
            Good = ValueSome at
            Broken = ValueNone
            Since = ValueSome(ValueOption.defaultValue at track.Since)
        }

        match track.Broken with
        | ValueSome(struct (cause, last)) when last > at ->
            struct ({ next with Broken = track.Broken }, hole track, ValueSome(struct (at, cause)))
        | _ -> struct (next, hole track, ValueNone)
