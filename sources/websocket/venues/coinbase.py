"""Coinbase Advanced Trade: ``wss://advanced-trade-ws.coinbase.com``.

Source: Coinbase Developer Platform, Advanced Trade WebSocket: a message subscribes to one channel;
without a subscription within 5 s the venue disconnects; the channel ``heartbeats`` sends once a
second and keeps quiet subscriptions open. Eight messages a second without authentication.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Final
from urllib.parse import urlencode

import msgspec

from marketflow.sources.websocket.venues.base import HEAD, LiveVenue, chunks, decoded


class _Event(msgspec.Struct):
    product_id: str


class _Books(msgspec.Struct):
    events: list[_Event]


_books: Final = msgspec.json.Decoder(_Books)


class Coinbase(LiveVenue):
    """Symbols as in ``BTC-USD``; other channels: ``candles``, ``status``, ``ticker_batch``."""

    NAME = "coinbase"
    DECODER = "COINBASE"
    VENUE = "COINBASE"
    ADDRESS = "wss://advanced-trade-ws.coinbase.com"
    REST = "https://api.coinbase.com"
    EXAMPLE = "BTC-USD"
    NAMES = {"book": "level2", "trades": "market_trades", "quotes": "ticker"}  # noqa: RUF012
    SILENCE_S = 20.0
    SEND_PAUSE_S = 0.15
    REFUSALS = (b'{"type":"error"',)
    CHANNEL = re.compile(rb'"channel":"([^"]+)"')
    CALLED = {"l2_data": "level2"}  # noqa: RUF012

    def subscribe(self) -> list[str]:
        return [*super().subscribe(), *self._messages("subscribe", ("heartbeats",), self.symbols)]

    def _messages(
        self, verb: str, channels: Sequence[str], symbols: Sequence[str]
    ) -> Iterator[str]:
        """{"type":"subscribe","product_ids":["BTC-USD"],"channel":"level2"}"""
        for channel in channels:
            for chunk in chunks(symbols, self.CHUNK):
                yield json.dumps({"type": verb, "product_ids": chunk, "channel": channel})

    def full_book(self, message: bytes) -> str:
        head = message[:HEAD]
        if b'"l2_data"' not in head or b'"snapshot"' not in head:
            return ""
        books = decoded(_books, message)
        return books.events[0].product_id if books is not None and books.events else ""

    def listings(self) -> list[str]:
        query = urlencode([("product_ids", symbol) for symbol in self.symbols])
        return [f"/api/v3/brokerage/market/products?{query}"]
