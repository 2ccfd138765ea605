-- The tables as users read them: names and columns of the lake's views, codes as words, exact
-- nanoseconds in <time>_epoch_ns. Filter on the time itself: it leads to chunks and indexes.

CREATE OR REPLACE VIEW "book_events" AS SELECT
    "shard",
    "row_sequence",
    "ts_event",
    (extract(epoch FROM "ts_event") * 1000000)::bigint * 1000 + "ts_event_ns" AS "ts_event_epoch_ns",
    "ts_recv",
    (extract(epoch FROM "ts_recv") * 1000000)::bigint * 1000 + "ts_recv_ns" AS "ts_recv_epoch_ns",
    "venue",
    "symbol",
    "sequence",
    (ARRAY['add', 'modify', 'cancel', 'execute', 'clear'])["action" + 1] AS "action",
    (ARRAY['none', 'bid', 'ask'])["side" + 1] AS "side",
    "price",
    "size",
    "order_id",
    "flags",
    ("ts_event" AT TIME ZONE 'UTC')::date AS "date"
FROM store."book_events";

CREATE OR REPLACE VIEW "trades" AS SELECT
    "shard",
    "row_sequence",
    "ts_event",
    (extract(epoch FROM "ts_event") * 1000000)::bigint * 1000 + "ts_event_ns" AS "ts_event_epoch_ns",
    "ts_recv",
    (extract(epoch FROM "ts_recv") * 1000000)::bigint * 1000 + "ts_recv_ns" AS "ts_recv_epoch_ns",
    "venue",
    "symbol",
    "price",
    "size",
    "notional",
    (ARRAY['none', 'buy', 'sell'])["aggressor_side" + 1] AS "aggressor_side",
    "trade_id",
    "sequence",
    (ARRAY['normal', 'bust', 'correction'])["status" + 1] AS "status",
    ("ts_event" AT TIME ZONE 'UTC')::date AS "date"
FROM store."trades";

CREATE OR REPLACE VIEW "quotes" AS SELECT
    "shard",
    "row_sequence",
    "ts_event",
    (extract(epoch FROM "ts_event") * 1000000)::bigint * 1000 + "ts_event_ns" AS "ts_event_epoch_ns",
    "ts_recv",
    (extract(epoch FROM "ts_recv") * 1000000)::bigint * 1000 + "ts_recv_ns" AS "ts_recv_epoch_ns",
    "venue",
    "symbol",
    "bid_price",
    "bid_size",
    "ask_price",
    "ask_size",
    "sequence",
    (ARRAY['book', 'venue'])["origin" + 1] AS "origin",
    (ARRAY['valid', 'stale', 'crossed', 'locked', 'one_sided', 'empty'])["book_state" + 1] AS "book_state",
    ("ts_event" AT TIME ZONE 'UTC')::date AS "date"
FROM store."quotes";

CREATE OR REPLACE VIEW "depth" AS SELECT
    "shard",
    "row_sequence",
    "ts_event",
    (extract(epoch FROM "ts_event") * 1000000)::bigint * 1000 + "ts_event_ns" AS "ts_event_epoch_ns",
    "venue",
    "symbol",
    "sequence",
    (ARRAY['valid', 'stale', 'crossed', 'locked', 'one_sided', 'empty'])["book_state" + 1] AS "book_state",
    "bid_prices",
    "bid_sizes",
    "bid_counts",
    "ask_prices",
    "ask_sizes",
    "ask_counts",
    ("ts_event" AT TIME ZONE 'UTC')::date AS "date"
FROM store."depth";

CREATE OR REPLACE VIEW "bars" AS SELECT
    "shard",
    "row_sequence",
    "ts_open",
    (extract(epoch FROM "ts_open") * 1000000)::bigint * 1000 + "ts_open_ns" AS "ts_open_epoch_ns",
    "ts_close",
    (extract(epoch FROM "ts_close") * 1000000)::bigint * 1000 + "ts_close_ns" AS "ts_close_epoch_ns",
    "venue",
    "symbol",
    "interval",
    "open",
    "high",
    "low",
    "close",
    "volume",
    "notional",
    "trade_count",
    "buy_volume",
    "sell_volume",
    "is_final",
    ("ts_open" AT TIME ZONE 'UTC')::date AS "date"
FROM store."bars";

CREATE OR REPLACE VIEW "market_status" AS SELECT
    "shard",
    "row_sequence",
    "ts_event",
    (extract(epoch FROM "ts_event") * 1000000)::bigint * 1000 + "ts_event_ns" AS "ts_event_epoch_ns",
    "ts_recv",
    (extract(epoch FROM "ts_recv") * 1000000)::bigint * 1000 + "ts_recv_ns" AS "ts_recv_epoch_ns",
    "venue",
    "symbol",
    (ARRAY['unknown', 'pre_open', 'open', 'halted', 'paused', 'quoting', 'auction', 'closed', 'post_close', 'suspended', 'delisted', 'short_sale_restricted', 'short_sale_allowed'])["status" + 1] AS "status",
    "reason",
    "sequence",
    ("ts_event" AT TIME ZONE 'UTC')::date AS "date"
FROM store."market_status";

