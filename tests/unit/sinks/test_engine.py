"""Writers as a bytewax sink, sinks by URL, JSON lines; and the facts of bytewax they rest on."""

from __future__ import annotations

import json
import threading
import time
from datetime import timedelta
from decimal import Decimal
from itertools import cycle
from pathlib import Path
from typing import Any

import bytewax.operators as op
import numpy as np
import pyarrow as pa
import pytest
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSource, run_main

from marketflow.schemas.tables import TABLES
from marketflow.sinks import engine as outputs
from marketflow.sinks.engine import WriterSink
from marketflow.sinks.errors import SinkError
from marketflow.sinks.jsonl import JsonlWriter, json_rows
from marketflow.sinks.lake.writer import ParquetWriter
from marketflow.sinks.registry import parse_sink
from tests.support.batches import Feed, Item
from tests.support.lake_model import Model, lake_rows


class Recorder:
    """A writer that remembers its calls."""

    def __init__(self, delay_s: float = 0.0, fail_at: int = -1) -> None:
        self.calls: list[Any] = []
        self.delay_s = delay_s
        self.fail_at = fail_at
        self.rows = 0

    def write(self, rows: Any) -> None:
        if len(self.calls) == self.fail_at:
            raise OSError(28, "disk full")
        time.sleep(self.delay_s)
        self.calls.append(sorted(rows.tables))
        self.rows += sum(b.num_rows for b in rows.tables.values())

    def snapshot(self) -> Any:
        self.calls.append("snapshot")
        return self.rows

    def restore(self, state: Any) -> None:
        self.calls.append(("restore", state))
        self.rows = state

    def close(self) -> None:
        self.calls.append("close")


def _items(count: int, rows: int = 10) -> list[Item]:
    feed = Feed(np.random.default_rng(2))
    return [feed.item(n % 3, {"trades": rows, "bars": rows}) for n in range(count)]


def _flow(items: list[Any], sink: WriterSink, batch_size: int = 1) -> Dataflow:
    flow = Dataflow("test")
    stream = op.input("in", flow, TestingSource(items, batch_size=batch_size))
    op.output("out", op.key_on("key", stream, lambda _: "0"), sink)
    return flow


def test_writes_in_order_and_snapshots_after_what_was_queued() -> None:
    one, two = Recorder(delay_s=0.001), Recorder()
    items = _items(6)
    sink = WriterSink([one, two], tables=frozenset({"trades"}))
    run_main(_flow(items, sink, batch_size=3), epoch_interval=timedelta(0))
    epoch = [["trades"]] * 3 + ["snapshot"]
    assert one.calls == two.calls == [*epoch, *epoch, "close"]


def test_engine_resumes_writers_from_their_own_snapshots(tmp_path: Path) -> None:
    """The facts of bytewax that the sinks rest on; a new release shows here what it changed."""
    init_db_dir(tmp_path, 1)
    config = RecoveryConfig(tmp_path)
    items: list[Any] = [*_items(4), TestingSource.ABORT(), *_items(2)]
    first, again = Recorder(), Recorder()
    run_main(_flow(items, WriterSink([first])), epoch_interval=timedelta(0), recovery_config=config)
    assert first.calls[-1] == "close"  # dropped, not ended: close proves nothing
    run_main(_flow(items, WriterSink([again])), epoch_interval=timedelta(0), recovery_config=config)
    durable = first.calls.count("snapshot")
    # Of the snapshots taken only the very last can be missing from the store.
    assert again.calls[0] in [("restore", 20 * n) for n in (durable - 1, durable)]
    assert again.calls[-2:] == ["snapshot", "close"]
    assert again.rows == 20 * 6
    with pytest.raises(RuntimeError) as wrong:
        run_main(_flow(items, WriterSink([Recorder(), Recorder()])), recovery_config=config)
    assert "run with 1 sinks, this one has 2" in str(wrong.value.__cause__ or wrong.value)


def test_lake_through_the_engine_and_a_crash(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    init_db_dir(store, 1)
    plain = _items(30, rows=40)
    items: list[Any] = [*plain[:17], TestingSource.ABORT(), *plain[17:]]
    for _ in range(2):
        sink = WriterSink([ParquetWriter(tmp_path / "lake", "w0", "r")])
        config = RecoveryConfig(store)
        run_main(_flow(items, sink), epoch_interval=timedelta(0), recovery_config=config)
    sink.finish()
    model = Model()
    for item in plain:
        model.write(item)
    assert lake_rows(tmp_path / "lake") == model.rows


def test_a_slow_writer_blocks_the_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "MAX_QUEUED_ROWS", 100)
    writer = Recorder(delay_s=0.02)
    part = WriterSink([writer]).build_part("out", "0", None)
    for number, item in enumerate(_items(12), 1):
        part.write_batch([item])
        assert number - len(writer.calls) <= 6  # five queued, one being written
    part.close()
    assert writer.rows == 240
    big = _items(1, rows=500)
    part = WriterSink([writer]).build_part("out", "0", None)
    part.write_batch(big)  # larger than the whole queue: let in alone
    part.close()


