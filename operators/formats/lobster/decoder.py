"""LOBSTER (lobsterdata.com): limit order book data of one Nasdaq stock and day.

**Input.** A frame per message row ``time,type,order id,size,price,direction``, followed by its
orderbook row where there is a book file. Prices are in 1/10000 USD. Time is seconds since midnight
US/Eastern with up to 9 decimals, exact in ns.

**With a book file** the book is L2. Message *i* is first applied to the book known after row
*i - 1*, as its own LEVEL row (type 1 adds, 2, 3 and 4 take off). An N-level message file leaves out
what happens beyond the N best levels, so whatever row *i* of the book file shows beyond that step
(a level that enters or leaves at the bottom) follows as LEVEL rows with the SNAPSHOT flag, in the
same group. After every group the book is the book file's row. The sequence is the row number.

**Without one** the feed is L3, joined in the middle (SnapshotRule.PARTIAL): 1 adds, 2 reduces,
3 deletes, 4 executes; orders from before the first row are unknown and counted.

Types 4, 5 (hidden order) and 6 (cross) are trades; only 4 changes the book. The direction is the
resting order's, the aggressor is the other side. Type 7 is ``market_status`` by its price: -1
halted, 0 quoting, 1 open.

A row that cannot be read is a dead letter; the next book row repairs what it did to the book.
"""

from __future__ import annotations

from datetime import date
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from marketflow.operators.dead_letters import DeadLetters
from marketflow.operators.events import EVENT, BookType, EventBatch, SnapshotRule
from marketflow.operators.formats.itch.decoder import midnight_ns
from marketflow.operators.formats.lobster.kernels import lobster as kernels
from marketflow.operators.formats.lobster.kernels import text
from marketflow.operators.instruments import BookRules, Registry
from marketflow.operators.normalise.feed import Decoded, FrameColumns
from marketflow.operators.normalise.passthrough import PassingRows
from marketflow.schemas.codes import DeadLetterReason, MarketStatus
from marketflow.schemas.recovery import START_ANEW, StateError
from marketflow.schemas.shards import DEFAULT_SHARDS

SNAPSHOT_VERSION: Final = 1
_ROOM: Final = 4 * text.MAX_LEVELS + 8
_NOTES: Final = 256

_STATUSES: Final = {
    -1: (MarketStatus.HALTED, "trading halt"),
    0: (MarketStatus.QUOTING, "quoting resumes"),
    1: (MarketStatus.OPEN, "trading resumes"),
}
_REASONS: Final = {
    text.WHY_COLUMNS: (DeadLetterReason.MALFORMED, "not six columns of whole numbers after a time"),
    text.WHY_TIME: (DeadLetterReason.BAD_TIMESTAMP, "not seconds since midnight"),
    text.WHY_TYPE: (DeadLetterReason.UNKNOWN_MESSAGE, "type is none of 1 to 7"),
    text.WHY_SIZE: (
        DeadLetterReason.BAD_SIZE,
        "size is not above zero, or more than a column holds",
    ),
    text.WHY_PRICE: (DeadLetterReason.BAD_PRICE, "price is not above zero"),
    text.WHY_DIRECTION: (DeadLetterReason.BAD_SIDE, "direction is neither 1 nor -1"),
    text.WHY_ORDER: (DeadLetterReason.BAD_ID, "negative order id"),
    text.WHY_BOOK: (
        DeadLetterReason.MALFORMED,
        "book row is not levels above zero in order of price",
    ),
    text.WHY_LEVELS: (DeadLetterReason.MALFORMED, "book row has another number of levels"),
    text.WHY_CUT: (DeadLetterReason.TRUNCATED, "the feed ends inside a row"),
    text.WHY_UNPACKED: (DeadLetterReason.INVALID_ENCODING, "cannot be unpacked"),
}


