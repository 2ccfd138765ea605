"""The fake venue itself: one recording, any number of clients, REST and WebSocket on one port.

There is one course of events, as at a real venue: all clients get the same messages, each only the
topics it subscribed to, and one who comes late gets the books as they are now. It starts when
``clients`` of them have subscribed (to ``topics`` each; 0: to something, and nothing new has been
asked for in ``settle_s``); it stands still while nobody is there.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response

from marketflow.schemas.messages.frames import FrameKind
from tests.support.fake_venue.books import BinanceModel, Model, Topic
from tests.support.fake_venue.faults import Faults
from tests.support.fake_venue.models import MODELS
from tests.support.fake_venue.recording import Event, Recording

_GARBAGE: Final = "\u0000{]not a message"
_TAKES_IN_S: Final = 0.3
_SYMBOL: Final = re.compile(r"[?&]symbol=([^&#]+)")


class _Client:
    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket
        self.topics: set[Topic] = set()
        self.sent = 0
        self.broken = False


class FakeVenue:
    """``start`` it in a thread of its own; ``finished`` is set when everything has been sent."""

    def __init__(
        self,
        venue: str,
        recording: Recording,
        faults: Faults | None = None,
        *,
        speed: float = 0.0,
        clients: int = 1,
        topics: int = 0,
        settle_s: float = 0.5,
    ) -> None:
        self.model: Model = MODELS[venue]()
        self.recording = recording
        self.faults = faults or Faults()
        self.finished = threading.Event()
        #: Book updates that were due so far; full books sent; REST requests by path.
        self.updates = self.books = 0
        self.requests: dict[str, int] = {}
        self.accepted = 0
        self._speed = speed
        self._clients_wanted, self._topics_wanted, self._settle_s = clients, topics, settle_s
        self._clients: list[_Client] = []
        self._change = asyncio.Event()
        #: Symbols whose snapshot was asked for, and has been read.
        self._asked: set[str] = set()
        self._fetched: set[str] = set()
        self._answers: set[asyncio.Future[None]] = set()
        self._hold = asyncio.Event()
        self._hold.set()
        self._silent = False
        #: Updates that still pass while nobody need be there.
        self._missing = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._ready = threading.Event()
        self.port = 0

    # -- life ---------------------------------------------------------------------------------

    def start(self, port: int = 0) -> FakeVenue:
        """Serve on loopback in a thread; returns when the port is known."""
        self.port = port
        self._thread = threading.Thread(target=lambda: asyncio.run(self.main()), daemon=True)
        self._thread.start()
        self._ready.wait()
        return self

    def wait_ready(self) -> None:
        """Until the port is known."""
        self._ready.wait()

    def stop(self) -> None:
        """Close everything."""
        assert self._loop is not None and self._stop is not None
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def call(self, function: Callable[[], None]) -> None:
        """Run something in the venue's loop."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(function)

    def hold(self, on: bool) -> None:
        """Stand still, or go on."""
        self.call(self._hold.clear if on else self._hold.set)

    def break_connections(self) -> None:
        """Break all connections without a word."""
        self.call(self._break)

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def rest(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def main(self) -> None:
        """Serve until stopped."""
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with serve(
            self._client, "127.0.0.1", self.port, process_request=self._request,
            compression=None, ping_interval=None, max_size=None,
        ) as server:  # fmt: skip
            self.port = next(iter(server.sockets)).getsockname()[1]
            self._ready.set()
            course = asyncio.create_task(self._course())
            stopped = asyncio.create_task(self._stop.wait())
            await asyncio.wait({course, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if course.done():
                course.result()
                await stopped
            course.cancel()
            self._break()

    # -- clients ------------------------------------------------------------------------------

    async def _client(self, socket: ServerConnection) -> None:
        client = _Client(socket)
        self._clients.append(client)
        self.accepted += 1
        try:
            async for text in socket:
                assert isinstance(text, str)
                await self._asked_for(client, text)
        except ConnectionClosed:
            pass
        finally:
            if client in self._clients:
                self._clients.remove(client)
            self._change.set()

    async def _asked_for(self, client: _Client, text: str) -> None:
        verb, topics = self.model.wanted(text)
        if verb == "ping":
            if not self._silent and (pong := self.model.pong(text)):
                await client.socket.send(pong)
        elif verb == "unsubscribe":
            client.topics.difference_update(topics)
        else:
            for topic in topics:
                if topic not in client.topics and self.model.book_topic.get(topic[1]) == topic:
                    await self._send(client, self.model.full_book(topic[1]), is_book=True)
                client.topics.add(topic)
            self._change.set()

    def _break(self) -> None:
        for client in self._clients:
            client.broken = True
            client.socket.transport.abort()
        self._clients.clear()

    async def _send(self, client: _Client, text: str, is_book: bool = False) -> None:
        if client.broken:
            return
        text = self.model.stamp(text, client.sent)
        client.sent += 1
        with suppress(ConnectionClosed):
            if is_book and self._next_book_is_cut():
                # The first half of a message, and then the line is dead.
                half = text.encode()[: len(text) // 2]
                frame = Frame(Opcode.TEXT, half, fin=False)
                client.socket.transport.write(frame.serialize(mask=False))
                client.broken = True
                await _arrived(client)
                client.socket.transport.abort()
                if client in self._clients:
                    self._clients.remove(client)
                return
            await client.socket.send(text)

    def _next_book_is_cut(self) -> bool:
        self.books += 1
        return self.books in self.faults.cut_books

    # -- the course of events -----------------------------------------------------------------

    async def _course(self) -> None:
        await self._everybody_there()
        await asyncio.sleep(self.faults.delay_s)
        before = 0
        for event in self.recording.events:
            if self._speed and before:
                await asyncio.sleep(max(0.0, (event.ts - before) / 1e9 / self._speed))
            before = event.ts
            await self._hold.wait()
            while not self._missing and not any(client.topics for client in self._clients):
                await self._changed()
            if event.kind == FrameKind.HTTP:
                await self._recorded_answer(event)
            else:
                await self._message(event)
        await self._all_arrived()
        self.finished.set()

    async def _all_arrived(self) -> None:
        for client in list(self._clients):
            if not client.broken:
                await _arrived(client)

    async def _changed(self) -> None:
        self._change.clear()
        await self._change.wait()

    async def _everybody_there(self) -> None:
        """Until enough clients have subscribed to enough, and ask for nothing more."""
        least = max(1, self._topics_wanted)
        while sum(len(c.topics) >= least for c in self._clients) < self._clients_wanted:
            await self._changed()
        while not self._topics_wanted:
            self._change.clear()
            try:
                await asyncio.wait_for(self._change.wait(), self._settle_s)
            except TimeoutError:
                return

    async def _recorded_answer(self, event: Event) -> None:
        """A snapshot was fetched here: wait until it is asked for, so that it is of this time."""
        match = _SYMBOL.search(event.url)
        if match is None or not isinstance(self.model, BinanceModel):
            return
        symbol = match[1]
        wanted = any(topic[1] == symbol for client in self._clients for topic in client.topics)
        if wanted:
            while symbol not in self._fetched:
                await self._changed()
            # What follows passes in a moment here, and the thread that asked may be slower.
            await asyncio.sleep(_TAKES_IN_S)
        self.model.recorded_book(symbol, event.text)

    async def _message(self, event: Event) -> None:
        topic = self.model.topic(event.text)
        text = self.model.outgoing(event.text, topic)
        if topic is None:
            for client in list(self._clients):
                await self._send(client, text)
            return
        kind = self.model.apply(event.text, topic)
        faults, number = self.faults, 0
        if kind == "update" and self._missing:
            self._missing -= 1
        elif kind == "update" and any(topic in client.topics for client in self._clients):
            self.updates += 1
            number = self.updates
        if number and faults.happens("drop", number):
            for client in self._clients:
                client.sent += 1
            return
        if self._silent:
            return
        for client in list(self._clients):
            if topic not in client.topics:
                continue
            await self._send(client, text, is_book=kind == "book")
            if number and faults.happens("duplicate", number):
                client.sent -= 1
                await self._send(client, text)
            if number and faults.happens("garbage", number):
                with suppress(ConnectionClosed):
                    await client.socket.send(_GARBAGE)
        await self._afterwards(number)

    async def _afterwards(self, number: int) -> None:
        if not number:
            return
        if self.faults.happens("silent", number):
            self._silent = True
        if self.faults.happens("disconnect", number):
            await self._all_arrived()
            self._break()
        elif self.faults.happens("close", number):
            for client in list(self._clients):
                client.broken = True
                await client.socket.close(1012, "service restart")
        else:
            return
        self._missing = self.faults.missed.get(number, 0)

    # -- REST ---------------------------------------------------------------------------------

    async def _request(self, asker: ServerConnection, request: Request) -> Response | None:
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return None
        path = urlsplit(request.path).path
        self.requests[path] = self.requests.get(path, 0) + 1
        if not path.endswith("/depth"):
            body = self.recording.answer(request.path)
            return _answer(HTTPStatus.OK if body else HTTPStatus.NOT_FOUND, body or "")
        symbol = parse_qs(urlsplit(request.path).query)["symbol"][0]
        first = symbol not in self._asked
        self._asked.add(symbol)
        answered = asyncio.ensure_future(self._answered(asker, symbol))
        self._answers.add(answered)
        answered.add_done_callback(self._answers.discard)
        body = self.recording.answer(request.path)
        assert isinstance(self.model, BinanceModel)
        if self.model.knows(symbol) and not first:
            body = self.model.full_book(symbol)
        if body is None:
            return _answer(HTTPStatus.BAD_REQUEST, '{"code":-1121,"msg":"Invalid"}')
        return _answer(HTTPStatus.OK, body, cut=self._next_book_is_cut())

    async def _answered(self, asker: ServerConnection, symbol: str) -> None:
        """The asker closes the connection when it has read the answer."""
        await asker.wait_closed()
        self._fetched.add(symbol)
        self._change.set()


async def _arrived(client: _Client) -> None:
    """Until the client has read what was sent to it: a reset would throw it away."""
    with suppress(ConnectionClosed):
        await (await client.socket.ping())


def _answer(status: HTTPStatus, body: str, cut: bool = False) -> Response:
    """An answer; ``cut``: it ends after half of what it said it would be."""
    data = body.encode()
    headers = Headers(
        [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(data))),
            ("Connection", "close"),
        ]
    )
    return Response(status, status.phrase, headers, data[: len(data) // 2] if cut else data)
