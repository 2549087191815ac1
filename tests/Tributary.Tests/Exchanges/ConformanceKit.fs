/// What an exchange has to stand before anybody collects from it: named cases, and for each exchange the answers that they are made of.
module Tributary.Tests.Exchanges.ConformanceKit

open System
open System.Text
open System.Text.Json.Nodes
open NUnit.Framework
open Tributary
open Tributary.Exchanges
open Tributary.Tests

/// One kind of answers of an exchange.
type Answers = {
    /// What they are asked with.
    Need: Need
    /// A sound row, as JSON: different numbers are different rows.
    Row: int -> string
    /// A page of rows: the last one, or one that others follow.
    Page: bool -> string list -> string
    /// A page that is full, if pages end by being shorter: so many rows.
    PageRows: int
    /// Members that a row cannot do without.
    Needed: string list
}

/// An exchange, and what it says.
type Kit = {
    Name: string
    Collector: Collector
    Markets: Answers
    Trades: Answers
    Tokens: TokenId list
    /// A book of these bids and asks, (price, size), of the first token.
    Book: (string * string) list -> (string * string) list -> string
    /// Its levels may come in any order, and twice.
    SortsLevels: bool
    /// A market's row with each word for a status, and what it is.
    Statuses: (string * MarketStatus) list
    /// Frames of a live connection whose tokens are `Tokens`, in their order: each says something.
    Frames: string list
    /// Cases that cannot be, by the beginnings of their names, and why.
    Impossible: (string * string) list
}

let received = Instant.ofMillis 1_790_000_100_000L

let private ask (kit: Kit) need = List.head (kit.Collector.Ask need)

let private decode (kit: Kit) (request: Request) (bytes: byte[]) =
    let batch = Batch()
    let decoded = kit.Collector.Decode request (ReadOnlyMemory bytes) received batch
    batch, decoded

/// All rows of a batch, in words.
let private rows (batch: Batch) : string list = [
    for i in 0 .. batch.Trades.Count - 1 -> $"%A{batch.Trade i}"
    for i in 0 .. batch.Books.Count - 1 -> $"%A{batch.Book i}"
    for market in batch.Markets -> $"{market.Market} {market.Status} {market.Question}"
]

let rec private objects (node: JsonNode | null) : JsonObject list =
    match node with
    | :? JsonObject as found -> [
        found
        for pair in List.ofSeq found do
            yield! objects pair.Value
      ]
    | :? JsonArray as list -> [
        for item in list do
            yield! objects item
      ]
    | _ -> []

/// A JSON text with one member of one of its objects changed: once for each.
let private changes (change: JsonObject -> string -> unit) (json: string) : string list =
    let changedAt i key =
        let copy = nonNull (JsonNode.Parse json)
        change (List.item i (objects copy)) key
        copy.ToJsonString()

    objects (JsonNode.Parse json)
    |> List.mapi (fun i found -> [ for pair in found -> changedAt i pair.Key ])
    |> List.concat

let private put (json: string) (o: JsonObject) (key: string) = o[key] <- JsonNode.Parse json

/// The members of all objects the other way round.
let rec private permuted (node: JsonNode) : JsonNode =
    let inner (child: JsonNode | null) : JsonNode | null =
        match child with
        | null -> null
        | child -> permuted child

    match node with
    | :? JsonObject as found ->
        let other = JsonObject()

        for pair in Seq.rev (List.ofSeq found) do
            other.Add(pair.Key, inner pair.Value)

        other
    | :? JsonArray as list ->
        let other = JsonArray()

        for item in list do
            other.Add(inner item)

        other
    | other -> other.DeepClone()

let private spaced (json: string) =
    let text = StringBuilder()
    let mutable isInside, isEscaped = false, false

    for letter in json do
        if not isInside && "{}[]:,".Contains letter then
            text.Append(" \n").Append(letter).Append "\t " |> ignore
        else
            text.Append letter |> ignore

        if letter = '"' && not isEscaped then
            isInside <- not isInside

        isEscaped <- isInside && letter = '\\' && not isEscaped

    string text

