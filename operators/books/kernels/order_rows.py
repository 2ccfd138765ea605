"""L3 rows: what an order message does to its order, its level and ``book_events``.

Time priority: MODIFY keeps it only if the price stays and the size does not grow; ORDER_SIZE keeps
it if the size shrinks; REDUCE always does; REPLACE never. A row about an order that is not known
is an UNKNOWN_ORDER event and changes nothing; an ADD with an id that rests already is a DUPLICATE.
``book_events``: ADD add; MODIFY, ORDER_SIZE modify (the new price and size); REDUCE, DELETE cancel
(the size taken off); EXECUTE execute (the size taken off, at the order's own price); REPLACE a
cancel of the old and an add of the new order.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from marketflow.operators.books.kernels import levels, orders, sync
from marketflow.operators.books.kernels import state as es
from marketflow.operators.books.kernels.exponents import price_of, reject, size_of
from marketflow.operators.books.kernels.report import book_event, fault
from marketflow.operators.books.kernels.state import Array, Word
from marketflow.operators.events import EventKind
from marketflow.schemas.codes import Action, QualityKind, RowFlag
from marketflow.schemas.kernel import kernel_part
from marketflow.schemas.units import INT64_MAX, NO_PRICE

_ADD: Final = int(EventKind.ADD)
_MODIFY: Final = int(EventKind.MODIFY)
_REDUCE: Final = int(EventKind.REDUCE)
_DELETE: Final = int(EventKind.DELETE)
_REPLACE: Final = int(EventKind.REPLACE)
_ORDER_SIZE: Final = int(EventKind.ORDER_SIZE)
_ADDED: Final = int(Action.ADD)
_MODIFIED: Final = int(Action.MODIFY)
_CANCELLED: Final = int(Action.CANCEL)
_UNKNOWN_ORDER: Final = int(QualityKind.UNKNOWN_ORDER)
_DUPLICATE: Final = int(QualityKind.DUPLICATE)
_CAPACITY: Final = int(QualityKind.CAPACITY)
_LAST: Final = int(RowFlag.LAST)
_ALL: Final = 0xFF
_ZERO: Final = np.uint64(0)
_LARGEST: Final = np.uint64(INT64_MAX)


@kernel_part
def touch(state: Array, b: Word, ref: Word) -> None:
    """Note that a level that is there changes or goes."""
    best = levels.side_row(state, levels.level_row(state, ref).side).best == ref
    es.book_row(state, b).dirty |= (es.TOP | es.ANY) if best else es.ANY


@kernel_part
def drop_level(state: Array, ref: Word) -> None:
    """A level without size goes."""
    level = levels.level_row(state, ref)
    side = level.side
    leaf, slot, _ = levels.seek(state, side, -level.price if side & 1 else level.price)
    levels.remove(state, side, leaf, slot)


@kernel_part
def unknown(state: Array, b: Word, row: Array, ts: Word) -> None:
    """UNKNOWN_ORDER; ``value`` is the id where it is a number below 2**63."""
    state[es.UNKNOWN_ORDERS] += 1
    value: Word = NO_PRICE
    if row.order_kind == 1 and row.order_hi == _ZERO and row.order_lo <= _LARGEST:
        value = np.int64(row.order_lo)
    fault(state, b, ts, row.ts_recv, _UNKNOWN_ORDER, row.sequence, row.sequence, value)


@kernel_part
def full(state: Array, b: Word, row: Array, ts: Word, cap: Word) -> None:
    """A cap of the shard is reached: the order or level is left out, so the book is not right."""
    cause = fault(state, b, ts, row.ts_recv, _CAPACITY, row.sequence, row.sequence, cap)
    sync.go_stale(state, b, ts, row, cause)


@kernel_part
def _join(state: Array, b: Word, row: Array, ts: Word, i: Word, side: Word, price: Word) -> bool:
    """Order i joins the tail at ``price``; False (and it is forgotten) where it cannot."""
    leaf, slot, ref = levels.seek(state, side, -price if side & 1 else price)
    order = orders.order_row(state, i)
    if ref < 0:
        if state[levels.LEVELS_LIVE] >= state[es.MAX_LEVELS]:
            orders.forget(state, i)
            full(state, b, row, ts, state[es.MAX_LEVELS])
            return False
        ref = levels.insert(state, side, leaf, slot, -price if side & 1 else price)
    elif order.size > es.book_row(state, b).size_limit - levels.level_row(state, ref).size:
        reject(state, b, row, row.size, row.size_scale, es.WHAT_TOTAL)
        orders.forget(state, i)
        return False
    orders.enqueue(state, levels.level_row(state, ref), ref, i)
    touch(state, b, ref)
    return True


@kernel_part
def _leave(state: Array, b: Word, i: Word) -> None:
    """Order i leaves its queue, and an emptied level the book; the order stays known."""
    ref = orders.order_row(state, i).level
    touch(state, b, ref)
    level = levels.level_row(state, ref)
    orders.dequeue(state, level, i)
    if level.size == 0:
        drop_level(state, ref)


@kernel_part
def take_off(state: Array, b: Word, i: Word, size: Word) -> None:
    """``size`` of order i goes; with the last of it the order."""
    order = orders.order_row(state, i)
    if size < order.size:
        touch(state, b, order.level)
        order.size -= size
        levels.level_row(state, order.level).size -= size
    else:
        _leave(state, b, i)
        orders.forget(state, i)


@kernel_part
def _add(
    state: Array, b: Word, row: Array, ts: Word, hi: Array, lo: Array, kind: Word, side: Word
) -> None:
    price, size = price_of(state, b, row), size_of(state, b, row)
    if price == NO_PRICE or size < 0:
        return
    if size == 0:
        state[es.NO_OPS] += 1
        return
    if orders.find(state, hi, lo, kind, b) >= 0:
        fault(state, b, ts, row.ts_recv, _DUPLICATE, row.sequence, row.sequence, NO_PRICE)
        return
    if state[orders.ORDERS_LIVE] >= state[es.MAX_ORDERS]:
        full(state, b, row, ts, state[es.MAX_ORDERS])
        return
    i = orders.add(state, hi, lo, kind, b, size)
    if not _join(state, b, row, ts, i, side, price):
        return
    if state[es.EMIT_EVENTS]:
        book_event(state, b, ts, row, _ADDED, (side & 1) + 1, price, size, hi, lo, kind, row.flags)


@kernel_part
def add(state: Array, b: Word, row: Array, ts: Word) -> None:
    """ADD."""
    side = 2 * b + (1 if row.side == 2 else 0)
    _add(state, b, row, ts, row.order_hi, row.order_lo, row.order_kind, side)


@kernel_part
def _cancel_event(
    state: Array, b: Word, row: Array, ts: Word, i: Word, size: Word, mask: Word
) -> None:
    level = levels.level_row(state, orders.order_row(state, i).level)
    book_event(
        state, b, ts, row, _CANCELLED, (level.side & 1) + 1, level.price, size,
        row.order_hi, row.order_lo, row.order_kind, row.flags & mask,
    )  # fmt: skip


@kernel_part
def _remove(state: Array, b: Word, row: Array, ts: Word, i: Word, mask: Word) -> None:
    if state[es.EMIT_EVENTS]:
        _cancel_event(state, b, row, ts, i, orders.order_row(state, i).size, mask)
    _leave(state, b, i)
    orders.forget(state, i)


@kernel_part
def _change(state: Array, b: Word, row: Array, ts: Word, i: Word) -> None:
    """MODIFY and ORDER_SIZE. An order whose new values cannot be taken leaves the book."""
    order = orders.order_row(state, i)
    level = levels.level_row(state, order.level)
    side = level.side
    price = level.price
    size = size_of(state, b, row)
    if row.kind == _MODIFY and row.price != NO_PRICE and size >= 0:
        price = price_of(state, b, row)
    elif row.kind == _ORDER_SIZE or row.price == NO_PRICE:
        price = level.price  # a finer size does not move prices, but read it where it is now
    if price == NO_PRICE or size <= 0:
        _remove(state, b, row, ts, i, _ALL)
        return
    if price == level.price and size <= order.size:
        touch(state, b, order.level)
        level.size -= order.size - size
        order.size = size
    else:
        _leave(state, b, i)
        order.size = size
        if not _join(state, b, row, ts, i, side, price):
            return
    if state[es.EMIT_EVENTS]:
        book_event(
            state, b, ts, row, _MODIFIED, (side & 1) + 1, price, size,
            row.order_hi, row.order_lo, row.order_kind, row.flags,
        )  # fmt: skip


@kernel_part
def _reduce(state: Array, b: Word, row: Array, ts: Word, i: Word) -> None:
    size = size_of(state, b, row)
    if size < 0:
        _remove(state, b, row, ts, i, _ALL)
        return
    taken = min(size, orders.order_row(state, i).size)
    if state[es.EMIT_EVENTS]:
        _cancel_event(state, b, row, ts, i, taken, _ALL)
    take_off(state, b, i, taken)


@kernel_part
def change(state: Array, b: Word, row: Array, ts: Word) -> None:
    """MODIFY, REDUCE, DELETE, REPLACE or ORDER_SIZE of a resting order."""
    i = orders.find(state, row.order_hi, row.order_lo, row.order_kind, b)
    if i < 0:
        unknown(state, b, row, ts)
        return
    kind = row.kind
    if kind == _DELETE:
        _remove(state, b, row, ts, i, _ALL)
    elif kind == _REDUCE:
        _reduce(state, b, row, ts, i)
    elif kind == _REPLACE:
        side = levels.level_row(state, orders.order_row(state, i).level).side
        _remove(state, b, row, ts, i, ~_LAST)
        _add(state, b, row, ts, row.trade_hi, row.trade_lo, row.trade_kind, side)
    else:
        _change(state, b, row, ts, i)
