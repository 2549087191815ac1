/// The server as a process of its own, to be killed.
module Tributary.FakeQuestDb.Program

open System
open System.Runtime.InteropServices
open System.Threading
open System.Threading.Tasks

let private usage =
    "Tributary.FakeQuestDb [--port N] [--data FOLDER] [--protocol 1|2|3] [--apply-delay MS] [--forget SECONDS]
  [--user NAME --password WORD] [--token WORD] [--no-create] [--read-only] [--lenient] [--no-settings]"

let rec private read (options: FakeQuestDbOptions) arguments =
    match arguments with
    | [] -> options
    | "--port" :: port :: rest -> read { options with Port = int port } rest
    | "--data" :: folder :: rest ->
        read
            {
                options with
                    DataFolder = Some folder
            }
            rest
    | "--protocol" :: version :: rest ->
        read
            {
                options with
                    MaxProtocol = int version
            }
            rest
    | "--apply-delay" :: time :: rest ->
        read
            {
                options with
                    ApplyDelay = TimeSpan.FromMilliseconds(float time)
            }
            rest
    | "--forget" :: seconds :: rest ->
        read
            {
                options with
                    ForgetUnsynced = TimeSpan.FromSeconds(float seconds)
            }
            rest
    | "--user" :: user :: "--password" :: password :: rest ->
        read
            {
                options with
                    User = Some(user, password)
            }
            rest
    | "--token" :: token :: rest -> read { options with Token = Some token } rest
    | "--no-create" :: rest -> read { options with CreateTables = false } rest
    | "--read-only" :: rest -> read { options with ReadOnly = true } rest
    | "--lenient" :: rest -> read { options with Strict = false } rest
    | "--no-settings" :: rest -> read { options with HasSettings = false } rest
    | other :: _ -> invalidArg other "is no option"

let private serve options : Task = task {
    let! fake = FakeQuestDb.StartAsync(options, CancellationToken.None)
    use _ = fake
    Console.Out.WriteLine $"listening on http://127.0.0.1:{fake.Port}"
    Console.Out.Flush()
    let ended = TaskCompletionSource()

    let stop (signal: PosixSignalContext) =
        signal.Cancel <- true
        ended.TrySetResult() |> ignore

    use _ = PosixSignalRegistration.Create(PosixSignal.SIGTERM, stop)
    use _ = PosixSignalRegistration.Create(PosixSignal.SIGINT, stop)
    do! ended.Task
}

[<FSharp.Core.EntryPoint>]
let main arguments =
    match
        try
            Ok(read FakeQuestDbOptions.Default (List.ofArray arguments))
        with
        | :? ArgumentException
        | :? FormatException as mistake -> Error mistake.Message
    with
    | Ok options ->
        (serve options).GetAwaiter().GetResult()
        0
    | Error mistake ->
        eprintfn "%s" mistake
        eprintfn "%s" usage
        2
