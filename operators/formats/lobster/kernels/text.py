"""Text of LOBSTER rows to whole numbers, and why a row cannot be taken."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from marketflow.schemas.kernel import bare_kernel
from marketflow.schemas.units import NS_PER_DAY, NS_PER_S

#: Most levels per side of a book file (LOBSTER offers up to 200).
MAX_LEVELS: Final = 200
#: Why a frame needs Python: a halt, or bytes that could not be taken.
(
    WHY_HALT,
    WHY_COLUMNS,
    WHY_TIME,
    WHY_TYPE,
    WHY_SIZE,
    WHY_PRICE,
    WHY_DIRECTION,
    WHY_ORDER,
    WHY_BOOK,
    WHY_LEVELS,
    WHY_CUT,
    WHY_UNPACKED,
) = range(12)

_EMPTY_PRICE = 9_999_999_999
#: Most shares that decimal128(28, 12) holds.
_MOST_SHARES = 10**16 - 1
_COMMA, _NEWLINE, _DOT, _MINUS = 44, 10, 46, 45
#: Digits that surely fit an int64.
_DIGITS = 18


@bare_kernel
def _integer(text: NDArray[np.uint8], at: int, end: int) -> tuple[Any, int]:
    """(value, position after it) of a whole number; position -1: there is none."""
    negative = at < end and text[at] == _MINUS
    if negative:
        at += 1
    start = at
    value = np.int64(0)
    while at < end and 48 <= text[at] <= 57:
        value = value * 10 + (np.int64(text[at]) - 48)
        at += 1
        if at - start > _DIGITS:
            return 0, -1
    if at == start:
        return 0, -1
    if negative:
        value = -value
    return value, at


@bare_kernel
def _time(text: NDArray[np.uint8], at: int, end: int) -> tuple[Any, int]:
    """(ns since midnight, position after it) of ``34200.017459617``; position -1: no time."""
    seconds, at = _integer(text, at, end)
    if at < 0 or seconds < 0 or seconds >= NS_PER_DAY // NS_PER_S:
        return 0, -1
    ns = np.int64(seconds * NS_PER_S)
    if at < end and text[at] == _DOT:
        at += 1
        unit = NS_PER_S // 10
        while at < end and 48 <= text[at] <= 57:
            if unit > 0:
                ns += (np.int64(text[at]) - 48) * unit
            elif unit == 0 and text[at] >= 53:
                ns += 1
            # Below a ns stands the noise of a float: 43002.632812672004 is rounded.
            unit = unit // 10 if unit > 0 else -1
            at += 1
    return ns, at


@bare_kernel
def read_message(
    text: NDArray[np.uint8], at: int, end: int, fields: NDArray[np.int64]
) -> tuple[int, int]:
    """Read time, type, order id, size, price, direction; returns (why or -1, position after)."""
    fields[0], at = _time(text, at, end)
    if at < 0:
        return WHY_TIME, at
    for column in range(1, 6):
        if at >= end or text[at] != _COMMA:
            return WHY_COLUMNS, at
        fields[column], at = _integer(text, at + 1, end)
        if at < 0:
            return WHY_COLUMNS, at
    if at < end and text[at] != _NEWLINE:
        return WHY_COLUMNS, at
    kind = fields[1]
    if kind < 1 or kind > 7:
        return WHY_TYPE, at
    if kind == 7:
        return -1, at
    if fields[3] <= 0 or fields[3] > _MOST_SHARES:
        return WHY_SIZE, at
    if fields[4] <= 0:
        return WHY_PRICE, at
    if fields[5] != 1 and fields[5] != -1 and kind != 6:
        return WHY_DIRECTION, at
    if fields[2] < 0 and kind <= 4:
        return WHY_ORDER, at
    return -1, at


@bare_kernel
def read_book(
    text: NDArray[np.uint8],
    at: int,
    end: int,
    prices: NDArray[np.int64],
    sizes: NDArray[np.int64],
    levels: int,
    counts: NDArray[np.int64],
) -> tuple[int, int]:
    """Read a book row into ``prices[side, level]``: (why not or -1, levels of the row).

    ``levels`` is how many it must have, 0: any number.
    """
    counts[0] = counts[1] = 0
    level = 0
    while True:
        if level == MAX_LEVELS:
            return WHY_LEVELS, level
        for side in (1, 0):
            price, at = _integer(text, at, end)
            if at < 0 or at >= end or text[at] != _COMMA:
                return WHY_BOOK, level
            size, at = _integer(text, at + 1, end)
            if at < 0 or size < 0 or size > _MOST_SHARES:
                return WHY_BOOK, level
            if abs(price) != _EMPTY_PRICE and size > 0:
                count = counts[side]
                better = 1 if side == 1 else -1
                if price <= 0:
                    return WHY_BOOK, level
                if count > 0 and (price - prices[side, count - 1]) * better <= 0:
                    return WHY_BOOK, level
                prices[side, count] = price
                sizes[side, count] = size
                counts[side] = count + 1
            if side == 1:
                if at >= end or text[at] != _COMMA:
                    return WHY_BOOK, level
                at += 1
        level += 1
        if at == end:
            break
        if text[at] != _COMMA:
            return WHY_BOOK, level
        at += 1
    return (-1 if levels in (0, level) else WHY_LEVELS), level
