"""Nasdaq TotalView-ITCH 5.0 (manual of 2014 and later): the decoder of one feed.

**Input.** DATA frames whose payload is a block of whole messages, each behind a 2-byte big-endian
length, as in Nasdaq's files and MoldUDP64 packets. Prices are in 1/10000 USD.

**Time.** A message carries ns since midnight US/Eastern; the session date makes it UTC. ITCH has no
arrival time of its own: ``ts_recv`` is the frame's.

**Sequence.** Files carry no packet sequence; the 1-based count of messages in the feed is used,
which is the MoldUDP64 sequence where the feed starts with the session. Dead-lettered whole
messages count, cut or empty records do not. A feed recorded from redundant lines tells its holes
(:mod:`operators.formats.itch.notes`), and the count is the lines' own. After a hole that was lost,
the books of a feed that was whole till then are stale, those that are named only later too.

**Instruments.** One per stock locate, registered at the first message that needs it. Its symbol is
the one the locate was first named with (any message that carries the stock). A feed joined
mid-session may delete or execute orders of a locate that nobody has named yet: those rows belong to
the instrument ``#<locate>``, where every order is unknown and counted as such, since an order of a
locate cannot have been added without its symbol. Market-wide messages belong to ``*``.
A message that calls a locate by another symbol is a dead letter, the second one that says so
renames it; a directory message (R) renames at once: it starts a new session.

**Book.** A, F add; E, C execute (C at its own price, ``extra`` 1 = not printable); X reduces;
D deletes; U replaces; P is a print against a hidden order, Q a cross (``extra`` = its type's ASCII
code; no shares: no trade); B busts. Every message is a group of its own. The books start empty and
right if the feed's first message is the start of messages (S ``O``), else partial.

What is rarer goes to tables by :mod:`operators.formats.itch.tables`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, time
from typing import Any, Final
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from marketflow.operators.dead_letters import DeadLetters
from marketflow.operators.events import EVENT, BookType, EventBatch, EventKind, SnapshotRule
from marketflow.operators.formats.itch import notes
from marketflow.operators.formats.itch.kernels import layout
from marketflow.operators.formats.itch.kernels.itch import decode
from marketflow.operators.formats.itch.tables import tables_of
from marketflow.operators.instruments import BookRules, RefusedInstrumentError, Registry
from marketflow.operators.normalise.feed import Decoded
from marketflow.schemas.codes import DeadLetterReason
from marketflow.schemas.messages.frames import FrameKind
from marketflow.schemas.messages.lines import LINE_PREFIX
from marketflow.schemas.recovery import OTHER_RELEASE, START_ANEW, StateError
from marketflow.schemas.shards import DEFAULT_SHARDS
from marketflow.schemas.units import NS_PER_S

EASTERN: Final = ZoneInfo("America/New_York")
SNAPSHOT_VERSION: Final = 2
MARKET_SYMBOL: Final = "*"
_NOTES: Final = 16384
#: Rows to spare in a batch for what is no message of it.
_SPARE: Final = 256
#: Smallest message that makes a row: S, 12 bytes behind its length.
_LEAST_BYTES: Final = 14

_WORDS: Final = {
    layout.WHY_CUT: "bytes at the end that are no whole message",
    layout.WHY_EMPTY: "a message of length 0",
    layout.WHY_TYPE: "unknown message type {letter}",
    layout.WHY_LENGTH: "message type {letter} is {expected} bytes long, not {size}",
    layout.WHY_TIME: "timestamp is not within a day",
    layout.WHY_SIDE: "buy/sell indicator is neither B nor S",
    layout.WHY_SHARES: "zero shares",
    layout.WHY_PRICE: "a price of zero",
    layout.WHY_PRINTABLE: "printable is neither Y nor N",
    layout.WHY_RANGE: "more shares than decimal128(28, 12) holds",
    layout.WHY_STOCK: "stock is no symbol of printable ASCII padded with spaces",
    layout.WHY_LOCATE: "stock is not the one its locate was named with",
    layout.WHY_UNPACKED: "the source could not unpack these bytes",
    layout.WHY_FULL: "names more instruments than a feed may have (max_instruments)",
    layout.WHY_NOTE: "a recorder's note that cannot be read, or of another session, whose messages "
    "are left out: run every session with its own date",
}


def midnight_ns(day: date) -> int:
    """Midnight US/Eastern of ``day`` as ns since 1970-01-01 UTC."""
    return int(datetime.combine(day, time(), EASTERN).timestamp()) * NS_PER_S


class ItchDecoder:
    """FeedDecoder of TotalView-ITCH 5.0.

    Parameters
    ----------
    date
        The session's date in New York; messages do not carry it.
    venue
        Market identifier of the rows.
    snapshot_rule
        Overrides what the feed's first message says about how the books start.
    shards
        Shards of the feed: what an instrument's stable hash is taken modulo.
    may_cross
        Whether a crossed or locked book is no fault. Nasdaq matches from 4:00 on and shows no
        crossed book except while a stock is halted, hence False.
    """

    def __init__(
        self,
        date: date,
        venue: str = "XNAS",
        snapshot_rule: SnapshotRule | None = None,
        *,
        shards: int = DEFAULT_SHARDS,
        may_cross: bool = False,
    ) -> None:
        self._rule = snapshot_rule
        self._may_cross = may_cross
        self._registry = Registry(venue, self._rules, shards)
        self._midnight = midnight_ns(date)
        self._locates = np.zeros(layout.MARKET + 1, layout.LOCATE)
        self._locates["instrument"] = -1
        self._keeps: Callable[[int], bool] = lambda _: True
        self._kept = np.ones(layout.MARKET + 1, np.uint8)
        self._messages = 0
        self._last_ts = self._midnight
        self._closed = 0
        self._holes = notes.Holes()
        self._rare = np.zeros(_NOTES, layout.RARE)
        self._bad = np.zeros(_NOTES, layout.BAD)

    def limit(self, instruments: int) -> None:
        """See FeedDecoder."""
        self._registry.most = instruments

    def keep(self, keeps: Callable[[int], bool]) -> None:
        """Leave out order and trade rows of instruments of other shards: nobody here reads them.
        Everything else is as it would be."""
        self._keeps = keeps
        self._look_up_kept()

    def _look_up_kept(self) -> None:
        for slot in np.flatnonzero(self._locates["instrument"] >= 0).tolist():
            index = int(self._locates[slot]["instrument"])
            self._kept[slot] = self._keeps(self._registry.shard(index))

    def apply(self, frames: pa.RecordBatch) -> Decoded:
        """Events, tables and dead letters of a frames batch (schemas.messages.frames.FRAMES)."""
        data, bounds = _payload(frames.column("payload"))
        kinds = frames.column("kind").to_numpy()
        received = frames.column("ts_recv").to_numpy()
        offsets = frames.column("offset").to_numpy()
        most = int(bounds[-1] - bounds[0]) // _LEAST_BYTES + len(kinds) + 1
        out = _Rows(most)
        state = np.zeros(layout.STATE_SIZE, np.int64)
        state[layout.MESSAGES] = self._messages
        state[layout.LAST_TS] = self._last_ts
        state[layout.MIDNIGHT] = self._midnight
        state[layout.CLOSED] = self._closed
        state[layout.SKIP] = self._holes.skip
        rare: list[NDArray[np.void]] = []
        bad: list[NDArray[np.void]] = []
        skipped = 0
        while True:
            stop = decode(
                data, bounds, kinds, received, out.rows, self._rare, self._bad, self._locates,
                self._kept, state,
            )  # fmt: skip
            if stop == layout.NAME_WANTED:
                frame = int(state[layout.FRAME])
                out.add(state, self._name(data, state, frame, int(received[frame])))
                continue
            rare.append(self._rare[: state[layout.RARES]].copy())
            bad.append(self._bad[: state[layout.BADS]].copy())
            state[layout.RARES] = state[layout.BADS] = 0
            if stop == layout.DONE:
                break
            if stop == layout.NOTED:
                frame = int(state[layout.FRAME])
                begin, end = bounds[frame : frame + 2].tolist()
                note = notes.Note(
                    int(kinds[frame]), frame, int(received[frame]), data[begin:end].tobytes()
                )
                before = int(state[layout.MESSAGES])
                out.add(state, self._noted(note, state, begin))
                skipped += int(state[layout.MESSAGES]) - before
                state[layout.FRAME] += 1
        messages = int(state[layout.MESSAGES]) - self._messages - skipped
        self._messages = int(state[layout.MESSAGES])
        self._last_ts = int(state[layout.LAST_TS])
        self._closed = int(state[layout.CLOSED])
        self._holes = self._holes._replace(skip=int(state[layout.SKIP]))
        events = EventBatch(
            out.rows[: state[layout.ROWS]],
            self._registry.instruments(),
            messages,
            tables_of(data, received, np.concatenate(rare)),
            offsets,
        )
        said = frames.column("note")
        return Decoded(events, _dead(data, bounds, received, offsets, np.concatenate(bad), said))

    def _noted(self, note: notes.Note, state: NDArray[np.int64], at: int) -> list[Any]:
        """Rows of a frame that tells of a hole or a line."""
        try:
            if note.kind == FrameKind.LINE:
                return [notes.line_row(note, self._registry, int(state[layout.LAST_TS]))]
            # Not into the locates: the market's first message must still ask for its name.
            market = self._registry.index(MARKET_SYMBOL)
            rows, self._holes = notes.hole_rows(note, self._holes, market, state)
        except RefusedInstrumentError as error:
            full = error.reason == DeadLetterReason.TOO_MANY_INSTRUMENTS
            notes.dead_letter(
                state, self._bad, note, at, layout.WHY_FULL if full else layout.WHY_NOTE
            )
            return []
        except notes.UNREADABLE:
            notes.dead_letter(state, self._bad, note, at, layout.WHY_NOTE)
            return []
        if self._rule is None and self._holes.last:
            self._rule = SnapshotRule.PARTIAL
        return rows

    def _name(
        self, data: NDArray[np.uint8], state: NDArray[np.int64], frame: int, ts_recv: int
    ) -> list[Any]:
        """Give the locate the kernel asks about its instrument; the rows that come with it."""
        slot = int(state[layout.ASK_SLOT])
        word = int(state[layout.ASK_WORD]) % 2**64
        if self._rule is None:
            self._rule = _first_rule(data, state)
        if slot == layout.MARKET:
            symbol = MARKET_SYMBOL
        elif word:
            symbol = word.to_bytes(8, "big").decode("ascii").rstrip(" ")
        else:
            symbol = f"#{slot}"
        self._locates[slot]["word"] = word
        self._locates[slot]["rival"] = 0
        try:
            index = self._registry.index(symbol)
        except RefusedInstrumentError:
            self._locates[slot]["instrument"] = layout.REFUSED
            return []
        self._locates[slot]["instrument"] = index
        self._kept[slot] = self._keeps(self._registry.shard(index))
        if self._holes.last == 0 or slot == layout.MARKET or self._rule != SnapshotRule.NONE:
            return []
        # What is lost may have been its orders: nobody can say that the book is whole.
        note = notes.Note(FrameKind.LOST, frame, ts_recv, b"")
        ts, hole = int(state[layout.LAST_TS]), self._holes
        return [notes.hole_row(EventKind.LOST, index, note, ts, hole.first, hole.last)]

    def _rules(self, venue: str, symbol: str) -> BookRules:
        if symbol == MARKET_SYMBOL or symbol.startswith(LINE_PREFIX):
            return BookRules(BookType.NONE)
        assert self._rule is not None, "set before the first instrument is registered"
        return BookRules(BookType.L3, snapshot_rule=self._rule, may_cross=self._may_cross)

    def snapshot(self, *, changes: bool = False) -> Any:
        """(version, midnight, rule, messages, last time, closed, registry, locates in use,
        holes)."""
        slots = np.flatnonzero((self._locates["instrument"] != -1) | (self._locates["rival"] != 0))
        return (
            SNAPSHOT_VERSION,
            self._midnight,
            None if self._rule is None else int(self._rule),
            self._messages,
            self._last_ts,
            self._closed,
            self._registry.snapshot(changes=changes),
            slots.astype(np.int32),
            self._locates[slots],
            tuple(self._holes),
        )

    def restore(self, state: Any) -> None:
        """Continue from a snapshot; ValueError with the remedy if it is not this decoder's."""
        version, *values = state
        if version != SNAPSHOT_VERSION:
            raise StateError(
                f"recovery state of the ITCH decoder has format {version}, this release reads "
                f"{SNAPSHOT_VERSION}: {OTHER_RELEASE}"
            )
        midnight, rule, messages, last_ts, closed, registry, slots, locates, holes = values
        if midnight != self._midnight:
            raise StateError(
                "the recovery state is of another session date than the source's ?date=: give "
                f"the date of the first run, or {START_ANEW}"
            )
        self._registry.restore(registry)
        self._rule = None if rule is None else SnapshotRule(rule)
        self._messages, self._last_ts, self._closed = messages, last_ts, closed
        self._holes = notes.Holes(*holes)
        self._locates["word"] = self._locates["rival"] = 0
        self._locates["instrument"] = -1
        self._locates[slots] = locates
        self._look_up_kept()


