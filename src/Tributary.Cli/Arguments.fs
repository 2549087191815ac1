/// The command line. The usage lines are the manual: each says what a person can rely on.
module Tributary.Cli.Arguments

open Argu

/// What `--exchange` says in every command that has it.
[<Literal>]
let private ofExchange =
    "mean this exchange with --market and whatever else is said of markets and addresses here: polymarket (default), kalshi or manifold."

type StartArguments =
    | [<AltCommandLine "-c"; Unique>] Config of path: string
    | [<AltCommandLine "-m">] Market of slug: string
    | Event of slug: string
    | [<Unique>] Store of path: string
    | [<Unique; CustomCommandLine "--questdb">] QuestDb of connection: string
    | [<Unique>] Exchange of name: string
    | [<Unique>] Exchange_Url of address: string
    | [<Unique>] Progress_Log of file: string
    | [<Unique>] For of duration: string
    | [<Unique>] Web
    | [<Unique>] Dry_Run

    interface IArgParserTemplate with
        member this.Usage =
            match this with
            | Config _ ->
                "a folder of layers (base.yaml, ENVIRONMENT.yaml, markets/*.yaml) or one file; default: config, if it is there."
            | Market _ ->
                "collect this market, by its slug, beside those of the configuration; may be repeated."
            | Event _ -> "collect all markets of this event, by its slug; may be repeated."
            | Store _ -> "the SQLite file to store to, instead of the configured one."
            | QuestDb _ ->
                "store to this QuestDB, such as \"http::addr=localhost:9000;\", or file:PATH of such a string when it holds a password; with --store, to both."
            | Exchange _ -> ofExchange
            | Exchange_Url _ ->
                "ask this server instead of the exchange, such as a running 'tributary simulate'."
            | Progress_Log _ -> "append a line of JSON (job, watermark, rows) to this file after each commit."
            | For _ -> "stop by itself after so long, such as 30s, 5m or 1h30m."
            | Web ->
                "show a page for people at http.listen (127.0.0.1:9464): overview, markets, live depth, coverage, gaps."
            | Dry_Run ->
                "collect nothing: ask the collector that runs what these settings would change in it, and what needs a restart."

type BackfillArguments =
    | [<AltCommandLine "-c"; Unique>] Config of path: string
    | [<AltCommandLine("-m", "--market"); Mandatory>] Markets of selection: string
    | [<Unique>] Since of moment: string
    | [<Unique>] Until of moment: string
    | Source of names: string
    | [<Unique>] Plan
    | [<Unique>] Parallel of walks: int
    | [<Unique>] Store of path: string
    | [<Unique; CustomCommandLine "--questdb">] QuestDb of connection: string
    | [<Unique>] Exchange of name: string
    | [<Unique>] Exchange_Url of address: string
    | [<Unique>] Json

    interface IArgParserTemplate with
        member this.Usage =
            match this with
            | Config _ -> "a folder of layers or one file; default: config, if it is there."
            | Markets _ ->
                "whose past: a slug, a pattern with * and ? (in quotes), event:SLUG, tag:SLUG, a condition id, @FILE with one of these a line, or several of them with commas between; may be repeated."
            | Since _ ->
                "how far back: a duration such as 6h or 7d, or a time such as 2026-11-01 or 2026-11-01T12:00:00Z; default: to the first trade."
            | Until _ -> "up to when, in the same forms; default: now."
            | Source _ ->
                "read only these: a comma list of v2, v1 (trades of Polymarket's Data API), chain (OrderFilled logs of Polygon, from rpc_url), prices (the price history); of Kalshi trades, candles; of Manifold bets. Default: v2,v1; trades; bets."
            | Plan ->
                "ask for nothing but the markets, and print what would be read and what that takes under the limits."
            | Parallel _ -> "walks at the same time, under the same limits; default 8."
            | Store _ -> "the SQLite file to store to, instead of the configured one."
            | QuestDb _ ->
                "store to this QuestDB, such as \"http::addr=localhost:9000;\", or file:PATH of such a string when it holds a password; with --store, to both."
            | Exchange _ -> ofExchange
            | Exchange_Url _ ->
                "ask this server instead of the exchange, such as a running 'tributary simulate'."
            | Json -> "one JSON document instead of tables, at the end."

