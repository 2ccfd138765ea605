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
    Output,
    State,
    event,
)
from marketflow.schemas.codes import QualityKind
from marketflow.schemas.kernel import bare_kernel
from marketflow.schemas.messages.lines import PacketKind

_SESSION_END: Final = int(PacketKind.END)
_LINE_DOWN, _LINE_LAGGING = int(QualityKind.LINE_DOWN), int(QualityKind.LINE_LAGGING)
_LINE_RECOVERED: Final = int(QualityKind.LINE_RECOVERED)


@bare_kernel
def mark(state: State) -> None:
    """Remember when the feed was as far as it is; within an interval, when that began."""
    counts, marks = state.counts, state.marks
    put = counts[MARKS]
    interval = state.config[LAG_NS] // MARKS_PER_LAG
    if put > 0 and counts[CLOCK] - marks[(put - 1) % MARK_RING].ts < interval:
        marks[(put - 1) % MARK_RING].sequence = counts[HIGHEST]
        return
    row = marks[put % MARK_RING]
    row.sequence = counts[HIGHEST]
    row.ts = counts[CLOCK]
    counts[MARKS] = put + 1


@bare_kernel
def _reached(state: State, sequence: int) -> int:
    """When the feed was first seen at ``sequence`` or beyond; now, if that is too short ago."""
    counts, marks = state.counts, state.marks
    low, high = max(counts[MARKS] - MARK_RING, 0), counts[MARKS]
    while low < high:
        middle = (low + high) // 2
        if marks[middle % MARK_RING].sequence >= sequence:
            high = middle
        else:
            low = middle + 1
    if low == counts[MARKS]:
        return int(counts[CLOCK])
    return int(marks[low % MARK_RING].ts)


@bare_kernel
def watch(state: State, output: Output, packet: Any) -> None:
    """What a packet says of its line: is it back, does it lag, has it caught up?"""
    counts, config = state.counts, state.config
    line = state.lines[packet.line]
    advanced = False
    if packet.kind <= _SESSION_END:
        after = packet.first + packet.count
        advanced = after > line.position
        line.position = max(line.position, after)
    behind = max(counts[HIGHEST] - line.position, 0)
    known = advanced or behind > 0
    lag = 0
    if packet.kind <= _SESSION_END and known:
        # What it brought, when did others? What it lacks, since when have they had it?
        lag = counts[CLOCK] - _reached(state, line.position + (0 if advanced else 1))
    if known and (lag > config[LAG_NS] or behind > config[LAG_MESSAGES]):
        if line.status != LAGGING:
            line.status = LAGGING
            event(state, output, packet.line, _LINE_LAGGING, packet.ts_recv)
        return
    caught_up = known and lag <= config[LAG_NS] // 2 and behind <= config[LAG_MESSAGES] // 2
    if line.status == DOWN or (line.status == LAGGING and caught_up):
        line.status = UP
        event(state, output, packet.line, _LINE_RECOVERED, packet.ts_recv)


@bare_kernel
def pass_time(state: State, output: Output, ts: int) -> None:
    """The clock moves on: lines that have been silent for too long are down."""
    counts, lines = state.counts, state.lines
    begun = counts[CLOCK] == 0
    counts[CLOCK] = max(counts[CLOCK], ts)
    for i in range(len(lines)):
        line = lines[i]
        if line.watched == 0:
            continue
        if begun:
            line.last_ts = counts[CLOCK]
        elif line.status != DOWN and counts[CLOCK] - line.last_ts > state.config[SILENT_NS]:
            line.status = DOWN
            event(state, output, i, _LINE_DOWN, counts[CLOCK])
