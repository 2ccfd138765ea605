"""Arrow schemas of the tables, with units, docs and versions in their metadata."""

from __future__ import annotations

from functools import cache

import pyarrow as pa

from marketflow.schemas import units
from marketflow.schemas.codes import words
from marketflow.schemas.fields import Field, Kind, Table

DECIMAL = pa.decimal128(units.PRICE_PRECISION, units.COLUMN_SCALE)
SUM = pa.decimal128(units.SUM_PRECISION, units.COLUMN_SCALE)
TIME = pa.timestamp("ns", tz="UTC")
NAME = pa.dictionary(pa.int32(), pa.string())
CODE = pa.dictionary(pa.int8(), pa.string())

_TYPES: dict[Kind, pa.DataType] = {
    Kind.SHARD: pa.int64(),
    Kind.INT32: pa.int32(),
    Kind.INT64: pa.int64(),
    Kind.UINT8: pa.uint8(),
    Kind.BOOL: pa.bool_(),
    Kind.DECIMAL: DECIMAL,
    Kind.SUM: SUM,
    Kind.TIME: TIME,
    Kind.CODE: CODE,
    Kind.NAME: NAME,
    Kind.ID: pa.string(),
    Kind.TEXT: pa.string(),
    Kind.BYTES: pa.large_binary(),
    Kind.DECIMALS: pa.list_(pa.field("item", DECIMAL, nullable=False)),
    Kind.COUNTS: pa.list_(pa.field("item", pa.int32(), nullable=False)),
}


def arrow_type(field: Field) -> pa.DataType:
    """Arrow type of one column."""
    return _TYPES[field.kind]


def arrow_field(field: Field) -> pa.Field:
    """Arrow field with its unit and doc as metadata."""
    metadata = {"doc": field.doc}
    if field.unit:
        metadata["unit"] = field.unit
    return pa.field(field.name, arrow_type(field), nullable=field.nullable, metadata=metadata)


@cache
def schema(table: Table) -> pa.Schema:
    """Arrow schema of a table; metadata names the table and its version."""
    return pa.schema(
        [arrow_field(f) for f in table.fields],
        metadata={"marketflow.table": table.name, "marketflow.version": str(table.version)},
    )


@cache
def dictionary(field: Field) -> pa.StringArray:
    """The fixed dictionary of a CODE column."""
    assert field.codes is not None, field.name
    return pa.array(words(field.codes), pa.string())
