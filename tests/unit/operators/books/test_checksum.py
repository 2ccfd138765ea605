"""Book checksums: the kernel against texts and zlib."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketflow.operators.books.kernels import checksum
from marketflow.operators.events import ChecksumRule
from marketflow.schemas import units
from tests.reference.checksum import checksum as slow_checksum

NUMBER = st.tuples(st.one_of(st.integers(1, 10**6), st.integers(0, 2**63 - 1)), st.integers(0, 18))
SIDE = st.lists(st.tuples(NUMBER, NUMBER), max_size=30)
RULES = [ChecksumRule.KRAKEN, ChecksumRule.OKX, ChecksumRule.BITGET]


def columns(side: list) -> tuple:
    prices, sizes = [p for p, _ in side], [s for _, s in side]
    return (
        np.array([m for m, _ in prices], np.int64),
        np.array([s for _, s in prices], np.int8),
        np.array([m for m, _ in sizes], np.int64),
        np.array([s for _, s in sizes], np.int8),
        len(side),
    )


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.name)
@given(SIDE, SIDE)
def test_equals_the_texts(rule: ChecksumRule, bids: list, asks: list) -> None:
    texts = [[tuple(units.text_of(*n) for n in level) for level in side] for side in (bids, asks)]
    found = checksum.checksum(rule, *columns(bids), *columns(asks))
    assert found == slow_checksum(rule, *texts)


@given(st.binary(max_size=300))
def test_crc32_is_zlib(data: bytes) -> None:
    assert checksum.crc32(np.frombuffer(data, np.uint8), len(data)) == zlib.crc32(data)


def test_negative_prices_keep_their_sign() -> None:
    book = [((-125, 2), (5, 0))]
    assert checksum.checksum(ChecksumRule.OKX, *columns(book), *columns([])) == zlib.crc32(
        b"-1.25:5"
    )
