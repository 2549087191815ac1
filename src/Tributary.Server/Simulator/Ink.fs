namespace Tributary.Server.Simulator

open System
open System.Buffers.Text
open System.Collections.Concurrent
open System.Text

/// Bytes that are written one after the other, as fast as they can be: fifty thousand messages a second pass here.
[<Sealed>]
type internal Ink() =
    let mutable bytes = Array.zeroCreate<byte> 16_384
    let mutable used = 0

    member _.Room(more: int) =
        if used + more > bytes.Length then
            Array.Resize(&bytes, max (2 * bytes.Length) (used + more))

    member this.Put(some: ReadOnlySpan<byte>) =
        this.Room some.Length
        some.CopyTo(bytes.AsSpan used)
        used <- used + some.Length

    member this.Put(some: byte[]) = this.Put(ReadOnlySpan some)

    /// A whole number.
    member this.Whole(value: int64) =
        this.Room 24
        let mutable written = 0
        Utf8Formatter.TryFormat(value, bytes.AsSpan used, &written) |> ignore
        used <- used + written

    /// Millionths as canonical decimals: no trailing zeros, a leading zero before the point.
    member this.Decimal(millionths: int64) =
        this.Whole(millionths / Millionths.one)
        let mutable rest = int (millionths % Millionths.one)

        if rest > 0 then
            this.Room 8
            bytes[used] <- byte '.'
            used <- used + 1
            let mutable scale = 100_000

            while rest > 0 do
                bytes[used] <- byte (int '0' + rest / scale)
                used <- used + 1
                rest <- rest % scale
                scale <- scale / 10

    member _.Clear() = used <- 0
    member _.Length = used
    member _.Written = ReadOnlySpan(bytes, 0, used)
    member this.Take() = this.Written.ToArray()

/// The texts of all prices on a tick, made once.
module internal Prices =
    let private known = ConcurrentDictionary<int64, byte[][]>()

    /// The text of each step, from 0 ("0") to the last ("1").
    let ofTick (tick: int64) =
        known.GetOrAdd(
            tick,
            fun tick ->
                Array.init (int (Millionths.one / tick) + 1) (fun step ->
                    Encoding.ASCII.GetBytes(Millionths.text (int64 step * tick)))
        )
