"""Live feeds as batches of frames, for a writer.

The sockets live in a thread of their own with an event loop; :meth:`Recorder.poll` gives what has
come, so a slow writer never delays an arrival stamp. Order is kept within a connection, and
between connections as far as arrival tells.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import Final

import pyarrow as pa

from marketflow.sources.errors import FeedFailed
from marketflow.sources.websocket.config import LiveConfig
from marketflow.sources.websocket.connection import Line, LineReport
from marketflow.sources.websocket.outbox import MAX_BYTES, Outbox

#: How long the first connection of a recording may take to come about.
PATIENCE_S: Final = 30.0
STALL_S: Final = 30.0


class Recorder:
    """The connections of ``specs``, each opened again whenever it is lost.

    A venue that is away is waited for, with growing pauses up to a minute, once any connection has
    been open; where none ever was within ``patience_s``, :meth:`poll` raises FeedFailed.
    """

    def __init__(
        self,
        specs: Sequence[LiveConfig],
        *,
        patience_s: float = PATIENCE_S,
        stall_s: float = STALL_S,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._outbox = Outbox(max_bytes)
        self._outbox.on_change = self._follow_outbox
        self._specs = tuple(specs)
        self._lines: list[Line] = []
        self._stall_s = stall_s
        self._patience_s = patience_s
        self._deadline_s = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="live", daemon=True)

    def start(self) -> None:
        """Open the connections."""
        self._deadline_s = time.monotonic() + self._patience_s
        self._thread.start()
        self._ready.wait()

    def reports(self) -> list[LineReport]:
        """What each line has done, in the order of the sources."""
        return [line.report for line in self._lines]

    @property
    def pauses(self) -> int:
        """How often the sockets had to wait for a slow writer."""
        return self._outbox.pauses

    def poll(self, timeout_s: float) -> dict[str, pa.RecordBatch]:
        """Frames by venue (schemas.messages.frames.FRAMES); none in ``timeout_s``. Raises
        FeedFailed."""
        if self._failure is not None:
            raise self._failure
        batches = self._outbox.poll(timeout_s)
        if not batches and self._deadline_s and time.monotonic() > self._deadline_s:
            self._check_reached()
        return batches

    def _check_reached(self) -> None:
        reports = self.reports()
        if any(report.connects for report in reports):
            self._deadline_s = 0.0
            return
        why = "; ".join(f"{r.connection}: {r.reason or 'no answer yet'}" for r in reports)
        raise FeedFailed(
            f"no source could be reached within {self._patience_s:g} s: {why}. Check the network, "
            "and url= where it is given; once a source has been reached, outages are waited out"
        )

    def resync(self, venue: str, symbol: str, ts_recv: int) -> None:
        """Ask for the full book of an instrument again: of ``venue`` as the tables call it, stale
        since the frame of ``ts_recv`` (ns UTC)."""
        for line in self._lines:
            if venue == line.spec.venue.VENUE:
                self._call(lambda line=line: line.resync(symbol, ts_recv))

    def stop(self) -> None:
        """Close all connections. What comes until they are closed can be taken afterwards."""
        for line in self._lines:
            self._call(line.stop)

    @property
    def stopped(self) -> bool:
        """Are all connections closed?"""
        return not self._thread.is_alive()

    def _call(self, function: object) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(function)  # type: ignore[arg-type]
        except RuntimeError:
            assert self.stopped or self._loop.is_closed()

    def _follow_outbox(self) -> None:
        for line in self._lines:
            self._call(line.follow_outbox)

    def _work(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:  # raised again by poll
            self._failure = error
        finally:
            self._ready.set()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._lines = [Line(spec, self._outbox, self._stall_s) for spec in self._specs]
        self._ready.set()
        async with asyncio.TaskGroup() as group:
            for line in self._lines:
                group.create_task(line.run())
