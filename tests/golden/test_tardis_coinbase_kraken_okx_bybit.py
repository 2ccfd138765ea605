"""Messages and what tardis-node makes of them, for Coinbase, Kraken, OKX and Bybit.

Each pair that is not in DIFFERENT agrees field by field: symbols, sides, times, every price and
size. A "derivative_ticker" repeats everything known of a contract; of it, what is new must be
what our rows of ``funding`` and ``statistics`` say (the last price aside: trades have it).
"""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from marketflow.operators.normalise.feed import Decoded, JsonFeed
from marketflow.operators.normalise.timestamps import rfc3339_ns
from marketflow.operators.venues import VENUES
from marketflow.schemas.messages.frames import FrameKind
from tests.support.captures import TestFrame, frames, read_lines
from tests.support.decoded import Group, Level, Print, Quote, letters, plain


class Pair(msgspec.Struct):
    exchange: str
    test: str
    n: int
    mapper_from: str
    raw: msgspec.Raw
    normalized: msgspec.Raw


VENUE = {
    "coinbase": "COINBASE_EXCHANGE",
    "kraken": "KRAKEN",
    "okex": "OKX",
    "okex-swap": "OKX",
    "bybit": "BYBIT",
}
_OLD_BYBIT = "an API generation before v5, switched off in 2023: a dead letter"
_QUOTE = "best prices of a contract's ticker are a quote to us; theirs come from another channel"
#: (exchange, test, number) -> why the outcome differs. Everything else is equal.
DIFFERENT = {
    (
        "coinbase",
        "map coinbase messages",
        6,
    ): "the size 0.-10000 is a dead letter; they leave it out",
    ("kraken", "map kraken messages", 6): "they name the channel as the symbol",
    ("okex-swap", "map okex-swap messages", 6): "they choose the channel of a book by date, we by "
    "what comes first",
    ("okex-swap", "map okex-swap messages", 12): "made by their recorder from REST: silent",
    ("okex-swap", "map okex-swap messages", 13): "made by their recorder from REST: silent",
    ("okex-swap", "map okex-swap messages", 18): "the index has its own row at once",
    ("okex-swap", "map okex-swap messages", 19): "the index price came with its own message",
    ("okex-swap", "map okex-swap messages", 22): "they choose the channel of quotes by date",
    ("okex-swap", "map okex-swap messages", 24): _QUOTE,
    **{("bybit", "map bybit messages", n): _OLD_BYBIT for n in range(1, 39)},
    **{("bybit", "map bybit messages", n): _QUOTE for n in range(45, 50)},
    ("bybit", "map bybit messages", 50): "liquidation: a row of statistics",
    ("bybit", "map bybit messages", 51): "liquidation: a row of statistics",
    ("bybit", "map bybit messages", 53): "liquidation: a row of statistics; they, by date, nothing",
    ("bybit", "map bybit messages", 54): "liquidation: a row of statistics",
}
LINEAR = TestFrame("", FrameKind.CONNECT, note="wss://stream.bybit.com/v5/public/linear")


def pairs(data: Path, exchange: str) -> list[Pair]:
    lines = read_lines(data / "tardis-normalization" / "raw_to_normalized.jsonl.zst")
    found = [msgspec.json.decode(line, type=Pair) for line in lines]
    return [pair for pair in found if pair.exchange == exchange]


class Decoders:
    """A decoder per test and generation of their mapper: none of them knows of the others."""

    def __init__(self, exchange: str) -> None:
        self.exchange = VENUE[exchange]
        self.feeds: dict[tuple[str, str], JsonFeed] = {}

    def decode(self, pair: Pair) -> Decoded:
        key = (pair.test, pair.mapper_from)
        if key not in self.feeds:
            self.feeds[key] = JsonFeed(VENUES[self.exchange]())
            self.feeds[key].apply(frames([LINEAR]))
        return self.feeds[key].apply(frames([TestFrame(bytes(pair.raw))]))


def levels(rows: list[dict[str, Decimal]]) -> list[Level]:
    return [(row["price"], row["amount"]) for row in rows]


def theirs(pair: Pair) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(
        bytes(pair.normalized), parse_float=Decimal, parse_int=Decimal
    )
    return found


def expected(pair: Pair) -> list[Any]:
    """Their events in our words."""
    found: list[Any] = []
    for row in theirs(pair):
        symbol, ts_event = row["symbol"], rfc3339_ns(row["timestamp"])
        if row["type"] == "trade":
            values = row["price"], row["amount"], row["side"], row["id"]
            found.append(Print(symbol, ts_event, *values))
        elif row["type"] == "book_change":
            bids, asks = levels(row["bids"]), levels(row["asks"])
            found.append(Group(symbol, ts_event, None, bids, asks, [], snapshot=row["isSnapshot"]))
        elif row["type"] == "book_ticker":
            sides = (row["bidPrice"], row["bidAmount"]), (row["askPrice"], row["askAmount"])
            found.append(Quote(symbol, ts_event, *sides))
        else:
            assert row["type"] in ("derivative_ticker", "liquidation")
    return found


