"""One exact number from a value of a JSON decoder; same answers as the kernel.

Used message by message, where a compiled call would cost more than the number.
"""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np

from marketflow.operators.kernels import numbers
from marketflow.schemas.codes import DeadLetterReason
from marketflow.schemas.units import COLUMN_SCALE

#: Text as sent, a JSON value left raw (its quotes are taken off), or a whole JSON number.
Number = str | bytes | int | msgspec.Raw

_LIMITS: Final = tuple(numbers.LIMITS.tolist())
_DIGITS: Final = 18


def exact(number: Number) -> tuple[int, int, int]:
    """(mantissa, scale, code) as :func:`operators.kernels.numbers.parse_number`."""
    text = number if isinstance(number, str) else _text(number)
    whole, _, decimals = text.partition(".")
    if len(text) <= _DIGITS and (whole + decimals).isdigit() and text.isascii() and whole:
        scale = len(decimals)
        mantissa = int(whole + decimals)
        if scale <= COLUMN_SCALE and mantissa <= _LIMITS[scale]:
            return mantissa, scale, numbers.OK
    data = text.encode("utf-8", "replace")
    mantissa, scale, code = numbers.parse_number(
        np.frombuffer(data + b"\0", np.uint8), 0, len(data)
    )
    return int(mantissa), int(scale), int(code)


def _text(number: bytes | int | msgspec.Raw) -> str:
    if isinstance(number, int):
        # A bool is no number, although Python says so.
        return "" if isinstance(number, bool) else str(number)
    data = bytes(number)
    if isinstance(number, msgspec.Raw) and data[:1] == b'"' and data[-1:] == b'"' != data:
        data = data[1:-1]
    return data.decode("latin-1")


def reason_of(code: int, garbage: DeadLetterReason) -> DeadLetterReason:
    """Why a number with that code (not OK) is refused."""
    assert code != numbers.OK
    return DeadLetterReason.OUT_OF_RANGE if code == numbers.OUT_OF_RANGE else garbage
