"""Units and the only conversions between them. Integers everywhere; nothing here is a float.

Prices and sizes are int64 *mantissas* with a decimal *scale*: value = mantissa * 10**-scale.
Columns show ``decimal128(28, 12)``; sums and products ``decimal128(38, 12)``.
Time is int64 nanoseconds since 1970-01-01 UTC; 0 in a kernel row means "not known" (null).
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

COLUMN_SCALE: Final = 12
PRICE_PRECISION: Final = 28
SUM_PRECISION: Final = 38
#: Largest magnitude of a price or size column, as an integer of 1e-12 steps.
PRICE_LIMIT: Final = 10**PRICE_PRECISION - 1
SUM_LIMIT: Final = 10**SUM_PRECISION - 1
INT64_MAX: Final = 2**63 - 1
#: A mantissa that means "no value" (an empty side of a quote): never a legal price.
NO_PRICE: Final = -(2**63)

#: 2262-01-01 UTC: from here on times are refused. Intervals that begin before it end within int64,
#: which itself ends in April of that year.
END_OF_TIME_NS: Final = 9_214_646_400_000_000_000

NS_PER_US: Final = 1_000
NS_PER_MS: Final = 1_000_000
NS_PER_S: Final = 1_000_000_000
NS_PER_MINUTE: Final = 60 * NS_PER_S
NS_PER_DAY: Final = 86_400 * NS_PER_S

_INTERVAL_UNIT_NS: Final = {
    "ms": NS_PER_MS,
    "s": NS_PER_S,
    "m": NS_PER_MINUTE,
    "h": 60 * NS_PER_MINUTE,
    "d": NS_PER_DAY,
}


def interval_ns(text: str) -> int:
    """Length in ns of a bar interval such as ``100ms``, ``1s``, ``5m``, ``1h``, ``1d``.

    Raises ValueError with the accepted forms when the text is none of them.
    """
    digits = text.rstrip("abcdefghijklmnopqrstuvwxyz")
    unit = text[len(digits) :]
    if (
        not digits.isascii()
        or not digits.isdigit()
        or int(digits) == 0
        or unit not in _INTERVAL_UNIT_NS
    ):
        raise ValueError(f"interval {text!r} is not <whole number><ms|s|m|h|d>, such as 1s, 5m, 1h")
    return int(digits) * _INTERVAL_UNIT_NS[unit]


def to_decimal(mantissa: int, scale: int) -> Decimal:
    """Exact Decimal of a mantissa and scale (slow path and tests)."""
    return Decimal(f"{mantissa}E{-scale}")  # scaleb would round to the context's 28 digits


def text_of(mantissa: int, scale: int) -> str:
    """The number as a venue writes it with ``scale`` decimals, trailing zeros kept."""
    sign, digits = ("-", str(-mantissa)) if mantissa < 0 else ("", str(mantissa))
    if scale <= 0:
        return sign + digits
    digits = digits.rjust(scale + 1, "0")
    return f"{sign}{digits[:-scale]}.{digits[-scale:]}"
