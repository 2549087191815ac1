/// `tributary tap`: what an exchange tells, as it tells it, decoded and judged; nothing is stored.
module Tributary.Cli.Tapping

open System
open System.Collections.Generic
open System.IO
open System.Text
open System.Threading
open System.Threading.Tasks
open Argu
open Microsoft.Extensions.Logging
open Tributary
open Tributary.Cli.Arguments
open Tributary.Cli.Commands
open Tributary.Cli.Terminal
open Tributary.Stores

let kinds = [ "trade"; "book"; "delta"; "gap"; "market" ]

let private kindOf event =
    match event with
    | MarketEvent.Trade _ -> "trade"
    | MarketEvent.Book _ -> "book"
    | MarketEvent.Delta _ -> "delta"
    | MarketEvent.Gap _ -> "gap"
    | MarketEvent.Market _ -> "market"

let private kindsFrom (texts: string list) =
    let words = [
        for text in texts do
            for word in
                text.Split(',', StringSplitOptions.RemoveEmptyEntries ||| StringSplitOptions.TrimEntries) do
                if List.contains word kinds then
                    word
                else
                    let names = String.concat ", " kinds
                    refuse Exit.Usage $"'{word}' is not a kind of event; they are {names}"
    ]

    Set.ofList (if words.IsEmpty then kinds else words)

/// Which events are shown.
type Filter = {
    Kinds: Set<string>
    /// Empty is all of them.
    Tokens: Set<string>
    /// Of trades and changes: smaller ones are left out.
    MinSize: Size voption
} with

    member private this.Has(token: TokenId) =
        this.Tokens.IsEmpty || this.Tokens.Contains(string token)

    member private this.IsLarge(size: Size) =
        match this.MinSize with
        | ValueSome least -> size.Millionths >= least.Millionths
        | ValueNone -> true

    member this.Wants event =
        this.Kinds.Contains(kindOf event)
        && (match event with
            | MarketEvent.Trade trade -> this.Has trade.Token && this.IsLarge trade.Size
            | MarketEvent.Delta delta -> this.Has delta.Token && this.IsLarge delta.Size
            | MarketEvent.Book book -> this.Has book.Token
            | MarketEvent.Gap gap ->
                (match gap.Token with
                 | ValueSome token -> this.Has token
                 | ValueNone -> true)
            | MarketEvent.Market market -> this.Tokens.IsEmpty || market.Tokens |> Array.exists this.Has)

/// What markets and tokens are called. Learns from the descriptions that pass, and looks up those that passed before.
type private Directory(store: Store) =
    let slugs = Dictionary<string, string>()
    let outcomes = Dictionary<string, string>()

    let learn (market: Market) =
        slugs[string market.Market] <- market.Slug

        for outcome in market.Outcomes do
            match outcome.Token with
            | ValueSome token -> outcomes[string token] <- outcome.Name
            | ValueNone -> ()

    let find (known: Dictionary<string, string>) key =
        match known.TryGetValue key with
        | true, name -> name
        | _ ->
            // The store answers from memory.
            store.Markets().Result |> List.iter learn

            match known.TryGetValue key with
            | true, name -> name
            | _ ->
                known[key] <- cut 12 key
                known[key]

    member _.Learn(market: Market) = learn market
    member _.Slug(market: MarketId) = find slugs (string market)
    member _.Outcome(token: TokenId) = find outcomes (string token)

let private clockTime (at: Instant) =
    (Instant.toDateTimeOffset at).ToString "HH:mm:ss.fff"

let private judged verdict doubt =
    match Doubt.text doubt with
    | "" -> Verdict.text verdict
    | doubt -> $"{Verdict.text verdict} ({doubt})"

/// One event as one line of columns for a person: time, slug, outcome, kind, side, price, size, verdict.
let private text (names: Directory) event =
    let columns (at: Instant) slug outcome kind side price size rest =
        $"%s{clockTime at}  %-32s{cut 32 slug}  %-8s{cut 8 outcome}  %-6s{kind}  %-4s{side}  %8s{price}  %12s{size}  %s{rest}"
            .TrimEnd()

    match event with
    | MarketEvent.Trade trade ->
        columns
            trade.At
            (names.Slug trade.Market)
            (names.Outcome trade.Token)
            "trade"
            (Side.text trade.Side)
            (string trade.Price)
            (string trade.Size)
            (Source.text trade.Source)
    | MarketEvent.Delta delta ->
        columns
            delta.At
            (names.Slug delta.Market)
            (names.Outcome delta.Token)
            "delta"
            (if delta.Side = Side.Buy then "bid" else "ask")
            (string delta.Price)
            (string delta.Size)
            (judged delta.Verdict delta.Doubt)
    | MarketEvent.Book book ->
        let best (level: Level voption) =
            match level with
            | ValueSome level -> string level.Price
            | ValueNone -> "-"

        columns
            book.At
            (names.Slug book.Market)
            (names.Outcome book.Token)
            "book"
            ""
            $"{best book.BestBid}/{best book.BestAsk}"
            $"{book.Bids.Length}+{book.Asks.Length}"
            $"{judged book.Verdict book.Doubt}, {Reason.text book.Reason}"
    | MarketEvent.Gap gap ->
        let until =
            match gap.Until with
            | ValueSome until -> $"until {clockTime until}"
            | ValueNone -> "open"

        columns
            gap.Since
            (names.Slug gap.Market)
            (match gap.Token with
             | ValueSome token -> names.Outcome token
             | ValueNone -> "")
            "gap"
            ""
            ""
            ""
            $"{gap.Stream}, {until}, {gap.Cause}"
    | MarketEvent.Market market ->
        columns
            (ValueOption.defaultValue market.Received market.Updated)
            market.Slug
            ""
            "market"
            ""
            ""
            ""
            $"{market.Status}: {market.Question}"

