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

    """
-- The views say what their columns mean, quarantine shows bytes and content under the names of the table, and links have a view.
"""

    """
-- The views have words for the doubts of numbered books, and for books whose asks are another token's bids.
"""

    """
-- The account's own orders: every state that an order was in.
CREATE TABLE own_orders (
    exchange  INTEGER NOT NULL REFERENCES exchanges,
    order_id  TEXT NOT NULL,               -- the exchange's
    status    TEXT NOT NULL,               -- the exchange's word, in lower case
    filled    INTEGER NOT NULL,
    at        INTEGER NOT NULL,
    token     INTEGER NOT NULL REFERENCES token_keys,
    side      INTEGER NOT NULL,            -- 0 buy, 1 sell
    price     INTEGER NOT NULL,
    size      INTEGER NOT NULL,
    received  INTEGER NOT NULL,
    UNIQUE (exchange, order_id, status, filled, at)
) STRICT;

-- The account's own trades: every status that a trade went through.
CREATE TABLE own_trades (
    exchange          INTEGER NOT NULL REFERENCES exchanges,
    trade_id          TEXT NOT NULL,       -- the exchange's
    order_id          TEXT NOT NULL,       -- the exchange's
    status            TEXT NOT NULL,       -- the exchange's word, in lower case
    token             INTEGER NOT NULL REFERENCES token_keys,
    at                INTEGER NOT NULL,
    side              INTEGER NOT NULL,
    price             INTEGER NOT NULL,
    size              INTEGER NOT NULL,
    is_taker          INTEGER NOT NULL,
    transaction_hash  TEXT NOT NULL,       -- empty where there is none
    received          INTEGER NOT NULL,
    UNIQUE (exchange, trade_id, order_id, status, token)
) STRICT;

-- Outcomes of markets that answer the same question in the same way. The latest row of each counts. A token is of one market and one exchange.
CREATE TABLE market_matches (
    question      TEXT NOT NULL,
    answer        TEXT NOT NULL,
    token         INTEGER NOT NULL REFERENCES token_keys,
    at            INTEGER NOT NULL,
    is_withdrawn  INTEGER NOT NULL,
    UNIQUE (question, answer, token, at)
) STRICT;
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

/// A column of a view: its name, what it shows, and what that means, which stands behind it in the view's own text.
type Column = {
    Name: string
    Shows: string
    Meaning: string
}

type View = {
    Name: string
    /// What one row is.
    Row: string
    /// What makes a row itself: of rows that agree in these one is stored.
    Identity: string list
    Columns: Column list
    From: string
}

let private ofMarket =
    "JOIN market_keys m ON m.id = r.market JOIN exchanges e ON e.id = m.exchange"

let private ofToken =
    "JOIN token_keys k ON k.id = r.token JOIN market_keys m ON m.id = k.market JOIN exchanges e ON e.id = m.exchange"

let private column name shows meaning = {
    Name = name
    Shows = shows
    Meaning = meaning
}

/// A column that is shown as it is kept.
let private plain name meaning = column name $"r.{name}" meaning

let private number name meaning =
    column name (decimal $"r.{name}") meaning

let private time name meaning = column name (iso $"r.{name}") meaning

let private streams = Stream.all |> List.map string |> String.concat ", "
let private reasons = Reason.all |> List.map snd |> String.concat ", "
let private causes = Cause.all |> List.map string |> String.concat ", "

// ---- columns that several views have

let private exchange = column "exchange" "e.name" "the exchange, such as polymarket"
let private ofExchange = plain "exchange" exchange.Meaning

let private slugNow =
    column
        "slug"
        (slug "m.id")
        "the market's readable name, as it is now; null before the market was described"

let private market =
    column "market" "m.name" "the exchange's key of the market (Polymarket: its condition id)"

let private token = column "token" "k.name" "the exchange's key of the outcome"

let private tokenIfAny =
    column
        "token"
        "coalesce(k.name, '')"
        "the exchange's key of the outcome; empty when the whole market is meant"

let private outcome =
    column "outcome" "coalesce(k.outcome, '')" "the outcome's name, such as Yes; empty before it was told"

let private at = time "at" "when it happened, by the exchange's clock"

let private received =
    time "received" "when it was received, by the collector's clock"

let private price =
    number "price" "in the exchange's currency for one share: a probability"

let private sequence =
    plain "sequence" "the exchange's number of the message; null where it numbers none"

let private verdictOf =
    column "verdict" (verdict "r.verdict") "verified, unverifiable or mismatched"

let private doubtOf =
    let words = Doubt.all |> List.map snd |> List.filter ((<>) "") |> String.concat ", "
    column "doubt" (doubt "r.doubt") $"why it is not verified: {words}; empty when it is"

let private flagsOf =
    let words = Content.flagWords |> List.map snd |> String.concat ", "
    column "flags" (flags "r.flags") $"what was remarkable, separated by spaces: {words}"

let private trade = [
    exchange
    slugNow
    market
    token
    {
        outcome with
            Shows = "coalesce(r.outcome, k.outcome, '')"
    }
    column "side" (side "r.side") "the taker's: buy or sell"
    price
    number "size" "in shares"
    number
        "collateral"
        "the exact amount of the currency that was paid; null where the source does not say it"
    column
        "trade_id"
        "lower(hex(r.trade_id))"
        "made from the content of the fill: the same whoever reads it, and when"
    column
        "transaction_hash"
        (hexOrText "0x" "r.transaction_hash")
        "the transaction that settled it; empty where there is none"
    column
        "source"
        "CASE r.source WHEN 0 THEN 'api' WHEN 1 THEN 'stream' ELSE 'chain' END"
        "who told of it: api, stream or chain"
    at
    received
    flagsOf
]

/// The newest whole book of a token that nothing spoke against.
let private newestBook token =
    $"(SELECT s.rowid FROM orderbook_snapshots s WHERE s.token = {token} AND s.verdict <> 2 ORDER BY s.at DESC, s.hash DESC LIMIT 1)"

/// A match of which the latest word is that it is one.
let private stands row =
    $"{row}.is_withdrawn = 0 AND {row}.at = (SELECT max(l.at) FROM market_matches l WHERE l.question = {row}.question AND l.answer = {row}.answer AND l.token = {row}.token)"

/// One of the two sides of a spread: its names, and what its newest book has.
let private spreadSide side exchanges markets tokens book meaning = [
    column $"{side}_exchange" $"{exchanges}.name" meaning
    column $"{side}_market" $"{markets}.name" "the exchange's key of the market there"
    column $"{side}_token" $"{tokens}.name" "the exchange's key of the outcome there"
    column
        $"{side}_best_bid"
        (decimal $"{book}.best_bid")
        "the highest bid of the newest whole book there; null: none"
    column $"{side}_best_bid_size" (decimal $"{book}.best_bid_size") "in shares"
    column
        $"{side}_best_ask"
        (decimal $"{book}.best_ask")
        "the lowest ask of the newest whole book there; null: none"
    column $"{side}_best_ask_size" (decimal $"{book}.best_ask_size") "in shares"
    column $"{side}_at" (iso $"{book}.at") "when that book was so, by that exchange's clock"
]

let private tradesFrom = $"trades r JOIN token_keys k ON k.id = r.token {ofMarket}"

/// In the order of the data sets. They hold nothing, so they are made anew with every new version.
let views: View list = [
    {
        Name = "markets_readable"
        Row = "a version of a market's description; what did not change is not stored again"
        Identity = [ "exchange"; "market"; "at"; "version" ]
        Columns = [
            exchange
            market
            plain "event" "the event that the market is a part of"
            plain "slug" "the market's readable name in this version"
            plain "question" "what is asked"
            plain "outcomes" "JSON: [{\"name\":…,\"token\":… or null},…]"
            plain "tags" "JSON: the slugs of its tags"
            plain "status" "pending, open, closed or resolved"
            plain "accepts_orders" "whether orders are taken: 1 or 0"
            number "tick_size" "the smallest step of a price"
            number "minimum_size" "the least shares of an order"
            plain "neg_risk" "whether the event's outcomes exclude each other in one contract: 1 or 0"
            time "starts" "when trading begins"
            time "ends" "when the question is to be decided"
            time "closed" "when it was closed"
            plain "winner" "the outcome that won; empty before that"
            {
                at with
                    Meaning = "when the exchange changed it, or the first poll that saw it"
            }
            received
            column
                "version"
                "lower(hex(r.version))"
                "a hash of what is described, without volumes, liquidity and quotes"
            time "updated" "when the exchange says that it changed"
            plain "raw" "the description as it was sent, JSON"
        ]
        From = $"markets r {ofMarket}"
    }
    {
        Name = "market_stats_readable"
        Row = "what a market had been traded for, and holds, at a moment"
        Identity = [ "exchange"; "market"; "at" ]
        Columns = [
            exchange
            slugNow
            market
            at
            number "volume" "all that was traded so far, in the exchange's currency and its way of counting"
            number "liquidity" "in the exchange's currency and its way of counting"
            number "open_interest" "what all shares that exist are worth together, in the exchange's currency"
        ]
        From = $"market_stats r {ofMarket}"
    }
    {
        Name = "trades_readable"
        Row = "a sighting of a fill; several sources may have seen the same"
        Identity = [ "exchange"; "market"; "at"; "trade_id"; "source" ]
        Columns = trade
        From = tradesFrom
    }
    {
        Name = "trade_links_readable"
        Row = "two sightings that are one fill"
        Identity = [ "at"; "other_id"; "trade_id" ]
        Columns = [
            {
                at with
                    Meaning = "when the fill was, as the sighting that counts says it"
            }
            column "trade_id" "lower(hex(r.trade_id))" "the sighting that counts"
            column "other_id" "lower(hex(r.other_id))" "the other, which the view fills leaves out"
        ]
        From = "trade_links r"
    }
    // A sighting that is linked to a better one is left out, and so are the makers' parts of a fill, for the taker's row is all of it.
    {
        Name = "fills"
        Row = "a fill, once, whoever told of it"
        Identity = [ "exchange"; "market"; "at"; "trade_id"; "source" ]
        Columns =
            trade
            @ [
                column
                    "confirmed"
                    "r.source <> 1"
                    "1, or 0 when the stream alone told of it: it may never settle"
            ]
        From =
            $"{tradesFrom}\nWHERE r.flags & {int Flags.Maker} = 0 AND NOT EXISTS (SELECT 1 FROM trade_links l WHERE l.other_id = r.trade_id)"
    }
    {
        Name = "orderbook_snapshots_readable"
        Row = "a whole order book"
        Identity = [ "exchange"; "token"; "at"; "hash" ]
        Columns = [
            exchange
            slugNow
            market
            token
            outcome
            number "best_bid" "the highest price that is bid; null when there is no bid"
            number "best_bid_size" "in shares"
            number "best_ask" "the lowest price that is asked; null when there is no ask"
            number "best_ask_size" "in shares"
            column "mid" "(r.best_bid + r.best_ask) / 2e6" "between the best bid and the best ask"
            column "spread" "(r.best_ask - r.best_bid) / 1e6" "the best ask less the best bid"
            column
                "spread_bps"
                "(r.best_ask - r.best_bid) * 2e4 / (r.best_bid + r.best_ask)"
                "the spread in ten-thousandths of the mid"
            column "hash" (hexOrText "" "r.hash") "the exchange's hash of the book; empty where it sends none"
            sequence
            verdictOf
            doubtOf
            plain "reason" $"why it was stored: {reasons}"
            at
            received
            flagsOf
            column "bids" (levels "r.bids") "[[price,size],…], best first"
            column "asks" (levels "r.asks") "[[price,size],…], best first"
        ]
        From = $"orderbook_snapshots r {ofToken}"
    }
    {
        Name = "orderbook_deltas_readable"
        Row = "a level's new total; a book is the whole one before, and these in the order of at and ordinal"
        Identity = [ "exchange"; "token"; "at"; "ordinal"; "side"; "price" ]
        Columns = [
            exchange
            slugNow
            market
            token
            outcome
            at
            plain "ordinal" "its place among the changes of that token and moment"
            column "side" (side "r.side") "the side of the book: buy (bids) or sell (asks)"
            price
            number "size" "the shares that stand there now; 0: the level is gone"
            column "hash" (hexOrText "" "r.hash") "the exchange's hash of the book that results"
            sequence
            verdictOf
            doubtOf
            received
        ]
        From = $"orderbook_deltas r {ofToken}"
    }
    {
        Name = "gaps_readable"
        Row = "a hole, as one collector saw it"
        Identity = [ "collector"; "exchange"; "stream"; "market"; "token"; "since"; "cause" ]
        Columns = [
            plain "collector" "the configured name of the collector that saw it"
            exchange
            plain "stream" $"what is missing: {streams}"
            slugNow
            market
            tokenIfAny
            outcome
            plain "cause" $"why it is missing: {causes}"
            time "since" "the last moment that is proven good"
            time "until" "the first moment that is good again; null while the hole is open"
            column "seconds" "(r.until - r.since) / 1e6" "how long it is"
            time "healed_at" "when what was missing had been read after all; null: it was not"
            plain "healed_by" "by what"
        ]
        From = $"gaps r {ofMarket} LEFT JOIN token_keys k ON k.id = r.token"
    }
    {
        Name = "prices_readable"
        Row = "a price that the exchange keeps as history, without a trade"
        Identity = [ "exchange"; "token"; "at"; "kind" ]
        Columns = [
            exchange
            slugNow
            market
            token
            outcome
            at
            plain "kind" (PriceKind.all |> List.map snd |> String.concat " or ")
            price
            received
        ]
        From = $"prices r {ofToken}"
    }
    {
        Name = "own_orders_readable"
        Row = "a state that one of the account's own orders was in"
        Identity = [ "exchange"; "order_id"; "status"; "filled"; "at" ]
        Columns = [
            exchange
            slugNow
            market
            token
            outcome
            plain "order_id" "the exchange's id of the order"
            column "side" (side "r.side") "buy or sell"
            {
                price with
                    Meaning = "the limit, in the exchange's currency for one share"
            }
            number "size" "the shares that were ordered"
            number "filled" "how many of them are filled"
            plain "status" "the exchange's word for its state, in lower case, such as live or cancelled"
            {
                at with
                    Meaning = "when it came to be so, by the exchange's clock"
            }
            received
        ]
        From = $"own_orders r {ofToken}"
    }
    {
        Name = "own_trades_readable"
        Row = "a status that one of the account's own trades went through"
        Identity = [ "exchange"; "trade_id"; "order_id"; "status"; "token" ]
        Columns = [
            exchange
            slugNow
            market
            token
            outcome
            plain "trade_id" "the exchange's id of the trade"
            plain "order_id" "the account's order that was filled"
            column "side" (side "r.side") "the account's: buy or sell"
            {
                price with
                    Meaning = "what was paid for one share, in the exchange's currency"
            }
            number "size" "in shares"
            plain "is_taker" "1 when the account took liquidity, 0 when it made it"
            plain
                "status"
                "how far it has come, in the exchange's word and in lower case, such as matched or confirmed"
            plain "transaction_hash" "the transaction that settled it; empty where there is none"
            {
                at with
                    Meaning = "when it was matched, by the exchange's clock"
            }
            received
        ]
        From = $"own_trades r {ofToken}"
    }
    {
        Name = "market_matches_readable"
        Row = "an outcome that was confirmed to answer a question in a certain way, or is no longer said to"
        Identity = [ "exchange"; "question"; "answer"; "market"; "token"; "at" ]
        Columns = [
            plain "question" "the name of the question in the mapping"
            plain "answer" "the name of the answer in the mapping, such as yes"
            exchange
            slugNow
            market
            token
            outcome
            plain "is_withdrawn" "1 when the mapping does not say so any more, else 0; the latest row counts"
            {
                at with
                    Meaning = "when it was confirmed, or withdrawn"
            }
        ]
        From = $"market_matches r {ofToken}"
    }
    // The newest book of a token is found by the end of its key, and the latest word on a match by that of its own.
    {
        Name = "market_spreads"
        Row = "an answer that two exchanges trade: what selling it on one and buying it on the other brings"
        Identity = [ "question"; "answer"; "sell_token"; "buy_token" ]
        Columns =
            [
                plain "question" "the name of the question in the mapping"
                plain "answer" "the name of the answer in the mapping, such as yes"
            ]
            @ spreadSide "sell" "e" "m" "k" "b" "where it would be sold"
            @ spreadSide "buy" "oe" "om" "ok" "ob" "where it would be bought"
            @ [
                column
                    "spread"
                    "(b.best_bid - ob.best_ask) / 1e6"
                    "the best bid where it would be sold, less the best ask where it would be bought, before fees: above 0, the one is cheaper by so much; null while a side is empty"
            ]
        From =
            String.concat "\n" [
                $"market_matches r {ofToken}"
                "JOIN market_matches o ON o.question = r.question AND o.answer = r.answer AND o.token <> r.token"
                "JOIN token_keys ok ON ok.id = o.token JOIN market_keys om ON om.id = ok.market JOIN exchanges oe ON oe.id = om.exchange"
                "JOIN orderbook_snapshots b ON b.rowid = " + newestBook "r.token"
                "JOIN orderbook_snapshots ob ON ob.rowid = " + newestBook "o.token"
                "WHERE oe.id <> e.id AND " + stands "r" + " AND " + stands "o"
            ]
    }
    {
        Name = "quarantine_readable"
        Row = "bytes that could not be read, or a row that cannot be true"
        Identity = [ "content" ]
        Columns = [
            ofExchange
            plain "source" "what was asked, or where it came from"
            plain "position" "where in it the fault lies, in bytes"
            plain "reason" "what is wrong with it"
            received
            column "bytes" "CAST(r.bytes AS TEXT)" "what was received, as text"
            column "content" "lower(hex(r.content))" "a hash of exchange, reason and bytes"
        ]
        From = "quarantine r"
    }
    {
        Name = "checkpoints_readable"
        Row = "how far a job has come, written with its rows"
        Identity = [ "job" ]
        Columns = [
            plain "job" "the name of the job"
            exchange
            plain "stream" $"what it reads: {streams}"
            slugNow
            market
            tokenIfAny
            time "since" "what it covers begins here"
            time "watermark" "… and ends here"
            plain "rows" "of the last run"
            plain "error" "of the last run; empty: none"
            column "seconds" "r.duration / 1e6" "how long the last run took"
            plain "runs" "all of them"
            plain "total_rows" "of all runs"
            plain "total_errors" "of all runs"
            plain "state" "what the job needs to go on, in its own words"
        ]
        From = $"checkpoints r {ofMarket} LEFT JOIN token_keys k ON k.id = r.token"
    }
    {
        Name = "collection_metrics_readable"
        Row = "a counter or gauge of the collector at a moment"
        Identity = [ "name"; "labels"; "at" ]
        Columns = [
            column "name" "k.name" "of the counter or gauge"
            column "labels" "k.labels" "what it is counted by, as key=value"
            { at with Meaning = "when it was read" }
            plain "value" "since the collector started, of a counter"
        ]
        From = "collection_metrics r JOIN metric_keys k ON k.id = r.metric"
    }
]

/// The statement that makes a view.
let create (view: View) =
    let last = view.Columns.Length - 1

    let columns =
        view.Columns
        |> List.mapi (fun i column ->
            let comma = if i = last then "" else ","
            $"    {column.Shows} AS {column.Name}{comma} -- {column.Meaning}")
        |> String.concat "\n"

    $"CREATE VIEW {view.Name} AS -- a row is {view.Row}\nSELECT\n{columns}\nFROM {view.From}"

/// The version that these steps lead to.
let version = List.length steps

/// Takes a file from the version that it has to the last one, all of it or nothing.
let migrate (steps: string list) (views: View list) (db: Connection) =
    db.Execute "BEGIN IMMEDIATE"

    try
        let found = int (db.Number "PRAGMA user_version")

        if found < steps.Length then
            for view in views do
                db.Execute $"DROP VIEW IF EXISTS {view.Name}"

            for step in List.skip found steps do
                db.Execute step

            for view in views do
                db.Execute(create view)

            db.Execute $"PRAGMA user_version = {steps.Length}; PRAGMA application_id = {ApplicationId}"

        db.Execute "COMMIT"
    with _ ->
        db.Rollback()
        reraise ()
