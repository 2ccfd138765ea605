"""ITCH 5.0 messages and frames for tests, and the comparison of the decoder with its twin."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any

import pyarrow as pa

from marketflow.operators.events import EventBatch
from marketflow.operators.formats.itch.decoder import ItchDecoder
from marketflow.schemas.messages.frames import FrameKind
from tests.reference.itch import BODIES, ItchTwin, event_of
from tests.support.captures import TestFrame, frames

DAY = date(2019, 12, 30)
OPEN_NS = 34_200 * 10**9
#: Columns of the tables that the twin tells.
TOLD = {
    "instruments": ("instrument_id", "size_increment"),
    "market_status": ("status", "reason"),
    "statistics": ("kind", "value", "text"),
    "imbalances": (
        "side", "paired_size", "imbalance_size", "reference_price", "far_price", "near_price",
        "cross_type",
    ),
}  # fmt: skip


def message(letter: str, *body: Any, locate: int = 1, ns: int = OPEN_NS) -> bytes:
    """One message behind its length; ``body`` as in the twin's BODIES."""
    head = letter.encode() + struct.pack(">HH", locate, 0) + ns.to_bytes(6, "big")
    whole = head + struct.pack(BODIES[letter], *body)
    return struct.pack(">H", len(whole)) + whole


def add(
    order: int, side: bytes = b"B", size: int = 100, stock: bytes = b"ABC     ",
    price: int = 1_000_000, **where: int,
) -> bytes:  # fmt: skip
    """An A message."""
    return message("A", order, side, size, stock, price, **where)


def split(data: bytes) -> list[bytes]:
    """Whole messages of a block, each behind its length."""
    found, at = [], 0
    while at < len(data):
        end = at + 2 + int.from_bytes(data[at : at + 2], "big")
        found.append(data[at:end])
        at = end
    return found


def blocks(parts: Iterable[bytes | tuple[FrameKind, bytes]], start: int = 0) -> list[TestFrame]:
    """Frames at their offsets; bytes alone are DATA. No arrival times, as in a file."""
    found, offset = [], start
    for part in parts:
        kind, payload = part if isinstance(part, tuple) else (FrameKind.DATA, part)
        found.append(TestFrame(payload, kind, "", None, 0, offset))
        offset += len(payload)
    return found


def batch_of(rows: Sequence[TestFrame]) -> pa.RecordBatch:
    """One FRAMES batch with the frames' own offsets, 0 too."""
    batch = frames(rows)
    offsets = pa.array([row.offset for row in rows], pa.int64())
    return batch.set_column(0, batch.schema.field(0), offsets)


def decode(rows: Sequence[TestFrame], decoder: ItchDecoder | None = None) -> tuple[EventBatch, Any]:
    """One batch through a decoder."""
    return (decoder or ItchDecoder(DAY)).apply(batch_of(rows))


def told(batch: EventBatch) -> list[tuple[str, int, int, int, tuple[Any, ...]]]:
    """Rows of all tables as the twin tells them, per table in order."""
    found = []
    for name, table in batch.tables.items():
        times = table.column("ts_event").cast(pa.int64()).to_pylist()
        known = "sequence" in table.schema.names
        sequences = table.column("sequence").to_pylist() if known else [0] * table.num_rows
        instruments = table.column("instrument").to_pylist()
        values = zip(*(table.column(c).to_pylist() for c in TOLD[name]), strict=True)
        found += [
            (name, sequence, instrument, ts, row)
            for sequence, instrument, ts, row in zip(
                sequences, instruments, times, values, strict=True
            )
        ]
    return found


def buried(dead: pa.RecordBatch | None) -> list[tuple[int, str, bytes, int]]:
    """Dead letters as (offset, reason, raw, ts_recv)."""
    if dead is None:
        return []
    times = dead.column("ts_recv").cast(pa.int64()).to_pylist()
    columns = (dead.column(c).to_pylist() for c in ("offset", "reason", "raw"))
    return list(zip(*columns, times, strict=True))


def assert_equals_twin(rows: Sequence[TestFrame]) -> EventBatch:
    """Decode in one batch and message by message in the twin; everything must agree."""
    batch, dead = decode(rows)
    twin = ItchTwin(DAY)
    for frame in rows:
        assert isinstance(frame.payload, bytes)
        twin.frame(frame.offset, frame.kind, frame.payload)
    assert [event_of(row) for row in batch.rows] == twin.events
    assert list(batch.instruments.symbols) == twin.symbols
    assert batch.messages == twin.messages
    assert sorted(told(batch), key=lambda r: r[0]) == sorted(twin.rows, key=lambda r: r[0])
    assert buried(dead) == [(o, r.name.lower(), raw, ts) for o, r, raw, ts in twin.dead]
    return batch
