namespace Tributary

open System

/// What a fill took, as far as a connection told of it.
[<Struct>]
type FillSeen = { FilledAt: Instant; Filled: int64 }

/// The fills of a market, numbered from 0 on. Those of the latest ten seconds are kept: nothing asks for older ones.
[<Sealed>]
type Fills() =
    // A ring, a power of two in size.
    let mutable ring: FillSeen[] = Array.zeroCreate 4
    let mutable first, count = 0L, 0
    let keptFor = TimeSpan.FromSeconds 10.0

    let slot (number: int64) = int number &&& (ring.Length - 1)

    /// The number of the oldest one that is kept.
    member _.First = first
    /// The number that the next one gets.
    member _.Next = first + int64 count
    member _.Item(number: int64) : FillSeen = ring[slot number]

    member _.Add(fill: FillSeen) =
        while count > 0 && Instant.hasPassed keptFor ring[slot first].FilledAt fill.FilledAt do
            first <- first + 1L
            count <- count - 1

        if count = ring.Length then
            let larger: FillSeen[] = Array.zeroCreate (2 * count)

            for number in first .. first + int64 count - 1L do
                larger[int number &&& (larger.Length - 1)] <- ring[slot number]

            ring <- larger

        ring[slot (first + int64 count)] <- fill
        count <- count + 1
