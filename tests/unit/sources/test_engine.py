"""Feeds inside the engine: every batch once, graceful stop, resuming with the same sources."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main

from marketflow.schemas.messages.frames import FrameKind
from marketflow.sources.config import SourceConfig
from marketflow.sources.engine import FeedSource
from marketflow.sources.errors import SourceError
from marketflow.sources.reader import Limits
from marketflow.sources.registry import open_reader, parse_source
from tests.support.reading import Row, joined, read_all, rows_of, write

SMALL = Limits(max_rows=5, max_bytes=100)


class _Kept(StatelessSinkPartition[Any]):
    def __init__(self, out: list[Any]) -> None:
        self._out = out

    def write_batch(self, items: list[Any]) -> None:
        self._out += items


class Keep(DynamicSink[Any]):
    """Items into a list; calls ``after`` with it behind every write."""

    def __init__(self, out: list[Any]) -> None:
        self._out = out

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Kept:
        return _Kept(self._out)


def run(
    source: FeedSource, recovery: Path | None = None, stop_after: int = 0
) -> dict[str, list[Row]]:
    """Frames by feed key; sets the source's stop event after some batches."""
    out: list[Any] = []
    seen = [0]

    def count(item: Any) -> Any:
        seen[0] += 1
        if seen[0] == stop_after:
            source._stop.set()
        return item

    flow = Dataflow("feeds")
    stream = op.input("feed", flow, source)
    op.output("out", op.map("count", stream, count), Keep(out))
    config = RecoveryConfig(recovery) if recovery else None
    cli_main(flow, epoch_interval=timedelta(seconds=0), recovery_config=config)
    feeds: dict[str, list[Row]] = {}
    for key, batch in out:
        feeds.setdefault(key, []).extend(rows_of(batch))
    return feeds


@pytest.fixture
def specs(tmp_path: Path) -> list[SourceConfig]:
    itch = b"".join(b"\0\x0c" + b"S" + bytes([i] * 11) for i in range(100))
    write(tmp_path / "feed.itch.gz", itch)
    write(tmp_path / "lines", b"".join(b"%d {}\n" % i for i in range(1, 50)))
    return [
        parse_source(f"itch:{tmp_path}/feed.itch.gz?date=2019-12-30"),
        parse_source(f"binance:{tmp_path}/lines?market=spot"),
    ]


def whole(spec: SourceConfig) -> list[Row]:
    return joined(read_all(open_reader(spec)))


def test_all_frames_of_all_feeds(specs: list[SourceConfig]) -> None:
    feeds = run(FeedSource(specs, threading.Event(), limits=SMALL))
    assert {key: joined(rows) for key, rows in feeds.items()} == {
        str(i): whole(spec) for i, spec in enumerate(specs)
    }


def test_a_stopped_run_goes_on_where_it_was(specs: list[SourceConfig], tmp_path: Path) -> None:
    recovery = tmp_path / "recovery"
    recovery.mkdir()
    init_db_dir(recovery, 1)
    found: dict[str, list[Row]] = {"0": [], "1": []}
    for _ in range(4):
        source = FeedSource(specs, threading.Event(), limits=SMALL)
        for key, rows in run(source, recovery, stop_after=9).items():
            found[key] += rows
        assert source._stop.is_set()
        assert found["0"][-1].kind is FrameKind.DATA
    for key, rows in run(FeedSource(specs, threading.Event()), recovery).items():
        found[key] += rows
    assert {key: joined(rows) for key, rows in found.items()} == {
        str(i): whole(spec) for i, spec in enumerate(specs)
    }
    # A finished feed stays finished.
    assert run(FeedSource(specs, threading.Event()), recovery) == {}
    # Fewer feeds than before: the parts of the others must stay listed, or the engine panics.
    assert run(FeedSource(specs[:1], threading.Event(), parts=2), recovery) == {}


def test_resuming_with_another_source_is_refused(specs: list[SourceConfig]) -> None:
    source = FeedSource(specs, threading.Event())
    part = source.build_part("feed", "0", None)
    state = part.snapshot()
    part.close()
    other = FeedSource(specs[::-1], threading.Event())
    with pytest.raises(SourceError, match="resume with the same --source in the same order"):
        other.build_part("feed", "0", state)
    with pytest.raises(SourceError, match="format 99"):
        source.build_part("feed", "0", (99, *state[1:]))
