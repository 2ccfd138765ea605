"""What a lake must hold, kept as plain Python rows; and what a lake does hold."""

from __future__ import annotations

from collections import defaultdict
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from marketflow.schemas.derived.arrow import schema
from marketflow.schemas.tables import TABLES
from marketflow.sinks.lake.layout import list_files
from tests.support.batches import Item

#: Rows by table and (shard, row_sequence): every value, and the date it was filed under.
LakeRows = dict[str, dict[tuple[int, int], tuple[Any, ...]]]


class Model:
    """The naive lake: a dictionary."""

    def __init__(self) -> None:
        self.rows: LakeRows = defaultdict(dict)

    def write(self, item: Item) -> None:
        for name, batch in item.tables.items():
            if batch.num_rows:
                _add(self.rows, name, batch, None)


def lake_rows(root: Path) -> LakeRows:
    """Every row of a lake; a row that is there twice is an error."""
    rows: LakeRows = defaultdict(dict)
    for name, table in TABLES.items():
        for path in list_files(root, name):
            level = path.parent
            found = pq.ParquetFile(path).read()
            if table.has_venue:
                venue = unquote(level.name.removeprefix("venue="))
                level = level.parent
                place = schema(table).names.index("venue")
                found = found.add_column(place, "venue", pa.array([venue] * len(found)))
            _add(rows, name, found, date.fromisoformat(level.name.removeprefix("date=")))
    return rows


def _add(rows: LakeRows, name: str, batch: pa.RecordBatch | pa.Table, filed: date | None) -> None:
    times = batch.column(TABLES[name].time_field).cast(pa.int64()).to_pylist()
    columns = []
    for wanted in schema(TABLES[name]):
        column = batch.column(wanted.name)
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.int64())
        columns.append(column.to_pylist())
    for time, row in zip(times, zip(*columns, strict=True), strict=True):
        day = date(1970, 1, 1) + timedelta(time // 86_400_000_000_000)
        key = (row[0], row[1])
        assert key not in rows[name], f"{name} {key} is there twice"
        rows[name][key] = (*row, filed or day)
