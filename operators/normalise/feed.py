"""The protocol of feed decoders, and the base of venues that are decoded message by message."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any, Final, NamedTuple, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from marketflow.operators.events import BookType, EventBatch, EventKind
from marketflow.operators.instruments import BookRules, Registry, Seen
from marketflow.operators.normalise.event_builder import EventBuilder
from marketflow.operators.normalise.guard import verdict
from marketflow.operators.normalise.message_kinds import kind_of
from marketflow.operators.plain_state import plain_copy
from marketflow.schemas.codes import DeadLetterReason
from marketflow.schemas.messages.frames import FRAMES, FrameKind
from marketflow.schemas.messages.lines import LINE_PREFIX, from_line_note
from marketflow.schemas.recovery import OTHER_RELEASE, START_ANEW, StateError
from marketflow.schemas.shards import DEFAULT_SHARDS

__all__ = [
    "BookRules",
    "Decoded",
    "FeedDecoder",
    "Frame",
    "JsonFeed",
    "SelectiveDecoder",
    "VenueDecoder",
]

SNAPSHOT_VERSION: Final = 2
_DATA: Final = int(FrameKind.DATA)
_HTTP: Final = int(FrameKind.HTTP)
assert _DATA < _HTTP < min(k for k in FrameKind if k not in (FrameKind.DATA, FrameKind.HTTP))


class Decoded(NamedTuple):
    """Outcome of one frames batch: events, and dead letters (``operators.dead_letters.SCHEMA``:
    ``dead_letters`` without shard, row_sequence, feed and partition, which normalise adds)."""

    events: EventBatch
    dead: pa.RecordBatch | None


class FeedDecoder(Protocol):
    """Bytes of one feed to events. Pure: the same frames give the same rows however they are cut.

    ``snapshot`` returns plain data (operators.plain_state), format version first, which may leave
    out of the instruments those that an earlier one holds (``changes``). ``restore`` takes it, and
    the later ones in order behind it, or raises StateError with the remedy. ``limit`` says how many
    instruments the feed may name; a message that names one more is a TOO_MANY_INSTRUMENTS dead
    letter.
    """

    def apply(self, frames: pa.RecordBatch) -> Decoded: ...

    def limit(self, instruments: int) -> None: ...

    def snapshot(self, *, changes: bool = False) -> Any: ...

    def restore(self, state: Any) -> None: ...


@runtime_checkable
class SelectiveDecoder(FeedDecoder, Protocol):
    """A decoder that can leave out rows that nobody here reads."""

    def keep(self, keeps: Callable[[int], bool]) -> None:
        """From now on only rows of shards (within the feed) that are kept need come; all else,
        numbering above all, is as if they did."""
        ...


class Frame(NamedTuple):
    """One frame for message-wise venues; fields as in schemas.messages.frames (no note: "")."""

    kind: int
    ts_recv: int
    connection: str
    note: str
    payload: bytes


class VenueDecoder:
    """Base of message-wise venues: declarations as class attributes, handlers as methods.

    A subclass sets VENUE and RULES and overrides :meth:`message`; it keeps per-connection facts
    (channel ids ...) in attributes listed in STATE, which make up its snapshot. One that is no
    plain data is made such by the subclass's own :meth:`snapshot` and :meth:`restore`.
    """

    VENUE: str = ""
    #: How the venue's books are kept, unless :meth:`rules` says otherwise.
    RULES: BookRules = BookRules()
    #: Names of the attributes that make up the snapshot.
    STATE: tuple[str, ...] = ()

    def snapshot(self) -> dict[str, Any]:
        """The attributes of STATE by name: copies."""
        return {name: plain_copy(getattr(self, name)) for name in self.STATE}

    def restore(self, state: dict[str, Any]) -> None:
        """Take a snapshot back."""
        for name, value in state.items():
            setattr(self, name, plain_copy(value))

    def rules(self, venue: str, symbol: str) -> BookRules:
        """Rules of one instrument, asked for once: when it is registered."""
        return self.RULES

    def message(self, frame: Frame, out: EventBuilder) -> None:
        """Decode one frame of kind DATA, HTTP, CONNECT, DISCONNECT, SENT or HEADER into ``out``.

        A message that is not understood: ``out.dead(DeadLetterReason..., detail)``. An exception
        undoes every row of the frame and makes it a dead letter (operators.normalise.guard).
        """
        raise NotImplementedError


_INT8, _INT32, _INT64 = np.dtype(np.int8), np.dtype(np.int32), np.dtype(np.int64)
assert FRAMES.names == ["offset", "ts_recv", "kind", "connection", "note", "payload"]


def _values(column: pa.Array, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The values of a column without nulls, as they lie."""
    count = len(column)
    if count == 0:
        return np.zeros(0, dtype)
    first = column.offset * dtype.itemsize
    found = np.frombuffer(column.buffers()[1], dtype, count, first)
    found.flags.writeable = False
    return found


