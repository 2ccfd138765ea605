"""The C library order-book on prebuilt levels: updates per second. Argument: a .npy file of rows
(instrument, side, price, size, price scale, size scale)."""

from __future__ import annotations

import json
import statistics
import sys
import time
from decimal import Decimal

import numpy as np
from order_book import OrderBook


def run(rows: list[tuple[int, int, Decimal, Decimal]], read: bool) -> float:
    """Updates per second; ``read``: the best price of the side is looked at after each. The library
    sorts when it is read, so that without reading it has done half of the work."""
    rates = []
    for _ in range(3):
        books = {row[0]: OrderBook() for row in rows}
        started = time.perf_counter()
        for instrument, side, price, size in rows:
            book = books[instrument]
            levels = book.bids if side == 1 else book.asks
            if size:
                levels[price] = size
            elif price in levels:
                del levels[price]
            if read and len(levels):
                levels.index(0)
        rates.append(len(rows) / (time.perf_counter() - started))
    return statistics.median(rates)


def main() -> None:
    rows = []
    for instrument, side, price, size, ps, ss in np.load(sys.argv[1]).tolist():
        rows.append((instrument, side, Decimal(price).scaleb(-ps), Decimal(size).scaleb(-ss)))
    figures = {
        "order-book, best price read after each": run(rows, True),
        "order-book, never read": run(rows, False),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
