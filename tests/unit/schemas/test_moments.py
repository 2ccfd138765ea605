"""Dates and times, to and from the integers of the core."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from marketflow.schemas.moments import (
    date_at,
    date_of,
    datetime_at,
    datetime_at_ms,
    day_of,
    moment_ns,
    ns_of,
)
from marketflow.schemas.units import NS_PER_DAY, NS_PER_MS

_NOON_NS = 1_767_268_800_000_000_000


def test_moments_keep_nanoseconds() -> None:
    for value in (
        _NOON_NS + 1,
        "2026-01-01T12:00:00.000000001",
        "2026-01-01 12:00:00.000000001Z",
        "2026-01-01T13:00:00.000000001+01:00",
    ):
        assert moment_ns(value) == _NOON_NS + 1
    aware = datetime(2026, 1, 1, 12, tzinfo=UTC) + timedelta(microseconds=3)
    assert moment_ns(aware) == _NOON_NS + 3000
    assert moment_ns(date(2026, 1, 1)) == _NOON_NS - NS_PER_DAY // 2
    assert moment_ns("1969-12-31T23:59:59.5") == -500_000_000


@pytest.mark.parametrize("value", ["2026-01-01T12:00:00.0000000001", "noon", True, 1.5])
def test_what_is_no_moment(value: object) -> None:
    with pytest.raises(ValueError, match=r"no moment such as|give ISO text"):
        moment_ns(value)  # type: ignore[arg-type]


def test_there_and_back() -> None:
    for day in (-1, 0, 20_454, 106_000):
        assert day_of(date_of(day)) == day
        assert date_at(day * NS_PER_DAY) == date_at((day + 1) * NS_PER_DAY - 1) == date_of(day)
    for ns in (-1_000, 0, _NOON_NS + 123_456_000):
        assert ns_of(datetime_at(ns)) == ns
    assert datetime_at(_NOON_NS + 999) == datetime_at_ms(_NOON_NS // NS_PER_MS)
    assert ns_of(datetime(2026, 1, 1, 12)) == _NOON_NS