def test_an_error_of_a_writer_reaches_the_flow() -> None:
    part = WriterSink([Recorder(fail_at=1)]).build_part("out", "0", None)
    with pytest.raises(OSError, match="disk full"):
        for item in cycle(_items(50)):  # until the thread has come to it
            part.write_batch([item])
    with pytest.raises(OSError, match="disk full"):
        part.snapshot()


@pytest.mark.parametrize("where", ["write", "snapshot", "close"])
def test_the_engine_survives_an_error_anywhere(where: str) -> None:
    """It drops the sink while it unwinds: an exception out of close then aborts the process."""

    def fail(*_: Any) -> None:
        raise OSError(28, "disk full")

    writer = Recorder()
    setattr(writer, where, fail)
    sink = WriterSink([writer])
    flow = _flow(_items(4), sink)
    if where == "close":
        run_main(flow, epoch_interval=timedelta(0))
    else:
        with pytest.raises(RuntimeError) as raised:
            run_main(flow, epoch_interval=timedelta(0))
        assert "disk full" in str(raised.value.__cause__)
    with pytest.raises(OSError, match="disk full"):
        sink.finish()


def test_an_abandoned_partition_ends_its_thread_and_lets_go(tmp_path: Path) -> None:
    before = threading.active_count()
    sink = WriterSink([ParquetWriter(tmp_path, "w0", "r")])
    part = sink.build_part("out", "0", None)
    part.write_batch(_items(1))
    sink.abandon()
    assert threading.active_count() <= before
    other = WriterSink([ParquetWriter(tmp_path, "w0", "r")]).build_part("out", "0", None)
    other.write_batch(_items(1))
    other.close()
    assert len(lake_rows(tmp_path)["trades"]) == 10


def test_jsonl_is_exact_and_can_go_back(tmp_path: Path) -> None:
    path = tmp_path / "out" / "rows.jsonl"
    items = _items(4)
    writer = JsonlWriter(path)
    writer.write(items[0])
    state = writer.snapshot()
    writer.write(items[1])
    del writer
    again = JsonlWriter(path)
    again.restore(state)
    for item in items[1:]:
        again.write(item)
    again.close()
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == 80
    assert [r["row_sequence"] for r in rows if r["table"] == "trades" and r["shard"] == 0] == [
        *range(20)
    ]
    assert Decimal(rows[0]["price"]) == items[0].tables["trades"].column("price")[0].as_py()
    assert rows[0]["ts_event"].endswith("Z") and len(rows[0]["ts_event"]) == 30
    with pytest.raises(SinkError, match="is not the file"):
        JsonlWriter(tmp_path / "none.jsonl").restore(state)
    other = parse_sink(f"jsonl:{path}").open("w1")
    other.write(items[0])
    other.close()
    assert (tmp_path / "out" / "rows.w1.jsonl").exists()


def test_jsonl_to_standard_output(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    writer = JsonlWriter(None)
    writer.write(_items(1)[0])
    writer.restore(writer.snapshot())
    writer.close()
    lines = capsysbinary.readouterr().out.splitlines()
    assert len(lines) == 20
    assert {json.loads(line)["table"] for line in lines} == {"trades", "bars"}


def test_json_of_every_table_has_plain_values() -> None:
    feed = Feed(np.random.default_rng(0))
    for table in TABLES.values():
        batch = feed.batch(table, 0, 30)
        for source in (batch, pa.Table.from_batches([batch.slice(0, 9), batch.slice(9)])):
            rows = list(json_rows(source))
            assert json.loads(json.dumps(rows)) == rows
            assert [r["row_sequence"] for r in rows] == batch.column("row_sequence").to_pylist()


@pytest.mark.parametrize(
    ("units", "text"),
    [(0, "0"), (1, "0.000000000001"), (15 * 10**11, "1.5"), (10**27, "1000000000000000"),
     (-25 * 10**11, "-2.5"), (-1, "-0.000000000001"),
     (123456789012345678901, "123456789.012345678901")],
)  # fmt: skip
def test_decimals_have_no_exponent_and_no_trailing_zeros(units: int, text: str) -> None:
    value = Decimal(units).scaleb(-12)
    column = pa.array([value, None], pa.decimal128(28, 12))
    rows = list(json_rows(pa.table({"p": column})))
    assert [row["p"] for row in rows] == [text, None]
