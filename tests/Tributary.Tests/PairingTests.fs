/// `tributary match` over a real file, and a collector that takes on what was confirmed.
[<NUnit.Framework.Parallelizable(NUnit.Framework.ParallelScope.None)>]
module Tributary.Tests.PairingTests

open System
open System.Diagnostics
open System.IO
open System.Text.Json
open System.Threading.Tasks
open NUnit.Framework
open Tributary
open Tributary.Stores
open Tributary.Tests.EngineTests
open Tributary.Tests.Stores.Vocabulary

let private describing exchange id slug question : Market = {
    market with
        Exchange = sound (ExchangeId.Parse exchange)
        Market = marketId id
        Slug = slug
        Question = question
        Outcomes = [|
            for name in [ "Yes"; "No" ] ->
                {
                    Name = name
                    Token = ValueSome(tokenId $"{id}:{name}")
                }
        |]
}

let private some = [
    describing "polymarket" "0x1" "btc-100k" "Will Bitcoin be above $100k on December 31, 2026?"
    describing "polymarket" "0x2" "btc-120k" "Will Bitcoin be above $120k on December 31, 2026?"
    describing "kalshi" "KXBTC-100" "kxbtc-100" "Bitcoin price on Dec 31, 2026: $100,000 or above"
    describing "kalshi" "KXBTC-B120" "kxbtc-b120" "Will BTC be below $120k on Dec 31, 2026?"
    describing "manifold" "F7" "bitcoin-100k" "Bitcoin over 100K on December 31st 2026"
    {
        describing "kalshi" "KXOLD" "kxold" "Will Bitcoin be above $100k on December 31, 2026?" with
            Status = MarketStatus.Resolved
    }
]

let private inFolder (work: string -> string -> Task<unit>) : Task = task {
    let folder = temporaryFolder ()
    let path = Path.Combine(folder, "store.db")

    try
        let store = sound (Sqlite.openForWriting path "main" Synchronous.Normal)
        write store [ batch (some |> List.map described) ]
        close store
        do! work folder path
    finally
        Directory.Delete(folder, true)
}

let private run (folder: string) (path: string) (arguments: string list) =
    KillTests.tributary
        []
        ([ "match"; "--store"; path; "--mapping"; Path.Combine(folder, "matches.yaml") ]
         @ arguments)

let private stored path =
    let store = sound (Sqlite.openForReading path)

    try
        matches store
        |> List.map (fun row -> row.Question, row.Answer, $"{row.Exchange} {row.Token}", row.IsWithdrawn)
        |> List.sort
    finally
        close store

let private standing path =
    let store = sound (Sqlite.openForReading path)

    try
        matches store
        |> List.groupBy (fun row -> row.Question, row.Answer, string row.Token)
        |> List.map (snd >> List.maxBy _.At)
        |> List.filter (fun row -> not row.IsWithdrawn)
        |> List.map (fun row -> row.Question, row.Answer, string row.Token)
        |> List.sort
    finally
        close store

let private proposed (output: string) =
    use document = JsonDocument.Parse output

    [
        for one in document.RootElement.EnumerateArray() do
            let ids = [
                for market in one.GetProperty("markets").EnumerateArray() ->
                    string (market.GetProperty("market").GetString())
            ]

            ids, one.GetProperty("inverted").GetBoolean()
    ]
    |> List.sort

