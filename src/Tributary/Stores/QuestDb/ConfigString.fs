/// Configuration strings as QuestDB's own clients read them: `http::addr=localhost:9000;username=admin;password=quest;`.
///
/// A literal `;` in a value is written `;;`; the last `;` may be left out; keys are in lower case. Everything that is wrong is
/// said at once. `http` and `https` are spoken. These keys of other clients are accepted and change nothing: `init_buf_size`
/// (buffers grow as needed), `own_socket` and `pool_timeout` (connections are ours), `convert_local_to_utc` (all times are UTC).
/// Keys that only mean something to `tcp` or `ws` are refused, and so are unknown ones.
namespace Tributary.Stores.QuestDb

open System
open System.Globalization
open System.Text
open Tributary

/// A text that is never shown.
[<Sealed>]
type internal Hidden(value: string) =
    /// The text itself, for the one who sends it.
    member _.Reveal() = value
    override _.ToString() = "***"

    override _.Equals other =
        match other with
        | :? Hidden as other -> other.Reveal() = value
        | _ -> false

    override _.GetHashCode() = value.GetHashCode()

/// Who we are to the server.
[<RequireQualifiedAccess>]
type internal Credentials =
    | Nobody
    | Basic of username: string * password: Hidden
    /// Sent as `Authorization: Bearer`.
    | Bearer of token: Hidden

/// Which authorities the server's certificate may come from.
[<RequireQualifiedAccess>]
type internal Roots =
    /// Those that the operating system trusts. (`webpki_roots` and `webpki_and_os_roots` mean these, too: we bring none along.)
    | System
    /// Those in a PEM file; in a PKCS#12 file when there is a password.
    | File of path: string * password: Hidden voption

/// Where one server listens. The host of an IPv6 address stands without brackets.
type internal Address = {
    Host: string
    Port: int
} with

    /// `host:port`, an IPv6 address in brackets.
    override this.ToString() =
        if this.Host.Contains ':' then
            $"[{this.Host}]:{this.Port}"
        else
            $"{this.Host}:{this.Port}"

/// What a configuration string says, and the official clients' defaults where it says nothing. However it is shown, it is as a
/// configuration string without its secrets.
[<StructuredFormatDisplay("{Shown}")>]
type internal ConnectionOptions = {
    /// `https`. Default false.
    Tls: bool
    /// At least one. Several are one server and its replicas, tried in turn; two servers that know nothing of each other would
    /// each get a part. Default localhost:9000.
    Addresses: Address list
    /// Default `Nobody`.
    Credentials: Credentials
    /// The version of the line protocol, 1 to 3; nothing asks the server. Default nothing.
    ProtocolVersion: int voption
    /// Rows that are sent at the latest when there are so many. Default 75 000; nothing does not count them.
    AutoFlushRows: int voption
    /// Rows are sent at the latest after so long. Default 1 s; nothing does not watch the clock.
    AutoFlushInterval: TimeSpan voption
    /// Rows are sent at the latest when they are so many bytes. Default nothing.
    AutoFlushBytes: int voption
    /// The most bytes of one request. Default 100 MiB.
    MaxBufferSize: int
    /// The longest name of a table or a column in bytes. Default 127.
    MaxNameLength: int
    /// How long an answer may take, beside the time that the bytes take. Default 10 s.
    RequestTimeout: TimeSpan
    /// Bytes a second that a request makes at least: what its time grows by. Default 102 400; 0 does not let it grow.
    RequestMinThroughput: int64
    /// For how long a failed request is tried again. Default 10 s; zero never tries again.
    RetryTimeout: TimeSpan
    /// The longest wait between two tries. Default 1 s.
    RetryMaxBackoff: TimeSpan
    /// How long connecting may take. Default 15 s.
    AuthTimeout: TimeSpan
    /// Requests are compressed. Needs a server from 9.1 on. Default false.
    Gzip: bool
    /// The server's certificate is checked. Default true.
    TlsVerify: bool
    /// Default `System`.
    Roots: Roots
} with

    /// The servers' addresses as URIs, in their order.
    member this.Uris =
        let scheme = if this.Tls then "https" else "http"
        this.Addresses |> List.map (fun address -> Uri $"{scheme}://{address}/")

    member this.Shown = this.ToString()

    /// A configuration string that says the same but for its secrets, which are `***`.
    override this.ToString() =
        let text = StringBuilder()

        let add (key: string) (value: string) =
            let value = value.Replace(";", ";;")
            text.Append(key).Append('=').Append(value).Append(';') |> ignore

        let addOr (key: string) value =
            match value with
            | ValueSome value -> add key (string value)
            | ValueNone -> add key "off"

        let milliseconds (span: TimeSpan) = string (int64 span.TotalMilliseconds)
        text.Append(if this.Tls then "https::" else "http::") |> ignore
        add "addr" (this.Addresses |> List.map string |> String.concat ",")

        match this.Credentials with
        | Credentials.Nobody -> ()
        | Credentials.Basic(username, password) ->
            add "username" username
            add "password" (string password)
        | Credentials.Bearer token -> add "token" (string token)

        match this.ProtocolVersion with
        | ValueSome version -> add "protocol_version" (string version)
        | ValueNone -> add "protocol_version" "auto"

        addOr "auto_flush_rows" this.AutoFlushRows

        addOr
            "auto_flush_interval"
            (this.AutoFlushInterval
             |> ValueOption.map (fun span -> int64 span.TotalMilliseconds))

        addOr "auto_flush_bytes" this.AutoFlushBytes
        add "max_buf_size" (string this.MaxBufferSize)
        add "max_name_len" (string this.MaxNameLength)
        add "request_timeout" (milliseconds this.RequestTimeout)
        add "request_min_throughput" (string this.RequestMinThroughput)
        add "retry_timeout" (milliseconds this.RetryTimeout)
        add "retry_max_backoff_millis" (milliseconds this.RetryMaxBackoff)
        add "auth_timeout" (milliseconds this.AuthTimeout)
        add "gzip" (if this.Gzip then "true" else "false")

        if this.Tls then
            add "tls_verify" (if this.TlsVerify then "on" else "unsafe_off")

            match this.Roots with
            | Roots.System -> add "tls_ca" "os_roots"
            | Roots.File(path, password) ->
                add "tls_roots" path

                match password with
                | ValueSome password -> add "tls_roots_password" (string password)
                | ValueNone -> ()

        text.ToString()

