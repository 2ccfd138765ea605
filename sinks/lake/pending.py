"""Rows that are in memory and not yet sealed into a file, by partition.

Small batches are staged per table and split by partition a block at a time, so that the cost per
batch is small whatever its size. Bounded by the writer: it asks for the largest partitions.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from marketflow.schemas.units import NS_PER_DAY
from marketflow.sinks.columns import (
    Bare,
    Names,
    Shape,
    concat,
    filled,
    shape,
    size,
    take,
    to_bare,
)
from marketflow.sinks.lake.layout import Partition

STAGE_ROWS: Final = 1 << 16
#: A batch of at least this part of a block is split by itself, without being copied first.
_LARGE_BATCH_DIVISOR: Final = 16
_MAX_SMALL_CHUNKS: Final = 256


@dataclass(slots=True)
class Pending:
    """Rows of one partition in order of arrival; ``logged`` chunks are in the aside log, ``joined``
    ones have been made large; ``since``: monotonic clock at the first row."""

    since: float = field(default_factory=time.monotonic)
    chunks: list[Bare] = field(default_factory=list)
    rows: int = 0
    bytes: int = 0
    logged: int = 0
    joined: int = 0

    def add(self, chunk: Bare) -> None:
        self.chunks.append(chunk)
        self.rows += len(chunk[0])
        self.bytes += size(chunk)

    def unlogged(self) -> list[Bare]:
        return self.chunks[self.logged :]

    def mark_logged(self) -> None:
        """All chunks are in the log. Many small ones become one, each row copied once."""
        if len(self.chunks) - self.joined > _MAX_SMALL_CHUNKS:
            self.chunks[self.joined :] = [concat(self.chunks[self.joined :])]
            self.joined = len(self.chunks)
        self.logged = len(self.chunks)


class PendingRows:
    """All pending rows of a writer. ``partitions`` is in order of first arrival."""

    def __init__(self, stage_rows: int = STAGE_ROWS) -> None:
        self.names = Names()
        self._stage_rows = stage_rows
        self.partitions: dict[Partition, Pending] = {}
        self.bytes = 0
        self._staged: dict[str, list[pa.RecordBatch]] = {}
        self._staged_rows: dict[str, int] = {}

    def stage(self, table: str, batch: pa.RecordBatch) -> bool:
        """Take a batch in flow form; True when partitions have grown."""
        staged = self._staged.get(table)
        if staged is None and batch.num_rows >= self._stage_rows // _LARGE_BATCH_DIVISOR:
            self._split(table, [batch])
            return True
        if staged is None:
            staged = self._staged[table] = []
        staged.append(batch)
        rows = self._staged_rows.get(table, 0) + batch.num_rows
        self._staged_rows[table] = rows
        if rows < self._stage_rows:
            return False
        self._split(table, self._staged.pop(table))
        return True

    def flush(self) -> None:
        """Move all staged rows to their partitions."""
        for table in list(self._staged):
            self._split(table, self._staged.pop(table))

    def _split(self, table: str, batches: list[pa.RecordBatch]) -> None:
        form = shape(table)
        self._staged_rows[table] = 0
        block = concat([to_bare(form, batch, self.names) for batch in batches])
        venues = None
        if form.table.has_venue:
            codes = [self.names.codes(batch.column("venue")) for batch in batches]
            venues = filled(codes[0] if len(codes) == 1 else pa.concat_arrays(codes))
        for partition, chunk in self._by_partition(form, block, venues):
            self.add(partition, chunk)

    def _by_partition(
        self, form: Shape, block: Bare, venues: NDArray[Any] | None
    ) -> Iterator[tuple[Partition, Bare]]:
        days = filled(block[form.time]) // NS_PER_DAY
        if len(days) == 0:
            return
        key = days * (len(self.names) + 1)
        if venues is not None:
            key += venues
        if key[0] == key[-1] and (key == key[0]).all():
            yield self._partition(form, days, venues, 0), block
            return
        order = np.argsort(key, kind="stable")
        cuts = np.flatnonzero(np.diff(key[order])) + 1
        for rows in np.split(order, cuts):
            yield self._partition(form, days, venues, rows[0]), take(block, rows)

    def _partition(
        self, form: Shape, days: NDArray[Any], venues: NDArray[Any] | None, row: int
    ) -> Partition:
        venue = None if venues is None else self.names.text(int(venues[row]))
        return Partition(form.table.name, int(days[row]), venue)

    def add(self, partition: Partition, chunk: Bare) -> None:
        """Append rows in bare form to a partition."""
        pending = self.partitions.get(partition)
        if pending is None:
            pending = self.partitions[partition] = Pending()
        before = pending.bytes
        pending.add(chunk)
        self.bytes += pending.bytes - before

    def remove(self, partition: Partition) -> Pending:
        """Take a partition out: it is being sealed."""
        pending = self.partitions.pop(partition)
        self.bytes -= pending.bytes
        return pending

    def largest(self) -> Partition:
        return max(self.partitions, key=lambda p: self.partitions[p].bytes)


def keep(bare: Bare, mask: NDArray[np.bool_]) -> Bare:
    """The rows where ``mask`` is true."""
    if mask.all():
        return bare
    selected = pa.array(mask)
    return [pc.filter(column, selected) for column in bare]