// ---- answers of any kind

type private Subject = {
    What: string
    Request: Kit -> Request
    Body: Kit -> string
    /// A sound row, where answers are rows.
    Row: (Kit -> int -> string) voption
}

let private subjects = [
    {
        What = "markets"
        Request = fun kit -> ask kit kit.Markets.Need
        Body = fun kit -> kit.Markets.Page true [ kit.Markets.Row 1; kit.Markets.Row 2 ]
        Row = ValueSome(fun kit -> kit.Markets.Row)
    }
    {
        What = "trades"
        Request = fun kit -> ask kit kit.Trades.Need
        Body = fun kit -> kit.Trades.Page true [ kit.Trades.Row 1; kit.Trades.Row 2 ]
        Row = ValueSome(fun kit -> kit.Trades.Row)
    }
    {
        What = "books"
        Request = fun kit -> ask kit (Need.Books kit.Tokens)
        Body = fun kit -> kit.Book [ "0.44", "7.5"; "0.4", "30" ] [ "0.47", "250"; "0.5", "12" ]
        Row = ValueNone
    }
]

let private sound (subject: Subject) kit =
    rows (fst (decode kit (subject.Request kit) (utf8 (subject.Body kit))))

let private throwsNever subject kit (texts: string seq) =
    for text in texts do
        try
            decode kit (subject.Request kit) (utf8 text) |> ignore
        with error ->
            Assert.Fail $"{error}\n{text}"

let private damaged json subject kit =
    throwsNever subject kit (changes (put json) (subject.Body kit))

