"""Building event rows message by message, with text numbers parsed exactly and in bulk.

Numbers are handed over as the text the venue sent (str or bytes, JSON string or JSON number);
they become (mantissa, scale) exactly. A number that cannot be taken makes a dead letter of that
level or trade alone; the rest of the message lives.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from marketflow.operators import ids
from marketflow.operators.dead_letters import DeadLetters
from marketflow.operators.events import EventBatch, EventKind, IdKind
from marketflow.operators.instruments import Registry, Seen
from marketflow.operators.kernels import numbers
from marketflow.operators.normalise.event_rows import NO_ID, NO_VALUE, EventRows, Value, Words
from marketflow.operators.normalise.passthrough import BadValueError, PassingRows
from marketflow.operators.numbers import Number, exact, reason_of
from marketflow.schemas.codes import (
    AggressorSide,
    DeadLetterReason,
    QualityKind,
    RowFlag,
    Side,
    TradeStatus,
)
from marketflow.schemas.units import NO_PRICE

__all__ = ["EventBuilder", "Number"]

_CHUNK: Final = 64
_LAST: Final = int(RowFlag.LAST)
_END: Final = int(EventKind.END)
_LEVEL: Final = int(EventKind.LEVEL)
_VENUE_BID: Final = int(EventKind.VENUE_BID)
_VENUE_ASK: Final = int(EventKind.VENUE_ASK)
_UINT: Final = int(IdKind.UINT)
_COLUMNS: Final = {"p": numbers.PRICE, "s": numbers.SIZE, "c": numbers.COUNT, "x": numbers.IGNORED}
_TRADE_KINDS: Final = {
    TradeStatus.NORMAL: int(EventKind.TRADE),
    TradeStatus.BUST: int(EventKind.BUST),
    TradeStatus.CORRECTION: int(EventKind.CORRECTION),
}


class _Mark(NamedTuple):
    """Counts at the start of a frame, to undo it."""

    rows: int
    dead_letters: int
    passing: dict[str, int]
    latest: int
    scanned: int


def _id(value: str | int | None) -> Words | None:
    """(hi, lo, kind) of an id; None where no exact form holds it."""
    if value is None:
        return NO_ID
    if isinstance(value, int):
        if 0 <= value < 2**64:
            return 0, value, _UINT
        value = str(value)
    return ids.parse(value)


def _text(number: Number | None) -> str:
    if isinstance(number, bytes | msgspec.Raw):
        return bytes(number).decode("latin-1")
    return str(number)


class EventBuilder:
    """Collects the rows of one frames batch. One instance per batch; see each method.

    The frame loop (:class:`operators.normalise.feed.JsonFeed`) calls ``start`` before every frame
    and ``undo`` after one that failed; a venue calls the rest. Rows of a group stand together:
    BEGIN, its levels or orders, END; all of them carry the group's ``sequence`` and SNAPSHOT flag.
    ``first`` and ``previous`` that a venue does not tell are NO_SEQUENCE in BEGIN's (signed) id
    words. A trade and the second row of a venue quote outside a group have the LAST flag.
    """

    def __init__(self, registry: Registry, latest: int = 0, room: int = 1024) -> None:
        self._registry = registry
        self._dead_letters = DeadLetters()
        self._passing = PassingRows()
        self._bad = np.empty((16, 3), np.int64)
        self._columns: dict[str, NDArray[np.int8]] = {}
        self._begin = -1
        self.out = EventRows(room)
        self._latest = latest
        self._scanned = 0  # rows whose ts_event is in _latest
        self._seen: Seen | None = None
        self.frame = 0
        self._ts_recv = 0
        self._offset = 0
        self._payload = b""
        self._mark = _Mark(0, 0, {}, latest, 0)

    # Called by the frame loop.

    def start(
        self, frame: int, ts_recv: int, offset: int, payload: bytes, seen: Seen | None
    ) -> None:
        """Frame ``frame`` of the batch comes now; ``seen`` collects the instruments whose books
        its connection carries (None where a lost connection would say nothing about them)."""
        self.frame = frame
        self._ts_recv = ts_recv
        self._offset = offset
        self._payload = payload
        self._seen = seen
        self.keep()

    def keep(self) -> None:
        """Keep the rows of the current frame so far, even if it is undone later."""
        self._mark = _Mark(
            self.out.count,
            len(self._dead_letters),
            self._passing.mark(),
            self._latest,
            self._scanned,
        )

    def undo(self) -> None:
        """Forget everything the current frame has built."""
        mark = self._mark
        self.out.count = mark.rows
        self._latest, self._scanned = mark.latest, mark.scanned
        self._dead_letters.cut(mark.dead_letters)
        self._passing.cut(mark.passing)
        self._begin = -1

    def wrote(self) -> bool:
        """Whether the current frame has made a row or a dead letter."""
        mark = self._mark
        return (
            self.out.count > mark.rows
            or len(self._dead_letters) > mark.dead_letters
            or self._passing.mark() != mark.passing
        )

    def check_closed(self) -> None:
        """Assert that the venue closed its groups within the frame."""
        assert self._begin < 0, "a message group was left open at the end of its frame"

    def latest(self) -> int:
        """Newest known event time of the rows so far, for dead letters without arrival times."""
        times = self.out.rows["ts_event"]
        last = self.out.count - 1
        if last >= self._scanned and times.item(last):
            self._latest = times.item(last)  # nearly always
            self._scanned = last + 1
            return self._latest
        for end in range(self.out.count, self._scanned, -_CHUNK):
            known = np.flatnonzero(times[max(end - _CHUNK, self._scanned) : end])
            if len(known):
                self._latest = int(times[max(end - _CHUNK, self._scanned) + known[-1]])
                break
        self._scanned = self.out.count
        return self._latest

    def finish(self, messages: int, offsets: NDArray[np.int64]) -> tuple[EventBatch, Any]:
        """The batch's events, and its dead letters or None."""
        batch = EventBatch(
            self.out.rows[: self.out.count],
            self._registry.instruments(),
            messages,
            self._passing.batches(),
            offsets,
        )
        dead: pa.RecordBatch | None = self._dead_letters.batch()
        return batch, dead

    def feed_row(self, kind: EventKind, instrument: int = -1) -> None:
        """A FEED_END or DISCONNECT row: arrival time only, a group of its own."""
        self.out.single(self.frame, self._ts_recv, int(kind), instrument, 0, None, flags=_LAST)

    def line(
        self, instrument: int, kind: QualityKind, sequence: int | None, behind: int | None
    ) -> None:
        """A LINE row, at the time of its arrival; the instrument is the line."""
        value = (NO_PRICE, 0, NO_PRICE if behind is None else behind, 0)
        self.out.single(
            self.frame, self._ts_recv, int(EventKind.LINE), instrument, self._ts_recv, sequence,
            value=value,
        )  # fmt: skip
        self.out.rows[self.out.count - 1]["extra"] = int(kind)

    # Called by venues.

    def instrument(self, symbol: str, venue: str | None = None) -> int:
        """Index of a symbol; the first use registers it with the venue's declared rules."""
        return self._registry.index(symbol, venue)

    def known(self, symbol: str, venue: str | None = None) -> int | None:
        """Index of a symbol that is registered already."""
        return self._registry.find(symbol, venue)

    def begin(
        self,
        instrument: int,
        ts_event: int,
        *,
        first: int | None = None,
        last: int | None = None,
        previous: int | None = None,
        snapshot: bool = False,
    ) -> None:
        """Open a message group: ``last`` is its update id, ``first`` its first id, ``previous``
        the id of the message before it, where the venue tells."""
        assert self._begin < 0, "a message group is open already"
        sequences = (first, last, previous)
        self._begin = self.out.count
        self.out.begin(self.frame, self._ts_recv, instrument, ts_event, sequences, snapshot)
        if self._seen is not None:
            self._seen.add(instrument)

    def levels(self, side: Side, raw: bytes | msgspec.Raw, columns: str = "ps") -> None:
        """L2 levels from the raw JSON text of an array of arrays, such as
        ``[["0.0010","2.5"],["0.0011","0"]]``. ``columns`` says what each inner element is:
        p price, s size, c order count, x ignored (short or long inner arrays: malformed)."""
        assert self._begin >= 0, "levels outside a message group"
        data = raw if isinstance(raw, bytes) else bytes(raw)
        self.out.reserve(data.count(b"["))
        kinds = self._columns.get(columns)
        if kinds is None:
            kinds = np.array([_COLUMNS[c] for c in columns], np.int8)
            self._columns[columns] = kinds
        text = np.frombuffer(data, np.uint8)
        place = self._begin, self.out.count, int(side)
        end, found = numbers.scan_levels(text, kinds, self.out.rows, *place, self._bad)
        if end < 0:
            raise msgspec.DecodeError(f"not an array of arrays of {len(columns)} values")
        if found > len(self._bad):
            self._bad = np.empty((found, 3), np.int64)
            numbers.scan_levels(text, kinds, self.out.rows, *place, self._bad)
        self.out.count = end
        if not found:
            return
        for low, high, reason in self._bad[:found].tolist():
            self.dead(DeadLetterReason(reason), f"{Side(side).name.lower()} level", data[low:high])

    def level(self, side: Side, price: Number, size: Number, count: int = 0) -> None:
        """One L2 level of the open group; size 0 removes it."""
        assert self._begin >= 0, "a level outside a message group"
        taken = self._price_and_size(price, size, "level")
        if taken is not None:
            self.out.member(self._begin, _LEVEL, int(side), taken, NO_ID, NO_ID, count)

    def end(self, checksum: int | None = None) -> None:
        """Close the group; a checksum is verified against the book by the engine."""
        assert self._begin >= 0, "no message group is open"
        value = (NO_PRICE, 0, checksum or 0, 0)
        self.out.member(self._begin, _END, 0, value, NO_ID, NO_ID, int(checksum is not None))
        self._begin = -1

    def trade(
        self,
        instrument: int,
        ts_event: int,
        price: Number,
        size: Number,
        aggressor: AggressorSide,
        trade_id: str | int | None,
        *,
        sequence: int | None = None,
        status: TradeStatus = TradeStatus.NORMAL,
    ) -> None:
        """A print. Its size is above zero, and its price too: no venue that is decoded message by
        message trades what may cost nothing or less."""
        taken = self._price_and_size(price, size, "trade")
        if taken is None:
            return
        if status != TradeStatus.BUST and not (taken[0] and taken[2]):
            reason = DeadLetterReason.BAD_SIZE if taken[0] else DeadLetterReason.BAD_PRICE
            self._dead_value(reason, "trade of size 0" if taken[0] else "trade", price, size)
            return
        identity = _id(trade_id)
        if identity is None:
            self.dead(DeadLetterReason.BAD_ID, f"trade id {trade_id!r} has no exact 128-bit form")
            return
        self.out.single(
            self.frame,
            self._ts_recv,
            _TRADE_KINDS[status],
            instrument,
            ts_event,
            sequence,
            side=int(aggressor),
            value=taken,
            trade=identity,
            flags=_LAST if self._begin < 0 else 0,
        )

    def venue_quote(
        self,
        instrument: int,
        ts_event: int,
        bid: tuple[Number, Number] | None,
        ask: tuple[Number, Number] | None,
        *,
        sequence: int | None = None,
    ) -> None:
        """The venue's own best (price, size) on each side; None where a side is empty.

        An empty side is a row with price NO_PRICE and size 0; 0 at the price 0 is one too. If a
        number of either side cannot be taken, the whole quote is a dead letter.
        """
        bids = NO_VALUE if bid is None else self._best(*bid, "venue bid")
        if bids is None:
            return
        asks = NO_VALUE if ask is None else self._best(*ask, "venue ask")
        if asks is None:
            return
        last = _LAST if self._begin < 0 else 0
        put, frame, ts_recv = self.out.single, self.frame, self._ts_recv
        put(frame, ts_recv, _VENUE_BID, instrument, ts_event, sequence, side=1, value=bids)
        put(
            frame,
            ts_recv,
            _VENUE_ASK,
            instrument,
            ts_event,
            sequence,
            side=2,
            value=asks,
            flags=last,
        )

    def order(
        self,
        kind: int,
        side: Side,
        order_id: str | int,
        price: Number | None = None,
        size: Number | None = None,
        *,
        trade_id: str | int | None = None,
    ) -> None:
        """One L3 row (an EventKind) of the open group; ``trade_id`` of a REPLACE is the new
        order's id. Without a price the row says NO_PRICE, without a size 0. Orders do rest at the
        price 0: Independent Reserve shows those of cheap coins in dear currencies so."""
        assert self._begin >= 0, "an order outside a message group"
        taken = self._price_and_size(price, size, "order")
        if taken is None:
            return
        order, trade = _id(order_id), _id(trade_id)
        if order is None or trade is None:
            bad = order_id if order is None else trade_id
            self.dead(DeadLetterReason.BAD_ID, f"id {bad!r} has no exact 128-bit form")
            return
        self.out.member(self._begin, int(kind), int(side), taken, order, trade, 0)

    def clear(self) -> None:
        """CLEAR inside the open group."""
        assert self._begin >= 0, "clear outside a message group"
        self.out.member(self._begin, int(EventKind.CLEAR), 0, NO_VALUE, NO_ID, NO_ID, 0)

    def row(self, table: str, instrument: int, ts_event: int, **values: object) -> None:
        """A row of a table that passes books by (funding, statistics, market_status,
        instruments, imbalances). Numbers as text, codes as enum members, absent = null."""
        try:
            self._passing.add(table, instrument, ts_event, self._ts_recv, values)
        except BadValueError as error:
            self.dead(error.reason, f"{table}: {error.detail}")

    def dead(self, reason: DeadLetterReason, detail: str, raw: bytes | None = None) -> None:
        """A dead letter for the current frame; ``raw`` defaults to its payload."""
        ts_recv = self._ts_recv or self.latest()
        self._dead_letters.add(
            ts_recv, self._offset, reason, detail, self._payload if raw is None else raw
        )

    def _price_and_size(self, price: Number | None, size: Number | None, what: str) -> Value | None:
        """(price, its scale, size, its scale), or None after a dead letter; nothing sent is
        NO_PRICE and 0."""
        mantissa, scale, code = (NO_PRICE, 0, 0) if price is None else exact(price)
        quantity = digits = 0
        if code != numbers.OK:
            reason = reason_of(code, DeadLetterReason.BAD_PRICE)
        else:
            if size is not None:
                quantity, digits, code = exact(size)
            if code != numbers.OK:
                reason = reason_of(code, DeadLetterReason.BAD_SIZE)
            elif quantity < 0:
                reason = DeadLetterReason.NEGATIVE_SIZE
            elif mantissa < 0 and price is not None:
                reason = DeadLetterReason.BAD_PRICE
            else:
                return mantissa, scale, quantity, digits
        self._dead_value(reason, what, price, size)
        return None

    def _best(self, price: Number, size: Number, what: str) -> Value | None:
        """Value of one side of a quote, or None after a dead letter."""
        taken = self._price_and_size(price, size, what)
        if taken is None or taken[0]:
            return taken
        if not taken[2]:
            return NO_VALUE
        self._dead_value(DeadLetterReason.BAD_PRICE, what, price, size)
        return None

    def _dead_value(
        self, reason: DeadLetterReason, what: str, price: Number | None, size: Number | None
    ) -> None:
        raw = f'["{_text(price)}","{_text(size)}"]'
        self.dead(reason, what, raw.encode("utf-8", "backslashreplace"))
