"""PostgreSQL and TimescaleDB form of the tables: stored columns, and views as users read them.

What is stored (schema ``store``) is what COPY BINARY loads fastest: plain numerics, smallint codes,
and, since a timestamptz ends at microseconds, the remaining nanoseconds of a time in a smallint
column of their own, ``<time>_ns`` (0..999). What is read (the default schema) are views of the
tables' names with the columns of the lake's: codes as words, after each timestamptz
``<time>_epoch_ns``, exact, and ``date``, the UTC date of the table's time, last.
No unique index: exactly-once comes from the sink's own transaction, and an index costs half the
speed. The checked-in migrations hold this DDL word for word (a test says so).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from marketflow.schemas import units
from marketflow.schemas.codes import words
from marketflow.schemas.fields import Field, Kind, Table

STORE: Final = "store"
#: Interval of a hypertable's chunks: many rows make many chunks, rare ones few.
CHUNK: Final = "7 days"
CHUNKS: Final = {
    "book_events": "4 hours",
    "quotes": "4 hours",
    "depth": "4 hours",
    "trades": "1 day",
    "bars": "1 day",
}

_DECIMAL = f"numeric({units.PRICE_PRECISION},{units.COLUMN_SCALE})"

_TYPES: Final[dict[Kind, str]] = {
    Kind.SHARD: "bigint",
    Kind.INT32: "integer",
    Kind.INT64: "bigint",
    Kind.UINT8: "smallint",
    Kind.BOOL: "boolean",
    Kind.DECIMAL: _DECIMAL,
    Kind.SUM: f"numeric({units.SUM_PRECISION},{units.COLUMN_SCALE})",
    Kind.TIME: "timestamptz",
    Kind.CODE: "smallint",
    Kind.NAME: "text",
    Kind.ID: "text",
    Kind.TEXT: "text",
    Kind.BYTES: "bytea",
    Kind.DECIMALS: f"{_DECIMAL}[]",
    Kind.COUNTS: "integer[]",
}


class Column(NamedTuple):
    """A stored column. ``is_remainder``: the nanoseconds below a microsecond of ``field``."""

    name: str
    type: str
    nullable: bool
    field: Field
    is_remainder: bool = False


def quoted(name: str) -> str:
    """An identifier that may be a reserved word (open, close, interval ...)."""
    assert name.isidentifier(), name
    return f'"{name}"'


def columns(table: Table) -> tuple[Column, ...]:
    """Stored columns in order: one per field, times followed by their remainder."""
    result = []
    for field in table.fields:
        result.append(Column(field.name, _TYPES[field.kind], field.nullable, field))
        if field.kind is Kind.TIME:
            result.append(Column(f"{field.name}_ns", "smallint", field.nullable, field, True))
    return tuple(result)


def create_table(table: Table) -> str:
    """The stored table."""
    lines = [
        f"    {quoted(c.name)} {c.type}{'' if c.nullable else ' NOT NULL'}" for c in columns(table)
    ]
    name = f"{STORE}.{quoted(table.name)}"
    return f"CREATE TABLE IF NOT EXISTS {name} (\n" + ",\n".join(lines) + "\n)"


def create_hypertable(table: Table) -> str:
    """Turns the stored table into a hypertable by its time field."""
    return (
        f"SELECT create_hypertable('{STORE}.{table.name}', "
        f"by_range('{table.time_field}', INTERVAL '{CHUNKS.get(table.name, CHUNK)}'), "
        "create_default_indexes => false, if_not_exists => true)"
    )


def create_index(table: Table) -> str:
    """The one index: symbol (and a bar's interval), then time. It serves both a span of time and
    the last rows at or before a moment; a symbol that several venues share is told apart later."""
    keys = [n for n in ("symbol", "interval", table.time_field) if n in table.names]
    return (
        f"CREATE INDEX IF NOT EXISTS {quoted('_'.join([table.name, *keys]))} "
        f"ON {STORE}.{quoted(table.name)} ({', '.join(quoted(k) for k in keys)})"
    )


def _shown(field: Field) -> list[str]:
    """A field's columns in the view."""
    name = quoted(field.name)
    if field.codes is not None:
        texts = ", ".join(f"'{word}'" for word in words(field.codes))
        code = f"coalesce({name}, 0)" if field.nullable else name
        return [f"(ARRAY[{texts}])[{code} + 1] AS {name}"]
    if field.kind is Kind.TIME:
        micros = f"(extract(epoch FROM {name}) * 1000000)::bigint"
        nanos = f"{micros} * 1000 + {quoted(field.name + '_ns')}"
        return [name, f"{nanos} AS {quoted(field.name + '_epoch_ns')}"]
    return [name]


def create_view(table: Table) -> str:
    """The table as users read it."""
    parts = [part for field in table.fields for part in _shown(field)]
    parts.append(f"({quoted(table.time_field)} AT TIME ZONE 'UTC')::date AS {quoted('date')}")
    shown = ",\n    ".join(parts)
    name = quoted(table.name)
    return f"CREATE OR REPLACE VIEW {name} AS SELECT\n    {shown}\nFROM {STORE}.{name}"


def statements(table: Table) -> tuple[str, ...]:
    """All DDL of a table, in order; the schema ``store`` and the extension exist already."""
    return (create_table(table), create_hypertable(table), create_index(table), create_view(table))
