"""The engine: a run of EVENT rows through the books of a shard.

Rows are taken one by one; what a row may do depends on its book's mode (:mod:`.sync`). The engine
stops before a row that might not fit into an array, and says which; nothing is ever half applied.
A bracketed group is begun only when its END is in sight: one that the batch cuts is carried whole
into the next.
"""

from __future__ import annotations

from typing import Final

from marketflow.operators.books.kernels import close as engine_close
from marketflow.operators.books.kernels import feed_gap, orders, sync
from marketflow.operators.books.kernels import level_rows as engine_levels
from marketflow.operators.books.kernels import order_rows as engine_orders
from marketflow.operators.books.kernels import state as es
from marketflow.operators.books.kernels import trades as engine_trades
from marketflow.operators.books.kernels.bbo import settle_at_end, venue_quote
from marketflow.operators.books.kernels.levels import (
    LEVELS,
    LEVELS_LIVE,
    NODES,
    NODES_LIVE,
    NODES_PER_INSERT,
)
from marketflow.operators.books.kernels.orders import ORDERS, ORDERS_LIVE
from marketflow.operators.books.kernels.report import check_time, fault, time_of
from marketflow.operators.books.kernels.state import Array, Word
from marketflow.operators.events import NO_SEQUENCE, EventKind
from marketflow.schemas.codes import QualityKind, RowFlag
from marketflow.schemas.kernel import bare_kernel, kernel_part
from marketflow.schemas.units import NO_PRICE

_ADD: Final = int(EventKind.ADD)
_EXECUTE: Final = int(EventKind.EXECUTE)
_CLEAR: Final = int(EventKind.CLEAR)
_LEVEL: Final = int(EventKind.LEVEL)
_ORDER_SIZE: Final = int(EventKind.ORDER_SIZE)
_TRADE: Final = int(EventKind.TRADE)
_CORRECTION: Final = int(EventKind.CORRECTION)
_VENUE_BID: Final = int(EventKind.VENUE_BID)
_VENUE_ASK: Final = int(EventKind.VENUE_ASK)
_BEGIN: Final = int(EventKind.BEGIN)
_END: Final = int(EventKind.END)
_FEED_END: Final = int(EventKind.FEED_END)
_DISCONNECT: Final = int(EventKind.DISCONNECT)
_GAP: Final = int(EventKind.GAP)
_LOST: Final = int(EventKind.LOST)
_LINE: Final = int(EventKind.LINE)
_LAST: Final = int(RowFlag.LAST)
_INCOMPLETE_GROUP: Final = int(QualityKind.INCOMPLETE_GROUP)

#: Most rows that one event row can add to each output (END's truncations come on top), but for
#: the quality events of venue quotes that settle all at once.
_FEW: Final = 2
_EACH: Final = 8
_AT_ONCE: Final = es.RING
#: The same for one book of a row that concerns everybody.
_OF_ONE: Final = 8
#: How many rows ahead the slots of orders are asked for, and the orders themselves.
_FAR: Final = 24
_NEAR: Final = 12


