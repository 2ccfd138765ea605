"""A replay into a store that holds its rows: refused, however long after its events a recording
was made; and what the message advises works."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from marketflow.flows.errors import UsageError
from marketflow.flows.replay.plan import Wanted
from marketflow.flows.replay.run import Order, replay
from marketflow.flows.runtime.run import run
from marketflow.flows.settings import load
from marketflow.schemas.units import NS_PER_DAY
from marketflow.sources.registry import open_reader, parse_source
from tests.support.lakes import assert_same_lakes
from tests.support.services.topics import Cluster
from tests.support.stored import stored_rows

pytestmark = pytest.mark.services
_FEED = "sim:?events=1500&symbols=3&seed=5&format=binance&date=2024-01-02"
_DAYS_LATER = 100


def _recorded_later() -> pa.RecordBatch:
    """A feed as somebody recorded it who played it back long after."""
    reader = open_reader(parse_source(_FEED))
    batches = []
    while (batch := reader.read()) is not None:
        batches.append(batch)
    frames = pa.Table.from_batches(batches).combine_chunks().to_batches()[0].slice(0, 1500)
    place = frames.schema.get_field_index("ts_recv")
    later = frames.column("ts_recv").to_numpy() + _DAYS_LATER * NS_PER_DAY
    return frames.set_column(place, frames.schema.field(place), pa.array(later))


def test_a_capture_that_was_replayed_later(kafka: Cluster, database: str, tmp_path: Path) -> None:
    topic = kafka.topic(1)
    frames = _recorded_later()
    kafka.record(topic, frames)
    lake = tmp_path / "lake"
    stores = (f"parquet:{lake}", f"timescale:{database}")
    run("market_data", [f"kafka://{kafka.brokers}/{topic}?venue=binance&to=latest"], stores)
    stored = stored_rows(database)
    whole = Order(Wanted(kafka.brokers, (f"{topic}?venue=binance",)), "market_data", ())
    middle = replace(whole, wanted=replace(whole.wanted, start="500", end="1000"))
    first = int(frames.column("ts_recv")[0].as_py()) // 10**6
    timed = replace(whole, wanted=replace(whole.wanted, start=_text(first), end=_text(first + 9e8)))
    for order in (whole, middle, timed):
        for store in stores:
            with pytest.raises(UsageError, match=r"rows of this interval already \(in "):
                replay(replace(order, sinks=(store,), recovery=tmp_path / "refused"))
    assert not (tmp_path / "refused").exists()
    assert stored_rows(database) == stored
    # Either remedy, with the recovery folder that was to be.
    another = replace(whole, sinks=(f"parquet:{tmp_path / 'another'}",))
    replay(replace(another, recovery=tmp_path / "refused"))
    assert_same_lakes(lake, tmp_path / "another")
    back_fill = replace(
        whole,
        wanted=replace(whole.wanted, replaces=True, ends=True),
        sinks=stores,
        recovery=tmp_path / "fill",
        replace=True,
    )
    summary = replay(back_fill)
    assert summary["rows_written"] == summary["rows_replaced"] > 1000
    assert_same_lakes(lake, tmp_path / "another")
    assert stored_rows(database) == stored
    # A back-fill of other settings wants another folder, and gets it.
    with pytest.raises(UsageError, match="begin the back-fill anew with another --recovery"):
        replay(back_fill, settings=load(late_ms=1))
    replay(replace(back_fill, recovery=tmp_path / "another-fill"), settings=load(tables="trades"))
    assert stored_rows(database) == stored


def _text(ms: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(ms / 1000, UTC).isoformat()
