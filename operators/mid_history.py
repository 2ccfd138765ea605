"""Starting in mid-history: cores that begin in a known state, and stay silent until a place.

A replay of an interval must give the rows that the whole run gave there, so its cores first come
to the state they had then: from a checkpoint, or from the feed's start. What they make of
frames before ``show_from`` is silent (:attr:`operators.events.Rows.silent`): it moves the state on
and nobody sees it.

The rows shown are those made by frames at or after that offset of their feed. The source cuts its
batches there: a batch of frames lies wholly before the offset or wholly behind it.

A core takes frames, :class:`operators.events.Rows`, or a batch with ``offsets``: the offset of each
of its frames in the feed. What it makes has ``silenced()``: the same, for nobody to see.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from marketflow.operators.events import Rows


def is_shown(rows: Rows) -> bool:
    """Whether the rows are for the sinks: not silent, and not without any content."""
    return not rows.silent and bool(rows.tables or rows.stats)


@dataclass(frozen=True, slots=True)
class Warmup:
    """How a run begins in mid-history.

    ``show_from``: by feed, the offset of its first frame whose rows are shown. ``begin``: by step
    and index (of a feed or a shard), a snapshot of the core there and the changes after it; a core
    without one starts empty. Feeds that are not named begin as always.
    """

    show_from: Mapping[int, int] = field(default_factory=dict)
    begin: Mapping[str, Mapping[int, tuple[Any, ...]]] = field(default_factory=dict)

    def warmed(
        self, step: str, make: Callable[[int], Any], feed_of: Callable[[int], int]
    ) -> Callable[[int], Any]:
        """``make`` of a step, whose cores begin as this says. ``feed_of``: the feed of a core, by
        its index."""

        def make_warm(index: int) -> Any:
            feed = feed_of(index)
            if feed not in self.show_from:
                return make(index)
            return WarmCore(make(index), self.begin.get(step, {}).get(index), self.show_from[feed])

        return make_warm


class WarmCore:
    """A core that begins in a state of its own, and whose rows are silent before an offset."""

    def __init__(self, core: Any, begin: Any, show_from: int) -> None:
        self._core = core
        self._begin = begin
        self._show_from = show_from

    def apply(self, batch: Any) -> Any:
        """Apply the batch; the result is silent before the offset."""
        if self._begin is not None:
            self._core.restore(*self._begin)
            self._begin = None
        result = self._core.apply(batch)
        return result.silenced() if self._is_silent(batch) else result

    def _is_silent(self, batch: Any) -> bool:
        if isinstance(batch, Rows):
            return batch.silent
        if isinstance(batch, pa.RecordBatch):
            offset: int = batch.column("offset")[0].as_py()
        else:
            offset = int(batch.offsets[0])
        return offset < self._show_from

    def snapshot(self, *, changes: bool = False) -> Any:
        """Snapshot of the core."""
        return self._core.snapshot(changes=True) if changes else self._core.snapshot()

    def restore(self, state: Any, *changes: Any) -> None:
        """Restore a snapshot, which replaces the state that the core was to begin in."""
        self._begin = None
        self._core.restore(state, *changes)
