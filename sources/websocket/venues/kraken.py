"""Kraken spot: WebSocket API v2 (``ws:kraken``) and v1 (``ws:kraken_v1``).

Source: Kraken WebSocket API v2 and v1: a book's depth is one of 10, 25, 100, 500, 1000 and every
update carries a checksum; heartbeats come once a second while something is subscribed. Symbols are
``BTC/USD`` in v2, ``XBT/USD`` in v1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Final

import msgspec

from marketflow.sources.websocket.venues.base import HEAD, LiveVenue, chunks, decoded


class _Book(msgspec.Struct):
    symbol: str


class _Books(msgspec.Struct):
    data: list[_Book]


_books: Final = msgspec.json.Decoder(_Books)
_array: Final = msgspec.json.Decoder(list[msgspec.Raw])
_text: Final = msgspec.json.Decoder(str)


class Kraken(LiveVenue):
    """v2."""

    NAME = "kraken"
    DECODER = "KRAKEN"
    VENUE = "KRAKEN"
    ADDRESS = "wss://ws.kraken.com/v2"
    REST = "https://api.kraken.com"
    EXAMPLE = "BTC/USD"
    NAMES = {"book": "book", "trades": "trade", "quotes": "ticker"}  # noqa: RUF012
    DEPTHS = (10, 25, 100, 500, 1000)
    DEPTH = 100
    PING = '{"method":"ping"}'
    SILENCE_S = 30.0
    REFUSALS: ClassVar[tuple[bytes, ...]] = (b'"success":false', b'{"error":')
    ANSWERS = b'"method":'
    CHANNEL = re.compile(rb'"channel":"([^"]+)"')

    def _messages(
        self, verb: str, channels: Sequence[str], symbols: Sequence[str]
    ) -> Iterator[str]:
        """{"method":"subscribe","params":{"channel":"book","symbol":["BTC/USD"],"depth":100}}"""
        for channel in channels:
            for chunk in chunks(symbols, self.CHUNK):
                params: dict[str, Any] = {"channel": channel, "symbol": chunk}
                if channel == "book":
                    params["depth"] = self.depth
                yield json.dumps({"method": verb, "params": params})

    def full_book(self, message: bytes) -> str:
        head = message[:HEAD]
        if b'"book"' not in head or b'"snapshot"' not in head:
            return ""
        books = decoded(_books, message)
        return books.data[0].symbol if books is not None and books.data else ""

    def listings(self) -> list[str]:
        return ["/0/public/AssetPairs"]


class KrakenV1(Kraken):
    """v1; other channels: ``spread``, ``ohlc``."""

    NAME = "kraken_v1"
    ADDRESS = "wss://ws.kraken.com"
    EXAMPLE = "XBT/USD"
    PING = '{"event":"ping"}'
    REFUSALS = (b'"status":"error"',)
    CHANNEL = re.compile(rb',"([a-z]+)(?:-\d+)?","[^"]+"\]$')

    def channel_of(self, message: bytes) -> str:
        """The last but one item of an array names it."""
        return super().channel_of(message[-100:])

    def _messages(
        self, verb: str, channels: Sequence[str], symbols: Sequence[str]
    ) -> Iterator[str]:
        """{"event":"subscribe","pair":["XBT/USD"],"subscription":{"name":"book","depth":100}}"""
        for channel in channels:
            for chunk in chunks(symbols, self.CHUNK):
                subscription: dict[str, Any] = {"name": channel}
                if channel == "book":
                    subscription["depth"] = self.depth
                yield json.dumps({"event": verb, "pair": chunk, "subscription": subscription})

    def full_book(self, message: bytes) -> str:
        head = message[:HEAD]
        if not head.startswith(b"[") or (b'"as":' not in head and b'"bs":' not in head):
            return ""
        array = decoded(_array, message)
        return (decoded(_text, bytes(array[-1])) or "") if array else ""
