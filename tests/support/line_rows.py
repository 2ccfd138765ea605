"""Rows of redundant lines, and whether a recorder listens."""

from __future__ import annotations

import socket
from pathlib import Path

import pyarrow as pa

from tests.support.lakes import table_rows
from tests.support.patience import until


def listening(port: int) -> None:
    """Wait until somebody has the UDP port."""

    def taken() -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return True
        return False

    until(taken, "nobody listens")


def rows(lake: Path, name: str) -> pa.Table | None:
    """A table without what depends on when and how its bytes arrived."""
    table = table_rows(lake, name)
    if table is None:
        return None
    return plain(table.drop_columns([c for c in ("ts_recv",) if c in table.column_names]))


def plain(table: pa.Table) -> pa.Table:
    """Times as ns."""
    for k, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            table = table.set_column(k, field.name, table.column(k).cast(pa.int64()))
    return table
