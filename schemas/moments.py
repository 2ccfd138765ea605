"""Dates and times as Python has them, from and to the integers of the core. UTC; exact.

A day counts from 1970-01-01, a time is int64 nanoseconds since then (schemas.units).
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Final

from marketflow.schemas.units import NS_PER_DAY, NS_PER_MS, NS_PER_S, NS_PER_US

_FIRST_DAY: Final = date(1970, 1, 1).toordinal()
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_S_PER_DAY: Final = NS_PER_DAY // NS_PER_S
_FRACTION_DIGITS: Final = 9


def day_of(when: date) -> int:
    """Day of a date."""
    return when.toordinal() - _FIRST_DAY


def date_of(day: int) -> date:
    """Date of a day."""
    return date.fromordinal(_FIRST_DAY + day)


def date_at(ns: int) -> date:
    """Date of a time."""
    return date_of(ns // NS_PER_DAY)


def ns_of(when: datetime) -> int:
    """Time of a datetime; one without a zone is UTC."""
    since = (when if when.tzinfo is not None else when.replace(tzinfo=UTC)) - _EPOCH
    return (since.days * _S_PER_DAY + since.seconds) * NS_PER_S + since.microseconds * NS_PER_US


def datetime_at(ns: int) -> datetime:
    """Datetime of a time, rounded down to the microsecond."""
    return _EPOCH + timedelta(microseconds=ns // NS_PER_US)


def datetime_at_ms(ms: int) -> datetime:
    """Datetime of a time in ms."""
    return datetime_at(ms * NS_PER_MS)


def text_ns(text: str) -> int:
    """Time of ISO text; the second may have nine decimals. Raises ValueError."""
    whole, dot, rest = text.strip().partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    if len(digits) > _FRACTION_DIGITS:
        raise ValueError(f"{text!r} has more than {_FRACTION_DIGITS} digits below the second")
    ns = ns_of(datetime.fromisoformat(whole + rest[len(digits) :]))
    return ns + (int(digits.ljust(_FRACTION_DIGITS, "0")) if dot and digits else 0)


def moment_ns(value: str | date | datetime | int) -> int:
    """Time of what a user calls a moment. Raises ValueError with the accepted forms."""
    if isinstance(value, bool) or not isinstance(value, str | date | datetime | int):
        raise ValueError(f"{value!r}: give ISO text, a date, a datetime or int nanoseconds")
    if isinstance(value, int):
        return value
    if isinstance(value, datetime):
        return ns_of(value)
    if isinstance(value, date):
        return day_of(value) * NS_PER_DAY
    try:
        return text_ns(value)
    except ValueError:
        raise ValueError(
            f"{value!r} is no moment such as 2026-03-02 or 2026-03-02T14:30:00.000000001"
        ) from None
