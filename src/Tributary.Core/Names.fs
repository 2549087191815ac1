namespace Tributary

open System
open System.Buffers.Binary
open System.Text
open System.Threading

/// A text that was seen before, as a small number that is local to its `Names`. Key 0 is the empty text.
[<Struct>]
type Name = { Key: int }

/// A place of the table, which is empty as long as there are no bytes. Few steps lead from a text to its number: each may be a wait
/// for memory, and there are two of them for each message of a live connection.
[<Struct; NoComparison; NoEquality>]
type private NameSlot =
    val mutable Utf8: byte[] | null
    val mutable Hash: uint64
    val mutable Key: int

/// Market ids, token ids and outcome names repeat in every message: each is kept once and known by a number, so that rows
/// hold no strings. Safe for any number of threads; looking up what is known takes no lock and allocates nothing. It only
/// grows: its size is bounded by the number of markets ever seen.
[<Sealed>]
type Names() =
    let gate = Lock()
    // Open addressing, a power of two in size. Readers see either an empty slot or a finished one, because the bytes are
    // published last and an array is replaced as a whole.
    let mutable table: NameSlot[] = Array.zeroCreate 1024
    // By their numbers.
    let mutable bytes: byte[][] = Array.zeroCreate 256
    let mutable texts: string[] = Array.zeroCreate 256
    let mutable count = 0

    static let hashOf (text: ReadOnlySpan<byte>) =
        let mutable hash = 0x9E3779B97F4A7C15UL ^^^ uint64 text.Length
        // Of long texts the end is enough: they are hashes or huge numbers.
        let mutable i = if text.Length > 48 then text.Length - 32 else 0

        while i + 8 <= text.Length do
            hash <-
                (hash ^^^ BinaryPrimitives.ReadUInt64LittleEndian(text.Slice i))
                * 0xFF51AFD7ED558CCDUL

            hash <- hash ^^^ (hash >>> 32)
            i <- i + 8

        while i < text.Length do
            hash <- (hash ^^^ uint64 text[i]) * 0x100000001B3UL
            i <- i + 1

        hash ^^^ (hash >>> 29)

    /// The slot of this text; the complement (`~~~`) of the empty one where it belongs when it is not there.
    static let find (table: NameSlot[]) hash (text: ReadOnlySpan<byte>) : int =
        let mask = table.Length - 1
        let mutable slot, found = int hash &&& mask, false
        let mutable seen = Volatile.Read &table[slot].Utf8

        while not found && not (isNull seen) do
            found <-
                table[slot].Hash = hash
                && MemoryExtensions.SequenceEqual(ReadOnlySpan seen, text)

            if not found then
                slot <- (slot + 1) &&& mask
                seen <- Volatile.Read &table[slot].Utf8

        if found then slot else ~~~slot

    static let put (table: NameSlot[]) hash (utf8: byte[]) key =
        let place = &table[~~~(find table hash (ReadOnlySpan utf8))]
        place.Hash <- hash
        place.Key <- key
        Volatile.Write(&place.Utf8, utf8)

    static let larger (items: 'T[]) =
        let copy: 'T[] = Array.zeroCreate (2 * items.Length)
        Array.blit items 0 copy 0 items.Length
        copy

    let growTable () =
        let copy: NameSlot[] = Array.zeroCreate (table.Length * 2)

        for i in 0 .. count - 1 do
            put copy (hashOf (ReadOnlySpan bytes[i])) bytes[i] i

        Volatile.Write(&table, copy)

    let add hash (text: ReadOnlySpan<byte>) =
        gate.Enter()

        try
            let slot = find table hash text

            if slot >= 0 then
                table[slot].Key
            else
                if (count + 1) * 2 > table.Length then
                    growTable ()

                if count = bytes.Length then
                    Volatile.Write(&bytes, larger bytes)
                    Volatile.Write(&texts, larger texts)

                let utf8 = text.ToArray()
                bytes[count] <- utf8
                texts[count] <- Encoding.UTF8.GetString utf8
                count <- count + 1
                put table hash utf8 (count - 1)
                count - 1
        finally
            gate.Exit()

    do add (hashOf ReadOnlySpan.Empty) ReadOnlySpan.Empty |> ignore

    /// The name of a text, new or known.
    member _.Intern(utf8: ReadOnlySpan<byte>) : Name =
        let hash = hashOf utf8
        let known = Volatile.Read &table
        let slot = find known hash utf8

        {
            Key = if slot >= 0 then known[slot].Key else add hash utf8
        }

    member this.Intern(text: string) : Name =
        this.Intern(ReadOnlySpan(Encoding.UTF8.GetBytes text))

    /// The text of a name that this instance gave.
    member _.Text(name: Name) : string =
        let known = Volatile.Read &texts
        known[name.Key]

    /// The UTF-8 bytes of a name that this instance gave. Not to be written to.
    member _.Utf8(name: Name) : byte[] =
        let known = Volatile.Read &bytes
        known[name.Key]

    /// How many texts are known.
    member _.Count = Volatile.Read &count