[<RequireQualifiedAccess>]
module internal ConfigString =
    let private milliseconds (count: int) = TimeSpan.FromMilliseconds(float count)

    /// The options of `http::`.
    let defaults: ConnectionOptions = {
        Tls = false
        Addresses = [ { Host = "localhost"; Port = 9000 } ]
        Credentials = Credentials.Nobody
        ProtocolVersion = ValueNone
        AutoFlushRows = ValueSome 75_000
        AutoFlushInterval = ValueSome(milliseconds 1_000)
        AutoFlushBytes = ValueNone
        MaxBufferSize = 104_857_600
        MaxNameLength = 127
        RequestTimeout = milliseconds 10_000
        RequestMinThroughput = 102_400L
        RetryTimeout = milliseconds 10_000
        RetryMaxBackoff = milliseconds 1_000
        AuthTimeout = milliseconds 15_000
        Gzip = false
        TlsVerify = true
        Roots = Roots.System
    }

    // ---- the keys

    let private secret = [ "password"; "pass"; "token"; "tls_roots_password"; "token_x"; "token_y" ]

    let private honoured = [
        "addr"
        "username"
        "user"
        "password"
        "pass"
        "token"
        "protocol_version"
        "auto_flush"
        "auto_flush_rows"
        "auto_flush_interval"
        "auto_flush_bytes"
        "max_buf_size"
        "max_name_len"
        "request_timeout"
        "request_min_throughput"
        "retry_timeout"
        "retry_max_backoff_millis"
        "auth_timeout"
        "gzip"
        "tls_verify"
        "tls_ca"
        "tls_roots"
        "tls_roots_password"
    ]

    let private withoutEffect = [ "init_buf_size"; "own_socket"; "pool_timeout"; "convert_local_to_utc" ]
    let private ofTcp = [ "token_x"; "token_y"; "bind_interface" ]

    let private ofWebSocket = [
        "sf_dir"
        "sender_id"
        "sf_max_bytes"
        "sf_max_segment_bytes"
        "sf_max_total_bytes"
        "sf_durability"
        "sf_append_deadline_millis"
        "reconnect_initial_backoff_millis"
        "reconnect_max_backoff_millis"
        "reconnect_max_duration_millis"
        "initial_connect_retry"
        "close_flush_timeout_millis"
        "request_durable_ack"
        "durable_ack_keepalive_interval_millis"
        "drain_orphans"
        "max_background_drainers"
        "max_frame_rejections"
        "on_server_error"
        "on_schema_error"
        "on_parse_error"
        "on_internal_error"
        "on_security_error"
        "on_write_error"
        "error_inbox_capacity"
        "auth_timeout_ms"
        "connect_timeout"
    ]

    let private known = set (honoured @ withoutEffect @ ofTcp @ ofWebSocket)
    let private schemes = [ "http"; "https"; "tcp"; "tcps"; "ws"; "wss"; "udp" ]

    /// A secret, or what may be one with a mistake in its key.
    let private mayBeSecret (key: string) =
        List.contains key secret
        || (not (known.Contains key)
            && [ "pas"; "pw"; "word"; "tok"; "secret"; "key" ] |> List.exists key.Contains)

    // ---- the syntax

    [<NoComparison; NoEquality>]
    type private Piece = {
        /// Empty when there is no `=`.
        Key: string
        /// With `;;` read as `;`.
        Value: string
        HasValue: bool
        /// What stands in front of it is a secret, which this may be the rest of.
        FollowsSecret: bool
    }

    /// The scheme, or nothing when there is no `::`, and what follows it.
    let private split (text: string) =
        match text.IndexOf("::", StringComparison.Ordinal) with
        | at when at >= 0 && not (text.Substring(0, at).Contains '=') ->
            ValueSome(text.Substring(0, at)), text.Substring(at + 2)
        | _ -> ValueNone, text

    /// Everything between single semicolons.
    let private pieces (text: string) : Piece list =
        // U+0000 stands for a literal semicolon: it can be nothing else, for controls are refused, and shown as '?'.
        let marked = text.Replace('\000', '?').Replace(";;", "\000").Split ';'

        let last = marked.Length - 1
        let mutable isSecret = false

        [
            for i, piece in Array.indexed marked do
                if not (piece = "" && i = last) then
                    let piece = piece.Replace('\000', ';')
                    let equals = piece.IndexOf '='
                    let key = if equals < 0 then "" else piece.Substring(0, equals)

                    let made = {
                        Key = key
                        Value = piece.Substring(equals + 1)
                        HasValue = equals >= 0
                        FollowsSecret = isSecret
                    }

                    isSecret <-
                        mayBeSecret (key.Trim().ToLowerInvariant())
                        || (isSecret && not (known.Contains key))

                    made
        ]

    /// The string with every value that is, or may be, a secret as `***`: for every string, also one that does not parse. Only
    /// the values of known keys are shown.
    let redact (text: string) =
        let scheme, rest = split text

        let clean (value: string) =
            String.map (fun c -> if Char.IsControl c then '?' else c) value

        let shownPiece (piece: Piece) =
            let key = piece.Key.Trim().ToLowerInvariant()
            let isKnown = known.Contains key

            if not isKnown && (piece.FollowsSecret || not piece.HasValue) then
                "***"
            elif not isKnown || List.contains key secret || piece.Value.Contains '@' then
                $"{clean piece.Key}=***"
            else
                clean piece.Key + "=" + clean (piece.Value.Replace(";", ";;"))

        let start =
            match scheme with
            | ValueSome scheme when List.contains (scheme.ToLowerInvariant()) schemes -> scheme + "::"
            | ValueSome _ -> "***::"
            | ValueNone -> ""

        let shown = pieces rest |> List.map (fun piece -> shownPiece piece + ";")
        start + String.concat "" shown

    let private addressOf (text: string) : Result<Address, string> =
        let wrong why =
            Error $"addr: '{text}' is no host:port: {why}"

        let finish (host: string) (port: string voption) =
            match port with
            | ValueNone -> Ok { Host = host; Port = 9000 }
            | ValueSome port ->
                match Int32.TryParse(port, NumberStyles.None, CultureInfo.InvariantCulture) with
                | true, port when port >= 1 && port <= 65_535 -> Ok { Host = host; Port = port }
                | _ -> wrong "a port is a number from 1 to 65535"

        if text.Contains '@' then
            Error
                "addr: who we are is said by username and password, not in the address (not shown, as it may hold a password)"
        elif text = "" then
            Error "addr: an address is empty"
        elif text.Contains "://" || text.Contains '/' then
            wrong "it has neither a scheme nor a path"
        elif text.StartsWith '[' then
            match text.IndexOf ']' with
            | close when
                close > 0
                && Uri.CheckHostName(text.Substring(1, close - 1)) = UriHostNameType.IPv6
                ->
                let host = text.Substring(1, close - 1)

                match text.Substring(close + 1) with
                | "" -> finish host ValueNone
                | port when port.StartsWith ':' -> finish host (ValueSome(port.Substring 1))
                | _ -> wrong "something else than a port follows the bracket"
            | _ -> wrong "there is no IPv6 address in the brackets"
        else
            match text.Split ':' with
            | [| host |] when Uri.CheckHostName host <> UriHostNameType.Unknown -> finish host ValueNone
            | [| host; port |] when Uri.CheckHostName host <> UriHostNameType.Unknown ->
                finish host (ValueSome port)
            | parts when parts.Length > 2 -> wrong "an IPv6 address stands in brackets"
            | _ -> wrong "the host has characters that no host has"

    /// What a configuration string says, or everything that is wrong with it, a sentence each. No sentence holds a secret.
    let parse (text: string) : Result<ConnectionOptions, string list> =
        let mistakes = ResizeArray<string>()
        let scheme, rest = split text
        let pieces = pieces rest

        match text |> Seq.tryFindIndex Char.IsControl with
        | Some at -> mistakes.Add $"there is a control character (U+%04X{int text[at]}) at position {at + 1}"
        | None -> ()

        match scheme with
        | ValueSome("http" | "https") -> ()
        | ValueSome("tcp" | "tcps") ->
            mistakes.Add
                "tcp is not spoken: its server answers nothing, not even errors, so rows would be lost in silence; use http or https"
        | ValueSome("ws" | "wss" | "udp" as scheme) ->
            mistakes.Add $"{scheme} is not spoken yet; use http or https"
        | ValueSome scheme when List.contains (scheme.ToLowerInvariant()) schemes ->
            mistakes.Add $"the scheme is written in lower case: {scheme.ToLowerInvariant()}::"
        | ValueSome _ -> mistakes.Add "the scheme before '::' must be http or https"
        | ValueNone -> mistakes.Add "it must begin with http:: or https::"

        let isTls = (scheme = ValueSome "https")

        pieces
        |> List.iteri (fun i piece ->
            if piece.FollowsSecret && not (known.Contains piece.Key) then
                mistakes.Add
                    $"setting {i + 1} is no known key with a value (not shown, as it may be the rest of a secret: a ';' within a value is written ';;')"
            elif not piece.HasValue then
                mistakes.Add $"setting {i + 1} is no key=value (a ';' within a value is written ';;')"
            elif List.contains piece.Key ofTcp then
                mistakes.Add $"{piece.Key} is for tcp, which is not spoken"
            elif List.contains piece.Key ofWebSocket then
                mistakes.Add $"{piece.Key} is for ws, which is not spoken yet"
            elif not (known.Contains piece.Key) then
                mistakes.Add(Yaml.unknown (honoured @ withoutEffect) piece.Key))

        for key, times in pieces |> List.countBy _.Key do
            if times > 1 && key <> "addr" && known.Contains key then
                mistakes.Add $"{key} is given {times} times"

        let given key =
            pieces |> List.tryFind (fun piece -> piece.Key = key) |> Option.map _.Value

        let read key fallback (parse: string -> 'T voption) (expected: string) =
            match given key with
            | None -> fallback
            | Some value ->
                match parse value with
                | ValueSome value -> value
                | ValueNone ->
                    mistakes.Add $"{key}: expected {expected}; got '{value}'"
                    fallback

        let tryWhole least most (value: string) =
            match Int64.TryParse(value, NumberStyles.None, CultureInfo.InvariantCulture) with
            | true, number when number >= least && number <= most -> ValueSome number
            | _ -> ValueNone

        let whole key least most fallback =
            read key fallback (tryWhole least most) $"a whole number from {least} to {most}"

        let span key least fallback =
            read
                key
                fallback
                (tryWhole least (int64 Int32.MaxValue)
                 >> ValueOption.map (float >> TimeSpan.FromMilliseconds))
                $"milliseconds from {least} to {Int32.MaxValue}"

        let choice key choices fallback =
            let tryChoose value =
                choices
                |> List.tryFind (fun (name, _) -> name = value)
                |> Option.map snd
                |> ValueOption.ofOption

            read key fallback tryChoose (choices |> List.map fst |> String.concat ", ")

        let orOff key fallback make =
            let tryRead (value: string) =
                if value = "off" then
                    ValueSome ValueNone
                else
                    tryWhole 1L (int64 Int32.MaxValue) value |> ValueOption.map (make >> ValueSome)

            read key fallback tryRead $"a whole number from 1 to {Int32.MaxValue}, or off"

        let oneOf first second =
            match given first, given second with
            | Some value, None
            | None, Some value -> Some value
            | Some value, Some _ ->
                mistakes.Add $"{first} and {second} are the same; one of them is enough"
                Some value
            | None, None -> None

        let addresses =
            pieces
            |> List.filter (fun piece -> piece.Key = "addr")
            |> List.collect (fun piece -> piece.Value.Split ',' |> List.ofArray)
            |> List.choose (fun text ->
                match addressOf (text.Trim()) with
                | Ok address -> Some address
                | Error mistake ->
                    mistakes.Add mistake
                    None)
            |> List.distinct

        let credentials =
            match oneOf "username" "user", oneOf "password" "pass", given "token" with
            | None, None, None -> Credentials.Nobody
            | Some _, _, Some _ ->
                mistakes.Add "username and token are two ways to say who we are; give one of them"
                Credentials.Nobody
            | None, Some _, token ->
                mistakes.Add(
                    if token.IsSome then
                        "a password belongs to a username, not to a token"
                    else
                        "password needs a username"
                )

                Credentials.Nobody
            | Some username, password, None ->
                if username = "" then
                    mistakes.Add "username is empty"
                elif username.Contains ':' then
                    mistakes.Add "a username cannot hold ':'"

                match password with
                | Some password -> Credentials.Basic(username, Hidden password)
                | None ->
                    mistakes.Add "username needs a password (an empty one is written password=;)"
                    Credentials.Nobody
            | None, None, Some token ->
                if token = "" then
                    mistakes.Add "token is empty"
                elif token |> Seq.exists (fun c -> c <= ' ' || c > '~') then
                    mistakes.Add "token holds characters that no header can carry"

                Credentials.Bearer(Hidden token)

        let autoFlush = choice "auto_flush" [ "on", true; "off", false ] true

        let flushing key fallback make =
            let value = orOff key fallback make

            if autoFlush then
                value
            else
                match given key with
                | Some value when value <> "off" -> mistakes.Add $"{key} contradicts auto_flush=off"
                | _ -> ()

                ValueNone

        for key in [ "tls_verify"; "tls_ca"; "tls_roots"; "tls_roots_password" ] do
            if not isTls && (given key).IsSome && scheme = ValueSome "http" then
                mistakes.Add $"{key} needs https"

        let isFile =
            choice
                "tls_ca"
                [
                    "webpki_roots", ValueSome false
                    "os_roots", ValueSome false
                    "webpki_and_os_roots", ValueSome false
                    "pem_file", ValueSome true
                ]
                ValueNone

        let roots =
            match given "tls_roots", isFile, given "tls_roots_password" with
            | Some "", _, _ ->
                mistakes.Add "tls_roots is empty"
                Roots.System
            | Some _, ValueSome false, _ ->
                mistakes.Add "tls_roots needs tls_ca=pem_file, or no tls_ca"
                Roots.System
            | Some path, _, password ->
                Roots.File(path, password |> ValueOption.ofOption |> ValueOption.map Hidden)
            | None, isFile, password ->
                if isFile = ValueSome true then
                    mistakes.Add "tls_ca=pem_file needs tls_roots"

                if password.IsSome then
                    mistakes.Add "tls_roots_password needs tls_roots"

                Roots.System

        let millis = float >> TimeSpan.FromMilliseconds

        let options = {
            Tls = isTls
            Addresses = if addresses.IsEmpty then defaults.Addresses else addresses
            Credentials = credentials
            ProtocolVersion =
                choice
                    "protocol_version"
                    [ "auto", ValueNone; "1", ValueSome 1; "2", ValueSome 2; "3", ValueSome 3 ]
                    defaults.ProtocolVersion
            AutoFlushRows = flushing "auto_flush_rows" defaults.AutoFlushRows int
            AutoFlushInterval = flushing "auto_flush_interval" defaults.AutoFlushInterval millis
            AutoFlushBytes = flushing "auto_flush_bytes" defaults.AutoFlushBytes int
            MaxBufferSize =
                int (whole "max_buf_size" 1L (int64 Array.MaxLength) (int64 defaults.MaxBufferSize))
            MaxNameLength = int (whole "max_name_len" 16L 32_767L (int64 defaults.MaxNameLength))
            RequestTimeout = span "request_timeout" 1L defaults.RequestTimeout
            RequestMinThroughput =
                whole "request_min_throughput" 0L Int64.MaxValue defaults.RequestMinThroughput
            RetryTimeout = span "retry_timeout" 0L defaults.RetryTimeout
            RetryMaxBackoff = span "retry_max_backoff_millis" 1L defaults.RetryMaxBackoff
            AuthTimeout = span "auth_timeout" 1L defaults.AuthTimeout
            Gzip = choice "gzip" [ "true", true; "false", false; "on", true; "off", false ] defaults.Gzip
            TlsVerify = choice "tls_verify" [ "on", true; "unsafe_off", false ] defaults.TlsVerify
            Roots = roots
        }

        if mistakes.Count = 0 then
            Ok options
        else
            Error(List.ofSeq mistakes)
