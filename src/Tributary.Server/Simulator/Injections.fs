namespace Tributary.Server.Simulator

open System.Collections.Generic

/// One misbehaviour of the market channel, as it struck.
type Injection = {
    /// The switch's name, such as "dropped".
    Kind: string
    /// The number of the connection, from 1 on; 0 when it happened to the exchange as a whole.
    Session: int
    /// The tokens concerned; none when the whole connection is.
    Tokens: string[]
    /// Simulated microseconds since 1970.
    At: int64
    /// Whether a client that follows the messages of this connection may from here on have a book, or the time of one,
    /// that is not the true one.
    Misleads: bool
    /// What was done, for people: the close code, what was wrong.
    Detail: string
}

/// The latest injections. Safe to use from any thread.
[<Sealed>]
type internal Injections() =
    let most = 500_000
    let held = Queue<Injection>()

    member _.Add(injection: Injection) =
        lock held (fun () ->
            held.Enqueue injection

            if held.Count > most then
                held.Dequeue() |> ignore)

    member _.All = lock held held.ToArray
