"""The obvious number parser: a regular expression and decimal.Decimal."""

from __future__ import annotations

import json
import re
from decimal import Decimal, localcontext

NUMBER = re.compile(r"-?(?=[0-9]|\.[0-9])[0-9]*(\.[0-9]*)?([eE][+-]?[0-9]+)?", re.ASCII)
LIMIT = 10**28 - 1  # decimal128(28, 12) as an integer of 1e-12 steps
INT64_MAX = 2**63 - 1


def parse(text: str) -> tuple[int, int, str]:
    """(mantissa, scale, "ok" | "garbage" | "range") of a number as sent."""
    match = NUMBER.fullmatch(text)
    if match is None:
        return 0, 0, "garbage"
    with localcontext(prec=1000):
        value = Decimal(text)
        _, _, exponent = value.as_tuple()
        if abs(int(exponent)) > 5000:  # far outside, and too slow to write out
            return (0, 12 if int(exponent) < 0 else 0, "ok") if value == 0 else (0, 0, "range")
        sent = max(-int(exponent), 0)
        for scale in range(min(sent, 12), -1, -1):
            mantissa = value.scaleb(scale)
            if mantissa != mantissa.to_integral_value():
                break
            whole = int(mantissa)
            if abs(whole) <= INT64_MAX and abs(whole) * 10 ** (12 - scale) <= LIMIT:
                return whole, scale, "ok"
    return 0, 0, "range"


def levels(raw: str) -> list[list[str]] | None:
    """Inner arrays of a JSON array of arrays, every element as text; None if it is none."""
    try:
        outer = json.loads(raw, parse_float=str, parse_int=str, parse_constant=str)
    except ValueError:
        return None
    return outer if isinstance(outer, list) else None
