"""The notebook API: scans that prune, SQL to polars, the book at a moment."""

from __future__ import annotations

import sys
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

import marketflow as mf
from marketflow.schemas.derived.arrow import schema
from marketflow.schemas.tables import TABLES
from marketflow.schemas.tables.market_data import DEPTH
from marketflow.sinks.lake.file import FileOptions
from marketflow.sinks.lake.writer import ParquetOptions, ParquetWriter
from tests.support.batches import START_NS, Feed, Item

HOUR_NS = 3_600_000_000_000


@pytest.fixture(scope="module")
def item() -> Item:
    tables = {name: 200 for name in TABLES if name not in ("imbalances", "depth")}
    return Feed(np.random.default_rng(9)).item(0, tables)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory, item: Item) -> Path:
    root = tmp_path_factory.mktemp("api") / "a=lake"
    writer = ParquetWriter(root, options=ParquetOptions(file=FileOptions(row_group_rows=20)))
    writer.write(item)
    writer.write(Item(1, {"depth": _books()}))
    writer.close()
    return root


def _books() -> pa.RecordBatch:
    """Three books of AAPL on XNAS, one of them after midnight; one on BATS; levels as noted."""
    prices = [Decimal("10.5"), Decimal("10.4")]
    rows = [
        (START_NS + HOUR_NS, "XNAS", "valid", prices, [Decimal(11)]),
        (START_NS + HOUR_NS, "XNAS", "one_sided", prices[:1], []),
        (START_NS + 25 * HOUR_NS + 1, "XNAS", "stale", [], [Decimal(12), Decimal(13)]),
        (START_NS + 30 * HOUR_NS, "BATS", "valid", prices, [Decimal(11)]),
    ]
    columns = {
        "shard": [1] * 4,
        "row_sequence": [0, 1, 2, 3],
        "ts_event": [row[0] for row in rows],
        "venue": [row[1] for row in rows],
        "symbol": ["AAPL"] * 4,
        "sequence": [None] * 4,
        "book_state": [row[2] for row in rows],
    }
    for side, place in (("bid", 3), ("ask", 4)):
        levels = [row[place] for row in rows]
        columns[f"{side}_prices"] = levels
        columns[f"{side}_sizes"] = [[p * 100 for p in book] for book in levels]
        columns[f"{side}_counts"] = [[7] * len(book) for book in levels]
    return pa.RecordBatch.from_pydict(columns, schema=schema(DEPTH))


@pytest.mark.parametrize("name", list(TABLES))
def test_scan_gives_the_schema_and_every_value(lake: Path, item: Item, name: str) -> None:
    frame = mf.scan(name, lake=lake).sort("row_sequence").collect()
    assert frame.columns == [*TABLES[name].names, "date"]
    if name in item.tables:
        batch = item.tables[name]
        for column in batch.schema.names:
            want, have = batch.column(column), frame[column]
            if pa.types.is_timestamp(want.type):
                assert have.dtype == pl.Datetime("ns", "UTC")
                want, have = want.cast(pa.int64()), have.cast(pl.Int64)
            assert have.to_list() == want.to_pylist(), column


def test_an_empty_table_has_the_same_types(lake: Path, tmp_path: Path) -> None:
    ParquetWriter(tmp_path).close()
    for name in TABLES:
        empty = mf.scan(name, lake=tmp_path).collect_schema()
        assert empty == mf.scan(name, lake=lake).collect_schema() or name == "imbalances", name


def test_scan_keeps_what_was_asked_for(lake: Path) -> None:
    whole = mf.scan("trades", lake=lake).collect()
    start, end = START_NS + 5 * HOUR_NS, START_NS + 26 * HOUR_NS
    time = whole["ts_event"].cast(pl.Int64)
    expected = whole.filter(
        (time >= start)
        & (time < end)
        & whole["symbol"].is_in(["AAPL", "ÜÑ€"])
        & (whole["venue"] == "XNAS")
    )
    for first in (start, "2026-01-01T05", datetime(2026, 1, 1, 5), "2026-01-01T06:00:00+01:00"):
        got = mf.scan(
            "trades", lake=lake, symbols=["AAPL", "ÜÑ€"], venues=["XNAS"], start=first, end=end
        ).collect()
        assert 0 < len(got) < len(whole)
        assert got.sort("row_sequence").equals(expected.sort("row_sequence"))
    day = mf.scan("trades", lake=lake, start="2026-01-02", end=date(2026, 1, 3)).collect()
    assert set(day["date"]) == {date(2026, 1, 2)}
    assert mf.scan("trades", lake=lake, start="2027-01-01").collect().is_empty()


def test_scan_opens_only_what_can_matter(lake: Path) -> None:
    plan = mf.scan("quotes", lake=lake, venues=["XNAS"], end="2026-01-02").explain()
    assert "date=2026-01-01/venue=XNAS" in plan
    assert "BINANCE" not in plan and "date=2026-01-02" not in plan
    plan = mf.scan("quotes", lake=lake, symbols=["AAPL"], start=START_NS + 1).explain()
    assert "SELECTION" in plan  # the predicates are the file scan's own


def test_sql_is_exact(lake: Path, item: Item) -> None:
    frame = mf.sql("SELECT sum(notional) AS n, max(ts_event) AS t FROM trades", lake=lake)
    assert frame["n"].item() == sum(item.tables["trades"].column("notional").to_pylist())
    assert frame["t"].dtype == pl.Datetime("ns", "UTC")
    newest = max(item.tables["trades"].column("ts_event").cast(pa.int64()).to_pylist())
    assert frame["t"].cast(pl.Int64).item() == newest
    with pytest.raises(ValueError, match="Tables of a lake"):
        mf.sql("SELECT * FROM nothing", lake=lake)


