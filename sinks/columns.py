"""The three forms of a table on its way into the lake.

- *flow form*: what operators hand over, ``schemas.derived.arrow.schema``: NAME and CODE columns are
  dictionaries, every batch with its own.
- *bare form*: a list of plain arrays, one per field except ``venue`` (a partition has one):
  NAME columns are int32 codes of one :class:`Names`, CODE columns their int8. Cheap to
  concatenate, split and sort. It never leaves the process.
- *file form*: the bare form with sorted, minimal dictionaries again; what the aside log and the
  Parquet files hold.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from marketflow.schemas.derived.arrow import dictionary, schema
from marketflow.schemas.fields import Field, Kind, Table
from marketflow.schemas.tables import TABLES
from marketflow.schemas.tables.market_data import DEPTH_LEVELS

_KNOWN_DICTIONARIES: Final = 64

Bare = list[pa.Array]


@dataclass(frozen=True, slots=True)
class Shape:
    """What the forms of one table need to know. ``fields`` and the positions are of the bare
    form (all fields but ``venue``); ``file_schema`` is of the file form."""

    table: Table
    fields: tuple[Field, ...]
    file_schema: pa.Schema
    time: int
    shard: int
    row_sequence: int
    keys: tuple[int, ...]


@cache
def shape(table: str) -> Shape:
    """The shape of a table. ``keys``: sort order inside a file, major first (venue is constant)."""
    described = TABLES[table]
    fields = tuple(f for f in described.fields if f.name != "venue")
    place = {f.name: i for i, f in enumerate(fields)}
    default = ("symbol", described.time_field, "shard", "row_sequence")
    keys = [place[n] for n in described.sort_fields or default if n in place]
    flow = schema(described)
    return Shape(
        described,
        fields,
        pa.schema([flow.field(f.name) for f in fields]),
        place[described.time_field],
        place["shard"],
        place["row_sequence"],
        tuple(keys),
    )


class Names:
    """Texts of all NAME columns as int32 codes; grows with the instruments of the flow."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}
        self._texts: list[str] = []
        self._mappings: OrderedDict[tuple[int, int, int], tuple[pa.Array, pa.Array]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._texts)

    def text(self, code: int) -> str:
        return self._texts[code]

    def codes(self, column: pa.DictionaryArray) -> pa.Array:
        """The column's values as codes (int32, null where the value is)."""
        return self._mapping(column.dictionary).take(column.indices)

    def _mapping(self, texts: pa.Array) -> pa.Array:
        """Code of each text of a dictionary. Feeds send the same dictionary with every batch:
        known ones are found by where their bytes lie, and kept alive so that it stays true."""
        buffers = texts.buffers()
        data = buffers[-1]
        address = (data.address if data is not None else 0, texts.offset, len(texts))
        known = self._mappings.get(address)
        if known is not None and (known[0] is texts or known[0].equals(texts)):
            self._mappings.move_to_end(address)
            return known[1]
        codes = []
        for text in texts.to_pylist():
            code = self._codes.setdefault(text, len(self._texts))
            if code == len(self._texts):
                self._texts.append(text)
            codes.append(code)
        mapping = pa.array(codes, pa.int32())
        self._mappings[address] = (texts, mapping)
        if len(self._mappings) > _KNOWN_DICTIONARIES:
            self._mappings.popitem(last=False)
        return mapping

    def ranks(self, codes: NDArray[np.int32]) -> tuple[NDArray[np.int32], pa.Array]:
        """(rank of each row, texts by rank): the minimal dictionary of a column, sorted."""
        present = np.zeros(len(self._texts), np.bool_)
        present[codes] = True
        used = np.flatnonzero(present)
        order = sorted(range(len(used)), key=lambda i: self._texts[used[i]])
        rank = np.zeros(len(self._texts), np.int32)
        rank[used[order]] = np.arange(len(used), dtype=np.int32)
        return rank[codes], pa.array([self._texts[used[i]] for i in order], pa.string())


def to_bare(form: Shape, batch: pa.RecordBatch | pa.Table, names: Names) -> Bare:
    """Flow or file form to bare form; bugs of an operator (a missing column, a null where none
    may be, a foreign type) are assertions."""
    bare = []
    for field, wanted in zip(form.fields, form.file_schema, strict=True):
        column = batch.column(field.name)
        if isinstance(column, pa.ChunkedArray):
            column = column.combine_chunks()
        assert field.nullable or column.null_count == 0, f"{form.table.name}.{field.name} has nulls"
        if field.kind is Kind.NAME:
            column = names.codes(column)
        elif field.kind is Kind.CODE:
            column = _code_indices(field, column)
        else:
            assert column.type == wanted.type, f"{form.table.name}.{field.name}: {column.type}"
        bare.append(column)
    return bare


