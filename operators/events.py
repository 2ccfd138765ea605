"""The one internal stream: what every feed becomes between normalise and the books.

An :class:`EventBatch` is a run of :data:`EVENT` rows (numpy, 96 bytes each) in feed order, plus
the instruments they refer to. Rows are a tiny instruction stream for the book engine:

- L3 feeds: ADD, MODIFY, REDUCE, DELETE, REPLACE, EXECUTE on orders; L2 feeds: LEVEL; both: CLEAR.
- TRADE, BUST, CORRECTION: prints without effect on the book. VENUE_BID/VENUE_ASK: the venue's own
  best prices, always one right after the other in that order.
- A message that must be checked before it is applied is bracketed by BEGIN and END. BEGIN carries
  the sequence bounds, END the checksum. Rows outside brackets form groups that end at a row with
  ``flags & RowFlag.LAST``. Nothing is shown to anybody before the end of a group.
- CLOCK moves event time without touching a book; FEED_END is the last row of a feed.

Row order is feed order; where a batch is cut means nothing, not even inside a group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from marketflow.operators.names import Names, NameTable


class EventKind(IntEnum):
    """What a row does. Values are part of the snapshot format: append only."""

    ADD = 1  # L3: new order; price, size, side, order id
    MODIFY = 2  # L3: order gets this price and size; priority lost if price changes or size grows
    REDUCE = 3  # L3: take ``size`` off the order; keeps priority; at zero the order goes
    DELETE = 4  # L3: the whole order goes
    REPLACE = 5  # L3: order_* goes, trade_* (the new order's id) joins at the tail, same side
    EXECUTE = 6  # L3: ``size`` of the resting order trades (price NO_PRICE: at its own price)
    CLEAR = 7  # every order and level of the instrument (of ``side`` if given) goes
    LEVEL = 8  # L2: the level at ``price`` now has ``size`` (0: gone); ``count`` orders
    ORDER_SIZE = 9  # L3: the order's size is now ``size``; keeps priority if it shrinks; 0: gone
    TRADE = 16  # a print; ``side`` is the AggressorSide
    BUST = 17  # trade_* is void
    CORRECTION = 18  # trade_* now has this price and size
    VENUE_BID = 24
    VENUE_ASK = 25
    BEGIN = 32  # sequence = last id of the group, order_lo = its first id, order_hi = previous id
    END = 33  # size = checksum where ``count`` = 1
    CLOCK = 40  # ts_event only; instrument -1 = all
    FEED_END = 41
    DISCONNECT = 42  # the connection was lost: books of its instruments must resync
    # Of a sequenced feed; order_lo and sequence are the first and last message of the hole.
    GAP = 43  # messages are missing; no book row follows before FILLED or LOST
    FILLED = 44  # they have come and follow; sequence = the last message before them
    LOST = 45  # they will never come
    LINE = 46  # ``extra`` is the QualityKind of what a line does, ``size`` its messages behind


class IdKind(IntEnum):
    """How an id's 128 bits read back as text, exactly as sent (see operators.ids)."""

    NONE = 0  # null
    UINT = 1  # decimal digits without leading zeros, below 2**128
    UUID = 2  # 8-4-4-4-12 lower-case hex
    HEX = 3  # exactly 24 lower-case hex digits
    ASCII = 4  # up to 15 ASCII bytes, left-aligned, then zero bytes, length in the last byte


#: 96 bytes. price/size mean price * 10**-price_scale, size * 10**-size_scale, as sent.
#: ``frame`` is the row of the frames batch it came from. ``count``: orders at an L2 level, or as
#: EventKind says. ts 0 = not known; sequence NO_SEQUENCE = none.
EVENT: Final = np.dtype(
    [
        ("ts_event", "<i8"),
        ("ts_recv", "<i8"),
        ("sequence", "<i8"),
        ("order_hi", "<u8"),
        ("order_lo", "<u8"),
        ("trade_hi", "<u8"),
        ("trade_lo", "<u8"),
        ("price", "<i8"),
        ("size", "<i8"),
        ("instrument", "<i4"),
        ("count", "<i4"),
        ("frame", "<i4"),
        ("kind", "i1"),
        ("side", "i1"),
        ("flags", "u1"),
        ("price_scale", "i1"),
        ("size_scale", "i1"),
        ("order_kind", "i1"),
        ("trade_kind", "i1"),
        ("spare", "i1"),
        ("extra", "<i4"),
    ],
    align=True,
)
assert EVENT.itemsize == 96

NO_SEQUENCE: Final = -(2**63)


class BookType(IntEnum):
    NONE = 0  # trades or venue quotes only
    L2 = 1
    L3 = 2


