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
    Desk,
    Made,
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
    desk: Desk, made: Made, data: NDArray[np.uint8], begin: int, size: int, first: int, ts: int
) -> None:
    """Messages ``first`` .. of a packet that is due, without those that have gone out already."""
    state = desk.state
    at: Any = begin
    end = begin + size
    for _ in range(state[EXPECTED] - first):
        at += 2 + (np.int64(data[at]) << 8 | np.int64(data[at + 1]))
    frame(desk, made, _DATA, ts, state[EXPECTED], 0)
    to = state[BYTES]
    copy(made.data, to, data, at, end - at)
    state[BYTES] = to + end - at
    state[OFFSET] += end - at


@bare_kernel
def _advance(desk: Desk, line: int, after: int) -> None:
    """The messages before ``after`` have gone out; ``line`` brought them."""
    state = desk.state
    count = after - state[EXPECTED]
    state[MESSAGES] += count
    if 0 <= line < len(desk.lines):
        desk.lines[line].messages += count
    state[EXPECTED] = after
    state[SINCE] = 0


@bare_kernel
def _release(desk: Desk, made: Made) -> None:
    """Held packets that continue the stream go out; those it has passed go."""
    state, held = desk.state, desk.held
    gone = 0
    while gone < state[HELD] and held[gone].first <= state[EXPECTED]:
        packet = held[gone]
        if packet.next > state[EXPECTED]:
            _out(desk, made, desk.arena, packet.at, packet.size, packet.first, packet.ts_recv)
            _advance(desk, packet.line, packet.next)
        gone += 1
    if gone > 0:
        left = state[HELD] - gone
        for i in range(left):
            held[i] = held[i + gone]
        state[HELD] = left
        if left == 0:
            state[USED] = 0


@bare_kernel
def _hole_end(desk: Desk) -> int:
    """Last sequence of the hole at the front."""
    state = desk.state
    if state[HELD] > 0:
        return int(desk.held[0].first - 1)
    return int(state[HIGHEST] - 1)


@bare_kernel
def _is_filled(desk: Desk) -> bool:
    """Do held packets reach without a hole across the one that was told?"""
    state, held = desk.state, desk.held
    reached = state[EXPECTED]
    for i in range(state[HELD]):
        if held[i].first > reached or reached > state[TOLD_TO]:
            break
        reached = max(reached, held[i].next)
    return bool(reached > state[TOLD_TO])


@bare_kernel
def _lose(desk: Desk, made: Made) -> None:
    """Give up the hole at the front, or what is left of it."""
    state = desk.state
    if state[TOLD_TO] > 0 and state[HELD] > 0 and desk.held[0].first <= state[EXPECTED]:
        # Its beginning has come: that goes out first, and the rest is a hole of its own.
        hole(desk, made, _FILLED, state[EXPECTED], state[TOLD_TO])
        state[TOLD_TO] = 0
        _release(desk, made)
        if state[HELD] == 0 and state[HIGHEST] <= state[EXPECTED]:
            return
    last = _hole_end(desk)
    hole(desk, made, _LOST, state[EXPECTED], last)
    state[LOST_MESSAGES] += last + 1 - state[EXPECTED]
    state[HOLES] += 1
    state[EXPECTED] = last + 1
    state[TOLD_TO] = 0
    state[SINCE] = 0


@bare_kernel
def _notice(desk: Desk) -> None:
    """Since when is there a hole? Since the first packet beyond it came."""
    state = desk.state
    since: Any = state[CLOCK]
    for i in range(state[HELD]):
        since = min(since, desk.held[i].ts_recv)
    state[SINCE] = max(since, 1)


@bare_kernel
def _settle(desk: Desk, made: Made) -> None:
    """Let out what is due; tell of a hole, or give it up, when its time is over."""
    state, config = desk.state, desk.config
    while True:
        if state[TOLD_TO] > 0:
            if _is_filled(desk):
                state[FILLED_MESSAGES] += state[TOLD_TO] + 1 - state[EXPECTED]
                hole(desk, made, _FILLED, state[EXPECTED], state[TOLD_TO])
                state[TOLD_TO] = 0
                continue
        else:
            _release(desk, made)
        if state[HELD] == 0 and state[HIGHEST] <= state[EXPECTED]:
            state[SINCE] = 0
            return
        if state[SINCE] == 0:
            _notice(desk)
        waited = state[CLOCK] - state[SINCE]
        urgent = state[HIGHEST] - state[EXPECTED] > config[MAX_BEHIND]
        if state[TOLD_TO] == 0 and config[RECOVER_NS] > 0 and not urgent:
            if waited < config[WAIT_NS]:
                return
            state[TOLD_TO] = _hole_end(desk)
            hole(desk, made, _GAP, state[EXPECTED], state[TOLD_TO])
        elif waited < config[WAIT_NS] + config[RECOVER_NS] and not urgent:
            return
        else:
            _lose(desk, made)


@bare_kernel
def _compact(desk: Desk) -> None:
    """Close the holes of the arena."""
    state, held = desk.state, desk.held
    used = 0
    for i in range(state[HELD]):
        at, size = held[i].at, held[i].size
        copy(desk.spare, used, desk.arena, at, size)
        held[i].at = used
        used += size
    copy(desk.arena, 0, desk.spare, 0, used)
    state[USED] = used


@bare_kernel
def _hold(desk: Desk, data: NDArray[np.uint8], packet: Any) -> bool:
    """Keep a packet for later; False if a held one has all of it. There must be room."""
    state, held = desk.state, desk.held
    count = state[HELD]
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
    row.at = state[USED]
    row.size = packet.size
    row.line = packet.line
    at, size = state[USED], packet.size
    copy(desk.arena, at, data, packet.begin, size)
    state[USED] = at + size
    state[HELD] = count + 1
    return True


