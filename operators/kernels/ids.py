"""Ids as 128 bits and back, byte by byte; the forms are those of operators.events.IdKind.

An id is ``(hi, lo, kind)`` with uint64 words. Which form a text takes follows from the text alone
(UINT before HEX before UUID before ASCII), so equal texts are equal words and the other way round.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from marketflow.operators.events import IdKind
from marketflow.operators.kernels.int128 import Word, divide_small, multiply_unsigned
from marketflow.schemas.kernel import kernel

#: ``kind`` of a text that no form can hold.
NOT_AN_ID: Final = -1
UUID_LENGTH: Final = 36
HEX_LENGTH: Final = 24
ASCII_LENGTH: Final = 15
UINT_LENGTH: Final = 39
#: Longest text of any id.
MAX_LENGTH: Final = UINT_LENGTH

_NONE: Final = int(IdKind.NONE)
_UINT: Final = int(IdKind.UINT)
_UUID: Final = int(IdKind.UUID)
_HEX: Final = int(IdKind.HEX)
_ASCII: Final = int(IdKind.ASCII)

_ZERO: Final = np.uint64(0)
_FOUR: Final = np.uint64(4)
_EIGHT: Final = np.uint64(8)
_TEN: Final = np.uint64(10)
_ZERO_CHAR: Final = np.uint64(48)
_NIBBLE: Final = np.uint64(15)
_BYTE: Final = np.uint64(255)
_NINE_DIGITS: Final = np.uint64(10**9)
_POWERS: Final = np.array([10**n for n in range(20)], np.uint64)
_HEX_DIGITS: Final = np.frombuffer(b"0123456789abcdef", np.uint8)
#: Value of each byte as a lower-case hex digit; above 15: it is none.
_DASH: Final = np.uint64(0x20)
_HEX_VALUES: Final = np.full(256, 0x10, np.uint64)
_HEX_VALUES[_HEX_DIGITS] = np.arange(16, dtype=np.uint64)
_HEX_VALUES[ord("-")] = _DASH
#: Places of the dashes of a UUID.
_DASHES: Final = (8, 13, 18, 23)


@kernel
def _digits(value: Word) -> int:
    """Decimal digits of a uint64."""
    count = 1
    while count < 20 and value >= _POWERS[count]:
        count += 1
    return count


@kernel
def text_length(hi: Word, lo: Word, kind: Word) -> Word:
    """Bytes of the id's text."""
    if kind == _UINT:
        count = 0
        while hi != _ZERO:
            hi, lo, _ = divide_small(hi, lo, _NINE_DIGITS)
            count += 9
        return count + _digits(lo)
    if kind == _UUID:
        return UUID_LENGTH
    if kind == _HEX:
        return HEX_LENGTH
    if kind == _ASCII:
        return np.int64(lo & _BYTE)  # int() would keep it unsigned
    return 0


@kernel
def _write_digits(value: Word, count: Word, out: NDArray[np.uint8], at: int) -> None:
    """The last ``count`` decimal digits of ``value``, from ``out[at]`` on."""
    for position in range(at + count - 1, at - 1, -1):
        out[position] = _ZERO_CHAR + value % _TEN
        value //= _TEN


@kernel
def _write_hex(value: Word, count: int, out: NDArray[np.uint8], at: int) -> None:
    """The last ``count`` hex digits of ``value``, from ``out[at]`` on."""
    for position in range(at + count - 1, at - 1, -1):
        out[position] = _HEX_DIGITS[value & _NIBBLE]
        value >>= _FOUR


@kernel
def write_text(hi: Word, lo: Word, kind: Word, out: NDArray[np.uint8], at: int) -> Word:
    """Write the id's text at ``out[at]``; returns the place after it."""
    stop = at + text_length(hi, lo, kind)
    if kind == _UINT:
        last = stop
        while hi != _ZERO:
            hi, lo, rest = divide_small(hi, lo, _NINE_DIGITS)
            last -= 9
            _write_digits(rest, np.int64(9), out, last)
        _write_digits(lo, last - at, out, at)
    elif kind == _UUID:
        _write_hex(hi >> np.uint64(32), 8, out, at)
        _write_hex(hi >> np.uint64(16), 4, out, at + 9)
        _write_hex(hi, 4, out, at + 14)
        _write_hex(lo >> np.uint64(48), 4, out, at + 19)
        _write_hex(lo, 12, out, at + 24)
        for dash in _DASHES:
            out[at + dash] = 45
    elif kind == _HEX:
        _write_hex(hi, 8, out, at)
        _write_hex(lo, 16, out, at + 8)
    elif kind == _ASCII:
        for position in range(at, stop):
            out[position] = hi >> np.uint64(56)
            hi = (hi << _EIGHT) | (lo >> np.uint64(56))
            lo <<= _EIGHT
    return stop


