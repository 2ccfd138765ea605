"""Whether a lake has rows of an interval (sinks.overlap): by statistics where those tell."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from marketflow.schemas.units import NS_PER_MS
from marketflow.sinks.lake.layout import list_files, list_partitions, own_folder
from marketflow.sinks.overlap import Interval, first_table

_MIN_NS, _MAX_NS = -(2**63), 2**63 - 1


def holds(root: Path, interval: Interval, written: Collection[str]) -> str | None:
    """First table with rows of the interval, where ``written`` are to be written."""
    if not own_folder(root).is_dir():
        return None
    return first_table(partial(_holds, root), interval, written)


def _holds(root: Path, name: str, interval: Interval) -> bool:
    venues = {p.venue for p in list_partitions(root, name) if interval.is_of(p.venue)}
    files = list_files(root, name, venues=[venue for venue in venues if venue is not None])
    return bool(files) if interval.is_open else any(_file_holds(f, interval) for f in files)


def _file_holds(path: Path, interval: Interval) -> bool:
    """Whether rows of a file arrived within."""
    first = _MIN_NS if interval.first_ms is None else interval.first_ms * NS_PER_MS
    end = _MAX_NS if interval.end_ms is None else interval.end_ms * NS_PER_MS
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            if not _may_hold(file.metadata.row_group(group), first, end):
                continue
            arrived = file.read_row_group(group, columns=["ts_recv"])["ts_recv"].cast(pa.int64())
            inside = pc.and_(pc.greater_equal(arrived, first), pc.less(arrived, end))
            if pc.any(inside).as_py():
                return True
    return False


def _may_hold(group: Any, first: int, end: int) -> bool:
    """By the statistics of a row group; True where it has none."""
    for index in range(group.num_columns):
        column = group.column(index)
        if column.path_in_schema == "ts_recv" and column.statistics is not None:
            known = column.statistics
            return not known.has_min_max or (known.max_raw >= first and known.min_raw < end)
    return True
