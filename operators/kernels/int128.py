"""Signed 128-bit integers as two words, for what does not fit 64 bits: columns, sums, products.

A number is ``(hi, lo)``: hi int64 (sign and upper half), lo uint64 (lower half), together two's
complement, which is also how Arrow lays a decimal128 out (lo first). All columns are at scale 12
(``schemas.units.COLUMN_SCALE``). Every cast is written out: numba makes a float of int64 + uint64.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

from marketflow.schemas import units
from marketflow.schemas.kernel import kernel

#: An int64 or uint64 inside a kernel.
Word: TypeAlias = Any

#: ``hi`` of a product that does not fit decimal128(38, 12): far outside +-10**38.
NO_SUM: Final = -(2**63)

#: Scale a mantissa may have as sent; more digits never fit an int64 together with a whole one.
MAX_SCALE: Final = 18

_SCALE: Final = units.COLUMN_SCALE
_POWERS: Final = np.array([10**n for n in range(20)], np.uint64)
_SUM_LIMIT_HI: Final = np.uint64(units.SUM_LIMIT >> 64)
_SUM_LIMIT_LO: Final = np.uint64(units.SUM_LIMIT & (2**64 - 1))
#: Largest mantissa of decimal128(28, 12) by scale; from scale 3 on every int64 fits.
_COLUMN_LIMITS: Final = np.array(
    [min(10 ** (units.PRICE_PRECISION - _SCALE + n) - 1, units.INT64_MAX) for n in range(_SCALE)],
    np.int64,
)
_NO_PRICE: Final = units.NO_PRICE
_ZERO: Final = np.uint64(0)
_ONE: Final = np.uint64(1)
_TWO: Final = np.uint64(2)
_TEN: Final = np.uint64(10)
_HALF: Final = np.uint64(32)
_LOW_HALF: Final = np.uint64(0xFFFFFFFF)
_SIGN: Final = np.uint64(2**63)


def _product_code(extend: str) -> Any:
    """LLVM code of a full 64 x 64 bit product: one machine instruction where Python needs 20."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        wide, word = ir.IntType(128), ir.IntType(64)
        a, b = (getattr(builder, extend)(arg, wide) for arg in args)
        product = builder.mul(a, b)
        upper = builder.trunc(builder.lshr(product, wide(64)), word)
        lower = builder.trunc(product, word)
        return context.make_tuple(builder, signature.return_type, (upper, lower))

    return codegen


def _multiply(typing_context: Any, a: Any, b: Any) -> Any:
    pair: Any = types.Tuple((types.int64, types.uint64))  # type: ignore[no-untyped-call]
    return pair(types.int64, types.int64), _product_code("sext")


def _multiply_unsigned(typing_context: Any, a: Any, b: Any) -> Any:
    pair: Any = types.Tuple((types.uint64, types.uint64))  # type: ignore[no-untyped-call]
    return pair(types.uint64, types.uint64), _product_code("zext")


#: int64 * int64 -> (hi, lo), exact. Inside kernels only.
multiply: Any = intrinsic(_multiply)
#: uint64 * uint64 -> two uint64 words, upper first, exact. Inside kernels only.
multiply_unsigned: Any = intrinsic(_multiply_unsigned)


@kernel
def add(hi: Word, lo: Word, other_hi: Word, other_lo: Word) -> tuple[Word, Word]:
    """Sum, modulo 2**128."""
    total = lo + other_lo
    carry = np.int64(1) if total < lo else np.int64(0)
    return hi + other_hi + carry, total


@kernel
def subtract(hi: Word, lo: Word, other_hi: Word, other_lo: Word) -> tuple[Word, Word]:
    """Difference, modulo 2**128."""
    borrow = np.int64(1) if lo < other_lo else np.int64(0)
    return hi - other_hi - borrow, lo - other_lo


@kernel
def compare(hi: Word, lo: Word, other_hi: Word, other_lo: Word) -> int:
    """-1, 0 or 1: below, equal, above."""
    if hi != other_hi:
        return -1 if hi < other_hi else 1
    if lo != other_lo:
        return -1 if lo < other_lo else 1
    return 0


@kernel
def negate(hi: Word, lo: Word) -> tuple[Word, Word]:
    """Minus the number."""
    low = _ZERO - lo
    return ~hi + (np.int64(1) if low == _ZERO else np.int64(0)), low


@kernel
def magnitude(hi: Word, lo: Word) -> tuple[Word, Word]:
    """Absolute value as two unsigned words."""
    if hi < 0:
        hi, lo = negate(hi, lo)
    return np.uint64(hi), lo


