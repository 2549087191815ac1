/// From settings to what Core and the runtime take.
[<RequireQualifiedAccess>]
module Tributary.Setup

open System
open Tributary
open Tributary.Exchanges

/// Every registered exchange, as the settings need to know it.
let known: KnownExchange list =
    Registry.all
    |> List.map (fun (name, make) ->
        let collector = make Registry.defaultOptions

        {
            Name = name
            Hosts = collector.Hosts
            Limits = collector.Limits |> List.map (fun limit -> limit.Name, limit.PerTenSeconds)
        })

/// The collector of an exchange under its settings.
let collector (settings: CollectorSettings) : Collector =
    match Registry.tryFind settings.Exchange with
    | None -> invalidArg (nameof settings) $"no exchange is called '{settings.Exchange}'"
    | Some make ->
        make {
            BooksPerRequest = settings.BooksPerRequest
            MarketsPerRequest = settings.MarketsPerRequest
            TradesSource =
                match settings.TradesSource with
                | TradesSource.Auto -> "auto"
                | TradesSource.V1 -> "v1"
                | TradesSource.V2 -> "v2"
        }

/// How the exchange is reached; an error when the proxy's secret cannot be read or is no address.
let transport (settings: CollectorSettings) (collector: Collector) : Result<TransportOptions, string> =
    let proxy =
        match settings.Proxy with
        | None -> Ok None
        | Some secret ->
            Secret.reveal secret
            |> Result.bind (fun address ->
                match Uri.TryCreate(address, UriKind.Absolute) with
                | true, uri -> Ok(Option.ofObj uri)
                | _ -> Error "the proxy's secret is not an address such as http://host:port")

    proxy
    |> Result.map (fun proxy -> {
        Hosts = settings.Urls
        RateLimits = settings.RateLimits
        LimitsOf = collector.LimitsOf
        Timeout = settings.Timeout
        Retries = settings.Retries
        MaxResponse = settings.MaxResponse
        Proxy = proxy
        Window = TimeSpan.FromSeconds 11.0
    })

let private millionths (amount: decimal) = int64 (Math.Round(amount * 1_000_000m))

let private size (amount: decimal option) =
    match amount with
    | Some amount -> Size.tryOfMillionths (millionths amount)
    | None -> ValueNone

let picks (settings: CollectorSettings) : Picks =
    let enabled, disabled = settings.Markets |> List.partition _.Enabled

    {
        Slugs =
            enabled
            |> List.choose (fun pick ->
                match pick.Target with
                | PickTarget.Market slug -> Some slug
                | PickTarget.Event _ -> None)
        Events =
            enabled
            |> List.choose (fun pick ->
                match pick.Target with
                | PickTarget.Event slug -> Some slug
                | PickTarget.Market _ -> None)
        Excluded =
            disabled
            |> List.map (fun pick ->
                match pick.Target with
                | PickTarget.Market slug
                | PickTarget.Event slug -> slug)
        Discovery =
            if settings.Discovery.Enabled then
                ValueSome {
                    Tags = settings.Discovery.Tags
                    MinVolume = size settings.Discovery.MinVolume
                    MinLiquidity = size settings.Discovery.MinLiquidity
                    Slugs = settings.Discovery.Slugs
                    MaxMarkets = settings.Discovery.MaxMarkets
                }
            else
                ValueNone
    }

let rules (settings: ValidationSettings) : Rules = {
    MinPrice = Price.ofMillionths (millionths settings.MinPrice)
    MaxPrice = Price.ofMillionths (millionths settings.MaxPrice)
    MaxAge = settings.MaxAge
    MaxFuture = settings.MaxFuture
}

/// A job is one request's worth: of a market's books there are usually two. The seed of the jitter is the collector's name: two collectors do not ask in step, and one asks at the same offsets again.
let cadences (settings: Settings) : Cadences = {
    BooksPerJob =
        settings.Collectors
        |> List.map (fun collector -> max 1 (collector.BooksPerRequest / 2))
        |> List.min
    TradesPerJob = settings.Collectors |> List.map _.MarketsPerRequest |> List.min
    Books = settings.Schedule.Books
    Trades = settings.Schedule.Trades
    Markets = settings.Schedule.Markets
    Jitter = settings.Schedule.Jitter
    Seed =
        settings.Collector
        |> Seq.fold (fun seed letter -> (seed ^^^ uint64 letter) * 0x100000001B3UL) 0xCBF29CE484222325UL
}