let tap (common: Common) (arguments: ParseResults<TapArguments>) = task {
    let markets = arguments.GetResults TapArguments.Market
    let events = arguments.GetResults TapArguments.Event

    let configured =
        settingsFrom (arguments.TryGetResult TapArguments.Config)
        |> meaning (arguments.TryGetResult TapArguments.Exchange)
        |> askInstead (arguments.TryGetResult TapArguments.Exchange_Url)

    let settings =
        // Whoever names markets wants to see those and no others.
        (if markets.IsEmpty && events.IsEmpty then
             configured
         else
             configured
             |> Setup.onFirst (fun collector -> {
                 collector with
                     Markets = []
                     Discovery = {
                         collector.Discovery with
                             Enabled = false
                     }
             })
             |> Setup.picking markets events)
        |> Setup.onFirst (fun collector -> {
            collector with
                Lookback = TimeSpan.Zero
        })

    let filter = {
        Kinds = kindsFrom (arguments.GetResults TapArguments.Kind)
        Tokens = Set.ofList (arguments.GetResults TapArguments.Token)
        MinSize =
            match arguments.TryGetResult TapArguments.Min_Size with
            | None -> ValueNone
            | Some text ->
                match Size.parse text with
                | Ok size -> ValueSome size
                | Error message -> refuse Exit.Usage $"--min-size: {message}"
    }

    let limit =
        arguments.TryGetResult TapArguments.Limit |> Option.defaultValue Int32.MaxValue

    if limit < 1 then
        refuse Exit.Usage "--limit takes a number from 1 up"

    let runFor =
        arguments.TryGetResult TapArguments.For
        |> Option.map duration
        |> Option.defaultValue Timeout.InfiniteTimeSpan

    let isJson = arguments.Contains TapArguments.Json

    if not (Setup.hasWork settings) then
        refuse
            Exit.Usage
            "there is nothing to watch: use --market SLUG or --event SLUG, or a configuration that names markets"

    use logs =
        logger (Option.defaultValue "warning" common.Level) Map.empty settings.LogFormat common.Verbose

    use interrupt = new Interrupt()
    let store = Discard.create ()

    let! engine =
        Engine.StartAsync(
            EngineOptions.Create(Setup.withoutAccounts settings, store, TimeProvider.System, logs),
            interrupt.Token
        )

    let names = Directory store
    let output = output ()
    let mutable shown = 0
    let mutable isRead = true
    use ending = CancellationTokenSource.CreateLinkedTokenSource interrupt.Token

    if runFor <> Timeout.InfiniteTimeSpan then
        ending.CancelAfter runFor

    engine.Died.ContinueWith((fun (_: Task) -> ending.Cancel()), ending.Token)
    |> ignore

    let show event =
        match event with
        | MarketEvent.Market market -> names.Learn market
        | _ -> ()

        if shown < limit && filter.Wants event then
            shown <- shown + 1
            output.WriteLine(if isJson then Decoding.line event else text names event)

    let mutable reader = engine.Subscribe 65_536

    try
        while isRead && shown < limit do
            try
                let! more = reader.WaitToReadAsync ending.Token
                isRead <- more
                let mutable event = Unchecked.defaultof<MarketEvent>

                while shown < limit && reader.TryRead &event do
                    show event

                output.Flush()
            with :? OverflowException ->
                eprintfn "tributary: this output was too slow, and missed events; it goes on with the newest"
                reader <- engine.Subscribe 65_536
    with
    | :? OperationCanceledException -> ()
    // Whoever read this has seen enough.
    | :? IOException -> isRead <- false

    let hasDied = engine.Died.IsCompleted
    let! _ = engine.StopAsync(TimeSpan.FromSeconds 10.0)
    return if hasDied then Exit.Failed else interrupt.ExitCode
}
