"""Building batches of frames, without a Python object per row where there are many."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from marketflow.schemas.messages.frames import FRAMES, FrameKind

_NO_CONNECTION = pa.array([""], pa.string())


def payloads(data: pa.Buffer, bounds: NDArray[np.int64]) -> pa.LargeBinaryArray:
    """``data[bounds[i]:bounds[i + 1]]`` as a column, without copying."""
    array = pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(bounds) - 1, [None, pa.py_buffer(bounds), data]
    )
    return array


def batch(
    offsets: NDArray[np.int64],
    payload: pa.LargeBinaryArray,
    *,
    ts_recv: NDArray[np.int64] | None = None,
    kinds: NDArray[np.int8] | None = None,
    connections: pa.DictionaryArray | None = None,
    notes: pa.StringArray | None = None,
) -> pa.RecordBatch:
    """Frames of kind DATA without arrival time, connection and note unless they are given."""
    n = len(offsets)
    if ts_recv is None:
        ts_recv = np.zeros(n, np.int64)
    if kinds is None:
        kinds = np.full(n, FrameKind.DATA, np.int8)
    if connections is None:
        connections = pa.DictionaryArray.from_arrays(
            pa.array(np.zeros(n, np.int32)), _NO_CONNECTION
        )
    if notes is None:
        notes = pa.nulls(n, pa.string())
    columns = [pa.array(offsets), pa.array(ts_recv), pa.array(kinds), connections, notes, payload]
    return pa.RecordBatch.from_arrays(columns, schema=FRAMES)


def single(
    kind: FrameKind, offset: int, payload: bytes = b"", note: str | None = None
) -> pa.RecordBatch:
    """One frame."""
    return batch(
        np.array([offset], np.int64),
        pa.array([payload], pa.large_binary()),
        kinds=np.array([kind], np.int8),
        notes=pa.array([note], pa.string()),
    )


def noted(n: int, notes: Sequence[tuple[int, str]]) -> pa.StringArray:
    """A note column that is null but for the rows in ``notes`` (row, text)."""
    if not notes:
        return pa.nulls(n, pa.string())
    column: list[str | None] = [None] * n
    for row, text in notes:
        column[row] = text
    return pa.array(column, pa.string())


def stream(offset: int, rows: pa.RecordBatch, note: str) -> pa.RecordBatch:
    """One DATA frame: the rows as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_batch(rows)
    data = sink.getvalue()
    payload = payloads(data, np.array([0, data.size], np.int64))
    return batch(np.array([offset], np.int64), payload, notes=pa.array([note], pa.string()))
