"""Two-word arithmetic against Python's own integers and Decimal."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context, Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketflow.operators.kernels import int128
from marketflow.schemas import units
from marketflow.schemas.kernel import kernel

EXACT = Context(prec=100, rounding=ROUND_HALF_EVEN)
INT64 = st.integers(-(2**63), 2**63 - 1)
# Values around powers of two and ten are where carries and rounding go wrong.
EDGES = st.one_of(
    INT64,
    st.integers(-10_000, 10_000),
    st.builds(lambda n, d: n + d, st.sampled_from([10**k for k in range(19)]), st.integers(-2, 2)),
)
INT128 = st.one_of(
    st.integers(-(2**127) + 1, 2**127 - 1),
    st.builds(
        lambda n, d, s: s * (2**n + d),
        st.integers(0, 126),
        st.integers(-2, 2),
        st.sampled_from([1, -1]),
    ),
)
SCALES = st.integers(0, int128.MAX_SCALE)


@kernel
def _multiply(a, b):
    return int128.multiply(a, b)


def words(value: int) -> tuple[np.int64, np.uint64]:
    return np.int64(value >> 64), np.uint64(value & (2**64 - 1))


def value(hi: int, lo: int) -> int:
    return int(hi) * 2**64 + int(lo)


def wrapped(number: int) -> int:
    return (number + 2**127) % 2**128 - 2**127


@given(INT128, INT128)
def test_sums_and_order(a: int, b: int) -> None:
    assert value(*int128.add(*words(a), *words(b))) == wrapped(a + b)
    assert value(*int128.subtract(*words(a), *words(b))) == wrapped(a - b)
    assert int128.compare(*words(a), *words(b)) == (a > b) - (a < b)
    assert value(*int128.negate(*words(a))) == -a


@given(EDGES, EDGES)
def test_product_is_exact(a: int, b: int) -> None:
    assert value(*_multiply(np.int64(a), np.int64(b))) == a * b


@given(EDGES, SCALES, EDGES, SCALES)
def test_notional_is_the_rounded_product(
    price: int, price_scale: int, size: int, size_scale: int
) -> None:
    exact = EXACT.multiply(units.to_decimal(price, price_scale), units.to_decimal(size, size_scale))
    expected = int(exact.quantize(Decimal(1).scaleb(-12), context=EXACT).scaleb(12, EXACT))
    hi, lo = int128.notional(np.int64(price), price_scale, np.int64(size), size_scale)
    if abs(expected) > units.SUM_LIMIT:
        assert (int(hi), int(lo)) == (int128.NO_SUM, 0)
    else:
        assert value(hi, lo) == expected


@pytest.mark.parametrize(
    ("price", "expected"), [(5, 0), (15, 2), (25, 2), (26, 3), (-5, 0), (-15, -2), (-25, -2)]
)
def test_half_goes_to_even(price: int, expected: int) -> None:
    assert value(*int128.notional(np.int64(price), 13, np.int64(1), 0)) == expected


@given(EDGES, SCALES)
def test_widen_narrow_and_what_fits(mantissa: int, scale: int) -> None:
    scaled = Decimal(mantissa).scaleb(12 - scale, EXACT)
    whole = scaled == scaled.to_integral_value()
    legal = whole and abs(scaled) <= units.PRICE_LIMIT and mantissa != units.NO_PRICE
    assert int128.fits_column(np.int64(mantissa), scale) == legal
    if not legal:
        return
    wide = int128.widen(np.int64(mantissa), scale)
    assert value(*wide) == int(scaled)
    narrowed, narrow_scale, ok = int128.narrow(*words(int(scaled)))
    assert ok
    assert units.to_decimal(int(narrowed), narrow_scale) == units.to_decimal(mantissa, scale)
    assert narrow_scale == 0 or narrowed % 10 != 0


@given(INT128)
def test_narrow_refuses_what_needs_more_than_64_bits(number: int) -> None:
    mantissa, scale, ok = int128.narrow(*words(number))
    digits, places = number, 12
    while places and digits % 10 == 0:
        digits, places = digits // 10, places - 1
    assert ok == (abs(digits) < 2**63)
    if ok:
        assert (int(mantissa), scale) == (digits, places)
