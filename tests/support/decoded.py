"""Decoded events as plain values that a test can write down, and examples out of docstrings."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from decimal import Decimal
from typing import Any, NamedTuple

from marketflow.operators import ids
from marketflow.operators.events import NO_SEQUENCE, EventBatch, EventKind
from marketflow.operators.normalise.feed import Decoded, JsonFeed
from marketflow.operators.venues import VENUES
from marketflow.schemas.codes import AggressorSide, RowFlag, Side
from marketflow.schemas.messages.frames import FrameKind
from marketflow.schemas.units import NO_PRICE
from tests.support.captures import TestFrame, frames

Level = tuple[Decimal, Decimal]


class Order(NamedTuple):
    kind: str
    side: str
    order_id: str | None
    price: Decimal | None
    size: Decimal


class Group(NamedTuple):
    """BEGIN to END; ``bids`` and ``asks`` are (price, size) in the order of the rows."""

    symbol: str
    ts_event: int
    last: int | None
    bids: list[Level]
    asks: list[Level]
    orders: list[Order]
    first: int | None = None
    previous: int | None = None
    snapshot: bool = False
    counts: tuple[int, ...] = ()


class Print(NamedTuple):
    symbol: str
    ts_event: int
    price: Decimal
    size: Decimal
    aggressor: str
    trade_id: str | None
    sequence: int | None = None


class Quote(NamedTuple):
    symbol: str
    ts_event: int
    bid: Level | None
    ask: Level | None
    sequence: int | None = None


class Other(NamedTuple):
    kind: str
    symbol: str | None


Event = Group | Print | Quote | Other


def examples(function: Callable[..., Any]) -> list[str]:
    """The JSON messages in a docstring: whatever starts a line with ``{`` or ``[`` and parses."""
    text = inspect.getdoc(function) or ""
    decoder = json.JSONDecoder()
    found: list[str] = []
    at = done = 0
    for line in text.splitlines(keepends=True):
        start = at + len(line) - len(line.lstrip())
        at += len(line)
        if start >= done and line.lstrip()[:1] in ("{", "["):
            with suppress(json.JSONDecodeError):
                _, done = decoder.raw_decode(text, start)
                found.append(text[start:done])
    return found


def http(url: str, payload: str, ts_recv: int = 1_600_000_000_000_000_000) -> TestFrame:
    return TestFrame(payload, FrameKind.HTTP, "http", url, ts_recv)


def feed(exchange: str) -> JsonFeed:
    return JsonFeed(VENUES[exchange]())


def decode(exchange: str, *items: str | TestFrame) -> Decoded:
    """The items through a fresh decoder, in one batch."""
    return feed(exchange).apply(frames(items))


def letters(decoded: Decoded) -> list[tuple[str, str]]:
    """(reason, detail) of the dead letters."""
    if decoded.dead is None:
        return []
    rows = decoded.dead.select(["reason", "detail"]).to_pylist()
    return [(row["reason"], row["detail"]) for row in rows]


def _sequence(word: int) -> int | None:
    signed = word - 2**64 if word >= 2**63 else word
    return None if signed == NO_SEQUENCE else signed


def _decimal(mantissa: int, scale: int) -> Decimal | None:
    return None if mantissa == NO_PRICE else Decimal(mantissa).scaleb(-scale)


def _level(row: Any) -> Level | None:
    price = _decimal(int(row["price"]), int(row["price_scale"]))
    size = _decimal(int(row["size"]), int(row["size_scale"]))
    return None if price is None or size is None else (price, size)


def plain(batch: EventBatch) -> Iterator[Event]:
    """The rows of a batch of whole groups, as plain values."""
    group: Group | None = None
    bid: Level | None = None
    for row in batch.rows:
        kind = EventKind(int(row["kind"]))
        index = int(row["instrument"])
        symbol = batch.instruments.symbols[index] if index >= 0 else None
        ts_event, sequence = int(row["ts_event"]), _sequence(int(row["sequence"]))
        level = _level(row)
        if kind is EventKind.BEGIN:
            assert group is None and symbol is not None
            group = Group(
                symbol,
                ts_event,
                sequence,
                [],
                [],
                [],
                _sequence(int(row["order_lo"])),
                _sequence(int(row["order_hi"])),
                bool(row["flags"] & RowFlag.SNAPSHOT),
            )
        elif kind is EventKind.END:
            assert group is not None
            yield group
            group = None
        elif kind is EventKind.LEVEL:
            assert group is not None and level is not None
            (group.bids if row["side"] == Side.BID else group.asks).append(level)
            if row["count"]:
                group = group._replace(counts=(*group.counts, int(row["count"])))
        elif kind is EventKind.TRADE:
            assert symbol is not None and level is not None
            trade_id = ids.text_of(
                int(row["trade_hi"]), int(row["trade_lo"]), int(row["trade_kind"])
            )
            side = AggressorSide(int(row["side"])).name.lower()
            yield Print(symbol, ts_event, *level, side, trade_id, sequence)
        elif kind is EventKind.VENUE_BID:
            bid = level
        elif kind is EventKind.VENUE_ASK:
            assert symbol is not None
            yield Quote(symbol, ts_event, bid, level, sequence)
        elif group is not None:
            order_id = ids.text_of(
                int(row["order_hi"]), int(row["order_lo"]), int(row["order_kind"])
            )
            price = _decimal(int(row["price"]), int(row["price_scale"]))
            size = Decimal(int(row["size"])).scaleb(-int(row["size_scale"]))
            side = Side(int(row["side"])).name.lower()
            group.orders.append(Order(kind.name, side, order_id, price, size))
        else:
            yield Other(kind.name, symbol)


def events(exchange: str, *items: str | TestFrame) -> list[Event]:
    """What the items decode to; none of them may become a dead letter."""
    decoded = decode(exchange, *items)
    assert letters(decoded) == []
    return list(plain(decoded.events))
