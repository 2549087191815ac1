namespace Tributary

open System

/// What an account shows itself with. It stays in memory, and is never printed.
[<NoEquality; NoComparison; StructuredFormatDisplay("{Shown}")>]
type Credentials = {
    /// Whose account it is: the address of the wallet that signs.
    Address: string
    /// The address that holds the account's funds, where that is another one; or empty.
    Funder: string
    /// The wallet's private key, for an account whose API credentials are not given.
    PrivateKey: byte[] voption
    /// Empty, as the next two, until the exchange has given them.
    Key: string
    Secret: string
    Passphrase: string
} with

    member this.Shown = $"credentials of {this.Address}"
    override this.ToString() = this.Shown

    /// The API credentials are there: nothing is to be asked for.
    member this.IsComplete = this.Key <> ""

[<RequireQualifiedAccess>]
module Credentials =
    let private secrets (credentials: Credentials) =
        [
            credentials.Key
            credentials.Secret
            credentials.Passphrase
            match credentials.PrivateKey with
            | ValueSome key -> Convert.ToHexString(key).ToLowerInvariant()
            | ValueNone -> ()
        ]
        |> List.filter ((<>) "")

    /// A text with `***` wherever a secret stood.
    let hide (credentials: Credentials) (text: string) : string =
        (text, secrets credentials)
        ||> List.fold (fun text secret -> text.Replace(secret, "***", StringComparison.OrdinalIgnoreCase))

    /// As `hide`, of bytes that are text.
    let hideBytes credentials (bytes: byte[]) : byte[] =
        let text = Text.Encoding.UTF8.GetString bytes
        let hidden = hide credentials text

        if hidden = text then
            bytes
        else
            Text.Encoding.UTF8.GetBytes hidden

/// What an account is asked for, a page at a time where there are pages.
[<RequireQualifiedAccess>]
type AccountAsk =
    /// Its open orders.
    | Orders of cursor: string
    /// Its trades from this moment on; all there are, without one.
    | Trades of since: Instant voption * cursor: string
    /// An order by its id, whatever its state.
    | Order of id: string

/// The live connection that tells what happens to an account.
[<NoComparison; NoEquality>]
type AccountChannel = {
    /// The setting that holds the base address.
    Host: string
    Path: string
    /// What is said first. It holds secrets.
    Open: Credentials -> string
    /// What is asked for an answer with.
    Ping: string
    PingEvery: TimeSpan
    /// Appends what a message says; answers how many of its parts are of a kind that nobody knows.
    Hear: Credentials -> ReadOnlyMemory<byte> -> Instant -> Batch -> int
}

/// How an exchange tells an account of its own orders and trades, as pure functions.
[<NoComparison; NoEquality>]
type AccountPart = {
    Exchange: ExchangeId
    /// Credentials of secrets by the names of their settings: nothing when there are none, and what is wrong when they do not suffice, without
    /// a word of them.
    Given: Map<string, string> -> Result<Credentials voption, string>
    /// Asks for the exchange's time: a signature has one, and is refused with a wrong one.
    Time: Request
    TimeOf: ReadOnlyMemory<byte> -> Interval voption
    /// What asks for API credentials, in turn, until one is answered with them.
    Derive: Request list
    /// The credentials with what such an answer says.
    Derived: Credentials -> ReadOnlyMemory<byte> -> Result<Credentials, Fault>
    /// The headers that show a request to be the account's, by its method, its path below the base address without the query, and the moment by the
    /// exchange's clock.
    Sign: Credentials -> string -> string -> Instant -> (string * string) list
    Ask: AccountAsk -> Request
    /// Appends the rows of an answer, and what cannot be read, without secrets; answers the cursor of the next page, if there is one.
    Decode:
        Credentials -> AccountAsk -> ReadOnlyMemory<byte> -> Instant -> Batch -> Result<string voption, Fault>
    /// An order in this state stays in it.
    IsOver: OwnOrder -> bool
    /// A trade in this state stays in it.
    IsSettled: OwnTrade -> bool
    Channel: AccountChannel
}
