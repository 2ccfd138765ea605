-- Bars made from trades when they are asked for: the Apache edition keeps no aggregates up to date.
-- (The table bars holds the flow's own bars: these are a check on them, and longer intervals.)

CREATE OR REPLACE VIEW trade_bars_1m AS
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
GROUP BY 1, 2, 3;

CREATE OR REPLACE VIEW trade_bars_1d AS
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
GROUP BY 1, 2, 3;
