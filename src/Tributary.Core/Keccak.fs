/// Keccak-256 as Ethereum has it: the hash that became SHA-3, with the padding from before it did. .NET has only SHA-3. It is used for
/// what is public: messages before they are signed, and addresses.
[<RequireQualifiedAccess>]
module Tributary.Keccak

open System
open System.Buffers.Binary
open System.Numerics

// The constants of the permutation's 24 rounds.
let private rounds = [|
    0x0000000000000001UL
    0x0000000000008082UL
    0x800000000000808AUL
    0x8000000080008000UL
    0x000000000000808BUL
    0x0000000080000001UL
    0x8000000080008081UL
    0x8000000000008009UL
    0x000000000000008AUL
    0x0000000000000088UL
    0x0000000080008009UL
    0x000000008000000AUL
    0x000000008000808BUL
    0x800000000000008BUL
    0x8000000000008089UL
    0x8000000000008003UL
    0x8000000000008002UL
    0x8000000000000080UL
    0x000000000000800AUL
    0x800000008000000AUL
    0x8000000080008081UL
    0x8000000000008080UL
    0x0000000080000001UL
    0x8000000080008008UL
|]

/// The permutation of 25 lanes of 64 bits; lane (x, y) stands at x + 5y.
let private permute (lanes: uint64[]) =
    let columns: uint64[] = Array.zeroCreate 5
    let moved: uint64[] = Array.zeroCreate 25

    for constant in rounds do
        // Theta: each lane takes the parity of two columns beside it.
        for x in 0..4 do
            columns[x] <- lanes[x] ^^^ lanes[x + 5] ^^^ lanes[x + 10] ^^^ lanes[x + 15] ^^^ lanes[x + 20]

        for x in 0..4 do
            let parity =
                columns[(x + 4) % 5] ^^^ BitOperations.RotateLeft(columns[(x + 1) % 5], 1)

            for y in 0..4 do
                lanes[x + 5 * y] <- lanes[x + 5 * y] ^^^ parity

        // Rho and pi: each lane is turned by a triangular number, and goes to its new place.
        moved[0] <- lanes[0]
        let mutable x, y = 1, 0

        for t in 0..23 do
            let turned =
                BitOperations.RotateLeft(lanes[x + 5 * y], ((t + 1) * (t + 2) / 2) % 64)

            let next = (2 * x + 3 * y) % 5
            x <- y
            y <- next
            moved[x + 5 * y] <- turned

        // Chi and iota.
        for y in 0..4 do
            for x in 0..4 do
                lanes[x + 5 * y] <-
                    moved[x + 5 * y]
                    ^^^ (~~~moved[(x + 1) % 5 + 5 * y] &&& moved[(x + 2) % 5 + 5 * y])

        lanes[0] <- lanes[0] ^^^ constant

// Bytes that are taken in between two permutations.
let private rate = 136

/// The hash of some bytes, 32 bytes long.
let hash (bytes: byte[]) : byte[] =
    let lanes: uint64[] = Array.zeroCreate 25
    let padded: byte[] = Array.zeroCreate ((bytes.Length / rate + 1) * rate)
    Array.blit bytes 0 padded 0 bytes.Length
    padded[bytes.Length] <- 1uy
    padded[padded.Length - 1] <- padded[padded.Length - 1] ||| 0x80uy

    for block in 0..rate .. padded.Length - 1 do
        for lane in 0 .. rate / 8 - 1 do
            lanes[lane] <-
                lanes[lane]
                ^^^ BinaryPrimitives.ReadUInt64LittleEndian(ReadOnlySpan(padded, block + lane * 8, 8))

        permute lanes

    let result: byte[] = Array.zeroCreate 32

    for lane in 0..3 do
        BinaryPrimitives.WriteUInt64LittleEndian(Span(result, lane * 8, 8), lanes[lane])

    result
