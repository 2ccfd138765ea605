"""COPY BINARY fields from column buffers, compiled: no Python object per row.

Rows are laid out ``stride`` bytes apart; every encoder adds one column's field to the rows
``first .. last`` of a block (4-byte big-endian length, then the value; length -1 is NULL), writing
row i at ``at[i - first]`` and moving that on. :func:`close_up` then moves the rows together. A
block is small enough to stay in the cache while its columns are written. Formats: PostgreSQL's ``numeric_send`` (base 10000 digits),
``timestamptz_send`` (us since 2000-01-01), ``array_send``.
"""

from __future__ import annotations

from typing import Final

import numba
import numpy as np
from numpy.typing import NDArray

#: us between 1970-01-01 and 2000-01-01.
EPOCH_2000_US: Final = 946_684_800_000_000
NUMERIC_OID: Final = 1700
INT4_OID: Final = 23
#: 4 length + 8 header + 10 digit groups of 2 bytes: any decimal128(38, 12).
MAX_NUMERIC_BYTES: Final = 32
_FRACTION_GROUPS: Final = 3  # 12 decimals
_GROUPS: Final = 10

U8 = NDArray[np.uint8]
I64 = NDArray[np.int64]


@numba.njit(cache=True, nogil=True)
def put_int(out: U8, at: int, value: int, width: int) -> int:
    """``width`` bytes of an integer, big endian."""
    for k in range(width):
        out[at + k] = (value >> (8 * (width - 1 - k))) & 255
    return at + width


@numba.njit(cache=True, nogil=True)
def is_valid(bitmap: U8, offset: int, i: int) -> bool:
    """Arrow validity; an empty bitmap means that all are valid."""
    if len(bitmap) == 0:
        return True
    bit = offset + i
    return (bitmap[bit >> 3] >> (bit & 7)) & 1 == 1


@numba.njit(cache=True, nogil=True)
def open_rows(stride: int, columns: int, out: U8, at: I64) -> None:
    """Start every row of a block with its number of fields."""
    for i in range(len(at)):
        at[i] = put_int(out, i * stride, columns, 2)


@numba.njit(cache=True, nogil=True)
def close_up(stride: int, out: U8, at: I64, result: U8, end: int) -> int:
    """Append the rows of a block to ``result`` at ``end``; returns the new end."""
    for i in range(len(at)):
        begin = i * stride
        size = at[i] - begin
        result[end : end + size] = out[begin : at[i]]
        end += size
    return end


@numba.njit(cache=True, nogil=True)
def fixed(values: I64, bitmap: U8, offset: int, width: int, first: int, out: U8, at: I64) -> None:
    """Integers (and times, already converted) of 1, 2, 4 or 8 bytes."""
    for i in range(len(at)):
        if is_valid(bitmap, offset, first + i):
            end = put_int(out, at[i], width, 4)
            at[i] = put_int(out, end, values[first + i], width)
        else:
            at[i] = put_int(out, at[i], -1, 4)


@numba.njit(cache=True, nogil=True)
def microseconds(ns: I64, out: I64) -> None:
    """ns since 1970 to us since 2000, rounded down: the rest is :func:`remainders`."""
    for i in range(len(ns)):
        out[i] = ns[i] // 1000 - EPOCH_2000_US


@numba.njit(cache=True, nogil=True)
def put_numeric(low: int, high: int, out: U8, at: int) -> int:
    """A 128-bit value at scale 12 as ``numeric``: length, header, digits. Returns the new end.

    Needs MAX_NUMERIC_BYTES of room whatever the value: the digits are first written wide.
    """
    negative = high < 0
    lo = np.uint64(low)
    hi = np.uint64(high)
    if negative:
        lo = ~lo + np.uint64(1)
        hi = ~hi + (np.uint64(1) if lo == np.uint64(0) else np.uint64(0))
    # Four 32-bit limbs, most significant first, divided by 10000 again and again.
    mask = np.uint64(0xFFFFFFFF)
    shift = np.uint64(32)
    l3 = hi >> shift
    l2 = hi & mask
    l1 = lo >> shift
    l0 = lo & mask
    base = np.uint64(10000)
    # Groups are put at their full-width places first and moved together afterwards.
    body = at + 12
    last = -1
    first = _GROUPS
    for g in range(_GROUPS):
        if hi == 0:
            # Nearly every price and size: one machine word.
            if lo == 0:
                break
            rest = lo
            lo = rest // base
            digit = rest - lo * base
        else:
            rest = l3
            l3 = rest // base
            rest = ((rest - l3 * base) << shift) | l2
            l2 = rest // base
            rest = ((rest - l2 * base) << shift) | l1
            l1 = rest // base
            rest = ((rest - l1 * base) << shift) | l0
            l0 = rest // base
            digit = rest - l0 * base
        place = _GROUPS - 1 - g
        out[body + 2 * place] = digit >> np.uint64(8)
        out[body + 2 * place + 1] = digit & np.uint64(255)
        if digit != 0:
            if last < 0:
                last = place
            first = place
    count = last - first + 1 if last >= 0 else 0
    weight = (_GROUPS - _FRACTION_GROUPS - 1) - first if count else 0
    at = put_int(out, at, 8 + 2 * count, 4)
    at = put_int(out, at, count, 2)
    at = put_int(out, at, weight, 2)
    at = put_int(out, at, 0x4000 if negative and count else 0, 2)
    at = put_int(out, at, 12, 2)
    for k in range(2 * count):
        out[at + k] = out[body + 2 * first + k]
    return at + 2 * count


