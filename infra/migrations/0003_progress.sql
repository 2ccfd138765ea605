-- How far each run of each writer process has come: the sink updates its row in the transaction
-- that holds the rows it speaks of. "rows" is the next row_sequence by table and shard, "next" the
-- number of the next flush: whoever finds another number than it expects is not the only writer.

CREATE TABLE IF NOT EXISTS store.progress (
    run text NOT NULL,
    writer text NOT NULL,
    next bigint NOT NULL DEFAULT 0,
    rows jsonb NOT NULL DEFAULT '{}',
    started_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run, writer)
);
