/// The web page of a running collector: what it is made of, and how it looks in a browser.
[<NUnit.Framework.Parallelizable(NUnit.Framework.ParallelScope.None)>]
module Tributary.Tests.WebTests

open System
open System.IO
open System.Net
open System.Net.Http
open System.Text.Json
open System.Text.Json.Nodes
open System.Threading
open System.Threading.Tasks
open Deque.AxeCore.Playwright
open Microsoft.Playwright
open NUnit.Framework
open Tributary
open Tributary.Server
open Tributary.Server.Simulator
open Tributary.Tests.EngineTests

let private live (collector: CollectorSettings) = {
    collector with
        Live = { collector.Live with Enabled = true }
}

/// A collector that has stored something, and its door with the page.
let private with' token (test: Bench -> Uri -> string -> Task<unit>) : Task = task {
    let bench =
        Bench {
            SimulatorOptions.Default with
                Markets = 4
                Limits = false
                TradesPerSecond = 20.0
                MessagesPerSecond = 50.0
        }

    use _ = bench
    let store = bench.OpenStore()
    let! engine = bench.StartWith(store, live)

    // The settings of the bench name another file than its store.
    let reading =
        match Tributary.Stores.Sqlite.openForReading bench.Path with
        | Ok store -> store
        | Error fault -> failwith (string fault)

    let web = new Web(engine, reading, TimeProvider.System)

    let! door =
        Door.StartAsync(
            {
                Address = IPAddress.Loopback
                Port = 0
                Token = token
                Web = Some web
            },
            Shown.ofEngine engine,
            CancellationToken.None
        )

    let isReady () =
        let markets = engine.Pulse().Markets

        markets.Length = 4
        && markets |> List.exists (fun market -> market.Trades > 5L && market.Deltas > 5L)

    do! bench.Until("something is stored", isReady)

    let busiest =
        engine.Pulse().Markets
        |> List.maxBy (fun market -> min market.Trades market.Deltas)

    do! test bench door.Address busiest.Slug
    do! (door :> IAsyncDisposable).DisposeAsync()
    do! (web :> IAsyncDisposable).DisposeAsync()
    let! _ = engine.StopAsync(TimeSpan.FromSeconds 10.0)
    ()
}

let private json (client: HttpClient) (path: string) = task {
    let! text = client.GetStringAsync path
    return JsonDocument.Parse(text).RootElement
}

[<Test>]
let ``the page's files come with headers that let nothing else in`` () =
    with' None (fun _ address _ -> task {
        use client = new HttpClient(BaseAddress = address)

        for path, kind in [ "", "text/html"; "page.js", "text/javascript"; "page.css", "text/css" ] do
            use! response = client.GetAsync path
            equal HttpStatusCode.OK response.StatusCode

            equal
                (Some kind)
                (response.Content.Headers.ContentType
                 |> Option.ofObj
                 |> Option.map (fun it -> string it.MediaType))

            let policy = response.Headers.GetValues "Content-Security-Policy" |> Seq.head
            Assert.That(policy, Does.StartWith "default-src 'none'; script-src 'self'")
            equal [ "nosniff" ] (List.ofSeq (response.Headers.GetValues "X-Content-Type-Options"))

        // A page that comes from elsewhere under a name that leads here gets nothing.
        use request = new HttpRequestMessage(HttpMethod.Get, "status")
        request.Headers.Host <- "rebound.example"
        use! refused = client.SendAsync request
        equal HttpStatusCode.MisdirectedRequest refused.StatusCode
    })

[<Test>]
let ``it answers what the page asks for`` () =
    with' None (fun _ address slug -> task {
        use client = new HttpClient(BaseAddress = address)
        let! market = json client $"web/market?slug={slug}"
        equal slug (string (market.GetProperty("slug").GetString()))
        equal 2 (market.GetProperty("books").GetArrayLength())
        Assert.That(market.GetProperty("trades").GetArrayLength(), Is.InRange(1, 200))
        let! prices = json client "web/prices"
        Assert.That(prices.EnumerateObject() |> Seq.isEmpty, Is.False)
        let! calendar = json client "web/calendar"

        let text (name: string) =
            string (calendar.GetProperty(name).GetString())

        equal 60 (text "days").Length
        // Nothing but today was collected, and not all of it.
        Assert.That(text "days", Does.Match "^n{58}[np][wp]$")
        Assert.That(text "minutes", Does.Match "^n+[nwp]+$")
        let! gaps = json client "web/gaps"
        equal JsonValueKind.Array gaps.ValueKind
        use! unknown = client.GetAsync "web/market?slug=nobody"
        let! said = unknown.Content.ReadAsStringAsync()
        equal HttpStatusCode.NotFound unknown.StatusCode
        Assert.That(said, Does.Contain "nothing is stored of 'nobody'")
    })

