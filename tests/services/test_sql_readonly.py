"""A query over a database only reads: a page of attempts at anything else, on a real server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import marketflow as mf
from marketflow.flows.errors import RunFailed, UsageError
from marketflow.flows.queries.database import query_database
from marketflow.infra.migrate import migrate
from marketflow.infra.reader import ROLE, power
from marketflow.infra.services.timescale import Timescale
from marketflow.schemas.tables import TABLES
from marketflow.sinks.timescale.dsn import with_login
from tests.support.services.dsn import replace_password
from tests.support.services.local import new_database, reader_of

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def places(timescale: Timescale) -> Iterator[tuple[str, str]]:
    """DSNs of a database for its owner and for the login that only reads."""
    timescale.up(print)
    with new_database(timescale) as owner:
        migrate(owner, TABLES)
        with psycopg.connect(owner, autocommit=True) as connection:
            connection.execute("CREATE SEQUENCE numbers")
            connection.execute("GRANT ALL ON SEQUENCE numbers TO PUBLIC")
            # Worse than ours: whoever may read may write here.
            connection.execute("CREATE TABLE notes (a int)")
            connection.execute("INSERT INTO notes VALUES (1)")
            connection.execute(
                "CREATE FUNCTION writes() RETURNS int LANGUAGE sql SECURITY DEFINER AS "
                "'INSERT INTO notes VALUES (2) RETURNING a'"
            )
        yield owner, reader_of(timescale, owner)


def state(owner: str) -> list[Any]:
    """What an attempt could have changed."""
    with psycopg.connect(owner) as connection:
        return [
            connection.execute(query).fetchall()
            for query in (
                "SELECT relname FROM pg_class c WHERE relnamespace::regnamespace::text !~ '^pg_' "
                "ORDER BY 1",
                "SELECT last_value, is_called FROM numbers",
                "SELECT a FROM notes",
                "SELECT count(*) FROM pg_largeobject_metadata",
                "SELECT setconfig FROM pg_db_role_setting ORDER BY 1",
                "SELECT extname FROM pg_extension ORDER BY 1",
                # The server's own workers take such locks too, whenever they like.
                "SELECT count(*) FROM pg_locks JOIN pg_stat_activity a USING (pid) WHERE "
                "locktype = 'advisory' AND backend_type = 'client backend' "
                "AND a.datname = current_database()",
                "SELECT rolname, rolsuper, rolpassword FROM pg_authid ORDER BY 1",
            )
        ]


ATTEMPTS = [
    # Writing rows and tables.
    "DELETE FROM store.trades",
    "INSERT INTO notes VALUES (3)",
    "UPDATE notes SET a = 3",
    "TRUNCATE notes",
    "MERGE INTO notes USING trades ON false WHEN NOT MATCHED THEN INSERT VALUES (3)",
    "WITH x AS (INSERT INTO notes VALUES (3) RETURNING a) SELECT * FROM x",
    "WITH x AS (DELETE FROM store.trades RETURNING 1) SELECT * FROM x",
    "SELECT 1 AS a INTO loot",
    "SELECT * INTO TEMP loot FROM trades",
    "CREATE TABLE loot AS SELECT 1",
    "CREATE TEMP TABLE loot (a int)",
    "EXPLAIN ANALYZE CREATE TABLE loot AS SELECT 1",
    "EXPLAIN (ANALYZE) CREATE TABLE loot AS SELECT 1",
    "EXPLAIN (ANALYZE, FORMAT JSON) CREATE TABLE public.loot AS SELECT 1",
    "explain/**/analyze--\ncreate temp table loot as select 1",
    "EXPLAIN ANALYZE SELECT 1 AS a INTO loot",
    "EXPLAIN ANALYZE WITH x AS (INSERT INTO notes VALUES (3) RETURNING a) SELECT * FROM x",
    "EXPLAIN ANALYZE INSERT INTO notes VALUES (3)",
    "EXPLAIN ANALYZE DELETE FROM notes",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '/tmp/loot'",
    "EXPLAIN ANALYZE EXECUTE x",
    "EXPLAIN ANALYZE REFRESH MATERIALIZED VIEW x",
    "SELECT * FROM notes FOR UPDATE",
    "SELECT symbol FROM trades FOR SHARE",
    "DROP VIEW trades",
    "ALTER ROLE marketflow_reader SUPERUSER",
    "CREATE EXTENSION dblink",
    "COMMENT ON VIEW trades IS 'x'",
    # Files and programs of the server.
    "COPY (SELECT 1) TO '/tmp/loot'",
    "COPY (SELECT 1) TO PROGRAM 'touch /tmp/loot'",
    "COPY notes FROM '/etc/passwd'",
    "COPY trades TO STDOUT",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT pg_read_binary_file('PG_VERSION')",
    "SELECT pg_ls_dir('.')",
    "SELECT * FROM pg_stat_file('PG_VERSION')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT lo_export(1, '/tmp/loot')",
    "SELECT lo_create(0)",
    "SELECT lo_from_bytea(0, 'x')",
    "SELECT pg_logical_emit_message(false, 'a', 'b')",
    "LOAD 'x'",
    # Other sessions, sequences, settings.
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity",
    "SELECT pg_cancel_backend(pid) FROM pg_stat_activity",
    "SELECT pg_terminate_backend/**/(1)",
    'SELECT "pg_terminate_backend"(1)',
    'SELECT pg_catalog . "pg_cancel_backend" (1)',
    'SELECT U&"pg\\005fcancel\\005fbackend"(1)',
    "SELECT query_to_xml('SELECT 1', true, true, '')",
    "SELECT * FROM ts_stat('SELECT ''a''::tsvector')",
    "SELECT nextval('numbers')",
    "SELECT setval('numbers', 42)",
    "EXPLAIN ANALYZE SELECT nextval('numbers')",
    "VALUES (nextval('numbers'))",
    "TABLE notes",
    "SELECT writes()",
    "SELECT pg_advisory_lock(1)",
    "SELECT pg_notify('a', 'b')",
    "SELECT pg_reload_conf()",
    "SELECT pg_sleep(100)",
    "SELECT set_config('transaction_read_only', 'off', false)",
    "SELECT set_config('role', 'marketflow', false)",
    "SELECT set_config('session_authorization', 'marketflow', false)",
    "SELECT drop_chunks('store.trades', older_than => now())",
    "SELECT add_job('pg_sleep', '1h')",
    "SELECT _timescaledb_functions.stop_background_workers()",
    "SELECT * FROM dblink('dbname=postgres', 'SELECT 1') AS x(a int)",
    "SET ROLE marketflow",
    "RESET ROLE",
    "SET SESSION AUTHORIZATION marketflow",
    "SET transaction_read_only = off",
    "SET default_transaction_read_only = off",
    "RESET ALL",
    "DO 'BEGIN PERFORM 1; END'",
    "CALL run_job(1)",
    "PREPARE x AS SELECT 1",
    "DECLARE x CURSOR FOR SELECT 1",
    "LISTEN x",
    "NOTIFY x",
    "LOCK store.trades",
    "VACUUM",
    "CHECKPOINT",
    # Ends of our transaction, more than one statement.
    "COMMIT",
    "ROLLBACK",
    "END",
    "BEGIN",
    "SELECT 1; CREATE TABLE loot (a int)",
    "SELECT 1; COMMIT; CREATE TABLE loot (a int)",
    "COMMIT; CREATE TABLE loot (a int)",
    "SELECT 1; SELECT 2",
    # What others keep to themselves.
    "SELECT * FROM pg_authid",
    "SELECT passwd FROM pg_shadow",
    "SELECT * FROM store.trades",
    "EXPLAIN",
    "-- nothing",
]


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_a_query_only_reads(places: tuple[str, str], attempt: str) -> None:
    owner, reader = places
    before = state(owner)
    with pytest.raises(UsageError):
        query_database(attempt, reader, lambda answer: list(answer.rows()))
    assert state(owner) == before
    assert not Path("/tmp/loot").exists()


def test_the_login_itself_cannot_write(places: tuple[str, str]) -> None:
    """The second wall: whatever the session says of its transactions."""
    with psycopg.connect(places[1], autocommit=True) as connection:
        assert power(connection) is None
        connection.execute("SET default_transaction_read_only = off")
        for query in (
            "INSERT INTO store.trades SELECT * FROM store.trades",
            "INSERT INTO notes VALUES (3)",
            "CREATE TABLE public.loot (a int)",
            "CREATE SCHEMA loot",
            "DROP VIEW trades",
            "COPY (SELECT 1) TO '/tmp/loot'",
            "SET ROLE marketflow",
            "ALTER ROLE marketflow_reader SUPERUSER",
            "SELECT pg_read_file('/etc/passwd')",
            "SELECT * FROM store.trades",
        ):
            with pytest.raises(psycopg.Error, match=r"permission denied|must be"):
                connection.execute(query)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT count(*) FROM trades",
        "TABLE quotes",
        "VALUES (1), (2)",
        "WITH x AS (SELECT price FROM trades) SELECT max(price) FROM x",
        "(SELECT 1) UNION SELECT 2",
        "SHOW server_version",
        "SHOW transaction_read_only",
        "EXPLAIN SELECT * FROM trades",
        "EXPLAIN ANALYZE SELECT * FROM trades",
        "EXPLAIN (ANALYZE, FORMAT TEXT, BUFFERS) SELECT * FROM trades",
        "EXPLAIN ANALYZE VERBOSE SELECT 1",
        "-- first\n/* then */ explain -- more\n(costs off) select 1",
        "SELECT 'COPY x TO y; DROP TABLE z' AS text",
        "SELECT random() < 2, now(), clock_timestamp() > now(), gen_random_uuid()",
        "SELECT time_bucket('1 hour', ts_event), first(price, ts_event) FROM trades GROUP BY 1",
        "SELECT * FROM trade_bars_1m UNION ALL SELECT * FROM trade_bars_1d",
        "SELECT pg_size_pretty(pg_database_size(current_database()))",
    ],
)
def test_what_reads_is_allowed(places: tuple[str, str], query: str) -> None:
    query_database(query, places[1], lambda answer: list(answer.rows()))


def test_other_logins_are_refused_with_the_remedy(
    places: tuple[str, str], timescale: Timescale
) -> None:
    """A superuser, an owner, one who may write into a table, one who could become an owner."""
    owner = places[0]
    with psycopg.connect(owner, autocommit=True) as connection:
        try:
            for name in ("clerk", "heir", "builder", "watcher"):
                connection.execute(f"CREATE ROLE {name} LOGIN NOINHERIT PASSWORD 'sesame'")  # type: ignore[arg-type]
            connection.execute("GRANT INSERT ON notes TO clerk")
            connection.execute("GRANT clerk TO heir")
            connection.execute("ALTER ROLE builder CREATEROLE")
            connection.execute("GRANT SELECT ON trades TO watcher")
            for login, why in (
                (owner, "is a superuser"),
                (with_login(owner, "clerk", "sesame"), "may write into tables"),
                (with_login(owner, "heir", "sesame"), "may write into tables"),
                (with_login(owner, "builder", "sesame"), "may make roles"),
            ):
                with pytest.raises(UsageError, match=why) as refused:
                    query_database("SELECT 1", login, lambda answer: list(answer.rows()))
                text = str(refused.value)
                assert f"postgresql://{ROLE}:PASSWORD@127.0.0.1:{timescale.port}/" in text
                assert "sesame" not in text
                with pytest.raises(UsageError, match="log in as marketflow_reader"):
                    mf.sql("SELECT 1", dsn=login)
            watcher = with_login(owner, "watcher", "sesame")
            assert mf.sql("SELECT count(*) FROM trades", dsn=watcher).shape == (1, 1)
            with pytest.raises(UsageError, match="permission denied for view quotes: marketflow"):
                mf.sql("SELECT count(*) FROM quotes", dsn=watcher)
        finally:
            connection.execute("DROP OWNED BY clerk, watcher")
            connection.execute("DROP ROLE IF EXISTS clerk, heir, builder, watcher")


def test_migrate_makes_the_login_and_shows_it_once(bare_database: str) -> None:
    """Where the server has none; the remedy of a lost password is another one."""
    with psycopg.connect(bare_database, autocommit=True) as connection:
        connection.execute(f"ALTER ROLE {ROLE} RENAME TO {ROLE}_aside")  # type: ignore[arg-type]
        try:
            said = migrated(bare_database)
            [shown] = [line for line in said.splitlines() if line.startswith("marketflow sql")]
            reader = shown.split("'")[1]
            ask = "SELECT current_user AS me, count(*) AS rows FROM trades"
            assert mf.sql(ask, dsn=reader).rows() == [(ROLE, 0)]
            assert "marketflow sql" not in migrated(bare_database)
            assert mf.sql(ask, dsn=reader).rows() == [(ROLE, 0)]
            said = migrated(bare_database, "--new-reader-password")
            with pytest.raises(UsageError, match="password is wrong"):
                mf.sql(ask, dsn=reader)
            [shown] = [line for line in said.splitlines() if line.startswith("marketflow sql")]
            assert mf.sql(ask, dsn=shown.split("'")[1]).rows() == [(ROLE, 0)]
        finally:
            connection.execute(f"DROP OWNED BY {ROLE}")  # type: ignore[arg-type]
            connection.execute(f"DROP ROLE {ROLE}")  # type: ignore[arg-type]
            connection.execute(f"ALTER ROLE {ROLE}_aside RENAME TO {ROLE}")  # type: ignore[arg-type]


def migrated(dsn: str, *flags: str) -> str:
    command = [sys.executable, "-m", "marketflow", "migrate", "--dsn", dsn, *flags]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_up_again_puts_the_kept_password_back(
    places: tuple[str, str], timescale: Timescale
) -> None:
    owner, reader = places
    migrate(owner, TABLES, new_reader_password=True)
    with pytest.raises((UsageError, RunFailed), match="password is wrong"):
        query_database("SELECT 1", reader, lambda answer: list(answer.rows()))
    assert timescale.up(print).reader == timescale.reader_url
    query_database("SELECT 1", reader, lambda answer: list(answer.rows()))
    assert replace_password(reader, "x") != reader
