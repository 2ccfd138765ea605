"""nautilus_trader's L3 order book on prebuilt deltas: changes per second. Argument: a .npy file."""

from __future__ import annotations

import json
import statistics
import sys
import time

import numpy as np
from nautilus_trader.core.rust.model import BookType
from nautilus_trader.model.book import OrderBook
from nautilus_trader.model.data import BookOrder, OrderBookDelta
from nautilus_trader.model.enums import BookAction, OrderSide
from nautilus_trader.model.identifiers import InstrumentId
from nautilus_trader.model.objects import Price, Quantity

_ACTIONS = {1: BookAction.ADD, 2: BookAction.UPDATE, 3: BookAction.DELETE}


def main() -> None:
    rows = np.load(sys.argv[1]).tolist()
    ids = {row[0]: InstrumentId.from_str(f"S{row[0]}.XNAS") for row in rows}
    deltas = []
    for number, (instrument, action, side, order, price, size, ts) in enumerate(rows):
        resting = BookOrder(
            OrderSide.BUY if side == 1 else OrderSide.SELL,
            Price(price / 10_000, 4), Quantity(size, 0), order,
        )  # fmt: skip
        delta = OrderBookDelta(ids[instrument], _ACTIONS[action], resting, 0, number, ts, ts)
        deltas.append((instrument, delta))
    rates = []
    for _ in range(3):
        books = {i: OrderBook(ids[i], BookType.L3_MBO) for i in ids}
        started = time.perf_counter()
        for instrument, delta in deltas:
            books[instrument].apply_delta(delta)
        rates.append(len(deltas) / (time.perf_counter() - started))
    print(json.dumps({"nautilus_trader": statistics.median(rates)}))


if __name__ == "__main__":
    main()
