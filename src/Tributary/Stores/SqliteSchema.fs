/// The tables of a Tributary database and the views for reading them. Integers stay integers: prices and sizes in millionths,
/// times in microseconds since 1970 UTC. The views are the documented way to read; the tables may change with a version.
[<RequireQualifiedAccess>]
module internal Tributary.Stores.SqliteSchema

open Tributary

/// "TRIB": what marks a file as ours.
[<Literal>]
let ApplicationId = 0x54524942L

/// Each step takes a file one version further. A step that was released is never edited: what is new is a new step.
let steps = [
    """
-- Names are kept once and known by small numbers that mean nothing outside of this file.
CREATE TABLE exchanges (
    id    INTEGER PRIMARY KEY,
    name  TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE market_keys (
    id        INTEGER PRIMARY KEY,
    exchange  INTEGER NOT NULL REFERENCES exchanges,
    name      TEXT NOT NULL,
    trades    INTEGER NOT NULL DEFAULT 0,  -- how many it has: counting them would read them all
    UNIQUE (exchange, name)
) STRICT;

CREATE TABLE token_keys (
    id       INTEGER PRIMARY KEY,
    market   INTEGER NOT NULL REFERENCES market_keys,
    name     TEXT NOT NULL,
    outcome  TEXT,                         -- the name of the outcome, once it is known
    books    INTEGER NOT NULL DEFAULT 0,
    UNIQUE (market, name)
) STRICT;

CREATE TABLE metric_keys (
    id      INTEGER PRIMARY KEY,
    name    TEXT NOT NULL,
    labels  TEXT NOT NULL,
    UNIQUE (name, labels)
) STRICT;

-- A row is a description that differs from the one before it.
CREATE TABLE markets (
    market          INTEGER NOT NULL REFERENCES market_keys,
    at              INTEGER NOT NULL,
    version         BLOB NOT NULL,         -- 16 bytes of SHA-256 over what was described
    received        INTEGER NOT NULL,
    updated         INTEGER,
    event           TEXT NOT NULL,
    slug            TEXT NOT NULL,
    question        TEXT NOT NULL,
    outcomes        TEXT NOT NULL,         -- JSON: [{"name":…,"token":… or null},…]
    tags            TEXT NOT NULL,         -- JSON: […]
    status          TEXT NOT NULL,
    accepts_orders  INTEGER NOT NULL,
    tick_size       INTEGER,
    minimum_size    INTEGER,
    neg_risk        INTEGER NOT NULL,
    starts          INTEGER,
    ends            INTEGER,
    closed          INTEGER,
    winner          TEXT NOT NULL,
    raw             TEXT NOT NULL,
    UNIQUE (market, at, version)
) STRICT;

CREATE TABLE market_stats (
    market         INTEGER NOT NULL REFERENCES market_keys,
    at             INTEGER NOT NULL,
    volume         INTEGER,
    liquidity      INTEGER,
    open_interest  INTEGER,
    PRIMARY KEY (market, at)
) STRICT, WITHOUT ROWID;

-- The key leads with market and time, so that new rows stand beside each other.
CREATE TABLE trades (
    market            INTEGER NOT NULL REFERENCES market_keys,
    at                INTEGER NOT NULL,
    trade_id          BLOB NOT NULL,       -- 16 bytes
    source            INTEGER NOT NULL,    -- 0 api, 1 stream, 2 chain
    token             INTEGER NOT NULL REFERENCES token_keys,
    outcome           TEXT,                -- null when it is the token's
    side              INTEGER NOT NULL,    -- 0 buy, 1 sell
    price             INTEGER NOT NULL,
    size              INTEGER NOT NULL,
    transaction_hash  ANY,                 -- 32 bytes, or text when it is something else
    received          INTEGER NOT NULL,
    flags             INTEGER NOT NULL,
    PRIMARY KEY (market, at, trade_id, source)
) STRICT, WITHOUT ROWID;

-- Two sightings of one fill: the one that counts, and the other.
CREATE TABLE trade_links (
    other_id  BLOB NOT NULL,
    trade_id  BLOB NOT NULL,
    PRIMARY KEY (other_id, trade_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE orderbook_snapshots (
    token          INTEGER NOT NULL REFERENCES token_keys,
    at             INTEGER NOT NULL,
    hash           ANY NOT NULL,           -- 20 bytes, or text when it is something else
    received       INTEGER NOT NULL,
    best_bid       INTEGER,
    best_bid_size  INTEGER,
    best_ask       INTEGER,
    best_ask_size  INTEGER,
    sequence       INTEGER,
    verdict        INTEGER NOT NULL,       -- 0 verified, 1 unverifiable, 2 mismatched
    reason         TEXT NOT NULL,
    flags          INTEGER NOT NULL,
    bids           TEXT NOT NULL,          -- JSON: [[price,size],…], best first
    asks           TEXT NOT NULL,
    UNIQUE (token, at, hash)
) STRICT;

CREATE TABLE orderbook_deltas (
    token     INTEGER NOT NULL REFERENCES token_keys,
    at        INTEGER NOT NULL,
    ordinal   INTEGER NOT NULL,
    side      INTEGER NOT NULL,
    price     INTEGER NOT NULL,
    size      INTEGER NOT NULL,
    hash      ANY NOT NULL,
    sequence  INTEGER,
    received  INTEGER NOT NULL,
    verdict   INTEGER NOT NULL,
    PRIMARY KEY (token, at, ordinal, side, price)
) STRICT, WITHOUT ROWID;

CREATE TABLE gaps (
    collector  TEXT NOT NULL,
    market     INTEGER NOT NULL REFERENCES market_keys,
    stream     TEXT NOT NULL,
    token      INTEGER NOT NULL,           -- 0 when the whole market is meant
    since      INTEGER NOT NULL,
    cause      TEXT NOT NULL,
    until      INTEGER,                    -- null while it is open
    healed_at  INTEGER,
    healed_by  TEXT,
    PRIMARY KEY (collector, market, stream, token, since, cause)
) STRICT, WITHOUT ROWID;

CREATE INDEX gaps_open ON gaps (collector) WHERE until IS NULL;

CREATE TABLE prices (
    token     INTEGER NOT NULL REFERENCES token_keys,
    at        INTEGER NOT NULL,
    kind      TEXT NOT NULL,
    price     INTEGER NOT NULL,
    received  INTEGER NOT NULL,
    PRIMARY KEY (token, at, kind)
) STRICT, WITHOUT ROWID;

CREATE TABLE quarantine (
    content   BLOB NOT NULL UNIQUE,        -- 16 bytes of SHA-256 over exchange, reason and bytes
    exchange  TEXT NOT NULL,
    source    TEXT NOT NULL,
    position  INTEGER NOT NULL,
    reason    TEXT NOT NULL,
    bytes     BLOB NOT NULL,
    received  INTEGER NOT NULL
) STRICT;

CREATE TABLE checkpoints (
    job           TEXT PRIMARY KEY,
    market        INTEGER NOT NULL REFERENCES market_keys,
    stream        TEXT NOT NULL,
    token         INTEGER,
    since         INTEGER NOT NULL,
    watermark     INTEGER NOT NULL,
    rows          INTEGER NOT NULL,        -- of the last run
    error         TEXT NOT NULL,
    duration      INTEGER NOT NULL,        -- microseconds
    runs          INTEGER NOT NULL,        -- of all runs
    total_rows    INTEGER NOT NULL,
    total_errors  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE collection_metrics (
    metric  INTEGER NOT NULL REFERENCES metric_keys,
    at      INTEGER NOT NULL,
    value   REAL NOT NULL,
    PRIMARY KEY (metric, at)
) STRICT, WITHOUT ROWID;

-- Whoever deletes old rows by hand keeps the totals right.
CREATE TRIGGER trades_deleted AFTER DELETE ON trades BEGIN
    UPDATE market_keys SET trades = trades - 1 WHERE id = OLD.market;
END;

CREATE TRIGGER orderbook_snapshots_deleted AFTER DELETE ON orderbook_snapshots BEGIN
    UPDATE token_keys SET books = books - 1 WHERE id = OLD.token;
END;
"""

    """
-- What waits for a store that is elsewhere: the rows of one batch and table, whole (form 1) or as references to them (form 0).
CREATE TABLE outbox (
    entry    INTEGER PRIMARY KEY AUTOINCREMENT,
    kind     TEXT NOT NULL,                -- the table
    written  INTEGER NOT NULL,
    rows     INTEGER NOT NULL,
    form     INTEGER NOT NULL,
    content  BLOB NOT NULL
) STRICT;

CREATE INDEX outbox_kind ON outbox (kind, entry, rows);
"""

    """
-- Why a book is not verified: the number of a word (0: no doubt, or a row of an earlier version).
ALTER TABLE orderbook_snapshots ADD COLUMN doubt INTEGER NOT NULL DEFAULT 0;
ALTER TABLE orderbook_deltas ADD COLUMN doubt INTEGER NOT NULL DEFAULT 0;

-- How many changes a token has.
ALTER TABLE token_keys ADD COLUMN deltas INTEGER NOT NULL DEFAULT 0;

-- When the fill was, as the sighting that counts says it.
ALTER TABLE trade_links ADD COLUMN at INTEGER NOT NULL DEFAULT 0;

CREATE TRIGGER orderbook_deltas_deleted AFTER DELETE ON orderbook_deltas BEGIN
    UPDATE token_keys SET deltas = deltas - 1 WHERE id = OLD.token;
END;
"""

    """
-- The exact amount of the currency that changed hands; null where the source does not say it.
ALTER TABLE trades ADD COLUMN collateral INTEGER;

-- What a job needs to go on where it stopped, in its own words.
ALTER TABLE checkpoints ADD COLUMN state TEXT NOT NULL DEFAULT '';

-- Whether a link names a trade is asked of either side: of `other_id` the key tells it.
CREATE INDEX trade_links_trade ON trade_links (trade_id);
"""

    """
-- Up to which entry the other store was seen to show each of its tables.
CREATE TABLE outbox_applied (
    kind  TEXT PRIMARY KEY,
    entry INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
"""
]