[<Test>]
let ``a market's changes come as server-sent events, and whoever leaves is let go`` () =
    with' None (fun _ address slug -> task {
        use client = new HttpClient(BaseAddress = address)
        use patience = new CancellationTokenSource(TimeSpan.FromSeconds 20.0)

        use! response =
            client.GetAsync(
                $"web/events?slug={slug}",
                HttpCompletionOption.ResponseHeadersRead,
                patience.Token
            )

        use! stream = response.Content.ReadAsStreamAsync patience.Token
        use reader = new StreamReader(stream)
        let seen = Collections.Generic.List<string>()

        while not (
            seen |> Seq.filter ((=) "event: books") |> Seq.length >= 2
            && seen.Contains "event: trades"
        ) do
            let! line = reader.ReadLineAsync patience.Token
            seen.Add(string line)

        Assert.That(seen |> Seq.exists (fun line -> line.StartsWith "data: [{\"book\":{"))
    })

[<Test>]
let ``with a token the page comes, and tells nothing without it`` () =
    with' (Some "open sesame") (fun _ address slug -> task {
        use client = new HttpClient(BaseAddress = address)
        use! page = client.GetAsync ""
        equal HttpStatusCode.OK page.StatusCode

        for path in
            [
                "web/prices"
                "web/gaps"
                $"web/market?slug={slug}"
                $"web/events?slug={slug}"
            ] do
            use! refused = client.GetAsync path
            equal HttpStatusCode.Unauthorized refused.StatusCode
    })

[<Test>]
let ``fifty listen, the next one is told so, and takes the place of one who left`` () =
    with' None (fun bench address slug -> task {
        use client =
            new HttpClient(new SocketsHttpHandler(MaxConnectionsPerServer = 100), true)

        client.BaseAddress <- address

        let listen () =
            client.GetAsync($"web/events?slug={slug}", HttpCompletionOption.ResponseHeadersRead)

        let! listening = [ for _ in 1..50 -> listen () ] |> Task.WhenAll
        equal [ HttpStatusCode.OK ] (listening |> Array.map _.StatusCode |> Array.distinct |> List.ofArray)
        use! refused = listen ()
        equal HttpStatusCode.ServiceUnavailable refused.StatusCode
        let! said = refused.Content.ReadAsStringAsync()
        Assert.That(said, Does.Contain "50 pages listen already")
        listening |> Array.iter _.Dispose()
        let mutable isAdmitted = false

        do!
            bench.Until(
                "there is room again",
                fun () ->
                    use again = listen().Result
                    isAdmitted <- again.StatusCode = HttpStatusCode.OK
                    isAdmitted
            )
    })

// ---- in a browser

let private chromium =
    [ "/usr/bin/chromium"; "/usr/bin/chromium-browser" ] |> List.tryFind File.Exists

/// Where the pictures are kept: beside the tests, not in the project.
let private pictures = Path.Combine(AppContext.BaseDirectory, "screenshots")

let private inBrowser (test: IBrowser -> Task<unit>) = task {
    match chromium with
    | None -> Assert.Ignore "there is no Chromium here: Debian's package chromium has it"
    | Some program ->
        Directory.CreateDirectory pictures |> ignore
        use! playwright = Playwright.CreateAsync()

        let! browser =
            playwright.Chromium.LaunchAsync(
                BrowserTypeLaunchOptions(
                    ExecutablePath = program,
                    Args = [
                        "--no-sandbox"
                        "--disable-gpu"
                        "--disable-quic"
                        "--no-first-run"
                        "--disable-background-networking"
                        "--disable-component-update"
                        "--disable-sync"
                    ]
                )
            )

        do! test browser
        do! browser.CloseAsync()
}

