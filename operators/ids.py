"""Ids as sent by venues in 128 bits: exactly reversible, comparable, without a Python object.

The forms are those of :class:`operators.events.IdKind`. A text that fits none of them has no id:
the caller makes a dead letter (BAD_ID) of it, never a hash.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from marketflow.operators.events import IdKind
from marketflow.operators.kernels import ids as kernels

_UINT = re.compile(r"(?:0|[1-9][0-9]{0,38})\Z")
_HEX = re.compile(r"[0-9a-f]{24}\Z")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
_WORD = 2**64


class Id(NamedTuple):
    """Two uint64 words and how they read back."""

    hi: int
    lo: int
    kind: IdKind


NO_ID = Id(0, 0, IdKind.NONE)


def parse(text: str) -> Id | None:
    """The id of a text, or None where no exact form holds it."""
    if _UINT.match(text) and int(text) < 2**128:
        return Id(*divmod(int(text), _WORD), IdKind.UINT)
    if _HEX.match(text):
        return Id(*divmod(int(text, 16), _WORD), IdKind.HEX)
    if _UUID.match(text):
        return Id(*divmod(int(text.replace("-", ""), 16), _WORD), IdKind.UUID)
    if len(text) <= kernels.ASCII_LENGTH and text.isascii():
        packed = text.encode().ljust(kernels.ASCII_LENGTH, b"\0") + bytes([len(text)])
        return Id(*divmod(int.from_bytes(packed, "big"), _WORD), IdKind.ASCII)
    return None


def text_of(hi: int, lo: int, kind: int) -> str | None:
    """The text an id was sent as; None for IdKind.NONE."""
    number = hi * _WORD + lo
    match IdKind(kind):
        case IdKind.UINT:
            return str(number)
        case IdKind.HEX:
            return f"{number:024x}"
        case IdKind.UUID:
            digits = f"{number:032x}"
            return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
        case IdKind.ASCII:
            packed = number.to_bytes(16, "big")
            return packed[: packed[15]].decode("ascii")
    return None


def to_arrow(
    hi: NDArray[np.uint64], lo: NDArray[np.uint64], kinds: NDArray[np.int8]
) -> pa.StringArray:
    """The texts of many ids; kind NONE is null."""
    count = len(kinds)
    offsets = np.empty(count + 1, np.int32)
    out = np.empty(kernels.total_length(hi, lo, kinds), np.uint8)
    valid = np.zeros((count + 7) // 8, np.uint8)
    nulls = kernels.write_texts(hi, lo, kinds, offsets, out, valid)
    return pa.StringArray.from_buffers(
        count, pa.py_buffer(offsets), pa.py_buffer(out), pa.py_buffer(valid), nulls
    )


def from_spans(
    text: NDArray[np.uint8], starts: NDArray[np.int64], stops: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.int8], int]:
    """Ids of many ``text[start:stop]`` (bytes): hi, lo, kind and how many hold none.

    A span with start < 0 is null; where no form fits the kind is ``kernels.ids.NOT_AN_ID``.
    """
    count = len(starts)
    hi, lo = np.empty(count, np.uint64), np.empty(count, np.uint64)
    kinds = np.empty(count, np.int8)
    bad = kernels.parse_spans(text, starts, stops, hi, lo, kinds)
    return hi, lo, kinds, bad
