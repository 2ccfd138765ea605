"""A lake of the release before: refused with the remedy, which brings it up and loses nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from marketflow.flows.commands.maintenance import bring_up_lake
from marketflow.flows.errors import UsageError
from marketflow.flows.queries.sql import query_frame
from marketflow.schemas.shards import feed_of, local_of, renumbered
from marketflow.sinks.errors import SinkError
from marketflow.sinks.lake.layout import check_lake
from marketflow.sinks.lake.writer import ParquetWriter
from tests.support.batches import Feed

QUIET = Console(quiet=True)


def old_lake(root: Path, *, twice: bool = False) -> None:
    """A lake as format 1 was: shards counted within the run, as int16."""
    writer = ParquetWriter(root)
    feed = Feed(np.random.default_rng(5), days=2)
    for shard in (0, 5):
        writer.write(feed.item(shard, {"trades": 40, "dead_letters": 9}))
    writer.close()
    writer.finish()
    paths = sorted(root.glob("*/**/*.parquet"))
    for path in paths:
        rows = pq.ParquetFile(path).read()
        place = rows.column_names.index("shard")
        pq.write_table(rows.set_column(place, "shard", rows["shard"].cast(pa.int16())), path)
    if twice:
        (paths[-1].with_name("w9-000001-00000001.parquet")).write_bytes(paths[-1].read_bytes())
    marker = root / "_marketflow" / "lake.json"
    marker.write_text(json.dumps({**json.loads(marker.read_text()), "format": 1}))


def rows_of(root: Path) -> list[tuple]:
    """Every row, with its shard as it was; straight from the files."""
    found = []
    for path in sorted(root.glob("*/**/*.parquet")):
        rows = pq.ParquetFile(path).read()
        columns = [
            column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
            for column in rows.columns
        ]
        table = path.relative_to(root).parts[0]
        found += [(table, *row) for row in zip(*(c.to_pylist() for c in columns), strict=True)]
    return found


def test_an_old_lake_is_brought_up(tmp_path: Path) -> None:
    old_lake(tmp_path)
    before = {(row[0], row[1], row[2]): row[3:] for row in rows_of(tmp_path)}
    with pytest.raises(SinkError, match="marketflow migrate --lake"):
        check_lake(tmp_path)
    with pytest.raises(UsageError, match="marketflow migrate --lake"):
        query_frame("SELECT 1 FROM trades", tmp_path, None, False)
    report = bring_up_lake(tmp_path, QUIET)
    assert report["rows"] == len(before) > 80
    now = {(row[0], row[1], row[2]): row[3:] for row in rows_of(tmp_path)}
    as_before = {
        (table, local_of(shard), sequence): values
        for (table, shard, sequence), values in now.items()
    }
    assert as_before == before
    assert {feed_of(shard) for _, shard, _ in now} == {1 << 42}
    assert bring_up_lake(tmp_path, QUIET)["files"] == 0
    assert query_frame("SELECT count(*) n FROM trades", tmp_path, None, False)["n"][0] == 80


def test_a_migration_that_was_cut_off_is_run_again(tmp_path: Path) -> None:
    old_lake(tmp_path)
    marker = tmp_path / "_marketflow" / "lake.json"
    old = marker.read_bytes()
    bring_up_lake(tmp_path, QUIET)
    whole = rows_of(tmp_path)
    marker.write_bytes(old)  # the last step did not happen
    assert bring_up_lake(tmp_path, QUIET)["files"] == 0
    assert rows_of(tmp_path) == whole
    check_lake(tmp_path)


def test_rows_that_are_there_twice_are_refused(tmp_path: Path) -> None:
    old_lake(tmp_path, twice=True)
    before = rows_of(tmp_path)
    with pytest.raises(UsageError, match=r"twice .*make a new lake"):
        bring_up_lake(tmp_path, QUIET)
    assert rows_of(tmp_path) == before


def test_neither_a_writer_nor_unsealed_rows_are_overrun(tmp_path: Path) -> None:
    old_lake(tmp_path)
    log = tmp_path / "_marketflow" / "w0" / "run-000001" / "log-00000001.rows"
    log.write_bytes(b"rows")
    with pytest.raises(SinkError, match="rows that are in no file yet"):
        bring_up_lake(tmp_path, QUIET)
    log.unlink()
    other = tmp_path.parent / f"{tmp_path.name}-other"
    old_lake(other)
    marker = other / "_marketflow" / "lake.json"
    old = marker.read_bytes()
    marker.write_text(json.dumps({**json.loads(old), "format": 2}))
    writer = ParquetWriter(other)
    writer.fence()
    marker.write_bytes(old)
    with pytest.raises(SinkError, match="stop that run first"):
        bring_up_lake(other, QUIET)
    writer.close()


def test_numbers_of_old_shards_are_distinct_and_in_order() -> None:
    old = np.arange(-40, 32_768, dtype=np.int64)
    new = renumbered(old)
    assert (np.diff(new) > 0).all()
    assert ((new < 0) == (old < 0)).all()
