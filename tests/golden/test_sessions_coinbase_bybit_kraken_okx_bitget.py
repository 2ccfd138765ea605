"""Recorded sessions of Coinbase, Bybit, Kraken, OKX and Bitget: counts, chains, final books.

The counts are those of a mature feed handler (cryptofeed, ``expected_callback_counts.json``) or of
the recorded messages (``checksum-captures/expected.json``); where ours differ, the test says why.
Books are replayed with dicts here, independently of the book engine.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from marketflow.schemas.messages.frames import FrameKind
from tests.support.captures import TestFrame, batches, frames, read_lines
from tests.support.decoded import Event, Group, Level, Print, Quote, feed, letters, plain
from tests.support.sessions import CAPTURES, callbacks, recorded


class Replay:
    """What a recording decodes to, and its books after the last message."""

    def __init__(self, exchange: str, rows: list[TestFrame]) -> None:
        decoder = feed(exchange)
        self.events: list[Event] = []
        self.letters: list[tuple[str, str]] = []
        self.tables: Counter[str] = Counter()
        for batch in batches(rows):
            decoded = decoder.apply(batch)
            self.events += plain(decoded.events)
            self.letters += letters(decoded)
            for name, table in decoded.events.tables.items():
                self.tables[name] += table.num_rows
        self.books: dict[str, tuple[dict[Decimal, Decimal], dict[Decimal, Decimal]]] = {}
        for group in self.of(Group):
            self._apply(group)

    def _apply(self, group: Group) -> None:
        if group.snapshot:
            self.books[group.symbol] = ({}, {})
        for side, levels in zip(self.books[group.symbol], (group.bids, group.asks), strict=True):
            for price, size in levels:
                if size:
                    side[price] = size
                else:
                    side.pop(price, None)

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def top(self, symbol: str, levels: int) -> dict[str, list[Level]]:
        bids, asks = self.books[symbol]
        return {
            "bids": sorted(bids.items(), reverse=True)[:levels],
            "asks": sorted(asks.items())[:levels],
        }


def chains(groups: Iterable[Group], follows: Callable[[Group, Group], bool]) -> int:
    """Groups checked to follow the one before them of the same symbol."""
    last: dict[str, Group] = {}
    checked = 0
    for group in groups:
        if not group.snapshot:
            assert follows(last[group.symbol], group), group
            checked += 1
        last[group.symbol] = group
    return checked


def test_coinbase(data: Path) -> None:
    expected = callbacks(data, "COINBASE")
    replay = Replay("COINBASE", recorded(data, "COINBASE"))
    assert replay.letters == []
    assert len(replay.of(Group)) == expected["l2_book"] == 775
    assert len(replay.of(Quote)) == expected["ticker"] == 160
    # 79 from updates; the 200 of the first history are older than the recording.
    assert len(replay.of(Print)) == expected["trades"] == 79
    assert replay.tables == {"instruments": 2}
    assert chains(replay.of(Group), lambda a, b: b.previous == a.last) == 773


def test_coinbase_prints_on_the_side_of_the_maker(data: Path) -> None:
    """Why the aggressor is the opposite of ``side``: buyers trade near the ask of the book."""
    decoder = feed("COINBASE")
    replay = Replay("COINBASE", [])
    near = Counter[tuple[str, str]]()
    for batch in batches(recorded(data, "COINBASE"), 1):
        for event in plain(decoder.apply(batch).events):
            if isinstance(event, Group):
                replay._apply(event)
            elif isinstance(event, Print) and event.symbol in replay.books:
                top = replay.top(event.symbol, 1)
                (bid, _), (ask, _) = top["bids"][0], top["asks"][0]
                is_ask = abs(event.price - ask) < abs(event.price - bid)
                near[event.aggressor, "ask" if is_ask else "bid"] += 1
    assert near == {("buy", "ask"): 49, ("sell", "bid"): 25, ("sell", "ask"): 3, ("buy", "bid"): 1}


def test_coinbase_one_lost_message_concerns_every_book(data: Path) -> None:
    rows = [row for row in recorded(data, "COINBASE") if row.kind == FrameKind.DATA]
    del rows[100]
    applied: dict[str, int] = {}
    missing = []
    for group in Replay("COINBASE", rows).of(Group):
        if not group.snapshot and group.previous > applied[group.symbol]:
            missing.append(group.symbol)
        applied[group.symbol] = group.last
    assert sorted(missing) == ["BTC-USD", "ETH-USD"]


def test_bybit(data: Path) -> None:
    expected = callbacks(data, "BYBIT")
    rows = recorded(data, "BYBIT")
    both = Replay("BYBIT", rows)
    assert both.letters == []
    assert both.tables["instruments"] == 6
    # The two markets have symbols in common: replayed apart.
    linear, spot = (
        Replay("BYBIT", [r for r in rows if r.connection in (connection, "BYBIT.http.1")])
        for connection in ("BYBIT.ws.2", "BYBIT.ws.3")
    )
    groups = [len(market.of(Group)) for market in (linear, spot)]
    assert groups == [1598, 550] and sum(groups) == expected["l2_book"]
    prints = [len(market.of(Print)) for market in (linear, spot)]
    assert sum(prints) == len(both.of(Print)) == expected["trades"] == 347
    for market in (linear, spot):
        deltas = len(market.of(Group)) - len(market.books)
        assert chains(market.of(Group), lambda a, b: b.last == a.last + 1) == deltas
        assert all(len(side) == 200 for book in market.books.values() for side in book)
    # cryptofeed calls back for every ticker message, of spot too (81), and each time for funding,
    # index and open interest; here a row stands for a change of what it holds.
    assert expected["ticker"] == 839 and expected["funding"] == 758
    assert (len(linear.of(Quote)), len(spot.of(Quote))) == (638, 0)
    assert (linear.tables["funding"], linear.tables["statistics"]) == (140, 20)


def test_bybit_500_levels(data: Path) -> None:
    lines = read_lines(data / "bybit-ob500" / "2024-12-01_XRPUSDT_ob500_first50.data.zst")
    replay = Replay("BYBIT", [TestFrame(line) for line in lines])
    assert replay.letters == []
    groups = replay.of(Group)
    assert [g.snapshot for g in groups] == [True] + 49 * [False]
    assert chains(groups, lambda a, b: b.last == a.last + 1) == 49
    assert groups[0].ts_event == 1_733_011_200_589_000_000
    assert [len(side) for side in replay.books["XRPUSDT"]] == [500, 500]


@pytest.mark.parametrize(
    ("exchange", "trades", "quotes", "tables"),
    [
        # Three trade messages, one of them with two trades.
        ("KRAKEN", 4, 8, {"instruments": 5}),
        ("OKX", 69, 25, {"instruments": 1}),
        # 31 trade messages are five histories and 26 updates. The 172 tickers come without sizes:
        # best bid and ask of each are statistics, and the 108 of contracts have an open interest
        # and the funding.
        ("BITGET", 26, 0, {"instruments": 5, "statistics": 2 * 172 + 108, "funding": 108}),
    ],
)
def test_checksummed_books_end_as_recorded(
    data: Path, exchange: str, trades: int, quotes: int, tables: dict[str, int]
) -> None:
    expected = json.loads((data / "checksum-captures" / "expected.json").read_text())[exchange]
    replay = Replay(exchange, recorded(data, exchange))
    assert replay.letters == []
    books = "book" if exchange == "KRAKEN" else "books"
    assert len(replay.of(Group)) == expected["messages"][books]
    assert (len(replay.of(Print)), len(replay.of(Quote))) == (trades, quotes)
    assert replay.tables == tables
    assert replay.books.keys() == expected["final_top3"].keys()
    for symbol, top in expected["final_top3"].items():
        found = replay.top(symbol, 3)
        for side in ("bids", "asks"):
            assert found[side] == [(Decimal(p), Decimal(s)) for p, s in top[side]]


@pytest.mark.parametrize("exchange", list(CAPTURES))
def test_rows_do_not_depend_on_the_cut_or_a_restart(data: Path, exchange: str) -> None:
    rows = recorded(data, exchange)[:500]
    whole = list(plain(feed(exchange).apply(frames(rows)).events))
    decoder = feed(exchange)
    found: list[Event] = []
    for batch in batches(rows, 61):
        state = decoder.snapshot()
        decoder = feed(exchange)
        decoder.restore(state)
        found += plain(decoder.apply(batch).events)
    assert found == whole
