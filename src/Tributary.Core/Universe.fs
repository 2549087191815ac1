namespace Tributary

open System

/// What the configuration wants collected of one exchange.
type Picks = {
    /// Market slugs.
    Slugs: string list
    /// Event slugs: all their markets.
    Events: string list
    /// Market slugs that are never collected, whatever else chooses them.
    Excluded: string list
    /// Nothing when discovery is off.
    Discovery: Discovery voption
}

/// Why a market is collected, or is not.
[<RequireQualifiedAccess>]
type Choice =
    | Named
    | OfEvent of string
    | Discovered
    /// Discovery would take it, but took others with more volume.
    | BeyondMaximum
    /// It is wanted and cannot be: closed, not taking orders yet, without tokens.
    | NotTradable of MarketStatus
    | Excluded
    | Unwanted

    override this.ToString() =
        match this with
        | Named -> "named"
        | OfEvent slug -> $"of event {slug}"
        | Discovered -> "discovered"
        | BeyondMaximum -> "beyond max_markets"
        | NotTradable status -> $"not tradable ({status})"
        | Excluded -> "excluded"
        | Unwanted -> "unwanted"

/// The markets of one exchange that are collected.
type Universe = {
    /// Every market that is active or closing, in its newest version.
    Known: Map<string, Market>
    /// Those whose books and trades are collected.
    Active: Set<string>
    /// Those that closed, and when that was noticed: their last trades may still appear, so trades are followed for a while.
    Closing: Map<string, Instant>
}

/// What a refresh changed.
type Changes = {
    /// What the refresh brought and is worth keeping: all that is wanted, whether it can be collected or not, and what was collected.
    Described: Market list
    Added: Market list
    /// No longer polled for books.
    Closed: Market list
    /// No longer followed for trades either.
    Removed: Market list
    /// Slugs that were asked for by name and that nobody answers to.
    Unknown: string list
}