let private ofAnswers: (string * (Subject -> Kit -> unit)) list = [
    "a sound answer gives rows, without a fault or a rejection",
    (fun subject kit ->
        let batch, decoded = decode kit (subject.Request kit) (utf8 (subject.Body kit))
        equal (ValueNone, 0) (decoded.Fault, batch.Rejections.Count)
        isTrue ((rows batch).Length >= 1))
    "the same bytes give the same rows", (fun subject kit -> equal (sound subject kit) (sound subject kit))
    "the members of an object may come in any order",
    (fun subject kit ->
        let other = permuted (nonNull (JsonNode.Parse(subject.Body kit)))
        let batch, decoded = decode kit (subject.Request kit) (utf8 (other.ToJsonString()))
        equal ValueNone decoded.Fault
        equal ((sound subject kit).Length, 0) ((rows batch).Length, batch.Rejections.Count))
    "white space changes nothing",
    (fun subject kit ->
        let batch, _ = decode kit (subject.Request kit) (utf8 (spaced (subject.Body kit)))
        equal ((sound subject kit).Length, 0) ((rows batch).Length, batch.Rejections.Count))
    "an unknown member changes no row",
    (fun subject kit ->
        for text in
            changes (fun o key -> o["unknown " + key] <- JsonNode.Parse "[{\"a\":null}]") (subject.Body kit) do
            equal (sound subject kit) (rows (fst (decode kit (subject.Request kit) (utf8 text)))))
    "a missing member makes no row of zeros",
    (fun subject kit ->
        let without = changes (fun o key -> o.Remove key |> ignore) (subject.Body kit)
        throwsNever subject kit without

        for text in without do
            let batch, _ = decode kit (subject.Request kit) (utf8 text)

            for i in 0 .. batch.Trades.Count - 1 do
                isTrue ((batch.Trade i).Price.Millionths > 0L && (batch.Trade i).Size.Millionths > 0L))
    "a member that is null never throws", damaged "null"
    "a member of the wrong type never throws",
    (fun subject kit ->
        for json in [ "{\"a\":[1,2,{}]}"; "[]"; "true"; "7"; "\"\"" ] do
            damaged json subject kit)
    "a number as a text never throws", damaged "\"12\""
    "a huge number never throws", damaged "1e300"
    "a tiny number never throws", damaged "1e-300"
    "a number of 500 digits never throws", damaged (String('9', 500))
    "a giant text never throws", damaged $"\"{String('x', 100_000)}\""
    "odd characters in a text never throw", damaged "\"\\u0000\\\\\\\" \\u2028\""
    "bytes that are cut never throw, and give no row that the whole did not",
    (fun subject kit ->
        let bytes, whole = utf8 (subject.Body kit), sound subject kit

        for length in 0 .. bytes.Length - 1 do
            let batch, decoded = decode kit (subject.Request kit) bytes[.. length - 1]
            let read = rows batch
            equal (List.truncate read.Length whole) read
            isTrue (decoded.Fault.IsSome || read = whole))
    "bytes that are not UTF-8 never throw",
    (fun subject kit ->
        let bytes = utf8 (subject.Body kit)

        for at in 0..3 .. bytes.Length - 1 do
            let broken = Array.copy bytes
            broken[at] <- 0xFFuy
            decode kit (subject.Request kit) broken |> ignore)
    "deep nesting never throws",
    (fun subject kit -> throwsNever subject kit [ String('[', 100_000); String.replicate 100_000 "{\"a\":" ])
    "a page in HTML is a fault",
    (fun subject kit ->
        let _, decoded =
            decode kit (subject.Request kit) (utf8 "<!DOCTYPE html><html><body>502</body></html>")

        isTrue decoded.Fault.IsSome)
    "an empty answer is a fault",
    (fun subject kit ->
        let _, decoded = decode kit (subject.Request kit) [||]
        isTrue decoded.Fault.IsSome)
    "what follows the end of an answer is a fault",
    (fun subject kit ->
        let _, decoded = decode kit (subject.Request kit) (utf8 (subject.Body kit + " x"))
        isTrue decoded.Fault.IsSome)
    "a refusal is judged, whatever its status",
    (fun subject kit ->
        for status in [ 400; 401; 403; 404; 405; 410; 413; 425; 429; 500; 501; 502; 503; 504 ] do
            match kit.Collector.OnFault (subject.Request kit) (Fault.Refused(status, "no")) with
            | ValueSome decoded ->
                // A question is not answered by asking it again.
                isTrue (
                    decoded.Next
                    |> List.forall (fun next -> next.Path <> (subject.Request kit).Path)
                )
            | ValueNone -> ())
]

// ---- rows of pages