def test_times_of_sql_are_those_of_scans(lake: Path) -> None:
    scanned = mf.scan("trades", lake=lake).sort("row_sequence").collect()
    asked = mf.sql("SELECT * FROM trades ORDER BY row_sequence", lake=lake)
    assert asked.select(scanned.columns).equals(scanned)
    lists = mf.sql(
        "SELECT list(ts_event) AS l, date_trunc('hour', now()) AS n FROM trades", lake=lake
    )
    assert lists.schema["l"] == pl.List(pl.Datetime("ns", "UTC"))
    assert lists.schema["n"].time_zone == "UTC"


def test_floats_are_for_plotting(lake: Path) -> None:
    exact = mf.scan("depth", lake=lake).sort("row_sequence")
    floats = mf.scan("depth", lake=lake, floats=True).sort("row_sequence")
    asked = mf.sql("SELECT * FROM depth ORDER BY row_sequence", lake=lake, floats=True)
    assert asked.select(exact.collect_schema().names()).equals(floats.collect())
    kinds = exact.collect_schema()
    for name, kind in floats.collect_schema().items():
        if kinds[name] == pl.List(pl.Decimal(28, 12)):
            assert kind == pl.List(pl.Float64)
        else:
            assert kind == kinds[name]
    assert floats.collect()["bid_prices"].to_list() == [[10.5, 10.4], [10.5], [], [10.5, 10.4]]
    volume = mf.sql("SELECT sum(size) AS s, max(price) AS p FROM trades", lake=lake, floats=True)
    plotted = mf.scan("trades", lake=lake, floats=True, symbols=["AAPL"]).collect()
    assert set(volume.dtypes) == {pl.Float64} == {plotted[n].dtype for n in ("price", "notional")}


def test_an_unknown_name_is_told_with_the_nearest(lake: Path) -> None:
    for call, message in (
        (
            lambda: mf.scan("trades", lake=lake, symbols=["AAPLE"]),
            "'AAPLE' in trades of .*mean AAPL",
        ),
        (lambda: mf.scan("trades", lake=lake, symbols=["AAPL", "Q"]), "'Q' in .*; known: AAPL, "),
        (lambda: mf.scan("quotes", lake=lake, venues=["XNSA"]), "no venue 'XNSA' in .* mean XNAS"),
        (lambda: mf.book_at("APPL", "2026-01-02", lake=lake), "no symbol 'APPL' .* mean AAPL"),
        (lambda: mf.book_at("AAPL", "2026-01-02", lake=lake, venue="BAT"), "mean BATS"),
        (lambda: mf.scan("trade", lake=lake), "no table 'trade': did you mean trades"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    # A day without the symbol is no mistake, nor is a table without rows.
    assert mf.scan("trades", lake=lake, symbols=["AAPL"], start="2027-01-01").collect().is_empty()
    assert mf.scan("imbalances", lake=lake, symbols=["Q"], venues=["V"]).collect().is_empty()


def test_book_at(lake: Path) -> None:
    book = mf.book_at("AAPL", "2026-01-01T12:00:00", lake=lake)
    # Two rows of one instant: the later one counts.
    assert book.rows() == [
        ("bid", 1, Decimal("10.5"), Decimal(1050), 7, "one_sided", *book.row(0)[6:])
    ]
    moment = START_NS + 25 * HOUR_NS
    assert mf.book_at("AAPL", moment, lake=lake)["book_state"].unique().item() == "one_sided"
    late = mf.book_at("AAPL", moment + 1, lake=lake)
    assert late.select("side", "level", "price", "book_state").rows() == [
        ("ask", 1, Decimal(12), "stale"),
        ("ask", 2, Decimal(13), "stale"),
    ]
    with pytest.raises(ValueError, match="BATS, XNAS: name one with venue="):
        mf.book_at("AAPL", "2026-01-03", lake=lake)
    bats = mf.book_at("AAPL", "2026-01-03", lake=lake, venue="BATS")
    assert bats["side"].to_list() == ["bid", "bid", "ask"]
    assert bats["level"].to_list() == [1, 2, 1]
    empty = mf.book_at("AAPL", START_NS, lake=lake)
    assert empty.is_empty() and empty.schema == book.schema


def test_mistakes_name_the_fix(lake: Path, tmp_path: Path) -> None:
    for call, message in (
        (lambda: mf.scan("trade", lake=lake), "known: book_events, trades"),
        (lambda: mf.scan("trades", lake=tmp_path / "x"), "no lake at"),
        (lambda: mf.scan("trades", lake=lake, symbols="AAPL"), r"write symbols=\['AAPL'\]"),
        (lambda: mf.scan("dead_letters", lake=lake, symbols=["A"]), "has no symbol"),
        (lambda: mf.scan("trades", lake=lake, start="yesterday"), "no moment such as 2026-03-02"),
        (lambda: mf.scan("trades", lake=lake, start=1.5), "int nanoseconds"),
        (lambda: mf.book_at("AAPL", "2026-01-02", lake=tmp_path), "is no marketflow lake"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_run_delegates_to_the_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    def run_flow(*args: object, **options: object) -> dict[str, object]:
        return {"args": args, "options": options}

    monkeypatch.setitem(sys.modules, "marketflow.flows.runtime.run", SimpleNamespace(run=run_flow))
    assert mf.run("market_data", source="sim:", sinks=["null:"], processes=2) == {
        "args": ("market_data", ["sim:"], ["null:"]),
        "options": {"processes": 2},
    }
