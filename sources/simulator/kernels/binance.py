"""Simulated Binance spot streams: price-level books of many symbols, written as JSON.

Every change of a book takes one update id. A symbol's ``bookTicker`` follows every change of its
best prices or sizes before anything else of that symbol is sent, and its ``depthUpdate`` says all
levels that changed since the one before, so that a book kept from the feed agrees with the last
ticker at every update id. The first depth of a symbol is followed by its REST book.

Prices are in ticks of 0.01, sizes in units of 0.00001. Levels live in a ring as in
:mod:`sources.simulator.kernels.book`.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from marketflow.schemas.kernel import bare_kernel
from marketflow.schemas.messages.frames import FrameKind
from marketflow.sources.simulator.chance import (
    BURST_SYMBOL,
    LEFT,
    ONE,
    SHARED_SLOTS,
    TS,
    advance,
    below,
    draw,
    exponential,
)
from marketflow.sources.simulator.kernels.book import FLOOR, LEAST, MASK, REACH

#: Levels that may wait for the next depth; a depth is sent at the latest when this many wait.
WAITING: Final = 96
_ENOUGH = 64
#: Room a message may need: a REST book of all levels.
LARGEST: Final = 2 * (REACH + 1) * 48 + 256
NAME: Final = 16

SYMBOL: Final = np.dtype(
    [
        ("value", "<i8"),  # fair value, ticks * ONE
        ("step", "<i8"),
        ("id", "<i8"),  # update id of the last change
        ("sent", "<i8"),  # last update id of the last depth
        ("trade", "<i8"),  # id of the last trade
        ("centre", "<i4"),
        ("best_bid", "<i4"),
        ("best_ask", "<i4"),
        ("bids", "<i4"),  # levels
        ("asks", "<i4"),
        ("half_spread", "<i4"),
        ("waiting", "<i4"),
        ("depths", "<i4"),  # depths sent
        ("name_size", "<i4"),
    ],
    align=True,
)
#: What must be sent next, and of which symbol (slots of ``flow``).
DUE, DUE_SYMBOL = range(SHARED_SLOTS, SHARED_SLOTS + 2)
FLOW_SLOTS: Final = SHARED_SLOTS + 2
NOTHING, TICKER, TICKER_AND_DEPTH, DEPTH, REST = (np.int64(i) for i in range(5))

_DATA, _HTTP = int(FrameKind.DATA), int(FrameKind.HTTP)
_NS_PER_MS = 1_000_000
_LATENCY_NS = 2_500_000


def _text(text: str) -> Any:
    return np.frombuffer(text.encode(), np.uint8)


_POWERS = np.array([10**n for n in range(20)], np.uint64)
_DOT = ord(".")
_SIX_ZEROS, _THREE_ZEROS = _text("000000"), _text("000")
_STREAM = _text('{"stream":"')
_DEPTH_DATA = _text('@depth@100ms","data":{"e":"depthUpdate","E":')
_TICKER_DATA = _text('@bookTicker","data":{"u":')
_TRADE_DATA = _text('@trade","data":{"e":"trade","E":')
_SYMBOL = _text(',"s":"')
_FIRST = _text('","U":')
_FINAL = _text(',"u":')
_BIDS = _text(',"b":[')
_ASKS = _text('],"a":[')
_CLOSE = _text("]}}")
_BID = _text('","b":"')
_BID_SIZE = _text('","B":"')
_ASK = _text('","a":"')
_ASK_SIZE = _text('","A":"')
_END = _text('"}}')
_TRADE_ID = _text('","t":')
_PRICE = _text(',"p":"')
_SIZE = _text('","q":"')
_TIME = _text('","T":')
_SELLER = _text(',"m":true,"M":true}}')
_BUYER = _text(',"m":false,"M":true}}')
_LAST_ID = _text('{"lastUpdateId":')
_REST_BIDS = _text(',"bids":[')
_REST_ASKS = _text('],"asks":[')
_REST_END = _text("]}")
_LEVEL = _text('["')
_BETWEEN = _text('","')
_LEVEL_END = _text('"],')


@bare_kernel
def _put(out: Any, at: Any, text: Any) -> Any:
    for i in range(len(text)):
        out[at + i] = text[i]
    return at + len(text)


@bare_kernel
def _number(out: Any, at: Any, value: Any, least: Any) -> Any:
    """Decimal digits, at least ``least`` of them; ``value`` is not negative."""
    # Unsigned: division by a constant is then a multiplication.
    rest, ten = np.uint64(value), np.uint64(10)
    digits = least
    while digits < 19 and rest >= _POWERS[digits]:
        digits += 1
    for i in range(digits - 1, -1, -1):
        quotient = rest // ten
        out[at + i] = np.uint8(48) + np.uint8(rest - quotient * ten)
        rest = quotient
    return at + digits


@bare_kernel
def _put_price(out: Any, at: Any, tick: Any) -> Any:
    """A tick with 8 decimals."""
    value = np.uint64(tick)
    whole = value // np.uint64(100)
    at = _number(out, at, whole, np.int64(1))
    out[at] = _DOT
    at = _number(out, at + 1, value - whole * np.uint64(100), np.int64(2))
    return _put(out, at, _SIX_ZEROS)


@bare_kernel
def _put_size(out: Any, at: Any, size: Any) -> Any:
    """A size with 8 decimals."""
    value = np.uint64(size)
    whole = value // np.uint64(100_000)
    at = _number(out, at, whole, np.int64(1))
    out[at] = _DOT
    at = _number(out, at + 1, value - whole * np.uint64(100_000), np.int64(5))
    return _put(out, at, _THREE_ZEROS)


@bare_kernel
def _put_name(out: Any, at: Any, books: Any, s: Any, lower: Any) -> Any:
    for i in range(books.symbols[s].name_size):
        out[at + i] = books.names[s, i] | (32 if lower else 0)
    return at + np.int64(books.symbols[s].name_size)


@bare_kernel
def _put_level(out: Any, at: Any, tick: Any, size: Any) -> Any:
    at = _put_price(out, _put(out, at, _LEVEL), tick)
    at = _put_size(out, _put(out, at, _BETWEEN), size)
    return _put(out, at, _LEVEL_END)


@bare_kernel
def _size_at(books: Any, s: Any, tick: Any, is_bid: Any) -> Any:
    """Size of a side at a tick, 0 if the side has none there."""
    symbol = books.symbols[s]
    own = tick <= symbol.best_bid if is_bid else tick >= symbol.best_ask
    near = abs(tick - symbol.centre) <= REACH
    return books.sizes[s, tick & MASK] if own and near else np.int64(0)


@bare_kernel
def change(books: Any, s: Any, is_bid: Any, tick: Any, size: Any) -> None:
    """A level of a side gets a new size; keeps counts and best prices; takes an update id."""
    symbol = books.symbols[s]
    before = _size_at(books, s, tick, is_bid)
    books.sizes[s, tick & MASK] = size
    joins = np.int32(size > 0) - np.int32(before > 0)
    if is_bid:
        symbol.bids += joins
        symbol.best_bid = max(symbol.best_bid, tick) if size > 0 else symbol.best_bid
        while books.sizes[s, symbol.best_bid & MASK] == 0:
            symbol.best_bid -= 1
    else:
        symbol.asks += joins
        symbol.best_ask = min(symbol.best_ask, tick) if size > 0 else symbol.best_ask
        while books.sizes[s, symbol.best_ask & MASK] == 0:
            symbol.best_ask += 1
    symbol.id += 1
    key = tick * 2 + np.int32(is_bid)
    for i in range(symbol.waiting):
        if books.waiting[s, i] == key:
            return
    books.waiting[s, symbol.waiting] = key
    symbol.waiting += 1


@bare_kernel
def _follow(books: Any, s: Any, bits: Any) -> None:
    """The fair value moves; levels it leaves behind on the wrong side go, as does one at the
    edge that the centre must pass."""
    symbol = books.symbols[s]
    symbol.value += symbol.step if bits & np.uint64(1) else -symbol.step
    symbol.value = max(symbol.value, FLOOR * ONE)
    fair = symbol.value // ONE
    if symbol.best_bid > fair and symbol.bids > LEAST:
        change(books, s, True, symbol.best_bid, np.int64(0))
    if symbol.best_ask <= fair and symbol.asks > LEAST:
        change(books, s, False, symbol.best_ask, np.int64(0))
    drift = fair - symbol.centre
    if abs(drift) > 8:
        way = 1 if drift > 0 else -1
        edge = symbol.centre - way * REACH
        if books.sizes[s, edge & MASK] == 0:
            symbol.centre += way
        elif (symbol.bids if way > 0 else symbol.asks) > LEAST:
            change(books, s, way > 0, edge, np.int64(0))


@bare_kernel
def _shift(books: Any, s: Any, rng: Any) -> None:
    """One level changes: grows, shrinks, joins or goes."""
    symbol, bits = books.symbols[s], draw(rng)
    is_bid = bits & np.uint64(1) != np.uint64(0)
    if min(symbol.bids, symbol.asks) < 2 * LEAST:
        is_bid = symbol.bids < symbol.asks
    distance = exponential(bits) * 3 >> 16
    fair = symbol.value // ONE
    if is_bid:
        tick = min(fair + 1 - symbol.half_spread - distance, symbol.best_ask - 1)
    else:
        tick = max(fair + symbol.half_spread + distance, symbol.best_bid + 1)
    tick = min(max(tick, symbol.centre - REACH), symbol.centre + REACH)
    size = 1 + below(draw(rng), 200_000)
    levels = symbol.bids if is_bid else symbol.asks
    if bits & np.uint64(6) == np.uint64(0) and levels > 2 * LEAST:
        size = np.int64(0)
    if size > 0 or _size_at(books, s, tick, is_bid) > 0:
        change(books, s, is_bid, np.int32(tick), size)


@bare_kernel
def _depth(books: Any, out: Any, at: Any, s: Any, ms: Any) -> Any:
    symbol = books.symbols[s]
    at = _put_name(out, _put(out, at, _STREAM), books, s, True)
    at = _number(out, _put(out, at, _DEPTH_DATA), ms, np.int64(1))
    at = _put_name(out, _put(out, at, _SYMBOL), books, s, False)
    at = _number(out, _put(out, at, _FIRST), symbol.sent + 1, np.int64(1))
    at = _number(out, _put(out, at, _FINAL), symbol.id, np.int64(1))
    for side in range(2):
        at = _put(out, at, _BIDS) if side == 0 else _put(out, at, _ASKS)
        begin = at
        for i in range(symbol.waiting):
            key = books.waiting[s, i]
            if key & 1 != side:
                at = _put_level(out, at, key >> 1, _size_at(books, s, key >> 1, side == 0))
        if at > begin:
            at -= 1  # the last comma
    symbol.sent = symbol.id
    symbol.waiting = 0
    symbol.depths += 1
    return _put(out, at, _CLOSE)


@bare_kernel
def _ticker(books: Any, out: Any, at: Any, s: Any) -> Any:
    symbol = books.symbols[s]
    at = _put_name(out, _put(out, at, _STREAM), books, s, True)
    at = _number(out, _put(out, at, _TICKER_DATA), symbol.id, np.int64(1))
    at = _put_name(out, _put(out, at, _SYMBOL), books, s, False)
    at = _put_price(out, _put(out, at, _BID), symbol.best_bid)
    at = _put_size(out, _put(out, at, _BID_SIZE), books.sizes[s, symbol.best_bid & MASK])
    at = _put_price(out, _put(out, at, _ASK), symbol.best_ask)
    at = _put_size(out, _put(out, at, _ASK_SIZE), books.sizes[s, symbol.best_ask & MASK])
    return _put(out, at, _END)


@bare_kernel
def _trade(books: Any, out: Any, at: Any, s: Any, ms: Any, rng: Any) -> Any:
    """An aggressor takes a part or all of the best level of a side."""
    symbol, bits = books.symbols[s], draw(rng)
    hits_bid = bits & np.uint64(1) != np.uint64(0)
    tick = symbol.best_bid if hits_bid else symbol.best_ask
    size = books.sizes[s, tick & MASK]
    taken = 1 + below(bits, 50_000)
    if taken >= size:
        levels = symbol.bids if hits_bid else symbol.asks
        taken = size if levels > LEAST else size // 2
    if taken > 0:
        change(books, s, hits_bid, tick, size - taken)
    symbol.trade += 1
    at = _put_name(out, _put(out, at, _STREAM), books, s, True)
    at = _number(out, _put(out, at, _TRADE_DATA), ms, np.int64(1))
    at = _put_name(out, _put(out, at, _SYMBOL), books, s, False)
    at = _number(out, _put(out, at, _TRADE_ID), symbol.trade, np.int64(1))
    at = _put_price(out, _put(out, at, _PRICE), tick)
    at = _put_size(out, _put(out, at, _SIZE), max(taken, 1))
    at = _number(out, _put(out, at, _TIME), ms, np.int64(1))
    return _put(out, at, _SELLER) if hits_bid else _put(out, at, _BUYER)


@bare_kernel
def _rest(books: Any, out: Any, at: Any, s: Any) -> Any:
    """The whole book, best first."""
    symbol = books.symbols[s]
    at = _number(out, _put(out, at, _LAST_ID), symbol.id, np.int64(1))
    at = _put(out, at, _REST_BIDS)
    for tick in range(symbol.best_bid, symbol.centre - REACH - 1, -1):
        if books.sizes[s, tick & MASK] > 0:
            at = _put_level(out, at, tick, books.sizes[s, tick & MASK])
    at = _put(out, at - 1, _REST_ASKS)
    for tick in range(symbol.best_ask, symbol.centre + REACH + 1):
        if books.sizes[s, tick & MASK] > 0:
            at = _put_level(out, at, tick, books.sizes[s, tick & MASK])
    return _put(out, at - 1, _REST_END)


@bare_kernel
def _act(books: Any, out: Any, at: Any, s: Any, flow: Any, rng: Any) -> Any:
    """One message of symbol ``s``; what must follow it is left in ``flow``."""
    symbol, bits = books.symbols[s], draw(rng)
    ms = flow[TS] // _NS_PER_MS
    bid, ask = symbol.best_bid, symbol.best_ask
    bid_size, ask_size = books.sizes[s, bid & MASK], books.sizes[s, ask & MASK]
    flow[DUE_SYMBOL] = s
    if symbol.depths == 0:
        _shift(books, s, rng)
        flow[DUE] = REST
        return _depth(books, out, at, s, ms)
    _follow(books, s, bits)
    kind = bits >> np.uint64(62)
    wants_depth = kind >= np.uint64(2) or symbol.waiting >= _ENOUGH
    if kind == np.uint64(0):
        at = _trade(books, out, at, s, ms, rng)
        flow[DUE] = TICKER_AND_DEPTH if wants_depth else TICKER
        return at
    for _ in range(1 + below(bits, 8 if wants_depth else 2)):
        _shift(books, s, rng)
    moved = bid != symbol.best_bid or ask != symbol.best_ask
    moved |= bid_size != books.sizes[s, symbol.best_bid & MASK]
    moved |= ask_size != books.sizes[s, symbol.best_ask & MASK]
    if moved or symbol.id == symbol.sent:
        flow[DUE] = DEPTH if wants_depth and symbol.id > symbol.sent else NOTHING
        return _ticker(books, out, at, s)
    return _depth(books, out, at, s, ms)


@bare_kernel
def _follow_up(books: Any, out: Any, at: Any, flow: Any) -> Any:
    """What is due for the symbol of the message before."""
    due, s = flow[DUE], flow[DUE_SYMBOL]
    flow[DUE] = DEPTH if due == TICKER_AND_DEPTH else NOTHING
    if due == DEPTH:
        return _depth(books, out, at, s, flow[TS] // _NS_PER_MS)
    if due == REST:
        return _rest(books, out, at, s)
    return _ticker(books, out, at, s)


@bare_kernel
def run_flow(books: Any, flow: Any, rng: Any, day: Any, block: Any) -> Any:
    """Write messages into ``block`` until it is full or the feed is over; how many.

    ``block``: out (bytes), bounds (one more than messages), received, kinds, about (symbol).
    """
    count, at = np.int64(0), np.int64(0)
    block.bounds[0] = 0
    while count < len(block.kinds) and flow[LEFT] > 0 and at + LARGEST <= len(block.out):
        kind = _DATA
        if flow[DUE] != NOTHING:
            kind = _HTTP if flow[DUE] == REST else _DATA
            block.about[count] = flow[DUE_SYMBOL]
            at = _follow_up(books, block.out, at, flow)
        else:
            burst = advance(flow, rng, day.begin, day.bucket, day.weights, day.rest)
            bits = draw(rng)
            s = flow[BURST_SYMBOL]
            if not burst or bits & np.uint64(3) == np.uint64(0):
                s = np.int64(books.zipf[below(bits, len(books.zipf))])
                flow[BURST_SYMBOL] = s
            at = _act(books, block.out, at, s, flow, rng)
        block.kinds[count] = kind
        block.received[count] = flow[TS] + _LATENCY_NS
        block.bounds[count + 1] = at
        flow[LEFT] -= 1
        count += 1
    return count
