-- A row's shard is the number of its feed and of the shard within it (64 bits), and no longer counted
-- within a run. Rows of releases before get numbers of feeds that nobody knows, in the same order,
-- as a lake's do. A row that is there twice by its identity is refused: two runs have written into
-- this database, and nobody can tell their rows apart any more.

DO $$
DECLARE
    stored record;
    view_text text;
    doubled bigint;
BEGIN
    FOR stored IN
        SELECT c.relname AS name, c.oid AS id FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'shard'
        WHERE n.nspname = 'store' AND c.relkind = 'r' AND a.atttypid = 'smallint'::regtype
        ORDER BY 1
    LOOP
        EXECUTE format('SELECT count(*) FROM (SELECT FROM store.%I GROUP BY shard, row_sequence HAVING count(*) > 1) twice', stored.name) INTO doubled;
        IF doubled > 0 THEN
            RAISE EXCEPTION 'store.% holds % rows twice by shard and row_sequence: several runs wrote into this database; make a new one and load each source into it again', stored.name, doubled;
        END IF;
        SELECT definition INTO view_text FROM pg_views
            WHERE viewname = stored.name AND schemaname = current_schema();
        IF view_text IS NOT NULL THEN
            EXECUTE format('DROP VIEW %I', stored.name);
        END IF;
        EXECUTE format('ALTER TABLE store.%I ALTER COLUMN shard TYPE bigint USING CASE WHEN shard >= 0 THEN 4503599627370496 + shard ELSE -1 - (4503599627370496 + ((-1 - shard)::bigint << 10)) END', stored.name);
        IF view_text IS NOT NULL THEN
            EXECUTE format('CREATE VIEW %I AS %s', stored.name, view_text);
        END IF;
    END LOOP;
END $$;
