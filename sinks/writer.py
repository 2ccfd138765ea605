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

    def reassign(self, states: Sequence[Any], keeps: Callable[[int], bool]) -> Any:
        """The state for a new writer to begin with, whose shards (those that it ``keeps``) were
        other writers' before, which were closed after ``states``; it may touch nothing."""
        ...

    def close(self) -> None:
        """The run ends gracefully: everything written becomes visible."""
        ...


def fence_all(crews: Sequence[Sequence[Writer]]) -> None:
    """Fence the writers of several processes, all those of a sink before the next sink's. Where
    the run is alive a lake says so before a later sink shuts it out."""
    for writers in zip(*crews, strict=True):
        for writer in writers:
            if isinstance(writer, HoldingWriter):
                writer.fence()


@runtime_checkable
class HoldingWriter(Writer, Protocol):
    """A writer that holds something outside the process (a lock, files that may be undone)."""

    def fence(self) -> None:
        """Become the only writer of this id: an earlier one is shut out for good and what it left
        open is undone; SinkError where it is alive and cannot be. Before ``restore`` or never: that
        does it where it was not done. Where several writers of a store are restored all of them
        are fenced before: one may wait for what another left open."""
        ...

    def idle(self) -> None:
        """Nothing arrives at the moment: a chance to make old rows visible."""
        ...

    def abandon(self) -> None:
        """Let go at once, finishing nothing; as a crash would, without ending the process."""
        ...

    def finish(self) -> None:
        """After ``close``: the flow's last snapshot is durable, nothing will be undone."""
        ...
