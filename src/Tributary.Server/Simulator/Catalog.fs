namespace Tributary.Server.Simulator

open System

type internal Tag = {
    Id: string
    Label: string
    Slug: string
}

type internal EventInfo = {
    Id: int
    Slug: string
    Title: string
    Tags: Tag[]
    NegRisk: bool
    Created: DateTimeOffset
    Ends: DateTimeOffset
}

/// What does not change about a market while it trades.
type internal MarketInfo = {
    Index: int
    Id: int
    Condition: string
    Question: string
    Slug: string
    Title: string
    /// What tells it from the other markets of its event; "" when it is alone.
    GroupTitle: string
    Outcomes: string[]
    Tokens: string[]
    Tick: int64
    MinimumSize: int
    Event: EventInfo
    /// Start of the window of a recurring crypto market.
    Window: DateTimeOffset voption
    /// Kick-off of a sports market.
    Game: DateTimeOffset voption
    /// Traded and resting amounts from before the simulated history.
    Volume: float
    Liquidity: float
    /// When it closed, for a market that was over before the simulation began.
    ClosedAt: DateTimeOffset voption
}

type internal Catalog = {
    Tags: Tag[]
    Events: EventInfo[]
    Markets: MarketInfo[]
}

/// Makes up the exchange's events and markets from a seed and a date.
module internal Catalog =
    /// An event before it has ids: (slug, title, group title, outcomes) for each of its markets.
    type private Draft = {
        Slug: string
        Title: string
        Tags: string list
        NegRisk: bool
        Window: DateTimeOffset voption
        Game: DateTimeOffset voption
        Ends: DateTimeOffset
        Markets: (string * string * string * string list) list
    }

    let private tags: Tag[] =
        [|
            "2", "Politics", "politics"
            "21", "Crypto", "crypto"
            "1", "Sports", "sports"
            "144", "Elections", "elections"
            "102127", "Up or Down", "up-or-down"
            "745", "NBA", "nba"
            "101970", "Science & \"Space\"", "science-space"
        |]
        |> Array.map (fun (id, label, slug) -> { Id = id; Label = label; Slug = slug })

    let private tagged slugs =
        slugs
        |> List.map (fun slug -> tags |> Array.find (fun tag -> tag.Slug = slug))
        |> Array.ofList

    let private coins = [| "btc", "Bitcoin"; "eth", "Ethereum"; "sol", "Solana"; "xrp", "XRP" |]

    let private teams = [|
        "Hawks"
        "Celtics"
        "Bulls"
        "Nuggets"
        "Lakers"
        "Heat"
        "Knicks"
        "Suns"
        "Jazz"
        "Raptors"
    |]

    let private people = [|
        "Ana Lindqvist"
        "Bram O'Neill"
        "Chidi Okafor"
        "Dolores Peña"
        "Emre Yıldız"
        "Fay Whitmore"
        "Goran Šarić"
        "Hana Sato"
    |]

    let private yesNo = [ "Yes"; "No" ]

    /// The several outcomes of one question, each a market of its own.
    let private field slug (title: string) tags ends (names: string[]) count = {
        Slug = slug
        Title = title
        Tags = tags
        NegRisk = true
        Window = ValueNone
        Game = ValueNone
        Ends = ends
        Markets = [
            for i in 0 .. count - 1 -> $"{slug}-candidate-{i}", $"{title} – {names[i]}", names[i], yesNo
        ]
    }

    let private single slug title tags outcomes ends = {
        Slug = slug
        Title = title
        Tags = tags
        NegRisk = false
        Window = ValueNone
        Game = ValueNone
        Ends = ends
        Markets = [ slug, title, "", outcomes ]
    }

    let private draft (random: Dice) (today: DateTimeOffset) number =
        let days count = today.AddDays(float count)

        match number % 6 with
        | 0 ->
            let coin, name = coins[number / 6 % coins.Length]
            let window = 900L * (today.ToUnixTimeSeconds() / 900L + 4L + int64 (number / 24))
            let starts = DateTimeOffset.FromUnixTimeSeconds window

            {
                single
                    $"{coin}-updown-15m-{window}"
                    $"{name} Up or Down - 15 minutes from {starts:``HH:mm``} UTC"
                    [ "crypto"; "up-or-down" ]
                    [ "Up"; "Down" ]
                    (starts.AddMinutes 15.0) with
                    Window = ValueSome starts
            }
        | 1 ->
            let person = random.Pick people

            single
                $"will-the-bill-pass-{number}"
                $"Will {person}'s \"Act {number}\" pass before the recess?"
                [ "politics" ]
                yesNo
                (days (random.Between(5, 300)))
        | 2 ->
            field
                $"mayor-of-district-{number}"
                $"Mayor of District {number}"
                [ "politics"; "elections" ]
                (days (random.Between(30, 400)))
                people
                (random.Between(3, people.Length))
        | 3 ->
            let home = random.Below teams.Length
            let away = (home + random.Between(1, teams.Length - 1)) % teams.Length
            let starts = (days (random.Between(0, 6))).AddMinutes(float (30 * random.Below 48))

            {
                single
                    $"nba-{teams[home].ToLowerInvariant()}-{teams[away].ToLowerInvariant()}-{number}"
                    $"{teams[home]} vs. {teams[away]}"
                    [ "sports"; "nba" ]
                    [ teams[home]; teams[away] ]
                    (starts.AddHours 3.0) with
                    Game = ValueSome starts
            }
        | 4 ->
            let coin, name = random.Pick coins
            let level = 1000 * random.Between(1, 200)

            single
                $"will-{coin}-reach-{level}-{number}"
                $"Will {name} reach ${level} by the end of the month? 🚀"
                [ "crypto" ]
                yesNo
                (days (random.Between(1, 30)))
        | _ ->
            field
                $"champion-of-league-{number}"
                $"Champion of League {number}"
                [ "sports" ]
                (days (random.Between(20, 200)))
                teams
                (random.Between(3, teams.Length))

    /// Mostly cents, with every finer step that the exchange has.
    let private tick (random: Dice) =
        random.Pick [| 10_000L; 10_000L; 10_000L; 1_000L; 1_000L; 1_000L; 5_000L; 2_500L; 100L |]

    /// `active` open markets, and one closed market for every twenty of them (four at least), with smaller ids.
    let create (seed: int) (today: DateTimeOffset) (active: int) : Catalog =
        let random = Dice.Keyed(int64 seed, 1L)
        let midnight = DateTimeOffset(today.UtcDateTime.Date, TimeSpan.Zero)
        let closed = max 4 (active / 20)
        let markets = ResizeArray<MarketInfo>()
        let events = ResizeArray<EventInfo>()
        let mutable eventId = 30_000
        let mutable marketId = 540_000

        let add count over number =
            // The closed ones were drafted so long ago that all of them have ended.
            let drafted = if over then midnight.AddDays -500.0 else today
            let draft = draft random drafted number

            eventId <- eventId + random.Between(1, 9)

            let event = {
                Id = eventId
                Slug = draft.Slug
                Title = draft.Title
                Tags = tagged draft.Tags
                NegRisk = draft.NegRisk
                Created =
                    drafted.AddDays(-float(random.Between(1, 40))).AddTicks(int64 (random.Below 10_000_000))
                Ends = draft.Ends
            }

            events.Add event

            for slug, title, group, outcomes in List.truncate count draft.Markets do
                marketId <- marketId + random.Between(1, 7)

                markets.Add {
                    Index = markets.Count
                    Id = marketId
                    Condition = "0x" + random.Hex 32
                    Question = "0x" + random.Hex 32
                    Slug = slug
                    Title = title
                    GroupTitle = group
                    Outcomes = Array.ofList outcomes
                    Tokens = Array.init 2 (fun _ -> random.Digits 77)
                    Tick = tick random
                    MinimumSize = random.Pick [| 5; 5; 5; 15 |]
                    Event = event
                    Window = draft.Window
                    Game = draft.Game
                    Volume = exp (random.Unit() * 14.0)
                    Liquidity = exp (2.0 + random.Unit() * 10.0)
                    ClosedAt =
                        if over then
                            ValueSome(draft.Ends.AddHours 2.0)
                        else
                            ValueNone
                }

        let rec fill total over number =
            if markets.Count < total then
                add (total - markets.Count) over number
                fill total over (number + 1)

        fill closed true 10_000
        fill (closed + active) false 0

        {
            Tags = tags
            Events = events.ToArray()
            Markets = markets.ToArray()
        }
