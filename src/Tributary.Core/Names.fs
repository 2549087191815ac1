namespace Tributary

open System
open System.Buffers.Binary
open System.Text
open System.Threading

/// A text that was seen before, as a small number that is local to its `Names`. Key 0 is the empty text.
[<Struct>]
type Name = { Key: int }

[<AllowNullLiteral; Sealed>]
type internal NameEntry(hash: uint64, utf8: byte[], key: int) =
    member _.Hash = hash
    member _.Utf8 = utf8
    member val Text = Encoding.UTF8.GetString utf8
    member _.Name: Name = { Key = key }

/// Market ids, token ids and outcome names repeat in every message: each is kept once and known by a number, so that rows
/// hold no strings. Safe for any number of threads; looking up what is known takes no lock and allocates nothing. It only
/// grows: its size is bounded by the number of markets ever seen.
[<Sealed>]
type Names() =
    let gate = Lock()
    // Open addressing, a power of two in size. Readers see either no entry or a finished one, because a reference is
    // published last and an array is replaced as a whole.
    let mutable table: NameEntry[] = Array.zeroCreate 1024
    let mutable entries: NameEntry[] = Array.zeroCreate 256
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

    static let find (table: NameEntry[]) hash (text: ReadOnlySpan<byte>) =
        let mask = table.Length - 1
        let mutable slot = int hash &&& mask
        let mutable entry = Volatile.Read &table[slot]

        while not (isNull entry)
              && not (
                  entry.Hash = hash
                  && MemoryExtensions.SequenceEqual(ReadOnlySpan entry.Utf8, text)
              ) do
            slot <- (slot + 1) &&& mask
            entry <- Volatile.Read &table[slot]

        struct (slot, entry)

    let grow () =
        let larger: NameEntry[] = Array.zeroCreate (table.Length * 2)

        for i in 0 .. count - 1 do
            let entry = entries[i]
            let struct (slot, _) = find larger entry.Hash (ReadOnlySpan entry.Utf8)
            larger[slot] <- entry

        Volatile.Write(&table, larger)

    let add hash (text: ReadOnlySpan<byte>) =
        gate.Enter()

        try
            let struct (_, found) = find table hash text

            if not (isNull found) then
                found.Name
            else
                if (count + 1) * 2 > table.Length then
                    grow ()

                if count = entries.Length then
                    let larger: NameEntry[] = Array.zeroCreate (count * 2)
                    Array.blit entries 0 larger 0 count
                    Volatile.Write(&entries, larger)

                let entry = NameEntry(hash, text.ToArray(), count)
                let struct (slot, _) = find table hash text
                Volatile.Write(&entries[count], entry)
                count <- count + 1
                Volatile.Write(&table[slot], entry)
                entry.Name
        finally
            gate.Exit()

    do add (hashOf ReadOnlySpan.Empty) ReadOnlySpan.Empty |> ignore

    /// The name of a text, new or known.
    member _.Intern(utf8: ReadOnlySpan<byte>) : Name =
        let hash = hashOf utf8
        let struct (_, entry) = find (Volatile.Read &table) hash utf8
        if isNull entry then add hash utf8 else entry.Name

    member this.Intern(text: string) : Name =
        this.Intern(ReadOnlySpan(Encoding.UTF8.GetBytes text))

    /// The text of a name that this instance gave.
    member _.Text(name: Name) : string =
        let known = Volatile.Read &entries
        known[name.Key].Text

    /// The UTF-8 bytes of a name that this instance gave. Not to be written to.
    member _.Utf8(name: Name) : byte[] =
        let known = Volatile.Read &entries
        known[name.Key].Utf8

    /// How many texts are known.
    member _.Count = Volatile.Read &count
