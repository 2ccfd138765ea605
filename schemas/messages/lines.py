"""Redundant lines of one sequenced feed: packets to the arbiter, notes from it.

A sequenced feed numbers its messages 1, 2, 3 ... within a session. Its lines carry the same
numbers, so that of two copies of a message one is enough, and a message that is missing on one
line is taken from another.

What the arbiter has to say besides the messages travels in frames of its own
(schemas.messages.frames):

- GAP, FILLED, LOST: the payload is the hole, first and last missing sequence number, two
  big-endian unsigned 64-bit integers; ``note`` says it in words.
- LINE: the payload is a :class:`LineNote` as JSON; ``note`` says it in words.
- START, at the begin of every recording: the payload is the sequence of the message that comes
  next, 8 bytes big endian, and the name of the session. Of a recording that was begun again a
  reader knows from it what it has read already.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

import msgspec
import numpy as np

from marketflow.schemas.codes import QualityKind

#: In front of a line's name: the symbol of its ``quality_events``.
LINE_PREFIX: Final = "line:"
_HOLE: Final = struct.Struct(">QQ")


class PacketKind(IntEnum):
    """What a packet of a line is."""

    DATA = 0
    HEARTBEAT = 1  # nothing new: ``first`` is the sequence that comes next
    END = 2  # the session is over: ``first`` is one more than its last sequence
    BAD = 3  # no packet of this session: bytes kept as they came
    CLOCK = 4  # no packet at all: time has passed
    UP = 5  # the line's connection stands
    DOWN = 6  # the line's connection is lost


#: A packet of a line. ``data[begin:begin + size]`` are its messages, each behind a 2-byte
#: big-endian length (BAD: the whole packet); ``line`` counts from 0; ``ts_recv`` in ns UTC;
#: ``why`` is the reason of a BAD one.
PACKET: Final = np.dtype(
    [
        ("first", "<i8"),
        ("begin", "<i8"),
        ("size", "<i8"),
        ("ts_recv", "<i8"),
        ("count", "<i4"),
        ("line", "<i4"),
        ("kind", "i1"),
        ("why", "i1"),
    ],
    align=True,
)


class LineNote(msgspec.Struct, frozen=True, omit_defaults=True):
    """What happened to a line. ``event`` is a word of QualityKind (line_down, line_lagging,
    line_recovered); ``sequence``: the next one it will bring; ``behind``: messages the line is
    behind the others."""

    line: str
    event: str
    sequence: int | None = None
    behind: int | None = None

    @property
    def kind(self) -> QualityKind:
        """ValueError where the word is no event of a line."""
        kind = QualityKind.__members__.get(self.event.upper())
        if kind is None or not QualityKind.LINE_DOWN <= kind <= QualityKind.LINE_RECOVERED:
            raise ValueError(f"{self.event!r} is nothing that happens to a line")
        return kind


def to_hole(first: int, last: int) -> bytes:
    """Payload of a GAP, FILLED or LOST frame."""
    return _HOLE.pack(first, last)


def from_hole(payload: bytes) -> tuple[int, int]:
    """(first, last) missing sequence; ValueError where the payload is none."""
    if len(payload) != _HOLE.size:
        raise ValueError(f"a hole is {_HOLE.size} bytes, not {len(payload)}")
    first, last = _HOLE.unpack(payload)
    if not 0 < first <= last < 2**62:
        raise ValueError(f"{first} to {last} is no range of sequence numbers")
    return first, last


def to_start(first: int, session: bytes) -> bytes:
    """Payload of a START frame."""
    return first.to_bytes(8, "big") + session


def from_start(payload: bytes) -> tuple[int, bytes]:
    """(sequence of the next message, session); ValueError where the payload is none."""
    first = int.from_bytes(payload[:8], "big")
    if len(payload) < 8 or not 0 < first < 2**62:
        raise ValueError(f"{payload[:8].hex()} is no sequence number")
    return first, payload[8:]


_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(LineNote)


def to_line_note(note: LineNote) -> bytes:
    """Payload of a LINE frame."""
    return _encoder.encode(note)


def from_line_note(payload: bytes) -> LineNote:
    """The note of a LINE frame; msgspec.DecodeError or ValueError where it is none."""
    note = _decoder.decode(payload)
    _ = note.kind
    return note
