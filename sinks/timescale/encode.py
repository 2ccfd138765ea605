"""Rows as PostgreSQL COPY BINARY, in the layout of :mod:`schemas.derived.sql`.

Batches first become plain columns (:func:`to_columns`), cheap to keep and to join; those go through
one compiled encoder each, a block of rows at a time. A TIME becomes two fields (the timestamptz in
us and its remaining ns), a CODE the smallint of its enum. PostgreSQL's text cannot hold a NUL
character: it is stored as U+2400 (SYMBOL FOR NULL).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from marketflow.schemas.derived.arrow import arrow_type, dictionary, schema
from marketflow.schemas.fields import Field, Kind, Table
from marketflow.sinks.columns import Bare, Names
from marketflow.sinks.timescale.kernels import fields as kernels
from marketflow.sinks.timescale.kernels.bytes import SLACK

HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER: Final = b"\xff\xff"

_FIXED_BYTES: Final = {
    Kind.SHARD: 8,
    Kind.INT32: 4,
    Kind.INT64: 8,
    Kind.UINT8: 2,  # PostgreSQL has no one-byte integer
    Kind.BOOL: 1,
}
_TIME_BYTES: Final = 18
_SAMPLES: Final[dict[Kind, Any]] = {
    **dict.fromkeys(Kind, 1),
    **dict.fromkeys((Kind.ID, Kind.TEXT), "x"),
    Kind.BOOL: True,
    Kind.BYTES: b"x",
    Kind.DECIMALS: [1],
    Kind.COUNTS: [1],
}
_ALL: Final = np.frombuffer(b"", np.uint8)
_NUL: Final = "\0"
_NUL_SHOWN: Final = "\u2400"
#: Rows laid out at once; with the packed copy of them it stays in a second-level cache.
_BLOCK_BYTES: Final = 1 << 19
U8 = NDArray[np.uint8]
I64 = NDArray[np.int64]


class _Column(NamedTuple):
    """``write(first, out, at)`` adds the column's fields to a block; each at most ``widest``
    bytes."""

    write: Callable[[int, U8, I64], None]
    widest: int
    fields: int = 1


class Words:
    """Texts of all NAME columns (symbols, venues ...) by code, each ready as a whole field.

    Field w is ``sizes[w]`` bytes at ``fields[w * width]``; grows with the instruments of the flow.
    """

    def __init__(self) -> None:
        self.names = Names()
        self.sizes = np.zeros(0, np.int64)
        self.fields = _ALL
        self.width = 16

    def refresh(self) -> None:
        """Take in the texts that have come since."""
        if len(self.sizes) == len(self.names):
            return
        texts = [self.names.text(code) for code in range(len(self.names))]
        words = [text.replace(_NUL, _NUL_SHOWN).encode() for text in texts]
        self.width = -(-(4 + max(map(len, words))) // 16) * 16
        padded = [(len(w).to_bytes(4, "big") + w).ljust(self.width, b"\0") for w in words]
        self.fields = np.frombuffer(b"".join(padded), np.uint8)
        self.sizes = _frozen(np.array([4 + len(w) for w in words], np.int64))


def to_columns(table: Table, batch: pa.RecordBatch, words: Words) -> Bare:
    """A plain array per field: NAME columns as codes of ``words``, CODE columns as int8.

    Bugs of an operator (a missing column, a null where none may be, a foreign type or word) are
    assertions: the database would refuse the rows again and again.
    """
    columns = []
    for field, wanted in zip(table.fields, schema(table), strict=True):
        column = batch.column(field.name)
        assert field.nullable or column.null_count == 0, f"{table.name}.{field.name} has nulls"
        if field.kind is Kind.NAME:
            column = words.names.codes(column)
        elif field.kind is Kind.CODE:
            column = _codes(field, column)
        else:
            assert column.type == wanted.type, f"{table.name}.{field.name}: {column.type}"
        columns.append(column)
    return columns


def encode(table: Table, columns: Bare, words: Words) -> Iterator[memoryview]:
    """Rows as COPY BINARY tuples, without :data:`HEADER` and :data:`TRAILER`.

    Yields pieces of at most half a megabyte (one row may be more), each valid until the next.
    """
    total = len(columns[0])
    if not total:
        return
    words.refresh()
    encoders = [_column(f, column, words) for f, column in zip(table.fields, columns, strict=True)]
    stride = 2 + sum(e.widest for e in encoders) + max(SLACK, kernels.MAX_NUMERIC_BYTES)
    rows = min(max(1, _BLOCK_BYTES // stride), total)
    block = np.empty(rows * stride, np.uint8)
    packed = np.empty(rows * stride + SLACK, np.uint8)
    places = np.empty(rows, np.int64)
    fields = sum(e.fields for e in encoders)
    for first in range(0, total, rows):
        at = places[: total - first]
        kernels.open_rows(stride, fields, block, at)
        for encoder in encoders:
            encoder.write(first, block, at)
        yield packed.data[: kernels.close_up(stride, block, at, packed)]


def compile_kernels(table: Table) -> None:
    """Compile what the table's rows need, or load it where that was done before."""
    words = Words()
    words.names.codes(pa.array(["x", "y"]).dictionary_encode())
    plain = {Kind.NAME: pa.int32(), Kind.CODE: pa.int8()}
    columns = [pa.array([_SAMPLES[f.kind]], plain.get(f.kind, arrow_type(f))) for f in table.fields]
    for _ in encode(table, columns, words):
        pass


