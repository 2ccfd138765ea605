"""MoldUDP64 packets and SoupBinTCP streams to packets of lines, in bulk."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from marketflow.operators.kernels.big_endian import be16, be64
from marketflow.schemas.kernel import kernel
from marketflow.schemas.messages.lines import PacketKind

MOLD_HEADER: Final = 20
_MOLD_END: Final = 0xFFFF
_MOST: Final = 2**62
_DATA, _HEARTBEAT = int(PacketKind.DATA), int(PacketKind.HEARTBEAT)
_END, _BAD = int(PacketKind.END), int(PacketKind.BAD)

#: Why a datagram is no packet of the session (words in operators.arbitration.mold).
WHY_SHORT, WHY_SESSION, WHY_SEQUENCE, WHY_CUT, WHY_MORE, WHY_TOO_LONG = range(1, 7)

_SESSION_BYTES: Final = 10


@kernel
def _block_fault(data: NDArray[np.uint8], begin: int, end: int, count: int) -> int:
    """Are there exactly ``count`` messages between? 0, or why not."""
    at: Any = begin
    for _ in range(count):
        if at + 2 > end:
            return WHY_CUT
        at += 2 + be16(data, at)
    if at == end:
        return 0
    return WHY_CUT if at > end else WHY_MORE


@kernel
def mold(
    data: NDArray[np.uint8],
    begins: NDArray[np.int64],
    sizes: NDArray[np.int64],
    session: NDArray[np.uint8],
    packets: NDArray[Any],
) -> None:
    """Datagrams ``data[begins[i]:begins[i] + sizes[i]]`` into ``packets`` (line and ts_recv are the
    caller's; a size below 0: a datagram that was cut to its length).

    ``session``: 10 bytes and whether they are known; the first good datagram makes them known.
    """
    for i in range(len(begins)):
        begin, size = begins[i], sizes[i]
        packet = packets[i]
        packet.first = 0
        packet.count = 0
        packet.begin = begin
        packet.size = abs(size)
        packet.kind = _BAD
        if size < 0:
            packet.why = WHY_TOO_LONG
            continue
        if size < MOLD_HEADER:
            packet.why = WHY_SHORT
            continue
        same = True
        for k in range(_SESSION_BYTES):
            same = same and data[begin + k] == session[k]
        if session[_SESSION_BYTES] != 0 and not same:
            packet.why = WHY_SESSION
            continue
        first, count = be64(data, begin + 10), be16(data, begin + 18)
        if first == np.uint64(0) or first >= np.uint64(_MOST):
            packet.why = WHY_SEQUENCE
            continue
        messages = 0 if count == _MOLD_END else count
        why = _block_fault(data, begin + MOLD_HEADER, begin + size, messages)
        if why != 0:
            packet.why = why
            continue
        if session[_SESSION_BYTES] == 0:
            for k in range(_SESSION_BYTES):
                session[k] = data[begin + k]
            session[_SESSION_BYTES] = 1
        packet.why = 0
        packet.first = np.int64(first)
        packet.count = messages
        packet.begin = begin + MOLD_HEADER
        packet.size = size - MOLD_HEADER
        packet.kind = _DATA
        if count == 0:
            packet.kind = _HEARTBEAT
        elif count == _MOLD_END:
            packet.kind = _END


#: What ended a run of sequenced SoupBinTCP packets.
SOUP_MORE, SOUP_OTHER, SOUP_FULL = range(3)
_SEQUENCED: Final = ord("S")


@kernel
def soup(
    data: NDArray[np.uint8], start: int, stop: int, out: NDArray[np.uint8], most: int
) -> tuple[int, int, int, int]:
    """Sequenced packets from ``data[start:stop]`` on, as many as stand one behind the other:
    (where the next packet begins, messages, bytes of ``out``, why it stopped).

    ``out`` gets each message behind its 2-byte length. SOUP_MORE: no whole packet is left;
    SOUP_OTHER: one of another type comes next (or a length of 0); SOUP_FULL: ``most`` messages, or
    as many bytes as ``out`` holds.
    """
    at: Any = start
    count, size = 0, 0
    while at + 2 <= stop:
        length = be16(data, at)
        if length == 0:
            return at, count, size, SOUP_OTHER
        if at + 2 + length > stop:
            break
        if data[at + 2] != _SEQUENCED:
            return at, count, size, SOUP_OTHER
        if count == most or size + length + 1 > len(out):
            return at, count, size, SOUP_FULL
        body = length - 1
        out[size] = body >> 8
        out[size + 1] = body & 255
        out[size + 2 : size + 2 + body] = data[at + 3 : at + 3 + body]
        size += 2 + body
        count += 1
        at += 2 + length
    return at, count, size, SOUP_MORE
