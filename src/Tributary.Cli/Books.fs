/// `tributary book`: a token's order book as it was at any moment, out of a store, or why it is not known.
module Tributary.Cli.Books

open System
open System.Text
open System.Threading.Tasks
open Argu
open Tributary
open Tributary.Cli.Arguments
open Tributary.Cli.Commands
open Tributary.Cli.Terminal
open Tributary.Stores

/// A moment: ISO 8601, an epoch number of seconds or milliseconds, or a duration ago, with or without a minus before it.
let momentOf (now: DateTimeOffset) (text: string) =
    match Yaml.tryDuration (text.TrimStart '-') with
    | Some span -> Instant.ofDateTimeOffset (now - span)
    | None ->
        let mutable moment = Instant.ofMicros 0L

        if Instant.tryRead (ReadOnlySpan(Encoding.UTF8.GetBytes text)) &moment then
            moment
        else
            refuse
                Exit.Usage
                $"'{text}' is neither a time such as 2026-11-01T12:00:00Z or 1793534400, nor a duration ago such as 5m"

/// A token, and what is known of it.
type Named = {
    Token: TokenId
    /// Empty where no description is stored.
    Slug: string
    Outcome: string
} with

    override this.ToString() =
        if this.Slug = "" then
            $"token {cut 20 (string this.Token)}"
        else
            $"{this.Slug}:{this.Outcome}"

let private named (market: Market) (outcome: Outcome) = {
    Token = outcome.Token.Value
    Slug = market.Slug
    Outcome = outcome.Name
}

/// The token that a person means: by its id, by its market's slug when that has one outcome, or by `slug:outcome`.
let tokenOf (markets: Market list) (text: string) : Named =
    let traded (market: Market) =
        market.Outcomes |> Array.filter _.Token.IsSome |> List.ofArray

    let choices (market: Market) =
        traded market
        |> List.map (fun outcome -> $"{market.Slug}:{outcome.Name}")
        |> String.concat " or "

    let byId =
        markets
        |> List.tryPick (fun market ->
            traded market
            |> List.tryFind (fun outcome -> string outcome.Token.Value = text)
            |> Option.map (named market))

    let bySlug (slug: string) =
        markets |> List.tryFind (fun market -> market.Slug = slug)

    let parts =
        match text.LastIndexOf ':' with
        | -1 -> None
        | colon -> Some(text.Substring(0, colon), text.Substring(colon + 1))

    match byId, bySlug text, parts with
    | Some found, _, _ -> found
    | None, Some market, _ ->
        match traded market with
        | [ only ] -> named market only
        | [] -> refuse Exit.Failed $"{text} has no order books"
        | _ -> refuse Exit.Usage $"{text} has several books: write {choices market}"
    | None, None, Some(slug, outcome) when (bySlug slug).IsSome ->
        let market = (bySlug slug).Value

        match
            traded market
            |> List.filter (fun known -> known.Name.Equals(outcome, StringComparison.OrdinalIgnoreCase))
        with
        | found :: _ -> named market found
        | [] -> refuse Exit.Usage $"{slug} has no outcome '{outcome}': write {choices market}"
    | _ ->
        // Tokens of which only rows are stored, not their market's description.
        match TokenId.Parse text with
        | Ok token when text.Length >= 20 && text |> Seq.forall Char.IsAsciiDigit -> {
            Token = token
            Slug = ""
            Outcome = ""
          }
        | _ ->
            let slug =
                match parts with
                | Some(slug, _) -> slug
                | None -> text

            let near =
                markets
                |> List.map _.Slug
                |> List.filter ((<>) "")
                |> List.sortBy (Yaml.distance slug)
                |> List.tryHead
                |> Option.filter (fun near -> Yaml.distance slug near <= max 2 (slug.Length / 4))

            match near with
            | Some near -> refuse Exit.Failed $"no market '{slug}' is stored; did you mean '{near}'?"
            | None when markets.IsEmpty -> refuse Exit.Failed "the store is empty: no market is stored"
            | None ->
                refuse
                    Exit.Failed
                    $"no market or token '{slug}' is stored; 'tributary status' lists what is there"

/// What a verdict says, for a person.
let private words (verdict: Verdict) (doubt: Doubt) =
    let why =
        match doubt with
        | Doubt.None -> "the exchange's hash, a poll or its mirror agrees"
        | Doubt.NoHash -> "there is no hash to check it with"
        | Doubt.NotChecked -> "this very state was not checked"
        | Doubt.Pending -> "its hash may cover a fill that was told later"
        | Doubt.NotCanonical -> "a level is not written as hashes are made of it"
        | Doubt.Ambiguous -> "an update came twice within its millisecond"
        | Doubt.Hash -> "its hash disagrees"
        | Doubt.BestPrice -> "the best price that came with it disagrees"
        | Doubt.Mirror -> "the other token's book is not its mirror"
        | Doubt.Poll -> "a poll brought another book"
        | Doubt.Missed -> "updates are missing"
        | Doubt.Crossed -> "bids stood above asks"
        | Doubt.Sequence -> "numbered messages are missing"
        | Doubt.Negative -> "a change took more than was there"
        | _ -> Doubt.text doubt

    $"{Verdict.text verdict}: {why}"

/// A sum of sizes; a side may hold more than one size can.
let private total (levels: Level seq) =
    let sum = levels |> Seq.sumBy (fun level -> decimal level.Size.Millionths)
    (sum / 1_000_000m).ToString "0.######"

let private price (level: Level) = string level.Price