@kernel_part
def _room(state: Array) -> tuple[Word, Word]:
    """(rows that surely fit now, which array to grow where that is 0)."""
    rows = state[es.TRADES + 1] - state[es.N_TRADES]
    rows = min(rows, (state[es.QUOTES + 1] - state[es.N_QUOTES]) // _FEW)
    rows = min(rows, (state[es.DEPTH + 1] - state[es.N_DEPTH]) // _FEW)
    rows = min(rows, (state[es.EVENTS + 1] - state[es.N_EVENTS]) // (2 * _FEW))
    rows = min(rows, (state[es.QUALITY + 1] - state[es.N_QUALITY] - _AT_ONCE) // _EACH)
    rows = min(rows, (state[es.REJECTS + 1] - state[es.N_REJECTS]) // _FEW)
    if rows <= 0:
        return 0, es.MORE_OUTPUT
    if state[LEVELS + 1] < state[es.MAX_LEVELS]:
        rows = min(rows, state[LEVELS + 1] - state[LEVELS_LIVE])
    rows = min(rows, (state[NODES + 1] - state[NODES_LIVE]) // NODES_PER_INSERT)
    if rows <= 0:
        return 0, es.MORE_LEVELS
    if state[ORDERS + 1] < state[es.MAX_ORDERS]:
        rows = min(rows, state[ORDERS + 1] - state[ORDERS_LIVE])
    if rows <= 0:
        return 0, es.MORE_ORDERS
    rows = min(rows, state[es.PENDING + 1] - state[es.N_PENDING])
    if rows <= 0:
        return 0, es.MORE_PENDING
    rows = min(rows, (state[es.RECENTS + 1] - state[es.N_RECENTS]) // es.RECENT)
    if rows <= 0:
        return 0, es.MORE_RECENTS
    rows = min(rows, state[es.RINGS_AT + 1] - state[es.N_RINGS])
    return rows, es.MORE_RINGS


@kernel_part
def _fits(state: Array, rows: Word) -> bool:
    """Do so many rows fit into every output?"""
    return bool(
        state[es.QUOTES + 1] - state[es.N_QUOTES] >= rows
        and state[es.DEPTH + 1] - state[es.N_DEPTH] >= rows
        and state[es.EVENTS + 1] - state[es.N_EVENTS] >= rows
        and state[es.QUALITY + 1] - state[es.N_QUALITY] >= rows
    )


@kernel_part
def _everybody(state: Array, row: Array) -> Word:
    """A row that concerns all books of the shard, in order of their instruments; DONE, or what is
    needed to go on at NEXT_BOOK."""
    state[es.LATEST_TS] = max(state[es.LATEST_TS], row.ts_event, row.ts_recv)
    if row.kind < _FEED_END or row.kind > _LOST:
        return es.DONE
    if row.kind != _FEED_END and state[es.EMIT_DEPTH] and state[es.N_SHOWN] < state[es.N_BOOKS]:
        return es.NEW_SHOWN
    for b in range(state[es.NEXT_BOOK], state[es.N_BOOKS]):
        if not _fits(state, _OF_ONE):
            state[es.NEXT_BOOK] = b
            return es.MORE_OUTPUT
        book = es.book_row(state, b)
        book.touched = 1
        ts = time_of(state, b, row)
        if row.kind == _DISCONNECT:
            sync.disconnect(state, b, row, ts)
            continue
        if row.kind >= _GAP:
            feed_gap.apply(state, b, row, ts)
            continue
        settle_at_end(state, b, ts, row.ts_recv)
        if book.open:
            fault(state, b, ts, row.ts_recv, _INCOMPLETE_GROUP, NO_SEQUENCE, NO_SEQUENCE, NO_PRICE)
            book.open = 0
        if book.phase == es.AWAIT and book.first_delta_ts != 0:
            sync.miss_snapshot(state, b, ts, row)
    state[es.NEXT_BOOK] = 0
    if row.kind == _FEED_END:
        state[es.ENDED] = 1
    return es.DONE


@kernel_part
def _group_end(rows: Array, i: Word, most: Word) -> Word:
    """Index of the END of the group that begins at i; -1 - j: cut short by row j, which is the
    end of the rows, or the first that cannot belong to it (after ``most`` rows none can)."""
    instrument = rows[i].instrument
    stop = min(len(rows), i + most)
    for j in range(i + 1, stop):
        kind = rows[j].kind
        if kind == _BEGIN or kind == _FEED_END or rows[j].instrument != instrument:
            return -1 - j
        if kind == _END:
            return j
    return -1 - stop


@kernel_part
def _incomplete(state: Array, b: Word, row: Array, ts: Word, at_end: bool) -> None:
    """A group without END: none of it is applied, and the book is missing something."""
    cause = fault(
        state, b, ts, row.ts_recv, _INCOMPLETE_GROUP, row.sequence, row.sequence, NO_PRICE
    )
    book = es.book_row(state, b)
    if not at_end and book.phase == es.LIVE and sync.has_source(book):
        sync.go_stale(state, b, ts, row, cause)
        sync.settle(book)


@kernel_part
def _change_book(state: Array, b: Word, row: Array, ts: Word) -> None:
    """A book row in a mode that applies it."""
    kind = row.kind
    if kind == _ADD:
        engine_orders.add(state, b, row, ts)
    elif kind == _LEVEL:
        engine_levels.set_level(state, b, row, ts)
    elif kind == _EXECUTE:
        engine_trades.execute(state, b, row, ts, True)
    elif kind == _CLEAR:
        engine_levels.clear(state, b, row, ts)
    else:
        engine_orders.change(state, b, row, ts)


@kernel_part
def _kept_out(state: Array, b: Word, row: Array, ts: Word) -> None:
    """A book row while its book is not kept, or inside a group that is not applied."""
    book = es.book_row(state, b)
    if book.mode == es.BUFFER:
        sync.buffer_row(state, b, row)
        return
    if row.kind == _EXECUTE and book.phase != es.LIVE:
        engine_trades.execute(state, b, row, ts, False)
    if book.mode != es.WAIT:
        return
    if row.kind == _CLEAR and row.side == 0:
        sync.whole_clear(state, b, row, ts)
    elif book.phase == es.AWAIT:
        sync.miss_snapshot(state, b, ts, row)


@kernel_part
def _bracket(state: Array, rows: Array, i: Word, b: Word, resumed: bool) -> tuple[Word, Word]:
    """BEGIN or END at row i: (code, next row)."""
    row = rows[i]
    ts = time_of(state, b, row)
    if row.kind == _END:
        code = engine_close.end(state, b, row, ts, resumed)
        return code, i + 1
    most = state[es.MAX_PENDING]
    last = _group_end(rows, i, most)
    if last < 0:
        cut, stop = -1 - last, len(rows)
        if cut == stop and stop - i < most:
            return es.CARRY, i
        _incomplete(state, b, row, ts, cut < stop and rows[cut].kind == _FEED_END)
        return es.DONE, cut
    sync.begin(state, b, row, ts, last - i + 1)
    return es.DONE, i + 1


@kernel_part
def _direct_end(state: Array, b: Word, row: Array, ts: Word) -> None:
    """A row with LAST outside brackets."""
    book = es.book_row(state, b)
    if not _TRADE <= row.kind <= _VENUE_ASK:
        check_time(state, b, row, ts)
    book.open = 0
    if book.dirty & es.TOP or (book.dirty and book.slow):
        engine_close.close_direct(state, b, row, ts)
    book.dirty = 0


@kernel_part
def _look_ahead(state: Array, rows: Array, i: Word, stop: Word) -> None:
    """Have the memory that coming order rows want fetched while the rows before them are worked
    on: it lies anywhere, and waiting for it would take half of the time."""
    books = es.all_books_of(state)
    if i + _FAR < stop:
        row = rows[i + _FAR]
        if row.kind <= _EXECUTE and row.instrument >= 0:
            b = books[row.instrument]
            if b >= 0:
                orders.expect(state, row.order_hi, row.order_lo, row.order_kind, b)
    if i + _NEAR < stop:
        row = rows[i + _NEAR]
        if _ADD < row.kind <= _EXECUTE and row.instrument >= 0:
            b = books[row.instrument]
            if b >= 0:
                orders.expect_order(state, row.order_hi, row.order_lo, row.order_kind, b)


@bare_kernel
def run(state: Array, rows: Array, start: Word, resumed: bool) -> tuple[Word, Word]:
    """Apply ``rows[start:]``: (code, first row not applied).

    ``resumed``: row ``start`` is an
    END whose replay has been done. Codes are those of engine_state: grow what is asked for and
    call again; REPLAY: run the book's buffered rows, then call again ``resumed``.
    """
    i, stop = start, len(rows)
    while i < stop:
        fits, need = _room(state)
        if fits <= 0:
            return need, i
        pause = min(stop, i + fits)
        while i < pause:
            _look_ahead(state, rows, i, stop)
            row = rows[i]
            if row.instrument < 0:
                code = _everybody(state, row)
                if code != es.DONE:
                    return code, i
                i += 1
                continue
            b = es.all_books_of(state)[row.instrument]
            if b < 0:
                return es.NEW_BOOK, i
            book = es.book_row(state, b)
            kind = row.kind
            book.touched = 1
            if book.shown_at < 0 and not _TRADE <= kind <= _VENUE_ASK:
                return es.NEW_SHOWN, i
            if kind <= _ORDER_SIZE:
                ts = time_of(state, b, row)
                if book.mode == es.WAIT and book.phase >= es.HELD:
                    sync.go_on(state, b, row, ts)
                if book.mode == es.DIRECT or book.mode == es.APPLY:
                    if book.max_levels > 0 and not _fits(state, engine_close.excess(state, b) + 8):
                        return es.MORE_OUTPUT, i
                    _change_book(state, b, row, ts)
                    if book.mode == es.DIRECT:
                        book.open = 1
                else:
                    _kept_out(state, b, row, ts)
            elif kind == _BEGIN or kind == _END:
                if not _fits(state, engine_close.excess(state, b) + 8):
                    return es.MORE_OUTPUT, i
                code, i = _bracket(state, rows, i, b, resumed and i == start)
                if code == es.REPLAY:
                    return code, i - 1
                if code == es.CARRY:
                    return code, i
                continue
            elif _TRADE <= kind <= _CORRECTION:
                engine_trades.print_row(state, b, row, time_of(state, b, row))
            elif kind == _VENUE_BID or kind == _VENUE_ASK:
                venue_quote(state, b, row, time_of(state, b, row))
            elif kind == _DISCONNECT:
                sync.disconnect(state, b, row, time_of(state, b, row))
            elif _GAP <= kind <= _LOST:
                feed_gap.apply(state, b, row, time_of(state, b, row))
            elif kind == _LINE:
                feed_gap.line(state, b, row, time_of(state, b, row))
            if row.flags & _LAST and book.mode <= es.WAIT:
                _direct_end(state, b, row, time_of(state, b, row))
            i += 1
    return es.DONE, i