[<Test; Platform "Linux">]
let ``every view stands in a browser, dark and light, wide and on a phone, and can be used by everybody`` () =
    with' None (fun bench address slug ->
        inBrowser (fun browser -> task {
            for scheme, width in
                [
                    ColorScheme.Light, 1100
                    ColorScheme.Dark, 1100
                    ColorScheme.Light, 360
                    ColorScheme.Dark, 360
                ] do
                let! context =
                    browser.NewContextAsync(
                        BrowserNewContextOptions(
                            ColorScheme = scheme,
                            ViewportSize = ViewportSize(Width = width, Height = 800)
                        )
                    )

                let! page = context.NewPageAsync()
                let wrong = Collections.Generic.List<string>()
                page.PageError.Add(fun error -> wrong.Add error)

                page.Console.Add(fun said ->
                    if said.Type = "error" then
                        wrong.Add said.Text)

                for name, hash, waited in
                    [
                        "overview", "/", "text=How it is"
                        "markets", "/markets", $"text={slug}"
                        "market", $"/market/{slug}", "text=Latest trades"
                        "coverage", "/coverage", "text=By minute"
                        "gaps", "/gaps", "text=Gaps of the last seven days"
                    ] do
                    let! _ = page.GotoAsync $"{address}#{hash}"
                    do! page.Locator(waited).First.WaitForAsync()
                    let! found = page.RunAxe()

                    let violations = [
                        for violation in found.Violations ->
                            let where =
                                String.Join(
                                    " ",
                                    violation.Nodes |> Seq.map (fun node -> node.Html) |> Seq.truncate 3
                                )

                            $"{violation.Id}: {violation.Help} {where}"
                    ]

                    equal [] (violations |> List.map (fun text -> $"{name} {scheme} {width}: {text}"))
                    // Nothing sticks out to the side of a phone.
                    let! tooWide =
                        page.EvaluateAsync<bool>
                            "document.documentElement.scrollWidth > document.documentElement.clientWidth"

                    Assert.That(tooWide, Is.False, $"{name} at {width}")

                    let! _ =
                        page.ScreenshotAsync(
                            PageScreenshotOptions(
                                Path =
                                    Path.Combine(
                                        pictures,
                                        $"{name}-{scheme}-{width}.png".ToLowerInvariant()
                                    )
                            )
                        )

                    ()

                equal [] (List.ofSeq wrong)
                do! context.CloseAsync()

            TestContext.Out.WriteLine $"pictures: {pictures}"
            ignore bench
        }))

[<Test; Platform "Linux">]
let ``the keyboard sorts and filters, and a market's depth moves by itself`` () =
    with' None (fun _ address slug ->
        inBrowser (fun browser -> task {
            let! page = browser.NewPageAsync()
            let! _ = page.GotoAsync $"{address}#/markets"
            do! page.Locator($"text={slug}").First.WaitForAsync()
            do! page.Locator("[data-sort=slug]").FocusAsync()
            do! page.Keyboard.PressAsync "Enter"
            let! order = page.Locator("tbody th").AllInnerTextsAsync()
            equal (order |> List.ofSeq |> List.sort) (List.ofSeq order)
            let! sorted = page.Locator("th[aria-sort=ascending]").InnerTextAsync()
            equal "Market" sorted
            do! page.Locator("#filter").FocusAsync()
            do! page.Keyboard.TypeAsync slug
            let! left = page.Locator("tbody th").AllInnerTextsAsync()
            equal [ slug ] (List.ofSeq left)
            do! page.Locator("tbody th a").FocusAsync()
            do! page.Keyboard.PressAsync "Enter"
            do! page.Locator("text=Latest trades").WaitForAsync()
            let! before = page.Locator(".ladders").InnerTextAsync()

            // Without asking for the page again.
            let limit = DateTime.UtcNow.AddSeconds 20.0
            let mutable now = before

            while now = before && DateTime.UtcNow < limit do
                do! Task.Delay 200
                let! text = page.Locator(".ladders").InnerTextAsync()
                now <- text

            Assert.That(now, Is.Not.EqualTo before)
        }))