type AuditArguments =
    | [<AltCommandLine("-m", "--market")>] Markets of selection: string
    | [<Unique>] Since of moment: string
    | [<Unique>] Until of moment: string
    | [<Unique>] Days
    | [<AltCommandLine "-c"; Unique>] Config of path: string
    | [<Unique>] Store of path: string
    | [<Unique; CustomCommandLine "--questdb">] QuestDb of connection: string
    | [<Unique>] Json

    interface IArgParserTemplate with
        member this.Usage =
            match this with
            | Markets _ ->
                "audit these: a slug, a pattern with * and ?, event:SLUG, tag:SLUG, a condition id, @FILE, or several with commas between; default: all that are stored."
            | Since _ ->
                "from when on: a duration such as 7d, or a time such as 2026-11-01; default: the beginning of each market."
            | Until _ -> "up to when; default: up to what was read."
            | Days -> "a line for every day, instead of one for each stretch of days with the same verdict."
            | Config _ -> "where the store is configured; default: config, if it is there."
            | Store _ -> "the SQLite file to audit, instead of the configured store."
            | QuestDb _ ->
                "the QuestDB to audit, instead of the configured store; or file:PATH of the string when it holds a password."
            | Json -> "one JSON document instead of tables: every day with its counts."

type ValidateArguments =
    | [<AltCommandLine "-c"; Unique>] Config of path: string
    | [<Unique>] Print

    interface IArgParserTemplate with
        member this.Usage =
            match this with
            | Config _ -> "a folder of layers or one file; default: config."
            | Print -> "print the settings in force, secrets as references."

type ExchangesArguments =
    | [<Unique>] Json

    interface IArgParserTemplate with
        member this.Usage =
            match this with
            | Json -> "one JSON document instead of tables."

type TopArguments =
    | [<AltCommandLine "-c"; Unique>] Config of path: string
    | [<Unique>] Url of address: string
    | [<Unique>] Store of path: string
    | [<Unique>] Every of duration: string
    | [<Unique>] Once

    interface IArgParserTemplate with
        member this.Usage =
            match this with
            | Config _ -> "where http.listen and http.token are; default: config, if it is there."
            | Url _ -> "watch the collector at this address instead, such as http://127.0.0.1:9464."
            | Store _ ->
                "what to look into while no collector answers: a SQLite file instead of the configured one."
            | Every _ -> "ask this often, 100ms to 1h; default 1s. A store is looked into every 5s at most."
            | Once -> "print how it is now, and end."

/// What can be done about alerts.
[<RequireQualifiedAccess>]
type AlertsAction = | Test

type AlertsArguments =
    | [<MainCommand; ExactlyOnce>] Action of action: AlertsAction
    | [<AltCommandLine "-c"; Unique>] Config of path: string

    interface IArgParserTemplate with
        member this.Usage =
            match this with
            | Action _ -> "test: send one notice to the log and to every sink that is configured."
            | Config _ -> "a folder of layers or one file; default: config, if it is there."

type StatusArguments =
    | [<AltCommandLine "-c"; Unique>] Config of path: string
    | [<Unique>] Store of path: string
    | [<Unique; CustomCommandLine "--questdb">] QuestDb of connection: string
    | [<Unique>] Json

    interface IArgParserTemplate with
        member this.Usage =
            match this with
            | Config _ -> "where the store is configured; default: config, if it is there."
            | Store _ -> "the SQLite file to look into, instead of the configured store."
            | QuestDb _ ->
                "the QuestDB to look into, instead of the configured store; or file:PATH of the string when it holds a password."
            | Json -> "one JSON document instead of tables."

