"""Kernel rows to record batches: the last step of every core that writes tables.

The rules of the translation are those of :mod:`schemas.derived.kernel_rows`. All buffers of a batch
lie in one allocation that a kernel fills; dictionaries are shared by all batches of a feed while
they are small (see operators.names.Names.of).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from marketflow.operators.events import Instruments
from marketflow.operators.kernels import widen
from marketflow.operators.names import Names
from marketflow.schemas import units
from marketflow.schemas.derived import arrow
from marketflow.schemas.derived.kernel_rows import scale_of
from marketflow.schemas.fields import Field, Kind, Table

# Kinds of arrays that a column's buffers make.
_PLAIN, _CODED, _NAMED, _STRING, _LIST = range(5)
_SHAPES = {
    Kind.CODE: _CODED,
    Kind.NAME: _NAMED,
    Kind.ID: _STRING,
    Kind.DECIMALS: _LIST,
    Kind.COUNTS: _LIST,
}

_NO_DICTIONARIES: Mapping[str, pa.StringArray] = {}


class _Column(NamedTuple):
    """How one column's buffers become an array."""

    name: str
    shape: int
    type: pa.DataType
    item: pa.DataType | None
    dictionary: pa.StringArray | None


class _Plan(NamedTuple):
    steps: NDArray[np.int64]
    columns: tuple[_Column, ...]
    schema: pa.Schema


_plans: dict[tuple[str, np.dtype[np.void]], _Plan] = {}


def _step(field: Field, dtype: np.dtype[np.void]) -> list[int]:
    """The plan line of one column; TypeError where rows of ``dtype`` cannot make it."""
    name = field.name

    def byte(column: str) -> int:
        assert dtype.fields is not None
        return int(dtype.fields[column][1])

    def source(column: str) -> int:
        assert dtype.fields is not None
        return byte(column) // dtype.fields[column][0].base.itemsize

    nullable = int(field.nullable)
    if name == "row_sequence":
        return [widen.SEQUENCE, 0, 0, 0, 0]
    if name == "shard":
        return [widen.SHARD, 0, 0, 0, 0]
    if name in ("venue", "symbol"):
        op = widen.VENUE if name == "venue" else widen.SYMBOL
        return [op, source("instrument"), 0, 0, 0]
    match field.kind:
        case Kind.SUM | Kind.DECIMAL if f"{name}_hi" in (dtype.names or ()):
            assert not nullable, name
            return [widen.WORDS, source(f"{name}_hi"), source(f"{name}_lo"), 0, 0]
        case Kind.DECIMAL:
            return [widen.DECIMAL, source(name), byte(scale_of(field)), 0, nullable]
        case Kind.TIME | Kind.INT64 if nullable:
            null = 0 if field.kind is Kind.TIME else units.NO_PRICE
            return [widen.NULLABLE_8, source(name), 0, null, 1]
        case Kind.TIME | Kind.INT64:
            return [widen.COPY_8, source(name), 0, 0, 0]
        case Kind.INT32 | Kind.NAME if not nullable:
            return [widen.COPY_4, source(name), 0, 0, 0]
        case Kind.UINT8 | Kind.CODE if not nullable:
            return [widen.COPY_1, source(name), 0, 0, 0]
        case Kind.BOOL if not nullable:
            return [widen.BOOL, source(name), 0, 0, 0]
        case Kind.ID:
            words = source(f"{name}_hi"), source(f"{name}_lo")
            return [widen.ID, *words, byte(f"{name}_kind"), nullable]
        case Kind.DECIMALS | Kind.COUNTS:
            levels = byte("bid_levels" if name.startswith("bid") else "ask_levels")
            if field.kind is Kind.COUNTS:
                return [widen.COUNTS, source(name), 0, levels, 0]
            return [widen.DECIMALS, source(name), byte(scale_of(field)), levels, 0]
    raise TypeError(f"{name}: a {field.kind.value} column has no kernel form")


