"""A simulated Nasdaq day as ITCH 5.0 messages: what stands around the order flow, and its state.

1. start of messages, directory and trading state of every symbol, start of system hours, a few
   imbalances before the open, start of market hours, the opening cross of every symbol;
2. the order flow of :mod:`sources.simulator.kernels.itch` from 9:30 to 16:00 US/Eastern;
3. end of market hours, the closing crosses, end of system hours, end of messages.

A session has exactly as many messages as asked for; one that is too short for all of this has no
order flow and ends early.
"""

from __future__ import annotations

import struct
from math import isqrt
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from marketflow.schemas.units import NS_PER_MINUTE
from marketflow.sources.simulator.chance import (
    LEFT,
    ONE,
    TS,
    Day,
    draw,
    ticker,
    zipf_table,
)
from marketflow.sources.simulator.kernels import book
from marketflow.sources.simulator.kernels import itch as kernel

_HOUR_NS: Final = 60 * NS_PER_MINUTE
#: Activity by quarter of an hour from 9:30 to 16:00: high at the open and the close.
DAY: Final = Day(
    9 * _HOUR_NS + _HOUR_NS // 2,
    _HOUR_NS // 4,
    (30, 20, 16, 13, 12, 11, 10, 9, 9, 8, 8, 8, 8, 8, 8, 8, 9, 9, 9, 10, 10, 11, 12, 14, 18, 30),
)
#: How far a symbol's fair value goes in a day, about, in ticks of one cent per 10,000.
_DAY_RANGE: Final = 150
_EARLY_IMBALANCES: Final = 5


class Books(NamedTuple):
    """State of the order flow; ``zipf`` is constant."""

    symbols: NDArray[np.void]
    orders: NDArray[np.void]
    levels: NDArray[np.void]
    zipf: NDArray[np.int32]


class _Day(NamedTuple):
    begin: int
    bucket: int
    weights: NDArray[np.int64]
    rest: NDArray[np.int64]


def _message(letter: str, ns: int, locate: int, body: bytes) -> bytes:
    head = letter.encode() + struct.pack(">HH", locate, 0) + ns.to_bytes(6, "big")
    return struct.pack(">H", len(head) + len(body)) + head + body


