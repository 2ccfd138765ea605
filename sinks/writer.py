"""What every sink is at its core: a writer of rows, free of bytewax.

A writer is used by one thread. ``restore`` comes first or never (never: a fresh start); then
``write`` and ``snapshot`` in any order; ``close`` ends a run gracefully. A writer that is simply
dropped has crashed: whatever it did after the snapshot that is restored next is undone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa


class RowsLike(Protocol):
    """Finished rows of one shard (operators.events.Rows): record batches by table name."""

    @property
    def shard(self) -> int: ...

    @property
    def tables(self) -> Mapping[str, pa.RecordBatch]: ...


class Writer(Protocol):
    """Rows in, somewhere durable out."""

    def write(self, rows: Any) -> None:
        """Take the rows (a :class:`RowsLike`); may buffer, within bounds."""
        ...

    def snapshot(self) -> Any:
        """Make everything written so far recoverable; returns a small picklable resume value."""
        ...

    def restore(self, state: Any) -> None:
        """Go back to exactly the state of ``state``, a value of :meth:`snapshot`."""
        ...

    def moved(self, states: Sequence[Any], keeps: Callable[[int], bool]) -> Any:
        """The state for a new writer to begin with, whose shards (those that it ``keeps``) were
        other writers' before, which were closed after ``states``; it may touch nothing."""
        ...

    def close(self) -> None:
        """The run ends gracefully: everything written becomes visible."""
        ...


def moved_marks(
    parts: Sequence[dict[str, dict[int, int]]], keeps: Callable[[int], bool]
) -> dict[str, dict[int, int]]:
    """Next row_sequence by table and shard, of shards that are kept; each was one writer's."""
    found: dict[str, dict[int, int]] = {}
    for marks in parts:
        for table, shards in marks.items():
            kept = found.setdefault(table, {})
            kept.update({shard: mark for shard, mark in shards.items() if keeps(shard)})
    return found


@runtime_checkable
class HoldingWriter(Writer, Protocol):
    """A writer that holds something outside the process (a lock, files that may be undone)."""

    def idle(self) -> None:
        """Nothing arrives at the moment: a chance to make old rows visible."""
        ...

    def abandon(self) -> None:
        """Let go at once, finishing nothing; as a crash would, without ending the process."""
        ...

    def finish(self) -> None:
        """After ``close``: the flow's last snapshot is durable, nothing will be undone."""
        ...