@kernel
def divide_small(hi: Word, lo: Word, divisor: Word) -> tuple[Word, Word, Word]:
    """Unsigned (hi, lo) by a divisor below 2**32: (quotient hi, quotient lo, remainder)."""
    if hi == _ZERO:
        return _ZERO, lo // divisor, lo % divisor
    rest = hi % divisor
    upper = (rest << _HALF) | (lo >> _HALF)
    lower = ((upper % divisor) << _HALF) | (lo & _LOW_HALF)
    return hi // divisor, ((upper // divisor) << _HALF) | (lower // divisor), lower % divisor


@kernel
def divide_rounded(hi: Word, lo: Word, digits: Word) -> tuple[Word, Word]:
    """Unsigned (hi, lo) / 10**digits, rounded half-even; ``digits`` >= 0."""
    sticky = _ZERO  # anything below the last group of digits that decides the rounding
    rest = _ZERO
    step = 0
    while digits > 0:
        sticky |= rest
        step = min(digits, 9)
        hi, lo, rest = divide_small(hi, lo, _POWERS[step])
        digits -= step
    half = _POWERS[step] // _TWO
    tie = rest == half and sticky == _ZERO
    if step > 0 and (rest > half or (rest == half and sticky != _ZERO) or (tie and lo & _ONE)):
        lo += _ONE
        if lo == _ZERO:
            hi += _ONE
    return hi, lo


@kernel
def multiply_rescaled(a: Word, b: Word, digits: Word) -> tuple[Word, Word]:
    """a * b / 10**digits for int64 a and b, rounded half-even; negative digits multiply.

    -18 <= digits <= 36. ``(NO_SUM, 0)`` where the result does not fit decimal128(38, 12).
    """
    hi, lo = multiply(a, b)
    negative = hi < 0
    upper, lower = magnitude(hi, lo)
    if digits >= 0:
        upper, lower = divide_rounded(upper, lower, digits)
    else:
        over, high = multiply_unsigned(upper, _POWERS[-digits])
        carry, lower = multiply_unsigned(lower, _POWERS[-digits])
        upper = high + carry
        if over != _ZERO or upper < carry:
            return np.int64(NO_SUM), _ZERO
    if upper > _SUM_LIMIT_HI or (upper == _SUM_LIMIT_HI and lower > _SUM_LIMIT_LO):
        return np.int64(NO_SUM), _ZERO
    if negative:
        return negate(np.int64(upper), lower)
    return np.int64(upper), lower


@kernel
def notional(price: Word, price_scale: Word, size: Word, size_scale: Word) -> tuple[Word, Word]:
    """price * size at scale 12, rounded half-even: (hi, lo).

    Scales 0..18. ``(NO_SUM, 0)`` where the product does not fit decimal128(38, 12).
    """
    return multiply_rescaled(price, size, price_scale + size_scale - _SCALE)


@kernel
def fits_column(mantissa: Word, scale: Word) -> bool:
    """May mantissa * 10**-scale (scale 0..18) stand in a decimal128(28, 12) column, exactly?"""
    if mantissa == _NO_PRICE:
        return False
    if scale < _SCALE:
        return bool(-_COLUMN_LIMITS[scale] <= mantissa <= _COLUMN_LIMITS[scale])
    return bool(mantissa % np.int64(_POWERS[scale - _SCALE]) == 0)


@kernel
def widen(mantissa: Word, scale: Word) -> tuple[Word, Word]:
    """mantissa * 10**-scale as words at scale 12; exact where :func:`fits_column` says so."""
    if scale <= _SCALE:
        hi, lo = multiply(mantissa, np.int64(_POWERS[_SCALE - scale]))
        return hi, lo
    value = np.int64(mantissa) // np.int64(_POWERS[scale - _SCALE])
    return value >> np.int64(63), np.uint64(value)


@kernel
def narrow(hi: Word, lo: Word) -> tuple[Word, int, bool]:
    """Words at scale 12 as (mantissa, scale 0..12, ok), without trailing zeros.

    ``ok`` is false, and the value 0, where the mantissa does not fit an int64.
    """
    upper, lower = magnitude(hi, lo)
    scale = _SCALE
    step = 8  # 8, 4, 2, 1: every count of zeros up to 12, in four trials
    while step > 0:
        if scale >= step:
            quotient_hi, quotient_lo, rest = divide_small(upper, lower, _POWERS[step])
            if rest == _ZERO:
                upper, lower = quotient_hi, quotient_lo
                scale -= step
        step >>= 1
    if upper != _ZERO or lower >= _SIGN:
        return np.int64(0), 0, False
    return (-np.int64(lower) if hi < 0 else np.int64(lower)), scale, True
