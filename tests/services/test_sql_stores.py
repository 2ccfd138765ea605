"""One query, two stores: a lake and a database that hold the same rows answer the same."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pyarrow.parquet as pq
import pytest
from rich.console import Console

import marketflow as mf
from marketflow.flows.commands.retention import Wanted, forget
from marketflow.flows.errors import RunFailed, UsageError
from marketflow.flows.queries.answers import Answer
from marketflow.flows.queries.database import query_database
from marketflow.flows.queries.sql import _answer, _ask, print_query
from marketflow.infra.migrate import migrate
from marketflow.infra.services.base import Service
from marketflow.schemas.tables import TABLES
from marketflow.sinks.lake.writer import ParquetWriter
from marketflow.sinks.timescale.writer import TimescaleWriter
from tests.support.batches import Feed
from tests.support.services.dsn import replace_password
from tests.support.services.local import new_database, reader_of

pytestmark = pytest.mark.services

# What users ask first, in the SQL that both speak. Each is ordered, so that answers compare.
QUERIES = {
    "the last trades of a symbol": """
        SELECT ts_event_epoch_ns, price, size, aggressor_side FROM trades
        WHERE symbol = 'AAPL' AND venue = 'XNAS'
        ORDER BY ts_event_epoch_ns DESC, shard, row_sequence DESC LIMIT 10""",
    "bars of a symbol and interval": """
        SELECT ts_open_epoch_ns, open, high, low, close, volume, trade_count, is_final FROM bars
        WHERE symbol = 'MSFT' AND interval = '1m' ORDER BY 1, shard, row_sequence""",
    "the spread over a day": """
        SELECT symbol, count(*) AS quotes, max(ask_price - bid_price) AS widest,
               sum(ask_price - bid_price) AS total
        FROM quotes WHERE date = DATE '2026-01-01' AND book_state IN ('valid', 'locked')
        GROUP BY symbol ORDER BY symbol""",
    "the book at a time": """
        SELECT ts_event_epoch_ns, bid_prices, bid_sizes, ask_prices, ask_counts FROM depth
        WHERE symbol = 'AAPL' AND date = '2026-01-02' AND ts_event <= '2026-01-02 12:00:00'
        ORDER BY ts_event_epoch_ns DESC, shard, row_sequence DESC LIMIT 1""",
    "the quote as of each trade": """
        SELECT t.row_sequence, t.price, q.bid_price, q.ask_price FROM trades t
        LEFT JOIN LATERAL (
            SELECT * FROM quotes q
            WHERE q.venue = t.venue AND q.symbol = t.symbol
              AND q.ts_event_epoch_ns <= t.ts_event_epoch_ns
            ORDER BY q.ts_event_epoch_ns DESC, q.shard, q.row_sequence DESC LIMIT 1
        ) q ON true
        WHERE t.shard = 1 ORDER BY t.row_sequence""",
    "activity by minute": """
        SELECT date_trunc('hour', ts_event) AS hour, status, count(*) AS trades,
               sum(notional) AS notional, min(price) AS low, max(price) AS high
        FROM trades GROUP BY 1, 2 ORDER BY 1, 2""",
    "what was wrong": """
        SELECT kind, count(*) AS faults, sum(value) AS total, min(ts_until_epoch_ns) AS first
        FROM quality_events GROUP BY kind ORDER BY kind""",
    "dead letters by reason": """
        SELECT reason, count(*) AS letters, max(detail) AS sample FROM dead_letters
        GROUP BY reason ORDER BY reason""",
    "whole numbers and nothing": """
        SELECT sum(trade_count) AS trades, count(*) AS bars, CAST(NULL AS varchar) AS nothing
        FROM bars""",
}


@pytest.fixture(scope="module")
def stores(timescale, tmp_path_factory) -> Iterator[tuple[Path, str]]:
    """A lake and the DSN of a database with the same rows, for the login that only reads."""
    lake = tmp_path_factory.mktemp("stores") / "lake"
    with new_database(timescale) as dsn:
        migrate(dsn, TABLES)
        writers = [ParquetWriter(lake), TimescaleWriter(dsn)]
        feed = Feed(np.random.default_rng(21))
        for shard in (0, 1, 2):
            item = feed.item(shard, dict.fromkeys(TABLES, 60))
            for writer in writers:
                writer.write(item)
        for writer in writers:
            writer.close()
        yield lake, reader_of(timescale, dsn)


def rows_of(query: str, lake: Path | None, dsn: str | None) -> list[dict[str, Any]]:
    """The rows that ``--format json`` would write, without starting a process."""
    if dsn is not None:
        return query_database(query, dsn, lambda answer: list(answer.rows()))
    assert lake is not None
    return _ask(query, lake, lambda con, relation: list(_answer(con, relation).rows()))


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_both_stores_answer_the_same(stores: tuple[Path, str], query: str) -> None:
    lake, dsn = stores
    from_lake, from_database = rows_of(query, lake, None), rows_of(query, None, dsn)
    assert from_lake == from_database
    assert from_lake


@pytest.mark.parametrize("name", TABLES)
def test_every_column_of_every_table_is_the_same(stores: tuple[Path, str], name: str) -> None:
    """To the nanosecond."""
    query = f"SELECT * FROM {name} ORDER BY shard, row_sequence"
    from_lake, from_database = (rows_of(query, *s) for s in ((stores[0], None), (None, stores[1])))
    assert [list(row) for row in from_lake] == [list(row) for row in from_database]
    assert from_lake == from_database


# Times as they are shown, and columns without a name of their own.
TIMES = [
    "SELECT ts_event, price FROM trades ORDER BY shard, row_sequence",
    "SELECT t.ts_event, t.ts_recv AS arrival, price p FROM trades t ORDER BY shard, row_sequence",
    'SELECT price, "ts_event" moment FROM trades ORDER BY shard, row_sequence LIMIT 10',
    "SELECT shard AS s, *, ts_event AS again FROM trades ORDER BY shard, row_sequence",
    "SELECT kind, count(*), min(ts_event), max(ts_event) FROM quality_events GROUP BY kind "
    "ORDER BY kind",
    "SELECT max(ts_event) FILTER (WHERE shard = 1), count(DISTINCT symbol) FROM trades",
    "SELECT ts_event, lag(ts_event) OVER (PARTITION BY symbol ORDER BY shard, row_sequence) "
    "FROM trades ORDER BY shard, row_sequence",
    "SELECT DISTINCT ts_event FROM trades ORDER BY ts_event LIMIT 20",
    "WITH x AS (SELECT * FROM trades WHERE shard = 1) SELECT ts_event FROM x ORDER BY row_sequence",
    "SELECT t.ts_event, q.ts_event FROM trades t JOIN quotes q USING (shard, row_sequence) "
    "ORDER BY shard, row_sequence",
    "SELECT ts_event /* when, exactly */, price -- and at what\nFROM trades "
    "ORDER BY shard, row_sequence",
    "SELECT max(ask_price - bid_price), sum(bid_size) + 1, count(*) FILTER (WHERE shard = 1) "
    "FROM quotes",
    "SELECT ts_open, ts_close FROM bars ORDER BY shard, row_sequence",
]


@pytest.mark.parametrize("query", TIMES)
def test_times_and_names_are_the_same(stores: tuple[Path, str], query: str) -> None:
    lake, dsn = stores
    from_lake, from_database = rows_of(query, lake, None), rows_of(query, None, dsn)
    assert [list(row) for row in from_lake] == [list(row) for row in from_database]
    assert from_lake == from_database
    assert mf.sql(query, lake=lake).equals(mf.sql(query, dsn=dsn))


def test_times_that_are_not_known_to_the_nanosecond_are_not_shown_so(
    stores: tuple[Path, str],
) -> None:
    for query in (
        "SELECT ts_event FROM trades GROUP BY ts_event",
        "SELECT ts_event FROM (SELECT ts_event FROM trades) x",
        "SELECT ts_event FROM trades UNION SELECT ts_event FROM quotes",
        "SELECT ts_event + interval '1 hour' AS ts_event FROM trades",
    ):
        for row in rows_of(query, None, stores[1]):
            assert len(row["ts_event"]) == len("2026-01-01T00:00:00.000000")


def test_every_form_is_the_same(stores: tuple[Path, str], tmp_path: Path) -> None:
    query = QUERIES["the spread over a day"]
    lake, dsn = stores
    written = []
    for where in (None, dsn):
        console = Console(file=io.StringIO(), width=200)
        print_query(query, lake, where, "table", None, console)
        for form in ("json", "csv", "parquet"):
            print_query(query, lake, where, form, tmp_path / f"{where is None}.{form}", console)
        written.append(
            (
                console.file.getvalue(),
                (tmp_path / f"{where is None}.json").read_text(),
                (tmp_path / f"{where is None}.csv").read_text(),
                pq.read_table(tmp_path / f"{where is None}.parquet").to_pylist(),
            )
        )
    assert written[0] == written[1]
    answer = said(query, "--dsn", dsn)
    assert answer == written[0][1]
    assert all(isinstance(row["widest"], str) for row in json.loads(answer))


def said(query: str, *where: str) -> str:
    command = [
        sys.executable,
        "-m",
        "marketflow",
        "sql",
        "--format",
        "json",
        *where,
        query,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_parquet_keeps_the_types(stores: tuple[Path, str], tmp_path: Path) -> None:
    print_query(
        "SELECT ts_event, price FROM trades",
        stores[0], stores[1], "parquet", tmp_path / "x.parquet", Console(quiet=True),
    )  # fmt: skip
    schema = pq.read_schema(tmp_path / "x.parquet")
    assert [str(f.type) for f in schema] == ["timestamp[ns]", "decimal128(28, 12)"]


def test_frames_are_the_same(stores: tuple[Path, str]) -> None:
    query = "SELECT symbol, price, size, ts_event_epoch_ns, date FROM trades ORDER BY 4, 3"
    lake, dsn = stores
    assert mf.sql(query, lake=lake).equals(mf.sql(query, dsn=dsn))
    assert mf.sql(f"{query} LIMIT 0", dsn=dsn).shape == (0, 5)
    with pytest.raises(UsageError, match="say where"):
        mf.sql(query)


def test_values_of_other_types(stores: tuple[Path, str]) -> None:
    query = """SELECT ARRAY[1.5, NULL, 2.25] AS a, ARRAY['x', NULL] AS b, NULL::int[] AS c,
        1.5::float8 AS d, '\\x00ff'::bytea AS e, '{"a": 1}'::jsonb AS f, interval '1 day' AS g,
        'infinity'::float8 AS h, DATE '2026-01-02' AS i, 12::numeric AS j, 0.1 + 0.25 AS k,
        1e-30::numeric * 1e30 + 1e20 AS l"""
    [row] = rows_of(query, None, stores[1])
    assert row == {
        "a": ["1.50", None, "2.25"], "b": ["x", None], "c": None, "d": 1.5, "e": "AP8=",
        "f": '{"a": 1}', "g": "1 day", "h": "inf", "i": "2026-01-02", "j": 12, "k": "0.35",
        "l": 100000000000000000001,
    }  # fmt: skip


def test_large_answers_stream(stores: tuple[Path, str]) -> None:
    def count(answer: Answer) -> int:
        return sum(batch.num_rows for batch in answer.batches)

    assert query_database("SELECT * FROM generate_series(1, 200000)", stores[1], count) == 200_000
    assert query_database("SELECT * FROM generate_series(1, 65536)", stores[1], count) == 65_536


@pytest.mark.parametrize(
    ("query", "fix"),
    [
        ("DELETE FROM store.trades", "DELETE is not allowed here.*only read: write a SELECT"),
        ("SELECT 1; DROP VIEW trades", "cannot insert multiple commands"),
        ("SELECT 1; COMMIT; DROP VIEW trades", "cannot insert multiple commands"),
        ("WITH x AS (DELETE FROM store.trades RETURNING 1) SELECT * FROM x", "permission denied"),
        ("SELECT * FROM nothing", 'relation "nothing" does not exist; tables of a migrated'),
        ("SELECT nothing FROM trades", 'column "nothing" does not exist'),
        ("SELEC 1", "SELEC is not allowed here"),
        ("SELECT FROM WHERE", "syntax error.*write one SELECT"),
        ("", "THIS is not allowed"),
        ("SELECT 'infinity'::timestamptz", "no TIMESTAMP can.*write it as text"),
        ("SELECT 1e20 + 1e-20", "more than 38 digits: round it"),
        ("SELECT 'NaN'::numeric", "cast it to float8"),
        ("SELECT 1 / 0", "division by zero"),
    ],
)
def test_mistakes_in_a_query_are_explained(stores: tuple[Path, str], query: str, fix: str) -> None:
    with pytest.raises(UsageError, match=fix):
        rows_of(query, None, stores[1])


def test_explain_and_comments_are_fine(stores: tuple[Path, str]) -> None:
    query = "EXPLAIN SELECT * FROM trades WHERE symbol = 'AAPL' ORDER BY ts_event DESC LIMIT 5"
    plan = "\n".join(row["QUERY PLAN"] for row in rows_of(query, None, stores[1]))
    assert "trades_symbol_ts_event" in plan
    [row] = rows_of("-- the\n/* answer */ SELECT 42 AS x -- here", None, stores[1])
    assert row == {"x": 42}


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (
            "SELECT * FROM trades WHERE symbol = 'AAPL' "
            "ORDER BY ts_event DESC, row_sequence DESC LIMIT 10",
            "trades_symbol_ts_event",
        ),
        (
            "SELECT * FROM bars WHERE symbol = 'AAPL' AND interval = '1m' ORDER BY ts_open",
            "bars_symbol_interval_ts_open",
        ),
        (
            "SELECT avg(ask_price - bid_price) FROM quotes WHERE symbol = 'AAPL' "
            "AND ts_event >= '2026-01-01' AND ts_event < '2026-01-02'",
            "quotes_symbol_ts_event",
        ),
        (
            "SELECT * FROM depth WHERE symbol = 'AAPL' AND ts_event <= '2026-01-02' "
            "ORDER BY ts_event DESC LIMIT 1",
            "depth_symbol_ts_event",
        ),
        (
            "SELECT t.price, q.bid_price FROM trades t LEFT JOIN LATERAL (SELECT * FROM quotes q "
            "WHERE q.symbol = t.symbol AND q.ts_event <= t.ts_event "
            "ORDER BY q.ts_event DESC LIMIT 1) q ON true WHERE t.symbol = 'AAPL'",
            "quotes_symbol_ts_event",
        ),
    ],
)
def test_the_users_questions_find_an_index(
    stores: tuple[Path, str], query: str, index: str
) -> None:
    with psycopg.connect(stores[1]) as connection:
        # A few hundred rows: the planner is told that reading all of them is no way.
        connection.execute("SET enable_seqscan = off; SET enable_bitmapscan = off")
        plan = "\n".join(line for (line,) in connection.execute(f"EXPLAIN {query}").fetchall())
    assert index in plan
    assert "Seq Scan" not in plan


def test_mistakes_about_the_database_are_explained(stores: tuple[Path, str]) -> None:
    dsn = stores[1]
    for wrong, kind, fix in (
        (replace_password(dsn, "sesame"), UsageError, "password is wrong"),
        (dsn.rpartition("/")[0] + "/nowhere", UsageError, "does not exist"),
        ("postgresql://u:sesame@127.0.0.1:1/x", RunFailed, "refused"),
        ("nonsense sesame", UsageError, "no PostgreSQL connection string"),
    ):
        with pytest.raises(kind, match=fix) as caught:
            rows_of("SELECT 1", None, wrong)
        assert "sesame" not in str(caught.value)
    command = [
        sys.executable,
        "-m",
        "marketflow",
        "sql",
        "--dsn",
        dsn,
        "--lake",
        "x",
        "SELECT 1",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, "--lake or --dsn, not both" in done.stderr) == (2, True)


def test_retention_forgets_the_same_days(stores: tuple[Path, str], timescale: Service) -> None:
    """The rows are of 2026-01-01 and 02; chunks are at most a day here, files exactly one."""
    lake, reader = stores
    dsn = f"{timescale.url.rpartition('/')[0]}/{reader.rpartition('/')[2]}"
    console = Console(quiet=True)
    query = "SELECT DISTINCT date FROM quotes ORDER BY date"
    both = ((lake, None), (None, dsn))
    shown = {None: None, dsn: reader}
    before = [{"date": "2026-01-01"}, {"date": "2026-01-02"}]
    for where in both:
        would = forget(*where, Wanted(["quotes=1"], "2026-01-03", dry_run=True), console)
        assert would["tables"]["quotes"]["dropped"] > 0
        assert rows_of(query, where[0], shown[where[1]]) == before
        newest = forget(*where, Wanted(["quotes=1"], "newest", dry_run=True), console)
        assert newest["tables"]["quotes"]["dropped"] == 0  # counted from 2026-01-02
        did = forget(*where, Wanted(["quotes=1"], "2026-01-03"), console)
        assert {**did, "dry_run": True} == would
        assert rows_of(query, where[0], shown[where[1]]) == before[1:]
        forever = Wanted(["quotes=forever"], "2036-01-03", dry_run=True)
        assert forget(*where, forever, console)["tables"].keys() == {
            "book_events", "depth", "dead_letters", "quality_events",
        }  # fmt: skip
    for change in ("nothing=1", "quotes", "quotes=0", "quotes=x"):
        with pytest.raises(UsageError, match="--keep"):
            forget(lake, None, Wanted([change], dry_run=True), console)
    with pytest.raises(UsageError, match="--as-of"):
        forget(lake, None, Wanted(as_of="tomorrow", dry_run=True), console)