class _Rows:
    """Room for the rows of a batch: what its messages can make at most, and some to spare."""

    def __init__(self, most: int) -> None:
        self.rows: NDArray[Any] = np.empty(most + _SPARE, EVENT)
        self._spare = _SPARE

    def add(self, state: NDArray[np.int64], rows: list[Any]) -> None:
        """Rows that no message makes, behind those so far."""
        while self._spare < len(rows):
            self.rows = np.concatenate([self.rows, np.empty(len(self.rows), EVENT)])
            self._spare += len(self.rows) // 2
        for row in rows:
            self.rows[int(state[layout.ROWS])] = row
            state[layout.ROWS] += 1
        self._spare -= len(rows)


def _first_rule(data: NDArray[np.uint8], state: NDArray[np.int64]) -> SnapshotRule:
    """How books start: from nothing if the message that registers the first instrument is the
    feed's first and the start of messages, else in the middle."""
    at = int(state[layout.AT]) + 2
    whole = state[layout.MESSAGES] == 0 and bytes(data[[at, at + 11]]) == b"SO"
    return SnapshotRule.NONE if whole else SnapshotRule.PARTIAL


def _payload(column: pa.LargeBinaryArray) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Bytes and bounds of a payload column, without copying, whatever slice it is; read-only, for
    the kernel is compiled for one kind of array."""
    _, offsets, values = column.buffers()
    bounds = np.zeros(1, np.int64)
    if len(column):
        bounds = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
    data = np.frombuffer(b"" if values is None else values, np.uint8)
    bounds.flags.writeable = data.flags.writeable = False
    return data, bounds


def _dead(
    data: NDArray[np.uint8],
    bounds: NDArray[np.int64],
    received: NDArray[np.int64],
    offsets: NDArray[np.int64],
    bad: NDArray[np.void],
    said: pa.StringArray,
) -> pa.RecordBatch | None:
    """Dead letters: the bytes with their length prefix, at their own offset in the feed."""
    dead_letters = DeadLetters()
    for at, ts, size, frame, reason, why in bad.tolist():
        raw = data[at : at + size].tobytes()
        letter = raw[2:3].decode("latin-1")
        detail = _WORDS[why].format(
            letter=repr(letter), expected=layout.LENGTHS.get(letter), size=size - 2
        )
        if why == layout.WHY_UNPACKED:
            detail = said[frame].as_py() or detail  # the source knows better
        dead_letters.add(
            int(received[frame]) or ts,
            int(offsets[frame]) + at - int(bounds[frame]),
            DeadLetterReason(reason),
            detail,
            raw,
        )
    return dead_letters.batch()
