"""The flow as one would write it first: bytewax with a Python object per message.

It does less than ours: a book of dictionaries per symbol that gives best prices, and trades; no
checks, no depth, no files. Both read the same ITCH bytes.
"""

from __future__ import annotations

import struct
import time
from collections import defaultdict
from typing import Any, Final

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, TestingSource, run_main

_BODIES: Final = {
    b"A": struct.Struct(">QcI8sI"), b"F": struct.Struct(">QcI8sI4s"), b"E": struct.Struct(">QIQ"),
    b"C": struct.Struct(">QIQcI"), b"X": struct.Struct(">QI"), b"D": struct.Struct(">Q"),
    b"U": struct.Struct(">QQII"), b"P": struct.Struct(">QcI8sIQ"),
}  # fmt: skip
_BATCH: Final = 1000


class _Book:
    """Best prices of one locate."""

    def __init__(self) -> None:
        self.orders: dict[int, list[Any]] = {}
        self.levels: dict[bytes, dict[int, int]] = {b"B": defaultdict(int), b"S": defaultdict(int)}
        self.shown: Any = None

    def add(self, ref: int, side: bytes, shares: int, price: int) -> None:
        self.orders[ref] = [side, shares, price]
        self.levels[side][price] += shares

    def take(self, ref: int, shares: int | None = None) -> list[Any] | None:
        order = self.orders.get(ref)
        if order is None:
            return None
        taken = order[1] if shares is None else shares
        levels = self.levels[order[0]]
        levels[order[2]] -= taken
        if levels[order[2]] <= 0:
            del levels[order[2]]
        order[1] -= taken
        if order[1] <= 0:
            del self.orders[ref]
        return order

    def best(self) -> Any:
        bids, asks = self.levels[b"B"], self.levels[b"S"]
        bid, ask = max(bids, default=0), min(asks, default=0)
        return (bid or None, bids.get(bid), ask or None, asks.get(ask))


def _decode(raw: bytes) -> tuple[str, tuple[bytes, int, tuple[Any, ...]]] | None:
    letter = raw[:1]
    body = _BODIES.get(letter)
    if body is None:
        return None
    locate, when = int.from_bytes(raw[1:3], "big"), int.from_bytes(raw[5:11], "big")
    return str(locate), (letter, when, body.unpack(raw[11:]))


def _step(
    book: _Book | None, message: tuple[bytes, int, tuple[Any, ...]]
) -> tuple[_Book, list[Any]]:
    book = book or _Book()
    letter, when, body = message
    rows: list[Any] = []
    if letter in b"AF":
        book.add(body[0], body[1], body[2], body[4])
    elif letter in b"EC":
        order = book.take(body[0], body[1])
        if order is not None:
            rows.append((when, "trade", order[2] if letter == b"E" else body[4], body[1]))
    elif letter == b"X":
        book.take(body[0], body[1])
    elif letter == b"D":
        book.take(body[0])
    elif letter == b"U":
        order = book.take(body[0])
        if order is not None:
            book.add(body[1], order[0], body[2], body[3])
    else:
        rows.append((when, "trade", body[4], body[2]))
    best = book.best()
    if best != book.shown:
        book.shown = best
        rows.append((when, "quote", *best))
    return book, rows


def measure(data: bytes, most: int) -> float:
    """Messages per second through the per-event flow."""
    messages: list[bytes] = []
    at = 0
    while at < len(data) and len(messages) < most:
        size = int.from_bytes(data[at : at + 2], "big")
        messages.append(data[at + 2 : at + 2 + size])
        at += 2 + size
    out: list[Any] = []
    flow = Dataflow("per_event")
    raw = op.input("feed", flow, TestingSource(messages, _BATCH))
    keyed = op.filter_map("decode", raw, _decode)
    rows = op.flatten(
        "rows", op.map("value", op.stateful_map("book", keyed, _step), lambda p: p[1])
    )
    op.output("sink", rows, TestingSink(out))
    started = time.perf_counter()
    run_main(flow)
    assert out
    return len(messages) / (time.perf_counter() - started)
