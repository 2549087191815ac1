/// `tributary exchanges`: how each exchange's data are to be read, and what can be proven of them.
module Tributary.Cli.Exchanging

open System
open System.IO
open System.Text.Json
open System.Threading.Tasks
open Argu
open Tributary
open Tributary.Exchanges
open Tributary.Cli.Arguments
open Tributary.Cli.Terminal

let private collectors =
    lazy (Registry.all |> List.map (fun (_, make) -> make Registry.defaultOptions))

/// What is read of an exchange: the streams that are polled or listened to, and the sources of its past.
let private sources (collector: Collector) =
    collector.History |> List.map _.Name |> String.concat ", "

/// The rows of the two tables: an exchange each, and a stream of an exchange each.
let tables: (string list * string list list) list Lazy =
    lazy
        [
            [ "exchange"; "currency"; "prices"; "outcomes"; "sides"; "past"; "secrets" ],
            [
                for one in collectors.Value ->
                    [
                        string one.Exchange
                        one.Traits.Currency
                        one.Traits.Prices
                        one.Traits.Outcomes
                        one.Traits.Sides
                        sources one
                        one.Secrets |> List.map _.Setting |> String.concat ", "
                    ]
            ]
            [
                "exchange"
                "stream"
                "a loss is noticed by"
                "how much was lost"
                "data are proven by"
            ],
            [
                for one in collectors.Value do
                    for stream in one.Traits.Streams ->
                        [
                            string one.Exchange
                            string stream.Stream
                            stream.Loss
                            stream.Extent
                            stream.Proof
                        ]
            ]
        ]

let private asJson () =
    use out = Console.OpenStandardOutput()
    use writer = new Utf8JsonWriter(out, JsonWriterOptions(Indented = true))
    writer.WriteStartArray()

    for one in collectors.Value do
        writer.WriteStartObject()
        writer.WriteString("exchange", string one.Exchange)
        writer.WriteString("currency", one.Traits.Currency)
        writer.WriteString("prices", one.Traits.Prices)
        writer.WriteString("outcomes", one.Traits.Outcomes)
        writer.WriteString("sides", one.Traits.Sides)

        let names (key: string) (values: string list) =
            writer.WriteStartArray key

            for value in values do
                writer.WriteStringValue value

            writer.WriteEndArray()

        names "past" (one.History |> List.map _.Name)
        names "secrets" (one.Secrets |> List.map _.Setting)
        writer.WriteStartArray "streams"

        for stream in one.Traits.Streams do
            writer.WriteStartObject()
            writer.WriteString("stream", string stream.Stream)
            writer.WriteString("loss", stream.Loss)
            writer.WriteString("extent", stream.Extent)
            writer.WriteString("proof", stream.Proof)
            writer.WriteEndObject()

        writer.WriteEndArray()
        writer.WriteEndObject()

    writer.WriteEndArray()
    writer.Flush()
    out.Write "\n"B

let exchanges (arguments: ParseResults<ExchangesArguments>) : Task<int> =
    if arguments.Contains ExchangesArguments.Json then
        asJson ()
    else
        for headings, rows in tables.Value do
            table headings rows

    Task.FromResult Exit.Done
