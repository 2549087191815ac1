/// What all commands share: exit codes, log lines on standard error, plain text where nobody looks at a screen.
module Tributary.Cli.Terminal

open System
open System.IO
open System.Runtime.InteropServices
open System.Text
open System.Threading
open Microsoft.Extensions.DependencyInjection
open Microsoft.Extensions.Logging
open Microsoft.Extensions.Logging.Abstractions
open Microsoft.Extensions.Logging.Console
open Microsoft.Extensions.Options
open Microsoft.Win32.SafeHandles
open Spectre.Console
open Tributary

[<RequireQualifiedAccess>]
module Exit =
    [<Literal>]
    let Done = 0

    [<Literal>]
    let Failed = 1

    [<Literal>]
    let Usage = 2

    [<Literal>]
    let Configuration = 78

    [<Literal>]
    let Interrupted = 130

/// A mistake of the person at the keyboard, or of the world around: said in one line, without a stack.
exception Refused of exitCode: int * message: string

let refuse exitCode message = raise (Refused(exitCode, message))

/// `12:00:01.234 warning engine    Gap: books of 100 flows, cause throttled`: the module, and the message; for people, one line each. The stack of an exception is shown only
/// when it was asked for.
[<Sealed>]
type private LineFormatter(withStack: bool) =
    inherit ConsoleFormatter "tributary"

    override _.Write(entry: inref<LogEntry<'TState>>, _: IExternalScopeProvider | null, writer: TextWriter) =
        let level =
            match entry.LogLevel with
            | LogLevel.Critical
            | LogLevel.Error -> "error  "
            | LogLevel.Warning -> "warning"
            | LogLevel.Information -> "info   "
            | LogLevel.Debug -> "debug  "
            | _ -> "trace  "

        let message = entry.Formatter.Invoke(entry.State, entry.Exception)
        let time = DateTime.UtcNow.ToString "HH:mm:ss.fff"
        // Without what all of them begin with.
        let name =
            entry.Category.Substring(entry.Category.IndexOf '.' + 1).ToLowerInvariant()

        writer.WriteLine $"{time} {level} {name, -8} {message}"

        match entry.Exception with
        | null -> ()
        | error when withStack -> writer.WriteLine error
        | _ -> ()

let private levels = [
    "trace", LogLevel.Trace
    "debug", LogLevel.Debug
    "info", LogLevel.Information
    "warning", LogLevel.Warning
    "error", LogLevel.Error
]

let levelNames = levels |> List.map fst

/// Where log lines go: standard error, as text or JSON, from this level on, or from the level of their module. Of lines that repeat ten a
/// minute are said.
let logger (level: string) (modules: Map<string, string>) (format: LogFormat) verbose : ILoggerFactory =
    let least name =
        let level =
            levels
            |> List.tryFind (fun (known, _) -> known = name)
            |> Option.map snd
            |> Option.defaultValue LogLevel.Information

        if verbose then min level LogLevel.Debug else level

    LoggerFactory.Create(fun logging ->
        for KeyValue(name, level) in modules do
            logging.AddFilter(Logs.category name, least level) |> ignore

        logging
            .SetMinimumLevel(least level)
            .AddConsole(fun options ->
                options.LogToStandardErrorThreshold <- LogLevel.Trace

                options.FormatterName <-
                    match format with
                    | LogFormat.Text -> "tributary"
                    | LogFormat.Json -> ConsoleFormatterNames.Json)
        |> ignore

        match format with
        | LogFormat.Text -> logging.Services.AddSingleton<ConsoleFormatter>(LineFormatter verbose) |> ignore
        | LogFormat.Json ->
            logging.AddJsonConsole(fun options ->
                options.UseUtcTimestamp <- true
                options.TimestampFormat <- "yyyy-MM-ddTHH:mm:ss.ffffffZ")
            |> ignore)
    |> Logs.sampled TimeProvider.System

/// Standard output that says when nobody reads it any more: the console's own stream hides that.
let output () : TextWriter =
    if Console.IsOutputRedirected && not (OperatingSystem.IsWindows()) then
        let file =
            new FileStream(new SafeFileHandle(nativeint 1, false), FileAccess.Write, 1)

        new StreamWriter(file, UTF8Encoding false, AutoFlush = false)
    else
        Console.Out

/// A person watches standard output.
let isScreen = not Console.IsOutputRedirected

/// Tells a command to stop. The first Ctrl-C or SIGTERM asks it to, in good order; a second Ctrl-C ends the process at once.
[<Sealed>]
type Interrupt() =
    let stopping = new CancellationTokenSource()
    let mutable byCtrlC = false

    let onSignal (context: PosixSignalContext) =
        context.Cancel <- true

        if context.Signal = PosixSignal.SIGINT then
            if stopping.IsCancellationRequested then
                exit Exit.Interrupted

            byCtrlC <- true

        stopping.Cancel()

    let registrations = [
        PosixSignalRegistration.Create(PosixSignal.SIGINT, onSignal)
        PosixSignalRegistration.Create(PosixSignal.SIGTERM, onSignal)
    ]

    member _.Token = stopping.Token

    /// Calls this at each SIGHUP, where there is such a thing.
    member _.OnHangUp(heard: unit -> unit) : IDisposable =
        PosixSignalRegistration.Create(
            PosixSignal.SIGHUP,
            fun context ->
                context.Cancel <- true
                heard ()
        )

    /// What a command that was stopped and drained cleanly exits with.
    member _.ExitCode = if byCtrlC then Exit.Interrupted else Exit.Done

    interface IDisposable with
        member _.Dispose() =
            registrations |> List.iter _.Dispose()
            stopping.Dispose()

/// A table for a screen, or lines of padded columns for a pipe.
let table (headings: string list) (rows: string list list) =
    if isScreen then
        let table = Table(Border = TableBorder.Simple)

        for heading in headings do
            table.AddColumn(TableColumn(Markup.Escape heading)) |> ignore

        for row in rows do
            table.AddRow(row |> List.map Markup.Escape |> Array.ofList) |> ignore

        AnsiConsole.Write table
    else
        let widths =
            headings :: rows
            |> List.map (List.map String.length)
            |> List.reduce (List.map2 max)

        for row in headings :: rows do
            List.map2 (fun (cell: string) width -> cell.PadRight width) row widths
            |> String.concat "  "
            |> fun line -> Console.WriteLine(line.TrimEnd())

/// `3.2 s`, `5 min`, `2 h`, `4 d`: an age for a person.
let age (span: TimeSpan) =
    if span < TimeSpan.FromSeconds 10.0 then
        $"%.1f{span.TotalSeconds} s"
    elif span < TimeSpan.FromMinutes 2.0 then
        $"%.0f{span.TotalSeconds} s"
    elif span < TimeSpan.FromHours 2.0 then
        $"%.0f{span.TotalMinutes} min"
    elif span < TimeSpan.FromDays 2.0 then
        $"%.0f{span.TotalHours} h"
    else
        $"%.0f{span.TotalDays} d"

/// A time to the second, for tables.
let moment (instant: Instant) =
    (Instant.toDateTimeOffset instant).ToString "yyyy-MM-dd HH:mm:ss"

/// The columns of the screen that a text takes: two for each wide character, such as those of Chinese or most pictures.
let cells (text: string) =
    if Ascii.IsValid text then
        text.Length
    else
        Rendering.Segment(text).CellCount()

/// A text cut to a width.
let cut width (text: string) =
    if cells text <= width then
        text
    else
        let kept = StringBuilder()
        let mutable used = 0
        let mutable runes = text.EnumerateRunes()

        while used < width && runes.MoveNext() do
            let rune = runes.Current.ToString()
            used <- used + cells rune

            if used < width then
                kept.Append rune |> ignore

        kept.Append("…").ToString()

/// Blanks behind a text, up to so many columns of the screen.
let padRight width (text: string) =
    text + String(' ', max 0 (width - cells text))
