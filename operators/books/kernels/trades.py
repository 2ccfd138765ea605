"""Trades: prints, busts, corrections, and executions of resting orders.

- The aggressor of an execution is the side opposite to the resting order; without a price of its
  own (price NO_PRICE) it trades at the order's. ``extra`` = 1 on EXECUTE means the venue prints it
  elsewhere (ITCH C, printable N): the book changes, no trade row.
- An execution of an unknown order is a trade only if it says its price itself; otherwise it is
  counted as lost.
- A TRADE is a DUPLICATE, and no row, if one of the instrument's last 8 trades has its id, time,
  price and size. Ids alone do not decide: some venues number messages, not trades, and an old id
  may come late.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from marketflow.operators.books.kernels import levels, orders
from marketflow.operators.books.kernels import state as es
from marketflow.operators.books.kernels.exponents import reject, size_of
from marketflow.operators.books.kernels.order_rows import take_off, unknown
from marketflow.operators.books.kernels.report import book_event, check_time, fault
from marketflow.operators.books.kernels.state import Array, Word
from marketflow.operators.events import EventKind
from marketflow.operators.kernels.int128 import NO_SUM, fits_column, notional
from marketflow.schemas.codes import Action, AggressorSide, QualityKind, TradeStatus
from marketflow.schemas.kernel import kernel_part
from marketflow.schemas.units import NO_PRICE

_TRADE: Final = int(EventKind.TRADE)
_BUST: Final = int(EventKind.BUST)
_BUY: Final = int(AggressorSide.BUY)
_SELL: Final = int(AggressorSide.SELL)
_NORMAL: Final = int(TradeStatus.NORMAL)
_BUSTED: Final = int(TradeStatus.BUST)
_CORRECTED: Final = int(TradeStatus.CORRECTION)
_EXECUTED: Final = int(Action.EXECUTE)
_DUPLICATE: Final = int(QualityKind.DUPLICATE)
_NOT_PRINTED: Final = 1
_MAX_SCALE: Final = 18


@kernel_part
def _fits(mantissa: Word, scale: Word) -> bool:
    return bool(0 <= scale <= _MAX_SCALE and fits_column(mantissa, scale))


@kernel_part
def _trade(
    state: Array, b: Word, row: Array, ts: Word, price: Word, price_scale: Word, aggressor: Word,
    status: Word,
) -> None:  # fmt: skip
    """A ``trades`` row at this price, of the row's size and trade id, as sent."""
    size, size_scale = row.size, row.size_scale
    if status == _BUSTED:
        # A bust without price or size (the id says which trade) has zeros there.
        price, price_scale = (0, 0) if price == NO_PRICE else (price, price_scale)
    if not _fits(price, price_scale):
        reject(state, b, row, price, price_scale, es.WHAT_PRICE)
        return
    if size < 0 or not _fits(size, size_scale):
        reject(state, b, row, size, size_scale, es.WHAT_NEGATIVE if size < 0 else es.WHAT_SIZE)
        return
    hi, lo = notional(price, price_scale, size, size_scale)
    if hi == NO_SUM:
        reject(state, b, row, size, size_scale, es.WHAT_NOTIONAL)
        return
    n = state[es.N_TRADES]
    state[es.N_TRADES] = n + 1
    out = es.trade_out(state, n)
    out.ts_event = ts
    out.ts_recv = row.ts_recv
    out.price = price
    out.size = size
    out.notional_hi = hi
    out.notional_lo = lo
    out.trade_id_hi = row.trade_hi
    out.trade_id_lo = row.trade_lo
    out.trade_id_kind = row.trade_kind
    out.sequence = row.sequence
    out.instrument = es.book_row(state, b).instrument
    out.aggressor_side = aggressor
    out.status = status
    out.price_scale = price_scale
    out.size_scale = size_scale


