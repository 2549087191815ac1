/// What every decoder of descriptions needs: objects by the general reader (descriptions are not a hot path), with members that may be
/// missing, null, or a number where a text is usual.
[<RequireQualifiedAccess>]
module internal Tributary.Element

open System
open System.Text
open System.Text.Json
open Tributary

let tryMember (name: string) (element: JsonElement) =
    match element.TryGetProperty name with
    | true, value when value.ValueKind <> JsonValueKind.Null -> ValueSome value
    | _ -> ValueNone

/// A text or a number as a text; empty when missing.
let text name element =
    match tryMember name element with
    | ValueSome value when value.ValueKind = JsonValueKind.String || value.ValueKind = JsonValueKind.Number ->
        string (value.ToString())
    | _ -> ""

let isTrue name element =
    match tryMember name element with
    | ValueSome value ->
        value.ValueKind = JsonValueKind.True
        || value.ValueKind = JsonValueKind.String && value.GetString() = "true"
    | ValueNone -> false

/// The first of several members that holds a number, in millionths.
let number names element =
    names
    |> List.tryPick (fun name ->
        let mutable value, rounded = 0L, false
        let digits = Encoding.UTF8.GetBytes(text name element)

        match Fixed.parse (ReadOnlySpan digits) &value &rounded with
        | NumberFault.None -> Some value
        | _ -> None)
    |> function
        | Some value -> ValueSome value
        | None -> ValueNone

let moment names element =
    names
    |> List.tryPick (fun name ->
        let mutable value = Instant.ofMicros 0L

        if Instant.tryIso (ReadOnlySpan(Encoding.UTF8.GetBytes(text name element))) &value then
            Some value
        else
            None)
    |> function
        | Some value -> ValueSome value
        | None -> ValueNone

/// Reads an object with the general reader (descriptions are not a hot path) and hands it on. Its strings are undone only when
/// they are asked for, so what is wrong with them shows then.
let reading
    (take: JsonElement -> string -> string | null)
    (json: ReadOnlySpan<byte>)
    (at: byref<int>)
    : string | null =
    let start = at

    if Json.peek json &at <> '{'B then
        "an object was expected"
    elif not (Json.skip json &at) then
        "the JSON breaks off or is malformed"
    else
        let raw = json.Slice(start, at - start)

        try
            let mutable reader = Utf8JsonReader raw
            use document = JsonDocument.ParseValue &reader
            take document.RootElement (Encoding.UTF8.GetString(raw).Trim())
        with
        | :? JsonException
        | :? InvalidOperationException -> "a text or a list inside a text is malformed"