let private ladder (depth: int) (book: KnownBook) =
    let at (levels: Level[]) i cells =
        if i < levels.Length then
            cells levels[i] (total (Seq.truncate (i + 1) levels))
        else
            [ ""; ""; "" ]

    table [ "total"; "size"; "bid"; "ask"; "size"; "total" ] [
        for i in 0 .. min depth (max book.Bids.Length book.Asks.Length) - 1 do
            at book.Bids i (fun level total -> [ total; string level.Size; price level ])
            @ at book.Asks i (fun level total -> [ price level; string level.Size; total ])
    ]

let private spread (book: KnownBook) =
    match Array.tryHead book.Bids, Array.tryHead book.Asks with
    | Some bid, Some ask -> Some(ask.Price.Millionths - bid.Price.Millionths)
    | _ -> None

let private instant (moment: Instant voption) = moment |> ValueOption.map Instant.text

let private asJson (named: Named) (moment: Instant) (limit: int) (answer: BookAt) =
    let levels (levels: Level[]) = [|
        for level in Array.truncate limit levels -> [| string level.Price; string level.Size |]
    |]

    match answer with
    | BookAt.Known book ->
        json {|
            token = string named.Token
            slug = named.Slug
            outcome = named.Outcome
            moment = Instant.text moment
            known = true
            at = Instant.text book.At
            best_bid = Array.tryHead book.Bids |> Option.map price
            best_ask = Array.tryHead book.Asks |> Option.map price
            spread = spread book |> Option.map Fixed.text
            bids = levels book.Bids
            asks = levels book.Asks
            bid_levels = book.Bids.Length
            ask_levels = book.Asks.Length
            bid_total = total book.Bids
            ask_total = total book.Asks
            verdict = Verdict.text book.Verdict
            doubt = Doubt.text book.Doubt
            ``base`` = Instant.text book.Base
            base_reason = Reason.text book.Reason
            changes = book.Changes
        |}
    | BookAt.NotKnown(since, until, why) ->
        json {|
            token = string named.Token
            slug = named.Slug
            outcome = named.Outcome
            moment = Instant.text moment
            known = false
            since = instant since
            until = instant until
            why = string why
            cause =
                match why with
                | Ignorance.Gap cause -> string cause
                | _ -> ""
        |}

let private unknown (named: Named) since until (why: Ignorance) =
    let span =
        match since, until with
        | ValueSome(since: Instant), ValueSome(until: Instant) -> $" between {since} and {until}"
        | ValueSome since, ValueNone -> $" since {since}"
        | ValueNone, ValueSome until -> $" before {until}"
        | ValueNone, ValueNone -> ""

    $"The book of {named} is not known{span}: {why}."

let book (_: Common) (arguments: ParseResults<BookArguments>) = task {
    let settings =
        // Whoever names the store needs no configuration, not even a sound one.
        match arguments.TryGetResult BookArguments.Store, arguments.TryGetResult BookArguments.QuestDb with
        | Some _, Some _ -> refuse Exit.Usage "book looks into one store: --store or --questdb"
        | Some path, None -> Setup.storingAt path (Settings.defaults Setup.known)
        | None, questdb ->
            settingsFrom (arguments.TryGetResult BookArguments.Config)
            |> storedIn None questdb

    let asked =
        arguments.TryGetResult BookArguments.At
        |> Option.map (momentOf (TimeProvider.System.GetUtcNow()))

    let depth = arguments.TryGetResult BookArguments.Depth

    if depth |> Option.exists (fun depth -> depth < 1) then
        refuse Exit.Usage "--depth takes a number from 1 up"

    let store = opened (Setup.openStoreToRead settings)

    try
        let! markets = store.Markets()
        let named = tokenOf markets (arguments.GetResult BookArguments.Token)
        let! extent = Rebuild.extent store named.Token

        let! struct (moment, answer) =
            match asked with
            | Some moment -> task {
                let! answer = Rebuild.bookAt store extent moment
                return struct (moment, answer)
              }
            | None -> Rebuild.newestBook store extent

        if arguments.Contains BookArguments.Json then
            asJson named moment (Option.defaultValue Int32.MaxValue depth) answer
        else
            match answer with
            | BookAt.NotKnown(since, until, why) -> Console.WriteLine(unknown named since until why)
            | BookAt.Known book ->
                let depth = Option.defaultValue 10 depth
                Console.WriteLine $"{named} at {moment}"
                ladder depth book

                let best name (levels: Level[]) =
                    match Array.tryHead levels with
                    | Some level -> $"best {name} {level.Price} ({level.Size})"
                    | None -> $"no {name}s"

                let spread =
                    match spread book with
                    | Some spread -> $", spread {Fixed.text spread}"
                    | None -> ""

                Console.WriteLine $"""{best "bid" book.Bids}, {best "ask" book.Asks}{spread}"""

                Console.WriteLine
                    $"{book.Bids.Length} bids of {total book.Bids}, {book.Asks.Length} asks of {total book.Asks}"

                Console.WriteLine $"last change {book.At}, {words book.Verdict book.Doubt}"

                Console.WriteLine
                    $"rebuilt from the whole book of {book.Base} (reason: {Reason.text book.Reason}) and {book.Changes} changes"

                match asked, extent.LastSign with
                | None, ValueSome sign when sign > moment ->
                    match! Rebuild.bookAt store extent sign with
                    | BookAt.NotKnown(since, until, why) -> eprintfn "%s" (unknown named since until why)
                    | BookAt.Known _ -> ()
                | _ -> ()

        return
            match answer with
            | BookAt.Known _ -> Exit.Done
            | BookAt.NotKnown _ -> Exit.Failed
    finally
        store.Close().AsTask().Wait()
}