// ---- how columns are shown to people

/// `2026-07-24T00:00:16.000000Z`; null stays null. Rounds down, also before 1970.
let private iso column =
    let micros = $"(({column} %% 1000000 + 1000000) %% 1000000)"

    $"strftime('%%Y-%%m-%%dT%%H:%%M:%%S', ({column} - {micros}) / 1000000, 'unixepoch') || printf('.%%06dZ', {micros})"

/// Millionths as a decimal: the double nearest to it, which prints as the same decimal up to 15 digits.
let private decimal column = $"{column} / 1e6"

/// Levels in decimals, `[[price,size],…]`, best first.
let private levels column =
    $"(SELECT json_group_array(json_array(json_extract(value, '$[0]') / 1e6, json_extract(value, '$[1]') / 1e6)) FROM json_each({column}))"

let private hexOrText prefix column =
    $"CASE typeof({column}) WHEN 'blob' THEN '{prefix}' || lower(hex({column})) ELSE coalesce({column}, '') END"

/// The words of a bit mask, separated by spaces.
let private flags column =
    Content.flagWords
    |> List.map (fun (flag, word) -> $"CASE WHEN {column} & {int flag} THEN '{word} ' ELSE '' END")
    |> String.concat " || "
    |> fun words -> $"rtrim({words})"

