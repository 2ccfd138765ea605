-- marketflow: no transaction
-- Bars made from trades, kept up to date by the server: continuous aggregates, the second on the
-- first, the newest minutes computed when they are asked for. The columns of the Apache edition's
-- plain views, which go if the database had them before its edition changed.

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['trade_bars_1d', 'trade_bars_1m'] LOOP
        IF to_regclass(name) IS NOT NULL AND NOT EXISTS (
            SELECT FROM timescaledb_information.continuous_aggregates WHERE view_name = name
        ) THEN
            EXECUTE format('DROP VIEW %I', name);
        END IF;
    END LOOP;
END
$$;

CREATE MATERIALIZED VIEW IF NOT EXISTS trade_bars_1m
WITH (timescaledb.continuous, timescaledb.materialized_only=false) AS
SELECT
    venue,
    symbol,
    time_bucket('1 minute', ts_event) AS ts_open,
    first(price, (ts_event, ts_event_ns, row_sequence)) AS open,
    max(price) AS high,
    min(price) AS low,
    last(price, (ts_event, ts_event_ns, row_sequence)) AS close,
    sum(size) AS volume,
    sum(notional) AS notional,
    count(*) AS trade_count
FROM store.trades
WHERE status = 0
GROUP BY 1, 2, 3
WITH NO DATA;

CREATE MATERIALIZED VIEW IF NOT EXISTS trade_bars_1d
WITH (timescaledb.continuous, timescaledb.materialized_only=false) AS
SELECT
    venue,
    symbol,
    time_bucket('1 day', ts_open) AS ts_open,
    first(open, ts_open) AS open,
    max(high) AS high,
    min(low) AS low,
    last(close, ts_open) AS close,
    sum(volume) AS volume,
    sum(notional) AS notional,
    sum(trade_count) AS trade_count
FROM trade_bars_1m
GROUP BY 1, 2, 3
WITH NO DATA;

CALL refresh_continuous_aggregate('trade_bars_1m', NULL, NULL);

CALL refresh_continuous_aggregate('trade_bars_1d', NULL, NULL);

SELECT add_continuous_aggregate_policy('trade_bars_1m', start_offset => interval '7 days', end_offset => interval '2 minutes', schedule_interval => interval '1 minute', if_not_exists => true);

SELECT add_continuous_aggregate_policy('trade_bars_1d', start_offset => interval '30 days', end_offset => interval '1 day', schedule_interval => interval '1 hour', if_not_exists => true);
