"""Messages and what tardis-node makes of them, for six feeds: equal wherever we mean the same.

The pairs come from tests of that library; they are of several generations of the venues' APIs, and
some are not the venue's messages at all: Tardis records snapshots, open interest and differences
of whole books in forms of its own ("generated", "update"). A snapshot of theirs becomes the
REST answer it stands for. A buffered change comes out of their mapper with the snapshot, merged
into it or behind it; ours passes at once and waits in the book engine, so both are spliced here.

Pairs whose outcome differs are in DIFFERENT, with what we do and why.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from marketflow.operators.normalise.feed import Decoded, JsonFeed
from marketflow.operators.normalise.timestamps import rfc3339_ns
from marketflow.operators.venues import VENUES
from marketflow.operators.venues.binance.feed import Binance
from marketflow.schemas.messages.frames import FrameKind
from tests.support.captures import TestFrame, frames, read_lines
from tests.support.decoded import Group, Level, Print, Quote, letters, plain


class Pair(msgspec.Struct):
    exchange: str
    n: int
    mapper_from: str
    local_timestamp_hint: str
    raw: msgspec.Raw
    normalized: msgspec.Raw


#: (exchange, number of the pair) -> (reason of our dead letter or "", why it differs).
DIFFERENT = {
    ("binance-futures", 1): ("malformed", "invented: an aggTrade without id; theirs is [] too"),
    ("binance-futures", 2): ("", "last price of a 24 h ticker: not kept"),
    ("binance-futures", 3): ("", "mark price: a row of funding, see test_mark_prices"),
    ("binance-futures", 9): ("", "open interest: a row of statistics"),
    ("binance-futures", 10): ("", "mark price: a row of funding, see test_mark_prices"),
    ("binance-futures", 13): ("", "liquidation: a row of statistics"),
    ("binance-futures", 14): ("", "mark price: a row of funding, see test_mark_prices"),
    ("bitfinex", 1): ("unknown_instrument", "a channel never subscribed; theirs is [] too"),
    ("bitfinex", 3): ("", "trades from before the subscription: we take those not seen yet"),
    ("bitfinex", 13): ("unknown_instrument", "no subscription; its recorder appended the symbol"),
    ("gate-io", 1): ("unknown_message", "API v3 (trades.update), switched off; theirs is [] too"),
    ("gate-io", 2): ("unknown_message", "API v3 (trades.update), switched off"),
    ("gate-io", 3): ("unknown_message", "API v3 (ticker.update), switched off; theirs is [] too"),
    ("gate-io", 4): ("unknown_message", "API v3 (depth.update), switched off"),
    ("gate-io", 5): ("unknown_message", "API v3 (depth.update), switched off"),
    ("gate-io", 6): ("unknown_message", "API v3 (depth.update), switched off"),
    ("huobi", 5): ("unknown_message", "the recorder's own difference of two whole books"),
    ("huobi", 9): ("unknown_message", "the same, and empty; theirs is [] too"),
    ("huobi", 13): ("unknown_message", "the recorder's own difference of two whole books"),
    ("huobi", 14): ("unknown_message", "channel of Huobi DM (futures), another API"),
    ("huobi", 15): ("unknown_message", "channel of Huobi DM (futures), another API"),
}


def pairs(data: Path, exchange: str) -> Iterator[Pair]:
    for line in read_lines(data / "tardis-normalization" / "raw_to_normalized.jsonl.zst"):
        pair = msgspec.json.decode(line, type=Pair)
        if pair.exchange == exchange:
            yield pair


class Raw(msgspec.Struct):
    """What tells a generated message; its body as it stands."""

    event: str = ""
    channel: str = ""
    symbol: str = ""
    generated: bool = False
    data: msgspec.Raw = msgspec.Raw(b"")
    result: msgspec.Raw = msgspec.Raw(b"")


def frame(pair: Pair, ts_recv: int) -> TestFrame:
    """The message; a generated snapshot as the REST answer that it was made of."""
    payload = bytes(pair.raw)
    if payload.lstrip()[:1] == b"{":
        raw = msgspec.json.decode(payload, type=Raw)
        if raw.generated and pair.exchange == "bitstamp":
            url = "https://www.bitstamp.net/api/v2/order_book/" + raw.channel.rpartition("_")[2]
            return TestFrame(bytes(raw.data), FrameKind.HTTP, "rest", url, ts_recv)
        if raw.generated and pair.exchange == "gate-io":
            url = f"https://api.gateio.ws/api/v4/spot/order_book?currency_pair={raw.symbol}"
            return TestFrame(bytes(raw.result), FrameKind.HTTP, "rest", url, ts_recv)
    return TestFrame(payload, ts_recv=ts_recv)


class Change(NamedTuple):
    symbol: str
    snapshot: bool
    bids: dict[Decimal, Decimal]
    asks: dict[Decimal, Decimal]
    ts_event: int


def merged(snapshot: Change, change: Change) -> Change:
    return snapshot._replace(
        bids={**snapshot.bids, **change.bids}, asks={**snapshot.asks, **change.asks}
    )


class Ours:
    """Our events in Tardis' words, changes held back until their book has a snapshot."""

    def __init__(self, exchange: str, merge: bool) -> None:
        self.exchange = exchange
        self.merge = merge
        self.at: dict[str, int] = {}
        self.waiting: dict[str, list[Group]] = {}

    def symbol(self, name: str) -> str:
        return name[1:] if self.exchange == "bitfinex" else name.upper()

    def told(self, decoded: Decoded, ts_recv: int) -> list[Any]:
        found: list[Any] = []
        for event in plain(decoded.events):
            if isinstance(event, Group):
                # An empty change says that frames are missing: the pairs are cut out of longer
                # recordings.
                if event.bids or event.asks or event.snapshot:
                    found += self._book(event, ts_recv)
            elif isinstance(event, Print | Quote):
                # Without an event time they stand at their arrival.
                at = event.ts_event or ts_recv
                name = self.symbol(event.symbol)
                found.append(event._replace(symbol=name, ts_event=at, sequence=None))
        return found

    def _change(self, group: Group, ts_recv: int) -> Change:
        ts_event = group.ts_event or ts_recv
        return Change(
            self.symbol(group.symbol), group.snapshot, dict(group.bids), dict(group.asks), ts_event
        )

    def _book(self, group: Group, ts_recv: int) -> list[Change]:
        change = self._change(group, ts_recv)
        whole_books = group.last is None or group.symbol in self.at
        if not group.snapshot and not whole_books:
            self.waiting.setdefault(group.symbol, []).append(group)
            return []
        if not group.snapshot:
            return [change]
        self.at[group.symbol] = group.last or 0
        later = [
            self._change(g, ts_recv)
            for g in self.waiting.pop(group.symbol, ())
            if (g.last or 0) > self.at[group.symbol]
        ]
        if not self.merge:
            return [change, *later]
        for one in later:
            change = merged(change, one)
        return [change]


