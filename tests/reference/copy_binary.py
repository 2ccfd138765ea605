"""COPY BINARY written the obvious way: Python values, struct, one field after the other.

Formats: PostgreSQL manual, COPY, "Binary Format"; numeric_send, timestamptz_send, array_send.
"""

from __future__ import annotations

import struct
from decimal import Context, Decimal
from typing import Any

import pyarrow as pa

from marketflow.schemas.codes import words
from marketflow.schemas.fields import Field, Kind, Table

_EPOCH_2000_US = 946_684_800_000_000
_EXACT = Context(prec=80)
_WIDTHS = {Kind.SHARD: ">q", Kind.INT32: ">i", Kind.INT64: ">q", Kind.UINT8: ">h", Kind.BOOL: ">?"}


def tuples(table: Table, batch: pa.RecordBatch) -> bytes:
    """The rows without header and trailer."""
    out = []
    for i in range(batch.num_rows):
        fields = [part for f in table.fields for part in _fields(f, batch.column(f.name)[i])]
        out.append(struct.pack(">h", len(fields)) + b"".join(fields))
    return b"".join(out)


def _fields(field: Field, scalar: pa.Scalar) -> list[bytes]:
    if field.kind is Kind.TIME:
        ns = scalar.value
        if ns is None:
            return [_field(None), _field(None)]
        us, rest = divmod(ns, 1000)
        return [_field(struct.pack(">q", us - _EPOCH_2000_US)), _field(struct.pack(">h", rest))]
    value = scalar.as_py()
    return [_field(None if value is None else _value(field, value))]


def _field(value: bytes | None) -> bytes:
    return struct.pack(">i", -1) if value is None else struct.pack(">i", len(value)) + value


def _value(field: Field, value: Any) -> bytes:
    match field.kind:
        case Kind.DECIMAL | Kind.SUM:
            return numeric(value)
        case Kind.CODE:
            assert field.codes is not None
            return struct.pack(">h", words(field.codes).index(value))
        case Kind.NAME | Kind.ID | Kind.TEXT:
            return str(value).replace("\0", "\u2400").encode()
        case Kind.BYTES:
            return bytes(value)
        case Kind.DECIMALS:
            return _array([numeric(item) for item in value], 1700)
        case Kind.COUNTS:
            return _array([struct.pack(">i", item) for item in value], 23)
        case _:
            return struct.pack(_WIDTHS[field.kind], value)


def _array(items: list[bytes], oid: int) -> bytes:
    if not items:
        return struct.pack(">iii", 0, 0, oid)
    head = struct.pack(">iiiii", 1, 0, oid, len(items), 1)
    return head + b"".join(_field(item) for item in items)


def numeric(value: Decimal) -> bytes:
    """Base-10000 digits without zeros at either end; 12 decimals are displayed."""
    units = int(value.scaleb(12, context=_EXACT))
    digits: list[int] = []
    rest = abs(units)
    while rest:
        rest, digit = divmod(rest, 10_000)
        digits.insert(0, digit)
    weight = len(digits) - 1 - 3 if digits else 0
    while digits and digits[-1] == 0:
        digits.pop()
    sign = 0x4000 if units < 0 else 0
    return struct.pack(f">hhHh{len(digits)}h", len(digits), weight, sign, 12, *digits)
