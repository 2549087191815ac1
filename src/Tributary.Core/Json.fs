namespace Tributary

open System
open System.Buffers
open System.Numerics
open System.Runtime.CompilerServices
open System.Runtime.InteropServices
open System.Runtime.Intrinsics
open System.Text

/// Reads one row of a JSON array at `at` into the batch. Answers null when it is good, else the reason why not; the walk
/// (`Json.rows`) then takes back what was added, keeps the row's bytes and goes on behind it.
type RowReader = delegate of json: ReadOnlySpan<byte> * at: byref<int> * batch: Batch -> string | null

/// The steps that every decoder shares: a cursor (`at`) over UTF-8 JSON. Each step skips white space before it, answers whether
/// the bytes were what it reads, and leaves the cursor behind them (or anywhere, when they were not). Nothing here allocates but
/// where it says so. Strings stay raw: between the quotes, escapes not undone.
[<RequireQualifiedAccess>]
module Json =
    /// Deeper nesting than this is refused: no exchange sends it, and a reader must not be made to run out of stack.
    [<Literal>]
    let MaxDepth = 64

    // A string ends at a quote; an escape needs care; a control character is not allowed.
    let private stops =
        SearchValues.Create(ReadOnlySpan [| yield '"'B; yield '\\'B; for control in 0uy .. 31uy -> control |])

    /// Which of the 32 bytes here may end a string, one bit each, the first one lowest.
    let inline internal stopsAt (json: ReadOnlySpan<byte>) (at: int) =
        let bytes = Vector256.LoadUnsafe(&MemoryMarshal.GetReference json, unativeint at)

        Vector256.ExtractMostSignificantBits(
            Vector256.Equals(bytes, Vector256.Create '"'B)
            ||| Vector256.Equals(bytes, Vector256.Create '\\'B)
            ||| Vector256.LessThan(bytes, Vector256.Create 32uy)
        )

    /// How far the first byte is that may end a string; negative when there is none. Hot: a row of a page has dozens of strings, most
    /// of them short, and a call into a general search costs more than the search. 32 bytes at a time, the rest by that search.
    let private stop (json: ReadOnlySpan<byte>) (at: int) =
        let mutable i, found = at, -1

        while found < 0 && i + Vector256<byte>.Count <= json.Length do
            let bits = stopsAt json i

            if bits = 0u then
                i <- i + Vector256<byte>.Count
            else
                found <- i + BitOperations.TrailingZeroCount bits - at

        if found >= 0 then
            found
        else
            match json.Slice(i).IndexOfAny stops with
            | -1 -> -1
            | rest -> i + rest - at

    let inline private isSpace (b: byte) =
        b = ' 'B || b = '\n'B || b = '\r'B || b = '\t'B

    /// The eight bytes from here on as one number, the first one lowest. The caller knows that there are as many.
    let inline internal eight (json: ReadOnlySpan<byte>) (at: int) =
        Unsafe.ReadUnaligned<uint64>(&Unsafe.Add(&MemoryMarshal.GetReference json, at))

    /// These bytes are next.
    let inline internal isAt (json: ReadOnlySpan<byte>) (at: int) (word: byte[]) =
        json.Length - at >= word.Length
        && json.Slice(at, word.Length).SequenceEqual(ReadOnlySpan word)

    let space (json: ReadOnlySpan<byte>) (at: byref<int>) =
        while at < json.Length && isSpace json[at] do
            at <- at + 1

    /// The next byte that is not white space, without taking it; zero at the end.
    let peek (json: ReadOnlySpan<byte>) (at: byref<int>) =
        if at < json.Length && json[at] > ' 'B then
            json[at]
        else
            space json &at
            if at < json.Length then json[at] else 0uy

    /// Takes this byte.
    let take (json: ReadOnlySpan<byte>) (at: byref<int>) (b: byte) =
        if peek json &at = b then
            at <- at + 1
            true
        else
            false

    /// A string: its raw content lies at `start`, `length` bytes long.
    let string (json: ReadOnlySpan<byte>) (at: byref<int>) (start: byref<int>) (length: byref<int>) =
        if take json &at '"'B then
            start <- at
            let mutable inside, ok = true, true

            while inside do
                let next = stop json at

                if next < 0 then
                    ok <- false
                    inside <- false
                    at <- json.Length
                else
                    at <- at + next

                    if json[at] = '"'B then
                        length <- at - start
                        at <- at + 1
                        inside <- false
                    elif json[at] = '\\'B && at + 1 < json.Length then
                        at <- at + 2
                    else
                        ok <- false
                        inside <- false

            ok
        else
            false

    let inline internal isNumberByte (b: byte) =
        (b >= '0'B && b <= '9'B)
        || b = '-'B
        || b = '.'B
        || b = '+'B
        || (b ||| 0x20uy) = 'e'B

    /// A number's text; whether it is one is for `Fixed` or `Instant` to say.
    let number (json: ReadOnlySpan<byte>) (at: byref<int>) (start: byref<int>) (length: byref<int>) =
        let first = peek json &at

        if (first >= '0'B && first <= '9'B) || first = '-'B then
            start <- at

            while at < json.Length && isNumberByte json[at] do
                at <- at + 1

            length <- at - start
            true
        else
            false

    let internal literal (json: ReadOnlySpan<byte>) (at: byref<int>) (word: ReadOnlySpan<byte>) =
        if MemoryExtensions.StartsWith(json.Slice at, word) then
            at <- at + word.Length
            true
        else
            false

    /// An identity: a string, or a whole number (an exponent would have lost digits).
    let identity (json: ReadOnlySpan<byte>) (at: byref<int>) (start: byref<int>) (length: byref<int>) =
        if peek json &at = '"'B then
            string json &at &start &length
        else
            number json &at &start &length
            && json.Slice(start, length).IndexOfAnyExceptInRange('0'B, '9'B) < 0

    let private ``null`` = "null"B
    let internal ``true`` = "true"B
    let internal ``false`` = "false"B

    /// Takes a null, if one is next.
    let takeNull (json: ReadOnlySpan<byte>) (at: byref<int>) =
        peek json &at = 'n'B && literal json &at (ReadOnlySpan ``null``)

    /// A number or a quoted number: the text of either. A null or an empty string has no text, which is not a failure.
    let numeral (json: ReadOnlySpan<byte>) (at: byref<int>) (start: byref<int>) (length: byref<int>) =
        match peek json &at with
        | '"'B -> string json &at &start &length
        | 'n'B ->
            length <- 0
            takeNull json &at
        | _ -> number json &at &start &length

    /// A string, or a null as an empty one.
    let textOrNull (json: ReadOnlySpan<byte>) (at: byref<int>) (start: byref<int>) (length: byref<int>) =
        if peek json &at = 'n'B then
            length <- 0
            takeNull json &at
        else
            string json &at &start &length

    /// true or false (also as strings); a null leaves the value as it is.
    let boolean (json: ReadOnlySpan<byte>) (at: byref<int>) (value: byref<bool>) =
        match peek json &at with
        | 't'B ->
            value <- true
            literal json &at (ReadOnlySpan ``true``)
        | 'f'B ->
            value <- false
            literal json &at (ReadOnlySpan ``false``)
        | 'n'B -> takeNull json &at
        | '"'B ->
            at <- at + 1
            value <- literal json &at (ReadOnlySpan ``true``)
            (value || literal json &at (ReadOnlySpan ``false``)) && take json &at '"'B
        | _ -> false

    /// Any one value that is not a plain string.
    let private skipAny (json: ReadOnlySpan<byte>) (at: byref<int>) =
        // Bit d of `objects` says whether the container at depth d is an object.
        let mutable objects = 0UL
        let mutable depth = 0
        let mutable ok, ``done`` = true, false
        let mutable start, length = 0, 0

        while ok && not ``done`` do
            // One value …
            let mutable opened = false

            match peek json &at with
            | '"'B -> ok <- string json &at &start &length
            | '{'B
            | '['B as bracket ->
                at <- at + 1
                let isObject = bracket = '{'B

                if take json &at (if isObject then '}'B else ']'B) then
                    ()
                elif depth = MaxDepth - 1 then
                    ok <- false
                else
                    depth <- depth + 1

                    objects <-
                        if isObject then
                            objects ||| (1UL <<< depth)
                        else
                            objects &&& ~~~(1UL <<< depth)

                    opened <- true

                    if isObject then
                        ok <- string json &at &start &length && take json &at ':'B
            | 't'B -> ok <- literal json &at (ReadOnlySpan ``true``)
            | 'f'B -> ok <- literal json &at (ReadOnlySpan ``false``)
            | 'n'B -> ok <- literal json &at (ReadOnlySpan ``null``)
            | _ ->
                // Digits, a sign, a point, an exponent: a shape that a number can have.
                ok <- number json &at &start &length && json[at - 1] >= '0'B && json[at - 1] <= '9'B

            // … and what follows it: a comma and the next value, or the ends of containers.
            let mutable closing = ok && not opened

            while closing do
                if depth = 0 then
                    ``done`` <- true
                    closing <- false
                else
                    let isObject = objects &&& (1UL <<< depth) <> 0UL

                    match peek json &at with
                    | ','B ->
                        at <- at + 1
                        closing <- false

                        if isObject then
                            ok <- string json &at &start &length && take json &at ':'B
                    | '}'B when isObject ->
                        at <- at + 1
                        depth <- depth - 1
                    | ']'B when not isObject ->
                        at <- at + 1
                        depth <- depth - 1
                    | _ ->
                        ok <- false
                        closing <- false

        ok

    /// Any one value, whatever it is. Strict about structure, indifferent to what it says.
    let skip (json: ReadOnlySpan<byte>) (at: byref<int>) =
        if at < json.Length && json[at] = '"'B then
            let mutable start, length = 0, 0
            string json &at &start &length
        else
            skipAny json &at

    /// The key of the next member of an object, whose `{` is taken: false at its `}` (taken) or at a fault (`ok` is then false).
    /// `first` says whether it is the first member.
    let ``member``
        (json: ReadOnlySpan<byte>)
        (at: byref<int>)
        (first: byref<bool>)
        (start: byref<int>)
        (length: byref<int>)
        (ok: byref<bool>)
        =
        match peek json &at with
        | '}'B ->
            at <- at + 1
            false
        | ','B when not first ->
            at <- at + 1
            ok <- string json &at &start &length && take json &at ':'B
            ok
        | '"'B when first ->
            first <- false
            ok <- string json &at &start &length && take json &at ':'B
            ok
        | _ ->
            ok <- false
            false

    /// Moves to the next element of an array whose `[` is taken: false at its `]` (taken) or at a fault (`ok` is then false).
    let element (json: ReadOnlySpan<byte>) (at: byref<int>) (first: byref<bool>) (ok: byref<bool>) =
        match peek json &at with
        | ']'B ->
            at <- at + 1
            false
        | ','B when not first ->
            at <- at + 1
            true
        | 0uy ->
            ok <- false
            false
        | _ when first ->
            first <- false
            true
        | _ ->
            ok <- false
            false

    /// Undoes the escapes of a raw string. Allocates. Nothing when they are wrong or the bytes are not UTF-8.
    let tryText (raw: ReadOnlySpan<byte>) : string voption =
        if raw.IndexOf '\\'B < 0 then
            if Unicode.Utf8.IsValid raw then
                ValueSome(Encoding.UTF8.GetString raw)
            else
                ValueNone
        else
            let quoted = Array.zeroCreate (raw.Length + 2)
            quoted[0] <- '"'B
            raw.CopyTo(Span(quoted, 1, raw.Length))
            quoted[quoted.Length - 1] <- '"'B

            try
                let mutable reader = System.Text.Json.Utf8JsonReader(ReadOnlySpan quoted)

                if reader.Read() then
                    match reader.GetString() with
                    | null -> ValueNone
                    | text -> ValueSome text
                else
                    ValueNone
            with
            | :? System.Text.Json.JsonException
            | :? InvalidOperationException -> ValueNone

    /// The end of a text whose every row was read: nothing but white space may follow. The fault otherwise.
    let ``end`` (json: ReadOnlySpan<byte>) (at: int) =
        let mutable at = at

        if peek json &at = 0uy && at >= json.Length then
            ValueNone
        else
            ValueSome(Fault.Undecodable(at, "something follows the end of the JSON"))

    /// Reads the value at `at` as one row. Bytes that the reader refuses are kept as a rejection with the reason; only where the
    /// JSON itself breaks off is the answer a fault.
    let private oneRow
        (json: ReadOnlySpan<byte>)
        (at: byref<int>)
        (source: string)
        valid
        (reader: RowReader)
        (batch: Batch)
        =
        space json &at
        let start = at
        let mark = batch.Mark()
        let mutable reason = reader.Invoke(json, &at, batch)

        if
            not valid
            && at > start
            && not (Unicode.Utf8.IsValid(json.Slice(start, at - start)))
        then
            reason <- "not valid UTF-8"

        match reason with
        | null ->
            let origin = { Start = start; Length = at - start }

            while batch.TradeOrigins.Count < batch.Trades.Count do
                batch.TradeOrigins.Add &origin

            while batch.BookOrigins.Count < batch.Books.Count do
                batch.BookOrigins.Add &origin

            ValueNone
        | reason ->
            batch.Rollback mark
            at <- start

            if skip json &at then
                batch.Rejections.Add {
                    Exchange = batch.Exchange
                    Source = source
                    Offset = start
                    Reason = reason
                    Bytes = json.Slice(start, at - start).ToArray()
                    Received = batch.Received
                }

                ValueNone
            else
                ValueSome(Fault.Undecodable(at, "the JSON breaks off or is malformed"))

    /// Reads one bare row.
    let row (json: ReadOnlySpan<byte>) (at: byref<int>) source reader batch : Fault voption =
        oneRow json &at source (Unicode.Utf8.IsValid json) reader batch

    /// Reads an array row by row: a bad row costs no good one.
    let rows (json: ReadOnlySpan<byte>) (at: byref<int>) source reader batch : Fault voption =
        if not (take json &at '['B) then
            ValueSome(Fault.Undecodable(at, "a list was expected"))
        else
            let valid = Unicode.Utf8.IsValid json
            let mutable first, ok = true, true
            let mutable fault = ValueNone

            while fault.IsNone && element json &at &first &ok do
                fault <- oneRow json &at source valid reader batch

            if fault.IsNone && not ok then
                ValueSome(Fault.Undecodable(at, "the JSON breaks off or is malformed"))
            else
                fault

    /// Reads a list row by row, or one bare object as a list of one.
    let oneOrMany (json: ReadOnlySpan<byte>) (at: byref<int>) source reader batch : Fault voption =
        if peek json &at = '{'B then
            row json &at source reader batch
        else
            rows json &at source reader batch