type DoctorArguments =
    | [<AltCommandLine "-c"; Unique>] Config of path: string
    | [<Unique>] Store of path: string
    | [<Unique>] Exchange of name: string
    | [<Unique>] Exchange_Url of address: string
    | [<Unique; CustomCommandLine "--questdb">] QuestDb of connection: string
    | [<Unique>] Json

    interface IArgParserTemplate with
        member this.Usage =
            match this with
            | Config _ -> "a folder of layers or one file; default: config, if it is there."
            | Store _ -> "look at this SQLite file, instead of the configured store."
            | Exchange _ -> ofExchange
            | Exchange_Url _ ->
                "look at this server instead of the exchange, such as a running 'tributary simulate'."
            | QuestDb _ ->
                "look at this QuestDB, instead of the configured store; with --store, at both; or file:PATH of the string when it holds a password."
            | Json -> "one JSON document instead of lines, at the end."

type CompactArguments =
    | [<AltCommandLine "-c"; Unique>] Config of path: string
    | [<Unique>] Store of path: string

    interface IArgParserTemplate with
        member this.Usage =
            match this with
            | Config _ -> "where the store and its retention are configured; default: config, if it is there."
            | Store _ -> "the SQLite file to compact, instead of the configured store."

type BookArguments =
    | [<MainCommand; ExactlyOnce>] Token of token: string
    | [<Unique>] At of time: string
    | [<Unique>] Depth of levels: int
    | [<AltCommandLine "-c"; Unique>] Config of path: string
    | [<Unique>] Store of path: string
    | [<Unique; CustomCommandLine "--questdb">] QuestDb of connection: string
    | [<Unique>] Json

    interface IArgParserTemplate with
        member this.Usage =
            match this with
            | Token _ ->
                "whose book: a token id, or SLUG:OUTCOME such as will-the-bill-pass-1:Yes; the slug alone where it has one book."
            | At _ ->
                "the moment: a time such as 2026-11-01T12:00:00Z, seconds or milliseconds since 1970, or a duration ago such as 5m; default: the newest at which the book is known."
            | Depth _ -> "show so many levels of each side; default 10, of --json all."
            | Config _ -> "where the store is configured; default: config, if it is there."
            | Store _ -> "the SQLite file to look into, instead of the configured store."
            | QuestDb _ ->
                "the QuestDB to look into, instead of the configured store; or file:PATH of the string when it holds a password."
            | Json -> "one JSON object instead of tables."

type TapArguments =
    | [<AltCommandLine "-m">] Market of slug: string
    | Event of slug: string
    | Kind of kinds: string
    | Token of token: string
    | [<Unique>] Min_Size of size: string
    | [<Unique>] Limit of events: int
    | [<Unique>] For of duration: string
    | [<AltCommandLine "-c"; Unique>] Config of path: string
    | [<Unique>] Exchange of name: string
    | [<Unique>] Exchange_Url of address: string
    | [<Unique>] Json

    interface IArgParserTemplate with
        member this.Usage =
            match this with
            | Market _ ->
                "watch this market, by its slug, instead of those of the configuration; may be repeated."
            | Event _ -> "watch all markets of this event, by its slug; may be repeated."
            | Kind _ -> "show only these: a comma list of trade, book, delta, gap, market; default: all."
            | Token _ -> "show only what is about this token id; may be repeated."
            | Min_Size _ -> "leave out trades and changes of a smaller size."
            | Limit _ -> "end after so many events."
            | For _ -> "end after so long, such as 30s, 5m or 1h30m."
            | Config _ -> "a folder of layers or one file; default: config, if it is there."
            | Exchange _ -> ofExchange
            | Exchange_Url _ ->
                "watch this server instead of the exchange, such as a running 'tributary simulate'."
            | Json -> "a JSON object a line, as 'decode --json' prints them."

type MarketsArguments =
    | [<AltCommandLine "-c"; Unique>] Config of path: string
    | [<AltCommandLine "-m">] Market of slug: string
    | Event of slug: string
    | Tag of slug: string
    | Slug of pattern: string
    | [<Unique>] Min_Volume of decimal
    | [<Unique>] Min_Liquidity of decimal
    | [<Unique>] Max of int
    | [<Unique>] Exchange of name: string
    | [<Unique>] Exchange_Url of address: string
    | [<Unique>] Json

    interface IArgParserTemplate with
        member this.Usage =
            match this with
            | Config _ ->
                "explain what this configuration would collect; default: config, if it is there and nothing else is asked."
            | Market _ -> "look up a market by its slug; may be repeated."
            | Event _ -> "look up an event's markets by the event's slug; may be repeated."
            | Tag _ -> "search markets with this tag; may be repeated: any of them."
            | Slug _ ->
                "search markets whose slug matches a pattern with * and ?; may be repeated: any of them."
            | Min_Volume _ -> "search markets with at least this lifetime volume."
            | Min_Liquidity _ -> "search markets with at least this liquidity."
            | Max _ -> "at most so many, largest volume first; default 200."
            | Exchange _ -> ofExchange
            | Exchange_Url _ -> "ask this server instead of the exchange."
            | Json -> "one JSON document instead of a table."

