"""Fields of delimited text: spans, whole numbers, times and fixed-point numbers against Python."""

from __future__ import annotations

import csv
from collections.abc import Callable
from decimal import Decimal, InvalidOperation, Overflow
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from marketflow.operators.kernels import fields, numbers
from marketflow.operators.normalise.timestamps import TimestampError, rfc3339_ns
from marketflow.schemas.units import NO_PRICE

INT64_MAX = 2**63 - 1


def spans(texts: list[str]) -> tuple[Any, Any, Any]:
    """(text, starts, stops) of texts that stand one behind the other."""
    data = [text.encode() for text in texts]
    ends = np.cumsum([len(part) for part in data])
    starts = ends - [len(part) for part in data]
    return (
        np.frombuffer(b"".join(data) + b"\0", np.uint8),
        starts.astype(np.int64),
        ends.astype(np.int64),
    )


def split(lines: list[str], columns: int) -> list[list[str] | None]:
    """Fields per line as the kernel finds them, None where it refuses."""
    data = [line.encode() for line in lines]
    bounds = np.concatenate([[0], np.cumsum([len(part) for part in data])]).astype(np.int64)
    text = np.frombuffer(b"".join(data) + b"\0", np.uint8)
    starts, stops = np.zeros((2, columns, len(lines)), np.int64)
    good = np.zeros(len(lines), np.bool_)
    fields.split(text, bounds, starts, stops, good)
    return [
        [text[starts[c, i] : stops[c, i]].tobytes().decode() for c in range(columns)]
        if good[i]
        else None
        for i in range(len(lines))
    ]


def one(kernel: Callable[..., None], text: str, *between: Any) -> tuple[int, bool]:
    """(value, good) of a kernel that fills values and marks what is none."""
    values, good = np.zeros(1, np.int64), np.ones(1, np.bool_)
    kernel(*spans([text]), *between, values, good)
    return int(values[0]), bool(good[0])


@given(
    st.lists(st.lists(st.text('ab ,"', max_size=4), min_size=1, max_size=5), max_size=4),
    st.integers(1, 5),
)
def test_fields_are_those_of_the_csv_module(rows: list[list[str]], columns: int) -> None:
    lines = [
        ",".join(
            '"' + cell.replace('"', '""') + '"' if set(cell) & set('",') else cell for cell in row
        )
        for row in rows
    ]
    found = split(lines, columns)
    for line, cells in zip(lines, found, strict=True):
        told = next(csv.reader([line]), []) or [""]
        assert (cells is not None) == (len(told) == columns)
        if cells is not None:
            assert [cell.replace('""', '"') for cell in cells] == told


def test_fields_that_are_refused() -> None:
    assert split(["a,b", "a", "a,b,", '"a,b', '"a"b,c', "", ","], 2) == [
        ["a", "b"], None, None, None, None, None, ["", ""],
    ]  # fmt: skip
    assert split(["", '""', '"a,b"'], 1) == [[""], [""], ["a,b"]]


@given(st.text("0123456789-+.e ", max_size=21))
@example("9223372036854775807")
@example("9223372036854775808")
@example("-9223372036854775807")
def test_whole_numbers(text: str) -> None:
    value, good = one(fields.integers, text, 7)
    digits = text.removeprefix("-")
    whole = digits.isdigit() and len(digits) <= 19 and int(digits) <= INT64_MAX
    assert good == (whole or not text)
    assert value == (int(text) if whole else 7)


@given(
    st.datetimes().filter(lambda t: 1970 <= t.year <= 2261),
    st.text("0123456789", max_size=9),
    st.sampled_from("T t"),
    st.sampled_from(["", "Z", "z", "+00:00", "-00:30", "+05:45", "-23:59"]),
)
def test_times_agree_with_the_slow_parser(
    moment: Any, fraction: str, between: str, zone: str
) -> None:
    text = (
        moment.strftime(f"%Y-%m-%d{between}%H:%M:%S") + (f".{fraction}" if fraction else "") + zone
    )
    told = moment.strftime("%Y").rjust(4, "0") + text[4:]
    value, good = one(fields.times, told)
    expected = rfc3339_ns(told)
    if expected > 0:
        assert (value, good) == (expected, True)


@pytest.mark.parametrize(
    "text",
    [
        "2025-02-29T00:00:00Z", "2025-00-01T00:00:00Z", "2025-13-01T00:00:00Z",
        "2025-01-32T00:00:00Z", "2025-01-01T24:00:00Z", "2025-01-01T00:60:00Z",
        "2025-01-01T00:00:61Z", "2025-01-01T00:00:00.Z", "2025-01-01T00:00:00.1234567890Z",
        "2025-01-01T00:00:00+25:00", "2025-01-01T00:00:00 ", "2025-01-01x00:00:00Z",
        "2025-01-01T00:00Z", "2025-01-01", "1969-12-31T23:59:59Z", "-1", "1.5", "now",
        "9223372036854775808",
    ],
)  # fmt: skip
def test_times_that_are_none(text: str) -> None:
    assert one(fields.times, text) == (0, False)


def test_times_of_other_writers() -> None:
    ns = 1752735909035793433
    for text in (
        "2025-07-17T07:05:09.035793433+0000", "2025-07-17 09:05:09.035793433+02",
        "2025-07-17 07:05:09.035793433 UTC", str(ns),
    ):  # fmt: skip
        assert one(fields.times, text) == (ns, True)
    assert one(fields.times, "2000-02-29T00:00:00Z") == (951782400 * 10**9, True)
    assert one(fields.times, "2016-12-31T23:59:60Z") == (rfc3339_ns("2017-01-01T00:00:00Z"), True)
    assert one(fields.times, "") == (0, True)
    with pytest.raises(TimestampError):
        rfc3339_ns("2025-02-29T00:00:00Z")


@given(st.text("0123456789.-e", min_size=1, max_size=14))
@example("5.510000000")
@example("5.5100000001")
@example("5.5100000000")
@example("9223372036854775807")
@example("9223372036.854775807")
@example("9999999999.0")
@example("1e1000000")
@example("1e-1000036")
def test_fixed_point_numbers(text: str) -> None:
    values, codes = np.zeros(1, np.int64), np.zeros(1, np.int8)
    fields.fixed_point(*spans([text]), 9, NO_PRICE, values, codes)
    digits = text.removeprefix("-")
    if digits.isdigit():
        told = Decimal(text)
    else:
        try:
            told = Decimal(text).scaleb(9)
        except Overflow:
            assert codes[0] != numbers.OK
            return
        except InvalidOperation:
            assert codes[0] == numbers.GARBAGE
            return
    if told == 0 and Decimal(text) != 0:
        # Smaller than what Decimal can scale.
        assert codes[0] == numbers.OUT_OF_RANGE
    elif codes[0] == numbers.OK:
        assert values[0] == told
    else:
        assert codes[0] == numbers.OUT_OF_RANGE
        assert told != told.to_integral_value() or abs(told) > INT64_MAX or abs(told) > 10**25


def test_an_empty_fixed_point_number_is_missing() -> None:
    values, codes = np.zeros(1, np.int64), np.zeros(1, np.int8)
    fields.fixed_point(*spans([""]), 9, NO_PRICE, values, codes)
    assert (values[0], codes[0]) == (NO_PRICE, numbers.OK)
