"""DBN records to EVENT rows: orders (mbo), prints (trades) and levels (mbp, bbo) of any version.

Records are read as 64-bit words, which all these layouts are made of (little endian):

=====  =========================================================================================
word   mbo                                        mbp, trades, bbo
=====  =========================================================================================
0      length u8, rtype u8, publisher u16, instrument u32
1      ts_event
2      order_id                                   price
3      price                                      size u32, action u8, side u8, flags u8, depth u8
4      size u32, flags u8, channel u8, action u8, side u8      ts_recv
5      ts_recv                                    ts_in_delta i32, sequence u32
6      ts_in_delta i32, sequence u32              per level: bid price, ask price, bid and ask
                                                  size u32, bid and ask count u32
=====  =========================================================================================
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from marketflow.operators.events import NO_SEQUENCE, BookType, EventKind, IdKind
from marketflow.schemas.codes import AggressorSide, DeadLetterReason, RowFlag, Side
from marketflow.schemas.kernel import bare_kernel
from marketflow.schemas.units import END_OF_TIME_NS, INT64_MAX, NO_PRICE

#: What becomes of a record, by rtype.
UNKNOWN, BOOK, PLAIN, IGNORED, MAPPING, BARS = range(6)
MBO: Final = 160
#: rtypes of mbp and bbo records, and their levels; TRADES has none.
LEVELS: Final = {0: 0, 1: 1, 10: 10, 177: 1, 192: 1, 193: 1, 194: 1, 195: 1, 196: 1, 197: 1}
#: rtypes whose last bytes per level are publishers, not counts (consolidated books).
CONSOLIDATED: Final = (177, 192, 193, 194)
#: rtypes that sample the best prices: they have no action of their own.
SAMPLED: Final = (192, 193, 195, 196)
#: Smallest record of each BOOK rtype in words.
_LEAST: Final = np.zeros(256, np.int64)
_LEVELS: Final = np.zeros(256, np.int64)
_COUNTED: Final = np.ones(256, np.bool_)
_SAMPLED: Final = np.zeros(256, np.bool_)
CLASSES: Final = np.zeros(256, np.int8)
for _rtype, _count in LEVELS.items():
    _LEVELS[_rtype] = _count
    _LEAST[_rtype] = 6 + 4 * _count
    CLASSES[_rtype] = BOOK
_LEAST[MBO] = 7
CLASSES[MBO] = BOOK
for _rtype in CONSOLIDATED:
    _COUNTED[_rtype] = False
for _rtype in SAMPLED:
    _SAMPLED[_rtype] = True
for _rtype in (18, 19, 20, 24):  # status, definition, imbalance, statistics
    CLASSES[_rtype] = PLAIN
for _rtype in (21, 23):  # gateway errors, system
    CLASSES[_rtype] = IGNORED
for _rtype in (17, 32, 33, 34, 35, 36):  # bars: of any length, a second, minute, hour, day, session
    CLASSES[_rtype] = BARS
CLASSES[22] = MAPPING

#: ``F_*`` flags of a record.
F_LAST, F_SNAPSHOT, F_BAD_TS_RECV, F_MAYBE_BAD_BOOK = 128, 32, 8, 4
UNDEF_SIZE: Final = 2**32 - 1
PRICE_SCALE: Final = 9

_L2, _L3 = int(BookType.L2), int(BookType.L3)
_ADD, _MODIFY, _REDUCE = int(EventKind.ADD), int(EventKind.MODIFY), int(EventKind.REDUCE)
_CLEAR, _TRADE, _CLOCK = int(EventKind.CLEAR), int(EventKind.TRADE), int(EventKind.CLOCK)
_BEGIN, _END, _LEVEL = int(EventKind.BEGIN), int(EventKind.END), int(EventKind.LEVEL)
_VENUE_BID, _VENUE_ASK = int(EventKind.VENUE_BID), int(EventKind.VENUE_ASK)
_UINT = int(IdKind.UINT)
_LAST, _SNAPSHOT, _MAYBE_BAD = int(RowFlag.LAST), int(RowFlag.SNAPSHOT), int(RowFlag.MAYBE_BAD)
_BID, _ASK = int(Side.BID), int(Side.ASK)
_BUY, _SELL = int(AggressorSide.BUY), int(AggressorSide.SELL)
_BAD_PRICE, _BAD_SIZE = int(DeadLetterReason.BAD_PRICE), int(DeadLetterReason.BAD_SIZE)
_BAD_SIDE, _UNKNOWN = int(DeadLetterReason.BAD_SIDE), int(DeadLetterReason.UNKNOWN_MESSAGE)
_BAD_TIMESTAMP = int(DeadLetterReason.BAD_TIMESTAMP)
#: Bit of ``books`` besides the BookType: prices of the instrument may be at or below zero.
SIGNED: Final = 16

Words = NDArray[np.int64]


@bare_kernel
def index(
    text: NDArray[np.uint8],
    out: NDArray[np.uint8],
    ats: Words,
    rtypes: Any,
    keys: Words,
    times: Words,
    places: Words,
    bad: Words,
) -> tuple[int, int]:
    """Copy the records of ``text`` to ``out``, the bytes of an array of words: where each starts
    (word, and byte of ``text``), and its (publisher << 32 | instrument, time).

    ``times`` is ts_recv where the layout has one at a known place, else ts_event. Returns how many
    there are, and how many spans of ``text`` are in ``bad``, which cannot be read as records.
    """
    words = out.view(np.int64)
    start: Any = 0
    at: Any = 0
    count = 0
    bads = 0
    while start < len(text):
        length = 4 * np.int64(text[start])
        end = start + length
        whole = length >= 16 and end <= len(text)
        if not whole or length & 7 or length >> 3 < _LEAST[text[start + 1]]:
            # A length that cannot be does not say where the next record starts.
            end = end if whole else len(text)
            bad[bads, 0] = start
            bad[bads, 1] = end
            bads += 1
            start = end
            continue
        for k in range(length):
            out[8 * at + k] = text[start + k]
        head = np.uint64(words[at])
        rtype = np.int64((head >> np.uint64(8)) & np.uint64(255))
        ats[count] = at
        rtypes[count] = rtype
        publisher = np.int64((head >> np.uint64(16)) & np.uint64(65535))
        keys[count] = (publisher << 32) | np.int64(head >> np.uint64(32))
        times[count] = words[at + 1]
        if rtype == MBO:
            times[count] = words[at + 5]
        elif _LEAST[rtype] > 0:
            times[count] = words[at + 4]
        places[count] = start
        count += 1
        at += length >> 3
        start = end
    return count, bads


@bare_kernel
def rows_needed(rtypes: Any) -> int:
    """Rows that :func:`decode` writes at most for records of these rtypes."""
    total = 0
    for rtype in rtypes:
        total += 1 if rtype == MBO else 5 + 2 * _LEVELS[rtype]
    return total


@bare_kernel
def _byte(word: Any, index: int) -> Any:
    return np.int64((np.uint64(word) >> np.uint64(8 * index)) & np.uint64(255))


@bare_kernel
def _low(word: Any) -> Any:
    return np.int64(np.uint64(word) & np.uint64(0xFFFFFFFF))


@bare_kernel
def _high(word: Any) -> Any:
    return np.int64(np.uint64(word) >> np.uint64(32))


@bare_kernel
def _flags(flags: int) -> int:
    out = 0
    if flags & F_LAST:
        out |= _LAST
    if flags & F_SNAPSHOT:
        out |= _SNAPSHOT
    if flags & F_MAYBE_BAD_BOOK:
        out |= _MAYBE_BAD
    return out


@bare_kernel
def _put(rows: Any, at: int, kind: int, price: int, size: int, side: int, flags: int) -> None:
    row = rows[at]
    row.kind = kind
    row.price = price
    row.size = size
    row.side = side
    row.flags = flags


@bare_kernel
def _allowed(price: Any, signed: bool) -> bool:
    """Whether a price that is there can be one of the instrument's."""
    return price > 0 or (signed and price != NO_PRICE)


