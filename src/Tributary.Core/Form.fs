namespace Tributary

open System
open System.Numerics
open System.Runtime.CompilerServices
open System.Runtime.InteropServices
open System.Runtime.Intrinsics
open System.Runtime.Intrinsics.X86
open System.Text.Unicode

/// What was found in a message of a known form.
[<Struct; NoComparison; NoEquality>]
type Found =
    /// What the careful reader called the place.
    val mutable Code: int
    /// The scalar there, if it took one.
    val mutable Scalar: Scalar

/// A run of constant bytes, and what is behind it.
[<Struct; NoComparison; NoEquality>]
type private Step =
    val mutable Run: Vector256<byte>
    /// The bytes of the vector that are not the run's, one bit each.
    val mutable Rest: uint32
    val mutable Length: int
    /// What the careful reader called the place behind the run.
    val mutable Code: int
    /// A scalar follows, whatever it says.
    val mutable IsHole: bool
    /// How long that was the last time, and how often it was another length than before. Negative when it is not worth a guess.
    val mutable Usual: int
    val mutable Changes: int
    /// Another run that was met in the same place; 0 when there is none.
    val mutable Other: int

/// Why a comparison does not go on.
type private Halt =
    | None = 0
    /// A form is complete.
    | End = 1
    /// No form is like this.
    | Strange = 2
    /// What is here takes more than a glance.
    | Unusual = 3

[<RequireQualifiedAccess>]
module private Form =
    /// The longest run of a step: what a vector holds.
    [<Literal>]
    let Width = 32

    [<Literal>]
    let MostSteps = 512

    [<Literal>]
    let MostMarks = 256

    /// What is looked at from one place on: a run, and a scalar behind it.
    [<Literal>]
    let Reach = 72

    /// What is compared in a copy: the end of a message, where nothing would be left to look at.
    [<Literal>]
    let Tail = 96

    /// So many runs are met in one place at the most.
    [<Literal>]
    let MostOthers = 8

    /// After so many other lengths a scalar's length is not worth a guess.
    [<Literal>]
    let MostChanges = 8

    // What is behind a run that no reader has a name for: a scalar that it skipped, the rest of a run that is too long for one step, and the
    // end of the text.
    [<Literal>]
    let Skipped = -1

    [<Literal>]
    let More = -2

    [<Literal>]
    let End = -3

    /// The scalar behind the run of this step ends at `over`.
    let inline take (step: byref<Step>) (hole: int) (over: int) =
        // What follows is looked at without waiting for this one to be measured, where most are as long as ever.
        if over - hole = step.Usual then
            hole + step.Usual
        else
            if step.Usual >= 0 then
                step.Changes <- step.Changes + 1
                step.Usual <- if step.Changes > MostChanges then -1 else over - hole

            over

