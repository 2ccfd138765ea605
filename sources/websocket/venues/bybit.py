"""Bybit v5: ``wss://stream.bybit.com/v5/public/{spot,linear,inverse}``.

Source: Bybit API v5, "Connect" and "Orderbook": a ping every 20 s; at most 10 topics in a spot
subscription; an order book topic starts with a snapshot whenever it is subscribed. The last word
of the address is what tells the markets apart, so an address of your own must end in it too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from marketflow.sources.websocket.venues.base import HEAD, LiveVenue, chunks, decoded


class _Levels(msgspec.Struct):
    s: str


class _Book(msgspec.Struct):
    topic: str
    data: _Levels


_book: Final = msgspec.json.Decoder(_Book)


class Bybit(LiveVenue):
    """Spot. Symbols as in ``BTCUSDT``; other channels by their topics (``tickers``)."""

    NAME = "bybit"
    DECODER = "BYBIT"
    VENUE = "BYBIT"
    ADDRESS = "wss://stream.bybit.com/v5/public/spot"
    REST = "https://api.bybit.com"
    CATEGORY = "spot"
    EXAMPLE = "BTCUSDT"
    NAMES = {"book": "orderbook", "trades": "publicTrade", "quotes": "orderbook.1"}  # noqa: RUF012
    DEPTHS = (1, 50, 200, 1000)
    DEPTH = 200
    PING = '{"op":"ping"}'
    CHUNK = 10
    REFUSALS = (b'"success":false',)
    CHANNEL = re.compile(rb'"topic":"(.+?)\.[^".]+"')

    def channel_of(self, message: bytes) -> str:
        """A book's topic also says its depth."""
        topic = b'"orderbook.%d.' % self.depth
        return super().channel_of(message[:HEAD].replace(topic, b'"orderbook.', 1))

    def _messages(
        self, verb: str, channels: Sequence[str], symbols: Sequence[str]
    ) -> Iterator[str]:
        """{"op":"subscribe","args":["orderbook.200.BTCUSDT"]}"""
        topics = (
            f"{f'orderbook.{self.depth}' if channel == 'orderbook' else channel}.{symbol}"
            for channel in channels
            for symbol in symbols
        )
        for chunk in chunks(topics, self.CHUNK):
            yield json.dumps({"op": verb, "args": chunk})

    def full_book(self, message: bytes) -> str:
        head = message[:HEAD]
        if b'"orderbook.' not in head or b'"snapshot"' not in head:
            return ""
        book = decoded(_book, message)
        wanted = f"orderbook.{self.depth}."
        return book.data.s if book is not None and book.topic.startswith(wanted) else ""

    def listings(self) -> list[str]:
        return [f"/v5/market/instruments-info?category={self.CATEGORY}&limit=1000"]


class BybitLinear(Bybit):
    """USDT and USDC contracts."""

    NAME = "bybit_linear"
    VENUE = "BYBIT_LINEAR"
    ADDRESS = "wss://stream.bybit.com/v5/public/linear"
    CATEGORY = "linear"


class BybitInverse(Bybit):
    """Coin-margined contracts; symbols as in ``BTCUSD``."""

    NAME = "bybit_inverse"
    VENUE = "BYBIT_INVERSE"
    ADDRESS = "wss://stream.bybit.com/v5/public/inverse"
    CATEGORY = "inverse"
    EXAMPLE = "BTCUSD"
