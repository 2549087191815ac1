namespace Tributary.FakeQuestDb

open System
open System.Buffers.Binary
open System.IO
open System.Numerics

/// Everything that was committed, in one file, in order. A record is with the operating system before `Append` returns, so it
/// survives the death of the process; nothing is forced to disk.
[<Sealed>]
type internal Journal private (file: FileStream) =
    // A record: length of the payload, checksum, milliseconds since 1970, payload.
    static let headLength = 16

    static let checksum (bytes: Span<byte>) =
        let mutable crc = 0xFFFFFFFFu
        let mutable i = 0

        while i + 8 <= bytes.Length do
            crc <-
                BitOperations.Crc32C(
                    crc,
                    BinaryPrimitives.ReadUInt64LittleEndian(Span.op_Implicit (bytes.Slice(i, 8)))
                )

            i <- i + 8

        while i < bytes.Length do
            crc <- BitOperations.Crc32C(crc, bytes[i])
            i <- i + 1

        crc

    /// The whole records of a file with the moment of each; a torn one at the end, and all behind it, is none.
    static let whole (path: string) : (int64 * int64 * byte[]) seq = seq {
        if File.Exists path then
            use file = File.OpenRead path
            let head = Array.zeroCreate<byte> headLength
            let mutable go = true

            while go do
                let start = file.Position

                if file.ReadAtLeast(head.AsSpan(), headLength, false) < headLength then
                    go <- false
                else
                    let length = BinaryPrimitives.ReadInt32LittleEndian(ReadOnlySpan(head, 0, 4))
                    let sum = BinaryPrimitives.ReadUInt32LittleEndian(ReadOnlySpan(head, 4, 4))
                    let at = BinaryPrimitives.ReadInt64LittleEndian(ReadOnlySpan(head, 8, 8))

                    if length < 0 || int64 length > file.Length - file.Position then
                        go <- false
                    else
                        let payload = Array.zeroCreate<byte> length
                        file.ReadExactly(payload.AsSpan())

                        if checksum (payload.AsSpan()) <> sum then
                            go <- false
                        else
                            yield start, at, payload
    }

    /// Opens the file and plays what is whole of it, up to the first record that `lost` says is lost; the rest is cut off.
    static member Open(path: string, lost: int64 -> bool, play: byte[] -> unit) : Journal =
        let mutable good = 0L
        let mutable go = true
        use records = (whole path).GetEnumerator()

        while go && records.MoveNext() do
            let start, at, payload = records.Current

            if lost at then
                go <- false
            else
                play payload
                good <- start + int64 headLength + int64 payload.Length

        let file =
            new FileStream(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.Read, 1)

        file.SetLength good
        file.Position <- good
        new Journal(file)

    /// When the last whole record was written, in milliseconds since 1970.
    static member LastMoment(path: string) : int64 =
        whole path |> Seq.fold (fun _ (_, at, _) -> at) 0L

    /// How many bytes a record has before its payload: `Append` fills them.
    static member HeadLength = headLength

    /// Writes a record: the head's place, then the payload.
    member _.Append(millis: int64, record: Span<byte>) =
        let payload = record.Slice headLength
        BinaryPrimitives.WriteInt32LittleEndian(record, payload.Length)
        BinaryPrimitives.WriteUInt32LittleEndian(record.Slice 4, checksum payload)
        BinaryPrimitives.WriteInt64LittleEndian(record.Slice 8, millis)
        file.Write record
        file.Flush()

    interface IDisposable with
        member _.Dispose() = file.Dispose()
