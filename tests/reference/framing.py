"""Slow twins of the framings: MoldUDP64 datagrams and SoupBinTCP streams, one at a time."""

from __future__ import annotations

import struct

from marketflow.operators.arbitration.kernels import framing as f
from marketflow.schemas.messages.lines import PacketKind as K


def mold(data: bytes, session: bytes | None) -> tuple[int, int, list[bytes] | int]:
    """(PacketKind, first sequence, messages or why it is BAD) of a datagram."""
    if len(data) < 20:
        return K.BAD, 0, f.WHY_SHORT
    own, first, count = struct.unpack(">10sQH", data[:20])
    if session is not None and own != session:
        return K.BAD, 0, f.WHY_SESSION
    if not 0 < first < 2**62:
        return K.BAD, 0, f.WHY_SEQUENCE
    rest, messages = data[20:], []
    for _ in range(0 if count == 0xFFFF else count):
        if len(rest) < 2:
            return K.BAD, 0, f.WHY_CUT
        size = int.from_bytes(rest[:2], "big")
        if len(rest) < 2 + size:
            return K.BAD, 0, f.WHY_CUT
        messages.append(rest[2 : 2 + size])
        rest = rest[2 + size :]
    if rest:
        return K.BAD, 0, f.WHY_MORE
    if count in (0, 0xFFFF):
        return (K.END if count else K.HEARTBEAT), first, []
    return K.DATA, first, messages


def soup(data: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """(type, payload) of every whole packet, and the bytes that are left."""
    packets = []
    while len(data) >= 2:
        size = int.from_bytes(data[:2], "big")
        if size == 0 or len(data) < 2 + size:
            break
        packets.append((data[2:3], data[3 : 2 + size]))
        data = data[2 + size :]
    return packets, data
