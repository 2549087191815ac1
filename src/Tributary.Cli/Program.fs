module Tributary.Cli.Program

[<EntryPoint>]
let main _ = 0
