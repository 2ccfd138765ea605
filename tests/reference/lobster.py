"""LOBSTER by the book: the step of a message, and what its book row shows beyond it."""

from __future__ import annotations

from decimal import Decimal

EMPTY = 9_999_999_999
#: price -> size
Side = dict[int, int]
#: (bids, asks)
Book = tuple[Side, Side]
#: side index (0 bid, 1 ask), price, new size
Change = tuple[int, int, int]


def time_ns(text: str) -> int:
    """Nanoseconds of decimal seconds, nearest."""
    return int((Decimal(text) * 10**9).to_integral_value())


def book_of(row: str) -> Book:
    """A book row ``ask price,ask size,bid price,bid size,...``."""
    values = [int(value) for value in row.split(",")]
    bids, asks = {}, {}
    for at in range(0, len(values), 4):
        ask, ask_size, bid, bid_size = values[at : at + 4]
        if ask != EMPTY:
            asks[ask] = ask_size
        if bid != -EMPTY:
            bids[bid] = bid_size
    return bids, asks


def step(book: Book, message: str) -> Change | None:
    """What a message does to a book; None: nothing. The book is changed."""
    _, kind, _, size, price, direction = message.split(",")
    side = 0 if direction == "1" else 1
    levels, at = book[side], int(price)
    if kind == "1":
        levels[at] = levels.get(at, 0) + int(size)
    elif kind in ("2", "3", "4") and levels.get(at, 0) >= int(size):
        levels[at] -= int(size)
    else:
        return None
    left = levels[at]
    if left == 0:
        del levels[at]
    return side, at, left


def reseed(known: Book, told: Book) -> list[Change]:
    """Changes that turn the known book into the told one: bids, then asks, best first."""
    changes = []
    for side in (0, 1):
        prices = sorted(known[side].keys() | told[side].keys(), reverse=side == 0)
        changes += [
            (side, price, told[side].get(price, 0))
            for price in prices
            if known[side].get(price) != told[side].get(price)
        ]
    return changes
