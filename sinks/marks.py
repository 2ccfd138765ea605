"""How far a writer has come: the next row_sequence of every table and shard.

Rows of a shard reach a writer once, in order and without gap, and are the same whenever they are
computed again. So a mark says which rows are in a store, and a row below it is skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pyarrow as pa

#: Next row_sequence by table and shard. Plain data.
Marks = dict[str, dict[int, int]]


def mark(marks: Marks, table: str, shard: int) -> int:
    """Next row_sequence of a table and shard; 0 where nothing is known."""
    return marks.get(table, {}).get(shard, 0)


def copied(marks: Marks) -> Marks:
    """The marks of this moment."""
    return {table: dict(shards) for table, shards in marks.items()}


def highest(parts: Iterable[Marks]) -> Marks:
    """Highest mark of each table and shard."""
    found: Marks = {}
    for marks in parts:
        for table, shards in marks.items():
            known = found.setdefault(table, {})
            for shard, following in shards.items():
                known[shard] = max(following, known.get(shard, 0))
    return found


def of_shards(marks: Marks, keeps: Callable[[int], bool]) -> Marks:
    """Marks of the shards that ``keeps`` keeps."""
    return {
        table: {shard: following for shard, following in shards.items() if keeps(shard)}
        for table, shards in marks.items()
    }


def to_json(marks: Marks) -> dict[str, dict[str, int]]:
    """Marks as JSON can say them."""
    return {table: {str(s): n for s, n in shards.items()} for table, shards in marks.items()}


def from_json(value: Any) -> Marks:
    """Inverse of :func:`to_json`."""
    return {table: {int(s): n for s, n in shards.items()} for table, shards in value.items()}


class Gapless:
    """Marks of the rows that a writer was given.

    ``midway``: the rows begin in mid-history, so that the first of a shard may have any number.
    """

    def __init__(self, midway: bool = False) -> None:
        self._midway = midway
        self.marks: Marks = {}

    def restore(self, marks: Marks) -> None:
        """Expect the rows from these marks on."""
        self.marks = copied(marks)

    def advance(self, table: str, shard: int, batch: pa.RecordBatch) -> tuple[int, int]:
        """Move the mark over a batch; its first row_sequence and the mark.

        A gap or a repetition is a bug upstream, and would be a lost or doubled row after the next
        restore: AssertionError.
        """
        sequences = batch.column("row_sequence")
        first, last = sequences[0].as_py(), sequences[-1].as_py()
        shards = self.marks.setdefault(table, {})
        expected = shards.get(shard, first if self._midway else 0)
        assert first == expected and last - first == batch.num_rows - 1, (
            f"{table}, shard {shard}: rows {first}..{last} ({batch.num_rows}) after {expected - 1}"
        )
        shards[shard] = last + 1
        return first, last + 1
