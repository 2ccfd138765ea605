"""State of a shard's book engine: one row per book, the pools, the output rows, the counters.

All of it hangs on one int64 array (:mod:`operators.kernels.arrays`). Kernels never allocate: where
room may run out, the engine stops before a row and says which pool must grow.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from marketflow.operators.books.kernels import levels, orders
from marketflow.operators.books.kernels.checksum import MAX_BYTES, OKX_LEVELS
from marketflow.operators.events import EVENT
from marketflow.operators.kernels.arrays import Array, Pools, Word, aligned, row_of, view_of
from marketflow.schemas.derived.kernel_rows import row_dtype
from marketflow.schemas.tables import market_data

__all__ = ["Array", "Word"]

# Where a book is on its way from deltas to a book that may be shown (BOOK.phase).
AWAIT: Final = 0  # has never had a full state; deltas are buffered (SPLICE) or skipped
LIVE: Final = 1  # kept, shown
STALE: Final = 2  # was kept or announced as missing; empty, waits for a full state
SPLICING: Final = 3  # snapshot taken, buffered deltas are being applied, nothing shown yet
HELD: Final = 4  # shown as stale, but kept: what is missing may come before anything else does
REJOIN: Final = 5  # as STALE, of a PARTIAL book: its next row begins it anew

# What happens to the book rows that come now (BOOK.mode).
DIRECT: Final = 0  # outside brackets: applied
WAIT: Final = 1  # outside brackets: dropped, the book is not LIVE
APPLY: Final = 2  # inside BEGIN..END: applied
SKIP: Final = 3  # inside BEGIN..END: dropped
BUFFER: Final = 4  # inside BEGIN..END: kept for the next snapshot

# What a group has changed so far (BOOK.dirty).
TOP: Final = 1  # a best level
ANY: Final = 2  # a level

#: Channels of an instrument whose event times are each expected to rise (BOOK.channel_ts).
CHANNELS: Final = 3

#: Length of the rings below.
RING: Final = 64
RECENT: Final = 8

#: One book. Times in ns; prices and sizes at the book's exponents; -1 and NO_SEQUENCE: none.
BOOK: Final = np.dtype(
    [
        # Touched by nearly every row.
        ("ts_max", "<i8"),  # latest event time so far
        ("channel_ts", "<i8", (CHANNELS,)),  # the same of the book, the trades, the venue's quotes
        ("price_limit", "<i8"),  # largest magnitude at price_exp
        ("size_limit", "<i8"),
        ("bid_price", "<i8"),  # best prices and sizes as last shown; price NO_PRICE: none
        ("bid_size", "<i8"),
        ("ask_price", "<i8"),
        ("ask_size", "<i8"),
        ("mode", "i1"),
        ("dirty", "i1"),
        ("price_exp", "i1"),  # decimals of the book's prices; -1: none seen yet
        ("size_exp", "i1"),
        ("state", "i1"),  # BookState as last shown; -1: never
        ("phase", "i1"),
        ("open", "i1"),  # an unbracketed group has begun
        ("slow", "i1"),  # closing a group takes more than a look at the best levels
        # Policies, from INSTRUMENT.
        ("instrument", "<i4"),
        ("max_levels", "<i4"),
        ("bbo_tolerance", "<i4"),
        ("continuity", "i1"),
        ("snapshot_rule", "i1"),
        ("checksum_rule", "i1"),
        ("first_overlap", "i1"),
        ("may_cross", "i1"),
        ("has_book", "i1"),  # the venue declares a book for it at all
        # Sync.
        ("snapshot", "i1"),  # the open group replaces the book
        ("fresh", "i1"),  # spliced snapshot applied, first delta still to come
        ("skewed", "i1"),  # arrivals are stamped before event times at the moment
        ("capped", "i1"),  # CAPACITY of the buffer reported in this outage
        ("applied", "<i8"),  # last sequence applied
        ("gone", "<i8"),  # last sequence that can no longer be replayed
        ("buffered_last", "<i8"),  # last sequence in the buffer
        ("group_sequence", "<i8"),
        ("group_no_ops", "<i8"),
        ("stale_since", "<i8"),
        ("cause", "<i8"),  # row_sequence of the primary fault of the outage; -1: none recorded
        ("first_delta_ts", "<i8"),
        ("pending", "<i4"),  # rows in the buffer
        ("recent", "<i4"),  # trade ids seen, RECENT of them kept
        ("depth_bucket", "<i8"),
        # The venue's own best prices.
        ("venue_bid_price", "<i8"),
        ("venue_bid_size", "<i8"),
        ("shown_venue", "<i8", (4,)),  # bid price, size, ask price, size as last shown
        ("venue_shown", "i1"),
        ("venue_bad", "i1"),  # the bid of the open quote could not be taken
        ("mismatched", "i1"),  # the last comparison failed
        ("bbo", "<i4"),  # row of the rings; -1: none
        # What a book has only once it needs it.
        ("shown_at", "<i4"),  # its row of SHOWN; -1: no book row has come yet
        ("recent_at", "<i4"),  # the first of its rows of RECENTS; -1: no trade id has come yet
        ("touched", "i1"),  # changed since the last snapshot
        ("groups", "<i8"),  # groups closed since the rings exist
        ("venue_count", "<i8"),  # entries ever put into the venue's ring
        ("venue_open", "<i8"),  # entries before this one are settled
        ("own_count", "<i8"),
    ],
    align=True,
)

#: A trade id seen lately, with what makes a repetition certain.
TRADE_SEEN: Final = np.dtype(
    [("hi", "<u8"), ("lo", "<u8"), ("price", "<i8"), ("size", "<i8"), ("ts", "<i8")]
)

#: Best prices at a time. ``at``: sequence (venue's ring) or group number (own ring).
BEST: Final = np.dtype(
    [
        ("at", "<i8"),
        ("group", "<i8"),
        ("bid_price", "<i8"),
        ("bid_size", "<i8"),
        ("ask_price", "<i8"),
        ("ask_size", "<i8"),
        ("settled", "<i8"),
    ]
)
#: Rings of one book with quotes of the venue: RING entries of each.
RINGS: Final = np.dtype([("venue", BEST, (RING,)), ("own", BEST, (RING,))])

#: A value that could not be taken. ``what`` is one of the WHAT_ numbers.
REJECT: Final = np.dtype(
    [("offset", "<i8"), ("ts", "<i8"), ("mantissa", "<i8"), ("scale", "i1"), ("what", "i1")],
    align=True,
)
WHAT_PRICE: Final = 0
WHAT_SIZE: Final = 1
WHAT_TOTAL: Final = 2
WHAT_NOTIONAL: Final = 3
WHAT_NEGATIVE: Final = 4

# Places of the pools in the state, behind those of levels and orders
# (see :mod:`operators.kernels.arrays`).
BOOKS: Final = 32
LOCAL_OF: Final = 34  # feed-wide instrument -> book; -1: none yet
RECENTS: Final = 36  # TRADE_SEEN: one of a book's first trade, RECENT together from its second on
SHOWN: Final = 38  # DEPTH_ROW as last shown (one row for all where depth is not asked for)
RINGS_AT: Final = 40
PENDING: Final = 42  # EVENT rows kept for snapshots, in order of arrival
PENDING_OFFSET: Final = 44
TRADES: Final = 46
QUOTES: Final = 48
DEPTH: Final = 50
EVENTS: Final = 52
QUALITY: Final = 54
REJECTS: Final = 56
OFFSETS: Final = 58  # feed offset by EVENT.frame
SCRATCH: Final = 60  # 8 * OKX_LEVELS: top levels as sent, for checksums
TEXT: Final = 62  # bytes of a checksum's text
POOLS: Final = {
    **levels.POOLS,
    **orders.POOLS,
    "books": BOOKS,
    "local_of": LOCAL_OF,
    "recent": RECENTS,
    "shown": SHOWN,
    "rings": RINGS_AT,
    "pending": PENDING,
    "pending_offset": PENDING_OFFSET,
    "trades": TRADES,
    "quotes": QUOTES,
    "depth": DEPTH,
    "events": EVENTS,
    "quality": QUALITY,
    "rejects": REJECTS,
    "offsets": OFFSETS,
    "scratch": SCRATCH,
    "text": TEXT,
}

# Counters. First the rows made by this apply, in the order of the output pools.
N_TRADES: Final = 64
N_QUOTES: Final = 65
N_DEPTH: Final = 66
N_EVENTS: Final = 67
N_QUALITY: Final = 68
N_REJECTS: Final = 69
# What to emit.
EMIT_TRADES: Final = 70
EMIT_QUOTES: Final = 71
EMIT_DEPTH: Final = 72
EMIT_EVENTS: Final = 73
EMIT_QUALITY: Final = 74
# Configuration.
SKEW_NS: Final = 75
DEPTH_LEVELS: Final = 76
DEPTH_INTERVAL_NS: Final = 77
SNAPSHOT_WAIT_NS: Final = 78
MAX_ORDERS: Final = 79
MAX_LEVELS: Final = 80
MAX_PENDING: Final = 81
MAX_PENDING_BOOK: Final = 82
CHECK_BBO: Final = 83
# State of the shard.
N_BOOKS: Final = 84
N_PENDING: Final = 85
N_RINGS: Final = 86
QUALITY_BASE: Final = 87  # row_sequence of quality[0]
GROUP_EVENT: Final = 88  # last book event of the open bracket; -1: none
LATEST_TS: Final = 89  # latest event or arrival time of the shard
ENDED: Final = 90
REPLAYING: Final = 91  # the rows come from the buffer: their times have been checked
# Counts for the summary, in the order of STATS.
STAT_FIRST: Final = 92
CHECKSUMS_VERIFIED: Final = 92
CHECKSUMS_FAILED: Final = 93
UNKNOWN_ORDERS: Final = 94
NO_OPS: Final = 95
DEPTH_TRUNCATED: Final = 96
SNAPSHOTS_IGNORED: Final = 97
EXECUTIONS_LOST: Final = 98
BBO_CHECKED: Final = 99
BBO_MISMATCHED: Final = 100
STATS: Final = (
    "checksums_verified",
    "checksums_failed",
    "unknown_orders",
    "no_ops",
    "depth_truncated",
    "snapshots_ignored",
    "executions_lost",
    "bbo_checked",
    "bbo_mismatched",
)
STALE_BOOKS: Final = 101
N_SHOWN: Final = 102
N_RECENTS: Final = 103  # rows ever taken
RECENTS_FREE: Final = 104  # head of the list of free single rows (next in ``ts``); -1: empty
NEXT_BOOK: Final = 105  # of a row that concerns everybody: the first book that it has not reached
STATE: Final = 106  # length of the state

# Why the engine stopped.
DONE: Final = 0
MORE_OUTPUT: Final = 1
MORE_LEVELS: Final = 2
MORE_ORDERS: Final = 3
MORE_PENDING: Final = 4
MORE_RINGS: Final = 5
REPLAY: Final = 6  # a snapshot is applied: replay the book's buffered rows, then go on
CARRY: Final = 7  # a bracketed group goes on in the next batch
NEW_BOOK: Final = 8  # a row of an instrument without a book
MORE_RECENTS: Final = 9
NEW_SHOWN: Final = 10  # a book row of a book without a row of SHOWN; of everybody: some have none

TRADE_ROW: Final = row_dtype(market_data.TRADES)
QUOTE_ROW: Final = row_dtype(market_data.QUOTES)
DEPTH_ROW: Final = row_dtype(market_data.DEPTH)
EVENT_ROW: Final = row_dtype(market_data.BOOK_EVENTS)
QUALITY_ROW: Final = row_dtype(market_data.QUALITY_EVENTS)

book_row: Any = row_of(BOOKS, BOOK)
recent_row: Any = row_of(RECENTS, TRADE_SEEN)
shown_row: Any = row_of(SHOWN, DEPTH_ROW)
ring_row: Any = row_of(RINGS_AT, RINGS)
pending_row: Any = row_of(PENDING, EVENT)
trade_out: Any = row_of(TRADES, TRADE_ROW)
quote_out: Any = row_of(QUOTES, QUOTE_ROW)
depth_out: Any = row_of(DEPTH, DEPTH_ROW)
event_out: Any = row_of(EVENTS, EVENT_ROW)
quality_out: Any = row_of(QUALITY, QUALITY_ROW)
reject_out: Any = row_of(REJECTS, REJECT)
all_books_of: Any = view_of(LOCAL_OF, np.dtype(np.int32))
all_shown: Any = view_of(SHOWN, DEPTH_ROW)
all_recents: Any = view_of(RECENTS, TRADE_SEEN)
all_pending: Any = view_of(PENDING, EVENT)
all_pending_offsets: Any = view_of(PENDING_OFFSET, np.dtype(np.int64))
all_offsets: Any = view_of(OFFSETS, np.dtype(np.int64))
scratch: Any = view_of(SCRATCH, np.dtype(np.int64))
text: Any = view_of(TEXT, np.dtype(np.uint8))


def new_pools(books: int = 64) -> Pools:
    """A shard without books."""
    pools = Pools(np.zeros(STATE, np.int64), POOLS)
    pools.state[RECENTS_FREE] = -1
    levels.start(pools, 2 * books, 1024, 1024)
    orders.start(pools, 1024)
    plain = np.dtype(np.int64)
    for name, rows, dtype in (
        ("books", books, BOOK),
        ("local_of", 0, np.dtype(np.int32)),
        ("recent", books * RECENT, TRADE_SEEN),
        ("shown", 1, DEPTH_ROW),
        ("rings", 1, RINGS),
        ("pending", 1024, EVENT),
        ("pending_offset", 1024, plain),
        ("trades", 0, TRADE_ROW),
        ("quotes", 0, QUOTE_ROW),
        ("depth", 0, DEPTH_ROW),
        ("events", 0, EVENT_ROW),
        ("quality", 0, QUALITY_ROW),
        ("rejects", 0, REJECT),
        ("offsets", 0, plain),
        ("scratch", 8 * OKX_LEVELS, plain),
        ("text", MAX_BYTES, np.dtype(np.uint8)),
    ):
        pools.put(name, aligned(rows, dtype))
    return pools
