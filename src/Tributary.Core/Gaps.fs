namespace Tributary

/// What is known of one flow (a token's books, a market's trades) of one collector: the last moment that was proven good, and
/// the hole that is open since then, if any.
[<Struct>]
type Track = {
    /// Nothing before the first good poll.
    Good: Instant voption
    /// The cause of the hole that is open since `Good`.
    Broken: Cause voption
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
        Broken = ValueSome(ValueOption.defaultValue Cause.Stopped openHole)
        Since = ValueSome since
    }

    /// A due poll did not bring what it should. Answers the hole's beginning and cause when it has just opened; a hole that is
    /// open already stays as it is, with its first cause.
    let missed
        (cause: Cause)
        (at: Instant)
        (track: Track)
        : struct (Track * (struct (Instant * Cause)) voption) =
        match track.Broken, track.Good with
        | ValueSome _, _ -> struct (track, ValueNone)
        | ValueNone, ValueSome good ->
            struct ({ track with Broken = ValueSome cause }, ValueSome(struct (good, cause)))
        | ValueNone, ValueNone ->
            // Nothing was good yet: the first poll that failed is where our account begins.
            struct ({
                        Good = ValueSome at
                        Broken = ValueSome cause
                        Since = ValueSome at
                    },
                    ValueSome(struct (at, cause)))

    /// A poll was good. Answers the hole that it ends, if one was open.
    let good (at: Instant) (track: Track) : struct (Track * (struct (Instant * Cause)) voption) =
        let ended =
            match track.Broken, track.Good with
            | ValueSome cause, ValueSome since -> ValueSome(struct (since, cause))
            | _ -> ValueNone

        struct ({
                    Good = ValueSome at
                    Broken = ValueNone
                    Since = ValueSome(ValueOption.defaultValue at track.Since)
                },
                ended)