class LobsterDecoder:
    """FeedDecoder of LOBSTER files.

    Parameters
    ----------
    symbol, date
        Stock and session day in New York; the rows carry neither.
    book
        Whether frames carry the book row.
    venue
        Market identifier of the rows.
    shards
        Shards of the feed.
    """

    def __init__(
        self,
        symbol: str,
        date: date,
        *,
        book: bool = True,
        venue: str = "XNAS",
        shards: int = DEFAULT_SHARDS,
    ) -> None:
        rules = (
            BookRules(BookType.L2)
            if book
            else BookRules(BookType.L3, snapshot_rule=SnapshotRule.PARTIAL)
        )
        self._registry = Registry(venue, lambda *_: rules, shards)
        self._instrument = self._registry.index(symbol)
        self._identity = (venue, symbol, date.isoformat(), book)
        self._book = book
        self._midnight = midnight_ns(date)
        self._prices = np.zeros((2, text.MAX_LEVELS + 1), np.int64)
        self._sizes = np.zeros((2, text.MAX_LEVELS + 1), np.int64)
        shape = self._prices.shape
        self._scratch = (
            np.zeros(shape, np.int64),
            np.zeros(shape, np.int64),
            np.zeros(kernels.SCRATCH, np.int64),
        )
        self._state = np.zeros(kernels.STATE_SIZE, np.int64)
        self._state[kernels.LAST_TS] = self._midnight

    def limit(self, instruments: int) -> None:
        """See FeedDecoder; there is but one."""

    def apply(self, frames: pa.RecordBatch) -> Decoded:
        """Events, market status and dead letters of a frames batch."""
        columns = FrameColumns(frames)
        state = self._state
        before = int(state[kernels.MESSAGES])
        state[kernels.FRAME] = 0
        parts: list[NDArray[np.void]] = []
        passing, dead_letters = PassingRows(), DeadLetters()
        # Most groups are a level or two; a group of a wide book's first row is the largest.
        room = 4 * len(columns) + _ROOM
        notes = np.zeros(_NOTES, kernels.NOTE)
        done = False
        while not done:
            state[kernels.ROWS] = state[kernels.NOTES] = 0
            rows = np.zeros(room, EVENT)
            done = kernels.decode(
                columns.text, columns.bounds, columns.kinds, columns.ts_recv, self._midnight,
                self._book, rows, notes, self._prices, self._sizes, *self._scratch, state,
            )  # fmt: skip
            parts.append(rows[: state[kernels.ROWS]])
            for note in notes[: state[kernels.NOTES]]:
                self._note(note, columns, passing, dead_letters)
        events = EventBatch(
            parts[0] if len(parts) == 1 else np.concatenate(parts),
            self._registry.instruments(),
            int(state[kernels.MESSAGES]) - before,
            passing.batches(),
            columns.offsets,
        )
        return Decoded(events, dead_letters.batch())

    def _note(
        self, note: np.void, columns: FrameColumns, passing: PassingRows, dead_letters: DeadLetters
    ) -> None:
        """A halt, or a dead letter."""
        index, why, price = int(note["frame"]), int(note["why"]), int(note["price"])
        frame = columns.frame(index)
        ts = int(note["ts"])
        if why == text.WHY_HALT and price in _STATUSES:
            status, reason = _STATUSES[price]
            values = {"status": status, "reason": reason, "sequence": int(note["sequence"])}
            passing.add("market_status", self._instrument, ts, frame.ts_recv, values)
            return
        unknown = (DeadLetterReason.UNKNOWN_MESSAGE, f"a halt message with price {price}")
        reject, detail = _REASONS.get(why, unknown)
        dead_letters.add(
            frame.ts_recv or ts,
            int(columns.offsets[index]),
            reject,
            frame.note or detail,
            frame.payload,
        )

    def snapshot(self, *, changes: bool = False) -> Any:
        """(version, identity, kernel state, known levels of both sides)."""
        count = max(int(self._state[kernels.BID_COUNT]), int(self._state[kernels.ASK_COUNT]))
        return (
            SNAPSHOT_VERSION,
            self._identity,
            tuple(self._state.tolist()),
            self._prices[:, :count].copy(),
            self._sizes[:, :count].copy(),
        )

    def restore(self, state: Any) -> None:
        """Take a snapshot back; StateError with the remedy if it is not of this feed."""
        if state[0] != SNAPSHOT_VERSION or state[1] != self._identity:
            raise StateError(
                f"recovery state is of LOBSTER {state[1]} in format {state[0]}, wanted "
                f"{self._identity} in format {SNAPSHOT_VERSION}: resume with the source and the "
                f"release that wrote it, or {START_ANEW}"
            )
        self._state[:] = state[2]
        count = state[3].shape[1]
        self._prices[:, :count], self._sizes[:, :count] = state[3], state[4]
