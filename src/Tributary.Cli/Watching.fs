/// `tributary top`: how a running collector is doing, again and again.
module Tributary.Cli.Watching

open System
open System.IO
open System.Threading
open System.Threading.Tasks
open Argu
open Tributary
open Tributary.Cli.Arguments
open Tributary.Cli.Commands
open Tributary.Cli.Terminal

/// Draws over what is there, on a screen that goes away afterwards.
let private draw (width: int) (lines: string list) =
    let home, clearRest = "\u001b[H", "\u001b[K"

    let body =
        lines
        |> List.mapi (fun i line ->
            // NOTE: behind a line that fills the screen's width the cursor still stands on its last column, which would be cleared.
            let clear = if cells line < width then clearRest else ""

            // The heads of the columns stand out.
            if i = 5 then
                $"\u001b[7m{line}\u001b[0m{clear}"
            else
                line + clear)
        |> String.concat "\r\n"

    let clearBelow = if cells (List.last lines) < width then "\u001b[J" else ""

    Console.Out.Write(home + body + clearBelow)
    Console.Out.Flush()

let private size () =
    let or' least found = if found <= 0 then least else found
    or' 80 Console.WindowWidth, or' 24 Console.WindowHeight

/// A screen is drawn where a person looks at one that understands how.
let private canDraw () =
    isScreen
    && not Console.IsInputRedirected
    && Environment.GetEnvironmentVariable "TERM" <> "dumb"

/// How it is: what a collector answers, or else what the store says. An error when there is neither.
type private Source = unit -> Task<Result<Running.Collector, string>>

let private sourceOf
    (settings: Settings)
    (isStoreMeant: bool)
    (door: Result<Running.Door, Running.Silence>)
    : Source =
    let patience = TimeSpan.FromSeconds 2.0
    // Counting a store's rows takes a while: it is looked into now and then.
    let mutable looked: Running.Collector voption = ValueNone

    let lookInto (why: Running.Silence) = task {
        match looked with
        | ValueSome before when DateTimeOffset.UtcNow - before.At < TimeSpan.FromSeconds 5.0 ->
            return Ok before
        | _ ->
            match Setup.openStoreToRead settings with
            | Error fault -> return Error $"no collector answers ({why}); {fault}"
            | Ok store ->
                let! status = task {
                    try
                        let! status = store.Status()
                        return Ok status
                    with error ->
                        return
                            Error
                                $"no collector answers ({why}), and {store.Name} does not either: {error.Message}"
                }

                do! store.Close()

                return
                    status
                    |> Result.map (fun status ->
                        let found =
                            Running.ofStore (storeName settings) (string why) DateTimeOffset.UtcNow status

                        looked <- ValueSome found
                        found)
    }

    fun () -> task {
        match door with
        | Error why -> return! lookInto why
        | Ok door ->
            match! Running.status door patience with
            | Ok found -> return Ok found
            // A collector that is there, or is somebody else's, is not what the store tells of.
            | Error(Running.Silence.Away _ as why) when isStoreMeant -> return! lookInto why
            | Error why -> return Error(string why)
    }

let private showScreen, private hideScreen =
    "\u001b[?1049h\u001b[?25l", "\u001b[?25h\u001b[?1049l"