[<Test>]
let ``markets are proposed, confirmed, refused, and no longer proposed`` () : Task =
    inFolder (fun folder path -> task {
        let file = Path.Combine(folder, "matches.yaml")
        let! struct (code, output, errors) = run folder path [ "--json" ]
        equal 0 code
        equal "" errors

        equal
            [
                [ "F7"; "0x1" ], false
                [ "KXBTC-100"; "0x1" ], false
                [ "KXBTC-100"; "F7" ], false
                [ "KXBTC-B120"; "0x2" ], true
            ]
            (proposed output)

        // Nothing was asked for, and nothing is written.
        isTrue (not (File.Exists file))
        equal [] (stored path)

        let! struct (code, output, errors) =
            run folder path [ "--confirm"; "polymarket:0x1"; "kalshi:kxbtc-100" ]

        if code <> 0 then
            Assert.Fail errors

        Assert.That(output.Trim(), Does.EndWith "matches.yaml: confirmed as btc-100k")

        equal
            [
                "btc-100k", "no", "kalshi KXBTC-100:No", false
                "btc-100k", "no", "polymarket 0x1:No", false
                "btc-100k", "yes", "kalshi KXBTC-100:Yes", false
                "btc-100k", "yes", "polymarket 0x1:Yes", false
            ]
            (stored path)

        // A third exchange joins, and the yes of another is the no.
        let! struct (code, _, errors) =
            run folder path [ "--confirm"; "manifold:F7"; "polymarket:btc-100k" ]

        if code <> 0 then
            Assert.Fail errors

        let! struct (code, _, errors) =
            run folder path [
                "--confirm"
                "polymarket:0x2"
                "kalshi:KXBTC-B120"
                "--inverted"
                "kalshi:KXBTC-B120"
                "--as"
                "bitcoin at 120k"
            ]

        if code <> 0 then
            Assert.Fail errors

        equal
            [
                "bitcoin at 120k", "no", "0x2:No"
                "bitcoin at 120k", "no", "KXBTC-B120:Yes"
                "bitcoin at 120k", "yes", "0x2:Yes"
                "bitcoin at 120k", "yes", "KXBTC-B120:No"
                "btc-100k", "no", "0x1:No"
                "btc-100k", "no", "F7:No"
                "btc-100k", "no", "KXBTC-100:No"
                "btc-100k", "yes", "0x1:Yes"
                "btc-100k", "yes", "F7:Yes"
                "btc-100k", "yes", "KXBTC-100:Yes"
            ]
            (standing path)

        let! struct (_, output, _) = run folder path [ "--json" ]
        equal [] (proposed output)
        let! struct (_, output, _) = run folder path []
        Assert.That(output, Does.StartWith "no two markets")

        // Among all there is a resolved one, which is refused.
        let! struct (_, output, _) = run folder path [ "--json"; "--all" ]
        Assert.That(proposed output |> List.map fst, Does.Contain [ "KXOLD"; "0x1" ])

        let! struct (code, _, errors) =
            run folder path [ "--refuse"; "polymarket:0x1"; "kalshi:KXOLD"; "manifold:F7" ]

        if code <> 0 then
            Assert.Fail errors

        let! struct (_, output, _) = run folder path [ "--json"; "--all" ]
        equal [] (proposed output |> List.filter (fun (ids, _) -> List.contains "KXOLD" ids))

        // What a person takes out is withdrawn by the next look, and what they add is taken on.
        File.WriteAllText(
            file,
            "# by hand\nquestions:\n  btc-100k:\n    answers:\n      yes:\n        - {exchange: polymarket, market: '0x1', outcome: yes}\n        - {exchange: kalshi, market: KXBTC-100, outcome: Yes}\n"
        )

        let! struct (code, _, errors) = run folder path []
        equal 0 code
        Assert.That(errors, Does.Contain "0 matches new, 8 withdrawn")
        equal [ "btc-100k", "yes", "0x1:Yes"; "btc-100k", "yes", "KXBTC-100:Yes" ] (standing path)
        let! struct (_, _, errors) = run folder path []
        equal "" errors
    })

[<Test>]
let ``a table has what to type next, and its rows are as many as are asked for`` () : Task =
    inFolder (fun folder path -> task {
        let! struct (code, output, _) =
            run folder path [ "--limit"; "1"; "--min-score"; "0.5" ]

        equal 0 code
        let lines = output.TrimEnd().Split '\n'
        Assert.That(lines[0], Does.StartWith "score")
        Assert.That(output, Does.Contain "1 of 4 proposals; ")
        Assert.That(output, Does.Contain "\n  tributary match --confirm ")
        equal 6 lines.Length
    })

let private slips = [
    [ "--confirm"; "polymarket:0x1" ], 2, "--confirm takes two markets or more"
    [ "--confirm"; "polymarket:0x1"; "polymarket:0x1" ], 2, "polymarket:0x1 is named twice"
    [ "--confirm"; "polymarket:0x1"; "kalsi:K" ], 2, "there is no exchange 'kalsi'; there are: "
    [ "--confirm"; "polymarket:0x1"; "kalshi:K" ], 2, "the store has no market kalshi:K: collect it first"
    [ "--confirm"; "polymarket:0x1"; "kalshi" ], 2, "expected exchange:market"
    [ "--refuse"; "polymarket:0x1" ], 2, "--refuse takes two markets or more"
    [ "--as"; "x" ], 2, "--as and --inverted go with --confirm"
    [ "--min-score"; "2" ], 2, "--min-score takes a number from 0 to 1"
    [ "--limit"; "0" ], 2, "--limit takes a number from 1 on"
    [
        "--confirm"
        "polymarket:0x1"
        "kalshi:KXBTC-100"
        "--inverted"
        "kalshi:KXOLD"
    ],
    2,
    "kalshi:KXOLD is inverted, and not among"
]

