"""Feeds that benchmarks run on: real captures where they are, simulated ones everywhere."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from marketflow.operators.events import EVENT, EventBatch, EventKind
from marketflow.operators.formats.itch.decoder import ItchDecoder
from marketflow.operators.normalise.core import Normaliser
from marketflow.operators.normalise.feed import FeedDecoder
from marketflow.schemas.messages import frame_batches as framing
from marketflow.schemas.messages.frames import FrameKind
from marketflow.schemas.shards import ShardPlan
from marketflow.sources.reader import Limits
from marketflow.sources.registry import open_reader, parse_source

DAY: Final = "2026-03-02"
#: 64k messages in a batch, as a busy flow has them.
WIDE: Final = Limits(max_rows=262_144, max_bytes=16 << 20)

_DATA = Path(
    os.environ.get("MARKETFLOW_TEST_DATA") or Path(__file__).resolve().parents[3] / "shared/data"
)


def capture(name: str) -> Path | None:
    """A recorded file; None where the captures are not on this machine."""
    path = _DATA / name
    return path if path.is_file() else None


def frames_of(url: str, limits: Limits = WIDE) -> list[pa.RecordBatch]:
    """All batches of a source but its END, in memory."""
    reader = open_reader(parse_source(url), None, limits)
    batches = []
    while (batch := reader.read()) is not None:
        if batch.column("kind")[0].as_py() != FrameKind.END:
            batches.append(batch)
    reader.close()
    return batches


def itch_blocks(url: str, messages: int) -> list[pa.RecordBatch]:
    """Blocks of about 64k ITCH messages, at least so many in all: a short recorded file is repeated
    in its block, and the block is given again and again."""
    batches = frames_of(url)
    data = b"".join(batch.column("payload")[0].as_py() for batch in batches)
    count = ItchDecoder(date.fromisoformat(DAY)).apply(_block(data)).events.messages
    data *= max(1, WIDE.max_rows // count)
    return [_block(data)] * max(1, messages // (max(1, WIDE.max_rows // count) * count))


def _block(data: bytes) -> pa.RecordBatch:
    payload = framing.payloads(pa.py_buffer(data), np.array([0, len(data)], np.int64))
    return framing.batch(np.zeros(1, np.int64), payload)


def only(batches: list[pa.RecordBatch], words: str) -> pa.RecordBatch:
    """The frames whose bytes contain ``words``, as one batch."""
    table = pa.Table.from_batches(batches)
    texts = pa.chunked_array(
        [chunk.cast(pa.large_string()) for chunk in table.column("payload").chunks]
    )
    chosen = table.filter(pc.match_substring(texts, words)).combine_chunks()
    (batch,) = chosen.to_batches()
    return batch


def repeated(batch: pa.RecordBatch, times: int) -> pa.RecordBatch:
    """The frames so many times over."""
    (batch,) = pa.Table.from_batches([batch] * times).combine_chunks().to_batches()
    return batch


def by_shard(
    batches: list[pa.RecordBatch], decoder: FeedDecoder
) -> list[list[tuple[int, EventBatch]]]:
    """Event batches by shard of every frames batch: what the books step is given."""
    normaliser = Normaliser("bench", decoder, ShardPlan(0))
    return [normaliser.apply(batch).parts for batch in batches]


def plain_events(parts: list[list[tuple[int, EventBatch]]], most: int) -> NDArray[np.void]:
    """The first ``most`` rows that change books, in one array."""
    rows = np.concatenate([batch.rows for part in parts for _, batch in part])
    changes = (rows["kind"] <= EventKind.LEVEL) & (rows["instrument"] >= 0)
    chosen: NDArray[np.void] = rows[changes][:most].astype(EVENT)
    return chosen


class Deltas:
    """Single book changes of ITCH rows, as libraries without REPLACE and REDUCE want them."""

    DTYPE: Final = np.dtype(
        [
            ("instrument", "<i4"),
            ("action", "i1"),  # 1 add, 2 update to this size, 3 delete
            ("side", "i1"),
            ("order", "<i8"),
            ("price", "<i8"),
            ("size", "<i8"),
            ("ts", "<i8"),
        ]
    )

    def __init__(self, rows: NDArray[np.void]) -> None:
        self._open: dict[int, list[int]] = {}
        self._made: list[tuple[int, ...]] = []
        for row in rows.tolist():
            self._row(dict(zip(EVENT.names or (), row, strict=True)))
        self.rows = np.array(self._made, self.DTYPE)

    def _row(self, row: dict[str, int]) -> None:
        order, kind = row["order_lo"], row["kind"]
        where = (row["instrument"], row["ts_event"])
        if kind == EventKind.ADD:
            self._add(where, order, row["side"], row["price"], row["size"])
            return
        if order not in self._open:
            return
        side, price, left = self._open[order]
        if kind in (EventKind.EXECUTE, EventKind.REDUCE) and row["size"] < left:
            left -= row["size"]
            self._open[order][2] = left
            self._made.append((where[0], 2, side, order, price, left, where[1]))
            return
        del self._open[order]
        self._made.append((where[0], 3, side, order, price, left, where[1]))
        if kind == EventKind.REPLACE:
            self._add(where, row["trade_lo"], side, row["price"], row["size"])

    def _add(self, where: tuple[int, int], order: int, side: int, price: int, size: int) -> None:
        self._open[order] = [side, price, size]
        self._made.append((where[0], 1, side, order, price, size, where[1]))
