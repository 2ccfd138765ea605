"""What a store holds of each feed: rows by table, and the span of their event times.

A tally is made of rows as they are stored, and stored with them: in the footer of a lake's file, in
the transaction of a flush.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from marketflow.schemas.fields import Table
from marketflow.schemas.shards import feed_of, feeds_of

#: Tables of other times (of arrival) say nothing of events.
_EVENT: Final = "ts_event"


@dataclass(slots=True)
class Held:
    """Rows of one feed. ``first``, ``last``: event time in ns; None: no row has one."""

    rows: dict[str, int] = field(default_factory=dict)
    first: int | None = None
    last: int | None = None

    def count(self, table: str, rows: int) -> None:
        """Rows more."""
        self.rows[table] = self.rows.get(table, 0) + rows

    def widen(self, first: int | None, last: int | None) -> None:
        """The span holds these times too."""
        if first is not None:
            self.first = first if self.first is None else min(self.first, first)
        if last is not None:
            self.last = last if self.last is None else max(self.last, last)

    def add(self, other: Held) -> None:
        """The rows of another tally of the feed too."""
        for table, rows in other.rows.items():
            self.count(table, rows)
        self.widen(other.first, other.last)


#: By the number of the feed.
Tally = dict[int, Held]


def add_rows(tally: Tally, table: Table, shard: int, rows: pa.RecordBatch) -> None:
    """Count rows of one shard, in flow form."""
    held = tally.setdefault(feed_of(shard), Held())
    held.count(table.name, rows.num_rows)
    if table.time_field == _EVENT and rows.num_rows:
        span = pc.min_max(rows.column(_EVENT).cast(pa.int64())).as_py()
        held.widen(span["min"], span["max"])


def of_rows(
    table: Table, shards: NDArray[np.int64], times: NDArray[np.int64], known: NDArray[np.bool_]
) -> Tally:
    """The tally of rows of many shards; ``known``: which have a time."""
    numbers = feeds_of(shards)
    if len(numbers) == 0:
        return {}
    if numbers[0] == numbers[-1] and (numbers == numbers[0]).all():
        return {int(numbers[0]): _held(table, times[known], len(numbers))}
    found: Tally = {}
    for number in np.unique(numbers).tolist():
        own = numbers == number
        found[number] = _held(table, times[own & known], int(np.count_nonzero(own)))
    return found


def _held(table: Table, times: NDArray[np.int64], rows: int) -> Held:
    held = Held({table.name: rows})
    if table.time_field == _EVENT and len(times):
        held.widen(int(times.min()), int(times.max()))
    return held


def merged(parts: Iterable[Tally]) -> Tally:
    """Sum of tallies."""
    found: Tally = {}
    for part in parts:
        for number, held in part.items():
            found.setdefault(number, Held()).add(held)
    return found


def to_json(tally: Tally) -> dict[str, Any]:
    """A tally as JSON can say it."""
    return {
        str(number): {"rows": dict(held.rows), "first": held.first, "last": held.last}
        for number, held in tally.items()
    }


def from_json(value: Mapping[str, Any]) -> Tally:
    """Inverse of :func:`to_json`."""
    return {
        int(number): Held(dict(held["rows"]), held["first"], held["last"])
        for number, held in value.items()
    }
