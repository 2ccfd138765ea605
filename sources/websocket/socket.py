"""A WebSocket whose messages are stamped when their bytes arrive, and which can be told to wait.

The library hands messages over in a queue that a task reads when it is its turn; here they go to a
callback from within the event loop's read, so the time is that of the arrival.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus
from websockets.frames import DATA_OPCODES, Frame, Opcode
from websockets.http11 import Response

from marketflow.sources.websocket.rest import is_loopback

#: Bytes of one message; Coinbase's first books have several million.
MAX_MESSAGE_BYTES: Final = 64 << 20
_OPEN_S: Final = 10.0
_CLOSE_S: Final = 2.0

#: (ns UTC, the message as received)
OnMessage = Callable[[int, bytes], None]


class StampedConnection(ClientConnection):
    """``on_message`` is called in the order of arrival, ``on_open`` before the first message."""

    def __init__(
        self, *args: Any, on_open: Callable[[int], None], on_message: OnMessage, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._on_open = on_open
        self._on_message = on_message
        self._parts: list[bytes] = []
        self._stamp_ns = 0
        #: Seconds of the monotonic clock when bytes last came.
        self.heard_s = time.monotonic()

    def data_received(self, data: bytes) -> None:
        """Bytes from the transport."""
        self._stamp_ns = time.time_ns()
        self.heard_s = time.monotonic()
        super().data_received(data)

    def process_event(self, event: Any) -> None:
        """Messages go to the callback, everything else its usual way."""
        if isinstance(event, Frame) and event.opcode in DATA_OPCODES:
            self._data(event)
            return
        super().process_event(event)
        if isinstance(event, Response) and self.protocol.handshake_exc is None:
            self._on_open(self._stamp_ns)

    def _data(self, frame: Frame) -> None:
        payload = bytes(frame.data)
        if frame.opcode is not Opcode.CONT and frame.fin:
            self._on_message(self._stamp_ns, payload)
            return
        self._parts.append(payload)
        if frame.fin:
            whole, self._parts = b"".join(self._parts), []
            self._on_message(self._stamp_ns, whole)

    @property
    def unfinished(self) -> int:
        """Bytes of a message whose end has not come."""
        return sum(map(len, self._parts))

    def pause(self) -> None:
        """Stop reading: the venue will notice when the buffers in between are full."""
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if not self.transport.is_closing():
            self.transport.resume_reading()
        self.heard_s = time.monotonic()


class _SameHost(connect):
    """Follows redirects within the host that was named, and no other."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """The address to go on at, or why there is none."""
        found = super().process_redirect(exc)
        if isinstance(found, str) and urlsplit(found).netloc != urlsplit(self.uri).netloc:
            return exc
        return found


async def open_socket(
    url: str, on_open: Callable[[int], None], on_message: OnMessage
) -> StampedConnection:
    """A connection to ``url``; raises what :func:`why_not` can explain."""
    make: Any = partial(StampedConnection, on_open=on_open, on_message=on_message)
    connection = await _SameHost(
        url,
        create_connection=make,
        open_timeout=_OPEN_S,
        close_timeout=_CLOSE_S,
        ping_interval=None,  # the line watches over silence: a reader that was paused is not dead
        max_size=MAX_MESSAGE_BYTES,
        proxy=None if is_loopback(url) else True,
        user_agent_header="marketflow",
    )
    assert isinstance(connection, StampedConnection)
    return connection


def why_not(error: BaseException) -> str:
    """In a few words why a connection could not be opened."""
    if isinstance(error, InvalidStatus):
        response = error.response
        return f"the server answers {response.status_code} {response.reason_phrase}"
    if isinstance(error, TimeoutError):
        return f"no answer within {_OPEN_S:.0f} s"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def why_closed(connection: StampedConnection) -> str:
    """In a few words why a connection ended."""
    cut = f", inside a message of which {connection.unfinished} bytes had come"
    tail = cut if connection.unfinished else ""
    received = connection.protocol.close_rcvd
    if received is not None:
        said = f" {received.reason}" if received.reason else ""
        return f"closed by the venue: {received.code}{said}{tail}"
    if connection.protocol.close_sent is not None and connection.protocol.parser_exc is not None:
        return f"closed by us: {connection.protocol.parser_exc}{tail}"
    return f"the connection broke without a close{tail}"
