-- The tables as they are stored: what COPY BINARY loads fastest (schemas/sql.py says why), each a
-- hypertable by its time, with one index. Users read the views of 0002.

CREATE TABLE IF NOT EXISTS store."book_events" (
    "shard" smallint NOT NULL,
    "row_sequence" bigint NOT NULL,
    "ts_event" timestamptz NOT NULL,
    "ts_event_ns" smallint NOT NULL,
    "ts_recv" timestamptz,
    "ts_recv_ns" smallint,
    "venue" text NOT NULL,
    "symbol" text NOT NULL,
    "sequence" bigint,
    "action" smallint NOT NULL,
    "side" smallint NOT NULL,
    "price" numeric(28,12),
    "size" numeric(28,12),
    "order_id" text,
    "flags" smallint NOT NULL
);

SELECT create_hypertable('store.book_events', by_range('ts_event', INTERVAL '4 hours'), create_default_indexes => false, if_not_exists => true);

CREATE INDEX IF NOT EXISTS "book_events_symbol_ts_event" ON store."book_events" ("symbol", "ts_event");

CREATE TABLE IF NOT EXISTS store."trades" (
    "shard" smallint NOT NULL,
    "row_sequence" bigint NOT NULL,
    "ts_event" timestamptz NOT NULL,
    "ts_event_ns" smallint NOT NULL,
    "ts_recv" timestamptz,
    "ts_recv_ns" smallint,
    "venue" text NOT NULL,
    "symbol" text NOT NULL,
    "price" numeric(28,12) NOT NULL,
    "size" numeric(28,12) NOT NULL,
    "notional" numeric(38,12) NOT NULL,
    "aggressor_side" smallint NOT NULL,
    "trade_id" text,
    "sequence" bigint,
    "status" smallint NOT NULL
);

SELECT create_hypertable('store.trades', by_range('ts_event', INTERVAL '1 day'), create_default_indexes => false, if_not_exists => true);

CREATE INDEX IF NOT EXISTS "trades_symbol_ts_event" ON store."trades" ("symbol", "ts_event");

CREATE TABLE IF NOT EXISTS store."quotes" (
    "shard" smallint NOT NULL,
    "row_sequence" bigint NOT NULL,
    "ts_event" timestamptz NOT NULL,
    "ts_event_ns" smallint NOT NULL,
    "ts_recv" timestamptz,
    "ts_recv_ns" smallint,
    "venue" text NOT NULL,
    "symbol" text NOT NULL,
    "bid_price" numeric(28,12),
    "bid_size" numeric(28,12),
    "ask_price" numeric(28,12),
    "ask_size" numeric(28,12),
    "sequence" bigint,
    "origin" smallint NOT NULL,
    "book_state" smallint NOT NULL
);

SELECT create_hypertable('store.quotes', by_range('ts_event', INTERVAL '4 hours'), create_default_indexes => false, if_not_exists => true);

CREATE INDEX IF NOT EXISTS "quotes_symbol_ts_event" ON store."quotes" ("symbol", "ts_event");

CREATE TABLE IF NOT EXISTS store."depth" (
    "shard" smallint NOT NULL,
    "row_sequence" bigint NOT NULL,
    "ts_event" timestamptz NOT NULL,
    "ts_event_ns" smallint NOT NULL,
    "venue" text NOT NULL,
    "symbol" text NOT NULL,
    "sequence" bigint,
    "book_state" smallint NOT NULL,
    "bid_prices" numeric(28,12)[] NOT NULL,
    "bid_sizes" numeric(28,12)[] NOT NULL,
    "bid_counts" integer[] NOT NULL,
    "ask_prices" numeric(28,12)[] NOT NULL,
    "ask_sizes" numeric(28,12)[] NOT NULL,
    "ask_counts" integer[] NOT NULL
);

SELECT create_hypertable('store.depth', by_range('ts_event', INTERVAL '4 hours'), create_default_indexes => false, if_not_exists => true);

CREATE INDEX IF NOT EXISTS "depth_symbol_ts_event" ON store."depth" ("symbol", "ts_event");

CREATE TABLE IF NOT EXISTS store."bars" (
    "shard" smallint NOT NULL,
    "row_sequence" bigint NOT NULL,
    "ts_open" timestamptz NOT NULL,
    "ts_open_ns" smallint NOT NULL,
    "ts_close" timestamptz NOT NULL,
    "ts_close_ns" smallint NOT NULL,
    "venue" text NOT NULL,
    "symbol" text NOT NULL,
    "interval" text NOT NULL,
    "open" numeric(28,12) NOT NULL,
    "high" numeric(28,12) NOT NULL,
    "low" numeric(28,12) NOT NULL,
    "close" numeric(28,12) NOT NULL,
    "volume" numeric(38,12) NOT NULL,
    "notional" numeric(38,12) NOT NULL,
    "trade_count" bigint NOT NULL,
    "buy_volume" numeric(38,12) NOT NULL,
    "sell_volume" numeric(38,12) NOT NULL,
    "is_final" boolean NOT NULL
);

SELECT create_hypertable('store.bars', by_range('ts_open', INTERVAL '1 day'), create_default_indexes => false, if_not_exists => true);

CREATE INDEX IF NOT EXISTS "bars_symbol_interval_ts_open" ON store."bars" ("symbol", "interval", "ts_open");

CREATE TABLE IF NOT EXISTS store."market_status" (
    "shard" smallint NOT NULL,
    "row_sequence" bigint NOT NULL,
    "ts_event" timestamptz NOT NULL,
    "ts_event_ns" smallint NOT NULL,
    "ts_recv" timestamptz,
    "ts_recv_ns" smallint,
    "venue" text NOT NULL,
    "symbol" text NOT NULL,
    "status" smallint NOT NULL,
    "reason" text,
    "sequence" bigint
);

