"""Avro schemas of the tables, for topics and registries.

Decimals are the ``decimal`` logical type on bytes, times ``timestamp-nanos`` on long, codes Avro
enums of the words; a nullable field is a union with null first and null as its default, so that a
field appended later reads as null from older messages.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from marketflow.schemas import units
from marketflow.schemas.codes import words
from marketflow.schemas.fields import Field, Kind, Table

NAMESPACE: Final = "marketflow"


def _decimal(precision: int) -> dict[str, Any]:
    return {
        "type": "bytes",
        "logicalType": "decimal",
        "precision": precision,
        "scale": units.COLUMN_SCALE,
    }


_TYPES: Final[dict[Kind, Any]] = {
    Kind.SHARD: "long",
    Kind.INT32: "int",
    Kind.INT64: "long",
    Kind.UINT8: "int",
    Kind.BOOL: "boolean",
    Kind.DECIMAL: _decimal(units.PRICE_PRECISION),
    Kind.SUM: _decimal(units.SUM_PRECISION),
    Kind.TIME: {"type": "long", "logicalType": "timestamp-nanos"},
    Kind.NAME: "string",
    Kind.ID: "string",
    Kind.TEXT: "string",
    Kind.BYTES: "bytes",
    Kind.DECIMALS: {"type": "array", "items": _decimal(units.PRICE_PRECISION)},
    Kind.COUNTS: {"type": "array", "items": "int"},
}


def _type(field: Field, defined: set[str]) -> Any:
    if field.codes is None:
        return _TYPES[field.kind]
    name = field.codes.__name__
    if name in defined:  # a named type is written out once, then referred to
        return f"{NAMESPACE}.{name}"
    defined.add(name)
    return {
        "type": "enum",
        "name": name,
        "namespace": NAMESPACE,
        "symbols": list(words(field.codes)),
    }


@cache
def schema(table: Table) -> dict[str, Any]:
    """Avro record schema of a table as plain JSON values; not to be changed by the caller."""
    defined: set[str] = set()
    fields = []
    for field in table.fields:
        kind = _type(field, defined)
        entry: dict[str, Any] = {"name": field.name, "type": kind, "doc": field.doc}
        if field.nullable:
            entry |= {"type": ["null", kind], "default": None}
        fields.append(entry)
    return {
        "type": "record",
        "name": table.name,
        "namespace": NAMESPACE,
        "doc": table.doc,
        "marketflow.version": table.version,
        "fields": fields,
    }
