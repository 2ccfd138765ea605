"""Merge several feeds into one, in order of time, for a replay.

Frames of a feed keep their order, whatever their times say: a frame counts as of the latest time up
to it. Invariants of :class:`Merge`:

- Emit a slice only once every open feed has buffered frames, so that no later frame belongs before
  it.
- No frame of a later slice is earlier than one of this slice. A slice holds its frames by feed, at
  most ``slice_rows`` of each.
- Memory: one batch of frames per feed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

#: Frames of a feed in one slice: enough that a batch costs little by frame.
SLICE_ROWS: Final = 1 << 16
_FOR_EVER: Final = 2**63 - 1


class Feed(Protocol):
    """A sources.reader.Reader without its END frame."""

    def read(self) -> pa.RecordBatch | None:
        """The next frames; no rows where there are none now; None when it is over."""
        ...


class FeedFrames(NamedTuple):
    """Frames of one feed, by its index, in a slice."""

    feed: int
    frames: pa.RecordBatch


class _Buffer:
    """The frames of one feed that are read and not yet emitted."""

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
        """Latest time of a slice with at most so many rows of this feed."""
        return int(self._times[min(self._at + slice_rows, len(self._times)) - 1])

    def emit(self, until_ns: int, slice_rows: int) -> pa.RecordBatch | None:
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
        self._buffers = [_Buffer(feed) for feed in feeds]
        self._slice_rows = slice_rows

    @property
    def over(self) -> bool:
        """Whether every feed has ended and is emitted."""
        return all(buffer.over for buffer in self._buffers)

    def fill(self) -> int | None:
        """Read where a buffer is empty; the time of the first frame that may be emitted, or
        None."""
        for buffer in self._buffers:
            buffer.fill()
        waiting = [buffer.left == 0 for buffer in self._buffers if not buffer.over]
        if not waiting or any(waiting):
            return None
        return min(buffer.first_ns for buffer in self._buffers if not buffer.over)

    def emit(self, until_ns: int = _FOR_EVER) -> list[FeedFrames]:
        """The next slice, of frames up to this time. Call it only after :meth:`fill` returned a
        time."""
        buffers = [(i, buffer) for i, buffer in enumerate(self._buffers) if not buffer.over]
        reach_ns = min(until_ns, *(buffer.reach_ns(self._slice_rows) for _, buffer in buffers))
        taken = [(i, buffer.emit(reach_ns, self._slice_rows)) for i, buffer in buffers]
        return [FeedFrames(i, frames) for i, frames in taken if frames is not None]
