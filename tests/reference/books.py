"""Books in plain dictionaries, driven by EVENT rows one by one: the twin of every fast book."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np

from marketflow.operators.events import EventKind
from marketflow.schemas.codes import RowFlag, Side
from marketflow.schemas.units import NO_PRICE

#: (price, size, orders), best first.
Levels = list[tuple[int, int, int]]


class NaiveBook:
    """One instrument; prices and sizes as the rows have them (one scale per feed)."""

    def __init__(self) -> None:
        self.orders: dict[int, tuple[int, int, int]] = {}
        self.levels: dict[int, dict[int, tuple[int, int]]] = {Side.BID: {}, Side.ASK: {}}
        self.unknown = 0

    def apply(self, row: Any) -> None:
        """One row; what is no change of a book does nothing."""
        kind, side = int(row["kind"]), int(row["side"])
        order, price, size = int(row["order_lo"]), int(row["price"]), int(row["size"])
        match kind:
            case EventKind.BEGIN if row["flags"] & RowFlag.SNAPSHOT:
                self._clear(0)
            case EventKind.CLEAR:
                self._clear(side)
            case EventKind.LEVEL if size:
                self.levels[side][price] = (size, int(row["count"]))
            case EventKind.LEVEL:
                self.levels[side].pop(price, None)
            case EventKind.ADD:
                self.orders[order] = (side, price, size)
            case EventKind.MODIFY | EventKind.REDUCE | EventKind.EXECUTE | EventKind.DELETE:
                self._change(kind, order, price, size)

    def _change(self, kind: int, order: int, price: int, size: int) -> None:
        if order not in self.orders:
            self.unknown += 1
            return
        side, old_price, old_size = self.orders.pop(order)
        if kind == EventKind.MODIFY:
            self.orders[order] = (side, old_price if price == NO_PRICE else price, size)
        elif kind != EventKind.DELETE and old_size > size:
            self.orders[order] = (side, old_price, old_size - size)

    def _clear(self, side: int) -> None:
        self.orders = {k: v for k, v in self.orders.items() if side and v[0] != side}
        for which in (side,) if side else (Side.BID, Side.ASK):
            self.levels[which].clear()

    def side(self, side: Side, most: int | None = None) -> Levels:
        """Levels of a side, of the orders or as told."""
        found: dict[int, tuple[int, int]] = dict(self.levels[side])
        if self.orders:
            sums: dict[int, list[int]] = defaultdict(lambda: [0, 0])
            for which, price, size in self.orders.values():
                if which == side:
                    sums[price][0] += size
                    sums[price][1] += 1
            found = {price: (size, count) for price, (size, count) in sums.items()}
        ordered = sorted(found.items(), reverse=side is Side.BID)
        return [(price, size, count) for price, (size, count) in ordered[:most]]


def groups(rows: np.ndarray) -> Iterator[np.ndarray]:
    """Rows cut behind every group: at END, or at LAST outside brackets."""
    start = 0
    bracket = False
    for i, (kind, flags) in enumerate(
        zip(rows["kind"].tolist(), rows["flags"].tolist(), strict=True)
    ):
        bracket = (bracket or kind == EventKind.BEGIN) and kind != EventKind.END
        if kind == EventKind.END or (not bracket and flags & RowFlag.LAST):
            yield rows[start : i + 1]
            start = i + 1
    assert start == len(rows), "rows after the last group"