@numba.njit(cache=True, nogil=True)
def numerics(words: I64, bitmap: U8, offset: int, first: int, out: U8, at: I64) -> None:
    """decimal128 columns at scale 12; ``words`` are low and high word of each value in turn."""
    for i in range(len(at)):
        row = first + i
        if is_valid(bitmap, offset, row):
            at[i] = put_numeric(words[2 * row], words[2 * row + 1], out, at[i])
        else:
            at[i] = put_int(out, at[i], -1, 4)


@numba.njit(cache=True, nogil=True)
def put_bytes(data: U8, begin: int, end: int, out: U8, at: int) -> int:
    """A string or byte field."""
    at = put_int(out, at, end - begin, 4)
    for k in range(begin, end):
        out[at + k - begin] = data[k]
    return at + end - begin


@numba.njit(cache=True, nogil=True)
def texts(bounds: I64, data: U8, bitmap: U8, offset: int, first: int, out: U8, at: I64) -> None:
    """Strings and bytes: row i is ``data[bounds[i]:bounds[i + 1]]``."""
    for i in range(len(at)):
        row = first + i
        if is_valid(bitmap, offset, row):
            at[i] = put_bytes(data, bounds[row], bounds[row + 1], out, at[i])
        else:
            at[i] = put_int(out, at[i], -1, 4)


@numba.njit(cache=True, nogil=True)
def words_of(
    indices: I64, bounds: I64, data: U8, bitmap: U8, offset: int, first: int, out: U8, at: I64
) -> None:
    """Dictionary columns: row i is word ``indices[i]``."""
    for i in range(len(at)):
        row = first + i
        if is_valid(bitmap, offset, row):
            word = indices[row]
            at[i] = put_bytes(data, bounds[word], bounds[word + 1], out, at[i])
        else:
            at[i] = put_int(out, at[i], -1, 4)


@numba.njit(cache=True, nogil=True)
def put_array_head(out: U8, at: int, count: int, oid: int) -> int:
    """Header of a one-dimensional array (an empty one has no dimension)."""
    at = put_int(out, at, 1 if count else 0, 4)
    at = put_int(out, at, 0, 4)
    at = put_int(out, at, oid, 4)
    if count:
        at = put_int(out, at, count, 4)
        at = put_int(out, at, 1, 4)
    return at


@numba.njit(cache=True, nogil=True)
def numeric_arrays(bounds: I64, words: I64, first: int, out: U8, at: I64) -> None:
    """list<decimal128> as numeric[]."""
    for i in range(len(at)):
        start = at[i]
        begin, end = bounds[first + i], bounds[first + i + 1]
        here = put_array_head(out, start + 4, end - begin, NUMERIC_OID)
        for k in range(begin, end):
            here = put_numeric(words[2 * k], words[2 * k + 1], out, here)
        put_int(out, start, here - start - 4, 4)
        at[i] = here


@numba.njit(cache=True, nogil=True)
def int4_arrays(bounds: I64, values: I64, first: int, out: U8, at: I64) -> None:
    """list<int32> as int4[]."""
    for i in range(len(at)):
        start = at[i]
        begin, end = bounds[first + i], bounds[first + i + 1]
        here = put_array_head(out, start + 4, end - begin, INT4_OID)
        for k in range(begin, end):
            here = put_int(out, here, 4, 4)
            here = put_int(out, here, values[k], 4)
        put_int(out, start, here - start - 4, 4)
        at[i] = here
