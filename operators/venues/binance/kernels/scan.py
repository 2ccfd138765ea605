"""Binance's commonest messages, straight from their bytes to event rows.

Accepted are only the exact shapes of a combined stream that Binance sends today, key by key and
without a blank: depthUpdate, trade, aggTrade and bookTicker of spot and futures, plain numbers, a
symbol that is registered. Whatever differs by a byte is left to the exact decoder
(:mod:`operators.venues.binance.decoder`), which is also what the tests compare every row with.

A payload must end with ``}``: no run of digits can leave it. Positions of -1 say "not this shape".
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from marketflow.operators.events import NO_SEQUENCE, EventKind, IdKind
from marketflow.operators.kernels.symbols import MAX_BYTES, Symbols, find_symbol
from marketflow.operators.kernels.words import address_of, after, byte, literal
from marketflow.operators.venues.binance.kernels.json_scan import decimal, flag, put_row, whole
from marketflow.schemas.codes import AggressorSide, RowFlag, Side
from marketflow.schemas.kernel import bare_kernel
from marketflow.schemas.units import END_OF_TIME_NS, NS_PER_MS, NS_PER_US

#: Why :func:`decode_frames` returned.
DONE: Final = 0
FULL: Final = 1  # more room is needed
OTHER: Final = 2  # this frame is for the exact decoder

#: Bits of ``facts``; see operators.venues.binance.decoder.
RAW_TRADES: Final = 1
DIFF_DEPTH: Final = 2
PARTIAL_RULES: Final = 4  # registered as an instrument whose every message is a full book
PARTIAL_SHOWN: Final = 8  # partial books were shown although the rules are those of differences

#: Largest time in ms, and smallest and largest in µs, that are taken.
MAX_MS: Final = END_OF_TIME_NS // NS_PER_MS - 1
MIN_US: Final = 10**14
MAX_US: Final = END_OF_TIME_NS // NS_PER_US - 1

_LEVEL: Final = int(EventKind.LEVEL)
_TRADE: Final = int(EventKind.TRADE)
_BID_QUOTE: Final = int(EventKind.VENUE_BID)
_ASK_QUOTE: Final = int(EventKind.VENUE_ASK)
_BEGIN: Final = int(EventKind.BEGIN)
_END: Final = int(EventKind.END)
_BID: Final = int(Side.BID)
_ASK: Final = int(Side.ASK)
_BUY: Final = int(AggressorSide.BUY)
_SELL: Final = int(AggressorSide.SELL)
_LAST: Final = int(RowFlag.LAST)
_UINT: Final = int(IdKind.UINT)
#: Shortest level with its comma: ``["1","2"],``.
_LEVEL_BYTES: Final = 10


_STREAM: Final = literal(b'{"stream":"')
_DATA: Final = literal(b'","data":{')
_DEPTH_CHANNEL: Final = literal(b"@depth")
_E_DEPTH: Final = literal(b'"e":"depthUpdate","E":')
_E_TRADE: Final = literal(b'"e":"trade","E":')
_E_AGG_TRADE: Final = literal(b'"e":"aggTrade","E":')
_E_TICKER: Final = literal(b'"e":"bookTicker",')
_KEY_U: Final = literal(b'"u":')
_C_T: Final = literal(b',"T":')
_C_S: Final = literal(b',"s":"')
_C_PS: Final = literal(b',"ps":"')
_C_FIRST: Final = literal(b',"U":')
_C_LAST: Final = literal(b',"u":')
_C_PREVIOUS: Final = literal(b',"pu":')
_C_BIDS: Final = literal(b',"b":[')
_C_ASKS: Final = literal(b',"a":[')
_C_TRADE_ID: Final = literal(b',"t":')
_C_AGG_ID: Final = literal(b',"a":')
_C_P: Final = literal(b',"p":"')
_C_Q: Final = literal(b',"q":"')
_C_F: Final = literal(b',"f":')
_C_L: Final = literal(b',"l":')
_C_MARKET: Final = literal(b',"X":"MARKET"')
_C_MAKER: Final = literal(b',"m":')
_C_BEST: Final = literal(b',"M":')
_C_BID: Final = literal(b',"b":"')
_C_BID_SIZE: Final = literal(b',"B":"')
_C_ASK: Final = literal(b',"a":"')
_C_ASK_SIZE: Final = literal(b',"A":"')
_C_E: Final = literal(b',"E":')


class Batch(NamedTuple):
    """A frames batch and what it is decoded into.

    Payloads from frame ``tail_from`` on are read from ``tail``, a copy with SPARE bytes behind.
    ``touched[connection, instrument]`` is set where a connection carries an instrument's book.
    """

    text: NDArray[np.uint8]
    tail: NDArray[np.uint8]
    tail_from: int
    bounds: NDArray[np.int64]
    ts_recv: NDArray[np.int64]
    kinds: NDArray[np.int8]
    connections: NDArray[np.int32]
    symbols: Symbols
    facts: NDArray[np.uint8]
    touched: NDArray[np.uint8]


@bare_kernel
def _time(value: Any) -> Any:
    """ms or µs to ns; 0 if it is neither."""
    if value > 0 and value <= MAX_MS:
        return value * NS_PER_MS
    if value >= MIN_US and value <= MAX_US:
        return value * NS_PER_US
    return 0


@bare_kernel
def _symbol(at: int, end: int, symbols: Symbols) -> tuple[int, int]:
    """``,"s":"<symbol>"`` and, if there, ``,"ps":"<pair>"``: instrument and position after."""
    start = after(at, _C_S)
    if start < 0:
        return -1, -1
    at = start
    while byte(at) != 34 and at - start <= MAX_BYTES and at < end - 1:
        at += 1
    instrument = find_symbol(symbols, start, at)
    if instrument < 0 or byte(at) != 34:
        return -1, -1
    at += 1
    pair = after(at, _C_PS)
    if pair >= 0:
        at = pair
        while (byte(at) >= 48 and byte(at) <= 57) or (byte(at) >= 65 and byte(at) <= 90):
            at += 1
        if byte(at) != 34:
            return -1, -1
        at += 1
    return instrument, at


@bare_kernel
def _levels(at: int, rows: NDArray[Any], begin: int, row: int, side: int) -> tuple[int, int]:
    """Levels after ``[`` up to and with ``]``: position after and next row."""
    if at < 0:
        return -1, row
    if byte(at) == 93:
        return at + 1, row
    head = rows[begin]
    while True:
        if byte(at) != 91 or byte(at + 1) != 34:
            return -1, row
        price, price_scale, at = decimal(at + 2)
        if at < 0 or byte(at) != 44 or byte(at + 1) != 34:
            return -1, row
        size, size_scale, at = decimal(at + 2)
        if at < 0 or byte(at) != 93:
            return -1, row
        level = rows[row]
        put_row(
            level, _LEVEL, head.instrument, head.frame, head.ts_event, head.ts_recv, head.sequence
        )
        level.side = side
        level.price = price
        level.price_scale = price_scale
        level.size = size
        level.size_scale = size_scale
        row += 1
        if byte(at + 1) == 93:
            return at + 2, row
        if byte(at + 1) != 44:
            return -1, row
        at += 2


@bare_kernel
def _closed(at: int, end: int) -> bool:
    """Both objects close at ``at``, and nothing follows."""
    return at >= 0 and at == end - 2 and byte(at) == 125 and byte(at + 1) == 125


@bare_kernel
def _depth(
    at: int,
    end: int,
    symbols: Symbols,
    facts: NDArray[np.uint8],
    rows: NDArray[Any],
    row: int,
    frame: int,
    ts_recv: int,
) -> int:
    """After ``"e":"depthUpdate","E":``; returns the next row, -1: not this shape."""
    value, at = whole(at)
    ts_event = _time(value)
    future = after(at, _C_T)
    if future >= 0:
        value, at = whole(future)
    instrument, at = _symbol(at, end, symbols)
    if ts_event == 0 or instrument < 0:
        return -1
    if facts[instrument] & (PARTIAL_RULES | PARTIAL_SHOWN):
        return -1
    first, at = whole(after(at, _C_FIRST))
    last, at = whole(after(at, _C_LAST))
    previous = np.int64(NO_SEQUENCE)
    chained = after(at, _C_PREVIOUS)
    if chained >= 0:
        previous, at = whole(chained)
    at = after(at, _C_BIDS)
    if at < 0:
        return -1
    begin = row
    put_row(rows[begin], _BEGIN, instrument, frame, ts_event, ts_recv, last)
    rows[begin].order_lo = np.uint64(first)
    rows[begin].order_hi = np.uint64(previous)
    at, row = _levels(at, rows, begin, row + 1, _BID)
    at, row = _levels(after(at, _C_ASKS), rows, begin, row, _ASK)
    if not _closed(at, end):
        return -1
    put_row(rows[row], _END, instrument, frame, ts_event, ts_recv, last)
    facts[instrument] |= DIFF_DEPTH
    return row + 1


@bare_kernel
def _trade(
    at: int,
    end: int,
    symbols: Symbols,
    facts: NDArray[np.uint8],
    rows: NDArray[Any],
    row: int,
    frame: int,
    ts_recv: int,
    raw: bool,
) -> int:
    """After ``"E":`` of a trade (``raw`` false: an aggTrade); next row, -1: not this shape."""
    _, at = whole(at)
    traded = np.int64(0)
    future = after(at, _C_T) if raw else -1
    if future >= 0:
        traded, at = whole(future)
    instrument, at = _symbol(at, end, symbols)
    if instrument < 0:
        return -1
    number, at = whole(after(at, _C_TRADE_ID if raw else _C_AGG_ID))
    price, price_scale, at = decimal(after(at, _C_P))
    size, size_scale, at = decimal(after(at, _C_Q))
    if not raw:
        _, at = whole(after(at, _C_F))
        _, at = whole(after(at, _C_L))
    if future >= 0:
        at = after(at, _C_MARKET)
    else:
        traded, at = whole(after(at, _C_T))
    maker, at = flag(after(at, _C_MAKER))
    best = after(at, _C_BEST)
    if best >= 0:
        _, at = flag(best)
    ts_event = _time(traded)
    if ts_event == 0 or not _closed(at, end) or price == 0 or size == 0:
        return -1
    if raw:
        facts[instrument] |= RAW_TRADES
    elif facts[instrument] & RAW_TRADES:
        return row
    put_row(rows[row], _TRADE, instrument, frame, ts_event, ts_recv, number)
    rows[row].side = _SELL if maker else _BUY
    rows[row].price = price
    rows[row].price_scale = price_scale
    rows[row].size = size
    rows[row].size_scale = size_scale
    rows[row].trade_lo = np.uint64(number)
    rows[row].trade_kind = _UINT
    rows[row].flags = _LAST
    return row + 1


@bare_kernel
def _ticker(
    at: int,
    end: int,
    symbols: Symbols,
    facts: NDArray[np.uint8],
    rows: NDArray[Any],
    row: int,
    frame: int,
    ts_recv: int,
    timed: bool,
) -> int:
    """After ``"u":`` of a bookTicker (``timed``: of futures); next row, -1: not this shape."""
    sequence, at = whole(at)
    instrument, at = _symbol(at, end, symbols)
    bid, bid_scale, at = decimal(after(at, _C_BID))
    bids, bids_scale, at = decimal(after(at, _C_BID_SIZE))
    ask, ask_scale, at = decimal(after(at, _C_ASK))
    asks, asks_scale, at = decimal(after(at, _C_ASK_SIZE))
    ts_event = 0
    if timed:
        _, at = whole(after(at, _C_T))
        value, at = whole(after(at, _C_E))
        ts_event = _time(value)
        if ts_event == 0:
            return -1
    if not _closed(at, end) or bids == 0 or asks == 0 or bid == 0 or ask == 0:
        return -1
    put_row(rows[row], _BID_QUOTE, instrument, frame, ts_event, ts_recv, sequence)
    rows[row].side = _BID
    rows[row].price = bid
    rows[row].price_scale = bid_scale
    rows[row].size = bids
    rows[row].size_scale = bids_scale
    row += 1
    put_row(rows[row], _ASK_QUOTE, instrument, frame, ts_event, ts_recv, sequence)
    rows[row].side = _ASK
    rows[row].price = ask
    rows[row].price_scale = ask_scale
    rows[row].size = asks
    rows[row].size_scale = asks_scale
    rows[row].flags = _LAST
    return row + 1


@bare_kernel
def _message(
    start: int,
    end: int,
    symbols: Symbols,
    facts: NDArray[np.uint8],
    rows: NDArray[Any],
    row: int,
    frame: int,
    ts_recv: int,
) -> int:
    """Rows of one payload from ``row`` on; next row, -1: for the exact decoder."""
    if end - start < 40 or byte(end - 1) != 125:
        return -1
    at = after(start, _STREAM)
    if at < 0:
        return -1
    channel = -1
    while True:
        c = byte(at)
        if c == 64:
            if channel < 0:
                channel = at
        elif not ((c >= 97 and c <= 122) or (c >= 48 and c <= 57) or c == 95 or c == 33):
            if c < 65 or c > 90:
                break
        at += 1
    at = after(at, _DATA)
    if at < 0:
        return -1
    body = after(at, _E_DEPTH)
    if body >= 0:
        # "@depth" or "@depth@100ms"; "@depth20" is a full book although it looks the same.
        rest = after(channel, _DEPTH_CHANNEL)
        if rest < 0 or (byte(rest) != 34 and byte(rest) != 64):
            return -1
        return _depth(body, end, symbols, facts, rows, row, frame, ts_recv)
    timed = after(at, _E_TICKER)
    body = after(at if timed < 0 else timed, _KEY_U)
    if body >= 0:
        return _ticker(body, end, symbols, facts, rows, row, frame, ts_recv, timed >= 0)
    raw = after(at, _E_TRADE)
    body = after(at, _E_AGG_TRADE) if raw < 0 else raw
    if body >= 0:
        return _trade(body, end, symbols, facts, rows, row, frame, ts_recv, raw >= 0)
    return -1


@bare_kernel
def rows_wanted(size: int) -> int:
    """Rows that a payload of so many bytes makes at most."""
    return size // _LEVEL_BYTES + 4


@bare_kernel
def decode_frames(batch: Batch, frame: int, rows: NDArray[Any], row: int) -> tuple[int, int, int]:
    """Frames from ``frame`` on into ``rows`` from ``row`` on: the first frame that was not taken,
    the next free row and why it stopped (DONE, FULL, OTHER)."""
    text, tail = address_of(batch.text), address_of(batch.tail) - batch.bounds[batch.tail_from]
    bounds, kinds, ts_recv = batch.bounds, batch.kinds, batch.ts_recv
    symbols, facts = batch.symbols, batch.facts
    while frame < len(kinds):
        if kinds[frame] != 0:
            return frame, row, OTHER
        base = text if frame < batch.tail_from else tail
        start, end = base + bounds[frame], base + bounds[frame + 1]
        if row + rows_wanted(end - start) > len(rows):
            return frame, row, FULL
        taken = _message(start, end, symbols, facts, rows, row, frame, ts_recv[frame])
        if taken < 0:
            return frame, row, OTHER
        if taken > row and rows[row].kind == _BEGIN:
            batch.touched[batch.connections[frame], rows[row].instrument] = 1
        row = taken
        frame += 1
    return frame, row, DONE
