"""A run over recorded topics whose history is replayed: what it read and what it made."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from confluent_kafka import KafkaException
from numpy.typing import NDArray

from marketflow.flows.replay.plan import Wanted
from marketflow.flows.replay.run import Order
from marketflow.flows.settings import Settings, load
from marketflow.schemas.tables import TABLES
from marketflow.sources.registry import open_reader, parse_source
from tests.support.lakes import table_rows
from tests.support.patience import PATIENCE_S, until
from tests.support.services.topics import Cluster

FEED = "sim:?events=4000&symbols=4&seed=5&format=binance"
SETTINGS = {"epoch_ms": 50, "batch_rows": 100}
STOPPED_AT = 1400


@dataclass(frozen=True)
class History:
    """Two topics of two partitions, what a run made of them, and when their frames arrived."""

    brokers: str
    topics: tuple[str, ...]
    lake: Path
    recovery: Path
    times: NDArray[np.int64]

    def at(self, share: float) -> str:
        """The time after this share of the frames."""
        ns = int(self.times[int(share * len(self.times))])
        return datetime.fromtimestamp(-(-ns // 10**6) / 1000, UTC).isoformat()

    def without_checkpoints(self, folder: Path) -> Path:
        """The run's folder as if no checkpoint had been taken."""
        folder.mkdir()
        shutil.copy(self.recovery / "run.json", folder)
        return folder

    def order(self, lake: Path, *, speed: str = "max", **wanted: Any) -> Order:
        topics = tuple(f"{topic}?venue=binance" for topic in self.topics)
        asked = Wanted(self.brokers, topics, **wanted)
        return Order(asked, "market_data", (f"parquet:{lake}",), speed)


def quick(**more: Any) -> Settings:
    """Settings of a replay here."""
    return load(**SETTINGS, **more)


def environment() -> dict[str, str]:
    """Variables of a run here."""
    return {**os.environ, **{f"MARKETFLOW_{k.upper()}": str(v) for k, v in SETTINGS.items()}}


def recorded_frames() -> pa.RecordBatch:
    """4000 frames of a simulated venue."""
    reader = open_reader(parse_source(FEED))
    batches = []
    while (batch := reader.read()) is not None:
        batches.append(batch)
    return pa.Table.from_batches(batches).combine_chunks().to_batches()[0].slice(0, 4000)


def parted(frames: pa.RecordBatch) -> list[pa.RecordBatch]:
    """The frames of every other symbol, each symbol with a connection of its own."""
    payloads = frames.column("payload").to_pylist()
    symbols = [(p.partition(b'"s":"')[2][:7] or p[11:18].upper()).decode() for p in payloads]
    place = frames.schema.get_field_index("connection")
    names = pa.array(symbols).dictionary_encode()
    named = frames.set_column(place, frames.schema.field(place), names)
    known = sorted(set(symbols))
    halves = np.array([known.index(symbol) % 2 for symbol in symbols])
    return [named.take(pa.array(np.flatnonzero(halves == half))) for half in (0, 1)]


def told(kafka: Cluster, topics: Sequence[str], group: str, partitions: int = 2) -> int:
    """Sum of the positions that a group was told."""
    try:
        return sum(kafka.told(group, topic, partitions) for topic in topics)
    except KafkaException:
        return 0  # a young broker does not know yet who keeps the group


def follow(kafka: Cluster, line: list[str], topics: Sequence[str], group: str, rows: int) -> None:
    """Run until everything is read, then stop."""
    child = subprocess.Popen(
        line, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until(lambda: child.poll() is not None or told(kafka, topics, group) >= rows)
    child.terminate()
    _, errors = child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 0, errors


def tables_of(lakes: list[Path]) -> dict[str, pa.Table]:
    """The tables of several lakes put together."""
    found = {}
    for name in TABLES:
        parts = [part for part in (table_rows(lake, name) for lake in lakes) if part is not None]
        if parts:
            order = [("shard", "ascending"), ("row_sequence", "ascending")]
            found[name] = pa.concat_tables(parts).sort_by(order).combine_chunks()
    return found


def wait_for_rows(child: subprocess.Popen[Any], lake: Path) -> None:
    """Until the run has logged rows, or is over."""
    until(lambda: child.poll() is not None or list(lake.glob("_marketflow/*/run-*/log-*")))