let private slipsCases =
    slips |> List.map (fun (a, b, c) -> TestCaseData(box a, box b, box c))

[<TestCaseSource(nameof slipsCases)>]
let ``a slip is said in a line, and nothing is written`` (case: string list * int * string) : Task =
    let arguments, expected, words = case

    inFolder (fun folder path -> task {
        let! struct (code, _, errors) = run folder path arguments
        equal expected code
        Assert.That(errors, Does.Contain words)
        isTrue (not (File.Exists(Path.Combine(folder, "matches.yaml"))))
        equal [] (stored path)
    })

[<Test>]
let ``a mistaken mapping is named with its place by every command that reads it`` () : Task =
    inFolder (fun folder path -> task {
        let config = Path.Combine(folder, "config")
        Directory.CreateDirectory config |> ignore
        File.WriteAllText(Path.Combine(config, "base.yaml"), "")
        let file = Path.Combine(config, Mapping.FileName)
        File.WriteAllText(file, "questions:\n  fed:\n    answer: {}\n")

        for arguments in
            [
                [ "validate-config"; "--config"; config ]
                [ "match"; "--config"; config; "--store"; path ]
                [ "start"; "--config"; config; "--store"; path; "--market"; "x" ]
            ] do
            let! struct (code, _, errors) = KillTests.tributary [] arguments
            equal 78 code
            Assert.That(errors, Does.Contain $"{file}:3:5: unknown key 'answer'; did you mean 'answers'?")

        // A mapping is no environment.
        File.WriteAllText(file, "")

        let! struct (code, _, _) =
            KillTests.tributary [] [ "validate-config"; "--config"; config ]

        equal 0 code

        let! struct (code, _, errors) =
            KillTests.tributary [ "TRIBUTARY_ENV", "matches" ] [ "validate-config"; "--config"; config ]

        equal 78 code
        Assert.That(errors, Does.Contain "TRIBUTARY_ENV names an environment that has no such file")
    })

[<Test; Platform("Linux,MacOsX")>]
let ``a collector takes on the mapping when it starts, and again when the file changes`` () : Task = task {
    let bench =
        Bench {
            Tributary.Server.Simulator.SimulatorOptions.Default with
                Markets = 4
                Limits = false
        }

    use _ = bench
    let! slugs = ReloadTests.slugsOf bench
    let slug = List.head slugs
    let folder = temporaryFolder ()
    let path = Path.Combine(folder, "store.db")
    File.WriteAllText(Path.Combine(folder, "base.yaml"), "http: {listen: off}\n")
    let file = Path.Combine(folder, Mapping.FileName)

    let saying (markets: string list) =
        let item market =
            $"        - {{exchange: polymarket, market: {market}, token: {market}-yes}}\n"

        File.WriteAllText(
            file,
            "questions:\n  rain:\n    answers:\n      yes:\n"
            + String.Join("", List.map item markets)
        )

    saying [ "m1"; "m2" ]

    let info =
        ProcessStartInfo(
            "dotnet",
            [
                KillTests.program "Tributary.Cli"
                "start"
                "--config"
                folder
                "--store"
                path
                "--market"
                slug
                "--exchange-url"
                string bench.Simulator.Address
            ],
            RedirectStandardError = true,
            RedirectStandardOutput = true
        )

    use running = Process.Start info |> Option.ofObj |> Option.get
    running.BeginErrorReadLine()

    let until expected = task {
        let limit = DateTime.UtcNow.AddSeconds 30.0

        let now () =
            if File.Exists path then
                match Sqlite.openForReading path with
                | Ok store ->
                    close store
                    standing path
                | Error _ -> []
            else
                []

        while now () <> expected do
            if DateTime.UtcNow > limit then
                Assert.Fail $"%A{now ()}"

            do! Task.Delay 100
    }

    try
        do! until [ "rain", "yes", "m1-yes"; "rain", "yes", "m2-yes" ]
        saying [ "m2"; "m3" ]
        do! until [ "rain", "yes", "m2-yes"; "rain", "yes", "m3-yes" ]

        // What another file says has to wait: a store has one writer.
        let other = Path.Combine(folder, "other.yaml")
        File.WriteAllText(other, "questions:\n")

        let! struct (code, _, errors) =
            KillTests.tributary [] [ "match"; "--store"; path; "--mapping"; other ]

        equal 0 code
        Assert.That(errors, Does.Contain "A collector writes to")
        File.WriteAllText(file, "questions:\n")
        do! until []
        running.Kill()
    finally
        if not running.HasExited then
            running.Kill()

        running.WaitForExit()
        Directory.Delete(folder, true)
}
