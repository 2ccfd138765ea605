"""LOBSTER rows to EVENT rows: the message's own step, then what the book row says beyond it.

A frame is ``time,type,order id,size,price,direction`` and, after a newline, the book row
``ask price,ask size,bid price,bid size`` per level. Sides in arrays are 0 = bid, 1 = ask, best
first. See :mod:`operators.formats.lobster.decoder` for what the rows mean.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from marketflow.operators.events import NO_SEQUENCE, EventKind, IdKind
from marketflow.operators.formats.lobster.kernels.text import (
    MAX_LEVELS,
    WHY_BOOK,
    WHY_COLUMNS,
    WHY_CUT,
    WHY_HALT,
    WHY_UNPACKED,
    read_book,
    read_message,
)
from marketflow.schemas.codes import AggressorSide, RowFlag, Side
from marketflow.schemas.kernel import bare_kernel
from marketflow.schemas.messages.frames import FrameKind
from marketflow.schemas.units import NO_PRICE

#: Slots of the int64 ``state``.
FRAME, ROWS, NOTES, MESSAGES, LAST_TS, LEVELS, BID_COUNT, ASK_COUNT = range(8)
STATE_SIZE: Final = 8
SCRATCH: Final = 8
#: A frame that needs Python: a halt, or bytes that could not be taken (``why`` below).
NOTE: Final = np.dtype(
    [("ts", "<i8"), ("sequence", "<i8"), ("price", "<i8"), ("frame", "<i4"), ("why", "i1")],
    align=True,
)

_DATA, _END = int(FrameKind.DATA), int(FrameKind.END)
_TRUNCATED, _BROKEN = int(FrameKind.TRUNCATED), int(FrameKind.BROKEN)
_ADD, _REDUCE, _DELETE = int(EventKind.ADD), int(EventKind.REDUCE), int(EventKind.DELETE)
_EXECUTE, _TRADE = int(EventKind.EXECUTE), int(EventKind.TRADE)
_LEVEL, _FEED_END = int(EventKind.LEVEL), int(EventKind.FEED_END)
_UINT = int(IdKind.UINT)
_BID, _ASK = int(Side.BID), int(Side.ASK)
_BUY, _SELL = int(AggressorSide.BUY), int(AggressorSide.SELL)
_LAST, _SNAPSHOT = int(RowFlag.LAST), int(RowFlag.SNAPSHOT)


@bare_kernel
def _put(rows: Any, state: NDArray[np.int64], ts: int) -> Any:
    """The next row, zero but for its time and place."""
    row = rows[state[ROWS]]
    state[ROWS] += 1
    row.ts_event = ts
    row.sequence = state[MESSAGES]
    row.price = NO_PRICE
    row.price_scale = 4
    return row


@bare_kernel
def _print(row: Any, kind: int, fields: NDArray[np.int64]) -> None:
    """Make ``row`` the TRADE of message type 4 (visible), 5 (hidden) or 6 (cross)."""
    row.kind = _TRADE
    row.price = fields[4]
    row.size = fields[3]
    if kind != 6:
        # A resting buy order that executes was hit by a seller.
        row.side = _SELL if fields[5] == 1 else _BUY


@bare_kernel
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


@bare_kernel
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


@bare_kernel
def _level(row: Any, side: int, price: int, size: int, flags: int) -> None:
    row.kind = _LEVEL
    row.side = _BID if side == 0 else _ASK
    row.price = price
    row.size = size
    row.flags = flags


@bare_kernel
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


@bare_kernel
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


@bare_kernel
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
    told: NDArray[np.int64],
    told_sizes: NDArray[np.int64],
    scratch: NDArray[np.int64],
    state: NDArray[np.int64],
) -> bool:
    """Decode frames from ``state[FRAME]`` on; False: rows or notes are full, take them first.

    ``prices`` and ``sizes`` (2, MAX_LEVELS + 1) are the book as known; ``told``, ``told_sizes`` (of
    the same shape) and ``scratch`` (SCRATCH) need no contents. ``rows`` are zero and
    at least 4 * MAX_LEVELS + 8.
    """
    fields, counts = scratch[:6], scratch[6:]
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
            why, at = read_message(text, bounds[frame], end, fields)
            if why < 0 and with_book:
                why = WHY_BOOK
                if at < end:
                    why, levels = read_book(
                        text, at + 1, end, told, told_sizes, state[LEVELS], counts
                    )
                    if why < 0:
                        state[LEVELS] = levels
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
