"""Frames for tests: from recorded captures, or from a few messages written in a test.

A capture is JSON lines with ``t`` = header, http, connect, send, recv. ``ts`` is a decimal number
of seconds and is read exactly. Lines are put in the order of ``ts`` (stably): the http answers
stand first in the file although streams were received before them.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import pyarrow as pa

from operators.venues.times import seconds_ns
from schemas.frames import FRAMES, FrameKind

_KINDS = {
    "header": FrameKind.HEADER,
    "http": FrameKind.HTTP,
    "connect": FrameKind.CONNECT,
    "send": FrameKind.SENT,
    "recv": FrameKind.DATA,
}


class Line(msgspec.Struct):
    t: str
    ts: msgspec.Raw = msgspec.Raw(b"0")
    conn: str = ""
    url: str | None = None
    addr: str | None = None
    data: str | None = None
    b64: str | None = None


class TestFrame(NamedTuple):
    """One frame as a test writes it; the defaults are those of a received message."""

    __test__ = False

    payload: bytes | str
    kind: FrameKind = FrameKind.DATA
    connection: str = "ws"
    note: str | None = None
    ts_recv: int = 1_600_000_000_000_000_000
    offset: int = 0


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


def read_lines(path: Path) -> list[bytes]:
    """Lines of a plain or .zst file."""
    if path.suffix == ".zst":
        with pa.CompressedInputStream(pa.OSFile(str(path)), "zstd") as file:
            data: bytes = file.read()
    else:
        data = path.read_bytes()
    return data.splitlines()


def capture_frames(path: Path) -> list[TestFrame]:
    """Every line of a capture as a frame, in the order of arrival."""
    found = []
    offset = 0
    for text in read_lines(path):
        line = msgspec.json.decode(text, type=Line)
        note = line.url if line.t == "http" else line.addr
        if line.t == "header":
            payload = text
        elif line.b64 is not None:
            payload = base64.b64decode(line.b64)
        else:
            payload = (line.data or "").encode()
        ts_recv = seconds_ns(bytes(line.ts).decode())
        found.append(TestFrame(payload, _KINDS[line.t], line.conn, note, ts_recv, offset))
        offset += len(text) + 1
    return sorted(found, key=lambda frame: frame.ts_recv)


def batches(rows: Sequence[TestFrame], size: int = 1_000) -> Iterator[pa.RecordBatch]:
    """The frames cut into batches of ``size``."""
    for start in range(0, len(rows), size):
        yield frames(rows[start : start + size])
