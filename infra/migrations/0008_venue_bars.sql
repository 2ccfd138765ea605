-- Bars of the venue beside our own, and what it does not tell of them. Rows older than the column
-- are of trades, which the view says. The view's columns keep the order of the lake's.

ALTER TABLE store."bars" ADD COLUMN IF NOT EXISTS "origin" smallint;
ALTER TABLE store."bars" ALTER COLUMN "notional" DROP NOT NULL;
ALTER TABLE store."bars" ALTER COLUMN "trade_count" DROP NOT NULL;
ALTER TABLE store."bars" ALTER COLUMN "buy_volume" DROP NOT NULL;
ALTER TABLE store."bars" ALTER COLUMN "sell_volume" DROP NOT NULL;

DROP VIEW IF EXISTS "bars";

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
    (ARRAY['trades', 'venue'])[coalesce("origin", 0) + 1] AS "origin",
    ("ts_open" AT TIME ZONE 'UTC')::date AS "date"
FROM store."bars";