type MatchArguments =
    | [<AltCommandLine "-c"; Unique>] Config of path: string
    | [<Unique>] Mapping of file: string
    | [<Unique>] Confirm of markets: string list
    | [<Unique>] As of question: string
    | Inverted of market: string
    | [<Unique>] Refuse of markets: string list
    | [<Unique>] Min_Score of score: float
    | [<Unique>] Limit of pairs: int
    | [<Unique>] All
    | [<Unique>] Store of path: string
    | [<Unique; CustomCommandLine "--questdb">] QuestDb of connection: string
    | [<Unique>] Json

    interface IArgParserTemplate with
        member this.Usage =
            match this with
            | Config _ -> "where the store is configured; default: config, if it is there."
            | Mapping _ ->
                "the file that holds what was confirmed and refused; default: matches.yaml in the configuration's folder, or config/matches.yaml."
            | Confirm _ ->
                "these markets ask the same: write that into the mapping and the store; each is EXCHANGE:MARKET or EXCHANGE:SLUG, such as kalshi:KXFED-27MAR. With a market that is confirmed already, the others join its question."
            | As _ -> "what the confirmed question is called; default: the slug of the first market."
            | Inverted _ ->
                "of the confirmed ones: this market's yes is the others' no, as EXCHANGE:MARKET; may be repeated."
            | Refuse _ -> "these markets do not ask the same: never propose them again."
            | Min_Score _ -> "propose pairs with this score or more, 0 to 1; default 0.6."
            | Limit _ -> "at most so many, the best first; default 50."
            | All -> "among all stored markets, closed and resolved ones, too."
            | Store _ -> "the SQLite file to read and write, instead of the configured store."
            | QuestDb _ ->
                "the QuestDB to read and write, instead of the configured store; or file:PATH of the string when it holds a password."
            | Json -> "one JSON document instead of a table."

type DecodeArguments =
    | [<MainCommand; ExactlyOnce; Last>] Paths of path: string list
    | [<Unique>] Json

    interface IArgParserTemplate with
        member this.Usage =
            match this with
            | Paths _ -> "files or folders of .json, .jsonl, .ndjson, or .gz of them."
            | Json ->
                "print the normalised events, one JSON object a line, instead of the summary (which goes to standard error)."

