"""Pieces of JSON read where they stand, for the byte scans of venues.

Every function takes an address and returns the one after what it read; -1 means "not that", and an
address of -1 is passed on, so that a chain of pieces needs one check at its end. The caller sees
to it that the last byte of the payload is ``}``: no piece here goes beyond it.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from marketflow.operators.kernels.numbers import LIMITS
from marketflow.operators.kernels.words import after, byte, eight_digits, is_digits, literal, word
from marketflow.schemas.kernel import bare_kernel
from marketflow.schemas.units import COLUMN_SCALE, NO_PRICE

#: More digits than this may not fit int64: left to the exact decoder.
_DIGITS: Final = 18


_TRUE: Final = literal(b"true")
_FALSE: Final = literal(b"false")


@bare_kernel
def whole(at: int) -> tuple[Any, int]:
    """A JSON whole number of at most 18 digits, and the position after it."""
    if at < 0:
        return np.int64(0), -1
    value = np.int64(0)
    start = at
    eight = word(at)
    while is_digits(eight) and at - start <= _DIGITS:
        value = value * 100_000_000 + eight_digits(eight)
        at += 8
        eight = word(at)
    while True:
        digit = byte(at) - 48
        if digit < 0 or digit > 9:
            break
        value = value * 10 + digit
        at += 1
    n = at - start
    if n == 0 or n > _DIGITS or (n > 1 and byte(start) == 48):
        return np.int64(0), -1
    return value, at


@bare_kernel
def decimal(at: int) -> tuple[Any, int, int]:
    """(mantissa, scale, position after the closing quote) of plain digits with at most a dot."""
    if at < 0:
        return np.int64(0), 0, -1
    mantissa = np.int64(0)
    start = at
    dot = -1
    while True:
        digit = byte(at) - 48
        if digit >= 0 and digit <= 9:
            mantissa = mantissa * 10 + digit
        elif digit == -2 and dot < 0:
            dot = at
            # Eight decimals are the rule on spot markets.
            eight = word(at + 1)
            if is_digits(eight):
                mantissa = mantissa * 100_000_000 + eight_digits(eight)
                at += 8
        else:
            break
        at += 1
    n = at - start
    if byte(at) != 34 or n == 0:
        return np.int64(0), 0, -1
    scale = 0
    if dot >= 0:
        n -= 1
        scale = at - dot - 1
    if n == 0 or n > _DIGITS or scale > COLUMN_SCALE or mantissa > LIMITS[scale]:
        return np.int64(0), 0, -1
    return mantissa, scale, at + 1


@bare_kernel
def flag(at: int) -> tuple[bool, int]:
    """``true`` or ``false``, and the position after it."""
    found = after(at, _TRUE)
    if found >= 0:
        return True, found
    return False, after(at, _FALSE)


@bare_kernel
def put_row(
    row: Any,
    kind: int,
    instrument: int,
    frame: int,
    ts_event: int,
    ts_recv: int,
    sequence: int,
) -> None:
    """All fields of a row, without side, price and size."""
    row.ts_event = ts_event
    row.ts_recv = ts_recv
    row.sequence = sequence
    row.order_hi = 0
    row.order_lo = 0
    row.trade_hi = 0
    row.trade_lo = 0
    row.price = NO_PRICE
    row.size = 0
    row.instrument = instrument
    row.count = 0
    row.frame = frame
    row.kind = kind
    row.side = 0
    row.flags = 0
    row.price_scale = 0
    row.size_scale = 0
    row.order_kind = 0
    row.trade_kind = 0
    row.spare = 0
    row.extra = 0
