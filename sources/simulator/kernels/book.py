"""Books of a simulated exchange: at most CAPACITY orders each, first-in-first-out per price.

Prices are in ticks. Every symbol has a fair value on a random walk; orders stand around it and
never cross the other side. Levels live in a ring of WINDOW ticks: an order stands within REACH
ticks of the symbol's centre, and the centre follows the fair value only over an empty edge, so that
no two prices share a slot. Orders fill the first slots without gaps, which makes picking one at
random a single draw.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from marketflow.schemas.kernel import bare_kernel
from marketflow.sources.simulator.chance import ONE, below, exponential

CAPACITY: Final = 448
WINDOW: Final = 256
REACH: Final = 120
#: Orders a side keeps at least, and orders a book tends to have.
LEAST: Final = 3
USUAL: Final = 200
#: The fair value stays above this, in ticks.
FLOOR: Final = 400

SYMBOL: Final = np.dtype(
    [
        ("stock", "<u8"),  # the 8 bytes of the message, as a big-endian number
        ("value", "<i8"),  # fair value, ticks * ONE
        ("step", "<i8"),  # of its random walk
        ("centre", "<i4"),
        ("best_bid", "<i4"),  # ticks; NONE if there is no bid
        ("best_ask", "<i4"),
        ("live", "<i4"),
        ("bids", "<i4"),
        ("half_spread", "<i4"),
    ],
    align=True,
)
ORDER: Final = np.dtype(
    [
        ("ref", "<u8"),
        ("tick", "<i4"),
        ("shares", "<i4"),
        ("previous", "<i2"),
        ("next", "<i2"),
        ("is_bid", "?"),
    ],
    align=True,
)
LEVEL: Final = np.dtype([("head", "<i2"), ("tail", "<i2")])
NONE: Final = -1
MASK: Final = WINDOW - 1


@bare_kernel
def insert(books: Any, s: Any, is_bid: Any, tick: Any, shares: Any, ref: Any) -> None:
    symbol, slot = books.symbols[s], books.symbols[s].live
    level = books.levels[s, tick & MASK]
    order = books.orders[s, slot]
    order.ref = ref
    order.tick = tick
    order.shares = shares
    order.is_bid = is_bid
    order.previous = level.tail
    order.next = NONE
    if level.tail >= 0:
        books.orders[s, level.tail].next = slot
    else:
        level.head = slot
    level.tail = slot
    symbol.live += 1
    if is_bid:
        symbol.bids += 1
        symbol.best_bid = max(symbol.best_bid, tick)
    elif symbol.best_ask == NONE or tick < symbol.best_ask:
        symbol.best_ask = tick


@bare_kernel
def next_best(books: Any, s: Any, tick: Any, way: Any, count: Any) -> Any:
    """The next price with orders from ``tick`` on, away from the other side."""
    if count == 0:
        return NONE
    tick += way
    while books.levels[s, tick & MASK].head < 0:
        tick += way
    return tick


@bare_kernel
def remove(books: Any, s: Any, slot: Any) -> None:
    """Take an order out; the last slot's order moves into its place."""
    symbol, order = books.symbols[s], books.orders[s, slot]
    tick, is_bid = order.tick, order.is_bid
    level = books.levels[s, tick & MASK]
    if order.previous >= 0:
        books.orders[s, order.previous].next = order.next
    else:
        level.head = order.next
    if order.next >= 0:
        books.orders[s, order.next].previous = order.previous
    else:
        level.tail = order.previous
    symbol.live -= 1
    if is_bid:
        symbol.bids -= 1
    if level.head < 0 and is_bid and tick == symbol.best_bid:
        symbol.best_bid = next_best(books, s, tick, -1, symbol.bids)
    if level.head < 0 and not is_bid and tick == symbol.best_ask:
        symbol.best_ask = next_best(books, s, tick, 1, symbol.live - symbol.bids)
    last = symbol.live
    if slot != last:
        moved = books.orders[s, last]
        order.ref = moved.ref
        order.tick = moved.tick
        order.shares = moved.shares
        order.previous = moved.previous
        order.next = moved.next
        order.is_bid = moved.is_bid
        level = books.levels[s, order.tick & MASK]
        if order.previous >= 0:
            books.orders[s, order.previous].next = slot
        else:
            level.head = slot
        if order.next >= 0:
            books.orders[s, order.next].previous = slot
        else:
            level.tail = slot


@bare_kernel
def price_tick(books: Any, s: Any, is_bid: Any, distance: Any) -> Any:
    """A tick ``distance`` behind the fair value that neither crosses nor leaves the window."""
    symbol = books.symbols[s]
    fair = symbol.value // ONE
    if is_bid:
        tick = fair + 1 - symbol.half_spread - distance
        if symbol.best_ask != NONE:
            tick = min(tick, symbol.best_ask - 1)
    else:
        tick = max(fair + symbol.half_spread + distance, symbol.best_bid + 1)
    return min(max(tick, symbol.centre - REACH), symbol.centre + REACH)


@bare_kernel
def lot_size(bits: Any) -> Any:
    """Mostly one or a few round lots, one in five odd."""
    if below(bits, 5) == 0:
        return 1 + below(bits >> np.uint64(20), 99)
    return 100 * (1 + (exponential(bits) >> 16))


@bare_kernel
def follow(books: Any, s: Any, bits: Any) -> Any:
    """Move the fair value, and the centre behind it. The slot of an order in the way, or NONE."""
    symbol = books.symbols[s]
    symbol.value += symbol.step if bits & np.uint64(1) else -symbol.step
    symbol.value = max(symbol.value, FLOOR * ONE)
    drift = symbol.value // ONE - symbol.centre
    if abs(drift) <= 8:
        return NONE
    way = 1 if drift > 0 else -1
    in_the_way = books.levels[s, (symbol.centre - way * REACH) & MASK].head
    if in_the_way < 0:
        symbol.centre += way
    return in_the_way


@bare_kernel
def pick(books: Any, s: Any, bits: Any) -> Any:
    """One of two random orders, the one nearer to the fair value."""
    symbol = books.symbols[s]
    one, other = below(bits, symbol.live), below(bits >> np.uint64(32), symbol.live)
    fair = symbol.value // ONE
    nearer = abs(books.orders[s, one].tick - fair) <= abs(books.orders[s, other].tick - fair)
    return one if nearer else other
