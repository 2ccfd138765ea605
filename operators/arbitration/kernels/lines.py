"""The lines of an arbiter: which is down, which lags, which is back."""

from __future__ import annotations

from typing import Any, Final

from marketflow.operators.arbitration.kernels.state import (
    CLOCK,
    DOWN,
    HIGHEST,
    LAG_MESSAGES,
    LAG_NS,
    LAGGING,
    MARK_RING,
    MARKS,
    MARKS_PER_LAG,
    SILENT_NS,
    UP,
    Desk,
    Made,
    event,
)
from marketflow.schemas.codes import QualityKind
from marketflow.schemas.kernel import bare_kernel
from marketflow.schemas.messages.lines import PacketKind

_SESSION_END: Final = int(PacketKind.END)
_LINE_DOWN, _LINE_LAGGING = int(QualityKind.LINE_DOWN), int(QualityKind.LINE_LAGGING)
_LINE_RECOVERED: Final = int(QualityKind.LINE_RECOVERED)


@bare_kernel
def mark(desk: Desk) -> None:
    """Remember when the feed was as far as it is; within an interval, when that began."""
    state, marks = desk.state, desk.marks
    put = state[MARKS]
    interval = desk.config[LAG_NS] // MARKS_PER_LAG
    if put > 0 and state[CLOCK] - marks[(put - 1) % MARK_RING].ts < interval:
        marks[(put - 1) % MARK_RING].sequence = state[HIGHEST]
        return
    row = marks[put % MARK_RING]
    row.sequence = state[HIGHEST]
    row.ts = state[CLOCK]
    state[MARKS] = put + 1


@bare_kernel
def _reached(desk: Desk, sequence: int) -> int:
    """When the feed was first seen at ``sequence`` or beyond; now, if that is too short ago."""
    state, marks = desk.state, desk.marks
    low, high = max(state[MARKS] - MARK_RING, 0), state[MARKS]
    while low < high:
        middle = (low + high) // 2
        if marks[middle % MARK_RING].sequence >= sequence:
            high = middle
        else:
            low = middle + 1
    if low == state[MARKS]:
        return int(state[CLOCK])
    return int(marks[low % MARK_RING].ts)


@bare_kernel
def watch(desk: Desk, made: Made, packet: Any) -> None:
    """What a packet says of its line: is it back, does it lag, has it caught up?"""
    state, config = desk.state, desk.config
    line = desk.lines[packet.line]
    advanced = False
    if packet.kind <= _SESSION_END:
        after = packet.first + packet.count
        advanced = after > line.position
        line.position = max(line.position, after)
    behind = max(state[HIGHEST] - line.position, 0)
    known = advanced or behind > 0
    lag = 0
    if packet.kind <= _SESSION_END and known:
        # What it brought, when did others? What it lacks, since when have they had it?
        lag = state[CLOCK] - _reached(desk, line.position + (0 if advanced else 1))
    if known and (lag > config[LAG_NS] or behind > config[LAG_MESSAGES]):
        if line.status != LAGGING:
            line.status = LAGGING
            event(desk, made, packet.line, _LINE_LAGGING, packet.ts_recv)
        return
    caught_up = known and lag <= config[LAG_NS] // 2 and behind <= config[LAG_MESSAGES] // 2
    if line.status == DOWN or (line.status == LAGGING and caught_up):
        line.status = UP
        event(desk, made, packet.line, _LINE_RECOVERED, packet.ts_recv)


@bare_kernel
def pass_time(desk: Desk, made: Made, ts: int) -> None:
    """The clock moves on: lines that have been silent for too long are down."""
    state, lines = desk.state, desk.lines
    begun = state[CLOCK] == 0
    state[CLOCK] = max(state[CLOCK], ts)
    for i in range(len(lines)):
        line = lines[i]
        if line.watched == 0:
            continue
        if begun:
            line.last_ts = state[CLOCK]
        elif line.status != DOWN and state[CLOCK] - line.last_ts > desk.config[SILENT_NS]:
            line.status = DOWN
            event(desk, made, i, _LINE_DOWN, state[CLOCK])
