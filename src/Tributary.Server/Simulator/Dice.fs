namespace Tributary.Server.Simulator

open System

/// SplitMix64: small, and the same on every machine and runtime for ever, which System.Random does not promise.
[<Sealed>]
type internal Dice(seed: uint64) =
    let mutable state = seed

    static let mix (value: uint64) =
        let value = (value ^^^ (value >>> 30)) * 0xBF58476D1CE4E5B9UL
        let value = (value ^^^ (value >>> 27)) * 0x94D049BB133111EBUL
        value ^^^ (value >>> 31)

    /// A source of its own for every combination of keys, so that what one part draws never moves another part.
    static member Keyed([<ParamArray>] keys: int64[]) =
        let absorb state (key: int64) =
            mix (state + uint64 key + 0x9E3779B97F4A7C15UL)

        Dice(Array.fold absorb 0UL keys)

    member _.Next() =
        state <- state + 0x9E3779B97F4A7C15UL
        mix state

    /// Evenly in [0, bound).
    member this.Below(bound: int) =
        int (Math.BigMul(this.Next() >>> 32, uint64 bound) >>> 32)

    /// Evenly in [low, high].
    member this.Between(low: int, high: int) = low + this.Below(high - low + 1)

    /// Evenly in [0, 1).
    member this.Unit() =
        float (this.Next() >>> 11) / 9007199254740992.0

    member this.Chance(probability: float) = this.Unit() < probability

    member this.Pick(choices: 'a[]) = choices[this.Below choices.Length]

    /// Microseconds until the next of events that come at this mean rate; never, when the rate is zero.
    member this.Wait(perSecond: float) =
        if perSecond <= 0.0 then
            Int64.MaxValue
        else
            int64 (-log(1.0 - this.Unit()) / perSecond * 1e6)

    member this.Hex(bytes: int) =
        let drawn = Array.init bytes (fun _ -> byte (this.Next()))
        Convert.ToHexStringLower drawn

    /// Decimal digits, the first of them not zero.
    member this.Digits(count: int) =
        String.init count (fun i -> string (if i = 0 then this.Between(1, 9) else this.Below 10))
