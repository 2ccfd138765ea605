-- marketflow: no transaction
-- The bars from trades of all times that are loaded, whenever that is. What lies before a
-- continuous aggregate's newest refresh is shown only where it was refreshed itself, so a policy of
-- the last days loses files of older ones, back-fills and what --replace puts in. The policies now
-- reach back to the first trade; each run makes anew only what has changed. Days are refreshed as
-- often as minutes, because they are made from them. What has been missing is made here. Nothing is
-- refreshed to its open end: that bar would stand still until the policy comes to it.

SELECT remove_continuous_aggregate_policy('trade_bars_1d', if_exists => true);

SELECT remove_continuous_aggregate_policy('trade_bars_1m', if_exists => true);

CALL refresh_continuous_aggregate('trade_bars_1m', NULL, now() - interval '2 minutes');

CALL refresh_continuous_aggregate('trade_bars_1d', NULL, now() - interval '1 day');

SELECT add_continuous_aggregate_policy('trade_bars_1m', start_offset => NULL, end_offset => interval '2 minutes', schedule_interval => interval '1 minute', if_not_exists => true);

SELECT add_continuous_aggregate_policy('trade_bars_1d', start_offset => NULL, end_offset => interval '1 day', schedule_interval => interval '1 minute', if_not_exists => true);
