module Tributary.Tests.Stores.ConfigStringTests

open System
open FsCheck
open FsCheck.FSharp
open NUnit.Framework
open FsCheck.NUnit
open Tributary.Stores.QuestDb
open Tributary.Tests

let private read text =
    match ConfigString.parse text with
    | Ok options -> options
    | Error mistakes -> failwith $"%A{mistakes}"

let private mistakes text =
    match ConfigString.parse text with
    | Ok options -> failwith $"{options} was read"
    | Error mistakes -> mistakes

let private isFalse (condition: bool) = isTrue (not condition)
let private ms (count: int) = TimeSpan.FromMilliseconds(float count)
let private address host port : Address = { Host = host; Port = port }

// ---- what is read

[<TestCase "http::">]
[<TestCase "http::addr=localhost:9000">]
[<TestCase "http::addr=localhost:9000;">]
[<TestCase "http::addr=localhost;protocol_version=auto;auto_flush=on;gzip=off;">]
let ``what is not said is as the official clients have it`` (text: string) =
    equal ConfigString.defaults (read text)

[<Test>]
let ``everything that can be said is read`` () =
    let text =
        "https::addr=db1:9001,db2;addr=[::1]:9003;username=admin;password=quest;protocol_version=2;"
        + "auto_flush_rows=10;auto_flush_interval=20;auto_flush_bytes=30;max_buf_size=40;max_name_len=64;"
        + "request_timeout=60;request_min_throughput=70;retry_timeout=0;retry_max_backoff_millis=90;auth_timeout=100;"
        + "gzip=true;tls_verify=unsafe_off;tls_ca=pem_file;tls_roots=/etc/ca.pem;tls_roots_password=p"

    equal
        {
            Tls = true
            Addresses = [ address "db1" 9001; address "db2" 9000; address "::1" 9003 ]
            Credentials = Credentials.Basic("admin", Hidden "quest")
            ProtocolVersion = ValueSome 2
            AutoFlushRows = ValueSome 10
            AutoFlushInterval = ValueSome(ms 20)
            AutoFlushBytes = ValueSome 30
            MaxBufferSize = 40
            MaxNameLength = 64
            RequestTimeout = ms 60
            RequestMinThroughput = 70L
            RetryTimeout = TimeSpan.Zero
            RetryMaxBackoff = ms 90
            AuthTimeout = ms 100
            Gzip = true
            TlsVerify = false
            Roots = Roots.File("/etc/ca.pem", ValueSome(Hidden "p"))
        }
        (read text)

[<Test>]
let ``user and pass are username and password`` () =
    equal (read "http::username=a;password=b;") (read "http::user=a;pass=b;")

[<Test>]
let ``a token is a credential of its own`` () =
    equal (Credentials.Bearer(Hidden "ey.J=")) (read "http::token=ey.J=;").Credentials

[<Test>]
let ``two semicolons are one within a value`` () =
    let passwordOf text =
        match (read text).Credentials with
        | Credentials.Basic(_, password) -> password.Reveal()
        | other -> failwith $"{other}"

    equal "a;b" (passwordOf "http::username=u;password=a;;b;")
    equal "a;" (passwordOf "http::username=u;password=a;;;gzip=on")
    equal ";;" (passwordOf "http::username=u;password=;;;;")
    equal "p=q\"'ü😀 " (passwordOf "http::username=u;password=p=q\"'ü😀 ;")
    equal "" (passwordOf "http::username=u;password=;")

[<Test>]
let ``a limit that is off is no limit, and auto_flush=off turns all of them off`` () =
    let one =
        read "http::auto_flush_rows=off;auto_flush_interval=off;auto_flush_bytes=off;"

    let all = read "http::auto_flush=off;"
    let agreeing = read "http::auto_flush=off;auto_flush_rows=off;"

    for options in [ one; all; agreeing ] do
        equal ValueNone options.AutoFlushRows
        equal ValueNone options.AutoFlushInterval
        equal ValueNone options.AutoFlushBytes

[<TestCase("webpki_roots")>]
[<TestCase("os_roots")>]
[<TestCase("webpki_and_os_roots")>]
let ``the roots of the system are the default`` (roots: string) =
    equal Roots.System (read $"https::tls_ca={roots};").Roots

[<Test>]
let ``a file of roots needs no further word`` () =
    equal (Roots.File("ca.pem", ValueNone)) (read "https::tls_roots=ca.pem;").Roots

[<Test>]
let ``keys that mean nothing here change nothing`` () =
    equal
        ConfigString.defaults
        (read "http::init_buf_size=65536;own_socket=true;pool_timeout=120000;convert_local_to_utc=off;")

[<Test>]
let ``an address is a URI for the one who connects`` () =
    equal
        [ "https://db1:9001/"; "https://[::1]:9000/" ]
        ((read "https::addr=db1:9001,[::1];").Uris
         |> List.map (fun uri -> uri.ToString()))