type SimulateArguments =
    | [<Unique>] Exchange of name: string
    | [<Unique>] Public_Key of file: string
    | [<Unique>] Port of int
    | [<Unique>] Markets of int
    | [<Unique>] Seed of int
    | [<Unique>] Speed of float
    | [<Unique>] Trades of float
    | [<Unique>] Faults of names: string
    | [<Unique>] Fault_Rate of float
    | [<Unique>] No_Limits
    | [<Unique>] V1_Only
    | [<Unique>] Archive of fills: int
    | [<Unique>] Archive_Years of years: float
    | [<Unique>] V1_Limit of rows: int
    | [<Unique>] V1_Offset of rows: int
    | [<Unique>] V1_Repeats
    | [<Unique>] Rpc_Plain
    | [<Unique>] Rpc_Reorgs
    | [<Unique>] Rpc_Unknown of blocks: int
    | [<Unique>] Messages of float
    | [<Unique>] Stream_Faults of names: string
    | [<Unique>] Stream_Fault_Rate of float
    | [<Unique>] New_Market_Every of duration: string

    interface IArgParserTemplate with
        member this.Usage =
            match this with
            | Exchange _ -> "whose protocol it speaks: polymarket (default), kalshi or manifold."
            | Public_Key _ ->
                "the PEM file with the public half of an RSA key: whoever signs with the other half may open connections to a simulated kalshi."
            | Port _ ->
                "the port on 127.0.0.1; default 0: any free one. The address is the first line that is printed."
            | Markets _ -> "how many markets are open; default 200 (400 tokens)."
            | Seed _ -> "the same seed gives the same exchange; default 1."
            | Speed _ -> "how fast its clock runs; default 1."
            | Trades _ -> "trades a second over all markets; default 20."
            | Faults _ ->
                "misbehaviour: a comma list of latency, 425, 429, 5xx, html, cut, repeat, resolve; all; none (default)."
            | Fault_Rate _ -> "the share of requests that each kind strikes; default 0.03."
            | No_Limits -> "do not count requests."
            | V1_Only -> "serve trades by Data API v1 alone."
            | Archive _ ->
                "how many past trades there are, over all open markets, millions if you like; default 0: half an hour of them."
            | Archive_Years _ -> "how far back they reach; default 4."
            | V1_Limit _ -> "the most rows that Data API v1 gives, whatever is asked; default 10000."
            | V1_Offset _ -> "the largest offset that it takes; default 3000."
            | Rpc_Plain -> "leave the times of blocks out of the chain's logs."
            | Rpc_Reorgs -> "replace the newest blocks of the chain again and again."
            | Rpc_Unknown _ -> "have a log of unknown layout once in so many blocks; default: never."
            | V1_Repeats -> "give the rows at the largest offset again, instead of refusing a larger one."
            | Messages _ ->
                "price changes a second on the market channel, over all markets and beside the ordinary ones; default 0."
            | Stream_Faults _ ->
                "misbehaviour of the market channel: a comma list of withheld, silent-assets, silent-socket, half-open, dropped, duplicated, reordered, wrong-best, hash-race, delta-first, crossed, close, tick-size, repeats; all; none (default)."
            | Stream_Fault_Rate _ -> "the share of messages that each kind strikes; default 0.01."
            | New_Market_Every _ ->
                "how often the market of the next 15-minute window appears, such as 30s or 15m; default: never."

type DemoArguments =
    | [<Unique>] Exchanges of names: string
    | [<Unique>] Seconds of int
    | [<Unique>] Markets of int
    | [<Unique>] Seed of int
    | [<Unique>] Faults of names: string
    | [<Unique>] Store of kind: string
    | [<Unique; CustomCommandLine "--questdb">] QuestDb of connection: string
    | [<Unique>] Keep of folder: string
    | [<Unique>] Recount of folder: string

    interface IArgParserTemplate with
        member this.Usage =
            match this with
            | Exchanges _ ->
                "which exchanges are simulated and collected from: a comma list of polymarket (default), kalshi, manifold; or all."
            | Seconds _ -> "how long the exchange trades; default 20."
            | Markets _ ->
                "how many markets are open; default 200 (400 tokens). Kalshi has 20 of them at most and Manifold 8: their limits allow no more."
            | Seed _ -> "the same seed gives the same exchange; default 1."
            | Faults _ ->
                "misbehaviour of the exchange: a comma list, all, or none (default); see 'tributary simulate --help'."
            | Store _ -> "sqlite (default), questdb or both."
            | QuestDb _ ->
                "the QuestDB to store to, such as \"http::addr=localhost:9000;\", which is the default; or file:PATH of the string when it holds a password."
            | Keep _ -> "keep the store and the exchange's ledger in this folder."
            | Recount _ ->
                "collect nothing: account once more for what an earlier --keep left in this folder."

/// The shells that a completion script can be made for.
[<RequireQualifiedAccess>]
type Shell =
    | Bash
    | Zsh
    | Fish

type CompletionsArguments =
    | [<MainCommand; ExactlyOnce>] Shell of shell: Shell

    interface IArgParserTemplate with
        member this.Usage =
            match this with
            | Shell _ -> "bash, zsh or fish."

