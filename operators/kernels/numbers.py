"""Text to exact numbers: bytes of a venue's decimal to (mantissa int64, scale int8, code).

What is a number (FIX float with JSON's exponent): ``-`` at most, digits with leading zeros and at
most one dot anywhere among them (``.5`` and ``1.`` are numbers, ``.`` is not), then an optional
``e``/``E`` with an optionally signed whole exponent. Not numbers: the empty text, a leading
``+``, blanks, ``NaN``, ``Infinity``, thousands separators, hexadecimals.

The scale is the number of decimals *as sent*, trailing zeros kept (venue checksums are made of
them); an exponent moves it (``1.50e-3`` is 150 at scale 5) and it is never below 0 (``1e5`` is
100000 at scale 0). A number whose mantissa does not fit int64, or that was sent with more than 12
decimals, loses as many trailing zeros as it takes; if it still does not fit, or is outside the
column decimal128(28, 12), it is OUT_OF_RANGE. Nothing is ever rounded. ``-0`` is 0.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from marketflow.operators.events import EventKind
from marketflow.schemas.codes import DeadLetterReason
from marketflow.schemas.kernel import bare_kernel
from marketflow.schemas.units import COLUMN_SCALE, INT64_MAX, PRICE_LIMIT

OK: Final = 0
GARBAGE: Final = 1
OUT_OF_RANGE: Final = 2

#: Column codes of :func:`scan_levels`.
IGNORED: Final = 0
PRICE: Final = 1
SIZE: Final = 2
COUNT: Final = 3

POWERS: Final = np.array([10**k for k in range(19)], np.int64)
#: Largest mantissa at each scale that both int64 and the column hold.
LIMITS: Final = np.array(
    [min(INT64_MAX, PRICE_LIMIT // 10 ** (COLUMN_SCALE - s)) for s in range(COLUMN_SCALE + 1)],
    np.int64,
)

_EXPONENT_CAP: Final = 100_000
_LEVEL: Final = int(EventKind.LEVEL)
_BAD_PRICE: Final = int(DeadLetterReason.BAD_PRICE)
_BAD_SIZE: Final = int(DeadLetterReason.BAD_SIZE)
_NEGATIVE_SIZE: Final = int(DeadLetterReason.NEGATIVE_SIZE)
_OUT_OF_RANGE: Final = int(DeadLetterReason.OUT_OF_RANGE)

Parsed = tuple[Any, int, int]


@bare_kernel
def _exponent(text: NDArray[np.uint8], at: int, end: int) -> tuple[int, bool]:
    """Exponent in ``text[at:end]``, saturated, and whether it is one."""
    negative = False
    if at < end and (text[at] == 43 or text[at] == 45):
        negative = text[at] == 45
        at += 1
    if at == end:
        return 0, False
    value = 0
    while at < end:
        digit = np.int64(text[at]) - 48
        if digit < 0 or digit > 9:
            return 0, False
        value = value * 10 + int(digit)
        if value > _EXPONENT_CAP:
            value = _EXPONENT_CAP
        at += 1
    if negative:
        return -value, True
    return value, True


@bare_kernel
def _parse_any(text: NDArray[np.uint8], start: int, end: int) -> Parsed:
    """Every number, the rare shapes too: digits up to the last one that is not zero make the
    mantissa, the zeros behind it are counted and given back as far as they fit."""
    at = start
    negative = at < end and text[at] == 45
    if negative:
        at += 1
    mantissa = np.int64(0)
    zeros = 0  # after the last digit that is not zero
    decimals = 0
    seen = 0
    dot = False
    too_big = False
    while at < end:
        c = text[at]
        if c == 46 and not dot:
            dot = True
        elif c >= 48 and c <= 57:
            seen += 1
            if dot:
                decimals += 1
            if c == 48:
                if mantissa != 0:
                    zeros += 1
            else:
                digit = np.int64(c) - 48
                if zeros > 17 or mantissa > (INT64_MAX - digit) // POWERS[zeros + 1]:
                    too_big = True
                else:
                    mantissa = mantissa * POWERS[zeros + 1] + digit
                zeros = 0
        else:
            break
        at += 1
    exponent = 0
    if at < end:
        if text[at] != 101 and text[at] != 69:
            return 0, 0, GARBAGE
        exponent, good = _exponent(text, at + 1, end)
        if not good:
            return 0, 0, GARBAGE
    if seen == 0:
        return 0, 0, GARBAGE
    sent = decimals - exponent  # decimals as sent
    if mantissa == 0 and not too_big:
        return 0, min(max(sent, 0), COLUMN_SCALE), OK
    scale = min(max(sent, 0), COLUMN_SCALE)
    least = max(sent - zeros, 0)  # decimals that are no trailing zeros
    lift = scale - (sent - zeros)
    if too_big or least > COLUMN_SCALE:
        return 0, 0, OUT_OF_RANGE
    while scale > least and (lift > 18 or mantissa > LIMITS[scale] // POWERS[lift]):
        scale -= 1
        lift -= 1
    if lift > 18 or mantissa > LIMITS[scale] // POWERS[lift]:
        return 0, 0, OUT_OF_RANGE
    mantissa *= POWERS[lift]
    if negative:
        return -mantissa, scale, OK
    return mantissa, scale, OK


@bare_kernel
def parse_number(text: NDArray[np.uint8], start: int, end: int) -> Parsed:
    """(mantissa, scale, code) of ``text[start:end]``; mantissa and scale are 0 unless OK."""
    if end - start <= 19:
        mantissa = np.int64(0)
        dot = -1
        at = start
        while at < end:
            c = text[at]
            if c >= 48 and c <= 57:
                mantissa = mantissa * 10 + (np.int64(c) - 48)
            elif c == 46 and dot < 0:
                dot = at
            else:
                break
            at += 1
        if at == end:
            # Common shape: at most 18 digits, so the sum cannot have overflowed.
            if dot < 0 and end > start and end - start <= 18:
                if mantissa <= LIMITS[0]:
                    return mantissa, 0, OK
            elif dot >= 0 and end - start > 1:
                scale = end - dot - 1
                if scale <= COLUMN_SCALE and mantissa <= LIMITS[scale]:
                    return mantissa, scale, OK
    return _parse_any(text, start, end)


@bare_kernel
def parse_numbers(
    text: NDArray[np.uint8],
    bounds: NDArray[np.int64],
    mantissas: NDArray[np.int64],
    scales: NDArray[np.int8],
    results: NDArray[np.int8],
) -> None:
    """Numbers in ``text[bounds[i]:bounds[i + 1]]`` for every i of the outputs."""
    for i in range(len(mantissas)):
        mantissa, scale, result = parse_number(text, bounds[i], bounds[i + 1])
        mantissas[i] = mantissa
        scales[i] = scale
        results[i] = result


@bare_kernel
def _blank(text: NDArray[np.uint8], at: int) -> int:
    """Position of the first byte from ``at`` on that is no JSON white space."""
    while at < len(text) and (text[at] == 32 or text[at] == 10 or text[at] == 13 or text[at] == 9):
        at += 1
    return at


@bare_kernel
def _element(text: NDArray[np.uint8], at: int) -> tuple[int, int, int]:
    """One scalar of an inner array: its span without quotes, and where to go on; -1: malformed."""
    n = len(text)
    if at < n and text[at] == 34:
        at += 1
        start = at
        while at < n and text[at] != 34:
            if text[at] == 92 or text[at] < 32:
                return 0, 0, -1
            at += 1
        if at == n:
            return 0, 0, -1
        return start, at, at + 1
    start = at
    while at < n:
        c = text[at]
        bare = (c >= 48 and c <= 57) or (c >= 97 and c <= 122) or c == 69
        if not (bare or c == 45 or c == 46 or c == 43):
            break
        at += 1
    if at == start:
        return 0, 0, -1
    return start, at, at


@bare_kernel
def level_numbers(
    text: NDArray[np.uint8],
    price: tuple[int, int],
    size: tuple[int, int],
) -> tuple[int, int, int, int, int]:
    """Price, its scale, size, its scale and the DeadLetterReason (-1: none) of one level. No price
    of the venues whose levels are text is below zero; what 0 means is the book's to say."""
    mantissa, scale, code = parse_number(text, price[0], price[1])
    if code != OK:
        return 0, 0, 0, 0, _OUT_OF_RANGE if code == OUT_OF_RANGE else _BAD_PRICE
    quantity, digits, code = parse_number(text, size[0], size[1])
    if code != OK:
        return 0, 0, 0, 0, _OUT_OF_RANGE if code == OUT_OF_RANGE else _BAD_SIZE
    if quantity < 0:
        return 0, 0, 0, 0, _NEGATIVE_SIZE
    if mantissa < 0:
        return 0, 0, 0, 0, _BAD_PRICE
    return mantissa, scale, quantity, digits, -1


