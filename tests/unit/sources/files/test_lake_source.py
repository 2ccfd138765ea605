"""A lake as a source, and CSV and Parquet files that name and count in their own way."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from marketflow.flows.errors import UsageError
from marketflow.flows.market_data.decoders import decoder
from marketflow.flows.queries.duckdb_lake import open_lake
from marketflow.flows.runtime.partitions import parse
from marketflow.flows.runtime.run import run
from marketflow.sinks.lake.layout import list_files
from marketflow.sources.errors import SourceError
from marketflow.sources.reader import Limits
from marketflow.sources.registry import open_reader, parse_source
from tests.support.decoding import read_frames
from tests.support.lakes import assert_same_lakes
from tests.support.reading import write

SIM = "sim:?events=20000&symbols=5&seed=3"
OWN = "* EXCLUDE (shard, row_sequence)"


def rows(lake: Path, query: str) -> list[Any]:
    with open_lake(lake) as con:
        return con.sql(query).fetchall()


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Written in several files, by a run of ours."""
    folder = tmp_path / "source" / "lake"
    run("market_data", [SIM], [f"parquet:{folder}"])
    return folder


def again(lake: Path, folder: Path, table: str, more: str = "") -> dict[str, Any]:
    return run("market_data", [f"parquet:{lake}?table={table}{more}"], [f"parquet:{folder}"])


@pytest.mark.parametrize("table", ["trades", "quotes", "market_status"])
def test_a_table_of_a_lake_read_back_is_the_same_rows(
    lake: Path, tmp_path: Path, table: str
) -> None:
    summary = again(lake, tmp_path / "again", table)
    query = f"SELECT {OWN} FROM {table} ORDER BY ALL"
    told = rows(lake, query)
    assert told and rows(tmp_path / "again", query) == told
    assert summary["messages"] == len(told)
    assert summary["dead_letters"] == summary["quality_events"] == {}


def test_bars_from_trades_read_back_are_those_of_the_feed(lake: Path, tmp_path: Path) -> None:
    """Only in the order of events are no trades late."""
    summary = again(lake, tmp_path / "again", "trades")
    assert "bars_late_trades" not in summary
    query = f"SELECT {OWN} FROM bars ORDER BY ALL"
    assert rows(tmp_path / "again", query) == rows(lake, query) != []


def test_quotes_keep_origin_and_state(lake: Path, tmp_path: Path) -> None:
    again(lake, tmp_path / "again", "quotes")
    query = "SELECT origin, book_state, count(*) FROM quotes GROUP BY ALL ORDER BY ALL"
    told = rows(lake, query)
    assert rows(tmp_path / "again", query) == told
    assert {origin for origin, *_ in told} == {"book"}
    # Named files say the same, and text too.
    files = ",".join(map(str, list_files(tmp_path / "again", "quotes")))
    venue = rows(lake, "SELECT DISTINCT venue FROM quotes")[0][0]
    source = f"parquet:{files}?table=quotes&venue={venue}"
    run("market_data", [source], [f"parquet:{tmp_path / 'files'}"])
    assert rows(tmp_path / "files", query) == told
    text = tmp_path / "quotes.csv"
    with open_lake(lake) as con:
        frame = con.sql("SELECT * EXCLUDE (date) FROM quotes").pl()
    frame.with_columns(pl.col(pl.Datetime).dt.to_string("iso")).write_csv(text)
    run("market_data", [f"csv:{text}?table=quotes"], [f"parquet:{tmp_path / 'text'}"])
    prices = f"SELECT {OWN} FROM quotes ORDER BY ALL"
    assert rows(tmp_path / "text", prices) == rows(lake, prices)


def test_only_committed_files_are_read(lake: Path, tmp_path: Path) -> None:
    """Beside a lake's files lie those that compaction has replaced, and unfinished ones."""
    copy = tmp_path / "lake"
    run("market_data", [SIM], [f"parquet:{copy}"])
    (file, *_) = list_files(copy, "trades")
    superseded = file.with_name("merged-00000001.parquet")
    superseded.write_bytes(file.read_bytes())
    file.with_name(".unfinished.parquet").write_bytes(b"PAR1")
    pending = [{"merged": None, "temporary": None, "replaces": [str(superseded.relative_to(copy))]}]
    journal = {"sequence": 1, "pending": pending}
    (copy / "_marketflow" / "compact.json").write_text(json.dumps(journal))
    again(copy, tmp_path / "again", "trades")
    again(lake, tmp_path / "plain", "trades")
    assert_same_lakes(tmp_path / "again", tmp_path / "plain")


def test_rows_come_in_the_order_of_events_and_from_any_place(lake: Path) -> None:
    spec = parse(f"parquet:{lake}?table=trades")
    assert spec.name == "parquet:lake"
    whole = read_frames(open_reader(spec))
    limits = Limits(max_rows=17)
    times: list[int] = []
    reader = open_reader(spec, None, limits)
    core = decoder(spec, 4)
    pieces = 0
    while (batch := reader.read()) is not None:
        events = core.apply(batch).events
        times += events.rows["ts_event"][events.rows["ts_event"] > 0].tolist()
        pieces += 1
        position = reader.position()
        reader.close()
        reader = open_reader(spec, position, limits)
    assert times == sorted(times) and len(times) > 100
    assert pieces > len(whole)


