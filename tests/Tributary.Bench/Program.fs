module Tributary.Bench.Program

[<EntryPoint>]
let main _ = 0
