"""Comparing lakes row for row: the identity of a row is (shard, row_sequence)."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from marketflow.schemas.shards import local_of
from marketflow.schemas.tables import TABLES
from tests.support.patience import until


def table_rows(lake: Path, name: str) -> pa.Table | None:
    """All rows of one table in identity order, dictionaries decoded; None when it has no file."""
    files = sorted((lake / name).rglob("*.parquet"))
    if not files:
        return None
    wanted = [f.name for f in TABLES[name].fields]
    parts = [pq.ParquetFile(file).read(columns=wanted) for file in files]
    plain = [plain_columns(part) for part in parts]
    return pa.concat_tables(plain).sort_by([("shard", "ascending"), ("row_sequence", "ascending")])


def plain_columns(part: pa.Table) -> pa.Table:
    """The table with its dictionaries decoded."""
    columns = []
    for column in part.columns:
        dictionary = pa.types.is_dictionary(column.type)
        columns.append(column.cast(column.type.value_type) if dictionary else column)
    return pa.table(columns, names=part.column_names)


def within_feed(table: pa.Table) -> pa.Table:
    """The table with the shards within their feed, -1 for the feed's own rows: a feed that begins
    with other bytes is another one, with the same rows."""
    local = [local_of(shard) if shard >= 0 else -1 for shard in table["shard"].to_pylist()]
    place = table.column_names.index("shard")
    return table.set_column(place, "shard", pa.array(local, pa.int64()))


def assert_same_lakes(one: Path, other: Path, *, same_feed: bool = True) -> dict[str, int]:
    """Every table equal, row by row; returns rows per table. Identities are gapless and unique.
    ``same_feed``: they are the same, too; else what both were made of began with other bytes."""
    counts: dict[str, int] = {}
    for name in TABLES:
        left, right = table_rows(one, name), table_rows(other, name)
        assert (left is None) == (right is None), f"{name}: only one lake has it"
        if left is None or right is None:
            continue
        assert_gapless(left, name)
        if not same_feed:
            left, right = within_feed(left), within_feed(right)
        assert left.num_rows == right.num_rows, f"{name}: {left.num_rows} != {right.num_rows} rows"
        for column in left.column_names:
            assert left[column].equals(right[column]), f"{name}.{column} differs"
        counts[name] = left.num_rows
    return counts


def assert_gapless(table: pa.Table, name: str) -> None:
    """Per shard, row_sequence is 0, 1, 2 ... without hole or repetition."""
    expected: dict[int, int] = {}
    for shard, sequence in zip(
        table["shard"].to_pylist(), table["row_sequence"].to_pylist(), strict=True
    ):
        assert sequence == expected.get(shard, 0), f"{name}: shard {shard} at {sequence}"
        expected[shard] = sequence + 1


def last_change(lake: Path) -> int:
    """When a writer last changed what the lake knows of its run."""
    newest = 0
    for path in lake.glob("_marketflow/*/run-*/*"):
        with suppress(FileNotFoundError):
            newest = max(newest, path.stat().st_mtime_ns)
    return newest


def until_it_writes(run: subprocess.Popen[Any], lake: Path, before: int) -> None:
    """Until a run that was started has changed that, ``before`` it was started, or is over."""
    until(lambda: run.poll() is not None or last_change(lake) != before)
