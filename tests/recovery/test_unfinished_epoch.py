"""Killed while an epoch's snapshots are written: the half of them that was is no state.

The child is a flow on the real engine whose sink dies at a chosen snapshot, when those of the
steps before it are in the store already. The epoch is then done again, cut elsewhere.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

from marketflow.flows.runtime import engine, recovery
from marketflow.operators.engine import core_step
from marketflow.sinks.engine import WriterSink
from tests.support.patience import PATIENCE_S

_KEYS = [number % 2 for number in range(40)]


class _Part(StatefulSourcePartition[tuple[str, tuple[int, int]], int]):
    def __init__(self, at: int, size: int) -> None:
        self._at, self._size = at, size

    def next_batch(self) -> list[tuple[str, tuple[int, int]]]:
        keys = _KEYS[self._at : self._at + self._size]
        if not keys:
            raise StopIteration
        self._at += len(keys)
        return [(str(key), (key, 1)) for key in keys]

    def snapshot(self) -> int:
        return self._at


class _Source(FixedPartitionedSource[tuple[str, tuple[int, int]], int]):
    def __init__(self, size: int) -> None:
        self._size = size

    def list_parts(self) -> list[str]:
        return ["0"]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> _Part:
        return _Part(resume_state or 0, self._size)


class _Counter:
    """Core that numbers what comes."""

    def __init__(self, key: int) -> None:
        self._key, self._count = key, 0

    def apply(self, batch: int) -> list[int]:
        self._count += batch
        return [self._key, self._count]

    def snapshot(self) -> int:
        return self._count

    def restore(self, state: int) -> None:
        self._count = state


class _Rows(NamedTuple):
    shard: int
    tables: dict[str, Any]
    row: list[int]


class _File:
    """Writer of a JSON file; the process dies at its ``dies_at``-th snapshot."""

    def __init__(self, path: Path, dies_at: int) -> None:
        self._path, self._left = path, dies_at
        self._rows: list[list[int]] = []

    def write(self, rows: _Rows) -> None:
        self._rows.append(rows.row)

    def snapshot(self) -> list[list[int]]:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return list(self._rows)

    def restore(self, state: list[list[int]]) -> None:
        self._rows = list(state)

    def reassign(self, states: Sequence[Any], keeps: Any) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        self._path.write_text(json.dumps(self._rows))


def child(folder: Path, size: int, dies_at: int) -> None:
    """The flow, with so many items in an epoch."""
    recovery.prepare(folder, {}, 1)
    flow = Dataflow("counting")
    items = op.input("feed", flow, _Source(size))
    counted = core_step("count", items, _Counter)
    rows = op.map("rows", counted, lambda row: ("0", _Rows(0, {}, row)))
    sink = WriterSink([_File(folder.with_suffix(".json"), dies_at)])
    op.output("sinks", rows, sink)
    engine.drive(flow, recovery.store_to_start(folder, 0), epoch_ms=0)


def _start(folder: Path, size: int, dies_at: int) -> int:
    line = [sys.executable, "-m", "tests.recovery.test_unfinished_epoch", str(folder)]
    return subprocess.run([*line, str(size), str(dies_at)], timeout=PATIENCE_S).returncode


def _unfinished(folder: Path) -> set[tuple[str, str]]:
    with sqlite3.connect(folder / "process-0" / "part-0.sqlite3") as store:
        epoch = "(SELECT max(worker_frontier) FROM fronts)"
        return set(
            store.execute(f"SELECT step_id, state_key FROM snaps WHERE snap_epoch >= {epoch}")
        )


def test_what_was_written_of_an_unfinished_epoch_is_no_state(tmp_path: Path) -> None:
    folder = tmp_path / "recovery"
    assert _start(folder, 6, 3) == -signal.SIGKILL
    assert ("counting.count", "1") in _unfinished(folder), "the sink died too early"
    # The same epoch again, with key 0 alone; and death in the one after it.
    assert _start(folder, 1, 2) == -signal.SIGKILL
    assert _start(folder, 7, 0) == 0
    rows = json.loads((tmp_path / "recovery.json").read_text())
    assert sorted(rows) == [[key, n + 1] for key in (0, 1) for n in range(len(_KEYS) // 2)]


if __name__ == "__main__":
    child(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
