"""L2 rows: a level's new size, and CLEAR.

``book_events``: add, modify or cancel by what happened to the level (its new size; 0 for cancel);
clear for CLEAR. A row that changes nothing makes no row and is counted in the stats (diff feeds
delete levels they never showed, their manuals say so). A price of 0 is no price (KuCoin): such
rows never enter the book, and a group with some reports one NO_OP with their number.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from marketflow.operators.books.kernels import levels, orders, sync
from marketflow.operators.books.kernels import state as es
from marketflow.operators.books.kernels.exponents import price_of, size_of
from marketflow.operators.books.kernels.order_rows import drop_level, full, touch
from marketflow.operators.books.kernels.report import book_event, fault
from marketflow.operators.books.kernels.state import Array, Word
from marketflow.schemas.codes import Action, QualityKind
from marketflow.schemas.kernel import kernel_part
from marketflow.schemas.units import NO_PRICE

_ADDED: Final = int(Action.ADD)
_MODIFIED: Final = int(Action.MODIFY)
_CANCELLED: Final = int(Action.CANCEL)
_CLEARED: Final = int(Action.CLEAR)
_NO_OP: Final = int(QualityKind.NO_OP)
_ZERO: Final = np.uint64(0)


@kernel_part
def _no_price(state: Array, b: Word, row: Array, ts: Word) -> None:
    state[es.NO_OPS] += 1
    if es.book_row(state, b).mode == es.APPLY:
        es.book_row(state, b).group_no_ops += 1
    else:
        fault(state, b, ts, row.ts_recv, _NO_OP, row.sequence, row.sequence, 1)


@kernel_part
def _put(state: Array, b: Word, row: Array, ref: Word, size: Word) -> None:
    """Set an existing level. Orders it may have had become anonymous: the venue said its size."""
    level = levels.level_row(state, ref)
    if level.head >= 0:
        orders.forget_queue(state, level)
    level.size = size
    level.count = row.count
    level.price_scale = row.price_scale
    level.size_scale = row.size_scale
    touch(state, b, ref)


@kernel_part
def set_level(state: Array, b: Word, row: Array, ts: Word) -> None:
    """LEVEL. A size that cannot be taken takes the level out: an old size would be wrong."""
    if row.price == 0:
        _no_price(state, b, row, ts)
        return
    price = price_of(state, b, row)
    if price == NO_PRICE:
        return
    size = max(size_of(state, b, row), 0)
    side = 2 * b + (1 if row.side == 2 else 0)
    key = -price if side & 1 else price
    leaf, slot, ref = levels.seek(state, side, key)
    action = _MODIFIED
    if ref < 0:
        if size == 0:
            state[es.NO_OPS] += 1
            return
        if state[levels.LEVELS_LIVE] >= state[es.MAX_LEVELS]:
            full(state, b, row, ts, state[es.MAX_LEVELS])
            return
        ref = levels.insert(state, side, leaf, slot, key)
        _put(state, b, row, ref, size)
        action = _ADDED
    elif size == 0:
        _put(state, b, row, ref, 0)
        drop_level(state, ref)
        action = _CANCELLED
    else:
        level = levels.level_row(state, ref)
        same = level.size == size and level.count == row.count and level.head < 0
        if same:
            state[es.NO_OPS] += 1
            level.price_scale = row.price_scale
            level.size_scale = row.size_scale
            return
        _put(state, b, row, ref, size)
    if state[es.EMIT_EVENTS]:
        book_event(
            state, b, ts, row, action, (side & 1) + 1, price, size, _ZERO, _ZERO, 0, row.flags
        )


@kernel_part
def clear(state: Array, b: Word, row: Array, ts: Word) -> None:
    """CLEAR of a side, or (side 0) of the whole book."""
    if row.side == 0:
        sync.empty(state, b, ts, row, row.flags)
        return
    side = 2 * b + (1 if row.side == 2 else 0)
    if levels.side_row(state, side).levels == 0:
        return
    sync.empty_side(state, side)
    es.book_row(state, b).dirty = es.TOP | es.ANY
    if state[es.EMIT_EVENTS]:
        book_event(
            state, b, ts, row, _CLEARED, row.side, NO_PRICE, NO_PRICE, _ZERO, _ZERO, 0,
            row.flags,
        )  # fmt: skip
