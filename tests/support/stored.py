"""What a database holds, row for row, in the form of lake_model: every value exact."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import psycopg

from marketflow.schemas.codes import words
from marketflow.schemas.derived import sql
from marketflow.schemas.fields import Kind
from marketflow.schemas.tables import TABLES
from tests.support.batches import Item
from tests.support.lake_model import LakeRows


class Expected:
    """Rows as they were written, by table and (shard, row_sequence)."""

    def __init__(self) -> None:
        self.rows: LakeRows = defaultdict(dict)

    def write(self, item: Item) -> None:
        for name, batch in item.tables.items():
            columns = []
            for field in TABLES[name].fields:
                column = batch.column(field.name)
                if field.kind is Kind.TIME:
                    column = column.cast("int64")
                columns.append(column.to_pylist())
            for row in zip(*columns, strict=True):
                key = (row[0], row[1])
                assert key not in self.rows[name]
                self.rows[name][key] = row


def stored_rows(dsn: str) -> LakeRows:
    """Every row of the store; a row that is there twice is an error."""
    found: LakeRows = defaultdict(dict)
    with psycopg.connect(dsn) as connection:
        connection.execute("SET timezone = 'UTC'")
        for name, table in TABLES.items():
            for row in connection.execute(f"SELECT {_columns(name)} FROM store.{name}"):
                key = (row[0], row[1])
                assert key not in found[name], f"{name} {key} is there twice"
                found[name][key] = tuple(
                    _value(field, value) for field, value in zip(table.fields, row, strict=True)
                )
    return found


def _columns(name: str) -> str:
    parts = []
    for field in TABLES[name].fields:
        column = sql.quoted(field.name)
        if field.kind is Kind.TIME:
            column = f"(extract(epoch FROM {column}) * 1000000)::bigint * 1000 + {field.name}_ns"
        parts.append(column)
    return ", ".join(parts)


def _value(field: Any, value: Any) -> Any:
    if value is None:
        return None
    if field.codes is not None:
        return words(field.codes)[value]
    return bytes(value) if field.kind is Kind.BYTES else value
