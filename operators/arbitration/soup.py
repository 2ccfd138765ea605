"""SoupBinTCP 3.00: one client's side of a session, without a socket.

Every packet is a 2-byte big-endian length (of what follows), a type, a payload. Client: ``L`` login
(name 6, password 10, session 10, sequence 20 bytes of text), ``R`` heartbeat, ``O`` logout.
Server: ``A`` accepted (session 10, sequence 20), ``J`` rejected (a reason), ``S`` sequenced,
``U`` unsequenced, ``H`` heartbeat, ``Z`` end of session, ``+`` debug. The numbers of sequenced
messages are not sent: the first after ``A`` has the number that ``A`` says. Either side sends a
heartbeat when it has sent nothing for a second, and takes 15 seconds of silence for a loss.

The bytes of a connection go in, packets of a line come out (schemas.messages.lines); what breaks
the protocol is a :class:`SoupError` that says what the peer did. After a loss a new connection asks
for the same session from the next sequence on, so nothing is missed and nothing comes twice.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from marketflow.operators.arbitration.kernels import framing
from marketflow.schemas.messages.lines import PACKET, PacketKind
from marketflow.schemas.units import NS_PER_S

HEARTBEAT_NS: Final = NS_PER_S
SILENCE_NS: Final = 15 * NS_PER_S
#: Messages of one packet of a line; its count is an int32, and it must fit the arbiter's memory.
_MOST: Final = 1 << 16
_REASONS: Final = {
    "A": "not authorized: check username and password",
    "S": "the session is not available: check session, or leave it out for the one at hand",
}
_MAX_PACKET: Final = 2 + 0xFFFF
_LEFT_OUT: Final = b"U+"


class SoupError(Exception):
    """The peer broke the protocol or refuses; ``final``: trying again cannot help."""

    def __init__(self, text: str, *, final: bool = False) -> None:
        super().__init__(text)
        self.final = final


class State(Enum):
    """State of a connection."""

    CLOSED = auto()
    LOGIN = auto()  # login sent
    OPEN = auto()  # accepted: messages come
    ENDED = auto()  # the session is over


class Received(NamedTuple):
    """``packets`` with their messages in the caller's ``out`` (one for a run of messages), and how
    many bytes of the input were taken."""

    packets: NDArray[np.void]
    taken: int


class SoupClient:
    """One line. ``sequence`` 1: from the session's start; 0: from the newest on."""

    def __init__(
        self,
        line: int,
        username: str = "",
        password: str = "",
        session: str = "",
        sequence: int = 1,
    ) -> None:
        for name, text, most in (
            ("username", username, 6), ("password", password, 10), ("session", session, 10),
        ):  # fmt: skip
            if len(text) > most or not text.isascii():
                raise ValueError(f"{name} is longer than {most} characters, or not ASCII")
        self.line = line
        self.state = State.CLOSED
        self.session = session
        self.next_sequence = sequence
        self._username = username
        self._password = password
        self._heard_ns = self._sent_ns = 0
        self._accepted = False
        self._failed: SoupError | None = None

    def connect(self, now_ns: int) -> bytes:
        """The login to send on a connection that was just made."""
        self.state = State.LOGIN
        self._failed = None
        self._heard_ns = self._sent_ns = now_ns
        text = (
            self._username.ljust(6) + self._password.ljust(10) + self.session.rjust(10)
            + str(self.next_sequence).rjust(20)
        )  # fmt: skip
        return packet(b"L", text.encode("ascii"))

    def lose(self, now_ns: int) -> NDArray[np.void]:
        """Close the state of a lost connection; returns the packet that says so."""
        self.state = State.CLOSED
        return self._signal(PacketKind.DOWN, now_ns)

    def idle(self, now_ns: int) -> bytes:
        """Bytes to send as time passes: a heartbeat or none. SoupError: the server is silent."""
        self._raise()
        if now_ns - self._heard_ns > SILENCE_NS:
            raise SoupError(f"the server was silent for {SILENCE_NS // NS_PER_S} seconds")
        if self.state is not State.OPEN or now_ns - self._sent_ns < HEARTBEAT_NS:
            return b""
        self._sent_ns = now_ns
        return packet(b"R")

    def receive(
        self, data: NDArray[np.uint8], size: int, out: NDArray[np.uint8], base: int, now_ns: int
    ) -> Received:
        """Take whole packets from ``data[:size]``, received ``now_ns``; their messages go to
        ``out``, which is at ``base`` of the arbiter's data. Bytes left over must come again, with
        more behind them."""
        self._raise()
        if size:
            self._heard_ns = now_ns
        made: list[NDArray[np.void]] = []
        at, used = 0, 0
        while at < size and self.state is not State.ENDED:
            if self.state is State.OPEN:
                at, count, wrote, why = framing.soup(data, at, size, out[used:], _MOST)
                if count:
                    made.append(self._run(base + used, wrote, count, now_ns))
                    used += wrote
                if why == framing.SOUP_MORE or (why == framing.SOUP_FULL and count == 0):
                    break
                if why == framing.SOUP_FULL:
                    continue
            try:
                end = self._whole(data, at, size)
                if end == 0:
                    break
                self._other(data[at + 2 : end].tobytes(), made, now_ns)
            except SoupError as error:
                if not made:
                    raise
                self._failed = error  # what came before it counts: raised at the next call
                break
            at = end
        packets = np.concatenate(made) if made else np.zeros(0, PACKET)
        return Received(packets, at)

    def _raise(self) -> None:
        if self._failed is not None:
            error, self._failed = self._failed, None
            raise error

    def _whole(self, data: NDArray[np.uint8], at: int, size: int) -> int:
        """End of the packet at ``at``; 0 if it is not all there yet."""
        if at + 2 > size:
            return 0
        length = int(data[at]) << 8 | int(data[at + 1])
        if length == 0:
            raise SoupError("the server sent a packet of length 0")
        end = at + 2 + length
        return end if end <= size else 0

    def _run(self, begin: int, size: int, count: int, now_ns: int) -> NDArray[np.void]:
        run = self._signal(PacketKind.DATA, now_ns)
        run["begin"], run["size"], run["count"] = begin, size, count
        self.next_sequence += count
        return run

    def _signal(self, kind: PacketKind, now_ns: int) -> NDArray[np.void]:
        made = np.zeros(1, PACKET)
        made["kind"], made["line"], made["ts_recv"] = kind, self.line, now_ns
        made["first"] = self.next_sequence
        return made

    def _other(self, body: bytes, made: list[NDArray[np.void]], now_ns: int) -> None:
        """A packet that is not sequenced data of an open session."""
        kind, payload = body[:1], body[1:]
        if kind in _LEFT_OUT:
            return
        if self.state is State.LOGIN:
            self._answer(kind, payload)
            made.append(self._signal(PacketKind.UP, now_ns))
            made.append(self._signal(PacketKind.HEARTBEAT, now_ns))
        elif kind == b"H":
            made.append(self._signal(PacketKind.HEARTBEAT, now_ns))
        elif kind == b"Z":
            self.state = State.ENDED
            made.append(self._signal(PacketKind.END, now_ns))
        else:
            raise SoupError(f"the server sent a packet of type {kind!r}, which it may not")

    def _answer(self, kind: bytes, payload: bytes) -> None:
        """The server's answer to the login."""
        if kind == b"J":
            reason = payload.decode("latin-1")
            text = _REASONS.get(reason, f"reason {reason!r}")
            raise SoupError(f"login rejected, {text}", final=not self._accepted)
        if kind != b"A" or len(payload) != 30:
            raise SoupError(f"the server answered the login with a packet of type {kind!r}")
        session, number = payload[:10].decode("latin-1").strip(), payload[10:].strip()
        if not number.isdigit():
            raise SoupError(f"the server accepted with sequence {number!r}, which is no number")
        if self._accepted and session != self.session:
            raise SoupError(f"the server is in session {session}, the recording in {self.session}")
        # 0 says that the session has not begun.
        self.session, self.next_sequence = session, max(int(number), 1)
        self._accepted = True
        self.state = State.OPEN


def packet(kind: bytes, payload: bytes = b"") -> bytes:
    """A SoupBinTCP packet."""
    return (len(payload) + 1).to_bytes(2, "big") + kind + payload


LOGOUT: Final = packet(b"O")
#: A connection's buffer must hold the longest packet.
LEAST_BUFFER: Final = 2 * _MAX_PACKET