@bare_kernel
def _make_room(desk: Desk, made: Made, size: int) -> None:
    """Policy of a full buffer: the oldest hole is given up, until the packet fits."""
    state = desk.state
    while True:
        if state[HELD] < len(desk.held):
            if state[USED] + size > len(desk.arena):
                _compact(desk)
            if state[USED] + size <= len(desk.arena):
                return
        _lose(desk, made)
        _release(desk, made)


@bare_kernel
def _begin(desk: Desk, made: Made, first: int) -> None:
    """The first packet: the stream begins with it, or where it was told to."""
    state = desk.state
    if desk.config[FIRST] > 0:
        state[EXPECTED] = desk.config[FIRST]
        state[HIGHEST] = max(state[HIGHEST], desk.config[FIRST])
        frame(desk, made, _START, state[CLOCK], desk.config[FIRST], 0)
        return
    state[EXPECTED] = first
    state[HIGHEST] = first
    frame(desk, made, _START, state[CLOCK], first, 0)


@bare_kernel
def _take(desk: Desk, made: Made, data: NDArray[np.uint8], packet: Any) -> None:
    """A packet with messages."""
    state, lines = desk.state, desk.lines
    after = packet.first + packet.count
    watched = 0 <= packet.line < len(lines)
    if after <= state[EXPECTED]:
        state[DUPLICATES] += packet.count
        if watched:
            lines[packet.line].duplicates += packet.count
        return
    if state[TOLD_TO] == 0 and packet.first <= state[EXPECTED]:
        if state[HELD] > 0 or state[HIGHEST] > after:
            state[FILLED_MESSAGES] += after - state[EXPECTED]
        _out(desk, made, data, packet.begin, packet.size, packet.first, packet.ts_recv)
        _advance(desk, packet.line, after)
        return
    _make_room(desk, made, packet.size)
    if after > state[EXPECTED] and _hold(desk, data, packet):
        return
    state[DUPLICATES] += packet.count
    if watched:
        lines[packet.line].duplicates += packet.count


@bare_kernel
def _is_believed(desk: Desk, packet: Any) -> bool:
    """A jump far ahead is believed when a second packet says the same."""
    state = desk.state
    if state[EXPECTED] == 0 or packet.first <= state[HIGHEST] + desk.config[MAX_JUMP]:
        return True
    near = 0 <= packet.first - state[RIVAL] <= desk.config[MAX_JUMP] and state[RIVAL] > 0
    state[RIVAL] = packet.first
    return bool(near)


@bare_kernel
def _one(desk: Desk, made: Made, data: NDArray[np.uint8], packet: Any) -> None:
    """One packet."""
    state, lines, kind = desk.state, desk.lines, packet.kind
    if packet.line < len(lines):  # what was asked for comes when it comes
        pass_time(desk, made, packet.ts_recv)
    watched = 0 <= packet.line < len(lines) and lines[packet.line].watched != 0
    if kind <= _SESSION_END and not _is_believed(desk, packet):
        kind = _BAD
    if kind == _BAD:
        state[BAD_PACKETS] += 1
        if watched:
            lines[packet.line].bad += 1
        n = frame(desk, made, _BROKEN, packet.ts_recv, packet.first, 0)
        made.frames[n].line = packet.line
        made.frames[n].what = packet.why if packet.kind == _BAD else WHY_JUMP
        at = state[BYTES]
        copy(made.data, at, data, packet.begin, packet.size)
        state[BYTES] = at + packet.size
    elif kind == _CUT_OFF:
        if watched and lines[packet.line].status != DOWN:
            lines[packet.line].status = DOWN
            event(desk, made, packet.line, _LINE_DOWN, packet.ts_recv)
    elif kind <= _SESSION_END:
        if state[EXPECTED] == 0:
            _begin(desk, made, packet.first)
        if packet.first + packet.count > state[HIGHEST]:
            state[HIGHEST] = packet.first + packet.count
            mark(desk)
        if kind == _SESSION_END:
            state[SESSION_END] = packet.first
        elif packet.count > 0:
            _take(desk, made, data, packet)
    if watched and (kind <= _SESSION_END or kind == _CONNECTED):
        lines[packet.line].packets += 1
        lines[packet.line].last_ts = state[CLOCK]
        watch(desk, made, packet)
    if state[EXPECTED] > 0:
        _settle(desk, made)
    if 0 < state[SESSION_END] <= state[EXPECTED] and state[ENDED] == 0:
        state[ENDED] = 1
        frame(desk, made, _END, state[CLOCK], 0, 0)


@bare_kernel
def arbitrate(
    desk: Desk, made: Made, data: NDArray[np.uint8], packets: NDArray[Any], start: int
) -> int:
    """Packets from ``start`` on (schemas.messages.lines.PACKET), in order of arrival; returns the
    first that was not taken because ``made`` might be too small: take its frames, set FRAMES and
    BYTES to 0 and call again. After the END of the session nothing is taken any more.

    Room for a packet: FRAMES_EACH frames for it and every held one, one for each line; its
    bytes, the arena's, and 16 for each of those frames.
    """
    state = desk.state
    i = start
    while i < len(packets) and state[ENDED] == 0:
        room = FRAMES_EACH * (state[HELD] + 2) + 2 * len(desk.lines)
        size = state[USED] + packets[i].size + HOLE_BYTES * room
        if state[FRAMES] + room > len(made.frames) or state[BYTES] + size > len(made.data):
            return i
        _one(desk, made, data, packets[i])
        i += 1
    return len(packets)
