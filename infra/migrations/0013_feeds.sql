-- A database knows its feeds: which run claimed which, what of it was read, and what it holds. A
-- claim is made before the first row; counts are noted by the transaction that holds the rows
-- ("feeds" in store.progress, by the number of the feed). A run lives while a session holds its lock.

CREATE TABLE IF NOT EXISTS store.runs (
    run text PRIMARY KEY,
    lock_key bigint NOT NULL,
    flow text NOT NULL,
    release text NOT NULL,
    settings jsonb NOT NULL,
    started timestamptz NOT NULL DEFAULT now(),
    ended timestamptz,
    complete boolean NOT NULL DEFAULT false,
    superseded boolean NOT NULL DEFAULT false
);

CREATE TABLE IF NOT EXISTS store.claims (
    number bigint NOT NULL,
    run text NOT NULL REFERENCES store.runs,
    digest text NOT NULL,
    identity text NOT NULL,
    source text NOT NULL,
    venue text,
    parts jsonb NOT NULL,
    position bigint NOT NULL,
    reached bigint,
    PRIMARY KEY (number, run)
);

ALTER TABLE store.progress ADD COLUMN IF NOT EXISTS feeds jsonb NOT NULL DEFAULT '{}';

CREATE OR REPLACE VIEW feeds AS SELECT
    c.number AS feed,
    c.source,
    c.venue,
    CASE WHEN r.complete THEN 'complete' WHEN EXISTS (
        SELECT FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database
        WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
        AND d.datname = current_database()
        AND ((l.classid::bigint << 32) | l.objid::bigint) = r.lock_key
    ) THEN 'running' ELSE 'cut off' END AS state,
    c.position AS first_position,
    c.reached AS last_position,
    timestamptz 'epoch' + h.first / 1000 * interval '1 microsecond' AS first_event,
    h.first AS first_event_epoch_ns,
    timestamptz 'epoch' + h.last / 1000 * interval '1 microsecond' AS last_event,
    h.last AS last_event_epoch_ns,
    coalesce(h.rows, '{}')::text AS rows,
    r.flow,
    r.release,
    r.settings::text AS settings,
    r.run,
    r.started,
    r.ended,
    c.identity,
    c.digest,
    c.parts::text AS parts
FROM store.claims AS c JOIN store.runs AS r USING (run)
LEFT JOIN LATERAL (
    SELECT min((p.feeds -> c.number::text ->> 'first')::bigint) AS first,
        max((p.feeds -> c.number::text ->> 'last')::bigint) AS last,
        (SELECT jsonb_object_agg(t.name, t.rows) FROM (
            SELECT e.key AS name, sum(e.value::bigint) AS rows
            FROM store.progress AS q, jsonb_each_text(q.feeds -> c.number::text -> 'rows') AS e
            GROUP BY e.key
        ) AS t) AS rows
    FROM store.progress AS p
) AS h ON true;
