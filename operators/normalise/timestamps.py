"""Venue timestamps, as text or whole numbers, to int64 ns since 1970-01-01 UTC: exact, no float.

Everything raises :class:`TimestampError` when the text is none of what it accepts, or outside what
the stores hold (1970-01-01 .. 2261-12-31). Times before 1970 (such as Coinbase's year 1) are a
venue's way to say that it has no time: they become 0, "not known".
"""

from __future__ import annotations

import re
from datetime import date
from functools import lru_cache
from typing import Final

from marketflow.schemas.moments import day_of
from marketflow.schemas.units import (
    END_OF_TIME_NS,
    NS_PER_DAY,
    NS_PER_MINUTE,
    NS_PER_MS,
    NS_PER_S,
    NS_PER_US,
)

_RFC3339: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:[Zz]|([+-])(\d\d):(\d\d))?",
    re.ASCII,
)
_DECIMAL: Final = re.compile(r"(\d{1,15})(?:\.(\d{1,9}))?", re.ASCII)


class TimestampError(ValueError):
    """A time that is not what the venue documents; its frame becomes a BAD_TIMESTAMP."""


def _checked(ns: int, text: object) -> int:
    if ns >= END_OF_TIME_NS:
        raise TimestampError(f"time {text!r} is beyond the year 2261")
    return max(ns, 0)


@lru_cache(maxsize=64)
def _day_ns(text: str) -> int:
    """ns of midnight UTC; cached because a feed stays within a day or two."""
    try:
        return day_of(date.fromisoformat(text)) * NS_PER_DAY
    except ValueError:
        raise TimestampError(f"no such date: {text!r}") from None


def rfc3339_ns(text: str) -> int:
    """``2026-08-09T21:05:48.228568804Z``: 0 to 9 decimals, ``Z``, an offset or nothing (UTC).

    A leap second (``:60``) is the first instant of the next minute.
    """
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise TimestampError(f"{text!r} is not an RFC 3339 time")
    day, hour, minute, second, fraction, sign, off_hour, off_minute = match.groups()
    if hour > "23" or minute > "59" or second > "60":
        raise TimestampError(f"no such time of day: {text!r}")
    ns = _day_ns(day) + (int(hour) * 60 + int(minute)) * NS_PER_MINUTE + int(second) * NS_PER_S
    if fraction:
        ns += int(fraction.ljust(9, "0"))
    if sign:
        offset_ns = (int(off_hour) * 60 + int(off_minute)) * NS_PER_MINUTE
        ns += offset_ns if sign == "-" else -offset_ns
    return _checked(ns, text)


def _decimal(text: str, decimals: int, unit: str) -> int:
    match = _DECIMAL.fullmatch(text)
    if match is None or len(match[2] or "") > decimals:
        raise TimestampError(f"{text!r} is not a number of {unit}")
    whole, fraction = match.groups(default="")
    return _checked(int(whole + fraction.ljust(decimals, "0")), text)


def seconds_ns(text: str) -> int:
    """``1618678142.557535``: decimal seconds with 0 to 9 decimals."""
    return _decimal(text, 9, "seconds")


def decimal_ms_ns(text: str) -> int:
    """``1619378327739.123``: decimal milliseconds with 0 to 6 decimals."""
    return _decimal(text, 6, "milliseconds")


def _scaled(value: str | int, ns_per_unit: int) -> int:
    if isinstance(value, str):
        # Only digits: int() alone would take "1_0", " 1" and other scripts' digits.
        if not (value.isascii() and value.isdigit() and len(value) <= 19):
            raise TimestampError(f"{value!r} is not a whole number")
        value = int(value)
    elif value < 0:
        raise TimestampError(f"negative time {value}")
    return _checked(value * ns_per_unit, value)


def ms_ns(value: str | int) -> int:
    """Whole milliseconds since 1970, as text or number."""
    return _scaled(value, NS_PER_MS)


def us_ns(value: str | int) -> int:
    """Whole microseconds since 1970, as text or number."""
    return _scaled(value, NS_PER_US)


def whole_ns(value: str | int) -> int:
    """Whole nanoseconds since 1970, as text or number."""
    return _scaled(value, 1)
