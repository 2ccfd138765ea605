"""CRC32 of the top of a book over its numbers exactly as the venue sent them.

Sources: Kraken WebSocket v1 "Book checksum" guide; OKX API v5 and Bitget API v1 "Checksum".
Sides are best first. ``mantissa`` and ``scale`` as sent reproduce the text, trailing zeros and all
(schemas.units.text_of). The CRC is the usual one of zlib (IEEE 802.3).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from marketflow.operators.events import ChecksumRule
from marketflow.operators.kernels.int128 import Word
from marketflow.schemas.kernel import kernel

KRAKEN_LEVELS: Final = 10
OKX_LEVELS: Final = 25

_KRAKEN: Final = int(ChecksumRule.KRAKEN)
_COLON: Final = 58
_TEN: Final = np.uint64(10)
_ZERO_CHAR: Final = np.uint64(48)
#: Most bytes of one number: sign, 20 digits, dot, separator.
_NUMBER_BYTES: Final = 23
#: Most bytes of the text a checksum is taken of.
MAX_BYTES: Final = 2 * 2 * OKX_LEVELS * _NUMBER_BYTES


def _crc_table() -> NDArray[np.uint32]:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(0xEDB88320), table >> 1)
    return table


_TABLE: Final = _crc_table()


@kernel
def crc32(data: NDArray[np.uint8], stop: Word) -> Word:
    """CRC32 of ``data[:stop]`` as uint32."""
    crc = np.uint32(0xFFFFFFFF)
    for i in range(stop):
        crc = np.uint32(_TABLE[(crc ^ data[i]) & np.uint32(255)] ^ (crc >> np.uint32(8)))
    return np.uint32(~crc)


@kernel
def _write_digits(value: Word, least: Word, out: NDArray[np.uint8], at: Word) -> Word:
    """Decimal digits of a uint64, at least ``least`` of them; returns the place after them."""
    count = np.int64(0)
    rest = value
    while rest != np.uint64(0):
        rest //= _TEN
        count += 1
    stop = at + max(count, least)
    for position in range(stop - 1, at - 1, -1):
        out[position] = _ZERO_CHAR + value % _TEN
        value //= _TEN
    return stop


@kernel
def _write_number(mantissa: Word, scale: Word, out: NDArray[np.uint8], at: Word) -> Word:
    """The number as sent, then a colon."""
    if mantissa < 0:
        out[at] = 45
        at += 1
    stop = _write_digits(np.uint64(abs(mantissa)), scale + 1, out, at)
    if scale > 0:
        dot = stop - scale
        for position in range(stop, dot, -1):
            out[position] = out[position - 1]
        out[dot] = 46
        stop += 1
    out[stop] = _COLON
    return stop + 1


@kernel
def checksum_into(
    out: NDArray[np.uint8],
    rule: int,
    bid_prices: NDArray[Any],
    bid_price_scales: NDArray[Any],
    bid_sizes: NDArray[Any],
    bid_size_scales: NDArray[Any],
    n_bids: int,
    ask_prices: NDArray[Any],
    ask_price_scales: NDArray[Any],
    ask_sizes: NDArray[Any],
    ask_size_scales: NDArray[Any],
    n_asks: int,
) -> Word:
    """:func:`checksum` with its text written to ``out`` (MAX_BYTES): for kernels that allocate
    nothing."""
    at = np.int64(0)
    none = np.int64(0)
    if rule == _KRAKEN:
        for level in range(min(n_asks, KRAKEN_LEVELS)):
            at = _write_digits(np.uint64(ask_prices[level]), none, out, at)
            at = _write_digits(np.uint64(ask_sizes[level]), none, out, at)
        for level in range(min(n_bids, KRAKEN_LEVELS)):
            at = _write_digits(np.uint64(bid_prices[level]), none, out, at)
            at = _write_digits(np.uint64(bid_sizes[level]), none, out, at)
        return crc32(out, at)
    for level in range(min(max(n_bids, n_asks), OKX_LEVELS)):
        if level < n_bids:
            at = _write_number(bid_prices[level], np.int64(bid_price_scales[level]), out, at)
            at = _write_number(bid_sizes[level], np.int64(bid_size_scales[level]), out, at)
        if level < n_asks:
            at = _write_number(ask_prices[level], np.int64(ask_price_scales[level]), out, at)
            at = _write_number(ask_sizes[level], np.int64(ask_size_scales[level]), out, at)
    return crc32(out, max(at - 1, none))  # joined by colons, not ended by one


@kernel
def checksum(
    rule: int,
    bid_prices: NDArray[Any],
    bid_price_scales: NDArray[Any],
    bid_sizes: NDArray[Any],
    bid_size_scales: NDArray[Any],
    n_bids: int,
    ask_prices: NDArray[Any],
    ask_price_scales: NDArray[Any],
    ask_sizes: NDArray[Any],
    ask_size_scales: NDArray[Any],
    n_asks: int,
) -> Word:
    """The checksum (uint32) of a book by ``rule``; a venue's signed value equals it mod 2**32.

    KRAKEN: up to 10 asks, then 10 bids; of each level the digits of price and size without the
    dot and leading zeros. OKX, BITGET: ``bid:size:ask:size`` of up to 25 levels, level by level;
    where one side is shorter, the other goes on alone.
    """
    out = np.empty(MAX_BYTES, np.uint8)
    return checksum_into(
        out, rule,
        bid_prices, bid_price_scales, bid_sizes, bid_size_scales, n_bids,
        ask_prices, ask_price_scales, ask_sizes, ask_size_scales, n_asks,
    )  # fmt: skip