let private ofPages: (string * (Subject -> (Kit -> Answers) -> Kit -> unit)) list = [
    "a page without rows is none",
    (fun subject answers kit ->
        let batch, decoded =
            decode kit (subject.Request kit) (utf8 ((answers kit).Page true []))

        equal (ValueNone, [], []) (decoded.Fault, rows batch, decoded.Next))
    "the last page is the end",
    (fun subject _ kit ->
        let _, decoded = decode kit (subject.Request kit) (utf8 (subject.Body kit))
        equal [] decoded.Next)
    "a page that others follow asks for the next",
    (fun subject answers kit ->
        let answers = answers kit
        let page = answers.Page false [ for i in 1 .. answers.PageRows -> answers.Row i ]
        let _, decoded = decode kit (subject.Request kit) (utf8 page)
        equal (ValueNone, 1) (decoded.Fault, decoded.Next.Length)
        isTrue (decoded.Next.Head.Path <> (subject.Request kit).Path))
    "a page that comes again ends the walk, and is no rows",
    (fun subject answers kit ->
        let answers = answers kit
        let page = answers.Page false [ for i in 1 .. answers.PageRows -> answers.Row i ]
        let _, decoded = decode kit (subject.Request kit) (utf8 page)
        let batch, again = decode kit decoded.Next.Head (utf8 page)

        match again.Fault with
        | ValueSome(Fault.RepeatedPage _) -> equal ([], []) (rows batch, again.Next)
        | other -> Assert.Fail $"%A{other}")
    "a bad row costs no good one, and is kept with its reason",
    (fun subject answers kit ->
        let answers = answers kit
        let page = answers.Page true [ answers.Row 1; "{\"id\":[]}"; "7"; answers.Row 2 ]
        let batch, decoded = decode kit (subject.Request kit) (utf8 page)
        equal (ValueNone, 2) (decoded.Fault, (rows batch).Length)
        isTrue (batch.Rejections.Count >= 1)

        for rejection in batch.Rejections do
            isTrue (rejection.Reason <> "" && rejection.Bytes.Length > 0))
    "a row without what it needs is kept with its reason",
    (fun subject answers kit ->
        let answers = answers kit

        for name in answers.Needed do
            let row = (nonNull (JsonNode.Parse(answers.Row 1))).AsObject()
            isTrue (row.Remove name)

            let batch, _ =
                decode kit (subject.Request kit) (utf8 (answers.Page true [ row.ToJsonString() ]))

            equal ([], 1) (rows batch, batch.Rejections.Count))
    "rows that come twice are as many as came, and have one identity where the exchange gives one",
    (fun subject answers kit ->
        let answers = answers kit

        let batch, decoded =
            decode kit (subject.Request kit) (utf8 (answers.Page true [ answers.Row 1; answers.Row 1 ]))

        Trades.number Trades.noCarry batch |> ignore
        equal (ValueNone, 2) (decoded.Fault, (rows batch).Length))
    "rows may come in any order",
    (fun subject answers kit ->
        let answers = answers kit

        let read (numbers: int list) =
            decode kit (subject.Request kit) (utf8 (answers.Page true (numbers |> List.map answers.Row)))
            |> fst
            |> rows
            |> List.sort

        equal (read [ 1; 2; 3 ]) (read [ 3; 1; 2 ]))
]

// ---- books

let private bookOf (kit: Kit) bids asks =
    let batch, decoded =
        decode kit (ask kit (Need.Books kit.Tokens)) (utf8 (kit.Book bids asks))

    equal ValueNone decoded.Fault
    batch.Book 0

let private levels (levels: Level[]) =
    levels
    |> Array.map (fun level -> string level.Price, string level.Size)
    |> List.ofArray

let private some = [ "0.44", "7.5"; "0.4", "30" ], [ "0.47", "250"; "0.5", "12" ]

let private ofBooks: (string * (Kit -> unit)) list = [
    "levels are read exactly, best first",
    (fun kit ->
        let bids, asks = some
        let book = bookOf kit bids asks
        equal (bids, asks) (levels book.Bids, levels book.Asks))
    "a book without asks is one-sided",
    (fun kit ->
        let book = bookOf kit (fst some) []
        equal (2, 0) (book.Bids.Length, book.Asks.Length))
    "a book without bids is one-sided",
    (fun kit ->
        let book = bookOf kit [] (snd some)
        equal (0, 2) (book.Bids.Length, book.Asks.Length))
    "an empty book is a book",
    (fun kit ->
        let book = bookOf kit [] []
        equal (0, 0) (book.Bids.Length, book.Asks.Length))
    "levels in any order are sorted",
    (fun kit ->
        let book =
            bookOf kit [ "0.4", "30"; "0.44", "7.5"; "0.42", "1" ] [
                "0.5", "12"
                "0.47", "250"
                "0.49", "1"
            ]

        equal [ "0.44"; "0.42"; "0.4" ] (levels book.Bids |> List.map fst)
        equal [ "0.47"; "0.49"; "0.5" ] (levels book.Asks |> List.map fst))
    "a level of nothing is no level",
    (fun kit ->
        let book = bookOf kit [ "0.44", "7.5"; "0.4", "0" ] []
        equal [ "0.44", "7.5" ] (levels book.Bids))
    "a level of less than nothing is refused",
    (fun kit ->
        let batch, _ =
            decode kit (ask kit (Need.Books kit.Tokens)) (utf8 (kit.Book [ "0.44", "-7.5" ] []))

        equal (0, 1) (batch.Books.Count, batch.Rejections.Count))
    "a token that is asked for and not answered is said to be missing",
    (fun kit ->
        let unknown = kit.Tokens @ [ token (string kit.Tokens.Head + "9") ]
        let bids, asks = some

        let missing =
            kit.Collector.Ask(Need.Books unknown)
            |> List.collect (fun request -> (snd (decode kit request (utf8 (kit.Book bids asks)))).Missing)

        isTrue (List.contains (List.last unknown) missing))
    "a book that nothing proves is not called verified",
    (fun kit ->
        let bids, asks = some
        let book = bookOf kit bids asks
        isTrue (book.Verdict <> Verdict.Verified || book.Hash <> ""))
]

