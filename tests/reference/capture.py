"""The obvious capture reader: all lines at once, json and Decimal, Python's stable sort."""

from __future__ import annotations

import base64
import json
from decimal import Decimal
from pathlib import Path

import pyarrow as pa

from marketflow.schemas.messages.frames import FrameKind

KINDS = {
    "header": FrameKind.HEADER,
    "http": FrameKind.HTTP,
    "connect": FrameKind.CONNECT,
    "send": FrameKind.SENT,
    "recv": FrameKind.DATA,
}

Frame = tuple[FrameKind, int, str, str | None, bytes]


def frames(path: Path) -> list[Frame]:
    """(kind, ts_recv, connection, note, payload) of every line of a well-formed .zst capture."""
    with pa.CompressedInputStream(pa.OSFile(str(path)), "zstd") as file:
        lines = file.read().splitlines()
    found: list[Frame] = []
    for line in lines:
        fields = json.loads(line, parse_float=Decimal)
        kind = KINDS[fields["t"]]
        if kind is FrameKind.HEADER:
            found.append((kind, 0, "", None, line))
            continue
        data = fields.get("data", "").encode() or base64.b64decode(fields.get("b64", ""))
        note = {FrameKind.HTTP: fields.get("url"), FrameKind.CONNECT: fields.get("addr")}.get(kind)
        ts = int(Decimal(fields["ts"]) * 10**9)
        found.append((kind, ts, fields.get("conn", ""), note, data))
    return sorted(found, key=lambda frame: frame[1])
