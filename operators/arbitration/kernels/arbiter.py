"""Redundant lines to one stream: packets in order of arrival in, frames in order of sequence out.

First copy wins. A packet that comes too early waits (``held``, in order of sequence; its bytes in
an arena) for what is missing before it. Time is the largest arrival stamp so far. Nothing here
allocates, and every loop ends: the bounds of the caller's arrays say where.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from marketflow.operators.arbitration.kernels.lines import mark, pass_time, watch
from marketflow.operators.arbitration.kernels.state import (
    BAD_PACKETS,
    BYTES,
    CLOCK,
    DOWN,
    DUPLICATES,
    ENDED,
    EXPECTED,
    FILLED_MESSAGES,
    FIRST,
    FRAMES,
    FRAMES_EACH,
    HELD,
    HIGHEST,
    HOLE_BYTES,
    HOLES,
    LOST_MESSAGES,
    MAX_BEHIND,
    MAX_JUMP,
    MESSAGES,
    OFFSET,
    RECOVER_NS,
    RIVAL,
    SESSION_END,
    SINCE,
    TOLD_TO,
    USED,
    WAIT_NS,
    WHY_JUMP,
    Output,
    State,
    copy,
    event,
    frame,
    hole,
)
from marketflow.schemas.codes import QualityKind
from marketflow.schemas.kernel import bare_kernel
from marketflow.schemas.messages.frames import FrameKind
from marketflow.schemas.messages.lines import PacketKind

_DATA, _BROKEN, _END = int(FrameKind.DATA), int(FrameKind.BROKEN), int(FrameKind.END)
_GAP, _FILLED, _LOST = int(FrameKind.GAP), int(FrameKind.FILLED), int(FrameKind.LOST)
_SESSION_END, _BAD = int(PacketKind.END), int(PacketKind.BAD)
_CONNECTED, _CUT_OFF = int(PacketKind.UP), int(PacketKind.DOWN)
_START: Final = int(FrameKind.START)
_LINE_DOWN: Final = int(QualityKind.LINE_DOWN)


@bare_kernel
def _out(
    state: State,
    output: Output,
    data: NDArray[np.uint8],
    begin: int,
    size: int,
    first: int,
    ts: int,
) -> None:
    """Messages ``first`` .. of a packet that is due, without those that have gone out already."""
    counts = state.counts
    at: Any = begin
    end = begin + size
    for _ in range(counts[EXPECTED] - first):
        at += 2 + (np.int64(data[at]) << 8 | np.int64(data[at + 1]))
    frame(state, output, _DATA, ts, counts[EXPECTED], 0)
    to = counts[BYTES]
    copy(output.data, to, data, at, end - at)
    counts[BYTES] = to + end - at
    counts[OFFSET] += end - at


@bare_kernel
def _advance(state: State, line: int, after: int) -> None:
    """The messages before ``after`` have gone out; ``line`` brought them."""
    counts = state.counts
    count = after - counts[EXPECTED]
    counts[MESSAGES] += count
    if 0 <= line < len(state.lines):
        state.lines[line].messages += count
    counts[EXPECTED] = after
    counts[SINCE] = 0


@bare_kernel
def _release(state: State, output: Output) -> None:
    """Held packets that continue the stream go out; those it has passed go."""
    counts, held = state.counts, state.held
    gone = 0
    while gone < counts[HELD] and held[gone].first <= counts[EXPECTED]:
        packet = held[gone]
        if packet.next > counts[EXPECTED]:
            _out(state, output, state.arena, packet.at, packet.size, packet.first, packet.ts_recv)
            _advance(state, packet.line, packet.next)
        gone += 1
    if gone > 0:
        left = counts[HELD] - gone
        for i in range(left):
            held[i] = held[i + gone]
        counts[HELD] = left
        if left == 0:
            counts[USED] = 0


@bare_kernel
def _hole_end(state: State) -> int:
    """Last sequence of the hole at the front."""
    counts = state.counts
    if counts[HELD] > 0:
        return int(state.held[0].first - 1)
    return int(counts[HIGHEST] - 1)


@bare_kernel
def _is_filled(state: State) -> bool:
    """Do held packets reach without a hole across the one that was told?"""
    counts, held = state.counts, state.held
    reached = counts[EXPECTED]
    for i in range(counts[HELD]):
        if held[i].first > reached or reached > counts[TOLD_TO]:
            break
        reached = max(reached, held[i].next)
    return bool(reached > counts[TOLD_TO])


@bare_kernel
def _lose(state: State, output: Output) -> None:
    """Give up the hole at the front, or what is left of it."""
    counts = state.counts
    if counts[TOLD_TO] > 0 and counts[HELD] > 0 and state.held[0].first <= counts[EXPECTED]:
        # Its beginning has come: that goes out first, and the rest is a hole of its own.
        hole(state, output, _FILLED, counts[EXPECTED], counts[TOLD_TO])
        counts[TOLD_TO] = 0
        _release(state, output)
        if counts[HELD] == 0 and counts[HIGHEST] <= counts[EXPECTED]:
            return
    last = _hole_end(state)
    hole(state, output, _LOST, counts[EXPECTED], last)
    counts[LOST_MESSAGES] += last + 1 - counts[EXPECTED]
    counts[HOLES] += 1
    counts[EXPECTED] = last + 1
    counts[TOLD_TO] = 0
    counts[SINCE] = 0


@bare_kernel
def _notice(state: State) -> None:
    """Since when is there a hole? Since the first packet beyond it came."""
    counts = state.counts
    since: Any = counts[CLOCK]
    for i in range(counts[HELD]):
        since = min(since, state.held[i].ts_recv)
    counts[SINCE] = max(since, 1)


@bare_kernel
def _settle(state: State, output: Output) -> None:
    """Let out what is due; tell of a hole, or give it up, when its time is over."""
    counts, config = state.counts, state.config
    while True:
        if counts[TOLD_TO] > 0:
            if _is_filled(state):
                counts[FILLED_MESSAGES] += counts[TOLD_TO] + 1 - counts[EXPECTED]
                hole(state, output, _FILLED, counts[EXPECTED], counts[TOLD_TO])
                counts[TOLD_TO] = 0
                continue
        else:
            _release(state, output)
        if counts[HELD] == 0 and counts[HIGHEST] <= counts[EXPECTED]:
            counts[SINCE] = 0
            return
        if counts[SINCE] == 0:
            _notice(state)
        waited = counts[CLOCK] - counts[SINCE]
        urgent = counts[HIGHEST] - counts[EXPECTED] > config[MAX_BEHIND]
        if counts[TOLD_TO] == 0 and config[RECOVER_NS] > 0 and not urgent:
            if waited < config[WAIT_NS]:
                return
            counts[TOLD_TO] = _hole_end(state)
            hole(state, output, _GAP, counts[EXPECTED], counts[TOLD_TO])
        elif waited < config[WAIT_NS] + config[RECOVER_NS] and not urgent:
            return
        else:
            _lose(state, output)


@bare_kernel
def _compact(state: State) -> None:
    """Close the holes of the arena."""
    counts, held = state.counts, state.held
    used = 0
    for i in range(counts[HELD]):
        at, size = held[i].at, held[i].size
        copy(state.spare, used, state.arena, at, size)
        held[i].at = used
        used += size
    copy(state.arena, 0, state.spare, 0, used)
    counts[USED] = used


@bare_kernel
def _hold(state: State, data: NDArray[np.uint8], packet: Any) -> bool:
    """Keep a packet for later; False if a held one has all of it. There must be room."""
    counts, held = state.counts, state.held
    count = counts[HELD]
    after = packet.first + packet.count
    place = count
    while place > 0 and held[place - 1].first > packet.first:
        place -= 1
    if place > 0 and held[place - 1].next >= after:
        return False
    for i in range(count, place, -1):
        held[i] = held[i - 1]
    row = held[place]
    row.first = packet.first
    row.next = after
    row.ts_recv = packet.ts_recv
    row.at = counts[USED]
    row.size = packet.size
    row.line = packet.line
    at, size = counts[USED], packet.size
    copy(state.arena, at, data, packet.begin, size)
    counts[USED] = at + size
    counts[HELD] = count + 1
    return True


@bare_kernel
def _make_room(state: State, output: Output, size: int) -> None:
    """Policy of a full buffer: the oldest hole is given up, until the packet fits."""
    counts = state.counts
    while True:
        if counts[HELD] < len(state.held):
            if counts[USED] + size > len(state.arena):
                _compact(state)
            if counts[USED] + size <= len(state.arena):
                return
        _lose(state, output)
        _release(state, output)


@bare_kernel
def _begin(state: State, output: Output, first: int) -> None:
    """The first packet: the stream begins with it, or where it was told to."""
    counts = state.counts
    if state.config[FIRST] > 0:
        counts[EXPECTED] = state.config[FIRST]
        counts[HIGHEST] = max(counts[HIGHEST], state.config[FIRST])
        frame(state, output, _START, counts[CLOCK], state.config[FIRST], 0)
        return
    counts[EXPECTED] = first
    counts[HIGHEST] = first
    frame(state, output, _START, counts[CLOCK], first, 0)


@bare_kernel
def _take(state: State, output: Output, data: NDArray[np.uint8], packet: Any) -> None:
    """A packet with messages."""
    counts, lines = state.counts, state.lines
    after = packet.first + packet.count
    watched = 0 <= packet.line < len(lines)
    if after <= counts[EXPECTED]:
        counts[DUPLICATES] += packet.count
        if watched:
            lines[packet.line].duplicates += packet.count
        return
    if counts[TOLD_TO] == 0 and packet.first <= counts[EXPECTED]:
        if counts[HELD] > 0 or counts[HIGHEST] > after:
            counts[FILLED_MESSAGES] += after - counts[EXPECTED]
        _out(state, output, data, packet.begin, packet.size, packet.first, packet.ts_recv)
        _advance(state, packet.line, after)
        return
    _make_room(state, output, packet.size)
    if after > counts[EXPECTED] and _hold(state, data, packet):
        return
    counts[DUPLICATES] += packet.count
    if watched:
        lines[packet.line].duplicates += packet.count


@bare_kernel
def _is_believed(state: State, packet: Any) -> bool:
    """A jump far ahead is believed when a second packet says the same."""
    counts = state.counts
    if counts[EXPECTED] == 0 or packet.first <= counts[HIGHEST] + state.config[MAX_JUMP]:
        return True
    near = 0 <= packet.first - counts[RIVAL] <= state.config[MAX_JUMP] and counts[RIVAL] > 0
    counts[RIVAL] = packet.first
    return bool(near)


@bare_kernel
def _one(state: State, output: Output, data: NDArray[np.uint8], packet: Any) -> None:
    """One packet."""
    counts, lines, kind = state.counts, state.lines, packet.kind
    if packet.line < len(lines):  # what was asked for comes when it comes
        pass_time(state, output, packet.ts_recv)
    watched = 0 <= packet.line < len(lines) and lines[packet.line].watched != 0
    if kind <= _SESSION_END and not _is_believed(state, packet):
        kind = _BAD
    if kind == _BAD:
        counts[BAD_PACKETS] += 1
        if watched:
            lines[packet.line].bad += 1
        n = frame(state, output, _BROKEN, packet.ts_recv, packet.first, 0)
        output.frames[n].line = packet.line
        output.frames[n].what = packet.why if packet.kind == _BAD else WHY_JUMP
        at = counts[BYTES]
        copy(output.data, at, data, packet.begin, packet.size)
        counts[BYTES] = at + packet.size
    elif kind == _CUT_OFF:
        if watched and lines[packet.line].status != DOWN:
            lines[packet.line].status = DOWN
            event(state, output, packet.line, _LINE_DOWN, packet.ts_recv)
    elif kind <= _SESSION_END:
        if counts[EXPECTED] == 0:
            _begin(state, output, packet.first)
        if packet.first + packet.count > counts[HIGHEST]:
            counts[HIGHEST] = packet.first + packet.count
            mark(state)
        if kind == _SESSION_END:
            counts[SESSION_END] = packet.first
        elif packet.count > 0:
            _take(state, output, data, packet)
    if watched and (kind <= _SESSION_END or kind == _CONNECTED):
        lines[packet.line].packets += 1
        lines[packet.line].last_ts = counts[CLOCK]
        watch(state, output, packet)
    if counts[EXPECTED] > 0:
        _settle(state, output)
    if 0 < counts[SESSION_END] <= counts[EXPECTED] and counts[ENDED] == 0:
        counts[ENDED] = 1
        frame(state, output, _END, counts[CLOCK], 0, 0)


@bare_kernel
def arbitrate(
    state: State, output: Output, data: NDArray[np.uint8], packets: NDArray[Any], start: int
) -> int:
    """Packets from ``start`` on (schemas.messages.lines.PACKET), in order of arrival; returns the
    first that was not taken because ``output`` might be too small: take its frames, set FRAMES and
    BYTES to 0 and call again. After the END of the session nothing is taken any more.

    Room for a packet: FRAMES_EACH frames for it and every held one, one for each line; its
    bytes, the arena's, and 16 for each of those frames.
    """
    counts = state.counts
    i = start
    while i < len(packets) and counts[ENDED] == 0:
        room = FRAMES_EACH * (counts[HELD] + 2) + 2 * len(state.lines)
        size = counts[USED] + packets[i].size + HOLE_BYTES * room
        if counts[FRAMES] + room > len(output.frames) or counts[BYTES] + size > len(output.data):
            return i
        _one(state, output, data, packets[i])
        i += 1
    return len(packets)
