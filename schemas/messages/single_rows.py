"""Table rows as single messages, Avro or JSON, and back to record batches.

In between a row is a dictionary of plain values: a decimal is an integer of 1e-12 steps, a time an
integer of ns, a code its word. A row that lacks a required value or holds one its column cannot
is refused by itself (WireError); fields that the table does not know are passed over.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Context, Decimal, InvalidOperation
from functools import cache
from hashlib import blake2b
from typing import Any, Final

import fastavro
import msgspec
import pyarrow as pa

from marketflow.schemas import units
from marketflow.schemas.codes import words
from marketflow.schemas.derived import arrow, avro
from marketflow.schemas.fields import Field, Kind, Table
from marketflow.schemas.messages.kafka import AVRO_MAGIC, WireError
from marketflow.schemas.moments import ns_of
from marketflow.schemas.tables import TABLES

Row = dict[str, Any]
_HEAD: Final = 5
_EXACT: Final = Context(prec=80)
_STEPS: Final = Decimal(10) ** units.COLUMN_SCALE
_STAMP: Final = re.compile(r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z", re.ASCII)
_LISTS: Final = {Kind.DECIMALS: Kind.DECIMAL, Kind.COUNTS: Kind.INT32}
_INTEGERS: Final = {
    Kind.SHARD: (-(2**53), 2**53 - 1),
    Kind.INT32: (-(2**31), 2**31 - 1),
    Kind.INT64: (-(2**63), 2**63 - 1),
    Kind.UINT8: (0, 255),
    Kind.TIME: (-(2**63), 2**63 - 1),
    Kind.DECIMAL: (-units.PRICE_LIMIT, units.PRICE_LIMIT),
    Kind.SUM: (-units.SUM_LIMIT, units.SUM_LIMIT),
}


# -- schemas --------------------------------------------------------------------------------------


@cache
def avro_text(table: Table) -> str:
    """The table's Avro schema as JSON text, always the same for the same version."""
    return json.dumps(avro.schema(table), sort_keys=True, separators=(",", ":"))


@cache
def local_schema_id(table: Table) -> int:
    """Id of the schema where no registry gives one: 31 bits of BLAKE2b over table and version.

    Within a version only codes are appended, which leaves what was written readable.
    """
    return _local_id(table, table.version)


def _local_id(table: Table, version: int) -> int:
    name = f"{avro.NAMESPACE}.{table.name}.{version}"
    return int.from_bytes(blake2b(name.encode(), digest_size=4).digest(), "big") >> 1


@cache
def local_schemas() -> dict[int, str]:
    """Every schema this release knows by its local id. The version before had a narrower shard,
    which are the same bytes."""
    return {
        _local_id(table, version): avro_text(table)
        for table in TABLES.values()
        for version in (table.version - 1, table.version)
    }


@cache
def plain_schema(text: str) -> Any:
    """A schema fit for reading and writing plain values: logical types are ours to translate."""
    return fastavro.parse_schema(_plain(json.loads(text)))


def _plain(node: Any) -> Any:
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if isinstance(node, dict):
        return {name: _plain(value) for name, value in node.items() if name != "logicalType"}
    return node


# -- encoding -------------------------------------------------------------------------------------


def to_avro(table: Table, batch: pa.RecordBatch, schema_id: int) -> list[bytes]:
    """A message per row: magic byte, schema id, record."""
    schema = plain_schema(avro_text(table))
    head = AVRO_MAGIC + schema_id.to_bytes(_HEAD - 1, "big")
    names = table.names
    columns = [_avro_values(field, batch.column(field.name)) for field in table.fields]
    messages = []
    out = io.BytesIO()
    for values in zip(*columns, strict=True):
        out.seek(0)
        out.truncate()
        out.write(head)
        fastavro.schemaless_writer(out, schema, dict(zip(names, values, strict=True)))
        messages.append(out.getvalue())
    return messages


def _avro_values(field: Field, column: pa.Array) -> list[Any]:
    match field.kind:
        case Kind.DECIMAL | Kind.SUM:
            return [None if v is None else _two_complement(v) for v in _units_of(column)]
        case Kind.TIME:
            return list(column.cast(pa.int64()).to_pylist())
        case Kind.DECIMALS:
            flat = [_two_complement(v) for v in _units_of(column.flatten()) if v is not None]
            rows, at = [], 0
            for length in column.value_lengths().to_pylist():
                rows.append(flat[at : at + length])
                at += length
            return rows
        case _:
            return list(column.to_pylist())


def _units_of(column: pa.Array) -> list[int | None]:
    """A decimal column as integers of 1e-12 steps."""
    data = column.buffers()[1]
    words_ = bytes(data)[16 * column.offset : 16 * (column.offset + len(column))] if data else b""
    valid = column.is_valid().to_pylist()
    return [
        int.from_bytes(words_[16 * i : 16 * i + 16], "little", signed=True) if good else None
        for i, good in enumerate(valid)
    ]


def _two_complement(value: int) -> bytes:
    """Shortest big-endian two's complement, as Avro's decimal wants it."""
    size = (value if value >= 0 else ~value).bit_length() // 8 + 1
    return value.to_bytes(size, "big", signed=True)


# -- decoding -------------------------------------------------------------------------------------


def avro_schema_id(value: bytes) -> int:
    """The schema id in a message's head; WireError if it has none."""
    if len(value) < _HEAD or not value.startswith(AVRO_MAGIC):
        raise WireError("no Avro message: it does not start with 0x00 and a schema id")
    return int.from_bytes(value[1:_HEAD], "big")


