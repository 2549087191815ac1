namespace Tributary

open System
open System.Collections.Generic
open System.Text

/// A JSON value as its bytes, told by the first of them.
[<Struct>]
type RawValue = {
    Json: ReadOnlyMemory<byte>
} with

    member this.First = if this.Json.IsEmpty then 0uy else this.Json.Span[0]
    member this.IsObject = this.First = '{'B
    member this.IsList = this.First = '['B
    member this.IsText = this.First = '"'B

/// An object's members by their names (escapes in names are not undone: no exchange sends any). Not for hot paths.
type RawObject = Dictionary<string, RawValue>

[<RequireQualifiedAccess>]
module RawValue =
    let private cut (json: ReadOnlyMemory<byte>) start until : RawValue = {
        Json = json.Slice(start, until - start)
    }

    /// The members of an object; nothing when it breaks off or is malformed.
    let membersOf (json: ReadOnlyMemory<byte>) : RawObject option =
        let bytes = json.Span
        let found = RawObject()
        let mutable at = 0
        let mutable first, ok = true, Json.take bytes &at '{'B
        let mutable start, length = 0, 0

        while ok && Json.``member`` bytes &at &first &start &length &ok do
            Json.space bytes &at
            let from = at
            ok <- Json.skip bytes &at

            if ok then
                found[Encoding.UTF8.GetString(bytes.Slice(start, length))] <- cut json from at

        if ok then Some found else None

    /// The elements of a list; nothing when it breaks off or is malformed.
    let elementsOf (json: ReadOnlyMemory<byte>) : RawValue list option =
        let bytes = json.Span
        let found = List<RawValue>()
        let mutable at = 0
        let mutable first, ok = true, Json.take bytes &at '['B

        while ok && Json.element bytes &at &first &ok do
            Json.space bytes &at
            let from = at
            ok <- Json.skip bytes &at

            if ok then
                found.Add(cut json from at)

        if ok then Some(List.ofSeq found) else None

    /// The content of a JSON string, escapes undone.
    let contentOf (value: RawValue) =
        if value.IsText && value.Json.Length >= 2 then
            Json.tryText (value.Json.Slice(1, value.Json.Length - 2).Span)
        else
            ValueNone

    /// A JSON value that stands inside a string.
    let inner (value: RawValue) =
        match contentOf value with
        | ValueSome text when
            text.AsSpan().TrimStart().StartsWith "{"
            || text.AsSpan().TrimStart().StartsWith "["
            ->
            let bytes = Encoding.UTF8.GetBytes text

            ValueSome {
                Json = ReadOnlyMemory(bytes).Trim(ReadOnlySpan " \r\n\t"B)
            }
        | _ -> ValueNone

/// What an object is told by: which members it has.
[<RequireQualifiedAccess>]
module RawObject =
    let has (members: RawObject) names =
        names |> List.forall members.ContainsKey

    let hasAny (members: RawObject) names =
        names |> List.exists members.ContainsKey

    /// It has these and no others.
    let isOnly (members: RawObject) names =
        members.Count = List.length names && has members names

    let isList (members: RawObject) name =
        match members.TryGetValue name with
        | true, value -> value.IsList
        | _ -> false

    /// A text's content; empty when it is not there, or is no text.
    let textOf (members: RawObject) name =
        match members.TryGetValue name with
        | true, value -> ValueOption.defaultValue "" (RawValue.contentOf value)
        | _ -> ""

    /// The members of a member that is an object.
    let inside (members: RawObject) name =
        match members.TryGetValue name with
        | true, value when value.IsObject -> RawValue.membersOf value.Json
        | _ -> None

    /// The member is a list that is empty, or whose first element is an object of which this holds.
    let isListOf (is: RawObject -> bool) (members: RawObject) name =
        match members.TryGetValue name with
        | true, list when list.IsList ->
            match RawValue.elementsOf list.Json with
            | Some [] -> true
            | Some(first :: _) -> first.IsObject && (RawValue.membersOf first.Json |> Option.exists is)
            | None -> false
        | _ -> false

    /// The first element of a list is an object with these members, or the list is empty.
    let holds (members: RawObject) name names =
        isListOf (fun inside -> has inside names) members name
