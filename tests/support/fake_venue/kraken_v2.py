"""Kraken's API v2, out of a recording of v1: the same books in the other version's words.

Digits stay as they were sent, so the recorded checksums hold. Snapshots have none.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Final

from tests.support.fake_venue.books import KrakenModel, Topic

_SIDES: Final = {"b": "buy", "s": "sell"}


class KrakenV2Model(KrakenModel):
    """Takes v1 messages, sends v2 messages."""

    def __init__(self) -> None:
        super().__init__()
        self._trades = 0

    def topic(self, text: str) -> Topic | None:
        found = super().topic(text)
        return None if found is None else (found[0].partition("-")[0], found[1])

    def wanted(self, text: str) -> tuple[str, list[Topic]]:
        message = json.loads(text)
        if message["method"] == "ping":
            return "ping", []
        params = message["params"]
        return message["method"], [(params["channel"], symbol) for symbol in params["symbol"]]

    def pong(self, text: str) -> str:
        return '{"method":"pong","success":true}'

    def apply(self, text: str, topic: Topic) -> str:
        if topic[0] != "book":
            return ""
        channel = json.loads(text)[-2]
        kind = super().apply(text, (channel, topic[1]))
        self.book_topic[topic[1]] = topic
        return kind

    def full_book(self, symbol: str) -> str:
        book = self.books[symbol]
        return _book("snapshot", symbol, book.best(book.bids), book.best(book.asks), "", "")

    def outgoing(self, text: str, topic: Topic | None) -> str:
        array = json.loads(text)
        if topic is None or array[-2] == "ticker":
            return '{"channel":"heartbeat"}'
        if topic[0] == "trade":
            return self._trade(array[1], topic[1])
        bids: list[list[str]] = []
        asks: list[list[str]] = []
        checksum = ""
        for part in array[1:-2]:
            bids += part.get("bs") or part.get("b") or []
            asks += part.get("as") or part.get("a") or []
            checksum = part.get("c", checksum)
        kind = "update" if checksum else "snapshot"
        newest = max((level[2] for level in bids + asks), default="")
        return _book(kind, topic[1], bids, asks, checksum, newest)

    def _trade(self, trades: list[list[str]], symbol: str) -> str:
        rows = []
        for price, volume, time, side, *_ in trades:
            self._trades += 1
            rows.append(
                f'{{"symbol":"{symbol}","side":"{_SIDES[side]}","price":{price},"qty":{volume},'
                f'"trade_id":{self._trades},"timestamp":"{_rfc3339(time)}"}}'
            )
        return f'{{"channel":"trade","type":"update","data":[{",".join(rows)}]}}'


def _book(
    kind: str, symbol: str, bids: list[Any], asks: list[Any], checksum: str, time: str
) -> str:
    sides = [
        f'"{name}":[{",".join(f"""{{"price":{p},"qty":{q}}}""" for p, q, *_ in levels)}]'
        for name, levels in (("bids", bids), ("asks", asks))
    ]
    more = f',"checksum":{checksum}' if checksum else ""
    more += f',"timestamp":"{_rfc3339(time)}"' if time else ""
    return (
        f'{{"channel":"book","type":"{kind}","data":[{{"symbol":"{symbol}",{",".join(sides)}'
        f"{more}}}]}}"
    )


def _rfc3339(seconds: str) -> str:
    whole, _, fraction = seconds.partition(".")
    moment = datetime.fromtimestamp(int(whole), UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{fraction.ljust(6, '0')[:6]}Z"
