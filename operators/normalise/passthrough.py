"""Rows that pass the books by: funding, statistics, market_status, instruments, imbalances, and
bars of the venue.

They are rare, so they are plain values until the batch ends. Their schema is the table's with one
int32 ``instrument`` column in place of shard, row_sequence, venue and symbol.
"""

from __future__ import annotations

from enum import IntEnum
from functools import cache
from typing import Any, Final

import pyarrow as pa

from marketflow.operators.kernels import numbers
from marketflow.operators.numbers import exact, reason_of
from marketflow.schemas.codes import DeadLetterReason
from marketflow.schemas.derived import arrow
from marketflow.schemas.fields import Field, Kind, Table
from marketflow.schemas.tables import table as table_of
from marketflow.schemas.units import END_OF_TIME_NS, to_decimal

_NOTHING: Final[dict[str, int]] = {}
#: Bytes of UTF-8 of a text: with its row it fits a message of every broker.
MAX_TEXT_BYTES: Final = 1 << 14
_WHOLE: Final = {
    Kind.UINT8: range(2**8),
    Kind.INT32: range(-(2**31), 2**31),
    Kind.INT64: range(-(2**63), 2**63),
}
_IDENTITY: Final = frozenset({"shard", "row_sequence", "venue", "symbol"})


class BadValueError(Exception):
    """A value that the column cannot hold: the row becomes a dead letter."""

    def __init__(self, reason: DeadLetterReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@cache
def _fields(table: Table) -> tuple[Field, ...]:
    return tuple(f for f in table.fields if f.name not in _IDENTITY)


@cache
def schema(table: Table) -> pa.Schema:
    """Schema of the passing rows of a table."""
    return pa.schema(
        [pa.field("instrument", pa.int32(), nullable=False)]
        + [arrow.arrow_field(f) for f in _fields(table)]
    )


def _value(field: Field, value: Any) -> Any:
    """The value as the column builder wants it; BadValueError if it is none."""
    if value is None:
        return None
    if field.kind is Kind.DECIMAL or (field.kind is Kind.SUM and isinstance(value, str)):
        mantissa, scale, code = exact(value)
        size = field.non_negative
        if code != numbers.OK:
            garbage = DeadLetterReason.BAD_SIZE if size else DeadLetterReason.BAD_PRICE
            raise BadValueError(reason_of(code, garbage), f"{field.name} {value!r}")
        if size and mantissa < 0:
            raise BadValueError(DeadLetterReason.NEGATIVE_SIZE, f"{field.name} {value!r}")
        return to_decimal(mantissa, scale)
    if field.kind is Kind.TIME:
        if not 0 <= value < END_OF_TIME_NS:
            raise BadValueError(DeadLetterReason.BAD_TIMESTAMP, f"{field.name} {value}")
        return value or None
    if field.kind is Kind.CODE:
        assert isinstance(value, IntEnum), field.name
        return int(value)
    if field.kind in _WHOLE:
        if value not in _WHOLE[field.kind]:
            raise BadValueError(DeadLetterReason.OUT_OF_RANGE, f"{field.name} {value!r}")
        return value
    return value if field.kind is Kind.BOOL else _text(field, str(value))


def _text(field: Field, text: str) -> str:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise BadValueError(DeadLetterReason.INVALID_ENCODING, field.name) from None
    if size > MAX_TEXT_BYTES:
        detail = f"{field.name} has {size} bytes, more than {MAX_TEXT_BYTES}"
        raise BadValueError(DeadLetterReason.OUT_OF_RANGE, detail)
    return text


def _column(field: Field, values: list[Any]) -> pa.Array:
    if field.kind is Kind.CODE:
        return pa.DictionaryArray.from_arrays(pa.array(values, pa.int8()), arrow.dictionary(field))
    if field.kind is Kind.NAME:
        return pa.array(values, pa.string()).dictionary_encode()
    return pa.array(values, arrow.arrow_type(field))


def joined(parts: list[pa.RecordBatch]) -> pa.RecordBatch:
    """The batches as one; their dictionaries may differ."""
    if len(parts) == 1:
        return parts[0]
    (batch,) = pa.Table.from_batches(parts).unify_dictionaries().combine_chunks().to_batches()
    return batch


class PassingRows:
    """Collects the passing rows of one frames batch."""

    def __init__(self) -> None:
        self._tables: dict[str, list[tuple[Any, ...]]] = {}
        self._whole: dict[str, list[pa.RecordBatch]] = {}

    def add(
        self, name: str, instrument: int, ts_event: int, ts_recv: int, values: dict[str, Any]
    ) -> None:
        """One row; columns not named are null. Raises BadValueError."""
        table = table_of(name)
        fields = _fields(table)
        given = {**values, table.time_field: ts_event or ts_recv}
        if "ts_recv" in table.names:
            given["ts_recv"] = ts_recv
        row = tuple(_value(f, given.pop(f.name, None)) for f in fields)
        assert not given, f"{name} has no field {', '.join(given)}"
        if row[0] is None:
            raise BadValueError(
                DeadLetterReason.BAD_TIMESTAMP, "neither event nor arrival time is known"
            )
        self._tables.setdefault(name, []).append((instrument, *row))

    def extend(self, name: str, batch: pa.RecordBatch) -> None:
        """Rows that are many and columns already, in the :func:`schema` of their table; of one
        table all rows come so, or none."""
        assert name not in self._tables, name
        if batch.num_rows:
            self._whole.setdefault(name, []).append(batch)

    def mark(self) -> dict[str, int]:
        """Lengths now, for :meth:`cut`."""
        if not self._tables and not self._whole:
            return _NOTHING
        every = (*self._tables.items(), *self._whole.items())
        return {name: len(parts) for name, parts in every}

    def cut(self, mark: dict[str, int]) -> None:
        """Forget what came after ``mark``."""
        for name, rows in self._tables.items():
            del rows[mark.get(name, 0) :]
        for name, parts in self._whole.items():
            del parts[mark.get(name, 0) :]

    def batches(self) -> dict[str, pa.RecordBatch]:
        """One batch per table with rows."""
        found = {name: joined(parts) for name, parts in self._whole.items() if parts}
        for name, rows in self._tables.items():
            if not rows:
                continue
            table = table_of(name)
            instruments, *columns = zip(*rows, strict=True)
            arrays = [pa.array(instruments, pa.int32())]
            arrays += [_column(f, list(c)) for f, c in zip(_fields(table), columns, strict=True)]
            found[name] = pa.RecordBatch.from_arrays(arrays, schema=schema(table))
        return found