def _valid(column: pa.Array) -> U8:
    """A byte per row; empty when no row is null."""
    if not column.null_count:
        return _ALL
    bitmap = np.frombuffer(column.buffers()[0], np.uint8)
    first, rest = divmod(column.offset, 8)
    bits = np.unpackbits(bitmap[first:], count=rest + len(column), bitorder="little")
    return _frozen(bits[rest:])


def _frozen(values: NDArray[np.generic]) -> NDArray[Any]:
    """Read-only, as most buffers are: kernels are compiled for one kind of array only."""
    view = values.view()
    view.flags.writeable = False
    return view


def _data(buffer: pa.Buffer | None, dtype: str | type) -> NDArray[np.generic]:
    """A buffer's values; Arrow may leave out the buffer of an empty array."""
    return np.zeros(0, dtype) if buffer is None else np.frombuffer(buffer, dtype)


def _integers(column: pa.Array, dtype: str) -> I64:
    data = _data(column.buffers()[1], dtype)
    rows = data[column.offset : column.offset + len(column)]
    return _frozen(rows.astype(np.int64, copy=False))


def _halves(column: pa.Array) -> I64:
    """Low and high words of a decimal128 column."""
    data = _data(column.buffers()[1], np.int64)
    return _frozen(data[2 * column.offset : 2 * (column.offset + len(column))])


def _strings(column: pa.Array, dtype: type) -> tuple[I64, U8]:
    _, bounds, data = column.buffers()
    marks: NDArray[Any] = np.frombuffer(bounds, dtype)[
        column.offset : column.offset + len(column) + 1
    ]
    return _frozen(marks.astype(np.int64, copy=False)), _frozen(_data(data, np.uint8))


def _column(field: Field, column: pa.Array, words: Words) -> _Column:
    match field.kind:
        case Kind.TIME:
            values, valid = _integers(column, "int64"), _valid(column)
            return _Column(
                lambda first, out, at: kernels.times(values, valid, first, out, at), _TIME_BYTES, 2
            )
        case Kind.BOOL:
            return _fixed(column.cast(pa.int8()), 1)
        case Kind.CODE:
            return _fixed(column, 2)
        case Kind.SHARD | Kind.INT32 | Kind.INT64 | Kind.UINT8:
            return _fixed(column, _FIXED_BYTES[field.kind])
        case Kind.DECIMAL | Kind.SUM:
            halves, valid = _halves(column), _valid(column)
            return _Column(
                lambda first, out, at: kernels.numerics(halves, valid, first, out, at),
                kernels.MAX_NUMERIC_BYTES,
            )
        case Kind.NAME:
            return _names(column, words)
        case Kind.ID | Kind.TEXT | Kind.BYTES:
            return _texts(column, np.int64 if field.kind is Kind.BYTES else np.int32)
        case Kind.DECIMALS | Kind.COUNTS:
            return _lists(field, column)


def _fixed(column: pa.Array, width: int) -> _Column:
    values, valid = _integers(column, str(column.type)), _valid(column)
    return _Column(
        lambda first, out, at: kernels.fixed(values, valid, width, first, out, at), 4 + width
    )


def _codes(field: Field, column: pa.DictionaryArray) -> pa.Array:
    """The enum's values; a word that is not of the enum is a bug of an operator."""
    known = dictionary(field)
    if column.dictionary is known or column.dictionary.equals(known):
        return column.indices.cast(pa.int8())
    values = pc.index_in(column.dictionary, value_set=known).cast(pa.int8())
    assert values.null_count == 0, f"{field.name}: unknown words in {column.dictionary}"
    return values.take(column.indices)


def _names(column: pa.Array, words: Words) -> _Column:
    codes, valid = _integers(column, "int32"), _valid(column)
    sizes, fields, width = words.sizes, words.fields, words.width
    return _Column(
        lambda first, out, at: kernels.words_of(codes, sizes, fields, width, valid, first, out, at),
        width,
    )


def _texts(column: pa.Array, dtype: type) -> _Column:
    bounds, data = _strings(column, dtype)
    if dtype is np.int32 and not data[slice(*bounds[[0, -1]])].all():
        bounds, data = _strings(pc.replace_substring(column, _NUL, _NUL_SHOWN), dtype)
    valid = _valid(column)
    return _Column(
        lambda first, out, at: kernels.texts(bounds, data, valid, first, out, at),
        4 + int(np.diff(bounds).max(initial=0)),
    )


def _lists(field: Field, column: pa.Array) -> _Column:
    ends = np.frombuffer(column.buffers()[1], np.int32)
    bounds = _frozen(ends[column.offset : column.offset + len(column) + 1].astype(np.int64))
    longest = int(np.diff(bounds).max(initial=0))
    items, valid = column.values, _valid(column)
    if field.kind is Kind.DECIMALS:
        halves = _halves(items)
        return _Column(
            lambda first, out, at: kernels.numeric_arrays(bounds, halves, valid, first, out, at),
            kernels.ARRAY_HEAD_BYTES + kernels.MAX_NUMERIC_BYTES * longest,
        )
    values = _integers(items, "int32")
    return _Column(
        lambda first, out, at: kernels.int4_arrays(bounds, values, valid, first, out, at),
        kernels.ARRAY_HEAD_BYTES + 8 * longest,
    )
