/// What several test files need.
[<AutoOpen>]
module Tributary.Tests.Support

open System
open System.Collections.Concurrent
open System.IO
open System.Net
open System.Text
open System.Threading
open System.Threading.Tasks
open Microsoft.AspNetCore.Builder
open Microsoft.AspNetCore.Hosting
open Microsoft.AspNetCore.Http
open Microsoft.Extensions.Logging
open NUnit.Framework
open Tributary

/// The project's folder: found from where the test runs, because a deterministic build knows no source folder.
let root =
    let rec up (folder: DirectoryInfo) =
        if File.Exists(Path.Combine(folder.FullName, "Tributary.sln")) then
            folder.FullName
        else
            folder.Parent |> Option.ofObj |> Option.get |> up

    up (DirectoryInfo AppContext.BaseDirectory)

let fixtures = Path.Combine(root, "tests", "Tributary.Tests", "fixtures")

let utf8 (text: string) = Encoding.UTF8.GetBytes text
let memory (text: string) = ReadOnlyMemory(utf8 text)

/// What is logged, in words: `Warning: the message`, with the stack of an exception. A logger, and the factory of all of them.
type internal Words(least: LogLevel) =
    let words = ConcurrentQueue<string>()
    new() = new Words(LogLevel.Trace)
    member _.All = List.ofSeq words
    member _.Text = String.Join("\n", words)

    member this.With(text: string) =
        this.All |> List.filter _.Contains(text)

    interface ILogger with
        member _.BeginScope _ = null
        member _.IsEnabled level = level >= least

        member this.Log(level, _, state, error, format) =
            if level >= least then
                let detail =
                    match error with
                    | null -> ""
                    | error -> $" {error}"

                words.Enqueue $"{level}: {format.Invoke(state, error)}{detail}"

    interface ILoggerFactory with
        member _.AddProvider _ = ()
        member this.CreateLogger _ = this
        member _.Dispose() = ()

let equal (expected: 't) (actual: 't) =
    if actual <> expected then
        Assert.Fail $"expected %A{expected}\nbut was  %A{actual}"

let isTrue (condition: bool) = Assert.That condition

/// The value of something that must be good.
let good (result: Result<'t, string>) =
    match result with
    | Ok value -> value
    | Error message -> failwith message

let price text = good (Price.parse text)
let size text = good (Size.parse text)
let market text = good (MarketId.Parse text)
let token text = good (TokenId.Parse text)
let seconds (count: int64) = Instant.ofSeconds count

/// A server on a real socket that gives each request the next of its answers, and the last one for ever.
let serving
    (answers: (HttpContext -> Task) list)
    (test: Uri -> ConcurrentQueue<string> -> Task<unit>)
    : Task = task {
    let builder = WebApplication.CreateEmptyBuilder(WebApplicationOptions())

    builder.WebHost.UseKestrelCore().ConfigureKestrel(fun kestrel -> kestrel.Listen(IPAddress.Loopback, 0))
    |> ignore

    use app = builder.Build()
    let heard = ConcurrentQueue<string>()
    let served = ref -1

    app.Run(
        RequestDelegate(fun context -> task {
            context.Request.EnableBuffering() // an answer may read it, too
            use reader = new StreamReader(context.Request.Body, leaveOpen = true)
            let! body = reader.ReadToEndAsync()
            context.Request.Body.Position <- 0L

            let asked =
                $"{context.Request.Method} {context.Request.Path}{context.Request.QueryString} {body}"

            heard.Enqueue(asked.Trim())
            do! answers[min (Interlocked.Increment served) (answers.Length - 1)] context
        })
    )

    do! app.StartAsync()
    do! test (Uri(Seq.head app.Urls)) heard
    do! app.StopAsync(CancellationToken true)
}
