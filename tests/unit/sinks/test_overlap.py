"""Whether a lake holds rows of an interval: by arrival, however long after the events that was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from marketflow.flows.market_data.decoders import rows_of
from marketflow.schemas.tables import TABLES
from marketflow.schemas.units import NS_PER_DAY, NS_PER_MS
from marketflow.sinks.lake.writer import ParquetWriter
from marketflow.sinks.overlap import Interval
from marketflow.sinks.registry import parse_sink
from tests.support.batches import START_NS, Feed, Item

_DAY_MS = NS_PER_DAY // NS_PER_MS
_ALL = frozenset(TABLES)


def _lake(root: Path, tables: dict[str, int], days_later: int, venue: str = "BYBIT") -> str:
    """A lake whose rows arrived these days after their events, which are of one day."""
    item = Feed(np.random.default_rng(1), days=1, venues=(venue,)).item(0, tables)
    writer = ParquetWriter(root)
    writer.write(Item(0, {n: _arrived(batch, days_later) for n, batch in item.tables.items()}))
    writer.close()
    return f"parquet:{root}"


def _arrived(batch: pa.RecordBatch, days_later: int) -> pa.RecordBatch:
    place = batch.schema.get_field_index("ts_recv")
    if place < 0:
        return batch
    events = batch.column("ts_event").cast(pa.int64()).to_numpy()
    arrived = pa.array(events + days_later * NS_PER_DAY).cast(batch.schema.field(place).type)
    return batch.set_column(place, batch.schema.field(place), arrived)


@pytest.mark.parametrize("days_later", [0, 1, 2, 40, 900])
@pytest.mark.parametrize("table", ["trades", "funding", "book_events"])
def test_by_arrival(table: str, days_later: int, tmp_path: Path) -> None:
    lake = _lake(tmp_path, {table: 50, "bars": 5, "depth": 5}, days_later)
    first = START_NS // NS_PER_MS + days_later * _DAY_MS
    written = _ALL - {"bars", "depth"}
    for start, end, found in (
        (first, first + _DAY_MS, table),
        (first + _DAY_MS // 4, first + _DAY_MS // 2, table),
        (None, first + _DAY_MS, table),
        (first, None, table),
        (None, None, table),
        (first - _DAY_MS, first, None),
        (first + _DAY_MS, first + 2 * _DAY_MS, None),
        (first + _DAY_MS, None, None),
    ):
        assert parse_sink(lake).holds(Interval("BYBIT", start, end), written) == found, (start, end)


def test_tables_without_arrival(tmp_path: Path) -> None:
    """Where nothing else tells, their rows are taken for those of the interval."""
    lake = _lake(tmp_path / "bare", {"bars": 50, "depth": 50}, 0)
    empty = Interval("BYBIT", 0, 1)
    assert parse_sink(lake).holds(empty, _ALL) == "depth"
    assert parse_sink(lake).holds(empty, {"bars", "trades"}) == "bars"
    assert parse_sink(lake).holds(empty, {"trades"}) is None
    assert parse_sink(lake).holds(Interval("KRAKEN", None, None), _ALL) is None
    told = _lake(tmp_path / "told", {"bars": 50, "depth": 50, "trades": 9, "quotes": 9}, 0)
    assert parse_sink(told).holds(empty, _ALL) is None
    assert parse_sink(told).holds(Interval(None, None, None), _ALL) == "trades"


def test_venues_that_one_feed_brings(tmp_path: Path) -> None:
    """Rows of a feed may be of a market of its venue; those of another feed are not its own."""
    for venue, topic, found in (
        ("BYBIT_LINEAR", "BYBIT", "trades"),
        ("BYBIT", "BYBIT", "trades"),
        ("BINANCE_USDM", "BINANCE", None),
        ("BINANCE_USDM", "BINANCE_FUTURES", "trades"),
        ("COINBASE_EXCHANGE", "COINBASE", None),
        ("KRAKEN", "", "trades"),
    ):
        lake = _lake(tmp_path / f"{venue}-{topic}", {"trades": 20}, 0, venue)
        name, others = rows_of(topic)
        first = START_NS // NS_PER_MS
        assert parse_sink(lake).holds(Interval(name, first, None, others), _ALL) == found, (
            venue,
            topic,
        )
