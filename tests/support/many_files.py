"""Lakes of many small files, and what makes few rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from marketflow.sinks.lake.writer import ParquetOptions, ParquetWriter
from tests.support.batches import Feed, Item

EAGER = ParquetOptions(seal_rows=30, stage_rows=20, snapshot_divisor=1000)


def few_items() -> list[Item]:
    """Three batches of ten trades."""
    feed = Feed(np.random.default_rng(3))
    return [feed.item(0, {"trades": 10}) for _ in range(3)]


def write_files(root: Path, items: int = 12, recovery: str | None = None) -> ParquetWriter:
    """The open writer of a lake with a file or two per item."""
    writer = ParquetWriter(root, "w0", recovery, EAGER)
    feed = Feed(np.random.default_rng(1))
    for number in range(items):
        writer.write(feed.item(number % 2, {"trades": 60, "bars": 40, "dead_letters": 30}))
        writer.snapshot()
    return writer


def written_lake(root: Path) -> Path:
    """A lake whose writer is closed."""
    write_files(root).close()
    return root
