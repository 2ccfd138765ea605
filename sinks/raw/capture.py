"""Raw frames as one JSONL recording, a line per frame: what ``capture:PATH`` reads back.

Lines are appended; a header that names the venue comes first. ``idle`` and ``close`` make them
durable. Bytes that are no UTF-8 are written as base64.
"""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from marketflow.schemas.messages.frames import FrameKind
from marketflow.schemas.units import NS_PER_S
from marketflow.sinks.errors import RECORD_AGAIN, SinkError, disk_failed

_WORDS: Final = {
    FrameKind.DATA: "recv",
    FrameKind.HTTP: "http",
    FrameKind.CONNECT: "connect",
    FrameKind.SENT: "send",
    FrameKind.DISCONNECT: "disconnect",
}
_NOTES: Final = {
    FrameKind.HTTP: "url",
    FrameKind.CONNECT: "addr",
    FrameKind.DISCONNECT: "reason",
}


class CaptureWriter:
    """Appends the frames of one venue to ``path``. Raises SinkError, LakeFailed."""

    def __init__(self, path: Path, venue: str) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab")
        except OSError as error:
            raise SinkError(f"cannot record into {path}: {error.strerror}") from None
        self._dirty = True
        if self._file.tell() == 0:
            self._line({"t": "header", "format": 2, "exchange": venue})

    def write(self, frames: pa.RecordBatch) -> None:
        """Append frames."""
        names = ("kind", "ts_recv", "connection", "note", "payload")
        try:
            for row in zip(*(frames.column(name).to_pylist() for name in names), strict=True):
                self._line(_fields(*row))
        except OSError as error:
            raise disk_failed("cannot write", self._path, error, RECORD_AGAIN) from error
        self._dirty = True

    def _line(self, fields: dict[str, Any]) -> None:
        self._file.write(json.dumps(fields, ensure_ascii=False).encode() + b"\n")

    def idle(self) -> None:
        """Make durable what was written."""
        if not self._dirty:
            return
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise disk_failed("cannot write", self._path, error, RECORD_AGAIN) from error
        self._dirty = False

    def close(self) -> None:
        """Make everything durable and let go."""
        self.idle()
        self._file.close()


def _fields(
    kind: int, ts_recv: int, connection: str, note: str | None, payload: bytes
) -> dict[str, Any]:
    seconds = f"{ts_recv // NS_PER_S}.{ts_recv % NS_PER_S:09d}"
    # Exact to the ns: as text, for a JSON number would be read as a float by others.
    fields: dict[str, Any] = {"t": _WORDS[FrameKind(kind)], "conn": connection, "ts": seconds}
    if note is not None:
        fields[_NOTES[FrameKind(kind)]] = note
    if payload:
        try:
            fields["data"] = payload.decode()
        except UnicodeDecodeError:
            fields["b64"] = base64.b64encode(payload).decode()
    elif kind in (FrameKind.DATA, FrameKind.HTTP):
        fields["data"] = ""
    return fields
