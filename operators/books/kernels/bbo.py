"""The venue's own best prices: ``quotes`` rows of origin venue, compared with the kept book.

How they are compared depends on ``bbo_tolerance``:

- 0, and the quotes carry update ids of the book's own sequence (Binance): the best prices at the
  end of a group with id u must equal the venue's last quote with an id <= u. Which quote that is
  shows when the first one with a later id comes, so groups wait for it in their ring.
- t > 0: channels race. A quote must have the best prices at one of the t groups before it, the
  current one, or one of the t after it. Sizes are not compared: such a channel is conflated, and
  a size may be one that the book never stood at when a group ended.

With tolerance 0 sizes are compared where the venue tells them. The first failing comparison of a
run is a BBO_MISMATCH; ``value`` says what differs: 1 bid price, 2 bid size, 4 ask price, 8 ask
size.
A ring of the last 64 on either side is kept per book: tolerance beyond that has no effect.
"""

from __future__ import annotations

from typing import Final

from marketflow.operators.books.kernels import levels
from marketflow.operators.books.kernels import state as es
from marketflow.operators.books.kernels.exponents import price_of, size_of
from marketflow.operators.books.kernels.report import check_time, fault
from marketflow.operators.books.kernels.state import Array, Word
from marketflow.operators.events import NO_SEQUENCE, EventKind
from marketflow.schemas.codes import BookState, Origin, QualityKind
from marketflow.schemas.kernel import kernel_part
from marketflow.schemas.units import NO_PRICE

_VENUE: Final = int(Origin.VENUE)
_VALID: Final = int(BookState.VALID)
_STALE: Final = int(BookState.STALE)
_BBO_MISMATCH: Final = int(QualityKind.BBO_MISMATCH)
_VENUE_BID: Final = int(EventKind.VENUE_BID)


@kernel_part
def _difference(venue: Array, own: Array, tolerance: Word) -> Word:
    """Which values differ (bits as in the module's docstring); an untold size is no difference."""
    found = 0
    if venue.bid_price != own.bid_price:
        found |= 1
    elif tolerance == 0 and venue.bid_size != own.bid_size and venue.bid_size != 0:
        found |= 2
    if venue.ask_price != own.ask_price:
        found |= 4
    elif tolerance == 0 and venue.ask_size != own.ask_size and venue.ask_size != 0:
        found |= 8
    return found


@kernel_part
def _judge(
    state: Array, b: Word, ts: Word, recv: Word, first: Word, last: Word, difference: Word
) -> None:
    book = es.book_row(state, b)
    state[es.BBO_CHECKED] += 1
    if difference:
        state[es.BBO_MISMATCHED] += 1
        if book.mismatched == 0:
            fault(state, b, ts, recv, _BBO_MISMATCH, first, last, difference)
    book.mismatched = 1 if difference else 0


@kernel_part
def _own_best(state: Array, b: Word, out: Array) -> None:
    """Best prices as they are now into a BEST row."""
    out.bid_price = out.ask_price = NO_PRICE
    out.bid_size = out.ask_size = 0
    bid, ask = levels.side_row(state, 2 * b).best, levels.side_row(state, 2 * b + 1).best
    if bid >= 0:
        out.bid_price, out.bid_size = (
            levels.level_row(state, bid).price,
            levels.level_row(state, bid).size,
        )
    if ask >= 0:
        out.ask_price, out.ask_size = (
            levels.level_row(state, ask).price,
            levels.level_row(state, ask).size,
        )


@kernel_part
def _settle_open(state: Array, b: Word, ts: Word, recv: Word) -> None:
    """Compare the newest own entry with the quotes that wait for a match."""
    book = es.book_row(state, b)
    rings = es.ring_row(state, book.bbo)
    own = rings.own[(book.own_count - 1) % es.RING]
    oldest = max(book.venue_open, book.venue_count - es.RING)
    for k in range(oldest, book.venue_count):
        quote = rings.venue[k % es.RING]
        if quote.settled == 0:
            difference = _difference(quote, own, book.bbo_tolerance)
            late = book.groups - quote.group >= min(book.bbo_tolerance, es.RING)
            if difference == 0 or late:
                quote.settled = 1
                _judge(state, b, ts, recv, quote.at, book.applied, difference)
    while book.venue_open < book.venue_count:
        inside = book.venue_open >= book.venue_count - es.RING
        if inside and rings.venue[book.venue_open % es.RING].settled == 0:
            break
        book.venue_open += 1


@kernel_part
def compare_at_group_end(state: Array, b: Word, ts: Word, recv: Word) -> None:
    """A group of a book with rings has ended, and the book is shown."""
    book = es.book_row(state, b)
    rings = es.ring_row(state, book.bbo)
    book.groups += 1
    own = rings.own[book.own_count % es.RING]
    _own_best(state, b, own)
    own.at = book.applied
    own.group = book.groups
    if book.bbo_tolerance > 0:
        book.own_count += 1
        if book.venue_open < book.venue_count:
            _settle_open(state, b, ts, recv)
        return
    if book.applied == NO_SEQUENCE:
        return
    book.own_count += 1
    if book.venue_count > 0:
        newest = rings.venue[(book.venue_count - 1) % es.RING].at
        _settle_before(state, b, ts, recv, newest)


