"""Rows of the engine: quality events, book events, and the checks of time."""

from __future__ import annotations

from typing import Final

from marketflow.operators.books.kernels import state as es
from marketflow.operators.books.kernels.state import Array, Word
from marketflow.operators.events import EventKind
from marketflow.schemas.codes import BookState, QualityKind, RowFlag
from marketflow.schemas.kernel import kernel_part
from marketflow.schemas.units import NO_PRICE

_LATE: Final = int(QualityKind.LATE)
_CLOCK_SKEW: Final = int(QualityKind.CLOCK_SKEW)
_TRADE: Final = int(EventKind.TRADE)
_CORRECTION: Final = int(EventKind.CORRECTION)
_VENUE_BID: Final = int(EventKind.VENUE_BID)
_VENUE_ASK: Final = int(EventKind.VENUE_ASK)
_CROSSED: Final = int(BookState.CROSSED)
_MAYBE_BAD: Final = int(RowFlag.MAYBE_BAD)
_SHOWN: Final = int(RowFlag.LAST | RowFlag.SNAPSHOT | RowFlag.MAYBE_BAD)


@kernel_part
def time_of(state: Array, b: Word, row: Array) -> Word:
    """Event time of a row; where the venue gives none, the later of its arrival and the book's
    latest event time."""
    if row.ts_event != 0:
        return row.ts_event
    return max(es.book_row(state, b).ts_max, row.ts_recv)


@kernel_part
def quality(
    state: Array, b: Word, ts: Word, recv: Word, kind: Word, first: Word, last: Word,
    value: Word, expected: Word, until: Word, cause: Word,
) -> Word:  # fmt: skip
    """A quality event; its row_sequence (-1 where they are not asked for).

    Null: ids NO_SEQUENCE; ``value``, ``expected`` NO_PRICE; ``until`` 0; ``cause`` -1.
    """
    if state[es.EMIT_QUALITY] == 0:
        return -1
    n = state[es.N_QUALITY]
    state[es.N_QUALITY] = n + 1
    out = es.quality_out(state, n)
    out.ts_event = ts
    out.ts_recv = recv
    out.sequence_from = first
    out.sequence_to = last
    out.ts_until = until
    out.value = value
    out.expected = expected
    out.cause_id = cause if cause >= 0 else NO_PRICE
    out.instrument = es.book_row(state, b).instrument
    out.kind = kind
    return state[es.QUALITY_BASE] + n


@kernel_part
def fault(
    state: Array, b: Word, ts: Word, recv: Word, kind: Word, first: Word, last: Word, value: Word
) -> Word:
    """A primary quality event with at most one value; its row_sequence."""
    return quality(state, b, ts, recv, kind, first, last, value, NO_PRICE, 0, -1)


@kernel_part
def _channel(kind: Word) -> Word:
    """0 book, 1 trades, 2 the venue's own best prices."""
    if _TRADE <= kind <= _CORRECTION:
        return 1
    return 2 if kind == _VENUE_BID or kind == _VENUE_ASK else 0


@kernel_part
def check_time(state: Array, b: Word, row: Array, ts: Word) -> None:
    """LATE and CLOCK_SKEW of a message group, trade or venue quote; moves the clocks.

    Late is what is older than the newest of its own channel: venues send the channels of an
    instrument side by side, in no order of time. Rows without an event time say nothing about it.
    """
    if row.ts_event == 0:
        return
    book = es.book_row(state, b)
    channel = _channel(row.kind)
    newest = book.channel_ts[channel]
    if ts < newest:
        fault(state, b, ts, row.ts_recv, _LATE, row.sequence, row.sequence, newest - ts)
    else:
        book.channel_ts[channel] = ts
        book.ts_max = max(book.ts_max, ts)
    if row.ts_recv != 0:
        skewed = row.ts_recv + state[es.SKEW_NS] < ts
        if skewed and book.skewed == 0:
            ahead = ts - row.ts_recv
            fault(state, b, ts, row.ts_recv, _CLOCK_SKEW, row.sequence, row.sequence, ahead)
        book.skewed = 1 if skewed else 0


@kernel_part
def book_event(
    state: Array, b: Word, ts: Word, row: Array, action: Word, side: Word, price: Word, size: Word,
    hi: Array, lo: Array, kind: Word, flags: Word,
) -> None:  # fmt: skip
    """A row of ``book_events``. ``flags`` are those of the event row; maybe_bad is added here."""
    n = state[es.N_EVENTS]
    state[es.N_EVENTS] = n + 1
    state[es.GROUP_EVENT] = n
    book = es.book_row(state, b)
    out = es.event_out(state, n)
    out.ts_event = ts
    out.ts_recv = row.ts_recv
    out.sequence = row.sequence
    out.price = price
    out.size = size
    out.order_id_hi = hi
    out.order_id_lo = lo
    out.order_id_kind = kind
    out.instrument = book.instrument
    out.action = action
    out.side = side
    bad = book.state == _CROSSED and book.may_cross == 0
    out.flags = (flags & _SHOWN) | (_MAYBE_BAD if bad else 0)
    out.price_scale = max(book.price_exp, 0)
    out.size_scale = max(book.size_exp, 0)
