"""One live connection for its whole life: open, subscribe, watch, ask for books, open again.

Everything happens in one event loop. What the venue wants to hear is
:mod:`sources.websocket.venues.base`'s business, when to ask for what
:mod:`sources.websocket.snapshot_plan`'s.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from websockets.exceptions import ConnectionClosed, WebSocketException

from marketflow.schemas.backoff import Outage
from marketflow.schemas.messages.frames import FrameKind
from marketflow.sources.websocket.config import LiveConfig
from marketflow.sources.websocket.outbox import Outbox, Received
from marketflow.sources.websocket.rest import RestFailed, ask
from marketflow.sources.websocket.snapshot_plan import BACKOFF, SnapshotPlan
from marketflow.sources.websocket.socket import StampedConnection, open_socket, why_closed, why_not

log = logging.getLogger("marketflow.live")

_T = TypeVar("_T")
_WATCH_S: Final = 1.0
#: A connection that lasted so long starts the pauses over.
_STEADY_S: Final = 30.0
#: Refusals told per connection; the rest is in the record anyway.
_REFUSALS_TOLD: Final = 5
STOPPED: Final = "the recorder was stopped"


@dataclass(slots=True)
class LineReport:
    """What a line has done so far. ``state``: connecting, open, waiting, stopped."""

    connection: str
    state: str = "connecting"
    frames: int = 0
    bytes: int = 0
    connects: int = 0
    disconnects: int = 0
    failures: int = 0
    slow_disconnects: int = 0
    snapshots: int = 0
    resyncs: int = 0
    refused: int = 0
    reason: str = ""
    #: Messages by channel; of what was subscribed also those that brought none. "": of no channel.
    channels: dict[str, int] = field(default_factory=dict)


class Line:
    """``run`` until ``stop``. ``stall_s``: how long it may be paused for a slow reader."""

    def __init__(self, spec: LiveConfig, outbox: Outbox, stall_s: float) -> None:
        self.spec = spec
        self.report = LineReport(spec.connection, channels=dict.fromkeys(spec.venue.channels, 0))
        self._venue = spec.venue
        self._outbox = outbox
        self._stall_s = stall_s
        self._by_rest = bool(spec.venue.snapshot(spec.venue.symbols[0]))
        self._plan = SnapshotPlan(quiet_s=1.0 if self._by_rest else 0.0)
        #: Symbol -> ns UTC when its full book was asked for last.
        self._asked_ns: dict[str, int] = {}
        self._listed = False
        self._wake = asyncio.Event()
        self._stopping = False
        self._socket: StampedConnection | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._bug: BaseException | None = None

    # -- from outside, in the loop's thread ---------------------------------------------------

    def stop(self) -> None:
        """Close the connection, with everything that was on its way recorded."""
        self._stopping = True
        self._wake.set()

    def follow_outbox(self) -> None:
        """Read on while the outbox has room, and only then."""
        if self._socket is not None:
            if self._outbox.full_since_s:
                self._socket.pause()
            else:
                self._socket.resume()

    def resync(self, symbol: str, ts_recv: int) -> None:
        """A book has been stale since the frame that came at ``ts_recv`` (ns). Asked for once: not
        again for what a full book that was asked for since then has mended."""
        if symbol not in self._venue.symbols or self._socket is None:
            return  # what is connected next starts with its books anyway
        if self._asked_ns.get(symbol, 0) > ts_recv:
            return
        if self._plan.need(symbol, time.monotonic()):
            self.report.resyncs += 1
            self._wake.set()

    # -- life ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Connect, and again after every loss, until stopped."""
        outage = Outage(BACKOFF)
        while not self._stopping:
            await self._list()
            began = time.monotonic()
            self.report.state = "connecting"
            reason = await self._connection()
            if self._stopping:
                break
            self.report.reason = reason
            now = time.monotonic()
            if now - began > _STEADY_S:
                outage.ended(now)
            pause_s = outage.failed(now, reason, random.random()).pause_s
            log.warning("%s: %s; again in %.1f s", self.spec.connection, reason, pause_s)
            self.report.state = "waiting"
            await self._rest(pause_s)
            while self._outbox.full_since_s and not self._stopping:
                await self._rest(_WATCH_S)
        self.report.state = "stopped"

    async def _rest(self, seconds: float) -> None:
        """Sleep, until woken."""
        self._wake.clear()
        if self._stopping:
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), seconds)

    async def _unless_stopped(self, work: Coroutine[Any, Any, _T]) -> _T | None:
        """The outcome of ``work``; None when we were stopped meanwhile."""
        task = asyncio.ensure_future(work)
        self._wake.clear()
        stopped = asyncio.ensure_future(self._wake.wait())
        try:
            while not task.done() and not self._stopping:
                await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
                if stopped.done() and not self._stopping:
                    self._wake.clear()
                    stopped = asyncio.ensure_future(self._wake.wait())
            return await task if task.done() else None
        finally:
            stopped.cancel()
            task.cancel()

    async def _list(self) -> None:
        """What the venue says of its instruments: once, and again later if it does not answer."""
        if self._listed:
            return
        self._listed = True
        for path in self._venue.listings():
            try:
                answer = await self._unless_stopped(ask(self.spec.rest, path))
            except RestFailed as error:
                log.warning("%s: no description of instruments: %s", self.spec.connection, error)
                self._listed = False
                continue
            if answer is None:
                return
            self._put(FrameKind.HTTP, answer.ts_recv, answer.url, answer.body)

    async def _connection(self) -> str:
        """One connection from its opening to its end; returns why it ended."""
        opened = self.report.connects
        try:
            socket = await self._unless_stopped(
                open_socket(self.spec.address, self._opened, self._message)
            )
        except (OSError, TimeoutError, WebSocketException) as error:
            self.report.failures += 1
            return f"cannot connect to {self.spec.shown}: {why_not(error)}"
        if socket is None:
            return STOPPED
        self._socket = socket
        self.report.state = "open"
        if self._outbox.full_since_s:
            socket.pause()
        try:
            await self._begin(socket)
            reason = await self._watch(socket)
        except ConnectionClosed:
            await socket.wait_closed()
            reason = why_closed(socket)
        finally:
            self._socket = None
            self._plan.clear()
            for task in self._tasks:
                task.cancel()
        assert self.report.connects > opened
        self.report.disconnects += reason != STOPPED
        self._put(FrameKind.DISCONNECT, time.time_ns(), reason)
        return reason

    async def _begin(self, socket: StampedConnection) -> None:
        """Subscribe; every book of this connection has to come."""
        now, now_ns = time.monotonic(), time.time_ns()
        if self._by_rest or self._venue.book_channels:
            for symbol in self._venue.symbols:
                self._plan.need(symbol, now, asked=not self._by_rest)
                self._asked_ns[symbol] = now_ns
        await self._send(socket, self._venue.subscribe())

    async def _send(self, socket: StampedConnection, messages: list[str]) -> None:
        for number, message in enumerate(messages):
            if number:
                await asyncio.sleep(self._venue.SEND_PAUSE_S)
            self._put(FrameKind.SENT, time.time_ns(), None, message.encode())
            await socket.send(message)

    async def _watch(self, socket: StampedConnection) -> str:
        """Until the connection ends, or has to: pings, silence, a slow reader, books to ask for."""
        closed = asyncio.ensure_future(socket.wait_closed())
        closed.add_done_callback(lambda _: self._wake.set())
        ping_s = time.monotonic() + self._venue.PING_S
        try:
            while True:
                if self._bug is not None:
                    raise self._bug
                if closed.done():
                    return why_closed(socket)
                if self._stopping:
                    await socket.close(1000, "")
                    return STOPPED
                now = time.monotonic()
                if self._outbox.full_since_s:
                    if self._outbox.full_for_s > self._stall_s:
                        socket.transport.abort()
                        self.report.slow_disconnects += 1
                        return f"slow reader: nothing was taken for {self._stall_s:g} s"
                elif now - socket.heard_s > self._venue.SILENCE_S:
                    socket.transport.abort()
                    return f"silent for {self._venue.SILENCE_S:g} s"
                if now >= ping_s:
                    ping_s = now + self._venue.PING_S
                    await socket.send(self._venue.PING) if self._venue.PING else await socket.ping()
                while (symbol := self._plan.due(now)) is not None:
                    self._start(socket, symbol)
                due_s = self._plan.next_s(now)
                soon_s = _WATCH_S if due_s is None else min(_WATCH_S, max(0.0, due_s - now))
                await self._rest(soon_s)
        finally:
            closed.cancel()

    def _start(self, socket: StampedConnection, symbol: str) -> None:
        task = asyncio.create_task(self._ask_book(socket, symbol))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._bug = error
            self._wake.set()

    async def _ask_book(self, socket: StampedConnection, symbol: str) -> None:
        """Ask for the full book of an instrument."""
        self._asked_ns[symbol] = time.time_ns()
        if not self._by_rest:
            with suppress(ConnectionClosed):
                await self._send(socket, self._venue.resubscribe(symbol))
            return
        try:
            answer = await ask(self.spec.rest, self._venue.snapshot(symbol))
        except RestFailed as error:
            pause_s = self._plan.failed(symbol, time.monotonic(), error.wait_s)
            log.warning(
                "%s: no book of %s: %s; again in %.1f s",
                self.spec.connection, symbol, error, pause_s,
            )  # fmt: skip
            self._wake.set()
            return
        self._put(FrameKind.HTTP, answer.ts_recv, answer.url, answer.body)
        last_id = self._venue.snapshot_id(answer.body)
        now = time.monotonic()
        if last_id is None:
            self._plan.failed(symbol, now)
            log.warning("%s: %s is no book", self.spec.connection, answer.url)
        elif self._plan.answered(symbol, last_id, now):
            self.report.snapshots += 1
        self._wake.set()

    # -- what comes ---------------------------------------------------------------------------

    def _opened(self, ts_recv: int) -> None:
        self.report.connects += 1
        self._put(FrameKind.CONNECT, ts_recv, self.spec.shown)

    def _message(self, ts_recv: int, payload: bytes) -> None:
        self._put(FrameKind.DATA, ts_recv, None, payload)
        channel = self._venue.channel_of(payload)
        self.report.channels[channel] = self.report.channels.get(channel, 0) + 1
        if self._plan:
            self._look_for_books(payload)
        if self._venue.refusal(payload):
            self.report.refused += 1
            if self.report.refused <= _REFUSALS_TOLD * self.report.connects:
                text = payload[:300].decode("utf-8", "replace")
                log.warning("%s: the venue refuses: %s", self.spec.connection, text)

    def _look_for_books(self, payload: bytes) -> None:
        if self._by_rest:
            if self._plan.listens and (found := self._venue.first_id(payload)) is not None:
                self._plan.seen(*found)
                self._wake.set()
        elif symbol := self._venue.full_book(payload):
            self._plan.answered(symbol, None, time.monotonic())
            self.report.snapshots += 1

    def _put(self, kind: FrameKind, ts_recv: int, note: str | None, payload: bytes = b"") -> None:
        self.report.frames += 1
        self.report.bytes += len(payload)
        self._outbox.put(
            Received(self._venue.DECODER, self.spec.connection, kind, ts_recv, note, payload)
        )
