"""Several feeds as one, in order of time: what a replay reads.

A *lane* is a feed with some of its frames in memory. Frames of a lane keep their order, whatever
their times say: a frame counts as of the latest time up to it. Invariants of :class:`Merge`:

- Nothing is given before every lane that is not over has frames in memory, so that nothing that
  is still to come belongs before it.
- What one call gives is a *slice*: no frame of a later slice is earlier than one of this slice.
  Within a slice frames are by lane; it holds at most ``slice_rows`` frames of each.
- Memory: one batch of frames per lane.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

#: Frames of a lane in one slice: enough that a batch costs little by frame.
SLICE_ROWS: Final = 1 << 16
_FOR_EVER: Final = 2**63 - 1


class Feed(Protocol):
    """What a lane reads (sources.reader.Reader, without its END frame)."""

    def read(self) -> pa.RecordBatch | None:
        """The next frames; no rows where there are none now; None when it is over."""
        ...


class Given(NamedTuple):
    """Frames of one lane in a slice."""

    lane: int
    frames: pa.RecordBatch


class _Lane:
    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.over = False
        self._latest = 0
        self._frames: pa.RecordBatch | None = None
        self._times: NDArray[np.int64] = np.zeros(0, np.int64)
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._times) - self._at

    def fill(self) -> None:
        """Read, if there is nothing in memory."""
        if self.left or self.over:
            return
        batch = self.feed.read()
        if batch is None:
            self.over = True
        elif batch.num_rows:
            stamps = batch.column("ts_recv").to_numpy()
            self._times = np.maximum(np.maximum.accumulate(stamps), self._latest)
            self._latest = int(self._times[-1])
            self._frames, self._at = batch, 0

    @property
    def first_ns(self) -> int:
        return int(self._times[self._at])

    def reach_ns(self, slice_rows: int) -> int:
        """Up to when a slice may go that takes so many rows at most."""
        return int(self._times[min(self._at + slice_rows, len(self._times)) - 1])

    def take(self, until_ns: int, slice_rows: int) -> pa.RecordBatch | None:
        """Frames up to this time; more of the same time than fit come with the next slice."""
        end = self._at + slice_rows
        ahead = self._times[self._at : end]
        count = int(np.searchsorted(ahead, until_ns, side="right"))
        if not count:
            return None
        assert self._frames is not None
        taken = self._frames.slice(self._at, count)
        self._at += count
        return taken


class Merge:
    """See the module. ``slice_rows`` 1: strictly in order, frame by frame."""

    def __init__(self, feeds: Sequence[Feed], slice_rows: int = SLICE_ROWS) -> None:
        self._lanes = [_Lane(feed) for feed in feeds]
        self._slice_rows = slice_rows

    @property
    def over(self) -> bool:
        """Nothing will ever come."""
        return all(lane.over for lane in self._lanes)

    def fill(self) -> int | None:
        """Read what lanes lack; the time of the first frame that may be given, None if none."""
        for lane in self._lanes:
            lane.fill()
        waiting = [lane.left == 0 for lane in self._lanes if not lane.over]
        if not waiting or any(waiting):
            return None
        return min(lane.first_ns for lane in self._lanes if not lane.over)

    def take(self, until_ns: int = _FOR_EVER) -> list[Given]:
        """The next slice, of frames up to this time; only after :meth:`fill` gave a time."""
        lanes = [(i, lane) for i, lane in enumerate(self._lanes) if not lane.over]
        reach_ns = min(until_ns, *(lane.reach_ns(self._slice_rows) for _, lane in lanes))
        taken = [(i, lane.take(reach_ns, self._slice_rows)) for i, lane in lanes]
        return [Given(i, frames) for i, frames in taken if frames is not None]
