"""Record batches as PostgreSQL COPY BINARY rows.

Each column's buffers go through one compiled encoder, a block of rows at a time. A TIME becomes two fields, the timestamptz (us) and its remaining ns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.fields import Field, Kind, Table
from sinks import copy_kernels as kernels

HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER: Final = b"\xff\xff"

_FIXED_BYTES: Final = {
    Kind.INT16: 2,
    Kind.INT32: 4,
    Kind.INT64: 8,
    Kind.UINT8: 2,  # PostgreSQL has no one-byte integer
    Kind.BOOL: 1,
}
_NONE: Final = np.zeros(0, np.uint8)
#: Rows laid out at once: about half a second-level cache.
_BLOCK_BYTES: Final = 1 << 18
U8 = NDArray[np.uint8]
I64 = NDArray[np.int64]


class _Column(NamedTuple):
    """``write(first, out, at)`` adds the column's field to a block of rows; ``widest`` bytes."""

    write: Callable[[int, U8, I64], None]
    widest: int


def encode(table: Table, batch: pa.RecordBatch) -> memoryview:
    """The rows of ``batch`` (the table's Arrow schema) as COPY BINARY tuples, no header."""
    columns = [c for field in table.fields for c in _columns(field, batch.column(field.name))]
    # The scratch digits of a numeric reach beyond its end, also in the last column.
    stride = 2 + sum(c.widest for c in columns) + kernels.MAX_NUMERIC_BYTES
    block_rows = max(1, _BLOCK_BYTES // stride)
    block = np.empty(min(block_rows, batch.num_rows) * stride, np.uint8)
    result = np.empty(batch.num_rows * stride, np.uint8)
    end = 0
    for first in range(0, batch.num_rows, block_rows):
        at = np.empty(min(block_rows, batch.num_rows - first), np.int64)
        kernels.open_rows(stride, len(columns), block, at)
        for column in columns:
            column.write(first, block, at)
        end = kernels.close_up(stride, block, at, result, end)
    return memoryview(result)[:end]


def _bitmap(column: pa.Array) -> U8:
    bitmap = column.buffers()[0]
    return _NONE if bitmap is None or not column.null_count else np.frombuffer(bitmap, np.uint8)


def _integers(column: pa.Array, dtype: str) -> I64:
    data = np.frombuffer(column.buffers()[1], dtype)
    return data[column.offset : column.offset + len(column)].astype(np.int64)


def _words(column: pa.Array) -> I64:
    """Low and high words of a decimal128 column."""
    data = np.frombuffer(column.buffers()[1], np.int64)
    return data[2 * column.offset : 2 * (column.offset + len(column))]


def _strings(column: pa.Array, dtype: type) -> tuple[I64, U8]:
    _, bounds, data = column.buffers()
    marks = np.frombuffer(bounds, dtype)[column.offset : column.offset + len(column) + 1]
    text = _NONE if data is None else np.frombuffer(data, np.uint8)
    return marks.astype(np.int64), text


def _columns(field: Field, column: pa.Array) -> list[_Column]:
    bitmap, offset = _bitmap(column), column.offset
    match field.kind:
        case Kind.TIME:
            ns = _integers(column, "int64")
            us = np.empty_like(ns)
            kernels.microseconds(ns, us)
            return [_fixed(us, bitmap, offset, 8), _fixed(ns % 1000, bitmap, offset, 2)]
        case Kind.BOOL:
            values = np.asarray(column.cast(pa.int8()).fill_null(0)).astype(np.int64)
            return [_fixed(values, bitmap, offset, 1)]
        case Kind.INT16 | Kind.INT32 | Kind.INT64 | Kind.UINT8:
            values = _integers(column, str(column.type))
            return [_fixed(values, bitmap, offset, _FIXED_BYTES[field.kind])]
        case Kind.DECIMAL | Kind.SUM:
            return [_numeric(_words(column), bitmap, offset)]
        case Kind.CODE | Kind.NAME:
            return [_dictionary(column)]
        case Kind.ID | Kind.TEXT | Kind.BYTES:
            dtype = np.int64 if field.kind is Kind.BYTES else np.int32
            return [_text(*_strings(column, dtype), bitmap, offset)]
        case Kind.DECIMALS | Kind.COUNTS:
            return [_list(field, column)]


def _fixed(values: I64, bitmap: U8, offset: int, width: int) -> _Column:
    return _Column(
        lambda first, out, at: kernels.fixed(values, bitmap, offset, width, first, out, at),
        4 + width,
    )


def _numeric(words: I64, bitmap: U8, offset: int) -> _Column:
    return _Column(
        lambda first, out, at: kernels.numerics(words, bitmap, offset, first, out, at),
        kernels.MAX_NUMERIC_BYTES,
    )


def _dictionary(column: pa.DictionaryArray) -> _Column:
    keys = column.indices
    indices = _integers(keys, str(keys.type))
    bounds, data = _strings(column.dictionary, np.int32)
    bitmap, offset = _bitmap(keys), keys.offset
    return _Column(
        lambda first, out, at: kernels.words_of(
            indices, bounds, data, bitmap, offset, first, out, at
        ),
        4 + int(np.diff(bounds).max(initial=0)),
    )


def _text(bounds: I64, data: U8, bitmap: U8, offset: int) -> _Column:
    return _Column(
        lambda first, out, at: kernels.texts(bounds, data, bitmap, offset, first, out, at),
        4 + int(np.diff(bounds).max(initial=0)),
    )


def _list(field: Field, column: pa.Array) -> _Column:
    bounds = np.frombuffer(column.buffers()[1], np.int32)
    bounds = bounds[column.offset : column.offset + len(column) + 1].astype(np.int64)
    longest = int(np.diff(bounds).max(initial=0))
    items = column.values
    if field.kind is Kind.DECIMALS:
        words = np.frombuffer(items.buffers()[1], np.int64)[2 * items.offset :]
        return _Column(
            lambda first, out, at: kernels.numeric_arrays(bounds, words, first, out, at),
            24 + kernels.MAX_NUMERIC_BYTES * longest,
        )
    values = np.frombuffer(items.buffers()[1], np.int32)[items.offset :].astype(np.int64)
    return _Column(
        lambda first, out, at: kernels.int4_arrays(bounds, values, first, out, at),
        24 + 8 * longest,
    )
