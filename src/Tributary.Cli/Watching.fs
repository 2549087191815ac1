/// `tributary top`: how a running collector is doing, again and again.
module Tributary.Cli.Watching

open System
open System.Threading
open System.Threading.Tasks
open Argu
open Tributary
open Tributary.Cli.Arguments
open Tributary.Cli.Commands
open Tributary.Cli.Terminal

/// Draws over what is there, on a screen that goes away afterwards.
let private draw (lines: string list) =
    let home, clearRest = "\u001b[H", "\u001b[K"

    let body =
        lines
        |> List.mapi (fun i line ->
            // The heads of the columns stand out.
            if i = 5 then
                $"\u001b[7m{line}\u001b[0m{clearRest}"
            else
                line + clearRest)
        |> String.concat "\r\n"

    Console.Out.Write(home + body + "\u001b[J")
    Console.Out.Flush()

let private size () =
    let or' least found = if found <= 0 then least else found
    or' 80 Console.WindowWidth, or' 24 Console.WindowHeight

/// A screen is drawn where a person looks at one that understands how.
let private canDraw () =
    isScreen
    && not Console.IsInputRedirected
    && Environment.GetEnvironmentVariable "TERM" <> "dumb"

/// On the screen, until `q` or Ctrl-C.
let private onScreen
    (settings: HttpSettings)
    (every: TimeSpan)
    (first: Running.Collector)
    (ct: CancellationToken)
    = task {
    let mutable looks = Views.Looks.start first
    let mutable keys = Views.start
    let mutable trouble: (DateTimeOffset * string) voption = ValueNone
    let mutable asked = DateTimeOffset.UtcNow
    let mutable isOver = false
    Console.Out.Write "\u001b[?1049h\u001b[?25l"

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

            draw shown
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

                match! Running.status settings (TimeSpan.FromSeconds 2.0) with
                | Ok found ->
                    trouble <- ValueNone
                    looks <- Views.Looks.next found looks
                | Error why ->
                    if trouble.IsNone then
                        trouble <- ValueSome(looks.Now.At, why)
    finally
        Console.Out.Write "\u001b[?25h\u001b[?1049l"
        Console.Out.Flush()
}

/// In a pipe: a line each time.
let private inPipe
    (settings: HttpSettings)
    (every: TimeSpan)
    (first: Running.Collector)
    (ct: CancellationToken)
    = task {
    let mutable looks = Views.Looks.start first
    Console.WriteLine(Views.summary looks)

    while not ct.IsCancellationRequested do
        try
            do! Task.Delay(every, ct)

            match! Running.status settings (TimeSpan.FromSeconds 2.0) with
            | Ok found ->
                looks <- Views.Looks.next found looks
                Console.WriteLine(Views.summary looks)
            | Error why -> Console.WriteLine $"no answer since {looks.Now.At:O} ({why}); trying on"
        with :? OperationCanceledException ->
            ()
}

let top (_: Common) (arguments: ParseResults<TopArguments>) : Task<int> = task {
    let settings = settingsFrom (arguments.TryGetResult TopArguments.Config)

    let http =
        match arguments.TryGetResult TopArguments.Url with
        | None -> settings.Http
        | Some text ->
            match Uri.TryCreate(text, UriKind.Absolute) with
            | true, NonNull address when
                address.Scheme = "http" && address.HostNameType <> UriHostNameType.Dns
                  ->
                  {
                      settings.Http with
                          Listen =
                              Some(
                                  Net.IPEndPoint(
                                      Net.IPAddress.Parse(address.Host.Trim('[', ']')),
                                      address.Port
                                  )
                              )
                  }
            | _ -> refuse Exit.Usage $"'{text}' is not an address such as http://127.0.0.1:9464"

    let every =
        arguments.TryGetResult TopArguments.Every
        |> Option.map duration
        |> Option.defaultValue (TimeSpan.FromSeconds 1.0)

    use interrupt = new Interrupt()

    match! Running.status http (TimeSpan.FromSeconds 2.0) with
    | Ok found when arguments.Contains TopArguments.Once ->
        Views.report found |> List.iter Console.WriteLine
        return Exit.Done
    | Ok found ->
        if canDraw () then
            do! onScreen http every found interrupt.Token
        else
            do! inPipe http every found interrupt.Token

        return interrupt.ExitCode
    | Error why ->
        Console.WriteLine $"No collector answers ({why}); this is what the store has:"
        return! storedStatus settings
}
