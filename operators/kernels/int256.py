"""Products of two columns: 256-bit integers at scale 24, for sums that are rounded only once.

Four uint64 words, most significant first, two's complement together.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np

from marketflow.operators.kernels.int128 import Word, magnitude, multiply_unsigned, negate
from marketflow.schemas.kernel import kernel

Wide: TypeAlias = tuple[Word, Word, Word, Word]

_ZERO: Final = np.uint64(0)
_ONE: Final = np.uint64(1)
_HALF: Final = np.uint64(32)
_LOW_HALF: Final = np.uint64(0xFFFFFFFF)
_NINE_DIGITS: Final = np.uint64(10**9)
_THREE_DIGITS: Final = np.uint64(10**3)
_TIE: Final = np.uint64(500)
#: Third word of a sum that is surely below 10**50, and so below 10**38 at scale 12.
_TOP: Final = np.uint64(1 << 38)


@kernel
def _add_carry(a: Word, b: Word, carry: Word) -> tuple[Word, Word]:
    """a + b + carry as (word, carry)."""
    part = a + b
    total = part + carry
    return total, np.uint64(part < a) | np.uint64(total < part)


@kernel
def add(a3: Word, a2: Word, a1: Word, a0: Word, b: Wide) -> Wide:
    """Sum, modulo 2**256."""
    b3, b2, b1, b0 = b
    w0, carry = _add_carry(a0, b0, _ZERO)
    w1, carry = _add_carry(a1, b1, carry)
    w2, carry = _add_carry(a2, b2, carry)
    w3, carry = _add_carry(a3, b3, carry)
    return w3, w2, w1, w0


@kernel
def _negate(w3: Word, w2: Word, w1: Word, w0: Word) -> Wide:
    return add(~w3, ~w2, ~w1, ~w0, (_ZERO, _ZERO, _ZERO, _ONE))


@kernel
def multiply(a_hi: Word, a_lo: Word, b_hi: Word, b_lo: Word) -> Wide:
    """Product of two signed 128-bit numbers, exact."""
    negative = (a_hi < 0) != (b_hi < 0)
    a1, a0 = magnitude(a_hi, a_lo)
    b1, b0 = magnitude(b_hi, b_lo)
    low_high, low = multiply_unsigned(a0, b0)
    x_high, x_low = multiply_unsigned(a0, b1)
    y_high, y_low = multiply_unsigned(a1, b0)
    high_high, high_low = multiply_unsigned(a1, b1)
    w1, carry_1 = _add_carry(low_high, x_low, _ZERO)
    w1, carry_2 = _add_carry(w1, y_low, _ZERO)
    w2, carry_1 = _add_carry(x_high, y_high, carry_1)
    w2, carry_2 = _add_carry(w2, high_low, carry_2)
    w3 = high_high + carry_1 + carry_2
    if negative:
        return _negate(w3, w2, w1, low)
    return w3, w2, w1, low


@kernel
def fits_sum(w3: Word, w2: Word, w1: Word, w0: Word) -> bool:
    """Surely within decimal128(38, 12) once at scale 12? (the bound is 2**166, just below it)"""
    if np.int64(w3) < 0:
        w3, w2, w1, w0 = _negate(w3, w2, w1, w0)
    return bool(w3 == _ZERO and w2 < _TOP)


@kernel
def _divide_word(rest: Word, word: Word, divisor: Word) -> tuple[Word, Word]:
    """(rest, word) / divisor below 2**32: (quotient, remainder)."""
    upper = (rest << _HALF) | (word >> _HALF)
    lower = ((upper % divisor) << _HALF) | (word & _LOW_HALF)
    return ((upper // divisor) << _HALF) | (lower // divisor), lower % divisor


@kernel
def _divide(w2: Word, w1: Word, w0: Word, divisor: Word) -> Wide:
    """Unsigned (w2, w1, w0) / divisor: the quotient's words, then the remainder."""
    w2, rest = _divide_word(_ZERO, w2, divisor)
    w1, rest = _divide_word(rest, w1, divisor)
    w0, rest = _divide_word(rest, w0, divisor)
    return w2, w1, w0, rest


@kernel
def rounded_sum(w3: Word, w2: Word, w1: Word, w0: Word) -> tuple[Word, Word]:
    """Scale 24 to scale 12, half-even: 128-bit words. Only for what :func:`fits_sum`."""
    negative = np.int64(w3) < 0
    if negative:
        w3, w2, w1, w0 = _negate(w3, w2, w1, w0)
    w2, w1, w0, sticky = _divide(w2, w1, w0, _NINE_DIGITS)
    w2, w1, w0, rest = _divide(w2, w1, w0, _THREE_DIGITS)
    if rest > _TIE or (rest == _TIE and (sticky != _ZERO or w0 & _ONE)):
        w0, carry = _add_carry(w0, _ONE, _ZERO)
        w1 += carry
    if negative:
        return negate(np.int64(w1), w0)
    return np.int64(w1), w0