CREATE OR REPLACE VIEW "imbalances" AS SELECT
    "shard",
    "row_sequence",
    "ts_event",
    (extract(epoch FROM "ts_event") * 1000000)::bigint * 1000 + "ts_event_ns" AS "ts_event_epoch_ns",
    "ts_recv",
    (extract(epoch FROM "ts_recv") * 1000000)::bigint * 1000 + "ts_recv_ns" AS "ts_recv_epoch_ns",
    "venue",
    "symbol",
    (ARRAY['none', 'bid', 'ask'])["side" + 1] AS "side",
    "paired_size",
    "imbalance_size",
    "reference_price",
    "far_price",
    "near_price",
    "cross_type",
    "sequence",
    ("ts_event" AT TIME ZONE 'UTC')::date AS "date"
FROM store."imbalances";

CREATE OR REPLACE VIEW "statistics" AS SELECT
    "shard",
    "row_sequence",
    "ts_event",
    (extract(epoch FROM "ts_event") * 1000000)::bigint * 1000 + "ts_event_ns" AS "ts_event_epoch_ns",
    "ts_recv",
    (extract(epoch FROM "ts_recv") * 1000000)::bigint * 1000 + "ts_recv_ns" AS "ts_recv_epoch_ns",
    "venue",
    "symbol",
    "kind",
    "value",
    "text",
    "sequence",
    ("ts_event" AT TIME ZONE 'UTC')::date AS "date"
FROM store."statistics";

CREATE OR REPLACE VIEW "funding" AS SELECT
    "shard",
    "row_sequence",
    "ts_event",
    (extract(epoch FROM "ts_event") * 1000000)::bigint * 1000 + "ts_event_ns" AS "ts_event_epoch_ns",
    "ts_recv",
    (extract(epoch FROM "ts_recv") * 1000000)::bigint * 1000 + "ts_recv_ns" AS "ts_recv_epoch_ns",
    "venue",
    "symbol",
    "rate",
    "ts_next",
    (extract(epoch FROM "ts_next") * 1000000)::bigint * 1000 + "ts_next_ns" AS "ts_next_epoch_ns",
    "mark_price",
    "index_price",
    "sequence",
    ("ts_event" AT TIME ZONE 'UTC')::date AS "date"
FROM store."funding";

CREATE OR REPLACE VIEW "instruments" AS SELECT
    "shard",
    "row_sequence",
    "ts_event",
    (extract(epoch FROM "ts_event") * 1000000)::bigint * 1000 + "ts_event_ns" AS "ts_event_epoch_ns",
    "ts_recv",
    (extract(epoch FROM "ts_recv") * 1000000)::bigint * 1000 + "ts_recv_ns" AS "ts_recv_epoch_ns",
    "venue",
    "symbol",
    "instrument_id",
    "price_increment",
    "size_increment",
    "contract_multiplier",
    "is_inverse",
    "base_currency",
    "quote_currency",
    "settlement_currency",
    (ARRAY['unknown', 'pre_open', 'open', 'halted', 'paused', 'quoting', 'auction', 'closed', 'post_close', 'suspended', 'delisted', 'short_sale_restricted', 'short_sale_allowed'])["status" + 1] AS "status",
    ("ts_event" AT TIME ZONE 'UTC')::date AS "date"
FROM store."instruments";

CREATE OR REPLACE VIEW "quality_events" AS SELECT
    "shard",
    "row_sequence",
    "ts_event",
    (extract(epoch FROM "ts_event") * 1000000)::bigint * 1000 + "ts_event_ns" AS "ts_event_epoch_ns",
    "ts_recv",
    (extract(epoch FROM "ts_recv") * 1000000)::bigint * 1000 + "ts_recv_ns" AS "ts_recv_epoch_ns",
    "venue",
    "symbol",
    (ARRAY['gap', 'duplicate', 'out_of_order', 'unknown_order', 'bad_checksum', 'crossed', 'locked', 'no_op', 'late', 'clock_skew', 'bbo_mismatch', 'stale', 'valid', 'no_snapshot', 'capacity', 'late_trade', 'incomplete_group', 'depth_truncated', 'disconnect'])["kind" + 1] AS "kind",
    "sequence_from",
    "sequence_to",
    "ts_until",
    (extract(epoch FROM "ts_until") * 1000000)::bigint * 1000 + "ts_until_ns" AS "ts_until_epoch_ns",
    "value",
    "expected",
    "cause_id",
    ("ts_event" AT TIME ZONE 'UTC')::date AS "date"
FROM store."quality_events";

CREATE OR REPLACE VIEW "dead_letters" AS SELECT
    "shard",
    "row_sequence",
    "ts_recv",
    (extract(epoch FROM "ts_recv") * 1000000)::bigint * 1000 + "ts_recv_ns" AS "ts_recv_epoch_ns",
    "feed",
    "partition",
    "offset",
    (ARRAY['truncated', 'malformed', 'unknown_message', 'unknown_instrument', 'bad_price', 'bad_size', 'negative_size', 'out_of_range', 'bad_timestamp', 'bad_side', 'bad_id', 'invalid_encoding'])["reason" + 1] AS "reason",
    "detail",
    "raw",
    ("ts_recv" AT TIME ZONE 'UTC')::date AS "date"
FROM store."dead_letters";