[<Test; Platform "Linux">]
let ``a token is asked for once, and kept for the tab alone`` () =
    with' (Some "open sesame") (fun _ address _ ->
        inBrowser (fun browser -> task {
            let! page = browser.NewPageAsync()
            let! _ = page.GotoAsync(string address)
            do! page.Locator("#token").WaitForAsync()
            do! page.Locator("#token").FillAsync "open sesame"
            do! page.Keyboard.PressAsync "Enter"
            do! page.Locator("text=How it is").WaitForAsync()
            let! _ = page.ReloadAsync()
            do! page.Locator("text=How it is").WaitForAsync()
            let! kept = page.EvaluateAsync<int> "localStorage.length"
            equal 0 kept
        }))

/// What the page asks for at a path is answered with this instead.
let private answering (page: IPage) (path: string) (answer: string -> string) =
    page.RouteAsync(
        path,
        Func<IRoute, Task>(fun route -> task {
            let! response = route.FetchAsync()
            let! text = response.TextAsync()
            do! route.FulfillAsync(RouteFulfillOptions(Response = response, Body = answer text))
        })
    )

[<Test; Platform "Linux">]
let ``what an exchange calls a market is shown as text, whatever it says`` () =
    with' None (fun _ address slug ->
        inBrowser (fun browser -> task {
            let! page = browser.NewPageAsync()
            let evil = "<img src=x onerror='document.title=1'><b>bold</b>"

            let! _ =
                answering page "**/web/market?*" (fun text ->
                    let answer = (JsonNode.Parse text |> Option.ofObj |> Option.get).AsObject()
                    answer["question"] <- evil

                    for trade in (answer["trades"] |> Option.ofObj |> Option.get).AsArray() do
                        (trade |> Option.ofObj |> Option.get).["outcome"] <- evil

                    answer.ToJsonString())

            let! _ = page.GotoAsync $"{address}#/market/{slug}"
            do! page.Locator("text=Latest trades").WaitForAsync()
            let! title = page.Locator("main h2").First.InnerTextAsync()
            equal evil title
            let! elements = page.Locator("main img, main b").CountAsync()
            equal 0 elements
        }))

[<Test; Platform "Linux">]
let ``of two thousand markets two hundred are shown, and a filter finds the others`` () =
    with' None (fun _ address _ ->
        inBrowser (fun browser -> task {
            let! page = browser.NewPageAsync()

            let! _ =
                answering page "**/status" (fun text ->
                    let answer = (JsonNode.Parse text |> Option.ofObj |> Option.get).AsObject()
                    let markets = (answer["markets"] |> Option.ofObj |> Option.get).AsArray()
                    let first = markets[0] |> Option.ofObj |> Option.get
                    markets.Clear()

                    for number in 1..2_000 do
                        let market = first.DeepClone()
                        market["slug"] <- $"market-{number:D4}"
                        markets.Add market

                    answer.ToJsonString())

            let! _ = page.GotoAsync $"{address}#/markets"
            do! page.Locator("text=The first 200 of 2000").WaitForAsync()
            let! rows = page.Locator("tbody tr").CountAsync()
            equal 200 rows
            do! page.Locator("#filter").FillAsync "market-1999"
            let! left = page.Locator("tbody th").AllInnerTextsAsync()
            equal [ "market-1999" ] (List.ofSeq left)
        }))

[<Test; Platform "Linux">]
let ``the price of each outcome is drawn when it is chosen`` () =
    with' None (fun _ address slug ->
        inBrowser (fun browser -> task {
            let! page = browser.NewPageAsync()
            let! _ = page.GotoAsync $"{address}#/market/{slug}"
            do! page.Locator("#outcome").WaitForAsync()
            let! names = page.Locator("#outcome option").AllInnerTextsAsync()
            equal 2 names.Count

            for name in names do
                let! _ = page.Locator("#outcome").SelectOptionAsync name
                let chart = page.Locator("svg.chart, main > div > .dim").First
                do! chart.WaitForAsync()
                let! label = chart.GetAttributeAsync "aria-label"

                match label with
                | null -> () // no two trades of it yet
                | label -> Assert.That(label, Does.StartWith $"price of {name}: ")
        }))