def from_avro(table: Table, value: bytes, writer_schema: str) -> Row:
    """The row in an Avro message that was written with ``writer_schema`` (JSON text)."""
    stream = io.BytesIO(value)
    stream.seek(_HEAD)
    ours = avro_text(table)
    try:
        # Naming our schema where it is the writer's costs fastavro ten times the reading itself.
        row = fastavro.schemaless_reader(
            stream,
            plain_schema(writer_schema),
            None if writer_schema == ours else plain_schema(ours),
        )
        if stream.tell() != len(value):
            raise WireError(f"{len(value) - stream.tell()} bytes behind the record")
    except WireError:
        raise
    except Exception as error:  # what it raises for damaged bytes is not documented
        raise WireError(f"no {table.name} record: {type(error).__name__} {error}") from None
    assert isinstance(row, dict)
    return _checked(table, row, _avro_value)


def _avro_value(kind: Kind, value: Any) -> Any:
    if kind in (Kind.DECIMAL, Kind.SUM):
        return int.from_bytes(value, "big", signed=True)
    return value


def from_json(table: Table, value: bytes) -> Row:
    """The row in a JSON message."""
    try:
        row = msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"no JSON: {error}") from None
    if not isinstance(row, dict):
        raise WireError("not a JSON object")
    return _checked(table, row, _json_value)


def _json_value(kind: Kind, value: Any) -> Any:
    match kind:
        case Kind.DECIMAL | Kind.SUM:
            if not isinstance(value, str):
                raise ValueError(f"{value!r} is no decimal in quotes: a number may be inexact")
            steps = _EXACT.multiply(_EXACT.create_decimal(value), _STEPS)
            if steps != steps.to_integral_value():
                raise ValueError(f"{value!r} has more than {units.COLUMN_SCALE} decimals")
            return int(steps)
        case Kind.TIME:
            return _time(value)
        case Kind.BYTES:
            return base64.b64decode(value, validate=True)
        case _:
            return value


def _time(text: str) -> int:
    match = _STAMP.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no time such as 2026-03-02T14:30:00.000000001Z")
    return ns_of(datetime.fromisoformat(match[1])) + int((match[2] or "").ljust(9, "0"))


def _checked(table: Table, row: Row, translate: Callable[[Kind, Any], Any]) -> Row:
    """The table's fields of a row, each a value that its column can hold."""
    found: Row = {}
    for field in table.fields:
        value = row.get(field.name)
        if value is None:
            if not field.nullable:
                raise WireError(f"{table.name} without {field.name}")
            continue
        try:
            if field.kind in _LISTS:
                inner = _LISTS[field.kind]
                if not isinstance(value, list):
                    raise ValueError("not a list")
                found[field.name] = [_value(inner, field, translate(inner, v)) for v in value]
            else:
                found[field.name] = _value(field.kind, field, translate(field.kind, value))
        except (ValueError, TypeError, AttributeError, InvalidOperation, binascii.Error) as error:
            raise WireError(f"{table.name}.{field.name}: {error}") from None
    return found


def _value(kind: Kind, field: Field, value: Any) -> Any:
    """ValueError unless the column can hold it."""
    if kind in _INTEGERS:
        low, high = _INTEGERS[kind]
        good = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
    elif kind is Kind.BOOL:
        good = isinstance(value, bool)
    elif kind is Kind.BYTES:
        good = isinstance(value, bytes)
    elif kind is Kind.CODE:
        assert field.codes is not None
        good = value in words(field.codes)
    else:
        good = isinstance(value, str)
    if not good:
        raise ValueError(f"{value!r} is no {kind.value}")
    return value


# -- rows to batches ------------------------------------------------------------------------------


def to_batch(table: Table, rows: Sequence[Row]) -> pa.RecordBatch:
    """Rows as a batch of the table's schema."""
    columns = [_column(field, [row.get(field.name) for row in rows]) for field in table.fields]
    return pa.RecordBatch.from_arrays(columns, schema=arrow.schema(table))


def _column(field: Field, values: list[Any]) -> pa.Array:
    kind = arrow.arrow_type(field)
    match field.kind:
        case Kind.DECIMAL | Kind.SUM:
            return _decimals(values, kind)
        case Kind.TIME:
            return pa.array(values, pa.int64()).cast(kind)
        case Kind.CODE:
            assert field.codes is not None
            code_of = {word: code for code, word in enumerate(words(field.codes))}
            codes = [None if v is None else code_of[v] for v in values]
            return pa.DictionaryArray.from_arrays(
                pa.array(codes, pa.int8()), arrow.dictionary(field)
            )
        case Kind.NAME:
            return pa.array(values, pa.string()).dictionary_encode()
        case Kind.DECIMALS:
            flat = [v for row in values for v in row]
            ends = [0]
            for row in values:
                ends.append(ends[-1] + len(row))
            items = _decimals(flat, kind.value_type)
            return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), items, type=kind)
        case _:
            return pa.array(values, kind)


def _decimals(values: list[int | None], kind: pa.DataType) -> pa.Array:
    data = b"".join((v or 0).to_bytes(16, "little", signed=True) for v in values)
    nulls = sum(v is None for v in values)
    valid = pa.array([v is not None for v in values], pa.bool_()).buffers()[1] if nulls else None
    return pa.Array.from_buffers(kind, len(values), [valid, pa.py_buffer(data)], nulls)