@bare_kernel
def _order(rows: Any, at: int, words: Words, w: int, book: int, signed: bool) -> int:
    """Row of an mbo record; 1 if it was written, 0 if there is nothing to say, else -1 - reason."""
    tail = words[w + 4]
    size = _low(tail)
    flags, action, side = _flags(_byte(tail, 4)), _byte(tail, 6), _byte(tail, 7)
    price = words[w + 3]
    code = _ASK if side == 65 else _BID if side == 66 else 0
    kind = 0
    if action == 84:  # T
        kind = _TRADE
        code = _SELL if side == 65 else _BUY if side == 66 else 0
    elif action == 65:  # A
        kind = _ADD
    elif action == 67:  # C
        kind = _REDUCE
    elif action == 77:  # M
        kind = _MODIFY
    elif action == 82:  # R
        kind = _CLEAR
        price, size, code = NO_PRICE, 0, 0
    elif action != 70 and action != 78:  # F and N change nothing
        return -1 - _UNKNOWN
    if kind != _TRADE and book != _L3:
        kind = 0
    if kind == 0:
        # Nothing to say, but the end of the group must not get lost.
        if book == _L3 and flags & _LAST:
            _put(rows, at, _CLOCK, NO_PRICE, 0, 0, flags)
            return 1
        return 0
    if kind != _CLEAR:
        if price == INT64_MAX:
            if kind != _REDUCE:
                return -1 - _BAD_PRICE
            price = NO_PRICE
        elif not _allowed(price, signed):
            return -1 - _BAD_PRICE
        if size == UNDEF_SIZE or (size == 0 and kind != _REDUCE):
            return -1 - _BAD_SIZE
        if kind != _TRADE:
            if code == 0:
                return -1 - _BAD_SIDE
            rows[at].order_lo = np.uint64(words[w + 2])
            rows[at].order_kind = _UINT
    if book != _L3:
        flags |= _LAST
    _put(rows, at, kind, price, size, code, flags)
    return 1