/// Where a reader stands among the members of an object.
[<Struct; NoComparison; NoEquality>]
type MemberWalk =
    /// The member at hand: its place among the names, or `Members.Unknown`.
    val mutable Index: int
    /// All was as it must be so far. A reader clears it when it cannot read the value of the member at hand.
    val mutable Ok: bool
    val mutable internal IsFirst: bool
    // The member that is likely to come, and the place of the one that came last.
    val mutable internal Expected: int
    val mutable internal Last: int

/// Names of the members of an object, in the order in which an exchange usually sends them: then finding one is a single
/// comparison with the bytes that should come. Any other order is found as well, with the same result; and it is expected the next time.
[<Sealed>]
type Members(names: string list) =
    let keys =
        names |> List.map (fun name -> Encoding.UTF8.GetBytes name) |> Array.ofList

    let usual =
        names
        |> List.map (fun name -> Encoding.UTF8.GetBytes $"\"{name}\":")
        |> Array.ofList

    // Which name came last behind each, the first place for the one that began: a hint, which whoever reads may change for all.
    let behind = Array.init (names.Length + 1) id

    // Which names are so long: most keys that are none of them are told by that.
    let ofLength =
        let longest =
            if keys.Length = 0 then
                0
            else
                keys |> Array.map _.Length |> Array.max

        Array.init (longest + 1) (fun length -> [|
            for i in 0 .. keys.Length - 1 do
                if keys[i].Length = length then
                    i
        |])

    let find (key: ReadOnlySpan<byte>) =
        if key.Length >= ofLength.Length then
            Members.Unknown
        else
            let likely = ofLength[key.Length]
            let mutable i = 0

            while i < likely.Length && not (key.SequenceEqual(ReadOnlySpan keys[likely[i]])) do
                i <- i + 1

            if i < likely.Length then likely[i] else Members.Unknown

    /// Takes the beginning of an object.
    static member Begin(json: ReadOnlySpan<byte>, at: byref<int>) : MemberWalk =
        let mutable walk = MemberWalk()
        walk.IsFirst <- true
        walk.Ok <- Json.take json &at '{'B
        walk

    /// Takes the key of the next member, its colon and the comma before it; the reader then takes its value. False at the end of the
    /// object, which is taken, and when something was not as it must be (`walk.Ok`).
    member _.Next(json: ReadOnlySpan<byte>, at: byref<int>, walk: byref<MemberWalk>) : bool =
        let expected = if walk.IsFirst then behind[0] else walk.Expected
        let start = if walk.IsFirst then at else at + 1

        if not walk.Ok then
            false
        elif
            expected < usual.Length
            && start + usual[expected].Length <= json.Length
            && (walk.IsFirst || json[at] = ','B)
            && json.Slice(start, usual[expected].Length).SequenceEqual(ReadOnlySpan usual[expected])
        then
            at <- start + usual[expected].Length
            walk.IsFirst <- false
            walk.Index <- expected
            walk.Last <- expected + 1
            walk.Expected <- behind[expected + 1]
            true
        else
            let mutable keyStart, keyLength = 0, 0

            if Json.``member`` json &at &walk.IsFirst &keyStart &keyLength &walk.Ok then
                walk.Index <- find (json.Slice(keyStart, keyLength))

                if walk.Index >= 0 then
                    behind[walk.Last] <- walk.Index
                    walk.Last <- walk.Index + 1
                    walk.Expected <- behind[walk.Last]

                true
            else
                false

    /// What a message calls a member.
    member _.Name(index: int) =
        if index >= 0 then names[index] else "a member"

    /// A member that is none of the names.
    static member Unknown = -1
