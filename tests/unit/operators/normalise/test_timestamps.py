"""Times of venues: exact to the ns, strict about everything else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketflow.operators.normalise.timestamps import (
    TimestampError,
    decimal_ms_ns,
    ms_ns,
    rfc3339_ns,
    seconds_ns,
    us_ns,
    whole_ns,
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("2026-08-09T21:05:48.228568804Z", 1_786_309_548_228_568_804),
        ("2026-08-09T21:05:38.50436Z", 1_786_309_538_504_360_000),
        ("2019-08-01T00:00:03.818Z", 1_564_617_603_818_000_000),
        ("2019-08-01T00:00:03Z", 1_564_617_603_000_000_000),
        ("2019-08-01 00:00:03", 1_564_617_603_000_000_000),
        ("2019-08-01T02:00:03+02:00", 1_564_617_603_000_000_000),
        ("2019-07-31T22:30:03-01:30", 1_564_617_603_000_000_000),
        ("2016-12-31T23:59:60Z", 1_483_228_800_000_000_000),  # a leap second
        ("0001-01-01T00:00:00.000000Z", 0),  # Coinbase: no time
    ],
)
def test_rfc3339_is_exact(text: str, ns: int) -> None:
    assert rfc3339_ns(text) == ns


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2019-08-01",
        "2019-13-01T00:00:00Z",
        "2019-02-29T00:00:00Z",
        "2019-08-01T24:00:00Z",
        "2019-08-01T00:60:00Z",
        "2019-08-01T00:00:61Z",
        "2019-08-01T00:00:00.Z",
        "2019-08-01T00:00:00.1234567890Z",
        "2019-08-01T00:00:00Zulu",
        "٢٠١٩-08-01T00:00:00Z",
        "2300-01-01T00:00:00Z",
    ],
)
def test_rfc3339_refuses(text: str) -> None:
    with pytest.raises(TimestampError):
        rfc3339_ns(text)


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2261, 12, 31)))
def test_rfc3339_agrees_with_datetime(moment: datetime) -> None:
    text = moment.isoformat(timespec="microseconds") + "Z"
    elapsed = moment.replace(tzinfo=UTC) - EPOCH
    assert rfc3339_ns(text) == elapsed // timedelta(microseconds=1) * 1_000


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1618678142.557535", 1_618_678_142_557_535_000),
        ("1786309548.6290078", 1_786_309_548_629_007_800),
        ("1618678142", 1_618_678_142_000_000_000),
        ("0.000000001", 1),
    ],
)
def test_seconds_are_exact(text: str, ns: int) -> None:
    assert seconds_ns(text) == ns


@pytest.mark.parametrize("text", ["", "-1", "1.", ".5", "1e9", "1_0", " 1", "99999999999.0"])
def test_seconds_refuse(text: str) -> None:
    with pytest.raises(TimestampError):
        seconds_ns(text)


def test_decimal_milliseconds() -> None:
    assert decimal_ms_ns("1619378327739.0507") == 1_619_378_327_739_050_700
    assert decimal_ms_ns("1619378327739") == 1_619_378_327_739_000_000
    with pytest.raises(TimestampError):
        decimal_ms_ns("1619378327739.0507253")


def test_whole_units() -> None:
    assert whole_ns("1619378327739050725") == 1_619_378_327_739_050_725
    assert ms_ns("1652459224956") == ms_ns(1_652_459_224_956) == 1_652_459_224_956_000_000
    assert us_ns("1573044649041458") == us_ns(1_573_044_649_041_458) == 1_573_044_649_041_458_000


@pytest.mark.parametrize("value", ["", "12.5", "-5", "1_000", "٣", "9" * 20, -1, 2**63])
def test_milliseconds_refuse(value: str | int) -> None:
    with pytest.raises(TimestampError):
        ms_ns(value)
