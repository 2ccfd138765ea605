"""SQL over a lake: views like the schemas, exact values, pruning, errors that help."""

from __future__ import annotations

import csv
import io
import json
import shutil
from decimal import Decimal, localcontext
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

import marketflow as mf
from marketflow.flows.errors import RunFailed, UsageError
from marketflow.flows.queries.duckdb_lake import lake_cursor, open_lake
from marketflow.flows.queries.sql import print_query, query_lake
from marketflow.schemas.codes import words
from marketflow.schemas.fields import Kind
from marketflow.schemas.tables import TABLES
from marketflow.sinks.lake.file import FileOptions
from marketflow.sinks.lake.layout import list_files
from marketflow.sinks.lake.writer import ParquetOptions, ParquetWriter
from tests.support.batches import Feed, Item


@pytest.fixture(scope="module")
def item() -> Item:
    tables = {name: 300 for name in TABLES if name != "imbalances"}
    return Feed(np.random.default_rng(8)).item(0, tables)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory, item: Item) -> Path:
    root = tmp_path_factory.mktemp("sql") / "it's a lake"
    writer = ParquetWriter(root, options=ParquetOptions(file=FileOptions(row_group_rows=20)))
    writer.write(item)
    writer.close()
    return root


def test_views_have_the_columns_of_the_schema_in_order(lake: Path) -> None:
    con = open_lake(lake)
    for name, table in TABLES.items():
        relation = con.sql(f"SELECT * FROM {name}")
        exact = [f"{field.name}_epoch_ns" for field in table.fields if field.kind is Kind.TIME]
        shown = [name for name in relation.columns if name not in exact]
        assert shown == [*table.names, "date"]
        assert set(exact) <= set(relation.columns)
        assert bool(relation.limit(1).fetchall()) == (name != "imbalances")
    empty, full = con.sql("SELECT * FROM imbalances"), con.sql("SELECT * FROM market_status")
    for relation in (empty, full):
        assert str(relation.types[relation.columns.index("ts_event")]) == "TIMESTAMP_NS"
    assert str(empty.types[empty.columns.index("paired_size")]) == "DECIMAL(28,12)"


def test_empty_and_filled_views_have_the_same_types(lake: Path, tmp_path: Path) -> None:
    ParquetWriter(tmp_path).close()
    filled, empty = open_lake(lake), open_lake(tmp_path)
    for name in TABLES:
        types = [[str(t) for t in c.sql(f"SELECT * FROM {name}").types] for c in (filled, empty)]
        assert types[0] == types[1], name


def test_values_are_exact(lake: Path, item: Item) -> None:
    con = open_lake(lake)
    for name, batch in item.tables.items():
        got = con.sql(f"SELECT * EXCLUDE (date) FROM {name} ORDER BY row_sequence")
        table = got.to_arrow_table()
        for column in batch.schema.names:
            want, have = batch.column(column), table.column(column)
            if pa.types.is_timestamp(want.type):
                want, have = want.cast(pa.int64()), have.cast(pa.int64())
            wanted = want.to_pylist()
            field = TABLES[name].field(column)
            if field.codes is not None:  # null in rows of before the column: the first word
                wanted = [words(field.codes)[0] if word is None else word for word in wanted]
            assert have.to_pylist() == wanted, f"{name}.{column}"


def test_filters_reach_partitions_and_row_groups(lake: Path) -> None:
    con = open_lake(lake)
    times = con.sql("SELECT ts_event FROM quotes WHERE venue = 'XNAS' AND symbol = 'AAPL'")
    some = sorted(str(row[0]) for row in times.fetchall())[3]
    for where, files in (
        (f"ts_event = '{some}' AND date = '2026-01-01' AND venue = 'XNAS'", 1),
        ("symbol = 'AAPL' AND venue = 'XNAS'", 2),
    ):
        query = f"EXPLAIN ANALYZE SELECT price FROM trades WHERE {where}"
        plan = con.sql(query).fetchall()[0][1]
        assert f"Total Files Read: {files}" in plan
        scanned, _, total = plan.partition("Row Groups Scanned: ")[2].split()[:3]
        assert int(scanned) < int(total), plan