@bare_kernel
def scan_levels(
    text: NDArray[np.uint8],
    columns: NDArray[np.int8],
    rows: NDArray[Any],
    begin: int,
    at: int,
    side: int,
    bad: NDArray[np.int64],
) -> tuple[int, int]:
    """LEVEL rows from ``at`` on, of a JSON array of arrays that is the whole of ``text``.

    ``columns`` says what each inner element is; ``rows[begin]`` is the open group's BEGIN, whose
    times, sequence, instrument, frame and flags the levels share. Room for them must be there.
    A level that cannot be taken goes as (start, end, DeadLetterReason) into ``bad`` as far as that
    has room. Returns the next free row (-1: not such an array, and rows may be scribbled on)
    and the number of bad levels.
    """
    found = 0
    n = len(text)
    i = _blank(text, 0)
    if i == n or text[i] != 91:
        return -1, 0
    i = _blank(text, i + 1)
    if i < n and text[i] == 93:
        return (at if _blank(text, i + 1) == n else -1), 0
    while True:
        if i >= n or text[i] != 91:
            return -1, 0
        start = i
        price = (0, 0)
        size = (0, 0)
        count = (0, 0)
        for column in range(len(columns)):
            low, high, i = _element(text, _blank(text, i + 1))
            if i < 0:
                return -1, 0
            what = columns[column]
            if what == PRICE:
                price = (low, high)
            elif what == SIZE:
                size = (low, high)
            elif what == COUNT:
                count = (low, high)
            i = _blank(text, i)
            if i == n or text[i] != (93 if column == len(columns) - 1 else 44):
                return -1, 0
        mantissa, scale, quantity, digits, reason = level_numbers(text, price, size)
        orders: Any = 0
        if reason < 0 and count[1] > count[0]:
            orders, decimals, code = parse_number(text, count[0], count[1])
            if code != OK or decimals != 0 or orders < 0 or orders > 2**31 - 1:
                reason = _BAD_SIZE
        if reason >= 0:
            if found < len(bad):
                bad[found, 0] = start
                bad[found, 1] = i + 1
                bad[found, 2] = reason
            found += 1
        else:
            row = rows[at]
            head = rows[begin]
            row.ts_event = head.ts_event
            row.ts_recv = head.ts_recv
            row.sequence = head.sequence
            row.order_hi = 0
            row.order_lo = 0
            row.trade_hi = 0
            row.trade_lo = 0
            row.price = mantissa
            row.size = quantity
            row.instrument = head.instrument
            row.count = orders
            row.frame = head.frame
            row.kind = _LEVEL
            row.side = side
            row.flags = head.flags
            row.price_scale = scale
            row.size_scale = digits
            row.order_kind = 0
            row.trade_kind = 0
            row.spare = 0
            row.extra = 0
            at += 1
        i = _blank(text, i + 1)
        if i < n and text[i] == 93:
            return (at if _blank(text, i + 1) == n else -1), found
        if i == n or text[i] != 44:
            return -1, 0
        i = _blank(text, i + 1)
