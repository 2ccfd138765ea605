"""LOBSTER rows to EVENT rows: the message's own step, then what the book row says beyond it.

A frame is ``time,type,order id,size,price,direction`` and, after a newline, the book row
``ask price,ask size,bid price,bid size`` per level. Sides in arrays are 0 = bid, 1 = ask, best
first. See :mod:`operators.venues.lobster` for what the rows mean.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from operators.events import NO_SEQUENCE, EventKind, IdKind
from operators.kernels.jit import kernel
from schemas.codes import AggressorSide, RowFlag, Side
from schemas.frames import FrameKind
from schemas.units import NO_PRICE, NS_PER_DAY, NS_PER_S

#: Most levels per side of a book file (LOBSTER offers up to 200).
MAX_LEVELS: Final = 200
#: Slots of the int64 ``state``.
FRAME, ROWS, NOTES, MESSAGES, LAST_TS, LEVELS, BID_COUNT, ASK_COUNT = range(8)
STATE_SIZE: Final = 8
#: A frame that needs Python: a halt, or bytes that could not be taken (``why`` below).
NOTE: Final = np.dtype(
    [("ts", "<i8"), ("sequence", "<i8"), ("price", "<i8"), ("frame", "<i4"), ("why", "i1")],
    align=True,
)
(
    WHY_HALT,
    WHY_COLUMNS,
    WHY_TIME,
    WHY_TYPE,
    WHY_SIZE,
    WHY_PRICE,
    WHY_DIRECTION,
    WHY_ORDER,
    WHY_BOOK,
    WHY_LEVELS,
    WHY_CUT,
    WHY_UNPACKED,
) = range(12)

_DATA, _END = int(FrameKind.DATA), int(FrameKind.END)
_TRUNCATED, _BROKEN = int(FrameKind.TRUNCATED), int(FrameKind.BROKEN)
_ADD, _REDUCE, _DELETE = int(EventKind.ADD), int(EventKind.REDUCE), int(EventKind.DELETE)
_EXECUTE, _TRADE = int(EventKind.EXECUTE), int(EventKind.TRADE)
_LEVEL, _FEED_END = int(EventKind.LEVEL), int(EventKind.FEED_END)
_UINT = int(IdKind.UINT)
_BID, _ASK = int(Side.BID), int(Side.ASK)
_BUY, _SELL = int(AggressorSide.BUY), int(AggressorSide.SELL)
_LAST, _SNAPSHOT = int(RowFlag.LAST), int(RowFlag.SNAPSHOT)
_EMPTY_PRICE = 9_999_999_999
_COMMA, _NEWLINE, _DOT, _MINUS = 44, 10, 46, 45
#: Digits that surely fit an int64.
_DIGITS = 18


@kernel
def _integer(text: NDArray[np.uint8], at: int, end: int) -> tuple[Any, int]:
    """(value, position after it) of a whole number; position -1: there is none."""
    negative = at < end and text[at] == _MINUS
    if negative:
        at += 1
    start = at
    value = np.int64(0)
    while at < end and 48 <= text[at] <= 57:
        value = value * 10 + (np.int64(text[at]) - 48)
        at += 1
        if at - start > _DIGITS:
            return 0, -1
    if at == start:
        return 0, -1
    if negative:
        value = -value
    return value, at


@kernel
def _time(text: NDArray[np.uint8], at: int, end: int) -> tuple[Any, int]:
    """(ns since midnight, position after it) of ``34200.017459617``; position -1: no time."""
    seconds, at = _integer(text, at, end)
    if at < 0 or seconds < 0 or seconds >= NS_PER_DAY // NS_PER_S:
        return 0, -1
    ns = np.int64(seconds * NS_PER_S)
    if at < end and text[at] == _DOT:
        at += 1
        unit = NS_PER_S // 10
        while at < end and 48 <= text[at] <= 57:
            if unit > 0:
                ns += (np.int64(text[at]) - 48) * unit
            elif unit == 0 and text[at] >= 53:
                ns += 1
            # Below a ns stands the noise of a float: 43002.632812672004 is rounded.
            unit = unit // 10 if unit > 0 else -1
            at += 1
    return ns, at


@kernel
def _message(
    text: NDArray[np.uint8], at: int, end: int, fields: NDArray[np.int64]
) -> tuple[int, int]:
    """Read time, type, order id, size, price, direction; returns (why or -1, position after)."""
    fields[0], at = _time(text, at, end)
    if at < 0:
        return WHY_TIME, at
    for column in range(1, 6):
        if at >= end or text[at] != _COMMA:
            return WHY_COLUMNS, at
        fields[column], at = _integer(text, at + 1, end)
        if at < 0:
            return WHY_COLUMNS, at
    if at < end and text[at] != _NEWLINE:
        return WHY_COLUMNS, at
    kind = fields[1]
    if kind < 1 or kind > 7:
        return WHY_TYPE, at
    if kind == 7:
        return -1, at
    if fields[3] <= 0:
        return WHY_SIZE, at
    if fields[4] <= 0:
        return WHY_PRICE, at
    if fields[5] != 1 and fields[5] != -1 and kind != 6:
        return WHY_DIRECTION, at
    if fields[2] < 0 and kind <= 4:
        return WHY_ORDER, at
    return -1, at


@kernel
def _book_row(
    text: NDArray[np.uint8],
    at: int,
    end: int,
    prices: NDArray[np.int64],
    sizes: NDArray[np.int64],
    state: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> int:
    """Read a book row into ``prices[side, level]``; returns why not, or -1."""
    counts[0] = counts[1] = 0
    level = 0
    while True:
        if level == MAX_LEVELS:
            return WHY_LEVELS
        for side in (1, 0):
            price, at = _integer(text, at, end)
            if at < 0 or at >= end or text[at] != _COMMA:
                return WHY_BOOK
            size, at = _integer(text, at + 1, end)
            if at < 0 or size < 0:
                return WHY_BOOK
            if abs(price) != _EMPTY_PRICE and size > 0:
                count = counts[side]
                better = 1 if side == 1 else -1
                if count > 0 and (price - prices[side, count - 1]) * better <= 0:
                    return WHY_BOOK
                prices[side, count] = price
                sizes[side, count] = size
                counts[side] = count + 1
            if side == 1:
                if at >= end or text[at] != _COMMA:
                    return WHY_BOOK
                at += 1
        level += 1
        if at == end:
            break
        if text[at] != _COMMA:
            return WHY_BOOK
        at += 1
    if state[LEVELS] == 0:
        state[LEVELS] = level
    return -1 if state[LEVELS] == level else WHY_LEVELS


@kernel
def _put(rows: Any, state: NDArray[np.int64], ts: int) -> Any:
    """The next row, zero but for its time and place."""
    row = rows[state[ROWS]]
    state[ROWS] += 1
    row.ts_event = ts
    row.sequence = state[MESSAGES]
    row.price = NO_PRICE
    row.price_scale = 4
    return row


@kernel
def _print(row: Any, kind: int, fields: NDArray[np.int64]) -> None:
    """Make ``row`` the TRADE of message type 4 (visible), 5 (hidden) or 6 (cross)."""
    row.kind = _TRADE
    row.price = fields[4]
    row.size = fields[3]
    if kind != 6:
        # A resting buy order that executes was hit by a seller.
        row.side = _SELL if fields[5] == 1 else _BUY


@kernel
def _orders(rows: Any, state: NDArray[np.int64], ts: int, fields: NDArray[np.int64]) -> None:
    """The row of a message without a book row: orders as the message tells."""
    kind = fields[1]
    row = _put(rows, state, ts)
    row.flags = _LAST
    if kind >= 5:
        _print(row, kind, fields)
        return
    row.kind = (_ADD, _REDUCE, _DELETE, _EXECUTE)[kind - 1]
    row.side = _BID if fields[5] == 1 else _ASK
    row.order_lo = np.uint64(fields[2])
    row.order_kind = _UINT
    row.price = fields[4]
    row.size = fields[3]


@kernel
def _step(
    fields: NDArray[np.int64],
    prices: NDArray[np.int64],
    sizes: NDArray[np.int64],
    state: NDArray[np.int64],
) -> int:
    """Apply message types 1..4 to the known book; returns the level's new size or -1: no step."""
    side = 0 if fields[5] == 1 else 1
    price, size = fields[4], fields[3]
    count = state[BID_COUNT + side]
    better = 1 if side == 1 else -1
    at = 0
    while at < count and (price - prices[side, at]) * better > 0:
        at += 1
    found = at < count and prices[side, at] == price
    if fields[1] == 1:
        if found:
            sizes[side, at] += size
            return int(sizes[side, at])
        for k in range(count, at, -1):
            prices[side, k] = prices[side, k - 1]
            sizes[side, k] = sizes[side, k - 1]
        prices[side, at] = price
        sizes[side, at] = size
        state[BID_COUNT + side] = count + 1
        return int(size)
    if not found or sizes[side, at] < size:
        return -1
    sizes[side, at] -= size
    left = sizes[side, at]
    if left == 0:
        for k in range(at, count - 1):
            prices[side, k] = prices[side, k + 1]
            sizes[side, k] = sizes[side, k + 1]
        state[BID_COUNT + side] = count - 1
    return int(left)


