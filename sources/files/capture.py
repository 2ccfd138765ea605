"""``capture:`` JSONL recordings of a venue's REST answers and WebSocket messages.

A line is one JSON object: ``t`` (header, http, connect, send, recv, disconnect), ``ts`` (seconds
since 1970, number or text), ``conn``, ``url``, ``addr``, ``data`` (text) or ``b64`` (bytes).

Recorders write an answer when it is complete, so it can stand before messages that came earlier:
the lines of every file are put into order of ``ts`` (lines of one time stay as they are; a line
without a time stays behind the line before it; the header comes first). That takes a pass over
each file before its first frame and 36 bytes of memory per line; a compressed file is unpacked
into a temporary file of its own for that.
"""

from __future__ import annotations

import base64
import binascii
import mmap
import re
import tempfile
from array import array
from collections.abc import Sequence
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from marketflow.schemas.messages import frame_batches as framing
from marketflow.schemas.messages.frames import FrameKind
from marketflow.schemas.units import END_OF_TIME_NS, NS_PER_S
from marketflow.sources.files.bytes import compression, size_read
from marketflow.sources.files.bytes import head as head_of
from marketflow.sources.files.text_lines import LineReader
from marketflow.sources.reader import DEFAULT_LIMITS, Limits

_SECONDS: Final = re.compile(r"(\d{1,10})(?:\.(\d{1,9}))?", re.ASCII)
_KINDS: Final = {
    "header": FrameKind.HEADER,
    "http": FrameKind.HTTP,
    "connect": FrameKind.CONNECT,
    "send": FrameKind.SENT,
    "recv": FrameKind.DATA,
    "disconnect": FrameKind.DISCONNECT,
}


class _Stamp(msgspec.Struct):
    """What the first pass needs of a line."""

    t: str
    ts: msgspec.Raw = msgspec.Raw()


class _Line(msgspec.Struct):
    t: str
    ts: msgspec.Raw = msgspec.Raw()
    conn: str = ""
    url: str | None = None
    addr: str | None = None
    reason: str | None = None
    data: str | None = None
    b64: str | None = None


#: Bad JSON is a ValueError; the other is what is nested too deep.
_UNREADABLE: Final = (ValueError, RecursionError)
_stamp_of = msgspec.json.Decoder(_Stamp).decode
_line_of = msgspec.json.Decoder(_Line).decode
#: REST answers of some megabytes may stand first.
_HEAD_BYTES: Final = 1 << 23


class _Header(msgspec.Struct):
    t: str
    exchange: str = ""


_header_of = msgspec.json.Decoder(_Header).decode


def exchange_of(path: Path) -> str | None:
    """The exchange that a capture's header names; "" if it surely has no header, None where the
    first lines do not tell."""
    head = head_of(path, _HEAD_BYTES)
    whole = len(head) < _HEAD_BYTES
    lines = head.split(b"\n")
    for line in lines if whole else lines[:-1]:
        with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            found = _header_of(line)
            if found.t == "header" and found.exchange:
                return found.exchange
    return "" if whole and head.strip() else None


def first_messages(path: Path) -> list[bytes]:
    """What was received first, as far as it lies in the first lines of the capture."""
    found = []
    for line in head_of(path, _HEAD_BYTES).split(b"\n")[:-1]:
        with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            message = _line_of(line)
            if message.t == "recv" and message.data is not None:
                found.append(message.data.encode())
    return found


def seconds_ns(raw: bytes) -> int:
    """ns of a JSON number or string of seconds, exact: no float. ValueError if it is none."""
    text = raw.decode().strip('"')
    match = _SECONDS.fullmatch(text)
    try:
        if match is not None:
            ns = int(match[1]) * NS_PER_S + int((match[2] or "").ljust(9, "0"))
        else:
            exact = Decimal(text) * NS_PER_S
            # Before it becomes an integer: 1e999999 has a million digits.
            ns = int(exact) if 0 <= exact < END_OF_TIME_NS else -1
    except (ArithmeticError, ValueError):
        raise ValueError(f"ts {text[:99]!r} is not a number of seconds") from None
    if not 0 <= ns < END_OF_TIME_NS:
        raise ValueError(f"ts {text[:99]!r} is not within 1970 to 2261")
    return ns


