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