def told(decoded: Decoded, timed: list[Any]) -> list[Any]:
    """Our events without what Tardis does not have, and with its time where the venue has none."""
    found: list[Any] = []
    for event in plain(decoded.events):
        if isinstance(event, Group):
            event = event._replace(last=None, previous=None, counts=())
        elif isinstance(event, Print | Quote):
            event = event._replace(sequence=None)
        found.append(event)
    found += unsized_quotes(decoded)
    return [
        event if event.ts_event else event._replace(ts_event=other.ts_event)
        for event, other in zip(found, timed, strict=True)
    ]


def rows_of(decoded: Decoded, table: str) -> list[dict[str, Any]]:
    batch = decoded.events.tables.get(table)
    return [] if batch is None else batch.drop_columns(["ts_recv"]).to_pylist()


def unsized_quotes(decoded: Decoded) -> list[Quote]:
    """Best prices without sizes, which are statistics."""
    best = {
        row["kind"]: row for row in rows_of(decoded, "statistics") if row["kind"].startswith("best")
    }
    if not best:
        return []
    bid, ask = best["best_bid"], best["best_ask"]
    symbol = decoded.events.instruments.symbols[bid["instrument"]]
    ts_event = decoded.events.tables["statistics"]["ts_event"].cast("int64")[0].as_py()
    return [Quote(symbol, ts_event, (bid["value"], None), (ask["value"], None))]


@pytest.mark.parametrize("exchange", list(VENUE))
def test_pairs_agree(data: Path, exchange: str) -> None:
    decoders = Decoders(exchange)
    agreed = different = 0
    for pair in pairs(data, exchange):
        decoded = decoders.decode(pair)
        want = expected(pair)
        key = (exchange, pair.test, pair.n)
        if key in DIFFERENT:
            different += 1
            continue
        assert letters(decoded) == [], key
        assert told(decoded, want) == want, key
        agreed += 1
    assert different == sum(key[0] == exchange for key in DIFFERENT)
    assert (
        agreed == {"coinbase": 8, "kraken": 13, "okex": 13, "okex-swap": 17, "bybit": 7}[exchange]
    )


def contract_values(decoded: Decoded) -> dict[str, Any]:
    """What our rows say of a contract, in their words."""
    found: dict[str, Any] = {}
    for row in rows_of(decoded, "funding"):
        found |= {
            "fundingRate": row["rate"],
            "fundingTimestamp": row["ts_next"],
            "markPrice": row["mark_price"],
            "indexPrice": row["index_price"],
        }
    words = {"open_interest": "openInterest", "mark_price": "markPrice"}
    for row in rows_of(decoded, "statistics"):
        if row["kind"] in words:
            found[words[row["kind"]]] = row["value"]
    return {name: value for name, value in found.items() if value is not None}


@pytest.mark.parametrize("exchange", ["okex-swap", "bybit"])
def test_contract_values_agree(data: Path, exchange: str) -> None:
    decoders = Decoders(exchange)
    last: dict[tuple[str, str], dict[str, Any]] = {}
    compared = 0
    for pair in pairs(data, exchange):
        if DIFFERENT.get((exchange, pair.test, pair.n)) == _OLD_BYBIT:
            continue
        ours = contract_values(decoders.decode(pair))
        for row in theirs(pair):
            if row["type"] != "derivative_ticker":
                continue
            before = last.get((row["symbol"], pair.mapper_from), {})
            last[row["symbol"], pair.mapper_from] = row
            kept = ("openInterest", "fundingRate", "fundingTimestamp", "indexPrice", "markPrice")
            values = {name: row[name] for name in kept if row[name] is not None}
            new = {name for name, value in values.items() if before.get(name) != value}
            for name in new | ours.keys():
                value = ours.get(name)
                if name == "fundingTimestamp":
                    value = None if value is None else value.strftime("%Y-%m-%dT%H:%M:%S.000Z")
                if (pair.n, name) == (19, "indexPrice") and exchange == "okex-swap":
                    continue  # see DIFFERENT
                assert value == values.get(name), (exchange, pair.n, name)
                compared += 1
    assert compared == {"okex-swap": 10, "bybit": 18}[exchange]


def test_different_pairs_are_what_they_are_said_to_be(data: Path) -> None:
    reasons = {}
    for exchange in VENUE:
        decoders = Decoders(exchange)
        for pair in pairs(data, exchange):
            decoded = decoders.decode(pair)
            key = (exchange, pair.test, pair.n)
            reasons[key] = [reason for reason, _ in letters(decoded)]
            why = DIFFERENT.get(key)
            if why == _QUOTE:
                assert len(list(plain(decoded.events))) == 1, key
            elif why is not None and why.startswith("liquidation"):
                (row,) = rows_of(decoded, "statistics")
                told_side = [r["side"] for r in theirs(pair)] or ["buy"]
                assert row["kind"] == f"liquidation_{told_side[0]}"
    assert reasons["coinbase", "map coinbase messages", 6] == ["bad_size"]
    for key, why in DIFFERENT.items():
        if why == _OLD_BYBIT and key[2] not in (25, 29, 30, 31, 32):
            assert reasons[key] == ["unknown_message"], key