def test_a_lake_that_changed_is_no_place_to_go_on_from(tmp_path: Path) -> None:
    run("market_data", [SIM], [f"parquet:{tmp_path / 'lake'}"])
    spec = parse(f"parquet:{tmp_path / 'lake'}?table=trades")
    reader = open_reader(spec, None, Limits(max_rows=5))
    reader.read()
    position = reader.position()
    reader.close()
    run("market_data", ["sim:?events=9000&seed=4"], [f"parquet:{tmp_path / 'lake'}"])
    with pytest.raises(SourceError, match="others than when the run was interrupted"):
        open_reader(parse(f"parquet:{tmp_path / 'lake'}?table=trades"), position)


def test_venue_and_symbol_choose_rows(lake: Path, tmp_path: Path) -> None:
    ((venue, symbol, count), *_) = rows(
        lake, "SELECT venue, symbol, count(*) FROM trades GROUP BY ALL ORDER BY ALL"
    )
    summary = again(lake, tmp_path / "one", "trades", f"&venue={venue}&symbol={symbol}")
    assert summary["tables"]["trades"] == count
    for more, says in (
        ("trades&venue=NOWHERE", f"it has {venue}"),
        ("funding", "no rows of funding"),
        ("trades&time_unit=s", "leave out time_unit="),
        ("bars", "one of book_events, trades"),
    ):
        with pytest.raises(UsageError, match=says):
            again(lake, tmp_path / "none", more)


def test_remedies_lead_on(lake: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="source and sink at once"):
        again(lake, lake / ".." / "lake", "trades")
    folder = tmp_path / "plain"
    folder.mkdir()
    write(folder / "t.csv", b"ts_event,venue,symbol,price,size\n")
    with pytest.raises(UsageError, match=rf"no lake; name its files, such as {folder}/\*"):
        again(folder, tmp_path / "none", "trades")


OWN_NAMES = "time,pair,px,qty\n{},A,1.5,2\n{},A,1.25,3\n"


def times(source: str) -> list[int]:
    spec = parse_source(source)
    core = decoder(spec, 1)
    found: list[int] = []
    for batch in read_frames(open_reader(spec)):
        decoded = core.apply(batch)
        assert decoded.dead is None, decoded.dead.to_pylist()
        found += decoded.events.rows["ts_event"].tolist()
    return found[:-1]


@pytest.mark.parametrize(
    ("unit", "first", "second"),
    [
        ("s", "1700000000", "1700000000.123456789"),
        ("ms", "1700000000000", "1700000000123.456789"),
        ("us", "1700000000000000", "1700000000123456.789"),
        ("ns", "1700000000000000000", "1700000000123456789"),
        ("ms", "2023-11-14T22:13:20Z", "2023-11-14T22:13:20.123456789Z"),
    ],
)
def test_columns_and_units_of_a_csv(tmp_path: Path, unit: str, first: str, second: str) -> None:
    path = write(tmp_path / "own.csv", OWN_NAMES.format(first, second).encode())
    names = "columns=ts_event:time,symbol:pair,price:px,size:qty"
    source = f"csv:{path}?table=trades&venue=X&{names}&time_unit={unit}"
    assert times(source) == [1_700_000_000 * 10**9, 1_700_000_000_123_456_789]
    summary = run("market_data", [source], [f"parquet:{tmp_path / 'lake'}"])
    assert summary["dead_letters"] == {}
    assert rows(tmp_path / "lake", "SELECT symbol, price, size FROM trades ORDER BY price") == [
        ("A", Decimal("1.25"), 3),
        ("A", Decimal("1.5"), 2),
    ]


def test_columns_and_units_of_a_parquet_file(tmp_path: Path) -> None:
    path = tmp_path / "own.parquet"
    own = {"time": [1_700_000_000_000, 1_700_000_000_001], "pair": ["A", "A"], "px": ["1", "2"]}
    pl.DataFrame({**own, "size": [1, 2]}).write_parquet(path)
    names = "columns=ts_event:time,symbol:pair,price:px"
    source = f"parquet:{path}?table=trades&venue=X&{names}&time_unit=ms"
    assert times(source) == [1_700_000_000_000_000_000, 1_700_000_000_001_000_000]


@pytest.mark.parametrize(
    ("number", "given", "right"),
    [
        ("1700000000", "", "s"),
        ("1700000000000", "", "ms"),
        ("1700000000000000", "", "us"),
        ("1700000000", "&time_unit=ms", "s"),
        ("1700000000.5", "&time_unit=us", "s"),
    ],
)
def test_a_time_that_would_be_1970_is_refused_with_the_unit(
    tmp_path: Path, number: str, given: str, right: str
) -> None:
    text = f"ts_event,venue,symbol,price,size\n{number},X,A,1,1\n"
    path = write(tmp_path / "t.csv", text.encode())
    with pytest.raises(SourceError, match=f"would be in 1970 .*: add time_unit={right}$"):
        parse_source(f"csv:{path}?table=trades{given}")
    (found,) = times(f"csv:{path}?table=trades&time_unit={right}")
    assert 1_700_000_000 * 10**9 <= found <= 1_700_000_000_500_000_000


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("columns=ts_event", "OURS:THEIRS"),
        ("columns=ts_event:when", "no column when, which columns= names .it has time, pair"),
        ("columns=ts_event:time,symbol:pair", r"columns=price:THEIRS"),
        ("time_unit=h", "one of s, ms, us, ns"),
    ],
)
def test_wrong_columns_and_units(tmp_path: Path, more: str, says: str) -> None:
    path = write(tmp_path / "own.csv", OWN_NAMES.format(10**18, 10**18).encode())
    with pytest.raises(SourceError, match=says):
        parse_source(f"csv:{path}?table=trades&venue=X&{more}")
