"""State of the arbiter: its counters, the packets that wait, the lines, the frames it makes."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from marketflow.schemas.kernel import bare_kernel
from marketflow.schemas.messages.frames import FrameKind

#: Slots of the int64 state.
(
    EXPECTED,  # next sequence to go out; 0: not begun
    CLOCK,
    SINCE,  # when the hole before ``held`` was noticed; 0: there is none
    TOLD_TO,  # last sequence of the hole that a GAP told of; 0: none is told
    HIGHEST,  # the next sequence as the line farthest ahead says it
    HELD,
    USED,  # bytes of the arena
    OFFSET,  # bytes given out
    SESSION_END,  # the sequence after the last; 0: not known
    ENDED,
    RIVAL,  # where a jump that was not believed would go on
    MARKS,
    FRAMES,
    BYTES,
    MESSAGES,
    DUPLICATES,
    FILLED_MESSAGES,
    LOST_MESSAGES,
    HOLES,
    BAD_PACKETS,
) = range(20)
STATE_SIZE: Final = 20

#: Slots of the int64 configuration.
WAIT_NS, RECOVER_NS, MAX_BEHIND, LAG_NS, LAG_MESSAGES, SILENT_NS, MAX_JUMP, FIRST = range(8)
CONFIG_SIZE: Final = 8

HELD_PACKET: Final = np.dtype(
    [
        ("first", "<i8"),
        ("next", "<i8"),
        ("ts_recv", "<i8"),
        ("at", "<i8"),
        ("size", "<i8"),
        ("line", "<i8"),
    ]
)
#: A line. ``position``: the next sequence it will bring; ``status``: UP, LAGGING or DOWN.
LINE: Final = np.dtype(
    [
        ("position", "<i8"),
        ("last_ts", "<i8"),
        ("status", "<i8"),
        ("watched", "<i8"),
        ("packets", "<i8"),
        ("messages", "<i8"),  # of its messages, how many went out
        ("duplicates", "<i8"),
        ("bad", "<i8"),
    ]
)
UP, LAGGING, DOWN = range(3)
#: When ``HIGHEST`` came to be what it was: a ring, at most one entry in LAG_NS / MARKS_PER_LAG.
MARK: Final = np.dtype([("sequence", "<i8"), ("ts", "<i8")])
MARK_RING: Final = 256
MARKS_PER_LAG: Final = 32
#: A frame made: its bytes, and what it says (a hole, or what a line does).
OUT: Final = np.dtype(
    [
        ("ts_recv", "<i8"),
        ("begin", "<i8"),
        ("first", "<i8"),
        ("last", "<i8"),
        ("offset", "<i8"),
        ("line", "<i4"),
        ("kind", "i1"),
        ("what", "i1"),  # QualityKind of a LINE, ``why`` of a BROKEN
    ],
    align=True,
)

#: Why a well-formed packet is not believed (reasons of framing are below that).
WHY_JUMP: Final = 100
HOLE_BYTES: Final = 16
#: Frames that one packet can make at most, besides one per line.
FRAMES_EACH: Final = 6


class State(NamedTuple):
    """State of the arbiter. ``counts``: numbers by the places above."""

    counts: NDArray[np.int64]
    config: NDArray[np.int64]
    held: NDArray[Any]
    arena: NDArray[np.uint8]
    spare: NDArray[np.uint8]  # as long as the arena
    lines: NDArray[Any]
    marks: NDArray[Any]


class Output(NamedTuple):
    """Buffers for frames and their bytes."""

    frames: NDArray[Any]
    data: NDArray[np.uint8]


_LINE: Final = int(FrameKind.LINE)


@bare_kernel
def copy(
    to: NDArray[np.uint8], place: int, source: NDArray[np.uint8], begin: int, size: int
) -> None:
    """Bytes from one array into another."""
    for k in range(size):
        to[place + k] = source[begin + k]


@bare_kernel
def frame(state: State, output: Output, kind: int, ts: int, first: int, last: int) -> int:
    """Add a frame whose bytes begin here; returns its row."""
    counts = state.counts
    n = counts[FRAMES]
    row = output.frames[n]
    row.ts_recv = ts
    row.begin = counts[BYTES]
    row.first = first
    row.last = last
    row.offset = counts[OFFSET]
    row.line = -1
    row.kind = kind
    row.what = 0
    counts[FRAMES] = n + 1
    return int(n)


@bare_kernel
def hole(state: State, output: Output, kind: int, first: int, last: int) -> None:
    counts = state.counts
    frame(state, output, kind, counts[CLOCK], first, last)
    at = counts[BYTES]
    for k in range(8):
        output.data[at + k] = (first >> (8 * (7 - k))) & 255
        output.data[at + 8 + k] = (last >> (8 * (7 - k))) & 255
    counts[BYTES] = at + HOLE_BYTES


@bare_kernel
def event(state: State, output: Output, line: int, what: int, ts: int) -> None:
    """Add a LINE frame; ``last`` is how many messages the line is behind."""
    position = state.lines[line].position
    behind = max(state.counts[HIGHEST] - position, 0)
    n = frame(state, output, _LINE, ts, position, behind)
    output.frames[n].line = line
    output.frames[n].what = what
