"""Numbers as sent to the exponents of a book.

A book's exponents start at the first scale seen and only rise: when a value has more real decimals
than the book, everything the book holds is multiplied. A value that fits neither int64 at the
book's exponent nor decimal128(28, 12), or that would push out what is there already, is rejected
by itself.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from marketflow.operators.books.kernels import levels, orders
from marketflow.operators.books.kernels import state as es
from marketflow.operators.books.kernels.state import Array, Word
from marketflow.schemas.kernel import kernel_part
from marketflow.schemas.units import COLUMN_SCALE, INT64_MAX, NO_PRICE, PRICE_PRECISION

_POWERS: Final = np.array([10**n for n in range(19)], np.int64)
#: Largest mantissa by exponent: what the column holds, as far as int64 reaches.
_LIMITS: Final = np.array(
    [
        min(10 ** (PRICE_PRECISION - COLUMN_SCALE + n) - 1, INT64_MAX)
        for n in range(COLUMN_SCALE + 1)
    ],
    np.int64,
)
#: A shown value that no book value equals: forces the next row out.
_UNLIKE: Final = NO_PRICE + 1


@kernel_part
def reject(state: Array, b: Word, row: Array, mantissa: Word, scale: Word, what: Word) -> None:
    """Note a value as a dead letter."""
    n = state[es.N_REJECTS]
    state[es.N_REJECTS] = n + 1
    out = es.reject_out(state, n)
    out.offset = es.all_offsets(state)[row.frame] if 0 <= row.frame < state[es.OFFSETS + 1] else -1
    out.ts = row.ts_recv if row.ts_recv != 0 else max(row.ts_event, es.book_row(state, b).ts_max)
    out.mantissa = mantissa
    out.scale = scale
    out.what = what


@kernel_part
def _scaled(value: Word, factor: Word, limit: Word) -> Word:
    """value * factor, or _UNLIKE where that is beyond the limit; NO_PRICE stays."""
    if value == NO_PRICE:
        return value
    if abs(value) > limit // factor:
        return _UNLIKE
    return value * factor


@kernel_part
def _fits(state: Array, b: Word, factor: Word, limit: Word, of_size: bool) -> bool:
    """May every level of the book, and the bid of an open venue quote, be multiplied?"""
    most = limit // factor
    book = es.book_row(state, b)
    quoted = book.venue_bid_size if of_size else book.venue_bid_price
    if quoted != NO_PRICE and abs(quoted) > most:
        return False
    for side in range(2 * b, 2 * b + 2):
        n = levels.side_row(state, side).top
        while n >= 0:
            node = levels.node_row(state, n)
            for j in range(node.count):
                level = levels.level_row(state, node.refs[j])
                if (level.size if of_size else abs(level.price)) > most:
                    return False
            n = node.prev
    return True


@kernel_part
def _rescale_shown(state: Array, b: Word, factor: Word, limit: Word, of_size: bool) -> None:
    book = es.book_row(state, b)
    if of_size:
        book.bid_size = _scaled(book.bid_size, factor, limit)
        book.ask_size = _scaled(book.ask_size, factor, limit)
        book.venue_bid_size = _scaled(book.venue_bid_size, factor, limit)
    else:
        book.bid_price = _scaled(book.bid_price, factor, limit)
        book.ask_price = _scaled(book.ask_price, factor, limit)
        book.venue_bid_price = _scaled(book.venue_bid_price, factor, limit)
    for j in range(1 if of_size else 0, 4, 2):
        book.shown_venue[j] = _scaled(book.shown_venue[j], factor, limit)
    if state[es.EMIT_DEPTH] and book.shown_at >= 0:
        shown = es.shown_row(state, book.shown_at)
        bids = shown.bid_sizes if of_size else shown.bid_prices
        asks = shown.ask_sizes if of_size else shown.ask_prices
        for j in range(shown.bid_levels):
            bids[j] = _scaled(bids[j], factor, limit)
        for j in range(shown.ask_levels):
            asks[j] = _scaled(asks[j], factor, limit)
    if book.bbo >= 0:
        rings = es.ring_row(state, book.bbo)
        for j in range(es.RING):
            venue, own = rings.venue[j], rings.own[j]
            if of_size:
                venue.bid_size = _scaled(venue.bid_size, factor, limit)
                venue.ask_size = _scaled(venue.ask_size, factor, limit)
                own.bid_size = _scaled(own.bid_size, factor, limit)
                own.ask_size = _scaled(own.ask_size, factor, limit)
            else:
                venue.bid_price = _scaled(venue.bid_price, factor, limit)
                venue.ask_price = _scaled(venue.ask_price, factor, limit)
                own.bid_price = _scaled(own.bid_price, factor, limit)
                own.ask_price = _scaled(own.ask_price, factor, limit)


@kernel_part
def _raise(state: Array, b: Word, exponent: Word, of_size: bool) -> bool:
    """Raise an exponent of the book; False, and nothing changed, where a value would not fit."""
    book = es.book_row(state, b)
    limit = _LIMITS[exponent]
    factor = _POWERS[exponent - (book.size_exp if of_size else book.price_exp)]
    if not _fits(state, b, factor, limit, of_size):
        return False
    for side in range(2 * b, 2 * b + 2):
        if of_size:
            n = levels.side_row(state, side).top
            while n >= 0:
                node = levels.node_row(state, n)
                for j in range(node.count):
                    orders.rescale_queue(state, levels.level_row(state, node.refs[j]), factor)
                n = node.prev
            levels.rescale(state, side, 1, factor)
        else:
            levels.rescale(state, side, factor, 1)
    _rescale_shown(state, b, factor, limit, of_size)
    if of_size:
        book.size_exp = exponent
        book.size_limit = limit
    else:
        book.price_exp = exponent
        book.price_limit = limit
    return True


@kernel_part
def _refit(state: Array, b: Word, mantissa: Word, scale: Word, of_size: bool) -> Word:
    """The mantissa at the book's exponent, which may rise for it; NO_PRICE: cannot be taken."""
    book = es.book_row(state, b)
    exponent = book.size_exp if of_size else book.price_exp
    if mantissa == NO_PRICE:
        return NO_PRICE
    if mantissa == 0:
        scale = min(max(scale, 0), COLUMN_SCALE)
        if exponent >= 0:
            return 0
    while scale > max(exponent, 0) and (exponent >= 0 or scale > COLUMN_SCALE):
        if mantissa % 10 != 0:
            break
        mantissa //= 10
        scale -= 1
    if scale > COLUMN_SCALE or scale < -18:
        return NO_PRICE
    if exponent < 0:
        exponent = max(scale, 0)
        if of_size:
            book.size_exp = exponent
            book.size_limit = _LIMITS[exponent]
        else:
            book.price_exp = exponent
            book.price_limit = _LIMITS[exponent]
    if scale > exponent:
        limit = _LIMITS[scale]
        if abs(mantissa) > limit or not _raise(state, b, scale, of_size):
            return NO_PRICE
        return mantissa
    factor = exponent - scale
    if factor > 18 or abs(mantissa) > _LIMITS[exponent] // _POWERS[factor]:
        return NO_PRICE
    return mantissa * _POWERS[factor]


@kernel_part
def price_of(state: Array, b: Word, row: Array) -> Word:
    """The row's price at the book's exponent; NO_PRICE after a reject."""
    book = es.book_row(state, b)
    price = row.price
    if row.price_scale == book.price_exp and -book.price_limit <= price <= book.price_limit:
        return price
    price = _refit(state, b, row.price, row.price_scale, False)
    if price == NO_PRICE:
        reject(state, b, row, row.price, row.price_scale, es.WHAT_PRICE)
    return price


@kernel_part
def size_of(state: Array, b: Word, row: Array) -> Word:
    """The row's size at the book's exponent; -1 after a reject."""
    book = es.book_row(state, b)
    size = row.size
    if row.size_scale == book.size_exp and 0 <= size <= book.size_limit:
        return size
    if size < 0:
        reject(state, b, row, row.size, row.size_scale, es.WHAT_NEGATIVE)
        return -1
    size = _refit(state, b, row.size, row.size_scale, True)
    if size == NO_PRICE:
        reject(state, b, row, row.size, row.size_scale, es.WHAT_SIZE)
        return -1
    return size