let private side column =
    $"CASE {column} WHEN 0 THEN 'buy' ELSE 'sell' END"

let private verdict column =
    $"CASE {column} WHEN 0 THEN 'verified' WHEN 2 THEN 'mismatched' ELSE 'unverifiable' END"

let private doubt column =
    Doubt.all
    |> List.map (fun (doubt, word) -> $"WHEN {int doubt} THEN '{word}'")
    |> String.concat " "
    |> fun words -> $"CASE {column} {words} ELSE '' END"

/// The slug that a market has now, or null.
let private slug market =
    $"(SELECT d.slug FROM markets d WHERE d.market = {market} ORDER BY d.at DESC, d.received DESC LIMIT 1)"

let private ofMarket =
    "JOIN market_keys m ON m.id = r.market JOIN exchanges e ON e.id = m.exchange"

let private ofToken =
    "JOIN token_keys k ON k.id = r.token JOIN market_keys m ON m.id = k.market JOIN exchanges e ON e.id = m.exchange"

let private trade =
    $"""e.name AS exchange, {slug "m.id"} AS slug, m.name AS market, k.name AS token,
    coalesce(r.outcome, k.outcome, '') AS outcome, {side "r.side"} AS side,
    {decimal "r.price"} AS price, {decimal "r.size"} AS size, {decimal "r.collateral"} AS collateral,
    lower(hex(r.trade_id)) AS trade_id, {hexOrText "0x" "r.transaction_hash"} AS transaction_hash,
    CASE r.source WHEN 0 THEN 'api' WHEN 1 THEN 'stream' ELSE 'chain' END AS source,
    {iso "r.at"} AS at, {iso "r.received"} AS received, {flags "r.flags"} AS flags"""

