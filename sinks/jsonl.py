"""JSON lines: one object per row, to a file or to standard output; for looking and for pipes.

Decimals are strings without trailing zeros, times ISO 8601 in UTC with nine decimals, bytes
base64: nothing is rounded. ``table`` names the row's table.
"""

from __future__ import annotations

import base64
import fcntl
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

import pyarrow as pa

from marketflow.schemas.moments import datetime_at
from marketflow.schemas.recovery import START_ANEW
from marketflow.schemas.units import NS_PER_S
from marketflow.sinks.durable import lock
from marketflow.sinks.errors import SinkError, disk_failed
from marketflow.sinks.writer import RowsLike

_FEW: Final = 1000
_NAIVE_NS: Final = pa.timestamp("ns")


class JsonlWriter:
    """Writer of JSON lines to ``path``, or to standard output where it is None.

    - Unit of parallelism: a file, locked until it is closed.
    - The snapshot holds the file's length; restoring cuts it there. A fresh start replaces it.
    - Delivery: exactly once. Standard output cannot be taken back: at least once.
    - A slow reader of standard output blocks ``write``.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._begun = self._closed = False
        from msgspec.json import Encoder  # not for those who only ask for json_rows

        self._encode = Encoder().encode

    def fence(self) -> None:
        """Lock the file. SinkError where another writer has it."""
        if self._file is None:
            self._file = sys.stdout.buffer if self._path is None else self._locked(self._path)

    def _locked(self, path: Path) -> BinaryIO:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o666), "wb")
            if path.is_file() and not lock(file, fcntl.LOCK_EX):
                file.close()
                raise SinkError(
                    f"{path} is being written by another process: wait for it or stop it (a new "
                    "run may write to another file)"
                )
            return file
        except OSError as error:
            raise disk_failed("cannot open", path, error) from error

    def _out(self) -> BinaryIO:
        """The file, from now on ours to write."""
        assert not self._closed
        self.fence()
        assert self._file is not None
        if not self._begun:
            self._cut(0)
        return self._file

    def _cut(self, length: int) -> None:
        self._begun = True
        if self._path is not None and self._file is not None and self._path.is_file():
            self._file.truncate(length)
            self._file.seek(length)

    def write(self, rows: RowsLike) -> None:
        """Write every row as a line."""
        out = self._out()
        try:
            for table, batch in rows.tables.items():
                lines = [self._encode({"table": table, **row}) for row in json_rows(batch)]
                if lines:
                    out.write(b"\n".join(lines) + b"\n")
            if self._path is None:
                out.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise disk_failed("cannot write", self._path or "standard output", error) from error

    def snapshot(self) -> Any:
        """(version, length of the file)."""
        out = self._out()
        if self._path is None:
            return (1, 0)
        try:
            out.flush()
            os.fsync(out.fileno())
        except OSError as error:
            raise disk_failed("cannot write", self._path, error) from error
        return (1, out.tell())

    def restore(self, state: Any) -> None:
        """Cut the file to the snapshot's length."""
        if self._path is None:
            return
        version, length = state
        if version == 1 and length == 0:
            return  # nothing was written: a fresh start
        if version != 1 or not self._path.is_file() or self._path.stat().st_size < length:
            raise SinkError(
                f"{self._path} is not the file the recovery folder goes on from: put it back, or "
                f"{START_ANEW}"
            )
        self.fence()
        self._cut(length)

    def reassign(self, states: Sequence[Any], keeps: Callable[[int], bool]) -> Any:
        """State of a file of the new writer's own."""
        return (1, 0)

    def idle(self) -> None:
        """Make the lines visible."""
        if self._begun and not self._closed:
            self._out().flush()

    def close(self) -> None:
        """Flush; the file is complete."""
        if not self._closed:
            self._out().flush()
            self.abandon()

    def finish(self) -> None:
        """Nothing is left to do."""

    def abandon(self) -> None:
        """Let go of the file. Lines behind the last snapshot are cut by a restore."""
        self._closed = True
        if self._path is not None and self._file is not None:
            with suppress(OSError):
                self._file.close()


def json_rows(batch: pa.RecordBatch | pa.Table, *, trim: bool = True) -> Iterator[dict[str, Any]]:
    """Rows as dictionaries of exact JSON values. ``trim``: decimals without trailing zeros."""
    columns = [json_values(column, trim=trim) for column in batch.columns]
    names = batch.schema.names
    for values in zip(*columns, strict=True):
        yield dict(zip(names, values, strict=True))


def json_values(column: pa.Array | pa.ChunkedArray, *, trim: bool = True) -> list[Any]:
    """The values of a column as JSON can say them exactly."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return json_values(column.cast(kind.value_type), trim=trim)
    if pa.types.is_decimal(kind):
        return [_plain_decimal(text, trim) for text in _texts(column)]
    if pa.types.is_timestamp(kind):
        return [text and text.replace(" ", "T", 1) for text in _texts(column)]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _lists(column, trim)
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return [v if v is None else base64.b64encode(v).decode() for v in column.to_pylist()]
    if pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_boolean(kind):
        return list(column.to_pylist())
    if pa.types.is_floating(kind):
        # JSON has no NaN and no infinity.
        return [v if v is None or abs(v) < float("inf") else str(v) for v in column.to_pylist()]
    return [v if v is None else str(v) for v in column.to_pylist()]


def _texts(column: pa.Array | pa.ChunkedArray) -> list[str | None]:
    """Decimals and times as Arrow writes them. Few are written one by one: Arrow's casts come with
    ``pyarrow.compute``, whose import takes longer than most queries."""
    if len(column) <= _FEW:
        if pa.types.is_decimal(column.type):
            return [None if v is None else f"{v:f}" for v in column.to_pylist()]
        if column.type == _NAIVE_NS and isinstance(column, pa.Array):
            return [None if v is None else _time(v) for v in column.view(pa.int64()).to_pylist()]
    return list(column.cast(pa.string()).to_pylist())


def _time(ns: int) -> str:
    return f"{datetime_at(ns):%Y-%m-%d %H:%M:%S}.{ns % NS_PER_S:09d}"


def _plain_decimal(text: str | None, trim: bool) -> str | None:
    """Digits only, never an exponent."""
    if text is None:
        return None
    if "E" in text:
        text = _without_exponent(text)
    return text.rstrip("0").rstrip(".") if trim and "." in text else text


def _without_exponent(text: str) -> str:
    mantissa, _, exponent = text.partition("E")
    sign = "-" if mantissa.startswith("-") else ""
    whole, _, fraction = mantissa.lstrip("+-").partition(".")
    digits, point = whole + fraction, len(whole) + int(exponent)
    if point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    padded = digits.ljust(point, "0")
    return f"{sign}{padded[:point]}" + (f".{padded[point:]}" if padded[point:] else "")


def _lists(column: pa.Array | pa.ChunkedArray, trim: bool) -> list[Any]:
    """Lists of exact values, null where the list is null."""
    if isinstance(column, pa.ChunkedArray):
        return [row for chunk in column.chunks for row in _lists(chunk, trim)]
    values = json_values(column.flatten(), trim=trim)
    lengths = column.value_lengths().to_pylist()
    rows: list[Any] = []
    at = 0
    for length in lengths:
        rows.append(None if length is None else values[at : at + length])
        at += length or 0
    return rows