@kernel_part
def _recent_place(state: Array, book: Array) -> Word:
    """The row of RECENTS for the book's next trade: one for its first, RECENT from the second."""
    if book.recent > 1:
        return book.recent_at + book.recent % es.RECENT
    if book.recent == 0:
        at = state[es.RECENTS_FREE]
        if at >= 0:
            state[es.RECENTS_FREE] = es.recent_row(state, at).ts
        else:
            at = state[es.N_RECENTS]
            state[es.N_RECENTS] += 1
        book.recent_at = at
        return at
    rows, single = es.all_recents(state), np.int64(book.recent_at)
    at = state[es.N_RECENTS]
    state[es.N_RECENTS] += es.RECENT
    rows[at] = rows[single]
    rows[single].ts = state[es.RECENTS_FREE]
    state[es.RECENTS_FREE] = single
    book.recent_at = at
    return at + 1


@kernel_part
def _repeated(state: Array, b: Word, row: Array, ts: Word) -> bool:
    """Is this trade one of the last few again? If not, it is remembered."""
    if row.trade_kind == 0:
        return False
    book = es.book_row(state, b)
    for j in range(min(book.recent, es.RECENT)):
        seen = es.recent_row(state, book.recent_at + j)
        if seen.lo == row.trade_lo and seen.hi == row.trade_hi and seen.ts == ts:
            if seen.price == row.price and seen.size == row.size:
                return True
    seen = es.recent_row(state, _recent_place(state, book))
    seen.hi = row.trade_hi
    seen.lo = row.trade_lo
    seen.price = row.price
    seen.size = row.size
    seen.ts = ts
    # Counts up to 2 * RECENT and then stays above RECENT: only the place and "full" matter.
    book.recent = book.recent + 1 if book.recent + 1 < 2 * es.RECENT else es.RECENT
    return False


@kernel_part
def print_row(state: Array, b: Word, row: Array, ts: Word) -> None:
    """TRADE, BUST or CORRECTION."""
    check_time(state, b, row, ts)
    status = _NORMAL
    if row.kind == _TRADE:
        if _repeated(state, b, row, ts):
            fault(state, b, ts, row.ts_recv, _DUPLICATE, row.sequence, row.sequence, NO_PRICE)
            return
    else:
        status = _BUSTED if row.kind == _BUST else _CORRECTED
    if state[es.EMIT_TRADES]:
        scale = row.price_scale
        _trade(state, b, row, ts, row.price, scale, row.side, status)


@kernel_part
def execute(state: Array, b: Word, row: Array, ts: Word, live: bool) -> None:
    """EXECUTE: the resting order shrinks and a trade is printed.

    Not ``live``: the book is not kept at the moment, only a trade with its own price is left.
    """
    i = -1
    if live:
        i = orders.find(state, row.order_hi, row.order_lo, row.order_kind, b)
        if i < 0:
            unknown(state, b, row, ts)
    price, scale = row.price, row.price_scale
    side = row.side
    if i >= 0:
        level = levels.level_row(state, orders.order_row(state, i).level)
        side = (level.side & 1) + 1
        if price == NO_PRICE:
            price, scale = level.price, es.book_row(state, b).price_exp
    if price == NO_PRICE:
        state[es.EXECUTIONS_LOST] += 1
    elif state[es.EMIT_TRADES] and row.extra != _NOT_PRINTED:
        aggressor = _SELL if side == 1 else _BUY if side == 2 else 0
        _trade(state, b, row, ts, price, scale, aggressor, _NORMAL)
    if i < 0:
        return
    size = size_of(state, b, row)
    order = orders.order_row(state, i)
    taken = order.size if size < 0 else min(size, order.size)
    if state[es.EMIT_EVENTS]:
        level = levels.level_row(state, order.level)
        book_event(
            state, b, ts, row, _EXECUTED, (level.side & 1) + 1, level.price, taken,
            row.order_hi, row.order_lo, row.order_kind, row.flags,
        )  # fmt: skip
    take_off(state, b, i, taken)