class ItchSession:
    """Messages of one seeded day in order; ``snapshot``/``restore`` are exact."""

    def __init__(self, events: int, seed: int, symbols: int) -> None:
        self.events = events
        self._count = symbols
        self._rng = np.array([seed], np.uint64)
        for _ in range(4):
            draw(self._rng)
        #: 0: start, 1: order flow, 2: end.
        self._phase = 0
        self._sent = 0  # messages of the start or the end already given
        self._flow = np.zeros(kernel.FLOW_SLOTS, np.int64)
        self._flow[TS] = DAY.begin_ns + 1_000_000
        self._flow[kernel.NEXT_REF] = 1
        self._flow[kernel.NEXT_MATCH] = 1
        self._day = _Day(DAY.begin_ns, DAY.bucket_ns, DAY.weights, DAY.rest)
        self._books = self._fresh_books()
        start = self._start()
        closing = symbols + 3
        self._flow[LEFT] = max(events - len(start) - closing, 0)
        self._set_steps()
        self._fixed = start[:events]
        self._end_length = min(max(events - len(start), 0), closing)

    def _fresh_books(self) -> Books:
        names = np.array([int.from_bytes(self._stock(i), "big") for i in range(self._count)], "<u8")
        symbols = np.zeros(self._count, book.SYMBOL)
        symbols["stock"] = names
        for symbol in symbols:
            # 8 to 8 * 2**6 dollars, cheaper ones more often; wider spreads for dearer ones.
            bits = int(draw(self._rng))
            doublings, cents = bits % 7, bits // 7 % 800
            start = (800 + cents) << (doublings * (bits // 5_600 % 2 + 1) // 2)
            symbol["value"] = start * ONE
            symbol["centre"] = start
            symbol["half_spread"] = 1 + start // 12_000
        symbols["best_bid"] = symbols["best_ask"] = book.NONE
        orders = np.zeros((self._count, book.CAPACITY), book.ORDER)
        levels = np.full((self._count, book.WINDOW), book.NONE, np.int16).repeat(2, axis=1)
        return Books(symbols, orders, levels.view(book.LEVEL), zipf_table(self._count))

    def _set_steps(self) -> None:
        """Steps that add up to the day's range over the events a symbol will have, and at most
        half a tick, which its book can follow."""
        shares = np.bincount(self._books.zipf, minlength=self._count)
        for symbol, share in zip(self._books.symbols, shares.tolist(), strict=True):
            expected = max(int(self._flow[LEFT]) * share // len(self._books.zipf), 1)
            reach = _DAY_RANGE * int(symbol["centre"]) // 10_000
            symbol["step"] = min(max(reach * ONE // isqrt(expected), 1), ONE // 2)

    @staticmethod
    def _stock(index: int) -> bytes:
        return ticker(index).ljust(8).encode()

    def _start(self) -> list[bytes]:
        found = [_message("S", 3 * _HOUR_NS, 0, b"O")]
        for i in range(self._count):
            facts = struct.pack(">ccIcc2sccccc", b"Q", b"N", 100, b"N", b"C", b"Z ", b"P", b"N",
                                b"N", b"1", b"N")  # fmt: skip
            body = self._stock(i) + facts + struct.pack(">Ic", 0, b"N")
            found.append(_message("R", 3 * _HOUR_NS + 1_000 * (i + 1), i + 1, body))
        for i in range(self._count):
            ns = 3 * _HOUR_NS + _HOUR_NS // 12 + 1_000 * i
            found.append(_message("H", ns, i + 1, self._stock(i) + b"T     "))
        found.append(_message("S", 4 * _HOUR_NS, 0, b"S"))
        prices = self._prices()
        for i in range(min(self._count, _EARLY_IMBALANCES)):
            price = prices[i]
            body = struct.pack(">QQc8sIIIcc", 40_000 + 100 * i, 1_500, b"B", self._stock(i), price,
                               price, price, b"O", b"L")  # fmt: skip
            found.append(_message("I", DAY.begin_ns - 120 * 10**9 + i, i + 1, body))
        found.append(_message("S", DAY.begin_ns, 0, b"Q"))
        found += [
            self._cross(i, DAY.begin_ns + 90 * (i + 1), prices[i], b"O") for i in range(self._count)
        ]
        return found

    def _end(self) -> list[bytes]:
        found = [_message("S", DAY.end_ns, 0, b"M")]
        prices = self._prices()
        found += [
            self._cross(i, DAY.end_ns + 1_000 * (i + 1), prices[i], b"C")
            for i in range(self._count)
        ]
        found.append(_message("S", 20 * _HOUR_NS, 0, b"E"))
        found.append(_message("S", 20 * _HOUR_NS + _HOUR_NS // 12, 0, b"C"))
        return found[: self._end_length]

    def _prices(self) -> list[int]:
        """Fair values in 1/10000 dollar."""
        return [int(value) // ONE * 100 for value in self._books.symbols["value"]]

    def _cross(self, i: int, ns: int, price: int, cross_type: bytes) -> bytes:
        match = int(self._flow[kernel.NEXT_MATCH])
        self._flow[kernel.NEXT_MATCH] += 1
        shares = 100 * (10 + 5_000 // (i + 1))
        body = struct.pack(">Q8sIQc", shares, self._stock(i), price, match, cross_type)
        return _message("Q", ns, i + 1, body)

    @property
    def left(self) -> int:
        """Messages of the day's course that are still to come."""
        return int(self._flow[LEFT])

    def emit(self, most: int) -> tuple[NDArray[np.uint8], int]:
        """At most ``most`` (> 0) of the next messages: (bytes, messages); none at the end."""
        if self._phase == 1:
            room = np.empty(most * kernel.LARGEST, np.uint8)
            count, size = kernel.run_flow(self._books, self._flow, self._rng, self._day, room, most)
            if count:
                return room[:size], count
            self._phase, self._sent, self._fixed = 2, 0, self._end()
        part = self._fixed[self._sent : self._sent + most]
        self._sent += len(part)
        if not part and self._phase == 0:
            self._phase = 1
            return self.emit(most)
        return np.frombuffer(b"".join(part), np.uint8), len(part)

    def snapshot(self) -> Any:
        """Copies of the state: 11 kB a symbol, and the day's closing messages while they last."""
        books = self._books
        arrays = (self._rng, self._flow, books.symbols, books.orders, books.levels)
        return (self._phase, self._sent, *(array.copy() for array in arrays))

    def restore(self, state: Any) -> None:
        """Go on exactly behind a snapshot of a session with the same arguments."""
        self._phase, self._sent, rng, flow, symbols, orders, levels = state
        self._rng, self._flow = rng.copy(), flow.copy()
        self._books = Books(symbols.copy(), orders.copy(), levels.copy(), self._books.zipf)
        if self._phase == 2:
            self._fixed = self._end()