// ---- markets

let private ofMarkets: (string * (Kit -> unit)) list = [
    "each word for a status is what it means",
    (fun kit ->
        for row, status in kit.Statuses do
            let batch, _ =
                decode kit (ask kit kit.Markets.Need) (utf8 (kit.Markets.Page true [ row ]))

            equal status batch.Markets[0].Status)
    "a market that trades has a token for each outcome",
    (fun kit ->
        let batch, _ =
            decode kit (ask kit kit.Markets.Need) (utf8 (kit.Markets.Page true [ kit.Markets.Row 1 ]))

        let market = batch.Markets[0]
        isTrue (market.IsTradable && market.Tokens.Length = market.Outcomes.Length))
    "tokens are those that books and trades are told of",
    (fun kit ->
        let batch, _ =
            decode kit (ask kit kit.Markets.Need) (utf8 (kit.Markets.Page true [ kit.Markets.Row 1 ]))

        let known = batch.Markets[0].Tokens

        let trades, _ =
            decode kit (ask kit kit.Trades.Need) (utf8 (kit.Trades.Page true [ kit.Trades.Row 1 ]))

        isTrue (Array.contains (trades.Trade 0).Token known)
        isTrue (Array.contains kit.Tokens.Head known))
    "the description is kept as it came",
    (fun kit ->
        let batch, _ =
            decode kit (ask kit kit.Markets.Need) (utf8 (kit.Markets.Page true [ kit.Markets.Row 1 ]))

        isTrue (JsonNode.DeepEquals(JsonNode.Parse batch.Markets[0].Raw, JsonNode.Parse(kit.Markets.Row 1))))
]

// ---- the stream

let private part (kit: Kit) = kit.Collector.Stream.Value

/// What frames say, in words, over one conversation.
let private heard (kit: Kit) (frames: byte[] list) =
    let session = (part kit).Session()
    session.Open kit.Tokens |> ignore
    let frame = Frame(Names())

    [
        for bytes in frames do
            frame.Clear()
            session.Decode (ReadOnlyMemory bytes) received frame

            for i in 0 .. frame.Events.Count - 1 do
                let event = frame.Events[i]
                $"{event.Kind} {frame.Batch.Names.Text event.Token} {event.Side} {event.Price} {event.Size} {event.At}"

            for rejection in frame.Batch.Rejections do
                $"rejected: {rejection.Reason}"
    ]

let private frames (kit: Kit) = kit.Frames |> List.map utf8