// ---- what is refused

[<TestCase("", "it must begin with http:: or https::")>]
[<TestCase("addr=localhost:9000;", "it must begin with http:: or https::")>]
[<TestCase("http:gzip;",
           "it must begin with http:: or https::|setting 1 is no key=value (a ';' within a value is written ';;')")>]
[<TestCase("HTTP::", "the scheme is written in lower case: http::")>]
[<TestCase("ftp::", "the scheme before '::' must be http or https")>]
[<TestCase("tcp::addr=localhost:9009;",
           "tcp is not spoken: its server answers nothing, not even errors, so rows would be lost in silence; use http or https")>]
[<TestCase("tcps::",
           "tcp is not spoken: its server answers nothing, not even errors, so rows would be lost in silence; use http or https")>]
[<TestCase("ws::", "ws is not spoken yet; use http or https")>]
[<TestCase("wss::", "wss is not spoken yet; use http or https")>]
[<TestCase("udp::", "udp is not spoken yet; use http or https")>]
[<TestCase("http::adr=x;", "unknown key 'adr'; did you mean 'addr'?")>]
[<TestCase("http::Addr=x;", "unknown key 'Addr'; did you mean 'addr'?")>]
[<TestCase("http::gzip;", "setting 1 is no key=value (a ';' within a value is written ';;')")>]
[<TestCase("http::gzip=on;gzip=on;", "gzip is given 2 times")>]
[<TestCase("http::gzip=yes;", "gzip: expected true, false, on, off; got 'yes'")>]
[<TestCase("http::protocol_version=4;", "protocol_version: expected auto, 1, 2, 3; got '4'")>]
[<TestCase("http::auto_flush_rows=0;",
           "auto_flush_rows: expected a whole number from 1 to 2147483647, or off; got '0'")>]
[<TestCase("http::auto_flush=off;auto_flush_rows=5;", "auto_flush_rows contradicts auto_flush=off")>]
[<TestCase("http::request_timeout=1s;",
           "request_timeout: expected milliseconds from 1 to 2147483647; got '1s'")>]
[<TestCase("http::max_name_len=1;", "max_name_len: expected a whole number from 16 to 32767; got '1'")>]
[<TestCase("http::token=t;username=u;", "username and token are two ways to say who we are; give one of them")>]
[<TestCase("http::password=p;", "password needs a username")>]
[<TestCase("http::password=p;token=t;", "a password belongs to a username, not to a token")>]
[<TestCase("http::username=u;", "username needs a password (an empty one is written password=;)")>]
[<TestCase("http::username=;password=p;", "username is empty")>]
[<TestCase("http::username=a:b;password=p;", "a username cannot hold ':'")>]
[<TestCase("http::username=a;user=a;password=p;", "username and user are the same; one of them is enough")>]
[<TestCase("http::token=;", "token is empty")>]
[<TestCase("http::token=a b;", "token holds characters that no header can carry")>]
[<TestCase("http::token_x=a;", "token_x is for tcp, which is not spoken")>]
[<TestCase("http::sf_dir=/tmp;", "sf_dir is for ws, which is not spoken yet")>]
[<TestCase("http::tls_verify=on;", "tls_verify needs https")>]
[<TestCase("https::tls_ca=pem_file;", "tls_ca=pem_file needs tls_roots")>]
[<TestCase("https::tls_ca=os_roots;tls_roots=x;", "tls_roots needs tls_ca=pem_file, or no tls_ca")>]
[<TestCase("https::tls_roots_password=x;", "tls_roots_password needs tls_roots")>]
[<TestCase("http::addr=;", "addr: an address is empty")>]
[<TestCase("http::addr=a:b;", "addr: 'a:b' is no host:port: a port is a number from 1 to 65535")>]
[<TestCase("http::addr=a:65536;", "addr: 'a:65536' is no host:port: a port is a number from 1 to 65535")>]
[<TestCase("http::addr=::1;", "addr: '::1' is no host:port: an IPv6 address stands in brackets")>]
[<TestCase("http::addr=[a]:1;", "addr: '[a]:1' is no host:port: there is no IPv6 address in the brackets")>]
[<TestCase("http::addr=[::1]9;",
           "addr: '[::1]9' is no host:port: something else than a port follows the bracket")>]
[<TestCase("http::addr=http://a;", "addr: 'http://a' is no host:port: it has neither a scheme nor a path")>]
[<TestCase("http::addr=a b;", "addr: 'a b' is no host:port: the host has characters that no host has")>]
[<TestCase("http::username=u;password=a\nb;", "there is a control character (U+000A) at position 28")>]
let ``what cannot be read is refused in a sentence`` (text: string, expected: string) =
    equal (List.ofArray (expected.Split '|')) (mistakes text)

