namespace Tributary

open System
open System.Collections.Generic
open System.Globalization
open System.Text
open System.Text.RegularExpressions

/// Two markets of different exchanges that seem to ask the same, and why. A person decides.
type Proposal = {
    /// In the order of their exchanges' names.
    First: Market
    Second: Market
    /// 0 to 1, in thousandths: the parts weighed, less what speaks against it.
    Score: float
    /// How much of what the titles say is the same, 0 to 1.
    Title: float
    /// How near the ends are to each other, 0 to 1; 0.5 where one of them is not known.
    Dates: float
    /// How much the outcomes are called the same, 0 to 1.
    Outcomes: float
    /// The yes of one seems to be the no of the other.
    IsInverted: bool
    /// What speaks for it and against it, a few words each.
    Why: string list
}

/// Which markets of different exchanges ask the same: read from their titles, ends and outcomes. The same markets give the same answer, in
/// whatever order they come.
[<RequireQualifiedAccess>]
module Matching =
    /// What can make two titles differ in what they ask.
    [<RequireQualifiedAccess>]
    type private Kind =
        | Word
        /// A name: of a person, a club, a coin.
        | Name
        /// A threshold, an amount, a count.
        | Number
        | Year
        | Month
        | Day

    /// What a title comes down to: its words, each once, in the order of their texts.
    type private Title = {
        Words: struct (string * Kind)[]
        /// It asks whether something does not happen, or stays below.
        IsNegated: bool
    }

    // ---- words

    let private set (words: string) =
        HashSet(words.Split([| ' '; '\n' |], StringSplitOptions.RemoveEmptyEntries), StringComparer.Ordinal)

    /// These say nothing of what is asked.
    let private stop =
        set
            "a an and any are as at be been before by can did do does during end for from had has have he her his how if in into is it its
             least of on or she than that the their there they this to was were what when where which who whom whose will with would yet vs versus
             become becomes happen happens ever market question yes exactly following"

    /// These turn a question round.
    let private negations =
        set "not no never without fail fails neither nor wont cannot below"

    /// These are no names, however they are written.
    let private ordinary =
        set
            "above all announce announced approve ban begin best bill buy call ceasefire champion championship close cup cut day deal declare
             decision decrease drop elected election end enter exceed fall final finish first game get go government gross group hike hit hold
             house human increase index inflation international invade jump launch lead league leave level long lose low lower major make mayor
             market match meet meeting member minister model more month most national new next nominate nomination nominee number open order out
             over pass peace percent point poll popular president price primary prime race raise rate reach record release remain resign rise
             round sale season seat second senate series settle share shutdown sign start state stay step strike top total touch trade turnout
             unemployment up vote war week win winner world year high open close times after between until party governor republic support"

    /// One word for what is called by several.
    let private same =
        Map.ofList [
            for canonical, others in
                [
                    "above", "over exceed exceeds exceeding higher greater more surpass surpasses least"
                    "below", "under lower less fewer beneath"
                    "bitcoin", "btc xbt"
                    "ethereum", "eth ether"
                    "solana", "sol"
                    "fed", "fomc federal_reserve"
                    "us", "usa united_states america american"
                    "uk", "united_kingdom britain"
                    "republican", "gop"
                    "democrat", "democratic dem dems"
                    "president", "presidential presidency potus"
                    "election", "elections elected"
                    "win", "winner winning won"
                    "hit", "reach touch"
                    "cut", "decrease reduce lowers"
                    "hike", "raise increase"
                    "ceasefire", "cease_fire"
                    "rate", "interest_rate"
                    "superbowl", "super_bowl"
                    "nominee", "nomination nominate"
                ] do
                for other in others.Split ' ' -> other, canonical
        ]

    /// Whoever asks for one does not ask for the other.
    let private opposites = [
        "cut", "hike"
        "win", "lose"
        "rise", "fall"
        "open", "close"
        "first", "last"
        "more", "less"
        "high", "low"
        "highest", "lowest"
        "sign", "veto"
        "accept", "reject"
        "approve", "reject"
    ]

    /// These are names, wherever they stand.
    let private coins =
        set "bitcoin ethereum solana xrp ripple dogecoin doge bnb cardano litecoin"

    let private phrases =
        same.Keys
        |> Seq.filter (fun word -> word.Contains '_')
        |> Seq.map (fun word -> struct (word.Replace('_', ' '), word))
        |> Seq.sort
        |> Array.ofSeq

    let private monthNames = [|
        for month in 1..12 -> CultureInfo.InvariantCulture.DateTimeFormat.GetMonthName month
    |]

    let private months =
        Map.ofList [
            for month in 1..12 do
                let name = monthNames[month - 1].ToLowerInvariant()
                name, month
                name.Substring(0, 3), month

            "sept", 9
        ]

    let private regex pattern =
        Regex(pattern, RegexOptions.CultureInvariant ||| RegexOptions.IgnoreCase)

    // A word, or a number with what stands around it: $1,250.5k, 3%, 31st, 2026-12-31.
    let private tokens =
        regex
            @"(?<iso>\b\d{4}-\d{2}-\d{2}\b)|(?<money>[$€£])?(?<number>\d[\d,]*(?:\.\d+)?)(?:(?:st|nd|rd|th)\b|(?<unit>\s?(?:thousand|million|billion|trillion|bps|bp|bn)|[kmbt])\b|\s?(?<percent>%|percent\b))?|(?<word>\p{L}[\p{L}\p{N}_]*(?:['’]\p{L}+)?)"

    let private initials = regex @"\b(?:\p{L}\.){2,}|\b\p{L}\.(?=\p{L}\b)"

    let private beforeYear =
        regex @"\bbefore (?:jan(?:uary|\.)? 1(?:st)?,? )?(?<year>(?:19|20)\d{2})\b"

    let private beforeMonth =
        regex @"\bbefore (?<month>\p{L}{3,9})\.? (?:1(?:st)?,? )?(?<year>(?:19|20)\d{2})\b"

    // NOTE: a table, for what `Normalize` does depends on what the machine has for it.
    let private unaccented =
        Map.ofList [
            for letter, accented in
                [
                    'a', "àáâãäåāăą"
                    'c', "çćĉċč"
                    'd', "ďđ"
                    'e', "èéêëēĕėęě"
                    'g', "ĝğġģ"
                    'i', "ìíîïĩīĭįı"
                    'l', "ĺļľł"
                    'n', "ñńņňŋ"
                    'o', "òóôõöøōŏő"
                    'r', "ŕŗř"
                    's', "śŝşšș"
                    't', "ţťț"
                    'u', "ùúûüũūŭůűų"
                    'y', "ýÿ"
                    'z', "źżž"
                ] do
                for one in accented do
                    one, letter
                    Char.ToUpperInvariant one, Char.ToUpperInvariant letter
        ]

    /// Without accents: José and Jose are one name.
    let private plain (text: string) =
        if Ascii.IsValid text then
            text
        else
            text
            |> String.map (fun letter -> Map.tryFind letter unaccented |> Option.defaultValue letter)

    /// Without the endings that make no other word: wins, cuts, Trump's.
    let private stem (word: string) =
        let word =
            match word.IndexOfAny [| '\''; '’' |] with
            | -1 -> word
            | at -> word.Substring(0, at)

        // As far as it is known what it comes from: released, launched.
        let past =
            if word.EndsWith "ed" then
                [ word.Substring(0, word.Length - 1); word.Substring(0, word.Length - 2) ]
                |> List.tryFind ordinary.Contains
            else
                None

        if past.IsSome then
            past.Value
        elif word.Length > 4 && word.EndsWith "ies" then
            word.Substring(0, word.Length - 3) + "y"
        elif
            word.Length > 3
            && word.EndsWith 's'
            && not (word.EndsWith "ss")
            && not (word.EndsWith "us")
        then
            word.Substring(0, word.Length - 1)
        else
            word

    let private scale (unit: string) =
        match unit with
        | "k"
        | "thousand" -> 1_000m
        | "m"
        | "million" -> 1_000_000m
        | "b"
        | "bn"
        | "billion" -> 1_000_000_000m
        | "t"
        | "trillion" -> 1_000_000_000_000m
        | "bps"
        | "bp" -> 0.01m
        | _ -> 1m

    let private isUpper (word: string) = word.Length > 0 && Char.IsUpper word[0]

    let private titleOf (question: string) : Title =
        let text = (plain question).Replace("n't", " not").Replace("n’t", " not")

        let text =
            initials.Replace(text, fun (found: Match) -> found.Value.Replace(".", ""))

        // Before a year is until the end of the one before.
        let text =
            beforeYear.Replace(
                text,
                fun (found: Match) ->
                    let year = int found.Groups["year"].Value
                    $"by {year - 1}"
            )

        // And before a month until the end of the one before.
        let text =
            beforeMonth.Replace(
                text,
                fun (found: Match) ->
                    let year = int found.Groups["year"].Value

                    match Map.tryFind (found.Groups["month"].Value.ToLowerInvariant()) months with
                    | Some 1 -> $"by December {year - 1}"
                    | Some month -> $"by {monthNames[month - 2]} {year}"
                    | None -> found.Value
            )

        let lowered = text.ToLowerInvariant()

        let joined =
            (StringBuilder text, phrases)
            ||> Array.fold (fun text struct (phrase, word) ->
                if lowered.Contains phrase then
                    Regex.Replace(
                        string text,
                        $@"\b{phrase}\b",
                        word,
                        RegexOptions.IgnoreCase ||| RegexOptions.CultureInvariant
                    )
                    |> StringBuilder
                else
                    text)
            |> string

        let found = [| for token in tokens.Matches joined -> token |]

        let wordAt i =
            if i >= 0 && i < found.Length then
                found[i].Groups["word"].Value
            else
                ""

        let monthAt i =
            let word = wordAt i

            match Map.tryFind (word.ToLowerInvariant()) months with
            // May and March are words as well, but not with a capital in the middle of a title.
            | Some month when isUpper word && (i > 0 || word.Length > 4) -> month
            | _ -> 0

        // In a title whose every word has a capital, or none has, that says nothing of a word.
        let later = [|
            for i in 1 .. found.Length - 1 do
                let word = wordAt i

                if word.Length > 3 && not (stop.Contains(word.ToLowerInvariant())) && monthAt i = 0 then
                    isUpper word
        |]

        let capitals = later |> Array.filter id |> Array.length
        let saysNames = capitals > 0 && capitals < later.Length
        let words = Dictionary<string, Kind>(StringComparer.Ordinal)
        let mutable negations' = 0

        let add kind (word: string) =
            match words.TryGetValue word with
            | true, Kind.Name -> ()
            | _ -> words[word] <- kind

        for i in 0 .. found.Length - 1 do
            let token = found[i]
            let group (name: string) = token.Groups[name].Value
            let unit = (group "unit").Trim().ToLowerInvariant()

            if group "iso" <> "" then
                let parts = (group "iso").Split '-'
                add Kind.Year parts[0]
                add Kind.Month $"m{int parts[1]}"
                add Kind.Day $"d{int parts[2]}"
            elif group "number" <> "" then
                let digits = (group "number").Replace(",", "").TrimEnd '.'
                let isPlain = group "money" = "" && unit = "" && group "percent" = ""

                match
                    Decimal.TryParse(digits, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture)
                with
                | true, value when
                    isPlain
                    && digits.Length = 4
                    && digits = group "number"
                    && value >= 1900m
                    && value < 2100m
                    ->
                    add Kind.Year digits
                | true, value when
                    isPlain
                    && value >= 1m
                    && value <= 31m
                    && (monthAt (i - 1) > 0 || monthAt (i + 1) > 0)
                    ->
                    add Kind.Day $"d{int value}"
                | true, value when value < 1_000_000_000_000m ->
                    let sign =
                        if group "percent" <> "" || unit.StartsWith "bp" then
                            "%"
                        else
                            ""

                    let value = (value * scale unit).ToString("0.######", CultureInfo.InvariantCulture)
                    add Kind.Number $"#{value}{sign}"
                | _ -> add Kind.Number $"#{digits}"
            else
                let written = group "word"
                let lower = written.ToLowerInvariant()

                if monthAt i > 0 then
                    add Kind.Month $"m{monthAt i}"
                elif not (stop.Contains lower) || same.ContainsKey lower then
                    let canonical =
                        match Map.tryFind lower same with
                        | Some word -> word
                        | None ->
                            let stemmed = stem lower
                            same |> Map.tryFind stemmed |> Option.defaultValue stemmed

                    if negations.Contains canonical then
                        negations' <- negations' + 1
                        // Whether above or below, a threshold is asked for.
                        if canonical = "below" then
                            add Kind.Word "above"
                    elif canonical.Length > 1 || isUpper written then
                        let isName =
                            not (ordinary.Contains canonical)
                            // The first word of a title has a capital whatever it is.
                            && (not saysNames || isUpper written && (i > 0 || coins.Contains canonical))

                        add (if isName then Kind.Name else Kind.Word) canonical

        {
            Words =
                [| for KeyValue(word, kind) in words -> struct (word, kind) |]
                |> Array.sortWith (fun struct (one, _) struct (other, _) -> String.CompareOrdinal(one, other))
            IsNegated = negations' % 2 = 1
        }

    // ---- markets as they are compared

    [<NoComparison; NoEquality>]
    type private Candidate = {
        Market: Market
        /// By the numbers of words, which rise.
        Words: int[]
        Kinds: Kind[]
        IsNegated: bool
        Outcomes: string[]
    }

    let private outcomesOf (market: Market) =
        market.Outcomes
        |> Array.map (fun outcome -> (plain outcome.Name).Trim().ToLowerInvariant())
        |> Array.distinct
        |> Array.sortWith (fun one other -> String.CompareOrdinal(one, other))

    let private yesNo = [| "no"; "yes" |]
    let private day = 86_400_000_000.0

    /// 1 up to two days apart, then less and less up to a month.
    let private nearness (one: Instant voption) (other: Instant voption) =
        match one, other with
        | ValueSome one, ValueSome other ->
            let days = abs (float one.Micros - float other.Micros) / day
            struct (Math.Clamp((31.0 - days) / 29.0, 0.0, 1.0), ValueSome days)
        | _ -> struct (0.5, ValueNone)

    let private dice (one: string[]) (other: string[]) =
        let common =
            one |> Array.filter (fun name -> Array.contains name other) |> Array.length

        if one.Length + other.Length = 0 then
            0.0
        else
            2.0 * float common / float (one.Length + other.Length)

    /// What two titles share and do not, by kind.
    [<Sealed>]
    type private Comparison(one: Candidate, other: Candidate, weights: float[]) =
        let shared, left, right = ResizeArray<int>(), ResizeArray<int>(), ResizeArray<int>()
        let mutable both, all = 0.0, 0.0
        let kinds = Dictionary<int, Kind>()

        let weigh word kind =
            // What names and bounds are about counts for more than how it is said.
            match kind with
            | Kind.Name
            | Kind.Number -> 1.5 * weights[word]
            | Kind.Day -> 0.5 * weights[word]
            | _ -> weights[word]

        do
            let mutable i, j = 0, 0

            while i < one.Words.Length || j < other.Words.Length do
                if j = other.Words.Length || i < one.Words.Length && one.Words[i] < other.Words[j] then
                    left.Add one.Words[i]
                    kinds[one.Words[i]] <- one.Kinds[i]
                    all <- all + weigh one.Words[i] one.Kinds[i]
                    i <- i + 1
                elif i = one.Words.Length || other.Words[j] < one.Words[i] then
                    right.Add other.Words[j]
                    kinds[other.Words[j]] <- other.Kinds[j]
                    all <- all + weigh other.Words[j] other.Kinds[j]
                    j <- j + 1
                else
                    shared.Add one.Words[i]

                    let kind =
                        if one.Kinds[i] = Kind.Name then
                            Kind.Name
                        else
                            other.Kinds[j]

                    kinds[one.Words[i]] <- kind
                    let weight = weigh one.Words[i] kind
                    both <- both + 2.0 * weight
                    all <- all + 2.0 * weight
                    i <- i + 1
                    j <- j + 1

        let ofKind (words: ResizeArray<int>) kind = [
            for word in words do
                if kinds[word] = kind then
                    word
        ]

        member _.Title = if all = 0.0 then 0.0 else both / all
        member _.Shared kind = ofKind shared kind
        member _.Left kind = ofKind left kind
        member _.Right kind = ofKind right kind

    let private compareTo
        (texts: string[])
        (weights: float[])
        (one: Candidate)
        (other: Candidate)
        : Proposal =
        let titles = Comparison(one, other, weights)
        let struct (dates, days) = nearness one.Market.End other.Market.End
        let outcomes = dice one.Outcomes other.Outcomes

        let named (words: int list) =
            words |> List.map (fun word -> texts[word].TrimStart('#')) |> String.concat ", "

        // What speaks against it, and by how much.
        let against = [
            for kind, what, factor in
                [
                    Kind.Year, "year", 0.05
                    Kind.Month, "month", 0.2
                    Kind.Day, "day", 0.6
                    Kind.Number, "number", 0.15
                    Kind.Name, "name", 0.35
                ] do
                match titles.Left kind, titles.Right kind with
                | [], [] -> ()
                | left, [] ->
                    if kind = Kind.Number then
                        $"only one says {named left}", 0.7
                | [], right ->
                    if kind = Kind.Number then
                        $"only one says {named right}", 0.7
                | left, right -> $"another {what}: {named left} and {named right}", factor

            let left, right = titles.Left Kind.Word, titles.Right Kind.Word

            let has (words: int list) text =
                words |> List.exists (fun word -> texts[word] = text)

            match
                opposites
                |> List.tryFind (fun (one, other) ->
                    has left one && has right other || has left other && has right one)
            with
            | Some(one, other) -> $"opposites: {one} and {other}", 0.35
            | None ->
                if not left.IsEmpty && not right.IsEmpty && (titles.Shared Kind.Word).IsEmpty then
                    $"another thing is said: {named left} and {named right}", 0.7

            match days with
            | ValueSome days when days > 300.0 -> $"they end {int days} days apart", 0.4
            | _ -> ()

            if outcomes = 0.0 then
                "no outcome is called the same", 0.6
        ]

        let score =
            (against, 0.75 * titles.Title + 0.15 * dates + 0.1 * outcomes)
            ||> List.foldBack (fun (_, factor) score -> score * factor)

        let inThousandths (value: float) =
            Math.Round(value, 3, MidpointRounding.AwayFromZero)

        {
            First = one.Market
            Second = other.Market
            Score = inThousandths score
            Title = inThousandths titles.Title
            Dates = inThousandths dates
            Outcomes = inThousandths outcomes
            IsInverted =
                one.IsNegated <> other.IsNegated
                && one.Outcomes = yesNo
                && other.Outcomes = yesNo
            Why = [
                for kind, what in
                    [
                        Kind.Name, "names"
                        Kind.Number, "numbers"
                        Kind.Year, "year"
                        Kind.Month, "month"
                        Kind.Day, "day"
                        Kind.Word, "words"
                    ] do
                    match titles.Shared kind with
                    | [] -> ()
                    | shared -> $"same {what}: {named shared}"

                match days with
                | ValueSome days when days <= 31.0 -> $"they end {Math.Round(days, 1)} days apart"
                | _ -> ()

                for reason, _ in against do
                    reason
            ]
        }

    // ---- which are compared

    /// A word or a pair of words that more markets than this have tells nothing apart.
    let private most = 100

    /// Of a market's words the rarest so many are paired.
    let private paired = 6

    /// How they are found, and how many pairs were compared for it.
    type Found = {
        Proposals: Proposal list
        Compared: int
    }

    let private idOf (market: Market) =
        struct (string market.Exchange, string market.Market)

    /// Proposals with this score or more, the highest first, and of equal ones by their ids; a pair of which each has a better partner on the
    /// other's exchange is left out, and so is a pair that is settled. Not all pairs are compared, but those that share a rare word, or two
    /// words that are rare together.
    let find (isSettled: Market -> Market -> bool) (least: float) (markets: Market seq) : Found =
        let markets =
            markets
            |> Seq.sortBy (fun market -> struct (idOf market, market.Received))
            |> Seq.distinctBy idOf
            |> Array.ofSeq

        let titles = markets |> Array.map (fun market -> titleOf market.Question)

        let texts =
            titles
            |> Seq.collect (fun title -> title.Words |> Seq.map (fun struct (word, _) -> word))
            |> Seq.distinct
            |> Array.ofSeq

        Array.Sort(texts, StringComparer.Ordinal)

        let numbers = Dictionary<string, int>(StringComparer.Ordinal)
        texts |> Array.iteri (fun number text -> numbers[text] <- number)
        let counts: int[] = Array.zeroCreate texts.Length

        for title in titles do
            for struct (word, _) in title.Words do
                counts[numbers[word]] <- counts[numbers[word]] + 1

        let weights =
            counts
            |> Array.map (fun count -> Math.Log(1.0 + float markets.Length / float count))

        let candidates =
            Array.map2
                (fun market (title: Title) -> {
                    Market = market
                    Words = title.Words |> Array.map (fun struct (word, _) -> numbers[word])
                    Kinds = title.Words |> Array.map (fun struct (_, kind) -> kind)
                    IsNegated = title.IsNegated
                    Outcomes = outcomesOf market
                })
                markets
                titles

        let buckets = Dictionary<int64, ResizeArray<int>>()

        let put key index =
            match buckets.TryGetValue key with
            | true, bucket -> bucket.Add index
            | _ -> buckets[key] <- ResizeArray [ index ]

        for index in 0 .. candidates.Length - 1 do
            let words = candidates[index].Words

            for word in words do
                if counts[word] <= most then
                    put (int64 word) index

            let rarest =
                words
                |> Array.sortBy (fun word -> struct (counts[word], word))
                |> Array.truncate paired
                |> Array.sort

            for i in 0 .. rarest.Length - 2 do
                for j in i + 1 .. rarest.Length - 1 do
                    put ((int64 (rarest[i] + 1) <<< 32) ||| int64 rarest[j]) index

        let compared = HashSet<int64>()
        let found = ResizeArray<Proposal>()

        for KeyValue(_, bucket) in buckets do
            if bucket.Count <= most then
                for i in 0 .. bucket.Count - 2 do
                    for j in i + 1 .. bucket.Count - 1 do
                        // Markets are put in in their order: the first one's exchange is the first by name.
                        let one, other = candidates[bucket[i]], candidates[bucket[j]]

                        if
                            one.Market.Exchange <> other.Market.Exchange
                            && compared.Add((int64 bucket[i] <<< 32) ||| int64 bucket[j])
                        then
                            let proposal = compareTo texts weights one other

                            if proposal.Score >= least && not (isSettled one.Market other.Market) then
                                found.Add proposal

        let best = Dictionary<struct (struct (string * string) * string), float>()

        let sides (proposal: Proposal) = [
            struct (idOf proposal.First, string proposal.Second.Exchange)
            struct (idOf proposal.Second, string proposal.First.Exchange)
        ]

        for proposal in found do
            for side in sides proposal do
                match best.TryGetValue side with
                | true, score when score >= proposal.Score -> ()
                | _ -> best[side] <- proposal.Score

        {
            Proposals =
                found
                |> Seq.filter (fun proposal ->
                    sides proposal |> List.exists (fun side -> best[side] <= proposal.Score))
                |> Seq.sortBy (fun proposal ->
                    struct (-proposal.Score, idOf proposal.First, idOf proposal.Second))
                |> List.ofSeq
            Compared = compared.Count
        }

    /// What two markets alone are to each other. Words have no weights of rarity then.
    let score (one: Market) (other: Market) : float =
        let found = find (fun _ _ -> false) 0.0 [ one; other ]
        found.Proposals |> List.tryHead |> Option.map _.Score |> Option.defaultValue 0.0