let private ofStreams: (string * (Kit -> unit)) list = [
    "a conversation begins by asking for its tokens",
    (fun kit ->
        let texts = (part kit).Session().Open kit.Tokens
        isTrue (not texts.IsEmpty)

        for text in texts do
            isTrue (not (isNull (JsonNode.Parse text))))
    "more tokens are asked for, and given up",
    (fun kit ->
        let session = (part kit).Session()
        session.Open [] |> ignore
        session.Subscribe kit.Tokens |> ignore
        session.Unsubscribe kit.Tokens |> ignore)
    "sound frames say something, and nothing of them is refused",
    (fun kit ->
        for i in 1 .. kit.Frames.Length do
            let said = heard kit (frames kit |> List.truncate i)
            isTrue (not said.IsEmpty)
            isTrue (said |> List.forall (fun word -> not (word.StartsWith "rejected"))))
    "the same frames say the same", (fun kit -> equal (heard kit (frames kit)) (heard kit (frames kit)))
    "a conversation that begins anew says the same from its beginning on",
    (fun kit ->
        let half = frames kit |> List.truncate 1
        heard kit (frames kit @ half) |> ignore
        equal (heard kit (frames kit)) (heard kit (frames kit)))
    "a frame's members may come in any order",
    (fun kit ->
        let other =
            kit.Frames
            |> List.map (fun text -> utf8 ((permuted (nonNull (JsonNode.Parse text))).ToJsonString()))

        equal (heard kit (frames kit)).Length (heard kit other).Length)
    "white space in a frame changes nothing",
    (fun kit -> equal (heard kit (frames kit)) (heard kit (kit.Frames |> List.map (spaced >> utf8))))
    "a frame that comes twice never throws",
    (fun kit -> heard kit (frames kit |> List.collect (fun frame -> [ frame; frame ])) |> ignore)
    "frames in the wrong order never throw", (fun kit -> heard kit (List.rev (frames kit)) |> ignore)
    "a frame of an unknown kind says nothing, and costs nothing",
    (fun kit ->
        let unknown =
            utf8 """{"type":"nobody knows","event_type":"nobody knows","market":"m","sid":99,"msg":{}}"""

        let said = heard kit [ yield! frames kit; unknown ]
        equal (heard kit (frames kit)) said)
    "an empty frame says nothing", (fun kit -> equal [] (heard kit [ [||]; utf8 " " ]))
    "a frame that is cut never throws",
    (fun kit ->
        for whole in frames kit do
            for length in 0 .. whole.Length - 1 do
                heard kit [ whole[.. length - 1] ] |> ignore)
    "a frame that is not UTF-8 never throws, and says nothing false",
    (fun kit ->
        for whole in frames kit do
            for at in 0..5 .. whole.Length - 1 do
                let broken = Array.copy whole
                broken[at] <- 0xFFuy
                heard kit [ broken ] |> ignore)
    "deep nesting in a frame never throws",
    (fun kit ->
        heard kit [ utf8 (String('[', 100_000)); utf8 (String.replicate 100_000 "{\"a\":") ]
        |> ignore)
    "a giant frame never throws",
    (fun kit ->
        let giant = $"{{\"type\":\"{String('x', 4_000_000)}\"}}"
        heard kit [ utf8 giant ] |> ignore)
    "no member of a frame, whatever it becomes, throws",
    (fun kit ->
        for text in kit.Frames do
            for json in
                [
                    "null"
                    "[]"
                    "{\"a\":1}"
                    "true"
                    "\"\""
                    "1e300"
                    "1e-300"
                    "-1"
                    String('9', 500)
                ] do
                for other in changes (put json) text do
                    heard kit [ utf8 other ] |> ignore)
    "a member that is missing from a frame never throws",
    (fun kit ->
        for text in kit.Frames do
            for other in changes (fun o key -> o.Remove key |> ignore) text do
                heard kit [ utf8 other ] |> ignore)
]

/// Every case, by its name.
let cases: (string * (Kit -> unit)) list = [
    for name, check in ofAnswers do
        for subject in subjects do
            $"{subject.What}: {name}", check subject

    for name, check in ofPages do
        for subject, answers in [ subjects[0], (fun (kit: Kit) -> kit.Markets); subjects[1], _.Trades ] do
            $"{subject.What}: {name}", check subject answers

    for name, check in ofBooks do
        $"books: {name}", check

    for name, check in ofMarkets do
        $"markets: {name}", check

    for name, check in ofStreams do
        $"stream: {name}", check
]

/// Why a case cannot be with an exchange, if it cannot.
let impossible (kit: Kit) (name: string) =
    kit.Impossible
    |> List.tryPick (fun (beginning, why) -> if name.StartsWith beginning then Some why else None)
