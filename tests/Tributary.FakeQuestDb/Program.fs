module Tributary.FakeQuestDb.Program

[<FSharp.Core.EntryPoint>]
let main _ = 0
