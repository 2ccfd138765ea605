"""Redundant lines for ``marketflow record``: a thread takes what the sockets have.

Between it and the sinks are at most ``max_bytes`` of frames. When they are full the thread waits,
datagrams stay in the kernel's buffers, and what these cannot hold the kernel drops and counts
(``drops``): the other line or the request server may have it still.
"""

from __future__ import annotations

import threading
import time
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from marketflow.flows.recording.line_pump import LinePump, LineReport
from marketflow.schemas.messages.frames import FRAMES, FrameKind
from marketflow.sources.errors import FeedFailed
from marketflow.sources.lines.config import LinesConfig

#: Whose decoder reads the frames.
VENUE: Final = "XNAS"
_ROUND_S: Final = 0.1
#: Frames of so many bytes are handed over at once.
_BATCH_BYTES: Final = 4 << 20


class LinesRecorder:
    """What flows.recording.record asks of a recorder, for lines. ``patience_s``: for the first
    packet."""

    def __init__(self, spec: LinesConfig, *, patience_s: float, max_bytes: int) -> None:
        self.pump = LinePump(spec)
        self.pauses = 0
        self._patience_s = patience_s
        self._deadline_s = 0.0
        self._max_bytes = max_bytes
        self._frames: list[pa.RecordBatch] = []
        self._bytes = 0
        self._change = threading.Condition()
        self._stop = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="lines", daemon=True)

    def start(self) -> None:
        """Begin to listen."""
        self._deadline_s = time.monotonic() + self._patience_s
        self._thread.start()

    def poll(self, timeout_s: float) -> dict[str, pa.RecordBatch]:
        """Frames by venue; none in ``timeout_s``. Raises FeedFailed."""
        with self._change:
            if not self._frames and self._thread.is_alive():
                self._change.wait(timeout_s)
            frames, self._frames, self._bytes = self._frames, [], 0
            self._change.notify_all()
        if frames:
            table = pa.Table.from_batches(frames, FRAMES).unify_dictionaries().combine_chunks()
            # A record has no end: the next session's may follow, or this one's again.
            table = table.filter(pc.not_equal(table.column("kind"), FrameKind.END))
            batches = table.combine_chunks().to_batches()
            return {VENUE: batches[0]} if batches else {}
        if self._failure is not None:
            raise self._failure
        self._check_reached()
        return {}

    def _check_reached(self) -> None:
        if not self._deadline_s or time.monotonic() < self._deadline_s:
            return
        reports = self.reports()
        if any(report.connects for report in reports):
            self._deadline_s = 0.0
            return
        why = "; ".join(f"{report.connection}: {report.reason}" for report in reports)
        raise FeedFailed(
            f"no line could be heard within {self._patience_s:g} s: {why}. Check addresses, "
            "interface= and firewall; once a line has been heard, outages are waited out"
        )

    def _work(self) -> None:
        try:
            while not self._stop.is_set() and not self.pump.ended:
                self._put(self.pump.pump(_ROUND_S))
            self._put(self.pump.pump(0))  # what has come until now
            self._put(self.pump.flush())
        except Exception as error:  # raised again by poll
            self._failure = error
        finally:
            self.pump.close()
            with self._change:
                self._change.notify_all()

    def _put(self, frames: pa.RecordBatch) -> None:
        if not frames.num_rows:
            return
        with self._change:
            if self._bytes >= self._max_bytes:
                self.pauses += 1
                self._change.wait_for(lambda: self._bytes < self._max_bytes or self._stop.is_set())
            self._frames.append(frames)
            self._bytes += frames.nbytes
            if self._bytes >= _BATCH_BYTES or len(self._frames) == 1:
                self._change.notify_all()

    def reports(self) -> list[LineReport]:
        """What each line has done, in the order of the sources."""
        return self.pump.reports()

    def counts(self) -> dict[str, Any]:
        """The arbiter's counts, for the summary."""
        counts = self.pump.arbiter.stats()
        del counts["lines"]
        return {"arbiter": counts | {"requests": self.pump.requests}}

    def stop(self) -> None:
        """End after the packets that have come."""
        self._stop.set()
        with self._change:
            self._change.notify_all()

    @property
    def stopped(self) -> bool:
        """Nothing will be put any more: the session is over, or it was stopped."""
        return not self._thread.is_alive()