/// Views by their names. They hold nothing, so they are made anew with every new version.
let views = [
    "markets_readable",
    $"""SELECT e.name AS exchange, m.name AS market, r.event, r.slug, r.question, r.outcomes, r.tags, r.status,
    r.accepts_orders, {decimal "r.tick_size"} AS tick_size, {decimal "r.minimum_size"} AS minimum_size, r.neg_risk,
    {iso "r.starts"} AS starts, {iso "r.ends"} AS ends, {iso "r.closed"} AS closed, r.winner,
    {iso "r.at"} AS at, {iso "r.received"} AS received, lower(hex(r.version)) AS version, r.raw
FROM markets r {ofMarket}"""

    "market_stats_readable",
    $"""SELECT e.name AS exchange, {slug "m.id"} AS slug, m.name AS market, {iso "r.at"} AS at,
    {decimal "r.volume"} AS volume, {decimal "r.liquidity"} AS liquidity, {decimal "r.open_interest"} AS open_interest
FROM market_stats r {ofMarket}"""

    "trades_readable",
    $"""SELECT {trade}
FROM trades r JOIN token_keys k ON k.id = r.token {ofMarket}"""

    // One row a fill: a sighting that is linked to a better one is left out, and so are the makers' parts of a fill, for the taker's
    // row is all of it. `confirmed`: a fill that only the stream told of may never settle.
    "fills",
    $"""SELECT {trade}, r.source <> 1 AS confirmed
FROM trades r JOIN token_keys k ON k.id = r.token {ofMarket}
WHERE r.flags & {int Flags.Maker} = 0 AND NOT EXISTS (SELECT 1 FROM trade_links l WHERE l.other_id = r.trade_id)"""

    "orderbook_snapshots_readable",
    $"""SELECT e.name AS exchange, {slug "m.id"} AS slug, m.name AS market, k.name AS token,
    coalesce(k.outcome, '') AS outcome,
    {decimal "r.best_bid"} AS best_bid, {decimal "r.best_bid_size"} AS best_bid_size,
    {decimal "r.best_ask"} AS best_ask, {decimal "r.best_ask_size"} AS best_ask_size,
    (r.best_bid + r.best_ask) / 2e6 AS mid, (r.best_ask - r.best_bid) / 1e6 AS spread,
    (r.best_ask - r.best_bid) * 2e4 / (r.best_bid + r.best_ask) AS spread_bps,
    {hexOrText "" "r.hash"} AS hash, r.sequence, {verdict "r.verdict"} AS verdict, {doubt "r.doubt"} AS doubt, r.reason,
    {iso "r.at"} AS at, {iso "r.received"} AS received, {flags "r.flags"} AS flags,
    {levels "r.bids"} AS bids, {levels "r.asks"} AS asks
FROM orderbook_snapshots r {ofToken}"""

    "orderbook_deltas_readable",
    $"""SELECT e.name AS exchange, {slug "m.id"} AS slug, m.name AS market, k.name AS token,
    coalesce(k.outcome, '') AS outcome, {iso "r.at"} AS at, r.ordinal, {side "r.side"} AS side,
    {decimal "r.price"} AS price, {decimal "r.size"} AS size, {hexOrText "" "r.hash"} AS hash, r.sequence,
    {verdict "r.verdict"} AS verdict, {doubt "r.doubt"} AS doubt, {iso "r.received"} AS received
FROM orderbook_deltas r {ofToken}"""

    "gaps_readable",
    $"""SELECT r.collector, e.name AS exchange, r.stream, {slug "m.id"} AS slug, m.name AS market,
    coalesce(k.name, '') AS token, coalesce(k.outcome, '') AS outcome, r.cause,
    {iso "r.since"} AS since, {iso "r.until"} AS until, (r.until - r.since) / 1e6 AS seconds,
    {iso "r.healed_at"} AS healed_at, r.healed_by
FROM gaps r {ofMarket} LEFT JOIN token_keys k ON k.id = r.token"""

    "prices_readable",
    $"""SELECT e.name AS exchange, {slug "m.id"} AS slug, m.name AS market, k.name AS token,
    coalesce(k.outcome, '') AS outcome, {iso "r.at"} AS at, r.kind, {decimal "r.price"} AS price,
    {iso "r.received"} AS received
FROM prices r {ofToken}"""

    "quarantine_readable",
    $"""SELECT r.exchange, r.source, r.position, r.reason, {iso "r.received"} AS received,
    CAST(r.bytes AS TEXT) AS content
FROM quarantine r"""

    "checkpoints_readable",
    $"""SELECT r.job, e.name AS exchange, r.stream, {slug "m.id"} AS slug, m.name AS market,
    coalesce(k.name, '') AS token, {iso "r.since"} AS since, {iso "r.watermark"} AS watermark,
    r.rows, r.error, r.duration / 1e6 AS seconds, r.runs, r.total_rows, r.total_errors, r.state
FROM checkpoints r {ofMarket} LEFT JOIN token_keys k ON k.id = r.token"""

    "collection_metrics_readable",
    $"""SELECT k.name, k.labels, {iso "r.at"} AS at, r.value
FROM collection_metrics r JOIN metric_keys k ON k.id = r.metric"""
]

/// The version that these steps lead to.
let version = List.length steps

/// Takes a file from the version that it has to the last one, all of it or nothing.
let migrate (steps: string list) (views: (string * string) list) (db: Connection) =
    db.Execute "BEGIN IMMEDIATE"

    try
        let found = int (db.Number "PRAGMA user_version")

        if found < steps.Length then
            for name, _ in views do
                db.Execute $"DROP VIEW IF EXISTS {name}"

            for step in List.skip found steps do
                db.Execute step

            for name, query in views do
                db.Execute $"CREATE VIEW {name} AS\n{query}"

            db.Execute $"PRAGMA user_version = {steps.Length}; PRAGMA application_id = {ApplicationId}"

        db.Execute "COMMIT"
    with _ ->
        db.Rollback()
        reraise ()