class FrameColumns:
    """The columns of a frames batch (schemas.messages.frames.FRAMES) as arrays, and single frames
    of it."""

    def __init__(self, frames: pa.RecordBatch) -> None:
        offsets, ts_recv, kinds, connections, _, payloads = frames.columns
        _, bounds, data = payloads.buffers()
        n = frames.num_rows
        # One type for the kernels, whoever made the batch: nothing here is written to.
        self.offsets: NDArray[np.int64] = _values(offsets, _INT64)
        self.ts_recv: NDArray[np.int64] = _values(ts_recv, _INT64)
        self.kinds: NDArray[np.int8] = _values(kinds, _INT8)
        #: ``text[bounds[i]:bounds[i + 1]]`` is the payload of row i.
        self.bounds: NDArray[np.int64] = np.frombuffer(bounds, _INT64)[
            payloads.offset : payloads.offset + n + 1
        ]
        self.bounds.flags.writeable = False
        empty = data is None or not data.size
        self.text: NDArray[np.uint8] = np.frombuffer(b"\0" if empty else data, np.uint8)
        self.text.flags.writeable = False
        self.connections: NDArray[np.int32] = _values(connections.indices, _INT32)
        self._dictionary = connections.dictionary
        self._frames = frames
        self._view = self.text.data

    def __len__(self) -> int:
        return len(self.offsets)

    @cached_property
    def names(self) -> list[str]:
        """Names of the connections, as ``connections`` counts them."""
        found: list[str] = self._dictionary.to_pylist()
        return found

    def frame(self, i: int) -> Frame:
        """Row i. Notes of DATA frames are left out: nobody needs them."""
        kind = self.kinds.item(i)
        note = "" if kind == _DATA else self._frames.column("note")[i].as_py() or ""
        payload = bytes(self._view[self.bounds.item(i) : self.bounds.item(i + 1)])
        name = self.names[self.connections.item(i)]
        return Frame(kind, self.ts_recv.item(i), name, note, payload)


