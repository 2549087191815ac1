namespace Tributary.Server.Simulator

open System
open System.Buffers
open System.Collections.Concurrent
open System.Globalization
open System.Text
open System.Text.Encodings.Web
open System.Text.Json

/// A request refused with a status and a message; the simulator turns it into a small JSON error.
exception internal Refused of status: int * message: string

/// The parameters of a request. A key may come several times.
type internal Query(values: Map<string, string list>) =
    let refuse status name value =
        raise (Refused(status, $"invalid value for {name}: {value}"))

    /// Every value of a repeated key.
    member _.All name =
        values |> Map.tryFind name |> Option.defaultValue []

    /// Every value of a repeated key, and of the comma-separated lists in them.
    member this.List name =
        this.All name
        |> List.collect (fun text -> List.ofArray (text.Split(',', StringSplitOptions.RemoveEmptyEntries)))

    member this.One name = this.All name |> List.tryHead

    /// A number of the caller's, refused with this status when it is none.
    member this.Whole(name, status) =
        this.One name
        |> Option.map (fun text ->
            match Int64.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture) with
            | true, value -> value
            | _ -> refuse status name text)

    member this.Real(name, status) =
        this.One name
        |> Option.map (fun text ->
            match Double.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture) with
            | true, value -> value
            | _ -> refuse status name text)

    member this.Flag(name, status) =
        this.One name
        |> Option.map (fun text ->
            match Boolean.TryParse text with
            | true, value -> value
            | _ -> refuse status name text)

    member _.Has name = values.ContainsKey name
    member _.Names = values.Keys

    member _.Without names =
        Query(List.fold (fun values name -> Map.remove name values) values names)

/// Where an answer is written: a buffer and a JSON writer over it, used again and again.
[<Sealed>]
type internal Sheet private () =
    static let spare = ConcurrentBag<Sheet>()
    let buffer = ArrayBufferWriter<byte> 65_536

    let writer =
        new Utf8JsonWriter(
            buffer,
            JsonWriterOptions(Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping, SkipValidation = true)
        )

    static member Take() =
        match spare.TryTake() with
        | true, sheet -> sheet
        | _ -> new Sheet()

    member _.Json = writer

    /// What was written so far; valid until the sheet is given back.
    member _.Written =
        writer.Flush()
        buffer.WrittenMemory

    /// Ends a line of JSON Lines; the next value begins anew.
    member _.EndLine() =
        writer.Flush()
        buffer.Write "\n"B
        writer.Reset()

    member _.Clear() =
        writer.Reset()
        buffer.ResetWrittenCount()

    interface IDisposable with
        member this.Dispose() =
            this.Clear()
            // A page of ten thousand trades need not stay in memory.
            if buffer.Capacity <= 4_194_304 then
                spare.Add this

/// What an answer says beside its body, for the ledger.
type internal Answer = {
    Status: int
    ContentType: string
    RetryAfter: string voption
    Asked: string[]
    Books: LedgerBook[]
    Rows: int
}

module internal Answer =
    let json = {
        Status = 200
        ContentType = "application/json; charset=utf-8"
        RetryAfter = ValueNone
        Asked = [||]
        Books = [||]
        Rows = 0
    }

    let html status = {
        json with
            Status = status
            ContentType = "text/html; charset=UTF-8"
    }

    /// `{"error":"…"}`
    let error status (message: string) (writer: Utf8JsonWriter) =
        writer.WriteStartObject()
        writer.WriteString("error", message)
        writer.WriteEndObject()
        { json with Status = status }

/// A request as the three hosts see it.
type internal Ask = {
    Method: string
    /// The parts of the path, the host's prefix first.
    Path: string list
    Query: Query
    Body: ReadOnlyMemory<byte>
    /// Signed by the owner of a key.
    IsOwner: bool
    /// A source that belongs to this request alone.
    Dice: Dice
}

[<AutoOpen>]
module internal WriterExtensions =
    type Utf8JsonWriter with

        /// An array whose elements `write` puts down.
        member this.Array(name: string, items: seq<'a>, write: 'a -> unit) =
            this.WriteStartArray name

            for item in items do
                write item

            this.WriteEndArray()

        /// Gamma's way of giving a list: a string whose content is JSON.
        member this.EncodedArray(name: string, items: string[]) =
            let quoted =
                items
                |> Array.map (fun item ->
                    "\"" + JavaScriptEncoder.UnsafeRelaxedJsonEscaping.Encode item + "\"")

            this.WriteString(name, "[" + String.Join(", ", quoted) + "]")

    /// UTF-8 of a text, for the few bodies that are not made by a JSON writer.
    let utf8 (text: string) = Encoding.UTF8.GetBytes text
