"""What is shown of a book: its state, the ``quotes`` and ``depth`` rows, the venue's checksum."""

from __future__ import annotations

from typing import Final

import numpy as np

from marketflow.operators.books.kernels import levels
from marketflow.operators.books.kernels import state as es
from marketflow.operators.books.kernels.checksum import OKX_LEVELS, checksum_into
from marketflow.operators.books.kernels.state import Array, Word
from marketflow.schemas.codes import BookState, Origin
from marketflow.schemas.kernel import kernel_part
from marketflow.schemas.units import NO_PRICE

_VALID: Final = int(BookState.VALID)
_STALE: Final = int(BookState.STALE)
_CROSSED: Final = int(BookState.CROSSED)
_LOCKED: Final = int(BookState.LOCKED)
_ONE_SIDED: Final = int(BookState.ONE_SIDED)
_EMPTY: Final = int(BookState.EMPTY)
_BOOK: Final = int(Origin.BOOK)
_POWERS: Final = np.array([10**n for n in range(19)], np.int64)


@kernel_part
def state_of(state: Array, b: Word) -> Word:
    """BookState of a book that is kept."""
    bid, ask = levels.side_row(state, 2 * b).best, levels.side_row(state, 2 * b + 1).best
    if bid < 0 or ask < 0:
        return _EMPTY if bid < 0 and ask < 0 else _ONE_SIDED
    bid_price, ask_price = levels.level_row(state, bid).price, levels.level_row(state, ask).price
    if bid_price < ask_price:
        return _VALID
    return _CROSSED if bid_price > ask_price else _LOCKED


@kernel_part
def show_quote(
    state: Array, b: Word, ts: Word, recv: Word, sequence: Word, book_state: Word
) -> None:
    """A ``quotes`` row if the best prices, sizes or the state are not those last shown."""
    book = es.book_row(state, b)
    bid_price = ask_price = NO_PRICE
    bid_size = ask_size = NO_PRICE
    if book_state != _STALE:
        bid, ask = levels.side_row(state, 2 * b).best, levels.side_row(state, 2 * b + 1).best
        if bid >= 0:
            bid_price, bid_size = (
                levels.level_row(state, bid).price,
                levels.level_row(state, bid).size,
            )
        if ask >= 0:
            ask_price, ask_size = (
                levels.level_row(state, ask).price,
                levels.level_row(state, ask).size,
            )
    if (
        book.bid_price == bid_price
        and book.bid_size == bid_size
        and book.ask_price == ask_price
        and book.ask_size == ask_size
        and book.state == book_state
    ):
        return
    book.bid_price = bid_price
    book.bid_size = bid_size
    book.ask_price = ask_price
    book.ask_size = ask_size
    if state[es.EMIT_QUOTES] == 0:
        return
    n = state[es.N_QUOTES]
    state[es.N_QUOTES] = n + 1
    out = es.quote_out(state, n)
    out.ts_event = ts
    out.ts_recv = recv
    out.bid_price = bid_price
    out.bid_size = bid_size
    out.ask_price = ask_price
    out.ask_size = ask_size
    out.sequence = sequence
    out.instrument = book.instrument
    out.origin = _BOOK
    out.book_state = book_state
    out.price_scale = max(book.price_exp, 0)
    out.size_scale = max(book.size_exp, 0)


@kernel_part
def _fill_side(
    state: Array, side: Word, most: Word, prices: Array, sizes: Array, counts: Array
) -> Word:
    """Best ``most`` levels of a side into arrays; how many there are."""
    found = 0
    n = levels.side_row(state, side).top
    while n >= 0 and found < most:
        node = levels.node_row(state, n)
        j = node.count - 1
        while j >= 0 and found < most:
            level = levels.level_row(state, node.refs[j])
            prices[found] = level.price
            sizes[found] = level.size
            counts[found] = level.count
            found += 1
            j -= 1
        n = node.prev
    for j in range(found, len(prices)):
        prices[j] = 0
        sizes[j] = 0
        counts[j] = 0
    return found


