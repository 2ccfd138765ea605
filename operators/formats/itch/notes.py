"""Notes of a recorder of redundant ITCH lines between the messages: holes and states of lines.

Holes are of the whole feed: their row of instrument -1 reaches every book, one more is the
market's own, so that a hole is on record even before the first book. They carry the sequence
numbers of the lines and keep the count of messages in step with them. A line's rows belong to an
instrument of its own, ``line:<name>``, at the time of their arrival.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from marketflow.operators.events import EVENT, NO_SEQUENCE, EventKind
from marketflow.operators.formats.itch.kernels import layout
from marketflow.operators.instruments import RefusedInstrumentError, Registry
from marketflow.schemas.messages.frames import FrameKind
from marketflow.schemas.messages.lines import LINE_PREFIX, from_hole, from_line_note, from_start
from marketflow.schemas.units import NO_PRICE

#: More messages than there will ever be.
_ALL = 2**62
_KINDS = {
    FrameKind.GAP: EventKind.GAP,
    FrameKind.FILLED: EventKind.FILLED,
    FrameKind.LOST: EventKind.LOST,
}


class Holes(NamedTuple):
    """State of holes. ``waiting``: a GAP came and neither FILLED nor LOST since;
    ``first`` and ``last`` of the newest hole that was lost, 0 where there is none; ``session`` of
    the recording, ``skip``: messages to come that have been read already."""

    waiting: bool = False
    first: int = 0
    last: int = 0
    session: bytes | None = None
    skip: int = 0


class Note(NamedTuple):
    """A frame of kind GAP, FILLED, LOST, LINE or START at its place in the batch."""

    kind: int
    frame: int
    ts_recv: int
    payload: bytes


def event_row(kind: EventKind, instrument: int, frame: int, ts: int, ts_recv: int) -> Any:
    """An EVENT row that concerns no order, to be completed."""
    row = np.zeros(1, EVENT)[0]
    row["kind"], row["instrument"], row["frame"] = kind, instrument, frame
    row["ts_event"], row["ts_recv"] = ts, ts_recv
    row["sequence"], row["price"] = NO_SEQUENCE, NO_PRICE
    return row


def hole_row(kind: EventKind, instrument: int, note: Note, ts: int, first: int, last: int) -> Any:
    """A GAP, FILLED or LOST row."""
    row = event_row(kind, instrument, note.frame, ts, note.ts_recv)
    row["order_lo"], row["sequence"] = first, last
    return row


def line_row(note: Note, registry: Registry, ts: int) -> Any:
    """The LINE row of a note; one of UNREADABLE where it cannot be read."""
    line = from_line_note(note.payload)
    instrument = registry.index(LINE_PREFIX + line.line)
    row = event_row(EventKind.LINE, instrument, note.frame, note.ts_recv or ts, note.ts_recv)
    row["extra"] = line.kind
    row["size"] = NO_PRICE if line.behind is None else line.behind
    if line.sequence is not None:
        row["sequence"] = line.sequence
    return row


def hole_rows(
    note: Note, holes: Holes, market: int, state: NDArray[np.int64]
) -> tuple[list[Any], Holes]:
    """Rows of a GAP, FILLED, LOST or START note, and the state of holes after it. LOST and START
    move the count of messages. ValueError where the note cannot be read."""
    ts, done = int(state[layout.LAST_TS]), int(state[layout.MESSAGES])
    kind = _KINDS.get(FrameKind(note.kind), EventKind.LOST)
    if note.kind == FrameKind.START:
        following, session = from_start(note.payload)
        if holes.session not in (None, session):
            state[layout.SKIP] = _ALL
            raise ValueError("another session: its messages belong to a date of their own")
        holes = holes._replace(session=session)
        state[layout.SKIP] = max(done + 1 - following, 0)
        if following <= done + 1:
            # The messages awaited when the recording broke off come now.
            rows = [hole_row(EventKind.FILLED, -1, note, ts, following, done)]
            return (rows if holes.waiting else []), holes._replace(waiting=False)
        first, last = done + 1, following - 1
    else:
        first, last = from_hole(note.payload)
        if kind is not EventKind.FILLED and last <= done:
            # Missing in a part that has been read from an earlier recording.
            lost = last + 1 - first if kind is EventKind.LOST else 0
            state[layout.SKIP] = max(int(state[layout.SKIP]) - lost, 0)
            return [], holes
    if kind is EventKind.FILLED:
        rows = [hole_row(kind, -1, note, ts, first, done)]
        return (rows if holes.waiting else []), holes._replace(waiting=False)
    if kind is EventKind.LOST:
        first = max(first, done + 1)
        state[layout.MESSAGES], state[layout.SKIP] = last, 0
    rows = [hole_row(kind, -1, note, ts, first, last)]
    if not holes.waiting:
        rows.insert(0, hole_row(kind, market, note, ts, first, last))
    if kind is EventKind.GAP:
        return rows, holes._replace(waiting=True)
    return rows, holes._replace(waiting=False, first=first, last=last)


def dead_letter(
    state: NDArray[np.int64], bad: NDArray[np.void], note: Note, at: int, why: int
) -> None:
    """Add the dead letter of a note that cannot be read."""
    row = bad[int(state[layout.BADS])]
    row["at"], row["size"], row["frame"] = at, len(note.payload), note.frame
    row["ts"] = state[layout.LAST_TS]
    row["reason"], row["why"] = layout.REASON[why], why
    state[layout.BADS] += 1


UNREADABLE = (ValueError, OverflowError, RecursionError, RefusedInstrumentError)
