/// `tributary match`: which markets of several exchanges ask the same. It proposes; a person confirms or refuses, into a file that stays theirs.
module Tributary.Cli.Pairing

open System
open System.IO
open System.Threading
open System.Threading.Tasks
open Argu
open Tributary
open Tributary.Cli.Arguments
open Tributary.Cli.Commands
open Tributary.Cli.Terminal
open Tributary.Stores

let private named (market: Market) =
    Mapping.refOf market.Exchange market.Market

let private now () =
    Instant.ofDateTimeOffset (TimeProvider.System.GetUtcNow())

/// Takes the store to what the mapping says. While a collector writes to the store, it does that itself: it watches the file.
let private bring (common: Common) (settings: Settings) (store: Store) (path: string) (mapping: Mapping) =
    task {
        let! struct (rows, untold) = Pairs.changes store (now ()) mapping

        for mistake in untold do
            eprintfn "%s" (Mistake.render mistake)

        if not rows.IsEmpty then
            use logs = logFor common settings

            match Setup.openStore settings TimeProvider.System logs with
            | Error(OpenFault.InUse(_, _)) ->
                eprintfn
                    "A collector writes to %s: it takes on %s by itself, if that is in its configuration, within seconds."
                    (storeName settings)
                    path
            | Error fault -> refuse Exit.Failed (string fault)
            | Ok writing ->
                let batch = Batch()
                batch.Matches.AddRange rows
                let! written = writing.Write [| batch |] CancellationToken.None
                do! writing.Close()

                match written with
                | Error fault -> refuse Exit.Failed (string fault)
                | Ok() ->
                    let withdrawn = rows |> List.filter _.IsWithdrawn |> List.length

                    eprintfn
                        "%s: %i matches new, %i withdrawn"
                        (storeName settings)
                        (rows.Length - withdrawn)
                        withdrawn
    }

/// The market that a person names, by its key or its slug.
let private marketOf (markets: Market list) (text: string) =
    match Mapping.tryRef text with
    | Error message -> refuse Exit.Usage message
    | Ok(struct (exchange, id)) ->
        let ofExchange = markets |> List.filter (fun market -> market.Exchange = exchange)

        match
            ofExchange |> List.filter (fun market -> market.Market = id),
            ofExchange |> List.filter (fun market -> market.Slug = string id)
        with
        | [ market ], _
        | [], [ market ] -> market
        | [], _ :: _ :: _ ->
            refuse Exit.Usage $"several markets of {exchange} have the slug {id}: name one by its key"
        | _ when not (List.contains (string exchange) exchangeNames) ->
            let listed = String.concat ", " exchangeNames
            refuse Exit.Usage $"there is no exchange '{exchange}'; there are: {listed}"
        | _ -> refuse Exit.Usage $"the store has no market {text}: collect it first"

let private several what (markets: Market list) =
    if markets.Length < 2 then
        refuse Exit.Usage $"{what} takes two markets or more"

    match markets |> List.countBy named |> List.tryFind (fun (_, count) -> count > 1) with
    | Some(name, _) -> refuse Exit.Usage $"{name} is named twice"
    | None -> ()

/// The text of a mapping with the confirmed markets in it, and what to say of it.
let private confirming
    (mapping: Mapping)
    (text: string)
    (name: string option)
    (inverted: Market list)
    (markets: Market list)
    =
    several "--confirm" markets

    for market in inverted do
        if not (List.contains market markets) then
            refuse Exit.Usage $"{named market} is inverted, and not among the confirmed ones"

    let has (question: MappedQuestion) (market: Market) =
        question.Answers
        |> List.exists (fun (_, outcomes) ->
            outcomes
            |> List.exists (fun one -> one.Exchange = market.Exchange && one.Market = market.Market))

    let joined =
        mapping.Questions
        |> List.filter (fun question -> markets |> List.exists (has question))

    let confirmed (market: Market) : Mapping.Confirmed = {
        Market = market
        IsInverted = List.contains market inverted
    }

    let answers known markets =
        match Mapping.answersOf known (List.map confirmed markets) with
        | Ok answers -> answers
        | Error message -> refuse Exit.Failed message

    match joined, name with
    | [ question ], (None | Some "") ->
        match markets |> List.filter (has question >> not) with
        | [] -> refuse Exit.Usage $"these are confirmed already, as {question.Name}"
        | more ->
            let answers = answers (question.Answers |> List.map fst) more

            Mapping.withOutcomes exchangeNames mapping question.Name answers text
            |> Result.map (fun text -> text, question.Name)
    | _ :: _ :: _, _ ->
        let names = joined |> List.map _.Name |> String.concat ", "
        refuse Exit.Usage $"these belong to several questions already ({names}): join those in the file"
    | [ question ], Some _ ->
        refuse
            Exit.Usage
            $"one of these belongs to the question {question.Name} already: leave --as out to join it"
    | [], name ->
        let name =
            match name with
            | Some name -> name
            | None when markets.Head.Slug <> "" -> markets.Head.Slug
            | None -> string markets.Head.Market

        if mapping.Questions |> List.exists (fun question -> question.Name = name) then
            refuse Exit.Usage $"there is a question {name} already: give this one another name with --as"

        if String.IsNullOrWhiteSpace name || Seq.exists Char.IsControl name then
            refuse Exit.Usage "--as takes a text on one line"

        let question: MappedQuestion = {
            Name = name
            ConfirmedAt = ValueSome(now ())
            Answers = answers [] markets
            At = { File = ""; Line = 0; Column = 0 }
        }

        Mapping.withQuestion exchangeNames mapping question text
        |> Result.map (fun text -> text, name)

