namespace Tributary

open System.Collections.Immutable

/// Which connection bears which tokens. The tokens of a market stay together, because one message tells of all of them. Connections have
/// numbers that are never used again.
type Shards = private {
    Most: int
    NextNumber: int
    Of: ImmutableDictionary<string, int>
    Tokens: ImmutableDictionary<int, ImmutableList<TokenId>>
    /// Those that may have room.
    Open: int list
}

[<RequireQualifiedAccess>]
module Shards =
    /// No connections; each will bear so many tokens at most.
    let empty most = {
        Most = max 1 most
        NextNumber = 0
        Of = ImmutableDictionary.Empty
        Tokens = ImmutableDictionary.Empty
        Open = []
    }

    /// The tokens of a connection.
    let tokens number shards : TokenId list =
        match shards.Tokens.TryGetValue number with
        | true, tokens -> List.ofSeq tokens
        | _ -> []

    let connections shards =
        List.ofSeq shards.Tokens.Keys |> List.sort

    let tryFind (token: TokenId) shards =
        match shards.Of.TryGetValue(string token) with
        | true, number -> ValueSome number
        | _ -> ValueNone

    /// Places the tokens of markets that have no place yet: answers what is new on each connection.
    let add (markets: TokenId list list) shards : Shards * (int * TokenId list) list =
        let mutable nextNumber = shards.NextNumber
        let mutable open' = shards.Open
        let of' = shards.Of.ToBuilder()
        let all = shards.Tokens.ToBuilder()
        let filling = System.Collections.Generic.Dictionary<int, ResizeArray<TokenId>>()
        let order = ResizeArray<int>()

        let sizeOf number =
            (match all.TryGetValue number with
             | true, tokens -> tokens.Count
             | _ -> 0)
            + (match filling.TryGetValue number with
               | true, added -> added.Count
               | _ -> 0)

        for market in markets do
            let fresh = market |> List.filter (fun token -> not (of'.ContainsKey(string token)))

            if not fresh.IsEmpty then
                // A market larger than a connection gets one of its own, too full as it is.
                let number =
                    match
                        open'
                        |> List.tryFind (fun number -> sizeOf number + fresh.Length <= shards.Most)
                    with
                    | Some number -> number
                    | None ->
                        let number = nextNumber
                        nextNumber <- number + 1
                        open' <- number :: open'
                        number

                for token in fresh do
                    of'[string token] <- number

                match filling.TryGetValue number with
                | true, added -> added.AddRange fresh
                | _ ->
                    filling[number] <- ResizeArray fresh
                    order.Add number

                if sizeOf number + 2 > shards.Most then
                    open' <- open' |> List.filter ((<>) number)

        for number in order do
            let before =
                match all.TryGetValue number with
                | true, tokens -> tokens
                | _ -> ImmutableList.Empty

            all[number] <- before.AddRange filling[number]

        {
            shards with
                NextNumber = nextNumber
                Of = of'.ToImmutable()
                Tokens = all.ToImmutable()
                Open = open'
        },
        [ for number in order -> number, List.ofSeq filling[number] ]

    /// Takes a token from its connection; a connection without tokens is gone.
    let remove (token: TokenId) shards : Shards =
        match tryFind token shards with
        | ValueNone -> shards
        | ValueSome number ->
            let left = shards.Tokens[number].Remove token

            {
                shards with
                    Of = shards.Of.Remove(string token)
                    Tokens =
                        if left.IsEmpty then
                            shards.Tokens.Remove number
                        else
                            shards.Tokens.SetItem(number, left)
                    Open =
                        if left.IsEmpty then
                            shards.Open |> List.filter ((<>) number)
                        elif List.contains number shards.Open then
                            shards.Open
                        else
                            number :: shards.Open
            }

    /// Gives a token another connection than it has: one with room, or a new one. Answers its number.
    let move (token: TokenId) shards : Shards * int =
        let before = tryFind token shards
        let removed = remove token shards

        // Not the one that it comes from.
        let narrowed = {
            removed with
                Open = removed.Open |> List.filter (fun number -> ValueSome number <> before)
        }

        let added, placed = add [ [ token ] ] narrowed
        let reopened = removed.Open |> List.filter (fun number -> ValueSome number = before)

        {
            added with
                Open = reopened @ added.Open
        },
        fst placed.Head

    /// The same tokens on a connection with a new number: answers it.
    let replace number shards : Shards * int =
        match shards.Tokens.TryGetValue number with
        | true, tokens ->
            let fresh = shards.NextNumber
            let of' = shards.Of.ToBuilder()

            for token in tokens do
                of'[string token] <- fresh

            {
                shards with
                    NextNumber = fresh + 1
                    Of = of'.ToImmutable()
                    Tokens = shards.Tokens.Remove(number).Add(fresh, tokens)
                    Open = shards.Open |> List.map (fun other -> if other = number then fresh else other)
            },
            fresh
        | _ -> shards, number
