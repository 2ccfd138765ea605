-- Redundant lines have words of their own among the kinds of quality events.

CREATE OR REPLACE VIEW "quality_events" AS SELECT
    "shard",
    "row_sequence",
    "ts_event",
    (extract(epoch FROM "ts_event") * 1000000)::bigint * 1000 + "ts_event_ns" AS "ts_event_epoch_ns",
    "ts_recv",
    (extract(epoch FROM "ts_recv") * 1000000)::bigint * 1000 + "ts_recv_ns" AS "ts_recv_epoch_ns",
    "venue",
    "symbol",
    (ARRAY['gap', 'duplicate', 'out_of_order', 'unknown_order', 'bad_checksum', 'crossed', 'locked', 'no_op', 'late', 'clock_skew', 'bbo_mismatch', 'stale', 'valid', 'no_snapshot', 'capacity', 'late_trade', 'incomplete_group', 'depth_truncated', 'disconnect', 'line_down', 'line_lagging', 'line_recovered'])["kind" + 1] AS "kind",
    "sequence_from",
    "sequence_to",
    "ts_until",
    (extract(epoch FROM "ts_until") * 1000000)::bigint * 1000 + "ts_until_ns" AS "ts_until_epoch_ns",
    "value",
    "expected",
    "cause_id",
    ("ts_event" AT TIME ZONE 'UTC')::date AS "date"
FROM store."quality_events";
