"""A query over a lake reads that lake: a page of attempts at anything else, on the real engine."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import marketflow as mf
from marketflow.flows.errors import UsageError
from marketflow.flows.queries.duckdb_lake import open_lake
from marketflow.flows.queries.sql import query_lake
from marketflow.schemas.tables import TABLES
from marketflow.sinks.lake.writer import ParquetWriter
from tests.support.batches import Feed


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("readonly") / "lake"
    writer = ParquetWriter(root)
    writer.write(Feed(np.random.default_rng(4)).item(0, {"trades": 50, "quotes": 50}))
    writer.close()
    (root.parent / "secret.csv").write_text("a,b\n1,sesame\n")
    (root.parent / "lake2").mkdir()
    (root.parent / "lake2" / "x.csv").write_text("a,b\n1,sesame\n")
    return root


def everything(folder: Path) -> dict[str, bytes]:
    """All files below the folder with what they hold."""
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# {lake}: its folder; {out}: a file beside it; {quotes}: a file of its own that could be replaced.
ATTEMPTS = [
    # Writing files.
    "COPY trades TO '{out}'",
    "COPY (SELECT 1) TO '{quotes}'",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '{out}'",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '{quotes}' (FORMAT parquet)",
    "explain /* now */ analyze -- or never\n copy (select 1) to '{quotes}'",
    "EXPLAIN (ANALYZE, FORMAT JSON) COPY (SELECT 1) TO '{quotes}'",
    "WITH x AS (COPY (SELECT 1) TO '{quotes}') SELECT * FROM x",
    "SELECT * FROM (WITH x AS (COPY (SELECT 1) TO '{quotes}') SELECT * FROM x)",
    "SELECT 1 UNION ALL (WITH x AS (COPY (SELECT 1) TO '{quotes}') SELECT 1 FROM x)",
    "EXPLAIN ANALYZE WITH x AS (COPY (SELECT 1) TO '{quotes}') SELECT * FROM x",
    "SELECT * FROM query('WITH x AS (COPY (SELECT 1) TO ''{quotes}'') SELECT * FROM x')",
    "SELECT * FROM json_execute_serialized_sql(json_serialize_sql("
    "'WITH x AS (COPY (SELECT 1) TO ''{quotes}'') SELECT * FROM x'))",
    "DESCRIBE SELECT * FROM query('WITH x AS (COPY (SELECT 1) TO ''{quotes}'') FROM x')",
    "EXPORT DATABASE '{lake}/out'",
    "SELECT * FROM enable_logging(storage = 'file', storage_path = '{lake}/log')",
    "SELECT * FROM enable_profiling(save_location = '{lake}/profile.json')",
    # Writing tables and databases.
    "CREATE TABLE x AS SELECT 1",
    "CREATE OR REPLACE VIEW trades AS SELECT 1",
    "EXPLAIN ANALYZE CREATE TABLE x AS SELECT 1",
    "INSERT INTO trades VALUES (1)",
    "WITH x AS (INSERT INTO trades VALUES (1) RETURNING 1) SELECT * FROM x",
    "WITH x AS (DELETE FROM trades RETURNING 1) SELECT * FROM x",
    "DROP VIEW trades",
    "ATTACH '{out}'",
    "ATTACH '{lake}/x.db'",
    "IMPORT DATABASE '{lake}'",
    "BEGIN",
    "CALL pragma_version()",
    # Reading what is not the lake's.
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_csv('{secret}')",
    "SELECT * FROM '{secret}'",
    'SELECT * FROM "{secret}"',
    "SELECT (SELECT max(b) FROM '{secret}')",
    "SELECT * FROM read_text('{secret}')",
    "SELECT * FROM read_blob('{lake}/../secret.csv')",
    "SELECT * FROM '{lake}/../secret.csv'",
    "SELECT * FROM '{lake}2/x.csv'",
    "SELECT * FROM read_json('/proc/self/environ')",
    "SELECT * FROM read_parquet('{out}')",
    "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM glob('{lake}/../*')",
    "SELECT * FROM sniff_csv('{secret}')",
    "SELECT * FROM parquet_metadata('{out}')",
    "SELECT * FROM 'https://example.org/x.parquet'",
    "SELECT getenv('HOME')",
    "SELECT * FROM ATTEMPTS",
    # More rights.
    "SET enable_external_access = true",
    "SET lock_configuration = false",
    "RESET allowed_directories",
    "SET threads = 1",
    "PRAGMA threads = 1",
    "PRAGMA enable_profiling",
    "INSTALL httpfs",
    "LOAD httpfs",
    "LOAD '{lake}/x.duckdb_extension'",
    "EXPLAIN ANALYZE SET threads = 1",
    # More than one statement.
    "SELECT 1; COPY (SELECT 1) TO '{out}'",
    "SELECT 1; SELECT 2",
    "EXPLAIN SELECT 1; SELECT 2",
    "EXPLAIN",
    "EXPLAIN EXPLAIN SELECT 1",
    "",
    "-- nothing",
]


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_a_query_only_reads_its_lake(lake: Path, attempt: str) -> None:
    [quotes, *_] = sorted((lake / "quotes").rglob("*.parquet"))
    before = everything(lake.parent)
    text = attempt.format(
        lake=lake, out=lake.parent / "out", secret=lake.parent / "secret.csv", quotes=quotes
    )
    with pytest.raises(UsageError) as refused:
        query_lake(text, lake, lambda relation: relation.fetchall())
    assert "sesame" not in str(refused.value)
    with pytest.raises(UsageError):
        mf.sql(text, lake=lake)
    assert everything(lake.parent) == before


@pytest.mark.parametrize(
    "attempt",
    [
        "COPY (SELECT 1) TO '{}'", "ATTACH '{}'", "SELECT * FROM read_csv('/etc/passwd')",
        "SET enable_external_access = true", "SET threads = 1", "LOAD httpfs",
        "SELECT * FROM glob('/etc/*')",
    ],
)  # fmt: skip
def test_the_connection_itself_keeps_to_the_lake(lake: Path, attempt: str, tmp_path: Path) -> None:
    """The second wall: without the list of what is allowed."""
    import duckdb

    with pytest.raises(duckdb.Error, match=re.compile("disabled|locked", re.IGNORECASE)):
        open_lake(lake).sql(attempt.format(tmp_path / "x")).fetchall()


@pytest.mark.parametrize(
    "query",
    [
        "SELECT count(*) FROM trades",
        "FROM trades LIMIT 1",
        "TABLE trades",
        "VALUES (1), (2)",
        "WITH x AS (SELECT price FROM trades) SELECT max(price) FROM x",
        "WITH RECURSIVE r AS (SELECT 1 i UNION ALL SELECT i + 1 FROM r WHERE i < 3) FROM r",
        "SELECT 1 UNION SELECT 2 EXCEPT SELECT 1",
        "(SELECT 1)",
        "DESCRIBE trades",
        "SHOW TABLES",
        "SUMMARIZE trades",
        "DESCRIBE SELECT price FROM trades",
        "SELECT * FROM trades t ASOF JOIN quotes q ON t.symbol = q.symbol "
        "AND t.ts_event >= q.ts_event",
        "SELECT * FROM trades t, LATERAL (SELECT bid_price FROM quotes q LIMIT 1)",
        "FROM (SELECT symbol, price FROM trades) PIVOT (max(price) FOR symbol IN ('AAPL'))",
        "SELECT unnest(bid_prices) FROM depth",
        "SELECT * FROM generate_series(1, 3), range(2)",
        "EXPLAIN SELECT * FROM trades",
        "EXPLAIN ANALYZE SELECT * FROM trades",
        "EXPLAIN (FORMAT JSON) SELECT * FROM trades",
        "-- first\n/* then */ EXPLAIN (ANALYZE) -- more\n SELECT 1",
        "/* a comment */ SELECT 1 -- and another",
        "-- a comment\nSELECT 1;",
        "SELECT 'COPY x TO y; DROP TABLE z' AS text",
    ],
)
def test_what_reads_is_allowed(lake: Path, query: str) -> None:
    query_lake(query, lake, lambda relation: relation.fetchall())


def test_files_of_the_lake_itself_may_be_read(lake: Path) -> None:
    query = f"SELECT count(*) FROM read_parquet('{lake}/trades/**/*.parquet')"
    assert query_lake(query, lake, lambda relation: relation.fetchall()) == [(50,)]


@pytest.mark.parametrize("form", ["{0}", "{0}/", "{1}", "link", "../{2}/lake"])
def test_a_lake_has_many_names(
    lake: Path, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(lake.parent)
    if not Path("link").exists():
        Path("link").symlink_to(lake)
    name = Path(form.format(lake, lake.name, lake.parent.name))
    for table in TABLES:
        query_lake(f"SELECT count(*) FROM {table}", name, lambda relation: relation.fetchall())
