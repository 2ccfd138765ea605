"""Bytes by address: reading one or eight of them, comparing, turning into numbers.

Why addresses: an array handed to a kernel's helper costs two atomic reference counts a call, ten
times the work of the small helpers here. Whoever takes :func:`address_of` keeps the array alive
and sees to it that SPARE bytes behind every address handed over may be read.

Words are little endian and int64; only bit patterns matter. The tricks are the well-known ones of
byte-parallel number parsing (Mula, Lemire: "Quickly parsing eight digits").
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from marketflow.schemas.kernel import bare_kernel

#: Bytes that may be read behind an address.
SPARE: Final = 24

#: A constant that kernels compare bytes with: (length, mask, word at 0, place and word, place and
#: word). Up to 24 bytes are covered by three overlapping words.
Literal = tuple[int, int, int, int, int, int, int]


def _signed(data: bytes) -> int:
    return int.from_bytes(data.ljust(8, b"\0"), "little", signed=True)


def literal(text: bytes) -> Literal:
    """The constant for :func:`after`."""
    length = len(text)
    assert 0 < length <= SPARE, text
    if length <= 8:
        word0 = _signed(text)
        return length, _signed(b"\xff" * length), word0, 0, word0, 0, word0
    middle, last = min(8, length - 8), length - 8
    words = [_signed(text[i : i + 8]) for i in (0, middle, last)]
    return length, -1, words[0], middle, words[1], last, words[2]


def _loader(bits: int) -> Any:
    """A typed load from an address; unaligned is fine."""

    def declare(typing_context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kind = ir.IntType(bits)
            place = builder.inttoptr(arguments[0], kind.as_pointer())
            return builder.zext(builder.load(place, align=1), ir.IntType(64))

        return types.int64(types.int64), generate

    return declare


_byte = intrinsic(_loader(8))
_word = intrinsic(_loader(64))


@bare_kernel
def address_of(text: NDArray[np.uint8]) -> Any:
    """Address of the first byte."""
    return np.int64(text.ctypes.data)


@bare_kernel
def byte(at: int) -> Any:
    """The byte at an address."""
    return _byte(at)


@bare_kernel
def word(at: int) -> Any:
    """The eight bytes from ``at`` on."""
    return _word(at)


@bare_kernel
def after(at: int, expected: Literal) -> int:
    """Address after ``expected`` at ``at``; -1 if something else is there (or at is -1)."""
    if at < 0:
        return -1
    difference = _word(at) ^ expected[2]
    difference |= _word(at + expected[3]) ^ expected[4]
    difference |= _word(at + expected[5]) ^ expected[6]
    return at + expected[0] if difference & expected[1] == 0 else -1


_HIGH: Final = _signed(b"\xf0" * 8)
_SIXES: Final = _signed(b"\x06" * 8)
_THREES: Final = _signed(b"\x33" * 8)
_NIBBLES: Final = _signed(b"\x0f" * 8)
_BYTES: Final = _signed(b"\xff\0" * 4)
_SHORTS: Final = _signed(b"\xff\xff\0\0" * 2)


@bare_kernel
def is_digits(value: int) -> bool:
    """Whether all eight bytes are ASCII digits."""
    low = ((value + _SIXES) & _HIGH) >> 4
    # The shift is arithmetic: a set top bit never equals the digits' pattern.
    return ((value & _HIGH) | low) == _THREES


@bare_kernel
def eight_digits(value: int) -> int:
    """The number that eight ASCII digits are, first byte first."""
    value = ((value & _NIBBLES) * 2561) >> 8
    value = ((value & _BYTES) * 6553601) >> 16
    return ((value & _SHORTS) * 42949672960001) >> 32
