"""Recorded sessions of six venues: counts of a mature feed handler, and books that never cross.

``expected_callback_counts.json`` holds what cryptofeed calls back: one l2_book or l3_book per
snapshot and applied change, one ticker and trade each. Where our count differs, the test of the
venue says why. The books are replayed with dicts here, independently of the book engine.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from marketflow.operators.books.core import BookConfig, BookShard
from tests.support.captures import batches, capture_frames
from tests.support.decoded import Event, Group, Level, Print, Quote, feed, letters, plain

Best = tuple[Level | None, Level | None]


class Book:
    """Levels, or orders by id, of one instrument; changes wait for a snapshot to apply them to."""

    def __init__(self) -> None:
        self.levels: tuple[dict[Decimal, Decimal], dict[Decimal, Decimal]] = ({}, {})
        self.orders: dict[str | None, tuple[str, Decimal, Decimal]] = {}
        self.waiting: list[Group] | None = []
        self.sequence = -1
        #: (sequence, best bid and ask) after each group.
        self.history: list[tuple[int, Best]] = []
        self.counts: Counter[str] = Counter()

    def take(self, group: Group) -> None:
        if group.snapshot:
            self.levels, self.orders = ({}, {}), {}
            self.apply(group)
            waiting, self.waiting = self.waiting or [], None
            for change in waiting:
                self.take(change)
        elif self.waiting is not None:
            self.waiting.append(group)
        elif group.last is not None and group.last <= self.sequence:
            self.counts["in the snapshot"] += 1
            self.counts["last one in the snapshot"] += group.last == self.sequence
        else:
            follows = [(group.first, self.sequence + 1), (group.previous, self.sequence)]
            self.counts["gaps"] += any(told not in (None, want) for told, want in follows)
            self.apply(group)

    def apply(self, group: Group) -> None:
        self.counts["applied"] += 1
        self.counts["snapshots"] += group.snapshot
        self.sequence = -1 if group.last is None else group.last
        for side, rows in zip(self.levels, (group.bids, group.asks), strict=True):
            for price, size in rows:
                if size:
                    side[price] = size
                else:
                    self.counts["no-ops"] += side.pop(price, None) is None
        for order in group.orders:
            self._order(order.kind, order.side, order.order_id, order.price, order.size)
        best = self.best()
        self.counts["crossed or locked"] += None not in best and best[0][0] >= best[1][0]
        self.history.append((self.sequence, best))

    def _order(
        self, kind: str, side: str, order_id: str | None, price: Decimal | None, size: Decimal
    ) -> None:
        assert kind in ("ADD", "DELETE"), kind
        if kind == "ADD":
            assert price is not None
            self.counts["orders again"] += order_id in self.orders
            self.orders[order_id] = (side, price, size)
        else:
            self.counts["unknown orders"] += self.orders.pop(order_id, None) is None

    def top(self, count: int, without: set[Decimal]) -> tuple[list[Level], list[Level]]:
        """The best levels, orders added up, but for those of the sizes ``without``."""
        bids, asks = (
            {price: size for price, size in side.items() if size not in without}
            for side in self.levels
        )
        for side, price, size in self.orders.values():
            levels = bids if side == "bid" else asks
            levels[price] = levels.get(price, Decimal(0)) + size
        return sorted(bids.items(), reverse=True)[:count], sorted(asks.items())[:count]

    def best(self) -> Best:
        if self.orders:
            bids = [price for side, price, _ in self.orders.values() if side == "bid"]
            asks = [price for side, price, _ in self.orders.values() if side == "ask"]
            zero = Decimal(0)
            return (max(bids), zero) if bids else None, (min(asks), zero) if asks else None
        bid, ask = max(self.levels[0], default=None), min(self.levels[1], default=None)
        return (
            None if bid is None else (bid, self.levels[0][bid]),
            None if ask is None else (ask, self.levels[1][ask]),
        )


class Session:
    """A capture, decoded and replayed; see :func:`recorded`."""

    def __init__(self, data: Path, exchange: str) -> None:
        folder = data / "cryptofeed-captures"
        self.expected = json.loads((folder / "expected_callback_counts.json").read_text())[exchange]
        self.events: list[Event] = []
        self.letters: list[tuple[str, str]] = []
        self.tables: Counter[str] = Counter()
        decoder = feed(exchange)
        for batch in batches(capture_frames(folder / f"{exchange}.jsonl.zst")):
            decoded = decoder.apply(batch)
            self.events += plain(decoded.events)
            self.letters += letters(decoded)
            for name, rows in decoded.events.tables.items():
                self.tables[name] += rows.num_rows
                if name == "statistics":
                    self.tables["tickers"] += pc.sum(pc.equal(rows["kind"], "best_bid")).as_py()
        self.books: dict[str, Book] = {}
        for event in self.events:
            if isinstance(event, Group):
                self.books.setdefault(event.symbol, Book()).take(event)
        self.counts: Counter[str] = sum((b.counts for b in self.books.values()), Counter())
        assert self.counts["crossed or locked"] == self.counts["gaps"] == 0

    def of(self, kind: type) -> list[Any]:
        return [e for e in self.events if isinstance(e, kind)]


recorded = cache(Session)


def test_bitstamp(data: Path) -> None:
    session = recorded(data, "BITSTAMP")
    assert session.letters == []
    assert len(session.of(Print)) == session.expected["trades"] == 10
    counts = session.counts
    # cryptofeed applies a diff of the snapshot's own microtimestamp once more; there are two.
    assert counts["last one in the snapshot"] == 2
    assert counts["applied"] + 2 == session.expected["l2_book"] == 627
    assert counts["snapshots"] == session.tables["instruments"] == 10


def test_bitfinex(data: Path) -> None:
    session = recorded(data, "BITFINEX")
    assert session.letters == []
    assert session.counts["applied"] == session.expected["l2_book"] == 1600
    assert len(session.of(Print)) == session.expected["trades"] == 210
    assert session.tables["tickers"] == session.expected["ticker"] == 21
    # Every removal names a level that is there, and the window never holds more than was asked for.
    assert session.counts["no-ops"] == 0
    assert max(len(side) for book in session.books.values() for side in book.levels) == 100


def test_kucoin(data: Path) -> None:
    session = recorded(data, "KUCOIN")
    assert session.letters == []
    counts = session.counts
    assert len(session.of(Print)) == session.expected["trades"] == 18
    # cryptofeed applies the last change in each of the nine snapshots once more.
    assert counts["snapshots"] == counts["last one in the snapshot"] == 9
    assert counts["applied"] + 9 == session.expected["l2_book"] == 3823
    # Nearly all of them are changes at price "0".
    assert counts["no-ops"] == 1336
    assert len(session.of(Quote)) == session.expected["ticker"] == 830


def test_kucoin_quotes_are_the_book_at_their_sequence(data: Path) -> None:
    session = recorded(data, "KUCOIN")
    compared = 0
    for quote in session.of(Quote):
        history = session.books[quote.symbol].history if quote.symbol in session.books else []
        before = [best for sequence, best in history if sequence <= quote.sequence]
        if before:
            compared += 1
            assert before[-1] == (quote.bid, quote.ask)
    # The other eleven came before the book was there.
    assert compared == 819


def test_gateio(data: Path) -> None:
    session = recorded(data, "GATEIO")
    assert session.letters == []
    assert session.counts["applied"] == session.expected["l2_book"] == 169
    assert len(session.of(Print)) == session.expected["trades"] == 9
    assert session.tables["tickers"] == session.expected["ticker"] == 22
    assert session.tables["instruments"] == 10


def test_huobi(data: Path) -> None:
    session = recorded(data, "HUOBI")
    assert session.counts["applied"] == session.expected["l2_book"] == 292
    assert len(session.of(Print)) == session.expected["trades"] == 73
    # Sizes of more than twelve decimals that are not zeros have no place in the column: five
    # resting orders of three pairs, repeated in every whole book.
    assert Counter(session.letters) == {
        ("out_of_range", "ask level"): 36,
        ("out_of_range", "bid level"): 31,
    }


def test_independent_reserve(data: Path) -> None:
    session = recorded(data, "INDEPENDENT_RESERVE")
    assert session.letters == []
    counts = session.counts
    assert counts["snapshots"] == 5
    # cryptofeed does not call back for cancels of unknown orders. Five messages came before their
    # snapshot: cryptofeed applies them all, we only the one within the second before it was made.
    # Two of the others are orders that were gone again by then: there four callbacks, two new
    # orders and their cancels, where we have two cancels of unknown orders.
    assert counts["applied"] - counts["unknown orders"] + 4 == session.expected["l3_book"] == 1631
    assert (counts["unknown orders"], counts["orders again"]) == (37, 37)


#: What the book engine reports besides LATE (messages overtaken by a REST snapshot, and the last
#: trade of before the subscription, which Huobi sends first).
QUALITY: dict[str, dict[str, int]] = {
    "BITSTAMP": {},
    "BITFINEX": {},
    # Changes at price "0"; one ticker from before the snapshot came after it.
    "KUCOIN": {"no_op": 1336, "bbo_mismatch": 1},
    "GATEIO": {},
    "HUOBI": {},
    # What is applied again on top of the snapshots, and messages that the snapshot overtook.
    "INDEPENDENT_RESERVE": {"unknown_order": 37, "duplicate": 37},
}

#: Sizes that the engine leaves out: with eleven decimals in a book that also has a size above
#: 92,233,720, they fit no int64 together.
LEFT_OUT: dict[str, dict[bytes, int]] = {"HUOBI": {b"436947.11845272494": 14}}


@pytest.mark.parametrize("exchange", sorted(QUALITY))
def test_book_engine(data: Path, exchange: str) -> None:
    """No gap, no crossing, no outage; its last top levels are those of the replay with dicts."""
    session = recorded(data, exchange)
    decoder, shard = feed(exchange), BookShard(0, BookConfig())
    quality: Counter[str] = Counter()
    left_out: Counter[bytes] = Counter()
    states = set()
    last: dict[str, dict[str, Any]] = {}
    for batch in batches(
        capture_frames(data / "cryptofeed-captures" / f"{exchange}.jsonl.zst"), 100
    ):
        tables = shard.apply(decoder.apply(batch).events).tables
        if "quality_events" in tables:
            quality.update(tables["quality_events"]["kind"].to_pylist())
        if "dead_letters" in tables:
            left_out.update(tables["dead_letters"]["raw"].to_pylist())
        if "quotes" in tables:
            states.update(tables["quotes"]["book_state"].to_pylist())
        if "depth" in tables:
            columns = ["symbol", "bid_prices", "bid_sizes", "ask_prices", "ask_sizes"]
            last.update({row["symbol"]: row for row in tables["depth"].select(columns).to_pylist()})
    quality.pop("late", None)
    assert quality == QUALITY[exchange]
    assert left_out == LEFT_OUT.get(exchange, {})
    assert states == {"valid"}
    sizes = {Decimal(raw.decode()) for raw in left_out}
    for symbol, book in session.books.items():
        bids, asks = book.top(10, sizes)
        row = last[symbol]
        assert list(zip(row["bid_prices"], row["bid_sizes"], strict=True)) == bids
        assert list(zip(row["ask_prices"], row["ask_sizes"], strict=True)) == asks


@pytest.mark.parametrize(
    "exchange", ["BITSTAMP", "BITFINEX", "KUCOIN", "GATEIO", "HUOBI", "INDEPENDENT_RESERVE"]
)
def test_rows_do_not_depend_on_the_cut(data: Path, exchange: str) -> None:
    rows = capture_frames(data / "cryptofeed-captures" / f"{exchange}.jsonl.zst")[:400]

    def decoded(size: int) -> Iterable[Event]:
        decoder = feed(exchange)
        other = feed(exchange)
        for number, batch in enumerate(batches(rows, size)):
            if number == 3:
                other.restore(decoder.snapshot())
                decoder = other
            yield from plain(decoder.apply(batch).events)

    assert list(decoded(400)) == list(decoded(37))