def _code_indices(field: Field, column: pa.DictionaryArray) -> pa.Array:
    known = dictionary(field)
    if column.dictionary is known or column.dictionary.equals(known):
        return column.indices.cast(pa.int8())
    mapping = pc.index_in(column.dictionary, value_set=known).cast(pa.int8())
    assert mapping.null_count == 0, f"{field.name}: unknown words in {column.dictionary}"
    return mapping.take(column.indices)


def to_file(form: Shape, bare: Bare, names: Names) -> pa.RecordBatch:
    """Bare form to file form, in the order given."""
    return pa.RecordBatch.from_arrays(
        [
            _file_column(field, column, names)
            for field, column in zip(form.fields, bare, strict=True)
        ],
        schema=form.file_schema,
    )


def _file_column(field: Field, column: pa.Array, names: Names) -> pa.Array:
    if field.kind is Kind.NAME:
        ranks, texts = names.ranks(filled(column))
        mask = None if column.null_count == 0 else pc.is_null(column).to_numpy(False)
        return pa.DictionaryArray.from_arrays(pa.array(ranks, mask=mask), texts, safe=False)
    if field.kind is Kind.CODE:
        return pa.DictionaryArray.from_arrays(column, dictionary(field), safe=False)
    return column


def filled(column: pa.Array) -> NDArray[Any]:
    """An integer or time column as numpy without copying; 0 where it is null."""
    if pa.types.is_timestamp(column.type):
        column = column.view(pa.int64())
    if column.null_count:
        column = column.fill_null(0)
    values: NDArray[Any] = column.to_numpy(zero_copy_only=True)
    return values


def concat(parts: list[Bare]) -> Bare:
    """The parts one after the other, each column in one piece."""
    if len(parts) == 1:
        return parts[0]
    return [pa.concat_arrays(columns) for columns in zip(*parts, strict=True)]


def take(bare: Bare, rows: NDArray[np.int64]) -> Bare:
    """These rows, copied: what is taken does not keep the rest alive."""
    index = pa.array(rows.astype(np.int32))
    return [
        _take_full_lists(column, rows)
        if pa.types.is_list(column.type)
        else pc.take(column, index, boundscheck=False)
        for column in bare
    ]


def _take_full_lists(column: pa.ListArray, rows: NDArray[np.int64]) -> pa.ListArray:
    """Take from a list column. Deep books have all their levels in every row: lists of one length
    are moved as blocks, three times faster than list by list."""
    offsets = column.offsets.to_numpy()
    lengths = np.diff(offsets)
    if column.null_count or len(lengths) == 0 or (lengths != lengths[0]).any() or not lengths[0]:
        return column.take(pa.array(rows))
    values = column.values
    width = values.type.bit_width // 8
    words = np.frombuffer(values.buffers()[1], np.int32)
    first = (values.offset + int(offsets[0])) * width // words.itemsize
    block = int(lengths[0]) * width // words.itemsize
    blocks = words[first : first + block * len(column)].reshape(len(column), block)
    taken = pa.Array.from_buffers(
        values.type,
        len(rows) * int(lengths[0]),
        [None, pa.py_buffer(np.take(blocks, rows, axis=0))],
    )
    ends = np.arange(len(rows) + 1, dtype=np.int32) * lengths[0]
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), taken, type=column.type)


@cache
def row_width(table: str) -> int:
    """Bytes of memory of a row in bare form, roughly: texts as 24, lists full."""
    width = 0
    for field, wanted in zip(shape(table).fields, shape(table).file_schema, strict=True):
        if field.kind in (Kind.DECIMALS, Kind.COUNTS):
            width += DEPTH_LEVELS * wanted.type.value_type.bit_width // 8
        elif field.kind in (Kind.ID, Kind.TEXT, Kind.BYTES):
            width += 24
        elif field.kind in (Kind.NAME, Kind.CODE):
            width += wanted.type.index_type.bit_width // 8
        else:
            width += max(wanted.type.bit_width // 8, 1)
    return width


def size(bare: Bare) -> int:
    """Bytes of memory."""
    return sum(column.nbytes for column in bare)
