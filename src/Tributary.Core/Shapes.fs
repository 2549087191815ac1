/// What recorded values are, judged by their shape alone: by the exchanges themselves, whatever a recorder has wrapped around.
[<RequireQualifiedAccess>]
module Tributary.Shapes

open System
open Tributary

/// Names under which recorders keep what they received; under any other name only what decodes to rows is looked for.
let private wrappers =
    set [
        "raw"
        "data"
        "payload"
        "message"
        "msg"
        "event"
        "body"
        "response"
        "result"
        "content"
        "frame"
        "json"
        "record"
        "value"
    ]

/// Wrappers inside wrappers are looked into this deep.
let private deepest = 5

/// What a value is, and whose: the first of these exchanges that knows it. What an exchange itself sends is looked for before anything that
/// may be wrapped in it.
let recognise
    (exchanges: Collector list)
    (json: ReadOnlyMemory<byte>)
    : (struct (Collector * Shape)) voption =
    let plain kind =
        match exchanges with
        | first :: _ -> ValueSome(struct (first, Shape.Recognised kind))
        | [] -> ValueNone

    let known (members: RawObject) =
        exchanges
        |> List.tryPick (fun exchange ->
            match exchange.Recognise members with
            | ValueSome shape -> Some(struct (exchange, shape))
            | ValueNone -> None)
        |> ValueOption.ofOption

    let holding place values =
        match exchanges with
        | first :: _ -> ValueSome(struct (first, Shape.Holds(place, values)))
        | [] -> ValueNone

    let rec judge depth (value: RawValue) : (struct (Collector * Shape)) voption =
        match value.First with
        | '{'B ->
            match RawValue.membersOf value.Json with
            | None -> ValueNone
            | Some members when members.Count = 0 -> plain "empty object"
            | Some members ->
                match known members with
                | ValueSome found -> ValueSome found
                | ValueNone -> if depth > 0 then wrapped depth members else ValueNone
        | '['B ->
            match RawValue.elementsOf value.Json with
            | None -> ValueNone
            | Some [] -> plain "empty list"
            | Some elements -> if depth > 0 then listed depth elements else ValueNone
        | '"'B ->
            match RawValue.inner value, RawValue.contentOf value with
            | ValueSome content, _ when depth > 0 && (judge (depth - 1) content).IsSome ->
                holding "text" [ content.Json ]
            | _, ValueSome("PONG" | "PING" | "pong" | "ping") -> plain "keep-alive"
            | _, ValueSome "OK" -> plain "ok"
            | _ -> ValueNone
        | _ when
            value.Json.Length = 10
            && value.Json.Span.IndexOfAnyExceptInRange('0'B, '9'B) < 0
            ->
            plain "server time"
        | _ -> ValueNone

    /// A recorder's own object around one or several of an exchange's.
    and wrapped depth members =
        let kept = [
            for KeyValue(name, value) in members do
                let candidate = ValueOption.defaultValue value (RawValue.inner value)

                if candidate.IsObject || candidate.IsList then
                    match judge (depth - 1) candidate with
                    | ValueSome(struct (_, Shape.Recognised("empty list" | "empty object"))) -> ()
                    | ValueSome(struct (_, Shape.Recognised _)) when not (wrappers.Contains name) -> ()
                    | ValueSome _ -> name, candidate.Json
                    | ValueNone -> ()
        ]

        match kept with
        | [] -> ValueNone
        | _ ->
            let names = kept |> List.map (fun (name, _) -> $"'{name}'") |> String.concat ", "
            holding names (List.map snd kept)

    /// A list is judged element by element, because a frame may mix kinds. Numbers and texts beside the exchange's values (a
    /// recorder's own time) are passed over.
    and listed depth elements =
        let values =
            elements
            |> List.map (fun element -> ValueOption.defaultValue element (RawValue.inner element))
            |> List.filter (fun element -> element.IsObject || element.IsList)

        if values |> List.exists (fun value -> (judge (depth - 1) value).IsSome) then
            holding "list" (values |> List.map _.Json)
        else
            ValueNone

    judge deepest {
        Json = json.Trim(ReadOnlySpan " \r\n\t"B)
    }
