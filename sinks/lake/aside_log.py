"""The aside log: rows that a snapshot counts on and that no file holds yet.

One file per *generation*, ``log-<generation>.rows``: a header, then records, appended at
snapshots only. A record says either *rows of this partition* (an Arrow IPC stream follows) or
*this partition was sealed: forget its rows so far*. A generation starts as a whole file under
its name, holding all pending rows; from then on its predecessors mean nothing and are removed.
Bytes after the position that a snapshot names are not trusted: they may be torn.
"""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import pyarrow as pa

from marketflow.schemas.recovery import START_ANEW
from marketflow.sinks.durable import replacing
from marketflow.sinks.errors import SinkError, disk_failed
from marketflow.sinks.lake.layout import Partition

_MAGIC: Final = b"MFLOG001"
_HEAD: Final = struct.Struct("<8sQ")
_RECORD: Final = struct.Struct("<IQ")
_NAME: Final = re.compile(r"log-(\d{8})\.rows")


class Record(NamedTuple):
    """``rows`` (file form) joined the partition; None: what it had until here was sealed."""

    partition: Partition
    rows: pa.RecordBatch | None


class Position(NamedTuple):
    """A place in the log. Generation 0: there is no log and nothing pending."""

    generation: int
    length: int


NOWHERE: Final = Position(0, 0)


class AsideLog:
    """The log of one run. ``cleared``: the generation that an earlier end of the run cleared (0:
    none), so that numbers never come twice. Every method may raise LakeFailed."""

    def __init__(self, folder: Path, cleared: int) -> None:
        self._folder = folder
        self._file: BinaryIO | None = None
        self.generation = max([g for g, _ in self._generations()], default=0)
        self.exists = self.generation > 0
        self.generation = max(self.generation, cleared)
        self.length = 0

    def _generations(self) -> list[tuple[int, Path]]:
        found = []
        for path in self._folder.iterdir():
            match = _NAME.fullmatch(path.name)
            if match:
                found.append((int(match[1]), path))
        return sorted(found)

    def _path(self, generation: int) -> Path:
        return self._folder / f"log-{generation:08d}.rows"

    @property
    def is_open(self) -> bool:
        """Whether records can be appended (a generation was begun by this process)."""
        return self._file is not None

    @property
    def position(self) -> Position:
        return Position(self.generation, self.length) if self._file is not None else NOWHERE

    def append(self, records: Iterable[Record]) -> None:
        """Append to the open generation and make it durable."""
        assert self._file is not None
        try:
            for record in records:
                _write_record(self._file, record)
            self._file.flush()
            os.fsync(self._file.fileno())
            self.length = self._file.tell()
        except OSError as error:
            raise disk_failed("cannot write", self._path(self.generation), error) from error

    def begin(self, records: Iterable[Record]) -> None:
        """Start a new generation with exactly these records and forget all before it."""
        path = self._path(self.generation + 1)
        try:
            with replacing(path) as file:
                file.write(_HEAD.pack(_MAGIC, 0))
                for record in records:
                    _write_record(file, record)
                length = file.tell()
                file.seek(0)
                file.write(_HEAD.pack(_MAGIC, length))
            appended = path.open("ab")
            self._remove_before(self.generation + 1)
        except OSError as error:
            raise disk_failed("cannot write", path, error) from error
        self.release()
        self._file, self.length = appended, length
        self.generation += 1
        self.exists = True

    def _remove_before(self, generation: int) -> None:
        for found, path in self._generations():
            if found < generation:
                path.unlink()

    def read(self, wanted: Position | None) -> Iterator[Record]:
        """Records of the newest generation: up to ``wanted`` where that is of this generation,
        else its first, complete part. None: everything that can be read (salvage).

        Raises SinkError when the log is older or shorter than ``wanted``.
        """
        path = self._path(self.generation)
        if wanted is not None and wanted.generation > self.generation:
            raise _older(self._folder)
        if not self.exists:
            return
        try:
            with path.open("rb") as file:
                magic, head = _HEAD.unpack(file.read(_HEAD.size))
                assert magic == _MAGIC, f"{path} is no aside log"
                end = os.fstat(file.fileno()).st_size
                if wanted is not None:
                    same = wanted.generation == self.generation
                    if same and wanted.length > end:
                        raise _older(path)
                    end = wanted.length if same else head
                yield from _read_records(file, end)
        except OSError as error:
            raise disk_failed("cannot read", path, error) from error

    def clear(self) -> None:
        """Remove the log: every row of it is in a sealed file."""
        self.release()
        try:
            self._remove_before(self.generation + 1)
            self.exists = False
        except OSError as error:
            raise disk_failed("cannot remove the log in", self._folder, error) from error

    def release(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _older(path: Path) -> SinkError:
    return SinkError(
        f"{path} is older than the recovery folder that names it: one of the two was replaced; "
        f"put back the one that fits, or {START_ANEW}"
    )


def _write_record(file: BinaryIO, record: Record) -> None:
    partition = record.partition
    header = {"table": partition.table, "day": partition.day, "venue": partition.venue}
    text = json.dumps({**header, "sealed": record.rows is None}).encode()
    payload = _ipc(record.rows) if record.rows is not None else b""
    file.write(_RECORD.pack(len(text), len(payload)))
    file.write(text)
    file.write(payload)


def _ipc(rows: pa.RecordBatch) -> pa.Buffer:
    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, rows.schema) as writer:
        writer.write_batch(rows)
    return stream.getvalue()


def _read_records(file: BinaryIO, end: int) -> Iterator[Record]:
    """Records that end at or before ``end``; stops at the first that does not or is torn (a
    power failure can leave the length without the bytes; only salvage reads that far)."""
    while file.tell() + _RECORD.size <= end:
        text_length, length = _RECORD.unpack(file.read(_RECORD.size))
        if file.tell() + text_length + length > end:
            return
        try:
            header: dict[str, Any] = json.loads(file.read(text_length))
            partition = Partition(header["table"], header["day"], header["venue"])
            if header["sealed"]:
                yield Record(partition, None)
                continue
            rows = pa.ipc.open_stream(file.read(length)).read_next_batch()
        except (ValueError, pa.ArrowException):
            return
        yield Record(partition, rows)