class Continuity(IntEnum):
    """How a feed's sequence numbers chain; checked at BEGIN (L2) before anything is applied."""

    NONE = 0  # nothing to check
    FIRST_FOLLOWS = 1  # first == last applied + 1 (Binance spot U/u, KuCoin, Gate.io)
    PREVIOUS_EQUALS = 2  # previous == last applied (Binance futures pu/u, OKX prevSeqId)
    STEP_ONE = 3  # sequence == last applied + 1 (Bybit u, Independent Reserve nonces)
    INCREASING = 4  # sequence > last applied; gaps cannot be seen


class SnapshotRule(IntEnum):
    """Where a book's first full state comes from."""

    NONE = 0  # starts empty and is right from the first row (ITCH from the session's start)
    IN_STREAM = 1  # a BEGIN with flags & SNAPSHOT in the same channel replaces the book
    SPLICE = 2  # snapshot from elsewhere (REST): deltas are buffered, then spliced by sequence
    PARTIAL = 3  # joined mid-session without any snapshot: valid, unknown orders are counted
    EVERY = 4  # every message is a full book


class ChecksumRule(IntEnum):
    NONE = 0
    KRAKEN = 1  # CRC32, 10 asks ascending then 10 bids, digits without dot and leading zeros
    OKX = 2  # CRC32 signed, 25 levels, bid:size:ask:size interleaved, strings as sent
    BITGET = 3  # as OKX


#: What the book engine must know of an instrument; the row's index is EVENT.instrument.
INSTRUMENT: Final = np.dtype(
    [
        ("shard", "<i4"),
        ("max_levels", "<i4"),  # levels per side the venue maintains (0: all); beyond is truncated
        ("bbo_tolerance", "<i4"),  # groups a venue quote may run ahead or behind before a mismatch
        ("book_type", "i1"),
        ("continuity", "i1"),
        ("snapshot_rule", "i1"),
        ("checksum_rule", "i1"),
        ("first_overlap", "i1"),  # 1: first spliced delta must have first <= id+1 <= last (Binance)
        ("may_cross", "i1"),  # 1: crossed and locked books are legal states here (auctions)
    ],
    align=True,
)


@dataclass(frozen=True, slots=True)
class Instruments:
    """Instruments of one feed in order of first appearance; grows, never reorders.

    ``rows`` is INSTRUMENT, ``names`` says what they are called.
    """

    rows: NDArray[np.void]
    names: Names

    @classmethod
    def of(
        cls, rows: NDArray[np.void], venues: Sequence[str], symbols: Sequence[str]
    ) -> Instruments:
        """With names given as parallel texts."""
        table = NameTable()
        for venue, symbol in zip(venues, symbols, strict=True):
            table.index(venue, symbol)
        return cls(rows, table.names())

    def __len__(self) -> int:
        return len(self.names.symbol_of)

    @property
    def venues(self) -> tuple[str, ...]:
        """Venue of each instrument; an object each."""
        return tuple(self.names.venues.take(pa.array(self.names.venue_of)).to_pylist())

    @property
    def symbols(self) -> tuple[str, ...]:
        """Symbol of each instrument; an object each."""
        return tuple(self.names.symbols.take(pa.array(self.names.symbol_of)).to_pylist())


NO_INSTRUMENTS: Final = Instruments(np.zeros(0, INSTRUMENT), NameTable().names())


@dataclass(frozen=True, slots=True)
class EventBatch:
    """Rows of one feed, the instruments known so far, and the rare rows that pass books by.

    ``tables``: rows for tables that need no book (instruments, market_status, imbalances,
    statistics, funding), without shard and row_sequence but with an int32 ``instrument`` column,
    which the shard step turns into identity. ``messages`` counts venue messages.
    ``offsets[i]`` is the feed offset of frame row i (EVENT.frame). ``rowless`` counts, by kind, the
    messages that made no row of any table and no dead letter.
    """

    rows: NDArray[np.void]
    instruments: Instruments
    messages: int = 0
    tables: dict[str, pa.RecordBatch] = field(default_factory=dict)
    offsets: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    rowless: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rows:
    """Finished rows of one shard on their way to the sinks: record batches by table name.

    ``shard``: of schemas.shards; below 0 the feed itself: dead letters of normalise. ``index``: of
    the shard in the run, for keys (below 0: of no shard).
    ``stats`` are counts for the summary: messages, checksums_verified, checksums_failed ...
    ``ended``: the feed's FEED_END passed through this shard.
    ``silent``: made before what a replay shows (operators.mid_history).
    """

    shard: int
    tables: dict[str, pa.RecordBatch]
    stats: dict[str, int] = field(default_factory=dict)
    ended: bool = False
    index: int = -1
    silent: bool = False

    def silenced(self) -> Rows:
        """The same rows, for nobody to see."""
        return replace(self, silent=True)
