"""A TCP connection that is made again whenever it is lost, without ever waiting in a call.

The owner's loop asks :meth:`step` now and then, polls :meth:`fileno` and reads what has come. A
lost or refused connection is tried again after a pause (see schemas.backoff).
"""

from __future__ import annotations

import errno
import random
import select
import socket
from typing import Final

import numpy as np
from numpy.typing import NDArray

from marketflow.schemas.backoff import Backoff, Outage

_BACKOFF: Final = Backoff(first_s=0.25, longest_s=30.0)
#: A connection that stood so long begins the pauses anew.
STEADY_S: Final = 10.0
CONNECT_S: Final = 10.0
_RECEIVE_BUFFER: Final = 4 << 20


class TcpLine:
    """``room``: bytes it holds that nobody has taken yet; when they are full it reads no more, and
    TCP makes the server wait."""

    def __init__(self, host: str, port: int, room: int, draw: random.Random | None = None) -> None:
        self._address = (host, port)
        self._random = draw or random.Random()
        self._socket: socket.socket | None = None
        self._standing = False
        self._since_s = self._next_s = 0.0
        self._outage = Outage(_BACKOFF)
        self._unsent = b""
        #: What was received and not taken: ``data[:size]``.
        self.data: NDArray[np.uint8] = np.zeros(room, np.uint8)
        self.size = 0
        #: Why there is no connection.
        self.reason = "not connected yet"
        self.connects = 0

    def fileno(self) -> int:
        """-1 without a socket."""
        return -1 if self._socket is None else self._socket.fileno()

    @property
    def is_open(self) -> bool:
        return self._standing

    @property
    def events(self) -> int:
        """What to poll the socket for."""
        if not self._standing or self._unsent:
            return select.POLLOUT | select.POLLIN
        return select.POLLIN

    def step(self, now_s: float) -> bool:
        """Move on; True once per connection, when it has just been made."""
        if self._socket is None:
            if now_s >= self._next_s:
                self._connect(now_s)
            return False
        if self._standing:
            if now_s - self._since_s > STEADY_S:
                self._outage.ended(now_s)
            return False
        if not select.select([], [self._socket], [], 0)[1]:
            if now_s - self._since_s > CONNECT_S:
                self.drop(now_s, f"no answer within {CONNECT_S:.0f} seconds")
            return False
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self.drop(now_s, errno.errorcode.get(code, str(code)).lower())
            return False
        self._standing = True
        self._since_s = now_s
        self.connects += 1
        self.reason = ""
        return True

    def _connect(self, now_s: float) -> None:
        self._since_s = now_s
        try:
            family, kind, proto, _, address = socket.getaddrinfo(
                *self._address, type=socket.SOCK_STREAM
            )[0]
            self._socket = socket.socket(family, kind, proto)
            self._socket.setblocking(False)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.connect_ex(address)
        except OSError as error:
            self.drop(now_s, error.strerror or str(error))

    def drop(self, now_s: float, reason: str) -> None:
        """Close, and try again later; the rest of what came is forgotten."""
        self.reason = reason
        self._standing = False
        self._unsent = b""
        self.size = 0
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._next_s = now_s + self._outage.failed(now_s, reason, self._random.random()).pause_s

    def read(self) -> str | None:
        """Take in what has come; why the connection is over, or None."""
        while self._socket is not None and self._standing and self.size < len(self.data):
            try:
                got = self._socket.recv_into(self.data[self.size :].data)
            except BlockingIOError:
                return None
            except OSError as error:
                return error.strerror or str(error)
            if got == 0:
                return "closed by the server"
            self.size += got
        return None

    def consume(self, count: int) -> None:
        """Forget the first ``count`` bytes."""
        self.data[: self.size - count] = self.data[count : self.size].copy()
        self.size -= count

    def send(self, data: bytes) -> None:
        """Send, now or when there is room; what is lost with the connection is lost."""
        self._unsent += data
        try:
            if self._socket is not None and self._standing and self._unsent:
                sent = self._socket.send(self._unsent)
                self._unsent = self._unsent[sent:]
        except OSError:
            return  # the next read says why

    def close(self) -> None:
        """Close for good; safe to call twice."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._standing = False