def test_a_query_opens_only_the_tables_that_it_names(lake: Path) -> None:
    """A view takes a millisecond or two, which is as long as a small query."""
    views = "SELECT view_name FROM duckdb_views() WHERE NOT internal ORDER BY 1"
    for query, known in (
        ('select count(*) from Trades t, (from "quotes")', {"trades", "quotes"}),
        ("SHOW TABLES", {*TABLES, "feeds"}),
        ("SELECT 1", set()),
        ("SELECT * FROM duckdb_views() WHERE view_name <> 'trades'", {*TABLES, "feeds"}),
    ):
        with lake_cursor(lake, query) as con:
            con.sql(query).fetchall()
            assert {name for (name,) in con.sql(views).fetchall()} == known
    assert query_lake("SHOW TABLES", lake, lambda r: len(r.fetchall())) == len(TABLES) + 1


def test_the_next_query_sees_what_was_written_since(tmp_path: Path) -> None:
    """Also files of the same names with other rows, and nothing of what a query before it did."""
    count = "SELECT count(*), sum(size) FROM trades"
    for seed, rows in ((1, 300), (2, 300), (3, 100)):
        written = Feed(np.random.default_rng(seed), days=1, venues=("V",)).item(0, {"trades": rows})
        writer = ParquetWriter(tmp_path / "lake")
        writer.write(written)
        writer.close()
        sizes = written.tables["trades"].column("size").to_pylist()
        [found] = query_lake(count, tmp_path / "lake", lambda relation: relation.fetchall())
        assert found == (rows, sum(sizes))
        if seed == 1:
            with lake_cursor(tmp_path / "lake", count) as con:
                con.execute("CREATE TABLE left_behind AS SELECT 1")
            with pytest.raises(UsageError, match="left_behind does not exist"):
                query_lake("FROM left_behind", tmp_path / "lake", lambda r: r.fetchall())
        shutil.rmtree(tmp_path / "lake")


def test_files_of_older_versions_lack_columns(tmp_path: Path) -> None:
    """A lake of an older release has them: all of its files at first, some of them later."""
    feed = Feed(np.random.default_rng(2), days=1, venues=("V",))
    for part in range(2):
        writer = ParquetWriter(tmp_path, f"w{part}")
        writer.write(feed.item(part, {"bars": 20}))
        writer.close()
        if part == 0:
            [path] = list_files(tmp_path, "bars")
            pq.write_table(pq.ParquetFile(path).read().drop_columns(["origin"]), path)
            (tmp_path / "_marketflow" / "lake.json").write_text('{"format": 2}')
        query = "SELECT count(*), count(close), count(origin) FROM bars"
        [found] = query_lake(query, tmp_path, lambda relation: relation.fetchall())
        assert found == (20 * (part + 1),) * 3