class JsonFeed:
    """Runs a :class:`VenueDecoder` over frames batches: the message-wise FeedDecoder.

    ``messages`` counts DATA and HTTP frames, ``rowless`` those that made nothing. A CONNECT on a
    named connection that has carried books, like a DISCONNECT, makes a DISCONNECT row per
    instrument whose book it has carried.
    """

    def __init__(self, venue: VenueDecoder, shards: int = DEFAULT_SHARDS) -> None:
        self.venue = venue
        self.registry = Registry(venue.VENUE, self._rules, shards)
        self._latest = 0
        #: Messages of the current batch that made no row, by kind.
        self._rowless: Counter[str] = Counter()

    def _rules(self, venue: str, symbol: str) -> BookRules:
        if symbol.startswith(LINE_PREFIX):
            return BookRules(BookType.NONE)
        return self.venue.rules(venue, symbol)

    def limit(self, instruments: int) -> None:
        """See FeedDecoder."""
        self.registry.most = instruments

    def apply(self, frames: pa.RecordBatch) -> Decoded:
        """Decode a batch; see FeedDecoder."""
        columns = FrameColumns(frames)
        out = EventBuilder(self.registry, self._latest, self._room(columns))
        self._rowless = Counter()
        if len(columns):
            self._run(columns, out)
        kinds = columns.kinds
        messages = np.count_nonzero(kinds <= _HTTP)
        self._latest = out.latest()
        events, dead = out.finish(int(messages), columns.offsets)
        return Decoded(replace(events, rowless=self._rowless), dead)

    def _room(self, columns: FrameColumns) -> int:
        """Rows to make room for at first: typical messages are not longer."""
        size = int(columns.bounds[-1] - columns.bounds[0]) if len(columns) else 0
        return 64 + 2 * len(columns) + size // 32

    def _run(self, columns: FrameColumns, out: EventBuilder) -> None:
        for i in range(len(columns)):
            self.one(columns, i, out)

    def one(self, columns: FrameColumns, i: int, out: EventBuilder) -> None:
        """Decode row i of a batch into ``out``."""
        frame = columns.frame(i)
        seen: Seen | None = None
        if frame.kind == _DATA:
            seen = self.registry.seen.get(frame.connection)
            if seen is None:
                seen = self.registry.seen[frame.connection] = Seen()
        out.start(i, frame.ts_recv, columns.offsets.item(i), frame.payload, seen)
        try:
            if frame.kind <= _HTTP or self._control(frame, out):
                self.venue.message(frame, out)
                out.check_closed()
        except BaseException as error:
            reason, detail = verdict(error)
            out.undo()
            out.dead(reason, detail)
        if frame.kind <= _HTTP and not out.wrote():
            self._rowless[kind_of(frame.kind, frame.note, frame.payload)] += 1

    def _control(self, frame: Frame, out: EventBuilder) -> bool:
        """Handle a frame that is no message; True if the venue's decoder handles it, too."""
        match frame.kind:
            case FrameKind.END:
                out.feed_row(EventKind.FEED_END)
            case FrameKind.TRUNCATED:
                out.dead(DeadLetterReason.TRUNCATED, frame.note or "the feed ends inside a message")
            case FrameKind.BROKEN:
                out.dead(DeadLetterReason.INVALID_ENCODING, frame.note or "cannot be unpacked")
            case FrameKind.LINE:
                self._line(frame, out)
            case FrameKind.GAP | FrameKind.FILLED | FrameKind.LOST | FrameKind.START:
                # The venue's own sequence, checked book by book, says the same and more.
                out.dead(
                    DeadLetterReason.UNKNOWN_MESSAGE, "a hole of a feed that numbers no messages"
                )
            case FrameKind.CONNECT | FrameKind.DISCONNECT:
                self._lost(frame, out)
                out.keep()
                return True
            case _:
                return True
        return False

    def _line(self, frame: Frame, out: EventBuilder) -> None:
        """Emit the state of one of several redundant lines."""
        try:
            note = from_line_note(frame.payload)
        except ValueError as error:
            out.dead(DeadLetterReason.MALFORMED, f"a note on a line: {error}")
            return
        instrument = self.registry.index(LINE_PREFIX + note.line)
        out.line(instrument, note.kind, note.sequence, note.behind)

    def _lost(self, frame: Frame, out: EventBuilder) -> None:
        """Mark the books of a connection that is gone: they must resync."""
        if frame.kind == FrameKind.CONNECT and not frame.connection:
            return
        for instrument in sorted(self.registry.seen.pop(frame.connection, ())):
            out.feed_row(EventKind.DISCONNECT, instrument)

    def snapshot(self, *, changes: bool = False) -> Any:
        """(version, venue, registry, latest event time, the venue's STATE)."""
        return (
            SNAPSHOT_VERSION,
            self.venue.VENUE,
            self.registry.snapshot(changes=changes),
            self._latest,
            self.venue.snapshot(),
        )

    def restore(self, state: Any) -> None:
        """Take a snapshot back; ValueError with the remedy if it is not ours."""
        version, venue, registry, latest, attributes = state
        if version != SNAPSHOT_VERSION or venue != self.venue.VENUE:
            raise StateError(
                f"recovery state is of a {venue} feed in format {version}, wanted "
                f"{self.venue.VENUE} in format {SNAPSHOT_VERSION}: resume with the sources and the "
                f"release that wrote it, or {START_ANEW}"
            )
        if set(attributes) != set(self.venue.STATE):
            raise StateError(
                f"recovery state of {venue} holds {sorted(attributes)}, this release wants "
                f"{sorted(self.venue.STATE)}: {OTHER_RELEASE}"
            )
        self.registry.restore(registry)
        self._latest = latest
        self.venue.restore(attributes)