@kernel
def _parse_uint(text: NDArray[np.uint8], start: int, stop: int) -> tuple[Word, Word, int]:
    hi, lo = _ZERO, _ZERO
    length = stop - start
    if length == 0 or length > UINT_LENGTH or (length > 1 and text[start] == 48):
        return hi, lo, NOT_AN_ID
    for position in range(start, stop):
        digit = text[position]
        if digit < 48 or digit > 57:
            return hi, lo, NOT_AN_ID
        value = np.uint64(digit - 48)
        if position - start < 19:  # 19 digits always fit one word
            lo = lo * _TEN + value
        else:
            over, hi = multiply_unsigned(hi, _TEN)
            carry, lo = multiply_unsigned(lo, _TEN)
            lo += value
            if lo < value:
                carry += np.uint64(1)
            hi += carry
            if over != _ZERO or hi < carry:
                return hi, lo, NOT_AN_ID
    return hi, lo, _UINT


@kernel
def _parse_hex(text: NDArray[np.uint8], start: int, stop: int) -> tuple[Word, Word, Word]:
    """Hex digits of ``text[start:stop]``, dashes skipped; third: 0 if all were such digits."""
    hi, lo, bad = _ZERO, _ZERO, _ZERO
    for position in range(start, stop):
        value = _HEX_VALUES[text[position]]
        if value != _DASH:
            bad |= value
            hi = (hi << _FOUR) | (lo >> np.uint64(60))
            lo = (lo << _FOUR) | (value & _NIBBLE)
    return hi, lo, bad >> _FOUR


@kernel
def _parse_dashed(text: NDArray[np.uint8], start: int, stop: int) -> tuple[Word, Word, int]:
    hi, lo, bad = _parse_hex(text, start, stop)
    dashes = 0
    for position in range(start, stop):
        dashes += text[position] == 45
    placed = 0
    for dash in _DASHES:
        placed += text[start + dash] == 45
    if bad != _ZERO or dashes != 4 or placed != 4:
        return hi, lo, NOT_AN_ID
    return hi, lo, _UUID


@kernel
def _parse_ascii(text: NDArray[np.uint8], start: int, stop: int) -> tuple[Word, Word, int]:
    hi, lo = _ZERO, _ZERO
    for at in range(15):
        char = _ZERO
        if start + at < stop:
            char = np.uint64(text[start + at])
            if char > np.uint64(127):
                return hi, lo, NOT_AN_ID
        hi = (hi << _EIGHT) | (lo >> np.uint64(56))
        lo = (lo << _EIGHT) | char
    hi = (hi << _EIGHT) | (lo >> np.uint64(56))
    return hi, (lo << _EIGHT) | np.uint64(stop - start), _ASCII


@kernel
def parse_text(text: NDArray[np.uint8], start: int, stop: int) -> tuple[Word, Word, int]:
    """The id in ``text[start:stop]`` as (hi, lo, kind); kind NOT_AN_ID where no form fits."""
    hi, lo, kind = _parse_uint(text, start, stop)
    length = stop - start
    if kind == NOT_AN_ID and length == HEX_LENGTH:
        hi, lo, bad = _parse_hex(text, start, stop)
        for position in range(start, stop):
            bad |= np.uint64(text[position] == 45)
        return hi, lo, NOT_AN_ID if bad != _ZERO else _HEX
    if kind == NOT_AN_ID and length == UUID_LENGTH:
        return _parse_dashed(text, start, stop)
    if kind == NOT_AN_ID and length <= ASCII_LENGTH:
        return _parse_ascii(text, start, stop)
    return hi, lo, kind


@kernel
def parse_spans(
    text: NDArray[np.uint8],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    hi: NDArray[np.uint64],
    lo: NDArray[np.uint64],
    kinds: NDArray[np.int8],
) -> int:
    """Parse ``text[starts[i]:stops[i]]`` into the three outputs; a span with start < 0 is null.

    Returns how many spans hold no id; their kind is NOT_AN_ID.
    """
    bad = 0
    for i in range(len(starts)):
        if starts[i] < 0:
            hi[i], lo[i], kinds[i] = _ZERO, _ZERO, _NONE
            continue
        upper, lower, kind = parse_text(text, starts[i], stops[i])
        if kind == NOT_AN_ID:
            upper, lower = _ZERO, _ZERO
            bad += 1
        hi[i], lo[i], kinds[i] = upper, lower, kind
    return bad


@kernel
def total_length(hi: NDArray[np.uint64], lo: NDArray[np.uint64], kinds: NDArray[np.int8]) -> int:
    """Bytes of all texts together."""
    total = 0
    for i in range(len(kinds)):
        total += text_length(hi[i], lo[i], kinds[i])
    return total


@kernel
def write_texts(
    hi: NDArray[np.uint64],
    lo: NDArray[np.uint64],
    kinds: NDArray[np.int8],
    offsets: NDArray[np.int32],
    out: NDArray[np.uint8],
    valid: NDArray[np.uint8],
) -> int:
    """Arrow string buffers of the ids: offsets (n + 1), bytes, validity bits (zeroed before).

    Returns the number of nulls.
    """
    at: Word = np.int64(0)  # a plain 0 would compile write_text twice
    nulls = 0
    offsets[0] = 0
    for i in range(len(kinds)):
        if kinds[i] == _NONE:
            nulls += 1
        else:
            at = write_text(hi[i], lo[i], kinds[i], out, at)
            valid[i >> 3] |= np.uint8(1 << (i & 7))
        offsets[i + 1] = at
    return nulls
