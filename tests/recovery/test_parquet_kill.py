"""kill -9 of a process that writes a lake, again and again: the lake ends as if undisturbed.

The child plays the engine: after each snapshot it makes the snapshot durable and goes on; when it
starts, it goes back to the last durable one. The parent kills it at random moments.
"""

from __future__ import annotations

import pickle
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from marketflow.sinks.lake.writer import ParquetOptions, ParquetWriter
from tests.support.batches import Feed, Item
from tests.support.lake_model import Model, lake_rows
from tests.support.patience import PATIENCE_S, until
from tests.support.root import ROOT

ITEMS, KILLS = 400, 12
TABLES = ("trades", "bars", "dead_letters")
OPTIONS = ParquetOptions(seal_rows=400, stage_rows=100, log_slack_bytes=50_000)


def _items() -> list[Item]:
    feed = Feed(np.random.default_rng(11))
    return [
        feed.item(n % 3, dict.fromkeys(TABLES[: 1 + n % 3], 10 + n * 7 % 40)) for n in range(ITEMS)
    ]


def child(folder: Path) -> None:
    """Write all items, a snapshot every few; resume from the durable one."""
    writer = ParquetWriter(folder / "lake", "w0", "recovery", OPTIONS)
    store, at = folder / "snapshot", 0
    if store.exists():
        state, at = pickle.loads(store.read_bytes())
        writer.restore(state)
    for number, item in enumerate(_items()[at:], at + 1):
        writer.write(item)
        if number % 5 == 0 or number == ITEMS:
            temporary = folder / "snapshot.tmp"
            temporary.write_bytes(pickle.dumps((writer.snapshot(), number)))
            temporary.replace(store)
        time.sleep(0.001)
    writer.close()
    writer.finish()
    (folder / "done").touch()


def test_killed_at_random_moments(tmp_path: Path) -> None:
    chance = random.Random(5)
    kills = 0
    deadline = time.monotonic() + 3 * PATIENCE_S - 60
    while not (tmp_path / "done").exists():
        assert time.monotonic() < deadline
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.recovery.test_parquet_kill", str(tmp_path)], cwd=ROOT
        )
        if kills < KILLS:
            _until_writing(tmp_path)
            time.sleep(chance.random() * 0.15)
            process.kill()
            kills += 1
        code = process.wait()
        assert code in (0, -9), code
    assert kills >= 3
    model = Model()
    for item in _items():
        model.write(item)
    assert lake_rows(tmp_path / "lake") == model.rows
    assert not list(tmp_path.rglob("*.tmp"))
    assert not list(tmp_path.rglob("log-*"))


def _until_writing(folder: Path) -> None:
    """Imports take far longer than the writing: wait until the lock is taken anew."""
    lock = folder / "lake" / "_marketflow" / "w0" / "lock"
    before = lock.stat().st_mtime_ns if lock.exists() else 0
    until(lambda: lock.exists() and lock.stat().st_mtime_ns != before, "the child never began")


if __name__ == "__main__":
    child(Path(sys.argv[1]))
