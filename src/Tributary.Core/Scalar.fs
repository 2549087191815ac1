namespace Tributary

open System
open System.Buffers.Text
open System.Numerics
open System.Runtime.CompilerServices
open System.Runtime.InteropServices
open System.Runtime.Intrinsics

type ScalarKind =
    | Null = 0uy
    | False = 1uy
    | True = 2uy
    | String = 3uy
    /// A number such as `-12.5`: no exponent, and no more than 18 digits, but for a zero before the point.
    | Plain = 4uy
    /// Any other number, or what begins as one.
    | Number = 5uy

/// A value of JSON that has no parts: what it is, and where it lies in the text that it was read from.
[<Struct; NoComparison; NoEquality>]
type Scalar =
    val mutable Kind: ScalarKind
    /// Of a string its content, escapes not undone.
    val mutable Start: int
    val mutable Length: int
    /// Of a plain number: how many digits are behind the point.
    val mutable Decimals: int

    member this.Slice: Slice = {
        Start = this.Start
        Length = this.Length
    }

/// Reads scalars, and what they say. A cursor moves as it does in `Json`; nothing here allocates.
[<RequireQualifiedAccess>]
module Scalar =
    [<Literal>]
    let private Width = 32

    /// Which of the 32 bytes here are no digits, one bit each, the first one lowest.
    let inline internal othersAt (text: byref<byte>) (at: int) =
        let bytes = Vector256.LoadUnsafe(&text, unativeint at)

        let digits = bytes - Vector256.Create '0'B

        ~~~(Vector256.ExtractMostSignificantBits(Vector256.LessThanOrEqual(digits, Vector256.Create 9uy)))

    /// A plain number has no more digits, but for a zero before the point.
    [<Literal>]
    let internal MostDigits = 18

    /// Digits are loaded eight at a time, the last one first: of what lies nearer to the beginning of a text nothing is plain.
    [<Literal>]
    let internal Margin = 8

    /// The end of the plain number that begins here, with all that may belong to it in the 34 bytes from here on; negative when it is none.
    /// What follows it may still belong to a number.
    let inline internal plainAt (text: byref<byte>) (at: int) (origin: int) (scalar: byref<Scalar>) =
        let from = if Unsafe.Add(&text, at) = '-'B then at + 1 else at
        let others = othersAt &text from
        let whole = BitOperations.TrailingZeroCount others
        let mutable over, decimals = from + whole, 0

        if Unsafe.Add(&text, over) = '.'B then
            let behind = BitOperations.TrailingZeroCount(others &&& (others - 1u))
            decimals <- behind - whole - 1
            // A point with nothing behind it is in no number.
            over <- if decimals = 0 then from else over + 1 + decimals

        if
            over > from
            && (whole + decimals <= MostDigits
                || decimals <= MostDigits && whole = 1 && Unsafe.Add(&text, from) = '0'B)
        then
            scalar.Kind <- ScalarKind.Plain
            scalar.Start <- origin + at
            scalar.Length <- over - at
            scalar.Decimals <- decimals
            over
        else
            -1

    let private numberAt (json: ReadOnlySpan<byte>) (at: int) (scalar: byref<Scalar>) =
        let mutable over = at
        scalar.Kind <- ScalarKind.Number

        if Json.number json &over &scalar.Start &scalar.Length then
            over
        else
            -1

    /// As `plainAt`, near the end of a text.
    let private lastAt (json: ReadOnlySpan<byte>) (at: int) (scalar: byref<Scalar>) =
        let mutable room = Vector512<byte>.Zero
        let bytes = MemoryMarshal.AsBytes(Span<Vector512<byte>> &room)
        json.Slice(at, min bytes.Length (json.Length - at)).CopyTo bytes
        let over = plainAt &(MemoryMarshal.GetReference bytes) 0 at &scalar
        if over < 0 then over else at + over

    let private stringAt (json: ReadOnlySpan<byte>) (at: int) (scalar: byref<Scalar>) =
        let mutable over = at

        if Json.string json &over &scalar.Start &scalar.Length then
            over
        else
            -1

    /// The end of the word that begins here, whose bytes these are; negative when it is none.
    let inline internal wordAt (bytes: uint64) (at: int) (origin: int) (scalar: byref<Scalar>) =
        let isTrue = uint32 bytes = 0x65757274u // "true"
        let isNull = uint32 bytes = 0x6C6C756Eu // "null"
        let isFalse = bytes &&& 0xFF_FFFF_FFFFUL = 0x65_736C_6166UL // "false"

        scalar.Kind <-
            if isTrue then ScalarKind.True
            elif isFalse then ScalarKind.False
            else ScalarKind.Null

        scalar.Start <- origin + at
        scalar.Length <- if isFalse then 5 else 4

        if isTrue || isFalse || isNull then
            at + scalar.Length
        else
            -1

    /// The end of the scalar that begins here; negative when something else does, or it is broken.
    let at (json: ReadOnlySpan<byte>) (at: int) (scalar: byref<Scalar>) : int =
        if at >= json.Length then
            -1
        elif json[at] = '"'B then
            scalar.Kind <- ScalarKind.String
            let start = at + 1

            let far =
                if start + Width <= json.Length then
                    BitOperations.TrailingZeroCount(Json.stopsAt json start)
                else
                    Width

            if far < Width && json[start + far] = '"'B then
                scalar.Start <- start
                scalar.Length <- far
                start + far + 1
            else
                stringAt json at &scalar
        elif json[at] - '0'B <= 9uy || json[at] = '-'B then
            let over =
                if at < Margin then
                    -1
                elif at + 2 + Width <= json.Length then
                    plainAt &(MemoryMarshal.GetReference json) at 0 &scalar
                else
                    lastAt json at &scalar

            if over >= 0 && (over = json.Length || not (Json.isNumberByte json[over])) then
                over
            else
                numberAt json at &scalar
        else
            let mutable bytes = 0UL
            let rest = json.Slice at

            rest.Slice(0, min 8 rest.Length).CopyTo(MemoryMarshal.AsBytes(Span<uint64> &bytes))

            wordAt bytes at 0 &scalar

    /// Takes a scalar; false when something else is next, or it is broken. As in `Json`, whether a number is one is for its reader to say.
    let read (json: ReadOnlySpan<byte>) (cursor: byref<int>) (scalar: byref<Scalar>) : bool =
        Json.space json &cursor
        let over = at json cursor &scalar

        if over >= 0 then
            cursor <- over

        over >= 0

    /// The last eight digits before this place, or fewer, as a number.
    let inline private eight (json: ReadOnlySpan<byte>) (over: int) (count: int) =
        let bytes =
            Unsafe.ReadUnaligned<uint64>(&Unsafe.Add(&MemoryMarshal.GetReference json, over - 8))

        let unwanted = 64 - 8 * count
        let digits = ((bytes ^^^ 0x3030303030303030UL) >>> unwanted) <<< unwanted
        let pairs = digits * 10UL + (digits >>> 8)

        int64 (
            ((pairs &&& 0x000000FF000000FFUL) * 0x000F424000000064UL
             + ((pairs >>> 16) &&& 0x000000FF000000FFUL) * 0x0000271000000001UL)
            >>> 32
        )

    /// So many digits before this place, 1 to 18, as a number.
    let inline private digits (json: ReadOnlySpan<byte>) (over: int) (count: int) =
        if count <= 8 then
            eight json over count
        else
            let low = eight json over 8

            if count <= 16 then
                100_000_000L * eight json (over - 8) (count - 8) + low
            else
                10_000_000_000_000_000L * eight json (over - 16) (count - 16)
                + 100_000_000L * eight json (over - 8) 8
                + low

    let private powers: int64[] = Array.init 19 (fun power -> pown 10L power)
    let private tens: double[] = Array.init 19 (fun power -> double (pown 10L power))

    /// All digits of a plain number, as if there were no point.
    let inline private number (json: ReadOnlySpan<byte>) (scalar: inref<Scalar>) =
        let isNegative = json[scalar.Start] = '-'B
        let over = scalar.Start + scalar.Length
        let decimals = scalar.Decimals

        let from = if isNegative then scalar.Start + 1 else scalar.Start

        let magnitude =
            if decimals = 0 then
                digits json over (over - from)
            else
                let point = over - decimals - 1
                digits json point (point - from) * powers[decimals] + digits json over decimals

        if isNegative then -magnitude else magnitude

    /// A number, quoted or not; a null or an empty string leaves the value as it is. At most one unit in the last place from the nearest
    /// double, and that itself up to 15 digits.
    let double (json: ReadOnlySpan<byte>) (scalar: inref<Scalar>) (value: byref<double>) =
        if scalar.Kind = ScalarKind.Plain then
            value <- double (number json &scalar) / tens[scalar.Decimals]
            true
        elif scalar.Kind = ScalarKind.Null then
            true
        elif scalar.Kind >= ScalarKind.String then
            let mutable used = 0

            scalar.Length = 0
            || Utf8Parser.TryParse(json.Slice(scalar.Start, scalar.Length), &value, &used)
               && used = scalar.Length
               && Double.IsFinite value
        else
            false

    /// A moment (`Instant.tryRead`).
    let instant (json: ReadOnlySpan<byte>) (scalar: inref<Scalar>) (value: byref<Instant>) =
        scalar.Kind = ScalarKind.Plain
        && scalar.Decimals = 0
        && Instant.tryOfEpoch (number json &scalar) &value
        || scalar.Kind >= ScalarKind.String
           && Instant.tryRead (json.Slice(scalar.Start, scalar.Length)) &value

    /// true or false, quoted or not; a null leaves the value as it is.
    let boolean (json: ReadOnlySpan<byte>) (scalar: inref<Scalar>) (value: byref<bool>) =
        match scalar.Kind with
        | ScalarKind.Null -> true
        | ScalarKind.True ->
            value <- true
            true
        | ScalarKind.False ->
            value <- false
            true
        | ScalarKind.String ->
            let text = json.Slice(scalar.Start, scalar.Length)
            value <- text.SequenceEqual(ReadOnlySpan Json.``true``)
            value || text.SequenceEqual(ReadOnlySpan Json.``false``)
        | _ -> false

    /// A number as far as structure is concerned, or anything else: what may be skipped.
    let isSound (json: ReadOnlySpan<byte>) (scalar: inref<Scalar>) =
        scalar.Kind <> ScalarKind.Number
        || json[scalar.Start + scalar.Length - 1] - '0'B <= 9uy