@bare_kernel
def _book(rows: Any, at: int, words: Words, w: int, levels: int, flags: int) -> int:
    """BEGIN, the levels that are there, END: the whole top of the book. Returns rows written."""
    start = at
    _put(rows, at, _BEGIN, NO_PRICE, 0, 0, flags)
    rows[at].order_hi = np.uint64(NO_SEQUENCE)
    rows[at].order_lo = np.uint64(NO_SEQUENCE)
    at += 1
    for side in range(2):
        for level in range(levels):
            price = words[w + 6 + 4 * level + side]
            sizes, counts = words[w + 8 + 4 * level], words[w + 9 + 4 * level]
            size = _high(sizes) if side else _low(sizes)
            if price != INT64_MAX and size > 0:
                _put(rows, at, _LEVEL, price, size, _ASK if side else _BID, flags)
                rows[at].count = _high(counts) if side else _low(counts)
                at += 1
    _put(rows, at, _END, NO_PRICE, 0, 0, flags)
    return at + 1 - start


@bare_kernel
def _quote(rows: Any, at: int, words: Words, w: int, flags: int) -> None:
    """VENUE_BID and VENUE_ASK of the first level."""
    sizes = words[w + 8]
    for side in range(2):
        price, size = words[w + 6 + side], _high(sizes) if side else _low(sizes)
        if price == INT64_MAX or size == 0:
            price, size = NO_PRICE, 0
        kind = _VENUE_ASK if side else _VENUE_BID
        _put(rows, at + side, kind, price, size, side + 1, flags | _LAST if side else flags)


