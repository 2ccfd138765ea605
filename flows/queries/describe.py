"""Every table's columns, types, units and meaning, as the schemas have them.

The page ``docs/tables.md`` is made from this.
"""

from __future__ import annotations

from typing import Any, Final

from marketflow.flows.errors import UsageError, nearest
from marketflow.schemas.codes import words
from marketflow.schemas.fields import Field, Kind, Table
from marketflow.schemas.tables import TABLES

COLUMNS: Final = ("column", "type", "unit", "meaning")
_HEAD: Final = """\
# Tables

What a lake, a database and the topics hold; `marketflow tables [NAME]` shows the same. Types are
those of SQL over a lake, where `TIMESTAMP_NS` is UTC; a database has `numeric`, `timestamptz` and
`text` for them, under the same names. A row is identified by `(shard, row_sequence)` within its
table. Every time has its nanoseconds since 1970 beside it, as `<time>_epoch_ns`.

This page is made: `marketflow tables --markdown > docs/tables.md`.
"""


def described(name: str | None = None) -> list[dict[str, Any]]:
    """The table called ``name``, or all of them: what they are, and their columns in order."""
    if name is None:
        return [_described(table) for table in TABLES.values()]
    return [_described(known_table(name))]


def known_table(name: str) -> Table:
    """Raises UsageError, which names the nearest, for a table that is none."""
    try:
        return TABLES[name]
    except KeyError:
        near = nearest(name, TABLES)
        raise UsageError(f"no table {name!r}{near}; known: {', '.join(TABLES)}") from None


def _described(table: Table) -> dict[str, Any]:
    columns = [column for field in table.fields for column in _columns(field)]
    columns.append(_column("date", "DATE", "UTC", f"day of {table.time_field}; prunes folders"))
    return {
        "table": table.name,
        "version": table.version,
        "meaning": table.doc,
        "time": table.time_field,
        "sorted_by": list(table.sort_fields),
        "columns": columns,
    }


def _columns(field: Field) -> list[dict[str, Any]]:
    from marketflow.flows.queries.duckdb_lake import SQL_TYPES

    column = _column(field.name, SQL_TYPES[field.kind], field.measure, field.doc, field.nullable)
    if field.codes is not None:
        column["words"] = list(words(field.codes))
    if field.kind is not Kind.TIME:
        return [column]
    exact = f"{field.name} as a number"
    return [
        column,
        _column(f"{field.name}_epoch_ns", "BIGINT", "ns since 1970, UTC", exact, field.nullable),
    ]


def _column(
    name: str, kind: str, unit: str, meaning: str, nullable: bool = False
) -> dict[str, Any]:
    return {
        "column": name,
        "type": kind,
        "unit": unit or None,
        "nullable": nullable,
        "meaning": meaning,
        "words": None,
    }


def cells(column: dict[str, Any]) -> list[str]:
    """A column as people read it."""
    meaning = column["meaning"]
    if column["nullable"] and "null" not in meaning:
        meaning += "; may be null"
    if column["words"]:
        meaning += f" ({', '.join(column['words'])})"
    return [column["column"], column["type"], column["unit"] or "", meaning]


def page(found: list[dict[str, Any]]) -> str:
    """The tables as Markdown."""
    parts = [_HEAD]
    for table in found:
        rows = [list(COLUMNS), ["---"] * len(COLUMNS)]
        rows += [
            [f"`{name}`", f"`{kind}`", *rest] for name, kind, *rest in map(cells, table["columns"])
        ]
        lines = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        parts.append(f"## {table['table']}\n\n{table['meaning']}\n\n{lines}\n")
    return "\n".join(parts)