def _plan(table: Table, dtype: np.dtype[np.void]) -> _Plan:
    plan = _plans.get((table.name, dtype))
    if plan is None:
        assert dtype.itemsize % 8 == 0, f"{table.name}: rows must be padded to 8 bytes"
        schema = arrow.schema(table)
        columns = tuple(
            _Column(
                field.name,
                _SHAPES.get(field.kind, _PLAIN),
                schema.field(field.name).type,
                getattr(schema.field(field.name).type, "value_type", None),
                arrow.dictionary(field) if field.kind is Kind.CODE else None,
            )
            for field in table.fields
        )
        steps = np.array([_step(field, dtype) for field in table.fields], np.int64)
        plan = _plans[table.name, dtype] = _Plan(steps, columns, schema)
    return plan


def _array(
    column: _Column,
    count: int,
    buffer: pa.Buffer,
    spot: list[int],
    names: Names,
    dictionaries: Mapping[str, pa.StringArray],
) -> pa.Array:
    """One column of the batch from its line of the layout; without nulls it has no bitmap."""
    valid_at, offsets_at, data_at, size, values, nulls = spot
    valid = buffer.slice(valid_at, (count + 7) >> 3) if nulls else None
    data = buffer.slice(data_at, size)
    shape, kind = column.shape, column.type
    if shape == _PLAIN:
        return pa.Array.from_buffers(kind, count, [valid, data], nulls)
    if shape == _CODED:
        return pa.DictionaryArray.from_buffers(kind, count, [None, data], column.dictionary, 0)
    if shape == _NAMED:
        if column.name == "symbol":
            dictionary = names.symbols
        elif column.name == "venue":
            dictionary = names.venues
        else:
            dictionary = dictionaries[column.name]
        return pa.DictionaryArray.from_buffers(kind, count, [None, data], dictionary, 0)
    offsets = buffer.slice(offsets_at, 4 * (count + 1))
    if shape == _STRING:
        return pa.Array.from_buffers(kind, count, [valid, offsets, data], nulls)
    items = pa.Array.from_buffers(column.item, values, [None, data], 0)
    return pa.Array.from_buffers(kind, count, [valid, offsets], nulls, children=[items])


def rows_to_batch(
    table: Table,
    rows: NDArray[np.void],
    instruments: Instruments,
    shard: int,
    first_row_sequence: int,
    dictionaries: Mapping[str, pa.StringArray] = _NO_DICTIONARIES,
) -> pa.RecordBatch:
    """Rows of ``schemas.derived.kernel_rows.row_dtype(table)`` as a batch of
    ``schemas.derived.arrow.schema(table)``.

    ``shard``: of schemas.shards. ``row_sequence`` counts from ``first_row_sequence``;
    ``dictionaries`` holds those of NAME columns other than venue and symbol. DECIMAL columns may
    also come as words (``<name>_hi``, ``<name>_lo`` at scale 12) instead of a mantissa. A value
    that its column cannot hold (null where none may be, more than 12 decimals) is a bug of the
    caller.
    """
    plan = _plan(table, rows.dtype)
    count = len(rows)
    if count == 0:
        return pa.RecordBatch.from_pylist([], schema=plan.schema)
    names, places = instruments.names.of(rows["instrument"])
    rows = np.ascontiguousarray(rows)
    if places is not None:
        rows = rows.copy()
        rows["instrument"] = places
    words, halves, octets = rows.view(np.int64), rows.view(np.int32), rows.view(np.int8)
    source = widen.Source(words, halves, octets, names.venue_of, names.symbol_of)
    layout = np.empty((len(plan.columns), widen.LAYOUT_WIDTH), np.int64)
    buffer = pa.allocate_buffer(widen.lay_out(plan.steps, source, count, layout))
    out = np.frombuffer(buffer, np.uint8)
    arena = widen.Arena(out.view(np.int64), out.view(np.int32), out)
    bad = widen.fill(plan.steps, layout, source, arena, count, shard, first_row_sequence)
    assert bad == 0, f"{table.name}: {bad} values do not fit their columns"
    arrays = [
        _array(column, count, buffer, spot, names, dictionaries)
        for column, spot in zip(plan.columns, layout.tolist(), strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=plan.schema)