@bare_kernel
def _prices_allowed(words: Words, w: int, levels: int, signed: bool) -> bool:
    """Whether all prices of the levels that are there can be the instrument's."""
    for level in range(levels):
        sizes = words[w + 8 + 4 * level]
        for side in range(2):
            price = words[w + 6 + 4 * level + side]
            size = _high(sizes) if side else _low(sizes)
            if price != INT64_MAX and size > 0 and not _allowed(price, signed):
                return False
    return True


@bare_kernel
def _levels(rows: Any, at: int, words: Words, w: int, rtype: int, book: int, signed: bool) -> int:
    """Rows of an mbp, trades or bbo record: how many were written, or -1 - reason."""
    start = at
    middle = words[w + 3]
    action, side, flags = _byte(middle, 4), _byte(middle, 5), _flags(_byte(middle, 6))
    price, size = words[w + 2], _low(middle)
    traded = action == 84 and not _SAMPLED[rtype]
    if traded and (price == INT64_MAX or not _allowed(price, signed)):
        return -1 - _BAD_PRICE
    if traded and (size == 0 or size == UNDEF_SIZE):
        return -1 - _BAD_SIZE
    if not _prices_allowed(words, w, _LEVELS[rtype], signed):
        return -1 - _BAD_PRICE
    if _LEVELS[rtype] > 0:
        # A trade's record shows the book before or without the trade, so the book comes first.
        if book == _L2 and _COUNTED[rtype] and not _SAMPLED[rtype]:
            group = (flags | _SNAPSHOT) & ~_LAST
            at += _book(rows, at, words, w, _LEVELS[rtype], group)
        else:
            _quote(rows, at, words, w, flags & ~_LAST)
            at += 2
    if traded:
        code = _SELL if side == 65 else _BUY if side == 66 else 0
        _put(rows, at, _TRADE, price, size, code, flags | _LAST)
        at += 1
    return at - start


@bare_kernel
def decode(
    words: Words,
    ats: Words,
    rtypes: Any,
    instruments: Any,
    books: Any,
    frames: Any,
    rows: Any,
    bad: Any,
) -> tuple[int, int]:
    """Rows of the BOOK records whose instrument is not -1; returns (rows, bad records).

    ``books[instrument]`` is its BookType, with SIGNED where that holds; ``bad`` gets (record,
    reason) of what cannot be taken; ``rows`` must be zero and :func:`rows_needed` long.
    """
    count = 0
    bads = 0
    for i in range(len(ats)):
        instrument = instruments[i]
        rtype = rtypes[i]
        if instrument < 0 or CLASSES[rtype] != BOOK:
            continue
        w = ats[i]
        book, signed = books[instrument] & ~SIGNED, books[instrument] & SIGNED != 0
        ts_event = max(words[w + 1], 0)
        if rtype == MBO:
            received, flags = words[w + 5], _byte(words[w + 4], 4)
            sequence = _high(words[w + 6])
        else:
            received, flags = words[w + 4], _byte(words[w + 3], 6)
            sequence = NO_SEQUENCE if not _COUNTED[rtype] else _high(words[w + 5])
        # -1 is UNDEF_TIMESTAMP; a bad arrival time is none.
        if received < 0 or flags & F_BAD_TS_RECV:
            received = 0
        known = max(ts_event, received)
        if known == 0 or known >= END_OF_TIME_NS:
            written = -1 - _BAD_TIMESTAMP
        elif rtype == MBO:
            written = _order(rows, count, words, w, book, signed)
        else:
            written = _levels(rows, count, words, w, rtype, book, signed)
        if written < 0:
            bad[bads, 0] = i
            bad[bads, 1] = -1 - written
            bads += 1
            continue
        for k in range(count, count + written):
            row = rows[k]
            row.ts_event = ts_event
            row.ts_recv = received
            row.sequence = sequence
            row.instrument = instrument
            row.frame = frames[i]
            row.price_scale = PRICE_SCALE
        count += written
    return count, bads
