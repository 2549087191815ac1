/// Sides of books as exchanges send them.
[<RequireQualifiedAccess>]
module internal Tributary.Levels

open System
open Tributary

/// Sorts a side by price, rising, and keeps the last of several levels at one price. Answers how many are left. Rare.
let repair (levels: Span<Level>) (flags: byref<Flags>) =
    let indexed = levels.ToArray() |> Array.indexed
    // Stable: of equal prices the later one stays later.
    Array.sortInPlaceBy (fun (index, level: Level) -> struct (level.Price.Millionths, index)) indexed
    let mutable kept = 0

    for i in 0 .. indexed.Length - 1 do
        let _, level = indexed[i]

        if kept > 0 && levels[kept - 1].Price.Millionths = level.Price.Millionths then
            flags <- flags ||| Flags.DuplicateLevel
            levels[kept - 1] <- level
        else
            levels[kept] <- level
            kept <- kept + 1

    kept

/// Appends the levels of one side as the complementary token has them: at 1 - p, in the same order. Answers where they begin.
let complement (from: int) (count: int) (batch: Batch) : int =
    let first = batch.Levels.Count

    for i in from .. from + count - 1 do
        let level = batch.Levels[i]

        let other = {
            level with
                Price = Price.complement level.Price
        }

        batch.Levels.Add &other

    first