[<RequireQualifiedAccess>]
module Universe =
    let empty = {
        Known = Map.empty
        Active = Set.empty
        Closing = Map.empty
    }

    /// For so long are the trades of a closed market followed: an exchange publishes some late, but none this late.
    let private grace = TimeSpan.FromMinutes 10.0

    /// `*` stands for any text, `?` for one character.
    let matches (pattern: string) (text: string) =
        // The usual two-pointer walk with one step back to the last star.
        let rec go p t star mark =
            if t = text.Length then
                Seq.forall ((=) '*') (pattern.Substring p)
            elif p < pattern.Length && pattern[p] = '*' then
                go (p + 1) t p t
            elif p < pattern.Length && (pattern[p] = '?' || pattern[p] = text[t]) then
                go (p + 1) (t + 1) star mark
            elif star >= 0 then
                go (star + 1) (mark + 1) star (mark + 1)
            else
                false

        go 0 0 -1 0

    let private isAtLeast (limit: Size voption) (size: Size voption) =
        match limit, size with
        | ValueNone, _ -> true
        | ValueSome limit, ValueSome size -> size >= limit
        | ValueSome _, ValueNone -> false

    let private fitsSlug (wanted: Discovery) (market: Market) =
        wanted.Slugs.IsEmpty
        || wanted.Slugs |> List.exists (fun pattern -> matches pattern market.Slug)

    /// Whether a market is one of those.
    let fits (wanted: Discovery) (market: Market) =
        isAtLeast wanted.MinVolume market.Volume
        && isAtLeast wanted.MinLiquidity market.Liquidity
        && (wanted.Tags.IsEmpty
            || wanted.Tags |> List.exists (fun tag -> Array.contains tag market.Tags))
        && fitsSlug wanted market

    /// What to ask so that a refresh sees everything wanted and everything that is active.
    let needs (picks: Picks) (universe: Universe) : Need list = [
        if not picks.Slugs.IsEmpty then
            Need.MarketsBySlug picks.Slugs
        if not picks.Events.IsEmpty then
            Need.MarketsByEvent picks.Events
        let named market =
            List.contains market.Slug picks.Slugs || List.contains market.Event picks.Events

        let rest =
            Set.union universe.Active (Set.ofSeq universe.Closing.Keys)
            |> Seq.choose (fun id -> Map.tryFind id universe.Known)
            |> Seq.filter (named >> not)
            |> Seq.map _.Market
            |> List.ofSeq

        if not rest.IsEmpty then
            Need.MarketsById rest

        match picks.Discovery with
        | ValueSome wanted -> Need.MarketsLike wanted
        | ValueNone -> ()
    ]

    let private isChosen choice =
        match choice with
        | Choice.Named
        | Choice.OfEvent _
        | Choice.Discovered -> true
        | _ -> false

    /// Why each of these markets would be collected, or not. What is active stays as long as it is tradable and its slug fits, so
    /// that a change of rank makes no hole (an answer by id may leave out the tags); the places that are left go to the largest volume.
    let choose (picks: Picks) (active: Set<string>) (markets: Market list) : (Market * Choice) list =
        let wantedBy (market: Market) =
            if List.contains market.Slug picks.Excluded then
                Choice.Excluded
            elif List.contains market.Slug picks.Slugs then
                Choice.Named
            elif market.Event <> "" && List.contains market.Event picks.Events then
                Choice.OfEvent market.Event
            else
                match picks.Discovery with
                | ValueSome wanted when
                    fits wanted market
                    || (active.Contains(string market.Market) && fitsSlug wanted market)
                    ->
                    Choice.Discovered
                | _ -> Choice.Unwanted

        let judged =
            markets
            |> List.map (fun market ->
                match wantedBy market with
                | Choice.Excluded
                | Choice.Unwanted as choice -> market, choice
                | choice ->
                    market,
                    (if market.IsTradable then
                         choice
                     else
                         Choice.NotTradable market.Status))

        let places =
            match picks.Discovery with
            | ValueSome wanted -> wanted.MaxMarkets
            | ValueNone -> 0

        let taken =
            judged
            |> List.filter (fun (_, choice) -> choice = Choice.Discovered)
            |> List.sortBy (fun (market, _) ->
                struct (not (active.Contains(string market.Market)),
                        (match market.Volume with
                         | ValueSome volume -> -volume.Millionths
                         | ValueNone -> 0L),
                        string market.Market))
            |> List.truncate places
            |> List.map (fun (market, _) -> string market.Market)
            |> Set.ofList

        judged
        |> List.map (fun (market, choice) ->
            if choice = Choice.Discovered && not (taken.Contains(string market.Market)) then
                market, Choice.BeyondMaximum
            else
                market, choice)

    /// What an earlier run collected, as far as it is still wanted: it is collected from the start, and a market that closed in
    /// between is seen to have closed.
    let resume (picks: Picks) (markets: Market list) : Universe =
        let active = markets |> List.map (fun market -> string market.Market) |> Set.ofList

        let wanted =
            choose picks active markets |> List.filter (snd >> isChosen) |> List.map fst

        {
            Known = wanted |> List.map (fun market -> string market.Market, market) |> Map.ofList
            Active = wanted |> List.map (fun market -> string market.Market) |> Set.ofList
            Closing = Map.empty
        }

    /// Takes in what a refresh brought. A market that the answers left out stays as it was: absence proves nothing. `isWhole` says
    /// that every walk of the refresh came to its end, so that an unknown slug really is unknown.
    let absorb
        (picks: Picks)
        isWhole
        (now: Instant)
        (markets: Market list)
        (universe: Universe)
        : Universe * Changes =
        // The same market may come by slug, by event and by discovery.
        let fresh =
            markets |> List.rev |> List.distinctBy (fun market -> string market.Market)

        let known =
            (universe.Known, fresh)
            ||> List.fold (fun known market -> Map.add (string market.Market) market known)

        // Those that were left out keep their places.
        let others =
            let answered = fresh |> List.map (fun market -> string market.Market) |> Set.ofList
            [ for id in universe.Active - answered -> known[id] ]

        let choices = choose picks universe.Active (fresh @ others)

        let added =
            choices
            |> List.filter (fun (market, choice) ->
                isChosen choice && not (universe.Active.Contains(string market.Market)))
            |> List.map fst

        let closed =
            choices
            |> List.filter (fun (market, choice) ->
                not (isChosen choice) && universe.Active.Contains(string market.Market))
            |> List.map fst

        let ids markets =
            markets |> List.map (fun (market: Market) -> string market.Market) |> Set.ofList

        let active = universe.Active + ids added - ids closed

        // A market that came back is not closing any more.
        let over, closing =
            (universe.Closing, closed)
            ||> List.fold (fun closing market -> Map.add (string market.Market) now closing)
            |> Map.filter (fun id _ -> not (active.Contains id))
            |> Map.partition (fun _ since -> now - since > grace)

        let removed = over.Keys |> Seq.map (fun id -> known[id]) |> List.ofSeq

        let described =
            choices
            |> List.truncate fresh.Length
            |> List.filter (fun (market, choice) ->
                choice <> Choice.Unwanted
                || universe.Active.Contains(string market.Market)
                || closing.ContainsKey(string market.Market))
            |> List.map fst

        {
            Known = known |> Map.filter (fun id _ -> active.Contains id || closing.ContainsKey id)
            Active = active
            Closing = closing
        },
        {
            Described = described
            Added = added
            Closed = closed
            Removed = removed
            Unknown =
                if not isWhole then
                    []
                else
                    let slugs = fresh |> Seq.map _.Slug |> Set.ofSeq
                    let events = fresh |> Seq.map _.Event |> Set.ofSeq

                    (picks.Slugs |> List.filter (slugs.Contains >> not))
                    @ (picks.Events |> List.filter (events.Contains >> not))
        }