@kernel
def _level(row: Any, side: int, price: int, size: int, flags: int) -> None:
    row.kind = _LEVEL
    row.side = _BID if side == 0 else _ASK
    row.price = price
    row.size = size
    row.flags = flags


@kernel
def _reseed(
    rows: Any,
    state: NDArray[np.int64],
    ts: int,
    side: int,
    known: NDArray[np.int64],
    known_sizes: NDArray[np.int64],
    told: NDArray[np.int64],
    told_sizes: NDArray[np.int64],
    told_count: int,
) -> None:
    """LEVEL rows that turn the known side into the told one, best first; it becomes known."""
    count = state[BID_COUNT + side]
    better = 1 if side == 1 else -1
    i = 0
    j = 0
    while i < count or j < told_count:
        if j == told_count or (i < count and (known[i] - told[j]) * better < 0):
            _level(_put(rows, state, ts), side, known[i], 0, _SNAPSHOT)
            i += 1
        elif i == count or known[i] != told[j]:
            _level(_put(rows, state, ts), side, told[j], told_sizes[j], _SNAPSHOT)
            j += 1
        else:
            if known_sizes[i] != told_sizes[j]:
                _level(_put(rows, state, ts), side, told[j], told_sizes[j], _SNAPSHOT)
            i += 1
            j += 1
    for k in range(told_count):
        known[k] = told[k]
        known_sizes[k] = told_sizes[k]
    state[BID_COUNT + side] = told_count