/// The forms of one conversation's messages. An exchange says what it has to say in the same way again and again: between the scalars of
/// a message stands what stood in one before. So a message that was read with care and found sound leaves its form: constant bytes, holes for
/// scalars, and what the careful reader took from which. Whatever fits a form leads that reader along the same way; to find out is a comparison
/// of bytes.
///
/// Forms that begin alike share their beginning: a tree. Its room is all the memory that it ever takes. What finds no room in it is always read
/// with care; after a while the tree is forgotten and grows anew, more and more seldom.
[<Sealed>]
type Forms() =
    // A form's steps follow each other, from the step at which it parts with others on.
    let steps: Step[] = Array.zeroCreate Form.MostSteps
    let mutable count = 0

    // What the careful reader took from the message at hand, in the order of the text.
    let places: int[] = Array.zeroCreate Form.MostMarks
    let codes: int[] = Array.zeroCreate Form.MostMarks
    let mutable marks, isRegular = 0, true
    let mutable pause, refused, patience = 0, 0, 64

    // The end of a message that may fit, with room behind it. Where the comparison is in it, and what was found so far.
    let tail: byte[] = Array.zeroCreate (Form.Tail + Form.Reach)
    let found: Found[] = Array.zeroCreate (Form.MostMarks + 1)
    let mutable at, step, met = 0, 0, 0

    let isStep (i: int) (run: ReadOnlySpan<byte>) isHole code =
        let step = &steps[i]
        let bytes = MemoryMarshal.AsBytes(Span<Vector256<byte>> &step.Run)

        step.Code = code
        && step.IsHole = isHole
        && run.SequenceEqual(bytes.Slice(0, step.Length))

    let add (run: ReadOnlySpan<byte>) isHole code =
        let mutable step = Step()
        run.CopyTo(MemoryMarshal.AsBytes(Span<Vector256<byte>> &step.Run))
        step.Length <- run.Length

        step.Rest <-
            if run.Length = Form.Width then
                0u
            else
                UInt32.MaxValue <<< run.Length

        step.IsHole <- isHole
        step.Code <- code
        steps[count] <- step
        count <- count + 1

    /// The place for what follows the step that is so, which is `at` or another one there; or it is added, and parts with the others at `fork`.
    /// Negative when there is no room.
    let rec follow (at: int) (run: ReadOnlySpan<byte>) isHole code (fork: byref<int>) =
        if run.Length > Form.Width then
            match follow at (run.Slice(0, Form.Width)) false Form.More &fork with
            | -1 -> -1
            | next -> follow next (run.Slice Form.Width) isHole code &fork
        else
            let mutable i, met, last = at, 0, -1

            while i >= 0 && i < count && not (isStep i run isHole code) do
                last <- i
                met <- met + 1
                i <- if steps[i].Other = 0 then -1 else steps[i].Other

            if i >= 0 && i < count then
                i + 1
            elif count = Form.MostSteps || met = Form.MostOthers then
                -1
            else
                if last >= 0 then
                    fork <- last
                    steps[last].Other <- count

                add run isHole code
                count

    /// Adds the form of a message that is sound. False when there is no room for it.
    let grow (json: ReadOnlySpan<byte>) =
        let before = count
        let mutable at, from, mark, next, fork = 0, 0, 0, 0, -1

        while next >= 0 && (at < json.Length || mark < marks && places[mark] = ~~~at) do
            let start = at

            if mark < marks && places[mark] = ~~~at then
                next <- follow next (json.Slice(from, at - from)) false codes[mark] &fork
                from <- at
                mark <- mark + 1

            // The last place may be behind the last byte.
            match (if at < json.Length then json[at] else 0uy) with
            | '{'B
            | '}'B
            | '['B
            | ']'B
            | ','B
            | ':'B -> at <- at + 1
            | b when b <= ' 'B -> at <- min json.Length (at + 1)
            | _ ->
                // A message that was read is sound: were it not, its form would end here and fit nothing.
                if not (Json.skip json &at) then
                    at <- json.Length

                let mutable behind = at

                // A key is one of the constants.
                if next >= 0 && Json.peek json &behind <> ':'B then
                    let isTaken = mark < marks && places[mark] = start

                    next <-
                        follow
                            next
                            (json.Slice(from, start - from))
                            true
                            (if isTaken then codes[mark] else Form.Skipped)
                            &fork

                    from <- at

                    if isTaken then
                        mark <- mark + 1

        if next >= 0 then
            next <- follow next (json.Slice from) false Form.End &fork

        if next < 0 || mark < marks then
            count <- before

            if fork >= 0 then
                steps[fork].Other <- 0

            false
        else
            true

    /// Compares steps as long as they begin no later than `limit` in a text that begins at `origin` of the message, and goes on for `Reach` behind
    /// that. Hot: without any call, all that it needs stays in registers.
    let compare (text: byref<byte>) (limit: int) (origin: int) =
        let steps = &MemoryMarshal.GetArrayDataReference steps
        let found = &MemoryMarshal.GetArrayDataReference found
        let mutable place, i, last = at - origin, step, met
        let mutable halt = Halt.None

        while halt = Halt.None && place <= limit do
            let step = &Unsafe.Add(&steps, i)
            let here = Vector256.LoadUnsafe(&text, unativeint place)
            let same = Vector256.ExtractMostSignificantBits(Vector256.Equals(here, step.Run))

            if (same ||| step.Rest) = UInt32.MaxValue then
                let hole = place + step.Length

                if step.IsHole then
                    let scalar = &(Unsafe.Add(&found, last)).Scalar
                    let first = Unsafe.Add(&text, hole)

                    let over =
                        if first = '"'B then
                            let bytes = Vector256.LoadUnsafe(&text, unativeint (hole + 1))

                            // Its end, or an escape, a control, or what is not ASCII.
                            let stops =
                                Vector256.ExtractMostSignificantBits(
                                    Vector256.Equals(bytes, Vector256.Create '"'B)
                                    ||| Vector256.Equals(bytes, Vector256.Create '\\'B)
                                    ||| Vector256.LessThan(bytes.AsSByte(), Vector256.Create 32y).AsByte()
                                )

                            let length = BitOperations.TrailingZeroCount stops
                            scalar.Kind <- ScalarKind.String
                            scalar.Start <- origin + hole + 1
                            scalar.Length <- length

                            if Unsafe.Add(&text, hole + 1 + length) = '"'B then
                                hole + length + 2
                            else
                                -1
                        elif first <= '9'B then
                            let over =
                                if hole < Scalar.Margin then
                                    -1
                                else
                                    Scalar.plainAt &text hole origin &scalar

                            // What else may follow of a number is in no run.
                            if over >= 0 && (Unsafe.Add(&text, over) ||| 0x20uy) = 'e'B then
                                -1
                            else
                                over
                        else
                            Scalar.wordAt
                                (Unsafe.ReadUnaligned<uint64> &(Unsafe.Add(&text, hole)))
                                hole
                                origin
                                &scalar

                    if over >= 0 then
                        place <- Form.take &step hole over
                        i <- i + 1

                        if step.Code >= 0 then
                            (Unsafe.Add(&found, last)).Code <- step.Code
                            last <- last + 1
                    else
                        halt <- Halt.Unusual
                else
                    place <- hole
                    i <- i + 1

                    if step.Code >= 0 then
                        (Unsafe.Add(&found, last)).Code <- step.Code
                        last <- last + 1
                    elif step.Code = Form.End then
                        halt <- Halt.End
            else
                i <- step.Other

                if i = 0 then
                    halt <- Halt.Strange

        at <- origin + place
        step <- i
        met <- last
        halt

    /// Before a message is read with care.
    member _.Begin() =
        marks <- 0
        isRegular <- true

    /// The reader of the message at hand goes back in it, or decides by what a scalar says how to go on: then it has no form.
    member _.Refuse() = isRegular <- false

    /// The careful reader takes the scalar that begins there.
    member _.Scalar(at: int, code: int) =
        let last =
            if marks = 0 then -1
            elif places[marks - 1] < 0 then ~~~(places[marks - 1])
            else places[marks - 1]

        if marks = Form.MostMarks || (if at < 0 then ~~~at else at) <= last then
            isRegular <- false
        else
            places[marks] <- at
            codes[marks] <- code
            marks <- marks + 1

    /// The careful reader has come so far: behind a bracket, which may be where a list begins or an object is complete.
    member this.Place(at: int, code: int) = this.Scalar(~~~at, code)

    /// The message at hand was read with care, and was sound to its end.
    member _.Learn(json: ReadOnlySpan<byte>) =
        if pause > 0 then
            pause <- pause - 1
        elif isRegular then
            let before = count

            if not (grow json) then
                refused <- refused + 1

                if refused = patience then
                    count <- 0
                    refused <- 0
                    patience <- min 65_536 (2 * patience)

            // One that teaches nothing, such as a number of a kind that is rare: the next ones may be left alone.
            if count = before then
                pause <- 16

    /// Whether the message is of a known form; what is in it is then in `Found`.
    member _.Fits(json: ReadOnlySpan<byte>) : bool =
        at <- 0
        step <- 0
        met <- 0
        let limit = json.Length - Form.Reach
        let origin = max 0 (json.Length - Form.Tail)
        let mutable isCopied = false
        let mutable line = 0

        // Its lines are asked for together: what no cache holds is waited for once.
        if Sse.IsSupported then
            while line < json.Length do
                Sse.Prefetch0(Unsafe.AsPointer(&Unsafe.Add(&MemoryMarshal.GetReference json, line)))
                line <- line + 64

        let mutable isText = true
        let mutable halt = if count = 0 then Halt.Strange else Halt.None

        while halt = Halt.None do
            halt <-
                if at <= limit then
                    compare &(MemoryMarshal.GetReference json) limit 0
                else
                    if not isCopied then
                        isCopied <- true
                        json.Slice(origin).CopyTo(Span tail)
                        // In no run, and in no scalar: nothing reaches into it.
                        Span(tail, json.Length - origin, Form.Reach).Clear()

                    compare &(MemoryMarshal.GetArrayDataReference tail) Form.Tail origin

            if halt = Halt.Unusual then
                let known = &steps[step]
                let hole = at + known.Length
                let scalar = &found[met].Scalar
                let over = Scalar.at json hole &scalar
                isText <- false

                if over >= 0 && Scalar.isSound json &scalar then
                    at <- Form.take &known hole over
                    step <- step + 1

                    if known.Code >= 0 then
                        found[met].Code <- known.Code
                        met <- met + 1

                    halt <- Halt.None
                elif known.Other <> 0 then
                    // A list or an object instead of a scalar may be another form.
                    step <- known.Other
                    halt <- Halt.None

        halt = Halt.End && at = json.Length && (isText || Utf8.IsValid json)

    /// What was found in the message that fitted.
    member _.Found = ReadOnlySpan(found, 0, met)
