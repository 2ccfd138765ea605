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


def main() -> None:
    rows = []
    for instrument, side, price, size, ps, ss in np.load(sys.argv[1]).tolist():
        rows.append((instrument, side, Decimal(price).scaleb(-ps), Decimal(size).scaleb(-ss)))
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
        rates.append(len(rows) / (time.perf_counter() - started))
    print(json.dumps({"order-book": statistics.median(rates)}))


if __name__ == "__main__":
    main()
