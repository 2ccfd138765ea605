"""Delimited text: where the fields of every line are, and bulk parsing of a column of them.

A line is ``text[bounds[i]:bounds[i + 1]]``; its fields are spans (starts, stops). A field may be
quoted with ``"``; the quotes are not part of its span, a doubled quote inside stays doubled.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from marketflow.operators.kernels import int128, numbers
from marketflow.schemas.kernel import bare_kernel
from marketflow.schemas.units import (
    END_OF_TIME_NS,
    INT64_MAX,
    NO_PRICE,
    NS_PER_DAY,
    NS_PER_MINUTE,
    NS_PER_S,
)

Bytes = NDArray[np.uint8]
Indices = NDArray[np.int64]

_COMMA: Final = 44
_QUOTE: Final = 34
_parse_number = numbers.parse_number
_narrow = int128.narrow
_OK: Final = numbers.OK
_LAST_YEAR: Final = 2261
_DAYS: Final = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], np.int64)


@bare_kernel
def split(text: Bytes, bounds: Indices, starts: Indices, stops: Indices, good: Any) -> None:
    """Spans of the fields of every line into ``starts[column, line]`` and ``stops``.

    ``good[line]`` is false where there are more or fewer fields than columns, or a quote that is
    not closed at the end of its field.
    """
    columns, lines = starts.shape
    for line in range(lines):
        at, end = bounds[line], bounds[line + 1]
        column = 0
        good[line] = False
        while column < columns:
            if at < end and text[at] == _QUOTE:
                at += 1
                starts[column, line] = at
                while at < end and not (
                    text[at] == _QUOTE and (at + 1 == end or text[at + 1] != _QUOTE)
                ):
                    # A doubled quote is passed as a pair: its second half does not end the field.
                    at += 2 if text[at] == _QUOTE else 1
                stops[column, line] = min(at, end)
                if at >= end or (at + 1 < end and text[at + 1] != _COMMA):
                    break
                at += 1
            else:
                starts[column, line] = at
                while at < end and text[at] != _COMMA:
                    at += 1
                stops[column, line] = at
            column += 1
            if at == end:
                break
            at += 1
            if column == columns:
                column += 1  # a comma behind the last column
        good[line] = column == columns and at == end


@bare_kernel
def _whole(text: Bytes, at: int, end: int) -> tuple[Any, bool]:
    """A whole number that fits an int64, and whether it is one."""
    negative = at < end and text[at] == 45
    if negative:
        at += 1
    value = np.uint64(0)
    if at == end or end - at > 19:
        return 0, False
    for k in range(at, end):
        if text[k] < 48 or text[k] > 57:
            return 0, False
        value = value * np.uint64(10) + np.uint64(text[k] - 48)
    if value > np.uint64(INT64_MAX):
        return 0, False
    return (-np.int64(value) if negative else np.int64(value)), True


@bare_kernel
def decimals(
    text: Bytes, starts: Indices, stops: Indices, mantissas: Indices, scales: Any, codes: Any
) -> None:
    """Exact numbers; an empty field is NO_PRICE at scale 0 with code OK (see kernels.numbers)."""
    for i in range(len(starts)):
        if starts[i] == stops[i]:
            mantissas[i] = NO_PRICE
            scales[i] = 0
            codes[i] = _OK
        else:
            mantissa, scale, code = _parse_number(text, starts[i], stops[i])
            mantissas[i] = mantissa
            scales[i] = scale
            codes[i] = code


@bare_kernel
def integers(
    text: Bytes, starts: Indices, stops: Indices, default: int, values: Indices, good: Any
) -> None:
    """Whole numbers that fit an int64; an empty field is ``default``; ``good[i]`` goes false."""
    for i in range(len(starts)):
        at, end = starts[i], stops[i]
        if at == end:
            values[i] = default
            continue
        value, whole = _whole(text, at, end)
        values[i] = value if whole else default
        if not whole:
            good[i] = False


@bare_kernel
def fixed_point(
    text: Bytes,
    starts: Indices,
    stops: Indices,
    digits: int,
    missing: int,
    values: Indices,
    codes: Any,
) -> None:
    """Numbers as int64 multiples of 10**-digits; codes as in kernels.numbers.

    A field of digits alone is such a multiple already, one with a dot or exponent is the number
    itself (it is never rounded); an empty field is ``missing``.
    """
    for i in range(len(starts)):
        at, end = starts[i], stops[i]
        values[i] = missing
        codes[i] = _OK
        if at == end:
            continue
        value, whole = _whole(text, at, end)
        if whole:
            values[i] = value
            continue
        mantissa, scale, code = _parse_number(text, at, end)
        while code == _OK and scale > digits and mantissa % 10 == 0:
            mantissa //= 10
            scale -= 1
        lift = numbers.POWERS[max(digits - scale, 0)]
        if code == _OK and (scale > digits or abs(mantissa) > INT64_MAX // lift):
            code = numbers.OUT_OF_RANGE
        codes[i] = code
        if code == _OK:
            values[i] = mantissa * lift


@bare_kernel
def _digits(text: Bytes, at: int, count: int, end: int) -> Any:
    """Value of exactly ``count`` digits, or -1."""
    if at + count > end:
        return -1
    value: Any = 0
    for k in range(at, at + count):
        if text[k] < 48 or text[k] > 57:
            return -1
        value = value * 10 + (np.int64(text[k]) - 48)
    return value


@bare_kernel
def _zone(text: Bytes, at: int, end: int) -> tuple[int, bool]:
    """Offset from UTC in minutes of what stands behind the seconds, and whether it is one."""
    size = end - at
    if size == 0 or (size == 1 and (text[at] == 90 or text[at] == 122)):
        return 0, True
    if size == 4 and text[at] == 32 and text[at + 1] == 85 and text[at + 2] == 84:
        return 0, text[at + 3] == 67  # " UTC"
    if text[at] != 43 and text[at] != 45:
        return 0, False
    hours = _digits(text, at + 1, 2, end)
    minutes = 0
    if size == 6 and text[at + 3] == 58:
        minutes = _digits(text, at + 4, 2, end)
    elif size == 5:
        minutes = _digits(text, at + 3, 2, end)
    elif size != 3:
        return 0, False
    if hours < 0 or hours > 23 or minutes < 0 or minutes > 59:
        return 0, False
    offset = hours * 60 + minutes
    return (offset if text[at] == 43 else -offset), True


@bare_kernel
def _time(text: Bytes, at: int, end: int) -> Any:
    """ns since 1970 of a whole number of ns, or of an RFC 3339 time; -1: neither."""
    if end - at < 19 or text[at + 4] != 45:
        value, whole = _whole(text, at, end)
        return value if whole and 0 <= value < END_OF_TIME_NS else -1
    year, month = _digits(text, at, 4, end), _digits(text, at + 5, 2, end)
    day, hour = _digits(text, at + 8, 2, end), _digits(text, at + 11, 2, end)
    minute, second = _digits(text, at + 14, 2, end), _digits(text, at + 17, 2, end)
    shape = text[at + 7] == 45 and text[at + 13] == 58 and text[at + 16] == 58
    if not shape or (text[at + 10] != 84 and text[at + 10] != 116 and text[at + 10] != 32):
        return -1
    if year < 1970 or year > _LAST_YEAR or month < 1 or month > 12 or day < 1:
        return -1
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if day > _DAYS[month - 1] + (1 if leap and month == 2 else 0):
        return -1
    if hour < 0 or hour > 23 or minute < 0 or minute > 59 or second < 0 or second > 60:
        return -1
    days: Any = day - 1
    for m in range(month - 1):
        days += _DAYS[m]
    if leap and month > 2:
        days += 1
    before = year - 1
    days += 365 * (year - 1970) + (before // 4 - before // 100 + before // 400) - 477
    ns = days * NS_PER_DAY + (hour * 60 + minute) * NS_PER_MINUTE + second * NS_PER_S
    at += 19
    if at < end and text[at] == 46:
        at += 1
        first = at
        unit = NS_PER_S // 10
        while at < end and 48 <= text[at] <= 57:
            ns += (np.int64(text[at]) - 48) * unit
            unit //= 10
            at += 1
        if at == first or at - first > 9:
            return -1
    offset, known = _zone(text, at, end)
    ns -= offset * NS_PER_MINUTE
    return ns if known and 0 <= ns < END_OF_TIME_NS else -1


@bare_kernel
def times(text: Bytes, starts: Indices, stops: Indices, values: Indices, good: Any) -> None:
    """ns since 1970; an empty field is 0, "not known"; ``good[i]`` goes false where it is no time.

    Accepted: whole ns, and RFC 3339 with ``T`` or a blank, up to 9 decimals, ``Z``, an offset,
    `` UTC`` or nothing (UTC).
    """
    for i in range(len(starts)):
        values[i] = 0
        if starts[i] < stops[i]:
            value = _time(text, starts[i], stops[i])
            if value < 0:
                good[i] = False
            else:
                values[i] = value


@bare_kernel
def gather(text: Bytes, starts: Indices, stops: Indices, out: Bytes, bounds: Any) -> None:
    """Copy spans one behind the other; ``bounds`` (one more) says where each is."""
    at = 0
    bounds[0] = 0
    for i in range(len(starts)):
        for k in range(starts[i], stops[i]):
            out[at] = text[k]
            at += 1
        bounds[i + 1] = at


@bare_kernel
def narrow_words(words: Any, valid: Any, mantissas: Indices, scales: Any, good: Any) -> None:
    """decimal128(38, 12) words (lo, hi) without trailing zeros; null is NO_PRICE.

    ``good[i]`` goes false where int64 or the column decimal128(28, 12) does not hold the value.
    """
    for i in range(len(mantissas)):
        mantissas[i] = NO_PRICE
        scales[i] = 0
        if valid[i]:
            mantissa, scale, fits = _narrow(np.int64(words[2 * i + 1]), words[2 * i])
            mantissas[i] = mantissa
            scales[i] = scale
            if not fits or abs(mantissa) > numbers.LIMITS[scale]:
                good[i] = False