SELECT create_hypertable('store.market_status', by_range('ts_event', INTERVAL '7 days'), create_default_indexes => false, if_not_exists => true);

CREATE INDEX IF NOT EXISTS "market_status_symbol_ts_event" ON store."market_status" ("symbol", "ts_event");

CREATE TABLE IF NOT EXISTS store."imbalances" (
    "shard" smallint NOT NULL,
    "row_sequence" bigint NOT NULL,
    "ts_event" timestamptz NOT NULL,
    "ts_event_ns" smallint NOT NULL,
    "ts_recv" timestamptz,
    "ts_recv_ns" smallint,
    "venue" text NOT NULL,
    "symbol" text NOT NULL,
    "side" smallint NOT NULL,
    "paired_size" numeric(28,12),
    "imbalance_size" numeric(28,12),
    "reference_price" numeric(28,12),
    "far_price" numeric(28,12),
    "near_price" numeric(28,12),
    "cross_type" text,
    "sequence" bigint
);

SELECT create_hypertable('store.imbalances', by_range('ts_event', INTERVAL '7 days'), create_default_indexes => false, if_not_exists => true);

CREATE INDEX IF NOT EXISTS "imbalances_symbol_ts_event" ON store."imbalances" ("symbol", "ts_event");

CREATE TABLE IF NOT EXISTS store."statistics" (
    "shard" smallint NOT NULL,
    "row_sequence" bigint NOT NULL,
    "ts_event" timestamptz NOT NULL,
    "ts_event_ns" smallint NOT NULL,
    "ts_recv" timestamptz,
    "ts_recv_ns" smallint,
    "venue" text NOT NULL,
    "symbol" text NOT NULL,
    "kind" text NOT NULL,
    "value" numeric(28,12),
    "text" text,
    "sequence" bigint
);

SELECT create_hypertable('store.statistics', by_range('ts_event', INTERVAL '7 days'), create_default_indexes => false, if_not_exists => true);

CREATE INDEX IF NOT EXISTS "statistics_symbol_ts_event" ON store."statistics" ("symbol", "ts_event");

CREATE TABLE IF NOT EXISTS store."funding" (
    "shard" smallint NOT NULL,
    "row_sequence" bigint NOT NULL,
    "ts_event" timestamptz NOT NULL,
    "ts_event_ns" smallint NOT NULL,
    "ts_recv" timestamptz,
    "ts_recv_ns" smallint,
    "venue" text NOT NULL,
    "symbol" text NOT NULL,
    "rate" numeric(28,12),
    "ts_next" timestamptz,
    "ts_next_ns" smallint,
    "mark_price" numeric(28,12),
    "index_price" numeric(28,12),
    "sequence" bigint
);

SELECT create_hypertable('store.funding', by_range('ts_event', INTERVAL '7 days'), create_default_indexes => false, if_not_exists => true);

CREATE INDEX IF NOT EXISTS "funding_symbol_ts_event" ON store."funding" ("symbol", "ts_event");

CREATE TABLE IF NOT EXISTS store."instruments" (
    "shard" smallint NOT NULL,
    "row_sequence" bigint NOT NULL,
    "ts_event" timestamptz NOT NULL,
    "ts_event_ns" smallint NOT NULL,
    "ts_recv" timestamptz,
    "ts_recv_ns" smallint,
    "venue" text NOT NULL,
    "symbol" text NOT NULL,
    "instrument_id" text,
    "price_increment" numeric(28,12),
    "size_increment" numeric(28,12),
    "contract_multiplier" numeric(28,12),
    "is_inverse" boolean,
    "base_currency" text,
    "quote_currency" text,
    "settlement_currency" text,
    "status" smallint NOT NULL
);

SELECT create_hypertable('store.instruments', by_range('ts_event', INTERVAL '7 days'), create_default_indexes => false, if_not_exists => true);

CREATE INDEX IF NOT EXISTS "instruments_symbol_ts_event" ON store."instruments" ("symbol", "ts_event");

CREATE TABLE IF NOT EXISTS store."quality_events" (
    "shard" smallint NOT NULL,
    "row_sequence" bigint NOT NULL,
    "ts_event" timestamptz NOT NULL,
    "ts_event_ns" smallint NOT NULL,
    "ts_recv" timestamptz,
    "ts_recv_ns" smallint,
    "venue" text NOT NULL,
    "symbol" text NOT NULL,
    "kind" smallint NOT NULL,
    "sequence_from" bigint,
    "sequence_to" bigint,
    "ts_until" timestamptz,
    "ts_until_ns" smallint,
    "value" bigint,
    "expected" bigint,
    "cause_id" bigint
);

SELECT create_hypertable('store.quality_events', by_range('ts_event', INTERVAL '7 days'), create_default_indexes => false, if_not_exists => true);

CREATE INDEX IF NOT EXISTS "quality_events_symbol_ts_event" ON store."quality_events" ("symbol", "ts_event");

CREATE TABLE IF NOT EXISTS store."dead_letters" (
    "shard" smallint NOT NULL,
    "row_sequence" bigint NOT NULL,
    "ts_recv" timestamptz NOT NULL,
    "ts_recv_ns" smallint NOT NULL,
    "feed" text NOT NULL,
    "partition" integer NOT NULL,
    "offset" bigint NOT NULL,
    "reason" smallint NOT NULL,
    "detail" text NOT NULL,
    "raw" bytea NOT NULL
);

SELECT create_hypertable('store.dead_letters', by_range('ts_recv', INTERVAL '7 days'), create_default_indexes => false, if_not_exists => true);

CREATE INDEX IF NOT EXISTS "dead_letters_ts_recv" ON store."dead_letters" ("ts_recv");