type Arguments =
    | [<Inherit; Unique>] Log_Level of level: string
    | [<Inherit; AltCommandLine "-v"; Unique>] Verbose
    | [<CliPrefix(CliPrefix.None)>] Start of ParseResults<StartArguments>
    | [<CliPrefix(CliPrefix.None)>] Backfill of ParseResults<BackfillArguments>
    | [<CliPrefix(CliPrefix.None)>] Audit of ParseResults<AuditArguments>
    | [<CliPrefix(CliPrefix.None); CustomCommandLine "validate-config">] Validate_Config of
        ParseResults<ValidateArguments>
    | [<CliPrefix(CliPrefix.None)>] Top of ParseResults<TopArguments>
    | [<CliPrefix(CliPrefix.None)>] Alerts of ParseResults<AlertsArguments>
    | [<CliPrefix(CliPrefix.None)>] Doctor of ParseResults<DoctorArguments>
    | [<CliPrefix(CliPrefix.None)>] Status of ParseResults<StatusArguments>
    | [<CliPrefix(CliPrefix.None)>] Compact of ParseResults<CompactArguments>
    | [<CliPrefix(CliPrefix.None)>] Book of ParseResults<BookArguments>
    | [<CliPrefix(CliPrefix.None)>] Tap of ParseResults<TapArguments>
    | [<CliPrefix(CliPrefix.None)>] Markets of ParseResults<MarketsArguments>
    | [<CliPrefix(CliPrefix.None)>] Match of ParseResults<MatchArguments>
    | [<CliPrefix(CliPrefix.None)>] Exchanges of ParseResults<ExchangesArguments>
    | [<CliPrefix(CliPrefix.None)>] Decode of ParseResults<DecodeArguments>
    | [<CliPrefix(CliPrefix.None)>] Simulate of ParseResults<SimulateArguments>
    | [<CliPrefix(CliPrefix.None)>] Demo of ParseResults<DemoArguments>
    | [<CliPrefix(CliPrefix.None)>] Completions of ParseResults<CompletionsArguments>

    interface IArgParserTemplate with
        member this.Usage =
            match this with
            | Log_Level _ -> "trace, debug, info, warning or error; default: as configured, else info."
            | Verbose -> "log at debug level, and show the stack of an exception."
            | Start _ ->
                "collect markets, order books and trades until Ctrl-C or SIGTERM; what is missed is a row in gaps."
            | Backfill _ ->
                "read the past trades of some markets into the store, all of them or since a moment; what was read is never asked for again."
            | Audit _ ->
                "say of each market and day whether all of its trades are stored, and why not; exit code 1 if anything is not complete."
            | Validate_Config _ ->
                "check the configuration and name every mistake with its place; opens no socket; exit code 78 if any."
            | Top _ ->
                "watches the collector that runs: markets, rates, ages, verdicts, gaps; in a pipe a line each time."
            | Alerts _ ->
                "'alerts test' sends a notice wherever alerts would go, and says of each place whether it arrived; exit code 1 if one did not."
            | Doctor _ ->
                "check everything that collecting needs: configuration, exchange, clock, disk, store, QuestDB; each finding says what to do; changes nothing; exit code 1 if anything failed, 78 if the configuration is invalid."
            | Status _ ->
                "what is in the store, market by market: rows, first, last, age, gaps, rates, and how the last runs went."
            | Compact _ ->
                "delete what is older than store.retention keeps, and make the SQLite file as small as what is in it; not while a collector writes to it."
            | Book _ ->
                "a token's order book as it was at any moment of a recording, with its verdict, or why it is not known; exit code 1 if it is not."
            | Tap _ -> "watch what the exchange tells, decoded, a line an event; nothing is stored."
            | Markets _ -> "search markets, or explain what the configuration would collect and why."
            | Match _ ->
                "propose stored markets of several exchanges that ask the same; --confirm and --refuse write what you say of them into a file and the store."
            | Exchanges _ ->
                "which exchanges are known, how their data are to be read, and what can be proven of them."
            | Decode _ ->
                "recognise recorded payloads by their shape and decode them; exit code 1 if anything fails."
            | Simulate _ -> "serve a simulated exchange on a local port, for demonstrations and tests."
            | Demo _ ->
                "collect from a simulated exchange in one process, then account for every trade and every poll."
            | Completions _ ->
                "print a script that completes this command line in a shell: source <(tributary completions bash)."
