"""Frames between the sockets' thread and the one that writes: bounded, and the policy when full.

When ``max_bytes`` are waiting, all sockets stop reading, and TCP tells the venues to wait; they go
on at half of it. A line that had to wait for longer than the recorder's patience is given up and
connected again later: what was missed is then a gap that is known.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa

from marketflow.schemas.messages import frame_batches as framing
from marketflow.schemas.messages.frames import FrameKind

MAX_BYTES: Final = 64 << 20
#: What a small frame takes beside its payload.
_FRAME_BYTES: Final = 200


class Received(NamedTuple):
    """A frame on its way; ``venue`` is whose decoder reads it."""

    venue: str
    connection: str
    kind: FrameKind
    ts_recv: int
    note: str | None
    payload: bytes


class Outbox:
    """``put`` in one thread, ``poll`` in another."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._frames: list[Received] = []
        self._bytes = 0
        self._change = threading.Condition()
        self._offsets: dict[str, int] = {}
        #: Called in the thread of ``put`` or of ``poll`` when ``full_since_s`` has changed. Calls
        #: of the two may come in either order: whoever is called looks at what is true then.
        self.on_change: Callable[[], None] = lambda: None
        #: Since when sockets are paused, in seconds of the monotonic clock; 0: they are not.
        self.full_since_s = 0.0
        #: How often that happened.
        self.pauses = 0

    @property
    def full_for_s(self) -> float:
        """How long the sockets have been paused."""
        since = self.full_since_s
        return time.monotonic() - since if since else 0.0

    def put(self, frame: Received) -> None:
        """Add a frame, always; the one that fills the outbox pauses the sockets."""
        with self._change:
            first = not self._frames
            self._frames.append(frame)
            self._bytes += len(frame.payload) + _FRAME_BYTES
            filled = self._bytes > self._max_bytes and not self.full_since_s
            if filled:
                self.full_since_s = time.monotonic()
                self.pauses += 1
            if first:
                self._change.notify_all()
        if filled:
            self.on_change()

    def poll(self, timeout_s: float, max_bytes: int = 4 << 20) -> dict[str, pa.RecordBatch]:
        """A batch of frames per venue, of the frames that wait; none after ``timeout_s``."""
        with self._change:
            self._change.wait_for(lambda: self._frames, timeout_s)
            taken, size = len(self._frames), self._bytes
            if size > max_bytes:
                size = 0
                for taken, frame in enumerate(self._frames, 1):  # noqa: B007
                    size += len(frame.payload) + _FRAME_BYTES
                    if size >= max_bytes:
                        break
            frames, self._frames = self._frames[:taken], self._frames[taken:]
            self._bytes -= size
            drained = self.full_since_s and self._bytes <= self._max_bytes // 2
            if drained:
                self.full_since_s = 0.0
        if drained:
            self.on_change()
        venues = {frame.venue: None for frame in frames}
        return {venue: self._batch(venue, frames) for venue in venues}

    def _batch(self, venue: str, frames: list[Received]) -> pa.RecordBatch:
        """The venue's frames; their offsets count the frames of this recording."""
        rows = [frame for frame in frames if frame.venue == venue]
        first = self._offsets.get(venue, 0)
        self._offsets[venue] = first + len(rows)
        _, connections, kinds, stamps, notes, payloads = zip(*rows, strict=True)
        return framing.batch(
            np.arange(first, first + len(rows), dtype=np.int64),
            pa.array(payloads, pa.large_binary()),
            ts_recv=np.array(stamps, np.int64),
            kinds=np.array(kinds, np.int8),
            connections=pa.array(connections, pa.string()).dictionary_encode(),
            notes=pa.array(notes, pa.string()),
        )