def test_refuses_what_is_no_lake(tmp_path: Path, lake: Path) -> None:
    with pytest.raises(UsageError, match="no lake at"):
        open_lake(tmp_path / "none")
    (tmp_path / "some.txt").touch()
    with pytest.raises(UsageError, match="is no marketflow lake"):
        open_lake(tmp_path)
    assert open_lake(str(lake)).sql("SELECT count(*) FROM trades").fetchall() == [(300,)]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT * FROM trade", r"trade does not exist! Tables of a lake: book_events, trades"),
        ("SELECT prize FROM trades", 'Candidate bindings: .*"price"'),
        ("SELEC 1", "write one SELECT"),
        ("", "one SELECT at a time, not 0"),
        ("SELECT 1; SELECT 2", "one SELECT at a time, not 2"),
        ("COPY trades TO 'x.csv'", "COPY is not allowed here, a lake is read-only"),
        ("CREATE TABLE x (a INT)", "CREATE is not allowed"),
        ("ATTACH 'x.db'", "ATTACH is not allowed"),
        ("DROP VIEW trades", "DROP is not allowed"),
        ("SET threads = 1", "SET is not allowed"),
        ("SELECT symbol::INT FROM trades", "Could not convert string"),
    ],
)
def test_errors_are_one_line_with_a_hint(lake: Path, query: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        query_lake(query, lake, lambda relation: relation.fetchall())
    assert "\n" not in str(raised.value)


def test_json_is_rows_with_exact_values(
    lake: Path, item: Item, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    query = (
        "SELECT symbol, ts_event, price, notional, price * size AS product, trade_id, "
        "(SELECT sum(trade_count) FROM bars) AS total, 1.5::DOUBLE AS f, true AS b, "
        "date FROM trades ORDER BY row_sequence LIMIT 2"
    )
    print_query(query, lake, None, "json", None, Console())
    rows = json.loads(capfdbinary.readouterr().out)
    trades = item.tables["trades"]
    assert [Decimal(r["price"]) for r in rows] == trades.column("price")[:2].to_pylist()
    size = trades.column("size")[0].as_py()
    with localcontext(prec=60):
        assert Decimal(rows[0]["product"]) == Decimal(rows[0]["price"]) * size
    assert rows[0]["ts_event"].startswith("2026-01-0") and len(rows[0]["ts_event"]) == 29
    assert isinstance(rows[0]["total"], int)
    assert (rows[0]["f"], rows[0]["b"], rows[0]["date"][:7]) == (1.5, True, "2026-01")
    print_query("SELECT 1 AS a WHERE false", lake, None, "json", None, Console())
    assert json.loads(capfdbinary.readouterr().out) == []


def test_csv_parquet_and_table(
    lake: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    query = "SELECT symbol, price, ts_recv, venue FROM trades ORDER BY row_sequence"
    print_query(query, lake, None, "csv", None, Console())
    lines = list(csv.DictReader(io.StringIO(capfdbinary.readouterr().out.decode())))
    assert len(lines) == 300
    assert "" in {line["ts_recv"] for line in lines}
    out = tmp_path / "out.parquet"
    print_query(query, lake, None, "parquet", out, Console())
    table = pq.read_table(out)
    assert [str(p) for p in table["price"].to_pylist()] == [line["price"] for line in lines]
    assert table["ts_recv"].type == pa.timestamp("ns")
    assert not list(tmp_path.glob(".*"))
    page = io.StringIO()
    print_query(f"{query} LIMIT 3", lake, None, "table", None, Console(file=page, width=200))
    assert lines[0]["price"] in page.getvalue()
    with pytest.raises(UsageError, match="none of table, csv, json, parquet"):
        print_query(query, lake, None, "xml", None, Console())
    with pytest.raises(UsageError, match="--out goes with"):
        print_query(query, lake, None, "table", out, Console())
    with pytest.raises(RunFailed, match="cannot write"):
        print_query(query, lake, None, "csv", tmp_path / "no" / "x.csv", Console())


def test_columns_of_the_same_name_are_all_there(
    lake: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    query = "SELECT 1 AS a, 2 AS a, 3 AS a_1, 4 AS A"
    print_query(query, lake, None, "csv", None, Console())
    assert capfdbinary.readouterr().out == b"a,a_1,a_1_1,A_2\n1,2,3,4\n"
    print_query(query, lake, None, "json", None, Console())
    assert json.loads(capfdbinary.readouterr().out) == [{"a": 1, "a_1": 2, "a_1_1": 3, "A_2": 4}]
    assert mf.sql(query, lake=lake).columns == ["a", "a_1", "a_1_1", "A_2"]


def test_a_long_table_says_that_it_is_cut(lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = io.StringIO()
    query = "SELECT a.shard FROM trades a, (FROM trades LIMIT 4)"
    print_query(query, lake, None, "table", None, Console(file=page, width=40))
    assert "the first 1000 rows" in capsys.readouterr().err


def test_a_query_survives_a_compaction_between_opening_and_reading(
    tmp_path: Path, item: Item
) -> None:
    writer = ParquetWriter(tmp_path)
    writer.write(item)
    writer.close()
    moved = []

    def count(relation: object) -> object:
        if not moved:
            [path, *_] = list_files(tmp_path, "trades")
            moved.append(path.rename(path.with_name("w0-000001-99999999.parquet")))
        return relation.fetchall()  # type: ignore[attr-defined]

    assert query_lake("SELECT count(*), sum(size) FROM trades", tmp_path, count)[0][0] == 300