@kernel_part
def _same_depth(a: Array, b: Array) -> bool:
    if a.bid_levels != b.bid_levels or a.ask_levels != b.ask_levels:
        return False
    for j in range(a.bid_levels):
        if a.bid_prices[j] != b.bid_prices[j] or a.bid_sizes[j] != b.bid_sizes[j]:
            return False
        if a.bid_counts[j] != b.bid_counts[j]:
            return False
    for j in range(a.ask_levels):
        if a.ask_prices[j] != b.ask_prices[j] or a.ask_sizes[j] != b.ask_sizes[j]:
            return False
        if a.ask_counts[j] != b.ask_counts[j]:
            return False
    return True


@kernel_part
def show_depth(state: Array, b: Word, ts: Word, sequence: Word, book_state: Word) -> None:
    """A ``depth`` row if the top levels or the state are not those last shown.

    With an interval, only the first group end in a new interval of event time shows; a book that
    goes stale, or is valid again, shows at once.
    """
    book = es.book_row(state, b)
    interval = state[es.DEPTH_INTERVAL_NS]
    shown = es.shown_row(state, book.shown_at)
    if interval > 0 and book_state != _STALE and shown.book_state != _STALE:
        bucket = ts // interval
        if bucket <= book.depth_bucket:
            return
        book.depth_bucket = bucket
    n = state[es.N_DEPTH]
    out = es.depth_out(state, n)
    most = state[es.DEPTH_LEVELS] if book_state != _STALE else 0
    out.bid_levels = _fill_side(state, 2 * b, most, out.bid_prices, out.bid_sizes, out.bid_counts)
    out.ask_levels = _fill_side(
        state, 2 * b + 1, most, out.ask_prices, out.ask_sizes, out.ask_counts
    )
    out.book_state = book_state
    if shown.book_state == book_state and _same_depth(out, shown):
        return
    state[es.N_DEPTH] = n + 1
    out.ts_event = ts
    out.sequence = sequence
    out.instrument = book.instrument
    out.price_scale = max(book.price_exp, 0)
    out.size_scale = max(book.size_exp, 0)
    es.all_shown(state)[book.shown_at] = out


@kernel_part
def _as_sent(value: Word, exponent: Word, scale: Word) -> Word:
    """Mantissa at ``exponent`` back to the scale it was sent with."""
    if scale >= exponent:
        return value * _POWERS[min(scale - exponent, 18)]
    return value // _POWERS[exponent - scale]


@kernel_part
def _sent_side(state: Array, b: Word, side: Word, out: Array) -> Word:
    """Best levels of a side as sent into four runs of OKX_LEVELS: prices, scales, sizes, scales."""
    book = es.book_row(state, b)
    found = 0
    n = levels.side_row(state, 2 * b + side).top
    while n >= 0 and found < OKX_LEVELS:
        node = levels.node_row(state, n)
        j = node.count - 1
        while j >= 0 and found < OKX_LEVELS:
            level = levels.level_row(state, node.refs[j])
            out[found] = _as_sent(level.price, book.price_exp, level.price_scale)
            out[OKX_LEVELS + found] = level.price_scale
            out[2 * OKX_LEVELS + found] = _as_sent(level.size, book.size_exp, level.size_scale)
            out[3 * OKX_LEVELS + found] = level.size_scale
            found += 1
            j -= 1
        n = node.prev
    return found


@kernel_part
def checksum_of(state: Array, b: Word) -> Word:
    """The venue's checksum of the kept book, 0 .. 2**32 - 1."""
    sent = es.scratch(state)
    n_bids = _sent_side(state, b, 0, sent)
    n_asks = _sent_side(state, b, 1, sent[4 * OKX_LEVELS :])
    k = OKX_LEVELS
    rule: Word = np.int64(es.book_row(state, b).checksum_rule)
    return np.int64(
        checksum_into(
            es.text(state), rule,
            sent[:k], sent[k : 2 * k], sent[2 * k : 3 * k], sent[3 * k : 4 * k], n_bids,
            sent[4 * k : 5 * k], sent[5 * k : 6 * k], sent[6 * k : 7 * k], sent[7 * k :], n_asks,
        )
    )  # fmt: skip
