"""Compiled scans over raw bytes: where messages end, where lines start, and packing them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from marketflow.schemas.kernel import kernel
from marketflow.schemas.units import END_OF_TIME_NS

Bytes = NDArray[np.uint8]
Indices = NDArray[np.int64]

_MAX_SECONDS_DIGITS = 19
_NEWLINES = np.uint64(0x0A0A0A0A0A0A0A0A)
_ONES = np.uint64(0x0101010101010101)
_TOP_BITS = np.uint64(0x8080808080808080)


@kernel
def cut_prefixed(data: Bytes, start: int, stop: int, max_messages: int) -> int:
    """End of the last whole message in ``data[start:stop]``: 2-byte big-endian length, body."""
    at = start
    while max_messages > 0 and at + 2 <= stop:
        end = at + 2 + int(np.int64(data[at]) << 8 | np.int64(data[at + 1]))
        if end > stop:
            break
        at = end
        max_messages -= 1
    return at


@kernel
def cut_records(data: Bytes, start: int, stop: int, max_messages: int) -> tuple[int, bool]:
    """End of the last whole DBN record in ``data[start:stop]``, and whether one is impossible.

    The first byte of a record is its length in 4-byte words; a header alone has 4 of them.
    """
    at = start
    while max_messages > 0 and at < stop:
        words = int(np.int64(data[at]))
        if words < 4:
            return at, True
        if at + 4 * words > stop:
            break
        at += 4 * words
        max_messages -= 1
    return at, False


@kernel
def split_lines(
    data: Bytes, start: int, stop: int, ended: bool, starts: Indices, ends: Indices
) -> tuple[int, int]:
    """Spans of the next lines of ``data[start:stop]``, as many as there is room for.

    Returns (count, where the next line starts). The newline and carriage returns before it are not
    part of a span; empty lines are left out. ``ended``: the last line needs no newline.
    """
    words = data[: len(data) & ~7].view(np.uint64)
    whole = stop >> 3
    count = 0
    line = start
    at = start
    while count < len(starts) and at < stop:
        while at < stop and data[at] != 10:
            at += 1
            if at & 7 == 0:
                # Eight bytes at a time; only a zero byte of (word xor newlines) borrows.
                word = at >> 3
                while word < whole and (
                    ((words[word] ^ _NEWLINES) - _ONES) & ~(words[word] ^ _NEWLINES) & _TOP_BITS
                ) == np.uint64(0):
                    word += 1
                at = min(word << 3, stop)
        if at == stop and not ended:
            break
        end = at
        while end > line and data[end - 1] == 13:
            end -= 1
        if end > line:
            starts[count] = line
            ends[count] = end
            count += 1
        at = min(at + 1, stop)
        line = at
    return count, line


@kernel
def pack(data: Bytes, starts: Indices, ends: Indices, out: Bytes, bounds: Indices) -> None:
    """Copy the spans one behind the other; ``bounds`` (one more than spans) says where they are."""
    at = 0
    bounds[0] = 0
    for i in range(len(starts)):
        size = ends[i] - starts[i]
        out[at : at + size] = data[starts[i] : ends[i]]
        at += size
        bounds[i + 1] = at


@kernel
def pack_pairs(
    data: Bytes,
    starts: Indices,
    ends: Indices,
    other: Bytes,
    other_starts: Indices,
    other_ends: Indices,
    out: Bytes,
    bounds: Indices,
) -> None:
    """As :func:`pack`, each span followed by a newline and its partner from ``other``."""
    at = 0
    bounds[0] = 0
    for i in range(len(starts)):
        size = ends[i] - starts[i]
        out[at : at + size] = data[starts[i] : ends[i]]
        at += size
        out[at] = 10
        at += 1
        size = other_ends[i] - other_starts[i]
        out[at : at + size] = other[other_starts[i] : other_ends[i]]
        at += size
        bounds[i + 1] = at


@kernel
def take_stamps(data: Bytes, starts: Indices, ends: Indices, stamps: Indices) -> int:
    """Read ``<ns> `` at the start of every span and move the start behind it.

    A span without it (1 to 19 digits of a time before END_OF_TIME_NS, a blank, something behind)
    keeps its start and gets the stamp -1. Returns how many those are.
    """
    bad = 0
    for i in range(len(starts)):
        at = starts[i]
        end = ends[i]
        value = np.uint64(0)
        while at < end and at - starts[i] < _MAX_SECONDS_DIGITS and 48 <= data[at] <= 57:
            value = value * np.uint64(10) + np.uint64(data[at] - 48)
            at += 1
        whole = at > starts[i] and value < np.uint64(END_OF_TIME_NS)
        if whole and at + 1 < end and data[at] == 32:
            stamps[i] = np.int64(value)
            starts[i] = at + 1
        else:
            stamps[i] = -1
            bad += 1
    return bad