[<Test>]
let ``all mistakes are told at once`` () =
    equal
        [
            "unknown key 'adr'; did you mean 'addr'?"
            "password needs a username"
            "gzip: expected true, false, on, off; got '2'"
        ]
        (mistakes "http::adr=x;password=p;gzip=2;"
         |> List.sortBy (fun text -> text.StartsWith "gzip"))

// ---- what is shown

let private secrets = "http::addr=db:9000;username=u;password=s3;;cret;gzip=on;"

[<Test>]
let ``however the options are shown, it is without the password or the token`` () =
    for text in
        [
            secrets
            "https::token=s3cret;"
            "https::tls_roots=ca.p12;tls_roots_password=s3cret;"
        ] do
        let options = read text

        for shown in
            [
                options.ToString()
                string options
                $"{options}"
                $"%A{options}"
                $"%A{options.Credentials}"
                $"%O{options.Credentials}"
                $"%A{options.Roots}"
                $"%A{[ options ]}"
            ] do
            isFalse (shown.Contains "cret")

        isTrue ((string options).Contains "=***;")

[<Test>]
let ``options are shown as a configuration string that says the same`` () =
    let options =
        read "https::addr=a,[::1]:1;protocol_version=3;auto_flush_rows=off;tls_roots=a;;b;"

    equal options (read (options.ToString()))
    equal ConfigString.defaults (read (ConfigString.defaults.ToString()))

[<TestCase("http::addr=db:9000;username=u;password=s3;;cret;gzip=on;",
           "http::addr=db:9000;username=u;password=***;gzip=on;")>]
[<TestCase("http::token=s3cret", "http::token=***;")>]
[<TestCase("http::pass=s3cret;user=u", "http::pass=***;user=u;")>]
[<TestCase("http::Password=s3cret;", "http::Password=***;")>]
[<TestCase("http::pasword=s3cret;", "http::pasword=***;")>]
[<TestCase("http::password=s3;cret;addr=a", "http::password=***;***;addr=a;")>]
[<TestCase("http::password=s3;cret=x;cret;gzip=on", "http::password=***;***;***;gzip=on;")>]
[<TestCase("http://admin:s3cret@localhost:9000", "***;")>]
[<TestCase("http::addr=admin:s3cret@localhost:9000", "http::addr=***;")>]
[<TestCase("s3cret::addr=a;", "***::addr=a;")>]
[<TestCase("addr=a;password=s3cret", "addr=a;password=***;")>]
[<TestCase("http::addr=a\nb;", "http::addr=a?b;")>]
[<TestCase("", "")>]
let ``a configuration string is shown without its secrets, also when it cannot be read``
    (text: string, expected: string)
    =
    equal expected (ConfigString.redact text)

[<TestCase "http::password=s3;cret;username=u">]
[<TestCase "http::password=s3;cret=x;username=u">]
[<TestCase "http::pasword=s3;cret=x">]
[<TestCase "http::username=u;password=s3cret\001">]
[<TestCase "http::token=s3cret ;username=s">]
[<TestCase "http::addr=admin:s3cret@db">]
[<TestCase "http::password=s3cret;password=s3cret">]
let ``no mistake quotes a secret`` (text: string) =
    for mistake in mistakes text do
        isFalse (mistake.Contains "cret" && not (mistake.Contains "secret"))
        isFalse (mistake.Contains "s3")

[<Property(MaxTest = 500)>]
let ``a secret is neither in what is shown nor in a mistake, whatever it is`` () =
    let part =
        Gen.elements [ ";"; ";;"; "="; ":"; "@"; ","; "addr"; "QXQ"; " "; "\""; "é"; "\\" ]

    let secret =
        Gen.listOf part |> Gen.map (fun parts -> "QXQ" + String.concat "" parts)

    let key =
        Gen.elements [ "password"; "pass"; "token"; "tls_roots_password"; "Token"; "pasword" ]

    Prop.forAll (Arb.fromGen (Gen.zip key secret)) (fun (key, secret) ->
        // A secret that holds ";addr=" and the like is told apart by nobody.
        if not (secret.Contains "addr") then
            let text = $"http::username=u;{key}={secret};gzip=on"
            isFalse ((ConfigString.redact text).Contains "QXQ")

            match ConfigString.parse text with
            | Ok options -> isFalse ($"{options} %A{options}".Contains "QXQ")
            | Error mistakes -> isFalse ((String.concat " " mistakes).Contains "QXQ"))

[<Property(MaxTest = 300)>]
let ``any password comes through when its semicolons are doubled`` () =
    let password =
        Gen.choose (0x20, 0xFFFF)
        |> Gen.map char
        |> Gen.listOf
        |> Gen.map (fun text -> String.filter (Char.IsControl >> not) (String(List.toArray text)))

    Prop.forAll (Arb.fromGen password) (fun password ->
        let text = "http::username=u;password=" + password.Replace(";", ";;") + ";gzip=on;"
        equal (Credentials.Basic("u", Hidden password)) (read text).Credentials)
