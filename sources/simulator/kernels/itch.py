"""The order flow of a simulated Nasdaq day: real books of real orders, written as ITCH 5.0.

Orders are added around the fair value and most of them deleted again; executions take the oldest
order at the best price, several in a row when an aggressor is large. A tick is one cent.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from marketflow.schemas.kernel import bare_kernel
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
from marketflow.sources.simulator.kernels.book import (
    CAPACITY,
    LEAST,
    MASK,
    USUAL,
    follow,
    insert,
    lot_size,
    pick,
    price_tick,
    remove,
)

LARGEST: Final = 52

#: Slots of ``flow`` behind the shared ones.
NEXT_REF, NEXT_MATCH, SWEEP_SYMBOL, SWEEP_BID, SWEEP_LEFT = range(SHARED_SLOTS, SHARED_SLOTS + 5)
FLOW_SLOTS: Final = SHARED_SLOTS + 5
#: From here on a few imbalances are published, ns before the end of the day.
IMBALANCE_NS: Final = 600 * 10**9

# numpy integers: of a Python one numba would compile a version of its own for every value.
_A, _F, _E, _C, _X, _D, _U, _P, _I = (np.int64(ord(c)) for c in "AFECXDUPI")
_SIZES = np.zeros(256, np.int64)
_SIZES[[_A, _F, _E, _C, _X, _D, _U, _P, _I]] = [36, 40, 31, 36, 23, 19, 35, 44, 50]
_B, _S, _Y, _N, _L, _SPACE = (ord(c) for c in "BSYNL ")
_MPIDS = np.array(
    [int.from_bytes(m, "big") for m in (b"SIMA", b"SIMB", b"SIMC", b"SIMD")], np.int64
)
_TICK_UNITS = 100  # 1/10000 dollar


def _store(bits: int) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(bits)
        array = context.make_array(signature.args[0])(context, builder, args[0])
        place = builder.bitcast(builder.gep(array.data, [args[1]]), word.as_pointer())
        value = args[2] if bits == 64 else builder.trunc(args[2], word)
        builder.store(builder.bswap(value), place, align=1)
        return context.get_dummy_value()

    def typed(typing_context: Any, out: Any, at: Any, value: Any) -> Any:
        return types.void(out, types.int64, types.int64), codegen

    return intrinsic(typed)


#: Write an integer big-endian at an index. Inside kernels only, bounds unchecked.
_put16, _put32, _put64 = _store(16), _store(32), _store(64)


@bare_kernel
def _head(out: Any, at: Any, letter: Any, symbol: Any, ts: Any) -> Any:
    """Length, type, locate, tracking number 0 and time; returns where the body starts."""
    _put16(out, at, _SIZES[letter])
    out[at + 2] = letter
    _put16(out, at + 3, symbol + 1)
    _put16(out, at + 5, 0)
    _put16(out, at + 7, ts >> 32)
    _put32(out, at + 9, ts)
    return at + 13


@bare_kernel
def _delete(books: Any, out: Any, at: Any, s: Any, slot: Any, ts: Any) -> Any:
    body = _head(out, at, _D, s, ts)
    _put64(out, body, books.orders[s, slot].ref)
    remove(books, s, slot)
    return body + 8


@bare_kernel
def _add(books: Any, out: Any, at: Any, s: Any, is_bid: Any, ts: Any, flow: Any, rng: Any) -> Any:
    bits = draw(rng)
    tick = price_tick(books, s, is_bid, exponential(bits) * 3 >> 16)
    shares = lot_size(draw(rng))
    ref = flow[NEXT_REF]
    flow[NEXT_REF] += 1
    insert(books, s, is_bid, tick, shares, np.uint64(ref))
    attributed = bits & np.uint64(31) == np.uint64(0)
    body = _head(out, at, _F if attributed else _A, s, ts)
    _put64(out, body, ref)
    out[body + 8] = _B if is_bid else _S
    _put32(out, body + 9, shares)
    _put64(out, body + 13, np.int64(books.symbols[s].stock))
    _put32(out, body + 21, tick * _TICK_UNITS)
    if attributed:
        _put32(out, body + 25, _MPIDS[ref & 3])
        return body + 29
    return body + 25


@bare_kernel
def _execute(books: Any, out: Any, at: Any, s: Any, is_bid: Any, ts: Any, flow: Any) -> Any:
    """The oldest order at the best price of a side trades with what the aggressor has left."""
    symbol = books.symbols[s]
    tick = symbol.best_bid if is_bid else symbol.best_ask
    slot = np.int64(books.levels[s, tick & MASK].head)
    order = books.orders[s, slot]
    shares = min(order.shares, flow[SWEEP_LEFT])
    match = flow[NEXT_MATCH]
    flow[NEXT_MATCH] += 1
    with_price = match & 63 == 0
    body = _head(out, at, _C if with_price else _E, s, ts)
    _put64(out, body, order.ref)
    _put32(out, body + 8, shares)
    _put64(out, body + 12, match)
    end = body + 20
    if with_price:
        out[end] = _N if match & 512 else _Y
        _put32(out, end + 1, tick * _TICK_UNITS)
        end += 5
    flow[SWEEP_LEFT] -= shares
    if shares == order.shares:
        remove(books, s, slot)
    else:
        order.shares -= shares
    return end


@bare_kernel
def _replace(books: Any, out: Any, at: Any, s: Any, slot: Any, ts: Any, flow: Any, rng: Any) -> Any:
    """A new reference at the tail of its new price."""
    bits = draw(rng)
    order = books.orders[s, slot]
    is_bid, old, ref = order.is_bid, order.ref, flow[NEXT_REF]
    flow[NEXT_REF] += 1
    remove(books, s, slot)
    tick = price_tick(books, s, is_bid, exponential(bits) * 2 >> 16)
    shares = lot_size(bits)
    insert(books, s, is_bid, tick, shares, np.uint64(ref))
    body = _head(out, at, _U, s, ts)
    _put64(out, body, old)
    _put64(out, body + 8, ref)
    _put32(out, body + 16, shares)
    _put32(out, body + 20, tick * _TICK_UNITS)
    return body + 24


@bare_kernel
def _hidden_trade(books: Any, out: Any, at: Any, s: Any, ts: Any, flow: Any, rng: Any) -> Any:
    symbol, bits = books.symbols[s], draw(rng)
    tick = symbol.best_bid + below(bits, symbol.best_ask - symbol.best_bid + 1)
    body = _head(out, at, _P, s, ts)
    _put64(out, body, 0)
    out[body + 8] = _B
    _put32(out, body + 9, lot_size(bits))
    _put64(out, body + 13, np.int64(symbol.stock))
    _put32(out, body + 21, tick * _TICK_UNITS)
    _put64(out, body + 25, flow[NEXT_MATCH])
    flow[NEXT_MATCH] += 1
    return body + 33


@bare_kernel
def _imbalance(books: Any, out: Any, at: Any, s: Any, ts: Any, rng: Any) -> Any:
    """Before the close: net order imbalance of the closing cross."""
    symbol, bits = books.symbols[s], draw(rng)
    fair = symbol.value // ONE * _TICK_UNITS
    body = _head(out, at, _I, s, ts)
    _put64(out, body, 100 * below(bits, 20_000))
    _put64(out, body + 8, 100 * below(bits >> np.uint64(8), 3_000))
    out[body + 16] = _B if bits & np.uint64(1) else _S
    _put64(out, body + 17, np.int64(symbol.stock))
    _put32(out, body + 25, fair)
    _put32(out, body + 29, fair)
    _put32(out, body + 33, fair)
    out[body + 37] = _C
    out[body + 38] = _L
    return body + 39


@bare_kernel
def _reduce(books: Any, out: Any, at: Any, s: Any, slot: Any, ts: Any) -> Any:
    """Half of an order is cancelled."""
    order = books.orders[s, slot]
    shares = order.shares // 2
    order.shares -= shares
    body = _head(out, at, _X, s, ts)
    _put64(out, body, order.ref)
    _put32(out, body + 8, shares)
    return body + 12


@bare_kernel
def _sweep(books: Any, out: Any, at: Any, s: Any, is_bid: Any, ts: Any, flow: Any) -> Any:
    """One execution; the aggressor goes on with the next message while it has shares left and
    the side has orders to spare."""
    at = _execute(books, out, at, s, is_bid, ts, flow)
    symbol = books.symbols[s]
    orders = symbol.bids if is_bid else symbol.live - symbol.bids
    flow[SWEEP_SYMBOL], flow[SWEEP_BID] = s, is_bid
    if orders <= LEAST:
        flow[SWEEP_LEFT] = 0
    return at


@bare_kernel
def _act(books: Any, out: Any, at: Any, s: Any, ts: Any, flow: Any, rng: Any, late: Any) -> Any:
    """One message of symbol ``s``."""
    symbol, bits = books.symbols[s], draw(rng)
    in_the_way = np.int64(follow(books, s, bits))
    if in_the_way >= 0:
        return _delete(books, out, at, s, in_the_way, ts)
    asks = symbol.live - symbol.bids
    if min(symbol.bids, asks) < LEAST:
        return _add(books, out, at, s, symbol.bids < asks, ts, flow, rng)
    choice = np.int64(bits >> np.uint64(54))  # 0..1023
    side = bits & np.uint64(2) != np.uint64(0)
    fair = symbol.value // ONE
    if late and choice & 127 == 5:
        return _imbalance(books, out, at, s, ts, rng)
    stale_bid, stale_ask = symbol.best_bid > fair, symbol.best_ask <= fair
    if (stale_bid and symbol.bids > LEAST) or (stale_ask and asks > LEAST):
        side = stale_bid and symbol.bids > LEAST
        if choice >= 60:
            tick = symbol.best_bid if side else symbol.best_ask
            return _delete(books, out, at, s, np.int64(books.levels[s, tick & MASK].head), ts)
        flow[SWEEP_LEFT] = lot_size(draw(rng))
        return _sweep(books, out, at, s, side, ts, flow)
    adding = max(440 + (USUAL - symbol.live) * 2, 60)
    if choice < adding and symbol.live < CAPACITY - 1:
        return _add(books, out, at, s, side, ts, flow, rng)
    kind = below(draw(rng), 1000)
    slot = pick(books, s, draw(rng))
    spare = (symbol.bids if books.orders[s, slot].is_bid else asks) > LEAST
    if kind < 880 and spare:
        return _delete(books, out, at, s, slot, ts)
    if kind < 950:
        return _replace(books, out, at, s, slot, ts, flow, rng)
    if kind < 965 and books.orders[s, slot].shares > 1:
        return _reduce(books, out, at, s, slot, ts)
    if kind < 980:
        return _hidden_trade(books, out, at, s, ts, flow, rng)
    if (symbol.bids if side else asks) > LEAST:
        flow[SWEEP_LEFT] = 2 * lot_size(draw(rng))
        return _sweep(books, out, at, s, side, ts, flow)
    return _add(books, out, at, s, side, ts, flow, rng)


@bare_kernel
def run_flow(books: Any, flow: Any, rng: Any, day: Any, out: Any, most: Any) -> Any:
    """Write at most ``most`` messages into ``out`` while there is room; (messages, bytes).

    ``books``: symbols (SYMBOL), orders (ORDER, CAPACITY per symbol), levels (LEVEL, WINDOW per
    symbol), zipf. ``day``: begin, bucket, weights, rest of simulator_parts.Day.
    """
    # Typed from the start: numba would compile everything below once more for a constant 0.
    at, count = np.int64(0), np.int64(0)
    end = day.begin + len(day.weights) * day.bucket
    while count < most and flow[LEFT] > 0 and at + LARGEST <= len(out):
        if flow[SWEEP_LEFT] > 0:
            flow[TS] = min(flow[TS] + below(draw(rng), 1500), end - 1)
            at = _sweep(books, out, at, flow[SWEEP_SYMBOL], flow[SWEEP_BID] != 0, flow[TS], flow)
        else:
            burst = advance(flow, rng, day.begin, day.bucket, day.weights, day.rest)
            bits = draw(rng)
            if burst and bits & np.uint64(3) != np.uint64(0):
                s = flow[BURST_SYMBOL]
            else:
                s = np.int64(books.zipf[below(bits, len(books.zipf))])
                flow[BURST_SYMBOL] = s
            at = _act(books, out, at, s, flow[TS], flow, rng, flow[TS] >= end - IMBALANCE_NS)
        flow[LEFT] -= 1
        count += 1
    return count, at
