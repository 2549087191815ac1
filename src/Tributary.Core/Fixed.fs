namespace Tributary

open System
open System.Buffers.Binary
open System.Numerics

/// Why a text is not a number that we keep.
[<RequireQualifiedAccess>]
type NumberFault =
    | None = 0
    | Empty = 1
    | NotANumber = 2
    | TooLarge = 3
    | Negative = 4

/// Exact decimal numbers as int64 millionths: read from and written to UTF-8 without a double in between.
[<RequireQualifiedAccess>]
module Fixed =
    /// How many millionths make one.
    [<Literal>]
    let One = 1_000_000L

    let private powers = [| 1UL; 10UL; 100UL; 1_000UL; 10_000UL; 100_000UL; 1_000_000UL |]

    let inline private isDigit (b: byte) = b - '0'B <= 9uy

    /// Eight bytes, the first one lowest, are all digits: their upper halves are those of '0', and stay so when six is added to each.
    let internal areDigits (eight: uint64) =
        (eight &&& 0xF0F0F0F0F0F0F0F0UL)
        ||| (((eight + 0x0606060606060606UL) &&& 0xF0F0F0F0F0F0F0F0UL) >>> 4)
            =
            0x3333333333333333UL

    /// The number that eight digits are: neighbours are joined to pairs, those to fours, those to the whole.
    let internal ofDigits (eight: uint64) : int64 =
        let pairs = ((eight &&& 0x0F0F0F0F0F0F0F0FUL) * 2561UL) >>> 8
        let fours = ((pairs &&& 0x00FF00FF00FF00FFUL) * 6553601UL) >>> 16
        int64 (((fours &&& 0x0000FFFF0000FFFFUL) * 42949672960001UL) >>> 32)

    /// Anything that is not a plain decimal of at most 18 digits with at most 6 decimals: exponents, long fractions
    /// (rounded half-even), huge numbers. Exact by big integers; rare, so it may allocate.
    let private parseSlow (text: ReadOnlySpan<byte>) (value: byref<int64>) (rounded: byref<bool>) =
        let negative = text[0] = '-'B
        let mutable i = if negative then 1 else 0
        let mutable mantissa = BigInteger.Zero
        let mutable digits, scale = 0, 0

        while i < text.Length && isDigit text[i] do
            mantissa <- mantissa * BigInteger 10 + BigInteger(int (text[i] - '0'B))
            digits <- digits + 1
            i <- i + 1

        let mutable ok = true

        if i < text.Length && text[i] = '.'B then
            i <- i + 1
            let fraction = i

            while i < text.Length && isDigit text[i] do
                mantissa <- mantissa * BigInteger 10 + BigInteger(int (text[i] - '0'B))
                digits <- digits + 1
                scale <- scale + 1
                i <- i + 1

            ok <- i > fraction

        ok <- ok && digits > 0
        let mutable exponent = 0

        if ok && i < text.Length && (text[i] ||| 0x20uy) = 'e'B then
            i <- i + 1
            let minus = i < text.Length && text[i] = '-'B

            if i < text.Length && (text[i] = '-'B || text[i] = '+'B) then
                i <- i + 1

            let first = i

            while i < text.Length && isDigit text[i] do
                exponent <- min 100_000 (exponent * 10 + int (text[i] - '0'B))
                i <- i + 1

            ok <- i > first

            if minus then
                exponent <- -exponent

        if not ok || i <> text.Length then
            NumberFault.NotANumber
        else
            let shift = exponent - scale + 6

            if mantissa.IsZero then
                value <- 0L
                NumberFault.None
            elif shift > 60 then
                NumberFault.TooLarge
            else
                let exact =
                    if shift >= 0 then
                        mantissa * BigInteger.Pow(BigInteger 10, shift)
                    elif -shift > digits + 1 then
                        rounded <- true // smaller than a tenth of a millionth
                        BigInteger.Zero
                    else
                        let unit = BigInteger.Pow(BigInteger 10, -shift)
                        let mutable remainder = BigInteger.Zero
                        let quotient = BigInteger.DivRem(mantissa, unit, &remainder)
                        let twice = BigInteger.Compare(remainder * BigInteger 2, unit)
                        rounded <- not remainder.IsZero

                        if twice > 0 || (twice = 0 && not quotient.IsEven) then
                            quotient + BigInteger.One
                        else
                            quotient

                let signed = if negative then -exact else exact

                if signed > BigInteger Int64.MaxValue || signed < BigInteger Int64.MinValue then
                    NumberFault.TooLarge
                else
                    value <- int64 signed
                    NumberFault.None

    /// Reads a whole text as millionths. Accepts `1`, `0.55`, `.48`, `1500.250000`, `-3`, `1e-05`; a number with more than
    /// six decimals is rounded half-even and `rounded` says so. NaN, infinities, signs other than `-`, a lone point and
    /// numbers beyond int64 millionths (about 9.2e12) are faults; `value` is then zero.
    let parse (text: ReadOnlySpan<byte>) (value: byref<int64>) (rounded: byref<bool>) : NumberFault =
        value <- 0L
        rounded <- false

        if text.Length = 0 then
            NumberFault.Empty
        elif text.Length > 400 then
            NumberFault.TooLarge // no price or size has hundreds of digits; this bounds the work
        else
            let negative = text[0] = '-'B
            let start = if negative then 1 else 0
            let mutable i = start
            let mutable number = 0UL

            while i < text.Length && isDigit text[i] do
                number <- number * 10UL + uint64 (text[i] - '0'B)
                i <- i + 1

            let mutable decimals = 0
            let mutable digits = i - start

            if i < text.Length && text[i] = '.'B then
                i <- i + 1
                let fraction = i

                while i < text.Length && isDigit text[i] do
                    number <- number * 10UL + uint64 (text[i] - '0'B)
                    i <- i + 1

                decimals <- i - fraction
                digits <- digits + decimals

                if decimals = 0 then
                    digits <- 0 // "5." is not a number

            if i = text.Length && digits > 0 && digits - decimals <= 12 && decimals <= 6 then
                let scaled = int64 (number * powers[6 - decimals])
                value <- if negative then -scaled else scaled
                NumberFault.None
            else
                let mutable v, r = 0L, false
                let fault = parseSlow text &v &r
                value <- v
                rounded <- r
                fault

    /// The plain case in one pass: a quoted decimal such as `"0.55"`, the cursor behind its first quote; afterwards behind its
    /// last. False for everything that needs `parse`, the cursor then anywhere.
    let tryQuoted (text: ReadOnlySpan<byte>) (at: byref<int>) (value: byref<int64>) =
        let start = at
        let mutable i = at
        let mutable number = 0UL

        while i < text.Length && isDigit text[i] do
            number <- number * 10UL + uint64 (text[i] - '0'B)
            i <- i + 1

        let whole = i - start
        let mutable decimals = 0
        let mutable point = false

        if i < text.Length && text[i] = '.'B then
            point <- true
            i <- i + 1
            let fraction = i

            while i < text.Length && isDigit text[i] do
                number <- number * 10UL + uint64 (text[i] - '0'B)
                i <- i + 1

            decimals <- i - fraction

        if
            i < text.Length
            && text[i] = '"'B
            && whole > 0
            && whole <= 12
            && decimals <= 6
            && (decimals > 0 || not point)
        then
            value <- int64 (number * powers[6 - decimals])
            at <- i + 1
            true
        else
            false

    // The three digits of each number below a thousand, the first one lowest; above them, how many are left without the zeros at the end.
    let private digits: uint32[] =
        Array.init 1000 (fun n ->
            let one, two, three = n / 100, n / 10 % 10, n % 10

            let kept =
                if three > 0 then 3
                elif two > 0 then 2
                elif one > 0 then 1
                else 0

            uint32 ('0'B + byte one)
            ||| (uint32 ('0'B + byte two) <<< 8)
            ||| (uint32 ('0'B + byte three) <<< 16)
            ||| (uint32 kept <<< 24))

    /// Writes millionths in the canonical form: no trailing zeros, no exponent, `0.5` and not `.5`. Needs up to 21 bytes, and room for
    /// three more; answers how many were written.
    let format (value: int64) (into: Span<byte>) : int =
        let mutable at = 0
        // As unsigned, so that the smallest int64 has a magnitude.
        let magnitude = if value < 0L then 0UL - uint64 value else uint64 value

        if value < 0L then
            into[0] <- '-'B
            at <- 1

        let whole = magnitude / 1_000_000UL
        let fraction = int (magnitude - whole * 1_000_000UL)

        if whole < 10UL then
            into[at] <- '0'B + byte whole
            at <- at + 1
        elif whole < 1000UL then
            let three = digits[int whole]
            // Without the zero that a number of two digits begins with.
            let shift = if whole < 100UL then 1 else 0
            BinaryPrimitives.WriteUInt32LittleEndian(into.Slice at, three >>> (8 * shift))
            at <- at + 3 - shift
        else
            let mutable written = 0
            Buffers.Text.Utf8Formatter.TryFormat(whole, into.Slice at, &written) |> ignore
            at <- at + written

        if fraction <> 0 then
            into[at] <- '.'B
            at <- at + 1
            let high = fraction / 1000
            let low = fraction - high * 1000
            BinaryPrimitives.WriteUInt32LittleEndian(into.Slice at, digits[high])

            if low = 0 then
                at <- at + int (digits[high] >>> 24)
            else
                BinaryPrimitives.WriteUInt32LittleEndian(into.Slice(at + 3), digits[low])
                at <- at + 3 + int (digits[low] >>> 24)

        at

    /// The canonical form as text.
    let text (value: int64) =
        let buffer = Span<byte>(Array.zeroCreate 32)
        let length = format value buffer
        Text.Encoding.ASCII.GetString(Span.op_Implicit (buffer.Slice(0, length)): ReadOnlySpan<byte>)

    /// What a fault says to a person.
    let explain (fault: NumberFault) =
        match fault with
        | NumberFault.Empty -> "is empty"
        | NumberFault.TooLarge -> "is too large for a 64-bit count of millionths"
        | NumberFault.Negative -> "is negative"
        | _ -> "is not a decimal number"
