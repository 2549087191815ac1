namespace Tributary

/// How far a walk over pages has come: what is left to ask, and what is known so far.
[<NoComparison; NoEquality>]
type Progress = {
    /// To be asked next, in this order.
    Waiting: Request list
    Carry: Carry
    Pages: int
    /// The newest trade time of all pages.
    Head: Instant voption
    Missing: TokenId list
    Truncated: (struct (MarketId * Instant * Instant)) list
    /// What has been read whole.
    Read: Interval list
    Unknown: int64
    Notes: string list
    /// Requests that failed for good, and why: what they asked about is not known.
    Failed: (Request * Fault) list
}

/// The pages of one question, one after the other. The shell asks and stores; what an answer means is decided here.
[<RequireQualifiedAccess>]
module Walks =
    /// A walk that begins with this request, after others whose last group goes on in it.
    let resume request carry = {
        Waiting = [ request ]
        Carry = carry
        Pages = 0
        Head = ValueNone
        Missing = []
        Truncated = []
        Read = []
        Unknown = 0L
        Notes = []
        Failed = []
    }

    let start request = resume request Trades.noCarry

    let isDone progress = progress.Waiting.IsEmpty

    let private absorb (decoded: Decoded) progress = {
        progress with
            Waiting = decoded.Next @ progress.Waiting
            Carry = if decoded.IsWhole then Trades.noCarry else progress.Carry
            Pages = progress.Pages + 1
            Head =
                match decoded.Head, progress.Head with
                | ValueSome head, ValueSome known -> ValueSome(max head known)
                | head, ValueNone -> head
                | ValueNone, known -> known
            Missing = progress.Missing @ decoded.Missing
            Truncated = progress.Truncated @ decoded.Truncated
            Read = Intervals.union progress.Read decoded.Read
            Unknown = progress.Unknown + decoded.Unknown
            Notes = progress.Notes @ decoded.Notes
    }

    let private rest progress = {
        progress with
            Waiting = List.tail progress.Waiting
    }

    /// The first waiting request was answered with a page that was decoded into the batch: its trades are numbered and identified.
    let answered (decoded: Decoded) (batch: Batch) progress : Progress =
        let carry = Trades.number progress.Carry batch

        absorb decoded { rest progress with Carry = carry }

    /// The first waiting request failed, and that means something.
    let understood (decoded: Decoded) progress : Progress = absorb decoded (rest progress)

    /// The first waiting request failed for good; the batch holds what was good of it, if anything. The others of the walk go on.
    let failed (fault: Fault) (batch: Batch) progress : Progress =
        let carry = Trades.number progress.Carry batch

        {
            rest progress with
                Carry = carry
                Pages = progress.Pages + 1
                Failed = (List.head progress.Waiting, fault) :: progress.Failed
        }