@kernel
def _group(
    rows: Any,
    state: NDArray[np.int64],
    ts: int,
    fields: NDArray[np.int64],
    prices: NDArray[np.int64],
    sizes: NDArray[np.int64],
    told: NDArray[np.int64],
    told_sizes: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> None:
    """Rows of a message with its book row."""
    first = state[ROWS]
    kind = fields[1]
    if 4 <= kind <= 6:
        _print(_put(rows, state, ts), kind, fields)
    if kind <= 4:
        left = _step(fields, prices, sizes, state)
        if left >= 0:
            side = 0 if fields[5] == 1 else 1
            _level(_put(rows, state, ts), side, fields[4], left, 0)
    for side in (0, 1):
        _reseed(
            rows, state, ts, side, prices[side], sizes[side], told[side], told_sizes[side],
            counts[side],
        )  # fmt: skip
    if state[ROWS] > first:
        rows[state[ROWS] - 1].flags |= _LAST


@kernel
def decode(
    text: NDArray[np.uint8],
    bounds: NDArray[np.int64],
    kinds: NDArray[np.int8],
    received: NDArray[np.int64],
    midnight: int,
    with_book: bool,
    rows: Any,
    notes: Any,
    prices: NDArray[np.int64],
    sizes: NDArray[np.int64],
    state: NDArray[np.int64],
) -> bool:
    """Decode frames from ``state[FRAME]`` on; False: rows or notes are full, take them first.

    ``prices`` and ``sizes`` (2, MAX_LEVELS + 1) are the book as known. ``rows`` are zero and
    at least 4 * MAX_LEVELS + 8.
    """
    fields = np.empty(6, np.int64)
    told = np.empty((2, MAX_LEVELS + 1), np.int64)
    told_sizes = np.empty((2, MAX_LEVELS + 1), np.int64)
    counts = np.zeros(2, np.int64)
    while state[FRAME] < len(kinds):
        levels = state[LEVELS] if state[LEVELS] > 0 else MAX_LEVELS
        if state[ROWS] + 4 * levels + 8 > len(rows) or state[NOTES] == len(notes):
            return False
        frame = state[FRAME]
        kind, end = kinds[frame], bounds[frame + 1]
        first = state[ROWS]
        ts = state[LAST_TS]
        why = -1
        if kind == _DATA:
            state[MESSAGES] += 1
            why, at = _message(text, bounds[frame], end, fields)
            if why < 0 and with_book:
                why = WHY_BOOK
                if at < end:
                    why = _book_row(text, at + 1, end, told, told_sizes, state, counts)
            elif why < 0 and at < end:
                why = WHY_COLUMNS
            if why < 0:
                ts = midnight + fields[0]
                state[LAST_TS] = ts
                if fields[1] == 7:
                    why = WHY_HALT
                if with_book:
                    _group(rows, state, ts, fields, prices, sizes, told, told_sizes, counts)
                elif fields[1] != 7:
                    _orders(rows, state, ts, fields)
        elif kind == _END:
            row = _put(rows, state, ts)
            row.kind = _FEED_END
            row.instrument = -1
            row.sequence = NO_SEQUENCE
            row.flags = _LAST
        elif kind == _TRUNCATED:
            why = WHY_CUT
        elif kind == _BROKEN:
            why = WHY_UNPACKED
        for k in range(first, state[ROWS]):
            rows[k].frame = frame
            rows[k].ts_recv = received[frame]
        if why >= 0:
            note = notes[state[NOTES]]
            note.ts = ts
            note.sequence = state[MESSAGES]
            note.price = fields[4]
            note.frame = frame
            note.why = why
            state[NOTES] += 1
        state[FRAME] = frame + 1
    return True
