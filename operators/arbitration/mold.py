"""MoldUDP64 1.00: datagrams of one session to packets of lines, and requests for missing messages.

A datagram is a 20-byte header (session, 10 bytes; sequence number of its first message, 8; message
count, 2; all big endian) and its messages, each behind a 2-byte length. Count 0 is a heartbeat,
0xFFFF the end of the session; both name the sequence that comes next. A request is the header
alone, sent to the request server, which answers with datagrams of the same form.
"""

from __future__ import annotations

import struct
from typing import Final

import numpy as np
from numpy.typing import NDArray

from marketflow.operators.arbitration.kernels import framing
from marketflow.schemas.messages.lines import PACKET

_HEADER: Final = struct.Struct(">10sQH")
HEARTBEAT: Final = 0
END_OF_SESSION: Final = 0xFFFF
#: A request server answers with what fits into a datagram; nobody should ask for more.
MAX_REQUEST: Final = 0xFFFE

#: Words for BAD packets.
WORDS: Final = {
    framing.WHY_SHORT: "a datagram shorter than the 20 bytes of a MoldUDP64 header",
    framing.WHY_SESSION: "a datagram of another session",
    framing.WHY_SEQUENCE: "a sequence number that cannot be",
    framing.WHY_CUT: "its messages are longer than the datagram",
    framing.WHY_MORE: "bytes behind its last message",
    framing.WHY_TOO_LONG: "a datagram longer than the buffer for one",
}


class MoldDecoder:
    """Datagrams to PACKET rows. ``session`` "" is that of the first good datagram."""

    def __init__(self, session: str = "") -> None:
        text = session.encode("ascii")
        if len(text) > 10:
            raise ValueError(f"session {session!r} is longer than 10 characters")
        self._session = np.zeros(11, np.uint8)
        if text:
            self._session[:10] = np.frombuffer(text.rjust(10), np.uint8)
            self._session[10] = 1

    @property
    def session(self) -> bytes | None:
        """The 10 bytes of the session; None before the first datagram."""
        return self._session[:10].tobytes() if self._session[10] else None

    def apply(
        self,
        data: NDArray[np.uint8],
        begins: NDArray[np.int64],
        sizes: NDArray[np.int64],
        ts_recv: NDArray[np.int64],
        line: int,
    ) -> NDArray[np.void]:
        """Packets of the datagrams ``data[begins[i]:begins[i] + sizes[i]]`` of a line; a size below
        0 is that of a datagram of which the rest was cut off."""
        packets = np.zeros(len(begins), PACKET)
        packets["line"], packets["ts_recv"] = line, ts_recv
        framing.mold(data, begins, sizes, self._session, packets)
        return packets

    def request(self, first: int, last: int) -> bytes:
        """A request for messages that are missing: at most MAX_REQUEST of them."""
        session = self.session
        assert session is not None, "a hole is known only after a datagram"
        return _HEADER.pack(session, first, min(last + 1 - first, MAX_REQUEST))


def datagram(session: bytes, first: int, messages: list[bytes]) -> bytes:
    """A datagram of whole messages (bodies without their lengths), at least one."""
    assert 0 < len(messages) < END_OF_SESSION
    blocks = [len(message).to_bytes(2, "big") + message for message in messages]
    return _HEADER.pack(session, first, len(messages)) + b"".join(blocks)


def signal(session: bytes, next_sequence: int, count: int = HEARTBEAT) -> bytes:
    """A HEARTBEAT or END_OF_SESSION datagram."""
    return _HEADER.pack(session, next_sequence, count)


def parse_request(data: bytes) -> tuple[bytes, int, int] | None:
    """(session, first sequence, count) of a request; None where it is none."""
    if len(data) != _HEADER.size:
        return None
    session, first, count = _HEADER.unpack(data)
    return (session, first, count) if first and 0 < count < END_OF_SESSION else None