class _Sorted:
    """The lines of one file in order of their time: line i is ``store[starts[i] : ends[i]]``."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self._spool: BinaryIO | None = None
        if compression(path) is not None:
            self._spool = tempfile.TemporaryFile(prefix="marketflow-")  # noqa: SIM115
        keys, offsets, sizes = array("q"), array("q"), array("i")
        #: Frames that follow the lines: what could not be read as lines.
        self.damages: list[tuple[FrameKind, int, bytes, str]] = []
        reader = LineReader([path], None, limits)
        while (batch := reader.read()) is not None:
            self._index(batch, keys, offsets, sizes)
        self.size = reader.position()[2]
        reader.close()
        # The offset in the file is where the line is, and in the spool where it will be found.
        self.offsets: NDArray[np.int64] = np.frombuffer(offsets, np.int64)
        self.sizes: NDArray[np.int32] = np.frombuffer(sizes, np.int32)
        self.order = np.argsort(np.frombuffer(keys, np.int64), kind="stable")
        if self._spool is not None:
            self._spool.flush()
            self._starts = np.cumsum(self.sizes, dtype=np.int64) - self.sizes
            self._map = _mapped(self._spool)
        else:
            self._starts = self.offsets
            with path.open("rb") as file:
                self._map = _mapped(file)

    def _index(
        self, batch: pa.RecordBatch, keys: array[int], offsets: array[int], sizes: array[int]
    ) -> None:
        kind = batch.column("kind")[0].as_py()
        payload = batch.column("payload")
        if kind == FrameKind.END:
            return
        if kind != FrameKind.DATA:
            note = batch.column("note")[0].as_py()
            offset = batch.column("offset")[0].as_py()
            self.damages.append((FrameKind(kind), offset, payload[0].as_py(), note))
            return
        # A line without a time keeps its place behind the one before it.
        last = keys[-1] if keys else -1
        for line in payload.to_pylist():
            try:
                stamp = _stamp_of(line)
                last = -1 if stamp.t == "header" else seconds_ns(bytes(stamp.ts))
            except _UNREADABLE:
                pass
            keys.append(last)
            sizes.append(len(line))
            if self._spool is not None:
                self._spool.write(line)
        offsets.extend(batch.column("offset").to_pylist())

    def __len__(self) -> int:
        return len(self.order)

    def line(self, index: int) -> bytes:
        """Line ``index`` in order."""
        row = self.order[index]
        start = int(self._starts[row])
        return self._map[start : start + int(self.sizes[row])]

    def close(self) -> None:
        if isinstance(self._map, mmap.mmap):
            self._map.close()
        if self._spool is not None:
            self._spool.close()


def _mapped(file: BinaryIO) -> mmap.mmap | bytes:
    file.seek(0, 2)
    if file.tell() == 0:
        return b""
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


class CaptureReader:
    """A frame per line, in order of time within each file.

    ``offset`` is where the line stands in the file, so it does not always rise. Position: (path,
    frames given of it, bytes of the feed before it); going on repeats the pass over that file.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        position: tuple[int, int, int] | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._paths = tuple(paths)
        self._limits = limits
        self._path, self._given, self._before = position or (0, 0, 0)
        self._lines: _Sorted | None = None

    def read(self) -> pa.RecordBatch | None:
        while self._path < len(self._paths):
            if self._lines is None:
                self._lines = _Sorted(self._paths[self._path], self._limits)
            lines = self._lines
            if self._given < len(lines):
                return self._next(lines)
            damaged = self._given - len(lines)
            if damaged < len(lines.damages):
                self._given += 1
                kind, offset, rest, reason = lines.damages[damaged]
                return framing.single(kind, self._before + offset, rest, reason)
            lines.close()
            self._lines = None
            self._path, self._given, self._before = self._path + 1, 0, self._before + lines.size
        if self._path > len(self._paths):
            return None
        self._path += 1
        return framing.single(FrameKind.END, self._before)

    def _next(self, lines: _Sorted) -> pa.RecordBatch:
        first = self._given
        last = min(first + self._limits.max_rows, len(lines))
        sizes = np.cumsum(lines.sizes[lines.order[first:last]], dtype=np.int64)
        last = first + max(1, int(np.searchsorted(sizes, self._limits.max_bytes, "right")))
        self._given = last
        frames = [_frame(lines.line(index)) for index in range(first, last)]
        kinds, stamps, connections, notes, payloads = zip(*frames, strict=True)
        return framing.batch(
            self._before + lines.offsets[lines.order[first:last]],
            pa.array(payloads, pa.large_binary()),
            ts_recv=np.array(stamps, np.int64),
            kinds=np.array(kinds, np.int8),
            connections=pa.array(connections, pa.string()).dictionary_encode(),
            notes=pa.array(notes, pa.string()),
        )

    def progress(self) -> tuple[int, int]:
        lines = self._lines
        share = 0.0 if lines is None else self._given / max(1, len(lines))
        return size_read(self._paths, self._path, share)

    def position(self) -> tuple[int, int, int]:
        return (self._path, self._given, self._before)

    def close(self) -> None:
        if self._lines is not None:
            self._lines.close()
            self._lines = None


def _frame(raw: bytes) -> tuple[int, int, str, str | None, bytes]:
    """(kind, ts_recv, connection, note, payload) of a line; BROKEN if it is not as documented."""
    try:
        line = _line_of(raw)
        kind = _KINDS.get(line.t)
        if kind is None:
            raise ValueError(f"t is {line.t!r}, none of {', '.join(_KINDS)}")
        if kind is FrameKind.HEADER:
            return kind, 0, "", None, raw
        ts = seconds_ns(bytes(line.ts))
        payload = _payload(line, needed=kind in (FrameKind.DATA, FrameKind.HTTP))
    except _UNREADABLE as error:
        return FrameKind.BROKEN, 0, "", f"not a capture line: {error}", raw
    note = {
        FrameKind.HTTP: line.url,
        FrameKind.CONNECT: line.addr,
        FrameKind.DISCONNECT: line.reason,
    }.get(kind)
    return kind, ts, line.conn, note, payload


def _payload(line: _Line, needed: bool) -> bytes:
    if line.data is not None:
        return line.data.encode()
    if line.b64 is not None:
        try:
            return base64.b64decode(line.b64, validate=True)
        except binascii.Error as error:
            raise ValueError(f"b64: {error}") from error
    if needed:
        raise ValueError("neither data nor b64")
    return b""
