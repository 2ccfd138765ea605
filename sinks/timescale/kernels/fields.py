"""COPY BINARY fields from column buffers, compiled: no Python object per row.

Every encoder adds one column's field to a block of rows, ``first`` being the column's row that is
the block's first: row i is written at ``at[i]``, which is moved on. Rows lie ``stride`` bytes
apart; :func:`close_up` then moves them together. A block is small enough to stay in the
second-level cache while its columns are written. ``valid`` is a byte per row of the column, or
empty where none is null. A field is a 4-byte big-endian length and the value; length -1 is NULL.
Value formats: PostgreSQL's ``numeric_send`` (base 10000 digits), ``timestamptz_send`` (us since
2000-01-01), ``array_send``.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from marketflow.schemas.kernel import kernel
from marketflow.schemas.units import NS_PER_US
from marketflow.sinks.timescale.kernels.bytes import (
    leading_zeros,
    move16,
    put16,
    put32,
    put64,
    trailing_zeros,
)

#: us between 1970-01-01 and 2000-01-01.
EPOCH_2000_US: Final = 946_684_800_000_000
NUMERIC_OID: Final = 1700
INT4_OID: Final = 23
#: 4 length + 8 header + 10 digit groups of 2 bytes: any decimal128(38, 12).
MAX_NUMERIC_BYTES: Final = 32
#: 4 length + 20 header of an array with one dimension.
ARRAY_HEAD_BYTES: Final = 24
_FRACTION_GROUPS: Final = 3  # 12 decimals
_GROUPS: Final = 10
_NEGATIVE: Final = 0x4000

U8 = NDArray[np.uint8]
I64 = NDArray[np.int64]


@kernel
def open_rows(stride: int, columns: int, out: U8, at: I64) -> None:
    """Start every row of a block with its number of fields."""
    for i in range(len(at)):
        put16(out, i * stride, columns)
        at[i] = i * stride + 2


@kernel
def close_up(stride: int, out: U8, at: I64, result: U8) -> int:
    """Move the rows of a block together, to the start of ``result``; returns their bytes."""
    end = 0
    for i in range(len(at)):
        begin = i * stride
        size = at[i] - begin
        # The last move of a row reaches into where the next one goes.
        for k in range(0, size, 16):
            move16(result, end + k, out, begin + k)
        end += size
    return end


@kernel
def fixed(values: I64, valid: U8, width: int, first: int, out: U8, at: I64) -> None:
    """Integers of 1, 2, 4 or 8 bytes."""
    shift = 64 - 8 * width
    for i in range(len(at)):
        place = at[i]
        if len(valid) and not valid[first + i]:
            put32(out, place, -1)
            at[i] = place + 4
        else:
            put32(out, place, width)
            put64(out, place + 4, values[first + i] << shift)
            at[i] = place + 4 + width


@kernel
def times(values: I64, valid: U8, first: int, out: U8, at: I64) -> None:
    """ns since 1970 as two fields: the timestamptz, rounded down, and the ns left over."""
    for i in range(len(at)):
        place = at[i]
        if len(valid) and not valid[first + i]:
            put64(out, place, -1)
            at[i] = place + 8
        else:
            ns = values[first + i]
            us = ns // NS_PER_US
            put32(out, place, 8)
            put64(out, place + 4, us - EPOCH_2000_US)
            put32(out, place + 12, 2)
            put16(out, place + 16, ns - us * NS_PER_US)
            at[i] = place + 18


@kernel
def put_numeric_wide(lo: np.uint64, hi: np.uint64, negative: bool, out: U8, at: int) -> int:
    """The magnitude ``hi:lo`` at scale 12 as ``numeric``, whatever its size; the new end."""
    # Four 32-bit limbs, most significant first, divided by 10000 again and again.
    mask = np.uint64(0xFFFFFFFF)
    shift = np.uint64(32)
    base = np.uint64(10000)
    l3, l2, l1, l0 = hi >> shift, hi & mask, lo >> shift, lo & mask
    # Groups are put at their full-width places first and moved together afterwards.
    body = at + 12
    last = -1
    first = _GROUPS
    for g in range(_GROUPS):
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
        put16(out, body + 2 * place, digit)
        if digit != 0:
            if last < 0:
                last = place
            first = place
    count = last - first + 1
    weight = (_GROUPS - _FRACTION_GROUPS - 1) - first
    put32(out, at, 8 + 2 * count)
    put16(out, at + 4, count)
    put16(out, at + 6, weight)
    put16(out, at + 8, _NEGATIVE if negative else 0)
    put16(out, at + 10, 12)
    for k in range(2 * count):
        out[body + k] = out[body + 2 * first + k]
    return body + 2 * count


@kernel
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
    if hi != 0:
        return put_numeric_wide(lo, hi, negative, out, at)
    # Nearly every price and size: one machine word, at most two groups before the point and
    # three behind it; the first four of the five as one word.
    whole = lo // np.uint64(10**12)
    fraction = lo - whole * np.uint64(10**12)
    w0 = whole // np.uint64(10**4)
    w1 = whole - w0 * np.uint64(10**4)
    f0 = fraction // np.uint64(10**8)
    fraction -= f0 * np.uint64(10**8)
    f1 = fraction // np.uint64(10**4)
    f2 = fraction - f1 * np.uint64(10**4)
    four = (w0 << np.uint64(48)) | (w1 << np.uint64(32)) | (f0 << np.uint64(16)) | f1
    first = leading_zeros(four) >> 4
    if f2 != 0:
        left_out = 0
    elif four == 0:
        put64(out, at, 8 << 32)
        put32(out, at + 8, 12)
        return at + 12
    else:
        left_out = 1 + (trailing_zeros(four) >> 4)
    count: int = 5 - first - left_out
    sign = _NEGATIVE if negative else 0
    put32(out, at, 8 + 2 * count)
    put64(out, at + 4, (count << 48) | (((1 - first) & 0xFFFF) << 32) | (sign << 16) | 12)
    if first == 0:
        put64(out, at + 12, four)
        put16(out, at + 20, f2)
    elif first == 4:
        put16(out, at + 12, f2)
    else:
        shift = np.uint64(16 * first)
        put64(out, at + 12, (four << shift) | (f2 << (shift - np.uint64(16))))
    return at + 12 + 2 * count


@kernel
def numerics(words: I64, valid: U8, first: int, out: U8, at: I64) -> None:
    """decimal128 columns at scale 12; ``words`` are low and high word of each value in turn."""
    for i in range(len(at)):
        row = first + i
        if len(valid) and not valid[row]:
            put32(out, at[i], -1)
            at[i] += 4
        else:
            at[i] = put_numeric(words[2 * row], words[2 * row + 1], out, at[i])


@kernel
def texts(bounds: I64, data: U8, valid: U8, first: int, out: U8, at: I64) -> None:
    """Strings and bytes: row i is ``data[bounds[i]:bounds[i + 1]]``."""
    for i in range(len(at)):
        row = first + i
        place = at[i]
        if len(valid) and not valid[row]:
            put32(out, place, -1)
            at[i] = place + 4
        else:
            begin, end = bounds[row], bounds[row + 1]
            put32(out, place, end - begin)
            place += 4
            # Nothing behind the buffer may be read: whole words first, then single bytes.
            while begin + 16 <= end:
                move16(out, place, data, begin)
                begin += 16
                place += 16
            while begin < end:
                out[place] = data[begin]
                begin += 1
                place += 1
            at[i] = place


@kernel
def words_of(
    indices: I64, sizes: I64, fields: U8, width: int, valid: U8, first: int, out: U8, at: I64
) -> None:
    """Dictionary columns: row i is word ``indices[i]``. Word w is ready as a field of
    ``sizes[w]`` bytes at ``fields[w * width]``; ``width`` is a multiple of 16."""
    for i in range(len(at)):
        row = first + i
        place = at[i]
        if len(valid) and not valid[row]:
            put32(out, place, -1)
            at[i] = place + 4
        else:
            word = indices[row]
            size = sizes[word]
            for k in range(0, size, 16):
                move16(out, place + k, fields, word * width + k)
            at[i] = place + size


@kernel
def put_array_head(out: U8, at: int, count: int, oid: int) -> int:
    """Header of a one-dimensional array (an empty one has no dimension); where items go."""
    put32(out, at, 1 if count else 0)
    put32(out, at + 4, 0)
    put32(out, at + 8, oid)
    if count == 0:
        return at + 12
    put32(out, at + 12, count)
    put32(out, at + 16, 1)
    return at + 20


@kernel
def numeric_arrays(bounds: I64, words: I64, valid: U8, first: int, out: U8, at: I64) -> None:
    """list<decimal128> as numeric[]."""
    for i in range(len(at)):
        start = at[i]
        if len(valid) and not valid[first + i]:
            put32(out, start, -1)
            at[i] = start + 4
        else:
            begin, end = bounds[first + i], bounds[first + i + 1]
            here = put_array_head(out, start + 4, end - begin, NUMERIC_OID)
            for k in range(begin, end):
                here = put_numeric(words[2 * k], words[2 * k + 1], out, here)
            put32(out, start, here - start - 4)
            at[i] = here


@kernel
def int4_arrays(bounds: I64, values: I64, valid: U8, first: int, out: U8, at: I64) -> None:
    """list<int32> as int4[]."""
    for i in range(len(at)):
        start = at[i]
        if len(valid) and not valid[first + i]:
            put32(out, start, -1)
            at[i] = start + 4
        else:
            begin, end = bounds[first + i], bounds[first + i + 1]
            here = put_array_head(out, start + 4, end - begin, INT4_OID)
            for k in range(begin, end):
                put64(out, here, (4 << 32) | (values[k] & 0xFFFFFFFF))
                here += 8
            put32(out, start, here - start - 4)
            at[i] = here