@kernel_part
def _settle_before(state: Array, b: Word, ts: Word, recv: Word, quote_id: Word) -> None:
    """Tolerance 0: compare the waiting groups with ids below ``quote_id``, the newest quote's.

    ``venue_open`` counts the groups that were compared; groups that fell out of the ring are not.
    """
    book = es.book_row(state, b)
    rings = es.ring_row(state, book.bbo)
    book.venue_open = max(book.venue_open, book.own_count - es.RING)
    while book.venue_open < book.own_count:
        own = rings.own[book.venue_open % es.RING]
        if own.at >= quote_id:
            return
        oldest = max(book.venue_count - es.RING, 0)
        for k in range(book.venue_count - 1, oldest - 1, -1):
            quote = rings.venue[k % es.RING]
            if quote.at <= own.at:
                difference = _difference(quote, own, book.bbo_tolerance)
                _judge(state, b, ts, recv, quote.at, own.at, difference)
                break
        book.venue_open += 1


@kernel_part
def settle_at_end(state: Array, b: Word, ts: Word, recv: Word) -> None:
    """Tolerance 0, the feed is over: what still waits is compared with the last quote there was.

    At most one BBO_MISMATCH per book comes of it.
    """
    book = es.book_row(state, b)
    if book.bbo < 0 or book.bbo_tolerance > 0:
        return
    rings = es.ring_row(state, book.bbo)
    told = False
    oldest = max(book.venue_count - es.RING, 0)
    for n in range(max(book.venue_open, book.own_count - es.RING), book.own_count):
        own = rings.own[n % es.RING]
        for k in range(book.venue_count - 1, oldest - 1, -1):
            quote = rings.venue[k % es.RING]
            if quote.at <= own.at:
                difference = _difference(quote, own, book.bbo_tolerance)
                book.mismatched = 1 if told else book.mismatched
                told = told or (difference != 0 and book.mismatched == 0)
                _judge(state, b, ts, recv, quote.at, own.at, difference)
                break
    book.venue_open = book.own_count


@kernel_part
def forget_quotes(book: Array) -> None:
    """Nothing can be compared across an outage."""
    book.venue_count = 0
    book.venue_open = 0
    book.own_count = 0
    book.mismatched = 0


@kernel_part
def _enter_ring(state: Array, b: Word, row: Array, ts: Word) -> None:
    book = es.book_row(state, b)
    if book.bbo < 0:
        book.bbo = state[es.N_RINGS]
        state[es.N_RINGS] += 1
    rings = es.ring_row(state, book.bbo)
    if book.bbo_tolerance == 0 and row.sequence != NO_SEQUENCE:
        _settle_before(state, b, ts, row.ts_recv, row.sequence)
    quote = rings.venue[book.venue_count % es.RING]
    quote.at = row.sequence
    quote.group = book.groups
    quote.bid_price = book.shown_venue[0]
    quote.bid_size = book.shown_venue[1] if book.shown_venue[1] != NO_PRICE else 0
    quote.ask_price = book.shown_venue[2]
    quote.ask_size = book.shown_venue[3] if book.shown_venue[3] != NO_PRICE else 0
    quote.settled = 0
    if book.bbo_tolerance == 0:
        book.venue_count += 1 if row.sequence != NO_SEQUENCE else 0
        return
    if book.phase != es.LIVE or book.state < 0:
        return
    reach = book.groups - min(book.bbo_tolerance, es.RING - 1)
    k = book.own_count - 1
    while k >= 0 and k > book.own_count - 1 - es.RING and rings.own[k % es.RING].group >= reach:
        if _difference(quote, rings.own[k % es.RING], book.bbo_tolerance) == 0:
            _judge(state, b, ts, row.ts_recv, row.sequence, book.applied, 0)
            return
        k -= 1
    book.venue_count += 1


@kernel_part
def _show_venue(state: Array, b: Word, row: Array, ts: Word) -> None:
    book = es.book_row(state, b)
    if state[es.EMIT_QUOTES] == 0:
        return
    n = state[es.N_QUOTES]
    state[es.N_QUOTES] = n + 1
    out = es.quote_out(state, n)
    out.ts_event = ts
    out.ts_recv = row.ts_recv
    out.bid_price = book.shown_venue[0]
    out.bid_size = book.shown_venue[1]
    out.ask_price = book.shown_venue[2]
    out.ask_size = book.shown_venue[3]
    out.sequence = row.sequence
    out.instrument = book.instrument
    out.origin = _VENUE
    out.book_state = _VALID
    out.price_scale = max(book.price_exp, 0)
    out.size_scale = max(book.size_exp, 0)


@kernel_part
def venue_quote(state: Array, b: Word, row: Array, ts: Word) -> None:
    """VENUE_BID, then VENUE_ASK: a ``quotes`` row where the venue's best changed.

    A side without a price is empty. Where a number of either side cannot be taken, the quote is
    left out whole.
    """
    book = es.book_row(state, b)
    empty = row.price == NO_PRICE
    price = NO_PRICE if empty else price_of(state, b, row)
    size = NO_PRICE if empty else size_of(state, b, row)
    bad = not empty and (price == NO_PRICE or size < 0)
    if row.kind == _VENUE_BID:
        book.venue_bid_price = price
        book.venue_bid_size = size
        book.venue_bad = 1 if bad else 0
        return
    check_time(state, b, row, ts)
    bid_price, bid_size = book.venue_bid_price, book.venue_bid_size
    bad = bad or book.venue_bad != 0
    book.venue_bid_price = NO_PRICE
    book.venue_bid_size = NO_PRICE
    book.venue_bad = 0
    if bad:
        return
    shown = book.shown_venue
    same = (
        book.venue_shown != 0
        and shown[0] == bid_price
        and shown[1] == bid_size
        and shown[2] == price
        and shown[3] == size
    )
    shown[0] = bid_price
    shown[1] = bid_size
    shown[2] = price
    shown[3] = size
    book.venue_shown = 1
    if not same:
        _show_venue(state, b, row, ts)
    if state[es.CHECK_BBO] and book.has_book:
        _enter_ring(state, b, row, ts)
