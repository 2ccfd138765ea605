"""Slow twin of operators.books.core, part 1: what a book is, numbers, plain rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np

from marketflow.operators import ids
from marketflow.operators.events import NO_SEQUENCE, EventKind
from marketflow.schemas.codes import DeadLetterReason, QualityKind
from marketflow.schemas.units import INT64_MAX, NO_PRICE, text_of, to_decimal

Q = QualityKind
Row = dict[str, Any]
SIDES = {1: "bid", 2: "ask"}
K = EventKind
CHANNEL_OF = {
    **dict.fromkeys((int(K.TRADE), int(K.BUST), int(K.CORRECTION)), "trades"),
    **dict.fromkeys((int(K.VENUE_BID), int(K.VENUE_ASK)), "quotes"),
}


@dataclass
class Level:
    size: Decimal = Decimal(0)
    count: int = 0
    sent: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    queue: list[Any] = field(default_factory=list)  # order keys, oldest first


@dataclass
class Book:
    index: int
    policy: Any
    symbol: str
    phase: str = "await"  # await, live, stale, splicing
    mode: str = "direct"
    price_exp: int = -1
    size_exp: int = -1
    sides: tuple[dict[Decimal, Level], dict[Decimal, Level]] = field(
        default_factory=lambda: ({}, {})
    )
    orders: dict[Any, list[Any]] = field(default_factory=dict)  # key -> [side, price, size]
    ts_max: int = 0
    channel_ts: dict[str, int] = field(default_factory=dict)
    state: str | None = None
    best: Any = None  # as last shown
    depth: Any = None
    bucket: int = -INT64_MAX
    open: bool = False
    changed: bool = False
    skewed: bool = False
    applied: int | None = None
    gone: int | None = None
    fresh: bool = False
    stale_since: int = 0
    cause: int | None = None
    first_delta: int = 0
    buffer: list[list[Any]] = field(default_factory=list)  # groups of rows
    trades: list[Any] = field(default_factory=list)
    venue_bid: Any = (None, None)
    venue_best: Any = None
    venue_quotes: list[Any] = field(default_factory=list)
    waiting: list[Any] = field(default_factory=list)
    own: list[Any] = field(default_factory=list)
    groups: int = 0
    mismatched: bool = False


def known(value: int) -> int | None:
    return None if value == NO_SEQUENCE else value


def signed(word: int) -> int:
    return int(np.uint64(word).astype(np.int64))


class TwinBase:
    """State of a shard and its rows. ``_go_stale`` comes from the machine above."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self.books: dict[int, Book] = {}
        self.carried: list[Any] = []
        self.quality_count = 0
        self.out: dict[str, list[Row]] = {}
        self.group_events: list[Row] | None = None
        self.replaying = False
        self.stats: dict[str, int] = {}

    def _go_stale(self, book: Book, row: Row, ts: int, cause: int | None) -> None:
        raise NotImplementedError

    def _put(self, table: str, book: Book, ts: int, row: Row, **values: Any) -> Row:
        made = {"ts_event": ts, "symbol": book.symbol, **values}
        if table != "depth":
            made["ts_recv"] = row["ts_recv"] or None
        self.out.setdefault(table, []).append(made)
        return made

    def _fault(self, book: Book, kind: Q, ts: int, row: Row, **values: Any) -> int:
        sequence = values.pop("sequence", known(row["sequence"]))
        event = {
            "kind": kind.name.lower(), "sequence_from": sequence, "sequence_to": sequence,
            "ts_until": None, "value": None, "expected": None, "cause_id": None, **values,
        }  # fmt: skip
        self._put("quality_events", book, ts, row, **event)
        self.quality_count += 1
        return self.quality_count - 1

    def _event(
        self, book: Book, ts: int, row: Row, action: str, side: str, price: Any, size: Any,
        order: Any, flags: int,
    ) -> None:  # fmt: skip
        if book.state == "crossed" and not book.policy["may_cross"]:
            flags |= 4
        order_id = None if order is None else ids.text_of(*order)
        made = self._put(
            "book_events", book, ts, row, sequence=known(row["sequence"]), action=action,
            side=side, price=price, size=size, order_id=order_id, flags=flags,
        )  # fmt: skip
        if self.group_events is not None:
            self.group_events.append(made)

    # Numbers.

    def _fit(self, book: Book, row: Row, what: str) -> Decimal | None:
        """Value of the row's price or size; None after a dead letter."""
        mantissa, scale = row[what], row[f"{what}_scale"]
        exp_name = f"{what}_exp"
        exp = getattr(book, exp_name)
        if what == "size" and mantissa < 0:
            self._dead(book, row, mantissa, scale, DeadLetterReason.NEGATIVE_SIZE)
            return None
        reduced, digits = mantissa, scale
        if mantissa == 0:
            reduced, digits = 0, min(max(scale, 0), 12) if exp < 0 else 0
        floor = max(exp, 0) if exp >= 0 else 12
        while digits > floor and reduced % 10 == 0 and reduced:
            reduced //= 10
            digits -= 1
        if digits > 12 or mantissa == NO_PRICE:
            self._dead(book, row, mantissa, scale, DeadLetterReason.OUT_OF_RANGE)
            return None
        new = max(exp, digits, 0)
        limit = min(10 ** (16 + new) - 1, INT64_MAX)
        value = to_decimal(reduced, digits)
        if exp >= 0 and new > exp:
            held = [
                abs(price) if what == "price" else level.size
                for side in book.sides
                for price, level in side.items()
            ]
            quoted = book.venue_bid and book.venue_bid[what == "size"]
            held += [abs(quoted)] if quoted else []
            if any(v.scaleb(new) > limit for v in held):
                self._dead(book, row, mantissa, scale, DeadLetterReason.OUT_OF_RANGE)
                return None
        if exp < 0:
            setattr(book, exp_name, new)
        if abs(value).scaleb(new) > limit:
            self._dead(book, row, mantissa, scale, DeadLetterReason.OUT_OF_RANGE)
            return None
        setattr(book, exp_name, new)
        return value

    def _dead(self, book: Book, row: Row, mantissa: int, scale: int, why: DeadLetterReason) -> None:
        self.out.setdefault("dead_letters", []).append(
            {
                "ts_recv": row["ts_recv"] or max(row["ts_event"], book.ts_max),
                "reason": why.name.lower(),
                "raw": b"" if mantissa == NO_PRICE else text_of(mantissa, scale).encode(),
            }
        )

    def _time(self, book: Book, row: Row) -> int:
        return int(row["ts_event"] or max(book.ts_max, row["ts_recv"]))

    def _check_time(self, book: Book, row: Row) -> None:
        ts = row["ts_event"]
        if ts == 0 or self.replaying:
            return
        channel = CHANNEL_OF.get(int(row["kind"]), "book")
        newest = book.channel_ts.get(channel, 0)
        if ts < newest:
            self._fault(book, Q.LATE, ts, row, value=newest - ts)
        book.channel_ts[channel] = max(newest, ts)
        book.ts_max = max(book.ts_max, ts)
        if row["ts_recv"]:
            skewed = row["ts_recv"] + self.config.clock_skew_ns < ts
            if skewed and not book.skewed:
                self._fault(book, Q.CLOCK_SKEW, ts, row, value=ts - row["ts_recv"])
            book.skewed = skewed
