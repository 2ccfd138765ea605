"""Frames for tests: from recorded captures, or from a few messages written in a test."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from marketflow.schemas.messages.frames import FRAMES, FrameKind
from marketflow.sources.files.capture import CaptureReader


class TestFrame(NamedTuple):
    """One frame as a test writes it; the defaults are those of a received message."""

    payload: bytes | str
    kind: int = FrameKind.DATA
    connection: str = "ws"
    note: str | None = None
    ts_recv: int = 1_600_000_000_000_000_000
    offset: int = 0


TestFrame.__test__ = False  # type: ignore[attr-defined]  # no test, whatever its name


def frames(rows: Iterable[TestFrame | str]) -> pa.RecordBatch:
    """One FRAMES batch; a plain string is a received message."""
    items = [TestFrame(row) if isinstance(row, str) else row for row in rows]
    connections = pa.array([i.connection for i in items], pa.string()).dictionary_encode()
    payloads = [i.payload.encode() if isinstance(i.payload, str) else i.payload for i in items]
    columns = [
        pa.array([i.offset or n for n, i in enumerate(items)], pa.int64()),
        pa.array([i.ts_recv for i in items], pa.int64()),
        pa.array([int(i.kind) for i in items], pa.int8()),
        connections,
        pa.array([i.note for i in items], pa.string()),
        pa.array(payloads, pa.large_binary()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=FRAMES)


def columns(batch: pa.RecordBatch) -> list[pa.Array]:
    """Columns of a frames batch in the order of a TestFrame."""
    names = ("payload", "kind", "connection", "note", "ts_recv", "offset")
    return [batch.column(name) for name in names]


def read_lines(path: Path) -> list[bytes]:
    """Lines of a plain or .zst file."""
    if path.suffix == ".zst":
        with pa.CompressedInputStream(pa.OSFile(str(path)), "zstd") as file:
            data: bytes = file.read()
    else:
        data = path.read_bytes()
    return data.splitlines()


def capture_frames(path: Path) -> list[TestFrame]:
    """Every line of a capture as a frame, as ``capture:`` reads them; without the feed's end."""
    found = []
    reader = CaptureReader([path])
    while (batch := reader.read()) is not None:
        found += [
            TestFrame(*row) for row in zip(*map(pa.Array.to_pylist, columns(batch)), strict=True)
        ]
    reader.close()
    return [frame for frame in found if frame.kind != FrameKind.END]


def batches(rows: Sequence[TestFrame], size: int = 1_000) -> Iterator[pa.RecordBatch]:
    """The frames cut into batches of ``size``."""
    for start in range(0, len(rows), size):
        yield frames(rows[start : start + size])
