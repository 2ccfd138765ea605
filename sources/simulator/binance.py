"""A simulated day of Binance spot streams, midnight to midnight UTC: the session and its state.

The frames are those of a recorded connection: combined-stream messages, and one REST book for each
symbol as an HTTP frame with its URL. All of them count as messages.
"""

from __future__ import annotations

from datetime import date
from math import isqrt
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from marketflow.schemas.moments import day_of
from marketflow.schemas.units import NS_PER_DAY, NS_PER_MINUTE
from marketflow.sources.simulator.chance import LEFT, ONE, TS, Day, draw, ticker, zipf_table
from marketflow.sources.simulator.kernels import binance as kernel
from marketflow.sources.simulator.kernels.book import FLOOR, REACH, WINDOW

_HOUR_NS: Final = 60 * NS_PER_MINUTE
_WEIGHTS: Final = (
    9,
    9,
    8,
    8,
    8,
    8,
    8,
    9,
    10,
    10,
    10,
    10,
    11,
    13,
    15,
    15,
    14,
    12,
    11,
    10,
    10,
    9,
    9,
    9,
)
_URL: Final = "https://api.binance.com/api/v3/depth?symbol={name}&limit=1000"
#: How far a fair value goes in a day, about, in ticks per 10,000.
_DAY_RANGE: Final = 200
_FIRST_LEVELS: Final = 40
_BYTES_PER_MESSAGE: Final = 400


class Books(NamedTuple):
    """State of the flow; ``names`` and ``zipf`` are constant."""

    symbols: NDArray[np.void]
    sizes: NDArray[np.int64]
    waiting: NDArray[np.int32]
    names: NDArray[np.uint8]
    zipf: NDArray[np.int32]


class _Day(NamedTuple):
    begin: int
    bucket: int
    weights: NDArray[np.int64]
    rest: NDArray[np.int64]


class Block(NamedTuple):
    """Messages: ``out[bounds[i]:bounds[i + 1]]``, FrameKind, arrival, and the symbol of a REST
    book."""

    out: NDArray[np.uint8]
    bounds: NDArray[np.int64]
    received: NDArray[np.int64]
    kinds: NDArray[np.int8]
    about: NDArray[np.int32]


class BinanceSession:
    """Messages of one seeded day in order; ``snapshot``/``restore`` are exact."""

    def __init__(self, events: int, seed: int, symbols: int, day: date) -> None:
        begin = day_of(day) * NS_PER_DAY
        span = Day(begin, _HOUR_NS, _WEIGHTS)
        self._day = _Day(span.begin_ns, span.bucket_ns, span.weights, span.rest)
        self._rng = np.array([seed], np.uint64)
        for _ in range(4):
            draw(self._rng)
        self._flow = np.zeros(kernel.FLOW_SLOTS, np.int64)
        self._flow[TS] = begin
        self._flow[LEFT] = events
        self.names = [f"{ticker(i)}USDT" for i in range(symbols)]
        self._books = self._fresh_books(events)

    def _fresh_books(self, events: int) -> Books:
        count = len(self.names)
        symbols = np.zeros(count, kernel.SYMBOL)
        names = np.zeros((count, kernel.NAME), np.uint8)
        zipf = zipf_table(count)
        books = Books(
            symbols,
            np.zeros((count, WINDOW), np.int64),
            np.zeros((count, kernel.WAITING), np.int32),
            names,
            zipf,
        )
        shares = np.bincount(zipf, minlength=count)
        for i, name in enumerate(self.names):
            names[i, : len(name)] = np.frombuffer(name.encode(), np.uint8)
            bits = int(draw(self._rng))
            fair = FLOOR + 600 + (bits % 5_000 << bits // 5_000 % 10)
            expected = max(events * int(shares[i]) // len(zipf), 1)
            reach = max(_DAY_RANGE * fair // 10_000, 1)
            row = symbols[i]
            row["value"], row["centre"] = fair * ONE, fair
            row["step"] = min(max(reach * ONE // isqrt(expected), 1), ONE // 2)
            row["half_spread"] = 1 + fair // 100_000
            row["name_size"] = len(name)
            row["id"] = 1_000_000 + bits // 50_000 % 10**9
            row["trade"] = 1_000 + bits // 50_000 % 10**7
            row["best_bid"], row["best_ask"] = fair - REACH, fair + REACH
            for distance in range(_FIRST_LEVELS):
                for is_bid in (True, False):
                    away = int(row["half_spread"]) + distance
                    tick = fair + 1 - away if is_bid else fair + away
                    self._first_level(books, i, is_bid, tick)
            row["sent"] = row["id"]
            row["waiting"] = 0
        return books

    def _first_level(self, books: Books, i: int, is_bid: bool, tick: int) -> None:
        row = books.symbols[i]
        books.sizes[i, tick % WINDOW] = 1_000 + int(draw(self._rng)) % 200_000
        row["bids" if is_bid else "asks"] += 1
        best = "best_bid" if is_bid else "best_ask"
        row[best] = max(row[best], tick) if is_bid else min(row[best], tick)

    def url(self, symbol: int) -> str:
        """Address of a symbol's REST book."""
        return _URL.format(name=self.names[symbol])

    @property
    def left(self) -> int:
        """Messages of the day's course that are still to come."""
        return int(self._flow[LEFT])

    def emit(self, most: int) -> tuple[Block, int]:
        """At most ``most`` (> 0) of the next messages and how many there are; 0 at the end."""
        block = Block(
            np.empty(kernel.LARGEST + most * _BYTES_PER_MESSAGE, np.uint8),
            np.empty(most + 1, np.int64),
            np.empty(most, np.int64),
            np.empty(most, np.int8),
            np.zeros(most, np.int32),
        )
        return block, kernel.run_flow(self._books, self._flow, self._rng, self._day, block)

    def snapshot(self) -> Any:
        """Copies of the state: 2.5 kB a symbol."""
        books = self._books
        arrays = (self._rng, self._flow, books.symbols, books.sizes, books.waiting)
        return tuple(array.copy() for array in arrays)

    def restore(self, state: Any) -> None:
        """Go on exactly behind a snapshot of a session with the same arguments."""
        self._rng, self._flow, symbols, sizes, waiting = (array.copy() for array in state)
        self._books = Books(symbols, sizes, waiting, self._books.names, self._books.zipf)
