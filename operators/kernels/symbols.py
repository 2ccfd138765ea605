"""Symbols as bytes to instrument indices: an open-addressing hash table in one flat array.

A symbol of up to 24 bytes is three words. Only symbols that stand in JSON as they are (no escapes,
no control bytes) are in the table; others are not found, and their messages take another way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from marketflow.operators.kernels.words import word
from marketflow.schemas.kernel import bare_kernel

MAX_BYTES: Final = 24
_FACTOR: Final = -7_046_029_254_386_353_131  # 2**64 / golden ratio, odd

#: Row h: the symbol's three words, and index * 32 + length (0: the slot is free; no symbol is
#: empty). The length tells a symbol from itself with NULs behind it.
Symbols = NDArray[np.int64]


@bare_kernel
def _slot(first: int, second: int, third: int, slots: int) -> Any:
    mixed = (first ^ (second * 31) ^ (third * 961)) * np.int64(_FACTOR)
    return ((mixed >> 32) ^ mixed) & (slots - 1)


@bare_kernel
def _masked(at: int, length: int) -> Any:
    """The first ``length`` bytes from ``at`` on as a word."""
    if length <= 0:
        return np.int64(0)
    value = word(at)
    if length < 8:
        value &= (np.int64(1) << np.int64(8 * length)) - 1
    return value


@bare_kernel
def find_symbol(symbols: Symbols, start: int, end: int) -> int:
    """Index of the symbol from address ``start`` to ``end``; -1 if it is not there."""
    if end - start > MAX_BYTES or end <= start:
        return -1
    first = _masked(start, end - start)
    second = _masked(start + 8, end - start - 8)
    third = _masked(start + 16, end - start - 16)
    slot = _slot(first, second, third, len(symbols))
    while symbols[slot, 3] != 0:
        same = symbols[slot, 0] == first and symbols[slot, 1] == second
        if same and symbols[slot, 2] == third and symbols[slot, 3] & 31 == end - start:
            return int(symbols[slot, 3] >> 5)
        slot = (slot + 1) & (len(symbols) - 1)
    return -1


def make_symbols(texts: Sequence[str]) -> Symbols:
    """The table of symbols, index = position."""
    return with_symbols(np.zeros((16, 4), np.int64), texts, 0)


def with_symbols(symbols: Symbols, texts: Sequence[str], first: int) -> Symbols:
    """The table with these symbols too, whose indices begin at ``first``: the same array while it
    has room for twice as many, else a larger one."""
    count = first + len(texts)
    if 2 * count >= len(symbols):
        known = symbols[symbols[:, 3] != 0]
        symbols = np.zeros((1 << (2 * count).bit_length(), 4), np.int64)
        for row in known:
            symbols[_free_slot(symbols, row)] = row
    for index, text in enumerate(texts, first):
        data = text.encode()
        plain = all(byte >= 32 and byte not in b'"\\' for byte in data)
        if not plain or not 0 < len(data) <= MAX_BYTES:
            continue
        row = np.empty(4, np.int64)
        row[:3] = np.frombuffer(data.ljust(MAX_BYTES, b"\0"), "<i8")
        row[3] = index * 32 + len(data)
        symbols[_free_slot(symbols, row)] = row
    return symbols


def _free_slot(symbols: Symbols, row: NDArray[np.int64]) -> int:
    """Where a symbol that is not in the table goes."""
    slot = int(_slot(row[0], row[1], row[2], len(symbols)))
    while symbols[slot, 3]:
        slot = (slot + 1) % len(symbols)
    return slot
