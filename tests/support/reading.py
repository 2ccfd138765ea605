"""Reading feeds in tests: every frame of a reader, also when it is stopped and opened again."""

from __future__ import annotations

import gzip
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from marketflow.schemas.messages.frames import FRAMES, FrameKind
from marketflow.sources.reader import Reader

Opener = Callable[[Any], Reader]


class Row(NamedTuple):
    """One frame."""

    kind: FrameKind
    offset: int
    ts_recv: int
    connection: str
    note: str | None
    payload: bytes


def rows_of(batch: pa.RecordBatch) -> list[Row]:
    """Frames of a batch, whose schema is checked."""
    assert batch.schema.equals(FRAMES)
    batch.validate(full=True)
    names = ("kind", "offset", "ts_recv", "connection", "note", "payload")
    columns = [batch.column(name).to_pylist() for name in names]
    return [Row(FrameKind(kind), *rest) for kind, *rest in zip(*columns, strict=True)]


def read_all(reader: Reader) -> list[Row]:
    """All frames; the last one is END, and nothing follows it."""
    rows: list[Row] = []
    while (batch := reader.read()) is not None:
        assert batch.num_rows > 0
        rows += rows_of(batch)
    assert reader.read() is None
    reader.close()
    assert [row.kind for row in rows].count(FrameKind.END) == 1
    assert rows[-1].kind is FrameKind.END
    return rows


def read_in_pieces(opener: Opener, batches: int = 1) -> list[Row]:
    """All frames of a feed whose reader is thrown away after every few batches."""
    rows: list[Row] = []
    position = None
    while True:
        reader = opener(pickle.loads(pickle.dumps(position)))
        got = 0
        while got < batches and (batch := reader.read()) is not None:
            rows += rows_of(batch)
            got += 1
        position = reader.position()
        reader.close()
        if got < batches:
            return rows


def joined(rows: list[Row]) -> list[Row]:
    """Neighbouring DATA frames as one: what block-wise readers give, however it was cut."""
    out: list[Row] = []
    for row in rows:
        before = out[-1] if out else None
        data = before is not None and row.kind is FrameKind.DATA is before.kind
        if before and data and before.offset + len(before.payload) == row.offset:
            out[-1] = before._replace(payload=before.payload + row.payload)
        else:
            out.append(row)
    return out


def write(path: Path, data: bytes) -> Path:
    """A file, compressed as its name says."""
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(data))
    elif path.suffix == ".zst":
        with pa.CompressedOutputStream(str(path), "zstd") as file:
            file.write(data)
    else:
        path.write_bytes(data)
    return path
