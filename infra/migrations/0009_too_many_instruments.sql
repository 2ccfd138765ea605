-- A word for messages of an instrument beyond the cap.

CREATE OR REPLACE VIEW "dead_letters" AS SELECT
    "shard",
    "row_sequence",
    "ts_recv",
    (extract(epoch FROM "ts_recv") * 1000000)::bigint * 1000 + "ts_recv_ns" AS "ts_recv_epoch_ns",
    "feed",
    "partition",
    "offset",
    (ARRAY['truncated', 'malformed', 'unknown_message', 'unknown_instrument', 'bad_price', 'bad_size', 'negative_size', 'out_of_range', 'bad_timestamp', 'bad_side', 'bad_id', 'invalid_encoding', 'too_many_instruments'])["reason" + 1] AS "reason",
    "detail",
    "raw",
    ("ts_recv" AT TIME ZONE 'UTC')::date AS "date"
FROM store."dead_letters";
