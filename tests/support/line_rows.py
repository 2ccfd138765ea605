"""Rows of redundant lines, and whether a recorder listens."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from tests.support.lakes import table_rows, within_feed
from tests.support.patience import until


def listening(port: int) -> None:
    """Wait until somebody has the UDP port. It is looked up: to try to bind it would keep the one
    who is waited for from it."""

    def taken() -> bool:
        lines = Path("/proc/net/udp").read_text().splitlines()[1:]
        return any(int(line.split()[1].rpartition(":")[2], 16) == port for line in lines)

    until(taken, "nobody listens")


def rows(lake: Path, name: str) -> pa.Table | None:
    """A table without what depends on when and how its bytes arrived: of ``shard`` the one within
    its feed is left, -1 for the feed's own rows."""
    table = table_rows(lake, name)
    if table is None:
        return None
    table = within_feed(table)
    return plain(table.drop_columns([c for c in ("ts_recv",) if c in table.column_names]))


def plain(table: pa.Table) -> pa.Table:
    """Times as ns."""
    for k, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            table = table.set_column(k, field.name, table.column(k).cast(pa.int64()))
    return table
