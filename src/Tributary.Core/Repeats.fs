namespace Tributary

open System
open System.Collections.Generic

/// Of what is said again and again, the first few times within a span of time are said, and the others are counted. Of one kind of message
/// after another: a kind that is rare is never left out because of one that is frequent. Belongs to one thread at a time.
[<Sealed>]
type Repeats<'Kind when 'Kind: equality and 'Kind: not null>(most: int, span: TimeSpan) =
    // Kind → when its span began, how often it was said, how often it was not.
    let spans = Dictionary<'Kind, struct (Instant * int * int)>()

    /// Whether a message of this kind is said. What was left out before, in a span that is over, is to be taken first.
    member _.IsSaid(kind: 'Kind, now: Instant) : bool =
        match spans.TryGetValue kind with
        | true, struct (began, said, left) when said >= most ->
            spans[kind] <- struct (began, said, left + 1)
            false
        | true, struct (began, said, left) ->
            spans[kind] <- struct (began, said + 1, left)
            true
        | _ ->
            spans[kind] <- struct (now, 1, 0)
            true

    /// The kinds whose span is over, or all of them, each with how many were left out and in what time, and begins anew with them. Those of
    /// which none was left out are forgotten without a word.
    member _.Take(now: Instant, all: bool) : struct ('Kind * int * TimeSpan) list =
        let over = [
            for KeyValue(kind, struct (began, _, left)) in spans do
                if all || now - began >= span then
                    struct (kind, left, now - began)
        ]

        for struct (kind, _, _) in over do
            spans.Remove kind |> ignore

        over |> List.filter (fun struct (_, left, _) -> left > 0)