def level(price: Decimal | None, size: Decimal | None) -> Level | None:
    return None if price is None or size is None else (price, size)


def theirs(pair: Pair) -> list[Any]:
    """What the library makes of it. Its decimals are the shortest texts of doubles: exact."""
    found: list[Any] = []
    for told in json.loads(bytes(pair.normalized), parse_float=Decimal):
        at = rfc3339_ns(told["timestamp"])
        match told["type"]:
            case "trade":
                price, size = Decimal(told["price"]), Decimal(told["amount"])
                found.append(Print(told["symbol"], at, price, size, told["side"], told["id"]))
            case "book_ticker":
                bid = level(Decimal(told["bidPrice"]), Decimal(told["bidAmount"]))
                ask = level(Decimal(told["askPrice"]), Decimal(told["askAmount"]))
                found.append(Quote(told["symbol"], at, bid, ask))
            case "book_change":
                sides = [
                    {Decimal(row["price"]): Decimal(row["amount"]) for row in told[side]}
                    for side in ("bids", "asks")
                ]
                found.append(Change(told["symbol"], told["isSnapshot"], sides[0], sides[1], at))
            case kind:
                assert kind in ("derivative_ticker", "liquidation")
                found.append(kind)
    return found


def arrival(pair: Pair) -> int:
    """Their local time: of the result where there is one (in ms), else the hint of the test."""
    for told in json.loads(bytes(pair.normalized)):
        return rfc3339_ns(told["localTimestamp"])
    return rfc3339_ns(pair.local_timestamp_hint)


def decoder_of(exchange: str) -> JsonFeed:
    match exchange:
        case "binance":
            return JsonFeed(Binance("spot"))
        case "binance-futures":
            return JsonFeed(Binance("usdm"))
        case "gate-io":
            return JsonFeed(VENUES["GATEIO"]())
        case _:
            return JsonFeed(VENUES[exchange.upper()]())


@pytest.mark.parametrize(
    ("exchange", "merge", "count"),
    [
        ("bitstamp", False, 7),
        ("bitfinex", False, 15),
        ("gate-io", False, 13),
        ("huobi", True, 24),
        ("binance", True, 10),
        ("binance-futures", True, 15),
    ],
)
def test_pairs(data: Path, exchange: str, merge: bool, count: int) -> None:
    """``merge``: their mapper puts buffered changes into the snapshot, not behind it."""
    found = list(pairs(data, exchange))
    assert len(found) == count
    for _, same_mapper in groupby(found, key=lambda pair: pair.mapper_from):
        decoder, ours = decoder_of(exchange), Ours(exchange, merge)
        for pair in same_mapper:
            ts_recv = arrival(pair)
            decoded = decoder.apply(frames([frame(pair, ts_recv)]))
            told = ours.told(decoded, ts_recv)
            reason, _ = DIFFERENT.get((exchange, pair.n), ("", ""))
            assert [r for r, _ in letters(decoded)] == ([reason] if reason else []), pair.n
            if (exchange, pair.n) in DIFFERENT:
                assert reason or told != theirs(pair), f"pair {pair.n} does not differ"
            else:
                assert told == theirs(pair), pair.n


def test_mark_prices(data: Path) -> None:
    decoder = decoder_of("binance-futures")
    compared = 0
    for pair in pairs(data, "binance-futures"):
        decoded = decoder.apply(frames([frame(pair, arrival(pair))]))
        if "funding" not in decoded.events.tables:
            continue
        rows = decoded.events.tables["funding"]
        (told,) = json.loads(bytes(pair.normalized), parse_float=Decimal)
        assert rows["mark_price"][0].as_py() == told["markPrice"]
        if told["indexPrice"] is not None:
            assert rows["index_price"][0].as_py() == told["indexPrice"]
        if told["fundingTimestamp"] is not None:
            assert rows["rate"][0].as_py() == told["fundingRate"]
            assert rows["ts_next"][0].value == rfc3339_ns(told["fundingTimestamp"])
        else:
            # A dated future has no funding; the message still says a rate of zero.
            assert (rows["rate"][0].as_py(), rows["ts_next"][0].as_py()) == (0, None)
        compared += 1
    assert compared == 3