let private asJson (proposals: Proposal list) =
    let side (market: Market) = {|
        exchange = string market.Exchange
        market = string market.Market
        slug = market.Slug
        question = market.Question
        ends = market.End |> ValueOption.map Instant.text
    |}

    json [
        for one in proposals do
            {|
                score = one.Score
                title = one.Title
                dates = one.Dates
                outcomes = one.Outcomes
                inverted = one.IsInverted
                why = one.Why
                markets = [ side one.First; side one.Second ]
            |}
    ]

let private asTable (path: string) (shown: Proposal list) (all: int) =
    if shown.IsEmpty then
        Console.WriteLine
            "no two markets of different exchanges seem to ask the same, but those that are confirmed or refused"
    else
        table [ "score"; "market"; "question"; "why" ] [
            for one in shown do
                let why =
                    [
                        if one.IsInverted then
                            "inverted"
                        yield! one.Why
                    ]
                    |> String.concat "; "

                [ $"%.3f{one.Score}"; named one.First; cut 60 one.First.Question; cut 90 why ]
                [ ""; named one.Second; cut 60 one.Second.Question; "" ]
        ]

        let best = shown.Head

        let inverted =
            if best.IsInverted then
                $" --inverted {named best.Second}"
            else
                ""

        Console.WriteLine $"{shown.Length} of {all} proposals; {path} keeps what you say of them:"
        Console.WriteLine $"  tributary match --confirm {named best.First} {named best.Second}{inverted}"
        Console.WriteLine $"  tributary match --refuse {named best.First} {named best.Second}"

let pairing (common: Common) (arguments: ParseResults<MatchArguments>) : Task<int> = task {
    let config = configIn (arguments.TryGetResult MatchArguments.Config)

    let settings =
        settingsFrom config
        |> storedIn
            (arguments.TryGetResult MatchArguments.Store)
            (arguments.TryGetResult MatchArguments.QuestDb)

    let path =
        match arguments.TryGetResult MatchArguments.Mapping, config with
        | Some path, _ -> path
        | None, Some config -> Mapping.beside config
        | None, None -> Path.Combine("config", Mapping.FileName)

    let least = arguments.GetResult(MatchArguments.Min_Score, 0.6)

    if not (least >= 0.0 && least <= 1.0) then
        refuse Exit.Usage "--min-score takes a number from 0 to 1"

    let limit = arguments.GetResult(MatchArguments.Limit, 50)

    if limit < 1 then
        refuse Exit.Usage "--limit takes a number from 1 on"

    let confirm = arguments.TryGetResult MatchArguments.Confirm
    let refused = arguments.TryGetResult MatchArguments.Refuse

    if confirm.IsSome && refused.IsSome then
        refuse Exit.Usage "--confirm or --refuse: one at a time"

    if
        confirm.IsNone
        && (arguments.Contains MatchArguments.As
            || arguments.Contains MatchArguments.Inverted)
    then
        refuse Exit.Usage "--as and --inverted go with --confirm"

    let mapping = mappingIn path
    let store = opened (Setup.openStoreToRead settings)

    try
        let! markets = store.Markets()
        let known = ValueOption.defaultValue Mapping.empty mapping

        match confirm, refused with
        | None, None ->
            match mapping with
            | ValueSome mapping -> do! bring common settings store path mapping
            | ValueNone -> ()

            let wanted =
                if arguments.Contains MatchArguments.All then
                    markets
                else
                    markets
                    |> List.filter (fun market ->
                        market.Status = MarketStatus.Open || market.Status = MarketStatus.Pending)

            let found = Matching.find (Mapping.settled known) least wanted
            let shown = List.truncate limit found.Proposals

            if arguments.Contains MatchArguments.Json then
                asJson shown
            else
                asTable path shown found.Proposals.Length
        | _ ->
            let text = if mapping.IsSome then File.ReadAllText path else ""

            let changed =
                match confirm, refused with
                | Some names, _ ->
                    confirming
                        known
                        text
                        (arguments.TryGetResult MatchArguments.As)
                        (arguments.GetResults MatchArguments.Inverted |> List.map (marketOf markets))
                        (names |> List.map (marketOf markets))
                    |> Result.map (fun (text, name) -> text, $"{path}: confirmed as {name}")
                | None, names ->
                    let chosen = names |> Option.defaultValue [] |> List.map (marketOf markets)
                    several "--refuse" chosen

                    let refs = [ for market in chosen -> struct (market.Exchange, market.Market) ]

                    Mapping.withRefused exchangeNames known refs text
                    |> Result.map (fun text -> text, $"{path}: refused")

            match changed with
            | Error message -> refuse Exit.Failed $"{path}: {message}"
            | Ok(text, said) ->
                match Mapping.write path text with
                | Error message -> refuse Exit.Failed message
                | Ok() ->
                    Console.WriteLine said

                    match mappingIn path with
                    | ValueSome mapping -> do! bring common settings store path mapping
                    | ValueNone -> ()

        return Exit.Done
    finally
        store.Close().AsTask().Wait()
}
