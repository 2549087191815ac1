/// Books that a live recording of the simulated exchange gives back, against the books that the exchange truly had.
[<NUnit.Framework.Parallelizable(NUnit.Framework.ParallelScope.None)>]
module Tributary.Tests.BookCommandTests

open System
open System.IO
open System.Text.Json
open System.Threading
open System.Threading.Tasks
open Microsoft.Extensions.Logging.Abstractions
open Microsoft.Extensions.Logging
open NUnit.Framework
open Tributary
open Tributary.Cli
open Tributary.Server.Simulator
open Tributary.Stores

let private sound (result: Result<'t, OpenFault>) =
    match result with
    | Ok value -> value
    | Error fault -> failwith (string fault)

let private tributary = KillTests.tributary []

/// Records everything that an exchange has for some seconds, and hands over the file and the moment of the stop.
let private recorded
    (options: SimulatorOptions)
    (length: TimeSpan)
    (during: Simulator -> string -> Task<unit>)
    (after: Simulator -> string -> Instant -> Task<unit>)
    = task {
    let folder = Directory.CreateTempSubdirectory("tributary-book-").FullName
    let path = Path.Combine(folder, "store.db")
    use! simulator = Simulator.StartAsync(options, CancellationToken.None)

    let settings =
        Settings.defaults Setup.known
        |> Setup.askingAt simulator.Address
        |> Setup.every (TimeSpan.FromSeconds 1.0) (TimeSpan.FromSeconds 2.0) (TimeSpan.FromSeconds 10.0)
        |> Setup.onFirst (fun collector -> {
            collector with
                Discovery = {
                    collector.Discovery with
                        Enabled = true
                }
        })

    let store = sound (Sqlite.openForWriting path "main" Synchronous.Normal)

    let words = new Words(LogLevel.Information)

    let! engine =
        Engine.StartAsync(
            EngineOptions.Create(settings, store, TimeProvider.System, words),
            CancellationToken.None
        )

    // On a busy machine live books may take their time to begin: the recording counts from there.
    let reader = sound (Sqlite.openForReading path)
    let patience = DateTime.UtcNow + TimeSpan.FromSeconds 60.0
    let mutable isLive = false

    while not isLive && DateTime.UtcNow < patience do
        let! checkpoints = reader.Checkpoints()
        isLive <- checkpoints |> List.exists (fun one -> one.Stream = Stream.Depth)
        do! Task.Delay 200

    if not isLive then
        let! books = reader.Books Query.everything
        let! gaps = reader.Gaps Query.everything
        let reasons = books |> List.countBy _.Reason
        let log = String.concat "\n" words.All
        Assert.Fail $"no live book began\n%A{reasons}\n%A{gaps}\n{log}"

    do! reader.Close()
    let until = DateTime.UtcNow + length
    do! during simulator path
    do! Task.Delay(max TimeSpan.Zero (until - DateTime.UtcNow))
    let stopped = Instant.ofDateTimeOffset (TimeProvider.System.GetUtcNow())
    let! report = engine.StopAsync(TimeSpan.FromSeconds 10.0)
    equal None report.Undrained
    do! after simulator path stopped
    Directory.Delete(folder, true)
}

let internal truly (levels: struct (int64 * int64)[]) = [ for struct (price, size) in levels -> price, size ]

let internal ours (levels: Level[]) = [ for level in levels -> level.Price.Millionths, level.Size.Millionths ]

/// What the exchange truly did about the moment of a book that is not the true one: the changes of its levels, and what
/// was done to the messages.
let private circumstances (simulator: Simulator) (token: TokenId) (book: KnownBook) (moment: Instant) =
    let name = string token

    let isNear (millis: int64) =
        millis >= book.At.Micros / 1_000L - 1_000L
        && millis <= moment.Micros / 1_000L + 1_000L

    let levels (truth: TrueBook) =
        Set.ofList (List.map (fun level -> "bid", level) (truly truth.Bids))
        + Set.ofList (List.map (fun level -> "ask", level) (truly truth.Asks))

    let held =
        Set.ofList (List.map (fun level -> "bid", level) (ours book.Bids))
        + Set.ofList (List.map (fun level -> "ask", level) (ours book.Asks))

    let states = [
        for state in
            simulator.Ledger.States name
            |> Array.filter (fun state -> isNear state.Timestamp) do
            match simulator.Ledger.BookAt(name, state.Timestamp) with
            | ValueSome truth ->
                let missing = Set.difference (levels truth) held |> Set.toList
                let excess = Set.difference held (levels truth) |> Set.toList
                $"  {Instant.ofMillis state.Timestamp} {state.Hash}: not in ours %A{missing}, ours alone %A{excess}"
            | ValueNone -> ()
    ]

    let injections = [
        for one in simulator.Ledger.Injections do
            if
                isNear (one.At / 1_000L)
                && (one.Tokens.Length = 0 || Array.contains name one.Tokens)
            then
                $"  {Instant.ofMicros one.At} session {one.Session}: {one.Kind} {one.Detail}"
    ]

    String.concat "\n" (states @ injections)

/// Whether all that a book lacks is a level's total that never came and that the next recorded change sets anew: then every state that was told
/// is the true one, and no hash can show that there was another in between.
let private isOvertold
    (simulator: Simulator)
    (store: Store)
    (extent: Rebuild.Extent)
    (book: KnownBook)
    (moment: Instant)
    = task {
    let truth (at: Instant) =
        match simulator.Ledger.BookAt(string extent.Token, at.Micros / 1_000L) with
        | ValueSome truth -> set (truly truth.Bids), set (truly truth.Asks)
        | ValueNone -> failwith "no truth"

    let held = set (ours book.Bids), set (ours book.Asks)

    let apart (one: Set<int64 * int64>) other =
        (one - other) + (other - one) |> Set.map fst

    let wasLost =
        simulator.Ledger.Injections
        |> Array.exists (fun one ->
            one.Kind = "dropped"
            && Array.contains (string extent.Token) one.Tokens
            && one.At > book.At.Micros
            && one.At <= moment.Micros)

    let! next =
        store.Deltas {
            Query.everything with
                Token = ValueSome extent.Token
                Since = Instant.ofMicros (moment.Micros + 1L)
                Limit = 100
        }

    match next with
    | first :: _ when wasLost && truth book.At = held ->
        let sets side =
            next
            |> List.filter (fun change -> change.At = first.At && change.Side = side)
            |> List.map _.Price.Millionths
            |> set

        let bids, asks = truth moment

        return
            Set.isSubset (apart bids (fst held)) (sets Side.Buy)
            && Set.isSubset (apart asks (snd held)) (sets Side.Sell)
    | _ -> return false
}

/// Asks for the books of 1,000 random moments between a token's first whole book and the stop: how many are known; one that differs from
/// the truth fails, unless nothing that was told could show it.
let private compared (simulator: Simulator) path (stopped: Instant) = task {
    let store = sound (Sqlite.openForReading path)
    let random = Random 20261125
    let! markets = store.Markets()

    let tokens = [|
        for market in markets do
            yield! market.Tokens
    |]

    let! extents = tokens |> Array.map (Rebuild.extent store) |> Task.WhenAll
    // The share is of the moments between the first state of a token's live book and its last sign of life.
    let mutable known, asked, live = 0, 0, 0
    let mutable overtold = 0
    let wrong = ResizeArray<string>()
    let whys = ResizeArray<Ignorance>()

    while asked < 1_000 do
        let extent = extents[random.Next extents.Length]

        let! books =
            store.Books {
                Query.everything with
                    Token = ValueSome extent.Token
                    Limit = 100
            }

        match books with
        | [] -> failwith $"nothing is recorded of {extent.Token}"
        | first :: _ ->
            asked <- asked + 1
            let at = first.At.Micros + random.NextInt64(stopped.Micros - first.At.Micros)
            let moment = Instant.ofMicros at
            let! answer = Rebuild.bookAt store extent moment

            let isLive =
                match extent.LiveSince, extent.LastSign with
                | ValueSome since, ValueSome sign -> since <= moment && moment <= sign
                | _ -> false

            if isLive then
                live <- live + 1

            match answer, simulator.Ledger.BookAt(string extent.Token, at / 1_000L) with
            | BookAt.NotKnown(_, _, why), _ -> whys.Add why
            | BookAt.Known book, ValueSome truth when
                ours book.Bids = truly truth.Bids && ours book.Asks = truly truth.Asks
                ->
                if isLive then
                    known <- known + 1
            | BookAt.Known book, ValueSome truth ->
                let! isOvertold = isOvertold simulator store extent book moment

                if isOvertold then
                    overtold <- overtold + 1
                else
                    wrong.Add
                        $"{extent.Token} at {moment}: state of {book.At} ({Verdict.text book.Verdict} {Doubt.text book.Doubt}, base {book.Base} {Reason.text book.Reason}, {book.Changes} changes), true state of {Instant.ofMillis truth.Timestamp}; sign {extent.LastSign}, proven {extent.Proven}\n{circumstances simulator extent.Token book moment}"
            | BookAt.Known _, ValueNone -> wrong.Add $"{extent.Token} at {moment}: no truth"

    let why =
        whys
        |> Seq.countBy string
        |> Seq.map (fun (why, times) -> $"{times} x {why}")
        |> String.concat "; "

    TestContext.Out.WriteLine $"{known} of {live} known, {overtold} lost without a trace; {why}"
    do! store.Close()

    if wrong.Count > 0 then
        let examples = wrong |> Seq.truncate 10 |> String.concat "\n"
        Assert.Fail $"{wrong.Count} of {asked} books are not the true ones\n{examples}"

    return float known / float (max 1 live)
}

let private exchange = {
    SimulatorOptions.Default with
        Markets = 6
        Limits = false
        TradesPerSecond = 10.0
        MessagesPerSecond = 150.0
}

[<Test>]
let ``any moment of a recording gives the true book back, and the command shows it while it is recorded`` () =
    recorded
        exchange
        (TimeSpan.FromSeconds 12.0)
        (fun _ path -> task {
            do! Task.Delay 6_000
            let store = sound (Sqlite.openForReading path)
            let! markets = store.Markets()
            do! store.Close()
            let market = markets |> List.head
            let outcome = market.Outcomes[0]
            let name = $"{market.Slug}:{outcome.Name.ToLowerInvariant()}"

            let! struct (code, output, errors) =
                tributary [ "book"; name; "--store"; path; "--depth"; "3"; "--json" ]

            Assert.That(code, Is.EqualTo Terminal.Exit.Done, errors)
            use answer = JsonDocument.Parse output
            let field (name: string) = answer.RootElement.GetProperty name
            isTrue ((field "known").GetBoolean())
            equal (string outcome.Token.Value) (string ((field "token").GetString()))
            isTrue ((field "bids").GetArrayLength() <= 3)
            let! struct (code, output, _) = tributary [ "book"; name; "--store"; path ]
            equal Terminal.Exit.Done code
            Assert.That(output, Does.Contain "best bid")

            let! struct (code, output, _) =
                tributary [ "book"; name; "--store"; path; "--at"; "3d" ]

            equal Terminal.Exit.Failed code
            Assert.That(output, Does.Contain "not known before")
            let! struct (code, _, errors) = tributary [ "book"; market.Slug; "--store"; path ]
            equal Terminal.Exit.Usage code
            Assert.That(errors, Does.Contain $"{market.Slug}:{outcome.Name}")

            let! struct (code, _, errors) =
                tributary [ "book"; market.Slug + "x"; "--store"; path ]

            equal Terminal.Exit.Failed code
            Assert.That(errors, Does.Contain $"did you mean '{market.Slug}'")

            let! struct (code, _, _) =
                tributary [ "book"; name; "--store"; path; "--at"; "soon" ]

            equal Terminal.Exit.Usage code
        })
        (fun simulator path stopped -> task {
            let! share = compared simulator path stopped
            Assert.That(share, Is.GreaterThanOrEqualTo 0.95)
        })

[<Test>]
let ``whatever the market channel does wrong, a book is the true one or not known`` () =
    recorded
        {
            exchange with
                StreamFaults = StreamFault.all |> List.map fst |> Set.ofList
                StreamFaultRate = 0.005
        }
        (TimeSpan.FromSeconds 20.0)
        (fun _ _ -> task { () })
        (fun simulator path stopped -> task {
            let! share = compared simulator path stopped
            Assert.That(share, Is.GreaterThan 0.0)
        })

[<Test>]
let ``tap shows what was asked for, and ends by itself`` () : Task = task {
    use! simulator = Simulator.StartAsync(exchange, CancellationToken.None)

    let! found =
        Ask.markets
            {
                (Setup.askingAt simulator.Address (Settings.defaults Setup.known)).Collectors.Head with
                    Discovery.Enabled = true
            }
            TimeProvider.System
            Logs.none
            CancellationToken.None

    let slug =
        match found with
        | Ok found -> (fst found.Choices.Head).Slug
        | Error message -> failwith message

    let arguments = [
        "tap"
        "--market"
        slug
        "--exchange-url"
        string simulator.Address
        "--for"
        "30s"
    ]

    let! struct (code, output, errors) =
        tributary (arguments @ [ "--kind"; "delta,book"; "--limit"; "20"; "--json" ])

    Assert.That(code, Is.EqualTo Terminal.Exit.Done, errors)
    let lines = output.Split('\n', StringSplitOptions.RemoveEmptyEntries)
    equal 20 lines.Length

    for line in lines do
        use event = JsonDocument.Parse line
        Assert.That(string (event.RootElement.GetProperty("event").GetString()), Does.StartWith "order_book")

    let! struct (code, output, _) =
        tributary (arguments @ [ "--kind"; "delta"; "--limit"; "3" ])

    equal Terminal.Exit.Done code

    isTrue (
        output.Split('\n', StringSplitOptions.RemoveEmptyEntries)
        |> Array.forall _.Contains(slug.Substring(0, 8))
    )

    let! struct (code, _, errors) = tributary (arguments @ [ "--kind"; "fills" ])
    equal Terminal.Exit.Usage code
    Assert.That(errors, Does.Contain "trade, book, delta, gap, market")
}