/// On the screen, until `q` or Ctrl-C.
let private onScreen (source: Source) (every: TimeSpan) (first: Running.Collector) (ct: CancellationToken) =
    task {
        let mutable looks = Views.Looks.start first
        let mutable keys = Views.start
        let mutable trouble: (DateTimeOffset * string) voption = ValueNone
        let mutable asked = DateTimeOffset.UtcNow
        let mutable isOver = false
        // Also when a second Ctrl-C ends the process at once.
        let giveBack () =
            Console.Out.Write hideScreen
            Console.Out.Flush()

        let handler = EventHandler(fun _ _ -> giveBack ())
        AppDomain.CurrentDomain.ProcessExit.AddHandler handler
        Console.Out.Write showScreen

        try
            while not isOver && not ct.IsCancellationRequested do
                let width, height = size ()
                let lines = Views.screen width height looks keys

                let shown =
                    match trouble with
                    | ValueNone -> lines
                    | ValueSome(since, why) ->
                        let clock = since.ToUniversalTime().ToString "HH:mm:ss"
                        cut width $"no answer since {clock} UTC ({why}); trying on" :: lines.Tail

                draw width shown
                let next = asked + every

                // Keys are answered at once; the collector is asked when it is time.
                while not isOver
                      && not ct.IsCancellationRequested
                      && DateTimeOffset.UtcNow < next
                      && not Console.KeyAvailable do
                    do! Task.Delay 30

                if Console.KeyAvailable then
                    match Views.press (Views.pageOf height) (Console.ReadKey true) keys with
                    | ValueSome next -> keys <- next
                    | ValueNone -> isOver <- true
                elif not ct.IsCancellationRequested then
                    asked <- DateTimeOffset.UtcNow

                    match! source () with
                    | Ok found ->
                        trouble <- ValueNone
                        looks <- Views.Looks.next found looks
                    | Error why ->
                        if trouble.IsNone then
                            trouble <- ValueSome(looks.Now.At, why)
        finally
            AppDomain.CurrentDomain.ProcessExit.RemoveHandler handler
            giveBack ()
    }

/// In a pipe: a line each time, until nobody reads them.
let private inPipe (source: Source) (every: TimeSpan) (first: Running.Collector) (ct: CancellationToken) =
    task {
        let mutable looks = Views.Looks.start first
        let mutable isSilent = false
        let mutable isRead = true
        let output = output ()

        let say (line: string) =
            try
                output.WriteLine line
                output.Flush()
            with :? IOException ->
                isRead <- false

        say (Views.summary looks)

        try
            while isRead do
                do! Task.Delay(every, ct)

                match! source () with
                | Ok found when found.At = looks.Now.At -> ()
                | Ok found ->
                    isSilent <- false
                    looks <- Views.Looks.next found looks
                    say (Views.summary looks)
                | Error why when not isSilent ->
                    isSilent <- true
                    let clock = looks.Now.At.ToUniversalTime().ToString "yyyy-MM-dd HH:mm:ss"
                    say $"{clock} the last answer: {why}; trying on"
                | Error _ -> ()
        with :? OperationCanceledException ->
            ()
    }

let top (_: Common) (arguments: ParseResults<TopArguments>) : Task<int> = task {
    let settings =
        settingsFrom (arguments.TryGetResult TopArguments.Config)
        |> storedIn (arguments.TryGetResult TopArguments.Store) None

    let door =
        match arguments.TryGetResult TopArguments.Url with
        | None -> Running.doorOf settings.Http
        | Some text ->
            match Uri.TryCreate(text, UriKind.Absolute) with
            | true, NonNull address when
                (address.Scheme = "http" || address.Scheme = "https")
                && address.UserInfo = ""
                && address.PathAndQuery = "/"
                ->
                Ok {
                    Address = address
                    Token = settings.Http.Token
                }
            // It is not repeated: it may hold a password.
            | _ -> refuse Exit.Usage "--url takes an address such as http://127.0.0.1:9464, without a path"

    let every =
        match arguments.TryGetResult TopArguments.Every |> Option.map duration with
        | None -> TimeSpan.FromSeconds 1.0
        | Some every when every < TimeSpan.FromMilliseconds 100.0 || every > TimeSpan.FromHours 1.0 ->
            refuse Exit.Usage "--every takes 100ms to 1h"
        | Some every -> every

    use interrupt = new Interrupt()

    let isStoreMeant =
        arguments.Contains TopArguments.Store
        || not (arguments.Contains TopArguments.Url)

    let source = sourceOf settings isStoreMeant door

    match! source () with
    | Error why -> return refuse Exit.Failed why
    | Ok found ->
        if arguments.Contains TopArguments.Once then
            Views.report found |> List.iter Console.WriteLine
            return Exit.Done
        else
            if canDraw () then
                do! onScreen source every found interrupt.Token
            else
                do! inPipe source every found interrupt.Token

            return interrupt.ExitCode
}
