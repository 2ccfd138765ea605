"""Exact numbers: kernels against decimal.Decimal."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from marketflow.operators.events import EVENT, EventKind
from marketflow.operators.kernels import numbers
from marketflow.schemas.codes import DeadLetterReason, Side
from tests.reference import numbers as twin
from tests.support.numbers import parse, texts

CODES = {"ok": numbers.OK, "garbage": numbers.GARBAGE, "range": numbers.OUT_OF_RANGE}


@given(texts)
@example("0e-99999999999999")
@example("1e-99999999999999")
@example("9223372036854775807e-6")
@example("9223372036854775808e-6")
@example("9999999999999999.999")
@example("10000000000000000")
def test_parse_equals_decimal(text: str) -> None:
    mantissa, scale, code = twin.parse(text)
    assert parse(text) == (mantissa, scale, CODES[code])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.0010", (10, 4, numbers.OK)),  # trailing zeros are kept
        ("-0", (0, 0, numbers.OK)),
        ("00012.50", (1250, 2, numbers.OK)),
        (".5", (5, 1, numbers.OK)),
        ("1.", (1, 0, numbers.OK)),
        ("1e5", (100000, 0, numbers.OK)),
        ("1e-7", (1, 7, numbers.OK)),
        ("1.50e-3", (150, 5, numbers.OK)),
        ("1.0000000000000", (10**12, 12, numbers.OK)),  # 13 decimals, one too many, a zero
        ("12345678.000000000000", (12345678 * 10**11, 11, numbers.OK)),
        ("0.0000000000001", (0, 0, numbers.OUT_OF_RANGE)),
        ("123456789012345678901234567890", (0, 0, numbers.OUT_OF_RANGE)),
        ("+1", (0, 0, numbers.GARBAGE)),
        ("", (0, 0, numbers.GARBAGE)),
        (".", (0, 0, numbers.GARBAGE)),
        ("-", (0, 0, numbers.GARBAGE)),
        ("1e", (0, 0, numbers.GARBAGE)),
        (" 1", (0, 0, numbers.GARBAGE)),
        ("1,000", (0, 0, numbers.GARBAGE)),
        ("NaN", (0, 0, numbers.GARBAGE)),
        ("Infinity", (0, 0, numbers.GARBAGE)),
        ("99999999999999999999x", (0, 0, numbers.GARBAGE)),
    ],
)
def test_documented_decisions(text: str, expected: tuple[int, int, int]) -> None:
    assert parse(text) == expected


@given(st.lists(texts, max_size=12))
def test_many_equals_one_by_one(items: list[str]) -> None:
    data = np.frombuffer("".join(items).encode() + b"!", np.uint8)
    bounds = np.cumsum([0] + [len(t.encode()) for t in items])
    out = np.zeros(len(items), np.int64), np.zeros(len(items), np.int8), np.zeros(len(items), "i1")
    numbers.parse_numbers(data, bounds, *out)
    assert [tuple(map(int, row)) for row in zip(*out, strict=True)] == [parse(t) for t in items]


def scan(raw: bytes, columns: str = "ps", room: int = 64) -> tuple[list[tuple[int, ...]], list]:
    rows = np.zeros(room, EVENT)
    rows[0]["sequence"], rows[0]["order_lo"], rows[0]["frame"] = 77, 5, 3
    bad = np.zeros((room, 3), np.int64)
    kinds = np.array(["xpsc".index(c) for c in columns], np.int8)
    text = np.frombuffer(raw, np.uint8)
    end, found = numbers.scan_levels(text, kinds, rows, 0, 1, int(Side.ASK), bad)
    if end < 0:
        return None
    for row in rows[1:end]:
        assert (row["kind"], row["side"], row["sequence"]) == (EventKind.LEVEL, Side.ASK, 77)
        assert (row["order_lo"], row["frame"]) == (0, 3)
    names = ("price", "price_scale", "size", "size_scale", "count")
    good = [tuple(int(row[n]) for n in names) for row in rows[1:end]]
    return good, [(raw[a:b], DeadLetterReason(int(r))) for a, b, r in bad[:found]]


levels = st.lists(st.tuples(texts, texts), max_size=6)


def expected_reason(price: str, size: str) -> DeadLetterReason | None:
    values = []
    for text, garbage in ((price, DeadLetterReason.BAD_PRICE), (size, DeadLetterReason.BAD_SIZE)):
        mantissa, _, code = twin.parse(text)
        if code != "ok":
            return garbage if code == "garbage" else DeadLetterReason.OUT_OF_RANGE
        values.append(mantissa)
    if values[1] < 0:
        return DeadLetterReason.NEGATIVE_SIZE
    return DeadLetterReason.BAD_PRICE if values[0] < 0 else None


@given(levels, st.sampled_from(["", " ", "\n\t "]))
def test_scan_equals_json_and_decimal(items: list[tuple[str, str]], blank: str) -> None:
    inner = [f'{blank}[{blank}"{p}"{blank},{blank}"{s}"{blank}]{blank}' for p, s in items]
    good, bad = scan(f"{blank}[{blank}{','.join(inner)}{blank}]{blank}".encode())
    reasons = [expected_reason(p, s) for p, s in items]
    assert [reason for _, reason in bad] == [r for r in reasons if r is not None]
    assert good == [
        (*twin.parse(p)[:2], *twin.parse(s)[:2], 0)
        for (p, s), reason in zip(items, reasons, strict=True)
        if reason is None
    ]


@given(st.lists(st.tuples(st.integers(), st.floats(0, 1e15, allow_nan=False)), max_size=5))
def test_scan_of_json_numbers(items: list[tuple[int, float]]) -> None:
    raw = json.dumps(items)
    texts = [(p, s) for p, s in twin.levels(raw)]
    good, bad = scan(raw.encode())
    kept = [(p, s) for p, s in texts if expected_reason(p, s) is None]
    assert good == [(*twin.parse(p)[:2], *twin.parse(s)[:2], 0) for p, s in kept]
    assert len(good) + len(bad) == len(items)


def test_columns_counts_and_ignored() -> None:
    good, bad = scan(b'[["1.5","x",2,"3"],[1e-7,null,0,"0"]]', "pxcs")
    assert good == [(15, 1, 3, 0, 2), (1, 7, 0, 0, 0)]
    assert bad == []


def test_a_bad_level_is_alone() -> None:
    good, bad = scan(b'[["1","2"],["1","-2"],["x","1"],["1",null],["2","3"]]')
    assert good == [(1, 0, 2, 0, 0), (2, 0, 3, 0, 0)]
    assert bad == [
        (b'["1","-2"]', DeadLetterReason.NEGATIVE_SIZE),
        (b'["x","1"]', DeadLetterReason.BAD_PRICE),
        (b'["1",null]', DeadLetterReason.BAD_SIZE),
    ]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}",
        b"[",
        b"[[]]",
        b'[["1"]]',
        b'[["1","2","3"]]',
        b'[["1","2"]',
        b'[["1","2"],]',
        b'[["1","2"]]]',
        b'[["1","2"]["1","2"]]',
        rb'[["1\u0031","2"]]',
        b'[["1","2]]',
        b'[["1" "2"]]',
        b'[["1\n","2"]]',
        b'[[["1"],"2"]]',
    ],
)
def test_malformed(raw: bytes) -> None:
    assert scan(raw) is None


@given(st.data())
def test_damaged_arrays_never_escape(data: st.DataObject) -> None:
    raw = bytearray(b'[["61837.63000000","3.78826000"],["1e-7",5],["0.10",".5"]]')
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    scan(bytes(raw[: data.draw(st.integers(0, len(raw)))]))
