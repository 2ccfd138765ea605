"""Kernel rows to Arrow buffers: one compiled pass per column, one call per batch.

A *plan* (int64, a line per column) says where a column comes from, a *layout* (int64, a line per
column) where its buffers lie in one arena. Rows are seen as plain words, halves and bytes, so that
one compilation serves every table. Nothing here knows a table; operators.rows writes the plans.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from marketflow.operators.events import IdKind
from marketflow.operators.kernels.ids import text_length, write_text
from marketflow.operators.kernels.int128 import Word, fits_column, widen
from marketflow.schemas import units
from marketflow.schemas.kernel import kernel
from marketflow.schemas.tables.market_data import DEPTH_LEVELS

# What a plan line does.
SEQUENCE: Final = 0  # first_sequence + row
SHARD: Final = 1  # the shard, int64
COPY_8: Final = 2
COPY_4: Final = 3
COPY_1: Final = 4
BOOL: Final = 5
NULLABLE_8: Final = 6  # 64-bit value with one value that means null
DECIMAL: Final = 7  # mantissa and scale
WORDS: Final = 8  # hi and lo at scale 12 already
VENUE: Final = 9
SYMBOL: Final = 10
ID: Final = 11
DECIMALS: Final = 12  # list of mantissas with one scale
COUNTS: Final = 13  # list of int32

# Columns of a plan line. Sources are indices into the view of the row that fits their width.
OP: Final = 0
SOURCE: Final = 1
SECOND: Final = 2  # scale (byte), lo (word)
THIRD: Final = 3  # kind of an id (byte), levels of a list (byte), null value of NULLABLE_8
NULLABLE: Final = 4
PLAN_WIDTH: Final = 5

# Columns of a layout line: byte offsets in the arena (-1: no such buffer), bytes of the data,
# values of a list, nulls.
VALID_AT: Final = 0
OFFSETS_AT: Final = 1
DATA_AT: Final = 2
DATA_BYTES: Final = 3
VALUES: Final = 4
NULLS: Final = 5
LAYOUT_WIDTH: Final = 6

_WIDTHS: Final = np.array([8, 8, 8, 4, 1, 0, 8, 16, 16, 4, 4, 0, 0, 0], np.int64)
_NO_PRICE: Final = units.NO_PRICE
_NO_ID: Final = int(IdKind.NONE)
_ALIGNMENT: Final = 64


class Source(NamedTuple):
    """A batch of rows seen as words, halves and bytes, and what it is joined with.

    ``venues`` and ``symbols`` map an instrument to its place in the dictionaries.
    """

    words: NDArray[np.int64]
    halves: NDArray[np.int32]
    octets: NDArray[np.int8]
    venues: NDArray[np.int32]
    symbols: NDArray[np.int32]


class Arena(NamedTuple):
    """The one output buffer, seen as words, halves and bytes."""

    words: NDArray[np.int64]
    halves: NDArray[np.int32]
    octets: NDArray[np.uint8]


@kernel
def lay_out(plan: NDArray[np.int64], source: Source, count: int, layout: NDArray[np.int64]) -> int:
    """Places of all buffers of ``count`` rows; returns the bytes of the arena."""
    stride = len(source.octets) // count
    at = 0
    for column in range(len(plan)):
        op = plan[column, OP]
        size = _WIDTHS[op] * count
        values: Word = 0
        if op == ID:
            first = plan[column, SOURCE]
            for row in range(count):
                word = row * (stride >> 3)
                size += text_length(
                    np.uint64(source.words[word + first]),
                    np.uint64(source.words[word + plan[column, SECOND]]),
                    np.int64(source.octets[row * stride + plan[column, THIRD]]),
                )
        elif op == DECIMALS or op == COUNTS:
            for row in range(count):
                values += np.int64(source.octets[row * stride + plan[column, THIRD]])
            size = values * (16 if op == DECIMALS else 4)
        elif op == BOOL:
            size = (count + 7) >> 3
        layout[column, VALID_AT] = -1
        if plan[column, NULLABLE] != 0:
            layout[column, VALID_AT] = at
            at += (((count + 7) >> 3) + _ALIGNMENT - 1) & -_ALIGNMENT
        layout[column, OFFSETS_AT] = -1
        if op >= ID:
            layout[column, OFFSETS_AT] = at
            at += ((count + 1) * 4 + _ALIGNMENT - 1) & -_ALIGNMENT
        layout[column, DATA_AT] = at
        layout[column, DATA_BYTES] = size
        layout[column, VALUES] = values
        layout[column, NULLS] = 0
        at += (size + _ALIGNMENT - 1) & -_ALIGNMENT
    return at


@kernel
def _set_valid(arena: Arena, at: int, row: int, valid: bool) -> None:
    """Bit ``row`` of the bitmap at byte ``at``; rows come in order."""
    if at < 0:
        return
    place = at + (row >> 3)
    if row & 7 == 0:
        arena.octets[place] = 0
    if valid:
        arena.octets[place] |= np.uint8(1 << (row & 7))


@kernel
def _fill_nullable(
    line: NDArray[np.int64], spot: NDArray[np.int64], source: Source, arena: Arena, count: int
) -> None:
    stride = len(source.words) // count
    out = spot[DATA_AT] >> 3
    for row in range(count):
        value = source.words[row * stride + line[SOURCE]]
        null = value == line[THIRD]
        arena.words[out + row] = 0 if null else value
        spot[NULLS] += null
        _set_valid(arena, spot[VALID_AT], row, not null)


@kernel
def _fill_decimal(
    line: NDArray[np.int64], spot: NDArray[np.int64], source: Source, arena: Arena, count: int
) -> Word:
    stride = len(source.octets) // count
    out = spot[DATA_AT] >> 3
    bad = 0
    nulls = 0
    valid_at = spot[VALID_AT]
    first, second = line[SOURCE], line[SECOND]
    for row in range(count):
        mantissa = source.words[row * (stride >> 3) + first]
        hi, lo = np.int64(0), np.uint64(0)
        null = mantissa == _NO_PRICE
        if null:
            nulls += 1
        else:
            scale = np.int64(source.octets[row * stride + second])
            bad += not fits_column(mantissa, scale)
            hi, lo = widen(mantissa, scale)
        arena.words[out + 2 * row] = np.int64(lo)
        arena.words[out + 2 * row + 1] = hi
        _set_valid(arena, valid_at, row, not null)
    spot[NULLS] = nulls
    return bad + (nulls if valid_at < 0 else 0)


@kernel
def _fill_id(
    line: NDArray[np.int64], spot: NDArray[np.int64], source: Source, arena: Arena, count: int
) -> None:
    stride = len(source.octets) // count
    offsets = spot[OFFSETS_AT] >> 2
    at = spot[DATA_AT]
    nulls = 0
    arena.halves[offsets] = 0
    for row in range(count):
        kind = np.int64(source.octets[row * stride + line[THIRD]])
        word = row * (stride >> 3)
        if kind == _NO_ID:
            nulls += 1
        else:
            hi = np.uint64(source.words[word + line[SOURCE]])
            lo = np.uint64(source.words[word + line[SECOND]])
            at = write_text(hi, lo, kind, arena.octets, at)
        _set_valid(arena, spot[VALID_AT], row, kind != _NO_ID)
        arena.halves[offsets + row + 1] = at - spot[DATA_AT]
    spot[NULLS] = nulls


@kernel
def _fill_list(
    line: NDArray[np.int64], spot: NDArray[np.int64], source: Source, arena: Arena, count: int
) -> Word:
    stride = len(source.octets) // count
    offsets = spot[OFFSETS_AT] >> 2
    at: Word = 0
    bad: Word = 0
    arena.halves[offsets] = 0
    for row in range(count):
        levels = np.int64(source.octets[row * stride + line[THIRD]])
        bad += levels > DEPTH_LEVELS
        if line[OP] == DECIMALS:
            out = (spot[DATA_AT] >> 3) + 2 * at
            first = row * (stride >> 3) + line[SOURCE]
            scale = np.int64(source.octets[row * stride + line[SECOND]])
            for level in range(levels):
                mantissa = source.words[first + level]
                bad += not fits_column(mantissa, scale)
                hi, lo = widen(mantissa, scale)
                arena.words[out + 2 * level] = np.int64(lo)
                arena.words[out + 2 * level + 1] = hi
        else:
            out = (spot[DATA_AT] >> 2) + at
            first = row * (stride >> 2) + line[SOURCE]
            for level in range(levels):
                arena.halves[out + level] = source.halves[first + level]
        at += levels
        arena.halves[offsets + row + 1] = at
    return bad


@kernel
def _fill_plain(
    line: NDArray[np.int64], spot: NDArray[np.int64], source: Source, arena: Arena, count: int
) -> None:
    """Columns that are copied as they are, or through one look-up."""
    op = line[OP]
    first = line[SOURCE]
    at = spot[DATA_AT]
    stride = len(source.octets) // count
    if op == COPY_8:
        for row in range(count):
            arena.words[(at >> 3) + row] = source.words[row * (stride >> 3) + first]
    elif op == COPY_4:
        for row in range(count):
            arena.halves[(at >> 2) + row] = source.halves[row * (stride >> 2) + first]
    elif op == VENUE or op == SYMBOL:
        places = source.venues if op == VENUE else source.symbols
        for row in range(count):
            arena.halves[(at >> 2) + row] = places[source.halves[row * (stride >> 2) + first]]
    elif op == COPY_1:
        for row in range(count):
            arena.octets[at + row] = np.uint8(source.octets[row * stride + first])
    elif op == BOOL:
        for row in range(count):
            _set_valid(arena, at, row, source.octets[row * stride + first] != 0)
    elif op == WORDS:
        for row in range(count):
            word = row * (stride >> 3)
            arena.words[(at >> 3) + 2 * row] = source.words[word + line[SECOND]]
            arena.words[(at >> 3) + 2 * row + 1] = source.words[word + first]


@kernel
def fill(
    plan: NDArray[np.int64],
    layout: NDArray[np.int64],
    source: Source,
    arena: Arena,
    count: int,
    shard: Word,
    first_sequence: Word,
) -> int:
    """Write all columns of ``count`` rows; returns how many values break the rows' contract
    (null or inexact where the column cannot be): the caller asserts 0."""
    bad = 0
    for column in range(len(plan)):
        line = plan[column]
        spot = layout[column]
        op = line[OP]
        if op == SEQUENCE:
            for row in range(count):
                arena.words[(spot[DATA_AT] >> 3) + row] = first_sequence + row
        elif op == SHARD:
            for row in range(count):
                arena.words[(spot[DATA_AT] >> 3) + row] = shard
        elif op == NULLABLE_8:
            _fill_nullable(line, spot, source, arena, count)
        elif op == DECIMAL:
            bad += _fill_decimal(line, spot, source, arena, count)
        elif op == ID:
            _fill_id(line, spot, source, arena, count)
        elif op == DECIMALS or op == COUNTS:
            bad += _fill_list(line, spot, source, arena, count)
        else:
            _fill_plain(line, spot, source, arena, count)
    return bad
